"""Read PyTorch's pickled files without running anything in them."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import EncoderError

# What training programs store next to the weights: arguments, paths, numpy losses, Lightning's callbacks in SD 1.x.
_BOOKKEEPING = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
)


class _Nothing:
    """Stands in a loaded pickle for an unwanted object: it takes whatever it is given and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


_STAND_INS: list[Any] = [
    type(name, (_Nothing,), {"__module__": module})
    for module, _, name in (path.rpartition(".") for path in _BOOKKEEPING)
]


def read_pickle(path: Path) -> Any:
    """Content of a `torch.save` file, read with `weights_only=True`; mapped instead of loaded where the format allows.

    Plain containers and tensors are returned as they are, a few common bookkeeping objects as empty stand-ins, so that
    even their classes are not touched. In the zip format, which torch.save has written since 2020, every byte is
    checked against a checksum and every tensor against the size of its entry. The older format carries neither.

    Raises:
        EncoderError: the pickle would build or run anything else, which is refused before it runs, or the file is
            damaged.
    """
    try:
        mapped = zipfile.is_zipfile(path)
        with open(path, "rb") as file:
            if file.read(2) == b"PK" and not mapped:
                raise EncoderError(_damaged(path))
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            # PyTorch warns of foreign protocols and archives, which end in an error below, and of classes of storages.
            warnings.simplefilter("ignore")
            if mapped:
                _check_archive(path)
            return torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except EncoderError:
        raise
    except Exception as error:
        # Old pickles carry no checksum: a damaged one can fail in any way. So does zipfile on archives in parts.
        raise EncoderError(_explain(path, str(error))) from error


def _check_archive(path: Path) -> None:
    """Raise EncoderError unless every entry is whole and as long as the tensors that will be read from it.

    PyTorch checks neither: where an entry is too short, it reads on in the next one's bytes.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        root = entries[0].filename.partition("/")[0] if entries else ""
        sizes = {entry.filename: entry.file_size for entry in entries}
        if f"{root}/constants.pkl" in sizes:
            # This is TorchScript, which torch.load refuses.
            return
        # PyTorch ignores the case of names, and reads an entry as stored even if it is compressed.
        names = {entry.filename.lower() for entry in entries}
        packed = any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries)
        stored = sum(entry.compress_size for entry in entries)
        if not entries or len(names) < len(entries) or packed or stored > path.stat().st_size:
            raise EncoderError(_damaged(path))
        if bad := archive.testzip():
            raise EncoderError(f"The entry {bad} has changed since it was written. {_damaged(path)}")
        for key, size in _storages(archive.read(f"{root}/data.pkl"), path):
            found = sizes.get(f"{root}/data/{key}")
            if found != size:
                raise EncoderError(
                    f"The entry data/{key} has {found or 0:,} bytes, its tensor takes {size:,}. {_damaged(path)}"
                )


def _storages(pickled: bytes, path: Path) -> Iterator[tuple[str, int]]:
    """Entry and bytes of each storage that a pickle of torch.save asks for; the pickle is walked, not run.

    torch.save describes a storage by the tuple ("storage", class, entry, device, number of values). The walk knows the
    operations that build such a tuple; anything else in its place raises EncoderError.
    """
    memo: dict[Any, Any] = {}
    # The values above the newest mark; None for one that the walk does not know.
    values: list[Any] = []
    for operation, argument, _ in pickletools.genops(pickled):
        match operation.name:
            case "MARK":
                values = []
            case "TUPLE":
                values = [tuple(values)]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = values[-1] if values else None
            case "BINGET" | "LONG_BINGET":
                values.append(memo.get(argument))
            case "BINPERSID":
                yield _storage(values[-1] if values else None, path)
                values = [None]
            case "GLOBAL" | "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                values.append(argument)
            case "PROTO" | "STOP":
                pass
            case _:
                values.append(None)


def _storage(description: Any, path: Path) -> tuple[str, int]:
    match description:
        case ("storage", str(kind), str(key), str(), int(count)) if count >= 0:
            module, _, name = kind.rpartition(" ")
            found = getattr(torch.storage if module == "torch.storage" else torch, name, None)
            if found is torch.UntypedStorage:
                return key, count
            if isinstance(found, type) and issubclass(found, torch.storage.TypedStorage):
                return key, count * found.dtype.itemsize
    raise EncoderError(_damaged(path))


def _explain(path: Path, error: str) -> str:
    if "TorchScript" in error:
        return (
            f"{path} is a TorchScript archive, which carries code; none of it was run. "
            "Use the model's safetensors file, or a file saved with torch.save(model.state_dict())."
        )
    if match := re.search(r"GLOBAL ([\w.]+)|Unsupported operand", error):
        return (
            f"{path} is a pickle that asks to run or build {match[1] or 'what torch.save never writes'}, which is not "
            "tensor data; nothing of it was run. It is damaged or may be malicious: use a safetensors file from a "
            "source that you trust."
        )
    return _damaged(path)


def _damaged(path: Path) -> str:
    return (
        f"{path} is not a whole PyTorch file: cut short, or of another format ({path.stat().st_size:,} bytes); "
        "nothing in it was run. Download it again, or use a safetensors file."
    )
