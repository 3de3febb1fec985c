"""Agreement of a metric with people, by hand and on the official annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sage_core.errors import QuestionError
from sage_core.tifa.agreement import agreement, official_agreement, to_markdown

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def test_agreement_by_hand_with_a_tie():
    found = agreement("m", [1, 2, 3, 4], [1, 3, 2, 2])
    x, y = np.array([1, 2, 3, 4.0]), np.array([1, 3, 2, 2.0])
    assert found.pearson == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.spearman == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 4, 2.5, 2.5])[0, 1])
    # Of six pairs three agree, two disagree and one is tied in y.
    assert found.kendall == pytest.approx((3 - 2) / np.sqrt(6 * 5))


@pytest.mark.parametrize(("scores", "ratings"), [([1, 2], [1]), ([1], [1]), ([1, 1], [1, 2]), ([1, 2], [3, 3])])
def test_undefined_agreement_is_refused(scores, ratings):
    with pytest.raises(QuestionError):
        agreement("m", scores, ratings)


def test_other_files_are_no_annotations(tmp_path):
    (tmp_path / "f.json").write_text('{"a": {"human_avg": 1}}')
    with pytest.raises(QuestionError, match="not TIFA's human annotations"):
        official_agreement(tmp_path / "f.json")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
def test_official_annotations_give_the_published_table():
    expected = {
        "CLIPScore B/32": (0.332, 0.320, 0.231),
        "TIFA ViLT": (0.493, 0.500, 0.382),
        "TIFA OFA-large": (0.496, 0.487, 0.373),
        "TIFA GIT-large": (0.545, 0.545, 0.426),
        "TIFA BLIP-2": (0.559, 0.558, 0.436),
        "TIFA mPLUG-large": (0.597, 0.592, 0.472),
    }
    found = official_agreement(SHARED / "tifa_human_annotations_with_scores.json")
    assert [a.metric for a in found] == list(expected)
    for a in found:
        assert a.images == 800
        assert (a.pearson, a.spearman, a.kendall) == pytest.approx(expected[a.metric], abs=6e-4), a.metric
    assert "| TIFA mPLUG-large | 0.597 | 0.592 | 0.472 | 800 |" in to_markdown(found)
