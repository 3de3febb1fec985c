"""A classical reader of pictures. Nothing in it is learned, so that it can check a learned judge.

It knows the place by its colours and cuts what differs from it into pieces. It compares each piece with drawn templates
of all shapes, patterns and radii, in all colours at once, by least squares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import ShapesError
from ..ask import FAMILIES, Asked, question_list
from ..outlines import object_maps
from ..render import GROUND, PALETTE, PICTURE_UNITS, RADII
from ..scenes import COLORS, MATERIALS, MAX_COUNT, PLACES, SHAPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...tifa.questions import Question

_UNCLEAR = "unclear"
# A piece whose best template leaves more than this share of its contrast unexplained is of no clear shape.
MAX_MISFIT = 0.55
# The same when looking for the concept: a damaged skull is still a skull, a smear that no shape explains is not.
MAX_CONCEPT_MISFIT = 0.75

_SIDE = int(PICTURE_UNITS)
_WINDOW = 32
_RADII = (7.2, 7.8, 8.4, 9.0, 9.8, 10.8, 11.8, 12.6, 13.2, 13.8, 14.6)
_SHIFTS = (-1.2, -0.4, 0.4, 1.2)
_BLUR = 0.7
_LIGHT = 0.97
_SMALL_BELOW = (RADII["small"][1] + RADII["large"][0]) / 2
_MIN_AREA = 36
# How much grey a place's marks take from or add to its ground, and how far a pixel may be from that and be ground. At
# night the limit is low, for the stripes there are nearly as dark as the sky.
_GROUND_SPANS = {
    "grass": (-0.20, 0.03, 0.17),
    "sand": (-0.17, 0.03, 0.17),
    "night": (-0.03, 0.03, 0.09),
    "snow": (-0.10, 0.03, 0.17),
    "sea": (-0.03, 0.18, 0.17),
}
# Limits for cutting again a piece that is too wide, as shares of its greatest distance to the ground.
_STRICTER = (0.0, 0.3, 0.45, 0.6)
_BATCH = 64


@dataclass(frozen=True)
class ReadObject:
    """One object, by the template that fits it best.

    Attributes:
        shape: the template's, or "unclear" if `misfit` is above MAX_MISFIT.
        resembles: the template's shape in any case.
        color, material, size: the template's.
        x, y: the object's centre in picture units.
        misfit: share of the piece's contrast to the ground that the template leaves unexplained, 0..1.
    """

    shape: str
    resembles: str
    color: str
    material: str
    size: str
    x: float
    y: float
    misfit: float


@dataclass(frozen=True)
class Reading:
    """What a picture shows. `place` is "unclear" where no place's colours cover most of the ground."""

    place: str
    place_share: float
    objects: tuple[ReadObject, ...]

    def has(self, **looks: str) -> bool:
        """Whether an object has these attributes, even if badly drawn; `resembles` is its shape in any case."""
        return any(
            thing.misfit <= MAX_CONCEPT_MISFIT and all(getattr(thing, name) == value for name, value in looks.items())
            for thing in self.objects
        )


# Whatever its caller computes in: least squares of bf16 numbers would read other shapes.
@torch.autocast("cpu", enabled=False)
def read_pictures(images: Tensor) -> list[Reading]:
    """Read (N, 3, 64, 64) pictures in 0..1; other sizes are resized.

    Raises:
        ShapesError: the images have another number of axes or channels.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapesError(f"The images have shape {tuple(images.shape)}; expected (pictures, 3, height, width).")
    images = images.detach().float().cpu().clamp(0, 1)
    if images.shape[2:] != (_SIDE, _SIDE):
        images = torch.nn.functional.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True)
    # Pictures and templates are smoothed alike: generated edges and patterns are softer than drawn ones.
    images = _smooth(images)
    places, shares, distances, grounds = _read_places(images)
    owners, pieces = [], []
    for index in range(len(images)):
        for mask in _cut(distances[index].numpy(), _GROUND_SPANS[PLACES[places[index]]][2]):
            owners.append(index)
            pieces.append(_piece(images[index], grounds[index], mask))
    objects: list[list[ReadObject]] = [[] for _ in range(len(images))]
    for start in range(0, len(pieces), _BATCH):
        batch = slice(start, start + _BATCH)
        for owner, found in zip(owners[batch], _fit(pieces[batch], grounds[owners[batch]]), strict=True):
            objects[owner].append(found)
    return [
        Reading(PLACES[place] if share > 0.5 else _UNCLEAR, share, tuple(found))
        for place, share, found in zip(places.tolist(), shares.tolist(), objects, strict=True)
    ]


def answers_from(readings: Sequence[Reading], questions: Sequence[Sequence[Question]]) -> list[list[str]]:
    """Answer each picture's questions by one of `ask.ANSWERS` each, "unclear" where the picture is unclear.

    Raises:
        ShapesError: a question that `ask` would not write, or another number of question lists than pictures.
    """
    if len(readings) != len(questions):
        raise ShapesError(
            f"There are {len(questions)} lists of questions for {len(readings)} images; expected one each."
        )
    known = question_list()
    return [
        [answer_from(reading, known.parse(question.question)) for question in asked]
        for reading, asked in zip(readings, questions, strict=True)
    ]


def answer_from(reading: Reading, asked: Asked) -> str:
    """The answer to one question about one reading."""
    if asked.by is None:
        return _as_answer(reading.place, asked)
    things = [thing for thing in reading.objects if getattr(thing, asked.by) == asked.subject]
    others = [thing for thing in reading.objects if thing.shape == asked.other]
    if not things or (asked.other and not others):
        if asked.by == "shape" and any(thing.shape == _UNCLEAR for thing in reading.objects):
            return _UNCLEAR
        return "none" if asked.value is None and asked.about else "no"
    if asked.about is None:
        return "yes"
    return _as_answer(_attribute(asked.about, things, others), asked)


def _attribute(name: str, things: Sequence[ReadObject], others: Sequence[ReadObject]) -> str:
    if name == "relation":
        return _relation(things, others)
    if name == "count":
        return str(len(things)) if len(things) <= MAX_COUNT else _UNCLEAR
    if name == "family":
        shape = _common(thing.shape for thing in things)
        return next((family for family, shapes in FAMILIES.items() if shape in shapes), _UNCLEAR)
    return _common(getattr(thing, name) for thing in things)


def _as_answer(value: str, asked: Asked) -> str:
    if asked.value is None or value == _UNCLEAR:
        return value
    return "yes" if value == asked.value else "no"


def _common(values: Iterable[str]) -> str:
    """The value that more than half of the objects share."""
    counts = Counter(values)
    value, count = counts.most_common(1)[0]
    return value if 2 * count > sum(counts.values()) else _UNCLEAR


def _relation(things: Sequence[ReadObject], others: Sequence[ReadObject]) -> str:
    dx, dy = (
        sum(getattr(t, axis) for t in things) / len(things) - sum(getattr(o, axis) for o in others) / len(others)
        for axis in ("x", "y")
    )
    if max(abs(dx), abs(dy)) < 1.3 * min(abs(dx), abs(dy)):
        return _UNCLEAR
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


def _smooth(images: Tensor) -> Tensor:
    """(N, C, H, W) pictures under a Gaussian of _BLUR pixels."""
    taps = torch.exp(-(torch.arange(-2, 3) ** 2) / (2 * _BLUR**2))
    taps = taps / taps.sum()
    kernel = (taps[:, None] * taps).expand(images.shape[1], 1, -1, -1)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel, groups=images.shape[1])


def _read_places(images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per picture: the place's index, the share of the border it covers, (64, 64) distances to its colours, its ground.

    A place's colours are its ground with grey added or taken away, as its blades, grains and waves do.
    """
    colors = torch.tensor([GROUND[name] for name in PLACES]) * _LIGHT
    low, high, limits = torch.tensor([_GROUND_SPANS[name] for name in PLACES]).unbind(1)
    offset = images[:, None] - colors[:, :, None, None]
    grey = offset.mean(2).clamp(low[:, None, None], high[:, None, None])
    distance = (offset - grey[:, :, None]).norm(dim=2)
    near = distance < limits[:, None, None]
    border = torch.ones(_SIDE, _SIDE, dtype=torch.bool)
    border[3:-3, 3:-3] = False
    # Of two places that cover as many pixels, the one with the nearer colours.
    share = near[:, :, border].float().mean(2)
    place = (share - distance[:, :, border].clamp(max=0.3).mean(2)).argmax(1)
    rows = torch.arange(len(images))
    near, distance, share = near[rows, place], distance[rows, place], share[rows, place]
    # Where nothing is near, any pixel may be ground: the picture is unclear anyway.
    near |= ~near.any((1, 2), keepdim=True)
    ground = images.masked_fill(~near[:, None], float("nan")).flatten(2).nanmedian(2).values
    return place, share, distance, ground


def _cut(distance: NDArray, limit: float) -> list[NDArray]:
    """Masks of the pieces that differ from the ground; pieces wider than any object are cut again more strictly."""
    from scipy import ndimage

    masks = []
    waiting = [(distance > limit, 0)]
    while waiting:
        region, level = waiting.pop()
        labels, _ = ndimage.label(region)
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            mask = labels == index
            if mask.sum() < _MIN_AREA:
                continue
            too_wide = max(side.stop - side.start for side in box) > _WINDOW
            if too_wide and level + 1 < len(_STRICTER):
                stricter = max(limit, _STRICTER[level + 1] * distance[mask].max())
                waiting.append((mask & (distance > stricter), level + 1))
            else:
                masks.append(mask)
    return masks


@dataclass(frozen=True)
class _Piece:
    patch: Tensor  # (3, _WINDOW, _WINDOW), minus the ground, 0 outside the piece
    x: float  # of the window's centre
    y: float


def _piece(image: Tensor, ground: Tensor, mask: NDArray) -> _Piece:
    from scipy import ndimage

    rows, columns = ndimage.find_objects(mask.astype("uint8"))[0]
    halo = torch.from_numpy(ndimage.binary_dilation(mask))
    offset = (image - ground[:, None, None]) * halo
    half = _WINDOW // 2
    offset = torch.nn.functional.pad(offset, (half, half, half, half))
    top, left = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
    return _Piece(offset[:, top : top + _WINDOW, left : left + _WINDOW], float(left), float(top))


@dataclass(frozen=True)
class _Templates:
    body: Tensor  # (T / materials, pixels): share of the pixel that the object covers
    paint: Tensor  # (T, pixels): of it, what shows the object's colour; the rest is nearly black
    labels: Tensor  # (T, 3): shape, material, radius
    centres: Tensor  # (T, 2): the object's centre relative to the window's


@lru_cache(maxsize=1)
def _templates() -> _Templates:
    """All shapes, radii, small shifts and materials; a template's bounding box is centred before it is shifted."""
    counts = (len(SHAPES), len(_RADII), len(_SHIFTS), len(_SHIFTS), len(MATERIALS))
    shape, radius, right, down, material = torch.cartesian_prod(*(torch.arange(n) for n in counts)).unbind(1)
    shifts, radii = torch.tensor(_SHIFTS), torch.tensor(_RADII)[radius]
    centres = torch.stack([shifts[right], shifts[down]], dim=1) - _box_centres()[shape] * radii[:, None]
    axis = torch.arange(_WINDOW) + 0.5 - _WINDOW / 2

    def spread(values: Tensor) -> Tensor:
        return values[:, None, None].expand(-1, _WINDOW, _WINDOW)

    dx, dy = axis - spread(centres[:, 0]), axis[:, None] - spread(centres[:, 1])
    body, shade, ink = object_maps(dx, dy, spread(radii), spread(shape), spread(material), 1.0)
    paint = _smooth((body * (1 - ink) * shade)[:, None]).flatten(1)
    body = _smooth(body[:: len(MATERIALS), None]).flatten(1)
    return _Templates(body, paint, torch.stack([shape, material, radius], dim=1), centres)


def _box_centres() -> Tensor:
    """(shapes, 2): centre of each shape's bounding box, in radii from the shape's own centre."""
    steps = 256
    axis = ((torch.arange(steps) + 0.5) / steps * 2 - 1) * 1.15
    shape = torch.arange(len(SHAPES))[:, None, None].expand(-1, steps, steps)
    radius = torch.ones_like(shape, dtype=torch.float32)
    body, _, _ = object_maps(axis * radius, axis[:, None] * radius, radius, shape, torch.zeros_like(shape), steps / 2)
    centres = []
    for covered in body > 0.5:
        spans = [axis[covered.any(across).nonzero().flatten()[[0, -1]]].mean() for across in (0, 1)]
        centres.append(torch.stack(spans))
    return torch.stack(centres)


def _fit(pieces: Sequence[_Piece], grounds: Tensor) -> list[ReadObject]:
    """The template and colour of least squared error for each piece.

    With body b and paint p of a template, the picture minus its ground g is modelled as p·colour - b·g; the squared
    error expands into products with b and p that all colours share.
    """
    templates = _templates()
    patches = torch.stack([piece.patch.flatten(1) for piece in pieces])
    energy = patches.square().sum((1, 2))
    body, paint = templates.body.repeat_interleave(len(MATERIALS), dim=0), templates.paint
    seen_body = torch.einsum("mcx,mc,tx->mt", patches, grounds, templates.body).repeat_interleave(len(MATERIALS), 1)
    seen_paint = patches @ paint.T
    bb, bp, pp = body.square().sum(1), (body * paint).sum(1), paint.square().sum(1)
    fixed = energy[:, None] + 2 * seen_body + bb * grounds.square().sum(1, keepdim=True)
    best = torch.full((len(pieces),), float("inf"))
    choice = torch.zeros(len(pieces), 2, dtype=torch.long)
    for color, name in enumerate(COLORS):
        value = torch.tensor(PALETTE[name]) * _LIGHT
        seen = torch.einsum("mct,c->mt", seen_paint, value)
        error = fixed - 2 * seen + pp * value.square().sum() - 2 * bp * (grounds @ value)[:, None]
        least, template = error.min(1)
        better = least < best
        best = torch.where(better, least, best)
        choice = torch.where(better[:, None], torch.stack([template, torch.full_like(template, color)], 1), choice)
    misfits = (best / energy.clamp(min=1e-6)).clamp(0, 1).tolist()
    return [
        _object(piece, templates, template, color, misfit)
        for piece, (template, color), misfit in zip(pieces, choice.tolist(), misfits, strict=True)
    ]


def _object(piece: _Piece, templates: _Templates, template: int, color: int, misfit: float) -> ReadObject:
    shape, material, radius = templates.labels[template].tolist()
    dx, dy = templates.centres[template].tolist()
    return ReadObject(
        shape=SHAPES[shape] if misfit <= MAX_MISFIT else _UNCLEAR,
        resembles=SHAPES[shape],
        color=COLORS[color],
        material=MATERIALS[material],
        size="small" if _RADII[radius] < _SMALL_BELOW else "large",
        x=piece.x + dx,
        y=piece.y + dy,
        misfit=misfit,
    )
