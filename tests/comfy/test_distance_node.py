"""Distances of pictures in a real ComfyUI, with a tiny CLIP and a TorchScript in Inception's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from comfy_graphs import node
from sage_core.demo.comfyui.client import ExecutionError, Graph, GraphError
from sage_core.demo.comfyui.server import Server
from sage_core.scores.distances import distance
from sage_core.scores.features import load_extractor
from sage_core.scores.statistics import read_statistics

COUNT = 10


def graph(model: str, **inputs: object) -> Graph:
    settings = {"measure": "CMMD", "resizing": "clean", "fewest": 2048, "different_counts": False, "seed": 0}
    more = {"folder": "distance/a", "reference_folder": "distance/b", "run_torchscript": False, "keep_reference": ""}
    return {
        "distance": node("SAGEImageDistance", model=model, **settings | more | inputs),
        "json": node("PreviewAny", source=["distance", 2]),
    }


@pytest.fixture(scope="module")
def sets(base: Path, server: Server) -> list[list[Path]]:
    """Two folders in the input folder with pictures of different sizes."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for name in "ab":
        folder = base / "input" / "distance" / name
        folder.mkdir(parents=True)
        for place in range(COUNT):
            pixels = torch.randint(0, 256, (8 + place, 9, 3), generator=generator, dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / f"{place}.png")
        found.append(sorted(folder.iterdir()))
    return found


def result(server: Server, run: Graph) -> dict:
    return json.loads(server.run(run, timeout=300)["json"]["text"][0])


@pytest.mark.parametrize("measure", ["CMMD", "KID", "FID"])
def test_it_is_the_librarys_distance(
    server: Server, base: Path, clip_model: str, sets: list[list[Path]], measure: str
) -> None:
    found = result(server, graph(clip_model, measure=measure, fewest=9))
    extractor = load_extractor(base / "models" / "VQA" / clip_model)
    expected = distance(measure, *(extractor.embed(paths) for paths in sets), fewest=9).to_dict()
    assert found["value"] == pytest.approx(expected["value"], rel=1e-3, abs=1e-6)
    for name in ("measure", "pictures", "extractor", "resizing", "notes"):
        assert found[name] == expected[name]


def test_connected_pictures_and_kept_statistics(
    server: Server, base: Path, clip_model: str, sets: list[list[Path]]
) -> None:
    run = graph(clip_model, measure="FID", fewest=9, folder="", images=["images", 0], keep_reference="photographs")
    run["images"] = node("LoadImageDataSetFromFolder", folder="distance/a")
    outputs = server.run(run, timeout=300)
    table = outputs["distance"]["text"][0]
    kept = base / "output" / "sage" / "statistics" / "photographs.npz"
    assert "| FD-CLIP |" in table and f"| pictures | {COUNT} and {COUNT} |" in table and f"Kept: {kept}" in table
    assert read_statistics(kept).count == COUNT
    again = result(
        server, graph(clip_model, measure="FID", fewest=9, reference_folder="sage/statistics/photographs.npz")
    )
    # The other side came through ComfyUI's loader, whose batches hold the same pictures.
    assert again["value"] == pytest.approx(json.loads(outputs["json"]["text"][0])["value"], rel=1e-4)
    same = dict.fromkeys(("folder", "reference_folder"), "sage/statistics/photographs.npz")
    assert result(server, graph("none", measure="FID", fewest=9, **same))["value"] == pytest.approx(0, abs=1e-6)


def test_a_folder_is_looked_at_again_once_its_files_have_changed(
    server: Server, base: Path, clip_model: str, sets: list[list[Path]]
) -> None:
    shutil.copytree(base / "input" / "distance" / "a", base / "input" / "distance" / "changing")
    run = graph(clip_model, measure="KID", folder="distance/changing")
    before = result(server, run)
    ran: set[str] = set()
    server.run(run, lambda now: ran.add(now.node), timeout=300)
    assert "distance" not in ran
    Image.new("RGB", (9, 9)).save(base / "input" / "distance" / "changing" / "0.png")
    assert result(server, run)["value"] != before["value"]


def test_a_torchscript_is_run_only_when_asked(
    server: Server, base: Path, sets: list[list[Path]], clip_model: str
) -> None:
    class Means(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.mean((2, 3)) * self.weight

    path = base / "models" / "VQA" / "tiny-inception.pt"
    torch.jit.script(Means()).save(str(path))
    with pytest.raises(ExecutionError, match="a TorchScript, a program that this machine would run"):
        server.run(graph(path.name, measure="KID"))
    found = result(server, graph(path.name, measure="KID", run_torchscript=True))
    extractor = load_extractor(path, trusted=True)
    expected = distance("KID", *(extractor.embed(paths) for paths in sets))
    assert found["value"] == pytest.approx(expected.value, rel=1e-3) and found["extractor"] == expected.extractor


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"measure": "FID"}, "FID of 10 pictures would mislead"),
        ({"folder": ""}, "The pictures come from a folder or from images; neither is given"),
        ({"images": ["images", 0]}, "The pictures come from a folder or from images; both are given"),
        ({"folder": "distance/none"}, "There is no folder of pictures and no .npz file 'distance/none'"),
        ({"folder": "../../etc"}, "There is no folder of pictures and no .npz file '../../etc'"),
        ({"folder": "distance"}, "holds 0 pictures"),
        ({"keep_reference": "../x"}, "keep_reference is '../x'; expected a plain file name"),
        ({"model": "none"}, "The pictures need a model whose features are compared"),
    ],
)
def test_what_cannot_be_compared_is_said(
    server: Server, clip_model: str, sets: list[list[Path]], inputs: dict, words: str
) -> None:
    run = graph(**{"model": clip_model} | inputs)
    run["images"] = node("LoadImageDataSetFromFolder", folder="distance/a")
    with pytest.raises(ExecutionError) as refused:
        server.run(run, timeout=300)
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["../../../etc", "nothing.pth", "../x.pt"])
def test_a_model_outside_its_folders_is_refused(server: Server, name: str) -> None:
    with pytest.raises(GraphError, match="There is no model folder"):
        server.queue(graph(name))
