"""List the trainings that ComfyUI keeps, and delete old ones."""

from __future__ import annotations

import time

from comfy_api.latest import io, ui

from ..sage_core.runs.store import RunStore
from .host import files
from .host.inputs import found_by

_LIST, _LIMIT, _CLEAR = "list", "limit", "clear"


class SAGEStoredRuns(io.ComfyNode):
    """Lists and deletes what trainings and attacks keep in output/sage/runs and output/sage/gates."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEStoredRuns",
            display_name="SAGE Stored Runs",
            category="SAGE/train",
            **found_by("resume training", "delete trainings"),
            description="Lists finished and interrupted trainings, attacks and gates in output/sage/runs and "
            "output/sage/gates, which are found again by the same inputs, and deletes old ones. No saved encoder is "
            "lost.",
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "action",
                    options=[_LIST, _LIMIT, _CLEAR],
                    default=_LIST,
                    tooltip="limit: delete the oldest until all take at most limit_gb. clear: delete all.",
                ),
                io.Float.Input("limit_gb", default=5.0, min=0.0, max=10_000.0, step=0.5, tooltip="For action limit."),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="A line for each run, the newest first.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        # The folder changes while this node's inputs stay the same.
        return time.time()

    @classmethod
    def execute(cls, action, limit_gb) -> io.NodeOutput:
        store = RunStore(files.store_folder(), files.gate_folder())
        gone = [] if action == _LIST else store.clear(0 if action == _CLEAR else limit_gb * 1e9)
        left = store.runs()
        folders = " and ".join(map(str, store.folders))
        lines = [f"{len(left)} runs, {sum(run.bytes for run in left) / 2**20:,.1f} MiB in {folders}"]
        lines += [run.summary() for run in left]
        if action != _LIST:
            lines.append(f"Deleted {len(gone)} runs, {sum(run.bytes for run in gone) / 2**20:,.1f} MiB.")
        text = "\n".join(lines)
        return io.NodeOutput(text, ui=ui.PreviewText(text))


NODES: list[type[io.ComfyNode]] = [SAGEStoredRuns]
