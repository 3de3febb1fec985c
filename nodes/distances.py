"""How far two sets of pictures are from each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui

from ..sage_core.errors import JudgeError
from ..sage_core.scores.distances import FEWEST_FOR_FID, distance
from ..sage_core.scores.features import Extractor, Features, load_extractor, pictures_in
from ..sage_core.scores.statistics import Statistics, read_statistics, write_statistics
from .host import display, files, memory
from .host.inputs import ADVANCED, exactly_one, found_by, seed_input


class SAGEImageDistance(io.ComfyNode):
    """Compares two sets of pictures by FID, KID or CMMD."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEImageDistance",
            display_name="SAGE Image Distance",
            category="SAGE/score",
            **found_by("fid", "kid", "cmmd"),
            description="FID, KID or CMMD of two sets of pictures, with all that the number depends on.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Combo.Input(
                    "measure",
                    options=["CMMD", "KID", "FID"],
                    default="CMMD",
                    tooltip="CMMD: CLIP, for hundreds of pictures. KID: without bias. FID: for 10,000 and more.",
                ),
                io.Combo.Input(
                    "model",
                    options=[files.NONE, *files.feature_models()],
                    tooltip="A folder of CLIP or DINOv2, or FID's Inception as a file, in models/VQA. none: for .npz.",
                ),
                io.String.Input(
                    "folder", default="", tooltip="Pictures in the input or output folder, or .npz; or connect images."
                ),
                io.String.Input(
                    "reference_folder",
                    default="",
                    tooltip="What they are measured against, in the same places: photographs, or the base's pictures.",
                ),
                io.Combo.Input(
                    "resizing",
                    options=["clean", "bilinear"],
                    default="clean",
                    tooltip="For Inception: as clean-fid or as pytorch-fid. Figures of the two do not compare.",
                    **ADVANCED,
                ),
                io.Int.Input(
                    "fewest",
                    default=FEWEST_FOR_FID,
                    min=2,
                    max=10_000_000,
                    tooltip="FID of fewer pictures is refused.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "different_counts",
                    default=False,
                    tooltip="FID and CMMD of different numbers of pictures, too; they depend on the number.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "run_torchscript",
                    default=False,
                    tooltip="A TorchScript is a program: only if you trust where it comes from.",
                    **ADVANCED,
                ),
                seed_input("Of KID's subsets."),
                io.String.Input(
                    "keep_reference",
                    default="",
                    optional=True,
                    tooltip="Keeps the reference's mean and covariance for FID, in output/sage/statistics.",
                ),
                io.Image.Input("images", optional=True, tooltip="Instead of a folder; batches, lists, mixed sizes."),
                io.Image.Input("reference_images", optional=True, tooltip="Instead of the reference's folder."),
            ],
            outputs=[
                io.Float.Output(display_name="distance", tooltip="CMMD is multiplied by 1,000, as usual."),
                io.String.Output(display_name="table", tooltip="With numbers of pictures, model and resizing."),
                io.String.Output(display_name="json", tooltip="The same for programs."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Sequence[str | None] = (None,)) -> bool | str:
        return files.taken(files.feature_model_path, *files.chosen(*model))

    @classmethod
    def fingerprint_inputs(
        cls, folder: Sequence[str | None] = (), reference_folder: Sequence[str | None] = (), **_: Any
    ) -> Any:
        # A name that leads nowhere is refused when the node runs.
        return [
            files.fingerprint(files.picture_set(name.strip()))
            for names in (folder, reference_folder)
            for name in names or ()
            if name and name.strip() and files.taken(files.picture_set, name.strip()) is True
        ]

    @classmethod
    def execute(
        cls,
        measure,
        model,
        folder,
        reference_folder,
        resizing,
        fewest,
        different_counts,
        run_torchscript,
        seed,
        keep_reference=("",),
        images=(),
        reference_images=(),
    ) -> io.NodeOutput:
        given = ((folder[0].strip(), images, "pictures"), (reference_folder[0].strip(), reference_images, "reference"))
        for name, batches, what in given:
            connected = any(batch is not None for batch in batches)
            exactly_one(name, connected, f"The {what} come from a folder or from images", JudgeError)
        kept = (
            files.output_file("statistics", keep_reference[0], ".npz", "keep_reference") if keep_reference[0] else None
        )
        extractor = _load(model[0], resizing[0], run_torchscript[0])
        sides = [_side(name, batches, extractor, what) for name, batches, what in given]
        if kept is not None:
            write_statistics(kept, Statistics.of(sides[1]) if isinstance(sides[1], Features) else sides[1])
        found = distance(
            measure[0],
            *sides,
            fewest=fewest[0],
            different_counts=different_counts[0],
            seed=seed[0],
            on_step=display.Progress("parts"),
        )
        table = found.to_markdown() + (f"\n\nKept: {kept}" if kept is not None else "")
        text = json.dumps(found.to_dict(), ensure_ascii=False)
        return io.NodeOutput(found.value, table, text, ui=ui.PreviewText(table))


def _load(model: str, resizing: str, trusted: bool) -> Extractor | None:
    if model == files.NONE:
        return None
    extractor = load_extractor(files.feature_model_path(model), resizing=resizing, trusted=trusted)
    memory.load([memory.Managed(extractor.model)])
    return extractor


def _side(name: str, batches: Sequence[Any], extractor: Extractor | None, what: str) -> Features | Statistics:
    path = files.picture_set(name) if name else None
    if path is not None and path.is_file():
        return read_statistics(path)
    if extractor is None:
        raise JudgeError(f"The {what} need a model whose features are compared, and model is 'none': choose one.")
    pictures = (
        pictures_in(path) if path is not None else display.flatten([each for each in batches if each is not None])
    )
    return extractor.embed(pictures, display.counter(what, len(pictures)))


NODES: list[type[io.ComfyNode]] = [SAGEImageDistance]
