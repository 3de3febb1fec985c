"""A judge's answers about a method's pictures, given in blocks that any number of processes share out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path

from ..errors import QuestionError
from ..files import whole_file, write_json
from ..tifa.answer_log import AnswerLog
from ..tifa.evaluation import evaluate
from ..tifa.questions import Question
from ..tifa.result_file import read_result
from ..tifa.scoring import TifaResult
from .claims import claim
from .judges import Judges
from .plan import MethodPlan
from .prompts import PromptList

# Pictures that a judge is asked about by one process.
_BLOCK = 64

# Picture, id and questions.
Asked = tuple[Path, str, Sequence[Question]]


def asked_of(bench: Judges, method: MethodPlan, listed: PromptList) -> list[Asked]:
    """Picture, id and questions of each item of a list."""
    files = zip(bench.pictures(method, listed), listed.items, strict=True)
    return [(file, item.id, listed.questions[item.source]) for file, item in files]


def answered(bench: Judges, method: MethodPlan, name: str, title: str, asked: Sequence[Asked]) -> TifaResult | None:
    """The judge's answers, None while other processes are at work on some of them.

    They are given in blocks that depend on the plan alone, so that they are the same whatever the number of processes.
    """
    folder = bench.folder(method) / f"{name}-{bench.key(name)[:8]}"
    blocks = {folder / f"{start:06}.json": asked[start : start + _BLOCK] for start in range(0, len(asked), _BLOCK)}
    counts = [sum(len(questions) for _, _, questions in block) for block in blocks.values()]
    told, total, before = bench.told(method, title), sum(counts), accumulate(counts, initial=0)
    tells = {file: partial(_tell_more, told, done, total) for file, done in zip(blocks, before, strict=False)}
    for file in blocks:
        if not file.exists():
            _ask(bench, method, blocks[file], file, tells[file])
    # Whoever waits for others looks at names alone; what is there is read once, when all of it is.
    if not all(file.exists() for file in blocks):
        return None
    found = [_read_block(file) or _ask(bench, method, blocks[file], file, tells[file]) for file in blocks]
    parts = [part for part in found if part]
    if len(parts) < len(found):
        return None
    # A process may have been killed between a block and the end of its log.
    _remove_logs(folder)
    told(total, total)
    return replace(parts[0], name=method.name, questions=tuple(row for part in parts for row in part.questions))


def _ask(
    bench: Judges, method: MethodPlan, block: Sequence[Asked], file: Path, told: Callable[[int, int], None]
) -> TifaResult | None:
    """Ask about a block, unless another process does, with a log in which a stopped one goes on; keep the answers."""
    with claim(bench.layout.lock(f"{file.parent.parent.name}-{file.parent.name}-{int(file.stem)}")) as is_mine:
        if not is_mine:
            return None
        if file.exists() and (kept := _read_block(file)):
            return kept
        # What is damaged counts as not there, also for those who wait.
        file.unlink(missing_ok=True)
        files, ids, questions = zip(*block, strict=True)
        result = evaluate(
            files,
            questions,
            bench.judge,
            sentences=bench.sentences,
            image_ids=ids,
            name=method.name,
            log=AnswerLog(_log(file), bench.judge.name, own=True),
            on_progress=told,
        )
        if not is_mine:
            return None
        write_json(file, result.to_dict(), own=True)
        _remove_logs(file.parent, file.stem)
    bench.blocks += 1
    return result


def _log(block: Path) -> Path:
    """A log of this process's own, with the answers that others gave before they were stopped.

    Nobody else writes to it, whatever the file system makes of locks.
    """
    own = block.with_suffix(f".{uuid.uuid4().hex[:12]}.jsonl")
    texts = [file.read_bytes() for file in sorted(block.parent.glob(f"{block.stem}.*jsonl"))]
    whole = b"".join(text[: text.rfind(b"\n") + 1] for text in texts)
    with whole_file(own, own=True) as temporary:
        temporary.write_bytes(whole)
    _remove_logs(block.parent, block.stem, but=own)
    return own


def _remove_logs(folder: Path, block: str = "*", but: Path | None = None) -> None:
    """Remove the logs of a block, by its number, or of all blocks."""
    for file in folder.glob(f"{block}.*jsonl*"):
        # Windows removes no file that a process has open.
        with suppress(OSError):
            if file != but:
                file.unlink()


def _tell_more(told: Callable[[int, int], None], before: int, total: int, done: int, _of: int) -> None:
    told(before + done, total)


def _read_block(file: Path) -> TifaResult | None:
    """The answers that are kept; None if there are none, or they are damaged and must be given again."""
    try:
        return read_result(file)
    except QuestionError:
        return None
