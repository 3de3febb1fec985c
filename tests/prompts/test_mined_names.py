"""Names that an encoder takes for a concept: on published cosines of the real one, and on a tiny one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_senses import SYNONYMS, PublishedSenses, tiny_encoder

from sage_core.errors import PromptError
from sage_core.prompts.concepts import Concept
from sage_core.prompts.everyday_captions import everyday_captions
from sage_core.prompts.making.mining import mine
from sage_core.prompts.making.reading import read
from sage_core.prompts.making.roles import Roles
from sage_core.prompts.making.senses import EncoderSenses, Senses
from sage_core.prompts.making.settings import Kind, MakingSettings
from sage_core.prompts.making.targets import Target, find_kind, kind_of, take_apart

_SHARED = [folder / "shared" / "data" for folder in Path(__file__).parents]
DATA = next((folder for folder in _SHARED if folder.is_dir()), None)
# What the real encoder finds alike and nobody would call so.
TRAPS = {
    "spotted": {"found", "sighting", "sighted", "spied"}, "navy": {"naval"}, "star": {"starred"},
    "heart": {"cardiac", "hearted"}, "running": {"unning", "runnin"}, "red": {"thered", "reds"}, "night": {"goodnight"},
    "beer": {"craftbeer"}, "cat": {"catday", "caturday", "kot"}, "bicycle": {"cyclist"},
}  # fmt: skip
SYNONYMS_OF = {
    "cat": {"kitten", "kitty"}, "watercolor": {"watercolour"}, "whiskey": {"whisky"}, "bicycle": {"bike"},
    "naked": {"nude"}, "night": {"nighttime"}, "sleeping": {"asleep"}, "golden": {"gold"}, "forest": {"woodland"},
    "striped": {"stripes"},
}  # fmt: skip


@pytest.fixture(scope="module")
def roles() -> Roles:
    return Roles(read(everyday_captions(1500, seed=0)))


def found(senses: Senses, roles: Roles, name: str, kind: Kind | None = None) -> Target:
    concept = Concept(name)
    kind = kind or kind_of(concept, roles) or find_kind(senses, name.split()[-1], roles)
    return mine(senses, roles, take_apart(concept, kind, roles), MakingSettings(), frozenset())


def test_names_on_the_real_encoders_cosines(roles: Roles) -> None:
    """Of all names that are mined nine in ten are right, and no trap is among them."""
    if DATA is None:
        pytest.skip("shared/data is not here")
    neighbours = json.loads((DATA / "sd14_word_neighbours.json").read_text(encoding="utf-8"))["neighbours"]
    senses = PublishedSenses(neighbours)
    mined: dict[str, set[str]] = {}
    for word in set(neighbours) - {"photograph"}:
        mined[word] = {name.text for name in found(senses, roles, word).names[1:]}
        assert mined[word] <= _forms(neighbours[word])
    wrong = {word: names & TRAPS.get(word, set()) for word, names in mined.items()}
    total = sum(map(len, mined.values()))
    assert sum(map(len, wrong.values())) <= 0.1 * total, wrong
    assert total >= 15
    assert "cyclist" not in mined["bicycle"]
    for word, names in SYNONYMS_OF.items():
        assert mined[word] & names, (word, mined[word])


def test_the_published_list_of_pairs_knows_inflections_as_one_word() -> None:
    """Plurals of a thing are no further names: they are written where the number asks for them."""
    if DATA is None:
        pytest.skip("shared/data is not here")
    pairs = json.loads((DATA / "sd14_token_cosines.json").read_text(encoding="utf-8"))["pairs"]
    neighbours: dict[str, dict[str, float]] = {}
    for one, other, cosine in pairs:
        neighbours.setdefault(one, {})[other] = cosine
    roles = Roles(read(everyday_captions(300, seed=0)))
    for word in ("herb", "airport"):
        if word in neighbours:
            assert not found(PublishedSenses(neighbours), roles, word, Kind.THING).names[1:]


def _forms(words: dict[str, float]) -> set[str]:
    """The words with their forms as names are written: singulars, plurals and gerunds."""
    from sage_core.prompts.making import lexicon

    forms = {lexicon.verb_form(lexicon.verb_base(word), "VBG") for word in words if lexicon.verb_base(word)}
    return (
        forms | {lexicon.singular(word) for word in words} | {lexicon.plural(lexicon.singular(word)) for word in words}
    )


@pytest.mark.parametrize("words", SYNONYMS, ids=lambda words: words[0])
def test_a_tiny_encoders_synonyms_are_found_and_others_are_not(words: tuple[str, ...], roles: Roles) -> None:
    senses = EncoderSenses(tiny_encoder())
    target = found(senses, roles, words[0])
    texts = {name.text for name in target.names[1:]}
    single = {word for word in words[1:] if senses.nearby(words[0], 150).count(word)}
    assert single <= texts or not single
    assert texts <= set(words[1:]) | {"red"}
    assert not set(target.near) & set(words)


def test_the_parts_of_a_phrase_are_mined_apart(roles: Roles) -> None:
    target = found(EncoderSenses(tiny_encoder()), roles, "crimson umbrella")
    assert target.main.modifier == "crimson" and target.main.head == "umbrella"
    assert {"red umbrella", "crimson canopy", "red canopy"} >= {name.text for name in target.names[1:]}
    assert "red umbrella" in {name.text for name in target.names}
    assert "blue" in target.near_modifiers and "canopy" not in target.near


def test_a_basic_color_is_a_near_miss_however_near(roles: Roles) -> None:
    for cosine in (0.825, 0.97):
        target = found(PublishedSenses({"purple": {"violet": 0.97, "blue": cosine}}), roles, "purple")
        assert {name.text for name in target.names} == {"purple", "violet"} and target.near[0] == "blue"
    gray = found(PublishedSenses({"grey": {"gray": 0.97}}), roles, "grey")
    assert "gray" not in gray.near and "gray" in {name.text for name in gray.names}


def test_a_mined_name_that_refers_to_minors_is_refused(roles: Roles) -> None:
    senses = PublishedSenses({"lady": {"girl": 0.97}})
    with pytest.raises(PromptError, match="refers or may refer to minors"):
        found(senses, roles, "lady")


def test_a_size_has_no_name_that_may_refer_to_minors(roles: Roles) -> None:
    target = found(PublishedSenses({"tiny": {"teeny": 0.97, "miniature": 0.96}}), roles, "tiny")
    assert "teeny" not in {name.text for name in target.names} and "tiny" in {name.text for name in target.names}
    target = found(PublishedSenses({"tiny": {"teeny": 0.97, "miniature": 0.96}}), roles, "tiny house")
    assert {"tiny house", "miniature house"} <= {name.text for name in target.names}
    with pytest.raises(PromptError, match="refers or may refer to minors"):
        found(PublishedSenses({"lady": {"girl": 0.97}}), roles, "tiny lady")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("umbrella", "thing"), ("red", "quality"), ("striped", "quality"), ("shiny", "quality"), ("beach", "place"),
     ("kitchen", "place"), ("at night", "place"), ("sleeping", "act"), ("riding a horse", "act"), ("dancing", "act"),
     ("watercolor", "style"), ("anime", "style"), ("red star", "thing"), ("woman with a gun", "thing"),
     ("swimming pool", "place"), ("living room", "place"), ("rocking chair", "thing"), ("playing guitar", "act"),
     ("eating pizza", "act"), ("sepia", "style")],
)  # fmt: skip
def test_kinds_of_concepts(name: str, kind: str, roles: Roles) -> None:
    assert kind_of(Concept(name), roles) == kind


def test_a_compound_is_one_thing_and_what_may_take_its_place_is_like_the_whole(roles: Roles) -> None:
    """No "cozy bear" for a teddy bear, and no "rocking table" for a rocking chair."""
    for name in ("teddy bear", "rocking chair"):
        target = take_apart(Concept(name), Kind.THING, roles)
        assert target.main.head == name and not target.main.modifier
    assert take_apart(Concept("wooden chair"), Kind.THING, roles).main.modifier == "wooden"


@pytest.mark.parametrize(("beyond", "name"), [(0.65, True), (0.78, False)])
def test_a_word_before_a_wide_gap_is_a_name(beyond: float, name: bool, roles: Roles) -> None:
    """A word of more tokens lies further off: a name, where nothing else lies between it and all others."""
    senses = PublishedSenses({"striped": {"plaid": 0.82, "checkered": beyond}})
    assert ("plaid" in {each.text for each in found(senses, roles, "striped").names}) == name


def test_a_quality_may_be_said_with_a_noun_that_captions_say_of_many_things() -> None:
    things = ("shirt", "box", "chair", "vase", "wall", "lamp", "hat", "kite", "coat", "desk", "clock", "drum", "tent")
    captions = [f"a {colour} {thing} with spots" for thing in things for colour in ("red", "blue")]
    captions += [f"a {quality} {thing}" for thing in things for quality in ("striped", "plain", "plaid", "floral")]
    target = found(PublishedSenses({"dotted": {"spots": 0.97, "dots": 0.97}}), Roles(read(captions)), "dotted")
    assert {each.text for each in target.names if each.noun} == {"spots", "dots"} and "spots" not in target.near
