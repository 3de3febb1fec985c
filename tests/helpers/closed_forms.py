"""Closed forms by their names, and their edits compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sage_core.encoders.text_encoder import TextEncoder
from sage_core.methods.closed_form import Edit
from sage_core.methods.concepts import Concepts, TokenStates
from sage_core.methods.table import of_kind
from sage_core.prompts.everyday import REFERENCE_PROMPTS

WIDTH = 64
FORMS = of_kind("closed form")
CAPTIONS = tuple(REFERENCE_PROMPTS)
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
