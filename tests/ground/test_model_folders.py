"""A folder of a model answers from its own weights, all of them, or is refused by name."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed import Hostile
from safetensors.torch import load_file, save_file

from sage_core.errors import JudgeError
from sage_core.model_folders import loading, read_model_config, running
from sage_core.tifa.judges.base import load_judge
from sage_core.tifa.questions import Question
from sage_core.tifa.sentences import SentenceEncoder
from sage_core.tifa.writing.language_model import LanguageModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "there", "a", "dog"]


def _tokenizer(folder: Path):
    from transformers import BertTokenizerFast

    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_judge(folder: Path) -> None:
    from transformers import ViltConfig, ViltForQuestionAnswering, ViltImageProcessor, ViltProcessor

    config = ViltConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=2, num_attention_heads=1, intermediate_size=8,
        image_size=32, patch_size=16, max_position_embeddings=8, id2label={0: "yes", 1: "no"},
        label2id={"yes": 0, "no": 1},
    )  # fmt: skip
    ViltForQuestionAnswering(config).save_pretrained(folder)
    image = ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=16)
    ViltProcessor(image, _tokenizer(folder)).save_pretrained(folder)


def make_sentences(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
    _tokenizer(folder)


def make_language(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 8}
    # The head is the table of tokens, and is not in the file.
    config = LlamaConfig(vocab_size=len(WORDS), tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(folder)


ROLES = {
    "judge": (make_judge, load_judge),
    "sentences": (make_sentences, SentenceEncoder.from_folder),
    "language": (make_language, LanguageModel.from_folder),
}


@pytest.fixture(scope="module", params=list(ROLES))
def made(request, tmp_path_factory):
    make, load = ROLES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    make(folder)
    return folder, load


@pytest.fixture
def copied(made, tmp_path):
    """A folder of its own, its weights, and what loads it."""
    folder = tmp_path / "model"
    shutil.copytree(made[0], folder)
    return folder, load_file(folder / "model.safetensors"), made[1]


def test_a_whole_folder_loads_its_own_weights(copied):
    folder, weights, load = copied
    # What older versions stored, and what this use of a model does not need.
    weights |= {"embeddings.position_ids": torch.arange(8)[None]}
    save_file({name: value for name, value in weights.items() if "pooler" not in name or load is load_judge},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    found = load(folder).model.state_dict()
    shared = [name for name in weights if name in found and "pooler" not in name]
    assert len(shared) > 10 and all(torch.equal(found[name], weights[name]) for name in shared)


def renamed(weights):
    return {
        name.replace("layer.0", "layer.9").replace("layers.0", "layers.9"): value for name, value in weights.items()
    }


def halved(weights):
    return {name: value for place, (name, value) in enumerate(sorted(weights.items())) if place % 2}


def spoilt(value):
    def change(weights):
        name = next(name for name in weights if name.endswith("weight") and "layer" in name and "pooler" not in name)
        weights[name].flatten()[3] = value
        return weights

    return change


def reshaped(weights):
    name = next(name for name in weights if "layer" in name and weights[name].ndim == 2)
    return weights | {name: torch.zeros(3, 5)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"foreign": torch.zeros(2)}, r"\d+ missing \(.*, …\), 1 foreign \(foreign\).*Download all files"),
        (lambda weights: weights | {"foreign": torch.zeros(2)}, r"1 foreign \(foreign\)"),
        (halved, r"\d+ missing"),
        (renamed, r"\d+ missing .*layers?\.0.*foreign .*layers?\.9"),
        (spoilt(float("nan")), r"holds 1 values that are NaN or infinite in torch\.float32"),
        (spoilt(float("-inf")), r"holds 1 values that are NaN or infinite"),
        (reshaped, r"of another shape|mismatch"),
        (lambda _: {}, r"\d+ missing"),
    ],
    ids=["only foreign", "also foreign", "half", "renamed", "NaN", "infinite", "reshaped", "empty"],
)
def test_weights_that_are_not_the_models_are_refused(copied, change, message):
    folder, weights, load = copied
    save_file(change(weights), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(JudgeError, match=rf"model: .*({message})"):
        load(folder)


def test_weights_beyond_half_precision_are_refused(made):
    folder, load = made
    if load == SentenceEncoder.from_folder:
        pytest.skip("is always loaded in fp32")
    weights = load_file(folder / "model.safetensors")
    target = folder.parent / f"{folder.name}_large"
    shutil.copytree(folder, target)
    save_file(spoilt(1e6)(weights), target / "model.safetensors", {"format": "pt"})
    load(target)
    with pytest.raises(JudgeError, match=r"infinite in torch\.float16.*choose fp32"):
        load(target, dtype=torch.float16)


def write_index(folder: Path, names: dict[str, str]) -> None:
    content = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_a_model_in_parts_is_read(copied):
    folder, weights, load = copied
    names = sorted(weights)
    (folder / "model.safetensors").unlink()
    save_file({name: weights[name] for name in names[::2]}, folder / "a.safetensors", {"format": "pt"})
    save_file({name: weights[name] for name in names[1::2]}, folder / "b.safetensors", {"format": "pt"})
    write_index(folder, {name: "ab"[place % 2] + ".safetensors" for place, name in enumerate(names)})
    load(folder)
    (folder / "b.safetensors").unlink()
    with pytest.raises(JudgeError, match=r"model: the part b\.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize("part", ["pytorch_model.bin", "../model.safetensors", "x/a.safetensors", 3])
def test_an_index_of_pickles_or_of_files_elsewhere_is_refused(copied, part):
    folder, weights, load = copied
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    torch.save(weights | {"x": Hostile(folder / "it_ran")}, folder / "pytorch_model.bin")
    write_index(folder, dict.fromkeys(weights, part))
    with pytest.raises(JudgeError, match=r"index\.json: names .*expected \.safetensors next to it: pickles"):
        load(folder)
    assert not (folder / "it_ran").exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', "[" * 100_000, '{"weight_map": 1'])
def test_a_damaged_index_is_named(copied, content):
    folder, _, load = copied
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(JudgeError, match=r"index\.json: unreadable .*Download it again"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\x00", "3", "null"])
def test_a_config_that_is_none_is_named(copied, content):
    folder, _, load = copied
    (folder / "config.json").write_text(content)
    with pytest.raises(JudgeError, match=r"config\.json: (unreadable|holds a)"):
        load(folder)


def test_an_adapter_is_refused(copied):
    folder, _, load = copied
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(JudgeError, match="holds an adapter"):
        load(folder)


def test_code_of_a_folder_is_not_run(copied):
    folder, _, load = copied
    (folder / "code.py").write_text(f"open({str(folder / 'it_ran')!r}, 'w')\nclass X: pass\n")
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        kinds = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer", "AutoProcessor")
        path.write_text(json.dumps(content | {"auto_map": dict.fromkeys(kinds, "code.X"), "model_type": "strange"}))
    with pytest.raises(JudgeError):
        load(folder)
    assert not (folder / "it_ran").exists()


Panic = type("PanicException", (BaseException,), {})


@pytest.mark.parametrize(
    "error",
    [Exception("as tokenizers raises"), KeyError("x"), AssertionError(), RecursionError(), Panic("as Rust does")],
    ids=lambda error: type(error).__name__,
)
def test_every_type_of_error_names_the_folder(error):
    with pytest.raises(JudgeError, match=r"^here: cannot be loaded as a judge \(.*Download all files"):  # noqa: SIM117
        with loading(Path("here"), "a judge"):
            raise error


def test_a_lack_of_memory_and_a_wish_to_stop_are_told_apart():
    with (
        pytest.raises(JudgeError, match=r"^here: does not fit into memory as a judge"),
        loading(Path("here"), "a judge"),
    ):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(KeyboardInterrupt), loading(Path("here"), "a judge"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "error",
    [
        Exception("WordPiece error"),
        KeyError("x"),
        ZeroDivisionError(),
        IndexError("out of range"),
        Panic("as Rust does"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_model_raises_at_work_names_it(error):
    with pytest.raises(JudgeError, match=r"^mine: the model fails at work \(.*config\.json.*Download all files"):  # noqa: SIM117
        with running("mine"):
            raise error


@pytest.mark.parametrize(
    "error", [type("Interrupted", (Exception,), {})(), KeyboardInterrupt(), MemoryError(), JudgeError("said")]
)
def test_a_wish_to_stop_and_a_lack_of_memory_pass_while_a_model_works(error):
    with pytest.raises(type(error)) as found, running("mine"):
        raise error
    assert found.value is error


def use(loaded) -> None:
    """Let a model of any role do its work once."""
    if isinstance(loaded, SentenceEncoder):
        loaded.embed(["there is a dog", "is"])
    elif isinstance(loaded, LanguageModel):
        loaded.complete(["is there a dog"], tokens=2)
        loaded.likeliest(["is there"], [["a", "dog"]])
        loaded.likelihoods("is", "there", [("a", ["dog", "is"])])
    else:
        loaded.answer([torch.zeros(40, 40, 3)], [[Question("c", "a dog", "is", ("yes", "no"), "yes", "object", "dog")]])


# Wrong in a way that shows only at work, found by trying: file, the place in it, and the value.
AT_WORK = [
    (make_judge, "processor_config.json", ("image_processor", "image_mean"), []),
    (make_judge, "processor_config.json", ("image_processor", "resample"), 10**9),
    (make_judge, "config.json", ("max_image_length",), 0),
    (make_judge, "tokenizer_config.json", ("pad_token",), None),
    (make_sentences, "tokenizer_config.json", ("model_max_length",), "x"),
    (make_sentences, "tokenizer.json", ("model", "vocab"), {}),
    (make_language, "tokenizer_config.json", ("model_max_length",), {}),
]


@pytest.mark.parametrize(
    ("make", "file", "place", "value"), AT_WORK, ids=lambda value: value.__name__ if callable(value) else str(value)
)
def test_what_shows_only_at_work_is_said_of_the_model(tmp_path, make, file, place, value):
    folder = tmp_path / "mine"
    folder.mkdir()
    make(folder)
    load = next(load for made, load in ROLES.values() if made is make)
    use(load(folder))
    path = folder / file
    if not path.exists():
        pytest.skip("this version of transformers writes no such file")
    content = inner = json.loads(path.read_text())
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(JudgeError, match="mine"):
        use(load(folder))


@pytest.mark.parametrize("value", [[], {}, 3, None])
def test_a_type_that_is_none_is_refused(copied, value):
    folder, _, load = copied
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": value}))
    with pytest.raises(JudgeError, match=r"config\.json: model_type is .*, expected a text"):
        load(folder)


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    "content",
    [
        {"num_additional_image_tokens": 10**9}, {"image_seq_length": 10**7}, {"size": {"shortest_edge": 10**6}},
        {"image_processor": {"crop_size": {"height": 10**6, "width": 3}}}, {"size_divisor": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_a_processor_that_would_fill_the_memory_is_refused(copied, name, content):
    folder, _, _ = copied
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(JudgeError, match=rf"{name}: \w+ is 10+, expected [\d,]+ at most"):
        read_model_config(folder, "test", ["x/y"])
    for sound in ('{"size": {"longest_edge": 12845056, "shortest_edge": 100352}}', "[" * 100_000, "{"):
        (folder / name).write_text(sound)
        read_model_config(folder, "test", ["x/y"])


# Names that configurations have, so that values land where they are read.
KEYS = st.sampled_from((
    "num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "intermediate_size", "id2label",
    "label2id", "num_labels", "max_position_embeddings", "hidden_act", "architectures", "model_type", "dtype",
    "torch_dtype", "image_size", "patch_size", "layer_norm_eps", "pad_token_id", "quantization_config",
    "transformers_weights", "tie_word_embeddings", "is_decoder",
))  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from([10**5, 10**6, 10**9, 10**18, 10**40]),
    st.floats(), st.text(max_size=5), st.just([]), st.just({}), st.just({"a": 1}), st.just(["x"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def target(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    shutil.copytree(made[0], folder)
    return folder, json.loads((folder / "config.json").read_text()), made[1]


@settings(derandomize=True, max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(changes=st.dictionaries(KEYS, VALUES, min_size=1, max_size=2))
def test_a_changed_config_ends_in_an_error_or_in_a_model(target, changes):
    folder, config, load = target
    (folder / "config.json").write_text(json.dumps(config | changes))
    start = time.process_time()
    try:
        model = load(folder).model
    except JudgeError as error:
        assert str(folder) in str(error)
    else:
        assert all(value.isfinite().all() for value in model.parameters())
    assert time.process_time() - start < 20


@settings(derandomize=True, max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_damaged_files_of_a_folder_end_in_an_error_or_in_a_model(made, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(made[0], folder)
    file = data.draw(st.sampled_from(sorted(path.name for path in folder.glob("*.json"))))
    content = bytearray((folder / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    (folder / file).write_bytes(content)
    try:
        made[1](folder)
    except JudgeError as error:
        assert str(folder) in str(error)
    shutil.rmtree(folder)
