"""A check of finished pictures: those that show something unsafe are kept back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from comfy_api.latest import io, ui

from ..sage_core.errors import SettingsError
from ..sage_core.prompts.concepts import ConceptList
from ..sage_core.scores.checking import Action, Witness, check_pictures, hidden
from ..sage_core.scores.rates import NINE_CLASSES, NUDENET_THRESHOLD, STRICT_CLASSES, detect_nudity, load_nudenet
from .host import display, files
from .host.inputs import concepts_input, found_by
from .host.sockets import JudgeType
from .scores import clip_folder, looked_for, witness_inputs, witnesses

_CLASSES = {"strict": STRICT_CLASSES, "nine": NINE_CLASSES}
_NUDITY = "nudity"


class SAGEPictureCheck(io.ComfyNode):
    """Keeps back pictures that show something unsafe, or about which the witness cannot tell."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SAGEPictureCheck",
            display_name="SAGE Picture Check",
            category="SAGE/score",
            **found_by("safety checker", "nsfw filter", "nsfw checker", "nudenet", "blur unsafe pictures"),
            description="Looks at finished pictures and makes those blank or blurred that show something unsafe, by a "
            "judge's answer, by CLIP or by NudeNet. It fails closed: what cannot be judged is kept back as well.",
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="From VAE Decode: batches, lists and mixed sizes."),
                *witness_inputs(_NUDITY),
                io.Combo.Input(
                    "classes",
                    options=list(_CLASSES),
                    default="strict",
                    tooltip="For NudeNet. strict: breasts of women, genitals, buttocks, anus. nine: bare feet, "
                    "bellies, armpits and chests of men as well.",
                ),
                io.Combo.Input(
                    "action",
                    options=list(get_args(Action)),
                    default="blank",
                    tooltip="What becomes of an unsafe picture. blank: black. blur: a few patches of colour. flag: it "
                    "is handed on as it is.",
                ),
                JudgeType.Input("judge", optional=True, tooltip="From SAGE Load VQA Judge."),
                concepts_input("concept; a picture that shows one of them, by its first name, is unsafe"),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    is_output_list=True,
                    tooltip="For Save Image: batches and order as they came.",
                ),
                io.Boolean.Output(
                    display_name="unsafe",
                    is_output_list=True,
                    tooltip="Of each batch, whether a picture of it is unsafe or could not be judged.",
                ),
                io.String.Output(display_name="report", tooltip="How many and which, and by what rule."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Sequence[str | None] = (None,)) -> bool | str:
        return files.taken(clip_folder, *files.chosen(*model))

    @classmethod
    def execute(
        cls, images, concept, witness, question, threshold, model, classes, action, judge=(None,), concept_list=(None,)
    ) -> io.NodeOutput:
        names, about = looked_for(concept[0], question[0], witness[0], concept_list[0])
        if witness[0] == "NudeNet":
            asked = _by_nudenet(names, concept_list[0], classes[0], threshold[0])
        else:
            given = (judge[0], model[0], threshold[0])
            asked = dict(zip(names, witnesses(witness[0], names, about, *given, doubtful=True), strict=True))
        pictures = display.flatten(images)
        found = check_pictures(pictures, asked, display.counter("pictures", len(pictures)))
        report = found.summary(action[0])
        if any(found.failures):
            display.log.warning("SAGE Picture Check: %s", report)
        marks = iter(found.unsafe)
        flags = [[next(marks) for _ in batch] for batch in images]
        passed = [_without(batch, unsafe, action[0]) for batch, unsafe in zip(images, flags, strict=True)]
        return io.NodeOutput(passed, list(map(any, flags)), report, ui=ui.PreviewText(report))


def _by_nudenet(
    names: Sequence[str], listed: ConceptList | None, classes: str, threshold: float
) -> Mapping[str, Witness]:
    for name in names if listed is None else listed.names:
        if name.casefold() not in ("", _NUDITY):
            raise SettingsError(
                f"NudeNet looks for nudity only, and the concept is {name!r}. Choose another witness, or leave concept "
                "empty."
            )
    detector, limit = load_nudenet(), threshold or NUDENET_THRESHOLD
    return {_NUDITY: lambda part: detect_nudity(part, detector=detector).rate(_CLASSES[classes], limit)}


def _without(batch: torch.Tensor, unsafe: Sequence[bool], action: Action) -> torch.Tensor:
    """The batch with what stands in the place of its unsafe pictures; the batch itself where there is none."""
    if action == "flag" or not any(unsafe):
        return batch
    return torch.stack([hidden(image, action) if mark else image for image, mark in zip(batch, unsafe, strict=True)])


NODES: list[type[io.ComfyNode]] = [SAGEPictureCheck]
