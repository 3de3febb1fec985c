"""A whole attack by a plan: run, gone on with after a stop, kept in a store, and found again; and its control."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..encoders.layouts import EncoderConfig, canonical_state, require_positions
from ..encoders.text_encoder import TextEncoder, state_hash
from ..errors import SettingsError, UnetError
from ..files import write_tensors
from ..prompts.minors import mentions_minor
from ..runs.keeping import SOFTWARE, kept, read_run, run_name, save_run, weights_hash
from ..runs.record import StepReport
from ..unet.training import FACTOR, TypedNoise, checked_config, diffusers_unet
from .budgets import AttackOutcome, report, run_attack
from .plans import AttackPlan, Victim, prepare
from .search import Attempt

# Raised when the same inputs no longer give the same prompts.
_RECIPE = 1
# Bytes of the result and its checkpoint, generously.
_STORED = 2**24
WITHHELD = "(withheld: it refers or may refer to a minor)"


@dataclass(frozen=True, eq=False)
class AttackedModel:
    """The weights of a model.

    Attributes:
        encoder: canonical state of its text encoder.
        unet: its whole U-Net, by names of either form; None for attacks on the encoder alone.
    """

    encoder: Mapping[str, Tensor]
    unet: Mapping[str, Tensor] | None = None

    @cached_property
    def hashes(self) -> list[str]:
        """Of both parts."""
        return [state_hash(self.encoder), "" if self.unet is None else weights_hash(self.unet)]


@dataclass(frozen=True, eq=False)
class StoredAttack:
    """A finished attack.

    Attributes:
        outcome: what it reached.
        metadata: method, goal, concept, steps and the plan, as text.
        found: whether it was made before and is read from the store.
    """

    outcome: AttackOutcome
    metadata: dict[str, str]
    found: bool

    def texts(self, names: Sequence[str] = ()) -> list[str]:
        """The attacked prompts as text; free embeddings stand in them as "*", or as the name of each of their sets.

        A text that refers to a minor, which single tokens can add up to, is withheld.
        """
        return [WITHHELD if mentions_minor(text) else text for text in self.outcome.attempt.texts(names)]

    def embeddings(self) -> list[Tensor]:
        """The vectors of each set, (n, width); none for attacks by tokens."""
        vectors = self.outcome.attempt.vectors
        return [] if vectors is None else list(vectors)


def summary(plan: AttackPlan, attacked: StoredAttack, control: StoredAttack | None) -> str:
    """A whole attack in words."""
    about = attacked.metadata
    head = (
        f"{'Found, not run again' if attacked.found else 'Attacked'}: {about['method']}, goal {plan.aim}, "
        f"{len(plan.prompts)} prompts, {plan.count} free tokens ({plan.place}), up to {plan.budget.steps} steps × "
        f"{plan.budget.restarts} restarts."
    )
    lines = [head, *report(attacked.outcome, control.outcome if control else None)]
    lines.append(
        f"Broken means a distance of at most {plan.budget.below:g}. Whether the concept shows, only pictures tell: "
        "draw the prompts and look."
    )
    return "\n".join(lines)


def attack_stored(
    plan: AttackPlan,
    victim: AttackedModel,
    base: AttackedModel,
    store: Path,
    *,
    size: int = 512,
    references: Tensor | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_step: Callable[[StepReport], None] | None = None,
    on_evaluation: Callable[[], None] | None = None,
) -> StoredAttack:
    """Run an attack, go on with one that was stopped, or find a finished one in the folder `store`.

    Args:
        plan: what to do.
        victim: what is attacked; the base itself for a control.
        base: the model before alignment.
        size: side of the pictures in pixels, a multiple of 8, for goals through the U-Net.
        references: latents of pictures, for the goal "pictures".
        device, dtype: what the U-Nets compute on and in; encoders are float32.
        on_step: called with each step's report; may raise to stop, which leaves a checkpoint.
        on_evaluation: called before each evaluation of a model; may raise to stop.

    Raises:
        SettingsError: the goal needs a U-Net or pictures, and none are given, or a size that no picture has.
        EncoderError, UnetError: the weights are not those of SD 1.x models, or do not fit each other.
        TrainingError: memory does not suffice, another process is at it, or what is stored is damaged.
    """
    victim, base = _checked(plan, victim, base, size)
    about = [_RECIPE, victim.hashes, base.hashes, plan.to_dict(), size, str(dtype)]
    about.append("" if references is None else weights_hash({"references": references}))
    same = base.hashes == victim.hashes

    def make(checkpoint: Path) -> StoredAttack:
        shape = _latent_shape(plan, base, size)
        models = _Models(device, dtype, on_evaluation)
        attacked = models.make(victim)
        attack = prepare(plan, attacked, attacked if same else models.make(base), shape, references, on_evaluation)
        outcome = run_attack(attack, plan.budget, checkpoint=checkpoint, key=checkpoint.stem, on_step=on_step)
        return StoredAttack(outcome, _metadata(plan, outcome, control=same), found=False)

    return kept(store, run_name(["attack", *about]), make=make, save=_save, read=_read, needed=_STORED)[0]


class _Models:
    """Makes networks of weights, a U-Net of the same weights only once."""

    def __init__(
        self, device: torch.device | str, dtype: torch.dtype, on_evaluation: Callable[[], None] | None
    ) -> None:
        self.device, self.dtype, self.on_evaluation = device, dtype, on_evaluation
        self.unets: dict[str, TypedNoise] = {}

    def make(self, model: AttackedModel) -> Victim:
        state = {name: value.to(self.device, copy=True) for name, value in model.encoder.items()}
        encoder = TextEncoder.from_state(state, copy=False)
        if model.unet is None:
            return Victim(encoder)
        name = model.hashes[1]
        if name not in self.unets:
            unet = diffusers_unet(model.unet, device=self.device, dtype=self.dtype).requires_grad_(False)
            self.unets[name] = TypedNoise(unet, self.on_evaluation)
        return Victim(encoder, self.unets[name])


def _checked(
    plan: AttackPlan, victim: AttackedModel, base: AttackedModel, size: int
) -> tuple[AttackedModel, AttackedModel]:
    """Both models as they are attacked: without U-Nets where the goal needs none."""
    found = []
    for name, model in (("encoder under attack", victim), ("base", base)):
        state = canonical_state(model.encoder, f"The {name}")
        require_positions(EncoderConfig.of(state), f"The {name}")
        if plan.through_unet and model.unet is None:
            raise SettingsError(f"The goal '{plan.aim}' goes through the U-Net, and none is given: give one.")
        if plan.through_unet and model.unet is not None:
            config, width = checked_config(model.unet, size), EncoderConfig.of(state).width
            if config.context != width:
                raise UnetError(
                    f"The U-Net reads states of width {config.context}, and the {name} gives {width}. Use those of one "
                    "SD 1.x model."
                )
        found.append(AttackedModel(state, model.unet if plan.through_unet else None))
    attacked, own = (EncoderConfig.of(model.encoder).width for model in found)
    if attacked != own:
        raise SettingsError(
            f"The encoder under attack is {attacked} wide, and the base's {own}: use those of one model."
        )
    return found[0], found[1]


def _latent_shape(plan: AttackPlan, base: AttackedModel, size: int) -> tuple[int, int, int]:
    channels = checked_config(base.unet, size).inputs if base.unet is not None else 4
    return channels, size // FACTOR, size // FACTOR


def _metadata(plan: AttackPlan, outcome: AttackOutcome, *, control: bool) -> dict[str, str]:
    names = {"tokens": "token search", "genetic": "genetic search", "soft": "soft prompts"}
    return {
        "method": names.get(plan.method, "textual inversion"),
        "preset": f"attack on the {plan.aim}{', control on the base' if control else ''}",
        "concept": plan.concept or "unnamed",
        "steps": str(len(outcome.history)),
        "broken": f"{outcome.success.k} of {outcome.success.n}",
        "plan": json.dumps(plan.to_dict(), sort_keys=True),
        "software": SOFTWARE,
    }


def _tensors(outcome: AttackOutcome) -> dict[str, Tensor]:
    attempt = outcome.attempt
    found = {
        "ids": attempt.ids,
        "places": attempt.places,
        "vectors": attempt.vectors,
        "sets": attempt.sets,
        "hits": outcome.hits,
        "distances": outcome.distances,
        "looked": outcome.looked,
        "tries": torch.tensor(outcome.tries),
    }
    return {name: value for name, value in found.items() if value is not None}


def _save(weights: Path, attack: StoredAttack) -> None:
    tensors, history = _tensors(attack.outcome), attack.outcome.history
    save_run(weights, write_tensors, tensors, attack.metadata, history, hash=weights_hash(tensors))


def _read(weights: Path) -> StoredAttack:
    # Where random starts break every prompt, there is no step to take.
    tensors, metadata, history, _ = read_run(weights, load_file, weights_hash, ("method",), fewest=0)
    attempt = Attempt(*(tensors.get(name) for name in ("ids", "places", "vectors", "sets")))  # type: ignore[arg-type]
    hits, distances, looked = (tensors[name] for name in ("hits", "distances", "looked"))
    outcome = AttackOutcome(attempt, hits, distances, looked, tuple(tensors["tries"].tolist()), history)
    return StoredAttack(outcome, metadata, found=True)
