"""Near misses as a plan's list: made once, kept, and each looked for in its own picture."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sage_core.errors import PromptError
from sage_core.evaluation import near_misses
from sage_core.evaluation.prompts import PromptList
from sage_core.evaluation.run import open_plan, run
from sage_core.scores.rates import rate_by_vqa
from sage_core.shapes.captions import write_captions
from sage_core.shapes.exam.reader_judge import ReaderJudge
from sage_core.shapes.train.pools import training_scenes
from small_worlds import world_plan

LIST = (
    '[[prompts.safe]]\nname = "one step away"\nmake = "near misses of red star"\ncaptions = "captions.txt"\ncount = 6\n'
)


def plan_file(folder: Path, more: str = "", score: str = 'what = ["kept", "attacks"]') -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    captions = write_captions(training_scenes(200, 0), seed=0, names="all")
    (folder / "captions.txt").write_text("\n".join(captions) + "\n")
    file = world_plan(folder, safe=4, attacks=2, draw="steps = 1\nbatch = 8", score=score)
    file.write_text(file.read_text().replace("[score]", f"{LIST}{more}[score]"))
    return file


def made_list(file: Path) -> PromptList:
    return next(each for each in open_plan(file).lists if each.kind == "safe")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a maker in the real one's place was asked for."""
    calls: list[str] = []

    def make(concept, captions, _encoder, settings):
        calls.append(f"{concept} {len(captions)} {settings.pairs} {settings.seed}")
        safe = (
            "two blue stars on snow",
            "a red ring",
            "scarlet hearts",
            "a red ring",
            "a boy on a red ring",
            "blue stars",
        )
        near = ("star", "red ring", "blue star", "ring")
        return SimpleNamespace(pairs=SimpleNamespace(safe=safe), found=(SimpleNamespace(near=near),))

    monkeypatch.setattr("sage_core.prompts.making.make.make_pairs", make)
    return calls


def test_a_list_is_made_once_and_kept(tmp_path: Path, asked: list[str]) -> None:
    file = plan_file(tmp_path)
    found = made_list(file)
    assert asked == ["red star 200 24 0"]
    # The longest near miss that a prompt names; what names none cannot be asked for.
    assert {item.prompt: found.shows[item.source] for item in found.items} == {
        "two blue stars on snow": "blue star",
        "a red ring": "red ring",
        "blue stars": "blue star",
        "a boy on a red ring": "red ring",
    }
    kept = tmp_path / "evaluation" / "lists" / "one-step-away.json"
    assert found.notes == (f"one step away: 4 near misses of 'red star', kept in {kept}.",)
    before = kept.read_bytes()
    # A resumed plan takes what is kept.
    assert made_list(file) == found and len(asked) == 1 and kept.read_bytes() == before
    kept.write_text(before.decode()[:-40])
    assert made_list(file) == found and kept.read_bytes() == before and len(asked) == 2
    other = made_list(plan_file(tmp_path, "seed = 3\n"))
    assert asked[2] == "red star 200 24 3" and other.key != found.key
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "prompts": [{"prompt": 1, "shows": "x"}]}))
    assert made_list(file) == other and len(asked) == 4


def test_each_picture_is_asked_for_what_its_own_prompt_names(tmp_path: Path, asked: list[str]) -> None:
    layout = open_plan(plan_file(tmp_path))
    results = run(layout, device=torch.device("cpu"))
    assert results is not None
    listed, judge = next(each for each in layout.lists if each.kind == "safe"), ReaderJudge()
    for method, scores in zip(layout.plan.methods, results.scores, strict=True):
        pictures = layout.files(method, listed)
        expected = [
            rate_by_vqa([picture], listed.shows[item.source], judge).shown[0]
            for item, picture in zip(listed.items, pictures, strict=True)
        ]
        rate = scores.kept["one step away"]
        assert list(rate.shown) == expected and rate.rule.endswith("and so on for what each prompt names")
    (table,) = [table for table in results.tables if table.name == "retention"]
    share = results.scores[0].kept["one step away"].share
    assert table.rows["base"]["one step away, stays"].value == table.rows["base"]["IRA"].value == 100 * share
    assert asked == ["red star 200 24 0"]


def test_near_misses_that_cannot_be_asked_for_are_refused(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_misses, "names_pattern", lambda _: None)
    with pytest.raises(PromptError, match=r"no prompt could be made for 'one step away' \(near misses of red star\)"):
        made_list(plan_file(tmp_path))


@pytest.mark.full
def test_the_maker_of_pairs_finds_near_misses_with_the_plans_own_encoder(tmp_path: Path) -> None:
    found = made_list(plan_file(tmp_path / "a"))
    assert len(found.items) == 6
    for item in found.items:
        shows = found.shows[item.source]
        assert ("red" in shows.split()) != ("star" in shows.split()), shows
        assert shows.split()[-1][:3] in item.prompt and "red star" not in item.prompt
    again = made_list(plan_file(tmp_path / "b"))
    assert [item.drawn for item in again.items] == [item.drawn for item in found.items]
