"""Cards of scored pictures."""

from __future__ import annotations

import numpy as np
import torch

from sage_core.tifa.cards import card_sheet, question_card
from scored_runs import run


def test_cards_tick_and_cross():
    rows = run("base", 1).tifa.questions
    right = question_card(torch.rand(20, 40, 3), rows[:2])
    wrong = question_card(torch.rand(64, 30, 3), rows[2:4])

    def colors(card) -> tuple[bool, bool]:
        red, green, _ = np.asarray(card).astype(int)[:, 290:].reshape(-1, 3).T
        return bool((green - red > 60).any()), bool((red - green > 60).any())

    assert colors(right) == (True, False) and colors(wrong) == (False, True)
    sheet = card_sheet([right, wrong])
    assert sheet.size == (right.width, right.height + wrong.height)
