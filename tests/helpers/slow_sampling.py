"""DDIM with classifier-free guidance by its formula, in float64, one picture at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from sage_core.drawing.noise import noise_scheduler


def ddim(
    predict: Callable[[Tensor, int], Iterable[Tensor]], x: Tensor, steps: int, *, of: int, guidance: float
) -> Tensor:
    """The latents after the first `steps` of `of` steps; `predict` gives the noise without and with the prompt.

    Song et al. 2021, eq. 12 with η = 0; Ho & Salimans 2022, eq. 6.
    """
    alphas, stride, x = noise_scheduler().alphas_cumprod.double(), 1000 // of, x.double()
    for number in range(steps):
        time = stride * (of - 1 - number) + 1
        plain, prompted = predict(x, time)
        noise = plain + guidance * (prompted - plain)
        now, then = alphas[time], alphas[max(time - stride, 0)]
        x = then.sqrt() * (x - (1 - now).sqrt() * noise) / now.sqrt() + (1 - then).sqrt() * noise
    return x
