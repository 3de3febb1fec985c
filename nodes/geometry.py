"""Show what an alignment did to the space of prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..sage_core.encoders.layouts import EncoderConfig
from ..sage_core.encoders.text_encoder import TextEncoder, activation_bytes
from ..sage_core.encoders.tokens import MAX_PROMPT_TOKENS
from ..sage_core.errors import PromptError, QuestionError
from ..sage_core.geometry import DEFAULT_NEIGHBOURS
from ..sage_core.geometry.category_plots import methods_figure, types_page
from ..sage_core.geometry.comparison import GeometrySettings, compare_encoders, comparison_bytes
from ..sage_core.geometry.drift import DriftReport
from ..sage_core.geometry.page import neighbour_lists, prompt_map, report_page
from ..sage_core.geometry.points import Point, joined
from ..sage_core.geometry.report import GeometryReport
from ..sage_core.plots import DARK, LIGHT, figure_to_image
from ..sage_core.prompts.everyday import REFERENCE_PROMPTS
from ..sage_core.rows import typed_lines
from ..sage_core.scores.results import Run
from ..sage_core.tifa.comparison import Comparison
from ..sage_core.tifa.comparison import compare as compare_tifa
from ..sage_core.tifa.questions import captions_by_type
from .host import clips, display, memory
from .host.inputs import ADVANCED, encoder_inputs, exactly_one, found_by
from .host.sockets import Methods, Pairs, Questions, Scores

_MOST_LISTED = 6
# Prompts in a batch on a CPU, so that Cancel is noticed within seconds.
_CPU_BATCH = 16


def _prompt_inputs(what: str) -> list[io.Input]:
    return [
        io.String.Input("prompts", multiline=True, default="", tooltip=f"{what}: one a line, or a list of texts."),
        Pairs.Input("pairs", optional=True, tooltip="Takes the prompts from SAGE Prompt Pairs instead."),
    ]


def _tifa_inputs() -> list[io.Input]:
    """What the comparison with TIFA takes; all of it can be left out."""
    return [
        Questions.Input(
            "questions",
            optional=True,
            tooltip="TIFA questions: their captions are the prompts, measured by type of question as well.",
        ),
        Scores.Input("base_scores", optional=True, tooltip="Scored pictures of base: adds the loss in TIFA."),
        Scores.Input("aligned_scores", optional=True, tooltip="Scored pictures of aligned, over the same questions."),
        Methods.Input("methods", optional=True, tooltip="From another SAGE Geometry: its points join the picture."),
        io.Int.Input(
            "place",
            default=0,
            min=0,
            max=1000,
            optional=True,
            tooltip="Of several methods in one report the number of this one, from 1, which decides its colour in all "
            "figures. 0: a colour that no method has.",
            **ADVANCED,
        ),
    ]


def _embedding_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "embedding",
            options=["flattened", "eos", "mean"],
            default="flattened",
            tooltip="flattened: all 77 positions, as the image model sees them. eos, mean: one vector, much faster.",
        ),
        io.Int.Input(
            "k",
            default=DEFAULT_NEIGHBOURS,
            min=1,
            max=100,
            tooltip=f"Neighbours of each prompt. Verdicts suppose {DEFAULT_NEIGHBOURS}.",
        ),
    ]


def _theme_input() -> io.Input:
    return io.Combo.Input("theme", options=["light", "dark"], default="light", tooltip="Background of the pictures.")


_NO_TYPES = "The picture by type needs questions with 12 or more captions of a type: connect them to SAGE Geometry."
_NO_METHODS = "The picture of methods needs base_scores and aligned_scores: connect them to SAGE Geometry."


def _geometry_prompts(
    texts: Sequence[str], pairs: Any, questions: Sequence[Any]
) -> tuple[list[str], list[str], dict[str, tuple[int, ...]] | None]:
    """Safe and unsafe prompts, and their places by type if they are the captions of questions."""
    asked = [question for some in questions if some is not None for question in some]
    if not asked:
        return *_prompts(texts, pairs), None
    if typed_lines(texts) or pairs is not None:
        raise PromptError("Prompts come from questions, from the text or from pairs; leave the others empty.")
    captions, groups = captions_by_type(asked)
    return list(captions), [], groups


def _tifa_change(base: Run | None, aligned: Run | None) -> Comparison | None:
    """TIFA of the aligned encoder's pictures against that of the base's; None if no scores are connected."""
    if base is None and aligned is None:
        return None
    if base is None or aligned is None:
        raise QuestionError("base_scores and aligned_scores belong together: connect both, or none.")
    for run in (base, aligned):
        if run.tifa is None:
            raise QuestionError(f"The scores of {run.name!r} hold no TIFA: take them from SAGE Score TIFA.")
    return compare_tifa(base.tifa, aligned.tifa)


def _prompts(texts: Sequence[str], pairs: Any) -> tuple[list[str], list[str]]:
    """Safe and unsafe prompts from text or pairs, each only once: equal prompts are always neighbours."""
    lines = typed_lines(texts)
    exactly_one(lines, pairs is not None, "Prompts come from the text or from pairs", PromptError)
    safe, unsafe = (lines, ()) if pairs is None else (pairs.safe, pairs.unsafe)
    return list(dict.fromkeys(safe)), list(dict.fromkeys(unsafe))


def compare_states(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    prompts: Sequence[str],
    unsafe: Sequence[str],
    settings: GeometrySettings,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> GeometryReport:
    """The report of two encoders by their weights, with progress; raises PromptError where memory runs out."""
    total = len(prompts) + len(unsafe)
    needed = comparison_bytes(EncoderConfig.of(before), total, settings)
    advice = PromptError(
        f"Out of memory with {total} prompts, {needed / 2**30:.1f} GiB; use fewer, or embedding 'mean'."
    )
    with memory.training_device(needed) as (device, free), memory.telling_memory(advice):
        # If a graphics card cannot hold it, the computer's memory may, more slowly.
        place = device if needed < free else torch.device("cpu")
        base, aligned = (TextEncoder.from_state(state) for state in (before, after))
        budget = _CPU_BATCH * activation_bytes(base.config) if place.type == "cpu" else None
        return compare_encoders(
            base,
            aligned,
            prompts,
            unsafe,
            settings,
            groups=groups,
            device=place,
            memory_budget=budget,
            on_batch=display.Progress("embedding prompts"),
        )


def _compare(
    base: Any,
    aligned: Any,
    prompts: Sequence[str],
    unsafe: Sequence[str],
    settings: GeometrySettings,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> GeometryReport:
    states = (clips.patched_weights(clip) for clip in (base, aligned))
    return compare_states(*states, prompts, unsafe, settings, groups)


def _pictures(figures: Sequence[Any]) -> list[Any]:
    return [display.to_image(figure_to_image(figure)) for figure in figures]


class SAGEGeometry(io.ComfyNode):
    """Shows whether an alignment kept the space of prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEGeometry",
            display_name="SAGE Geometry",
            category="SAGE/inspect",
            **found_by("embedding space", "spread"),
            description="Compares the embedding spaces of two CLIPs on your prompts: did prompts move together, do "
            "they have other neighbours, which were hurt most?",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *encoder_inputs(),
                *_prompt_inputs("Safe prompts, 100 or more"),
                *_embedding_inputs(),
                _theme_input(),
                *_tifa_inputs(),
            ],
            outputs=[
                io.String.Output(display_name="verdict", tooltip="healthy, strained or damaged."),
                io.Float.Output(display_name="spread_ratio", tooltip="1: as wide as before; towards 0: collapsed."),
                io.Float.Output(display_name="jaccard", tooltip="1: prompts keep their k neighbours; 0: none does."),
                io.Image.Output(display_name="page", tooltip="Everything on one page."),
                io.Image.Output(display_name="map", tooltip="Where each prompt moved."),
                io.String.Output(
                    display_name="table", tooltip="All figures as Markdown, with 95 % intervals of the main ones."
                ),
                io.String.Output(display_name="json", tooltip="All figures, for programs."),
                io.Image.Output(
                    display_name="by_type", tooltip="Spread and neighbours by type of question, against TIFA lost."
                ),
                io.Image.Output(display_name="by_method", tooltip="Spread ratio against TIFA, one point a method."),
                Methods.Output(display_name="methods", tooltip="This point and those that came, for a further one."),
            ],
        )

    @classmethod
    def execute(
        cls,
        base,
        aligned,
        prompts,
        embedding,
        k,
        theme,
        pairs=(None,),
        questions=(),
        base_scores=(None,),
        aligned_scores=(None,),
        methods=(None,),
        place=(0,),
    ) -> io.NodeOutput:
        change = _tifa_change(base_scores[0], aligned_scores[0])
        safe, unsafe, groups = _geometry_prompts(prompts, pairs[0], questions)
        settings = GeometrySettings(embedding=embedding[0], k=k[0])
        report = _compare(base[0], aligned[0], safe, unsafe, settings, groups)
        points = methods[0] or ()
        if change is not None:
            report = report.with_losses(change.by_type)
            points = joined(points, Point.of(change.other, report, change.tifa))
        colors = DARK if theme[0] == "dark" else LIGHT
        colors = colors.about(place[0]) if place[0] else colors
        page, plane = _pictures([report_page(report, colors), prompt_map(report, colors)])
        grouped = report.categories is not None and bool(report.categories.measured)
        more = _pictures([types_page(report, colors)] if grouped else [])
        more += _pictures([methods_figure(points, colors)] if points else [])
        table, data = report.to_markdown(), json.dumps(report.to_dict(), ensure_ascii=False)
        shown = display.previews([page, *more], cls) | ui.PreviewText(table).as_dict()
        figures = report.verdict.level, report.spread_ratio.value, report.jaccard[report.k].value
        by_type = more[0] if grouped else display.missing(_NO_TYPES)
        by_method = more[-1] if points else display.missing(_NO_METHODS)
        return io.NodeOutput(*figures, page, plane, table, data, by_type, by_method, points, ui=shown)


class SAGENeighbours(io.ComfyNode):
    """Shows a prompt's nearest prompts before and after alignment."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGENeighbours",
            display_name="SAGE Neighbours",
            category="SAGE/inspect",
            **found_by("nearest prompts", "neighbors"),
            description="Which prompts lie nearest to yours in two CLIPs: what did alignment bring together, and what "
            "did it take apart?",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *encoder_inputs(),
                io.String.Input(
                    "of", multiline=True, default="", tooltip=f"Prompts to look at, one a line, {_MOST_LISTED} at most."
                ),
                *_prompt_inputs("Prompts to look among"),
                *_embedding_inputs(),
                _theme_input(),
            ],
            outputs=[
                io.Image.Output(display_name="lists", tooltip="Neighbours side by side: − lost, + gained."),
                io.String.Output(display_name="json", tooltip="The same for programs."),
            ],
        )

    @classmethod
    def execute(cls, base, aligned, of, prompts, embedding, k, theme, pairs=(None,)) -> io.NodeOutput:
        chosen = list(dict.fromkeys(typed_lines(of)))
        if not 1 <= len(chosen) <= _MOST_LISTED:
            raise PromptError(f"of takes 1 to {_MOST_LISTED} prompts, one a line; found {len(chosen)}.")
        safe, unsafe = _prompts(prompts, pairs[0])
        everyone = list(dict.fromkeys([*chosen, *safe, *unsafe]))
        report = _compare(base[0], aligned[0], everyone, [], GeometrySettings(embedding=embedding[0], k=k[0]))
        rows = range(len(chosen))
        (lists,) = _pictures([neighbour_lists(report, rows, DARK if theme[0] == "dark" else LIGHT)])
        data = json.dumps([report.prompt_row(row) for row in rows], ensure_ascii=False)
        return io.NodeOutput(lists, data, ui=ui.PreviewImage(lists, cls=cls))


class SAGEPromptDrift(io.ComfyNode):
    """Shows how much a user's own prompts were hurt, in the graph that uses them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEPromptDrift",
            display_name="SAGE Prompt Drift",
            category="SAGE/inspect",
            **found_by("prompt warning", "embedding distance"),
            description="Warns when alignment moved the meaning of your prompt, and ranks a list of prompts. Sits "
            "between the aligned CLIP and CLIP Text Encode; both pass through.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *encoder_inputs(),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip=f"What you generate with, whole, or a list from SAGE Prompt List. Measured are the first "
                    f"{MAX_PROMPT_TOKENS} tokens.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.2,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Warns above it. At 1 the prompt moved as far as the prompts nearest to it are away.",
                ),
                _embedding_inputs()[0],
                Pairs.Input("pairs", optional=True, tooltip="Prompts to measure among, in place of 60 everyday ones."),
            ],
            outputs=[
                io.Clip.Output(display_name="clip", tooltip="The aligned CLIP as it came."),
                io.String.Output(display_name="prompt", is_output_list=True, tooltip="The prompts as they came."),
                io.Float.Output(
                    display_name="drift",
                    is_output_list=True,
                    tooltip="Of each prompt. 0: not moved. 1: as far as its neighbours are away.",
                ),
                io.String.Output(
                    display_name="report", tooltip="In words, most hurt first, with the neighbours lost and gained."
                ),
            ],
        )

    @classmethod
    def execute(cls, base, aligned, prompt, threshold, embedding, pairs=(None,)) -> io.NodeOutput:
        for number, text in enumerate(prompt, 1):
            if not text.strip():
                raise PromptError(f"prompt is empty, number {number} of {len(prompt)}; enter what you generate with.")
        own = list(dict.fromkeys(prompt))
        everyone = list(dict.fromkeys([*own, *(REFERENCE_PROMPTS if pairs[0] is None else pairs[0].safe)]))
        if len(everyone) == 1:
            raise PromptError("pairs hold no other prompt to measure this one among; add some, or leave pairs out.")
        settings = GeometrySettings(embedding=embedding[0], k=min(GeometrySettings.k, len(everyone) - 1))
        report = _compare(base[0], aligned[0], everyone, [], settings)
        drift = DriftReport.of(report, len(own), threshold[0])
        text = drift.summary()
        if drift.beyond:
            display.log.warning("SAGE: %s", text)
        drifts = {row["prompt"]: row["drift"] for row in drift.rows}
        return io.NodeOutput(aligned[0], prompt, [drifts[each] for each in prompt], text, ui=ui.PreviewText(text))


NODES: list[type[io.ComfyNode]] = [SAGEGeometry, SAGENeighbours, SAGEPromptDrift]
