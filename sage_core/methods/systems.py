"""The systems of the field: where their weights are, and which methods here make them; the table of docs/systems.md."""

from __future__ import annotations

from dataclasses import dataclass

from ..tables import markdown_table
from .table import METHODS, Kind

# The nodes that load published weights, and those that make each kind of method.
_ENCODER, _EDIT = "SAGE Apply", "SAGE Apply U-Net Edit"
_NODES: dict[Kind, str] = {
    "alignment": "SAGE Train Text Encoder",
    "unlearning": "SAGE Train AdvUnlearn",
    "closed form": "SAGE Erase Concept",
    "erasing": "SAGE Train Erasure",
    "redirecting": "SAGE Train U-Net",
    "guidance": "SAGE Safe Guidance, SAGE Safe Guider",
    "prompts": "SAGE SAFREE Prompt",
    "gate": "SAGE Train Gate, SAGE Gate",
}


@dataclass(frozen=True)
class System:
    """A published system.

    Attributes:
        name: as its authors call it.
        weights: where they are published, in Markdown.
        licence: of its weights or code.
        loads: the node that reads its weights, and what of them, if any are published.
        methods: names of the methods here that make it.
        made: what of it they make, where that is not the whole.
    """

    name: str
    weights: str
    licence: str
    loads: str = ""
    methods: tuple[str, ...] = ()
    made: str = "make"

    def row(self) -> list[str]:
        """Its row of the table."""
        verbs = [*(["load"] if self.loads else []), *([self.made] if self.methods else [])]
        nodes: dict[str, list[str]] = {}
        for name in self.methods:
            nodes.setdefault(_NODES[METHODS[name].kind], []).append(f"`{name}`")
        how = [*([self.loads] if self.loads else []), *(f"{node} {', '.join(names)}" for node, names in nodes.items())]
        return [self.name, ", ".join(verbs), "; ".join(how), self.weights, self.licence]


SYSTEMS = (
    System(
        "SAGE", "[github.com/Adeelyousaf/SAGE](https://github.com/Adeelyousaf/SAGE)", "CC BY-NC", _ENCODER,
        ("paper", "released", "sage_plus"),
    ),
    System("DES", "its authors", "see there", _ENCODER, ("des",)),
    System("AdvUnlearn", "its authors", "see there", _ENCODER, ("adv_unlearn",), "make (its fast variant)"),
    System(
        "SafeCLIP, SafeR-CLIP", "their authors", "see there", _ENCODER, ("safeclip", "safer_clip"), "text side made"
    ),
    System(
        "ESD", "`erasing.baulab.info/weights/esd_models`", "MIT (code)", _EDIT,
        ("esd_x", "esd_u", "esd_x_paper", "esd_u_paper"),
    ),
    System("UCE", "none official", "MIT (code)", _EDIT, ("uce", "uce_paper")),
    System("RECE", "Hugging Face `ChaoGong/RECE`", "Apache-2.0", _EDIT, ("rece",)),
    System(
        "MACE", "linked in `Shilin-LU/MACE`", "non-commercial", f"{_EDIT} (folder)", ("mace",), "closed-form part made"
    ),
    System("STEREO", "Hugging Face `koushiksrivats/STEREO`", "none stated", _EDIT),
    System(
        "SalUn", "linked in `OPTML-Group/Unlearn-Saliency`", "MIT (code)", f"{_EDIT}, its averaged copy left out"
    ),
    System("RACE", "none published", "MIT (code)", _EDIT, ("race",)),
    System(
        "AlignGuard (SafetyDPO)", "Hugging Face `Visualignment/safe-stable-diffusion-v1-5`", "MIT (code)",
        f"{_EDIT} (folder or LoRA)",
    ),
    System("SLD", "needs none", "MIT (code)", methods=("sld_weak", "sld_medium", "sld_strong", "sld_max")),
    System("SAFREE", "needs none", "none stated", methods=("safree",)),
    System("CGCE", "none published", "code not published", methods=("gate",), made="one of its kind"),
    System("CURE", "linked in its repository, no nudity", "none stated", _EDIT, ("cure",), "CURE-style made"),
    System("SPEED", "Hugging Face `lioooox/SPEED`", "Apache-2.0", _EDIT, ("speed",)),
    System("OCE", "linked in `HansSunY/OCE`", "none stated", _EDIT, ("oce",)),
    System("SAGE U-Net", "needs none", "this project's own", methods=("sage_unet",)),
)  # fmt: skip


def systems_table() -> str:
    """The table of docs/systems.md."""
    return markdown_table(
        ["system", "load, make", "how", "weights", "licence of weights or code"], [each.row() for each in SYSTEMS]
    )
