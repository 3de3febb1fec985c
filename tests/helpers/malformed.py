"""Files damaged by chance: bytes, JSON, TOML, tables, safetensors and npz, each in the ways that it can be wrong in."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Hostile:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


# Values in place of others; texts that begin with RAW are put in as they stand, since JSON has no word for them.
RAW = "raw:"
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**70, 1e308, -0.0, 0.5, "", " ", "x", "x" * 5000, "a\0b", "\ud83d", "\x1b[31m", "/",
    "../..", "<script>", "=1+1", "nan", [], {}, [[]], {"": {}}, [None] * 50, {"a": [1]}, "a\n\nb", "NaN", "1e999",
    f"{RAW}NaN", f"{RAW}Infinity", f"{RAW}1e999", f"{RAW}1{'0' * 400}", f"{RAW}{'[' * 900}{']' * 900}",
    f"{RAW}{'[' * 50_000}", f"{RAW}-1{'9' * 5000}",
]  # fmt: skip
_RUNS = [b" ", b"\\", b'"', b"[", b"{", b"\0", b"\xff", b".", b"a.", b"=", b"\n", b"|", b"<", b"'"]
_TYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "U8", "BOOL", "F4", "X", "U16"]


def bytes_of(content: bytes, chance: random.Random) -> bytes:
    """One or a few damages of bytes."""
    found = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 3, 20])):
        start = chance.randrange(len(found) + 1)
        end = min(len(found), start + chance.choice([1, 2, 8, 100, 10_000]))
        kind = chance.randrange(6)
        if kind == 0 and start < len(found):
            found[start] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[start:]
        elif kind == 2:
            del found[start:end]
        elif kind == 3:
            found[start:start] = chance.choice(_RUNS) * chance.choice([1, 10, 3000])
        elif kind == 4:
            found[start:end] = bytes(end - start)
        else:
            found[start:start] = found[start:end]
    return bytes(found)


def json_of(content: bytes, chance: random.Random) -> bytes:
    """One or a few values of a JSON document changed, left out or put where they do not belong."""
    value = json.loads(content)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        value = _changed(value, chance)
    text = json.dumps(value)
    for each in _VALUES:
        if isinstance(each, str) and each.startswith(RAW):
            text = text.replace(json.dumps(each), each.removeprefix(RAW))
    return text.encode()


def _changed(value: Any, chance: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return chance.choice(_VALUES)
    value = dict(value) if isinstance(value, dict) else list(value)
    place = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    kind = chance.randrange(8)
    if kind == 0:
        del value[place]
    elif kind == 1 and isinstance(value, dict):
        value[chance.choice(["", "x", "\0", str(place).upper()])] = value.pop(place)
    elif kind == 2 and isinstance(value, list):
        value += value[: chance.choice([1, 3, 100])]
    else:
        value[place] = _changed(value[place], chance)
    return value


def lines_of(content: bytes, chance: random.Random) -> bytes:
    """Lines of a text changed, doubled, left out or moved, such as of TOML or a table."""
    lines = content.decode().split("\n")
    for _ in range(chance.choice([1, 1, 2, 5])):
        place = chance.randrange(len(lines))
        name, equals, _ = lines[place].partition("=")
        kind = chance.randrange(8)
        if kind == 0:
            del lines[place]
            lines = lines or [""]
        elif kind == 1:
            lines.insert(chance.randrange(len(lines)), lines[place])
        elif kind == 2:
            lines[place] = bytes_of(lines[place].encode(), chance).decode("utf-8", "replace")
        elif kind == 3:
            lines.insert(place, chance.choice(_RUNS).decode("latin-1") * chance.choice([1, 100, 30_000]))
        elif kind == 4:
            lines[place] = lines[place].replace(chance.choice(",;\"' |[]"), chance.choice(['"', ",", "", "\t", "\\"]))
        elif equals:
            lines[place] = f"{name}= {_toml(chance)}"
        else:
            lines[place] = f"{chance.choice(['a.' * 3000 + 'a', 'name', '[x]', '[[x]]', ''])} = {_toml(chance)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _toml(chance: random.Random) -> str:
    value = chance.choice(
        [*_VALUES, "nan", "-inf", "1e400", "1979-05-27", "'a'", '"""a\n"""', "{a = 1}", "{a.b.c = []}"]
    )
    if isinstance(value, bool | int | float | list) or value is None:
        return "nan" if value is None else json.dumps(value)
    return value.removeprefix(RAW) if isinstance(value, str) and chance.random() < 0.5 else json.dumps(value)


def safetensors_of(content: bytes, chance: random.Random) -> bytes:
    """Its header changed: types, shapes, places, names and metadata; or its bytes."""
    length = int.from_bytes(content[:8], "little")
    if chance.random() < 0.3:
        return bytes_of(content, chance)
    header = json.loads(content[8 : 8 + length])
    for _ in range(chance.choice([1, 1, 2])):
        name = chance.choice(list(header))
        about = header[name]
        kind = chance.randrange(6)
        damaged = not isinstance(about, dict) or not {"shape", "data_offsets"} <= about.keys()
        if name == "__metadata__" or kind == 0 or damaged:
            header[name] = _changed(about, chance)
        elif kind == 1:
            about["dtype"] = chance.choice(_TYPES)
        elif kind == 2:
            about["shape"] = chance.choice([[], [0], [1, *about["shape"]], about["shape"][::-1], [2**40], [-1], [1.5]])
        elif kind == 3:
            start, end = about["data_offsets"]
            size = chance.choice([0, 1, 4, end - start])
            header[name] = {"dtype": chance.choice(_TYPES), "shape": [size], "data_offsets": [start, end]}
        elif kind == 4:
            header[chance.choice(["x", name.upper(), f"{name}.x"])] = header.pop(name)
        else:
            header.pop(name)
    written = json.dumps(header).encode()
    for each in _VALUES:
        if isinstance(each, str) and each.startswith(RAW):
            written = written.replace(json.dumps(each).encode(), each.removeprefix(RAW).encode())
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def metadata_of(content: bytes, chance: random.Random, name: str) -> bytes:
    """The JSON in one of its metadata changed."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"][name] = json_of(header["__metadata__"][name].encode(), chance).decode()
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def npz_of(content: bytes, chance: random.Random, folder: Path) -> bytes:
    """Members of an .npz changed, packed, doubled or left out; or its bytes."""
    if chance.random() < 0.3:
        return bytes_of(content, chance)
    path, new = folder / "whole.npz", folder / "changed.npz"
    path.write_bytes(content)
    packing = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w", packing, compresslevel=1) as archive:
        for name in old.namelist():
            kind, member = chance.randrange(7), old.read(name)
            if kind == 0:
                continue
            if kind == 1:
                member = bytes_of(member, chance)
            elif kind == 2:
                member = bytes_of(member[:80], chance) + member[80:]
            elif kind == 3 and chance.random() < 0.1:
                member += bytes(80_000_000)
            archive.writestr(name, member)
    return new.read_bytes()


Damage = Callable[[bytes, random.Random], bytes]
