/** Trees on the page: only what differs is touched, and text only ever becomes text nodes. */
/** @import {Element_, Node_} from "./types.js" */
import { $, h, iconButton } from "../dom.js";
import { Incremental } from "./markdown.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";

/**
 * A module that is loaded when it is first needed. Where that fails, the gateway is away: what needs it stays as it is,
 * and tries again with the next piece of text.
 * @template T @param {() => Promise<T>} load @returns {(use: (module: T) => void) => void}
 */
function onDemand(load) {
  /** @type {Promise<T> | null} */
  let loading = null;
  return function need(use) {
    loading ??= load();
    loading.then(use, () => {
      loading = null;
      waiting.push(() => need(use));
    });
  };
}
/** @type {(() => void)[]} */
const waiting = [];
const colours = onDemand(() => import("./colours.js"));
const maths = onDemand(() => import("./maths.js"));

/** Markdown that grows in place. */
export class View {
  #incremental = new Incremental();
  #length = 0;
  #element;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  /** @param {string} text the whole text; it begins with the text of the last call @param {boolean} open */
  update(text, open) {
    this.#incremental.push(text.slice(this.#length));
    this.#length = text.length;
    patch(this.#element, this.#incremental.tree(open), buildTop);
    for (const need of waiting.splice(0)) need();
  }

  /** The text as a person would read it out: with a pause after each line. */
  get spoken() {
    const lines = laidOut(this.#element.cloneNode(true)).text.split(/[\n\t]+/);
    return lines.map((line) => line.trim().replace(/[^\p{P}]$/u, "$&.")).join(" ");
  }
}

/** What was built for an element, and from what. @type {WeakMap<Element, { tree: Node_[], nodes: ChildNode[] }>} */
const made = new WeakMap();

/**
 * Make the children of `parent` those of `tree`, touching only what differs from before. A text that only grew is
 * appended to, so a selection inside of it survives. Translators of browsers put their own nodes in place of texts:
 * where the children are not those that were built, they are built again.
 * @param {Element} parent @param {Node_[]} tree @param {(node: Node_) => Node} [make]
 */
function patch(parent, tree, make = build) {
  const { tree: before, nodes } = made.get(parent) ?? { tree: [], nodes: [] };
  const kept = nodes.every(
    (node, i) => node === parent.childNodes[i] && (!(node instanceof Text) || node.data === before[i]),
  );
  if (!kept || nodes.length !== parent.childNodes.length) parent.replaceChildren(...tree.map(make));
  else
    for (const [i, now] of tree.entries()) {
      const old = before[i];
      const child = nodes[i];
      if (old === now) continue;
      if (!child) parent.append(make(now));
      else if (child instanceof Text && typeof now === "string") setData(child, now);
      else if (child instanceof Element && typeof now === "object" && typeof old === "object" && same(old, now))
        fill(child, now);
      else child.replaceWith(make(now));
    }
  while (parent.childNodes.length > tree.length) parent.lastChild?.remove();
  made.set(parent, { tree, nodes: [...parent.childNodes] });
}

/** @param {Text} text @param {string} now */
function setData(text, now) {
  if (now.startsWith(text.data)) text.appendData(now.slice(text.length));
  else text.data = now;
}

/** @param {Element_} a @param {Element_} b */
const same = (a, b) => a.tag === b.tag && JSON.stringify(a.attrs) === JSON.stringify(b.attrs);

/** @param {Element} element @param {Element_} node */
function fill(element, { tag, kids }) {
  if (tag === "math") return;
  if (tag === "pre") codes.get(element)?.(String(kids[0] ?? ""));
  else patch(tag === "table" ? $("table", element) : element, kids);
}

/** @param {Node_} node @returns {Node} */
function build(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const element = shell(node);
  fill(element, node);
  return element;
}

/** A whole block has the direction of its text: an answer may mix Arabic and English. @param {Node_} node */
function buildTop(node) {
  const built = build(node);
  if (built instanceof HTMLElement && built.className !== "code") built.dir = "auto";
  return built;
}

/** The element of a node, without its children. @param {Element_} node @returns {HTMLElement} */
function shell({ tag, attrs = {} }) {
  switch (tag) {
    case "pre":
      return codeBlock(attrs);
    case "math":
      return formula(attrs);
    case "table":
      return h(
        "div",
        { class: "table" },
        button("copy", "copy-block"),
        h("div", { class: "scroll", tabindex: "0" }, h("table")),
      );
    case "a":
      return h("a", { ...attrs, target: "_blank", rel: "noopener noreferrer" });
    case "button":
      return h("button", { type: "button", class: "note-mark", "data-do": "note", "data-note": attrs.note ?? "" });
    case "div":
      return h("div", {
        class: "note",
        "data-note": attrs.note ?? "",
        "data-label": attrs.label ?? "",
        tabindex: "-1",
      });
    default:
      return h(/** @type {"div"} */ (tag), attrs);
  }
}

/** @param {"copy" | "wrap"} name @param {string} action */
function button(name, action) {
  const element = iconButton(name, name);
  element.dataset.do = action;
  return element;
}

// Code ------------------------------------------------------------------------------------------------------

/** @type {WeakMap<Element, (text: string) => void>} */
const codes = new WeakMap();
/** @param {Record<string, string>} attrs */
function codeBlock({ language = "", name = "" }) {
  const title = name ? [h("strong", {}, name), " "] : [];
  const code = h("code");
  const block = h(
    "div",
    { class: "code" },
    h(
      "div",
      { class: "code-head" },
      h("span", {}, ...title, language),
      button("wrap", "wrap"),
      button("copy", "copy-block"),
    ),
    h("pre", { tabindex: "0" }, code),
  );
  codes.set(block, coloured(code, language));
  return block;
}

/** What shows the text of a code block, in colours as soon as they are loaded. @param {Element} code @param {string} language */
function coloured(code, language) {
  let text = "";
  /** @type {ReturnType<typeof import("./colours.js").painter>} */
  let painter;
  const show = (now = text) => {
    text = now;
    patch(code, painter?.paint(text) ?? (text ? [text] : []));
  };
  if (language)
    colours((module) => {
      painter = module.painter(language);
      show();
    });
  return show;
}

// Mathematics -----------------------------------------------------------------------------------------------

/** @param {Record<string, string>} attrs */
function formula({ tex = "", display }) {
  // What cannot be shown as a formula is shown as it was written, whole.
  const element = h("span", { class: display ? "math block" : "math", "data-tex": tex }, h("code", {}, tex));
  maths(({ mathematics }) => {
    const tree = mathematics(tex, !!display);
    if (tree) element.replaceChildren(buildMaths(tree));
  });
  return element;
}

/** @param {Node_} node @returns {Node} */
function buildMaths(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const element = document.createElementNS(MATHML, node.tag);
  for (const [name, value] of Object.entries(node.attrs ?? {})) element.setAttribute(name, value);
  element.append(...node.kids.map(buildMaths));
  return element;
}

// Text --------------------------------------------------------------------------------------------------------

/**
 * A copy as text and as HTML, in which formulas are LaTeX again. Only where it is laid out its line ends are known.
 * @param {Node} copy
 */
function laidOut(copy) {
  const place = h("div", { class: "prose hidden" }, copy);
  for (const head of place.querySelectorAll(".code-head")) head.remove();
  for (const formula of /** @type {NodeListOf<HTMLElement>} */ (place.querySelectorAll(".math"))) {
    const mark = formula.classList.contains("block") ? "$$" : "$";
    formula.replaceWith(mark + formula.dataset.tex + mark);
  }
  document.body.append(place);
  // biome-ignore lint/performance/useDomNodeTextContent: it has no line ends
  const { innerText: text, innerHTML: html } = place;
  place.remove();
  return { text, html };
}

/** What the copy button of a block copies: code as it is, a table as tab-separated values. @param {Element} button */
export function blockText(button) {
  const table = button.closest(".table")?.querySelector("table")?.cloneNode(true);
  if (!(table instanceof Element)) return button.closest(".code")?.querySelector("code")?.textContent ?? "";
  for (const end of table.querySelectorAll("br")) end.replaceWith(" ");
  return laidOut(table).text;
}

// What people copy has the LaTeX of its formulas.
document.addEventListener("copy", (event) => {
  const selection = document.getSelection();
  if (!selection?.rangeCount) return;
  const copied = selection.getRangeAt(0).cloneContents();
  if (!copied.querySelector(".math")) return;
  const { text, html } = laidOut(copied);
  event.clipboardData?.setData("text/plain", text);
  event.clipboardData?.setData("text/html", html);
  event.preventDefault();
});
