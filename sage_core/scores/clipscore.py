"""CLIPScore: the cosine between an image and its caption in the original CLIP.

Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", EMNLP 2021. Never computed with
an aligned text encoder: that would let the model under test mark itself.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..batches import in_batches
from ..encoders.tokens import MAX_PROMPT_TOKENS, count_tokens, tokenize
from ..errors import JudgeError
from ..images import ImageLike, to_pil
from ..tables import markdown_table

RECOMMENDED = "openai/clip-vit-large-patch14"

_LAYER = re.compile(r"(text_model|vision_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_LAYER_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OUTER = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    # The misspelling is transformers' own.
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "logit_scale": "logit_scale",
}


@dataclass(frozen=True)
class ClipScores:
    """Cosines of images with their captions. `truncated` captions were longer than CLIP reads."""

    model: str
    cosines: tuple[float, ...]
    truncated: int

    @property
    def mean_100(self) -> float:
        """Mean of 100 · cos, not clipped: the scale of papers on text-to-image models."""
        return 100 * statistics.fmean(self.cosines)

    @property
    def mean_2_5(self) -> float:
        """Mean of 2.5 · max(cos, 0): the scale of the CLIPScore paper."""
        return 2.5 * statistics.fmean(max(cosine, 0.0) for cosine in self.cosines)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, each scale under a name that says which it is."""
        return {
            "model": self.model,
            "images": len(self.cosines),
            "mean of 100*cos": self.mean_100,
            "mean of 2.5*max(cos, 0)": self.mean_2_5,
            "captions_truncated": self.truncated,
            "cosines": list(self.cosines),
        }

    def to_markdown(self) -> str:
        """Both scales as a table."""
        title = f"CLIPScore ({self.model}, {len(self.cosines)} images)"
        rows = [("100 · cos", f"{self.mean_100:.2f}"), ("2.5 · max(cos, 0)", f"{self.mean_2_5:.4f}")]
        cut = f"\n\n{self.truncated} captions were cut: CLIP reads {MAX_PROMPT_TOKENS} tokens."
        return markdown_table((title, "mean"), rows) + (cut if self.truncated else "")


class ClipScorer:
    """The original CLIP, run by open_clip. Images and captions are embedded in batches that halve when memory ends."""

    per_batch = 64

    def __init__(self, model: Any, name: str) -> None:
        from open_clip import image_transform

        self.model = model.eval()
        self.name = name
        self._transform = image_transform(model.visual.image_size, is_train=False)

    @classmethod
    def from_file(cls, path: str | Path, *, device: str | torch.device = "cpu") -> ClipScorer:
        """Load an OpenAI CLIP (ViT) from safetensors, in open_clip's or transformers' layout; sizes are the file's.

        `path` is a file, or a folder with model.safetensors or open_clip_model.safetensors in it.
        Raises JudgeError, saying what to download, if there is no such model.
        """
        path = Path(path)
        files = [path / "open_clip_model.safetensors", path / "model.safetensors"] if path.is_dir() else [path]
        file = next((candidate for candidate in files if candidate.is_file()), None)
        if file is None:
            raise JudgeError(
                f"{path}: no CLIP model here. Download {RECOMMENDED} from huggingface.co, for instance: "
                f"hf download {RECOMMENDED} model.safetensors --local-dir {path if not path.suffix else path.parent}"
            )
        try:
            state = load_file(file)
        except (SafetensorError, OSError) as error:
            raise JudgeError(f"{file}: not a readable safetensors file ({error}); download it again") from error
        return cls(_build(state, file).to(device), path.name)

    def embed_images(self, images: Sequence[ImageLike], on_batch: Callable[[int], None] | None = None) -> torch.Tensor:
        """Embeddings of length 1, (N, D) in fp32 on the CPU."""

        def embed(batch: Sequence[ImageLike]) -> list[torch.Tensor]:
            pixels = torch.stack([self._transform(to_pil(image)) for image in batch])
            return self._embed(self.model.encode_image, pixels, on_batch)

        return self._all(embed, images)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of length 1, (N, D) in fp32 on the CPU; a text that occurs twice is embedded once."""

        def embed(batch: Sequence[str]) -> list[torch.Tensor]:
            return self._embed(self.model.encode_text, tokenize(batch), None)

        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        return self._all(embed, list(rows))[[rows[text] for text in texts]]

    def score(
        self, images: Sequence[ImageLike], captions: Sequence[str], on_batch: Callable[[int], None] | None = None
    ) -> ClipScores:
        """CLIPScore of each image with the caption at its position. `on_batch(n)` hears of every n finished images.

        Raises JudgeError if there is not one caption per image.
        """
        if len(images) != len(captions) or not images:
            raise JudgeError(f"{len(images)} images came with {len(captions)} captions, expected one each")
        cosines = (self.embed_images(images, on_batch) * self.embed_texts(captions)).sum(1)
        truncated = sum(tokens > MAX_PROMPT_TOKENS for tokens in count_tokens(captions))
        return ClipScores(self.name, tuple(cosines.tolist()), truncated)

    def _all(self, embed: Callable[[Sequence[Any]], list[torch.Tensor]], items: Sequence[Any]) -> torch.Tensor:
        rows, self.per_batch = in_batches(embed, items, self.per_batch)
        return torch.stack(rows)

    @torch.inference_mode()
    def _embed(
        self, encode: Callable[..., torch.Tensor], inputs: torch.Tensor, on_batch: Callable[[int], None] | None
    ) -> list[torch.Tensor]:
        embedded = encode(inputs.to(self.model.logit_scale.device), normalize=True)
        if on_batch is not None:
            on_batch(len(inputs))
        return list(embedded.float().cpu())


def _build(state: dict[str, torch.Tensor], file: Path) -> Any:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    try:
        if "vision_model.embeddings.class_embedding" in state:
            state = _from_transformers(state)
        patch_grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
        width, _, _, patch = state["visual.conv1.weight"].shape
        vision = CLIPVisionCfg(
            layers=_layers(state, "visual.transformer."), width=width, patch_size=patch, image_size=patch * patch_grid
        )
        vocabulary, text_width = state["token_embedding.weight"].shape
        text = CLIPTextCfg(
            context_length=len(state["positional_embedding"]),
            vocab_size=vocabulary,
            width=text_width,
            # OpenAI's heads are 64 wide throughout.
            heads=text_width // 64,
            layers=_layers(state, "transformer."),
        )
        model = CLIP(state["text_projection"].shape[1], vision, text, quick_gelu=True)
        model.load_state_dict(state)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        # A file of one tower alone lacks the other's tensors.
        found = f"it lacks {error.args[0]}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise JudgeError(
            f"{file}: not an OpenAI CLIP with a vision transformer and a text encoder ({found}); expected {RECOMMENDED}"
        ) from error
    return model


def _layers(state: dict[str, torch.Tensor], prefix: str) -> int:
    return sum(name.startswith(f"{prefix}resblocks.") and name.endswith(".ln_1.weight") for name in state)


def _from_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    converted = {new: state[old] for old, new in _OUTER.items() if old in state}
    converted["text_projection"] = state["text_projection.weight"].T
    converted["visual.proj"] = state["visual_projection.weight"].T
    for name, tensor in state.items():
        if found := _LAYER.fullmatch(name):
            tower, layer, part, kind = found.groups()
            block = f"{'visual.' if tower == 'vision_model' else ''}transformer.resblocks.{layer}"
            if part in _LAYER_PARTS:
                converted[f"{block}.{_LAYER_PARTS[part]}.{kind}"] = tensor
            elif part == "self_attn.q_proj":
                parts = [state[name.replace("q_proj", other)] for other in ("q_proj", "k_proj", "v_proj")]
                converted[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
    return converted
