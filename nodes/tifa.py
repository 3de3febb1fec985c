"""TIFA inside a graph: prompts that drive it, questions, judges, scores."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ..sage_core.errors import JudgeError, PromptError, QuestionError, SettingsError
from ..sage_core.plots import DARK
from ..sage_core.prompts import read_prompts
from ..sage_core.rates import without_minors
from ..sage_core.tifa.cards import card_sheet, question_card
from ..sage_core.tifa.evaluation import evaluate
from ..sage_core.tifa.judges import Judge, load_judge
from ..sage_core.tifa.language_model import LanguageModel
from ..sage_core.tifa.make_questions import make_questions, make_questions_by_rule
from ..sage_core.tifa.questions import group_by_caption, read_questions, write_questions
from ..sage_core.tifa.report import Run
from ..sage_core.tifa.sentences import SentenceEncoder
from . import models, runtime
from .clip_judge import ClipJudge

Questions = io.Custom("SAGE_QUESTIONS")
JudgeType = io.Custom("SAGE_JUDGE")
Scores = io.Custom("SAGE_SCORES")

READER = "shapes world reader"

_QUESTION_SUFFIXES = (".json", ".jsonl", ".csv")


@dataclass(frozen=True)
class LoadedJudge:
    """A judge, the sentence encoder beside it if any, and what brings both into memory."""

    judge: Judge
    sentences: SentenceEncoder | None
    managed: tuple[models.Managed, ...]

    def load(self) -> None:
        """Bring the models to their device."""
        for model in self.managed:
            model.load()


class SAGEPromptList(io.ComfyNode):
    """Many prompts, one after the other, through an ordinary graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEPromptList",
            display_name="SAGE Prompt List",
            category="SAGE",
            description="Prompts of a file or of questions, as a list: everything behind it runs once per prompt.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[models.NONE, *runtime.prompt_files()],
                    default=models.NONE,
                    tooltip="Prompts in ComfyUI's input folder: CSV, JSON, JSONL or text. 'none' with questions.",
                ),
                io.Int.Input("start", default=0, min=0, max=10_000_000, tooltip="Prompts to leave out at the top."),
                io.Int.Input("count", default=0, min=0, max=10_000_000, tooltip="Prompts to take. 0: all the rest."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Prompt number i, counted in the whole file, gets seed + i: the same picture in any range.",
                ),
                Questions.Input("questions", optional=True, tooltip="Their captions are the prompts."),
            ],
            outputs=[
                io.String.Output(display_name="prompt", is_output_list=True, tooltip="For CLIP Text Encode."),
                io.Int.Output(display_name="seed", is_output_list=True, tooltip="For KSampler, one per prompt."),
                Questions.Output(display_name="questions", tooltip="Those about these prompts, for Score TIFA."),
                io.String.Output(display_name="summary", tooltip="What was taken and what was left out."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None, **_: Any) -> list[tuple[int, int]]:
        return [] if file in (None, models.NONE) else [runtime.fingerprint(runtime.prompt_path(file))]

    @classmethod
    def execute(cls, file, start, count, seed, questions=None) -> io.NodeOutput:
        if (file == models.NONE) == (questions is None):
            found = "neither is given" if questions is None else "both are given"
            raise PromptError(f"Prompts come from file or from questions; {found}.")
        groups = group_by_caption(questions or ())
        if questions is None:
            prompts, report = read_prompts(runtime.prompt_path(file))
            notes = [report.summary()]
        else:
            prompts, notes = tuple(group[0].caption for group in groups.values()), []
        kept, minors = without_minors(prompts)
        chosen = [i for i in kept if start <= i and (not count or i < start + count)]
        if not chosen:
            raise PromptError(f"No prompt is left of {len(prompts)} from number {start} on. Change start or count.")
        about = [group for i, group in enumerate(groups.values()) if i in set(chosen)]
        notes.insert(0, f"{len(chosen)} of {len(prompts)} prompts, seeds {seed + chosen[0]} to {seed + chosen[-1]}.")
        if minors:
            notes.append(f"{minors} left out because they refer to minors.")
        return io.NodeOutput(
            [prompts[i] for i in chosen],
            [(seed + i) % 2**64 for i in chosen],
            tuple(question for group in about for question in group),
            "\n".join(notes),
        )


class SAGELoadQuestions(io.ComfyNode):
    """A TIFA question file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [name for name in runtime.prompt_files() if name.lower().endswith(_QUESTION_SUFFIXES)]
        return io.Schema(
            node_id="SAGELoadQuestions",
            display_name="Load TIFA Questions",
            category="SAGE",
            description="Reads a question file in TIFA's format and reports rows that it cannot use.",
            inputs=[io.Combo.Input("file", options=files, tooltip="JSON, JSONL or CSV in ComfyUI's input folder.")],
            outputs=[
                Questions.Output(display_name="questions", tooltip="For Prompt List and Score TIFA."),
                io.String.Output(display_name="summary", tooltip="Counts by type, and rows left out with the reason."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        if not file:
            return f"no question file: put a .json, .jsonl or .csv into {folder_paths.get_input_directory()}"
        return True if runtime.prompt_path(file).is_file() else f"there is no file {file} in the input folder"

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> list[tuple[int, int]]:
        return [runtime.fingerprint(runtime.prompt_path(file))] if file else []

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        questions, report = read_questions(runtime.prompt_path(file))
        return io.NodeOutput(questions, report.summary(), ui=ui.PreviewText(report.summary()))


class SAGEMakeQuestions(io.ComfyNode):
    """Questions for any captions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEMakeQuestions",
            display_name="Make TIFA Questions",
            category="SAGE",
            description="Writes questions about captions: with a local language model, checked, or by word lists.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.String.Input("captions", multiline=True, default="", tooltip="One a line, or a list of prompts."),
                io.Combo.Input(
                    "model",
                    options=[models.NONE, *models.model_folders()],
                    default=models.NONE,
                    tooltip="A causal language model's folder in models/LLM. 'none': rules, which see colors, counts, "
                    "materials, shapes, sizes, places and spatial relations only.",
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "fp32", "bf16"],
                    default="auto",
                    tooltip="auto: bf16 on a GPU, else fp32.",
                ),
                io.Int.Input("attempts", default=3, min=1, max=20, tooltip="Tries for a caption without a question."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Of the sampling; each attempt draws anew.",
                ),
                io.String.Input("save_as", default="", tooltip="Saved in the output folder as <name>.json. Empty: no."),
            ],
            outputs=[
                Questions.Output(display_name="questions", tooltip="For Prompt List and Score TIFA."),
                io.String.Output(display_name="summary", tooltip="Counts by type, and what was dropped and why."),
            ],
        )

    @classmethod
    def execute(cls, captions, model, precision, attempts, seed, save_as) -> io.NodeOutput:
        lines = [line.strip() for text in captions for line in text.split("\n") if line.strip()]
        named = {f"caption_{number}": caption for number, caption in enumerate(dict.fromkeys(lines), 1)}
        if model[0] == models.NONE:
            made = make_questions_by_rule(named)
        else:
            writer = LanguageModel.from_folder(models.model_path(model[0]), dtype=models.precision(precision[0]))
            managed = models.Managed(writer.model)
            managed.load()
            made = make_questions(named, writer, attempts=attempts[0], seed=seed[0], on_caption=runtime.Progress())
        if not made.questions:
            raise QuestionError(f"No question could be made. {made.summary()}")
        if save_as[0].strip():
            write_questions(_output_file(save_as[0], "questions", ".json"), made.questions)
        return io.NodeOutput(made.questions, made.summary(), ui=ui.PreviewText(made.summary()))


class SAGELoadJudge(io.ComfyNode):
    """A VQA model that answers TIFA's questions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        folders = models.model_folders()
        return io.Schema(
            node_id="SAGELoadJudge",
            display_name="Load VQA Judge",
            category="SAGE",
            description="A VQA model of models/VQA or models/LLM: ViLT, BLIP, BLIP-2, GIT, or a chat model that sees. "
            "Or the shapes world's reader, which needs no model.",
            inputs=[
                io.Combo.Input(
                    "judge",
                    options=[models.NONE, READER, *folders],
                    tooltip="'none' with a vision CLIP. The reader knows the demo's pictures and questions only.",
                ),
                io.Combo.Input(
                    "sentence_encoder",
                    options=[models.NONE, *folders],
                    default=models.NONE,
                    tooltip="Matches free answers to choices; TIFA uses sentence-transformers/all-mpnet-base-v2. "
                    "'none': the judge's likeliest choice stands, which is not TIFA's rule.",
                ),
                io.Combo.Input("precision", options=["auto", "fp32", "bf16"], default="fp32", tooltip="fp32 is exact."),
                io.Clip.Input(
                    "vision_clip", optional=True, tooltip="A vision-language model loaded by ComfyUI, from 0.26 on."
                ),
            ],
            outputs=[JudgeType.Output(display_name="judge", tooltip="For Score TIFA and Concept Rate.")],
        )

    @classmethod
    def validate_inputs(cls, judge: str | None, sentence_encoder: str | None) -> bool | str:
        for name in _folders(judge, sentence_encoder):
            try:
                models.model_path(name)
            except JudgeError as error:
                return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, judge: str | None, sentence_encoder: str | None, **_: Any) -> list[tuple[int, ...]]:
        return [models.fingerprint(name) for name in _folders(judge, sentence_encoder)]

    @classmethod
    def execute(cls, judge, sentence_encoder, precision, vision_clip=None) -> io.NodeOutput:
        if (judge == models.NONE) == (vision_clip is None):
            found = "neither is given" if vision_clip is None else "both are given"
            raise JudgeError(f"The judge is a model folder or a vision_clip; {found}.")
        managed = []
        if vision_clip is not None:
            chosen: Judge = ClipJudge(vision_clip)
        elif judge == READER:
            from ..sage_core.shapes.reader_judge import ReaderJudge

            chosen = ReaderJudge()
        else:
            loaded = load_judge(models.model_path(judge), dtype=models.precision(precision))
            managed.append(models.Managed(loaded.model))
            chosen = loaded
        sentences = None
        if sentence_encoder != models.NONE:
            sentences = SentenceEncoder.from_folder(models.model_path(sentence_encoder))
            managed.append(models.Managed(sentences.model))
        return io.NodeOutput(LoadedJudge(chosen, sentences, tuple(managed)))


def _folders(judge: str | None, sentence_encoder: str | None) -> list[str]:
    """Names of model folders among a judge and a sentence encoder."""
    return [name for name in (judge, sentence_encoder) if name not in (None, models.NONE, READER)]


class SAGEScoreTIFA(io.ComfyNode):
    """Images, questions and a judge: TIFA, question by question."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEScoreTIFA",
            display_name="Score TIFA",
            category="SAGE",
            description="Asks the judge every question about its image: TIFA, by type, and each question ticked or "
            "crossed. Images belong to captions by position.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="In the order of the captions; batches, lists and mixed sizes."),
                Questions.Input("questions", tooltip="From Prompt List, Load or Make TIFA Questions."),
                JudgeType.Input("judge", tooltip="From Load VQA Judge."),
                io.String.Input("name", default="base", tooltip="What this run is called in tables and pictures."),
                io.String.Input(
                    "log",
                    default="",
                    tooltip="Answers are written to output/sage/tifa/<log>.jsonl as they come; queue again to go on "
                    "after a stop. Empty: none.",
                ),
                io.Int.Input("pictured", default=8, min=1, max=64, tooltip="Images shown with their questions."),
                Scores.Input("scores", optional=True, tooltip="Scores of the same run to add to."),
            ],
            outputs=[
                Scores.Output(display_name="scores", tooltip="For CLIPScore, Concept Rate and Compare."),
                io.Float.Output(display_name="tifa", tooltip="Mean over captions, 0 to 1."),
                io.String.Output(display_name="table", tooltip="TIFA and its types with 95% intervals."),
                io.String.Output(display_name="json", tooltip="Everything, every question."),
                io.Image.Output(display_name="picture", tooltip="Images with each question ticked or crossed."),
            ],
        )

    @classmethod
    def execute(cls, images, questions, judge, name, log, pictured, scores=(None,)) -> io.NodeOutput:
        pictures = models.flatten(images)
        groups = list(group_by_caption([question for some in questions for question in some]).values())
        if len(pictures) != len(groups):
            raise QuestionError(
                f"{len(pictures)} images came with questions about {len(groups)} captions; expected one image for each "
                f"caption, in the same order. Take prompts and questions from the same Prompt List."
            )
        loaded = judge[0]
        loaded.load()
        result = evaluate(
            pictures,
            groups,
            loaded.judge,
            sentences=loaded.sentences,
            name=name[0],
            log=_output_file(log[0], "tifa", ".jsonl") if log[0].strip() else None,
            on_progress=runtime.Progress(),
        )
        by_image = list(zip(pictures, groups, strict=True))[: pictured[0]]
        rows = iter(result.questions)
        cards = [question_card(image, [next(rows) for _ in group], DARK) for image, group in by_image]
        picture = runtime.to_image(card_sheet(cards, DARK))
        table = result.to_markdown()
        run = add_to_run(scores[0], name[0], tifa=result)
        shown = ui.PreviewImage(picture, cls=cls).as_dict() | ui.PreviewText(table).as_dict()
        data = json.dumps(result.to_dict(), ensure_ascii=False)
        return io.NodeOutput(run, result.average, table, data, picture, ui=shown)


def add_to_run(run: Run | None, name: str, **measured: Any) -> Run:
    """`run`, or a new one called `name`, with what was measured now."""
    known = {} if run is None else dict(vars(run))
    rates = (*known.get("rates", ()), *measured.pop("rates", ()))
    return Run(**{**known, "name": name if run is None else run.name, **measured, "rates": rates})


def _output_file(name: str, folder: str, suffix: str) -> Path:
    """output/sage/<folder>/<name><suffix>. Raises SettingsError unless `name` is a plain file name."""
    stem = name.strip().removesuffix(suffix)
    if not re.fullmatch(r"[\w()+=@-]([\w ()+.=@-]{0,98}[\w()+=@-])?", stem):
        raise SettingsError(
            f"{name!r} is no plain file name; expected at most 100 letters, digits, spaces, dots, dashes, underscores."
        )
    return Path(folder_paths.get_output_directory()) / "sage" / folder / f"{stem}{suffix}"


NODES: list[type[io.ComfyNode]] = [SAGEPromptList, SAGELoadQuestions, SAGEMakeQuestions, SAGELoadJudge, SAGEScoreTIFA]
