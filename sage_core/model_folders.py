"""Folders of transformers models: found whole, read without a hub, without code and without pickles.

A model that lacks weights still loads in transformers and answers from random ones. `load_model` is the one way by
which this package loads such a folder: every weight is there, of the right shape and finite, and none is foreign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .batches import is_out_of_memory
from .errors import JudgeError, SageError
from .rows import parse_json

_AGAIN = "Download all files of its repository again."
# Tables that older versions of transformers stored and newer ones compute: neither missing nor foreign.
_COMPUTED = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|original_inv_freq|relative_position_index)$")
# Parts and labels are built one by one: an absurd number of them fills the memory before any weight is read.
_COUNTS = re.compile(r"layer|depth|block|expert|label|stage|head|group|image_seq|num_\w*tokens")
_MOST_PARTS = 20_000
# Beyond any width, vocabulary or count of positions. Rotation bases and the like are larger, but are not sizes.
_SIZES = re.compile(r"size|dim|width|length|position|d_model|d_ff|d_kv|n_embd|n_ctx|tokens")
_LARGEST_SIZE = 50_000_000
# What a processor enlarges every picture to; "longest_edge" only limits. Some state both in pixels of the whole area.
_EDGES = re.compile(r"shortest_edge|height|width")
_LONGEST_EDGE = 500_000
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")


def read_model_config(folder: Path, role: str, examples: Sequence[str]) -> dict[str, Any]:
    """The content of config.json in a transformers model folder; the weights are checked but not read.

    Args:
        folder: where the model lies.
        role: what it is wanted for, as in "a judge model".
        examples: repositories of huggingface.co that would do.

    Raises:
        JudgeError: there is no such model, its weights are pickles, a file is damaged, or config.json makes no sense.
    """
    try:
        config = _json(folder / "config.json")
    except FileNotFoundError:
        raise JudgeError(
            f"{folder}: no {role} model here (config.json is missing). Download one of {', '.join(examples)} "
            f"from huggingface.co, for instance with 'hf download {examples[0]} --local-dir {folder}'."
        ) from None
    except (OSError, ValueError) as error:
        raise JudgeError(f"{folder / 'config.json'}: unreadable ({error}). {_AGAIN}") from error
    if not isinstance(config, dict):
        raise JudgeError(f"{folder / 'config.json'}: holds a {type(config).__name__}, expected an object. {_AGAIN}")
    if not isinstance(kind := config.get("model_type", ""), str):
        raise JudgeError(f"{folder / 'config.json'}: model_type is {_short(repr(kind))}, expected a text. {_AGAIN}")
    _require_sensible(config, folder / "config.json")
    for file in (folder / name for name in _PROCESSORS):
        # Not every model has them, and those that read a damaged one say so.
        with suppress(OSError, ValueError):
            _require_sensible(_json(file), file, edge=_LONGEST_EDGE)
    if (folder / "adapter_config.json").exists():
        raise JudgeError(
            f"{folder}: holds an adapter (adapter_config.json), whose base may lie anywhere. Merge it into its model."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise JudgeError(
            f"{folder}: no .safetensors weights here; weights in pickles (.bin, .pt) are not read because they can "
            "run code. Download the repository's safetensors."
        )
    for file in weights:
        try:
            # Reads the header alone, which tells how long the file must be.
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise JudgeError(f"{file}: damaged or cut short ({error}). Download it again.") from error
    for file in sorted(folder.glob("*.safetensors.index.json")):
        _check_index(file)
    return config


def load_model(kind: Any, folder: Path, dtype: torch.dtype, *, unused: str | None = None) -> Any:
    """The model of a folder that `read_model_config` passed, in `dtype` on the CPU, with all of its weights.

    Args:
        kind: a class of transformers with `from_pretrained`.
        folder: where the model lies.
        dtype: what to load the weights as.
        unused: a pattern of the names of weights that the caller does not need.

    Raises:
        JudgeError: a weight is missing, foreign, of another shape or not finite. Other failures of a damaged folder
            are raised as they come: call this within `loading`.
    """
    import transformers

    name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    model, found = kind.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        **{name: dtype},
    )
    _require_whole(found, folder, re.compile(unused) if unused else None)
    _require_finite(model, folder, dtype)
    return model


def load_processor(kind: Any, folder: Path) -> Any:
    """The processor or tokenizer of a folder, without a hub and without its code. Call it within `loading`."""
    return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


@contextmanager
def loading(folder: Path, what: str) -> Iterator[None]:
    """Raise JudgeError, naming the folder and the way out, for whatever goes wrong while `what` is loaded from it."""
    try:
        yield
    except SageError:
        raise
    except BaseException as error:
        # Libraries written in Rust panic with an exception that is not a subclass of Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if is_out_of_memory(error):
            raise JudgeError(
                f"{folder}: does not fit into memory as {what} ({error}). Free memory, use a smaller model, or half "
                "precision."
            ) from error
        # On damaged files transformers, tokenizers and safetensors raise every type there is, even Exception itself.
        raise JudgeError(
            f"{folder}: cannot be loaded as {what} ({type(error).__name__}: {_short(str(error))}). {_AGAIN}"
        ) from error


# What a model raises if its folder describes it wrongly: a size that its code divides by, a token that is not one. A
# host that stops the work raises errors of its own, which pass.
_MODEL_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)


@contextmanager
def running(name: str) -> Iterator[None]:
    """Raise JudgeError for what a loaded model raises at work: much of config.json is read only then."""
    try:
        yield
    except SageError:
        raise
    except BaseException as error:
        # Tokenizers written in Rust raise Exception itself, and panic with what is not a subclass of it.
        rust = type(error) is Exception or type(error).__name__ == "PanicException"
        if not (rust or isinstance(error, _MODEL_ERRORS)) or is_out_of_memory(error):
            raise
        raise JudgeError(
            f"{name}: the model fails at work ({type(error).__name__}: {_short(str(error))}). Its config.json or a "
            f"file of its processor may be damaged. {_AGAIN}"
        ) from error


def _require_whole(found: Mapping[str, Any], folder: Path, unused: re.Pattern[str] | None) -> None:
    missing = [
        name
        for name in sorted(found["missing_keys"])
        if not _COMPUTED.search(name) and not (unused and unused.search(name))
    ]
    foreign = [name for name in sorted(found["unexpected_keys"]) if not _COMPUTED.search(name)]
    shaped = sorted(str(one[0]) if isinstance(one, tuple) else str(one) for one in found["mismatched_keys"])
    wrong = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("of another shape", shaped), ("foreign", foreign))
        if names
    ]
    wrong += [_short(str(message)) for message in found.get("error_msgs") or ()]
    if wrong:
        raise JudgeError(
            f"{folder}: its weights are not those of its model: {', '.join(wrong)}. It would answer from random "
            f"numbers. {_AGAIN}"
        )


@torch.no_grad()
def _require_finite(model: torch.nn.Module, folder: Path, dtype: torch.dtype) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise JudgeError(f"{folder}: {name} has no values. {_AGAIN}")
        # One pass over the memory; a sum can overflow without a bad value, so only then is each one looked at.
        if not tensor.is_floating_point() or tensor.sum(dtype=torch.float32).isfinite():
            continue
        # A mask that belongs to the architecture may hold infinities; NaN is wrong everywhere.
        bad = ~tensor.isfinite() if isinstance(tensor, torch.nn.Parameter) else tensor.isnan()
        if count := int(bad.sum()):
            raise JudgeError(
                f"{folder}: {name} holds {count:,} values that are NaN or infinite in {dtype}. The file is damaged or "
                f"its numbers do not fit the precision: choose fp32, or download the model again."
            )


def _check_index(file: Path) -> None:
    """Raise JudgeError unless an index of parts names only safetensors in its own folder."""
    try:
        parts = _json(file)["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JudgeError(f"{file}: unreadable ({type(error).__name__}: {error}). Download it again.") from error
    for part in {part if isinstance(part, str) else repr(part) for part in parts}:
        if not part.endswith(".safetensors") or Path(part).name != part or "\\" in part:
            raise JudgeError(
                f"{file}: names {_short(part)!r}, expected .safetensors next to it: pickles (.bin) can run code, and "
                "files elsewhere are not the model's. Download the repository's safetensors."
            )
        if not (file.parent / part).is_file():
            raise JudgeError(f"{file.parent}: the part {part} is missing. {_AGAIN}")


def _json(file: Path) -> Any:
    """A file of others: what its numbers are is looked at where they are used."""
    return parse_json(file.read_text(encoding="utf-8"), constants=True)


def _require_sensible(content: Any, file: Path, edge: int | None = None) -> None:
    """Raise JudgeError if a size anywhere in a configuration is one that no model has; `edge` limits a picture's."""
    left: list[tuple[str, Any]] = [("", content)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += [(str(key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            left += [(name, inner) for inner in value]
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        most = _MOST_PARTS if _COUNTS.search(name) else _LARGEST_SIZE if _SIZES.search(name) else None
        most = edge if edge is not None and _EDGES.search(name) else most
        if most is not None and not abs(value) <= most and not name.endswith("_id"):
            raise JudgeError(f"{file}: {name} is {value!s:.30}, expected {most:,} at most. {_AGAIN}")


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + "…"
