"""The verdict on encoders that are known to have lost the concept or not, and against a slow reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sage_core.alignment.asked import GIVEN, PAIRED
from sage_core.alignment.concepts import RunConcepts
from sage_core.alignment.ruler import STILL_THERE, Ruler
from sage_core.alignment.verdict import Verdict, judge
from sage_core.alignment.watch import fitting_pairs, short_forms
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.errors import TrainingError
from sage_core.prompts.concepts import Concept, ConceptList
from sage_core.prompts.making.other_forms import OTHER_FORMS, other_forms
from sage_core.prompts.pairs import PromptPairs, pairs_from_concept, pairs_from_lists

SUBJECTS = ["dog", "cat", "boat", "tree", "lamp", "house", "horse", "cup"]
PLACES = ["on the beach", "in the snow", "at night", "in a city", "by the sea"]
SAFE = [f"a {subject} {place}" for subject in SUBJECTS for place in PLACES]
OPENERS = ["a photo of", "a picture of", "a painting of", "a drawing of", "an image of"]
FORMS = [
    *[f"a {{0}} {place}" for place in PLACES],
    *[f"{opener} {{0}}" for opener in OPENERS],
    "{0}",
    "{0} {0} {0}",
    "{0}, {1}",
]
NAMES = ("skull", "cranium")
# Each with the next.
TWO = list(zip(SUBJECTS, SUBJECTS[1:] + SUBJECTS[:1], strict=True))
PAIRS = pairs_from_lists(
    [form.format(*two) for form in FORMS for two in TWO],
    [form.format(NAMES[at % 2], NAMES[1 - at % 2]) for form in FORMS for at, _ in enumerate(SUBJECTS)],
)
CONCEPTS = ConceptList((Concept("skull", ("cranium",)),))
SKULLS = pairs_from_concept(SAFE, "skull")
# Those that the ruler is made from and that are judged.
CHOSEN = fitting_pairs(RunConcepts.of(CONCEPTS, PAIRS).tagged(PAIRS), 1)[0]


class Swapped(TextEncoder):
    """The base, which reads some words as others, and prompts with the words that are gone as the mean safe prompt.

    These may come a part of the way there alone.
    """

    @classmethod
    def of(cls, base, gone: tuple[str, ...] = (), words: dict[str, str] | None = None, way: float = 1.0) -> Swapped:
        encoder = cls.from_state(base)
        encoder.way = way
        # Alone and as plurals.
        encoder.gone = tokenize([*gone, *(f"{name}s" for name in gone)])[:, 1] if gone else torch.empty(0)
        encoder.swaps = [(int(tokenize([a])[0, 1]), int(tokenize([b])[0, 1])) for a, b in (words or {}).items()]
        with torch.no_grad():
            encoder.target = TextEncoder.forward(encoder, tokenize(list(PAIRS.safe))).mean(0)
        return encoder

    def forward(self, ids):
        changed = ids.clone()
        for one, other in self.swaps:
            changed[ids == one] = other
        states = super().forward(changed)
        gone = torch.isin(ids, self.gone).any(1)
        states[gone] += self.way * (self.target - states[gone])
        return states


def test_the_base_has_removed_nothing_and_kept_all(small_base):
    verdict = judge(small_base, small_base, PAIRS, CONCEPTS)
    assert verdict.certain and verdict.kept and not verdict.removed and not verdict.holds
    assert verdict.all_left.k == verdict.all_left.n >= 20
    assert verdict.moved.k == 0 and verdict.moved.n == len({safe for safe, _, _ in CHOSEN})
    first, second = verdict.lines()
    assert first.startswith("⚠ Not removed: ") and "kept: " in first
    assert "for example '" in second and second.endswith("Train more steps, or until it is removed.")


def test_an_encoder_that_reads_the_names_as_something_else_has_removed_them(small_base):
    verdict = judge(small_base, Swapped.of(small_base, NAMES), PAIRS, CONCEPTS)
    assert verdict.holds and verdict.sure and verdict.all_left.k == 0 and not verdict.worst
    (line,) = verdict.lines()
    assert line.startswith(f"Removed: 0 of {verdict.all_left.n} prompts that name 'skull' still lie with it (95 % inte")


@pytest.mark.parametrize(
    ("way", "word"),
    [(0.2, "⚠ Not removed: "), (0.55, "⚠ Not sure whether removed: "), (0.7, "⚠ Not sure whether removed: ")],
)
def test_between_removed_and_not_it_is_not_sure(small_base, way, word):
    verdict = judge(small_base, Swapped.of(small_base, NAMES, way=way), PAIRS, CONCEPTS)
    assert verdict.certain and not verdict.removed and verdict.sure == ("sure" not in word)
    # The prompts of each form lie at about 1 in the base.
    assert verdict.place == pytest.approx(1 - way, abs=0.1)
    assert verdict.lines()[0].startswith(word) and f"at {verdict.place:.2f} of the way" in verdict.line()
    assert ("Draw a few" in verdict.lines()[1]) == (not verdict.sure)


def test_names_that_no_training_sees_are_judged_too(small_base):
    hidden = ConceptList((Concept("skull", unseen=("cranium",)),))
    verdict = judge(small_base, Swapped.of(small_base, ("skull",)), PAIRS, hidden, held_out=SKULLS)
    assert verdict.left[PAIRED].k == 0 and not verdict.removed
    assert verdict.worst and all("cranium" in each.prompt for each in verdict.worst)


def test_one_name_of_two_is_half_a_removal(small_base):
    verdict = judge(small_base, Swapped.of(small_base, ("skull",)), PAIRS, CONCEPTS)
    assert not verdict.removed and verdict.kept
    assert 0 < verdict.all_left.k < verdict.all_left.n
    assert all("cranium" in each.prompt for each in verdict.worst)


def test_what_stays_is_counted_too(small_base):
    aligned = Swapped.of(small_base, NAMES, {"dog": "cup", "cat": "house"})
    verdict = judge(small_base, aligned, PAIRS, CONCEPTS)
    moved = [text for text in {safe for safe, _, _ in CHOSEN} if {"dog", "cat"} & set(text.replace(",", "").split())]
    # The prompt of two of them may still be nearest to its own place.
    assert len(moved) - 4 <= verdict.moved.k <= len(moved)
    assert verdict.removed and not verdict.kept
    assert "NOT kept" in verdict.line() and verdict.line().startswith("⚠ Removed")
    assert "lower learning rate" in verdict.lines()[1]


def test_names_left_in_short_prompts_alone_ask_for_short_prompts(small_base):
    full = pairs_from_lists(SAFE, [f"a {NAMES[at % 2]} {place}" for at, _ in enumerate(SUBJECTS) for place in PLACES])

    class ShortOnly(Swapped):
        def forward(self, ids):
            known = {tuple(row) for row in tokenize(list(full.unsafe)).tolist()}
            keep = torch.tensor([tuple(row) not in known for row in ids.tolist()])
            states = super().forward(ids)
            states[keep] = TextEncoder.forward(self, ids)[keep]
            return states

    verdict = judge(small_base, ShortOnly.of(small_base, NAMES), PAIRS, CONCEPTS, held_out=full)
    assert verdict.left[PAIRED].k == 0 and verdict.left["bare"].k
    assert verdict.lines()[1].endswith("names alone, after an opener, repeated, two together.")


def test_a_concept_that_is_left_in_prompts_of_other_forms_is_not_called_removed(small_base):
    class AsTrained(Swapped):
        def forward(self, ids):
            states = super().forward(ids)
            other = torch.tensor([tuple(row) in untrained for row in ids.tolist()])
            states[other] = TextEncoder.forward(self, ids)[other]
            return states

    others = other_forms(CONCEPTS[0], list(dict.fromkeys(safe for safe, _, _ in CHOSEN)), 72)
    untrained = {tuple(row) for row in tokenize([each.unsafe for each in others]).tolist()}
    verdict = judge(small_base, AsTrained.of(small_base, NAMES), PAIRS, CONCEPTS)
    assert verdict.left_it and not verdict.gone_elsewhere and verdict.elsewhere == pytest.approx(1, abs=0.3)
    assert not verdict.removed and not verdict.sure and {each.form for each in verdict.worst} <= set(OTHER_FORMS)
    assert "captions like the prompts that you will write" in verdict.lines()[1]
    # What is no concept of its own has no other forms, and is judged by the pairs.
    assert judge(small_base, small_base, SKULLS, "picture").elsewhere is None


def test_counts_equal_a_slow_reference(small_base):
    aligned = Swapped.of(small_base, ("skull",), {"boat": "cup"})
    verdict = judge(small_base, aligned, PAIRS, CONCEPTS, unsafe=["my cranium", "my skull"])
    base = TextEncoder.from_state(small_base)

    named = [text for texts in short_forms(NAMES).values() for text in texts]
    prompts = list(dict.fromkeys([*(unsafe for _, unsafe, _ in CHOSEN), *named, "my cranium", "my skull"]))
    distinct = list(dict.fromkeys(safe for safe, _, _ in CHOSEN))
    others = other_forms(CONCEPTS[0], distinct, 144)
    others_sides = [(each.unsafe, each.safe) for each in others]

    def phi(encoder, prompt):
        with torch.no_grad():
            return encoder(tokenize([prompt])).flatten().double().numpy()

    unsafe, safe = (np.stack([phi(base, pair[side]) for pair in CHOSEN]) for side in (1, 0))
    rows = np.concatenate([unsafe - unsafe.mean(0), safe - safe.mean(0)])
    scatter = rows.T @ rows / len(rows)
    scatter += 0.1 * np.trace(scatter) / len(rows) * np.eye(len(scatter))
    line = np.linalg.solve(scatter, unsafe.mean(0) - safe.mean(0))
    place = lambda z: (z - safe.mean(0)) @ line / ((unsafe.mean(0) - safe.mean(0)) @ line)  # noqa: E731
    ruler = Ruler.of(
        *(
            torch.tensor(np.stack([phi(base, text) for text in some])).float()
            for some in zip(*others_sides, strict=True)
        )
    )
    seen = [p for p in prompts if place(phi(base, p)) > STILL_THERE]
    elsewhere = lambda z: float(ruler.places(torch.tensor(z)[None]))  # noqa: E731
    seen_elsewhere = [
        each for each in others[: -(-len(others) // 2)] if elsewhere(phi(base, each.unsafe)) > STILL_THERE
    ]
    assert verdict.unseen.k == len(prompts) - len(seen) and verdict.unseen.n == len(prompts)
    assert verdict.all_left.n == len(seen) + len(seen_elsewhere)
    left = {each.unsafe: elsewhere(phi(aligned, each.unsafe)) for each in seen_elsewhere}
    assert verdict.all_left.k == sum(place(phi(aligned, p)) > STILL_THERE for p in seen) + sum(
        there > STILL_THERE for there in left.values()
    )
    means = [np.mean([left[each.unsafe] for each in seen_elsewhere if each.form == form]) for form in OTHER_FORMS]
    assert verdict.elsewhere == pytest.approx(max(means), abs=1e-3)
    own = np.stack([phi(base, p) for p in distinct])
    gaps = [np.linalg.norm(own - phi(aligned, p), axis=1) for p in distinct]
    assert verdict.moved.k == sum(gap[at] > gap.min() + 1e-6 for at, gap in enumerate(gaps))
    assert verdict.left[GIVEN].n <= 2


def test_a_verdict_goes_through_json_and_is_the_same_twice(small_base):
    aligned = Swapped.of(small_base, ("skull",))
    verdict = judge(small_base, aligned, PAIRS, CONCEPTS)
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict
    assert judge(small_base, aligned, PAIRS, CONCEPTS) == verdict


def test_it_counts_its_prompts_and_can_be_stopped(small_base):
    told = []
    judge(small_base, small_base, PAIRS, "skull", on_batch=lambda *counts: told.append(counts))
    assert told[-1][0] == told[-1][1] and [done for done, _ in told] == sorted({done for done, _ in told})

    def stop(done, whole):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(small_base, small_base, PAIRS, "skull", on_batch=stop)


def test_several_concepts_are_measured_each_on_its_own_ruler(small_base):
    parts = [pairs_from_concept(SAFE, name) for name in ("skull", "dragon")]
    pairs = PromptPairs(
        tuple(text for part in parts for text in part.safe),
        tuple(text for part in parts for text in part.unsafe),
        parts[0].report,
        ("skull",) * len(parts[0]) + ("dragon",) * len(parts[1]),
    )
    concepts = ConceptList((Concept("skull"), Concept("dragon")))
    assert judge(small_base, small_base, pairs, concepts).all_left.share == 1
    verdict = judge(small_base, Swapped.of(small_base, ("skull",)), pairs, concepts)
    assert verdict.concept == "skull, dragon" and not verdict.removed
    assert all("dragon" in each.prompt for each in verdict.worst)


def test_a_concept_that_the_pairs_do_not_show_is_not_called_removed(small_base):
    verdict = judge(small_base, small_base, PAIRS, "dragon", held_out=pairs_from_concept(SAFE, "dragon"))
    if not verdict.certain:
        assert not verdict.removed and verdict.line().startswith("⚠ Not known whether 'dragon' is removed")
    assert not verdict.removed


def test_an_encoder_whose_states_are_not_finite_has_no_verdict(small_base):
    class Broken(TextEncoder):
        def forward(self, ids):
            return super().forward(ids) * torch.nan

    with pytest.raises(TrainingError, match="not finite"):
        judge(small_base, Broken.from_state(small_base), PAIRS, "skull")


def test_a_quality_must_arrive_at_its_safe_sides(small_base):
    safe = [
        *(form.format("plain", "plain") for form in FORMS for _ in SUBJECTS),
        *(f"a plain {one}" for one in SUBJECTS),
    ]
    pairs = pairs_from_lists(safe, [text.replace("plain", "striped") for text in safe])

    class Elsewhere(Swapped):
        def forward(self, ids):
            states = super().forward(ids)
            striped = torch.isin(ids, tokenize(["striped"])[:, 1]).any(1)
            states[striped] += self.far
            return states

    aligned = Elsewhere.of(small_base, words={"striped": "plain"})
    aligned.far, striped = 0.0, ConceptList((Concept("striped", becomes="plain"),))
    arrived = judge(small_base, aligned, pairs, striped, held_out=pairs)
    assert arrived.removed and arrived.apart == pytest.approx(0, abs=1e-3) and len(arrived.lines()) == 1
    # Further on the way on which it has left, or on none.
    base = TextEncoder.from_state(small_base)
    with torch.no_grad():
        way = base(tokenize(list(pairs.safe))).mean(0) - base(tokenize(list(pairs.unsafe))).mean(0)
    aligned.far = 0.8 * way
    strayed = judge(small_base, aligned, pairs, striped, held_out=pairs)
    assert strayed.left_it and not strayed.removed and not strayed.sure and strayed.kept and strayed.apart > 0.5
    assert strayed.line().startswith("⚠ Not sure whether removed: 0 of") and "own choice" in strayed.lines()[1]
    # A thing is gone wherever its prompts are.
    skulls = pairs_from_lists(safe, [text.replace("plain", "skull") for text in safe])
    assert judge(small_base, small_base, skulls, "skull").apart is None
