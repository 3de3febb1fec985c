"""Reading PyTorch's pickled files without running anything that is in them."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import EncoderError

# What training programs leave beside the weights: arguments, paths, numpy losses, Lightning's callbacks in SD 1.x.
_BOOKKEEPING = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
)


class _Nothing:
    """Stands in a loaded pickle for an object that is not wanted; it takes whatever is given and keeps none of it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


_STAND_INS: list[Any] = [
    type(name, (_Nothing,), {"__module__": module})
    for module, _, name in (path.rpartition(".") for path in _BOOKKEEPING)
]


def read_pickle(path: Path) -> Any:
    """Content of a `torch.save` file, read with `weights_only=True`, mapped rather than loaded where the format allows.

    Plain containers and tensors come as they are; a few common bookkeeping objects as empty stand-ins, so that even
    their classes are not touched. Raises EncoderError for anything else that a pickle could build or run, which is
    refused before it runs, and for damaged files.
    """
    mapped = zipfile.is_zipfile(path)
    with open(path, "rb") as file:
        if file.read(2) == b"PK" and not mapped:
            raise EncoderError(_damaged(path))
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            # Of foreign protocols and archives, which end in an error below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except Exception as error:
        # Old pickles carry no checksum: a damaged one can fail in any way.
        raise EncoderError(_explain(path, str(error))) from error


def _explain(path: Path, error: str) -> str:
    if "TorchScript" in error:
        return (
            f"{path} is a TorchScript archive, which carries code; none of it was run. "
            "Use the model's safetensors file, or a file saved with torch.save(model.state_dict())."
        )
    if match := re.search(r"GLOBAL ([\w.]+)|Unsupported operand", error):
        return (
            f"{path} is a pickle that asks to run or build {match[1] or 'what torch.save never writes'}, which is no "
            "tensor data; nothing of it was run. It is damaged or may be malicious: use a safetensors file from a "
            "source that you trust."
        )
    return _damaged(path)


def _damaged(path: Path) -> str:
    return (
        f"{path} is no whole PyTorch file, it may be cut short or of another format ({path.stat().st_size:,} bytes); "
        "nothing in it was run. Download it again, or use a safetensors file."
    )
