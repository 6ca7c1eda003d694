/** Small helpers for the DOM: elements, templates, trees, frames. Text only ever becomes text nodes. */
import { t } from "./strings.js";

/** @typedef {import("./markdown.js").Node_} Node_ */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @template {Element} [T=HTMLElement]
 * @param {string} selector @param {ParentNode} [root] @returns {T}
 */
export function $(selector, root = document) {
  const found = root.querySelector(selector);
  if (!found) throw new Error(`nothing matches ${selector}`);
  return /** @type {T} */ (found);
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Record<string, string>} attrs @param {(Node | string)[]} kids
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, attrs = {}, ...kids) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) element.setAttribute(name, value);
  element.append(...kids);
  return element;
}

/** @param {string} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon and a name. @param {string} name @param {import("./strings.js").Key} label */
export function iconButton(name, label) {
  return h("button", { type: "button", class: "icon", "aria-label": t(label), title: t(label) }, icon(name));
}

/** @param {string} id @returns {HTMLElement} the translated content of a template with one root */
export function fromTemplate(id) {
  const template = /** @type {HTMLTemplateElement} */ ($(`#${id}`));
  const root = /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
  translate(root);
  return root;
}

/** Fill in the texts named by `data-t`, `data-label` and `data-placeholder`. @param {ParentNode} root */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-t], [data-label], [data-placeholder]")) {
    const { t: text, label, placeholder } = /** @type {Record<string, import("./strings.js").Key>} */ (
      /** @type {HTMLElement} */ (element).dataset
    );
    if (text) element.textContent = t(text);
    if (label) {
      element.setAttribute("aria-label", t(label));
      if (element.localName === "button") element.setAttribute("title", t(label));
    }
    if (placeholder) element.setAttribute("placeholder", t(placeholder));
  }
}

/** Set a text only where it differs: an equal text would still cost a layout. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {HTMLElement} element @param {boolean} visible */
export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

/**
 * Run `work` once in the next frame, however often it is asked for. When it takes long, it lets the page
 * breathe before the next run, so that typing stays fluid beside a huge answer.
 * @param {() => void} work
 */
export function oncePerFrame(work) {
  let asked = false;
  let rest = 0;
  const frame = () => {
    asked = false;
    const begin = performance.now();
    work();
    const cost = performance.now() - begin;
    rest = cost > 8 ? cost * 3 : 0;
  };
  return () => {
    if (asked) return;
    asked = true;
    if (rest) setTimeout(() => requestAnimationFrame(frame), rest);
    else requestAnimationFrame(frame);
  };
}

// Trees -------------------------------------------------------------------------------------------------

/**
 * Make the children of `parent` those of `next`, touching only what differs from `before`. A node that
 * only grew is appended to, so a selection inside of it survives.
 * @param {Element} parent @param {Node_[]} before @param {Node_[]} next
 */
export function patch(parent, before, next) {
  for (let i = 0; i < next.length; i++) {
    const old = before[i];
    const now = /** @type {Node_} */ (next[i]);
    if (old === now) continue;
    const child = parent.childNodes[i];
    if (old === undefined || !child) parent.append(build(now));
    else if (typeof old === "string" && typeof now === "string") setData(/** @type {Text} */ (child), old, now);
    else if (typeof old === "object" && typeof now === "object" && same(old, now))
      patch(inside(/** @type {Element} */ (child)), old.kids, now.kids);
    else child.replaceWith(build(now));
  }
  while (parent.childNodes.length > next.length) parent.lastChild?.remove();
}

/** @param {Text} text @param {string} old @param {string} now */
function setData(text, old, now) {
  if (now.startsWith(old)) text.appendData(now.slice(old.length));
  else text.data = now;
}

/** @param {import("./markdown.js").Element_} a @param {import("./markdown.js").Element_} b */
const same = (a, b) => a.tag === b.tag && JSON.stringify(a.attrs) === JSON.stringify(b.attrs);

/** @param {Node_} node @returns {Node} */
function build(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const { tag, attrs = {}, kids } = node;
  /** @type {HTMLElement} */
  let element;
  if (tag === "pre") element = codeBlock(attrs.language ?? "");
  else if (tag === "table") element = h("div", { class: "table", tabindex: "0" }, h("table"));
  else if (tag === "a") element = h("a", { href: attrs.href ?? "", target: "_blank", rel: "noopener noreferrer" });
  else if (attrs.align) element = h(/** @type {"td"} */ (tag), { class: attrs.align });
  else element = h(/** @type {"div"} */ (tag), attrs.start ? { start: attrs.start } : {});
  inside(element).append(...kids.map(build));
  return element;
}

/** Where the children of a built node stand. @param {Element} element @returns {Element} */
function inside(element) {
  if (element.className === "code") return $("code", element);
  return element.className === "table" ? $("table", element) : element;
}

/** @param {string} language */
function codeBlock(language) {
  const copy = iconButton("copy", "copy");
  copy.dataset.do = "copy-block";
  const head = h("div", { class: "code-head" }, h("span", {}, language), copy);
  return h("div", { class: "code" }, head, h("pre", { tabindex: "0" }, h("code")));
}
