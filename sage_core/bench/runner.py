"""A benchmark from its command line to its files: ways of doing one thing, measured one after another."""

from __future__ import annotations

import argparse
import importlib.metadata
import string
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..devices import choose_device, machine
from ..errors import SageError
from ..files import check_writable, whole_file, write_json, write_text
from ..tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What bench.json holds, and a row of a table in it.
Report = dict[str, Any]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of a bench's page, which stands there once the report holds what it shows.

    Attributes:
        needs: that key of the report.
        text: a template, filled in with the report's values, see `filled`; or what makes one of a report.
        columns: titles of a table's columns and templates of its cells, filled in with a row's values.
        rows: the table's rows in a report; by default those under `needs`.
        turned: whether each of them is a column of the table, and each of the columns a row.
    """

    needs: str
    text: str | Callable[[Report], str] = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: Callable[[Report], Sequence[Row]] | None = None
    turned: bool = False

    def to_markdown(self, report: Report) -> str:
        """The text, and below it the table."""
        text = self.text if isinstance(self.text, str) else self.text(report)
        texts = [filled(text, report)] if text else []
        if self.columns:
            rows = self.rows(report) if self.rows else report[self.needs]
            table = [list(self.columns), *([filled(cell, row) for cell in self.columns.values()] for row in rows)]
            head, *cells = zip(*table, strict=True) if self.turned else table
            texts.append(markdown_table(head, cells, "l" + "r" * (len(head) - 1)))
        return "\n\n".join(texts)


class _Template(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        """A number without a format has three digits, or all before its point."""
        if value is None:
            return "not measured"
        if isinstance(value, float) and not format_spec:
            return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        return str(super().format_field(value, format_spec))


def filled(template: str, values: Row) -> str:
    """A template of `str.format` with these values; what is None was not measured, and says so."""
    return _Template().vformat(template, (), values)


@dataclass(frozen=True)
class Bench:
    """A benchmark; `main` is its command.

    Attributes:
        module: what follows `python -m`.
        about: its help, the module's own docstring.
        add_options: adds what it takes beyond --device, --quick and --output.
        measure: fills in the report, which holds `machine`, and yields a line after each thing that it measured.
        page: a report as it is read, also an unfinished one; `where` is its machine in words.
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
    page: Sequence[Part]
    quick: str
    disagreements: Callable[[Report], list[str]] = lambda _: []
    draw: Callable[[Report], Figure] | None = None
    packages: Sequence[str] = ()
    output: Path | None = None

    def main(self, arguments: Sequence[str] | None = None) -> Report:
        """Measure what the command line asks for; the table is printed, and --output keeps it with the JSON."""
        files = "bench.json, bench.md and bench.png" if self.draw else "bench.json and bench.md"
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.module}",
            description=self.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_options(parser)
        parser.add_argument("--quick", action="store_true", help=self.quick)
        parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the networks")
        parser.add_argument("--output", type=Path, default=self.output, help=f"folder for {files}")
        options = parser.parse_args(arguments)
        try:
            device = choose_device(options.device, field="--device")
            if options.output is not None:
                check_writable(options.output / "bench.json")
            report: Report = {"machine": machine(device) | {p: importlib.metadata.version(p) for p in self.packages}}
            for line in self.measure(options, device, report):
                # After each thing, so that an interrupted run leaves what it measured.
                if options.output is not None:
                    write_json(options.output / "bench.json", report)
                    write_text(options.output / "bench.md", self.to_markdown(report) + "\n")
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

    def to_markdown(self, report: Report) -> str:
        """What was measured so far, as a page of tables."""
        told = {name: value for name, value in report["machine"].items() if name not in ("device", "peak")}
        where = ", ".join([report["machine"]["device"], *(f"{name} {value}" for name, value in told.items())])
        shown = {**report, "where": where}
        return "\n\n".join(part.to_markdown(shown) for part in self.page if shown.get(part.needs))

    def run(self) -> int:
        """Do what this process's command line asks for. Returns the exit code, 1 if results disagree."""
        return 1 if self.disagreements(self.main()) else 0
