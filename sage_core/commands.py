"""What the commands of `sage` do; `cli` reads their command lines."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import JudgeError, SettingsError
from .files import whole_file, write_json
from .layouts import read_encoder
from .prompts import PromptPairs, read_concept_pairs, read_pairs, read_prompts
from .settings import PRESETS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .health_report import Level
    from .tifa.questions import Question

_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
_WORSE = 3


def train(options: argparse.Namespace) -> int:
    """`sage train`: the aligned encoder as a file, equal to what the graph's training saves of the same inputs."""
    from .encoder import EncoderConfig, require_sd1, save_encoder
    from .plots import training_curves
    from .runs import train_stored

    settings = PRESETS[options.preset].replace(**{"seed": options.seed} | _changes(options.set))
    pairs = _read_pairs(options)
    _say(pairs.report.summary())
    base = _read_state(options.base)
    require_sd1(EncoderConfig.of(base), str(options.base))
    if options.fp16_base:
        base = {name: tensor.half().float() for name, tensor in base.items()}
    bars = _Bars(options.quiet)
    result, found = train_stored(
        base,
        pairs,
        options.concept,
        settings,
        options.store or options.out.parent / ".sage-runs",
        device=_device(options),
        on_prepare=bars("embedding prompts"),
        on_step=lambda report: bars("training")(report.step, report.steps),
    )
    save_encoder(options.out, result.state, result.metadata)
    if options.curves:
        _save_figure(options.curves, training_curves(result.history))
    last = result.history[-1]
    lines = [f"{'Found' if found else 'Trained'}: {options.out} ({result.metadata['steps']} steps)"]
    lines += [f"{name}: {value:.4g}" for name, value in last.losses.items()]
    if last.geometry:
        lines.append(f"held-out spread ratio {last.geometry.spread_ratio:.3f}, Jaccard {last.geometry.jaccard:.3f}")
    _write(options, result.to_dict() | {"out": str(options.out), "found": found}, "\n".join(lines) + "\n")
    return 0


def geometry(options: argparse.Namespace) -> int:
    """`sage geometry`: measures, verdict and the one-page report; 3 if the verdict is worse than required."""
    from .encoder import TextEncoder
    from .health import GeometrySettings, compare_encoders
    from .plots import DARK, LIGHT
    from .plots_geometry import report_page

    settings = GeometrySettings(embedding=options.embedding, k=options.k)
    prompts = _prompts(options.prompts)
    unsafe = _prompts(options.unsafe) if options.unsafe else ()
    base, aligned = (TextEncoder.from_state(_read_state(path), copy=False) for path in (options.base, options.aligned))
    report = compare_encoders(
        base,
        aligned,
        prompts,
        unsafe,
        settings,
        device=_device(options),
        precision=options.precision,
        on_batch=_Bars(options.quiet)("embedding prompts"),
    )
    if options.page:
        _save_figure(options.page, report_page(report, DARK if options.dark else LIGHT))
    _write(options, report.to_dict(), report.to_markdown())
    allowed: dict[str | None, tuple[Level, ...]] = {"healthy": ("healthy",), "strained": ("healthy", "strained")}
    return 0 if report.verdict.level in allowed.get(options.require, (report.verdict.level,)) else _WORSE


def score(options: argparse.Namespace) -> int:
    """`sage score`: TIFA of a folder of pictures."""
    from .tifa.evaluation import evaluate
    from .tifa.judges import load_judge
    from .tifa.questions import group_by_caption, read_questions
    from .tifa.sentences import SentenceEncoder

    questions, report = read_questions(options.questions)
    _say(report.summary())
    matched = _match(options.pictures, group_by_caption(questions))
    device = _device(options)
    judge = load_judge(options.judge, device=device)
    sentences = SentenceEncoder.from_folder(options.sentences, device=device) if options.sentences else None
    result = evaluate(
        _Pictures(list(matched)),
        list(matched.values()),
        judge,
        sentences=sentences,
        image_ids=[path.stem for path in matched],
        name=options.pictures.name,
        log=options.log,
        on_progress=_Bars(options.quiet)("asking"),
    )
    _write(options, result.to_dict(), result.to_markdown())
    return 0


def extract(options: argparse.Namespace) -> int:
    """`sage extract-lora`: the LoRA file, and what it costs on the prompts if there are any."""
    from .encoder import state_hash
    from .lora import extract_lora, lora_cost, save_lora

    base, aligned = _read_state(options.base), _read_state(options.aligned)
    bars, device = _Bars(options.quiet), _device(options)
    lora = extract_lora(
        base, aligned, rank=options.rank, energy=options.energy, device=device, on_matrix=bars("decomposing")
    )
    hashes = {"base_hash": state_hash(base), "aligned_hash": state_hash(aligned)}
    save_lora(options.out, lora, hashes)
    found: dict[str, Any] = {
        "out": str(options.out),
        "bytes": lora.bytes,
        "kept": lora.kept,
        "left_out": lora.left_out,
        "ranks": lora.ranks,
        **hashes,
    }
    text = f"{options.out}: {lora.summary()}\n"
    if options.prompts:
        prompts = _prompts(options.prompts)
        cost = lora_cost(base, aligned, lora, prompts, device=device, on_batch=bars("embedding prompts"))
        found["cost"] = cost.to_dict()
        text += f"\nThe LoRA's space compared with the aligned encoder's:\n\n{cost.to_markdown()}"
    _write(options, found, text)
    return 0


def _changes(assignments: Sequence[str]) -> dict[str, Any]:
    """Settings from NAME=VALUE; a value is JSON where it can be, else text."""
    changes = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set takes NAME=VALUE, for instance learning_rate=2e-4; found {assignment!r}.")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    return changes


def _read_pairs(options: argparse.Namespace) -> PromptPairs:
    if options.unsafe and options.from_concept:
        raise SettingsError("Unsafe prompts come from --unsafe or from --from-concept; both are given.")
    if options.from_concept:
        return read_concept_pairs(options.pairs, options.concept)
    return read_pairs(options.pairs, options.unsafe)


def _prompts(path: Path) -> tuple[str, ...]:
    prompts, report = read_prompts(path)
    _say(report.summary())
    return prompts


def _read_state(path: Path) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in read_encoder(path)[0].items()}


def _match(folder: Path, captions: Mapping[str, Sequence["Question"]]) -> dict[Path, Sequence["Question"]]:
    """Picture -> the questions of its caption. Raises JudgeError where the names do not fit."""
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    found, strange = {}, []
    for path in pictures:
        caption = path.stem if path.stem in captions else path.stem.rpartition("_")[0]
        if caption in captions:
            found[path] = captions[caption]
        else:
            strange.append(path.name)
    if not found or strange:
        names = f"{strange[0]} and {len(strange) - 1} more" if strange else "no picture at all"
        raise JudgeError(
            f"{folder}: pictures are named by caption ids such as {next(iter(captions))}.png; found {names}."
        )
    return found


class _Pictures(Sequence):
    """Picture files, opened when they are asked for: thousands at once would be too many open files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: Any) -> Any:
        from PIL import Image

        if isinstance(place, slice):
            return _Pictures(self.paths[place])
        return Image.open(self.paths[place])


def _device(options: argparse.Namespace) -> torch.device:
    if options.device:
        try:
            return torch.device(options.device)
        except RuntimeError:
            raise SettingsError(
                f"--device is {options.device!r}; expected cpu, cuda, cuda:1, mps or the like."
            ) from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class _Bars:
    """Progress bars on standard error, one after the other."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bars: dict[str, Any] = {}

    def __call__(self, name: str) -> Callable[[int, int], None]:
        from tqdm import tqdm

        def update(done: int, total: int) -> None:
            if name not in self.bars:
                self.bars[name] = tqdm(total=total, desc=name, disable=self.quiet)
            bar = self.bars[name]
            bar.update(done - bar.n)
            if done == total:
                bar.close()

        return update


def _save_figure(path: Path, figure: "Figure") -> None:
    from .plots import figure_to_image

    with whole_file(path) as temporary:
        figure_to_image(figure).save(temporary, format="PNG")


def _write(options: argparse.Namespace, value: Mapping[str, Any], text: str) -> None:
    if options.report:
        write_json(options.report, value)
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n" if options.json else text)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
