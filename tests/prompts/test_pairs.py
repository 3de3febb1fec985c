"""Prompt files of every kind and encoding, what is skipped and said of it, and pairs built from a concept."""

from __future__ import annotations

import csv
import json
import time

import pytest

from sage_core.encoders.tokens import count_tokens
from sage_core.errors import PromptError
from sage_core.prompts.pairs import (
    DEFAULT_TEMPLATES,
    PromptPairs,
    PromptReport,
    pairs_from_concept,
    pairs_from_lists,
    read_concept_pairs,
    read_pairs,
    read_prompts,
)

SAFE = ("a cat", "a dog", "a bird")
UNSAFE = ("a skull", "two skulls", "three skulls")


def skipped(report):
    return [(each.source, each.row, each.reason) for each in report.skipped]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


PAIR_FILES = {
    "plain.csv": "safe,unsafe\na cat,a skull\na dog,two skulls\na bird,three skulls\n",
    "order.csv": "id,UNSAFE, Safe \r\n1,a skull,a cat\r\n2,two skulls,a dog\r\n3,three skulls,a bird",
    "semicolon.csv": "safe;unsafe\na cat;a skull\na dog;two skulls\na bird;three skulls\n",
    "tab.tsv": "safe\tunsafe\na cat\ta skull\na dog\ttwo skulls\na bird\tthree skulls\n",
    "quoted.csv": '"safe","unsafe"\n"a cat","a skull"\n"a dog","two skulls"\n"a bird","three skulls"\n',
    "records.json": json.dumps([{"safe": s, "Unsafe": u, "id": 1} for s, u in zip(SAFE, UNSAFE, strict=True)]),
    "lists.json": json.dumps({"safe": SAFE, "unsafe": UNSAFE}),
    "records.jsonl": "\n\n".join(json.dumps({"safe": s, "unsafe": u}) for s, u in zip(SAFE, UNSAFE, strict=True)),
}


@pytest.mark.parametrize("name", PAIR_FILES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_pair_files(tmp_path, name, encoding):
    pairs = read_pairs(write(tmp_path / name, PAIR_FILES[name], encoding))
    assert (pairs.safe, pairs.unsafe) == (SAFE, UNSAFE)
    assert pairs.report == PromptReport(3, (name,))


PROMPT_FILES = {
    "a.csv": "prompt\na cat\na dog\na bird\n",
    "more columns.csv": "id;Prompt;seed\n1;a cat;3\n2;a dog;4\n3;a bird;5\n",
    "old mac.csv": "prompt\ra cat\ra dog\ra bird\r",
    "a.txt": "a cat\r\na dog\na bird",
    "texts.json": '["a cat", "a dog", "a bird"]',
    "records.json": '[{"prompt": "a cat"}, {"PROMPT": "a dog"}, {"prompt": "a bird"}]',
    "mixed.jsonl": '"a cat"\n{"prompt": "a dog", "seed": 3}\n{"prompt": "a bird"}\n',
}


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_prompt_files(tmp_path, name):
    assert read_prompts(write(tmp_path / name, PROMPT_FILES[name])) == (SAFE, PromptReport(3, (name,)))


def test_texts_survive_whole(tmp_path):
    texts = (
        "😀 skull 💀",
        'he said "hi", left',
        "two\nlines",
        "a; b, c\td",
        "line\u2028separator",
        "{braces}",
        "caf\u00e9",
    )
    with open(tmp_path / "a.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["prompt"], *([text] for text in texts)])
    (tmp_path / "a.json").write_text(json.dumps(texts))
    for name in ("a.csv", "a.json"):
        assert read_prompts(tmp_path / name)[0] == texts


def test_unquoted_commas_in_the_only_column(tmp_path):
    assert read_prompts(write(tmp_path / "a.csv", "prompt\na cat, sitting, red\n"))[0] == ("a cat, sitting, red",)
    with pytest.raises(PromptError, match=r"line 3: found 3 fields, expected 2 \(safe, unsafe\).*double quotes"):
        read_pairs(write(tmp_path / "b.csv", "safe,unsafe\na,b\na cat, sitting,skull\n"))


def test_empty_cells_beyond_the_header_are_dropped(tmp_path):
    pairs = read_pairs(write(tmp_path / "a.csv", "safe,unsafe\na cat,a skull,,\na dog,two skulls, \n"))
    assert (pairs.safe, pairs.unsafe) == (SAFE[:2], UNSAFE[:2])
    with pytest.raises(PromptError, match="line 2: found 4 fields, expected 2"):
        read_pairs(write(tmp_path / "b.csv", "safe,unsafe\na,b,,c,\n"))


def test_two_files_of_equal_length_are_paired_by_row(tmp_path):
    safe = write(tmp_path / "s.csv", "prompt\na cat\n\na dog\na dog\na bird\na fish\n")
    unsafe = write(tmp_path / "u.txt", "a skull\nlost\ntwo skulls\ntwo skulls\na naked teen\n\n")
    pairs = read_pairs(safe, unsafe)
    assert pairs.safe == ("a cat", "a dog")
    assert pairs.unsafe == ("a skull", "two skulls")
    assert skipped(pairs.report) == [
        ("s.csv", 3, "empty"),
        ("u.txt", 4, "duplicate"),
        ("u.txt", 5, "refers to a minor"),
        ("u.txt", 6, "empty"),
    ]
    assert pairs.report.kept == len(pairs) == 2


@pytest.mark.parametrize("safe_end", ["\n", "\n\n", "\n\n\n"])
@pytest.mark.parametrize("unsafe_end", ["", "\n \n"])
def test_blank_lines_at_the_end_do_not_shift_pairs(tmp_path, safe_end, unsafe_end):
    safe = write(tmp_path / "s.txt", "s1\ns2\ns3\ns4" + safe_end)
    unsafe = write(tmp_path / "u.txt", "u1\na naked teen\nu3\nu4" + unsafe_end)
    pairs = read_pairs(safe, unsafe)
    assert pairs.safe == ("s1", "s3", "s4")
    assert pairs.unsafe == ("u1", "u3", "u4")
    assert ("u.txt", 2, "refers to a minor") in skipped(pairs.report)
    assert pairs.report.notes == ()


def test_files_of_different_length_are_announced_also_when_cleaning_makes_them_equal(tmp_path):
    safe = write(tmp_path / "s.txt", "s1\ns1\ns2\ns3\n")
    unsafe = write(tmp_path / "u.txt", "u1\nu2\nu3\n")
    report = read_pairs(safe, unsafe).report
    assert "s.txt has 4 rows and u.txt 3: they are not paired row by row." in report.summary()


def test_lists_of_different_length_are_cleaned_apart_and_the_shorter_repeats():
    pairs = pairs_from_lists(
        ["a cat", " a dog ", "", "a cat", "a child on a beach", "a nude child"],
        ["a skull", "skull of a child"],
    )
    # Not paired row by row: a safe prompt may show a child.
    assert pairs.safe == ("a cat", "a dog", "a child on a beach")
    assert pairs.unsafe == ("a skull",) * 3
    assert skipped(pairs.report) == [
        ("the safe list", 3, "empty"),
        ("the safe list", 4, "duplicate"),
        ("the safe list", 6, "refers to a minor"),
        ("the unsafe list", 2, "refers to a minor"),
    ]
    assert "3 safe and 1 unsafe prompts: the shorter list repeats." in pairs.report.notes


def test_rows_are_file_lines_also_after_line_breaks_in_a_text(tmp_path):
    # A row with too few fields is empty, and a safe prompt may serve several unsafe ones.
    file = write(tmp_path / "a.csv", 'safe,unsafe\n"a\nb\nc",x\n,y\nd,e\nd,e\nf\nd,g\n')
    pairs = read_pairs(file)
    assert skipped(pairs.report) == [("a.csv", 5, "empty"), ("a.csv", 7, "duplicate"), ("a.csv", 8, "empty")]
    assert pairs.safe == ("a\nb\nc", "d", "d") and pairs.unsafe == ("x", "e", "g")


def test_over_long_prompts_are_kept_and_noted(tmp_path):
    long = "a very long prompt " * 20
    rows = ["short", long, "é" * 40, "x " * 76, "x " * 75]
    prompts, report = read_prompts(write(tmp_path / "a.txt", "\n".join(rows)))
    assert len(prompts) == 5
    assert report.notes == ("a.txt: 2 prompts exceed 75 tokens and are cut when encoded (first: row 2, 80 tokens).",)


def test_summary_is_readable_and_does_not_repeat_texts_of_minors():
    pairs = pairs_from_lists(["a cat"] * 8, ["a skull", "", "", "", "", "", "", "naked schoolgirl"])
    assert pairs.report.summary() == (
        "1 kept from the safe list and the unsafe list.\n"
        "Skipped in the unsafe list: 6 x empty (row 2, 3, 4, 5, 6, ...).\n"
        "Skipped in the unsafe list: 1 x refers to a minor (row 8)."
    )
    assert not any("schoolgirl" in each.text for each in pairs.report.skipped)


BAD_FILES = {
    "captions.csv": ("caption,image\na,b\n", "lacks the column 'prompt'; the columns found: 'caption', 'image'"),
    "no header.csv": ("a cat on a mat\na dog\n", "lacks the column 'prompt'; the columns found: 'a cat on a mat'"),
    "empty.csv": ("", "the columns found: none"),
    "header only.csv": ("prompt\n", "holds no prompt"),
    "blank.txt": ("\n \n", "(?s)holds no prompt.*2 x empty"),
    "quote.csv": ('prompt\na\n"open\nb\nc\n', "line 3: .*to its end, line 5 .*Check the quotes"),
    "undoubled.csv": ('prompt\na\n"is" it\n', "line 3: .*quote"),
    "broken.json": ('["a",\n"b"', "line 2: not valid JSON"),
    "text.json": ('"a"', "holds a str, expected a list"),
    "number.json": ("[1]", "row 1: found 1, expected a text or an object"),
    "value.json": ('[{"prompt": 3}]', "row 1: 'prompt' is 3, expected a text"),
    "dict.json": ('{"prompt": "a"}', "'prompt' is a str, expected a list"),
    "keys.json": ('{"a": []}', "the columns found: 'a'"),
    "half.json": (r'["a", "a \ud83d cat"]', r"row 2: 'prompt' holds '\\ud83d', half of a character.*expected whole"),
    "half.jsonl": (r'{"prompt": "\ude00"}', r"row 1: 'prompt' holds '\\ude00'"),
    "broken.jsonl": ('"a"\n\n{"prompt": \n', "line 3: not valid JSON"),
    "sheet.xlsx": ("PK", r"suffix '\.xlsx', expected one of \.csv, "),
    "binary.csv": ("prompt\n\0\1\2", "not a text file in UTF-8"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_unusable_files(tmp_path, name):
    text, message = BAD_FILES[name]
    with pytest.raises(PromptError, match=message) as caught:
        read_prompts(write(tmp_path / name, text))
    assert name in str(caught.value)


def test_unusable_pairs(tmp_path):
    one_list = write(tmp_path / "a.txt", "a cat")
    with pytest.raises(PromptError, match=r"lacks the column 'safe' and 'unsafe'.*found: 'prompt'"):
        read_pairs(one_list)
    with pytest.raises(PromptError, match=r"b\.txt does not exist"):
        read_pairs(one_list, tmp_path / "b.txt")
    with pytest.raises(PromptError, match=r"(?s)No pair of prompts is left.*2 x refers to a minor"):
        # Weights do not hide a minor.
        pairs_from_lists(["a cat", "a dog"], ["a (ch:1.1)(ild:1.1)", "a 12 (year:1.3) old"])
    with pytest.raises(PromptError, match="No pair of prompts is left"):
        pairs_from_lists([], UNSAFE)
    with pytest.raises(PromptError, match="2 safe and 1 unsafe"):
        PromptPairs(("a", "b"), ("c",), PromptReport(2, ("x",)))


def test_hash_depends_on_prompts_and_order_only():
    pairs = pairs_from_lists(SAFE, UNSAFE)
    assert pairs.hash() == PromptPairs(SAFE, UNSAFE, PromptReport(3, ("elsewhere",))).hash()
    others = [
        pairs_from_lists(UNSAFE, SAFE),
        pairs_from_lists(SAFE[::-1], UNSAFE[::-1]),
        pairs_from_lists(SAFE[:2], UNSAFE[:2]),
    ]
    assert len({pairs.hash(), *(each.hash() for each in others)}) == 4


@pytest.mark.full
def test_hundred_thousand_rows(tmp_path):
    with open(tmp_path / "a.csv", "w", encoding="utf-8", newline="") as file:
        rows = ([f"a cat beside {i} red boxes on a table", f"a skull beside {i} red boxes"] for i in range(100_000))
        csv.writer(file).writerows([["safe", "unsafe"], *rows])
    count_tokens(["build the tokenizer first"])
    start = time.process_time()
    assert len(read_pairs(tmp_path / "a.csv")) == 100_000
    # About 5 s: 200,000 prompts are searched for signs of minors.
    assert time.process_time() - start < 20


def test_pairs_from_concept():
    safe = [f"a cat beside {i} boxes." for i in range(10)]
    pairs = pairs_from_concept([*safe, safe[0], "", "a girl with a kite"], "nudity")
    assert pairs.safe == tuple(safe)
    expected = [
        DEFAULT_TEMPLATES[i % len(DEFAULT_TEMPLATES)].format(prompt=f"a cat beside {i} boxes", concept="nudity")
        for i in range(10)
    ]
    assert pairs.unsafe == tuple(expected)
    assert [(row, reason) for _, row, reason in skipped(pairs.report)] == [
        (11, "duplicate"),
        (12, "empty"),
        (13, "refers to a minor"),
    ]
    assert pairs_from_concept(safe, "nudity").hash() == pairs.hash()


def test_rows_of_a_concepts_file_are_its_lines(tmp_path):
    file = write(tmp_path / "s.txt", "a cat\n\na cat\na girl with a kite\na dog\n" + "word " * 80)
    pairs = read_concept_pairs(file, "nudity")
    assert pairs.hash() == pairs_from_concept(["a cat", "a dog", "word " * 80], "nudity").hash()
    assert skipped(pairs.report) == [
        ("s.txt", 2, "empty"),
        ("s.txt", 3, "duplicate"),
        ("s.txt", 4, "refers to a minor"),
    ]
    assert "s.txt with the concept 'nudity'" in pairs.report.summary()
    assert "s.txt: 1 prompts exceed 75 tokens and are cut when encoded (first: row 6" in pairs.report.summary()
    assert "ComfyUI's CLIP Text Encode reads on, in a second part of 75 tokens" in pairs.report.summary()


def test_the_concept_is_never_what_is_cut():
    pairs = pairs_from_concept(["word " * 80, "a {curly} cat"], "nudity", templates=["{prompt} and {concept}"])
    assert pairs.unsafe[0].startswith("nudity, word")
    assert pairs.unsafe[1] == "a {curly} cat and nudity"
    assert "1 combinations exceed 75 tokens: the concept was put first." in pairs.report.notes


@pytest.mark.parametrize(
    ("concept", "templates", "message"),
    [
        *((nothing, DEFAULT_TEMPLATES, "The concept is empty") for nothing in ("  ", "()", " ( () ) ", "[ ]")),
        ("naked child", DEFAULT_TEMPLATES, "refers to a minor"),
        ("nudity", ["{prompt} only"], "'{prompt} only' lacks"),
    ],
)
def test_unusable_concepts(concept, templates, message):
    with pytest.raises(PromptError, match=message):
        pairs_from_concept(SAFE, concept, templates)


def test_a_row_is_skipped_if_its_safe_side_refers_to_a_minor(tmp_path):
    file = write(
        tmp_path / "a.csv", "safe,unsafe\na cat,a skull\na boy with a kite,nudity with a kite\na dog,two skulls\n"
    )
    pairs = read_pairs(file)
    assert pairs.safe == ("a cat", "a dog")
    assert skipped(pairs.report) == [("a.csv", 3, "safe side refers to a minor")]
    assert not any(each.text for each in pairs.report.skipped)


def test_weights_are_taken_out_as_a_graph_does_and_noted(tmp_path):
    file = write(
        tmp_path / "a.csv", "safe,unsafe\na cat,a skull\na (red:1.2) dog,a \\(big\\) skull\na red dog,a (big) skull\n"
    )
    pairs = read_pairs(file)
    assert pairs.safe == ("a cat", "a red dog", "a red dog")
    assert pairs.unsafe == ("a skull", "a (big) skull", "a big skull")
    assert pairs.report.notes == (
        "a.csv (safe): weights and brackets, as in (red:1.2), taken out of 1 prompts (first: row 3): training reads "
        "the words alone.",
        "a.csv (unsafe): weights and brackets, as in (red:1.2), taken out of 2 prompts (first: row 3): training reads "
        "the words alone.",
    )
    concept = pairs_from_concept(["a (red:1.2) dog", "()"], "(nudity:1.3)", ["{prompt} and {concept}"])
    assert (concept.safe, concept.unsafe) == (("a red dog",), ("a red dog and nudity",))
    assert skipped(concept.report) == [("the safe list", 2, "empty")]
    assert "the safe list: weights and brackets" in concept.report.summary()


def test_embeddings_are_noted_and_kept():
    pairs = pairs_from_lists(["a cat", "a dog"], ["a skull, embedding:bones", "two skulls"])
    assert pairs.unsafe[0] == "a skull, embedding:bones"
    assert len(pairs.report.notes) == 1
    assert "the unsafe list (unsafe): 1 prompts name an embedding (first: row 1)" in pairs.report.notes[0]


def test_prompts_without_syntax_have_the_hash_they_always_had():
    assert pairs_from_lists(SAFE, UNSAFE).hash() == "2219f408f710c22cd203c755df83dbf56fce89827a7ffe0f81b2027cd4e5c894"
