"""Lists of concepts: read from TOML and JSON, checked, made into pairs, and handed to attacks and closed forms."""

from __future__ import annotations

import builtins
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sage_core.errors import PromptError
from sage_core.prompts.concept_files import concept_files, named_files, parse_concepts, read_concepts
from sage_core.prompts.concept_pairs import pairs_from_concepts, read_concepts_pairs
from sage_core.prompts.concepts import Concept, ConceptList, texts_to_erase
from sage_core.prompts.pairs import pairs_from_concept, pairs_from_lists

SAFE = [f"{number} cats {place}" for number in ("two", "six", "nine") for place in ("in snow", "at sea", "on a mat")]
FULL = {
    "name": "skull",
    "names": ["cranium", "death's head"],
    "unseen": ["bony head"],
    "templates": ["{prompt} and {concept}", "{concept}: {prompt}"],
    "direction": "a skull",
    "becomes": "a grey ball",
}
TOML = """
# What a person writes.
[[concepts]]
name = "skull"
names = ["cranium", "death's head"]
unseen = "bony head"
templates = ["{prompt} and {concept}", "{concept}: {prompt}"]
direction = "a skull"
becomes = "a grey ball"

[[concepts]]
name = "red star"
unsafe = ["stars/red.txt", "more.csv"]
"""
OWN_STARS = {"name": "red star", "unsafe": ["stars/red.txt", "more.csv"]}


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def stars(tmp_path):
    put(tmp_path / "stars" / "red.txt", "a red star\ntwo red stars\na red star\n\n")
    put(tmp_path / "more.csv", "prompt\na crimson star\na red star and a child\n")
    return tmp_path


def test_toml_and_json_say_the_same(stars):
    toml = read_concepts(put(stars / "what.toml", TOML))
    for content in ({"concepts": [FULL, OWN_STARS]}, [FULL, OWN_STARS]):
        assert read_concepts(put(stars / "what.json", content)) == toml
    skull, star = toml
    assert skull == Concept(**{name: tuple(v) if isinstance(v, list) else v for name, v in FULL.items()})
    assert star.unsafe == ("a red star", "two red stars", "a crimson star")
    assert toml.names == ("skull", "red star") and star.templates == Concept("x").templates
    assert concept_files(stars / "what.toml") == (
        stars / "what.toml", stars / "stars" / "red.txt", stars / "more.csv"
    )  # fmt: skip
    summary = toml.summary()
    assert "Skipped in more.csv: 1 x refers to a minor." in summary and "child" not in summary
    assert "skull, also cranium, death's head; unseen: bony head; direction of 'a skull'; becomes" in summary
    assert "Skipped in red.txt: 1 x duplicate (row 3)" in summary


BAD = {
    "no list": ({"concepts": "skull"}, "'concepts' is 'skull', expected a list"),
    "none": ({"concepts": []}, "holds no concept"),
    "other things": ({"concept": [FULL]}, "holds 'concept'; expected 'concepts' alone"),
    "a number": ([7], "concept 1 is 7, expected its fields"),
    "no name": ([FULL, {"names": ["x"]}], "concept 2 lacks 'name'"),
    "a field": ([{"name": "skull", "paraphrases": ["x"]}], r"concept 1 \('skull'\): there is no field 'paraphrases'"),
    "a number for a text": ([{"name": "skull", "becomes": 3}], "'becomes' is 3, expected a text"),
    "nothing for a text": ([{"name": "skull", "direction": " "}], "'direction' is ' ', expected a text"),
    "a list of numbers": ([{"name": "skull", "names": ["x", 3]}], r"'names' is \[\"x\", 3\], expected a text or a"),
    "an empty list": ([{"name": "skull", "unseen": []}], r"'unseen' is \[\], expected"),
    "brackets": ([{"name": "(( ))"}], "concept 1: Concept .*, name is empty"),
    "a minor": ([{"name": "skull", "names": ["x", "a child"]}], r"names\[1\] is 'a child', which refers .* minor"),
    "becoming a minor": ([{"name": "skull", "becomes": "a boy"}], "becomes is 'a boy', which refers"),
    "a name twice": ([{"name": "skull", "unseen": ["Skull"]}], "has the name 'Skull' twice"),
    "a concept twice": ([FULL, {"name": "bone", "names": ["Cranium"]}], "'Cranium' is given to two concepts, 'skull'"),
    "itself": ([{"name": "skull", "names": ["a"], "becomes": "A"}], "becomes is 'A', which is the concept itself"),
    "a template": ([{"name": "x", "templates": ["{prompt}"]}], r"templates\[0\]: The template '{prompt}' lacks"),
    "too long": ([{"name": "a b " * 50}], "has 100 tokens, of which an encoder reads 75"),
    "half a character": ('[{"name": "x", "names": ["a\\ud800"]}]', r"names\[0\] holds .*half of a character"),
    "outside": ([{"name": "x", "unsafe": ["../a.txt"]}], "'unsafe' is '../a.txt', which lies outside"),
    "absolute": ([{"name": "x", "unsafe": ["/etc/passwd"]}], "'unsafe' is '/etc/passwd', which lies outside"),
    "the folder": ([{"name": "x", "unsafe": ["."]}], "'unsafe' is '.', which lies outside"),
    "missing": ([{"name": "x", "unsafe": ["a.txt"]}], r"concept 1 \('x'\), 'unsafe': .*a.txt does not exist"),
    "minors alone": ([{"name": "x", "unsafe": ["minors.txt"]}], "every prompt of minors.txt refers"),
    "not a number": ('[{"name": NaN}]', "it holds NaN, which JSON does not know"),
    "no JSON": ("[{", "cannot be read: not valid JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_is_refused_with_its_place(tmp_path, case):
    content, message = BAD[case]
    put(tmp_path / "minors.txt", "a child\ntwo boys\n")
    path = put(tmp_path / "list.json", content)
    with pytest.raises(PromptError, match=message) as caught:
        read_concepts(path)
    assert "list.json" in str(caught.value)


def test_a_wrong_toml_is_refused_with_its_line(tmp_path):
    with pytest.raises(PromptError, match=r"list\.toml cannot be read: .*line 2"):
        read_concepts(put(tmp_path / "list.toml", "[[concepts]]\nname = skull\n"))
    with pytest.raises(PromptError, match=r"concept 1: 'name' is NaN, expected a text"):
        read_concepts(put(tmp_path / "list.toml", "[[concepts]]\nname = nan\n"))


def test_other_suffixes_and_a_python_without_toml_are_refused(tmp_path, monkeypatch):
    with pytest.raises(PromptError, match=r"has the suffix '.csv', expected .toml or .json"):
        read_concepts(tmp_path / "list.csv")
    path, original = put(tmp_path / "list.toml", TOML), builtins.__import__

    def without(name, *rest):
        if name in ("tomllib", "tomli"):
            raise ModuleNotFoundError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PromptError, match=r"TOML needs Python 3\.11 or the package tomli"):
        read_concepts(path)


def test_python_3_10_reads_toml_by_tomli(tmp_path, monkeypatch):
    parser = SimpleNamespace(loads=lambda text: {"concepts": [{"name": text.split('"')[1]}]})
    monkeypatch.setattr("sage_core.rows.sys", SimpleNamespace(version_info=(3, 10)))
    monkeypatch.setitem(sys.modules, "tomli", parser)
    assert read_concepts(put(tmp_path / "list.toml", '[[concepts]]\nname = "skull"\n')).names == ("skull",)


def test_a_typed_list_is_read_like_a_file(stars):
    toml = read_concepts(put(stars / "what.toml", TOML))
    assert parse_concepts(TOML, stars) == toml == parse_concepts("  " + json.dumps([FULL, OWN_STARS]), stars)
    assert parse_concepts('concepts = [{name = "skull"}]', stars) == ConceptList.of("skull")
    assert parse_concepts(json.dumps({"concepts": [FULL]}), stars)[0] == toml[0]
    assert named_files(TOML, stars) == concept_files(stars / "what.toml")[1:]
    for text, message in (
        ("", "The list of concepts holds no concept"),
        ("skull", "The list of concepts cannot be read: Expected '='"),
        ('[[concepts]]\nname = "x"\nunsafe = "../x.txt"', "concept 1 .'x'.*lies outside of the list's folder"),
        ("[1]", "concept 1 is 1, expected its fields"),
    ):
        with pytest.raises(PromptError, match=message):
            parse_concepts(text, stars)


def test_weights_are_taken_out_of_names_and_prompts_of_minors_out_of_a_concept():
    concept = Concept("(skull:1.2)", unsafe=("a skull", "a skull and a child"))
    assert concept.name == "skull" and concept.unsafe == ("a skull",)
    with pytest.raises(PromptError, match="all 1 prompts refer"):
        Concept("skull", unsafe=("a child",))
    with pytest.raises(PromptError, match="There is no concept"):
        ConceptList(())


def test_one_name_makes_the_pairs_that_it_always_made():
    ours, earlier = pairs_from_concepts(SAFE, ConceptList.of("skull")), pairs_from_concept(SAFE, "skull")
    assert (ours.safe, ours.unsafe, ours.report) == (earlier.safe, earlier.unsafe, earlier.report)
    assert ours.hash() == earlier.hash() and ours.concepts == ("skull",) * len(SAFE) and earlier.concepts == ()


def test_each_concept_gets_every_safe_prompt_and_all_names_and_templates_take_turns():
    templates = ("{prompt} and {concept}", "{concept}: {prompt}")
    two = ConceptList.of(Concept("skull", ("cranium",), ("bony head",), templates), Concept("star", unsafe=("a star",)))
    pairs = pairs_from_concepts([*SAFE, "a child at play", ""], two)
    assert pairs.safe == (*SAFE, *SAFE, "a child at play") and pairs.concepts == ("skull",) * 9 + ("star",) * 10
    expected = [
        templates[i // 2 % 2].replace("{concept}", ("skull", "cranium")[i % 2]).replace("{prompt}", prompt)
        for i, prompt in enumerate(SAFE)
    ]
    assert list(pairs.unsafe[:9]) == expected and set(pairs.unsafe[9:]) == {"a star"}
    assert not any("bony" in prompt for prompt in pairs.unsafe)
    assert pairs.report.kept == len(pairs) == 19
    summary = pairs.report.summary()
    assert "the 2 names of 'skull'" in summary and "Skipped in the safe list: 1 x refers to a minor (row 10)" in summary
    assert summary.count("1 x empty (row 11)") == 1


def test_a_file_may_say_which_pair_is_for_which_concept(tmp_path):
    two = ConceptList.of(Concept("skull", ("cranium",)), "star")
    rows = "safe,unsafe,concept\na cat,a skull,skull\na dog,a star,Star\na cup,a cranium,cranium\nx,a child,star\n,,\n"
    pairs = read_concepts_pairs(put(tmp_path / "pairs.csv", rows), two)
    assert pairs.safe == ("a cat", "a cup", "a dog") and pairs.concepts == ("skull", "skull", "star")
    assert "Skipped in pairs.csv: 1 x refers to a minor (row 5)" in pairs.report.summary()
    made = read_concepts_pairs(put(tmp_path / "safe.txt", "\n".join(SAFE)), two)
    assert made.hash() == pairs_from_concepts(SAFE, two).hash() and "safe.txt" in made.report.summary()
    for rows, message in (
        ("safe,unsafe\na,b\n", "a file of pairs has the columns safe, unsafe and concept"),
        ("safe,unsafe,concept\na,b,bone\n", "row 2, column concept: There is no concept 'bone'; expected one of skull"),
        ("safe,unsafe,concept\na,b,\n", "row 2, column concept: There is no concept ''"),
        ("safe,unsafe,concept\na,b,skull\n", "has no row for the concept 'star'"),
    ):
        with pytest.raises(PromptError, match=message):
            read_concepts_pairs(put(tmp_path / "pairs.csv", rows), two)


def test_a_wrong_number_of_tags_is_refused():
    pairs = pairs_from_lists(["a", "b"], ["c", "d"])
    with pytest.raises(PromptError, match="2 pairs name 1 concepts"):
        type(pairs)(pairs.safe, pairs.unsafe, pairs.report, ("skull",))


def test_attacks_and_closed_forms_get_the_names():
    skull = Concept("skull", ("cranium",), ("bony head",), becomes="a ball")
    two = ConceptList.of(skull, "red star")
    assert two.named(" Cranium ").attack_names == ("bony head",)
    assert two.named("red star").attack_names == ("red star",)
    assert texts_to_erase(two) == (("skull", "cranium", "red star"), ("a ball", "a ball", ""))
    with pytest.raises(PromptError, match="no concept 'bone'; expected one of skull, red star"):
        two.named("bone")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[concepts]]\nname = ""', "'name' is '', expected a text, such as 'nudity'."),
        ('[[concepts]]\nname = "\\u200b\\ufeff"', "name is empty; expected words"),
        ('[[concepts]]\nname = "skull"\nunsafe = "a\\u0000b.txt"', "'unsafe' holds the character NUL"),
    ],
)
def test_what_cannot_be_seen_is_no_text(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=re.escape(words)) as found:
        parse_concepts(text, tmp_path)
    assert "\0" not in str(found.value)
