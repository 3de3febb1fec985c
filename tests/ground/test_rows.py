"""What a file of rows can be broken by: each a clear error of the caller's kind, never a parser's traceback."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_core.errors import PromptError, QuestionError, SageError
from sage_core.prompts.pairs import read_pairs, read_prompts
from sage_core.rows import Row, parse_json, read_json, read_rows, shown, split_lines, typed_lines
from sage_core.tifa.questions import Question, read_questions

QUESTION = {
    "id": "c1", "caption": "a dog", "question": "is there a dog?", "choices": ["yes", "no"], "answer": "yes",
    "element_type": "object", "element": "dog",
}  # fmt: skip
DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000
# Deep enough that writing it into a message recurses too far, and just not too deep for the parser.
NESTED = json.loads("[" * 900 + "]" * 900)


def rows(path: Path, content: str | bytes, **options):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(path, ("prompt",), error=PromptError, **options)


def test_rows_of_every_format(tmp_path: Path) -> None:
    table = rows(tmp_path / "a.csv", 'ID;Prompt;more\n1;"a\ncat"\n\n2;a;dog;x\n')
    assert table.header == ("id", "prompt", "more")
    assert table.rows[:2] == (Row(2, {"id": "1", "prompt": "a\ncat"}), Row(4, {}))
    assert table.rows[2].number == 5 and "found 4 fields, expected 3" in (table.rows[2].problem or "")
    assert rows(tmp_path / "a.json", '[" A ", {" A ": 1}, null]').rows == (
        Row(1, " A "),
        Row(2, {"a": 1}),
        Row(3, None),
    )
    assert rows(tmp_path / "b.json", '{"Prompt": ["a"], "n": 3}').columns == {"prompt": ["a"]}
    lines = rows(tmp_path / "a.jsonl", '"a\u2028b"\r\n\r\n{x\n')
    assert lines.rows[0] == Row(1, "a\u2028b") and lines.rows[1].number == 3 and lines.rows[1].problem
    assert rows(tmp_path / "a.txt", "a \n\n b").rows == (Row(1, "a "), Row(2, ""), Row(3, " b"))
    with pytest.raises(QuestionError, match=r"'\.txt', expected one of \.csv\."):
        read_rows(tmp_path / "a.txt", (), error=QuestionError, suffixes=(".csv",))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    found = rows(tmp_path / "a.txt", mark + "é 😀".encode(encoding))
    assert found.rows == (Row(1, "é 😀"),) and found.notes == ()
    assert "Windows-1252" in rows(tmp_path / "b.txt", "café".encode("cp1252")).notes[0]


BROKEN = {
    "deep.json": (DEEP, "nested too deep"),
    "deep rows.json": (f"[{DEEP}]", "nested too deep"),
    "deep.jsonl": (DEEP, "line 1: .*nested too deep"),
    "long.json": (f"[{LONG}]", "not readable JSON .*4300 digits"),
    "long.jsonl": (f'"a"\n{LONG}', "line 2: not readable JSON .*4300 digits"),
    "nan.json": ('["a", NaN]', "row 2: found NaN"),
    "infinity.json": ('[{"prompt": -Infinity}]', "row 1: 'prompt' is -Infinity, expected a text"),
    "nested.json": (json.dumps(["a", NESTED]), "row 2: found "),
    "nested value.json": (json.dumps([{"prompt": NESTED}]), r"row 1: 'prompt' is "),
    "half name.json": (r'{"\ud83d": ["a"]}', "lacks the column 'prompt'"),
    "nul.json": (r'["a", "b\u0000"]', "row 2: 'prompt' holds the character NUL"),
    "nul.csv": ("prompt\na\0b\n", "not a text file in UTF-8"),
    "nul.txt": ("a\0", "not a text file in UTF-8"),
    "odd.txt": (b"\xff\xfea", "not a text file in UTF-8"),
    "cell.csv": (f'prompt\n"{"x" * 200_000}"\n', "line 2: .*field larger than field limit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_prompt_files(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(PromptError, match=message) as caught:
        read_prompts(tmp_path / name)
    assert name in str(caught.value) and len(str(caught.value)) < 500
    str(caught.value).encode()


@pytest.mark.parametrize("read", [read_prompts, read_pairs, read_questions])
def test_what_is_no_readable_file(tmp_path: Path, read) -> None:
    kind = QuestionError if read is read_questions else PromptError
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name, message in (
        ("folder.json", "is a folder or device, expected a file"),
        ("pipe.json", "is a folder or device, expected a file"),
        ("absent.json", "does not exist"),
        ("x" * 300 + ".json", "cannot be read"),
        ("nul\0.json", "cannot be read"),
    ):
        with pytest.raises(kind, match=message):
            read(tmp_path / name)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.json").write_text("[]")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(QuestionError, match=r"a\.json cannot be read \(Permission denied\)"):
        read_questions(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('"coco_val_id": [17]', r"coco_val_id is \[17\], expected text"),
        ('"coco_val_id": NaN', "coco_val_id is NaN, expected text"),
        ('"coco_val_id": true', "coco_val_id is true, expected text"),
        ('"question": Infinity', "question is Infinity, expected text"),
        (r'"caption": "a \ud83d dog"', r"caption holds '\\ud83d', half of a character"),
        (r'"choices": ["yes", "\ude00"]', r"a choice holds '\\ude00'"),
        (r'"choices": ["yes", 17, "\ude00"]', "choices are .*expected texts"),
        (r'"element": "\u0000"', "element holds the character NUL"),
        (f'"element_type": {json.dumps(NESTED)}', "element_type is "),
        (f'"choices": {json.dumps(NESTED)}', "choices are "),
        (f'"choices": "{DEEP}"', "nested too deep"),
        (f'"choices": "[{LONG}]"', "4300 digits"),
    ],
)
def test_broken_question_rows_are_left_out(tmp_path: Path, change: str, reason: str) -> None:
    good, bad = json.dumps(QUESTION), json.dumps({**QUESTION, "question": "is it red?"})[:-1] + f", {change}}}"
    for name, content in (("a.json", f"[{good}, {bad}]"), ("a.jsonl", f"{good}\n{bad}\n")):
        (tmp_path / name).write_text(content)
        (_,), report = read_questions(tmp_path / name)
        (skipped,) = report.skipped
        assert skipped.row == 2
        assert re.search(reason, skipped.reason), skipped.reason[:200]
        assert len(skipped.reason) < 300
        report.summary().encode()


@pytest.mark.parametrize("content", [DEEP, f"[{LONG}]", "[" + DEEP + "]"])
def test_broken_question_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(QuestionError, match=r"a\.json: not readable JSON"):
        read_questions(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text(json.dumps(QUESTION) + f"\n{content}\n")
    assert [skipped.row for skipped in read_questions(tmp_path / "a.jsonl")[1].skipped] == [2]


def test_question_files_read_what_prompt_files_do(tmp_path: Path) -> None:
    table = "ID;caption;question;choices;answer;element_type;element;;\nc1;ein Häuschen;is it?;yes|no;yes;object;x;;\n"
    (tmp_path / "a.csv").write_bytes(table.encode("cp1252"))
    (question,), report = read_questions(tmp_path / "a.csv")
    assert question.caption == "ein Häuschen" and "Windows-1252" in report.summary()
    (tmp_path / "a.tsv").write_bytes(table.replace(";", "\t").encode("utf-16"))
    assert read_questions(tmp_path / "a.tsv")[0] == (question,)


def test_numbers_of_coco_are_ids() -> None:
    assert Question.from_row({**QUESTION, "coco_val_id": 17}).coco_val_id == "17"
    assert Question.from_row({**QUESTION, "coco_val_id": ""}).coco_val_id is None


def test_lines_that_were_typed() -> None:
    assert typed_lines([" a\r\n\r\nb\u2028c\rd ", "", "e"]) == ["a", "b\u2028c", "d", "e"]
    assert split_lines("a\n\n") == ["a", ""]
    with pytest.raises(QuestionError, match=r"Line 2 holds '\\ud83d', half"):
        typed_lines(["a", "\ud83d"], error=QuestionError)


def test_values_in_messages_are_short_and_can_be_printed() -> None:
    for value in (NESTED, 10**5000, "x" * 100, "\ud83d", {1, 2}, {"a": "\udc00"}, float("nan")):
        shown(value).encode()
        assert len(shown(value)) <= 40
    with pytest.raises(ValueError, match="not readable JSON"):
        parse_json(b'"\xff"')


@pytest.mark.parametrize("text", ["1e999", "[-1e400]", f"1{'0' * 400}", f'{{"a": -1{"0" * 400}}}', "NaN", "[Infinity]"])
def test_numbers_of_our_own_json_are_finite(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(ValueError, match=r"it holds .*, which (is beyond every number|JSON does not know)"):
        read_json(tmp_path / "own.json")
    # Of lists that others wrote each row is looked at by itself.
    parse_json(text, constants=True)


# -- anything at all --------------------------------------------------------------------------------------------------

_SUFFIXES = st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".txt"])
_WORDS = st.sampled_from(
    ["prompt", "safe", "unsafe", *QUESTION, "a dog", "yes|no", "object", "yes", "\ud83d", "\0", ""]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | _WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS | st.text(max_size=4), inner, max_size=8),
    max_leaves=12,
)
_QUESTIONS = st.fixed_dictionaries({name: st.just(value) | _VALUES for name, value in QUESTION.items()})
_JSON = (_VALUES | st.lists(_QUESTIONS, max_size=3)).map(json.dumps)
_LINES = st.lists(_JSON | st.text(max_size=10), max_size=4).map("\n".join)
_HEADER = st.sampled_from(["prompt", "safe,unsafe", ",".join(QUESTION), "safe;unsafe", ""])
_TABLE = st.builds(
    lambda header, lines: "\n".join([header, *lines]),
    _HEADER,
    st.lists(st.text('a,;"\t\n\r\u2028\u0085é|[] ', max_size=20), max_size=5),
)
_CONTENT = st.binary(max_size=60) | (_JSON | _LINES | _TABLE | st.text(max_size=60)).flatmap(
    lambda text: st.sampled_from(["utf-8", "utf-16", "cp1252"]).map(lambda name: text.encode(name, "replace"))
)


@settings(
    derandomize=True, max_examples=250, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(suffix=_SUFFIXES, content=_CONTENT)
def test_readers_return_or_say_why_not(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    for read, kind in ((read_prompts, PromptError), (read_pairs, PromptError), (read_questions, QuestionError)):
        try:
            found = read(path)
        except SageError as error:
            assert type(error) is kind and path.name in str(error).replace("\n", " ")
            str(error).encode()
        else:
            # Whatever was kept can be written down.
            repr(found).encode()
            json.dumps(str(found)).encode()
