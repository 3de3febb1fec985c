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
PATCH = 8


def build_judge(width: int = 192, layers: int = 6, inner: int = 384) -> nn.Module:
    """The judge with fresh weights; its attention heads are 32 wide.

    Patches start with sines and cosines of their row and column as positions, not with ViLT's zeros, which tell no
    patch from another at first.
    """
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
        patch_size=PATCH,
        id2label=dict(enumerate(ANSWERS)),
        label2id={answer: index for index, answer in enumerate(ANSWERS)},
    )
    judge = ViltForQuestionAnswering(config)
    with torch.no_grad():
        judge.vilt.embeddings.position_embeddings[0, 1:] = 0.2 * grid_positions(PICTURE_SIZE // PATCH, width)
    return judge


def grid_positions(side: int, width: int) -> Tensor:
    """(side², width) sines and cosines, half of them of the row and half of the column."""
    rates = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([waves.repeat_interleave(side, 0), waves.repeat(side, 1)], 1)


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


def judge_forward(judge: nn.Module, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N·K, answers) of K questions a picture, and the patches' states (N·K, patches, width) after two thirds.

    Pictures are (N,3,64,64) in 0..1, tokens (N·K, L) picture by picture. The same logits as the model's own forward
    gives on the processor's output. That forward picks patches in Python and in random order, which would take longer
    than the network itself, and keeps all of its attention.
    """
    vilt: Any = judge.vilt
    embeddings = vilt.embeddings
    patches = embeddings.patch_embeddings(pictures * 2 - 1).flatten(2).transpose(1, 2)
    patches = torch.cat([embeddings.cls_token.expand(len(patches), -1, -1), patches], 1)
    patches = patches + embeddings.position_embeddings + embeddings.token_type_embeddings.weight[1]
    patches = patches.repeat_interleave(len(tokens) // len(pictures), 0)
    words = embeddings.text_embeddings(tokens) + embeddings.token_type_embeddings.weight[0]
    seen = torch.cat([tokens != _PAD, tokens.new_ones(patches.shape[:2], dtype=torch.bool)], 1)[:, None, None]
    hidden = torch.cat([words, patches.to(words.dtype)], 1)
    layers = list(vilt.encoder.layer)
    two_thirds = -(-2 * len(layers) // 3)
    for layer in layers[:two_thirds]:
        hidden = _through(layer, hidden, seen)
    states = hidden[:, tokens.shape[1] + 1 :]
    for layer in layers[two_thirds:]:
        hidden = _through(layer, hidden, seen)
    classifier: Any = judge.classifier
    return classifier(vilt.pooler(vilt.layernorm(hidden))), states


def _through(layer: Any, hidden: Tensor, seen: Tensor) -> Tensor:
    """One of ViLT's layers, with attention that does not keep what every token sees of every other."""
    inner = layer.attention.attention
    normed = layer.layernorm_before(hidden)
    query, key, value = (
        project(normed).unflatten(-1, (-1, inner.attention_head_size)).transpose(1, 2)
        for project in (inner.query, inner.key, inner.value)
    )
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)
    hidden = hidden + layer.attention.output.dense(mixed)
    return hidden + layer.output.dense(layer.intermediate(layer.layernorm_after(hidden)))


@torch.no_grad()
def answer_questions(judge: nn.Module, pictures: Tensor, questions: Tensor, batch_size: int = 512) -> Tensor:
    """The judge's answers, (N, Q) indices into ANSWERS, to (N, Q) question ids about pictures (N,3,H,W)."""
    if not len(pictures):
        return questions.new_zeros(questions.shape)
    tokens = judge_tokens().to(pictures.device)
    answers = [
        judge_forward(judge, part, tokens[asked].flatten(0, 1))[0].argmax(-1).view(asked.shape)
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
            "size_divisor": PATCH,
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
