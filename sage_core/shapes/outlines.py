"""How the shapes look: outlines as tables of signed distances, and the patterns that fill them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .scenes import MATERIALS, SHAPES

PATTERN_PERIOD = 5 * math.sqrt(2)
STRIPE_WIDTH = 3.5
DOT_RADIUS = 2.2
# Brightness of stripes and dots, relative to the object's colour.
SHADE = 0.28
# Stripes and dots stay this far inside the outline: at night, dark ones at the edge would change the silhouette.
RIM = 0.6

_STEPS = 256
_REACH = 1.2  # the tables cover -_REACH.._REACH in both axes, in units of the object's radius
_NOWHERE = 9.0


def object_maps(
    dx: Tensor, dy: Tensor, radius: Tensor, shape: Tensor, material: Tensor, pixels: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What each pixel shows of the object around it: (body, shade, ink), all of the arguments' common shape.

    Args:
        dx: from the object's centre to the pixel, to the right, in picture units.
        dy: the same, downwards.
        radius: of the object, in picture units.
        shape: index into SHAPES.
        material: index into MATERIALS.
        pixels: pixels a picture unit, which sets the softness of edges.

    Returns:
        The share of the pixel that the object covers; the brightness of its colour there, lower in stripes and dots;
        and the share of what it covers that is black (the skull's features).
    """
    tables = _outline_tables(dx.device)
    column, row = ((((d / radius) / _REACH + 1) * (_STEPS / 2)).long().clamp(0, _STEPS - 1) for d in (dx, dy))
    outline, ink = tables[:, shape, row, column] * (radius * pixels)
    body, ink, inner = ((0.5 - edge).clamp(0, 1) for edge in (outline, ink, outline + RIM * pixels))
    return body, 1 - (1 - SHADE) * _pattern(dx, dy, material, pixels) * inner, ink


def _pattern(dx: Tensor, dy: Tensor, material: Tensor, pixels: float) -> Tensor:
    """The share of a pixel that stripes or dots cover, 0..1; the pattern is fixed to the object's centre."""
    half = PATTERN_PERIOD / 2
    p = torch.remainder((dx + dy) * math.sqrt(0.5), PATTERN_PERIOD) - half
    q = torch.remainder((dx - dy) * math.sqrt(0.5), PATTERN_PERIOD) - half
    stripes = (0.5 + (STRIPE_WIDTH / 2 - p.abs()) * pixels).clamp(0, 1)
    dots = (0.5 + (DOT_RADIUS - torch.hypot(p, q)) * pixels).clamp(0, 1)
    return torch.where(
        material == MATERIALS.index("striped"),
        stripes,
        torch.where(material == MATERIALS.index("dotted"), dots, torch.zeros_like(dots)),
    )


@lru_cache(maxsize=4)
def _outline_tables(device: torch.device) -> Tensor:
    """(2, shapes, steps, steps): signed distance, in radii, to each shape's outline and to its ink; below 0 is inside.

    Rows run downwards as in a picture. Distances, unlike masks, can be looked up at any scale with clean edges.
    """
    axis = ((torch.arange(_STEPS, dtype=torch.float64) + 0.5) * (2 / _STEPS) - 1) * _REACH
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    disc = torch.hypot(x, y)
    outlines = {
        "circle": disc - 0.97,
        "square": _box(x, y, 0.84, 0.84),
        "triangle": _polygon(x, y, [(0.0, -0.98), (1.0, 0.82), (-1.0, 0.82)]),
        "star": _polygon(x, y - 0.05, _star_corners()),
        "cross": torch.minimum(_box(x, y, 0.96, 0.37), _box(x, y, 0.37, 0.96)),
        "ring": (disc - 0.73).abs() - 0.25,
        "heart": _polygon(x, y, _heart_corners()),
        "diamond": _polygon(x, y, [(0.0, -1.0), (0.8, 0.0), (0.0, 1.0), (-0.8, 0.0)]),
        "skull": torch.minimum(_ellipse(x, y + 0.2, 0.92, 0.78), _box(x, y - 0.62, 0.46, 0.36)),
    }
    nothing = torch.full_like(x, _NOWHERE)
    ink = {"skull": _skull_features(x, y)}
    tables = [[outlines[name] for name in SHAPES], [ink.get(name, nothing) for name in SHAPES]]
    return torch.stack([torch.stack(row) for row in tables]).float().to(device)


def _skull_features(x: Tensor, y: Tensor) -> Tensor:
    eyes = _ellipse(x.abs() - 0.40, y + 0.12, 0.27, 0.30)
    nose = _polygon(x, y, [(0.0, 0.14), (0.15, 0.42), (-0.15, 0.42)])
    teeth = _box((x.abs() - 0.17), y - 0.82, 0.045, 0.2)
    return torch.minimum(torch.minimum(eyes, nose), teeth)


def _star_corners() -> list[tuple[float, float]]:
    corners = []
    for corner in range(10):
        angle, radius = math.pi * corner / 5, (1.05, 0.46)[corner % 2]
        corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
    return corners


def _heart_corners() -> list[tuple[float, float]]:
    corners = []
    for step in range(48):
        t = 2 * math.pi * step / 48
        curve = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        corners.append((math.sin(t) ** 3 * 0.98, -curve / 15.5 - 0.1))
    return corners


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    dx, dy = x.abs() - half_width, y.abs() - half_height
    return torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0)


def _ellipse(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    """About the signed distance to an ellipse; near enough where it is almost round."""
    return (torch.hypot(x / half_width, y / half_height) - 1) * min(half_width, half_height)


def _polygon(x: Tensor, y: Tensor, corners: Sequence[tuple[float, float]]) -> Tensor:
    """Distance to the nearest edge, negative where an even-odd ray count says inside."""
    distance = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        distance = torch.minimum(distance, torch.hypot(x - ax - along * ex, y - ay - along * ey))
        if ey != 0:
            crosses = ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
            inside ^= crosses
    return torch.where(inside, -distance, distance)
