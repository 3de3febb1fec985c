"""The plan of an evaluation: which methods draw which prompts how, and what is scored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..lazy import installed
from ..scores.rates import NUDENET_THRESHOLD, STRICT_CLASSES
from .claims import AUTO

BASE = "base"
SHAPES = "shapes"
READER = "reader"
# By their names in plans: how reports spell them.
_SAMPLERS = {"ddim": "DDIM", "euler": "Euler", "dpmpp_2m": "DPM-Solver++ (2M)"}
SAMPLERS = tuple(_SAMPLERS)
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
# Distances of sets of pictures, by their names in plans and in tables.
DISTANCES = {"fid": "FID", "kid": "KID", "cmmd": "CMMD"}
SCORES = (
    "tifa", "soft_tifa", "geneval", "vqascore", "clipscore", "attacks", "attacked", "kept", "geometry", *DISTANCES,
    *installed("sage_core.scores"),
)  # fmt: skip
# Those that a judge answers questions for.
JUDGED = ("tifa", "geneval", "vqascore")
WITNESSES = ("judge", "clip", "nudenet")
# Whether what must stay is of the removed concept's own kind, or of another.
DOMAINS = ("same", "other")
# What a list that is made begins with; the concept follows.
NEAR_MISSES = "near misses of "
CAPTIONS = "captions"
GENEVAL = "geneval"
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Part:
    """A file that changes a model, and how strongly: 0 is not at all, 1 as it was made."""

    file: Path
    strength: float = 1.0


@dataclass(frozen=True)
class Making:
    """A change that is made before it is first drawn with; see `methods.table`.

    Attributes:
        method: its name there.
        concepts, guides: what is to go, and what each becomes; guides may be those of a list of concepts.
        concept_list: a file of concepts in their place.
        keep, captions: files of prompts that keep their meaning, and of everyday prompts.
        pairs: a file of safe and unsafe prompts.
        knobs: of a closed form, by the names that all of them share.
        settings: changed ones, by the method's own names.
        strength: of a change of the U-Net; 1 as it is made.
    """

    method: str
    concepts: tuple[str, ...]
    guides: tuple[str, ...] = ("",)
    concept_list: Path | None = None
    keep: Path | None = None
    captions: Path | None = None
    pairs: Path | None = None
    knobs: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    strength: float = 1.0


@dataclass(frozen=True)
class MethodPlan:
    """One column of the evaluation: the base with any mix of changes.

    Attributes:
        name: in tables; no two are alike.
        text_encoder, unet: files in place of the base's own.
        loras: of the text encoder, the U-Net, or both.
        file: what `sage make` wrote: a text encoder, a change of the U-Net, a gate, or settings without weights.
        make: a method of the table, on top of `text_encoder`, `unet` and `loras`.
        sld: a preset of Safe Latent Diffusion, "" for none; `safety_text` is what it leads away from.
        safree: concepts to project prompts away from.
        pictures: a folder of pictures that were drawn elsewhere, a folder in it for each list.
        gate: a gate on the base's states. What it flags is drawn with the changed text encoder, or refined if none is.
    """

    name: str
    text_encoder: Part | None = None
    unet: Part | None = None
    loras: tuple[Part, ...] = ()
    file: Part | None = None
    make: Making | None = None
    sld: str = ""
    safety_text: str = ""
    safree: tuple[str, ...] = ()
    gate: Path | None = None
    pictures: Path | None = None

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
        precision: of the U-Net; "auto" is fp16 on a GPU, and on a CPU bf16 where it computes in it natively, else fp32.
        threads: of a process on a CPU; they too decide a picture's last bits, and those of a judge's probabilities.
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


def usual_drawing(in_world: bool) -> Drawing:
    """What is drawn unless a plan says otherwise: the paper's protocol, or the shapes world's own."""
    if in_world:
        return Drawing("ddim", 20, 4.0, 64, 64, 0, 1, 25, "auto", 1)
    return Drawing("ddim", 50, 7.5, 512, 512, 0, 1, 8, "auto", 1)


@dataclass(frozen=True)
class PromptFile:
    """A list of prompts.

    Attributes:
        name: in tables.
        file: as its authors publish it, or any list of prompts.
        count: how many are drawn (0: all).
        own_settings: whether the seeds and guidance scales that the file gives are used.
        column: where its prompts stand, if it is no published list and has no column `prompt`.
        concept: what its pictures ask for: of an attack it must be gone, and is the plan's if "". Of a harmless list it
            must stay, and nothing is looked for if "".
        question: asked about the concept instead of "is there a <concept>?"; "" for that.
        domain: of a harmless list with a concept, one of DOMAINS.
        make: a concept whose near misses the list is made of, and then kept as `file`; see `near_misses`. Each prompt's
            picture must show what it names.
        captions: harmless prompts that near misses are made from; None for the package's own.
        seed: of what is made.
    """

    name: str
    file: Path
    count: int = 0
    own_settings: bool = True
    column: str = ""
    concept: str = ""
    question: str = ""
    domain: str = DOMAINS[0]
    make: str = ""
    captions: Path | None = None
    seed: int = 0

    @property
    def must_stay(self) -> bool:
        """Of a harmless list: whether its pictures are looked at for what they must show."""
        return bool(self.concept or self.make)


@dataclass(frozen=True)
class MethodAttack:
    """An attack on what every method draws with, and on the base as its control.

    Attributes:
        name: in tables.
        kind: one of `attacks.whole.KINDS`.
        list: the list of attacks whose prompts it turns on the methods, and whose concept it is to bring back.
        count: how many of its prompts (0: all).
        methods: names of those that it attacks besides the base; () for all.
        steps, restarts: the budget of each prompt.
        looks: pictures of each prompt and restart within the budget, besides the one of its random start.
        batch: prompts that are attacked at a time, by one process.
        strength: the share of the drawing that is done anew, of pictures with noise.
        settings: further ones, by the names of `attacks.plans.AttackPlan`.
    """

    name: str
    kind: str
    list: str
    count: int = 0
    methods: tuple[str, ...] = ()
    steps: int = 40
    restarts: int = 1
    looks: int = 4
    batch: int = 8
    strength: float = 0.6
    settings: Mapping[str, Any] = field(default_factory=dict)

    def is_on(self, method: MethodPlan) -> bool:
        """Whether it attacks a method; what was drawn elsewhere it cannot."""
        return not method.pictures and (method.name in (BASE, *self.methods) or not self.methods)


@dataclass(frozen=True)
class Nudenet:
    """How NudeNet is read.

    Attributes:
        threshold: a detection counts from this score on.
        classes: a picture shows nudity if one of them counts.
        detector: a model file in place of the package's own.
        resolution: of that model, in pixels.
    """

    threshold: float = NUDENET_THRESHOLD
    classes: tuple[str, ...] = STRICT_CLASSES
    detector: Path | None = None
    resolution: int = 320


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
        witness: who says whether it shows, one of WITNESSES; see `witness_of`.
        nudenet: what NudeNet counts, where it is the witness.
        neighbours: of each prompt, in the geometry.
        published: whether the paper's figures stand next to those measured, under a label.
        lost: captions with lost questions that the page shows of each method.
        features: FID's Inception, or a folder of DINOv2 or CLIP, whose features DISTANCES compare.
        reference: what they compare with: a folder of photographs, statistics (.npz), or None for the base's pictures.
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
    features: Path | None = None
    reference: Path | None = None
    nudenet: Nudenet = field(default_factory=Nudenet)

    def witness_of(self, file: PromptFile) -> str:
        """Who looks for a list's concept: NudeNet knows nudity alone, and what it does not know a judge is asked."""
        is_plans = file.concept in ("", self.concept) and not file.make
        if is_plans or self.witness != "nudenet":
            return self.witness
        return "judge" if self.judge or not self.clip else "clip"


@dataclass(frozen=True)
class Plan:
    """A whole evaluation; `base` is a checkpoint, a diffusers folder, or None for the shapes world.

    `locks` are one of `claims.KINDS`.
    """

    file: Path
    output: Path
    base: Path | None
    draw: Drawing
    questions: PromptFile | None
    attacks: tuple[PromptFile, ...]
    safe: tuple[PromptFile, ...]
    score: Scoring
    methods: tuple[MethodPlan, ...]
    geneval: PromptFile | None = None
    attacking: tuple[MethodAttack, ...] = ()
    locks: str = AUTO

    @property
    def title(self) -> str:
        """What the base is called in reports."""
        return "the shapes world" if self.base is None else self.base.name

    @property
    def contents(self) -> str:
        """What tables hold a row of."""
        count = len(self.methods) - 1
        return f"{self.title}, and {count} {'method' if count == 1 else 'methods'} on it"

    @property
    def headline(self) -> str:
        """The title of the report."""
        count = len(self.methods) - 1
        return f"{count} {'method' if count == 1 else 'methods'} on {self.title}"

    @property
    def protocol(self) -> str:
        """How the pictures are drawn, in a sentence."""
        draw = self.draw
        return (
            f"Every method drew the same prompts with the same seeds: {_SAMPLERS[draw.sampler]}, {draw.steps} steps, "
            f"guidance {draw.guidance:g}, {draw.width} × {draw.height} pixels, seed {draw.seed} plus a prompt's "
            "place in its file."
        )


def slug(name: str) -> str:
    """A name as a part of file names: at most 60 lower-case ASCII letters, digits and single dashes."""
    return _SLUG.sub("-", name.lower().replace("+", "-plus"))[:60].strip("-") or "method"
