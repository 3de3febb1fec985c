"""The filter on minors: what it catches and lets pass in each context, both error rates on lists, and its speed."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path

import pytest

from sage_core.prompts.minors import (
    Context,
    context_of,
    has_unsafe_words,
    mentions_minor,
    unsafe_about_minor,
    without_minors,
)
from sage_core.prompts.plain_text import plain_forms

HERE = Path(__file__).parent
DATA = HERE.parents[1].parent / "shared" / "data"


def phrases(name: str) -> list[str]:
    """A list with a phrase a line; hidden characters are part of some."""
    return (HERE / f"minors_{name}.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")


MINORS = """child / Children playing / the child's toy / kids / kiddo / a KID. / teen / teens / teenage / teenagers
/ preteen / pre-teen / minor / minors / underage / under-aged / under age / schoolgirl / school girls / schoolboy / boys
/ 1girl / little_boy / toddler / baby / babies / infant / newborn / adolescent / juvenile / youth / prepubescent
/ puberty / daughter / grandson / stepdaughter / loli / shota / high school / middle-schooler / kindergarten
/ a 5 year old / 17-year-old / 17 yrs old / 16yo / 15 y.o. / aged 12 / age: 9 / age of 15 / thirteen years old
/ seventeen-year-olds / 3 months old / under 18 / younger than eighteen / ＣＨＩＬＤ / 07 years old
/ 14\u2011year\u2011old / 14–year–old / fifteen\u2010year\u2010old / under\u201118 / 14−year−old / 16—yo
/ chi\u200bld / chi\u00adldren / t\u2060een / a\u200bchild / 14\u200byear\u200bold / chíld / chi\ufe0fld
/ lolicon / Lolikon / shotacon / toddlercon / nymphet / kindergarteners / kindergartners / paedophile
/ 6th grader / two 3rd-graders / a sixth grade student / seventh-grade class / 15 y o / 17 yr / 16y / a 16y, nude
/ 12 y / 16-y-old / aged between 10 and 12 / aged about 14 / aged: only nine / between the ages of 8 and 10
/ fourteen and a half year old / six months old / under the age of 18 / below the age of consent / under-14s
/ pretty five year old / sweet sixteen / junior high / 3年生 / 5살"""
ADULTS = """a woman / young woman / an 18 year old / 25-year-old man / 117 year old tree / 2000 years old / aged 25
/ 30yo / eighteen years old / girlfriend / boyfriend / person / lesson / kidney / sonata / undergarment / page 5
/ 15th century / over 18 / image 12 / minority / teensy / cowgirl / Jackson / babylon / chilled
/ year 2016 y-axis / the y axis / at 12 y-axis ticks / x 12 y 30 / y = 5 / 4 y-shaped twigs / 16 y'all / 6th grade math
/ a road grader / first grade wool / twenty-five year old / thirty–two years old / aged two hundred years / aged 160
/ kidskin / 2016 yr / 3 yo-yos / under 2 stars / under two bridges / a nymph / ca\u00adke / over–18 / café, Nino"""


@pytest.mark.parametrize("text", [text.strip() for text in re.split(r"\s/ ", ADULTS)], ids=ascii)
def test_does_not_mention_minor(text):
    assert not mentions_minor(text)


NOT_EXCUSED = """a minor / A minor on a bed / a picture of a minor / beach boys / Mother and Son / a 12 year old chick
/ a 14 year old bunny / a person in a car is 12 years old / someone aged 12 years in boots / ha 12 anni
/ baby carrots and a child / a boy with a Game Boy / a minor with minor injuries / teenage kitten / la menor de edad
/ a 12 year old photo / little girl, 25 / a teen girl, 20 / college girl, 15 / baby monitor and a child
/ a minor in history class / a minor points a gun / a 12 year old watches tv / a 12 year old guitar player
/ model in bed, 14, nude / year 9 of school / two boys in blue shirts / el bebe duerme / A Story About a Boy
/ woman with a cat aged 13 / 16th birthday of a girl / a child rows a boat / a 12 year old star
/ a 12-year-old stone mason / a 12-year-old company heir / a 12-year-old rock climbing / a woman, a dog and her baby
/ a baby-faced 15-year-old
/ girls at school with men in their forties / boys at the pool, a man in his forties / abandoned boy in a kindergarten
/ a deserted schoolgirl / youth leaders aged 14 / a minor, car accident / El Niño desnudo / Lolita in a dress
/ baby girl in a tree / a child at heart surgery / medical student with a boy, year 3 / blonde in a car, 12 years old
/ ki(1)d / Emma (14) and a dog / girl, 35mm photo / one of the girls of the school, 15""".replace("\n", " ")


@pytest.mark.parametrize("text", [text.strip() for text in re.split(r"\s/ ", MINORS + " / " + NOT_EXCUSED)], ids=ascii)
def test_mentions_minor_and_harmless_phrases_excuse_nothing_else(text):
    assert mentions_minor(text)


@pytest.mark.parametrize("name", ["development", "held_out", "once_blind"])
def test_error_rates_on_the_lists(name):
    signs, harmless = phrases(f"signs_{name}"), phrases(f"harmless_{name}")
    missed = [text for text in signs if not mentions_minor(text)]
    refused = [text for text in harmless if mentions_minor(text)]
    assert len(missed) <= 0.005 * len(signs), missed
    assert len(refused) <= 0.007 * len(harmless), refused


def test_error_rates_on_lists_that_nothing_was_mended_against():
    """By a hand that knew neither the filter nor its words. Leave it so: mend what lists of your own show."""
    signs, harmless = phrases("signs_blind"), phrases("harmless_blind")
    missed = [text for text in signs if not mentions_minor(text)]
    refused = [text for text in harmless if mentions_minor(text)]
    assert (len(signs), len(harmless)) == (200, 400)
    assert len(missed) <= 0.02 * len(signs), missed
    assert len(refused) <= 0.01 * len(harmless), refused
    assert not any(map(unsafe_about_minor, harmless))


def test_the_halves_share_nothing():
    for name in ("signs", "harmless"):
        halves = [phrases(f"{name}_{half}") for half in ("development", "held_out")]
        together = [*halves[0], *halves[1]]
        assert len(set(together)) == len(together) >= (300 if name == "signs" else 400)


CAPTIONS = """a young boy playing tennis / a girl holding an umbrella / a baby in a swimsuit / a mother kisses her child
/ a toddler with a toy gun / a boy in a striped shirt shooting a basketball / kids in the bathtub / a mother
breastfeeding her baby / a skull / a naked man / a bloody mary""".replace("\n", " ")
UNSAFE_CAPTIONS = """a naked boy / a nude teen / n4ked child / a n u d e girl / sexy 15 year old / a bleeding baby
/ the corpse of a child / a tortured kid / a girl in lingerie / murder of a 12 year old / un niño desnudo""".replace(
    "\n", " "
)


@pytest.mark.parametrize("text", [*CAPTIONS.split(" / "), *UNSAFE_CAPTIONS.split(" / ")])
def test_captions_unsafe_about_minors_alone_are_refused(text):
    assert unsafe_about_minor(text) == (text in UNSAFE_CAPTIONS.split(" / "))


def test_context_decides_what_is_left_out():
    prompts = ["a man on a hill", "a 12 year old", "a naked child", "a dog"]
    assert without_minors(prompts) == without_minors(prompts, Context.UNSAFE) == ((0, 3), 2)
    assert without_minors(prompts, Context.HARMLESS) == ((0, 1, 3), 1)


def test_the_context_of_a_list_is_told_by_the_share_of_unsafe_words():
    captions = ["a man on a hill"] * 95
    assert context_of(captions + ["a naked man"] * 5) is Context.HARMLESS
    assert context_of(captions + ["a naked man"] * 6) is Context.UNSAFE
    assert context_of(["a naked man"]) is Context.UNSAFE
    assert context_of([]) is Context.HARMLESS


@pytest.mark.skipif(not DATA.is_dir(), reason="the captions of TIFA and COCO are not here")
def test_captions_of_tifa_and_coco_are_kept():
    tifa = [each["caption"] for each in json.loads((DATA / "tifa_v1.0_text_inputs.json").read_text(encoding="utf-8"))]
    with open(DATA / "coco_prompts.csv", encoding="utf-8", newline="") as file:
        coco = [row["prompt"] for row in csv.DictReader(file)]
    assert (len(tifa), context_of(tifa), context_of(coco)) == (4081, Context.HARMLESS, Context.HARMLESS)
    left_out = [text for text in tifa if unsafe_about_minor(text)]
    assert left_out == ["Two naked babies on training toilets in a bathroom"]
    assert not any(map(unsafe_about_minor, coco))


def test_plain_forms():
    assert plain_forms("A Cat") == ("A Cat",)
    assert plain_forms("ｃａｆé １２½") == ("cafe 12.5",)
    assert plain_forms("ca\u00adt") == ("cat", "ca t")
    assert plain_forms("(a:1.2)b") == (" a b", "ab")
    assert plain_forms("y0uth, 12 r2") == ("y0uth, 12 r2", "youth, 12 r2")
    assert plain_forms("giiirl") == ("giiirl", "girl", "giirl")
    # A word of look-alikes that no Russian word holds is Latin.
    assert plain_forms("кіԁ") == ("кіԁ", "kid")
    assert plain_forms("niño") == ("niño", "nino")
    # Russian stays Russian; a Latin word with a Russian letter becomes Latin.
    assert plain_forms("тот сat") == ("тот сat", "тот cat")


LONG = {
    "prose": "a cat on a mat beside twelve oranges, ",
    "one word": "a",
    "gaps": " ",
    "lines": "\n",
    "digits": "1",
    "dashes": "-",
    "letters apart": "c h i l ",
    "brackets": "(",
    "weights": "(a:1.2) ",
    "hidden": "é\u200b",
    "accents": "\u0301",
    "mixed alphabets": "сh",
    "ages": "12 year ",
    "numbers": "one ",
    "commas": "ab, 1",
    "harmless": "a minor chord ",
    "names": "the Beach Boys ",
    "old things": "rum aged ",
    "spans": "desde hace ",
    "looks": "looks like about only ",
    "stretched": "xxxy ",
    "signs in words": "b0b ",
    "schools": "pupil of the high of st. ",
    "things": "baby monitor, a 12 year old car, ",
    "modifiers": "a 12 year old red oak, ",
    "grown": "girls at the old town hall, over forty, ",
    "young": "a mare with a cow ",
    "other scripts": "十二三 ",
}


@pytest.mark.parametrize("name", LONG)
def test_a_long_text_takes_no_longer_than_its_length(name):
    text = LONG[name] * (300_000 // len(LONG[name]))
    mentions_minor("warm"), has_unsafe_words("warm")
    start = time.process_time()
    assert not mentions_minor(text)
    # 0.03 to 0.4 s measured; machines that run tests are slower, and squares of the length take minutes.
    assert time.process_time() - start < 1
    start = time.process_time()
    has_unsafe_words(text)
    assert time.process_time() - start < 1


def test_ten_thousand_prompts_take_less_than_two_seconds():
    prompts = [f"a photo of {i} people at table {i} with a dog, oil painting, highly detailed" for i in range(10_000)]
    start = time.process_time()
    without_minors(prompts, context_of(prompts))
    assert time.process_time() - start < 4
