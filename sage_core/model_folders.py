"""Folders of transformers models: found whole, read without a hub, without code and without pickles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import JudgeError


def read_model_config(folder: Path, role: str, examples: Sequence[str]) -> dict[str, Any]:
    """config.json of a transformers model folder. Raises JudgeError if the folder is no usable one."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JudgeError(
            f"{folder}: no {role} model here (config.json is missing). Download one of {', '.join(examples)} "
            f"from huggingface.co, for instance: hf download {examples[0]} --local-dir {folder}"
        ) from None
    except (OSError, ValueError) as error:
        raise JudgeError(f"{folder / 'config.json'}: unreadable ({error}); download the model again") from error
    if not any(folder.glob("*.safetensors")):
        raise JudgeError(
            f"{folder}: no .safetensors weights here; weights in pickles (.bin, .pt) are not read because they can "
            f"run code. Download the repository's safetensors"
        )
    for file in sorted(folder.glob("*.safetensors")):
        try:
            # Reads the header alone, which tells how long the file must be.
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise JudgeError(f"{file}: damaged or cut short ({error}); download it again") from error
    return config


def load_settings(dtype: torch.dtype) -> dict[str, Any]:
    """Keyword arguments of every `from_pretrained`: local, safe, in `dtype`."""
    import transformers

    name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    return {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True, name: dtype}
