"""Is a file really SD 1.4's text encoder? What it holds, and how its embeddings agree with public facts.

The facts are cosines of flattened embeddings of one-token prompts, in `sd14_token_cosines.json`, which says where they
are from. All Stable Diffusion 1.x base models have this encoder: the text side of OpenAI's CLIP ViT-L/14. Whoever has
the real file thereby also checks this package's forward pass on real weights.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import SettingsError
from .layouts import VIT_L_14, EncoderConfig, canonical_state, count_not_finite, read_stored
from .names import layout_of
from .text_encoder import TextEncoder, embed, state_hash

_FACTS = json.loads(Path(__file__).with_name("sd14_token_cosines.json").read_text(encoding="utf-8"))
# fp16 has 11 significant bits: a value is off by up to 0.0005 of itself. A known cosine was divided by two lengths,
# computed and stored in fp16, so that four such errors add up to 0.002. Measured on random weights: 0.0006.
LARGEST_DEVIATION = 0.003
# Of many pairs the errors of both signs cancel in part. Measured on random weights: 0.0004.
MEAN_DEVIATION = 0.001
# From here on an encoder's cosines go with the known ones: by chance 240 of them correlate at 0.06 or so, and at more
# than 0.3 less than once in 100,000 times.
_RELATED = 0.3
# Pairs of the short check: the lowest and the highest known cosine, which no chance brings about together.
QUICK_PAIRS = 2


@dataclass(frozen=True)
class Fact:
    """A known cosine of two prompts, and what was found."""

    first: str
    second: str
    known: float
    found: float

    @property
    def deviation(self) -> float:
        """How far the found cosine is from the known one."""
        return abs(self.found - self.known)


@dataclass(frozen=True)
class Agreement:
    """How an encoder's cosines agree with SD 1.4's; `known` is how many are known in all."""

    facts: tuple[Fact, ...]
    known: int

    @property
    def mean(self) -> float:
        """Mean deviation."""
        return sum(fact.deviation for fact in self.facts) / len(self.facts)

    @property
    def worst(self) -> Fact:
        """The pair of the largest deviation."""
        return max(self.facts, key=lambda fact: fact.deviation)

    @property
    def agrees(self) -> bool:
        """Whether rounding explains all deviations."""
        return self.worst.deviation <= LARGEST_DEVIATION and self.mean <= MEAN_DEVIATION

    @property
    def correlation(self) -> float:
        """Pearson's correlation of found and known cosines; nan for fewer than three pairs or equal cosines."""
        if len(self.facts) < 3:
            return math.nan
        pairs = torch.tensor([(fact.known, fact.found) for fact in self.facts], dtype=torch.float64)
        return torch.corrcoef(pairs.T)[0, 1].item()

    def sentence(self, name: str) -> str:
        """The verdict on the encoder called `name`."""
        count = f"{len(self.facts)} of {self.known}" if len(self.facts) < self.known else str(self.known)
        deviations = (
            f"{count} known cosines deviate by {self.mean:.4f} on average and {self.worst.deviation:.4f} at most"
        )
        bounds = f"fp16 rounding ({MEAN_DEVIATION:g} and {LARGEST_DEVIATION:g})"
        if self.agrees:
            return f"{name} is SD 1.4's text encoder: {deviations}, within {bounds}."
        related = self.correlation > _RELATED
        go = "go with it, as those of a fine-tune or an aligned version do" if related else "do not go with it"
        kinship = "" if math.isnan(self.correlation) else f"; its cosines {go} (r = {self.correlation:.2f})"
        return f"{name} is not SD 1.4's text encoder{kinship}: {deviations}, beyond {bounds}."

    def to_dict(self) -> dict[str, Any]:
        """All figures, fit for JSON."""
        return {
            "agrees": self.agrees,
            "pairs": len(self.facts),
            "mean_deviation": self.mean,
            "largest_deviation": self.worst.deviation,
            "worst_pair": asdict(self.worst),
            "correlation": None if math.isnan(self.correlation) else self.correlation,
            "thresholds": {"mean": MEAN_DEVIATION, "largest": LARGEST_DEVIATION, "related": _RELATED},
            "source": _FACTS["source"],
        }


@dataclass(frozen=True)
class Diagnosis:
    """What a file holds.

    Attributes:
        path: the file itself.
        layout: how it calls its tensors, in words.
        config: sizes; heads follow from the width, as no file says them.
        dtypes: stored type -> number of tensors.
        parameters: number of values.
        not_finite: tensor -> number of values that are NaN or infinite, for those that have any.
        sha256: of the weights, as `state_hash` has it; None if there is NaN.
        metadata: what the file says of itself.
        agreement: with SD 1.4's known cosines; None if they could not be compared.
    """

    path: Path
    layout: str
    config: EncoderConfig
    dtypes: Mapping[str, int]
    parameters: int
    not_finite: Mapping[str, int]
    sha256: str | None
    metadata: Mapping[str, str]
    agreement: Agreement | None

    @property
    def is_sd14(self) -> bool:
        """Whether it is SD 1.4's text encoder."""
        return self.agreement is not None and self.agreement.agrees

    @property
    def verdict(self) -> str:
        """One sentence."""
        name = self.path.name
        if self.not_finite:
            count, tensors = sum(self.not_finite.values()), len(self.not_finite)
            where = f"{next(iter(self.not_finite))}" + (f" and {tensors - 1} more tensors" if tensors > 1 else "")
            return f"{name} is damaged: {count:,} values in {where} are NaN or infinite; nothing was compared."
        if self.agreement is None:
            return size_sentence(name, self.config)
        return self.agreement.sentence(name)

    def figures(self) -> list[tuple[str, str]]:
        """Name and value of each figure, for tables."""
        config = self.config
        types = ", ".join(f"{kind} ({count} tensors)" for kind, count in self.dtypes.items())
        size = "ViT-L/14's text encoder, as in SD 1.x" if config == VIT_L_14 else "not that of ViT-L/14"
        rows = [
            ("layout", self.layout),
            ("layers", str(config.layers)),
            ("width, heads, MLP", f"{config.width}, {config.heads} (from the width), {config.mlp_width}"),
            ("tokens, positions", f"{config.vocabulary:,}, {config.positions}"),
            ("size", f"{size}; {self.parameters:,} values"),
            ("stored as", types),
            ("NaN or infinite", f"{sum(self.not_finite.values()):,} values"),
            ("SHA-256 of the weights", self.sha256 or "–"),
        ]
        if found := self.agreement:
            worst = found.worst
            rows += [
                ("mean deviation", f"{found.mean:.5f} over {len(found.facts)} cosines"),
                (
                    "largest deviation",
                    f"{worst.deviation:.5f} ({worst.first}, {worst.second}: "
                    f"known {worst.known:.4f}, found {worst.found:.4f})",
                ),
                ("correlation with the known cosines", f"{found.correlation:.3f}"),
            ]
        return rows + [(f"says: {key}", value) for key, value in self.metadata.items() if key != "format"]

    def to_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        names = ("dtypes", "parameters", "not_finite", "sha256", "metadata")
        return {
            "is_sd14": self.is_sd14,
            "verdict": self.verdict,
            "layout": self.layout,
            **asdict(self.config),
            **{name: getattr(self, name) for name in names},
            "agreement": self.agreement.to_dict() if self.agreement else None,
        }


def size_sentence(name: str, config: EncoderConfig) -> str:
    """What an encoder of another size than SD 1.4's is told."""
    found = {key: (value, getattr(VIT_L_14, key)) for key, value in asdict(config).items()}
    other = ", ".join(f"{key} {value} (SD 1.4: {theirs})" for key, (value, theirs) in found.items() if value != theirs)
    return f"{name} is not SD 1.4's text encoder: {other.replace('_', ' ')}; its embeddings were not compared."


def known_cosines() -> list[tuple[str, str, float]]:
    """Two prompts of one token and the cosine of their embeddings by SD 1.4's encoder, from low to high."""
    return sorted(map(tuple, _FACTS["pairs"]), key=lambda pair: pair[2])


def check_cosines(
    encoder: TextEncoder,
    *,
    pairs: int | None = None,
    device: torch.device | str | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Compare an encoder of ViT-L/14's size with SD 1.4's known cosines.

    Args:
        encoder: what to check.
        pairs: how many of the known cosines, evenly from the lowest to the highest; all by default. Each takes two
            prompts, about 0.4 s on one core of a CPU.
        device: moves the encoder there.
        on_batch: called with (done, total) prompts; may raise to stop.

    Raises:
        SettingsError: `pairs` is below 2.
    """
    known = known_cosines()
    if pairs is not None and pairs < 2:
        raise SettingsError(f"pairs is {pairs}; expected 2 or more, the lowest and the highest known cosine.")
    count = len(known) if pairs is None else min(pairs, len(known))
    chosen = [known[round(place * (len(known) - 1) / (count - 1))] for place in range(count)]
    words = list(dict.fromkeys(word for first, second, _ in chosen for word in (first, second)))
    rows = embed(encoder, words, device=device, on_batch=on_batch)
    place = {word: row for row, word in enumerate(words)}
    facts = []
    for first, second, cosine in chosen:
        x, y = (rows[place[word]].cpu().double() for word in (first, second))
        facts.append(Fact(first, second, cosine, (x @ y / (x.norm() * y.norm())).item()))
    return Agreement(tuple(facts), len(known))


def quick_line(name: str, state: Mapping[str, torch.Tensor]) -> str:
    """The verdict on a whole state in about a second: sizes, and QUICK_PAIRS known cosines where the size is right."""
    config = EncoderConfig.of(state)
    if config != VIT_L_14:
        return size_sentence(name, config)
    return check_cosines(TextEncoder.from_state(state, copy=False), pairs=QUICK_PAIRS).sentence(name)


def examine(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Say what a file or folder holds, and whether it is SD 1.4's text encoder.

    NaN is told and not an error. Embeddings are compared only if the encoder has ViT-L/14's sizes and no NaN.

    Raises:
        EncoderError: the file does not hold one whole text encoder.
    """
    file, stored, metadata = read_stored(path)
    state = canonical_state(stored, str(file), finite=False)
    config = EncoderConfig.of(state)
    counts = {name: count_not_finite(tensor) for name, tensor in state.items()}
    not_finite = {name: count for name, count in counts.items() if count}
    agreement = None
    if config == VIT_L_14 and not not_finite:
        encoder = TextEncoder.from_state(state)
        agreement = check_cosines(encoder, device=device, on_batch=on_batch)
    return Diagnosis(
        path=file,
        layout=layout_of(stored, str(file)),
        config=config,
        dtypes=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())),
        parameters=sum(tensor.numel() for tensor in state.values()),
        not_finite=not_finite,
        sha256=None if not_finite else state_hash(state),
        metadata=metadata,
        agreement=agreement,
    )
