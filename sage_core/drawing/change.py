"""What a method makes of a model, whichever method it was: weights, guidance, and how prompts are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import tokenize
from ..errors import SettingsError
from .guidance import SafeGuidanceSettings


@dataclass(frozen=True)
class Safety:
    """Safe Latent Diffusion: how, and the text that it leads away from."""

    settings: SafeGuidanceSettings
    text: str


@dataclass(frozen=True, eq=False)
class Moved:
    """States of prompts as a reader has them; `late` and `until` as in Texts."""

    prompted: Tensor
    late: Tensor | None = None
    until: Tensor | None = None

    def __len__(self) -> int:
        """How many prompts."""
        return len(self.prompted)

    def __getitem__(self, part: slice) -> Moved:
        """Those of some of the prompts."""
        return Moved(*(None if each is None else each[part] for each in (self.prompted, self.late, self.until)))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Reading:
    """How texts become states in one model.

    Attributes:
        encoder: reads what needs no care, the negative prompt and a safety text.
        prompts: states of token ids (B, 77); differentiable wherever attacks are to have a gradient.
        negative: the negative prompt.
    """

    encoder: TextEncoder
    prompts: Callable[[Tensor], Moved]
    negative: str = ""


class Reader(Protocol):
    """Reads prompts in another way than through a text encoder alone."""

    def reading(self, base: TextEncoder, changed: TextEncoder) -> Reading:
        """How it reads with the base's text encoder and the changed one; the same one where none is changed."""
        ...

    def summary(self) -> str:
        """A few words for a person."""
        ...


@dataclass(frozen=True, eq=False)
class Change:
    """What becomes of a model; all of it is optional.

    Attributes:
        encoder: the text encoder's whole state in place of the base's, under canonical names.
        deltas: what is added to the U-Net's weights, fp32, by diffusers' names.
        safety: guidance away from a text.
        reads: reads prompts in another way.
    """

    encoder: Mapping[str, Tensor] | None = None
    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    safety: Safety | None = None
    reads: Reader | None = None

    def __add__(self, other: Change) -> Change:
        """Both changes together; differences of the U-Net add up.

        Raises:
            SettingsError: both bring a text encoder, a safety text or a reader of prompts, of which a model has one.
        """
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = deltas[name] + delta if name in deltas else delta
        return Change(deltas=deltas, **{name: self._either(other, name, title) for name, title in _ONCE.items()})

    def _either(self, other: Change, name: str, title: str) -> Any:
        ours, theirs = getattr(self, name), getattr(other, name)
        if ours is not None and theirs is not None:
            raise SettingsError(
                f"Two changes of {title} cannot be in one model: {self.summary()}, and {other.summary()}. Leave one "
                "out."
            )
        return theirs if ours is None else ours

    def summary(self) -> str:
        """What it changes, in one line."""
        parts = [
            "another text encoder" if self.encoder is not None else "",
            f"{len(self.deltas)} tensors of the U-Net" if self.deltas else "",
            f"guidance away from '{self.safety.text}'" if self.safety is not None else "",
            self.reads.summary() if self.reads is not None else "",
        ]
        return "; ".join(part for part in parts if part) or "nothing"


_ONCE = {"encoder": "the text encoder", "safety": "guidance", "reads": "how prompts are read"}


def states_of(encoder: TextEncoder, texts: Sequence[str] | Tensor) -> Tensor:
    """States (N, 77, width) of texts, or of their token ids (N, 77), on the encoder's device."""
    device = next(encoder.parameters()).device
    return encoder((texts if isinstance(texts, Tensor) else tokenize(list(texts))).to(device))


def read_plainly(encoder: TextEncoder) -> Reading:
    """How a text encoder alone reads."""
    return Reading(encoder, lambda prompts: Moved(states_of(encoder, prompts)))
