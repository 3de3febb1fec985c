"""Files are seen whole or not at all."""

from __future__ import annotations

import json
import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from sage_core.files import whole_file, write_json


def test_a_failure_leaves_the_old_content_and_nothing_beside_it(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half of")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_a_file_replaces_the_old_one_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "report.json"
    write_json(path, {"old": 1})
    write_json(path, {"new": "é"})
    assert path.read_bytes() == '{\n  "new": "é"\n}\n'.encode()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_file_may_be_read_by_whom_the_user_lets_read(tmp_path):
    before = os.umask(0o022)
    try:
        write_json(tmp_path / "report.json", {})
        with whole_file(tmp_path / "state.safetensors") as temporary:
            save_file({"weight": torch.zeros(2)}, temporary)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o644}
