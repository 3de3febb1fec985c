"""Questions for any caption: judged or written by a local language model, or by rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from ...errors import QuestionError, SettingsError
from ..questions import Question
from .free_form import written_questions
from .grammars import PACKAGE
from .judging import judged_questions
from .made import DroppedQuestion, MadeQuestions
from .rules import rule_questions

if TYPE_CHECKING:
    from .language_model import LanguageModel

__all__ = ["SMALL", "DroppedQuestion", "MadeQuestions", "Way", "make_questions", "make_questions_by_rule"]

Way = Literal["auto", "judge", "write"]
SMALL = 1_000_000_000
"""Models of fewer parameters judge questions; those of more write them. SmolLM2 with 135 million can only judge."""

# Captions that are written about at once. Progress within a caption is counted in hundredths of it.
_AT_ONCE = 8
_STEPS = 100


def make_questions(
    captions: Mapping[str, str],
    writer: LanguageModel,
    *,
    way: Way = "auto",
    attempts: int = 3,
    seed: int = 0,
    on_caption: Callable[[int, int], None] | None = None,
) -> MadeQuestions:
    """Questions about `captions` (id -> caption) with a language model's help, only the sound ones.

    Args:
        captions: id -> caption.
        writer: The model, see LanguageModel.
        way: "judge": word lists and templates draft questions, and the model judges them by likelihoods, see
            `judged_questions`. "write": the model writes them as JSON, and they are checked, see `written_questions`.
            "auto": a model of fewer than SMALL parameters judges, a larger one writes.
        attempts: How often a caption without a sound question is tried, each time with other random numbers.
        seed: Of all that is drawn; the same seed gives the same questions.
        on_caption: Called with (steps done, all steps), many times a caption; what it raises ends the work.

    Raises:
        QuestionError: There is no caption, or one is empty.
        SettingsError: `way` or `attempts` has a value that makes no sense.
    """
    _refuse_empty(captions)
    if way not in ("auto", "judge", "write"):
        raise SettingsError(f"way is {way!r}, expected 'auto', 'judge' or 'write'.")
    if attempts < 1:
        raise SettingsError(f"attempts is {attempts}, expected 1 or more.")
    progress = on_caption or (lambda done, total: None)
    if way == "judge" or (way == "auto" and writer.parameters < SMALL):
        return _by_judging(captions, writer, attempts, seed, progress)
    return _by_writing(captions, writer, attempts, seed, progress)


def _by_judging(
    captions: Mapping[str, str], writer: LanguageModel, attempts: int, seed: int, progress: Callable[[int, int], None]
) -> MadeQuestions:
    kept: dict[str, tuple[Question, ...]] = {}
    dropped: list[DroppedQuestion] = []
    guessable: list[tuple[str, str]] = []
    for number, (name, caption) in enumerate(captions.items()):

        def on_step(share: float, number: int = number) -> None:
            progress(int((number + share) * _STEPS), len(captions) * _STEPS)

        for attempt in range(attempts):
            # Another attempt draws other wrong choices and foils.
            judged = judged_questions(name, caption, writer, seed + attempt, on_step)
            if judged.questions:
                break
        if judged.questions:
            kept[name] = judged.questions
        dropped += judged.dropped
        guessable += judged.guessable
        on_step(1.0)
    note = f"drafted by word lists and judged by {writer.name}, which wrote nothing itself"
    return _made(f"{writer.name} (judging)", captions, kept, dropped, tuple(guessable), (note,))


def _by_writing(
    captions: Mapping[str, str], writer: LanguageModel, attempts: int, seed: int, progress: Callable[[int, int], None]
) -> MadeQuestions:
    kept: dict[str, tuple[Question, ...]] = {}
    dropped: list[DroppedQuestion] = []
    for attempt in range(attempts):
        left = [name for name in captions if name not in kept]
        for start in range(0, len(left), _AT_ONCE):
            some = {name: captions[name] for name in left[start : start + _AT_ONCE]}
            # What this attempt can still finish; the bar goes back a little where a caption has to be tried again.
            before, share = (len(captions) - len(left) + start) * _STEPS, len(some) * _STEPS

            def on_token(written: int, tokens: int, before: int = before, share: int = share) -> None:
                progress(before + share * written // (tokens + 1), len(captions) * _STEPS)

            # The first attempt takes the model's own first choice, which is its best and repeats exactly.
            drawn = None if attempt == 0 else seed + attempt
            for name, sound, unsound in written_questions(some, writer, seed=drawn, on_token=on_token):
                dropped += unsound
                if sound:
                    kept[name] = tuple(sound)
            progress(before + share, len(captions) * _STEPS)
    notes = () if writer.can_follow_grammars else (f"without {PACKAGE}, which would keep the model to the format: pip "
                                                   f"install {PACKAGE}",)  # fmt: skip
    return _made(writer.name, captions, kept, dropped, (), notes)


def make_questions_by_rule(captions: Mapping[str, str]) -> MadeQuestions:
    """Questions without any model, see `rule_questions` for what rules can see and what they cannot."""
    _refuse_empty(captions)
    made = {name: rule_questions(name, caption) for name, caption in captions.items()}
    kept = {name: some for name, some in made.items() if some}
    writer = "rules (articles, colors, counts, materials, shapes, sizes, places and spatial relations by word lists)"
    return _made(writer, captions, kept, (), (), ())


def _made(
    writer: str,
    captions: Mapping[str, str],
    kept: Mapping[str, tuple[Question, ...]],
    dropped: Sequence[DroppedQuestion],
    guessable: tuple[tuple[str, str], ...],
    notes: tuple[str, ...],
) -> MadeQuestions:
    questions = tuple(question for name in captions for question in kept.get(name, ()))
    without = tuple(name for name in captions if name not in kept)
    return MadeQuestions(writer, questions, tuple(dropped), without, guessable, notes)


def _refuse_empty(captions: Mapping[str, str]) -> None:
    empty = [name for name, caption in captions.items() if not caption.strip()]
    if empty or not captions:
        raise QuestionError(f"caption {empty[0]!r} is empty" if empty else "there is no caption to ask about")
