"""What a user sees: every shipped workflow in ComfyUI's own frontend, before and after a run, with both renderers."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from node_entries import ENTRIES, SEARCHES
from sage_core.demo.comfyui.server import PACK, Server
from sage_core.demo.exam import Exam
from sage_core.demo.graphs import load_graph
from sage_core.demo.serve import write_workflows
from sage_core.shapes.networks.checkpoint import ExpandedFiles
from shipped_workflows import NAMES

from .conftest import Tab

pytestmark = pytest.mark.full

RENDERERS = ["classic", "vue"]
# Below 0.571 the classic renderer draws no text.
LEAST_ZOOM = 0.6
# Pixels on the screen: text areas have 10 on the canvas in the classic renderer, and this at the least zoom.
LEAST_FONT = 6
# So few that a training takes no more than a few steps.
_PAIRS = 64
# Nodes that promise a text, and those that promise a picture.
TEXTS = {
    "SAGEPromptPairs", "SAGETrainEncoder", "SAGEConceptRate", "SAGESaveEncoder", "SAGESaveLora", "SAGELoadQuestions",
    "SAGEMakeQuestions", "SAGECLIPScore", "SAGEPromptDrift", "SAGECompare", "SAGEGeometry", "SAGEScoreTIFA",
    "SAGEEraseConcept", "SAGESaveModelEdit", "SAGESafree", "SAGELoadConcepts", "SAGEAttack", "SAGEImageDistance",
    "SAGEMakePairs", "SAGEPictureCheck",
}  # fmt: skip
PICTURES = {"SaveImage", "SAGETrainEncoder", "SAGEScoreTIFA", "SAGECompare", "SAGEAttack"}
# How the text of a node in the workflows begins: with its result, or with ⚠.
FIRST = {
    "SAGEEraseConcept": r"UCE \(paper\): 8 matrices changed by ",
    "SAGELoadConcepts": "skull, also ",
    "SAGEMakePairs": r"skull.*: \d+ long and \d+ short pairs",
    "SAGEMakeQuestions": r"\d+ questions about ",
    "SAGEPictureCheck": r"\d of 2 pictures (blurred|with)",
    "SAGESaveModelEdit": r"\S+unet-edit\.safetensors: 8 tensors ",
    "SAGEScoreTIFA": r"picture: TIFA \d\S+%, \d+ of \d+ questions answered rightly",
    "SAGECompare": ".+ the base ",
    "SAGETrainEncoder": "(Removed|Not removed|Not sure)",
}


@pytest.fixture(scope="module")
def shapes_workflows(server: Server, shapes_files: ExpandedFiles) -> dict[str, Path]:
    """The workflows as `sage-demo --serve` leaves them, with fewer prompts, pairs and steps; name -> file."""
    exam = Exam.make(safe=2, seen=1, unseen=1)
    written = write_workflows(server, shapes_files, exam, encoder=shapes_files.text_encoder.name, sampling_steps=2)
    for path in written:
        workflow = read(path)
        for node in workflow["nodes"]:
            if node["type"] == "SAGEMakePairs":
                node["widgets_values"][3] = _PAIRS
            if node["type"] == "SAGETrainEncoder":
                node["widgets_values"][1] = "sage_plus"
        path.write_text(json.dumps(workflow), encoding="utf-8")
    return {path.stem: path for path in written}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_neat(tab: Tab, groups: list[dict[str, Any]]) -> None:
    """No node lies on another one or across the border of a group, and none is red or unknown."""
    boxes = tab.boxes()
    for (a, box), (b, other) in itertools.combinations(boxes.items(), 2):
        apart = box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
        assert apart, f"{a} {box} and {b} {other} overlap"
    for group in groups:
        x, y, width, height = group["bounding"]
        for name, box in boxes.items():
            inside = x <= box[0] and y <= box[1] and box[2] <= x + width and box[3] <= y + height
            outside = box[2] <= x or x + width <= box[0] or box[3] <= y or y + height <= box[1]
            assert inside or outside, f"{name} {box} lies across the border of {group['title']} {group['bounding']}"
    # Newer frontends mark nodes whose file is not here, as this server's are not, and the boxes around them.
    red = """() => {
      const known = (node) => LiteGraph.registered_node_types[node.type] || app.graph.subgraphs.has(node.type);
      const needsFile = (node) => node.subgraph?.nodes.some(needsFile) || node.properties.models
        || node.type === "CheckpointLoaderSimple" || node.type === "SAGEApplyEncoder";
      return app.graph.nodes.filter((node) => !known(node) || (node.has_errors && !needsFile(node)))
        .map((node) => node.type);
    }"""
    assert tab.page.evaluate(red) == []
    assert tab.errors == []


def shown(tab: Tab) -> list[dict[str, Any]]:
    """Of every node: its type, the text on it, how high that is on the canvas, and how many pictures it shows."""
    script = """() => app.graph.nodes.map((node) => {
      const widget = node.widgets?.find((widget) => widget.name === "sage_text");
      const box = widget?.element.getBoundingClientRect();
      const element = document.querySelector(`[data-node-id="${node.id}"]`);
      const images = element ? [...element.querySelectorAll("img")] : node.imgs ?? [];
      return {
        type: node.type, title: node.title,
        text: widget?.element.isConnected ? widget.element.innerText : "",
        height: (box?.height ?? 0) / app.canvas.ds.scale,
        pictures: images.filter((image) => image.naturalWidth > 0).length,
        width: Math.min(...images.map((image) => image.naturalWidth)),
      };
    })"""
    return tab.page.evaluate(script)


def assert_legible(tab: Tab) -> None:
    """No title is cut off, and no text is drawn smaller than LEAST_FONT on the screen."""
    for text, height, whole in tab.texts():
        assert height >= LEAST_FONT - 0.1 and whole, (text, height, whole)


def assert_shown(tab: Tab) -> None:
    """Every node that promises a text or a picture shows it, at once or when its pictures are loaded."""
    end = time.monotonic() + 15
    while time.monotonic() < end and not all(node["pictures"] for node in shown(tab) if node["type"] in PICTURES):
        time.sleep(0.25)
    for node in shown(tab):
        if node["type"] in TEXTS:
            assert node["text"].strip() and node["height"] > 60, node
            assert re.match(rf"⚠|{FIRST.get(node['type'], '')}", node["text"]), node
        if node["type"] in PICTURES:
            assert node["pictures"] > 0, node
        if node["type"] == "SAGETrainEncoder":
            # The final curves, and not the last live ones next to them.
            assert node["width"] == 1024 and node["pictures"] == 1, node


@pytest.mark.parametrize("renderer", RENDERERS)
def test_shipped_workflows_open_neatly(
    renderer: str, open_tab: Callable[[str], Tab], screenshot: Callable[[Tab, str], Path]
) -> None:
    tab = open_tab(renderer)
    for name in NAMES:
        workflow = read(PACK / "workflows" / f"{name}.json")
        tab.open(workflow, name)
        # The dialogue about models that this server does not have.
        tab.page.keyboard.press("Escape")
        screenshot(tab, f"opened-{name}")
        assert tab.page.evaluate("() => app.canvas.ds.scale") >= LEAST_ZOOM
        assert_neat(tab, workflow["groups"])
        assert_legible(tab)
        left, top, right, bottom = tab.seen()
        for node, box in tab.boxes().items():
            inside = left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom
            assert inside, f"{node} {box} is out of view"


def test_the_frontend_queues_the_api_copies(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("classic")
    for name in NAMES:
        tab.open(read(PACK / "workflows" / f"{name}.json"), name)
        queued = tab.page.evaluate("async () => (await app.graphToPrompt()).output")
        copy = load_graph(name)
        assert {node: entry["inputs"] for node, entry in queued.items()} == {
            node: entry["inputs"] for node, entry in copy.items()
        }


@pytest.mark.parametrize("name", NAMES)
def test_workflows_run_and_show_what_they_promise(
    name: str,
    server: Server,
    open_tab: Callable[[str], Tab],
    shapes_workflows: dict[str, Path],
    screenshot: Callable[[Tab, str], Path],
) -> None:
    # The same edit of another workflow would be found in the cache, and show nothing.
    server.free()
    tab = open_tab("classic")
    workflow = read(shapes_workflows[name])
    tab.open(workflow, name)
    screenshot(tab, f"before-{name}")
    saved = set((server.base / "output").glob("*.png"))
    tab.queue()
    for renderer in RENDERERS:
        tab.render(renderer)
        screenshot(tab, f"after-{name}")
        assert_shown(tab)
        assert_neat(tab, workflow["groups"])
    if name == "my_own_concept":
        told = "\n".join(tab.told())
        assert re.search(r"^embedding prompts \d+/\d+; training takes about \d\S* GiB", told, re.MULTILINE)
        last = re.search(r"^step 0/(\d+)", told, re.MULTILINE)
        assert last and re.search(rf"^step {last[1]}/{last[1]}, loss \d", told, re.MULTILINE)
    if name == "remove_two_concepts":
        told = r'SAGE, preset sage_plus, concepts "skull, red star", \d steps, 1[0-2]\d pairs'
        assert any(re.search(told, node["text"]) for node in shown(tab) if node["type"] == "SAGETrainEncoder")
        drawn = [Image.open(path).tobytes() for path in set((server.base / "output").glob("*.png")) - saved]
        assert len(set(drawn)) == len(drawn) == 6 and [*server.base.glob("models/*/my-two-concepts-enc*")]


def test_an_attack_and_a_distance_show_what_they_found(
    server: Server,
    shapes_files: ExpandedFiles,
    clip_model: str,
    open_tab: Callable[[str], Tab],
    screenshot: Callable[[Tab, str], Path],
) -> None:
    for folder, shift in (("one", 0), ("other", 60)):
        (server.base / "input" / "shown" / folder).mkdir(parents=True)
        for place in range(3):
            picture = Image.new("RGB", (32, 32), (60 * place + shift, 90, 200 - 60 * place))
            picture.save(server.base / "input" / "shown" / folder / f"{place}.png")
    attack = {"prompts": "a skull in the snow", "concept": "skull", "method": "tokens", "goal": "embedding"}
    attack |= {"tokens": 2, "steps": 2, "restarts": 1, "candidates": 2, "below": 1e-4, "learning_rate": 0.1}
    attack |= {"name": "shown", "size": 64, "precision": "fp32", "control": True, "seed": 0, "without": ""}
    distance = {"measure": "CMMD", "resizing": "clean", "fewest": 2048, "different_counts": False, "seed": 0}
    distance |= {"folder": "shown/one", "reference_folder": "shown/other", "run_torchscript": False}
    graph = {
        "1": {"class_type": "SAGELoadEncoder", "inputs": {"encoder_name": shapes_files.text_encoder.name}},
        "2": {"class_type": "SAGEAttack", "inputs": {"clip": ["1", 0], "base": ["1", 0], **attack}},
        "3": {"class_type": "SAGEImageDistance", "inputs": {"model": clip_model, "keep_reference": "", **distance}},
    }
    tab = open_tab("classic")
    tab.page.evaluate("(graph) => app.loadApiJson(graph, 'measured')", graph)
    tab.settle()
    tab.queue()
    for renderer in RENDERERS:
        tab.render(renderer)
        # A graph without places is laid out before its nodes have grown to what they now show.
        tab.page.evaluate("() => app.graph.arrange()")
        tab.settle()
        screenshot(tab, "attack-and-distance")
        assert_shown(tab)
        assert_neat(tab, [])


def test_texts_come_back_with_the_tab(
    open_tab: Callable[[str], Tab], shapes_workflows: dict[str, Path], server: Server
) -> None:
    tab = open_tab("classic")
    # A node whose result is found in the cache has nothing new to show, unless it is an output.
    server.free()
    tab.open(read(shapes_workflows["score_one_picture"]), "first")
    tab.queue()
    before = [node["text"] for node in shown(tab)]
    assert any(before)
    # Another workflow takes the canvas, and the first one's tab is chosen again.
    tab.open(read(shapes_workflows["text_to_image_base_and_sage"]), "second")
    assert [node["title"] for node in shown(tab)].count("SAGE Score TIFA") == 0
    tab.page.get_by_text("first", exact=False).first.click()
    tab.settle()
    assert [node["text"] for node in shown(tab)] == before


def test_texts_outlive_a_reload_of_the_page_unless_the_settings_have_changed(
    open_tab: Callable[[str], Tab], shapes_workflows: dict[str, Path], server: Server
) -> None:
    tab = open_tab("classic")
    server.free()
    tab.open(read(shapes_workflows["score_one_picture"]), "kept")
    tab.queue()
    before = {node["title"]: node["text"] for node in shown(tab) if node["text"]}
    assert {"Questions", "SAGE Score TIFA"} <= before.keys()
    tab.reload()
    assert {node["title"]: node["text"] for node in shown(tab) if node["text"]} == before
    change = """() => {
      const node = app.graph.nodes.find((node) => node.type === "SAGEScoreTIFA");
      node.widgets.find((widget) => widget.name === "name").value = "another";
      app.graph.change();
    }"""
    tab.page.evaluate(change)
    # As a file holds it: without what is undefined, at which the newest frontend fails.
    workflow = json.loads(tab.page.evaluate("() => JSON.stringify(app.graph.serialize())"))
    assert "TIFA (mean over captions)" not in json.dumps(workflow), "it would travel in every saved picture"
    tab.open(workflow, "changed")
    texts = {node["title"]: node["text"] for node in shown(tab)}
    assert texts["SAGE Score TIFA"] == "" and texts["Questions"] == before["Questions"]
    assert tab.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_small_numbers_are_shown(renderer: str, open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab(renderer)
    script = """(types) => types.map((type) => {
      const node = LiteGraph.createNode(type);
      node.widgets.find((widget) => widget.name === "learning_rate").value = 0.0001;
      app.graph.add(node);
      return node.id;
    })"""
    ids = tab.page.evaluate(script, ["SAGETrainingSettings", "SAGEAttack"])
    tab.settle()
    for node in ids:
        if renderer == "vue":
            # A box that holds the focus shows another value than one that is read.
            inside = '[data-widget-name="learning_rate"] input, input[aria-label="learning_rate"]'
            seen = tab.page.locator(f'[data-node-id="{node}"]').locator(inside).first.input_value()
        else:
            widget = "(id) => app.graph.getNodeById(id).widgets.find((widget) => widget.name === 'learning_rate')"
            seen = tab.page.evaluate(f"(id) => ({widget})(id)._displayValue", node)
        assert float(seen) == 0.0001, seen
    assert tab.errors == []


def test_warnings_stand_out_and_nothing_is_read_as_html(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("classic")
    text = "Kept 3 pairs.\n⚠ Low: <b>2</b> of 5.\n\n| name | rate |\n| --- | --- |\n| a \\| b | 12.5 % |\n"
    script = """(text) => {
      const node = LiteGraph.createNode("SAGEPromptPairs");
      app.graph.add(node);
      node.onExecuted({ text: [text] });
      const inside = node.widgets.find((widget) => widget.name === "sage_text").element;
      return {
        warnings: [...inside.querySelectorAll(".sage-warning")].map((line) => line.textContent),
        cells: [...inside.querySelectorAll("th, td")].map((cell) => cell.textContent),
        markup: inside.querySelectorAll("b").length,
        saved: JSON.stringify(node.serialize()).includes("Kept 3"),
      };
    }"""
    found = tab.page.evaluate(script, text)
    assert found["warnings"] == ["⚠ Low: <b>2</b> of 5."]
    assert found["cells"] == ["name", "rate", "a | b", "12.5 %"]
    assert found["markup"] == 0 and not found["saved"]
    assert tab.errors == []


def test_the_text_of_a_node_can_be_copied(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("classic")
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    text = "⚠ Low: 2 of 5.\n\n| name | rate |\n| --- | --- |\n| a | 12.5 % |\n"
    script = """async (text) => {
      const node = LiteGraph.createNode("SAGEPromptPairs");
      app.graph.add(node);
      node.onExecuted({ text: [text] });
      const inside = node.widgets.find((widget) => widget.name === "sage_text").element;
      const press = () => {
        inside.querySelector("button").click();
        return new Promise((end) => setTimeout(end, 100));
      };
      await press();
      const copied = await navigator.clipboard.readText();
      // As where there is no clipboard.
      navigator.clipboard.writeText = () => Promise.reject(new Error("forbidden"));
      let selected = null;
      document.execCommand = (name) => { selected = [name, document.activeElement.value]; };
      await press();
      return [copied, ...selected, inside.innerText];
    }"""
    copied, command, selected, shown_text = tab.page.evaluate(script, text)
    assert copied == selected == text and command == "copy"
    assert shown_text.startswith("⚠ Low"), "the button adds nothing to what is read"
    assert tab.errors == []


def test_a_search_shows_the_right_node_first_or_second(open_tab: Callable[[str], Tab]) -> None:
    tab = open_tab("classic")
    # What a ComfyUI from 0.11 on would have sent; a frontend of before that searches names alone.
    script = """([aliases, queries]) => {
      const store = document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia._s.get("nodeDef");
      for (const node of Object.values(store.nodeDefsByName)) node.search_aliases ??= aliases[node.name];
      const Search = store.nodeSearchService.constructor;
      const search = new Search(Object.values(store.nodeDefsByName));
      const known = search.nodeFuseSearch.keys.includes("search_aliases");
      return [known, queries.map((query) => search.searchNode(query).map((node) => node.name))];
    }"""
    aliases = {node: list(entry.aliases) for node, entry in ENTRIES.items()}
    known, found = tab.page.evaluate(script, [aliases, list(SEARCHES)])
    for (query, right), nodes in zip(SEARCHES.items(), found, strict=True):
        named = any(query.lower() in f"{node} {ENTRIES[node].name}".lower() for node in right)
        if known or named:
            assert right & {*nodes[:2]}, (query, nodes[:4])


@pytest.mark.parametrize("path", sorted((PACK / "subgraphs").glob("*.json")), ids=lambda path: path.stem)
def test_blueprints_are_offered_and_open(
    path: Path, open_tab: Callable[[str], Tab], screenshot: Callable[[Tab, str], Path]
) -> None:
    tab = open_tab("classic")
    blueprint = read(path)
    (box,) = blueprint["nodes"]
    offered = """async (name) => {
      const stores = document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia._s;
      const found = () => stores.get("nodeDef").nodeDefs.some(
        (node) => node.name.startsWith("SubgraphBlueprint.") && node.display_name === name);
      for (let left = 50; left && !found(); left--) await new Promise((done) => setTimeout(done, 100));
      return found();
    }"""
    assert tab.page.evaluate(offered, path.stem)
    tab.open(blueprint, path.stem)
    screenshot(tab, f"blueprint-{path.stem}")
    assert_neat(tab, [])
    widgets = tab.page.evaluate("() => app.graph.nodes[0].widgets.map((widget) => [widget.name, widget.value])")
    promoted = [each["name"] for each in box["inputs"] if "widget" in each]
    assert [name for name, _ in widgets] == promoted
    inside = """() => { const { inputs, outputs, subgraph } = app.graph.nodes[0];
      return [inputs.map((each) => each.name), outputs.map((each) => each.name),
        subgraph.nodes.map((node) => [node.type, Boolean(LiteGraph.registered_node_types[node.type])])]; }"""
    inputs, outputs, nodes = tab.page.evaluate(inside)
    assert inputs == [each["name"] for each in box["inputs"]] and outputs == [each["name"] for each in box["outputs"]]
    assert nodes and all(known for _, known in nodes), nodes
