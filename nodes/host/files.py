"""ComfyUI's folders: what is in them, where names in a graph lead, and names for new files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import folder_paths
from safetensors import SafetensorError, safe_open

from ...sage_core.errors import (
    EncoderError,
    JudgeError,
    PromptError,
    SageError,
    SettingsError,
    TrainingError,
    UnetError,
)
from ...sage_core.prompts.concept_files import CONCEPT_SUFFIXES
from ...sage_core.rows import shown

_ENCODERS = "text_encoders"
_PROMPT_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".txt"}
_KINDS = ("VQA", "LLM")
# Files of weights that are models by themselves.
_WEIGHTS = (".pt", ".pth", ".safetensors")
# Where U-Nets and their edits lie: folders of files, and one of pipeline folders. A choice starts with its folder.
_EDITS = ("diffusion_models", "loras", "checkpoints")
_PIPELINES = "diffusers"

# Linux and macOS limit a file's name in bytes, not in letters.
_MOST_NAME_BYTES = 255
# What is added to a file's name while the file is written; see whole_file.
_TEMPORARY_BYTES = 40

# The entry of a combo box of files or models that means "nothing chosen".
NONE = "none"

# Registered at import: on older versions the hooks for it run after the first listing.
for _kind in _KINDS:
    folder_paths.add_model_folder_path(_kind, os.path.join(folder_paths.models_dir, _kind))


def encoder_files() -> list[str]:
    """Names of the files in the text encoder folders."""
    return folder_paths.get_filename_list(_ENCODERS)


def encoder_path(name: str) -> Path:
    """Full path of a file in the text encoder folders.

    Raises:
        EncoderError: there is no such file; the message names the folders.
    """
    path = folder_paths.get_full_path(_ENCODERS, name) if name else None
    if path is None:
        found = f"There is no text encoder {name!r}" if name else "No text encoder is chosen"
        folders = " or ".join(folder_paths.get_folder_paths(_ENCODERS))
        raise EncoderError(f"{found}. Put the file into {folders} and refresh the node list (R).")
    return Path(path)


def _new_path(kind: str, name: str) -> Path:
    """Where a file called `name` is saved: always directly in the first folder for files of its kind.

    Raises:
        SettingsError: see `plain_name`.
    """
    return Path(folder_paths.get_folder_paths(kind)[0]) / plain_name(name, ".safetensors", "name")


new_encoder_path = partial(_new_path, _ENCODERS)
new_lora_path = partial(_new_path, "loras")
new_embedding_path = partial(_new_path, "embeddings")


def new_trained_path(name: str) -> Path:
    """`new_encoder_path` for the result of a training; raises TrainingError where another encoder lies."""
    path = new_encoder_path(name)
    if path.exists() and "method" not in saved_metadata(path):
        raise TrainingError(f"{path} exists and was not trained here. Choose another name.")
    return path


def edit_files() -> list[str]:
    """U-Nets and edits of U-Nets: `<folder>/<name>` of files, and of pipeline folders in models/diffusers."""
    files = [f"{folder}/{name}" for folder in _EDITS for name in folder_paths.get_filename_list(folder)]
    roots = [Path(root) for root in folder_paths.get_folder_paths(_PIPELINES)]
    found = {file.parents[1].relative_to(root).as_posix() for root in roots for file in root.glob("*/unet/config.json")}
    return [*files, *(f"{_PIPELINES}/{name}" for name in sorted(found))]


def edit_path(name: str) -> Path:
    """Full path of one of `edit_files`.

    Raises:
        UnetError: no such file; the message names the folders.
    """
    folder, _, rest = name.partition("/")
    path: Path | None = None
    if rest and folder in _EDITS and (found := folder_paths.get_full_path(folder, rest)):
        path = Path(found)
    elif rest and folder == _PIPELINES:
        path = _first_inside(folder_paths.get_folder_paths(_PIPELINES), rest, os.path.isdir)
    if path is None:
        found_words = f"There is no U-Net or edit {name!r}" if name else "No U-Net or edit is chosen"
        roots = [root for kind in (*_EDITS, _PIPELINES) for root in folder_paths.get_folder_paths(kind)]
        raise UnetError(f"{found_words}. Put the file into {' or '.join(roots)} and refresh the node list (R).")
    return path


def output_file(folder: str, name: str, suffix: str, field: str) -> Path:
    """output/sage/<folder>/<name><suffix>; raises SettingsError as `plain_name` does."""
    return Path(folder_paths.get_output_directory()) / "sage" / folder / plain_name(name, suffix, field)


def answer_log(name: str, field: str) -> Path:
    """The file to which SAGE Score TIFA writes its answers; raises SettingsError as `plain_name` does."""
    return output_file("tifa", name, ".jsonl", field)


def plain_name(name: str, suffix: str, field: str) -> str:
    """`name` as the name of a file with `suffix`, which it may already have.

    Raises:
        SettingsError: the name is empty, holds a folder, or does not suit file systems. `field` is where it was given.
    """
    stem = name.strip().removesuffix(suffix)
    if not re.fullmatch(r"[\w()+=@-]([\w ()+.=@-]{0,98}[\w()+=@-])?", stem):
        raise SettingsError(
            f"{field} is {name!r}; expected a plain file name without a folder: at most 100 letters, digits, spaces, "
            "dots, dashes and underscores."
        )
    size, most = len(stem.encode()), _MOST_NAME_BYTES - _TEMPORARY_BYTES - len(suffix)
    if size > most:
        raise SettingsError(
            f"{field} is {name!r}, which takes {size} bytes on disk; expected at most {most}. Letters outside English "
            "take two to four bytes each: choose a shorter name."
        )
    return f"{stem}{suffix}"


def store_folder() -> Path:
    """Where finished trainings and checkpoints are kept; they may take gigabytes, so it follows --output-directory."""
    return Path(folder_paths.get_output_directory()) / "sage" / "runs"


def gate_folder() -> Path:
    """Where finished gates and their checkpoints are kept."""
    return Path(folder_paths.get_output_directory()) / "sage" / "gates"


def prompt_files() -> list[str]:
    """Names of the files in ComfyUI's input folder, and in folders below it, that can hold prompts."""
    return _input_files(_PROMPT_SUFFIXES)


def concept_files() -> list[str]:
    """Names of the files in the same folders that can hold a list of concepts."""
    return _input_files(set(CONCEPT_SUFFIXES))


def input_folder() -> Path:
    """ComfyUI's folder of input files."""
    return Path(folder_paths.get_input_directory())


def _input_files(suffixes: set[str]) -> list[str]:
    root = folder_paths.get_input_directory()
    return sorted(
        os.path.relpath(os.path.join(folder, name), root)
        for folder, names in _walk_once(root)
        for name in names
        if os.path.splitext(name)[1].lower() in suffixes
    )


def _walk_once(root: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder below `root`, even a linked one, with its files' names, once however many links lead there.

    ComfyUI's own search follows a link that leads back to itself until the system stops it, which takes minutes.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        # Links wait until all real folders below `root` were given by their own names.
        for folder, subfolders, names in os.walk(waiting.pop(0)):
            try:
                status = os.stat(folder)
            except OSError:
                subfolders.clear()
                continue
            # Without an inode number, as on some network drives, folders cannot be told apart.
            if status.st_ino and (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            waiting += [path for path in (os.path.join(folder, name) for name in subfolders) if os.path.islink(path)]
            yield folder, names


def prompt_path(name: str | None) -> Path:
    """Full path of a file in ComfyUI's input folder or in the folders in it, linked ones too.

    ComfyUI does not check that a graph's choice is one of those offered, so `name` may be anything.

    Raises:
        PromptError: there is no such file, or it is outside; the message names the folder.
    """
    folder = folder_paths.get_input_directory()
    path = path_inside(folder, name or "")
    if path is None or not os.path.isfile(path):
        found = f"There is no file {name!r} in the input folder" if name else "No file is chosen"
        raise PromptError(f"{found}. Put it into {folder} and refresh the node list (R).")
    return path


def path_inside(folder: str | os.PathLike[str], name: str) -> Path | None:
    """`name` as a path below `folder`; None if it leads out of the folder or is the folder itself.

    Links are not followed: users link their own folders into ComfyUI's.
    """
    root = os.path.abspath(folder)
    path = os.path.abspath(os.path.join(root, name))
    return Path(path) if path.startswith(os.path.join(root, "")) else None


def _first_inside(folders: Iterable[str | Path], name: str, fits: Callable[[Path], bool]) -> Path | None:
    """`path_inside` the first of the folders in which it fits; None if it does in none.

    Args:
        fits: of os.path, whose functions are also false of names that no file can have: too long, or with a NUL.
    """
    paths = (path_inside(folder, name) for folder in folders)
    return next((path for path in paths if path is not None and fits(path)), None)


def taken(check: Callable[[str], object], *names: str | None) -> bool | str:
    """For validate_inputs: True if `check` accepts every name, else the message with which it refuses one.

    A name is None for a connection, whose value is known only when the node runs, and for a missing input, which
    ComfyUI reports itself.
    """
    try:
        for name in names:
            if not isinstance(name, str | None):
                # ComfyUI takes any value from a graph sent over HTTP for that of a combo box.
                return f"{shown(name)} is not a name; expected a text."
            if name is not None:
                check(name)
    except SageError as error:
        return str(error)
    return True


def chosen(*names: str | None) -> list[str]:
    """The names in boxes of files that name one: not "none", and not that of a connection."""
    return [name for name in names if name is not None and name != NONE]


def fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """Changes with a file, or with what lies in a folder: times and sizes, since hashing 500 MB would take seconds."""
    entries = [path] if path.is_file() else [entry for entry in sorted(path.iterdir()) if entry.exists()]
    return [(entry.name, (status := entry.stat()).st_mtime_ns, status.st_size) for entry in entries]


def model_folders() -> list[str]:
    """Names of the folders in models/VQA and models/LLM, one or two levels deep, that hold a transformers model."""
    found = set()
    for root in _roots():
        found |= {
            file.parent.relative_to(root).as_posix()
            for depth in ("*", "*/*")
            for file in root.glob(f"{depth}/config.json")
        }
    return sorted(found)


def model_path(name: str | None) -> Path:
    """Full path of one of `model_folders`; raises JudgeError, which names the folders, if there is no such one."""
    path = _first_inside(_roots(), name or "", os.path.isdir)
    if path is None:
        found = f"There is no model folder {name!r}" if name else "No model folder is chosen"
        where = " or ".join(map(str, _roots()))
        raise JudgeError(f"{found}. Put it into {where} and refresh the node list (R).")
    return path


def feature_models() -> list[str]:
    """What can turn pictures into features: `model_folders`, and files of weights directly in models/VQA."""
    found = {
        file.name
        for root in _roots()[: len(folder_paths.get_folder_paths(_KINDS[0]))]
        for file in root.glob("*")
        if file.suffix.lower() in _WEIGHTS and file.is_file()
    }
    return [*sorted(found), *model_folders()]


def feature_model_path(name: str | None) -> Path:
    """Full path of one of `feature_models`; raises JudgeError as `model_path` does."""
    if name and Path(name).suffix.lower() in _WEIGHTS and (path := _first_inside(_roots(), name, os.path.isfile)):
        return path
    return model_path(name)


def picture_set(name: str) -> Path:
    """A folder of pictures or an .npz of statistics, in the input folder or the output folder, linked ones too.

    Raises:
        PromptError: there is none; the message names the folders.
    """
    roots = [folder_paths.get_input_directory(), folder_paths.get_output_directory()]
    path = _first_inside(roots, name, os.path.exists)
    if path is None or not (path.is_dir() or path.suffix.lower() == ".npz"):
        raise PromptError(
            f"There is no folder of pictures and no .npz file {name!r} in {' or '.join(roots)}. Put it there, or check "
            "the name."
        )
    return path


def _roots() -> list[Path]:
    return [Path(folder) for kind in _KINDS for folder in folder_paths.get_folder_paths(kind)]


def check_name(name: str | None) -> bool | str:
    """For validate_inputs: True if `name` can be a file name, else why not."""
    return taken(new_encoder_path, name)


def saved_metadata(path: Path) -> dict[str, str]:
    """The metadata in a safetensors file's header; empty if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
