"""A plan of the shapes world with every file that it names: it runs on a laptop, and compares nine methods.

Four text encoders and a gate are trained, briefly, on pairs that no prompt of the plan holds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..alignment.settings import PRESETS
from ..alignment.training import train_stored
from ..encoders.text_encoder import TextEncoder, save_encoder
from ..errors import SettingsError
from ..files import check_writable, write_text
from ..methods.gate import GateSettings, train_gate
from ..methods.gate_file import save_gate
from ..prompts.pairs import pairs_from_lists
from ..runs.record import StepReport
from ..tifa.questions import write_questions
from .ask import ask
from .captions import CONCEPT, matched_pairs, write_captions
from .networks.weights import load_packed
from .scenes import sample_scenes
from .tasks import TASKS

# Name in tables -> preset of the alignment.
ENCODERS = {"DES": "des", "SAGE released": "released", "SAGE paper": "paper", "SAGE+": "sage_plus"}
# A step costs a CPU a second or two: few, and large ones.
_SHORT = {"batch_size": 32, "epochs": 1, "steps": 40, "learning_rate": 3e-4, "held_out": 0}
_PAIRS = 512
# Far from the seeds of training, and of the demo's prompts.
_SEED = 40_000
_KEPT = 60


def write_shapes_plan(
    file: Path,
    *,
    captions: int = 48,
    attacks: int = 24,
    steps: int = 40,
    pairs: int = _PAIRS,
    device: torch.device | str = "cpu",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write a plan of base, DES, SAGE in three forms, UCE, RECE, SLD and a gate, and the files that it needs.

    Args:
        file: the plan; the other files lie next to it. Trainings that an earlier call finished are not done again.
        captions: with questions.
        attacks: prompts that ask for a skull by names that training sees, and as many by others.
        steps, pairs: of each training.
        device: to train on.
        on_progress: called with (what, step, steps); may raise to stop, and a stopped training goes on.

    Raises:
        SettingsError: there is a plan already.
        FileError: the folder cannot be written.
    """
    if file.exists():
        raise SettingsError(f"{file} is there already. Choose another name, or delete it.")
    check_writable(file)
    folder = file.parent
    scenes = sample_scenes(captions, seed=_SEED, unsafe=False, split="any")
    texts = write_captions(scenes, seed=_SEED, names="seen")
    write_questions(folder / "questions.json", [question for asked in ask(scenes, texts) for question in asked])
    for number, names in enumerate(("seen", "unseen"), 1):
        prompts = matched_pairs(attacks, seed=_SEED + number, names=names, split="any").unsafe
        write_text(folder / f"{names}_names.txt", "\n".join(prompts) + "\n")
    kept = sample_scenes(_KEPT, seed=_SEED + 3, unsafe=False, split="train")
    write_text(folder / "keep.txt", "\n".join(dict.fromkeys(write_captions(kept, seed=_SEED + 3, names="seen"))) + "\n")
    _train(folder, steps, pairs, torch.device(device), on_progress)
    # Last, since its presence says that the rest is there.
    write_text(file, _plan())


def _train(
    folder: Path, steps: int, count: int, device: torch.device, on_progress: Callable[[str, int, int], None] | None
) -> None:
    """The text encoders, and a gate on the base's states."""
    base = load_packed("text_encoder")[0]
    found = matched_pairs(count, seed=_SEED + 4, names="seen")
    pairs = pairs_from_lists(found.safe, found.unsafe)

    def told(what: str) -> Callable[[StepReport], None]:
        return lambda report: on_progress(what, report.step, report.steps) if on_progress else None

    for name, preset in ENCODERS.items():
        settings = PRESETS[preset].replace(**{**_SHORT, "steps": steps})
        store = folder / ".sage-runs"
        result, _ = train_stored(base, pairs, CONCEPT, settings, store, device=device, on_step=told(f"training {name}"))
        save_encoder(folder / f"{preset}.safetensors", result.state, result.metadata)
    encoder = TextEncoder.from_state(base).to(device)
    gate = train_gate(encoder, pairs.safe, pairs.unsafe, GateSettings(), on_step=told("training the gate"))
    save_gate(folder / "gate.safetensors", gate)


def _plan() -> str:
    names = [name.text for concept in TASKS[CONCEPT].concepts for name in concept.seen]
    listed = ", ".join(f'"{name}"' for name in names)
    methods = [
        f'[[method]]\nname = "{name}"\ntext_encoder = "{preset}.safetensors"' for name, preset in ENCODERS.items()
    ]
    methods += [
        f'[[method]]\nname = "{title}"\n[method.erase]\nmethod = "{name}"\nconcepts = [{listed}]\nguides = ["ball"]\n'
        f'keep = "keep.txt"{more}'
        # RECE's published three rounds meet what this small U-Net is to keep; one, with more weight on it, does not.
        for title, name, more in (("UCE", "uce_paper", ""), ("RECE", "rece", "\nrounds = 1\nkeep_scale = 1.0"))
    ]
    methods.append(f'[[method]]\nname = "SLD"\nsld = "max"\nsafety_text = "{", ".join(names)}"')
    methods.append('[[method]]\nname = "gate"\ngate = "gate.safetensors"\ntext_encoder = "sage_plus.safetensors"')
    return _HEAD.format(concept=CONCEPT) + "\n" + "\n\n".join(methods) + "\n"


_HEAD = """\
# A plan of the shapes world for `sage evaluate`: nine methods against the skull, on any machine.

output = "evaluation"
base = "shapes"

[draw]
steps = 10
guidance = 4.0

[prompts]
questions = "questions.json"

[[prompts.attack]]
name = "names seen"    # in training
file = "seen_names.txt"

[[prompts.attack]]
name = "other names"
file = "unseen_names.txt"

[score]
judge = "reader"       # a program that reads pixels, no part of any training
concept = "{concept}"
"""
