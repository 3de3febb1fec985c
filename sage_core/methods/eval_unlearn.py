"""SAGE, or any text encoder, as a technique of the benchmark eval-unlearn, which finds it by its entry point `sage`.

Its configuration, under "technique", names a base model and the text encoder's file:

    {"name": "sage", "config": {"model_id": "models/sd14", "encoder": "SAGE.pt", "erase_concept": "nudity"}}
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image

from ..devices import choose_device
from ..encoders.pipelines import to_diffusers
from ..errors import SettingsError
from ..prompts.minors import Context, mentions_minor, unsafe_about_minor
from ..settings import Count, Settings, settings_from

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SageTechniqueConfig(Settings):
    """What the benchmark's configuration says of the technique.

    Attributes:
        model_id: folder of an SD 1.x pipeline in diffusers' layout, or its name among what is already downloaded.
        encoder: the text encoder's file or folder, in any layout; empty for the untouched base.
        erase_concept: what the encoder was aligned against; the benchmark reads it.
        device: such as "cuda"; the machine's best by default.
        use_fp16: half precision on CUDA.
        num_inference_steps: of the pipeline's sampler.
        guidance_scale: of classifier-free guidance.
        prompts: "unsafe" for attacks, where any sign of a minor is refused; "harmless" for captions, where a child at
            play may be drawn.
    """

    model_id: str = ""
    encoder: str = ""
    erase_concept: str | None = None
    device: str | None = None
    use_fp16: bool = False
    num_inference_steps: Count = 50
    guidance_scale: float = 7.5
    prompts: Literal["unsafe", "harmless"] = "unsafe"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model_id:
            raise SettingsError(
                "model_id is missing or empty, expected a folder of an SD 1.x pipeline in diffusers' layout."
            )


class SageTechnique:
    """Draws prompts with an SD 1.x pipeline whose text encoder is the aligned one.

    The pipeline's own safety checker is switched off, as for the benchmark's other techniques: what is measured is the
    model.
    """

    def __init__(self, **config: Any) -> None:
        """Load the pipeline from this machine; nothing is downloaded.

        Raises:
            SettingsError: a name is unknown, or a value makes no sense.
            EncoderError: the encoder does not fit the pipeline.
        """
        self.config = settings_from(SageTechniqueConfig, config, "The technique")
        self.device = choose_device(self.config.device)
        self.pipe = _load(self.config, self.device)
        self.refused = 0

    def generate(self, prompts: Sequence[str], seed: int | None = None, **options: Any) -> list[Image.Image]:
        """One picture for each prompt; prompt number i is drawn with `seed` + i.

        A prompt that refers to a minor is not drawn. The benchmark expects a picture for each prompt, so that a black
        one takes its place; `refused` counts them, and the log says so.

        Args:
            prompts: what to draw.
            seed: of the first picture; without it every call draws other pictures.
            options: of the pipeline's call, such as num_inference_steps.
        """
        refused = mentions_minor if self.config.prompts == Context.UNSAFE else unsafe_about_minor
        settings: dict[str, Any] = {
            "num_inference_steps": self.config.num_inference_steps,
            "guidance_scale": self.config.guidance_scale,
        }
        pictures: list[Image.Image] = []
        before = self.refused
        for place, prompt in enumerate(prompts):
            if refused(prompt):
                self.refused += 1
                pictures.append(Image.new("RGB", _size(self.pipe)))
                continue
            generator = None if seed is None else torch.Generator(self.device.type).manual_seed(seed + place)
            pictures.append(self.pipe(prompt=prompt, generator=generator, **settings | options).images[0])
        if more := self.refused - before:
            _log.warning(
                "%d of %d prompts refer to minors and were not drawn; black pictures stand in their place and spoil a "
                "score of them.",
                more,
                len(prompts),
            )
        return pictures


def _load(config: SageTechniqueConfig, device: torch.device) -> Any:
    from diffusers import DiffusionPipeline

    half = config.use_fp16 and device.type == "cuda"
    try:
        pipe = DiffusionPipeline.from_pretrained(
            config.model_id,
            torch_dtype=torch.float16 if half else torch.float32,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(
            f"model_id is {config.model_id!r}, of which no pipeline can be loaded ({reason[:200]}). Give a folder of "
            "an SD 1.x pipeline in diffusers' layout; nothing is downloaded."
        ) from error
    if config.encoder:
        pipe = to_diffusers(pipe, os.path.expanduser(config.encoder))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _size(pipe: Any) -> tuple[int, int]:
    side = int(pipe.unet.config.sample_size * pipe.vae_scale_factor)
    return side, side
