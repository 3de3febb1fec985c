"""Trainings that end when the concept is removed: when they end, their rounds, and exact resume."""

from __future__ import annotations

import pytest
import torch

from sage_core.alignment.concepts import RunConcepts
from sage_core.alignment.objective import AlignmentObjective
from sage_core.alignment.preparation import prepare
from sage_core.alignment.report import run_summary
from sage_core.alignment.rounds import Rounds, joined
from sage_core.alignment.ruler import Ruler
from sage_core.alignment.schedule import MOST_STEPS, epoch_order, total_steps
from sage_core.alignment.settings import PRESETS, TrainingSettings
from sage_core.alignment.training import train, train_stored
from sage_core.alignment.watch import Watch, WatchedTexts, short_forms, some_of
from sage_core.encoders.layouts import TOKEN_TABLE
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import detokenize, tokenize
from sage_core.prompts.concepts import Concept, ConceptList
from sage_core.prompts.pairs import pairs_from_lists
from sage_core.runs.record import Check, StepReport

SUBJECTS = ["dog", "cat", "boat", "tree", "lamp", "house", "horse", "cup"]
FORMS = ["a {} on the beach", "a {} in the snow", "a {} at night", "a photo of {}", "a drawing of {}", "{0} {0} {0}"]
NAMES = ("skull", "cranium")
PAIRS = pairs_from_lists(
    [form.format(subject) for form in FORMS for subject in SUBJECTS],
    [form.format(NAMES[at % 2]) for form in FORMS for at, _ in enumerate(SUBJECTS)],
)
CONCEPTS = ConceptList((Concept("skull", ("cranium",)),))
SETTINGS = TrainingSettings(
    neighbours=3,
    batch_size=12,
    learning_rate=3e-3,
    concept_scale=0.85,
    scale_unit="norm",
    keep_mse=20.0,
    precision="fp32",
    held_out=0,
    steps=120,
    until="removed",
)


@pytest.fixture(scope="module")
def ended(small_base):
    return train(small_base, PAIRS, CONCEPTS, SETTINGS)


def test_it_ends_when_the_concept_is_removed(ended):
    checks = [report.check for report in ended.history if report.check]
    assert len(ended.history) < 120
    first = next(place for place, check in enumerate(checks) if check.holds)
    ends = [n for n in range(2 * first, len(checks) + 1) if n > 1 and checks[n - 1].holds and checks[n - 2].holds]
    assert ends == [len(checks)], "as long after the first check that held as it took, as soon as two in a row do"
    assert checks[0].left > checks[-1].left and checks[-1].left <= 0.02 * checks[-1].unsafe
    assert ended.metadata["steps"] == str(len(ended.history))
    assert f"\nEnded after {len(ended.history)} of 120 steps" in run_summary(ended, "a", found=False, pairs=len(PAIRS))


def test_without_rounds_it_is_the_run_of_as_many_steps(small_base, monkeypatch):
    monkeypatch.setattr(Rounds, "look", lambda self, embed: ())
    ended = train(small_base, PAIRS, CONCEPTS, SETTINGS)
    assert len(ended.history) < 120
    fixed = train(small_base, PAIRS, CONCEPTS, SETTINGS.replace(until="steps", steps=len(ended.history)))
    for name, tensor in fixed.state.items():
        # Words that are only looked at decay on another path.
        rounding = 1e-5 if name == TOKEN_TABLE else 0.0
        torch.testing.assert_close(ended.state[name], tensor, rtol=rounding, atol=0, msg=name)
    assert [report.losses for report in fixed.history] == [report.losses for report in ended.history]
    assert not any(report.check for report in fixed.history)


def test_one_that_does_not_work_goes_to_its_limit_and_says_so(small_base):
    result = train(small_base, PAIRS, CONCEPTS, SETTINGS.replace(learning_rate=1e-9, steps=10))
    assert len(result.history) == 10 and not any(report.check.holds for report in result.history if report.check)
    assert "⚠ Ended at the limit of 10 steps" in run_summary(result, "a", found=False, pairs=len(PAIRS))


class Stop(BaseException):
    """What a host application may raise to cancel: no Exception."""


@pytest.mark.parametrize("at", ["before its rounds", "in a round"])
def test_stopped_and_resumed_it_is_the_same(small_base, tmp_path, monkeypatch, at):
    def five_that_lie_nearest(self, embed):
        return tuple(self.rulers[0].places(embed(self.ids)).topk(5).indices.tolist())

    monkeypatch.setattr(Rounds, "look", five_that_lie_nearest)
    ended = train(small_base, PAIRS, CONCEPTS, SETTINGS)
    begun = next(report.step for report in ended.history if report.check and report.check.again)
    assert 3 < begun < len(ended.history) - 2, "its rounds change steps"

    def stop(report):
        # What it raises stops the run a step later.
        if report.step == (begun if at == "in a round" else 2):
            raise Stop

    with pytest.raises(Stop):
        train_stored(small_base, PAIRS, CONCEPTS, SETTINGS, tmp_path, on_step=stop)
    resumed, found = train_stored(small_base, PAIRS, CONCEPTS, SETTINGS, tmp_path)
    assert not found and [r.check for r in resumed.history] == [r.check for r in ended.history]
    for name, tensor in ended.state.items():
        assert torch.equal(resumed.state[name], tensor), name
    again, found = train_stored(small_base, PAIRS, CONCEPTS, SETTINGS, tmp_path)
    assert found and again.history == resumed.history


def test_the_limit_is_the_steps_or_the_epochs_or_enough():
    assert total_steps(48, SETTINGS) == 120
    assert total_steps(48, SETTINGS.replace(steps=None)) == MOST_STEPS
    assert total_steps(48, SETTINGS.replace(steps=None, epochs=1000)) == 4000
    assert total_steps(128, PRESETS["sage_plus"]) == 4


def test_what_is_watched_are_pairs_that_were_kept_out_and_the_names():
    run_concepts = RunConcepts.of(CONCEPTS, PAIRS)
    tagged = run_concepts.tagged(PAIRS)
    texts = WatchedTexts.of(tagged[8:], tagged[:8], run_concepts, 3)
    assert texts == WatchedTexts.of(tagged[8:], tagged[:8], run_concepts, 3)
    assert set(texts.safe) == {safe for safe, _, _ in tagged[:8]}
    named = {text for some in short_forms(NAMES).values() for text in some}
    assert {text for text, _ in texts.unsafe} == {unsafe for _, unsafe, _ in tagged[:8]} | named
    assert sorted(texts.pairs[0]) == sorted(tagged[8:])
    assert set(WatchedTexts.of(tagged, [], run_concepts, 3).safe) == set(PAIRS.safe)


def striped_pairs():
    """Pairs of which one side is plain and the other striped, short ones among them, and what a run is told of them."""
    openers = ["", "a photo of ", "a picture of ", "a painting of ", "a drawing of ", "an image of ", "plain plain "]
    safe = [form.format(f"plain {one}") for form in FORMS for one in SUBJECTS] + [f"{one}plain" for one in openers]
    tagged = [(text, text.replace("plain", "striped"), 0) for text in [*safe, "plain, plain"]]
    return tagged, RunConcepts.of("striped", pairs_from_lists(*zip(*[pair[:2] for pair in tagged], strict=True)))


def watch_of(texts, tagged, base):
    further = joined([tagged], ())
    ids = [tokenize(part) for part in [*texts.parts, *list(zip(*further, strict=True))[:2]]]
    return Watch.of(texts, ids, torch.zeros(4, len(further), dtype=torch.int64), base, 12)


@pytest.mark.parametrize(("moved", "holds"), [(0, True), (3, True), (12, False)])
def test_a_run_goes_on_where_more_than_chance_has_moved(small_base, moved, holds):
    """A few safe prompts are more than a twentieth of those watched, and no sign that a twentieth of all have moved."""
    tagged, run_concepts = striped_pairs()
    texts = WatchedTexts.of(tagged, [], run_concepts, 3)
    encoder, (one, other) = TextEncoder.from_state(small_base), tokenize(["striped", "plain"])[:, 1].tolist()

    def embed(ids, moved=0):
        with torch.no_grad():
            states = encoder(ids).flatten(1)
        return torch.cat([states[:moved].roll(1, 0), states[moved:]])

    def aligned(ids):
        changed = torch.where(ids == one, other, ids)
        return embed(changed, moved if torch.equal(ids, watch.safe_ids) else 0)

    watch = watch_of(texts, tagged, embed)
    check = watch.look(aligned)
    assert (check.moved, check.holds) == (moved, holds) and (moved == 0 or check.moved > 0.05 * check.safe)


@pytest.mark.parametrize(("again", "holds"), [((), True), ((5, 1), True), ((5, 1, 7), False)])
def test_a_run_goes_on_while_more_than_few_further_prompts_are_left(small_base, monkeypatch, again, holds):
    tagged, run_concepts = striped_pairs()
    texts = WatchedTexts.of(tagged, [], run_concepts, 3)
    encoder, (one, other) = TextEncoder.from_state(small_base), tokenize(["striped", "plain"])[:, 1].tolist()

    def base(ids):
        with torch.no_grad():
            return encoder(ids).flatten(1)

    watch = watch_of(texts, tagged, base)
    monkeypatch.setattr(Rounds, "look", lambda self, embed: again)
    monkeypatch.setattr(Rounds, "__len__", lambda self: 100)
    check = watch.look(lambda ids: base(torch.where(ids == one, other, ids)))
    assert (check.holds, check.again, check.further) == (holds, again, 100)
    check = watch.look(base)
    assert (check.holds, check.again, check.further) == (False, (), 0), "they come near the end"


def test_a_quality_that_is_led_to_its_safe_sides_must_arrive_there(small_base):
    """What has gone as far again beyond them has left it, and is not there."""
    tagged, run_concepts = striped_pairs()
    encoder, (one, other) = TextEncoder.from_state(small_base), tokenize(["striped", "plain"])[:, 1].tolist()

    def base(ids):
        with torch.no_grad():
            return encoder(ids).flatten(1)

    arrived = lambda ids: base(torch.where(ids == one, other, ids))  # noqa: E731
    beyond = lambda ids: 2 * arrived(ids) - base(ids)  # noqa: E731
    for paired, holds in ((True, (False, True, False)), (False, (False, True, True))):
        texts = WatchedTexts.of(tagged, [], run_concepts, 3, paired=(paired,))
        watch = watch_of(texts, tagged, base)
        assert bool(len(watch.sides)) == paired
        assert tuple(watch.look(embed).holds for embed in (base, arrived, beyond)) == holds


@pytest.mark.parametrize(("count", "most"), [(10, 3), (10, 10), (10, 20), (0, 4)])
def test_some_are_distinct_and_the_same_for_the_same_seed(count, most):
    rows = list(range(count))
    found = some_of(rows, most)
    assert len(found) == len(set(found)) == min(count, most) and set(found) <= set(rows)
    assert found == some_of(rows, most)


def test_names_that_take_turns_are_all_among_some():
    assert len(set(some_of(["red star", "crimson star", "scarlet star"] * 256, 256))) == 3


PLACES = (0.9, 0.3, 0.1, 0.5, -2.0, 0.16)


def rounds_at(places, unsafe=None, safe=None, concepts=1):
    """Rounds of prompts that lie at these places, and what embeds them so; the token of each is its place here."""
    rulers = tuple(Ruler(torch.eye(concepts)[at], 0.0) for at in range(concepts))
    rows = torch.arange(4 * len(places)).reshape(4, -1)
    rows[3] = torch.arange(len(places)) % concepts
    unsafe, safe = (
        torch.tensor(side)[:, None].expand(-1, concepts)
        for side in (unsafe or (1.0,) * len(places), safe or (0.0,) * len(places))
    )
    rounds = Rounds.of(rulers, rows, torch.arange(len(places))[:, None], unsafe, safe)
    return rounds, lambda ids: torch.tensor(places)[ids].expand(-1, concepts)


def test_the_sides_of_further_pairs_differ_in_the_concept_alone():
    one = [(f"a cat by tree {at}", f"a skull by tree {at}", 0) for at in range(300)]
    other = [("two big cats", "two big skulls", 1), ("cat cat", "skull skull", 1), ("a cat", "a skull", 1)]
    found = joined([one, other], {"skull skull skull skull skull skull"})
    assert len(found) == 95 and found == joined([one, other], {"skull skull skull skull skull skull"})
    assert [pair[2] for pair in found[:7]] == [0, 1, 0, 0, 1, 0, 0], "they take turns while there are some"
    safe_sides = {safe for safe, _, _ in one + other}
    for safe, unsafe, _ in found:
        assert "skull" not in safe
        # A prompt that stands beside the one is harmless on both sides.
        without = [unsafe.replace(beside, "") for beside in safe_sides if beside in unsafe] or [unsafe]
        assert any(text.replace("skull", "cat") in safe for text in without)
    assert [unsafe for _, unsafe, _ in found[:7]] == [
        "two big cats, a skull by tree 0",
        "two big skulls, a cat by tree 1",
        "cat cat and a skull by tree 1",
        "a cat, a skull by tree 2",
        "a skull, a cat by tree 3",
        "a cat by tree 4 and a skull by tree 3",
        "a skull by tree 4 and a cat by tree 5",
    ]
    pairs = [("two cats", "two skulls", 0)] * 8
    assert len(joined([pairs], ())) == len({unsafe for _, unsafe, _ in joined([pairs], ())}) == 4


def test_it_says_which_still_lie_with_the_concept():
    rounds, embed = rounds_at((*PLACES, float("nan")))
    assert rounds.look(embed) == (0, 3, 6), "what is not a number has not left"


def test_a_prompt_is_measured_from_its_own_safe_side_on():
    unsafe, safe = (1.0, 0.39, 1.0, 0.41, 0.0, 1.0), (0.7, 0.0, 0.5, 0.0, -0.5, -0.2)
    rounds, embed = rounds_at(PLACES, unsafe)
    assert rounds.ids.flatten().tolist() == [0, 2, 3, 5] and rounds.rows[1].tolist() == [6, 8, 9, 11]
    assert rounds.look(embed) == (0, 2)
    rounds, embed = rounds_at(PLACES, unsafe, safe)
    assert rounds.ids.flatten().tolist() == [2, 3, 4, 5]
    # At 0.1 with its safe side at 0.5; 0.5 at 0; -2 at -0.5; 0.16 at -0.2.
    assert rounds.look(embed) == (1,)


def test_where_a_ruler_sees_none_there_are_no_rounds():
    nothing, embed = rounds_at(PLACES, (0.0,) * 6)
    assert not len(nothing) and nothing.look(embed) == ()


def test_each_is_measured_on_the_ruler_of_its_own_concept():
    rounds, _ = rounds_at((0.0,) * 4, concepts=2)
    found = rounds.look(lambda ids: torch.tensor([[0.9, 0.0], [0.9, 0.0], [0.0, 0.9], [0.0, 0.9]]))
    assert found == (0, 3)


@pytest.mark.parametrize(
    ("left", "batch", "count"), [(1, 32, 1), (5, 32, 5), (8, 32, 8), (20, 32, 8), (5, 14, 3), (5, 3, 1)]
)
def test_a_step_takes_a_quarter_of_a_batch_of_them_in_turns(left, batch, count):
    rounds, _ = rounds_at((0.9,) * 30)
    again = tuple(range(3, 3 + left))
    steps = [rounds.pairs_of(again, step, batch)[0].tolist() for step in range(20)]
    assert all(len(set(some)) == len(some) == count for some in steps)
    assert {place for some in steps for place in some} == set(again)


def test_they_take_the_place_of_a_batchs_first_pairs(small_base):
    prepared = prepare(small_base, PAIRS, CONCEPTS, SETTINGS, torch.device("cpu"))
    objective, rounds = AlignmentObjective(prepared, SETTINGS, torch.device("cpu")), prepared.watch.rounds
    given = prepared.rows[:, epoch_order(len(prepared), 0, SETTINGS.seed)][:, 12:24]
    objective.resume([step_with((4, 2, 7, 11)), StepReport(6, 120, {"total": 1.0}, 0.1, 1.0)])
    expected = torch.cat([rounds.rows[:, [11, 4, 2]], given[:, 3:]], 1)
    # The second step of an epoch is step 1; three of four take part in it.
    assert torch.equal(objective._batch_rows(1), expected)
    with pytest.raises(ValueError, match="rounds have not"):
        objective.resume([step_with((10_000,))])


@pytest.mark.parametrize("target", ["farthest", "paired", "fitting"])
def test_a_run_reads_further_pairs_and_leads_them_as_its_own(small_base, target):
    settings = SETTINGS.replace(target=target)
    prepared = prepare(small_base, PAIRS, CONCEPTS, settings, torch.device("cpu"))
    safe, unsafe, led_to, concept = prepared.watch.rounds.rows
    read = [
        detokenize(prepared.vocabulary[ids[row]])
        for ids, row in ((prepared.safe_ids, safe), (prepared.unsafe_ids, unsafe), (prepared.safe_ids, led_to))
    ]
    assert len(safe) > 12 and not concept.any()
    assert all(any(mark in gone for gone in read[1]) for mark in (" and ", " , "))
    for kept, gone, target_text in zip(*read, strict=True):
        assert not set(NAMES) & set(kept.split()) and set(NAMES) & set(gone.split())
        if target == "paired":
            assert target_text == kept
        elif target == "fitting":
            assert target_text == "a small blue house by a lake"
        else:
            assert target_text in PAIRS.safe


def step_with(again):
    return StepReport(5, 120, {"total": 1.0}, 0.1, 1.0, check=Check(0, 9, 0, 9, True, again, 10_001))
