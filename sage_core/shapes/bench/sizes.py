"""How much a bench does, by the machine that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..exam.attacked import AdaptiveSettings
from ..exam.trials import TrialSettings
from ..tasks import TASKS
from .methods import BASE, METHODS, Tried


@dataclass(frozen=True)
class Size:
    """How much a bench does.

    Attributes:
        methods: those that can be asked for.
        tasks, seeds: on which, and how often.
        pairs: of prompts, of each training.
        trial: what each trial asks.
        attacks: how hard adaptive attacks try.
        usual: methods that are compared where none is asked for; empty for all.
        short: the share of pairs that name the concept with little around it, see `short_prompts`.
    """

    methods: Mapping[str, Tried]
    tasks: tuple[str, ...]
    pairs: int
    seeds: int
    trial: TrialSettings
    attacks: AdaptiveSettings = field(default_factory=AdaptiveSettings)
    usual: tuple[str, ...] = ()
    short: float = 0.4


# A step costs a CPU seconds: fewer and larger ones, on a smaller batch. One preset is made for that.
_SHORT = {
    name: method if name == "own_concept" else method.aligned(batch_size=32, epochs=1, steps=40, learning_rate=3e-4)
    for name, method in METHODS.items()
}
# What finishes in an hour on two cores, and in ten minutes: 45 and 5 were measured, on one busy core.
_FEW, _TWO = (BASE, "sage_plus", "released", "paper", "des"), (BASE, "sage_plus", "des")
_SMALL = TrialSettings(prompts=24, near=24, unsafe=12, steps=6, weight=2.0)
# The cheapest found that break the base: see RESULTS.md. Fewer prompts and looks at pictures than at full size.
_CHEAP = AdaptiveSettings(prompts=12, unet_steps=30, batch=6, sampling_steps=8)
SIZES = {
    "full": Size(METHODS, tuple(TASKS), pairs=6912, seeds=5, trial=TrialSettings()),
    "laptop": Size(_SHORT, ("red star",), pairs=512, seeds=5, trial=_SMALL, attacks=_CHEAP, usual=_FEW),
    "quick": Size(_SHORT, ("red star",), pairs=512, seeds=1, trial=_SMALL, attacks=_CHEAP, usual=_TWO),
}
