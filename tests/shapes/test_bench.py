"""The bench: marks against hand-made answers, what a run makes and keeps, one whole run at toy size."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from sage_core.alignment import training
from sage_core.alignment.settings import PRESETS
from sage_core.errors import SettingsError
from sage_core.intervals import Hits
from sage_core.methods.closed_form import oce, rece
from sage_core.methods.erasing import ErasingSettings
from sage_core.methods.gate import GatedPrompts, GateSettings
from sage_core.runs.loop import Loop
from sage_core.shapes.bench import run
from sage_core.shapes.bench.methods import METHODS, Ground, Part, Tried, alignment, as_tried
from sage_core.shapes.bench.options import SIZES, Size
from sage_core.shapes.bench.run import compare, main, read_methods
from sage_core.shapes.exam import trials
from sage_core.shapes.exam.attacked import KINDS, AdaptiveSettings
from sage_core.shapes.exam.trials import ModelPainter, Trial, TrialMarks, TrialSettings
from sage_core.shapes.render import render
from sage_core.shapes.scenes import concatenate
from sage_core.shapes.tasks import TASKS
from small_worlds import left_behind


def test_objectives_from_a_file(tmp_path):
    path = tmp_path / "objectives.json"
    path.write_text(
        '{"mine": {"learning_rate": 1e-4, "keep_mse": 5.0}, "theirs": {}, '
        '"printed": {"preset": "paper", "local_form": "product"}}'
    )
    objectives = read_methods(path)
    assert objectives["mine"] == alignment(PRESETS["released"].replace(learning_rate=1e-4, keep_mse=5.0))
    assert objectives["theirs"] == alignment(PRESETS["released"])
    assert objectives["printed"] == alignment(PRESETS["paper"].replace(local_form="product"))
    for content, message in (
        ("[]", "expected"), ("{}", "expected"), ('{" ": {}}', "expected"), ("{", "JSON"),
        ('{"a": {"lr": 1}}', "a"), ('{"base": {}}', "another name"),
        ('{"a": {"preset": "papers"}}', "preset is 'papers'; expected one of paper"),
        ('{"a": {"preset": []}}', "preset"),
    ):  # fmt: skip
        path.write_text(content)
        with pytest.raises(SettingsError, match=message):
            read_methods(path)


def test_built_in_methods_differ():
    for size in SIZES.values():
        made = [json.dumps(method.about(), sort_keys=True) for method in size.methods.values()]
        assert len(set(made)) == len(made) >= 3
        assert "base" in size.methods


def test_a_run_until_removed_keeps_what_it_knows_by():
    held_out = [as_tried(METHODS[name], "bf16").parts[0].settings.held_out for name in ("own_concept", "sage_plus")]
    assert held_out == [PRESETS["own_concept"].held_out, 0] and held_out[0] > 0


def test_own_pairs_have_as_many_captions_as_asked_for(world, monkeypatch):
    asked: dict[str, object] = {}

    def made(task, encoder, count, **options):
        asked.update(options, count=count)
        return SimpleNamespace(pairs=task.pairs(8, seed=1))

    monkeypatch.setattr(run, "own_pairs", made)
    run.ground_of(world, {}, TASKS["skull"], 2, 32, short=0.4, own=True, captions=128)
    assert asked == {"count": 32, "seed": 102, "short": 0.4, "captions": 128}


TOY = TrialSettings(prompts=4, near=2, unsafe=3, steps=1, hard_steps=1)


@pytest.mark.full
def test_a_whole_run_at_toy_size(weights, tmp_path, monkeypatch, capsys):
    chosen = {name: SIZES["quick"].methods[name] for name in ("base", "des", "sage_plus", "uce_paper")}
    chosen = {name: method.aligned(batch_size=20, steps=2) for name, method in chosen.items()}
    monkeypatch.setitem(run.SIZES, "quick", Size(chosen, ("red star",), pairs=40, seeds=1, trial=TOY))
    arguments = ["--output", str(tmp_path), "--weights", str(weights), "--quick", "--device", "cpu"]
    assert main(arguments) == 0
    content = json.loads((tmp_path / "bench.json").read_text())
    assert [(run["method"], run["seed"]) for run in content["runs"]] == [(name, 0) for name in chosen]
    assert content["about"]["command"].endswith("--quick --device cpu")
    found = content["tables"]["red star"]
    assert found["base"]["spread_ratio"]["mean"] is None and found["des"]["spread_ratio"]["mean"] > 0
    assert content["runs"][1]["make_seconds"] > 0 and content["runs"][1]["marks"]["tifa_near"] is not None
    text = (tmp_path / "bench.md").read_text()
    assert "the reader read" in text and "| sage_plus | 1 |" in text and "## red star" in text
    for name in ("tifa_by_type", "spread_and_tifa"):
        assert Image.open(tmp_path / f"red_star_{name}.png").width > 600
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained what an earlier bench had trained"))
    left = left_behind(tmp_path / "runs")
    assert main(arguments) == 0
    assert json.loads((tmp_path / "bench.json").read_text()) == content and not left.exists()
    for wrong, message in ((["--method", "sega"], "--method is 'sega'"), (["--task", "moon"], "moon")):
        with pytest.raises(SystemExit):
            main([*arguments, *wrong])
        assert message in capsys.readouterr().err


def test_trials_of_different_seeds_and_trainings_share_no_prompt(world):
    for task in TASKS.values():
        trials = [Trial(world.model, world.contrast, task, TOY.replace(prompts=20, seed=seed)) for seed in (1, 2, 1001)]
        captions = [set(trial.captions + trial.near + trial.unsafe["seen"]) for trial in trials]
        assert not captions[0] & captions[1] and not captions[0] & captions[2] and not captions[1] & captions[2]
        trained = [task.pairs(300, seed=100 + seed, short=0.25) for seed in range(3)]
        asked = {prompt for trial in trials for prompt in trial.prompts}
        for pairs in trained:
            assert not asked & {*pairs.safe, *pairs.unsafe}, task.name


def test_a_trial_counts_what_the_pictures_show(world, monkeypatch):
    task = TASKS["red star"]
    trial = Trial(world.model, world.contrast, task, TOY)
    shown: list[str] = []

    class Truth:
        """Draws what each prompt asks for, by rendering its scene; red stars only where a name was seen."""

        encoder = None

        def draw(self, prompts, *, steps, weight):
            shown.append(f"{len(prompts)} in {steps} at {weight}")
            return torch.zeros(len(prompts), 3, 64, 64)

    blank = trial.mark(Truth())
    assert shown == [f"{len(trial.prompts)} in 1 at 4.0", "4 in 1 at 4.0"]
    assert all(hits.k == 0 for hits in blank.attack.values())
    assert {kind: hits.n for kind, hits in blank.attack.items()} == dict.fromkeys(trial.unsafe, 3)
    assert sum(hits.n for hits in blank.by_name.values()) == 3 and blank.spread_ratio is None
    assert blank.near_short == Hits(0, 2)
    monkeypatch.setattr(type(task), "shown", lambda *_: True)
    assert all(hits.k == hits.n == 3 for hits in trial.mark(Truth()).attack.values())
    assert TrialMarks.from_dict(json.loads(json.dumps(blank.to_dict()))) == blank


def test_rendered_scenes_get_full_marks(world):
    task, settings = TASKS["skull"], TOY.replace(prompts=20)
    trial = Trial(world.model, world.contrast, task, settings)
    seed = trials._FIRST_SEED
    scenes = concatenate([task.safe_scenes(10, seed=seed + i, split=s) for i, s in enumerate(("train", "held_out"))])
    unsafe = task.unsafe_scenes(task.concepts[0], 3, seed=seed + 20)

    class Renderer:
        encoder = None

        def draw(self, prompts, *, steps, weight):
            pictures = render(scenes, seed=1)
            if len(prompts) == 20:
                return pictures
            # The last two are to show what short prompts of near misses name, and show skulls.
            return torch.cat([pictures, *[render(unsafe, seed=2)] * len(trial.unsafe), render(unsafe[:2], seed=3)])

    marks = trial.mark(Renderer())
    assert marks.tifa > 0.98 and marks.tifa_near is None
    assert all(hits.share == 1 for hits in marks.attack.values()) and marks.near_short == Hits(0, 2)


def test_an_edited_model_is_a_copy(world):
    ground = Ground(world.model, world.model.encoder.state(), TASKS["skull"], TASKS["skull"].pairs(8, seed=1), 0)
    before = {name: tensor.clone() for name, tensor in world.model.unet.state_dict().items()}
    painter = ModelPainter(world.model, METHODS["uce_paper"].make(ground))
    changed = [
        name for name, tensor in painter.model.unet.state_dict().items() if not torch.equal(tensor, before[name])
    ]
    assert changed and all("attn2.to_" in name for name in changed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in world.model.unet.state_dict().items())


def test_two_defences_share_one_encoder_that_is_trained_once(world, tmp_path, monkeypatch):
    task = TASKS["red star"]
    ground = Ground(world.model, world.model.encoder.state(), task, task.pairs(40, seed=1), 0, tmp_path)
    before, base = world.model.unet.state_dict(), world.model.encoder.state()
    painters = []
    for name in ("sage_plus with uce_paper", "sage_plus with rece"):
        method = METHODS[name].aligned(batch_size=20, steps=1, held_out=0, precision="fp32")
        painters.append(ModelPainter(world.model, method.make(ground)))
        monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained what another method had trained"))
    for painter in painters:
        assert any(not torch.equal(tensor, before[key]) for key, tensor in painter.model.unet.state_dict().items())
        assert any(not torch.equal(tensor, base[key]) for key, tensor in painter.encoder.state().items())
    one, other = (painter.encoder.state() for painter in painters)
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    edited, again = (painter.model.unet.state_dict() for painter in painters)
    assert any(not torch.equal(tensor, again[key]) for key, tensor in edited.items())


def test_a_redirected_unet_is_trained_once_for_one_store(world, tmp_path, monkeypatch):
    task = TASKS["red star"]
    ground = Ground(world.model, world.model.encoder.state(), task, task.pairs(8, seed=1), 0, tmp_path)
    before = {name: tensor.clone() for name, tensor in world.model.unet.state_dict().items()}
    short = (
        METHODS["sage_unet"]
        .parts[0]
        .settings.replace(steps=1, batch_size=1, keep_batch=1, pictures=1, sampling_steps=1, learning_rate=1e-3)
    )
    alone = Tried((Part("sage_unet", short),))
    assert alone.about() == {"method": "sage_unet", **short.to_dict()}
    painter = ModelPainter(world.model, alone.make(ground))
    assert painter.encoder is None and len(list(tmp_path.glob("*.safetensors"))) == 1
    edited = painter.model.unet.state_dict()
    changed = [name for name in before if not torch.equal(edited[name], before[name])]
    assert changed and all("attn2" in name for name in changed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in world.model.unet.state_dict().items())
    monkeypatch.setattr(Loop, "run", lambda *_: pytest.fail("trained what another method had trained"))
    again = ModelPainter(world.model, alone.make(ground)).model.unet.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in edited.items())


def test_closed_forms_take_everyday_captions_as_texts_to_keep_or_as_a_prior(world, monkeypatch):
    given = {}
    for kind in (rece, oce):
        name = kind.__name__.rpartition(".")[2]

        def listen(weights, encoder, concepts, chosen, name=name, edit=kind.edit):
            given[name] = concepts, chosen
            return edit(weights, encoder, concepts, chosen)

        monkeypatch.setattr(kind, "edit", listen)
    task = TASKS["red star"]
    ground = Ground(world.model, world.model.encoder.state(), task, task.pairs(8, seed=1), 0)
    for name in ("rece", "oce"):
        before = world.model.unet.state_dict()
        after = ModelPainter(world.model, METHODS[name].make(ground)).model.unet.state_dict()
        assert any(not torch.equal(tensor, before[key]) for key, tensor in after.items())
    (told, rounds), (other, strength) = given["rece"], given["oce"]
    assert told.erase == other.erase == tuple(name.text for concept in task.concepts for name in concept.seen)
    assert len(told.preserve) == len(other.captions) == 150 and other.preserve == told.captions == ()
    assert set(told.guides) == set(other.guides) == {"ball"}
    assert (rounds.epochs, rounds.preserve_scale, strength.erase_scale) == (1, 1.0, 30.0)


def test_esd_trains_cross_attention_by_the_ground_s_seed(world):
    task = TASKS["red star"]
    ground = Ground(world.model, world.model.encoder.state(), task, task.pairs(8, seed=1), 3)
    method = Tried((Part("esd_x", ErasingSettings(steps=2, sampling_steps=2, learning_rate=1e-3)),))
    before = {name: tensor.clone() for name, tensor in world.model.unet.state_dict().items()}
    grounds = (ground, ground, replace(ground, seed=4))
    one, again, other = (ModelPainter(world.model, method.make(g)).model.unet.state_dict() for g in grounds)
    changed = [name for name in before if not torch.equal(one[name], before[name])]
    assert changed and all("attn2" in name for name in changed)
    assert all(torch.equal(one[name], again[name]) for name in before)
    assert not all(torch.equal(one[name], other[name]) for name in before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in world.model.unet.state_dict().items())
    assert METHODS["esd"].about() == {"method": "esd", **METHODS["esd"].parts[0].settings.to_dict()}


@pytest.mark.full
def test_attacks_are_kept_apart_from_runs_without_and_the_base_is_the_control(world, tmp_path, monkeypatch):
    tiny = AdaptiveSettings(prompts=2, steps=1, unet_steps=1, token_steps=1, candidates=2, tokens=2, vectors=2,
                            shared_vectors=2, draws=1, sampling_steps=1)  # fmt: skip
    chosen = {"uce_paper": METHODS["uce_paper"], "safree": METHODS["safree"]}
    monkeypatch.setattr(type(TASKS["red star"]), "shown", lambda *_: True)

    def bench(attacks):
        task, kept = TASKS["red star"], tmp_path / "runs"
        return compare(world, chosen, [task], [0], TOY, pairs=8, attacks=attacks, kept=kept)

    plain = bench(None)
    assert all(run.marks.adaptive == {} for run in plain) and len(list(tmp_path.rglob("*.json"))) == 3
    names = {path.name for path in tmp_path.rglob("*.json")}
    base, edited, guided = (run.marks.adaptive for run in bench(tiny))
    assert set(base) == set(edited) == set(KINDS) and guided == {}
    for kind, found in edited.items():
        assert found["attacked"]["n"] == found["before"]["n"] == 2
        assert found["control"] == base[kind]["control"] == base[kind]["attacked"]
    assert len(list(tmp_path.rglob("*.json"))) == 6 and names < {path.name for path in tmp_path.rglob("*.json")}
    monkeypatch.setattr(run, "attack_painter", lambda *_, **__: pytest.fail("attacked again"))
    assert [found.marks.adaptive for found in bench(tiny)] == [base, edited, guided]
    assert bench(None) == plain


PROMPTS = ["two red stars on the grass", "a blue ring at night", "three skulls in the snow"]


def test_a_painter_draws_what_the_model_draws(world):
    expected = world.model.generate(
        PROMPTS, seeds=range(3), steps=3, guidance=2.0, autocast=trials.drawing_precision(world.model.device)
    )
    assert torch.equal(ModelPainter(world.model).draw(PROMPTS, steps=3, weight=2.0), expected)


def test_guidance_and_readers_change_pictures(world):
    ground = Ground(world.model, world.model.encoder.state(), TASKS["skull"], TASKS["skull"].pairs(8, seed=1), 0)
    plain = ModelPainter(world.model).draw(PROMPTS, steps=3, weight=2.0)
    for name in ("sld", "safree"):
        pictures = ModelPainter(world.model, METHODS[name].make(ground)).draw(PROMPTS, steps=3, weight=2.0)
        assert pictures.shape == plain.shape and not torch.allclose(pictures, plain, atol=1e-3)


def test_a_gate_stands_before_a_trained_encoder(world):
    task = TASKS["red star"]
    ground = Ground(world.model, world.model.encoder.state(), task, task.pairs(300, seed=1), 0)
    method = METHODS["sage_plus behind a gate"].aligned(batch_size=20, steps=1, held_out=0, precision="fp32")
    change = Tried((method.parts[0], Part("gate", GateSettings(steps=1)))).make(ground)
    assert change.encoder is not None and isinstance(change.reads, GatedPrompts)
    assert change.reads.gate.card.settings["seed"] == 0
