"""Work that takes long is done once: found where it is kept, or made, locked, saved whole, and handed on in any case.

`kept` is the one protocol of trainings of text encoders, U-Nets and gates, and of attacks; `store` has their files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError

from .. import __version__
from ..errors import SageError, TrainingError
from ..files import check_writable, write_json
from ..rows import read_json
from .record import StepReport
from .store import CHECKPOINT, REPORT, WEIGHTS, RunStore

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

# What a file of a run says in its metadata, so that it is known as this program's.
SOFTWARE = f"sage-alignment {__version__}"
# What reading a damaged file raises.
_UNREADABLE = (SageError, SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError)

Value = TypeVar("Value")


def run_name(inputs: Sequence[Any], recipe: int = 1) -> str:
    """Name of a run, 32 hex digits, of everything that decides its result.

    Args:
        inputs: ready for JSON.
        recipe: of the method, raised when the same inputs no longer give the same result. The first takes no part, so
            that runs are found that were kept before methods had recipes.
    """
    made_of = [*inputs, {"recipe": recipe}] if recipe > 1 else list(inputs)
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]


def kept(
    store: Path,
    key: str,
    *,
    make: Callable[[Path], Value],
    save: Callable[[Path, Value], object],
    read: Callable[[Path], Value],
    needed: int,
    earlier: Sequence[str] = (),
) -> tuple[Value, bool]:
    """Find a finished run in the folder `store`; else make it, or go on with it, and keep it there.

    A result that cannot be saved, for instance because the disk has filled up, is handed on all the same, and its
    checkpoint stays.

    Args:
        store: a folder of runs.
        key: the run's name, of everything that decides its result.
        make: does the work. It is given the path of the run's checkpoint, to go on from and to write.
        save: writes the result to the path of the run's weights, last: their presence says that the run is whole.
        read: reads it from there; raises FileNotFoundError where another of its files is missing.
        needed: bytes that the result and its checkpoints take.
        earlier: other names under which the run may be there, finished or begun; it keeps the one that it has.

    Returns:
        The result, and whether it was found.

    Raises:
        FileError: nothing can be written into the store; raised before `make` is called.
        TrainingError: another process is at this run, or what is stored of it is damaged.
    """
    runs = RunStore(store)
    key = runs.first_of(key, *earlier)
    weights, checkpoint = runs.path(key, WEIGHTS), runs.path(key, CHECKPOINT)
    if found := _finished(weights, read):
        runs.tidy(key)
        return found[0], True
    check_writable(weights, needed)
    with runs.locked(key):
        # Another process may have finished it since the first look.
        if found := _finished(weights, read):
            return found[0], True
        try:
            result = make(checkpoint)
        except BaseException:
            # Whatever stops a run, the user should know of the gigabyte that it leaves.
            if checkpoint.exists():
                size = checkpoint.stat().st_size
                logger.warning("Stopped. The same inputs go on from %s (%.0f MB).", checkpoint, size / 1e6)
            raise
        try:
            save(weights, result)
            runs.finish(key)
        except (OSError, SafetensorError) as error:
            logger.warning(
                "The finished run could not be stored in %s (%s); it is handed on all the same.", store, error
            )
    return result, False


def _finished(weights: Path, read: Callable[[Path], Value]) -> tuple[Value] | None:
    try:
        return (read(weights),) if weights.exists() else None
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        raise TrainingError(
            f"The finished run {weights} cannot be read ({error}). Delete it to train again."
        ) from error


def save_run(
    weights: Path,
    write: Callable[[Path, Mapping[str, Tensor], Mapping[str, str]], object],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    history: Sequence[StepReport],
    **more: Any,
) -> None:
    """Write a finished run for `read_run`: its report first, and its weights last.

    Args:
        weights: path of the weights.
        write: writes tensors and metadata there.
        tensors: by name.
        metadata: what the run says of itself, among it the number of `steps`.
        history: each step's report.
        more: for the report. It or the metadata holds the `hash` of the tensors.
    """
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    report = {"metadata": dict(metadata), "history": [asdict(step) for step in history], "shapes": shapes, **more}
    write_json(weights.with_suffix(REPORT), report)
    write(weights, tensors, metadata)


def read_run(
    weights: Path,
    read: Callable[[Path], dict[str, Tensor]],
    hash_of: Callable[[Mapping[str, Tensor]], str],
    says: Sequence[str] = (),
    fewest: int = 1,
) -> tuple[dict[str, Tensor], dict[str, str], tuple[StepReport, ...], dict[str, Any]]:
    """Read what `save_run` wrote, and check that all steps are reported and that the weights are those written.

    Args:
        weights: path of the weights.
        read: reads them.
        hash_of: as the recorded hash was made.
        says: names that the metadata must hold, since the run's summary tells them; "seconds" are a number.
        fewest: steps that any such run has.

    Returns:
        Tensors, metadata, each step's report, and all that the report holds.

    Raises:
        FileNotFoundError: there is no report, so that the run is not whole.
        ValueError, KeyError, TypeError, AttributeError: it is damaged; and what `read` raises.
    """
    content = read_json(weights.with_suffix(REPORT))
    history = tuple(StepReport.from_dict(row) for row in content["history"])
    metadata = {str(name): str(value) for name, value in content["metadata"].items()}
    if len(history) < fewest or len(history) != int(metadata["steps"]):
        raise ValueError(f"it reports {len(history)} of {metadata['steps']} steps")
    if missing := [name for name in says if name not in metadata]:
        raise ValueError(f"it does not say its {missing[0]}")
    if "seconds" in metadata and not math.isfinite(float(metadata["seconds"])):
        raise ValueError(f"it took {metadata['seconds']} seconds")
    if len({frozenset(step.losses) for step in history}) > 1:
        raise ValueError("its steps have different losses")
    tensors = read(weights)
    if hash_of(tensors) != content.get("hash", metadata.get("hash")):
        # safetensors carries no checksum.
        raise ValueError("its weights have changed since they were written")
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if content.get("shapes", shapes) != shapes:
        # The hash is of bytes alone, and is a part of runs' names. Earlier reports have no shapes.
        raise ValueError("the shapes of its weights have changed since they were written")
    return tensors, metadata, history, content


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of tensors by name, type and bytes."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{state[name].dtype}".encode())
        digest.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
