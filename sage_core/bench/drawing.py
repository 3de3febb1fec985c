"""Whole test sets drawn by `sage_core.evaluation` against diffusers called prompt by prompt: same pictures, less time.

    python -m sage_core.bench.drawing --output DIR               the shapes world, two batches; minutes on two cores
    python -m sage_core.bench.drawing --base sd-v1-4.ckpt --output DIR       SD 1.x at 512 pixels and 50 steps, on a GPU
    python -m sage_core.bench.drawing --plan plan.toml --output DIR          the base, settings and prompts of a plan
    python -m sage_core.bench.drawing --quick                    8 pictures of 2 steps, to see that it works

Published scripts call StableDiffusionPipeline once for each prompt, in fp32 unless they say otherwise, and save its
picture. That is done here with the same weights, prompts, noise and sampler, without a safety checker, and then by
`evaluation.drawing` with its records and hashes. Both begin with prompts and end with PNG files; reading the model, and
the first picture or batch of each, are not in the times.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..drawing.models import Model
from ..drawing.noise import make_scheduler
from ..encoders.tokens import clip_tokenizer
from ..errors import SettingsError
from ..evaluation.bases import load
from ..evaluation.drawing import DTYPES, draw, precision_of
from ..evaluation.layout import Layout
from ..evaluation.plan import BASE, SHAPES, MethodPlan, Plan, usual_drawing
from ..evaluation.prompts import Item, Items, PromptList, harmless_lists
from ..evaluation.run import open_plan
from ..files import write_text
from ..options import count
from ..prompts.everyday import REFERENCE_PROMPTS
from ..shapes.captions import write_captions
from ..shapes.scenes import sample_scenes
from .runner import Bench, Part, Report
from .watch import MemoryWatch, timed

# Largest mean difference of pictures in fp32, in levels of 255: rounding, grown over the steps.
TOLERANCE = 1.0
_ALONE, _OURS = "diffusers, prompt by prompt", "sage_core.evaluation"
_SEED = 60_000


def disagreements(report: Report) -> list[str]:
    """Procedures in fp32 whose pictures are others than diffusers'."""
    return [
        f"{row['procedure']}: pictures in fp32 differ by {row['mean_difference']:.2f} levels in the mean"
        for row in report["timings"]
        if row["precision"] == "fp32" and row["mean_difference"] > TOLERANCE
    ]


_COLUMNS = {
    "procedure": "{procedure}",
    "precision": "{precision}",
    "pictures/s": "{pictures_per_second}",
    "times as fast": "{times:.2f}",
    "CPU s a picture": "{cpu_seconds_a_picture:.2f}",
    "times less CPU": "{cpu_times:.2f}",
    "GiB": "{gib:.1f}",
    "mean difference": "{mean_difference:.2g}",
    "largest": "{most_difference}",
}
_TITLE = (
    "{pictures} pictures of {base}: {draw[sampler]}, {draw[steps]} steps, guidance {draw[guidance]:g}, "
    "{draw[width]}×{draw[height]} pixels; ours in batches of {draw[batch]}. {where}."
)
_NOTE = "Differences are from the first row's pictures, in levels of 0 to 255."


def _options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--base", type=Path, help="an SD 1.x checkpoint or diffusers folder (default: the shapes world)")
    what.add_argument("--plan", type=Path, help="a plan, whose base, settings and first prompts are drawn")
    parser.add_argument("--pictures", type=count(1, 10_000), help="how many (default: two batches)")
    parser.add_argument("--threads", type=count(1, 1024), default=1, help="on a CPU (default: %(default)s)")
    parser.add_argument("--precision", nargs="+", choices=DTYPES, help="(default: fp32 and what `auto` stands for)")


def _measure(options: argparse.Namespace, device: torch.device, report: Report) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        plan, prompts = _work(options, Path(name))
        if device.type == "cpu":
            torch.set_num_threads(options.threads)
            report["machine"]["threads"] = torch.get_num_threads()
        report |= {"base": plan.title, "draw": asdict(plan.draw), "pictures": len(prompts.items), "timings": []}
        for row in compare(plan, prompts, device, options.precision):
            report["timings"].append(row)
            yield f"{row['precision']}, {row['procedure']}: {row['pictures_per_second']:.3g} pictures/s"


def _work(options: argparse.Namespace, folder: Path) -> tuple[Plan, PromptList]:
    """A plan of the base alone that draws into `folder`, and its list of prompts."""
    if options.base is not None and not options.base.exists():
        raise SettingsError(f"--base is '{options.base}', and there is no such file or folder.")
    file = options.plan or folder / "plan.toml"
    if options.plan is None:
        texts: Sequence[str] = REFERENCE_PROMPTS
        if options.base is None:
            wanted = options.pictures or 2 * usual_drawing(in_world=True).batch
            texts = write_captions(sample_scenes(wanted, seed=_SEED, unsafe=False), seed=_SEED, names="seen")
        base = json.dumps(SHAPES if options.base is None else str(options.base.resolve()))
        write_text(folder / "prompts.txt", "\n".join(texts) + "\n")
        # A plan has a method, though nothing is drawn by it here.
        listed = '[[prompts.safe]]\nname = "prompts"\nfile = "prompts.txt"\n[[method]]\nname = "SLD"\nsld = "weak"\n'
        write_text(file, f"base = {base}\n{listed}")
    layout = open_plan(file)
    lists = harmless_lists(layout.lists) or list(layout.lists)
    drawing = replace(layout.plan.draw, threads=options.threads)
    drawing = replace(drawing, steps=2, batch=4) if options.quick else drawing
    pictures = options.pictures or 2 * drawing.batch
    prompts = replace(lists[0], items=Items(lists[0].items[:pictures], 1))
    return replace(layout.plan, output=folder / "drawn", draw=drawing, methods=(MethodPlan(BASE),)), prompts


def compare(
    plan: Plan, prompts: PromptList, device: torch.device, precisions: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Time diffusers and ours at each precision; diffusers in fp32 comes first, as what the others are held against.

    Seconds are from prompts to files. Those of processors are of all threads and do not grow when other work shares
    the machine. GiB are the most memory, weights included.

    Args:
        plan: of the base alone; its output is an empty folder.
        prompts: what is drawn.
        device: where.
        precisions: by default fp32, and what `auto` stands for there.
    """
    found = precisions or ["fp32", precision_of(plan.draw, device)]
    expected: list[Path] = []
    first: dict[str, Any] = {}
    for way, work in ((_ALONE, _alone), (_OURS, _ours)):
        for precision in dict.fromkeys(["fp32", *found]):
            own = replace(plan, draw=replace(plan.draw, precision=precision), output=plan.output / way[:4] / precision)
            with MemoryWatch(device) as watch:
                files, every = work(own, prompts, device)
                taken = timed(device, every)
                gib = watch.peak()
            gc.collect()
            row: dict[str, Any] = {
                "procedure": way,
                "precision": precision,
                "pictures": len(files),
                "seconds": taken.seconds,
            }
            row |= {"cpu_seconds": taken.processor_seconds, "gib": gib}
            row["pictures_per_second"] = len(files) / taken.seconds
            row["cpu_seconds_a_picture"] = taken.processor_seconds / len(files)
            expected, first = expected or files, first or row
            row["times"] = first["seconds"] / row["seconds"]
            row["cpu_times"] = first["cpu_seconds"] / row["cpu_seconds"]
            row["mean_difference"], row["most_difference"] = differences(files, expected)
            yield row


def _alone(plan: Plan, prompts: PromptList, device: torch.device) -> tuple[list[Path], Callable[[], object]]:
    """Files, and what makes them: diffusers' pipeline as a script calls it, a prompt, a picture, a file at a time."""
    settings, dtype = plan.draw, DTYPES[plan.draw.precision]
    files = [plan.output / f"{item.place:06}.png" for item in prompts.items]
    plan.output.mkdir(parents=True)
    shape = (1, 4, settings.height // 8, settings.width // 8)
    pipe = plain_pipeline(load(plan.base), settings.sampler).to(device, dtype)

    def one(item: Item, file: Path) -> None:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(item.seed))
        image = pipe(
            item.prompt,
            height=settings.height,
            width=settings.width,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance if item.guidance is None else item.guidance,
            # What a generator with this seed would make in fp32, so that all draw from the same noise.
            latents=noise.to(device, dtype),
        ).images[0]
        image.save(file)

    def every() -> None:
        for item, file in zip(prompts.items, files, strict=True):
            one(item, file)

    one(prompts.items[0], files[0])
    return files, every


def _ours(plan: Plan, prompts: PromptList, device: torch.device) -> tuple[list[Path], Callable[[], object]]:
    """Files, and what makes them: the evaluation's own drawing, in one process."""
    model = load(plan.base)
    # Other seeds, or what was drawn would not be drawn again.
    warm = tuple(replace(item, seed=item.seed + 1) for item in prompts.items[: plan.draw.batch])
    draw(Layout(plan, [replace(prompts, items=Items(warm, 1), key="warm")]), lambda: model, device=device)
    layout = Layout(plan, [prompts])
    return layout.files(plan.methods[0], prompts), lambda: draw(layout, lambda: model, device=device)


def plain_pipeline(model: Model, sampler: str) -> Any:
    """StableDiffusionPipeline with a model's own networks, and no safety checker."""
    from diffusers import StableDiffusionPipeline

    config = getattr(model.vae, "config", None)
    return StableDiffusionPipeline(
        vae=model.vae if config is not None else _PlainVae(model.vae),
        text_encoder=copy.deepcopy(model.encoder.model),
        tokenizer=clip_tokenizer(),
        unet=model.unet,
        scheduler=make_scheduler(sampler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


class _PlainVae(nn.Module):
    """The shapes world's autoencoder as the pipeline calls one: latents to pictures in -1..1."""

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae
        self.config = SimpleNamespace(block_out_channels=(1, 1, 1, 1), scaling_factor=1.0, force_upcast=False)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return next(self.parameters()).dtype

    def decode(self, latents: Tensor, **_: Any) -> tuple[Tensor]:
        """Pictures, as the first of a tuple."""
        return (2 * self.vae.decode(latents) - 1,)  # type: ignore[operator]


def differences(files: Sequence[Path], expected: Sequence[Path]) -> tuple[float, int]:
    """Mean and largest difference of two sets of pictures, in levels of 0 to 255."""
    total, most = 0.0, 0
    for first, second in zip(files, expected, strict=True):
        gap = np.abs(_levels(first) - _levels(second))
        total, most = total + float(gap.mean()), max(most, int(gap.max()))
    return total / len(files), most


def _levels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


BENCH = Bench(
    module="sage_core.bench.drawing",
    about=__doc__,
    add_options=_options,
    measure=_measure,
    page=[Part("timings", _TITLE, _COLUMNS), Part("timings", _NOTE)],
    quick="8 pictures of 2 steps",
    disagreements=disagreements,
    packages=("diffusers",),
)
main = BENCH.main

if __name__ == "__main__":
    sys.exit(BENCH.run())
