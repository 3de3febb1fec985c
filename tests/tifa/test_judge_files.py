"""What a judge is called, damaged model files, and devices without double precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sage_core.errors import JudgeError
from sage_core.tifa.judges.base import choice_probabilities, load_judge
from sage_core.tifa.questions import Question
from sage_core.tifa.sentences import SentenceEncoder
from sage_core.tifa.writing.language_model import LanguageModel
from tiny_judges import make_vilt


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges") / "vilt"
    folder.mkdir()
    make_vilt(folder)
    return folder


def test_a_judge_is_called_by_its_folder_and_precision(vilt: Path) -> None:
    assert load_judge(vilt).name == "vilt, fp32"
    assert load_judge(vilt, dtype=torch.bfloat16).name == "vilt, bf16"
    assert load_judge(vilt, name="mine/vilt").name == "mine/vilt, fp32"


@pytest.mark.parametrize("load", [load_judge, LanguageModel.from_folder, SentenceEncoder.from_folder])
@pytest.mark.parametrize("left", [0, 4, 0.5])
def test_a_damaged_download_is_named(tmp_path: Path, vilt: Path, load, left: float) -> None:
    (tmp_path / "config.json").write_bytes((vilt / "config.json").read_bytes())
    whole = (vilt / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: left if left != 0.5 else len(whole) // 2])
    with pytest.raises(JudgeError, match=r"model\.safetensors: damaged or cut short \(.*\)\. Download it again"):
        load(tmp_path)


class _OnAppleGpu(torch.Tensor):
    """Refuses double precision where it lies, as MPS does."""

    def double(self) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_probabilities_need_no_double_precision_on_the_device() -> None:
    questions = [
        Question("c", "a dog", "a dog?", choices, choices[0], "object", "dog")
        for choices in (("yes", "no"), ("a", "b", "c"))
    ]
    found = choice_probabilities(torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0]).log().as_subclass(_OnAppleGpu), questions)
    assert found[0] == pytest.approx((0.5, 0.5)) and found[1] == pytest.approx((0.5, 0.25, 0.25))
