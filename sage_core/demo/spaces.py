"""What each training did to the embedding space, by the pack's own node in the running ComfyUI."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import PIL.Image

from ..geometry import DEFAULT_NEIGHBOURS
from ..shapes.captions import matched_pairs
from .exam import SEED
from .graphs import node

if TYPE_CHECKING:
    from .comfyui.client import Graph, Progress
    from .comfyui.server import Server

PROMPTS = 128


@dataclass(frozen=True)
class Space:
    """An aligned encoder's embedding space against the base's.

    Attributes:
        found: SAGEGeometry's figures, as its JSON has them.
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
        """Mean overlap of the `k` nearest neighbours with the base's, 0 to 1."""
        return self.found["jaccard"][str(self.k)]["value"]

    @property
    def k(self) -> int:
        """How many nearest neighbours were compared."""
        return self.found["k"]

    @property
    def verdict(self) -> str:
        """SAGEGeometry's verdict: healthy, strained or damaged."""
        return self.found["verdict"]["level"]


def compare_spaces(
    server: Server, base: str, encoders: Mapping[str, str], on_progress: Callable[[Progress], None] | None = None
) -> dict[str, Space]:
    """The space of each encoder, on prompts that are neither trained on nor drawn.

    Args:
        server: a running ComfyUI.
        base: the base's file in models/text_encoders.
        encoders: such files of the aligned encoders, by name.
        on_progress: see `Client.run`.
    """
    pairs = matched_pairs(PROMPTS, seed=SEED + 3, names="seen", split="any")
    graph = geometry_graph(base, encoders, pairs.safe, pairs.unsafe)
    outputs = server.run(graph, on_progress)
    pages = server.images(outputs)
    return {name: Space(json.loads(outputs[f"json {name}"]["text"][0]), pages[f"page {name}"][0]) for name in encoders}


def geometry_graph(base: str, encoders: Mapping[str, str], safe: Sequence[str], unsafe: Sequence[str]) -> Graph:
    """A graph with a SAGEGeometry `page NAME` and its JSON `json NAME` for each encoder."""
    graph = {
        "base": node("SAGELoadEncoder", "Base", encoder_name=base),
        "pairs": node(
            "SAGEPromptPairs",
            "Prompts to compare on",
            safe_file="none",
            safe_text="\n".join(safe),
            unsafe_file="none",
            unsafe_text="\n".join(unsafe),
            concept="",
        ),
    }
    for place, (name, file) in enumerate(encoders.items(), start=1):
        graph[f"encoder {name}"] = node("SAGELoadEncoder", name, encoder_name=file)
        graph[f"page {name}"] = node(
            "SAGEGeometry",
            f"Geometry of {name}",
            base=["base", 0],
            aligned=[f"encoder {name}", 0],
            prompts="",
            pairs=["pairs", 0],
            embedding="flattened",
            k=DEFAULT_NEIGHBOURS,
            theme="light",
            place=place,
        )
        graph[f"json {name}"] = node("PreviewAny", f"Figures of {name}", source=[f"page {name}", 6])
    return graph
