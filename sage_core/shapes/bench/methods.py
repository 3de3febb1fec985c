"""What the bench compares: each method makes a change of the world's model, for one task and seed."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...alignment.settings import PRESETS, TrainingSettings
from ...alignment.training import train, train_stored
from ...drawing.change import Change, Safety
from ...drawing.guidance import PRESETS as SLD_PRESETS
from ...encoders.precision import PrecisionChoice
from ...errors import SettingsError
from ...files import whole_file
from ...methods.closed_form import METHODS as CLOSED_FORMS
from ...methods.concepts import Concepts
from ...methods.erasing import ErasingObjective, ErasingSettings, ErasingTexts
from ...methods.gate import GatedPrompts, GateSettings, train_gate
from ...methods.redirecting import PairStates, RedirectingObjective, RedirectingSettings
from ...methods.safree import MovedPrompts
from ...prompts.pairs import PromptPairs
from ...rows import parse_json, read_text
from ...runs.loop import Budget, Loop
from ...unet.differences import DiffusersNoise
from ...unet.training import weights_hash
from ..captions import write_captions
from ..exam.trials import drawing_precision
from ..networks.model import LATENT_SHAPE, ShapesModel
from ..tasks import Task

# Everyday captions whose states closed forms keep, where they have a prior over them.
_KEPT = 150


@dataclass(frozen=True)
class Ground:
    """What a method may work with: the base model, what is to go, and pairs of prompts that no exam holds.

    Attributes:
        store: folder in which trained encoders and U-Nets are kept and found again; None trains each time.
    """

    model: ShapesModel
    base: Mapping[str, Tensor]
    task: Task
    pairs: PromptPairs
    seed: int
    store: Path | None = None


class Method(Protocol):
    """A way to remove a concept."""

    def make(self, ground: Ground) -> Change:
        """What becomes of the world's model."""
        ...

    def about(self) -> dict[str, Any]:
        """Everything that decides what it does, ready for JSON."""
        ...


@dataclass(frozen=True)
class Base:
    """Nothing is done."""

    def make(self, ground: Ground) -> Change:
        """See Method."""
        return Change()

    def about(self) -> dict[str, Any]:
        """See Method."""
        return {"method": "base"}


@dataclass(frozen=True)
class Alignment:
    """The text encoder is trained, with a direction for each concept of the task."""

    settings: TrainingSettings

    def make(self, ground: Ground) -> Change:
        """See Method."""
        settings = self.settings.replace(seed=ground.seed)
        concepts, device = ground.task.listed(), ground.model.device
        if ground.store is None:
            result = train(ground.base, ground.pairs, concepts, settings, device=device)
        else:
            result, _ = train_stored(ground.base, ground.pairs, concepts, settings, ground.store, device=device)
        return Change(encoder=result.state)

    def about(self) -> dict[str, Any]:
        """See Method."""
        return {"method": "alignment", **self.settings.to_dict()}


@dataclass(frozen=True)
class ClosedForm:
    """The U-Net's cross-attention is solved for, by the names that training sees.

    Attributes:
        name: of the closed form.
        knobs: its settings, where they are not its defaults.
        guide: what the names become.
        keep: whether everyday captions of the world are texts to preserve.
        prior: whether they say what states look like in general.
    """

    name: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    guide: str = ""
    keep: bool = True
    prior: bool = False

    def make(self, ground: Ground) -> Change:
        """See Method."""
        settings, edit = CLOSED_FORMS[self.name].load()
        names = tuple(_seen(ground.task))
        everyday = tuple(
            write_captions(
                ground.task.safe_scenes(_KEPT, seed=ground.seed, split="train"), seed=ground.seed, names="seen"
            )
        )
        concepts = Concepts(
            names, (self.guide,), preserve=everyday if self.keep else (), captions=everyday if self.prior else ()
        )
        weights = ground.model.unet.state_dict()
        return Change(deltas=edit(weights, ground.model.encoder, concepts, settings(**self.knobs)).deltas)

    def about(self) -> dict[str, Any]:
        """See Method."""
        told = {"method": self.name, "knobs": dict(self.knobs), "guide": self.guide, "keep": self.keep}
        # Runs that were kept before had none.
        return told | {"prior": True} if self.prior else told


@dataclass(frozen=True)
class Erasing:
    """The U-Net is trained to draw something else where the names that training sees are asked for: ESD."""

    settings: ErasingSettings

    def make(self, ground: Ground) -> Change:
        """See Method."""
        settings = self.settings.replace(seed=ground.seed)
        noise = DiffusersNoise(copy.deepcopy(ground.model.unet))
        texts = ErasingTexts.of(ground.model.encoder, Concepts(tuple(_seen(ground.task))))
        objective = ErasingObjective(noise, texts, settings, LATENT_SHAPE)
        Loop(objective, Budget(steps=settings.steps), lambda _step, _used: settings.learning_rate).run()
        return _edit(objective.result())

    def about(self) -> dict[str, Any]:
        """See Method."""
        return {"method": "esd", **self.settings.to_dict()}


@dataclass(frozen=True)
class Redirected:
    """The U-Net is redirected by the prompt pairs that text encoders are trained by."""

    settings: RedirectingSettings

    def make(self, ground: Ground) -> Change:
        """See Method; trained once for one store."""
        if ground.store is None:
            return _edit(self._train(ground))
        made_of = [self.about(), ground.seed, ground.pairs.hash(), weights_hash(ground.model.unet.state_dict())]
        key = hashlib.sha256(json.dumps([*made_of, ground.model.device.type]).encode()).hexdigest()[:32]
        file = ground.store / f"unet-{key}.safetensors"
        if not file.exists():
            with whole_file(file) as temporary:
                save_file(self._train(ground), temporary)
        return _edit(load_file(file))

    def _train(self, ground: Ground) -> dict[str, Tensor]:
        settings = self.settings.replace(seed=ground.seed)
        noise, device = DiffusersNoise(copy.deepcopy(ground.model.unet)), ground.model.device
        states = PairStates.of(ground.model.encoder, ground.pairs)
        half = drawing_precision(device)
        with torch.autocast(device.type, half, enabled=half is not None):
            objective = RedirectingObjective(noise, states, settings, LATENT_SHAPE)
            Loop(objective, Budget(steps=settings.steps), settings.rate).run()
        return objective.result()

    def about(self) -> dict[str, Any]:
        """See Method."""
        return {"method": "sage_unet", **self.settings.to_dict()}


@dataclass(frozen=True)
class Both:
    """A trained text encoder in front of an edited U-Net."""

    alignment: Alignment
    edit: ClosedForm | Redirected

    def make(self, ground: Ground) -> Change:
        """See Method."""
        return self.edit.make(ground) + self.alignment.make(ground)

    def about(self) -> dict[str, Any]:
        """See Method."""
        return {"method": "both", "alignment": self.alignment.about(), "edit": self.edit.about()}


@dataclass(frozen=True)
class Guided:
    """Safe Latent Diffusion, away from all names that training sees."""

    preset: str = "max"

    def make(self, ground: Ground) -> Change:
        """See Method."""
        return Change(safety=Safety(SLD_PRESETS[self.preset], ", ".join(_seen(ground.task))))

    def about(self) -> dict[str, Any]:
        """See Method."""
        return {"method": "sld", "preset": self.preset}


@dataclass(frozen=True)
class Safree:
    """SAFREE, away from all names that training sees."""

    def make(self, ground: Ground) -> Change:
        """See Method."""
        return Change(reads=MovedPrompts(tuple(_seen(ground.task))))

    def about(self) -> dict[str, Any]:
        """See Method."""
        return {"method": "safree"}


@dataclass(frozen=True)
class Gated:
    """A gate on the base's states, trained from the same pairs, in front of a trained text encoder."""

    alignment: Alignment
    settings: GateSettings = field(default_factory=GateSettings)

    def make(self, ground: Ground) -> Change:
        """See Method."""
        pairs, settings = ground.pairs, replace(self.settings, seed=ground.seed)
        gate = train_gate(ground.model.encoder, pairs.safe, pairs.unsafe, settings)
        return self.alignment.make(ground) + Change(reads=GatedPrompts(gate))

    def about(self) -> dict[str, Any]:
        """See Method."""
        return {"method": "gate", "gate": asdict(self.settings), "alignment": self.alignment.about()}


def _edit(deltas: Mapping[str, Tensor]) -> Change:
    """Differences that come under DiffusersNoise's names."""
    return Change(deltas={name.removeprefix("unet."): delta for name, delta in deltas.items()})


def _seen(task: Task) -> list[str]:
    return [name.text for concept in task.concepts for name in concept.seen]


BASE = "base"
# For this U-Net, a thirtieth of SD 1.x's, and the few steps of a short bench.
_REDIRECTED = Redirected(
    RedirectingSettings(
        steps=100, learning_rate=5e-4, batch_size=12, keep_batch=24, keep_weight=5.0, pictures=96, sampling_steps=6
    )
)
_STRONGER = Redirected(_REDIRECTED.settings.replace(strength=1.0, steps=160))
_UCE = ClosedForm("uce_paper")
# Milder than the published strengths, which were chosen for a U-Net 30 times as large. Measured on few prompts:
# towards the empty prompt RECE leaves the concept in full captions; OCE takes skulls, and leaves red stars.
_RECE = ClosedForm("rece", {"epochs": 1, "preserve_scale": 1.0}, "ball")
METHODS: dict[str, Method] = {
    BASE: Base(),
    **{name: Alignment(settings) for name, settings in PRESETS.items()},
    "paper, product form": Alignment(PRESETS["paper"].replace(local_form="product")),
    "paper, symmetric spread": Alignment(PRESETS["paper"].replace(spread_form="symmetric")),
    "uce": ClosedForm("uce"),
    "uce_paper": _UCE,
    "speed": ClosedForm("speed", {"rows": "after_start"}, keep=False),
    "cure": ClosedForm("cure"),
    "rece": _RECE,
    "oce": ClosedForm("oce", {"erase_scale": 30.0}, "ball", keep=False, prior=True),
    # The published rate of 5e-5 leaves every concept in this U-Net after 100 steps, and 3e-4 most of it after 40.
    "esd": Erasing(ErasingSettings(steps=40, learning_rate=1e-3, sampling_steps=6, batch_size=4)),
    "sage_plus with uce_paper": Both(Alignment(PRESETS["sage_plus"]), _UCE),
    "sage_plus with rece": Both(Alignment(PRESETS["sage_plus"]), _RECE),
    "sage_unet": _REDIRECTED,
    "sage_plus with sage_unet": Both(Alignment(PRESETS["sage_plus"]), _REDIRECTED),
    "sage_plus with a stronger sage_unet": Both(Alignment(PRESETS["sage_plus"]), _STRONGER),
    "sage_plus behind a gate": Gated(Alignment(PRESETS["sage_plus"])),
    "sld": Guided(),
    "safree": Safree(),
}


def shorter(method: Method, **changes: Any) -> Method:
    """The method with settings of its training changed, where it has one."""
    if isinstance(method, Alignment):
        return Alignment(method.settings.replace(**changes))
    if isinstance(method, Both | Gated):
        return replace(method, alignment=Alignment(method.alignment.settings.replace(**changes)))
    return method


def read_methods(path: Path) -> dict[str, Method]:
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
    return {name: Alignment(_objective(fields, f"{path}, {name}")) for name, fields in content.items()}


def _objective(fields: Mapping[str, Any], source: str) -> TrainingSettings:
    preset = fields.get("preset", "released")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise SettingsError(f"{source}: preset is {preset!r}; expected one of {', '.join(PRESETS)}.")
    changes = {name: value for name, value in fields.items() if name != "preset"}
    return TrainingSettings.from_dict(PRESETS[preset].to_dict() | changes, source)


def chosen_methods(names: Sequence[str] | None, methods: Mapping[str, Method]) -> Mapping[str, Method]:
    """Those of `methods` that are named, all if none is. Raises SettingsError for a name that is not among them."""
    if not names:
        return methods
    if unknown := [name for name in names if name not in methods]:
        raise SettingsError(f"--method is {unknown[0]!r}; expected one of {', '.join(methods)}.")
    return {name: methods[name] for name in names}


def as_tried(method: Method, precision: PrecisionChoice) -> Method:
    """The method without held-out prompts, and in the bench's precision unless its settings name one themselves."""
    if isinstance(method, Alignment) and method.settings.precision != "auto":
        return shorter(method, held_out=0)
    return shorter(method, held_out=0, precision=precision)
