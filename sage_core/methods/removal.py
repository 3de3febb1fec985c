"""What every method is given: the networks that it works on, and what is to be removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..encoders.text_encoder import TextEncoder
from ..unet.names import UnetConfig, unet_names
from .concepts import Concepts

if TYPE_CHECKING:
    from ..prompts.concepts import ConceptList
    from ..prompts.pairs import PromptPairs


@dataclass(frozen=True, eq=False)
class Base:
    """The networks that a method works on; they stay as they are.

    Attributes:
        encoder: of the prompts, on the device that the method computes on.
        config: sizes of the U-Net.
        weight: the U-Net's tensor of a diffusers' name, on the CPU.
        size: side of the pictures that trainings draw, in pixels.
        dtype: what the U-Net computes in during a training.
        names: the U-Net's tensors in the order in which methods meet them, which decides where SPEED's noise falls; by
            default SD 1.x's order.
    """

    encoder: TextEncoder
    config: UnetConfig
    weight: Callable[[str], Tensor]
    size: int = 512
    dtype: torch.dtype = torch.float32
    names: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the method computes."""
        return next(self.encoder.parameters()).device

    def unet(self, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
        """The U-Net's tensors whose names are wanted."""
        return {name: self.weight(name) for name in self.names or unet_names(self.config).shapes if wanted(name)}

    def encoder_state(self) -> dict[str, Tensor]:
        """The text encoder's canonical state, on the CPU."""
        return {name: value.cpu() for name, value in self.encoder.state().items()}


@dataclass(frozen=True)
class Removal:
    """What is to be removed, and what is to stay; a method's row says which of it the method reads.

    Attributes:
        erase: texts that name it.
        guides: what each becomes: one for all, or one each; "" is the empty prompt.
        preserve: texts that keep their meaning.
        captions: everyday prompts that say what prompts are like in general.
        pairs: safe prompts, and unsafe ones.
        sources: texts to erase from, one for each to erase; none for these themselves.
        concepts: the list that `erase` and `guides` are of, for trainings with a direction for each concept. Closed
            forms keep its near misses as they do `preserve`.
    """

    erase: tuple[str, ...]
    guides: tuple[str, ...] = ("",)
    preserve: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    pairs: PromptPairs | None = None
    sources: tuple[str, ...] = ()
    concepts: ConceptList | None = None

    @classmethod
    def of(cls, concepts: ConceptList, **others: Any) -> Removal:
        """The removal of a list of concepts: all names that trainings may use, and what each becomes."""
        from ..prompts.concepts import texts_to_erase

        return cls(*texts_to_erase(concepts), concepts=concepts, **others)

    def texts(self) -> Concepts:
        """What closed forms and trainings of the U-Net are told. Raises PromptError for a text that cannot be used."""
        return Concepts(self.erase, self.guides, self.kept, self.captions)

    @property
    def kept(self) -> tuple[str, ...]:
        """Texts that keep their meaning, and near misses."""
        from ..prompts.concepts import texts_to_keep

        near = texts_to_keep(self.concepts) if self.concepts is not None else ()
        return tuple(dict.fromkeys((*self.preserve, *near)))

    @property
    def concept(self) -> str | ConceptList:
        """What an alignment is told: the list, or the first of the texts as the one concept's name."""
        return self.concepts if self.concepts is not None else self.erase[0]
