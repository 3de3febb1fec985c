"""Closed forms against slow references, written matrix by matrix and row by row from their formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import CAPTIONS, CONCEPTS, WIDTH, assert_edit, cross, run, state_rows
from tiny_unets import last

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.encoders.tokens import tokenize
from sage_core.methods.closed_form.cure import CureSettings
from sage_core.methods.closed_form.mace import SENTENCES, MaceSettings, surrounding_positions
from sage_core.methods.closed_form.oce import OceSettings
from sage_core.methods.closed_form.rece import ReceSettings
from sage_core.methods.closed_form.speed import SpeedSettings, _least_direction, centres
from sage_core.methods.closed_form.time import TimeSettings
from sage_core.methods.closed_form.uce import TEMPLATES, UcePaperSettings, UceSettings
from sage_core.methods.concepts import Concepts, TokenStates
from sage_core.methods.table import of_kind

# The settings that authors publish, the usual ones of a form first; then those for objects, styles or other concepts.
OFFICIAL: dict[str, list[Any]] = {
    "uce": [UceSettings(0.5, 1.0, 1.0, expand_prompts=False), UceSettings(expand_prompts=True, kind="art")],
    "uce_paper": [UcePaperSettings(0.5, 1.0, None, "replace"), UcePaperSettings(technique="tensor")],
    "rece": [ReceSettings(3, 0.1, 0.1, 1.0, 0.1), ReceSettings(1, 1e-3), ReceSettings(rounds_to="empty")],
    "mace": [MaceSettings(0.0, 33.0), MaceSettings(1000.0)],
    "speed": [
        SpeedSettings("V", "published", 0.7, 0.5, 0.1, 10, filter=True),
        SpeedSettings(retain_scale=1.0, lamb=0.0),
        SpeedSettings(retain_scale=0.05, filter=False),
    ],
    "oce": [OceSettings(3000.0, 20.0, 0.0, 10.0), OceSettings(500.0, 10.0, 1.0, 10.0, kind="art")],
    "cure": [CureSettings(5.0), CureSettings(2.0)],
    "time": [TimeSettings(0.1)],
}


def test_every_closed_form_is_held_to_its_formula_at_what_its_authors_publish() -> None:
    """A form without a reference here fails, and one whose defaults are no longer the published ones."""
    forms = of_kind("closed form")
    assert {name: form.usual() for name, form in forms.items()} == {name: each[0] for name, each in OFFICIAL.items()}


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


@pytest.mark.parametrize(
    "settings",
    [UcePaperSettings(0.3, 2.0, keep, way) for way in ("replace", "tensor") for keep in (None, 0.3)]
    + OFFICIAL["uce_paper"],
)  # fmt: skip
def test_uce_of_the_paper_is_its_formula(
    settings: UcePaperSettings, weights: dict, encoder: TextEncoder, states: TokenStates
) -> None:
    keep = round(1 / 3, 3) if settings.preserve_scale is None else settings.preserve_scale
    lam, erase, tensor = settings.lam, settings.erase_scale, settings.technique == "tensor"
    expected = {
        name: paper_uce(w, states, CONCEPTS, lam, erase, keep, tensor) - w for name, w in cross(weights).items()
    }
    assert_edit(run("uce_paper", weights, encoder, CONCEPTS, settings), expected)


@pytest.mark.parametrize("settings", [TimeSettings(0.3), *OFFICIAL["time"]])
def test_time_is_its_formula(settings: TimeSettings, weights: dict, encoder: TextEncoder, states: TokenStates) -> None:
    expected, lam = {}, settings.lam
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
    edit = run("time", weights, encoder, CONCEPTS, settings)
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


@pytest.mark.parametrize("settings", [CureSettings(3.0), *OFFICIAL["cure"]])
def test_cure_is_its_formula(settings: CureSettings, weights: dict, encoder: TextEncoder, states: TokenStates) -> None:
    alpha = settings.alpha

    def projector(texts: tuple[str, ...]) -> np.ndarray:
        columns = np.concatenate([state_rows(states, text)[1 : last(text) + 1] for text in texts]).T
        u, s, _ = np.linalg.svd(columns, full_matrices=False)
        r = s**2 / np.sum(s**2)
        return u @ np.diag(alpha * r / ((alpha - 1) * r + 1)) @ u.T

    forget, retain = projector(CONCEPTS.erase), projector(CONCEPTS.preserve)
    expected = {name: -w @ (forget - forget @ retain) for name, w in cross(weights).items()}
    assert_edit(run("cure", weights, encoder, CONCEPTS, settings), expected)


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
