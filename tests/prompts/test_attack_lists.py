"""Each list in the layout in which its authors publish it, with harmless texts in the prompts' place."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sage_core.errors import PromptError
from sage_core.prompts.attack_lists import FORMATS, NAMES, AttackPrompt, read_attack_list
from sage_core.prompts.minors import Context

CAT, DOG = "a cat, on a mat", 'a "dog" in fog'
# Of the filter's strict question alone, and of both.
HARMLESS_MINOR, UNSAFE_MINOR = "a boy with a kite", "a gory boy with an axe"


def table(path: Path, header: str, *rows: list[object], delimiter: str = ",") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def test_mma_diffusion_gives_the_adversarial_prompt(tmp_path: Path) -> None:
    header = "target_prompt,adv_prompt,sanitized_adv_prompt,success_against_sanitization_defense,clean_prompt"
    path = table(tmp_path / "mma.csv", header, ["wanted", CAT, "cat", "True", "clean"], ["wanted", DOG, "", "", ""])
    found = read_attack_list(path)
    assert found.format == "MMA-Diffusion" and [each.text for each in found.prompts] == [CAT, DOG]
    assert found.prompts[0] == AttackPrompt(2, CAT) and found.minors == 0
    # The attack's words hide what its target says; the clean prompt is another picture's.
    rows = [HARMLESS_MINOR, CAT, "", "", ""], ["wanted", DOG, HARMLESS_MINOR, "", ""], ["wanted", CAT, "", "", "a boy"]
    found = read_attack_list(table(tmp_path / "mma.csv", header, *rows))
    assert found.minors == 2 and found.prompts == (AttackPrompt(4, CAT),)


I2P = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,"
    "prompt_toxicity,lexica_url,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height,sd_model"
)


def i2p_row(prompt: str, seed: object = 3984864651, guidance: object = 7, categories: str = "hate, shocking") -> list:
    return [prompt, categories, 0, 0.0, 0.0, 0.0, 0.0, 0.1, "url", seed, guidance, 512, 512, "SD 1.5"]


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**64 - 1, "12.0", " 7 "])
def test_seeds_keep_all_of_their_digits(seed: object, tmp_path: Path) -> None:
    path = table(tmp_path / "i2p.csv", I2P, i2p_row(CAT, seed))
    (prompt,) = read_attack_list(path).prompts
    assert prompt.seed == int(float(seed) if seed == "12.0" else seed)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "9" * 5000, "nan"])
def test_what_is_no_seed_is_refused(seed: object, tmp_path: Path) -> None:
    path = table(tmp_path / "i2p.csv", I2P, i2p_row(CAT, seed))
    with pytest.raises(PromptError, match=r"sd_seed.*expected a whole number"):
        read_attack_list(path)


def test_i2p_keeps_the_seed_and_guidance_of_each_row(tmp_path: Path) -> None:
    rows = [i2p_row(CAT), i2p_row(HARMLESS_MINOR), i2p_row(DOG, 7, 7.5, "sexual"), i2p_row("x", "12.0", "")]
    found = read_attack_list(table(tmp_path / "i2p_benchmark.csv", I2P, *rows))
    assert found.format == "I2P" and found.minors == 1
    assert found.prompts == (
        AttackPrompt(2, CAT, 3984864651, 7.0, "hate, shocking"),
        AttackPrompt(4, DOG, 7, 7.5, "sexual"),
        AttackPrompt(5, "x", 12, None, "hate, shocking"),
    )
    for words in (
        "3 prompts of i2p_benchmark.csv, taken for I2P (3 with a seed, 2 with a guidance scale, 3 with a category)",
        "hate, shocking: 2", "1 left out because they refer to minors",
    ):  # fmt: skip
        assert words in found.summary()
    assert HARMLESS_MINOR not in found.summary()


@pytest.mark.parametrize(
    ("file", "header", "row", "name", "expected"),
    [
        ("nudity.csv", "case_number,prompt,evaluation_seed,evaluation_guidance", [0, CAT, 5, 7.5], "UnlearnDiffAtk",
         AttackPrompt(2, CAT, 5, 7.5)),
        ("nudity.csv", "case_number,prompt,categories,evaluation_seed,sd_guidance_scale", [0, CAT, "sexual", 5, 7],
         "UnlearnDiffAtk", AttackPrompt(2, CAT, 5, 7.0, "sexual")),
        ("p4dn_16_prompt.csv", "id,prompt,evaluation_seed,evaluation_guidance", [0, CAT, 5, 7.5], "P4D",
         AttackPrompt(2, CAT, 5, 7.5)),
        ("nudity-ring-a-bell.csv", ",sensitive prompt", [0, CAT], "Ring-A-Bell", AttackPrompt(2, CAT)),
        ("Violence_eta_5_K_77.csv", ",prompt", [0, CAT], "Ring-A-Bell", AttackPrompt(2, CAT)),
        ("found.csv", "target_prompt,adv_prompt,reward", ["wanted", CAT, 0.3], "SneakyPrompt", AttackPrompt(2, CAT)),
        ("coco_30k.csv", "case_number,coco_id,prompt,evaluation_seed", [0, 9, CAT, 5], "COCO captions",
         AttackPrompt(2, CAT, 5)),
        ("coco_prompts.csv", "prompt", [CAT], "COCO captions", AttackPrompt(2, CAT)),
    ],
)  # fmt: skip
def test_tables(tmp_path: Path, file: str, header: str, row: list, name: str, expected: AttackPrompt) -> None:
    found = read_attack_list(table(tmp_path / file, header, row))
    assert (found.format, found.prompts) == (name, (expected,))


def test_partiprompts_is_sorted_by_category_and_challenge(tmp_path: Path) -> None:
    rows = [CAT, "Animals", "Basic", ""], ["bond", "Abstract", "Basic", "Note"]
    found = read_attack_list(
        table(tmp_path / "PartiPrompts.tsv", "Prompt,Category,Challenge,Note", *rows, delimiter="\t")
    )
    assert found.format == "PartiPrompts"
    assert found.prompts == (AttackPrompt(2, CAT, category="Animals, Basic"),
                             AttackPrompt(3, "bond", category="Abstract, Basic"))  # fmt: skip


def test_cocos_own_annotations_are_read(tmp_path: Path) -> None:
    path = tmp_path / "captions_val2014.json"
    texts = (CAT, HARMLESS_MINOR, UNSAFE_MINOR)
    annotations = [{"image_id": 9, "id": number, "caption": text + "\n"} for number, text in enumerate(texts)]
    path.write_text(json.dumps({"info": {}, "images": [{"id": 9}], "licenses": [], "annotations": annotations}))
    found = read_attack_list(path)
    # A child with a kite may be drawn; the other may not.
    assert (found.format, found.minors) == ("COCO captions", 1)
    assert found.prompts == (AttackPrompt(1, CAT), AttackPrompt(2, HARMLESS_MINOR))


def test_texts_json_and_lines_of_json_are_read(tmp_path: Path) -> None:
    (tmp_path / "nsfw_200.txt").write_text(f"{CAT}\n\n  {DOG} \n{HARMLESS_MINOR}\n")
    found = read_attack_list(tmp_path / "nsfw_200.txt")
    assert (found.format, found.minors) == ("SneakyPrompt", 1)
    assert found.prompts == (AttackPrompt(1, CAT), AttackPrompt(3, DOG))
    rows = [{"Prompt": CAT, "evaluation_seed": 5}, {"prompt": DOG, "evaluation_seed": None}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "list.json").write_text(json.dumps({"prompt": [CAT, DOG], "evaluation_seed": [5, None], "more": [1]}))
    for name in ("list.jsonl", "list.json"):
        found = read_attack_list(tmp_path / name)
        assert found.format == "UnlearnDiffAtk"
        assert found.prompts == (AttackPrompt(1, CAT, 5), AttackPrompt(2, DOG))


def test_a_column_of_ones_own_can_be_named(tmp_path: Path) -> None:
    rows = ["x", CAT, 5], ["y", DOG, ""], ["z", UNSAFE_MINOR, 1], [UNSAFE_MINOR, DOG, 1]
    path = table(tmp_path / "mine.csv", "Target,Result of search,seed", *rows)
    with pytest.raises(PromptError, match=r"its columns are 'target', 'result of search', 'seed'.*column = 'target'"):
        read_attack_list(path)
    found = read_attack_list(path, column=" Result of Search")
    assert (found.format, found.column, found.minors) == ("a list of prompts", "result of search", 2)
    assert found.prompts == (AttackPrompt(2, CAT, 5), AttackPrompt(3, DOG, None, place=1))
    with pytest.raises(PromptError, match=r"no column 'adv'; its columns are 'target', 'result of search'"):
        read_attack_list(path, column="adv")
    (tmp_path / "mine.json").write_text(json.dumps({"found": [CAT, DOG], "more": [1]}))
    assert [each.text for each in read_attack_list(tmp_path / "mine.json", column="found").prompts] == [CAT, DOG]


def test_a_named_list_is_taken_for_what_it_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", "prompt,evaluation_seed", [CAT, 5])
    assert read_attack_list(path).format == "UnlearnDiffAtk"
    assert read_attack_list(path, "P4D").format == "P4D"
    assert read_attack_list(path, "P4D").prompts[0].seed == 5
    with pytest.raises(PromptError, match=r"fits no known list.*Expected one of: I2P: prompt, categories"):
        read_attack_list(path, "I2P")
    with pytest.raises(PromptError, match="The list is 'I3P'; expected one of MMA-Diffusion, SneakyPrompt, I2P"):
        read_attack_list(path, "I3P")
    plain = table(tmp_path / "plain.csv", "prompt", [CAT])
    with pytest.raises(PromptError, match=r"plain.csv fits no known list; its columns are 'prompt'"):
        read_attack_list(plain)
    assert {read_attack_list(plain, name).format for name in ("Ring-A-Bell", "P4D", "SneakyPrompt")} == {
        "Ring-A-Bell", "P4D", "SneakyPrompt",
    }  # fmt: skip
    strange = table(tmp_path / "strange.csv", "text,label", [CAT, 1])
    with pytest.raises(PromptError, match="its columns are 'text', 'label'"):
        read_attack_list(strange)


def test_all_eight_lists_are_known_and_those_of_attacks_ask_the_strict_question() -> None:
    assert set(NAMES) == {
        "MMA-Diffusion", "SneakyPrompt", "I2P", "Ring-A-Bell", "P4D", "UnlearnDiffAtk", "COCO captions", "PartiPrompts",
    }  # fmt: skip
    harmless = {each.name for each in FORMATS if each.context is Context.HARMLESS}
    assert harmless == {"COCO captions", "PartiPrompts"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (i2p_row(""), "row 3: 'prompt' is empty, expected a prompt"),
        (i2p_row("half \0"), "row 3: 'prompt' holds the character NUL"),
        (i2p_row(DOG, "many"), "row 3: 'sd_seed' is 'many', expected a whole number from 0"),
        (i2p_row(DOG, 1, "nan"), "row 3: 'sd_guidance_scale' is 'nan', expected a number from 0 to 1000"),
        (i2p_row(DOG, 1, -7), "row 3: 'sd_guidance_scale' is '-7'"),
        ([*i2p_row(DOG), "too", "many"], "line 3: found 16 fields, expected 14"),
    ],
)
def test_a_malformed_row_is_named_with_its_field(tmp_path: Path, row: list, words: str) -> None:
    path = table(tmp_path / "i2p.csv", I2P, i2p_row(CAT), row)
    if "half" in str(row[0]):
        rows = [dict(zip(I2P.split(","), each, strict=True)) for each in (i2p_row(CAT), row)]
        path = tmp_path / "i2p.json"
        path.write_text(json.dumps(rows))
        words = words.replace("row 3", "row 2")
    with pytest.raises(PromptError, match=words) as refused:
        read_attack_list(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([CAT, 5], "row 2: found 5, expected a text or an object"),
        ([{"prompt": ["a"], "evaluation_seed": 1}], "row 1: 'prompt' is .* expected a text"),
        ([{"prompt": CAT, "evaluation_seed": True}], "row 1: 'evaluation_seed' is true, expected a whole number"),
        ({"prompt": [CAT], "evaluation_seed": [1, 2]}, "its lists have different lengths"),
        ([{"prompt": CAT, "evaluation_seed": 1, "category": 3}], "row 1: 'category' is 3, expected a text"),
        ({"annotations": [{"image_id": 1, "caption": None}]}, "row 1: 'caption' is empty"),
    ],
)
def test_malformed_json_is_named_too(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "p4d.json"
    path.write_text(json.dumps(content))
    with pytest.raises(PromptError, match=words):
        read_attack_list(path)


def test_a_list_of_minors_alone_leaves_nothing_and_shows_nothing(tmp_path: Path) -> None:
    path = table(tmp_path / "i2p.csv", I2P, i2p_row(HARMLESS_MINOR, "no seed"))
    with pytest.raises(PromptError, match=r"holds no prompt that can be used\. 1 were left out") as refused:
        read_attack_list(path)
    assert HARMLESS_MINOR not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", ""), ("b.txt", " \n\n"), ("c.csv", ""), ("d.json", "[]"), ("e.jsonl", "\n")]
)
def test_an_empty_file_is_called_empty(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    for column in (None, "prompt"):
        with pytest.raises(PromptError, match=rf"{name} is empty; expected a list of prompts"):
            read_attack_list(tmp_path / name, plain=True, column=column)
