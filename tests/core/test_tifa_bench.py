"""The benchmark's own claim: batched scoring gives the official procedure's answers."""

import pytest

from sage_core.tifa.bench import main


@pytest.mark.slow
def test_benchmark_runs_and_answers_are_identical(capsys):
    main(["--small", "--images", "3", "--official", "2"])
    rows = capsys.readouterr().out.splitlines()
    assert [row for row in rows if "batched" in row and "12 of 12 identical" in row] == rows[-2:]
