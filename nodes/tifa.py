"""TIFA in a graph: questions, and scores by a judge."""

from __future__ import annotations

import json
from typing import Any, get_args

from comfy_api.latest import io, ui

from ..sage_core.errors import QuestionError, SettingsError
from ..sage_core.plots import DARK
from ..sage_core.rows import typed_lines
from ..sage_core.scores.results import Run
from ..sage_core.tifa.cards import card_sheet, question_card
from ..sage_core.tifa.evaluation import evaluate, score_log
from ..sage_core.tifa.questions import group_by_caption, read_questions, write_questions
from ..sage_core.tifa.writing.language_model import LanguageModel
from ..sage_core.tifa.writing.make_questions import Way, make_questions, make_questions_by_rule
from .host import display, files, memory
from .host.inputs import ADVANCED, found_by, seed_input
from .host.sockets import JudgeType, Questions, Scores

_QUESTION_SUFFIXES = (".json", ".jsonl", ".csv")


class SAGELoadQuestions(io.ComfyNode):
    """Loads a TIFA question file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        offered = [name for name in files.prompt_files() if name.lower().endswith(_QUESTION_SUFFIXES)]
        return io.Schema(
            node_id="SAGELoadQuestions",
            display_name="SAGE Load TIFA Questions",
            category="SAGE/score",
            **found_by("tifa questions file"),
            description="Reads a question file in TIFA's format and reports rows that it cannot use.",
            inputs=[io.Combo.Input("file", options=offered, tooltip="JSON, JSONL or CSV in ComfyUI's input folder.")],
            outputs=[
                Questions.Output(display_name="questions", tooltip="For SAGE Prompt List and SAGE Score TIFA."),
                io.String.Output(display_name="summary", tooltip="Counts by type, and rows left out with the reason."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return files.taken(files.prompt_path, file)

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> Any:
        return files.fingerprint(files.prompt_path(file)) if file else None

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        questions, report = read_questions(files.prompt_path(file))
        return io.NodeOutput(questions, report.summary(), ui=ui.PreviewText(report.summary()))


class SAGEMakeQuestions(io.ComfyNode):
    """Makes questions for any captions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEMakeQuestions",
            display_name="SAGE Make TIFA Questions",
            category="SAGE/score",
            **found_by("write tifa questions"),
            description="Writes questions about captions: with a local language model, checked, or by word lists.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.String.Input("captions", multiline=True, default="", tooltip="One a line, or a list of prompts."),
                io.Combo.Input(
                    "model",
                    options=[files.NONE, *files.model_folders()],
                    default=files.NONE,
                    tooltip="A causal language model's folder in models/LLM, which judges drafts or writes: see way. "
                    "'none': word lists alone, which find things, colors, counts, materials, shapes, sizes, places and "
                    "spatial relations, but no activities and nothing implied.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "fp32", "bf16"],
                    default="auto",
                    tooltip="auto: bf16 on a GPU, else fp32.",
                ),
                io.Int.Input("attempts", default=3, min=1, max=20, tooltip="Tries for a caption without a question."),
                seed_input("Of the sampling; each attempt draws anew."),
                io.String.Input("save_as", default="", tooltip="Saved in the output folder as <name>.json. Empty: no."),
                io.Combo.Input(
                    "way",
                    options=list(get_args(Way)),
                    default="auto",
                    optional=True,
                    tooltip="judge: word lists draft questions, and the model drops what it cannot confirm. write: the "
                    "model writes them, and they are checked. auto: a model of fewer than a billion parameters judges, "
                    "a larger one writes. Without a model it does nothing.",
                    **ADVANCED,
                ),
            ],
            outputs=[
                Questions.Output(display_name="questions", tooltip="For SAGE Prompt List and SAGE Score TIFA."),
                io.String.Output(display_name="summary", tooltip="Counts by type, and what was dropped and why."),
            ],
        )

    @classmethod
    def execute(cls, captions, model, precision, attempts, seed, save_as, way=("auto",)) -> io.NodeOutput:
        lines = typed_lines(captions, error=QuestionError)
        named = {f"caption_{number}": caption for number, caption in enumerate(dict.fromkeys(lines), 1)}
        if model[0] == files.NONE:
            made = make_questions_by_rule(named)
        else:
            writer = LanguageModel.from_folder(files.model_path(model[0]), dtype=memory.precision(precision[0]))
            memory.load([memory.Managed(writer.model)])
            made = make_questions(
                named, writer, way=way[0], attempts=attempts[0], seed=seed[0], on_caption=display.Progress("captions")
            )
        if not made.questions:
            raise QuestionError(f"No question could be made. {made.summary()}")
        if save_as[0].strip():
            write_questions(files.output_file("questions", save_as[0], ".json", "save_as"), made.questions)
        return io.NodeOutput(made.questions, made.summary(), ui=ui.PreviewText(made.summary()))


class SAGEScoreTIFA(io.ComfyNode):
    """Scores images by TIFA: a judge answers every question about its image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEScoreTIFA",
            display_name="SAGE Score TIFA",
            category="SAGE/score",
            **found_by("faithfulness", "prompt adherence", "vqa score"),
            description="Asks the judge every question about its image: TIFA, by type, and each question ticked or "
            "crossed. Images belong to captions by position.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="In the order of the captions; batches, lists and mixed sizes."),
                Questions.Input("questions", tooltip="From SAGE Prompt List, Load or Make TIFA Questions."),
                JudgeType.Input("judge", tooltip="From SAGE Load VQA Judge."),
                io.String.Input("name", default="base", tooltip="What this run is called in tables and pictures."),
                io.String.Input(
                    "log",
                    default="",
                    tooltip="Answers are written to output/sage/tifa/<log>.jsonl as they come; queue again to go on "
                    "after a stop. For one judge and one text encoder. Empty: none.",
                ),
                io.Int.Input("pictured", default=8, min=1, max=64, tooltip="Images shown with their questions."),
                Scores.Input("scores", optional=True, tooltip="Scores of the same run to add to."),
                io.Boolean.Input(
                    "whole_log",
                    default=False,
                    optional=True,
                    tooltip="Score all that the log holds, not only these images: for a test set drawn in parts.",
                ),
            ],
            outputs=[
                Scores.Output(
                    display_name="scores", tooltip="For SAGE CLIPScore, SAGE Concept Rate and SAGE Compare Scores."
                ),
                io.Float.Output(display_name="tifa", tooltip="Mean over captions, 0 to 1."),
                io.String.Output(display_name="table", tooltip="TIFA and its types with 95% intervals."),
                io.String.Output(display_name="json", tooltip="Everything, every question."),
                io.Image.Output(display_name="picture", tooltip="Images with each question ticked or crossed."),
            ],
        )

    @classmethod
    def execute(
        cls, images, questions, judge, name, log, pictured, scores=(None,), whole_log=(False,)
    ) -> io.NodeOutput:
        pictures = display.flatten(images)
        groups = list(group_by_caption([question for some in questions for question in some]).values())
        if len(pictures) != len(groups):
            raise QuestionError(
                f"{len(pictures)} images came with questions about {len(groups)} captions; expected one image for each "
                f"caption, in the same order. Take prompts and questions from the same SAGE Prompt List."
            )
        path = files.answer_log(log[0], "log") if log[0].strip() else None
        if whole_log[0] and path is None:
            raise SettingsError("whole_log is on, but log is empty. Name the log, or turn whole_log off.")
        judge[0].load()
        about = {"sentences": judge[0].sentences, "name": name[0]}
        result = evaluate(
            pictures, groups, judge[0].judge, log=path, on_progress=display.Progress("questions"), **about
        )
        by_image = list(zip(pictures, groups, strict=True))[: pictured[0]]
        rows = iter(result.questions)
        cards = [question_card(image, [next(rows) for _ in group], DARK) for image, group in by_image]
        picture = display.to_image(card_sheet(cards, DARK))
        if whole_log[0]:
            result = score_log(path, judge[0].judge.name, **about)
        table = result.to_markdown()
        run = (scores[0] or Run(name[0])).adding(tifa=result)
        data = json.dumps(result.to_dict(), ensure_ascii=False)
        return io.NodeOutput(run, result.average, table, data, picture, ui=display.preview(picture, table, cls))


NODES: list[type[io.ComfyNode]] = [SAGELoadQuestions, SAGEMakeQuestions, SAGEScoreTIFA]
