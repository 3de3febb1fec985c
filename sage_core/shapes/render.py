"""Drawing scenes: every pixel finds its nearest object and looks up that object's outline, pattern and colour."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from .outlines import object_maps
from .scenes import COLORS, MAX_COUNT, PLACES, SIZES, Scenes

# Lengths below are in units of 1/64 of the picture's side: pixels at the default size.
PICTURE_UNITS = 64.0

PALETTE = {
    "red": (0.90, 0.12, 0.12),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (1.00, 0.90, 0.15),
    "green": (0.05, 0.55, 0.15),
    "blue": (0.15, 0.30, 1.00),
    "purple": (0.58, 0.16, 0.78),
    "pink": (1.00, 0.58, 0.80),
    "white": (0.98, 0.98, 0.98),
}
GROUND = {
    "grass": (0.50, 0.78, 0.34),
    "sand": (0.84, 0.70, 0.44),
    "night": (0.06, 0.06, 0.17),
    "snow": (0.88, 0.93, 0.99),
    "sea": (0.10, 0.55, 0.68),
}
# Eyes, nose and teeth of the skull.
INK = (0.03, 0.03, 0.03)

RADII = {"small": (8.0, 8.8), "large": (13.0, 14.0)}
_MARGIN = 0.75
_MAX_JITTER = 4.0
_CHUNK = 2048


def render(scenes: Scenes, *, seed: int, size: int = 64) -> Tensor:
    """Draw the scenes: float32 (N, 3, size, size) in 0..1, on the scenes' device.

    Positions, radii and brightness vary with `seed`; the same seed, batch and device give the same pictures. Objects
    never overlap or leave the frame. Edges are antialiased.
    """
    return render_with_groups(scenes, seed=seed, size=size)[0]


def render_with_groups(scenes: Scenes, *, seed: int, size: int = 64) -> tuple[Tensor, Tensor]:
    """The pictures of `render`, and the group that each pixel shows: int8 (N, size, size), 0 or 1, -1 for ground."""
    generator = torch.Generator(scenes.device).manual_seed(seed)
    chunks = [_render(scenes[start : start + _CHUNK], generator, size) for start in range(0, len(scenes), _CHUNK)]
    if not chunks:
        return torch.zeros(0, 3, size, size, device=scenes.device), torch.zeros(0, size, size, dtype=torch.int8)
    pictures, groups = zip(*chunks, strict=True)
    return torch.cat(pictures), torch.cat(groups)


def _render(scenes: Scenes, generator: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    device = scenes.device
    x, y, radius = _place_objects(scenes, generator)
    axis = (torch.arange(size, device=device) + 0.5) * (PICTURE_UNITS / size)
    # Objects lie in disjoint squares: only the nearest one by this distance can colour a pixel.
    distance = torch.maximum((axis - x[..., None]).abs()[:, :, None, :], (axis - y[..., None]).abs()[:, :, :, None])
    nearest = (distance - radius[..., None, None]).argmin(1)

    def of_nearest(values: Tensor) -> Tensor:
        return values.gather(1, nearest.flatten(1)).view_as(nearest)

    dx, dy, r = axis - of_nearest(x), axis[:, None] - of_nearest(y), of_nearest(radius)
    group = nearest // MAX_COUNT
    shape, color, material = (
        column.gather(1, group.flatten(1)).view_as(group) for column in (scenes.shape, scenes.color, scenes.material)
    )
    body, shade, ink = object_maps(dx, dy, r, shape, material, size / PICTURE_UNITS)
    paint = torch.tensor([PALETTE[name] for name in COLORS], device=device)[color] * shade[..., None]
    paint = torch.lerp(paint, torch.tensor(INK, device=device), ink[..., None])
    light = 0.94 + 0.06 * torch.rand(len(scenes), 1, 1, 1, device=device, generator=generator)
    ground = _ground(scenes, size)
    pictures = (torch.lerp(ground, paint, body[..., None]) * light).permute(0, 3, 1, 2).clamp(0, 1).contiguous()
    return pictures, torch.where(body > 0.5, group, -1).to(torch.int8)


def _place_objects(scenes: Scenes, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Centres and radii, each (N, 2·MAX_COUNT), first group first; objects that do not exist lie far outside."""
    device, n = scenes.device, len(scenes)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, device=device, generator=generator)

    limits = torch.tensor([RADII[name] for name in SIZES], device=device)[scenes.size]
    radius = torch.lerp(limits[..., 0], limits[..., 1], uniform(2))[:, :, None].expand(n, 2, MAX_COUNT)
    along, across, room_along, room_across = (table[scenes.groups - 1] for table in _layout(device))
    pick = scenes.count[..., None, None].clamp(min=1) - 1
    along, across, room_along, room_across = (
        table.gather(2, pick.expand(n, 2, 1, MAX_COUNT))[:, :, 0] for table in (along, across, room_along, room_across)
    )
    along, across = (
        centre + (2 * uniform(2, MAX_COUNT) - 1) * (room - radius - _MARGIN).clamp(0, _MAX_JITTER)
        for centre, room in ((along, room_along), (across, room_across))
    )
    # A lone group may be turned either way; for two groups the relation decides.
    upright = torch.where(scenes.groups == 1, uniform() < 0.5, scenes.relation == 1)[:, None, None]
    x, y = torch.where(upright, across, along), torch.where(upright, along, across)
    missing = torch.arange(MAX_COUNT, device=device) >= scenes.count[..., None]
    x, y = x.masked_fill(missing, -1e3), y.masked_fill(missing, -1e3)
    return x.flatten(1), y.flatten(1), radius.flatten(1)


@lru_cache(maxsize=4)
def _layout(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cell centres and half-widths by [groups - 1, group, count - 1, object], along and across the groups' axis."""
    along, across = torch.full((2, 2, MAX_COUNT, MAX_COUNT), 32.0), torch.full((2, 2, MAX_COUNT, MAX_COUNT), 32.0)
    room_along, room_across = torch.full_like(along, 16.0), torch.full_like(along, 16.0)
    room_along[0, :, 0], room_across[0, :, 0] = 32.0, 32.0
    lone = {2: ((16, 32), (48, 32)), 3: ((16, 16), (16, 48), (48, 32)), 4: ((16, 16), (16, 48), (48, 16), (48, 48))}
    for count, cells in lone.items():
        for slot, (a, b) in enumerate(cells):
            along[0, :, count - 1, slot], across[0, :, count - 1, slot] = a, b
    along[1] = torch.tensor([16.0, 48.0])[:, None, None]
    for count in range(1, MAX_COUNT + 1):
        width = PICTURE_UNITS / count
        across[1, :, count - 1] = (torch.arange(MAX_COUNT) + 0.5) * width
        room_across[1, :, count - 1] = width / 2
    return along.to(device), across.to(device), room_along.to(device), room_across.to(device)


def _ground(scenes: Scenes, size: int) -> Tensor:
    """Each place's ground, (N, size, size, 3); always the same, so that a small autoencoder can learn it by heart."""
    return _ground_tiles(size).to(scenes.device)[scenes.place]


@lru_cache(maxsize=4)
def _ground_tiles(size: int) -> Tensor:
    """The grounds with their blades, grains, stars, drifts and waves, (places, size, size, 3)."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = axis[:, None].expand(size, size), axis.expand(size, size)
    marks = {
        "grass": 0.16 * -_flecks(x, y, 22, width=0.9, height=2.6, seed=1),
        "sand": 0.14 * -_flecks(x, y, 26, width=1.1, height=1.1, seed=2),
        "night": 0.55 * _flecks(x, y, 9, width=0.9, height=0.9, seed=3),
        "snow": -0.06 * (0.5 + 0.5 * torch.sin(2 * math.pi * (2 * y + 0.12 * torch.sin(2 * math.pi * x)))),
        "sea": 0.14 * torch.sin(2 * math.pi * (6 * y + 0.25 * torch.sin(4 * math.pi * x))).clamp(min=0),
    }
    return torch.stack([(torch.tensor(GROUND[name]) + marks[name][..., None]).clamp(0, 1) for name in PLACES])


def _flecks(x: Tensor, y: Tensor, count: int, *, width: float, height: float, seed: int) -> Tensor:
    """Soft oval flecks of half-axes `width` and `height` at fixed places of a unit tile that wraps around."""
    centres = torch.rand(count, 2, 1, 1, generator=torch.Generator().manual_seed(seed))
    dx, dy = ((torch.remainder(d + 0.5, 1) - 0.5) * PICTURE_UNITS for d in (x - centres[:, 0], y - centres[:, 1]))
    return (1.5 - torch.hypot(dx / width, dy / height)).clamp(0, 1).amax(0)
