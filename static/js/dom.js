/** Small helpers for the DOM: elements, templates, frames. Text only ever becomes text nodes. */
import { t } from "./strings.js";

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
    const {
      t: text,
      label,
      placeholder,
    } = /** @type {Record<string, import("./strings.js").Key>} */ (/** @type {HTMLElement} */ (element).dataset);
    if (text) element.textContent = t(text);
    if (label) {
      element.setAttribute("aria-label", t(label));
      if (element.localName === "button") element.setAttribute("title", t(label));
    }
    if (placeholder) element.setAttribute("placeholder", t(placeholder));
  }
}

/**
 * Set a text only where it differs: an equal text would still cost a layout.
 * @param {Element} element @param {string} text
 */
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
    // A tab in the background has no frames, and is complete all the same when it is looked at.
    if (document.hidden) setTimeout(frame, 250);
    else if (rest) setTimeout(() => requestAnimationFrame(frame), rest);
    else requestAnimationFrame(frame);
  };
}
