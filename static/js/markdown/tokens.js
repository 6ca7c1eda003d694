/** The flat tokens of a text: which delimiters match, and the tree that they make. */
/** @import {Attributes, Delimiter, Element_, Mark, Node_} from "./types.js" */
import { where } from "./references.js";

/** Of elements; below that, marks open nothing. */
const MAX_DEPTH = 64;
const IMAGE_DATA = /^data:image\/([\w.-]+).*?,(.*)$/s;

/** @param {string} tag @param {Node_[]} [kids] @param {Attributes} [attrs] @returns {Element_} */
export const node = (tag, kids = [], attrs) => (attrs ? { tag, attrs, kids } : { tag, kids });

/** @param {Delimiter} opener @param {Delimiter} closer */
export function matches(opener, closer) {
  if (opener.char !== closer.char) return false;
  if (closer.char === "~") return opener.text === closer.text;
  const both = opener.canClose || closer.canOpen;
  return !both || (opener.size + closer.size) % 3 !== 0 || (opener.size % 3 === 0 && closer.size % 3 === 0);
}

/** @param {Delimiter} opener @param {Delimiter} closer */
export function pair(opener, closer) {
  const used = opener.char === "~" ? opener.size : Math.min(2, opener.text.length, closer.text.length);
  opener.opens.push(node(opener.char === "~" ? "del" : used === 2 ? "strong" : "em"));
  closer.closes++;
  opener.text = opener.text.slice(used);
  closer.text = closer.text.slice(used);
}

/** A link, or text with its address. @param {Node_[]} kids @param {Attributes} attrs */
const link = (kids, attrs) => node(attrs.href ? "a" : "span", kids, attrs);

/** The characters at `at` that are alike. @param {string} text @param {number} at */
export function run(text, at) {
  let end = at;
  while (text[end] === text[at]) end++;
  return text.slice(at, end);
}

/** @param {(Node_ | Mark)[]} tokens */
export function tree(tokens) {
  const root = node("");
  const stack = [root];
  let below = 0;
  /** @param {Node_} kid */
  const add = (kid) => {
    const { kids } = stack.at(-1) ?? root;
    // Neighbouring texts are one, as after the DOM's normalize().
    if (typeof kid === "string" && typeof kids.at(-1) === "string") kids[kids.length - 1] += kid;
    else if (kid !== "") kids.push(kid);
  };
  /** @param {Element_ | undefined} element */
  const finish = (element) => {
    for (const kid of element ? finished(element, stack) : []) add(kid);
  };
  for (const token of tokens) {
    if (typeof token === "string") add(token);
    else if ("tag" in token) finish(token);
    else {
      for (let n = token.closes; n > 0; n--) below ? below-- : finish(stack.pop());
      add(token.text);
      for (const element of token.opens.reverse()) stack.length > MAX_DEPTH ? below++ : stack.push(element);
    }
  }
  return root.kids;
}

/** @param {Element_} element @param {Element_[]} around */
function finished(element, around) {
  const { tag, kids, attrs = {} } = element;
  const linked = around.some(({ tag }) => tag === "a" || tag === "img");
  if (tag === "img") return image(textOf(kids), attrs.href ?? "", linked);
  if (tag !== "a") return [element];
  // No link stands in another one.
  if (linked) return kids;
  if (!kids.length) kids.push(attrs.href ?? attrs.title ?? "");
  return [link(kids, attrs)];
}

/** A picture is not loaded: it is a link or, where its data is in the text, a size. @param {string} alt @param {string} href @param {boolean} linked */
function image(alt, href, linked) {
  const [, kind, data = ""] = IMAGE_DATA.exec(href) ?? [];
  if (kind) {
    const size = `(${kind.toUpperCase()}, ${Math.ceil((Number(data) || data.length) / 1024)} KB)`;
    return [node("span", [`${alt} ${size}`.trim()], { class: "picture" })];
  }
  return [linked ? alt : link([alt || href], where(href))];
}

/** @param {Node_[]} nodes @returns {string} */
const textOf = (nodes) => nodes.map((kid) => (typeof kid === "string" ? kid : textOf(kid.kids))).join("");
