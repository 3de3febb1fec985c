"""What making questions gives: the kept questions, and all that was dropped, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from ..questions import Question, count_types


@dataclass(frozen=True)
class DroppedQuestion:
    """A question, or a whole answer of the model, that was not kept."""

    caption_id: str
    text: str
    reason: str


@dataclass(frozen=True)
class MadeQuestions:
    """Questions for captions, and all that did not become one.

    without: ids of captions left without any question. guessable: keys of kept questions that the model answers
    rightly without the caption too, so that they say less about a picture. notes: what a user should know of the way.
    """

    writer: str
    questions: tuple[Question, ...]
    dropped: tuple[DroppedQuestion, ...]
    without: tuple[str, ...]
    guessable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self, most: int = 20) -> str:
        """Counts by type, what was dropped and why, and captions that got no question, as text."""
        captions = len({question.id for question in self.questions})
        lines = [f"{len(self.questions)} questions about {captions} captions by {self.writer}"]
        lines += [f"  {name}: {count}" for name, count in count_types(self.questions).items()]
        lines += self.notes
        if self.guessable:
            lines.append(f"{len(self.guessable)} of them are answered rightly without the caption too:")
            lines += [f"  {caption_id}: {question}" for caption_id, question in self.guessable[:most]]
        if len(self.guessable) > most:
            lines.append(f"  … and {len(self.guessable) - most} more")
        if self.dropped:
            lines.append(f"{len(self.dropped)} dropped:")
            lines += [f"  {d.caption_id}: {d.reason}: {d.text}" for d in self.dropped[:most]]
        if len(self.dropped) > most:
            lines.append(f"  … and {len(self.dropped) - most} more")
        if self.without:
            lines.append(f"{len(self.without)} captions without a question: {', '.join(self.without[:most])}")
        return "\n".join(lines)
