"""Whatever trains in a real ComfyUI can be cancelled, goes on where it stopped, and leaves no checkpoint behind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sage_core.demo.comfyui.client import Graph, Interrupted, Progress
from sage_core.demo.comfyui.server import Server
from sage_core.shapes.captions import matched_pairs
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from training_graphs import adv_unlearn, alignment, attack, erasure, gate, prompt_pairs, redirecting

STEPS = 7


@pytest.fixture
def cancelled_at(server: Server) -> Callable[[Graph, int, int], int]:
    """Run a graph and cancel its node "train" at step `value` of `maximum`: the step of the last report."""

    def run(graph: Graph, value: int, maximum: int) -> int:
        seen = 0

        def cancel(progress: Progress) -> None:
            nonlocal seen
            if progress.node == "train" and progress.maximum == maximum and progress.value >= value and not seen:
                seen = int(progress.value)
                server.interrupt()

        with pytest.raises(Interrupted):
            server.run(graph, cancel, timeout=500)
        return seen

    return run


def test_a_cancelled_training_resumes_to_the_same_weights(
    server: Server, base: Path, shapes_files: ExpandedFiles, cancelled_at: Callable[[Graph, int, int], int]
) -> None:
    runs, encoders = base / "output" / "sage" / "runs", base / "models" / "text_encoders"
    whole, cut = (alignment(server, shapes_files, name, seed=2, steps=STEPS) for name in ("whole", "cut"))
    assert server.run(whole, timeout=300)["train"]["text"][0].count("Trained: ") == 1
    for path in runs.iterdir():
        path.unlink()
    last = cancelled_at(cut, 2, STEPS)
    (checkpoint,) = runs.glob("*.checkpoint")
    # A report comes a step after its step, and the request takes a moment.
    assert last < torch.load(checkpoint, weights_only=True)["step"] <= last + 4 < STEPS
    assert not (encoders / "cut.safetensors").exists()
    assert server.run(cut, timeout=300)["train"]["text"][0].count("Trained: ") == 1
    assert not checkpoint.exists()
    found, wanted = (load_file(encoders / f"{name}.safetensors") for name in ("cut", "whole"))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def gate_of_many_steps(shapes_files: ExpandedFiles, steps: int) -> Graph:
    pairs = matched_pairs(80, seed=1, names="seen", split="train")
    sources = prompt_pairs(safe_text="\n".join(pairs.safe), unsafe_text="\n".join(pairs.unsafe))
    return gate(shapes_files, sources, steps=steps)


# Makes a graph, its steps, the step at which it is cancelled, and how its report begins.
OTHERS = {
    "erasure": (erasure, 6, 2, "Trained"),
    "redirected U-Net": (partial(redirecting, strength=0.5), 6, 2, "Trained"),
    "AdvUnlearn": (partial(adv_unlearn, name="unlearned in two"), 6, 2, "Trained"),
    "attack": (partial(attack, control=False), 16, 2, "Attacked"),
    "gate": (gate_of_many_steps, 80, 8, "Trained"),
}


@pytest.mark.full
@pytest.mark.parametrize("kind", OTHERS)
def test_so_does_all_that_takes_steps(
    kind: str, server: Server, base: Path, shapes_files: ExpandedFiles,
    cancelled_at: Callable[[Graph, int, int], int],
) -> None:  # fmt: skip
    make, steps, step, begins = OTHERS[kind]
    graph = make(shapes_files, steps=steps)
    folder = base / "output" / "sage" / ("gates" if kind == "gate" else "runs")
    before = set(folder.glob("*"))
    if kind == "redirected U-Net":
        # Both sides of three pairs, each in one chunk of 20 steps.
        assert 20 < cancelled_at(graph, 25, 40) < 40
        (pictures,) = set(folder.glob("*")) - before
        assert pictures.suffix == ".pictures", "half of them are kept"
    cancelled_at(graph, step, steps)
    (checkpoint,) = set(folder.glob("*.checkpoint")) - before
    assert set(folder.glob("*.safetensors")) <= before, "there is no result yet"
    assert server.run(graph, timeout=500)["train"]["text"][0].startswith(begins)
    assert not checkpoint.exists()
