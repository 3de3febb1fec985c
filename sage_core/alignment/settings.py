"""Every knob of an alignment run in one frozen, validated object, and the presets that we ship."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ..encoders.precision import PrecisionChoice
from ..errors import SettingsError
from ..settings import Limits, Seed, Settings, Share

Target = Literal["farthest", "paired", "nearest", "fitting"]
Unit = Literal["absolute", "norm", "concept"]
LocalForm = Literal["pearson", "product"]
SpreadForm = Literal["hinge", "symmetric"]
Supervision = Literal["tokens", "pooled"]
Schedule = Literal["constant", "linear", "cosine"]
Until = Literal["steps", "removed"]


# No setting that makes sense is larger, and whatever is computed with this one stays finite in fp32.
_LARGEST = 10**9
_Weight = Annotated[float, Limits(0, _LARGEST)]
_CountOrZero = Annotated[int, Limits(0, _LARGEST)]
_Count = Annotated[int, Limits(1, _LARGEST)]


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Settings of one alignment run; the defaults are those of the authors' script, see `PRESETS`.

    Attributes:
        keep_weight: λ, weight of the keep terms.
        redirect_weight: weight of the redirect and neutralise terms; None for 1 − λ.
        spread_weight: λ_ESP, weight of embedding spread preservation. 0 together with `local_weight` 0 is DES.
        spread_form: "hinge", max(0, tr_0 − tr_θ), or "symmetric", |tr_0 − tr_θ|.
        local_weight: λ_LSA, weight of local structure alignment.
        local_form: "pearson", 1 − the correlation of the pairs' cosines, or "product", 1 − the mean of the products of
            their raw cosines, as equation 8 is printed.
        neighbours: K, nearest base neighbours of a prompt within its batch that local structure alignment looks at.
        perturbation: α, how far safe embeddings are pushed along the concept inside local structure alignment.
        perturbation_unit: "absolute"; "norm", multiples of the mean norm of the base's safe embeddings; or "concept",
            multiples of the norm of the concept's own embedding, so that 1 adds φ_0(concept) as it is.
        concept_scale: s, how far along the concept targets and kept embeddings are moved.
        scale_unit: unit of `concept_scale`, as for `perturbation_unit`.
        keep_mse: weight, inside λ, of the relative squared error ‖φ_θ(safe) − φ_0(safe)‖² / ‖φ_0(safe)‖²; 0 in the
            paper.
        keep_concept: whether the keep term on concept-shifted safe embeddings takes part.
        neutralise: whether the term that leads the concept to the empty prompt takes part.
        target: which safe prompt an unsafe one is redirected to: the "farthest" as published, its "paired" one, the
            "nearest", or the "fitting" one: the paired for a quality of which it is said what it becomes, whose prompts
            must arrive somewhere, see `watch`, and a neutral one for another concept. The way to a paired one then
            counts as a share of what it is in the base, since it is a short one.
        target_shift: multiples of s by which that target is moved against the concept, but no paired one among fitting
            ones, and none that a concept becomes; None for 1 with "farthest", as published, and "fitting", and 0 with
            "paired" and "nearest".
        supervision: what φ is: "tokens", all 77 states as the U-Net reads them, or "pooled", the end-of-text state.
        learning_rate, weight_decay: AdamW's.
        schedule: what becomes of the learning rate: "constant" (the paper's), or a "linear" or "cosine" fall to 0.
        warmup: steps of linear warm-up.
        batch_size: pairs a step. The loss couples the whole batch, so this is part of the result.
        epochs: passes over the pairs.
        steps: when given, the exact number of steps, whatever `epochs` says.
        chunk_size: prompts that go through the encoder at once, None for the whole batch. Changes memory, not results.
        precision: arithmetic of the encoder: "fp32", "tf32" (CUDA only), "bf16" autocast, or "auto" for what is fast
            on the device, see `choose_precision`. Weights stay fp32.
        seed: order of the pairs and choice of the held-out prompts.
        held_out: safe prompts kept out of training to measure the geometry on, at most a tenth of all.
        until: when a run ends: after its "steps", or when the concept is "removed" by the embeddings of prompts that
            were kept out of training, see `ruler`, and as long after they first said so as that took. Near the end
            what is left of further prompts becomes pairs of the next steps, see `rounds`. `steps`, or else `epochs` but
            MOST_STEPS at least, is the limit, and nothing ends it before 40 steps.
    """

    keep_weight: Share = 0.3
    spread_weight: _Weight = 2.0
    local_weight: _Weight = 0.1
    neighbours: _Count = 15
    perturbation: _Weight = 1.0
    perturbation_unit: Unit = "absolute"
    concept_scale: _Weight = 205.0
    scale_unit: Unit = "absolute"
    keep_mse: _Weight = 0.0
    keep_concept: bool = True
    target: Target = "farthest"
    target_shift: Annotated[float, Limits(-_LARGEST, _LARGEST)] | None = None
    learning_rate: Annotated[float, Limits(1e-12, 1)] = 1e-5
    weight_decay: _Weight = 0.01
    schedule: Schedule = "constant"
    warmup: _CountOrZero = 0
    batch_size: Annotated[int, Limits(2, _LARGEST)] = 128
    epochs: _Count = 2
    steps: _Count | None = None
    chunk_size: _Count | None = None
    precision: PrecisionChoice = "auto"
    seed: Seed = 0
    held_out: _CountOrZero = 128
    redirect_weight: _Weight | None = None
    spread_form: SpreadForm = "hinge"
    local_form: LocalForm = "pearson"
    supervision: Supervision = "tokens"
    neutralise: bool = True
    until: Until = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local_weight > 0 and self.batch_size <= self.neighbours + 1:
            raise SettingsError(
                f"batch_size is {self.batch_size} and neighbours is {self.neighbours}: local structure alignment needs "
                f"more than {self.neighbours + 1} prompts a batch. Raise batch_size, lower neighbours, or set "
                "local_weight to 0."
            )

    @property
    def redirect_share(self) -> float:
        """_Weight of the redirect and neutralise terms."""
        return 1 - self.keep_weight if self.redirect_weight is None else self.redirect_weight

    @property
    def shift(self) -> float:
        """Multiples of s by which targets are moved against the concept."""
        if self.target_shift is not None:
            return self.target_shift
        return 1.0 if self.target in ("farthest", "fitting") else 0.0


# The first three are published and hold nothing out. The paper's text and the authors' script disagree, and it is not
# known which of them made the released SAGE.pt:
# - paper: equations 3-9 of arXiv 2607.00402 with the pairs' cosines standardised, as its notes say.
# - released: the settings of the authors' training script.
# - des: DES, the same without the two structure terms.
# - sage_plus: ours.
# - own_concept: sage_plus for few pairs of one's own. Small batches with a firmer hold on safe prompts, which are few
#   and unlike other captions, and as many of them as the concept needs: its length follows from what the embeddings of
#   prompts that were kept out of training say, see `ruler`. Its name alone goes where other prompts go that name it,
#   not to the empty prompt: that shows what a model draws unasked, which may be the concept (in the world of shapes a
#   skull in 8 of 60 pictures). A colour, a pattern or another quality is led to what stands in its place in the pairs'
#   safe sides: prompts that only leave it may be drawn with it still. All else is led as in the paper, but by way of a
#   prompt that says nothing of it: the farthest safe prompt may say a half of it.
# - safeclip, safer_clip: the text side of SafeCLIP and SafeR-CLIP. Both train the image encoder, too, by contrastive
#   terms that SD 1.x has no use for; what is left is the redirection of the pooled text embedding to the paired, or
#   the nearest, safe prompt, and a hold on safe prompts of the same weight. They measure it after CLIP's projection,
#   which a checkpoint of SD 1.x does not hold; here it is before that. Steps and learning rate are the script's.
_SCRIPT = TrainingSettings(held_out=0)
_TEXT_SIDE = _SCRIPT.replace(
    keep_weight=0.5, spread_weight=0.0, local_weight=0.0, keep_concept=False, neutralise=False, supervision="pooled"
)
PRESETS: dict[str, TrainingSettings] = {
    "paper": _SCRIPT.replace(redirect_weight=1.0, spread_weight=0.5, local_weight=2.0, perturbation_unit="concept"),
    "des": _SCRIPT.replace(spread_weight=0.0, local_weight=0.0, concept_scale=200.0),
    "sage_plus": TrainingSettings(learning_rate=1e-4, keep_mse=20.0, epochs=4),
    "own_concept": TrainingSettings(
        learning_rate=3e-4, keep_mse=30.0, batch_size=32, epochs=4, until="removed", target="fitting", neutralise=False
    ),
    "released": _SCRIPT,
    "safeclip": _TEXT_SIDE.replace(target="paired"),
    "safer_clip": _TEXT_SIDE.replace(target="nearest"),
}


_OF_THE_RUN = ("seed", "precision", "chunk_size", "held_out")
# Of more than this the nearest preset would say little.
_MOST_CHANGED = 3


def preset_name(settings: TrainingSettings) -> str:
    """The preset whose objective `settings` has; the nearest and how much is changed; or "custom" where that is much.

    Seed, precision, chunk size and held-out prompts belong to a run, not to an objective, and are not compared.
    """
    own = settings.to_dict()
    changed = {
        name: sum(own[key] != value for key, value in preset.to_dict().items() if key not in _OF_THE_RUN)
        for name, preset in PRESETS.items()
    }
    nearest = min(changed, key=changed.__getitem__)
    if not (count := changed[nearest]):
        return nearest
    return f"{nearest}, {count} setting{'s' if count > 1 else ''} changed" if count <= _MOST_CHANGED else "custom"
