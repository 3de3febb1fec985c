"""Safe Latent Diffusion in ComfyUI's sampling: a MODEL whose guidance also leads away from a safety text.

The safety text goes to the guider as a third conditioning, so that ControlNets, masks and areas reach it as they reach
the others, and all three are predicted in one batch. ComfyUI's models give denoised pictures; the library turns them
into noise.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import node_helpers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...sage_core.drawing.guidance import SafeGuidance, SafeGuidanceSettings, step_of
from ...sage_core.errors import SettingsError
from . import display, models

# Entries of a conditioning that say nothing of where and when it counts.
_EVERYWHERE = {"cross_attn", "model_conds", "uuid", "pooled_output", "prompt_type"}


def guide_safely(
    model: comfy.model_patcher.ModelPatcher, safety: list, settings: SafeGuidanceSettings
) -> comfy.model_patcher.ModelPatcher:
    """A clone of `model` that any sampler with ordinary guidance draws with safely.

    Raises:
        SettingsError: the settings turn it off, or the safety text carries hooks.
        UnetError: the MODEL is a flow model.
    """
    if settings.scale <= 1:
        raise SettingsError(f"scale is {settings.scale:g}; at 1 or less nothing is guided. Raise it, or take it out.")
    models.require_added_noise(model)
    if any("hooks" in extras for _, extras in safety):
        raise SettingsError("safety carries hooks, which a guider does not expect there: encode it without them.")
    patched = model.clone()
    run = _Run(safety, settings, patched.model_options.get("sampler_calc_cond_batch_function"))
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, run.key, run.enter)
    patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, run.key, run.sample)
    patched.set_model_sampler_calc_cond_batch_function(run.predict)
    patched.set_model_sampler_pre_cfg_function(run.guide)
    return patched


def guider(
    model: comfy.model_patcher.ModelPatcher, positive: list, negative: list, cfg: float
) -> comfy.samplers.CFGGuider:
    """ComfyUI's ordinary guider, for SamplerCustomAdvanced."""
    found = comfy.samplers.CFGGuider(model)
    found.set_conds(positive, negative)
    found.set_cfg(cfg)
    return found


class _Run:
    """What one patched MODEL remembers between a sampler's steps; each run starts anew."""

    def __init__(self, safety: list, settings: SafeGuidanceSettings, previous: Any) -> None:
        self.key = f"sage_safety_{uuid.uuid4().hex}"
        self._given = node_helpers.conditioning_set_values(safety, {"prompt_type": "negative"})
        self._settings, self._previous = settings, previous
        self._end()

    def __deepcopy__(self, memo: dict) -> _Run:
        # Cloning a MODEL copies its options deeply but not its wrappers, and both must speak to one and the same.
        return self

    def _end(self) -> None:
        self._conds: list | None = None
        self._same = False
        self._guidance: SafeGuidance | None = None
        self._predicted: Tensor | None = None
        self._calls = 0

    def enter(self, executor: Any, *arguments: Any, **settings: Any) -> Any:
        """Around a whole run: hand the safety text to the guider before it prepares its conditionings."""
        executor.class_obj.conds[self.key] = comfy.sampler_helpers.convert_cond(self._given)
        try:
            return executor(*arguments, **settings)
        finally:
            self._end()

    def sample(self, executor: Any, guider: Any, sigmas: Tensor, *arguments: Any, **settings: Any) -> Any:
        """Around the sampler: take the prepared safety text back from the guider."""
        # Here too: a node behind this one may have made it another kind of model.
        models.require_added_noise(guider.model_patcher)
        self._conds = guider.conds[self.key]
        self._guidance = SafeGuidance(self._settings, len(sigmas) - 1)
        self._same = _equal(self._conds, guider.conds.get("negative"))
        if self._same:
            display.log.info("SAGE: safety is the negative prompt itself, so that this is ordinary guidance.")
        result = executor(guider, sigmas, *arguments, **settings)
        if not self._calls:
            raise SettingsError(
                f"{type(guider).__name__} does not ask the MODEL for prompt and negative prompt, so that safe guidance "
                "had no effect. Use KSampler, CFGGuider or SAGE Safe Guider."
            )
        return result

    def predict(self, arguments: Mapping[str, Any]) -> list[Tensor]:
        """In ComfyUI's place: prompt, negative prompt and safety text in one batch."""
        conds = list(arguments["conds"])
        if self._conds is None:
            raise SettingsError("Safe guidance runs in ComfyUI's own samplers alone: use KSampler or a guider.")
        self._calls += 1
        wanted = conds if self._same or conds[1] is None else [*conds, self._conds]
        if self._previous is None:
            model, sigma, options = (arguments[name] for name in ("model", "sigma", "model_options"))
            found = comfy.samplers.calc_cond_batch(model, wanted, arguments["input"], sigma, options)
        else:
            found = self._previous({**arguments, "conds": wanted})
        if len(found) != len(wanted):
            raise SettingsError(
                f"Another node's batch function gave {len(found)} predictions for {len(wanted)} conditionings: put "
                "SAGE Safe Guidance before that node."
            )
        self._predicted = found[len(conds)] if len(wanted) > len(conds) else None
        return list(found[: len(conds)])

    def guide(self, arguments: Mapping[str, Any]) -> list[Tensor]:
        """Before ordinary guidance: what takes the place of the prompt's prediction."""
        found, weight = list(arguments["conds_out"]), arguments["cond_scale"]
        options, sigma = arguments["model_options"], arguments["sigma"]
        if not self._settings.acts(weight):
            if self._calls == 1:
                raise SettingsError(
                    f"cfg is {weight:g}; safe guidance is a part of guidance and does nothing at 1 or less. Raise cfg, "
                    "or take the node out."
                )
            return found
        level = float(sigma.max())
        if self._predicted is None or self._guidance is None or level == 0:
            return found
        step = step_of(level, options["transformer_options"]["sample_sigmas"])
        found[0] = self._guidance.prompted_denoised(
            arguments["input"], sigma, found[0], found[1], self._predicted, step
        )
        return found


def _equal(one: list, other: list | None) -> bool:
    """Whether two prepared conditionings are the same text, everywhere and at all times."""
    if other is None or len(one) != 1 or len(other) != 1:
        return False
    if any(value is not None for cond in (one[0], other[0]) for key, value in cond.items() if key not in _EVERYWHERE
           and not _whole(key, value)):  # fmt: skip
        return False
    first, second = one[0]["cross_attn"], other[0]["cross_attn"]
    return first.shape == second.shape and torch.equal(first, second)


def _whole(key: str, value: Any) -> bool:
    return (key == "strength" and value == 1) or (key in ("start_percent", "end_percent") and value == (key[0] == "e"))
