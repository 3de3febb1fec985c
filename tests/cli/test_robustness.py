"""What happens to the command line's files, signals and terminals when they are not as they should be."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage_core.cli import common
from sage_core.cli.main import main
from sage_core.errors import SettingsError

# Whoever starts the tests in the background has SIGINT ignored, and children would inherit that.
pytestmark = pytest.mark.usefixtures("interruptible")

COMMAND = [sys.executable, "-c", "from sage_core.cli.main import main; raise SystemExit(main())"]
HEAVY = ("torch", "numpy", "matplotlib", "transformers", "scipy", "PIL", "tqdm")


def run(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
    environment = os.environ | options.pop("environment", {})
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120, **options,
    )  # fmt: skip


# -- starting ----------------------------------------------------------------------------------------------------------


def test_help_and_wrong_command_lines_import_nothing_heavy():
    script = (
        "import sys\nfrom sage_core.cli.main import main\n"
        "for arguments in (['--help'], ['train', '--help'], ['score', '--help'], ['paint'], ['--version']):\n"
        "    try:\n        main(arguments)\n    except SystemExit:\n        pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert found.stdout.splitlines()[-1] == "HEAVY []"


# -- outputs that are inputs -------------------------------------------------------------------------------------------


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Files that no command could use, so that what refuses an output refuses it before any is read."""
    monkeypatch.chdir(tmp_path)
    for name in ("base.safetensors", "aligned.safetensors", "prompts.txt", "questions.json", "pairs.csv", "a.json"):
        Path(name).write_bytes(b"content of " + name.encode())
    for folder in ("judge", "pictures", "encoder"):
        Path(folder).mkdir()
    Path("judge/config.json").write_text("{}", encoding="utf-8")
    Path("encoder/model.safetensors").write_bytes(b"weights")
    Path("pictures/17.png").write_bytes(b"picture")
    Path("link.safetensors").symlink_to("base.safetensors")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


SPACES = ("base.safetensors", "aligned.safetensors", "prompts.txt")
TRAIN = ("train", "base.safetensors", "pairs.csv", "--concept", "x", "--out")
SCORE = ("score", "pictures", "questions.json", "--judge", "judge")
LORA = ("extract-lora", "base.safetensors", "aligned.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TRAIN, "base.safetensors"], "--out is 'base.safetensors', which BASE is read from"),
        ([*TRAIN, "./sub/../base.safetensors"], "which BASE is read from"),
        ([*TRAIN, "link.safetensors"], "which BASE is read from"),
        ([*TRAIN, "o.safetensors", "--report", "pairs.csv"], "--report is 'pairs.csv', which PAIRS is read from"),
        ([*TRAIN, "o.safetensors", "--curves", "o.safetensors"], "--curves and --out are the same file"),
        ([*TRAIN, "o.safetensors", "--unsafe", "a.json", "--report", "a.json"], "which --unsafe is read from"),
        ([*TRAIN, "judge.safetensors", "--report", "judge"], "--report is 'judge', a folder"),
        (["geometry", *SPACES, "--page", "prompts.txt"], "--page is 'prompts.txt', which PROMPTS is read from"),
        (["geometry", *SPACES, "--unsafe", "a.json", "--report", "a.json"], "which --unsafe is read from"),
        (["geometry", "encoder", *SPACES[1:], "--report", "encoder/model.safetensors"], "which BASE is read from"),
        (["neighbours", *SPACES, "--page", "aligned.safetensors"], "which ALIGNED is read from"),
        (["geometry", *SPACES, "--page", "page.jpg"], "--page is 'page.jpg'; expected a file name that ends in .png."),
        ([*TRAIN, "o.safetensors", "--curves", "c"], "--curves is 'c'; expected a file name that ends in .png."),
        (["neighbours", *SPACES, "--page", "n.png", "--report", "n.png"], "--page and --report are the same file"),
        (["drift", *SPACES, "--report", "link.safetensors"], "which BASE is read from"),
        (["drift", *SPACES, "--among", "a.json", "--report", "a.json"], "which --among is read from"),
        ([*SCORE, "--report", "questions.json"], "which QUESTIONS is read from"),
        ([*SCORE, "--log", "judge/config.json"], "which --judge is read from"),
        ([*SCORE, "--log", "pictures/17.png"], "which has the name of a picture"),
        ([*SCORE, "--log", "same.json", "--report", "same.json"], "--report and --log are the same file"),
        ([*LORA, "aligned.safetensors", "--rank", "4"], "OUT is 'aligned.safetensors', which ALIGNED is read from"),
        ([*LORA, "link.safetensors", "--rank", "4"], "which BASE is read from"),
        ([*LORA, "o.safetensors", "--rank", "4", "--prompts", "a.json", "--report", "a.json"], "which --prompts is"),
        (["agreement", "a.json", "--report", "a.json"], "--report is 'a.json', which FILE is read from"),
    ],
)
def test_an_output_that_would_destroy_an_input_is_refused_before_any_work(inputs, capsys, arguments, message):
    before = contents(inputs)
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert contents(inputs) == before


def test_outputs_that_destroy_nothing_pass(inputs):
    known = {"BASE": Path("base.safetensors"), "MODEL": Path("judge"), "none": None}
    common.check_outputs({"--report": Path("new.json"), "--page": Path("judge/new.png"), "--log": None}, known)
    common.check_outputs({"--report": Path(os.devnull), "--page": Path(os.devnull)}, known)
    Path("circle").symlink_to("circle")
    common.check_outputs({"--report": Path("new.json")}, {"BASE": Path("circle")})
    with pytest.raises(SettingsError, match="same file"):
        common.check_outputs({"--report": Path("new.json"), "--page": Path("judge/../new.json")}, known)


# -- signals -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(*arguments: str | Path):
    # Tests that run in the background of a shell have SIGINT ignored, and children inherit that.
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + COMMAND[2],
         *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# Stands for work that answers an interrupt by saving what it has, which takes a while.
SAVING = """
import pathlib, sys, time
from sage_core.cli import agreement
def run(options):
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("saving", flush=True)
        time.sleep(1.5)
        pathlib.Path(options.file).write_text("saved")
agreement.run = run
"""


def interrupt_while_saving(path: Path, *presses: int) -> tuple[int, str]:
    script = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler){SAVING}{COMMAND[2]}"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "agreement", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "working\n"
        process.send_signal(presses[0])
        assert process.stdout.readline() == "saving\n"
        for press in presses[1:]:
            process.send_signal(press)
            time.sleep(0.2)
        _, error = process.communicate(timeout=60)
        return process.returncode, error
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to other processes")
@pytest.mark.parametrize(
    "presses",
    [
        [signal.SIGINT, signal.SIGINT],
        *(pytest.param([number], marks=pytest.mark.full) for number in (signal.SIGINT, signal.SIGTERM)),
    ],
)
def test_an_interrupt_lets_work_save_what_it_has(tmp_path, presses):
    code, error = interrupt_while_saving(tmp_path / "file", *presses)
    assert code == 130
    assert "Traceback" not in error
    assert error.endswith("sage: interrupted\n")
    assert (tmp_path / "file").read_text() == "saved"


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to other processes")
def test_a_third_interrupt_stops_at_once(tmp_path):
    code, error = interrupt_while_saving(tmp_path / "file", *[signal.SIGINT] * 3)
    assert code == 130
    assert "Traceback" not in error
    assert not (tmp_path / "file").exists()


# Stands for PyTorch, whose import takes seconds on a slow machine.
IMPORTED = """
import pathlib, time
pathlib.Path({mark!r}).touch()
time.sleep(60)
"""


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to other processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("becomes", ["KeyboardInterrupt", "another error"])
def test_an_interrupt_while_importing_leaves_no_traceback(tmp_path, monkeypatch, number, becomes):
    code = IMPORTED.format(mark=str(tmp_path / "importing"))
    if becomes == "another error":
        # As extension modules do, which cannot be half imported.
        code = code.replace(
            "time.sleep(60)", "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    raise ImportError"
        )
    (tmp_path / "torch.py").write_text(code)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with started("geometry", "a.safetensors", "b.safetensors", tmp_path / "prompts.txt") as process:
        for _ in range(600):
            if (tmp_path / "importing").exists():
                break
            time.sleep(0.1)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error and "Traceback" not in error


# -- terminals and full disks ------------------------------------------------------------------------------------------

ANNOTATIONS = {
    str(place): {
        "human_avg": place, "clipscore_vitb32": place**2, "tifa_vilt": -place, "tifa_ofa-large": place % 2,
        "tifa_git-large": place, "tifa_blip2-flant5xl": place, "tifa_mplug-large": place,
    }
    for place in range(1, 6)
}  # fmt: skip


@pytest.fixture
def annotations(tmp_path) -> Path:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(ANNOTATIONS), encoding="utf-8")
    return path


def test_agreement_shows_the_table_and_writes_json(annotations, tmp_path, capsys):
    assert main(["agreement", str(annotations), "--report", str(tmp_path / "r.json")]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| metric | Pearson | Spearman | Kendall | images |"
    assert "| TIFA ViLT | -1.000 | -1.000 | -1.000 | 5 |" in table
    assert "| CLIPScore B/32 | 0.981 | 1.000 | 1.000 | 5 |" in table
    assert main(["agreement", str(annotations), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    first = shown["agreement"][0]
    # By hand: the sum of products is 60, the sums of squares are 10 and 374, about the means 3 and 11.
    assert (first["metric"], first["images"]) == ("CLIPScore B/32", 5)
    assert first["pearson"] == pytest.approx(60 / (10 * 374) ** 0.5)
    assert len(shown["agreement"]) == 6


def test_agreement_says_what_is_no_annotation_file(tmp_path, capsys):
    (tmp_path / "no.json").write_text("[]", encoding="utf-8")
    assert main(["agreement", str(tmp_path / "no.json")]) == 1
    assert "no.json: not TIFA's human annotations" in capsys.readouterr().err


def test_a_terminal_that_lacks_characters_gets_codes_instead_of_an_error(tmp_path):
    old = {"PYTHONIOENCODING": "cp1252"}
    found = run("agreement", tmp_path / "no 字 😀.json", environment=old)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert "no \\u5b57 \\U0001f600.json" in found.stderr


def test_a_terminal_gets_no_commands(capsys):
    """Titles, colours and worse, out of stored reports and names."""
    import argparse

    rude, kept = "a\x1b]0;owned\x07\x9b31m\u202eb\rc\n\td", r"a\u001b]0;owned\u0007\u009b31m\u202eb\u000dc" + "\n\td"
    common.write(argparse.Namespace(report=None, json=False), {}, rude)
    common.write(argparse.Namespace(report=None, json=True), {"name": rude}, "")
    common.say(rude)
    told = capsys.readouterr()
    assert told.out.startswith(kept) and json.loads(told.out[len(kept) :]) == {"name": rude}
    assert told.err == kept + "\n" and not set("\x1b\x07\x9b\r\u202e") & set(told.out)


def test_json_for_such_a_terminal_is_json():
    class Narrow:
        encoding = "cp1252"

        def __init__(self) -> None:
            self.text = ""

        def write(self, text: str) -> None:
            self.text += text.encode("cp1252", "backslashreplace").decode("cp1252")

        def flush(self) -> None:
            pass

    import argparse

    value = {"prompt": "字 😀 \x81 ⚠"}
    stream = Narrow()
    before, sys.stdout = sys.stdout, stream
    try:
        common.write(argparse.Namespace(report=None, json=True), value, "")
    finally:
        sys.stdout = before
    assert json.loads(stream.text) == value


@pytest.mark.full
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_of_one_line(annotations):
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [*COMMAND, "agreement", str(annotations)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert found.returncode == 1
    assert found.stderr.splitlines() == ["sage: error: [Errno 28] No space left on device"]


def test_a_closed_pipe_leaves_no_traceback(annotations):
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [*COMMAND, "agreement", str(annotations)], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writer)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr and "Exception ignored" not in found.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_path_that_is_no_text_can_be_reported(tmp_path):
    assert common.path_text(Path(os.fsdecode(b"a\xff.safetensors"))) == "a\\xff.safetensors"


@pytest.mark.full
def test_the_installed_command_is_this_one():
    found = shutil.which("sage")
    if found is None:
        pytest.skip("the package is not installed")
    assert subprocess.run([found, "--version"], capture_output=True, text=True, timeout=120).returncode == 0


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "true", '"0.5"', "null", "1" + "0" * 400, "[" * 50_000])
def test_agreement_refuses_what_is_no_number(tmp_path, capsys, value):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(ANNOTATIONS).replace('"tifa_vilt": -3', f'"tifa_vilt": {value}'), encoding="utf-8")
    assert main(["agreement", str(path)]) == 1
    assert "annotations.json: not TIFA's human annotations" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device that can be read without an end")
@pytest.mark.timeout(20)
def test_agreement_does_not_read_a_device(capsys):
    assert main(["agreement", "/dev/zero"]) == 1
    assert "/dev/zero is a folder or device" in capsys.readouterr().err
