"""Pictures by every encoder, their scores and embedding spaces, by workflows and nodes in the running ComfyUI."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL.Image
import torch
from torch import Tensor

from ..geometry import DEFAULT_NEIGHBOURS
from ..intervals import Interval
from ..scores.rates import Rate
from ..shapes.ask import ask
from ..shapes.captions import matched_pairs
from ..shapes.exam.examiners import has_good_judge
from ..shapes.networks.judge import expand_judge
from ..shapes.scenes import COLORS, MATERIALS, PLACES, RELATIONS, SHAPES, SIZES, Scenes
from ..tifa.questions import Question, write_questions
from .exam import SEED, Exam
from .graphs import ALIGNED, READER, SAMPLING, clone_lane, draw_together, find, node, on_shapes_world

if TYPE_CHECKING:
    from ..shapes.networks.checkpoint import ExpandedFiles
    from .comfyui.client import Graph, Progress
    from .comfyui.server import Server

ENCODERS = ("Base", *ALIGNED)
DRAWING = ("draw pictures", "draw concept pictures")
# The learned judge's folder in models/VQA; results call it by that and its precision.
LEARNED_JUDGE = "shapes-judge"
# Pictures that are drawn at a time: they are small.
BATCH = 64
# Of which embedding spaces are compared.
SPACE_PROMPTS = 128
CARD_PROMPT = "two small red stars left of two large blue hearts at night"


@dataclass(frozen=True)
class Marks:
    """One encoder's scores.

    Attributes:
        found: its run in SAGECompare's JSON.
        names_seen: how many unsafe prompts call the concept by names that training saw; they come first.
    """

    found: Mapping[str, Any]
    names_seen: int

    @property
    def tifa(self) -> float:
        """Mean over safe prompts of the share of their questions answered rightly."""
        return self.found["tifa"]["tifa"]

    @property
    def tifa_interval(self) -> Interval:
        """95% interval of `tifa`, over prompts."""
        return Interval(*self.found["tifa"]["intervals_95"]["TIFA"])

    @property
    def concept(self) -> Rate:
        """All unsafe prompts."""
        (rate,) = self.found["rates"]
        return Rate(rate["concept"], rate["rule"], tuple(rate["shown"]))

    @property
    def seen(self) -> Rate:
        """Unsafe prompts by names that training saw."""
        return replace(self.concept, shown=self.concept.shown[: self.names_seen])

    @property
    def unseen(self) -> Rate:
        """Unsafe prompts by other names."""
        return replace(self.concept, shown=self.concept.shown[self.names_seen :])

    def right(self, prompt: str) -> tuple[int, int]:
        """Questions about a safe prompt that its picture answers rightly, and all of them."""
        scores = [row["score"] for row in self.found["tifa"]["questions"] if row["caption"] == prompt]
        return sum(scores), len(scores)

    def to_dict(self) -> dict[str, Any]:
        """The scores as report.json has them."""
        rates = {"concept_shown": self.concept, "by_seen_names": self.seen, "by_unseen_names": self.unseen}
        return {"safe": self.found["tifa"], **{name: rate.to_dict() for name, rate in rates.items()}}


@dataclass(frozen=True)
class Scores:
    """What the workflow `evaluate_base_and_sage` says of all encoders.

    Attributes:
        pictures: by encoder, in the order of the exam's prompts.
        marks: by encoder.
        page: SAGECompare's picture.
        difference: SAGE+ against DES, as SAGECompare's JSON has it.
        against_base: the same of each aligned encoder against the base.
    """

    pictures: Mapping[str, list[PIL.Image.Image]]
    marks: Mapping[str, Marks]
    page: PIL.Image.Image
    difference: Mapping[str, Any]
    against_base: Mapping[str, Mapping[str, Any]]


def score_encoders(
    server: Server,
    files: ExpandedFiles,
    exam: Exam,
    encoders: Mapping[str, str],
    *,
    steps: int,
    compute: str = "default",
    on_progress: Callable[[Progress], None] | None = None,
) -> Scores:
    """Draw and score every prompt of the exam with the base's encoder and with the aligned ones.

    encoders: their files in models/text_encoders. steps: of the sampler. compute: see `draw_together`.
    """
    changes = {
        **exam.write(server.base / "input"),
        "KSampler": {"steps": steps, **SAMPLING},
        "SAGELoadJudge": {"judge": install_judge(server.base), "sentence_encoder": "none"},
    }
    graph = draw_together(evaluation_graph(files, encoders, changes), BATCH, compute)
    outputs = server.run(graph, on_progress)
    images = server.images(outputs)
    report, against = (json.loads(outputs[f"{what} in JSON"]["text"][0]) for what in ("all", "DES and SAGE+"))
    return Scores(
        pictures={
            name: [
                image for part in ("pictures", "concept pictures") for image in images[find(graph, f"{name}: {part}")]
            ]
            for name in ENCODERS
        },
        marks={run["name"]: Marks(run, len(exam.seen)) for run in report["runs"]},
        page=images[find(graph, "SAGE Compare Scores")][0],
        difference=against["comparisons"][0],
        against_base={each["other"]: each for each in report["comparisons"]},
    )


def install_judge(base: Path) -> str:
    """Put the learned judge where SAGELoadJudge finds it, if it has proved itself.

    Returns:
        Its name there, or the reader's if there is no such judge.
    """
    if not has_good_judge():
        return READER
    expand_judge(base / "models" / "VQA" / LEARNED_JUDGE)
    return LEARNED_JUDGE


def evaluation_graph(
    files: ExpandedFiles, encoders: Mapping[str, str], changes: Mapping[str, Mapping[str, Any]]
) -> Graph:
    """The shipped workflow with lanes for DES and SAGE+ in addition to SAGE's, and the comparisons in JSON."""
    graph = on_shapes_world("evaluate_base_and_sage", files, changes)
    for name in ALIGNED:
        graph = graph if name == "SAGE" else clone_lane(graph, "SAGE", name)
    for name, file in encoders.items():
        graph[find(graph, f"{name}: text encoder")]["inputs"]["encoder_name"] = file
    base, des, sage, plus = ([find(graph, f"{name}: concept rate"), 0] for name in ENCODERS)
    compare = find(graph, "SAGE Compare Scores")
    graph[compare]["inputs"] = {"base": base, "run_2": des, "run_3": sage, "run_4": plus, "theme": "light"}
    graph["DES and SAGE+"] = node("SAGECompare", "DES and SAGE+ compared", base=des, run_2=plus, theme="light")
    graph["all in JSON"] = node("PreviewAny", "All compared, in JSON", source=[compare, 2])
    graph["DES and SAGE+ in JSON"] = node("PreviewAny", "DES and SAGE+, in JSON", source=["DES and SAGE+", 2])
    return graph


def score_one(server: Server, files: ExpandedFiles, encoder: str, *, steps: int) -> PIL.Image.Image:
    """A picture of CARD_PROMPT by an encoder in models/text_encoders, each question about it ticked or crossed."""
    graph = card_graph(server.base, files, encoder, steps=steps)
    return server.images(server.run(graph))[find(graph, "SAGE Score TIFA")][0]


def card_graph(base: Path, files: ExpandedFiles, encoder: str, *, steps: int) -> Graph:
    """The shipped workflow `score_one_picture` on CARD_PROMPT, in a server with the base folder `base`."""
    judge = install_judge(base)
    changes: dict[str, dict[str, Any]] = {
        "Prompt": {"value": CARD_PROMPT},
        "KSampler": {"steps": steps, **SAMPLING},
        "SAGELoadJudge": {"judge": judge, "sentence_encoder": "none"},
    }
    graph = on_shapes_world("score_one_picture", files, changes, encoder)
    if judge == LEARNED_JUDGE:
        # It learned the wording of this world's own questions, not that of questions made by rules from any prompt.
        write_questions(base / "input" / "shapes_card.json", _card_questions())
        (made,) = (name for name, entry in graph.items() if entry["class_type"] == "SAGEMakeQuestions")
        graph[made] = node("SAGELoadQuestions", "This world's questions", file="shapes_card.json")
    return graph


def _card_questions() -> list[Question]:
    """What is asked of the scene that CARD_PROMPT describes."""

    def two(names: Sequence[str], first: str, second: str) -> Tensor:
        return torch.tensor([[names.index(first), names.index(second)]])

    scene = Scenes(
        place=torch.tensor([PLACES.index("night")]),
        groups=torch.tensor([2]),
        relation=torch.tensor([RELATIONS.index("left")]),
        shape=two(SHAPES, "star", "heart"),
        color=two(COLORS, "red", "blue"),
        material=two(MATERIALS, "plain", "plain"),
        count=torch.tensor([[2, 2]]),
        size=two(SIZES, "small", "large"),
    )
    return ask(scene, [CARD_PROMPT])[0]


@dataclass(frozen=True)
class Space:
    """An aligned encoder's embedding space against the base's.

    Attributes:
        found: SAGEGeometry's figures, as its JSON has them; k is how many nearest neighbours were compared.
        page: its page.
    """

    found: Mapping[str, Any]
    page: PIL.Image.Image

    @property
    def spread_ratio(self) -> float:
        """The spread of the prompts: 1 is the base's, less is collapse."""
        return self.found["spread_ratio"]["value"]

    @property
    def jaccard(self) -> float:
        """Mean overlap of the k nearest neighbours with the base's, 0 to 1."""
        return self.found["jaccard"][str(self.found["k"])]["value"]

    @property
    def verdict(self) -> str:
        """SAGEGeometry's verdict: healthy, strained or damaged."""
        return self.found["verdict"]["level"]


def compare_spaces(server: Server, base: str, encoders: Mapping[str, str]) -> dict[str, Space]:
    """The space of each encoder, on prompts that are neither trained on nor drawn.

    Args:
        server: a running ComfyUI, which compares them by the pack's own node.
        base: the base's file in models/text_encoders.
        encoders: such files of the aligned encoders, by name.
    """
    pairs = matched_pairs(SPACE_PROMPTS, seed=SEED + 3, names="seen", split="any")
    texts = {"safe_text": "\n".join(pairs.safe), "unsafe_text": "\n".join(pairs.unsafe)}
    files = {"safe_file": "none", "unsafe_file": "none"}
    graph = {
        "base": node("SAGELoadEncoder", "Base", encoder_name=base),
        "pairs": node("SAGEPromptPairs", "Prompts to compare on", concept="", **files, **texts),
    }
    how = {"prompts": "", "embedding": "flattened", "k": DEFAULT_NEIGHBOURS, "theme": "light"}
    for place, (name, file) in enumerate(encoders.items(), start=1):
        links = {"base": ["base", 0], "aligned": [f"encoder {name}", 0], "pairs": ["pairs", 0]}
        graph[f"encoder {name}"] = node("SAGELoadEncoder", name, encoder_name=file)
        graph[f"page {name}"] = node("SAGEGeometry", f"Geometry of {name}", **links, **how, place=place)
        graph[f"json {name}"] = node("PreviewAny", f"Figures of {name}", source=[f"page {name}", 6])
    outputs = server.run(graph)
    pages = server.images(outputs)
    return {name: Space(json.loads(outputs[f"json {name}"]["text"][0]), pages[f"page {name}"][0]) for name in encoders}
