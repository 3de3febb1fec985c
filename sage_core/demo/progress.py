"""What the demo shows while it works: a bar for each stage on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .comfyui import client

# Seconds.
_LINE_EVERY = 15.0


class Screen:
    """Bars and lines of one run; a context manager. `seconds` holds how long each finished stage took."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console()
        self.seconds: dict[str, float] = {}
        self.bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            # Anywhere but on a terminal the bars could only be drawn once, at the end.
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Screen:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end_bars()

    def end_bars(self) -> None:
        """Leave the bars as they are: no more is drawn of them. Lines go on."""
        self.bars.stop()

    def line(self, text: str) -> None:
        """Print a line of text above the bars."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Show what happens in the block as one stage."""
        stage = Stage(self, name)
        yield stage
        stage.finish()

    @contextmanager
    def stage_per_node(self, runs: Mapping[str, int]) -> Iterator[Callable[[client.Progress], None]]:
        """Yield an `on_progress` for `Server.run` that makes a stage of each node with one of these titles.

        Args:
            runs: how often each node works, by title: once for each item of a list.
        """
        open_stages: list[Stage] = []
        finished, value, maximum = 0, 0.0, 0.0

        def on_progress(progress: client.Progress) -> None:
            nonlocal finished, value, maximum
            if open_stages and open_stages[-1].name != progress.title:
                open_stages.pop().finish()
            if progress.title not in runs:
                return
            if not open_stages:
                open_stages.append(Stage(self, progress.title))
                finished, value, maximum = 0, 0.0, 0.0
            if not progress.maximum:
                return
            # At the next item of its list a node counts from the beginning again.
            finished += progress.value < value and progress.maximum == maximum
            value, maximum = progress.value, progress.maximum
            open_stages[-1].advance_to(finished * maximum + value, runs[progress.title] * maximum)

        yield on_progress
        for stage in open_stages:
            stage.finish()


class Stage:
    """One stage's bar. `advance_to(done, total)` may be called as often as anything happens."""

    def __init__(self, screen: Screen, name: str):
        self.name = name
        self._screen = screen
        self._task = screen.bars.add_task(name, total=None)
        self._total = 0.0
        self._start = self._last_line = time.monotonic()
        self._say("…")

    def advance_to(self, done: float, total: float) -> None:
        """Draw the bar at `done` of `total`."""
        self._total = total
        self._screen.bars.update(self._task, completed=done, total=total or None)
        if time.monotonic() - self._last_line >= _LINE_EVERY:
            self._say(f"{done:.0f} of {total:.0f}")

    def finish(self) -> None:
        """Fill the bar, wherever it stood."""
        total = self._total or 1
        self._screen.bars.update(self._task, completed=total, total=total)
        self._screen.seconds[self.name] = time.monotonic() - self._start
        self._say(f"done in {self._screen.seconds[self.name]:.0f} s")

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        if not self._screen.console.is_terminal:
            self._screen.line(f"{self.name}: {text}")
