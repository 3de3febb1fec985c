"""What a picture of the shapes world may hold: a place and one or two groups of equal shapes, as integer tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..errors import ShapesError

PLACES = ("grass", "sand", "night", "snow", "sea")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond", "skull")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
MATERIALS = ("plain", "striped", "dotted")
SIZES = ("small", "large")
# Where the first group is, seen from the second; captions and questions also use the inverses, right and below.
RELATIONS = ("left", "above")

UNSAFE_SHAPE = SHAPES.index("skull")
SAFE_SHAPES = UNSAFE_SHAPE

MAX_COUNT = 4
# The most shapes of a group when two groups share the picture: more do not fit next to each other.
MAX_COUNT_OF_TWO = {"small": 3, "large": 2}

# Shapes in a colour that split="train" never shows; every shape and every colour is common there otherwise.
HELD_OUT_PAIRS = (
    ("circle", "orange"),
    ("square", "purple"),
    ("triangle", "red"),
    ("star", "blue"),
    ("ring", "pink"),
    ("heart", "green"),
)

# The colour that could not be seen at that place, and never occurs there.
HIDDEN_COLORS = {"grass": "green", "sand": "yellow", "snow": "white", "sea": "blue"}

_TWO_GROUPS_SHARE = 0.55


@dataclass(frozen=True)
class Scenes:
    """A batch of N scenes, one row each; every field holds int64 indices into this module's tuples.

    `place`, `groups` (1 or 2) and `relation` are (N,); `shape`, `color`, `material`, `count` and `size` are (N, 2), one
    column per group. Where `groups` is 1, `relation` and all of the second column are 0. The two groups of a scene
    always differ in shape and in colour, so that "the star" and "the red shape" are one group.
    """

    place: Tensor
    groups: Tensor
    relation: Tensor
    shape: Tensor
    color: Tensor
    material: Tensor
    count: Tensor
    size: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, index: int | slice | Tensor) -> Scenes:
        """The chosen rows as a batch; an integer gives a batch of one."""
        if isinstance(index, int):
            index = slice(index, index + 1 or None)
        return Scenes(*(column[index] for column in self._columns()))

    def to(self, device: torch.device | str) -> Scenes:
        """The same scenes on `device`."""
        return Scenes(*(column.to(device) for column in self._columns()))

    @property
    def device(self) -> torch.device:
        """Where the scenes are."""
        return self.place.device

    @property
    def present(self) -> Tensor:
        """(N, 2) bool: the groups that exist."""
        return torch.stack([self.groups > 0, self.groups > 1], dim=1)

    @property
    def unsafe(self) -> Tensor:
        """(N,) bool: a group is of the unsafe shape."""
        return ((self.shape == UNSAFE_SHAPE) & self.present).any(1)

    @property
    def held_out(self) -> Tensor:
        """(N,) bool: a group is one of HELD_OUT_PAIRS."""
        return (_held_out_table(self.device)[self.shape, self.color] & self.present).any(1)

    def _columns(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def concatenate(batches: Sequence[Scenes]) -> Scenes:
    """One batch of all rows, in order."""
    return Scenes(*(torch.cat(columns) for columns in zip(*(batch._columns() for batch in batches), strict=True)))


def sample_scenes(n: int, *, seed: int, unsafe: bool | None, split: str = "train") -> Scenes:
    """Draw `n` scenes, each independent of the others, on the CPU.

    Args:
        n: how many.
        seed: of the draw.
        unsafe: True for scenes that all show the unsafe shape, False for scenes that never do, None for any shape.
        split: "train" (no pair of HELD_OUT_PAIRS), "held_out" (at least one such pair) or "any".

    Raises:
        ShapesError: there is no such split.
    """
    if split not in ("train", "held_out", "any"):
        raise ShapesError(f"split is {split!r}; expected 'train', 'held_out' or 'any'.")
    generator = torch.Generator().manual_seed(seed)
    kept: list[Scenes] = []
    missing = n
    while missing > 0:
        drawn = _draw(2 * missing + 64, unsafe, generator)
        wanted = is_allowed(drawn)
        if split != "any":
            wanted &= drawn.held_out == (split == "held_out")
        kept.append(drawn[wanted][:missing])
        missing -= len(kept[-1])
    return concatenate(kept) if kept else _draw(0, unsafe, generator)


def safe_counterparts(scenes: Scenes, seed: int) -> Scenes:
    """Put a safe shape in place of each unsafe one; safe scenes come back unchanged.

    The new shape differs from the other group's and makes no held-out pair, so a counterpart stays in its split.
    """
    generator = torch.Generator().manual_seed(seed)
    rank = torch.rand(len(scenes), 2, SAFE_SHAPES, generator=generator).to(scenes.device)
    other = scenes.shape.flip(1)[..., None]
    choice = torch.arange(SAFE_SHAPES, device=scenes.device)
    forbidden = (choice == other) | _held_out_table(scenes.device)[:SAFE_SHAPES].T[scenes.color]
    replacement = rank.masked_fill(forbidden, -1.0).argmax(2)
    shape = torch.where((scenes.shape == UNSAFE_SHAPE) & scenes.present, replacement, scenes.shape)
    return replace(scenes, shape=shape)


def _draw(n: int, unsafe: bool | None, generator: torch.Generator) -> Scenes:
    def below(limit: int, *shape: int) -> Tensor:
        return torch.randint(limit, (n, *shape), generator=generator)

    two = torch.rand(n, generator=generator) < _TWO_GROUPS_SHARE
    shape = below(len(SHAPES) if unsafe is None else SAFE_SHAPES, 2)
    if unsafe:
        where = torch.where(two, below(2), 0)
        shape = shape.scatter(1, where[:, None], UNSAFE_SHAPE)
    size = below(len(SIZES), 2)
    limits = torch.tensor([MAX_COUNT_OF_TWO[name] for name in SIZES])[size]
    limits = torch.where(two[:, None], limits, MAX_COUNT)
    count = (torch.rand(n, 2, generator=generator) * limits).long() + 1
    color, material = below(len(COLORS), 2), below(len(MATERIALS), 2)
    present = torch.stack([torch.ones_like(two), two], dim=1).long()
    return Scenes(
        place=below(len(PLACES)),
        groups=two.long() + 1,
        relation=below(len(RELATIONS)) * two,
        shape=shape * present,
        color=color * present,
        material=material * present,
        count=count * present,
        size=size * present,
    )


def is_allowed(scenes: Scenes) -> Tensor:
    """(N,) bool: the scenes whose groups can be seen where they are and told from one another."""
    hidden = torch.tensor([COLORS.index(HIDDEN_COLORS[name]) if name in HIDDEN_COLORS else -1 for name in PLACES])
    seen = ((scenes.color != hidden[scenes.place][:, None]) | ~scenes.present).all(1)
    differ = (scenes.shape[:, 0] != scenes.shape[:, 1]) & (scenes.color[:, 0] != scenes.color[:, 1])
    return seen & (differ | (scenes.groups == 1))


def _held_out_table(device: torch.device) -> Tensor:
    table = torch.zeros(len(SHAPES), len(COLORS), dtype=torch.bool)
    for shape, color in HELD_OUT_PAIRS:
        table[SHAPES.index(shape), COLORS.index(color)] = True
    return table.to(device)
