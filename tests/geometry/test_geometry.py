"""Every measure of an embedding space against a slow float64 reference, what may not change it, and what must."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from scipy.stats import pearsonr, spearmanr

from sage_core.devices import measuring_device
from sage_core.encoders.layouts import EncoderConfig
from sage_core.errors import PromptError, SettingsError
from sage_core.geometry import measures
from sage_core.geometry.comparison import GeometrySettings, compare, comparison_bytes
from sage_core.geometry.measures import (
    distances,
    jaccard_overlap,
    principal_directions,
    rank_correlation,
    separation,
    spectrum,
    spread,
    spread_ratio,
)
from sage_core.geometry.page import report_page
from sage_core.geometry.report import Thresholds

K = 4


def draw(count=40, width=24, seed=0):
    """Rows that share most of their direction, as prompts do, and vary along few others."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -1.5, width)
    return 3 + torch.randn(count, width, generator=generator) * scale


def moved(base, size=0.3, seed=1):
    return base + size * torch.randn(base.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def base():
    return draw()


@pytest.fixture
def aligned(base):
    return moved(base)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Every test crosses the edges of blocks."""
    monkeypatch.setattr(measures, "BLOCK", 16)
    monkeypatch.setattr(measures, "CHUNK", 8)
    monkeypatch.setattr("sage_core.geometry.comparison.BLOCK", 16)
    monkeypatch.setattr("sage_core.geometry.comparison.CHUNK", 8)


class AppleTensor(torch.Tensor):
    """Behaves as on an Apple GPU: what it touches stays there, float64 and decompositions do not exist there."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", str(function))
        if name == "__get__" and function == torch.Tensor.device.__get__:
            return torch.device("mps")
        if name == "to" and args[1] == torch.device("cpu"):
            return args[0].as_subclass(torch.Tensor)
        found = super().__torch_function__(function, types, args, kwargs or {})
        if "linalg_eigh" in name or "linalg_qr" in name or getattr(found, "dtype", None) == torch.float64:
            raise TypeError(f"MPS has no float64, eigh or qr: {name}")
        return found


def on_apple(rows):
    return rows.as_subclass(AppleTensor)


def unit(rows):
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows.double().tolist()]


def slow_cosines(rows):
    points = unit(rows)
    return [[sum(a * b for a, b in zip(x, y, strict=True)) for y in points] for x in points]


def slow_neighbours(rows, k):
    cosines = slow_cosines(rows)
    count = len(cosines)
    return [
        sorted((other for other in range(count) if other != row), key=lambda other: -cosines[row][other])[:k]
        for row in range(count)
    ]


def slow_spread(rows):
    points = unit(rows)
    means = [sum(column) / len(points) for column in zip(*points, strict=True)]
    squares = sum((value - mean) ** 2 for point in points for value, mean in zip(point, means, strict=True))
    return squares / (len(points) - 1)


def slow_jaccard(first, second, k):
    pairs = list(zip(slow_neighbours(first, k), slow_neighbours(second, k), strict=True))
    return [len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in pairs]


def embedders(base, aligned, unsafe=0):
    """Prompts named by their row, and the two ways to embed them."""
    texts = [str(row) for row in range(len(base))]
    pick = [lambda names, rows=rows: rows[[int(name) for name in names]] for rows in (base, aligned)]
    return *pick, texts[: len(texts) - unsafe], texts[len(texts) - unsafe :]


def report_of(base, aligned, unsafe=0, **settings):
    return compare(*embedders(base, aligned, unsafe), GeometrySettings(**{"k": K, **settings}))


def test_spread_is_the_unbiased_total_variance_of_unit_rows(base):
    assert spread(base) == pytest.approx(slow_spread(base), rel=1e-6)
    assert spread(base) == pytest.approx(np.cov(np.array(unit(base)).T).trace(), rel=1e-6)


def test_spread_does_not_cancel_where_rows_nearly_agree():
    rows = 100 + 1e-3 * torch.randn(30, 50, generator=torch.Generator().manual_seed(0))
    assert spread(rows) == pytest.approx(slow_spread(rows), rel=1e-3)


def test_spread_ratio_against_the_slow_reference(base, aligned):
    assert spread_ratio(base, aligned) == pytest.approx(slow_spread(aligned) / slow_spread(base), rel=1e-6)


def test_distances_are_symmetric_and_one_less_the_cosines(base):
    found = distances(base)
    assert torch.equal(found, found.T)
    assert torch.equal(found.diagonal(), torch.zeros(len(base)))
    assert torch.allclose(1 - found.double(), torch.tensor(slow_cosines(base), dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("size", [1e-2, 1e-3, 2e-4])
def test_a_nearly_collapsed_space_keeps_its_neighbours_and_its_figures(size):
    """Where all cosines are .99999 and more, products in fp32 no longer tell neighbours apart."""
    base = 3 + size * torch.randn(60, 200, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -1.5, 200)
    aligned = moved(base, size / 20)
    exact = np.array(slow_cosines(base))
    assert exact.min() > 1 - 2 * size**2
    assert distances(base).numpy() == pytest.approx(1 - exact, rel=2e-2, abs=1e-4 * (1 - exact.min()))
    expected = slow_jaccard(base, aligned, K)
    assert 0.5 < sum(expected) / 60 < 1
    assert jaccard_overlap(base, aligned, K) == pytest.approx(sum(expected) / 60, abs=0.02)
    upper = np.triu_indices(60, 1)
    ranks = spearmanr(exact[upper], np.array(slow_cosines(aligned))[upper]).statistic
    assert rank_correlation(distances(base), distances(aligned)) == pytest.approx(ranks, abs=2e-3)
    points = np.array(unit(base))
    variances = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    assert spectrum(distances(base)).shares[:5] == pytest.approx(variances[:5] / variances.sum(), rel=5e-3)


@pytest.mark.parametrize("k", [1, K, 39])
def test_jaccard_overlap_against_the_slow_reference(base, aligned, k):
    expected = slow_jaccard(base, aligned, k)
    assert jaccard_overlap(base, aligned, k) == pytest.approx(sum(expected) / len(expected), abs=1e-12)


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


def test_rank_correlation_is_spearmans_over_all_pairs(base, aligned):
    first, second = distances(base), distances(aligned)
    upper = np.triu_indices(len(base), 1)
    expected = spearmanr(first.numpy()[upper], second.numpy()[upper]).statistic
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-4)


def test_rank_correlation_shares_the_ranks_of_ties():
    first = distances(draw(12).repeat(2, 1))
    second = distances(moved(draw(12)).repeat(2, 1))
    upper = np.triu_indices(24, 1)
    expected = spearmanr(first.numpy()[upper].round(5), second.numpy()[upper].round(5)).statistic
    assert rank_correlation(first, second) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("count", "tolerance"), [(30, 3e-5), (900, 1e-4)])
def test_spectrum_against_a_full_decomposition(count, tolerance):
    rows = draw(count, 400)
    points = np.array(unit(rows))
    variances = np.linalg.svd(points - points.mean(0), compute_uv=False) ** 2
    found = spectrum(distances(rows), components=20)
    assert found.shares == pytest.approx(variances[:20] / variances.sum(), rel=tolerance, abs=1e-6)
    assert found.effective_rank == pytest.approx(variances.sum() ** 2 / (variances**2).sum(), rel=1e-3)


def test_coordinates_are_the_projections_on_the_principal_directions(base):
    found = spectrum(distances(base), components=3)
    mean, directions = principal_directions(base, found.coordinates)
    points = torch.tensor(unit(base))
    assert torch.allclose((points - mean) @ directions, found.coordinates.float(), atol=1e-5)
    assert torch.allclose(directions.T @ directions, torch.eye(3), atol=1e-4)


def test_separation_is_fishers_ratio():
    rows = torch.cat([draw(20), draw(15, seed=5) * torch.linspace(1, 3, 24)])
    points = np.array(unit(rows))
    near, far = points[:20], points[20:]
    expected = ((near.mean(0) - far.mean(0)) ** 2).sum() / ((near.var(0).sum() + far.var(0).sum()) / 2)
    assert separation(distances(rows), 20) == pytest.approx(expected, rel=1e-4)


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


@pytest.mark.parametrize(
    ("device", "expected"), [("mps", "cpu"), ("mps:0", "cpu"), ("cpu", "cpu"), ("cuda:1", "cuda:1")]
)
def test_only_apple_gpus_are_measured_elsewhere(device, expected):
    assert measuring_device(device) == torch.device(expected)


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


def test_the_most_hurt_prompt_lost_its_neighbours(base):
    aligned = base.clone()
    aligned[7] = -base[7]
    report = report_of(base, aligned)
    assert report.most_hurt[0] == 7
    row = report.prompt_row(7)
    before, after = set(slow_neighbours(base, K)[7]), set(slow_neighbours(aligned, K)[7])
    assert row["prompt"] == "7"
    assert row["displacement"] == pytest.approx(2)
    assert {int(name) for name in row["lost"]} == before - after
    assert {int(name) for name in row["gained"]} == after - before


def test_the_same_seed_gives_the_same_json_and_the_report_names_what_it_measured(base, aligned):
    first, second = (json.dumps(report_of(base, aligned).to_dict(), allow_nan=False) for _ in range(2))
    assert first == second
    found = json.loads(first)
    assert (found["embedding"], found["k"], found["prompts"]) == ("flattened", K, 40)
    assert len(found["prompts_sha256"]) == 64


def test_the_json_has_every_prompt(base, aligned):
    report = report_of(base, aligned)
    found = report.to_dict()["each_prompt"]
    assert found["prompt"] == [str(row) for row in range(40)]
    assert found["jaccard"] == pytest.approx(report.overlap.tolist(), rel=1e-5)
    assert found["displacement"] == pytest.approx(report.displacement.tolist(), rel=1e-5)
    assert max(len(str(value)) for value in found["displacement"]) <= 12


def test_figures_without_an_interval_are_not_said_to_have_one(base, aligned):
    report = report_of(base, aligned, unsafe=5)
    bare = [name for name, value in report.figures() if "[" not in value]
    assert bare == [
        "rank correlation of all similarities",
        "effective rank",
        "variance in the first component",
        "collapsed prompts",
        "separation of safe and unsafe",
    ]
    assert "| measure | value [95 % interval, where there is one] |" in report.to_markdown()
    assert "prompts are left out and neighbours found anew" in report.to_markdown()
    shown = [text.get_text() for text in report_page(report).findobj(Text)]
    assert "Figures [95 % interval where shown]" in shown


def test_neighbours_are_listed_with_what_was_lost_and_gained(base, aligned):
    report = report_of(base, aligned)
    row = report.most_hurt[0]
    found, change = report.neighbours_of(row), report.prompt_row(row)
    assert [int(name) for name, _ in found["base"]] == slow_neighbours(base, K)[row]
    assert [int(name) for name, _ in found["aligned"]] == slow_neighbours(aligned, K)[row]
    cosines = slow_cosines(base)[row]
    assert [cosine for _, cosine in found["base"]] == pytest.approx([cosines[int(n)] for n, _ in found["base"]])
    lines = report.neighbours_markdown(row).splitlines()
    assert lines[0].startswith(f"**{row}**: Jaccard {change['jaccard']:.2f}")
    assert len(lines) == 4 + K
    assert sum("| − " in line for line in lines) == len(change["lost"]) > 0
    assert all(any(f"| + {name} |" in line for line in lines) for name in change["gained"])


def test_markdown_keeps_its_table_whole(base, aligned):
    first, second, _, _ = embedders(base, aligned)
    names = {f"a | b\n{row}": str(row) for row in range(40)}
    report = compare(
        lambda texts: first([names[text] for text in texts]),
        lambda texts: second([names[text] for text in texts]),
        list(names),
        settings=GeometrySettings(k=K),
    )
    rows = [line for line in report.to_markdown().splitlines() if "a \\| b" in line]
    assert len(rows) == 20
    assert all(line.replace("\\|", "").count("|") == 4 for line in rows)


def test_drift_is_displacement_in_distances_to_neighbours(base, aligned):
    cosines, nearest = slow_cosines(base), slow_neighbours(base, K)
    after = torch.nn.functional.cosine_similarity(base.double(), aligned.double())
    expected = [
        (1 - after[row].item()) / (1 - sum(cosines[row][other] for other in others) / K)
        for row, others in enumerate(nearest)
    ]
    assert report_of(base, aligned).drift.tolist() == pytest.approx(expected, rel=1e-3)


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


@pytest.mark.parametrize("wrong", [{"embedding": "cls"}, {"k": 0}, {"more_k": (5, -1)}, {"resamples": 10}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(SettingsError, match=str(next(iter(wrong)))):
        GeometrySettings(**wrong)


@pytest.mark.parametrize(
    ("spread_ratio", "jaccard", "level"),
    [
        (1.01, 0.96, "healthy"),
        (1.01, 0.82, "strained"),
        (1.17, 0.95, "strained"),
        (0.51, 0.95, "damaged"),
        (1.5, 0.95, "damaged"),
        (0.94, 0.69, "damaged"),
    ],
)
def test_the_verdict_is_the_worse_of_two(spread_ratio, jaccard, level):
    verdict = Thresholds().judge(spread_ratio, jaccard)
    assert verdict.level == level
    assert len(verdict.reasons) == 2
