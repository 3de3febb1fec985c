"""The Slurm script of the documents, word for word, with Slurm's programs and variables in miniature."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small_worlds import world_plan

ROOT = Path(__file__).parents[2]


def script() -> str:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (found,) = [block for block in text.split("```\n") if block.startswith("#!/bin/bash\n#SBATCH")]
    return found


def program(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


def task(folder: Path, number: int) -> subprocess.Popen:
    slurm = {"SLURM_JOB_ID": f"70{number}", "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": "2"}
    environment = {**os.environ, **slurm, "HOME": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        ["bash", str(folder / "job.sh")], cwd=folder, env=environment, start_new_session=True, stderr=subprocess.PIPE
    )


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="Slurm runs on Linux")
def test_the_script_of_the_documents_shares_a_plan_and_goes_back_into_the_queue(tmp_path: Path) -> None:
    programs = tmp_path / "sage" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    program(programs / "srun", 'exec "$@"')
    program(programs / "scontrol", f'echo "$@" >> "{tmp_path}/asked"')
    main = "import sys; from sage_core.cli.main import main; sys.exit(main())"
    program(programs / "sage", f"exec '{sys.executable}' -c '{main}' \"$@\"")
    (tmp_path / "job.sh").write_text(script())
    world_plan(tmp_path, safe=12, attacks=2, draw="steps = 1\nbatch = 2")
    output = tmp_path / "evaluation"
    first, second = task(tmp_path, 1), task(tmp_path, 2)
    while not list(output.glob("records/**/*.json")):
        assert first.poll() is None and second.poll() is None
        time.sleep(0.05)
    # The time limit comes near: the batch shell alone is told; then Slurm ends the job, and starts it again.
    second.send_signal(signal.SIGTERM)
    while not (tmp_path / "asked").exists():
        time.sleep(0.05)
    assert (tmp_path / "asked").read_text() == "requeue 702\n"
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    again = task(tmp_path, 2)
    for process in (first, again):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    assert len(list(output.rglob("*.png"))) - len(list((output / "report").rglob("*.png"))) == 32
    assert (output / "report" / "report.html").exists()
