"""The command line, without ComfyUI: `sage train`, `geometry`, `neighbours`, `drift`, `score`, and others.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 input that cannot be used,
2 a wrong command line, 3 the encoder is in a worse state than `sage geometry --require` or `sage drift --above`
allows, or not the one that `sage doctor` looks for, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from .. import __version__
from ..errors import SageError
from ..rows import printable
from . import agreement, attack, distance, doctor, edit, evaluate, geometry, lora, make, pairs, rate, runs, score, train

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Args:
        arguments: those of the command line. With None they are the process's own. Then this function also takes over
            signals and output streams for good: the process is expected to end with the exit code.
    """
    if arguments is not None:
        return _run(arguments)
    interrupts = _Interrupts()
    try:
        interrupts.listen()
        _take_any_text()
        code = _run(sys.argv[1:])
        if interrupts.count and code:
            # What is interrupted while it imports or reads may fail with an error of its own.
            code = _INTERRUPTED
    except KeyboardInterrupt:
        code = _say_interrupted()
    except Exception:
        # What is interrupted while it imports may raise an error of its own, and not KeyboardInterrupt.
        if not interrupts.count:
            raise
        code = _say_interrupted()
    interrupts.leave_with(code)
    _close_output()
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        options = _parser().parse_args(arguments)
        return options.run(options)
    except KeyboardInterrupt:
        return _say_interrupted()
    except Exception as error:
        if not _is_expected(error):
            raise
        sys.stderr.write("sage: error: " + printable(" ".join(str(error).split())) + "\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sage", description="Safe text encoders for Stable Diffusion 1.x.")
    parser.add_argument("--version", action="version", version=f"sage {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    encoders = (pairs, train, runs, geometry, score, rate, distance, evaluate, lora)
    for command in (*encoders, make, edit, attack, doctor, agreement):
        command.register(subparsers)
    return parser


def _say_interrupted() -> int:
    sys.stderr.write("sage: interrupted\n")
    return _INTERRUPTED


def _is_expected(error: Exception) -> bool:
    """Whether an error comes from the input or the machine and a sentence explains it, not from this program."""
    if isinstance(error, SageError | OSError):
        return True
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from ..batches import is_out_of_memory

    return is_out_of_memory(error)


class _Interrupts:
    """Turns Ctrl-C and SIGTERM into one KeyboardInterrupt, on which work saves what it has.

    A second signal only warns, since it may come while a checkpoint is written; a third ends the process at once.
    """

    def __init__(self) -> None:
        self.count = 0

    def listen(self) -> None:
        """Take the signals, except those that the process was started to ignore."""
        self._handle(self._on_signal)

    def leave_with(self, code: int) -> None:
        """Let a signal end the process at once with this code: the work is done, and a traceback would mislead."""

        def leave(_: int, __: FrameType | None) -> None:
            os._exit(code)

        self._handle(leave)

    def _handle(self, handler) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            raise KeyboardInterrupt
        if self.count > 2:
            os._exit(_INTERRUPTED)
        with contextlib.suppress(OSError):
            # Not through sys.stderr, which may be in the middle of a write.
            os.write(2, b"sage: stopping; once more stops at once and saves nothing\n")


def _take_any_text() -> None:
    """Show a character's code where the terminal cannot show the character, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _close_output() -> None:
    """Write everything out before the exit, where a failure would be a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The pipe is closed or the disk is full; the exit code says so.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
