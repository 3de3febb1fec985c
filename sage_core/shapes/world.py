"""The shapes world as others name it: a model, sizes and a judge; see `drawing.models.NAMED`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ..encoders.layouts import EncoderConfig
from ..encoders.text_encoder import TextEncoder
from ..encoders.tokens import VOCABULARY_SIZE
from ..unet.names import UnetConfig
from .exam.reader_judge import ReaderJudge
from .networks.model import ShapesModel
from .networks.weights import load_model, load_packed, read_packed, weights_hash

__all__ = ["ReaderJudge", "load", "load_encoder", "sizes", "weights_hash"]


def load() -> ShapesModel:
    """The world's model on the CPU in fp32."""
    model = load_model()
    model.decoded = 4
    return model


def load_encoder() -> TextEncoder:
    """Its text encoder alone."""
    return TextEncoder.from_state(load_packed("text_encoder")[0])


@cache
def sizes() -> tuple[UnetConfig, EncoderConfig]:
    """Of its U-Net and of its text encoder."""
    unet, encoder = (read_packed(part)[0] for part in ("unet", "text_encoder"))
    config = replace(EncoderConfig.of(encoder), vocabulary=VOCABULARY_SIZE)
    return UnetConfig.of({name: value.shape for name, value in unet.items()}), config
