"""All pictures of a plan, drawn by any number of processes that share nothing but the output folder.

The work is cut into batches that depend on the plan alone. A process takes a batch by claiming its file; see `claims`.
However the process ends, others can claim it again. Every picture is written whole; when all of a batch are there, its
record is. What has a record is never drawn again; what has none is drawn anew from its seeds. So a process that is lost
costs its own batch, a stopped run goes on, and the pictures are the same whatever the number of processes.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..batches import is_out_of_memory
from ..devices import device_name
from ..drawing.change import Change, Moved
from ..drawing.models import Model
from ..drawing.pictures import Begin, ChangedModel
from ..encoders.precision import choose_precision
from ..errors import SettingsError
from ..files import whole_file, write_json
from ..methods.making import Watch
from ..rows import read_json
from ..settings import checked
from .attacking import Attacker
from .changes import change_of
from .claims import Claim, claim
from .layout import Job, Layout, Record
from .plan import Drawing, MethodPlan
from .prompts import Item

# Pictures that are compressed and written at a time.
_WRITERS = 4
# A plan's precisions, of U-Nets and of judges.
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_PRECISIONS = {dtype: name for name, dtype in DTYPES.items()}
# Seconds between looks at batches that other processes are drawing.
_WAIT = 1.0


@dataclass(frozen=True)
class Share:
    """Which of some processes this is; one that is alone has number 0 of 1."""

    number: int = 0
    count: int = 1


ALONE = Share()


def draw(
    layout: Layout,
    model: Callable[[], Model],
    *,
    device: torch.device,
    share: Share = ALONE,
    batches: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_making: Watch | None = None,
) -> int:
    """Draw what is missing, until nothing is: also what other processes have begun and lost.

    Args:
        layout: of the plan.
        model: loads the base, called if there is anything to draw.
        device: where this process draws.
        share: processes begin at different methods, so that each changes the model's weights as seldom as can be.
        batches: stop after so many of prompts as they are, and as many of each attack.
        on_progress: called with (pictures drawn by any process, pictures in all); what it raises stops the drawing.
        on_making: called with (what, done, total) while a method's change is made; what it raises stops it.

    Returns:
        Pictures that this process drew.

    Raises:
        FileError: the disk is full or cannot be written; nothing is lost, the run goes on once it can.
        SageError: a method's files do not fit the model, or memory does not suffice for a batch.
    """
    jobs = layout.jobs()
    total = sum(len(job.items) for job in jobs)
    start = share.number * len(jobs) // share.count
    jobs = [*jobs[start:], *jobs[:start]]
    drawn, taken = 0, Counter[str]()
    artist = _Artist(layout, model, device, on_making)
    while jobs := [job for job in jobs if not job.is_done]:
        done = total - sum(len(job.items) for job in jobs)
        _tell(on_progress, done, total)
        before = drawn
        for job in jobs:
            if taken[job.prompts.work] == batches:
                continue
            with claim(job.lock) as is_mine:
                if not is_mine or job.is_done or not artist.draw(job, is_mine):
                    continue
            drawn += len(job.items)
            taken[job.prompts.work] += 1
            _tell(on_progress, min(done := done + len(job.items), total), total)
        if all(taken[job.prompts.work] == batches for job in jobs):
            return drawn
        if drawn == before:
            # Others are at work on all that is left. What they lose is drawn in the next round.
            time.sleep(_WAIT)
    _tell(on_progress, total, total)
    return drawn


def _tell(on_progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if on_progress is not None:
        on_progress(done, total)


class _Artist:
    """Draws jobs one after the other; the model and the method in it are loaded when they are first needed."""

    def __init__(
        self, layout: Layout, load: Callable[[], Model], device: torch.device, watch: Watch | None = None
    ) -> None:
        self.watch = watch
        self.layout, self.plan, self.load, self.device = layout, layout.plan, load, device
        self._model: Model | None = None
        self._changed: ChangedModel | None = None
        self._method: MethodPlan | None = None

    def draw(self, job: Job, is_mine: Claim) -> bool:
        """Draw a batch, write its pictures and its record; not if another process has it by then."""
        changed = self._changed_by(job.method)
        started = time.monotonic()
        try:
            pictures, texts = self._drawn(changed, job)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise SettingsError(
                f"{self.plan.file}, draw.batch: memory does not suffice for {self.plan.draw.batch} pictures at a time "
                f"({error}). Choose a smaller batch."
            ) from error
        if not is_mine:
            return False
        # Compressing a batch one after the other would keep a GPU waiting for a noticeable part of the time.
        with ThreadPoolExecutor(_WRITERS) as pool:
            written = list(pool.map(_save, job.files, pictures))
        record = Record(
            pictures=tuple(
                {"file": item.file, "id": item.id, "seed": item.seed, "sha256": digest, **text}
                for item, (digest, _), text in zip(job.items, written, texts, strict=True)
            ),
            bytes=sum(size for _, size in written),
            seconds=time.monotonic() - started,
            device=device_name(self.device),
            precision=_PRECISIONS[changed.model.dtype],
            method=job.method.name,
            list=job.prompts.name,
            guidance=self.plan.draw.guidance if job.items[0].guidance is None else job.items[0].guidance,
            process=os.getpid(),
            torch=str(torch.__version__),
        )
        write_json(job.record, record.to_dict(), own=True)
        return True

    def _drawn(self, changed: ChangedModel, job: Job) -> tuple[torch.Tensor, list[dict[str, str]]]:
        """The pictures of a batch, and what their records say besides."""

        def draw(by: ChangedModel, items: Sequence[Item], **how: Any) -> torch.Tensor:
            return draw_batch(by, items, self.plan.draw, job.method.name, **how)

        if job.prompts.attack is None:
            return draw(changed, job.items), [{}] * len(job.items)
        key, store = self.layout.keys[job.method.name], self.layout.output / "attacks"
        pictures, texts = Attacker(self.plan, changed, key, draw, store, self.watch).drawn(job.prompts, job.items)
        return pictures, [{"text": text} for text in texts]

    def _changed_by(self, method: MethodPlan) -> ChangedModel:
        if self._model is None:
            use_threads(self.plan.draw, self.device)
            self._model = self.load().to(self.device, DTYPES[settled_precision(self.layout, self.device)])
        if self._changed is None or self._method is not method:
            # Its text encoder goes before the next one comes.
            self._changed = None
            self._changed, self._method = ChangedModel(self._model, self._change_of(method, self._model)), method
        return self._changed

    def _change_of(self, method: MethodPlan, model: Model) -> Change:
        """The method's change; what has to be trained for it is trained by one of the processes."""
        store, size = self.layout.output / "made", max(self.plan.draw.width, self.plan.draw.height)
        if method.make is None:
            return change_of(method, model, size=size)
        with claim(self.layout.making_lock(method), wait=True):
            return change_of(method, model, size=size, store=store, watch=self.watch)


def use_threads(drawing: Drawing, device: torch.device) -> None:
    """Compute on as many threads as the plan says: they decide the last bits of pictures, and of judges' answers."""
    if device.type == "cpu":
        torch.set_num_threads(drawing.threads)


def draw_batch(
    changed: ChangedModel,
    items: Sequence[Item],
    drawing: Drawing,
    method: str,
    *,
    states: Moved | None = None,
    begin: Begin | None = None,
) -> torch.Tensor:
    """Pictures (N, 3, H, W) in 0..1, fp32 on the CPU, of prompts that have the first one's guidance.

    Args:
        changed: the base with the method in it.
        items: the batch.
        drawing: how, where the prompts do not say otherwise.
        method: its name, for messages.
        states: what was read of each, in place of its prompt.
        begin: what they begin with, where it is not noise alone.

    Raises:
        SettingsError: a picture holds NaN, as fp16 can make of some models.
    """
    own = items[0].guidance
    pictures = changed.draw(
        [item.prompt for item in items] if states is None else states,
        [item.seed for item in items],
        steps=drawing.steps,
        guidance=drawing.guidance if own is None else own,
        sampler=drawing.sampler,
        size=(drawing.width, drawing.height),
        batch=drawing.batch,
        begin=begin,
    ).cpu()
    if not pictures.isfinite().all():
        raise SettingsError(
            f"{changed.model.title} with {method!r} draws NaN in {changed.model.dtype}. Set draw.precision to 'fp32' "
            "or 'bf16'."
        )
    return pictures


def precision_of(drawing: Drawing, device: torch.device) -> str:
    """What the U-Net computes in, one of DTYPES: the plan's choice, or what the device is fast in."""
    if drawing.precision != "auto":
        return drawing.precision
    return "fp16" if device.type == "cuda" else choose_precision("auto", device)


def settled_precision(layout: Layout, device: torch.device) -> str:
    """The precision of a plan's pictures on a kind of device.

    What "auto" stands for there is decided once, by the first process, and kept: later ones follow it on any machine,
    or pictures of one method would be drawn in different precisions.

    Raises:
        FileError: the output cannot be written.
    """
    if layout.plan.draw.precision != "auto":
        return layout.plan.draw.precision
    file = layout.output / "precision.json"
    with claim(layout.lock("precision"), wait=True):
        try:
            kept = checked(dict[str, str], read_json(file), "precisions")
        except (OSError, ValueError, SettingsError):
            kept = {}
        if kept.get(device.type) not in DTYPES:
            kept[device.type] = precision_of(layout.plan.draw, device)
            write_json(file, kept, own=True)
    return kept[device.type]


def _save(file: Path, picture: torch.Tensor) -> tuple[str, int]:
    """Write a picture (3, H, W) in 0..1 whole; returns the file's SHA-256 and its size."""
    levels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    with whole_file(file, own=True) as temporary:
        Image.fromarray(levels).save(temporary, format="PNG")
        content = temporary.read_bytes()
    return hashlib.sha256(content).hexdigest(), len(content)
