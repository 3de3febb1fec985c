"""What the bench compares: each method makes a change of the world's model, for one task and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...alignment.settings import PRESETS, TrainingSettings
from ...drawing.change import Change
from ...encoders.precision import PrecisionChoice
from ...errors import SettingsError
from ...methods.making import make
from ...methods.removal import Base, Removal
from ...methods.table import METHODS as MAKERS
from ...methods.table import settings_for
from ...prompts.pairs import PromptPairs
from ...rows import parse_json, read_text
from ..captions import write_captions
from ..exam.trials import drawing_precision
from ..networks.model import PICTURE_SIZE, ShapesModel
from ..tasks import Task

# Everyday captions whose states closed forms keep, where they have a prior over them.
_KEPT = 150


@dataclass(frozen=True)
class Ground:
    """What a method may work with: the base model, what is to go, and pairs of prompts that no exam holds.

    Attributes:
        store: folder in which what is trained is kept and found again; None trains each time.
    """

    model: ShapesModel
    base: Mapping[str, Tensor]
    task: Task
    pairs: PromptPairs
    seed: int
    store: Path | None = None

    def removal(self, part: Part) -> Removal:
        """What a method is told: all names that training sees, the pairs, and everyday captions of the world."""
        scenes = self.task.safe_scenes(_KEPT, seed=self.seed, split="train")
        everyday = tuple(write_captions(scenes, seed=self.seed, names="seen"))
        return Removal(
            tuple(name.text for concept in self.task.concepts for name in concept.seen),
            (part.guide,),
            preserve=everyday if part.keep else (),
            captions=everyday if part.prior else (),
            pairs=self.pairs,
            concepts=self.task.listed(),
        )


@dataclass(frozen=True)
class Part:
    """A method of `methods.table`, as it is tried here.

    Attributes:
        name: of the method.
        settings: of its own class; None for its usual ones.
        guide: what the names become.
        keep: whether everyday captions of the world are texts to preserve.
        prior: whether they say what states look like in general.
    """

    name: str
    settings: Any = None
    guide: str = ""
    keep: bool = True
    prior: bool = False

    @property
    def kind(self) -> str:
        """How it is made."""
        return MAKERS[self.name].kind

    def make(self, ground: Ground) -> Change:
        """Its change of the world's model."""
        model, settings = ground.model, self.settings or MAKERS[self.name].usual()
        if hasattr(settings, "seed"):
            settings = replace(settings, seed=ground.seed)
        base = Base(model.encoder, model.config, model.weight, PICTURE_SIZE, names=tuple(model.unet.state_dict()))
        half = drawing_precision(model.device) if self.kind == "redirecting" else None
        with torch.autocast(model.device.type, half, enabled=half is not None):
            return make(self.name, base, ground.removal(self), settings, store=ground.store).change

    def _told(self) -> Removal:
        """What it is told of any task, as far as recipes ask: several names, a guide, texts to keep or none."""
        return Removal(("one", "another"), (self.guide,), preserve=("a text",) if self.keep else ())

    def about(self) -> dict[str, Any]:
        """Everything that decides what it does, ready for JSON; spelled as it always was, so that runs are found."""
        found = MAKERS[self.name].recipe(self.settings or MAKERS[self.name].usual(), self._told())
        recipe = {"recipe": found} if found > 1 else {}
        told = {} if self.settings is None else self.settings.key()
        for name, value in (("until", "steps"), ("rounds_to", "empty")):
            # Came later, and what they say now was always so.
            if told.get(name) == value:
                del told[name]
        if self.kind == "alignment":
            return {"method": "alignment", **told, **recipe}
        if self.kind == "closed form":
            knobs = {name: value for name, value in told.items() if value != getattr(MAKERS[self.name].usual(), name)}
            prior = {"prior": True} if self.prior else {}
            return {"method": self.name, "knobs": knobs, "guide": self.guide, "keep": self.keep, **prior, **recipe}
        if self.kind == "guidance":
            return {"method": "sld", "preset": MAKERS[self.name].preset, **recipe}
        if self.kind == "prompts":
            return {"method": self.name, **recipe}
        return {"method": "esd" if self.name == "esd_x" else self.name, **told, **recipe}


@dataclass(frozen=True)
class Tried:
    """A row of the bench: the parts of which it consists; none is the base."""

    parts: tuple[Part, ...] = ()

    def make(self, ground: Ground) -> Change:
        """What becomes of the world's model: each part is made from the base."""
        return sum((part.make(ground) for part in self.parts), Change())

    def about(self) -> dict[str, Any]:
        """Everything that decides what it does, ready for JSON."""
        if not self.parts:
            return {"method": BASE}
        first, *others = self.parts
        if not others:
            return first.about()
        if others[0].kind == "gate":
            return {"method": "gate", "gate": asdict(others[0].settings), "alignment": first.about()}
        return {"method": "both", "alignment": first.about(), "edit": others[0].about()}

    def aligned(self, **changes: Any) -> Tried:
        """The same with settings of its alignment changed, where it has one."""
        return Tried(
            tuple(
                replace(part, settings=part.settings.replace(**changes)) if part.kind == "alignment" else part
                for part in self.parts
            )
        )


def alignment(settings: TrainingSettings) -> Tried:
    """The text encoder is trained with these settings, whichever preset's they are."""
    return Tried((Part("released", settings),))


def _changed(name: str, **changes: Any) -> Any:
    return settings_for(name, changes)


BASE = "base"
_PLUS = Part("sage_plus", PRESETS["sage_plus"])
# For this U-Net, a thirtieth of SD 1.x's, and the few steps of a short bench.
_SHORT = {"steps": 100, "learning_rate": 5e-4, "batch_size": 12, "keep_batch": 24, "pictures": 96, "sampling_steps": 6}
_REDIRECTED = Part("sage_unet", _changed("sage_unet", **_SHORT))
_STRONGER = Part("sage_unet", _changed("sage_unet", **_SHORT | {"strength": 1.0, "steps": 160}))
_UCE = Part("uce_paper", _changed("uce_paper"))
# Milder than the published strengths, which were chosen for a U-Net 30 times as large. Measured on few prompts:
# towards the empty prompt RECE leaves the concept in full captions, and with rounds towards the guide it leaves skulls;
# OCE takes skulls, and leaves red stars.
_RECE = Part("rece", _changed("rece", epochs=1, preserve_scale=1.0, rounds_to="empty"), "ball")
# The published rate of 5e-5 leaves every concept in this U-Net after 100 steps, and 3e-4 most of it after 40.
_ERASED = {"steps": 40, "learning_rate": 1e-3, "sampling_steps": 6, "batch_size": 4}
_UNLEARNED = _ERASED | {"learning_rate": 1e-4}
# What differs here from a method's usual settings; every other method of the table is tried as it is.
_OWN = {
    "speed": Part("speed", _changed("speed", rows="after_start"), keep=False),
    "rece": _RECE,
    "oce": Part("oce", _changed("oce", erase_scale=30.0), "ball", keep=False, prior=True),
    "mace": Part("mace", _changed("mace"), "ball", prior=True),
    **{name: Part(name, _changed(name, **_ERASED)) for name in ("esd_x", "esd_u", "race")},
    "adv_unlearn": Part("adv_unlearn", _changed("adv_unlearn", **_UNLEARNED), keep=False),
    "sage_unet": _REDIRECTED,
}
# Names under which results were kept, and settings that only a published length makes sense of.
_RENAMED = {"esd_x": "esd", "sld_max": "sld"}
_LEFT_OUT = ("gate", "esd_x_paper", "esd_u_paper")


def _rows() -> dict[str, Tried]:
    rows = {BASE: Tried()}
    for name, method in MAKERS.items():
        if method.kind == "alignment":
            rows[name] = alignment(PRESETS[name])
        elif name not in _LEFT_OUT:
            rows[_RENAMED.get(name, name)] = Tried((_OWN.get(name, Part(name, _changed(name))),))
    return rows


METHODS: dict[str, Tried] = {
    **_rows(),
    "own_concept": alignment(PRESETS["own_concept"]),
    "paper, product form": alignment(PRESETS["paper"].replace(local_form="product")),
    "paper, symmetric spread": alignment(PRESETS["paper"].replace(spread_form="symmetric")),
    # As in their authors' programs, where the first fifth and the first half of the steps are without attack.
    "adv_unlearn, drawn by the base": Tried(
        (Part("adv_unlearn", _changed("adv_unlearn", **_UNLEARNED, drawn_by="base", plain_steps=8), keep=False),)
    ),
    "race from an esd": Tried((Part("race", _changed("race", **_ERASED | {"steps": 80}, race={"plain_steps": 40})),)),
    "sage_plus with uce_paper": Tried((_PLUS, _UCE)),
    "sage_plus with rece": Tried((_PLUS, _RECE)),
    "sage_plus with sage_unet": Tried((_PLUS, _REDIRECTED)),
    "sage_plus with a stronger sage_unet": Tried((_PLUS, _STRONGER)),
    "sage_plus behind a gate": Tried((_PLUS, Part("gate", _changed("gate")))),
}


def read_methods(path: Path) -> dict[str, Tried]:
    """Read objectives from a JSON file: name → the fields in which its settings differ from those of its "preset".

    Without a preset it is `released`.

    Raises:
        SettingsError: the file is not such a mapping, or a field is wrong.
    """
    text, _ = read_text(path, SettingsError)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise SettingsError(f"{path} cannot be read as JSON ({error}).") from error
    named = isinstance(content, dict) and all(name.strip() for name in content)
    if not content or not named or not all(isinstance(fields, dict) for fields in content.values()):
        raise SettingsError(f'{path}: expected {{"objective": {{"setting": value, …}}, …}}.')
    if BASE in content:
        raise SettingsError(f"{path}: {BASE!r} is the encoder before alignment; give the objective another name.")
    return {name: alignment(_objective(fields, f"{path}, {name}")) for name, fields in content.items()}


def _objective(fields: Mapping[str, Any], source: str) -> TrainingSettings:
    preset = fields.get("preset", "released")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise SettingsError(f"{source}: preset is {preset!r}; expected one of {', '.join(PRESETS)}.")
    changes = {name: value for name, value in fields.items() if name != "preset"}
    return TrainingSettings.from_dict(PRESETS[preset].to_dict() | changes, source)


def chosen_methods(names: Sequence[str] | None, methods: Mapping[str, Tried]) -> Mapping[str, Tried]:
    """Those of `methods` that are named, all if none is. Raises SettingsError for a name that is not among them."""
    if not names:
        return methods
    if unknown := [name for name in names if name not in methods]:
        raise SettingsError(f"--method is {unknown[0]!r}; expected one of {', '.join(methods)}.")
    return {name: methods[name] for name in names}


def as_tried(method: Tried, precision: PrecisionChoice) -> Tried:
    """The method in the bench's precision unless its settings name one themselves, and without held-out prompts.

    One that ends when the concept is removed keeps those, by which it knows.
    """
    own = method.parts[0].settings if len(method.parts) == 1 and method.parts[0].kind == "alignment" else None
    held_out = {} if own and own.until == "removed" else {"held_out": 0}
    if own and own.precision != "auto":
        return method.aligned(**held_out)
    return method.aligned(**held_out, precision=precision)
