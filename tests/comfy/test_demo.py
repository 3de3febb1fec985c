"""The `sage-demo` command: what it leaves, and one clear line with nothing left running when something is wrong."""

import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import sage_demo
from sage_core.shapes.captions import matched_pairs
from sage_core.shapes.render import render
from sage_core.shapes.scenes import sample_scenes
from sage_core.shapes.weights import ExpandedFiles
from sage_demo import demo
from sage_demo.comfyui import Server
from sage_demo.exam import SEED, Exam
from sage_demo.provision import ComfyError, cache_folder, provision
from sage_demo.spaces import compare_spaces

TINY = demo.Plan(pairs=64, steps=1, batch_size=20, safe=3, seen=2, unseen=1, sampling_steps=2)


@pytest.fixture(autouse=True)
def own_signals() -> None:
    """The command takes over SIGTERM; give it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_demo_leaves_pictures_curves_and_reports(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(demo, "QUICK", TINY)
    assert demo.main(["--quick", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for stage in ("Start ComfyUI", "Train DES", "Train SAGE", "Draw with Base", "Draw with SAGE"):
        assert f"{stage}: done in" in shown
    files = ["comparison.png", "pictures", "rates.png", "report.html", "report.json", "report.md"]
    files += [f"{kind}_{name}.png" for kind in ("geometry", "training") for name in ("des", "sage")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["encoders"]) == ["Base", "DES", "SAGE"]
    for name, marks in report["encoders"].items():
        assert marks["concept_shown"]["images"] == 3
        assert marks["safe"]["captions"] == 3 and 0 <= marks["safe"]["tifa"] <= 1
        assert ("space" in marks) == (name != "Base")
        pictures = sorted((tmp_path / "pictures" / name.lower()).iterdir())
        assert len(pictures) == 6
        with Image.open(pictures[0]) as picture:
            assert picture.size == (64, 64)
    assert report["trainings"]["DES"]["method"] == "DES" and report["trainings"]["SAGE"]["method"] == "SAGE"
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 6 and "| SAGE |" in (tmp_path / "report.md").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_nothing_running(tmp_path: Path, ending: signal.Signals, interruptible: None) -> None:
    command = [sys.executable, "-m", "sage_demo.demo", "--output", str(tmp_path), "--quick"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            for line in running.stdout:
                if line.startswith("Train "):
                    break
            children = psutil.Process(running.pid).children(recursive=True)
            assert children
            running.send_signal(ending)
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
    assert f"'{port}' is no port" in capsys.readouterr().err


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
    assert capsys.readouterr().err.startswith(f"sage-demo: {tmp_path} has 5 MiB of free disk space, and 1,200 MiB are")


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


def test_exam_gives_rendered_truth_full_marks_and_wrong_pictures_none() -> None:
    exam = Exam.make(safe=12, seen=6, unseen=4)
    assert exam == Exam.make(safe=12, seen=6, unseen=4)
    assert not set(exam.unseen) & set(exam.seen)
    scenes = [
        sample_scenes(12, seed=SEED, unsafe=False, split="any"),
        matched_pairs(6, seed=SEED + 1, names="seen", split="any").unsafe_scenes,
        matched_pairs(4, seed=SEED + 2, names="unseen", split="any").unsafe_scenes,
    ]
    arrays = [np.uint8(255 * image.permute(1, 2, 0).numpy()) for part in scenes for image in render(part, seed=0)]
    images = [Image.fromarray(array) for array in arrays]
    truth = exam.mark("truth", images)
    assert truth.tifa.average > 0.98 and truth.concept.share == 1
    assert truth.right(0) == (len(exam.questions[0]), len(exam.questions[0]))
    swapped = exam.mark("swapped", images[12:16] + images[4:12] + images[:10])
    assert swapped.tifa.average < truth.tifa.average and swapped.concept.hits == 0
    assert swapped.right(0)[0] < swapped.right(0)[1] and swapped.right(5) == truth.right(5)


def test_a_space_compares_with_itself_as_unchanged(server: Server, shapes_files: ExpandedFiles) -> None:
    name = shapes_files.text_encoder.name
    (space,) = compare_spaces(server, name, {"itself": name}).values()
    assert (space.spread_ratio, space.jaccard, space.verdict) == (1, 1, "healthy")
    assert space.found["prompts"] > 100 and space.page.width > 800


def test_workflows_are_part_of_the_installed_package() -> None:
    folder = Path(sage_demo.__file__).parent
    assert (folder / "api" / "train_and_compare.json").is_file() and os.access(folder / "host.py", os.R_OK)
