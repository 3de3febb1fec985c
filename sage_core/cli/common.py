"""What the commands of `sage` do; `cli` reads their command lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..alignment.settings import PRESETS
from ..encoders.layouts import EncoderConfig, read_encoder, require_positions, require_sd1
from ..errors import JudgeError, PromptError, SettingsError
from ..files import whole_file, write_json
from ..geometry.report import GeometryReport, Level
from ..plots import DARK, LIGHT, Theme, figure_to_image
from ..prompts.pairs import PromptPairs, read_concept_pairs, read_pairs, read_prompts
from ..tables import table_cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..tifa.questions import Question

_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
_WORSE = 3
# Prompts whose neighbours are shown where none is named.
_MOST_HURT = 6


def train(options: argparse.Namespace) -> int:
    """`sage train`: the aligned encoder as a file, equal to what the graph's training saves of the same inputs."""
    from ..alignment.store import train_stored
    from ..encoders.text_encoder import save_encoder
    from ..runs.curves import training_curves

    _check_out("--out", options.out)
    device = _device(options)
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
        device=device,
        free_memory=_free_memory(device),
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
    from ..geometry.page import report_page

    unsafe = _prompts(options.unsafe) if options.unsafe else ()
    report = _compare(options, _prompts(options.prompts), unsafe)
    if options.page:
        _save_figure(options.page, report_page(report, _theme(options)))
    _write(options, report.to_dict(), report.to_markdown())
    allowed: dict[str | None, tuple[Level, ...]] = {"healthy": ("healthy",), "strained": ("healthy", "strained")}
    return 0 if report.verdict.level in allowed.get(options.require, (report.verdict.level,)) else _WORSE


def neighbours(options: argparse.Namespace) -> int:
    """`sage neighbours`: the nearest prompts of those given, or of the most hurt ones, before and after."""
    from ..geometry.page import neighbour_lists

    chosen = list(dict.fromkeys(options.prompt))
    report = _compare(options, list(dict.fromkeys([*chosen, *_prompts(options.prompts)])))
    rows = list(range(len(chosen))) or list(report.most_hurt[:_MOST_HURT])
    if options.page:
        _save_figure(options.page, neighbour_lists(report, rows, _theme(options)))
    found = [report.prompt_row(row) | report.neighbours_of(row) for row in rows]
    text = "\n".join([*map(report.neighbours_markdown, rows), report.provenance()])
    _write(options, report.about() | {"neighbours": found}, text + "\n")
    return 0


def drift(options: argparse.Namespace) -> int:
    """`sage drift`: how far each prompt moved, the furthest first; 3 if one moved further than allowed."""
    from ..prompts.everyday import REFERENCE_PROMPTS

    own = _prompts(options.prompts)
    among = _prompts(options.among) if options.among else REFERENCE_PROMPTS
    report = _compare(options, list(dict.fromkeys([*own, *among])))
    found = sorted((report.prompt_row(row) for row in range(len(own))), key=lambda each: -each["drift"])
    beyond = sum(each["drift"] > options.above for each in found) if options.above is not None else None
    lines = ["| prompt | drift | Jaccard |", "| --- | --- | --- |"]
    lines += [f"| {table_cell(each['prompt'])} | {each['drift']:.2f} | {each['jaccard']:.2f} |" for each in found]
    if beyond is not None:
        lines += ["", f"{beyond:,} of {len(own):,} prompts drifted further than {options.above:g}."]
    known = report.about() | {"above": options.above, "beyond": beyond, "drift": found}
    _write(options, known, "\n".join([*lines, "", report.provenance()]) + "\n")
    return _WORSE if beyond else 0


def score(options: argparse.Namespace) -> int:
    """`sage score`: TIFA of a folder of pictures."""
    from ..tifa.evaluation import evaluate
    from ..tifa.judges.base import load_judge
    from ..tifa.questions import group_by_caption, read_questions
    from ..tifa.sentences import SentenceEncoder

    device = _device(options)
    questions, report = read_questions(options.questions)
    _say(report.summary())
    captions = group_by_caption(questions)
    matched, missing = _match(options.pictures, captions)
    if missing:
        _say(f"{len(missing):,} of {len(captions):,} captions have no picture (the first: {missing[0]}).")
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
    found = result.to_dict() | {"captions_in_questions": len(captions), "captions_without_picture": missing}
    _write(options, found, result.to_markdown())
    return 0


def extract(options: argparse.Namespace) -> int:
    """`sage extract-lora`: the LoRA file, and what it costs on the prompts if there are any."""
    from ..encoders.lora import apply_lora, extract_lora, save_lora
    from ..encoders.text_encoder import TextEncoder, state_hash
    from ..geometry.comparison import GeometrySettings, compare_encoders

    _check_out("OUT", options.out)
    bars, device = _Bars(options.quiet), _device(options)
    prompts = _prompts(options.prompts) if options.prompts else ()
    if len(prompts) == 1:
        raise PromptError(f"{options.prompts} holds 1 prompt; expected 2 or more, whose neighbours are compared.")
    base, aligned = _read_state(options.base), _read_state(options.aligned)
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
    if prompts:
        settings = GeometrySettings(k=min(GeometrySettings.k, len(prompts) - 1))
        encoders = TextEncoder.from_state(aligned), TextEncoder.from_state(apply_lora(base, lora.tensors))
        cost = compare_encoders(
            *encoders, prompts, settings=settings, device=device, on_batch=bars("embedding prompts")
        )
        found["cost"] = cost.to_dict()
        text += f"\nThe LoRA's space compared with the aligned encoder's:\n\n{cost.to_markdown()}"
    _write(options, found, text)
    return 0


def _compare(options: argparse.Namespace, prompts: Sequence[str], unsafe: Sequence[str] = ()) -> GeometryReport:
    """The two encoders of a command line on these prompts."""
    from ..encoders.text_encoder import TextEncoder
    from ..geometry.comparison import GeometrySettings, compare_encoders

    device = _device(options)
    settings = GeometrySettings(embedding=options.embedding, k=options.k)
    base, aligned = (TextEncoder.from_state(_read_state(path), copy=False) for path in (options.base, options.aligned))
    return compare_encoders(
        base,
        aligned,
        prompts,
        unsafe,
        settings,
        device=device,
        precision=options.precision,
        on_batch=_Bars(options.quiet)("embedding prompts"),
    )


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
    state = {name: tensor.float() for name, tensor in read_encoder(path)[0].items()}
    require_positions(EncoderConfig.of(state), str(path))
    return state


def _check_out(name: str, path: Path) -> None:
    # Before any work: under another suffix other programs would take the file for a pickle.
    if path.suffix.lower() != ".safetensors":
        raise SettingsError(f"{name} is '{path}'; expected a file name that ends in .safetensors.")


def _match(
    folder: Path, captions: Mapping[str, Sequence[Question]]
) -> tuple[dict[Path, Sequence[Question]], list[str]]:
    """Picture -> the questions of its caption, and the captions that have none. Raises JudgeError for other names."""
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    found, strange, missing = {}, [], dict.fromkeys(captions)
    for path in pictures:
        caption = path.stem if path.stem in captions else path.stem.rpartition("_")[0]
        if caption in captions:
            found[path] = captions[caption]
            missing.pop(caption, None)
        else:
            strange.append(path.name)
    if not found or strange:
        names = f"{strange[0]} and {len(strange) - 1} more" if strange else "no picture at all"
        raise JudgeError(
            f"{folder}: pictures are named by caption ids such as {next(iter(captions))}.png; found {names}."
        )
    return found, list(missing)


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
            device = torch.device(options.device)
            # A number there and back: a device's name may be right where there is no such device.
            torch.zeros(1, device=device).item()
            return device
        except (RuntimeError, AssertionError, ImportError):
            # PyTorch's own words may be a page long.
            found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
            found += ["mps"] * torch.backends.mps.is_available()
            raise SettingsError(
                f"--device is {options.device!r}; expected one that this machine and its PyTorch have: "
                f"{', '.join(found)}."
            ) from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _free_memory(device: torch.device) -> int | None:
    """Bytes that a training may take, where the device says what is free."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


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


def _theme(options: argparse.Namespace) -> Theme:
    return DARK if options.dark else LIGHT


def _save_figure(path: Path, figure: Figure) -> None:
    with whole_file(path) as temporary:
        figure_to_image(figure).save(temporary, format="PNG")


def _write(options: argparse.Namespace, value: Mapping[str, Any], text: str) -> None:
    if options.report:
        write_json(options.report, value)
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n" if options.json else text)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
