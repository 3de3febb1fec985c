"""Prompts that drive an ordinary graph, one after the other."""

from typing import Any

from comfy_api.latest import io

from ..sage_core.errors import PromptError
from ..sage_core.prompts import read_prompts
from ..sage_core.rates import without_minors
from ..sage_core.tifa.questions import group_by_caption
from . import models, runtime
from .tifa import Questions


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
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return file == models.NONE or runtime.taken(runtime.prompt_path, file)

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


NODES: list[type[io.ComfyNode]] = [SAGEPromptList]
