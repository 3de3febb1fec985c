"""The pack as ComfyUI's loader would import it, for tests in a process of their own with ComfyUI on the path."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

PACK = Path(__file__).parents[2]


def make_base(folder: Path) -> Path:
    """A base folder for ComfyUI with the model folders that tests write to."""
    for name in ("input", "output", "models/text_encoders", "models/loras", "models/diffusion_models"):
        (folder / name).mkdir(parents=True)
    return folder


def load_pack(base: Path) -> ModuleType:
    """The pack's `nodes`, with ComfyUI on the CPU and `base` as its base folder."""
    sys.path.insert(0, os.environ["SAGE_TEST_COMFYUI"])
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.base_directory = str(base)
    # As main.py does: a module of the same name would be found elsewhere afterwards.
    importlib.import_module("utils.install_util")
    spec = importlib.util.spec_from_file_location("pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = module
    spec.loader.exec_module(module)
    return importlib.import_module("pack.nodes")
