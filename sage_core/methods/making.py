"""A method's change, made: what a model is to forget goes in, and what is then drawn differently comes out.

    made = make("rece", base, Removal(erase=("nudity",)), store=folder)
    pictures = draw(model, made.change, prompts, seeds, ...)

`table.METHODS` has a row for each method. Trainings are kept in a store, go on after a stop, and are found again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..drawing.change import Change, Safety
from ..encoders.layouts import is_safetensors
from ..encoders.precision import choose_precision
from ..encoders.text_encoder import state_hash
from ..errors import SettingsError
from ..files import whole_file
from ..rows import parse_json
from ..runs.keeping import SOFTWARE, weights_hash
from ..unet.names import UnetConfig, reads_prompt
from .concepts import Concepts
from .removal import Base, Removal
from .table import Method, named, settings_for

if TYPE_CHECKING:
    from ..runs.record import StepReport
    from ..unet.training import UnetRun


def unet_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What a U-Net is trained in: as asked for; "auto" is bf16 on a GPU that computes in it natively, else fp32."""
    if precision == "auto":
        # A CPU is timed for this, and might give another answer when an interrupted run is to be found.
        precision = choose_precision("auto", device) if device.type == "cuda" else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


# Metadata of a file without weights: what it is made of again.
_AGAIN = "sage_change"
# Called with what is done, how much of it, and how much there is; may raise to stop.
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Made:
    """A method's change and what is known of it.

    Attributes:
        change: what to draw with.
        metadata: method, settings and figures, for the file that it is saved in.
        report: the same, ready for JSON.
        text: a few lines for a person.
        history: each step's report, of a training.
    """

    change: Change
    metadata: Mapping[str, Any]
    report: Mapping[str, Any]
    text: str
    history: tuple[StepReport, ...] = ()


@dataclass(frozen=True, eq=False)
class _Work:
    """One making: everything that a maker reads."""

    name: str
    method: Method
    base: Base
    removal: Removal
    settings: Any
    store: Path
    watch: Watch

    def on_step(self, step: StepReport) -> None:
        """Tell how far the training is."""
        self.watch(f"training {self.method.title}", step.step, step.steps)

    def telling(self, what: str) -> Callable[[int, int], None]:
        """A function that tells how far something before the training is."""
        return partial(self.watch, what)

    def run(self) -> UnetRun:
        """A training of the base's U-Net, or through it."""
        from ..unet.training import UnetRun

        base = self.base
        return UnetRun(base.unet(), base.size, base.device, base.dtype, self.on_step)


def make(
    name: str,
    base: Base,
    removal: Removal,
    settings: Any = None,
    *,
    store: Path | None = None,
    watch: Watch | None = None,
) -> Made:
    """Make a method's change.

    Args:
        name: of the method, see `table.METHODS`.
        base: the networks to change.
        removal: what is to go.
        settings: of the method's own class; None for its usual ones.
        store: folder of runs, in which trainings are kept and found again; None trains each time.
        watch: called with (what, done, total); may raise to stop, and a training with a store goes on.

    Raises:
        SettingsError: there is no such method.
        PromptError: the method needs more than the removal tells it.
        SageError: see the method's own function.
    """
    method = named(name)
    settings = settings or method.usual()
    method.require(removal, settings)
    with tempfile.TemporaryDirectory() as passing:
        told = watch or (lambda *_: None)
        return _MAKERS[method.kind](_Work(name, method, base, removal, settings, store or Path(passing), told))


def _aligned(work: _Work) -> Made:
    from ..alignment.report import run_summary
    from ..alignment.training import train_stored

    pairs = work.removal.pairs
    assert pairs is not None
    result, found = train_stored(
        work.base.encoder_state(),
        pairs,
        work.removal.concept,
        work.settings,
        work.store,
        device=work.base.device,
        on_prepare=work.telling("embedding prompts"),
        on_begin=work.telling("training"),
        on_step=work.on_step,
    )
    text = run_summary(result, work.method.title, found=found, pairs=len(pairs))
    return Made(
        Change(encoder=result.state), result.metadata, result.to_dict() | {"found": found}, text, result.history
    )


def _unlearned(work: _Work) -> Made:
    from .adv_unlearn_store import train_adv_unlearn

    concepts = Concepts(work.removal.erase, work.removal.guides)
    encoder, preserve = work.base.encoder_state(), work.removal.preserve
    result = train_adv_unlearn(work.run(), encoder, concepts, work.settings, work.store, retain=preserve)
    return _trained(Change(encoder=result.state), result)


def _solved(work: _Work) -> Made:
    from .closed_form.common import with_warning

    texts, base = work.removal.texts(), work.base
    weights = base.unet(reads_prompt)
    edit = with_warning(work.method.load()[1](weights, base.encoder, texts, work.settings), weights, base.encoder)
    made_of = {"matrices_hash": weights_hash(weights), "encoder_hash": state_hash(base.encoder.state())}
    metadata = {**edit.metadata(), **made_of, "hash": weights_hash(edit.deltas), "software": SOFTWARE}
    unread = work.method.unread(texts)
    report = {
        "method": edit.method,
        "matrices": len(edit.deltas),
        "relative": edit.relative,
        "residual": edit.residual,
        "settings": edit.settings,
        "notes": [*edit.notes, *unread],
    }
    lines = [edit.summary(), *unread, f"Settings: {edit.knobs()}."]
    return Made(Change(deltas=edit.deltas), metadata, report | made_of, "\n".join(lines))


def _erased(work: _Work) -> Made:
    from .erasing import train_erasure

    removal = work.removal
    result = train_erasure(
        work.run(),
        work.base.encoder,
        Concepts(removal.erase),
        work.settings,
        work.store,
        preset=work.method.preset,
        sources=removal.sources,
    )
    return _trained(Change(deltas=result.deltas), result)


def _redirected(work: _Work) -> Made:
    from .redirecting import train_redirection

    removal = work.removal
    assert removal.pairs is not None
    result = train_redirection(
        work.run(),
        work.base.encoder,
        removal.pairs,
        work.settings,
        work.store,
        title=removal.erase[0] if removal.erase else "",
        on_draw=work.telling("drawing pictures"),
    )
    return _trained(Change(deltas=result.deltas), result)


def _trained(change: Change, result: Any) -> Made:
    """What a training of the U-Net, or through it, says of itself."""
    report = {"found": result.found, "metadata": result.metadata, "history": [asdict(step) for step in result.history]}
    metadata = dict(result.metadata)
    if change.deltas:
        report["tensors"] = len(change.deltas)
        metadata["sage_method"] = metadata["method"]
    return Made(change, metadata, report, result.summary(), result.history)


def _guided(work: _Work) -> Made:
    text = ", ".join(work.removal.erase)
    change = Change(safety=Safety(work.settings, text))
    return _untrained(work, change, f"{work.method.title}: guidance away from '{text}'.")


def _moved(work: _Work) -> Made:
    from .safree import MovedPrompts

    change = Change(reads=MovedPrompts(work.removal.erase, work.settings))
    return _untrained(work, change, f"SAFREE: prompts are moved away from {', '.join(work.removal.erase)}.")


def _untrained(work: _Work, change: Change, text: str) -> Made:
    about = {"method": work.name, "concepts": list(work.removal.erase), "settings": asdict(work.settings)}
    return Made(change, {"sage_method": work.method.title, _AGAIN: json.dumps(about)}, about, text)


def _gated(work: _Work) -> Made:
    from .gate import GatedPrompts, train_gate

    pairs = work.removal.pairs
    assert pairs is not None
    told = work.telling("embedding prompts")
    gate = train_gate(work.base.encoder, pairs.safe, pairs.unsafe, work.settings, on_step=work.on_step, on_batch=told)
    card = asdict(gate.card)
    return Made(Change(reads=GatedPrompts(gate)), card, {"card": card}, gate.card.summary())


def _own(work: _Work) -> Made:
    """A method of another package, by its function."""
    change = work.method.load()[1](work.base, work.removal, work.settings, work.watch)
    made = _untrained(work, change, f"{work.method.title}: made.")
    return made if change.safety or change.reads else replace(made, metadata={"sage_method": work.method.title})


_MAKERS: dict[str, Callable[[_Work], Made]] = {
    "alignment": _aligned,
    "unlearning": _unlearned,
    "closed form": _solved,
    "erasing": _erased,
    "redirecting": _redirected,
    "guidance": _guided,
    "prompts": _moved,
    "gate": _gated,
    "own": _own,
}


def save(path: str | os.PathLike[str], made: Made, config: UnetConfig) -> None:
    """Write what was made as one safetensors file, whole, which `read` and other programs read.

    A text encoder is saved for stock loaders, a change of the U-Net for LoRA loaders, a gate with its card, and what
    has no weights as the name and settings that it is made of again.

    Raises:
        SageError: a value is not finite, or nothing is changed.
    """
    from ..encoders.text_encoder import save_encoder
    from ..unet.changes import save_changes
    from .gate import GatedPrompts
    from .gate_file import save_gate

    change = made.change
    if change.encoder is not None:
        save_encoder(path, change.encoder, {name: str(value) for name, value in made.metadata.items()})
    elif change.deltas:
        save_changes(path, change.deltas, made.metadata, config=config)
    elif isinstance(change.reads, GatedPrompts):
        save_gate(path, change.reads.gate)
    else:
        from safetensors.torch import save_file

        with whole_file(path) as temporary:
            save_file({}, temporary, metadata={"format": "pt", **{name: str(v) for name, v in made.metadata.items()}})


def what_is(path: str | os.PathLike[str]) -> str:
    """What `save` wrote into a file: "gate", "settings", "U-Net" or "text encoder".

    Raises:
        SettingsError: the file is damaged, or says nothing of itself.
    """
    told = _header(path)
    if any(name.startswith("sage_gate") for name in told):
        return "gate"
    if _AGAIN in told:
        return "settings"
    if "sage_method" in told:
        return "U-Net"
    if "method" in told:
        return "text encoder"
    raise SettingsError(
        f"{path} was not written by `sage make` or a node of this pack. Name it as the method's text_encoder, unet, "
        "lora or gate instead."
    )


def made_again(path: str | os.PathLike[str], base: Base) -> Made:
    """What a file without weights says is made again.

    Raises:
        SettingsError: the file is damaged.
    """
    name, concepts, settings = _again(path)
    return make(name, base, Removal(concepts), settings)


def _again(path: str | os.PathLike[str]) -> tuple[str, tuple[str, ...], Any]:
    try:
        about = parse_json(_header(path)[_AGAIN])
        return about["method"], tuple(about["concepts"]), settings_for(about["method"], about["settings"], str(path))
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} is damaged ({error}). Make it again with `sage make`.") from error


def _header(path: str | os.PathLike[str]) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file() or not is_safetensors(Path(path)):
        return {}
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise SettingsError(f"{path} is not a whole safetensors file ({error}). Make or copy it again.") from error
