"""The benchmark's results, as bench.json holds them, as a page of tables and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..plots import LIGHT, new_figure, style, title
from ..tables import markdown_table
from .compare import TOLERANCES, disagreements
from .runner import Columns, Report, column, number, table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def to_markdown(report: Report) -> str:
    """What was measured so far, as a page of tables; what was scaled from a sample says so."""
    parts: list[tuple[str, Callable[[Report], str]]] = [
        ("machine", _title),
        ("embedding_flops", _what_was_run),
        ("naive", _phases),
        ("naive", _first_run),
        ("naive", _published),
        ("naive", lambda found: table_of(found["naive"]["steps"], _STEPS)),
        ("gradient_gap", lambda found: f"## Same results\n\n{_same(found)}\n\n{_allowed(found)}"),
        ("gradient_gap", lambda found: table_of(found["agreement"], _AGREEMENT)),
        ("small_card", lambda found: f"## On a small card (6 GB)\n\n{table_of(found['small_card'], _SMALL_CARD)}"),
        ("batch_curve", lambda found: f"## Cost against pairs and batch, {next(iter(found['runs']))}"),
        ("pair_curve", lambda found: table_of(found["pair_curve"], _PAIRS)),
        ("batch_curve", lambda found: table_of(found["batch_curve"], _BATCHES)),
        ("apply", lambda found: _use(found["apply"])),
    ]
    return "\n\n".join(make(report) for needed, make in parts if needed in report)


def _title(report: Report) -> str:
    machine = report["machine"]
    return f"# Alignment on {machine['device']}, {machine['threads']} threads, PyTorch {machine['torch']}"


def _what_was_run(report: Report) -> str:
    config = report["config"]
    return (
        f'Size "{report["size"]}": {config["layers"]} layers of width {config["width"]}, {report["pairs"]:,} pairs, '
        f"batch {report['settings']['batch_size']}, {report['steps']} steps. {report['training_flops']:.3g} operations "
        f"in training, {report['embedding_flops']:.3g} in embedding (matrix products only)."
    )


def _phases(report: Report) -> str:
    naive, runs = report["naive"], report["runs"]

    def row(title: str, published: str, name: str) -> list[str]:
        return [title, published, *(number(run[name]) for run in runs.values())]

    return markdown_table(
        ["seconds", "published procedure, fp32, scaled from a sample", *(f"ours, {name}" for name in runs)],
        [
            row("tokenise", "", "tokenise"),
            row("embed (codebook)", number(naive["codebook"]), "embed"),
            row("pair", number(naive["pairing"]), "pair"),
            row("all three, as the run does them", "", "prepare"),
            row(f"train, {report['steps']} steps", number(naive["training"]), "train"),
            row("collect and hash", "", "finish"),
            row("save", "", "save"),
            row("**total after loading**", number(naive["total"]), "total"),
            row("one step", number(naive["step"]), "step"),
            ["times faster", "1", *(f"{naive['total'] / run['total']:,.0f}" for run in runs.values())],
            ["share of the measured peak", "", *_shares(report)],
            ["peak memory, GiB (estimated)", "", *(_memory(run) for run in runs.values())],
        ],
    )


def _first_run(report: Report) -> str:
    fast = next(iter(report["runs"]))
    peaks = (f"{name} {value / 1e12:,.2f} TFLOP/s" for name, value in report["machine"]["peak"].items())
    return (
        f"First {fast} run of the process, kernels loaded along the way: {number(report['first']['total'])} s. "
        f"Measured peak of a matrix product: {', '.join(peaks)}."
    )


def _published(report: Report) -> str:
    naive = report["naive"]
    return (
        f"Published procedure: {number(naive['prompt'])} s a codebook entry, {number(naive['search'])} s a search, "
        f"{number(naive['step'])} s a step. Ours pairs {naive['search'] / naive['our_search']:,.0f} times faster. "
        "Steps taken in turns, each at the same precision:"
    )


def _same(report: Report) -> str:
    fast = next(iter(report["runs"]))
    return (
        f"Searched one by one, {report['naive']['same_targets']:.0%} of the targets are ours. A step in chunks has the "
        f"gradient of the whole batch within {report['gradient_gap']:.1e}. The {fast} run repeated gives "
        f"{'the same losses to the last bit' if report['same_again'] else 'other losses'}."
    )


def _allowed(report: Report) -> str:
    limits = "; ".join(f"{name} {most:g}" for name, most in TOLERANCES.items())
    beyond = disagreements(report)
    return f"Allowed are: {limits}. {'; '.join(['**Beyond that:**', *beyond]) if beyond else 'All agree.'}"


def _memory(row: Mapping[str, Any]) -> str:
    return f"{number(row['peak'])} ({row['estimate']:.2f})"


_PRECISION, _GAP, _PEAK = column("precision", "s"), column("loss_gap", ".1e"), "peak memory, GiB (estimated)"
_STEPS: Columns = {
    "step": _PRECISION,
    "published procedure, s": column("naive"),
    "ours, s": column("ours"),
    "times faster": lambda row: f"{row['naive'] / row['ours']:.2f}",
    "difference of the loss": _GAP,
}
_AGREEMENT: Columns = {
    "against fp32": _PRECISION,
    "same targets": column("same_targets", ".2%"),
    "largest loss of cosine": column("regret", ".1e"),
    "largest difference of the loss": _GAP,
}
_SMALL_CARD: Columns = {
    "precision": _PRECISION,
    "step, s": column("step"),
    "times slower": column("times_slower", ".2f"),
    _PEAK: _memory,
    "difference of the loss": _GAP,
}
_PAIRS: Columns = {
    "pairs": column("pairs", ","),
    "prepare, s": column("prepare"),
    "train, s (at the measured step)": column("train"),
    "base embeddings, GiB": column("stored"),
    "preparing adds, GiB": column("working"),
}
_BATCHES: Columns = {
    "batch": column("batch", "d"),
    "step, s": column("step"),
    "pairs a second": lambda row: f"{row['batch'] / row['step']:,.1f}",
    _PEAK: _memory,
}


def _use(cost: Mapping[str, float]) -> str:
    return (
        f"Using an aligned encoder costs a graph {number(cost['read'])} s to read the file and "
        f"{number(cost['difference'])} s for the difference, once; nothing for each picture."
    )


def draw(report: Report) -> Figure:
    """Seconds by phase against the published procedure, time and memory against pairs, speed against batch size."""
    figure = new_figure(700, LIGHT)
    (phases, pairs), (batches, memory) = figure.subplots(2, 2)
    _draw_phases(phases, report)
    curve = report["pair_curve"]
    _draw_curves(pairs, "seconds", curve, {"prepare": "prepare", "train": "train"})
    _log_seconds(pairs)
    _draw_rates(batches, report["batch_curve"])
    # Where memory was not measured there is nothing to draw.
    curve = [row for row in curve if row["working"] is not None]
    _draw_curves(memory, "GiB", curve, {"stored": "base embeddings", "working": "what preparing adds"})
    memory.set_ylim(bottom=0)
    for axes in (phases, pairs, batches, memory):
        style(axes, LIGHT)
    for axes in (phases, pairs, memory):
        axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_phases(axes: Axes, report: Report) -> None:
    naive, run = report["naive"], next(iter(report["runs"].values()))
    names = {"codebook": "embed", "pairing": "pair", "training": "train", "total": "total"}
    places = range(len(names))
    published, ours = [naive[name] for name in names], [run[name] for name in names.values()]
    axes.bar([place - 0.2 for place in places], published, 0.4, color=LIGHT.muted, label="published")
    axes.bar([place + 0.2 for place in places], ours, 0.4, color=LIGHT.methods[1], label=f"ours, {run['precision']}")
    axes.set_xticks(places, list(names))
    _log_seconds(axes)
    title(axes, f"seconds, {report['pairs']:,} pairs", LIGHT, 11)


def _draw_curves(axes: Axes, head: str, curve: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> None:
    """A curve for each of two values against the number of pairs; the axis names those measured and no others."""
    counts = [row["pairs"] for row in curve]
    for (name, label), color in zip(labels.items(), LIGHT.methods[1:3], strict=True):
        axes.plot(counts, [row[name] for row in curve], color=color, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("pairs", color=LIGHT.muted, fontsize=10)
    title(axes, head, LIGHT, 11)


def _draw_rates(axes: Axes, curve: Sequence[Mapping[str, Any]]) -> None:
    rates = [row["batch"] / row["step"] for row in curve]
    axes.plot([row["batch"] for row in curve], rates, color=LIGHT.methods[1], marker="o")
    axes.set_ylim(0, 1.1 * max(rates))
    axes.set_xlabel("batch", color=LIGHT.muted, fontsize=10)
    title(axes, "pairs a second", LIGHT, 11)


def _log_seconds(axes: Axes) -> None:
    """A logarithmic axis of seconds, its ticks as plain numbers: powers of ten are slow to read."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    # 1, 3, 10, 30: half of a power of ten apart.
    axes.yaxis.set_minor_locator(LogLocator(subs=(3,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(which="minor", colors=LIGHT.muted, labelsize=10, length=0)


def _shares(report: Report) -> list[str]:
    return [
        f"{report['training_flops'] / run['train'] / report['machine']['peak'][name]:.0%}"
        for name, run in report["runs"].items()
    ]
