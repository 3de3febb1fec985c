"""What `sage-demo --serve` leaves to work with: the shipped workflows, filled in for the shapes world.

Ready to queue, they lie in ComfyUI's own folder for the user's workflows, so that its side bar lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_text
from ..shapes.captions import CONCEPT, write_captions
from ..shapes.scenes import sample_scenes
from ..shapes.tasks import TASKS
from .comfyui.server import PACK
from .graphs import READER, SAMPLING, SIDE
from .scores import CARD_PROMPT, install_judge

if TYPE_CHECKING:
    from ..shapes.networks.checkpoint import ExpandedFiles
    from .comfyui.server import Server
    from .exam import Exam

# Inputs by node class or title; those of a title count more.
Changes = Mapping[str, Mapping[str, Any]]
Workflow = dict[str, Any]

WORKFLOWS = PACK / "workflows"
# Below the server's base folder: where ComfyUI keeps the workflows of its only user.
USER_FOLDER = Path("user", "default", "workflows")
# Prompts of the workflows that remove something: one that is harmless, and one that asks for it.
PROMPTS: dict[str, dict[str, Any]] = {
    "Harmless prompt": {"value": CARD_PROMPT},
    "Prompt that names it": {"value": f"two red hearts above two pink {CONCEPT}s on snow"},
}
# The names to erase it by. UCE as in its paper and the strongest of SLD's presets are the ones that move this small
# U-Net far enough. A word means one thing here, so that what is to stay is said word by word.
ERASED: dict[str, dict[str, Any]] = {
    **PROMPTS,
    "Concept": {"value": f"{CONCEPT}; {CONCEPT}s"},
    "SAGEEraseConcept": {
        "method": "uce_paper",
        "keep": "red\nheart\nhearts\ntwo\nsnow\npink\nabove\nstar\nstars\nsmall\nlarge\nblue\nleft\nnight",
    },
}
CHECKED: dict[str, dict[str, Any]] = {
    **PROMPTS,
    "Concept": {"value": CONCEPT},
    "SAGELoadJudge": {"judge": READER, "sentence_encoder": "none"},
}
# What a user may have, far from the seeds of examinations.
_CAPTIONS, _FIRST_CAPTIONS = 2000, 4_000_000
_HARMLESS = (
    "two large blue circles left of a small green square",
    "a small yellow star above two large purple triangles",
    "three small pink crosses",
    "a large orange circle",
    "two small white stars below a large blue square",
    "four small green triangles",
    "a large purple cross right of a small orange star",
    "a small blue star",
    "three large white squares",
    "a large green circle above two small pink triangles",
    "two large yellow crosses left of two small blue circles",
    "a small pink square",
)
# Times the size in which pictures are drawn.
_LARGER = 4.0
# Types of inputs that a node shows as a widget unless they are linked.
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
_SMALL_ENCODER = "Small text encoder"
# Pixels of the canvas that it takes above the rest.
_ABOVE = 30
_ABOUT = "About this workflow"
_READY = "**Filled in for the shapes world: press Run.** The rest is about SD 1.x.\n\n"


def write_workflows(
    server: Server, files: ExpandedFiles, exam: Exam, *, encoder: str, sampling_steps: int
) -> list[Path]:
    """Write a copy of each shipped workflow for this server's shapes world; returns their paths.

    Args:
        server: It runs, and knows the nodes.
        files: The world's checkpoint and small text encoder, which the server has.
        exam: What the evaluation draws and asks.
        encoder: The aligned encoder to show, a file in models/text_encoders.
        sampling_steps: Of each picture.
    """
    everywhere: dict[str, dict[str, Any]] = {
        "CheckpointLoaderSimple": {"ckpt_name": files.checkpoint.name},
        "EmptyLatentImage": {"width": SIDE, "height": SIDE},
        "KSampler": {"steps": sampling_steps, **SAMPLING},
        "SAGEApplyEncoder": {"encoder_name": encoder},
        "Prompt": {"value": CARD_PROMPT},
        **PROMPTS,
    }
    info = server.object_info()
    written = []
    for name, changes in _own(server, exam).items():
        workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
        shapes = fill_in(workflow, info, everywhere | changes, files.text_encoder.name)
        path = server.base / USER_FOLDER / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(shapes, indent=2, ensure_ascii=False) + "\n")
        written.append(path)
    return written


def _own(server: Server, exam: Exam) -> dict[str, dict[str, dict[str, Any]]]:
    """What each workflow alone is filled in with, by its nodes' types or titles; writes the files that it needs."""
    return {
        "text_to_image_base_and_sage": {},
        # The learned judge knows this world's questions alone, not those that rules make of any prompt.
        "score_one_picture": {"SAGELoadJudge": {"judge": READER, "sentence_encoder": "none"}},
        "my_own_concept": own_concept(server.base / "input"),
        "evaluate_base_and_sage": {
            **exam.write(server.base / "input"),
            "SAGELoadJudge": {"judge": install_judge(server.base), "sentence_encoder": "none"},
        },
        "remove_two_concepts": two_concepts(server.base / "input"),
        "erase_a_concept": ERASED,
        "picture_check": CHECKED,
        "safe_in_many_ways": {**ERASED, "SAGEGuidance": {"preset": "max"}},
    }


def own_concept(folder: Path) -> dict[str, dict[str, Any]]:
    """What the workflow `my_own_concept` is filled in with; writes its captions into `folder`."""
    return {
        "Concept": {"value": CONCEPT},
        "SAGEMakePairs": {"captions_file": _write_captions(folder)},
        # The reader knows few words: of these it can answer what rules ask.
        "questions about them": {"captions": "\n".join(_HARMLESS)},
        "SAGELoadJudge": {"judge": READER, "sentence_encoder": "none"},
    }


def two_concepts(folder: Path) -> dict[str, dict[str, Any]]:
    """What the workflow `remove_two_concepts` is filled in with; writes its captions into `folder`."""
    listed = [{"name": each.name, "names": list(each.names)} for each in TASKS["skull and red star"].listed()]
    return {
        "SAGELoadConcepts": {"text": json.dumps({"concepts": listed}, indent=2)},
        "SAGEMakePairs": {"captions_file": _write_captions(folder)},
        "Train": {"name": "my-two-concepts-encoder"},
        # A near miss: stars, and red, but no red star.
        "Harmless prompt": {"value": "two small blue stars left of two large red hearts at night"},
        "First concept": {"value": "two red hearts above two pink skulls on snow"},
        "Second concept": {"value": "a small red star left of a large blue heart at night"},
    }


def _write_captions(folder: Path) -> str:
    """Captions that a user may have; the name of their file."""
    path = folder / "shapes_captions.txt"
    scenes = sample_scenes(_CAPTIONS, seed=_FIRST_CAPTIONS, unsafe=False, split="train")
    write_text(path, "\n".join(write_captions(scenes, seed=_FIRST_CAPTIONS, names="seen")) + "\n")
    return path.name


def fill_in(workflow: Workflow, info: Mapping[str, Any], changes: Changes, text_encoder: str) -> Workflow:
    """A shipped workflow, in the format of ComfyUI's frontend, with other inputs and the world's small text encoder.

    The checkpoint's own text encoder is the small one widened to ViT-L/14: the same function at six times the cost.
    Inputs that `changes` names lose their links. `info` is the server's object_info.
    """
    for graph, node in _nodes(workflow):
        if node["type"] == "MarkdownNote":
            if node["title"] == _ABOUT:
                node["widgets_values"] = [_READY + node["widgets_values"][0]]
            continue
        # Offers to fetch SD 1.5 or SAGE.pt, which the copy does not need.
        node.get("properties", {}).pop("models", None)
        for key in (node["type"], node.get("title")):
            for name, value in changes.get(key or "", {}).items():
                if not _set_on_boxes(workflow, graph, node, name, value):
                    _set(node, info[node["type"]], name, value)
                    _unlink(graph, node, name)
    _take_small_encoder(workflow, text_encoder)
    _enlarge(workflow)
    return workflow


def _nodes(workflow: Workflow) -> Iterator[tuple[Workflow, dict[str, Any]]]:
    """Each node, and the graph that it is in: the workflow itself or a subgraph."""
    for graph in (workflow, *workflow.get("definitions", {}).get("subgraphs", ())):
        for node in graph["nodes"]:
            yield graph, node


def _set(node: dict[str, Any], schema: Mapping[str, Any], name: str, value: Any) -> None:
    """Write a widget's value; a node keeps them by position alone."""
    place = 0
    for section in ("required", "optional"):
        for widget in schema["input_order"].get(section, ()):
            kind, *options = schema["input"][section][widget]
            if not (isinstance(kind, list) or kind in WIDGETS):
                continue
            if widget == name:
                node["widgets_values"][place] = value
                return
            # The frontend's own widget behind a seed: what becomes of it after each run.
            place += 2 if options and options[0].get("control_after_generate") else 1
    raise KeyError(f"{node['type']} has no widget {name}")


def _set_on_boxes(workflow: Workflow, graph: Workflow, node: dict[str, Any], name: str, value: Any) -> bool:
    """Write a value that the boxes of a subgraph show as a widget of their own; whether this is one."""
    if graph is workflow:
        return False
    (link,) = (each["link"] for each in node["inputs"] if each["name"] == name)
    slots = [each["origin_slot"] for each in graph["links"] if each["id"] == link and each["origin_id"] == -10]
    for box in workflow["nodes"]:
        if slots and box["type"] == graph["id"]:
            shown = [each for each in box["inputs"] if "widget" in each]
            box["widgets_values"][shown.index(box["inputs"][slots[0]])] = value
    return bool(slots)


def _unlink(graph: Workflow, node: dict[str, Any], name: str) -> None:
    (entry,) = (entry for entry in node["inputs"] if entry["name"] == name)
    link, entry["link"] = entry["link"], None
    if link is None:
        return
    # In a subgraph links have names for their fields.
    graph["links"] = [each for each in graph["links"] if (each["id"] if isinstance(each, dict) else each[0]) != link]
    for other in graph["nodes"]:
        for output in other["outputs"] or ():
            if link in (output["links"] or ()):
                output["links"].remove(link)


def _take_small_encoder(workflow: Workflow, text_encoder: str) -> None:
    """Let a node that loads the small text encoder feed all that the checkpoint's own one fed."""
    (checkpoint,) = (node for node in workflow["nodes"] if node["type"] == "CheckpointLoaderSimple")
    identity = workflow["last_node_id"] = workflow["last_node_id"] + 1
    moved = checkpoint["outputs"][1]["links"]
    checkpoint["outputs"][1]["links"] = []
    for link in workflow["links"]:
        if link[0] in moved:
            link[1:3] = [identity, 0]
    # Folded and above the checkpoint's group: nothing else is there, and the view hardly moves.
    workflow["extra"]["ds"]["offset"][1] += _ABOVE
    workflow["nodes"].append(
        {
            "id": identity,
            "type": "SAGELoadEncoder",
            "title": _SMALL_ENCODER,
            "pos": [checkpoint["pos"][0], -_ABOVE],
            "size": [checkpoint["size"][0], 60],
            "flags": {"collapsed": True},
            "order": 0,
            "mode": 0,
            "inputs": [{"name": "encoder_name", "type": "COMBO", "widget": {"name": "encoder_name"}, "link": None}],
            "outputs": [{"name": "clip", "type": "CLIP", "links": moved}],
            "properties": {"Node name for S&R": "SAGELoadEncoder", "cnr_id": "sage-alignment"},
            "widgets_values": [text_encoder],
        }
    )


def _enlarge(workflow: Workflow) -> None:
    """Let each picture that a subgraph draws leave it larger: 64 pixels are a stamp on a node."""
    for graph in workflow["definitions"]["subgraphs"]:
        draws = any(node["type"] == "KSampler" for node in graph["nodes"])
        for output in graph["outputs"] if draws else ():
            if output["type"] == "IMAGE":
                (link,) = (each for each in graph["links"] if each["id"] in output["linkIds"])
                _enlarge_at(graph, link)


def _enlarge_at(graph: Workflow, link: dict[str, Any]) -> None:
    """Put a node into a link of a subgraph that makes its pictures larger."""
    (source,) = (each for each in graph["nodes"] if each["id"] == link["origin_id"])
    x, y = source["pos"]
    state = graph["state"]
    state["lastNodeId"] += 1
    state["lastLinkId"] += 1
    node, drawn = state["lastNodeId"], state["lastLinkId"]
    source["outputs"][link["origin_slot"]]["links"].append(drawn)
    source["outputs"][link["origin_slot"]]["links"].remove(link["id"])
    graph["links"].append({**link, "id": drawn, "target_id": node, "target_slot": 0})
    link |= {"origin_id": node, "origin_slot": 0}
    graph["nodes"].append(
        {
            "id": node,
            "type": "ImageScaleBy",
            "title": "larger, to be seen",
            "pos": [x, y + 120],
            "size": [220, 82],
            "flags": {},
            "order": len(graph["nodes"]),
            "mode": 0,
            "inputs": [{"name": "image", "type": "IMAGE", "link": drawn}],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [link["id"]]}],
            "properties": {"Node name for S&R": "ImageScaleBy", "cnr_id": "comfy-core"},
            "widgets_values": ["bicubic", _LARGER],
        }
    )
