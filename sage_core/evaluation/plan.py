"""The plan of an evaluation: which methods draw which prompts how, and what is scored; read from TOML, checked whole.

Nothing is drawn before the whole plan is right. Every message names the file, the line and the field. Paths are those
of the plan's own folder unless they are absolute.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..diffusion.closed_form import METHODS as CLOSED_FORMS
from ..diffusion.closed_form.knobs import KNOBS
from ..diffusion.guidance import PRESETS as SLD_PRESETS
from .fields import Section, read_toml

SHAPES = "shapes"
BASE = "base"
READER = "reader"
SAMPLERS = ("ddim", "euler", "dpmpp_2m")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
SCORES = ("tifa", "clipscore", "attacks", "geometry")
WITNESSES = ("judge", "clip", "nudenet")
CAPTIONS = "captions"
# What is drawn by default: the paper's protocol, and the shapes world's own.
_SD = {"steps": 50, "guidance": 7.5, "size": 512, "batch": 8}
_WORLD = {"steps": 20, "guidance": 4.0, "size": 64, "batch": 25}
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Part:
    """A file that changes a model, and how strongly: 0 is not at all, 1 as it was made."""

    file: Path
    strength: float = 1.0


@dataclass(frozen=True)
class Erase:
    """An edit of the U-Net in closed form; see `diffusion.closed_form`.

    Attributes:
        method: its name there.
        concepts, guides: what is erased, and what each becomes.
        keep, captions: files of prompts that keep their meaning, and of everyday prompts.
        knobs: by their names in `closed_form.knobs`.
        strength: 1 as it is solved.
    """

    method: str
    concepts: tuple[str, ...]
    guides: tuple[str, ...] = ("",)
    keep: Path | None = None
    captions: Path | None = None
    knobs: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0


@dataclass(frozen=True)
class MethodPlan:
    """One column of the evaluation: the base with any mix of changes.

    Attributes:
        name: in tables; no two are alike.
        text_encoder, unet: files in place of the base's own.
        loras: of the text encoder, the U-Net, or both.
        erase: a closed form, on top of `unet` and `loras`.
        sld: a preset of Safe Latent Diffusion, "" for none; `safety_text` is what it leads away from.
        safree: concepts to project prompts away from.
        gate: a gate on the base's states. What it flags is drawn with the changed text encoder, or refined if none is.
    """

    name: str
    text_encoder: Part | None = None
    unet: Part | None = None
    loras: tuple[Part, ...] = ()
    erase: Erase | None = None
    sld: str = ""
    safety_text: str = ""
    safree: tuple[str, ...] = ()
    gate: Path | None = None

    @property
    def slug(self) -> str:
        """The name as a part of file names."""
        return slug(self.name)

    @property
    def changes_encoder(self) -> bool:
        """Whether the method may change the text encoder itself."""
        return bool(self.text_encoder or self.loras)


@dataclass(frozen=True)
class Drawing:
    """How every picture is drawn.

    Attributes:
        sampler, steps, guidance: of the denoising.
        width, height: in pixels, multiples of 8.
        seed: a prompt's seed is this plus its place in its file, times `pictures`, plus the picture's number.
        pictures: of each prompt.
        batch: pictures at a time. It is a part of what decides a picture, by its last bits.
        precision: of the U-Net.
        threads: of a process that draws on a CPU; they too decide a picture's last bits.
    """

    sampler: str
    steps: int
    guidance: float
    width: int
    height: int
    seed: int
    pictures: int
    batch: int
    precision: str
    threads: int


@dataclass(frozen=True)
class PromptFile:
    """A list of prompts: its name in tables, its file, and how many of them are drawn (0: all)."""

    name: str
    file: Path
    count: int = 0


@dataclass(frozen=True)
class Scoring:
    """What is measured, and by whom.

    Attributes:
        what: some of SCORES.
        judge: folder of a visual question answering model, or READER in the shapes world; "" for none.
        judge_precision: "fp32", "fp16" or "bf16".
        sentences: folder of a sentence encoder; None matches free answers by the judge's likelihoods.
        clip: folder of the original CLIP.
        concept: what attacks ask for.
        question: asked about it instead of "is there a <concept>?"; "" for that.
        witness: who says whether it shows, one of WITNESSES.
        neighbours: of each prompt, in the geometry.
        published: whether the paper's figures stand next to those measured, under a label.
        lost: captions with lost questions that the page shows of each method.
    """

    what: tuple[str, ...]
    judge: str
    judge_precision: str
    sentences: Path | None
    clip: Path | None
    concept: str
    question: str
    witness: str
    neighbours: int
    published: bool
    lost: int


@dataclass(frozen=True)
class Plan:
    """A whole evaluation; `base` is a checkpoint, a diffusers folder, or None for the shapes world."""

    file: Path
    output: Path
    base: Path | None
    draw: Drawing
    questions: PromptFile | None
    attacks: tuple[PromptFile, ...]
    safe: tuple[PromptFile, ...]
    score: Scoring
    methods: tuple[MethodPlan, ...]

    @property
    def title(self) -> str:
        """What the base is called in reports."""
        return "the shapes world" if self.base is None else self.base.name

    @property
    def headline(self) -> str:
        """The title of the report."""
        count = len(self.methods) - 1
        return f"{count} {'method' if count == 1 else 'methods'} against {self.title}"

    @property
    def protocol(self) -> str:
        """How the pictures are drawn, in a sentence."""
        draw = self.draw
        return (
            f"Every method drew the same prompts with the same seeds: {draw.sampler}, {draw.steps} steps, guidance "
            f"{draw.guidance:g}, {draw.width} × {draw.height} pixels, seed {draw.seed} plus a prompt's place in its "
            "file."
        )


def slug(name: str) -> str:
    """A name as a part of file names: at most 60 lower-case ASCII letters, digits and single dashes."""
    return _SLUG.sub("-", name.lower().replace("+", "-plus"))[:60].strip("-") or "method"


def read_plan(file: str | os.PathLike[str]) -> Plan:
    """Read a plan and check all of its fields.

    Raises:
        SettingsError: with all problems, each with the file, the line and the field.
    """
    root = read_toml(Path(file))
    base = _base(root)
    in_world = base is None and root.values.get("base") == SHAPES
    output = root.source.file.parent / Path(root.text("output", "evaluation")).expanduser()
    draw = _drawing(root.section("draw"), _WORLD if in_world else _SD)
    questions, attacks, safe = _prompts(root.section("prompts"))
    score = _scoring(root.section("score"), in_world, questions, attacks, safe)
    methods = (MethodPlan(BASE), *(_method(section) for section in root.sections("method")))
    _require_different(root, methods)
    root.close()
    root.source.require_none()
    return Plan(root.source.file, output, base, draw, questions, attacks, safe, score, methods)


def _base(root: Section) -> Path | None:
    if root.values.get("base") == SHAPES:
        root.has("base")
        return None
    return root.path("base", required=True, folder=None)


def _drawing(section: Section, usual: Mapping[str, Any]) -> Drawing:
    sizes = [section.whole(side, usual["size"], 8, 4096) for side in ("width", "height")]
    for side, size in zip(("width", "height"), sizes, strict=True):
        if size % 8:
            section.wrong(side, "a multiple of 8")
        elif usual is _WORLD and size != usual["size"]:
            section.wrong(side, f"{usual['size']}, as the shapes world draws nothing else")
    found = Drawing(
        sampler=section.choice("sampler", SAMPLERS, "ddim"),
        steps=section.whole("steps", usual["steps"], 1, 1000),
        guidance=section.number("guidance", usual["guidance"], 0, 100),
        width=sizes[0],
        height=sizes[1],
        seed=section.whole("seed", 0, 0, 2**62),
        pictures=section.whole("pictures", 1, 1, 1000),
        batch=section.whole("batch", usual["batch"], 1, 1000),
        precision=section.choice("precision", PRECISIONS, "auto"),
        threads=section.whole("threads", 1, 1, 1024),
    )
    section.close()
    return found


def _prompts(section: Section) -> tuple[PromptFile | None, tuple[PromptFile, ...], tuple[PromptFile, ...]]:
    file = section.path("questions")
    count = section.whole("captions", 0, 0, 10**7)
    questions = PromptFile(CAPTIONS, file, count) if file else None
    sections = {kind: section.sections(kind) for kind in ("attack", "safe")}
    lists = {kind: tuple(map(_list, found)) for kind, found in sections.items()}
    each = [(own, prompts.name) for kind in lists for own, prompts in zip(sections[kind], lists[kind], strict=True)]
    for place, name, other in _repeats([CAPTIONS, *(name for _, name in each)]):
        each[place - 1][0].problem("name", f"{name!r} is too like {other!r}, another list's name; give each its own.")
    if not any(section.has(name) for name in ("questions", "attack", "safe")):
        section.problem("questions", "there is nothing to draw; expected a file of questions, or [[prompts.attack]].")
    section.close()
    return questions, lists["attack"], lists["safe"]


def _list(section: Section) -> PromptFile:
    found = PromptFile(
        section.text("name", required=True),
        section.path("file", required=True) or Path(),
        section.whole("count", 0, 0, 10**7),
    )
    section.close()
    return found


def _scoring(
    section: Section,
    in_world: bool,
    questions: PromptFile | None,
    attacks: tuple[PromptFile, ...],
    safe: tuple[PromptFile, ...],
) -> Scoring:
    judge = _judge(section, in_world)
    clip = section.path("clip", folder=True)
    witness = section.choice("witness", WITNESSES, "judge" if in_world else "nudenet")
    usual = [
        name
        for name, there in (
            ("tifa", questions and judge),
            ("clipscore", (questions or safe) and clip),
            ("attacks", attacks),
            ("geometry", questions),
        )
        if there
    ]
    what = section.choices("what", SCORES, usual)
    found = Scoring(
        what=what,
        judge=judge,
        judge_precision=section.choice("judge_precision", PRECISIONS[1:], "fp32"),
        sentences=section.path("sentences", folder=True),
        clip=clip,
        concept=section.text("concept", "skull" if in_world else "nudity"),
        question=section.text("question"),
        witness=witness,
        neighbours=section.whole("neighbours", 10, 1, 1000),
        published=section.flag("published", False),
        lost=section.whole("lost", 24, 0, 10_000),
    )
    _require_prompts(section, what, bool(questions), bool(attacks), bool(safe))
    needs = {"judge": ("tifa" in what) or ("attacks" in what and witness == "judge")}
    needs["clip"] = ("clipscore" in what) or ("attacks" in what and witness == "clip")
    for name, value in (("judge", judge), ("clip", clip)):
        if needs[name] and not value and not section.has(name):
            section.problem(name, f"it is missing, and scoring needs it ({', '.join(what)}). Name a folder.")
    section.close()
    return found


def _require_prompts(section: Section, what: tuple[str, ...], questions: bool, attacks: bool, safe: bool) -> None:
    if {"tifa", "geometry"} & set(what) and not questions:
        section.problem("what", "tifa and geometry need prompts.questions. Name the file, or leave them out.")
    if "clipscore" in what and not (questions or safe):
        section.problem("what", "clipscore needs harmless prompts. Add [[prompts.safe]], or leave it out.")
    if "attacks" in what and not attacks:
        section.problem("what", "attacks need lists of prompts. Add [[prompts.attack]], or leave attacks out.")


def _judge(section: Section, in_world: bool) -> str:
    if section.values.get("judge") == READER or (in_world and "judge" not in section.values):
        section.has("judge")
        if not in_world:
            section.problem("judge", f"{READER!r} reads the shapes world's pictures alone; expected a judge's folder.")
        return READER
    found = section.path("judge", folder=True)
    return str(found) if found else ""


def _method(section: Section) -> MethodPlan:
    name = section.text("name", required=True)
    found = MethodPlan(
        name=name,
        text_encoder=_part(section, "text_encoder"),
        unet=_part(section, "unet"),
        loras=_loras(section),
        erase=_erase(section.section("erase")) if section.has("erase") else None,
        sld=section.choice("sld", SLD_PRESETS, ""),
        safety_text=section.text("safety_text"),
        safree=section.texts("safree"),
        gate=section.path("gate"),
    )
    if found.safety_text and not section.has("sld"):
        section.problem("safety_text", "it has no effect without sld. Name a strength, or leave it out.")
    if found.gate and found.safree:
        section.problem(
            "gate", "it takes the place of a prompt's states, and so does safree. Make two methods of them."
        )
    given = ("text_encoder", "unet", "lora", "erase", "sld", "safree", "gate")
    if not any(section.has(each) for each in given):
        section.problem("name", f"the method {name!r} changes nothing; expected one or more of {', '.join(given)}.")
    section.close()
    return found


def _part(section: Section, name: str) -> Part | None:
    """A file by its name alone, or a table with `file` and `strength`."""
    if not section.has(name):
        return None
    if isinstance(section.values[name], dict):
        return _part_of(section.section(name))
    file = section.path(name, folder=None)
    return Part(file) if file else None


def _part_of(section: Section) -> Part | None:
    file = section.path("file", required=True, folder=None)
    strength = section.number("strength", 1.0, -10, 10)
    section.close()
    return Part(file, strength) if file else None


def _loras(section: Section) -> tuple[Part, ...]:
    value = section.values.get("lora")
    if not isinstance(value, list):
        found = _part(section, "lora")
        return (found,) if found else ()
    section.has("lora")
    tables = [{"file": each} if isinstance(each, str) else each for each in value]
    if not all(isinstance(each, dict) for each in tables):
        section.wrong("lora", "files, or tables with file and strength")
        return ()
    parts = (_part_of(Section(each, (*section.where, "lora", n), section.source)) for n, each in enumerate(tables))
    return tuple(part for part in parts if part)


def _erase(section: Section) -> Erase:
    method = section.choice("method", CLOSED_FORMS, "uce")
    concepts = section.texts("concepts")
    if not concepts and "concepts" not in section.values:
        section.problem("concepts", "it is missing; expected what to erase, such as ['nudity'].")
    guides = section.texts("guides", ("",), blank=True)
    if len(guides) not in (1, max(len(concepts), 1)):
        section.wrong("guides", f"one guide for all, or one for each of {len(concepts)} concepts")
    knobs = {name: section.number(name, 0, 0, 1e6) for name in KNOBS if section.has(name)}
    for name in knobs:
        if method not in KNOBS[name]:
            section.problem(name, f"{method} has no such setting; leave it out.")
    found = Erase(
        method=method,
        concepts=concepts,
        guides=guides,
        keep=section.path("keep"),
        captions=section.path("captions"),
        knobs=knobs,
        strength=section.number("strength", 1.0, -10, 10),
    )
    section.close()
    return found


def _require_different(root: Section, methods: tuple[MethodPlan, ...]) -> None:
    for place, name, other in _repeats([method.name for method in methods]):
        hint = "the base is always drawn" if other == BASE else "folders and tables would mix them up"
        text = f"{name!r} is too like {other!r}, another method's name: {hint}."
        root.source.problem(("method", place - 1, "name"), text)
    if len(methods) == 1 and not root.has("method"):
        root.problem("method", "there is no method to compare with the base; expected one or more [[method]].")


def _repeats(names: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Place and name of each whose files would be those of an earlier one, and that one's name."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if name and (found := first.setdefault(slug(name), place)) != place:
            yield place, name, names[found]
