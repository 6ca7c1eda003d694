/**
 * The blocks of Markdown, by CommonMark's algorithm: each line continues some of the open blocks, which are a chain of
 * last children, closes the rest and may open others. No line is read twice.
 */
/** @import {Block, Links} from "./types.js" */
import {
  block,
  Cursor,
  columnsOf,
  continues,
  copied,
  enterQuote,
  FENCE,
  growFence,
  growMaths,
  MATHS_END,
} from "./block.js";
import { definitionAt, normalized, unescaped } from "./references.js";

/** Containers inside of each other; deeper marks are text. */
const MAX_DEPTH = 32;
const CONTAINERS = new Set(["root", "quote", "list", "item", "details", "note"]);

const HEADING = /^(#{1,6})(?:[ \t]+(.*))?$/;
const CLOSING = /(?<![^ \t])#+$/;
const RULE = /^(?:(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|(?:-[ \t]*){3,})$/;
const SETEXT = /^(?:=+|-+)[ \t]*$/;
const ITEM = /^(?:([-*+])|(\d{1,9})([.)]))(?=[ \t]|$)/;
const TASK = /^\[([ xX])\]\s+(\S.*)/;
const DETAILS = /^<details(?: open)?>[ \t]*(.*)$/i;
const SUMMARY = /^<summary>(.*?)<\/summary>(.*)$/i;
const DETAILS_END = /^<\/details>[ \t]*$/i;
const NOTE = /^\[(\^[^\]\s]{1,60})\]:/;
const MATHS = /^(?:\$\$(?!\$)|\\\[)/;

export class Blocks {
  root = block("root", 0);
  /** @type {Links} */ links = new Map();
  line = 0;

  copy() {
    const copy = new Blocks();
    copy.root = copied(this.root);
    copy.links = new Map(this.links);
    copy.line = this.line;
    return copy;
  }

  /** The innermost open block. */
  get tip() {
    let tip = this.root;
    for (let next = tip.kids.at(-1); next?.open; next = next.kids.at(-1)) tip = next;
    return tip;
  }

  /** @param {string} line without its line feed */
  feed(line) {
    this.line++;
    const cursor = new Cursor(line.replace(/\r$/, "").replaceAll("\0", "\ufffd"));
    /** @type {Block[]} */
    const path = [this.root];
    const leaf = this.#match(path, cursor);
    if (leaf === "done" || (leaf && this.#grows(leaf, cursor))) return;
    this.#read(path, leaf, cursor);
  }

  end() {
    this.#close(this.root);
  }

  /** Walk down the containers that go on, and to the open leaf if all do. @param {Block[]} path @param {Cursor} cursor */
  #match(path, cursor) {
    for (let next = this.root.kids.at(-1); next?.open; next = next.kids.at(-1)) {
      if (!CONTAINERS.has(next.type)) return next;
      if (next.type === "details" && this.tip.type !== "fence" && DETAILS_END.test(cursor.text)) {
        this.#touch();
        this.#close(next);
        return "done";
      }
      if (!continues(next, cursor)) return null;
      path.push(next);
      if (next.type === "quote") for (const around of path) around.last = this.line;
    }
    return null;
  }

  /** Whether an open leaf takes the line as it is. @param {Block} leaf @param {Cursor} cursor */
  #grows(leaf, cursor) {
    if (leaf.type === "fence") {
      this.#touch();
      growFence(leaf, cursor);
      return true;
    }
    if (leaf.type === "math" && !cursor.blank) {
      this.#touch();
      growMaths(leaf, cursor.text);
      return true;
    }
    if (leaf.type !== "code" || (cursor.indent < 4 && !cursor.blank)) return false;
    if (!cursor.blank) this.#touch();
    cursor.dedent(4);
    leaf.text += `${cursor.rest}\n`;
    return true;
  }

  /** @param {Block[]} path @param {Block | null} leaf @param {Cursor} cursor */
  #read(path, leaf, cursor) {
    let started = null;
    while (!cursor.blank) {
      const next = this.#start(path, leaf, cursor);
      if (!next) break;
      started = next;
      leaf = null;
      if (!CONTAINERS.has(next.type)) return this.#touch();
    }
    const tip = this.tip;
    if (cursor.blank) {
      if (!started) this.#closeBelow(path);
    } else if (leaf?.type === "table") {
      this.#addRow(leaf, "td", cursor.text);
    } else if (tip.type === "paragraph" && !started) tip.text += `${cursor.text}\n`;
    else this.#addParagraph(path, cursor.text);
    if (!cursor.blank || started) this.#touch();
  }

  /** @param {Block[]} path @param {string} text */
  #addParagraph(path, text) {
    const [, done, rest = ""] = TASK.exec(text) ?? [];
    const item = path.at(-1);
    if (done && item?.type === "item" && !item.kids.length) {
      item.attrs = { class: "task" };
      text = (done === " " ? "☐ " : "☑ ") + rest;
    }
    this.#add(path, "paragraph", { text: `${text}\n` });
  }

  /** The block that begins here, if one does. @param {Block[]} path @param {Block | null} leaf @param {Cursor} cursor */
  #start(path, leaf, cursor) {
    const paragraph = leaf?.type === "paragraph" ? leaf : null;
    const { indent, text } = cursor;
    if (indent >= 4) {
      // Models indent a fence below the text of an item by any width.
      if (paragraph && FENCE.test(text)) return this.#startFence(path, cursor);
      if (this.tip.type === "paragraph") return null;
      cursor.dedent(4);
      return this.#add(path, "code", { text: `${cursor.rest}\n` });
    }
    const heading = HEADING.exec(text);
    if (heading) {
      const attrs = { level: String(heading[1]?.length) };
      return this.#add(path, "heading", { attrs, text: (heading[2] ?? "").trim().replace(CLOSING, ""), open: false });
    }
    if (FENCE.test(text)) return this.#startFence(path, cursor);
    if (paragraph && SETEXT.test(text) && this.#define(paragraph)) {
      const attrs = { level: text[0] === "=" ? "1" : "2" };
      return Object.assign(paragraph, { type: "heading", attrs, last: this.line, open: false });
    }
    const table = paragraph && this.#startTable(path, paragraph, text);
    if (table) return table;
    if (RULE.test(text)) return this.#add(path, "rule", { open: false });
    const maths = this.#startMaths(path, text);
    return maths || path.length > MAX_DEPTH ? maths : this.#startContainer(path, paragraph, cursor);
  }

  /** @param {Block[]} path @param {Cursor} cursor */
  #startFence(path, cursor) {
    const [, mark = "", info = ""] = FENCE.exec(cursor.text) ?? [];
    return this.#add(path, "fence", { mark, indent: cursor.indent, attrs: { info: unescaped(info.trim()) } });
  }

  /** @param {Block[]} path @param {Block} paragraph @param {string} text */
  #startTable(path, paragraph, text) {
    const before = paragraph.text.lastIndexOf("\n", paragraph.text.length - 2) + 1;
    const head = paragraph.text.slice(before, -1);
    const columns = columnsOf(text, head);
    if (!columns) return null;
    const first = this.line - 1;
    paragraph.text = paragraph.text.slice(0, before);
    paragraph.last = first - 1;
    if (!before) path.at(-1)?.kids.pop();
    const table = this.#add(path, "table", { first, attrs: { align: columns.join(" ") } });
    this.#addRow(table, "th", head);
    return table;
  }

  /** @param {Block} table @param {string} mark of its cells @param {string} text */
  #addRow({ kids, attrs }, mark, text) {
    kids.push(block("row", this.line, { mark, text, attrs, open: false }));
  }

  /** @param {Block[]} path @param {string} text */
  #startMaths(path, text) {
    if (!MATHS.test(text)) return null;
    const mark = text[0] === "$" ? "$$" : "\\]";
    const end = text.indexOf(mark, 2);
    // An escaped bracket, as in "\[no link](address)".
    if (end < 0 && text[0] !== "$" && text.includes("]")) return null;
    if (end >= 0 && (MATHS_END.exec(text)?.index !== end || !/[\p{L}\p{N}]/u.test(text.slice(2, end)))) return null;
    const maths = this.#add(path, "math", { mark, text: text.slice(0, 2) });
    growMaths(maths, text.slice(2));
    return maths;
  }

  /** @param {Block[]} path @param {Block | null} paragraph @param {Cursor} cursor */
  #startContainer(path, paragraph, cursor) {
    const { text } = cursor;
    if (text[0] === ">") {
      enterQuote(cursor);
      return this.#add(path, "quote");
    }
    const item = ITEM.exec(text);
    if (item) return this.#startItem(path, paragraph, cursor, item);
    const note = NOTE.exec(text);
    if (note) {
      const [all, name = ""] = note;
      const mark = normalized(name);
      if (!this.links.has(mark)) this.links.set(mark, { href: "", title: "" });
      cursor.rest = text.slice(all.length);
      return this.#add(path, "note", { mark, attrs: { label: name.slice(1) } });
    }
    return this.#startDetails(path, cursor);
  }

  /** @param {Block[]} path @param {Cursor} cursor */
  #startDetails(path, cursor) {
    const container = path.at(-1);
    const summary = container?.type === "details" && !container.kids.length && SUMMARY.exec(cursor.text);
    if (summary) {
      this.#add(path, "summary", { text: summary[1], open: false });
      cursor.rest = summary[2] ?? "";
      return container;
    }
    const details = DETAILS.exec(cursor.text);
    if (!details) return null;
    cursor.rest = details[1] ?? "";
    return this.#add(path, "details");
  }

  /** @param {Block[]} path @param {Block | null} paragraph @param {Cursor} cursor @param {RegExpExecArray} found */
  #startItem(path, paragraph, cursor, [marker, bullet, number, after]) {
    const rest = cursor.text.slice(marker.length);
    const empty = !rest.trim();
    // "1986. A great year" inside of a paragraph is no list.
    if (paragraph && (empty || (number && Number(number) !== 1))) return null;
    const { indent } = cursor;
    cursor.dedent(indent);
    cursor.skip(marker.length);
    const spaces = cursor.indent;
    const padding = empty || spaces > 4 ? 1 : spaces;
    cursor.dedent(padding);
    const mark = bullet ?? after ?? "";
    const list = path.at(-1);
    if (list?.type !== "list" || list.mark !== mark)
      this.#add(path, "list", { mark, attrs: number ? { start: String(Number(number)) } : {} });
    return this.#add(path, "item", { mark, indent, width: indent + marker.length + padding });
  }

  /** @param {Block[]} path @param {string} type @param {Partial<Block>} [more] */
  #add(path, type, more) {
    if (type !== "item" && path.at(-1)?.type === "list") path.pop();
    this.#closeBelow(path);
    const added = block(type, this.line, more);
    path.at(-1)?.kids.push(added);
    if (CONTAINERS.has(type)) path.push(added);
    return added;
  }

  /** @param {Block[]} path */
  #closeBelow(path) {
    const open = path.at(-1)?.kids.at(-1);
    if (open?.open) this.#close(open);
  }

  /** @param {Block} one */
  #close(one) {
    one.open = false;
    if (one.type === "paragraph") this.#define(one);
    const last = one.kids.at(-1);
    if (last?.open) this.#close(last);
  }

  /** Take the definitions from a paragraph's beginning; whether text is left. @param {Block} paragraph */
  #define(paragraph) {
    while (paragraph.text[0] === "[") {
      const found = definitionAt(paragraph.text);
      if (!found) break;
      if (!this.links.has(found.label)) this.links.set(found.label, found.target);
      paragraph.text = paragraph.text.slice(found.end);
    }
    return paragraph.text !== "";
  }

  /** The open blocks reach to this line. */
  #touch() {
    for (let one = /** @type {Block | undefined} */ (this.root); one?.open; one = one.kids.at(-1)) one.last = this.line;
  }
}
