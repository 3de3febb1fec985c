"""A node for tests alone, put beside the pack in the test server: writes a conditioning to a file for a test."""

from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import save_file


class SaveConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeSaveConditioning",
            is_output_node=True,
            inputs=[io.Conditioning.Input("conditioning"), io.String.Input("name")],
        )

    @classmethod
    def execute(cls, conditioning, name) -> io.NodeOutput:
        ((embedding, extras),) = conditioning
        tensors = {"embedding": embedding.float().contiguous(), "pooled": extras["pooled_output"].float().contiguous()}
        save_file(tensors, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")
        return io.NodeOutput()


class ProbeExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [SaveConditioning]


async def comfy_entrypoint() -> ProbeExtension:
    return ProbeExtension()
