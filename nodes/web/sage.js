// Shows on a SAGE node the text that it leaves: reports, summaries, tables of figures and warnings. ComfyUI's frontends
// draw `ui.text` for their own Preview as Text alone. Without this file nothing is lost: the nodes' STRING outputs
// carry the same text.

import { app } from "../../scripts/app.js";

const PREFIX = "SAGE";
const WIDGET = "sage_text";
const PREVIEW = "$$canvas-image-preview";
const WARNING = "⚠";
// Pixels of the canvas at scale 1: what a node's text takes at least, and what it takes at most unless the node is made
// larger by hand. Longer text scrolls.
const LEAST_HEIGHT = 72;
const MOST_HEIGHT = 180;
// What a picture below it wants before it is there, by the node's width: no figure of these nodes is higher. The frontend
// gives it this much at least.
const PICTURE_SHAPE = 0.66;
const LEAST_PICTURE_HEIGHT = 220;
// Of the line below a picture that says how large it is.
const CAPTION_HEIGHT = 24;

const STYLE = `
.sage-text { box-sizing: border-box; width: 100%; height: 100%; min-height: ${LEAST_HEIGHT}px; overflow: auto;
  padding: 6px 8px; border-radius: 6px; background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd);
  font: 12px/1.45 system-ui, sans-serif; user-select: text; overflow-wrap: anywhere; text-align: left; }
.sage-text p { margin: 0; min-height: 0.7em; white-space: pre-wrap; }
.sage-text p.sage-heading { font-weight: 600; }
.sage-text p.sage-warning { margin: 3px 0; padding: 4px 8px; border-left: 3px solid #f5a623; border-radius: 3px;
  background: rgb(245 166 35 / 18%); font-weight: 600; }
.sage-text table { margin: 4px 0; border-collapse: collapse; overflow-wrap: normal; }
.sage-text td, .sage-text th { padding: 1px 10px 1px 0; border-bottom: 1px solid rgb(128 128 128 / 35%);
  text-align: left; vertical-align: top; }
.sage-text td.sage-number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.sage-text button { position: sticky; top: 0; float: right; margin: -2px -4px 0 6px; padding: 0 5px; border: 0;
  border-radius: 4px; background: var(--comfy-menu-bg, #353535); color: inherit; font-size: 11px; line-height: 18px;
  cursor: pointer; opacity: 0.5; }
.sage-text button:hover, .sage-text button:focus-visible { opacity: 1; }
.sage-text button::before { content: "Copy"; }
.sage-text button.sage-copied::before { content: "Copied"; }
/* Where nodes are HTML (Nodes 2.0) they fit what is in them, so that the text itself says where it ends. */
.lg-node .sage-text { max-height: var(--sage-room, ${MOST_HEIGHT}px); }
`;

function paragraph(line) {
  const element = document.createElement("p");
  const heading = /^#{1,6} +/.exec(line);
  element.textContent = line.slice(heading ? heading[0].length : 0).replaceAll("**", "");
  if (heading) element.className = "sage-heading";
  if (line.trimStart().startsWith(WARNING)) element.className = "sage-warning";
  return element;
}

// A row of a Markdown table as its cells. A bar that belongs to a cell is escaped.
function cells(line) {
  const row = line.trim().replace(/^\||\|$/g, "");
  return row.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines) {
  const element = document.createElement("table");
  for (const [place, line] of lines.entries()) {
    if (/^[\s|:-]+$/.test(line)) continue;
    const row = element.insertRow();
    for (const text of cells(line)) {
      const cell = row.appendChild(document.createElement(place === 0 ? "th" : "td"));
      cell.textContent = text.replaceAll("**", "");
      if (place > 0 && /^[-+−]?[\d.]+ ?%?$/.test(text)) cell.className = "sage-number";
    }
  }
  return element;
}

// Text as elements, never as HTML: it holds prompts and names of files.
function render(text) {
  const found = [];
  let rows = [];
  for (const line of [...text.split("\n"), null]) {
    if (line?.trimStart().startsWith("|")) {
      rows.push(line);
      continue;
    }
    if (rows.length) found.push(table(rows));
    rows = [];
    if (line !== null) found.push(paragraph(line));
  }
  return found;
}

// A page that is neither local nor encrypted has no clipboard, but may still copy what is selected.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function copyButton(text) {
  const button = document.createElement("button");
  // Its word comes from the style: as text of its own it would be read with the result.
  button.ariaLabel = "Copy";
  // The canvas would begin to drag the node.
  button.addEventListener("pointerdown", (event) => event.stopPropagation());
  button.addEventListener("click", async () => {
    await copy(text);
    button.className = "sage-copied";
    setTimeout(() => (button.className = ""), 1500);
  });
  return button;
}

// Text and picture share what height a node has left over. A picture takes no more than it can fill at the node's width,
// so that the rest is the text's. The frontend adds its widget on its own, a moment after the text.
function fitPicture(node) {
  const preview = node.widgets.find((each) => each.name === PREVIEW);
  if (!preview) return;
  preview.computeLayoutSize = () => {
    const least = { minHeight: LEAST_PICTURE_HEIGHT, minWidth: 1 };
    const [picture, ...others] = node.imgs ?? [];
    if (!picture?.naturalWidth || others.length) return least;
    const filled = (node.size[0] * picture.naturalHeight) / picture.naturalWidth + CAPTION_HEIGHT;
    return { ...least, maxHeight: Math.max(LEAST_PICTURE_HEIGHT, filled) };
  };
}

function addWidget(node) {
  const element = document.createElement("div");
  element.className = "sage-text";
  // The canvas zooms on the wheel: a text that is longer than its box keeps it.
  element.addEventListener("wheel", (event) => {
    if (element.scrollHeight > element.clientHeight) event.stopPropagation();
  });
  let value = "";
  const widget = node.addDOMWidget(WIDGET, "sage-text", element, {
    getValue: () => value,
    setValue: (text) => {
      value = String(text ?? "");
      element.replaceChildren(copyButton(value), ...render(value));
    },
    // Asked for whenever the node is laid out.
    getMinHeight: () => {
      fitPicture(node);
      return LEAST_HEIGHT;
    },
    hideOnZoom: false,
    // Neither the prompt that is queued nor a saved workflow has it: it is a result, not an input.
    serialize: false,
    read_only: true,
  });
  widget.serialize = false;
  // Where it is without a live picture, too: above the pictures.
  const picture = node.widgets.findIndex((each) => each.name === PREVIEW);
  if (picture >= 0) node.widgets.splice(picture, 0, ...node.widgets.splice(node.widgets.indexOf(widget), 1));
  return widget;
}

// Room for the text when it first comes: as high as it is, up to MOST_HEIGHT. A node that has some keeps its size, and
// where nodes are HTML its text may take what of it is left.
function makeRoom(node, widget, pictured) {
  const [width, height] = node.size;
  const needed = node.computeSize()[1];
  const picture = Math.max(LEAST_PICTURE_HEIGHT, PICTURE_SHAPE * width) + CAPTION_HEIGHT;
  let room = height - needed + LEAST_HEIGHT - (pictured ? picture : 0);
  if (height < needed) {
    const inLine = Math.max(20, (width - 40) / 6.2);
    const lines = widget.value.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / inLine)), 0);
    room = Math.min(MOST_HEIGHT, Math.max(LEAST_HEIGHT, lines * 18 + 36));
    node.setSize([width, needed - LEAST_HEIGHT + room]);
  }
  // Rows are a quarter higher there.
  widget.element.style.setProperty("--sage-room", `${Math.max(LEAST_HEIGHT, room - 0.25 * needed)}px`);
}

// Where the server can tell progress in words, the frontend leaves its last line standing.
function forgetProgress(node) {
  const place = node.widgets?.findIndex((widget) => widget.name === "$$node-text-preview") ?? -1;
  if (place < 0) return;
  node.widgets[place].onRemove?.();
  node.widgets.splice(place, 1);
}

// The last live curves would stay next to the final ones where nodes are HTML. The frontend keeps them twice, and lets
// them go when the node runs again.
function forgetLivePicture(node) {
  const stores = document.querySelector("#vue-app")?.__vue_app__?.config.globalProperties.$pinia?.state.value;
  for (const kept of [app.nodePreviewImages, stores?.nodeOutput?.nodePreviewImages]) {
    if (kept) delete kept[locator(node)];
  }
}

// A text outlives a reload of the page in the tab's own memory. In the workflow it would travel, with names of files and
// prompts, in every picture that is saved. The server sends nothing again for a node whose result it remembers.
function memoryOf(node) {
  // Frontends that give a workflow no number of its own would mix those of different workflows up.
  const id = (app.rootGraph ?? app.graph)?.id;
  return id ? `SAGE.Text:${id}:${locator(node)}:${node.type}` : null;
}

// With other settings the text would no longer be the node's.
function settingsOf(node) {
  return JSON.stringify((node.widgets ?? []).filter((widget) => widget.serialize !== false).map(({ value }) => value));
}

function remember(node, text) {
  try {
    const key = memoryOf(node);
    if (key) sessionStorage.setItem(key, JSON.stringify({ text, settings: settingsOf(node) }));
  } catch {
    // Full, or forbidden by the browser's settings.
  }
}

function recall(node) {
  try {
    const key = memoryOf(node);
    const found = key && JSON.parse(sessionStorage.getItem(key));
    if (found?.settings === settingsOf(node)) show(node, { text: found.text });
  } catch {
    // As above, or written by something else.
  }
}

function show(node, output) {
  const text = [output?.text].flat().filter((part) => typeof part === "string").join("\n");
  if (!text || typeof node.addDOMWidget !== "function") return;
  remember(node, text);
  const found = node.widgets?.find((widget) => widget.name === WIDGET);
  const widget = found ?? addWidget(node);
  widget.value = text;
  if (!found) makeRoom(node, widget, Boolean(output.images?.length));
  node.setDirtyCanvas?.(true, true);
}

// The root graph knows the subgraphs inside subgraphs, too.
function everyNode(root) {
  return [root, ...(root?.subgraphs?.values() ?? [])].flatMap((graph) => graph?.nodes ?? []);
}

function locator(node) {
  const root = node.graph?.isRootGraph ?? node.graph === app.graph;
  return root ? String(node.id) : `${node.graph.id}:${node.id}`;
}

app.registerExtension({
  name: "SAGE.Text",

  setup() {
    const style = document.createElement("style");
    style.textContent = STYLE;
    document.head.append(style);
  },

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith(PREFIX)) return;
    const before = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      before?.apply(this, arguments);
      forgetProgress(this);
      if (output?.images?.length) forgetLivePicture(this);
      show(this, output);
    };
  },

  // The number box of Nodes 2.0 shows three digits after the point unless it is told of more: 0.0001 would read 0.
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    for (const { options } of node.widgets ?? []) {
      if (options?.precision > 3) options.maxFractionDigits ??= options.precision;
    }
  },

  // The page was loaded again.
  afterConfigureGraph() {
    for (const node of everyNode(app.rootGraph ?? app.graph)) {
      if (node.type?.startsWith(PREFIX)) recall(node);
    }
  },

  // A workflow whose tab is opened again, and one that is loaded from the queue's history.
  onNodeOutputsUpdated(outputs) {
    for (const node of everyNode(app.rootGraph ?? app.graph)) {
      if (node.type?.startsWith(PREFIX)) show(node, outputs?.[locator(node)]);
    }
  },
});
