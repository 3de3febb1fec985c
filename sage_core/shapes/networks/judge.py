"""The judge of the shapes world: a BLIP of 2 M parameters that answers this world's questions about a picture.

It is an ordinary `BlipForQuestionAnswering` with an ordinary BERT tokenizer. Its vocabulary is the words of the world's
questions and answers, "none" and "unclear" among them. It encodes a picture once for all questions about it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ShapesError
from ...files import write_json, write_tensors, write_text
from ..ask import ANSWERS, QUESTION_WORDS, question_list
from .model import PICTURE_SIZE
from .weights import WEIGHTS, load_packed

if TYPE_CHECKING:
    from ...tifa.judges.base import ModelJudge

SPECIAL_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?")
VOCABULARY = (*SPECIAL_WORDS, *QUESTION_WORDS)
_PAD, _CLS, END, _MARK = (SPECIAL_WORDS.index(word) for word in ("[PAD]", "[CLS]", "[SEP]", "?"))
# The token of each of ANSWERS, which are one word each.
ANSWER_TOKENS = tuple(VOCABULARY.index(answer) for answer in ANSWERS)
PATCH = 8


def build_judge(width: int = 128, layers: int = 6, text_layers: int = 2, inner: int = 384) -> nn.Module:
    """The judge with fresh weights; its attention heads are 32 wide.

    The positions of patches start as sines and cosines of row and column. From noise the judge would first have to
    learn which patches are neighbours.
    """
    from transformers import BlipConfig, BlipForQuestionAnswering

    sizes = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": width // 32}
    words = {
        "vocab_size": len(VOCABULARY),
        "encoder_hidden_size": width,
        "num_hidden_layers": text_layers,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": _CLS,
        "eos_token_id": END,
        "sep_token_id": END,
        "pad_token_id": _PAD,
    }
    picture = {"num_hidden_layers": layers, "image_size": PICTURE_SIZE, "patch_size": PATCH}
    judge = BlipForQuestionAnswering(
        BlipConfig(text_config=sizes | words, vision_config=sizes | picture, projection_dim=width)
    )
    with torch.no_grad():
        judge.vision_model.embeddings.position_embedding[0, 1:] = 0.2 * grid_positions(PICTURE_SIZE // PATCH, width)
    return judge


def grid_positions(side: int, width: int) -> Tensor:
    """Sines and cosines, half of them of the row and half of the column, (side², width)."""
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
    tokens[rows, 2 + lengths] = END
    return tokens


def look(judge: nn.Module, pictures: Tensor) -> Tensor:
    """The judge's states of pictures (N,3,64,64) in 0..1: (N, 1 + patches, width), equal to its own tower's."""
    tower: Any = judge.vision_model
    patches = tower.embeddings.patch_embedding(pictures * 2 - 1).flatten(2).transpose(1, 2)
    patches = torch.cat([tower.embeddings.class_embedding.expand(len(patches), -1, -1), patches], 1)
    hidden = patches + tower.embeddings.position_embedding
    for layer in tower.encoder.layers:
        heads = layer.self_attn.num_heads
        parts = layer.self_attn.qkv(layer.layer_norm1(hidden)).chunk(3, -1)
        hidden = hidden + layer.self_attn.projection(_attend(parts[0], parts[1], parts[2], heads))
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return tower.post_layernorm(hidden)


def reply(judge: nn.Module, seen: Tensor, questions: Tensor, written: Tensor) -> Tensor:
    """Logits of the next word at each place of N·K answers, (N·K, T, vocabulary).

    They equal those of the model's own forward pass, which projects a picture again for every question about it.

    Args:
        judge: the judge.
        seen: what `look` returned, (N, S, width).
        questions: tokens (N·K, L), the K questions about the first picture first.
        written: the tokens that the answers begin with, (N·K, T).
    """
    model: Any = judge
    padding = torch.zeros(questions.shape, device=questions.device).masked_fill(questions == _PAD, -1e4)[:, None, None]
    read = _through(model.text_encoder.encoder, model.text_encoder.embeddings, questions, padding, seen, None)
    length = written.shape[1]
    later = torch.full((length, length), -1e4, device=written.device).triu(1)
    decoder = model.text_decoder.bert
    return model.text_decoder.cls(_through(decoder.encoder, decoder.embeddings, written, later, read, padding))


def begin(words: Tensor) -> Tensor:
    """Put the token that begins every answer before answers (N,) of one word each, or (N, T)."""
    return F.pad(words.view(len(words), -1), (1, 0), value=_CLS)


def _through(stack: Any, table: Any, tokens: Tensor, hidden_from: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
    """States of `tokens` (N·K, L) after a stack of layers that also attend to `other`.

    `other` is (N, S, width), which the K questions about each picture share, or (N·K, S, width). `hidden_from` is added
    to the scores of self-attention, `mask` to those of cross-attention.
    """
    hidden = table.LayerNorm(table.word_embeddings(tokens) + table.position_embeddings.weight[: tokens.shape[1]])
    for layer in stack.layer:
        own, cross = layer.attention, layer.crossattention
        heads = own.self.num_attention_heads
        mixed = _attend(own.self.query(hidden), own.self.key(hidden), own.self.value(hidden), heads, hidden_from)
        hidden = own.output.LayerNorm(own.output.dense(mixed) + hidden)
        # All questions about a picture are one sequence, so that the picture is projected once for them.
        asking = cross.self.query(hidden).view(len(other), -1, hidden.shape[2])
        mixed = _attend(asking, cross.self.key(other), cross.self.value(other), heads, mask).view_as(hidden)
        hidden = cross.output.LayerNorm(cross.output.dense(mixed) + hidden)
        hidden = layer.output.LayerNorm(layer.output.dense(layer.intermediate(hidden)) + hidden)
    return hidden


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    mask = mask if mask is None else mask.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


@torch.no_grad()
def answer_questions(judge: nn.Module, pictures: Tensor, questions: Tensor, batch_size: int = 512) -> Tensor:
    """The judge's answers, (N, Q) indices into ANSWERS, to (N, Q) question ids about pictures (N,3,H,W)."""
    if not len(pictures):
        return questions.new_zeros(questions.shape)
    tokens = judge_tokens().to(pictures.device)
    possible = torch.tensor(ANSWER_TOKENS, device=pictures.device)
    answers = []
    for part, asked in zip(pictures.split(batch_size), questions.split(batch_size), strict=True):
        nothing = asked.new_empty(asked.numel(), 0)
        logits = reply(judge, look(judge, part), tokens[asked].flatten(0, 1), begin(nothing))[:, 0, possible]
        answers.append(logits.argmax(-1).view(asked.shape))
    return torch.cat(answers)


_STRANGE = (
    "The judge's weights do not fit this world's questions and answers; install the package again or train with "
    "`python -m sage_core.shapes.train`."
)


def restore_judge(state: dict[str, Tensor]) -> nn.Module:
    """The judge whose weights are `state`, sizes taken from them."""
    embedding = "vision_model.embeddings.class_embedding"
    if embedding not in state:
        raise ShapesError(_STRANGE)
    layers, text_layers = (
        sum(name.startswith(f"{part}.encoder.layer") and name.endswith(last) for name in state)
        for part, last in (("vision_model", "fc1.weight"), ("text_encoder", "intermediate.dense.weight"))
    )
    inner = state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
    judge = build_judge(state[embedding].shape[-1], layers, text_layers, inner)
    expected = judge.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: v.shape for name, v in expected.items()}:
        raise ShapesError(_STRANGE)
    judge.load_state_dict(state)
    return judge.eval()


def expand_judge(folder: Path, weights: Path = WEIGHTS) -> Path:
    """Write the judge as a model folder for transformers, as `from_pretrained` and TIFA's judges load it.

    Raises:
        ShapesError: the packed weights are missing, damaged or of another world.
    """
    state, metadata = load_packed("judge", weights)
    config: Any = restore_judge(state).config
    write_folder_config(folder)
    write_json(folder / "config.json", config.to_dict() | {"architectures": ["BlipForQuestionAnswering"]})
    write_tensors(folder / "model.safetensors", state, metadata)
    return folder


def write_folder_config(folder: Path) -> None:
    """Write the tokenizer's and the image processor's files."""
    write_text(folder / "vocab.txt", "\n".join(VOCABULARY) + "\n")
    longest = judge_tokens().shape[1]
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": longest},
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "BlipImageProcessor",
            "processor_class": "BlipProcessor",
            "do_resize": True,
            "size": {"height": PICTURE_SIZE, "width": PICTURE_SIZE},
            "resample": 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    )


def load_judge(weights: Path = WEIGHTS, device: str | torch.device = "cpu") -> ModelJudge:
    """Load the judge as TIFA's judges are loaded, from the packed weights."""
    from ...tifa.judges.base import load_judge as load_folder

    with tempfile.TemporaryDirectory() as folder:
        judge = load_folder(expand_judge(Path(folder), weights), device=device)
    judge.name = "shapes judge"
    return judge
