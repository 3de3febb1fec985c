"""Several concepts in one run: the loss and the run against references said anew, names of runs, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from naive_alignment import naive_run

from sage_core.alignment.concepts import RunConcepts
from sage_core.alignment.preparation import prepare
from sage_core.alignment.report import run_summary
from sage_core.alignment.settings import PRESETS, TrainingSettings
from sage_core.alignment.training import run_key, train, train_stored
from sage_core.errors import TrainingError
from sage_core.prompts.concept_pairs import pairs_from_concepts
from sage_core.prompts.concepts import Concept, ConceptList
from sage_core.prompts.pairs import pairs_from_lists

SUBJECTS = ["dog", "cat", "boat", "tree", "lamp", "house"]
PLACES = ["on the beach", "in the snow", "at night", "in a city"]
SAFE = [f"a {subject} {place}" for subject in SUBJECTS for place in PLACES]
TWO = ConceptList.of(Concept("skull", ("cranium",)), "red star")
OWN = ConceptList.of(Concept("skull", ("cranium",), becomes="a grey ball"), "red star")
FIT = ConceptList.of(Concept("striped", becomes="plain"), "red star", Concept("dog", becomes="a grey ball"), "skull")
SETTINGS = TrainingSettings(
    neighbours=3, batch_size=12, learning_rate=1e-3, concept_scale=0.85, scale_unit="concept", keep_mse=5.0,
    perturbation=0.5, perturbation_unit="concept", steps=5, held_out=0, precision="fp32",
)  # fmt: skip


@pytest.mark.parametrize(
    ("concepts", "units", "changed"),
    [
        (ConceptList.of("skull"), "norm", {}), (TWO, "concept", {}), (OWN, "concept", {}),
        (FIT, "concept", {"target": "fitting"}),
    ],
    ids=["one", "two", "a target of its own", "a quality beside others"],
)  # fmt: skip
def test_a_run_equals_the_naive_loop(small_base, concepts, units, changed):
    # Without the spread term: the untouched encoder is on the kink of max(0, ·), and rounding decides its side.
    settings = SETTINGS.replace(spread_weight=0.0, steps=3, scale_unit=units, perturbation_unit=units, **changed)
    pairs = pairs_from_concepts(SAFE, concepts)
    totals, state = naive_run(small_base, pairs, concepts, settings)
    result = train(small_base, pairs, concepts, settings)
    assert [report.losses["total"] for report in result.history] == pytest.approx(totals, rel=2e-4)
    for name, expected in state.items():
        if name.endswith("k_proj.bias"):
            continue  # Adds the same to all of a query's scores: no gradient but rounding, which Adam makes large.
        assert (result.state[name] - expected).norm() <= 0.02 * (expected - small_base[name]).norm() + 1e-6, name


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("skull", "a small blue house by a lake"), ("lakes", "a green tree on a hill"),
        ("red star", "a small blue house by a lake"), ("(lake)", "a green tree on a hill"),
        ("boat on a lake", "a green tree on a hill"), ("a house, a tree and a cup", "a red apple"),
    ],
)  # fmt: skip
def test_what_is_led_nowhere_is_led_to_a_picture_without_it(name, target):
    pairs = pairs_from_concepts(SAFE, ConceptList.of(name))
    for concept in (name, ConceptList.of(name)):
        given = RunConcepts.of(concept, pairs)
        assert given.fitted("fitting").targets == (target,) and given.fitted("farthest").targets == (None,)
    assert RunConcepts.of(OWN, pairs_from_concepts(SAFE, OWN)).fitted("fitting").targets[0] == "a grey ball"


@pytest.mark.parametrize("until", ["steps", "removed"])
@pytest.mark.parametrize("target", ["farthest", "paired", "nearest", "fitting"])
def test_progress_of_the_preparation_ends_with_its_last_prompt(small_base, target, until):
    told = []
    settings = SETTINGS.replace(target=target, until=until)
    prepare(
        small_base,
        pairs_from_concepts(SAFE, FIT),
        FIT,
        settings,
        torch.device("cpu"),
        on_batch=lambda *at: told.append(at),
    )
    assert [done == total for done, total in told] == [False] * (len(told) - 1) + [True]


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_list_of_one_concept_gives_the_weights_of_its_name(small_base):
    pairs = pairs_from_concepts(SAFE, ConceptList.of("skull"))
    settings = SETTINGS.replace(steps=3)
    listed, named = (
        train(small_base, pairs, ConceptList.of("skull"), settings),
        train(small_base, pairs, "skull", settings),
    )
    assert same(listed.state, named.state)
    other = train(small_base, pairs, ConceptList.of(Concept("skull", becomes="a grey ball")), settings)
    assert not same(other.state, named.state)


def test_chunks_and_stops_change_no_run_of_two_concepts(small_base, tmp_path):
    pairs, settings = pairs_from_concepts(SAFE, OWN), SETTINGS.replace(steps=4)
    straight = train(small_base, pairs, OWN, settings)
    chunked = train(small_base, pairs, OWN, settings.replace(chunk_size=7))
    for a, b in zip(straight.history, chunked.history, strict=True):
        assert b.losses == pytest.approx(a.losses, rel=1e-3, abs=1e-6)

    def stop(report):
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stored(small_base, pairs, OWN, settings, tmp_path, on_step=stop)
    resumed, found = train_stored(small_base, pairs, OWN, settings, tmp_path)
    assert not found and same(resumed.state, straight.state)
    again, found = train_stored(small_base, pairs, OWN, settings, tmp_path)
    assert found and same(again.state, straight.state)
    assert again.metadata["concept"] == "skull, red star" and "a grey ball" in again.metadata["concepts"]
    assert 'concepts "skull, red star"' in run_summary(again, "x", found=True, pairs=len(pairs))


def test_held_out_prompts_are_in_no_pair_of_either_concept(small_base):
    safe = [f"{number} {subject}s {place}" for number in range(2, 20) for subject in SUBJECTS for place in PLACES]
    result = train(small_base, pairs_from_concepts(safe, TWO), TWO, SETTINGS.replace(steps=1, held_out=40))
    geometry = result.history[-1].geometry
    assert geometry.held_out and geometry.prompts == 40


PAIRS = pairs_from_lists(
    ["two red cats on a mat", "a blue cup left of a plate", "a green door"],
    ["a skull", "two skulls", "a skull in the snow"],
)
KEY = "74186c2f4d2d0f3c7d639caac2372305"


def test_a_list_of_one_concept_has_the_key_of_its_name():
    settings = PRESETS["sage_plus"].replace(held_out=128, precision="fp32")
    # Pinned in test_store, too: the name of the run of release 0.1.
    for concept in ("skull", ConceptList.of("skull"), ConceptList.of(Concept("skull", ("cranium",), ("bony head",)))):
        for pairs in (PAIRS, replace(PAIRS, concepts=("skull",) * 3)):
            assert run_key("ab" * 32, pairs, concept, settings) == KEY
    assert run_key("ab" * 32, PAIRS, ConceptList.of(Concept("bones", direction="skull")), settings) == KEY


def test_whatever_changes_the_result_of_several_concepts_changes_the_key():
    settings = PRESETS["released"].replace(precision="fp32")
    tagged = replace(PAIRS, concepts=("skull", "red star", "skull"))
    keys = [
        run_key("a", tagged, TWO, settings),
        run_key("a", tagged, OWN, settings),
        run_key("a", tagged, ConceptList.of("red star", "skull"), settings),
        run_key("a", tagged, ConceptList.of("skull", Concept("red star", direction="a star")), settings),
        run_key("a", replace(tagged, concepts=("red star", "red star", "skull")), TWO, settings),
        run_key("a", PAIRS, ConceptList.of(Concept("skull", becomes="a ball")), settings),
        run_key("a", PAIRS, "skull", settings),
        run_key("a", PAIRS, "skull, red star", settings),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("tags", "concept", "message"),
    [
        ((), TWO, "the pairs do not say which of them they are for"),
        (("skull", "night", "skull"), TWO, "Pair 2 is for the concept 'night'.*expected one of skull, red star"),
        (("skull",) * 3, TWO, "No pair is for the concept 'red star'"),
        (("skull", "red star", "skull"), "skull", r"for 2 concepts \(skull, red star\).*told of one, 'skull'"),
        (("skull", "red star", "skull"), ConceptList.of("skull"), "told of one, 'skull'"),
        ((), " ( ) ", "The concept is empty"),
    ],
)
def test_pairs_that_are_for_other_concepts_are_refused(tags, concept, message):
    with pytest.raises(TrainingError, match=message):
        RunConcepts.of(concept, replace(PAIRS, concepts=tags))
