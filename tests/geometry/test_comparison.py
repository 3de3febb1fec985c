"""The comparison of two spaces: what may not change it, what must, and how it stops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from embedding_spaces import (
    K,
    draw,
    embedders,
    moved,
    on_apple,
    report_of,
    slow_cosines,
    slow_jaccard,
    slow_neighbours,
)
from sage_core.encoders.layouts import EncoderConfig
from sage_core.errors import PromptError
from sage_core.geometry.comparison import GeometrySettings, compare, comparison_bytes
from sage_core.geometry.measures import (
    distances,
    jaccard_overlap,
    separation,
    spread,
    spread_ratio,
)

pytestmark = pytest.mark.usefixtures("small_blocks")


def slow_local_correlation(base, aligned, k, rows=None):
    """Pearson's of the cosines to the k nearest base neighbours, among the given rows alone."""
    rows = list(range(len(base))) if rows is None else rows
    base, aligned = base[rows], aligned[rows]
    before, after = slow_cosines(base), slow_cosines(aligned)
    pairs = [(row, other) for row, others in enumerate(slow_neighbours(base, k)) for other in others]
    return pearsonr([before[i][j] for i, j in pairs], [after[i][j] for i, j in pairs]).statistic


def test_local_correlation_against_the_slow_reference(base, aligned):
    found = report_of(base, aligned).local_correlation.value
    assert found == pytest.approx(slow_local_correlation(base, aligned, K), abs=1e-5)


def test_an_untouched_space_is_exactly_itself(base):
    assert spread_ratio(base, base.clone()) == 1
    assert jaccard_overlap(base, base.clone(), K) == 1
    report = report_of(base, base.clone())
    assert report.spread_ratio.value == report.spread_ratio.low == report.spread_ratio.high == 1
    assert {interval.low for interval in report.jaccard.values()} == {1}
    assert report.displacement.abs().max() == 0
    assert report.rank_correlation == pytest.approx(1)
    assert report.verdict.level == "healthy"


def figures(base, aligned):
    report = report_of(base, aligned)
    return [
        report.spread_ratio.value,
        report.jaccard[K].value,
        report.local_correlation.value,
        report.rank_correlation,
        report.mean_displacement.value,
        report.aligned.spectrum.effective_rank,
        *report.aligned.spectrum.shares[:5],
    ]


def rotation(width):
    return torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(3))).Q


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda rows: rows @ rotation(rows.shape[1]), id="rotation"),
        pytest.param(lambda rows: rows * 7.5, id="scale"),
        pytest.param(lambda rows: rows * torch.linspace(0.5, 2, len(rows))[:, None], id="length of each row"),
        pytest.param(
            lambda rows: rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(4))], id="order"
        ),
    ],
)
def test_what_both_spaces_share_changes_nothing(base, aligned, change):
    assert figures(change(base), change(aligned)) == pytest.approx(figures(base, aligned), rel=1e-4, abs=1e-6)


def test_a_rotation_of_one_space_moves_prompts_but_not_their_neighbours(base):
    report = report_of(base, base @ rotation(base.shape[1]))
    assert report.jaccard[K].value == 1
    assert report.spread_ratio.value == pytest.approx(1, rel=1e-5)
    assert report.mean_displacement.value > 0.1


def test_a_collapsed_and_a_shuffled_space_are_told_apart():
    base = draw(200)
    mean = base.mean(0)
    collapsed = report_of(base, mean + 0.2 * (base - mean))
    shuffled = report_of(base, base[torch.randperm(200, generator=torch.Generator().manual_seed(0))])
    assert collapsed.spread_ratio.value < 0.1
    assert collapsed.jaccard[K].value > 0.7
    assert collapsed.collapsed.all()
    assert collapsed.verdict.level == "damaged"
    assert shuffled.spread_ratio.value == pytest.approx(1, rel=1e-5)
    assert shuffled.jaccard[K].value < 0.1
    assert not shuffled.collapsed.all()
    assert shuffled.verdict.level == "damaged"


def test_the_report_agrees_with_the_pure_functions(base, aligned):
    report = report_of(base, aligned)
    assert report.spread_ratio.value == pytest.approx(spread_ratio(base, aligned), rel=1e-6)
    assert report.jaccard[K].value == pytest.approx(jaccard_overlap(base, aligned, K))
    assert report.overlap.tolist() == pytest.approx(slow_jaccard(base, aligned, K))
    cosines = torch.nn.functional.cosine_similarity(base.double(), aligned.double())
    assert report.displacement.tolist() == pytest.approx((1 - cosines).tolist(), rel=1e-4)


def test_apple_gpus_have_no_float64_and_give_the_same_figures(base, aligned):
    with pytest.raises(TypeError, match="no float64"):
        on_apple(base).double()
    for measure in (spread_ratio, lambda *spaces: jaccard_overlap(*spaces, K)):
        assert measure(on_apple(base), on_apple(aligned)) == measure(base, aligned)
    found = report_of(on_apple(base), on_apple(aligned), unsafe=10)
    assert json.dumps(found.to_dict()) == json.dumps(report_of(base, aligned, unsafe=10).to_dict())


def test_the_spreads_interval_is_that_of_a_plain_bootstrap(base, aligned):
    found = report_of(base, aligned, resamples=2000).spread_ratio
    generator = np.random.default_rng(0)
    draws = [generator.integers(len(base), size=len(base)) for _ in range(2000)]
    plain = np.quantile([spread_ratio(base[rows], aligned[rows]) for rows in draws], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(plain), abs=0.02)


def test_unsafe_prompts_serve_for_separation_and_map_alone(base, aligned):
    with_unsafe = report_of(base, aligned, unsafe=10)
    without = report_of(base[:30], aligned[:30])
    assert with_unsafe.spread_ratio == without.spread_ratio
    assert with_unsafe.jaccard == without.jaccard
    assert without.base.separation is None
    assert with_unsafe.base.separation == pytest.approx(separation(distances(base), 30))
    assert with_unsafe.aligned.plane.shape == (40, 2)


def test_the_announced_memory_covers_encoders_embeddings_and_similarities():
    config = EncoderConfig(layers=12, width=768, heads=12, mlp_width=3072, vocabulary=49408, positions=77)
    for embedding, width in (("flattened", 77 * 768), ("mean", 768)):
        held = 2 * 123_060_480 + 10_000 * width + 2 * 10_000**2
        found = comparison_bytes(config, 10_000, GeometrySettings(embedding=embedding))
        assert 4 * held < found < 1.5 * 4 * held


def test_two_prompts_are_enough_and_what_does_not_exist_is_none():
    report = report_of(draw(2), moved(draw(2)), k=1)
    assert report.jaccard[1].value == 1
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["rank_correlation"] is None
    assert any("2 prompts" in note for note in report.notes)


def test_progress_counts_the_prompts_of_both_encoders_and_may_stop(base, aligned):
    seen = []
    arguments = embedders(base, aligned)
    compare(*arguments, GeometrySettings(k=K), on_batch=lambda done, total: seen.append((done, total)))
    assert list(dict.fromkeys(seen)) == [(16, 80), (32, 80), (40, 80), (56, 80), (72, 80), (80, 80)]
    assert seen.count((80, 80)) > 3, "nobody is asked while the figures are made"


@pytest.mark.parametrize("heard", [0, 1, 3])
def test_a_comparison_stops_while_it_embeds_and_while_it_measures(base, aligned, heard):
    ends = []

    def stop(done, total):
        ends.extend([done] if done == total else [])
        if len(ends) == heard:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(*embedders(base, aligned), GeometrySettings(k=K), on_batch=stop)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: report_of(draw(4), draw(4)), "found 4"),
        (lambda: report_of(torch.ones(9, 3), torch.ones(9, 3)), "9 prompts are equal"),
        (lambda: report_of(draw(9), draw(9)[:, :5]), "24 and 5 values"),
        (lambda: spread_ratio(draw(9), draw(8)), r"\(9, 24\) and \(8, 24\)"),
        (lambda: spread(torch.zeros(3, 3)), "Embedding 0 has length 0"),
        (lambda: spread(torch.tensor([[1.0, 2.0], [float("nan"), 1.0]])), "Embedding 1 has length nan"),
        (lambda: spread(torch.ones(1, 3)), r"found \(1, 3\)"),
        (lambda: jaccard_overlap(draw(5), draw(5), 5), "k = 5"),
    ],
)
def test_unusable_prompts_are_named(run, message):
    with pytest.raises(PromptError, match=message):
        run()
