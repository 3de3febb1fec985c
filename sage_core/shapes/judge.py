"""The judge of the shapes world: a ViLT of 2 M parameters that answers this world's questions about a picture.

It is an ordinary `ViltForQuestionAnswering` with an ordinary BERT tokenizer, whose vocabulary is the words of the
questions and whose labels are the world's answers, among them "none" and "unclear".
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ShapesError
from ..files import whole_file, write_json, write_text
from .ask import ANSWERS, QUESTION_WORDS, question_list
from .model import PICTURE_SIZE
from .weights import WEIGHTS, load_packed

if TYPE_CHECKING:
    from ..tifa.judges import ModelJudge

SPECIAL_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?")
VOCABULARY = (*SPECIAL_WORDS, *QUESTION_WORDS)
_PAD, _CLS, _SEP, _MARK = (SPECIAL_WORDS.index(word) for word in ("[PAD]", "[CLS]", "[SEP]", "?"))
_PATCH = 8


def build_judge(width: int = 192, layers: int = 6, inner: int = 384) -> nn.Module:
    """The judge with fresh weights; its attention heads are 32 wide."""
    from transformers import ViltConfig, ViltForQuestionAnswering

    config = ViltConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=inner,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=judge_tokens().shape[1],
        pad_token_id=_PAD,
        image_size=PICTURE_SIZE,
        patch_size=_PATCH,
        id2label=dict(enumerate(ANSWERS)),
        label2id={answer: index for index, answer in enumerate(ANSWERS)},
    )
    return ViltForQuestionAnswering(config)


def judge_tokens() -> Tensor:
    """Token ids (Q, L) of every question of `question_list`, as the judge's tokenizer makes them: [CLS] … ? [SEP]."""
    words = question_list().tokens
    lengths = (words > 0).sum(1)
    tokens = torch.full((len(words), words.shape[1] + 3), _PAD)
    tokens[:, 0] = _CLS
    tokens[:, 1 : 1 + words.shape[1]] = torch.where(words > 0, words - 1 + len(SPECIAL_WORDS), _PAD)
    rows = torch.arange(len(words))
    tokens[rows, 1 + lengths] = _MARK
    tokens[rows, 2 + lengths] = _SEP
    return tokens


def judge_logits(judge: nn.Module, pictures: Tensor, tokens: Tensor) -> Tensor:
    """Logits (N·K, answers) of K questions a picture: pictures (N,3,64,64) in 0..1, tokens (N·K, L) picture by picture.

    The same numbers as the model's own forward gives on the processor's output. That forward picks patches in Python
    and in random order, which would take longer than the network itself.
    """
    vilt: Any = judge.vilt
    embeddings = vilt.embeddings
    patches = embeddings.patch_embeddings(pictures * 2 - 1).flatten(2).transpose(1, 2)
    patches = torch.cat([embeddings.cls_token.expand(len(patches), -1, -1), patches], 1)
    patches = patches + embeddings.position_embeddings + embeddings.token_type_embeddings.weight[1]
    patches = patches.repeat_interleave(len(tokens) // len(pictures), 0)
    words = embeddings.text_embeddings(tokens) + embeddings.token_type_embeddings.weight[0]
    padding = torch.cat([tokens == _PAD, tokens.new_zeros(patches.shape[:2], dtype=torch.bool)], 1)
    hidden = torch.cat([words, patches.to(words.dtype)], 1)
    mask = torch.zeros(padding.shape, dtype=hidden.dtype, device=hidden.device)
    mask = mask.masked_fill(padding, torch.finfo(torch.bfloat16).min)[:, None, None]
    hidden = vilt.encoder(hidden, attention_mask=mask).last_hidden_state
    classifier: Any = judge.classifier
    return classifier(vilt.pooler(vilt.layernorm(hidden)))


@torch.no_grad()
def answer_questions(judge: nn.Module, pictures: Tensor, questions: Tensor, batch_size: int = 512) -> Tensor:
    """The judge's answers, (N, Q) indices into ANSWERS, to (N, Q) question ids about pictures (N,3,H,W)."""
    if not len(pictures):
        return questions.new_zeros(questions.shape)
    tokens = judge_tokens().to(pictures.device)
    answers = [
        judge_logits(judge, part, tokens[asked].flatten(0, 1)).argmax(-1).view(asked.shape)
        for part, asked in zip(pictures.split(batch_size), questions.split(batch_size), strict=True)
    ]
    return torch.cat(answers)


def restore_judge(state: dict[str, Tensor]) -> nn.Module:
    """The judge whose weights are `state`, sizes taken from them."""
    width = state["vilt.embeddings.cls_token"].shape[-1]
    inner = state["vilt.encoder.layer.0.intermediate.dense.weight"].shape[0]
    layers = sum(name.endswith("intermediate.dense.weight") for name in state)
    judge = build_judge(width, layers, inner)
    expected = judge.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: v.shape for name, v in expected.items()}:
        raise ShapesError(
            "the judge's weights do not fit this world's questions and answers; install the package again or train "
            "with `python -m sage_core.shapes.train`"
        )
    judge.load_state_dict(state)
    return judge.eval()


def expand_judge(folder: Path, weights: Path = WEIGHTS) -> Path:
    """Write the judge as a model folder for transformers, as `from_pretrained` and TIFA's judges load it.

    Raises:
        ShapesError: the packed weights are missing, damaged or of another world.
    """
    from safetensors.torch import save_file

    state, metadata = load_packed("judge", weights)
    config: Any = restore_judge(state).config
    write_folder_config(folder)
    write_json(folder / "config.json", config.to_dict() | {"architectures": ["ViltForQuestionAnswering"]})
    with whole_file(folder / "model.safetensors") as temporary:
        save_file(state, temporary, metadata | {"format": "pt"})
    return folder


def write_folder_config(folder: Path) -> None:
    """The tokenizer's and the image processor's files."""
    write_text(folder / "vocab.txt", "\n".join(VOCABULARY) + "\n")
    longest = judge_tokens().shape[1]
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": longest},
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "ViltImageProcessor",
            "processor_class": "ViltProcessor",
            "do_resize": True,
            "size": {"shortest_edge": PICTURE_SIZE},
            "size_divisor": _PATCH,
            "resample": 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_pad": True,
        },
    )


def load_judge(weights: Path = WEIGHTS, device: str | torch.device = "cpu") -> ModelJudge:
    """The judge behind TIFA's protocol, from the packed weights."""
    from ..tifa.judges import load_judge as load_folder

    with tempfile.TemporaryDirectory() as folder:
        judge = load_folder(expand_judge(Path(folder), weights), device=device)
    judge.name = "shapes judge"
    return judge
