"""The benchmark's results as a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..plots import LIGHT, new_figure, style
from .compare import TOLERANCES, disagreements

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def to_markdown(report: Mapping[str, Any]) -> str:
    """The results as a page of tables; what was scaled from a sample says so."""
    machine, naive = report["machine"], report["naive"]
    fast = next(iter(report["runs"]))
    steps = report["steps"]
    sections = [
        f"# Alignment on {machine['device']}, {machine['threads']} threads, PyTorch {machine['torch']}",
        f'Size "{report["size"]}": {report["config"]["layers"]} layers of width {report["config"]["width"]}, '
        f"{report['pairs']:,} pairs, batch {report['settings']['batch_size']}, {steps} steps. "
        f"{report['training_flops']:.3g} operations in training, {report['embedding_flops']:.3g} in embedding "
        "(matrix products only).",
        _table(
            ["seconds", "published procedure, fp32, scaled from a sample", *(f"ours, {p}" for p in report["runs"])],
            [
                ["tokenise", "", *_column(report, "tokenise")],
                ["embed (codebook)", _number(naive["codebook"]), *_column(report, "embed")],
                ["pair", _number(naive["pairing"]), *_column(report, "pair")],
                ["all three, as the run does them", "", *_column(report, "prepare")],
                [f"train, {steps} steps", _number(naive["training"]), *_column(report, "train")],
                ["collect and hash", "", *_column(report, "finish")],
                ["save", "", *_column(report, "save")],
                ["**total after loading**", _number(naive["total"]), *_column(report, "total")],
                ["one step", _number(naive["step"]), *_column(report, "step")],
                ["times faster", "1", *(f"{naive['total'] / run['total']:,.0f}" for run in report["runs"].values())],
                ["share of the measured peak", "", *_shares(report)],
                ["peak memory, GiB (estimated)", "", *(_memory(run) for run in report["runs"].values())],
            ],
        ),
        f"First {fast} run of the process, kernels loaded along the way: {_number(report['first']['total'])} s. "
        f"Measured peak of a matrix product: "
        + ", ".join(f"{name} {value / 1e12:,.2f} TFLOP/s" for name, value in machine["peak"].items())
        + ".",
        f"Published procedure: {_number(naive['prompt'])} s a codebook entry, {_number(naive['search'])} s a search, "
        f"{_number(naive['step'])} s a step. Ours pairs {naive['search'] / naive['our_search']:,.0f} times faster. "
        "Steps taken in turns, each at the same precision:",
        _table(
            ["step", "published procedure, s", "ours, s", "times faster", "difference of the loss"],
            [
                [
                    row["precision"],
                    _number(row["naive"]),
                    _number(row["ours"]),
                    f"{row['naive'] / row['ours']:.2f}",
                    f"{row['loss_gap']:.1e}",
                ]
                for row in naive["steps"]
            ],
        ),
        "## Same results",
        f"Searched one by one, {naive['same_targets']:.0%} of the targets are ours. A step in chunks has the gradient "
        f"of the whole batch within {report['gradient_gap']:.1e}. The {fast} run repeated gives "
        + ("the same losses to the last bit." if report["same_again"] else "other losses."),
        "Allowed are: "
        + "; ".join(f"{name} {most:g}" for name, most in TOLERANCES.items())
        + ". "
        + ("; ".join(["**Beyond that:**", *disagreements(report)]) if disagreements(report) else "All agree."),
        _table(
            ["beside fp32", "same targets", "largest loss of cosine", "largest difference of the loss"],
            [
                [row["precision"], f"{row['same_targets']:.2%}", f"{row['regret']:.1e}", f"{row['loss_gap']:.1e}"]
                for row in report["agreement"]
            ],
        ),
        "## On a small card (6 GB)",
        _table(
            ["precision", "step, s", "times slower", "peak memory, GiB (estimated)", "difference of the loss"],
            [
                [
                    row["precision"],
                    _number(row["step"]),
                    f"{row['times_slower']:.2f}",
                    _memory(row),
                    f"{row['loss_gap']:.1e}",
                ]
                for row in report["small_card"]
            ],
        ),
        f"## Cost against pairs and batch, {fast}",
        _table(
            ["pairs", "prepare, s", "train, s (at the measured step)", "base embeddings, GiB", "beside them, GiB"],
            [
                [f"{row['pairs']:,}", *(_number(row[name]) for name in ("prepare", "train", "stored", "working"))]
                for row in report["pair_curve"]
            ],
        ),
        _table(
            ["batch", "step, s", "pairs a second", "peak memory, GiB (estimated)"],
            [
                [str(row["batch"]), _number(row["step"]), f"{row['batch'] / row['step']:,.1f}", _memory(row)]
                for row in report["batch_curve"]
            ],
        ),
        f"Using an aligned encoder costs a graph {_number(report['apply']['read'])} s to read the file and "
        f"{_number(report['apply']['difference'])} s for the difference, once; nothing for each picture.",
    ]
    return "\n\n".join(sections) + "\n"


def draw(report: Mapping[str, Any]) -> Figure:
    """Seconds by phase against the published procedure, time and memory against pairs, speed against batch size."""
    figure = new_figure(700, LIGHT)
    (bars, pairs), (batches, memory) = figure.subplots(2, 2)
    naive, run = report["naive"], next(iter(report["runs"].values()))
    names = ["codebook", "pairing", "training", "total"]
    bars.bar([i - 0.2 for i in range(4)], [naive[name] for name in names], 0.4, color=LIGHT.muted, label="published")
    ours = [run["embed"], run["pair"], run["train"], run["total"]]
    bars.bar([i + 0.2 for i in range(4)], ours, 0.4, color=LIGHT.base, label=f"ours, {run['precision']}")
    bars.set_xticks(range(4), names)
    bars.set_yscale("log")
    bars.set_title(f"seconds, {report['pairs']:,} pairs", loc="left", color=LIGHT.text, fontsize=11)
    curve = report["pair_curve"]
    counts = [row["pairs"] for row in curve]
    pairs.plot(counts, [row["prepare"] for row in curve], color=LIGHT.base, marker="o", label="prepare")
    pairs.plot(counts, [row["train"] for row in curve], color=LIGHT.aligned, marker="o", label="train")
    pairs.set_yscale("log")
    _count_pairs(pairs, counts)
    pairs.set_title("seconds", loc="left", color=LIGHT.text, fontsize=11)
    curve = report["batch_curve"]
    rates = [row["batch"] / row["step"] for row in curve]
    batches.plot([row["batch"] for row in curve], rates, color=LIGHT.base, marker="o")
    batches.set_ylim(0, 1.1 * max(rates))
    batches.set_xlabel("batch", color=LIGHT.muted, fontsize=10)
    batches.set_title("pairs a second", loc="left", color=LIGHT.text, fontsize=11)
    curve = [row for row in report["pair_curve"] if row["working"] is not None]
    counts = [row["pairs"] for row in curve]
    memory.plot(counts, [row["stored"] for row in curve], color=LIGHT.base, marker="o", label="base embeddings")
    memory.plot(
        counts, [row["working"] for row in curve], color=LIGHT.aligned, marker="o", label="preparing, beside them"
    )
    memory.set_ylim(bottom=0)
    _count_pairs(memory, counts)
    memory.set_title("GiB", loc="left", color=LIGHT.text, fontsize=11)
    for axes in (bars, pairs, batches, memory):
        style(axes, LIGHT)
    for axes in (bars, pairs, memory):
        axes.legend(frameon=False, fontsize=9)
    return figure


def _count_pairs(axes: Axes, counts: Sequence[int]) -> None:
    """A logarithmic axis of numbers of pairs that names those measured and no others."""
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("pairs", color=LIGHT.muted, fontsize=10)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _column(report: Mapping[str, Any], name: str) -> list[str]:
    return [_number(run[name]) for run in report["runs"].values()]


def _shares(report: Mapping[str, Any]) -> list[str]:
    return [
        f"{report['training_flops'] / run['train'] / report['machine']['peak'][name]:.0%}"
        for name, run in report["runs"].items()
    ]


def _memory(row: Mapping[str, Any]) -> str:
    return f"{_number(row['peak'])} ({row['estimate']:.2f})"


def _number(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
