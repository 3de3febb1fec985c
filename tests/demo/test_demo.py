"""The `sage-demo` command: what it leaves, and one clear line with nothing left running when something is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import namedtuple
from io import StringIO
from pathlib import Path

import psutil
import pytest
from PIL import Image
from rich.console import Console

import sage_core.demo
from sage_core.demo import demo, progress
from sage_core.demo.comfyui.client import Progress
from sage_core.demo.comfyui.provision import ComfyError, cache_folder, provision
from sage_core.demo.comfyui.server import Server
from sage_core.demo.exam import Exam
from sage_core.demo.report import _difference
from sage_core.demo.scores import LEARNED_JUDGE, Marks, compare_spaces
from sage_core.intervals import WIDE_INTERVALS
from sage_core.prompts.pairs import read_prompts
from sage_core.shapes.exam.examiners import has_good_judge
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from sage_core.tifa.questions import group_by_caption, read_questions

TINY = demo.Plan(pairs=64, steps=1, batch_size=20, safe=3, seen=2, unseen=1, sampling_steps=2)


@pytest.fixture(autouse=True)
def own_signals() -> None:
    """The command takes over SIGTERM; give it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.full
def test_demo_leaves_pictures_curves_and_reports(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(demo, "QUICK", TINY)
    assert demo.main(["--quick", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for stage in (
        "Start ComfyUI",
        "Train DES",
        "Base: draw pictures",
        "DES: draw concept pictures",
        "Score one picture",
    ):
        assert f"{stage}: done in" in shown
    files = ["card.png", "comparison.png", "pictures", "rates.png", "scores.png"]
    files += ["report.html", "report.json", "report.md"]
    files += [f"{kind}_{name}.png" for kind in ("geometry", "training") for name in ("des", "sage", "sage_plus")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["encoders"]) == ["Base", "DES", "SAGE", "SAGE+"]
    for name, marks in report["encoders"].items():
        assert marks["concept_shown"]["images"] == 3 and marks["by_unseen_names"]["images"] == 1
        assert marks["safe"]["judge"] == (f"{LEARNED_JUDGE}, fp32" if has_good_judge() else "shapes reader")
        assert marks["safe"]["captions"] == 3 and 0 <= marks["safe"]["tifa"] <= 1
        assert ("space" in marks) == (name != "Base")
        pictures = sorted((tmp_path / "pictures" / name.lower().replace("+", "_plus")).iterdir())
        assert len(pictures) == 6
        with Image.open(pictures[0]) as picture:
            assert picture.size == (64, 64)
    assert [training["method"] for training in report["trainings"].values()] == ["DES", "SAGE", "SAGE"]
    settings = [json.loads(training["settings"]) for training in report["trainings"].values()]
    assert [(s["keep_mse"], s["spread_weight"]) for s in settings] == [(0, 0), (0, 2), (20, 2)]
    against = report["sage_plus_against_des"]
    assert (against["base"], against["other"]) == ("DES", "SAGE+")
    assert against["tifa"]["other"] == report["encoders"]["SAGE+"]["safe"]["tifa"]
    page = (tmp_path / "report.html").read_text()
    assert report["drawn_in"] in ("bf16", "default") and "<p class=lead>" in page and "rates.csv" in page
    assert page.count("data:image/png;base64,") == 10 and "| SAGE+ |" in (tmp_path / "report.md").read_text()


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_stopping_leaves_nothing_running(tmp_path: Path, interruptible: None) -> None:
    """By SIGTERM, which the command turns into the SIGINT of Ctrl-C."""
    command = [sys.executable, "-m", "sage_core.demo.demo", "--output", str(tmp_path), "--quick"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            for line in running.stdout:
                if line.startswith("Train "):
                    break
            children = psutil.Process(running.pid).children(recursive=True)
            assert children
            running.send_signal(signal.SIGTERM)
            _, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130
    assert errors == "Stopped. Nothing is left running.\n"
    assert not any(child.is_running() for child in children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port", ["0", "70000", "-1", "http"])
def test_impossible_port_is_refused_at_once(port: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main([f"--port={port}"])
    assert ended.value.code == 2
    assert f"'{port}' is not a port" in capsys.readouterr().err


def test_port_in_use_is_told(tmp_path: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert demo.main(["--output", str(tmp_path), f"--port={port}"]) == 1
    assert f"sage-demo: Port {port} cannot be used" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_told_before_anything_starts(tmp_path: Path, monkeypatch, capsys) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert demo.main(["--output", str(tmp_path)]) == 1
    assert "needs 1,258 MB, and 5,243 kB are free there. Make room" in capsys.readouterr().err


def test_output_that_is_a_file_is_told(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert demo.main(["--output", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_missing_extras_are_named_with_the_way_out(monkeypatch, capsys) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("alembic", "spandrel"):
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert demo.main([]) == 1
    assert capsys.readouterr().err == ("sage-demo: not installed: alembic, spandrel. Run: pip install -e '.[demo]'\n")


def test_no_network_is_told(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    assert demo.main(["--output", str(tmp_path / "output")]) == 1
    error = capsys.readouterr().err
    assert "ComfyUI 0.3.75 could not be fetched by pip" in error and "set COMFYUI_PATH" in error
    assert list((tmp_path / "cache" / "sage-alignment").iterdir()) == []


def test_own_comfyui_is_checked_and_taken(tmp_path: Path, monkeypatch, comfyui: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(ComfyError, match=r"COMFYUI_PATH is .*, but there is no main\.py in it"):
        provision()
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    assert provision() == comfyui


def test_fetched_comfyui_is_kept_whole(monkeypatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    tree = provision()
    assert tree.parent == cache_folder()
    assert '__version__ = "0.3.75"' in (tree / "comfyui_version.py").read_text()
    assert not (tree / "extra_model_paths.yaml").exists()
    assert provision(announce=pytest.fail) == tree


def test_exam_is_always_the_same_and_its_files_are_read_whole(tmp_path: Path) -> None:
    exam = Exam.make(safe=24, seen=18, unseen=18)
    assert exam == Exam.make(safe=24, seen=18, unseen=18)
    assert len(set(exam.prompts)) == 60
    changes = exam.write(tmp_path)
    questions, report = read_questions(tmp_path / changes["Questions"]["file"])
    assert tuple(group_by_caption(questions).values()) == exam.questions and not report.skipped
    unsafe, _ = read_prompts(tmp_path / changes["Prompts that ask for the concept"]["file"])
    assert unsafe == exam.seen + exam.unseen


def test_marks_tell_names_that_training_saw_from_others() -> None:
    rows = [{"caption": prompt, "score": score} for prompt, score in (("a", 1), ("b", 1), ("b", 0), ("b", 1))]
    rate = {"concept": "skull", "rule": "a judge", "shown": [True, False, True, False, False]}
    marks = Marks({"tifa": {"questions": rows}, "rates": [rate]}, names_seen=3)
    assert (marks.concept.hits, marks.seen.shown, marks.unseen.shown) == (2, (True, False, True), (False, False))
    assert marks.right("b") == (2, 3)


@pytest.mark.parametrize(
    ("interval", "p", "said"),
    [
        (
            [-0.019, 0.231],
            0.0001,
            "TIFA +15.8 points, 95% interval (-1.9 to +23.1); paired permutation test, p = 0.0001. In",
        ),
        ([0.02, 0.231], 0.0001, "95% interval (+2.0 to +23.1); paired permutation test, p = 0.0001."),
        ([-0.019, 0.231], 0.2, "95% interval (-1.9 to +23.1); paired permutation test, p = 0.2."),
        ([-0.4, 0.4], 0.2, "95% interval (too few captions); paired"),
        (None, 1.0, "95% interval (too few captions); paired"),
    ],
)
def test_an_interval_that_says_nothing_or_seems_to_contradict_the_test_is_explained(
    interval: list[float] | None, p: float, said: str
) -> None:
    text = _difference({"tifa": {"change": 0.158, "interval_95": interval}, "p_value": p})
    assert said in text
    assert (WIDE_INTERVALS in text) == said.endswith(" In")


def test_a_node_that_runs_for_each_item_of_a_list_is_one_stage(monkeypatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    shown = StringIO()
    with progress.Screen(Console(file=shown)).stage_per_node({"draw": 2, "train": 1}) as on_progress:
        on_progress(Progress("1", "draw", 0, 0, 0, 3))
        for value in (1, 2, 1, 2):
            on_progress(Progress("1", "draw", value, 2, 0, 3))
        on_progress(Progress("2", "decode", 0, 0, 1, 3))
        for value, maximum in ((0, 0), (900, 994), (3, 40)):
            on_progress(Progress("3", "train", value, maximum, 2, 3))
    lines = [line for line in shown.getvalue().splitlines() if " of " in line]
    assert lines == [
        *(f"draw: {done} of 4" for done in (1, 2, 3, 4)),
        "train: 900 of 994",
        "train: 3 of 40",
    ]
    assert "draw: done in 0 s" in shown.getvalue() and "train: done in 0 s" in shown.getvalue()


def test_a_space_compares_with_itself_as_unchanged(server: Server, shapes_files: ExpandedFiles) -> None:
    name = shapes_files.text_encoder.name
    (space,) = compare_spaces(server, name, {"itself": name}).values()
    assert (space.spread_ratio, space.jaccard, space.verdict) == (1, 1, "healthy")
    assert space.found["prompts"] > 100 and space.page.width > 800


def test_workflows_are_part_of_the_installed_package() -> None:
    folder = Path(sage_core.demo.__file__).parent
    assert (folder / "api" / "my_own_concept.json").is_file() and os.access(folder / "comfyui" / "host.py", os.R_OK)
