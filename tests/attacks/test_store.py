"""Whole attacks by a plan: found again, gone on with, and refused before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_unets import ramp
from torch import nn

from sage_core.attacks.budgets import AttackBudget
from sage_core.attacks.plans import AttackPlan
from sage_core.attacks.store import AttackedModel, attack_stored, summary
from sage_core.encoders.text_encoder import EncoderConfig, TextEncoder
from sage_core.encoders.tokens import detokenize
from sage_core.errors import PromptError, SettingsError, UnetError
from sage_core.runs.store import RunStore

PLAN = AttackPlan(
    ("a red skull on the grass", "one skull"),
    "skull",
    budget=AttackBudget(3, looks=1, below=1e-6),
    candidates=4,
    draws=1,
    sampling_steps=2,
)


@pytest.fixture(scope="module")
def models(base: TextEncoder, weak: TextEncoder, unet: nn.Module) -> tuple[AttackedModel, AttackedModel]:
    return AttackedModel(weak.state(), unet.state_dict()), AttackedModel(base.state(), unet.state_dict())


@pytest.mark.parametrize("method", ["tokens", "genetic", "soft", "inversion"])
@pytest.mark.parametrize("aim", ["embedding", "direction", "noise", "pictures", "pooled"])
def test_every_method_runs_for_every_goal(method: Any, aim: Any, models, tmp_path: Path) -> None:
    plan = replace(PLAN, method=method, aim=aim, place="", count=0)
    references = torch.randn(1, 4, 2, 2) if aim == "pictures" else None
    found = attack_stored(plan, *models, tmp_path, size=16, references=references)
    assert found.outcome.success.n == 2 and len(found.outcome.history) == 3
    assert len(found.texts()) == 2 and len(found.embeddings()) == {"soft": 2, "inversion": 1}.get(method, 0)
    if method == "inversion":
        assert found.texts() == ["a red * on the grass", "one *"]
        assert found.texts(["embedding:mine"]) == ["a red embedding:mine on the grass", "one embedding:mine"]
    if method == "soft":
        assert [text.count("embedding:") for text in found.texts(["embedding:1", "embedding:2"])] == [1, 1]
        assert "embedding:2" in found.texts(["embedding:1", "embedding:2"])[1]
    again = attack_stored(plan, *models, tmp_path, size=16, references=references)
    assert again.found and not found.found and again.texts() == found.texts()
    assert torch.equal(again.outcome.distances, found.outcome.distances)
    assert again.outcome.curve() == found.outcome.curve() and again.metadata == found.metadata
    (run,) = RunStore(tmp_path).runs()
    assert run.finished and f"attack on the {aim}, skull, 3 steps" in run.summary()
    assert "Found, not run again" in summary(plan, again, None)


def test_an_attack_that_random_starts_end_is_found_again(models, tmp_path: Path) -> None:
    plan = replace(PLAN, budget=replace(PLAN.budget, below=1e6))
    first, again = (attack_stored(plan, *models, tmp_path) for _ in range(2))
    assert first.outcome.history == () and again.found and again.texts() == first.texts()
    assert "random starts broke 2" in summary(plan, again, None)


def test_a_stopped_attack_goes_on_to_the_same_end(models, tmp_path: Path) -> None:
    whole = attack_stored(PLAN, *models, tmp_path / "whole")

    def stop(report: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack_stored(PLAN, *models, tmp_path / "cut", on_step=stop)
    assert list((tmp_path / "cut").glob("*.checkpoint"))
    resumed = attack_stored(PLAN, *models, tmp_path / "cut")
    assert not resumed.found and resumed.texts() == whole.texts()
    assert torch.equal(resumed.outcome.distances, whole.outcome.distances)
    assert not list((tmp_path / "cut").glob("*.checkpoint"))


def test_other_inputs_are_other_runs(models, tmp_path: Path) -> None:
    weak, base = models
    for plan, victim in ((PLAN, weak), (PLAN, base), (replace(PLAN, seed=1), weak)):
        assert not attack_stored(plan, victim, base, tmp_path).found
    listed = [run.summary().split("MiB")[1].strip() for run in RunStore(tmp_path).runs()]
    attack = "token search, attack on the embedding, skull, 3 steps"
    assert sorted(listed) == [attack.replace("embedding", "embedding, control on the base"), attack, attack]


def test_the_name_of_a_run_stays(tmp_path: Path) -> None:
    """A run whose name changes would be made again by everyone who has it."""

    def stop(report: object) -> None:
        raise KeyboardInterrupt

    config = EncoderConfig(layers=1, width=16, heads=1, mlp_width=16, vocabulary=49408, positions=77)
    model = AttackedModel(ramp({name: torch.empty(shape) for name, shape in config.shapes().items()}))
    with pytest.raises(KeyboardInterrupt):
        attack_stored(PLAN, model, model, tmp_path, on_step=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["c544b21d5d295636f01845a7c73dea35.checkpoint"]


def test_a_found_text_about_a_minor_is_withheld(models, tmp_path: Path) -> None:
    found = attack_stored(PLAN, *models, tmp_path)
    row = found.outcome.attempt.ids[0]
    from sage_core.encoders.tokens import tokenize

    row.copy_(tokenize(["a child"])[0])
    assert found.texts()[0] == "(withheld: it refers or may refer to a minor)"
    assert detokenize(found.outcome.attempt.ids[1:2]) == found.texts()[1:]


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"prompts": ("a skull", "a child")}, PromptError, "Prompt 2 of 2 refers or may refer to a minor"),
        ({"prompts": ()}, PromptError, "No prompt to attack with"),
        ({"concept": "teen"}, PromptError, "Concept 1 of 1 refers or may refer to a minor"),
        ({"only": ("red", "teen")}, PromptError, "Word 2 of 2 refers"),
        ({"aim": "direction", "concept": ""}, SettingsError, "no concept was named"),
        ({"count": 76}, SettingsError, "count is 76"),
    ],
)
def test_bad_plans_are_refused_before_anything_runs(changed: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        replace(PLAN, **changed)


def test_models_that_do_not_fit_are_refused(models, tmp_path: Path) -> None:
    weak, base = models
    noise = replace(PLAN, aim="noise")
    alone = AttackedModel(weak.encoder)
    with pytest.raises(SettingsError, match="goes through the U-Net, and none is given"):
        attack_stored(noise, alone, base, tmp_path)
    with pytest.raises(SettingsError, match="size is 15"):
        attack_stored(noise, weak, base, tmp_path, size=15)
    with pytest.raises(SettingsError, match="0 pictures of the concept were given for 2 prompts"):
        attack_stored(replace(PLAN, aim="pictures"), weak, base, tmp_path, size=16)
    with pytest.raises(UnetError):
        attack_stored(noise, AttackedModel(weak.encoder, {"x": torch.zeros(1)}), base, tmp_path)
    with pytest.raises(PromptError, match="No token is left"):
        attack_stored(replace(PLAN, only=("skull",), without=("skull",)), weak, base, tmp_path)
