"""Every file of a plan opened before anything is drawn: what is of another model, or missing, is found at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

from ..encoders.layouts import EncoderConfig, canonical_state, read_stored
from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import require_short
from ..errors import SageError, SettingsError
from ..methods.gate_file import load_gate
from ..methods.safree import check_concepts
from ..model_folders import read_model_config
from ..scores.clipscore import RECOMMENDED as CLIP
from ..tifa.sentences import RECOMMENDED as SENTENCES
from ..unet.files import sizes_of
from ..unet.names import UnetConfig
from .bases import load_encoder, world
from .changes import making_task, open_unet, sorted_file
from .plan import READER, MethodPlan, Part, Plan


def check_files(plan: Plan) -> None:
    """Open every file of a plan; of weights only names and shapes are looked at, where the format allows.

    Raises:
        SettingsError: with all that is wrong, each with the method or the field.
    """
    sizes = _Sizes(plan.base)
    problems = [text for method in plan.methods for text in _method(method, sizes)]
    problems += list(_judges(plan))
    if problems:
        more = "" if len(problems) == 1 else f" {len(problems)} problems:"
        raise SettingsError(f"{plan.file}:{more} {' '.join(problems)}")


class _Sizes:
    """The sizes of the base, and its text encoder, read when they are first asked for."""

    def __init__(self, base: Path | None) -> None:
        self.base = base

    @cached_property
    def unet(self) -> UnetConfig:
        """Of the U-Net."""
        if self.base is None:
            return world().sizes()[0]
        return sizes_of(self.base)

    @cached_property
    def encoder(self) -> EncoderConfig:
        """Of the text encoder."""
        if self.base is None:
            return world().sizes()[1]
        return _encoder_sizes(self.base / "text_encoder" if self.base.is_dir() else self.base)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The base's own, whose states gates read."""
        return load_encoder(self.base)


def _encoder_sizes(path: Path) -> EncoderConfig:
    file, state, _ = read_stored(path)
    return EncoderConfig.of(canonical_state(state, str(file), finite=False))


def _method(method: MethodPlan, sizes: _Sizes) -> Iterator[str]:
    """What is wrong with a method's files."""
    checks: list[Callable[[], object]] = []
    try:
        method = sorted_file(method)
    except SageError as error:
        yield f"The method {method.name!r}: {error}"
    if method.name == "base":
        checks.append(lambda: (sizes.unet, sizes.encoder))
    if part := method.text_encoder:
        checks.append(partial(_require_same, part.file, sizes))
    if edit := method.unet:
        checks.append(partial(_open_unet, edit, sizes, False))
    checks += [partial(_open_unet, lora, sizes, True) for lora in method.loras]
    if gate := method.gate:
        checks.append(lambda: load_gate(gate, sizes.text_encoder))
    if method.make:
        checks.append(partial(making_task, method.make))
    if method.safree:
        checks.append(partial(check_concepts, method.safree))
    if method.safety_text:
        checks.append(partial(require_short, "safety_text", method.safety_text))
    for check in checks:
        try:
            check()
        except SageError as error:
            yield f"The method {method.name!r}: {error}"


def _open_unet(part: Part, sizes: _Sizes, is_lora: bool) -> None:
    open_unet(part, sizes.unet, is_lora)


def _require_same(file: Path, sizes: _Sizes) -> None:
    found, own = _encoder_sizes(file), sizes.encoder
    if found != own:
        raise SettingsError(f"{file} holds a text encoder of other sizes ({found}) than the base's ({own}).")


def _judges(plan: Plan) -> Iterator[str]:
    """What is wrong with the models that score."""
    score = plan.score
    folders = {
        "judge": (Path(score.judge) if score.judge not in ("", READER) else None, ["dandelin/vilt-b32-finetuned-vqa"]),
        "sentences": (score.sentences, [SENTENCES]),
        "clip": (score.clip, [CLIP]),
    }
    for name, (folder, examples) in folders.items():
        if folder is not None:
            try:
                read_model_config(folder, name, examples)
            except SageError as error:
                yield f"score.{name}: {error}"
    if "attacks" in score.what and score.witness == "nudenet" and importlib.util.find_spec("nudenet") is None:
        yield "score.witness: NudeNet is not installed. Run pip install 'nudenet>=3.4', or choose judge or clip."
