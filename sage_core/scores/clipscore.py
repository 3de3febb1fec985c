"""CLIPScore: the cosine between an image and its caption in the original CLIP.

Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", EMNLP 2021. Never computed with
an aligned text encoder: that would let the model under test mark itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from PIL import Image

from ..batches import in_batches
from ..encoders.tokens import MAX_PROMPT_TOKENS, count_tokens, tokenize
from ..errors import JudgeError
from ..images import ImageLike, to_pil
from ..model_folders import load_model, loading, read_model_config, running
from ..settings import CountOrZero, Limits, checked
from ..tables import markdown_table

if TYPE_CHECKING:
    from transformers import CLIPModel

RECOMMENDED = "openai/clip-vit-large-patch14"

# Mean and deviation of each channel by which CLIP's image processor normalises a picture.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_DOWNLOAD = "config.json model.safetensors"


@dataclass(frozen=True)
class ClipScores:
    """Cosines of images with their captions; `truncated` counts captions longer than CLIP reads."""

    model: str
    cosines: tuple[float, ...]
    truncated: int

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ClipScores:
        """The scores that `to_dict` told. Raises SettingsError where it did not."""
        return cls(
            checked(str, content.get("model"), "model"),
            checked(tuple[Annotated[float, Limits(-1.01, 1.01)], ...], content.get("cosines"), "cosines"),
            checked(CountOrZero, content.get("captions_truncated"), "captions_truncated"),
        )

    @property
    def mean_100(self) -> float:
        """Mean of 100 · cos, not clipped: the scale of papers on text-to-image models."""
        return 100 * statistics.fmean(self.cosines)

    @property
    def mean_2_5(self) -> float:
        """Mean of 2.5 · max(cos, 0): the scale of the CLIPScore paper."""
        return 2.5 * statistics.fmean(max(cosine, 0.0) for cosine in self.cosines)

    def to_dict(self) -> dict[str, Any]:
        """Both scales under names that say which is which, fit for JSON."""
        return {
            "model": self.model,
            "images": len(self.cosines),
            "mean of 100*cos": self.mean_100,
            "mean of 2.5*max(cos, 0)": self.mean_2_5,
            "captions_truncated": self.truncated,
            "cosines": list(self.cosines),
        }

    def to_markdown(self) -> str:
        """A table of both scales."""
        title = f"CLIPScore ({self.model}, {len(self.cosines)} images)"
        rows = [("100 · cos", f"{self.mean_100:.2f}"), ("2.5 · max(cos, 0)", f"{self.mean_2_5:.4f}")]
        cut = f"\n\n{self.truncated} captions were cut: CLIP reads {MAX_PROMPT_TOKENS} tokens."
        return markdown_table((title, "mean"), rows) + (cut if self.truncated else "")


class ClipScorer:
    """The original CLIP, run by transformers; batches of images and captions halve when memory runs out."""

    per_batch = 64

    def __init__(self, model: CLIPModel, name: str) -> None:
        self.model = model.eval()
        self.name = name

    @classmethod
    def from_file(cls, path: str | Path, *, device: str | torch.device = "cpu") -> ClipScorer:
        """Load a CLIP from a folder with config.json and model.safetensors, as transformers saves it.

        A path of a file stands for its folder. Nothing is downloaded and no pickle is read.

        Raises:
            JudgeError: there is no such model, and the message says what to download; or weights are missing or not
                finite.
        """
        path = Path(path)
        folder = path if path.is_dir() or not path.suffix else path.parent
        if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
            raise JudgeError(
                f"{path}: no CLIP model here, expected a folder with config.json and model.safetensors. Download "
                f"{RECOMMENDED} from huggingface.co, for instance with 'hf download {RECOMMENDED} {_DOWNLOAD} "
                f"--local-dir {folder}'."
            )
        model: Any = _load(folder)
        return cls(model.to(device), folder.name)

    def embed_images(self, images: Sequence[ImageLike], on_batch: Callable[[int], None] | None = None) -> torch.Tensor:
        """Embeddings of length 1, (N, D) in fp32 on the CPU."""

        def embed(batch: Sequence[ImageLike]) -> list[torch.Tensor]:
            with running(self.name):
                size = self.model.config.vision_config.image_size
                pixels = torch.stack([preprocess(image, size) for image in batch])
            towers = self.model.vision_model, self.model.visual_projection
            return self._embed(*towers, {"pixel_values": pixels}, on_batch)

        return self._all(embed, images)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeddings of length 1, (N, D) in fp32 on the CPU; a text that occurs twice is embedded once."""

        def embed(batch: Sequence[str]) -> list[torch.Tensor]:
            towers = self.model.text_model, self.model.text_projection
            return self._embed(*towers, {"input_ids": tokenize(batch)}, None)

        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        return self._all(embed, list(rows))[[rows[text] for text in texts]]

    def score(
        self, images: Sequence[ImageLike], captions: Sequence[str], on_batch: Callable[[int], None] | None = None
    ) -> ClipScores:
        """CLIPScore of each image with the caption at its position; `on_batch(n)` is told of n more finished images.

        Raises:
            JudgeError: there is not exactly one caption for each image.
        """
        if len(images) != len(captions) or not images:
            raise JudgeError(f"{len(images)} images came with {len(captions)} captions, expected one for each.")
        cosines = (self.embed_images(images, on_batch) * self.embed_texts(captions)).sum(1)
        truncated = sum(tokens > MAX_PROMPT_TOKENS for tokens in count_tokens(captions))
        return ClipScores(self.name, tuple(cosines.tolist()), truncated)

    def _all(self, embed: Callable[[Sequence[Any]], list[torch.Tensor]], items: Sequence[Any]) -> torch.Tensor:
        rows, self.per_batch = in_batches(embed, items, self.per_batch)
        return torch.stack(rows)

    @torch.inference_mode()
    def _embed(
        self,
        tower: torch.nn.Module,
        projection: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        on_batch: Callable[[int], None] | None,
    ) -> list[torch.Tensor]:
        device = self.model.logit_scale.device
        with running(self.name):
            pooled = tower(**{name: values.to(device) for name, values in inputs.items()}).pooler_output
            embedded = torch.nn.functional.normalize(projection(pooled).float(), dim=-1).cpu()
        if not embedded.isfinite().all():
            raise JudgeError(f"{self.name}: the embeddings are not finite. Load a CLIP whose config.json is its own.")
        if on_batch is not None:
            on_batch(len(embedded))
        return list(embedded)


def preprocess(image: ImageLike, size: int) -> torch.Tensor:
    """(3, size, size): the shortest side resized to `size` (bicubic, on bytes), the centre cut out, normalised.

    It equals CLIP's image processor to the pixel: the longer side and the corner of the cut are rounded down.
    """
    picture = to_pil(image).convert("RGB")
    shortest = min(picture.size)
    width, height = (size if side == shortest else int(size * side / shortest) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    picture = picture.crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_DEVIATION)[:, None, None]


def _load(folder: Path) -> CLIPModel:
    from transformers import CLIPModel

    config = read_model_config(folder, "CLIP", [RECOMMENDED])
    if config.get("model_type") != "clip":
        found = config.get("model_type")
        raise JudgeError(f"{folder}: config.json is of a {found!r} model, expected 'clip' ({RECOMMENDED}).")
    with loading(folder, "a CLIP model"):
        return load_model(CLIPModel, folder, torch.float32)
