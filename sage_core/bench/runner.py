"""A benchmark from its command line to its files: ways of doing one thing, timed one after another."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..devices import choose_device, machine
from ..errors import SageError
from ..files import check_writable, whole_file, write_json, write_text
from ..tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What bench.json holds.
Report = dict[str, Any]
# Title -> text of a row of a report.
Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]


def _none(_: Report) -> list[str]:
    return []


@dataclass(frozen=True)
class Bench:
    """A benchmark; `main` is its command.

    Attributes:
        module: what follows `python -m`.
        about: its help, the module's own docstring.
        add_options: adds what it takes beyond --device, --quick and --output.
        measure: fills in the report, which holds `machine`, and yields a line after each thing that it measured.
        to_markdown: a report as it is read, also an unfinished one.
        quick: what --quick does.
        disagreements: a line for each result that differs by more than is allowed.
        draw: a report as a picture.
        packages: whose versions belong to what was measured on.
        output: folder for the results where --output names none; None to keep nothing.
    """

    module: str
    about: str
    add_options: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace, torch.device, Report], Iterator[str]]
    to_markdown: Callable[[Report], str]
    quick: str
    disagreements: Callable[[Report], list[str]] = _none
    draw: Callable[[Report], Figure] | None = None
    packages: Sequence[str] = ()
    output: Path | None = None

    def main(self, arguments: Sequence[str] | None = None) -> Report:
        """Measure what the command line asks for; the table is printed, and --output keeps it with the JSON."""
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.module}",
            description=self.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_options(parser)
        parser.add_argument("--quick", action="store_true", help=self.quick)
        parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the networks")
        parser.add_argument("--output", type=Path, default=self.output, help=f"folder for {self._files}")
        options = parser.parse_args(arguments)
        try:
            device = choose_device(options.device, field="--device")
            if options.output is not None:
                check_writable(options.output / "bench.json")
            report: Report = {"machine": machine(device) | {p: importlib.metadata.version(p) for p in self.packages}}
            for line in self.measure(options, device, report):
                # After each thing, so that an interrupted run leaves what it measured.
                self._keep(options.output, report)
                sys.stderr.write(f"{line}\n")
        except SageError as error:
            parser.error(str(error))
        if self.draw is not None and options.output is not None:
            with whole_file(options.output / "bench.png") as path:
                self.draw(report).savefig(path, format="png")
        sys.stdout.write(self.to_markdown(report) + "\n")
        for line in self.disagreements(report):
            sys.stderr.write(f"NOT WITHIN TOLERANCE: {line}\n")
        return report

    def run(self) -> int:
        """Do what this process's command line asks for. Returns the exit code, 1 if results disagree."""
        return 1 if self.disagreements(self.main()) else 0

    @property
    def _files(self) -> str:
        return "bench.json, bench.md and bench.png" if self.draw else "bench.json and bench.md"

    def _keep(self, folder: Path | None, report: Report) -> None:
        if folder is not None:
            write_json(folder / "bench.json", report)
            write_text(folder / "bench.md", self.to_markdown(report) + "\n")


def measured_on(found: Mapping[str, Any]) -> str:
    """The machine of a report, in words."""
    return ", ".join(f"{name} {value}" if name != "device" else str(value) for name, value in found.items())


def table_of(rows: Sequence[Mapping[str, Any]], columns: Columns, align: str | None = None) -> str:
    """Rows of a report as a Markdown table."""
    return markdown_table(list(columns), ([show(row) for show in columns.values()] for row in rows), align)


def column(name: str, form: str = "") -> Callable[[Mapping[str, Any]], str]:
    """What shows a value of a row in this format, or as `number` does."""
    return lambda row: f"{row[name]:{form}}" if form else number(row[name])


def number(value: float | None) -> str:
    """A number with three digits or all before its point."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
