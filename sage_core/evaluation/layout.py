"""Where everything of a plan lies in its output, what is there already, and whether it is what was drawn."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import JudgeError, SettingsError
from ..files import check_writable, readable
from ..rows import shown
from ..settings import CountOrZero, NotNegative, Settings
from .bases import Fingerprints
from .changes import recipe_of
from .claims import lock_suffix
from .plan import Drawing, MethodPlan, Plan
from .prompts import Item, PromptList

# Bytes of a PNG for each pixel of a photograph, for estimates before there is a picture.
_BYTES_A_PIXEL = 1.6
# Of pictures that others drew.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
# Files that are read at a time.
_READERS = 4


@dataclass(frozen=True)
class Record(Settings):
    """What is written of a batch once all of its pictures are.

    Attributes:
        pictures: of each its `file`, `id`, `seed`, and the `sha256` of the file; of an attack's the `text` found.
        bytes: of all pictures.
        seconds: that the batch took.
        device, precision: what drew it.
        method, list, guidance, process, torch: how it was drawn, for a reader.
    """

    pictures: tuple[dict[str, Any], ...]
    bytes: CountOrZero
    seconds: NotNegative
    device: str
    precision: str
    method: str = ""
    list: str = ""
    guidance: NotNegative = 0.0
    process: CountOrZero = 0
    torch: str = ""


@dataclass(frozen=True)
class Job:
    """One batch: a method, a list, and which of its prompts; `name` is the same in every process."""

    method: MethodPlan
    prompts: PromptList
    items: tuple[Item, ...]
    pictures: Path
    record: Path
    lock: Path

    @property
    def files(self) -> list[Path]:
        """Where each picture goes."""
        return [self.pictures / item.file for item in self.items]

    @property
    def is_done(self) -> bool:
        """Whether there is a record, and its pictures are as large as it says."""
        return self.found() is not None

    def found(self) -> Record | None:
        """The record; None if there is none, it is damaged, or a picture is missing, cut or another."""
        try:
            record = Record.read(self.record)
            size = sum(file.stat().st_size for file in self.files)
        except (OSError, SettingsError):
            return None
        named = [row.get("file") for row in record.pictures] == [item.file for item in self.items]
        return record if named and size == record.bytes else None


class Layout:
    """Where everything of a plan lies in its output folder.

    A method's folder is named by all that decides its pictures: a changed method draws into a new folder.
    """

    def __init__(self, plan: Plan, lists: Sequence[PromptList]) -> None:
        self.plan, self.lists, self.output = plan, tuple(lists), plan.output
        self._suffix = lock_suffix(plan.locks, plan.output)
        self._known = Fingerprints(plan.output / "hashes.json")
        self._base = self._known.of(plan.base)
        self.keys = {method.name: self._key(method) for method in plan.methods}

    def _key(self, method: MethodPlan) -> str:
        """SHA-256 of all that decides a method's pictures."""
        return _method_key(method, self.plan.draw, self._base, self._known)

    def folder(self, method: MethodPlan) -> str:
        """The name of a method's folders."""
        return f"{method.slug}-{self.keys[method.name][:8]}"

    def lock(self, name: str) -> Path:
        """The file by which a process claims a piece of work; see `claims.claim`."""
        return self.output / "locks" / f"{name}{self._suffix}"

    def making_lock(self, method: MethodPlan) -> Path:
        """The file by which a process claims what has to be made for a method, the same for all that differ in use."""
        made = replace(method.make, strength=1.0) if method.make else None
        alone = MethodPlan("", text_encoder=method.text_encoder, unet=method.unet, loras=method.loras, make=made)
        return self.lock(f"made-{self._key(alone)[:8]}")

    def pictures(self, method: MethodPlan, prompts: PromptList) -> Path:
        """Where a method's pictures of a list lie."""
        return self.output / "pictures" / self.folder(method) / prompts.folder

    def records(self, method: MethodPlan, prompts: PromptList) -> Path:
        """Where the records of a list's batches lie."""
        return self.output / "records" / self.folder(method) / prompts.folder

    def files(self, method: MethodPlan, prompts: PromptList) -> list[Path]:
        """The pictures of a list, in its order."""
        if method.pictures:
            return _drawn_elsewhere(method.pictures, prompts)
        return [self.pictures(method, prompts) / item.file for item in prompts.items]

    @property
    def drawn(self) -> list[MethodPlan]:
        """The methods that have pictures to draw."""
        return [method for method in self.plan.methods if not method.pictures]

    def lists_of(self, method: MethodPlan) -> list[PromptList]:
        """What a method draws: every list, and what the attacks on it find."""
        return [each for each in self.lists if each.is_of(method)]

    def jobs(self) -> list[Job]:
        """All batches, method by method."""
        return [job for each in self.drawn for prompts in self.lists_of(each) for job in self.jobs_of(each, prompts)]

    def jobs_of(self, method: MethodPlan, prompts: PromptList) -> Iterator[Job]:
        """The batches of one list."""
        records = self.records(method, prompts)
        for items in prompts.batches(self.plan.draw.batch):
            content = json.dumps([item.drawn for item in items])
            name = f"{items[0].place:06}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
            lock = self.lock(f"{self.folder(method)}-{prompts.folder}-{name}")
            yield Job(method, prompts, items, self.pictures(method, prompts), records / f"{name}.json", lock)


def _drawn_elsewhere(folder: Path, prompts: PromptList) -> list[Path]:
    """Each item's picture: the one whose name ends in the item's place.

    Raises:
        SettingsError: one is missing.
    """
    place = folder / prompts.name
    with readable(place, SettingsError):
        names = {file: re.search(r"(\d+)$", file.stem) for file in place.iterdir()} if place.is_dir() else {}
    found = {int(number[1]): file for file, number in names.items() if number and file.suffix.lower() in _PICTURES}
    if missing := [item for item in prompts.items if item.place not in found]:
        raise SettingsError(
            f"{place} holds no picture {missing[0].place}.png for {shown(missing[0].prompt)} ({len(missing):,} of "
            f"{len(prompts.items):,} are missing). A picture's name ends in its prompt's place in the list's file, "
            "from 0, times the pictures of each prompt, plus its number among them."
        )
    return [found[item.place] for item in prompts.items]


def _stamps(folder: Path) -> list[list[Any]]:
    """Names, sizes and dates of all files below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [[str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def _method_key(method: MethodPlan, drawing: Drawing, base: str, known: Fingerprints) -> str:
    """SHA-256 of all that decides a method's pictures: the content of its files, not their names, nor the method's."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return known.of(value)
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list | tuple) else value

    how = {name: value for name, value in asdict(drawing).items() if name not in ("seed", "pictures", "batch")}
    content = {"base": base, "draw": how, "method": plain(_deciding(method))}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _deciding(method: MethodPlan) -> dict[str, Any]:
    """The fields of a method that decide its pictures; what came later is left out where it is not used.

    So pictures that were drawn before are found again, until the method's recipe says that they would be others.
    """
    recipe = recipe_of(method.make) if method.make else 1
    fields = asdict(method) | {"name": ""}
    file, made, drawn = fields.pop("file"), fields.pop("make"), fields.pop("pictures")
    added = {"file": file} if file else {}
    added |= {"pictures": _stamps(drawn)} if drawn else {}
    if made:
        later = {name: value for name in ("concept_list", "pairs", "settings") if (value := made.pop(name))}
        added |= {"made": later} if later else {}
        added |= {"recipe": recipe} if recipe > 1 else {}
    return fields | {"erase": made} | added


@dataclass(frozen=True)
class Work:
    """Pictures that cost alike, those of an attack with its search, and what is on record of those that are there.

    Attributes:
        pictures, done: how many there are to be, and how many are there.
        bytes, seconds: of those that are there, all processes together.
    """

    pictures: int = 0
    done: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Work)))

    @property
    def seconds_a_picture(self) -> float:
        """Of one process; 0 before the first batch."""
        return self.seconds / max(self.done, 1)

    @property
    def left(self) -> float:
        """Seconds for the rest, as far as there is a batch that tells of them."""
        return (self.pictures - self.done) * self.seconds_a_picture


@dataclass(frozen=True)
class Progress:
    """How far the drawing is, whoever draws.

    Attributes:
        plain: pictures of prompts as they are.
        attacks: those that attacks lead to, by the attack's name.
        ways: precisions and devices that drew them.
        bytes: of all pictures, once they are there.
    """

    plain: Work
    attacks: Mapping[str, Work]
    ways: tuple[str, ...]
    bytes: float

    @property
    def whole(self) -> Work:
        """Pictures of every kind."""
        return sum(self.attacks.values(), self.plain)

    def to_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        attacks = {name: asdict(work) for name, work in self.attacks.items()}
        own = {"bytes": self.bytes, "ways": self.ways, "seconds_a_picture": self.plain.seconds_a_picture or None}
        return asdict(self.whole) | own | {"attacks": attacks}

    def summary(self, processes: int = 1) -> str:
        """Pictures, gigabytes, and hours where a batch tells of them."""
        every = self.whole
        text = f"{every.pictures:,} pictures, {every.done:,} of them drawn; about {self.bytes / 1e9:.3g} GB in all"
        if not self.plain.done:
            return f"{text}. How many hours it takes is known after a first batch."
        hours = sum(work.left for work in (self.plain, *self.attacks.values())) / 3600 / processes
        on = "one process" if processes == 1 else f"{processes} processes"
        costs = [f"{_short(self.plain.seconds_a_picture)} s a picture"]
        costs += [f"{_short(work.seconds_a_picture)} s by {name}" for name, work in self.attacks.items() if work.done]
        text += f", and about {_short(hours)} more hours on {on} ({', '.join(costs)})."
        if unknown := [name for name, work in self.attacks.items() if not work.done]:
            text += f" What {' and '.join(unknown)} take is known after a first batch of each, and comes on top."
        return text


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 99.5 else f"{value:,.0f}"


def progress(layout: Layout) -> Progress:
    """What is drawn and what it cost, from the records."""
    works: dict[str, Work] = {}
    ways: set[str] = set()
    for method in layout.drawn:
        for prompts in layout.lists_of(method):
            is_begun = layout.records(method, prompts).is_dir()
            found = [job.found() for job in layout.jobs_of(method, prompts)] if is_begun else []
            records = [record for record in found if record]
            ways.update(f"{record.precision} on {record.device}" for record in records)
            works[prompts.work] = sum(
                (Work(0, len(record.pictures), record.bytes, record.seconds) for record in records),
                works.get(prompts.work, Work()) + Work(len(prompts.items)),
            )
    every = sum(works.values(), Work())
    pixels = layout.plan.draw.width * layout.plan.draw.height
    each = every.bytes / every.done if every.done else _BYTES_A_PIXEL * pixels
    return Progress(works.pop("", Work()), works, tuple(sorted(ways)), every.pictures * each)


def require_drawn(layout: Layout, method: MethodPlan, prompts: PromptList) -> None:
    """Raise JudgeError unless every picture of a list is the one that was drawn, by its SHA-256 on record."""

    def check(job: Job) -> None:
        record = job.found()
        rows = record.pictures if record else ({},) * len(job.files)
        for file, row in zip(job.files, rows, strict=True):
            with readable(file, JudgeError):
                content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() != row.get("sha256"):
                raise JudgeError(
                    f"{file} is not the picture that was drawn there: its SHA-256 is not that in {job.record}. Delete "
                    "it and give the command again: it is drawn anew."
                )

    if method.pictures:
        return
    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(check, layout.jobs_of(method, prompts)))


def check_room(layout: Layout) -> None:
    """Raise FileError unless what is missing fits on the disk of the output; where nothing is, it may be read-only."""
    found = progress(layout)
    if found.whole.done == found.whole.pictures:
        return
    needed = found.bytes * (1 - found.whole.done / found.whole.pictures)
    check_writable(layout.output / "report.json", int(needed))
