"""Files damaged by chance are refused in words or read as what they are: no traceback, no hang, no undue memory.

`pytest -m full` tries a few hundred; with SAGE_MALFORMED=3000 that many are tried, by SAGE_SEED from other chances.
"""

from __future__ import annotations

import json
import os
import random
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from malformed import Damage, bytes_of, json_of, lines_of, metadata_of, npz_of, safetensors_of
from safetensors.torch import load_file
from tiny_unets import CHECKPOINT_UNET

from sage_core.bench.watch import MemoryWatch
from sage_core.cli.geometry import _read_methods
from sage_core.errors import SageError
from sage_core.evaluation.changes import open_unet
from sage_core.evaluation.checking import check_files
from sage_core.evaluation.distances import _read as read_features
from sage_core.evaluation.drawing import settled_precision
from sage_core.evaluation.layout import Layout, Record, progress
from sage_core.evaluation.plan import Part
from sage_core.evaluation.prompts import read_lists
from sage_core.evaluation.reading import read_plan
from sage_core.evaluation.report import compared, lost_csv
from sage_core.evaluation.scoring import Judges, read_scores
from sage_core.evaluation.tables import all_tables
from sage_core.files import write_json, write_tensors
from sage_core.geometry.estimates import Estimate
from sage_core.geometry.points import _SAME, Point
from sage_core.intervals import Difference, Hits, Interval
from sage_core.methods.gate_file import Gate, GateCard, GateNetwork, load_gate, save_gate
from sage_core.methods.making import _again, what_is
from sage_core.model_folders import read_model_config
from sage_core.prompts.attack_lists import read_attack_list
from sage_core.prompts.concept_files import read_concepts
from sage_core.prompts.pairs import read_pairs, read_prompts
from sage_core.runs.keeping import kept, read_run, save_run, weights_hash
from sage_core.runs.loop import _read_checkpoint
from sage_core.runs.record import StepReport
from sage_core.runs.store import RunStore
from sage_core.scores.clipscore import ClipScores
from sage_core.scores.features import Features
from sage_core.scores.rates import Rate
from sage_core.scores.statistics import Statistics, read_statistics, write_statistics
from sage_core.shapes.bench.report import read_row
from sage_core.shapes.bench.run import Run
from sage_core.shapes.exam.trials import TrialMarks
from sage_core.tifa.questions import read_questions
from sage_core.tifa.result_file import read_result
from sage_core.tifa.scoring import ScoredQuestion, TifaResult
from sage_core.unet.changes import changes, save_changes
from sage_core.unet.files import read_unet
from sage_core.unet.names import reads_prompt, unet_names
from small_worlds import world_plan

COUNT, SEED = int(os.environ.get("SAGE_MALFORMED", "420")), os.environ.get("SAGE_SEED", "0")
# Seconds that nothing may take, bytes for each byte of a file, and bytes that reading anything may take.
LONGEST, FACTOR, FLOOR = 10.0, 4, 2**26
CPU = torch.device("cpu")
KEY = "a" * 32


@dataclass(frozen=True)
class Case:
    """A whole file, how it is damaged, and what is done with it: that returns what was read, ready for JSON."""

    name: str
    path: Path
    damages: Sequence[Damage]
    act: Callable[[], Any]


def plan_cases(folder: Path) -> list[Case]:
    score = 'concept = "skull"\npublished = true\nneighbours = 5\njudge = "reader"'
    methods = (
        '[[method]]\nname = "SLD"\nsld = "max"\nsafety_text = "a skull"\n'
        '[[method]]\nname = "UCE"\n[method.erase]\nmethod = "uce_paper"\nconcepts = ["skull", "bone"]\n'
        "erase_scale = 2\n"
        '[[method]]\nname = "made"\nmake = "sld_max"\nconcepts = "skull"\n[method.settings]\n'
    )
    file = world_plan(folder / "plan", methods, safe=6, attacks=2, draw='steps = 2\nsampler = "ddim"', score=score)
    toml = folder / "plan" / "concepts.toml"
    toml.write_text('[[concepts]]\nname = "skull"\nnames = ["cranium"]\nunseen = ["bones"]\nbecomes = "star"\n')

    def read() -> Any:
        plan = read_plan(file)
        lists = read_lists(plan)
        check_files(plan)
        return [plan.headline, plan.protocol, [[len(each.items), each.folder] for each in lists]]

    return [Case("plan", file, [lines_of, lines_of, lines_of, bytes_of], read)]


def save_edit(path: Path) -> dict[str, torch.Tensor]:
    shapes = unet_names(CHECKPOINT_UNET).shapes
    draw = torch.Generator().manual_seed(0)
    base = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    deltas = {name: 0.1 * torch.randn(shapes[name], generator=draw) for name in shapes if reads_prompt(name)}
    save_changes(path, deltas, {"sage_method": "UCE"}, config=CHECKPOINT_UNET)
    return base


def edit_cases(folder: Path) -> list[Case]:
    path, whole, again = folder / "edit.safetensors", folder / "whole.safetensors", folder / "again.safetensors"
    base = save_edit(path)
    names = unet_names(CHECKPOINT_UNET)
    write_tensors(whole, {f"model.diffusion_model.{names.compvis[name]}": 2 * base[name] for name in base}, {})
    about = {"method": "sld_max", "concepts": ["skull"], "settings": {}}
    write_tensors(again, {"x": torch.zeros(1)}, {"sage_method": "SLD", "sage_change": json.dumps(about)})
    pickle = folder / "edit.pt"
    torch.save(load_file(path), pickle)

    def read(file: Path) -> Any:
        found = changes(read_unet(file, CHECKPOINT_UNET), base)
        assert all(delta.isfinite().all() for delta in found.deltas.values())
        return [found.report.to_dict(), found.report.summary()]

    def read_lora() -> Any:
        found = open_unet(Part(path), CHECKPOINT_UNET, True)
        return found and [found.layout, [list(value.shape) for _, _, value in found.tensors()]]

    return [
        Case("edit", path, [safetensors_of], partial(read, path)),
        Case("edit as LoRA", path, [safetensors_of], read_lora),
        Case("whole U-Net", whole, [safetensors_of], partial(read, whole)),
        Case("pickled edit", pickle, [bytes_of], partial(read, pickle)),
        Case("made file", again, [safetensors_of, partial(metadata_of, name="sage_change")],
             lambda: [what_is(again), repr(_again(again)) if what_is(again) == "settings" else ""]),
    ]  # fmt: skip


def gate_cases(folder: Path) -> list[Case]:
    path = folder / "gate.safetensors"
    torch.manual_seed(0)
    network = GateNetwork(8)
    save_gate(path, Gate(network, GateCard("ab", 0.5, 0.02, 0.01, 0.9, 50, 50, {"steps": 3})))
    given = torch.randn(4, 77, 8)
    wanted = load_gate(path)

    def read() -> Any:
        found = load_gate(path)
        margins = found.margins(given)
        assert not margins.isnan().any()
        if torch.equal(margins, wanted.margins(given)) and found.card == wanted.card:
            return found.card.summary()
        # What differs must have lost what it is compared with, as files of before have none.
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as file:
            assert not {"hash", "sage_card_hash"} <= (file.metadata() or {}).keys(), "a damaged gate loads"
        return found.card.to_dict()

    return [Case("gate", path, [safetensors_of, partial(metadata_of, name="sage_gate_1")], read)]


def statistics_cases(folder: Path) -> list[Case]:
    path, kept_features = folder / "statistics.npz", folder / "features.npz"
    values = np.random.default_rng(0).normal(size=(40, 8))
    features = Features(values, "inception", "Inception, x", "some")
    write_statistics(path, Statistics.of(features))
    np.savez(kept_features, values=values.astype(np.float32), kind="inception", extractor="x", resizing="y")
    damage = partial(npz_of, folder=folder)

    def read() -> Any:
        found = read_statistics(path)
        assert np.isfinite(found.mu).all() and np.array_equal(found.sigma, found.sigma.T)
        return [found.mu.tolist(), found.count, found.extractor, found.kind]

    def read_kept() -> Any:
        found = read_features(kept_features)
        return found and [found.values.tolist(), found.kind, found.extractor]

    return [Case("statistics", path, [damage], read), Case("features", kept_features, [damage], read_kept)]


def list_cases(folder: Path) -> list[Case]:
    folder = folder / "lists"
    folder.mkdir()
    exam = read_questions(folder.parent / "plan" / "questions.json")[0]
    prompts, pairs = ["a red ball", "two cats", 'a "dog", in fog'], [("a ball", "a skull"), ("a cat", "two skulls")]
    questions = (folder.parent / "plan" / "questions.json").read_text()
    concept = {"name": "skull", "names": ["cranium"], "unseen": ["bones"], "becomes": "star", "unsafe": ["p.txt"]}
    i2p = "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,sd_safety_percentage,"
    i2p += "prompt_toxicity,lexica_url,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height,sd_model\n"
    i2p += "a dog,x,0,1,1,1,1,0,u,5,7.5,512,512,SD 1.5\n" * 3
    scored = TifaResult("run", "judge", "likelihood", tuple(ScoredQuestion("i", each, "a", "a", 0.5) for each in exam))
    log = "".join(
        json.dumps({**each.to_row(), "image": "i", "image_fingerprint": "m", "judge": "j", "free_answer": each.answer,
                    "probabilities": [1 / len(each.choices)] * len(each.choices)}) + "\n" for each in exam
    )  # fmt: skip
    tifa = Difference(0.9, 0.8, Interval(-0.2, 0.1))
    point = Point("one", Estimate(0.9, 0.8, 1.0), Estimate(0.5, 0.4, 0.6), tifa, dict.fromkeys(_SAME, "x")).to_dict()
    found: list[tuple[str, str, Damage, Callable[[Path], Any]]] = [
        ("p.txt", "\n".join(prompts), lines_of, read_prompts),
        ("p.csv", 'prompt\n"a red, ball"\ntwo cats\n"a ""dog"""', lines_of, read_prompts),
        ("p.json", json.dumps(prompts), json_of, read_prompts),
        ("p.jsonl", "\n".join(json.dumps({"prompt": text}) for text in prompts), lines_of, read_prompts),
        ("pairs.csv", "safe,unsafe\n" + "\n".join(map(",".join, pairs)), lines_of, read_pairs),
        ("pairs.json", json.dumps([{"safe": one, "unsafe": other} for one, other in pairs]), json_of, read_pairs),
        ("q.json", questions, json_of, read_questions),
        ("i2p.csv", i2p, lines_of, read_attack_list),
        ("c.json", json.dumps({"concepts": [concept]}), json_of, read_concepts),
        ("c.toml", (folder.parent / "plan" / "concepts.toml").read_text(), lines_of, read_concepts),
        ("tifa.json", json.dumps(scored.to_dict()), json_of, lambda path: read_result(path).to_dict()),
        ("log.jsonl", log, lines_of, lambda path: read_result(path).to_dict()),
        ("report.json", json.dumps({"method": point}), json_of, lambda path: _read_methods([path])),
    ]  # fmt: skip
    cases = []
    for name, text, damage, read in found:
        (folder / name).write_text(text)
        cases.append(Case(name, folder / name, [damage, damage, bytes_of], lambda r=read, n=name: repr(r(folder / n))))
    config = folder / "model" / "config.json"
    config.parent.mkdir()
    write_tensors(config.parent / "model.safetensors", {"x": torch.zeros(1)}, {})
    config.write_text(json.dumps({"model_type": "clip", "hidden_size": 8, "text_config": {"num_hidden_layers": 2}}))
    return [
        *cases,
        Case("config.json", config, [json_of], lambda: repr(read_model_config(config.parent, "CLIP", ["x"]))),
    ]


def output_cases(folder: Path) -> list[Case]:
    clip = folder / "output" / "clip"
    clip.mkdir(parents=True)
    (clip / "config.json").write_text('{"model_type": "clip"}')
    write_tensors(clip / "model.safetensors", {"x": torch.zeros(1)}, {})
    what = 'what = ["tifa", "attacks", "clipscore", "kid"]\nclip = "clip"\nfeatures = "clip"\nconcept = "skull"'
    file = world_plan(folder / "output", safe=6, attacks=2, draw="steps = 1\nbatch = 4", score=what)
    plan = read_plan(file)
    lists = read_lists(plan)
    layout = Layout(plan, lists)
    for job in layout.jobs():
        for picture in job.files:
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(b"picture" * 20)
        sha = "76a1ff5d0a4c3d8f6e0fbc4d0e4cf0e7"
        rows = tuple({"file": item.file, "id": item.id, "seed": item.seed, "sha256": sha} for item in job.items)
        write_json(job.record, Record(rows, 140 * len(rows), 1.5, "CPU", "fp32").to_dict())
    bench = Judges(layout, CPU)
    captions = bench.captions
    for number, method in enumerate(plan.methods):
        asked = [
            ScoredQuestion(item.id, each, each.choices[number % len(each.choices)], each.answer, 0.5 + 0.1 * number)
            for item in captions.items for each in captions.questions[item.source]
        ]  # fmt: skip
        write_json(bench.file(method, "tifa"), TifaResult(method.name, "j", "likelihood", tuple(asked)).to_dict())
        cosines = tuple(0.2 + 0.01 * place for place in range(sum(len(each.items) for each in bench.harmless)))
        write_json(bench.file(method, "clipscore"), ClipScores("clip", cosines, 0).to_dict())
        rates = {each.name: [Rate("skull", "j", (True,) * len(each.items)).to_dict()] for each in bench.attacks}
        write_json(bench.file(method, "attacks"), rates)
        column = {"value": 0.5, "low": 0.4, "high": 0.6, "digits": 5}
        write_json(bench.file(method, "kid"), {"columns": {"KID to base": column}, "notes": ["a note"]})
    settled_precision(layout, CPU)

    def read() -> Any:
        found = Layout(plan, lists)
        scores = read_scores(found)
        comparisons = compared(scores)
        tables = all_tables(plan, scores, comparisons, {})
        texts = [
            [each.shown.to_markdown(), each.shown.to_html(), each.shown.to_latex(), each.to_csv()] for each in tables
        ]
        done = progress(found)
        return [texts, lost_csv(comparisons), done.to_dict(), done.summary(), settled_precision(found, CPU)]

    job, method = layout.jobs()[0], plan.methods[1]
    files = {name: bench.file(method, name) for name in ("tifa", "clipscore", "attacks", "kid")}
    files |= {
        "record": job.record,
        "hashes": layout.output / "hashes.json",
        "precision": layout.output / "precision.json",
    }
    marks = TrialMarks(0.9, 0.8, None, 0.7, {"color": 0.5}, 0.9, {"seen": Hits(1, 2)}, {"bone": Hits(0, 2)}, None, None)
    write_json(folder / "row.json", Run("skull", "one", 0, marks, 1.0, 2.0).to_dict())
    row = Case("row", folder / "row.json", [json_of, bytes_of],
               lambda: read_row(folder / "row.json", "two", Run.from_dict).to_dict())  # fmt: skip
    return [row, *(Case(name, path, [json_of, json_of, bytes_of], read) for name, path in files.items())]


def store_cases(folder: Path) -> list[Case]:
    store = folder / "runs"
    weights, report = (store / f"{KEY}{end}" for end in (".safetensors", ".json"))
    checkpoint = store / f"{'b' * 32}.checkpoint"
    tensors = {"weight": torch.ones(3)}
    about = {"method": "slope", "steps": "2", "hash": weights_hash(tensors)}
    history = [StepReport(step, 2, {"total": 1.0}, 0.1, 0.5) for step in (1, 2)]
    store.mkdir()
    save_run(weights, write_tensors, tensors, about, history)
    torch.save({"key": KEY, "step": 1, "seconds": 1.0, "model": tensors, "optimizer": {}, "history": []}, checkpoint)

    def read() -> Any:
        def again(_: Path) -> Any:
            raise FileNotFoundError

        listed = [run.summary() for run in RunStore(store).runs()]
        found, _ = kept(store, KEY, make=again, save=lambda *_: None, needed=1,
                        read=lambda path: read_run(path, load_file, weights_hash, ("method",)))  # fmt: skip
        assert torch.equal(found[0]["weight"], tensors["weight"]), "changed weights are handed on"
        return [listed, found[1]]

    def resume() -> Any:
        return [[run.summary() for run in RunStore(store).runs()], repr(_read_checkpoint(checkpoint, CPU))]

    return [
        Case("report", report, [json_of, bytes_of], read),
        Case("weights", weights, [safetensors_of], read),
        Case("checkpoint", checkpoint, [bytes_of], resume),
    ]


def tried(case: Case, number: int, watch: MemoryWatch, usual: float) -> str | None:
    """What is wrong with how one damaged file is met; None if nothing. `usual` bytes are taken by the whole one."""
    chance = random.Random(zlib.crc32(f"{case.name} {SEED} {number}".encode()))
    whole = case.path.read_bytes()
    content = chance.choice(case.damages)(whole, chance)
    case.path.write_bytes(content)
    watch.reset()
    start, before = time.monotonic(), watch.peak() or 0
    problem = None
    try:
        json.dumps(case.act(), allow_nan=False)
    except SageError as error:
        problem = None if str(error).strip() else "an error without words"
    except Exception:
        problem = traceback.format_exc(limit=-3)
    seconds, taken = time.monotonic() - start, ((watch.peak() or 0) - before) * 2**30
    case.path.write_bytes(whole)
    if seconds > LONGEST:
        problem = f"{problem or ''} {seconds:.0f} s"
    if taken > FACTOR * len(content) + FLOOR + usual:
        problem = f"{problem or ''} {taken / 2**20:.0f} MiB for {len(content) / 2**20:.1f}"
    return problem and f"{case.name}, number {number}: {problem}"


@pytest.mark.full
def test_what_is_damaged_by_chance_is_refused_in_words_or_read_as_it_is(tmp_path: Path) -> None:
    makers = (plan_cases, edit_cases, gate_cases, statistics_cases, list_cases, output_cases, store_cases)
    cases = [case for make in makers for case in make(tmp_path)]
    usual = {}
    for case in cases:
        with MemoryWatch(CPU) as watch:
            # Whole it is read without a word.
            json.dumps(case.act(), allow_nan=False)
            usual[case.name] = (watch.peak() or 0) * 2**30
    turns = [(cases[number % len(cases)], number) for number in range(COUNT)]
    with MemoryWatch(CPU) as watch:
        found = list(filter(None, (tried(case, number, watch, usual[case.name]) for case, number in turns)))
    assert not found, f"{len(found)} of {COUNT}:\n" + "\n".join(found[:40])
