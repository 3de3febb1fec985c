"""Reading PyTorch's pickled files without running anything that is in them."""

import argparse
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from .errors import EncoderError


def read_pickle(path: Path) -> Any:
    """Content of a `torch.save` file, read with `weights_only=True`, mapped rather than loaded where the format allows.

    Plain containers, tensors and `argparse.Namespace` (training arguments) are accepted. Raises EncoderError for
    anything else that a pickle could run, which is refused before it runs, and for damaged files.
    """
    mapped = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    # Old pickles carry no checksum: a damaged one can fail in any of these ways.
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise EncoderError(_explain(path, str(error))) from error


def _explain(path: Path, error: str) -> str:
    if "TorchScript" in error:
        return (
            f"{path} is a TorchScript archive, which carries code; none of it was run. "
            "Use the model's safetensors file, or a file saved with torch.save(model.state_dict())."
        )
    if match := re.search(r"GLOBAL ([\w.]+)|class (?:type )?[`']?([\w.]+)[`']? ", error):
        return (
            f"{path} is a pickle that asks to run or build {match[1] or match[2]}, which is no tensor data; nothing of "
            "it was run. It may be malicious: delete it, and use a safetensors file from a source that you trust."
        )
    return (
        f"{path} is no readable PyTorch file, it may be cut short or of another format "
        f"({path.stat().st_size:,} bytes). Download it again, or use a safetensors file."
    )
