"""What becomes of a model: each change by its own formula, and a whole table at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sage_core.drawing.change import Change
from sage_core.encoders.tokens import tokenize
from sage_core.errors import SettingsError
from sage_core.intervals import Hits
from sage_core.methods.safree import MovedPrompts
from sage_core.shapes.bench import stability
from sage_core.shapes.bench.changes import CHANGES, STRENGTHS, Model, Surroundings
from sage_core.shapes.bench.methods import METHODS
from sage_core.shapes.bench.run import World
from sage_core.shapes.exam.trials import Glance, ModelPainter, TrialSettings
from sage_core.shapes.networks.model import ShapesModel
from sage_core.shapes.tasks import TASKS
from sage_core.shapes.train.tuning import Denoising, TuningSettings
from small_worlds import left_behind

TASK = TASKS["red star"]
TINY = TuningSettings(steps=2, batch=2)


@pytest.fixture(scope="module")
def base(world: World) -> Model:
    return Model(world.model, world.model.encoder)


@pytest.fixture(scope="module")
def made(base: Model) -> Model:
    """A method that changed every weight of the text encoder, and one matrix of the U-Net."""
    generator = torch.Generator().manual_seed(3)

    def change(name: str, weight: torch.Tensor) -> torch.Tensor:
        if name.startswith("unet.") and not name.endswith("attn2.to_k.weight"):
            return weight
        return weight + 0.1 * torch.randn(weight.shape, generator=generator)

    return base.with_weights(change)


@pytest.fixture(scope="module")
def around(base: Model) -> Surroundings:
    return Surroundings(base, TASK, 0, TINY, pictures=6)


def different(one: Model, other: Model) -> set[str]:
    return {name for name, weight in one.weights.items() if not torch.equal(weight, other.weights[name])}


@pytest.mark.parametrize("change", STRENGTHS)
def test_strength_is_a_straight_line_from_the_base(change: str, base: Model, made: Model, around: Surroundings) -> None:
    found, strength = CHANGES[change](made, around), float(change.split()[1])
    for name, weight in found.weights.items():
        expected = base.weights[name].double() * (1 - strength) + made.weights[name].double() * strength
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)


def test_tuning_changes_what_it_says_and_nothing_else(made: Model, around: Surroundings) -> None:
    before = {name: weight.clone() for name, weight in made.weights.items()}
    lora, unet, both = (CHANGES[name](made, around) for name in CHANGES if "LoRA" in name or name.endswith("tuned"))
    assert different(lora, made) and all(".attn" in name for name in different(lora, made))
    assert different(unet, made) > different(lora, made)
    assert all(name.startswith("unet.") for name in different(unet, made))
    layers = {name for name in different(both, made) if name.startswith("encoder.")}
    assert layers and all(".layers." in name for name in layers)
    assert all(torch.equal(weight, before[name]) for name, weight in made.weights.items())
    for name in different(lora, made):
        change = lora.weights[name] - made.weights[name]
        assert int(torch.linalg.matrix_rank(change.double(), atol=1e-6)) <= 8
    again = CHANGES["U-Net tuned"](made, around)
    assert not different(again, unet)


def test_merging_takes_half_of_each(made: Model, around: Surroundings) -> None:
    found, other = CHANGES["merged at 0.5 with a tuned base"](made, around), around.other
    assert different(other, around.base)
    for name, weight in found.weights.items():
        expected = (made.weights[name].double() + other.weights[name].double()) / 2
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)


def test_clip_skip_leaves_the_last_layer_out(base: Model, around: Surroundings) -> None:
    found = CHANGES["clip skip 2"](base, around)
    ids, seen = tokenize(["two red stars"]), []
    layers = [module for name, module in base.encoder.named_modules() if name.endswith("layers.0")]
    hook = layers[0].register_forward_hook(lambda _, __, output: seen.append(output))
    base.encoder(ids)
    hook.remove()
    norm = next(module for name, module in base.encoder.named_modules() if name.endswith("final_layer_norm"))
    first = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    torch.testing.assert_close(found.encoder(ids), norm(first))
    with pytest.raises(SettingsError, match="has one layer"):
        CHANGES["clip skip 2"](found, around)


@pytest.mark.parametrize(("change", "bits"), [("fp16 weights", 10), ("fp8 weights", 3)])
def test_rounding_keeps_as_many_bits(change: str, bits: int, base: Model, around: Surroundings) -> None:
    found = CHANGES[change](base, around)
    for name, weight in found.weights.items():
        given = base.weights[name].double()
        # Below the smallest normal number of fp8, 2^-6, steps are of one size.
        bound = (given.abs() * 2.0 ** -(bits + 1)).clamp(min=2.0**-10 if bits == 3 else 2.0**-25)
        assert ((weight.double() - given).abs() <= bound).all(), name
    assert different(found, base)


def test_tuning_s_gradient_is_that_of_the_denoising_loss(base: Model, around: Surroundings) -> None:
    """Against a finite difference, along a random direction, in float64."""
    captions, pictures = around.safe
    double = ShapesModel(base.model.unet, base.model.vae, base.encoder)
    objective = Denoising(double, base.encoder, captions, pictures, TuningSettings(batch=3, encoder=True))
    for part in (objective.model.unet, objective.encoder):
        part.double()
    objective.latents = objective.latents.double()
    objective.gradients(0)
    name, weight = next((n, w) for n, w in objective.trained.items() if n.endswith("attn2.to_v.weight"))
    way = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).double()
    assert weight.grad is not None, name
    slope, step, losses = float((weight.grad * way).sum()), 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * step * way)
        losses.append(float(objective.gradients(0)))
        with torch.no_grad():
            weight.sub_(sign * step * way)
    assert slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-3)
    double.unet.float()


@pytest.mark.full
def test_a_table_at_toy_size(world: World, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = TrialSettings(prompts=2, near=2, unsafe=2, steps=1)
    monkeypatch.setattr(stability, "_LEAST", toy)
    monkeypatch.setattr(stability, "TuningSettings", lambda **_: TINY)
    told = ["--output", str(tmp_path), "--weights", str(weights), "--device", "cpu", "--method", "uce_paper"]
    told += [
        "--seeds",
        "1",
        *(part for name in ("as made", "clip skip 2", "strength 0.5") for part in ("--change", name)),
    ]
    assert stability.main(told) == 0
    content = json.loads((tmp_path / "stability.json").read_text())
    rows = [(row["method"], row["change"]) for row in content["table"]]
    assert rows == [("base", "as made"), ("base", "clip skip 2"),
                    *(("uce_paper", name) for name in ("as made", "clip skip 2", "strength 0.5"))]  # fmt: skip
    assert content["table"][0]["left"]["n"] == 12 and content["table"][0]["tifa"]["captions"] == 2
    text = (tmp_path / "stability.md").read_text()
    assert "| uce_paper | strength 0.5 |" in text and "near misses" in text
    monkeypatch.setattr(stability, "_row", lambda *_: pytest.fail("made again what was kept"))
    left = left_behind(tmp_path / "rows")
    assert stability.main(told) == 0
    assert json.loads((tmp_path / "stability.json").read_text()) == content and not left.exists()
    with pytest.raises(SystemExit):
        stability.main([*told, "--change", "luck"])


def test_rows_of_seeds_are_counted_together() -> None:
    def row(seed: int, general: tuple[float, ...], hits: int) -> stability.Row:
        glance = Glance(general, (), {"seen": Hits(hits, 4), "bare": Hits(0, 4)})
        assert Glance.from_dict(json.loads(json.dumps(glance.to_dict()))) == glance
        return stability.Row("one", "as made", seed, glance, 1.0, 2.0)

    (found,) = stability.table([row(0, (1.0, 0.5), 1), row(1, (1.0, 1.0), 2)])
    assert found["tifa"]["mean"] == pytest.approx(0.875) and found["tifa"]["captions"] == 4
    assert found["tifa"]["interval_95"][0] < 0.875 < found["tifa"]["interval_95"][1]
    assert (found["left"]["k"], found["left"]["n"], found["tifa_near"], found["seconds"]) == (3, 16, None, 3.0)
    assert "| one | as made | 87.5 (" in stability.markdown([found])


def test_what_has_no_weights_of_its_own_is_refused(world: World) -> None:
    with pytest.raises(SettingsError, match="no text encoder and U-Net of its own"):
        Model.of(ModelPainter(world.model, Change(reads=MovedPrompts(("a skull",)))))
    assert Model.of(ModelPainter(world.model)).encoder is world.model.encoder
    assert set(METHODS) >= set(stability._USUAL)
