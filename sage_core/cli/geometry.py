"""`sage geometry`, `sage neighbours`, `sage drift`: what alignment did to the space of prompts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import plots
from ..errors import SettingsError
from ..geometry import CATEGORY_NEIGHBOURS, DEFAULT_NEIGHBOURS
from . import common

if TYPE_CHECKING:
    from ..geometry.points import Point
    from ..geometry.report import GeometryReport, Level
    from ..tifa.comparison import Comparison

# Prompts whose neighbours are shown if none is named.
_MOST_HURT = 6

_GEOMETRY = f"""
Compare the embedding spaces of two text encoders.

Did your prompts move together (spread ratio), do they have other neighbours (Jaccard overlap), which were hurt most?

PROMPTS may also be a file of TIFA questions. Its captions are the prompts then, and both figures are also measured
among the captions with a question of each type, with K = {CATEGORY_NEIGHBOURS}. With --scores, the reports or answer
logs of `sage score` for the pictures of both encoders, each type's loss in TIFA stands next to them, with the
correlation.
{common.ENCODERS}
examples:
  sage geometry sd-v1-4.ckpt sage.safetensors captions.txt --page page.png
  sage geometry sd-v1-4.ckpt sage.pt tifa.json --scores base.json sage.json --types types.png --types types.csv
  sage geometry sd-v1-4.ckpt des.pt tifa.json --scores base.json des.json --with sage-report.json --methods methods.png
  sage geometry base.safetensors aligned.safetensors captions.txt --report report.json --require strained
"""
_NEIGHBOURS = f"""
Show the nearest prompts of some, before and after alignment.

What did alignment bring together, and what did it take apart? Without --prompt the most hurt of PROMPTS are shown.
{common.ENCODERS}
examples:
  sage neighbours sd-v1-4.ckpt sage.safetensors captions.txt --page neighbours.png
  sage neighbours base.safetensors aligned.safetensors captions.txt --prompt "two red cats" --prompt "a blue cup" --json
"""
_DRIFT = f"""
Say how far alignment moved each prompt.

At a drift of 1 a prompt moved as far as the prompts nearest to it are away. PROMPTS are measured among themselves and
60 everyday ones, or those of --among.
{common.ENCODERS}
examples:
  sage drift sd-v1-4.ckpt sage.safetensors my-prompts.txt
  sage drift base.safetensors aligned.safetensors my-prompts.txt --above 0.2 --json
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three commands to the parser."""
    for name, run, add_arguments, text in (
        ("geometry", run_geometry, _add_geometry, _GEOMETRY),
        ("neighbours", run_neighbours, _add_neighbours, _NEIGHBOURS),
        ("drift", run_drift, _add_drift, _DRIFT),
    ):
        command = common.add_command(subparsers, name, run, text)
        add_arguments(command)
        common.add_work(command)


def _add_geometry(command: argparse.ArgumentParser) -> None:
    _add_spaces(command)
    command.add_argument("--unsafe", type=Path, metavar="FILE", help="unsafe prompts, for their separation and the map")
    _add_page(command, "draw the one-page report")
    command.add_argument(
        "--scores", type=Path, nargs=2, metavar=("BASE", "ALIGNED"), help="scores of both encoders' pictures"
    )
    command.add_argument(
        "--types",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the figures by type of question: a picture (.png) or a table (.csv); may repeat",
    )
    command.add_argument(
        "--methods", type=Path, metavar="PNG", help="draw spread ratio against TIFA, a point for each method"
    )
    command.add_argument(
        "--with",
        dest="others",
        type=Path,
        nargs="+",
        default=[],
        metavar="REPORT",
        help="further methods for --methods: earlier reports of this command with --scores",
    )
    command.add_argument(
        "--require", choices=["healthy", "strained"], help="exit with 3 if the verdict is worse than this"
    )


def _add_neighbours(command: argparse.ArgumentParser) -> None:
    _add_spaces(command)
    command.add_argument(
        "--prompt",
        action="append",
        default=[],
        type=common.text,
        metavar="TEXT",
        help="a prompt to look at; may repeat",
    )
    _add_page(command, "draw the lists side by side")


def _add_drift(command: argparse.ArgumentParser) -> None:
    _add_spaces(command)
    command.add_argument(
        "--among", type=Path, metavar="FILE", help="prompts to measure among, instead of the everyday ones"
    )
    command.add_argument(
        "--above",
        type=common.distance,
        metavar="DRIFT",
        help="exit with 3 if a prompt drifted further, for instance 0.2",
    )


def _add_spaces(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", type=Path, metavar="BASE")
    command.add_argument("aligned", type=Path, metavar="ALIGNED")
    command.add_argument("prompts", type=Path, metavar="PROMPTS")
    embeddings = ["flattened", "eos", "mean"]
    command.add_argument("--embedding", choices=embeddings, default="flattened", help="(default: %(default)s)")
    command.add_argument(
        "-k", type=int, default=DEFAULT_NEIGHBOURS, help="neighbours of each prompt (default: %(default)s)"
    )
    command.add_argument(
        "--precision",
        choices=["auto", "fp32", "tf32", "bf16"],
        default="auto",
        help="what the encoders compute in (default: bf16 where the device is natively faster in it, else fp32)",
    )


def _add_page(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--page", type=Path, metavar="PNG", help=what)
    command.add_argument("--dark", action="store_true", help="draw on a dark background")


def run_geometry(options: argparse.Namespace) -> int:
    """Write measures, verdict and the one-page report; return 3 if the verdict is worse than required."""
    _check_geometry(options)
    from ..geometry.page import report_page
    from ..geometry.points import Point

    change = _tifa_change(*options.scores) if options.scores else None
    others = _read_methods(options.others)
    prompts, groups = _grouped_prompts(options)
    unsafe = common.prompts(options.unsafe) if options.unsafe else ()
    report = _compare(options, prompts, unsafe, groups)
    if change:
        report = report.with_losses(change.by_type)
    method = Point.of(change.other, report, change.tifa) if change else None
    if options.page:
        plots.save_figure(options.page, report_page(report, common.theme(options)))
    common.write(options, report.to_dict() | ({"method": method.to_dict()} if method else {}), report.to_markdown())
    _write_types(options, report)
    if options.methods and method:
        _draw_methods(options, others, method)
    allowed: dict[str | None, tuple[Level, ...]] = {"healthy": ("healthy",), "strained": ("healthy", "strained")}
    return 0 if report.verdict.level in allowed.get(options.require, (report.verdict.level,)) else common.WORSE


def run_neighbours(options: argparse.Namespace) -> int:
    """Write the nearest prompts of the given or the most hurt ones, before and after alignment."""
    _check(options, {"--page": options.page}, {})
    from ..geometry.page import neighbour_lists

    chosen = list(dict.fromkeys(options.prompt))
    report = _compare(options, list(dict.fromkeys([*chosen, *common.prompts(options.prompts)])))
    rows = list(range(len(chosen))) or list(report.most_hurt[:_MOST_HURT])
    if options.page:
        plots.save_figure(options.page, neighbour_lists(report, rows, common.theme(options)))
    found = [report.prompt_row(row) | report.neighbours_of(row) for row in rows]
    text = "\n".join([*map(report.neighbours_markdown, rows), report.provenance()])
    common.write(options, report.about() | {"neighbours": found}, text + "\n")
    return 0


def run_drift(options: argparse.Namespace) -> int:
    """Write how far each prompt moved, the furthest first; return 3 if one moved further than allowed."""
    _check(options, {}, {"--among": options.among})
    from ..geometry.drift import DriftReport
    from ..prompts.everyday import REFERENCE_PROMPTS

    own = common.prompts(options.prompts)
    among = common.prompts(options.among) if options.among else REFERENCE_PROMPTS
    report = _compare(options, list(dict.fromkeys([*own, *among])))
    drift = DriftReport.of(report, len(own), options.above)
    common.write(options, report.about() | drift.to_dict(), f"{drift.to_markdown()}\n{report.provenance()}\n")
    return common.WORSE if drift.beyond else 0


def _check_geometry(options: argparse.Namespace) -> None:
    """Refuse what does not fit together before anything is read."""
    outputs = {"--page": options.page, "--methods": options.methods}
    outputs |= {f"--types {path}": path for path in options.types}
    inputs = {"--unsafe": options.unsafe, **{f"--with {path}": path for path in options.others}}
    inputs |= dict(zip(("--scores BASE", "--scores ALIGNED"), options.scores or (), strict=False))
    _check(options, outputs, inputs)
    for path in options.types:
        if path.suffix.lower() not in (".png", ".csv"):
            raise SettingsError(f"--types is '{path}'; expected a name that ends in .png or .csv.")
    if options.methods and not options.scores:
        raise SettingsError("--methods draws TIFA; give --scores, the scores of both encoders' pictures, too.")
    if options.others and not options.methods:
        raise SettingsError("--with names further methods for a picture; give --methods, the picture's name, too.")


def _grouped_prompts(options: argparse.Namespace) -> tuple[Sequence[str], dict[str, tuple[int, ...]] | None]:
    """The prompts in PROMPTS, and their places by type of question if it is a question file."""
    from ..tifa.questions import captions_by_type, holds_questions, read_questions

    if holds_questions(options.prompts):
        questions, report = read_questions(options.prompts)
        common.say(report.summary())
        return captions_by_type(questions)
    if options.types:
        raise SettingsError(
            f"--types needs types of questions, and PROMPTS, '{options.prompts}', is a list of prompts. "
            "Give a file of TIFA questions."
        )
    return common.prompts(options.prompts), None


def _tifa_change(base: Path, aligned: Path) -> Comparison:
    """TIFA of the aligned encoder's pictures against that of the base's."""
    from ..tifa.comparison import compare
    from ..tifa.result_file import read_result

    return compare(read_result(base), read_result(aligned))


def _read_methods(paths: Sequence[Path]) -> tuple[Point, ...]:
    """The methods in earlier reports; raises SettingsError if they do not fit together."""
    from ..geometry.points import Point, joined
    from ..rows import parse_json, read_text

    found: tuple[Point, ...] = ()
    for path in paths:
        try:
            content = parse_json(read_text(path, SettingsError)[0])
        except ValueError as error:
            raise SettingsError(f"{path}: {error}. Expected a report of `sage geometry --scores`.") from error
        found = joined(found, Point.from_dict(content.get("method") if isinstance(content, dict) else None, str(path)))
    return found


def _write_types(options: argparse.Namespace, report: GeometryReport) -> None:
    from ..files import write_text
    from ..geometry.category_plots import types_page

    for path in options.types:
        if report.categories is None or not report.categories.measured:
            raise SettingsError(f"{path} cannot be made: no type of question has enough prompts.")
        if path.suffix.lower() == ".csv":
            write_text(path, report.categories.to_csv())
        else:
            plots.save_figure(path, types_page(report, common.theme(options)))


def _draw_methods(options: argparse.Namespace, others: Sequence[Point], method: Point) -> None:
    from ..geometry.category_plots import methods_figure
    from ..geometry.points import joined

    plots.save_figure(options.methods, methods_figure(joined(others, method), common.theme(options)))


def _check(options: argparse.Namespace, outputs: dict[str, Path | None], inputs: dict[str, Path | None]) -> None:
    known = {"BASE": options.base, "ALIGNED": options.aligned, "PROMPTS": options.prompts}
    common.check_outputs({"--report": options.report, **outputs}, {**known, **inputs})
    for name in ("--page", "--methods"):
        common.check_suffix(name, outputs.get(name), ".png")


def _compare(
    options: argparse.Namespace,
    prompts: Sequence[str],
    unsafe: Sequence[str] = (),
    groups: Mapping[str, Sequence[int]] | None = None,
) -> GeometryReport:
    """Compare the two encoders of a command line on these prompts."""
    from ..encoders.text_encoder import TextEncoder
    from ..geometry.comparison import GeometrySettings, compare_encoders

    device = common.device(options)
    settings = GeometrySettings(embedding=options.embedding, k=options.k)
    states = (common.read_state(path) for path in (options.base, options.aligned))
    base, aligned = (TextEncoder.from_state(state, copy=False) for state in states)
    return compare_encoders(
        base,
        aligned,
        prompts,
        unsafe,
        settings,
        groups=groups,
        device=device,
        precision=options.precision,
        on_batch=common.Bars(options.quiet)("embedding prompts"),
    )
