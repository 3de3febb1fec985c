"""The one place that knows ComfyUI's memory, progress and folders, and how a CLIP becomes a state dict and back."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import comfy.lora
import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from ...sage_core.batches import is_out_of_memory
from ...sage_core.encoders.text_encoder import EncoderConfig, require_sd1
from ...sage_core.encoders.tokens import CONTEXT_LENGTH, VOCABULARY_SIZE
from ...sage_core.errors import EncoderError, PromptError, SageError, SettingsError

log = logging.getLogger("sage")

OUT_OF_MEMORY = comfy.model_management.OOM_EXCEPTION

_ENCODERS = "text_encoders"
_TOWER = "clip_l"
_TRANSFORMER = f"{_TOWER}.transformer."
_PLAIN = (torch.float32, torch.float16, torch.bfloat16)
_PROMPT_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".txt"}
_PREVIEW_WIDTH = 512
# ComfyUI tells encoders apart by depth: from 23 layers on it takes a file for SD 2.x's, and a single layer stops it.
_LOADABLE_LAYERS = range(2, 23)

# -- files -------------------------------------------------------------------------------------------------------------


def encoder_files() -> list[str]:
    """Names of the files in the text encoder folders."""
    return folder_paths.get_filename_list(_ENCODERS)


def encoder_path(name: str) -> Path:
    """Full path of a file in the text encoder folders.

    Raises:
        EncoderError: no such file; the message names the folders.
    """
    path = folder_paths.get_full_path(_ENCODERS, name) if name else None
    if path is None:
        found = f"there is no text encoder {name!r}" if name else "no text encoder is chosen"
        folders = " or ".join(folder_paths.get_folder_paths(_ENCODERS))
        raise EncoderError(f"{found}. Put the file into {folders} and refresh the node list (R).")
    return Path(path)


def new_encoder_path(name: str) -> Path:
    """Where an encoder called `name` is saved: always directly in the first text encoder folder.

    Raises:
        SettingsError: see `plain_name`.
    """
    return Path(folder_paths.get_folder_paths(_ENCODERS)[0]) / plain_name(name, ".safetensors", "name")


def output_file(folder: str, name: str, suffix: str, field: str) -> Path:
    """output/sage/<folder>/<name><suffix>. Raises SettingsError, see `plain_name`."""
    return Path(folder_paths.get_output_directory()) / "sage" / folder / plain_name(name, suffix, field)


def answer_log(name: str, field: str) -> Path:
    """Where Score TIFA writes its answers down. Raises SettingsError, see `plain_name`."""
    return output_file("tifa", name, ".jsonl", field)


def plain_name(name: str, suffix: str, field: str) -> str:
    """`name` as the name of a file with `suffix`, whether it has that already or not.

    Raises:
        SettingsError: it is empty, names another folder, or would upset a file system. `field` is where it was given.
    """
    stem = name.strip().removesuffix(suffix)
    if not re.fullmatch(r"[\w()+=@-]([\w ()+.=@-]{0,98}[\w()+=@-])?", stem):
        raise SettingsError(
            f"{field} is {name!r}; expected a plain file name without a folder: at most 100 letters, digits, spaces, "
            "dots, dashes and underscores."
        )
    return f"{stem}{suffix}"


def store_folder() -> Path:
    """Where finished trainings and checkpoints are kept: it may take gigabytes, so it follows --output-directory."""
    return Path(folder_paths.get_output_directory()) / "sage" / "runs"


def prompt_files() -> list[str]:
    """Names of the files in ComfyUI's input folder, and the folders in it, that can hold prompts."""
    names, _ = folder_paths.recursive_search(folder_paths.get_input_directory())
    return folder_paths.filter_files_extensions(names, _PROMPT_SUFFIXES)


def prompt_path(name: str | None) -> Path:
    """Full path of a file in ComfyUI's input folder or in the folders in it, linked ones too.

    ComfyUI does not check that a graph's choice is one of those offered, so `name` may be anything.

    Raises:
        PromptError: no such file, or one outside; the message names the folder.
    """
    folder = folder_paths.get_input_directory()
    path = path_inside(folder, name or "")
    if path is None or not path.is_file():
        found = f"there is no file {name!r} in the input folder" if name else "no file is chosen"
        raise PromptError(f"{found}. Put it into {folder} and refresh the node list (R).")
    return path


def path_inside(folder: str | os.PathLike[str], name: str) -> Path | None:
    """`name` as a path below `folder`; None where it leads out of it, or is the folder itself.

    Links are not followed: users link folders of theirs into ComfyUI's.
    """
    root = os.path.abspath(folder)
    path = os.path.abspath(os.path.join(root, name))
    return Path(path) if path.startswith(os.path.join(root, "")) else None


def taken(check: Callable[[str], object], *names: str | None) -> bool | str:
    """For validate_inputs: True if `check` takes every name, else the message with which it refuses one.

    None is a connection, whose value is known only when the node runs, or an input that ComfyUI has found missing.
    """
    try:
        for name in names:
            if name is not None:
                check(name)
    except SageError as error:
        return str(error)
    return True


def fingerprint(path: Path) -> tuple[int, int]:
    """Modification time in ns and size, which change when the file does; hashing 500 MB would take seconds a queue."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


# -- CLIP and state dict -----------------------------------------------------------------------------------------------


def load_clip(state: Mapping[str, Tensor], source: str) -> comfy.sd.CLIP:
    """A CLIP of its own from a canonical state dict of any depth, width and MLP size.

    Raises:
        EncoderError: ComfyUI cannot hold such an encoder.
    """
    config = EncoderConfig.of(state)
    require_sd1(config, source)
    if config.layers not in _LOADABLE_LAYERS:
        raise EncoderError(f"{source} has {config.layers} layers; ComfyUI loads CLIP-L encoders of 2 to 22 layers.")
    if (config.vocabulary, config.positions) != (VOCABULARY_SIZE, CONTEXT_LENGTH):
        raise EncoderError(
            f"{source} knows {config.vocabulary} tokens at {config.positions} positions; an SD 1.x text encoder knows "
            f"{VOCABULARY_SIZE} at {CONTEXT_LENGTH}."
        )
    sizes = {
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": config.activation,
    }
    # SD 1.x has no projection; without one in the file ComfyUI warns and holds uninitialised memory instead.
    projection = torch.eye(config.width)
    return comfy.sd.load_text_encoder_state_dicts(
        [{**state, "text_projection.weight": projection}],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION,
        model_options={"model_config": sizes},
    )


def own_weights(clip: comfy.sd.CLIP) -> dict[str, Tensor]:
    """Canonical state dict of a CLIP without LoRAs or other patches, on the CPU; not to be written to.

    Raises:
        EncoderError: the CLIP is not that of an SD 1.x model.
    """
    return _canonical({key: values[:1] for key, values in _weights_and_patches(clip).items()})


def patched_weights(clip: comfy.sd.CLIP) -> dict[str, Tensor]:
    """As `own_weights`, with every patch (LoRA, SAGE) worked in."""
    return _canonical(_weights_and_patches(clip))


def private_copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fp32 copies that may be trained and saved."""
    # ComfyUI runs nodes in inference mode, whose tensors can never be trained.
    with torch.inference_mode(False), torch.no_grad():
        return {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}


def count_patches(clip: comfy.sd.CLIP) -> int:
    """How many LoRAs and other patches lie on the most patched tensor of a CLIP."""
    return max(len(values) - 1 for values in _weights_and_patches(clip).values())


def add_difference(
    clip: comfy.sd.CLIP, target: Mapping[str, Tensor], base: Mapping[str, Tensor], strength: float
) -> comfy.sd.CLIP:
    """A clone of `clip` whose weights are moved by strength · (target − base); `clip` itself stays as it was.

    A patch, not a swap: it adds up with LoRAs and follows offloading and hooks.

    Raises:
        EncoderError: clip, target and base differ in depth, width or another size.
    """
    own = EncoderConfig.of({_name(key): values[0][0] for key, values in _weights_and_patches(clip).items()})
    for role, state in (("encoder", target), ("encoder_base", base)):
        config = EncoderConfig.of(state)
        if config != own:
            raise EncoderError(f"The {role} does not fit this CLIP: it is {config}, the CLIP is {own}.")
    moved = clip.clone()
    moved.add_patches({_TRANSFORMER + name: ("diff", (target[name].float() - base[name],)) for name in base}, strength)
    return moved


def relative_change(target: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """‖target − base‖ / ‖base‖ over the weights of all layers, embedding tables aside."""
    layers = [name for name in base if ".layers." in name]
    change = math.hypot(*(float((target[name].float() - base[name]).norm()) for name in layers))
    return change / math.hypot(*(float(base[name].float().norm()) for name in layers))


def _weights_and_patches(clip: comfy.sd.CLIP | None) -> dict[str, list]:
    """ComfyUI's key → [(weight as loaded, its conversion), patch, …] of the text model alone.

    `text_projection` and `logit_scale` are left out: on SD 1.x they are uninitialised memory.
    """
    if clip is None:
        raise EncoderError("clip is empty: the checkpoint holds no text encoder. Load one with CLIPLoader.")
    everything = clip.get_key_patches()
    towers = sorted({key.split(".", 1)[0] for key in everything})
    if towers != [_TOWER]:
        raise EncoderError(
            f"This CLIP holds {', '.join(towers)}; SAGE works on the text encoder of SD 1.x, which is {_TOWER} alone. "
            "Use the CLIP of an SD 1.4 or 1.5 checkpoint."
        )
    return {key: values for key, values in everything.items() if key.startswith(_TRANSFORMER + "text_model.")}


def _canonical(weights: Mapping[str, list]) -> dict[str, Tensor]:
    state = {}
    for key, ((weight, convert), *patches) in weights.items():
        # Copying 123 million weights takes longer than all the rest of applying an encoder.
        if patches or weight.dtype not in _PLAIN:
            value = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
            state[_name(key)] = comfy.lora.calculate_weight(patches, value, key)
        else:
            state[_name(key)] = weight.detach().cpu()
    return state


def _name(key: str) -> str:
    return key.removeprefix(_TRANSFORMER)


# -- memory, progress, pictures ----------------------------------------------------------------------------------------


@contextmanager
def training_device(needed: int) -> Iterator[tuple[torch.device, int]]:
    """Make room for `needed` bytes and allow gradients: yields the device and the bytes now free on it."""
    device = comfy.model_management.get_torch_device()
    comfy.model_management.free_memory(needed, device)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield device, int(comfy.model_management.get_free_memory(device))
    finally:
        comfy.model_management.soft_empty_cache()


@contextmanager
def telling_memory(error: SageError) -> Iterator[None]:
    """Raise `error` in place of any device's own when memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as found:
        if is_out_of_memory(found):
            raise error from found
        raise


def stop_if_cancelled() -> None:
    """Raise ComfyUI's own exception once the user has pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """The node's progress bar, with a picture now and then; raises when the user has pressed Cancel."""

    def __init__(self) -> None:
        self._bar = comfy.utils.ProgressBar(1)

    def __call__(self, done: int, total: int, picture: Image | None = None) -> None:
        # Newer versions throttle progress updates, so that those alone would notice Cancel late.
        stop_if_cancelled()
        self._bar.update_absolute(done, total, ("JPEG", picture, _PREVIEW_WIDTH) if picture else None)


def counter(total: int) -> Callable[[int], None]:
    """Turns "n more are done" into progress towards `total`, which also notices Cancel."""
    progress, done = Progress(), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    return count


def to_image(picture: Image) -> Tensor:
    """A picture as ComfyUI's IMAGE: (1, height, width, 3), float in 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)[None]
