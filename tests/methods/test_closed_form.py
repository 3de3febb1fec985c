"""Closed forms against slow references, written matrix by matrix and row by row from their formulas, and identities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_unets import last
from torch import Tensor

from sage_core.encoders.text_encoder import EncoderConfig, TextEncoder, embed
from sage_core.encoders.tokens import tokenize
from sage_core.errors import PromptError, SettingsError, UnetError
from sage_core.methods.closed_form import Edit
from sage_core.methods.closed_form.common import with_warning
from sage_core.methods.closed_form.cure import CureSettings, soft_projector
from sage_core.methods.closed_form.mace import SENTENCES, MaceSettings, surrounding_positions
from sage_core.methods.closed_form.oce import OceSettings
from sage_core.methods.closed_form.rece import ReceSettings
from sage_core.methods.closed_form.speed import SpeedSettings, _least_direction, centres
from sage_core.methods.closed_form.time import TimeSettings
from sage_core.methods.closed_form.uce import TEMPLATES, UcePaperSettings, UceSettings
from sage_core.methods.concepts import Concepts, TokenStates
from sage_core.methods.table import of_kind
from sage_core.prompts.everyday import REFERENCE_PROMPTS
from sage_core.prompts.everyday_captions import everyday_captions
from sage_core.shapes.networks.model import build_text_encoder

WIDTH = 64
FORMS = of_kind("closed form")
CAPTIONS = tuple(REFERENCE_PROMPTS)


# The settings that authors publish, for broad concepts and for objects or styles.
OFFICIAL: dict[str, list[Any]] = {
    "uce": [UceSettings(), UceSettings(expand_prompts=True, kind="art")],
    "rece": [ReceSettings(), ReceSettings(1, 1e-3), ReceSettings(rounds_to="empty")],
    "mace": [MaceSettings(), MaceSettings(1000.0)],
    "speed": [
        SpeedSettings(),
        SpeedSettings(retain_scale=1.0, lamb=0.0),
        SpeedSettings(retain_scale=0.05, filter=False),
    ],
    "oce": [OceSettings(), OceSettings(500.0, 10.0, 1.0, 10.0, kind="art")],
}


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    encoder = build_text_encoder(
        EncoderConfig(layers=1, width=WIDTH, heads=1, mlp_width=32, vocabulary=49408, positions=77)
    )
    with torch.no_grad():
        # Fresh token embeddings are so small that all states would be nearly the same.
        encoder.token_table.weight.mul_(50)
        # A fresh norm leaves every state a mean of 0: one direction would be missing in all of them.
        encoder.model.final_layer_norm.weight.normal_(1, 0.3)
        encoder.model.final_layer_norm.bias.normal_(0, 0.3)
    return encoder


@pytest.fixture(scope="module")
def states(encoder: TextEncoder) -> TokenStates:
    return TokenStates(encoder)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Matrices of fewer and of more rows than columns, among tensors that are not theirs."""
    torch.manual_seed(1)
    names = [
        f"down_blocks.{i}.attentions.0.transformer_blocks.0.attn2.to_{kind}.weight" for i in (0, 1) for kind in "kv"
    ]
    sizes = (40, 40, 96, 96)
    return {name: torch.randn(size, WIDTH) / 8 for name, size in zip(names, sizes, strict=True)} | {
        "conv_in.weight": torch.randn(4, 4, 3, 3),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight": torch.randn(40, 40),
    }


CONCEPTS = Concepts(("a red skull", "nudity"), ("a white ball", ""), ("a brown dog", "two people playing football"))


def run(method: str, weights: dict, encoder: TextEncoder, concepts: Concepts, settings: Any = None) -> Edit:
    return FORMS[method].load()[1](weights, encoder, concepts, settings)


def cross(weights: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in weights.items() if ".attn2.to_" in name}


def state_rows(states: TokenStates, text: str) -> np.ndarray:
    return states.states([text])[0].numpy()


def assert_edit(edit: Edit, expected: dict[str, np.ndarray], rtol: float = 1e-5) -> None:
    assert set(edit.deltas) == set(expected)
    for name, value in expected.items():
        assert edit.deltas[name].dtype == torch.float32
        scale = np.abs(value).max()
        np.testing.assert_allclose(edit.deltas[name].double().numpy(), value, rtol=0, atol=rtol * scale)


# References: loops over single states, full matrices, inverses.


@pytest.mark.parametrize("settings", [UceSettings(0.7, 1.5, 0.8, expand_prompts=True), *OFFICIAL["uce"]])
def test_uce_is_its_formula(settings: UceSettings, weights: dict, encoder: TextEncoder, states: TokenStates) -> None:
    lam, erase, keep = settings.lam, settings.erase_scale, settings.preserve_scale
    expected = {}
    for name, w in cross(weights).items():
        top, bottom = lam * w, lam * np.eye(WIDTH)
        for text, guide in zip(CONCEPTS.erase, CONCEPTS.guides, strict=True):
            for template in ("{}", *(TEMPLATES[settings.kind] if settings.expand_prompts else ())):
                c, g = (
                    state_rows(states, template.format(each))[last(template.format(each))] for each in (text, guide)
                )
                top = top + erase * np.outer(w @ g, c)
                bottom = bottom + erase * np.outer(c, c)
        for text in CONCEPTS.preserve:
            p = state_rows(states, text)[last(text)]
            top = top + keep * np.outer(w @ p, p)
            bottom = bottom + keep * np.outer(p, p)
        expected[name] = top @ np.linalg.inv(bottom) - w
    edit = run("uce", weights, encoder, CONCEPTS, settings)
    assert_edit(edit, expected)
    assert edit.residual < 1e-9
    size = np.sqrt(sum(np.square(delta).sum() for delta in expected.values()))
    assert edit.relative == pytest.approx(size / np.sqrt(sum(np.square(w).sum() for w in cross(weights).values())))


def paper_uce(
    w: np.ndarray, states: TokenStates, concepts: Concepts, lam: float, erase: float, keep: float, tensor: bool
):
    top, bottom = lam * w, lam * np.eye(WIDTH)
    for text, guide in zip(concepts.erase, concepts.guides, strict=True):
        old, new, f_old, f_new = state_rows(states, text), state_rows(states, guide), last(text), last(guide)
        longest = max(f_old, f_new)
        rows = list(
            zip(old[f_old : 77 - max(0, longest - f_old)], new[f_new : 77 - max(0, longest - f_new)], strict=True)
        )
        # All rows of a concept are one vector, from which its own is taken out.
        dots, squares = (sum((w @ a) @ (w @ c) for c, a in each) for each in (rows, [(c, c) for c, _ in rows]))
        for c, g in rows:
            value = w @ g - dots / squares * (w @ c) if tensor else w @ g
            top = top + erase * np.outer(value, c)
            bottom = bottom + erase * np.outer(c, c)
    for text in (*concepts.preserve, ""):
        for p in state_rows(states, text):
            top = top + keep * np.outer(w @ p, p)
            bottom = bottom + keep * np.outer(p, p)
    return top @ np.linalg.inv(bottom)


@pytest.mark.parametrize("technique", ["replace", "tensor"])
@pytest.mark.parametrize("keep", [None, 0.3])
def test_uce_of_the_paper_is_its_formula(
    technique: Any, keep: float | None, weights: dict, encoder: TextEncoder, states: TokenStates
) -> None:
    scale = round(1 / 3, 3) if keep is None else keep
    expected = {
        name: paper_uce(w, states, CONCEPTS, 0.5, 2.0, scale, technique == "tensor") - w
        for name, w in cross(weights).items()
    }
    edit = run("uce_paper", weights, encoder, CONCEPTS, UcePaperSettings(0.5, 2.0, keep, technique))
    assert_edit(edit, expected)


@pytest.mark.parametrize("lam", [0.3, 0.1])
def test_time_is_its_formula(lam: float, weights: dict, encoder: TextEncoder, states: TokenStates) -> None:
    expected = {}
    for name, w in cross(weights).items():
        top, bottom = lam * w, lam * np.eye(WIDTH)
        for text, guide in zip(CONCEPTS.erase, CONCEPTS.guides, strict=True):
            source, destination, first, other = (
                state_rows(states, text), state_rows(states, guide), last(text), last(guide)
            )  # fmt: skip
            for at in range(77 - max(first, other)):
                c, target = source[first + at], destination[other + at]
                top = top + np.outer(w @ target, c)
                bottom = bottom + np.outer(c, c)
        expected[name] = top @ np.linalg.inv(bottom) - w
    edit = run("time", weights, encoder, CONCEPTS, TimeSettings(lam))
    assert_edit(edit, expected)
    assert edit.residual < 1e-9


@pytest.mark.parametrize("settings", [ReceSettings(2, 0.2, 0.1, 1.0, 0.1), *OFFICIAL["rece"]])
@pytest.mark.parametrize("guides", [(" ",), ("a white ball", "a cat")])
def test_rece_is_its_formula(
    guides: tuple[str, ...], settings: ReceSettings, weights: dict, encoder: TextEncoder, states: TokenStates
) -> None:
    """Each concept's adversarial states become its guide's, row by row, or the empty prompt's."""
    concepts, r, epochs = Concepts(CONCEPTS.erase, guides), settings.regularisation, settings.epochs
    lam, erase, keep = settings.lam, settings.erase_scale, settings.preserve_scale
    original = cross(weights)
    current = {name: paper_uce(w, states, concepts, 0.5, 1.0, 1.0, False) for name, w in original.items()}
    neutral = state_rows(states, " ")
    for _ in range(epochs):
        both = sum(current[name].T @ current[name] for name in original)
        mixed = sum(current[name].T @ original[name] for name in original)
        matrix = np.linalg.inv(r * np.eye(WIDTH) + both) @ mixed
        adversarial = [[matrix @ c for c in state_rows(states, text)] for text in concepts.erase]
        edited = {}
        for name, w in current.items():
            top, bottom = lam * w, lam * np.eye(WIDTH)
            for rows, guide in zip(adversarial, concepts.guides, strict=True):
                target = guide if settings.rounds_to == "guide" else ""
                for c, n in zip(rows, state_rows(states, target), strict=True):
                    top, bottom = top + erase * np.outer(w @ n, c), bottom + erase * np.outer(c, c)
                for s in neutral:
                    top, bottom = top + keep * np.outer(w @ s, s), bottom + keep * np.outer(s, s)
            edited[name] = top @ np.linalg.inv(bottom)
        current = edited
    edit = run("rece", weights, encoder, concepts, settings)
    assert_edit(edit, {name: current[name] - w for name, w in original.items()})


@pytest.mark.parametrize("settings", [MaceSettings(0.5, 20.0), *OFFICIAL["mace"]])
def test_mace_is_its_formula(settings: MaceSettings, weights: dict, encoder: TextEncoder, states: TokenStates) -> None:
    """One system for all concepts, and what holds in both stages; without captions for lam alone, as for objects."""
    lam, weight = settings.lam, settings.prior
    captions = () if settings == MaceSettings(1000.0) else CAPTIONS
    concepts = Concepts(("nudity", "red skull"), ("a person wearing clothes", "ball"), captions=captions)
    everyday = np.concatenate([np.zeros((1, WIDTH)), *(state_rows(states, text) for text in concepts.captions)])
    prior = weight * everyday.T @ everyday / max(len(everyday) - 1, 1)
    expected = {}
    for name, w in cross(weights).items():
        first_top, first_bottom = w @ prior + lam * w, prior + lam * np.eye(WIDTH)
        top, bottom = first_top, first_bottom
        for text, guide in zip(concepts.erase, concepts.guides, strict=True):
            shift = last(f"x {guide}") - last(f"x {text}")
            for sentence in SENTENCES:
                old, new = state_rows(states, sentence.format(text)), state_rows(states, sentence.format(guide))
                start = last("x " + sentence.split(" {}")[0])
                stop = start + last(f"x {text}") - 1
                for j in range(77):
                    place = j if j < start else j + shift
                    if start <= j < stop or place > 76:
                        continue
                    first_top = first_top + np.outer(w @ new[place], old[j])
                    first_bottom = first_bottom + np.outer(old[j], old[j])
                    assert not (
                        j < start
                        and tokenize([sentence.format(text)])[0, j] != tokenize([sentence.format(guide)])[0, j]
                    )
        stage1 = first_top @ np.linalg.inv(first_bottom)
        for text in concepts.erase:
            for sentence in SENTENCES:
                for c in state_rows(states, sentence.format(text)):
                    top, bottom = top + np.outer(stage1 @ c, c), bottom + np.outer(c, c)
        expected[name] = top @ np.linalg.inv(bottom) - w
    edit = run("mace", weights, encoder, concepts, settings)
    assert_edit(edit, expected, rtol=1e-4)
    assert "LoRAs" in edit.notes[0] and ("no prior" in edit.summary()) == (not captions)


def test_the_words_around_a_concept() -> None:
    def positions(old: str, new: str) -> list[tuple[int, int]]:
        return surrounding_positions(*tokenize([old, new]))

    # start, a, photo, of | concept | in, a, room, end, padding
    assert positions("a photo of nudity in a room", "a photo of a dog in a room")[:4] == [(i, i) for i in range(4)]
    long = positions("a photo of nudity in a room", "a photo of a dog in a room")
    shift = last("a dog") - last("nudity")
    assert long[4:] == [(old, old + shift) for old in range(4 + last("nudity"), 77 - max(shift, 0))]
    assert positions("a b c", "a b c") == [(i, i) for i in range(77)]


RETAINED = ("a brown dog", "three cats on a sofa", "a red bus", "an old man with a grey beard", "a skullcap")


@pytest.mark.parametrize(
    "settings",
    [
        SpeedSettings(rows=rows, retain_scale=0.6, lamb=0.3, threshold=2.0, augmentations=copies, filter=filtered)
        for rows in ("last_subject", "after_start")
        for copies, filtered in ((0, True), (3, True), (3, False))
    ] + OFFICIAL["speed"],
)  # fmt: skip
def test_speed_is_its_formula(
    settings: SpeedSettings, weights: dict, encoder: TextEncoder, states: TokenStates
) -> None:
    """Also with more states than they have numbers, and with noise: the copies are made one by one here."""
    concepts = Concepts(("a skull", "nudity"), ("a ball", ""), preserve=(*RETAINED, "some Nudity, seen"))
    if settings == SpeedSettings():
        concepts = Concepts(("nudity",))
    whole = settings.rows == "after_start" or settings == SpeedSettings()

    def chosen(text: str) -> np.ndarray:
        return state_rows(states, text)[1:] if whole else state_rows(states, text)[[last(text)]]

    count = len(concepts.erase)
    t = sum(np.outer(row, row) for text in concepts.erase for row in chosen(text)) / count
    pairs = [(chosen(text), chosen(guide)) for text, guide in zip(concepts.erase, concepts.guides, strict=True)]
    a = sum(np.outer(n, o) for old, new in pairs for o, n in zip(old, new, strict=True)) / count
    empty = state_rows(states, "")
    keep = np.stack([empty[0], *centres(torch.from_numpy(empty[1:]), 3).numpy()]).T
    eye, generator = np.eye(WIDTH), torch.Generator().manual_seed(0)
    expected = {}
    for name, w in cross(weights).items():
        if "to_v" not in name:
            continue
        disturbed = w @ (a - t) @ np.linalg.inv(eye + t)

        def most_disturbed(rows: list[np.ndarray], disturbed: np.ndarray = disturbed) -> list[np.ndarray]:
            sizes = [np.linalg.norm(disturbed @ row) for row in rows]
            found = [row for row, size in zip(rows, sizes, strict=True) if size > np.mean(sizes)]
            assert 0 < len(found) < len(rows)
            return found

        kept = [state_rows(states, text)[last(text)] for text in RETAINED] if concepts.preserve else list(empty[1:])
        if settings.augmentations:
            kept = most_disturbed(kept) if settings.filter else kept
            direction = _least_direction(torch.from_numpy(w)).numpy()
            noise = torch.randn(settings.augmentations, len(kept), generator=generator, dtype=torch.float64).numpy()
            copies = [row + n * direction for line in noise for row, n in zip(kept, line, strict=True)]
            # Of the copies, those above the mean of the copies, whether or not the states themselves are filtered.
            kept = [*kept, *most_disturbed(copies)]
        moment = sum(np.outer(row, row) for row in kept) / len(kept)
        values, vectors = np.linalg.eigh(moment)
        free = vectors[:, values < settings.threshold]
        p = free @ free.T
        m = np.linalg.inv(t @ p + settings.retain_scale * eye)
        inner = np.linalg.inv(keep.T @ p @ m @ keep + settings.lamb * np.eye(4))
        expected[name] = w @ (a - t) @ p @ (eye - m @ keep @ inner @ keep.T @ p) @ m
    edit = run("speed", weights, encoder, concepts, settings)
    assert_edit(edit, expected)


def test_speeds_noise_lies_along_the_least_direction(weights: dict, encoder: TextEncoder, states: TokenStates) -> None:
    """With noise in it the retained states span that direction too: it is not free, so the change there is nothing."""
    concepts = Concepts(("a skull",), ("a ball",), preserve=("a brown dog", "a red bus"))
    edit = run("speed", weights, encoder, concepts, SpeedSettings(filter=False, threshold=1e-3, lamb=0.0))
    same = run("speed", weights, encoder, concepts, SpeedSettings(filter=False, threshold=1e-3, lamb=0.0))
    for name, delta in edit.deltas.items():
        _, _, right = np.linalg.svd(weights[name].double().numpy(), full_matrices=False)
        assert np.linalg.norm(delta.numpy() @ right[-1]) < 1e-5 * np.linalg.norm(delta.numpy())
        assert torch.equal(delta, same.deltas[name])


@pytest.mark.parametrize("alpha", [3.0, 5.0, 2.0])
def test_cure_is_its_formula(alpha: float, weights: dict, encoder: TextEncoder, states: TokenStates) -> None:
    def projector(texts: tuple[str, ...], alpha: float) -> np.ndarray:
        columns = np.concatenate([state_rows(states, text)[1 : last(text) + 1] for text in texts]).T
        u, s, _ = np.linalg.svd(columns, full_matrices=False)
        r = s**2 / np.sum(s**2)
        return u @ np.diag(alpha * r / ((alpha - 1) * r + 1)) @ u.T

    forget, retain = projector(CONCEPTS.erase, alpha), projector(CONCEPTS.preserve, alpha)
    expected = {name: -w @ (forget - forget @ retain) for name, w in cross(weights).items()}
    assert_edit(run("cure", weights, encoder, CONCEPTS, CureSettings(alpha)), expected)


@pytest.mark.parametrize(
    ("guides", "settings"),
    [
        (("a white ball", ""), OceSettings(30.0, 2.0, 0.5, 1.0, expand_prompts=False)),
        (("",), OceSettings(30.0, 2.0, 0.5, 1.0, expand_prompts=False)),
        *((("real",), settings) for settings in OFFICIAL["oce"]),
    ],
)
def test_oce_is_its_formula(
    guides: tuple[str, ...], settings: OceSettings, weights: dict, encoder: TextEncoder, states: TokenStates
) -> None:
    """Templates, of the concept's kind, go around concepts and guides, and not around what is preserved."""
    concepts = Concepts(CONCEPTS.erase, guides, CONCEPTS.preserve, CAPTIONS)
    templates = ("{}", *(TEMPLATES[settings.kind] if settings.expand_prompts else ()))
    everyday = np.concatenate([state_rows(states, text)[: last(text) + 2] for text in concepts.captions])
    moment = everyday.T @ everyday / len(everyday)
    expected = {}
    for name, w in cross(weights).items():
        if "to_v" not in name:
            continue

        def basis(texts: tuple[str, ...], w: np.ndarray = w) -> np.ndarray:
            expanded = [each.format(text) for text in dict.fromkeys(texts) for each in templates]
            values = [w @ state_rows(states, text)[last(text)] for text in expanded]
            return np.linalg.qr(np.stack([value / np.linalg.norm(value) for value in values]).T)[0]

        g, h = basis(concepts.erase), basis(concepts.guides)
        total = -settings.erase_scale * g @ g.T @ (np.eye(len(w)) - h @ h.T)
        total = total + settings.caption_scale * w @ moment @ w.T + settings.lam * w @ w.T
        for text in concepts.preserve:
            value = w @ state_rows(states, text)[last(text)]
            total = total + settings.preserve_scale * np.outer(value, value)
        u, _, v = np.linalg.svd(total)
        turn = u @ v
        if np.linalg.det(turn) < 0:
            u[:, -1] *= -1
            turn = u @ v
        expected[name] = turn @ w - w
    assert len(expected) == 2
    assert_edit(run("oce", weights, encoder, concepts, settings), expected)


# Identities.


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


# What is refused.


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
