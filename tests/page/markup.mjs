/** HTML of a reference renderer, and a tree of ours, as strings that can be compared. */
import { Incremental } from "../../static/js/markdown/markdown.js";

/** The tree of a text in one piece. @param {string} text @param {boolean} [open] more text follows */
export function parse(text, open = false) {
  const whole = new Incremental();
  whole.push(text);
  return whole.tree(open);
}

/** Any other tag stands in the text, which our trees keep as text. */
const KNOWN = /^(?:p|h[1-6]|hr|pre|code|blockquote|ul|ol|li|table|thead|tbody|tr|th|td|em|strong|del|a|br|img|input)$/;
const VOID = new Set(["br", "hr", "img", "input"]);
const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', nbsp: "\u00a0" };
const TAG = /<(\/?)([a-z]\w*)((?:\s+[\w-]+(?:="[^"]*")?)*)\s*\/?>/g;

/** @param {string} text */
const decoded = (text) =>
  text.replace(/&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi, (all, decimal, hex, name) =>
    name ? (NAMED[name] ?? all) : String.fromCodePoint(Number(decimal ?? `0x${hex}`)),
  );

/** HTML to the shape of our trees. Only what reference renderers write: well-formed, attributes in quotes. */
function read(html) {
  const root = { tag: "", attrs: {}, kids: [] };
  const stack = [root];
  let at = 0;
  const text = (end) => {
    if (end > at) stack.at(-1).kids.push(decoded(html.slice(at, end)));
  };
  for (const found of html.matchAll(TAG)) {
    const [all, slash, tag, rest] = found;
    if (!KNOWN.test(tag)) continue;
    text(found.index);
    at = found.index + all.length;
    if (slash) {
      while (stack.length > 1 && stack.pop().tag !== tag);
      continue;
    }
    const pairs = [...rest.matchAll(/([\w-]+)(?:="([^"]*)")?/g)].map(([, name, value]) => [name, decoded(value ?? "")]);
    const element = { tag, attrs: Object.fromEntries(pairs), kids: [] };
    stack.at(-1).kids.push(element);
    if (!VOID.has(tag)) stack.push(element);
  }
  text(html.length);
  return root.kids;
}

const BLOCK = /^(?:p|h[1-6]|hr|pre|blockquote|ul|ol|li|table|thead|tbody|tr|th|td)$/;
const SAFE = /^(?:https?:\/\/|mailto:)/i;

const address = (href) => {
  try {
    return encodeURI(decodeURI(href));
  } catch {
    return encodeURI(href).replaceAll("%25", "%");
  }
};

const textOf = (node) =>
  typeof node === "string" ? node : node.tag === "img" ? node.attrs.alt : node.kids.map(textOf).join("");

/** What is text is told from a tag. @param {string} text */
const text = (text) => text.replaceAll("<", "&lt;");

/** A link as both sides write it: an address that may not be followed has no title but itself. */
const link = (href, title, kids) =>
  `<a ${address(href)}${title && SAFE.test(href) ? ` "${title}"` : ""}>${kids || text(href)}</a>`;

/** @param {ReturnType<typeof read>} kids @param {boolean} linked */
function showReference(kids, linked = false, around = "") {
  const isBlock = (kid) => typeof kid === "object" && BLOCK.test(kid.tag);
  const blocks = around === "blockquote" || kids.some(isBlock);
  return kids
    .map((kid, i) => {
      if (typeof kid === "string") {
        // Between blocks a line end is only the renderer's.
        if (blocks && !kid.trim()) return "";
        if (kids[i - 1]?.tag === "br" || isBlock(kids[i - 1])) kid = kid.replace(/^\n/, "");
        return text(isBlock(kids[i + 1]) || (blocks && i === kids.length - 1) ? kid.trimEnd() : kid);
      }
      const { tag, attrs } = kid;
      if (tag === "br" || tag === "hr") return `<${tag}>`;
      if (tag === "img") return linked ? text(attrs.alt ?? "") : link(attrs.src ?? "", "", text(attrs.alt ?? ""));
      if (tag === "input") return "checked" in attrs ? "☑" : "☐";
      if (tag === "a") return link(attrs.href ?? "", attrs.title, showReference(kid.kids, true));
      if (tag === "pre") {
        const language = /language-(\S+)/.exec(kid.kids[0].attrs?.class ?? "")?.[1] ?? "";
        return `<pre ${language}>${text(textOf(kid).replace(/\n$/, "").replaceAll("\n", "\u2028"))}</pre>`;
      }
      const start = tag === "ol" && attrs.start ? ` start=${attrs.start}` : "";
      const align = attrs.align ? ` align=${attrs.align}` : "";
      return `<${tag}${start}${align}>${showReference(kid.kids, linked, tag)}</${tag}>`;
    })
    .join("");
}

/** Our tree. */
export function show(kids) {
  return kids
    .map((kid) => {
      if (typeof kid === "string") return text(kid);
      const { tag, attrs = {} } = kid;
      const inner = show(kid.kids);
      if (tag === "br" || tag === "hr") return `<${tag}>`;
      if (tag === "a" || (tag === "span" && "title" in attrs))
        return link(attrs.href ?? attrs.title, attrs.title, inner);
      if (tag === "pre") return `<pre ${attrs.language}>${inner.replaceAll("\n", "\u2028")}</pre>`;
      const start = attrs.start && attrs.start !== "1" ? ` start=${attrs.start}` : "";
      const align = /^t[hd]$/.test(tag) && attrs.class ? ` align=${attrs.class}` : "";
      return `<${tag}${start}${align}>${inner}</${tag}>`;
    })
    .join("");
}

/** Rows that are too short stay so. @param {string} html */
const withoutFilling = (html) => html.replace(/(?:<td[^>]*><\/td>)+(?=<\/tr>)/g, "");

/** Whether our tree is what the reference's HTML says, where a line that ends may be a break or a space. */
export function agrees(tree, html) {
  const pattern = withoutFilling(showReference(read(html)))
    .split("\n")
    .map((part) => part.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"))
    .join("(?:<br>|\\s)");
  return new RegExp(`^${pattern}$`).test(withoutFilling(show(tree)));
}

export const expected = (html) => showReference(read(html));
