"""Scores in addition to TIFA, CLIPScore and concept rates, and the comparison of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from comfy_api.latest import io, ui

from ..sage_core.errors import JudgeError, QuestionError
from ..sage_core.plots import DARK, LIGHT, figure_to_image
from ..sage_core.prompts.concepts import ConceptList
from ..sage_core.scores.clipscore import ClipScorer
from ..sage_core.scores.page import runs_page
from ..sage_core.scores.rates import (
    CLIP_THRESHOLD,
    NUDENET_THRESHOLD,
    Rate,
    rate_by_clip,
    rate_by_vqa,
    rates_by_nudenet,
)
from ..sage_core.scores.results import Run, alike, report_dict, report_markdown, save_report
from .host import display, files, memory
from .host.inputs import concepts_input, found_by
from .host.sockets import JudgeType, LoadedJudge, Scores


class SAGECLIPScore(io.ComfyNode):
    """Scores pictures by CLIPScore with the original CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGECLIPScore",
            display_name="SAGE CLIPScore",
            category="SAGE/score",
            **found_by("clip score", "image text similarity"),
            description="Cosine of image and caption in the original CLIP, never the aligned one. It hides what TIFA "
            "shows: read both.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="In the order of the captions; batches, lists and mixed sizes."),
                io.String.Input("captions", force_input=True, tooltip="The prompts, from SAGE Prompt List."),
                io.Combo.Input(
                    "model",
                    options=files.model_folders(),
                    tooltip="Folder of openai/clip-vit-large-patch14 in models/VQA or models/LLM.",
                ),
                io.String.Input("name", default="base", tooltip="What this run is called, unless scores are given."),
                Scores.Input("scores", optional=True, tooltip="Scores of the same run to add to."),
            ],
            outputs=[
                Scores.Output(display_name="scores", tooltip="For SAGE Concept Rate and SAGE Compare Scores."),
                io.Float.Output(display_name="clipscore", tooltip="Mean of 100 · cos, not clipped."),
                io.String.Output(display_name="table", tooltip="Both common scales, named."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Sequence[str | None] = (None,)) -> bool | str:
        return files.taken(clip_folder, *model)

    @classmethod
    def execute(cls, images, captions, model, name, scores=(None,)) -> io.NodeOutput:
        scorer = load_clip(model[0])
        pictures = display.flatten(images)
        found = scorer.score(pictures, captions, display.counter("pictures", len(pictures)))
        run = (scores[0] or Run(name[0])).adding(clip=found)
        return io.NodeOutput(run, found.mean_100, found.to_markdown(), ui=ui.PreviewText(found.to_markdown()))


class SAGEConceptRate(io.ComfyNode):
    """Counts the images that show a concept."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEConceptRate",
            display_name="SAGE Concept Rate",
            category="SAGE/score",
            **found_by("nsfw detection", "nudity detection", "nudenet", "attack success rate"),
            description="Share of images that show a concept, with its 95% Wilson interval: attack success, when the "
            "prompts ask for it.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="Batches, lists and mixed sizes."),
                *witness_inputs(),
                io.String.Input("name", default="base", tooltip="What this run is called, unless scores are given."),
                JudgeType.Input("judge", optional=True, tooltip="From SAGE Load VQA Judge."),
                Scores.Input("scores", optional=True, tooltip="Scores of the same run to add to."),
                concepts_input("concept; each has a rate of its own, by its first name"),
            ],
            outputs=[
                Scores.Output(display_name="scores", tooltip="For SAGE Compare Scores."),
                io.Float.Output(
                    display_name="rate",
                    tooltip="0 to 1; with NudeNet by its strict classes, of a list the first one's.",
                ),
                io.String.Output(display_name="table", tooltip="k of n with interval, and by what rule."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Sequence[str | None] = (None,)) -> bool | str:
        return files.taken(clip_folder, *files.chosen(*model))

    @classmethod
    def execute(
        cls,
        images,
        concept,
        witness,
        question,
        threshold,
        model,
        name,
        judge=(None,),
        scores=(None,),
        concept_list=(None,),
    ) -> io.NodeOutput:
        pictures = display.flatten(images)
        names, about = looked_for(concept[0], question[0], witness[0], concept_list[0])
        count = display.counter("pictures", len(names) * len(pictures))
        rates: Sequence[Rate]
        if witness[0] == "NudeNet":
            rates = rates_by_nudenet(pictures, threshold=threshold[0] or NUDENET_THRESHOLD, on_batch=count)
        else:
            asked = witnesses(witness[0], names, about, judge[0], model[0], threshold[0])
            rates = [look(pictures, on_batch=count) for look in asked]
        table = "\n".join(rate.to_markdown() for rate in rates)
        run = (scores[0] or Run(name[0])).adding(rates=tuple(rates))
        return io.NodeOutput(run, rates[0].share, table, ui=ui.PreviewText(table))


def witness_inputs(concept: str = "") -> list[io.Input]:
    """What is looked for in pictures, and by whom."""
    return [
        io.String.Input("concept", default=concept, tooltip="A noun, such as skull. NudeNet looks for nudity only."),
        io.Combo.Input(
            "witness",
            options=["judge", "CLIP", "NudeNet"],
            default="judge",
            tooltip="judge: asks 'is there a …?'. CLIP: zero-shot. NudeNet: pip install nudenet.",
        ),
        io.String.Input(
            "question",
            default="",
            tooltip="For the judge, for 'is there a <concept>?'; for CLIP, for 'a photo of a <concept>'.",
        ),
        io.Float.Input(
            "threshold",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip=f"For CLIP and NudeNet. 0: the witness's own, {CLIP_THRESHOLD} and {NUDENET_THRESHOLD}.",
        ),
        io.Combo.Input("model", options=[files.NONE, *files.model_folders()], tooltip="CLIP's folder."),
    ]


def looked_for(
    concept: str, question: str, witness: str, listed: ConceptList | None
) -> tuple[tuple[str, ...], str | None]:
    """What is looked for, one or several, and the question or text of the user's own."""
    what, about = concept.strip(), question.strip() or None
    if witness == "NudeNet":
        return (what,), about
    if listed is None:
        if not what:
            raise QuestionError("concept is empty; enter what to look for, such as skull.")
        return (what,), about
    if about and len(listed) > 1:
        raise QuestionError(
            f"question is {question!r}, but concept_list holds {len(listed)} concepts, which are asked for one by one. "
            "Leave it empty."
        )
    return listed.names, about


def witnesses(
    witness: str,
    names: Sequence[str],
    about: str | None,
    judge: LoadedJudge | None,
    model: str,
    threshold: float,
    *,
    doubtful: bool = False,
) -> list[partial[Rate]]:
    """Who looks for each of `names` in pictures: CLIP, or the judge, for whom `doubtful` answers count as well.

    Raises:
        JudgeError: the witness is not there.
    """
    if witness == "CLIP":
        given = {"scorer": load_clip(model), "text": about, "threshold": threshold or CLIP_THRESHOLD}
        return [partial(rate_by_clip, concept=name, **given) for name in names]
    if judge is None:
        raise JudgeError("The witness is the judge, but none is connected: connect SAGE Load VQA Judge.")
    judge.load()
    given = {"judge": judge.judge, "question": about, "sentences": judge.sentences, "doubtful": doubtful}
    return [partial(rate_by_vqa, concept=name, **given) for name in names]


class SAGECompare(io.ComfyNode):
    """Compares runs of the same prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        more = [Scores.Input(f"run_{number}", optional=True, tooltip="A further run.") for number in (3, 4)]
        return io.Schema(
            node_id="SAGECompare",
            display_name="SAGE Compare Scores",
            category="SAGE/score",
            **found_by("compare runs", "results table"),
            description="TIFA by question type with the change against the first run, CLIPScore next to TIFA, and how "
            "often the concept shows, in one picture and one table.",
            is_output_node=True,
            inputs=[
                Scores.Input("base", tooltip="The run that the others are measured against."),
                Scores.Input("run_2", tooltip="Another run over the same prompts."),
                *more,
                io.Combo.Input(
                    "theme", options=["dark", "light"], default="dark", tooltip="Background of the picture."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="picture", tooltip="The comparison at a glance."),
                io.String.Output(display_name="table", tooltip="All numbers, with intervals and a paired test."),
                io.String.Output(display_name="json", tooltip="The same for programs, with questions lost and gained."),
            ],
        )

    @classmethod
    def execute(cls, base, run_2, theme, run_3=None, run_4=None) -> io.NodeOutput:
        runs = [run for run in (base, run_2, run_3, run_4) if run is not None]
        table = report_markdown(runs)
        picture = display.to_image(figure_to_image(runs_page(runs, DARK if theme == "dark" else LIGHT)))
        data = json.dumps(report_dict(runs), ensure_ascii=False)
        return io.NodeOutput(picture, table, data, ui=display.preview(picture, table, cls))


class SAGESaveScores(io.ComfyNode):
    """Saves the scores of one run or of several as files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGESaveScores",
            display_name="SAGE Save Scores",
            category="SAGE/score",
            **found_by("export scores", "results csv", "results json", "results markdown"),
            description="Saves scores as output/sage/scores/<name>.csv, .md and .json: a row for each number, the "
            "tables of SAGE Compare Scores, and everything down to single questions and pictures.",
            is_output_node=True,
            inputs=[
                Scores.Input("base", tooltip="A run, or the one that the others are measured against."),
                io.String.Input("name", default="scores", tooltip="File name, without folder or extension."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace other files of this name."),
                *(
                    Scores.Input(f"run_{number}", optional=True, tooltip="A further run over the same prompts.")
                    for number in (2, 3, 4)
                ),
            ],
            outputs=[
                io.String.Output(display_name="paths", tooltip="Where the three files are, a line each."),
                io.String.Output(display_name="table", tooltip="What the Markdown file holds."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return files.taken(_scores_file, name)

    @classmethod
    def execute(cls, base, name, overwrite, run_2=None, run_3=None, run_4=None) -> io.NodeOutput:
        runs = [run for run in (base, run_2, run_3, run_4) if run is not None]
        path = _scores_file(name)
        saved = save_report(runs, path, overwrite=overwrite)
        paths = "\n".join(map(str, saved))
        text = "\n".join([*alike(runs, 1)[1], f"Saved {', '.join(run.name for run in runs)}:", paths])
        return io.NodeOutput(paths, saved[path.with_suffix(".md")], ui=ui.PreviewText(text))


def _scores_file(name: str) -> Path:
    return files.output_file("scores", name, ".json", "name")


def clip_folder(model: str | None) -> Path:
    """The folder of the original CLIP; raises JudgeError, which says what to put where, if none is named."""
    if not model or model == files.NONE:
        raise JudgeError(
            "model names no CLIP: choose the folder of openai/clip-vit-large-patch14. Put it into models/VQA if it is "
            "not there, and refresh the node list (R)."
        )
    return files.model_path(model)


def load_clip(model: str | None) -> ClipScorer:
    """The original CLIP, in memory."""
    scorer = ClipScorer.from_file(clip_folder(model))
    memory.load([memory.Managed(scorer.model)])
    return scorer


NODES: list[type[io.ComfyNode]] = [SAGECLIPScore, SAGEConceptRate, SAGECompare, SAGESaveScores]
