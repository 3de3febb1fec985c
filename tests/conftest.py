"""A real ComfyUI for each process of tests, with the shapes world's checkpoint and text encoder in its model folders.

Tests speak to it over its API and never import comfy. What a test leaves behind (files in `base`, cached results) the
next one sees: use names of your own, and `server.free()` where an earlier result would spoil the test.
"""

from __future__ import annotations

import os

# Tests run in two processes, whose tensors are small: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image

from comfy_graphs import node
from sage_core.demo.comfyui.client import Graph, Outputs
from sage_core.demo.comfyui.provision import cache_folder, provision
from sage_core.demo.comfyui.server import PACK_NAME, Server, make_interpreter
from sage_core.shapes.networks.checkpoint import ExpandedFiles, expand
from sage_core.tifa.questions import Question, write_questions
from tiny_judges import bert_tokenizer, make_vilt, spread

# A pack of nodes for tests alone: what a node hands on can be seen only from inside the server.
PROBE = Path(__file__).parent / "comfy" / "probe"


# Whose files train, draw and attack.
LONG = {"attacks", "evaluation", "methods", "shapes"}


def pytest_report_header() -> str:
    with tempfile.TemporaryDirectory() as folder:
        require_no_library(make_interpreter(Path(folder)))
    return "ComfyUI starts as users have it: the pack in custom_nodes, and no sage_core that could be imported"


def require_no_library(python: Path) -> None:
    """Fail if an interpreter finds `sage_core`: a pack that asks for it by name would run, and at no user's."""
    done = subprocess.run([python, "-c", "import sage_core"], cwd=python.parent, capture_output=True, text=True)
    if "No module named 'sage_core'" not in done.stderr:
        raise pytest.UsageError("sage_core can be imported in ComfyUI: install it with `pip install -e`, in a clone.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, those that need a server before all: each process takes one file after the other.

    So none is left alone with a long one in the end.
    """
    served = {item.path for item in items if "server" in getattr(item, "fixturenames", ())}

    def turn(item: pytest.Item) -> int:
        if item.path in served or item.path.name == "test_inside.py":
            return 0
        return 1 if item.path.parent.name in LONG else 2

    items.sort(key=turn)


@pytest.fixture(scope="session")
def shapes_files() -> ExpandedFiles:
    """The shapes world's checkpoint and text encoder, expanded once into the user's cache and found again."""
    with alone():
        return expand(cache_folder() / "shapes")


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """ComfyUI's own folder, to be read only."""
    with alone():
        return provision()


def alone() -> FileLock:
    """One process of tests fetches or expands; the other finds what it left."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_folder() / "tests.lock")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's base folder: models/, input/, output/, custom_nodes/, server.log."""
    return tmp_path_factory.mktemp("comfyui")


@pytest.fixture(scope="session")
def server(comfyui: Path, base: Path, shapes_files: ExpandedFiles) -> Iterator[Server]:
    models = {"checkpoints": [shapes_files.checkpoint], "text_encoders": [shapes_files.text_encoder]}
    shutil.copytree(PROBE, base / "custom_nodes" / PROBE.name)
    arguments = ["--whitelist-custom-nodes", PACK_NAME, PROBE.name]
    if frontend := os.environ.get("SAGE_FRONTEND"):
        # The folder `static` of another comfyui-frontend-package than the one that is installed.
        arguments += ["--front-end-root", frontend]
    with Server(comfyui, base, models=models, arguments=arguments) as running:
        assert running.python
        require_no_library(running.python)
        yield running
        # What a test means to fail has a traceback there, too; none means this.
        assert "No module named 'sage" not in running.log_tail(10**6)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children obey SIGINT: a shell that starts the tests in the background has it ignored, and children inherit it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def run_graph(server: Server) -> Callable[[Graph], Outputs]:
    """Run a graph in API format to its end: node id -> what it shows ("images", "text", ...)."""
    return lambda graph: server.run(graph, timeout=500)


# -- tiny random models in models/VQA; each fixture is the name by which nodes know its folder -------------------------


def _folder(base: Path, name: str) -> Path:
    folder = base / "models" / "VQA" / name
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def judge(base: Path, server: Server) -> str:
    make_vilt(_folder(base, "tiny/vilt"))
    return "tiny/vilt"


@pytest.fixture(scope="session")
def sentence_encoder(base: Path, server: Server) -> str:
    from transformers import BertConfig, BertModel

    folder = _folder(base, "tiny/sentences")
    tokenizer = bert_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    spread(BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))).save_pretrained(folder)
    return "tiny/sentences"


@pytest.fixture(scope="session")
def clip_model(base: Path, server: Server) -> str:
    from small_worlds import tiny_clip

    tiny_clip(_folder(base, "tiny-clip"))
    return "tiny-clip"


@pytest.fixture(scope="session")
def language_model(base: Path, server: Server) -> str:
    """A Llama that knows one animal: what it reads becomes likelier, in the measure in which it was read.

    Its attention looks at all words alike and hands them on; "dog", "yes" and "no" are the words it can tell apart.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "dog", "yes", "no"]
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = _folder(base, "tiny/language")
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    config = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=len(words),
        eos_token_id=1, bos_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        (layer,) = model.model.layers
        for parameter in layer.parameters():
            parameter.zero_()
        layer.input_layernorm.weight.fill_(1)
        for pass_on in (layer.self_attn.v_proj, layer.self_attn.o_proj):
            pass_on.weight.copy_(torch.eye(8))
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), 8))
        model.lm_head.weight.copy_(torch.eye(len(words), 8))
    model.save_pretrained(folder)
    return "tiny/language"


# -- pictures, questions about them, and the graph that scores them ----------------------------------------------------

SIZES = ((40, 40), (40, 40), (72, 48), (33, 64))
ASKED = (
    ("is there a dog?", ("yes", "no"), "object"),
    ("what color is the bus?", ("red", "blue"), "color"),
    ("how many dogs are there?", ("two", "three"), "counting"),
)


@pytest.fixture(scope="session")
def asked() -> list[list[Question]]:
    """Three questions about each picture."""
    return [
        [
            Question(f"c{number}", f"caption {number}", text, choices, choices[0], kind, "caption")
            for text, choices, kind in ASKED
        ]
        for number in range(len(SIZES))
    ]


@pytest.fixture(scope="session")
def question_file(base: Path, server: Server, asked: list[list[Question]]) -> str:
    """`asked` in the input folder."""
    write_questions(base / "input" / "tifa_questions.json", [question for some in asked for question in some])
    return "tifa_questions.json"


@pytest.fixture(scope="session")
def pictures(base: Path, server: Server) -> dict[str, list[Path]]:
    """Two folders of pictures of different sizes in the input folder, in the order in which ComfyUI lists them."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for folder in ("tifa_base", "tifa_other"):
        path = base / "input" / folder
        path.mkdir()
        for number, (width, height) in enumerate(SIZES):
            pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(path / f"{number}.png")
        found[folder] = [path / name for name in os.listdir(path)]
    return found


@pytest.fixture(scope="session")
def score_graph() -> Callable[..., Graph]:
    """A graph in which a judge is asked about the pictures of a folder, its result in JSON at the node "json"."""

    def graph(file: str, judge: str, folder: str = "tifa_base", sentences: str = "none", **inputs: object) -> Graph:
        links = {"images": ["images", 0], "questions": ["questions", 0], "judge": ["judge", 0]}
        return {
            "images": node("LoadImageDataSetFromFolder", folder=folder),
            "questions": node("SAGELoadQuestions", file=file),
            "judge": node("SAGELoadJudge", judge=judge, sentence_encoder=sentences, precision="fp32"),
            "score": node("SAGEScoreTIFA", **links, **{"name": "base", "log": "", "pictured": 3} | inputs),
            "json": node("PreviewAny", source=["score", 3]),
        }

    return graph
