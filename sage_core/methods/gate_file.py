"""A gate as it is and as it is kept: its network, its card, and its file, of which nothing is believed unseen."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.text_encoder import TextEncoder, state_hash
from ..encoders.tokens import CONTEXT_LENGTH
from ..errors import EncoderError, SettingsError
from ..files import write_tensors
from ..runs.keeping import SOFTWARE, weights_hash
from ..settings import Count, Settings, Share

QUERIES, WIDTH, HEADS = 4, 256, 4
# The store of runs knows gates by it.
_FORMAT = "sage_gate_1"
_CARD_HASH = "sage_card_hash"


class GateNetwork(nn.Module):
    """One layer of cross-attention from 4 learned queries to the states, then an MLP to a logit; 0.7 M parameters."""

    def __init__(self, width: int) -> None:
        """For states of `width` numbers."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(1, QUERIES, WIDTH) / WIDTH**0.5)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, kdim=width, vdim=width, batch_first=True)
        self.output = nn.Sequential(nn.Linear(QUERIES * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1))

    def forward(self, states: Tensor) -> Tensor:
        """Logits (B,) of states (B, rows, width); the higher, the less safe."""
        read = self.norm(states)
        found = self.attention(self.queries.expand(len(states), -1, -1), read, read, need_weights=False)[0]
        return self.output(found.flatten(1))[:, 0]


@dataclass(frozen=True)
class GateCard(Settings):
    """What is known of a gate; every number is finite, or a prompt that lies above no threshold would be called safe.

    Attributes:
        encoder: SHA-256 of the text encoder whose states it reads.
        threshold: logits above it are unsafe.
        stated_false_alarms: the rate it was set for.
        false_alarms: share of `safe_prompts` held-out safe prompts taken for unsafe.
        detected: share of `unsafe_prompts` held-out unsafe prompts taken for unsafe.
        safe_prompts, unsafe_prompts: how many were held out.
        settings: of its training.
    """

    encoder: str
    threshold: float
    stated_false_alarms: Share
    false_alarms: Share
    detected: Share
    safe_prompts: Count
    unsafe_prompts: Count
    settings: dict[str, Any]

    def require(self, encoder_hash: str, name: str = "The gate") -> None:
        """Raise EncoderError unless this is the hash of the text encoder that the gate reads; `name` calls the gate."""
        if encoder_hash != self.encoder:
            raise EncoderError(
                f"{name} reads the states of another text encoder (hash {self.encoder[:12]}): use that one before the "
                "gate, or train a gate for this one."
            )

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"Of held-out prompts it flags {self.detected:.1%} of {self.unsafe_prompts} unsafe ones and "
            f"{self.false_alarms:.1%} of {self.safe_prompts} safe ones; it is set for at most "
            f"{self.stated_false_alarms:.1%}."
        )


@dataclass(frozen=True, eq=False)
class Gate:
    """A trained gate."""

    network: GateNetwork
    card: GateCard

    def margins(self, states: Tensor) -> Tensor:
        """Logits above the threshold, (B,), of states (B, 77 n, width); of a long prompt that of its worst 77 rows.

        A logit that is not finite says nothing: its prompt counts as unsafe, with an infinite margin.
        """
        count, rows, width = states.shape
        if rows % CONTEXT_LENGTH:
            raise SettingsError(f"The prompt has {rows} rows of states, expected a multiple of {CONTEXT_LENGTH}.")
        own = next(self.network.parameters())
        parts = states.to(own.device, own.dtype).reshape(-1, CONTEXT_LENGTH, width)
        logits = self.network(parts).nan_to_num(math.inf, math.inf, math.inf)
        return logits.view(count, -1).amax(1) - self.card.threshold

    @torch.no_grad()
    def flags(self, states: Tensor) -> Tensor:
        """Whether prompts are taken for unsafe, bool (B,)."""
        return self.margins(states) > 0


def save_gate(path: str | os.PathLike[str], gate: Gate) -> None:
    """Write a gate as safetensors with its card, whole."""
    tensors, card = gate.network.state_dict(), asdict(gate.card)
    text, steps = json.dumps(card), card["settings"]["steps"]
    known = {_FORMAT: text, _CARD_HASH: _text_hash(text), "software": SOFTWARE}
    write_tensors(path, tensors, {"method": "gate", "steps": steps, "hash": weights_hash(tensors), **known})


@torch.inference_mode(False)
def load_gate(path: str | os.PathLike[str], encoder: TextEncoder | None = None) -> Gate:
    """Read a gate, and check that it is one for `encoder`.

    Raises:
        EncoderError: the file is not a gate, is damaged, or belongs to another text encoder.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            known = about.get(_FORMAT)
            # Copies: the file may be replaced while the gate is in use.
            names = file.keys() if known else ()
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError) as error:
        raise EncoderError(
            f"{path} is not a whole safetensors file ({error}). Train or copy the gate again."
        ) from error
    if not known:
        raise EncoderError(
            f"{path} is not a gate: its metadata lacks '{_FORMAT}'. Use a file that a gate was saved to."
        )
    try:
        # Earlier gates have no hash; safetensors carries no checksum.
        if about.get("hash", found := weights_hash(tensors)) != found:
            raise ValueError("its weights have changed since they were written")
        if about.get(_CARD_HASH, found := _text_hash(known)) != found:
            raise ValueError("its card has changed since it was written")
        gate = Gate(_network(tensors), GateCard.from_json(known, "its card"))
    except (ValueError, SettingsError, RuntimeError) as error:
        raise EncoderError(f"{path} is a damaged gate ({error}). Train or copy it again.") from error
    if encoder is not None:
        gate.card.require(state_hash(encoder.state()), str(path))
    return gate


def _network(tensors: Mapping[str, Tensor]) -> GateNetwork:
    """The network of these weights, in their own memory: what a damaged file says must not decide how much is taken.

    Raises:
        ValueError, RuntimeError: they are not a gate's, or what they compute is not finite.
    """
    if wrong := next((name for name, tensor in tensors.items() if tensor.dtype != torch.float32), None):
        raise ValueError(f"{wrong} is {tensors[wrong].dtype}, expected float32")
    if wrong := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise ValueError(f"{wrong} holds values that are NaN or infinite")
    width = tensors["norm.weight"].numel() if "norm.weight" in tensors else 1
    with torch.device("meta"):
        network = GateNetwork(width)
    network.load_state_dict(tensors, assign=True)
    probe = torch.randn(1, CONTEXT_LENGTH, width, generator=torch.Generator().manual_seed(0))
    network.eval().requires_grad_(False)
    if not network(probe).isfinite().all():
        raise ValueError("its weights are so large that what it computes is not finite")
    return network


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
