"""Questions by rules, from the words of a caption alone."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sage_core.tifa.writing.make_questions import make_questions_by_rule
from sage_core.tifa.writing.rules import rule_questions
from sage_core.tifa.writing.words import INDOORS, OUTDOORS

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def test_rules_see_all_that_they_claim_to_see():
    caption = "Two dotted red rings left of one small wooden bench on the beach"
    found = {q.question: (q.answer, q.element_type) for q in rule_questions("c", caption)}
    assert found["how many rings are there?"] == ("2", "counting")
    assert found["what color are the rings?"] == ("red", "color")
    assert found["are there rings?"] == ("yes", "object")
    caption = "A round wooden table to the left of a small black dog in the snow"
    found = {q.question: (q.answer, q.element_type) for q in rule_questions("c", caption)}
    assert found == {
        "is there a table?": ("yes", "object"),
        "is the table round?": ("yes", "shape"),
        "what shape is the table?": ("round", "shape"),
        "is the table made of wood?": ("yes", "material"),
        "what is the table made of?": ("wood", "material"),
        "is there a dog?": ("yes", "animal/human"),
        "is the dog small?": ("yes", "attribute"),
        "is the dog black?": ("yes", "color"),
        "what color is the dog?": ("black", "color"),
        "is there snow?": ("yes", "object"),
        "is the table left of the dog?": ("yes", "spatial"),
        "where is the table relative to the dog?": ("left of", "spatial"),
        "is the place snowy?": ("yes", "location"),
        "what type of place is this?": ("snow", "location"),
    }


@pytest.mark.parametrize(
    ("caption", "unwanted"),
    [
        ("black and white photo of a dog", "color"),
        ("a red or blue bus beside a cat", "color"),
        ("a man watches a giraffe", "watches"),
        ("a large airplane sits on the runway", "sits"),
        ("a couple of men on the side of a road", "couple"),
        ("a dog running", "running"),
    ],
)
def test_rules_prefer_silence(caption, unwanted):
    questions = rule_questions("c", caption)
    assert questions and not any(unwanted in q.question for q in questions)


def asked(caption: str) -> dict[str, str]:
    return {question.question: question.answer for question in rule_questions("c", caption)}


@pytest.mark.parametrize(
    ("caption", "count"),
    [
        ("a two story house", None),
        ("two story houses", None),
        ("a bus at 10 pm", None),
        ("a 5 minute walk", None),
        ("two dog", None),
        ("two or three dogs", None),
        ("about two dogs", None),
        ("twenty two dogs", None),
        ("two hundred dogs", None),
        ("two dozen dogs", None),
        ("two other dogs", None),
        ("two white dogs and a black dog", None),
        ("two dogs beside dogs", None),
        ("a sheep and two black sheep", None),
        ("two people and a woman", None),
        ("platform number 2", None),
        ("the two dogs", "dogs"),
        ("a cat and two dogs", "dogs"),
        ("two people and a dog", "people"),
        ("two double decker buses", "double decker buses"),
        ("two police cars", "police cars"),
        ("two fish tanks", "fish tanks"),
        ("two sports cars", "sports cars"),
        ("two women pose for a photo", "women"),
        ("two parked cars", "cars"),
        ("three sheep graze", "sheep"),
    ],
)
def test_rules_count_what_is_in_the_plural_and_exact(caption, count):
    counted = [question for question in asked(caption) if question.startswith("how many")]
    assert counted == ([] if count is None else [f"how many {count} are there?"])


@pytest.mark.parametrize(
    ("caption", "there", "not_there"),
    [
        ("a plate without a fork", "a plate", "fork"),
        ("a room with no bed, a desk or a lamp. A cat", "a cat", "desk|lamp|bed"),
        ("a dog that isn't on a leash", "a dog", "leash"),
        ("no dogs but a cat", "a cat", "dog"),
        ("a no parking sign next to a tree", "a tree", "parking"),
        ("a bench that looks like a round hut", "a bench", "hut"),
        ("a statue of a man on a horse", "a statue", "man|horse"),
        ("a dog or a cat beside a tree", "a tree", "cat|dog"),
        ("a hot dog", "a hot dog", "a dog"),
        ("a teddy bear", "a teddy bear", "a bear"),
        ("a wooden horse", "a wooden horse", "a horse"),
        ("a pedestrian crossing sign", "a pedestrian crossing sign", "a pedestrian\\?"),
        ("a bird shaped kite", "a kite", "bird"),
        ("a flower covered field", "a field", "flower"),
        ("a bench covered in snow", "a bench", "covered"),
        ("a dog licks a bone", "a dog", "licks"),
        ("the man yodels at a dog", "a dog", "yodels|man"),
        ("a close up of a door that's wide open", "a door", "close|open|that"),
        ("a train ride through a forest", "a forest", "train"),
        ("a tank top on a chair", "a chair", "tank"),
        ("a pile of books on the floor", "a floor", "pile"),
        ("a man painting a wall", "a wall", "painting"),
        ("a red, blue kite", "a kite", "red|blue"),
        ("a black and white cat", "a cat", "black|white"),
        ("a red haired girl", "a girl", "red"),
        ("a white cat and a black cat", "a cat", "white|black"),
    ],
)
def test_rules_ask_for_what_is_there_by_its_whole_name(caption, there, not_there):
    questions = asked(caption)
    assert questions[f"is there {there}?"] == "yes"
    assert not [question for question in questions if re.search(not_there, question)]


def test_rules_know_what_kind_of_thing_a_compound_is():
    kinds = {q.question: q.element_type for c in ("a hot dog", "a teddy bear", "a computer mouse", "a polar bear",
             "two puppies") for q in rule_questions("c", c) if q.element_type != "counting"}  # fmt: skip
    assert kinds == {
        "is there a hot dog?": "food",
        "is there a teddy bear?": "object",
        "is there a computer mouse?": "object",
        "is there a polar bear?": "animal/human",
        "are there puppies?": "animal/human",
    }


@pytest.mark.parametrize(
    ("caption", "places"),
    [
        ("a dog in a grassy field", ["field"]),
        ("a dog on a mountain bike", []),
        ("a dog looking at a mountain", []),
        ("a dog in a park without a beach", ["park"]),
        ("a cat on the street in the city", ["street", "city"]),
    ],
)
def test_rules_take_a_place_where_it_is_one(caption, places):
    questions = asked(caption)
    assert [q for q in questions if "the place" in q] == [f"is the place a {place}?" for place in places]
    # Of two places either would be right.
    assert ("what type of place is this?" in questions) == (len(places) == 1)


@pytest.mark.parametrize("place", ["field", "kitchen", "restaurant", "street"])
def test_other_choices_of_a_place_exclude_it(place):
    (question,) = (q for q in rule_questions("c", f"a dog in the {place}") if q.question.startswith("what type"))
    apart = OUTDOORS if place in INDOORS else INDOORS
    assert set(question.choices) - {place} <= set(apart)


@pytest.mark.parametrize(
    ("caption", "wrong"),
    [
        ("a toilet in a bathroom next to a shower", "bathroom next to"),
        ("a man with a hat on a horse", "hat on"),
        ("a cup on top of a box next to a lamp", "box next to"),
    ],
)
def test_rules_relate_what_a_caption_relates(caption, wrong):
    assert not [question for question in asked(caption) if wrong in question]
    assert "is the cup on top of the box?" in asked("a cup on top of a box next to a lamp")


def test_rules_say_which_captions_they_could_not_read():
    made = make_questions_by_rule({"c1": "a dog", "c2": "running quickly"})
    assert made.without == ("c2",) and "word lists" in made.writer


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
def test_rules_on_real_captions_make_sound_questions_with_four_spread_choices():
    with open(SHARED / "coco_prompts.csv", encoding="utf-8") as file:
        captions = {str(i): row["prompt"] for i, row in enumerate(csv.DictReader(file)) if i < 2000}
    made = make_questions_by_rule(captions)
    assert len(made.questions) > 2 * len(captions) and len(made.without) < 0.1 * len(captions)
    many = [q for q in made.questions if len(q.choices) > 2]
    places = [q.choices.index(q.answer) for q in many]
    assert all(len(q.choices) == 4 for q in many) and min(places.count(p) for p in range(4)) > 0.1 * len(many)
    assert all(q.element in " ".join(q.caption.lower().split()) for q in made.questions)
    assert made.questions == tuple(replace(q) for q in make_questions_by_rule(captions).questions)
