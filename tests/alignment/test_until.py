"""Trainings that end when the concept is removed: when they end, that they are the same runs, and exact resume."""

from __future__ import annotations

import pytest
import torch

from sage_core.alignment.concepts import RunConcepts
from sage_core.alignment.report import run_summary
from sage_core.alignment.schedule import MOST_STEPS, total_steps
from sage_core.alignment.settings import PRESETS, TrainingSettings
from sage_core.alignment.training import train, train_stored
from sage_core.alignment.watch import Watch, WatchedTexts, short_forms, some_of
from sage_core.encoders.layouts import TOKEN_TABLE
from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.prompts.concepts import Concept, ConceptList
from sage_core.prompts.pairs import pairs_from_lists

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


def test_it_is_the_run_of_as_many_steps(small_base, ended):
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


@pytest.mark.parametrize("at", [3, 8])
def test_stopped_and_resumed_it_is_the_same(small_base, ended, tmp_path, at):
    def stop(report):
        if report.step == at:
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

    watch = Watch.of(texts, [tokenize(part) for part in texts.parts], embed, 12)
    check = watch.look(aligned)
    assert (check.moved, check.holds) == (moved, holds) and (moved == 0 or check.moved > 0.05 * check.safe)


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
        watch = Watch.of(texts, [tokenize(part) for part in texts.parts], base, 12)
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
