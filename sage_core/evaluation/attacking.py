"""Attacks on whole methods in a plan: what of a list they attack, how, and the pictures of what they find.

A batch of an attack is some prompts with every look at them. Whoever takes it searches, keeps what was found, draws it
as the plan draws everything, each look by the seed of its prompt, and records it as any batch; so attacks are shared
out, stopped and gone on with like drawing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..attacks.budgets import AttackBudget
from ..attacks.plans import AttackPlan
from ..attacks.search import Attempt
from ..attacks.store import WITHHELD
from ..attacks.victims import MethodEncoder, unpacked
from ..attacks.whole import KINDS, Found, attack_method, begin_of, tries_of
from ..drawing.pictures import ChangedModel
from ..encoders.tokens import tokenize
from ..errors import SageError, SettingsError
from ..files import write_tensors
from ..methods.making import Watch
from ..prompts.minors import mentions_minor
from ..prompts.pairs import read_prompts
from ..rows import shown
from ..runs.keeping import SOFTWARE, kept, read_run, run_name, save_run, weights_hash
from ..settings import settings_from
from .fields import Section
from .plan import Drawing, MethodAttack, MethodPlan, Plan, PromptFile, Scoring
from .prompts import Item, Items, PromptList

# Raised when the same inputs no longer give the same prompts.
_RECIPE = 1
# Bytes of what is kept of a batch and of its checkpoint, generously.
_STORED = 2**26
# What the plan's table says itself.
_OWN = ("prompts", "budget", "method", "sampling_steps", "guidance")
_KEPT = ("ids", "places", "vectors", "sets")


def plan_of(attack: MethodAttack, drawing: Drawing, concept: str, prompts: Sequence[str], seed: int = 0) -> AttackPlan:
    """How some prompts are attacked.

    Args:
        attack: of the plan.
        drawing: the plan's, by whose steps and guidance the base is drawn from.
        concept: that is to come back.
        prompts: as they are attacked together.
        seed: added to that of the settings.

    Raises:
        SettingsError: a setting is unknown or makes no sense.
        PromptError: a prompt or a word refers to a minor, or the concept is needed and not named.
    """
    kind = KINDS[attack.kind]
    given = {"aim": kind.aim, "concept": concept, **kind.usual, **attack.settings}
    if wrong := [name for name in attack.settings if name in _OWN]:
        raise SettingsError(f"unknown setting {shown(wrong[0])}: the table says it itself, or the plan's [draw].")
    budget = AttackBudget(attack.steps, attack.restarts, attack.looks, below=0, stop_early=False)
    own = {"prompts": list(prompts), "method": kind.method or "soft", "budget": budget, "guidance": drawing.guidance}
    found = settings_from(AttackPlan, {**given, **own, "sampling_steps": drawing.steps}, "settings")
    if found.aim == "noise" and found.draws > drawing.steps:
        raise SettingsError(f"draws is {found.draws}, expected at most draw.steps, {drawing.steps}.")
    return found.replace(seed=(found.seed + seed) % 2**32)


def read_attack(
    section: Section,
    draw: Drawing,
    score: Scoring,
    lists: Sequence[PromptFile],
    methods: Sequence[MethodPlan],
) -> MethodAttack:
    """An attack on methods, tried on a prompt of no meaning: what is wrong with it is told before anything is drawn."""
    usual = MethodAttack("", "", "")
    known = [each.name for each in lists]
    found = MethodAttack(
        section.text("name", required=True),
        section.choice("kind", KINDS, next(iter(KINDS))),
        section.choice("list", known, known[0]) if known else "",
        section.whole("count", usual.count, 0, 10**7),
        section.choices("methods", [method.name for method in methods], ()),
        section.whole("steps", usual.steps, 1, 10**6),
        section.whole("restarts", usual.restarts, 1, 1000),
        section.whole("looks", usual.looks, 1, 1000),
        section.whole("batch", usual.batch, 1, 1000),
        section.number("strength", usual.strength, 0.01, 1),
        _settings(section),
    )
    for name in ("kind", "list"):
        if not section.has(name):
            section.problem(name, f"it is missing; expected one of {', '.join(KINDS if name == 'kind' else known)}.")
    if not known:
        section.problem("list", "there is no list to attack with. Add [[prompts.attack]].")
    if elsewhere := [each.name for each in methods if each.pictures and each.name in found.methods]:
        section.problem("methods", f"{elsewhere[0]!r} is drawn elsewhere, and cannot be attacked; leave it out.")
    if not draw.guidance:
        section.problem("kind", "attacks need guidance by the prompt, and draw.guidance is 0; give it a weight.")
    for name in ("steps", "restarts", "looks", "only", "settings"):
        if section.has(name) and not KINDS[found.kind].method:
            section.problem(name, f"{found.kind} searches nothing, and it would have no effect; leave it out.")
    if section.has("strength") and KINDS[found.kind].probe != "noised":
        section.problem("strength", "it is that of pictures with noise, of the kind noised; leave it out.")
    try:
        own = next((each.concept for each in lists if each.name == found.list), "")
        plan_of(found, draw, own or score.concept, ["a prompt"])
    except SageError as error:
        section.problem("settings", str(error))
    section.close()
    return found


def _settings(section: Section) -> dict[str, Any]:
    """Further settings, with the words of a file among them."""
    found = dict(section.section("settings").values)
    if (file := section.path("only")) is not None:
        if "only" in found:
            section.problem("only", "settings name words as well; keep one of them.")
        try:
            found["only"] = list(read_prompts(file)[0])
        except SageError as error:
            section.problem("only", str(error))
    return found


def tries(attack: MethodAttack, plan: Plan) -> tuple[int, ...]:
    """Attempts at each prompt until each look."""
    return tries_of(attack.kind, plan_of(attack, plan.draw, "x", ["x"]))


def attacked_list(plan: Plan, attack: MethodAttack, source: PromptList) -> PromptList:
    """The pictures of an attack: of each prompt of a list one for each look, with the prompt's own seed.

    Raises:
        SettingsError: no prompt of the list may be attacked.
    """
    # Without guidance a prompt says nothing.
    rows = [row for row in source.items.rows if not mentions_minor(row.prompt) and row.guidance != 0]
    left_out, rows = len(source.items.rows) - len(rows), rows[: attack.count or None]
    if not rows:
        raise SettingsError(f"{plan.file}: the attack {attack.name!r} finds no prompt in {attack.list!r} to attack.")
    looks = tries(attack, plan)
    items = tuple(
        replace(row, place=number * len(looks) + look, id=f"{row.id} look {look}")
        for number, row in enumerate(rows)
        for look in range(len(looks))
    )
    how = {name: value for name, value in asdict(attack).items() if name not in ("name", "list", "methods")}
    about = [_RECIPE, source.key, [row.place for row in rows], how, concept_of(plan, source)]
    key = hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()
    notes = [f"{attack.name} attacks {len(rows):,} prompts of {source.name}: {KINDS[attack.kind].title}."]
    if left_out:
        why = "they may refer to minors, or have no guidance"
        notes.append(f"{attack.name}: {left_out:,} prompts of {source.name} are not attacked: {why}.")
    together = len(items) if KINDS[attack.kind].shared else attack.batch * len(looks)
    return PromptList(
        attack.name, "attacked", Items(items, 1), key, notes=tuple(notes), together=together, attack=attack,
        file=source.file and replace(source.file, name=attack.name),
    )  # fmt: skip


def concept_of(plan: Plan, source: PromptList) -> str:
    """What a list asks for."""
    return (source.file.concept if source.file else "") or plan.score.concept


@dataclass(frozen=True, eq=False)
class Attacker:
    """A plan's attacks turned on one method, and what they find drawn.

    Attributes:
        plan: the whole.
        method: the base with the method in it.
        key: of the method.
        draw: draws items by a model, (N, 3, H, W) on the CPU; see `drawing.draw_batch` for its options.
        store: folder in which what was found is kept.
        watch: called with (what, done, total); may raise to stop, and the attack goes on from there.
    """

    plan: Plan
    method: ChangedModel
    key: str
    draw: Callable[..., Tensor]
    store: Path
    watch: Watch | None = None

    def drawn(self, listed: PromptList, items: Sequence[Item]) -> tuple[Tensor, list[str]]:
        """Attack by a batch of prompts.

        Args:
            listed: of the attack, from `attacked_list`.
            items: of the batch: of each prompt all looks.

        Returns:
            The pictures of all items, and the text of each.
        """
        attack = listed.attack
        assert attack is not None
        if KINDS[attack.kind].probe:
            return self._probed(attack, items), [item.prompt for item in items]
        found = self._found(listed, attack, items[:: len(tries(attack, self.plan))])
        encoder = MethodEncoder(self.method)
        texts = [list(each) for each in zip(*found.texts(), strict=True)]
        states = torch.stack([attempt.states(encoder) for attempt in found.attempts], 1).flatten(0, 1)
        flat = [text for each in texts for text in each]
        refused = [number for number, text in enumerate(flat) if mentions_minor(text)]
        if refused:
            # Of words that add up to a minor nothing is drawn but the prompt as it was.
            plain = encoder(tokenize([items[number].prompt for number in refused])).detach()
            states[refused] = plain
            flat = [WITHHELD if number in refused else text for number, text in enumerate(flat)]
        return self.draw(self.method, items, states=unpacked(states)), flat

    def _probed(self, attack: MethodAttack, items: Sequence[Item]) -> Tensor:
        """What the method draws of its prompts when it begins with the base's pictures of them."""
        base = ChangedModel(self.method.model)
        pictures = self.draw(base, items).to(base.model.device)
        probe, steps = KINDS[attack.kind].probe, self.plan.draw.steps
        begin = begin_of(probe, base, pictures, steps=steps, strength=attack.strength)
        self.method.put_in()
        return self.draw(self.method, items, begin=begin)

    def _found(self, listed: PromptList, attack: MethodAttack, items: Sequence[Item]) -> Found:
        """What an attack finds for some prompts: made, gone on with, or read from the store."""
        drawing, device, watch = self.plan.draw, self.method.model.device, self.watch
        guidance = drawing.guidance if items[0].guidance is None else items[0].guidance
        concept = concept_of(self.plan, listed)
        how = plan_of(attack, drawing, concept, [item.prompt for item in items], items[0].place)

        def make(checkpoint: Path) -> Found:
            return attack_method(
                attack.kind,
                how,
                self.method,
                lambda: ChangedModel(self.method.model),
                steps=drawing.steps,
                guidance=guidance,
                shape=(4, drawing.height // 8, drawing.width // 8),
                pictures=lambda base: self.draw(base, items).to(device),
                chunk=drawing.batch,
                checkpoint=checkpoint,
                on_step=None if watch is None else lambda step: watch(attack.name, step.step, step.steps),
            )

        if not KINDS[attack.kind].method:
            return make(self.store)
        inputs = [self.key, listed.key, [item.drawn for item in items], how.key(), guidance, drawing.batch]
        about = {"method": f"{attack.kind} attack", "preset": f"on {self.method.model.title}", "concept": how.concept}
        return kept(
            self.store,
            run_name(inputs, _RECIPE),
            make=make,
            save=lambda file, found: _save(file, found, about),
            read=lambda file: _read(file, device),
            needed=_STORED,
        )[0]


def _save(file: Path, found: Found, about: dict[str, str]) -> None:
    tensors = {
        f"{look}.{name}": value.detach().cpu().clone()
        for look, attempt in enumerate(found.attempts)
        for name in _KEPT
        if (value := getattr(attempt, name)) is not None
    }
    metadata = {**about, "steps": str(len(found.history)), "software": SOFTWARE}
    save_run(file, write_tensors, tensors, metadata, found.history, hash=weights_hash(tensors))


def _read(file: Path, device: torch.device) -> Found:
    tensors, _, history, _ = read_run(file, load_file, weights_hash, ("method",))
    looks: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        look, _, part = name.partition(".")
        looks.setdefault(int(look), {})[part] = value.to(device)
    return Found(tuple(Attempt(**looks[look]) for look in range(len(looks))), history)
