/** Markdown to a tree, for text that is still arriving. */
/** @import {Attributes, Block, Element_, Links, Node_} from "./types.js" */
import { cellsOf } from "./block.js";
import { Blocks } from "./blocks.js";
import { inlines } from "./inlines.js";
import { node } from "./tokens.js";

/** Longer blocks are plain text: it bounds the work per frame. */
const MAX_INLINE = 20_000;
const IMAGE_DATA = /(\]\([ \t]*<?data:image\/[\w.+-]{1,40});base64,([A-Za-z\d+/=]{200,})/g;
/** A line that so far has only marks: what it will be shows with the next character. */
const MARKS = /^[\s>]*(?:(?:[-+*]|\d{1,9}[.)])[ \t]+)*(?:[-+*=_~`#|]+|\d{1,9}[.)]?|\\\[?|<\/?\w{0,9}>?)?[ \t]*$/;
/** They may be the first half of a longer mark. */
const LAST_MARKS = /(?<![*_~`])[*_~`]+$/;
const FENCE_MARKS = /^[\s>]*(?:`+|~+)$/;

/** For text that only grows: at every moment its tree is that of the whole text. */
export class Incremental {
  #blocks = new Blocks();
  /** The last line, which may still grow. */
  #rest = "";

  /** @param {string} piece */
  push(piece) {
    const lines = (this.#rest + piece).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#blocks.feed(line);
  }

  /** What can no longer change is the same object every time. @param {boolean} [open] more text follows */
  tree(open = false) {
    // Only a copy is fed what may still change.
    const blocks = this.#blocks.copy();
    const marks = blocks.tip.type === "fence" ? FENCE_MARKS : MARKS;
    const held = open && this.#rest.length < 99 && marks.test(this.#rest);
    if (this.#rest && !held) blocks.feed(this.#rest);
    blocks.end();
    return new Builder(blocks).build(blocks.root, open);
  }
}

class Builder {
  #blocks;
  /** The definitions that the block at hand rests on. @type {Links} */ #used = new Map();

  /** @param {Blocks} blocks */
  constructor(blocks) {
    this.#blocks = blocks;
  }

  /** @param {Block} block @param {boolean} tail whether the text goes on in it @returns {Element_[]} */
  build(block, tail) {
    tail &&= block.last === this.#blocks.line || block.type === "root";
    const holds = [...block.links].every(([label, was]) => this.#blocks.links.get(label) === was);
    if (!block.out || tail || !holds) {
      const outer = this.#used;
      block.links = this.#used = new Map();
      block.out = this.#make(block, tail);
      this.#used = outer;
    }
    const { out, links } = block;
    // It was made as if the text went on.
    if (tail) block.out = null;
    for (const [label, target] of links) this.#used.set(label, target);
    return out;
  }

  /** @param {Block} block @param {boolean} tail @returns {Element_[]} */
  #make(block, tail) {
    const { type, attrs, text } = block;
    switch (type) {
      case "heading":
        return [node(`h${attrs.level}`, this.#inlines(text, tail))];
      case "rule":
        return [node("hr")];
      case "code":
        // Without the blank lines at its end.
        return [node("pre", [text.split("\n", block.last - block.first + 1).join("\n")], { language: "" })];
      case "fence":
        if (attrs.info === "math" && !tail) return [node("math", [], { tex: text.trim(), display: "block" })];
        return [node("pre", [text.slice(0, -1)], fenceAttributes(attrs.info ?? ""))];
      case "math":
        return this.#maths(block, tail);
      case "row":
        return [this.#row(block, tail)];
      case "table":
        return [this.#table(block, tail)];
      case "paragraph":
        return this.#paragraph(text, tail);
      case "summary":
        return [node("summary", this.#inlines(text, tail))];
      case "list":
        return [this.#list(block, tail)];
      case "item":
        return [this.#item(block, tail)];
      case "quote":
        return [node("blockquote", this.#kids(block, tail))];
      case "note":
        return [node("div", this.#kids(block, tail), { note: block.mark, label: attrs.label ?? "" })];
      default:
        return type === "details" ? [node("details", this.#kids(block, tail))] : this.#kids(block, tail);
    }
  }

  /** @param {Block} block @param {boolean} tail */
  #kids({ kids }, tail) {
    return kids.flatMap((kid, i) => this.build(kid, tail && i === kids.length - 1));
  }

  /** @param {string} text @param {boolean} tail @returns {Node_[]} */
  #inlines(text, tail) {
    // Only the size of a picture is shown, and its data may be longer than any text.
    text = text.replace(IMAGE_DATA, (_, begin, data) => `${begin},${data.length * 0.75}`).trimEnd();
    if (text.length > MAX_INLINE) return [text];
    const resolve = (/** @type {string} */ label) => {
      const target = this.#blocks.links.get(label);
      this.#used.set(label, target);
      return target;
    };
    return inlines(tail ? text.replace(LAST_MARKS, "") : text, resolve, tail);
  }

  /** @param {string} text @param {boolean} tail @returns {Element_[]} */
  #paragraph(text, tail) {
    const head = tail ? tableHead(text) : null;
    if (head === null) return text.trim() ? [node("p", this.#inlines(text, tail))] : [];
    const before = this.#paragraph(head.before, false);
    const cells = cellsOf(head.line).map((cell) => node("th", this.#inlines(cell, true)));
    return [...before, node("table", [node("thead", [node("tr", cells)])])];
  }

  /** @param {Block} block @param {boolean} tail */
  #maths({ text, attrs }, tail) {
    if (attrs.tex) return [node("math", [], { tex: attrs.tex, display: "block" })];
    return tail ? [node("p", [node("code", [text.trim()])])] : this.#paragraph(text, false);
  }

  /** @param {Block} block @param {boolean} tail */
  #list(block, tail) {
    const { kids, attrs } = block;
    const loose = kids.some(
      (item, i) => apart(item, kids[i + 1]) || item.kids.some((kid, k) => apart(kid, item.kids[k + 1])),
    );
    for (const item of kids) {
      if (item.loose !== loose) item.out = null;
      item.loose = loose;
    }
    const items = this.#kids(block, tail);
    if (!attrs.start) return node("ul", items);
    const digits = String(Number(attrs.start) + kids.length - 1).length;
    /** @type {Attributes} */
    const given = { start: attrs.start };
    if (digits > 2) given.class = digits > 4 ? "wider" : "wide";
    return node("ol", items, given);
  }

  /** In a tight list the text stands in the item itself. @param {Block} block @param {boolean} tail */
  #item(block, tail) {
    const blocks = this.#kids(block, tail);
    const kids = block.loose ? blocks : blocks.flatMap((kid) => (kid.tag === "p" ? kid.kids : [kid]));
    return node("li", kids, block.attrs.class ? block.attrs : undefined);
  }

  /** @param {Block} block @param {boolean} tail */
  #table(block, tail) {
    const [head, ...rows] = this.#kids(block, tail);
    const kids = [node("thead", head ? [head] : [])];
    if (rows.length) kids.push(node("tbody", rows));
    return node("table", kids);
  }

  /** One that is too short stays so: a line of one character must not cost 64 elements. @param {Block} block @param {boolean} tail */
  #row({ text, attrs, mark }, tail) {
    const sides = (attrs.align ?? "").split(" ");
    const cells = cellsOf(text).slice(0, sides.length);
    const kids = cells.map((cell, i) =>
      node(mark, this.#inlines(cell, tail && i === cells.length - 1), sides[i] ? { class: sides[i] } : undefined),
    );
    return node("tr", kids);
  }
}

/** Whether blank lines stand between two blocks. @param {Block} one @param {Block | undefined} next */
const apart = (one, next) => !!next && next.first - one.last > 1;

const PIPES = /^\|[^|]/;

/** The line that will be the head of a table, once the one below it is complete. @param {string} text */
function tableHead(text) {
  const lines = text.trimEnd().split("\n");
  const last = lines.at(-1) ?? "";
  if (lines.length > 1 && /^[\s|:-]+$/.test(last) && PIPES.test(lines.at(-2) ?? "")) lines.pop();
  else if (!PIPES.test(last)) return null;
  const line = lines.pop() ?? "";
  return { line, before: lines.join("\n") };
}

/**
 * The language of a fence, and the file it names: "js src/app.js", "js:src/app.js", 'js title="app.js"', "app.js".
 * @param {string} info @returns {Record<string, string>}
 */
function fenceAttributes(info) {
  const [, word = "", file] = /^([^\s:]*)(?:[:\s]+([\w./-]+\.\w+)(?!\S))?/.exec(info) ?? [];
  const [, , title] = /(?:title|file|name|path)=(["']?)(.+?)\1(?:\s|$)/.exec(info) ?? [];
  const [, extension] = /^[\w./-]+\.(\w+)$/.exec(word) ?? [];
  return { language: extension ?? word, name: title ?? file ?? (extension ? word : "") };
}
