"""A maker of pairs: what every pair promises, the same for the same seed, and what it says of bad input."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tiny_senses import tiny_encoder

from sage_core.encoders.tokens import count_tokens
from sage_core.errors import PromptError, SettingsError
from sage_core.prompts import everyday_words
from sage_core.prompts.concept_files import concepts_text, parse_concepts
from sage_core.prompts.concepts import Concept, ConceptList
from sage_core.prompts.everyday_captions import everyday_captions, names_pattern
from sage_core.prompts.making import lexicon
from sage_core.prompts.making.becoming import what_it_becomes
from sage_core.prompts.making.holding import Holder
from sage_core.prompts.making.made import MadePairs
from sage_core.prompts.making.make import make_pairs
from sage_core.prompts.making.other_forms import OTHER_FORMS, other_forms
from sage_core.prompts.making.reading import read
from sage_core.prompts.making.roles import Roles, listed_group, said_place
from sage_core.prompts.making.senses import EncoderSenses
from sage_core.prompts.making.settings import Kind, MakingSettings
from sage_core.prompts.making.swaps import swaps
from sage_core.prompts.making.targets import Name, Target, kind_of
from sage_core.prompts.minors import mentions_minor

CONCEPTS = ("umbrella", "striped", "beach", "sleeping", "watercolor", "red umbrella", "riding a horse")
FEW = MakingSettings(pairs=100)


def made(concepts: str | Concept | ConceptList, captions: Sequence[str] | None = None, **settings: object) -> MadePairs:
    chosen = MakingSettings(**{"pairs": 100, **settings})  # type: ignore[arg-type]
    return make_pairs(concepts, captions, tiny_encoder(), chosen)


@pytest.fixture(scope="module")
def all_made() -> dict[str, MadePairs]:
    return {name: made(name) for name in CONCEPTS}


@pytest.mark.parametrize("name", CONCEPTS)
def test_every_pair_keeps_its_promises(name: str, all_made: dict[str, MadePairs]) -> None:
    result = all_made[name]
    names = [each for concept in result.concepts for each in concept.trained_names]
    pattern = names_pattern([*names, *(name.split()[0] for name in names if name.endswith("horse"))])
    assert pattern is not None
    pairs = list(zip(result.pairs.safe, result.pairs.unsafe, strict=True))
    assert len(set(pairs)) == len(pairs) >= 80
    for safe, unsafe in pairs:
        assert not names_pattern(names).search(safe), safe  # type: ignore[union-attr]
        assert pattern.search(unsafe) or ("red" in unsafe or "crimson" in unsafe), unsafe
        assert safe != unsafe and not mentions_minor(safe) and not mentions_minor(unsafe)
    assert max(count_tokens([*result.pairs.safe, *result.pairs.unsafe])) <= 75
    assert set(result.pairs.concepts) == {name}


@pytest.mark.parametrize("name", CONCEPTS)
def test_articles_and_numbers_agree(name: str, all_made: dict[str, MadePairs]) -> None:
    for text in (*all_made[name].pairs.safe, *all_made[name].pairs.unsafe):
        for article, word in re.findall(r"\b([Aa]n?) (\w\S*)", text):
            assert article.lower() == lexicon.article(word), text
        assert not re.search(r"\b(?:a|an|one) (?:\w+ )?(?:umbrellas|canopies)\b", text), text
        assert not re.search(r"\b(?:two|three|four|five|six) (?:\w+ )?(?:umbrella|canopy)\b", text), text


@pytest.mark.parametrize("name", CONCEPTS)
def test_prompts_of_other_forms_name_the_concept_as_no_pair_does(name: str, all_made: dict[str, MadePairs]) -> None:
    pairs, (concept,) = all_made[name].pairs, all_made[name].concepts
    found = other_forms(concept, pairs.safe, 72)
    assert found == other_forms(concept, pairs.safe, 72) != other_forms(concept, pairs.safe, 72, seed=1)
    assert {each.form for each in found} == set(OTHER_FORMS) and len({each.unsafe for each in found}) == len(found) > 60
    pattern = names_pattern(concept.trained_names)
    for each in found:
        assert pattern.search(each.unsafe) and not pattern.search(each.safe), each  # type: ignore[union-attr]
        assert not mentions_minor(each.unsafe), each
        for article, word in re.findall(r"\b([Aa]n?) (\w\S*)", each.unsafe):
            assert article.lower() == lexicon.article(word), each
    assert not {each.unsafe for each in found} & set(pairs.unsafe)
    assert max(count_tokens([text for each in found for text in (each.safe, each.unsafe)])) <= 75


def test_what_prompts_of_other_forms_say_fits_the_concept() -> None:
    said = " ".join(each.unsafe for name in ("blood", "red star") for each in other_forms(Concept(name), (), 72))
    # No number of what is not counted, no further colour of a red star, and what it becomes on the safe side.
    assert "bloods" not in said and not {"amber", "teal", "navy", "ivory"} & set(re.findall(r"(\w+) red stars?", said))
    striped = other_forms(Concept("striped", becomes="dotted"), (), 72)
    assert all(each.safe == each.unsafe.replace("striped", "dotted") for each in striped)


def test_shares_of_forms_are_as_asked(all_made: dict[str, MadePairs]) -> None:
    for name in ("umbrella", "beach", "watercolor"):
        assert sum(all_made[name].is_short) == 40
        found = all_made[name].found[0]
        assert (found.long, found.short) == (60, 40)
    assert not any(made("umbrella", short=0.0).is_short)


def test_the_same_seed_makes_the_same_pairs() -> None:
    first, again, other = made("umbrella", seed=1), made("umbrella", seed=1), made("umbrella", seed=2)
    assert first.pairs.hash() == again.pairs.hash() != other.pairs.hash()
    assert first.summary() == again.summary() and first.samples(5) == again.samples(5)


def test_long_pairs_differ_in_the_concept_alone(all_made: dict[str, MadePairs]) -> None:
    result = all_made["umbrella"]
    for safe, unsafe, short in zip(result.pairs.safe, result.pairs.unsafe, result.is_short, strict=True):
        if not short:
            assert abs(len(safe.split()) - len(unsafe.split())) <= 3, (safe, unsafe)
            assert len(set(unsafe.split()) - set(safe.split())) <= 3, (safe, unsafe)


@pytest.mark.parametrize("name", ["umbrella", "striped"])
def test_short_pairs_say_numbers_and_qualities_alike_on_both_sides(name: str, all_made: dict[str, MadePairs]) -> None:
    result = all_made[name]
    said = {*everyday_words.COLORS, *everyday_words.SIZES, "two", "three", "four", "five", "several", "some", "2", "3"}
    sides = [
        (said.intersection(safe.split()), said.intersection(unsafe.split()))
        for safe, unsafe, short in zip(result.pairs.safe, result.pairs.unsafe, result.is_short, strict=True)
        if short
    ]
    assert all(safe == unsafe for safe, unsafe in sides) and sum(bool(unsafe) for _, unsafe in sides) > 0.2 * len(sides)


def test_what_was_found_can_be_edited_and_used_again(all_made: dict[str, MadePairs]) -> None:
    found = all_made["umbrella"].concepts
    assert "canopy" not in found[0].near
    read = parse_concepts(concepts_text(found), ".")
    assert read == found
    again = make_pairs(read, None, tiny_encoder(), FEW)
    assert again.found[0].name == "umbrella"


def test_what_a_quality_becomes_is_in_its_place_in_every_pair(all_made: dict[str, MadePairs]) -> None:
    result = made(Concept("striped", ("stripes",), becomes="checkered"), mine=False)
    assert len(result.pairs) == 100 and 0 < sum(result.is_short) < 100 and result.concepts[0].becomes == "checkered"
    for safe, unsafe in zip(result.pairs.safe, result.pairs.unsafe, strict=True):
        assert "checkered" in safe, (safe, unsafe)
        if "stripes" not in unsafe:
            assert safe == unsafe.replace("striped", "checkered"), (safe, unsafe)
    # Where nobody says what, a word of its own kind is in every pair; of more than a word the training makes it.
    result = all_made["striped"]
    becomes = result.concepts[0].becomes
    assert listed_group(becomes, Kind.QUALITY) == "pattern" and f"becomes: {becomes}" in result.summary()
    assert all(becomes in safe for safe in result.pairs.safe) and not all_made["umbrella"].concepts[0].becomes
    result = made(Concept("striped", becomes="with checks"))
    assert not any("with checks" in safe for safe in result.pairs.safe)
    assert 0 < sum(becomes in safe for safe in result.pairs.safe) < 100


@pytest.mark.parametrize(
    ("word", "near", "becomes"),
    [
        ("wet", ("dirty", "clean"), "dry"),
        ("rusty", ("rusted", "dusty"), "dusty"),
        ("painted", ("rusty", "dusty"), "dusty"),
        ("plaid", ("quilted", "checkered", "paisley", "patterned", "striped"), "plain"),
        ("plain", ("patterned", "plaid", "spotted"), "plaid"),
        ("wooden", ("bamboo", "cardboard", "velvet", "steel"), "steel"),
        ("velvet", ("satin", "steel", "leather"), "leather"),
        ("furry", ("fluffy", "hairy", "sleek"), "sleek"),
        ("golden", ("yellow", "polka-dot", "crimson", "silver", "blue"), "blue"),
        ("transparent", ("glass", "plastic"), "opaque"),
        ("glowing", ("public", "dark"), "ordinary"),
        ("plain", ("patterned",), ""),
    ],
)
def test_what_a_quality_becomes_by_itself(word: str, near: tuple[str, ...], becomes: str) -> None:
    captions = read(["a house near a cat", "a scarf on a truck", "a lamp and a box in a castle"])
    senses = EncoderSenses(tiny_encoder())
    senses.knows = lambda words: [True] * len(words)  # type: ignore[method-assign]
    group = listed_group(word, Kind.QUALITY)
    assert kind_of(Concept(word), Roles(captions)) == Kind.QUALITY
    assert what_it_becomes(word, group, near, {word}, Roles(captions), senses) == becomes
    assert what_it_becomes(word, group, near, {word, becomes}, Roles(captions), senses) != (becomes or word)


def test_several_concepts_share_the_pairs_and_no_safe_side_names_any() -> None:
    result = made("umbrella, beach")
    assert sorted(map(result.pairs.concepts.count, ("umbrella", "beach"))) == [100, 100]
    pattern = names_pattern([each for concept in result.concepts for each in concept.trained_names])
    assert pattern is not None and not any(map(pattern.search, result.pairs.safe))


def test_what_must_stay_is_said_on_the_safe_side() -> None:
    result = made(Concept("umbrella", near=("beach ball",)))
    assert any("beach ball" in prompt for prompt in result.pairs.safe)
    assert "beach ball" in result.found[0].near
    with pytest.raises(PromptError, match="cannot go and stay"):
        Concept("umbrella", names=("canopy",), near=("Canopy",))


def test_captions_that_name_the_concept_are_not_harmless() -> None:
    captions = [*everyday_captions(300, seed=3), *(f"a man with an umbrella in street {at}" for at in range(20))]
    result = made("umbrella", captions)
    assert any("name a concept that is to go" in note for note in result.notes)


def test_progress_is_told_and_ends() -> None:
    told: list[tuple[float, str]] = []
    make_pairs("umbrella", None, tiny_encoder(), FEW, on_progress=lambda share, what: told.append((share, what)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1


OWN = everyday_captions(200, seed=9)


@pytest.mark.parametrize(
    ("concepts", "captions", "message"),
    [
        ("umbrela", OWN, "knows 'umbrella'"),
        ("zwxqv", OWN, "knows no word of 'zwxqv'"),
        ("teenage girl", OWN, "refers or may refer to a minor"),
        ("photo", OWN, "which every picture is"),
        ("umbrella, Umbrella", OWN, "given to two concepts"),
        ("umbrella", [f"an umbrella on wall {at}" for at in range(100)], "All 100 captions hold a concept"),
        ("umbrella", OWN[:10], "10 different captions can be used, of 10"),
        ("umbrella", ["a dog in a park"] * 10_000, "1 different captions can be used, of 10,000"),
        ("umbrella", [f"ein Hund und {at} Katzen sitzen vor dem Haus" for at in range(100)], "look like English"),
        ("umbrella " * 80, OWN, "tokens, of which an encoder reads"),
        ("", OWN, "is empty"),
    ],
)
def test_bad_input_is_told_clearly(concepts: str, captions: Sequence[str], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        make_pairs(concepts, captions, tiny_encoder(), FEW)


DRINK = Target(Concept("beer"), Kind.THING, (Name("beer", "beer"),), near=("milk",))
THING = Target(Concept("pistol"), Kind.THING, (Name("pistol", "pistol"),), near=("monitor", "light", "hat", "lamp"))
BEACH = Target(Concept("beach"), Kind.PLACE, (Name("beach", "beach"),), near=("lake", "park"))
DOTTED = Target(
    Concept("dotted"), Kind.QUALITY, (Name("dots", "dots", noun=True),), near=("striped",)
)  # fmt: skip
RUSTY = Target(Concept("rusty"), Kind.QUALITY, (Name("rusty", "rusty"),), near=("old", "covered"))
WOODEN = Target(Concept("wooden"), Kind.QUALITY, (Name("wooden", "wooden"),), near=("metal",))
KISS = Target(Concept("kissing"), Kind.ACT, (Name("kissing", "kissing"),), near=("sitting", "waiting"))
SWIM = Target(Concept("swimming"), Kind.ACT, (Name("swimming", "swimming"),), near=("standing",))
GUITAR = Target(Concept("playing guitar"), Kind.ACT, (Name("playing guitar", "playing", tail="guitar"),))
KNOWN = ["a dog in a park", "a dog in a park", "a sheep on a lawn"]


@pytest.mark.parametrize(
    ("target", "caption", "unsafe"),
    [
        (DRINK, "A table with a bottle.", "A table with a bottle of beer."),
        (DRINK, "A table with a bottle of ink.", None),
        (THING, "A desk with a monitor", "A desk with a pistol"),
        (THING, "A desk next to another monitor", None),
        (THING, "A light and other signs", None),
        (THING, "A man with a hat on trying to eat", None),
        (THING, "The lights are on above a sink", None),
        (THING, "A lamp with a shade", None),
        (BEACH, "A dog sitting in a park.", "A dog sitting on a beach."),
        (BEACH, "a dog and a dog", "a dog and a dog on a beach"),
        (BEACH, "a sink with a plunger", None),
        (BEACH, "a bird floating in a lake", None),
        (BEACH, "A dog and a sink in a park", None),
        (THING, "A man wearing glasses and a hat", None),
        (THING, "A man in a coat and a hat", None),
        (THING, "A woman cutting bread with a lamp", None),
        (THING, 'A dog from "Thomas" hats', None),
        (THING, "A desk with pens including a hat", "A desk with pens including a pistol"),
        (RUSTY, "an old lamp near a cup", "a rusty lamp near a cup"),
        (RUSTY, "an old beach near a cup", None),
        (RUSTY, "an old scarf near a cup", None),
        (RUSTY, "an old wooden lamp near a cup", None),
        (RUSTY, "an old fashioned lamp near a cup", None),
        (WOODEN, "a metal lamp near a cup", "a wooden lamp near a cup"),
        (WOODEN, "a metal scarf near a cup", None),
        (THING, "a herd of hats", None),
        (BEACH, "A dog splashing near a bird in a lake", None),
        (RUSTY, "a traditionally covered lamp near a cup", None),
        (KISS, "two men sitting on a bench", "two men kissing on a bench"),
        (KISS, "a man sitting on a bench", None),
        (KISS, "two men waiting on a bench for a bus", None),
        (DOTTED, "a striped chair near a cup", "a chair with dots near a cup"),
    ],
)
def test_what_a_caption_has_a_place_for(target: Target, caption: str, unsafe: str | None) -> None:
    found = swaps(replace(target, leads={"beach": "on a beach"}), Roles(read([*KNOWN, caption])))
    written = [swap.write(target.main, random.Random(0)) for swap in found]
    texts = {pair[1] for pair in written if pair is not None}
    assert texts - {"a dog on a beach"} == ({unsafe} if unsafe else set())


def test_fur_is_said_of_what_has_some() -> None:
    near = Target(Concept("furry"), Kind.QUALITY, (Name("furry", "furry"),), near=("shaggy",))
    found = swaps(near, Roles(read(["a shaggy dog near a cup", "a shaggy bus near a cup"])))
    assert {swap.write(near.main, random.Random(0)) for swap in found} == {
        ("a shaggy dog near a cup", "a furry dog near a cup")
    }


def test_what_is_done_in_water_alone_is_done_there_on_both_sides() -> None:
    """Nobody swims on a desk."""
    found = list(swaps(SWIM, Roles(read(["A cat standing on a desk.", "a cat next to a dog standing on a desk"]))))
    pairs = {found[0].write(SWIM.main, random.Random(seed)) for seed in range(20)}
    assert len(found) == 1 and len(pairs) == 5
    for safe, unsafe in filter(None, pairs):
        assert re.fullmatch(r"A cat standing in (?:a|the) (?:lake|sea|river|pool|water)", safe)
        assert unsafe == safe.replace("standing", "swimming")


@pytest.mark.parametrize("text", ["a man plays the guitar", "two men playing their guitars", "Played guitar"])
def test_an_act_is_held_in_any_form_and_with_any_article(text: str) -> None:
    assert Holder([GUITAR]).holds(text) and not Holder([GUITAR]).holds("a man playing cards near a guitar")


def test_what_a_thing_is_with_says_what_it_is_however_often_captions_say_with() -> None:
    things = ("shirt", "box", "chair", "vase", "wall", "desk", "clock", "drum", "tent", "kite", "coat", "lamp")
    roles = Roles(read([f"a {thing} with a handle" for thing in things]))
    assert not list(swaps(THING, roles)) and not roles.said_of_any("")


def test_places_are_said_as_captions_say_them_and_else_as_the_packages_own_do() -> None:
    assert said_place("alley", Roles(read(["a cat in a narrow alley"]))) == "in an alley"
    beach = Roles(read(["a cat on the beach"]))
    assert said_place("desert", beach, ("beach",)) == "in the desert"
    assert said_place("swimming pool", beach, ("beach",)) == "in the swimming pool"


def test_settings_are_checked() -> None:
    for wrong in ({"pairs": 0}, {"short": 1.5}, {"name_distance": 0.9}, {"kind": "colour"}):
        with pytest.raises(SettingsError):
            MakingSettings(**wrong)  # type: ignore[arg-type]
