"""Pictures: what is drawn is what the scene says, seen with means other than the renderer's."""

from __future__ import annotations

import math

import pytest
import torch

from sage_core.shapes.outlines import object_maps
from sage_core.shapes.render import GROUND, PALETTE, RADII, render
from sage_core.shapes.scenes import COLORS, MATERIALS, PLACES, SHAPES, SIZES, Scenes, sample_scenes


def scene_of(*groups: tuple[str, str, str, int, str], place: str = "night", relation: int = 0) -> Scenes:
    rows = [
        (SHAPES.index(shape), COLORS.index(color), MATERIALS.index(material), count, SIZES.index(size))
        for shape, color, material, count, size in groups
    ]
    rows += [(0, 0, 0, 0, 0)] * (2 - len(rows))
    columns = (torch.tensor([column]) for column in zip(*rows, strict=True))
    ahead = (torch.tensor([PLACES.index(place)]), torch.tensor([len(groups)]), torch.tensor([relation]))
    return Scenes(*ahead, *columns)


def color_mask(picture: torch.Tensor, color: str) -> torch.Tensor:
    return (picture - torch.tensor(PALETTE[color])[:, None, None]).norm(dim=0) < 0.2


def test_a_seed_decides_the_pictures():
    scenes = sample_scenes(20, seed=1, unsafe=None)
    first = render(scenes, seed=5)
    torch.manual_seed(3)
    assert first.shape == (20, 3, 64, 64) and first.dtype == torch.float32
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, render(scenes, seed=5))
    assert (first - render(scenes, seed=6)).abs().amax((1, 2, 3)).min() > 0.1
    assert render(scenes[:0], seed=0).shape == (0, 3, 64, 64)


def test_objects_are_apart_and_inside():
    """Counts pieces and looks at the frame, on plain shapes over sand, whose marks are fainter than any shape."""
    ndimage = pytest.importorskip("scipy.ndimage")
    scenes = sample_scenes(600, seed=2, unsafe=None, split="any")
    scenes = scenes[(scenes.material == 0).all(1) & (scenes.shape != SHAPES.index("skull")).all(1)]
    scenes.place.fill_(PLACES.index("sand"))
    # Yellow would be close to the sand.
    scenes = scenes[(scenes.color != COLORS.index("yellow")).all(1)]
    assert len(scenes) > 60
    pictures = render(scenes, seed=3)
    differs = (pictures - 0.97 * torch.tensor(GROUND["sand"])[:, None, None]).norm(dim=1) > 0.3
    for row, mask in enumerate(differs):
        labels, _ = ndimage.label(mask, structure=torch.ones(3, 3))
        pieces = (torch.bincount(torch.from_numpy(labels).flatten().long())[1:] > 15).sum()
        assert pieces == scenes.count[row].sum()
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()


@pytest.mark.parametrize("relation", [0, 1])
def test_the_first_group_lies_left_or_above(relation):
    scene = scene_of(("star", "red", "plain", 2, "large"), ("ring", "white", "plain", 3, "small"), relation=relation)
    for seed in range(5):
        picture = render(scene, seed=seed)[0]
        centres = [color_mask(picture, color).nonzero().float().mean(0) for color in ("red", "white")]
        down, right = (centres[1] - centres[0]).tolist()
        assert (right, down)[relation] > 25 and abs((down, right)[relation]) < 10


def test_sizes_and_counts_show_in_the_area():
    area = {
        (size, count): color_mask(render(scene_of(("square", "red", "plain", count, size)), seed=1)[0], "red").sum()
        for size in SIZES
        for count in (1, 4)
    }
    assert area["large", 1] > 2 * area["small", 1]
    assert area["large", 4] > 3.5 * area["large", 1] and area["small", 4] > 3.5 * area["small", 1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_patterns_are_bold(shape, size):
    """A visible share of each patterned object is much darker, and stripes differ from dots."""
    pictures = {
        material: render(scene_of((shape, "yellow", material, 1, size), place="snow"), seed=7)[0]
        for material in MATERIALS
    }
    body = (pictures["plain"] - pictures["plain"][:, :1, :1]).norm(dim=0) > 0.5
    assert body.sum() > 60
    shares = {
        material: ((pictures["plain"] - picture).norm(dim=0)[body] > 0.5).float().mean().item()
        for material, picture in pictures.items()
    }
    assert shares["plain"] == 0 and 0.2 < shares["striped"] < 0.6 and 0.1 < shares["dotted"] < 0.5
    assert (pictures["striped"] - pictures["dotted"]).norm(dim=0)[body].mean() > 0.12


def test_places_look_different():
    pictures = torch.stack(
        [render(scene_of(("star", "red", "plain", 1, "small"), place=place), seed=1)[0] for place in PLACES]
    )
    means = pictures.mean((2, 3))
    assert (torch.cdist(means, means) + torch.eye(len(PLACES))).min() > 0.2


def test_a_larger_picture_shows_the_same():
    scenes = sample_scenes(30, seed=4, unsafe=None)
    small = render(scenes, seed=9)
    large = torch.nn.functional.avg_pool2d(render(scenes, seed=9, size=128), 2)
    assert (small - large).abs().mean() < 0.03


def test_plain_shapes_have_their_geometric_area():
    radius = 60.0
    axis = torch.arange(160) + 0.5 - 80
    star = [
        ((1.05, 0.46)[i % 2] * math.sin(math.pi * i / 5), (1.05, 0.46)[i % 2] * math.cos(math.pi * i / 5))
        for i in range(10)
    ]
    shoelace = sum(ax * by - bx * ay for (ax, ay), (bx, by) in zip(star, star[1:] + star[:1], strict=True)) / 2
    areas = {
        "circle": math.pi * 0.97**2,
        "square": (2 * 0.84) ** 2,
        "triangle": 2 * 1.8 / 2,
        "star": abs(shoelace),
        "cross": 2 * (1.92 * 0.74) - 0.74**2,
        "ring": math.pi * (0.98**2 - 0.48**2),
        "diamond": 2 * 0.8,
    }
    for name, area in areas.items():
        grid = torch.zeros(160, 160)
        body, shade, ink = object_maps(
            axis + grid, axis[:, None] + grid, grid + radius, grid.long() + SHAPES.index(name), grid.long(), 1.0
        )
        assert body.sum().item() == pytest.approx(area * radius**2, rel=0.01), name
        assert (shade == 1).all() and (ink == 0).all()


def test_radii_leave_no_doubt_between_sizes():
    assert RADII["large"][0] > 1.4 * RADII["small"][1]
