"""What all closed forms share: the result, the choice and check of matrices, and the linear solve with its residual."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...encoders.text_encoder import TextEncoder, embed
from ...errors import SettingsError, UnetError
from ...prompts.everyday_captions import everyday_captions
from ...unet.names import reads_prompt
from ..concepts import Concepts

# What an edit's settings tell of its concepts.
_OF_CONCEPTS = ("erase", "guides", "preserve", "captions")
# From this size of a change on, in that of the matrices, it is looked at what it does to other prompts.
_LARGE = 0.3
# The share of what the U-Net reads of everyday captions from whose move on pictures of other things change. Size alone
# says little: in the shapes world RECE's matrices change by four times their size and all answers stay, since it moves
# captions by 0.3; what moved them by 1 or more (TIME, OCE and MACE at scales too large) left less than a third.
_MOVED = 0.5
_CAPTIONS = 8
# A float64 solve keeps about 16 - log10(condition) digits; from here on fewer than four are left.
_WORST_CONDITION = 1e12


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of cross-attention's matrices.

    Attributes:
        method: its name.
        deltas: what to add to each weight, by the names that were given, float32 on the CPU.
        residual: largest relative error of the linear systems that were solved, ‖D X − B‖ / ‖B‖.
        relative: ‖change‖ / ‖weights‖ over the changed matrices.
        settings: JSON-able, with the concepts.
        notes: sentences on what the method met.
    """

    method: str
    deltas: dict[str, Tensor]
    residual: float
    relative: float
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    def metadata(self) -> dict[str, Any]:
        """What belongs into a saved file: method, settings and numbers."""
        return {"sage_method": self.method, "sage_settings": self.settings, "sage_residual": self.residual}

    def knobs(self) -> str:
        """The settings' values in one line, the concepts left out."""
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.settings.items()
            if name not in _OF_CONCEPTS
        )

    def summary(self) -> str:
        """One line on size and accuracy."""
        text = (
            f"{self.method}: {len(self.deltas)} matrices changed by {self.relative:.1%} of their size; "
            f"the systems are solved to {self.residual:.0e}."
        )
        return " ".join([text, *self.notes])


def choose(
    weights: Mapping[str, Tensor], width: int, wanted: Callable[[str], bool] = reads_prompt
) -> dict[str, Tensor]:
    """The matrices to edit, float64 on the CPU.

    Raises:
        UnetError: there are none, one reads states of another width, or one holds NaN.
    """
    chosen = {name: tensor for name, tensor in weights.items() if wanted(name)}
    if not chosen:
        raise UnetError(
            "The weights hold no matrix of cross-attention: expected names that end in attn2.to_k.weight and "
            "attn2.to_v.weight, as a Stable Diffusion U-Net has."
        )
    for name, tensor in chosen.items():
        if tensor.ndim != 2 or tensor.shape[1] != width:
            raise UnetError(
                f"{name} has shape {tuple(tensor.shape)}, but the text encoder's states are {width} wide: the text "
                "encoder and the U-Net are of different models."
            )
        if not torch.isfinite(tensor).all():
            raise UnetError(f"{name} holds values that are NaN or infinite: load the model again from a whole file.")
    return {name: tensor.detach().to("cpu", torch.float64) for name, tensor in chosen.items()}


@dataclass
class Solver:
    """Linear systems in float64, with the largest relative residual so far."""

    residual: float = 0.0
    advice: str = field(default="Give the method's lam a value above 0.", repr=False)

    def right(self, matrix: Tensor, right: Tensor) -> Tensor:
        """X with X · matrix = right, where `matrix` is symmetric and positive.

        Raises:
            SettingsError: the matrix is singular, or so nearly that the solution would be noise.
        """
        lower, failed = torch.linalg.cholesky_ex(matrix)
        diagonal = lower.diagonal()
        # The squared ratio of the factor's diagonal is a lower bound of the condition number.
        if bool(failed) or float((diagonal.max() / diagonal.min()) ** 2) > _WORST_CONDITION:
            raise SettingsError(
                "The method's linear system is singular: the states given do not determine the edit in all "
                f"{len(matrix)} directions. {self.advice}"
            )
        solution = torch.cholesky_solve(right.T, lower).T
        self._note(solution @ matrix, right)
        return solution

    def general(self, matrix: Tensor, right: Tensor) -> Tensor:
        """X with matrix · X = right, for any regular matrix.

        Raises:
            SettingsError: the matrix is singular.
        """
        solution, failed = torch.linalg.solve_ex(matrix, right)
        if bool(failed) or not torch.isfinite(solution).all():
            raise SettingsError(f"The method's linear system is singular. {self.advice}")
        self._note(matrix @ solution, right)
        return solution

    def _note(self, found: Tensor, right: Tensor) -> None:
        self.residual = max(self.residual, float((found - right).norm() / right.norm().clamp_min(1e-300)))


def result(
    method: str,
    chosen: Mapping[str, Tensor],
    deltas: Mapping[str, Tensor],
    solver: Solver,
    concepts: Concepts,
    settings: Any,
    notes: tuple[str, ...] = (),
) -> Edit:
    """The edit of finished changes.

    Raises:
        UnetError: nothing changed, or a change is not finite.
    """
    change = sum(float(delta.square().sum()) for delta in deltas.values())
    size = sum(float(chosen[name].square().sum()) for name in deltas)
    if not change > 0 or change == float("inf"):
        why = "changes nothing" if change == 0 else "is not finite"
        raise UnetError(f"{method}: the edit {why}. Check the concepts, guides and scales.")
    about = {
        "erase": list(concepts.erase),
        "guides": list(concepts.guides),
        "preserve": list(concepts.preserve),
        "captions": len(concepts.captions),
        **asdict(settings),
    }
    return Edit(
        method=method,
        deltas={name: delta.float() for name, delta in deltas.items()},
        residual=solver.residual,
        relative=(change / size) ** 0.5,
        settings=about,
        notes=notes,
    )


def with_warning(edit: Edit, weights: Mapping[str, Tensor], encoder: TextEncoder) -> Edit:
    """The edit, with a note where it moves what the U-Net reads of prompts that are not about its concepts."""
    if edit.relative < _LARGE:
        return edit
    captions = everyday_captions(_CAPTIONS, seed=1, leave_out=edit.settings["erase"])
    states = embed(encoder, captions).view(-1, encoder.config.width).cpu()
    moved = read = 0.0
    for name, delta in edit.deltas.items():
        moved += float((states @ delta.T).square().sum())
        read += float((states @ weights[name].detach().cpu().float().T).square().sum())
    share = (moved / max(read, 1e-300)) ** 0.5
    if share < _MOVED:
        return edit
    note = (
        f"⚠ What the U-Net reads of everyday captions moves by {share:.0%} of its size: pictures of other things will "
        "change, too. Raise hold, lower erase_scale, or give more captions or texts to keep."
    )
    return replace(edit, notes=(*edit.notes, note))


def shared(chosen: Mapping[str, Tensor], change: Tensor) -> dict[str, Tensor]:
    """W E for every matrix; E was solved for in float64, the product needs no more than the weights' own precision."""
    return {name: weight.float() @ change.float() for name, weight in chosen.items()}
