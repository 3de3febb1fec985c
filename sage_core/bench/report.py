"""The alignment bench's results, as bench.json holds them, as a page of tables and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..plots import LIGHT, new_figure, style, title
from .compare import TOLERANCES, disagreements
from .runner import Part, Report, Row, filled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEMORY = "{peak} ({estimate:.2f})"


def _phases(report: Report) -> list[Row]:
    """The published procedure, and each of our runs."""
    naive = report["naive"]
    blank = dict.fromkeys(["tokenise", "prepare", "finish", "save", "share", "memory"], "")
    rows = [blank | naive | {"procedure": "published procedure, fp32, scaled from a sample", "times": "1"}]
    for precision, run in report["runs"].items():
        share = report["training_flops"] / run["train"] / report["machine"]["peak"][precision]
        found = {"times": f"{naive['total'] / run['total']:,.0f}", "share": f"{share:.0%}"}
        rows.append(run | found | {"procedure": f"ours, {precision}", "memory": filled(_MEMORY, run)})
    return rows


_PHASES = {
    "seconds": "{procedure}",
    "tokenise": "{tokenise}",
    "embed (codebook)": "{embed}",
    "pair": "{pair}",
    "all three, as the run does them": "{prepare}",
    "train": "{train}",
    "collect and hash": "{finish}",
    "save": "{save}",
    "**total after loading**": "{total}",
    "one step": "{step}",
    "times faster": "{times}",
    "share of the measured peak": "{share}",
    "peak memory, GiB (estimated)": "{memory}",
}
_STEPS = {
    "step": "{precision}",
    "published procedure, s": "{naive}",
    "ours, s": "{ours}",
    "times faster": "{times:.2f}",
    "difference of the loss": "{loss_gap:.1e}",
}
_AGREEMENT = {
    "against fp32": "{precision}",
    "same targets": "{same_targets:.2%}",
    "largest loss of cosine": "{regret:.1e}",
    "largest difference of the loss": "{loss_gap:.1e}",
}
_SMALL_CARD = {
    "precision": "{precision}",
    "step, s": "{step}",
    "times slower": "{times_slower:.2f}",
    "peak memory, GiB (estimated)": _MEMORY,
    "difference of the loss": "{loss_gap:.1e}",
}
_PAIRS = {
    "pairs": "{pairs:,}",
    "prepare, s": "{prepare}",
    "train, s (at the measured step)": "{train}",
    "base embeddings, GiB": "{stored}",
    "preparing adds, GiB": "{working}",
}
_BATCHES = {
    "batch": "{batch}",
    "step, s": "{step}",
    "pairs a second": "{rate:,.1f}",
    "peak memory, GiB (estimated)": _MEMORY,
}
_TITLE = "# Alignment on {machine[device]}, {machine[threads]} threads, PyTorch {machine[torch]}"
_RUN = (
    'Size "{size}": {config[layers]} layers of width {config[width]}, {pairs:,} pairs, batch {settings[batch_size]}, '
    "{steps} steps. {training_flops:.3g} operations in training, {embedding_flops:.3g} in embedding (matrix products "
    "only)."
)
_PUBLISHED = (
    "Published procedure: {naive[prompt]} s a codebook entry, {naive[search]} s a search, {naive[step]} s a step. Ours "
    "pairs {naive[times_pairing]:,.0f} times faster. Steps taken in turns, each at the same precision:"
)
_APPLY = (
    "Using an aligned encoder costs a graph {apply[read]} s to read the file and {apply[difference]} s for the "
    "difference, once; nothing for each picture."
)


def _first_run(report: Report) -> str:
    fast = next(iter(report["runs"]))
    peaks = (f"{name} {value / 1e12:,.2f} TFLOP/s" for name, value in report["machine"]["peak"].items())
    return (
        f"First {fast} run of the process, kernels loaded along the way: {{first[total]}} s. "
        f"Measured peak of a matrix product: {', '.join(peaks)}."
    )


def _same(report: Report) -> str:
    limits = "; ".join(f"{name} {most:g}" for name, most in TOLERANCES.items())
    beyond = disagreements(report)
    again = "the same losses to the last bit" if report["same_again"] else "other losses"
    return (
        "## Same results\n\nSearched one by one, {naive[same_targets]:.0%} of the targets are ours. A step in chunks "
        "has the gradient of the whole batch within {gradient_gap:.1e}. "
        f"The {next(iter(report['runs']))} run repeated gives {again}.\n\n"
        f"Allowed are: {limits}. {'; '.join(['**Beyond that:**', *beyond]) if beyond else 'All agree.'}"
    )


PAGE = [
    Part("machine", _TITLE),
    Part("embedding_flops", _RUN),
    Part("naive", columns=_PHASES, rows=_phases, turned=True),
    Part("naive", _first_run),
    Part("naive", _PUBLISHED, _STEPS, lambda report: report["naive"]["steps"]),
    Part("gradient_gap", _same, _AGREEMENT, lambda report: report["agreement"]),
    Part("small_card", "## On a small card (6 GB)", _SMALL_CARD),
    Part("batch_curve", lambda report: f"## Cost against pairs and batch, {next(iter(report['runs']))}"),
    Part("pair_curve", columns=_PAIRS),
    Part("batch_curve", columns=_BATCHES),
    Part("apply", _APPLY),
]


def draw(report: Report) -> Figure:
    """Seconds by phase against the published procedure, time and memory against pairs, speed against batch size."""
    figure = new_figure(700, LIGHT)
    (phases, pairs), (batches, memory) = figure.subplots(2, 2)
    _draw_phases(phases, report)
    curve = report["pair_curve"]
    _draw_curves(pairs, "seconds", "pairs", curve, {"prepare": "prepare", "train": "train"})
    _log_seconds(pairs)
    _draw_curves(batches, "pairs a second", "batch", report["batch_curve"], {"rate": "pairs a second"})
    # Where memory was not measured there is nothing to draw.
    curve = [row for row in curve if row["working"] is not None]
    _draw_curves(memory, "GiB", "pairs", curve, {"stored": "base embeddings", "working": "what preparing adds"})
    for axes in (batches, memory):
        axes.set_ylim(bottom=0)
    for axes in (phases, pairs, batches, memory):
        style(axes, LIGHT)
    for axes in (phases, pairs, memory):
        axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_phases(axes: Axes, report: Report) -> None:
    runs = {"published": report["naive"], **{f"ours, {name}": run for name, run in report["runs"].items()}}
    names = ["embed", "pair", "train", "total"]
    colors = (LIGHT.muted, LIGHT.methods[1])
    for shift, color, label in zip((-0.2, 0.2), colors, runs, strict=False):
        places = [place + shift for place in range(len(names))]
        axes.bar(places, [runs[label][name] for name in names], 0.4, color=color, label=label)
    axes.set_xticks(range(len(names)), names)
    _log_seconds(axes)
    title(axes, f"seconds, {report['pairs']:,} pairs", LIGHT, 11)


def _draw_curves(axes: Axes, head: str, against: str, curve: list[Row], labels: Mapping[str, str]) -> None:
    """A curve for each value against the number of pairs or the batch; the axis names those measured and no others."""
    counts = [row[against] for row in curve]
    for (name, label), color in zip(labels.items(), LIGHT.methods[1:], strict=False):
        axes.plot(counts, [row[name] for row in curve], color=color, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel(against, color=LIGHT.muted, fontsize=10)
    title(axes, head, LIGHT, 11)


def _log_seconds(axes: Axes) -> None:
    """A logarithmic axis of seconds, its ticks as plain numbers: powers of ten are slow to read."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    # 1, 3, 10, 30: half of a power of ten apart.
    axes.yaxis.set_minor_locator(LogLocator(subs=(3,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(which="minor", colors=LIGHT.muted, labelsize=10, length=0)
