"""The dicts of a pickled file: what trainers wrap around a state dict, and dicts within it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UnetError

# Dicts that may stand in each other: a pickle can hold a dict that holds itself.
_DEEPEST = 16


def unwrapped(content: Any, path: Path) -> Any:
    """The state dict inside the wrappers that trainers put around it."""
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            return content
        inner = next((content[key] for key in ("state_dict", "model_state_dict") if key in content), None)
        if inner is None and len(content) == 1 and isinstance(only := next(iter(content.values())), Mapping):
            # One key with a layer's weight and bias is an edit of that layer; a wrapper holds whole names.
            inner = None if set(only) <= {"weight", "bias"} else only
        if not isinstance(inner, Mapping):
            return content
        content = inner
    raise UnetError(_too_deep(path))


def flattened(content: Mapping[Any, Any], path: Path, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a dict and of the dicts in it, their keys joined by dots."""
    if depth == _DEEPEST:
        raise UnetError(_too_deep(path))
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from flattened(value, path, f"{prefix}{key}.", depth + 1)


def _too_deep(path: Path) -> str:
    return (
        f"{path} holds dicts in dicts more than {_DEEPEST} deep, or one that holds itself. Save the state dict alone."
    )
