"""Each public command of the benches and of the shapes world's training starts and says what it takes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = (
    "sage_core.bench", "sage_core.bench.drawing", "sage_core.bench.erasing", "sage_core.bench.scoring",
    "sage_core.shapes.bench.stability", "sage_core.shapes.train",
)  # fmt: skip


# As `python -m` runs each, one after the other: most of their time goes into importing what all need.
HELP = """
import runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert not ended.code, name
        print("END", flush=True)
"""


@pytest.mark.parametrize(
    "commands", [("sage_core.shapes.bench",), pytest.param(COMMANDS, marks=pytest.mark.full)], ids=["one", "others"]
)
def test_commands_explain_themselves(commands):
    # In a process of its own: a package that is imported twice in one would leave two of itself.
    done = subprocess.run([sys.executable, "-c", HELP, *commands], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for command, text in zip(commands, done.stdout.split("END\n"), strict=False):
        assert f"usage: python -m {command}" in text and "--output" in text
    assert done.stdout.count("END\n") == len(commands)


MAINS = {
    "sage_core.bench.run": ("--size",),
    "sage_core.bench.drawing": ("--pictures", "--threads"),
    "sage_core.bench.erasing": ("--concepts",),
    "sage_core.bench.scoring": ("--images", "--official"),
    "sage_core.shapes.bench.run": ("--seeds",),
    "sage_core.shapes.bench.stability": ("--seeds", "--steps"),
    "sage_core.shapes.train.run": ("--minutes",),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("module", MAINS)
def test_what_cannot_be_done_is_refused_before_any_work(module, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "out").mkdir()
    output = ["--output", str(tmp_path / "out")]
    tried = [(["--device", device, *output], "--device is ") for device in ("gpu", "cuda:99", "meta", "", "x" * 200)]
    tried += [(["--output", str(tmp_path / name)], "file") for name in ("file", "file/in it")]
    tried += [
        ([option, value, *output], option) for option in MAINS[module] for value in ("0", "-1", "nan", "9" * 400, "")
    ]
    main = importlib.import_module(module).main
    for arguments, message in tried:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capsys.readouterr()
        assert ended.value.code == 2 and message in shown.err and not shown.out, arguments
    if module == "sage_core.shapes.bench.run":
        with pytest.raises(SystemExit):
            main(["--store", str(tmp_path / "file"), "--device", "cpu", *output])
        assert "encoder.safetensors cannot be written" in capsys.readouterr().err
    assert list((tmp_path / "out").rglob("*")) in ([], [tmp_path / "out" / "checkpoints"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no other")
def test_an_output_where_no_folder_can_be_made_is_refused(capsys):
    for module in MAINS:
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(module).main(["--output", "/proc/none"])
        assert ended.value.code == 2 and "cannot be written" in capsys.readouterr().err
