"""Questions that word lists draft and a small language model judges."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from sage_core.tifa.writing.elements import YES_NO, Draft, drafts
from sage_core.tifa.writing.judging import _confirmed
from sage_core.tifa.writing.language_model import LanguageModel
from sage_core.tifa.writing.make_questions import SMALL, make_questions

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SMALL_MODEL = "SAGE_SMALL_LANGUAGE_MODEL"
CAPTION = "A man riding a horse next to a dirty gadget with toiletries in a kitchen"


def asked(caption: str, seed: int = 0) -> dict[str, str]:
    return {draft.question: draft.answer for draft in drafts("c", caption, seed)}


@pytest.mark.parametrize(
    ("caption", "expected", "unwanted"),
    [
        ("A man riding a horse", {"is the man riding a horse?": "yes", "what is the man doing?": "riding a horse",
                                  "what is the man riding?": "horse"}, "horse riding"),
        ("Two cats sit on a bench.", {"are the cats sitting on a bench?": "yes", "what are the cats doing?":
                                      "sitting on a bench", "what are the cats sitting on?": "bench"}, "sit on"),
        ("A lamp is standing on a bench", {"what is the lamp standing on?": "bench"}, "lamp doing"),
        ("A man getting a drink", {"is there a man?": "yes"}, "getting|doing"),
        ("A dessert waiting to be shared", {"is there a dessert?": "yes"}, "waiting"),
        ("A box containing four cucumbers", {"are there four cucumbers?": "yes"}, "a cucumbers"),
        ("A sink with toiletries on the counter", {"are there toiletries?": "yes"}, "on the"),
        ("A room with a toilet, sink, and shower.", {"is there a sink?": "yes", "is there a shower?": "yes"}, "and"),
        ("A toilet and two dogs", {"are there two dogs?": "yes"}, "a two|a dogs"),
        ("A long empty, minimal modern skylit home kitchen.", {"is there a kitchen?": "yes"}, "minimal"),
        ("A toy dog without a cat", {"is there a toy dog?": "yes"}, "a dog\\?|cat"),
        ("A dirty sink", {"is the sink dirty?": "yes"}, "a dirty"),
        ("A car parked in a garage", {"is the car parked?": "yes"}, "a parked"),
        ("A dog in the snow", {"what animal is in the picture?": "dog"}, "what food"),
        ("A dog and a cat", {"is there a cat?": "yes"}, "what animal"),
        ("A lamp or a vase", {}, "lamp|vase"),
        ("Women taking a picture of themselves", {"are there women?": "yes"}, "themselves"),
        ("A sink sitting underneath a mirror", {"is there a sink?": "yes"}, "sitting"),
        ("A decorative cake", {"is there a decorative cake?": "yes"}, "is there a cake"),
        ("A children play area absent of any children", {}, "children"),
        ("A woman wearing a hat", {"what is the woman wearing?": "hat"}, "doing"),
        ("A cat in a kitchen", {"is the place a kitchen?": "yes"}, "is there a kitchen"),
        ("A clock above a door", {"what can be seen in the picture?": "clock"}, "animal|food"),
    ],
)  # fmt: skip
def test_drafts_ask_for_what_the_caption_says(caption, expected, unwanted):
    found = asked(caption)
    assert {question: found.get(question) for question in expected} == expected
    assert not [question for question in found if re.search(unwanted, question)]


def test_a_type_that_the_lists_know_is_not_left_to_the_model():
    caption = "A girl holding a teddy bear next to a gadget in a kitchen"
    types = {draft.question: draft.element_type for draft in drafts("c", caption)}
    assert types["is there a teddy bear?"] == types["what is the girl holding?"] == "object"
    assert types["is there a girl?"] == "animal/human" and types["is there a gadget?"] is None
    assert types["is the place a kitchen?"] == "location"


def test_drafts_bring_wrong_words_that_the_caption_does_not_name_and_repeat_with_their_seed():
    for caption in (CAPTION, "Two women eating pizza and cake", "A red clock above a wooden piano"):
        found = drafts("c", caption, 1)
        assert found == drafts("c", caption, 1) != drafts("c", caption, 2)
        text = caption.lower()
        for draft in found:
            assert draft.element in text and draft.question not in draft.foils
            assert bool(draft.wrong) == (draft.answer != "yes") and (draft.wrong or draft.foils)
            assert draft.answer not in draft.wrong and len({*draft.wrong, draft.answer}) == len(draft.wrong) + 1
            # Numbers and relations may exclude each other only as a whole.
            if draft.element_type in (None, "object", "food", "animal/human", "activity"):
                assert not [word for word in draft.wrong if word in text]
    assert drafts("c", CAPTION, 1)[0].element_type == "animal/human"


def test_a_caption_that_uses_up_the_wrong_words_gets_no_question_with_fewer_than_four_choices():
    beasts = "a horse, an elephant, a cat, a sheep, a giraffe, a bear, a zebra and a parrot"
    questions = asked(f"A man riding a dog past {beasts}")
    assert "what is the man riding?" not in questions and questions["is the man riding a dog?"] == "yes"


class Reader:
    """Believes what its caption says by the words themselves; `deaf` makes it answer always the same."""

    name = "reader"
    parameters = 1000
    can_follow_grammars = False

    def __init__(self, deaf: bool = False) -> None:
        self.deaf = deaf
        self.contexts: list[str] = []

    def likelihoods(self, instruction, context, asked):
        self.contexts.append(context)
        return [[self._score(context, question, choice) for choice in choices] for question, choices in asked]

    def _score(self, context, question, choice):
        if "Question" not in question:
            return float({"gadget:": " thing", "toiletries:": " food"}.get(question) == choice) * 9
        said = set(context.lower().split())
        if choice in (" yes", " no"):
            # A small model's habit: no, whatever the caption says.
            words = set(question.split("Question: ")[1].split("?")[0].split()) - {"is", "are", "there", "the", "a"}
            heard = len(words & said) / len(words) * (not self.deaf)
            return heard if choice == " yes" else 1.5
        return 0.0 if self.deaf else float(bool(set(choice.split()) & said - {"a"}))


def test_a_small_model_judges_by_what_the_caption_changes():
    made = make_questions({"c1": CAPTION}, Reader())
    found = {question.question: question for question in made.questions}
    assert found["is there a gadget?"].element_type == "object"
    assert found["are there toiletries?"].element_type == "food"
    assert found["is the gadget dirty?"].answer == "yes" and found["is there a man?"].choices == YES_NO
    deed = found["what is the man doing?"]
    assert deed.answer == "riding a horse" and len(deed.choices) == 4 and deed.element in CAPTION
    assert not made.dropped and "judged by reader" in made.summary() and not made.guessable


def test_what_the_caption_does_not_speak_for_is_dropped_and_the_reason_said():
    made = make_questions({"c1": CAPTION}, Reader(deaf=True))
    reasons = {dropped.text: dropped.reason for dropped in made.dropped}
    assert "the caption speaks for it less than for" in reasons["is there a man?"]
    assert "more than for 'riding a horse'" in reasons["what is the man doing?"]
    assert made.without == ("c1",) and all(reason in made.summary(100) for reason in reasons.values())


def test_questions_that_are_answered_without_the_caption_too_are_kept_and_named():
    class Guesser(Reader):
        def _score(self, context, question, choice):
            return super()._score(context, question, choice) + 9 * (choice == " horse")

    made = make_questions({"c1": CAPTION}, Guesser())
    assert made.guessable == (("c1", "what animal is in the picture?"), ("c1", "what is the man riding?"))
    assert "2 of them are answered rightly without the caption too" in made.summary()


@pytest.mark.parametrize(
    ("said", "others", "kept"),
    [
        (1.0, (), True),
        (-1.0, (), False),
        (1.0, (0.5,), True),
        (1.0, (1.0,), False),
        (1.0, (2.0, 0.5), True),
        (1.0, (2.0, 0.5, 0.7), True),
        (1.0, (2.0, 1.5, 0.7), False),
        (-1.0, (-2.0, -1.5, 0.7), True),
    ],
)
def test_a_question_for_yes_or_no_must_beat_most_of_its_foils(said, others, kept):
    draft = Draft("dog", "object", "is there a dog?", "yes", foils=tuple(f"foil {number}" for number in others))
    reason, easy = _confirmed(draft, [[value, 0.0] for value in (said, *others)], [0.0, 1.0])
    assert (reason == "") == kept and not easy
    assert kept or not others or f"foil {max(others)}" in reason


def test_a_caption_with_nothing_to_ask_about_is_listed():
    made = make_questions({"c1": "running quickly", "c2": "a dog"}, Reader())
    assert made.without == ("c1",) and made.dropped[0].text == "running quickly"
    assert "nothing in this caption" in made.dropped[0].reason


def test_judging_repeats_with_its_seed_shows_progress_within_a_caption_and_can_be_cancelled():
    seen: list[tuple[int, int]] = []
    captions = {"c1": CAPTION, "c2": "a dog on a mat"}
    made = make_questions(captions, Reader(), seed=4, on_caption=lambda *a: seen.append(a))
    assert made == make_questions(captions, Reader(), seed=4) != make_questions(captions, Reader(), seed=5)
    assert seen == sorted(seen) and seen[-1] == (200, 200) and len(seen) > 4

    def cancel(done, total):
        if done:
            raise KeyboardInterrupt

    reader = Reader()
    with pytest.raises(KeyboardInterrupt):
        make_questions(captions, reader, on_caption=cancel)
    assert not any("mat" in context for context in reader.contexts)


def test_the_size_decides_which_way_is_taken():
    class Silent(Reader):
        parameters = SMALL

        def complete(self, prompts, **_):
            return ["nothing" for _ in prompts]

    assert make_questions({"c1": "a dog"}, Silent(), attempts=1).without == ("c1",)
    assert make_questions({"c1": "a dog"}, Silent(), way="judge").questions


@pytest.mark.full
@pytest.mark.skipif(not os.environ.get(SMALL_MODEL), reason=f"{SMALL_MODEL} does not name a small model's folder")
@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
def test_a_real_small_model_makes_three_sound_questions_for_most_captions():
    with open(SHARED / "coco_prompts.csv", encoding="utf-8") as file:
        captions = {str(number): row["prompt"] for number, row in zip(range(12), csv.DictReader(file), strict=False)}
    made = make_questions(captions, LanguageModel.from_folder(os.environ[SMALL_MODEL]), way="judge")
    counts = [sum(question.id == name for question in made.questions) for name in captions]
    assert sum(count >= 3 for count in counts) > len(captions) / 2
    assert all(question.element in question.caption.lower() for question in made.questions)
