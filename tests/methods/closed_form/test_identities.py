"""What holds of closed forms whatever the weights, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import CAPTIONS, FORMS, WIDTH, assert_edit, cross, run, state_rows
from tiny_unets import last
from torch import Tensor

from sage_core.encoders.text_encoder import TextEncoder, embed
from sage_core.errors import PromptError, SettingsError, UnetError
from sage_core.methods.closed_form import Edit
from sage_core.methods.closed_form.common import with_warning
from sage_core.methods.closed_form.cure import CureSettings, soft_projector
from sage_core.methods.closed_form.mace import MaceSettings
from sage_core.methods.closed_form.rece import ReceSettings
from sage_core.methods.closed_form.speed import SpeedSettings, centres
from sage_core.methods.closed_form.uce import UcePaperSettings, UceSettings
from sage_core.methods.concepts import Concepts, TokenStates
from sage_core.prompts.everyday_captions import everyday_captions


def after(edit: Edit, weights: dict[str, Tensor], name: str) -> np.ndarray:
    return (weights[name].double() + edit.deltas[name].double()).numpy()


def test_uce_with_a_large_weight_maps_the_concept_to_its_guide(
    weights: dict, encoder: TextEncoder, states: TokenStates
) -> None:
    edit = run("uce", weights, encoder, Concepts(("a skull",), ("a ball",)), UceSettings(erase_scale=1e7))
    c, g = (state_rows(states, text)[last(text)] for text in ("a skull", "a ball"))
    for name, w in cross(weights).items():
        np.testing.assert_allclose(after(edit, weights, name) @ c, w @ g, rtol=0, atol=1e-5 * np.abs(w @ g).max())


def test_uce_changes_less_with_less_weight_and_nothing_with_none(weights: dict, encoder: TextEncoder) -> None:
    concepts = Concepts(("a skull",), ("a ball",))
    sizes = [run("uce", weights, encoder, concepts, UceSettings(erase_scale=a)).relative for a in (1e-8, 1e-3, 1.0)]
    assert sizes[0] < 1e-4 * sizes[2]
    assert sizes[1] < sizes[2]


def test_uce_keeps_what_is_at_right_angles_to_the_concept(
    weights: dict, encoder: TextEncoder, states: TokenStates
) -> None:
    edit = run("uce", weights, encoder, Concepts(("a skull",), ("a ball",)))
    c = state_rows(states, "a skull")[last("a skull")]
    other = np.random.default_rng(0).standard_normal(WIDTH)
    other -= (other @ c) / (c @ c) * c
    for name, w in cross(weights).items():
        np.testing.assert_allclose(after(edit, weights, name) @ other, w @ other, rtol=0, atol=1e-5)


def test_rece_with_a_large_regularisation_is_uce(weights: dict, encoder: TextEncoder) -> None:
    """c' goes to 0, so its rounds change nothing."""
    concepts = Concepts(("a skull", "nudity"), (" ",))
    uce = run("uce_paper", weights, encoder, concepts, UcePaperSettings(preserve_scale=1.0))
    rece = run("rece", weights, encoder, concepts, ReceSettings(regularisation=1e12))
    assert_edit(rece, {name: delta.numpy() for name, delta in uce.deltas.items()})
    none = run("rece", weights, encoder, concepts, ReceSettings(epochs=0))
    assert_edit(none, {name: delta.numpy() for name, delta in uce.deltas.items()})


def test_speed_keeps_the_empty_prompt_and_what_is_retained(
    weights: dict, encoder: TextEncoder, states: TokenStates
) -> None:
    concepts = Concepts(("a skull",), ("a ball",), preserve=("a brown dog", "a red bus", "three cats on a sofa"))
    edit = run("speed", weights, encoder, concepts, SpeedSettings(lamb=0.0, filter=False, threshold=0.05))
    empty = state_rows(states, "")
    held = np.stack([empty[0], *centres(torch.from_numpy(empty[1:]), 3).numpy()]).T
    for name, delta in edit.deltas.items():
        change = delta.double().numpy()
        assert np.abs(change @ held).max() < 1e-4 * np.abs(weights[name].numpy() @ held).max()
        assert np.linalg.norm(change @ state_rows(states, "a skull")[last("a skull")]) > 0.01
    exact = run("speed", weights, encoder, concepts, SpeedSettings(filter=False, augmentations=0, threshold=1e-6))
    for name, delta in exact.deltas.items():
        for text in concepts.preserve:
            row = state_rows(states, text)[last(text)]
            assert np.abs(delta.double().numpy() @ row).max() < 1e-4 * np.abs(weights[name].numpy() @ row).max()


def test_speed_with_the_concept_as_anchor_changes_nothing(weights: dict, encoder: TextEncoder) -> None:
    # Texts with different tokens may have the same state: here the encoder is one that reads nothing.
    blind = TextEncoder.from_state(encoder.state())
    with torch.no_grad():
        blind.token_table.weight.fill_(0.1)
    with pytest.raises(UnetError, match="SPEED: the edit changes nothing"):
        run("speed", weights, blind, Concepts(("skull",), ("ball",)))
    with pytest.raises(UnetError, match="UCE: the edit changes nothing"):
        run("uce", weights, blind, Concepts(("skull",), ("ball",)))


def test_speed_reads_all_rows_of_nudity_alone(weights: dict, encoder: TextEncoder) -> None:
    def relative(erase: tuple[str, ...], **changed: Any) -> float:
        return run("speed", weights, encoder, Concepts(erase, ("a ball",)), SpeedSettings(**changed)).relative

    assert (
        relative(("nudity",)) == relative(("nudity",), rows="after_start") != relative(("nudity",), rows="last_subject")
    )
    assert relative(("skull",)) == relative(("skull",), rows="last_subject")


@pytest.mark.parametrize("matrices", ["V", "K", "KV"])
def test_speed_edits_the_matrices_that_are_named(matrices: Any, weights: dict, encoder: TextEncoder) -> None:
    edit = run("speed", weights, encoder, Concepts(("a skull",), ("a ball",)), SpeedSettings(matrices=matrices))
    assert {name.split(".to_")[1][0].upper() for name in edit.deltas} == set(matrices)


def test_cures_alpha(weights: dict, encoder: TextEncoder) -> None:
    concepts = Concepts(("a red skull on the snow",))
    weak, strong = (run("cure", weights, encoder, concepts, CureSettings(alpha)).relative for alpha in (1e-9, 1e12))
    assert weak < 1e-6 * strong
    rows = torch.randn(5, WIDTH, dtype=torch.float64)
    hard = soft_projector(rows, 1e14)
    torch.testing.assert_close(hard @ hard, hard, rtol=0, atol=1e-9)
    torch.testing.assert_close(rows @ hard, rows, rtol=0, atol=1e-9)
    # With one state the projector is hard whatever alpha is, and the edit says so.
    torch.testing.assert_close(soft_projector(rows[:1], 1e-3), soft_projector(rows[:1], 1e3))
    assert "no effect" in run("cure", weights, encoder, concepts, CureSettings(rows="eos")).notes[0]


def test_oce_keeps_all_lengths_and_angles(weights: dict, encoder: TextEncoder, states: TokenStates) -> None:
    edit = run("oce", weights, encoder, Concepts(("a skull",), ("a ball",)))
    assert edit.settings["captions"] == 0
    for name in edit.deltas:
        w, turned = weights[name].double().numpy(), after(edit, weights, name)
        np.testing.assert_allclose(turned.T @ turned, w.T @ w, rtol=0, atol=1e-5 * np.abs(w.T @ w).max())
        value = turned @ state_rows(states, "a skull")[last("a skull")]
        assert np.linalg.norm(value - w @ state_rows(states, "a skull")[last("a skull")]) > 0.1 * np.linalg.norm(value)


@pytest.mark.parametrize("method", FORMS)
def test_unfit_weights_are_refused(method: str, weights: dict, encoder: TextEncoder) -> None:
    concepts = Concepts(("skull",), ("ball",), captions=CAPTIONS)
    with pytest.raises(UnetError, match="no matrix of cross-attention"):
        run(method, {"conv_in.weight": torch.ones(1)}, encoder, concepts)
    name = next(name for name in weights if "to_v" in name)
    broken = weights[name].clone()
    broken[0, 0] = float("nan")
    with pytest.raises(UnetError, match=f"{name} holds values that are NaN"):
        run(method, {**weights, name: broken}, encoder, concepts)
    with pytest.raises(UnetError, match="different models"):
        run(method, {**weights, name: torch.ones(4, 1024)}, encoder, concepts)


def test_singular_systems_are_refused(weights: dict, encoder: TextEncoder) -> None:
    with pytest.raises(SettingsError, match="singular"):
        run("uce", weights, encoder, Concepts(("skull",), ("ball",)), UceSettings(lam=0.0))
    with pytest.raises(PromptError, match="needs captions"):
        run("mace", weights, encoder, Concepts(("skull",), ("ball",)))
    with pytest.raises(PromptError, match="needs captions"):
        run("mace", weights, encoder, Concepts(("skull",), ("ball",), captions=CAPTIONS), MaceSettings(prior=0.0))
    assert FORMS["mace"].needed(MaceSettings()) == ("captions",) and not FORMS["mace"].needed(MaceSettings(1000.0))


@pytest.mark.parametrize("method", FORMS)
def test_any_names_and_types_of_weights_will_do(method: str, weights: dict, encoder: TextEncoder) -> None:
    concepts = Concepts(("skull",), ("ball",), captions=CAPTIONS)
    renamed = {f"diffusion_model.{name}": value.half() for name, value in weights.items()}
    edit = run(method, renamed, encoder, concepts)
    assert set(edit.deltas) <= set(renamed)
    assert edit.metadata()["sage_method"] == edit.method
    assert edit.method in edit.summary()
    assert all(torch.isfinite(delta).all() for delta in edit.deltas.values())


def test_what_moves_other_prompts_is_warned_of_whatever_its_size(weights: dict, encoder: TextEncoder) -> None:
    def moved(change: Callable[[Tensor], Tensor]) -> Edit:
        deltas = {name: change(weights[name]) for name in cross(weights)}
        size = sum(weights[name].square().sum() for name in deltas)
        relative = (sum(delta.square().sum() for delta in deltas.values()) / size).sqrt()
        edit = Edit("any", deltas, 0.0, float(relative), {"erase": ["skull"]})
        return with_warning(edit, weights, encoder)

    (note,) = moved(lambda weight: 0.8 * weight).notes
    assert note.startswith("⚠ What the U-Net reads of everyday captions moves by 80% of its size")
    assert not moved(lambda weight: 0.4 * weight).notes and not moved(lambda weight: 0.2 * weight).notes
    captions = everyday_captions(8, seed=1, leave_out=["skull"])
    rows = embed(encoder, captions).view(-1, WIDTH)
    # Where captions have next to nothing.
    least = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, 0]
    aside = moved(lambda weight: 2 * weight.norm() * torch.outer(torch.ones(len(weight)) / len(weight) ** 0.5, least))
    assert aside.relative == pytest.approx(2) and not aside.notes
