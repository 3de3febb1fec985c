"""Prompt lists that drive an ordinary graph one by one, and prompt pairs for the training."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from ..sage_core.errors import PromptError
from ..sage_core.prompts.attack_lists import AttackPrompt, UnknownListError, read_attack_list
from ..sage_core.prompts.concept_files import concept_files, named_files, parse_concepts, read_concepts
from ..sage_core.prompts.concept_pairs import pairs_from_concepts, read_concepts_pairs
from ..sage_core.prompts.minors import Context, context_of, without_minors
from ..sage_core.prompts.pairs import pairs_from_concept, pairs_from_lists, read_concept_pairs, read_pairs, read_prompts
from ..sage_core.rows import split_lines
from ..sage_core.tifa.answer_log import answered_captions
from ..sage_core.tifa.questions import Question, group_by_caption
from .host import display, files
from .host.inputs import concepts_input, exactly_one, found_by, seed_input
from .host.sockets import Concepts, Pairs, Questions


class SAGEPromptList(io.ComfyNode):
    """Sends many prompts, one after the other, through an ordinary graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEPromptList",
            display_name="SAGE Prompt List",
            category="SAGE/score",
            **found_by("prompts from file", "batch prompts", "i2p"),
            description="Prompts of a file, questions or pairs, as a list: all behind it runs once per prompt.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[files.NONE, *files.prompt_files()],
                    default=files.NONE,
                    tooltip="Prompts in ComfyUI's input folder: CSV, JSON, JSONL or text, also lists of attacks as "
                    "their authors publish them. 'none' with questions or pairs.",
                ),
                io.Int.Input("start", default=0, min=0, max=10_000_000, tooltip="Prompts to leave out at the top."),
                io.Int.Input("count", default=0, min=0, max=10_000_000, tooltip="Prompts to take. 0: all the rest."),
                seed_input("Prompt number i, counted in the whole file, gets seed + i: the same picture in any range."),
                Questions.Input("questions", optional=True, tooltip="Their captions are the prompts."),
                io.String.Input(
                    "log",
                    default="",
                    optional=True,
                    tooltip="SAGE Score TIFA's log: prompts whose questions it answers are left out, and count takes "
                    "the next ones. Several, with commas, where several nodes score these prompts.",
                ),
                io.Boolean.Input(
                    "own_settings",
                    default=False,
                    optional=True,
                    tooltip="Hand on the seed and the guidance scale that the file gives for a row, where it does.",
                ),
                io.Float.Input(
                    "guidance",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip="The guidance scale of rows that give none.",
                ),
                Pairs.Input(
                    "pairs",
                    optional=True,
                    tooltip="One side of them, each prompt once, in an order by chance: any part holds every form.",
                ),
                io.Combo.Input(
                    "side",
                    options=["unsafe", "safe"],
                    default="unsafe",
                    optional=True,
                    tooltip="Of pairs: unsafe prompts name the concept, safe ones are near misses and harmless.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="prompt", is_output_list=True, tooltip="For CLIP Text Encode."),
                io.Int.Output(display_name="seed", is_output_list=True, tooltip="For KSampler, one per prompt."),
                Questions.Output(display_name="questions", tooltip="Those about these prompts, for SAGE Score TIFA."),
                io.String.Output(display_name="summary", tooltip="What was taken and what was left out."),
                io.Float.Output(
                    display_name="guidance", is_output_list=True, tooltip="For KSampler's cfg, one per prompt."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return files.taken(files.prompt_path, *files.chosen(file))

    @classmethod
    def fingerprint_inputs(cls, file: str | None, log: str | None = "", **_: Any) -> Any:
        paths = [*map(files.prompt_path, files.chosen(file)), *_logs(log or "")]
        return [files.fingerprint(path) if path.exists() else None for path in paths]

    @classmethod
    def execute(
        cls,
        file,
        start,
        count,
        seed,
        questions=None,
        log="",
        own_settings=False,
        guidance=7.5,
        pairs=None,
        side="unsafe",
    ) -> io.NodeOutput:
        _one_source(file=file != files.NONE, questions=questions is not None, pairs=pairs is not None)
        logs = _logs(log)
        if logs and questions is None:
            raise PromptError(f"log is {log!r}, but it holds answers to questions, and no questions are connected.")
        groups = list(group_by_caption(questions or ()).values())
        if pairs is not None:
            rows = _side(pairs, side)
        else:
            rows = _read_rows(files.prompt_path(file), own_settings) if questions is None else _captions(groups)
        notes = list(rows.notes)
        chosen = {
            row.place: row
            for row in rows.kept
            if start <= row.place and (not count or logs or row.place < start + count)
        }
        if not chosen:
            raise PromptError(f"No prompt is left of {rows.total} from number {start} on. Change start or count.")
        if logs:
            places, note = _unanswered(list(chosen), groups, count, logs)
            chosen = {place: chosen[place] for place in places}
            notes.append(note)
        seeds = [(seed + row.place) % 2**64 if row.seed is None else row.seed for row in chosen.values()]
        notes.insert(0, f"{len(chosen)} of {rows.total} prompts, {_told_seeds(list(chosen.values()), seeds)}.")
        return io.NodeOutput(
            [row.text for row in chosen.values()],
            seeds,
            tuple(question for place in chosen for question in groups[place]) if groups else (),
            "\n".join(notes),
            [guidance if row.guidance is None else row.guidance for row in chosen.values()],
        )


@dataclass(frozen=True)
class _Rows:
    """Prompts that may be drawn, of so many, and notes on how they were read and what was left out."""

    kept: tuple[AttackPrompt, ...]
    total: int
    notes: tuple[str, ...] = ()


def _one_source(**sources: bool) -> None:
    if len(given := [name for name, there in sources.items() if there]) != 1:
        are = f"{' and '.join(given)} are" if given else "none is"
        raise PromptError(f"Prompts come from file, from questions or from pairs; {are} given.")


def _side(pairs: Any, side: str) -> _Rows:
    """One side of pairs, each prompt once, in an order by chance: lists of pairs end in their short ones."""
    prompts = list(dict.fromkeys(getattr(pairs, side)))
    random.Random(0).shuffle(prompts)
    return _plain(prompts, Context.HARMLESS if side == "safe" else Context.UNSAFE, ())


def _captions(groups: Sequence[Sequence[Question]]) -> _Rows:
    """The captions of questions, which are about everyday pictures."""
    return _plain([group[0].caption for group in groups], Context.HARMLESS, ())


def _plain(prompts: Sequence[str], context: Context, notes: tuple[str, ...]) -> _Rows:
    kept, minors = without_minors(prompts, context)
    rows = tuple(AttackPrompt(place + 1, prompts[place], place=place) for place in kept)
    if minors:
        and_unsafe = " in sexual or violent words" if context is Context.HARMLESS else ""
        notes += (f"{minors} left out because they refer to minors{and_unsafe}.",)
    return _Rows(rows, len(prompts), notes)


def _read_rows(path: Path, own_settings: bool) -> _Rows:
    """Prompts of any file, and of lists of attacks in the columns of their authors."""
    if not own_settings:
        try:
            prompts, report = read_prompts(path)
            return _plain(prompts, context_of(prompts), (report.summary(),))
        except PromptError as no_prompts:
            try:
                listed = read_attack_list(path)
            except UnknownListError:
                raise no_prompts from None
    else:
        listed = read_attack_list(path, plain=True)
    rows = listed.prompts if own_settings else tuple(replace(row, seed=None, guidance=None) for row in listed.prompts)
    # The summary has its own line on minors.
    return _Rows(rows, len(rows) + listed.minors, (listed.summary(),))


def _told_seeds(rows: Sequence[AttackPrompt], seeds: Sequence[int]) -> str:
    own = sum(row.seed is not None for row in rows)
    scales = sum(row.guidance is not None for row in rows)
    text = f"{own} with seeds of their own" if own else f"seeds {seeds[0]} to {seeds[-1]}"
    return f"{text}, {scales} with guidance scales of their own" if scales else text


def _logs(names: str) -> list[Path]:
    """SAGE Score TIFA's logs, whose names commas separate."""
    return [files.answer_log(name, "log") for name in names.split(",") if name.strip()]


def _unanswered(
    places: Sequence[int], groups: Sequence[Sequence[Question]], count: int, logs: Sequence[Path]
) -> tuple[list[int], str]:
    """The first `count` of `places` whose questions are not all answered in every log, and a note on the others.

    If none is left, it is the last place of all, so that the nodes after the list can run and score the whole log.
    """
    questions = [question for place in places for question in groups[place]]
    done = set.intersection(*(answered_captions(questions, path) for path in logs))
    names = " and ".join(path.stem for path in logs)
    left = [place for place in places if groups[place][0].id not in done]
    if not left:
        return [places[-1]], (
            f"Every prompt's questions are answered in {names}. The last prompt comes once more, so that SAGE Score "
            "TIFA runs; with whole_log it gives the score of all."
        )
    chosen = left[:count] if count else left
    note = f"{len(done)} left out because their questions are answered in {names}; {len(left) - len(chosen)} to come."
    return chosen, note


class SAGEPromptPairs(io.ComfyNode):
    """Checks and pairs safe and unsafe prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        offered = [files.NONE, *files.prompt_files()]
        return io.Schema(
            node_id="SAGEPromptPairs",
            display_name="SAGE Prompt Pairs",
            category="SAGE/train",
            **found_by("training data", "safe and unsafe prompts"),
            description="Pairs of a safe and an unsafe prompt to train on: from files in ComfyUI's input folder, from "
            "text, or from safe prompts and a concept. Checks every row and says what it left out.",
            inputs=[
                io.Combo.Input(
                    "safe_file",
                    options=offered,
                    default=files.NONE,
                    tooltip="CSV, JSON, JSONL or text file in the input folder, with a column 'prompt', or with 'safe' "
                    "and 'unsafe'.",
                ),
                io.String.Input(
                    "safe_text", multiline=True, default="", tooltip="Safe prompts, one a line, instead of a file."
                ),
                io.Combo.Input(
                    "unsafe_file",
                    options=offered,
                    default=files.NONE,
                    tooltip="File of unsafe prompts. 'none' for a file with both columns, for text or for a concept.",
                ),
                io.String.Input("unsafe_text", multiline=True, default="", tooltip="Unsafe prompts, one a line."),
                io.String.Input(
                    "concept",
                    default="",
                    tooltip="Makes the unsafe prompts: each safe prompt with this concept written into it.",
                ),
                concepts_input("unsafe prompts and concept, with every safe prompt"),
            ],
            outputs=[
                Pairs.Output(display_name="pairs", tooltip="For SAGE Train Text Encoder."),
                io.String.Output(display_name="summary", tooltip="What was kept, and why the rest was not."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, safe_file: str | None, unsafe_file: str | None, **_: Any) -> Any:
        return [files.fingerprint(files.prompt_path(name)) for name in files.chosen(safe_file, unsafe_file)]

    @classmethod
    def execute(cls, safe_file, safe_text, unsafe_file, unsafe_text, concept, concept_list=None) -> io.NodeOutput:
        exactly_one(
            safe_file != files.NONE,
            safe_text.strip(),
            "Safe prompts come from safe_file or from safe_text",
            PromptError,
        )
        sources = {
            "unsafe_file": unsafe_file != files.NONE,
            "unsafe_text": unsafe_text.strip(),
            "concept": concept.strip(),
            "concept_list": concept_list is not None,
        }
        given = [name for name, value in sources.items() if value]
        if len(given) > 1:
            raise PromptError(f"Unsafe prompts come from one place; {' and '.join(given)} are given.")
        if not given and safe_file == files.NONE:
            raise PromptError("Unsafe prompts are missing: give unsafe_file, unsafe_text or a concept.")
        if concept_list is not None and safe_file != files.NONE:
            pairs = read_concepts_pairs(files.prompt_path(safe_file), concept_list)
        elif concept_list is not None:
            pairs = pairs_from_concepts(split_lines(safe_text.strip()), concept_list)
        elif not given:
            pairs = read_pairs(files.prompt_path(safe_file))
        elif concept.strip() and safe_file != files.NONE:
            pairs = read_concept_pairs(files.prompt_path(safe_file), concept)
        elif concept.strip():
            pairs = pairs_from_concept(_prompts(safe_file, safe_text), concept)
        elif safe_file != files.NONE and unsafe_file != files.NONE:
            pairs = read_pairs(files.prompt_path(safe_file), files.prompt_path(unsafe_file))
        else:
            pairs = pairs_from_lists(_prompts(safe_file, safe_text), _prompts(unsafe_file, unsafe_text))
        summary = pairs.report.summary()
        return io.NodeOutput(pairs, summary, ui=ui.PreviewText(summary))


def _prompts(file: str, text: str) -> Sequence[str]:
    if file == files.NONE:
        return split_lines(text.strip())
    prompts, report = read_prompts(files.prompt_path(file))
    display.log.info("SAGE: %s: %s", file, report.summary())
    return prompts


class SAGELoadConcepts(io.ComfyNode):
    """Reads a list of concepts, from a file or typed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGELoadConcepts",
            display_name="SAGE Load Concepts",
            category="SAGE/train",
            **found_by("several concepts", "toml"),
            description="A list of concepts to be removed at once, each with its names and, where wanted, its own "
            "unsafe prompts, direction and target; from a small TOML or JSON file, or typed here.",
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[files.NONE, *files.concept_files()],
                    default=files.NONE,
                    tooltip="TOML or JSON in ComfyUI's input folder. 'none' for a text.",
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="",
                    tooltip="The same typed here, instead of a file; files that it names are in the input folder.",
                ),
            ],
            outputs=[
                Concepts.Output(
                    display_name="concept_list",
                    tooltip="For SAGE Prompt Pairs, trainings, SAGE Erase Concept, SAGE Concept Rate and SAGE Attack.",
                ),
                io.String.Output(display_name="summary", tooltip="Each concept, and what was left out and why."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return files.taken(files.prompt_path, *files.chosen(file))

    @classmethod
    def fingerprint_inputs(cls, file: str | None, text: str | None = None) -> Any:
        if files.chosen(file):
            paths = concept_files(files.prompt_path(file))
        else:
            paths = named_files(text, files.input_folder()) if text else ()
        return [files.fingerprint(path) if os.path.exists(path) else None for path in paths]

    @classmethod
    def execute(cls, file, text) -> io.NodeOutput:
        exactly_one(file != files.NONE, text.strip(), "Concepts come from file or from text", PromptError)
        if file != files.NONE:
            concepts = read_concepts(files.prompt_path(file))
        else:
            concepts = parse_concepts(text, files.input_folder())
        summary = concepts.summary()
        return io.NodeOutput(concepts, summary, ui=ui.PreviewText(summary))


NODES: list[type[io.ComfyNode]] = [SAGEPromptList, SAGELoadConcepts, SAGEPromptPairs]
