/** One block, and a line: its white space by columns, its cells, and how it continues a block. */
/** @import {Block} from "./types.js" */

export const FENCE = /^(`{3,}(?=[^`]*$)|~{3,})(.*)$/;
export const MATHS_END = /(?:\$\$|\\\])([.,;:]?)[ \t]*$/;
const MAX_COLUMNS = 64;

/** @param {string} type @param {number} line @param {Partial<Block>} [more] @returns {Block} */
export const block = (type, line, more) => ({
  type,
  open: true,
  kids: [],
  text: "",
  first: line,
  last: line,
  attrs: {},
  mark: "",
  indent: 0,
  width: 0,
  depth: 0,
  loose: false,
  out: null,
  links: new Map(),
  ...more,
});

/** Only what is open ever changes. @param {Block} one @returns {Block} */
export function copied(one) {
  const kids = [...one.kids];
  const last = kids.at(-1);
  if (last?.open) kids[kids.length - 1] = copied(last);
  return { ...one, kids };
}

/** Whether an open container goes on; if so, its marks are taken. @param {Block} one @param {Cursor} cursor */
export function continues(one, cursor) {
  const { indent, blank } = cursor;
  switch (one.type) {
    case "quote":
      if (indent > 3 || cursor.text[0] !== ">") return false;
      enterQuote(cursor);
      return true;
    case "item": {
      // Models indent bullets below a number by two spaces, whatever the number's width.
      const nested = /[.)]/.test(one.mark) && indent >= one.indent + 2 && /^[-*+] /.test(cursor.text);
      if (!blank && indent < one.width && !nested) return false;
      cursor.dedent(one.width);
      return !blank || one.kids.length > 0;
    }
    case "note":
      if (!blank && indent < 2) return false;
      cursor.dedent(4);
      return true;
    default:
      return true;
  }
}

/** @param {Cursor} cursor */
export function enterQuote(cursor) {
  cursor.dedent(3);
  cursor.skip(1);
  cursor.dedent(1);
}

/** @param {Block} leaf @param {Cursor} cursor */
export function growFence(leaf, cursor) {
  const { indent, text } = cursor;
  const [, marks = "", info = ""] = FENCE.exec(text) ?? [];
  const fence = marks.startsWith(leaf.mark) && indent < leaf.indent + 4;
  if (fence && !info.trim() && !leaf.depth--) {
    leaf.depth = 0;
    leaf.open = false;
    return;
  }
  // Models put fences of three marks into one of Markdown.
  if (fence && info.trim() && /^(?:markdown|md)\b/i.test(leaf.attrs.info ?? "")) leaf.depth++;
  cursor.dedent(leaf.indent);
  leaf.text += `${cursor.rest}\n`;
}

/** @param {Block} leaf @param {string} text */
export function growMaths(leaf, text) {
  leaf.text += `${text}\n`;
  const end = MATHS_END.exec(text);
  if (!end?.[0].startsWith(leaf.mark)) return;
  // A full stop behind the formula belongs to it.
  leaf.attrs = { tex: (leaf.text.trim().slice(2, -end[0].trim().length) + end[1]).trim() };
  leaf.open = false;
}

/** What is left of a line, and the column it begins at: a container may take a tab only in part. */
export class Cursor {
  column = 0;

  /** @param {string} rest */
  constructor(rest) {
    this.rest = rest;
  }

  get blank() {
    return !/[^ \t]/.test(this.rest);
  }

  get text() {
    return this.rest.replace(/^[ \t]+/, "");
  }

  /** Of the white space ahead. */
  get indent() {
    const { column, rest } = this;
    this.dedent(Number.POSITIVE_INFINITY);
    const indent = this.column - column;
    Object.assign(this, { column, rest });
    return indent;
  }

  /** Drop up to so many columns of white space. @param {number} columns */
  dedent(columns) {
    let i = 0;
    for (; columns > 0 && /[ \t]/.test(this.rest[i] ?? ""); i++) {
      const width = this.rest[i] === "\t" ? 4 - (this.column % 4) : 1;
      this.column += Math.min(width, columns);
      columns -= width;
    }
    this.rest = " ".repeat(Math.max(0, -columns)) + this.rest.slice(i);
  }

  /** Drop characters that are no tabs. @param {number} length */
  skip(length) {
    this.rest = this.rest.slice(length);
    this.column += length;
  }
}

/** The cells of a row; `\|` is no border, not even in code. @param {string} line */
export const cellsOf = (line) =>
  line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));

/** How each column is aligned, if `line` is the one below a table's head. @param {string} line @param {string} head */
export function columnsOf(line, head) {
  if (!/^[\s|:-]+$/.test(line) || !(line + head).includes("|")) return null;
  const cells = cellsOf(line);
  const fit = cells.length <= MAX_COLUMNS && cells.length === cellsOf(head).length;
  if (!fit || !cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return cells.map((cell) =>
    cell.endsWith(":") ? (cell[0] === ":" ? "center" : "right") : cell[0] === ":" ? "left" : "",
  );
}
