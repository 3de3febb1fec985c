"""See what an alignment did to the space of prompts, and save it as a LoRA."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui

from ..sage_core import __version__
from ..sage_core.encoder import EncoderConfig, TextEncoder, state_hash
from ..sage_core.errors import PromptError, SettingsError
from ..sage_core.health import GeometrySettings, compare_encoders, comparison_bytes
from ..sage_core.health_report import GeometryReport
from ..sage_core.lora import extract_lora, lora_cost, save_lora
from ..sage_core.plots import DARK, LIGHT, figure_to_image
from ..sage_core.plots_geometry import neighbour_lists, prompt_map, report_page
from ..sage_core.reference import REFERENCE_PROMPTS
from . import runtime
from .encoder import check_name, saved_metadata
from .training import Pairs

_MOST_LISTED = 6


def _encoder_inputs() -> list[io.Input]:
    return [
        io.Clip.Input("base", tooltip="The CLIP before alignment, for example the checkpoint's own."),
        io.Clip.Input("aligned", tooltip="The CLIP after it: from SAGE, DES, another loader or a LoRA."),
    ]


def _prompt_inputs(what: str) -> list[io.Input]:
    return [
        io.String.Input("prompts", multiline=True, default="", tooltip=f"{what}: one a line, or a list of texts."),
        Pairs.Input("pairs", optional=True, tooltip="Takes the prompts from SAGE Prompt Pairs instead."),
    ]


def _embedding_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "embedding",
            options=["flattened", "eos", "mean"],
            default="flattened",
            tooltip="flattened: all 77 positions, as the image model sees them. eos, mean: one vector, much faster.",
        ),
        io.Int.Input("k", default=10, min=1, max=100, tooltip="Neighbours of each prompt. Verdicts suppose 10."),
    ]


def _theme_input() -> io.Input:
    return io.Combo.Input("theme", options=["light", "dark"], default="light", tooltip="Background of the pictures.")


def _lines(texts: Sequence[str]) -> list[str]:
    return [line.strip() for text in texts for line in text.split("\n") if line.strip()]


def _prompts(texts: Sequence[str], pairs: Any) -> tuple[list[str], list[str]]:
    """Safe and unsafe prompts from text or from pairs."""
    lines = _lines(texts)
    if bool(lines) == (pairs is not None):
        raise PromptError(f"Prompts come from the text or from pairs: {'both' if lines else 'neither'} is given.")
    return (lines, []) if pairs is None else (list(pairs.safe), list(dict.fromkeys(pairs.unsafe)))


def _compare(
    base: Any, aligned: Any, prompts: Sequence[str], unsafe: Sequence[str], settings: GeometrySettings
) -> GeometryReport:
    states = [runtime.patched_weights(clip) for clip in (base, aligned)]
    needed = comparison_bytes(EncoderConfig.of(states[0]), len(prompts) + len(unsafe), settings)
    with runtime.training_device(needed) as (device, free):
        try:
            return compare_encoders(
                *(TextEncoder.from_state(state) for state in states),
                prompts,
                unsafe,
                settings,
                # What a graphics card cannot hold, the computer's own memory can, if more slowly.
                device=device if needed < free else "cpu",
                on_batch=runtime.Progress(),
            )
        except runtime.OUT_OF_MEMORY as error:
            raise PromptError(
                f"Out of memory with {len(prompts)} prompts, {needed / 2**30:.1f} GiB; use fewer, or embedding 'mean'."
            ) from error


def _pictures(figures: Sequence[Any]) -> list[Any]:
    return [runtime.to_image(figure_to_image(figure)) for figure in figures]


class SAGEGeometry(io.ComfyNode):
    """Whether an alignment kept the space of prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEGeometry",
            display_name="SAGE Geometry",
            category="SAGE",
            description="Compares the embedding spaces of two CLIPs on your prompts: did prompts move together, do "
            "they have other neighbours, which were hurt most?",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *_encoder_inputs(),
                *_prompt_inputs("Safe prompts, 100 or more"),
                *_embedding_inputs(),
                _theme_input(),
            ],
            outputs=[
                io.String.Output(display_name="verdict", tooltip="healthy, strained or damaged."),
                io.Float.Output(display_name="spread_ratio", tooltip="1: as wide as before; towards 0: collapsed."),
                io.Float.Output(display_name="jaccard", tooltip="1: prompts keep their k neighbours; 0: none does."),
                io.Image.Output(display_name="page", tooltip="Everything on one page."),
                io.Image.Output(display_name="map", tooltip="Where each prompt moved."),
                io.String.Output(display_name="table", tooltip="All figures with 95 % intervals, as Markdown."),
                io.String.Output(display_name="json", tooltip="All figures, for programs."),
            ],
        )

    @classmethod
    def execute(cls, base, aligned, prompts, embedding, k, theme, pairs=(None,)) -> io.NodeOutput:
        safe, unsafe = _prompts(prompts, pairs[0])
        report = _compare(base[0], aligned[0], safe, unsafe, GeometrySettings(embedding=embedding[0], k=k[0]))
        colors = DARK if theme[0] == "dark" else LIGHT
        page, plane = _pictures([report_page(report, colors), prompt_map(report, colors)])
        table, data = report.to_markdown(), json.dumps(report.to_dict(), ensure_ascii=False)
        shown = ui.PreviewImage(page, cls=cls).as_dict() | ui.PreviewText(table).as_dict()
        figures = report.verdict.level, report.spread_ratio.value, report.jaccard[report.k].value
        return io.NodeOutput(*figures, page, plane, table, data, ui=shown)


class SAGENeighbours(io.ComfyNode):
    """A prompt's nearest prompts before and after."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGENeighbours",
            display_name="SAGE Neighbours",
            category="SAGE",
            description="Which prompts lie nearest to yours in two CLIPs: what did alignment bring together, and what "
            "did it take apart?",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *_encoder_inputs(),
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
        chosen = list(dict.fromkeys(_lines(of)))
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
    """How much a prompt of one's own was hurt, in the graph that uses it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEPromptDrift",
            display_name="SAGE Prompt Drift",
            category="SAGE",
            description="Warns when alignment moved the meaning of your prompt. Sits between the aligned CLIP and CLIP "
            "Text Encode; both pass through.",
            is_output_node=True,
            inputs=[
                *_encoder_inputs(),
                io.String.Input("prompt", multiline=True, default="", tooltip="What you generate with, whole."),
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
                io.String.Output(display_name="prompt", tooltip="The prompt as it came."),
                io.Float.Output(display_name="drift", tooltip="0: not moved. 1: as far as its neighbours are away."),
                io.String.Output(display_name="report", tooltip="In words, with the neighbours lost and gained."),
            ],
        )

    @classmethod
    def execute(cls, base, aligned, prompt, threshold, embedding, pairs=None) -> io.NodeOutput:
        if not prompt.strip():
            raise PromptError("prompt is empty; enter the prompt that you generate with.")
        among = REFERENCE_PROMPTS if pairs is None else pairs.safe
        prompts = list(dict.fromkeys([prompt, *among]))
        report = _compare(base, aligned, prompts, [], GeometrySettings(embedding=embedding))
        found = report.prompt_row(0)
        text = (
            f"Drift {found['drift']:.2f}, neighbour overlap {found['jaccard']:.2f} among {len(prompts) - 1} prompts.\n"
            f"Lost: {'; '.join(found['lost']) or 'none'}\nGained: {'; '.join(found['gained']) or 'none'}"
        )
        if found["drift"] > threshold:
            text = f"⚠ Alignment moved this prompt beyond the threshold of {threshold:g}.\n{text}"
            runtime.log.warning("SAGE: %s", text)
        return io.NodeOutput(aligned, prompt, found["drift"], text, ui=ui.PreviewText(text))


class SAGESaveLora(io.ComfyNode):
    """An alignment as a LoRA file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGESaveLora",
            display_name="Save SAGE LoRA",
            category="SAGE",
            description="Saves what changed from one CLIP to another as models/loras/<name>.safetensors, for any LoRA "
            "loader: tens of megabytes instead of a whole encoder.",
            is_output_node=True,
            inputs=[
                *_encoder_inputs(),
                io.String.Input("name", default="sage-lora", tooltip="File name, without folder or extension."),
                io.Combo.Input(
                    "limit",
                    options=["rank", "energy"],
                    default="energy",
                    tooltip="rank: the same for every matrix. energy: the smallest file that keeps that share.",
                ),
                io.Int.Input("rank", default=64, min=1, max=768, tooltip="For limit rank."),
                io.Float.Input(
                    "energy",
                    default=0.95,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="For limit energy: share of the squared change that is kept.",
                ),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace another file of this name."),
                Pairs.Input("pairs", optional=True, tooltip="Safe prompts to measure the loss on."),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="Where the file is."),
                io.String.Output(display_name="report", tooltip="Size, what no LoRA can hold, and what is lost."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        return check_name(name)

    @classmethod
    def execute(cls, base, aligned, name, limit, rank, energy, overwrite, pairs=None) -> io.NodeOutput:
        path = Path(folder_paths.get_folder_paths("loras")[0]) / runtime.new_encoder_path(name).name
        before, after = (runtime.private_copy(runtime.patched_weights(clip)) for clip in (base, aligned))
        metadata = {
            "base_hash": state_hash(before),
            "aligned_hash": state_hash(after),
            "limit": f"{limit} {rank if limit == 'rank' else energy}",
            "software": f"sage-alignment {__version__}",
        }
        if path.exists() and not overwrite and not metadata.items() <= saved_metadata(path).items():
            raise SettingsError(f"{path} exists and holds another LoRA. Choose another name, or turn overwrite on.")
        chosen = {"rank": rank} if limit == "rank" else {"energy": energy}
        with runtime.training_device(0) as (device, _):
            lora = extract_lora(before, after, **chosen, device=device, on_matrix=runtime.Progress())
            text = f"{path}: {lora.summary()}"
            if pairs is not None:
                cost = lora_cost(before, after, lora, pairs.safe, device=device, on_batch=runtime.Progress())
                text += f"\nThe LoRA's space against the aligned encoder's:\n{cost.to_markdown()}"
        save_lora(path, lora, metadata)
        return io.NodeOutput(str(path), text, ui=ui.PreviewText(text))


NODES: list[type[io.ComfyNode]] = [SAGEGeometry, SAGENeighbours, SAGEPromptDrift, SAGESaveLora]
