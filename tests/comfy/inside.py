"""Tests that call the pack's nodes and nodes/host directly, with a ComfyUI on the path and without a server.

Run by test_inside.py, in a process of its own.
"""

from __future__ import annotations

import inspect
import math
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from loaded_pack import PACK, load_pack, make_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def pack(base: Path) -> ModuleType:
    """The pack's nodes, as ComfyUI's loader would import them."""
    return load_pack(base)


def all_nodes(pack: ModuleType) -> list[type]:
    """As ComfyUI gets them; copies, since what guards a node stays on its class."""
    topics = [getattr(pack, path.stem) for path in sorted((PACK / "nodes").glob("*.py")) if path.stem != "__init__"]
    guarded = sys.modules["pack.nodes.host.inputs"].guarded
    return [guarded(type(node.__name__, (node,), {})) for topic in topics for node in topic.NODES]


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_every_float_input_refuses_what_is_not_finite(pack: ModuleType, value: float) -> None:
    from comfy_api.latest import io

    tried = []
    for node in all_nodes(pack):
        schema = node.define_schema()
        for number in (each for each in schema.inputs if isinstance(each, io.Float.Input)):
            others = {each.id: 0.5 if isinstance(each, io.Float.Input) else None for each in schema.inputs}
            values = others | {number.id: value}
            given = {name: [each] for name, each in values.items()} if schema.is_input_list else values
            with pytest.raises(Exception, match=f"{number.id} is {value}; expected a finite number") as refused:
                node.execute(**given)
            assert type(refused.value).__name__ == "SettingsError"
            tried.append((schema.node_id, number.id))
    assert len(tried) >= 14, tried


# Boxes of files and folders, whose names are looked up when they are opened.
FILES = {
    "encoder_name", "model", "judge", "sentence_encoder", "file", "base_file", "safe_file", "unsafe_file",
    "captions_file",
}  # fmt: skip
# Those of Settings, which the library checks together with all the rest.
SETTINGS = {
    "target", "scale_unit", "perturbation_unit", "precision", "schedule", "spread_form", "local_form", "supervision",
    "until",
}  # fmt: skip


def test_every_choice_that_is_not_offered_is_refused(pack: ModuleType) -> None:
    from comfy_api.latest import io

    tried = 0
    for node in all_nodes(pack):
        schema = node.define_schema()
        boxes = [each for each in schema.inputs if isinstance(each, io.Combo.Input) and each.id not in FILES]
        settings = schema.node_id == "SAGETrainingSettings"
        sound = {box.id: box.options[0] for box in boxes}
        others = {each.id: 0.5 if isinstance(each, io.Float.Input) else None for each in schema.inputs}
        if settings:
            assert {box.id for box in boxes} == SETTINGS
            others = {each.id: getattr(each, "default", None) for each in schema.inputs}
        for box in boxes:
            values = others | sound | {box.id: "paint"}
            given = {name: [each] for name, each in values.items()} if schema.is_input_list else values
            with pytest.raises(
                Exception, match=f"{box.id} is 'paint'[;,] expected one of .*{box.options[0]}"
            ) as refused:
                node.execute(**given)
            assert type(refused.value).__name__ == "SettingsError"
            tried += 1
    assert tried >= 18


def test_exactly_one_says_which_it_was(pack: ModuleType) -> None:
    from pack.nodes.host.inputs import exactly_one
    from pack.sage_core.errors import PromptError

    # ComfyUI shows it, and the folder in which the pack lies tells nobody anything.
    assert PromptError.__module__ == "sage_core.errors"
    exactly_one("a.txt", None, "Prompts", PromptError)
    exactly_one("", [1], "Prompts", PromptError)
    with pytest.raises(PromptError, match=r"^Prompts; neither is given\.$"):
        exactly_one("", None, "Prompts", PromptError)
    with pytest.raises(PromptError, match=r"^Prompts; both are given\.$"):
        exactly_one("a", "b", "Prompts", PromptError)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "The witness is the judge, but none is connected"),
        ({"witness": "CLIP"}, "model names no CLIP"),
        ({"witness": "NudeNet", "concept": "skull"}, "NudeNet looks for nudity only, and the concept is 'skull'"),
        ({"witness": "NudeNet"}, "NudeNet is not installed; it is optional"),
        ({"concept": " "}, "concept is empty; enter what to look for"),
    ],
)
def test_a_picture_check_that_cannot_look_hands_nothing_on(
    inputs: dict, words: str, pack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    given = {"images": torch.zeros(1, 8, 8, 3), "concept": "nudity", "witness": "judge", "question": ""}
    given |= {"threshold": 0.0, "model": "none", "classes": "strict", "action": "flag"} | inputs
    with pytest.raises(Exception, match=words) as refused:
        pack.checking.SAGEPictureCheck.execute(**{name: [value] for name, value in given.items()})
    assert type(refused.value).__module__ == "sage_core.errors"


def test_nudenets_classes_decide_which_pictures_of_a_batch_pass(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Detector:
        """Sees a bare foot in what is dark, more in what is grey, and nothing in what is white."""

        def detect(self, pixels):
            kinds = {0: "FEET_EXPOSED", 127: "BUTTOCKS_EXPOSED"}
            return [{"class": kinds[int(pixels[0, 0, 0])], "score": 0.7}] if pixels[0, 0, 0] < 255 else []

    monkeypatch.setattr(pack.checking, "load_nudenet", Detector)
    monkeypatch.setattr(pack.checking.display, "counter", lambda *_: None)
    batches = [torch.ones(1, 8, 8, 3), torch.stack([torch.full((9, 8, 3), level) for level in (0.0, 0.5, 1.0)])]
    given = {"concept": ["nudity"], "witness": ["NudeNet"], "question": [""], "model": ["none"], "action": ["blank"]}
    for classes, threshold, seen in (("strict", 0.0, [1]), ("nine", 0.0, [0, 1]), ("nine", 0.8, [])):
        found = pack.checking.SAGEPictureCheck.execute(
            images=batches, threshold=[threshold], classes=[classes], **given
        )
        (first, second), unsafe, report = found.args
        assert first is batches[0] and unsafe == [False, bool(seen)]
        assert report.startswith(f"{len(seen)} of 4 pictures")
        expected = [torch.zeros(9, 8, 3) if place in seen else image for place, image in enumerate(batches[1])]
        assert torch.equal(second, torch.stack(expected))


# -- names and folders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["SAGETrainEncoder", "SAGETrainAdvUnlearn", "SAGESaveEncoder", "SAGESaveLora"])
def test_a_name_of_too_many_bytes_is_refused_before_work(pack: ModuleType, node: str) -> None:
    (found,) = [each for each in all_nodes(pack) if each.__name__ == node]
    assert found.validate_inputs(name="字" * 60) is True
    message = found.validate_inputs(name="字" * 70)
    assert "which takes 210 bytes on disk; expected at most" in message


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "..", "", "a\\b"])
def test_scores_are_saved_in_their_folder_alone(pack: ModuleType, base: Path, name: str) -> None:
    node = pack.scores.SAGESaveScores
    assert f"name is {name!r}; expected a plain file name without a folder" in node.validate_inputs(name=name)
    # As by a connection, which is not known before.
    with pytest.raises(Exception, match="expected a plain file name") as refused:
        node.execute(base=None, name=name, overwrite=True)
    assert type(refused.value).__name__ == "SettingsError" and not (base / "output" / "sage").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".jsonl", ".json"])
@pytest.mark.parametrize("letter", ["字", "é", "a", "𝔸"])
def test_the_longest_names_that_pass_can_be_written(pack: ModuleType, tmp_path: Path, suffix: str, letter: str) -> None:
    from pack.nodes.host.files import plain_name
    from pack.sage_core.errors import SettingsError
    from pack.sage_core.files import write_text

    passed = []
    for length in range(1, 102):
        try:
            passed.append(plain_name(letter * length, suffix, "name"))
        except SettingsError:
            continue
    assert len(passed) >= 50
    write_text(tmp_path / passed[-1], "whole")
    assert (tmp_path / passed[-1]).read_text() == "whole"


def test_new_files_lie_in_the_folders_of_their_kind(pack: ModuleType, base: Path) -> None:
    from pack.nodes.host import files

    assert files.new_encoder_path("mine") == base / "models" / "text_encoders" / "mine.safetensors"
    assert files.new_lora_path(" mine.safetensors ") == base / "models" / "loras" / "mine.safetensors"


@pytest.fixture
def linked(base: Path, tmp_path: Path) -> Path:
    """An input folder with links to itself, to each other's folders, and to a folder elsewhere."""
    root = base / "input"
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "far.txt").write_text("a dog")
    (outside / "deep" / "back").symlink_to(root)
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / folder / f"{folder}.CSV").write_text("prompt\na cat\n")
        for number in range(4):
            (root / folder / f"up{number}").symlink_to(root)
    (root / "a" / "to_b").symlink_to(root / "b")
    (root / "b" / "to_a").symlink_to(root / "a")
    (root / "broken").symlink_to(root / "nowhere")
    (root / "circle").symlink_to(root / "circle")
    (root / "elsewhere").symlink_to(outside)
    (root / "top.txt").write_text("a cup")
    (root / "link.txt").symlink_to(root / "top.txt")
    (root / "picture.png").write_bytes(b"")
    return root


def test_links_in_the_input_folder_are_followed_once(pack: ModuleType, linked: Path) -> None:
    from pack.nodes.host.files import prompt_files, prompt_path

    found = prompt_files()
    names = [os.path.join("a", "a.CSV"), os.path.join("b", "b.CSV"), os.path.join("elsewhere", "deep", "far.txt")]
    assert found == [*names, "link.txt", "top.txt"]
    assert all(prompt_path(name).is_file() for name in found)
    # A saved graph may name a file by a way that is no longer offered.
    assert prompt_path(os.path.join("a", "to_b", "b.CSV")).is_file()


# -- clips -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def encoder(pack: ModuleType, base: Path) -> Path:
    from pack.sage_core.encoders.layouts import EncoderConfig
    from pack.sage_core.encoders.text_encoder import save_encoder

    config = EncoderConfig(layers=2, width=768, heads=12, mlp_width=64, vocabulary=49408, positions=77)
    draw = torch.Generator().manual_seed(0)
    state = {name: 0.02 * torch.randn(shape, generator=draw) for name, shape in config.shapes().items()}
    path = base / "models" / "text_encoders" / "small.safetensors"
    save_encoder(path, state, {})
    return path


def weights(patcher) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in patcher.model.state_dict().items() if "text_model" in name}


def test_a_loaded_clip_can_be_loaded_anew_by_its_patcher(pack: ModuleType, encoder: Path) -> None:
    from pack.nodes.host.clips import load_clip

    patcher = load_clip(encoder, "small").patcher
    factory, arguments = patcher.cached_patcher_init
    for options in ({}, {"disable_dynamic": True}, {"disable_dynamic": False}):
        other = factory(*arguments, **options)
        assert type(other) is type(patcher) and other.model is not patcher.model
        found, expected = weights(other), weights(patcher)
        assert found.keys() == expected.keys() and len(found) > 20
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a \ud83d cat", "half of a character"),
        ("(" * 3000 + "cat" + ")" * 3000, "more brackets within brackets than ComfyUI reads"),
        ("a (cat:nan)", r"weight that is no number, as in \(word:nan\)"),
        ("a (cat:1e999)", "weight that is no number"),
    ],
    ids=["half", "brackets", "NaN", "infinite"],
)
def test_a_text_that_core_fails_at_is_refused_in_words(text: str, words: str, pack: ModuleType, encoder: Path) -> None:
    from pack.nodes.host.clips import encode, last_layer_states, load_clip
    from pack.sage_core.errors import PromptError

    clip = load_clip(encoder, "small")
    for work in (encode, last_layer_states):
        with pytest.raises(PromptError, match=words):
            work(clip, text)
    ((states, _),) = encode(clip, "a (cat:1.2) \\(big\\)")
    assert states.isfinite().all()


class DynamicPatcher:
    """Stands for the patchers of ComfyUI from 0.16 on: a clone that must not be dynamic asks for a model of its own."""

    def __init__(self, state: dict, dynamic: bool) -> None:
        self.state, self.dynamic, self.cached_patcher_init = state, dynamic, None

    def is_dynamic(self) -> bool:
        return self.dynamic

    def clone(self, disable_dynamic: bool = False) -> DynamicPatcher:
        if not (self.is_dynamic() and disable_dynamic):
            return self
        if self.cached_patcher_init is None:
            raise RuntimeError("Cannot create non-dynamic delegate: cached_patcher_init is not initialized.")
        return self.cached_patcher_init[0](*self.cached_patcher_init[1], disable_dynamic=True)


def test_a_dynamic_patcher_gets_its_copy_for_hooks(
    pack: ModuleType, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.sd
    from pack.nodes.host.clips import load_clip

    def load(state_dicts, embedding_directory=None, clip_type=None, model_options=None, disable_dynamic=False):
        return SimpleNamespace(patcher=DynamicPatcher(state_dicts[0], not disable_dynamic))

    assert "disable_dynamic" in inspect.signature(load).parameters
    monkeypatch.setattr(comfy.sd, "load_text_encoder_state_dicts", load)
    patcher = load_clip(encoder, "small").patcher
    assert patcher.is_dynamic()
    copy = patcher.clone(disable_dynamic=True)
    assert not copy.is_dynamic()
    assert copy.state.keys() == patcher.state.keys()
    assert all(torch.equal(copy.state[name], tensor) for name, tensor in patcher.state.items())


def test_an_encoder_that_does_not_fit_is_described_for_people(pack: ModuleType, encoder: Path) -> None:
    from pack.nodes.host.clips import add_difference, load_clip, own_weights
    from pack.sage_core.encoders.layouts import EncoderConfig
    from pack.sage_core.errors import EncoderError

    clip = load_clip(encoder, "small")
    base = own_weights(clip)
    other = EncoderConfig(layers=3, width=768, heads=12, mlp_width=3072, vocabulary=49408, positions=77)
    state = {name: torch.zeros(shape) for name, shape in other.shapes().items()}
    with pytest.raises(EncoderError) as refused:
        add_difference(clip, state, base, 1.0)
    assert str(refused.value).startswith(
        "The encoder does not fit this CLIP: layers 3 where the CLIP has 2, MLP width 3,072 where the CLIP has 64. "
    )
    with pytest.raises(EncoderError, match="The encoder_base does not fit"):
        add_difference(clip, base, state, 1.0)


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(torch.float32, 0, 0), (torch.float16, 0, 0), (torch.bfloat16, 0.14, 0.2)]
)
def test_a_clip_too_coarse_for_an_alignment_says_so(
    dtype: torch.dtype, low: float, high: float, pack: ModuleType, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pack.nodes.host import clips, display

    clip = clips.load_clip(encoder, "small")
    clip.cond_stage_model.to(dtype)
    base = {name: value.float() for name, value in clips.own_weights(clip).items()}
    draw = torch.Generator().manual_seed(1)
    moved = {name: value * (1 + 0.01 * torch.randn(value.shape, generator=draw)) for name, value in base.items()}
    assert low <= clips.rounding(clip, moved, base, 1.0) <= high
    # Half of the change loses twice the share.
    assert clips.rounding(clip, moved, base, 0.5) >= 1.5 * low
    monkeypatch.setattr(pack.encoder, "read_encoder", lambda path: (moved, {}))
    output = pack.encoder.SAGEApplyEncoder.execute(clip, encoder.name, 1.0, "replace")
    shown = "" if output.ui is None else output.ui.as_dict()["text"][0]
    assert ("rounding takes 1" in shown and "--bf16-text-enc" in shown) == (dtype == torch.bfloat16)
    assert clips.count_patches(output.args[0]) == 1 and display.log.name == "sage"


# What a graph sent over HTTP may hold where a connection or a text belongs.
WRONG = [None, 3, -1.5, True, "x", {"__type__": "x"}, [1], math.nan]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_wrong_type_names_its_input(pack: ModuleType, value: object) -> None:
    from comfy_api.latest import io

    inputs = sys.modules["pack.nodes.host.inputs"]

    class Reads(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id="Reads", category="x", inputs=[io.Clip.Input("clip"), io.String.Input("name")], outputs=[]
            )

        @classmethod
        def execute(cls, clip, name):
            clip.get_key_patches()
            return name.strip().upper()

    class Clip:
        def get_key_patches(self) -> None:
            pass

    node = inputs.guarded(Reads)
    with pytest.raises(Exception, match=r"clip is .*; expected a connection of type CLIP") as refused:
        node.execute(clip=value, name="a")
    assert type(refused.value).__name__ == "SettingsError"
    assert node.execute(clip=Clip(), name="a") == "A"
    if not isinstance(value, str):
        with pytest.raises(Exception, match=r"name is .*; expected a text"):
            node.execute(clip=Clip(), name=value)
        assert value is None or "is not a name" in str(pack.host.files.taken(str, value))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.5])
def test_every_whole_number_refuses_what_is_none(pack: ModuleType, value: float) -> None:
    from comfy_api.latest import io

    tried = []
    for node in all_nodes(pack):
        schema = node.define_schema()
        for number in (each for each in schema.inputs if isinstance(each, io.Int.Input)):
            with pytest.raises(Exception, match=f"{number.id} is {value}; expected a whole number") as refused:
                node.execute(**{number.id: [value] if schema.is_input_list else value})
            assert type(refused.value).__name__ == "SettingsError"
            tried.append((schema.node_id, number.id))
    assert len(tried) >= 14, tried


@pytest.mark.parametrize("name", ["a" * 300, "a" * 5000, "a\0b", "\ud83d"], ids=["long", "longer", "NUL", "half"])
def test_names_that_no_file_can_have_are_not_there(pack: ModuleType, name: str) -> None:
    files = pack.host.files
    for find in (
        files.prompt_path, files.edit_path, files.model_path, files.feature_model_path, files.picture_set,
        files.encoder_path, lambda each: files.edit_path(f"diffusers/{each}"),
        lambda each: files.feature_model_path(f"{each}.pt"),
    ):  # fmt: skip
        with pytest.raises(Exception, match="There is no ") as refused:
            find(name)
        assert type(refused.value).__module__ == "sage_core.errors"


def test_a_base_file_with_braces_in_its_name_is_named(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack.unet.models, "own_weights", lambda model: {})
    edit = SimpleNamespace(stored={"a": SimpleNamespace(how="weight")})
    _, notes = pack.unet._base_of(edit, None, "replace", "loras/{0} {v}.safetensors", None)
    assert notes == ["Note: base_file is not used: mode is replace, so loras/{0} {v}.safetensors was not read."]
