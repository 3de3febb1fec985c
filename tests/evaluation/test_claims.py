"""Claims between machines: leases where the system's locks do not reach, and nothing lost or done twice."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
import torch

from sage_core.errors import SettingsError
from sage_core.evaluation import answering, claims
from sage_core.evaluation.bases import load
from sage_core.evaluation.claims import AUTO, LEASES, SYSTEM, claim, lock_suffix, locks_are_shared
from sage_core.evaluation.drawing import draw
from sage_core.evaluation.judges import Judges
from sage_core.evaluation.run import open_plan
from sage_core.evaluation.scoring import SCORES
from sage_core.shapes.exam.reader_judge import ReaderJudge
from sage_core.tifa.evaluation import evaluate
from small_worlds import world_plan

CPU = torch.device("cpu")
DRAW = 'steps = 1\nbatch = 4\nprecision = "fp32"'
# A machine whose locks no other machine sees, and whose processes none can ask about.
NODE = """
import fcntl, socket, sys
fcntl.flock = lambda *_: None
socket.gethostname = lambda: sys.argv[1]
from sage_core.evaluation import answering, claims
claims.LEASE, claims._RENEWED, answering._BLOCK = 4.0, 0.5, 3
from sage_core.cli.main import main
sys.exit(main(["evaluate", *sys.argv[2:], "--device", "cpu", "--quiet"]))
"""


def node(folder: Path, name: str, part: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", NODE, name, str(folder / "plan.toml"), "--part", part]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def made(folder: Path) -> dict[str, bytes]:
    """Pictures, scores and tables of a plan."""
    output = folder / "evaluation"
    kinds = ("pictures/**/*.png", "scores/**/*.json", "report/table_*.csv", "report/answers.csv")
    return {str(file.relative_to(output)): file.read_bytes() for kind in kinds for file in output.glob(kind)}


def plan_with_leases(folder: Path) -> Path:
    file = world_plan(folder, safe=12, attacks=3, draw=DRAW)
    file.write_text(f'locks = "{LEASES}"\n{file.read_text()}')
    return file


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("one")
    plan_with_leases(folder)
    finish(node(folder, "alone", "1/1"))
    return made(folder)


@pytest.mark.full
@pytest.mark.parametrize("killed_at", ["records/**/*.json", "scores/*/tifa-*/*.json"])
def test_machines_that_see_no_locks_of_each_other_lose_and_double_nothing(
    one: dict[str, bytes], tmp_path: Path, killed_at: str
) -> None:
    plan_with_leases(tmp_path)
    first, second = node(tmp_path, "first", "1/2"), node(tmp_path, "second", "2/2")
    while not list((tmp_path / "evaluation").glob(killed_at)):
        assert first.poll() is None and second.poll() is None
        time.sleep(0.02)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    finish(first)
    assert made(tmp_path) == one
    left = [file.name for file in (tmp_path / "evaluation").rglob("*") if file.suffix in (".jsonl", ".part", ".lease")]
    assert left == []


def test_of_two_that_see_no_locks_one_has_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    for kind, both in ((SYSTEM, True), (LEASES, False)):
        file = tmp_path / f"work{lock_suffix(kind, tmp_path)}"
        with claim(file) as first, claim(file) as second:
            assert first and bool(second) is both
        with claim(file) as again:
            assert again
    assert not file.exists()


def test_a_lease_is_taken_over_once_it_is_not_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE", 0.4)
    monkeypatch.setattr(claims, "_RENEWED", 0.1)
    file, here = tmp_path / "work.lease", socket.gethostname()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    with claim(file) as theirs:
        monkeypatch.setattr(socket, "gethostname", lambda: here)
        # For as long as it is renewed it is theirs.
        until = time.monotonic() + 0.8
        while time.monotonic() < until:
            with claim(file) as mine:
                assert not mine
            time.sleep(0.02)
        # Their machine stands still.
        monkeypatch.setattr("filelock._soft._lease._RefreshLoop._refresh", lambda _: ("ok", None))
        until = time.monotonic() + 10
        while not mine and time.monotonic() < until:
            time.sleep(0.02)
            with claim(file) as mine:
                if mine:
                    # When they go on, they see that it is another's.
                    assert not theirs
                    break
        assert time.monotonic() < until
    assert not file.exists()


def test_what_was_taken_over_meanwhile_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = open_plan(plan_with_leases(tmp_path))
    job = layout.jobs()[0]
    assert job.lock.suffix == ".lease"
    real = claims.Claim.__bool__
    monkeypatch.setattr(claims.Claim, "__bool__", lambda claim: real(claim) and not taken)
    monkeypatch.setattr("sage_core.evaluation.drawing.draw_batch", lambda *_: taken.append(1))
    taken: list[int] = []

    def told(done: int, _: int) -> None:
        if taken:
            raise KeyboardInterrupt

    monkeypatch.setattr("sage_core.evaluation.drawing.time.sleep", lambda _: told(0, 0))
    with pytest.raises(KeyboardInterrupt):
        draw(layout, lambda: load(None), device=CPU)
    assert not list(layout.output.rglob("*.png")) and not job.is_done and not job.lock.exists()


def test_answers_of_a_stopped_process_are_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = open_plan(plan_with_leases(tmp_path))
    # The base's captions.
    assert draw(layout, lambda: load(None), device=CPU, batches=3) == 12
    bench, method = Judges(layout, CPU), layout.plan.methods[0]
    listed = bench.captions
    files, asked = layout.files(method, listed), [listed.questions[item.source] for item in listed.items]
    expected = evaluate(files, asked, ReaderJudge(), name=method.name)
    # Two were stopped, one of them within a line; an earlier release named its log otherwise.
    folder = bench.folder(method) / f"tifa-{bench.key('tifa')[:8]}"
    ids = [item.id for item in listed.items]
    for name, part in (("000000.jsonl", slice(0, 4)), ("000000.0a.jsonl", slice(3, 7))):
        evaluate(files[part], asked[part], ReaderJudge(), image_ids=ids[part], log=folder / name)
    with open(folder / "000000.0a.jsonl", "a", encoding="utf-8") as log:
        log.write('{"image": ')
    counted: list[int] = []
    real = ReaderJudge.answer

    def count(judge, images, questions, **more):
        counted.append(sum(map(len, questions)))
        return real(judge, images, questions, **more)

    monkeypatch.setattr(ReaderJudge, "answer", count)
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("a log of its own needs no lock"))
    assert SCORES["tifa"](bench, method) == expected.to_dict()
    assert sum(counted) == sum(map(len, asked[7:]))
    assert [file.name for file in folder.iterdir()] == ["000000.json"]
    # One was killed when the block was there, and its log not yet gone.
    (folder / "000000.0b.jsonl").write_text("")
    assert SCORES["tifa"](bench, method) == expected.to_dict()
    assert [file.name for file in folder.iterdir()] == ["000000.json"] and sum(counted) == sum(map(len, asked[7:]))


def test_blocks_of_answers_are_read_once_by_those_who_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = open_plan(plan_with_leases(tmp_path))
    # The base's captions.
    assert draw(layout, lambda: load(None), device=CPU, batches=3) == 12
    monkeypatch.setattr(answering, "_BLOCK", 3)
    bench, method = Judges(layout, CPU), layout.plan.methods[0]
    folder = bench.folder(method) / f"tifa-{bench.key('tifa')[:8]}"
    read: list[str] = []
    real = answering.read_result
    monkeypatch.setattr(answering, "read_result", lambda file: read.append(file.name) or real(file))
    with claim(layout.lock(f"{folder.parent.name}-{folder.name}-6")):
        for _ in range(5):
            assert SCORES["tifa"](bench, method) is None
    assert read == [] and bench.blocks == 3
    assert SCORES["tifa"](bench, method) is not None
    assert sorted(read) == ["000000.json", "000003.json", "000006.json", "000009.json"] and bench.blocks == 4


def test_what_methods_have_in_common_is_made_by_one_process(tmp_path: Path) -> None:
    made = '[[method]]\nname = "{}"\nmake = "{}"\nconcepts = ["skull"]\nstrength = {}\n{}\n'
    methods = [("a", "oce", 1.0, ""), ("b", "oce", 0.5, 'sld = "max"'), ("c", "uce_paper", 1.0, "")]
    file = world_plan(tmp_path, "".join(made.format(*each) for each in methods), attacks=0)
    layout = open_plan(file)
    locks = [layout.making_lock(method) for method in layout.plan.methods[1:]]
    assert locks[0] == locks[1] != locks[2] and len({layout.folder(method) for method in layout.plan.methods}) == 4


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:40 / /net rw,relatime shared:1 - nfs server:/a rw,vers=3,local_lock=none
41 22 0:41 / /net/quick rw,relatime - nfs server:/b rw,vers=3,nolock,local_lock=all
42 22 0:42 / /lustre/my\\040home rw - lustre 10.0.0.1@tcp:/fs rw,flock,lazystatfs
43 22 0:43 / /lustre/local rw - lustre 10.0.0.1@tcp:/fs rw,localflock
44 22 0:44 / /lustre/none rw - lustre 10.0.0.1@tcp:/fs rw
45 22 0:45 / /four rw - nfs4 server:/c rw,local_lock=none
46 22 0:46 / /four rw - nfs4 server:/c rw,local_lock=flock
not a mount
"""


@pytest.mark.parametrize(
    ("folder", "shared"),
    [
        ("/home/plan", True),
        ("/net/plan", True),
        ("/net/quick", False),
        ("/net/quicker", True),
        ("/lustre/my home/plan", True),
        ("/lustre/local/plan", False),
        ("/lustre/none/plan", False),
        ("/four/plan", False),
    ],
)
def test_mounts_say_whether_locks_reach_other_machines(
    folder: str, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locks_are_shared(Path(folder), MOUNTS) is shared
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(claims, "_MOUNTS", tmp_path / "mounts")
    assert lock_suffix(AUTO, Path(folder)) == (".lock" if shared else ".lease")
    monkeypatch.setattr(claims, "_MOUNTS", tmp_path / "none")
    assert lock_suffix(AUTO, Path(folder)) == lock_suffix(SYSTEM, Path(folder)) == ".lock"


def test_a_filelock_without_leases_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = type(sys)("filelock")
    older.FileLock, older.Timeout = filelock.FileLock, filelock.Timeout
    monkeypatch.setitem(sys.modules, "filelock", older)
    with (
        pytest.raises(SettingsError, match=r"pip install 'filelock>=3\.30', or set locks = 'system'"),
        claim(tmp_path / "a.lease"),
    ):
        pass
    with claim(tmp_path / "a.lock") as mine:
        assert mine
    shutil.rmtree(tmp_path)
