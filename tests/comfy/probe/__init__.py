"""Nodes for tests alone, put beside the pack in the test server: what only the inside of the server can see or do."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import comfy.model_management
import execution
import folder_paths
import torch
from aiohttp import web
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import save_file
from server import PromptServer

Judge = io.Custom("SAGE_JUDGE")

# How many models each call of ComfyUI's memory manager has brought to the device since it was last asked.
_loads: list[int] = []
_load_models_gpu = comfy.model_management.load_models_gpu


def _counted(models, *arguments, **settings):
    _loads.append(len(models))
    return _load_models_gpu(models, *arguments, **settings)


comfy.model_management.load_models_gpu = _counted


@PromptServer.instance.routes.post("/probe/validate")
async def _validate(request):
    """Whether a graph could be queued, and its errors by node, without queueing it."""
    valid, _, _, errors = await execution.validate_prompt("probe", await request.json(), None)
    return web.json_response({"valid": valid, "errors": errors})


class SaveParts(io.ComfyNode):
    """A conditioning of any number of parts: embeddings and (start, end) of each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeSaveParts",
            is_output_node=True,
            inputs=[io.Conditioning.Input("conditioning"), io.String.Input("name")],
        )

    @classmethod
    def execute(cls, conditioning, name) -> io.NodeOutput:
        tensors = {}
        for number, (embedding, extras) in enumerate(conditioning):
            tensors[f"embedding {number}"] = embedding.float().contiguous()
            tensors[f"times {number}"] = torch.tensor([extras.get("start_percent", 0), extras.get("end_percent", 1)])
        save_file(tensors, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")
        return io.NodeOutput()


class Loads(io.ComfyNode):
    """The number of models in each call of the memory manager since the last time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeLoads",
            inputs=[io.AnyType.Input("after"), io.String.Input("mark")],
            outputs=[io.String.Output()],
        )

    @classmethod
    def execute(cls, after, mark) -> io.NodeOutput:
        found = " ".join(map(str, _loads))
        _loads.clear()
        return io.NodeOutput(found)


class Text(io.ComfyNode):
    """A text that fits any input, a choice of files too."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeText", inputs=[io.String.Input("text")], outputs=[io.AnyType.Output(display_name="any")]
        )

    @classmethod
    def execute(cls, text) -> io.NodeOutput:
        return io.NodeOutput(text)


class OutOfMemory(io.ComfyNode):
    """Hands a CLIP on, after which the device has no memory for the eigenvalues of the `after`-th matrix from now."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeOutOfMemory",
            inputs=[io.Clip.Input("clip"), io.Int.Input("after")],
            outputs=[io.Clip.Output()],
        )

    @classmethod
    def execute(cls, clip, after) -> io.NodeOutput:
        real, left = torch.linalg.eigh, after

        def eigh(matrix):
            nonlocal left
            left -= 1
            if left:
                return real(matrix)
            torch.linalg.eigh = real
            raise torch.cuda.OutOfMemoryError("CUDA out of memory, injected")

        torch.linalg.eigh = eigh
        return io.NodeOutput(clip)


class Captions(io.ComfyNode):
    """So many captions, as a list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeCaptions", inputs=[io.Int.Input("count")], outputs=[io.String.Output(is_output_list=True)]
        )

    @classmethod
    def execute(cls, count) -> io.NodeOutput:
        return io.NodeOutput([f"caption {number}" for number in range(count)])


class Draw(io.ComfyNode):
    """A picture that depends on prompt and seed alone, in no time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeDraw",
            inputs=[io.String.Input("prompt"), io.Int.Input("seed", min=0, max=2**32)],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, prompt, seed) -> io.NodeOutput:
        generator = torch.Generator().manual_seed(seed + sum(prompt.encode()))
        return io.NodeOutput(torch.rand(1, 40, 40, 3, generator=generator))


class _VisionClip:
    """Stands for what ComfyUI's own vision-language models are from 0.26 on."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.cond_stage_model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))

    def tokenize(self, text, image):
        return text, image

    def generate(self, tokens, do_sample, max_length):
        return [[int(255 * tokens[1].mean()) % 3]]

    def decode(self, ids):
        return ["yes", "red", "two dogs"][ids[0]]


class VisionClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="ProbeVisionClip", inputs=[io.Int.Input("seed")], outputs=[io.Clip.Output()])

    @classmethod
    def execute(cls, seed) -> io.NodeOutput:
        return io.NodeOutput(_VisionClip(seed))


class _Slow:
    def __init__(self, judge, seconds: float) -> None:
        self.judge, self.seconds, self.name = judge, seconds, judge.name

    def answer(self, images, questions, *, on_batch=None, **settings):
        answers = []
        for image, asked in zip(images, questions, strict=True):
            time.sleep(self.seconds)
            answers += self.judge.answer([image], [asked], on_batch=on_batch, **settings)
        return answers


class SlowJudge(io.ComfyNode):
    """A judge that takes its time over each picture, so that there is some to cancel in."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeSlowJudge",
            inputs=[Judge.Input("judge"), io.Float.Input("seconds")],
            outputs=[Judge.Output()],
        )

    @classmethod
    def execute(cls, judge, seconds) -> io.NodeOutput:
        return io.NodeOutput(dataclasses.replace(judge, judge=_Slow(judge.judge, seconds)))


class ProbeExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [SaveParts, Loads, Text, OutOfMemory, Captions, Draw, VisionClip, SlowJudge]


async def comfy_entrypoint() -> ProbeExtension:
    return ProbeExtension()
