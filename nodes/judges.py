"""The judge of a graph: a VQA model under ComfyUI's memory manager, and what matches its answers to choices."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..sage_core.errors import JudgeError
from ..sage_core.tifa.judges.base import Judge, load_judge
from ..sage_core.tifa.sentences import RECOMMENDED, SentenceEncoder
from .host import files, memory
from .host.inputs import exactly_one, found_by
from .host.sockets import JudgeType, LoadedJudge
from .host.vision_clip import ClipJudge

READER = "shapes world reader"


class SAGELoadJudge(io.ComfyNode):
    """Loads a VQA model that answers TIFA's questions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        folders = files.model_folders()
        return io.Schema(
            node_id="SAGELoadJudge",
            display_name="SAGE Load VQA Judge",
            category="SAGE/score",
            **found_by("visual question answering", "vilt", "blip"),
            description="A VQA model of models/VQA or models/LLM: ViLT, BLIP, BLIP-2, GIT, or a chat model that sees. "
            "Or the shapes world's reader, which needs no model.",
            inputs=[
                io.Combo.Input(
                    "judge",
                    options=[files.NONE, READER, *folders],
                    tooltip="'none' with a vision CLIP. The reader knows the demo's pictures and questions only.",
                ),
                io.Combo.Input(
                    "sentence_encoder",
                    options=[files.NONE, *folders],
                    default=files.NONE,
                    tooltip="Matches free answers to choices; TIFA uses sentence-transformers/all-mpnet-base-v2. "
                    "'none': the judge's likeliest choice stands, which is not TIFA's rule.",
                ),
                io.Combo.Input("precision", options=["auto", "fp32", "bf16"], default="fp32", tooltip="fp32 is exact."),
                io.Clip.Input(
                    "vision_clip", optional=True, tooltip="A vision-language model loaded by ComfyUI, from 0.26 on."
                ),
            ],
            outputs=[JudgeType.Output(display_name="judge", tooltip="For SAGE Score TIFA and SAGE Concept Rate.")],
        )

    @classmethod
    def validate_inputs(cls, judge: str | None = None, sentence_encoder: str | None = None) -> bool | str:
        return files.taken(files.model_path, *_folders(judge, sentence_encoder))

    @classmethod
    def fingerprint_inputs(cls, judge: str | None, sentence_encoder: str | None, **_: Any) -> Any:
        return [files.fingerprint(files.model_path(name)) for name in _folders(judge, sentence_encoder)]

    @classmethod
    def execute(cls, judge, sentence_encoder, precision, vision_clip=None) -> io.NodeOutput:
        exactly_one(
            judge != files.NONE, vision_clip is not None, "The judge is a model folder or a vision_clip", JudgeError
        )
        managed = []
        if vision_clip is not None:
            chosen: Judge = ClipJudge(vision_clip)
            if sentence_encoder == files.NONE:
                raise JudgeError(
                    "sentence_encoder is 'none', but a vision_clip gives no probabilities by which its answers could "
                    f"be matched to choices: choose a sentence encoder, for instance {RECOMMENDED}."
                )
        elif judge == READER:
            from ..sage_core.shapes.exam.reader_judge import ReaderJudge

            chosen = ReaderJudge()
        else:
            loaded = load_judge(files.model_path(judge), dtype=memory.precision(precision), name=judge)
            managed.append(memory.Managed(loaded.model))
            chosen = loaded
        sentences = None
        if sentence_encoder != files.NONE:
            sentences = SentenceEncoder.from_folder(files.model_path(sentence_encoder))
            # ComfyUI makes room for a vision_clip at each answer, so that models it could push out stay on the CPU.
            managed += [memory.Managed(sentences.model)] if vision_clip is None else []
        return io.NodeOutput(LoadedJudge(chosen, sentences, tuple(managed)))


def _folders(judge: str | None, sentence_encoder: str | None) -> list[str]:
    """Those of a judge and a sentence encoder that name model folders."""
    return [name for name in files.chosen(judge, sentence_encoder) if name != READER]


NODES: list[type[io.ComfyNode]] = [SAGELoadJudge]
