"""GenEval: its metadata, its tree of pictures, questions for judges, and both of its totals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sage_core.errors import QuestionError
from sage_core.intervals import clustered_proportion, wilson_interval
from sage_core.tifa.judges.base import Answer
from sage_core.tifa.scoring import ScoredQuestion, score_answers
from sage_core.tifa.writing.geneval import TAGS, plural, questions_of, read_geneval, read_tree, write_tree
from sage_core.tifa.writing.geneval_results import ImageResult, judged_images, read_results, totals

# One line of each task, in the published form.
METADATA = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "two_object", "include": [{"class": "toothbrush", "count": 1}, {"class": "skis", "count": 1}],
     "prompt": "a photo of a toothbrush and skis"},
    {"tag": "counting", "include": [{"class": "bus", "count": 3}], "exclude": [{"class": "bus", "count": 4}],
     "prompt": "a photo of three buses"},
    {"tag": "colors", "include": [{"class": "sheep", "count": 1, "color": "purple"}],
     "prompt": "a photo of a purple sheep"},
    {"tag": "position", "include": [{"class": "cat", "count": 1},
                                    {"class": "wine glass", "count": 1, "position": ["right of", 0]}],
     "prompt": "a photo of a wine glass right of a cat"},
    {"tag": "color_attr", "include": [{"class": "apple", "count": 1, "color": "red"},
                                      {"class": "person", "count": 1, "color": "white"}],
     "prompt": "a photo of a red apple and a white person"},
]  # fmt: skip


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in METADATA))
    return path


def test_questions_ask_for_what_the_metadata_says(metadata: Path) -> None:
    prompts = read_geneval(metadata)
    assert [prompt.tag for prompt in prompts] == list(TAGS)
    asked = [{q.question: (q.answer, q.element_type) for q in questions_of(prompt)} for prompt in prompts]
    assert asked[0] == {"is there a bench?": ("yes", "object")}
    assert asked[1] == {"is there a toothbrush?": ("yes", "object"), "are there skis?": ("yes", "object")}
    assert asked[2] == {"are there buses?": ("yes", "object"), "how many buses are there?": ("3", "counting")}
    assert asked[3]["what color is the sheep?"] == ("purple", "color") and len(asked[3]) == 3
    assert asked[4] == {
        "is there a cat?": ("yes", "animal/human"), "is there a wine glass?": ("yes", "object"),
        "is the wine glass right of the cat?": ("yes", "spatial"),
        "where is the wine glass relative to the cat?": ("right of", "spatial"),
    }  # fmt: skip
    assert asked[5]["is the apple red?"] == ("yes", "color") and asked[5]["is the person white?"] == ("yes", "color")
    for prompt in prompts:
        for question in questions_of(prompt):
            assert question.id == prompt.folder and question.caption == prompt.prompt
    counts = next(q for q in questions_of(prompts[2]) if q.element_type == "counting")
    numbers = list(map(int, counts.choices))
    assert len(numbers) == 4 and numbers == list(range(numbers[0], numbers[0] + 4)) and numbers[0] >= 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bus", "buses"), ("wine glass", "wine glasses"), ("bench", "benches"), ("person", "people"), ("sheep", "sheep"),
     ("scissors", "scissors"), ("knife", "knives"), ("computer mouse", "computer mice"), ("toothbrush", "toothbrushes"),
     ("tv", "tvs"), ("hair drier", "hair driers"), ("skis", "skis")],
)  # fmt: skip
def test_plurals_of_cocos_classes(name: str, expected: str) -> None:
    assert plural(name) == expected


def picture(level: int) -> Image.Image:
    return Image.new("RGB", (4, 3), (level, 0, 0))


def test_the_tree_is_the_published_one_and_comes_back(metadata: Path, tmp_path: Path) -> None:
    prompts = read_geneval(metadata)[:2]
    root = tmp_path / "tree"
    told: list[tuple[int, int]] = []
    pictures = [[picture(1), picture(2)], [picture(3)]]
    write_tree(root, prompts, pictures, lambda *now: told.append(now))
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert files == [
        "00000/metadata.jsonl", "00000/samples/00000.png", "00000/samples/00001.png",
        "00001/metadata.jsonl", "00001/samples/00000.png",
    ]  # fmt: skip
    assert json.loads((root / "00001" / "metadata.jsonl").read_text()) == METADATA[1] and told == [(1, 2), (2, 2)]
    assert Image.open(root / "00000" / "samples" / "00001.png").getpixel((0, 0)) == (2, 0, 0)
    again = read_tree(root)
    assert [prompt for prompt, _ in again] == list(prompts)
    assert [len(paths) for _, paths in again] == [2, 1]
    # The same again is fine; what would be counted beyond it is not.
    write_tree(root, prompts, pictures)
    with pytest.raises(QuestionError, match=r"00001.png is not one of the pictures to be written"):
        write_tree(root, prompts, [[picture(1)], [picture(3)]])
    with pytest.raises(QuestionError, match=r"00001.*is not one of the pictures"):
        write_tree(root, prompts[:1], [[picture(1), picture(2)]])
    with pytest.raises(QuestionError, match="2 prompts came with pictures for 1"):
        write_tree(root, prompts, [[picture(1)], []])


def test_a_prompt_keeps_its_number_of_the_metadata(metadata: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", read_geneval(metadata)[4:], [[picture(1)], [picture(2)]])
    assert [path.name for path in sorted((tmp_path / "tree").iterdir())] == ["00004", "00005"]
    assert [prompt.number for prompt, _ in read_tree(tmp_path / "tree")] == [4, 5]


def test_a_callback_that_raises_leaves_whole_files(metadata: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree(tmp_path / "tree", read_geneval(metadata), [[picture(1)]] * 6, stop)
    assert [len(paths) for _, paths in read_tree(tmp_path / "tree")] == [1]


def changed(**fields: object) -> dict:
    return METADATA[4] | fields


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1], "line 2: found .1., expected an object"),
        (changed(tag="style"), "line 2: 'tag' is 'style', expected one of single_object"),
        (changed(prompt=" "), "line 2: 'prompt' is ' ', expected a text"),
        (changed(prompt="half \ud83d"), "line 2: 'prompt' holds"),
        (changed(include=[]), "line 2: 'include' is empty"),
        (changed(include="cat"), "line 2: 'include' is 'cat', expected a list of objects"),
        (changed(include=[{"count": 1}]), "line 2: 'class' is null, expected a text"),
        (changed(include=[{"class": "cat", "count": 0}]), "line 2: 'count' in 'include' is 0, expected 1 to 100"),
        (changed(exclude=[{"class": "cat", "count": True}]), "line 2: 'count' in 'exclude' is true"),
        (changed(include=[{"class": "cat", "count": 1, "color": "beige"}]), "line 2: 'color' is 'beige', expected one"),
        (changed(include=[{"class": "cat", "count": 1, "position": "left"}]), "line 2: 'position' is 'left'"),
        (changed(include=[{"class": "cat", "count": 1, "position": ["near", 0]}]), "line 2: 'position' is 'near'"),
        (changed(include=[{"class": "cat", "count": 1, "position": ["above", 1]}]), "line 2: 'position' refers to 1"),
    ],
)
def test_a_malformed_line_is_named_with_its_field(tmp_path: Path, row: object, words: str) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text(json.dumps(METADATA[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(QuestionError, match=words) as refused:
        read_geneval(path)
    assert str(path) in str(refused.value)


def test_what_is_no_tree_and_no_metadata_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "cut.jsonl").write_text('{"tag": ')
    with pytest.raises(QuestionError, match="holds no line"):
        read_geneval(tmp_path / "empty.jsonl")
    with pytest.raises(QuestionError, match=r"cut.jsonl, line 1: not valid JSON"):
        read_geneval(tmp_path / "cut.jsonl")
    with pytest.raises(QuestionError, match="holds no folder such as 00000"):
        read_tree(tmp_path)
    with pytest.raises(QuestionError, match="cannot be read"):
        read_tree(tmp_path / "nothing")
    (tmp_path / "00000").mkdir()
    (tmp_path / "00000" / "metadata.jsonl").write_text(2 * (json.dumps(METADATA[0]) + "\n"))
    with pytest.raises(QuestionError, match=r"metadata.jsonl holds 2 lines, expected one"):
        read_tree(tmp_path)


# -- totals ------------------------------------------------------------------------------------------------------------


def line(place: int, sample: int, correct: bool) -> dict:
    row = METADATA[place]
    return {
        "filename": f"out/{place:05}/samples/{sample:05}.png", "tag": row["tag"], "prompt": row["prompt"],
        "correct": correct, "reason": "", "metadata": json.dumps(row), "details": json.dumps({}),
    }  # fmt: skip


def test_both_totals_of_a_results_file(tmp_path: Path) -> None:
    lines = [line(0, sample, True) for sample in range(4)] + [line(2, 0, True), line(2, 1, False)] + [line(3, 0, False)]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    found = totals(read_results(path))
    assert [(name, share.value) for name, share in found.tasks.items()] == [
        ("single_object", 1.0), ("counting", 0.5), ("colors", 0.0),
    ]  # fmt: skip
    assert found.over_tasks.value == pytest.approx(1.5 / 3) and found.over_images.value == pytest.approx(5 / 7)
    assert (found.prompts.k, found.prompts.n) == (2, 3)
    # A task of one prompt has no interval, and so the mean over tasks has none.
    assert found.over_tasks.interval is None and found.over_images.interval is not None
    assert "| mean over images | 71.4 |" in found.to_markdown()
    assert "Without two_object, position, color_attr" in found.to_markdown()
    assert found.to_dict()["overall (mean over tasks)"]["share"] == pytest.approx(0.5)
    assert found.to_dict()["prompts with a right image"]["k"] == 2


def random_results() -> list[ImageResult]:
    generator = np.random.default_rng(0)
    found = []
    for tag, chance, prompts in zip(TAGS, (0.95, 0.4, 0.35, 0.75, 0.1, 0.1), (20, 25, 20, 24, 25, 25), strict=True):
        for prompt in range(prompts):
            mine = np.clip(chance + generator.normal() * 0.2, 0, 1)
            found += [ImageResult(f"{tag} {prompt}", tag, bool(generator.random() < mine)) for _ in range(4)]
    return found


def test_intervals_are_those_of_clusters_and_their_sum_of_squares() -> None:
    results = random_results()
    found = totals(results)
    halves = []
    for tag, share in found.tasks.items():
        rows = np.array([each.correct for each in results if each.tag == tag]).reshape(-1, 4)
        low, high = clustered_proportion(rows.sum(1, keepdims=True).astype(float), np.full((len(rows), 1), 4.0))
        assert share.value == pytest.approx(rows.mean())
        assert (share.interval.low, share.interval.high) == pytest.approx((low[0], high[0]))
        halves.append((share.value - low[0], high[0] - share.value))
    below, above = np.sqrt((np.array(halves) ** 2).sum(0)) / 6
    mean = np.mean([share.value for share in found.tasks.values()])
    assert found.over_tasks.value == pytest.approx(mean)
    assert (found.over_tasks.interval.low, found.over_tasks.interval.high) == pytest.approx(
        (mean - below, mean + above)
    )
    assert found.over_tasks.value != pytest.approx(found.over_images.value, abs=1e-3)
    keys = {each.prompt_key for each in results if each.correct}
    wilson = wilson_interval(len(keys), 139)
    assert found.prompts.interval == pytest.approx((wilson.low, wilson.high))
    assert "Without" not in found.to_markdown()


def test_a_judges_answers_give_the_same_totals(metadata: Path) -> None:
    prompts = read_geneval(metadata)
    scored: list[ScoredQuestion] = []
    for prompt in prompts:
        questions = questions_of(prompt)
        for sample in range(2):
            # One wrong answer makes an image wrong.
            spoiled = prompt.tag == "position" or (prompt.tag == "colors" and sample == 1)
            answers = [q.choices[0] if q.choices[0] != q.answer else q.choices[1] for q in questions[-1:]]
            right = [q.answer for q in questions]
            given = [*right[:-1], *answers] if spoiled else right
            names = [f"{prompt.folder}_{sample}"] * len(questions)
            scored += score_answers(names, questions, [Answer(text, None) for text in given], None)
    images = judged_images(prompts, scored)
    assert len(images) == 12
    found = totals(images, "a judge")
    assert {name: share.value for name, share in found.tasks.items()} == {
        "single_object": 1.0, "two_object": 1.0, "counting": 1.0, "colors": 0.5, "position": 0.0, "color_attr": 1.0,
    }  # fmt: skip
    assert "GenEval by a judge" in found.to_markdown()
    with pytest.raises(QuestionError, match="which is none of the prompts' folders"):
        judged_images(prompts[:1], scored)
    with pytest.raises(QuestionError, match="no GenEval results"):
        totals([])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tag": "style"}, "line 1: 'tag' is 'style'"),
        ({"correct": 1}, "line 1: 'correct' is 1, expected true or false"),
        ({"metadata": {"tag": "single_object"}}, "line 1: 'metadata' is .*expected a text with a JSON object"),
        ({"metadata": "{"}, "line 1: 'metadata' is '{': not valid JSON"),
        ({"metadata": '{"tag": "counting"}'}, "expected that of a prompt of the task single_object"),
    ],
)
def test_a_malformed_result_is_named_with_its_field(tmp_path: Path, fields: dict, words: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(line(0, 0, True) | fields) + "\n")
    with pytest.raises(QuestionError, match=words) as refused:
        read_results(path)
    assert str(path) in str(refused.value)


def test_other_files_of_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("3\nbroken\n")
    with pytest.raises(QuestionError, match="line 1: found 3, expected an object"):
        read_results(path)
    path.write_text("broken\n")
    with pytest.raises(QuestionError, match="line 1: not valid JSON"):
        read_results(path)
    path.write_text("")
    with pytest.raises(QuestionError, match="holds no result"):
        read_results(path)
