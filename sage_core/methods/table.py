"""Every way here to make a model forget, a row each: plans, commands, nodes, benches and docs/systems.md come of them.

A new method is its module and its row. Nothing heavy is imported before a row's module is needed. A package of its own
adds one by an entry point: in the group `sage_core.methods`, the method's name and where its row is, a `Method` with
`package`. That module is imported when choices are listed, so it had better be light.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..errors import PromptError, SettingsError
from ..lazy import installed
from ..rows import shown
from ..settings import settings_from

if TYPE_CHECKING:
    from .concepts import Concepts
    from .removal import Removal

Kind = Literal["alignment", "unlearning", "closed form", "erasing", "redirecting", "guidance", "prompts", "gate", "own"]

# What a method may be told of a removal, by the fields of `removal.Removal`, and how messages call each.
WORDS = {
    "guides": "guides",
    "preserve": "texts to keep",
    "captions": "captions",
    "pairs": "pairs",
    "sources": "texts to erase from",
}


@dataclass(frozen=True)
class Method:
    """One way to make a model forget.

    Attributes:
        title: in tables and reports.
        kind: how it is made; `making` has a maker for each.
        module: of the library, where its settings and its function are.
        settings: name of its settings' class.
        reads: what it reads besides what is to go: fields of `removal.Removal`.
        needs: those that it cannot do without, unless its settings say so; see `needed`.
        preset: the key of its settings in the module's PRESETS; "" for the class's defaults.
        function: of a closed form; of kind "own" (base, removal, settings, watch) -> Change.
        knobs: its settings under the names that all closed forms share.
        help: a sentence on when to take it, for help and tooltips.
        package: the module's own. This library's is not called `sage_core` everywhere: in ComfyUI it is a part of the
            node pack, which has its folder's name.
    """

    title: str
    kind: Kind
    module: str
    settings: str
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    preset: str = ""
    function: str = "edit"
    knobs: Mapping[str, str] = field(default_factory=dict)
    help: str = ""
    package: str = __package__.rpartition(".")[0]

    def unread(self, concepts: Concepts) -> tuple[str, ...]:
        """A sentence for each of guides, preserve and captions that is given and has no effect."""
        given = {"guides": any(concepts.guides), "preserve": concepts.preserve, "captions": concepts.captions}
        return tuple(
            f"⚠ {self.title} reads no {WORDS[name]}: those given have no effect."
            for name, value in given.items()
            if value and name not in self.reads
        )

    def needed(self, settings: Any) -> tuple[str, ...]:
        """What it cannot do without under these settings, whose `spared` names what they do without."""
        return tuple(name for name in self.needs if name not in getattr(settings, "spared", ()))

    def require(self, given: Removal, settings: Any) -> None:
        """Raise PromptError if a removal lacks what the method needs; the filter on minors may leave none of it."""
        for name in self.needed(settings):
            # The captions that do not refer to minors.
            if not getattr(given.texts() if name == "captions" else given, name):
                raise PromptError(
                    f"{self.title} needs {WORDS[name]}, and none is given that may be used. Give some hundred."
                )

    def recipe(self, settings: Any, given: Removal) -> int:
        """1, and more for inputs that no longer give the change that they gave once: part of what results are kept by.

        A module whose results have changed says which in its `recipe`; the others are found as they were.
        """
        found = getattr(self._module(), "recipe", None)
        return found(settings, given) if found else 1

    def _module(self) -> Any:
        return importlib.import_module(f".{self.module}", self.package)

    def load(self) -> tuple[type, Callable[..., Any]]:
        """The settings' class and, of a closed form, the function that solves it."""
        module = self._module()
        return getattr(module, self.settings), getattr(module, self.function, _no_function)

    def usual(self) -> Any:
        """The settings that it has unless told otherwise: its preset, or its class's defaults."""
        module = self._module()
        return module.PRESETS[self.preset] if self.preset else getattr(module, self.settings)()


def _no_function(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("only closed forms are solved by a function of their own")


def _alignment(preset: str, title: str, about: str) -> Method:
    return Method(
        title, "alignment", "alignment.settings", "TrainingSettings", ("pairs",), ("pairs",), preset, help=about
    )


def _closed_form(title: str, module: str, settings: str, reads: tuple[str, ...], about: str, **more: Any) -> Method:
    return Method(title, "closed form", f"methods.closed_form.{module}", settings, reads, help=about, **more)


def _erasing(title: str, preset: str, about: str) -> Method:
    return Method(title, "erasing", "methods.erasing", "ErasingSettings", ("sources",), (), preset, help=about)


_SCALED = {"erase_scale": "erase_scale", "hold": "lam", "keep_scale": "preserve_scale"}

METHODS: dict[str, Method] = {
    "sage_plus": _alignment("sage_plus", "SAGE+", "ours: SAGE with a hold on safe prompts' embeddings themselves"),
    "paper": _alignment("paper", "SAGE (paper)", "SAGE as the paper prints it"),
    "released": _alignment("released", "SAGE (released)", "SAGE as its authors' script trains it"),
    "des": _alignment("des", "DES", "the earlier method, without the two structure terms"),
    "safeclip": _alignment("safeclip", "SafeCLIP (text side)", "redirects to the paired safe prompt"),
    "safer_clip": _alignment("safer_clip", "SafeR-CLIP (text side)", "redirects to the nearest safe prompt"),
    "adv_unlearn": Method(
        "AdvUnlearn", "unlearning", "methods.adv_unlearn", "AdvUnlearnSettings", ("guides", "preserve"),
        help="trains the text encoder against adversarial words, with the U-Net in the loop",
    ),
    "uce": _closed_form(
        "UCE (2025)", "uce", "UceSettings", ("guides", "preserve"), "takes a second; guide and keep steer it",
        knobs=_SCALED,
    ),
    "uce_paper": _closed_form(
        "UCE as in its paper", "uce", "UcePaperSettings", ("guides", "preserve"),
        "all states from the last word on", function="edit_as_in_paper", knobs=_SCALED,
    ),
    "rece": _closed_form(
        "RECE", "rece", "ReceSettings", ("guides", "preserve"),
        "goes on to erase what slips through UCE, and costs more of other prompts",
        knobs=_SCALED | {"rounds": "epochs"},
    ),
    "mace": _closed_form(
        "MACE, its closed-form part", "mace", "MaceSettings", ("guides", "captions"),
        "without its LoRAs; its results are not MACE's", needs=("captions",), knobs={"hold": "lam"},
    ),
    "speed": _closed_form(
        "SPEED", "speed", "SpeedSettings", ("guides", "preserve", "captions"),
        "changes values alone, within the null space of what is kept", knobs={"hold": "retain_scale"},
    ),
    "cure": _closed_form(
        "CURE-style", "cure", "CureSettings", ("preserve",), "projects the concept's directions out",
        knobs={"erase_scale": "alpha"},
    ),
    "oce": _closed_form(
        "OCE", "oce", "OceSettings", ("guides", "preserve", "captions"),
        "rotates values, so that all lengths and angles stay", knobs=_SCALED,
    ),
    "time": _closed_form(
        "TIME", "time", "TimeSettings", ("guides",), "the oldest: only its lam holds what else prompts mean",
        knobs={"hold": "lam"},
    ),
    "esd_x": _erasing("ESD-x", "esd_x", "cross-attention, for what prompts name"),
    "esd_u": _erasing("ESD-u", "esd_u", "all but cross-attention, for nudity"),
    "esd_x_paper": _erasing("ESD-x (paper)", "esd_x_paper", "1,000 steps, as published"),
    "esd_u_paper": _erasing("ESD-u (paper)", "esd_u_paper", "1,000 steps, as published"),
    "race": _erasing("RACE", "race", "against adversarial words, ten times the work"),
    "sage_unet": Method(
        "SAGE U-Net", "redirecting", "methods.redirecting", "RedirectingSettings", ("pairs",), ("pairs",),
        help="draws a pair's safe prompt where its unsafe one is asked for; behind an aligned encoder, or alone",
    ),
    **{
        f"sld_{strength}": Method(
            f"SLD {strength}", "guidance", "drawing.guidance", "SafeGuidanceSettings", preset=strength,
            help=f"guides away from the concepts at each step of the sampler, {about}; nothing is trained",
        )
        for strength, about in (
            ("weak", "gently"), ("medium", "as published"), ("strong", "early"), ("max", "from the first step"),
        )
    },
    "safree": Method(
        "SAFREE", "prompts", "methods.safree", "SafreeSettings",
        help="moves prompts out of the concepts' space; nothing is trained",
    ),
    "gate": Method(
        "gate", "gate", "methods.gate", "GateSettings", ("pairs",), ("pairs",),
        help="lets harmless prompts through untouched; what it flags is refined, or drawn with an aligned encoder",
    ),
}  # fmt: skip

# How much a closed form's `knobs` are turned; those in WHOLE count something.
KNOBS = ("erase_scale", "hold", "keep_scale", "rounds")
WHOLE = ("rounds",)


def _add_installed() -> None:
    """The rows of other packages; one that cannot be had must not take the rest away."""
    for name, point in installed("sage_core.methods").items():
        try:
            row = point.load()
        except Exception as error:  # whatever that package raises
            logging.getLogger(__name__).warning("The method %s of %s cannot be loaded: %s", name, point.value, error)
            continue
        if name in METHODS or not isinstance(row, Method):
            logging.getLogger(__name__).warning("%s is no row of a new method %r; it is left out.", point.value, name)
            continue
        METHODS[name] = row


_add_installed()


def of_kind(*kinds: Kind) -> dict[str, Method]:
    """The methods of these kinds, by name."""
    return {name: method for name, method in METHODS.items() if method.kind in kinds}


def told(*kinds: Kind) -> str:
    """The methods of these kinds and when to take each, for a tooltip."""
    return f"{'; '.join(f'{name}: {method.help}' for name, method in of_kind(*kinds).items())}."


def named(name: str, field_name: str = "method") -> Method:
    """The method of this name. Raises SettingsError, with the field's name, for none."""
    if name not in METHODS:
        raise SettingsError(f"{field_name} is {shown(name)}, expected one of {', '.join(METHODS)}.")
    return METHODS[name]


def settings_for(name: str, changes: Mapping[str, Any], source: str = "settings") -> Any:
    """The usual settings of a method with some values changed.

    Raises:
        SettingsError: with `source`, for what is no setting of it, or a value that makes no sense.
    """
    usual = named(name).usual()
    return settings_from(type(usual), usual.to_dict() | dict(changes), source)


def settings_of(name: str, knobs: Mapping[str, float | None]) -> Any:
    """The settings of a closed form with some knobs turned; 0 and None leave the method's own value.

    Raises:
        SettingsError: there is no such method, it has no such knob, or the value makes no sense for it.
    """
    forms = of_kind("closed form")
    if name not in forms:
        raise SettingsError(f"method is '{name}', expected one of {', '.join(forms)}.")
    method, chosen = forms[name], {}
    for knob, value in knobs.items():
        if not value:
            continue
        if knob not in method.knobs:
            raise SettingsError(f"{knob} is {value!s:.30}, but {method.title} has no such setting: leave it out.")
        if knob in WHOLE:
            if not float(value).is_integer():
                raise SettingsError(f"{knob} is {value!s:.30}, expected a whole number.")
            value = int(value)
        chosen[method.knobs[knob]] = value
    return method.load()[0](**chosen)
