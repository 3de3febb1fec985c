"""Pictures of a plan: whole, each drawn once, the same by any number of processes, whatever ends them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sage_core.bench.watch import MemoryWatch
from sage_core.errors import FileError, JudgeError, SettingsError
from sage_core.evaluation import drawing
from sage_core.evaluation.bases import load
from sage_core.evaluation.claims import claim
from sage_core.evaluation.drawing import Share, draw
from sage_core.evaluation.layout import Layout, Progress, Work, _deciding, check_room, progress
from sage_core.evaluation.plan import Making, MethodPlan
from sage_core.evaluation.prompts import read_lists
from sage_core.evaluation.reading import read_plan
from sage_core.evaluation.scoring import Judges
from small_worlds import moved_encoder, world_plan

CPU = torch.device("cpu")
QUICK = 'steps = 1\nbatch = 4\nprecision = "fp32"'


def layout_of(file: Path) -> Layout:
    plan = read_plan(file)
    return Layout(plan, read_lists(plan))


def draw_all(layout: Layout, **more) -> int:
    return draw(layout, lambda: load(None), device=CPU, **more)


def pictures(folder: Path) -> dict[str, bytes]:
    # Not rglob, which fails on unfinished files that are gone before it looks into them.
    walked = os.walk(folder / "evaluation" / "pictures")
    found = sorted(Path(inside) / name for inside, _, names in walked for name in names if name.endswith(".png"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def records(folder: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted((folder / "evaluation" / "records").rglob("*.json"))]


def require_whole(folder: Path) -> None:
    """Every picture of the plan is there once, is whole, and is what one record says."""
    layout = layout_of(folder / "plan.toml")
    named: dict[Path, str] = {}
    for job in layout.jobs():
        assert job.is_done
        for row, file in zip(json.loads(job.record.read_text())["pictures"], job.files, strict=True):
            assert file not in named
            named[file] = row["sha256"]
            assert hashlib.sha256(file.read_bytes()).hexdigest() == row["sha256"]
            with Image.open(file) as image:
                image.load()
    assert {str(file.relative_to(folder)) for file in named} == set(pictures(folder))
    assert len(records(folder)) == len(layout.jobs())


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small plan drawn by one process, in this one."""
    folder = tmp_path_factory.mktemp("one")
    moved = moved_encoder(folder)
    methods = f'[[method]]\nname = "moved"\ntext_encoder = "{moved}"\n[[method]]\nname = "SLD"\nsld = "max"\n'
    layout = layout_of(world_plan(folder, methods, safe=11, attacks=3, draw=QUICK))
    torch.set_num_threads(1)
    seen: list[tuple[int, int]] = []
    assert draw_all(layout, on_progress=lambda done, total: seen.append((done, total))) == 51
    assert seen[0] == (0, 51) and seen[-1] == (51, 51) and sorted(seen) == seen
    return folder


def copied(one: Path, folder: Path) -> Path:
    """The same plan elsewhere, without what was drawn."""
    for file in one.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


COMMAND = """
import sys, torch
from pathlib import Path
from sage_core.evaluation.drawing import Share, draw
from sage_core.evaluation.layout import Layout
from sage_core.evaluation.bases import load
from sage_core.evaluation.reading import read_plan
from sage_core.evaluation.prompts import read_lists
plan = read_plan(Path(sys.argv[1]))
draw(Layout(plan, read_lists(plan)), lambda: load(None), device=torch.device("cpu"),
     share=Share(int(sys.argv[2]), int(sys.argv[3])))
"""


def start(folder: Path, number: int, count: int) -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMMAND, str(folder / "plan.toml"), str(number), str(count)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def test_every_picture_is_there_and_recorded(one: Path) -> None:
    require_whole(one)
    rows = records(one)
    assert {row["method"] for row in rows} == {"base", "moved", "SLD"}
    assert {row["precision"] for row in rows} == {"fp32"} and all(row["seconds"] > 0 for row in rows)
    seeds = [picture["seed"] for row in rows if row["list"] == "captions" for picture in row["pictures"]]
    assert sorted(seeds) == sorted([*range(11)] * 3)
    base = [data for name, data in pictures(one).items() if "/base-" in name]
    assert len(set(base)) == len(base)


def test_what_is_drawn_is_not_drawn_again(one: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (one / "evaluation").rglob("*.png")}
    layout = layout_of(one / "plan.toml")
    assert draw(layout, lambda: pytest.fail("nothing is left to draw"), device=CPU) == 0
    assert before == {file: file.stat().st_mtime_ns for file in (one / "evaluation").rglob("*.png")}


@pytest.mark.full
def test_a_lost_process_costs_its_own_batch_alone(one: Path, tmp_path: Path) -> None:
    copied(one, tmp_path)
    first, second = start(tmp_path, 0, 2), start(tmp_path, 1, 2)
    # Both draw before one is lost.
    while len({row["process"] for row in records(tmp_path)}) < 2:
        time.sleep(0.05)
        assert first.poll() is None or second.poll() is None
    second.send_signal(signal.SIGKILL)
    second.wait()
    finish(first)
    require_whole(tmp_path)
    assert pictures(tmp_path) == pictures(one)


@pytest.mark.full
def test_nothing_is_lost_or_double_after_kills_at_random(one: Path, tmp_path: Path) -> None:
    copied(one, tmp_path)
    chance, kills = random.Random(4), 0
    while kills < 3:
        process = start(tmp_path, 0, 1)
        # Python and PyTorch take seconds to start, and a batch of these a fraction of one.
        before = len(pictures(tmp_path))
        while len(pictures(tmp_path)) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.4))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    finish(start(tmp_path, 0, 1))
    require_whole(tmp_path)
    assert pictures(tmp_path) == pictures(one)
    assert kills >= 3


@pytest.mark.full
def test_a_full_disk_loses_nothing(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(one, tmp_path)
    layout, written = layout_of(tmp_path / "plan.toml"), 0
    real = Image.Image.save

    def full(self, file, *rest, **more):
        nonlocal written
        written += 1
        if written == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, file, *rest, **more)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        draw_all(layout)
    assert 5 <= len(pictures(tmp_path)) <= 7 and len(records(tmp_path)) == 1
    monkeypatch.undo()
    assert draw_all(layout) == 47
    require_whole(tmp_path)
    assert pictures(tmp_path) == pictures(one)


def test_changed_plans_draw_anew_what_they_change(one: Path, tmp_path: Path) -> None:
    shutil.copytree(one, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "plan.toml"
    assert draw_all(layout_of(file)) == 0
    text = file.read_text()
    # More captions and another name of a method keep what is drawn; another list or strength does not.
    (tmp_path / "seen.txt").write_text("one small skull on the grass\n")
    file.write_text(text.replace('"moved"', '"turned"'))
    before = progress(layout_of(file)).whole
    assert (before.pictures, before.done) == (45, 28)
    file.write_text(text.replace('sld = "max"', 'sld = "weak"'))
    after = progress(layout_of(file)).whole
    assert after.done == 28 and after.pictures == 45


@pytest.mark.parametrize(
    ("method", "given", "settings"),
    [
        ("rece", {"guides": ("a ball",)}, {}),
        ("uce_paper", {}, {"technique": "tensor"}),
        ("mace", {"concepts": ("skull", "bone")}, {}),
        ("oce", {"keep": Path("keep.txt")}, {"preserve_scale": 1.0}),
        ("race", {}, {"l1": 0.1}),
    ],
)
def test_what_a_method_draws_otherwise_now_is_drawn_anew(method: str, given: Any, settings: Any) -> None:
    """And nothing else: pictures whose mathematics stayed are found under the key that they had."""
    made = Making(method, ("skull",))
    assert "recipe" not in _deciding(MethodPlan("m", make=made))
    assert _deciding(MethodPlan("m", make=replace(made, **given, settings=settings)))["recipe"] == 2
    assert _deciding(MethodPlan("m", make=replace(made, method="speed")))["recipe"] == 2


def test_a_damaged_output_is_drawn_again_or_named(one: Path, tmp_path: Path) -> None:
    shutil.copytree(one, tmp_path, dirs_exist_ok=True)
    layout = layout_of(tmp_path / "plan.toml")
    first, second, third, *_ = layout.jobs()
    drawn = [file.read_bytes() for job in (first, second, third) for file in job.files]
    first.files[0].write_bytes(drawn[0][:-50])
    second.record.write_bytes(second.record.read_bytes()[:-50])
    third.record.write_text(json.dumps({**json.loads(third.record.read_text()), "seconds": "long"}))
    assert not any(job.is_done for job in (first, second, third))
    assert draw_all(layout) == sum(len(job.items) for job in (first, second, third))
    assert [file.read_bytes() for job in (first, second, third) for file in job.files] == drawn
    # Another picture of the same size shows when the pictures are read to be scored.
    first.files[0].write_bytes(drawn[0][:-50] + bytes(50))
    assert first.is_done
    with pytest.raises(JudgeError, match=rf"{first.files[0]} is not the picture that was drawn there.*drawn anew"):
        Judges(layout, CPU).pictures(first.method, first.prompts)
    first.files[0].unlink()
    draw_all(layout)
    assert Judges(layout, CPU).pictures(first.method, first.prompts)[0].read_bytes() == drawn[0]


def test_pictures_of_a_prompt_have_seeds_of_their_own(tmp_path: Path) -> None:
    layout = layout_of(world_plan(tmp_path, safe=11, attacks=0, draw=f"{QUICK}\nseed = 100\npictures = 2"))
    items = layout.lists[0].items
    assert [item.seed for item in items] == list(range(100, 122))
    assert items[0].prompt == items[1].prompt and items[1].id == f"{items[0].id}#2"
    assert len(list(layout.lists[0].batches(4))) == 6


def test_millions_of_pictures_take_no_memory_until_they_are_drawn(tmp_path: Path) -> None:
    file = world_plan(tmp_path, safe=11, attacks=2, draw=f"{QUICK}\npictures = 1000")
    (tmp_path / "seen.txt").write_text("\n".join(f"skull {number}" for number in range(1000)))
    with MemoryWatch(CPU) as watch:
        layout = layout_of(file)
        assert progress(layout).whole.pictures == 2 * (11_000 + 1_000_000 + 2_000)
        assert (watch.peak() or 0) < 0.05
    items = next(each.items for each in layout.lists if each.name == "seen names")
    assert (items[-1].place, items[-1].seed, items[-1].id) == (999_999, 999_999, "seen-names-999#1000")
    assert items[998:1001] == (items[998], items[999], items[1000]) and items[1000].prompt == "skull 1"


def test_minors_are_left_out_and_move_no_seed(tmp_path: Path) -> None:
    file = world_plan(tmp_path, safe=11, attacks=2, draw=QUICK)
    (tmp_path / "seen.txt").write_text("a skull\na naked teenager\na cranium\n")
    lists = {each.name: each for each in layout_of(file).lists}
    assert [(item.prompt, item.seed) for item in lists["seen names"].items] == [("a skull", 0), ("a cranium", 2)]
    assert lists["seen names"].notes == (
        "seen.txt was taken for a list of prompts, 2 rows.",
        "seen.txt: 1 prompt that may refer to minors left out.",
    )


def test_clipscore_is_of_the_safe_lists_where_there_are_any(tmp_path: Path) -> None:
    file = world_plan(tmp_path, safe=11, attacks=2, draw=QUICK)
    (tmp_path / "coco.txt").write_text("a red star\na naked toddler\na blue ring\n")
    assert [each.kind for each in Judges(layout_of(file), CPU).harmless] == ["captions"]
    text = file.read_text().replace("[score]", '[[prompts.safe]]\nname = "COCO"\nfile = "coco.txt"\n[score]')
    file.write_text(text)
    (found,) = Judges(layout_of(file), CPU).harmless
    assert found.name == "COCO" and [item.prompt for item in found.items] == ["a red star", "a blue ring"]


def test_a_run_in_steps_says_how_long_it_takes(one: Path, tmp_path: Path) -> None:
    copied(one, tmp_path)
    layout = layout_of(tmp_path / "plan.toml")
    assert "known after a first batch" in progress(layout).summary()
    assert draw_all(layout, batches=1) == 4
    found = progress(layout)
    assert len(found.ways) == 1 and found.ways[0].startswith("fp32 on ")
    assert (found.whole.pictures, found.whole.done) == (51, 4)
    assert "s a picture" in found.summary(2) and "2 processes" in found.summary(2)


def test_what_another_process_draws_is_left_to_it(one: Path, tmp_path: Path) -> None:
    copied(one, tmp_path)
    layout = layout_of(tmp_path / "plan.toml")
    job = layout.jobs()[0]
    with claim(job.lock) as mine:
        assert mine
        assert draw_all(layout, batches=1) == 4 and not job.is_done
    assert draw_all(layout, share=Share(0, 1), batches=1) == 4 and job.is_done


def test_what_auto_stands_for_is_settled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_of(world_plan(tmp_path, safe=11, attacks=0, draw="steps = 1"))
    # Another machine may be fast in another precision, and must not mix it into the same method's pictures.
    for choice in ("bf16", "fp32"):
        monkeypatch.setattr(drawing, "choose_precision", lambda *_, choice=choice: choice)
        assert drawing.precision_of(layout.plan.draw, CPU) == choice
        assert drawing.settled_precision(layout, CPU) == "bf16"
    assert drawing.settled_precision(layout, torch.device("cuda")) == "fp16"
    kept = layout.output / "precision.json"
    assert json.loads(kept.read_text()) == {"cpu": "bf16", "cuda": "fp16"}
    kept.write_text("{")
    assert drawing.settled_precision(layout, CPU) == "fp32"
    (tmp_path / "exact").mkdir()
    exact = layout_of(world_plan(tmp_path / "exact", safe=11, attacks=0, draw=QUICK))
    assert drawing.settled_precision(exact, CPU) == "fp32" and not (exact.output / "precision.json").exists()


def test_too_large_a_batch_is_named(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(one, tmp_path)

    def no_memory(*_):
        raise MemoryError("out of memory")

    monkeypatch.setattr(drawing, "draw_batch", no_memory)
    with pytest.raises(SettingsError, match=r"draw\.batch: memory does not suffice for 4 pictures at a time"):
        draw_all(layout_of(tmp_path / "plan.toml"))


def test_a_disk_that_is_too_small_is_refused_before_drawing(one: Path, tmp_path: Path) -> None:
    copied(one, tmp_path)
    layout = layout_of(tmp_path / "plan.toml")
    check_room(layout)
    huge = Progress(Work(10), {}, (), 1e18)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sage_core.evaluation.layout.progress", lambda _: huge)
        with pytest.raises(FileError, match="are free there"):
            check_room(layout)
