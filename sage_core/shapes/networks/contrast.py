"""A contrastive image-text model, CLIP (Radford et al. 2021) in miniature: this world's stand-in for CLIPScore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ...encoders.tokens import CONTEXT_LENGTH, END_TOKEN, VOCABULARY_SIZE, tokenize
from .model import PICTURE_SIZE
from .weights import WEIGHTS, load_packed

_PATCH = 8
_UNKNOWN = 0


class ContrastModel(nn.Module):
    """Embeds pictures and prompts as unit vectors in one space, near each other when they belong together.

    It has a row for each of the CLIP tokens `used_tokens`; all other tokens share one row.
    """

    used_tokens: Tensor

    def __init__(self, used_tokens: Tensor, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.register_buffer("used_tokens", used_tokens.long())
        self.patches = nn.Conv2d(3, width, _PATCH, stride=_PATCH)
        self.patch_positions = nn.Parameter(0.02 * torch.randn((PICTURE_SIZE // _PATCH) ** 2, width))
        self.words = nn.Embedding(len(used_tokens) + 1, width)
        nn.init.normal_(self.words.weight, std=0.02)
        self.word_positions = nn.Parameter(0.02 * torch.randn(CONTEXT_LENGTH, width))
        self.image_tower, self.text_tower = _tower(width, layers), _tower(width, layers)
        self.image_head, self.text_head = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.66))

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """Embed pictures (N,3,64,64) in 0..1 as unit vectors (N, width)."""
        hidden = self.patches(pictures * 2 - 1).flatten(2).transpose(1, 2) + self.patch_positions
        return nn.functional.normalize(self.image_head(self.image_tower(hidden).mean(1)).float(), dim=-1)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Embed token ids (N, 77), or fewer columns if all prompts are shorter, as unit vectors (N, width)."""
        rows = torch.full((VOCABULARY_SIZE,), _UNKNOWN, device=tokens.device)
        rows[self.used_tokens] = torch.arange(1, len(self.used_tokens) + 1, device=tokens.device)
        padding = torch.zeros_like(tokens, dtype=torch.bool)
        padding[:, 1:] = tokens[:, :-1] == END_TOKEN
        hidden = self.words(rows[tokens]) + self.word_positions[: tokens.shape[1]]
        hidden = self.text_tower(hidden, src_key_padding_mask=padding).masked_fill(padding[..., None], 0)
        mean = hidden.sum(1) / (~padding).sum(1, keepdim=True)
        return nn.functional.normalize(self.text_head(mean).float(), dim=-1)

    @torch.no_grad()
    def similarity(self, pictures: Tensor, prompts: Sequence[str], batch_size: int = 1000) -> Tensor:
        """Cosine of each picture and its prompt, (N,)."""
        tokens = tokenize(prompts).to(pictures.device)
        return torch.cat(
            [
                (self.embed_pictures(part) * self.embed_tokens(ids)).sum(-1)
                for part, ids in zip(pictures.split(batch_size), tokens.split(batch_size), strict=True)
            ]
        )


def contrastive_loss(pictures: Tensor, prompts: Tensor, log_scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy over a batch of unit vectors (N, width), of which equal rows belong together."""
    logits = log_scale.clamp(max=4.6).exp() * pictures @ prompts.T
    own = torch.arange(len(logits), device=logits.device)
    return (nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)) / 2


def load_contrast(weights: Path = WEIGHTS) -> ContrastModel:
    """The trained model on the CPU."""
    return restore_contrast(load_packed("contrast", weights)[0])


def restore_contrast(state: dict[str, Tensor]) -> ContrastModel:
    """The model whose weights are `state`, sizes taken from them."""
    layers = sum(name.startswith("image_tower.") and name.endswith("linear1.weight") for name in state)
    model = ContrastModel(state["used_tokens"], state["image_head.weight"].shape[0], layers)
    model.load_state_dict(state)
    return model.eval()


def _tower(width: int, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, width // 32, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
