"""Files are seen whole or not at all, and nothing but the file that was meant is replaced."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sage_core.errors import FileError, SageError
from sage_core.files import check_writable, same_file, whole_file, write_json, write_text

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such thing")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_failure_leaves_the_old_content_and_nothing_beside_it(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half of")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"old": 1}
    assert names(tmp_path) == ["report.json"]


def test_a_file_replaces_the_old_one_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "report.json"
    write_json(path, {"old": 1})
    write_json(path, {"new": "é"})
    assert path.read_bytes() == '{\n  "new": "é"\n}\n'.encode()
    assert names(path.parent) == ["report.json"]


@posix
def test_a_file_may_be_read_by_whom_the_user_lets_read(tmp_path):
    before = os.umask(0o022)
    try:
        write_json(tmp_path / "report.json", {})
        with whole_file(tmp_path / "state.safetensors") as temporary:
            save_file({"weight": torch.zeros(2)}, temporary)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o644}


@posix
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    write_text(tmp_path / "a", "old")
    (tmp_path / "a").chmod(mode)
    with whole_file(tmp_path / "a") as temporary:
        save_file({"weight": torch.zeros(2)}, temporary)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@posix
def test_a_link_stays_a_link_and_its_target_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    for content in ("first, where the target is not there yet", "second"):
        link.unlink(missing_ok=True)
        link.symlink_to(Path("far") / "target")
        write_text(link, content)
        assert link.is_symlink() and target.read_text() == content
        assert names(tmp_path) == ["far", "link"] and names(target.parent) == ["target"]


@posix
def test_what_is_no_text_is_spelled_in_json_that_can_be_read(tmp_path):
    """Of file names on Linux, whose bytes may be any."""
    value = {os.fsdecode(b"a\xff.png"): ["\ud83d", "é"]}
    write_json(tmp_path / "report.json", value)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == value


def test_a_pipe_is_written_through(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "report")
    reader.join(10)
    assert read == ["report"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["pipe"]


WRITE_TO_OUTPUT = """
import sys
from sage_core.files import write_text
print("before")
write_text(sys.argv[1], "report\\n")
print("after")
"""


@posix
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_is_written_through(tmp_path, to):
    with contextlib.ExitStack() as stack:
        sink = subprocess.PIPE if to == "pipe" else stack.enter_context(open(tmp_path / "out", "wb"))
        command = [sys.executable, "-c", WRITE_TO_OUTPUT, "/dev/stdout"]
        done = subprocess.run(command, stdout=sink, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert (done.stdout if to == "pipe" else (tmp_path / "out").read_bytes()) == b"before\nreport\nafter\n"


@posix
def test_a_device_is_not_replaced():
    before = os.stat(os.devnull)
    write_text(os.devnull, "report")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode) and os.stat(os.devnull).st_ino == before.st_ino
    # A device that is always full.
    if Path("/dev/full").exists():
        with pytest.raises(FileError, match=r"/dev/full cannot be written: No space left on device\."):
            write_text("/dev/full", "report")


def test_a_folder_is_not_a_file(tmp_path):
    for call in (write_text, lambda path, _: check_writable(path)):
        with pytest.raises(FileError, match="is a folder, expected a file"):
            call(tmp_path, "report")
    write_text(tmp_path / "file", "")
    for call in (write_text, lambda path, _: check_writable(path)):
        with pytest.raises(FileError, match="cannot be written"):
            call(tmp_path / "file" / "report", "report")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("letter", ["a", "ü", "漢", "🐕"])
def test_the_longest_names_are_written(tmp_path, letter):
    longest = letter * (255 // len(letter.encode()))
    write_text(tmp_path / longest, "report")
    assert names(tmp_path) == [longest]
    for call in (write_text, lambda path, _: check_writable(path)):
        with pytest.raises(FileError, match="cannot be written: File name too long"):
            call(tmp_path / (longest + letter), "report")
    assert names(tmp_path) == [longest]


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(FileError, match=r"a cannot be written: No space left on device\. Make room") as caught:
        write_text(tmp_path / "a", "new")
    assert isinstance(caught.value, SageError) and isinstance(caught.value, OSError)
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    with contextlib.suppress(OSError):
        if subprocess.run(command, capture_output=True).returncode == 0:
            yield folder
            subprocess.run(["umount", str(folder)], check=True)
            return
    pytest.skip("needs the right to mount")


@pytest.mark.parametrize("save", ["text", "safetensors", "torch"])
def test_a_disk_that_runs_full_is_named_by_every_writer(small_disk, save):
    path = small_disk / "a"
    write_text(path, "old")
    tensors = {"weight": torch.zeros(100_000)}
    with pytest.raises(FileError, match=r"a cannot be written: .*Make room"), whole_file(path) as temporary:
        if save == "text":
            temporary.write_text("x" * 400_000)
        elif save == "safetensors":
            save_file(tensors, temporary)
        else:
            torch.save(tensors, temporary)
    assert path.read_text() == "old" and names(small_disk) == ["a"]
    check_writable(path, 1000)
    with pytest.raises(FileError, match=r"needs 1,000 kB, and \d+ kB are free"):
        check_writable(path, 1_000_000)


@pytest.mark.parametrize("error", [InterruptedError(), KeyboardInterrupt(), ValueError("No"), OSError("no number")])
def test_what_a_caller_raises_to_stop_passes(tmp_path, error):
    with pytest.raises(type(error)) as caught, whole_file(tmp_path / "a"):
        raise error
    assert caught.value is error and names(tmp_path) == []


def test_check_writable_leaves_everything_as_it_was(tmp_path):
    check_writable(tmp_path / "new" / "a")
    assert names(tmp_path / "new") == []
    write_text(tmp_path / "a", "old")
    check_writable(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a", "new"]


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="a cannot be written: Permission denied"):
        check_writable(tmp_path / "a")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("way", ["same", "dots", "link", "hard link"])
def test_one_file_is_known_by_all_its_names(tmp_path, way):
    mine = tmp_path / "mine"
    mine.write_text("weights")
    other = {"same": mine, "dots": tmp_path / "x" / ".." / "mine"}.get(way, tmp_path / "other")
    (tmp_path / "x").mkdir()
    if way == "link":
        other.symlink_to(mine)
    elif way == "hard link":
        os.link(mine, other)
    assert same_file(other, mine) and same_file(mine, other)
    assert not same_file(tmp_path / "new", mine)
    assert same_file(tmp_path / "new", tmp_path / "x" / ".." / "new")


KILLED = """
import os, signal, sys
import torch
from safetensors.torch import save_file
from sage_core.files import whole_file
with whole_file(sys.argv[1]) as temporary:
    (temporary.parent / ".tmpAbCdEf").write_bytes(b"what safetensors leaves when it is killed")
    save_file({"weight": torch.zeros(2)}, temporary)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_what_killed_processes_left_goes_with_the_next_write(tmp_path):
    file = tmp_path / "a.safetensors"
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (left,) = tmp_path.iterdir()
    number, place = left.name.split(".")[-3:-1]
    elsewhere = tmp_path / left.name.replace(place, f"{int(place[:8], 16) ^ 1:08x}{place[8:]}")
    earlier = tmp_path / left.name.replace(place, place[8:])
    for other in (elsewhere, earlier):
        shutil.copytree(left, other)
    write_text(tmp_path / "b", "at once")
    there = {path.name for path in tmp_path.iterdir()}
    assert left.name not in there or sys.platform != "linux"
    assert {elsewhere.name, earlier.name} < there, f"process {number} of another machine may still be writing"
    long_ago = time.time() - 4000
    for path in tmp_path.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    write_text(tmp_path / "b", "later")
    assert names(tmp_path) == ["b"]


@posix
def test_nothing_else_is_removed(tmp_path):
    others = [
        f".a.{os.getpid()}.0123abcd.part",
        ".a.part",
        ".a.12.xyz.part",
        "a.99999999.0123abcd.part",
        ".a.99999999.0123abcd.part.old",
    ]
    long_ago = time.time() - 4000
    for name in others:
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (long_ago, long_ago))
    far = tmp_path / "far"
    far.mkdir()
    (far / "precious").write_text("")
    (tmp_path / ".a.99999999.0123abcd.part").symlink_to(far)
    (tmp_path / ".b.99999999.0123abcd.part").write_text("a file")
    before = names(tmp_path)
    write_text(tmp_path / "b", "")
    assert names(tmp_path) == sorted([*before, "b"]) and (far / "precious").exists()


def test_safetensors_writes_nothing_next_to_the_file(tmp_path):
    """Its own temporary file goes into the folder that is removed, whoever kills it."""
    with whole_file(tmp_path / "a.safetensors") as temporary:
        assert temporary.parent.parent == tmp_path and temporary.suffix == ""
        save_file({"weight": torch.ones(2)}, temporary)
        assert names(tmp_path) == [temporary.parent.name]
    assert torch.equal(load_file(tmp_path / "a.safetensors")["weight"], torch.ones(2))
