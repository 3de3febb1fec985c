"""Two embedding spaces of the same prompts, and slow float64 references of what is measured on them."""

from __future__ import annotations

import math

import torch

from sage_core.geometry.comparison import GeometrySettings, compare

K = 4


def draw(count=40, width=24, seed=0):
    """Rows that share most of their direction, as prompts do, and vary along few others."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -1.5, width)
    return 3 + torch.randn(count, width, generator=generator) * scale


def moved(base, size=0.3, seed=1):
    return base + size * torch.randn(base.shape, generator=torch.Generator().manual_seed(seed))


class AppleTensor(torch.Tensor):
    """Behaves as on an Apple GPU: what it touches stays there, float64 and decompositions do not exist there."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", str(function))
        if name == "__get__" and function == torch.Tensor.device.__get__:
            return torch.device("mps")
        if name == "to" and args[1] == torch.device("cpu"):
            return args[0].as_subclass(torch.Tensor)
        found = super().__torch_function__(function, types, args, kwargs or {})
        if "linalg_eigh" in name or "linalg_qr" in name or getattr(found, "dtype", None) == torch.float64:
            raise TypeError(f"MPS has no float64, eigh or qr: {name}")
        return found


def on_apple(rows):
    return rows.as_subclass(AppleTensor)


def unit(rows):
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows.double().tolist()]


def slow_cosines(rows):
    points = unit(rows)
    return [[sum(a * b for a, b in zip(x, y, strict=True)) for y in points] for x in points]


def slow_neighbours(rows, k):
    cosines = slow_cosines(rows)
    count = len(cosines)
    return [
        sorted((other for other in range(count) if other != row), key=lambda other: -cosines[row][other])[:k]
        for row in range(count)
    ]


def slow_spread(rows):
    points = unit(rows)
    means = [sum(column) / len(points) for column in zip(*points, strict=True)]
    squares = sum((value - mean) ** 2 for point in points for value, mean in zip(point, means, strict=True))
    return squares / (len(points) - 1)


def slow_jaccard(first, second, k):
    pairs = list(zip(slow_neighbours(first, k), slow_neighbours(second, k), strict=True))
    return [len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in pairs]


def embedders(base, aligned, unsafe=0):
    """Prompts named by their row, and the two ways to embed them."""
    texts = [str(row) for row in range(len(base))]
    pick = [lambda names, rows=rows: rows[[int(name) for name in names]] for rows in (base, aligned)]
    return *pick, texts[: len(texts) - unsafe], texts[len(texts) - unsafe :]


def report_of(base, aligned, unsafe=0, **settings):
    return compare(*embedders(base, aligned, unsafe), GeometrySettings(**{"k": K, **settings}))
