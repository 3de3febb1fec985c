"""A Chromium that opens ComfyUI's own frontend, as a user does; without one these tests are skipped."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_core.demo.comfyui.server import PACK_NAME, Server

WINDOW = {"width": 1600, "height": 900}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_READY = "() => window.app?.graph?.nodes && window.app.extensionManager?.setting && window.app.vueAppReady"
_OUTCOMES = """() => {
  window.outcome = null;
  window.told = [];
  app.api.addEventListener("progress_text", (event) => window.told.push(event.detail.text));
  for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
    app.api.addEventListener(kind, (event) => { window.outcome = [kind, JSON.stringify(event.detail)]; });
}"""


class Tab:
    """One page of the browser with ComfyUI's frontend in it.

    Attributes:
        renderer: "classic" (LiteGraph's canvas) or "vue" (Nodes 2.0).
        errors: What went wrong in the page: exceptions that nothing caught, and errors that name this pack.
    """

    def __init__(self, page: Any, url: str, renderer: str) -> None:
        self.page = page
        self.renderer = renderer
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._listen)
        settings = {
            "Comfy.VueNodes.Enabled": renderer == "vue",
            # Would move the nodes of a workflow apart, and hide that they overlap where it is off.
            "Comfy.VueNodes.AutoScaleLayout": False,
            "Comfy.TutorialCompleted": True,
            "Comfy.Minimap.Visible": False,
        }
        # Before the page is read: a newcomer is shown the templates.
        page.request.post(f"{url}/api/settings", data=settings)
        page.goto(url)
        page.wait_for_function(_READY)
        page.evaluate(_OUTCOMES)

    def _listen(self, message: Any) -> None:
        ours = PACK_NAME in message.location.get("url", "") or "SAGE" in message.text
        # The frontend asks the registry, which its own policy forbids it here, about every node.
        if message.type == "error" and ours and "Content Security Policy" not in message.text:
            self.errors.append(message.text)

    def open(self, workflow: dict[str, Any], name: str) -> None:
        """Load a workflow as the template browser does."""
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [workflow, name])
        self.settle()

    def reload(self) -> None:
        """Load the page again; the frontend brings back the workflow that was open."""
        # It writes workflows down a moment after they change.
        time.sleep(1.5)
        self.page.reload()
        self.page.wait_for_function(_READY)
        self.page.evaluate(_OUTCOMES)
        self.settle()

    def render(self, renderer: str) -> None:
        """Change the renderer, as the settings do."""
        script = "(vue) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)"
        self.page.evaluate(script, renderer == "vue")
        self.renderer = renderer
        self.settle()

    def settle(self) -> None:
        """Wait until sizes and pictures have come to rest."""
        before = None
        for _ in range(20):
            time.sleep(0.25)
            now = (self.boxes(), self.page.evaluate("() => [...document.images].every((image) => image.complete)"))
            if now == before and now[1]:
                return
            before = now

    def told(self) -> list[str]:
        """What nodes have said of their progress."""
        return self.page.evaluate("() => window.told")

    def queue(self, limit: float = 240.0) -> None:
        """Press Run and wait for the end; fails with what the server or a node says."""
        self.page.evaluate("() => { window.outcome = null; }")
        self.page.evaluate("() => app.queuePrompt(0, 1)")
        refused = self.page.evaluate("() => JSON.stringify(app.lastNodeErrors ?? {})")
        assert refused == "{}", refused
        self.page.wait_for_function("() => window.outcome", timeout=1000 * limit)
        kind, detail = self.page.evaluate("() => window.outcome")
        assert kind == "execution_success", detail
        self.settle()

    def boxes(self) -> dict[str, tuple[float, float, float, float]]:
        """Node title and id -> left, top, right and bottom on the canvas, as drawn, title bar included."""
        script = """() => app.graph.nodes.map((node) => {
          const name = `${node.title} (${node.id})`;
          const element = document.querySelector(`[data-node-id="${node.id}"]`);
          if (element) {
            const { left, top, right, bottom } = element.getBoundingClientRect();
            const canvas = app.canvas.canvas.getBoundingClientRect(), { scale, offset } = app.canvas.ds;
            const x = (value) => (value - canvas.left) / scale - offset[0];
            const y = (value) => (value - canvas.top) / scale - offset[1];
            return [name, x(left), y(top), x(right), y(bottom)];
          }
          const [x, y, width, height] = node.getBounding();
          return [name, x, y, x + width, y + height];
        })"""
        return {name: tuple(round(side) for side in sides) for name, *sides in self.page.evaluate(script)}

    def texts(self) -> list[tuple[str, float, bool]]:
        """Titles, and texts in HTML: what is read, its font's height on the screen, and whether it has room."""
        script = """(vue) => app.graph.nodes.flatMap((node) => {
          const { canvas, ds } = app.canvas, element = document.querySelector(`[data-node-id="${node.id}"]`);
          const found = [];
          if (vue && element) {
            const title = element.querySelector('[data-testid="node-title"] .truncate');
            found.push([node.title, 14 * ds.scale, title.scrollWidth <= title.clientWidth + 1]);
          } else {
            const context = canvas.getContext("2d");
            context.save();
            context.font = `${LiteGraph.NODE_TEXT_SIZE}px ${LiteGraph.NODE_FONT ?? "Arial"}`;
            // Before it a dot or a subgraph's sign, and after that the button that opens it.
            const room = (node.flags.collapsed ? 300 : node.size[0]) - (node.subgraph ? 70 : 40);
            const width = context.measureText(node.title).width;
            found.push([node.title, LiteGraph.NODE_TEXT_SIZE * ds.scale, width <= room]);
            context.restore();
          }
          const texts = element ? [...element.querySelectorAll("p, li, label, span, textarea")] : [];
          for (const widget of node.widgets ?? [])
            if (widget.element?.isConnected) texts.push(widget.element, ...widget.element.querySelectorAll("p, li"));
          for (const text of texts) {
            const told = text.tagName === "TEXTAREA" ? text.value : text.textContent;
            if (!text.offsetHeight || !told.trim()) continue;
            const zoom = text.getBoundingClientRect().height / text.offsetHeight;
            const height = zoom * parseFloat(getComputedStyle(text).fontSize);
            found.push([`${node.title}: ${told.slice(0, 30)}`, height, true]);
          }
          return found;
        })"""
        return [tuple(each) for each in self.page.evaluate(script, self.renderer == "vue")]

    def seen(self) -> list[float]:
        """Left, top, right and bottom of what the window shows of the canvas between its bars."""
        script = """() => {
          const canvas = app.canvas.canvas.getBoundingClientRect(), { scale, offset } = app.canvas.ds;
          const bar = document.querySelector(".side-tool-bar-container, nav")?.getBoundingClientRect();
          const left = bar && bar.width < 200 ? bar.right : canvas.left;
          return [(left - canvas.left) / scale - offset[0], -offset[1],
                  (window.innerWidth - canvas.left) / scale - offset[0],
                  (window.innerHeight - canvas.top) / scale - offset[1]];
        }"""
        return self.page.evaluate(script)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, driven by playwright; the system's own, since playwright's would be a download.

    Gone after this module: playwright's event loop would forbid any other in this process.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("SAGE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH, and SAGE_CHROMIUM names none")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(chromium: Any, server: Server) -> Iterator[Callable[[str], Tab]]:
    """Open ComfyUI in a fresh profile, with a renderer."""
    contexts = []

    def open_in(renderer: str) -> Tab:
        contexts.append(chromium.new_context(viewport=WINDOW))
        return Tab(contexts[-1].new_page(), server.url, renderer)

    yield open_in
    for context in contexts:
        context.close()


@pytest.fixture
def screenshot(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Tab, str], Path]:
    """Leave a picture of a tab in the folder SAGE_SCREENSHOTS, or in the test's own."""
    folder = Path(os.environ.get("SAGE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(tab: Tab, name: str) -> Path:
        path = folder / f"{re.sub(r'[^a-z0-9_]+', '-', name.lower())}-{tab.renderer}.png"
        tab.page.screenshot(path=path)
        return path

    return take
