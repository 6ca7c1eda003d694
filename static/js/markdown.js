/**
 * Markdown to a tree of plain objects, built for text that is still arriving. No DOM here.
 *
 * A tree can only hold the tags this file spells out, text, and links to http, https and mailto: whatever a
 * model writes, there is no way to another element or attribute. HTML in the text stays text; an image
 * becomes a link, so nothing is fetched because a model named an address.
 *
 * `parse` walks the text block by block and carries nothing from one block into the next. `Incremental`
 * rests on that: blocks which no later character can change are kept, and only the tail is parsed again.
 */

/**
 * @typedef {string | Element_} Node_
 * @typedef {{tag: string, attrs?: Record<string, string>, kids: Node_[]}} Element_
 */

/** Text in one block beyond which inline marks are not looked for: it bounds the work per frame. */
const MAX_INLINE = 20_000;
const MAX_DEPTH = 6;
const MAX_COLUMNS = 50;
/** Open `*`, `_`, `~` marks that are kept while looking for their partner. */
const MAX_OPEN = 32;
const MAX_URL = 2_000;

const FENCE = /^( *)(`{3,}|~{3,})[ \t]*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})([ \t].*)?$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)(?:([-*+])|(\d{1,9})([.)]))(?: +|\t|$)/;
const DELIMITER = /^:?-+:?$/;
const BLANK = /^[ \t]*$/;

/** @param {string} tag @param {Node_[]} kids @param {Record<string, string>} [attrs] @returns {Element_} */
const node = (tag, kids, attrs) => (attrs ? { tag, attrs, kids } : { tag, kids });

/** @param {string} text */
const linesOf = (text) => text.replaceAll("\r\n", "\n").split("\n");

/** @param {string} text @returns {Element_[]} */
export function parse(text) {
  return blocks(linesOf(text), 0).nodes;
}

/** The same tree as `parse`, for text that only grows: `push` pieces, read `tree()` once per frame. */
export class Incremental {
  /** @type {Element_[]} */ #done = [];
  #tail = "";

  /** @param {string} piece */
  push(piece) {
    this.#tail += piece;
  }

  /** Blocks that can no longer change come first and are the same objects every time. */
  tree() {
    const lines = linesOf(this.#tail);
    const { nodes, starts } = blocks(lines, 0);
    // The last block still grows, and its first line may yet turn out to belong to the one before.
    const settled = nodes.length - 2;
    if (settled > 0) {
      this.#done.push(...nodes.slice(0, settled));
      this.#tail = lines.slice(starts[settled]).join("\n");
    }
    return settled > 0 ? [...this.#done, ...nodes.slice(settled)] : [...this.#done, ...nodes];
  }
}

/**
 * @param {string[]} lines @param {number} depth
 * @returns {{nodes: Element_[], starts: number[]}} the blocks and the line each starts at
 */
function blocks(lines, depth) {
  const nodes = [];
  const starts = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(line(lines, at))) {
      at++;
      continue;
    }
    starts.push(at);
    const [block, next] = oneBlock(lines, at, depth);
    nodes.push(block);
    at = next;
  }
  return { nodes, starts };
}

/** @param {string[]} lines @param {number} at */
const line = (lines, at) => lines[at] ?? "";

/** @param {string[]} lines @param {number} at @param {number} depth @returns {[Element_, number]} */
function oneBlock(lines, at, depth) {
  const text = line(lines, at);
  const heading = HEADING.exec(text);
  if (heading) return [node(`h${heading[1]?.length}`, inline(unhash(heading[2] ?? ""))), at + 1];
  if (RULE.test(text)) return [node("hr", []), at + 1];
  if (FENCE.test(text)) return fence(lines, at);
  if (depth < MAX_DEPTH) {
    if (QUOTE.test(text)) return quote(lines, at, depth);
    if (ITEM.test(text)) return list(lines, at, depth);
  }
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at, depth);
}

/** A heading without its closing marks. @param {string} text */
function unhash(text) {
  text = text.trim();
  let end = text.length;
  while (text[end - 1] === "#") end--;
  return end === 0 || /\s/.test(text[end - 1] ?? "") ? text.slice(0, end).trimEnd() : text;
}

/** @param {string[]} lines @param {number} at @param {number} depth */
function startsBlock(lines, at, depth) {
  const text = line(lines, at);
  if (HEADING.test(text) || RULE.test(text) || FENCE.test(text) || isTable(lines, at)) return true;
  if (depth >= MAX_DEPTH) return false;
  const item = ITEM.exec(text);
  // "1986. A great year" inside a paragraph is not a list.
  return QUOTE.test(text) || (!!item && (!item[3] || item[3] === "1") && item[0].length < text.length);
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {[Element_, number]} */
function paragraph(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && !BLANK.test(line(lines, end)) && !startsBlock(lines, end, depth)) end++;
  const text = lines.slice(at, end).map((l) => (l.endsWith("  ") ? `${l.trim()}  ` : l.trim()));
  return [node("p", inline(text.join("\n").trimEnd())), end];
}

/** @param {string[]} lines @param {number} at @returns {[Element_, number]} */
function fence(lines, at) {
  const [, indent = "", marks = "", language = ""] = FENCE.exec(line(lines, at)) ?? [];
  const closing = new RegExp(`^ *${marks[0]}{${marks.length},}[ \\t]*$`);
  const strip = new RegExp(`^ {0,${indent.length}}`);
  let end = at + 1;
  while (end < lines.length && !closing.test(line(lines, end))) end++;
  const code = lines.slice(at + 1, end).map((l) => l.replace(strip, "")).join("\n");
  return [node("pre", [code], { language }), end + 1];
}

/** @param {string[]} lines @param {number} at @param {number} depth @returns {[Element_, number]} */
function quote(lines, at, depth) {
  let end = at;
  const inner = [];
  for (; QUOTE.test(line(lines, end)); end++) inner.push(line(lines, end).replace(QUOTE, ""));
  return [node("blockquote", blocks(inner, depth + 1).nodes), end];
}

/**
 * Models indent nested lists by two spaces whatever the marker's width, so two more than the first
 * marker's own indent is enough to belong to the item.
 * @param {string[]} lines @param {number} at @param {number} depth @returns {[Element_, number]}
 */
function list(lines, at, depth) {
  const first = /** @type {RegExpExecArray} */ (ITEM.exec(line(lines, at)));
  const base = first[1]?.length ?? 0;
  const kind = first[2] ?? first[4];
  /** @type {string[][]} */
  const items = [];
  let loose = false;
  let blank = false;
  let fenced = "";
  let end = at;
  for (; end < lines.length; end++) {
    const text = line(lines, end);
    if (BLANK.test(text)) {
      blank = true;
      items.at(-1)?.push("");
      continue;
    }
    const item = ITEM.exec(text);
    const indent = text.length - text.trimStart().length;
    if (item && indent < base + 2 && !RULE.test(text) && !fenced) {
      if ((item[2] ?? item[4]) !== kind) break;
      if (blank && items.length) loose = true;
      items.push([text.slice(item[0].length)]);
    } else if (indent >= base + 2 || fenced || (!blank && !startsBlock(lines, end, depth))) {
      if (blank) loose = true;
      items.at(-1)?.push(text.slice(Math.min(indent, first[0].length)));
    } else break;
    blank = false;
    fenced = fenceState(items.at(-1)?.at(-1) ?? "", fenced);
  }
  // Blank lines at the end belong to what follows.
  while (end > at + 1 && BLANK.test(line(lines, end - 1))) end--;
  const kids = items.map((item) => node("li", tighten(blocks(item, depth + 1).nodes, loose)));
  const start = first[3] && first[3] !== "1" ? { start: String(Number(first[3])) } : undefined;
  return [node(first[3] ? "ol" : "ul", kids, start), end];
}

/** @param {string} text @param {string} open the marks of the fence that is open, or "" */
function fenceState(text, open) {
  const marks = FENCE.exec(text)?.[2] ?? "";
  if (!open) return marks;
  return marks.startsWith(open) && BLANK.test(text.trim().slice(marks.length)) ? "" : open;
}

/** In a tight list the text stands in the item itself. @param {Element_[]} nodes @param {boolean} loose */
function tighten(nodes, loose) {
  /** @type {Node_[]} */
  const kids = [];
  for (const block of nodes) {
    if (block.tag === "p" && !loose) kids.push(...block.kids);
    else kids.push(block);
  }
  const task = /^\[([ xX])\] /.exec(typeof kids[0] === "string" ? kids[0] : "");
  if (task) kids[0] = (task[1] === " " ? "☐ " : "☑ ") + String(kids[0]).slice(4);
  return kids;
}

/** @param {string[]} lines @param {number} at */
function isTable(lines, at) {
  if (!line(lines, at).includes("|") || !line(lines, at + 1).includes("-")) return false;
  const columns = cells(line(lines, at + 1));
  if (columns.length > MAX_COLUMNS || !columns.every((cell) => DELIMITER.test(cell))) return false;
  return columns.length === cells(line(lines, at)).length;
}

/** @param {string[]} lines @param {number} at @returns {[Element_, number]} */
function table(lines, at) {
  const align = cells(line(lines, at + 1)).map((cell) => {
    const right = cell.endsWith(":");
    return right ? (cell.startsWith(":") ? "center" : "right") : "";
  });
  /** @param {string} tag @param {string} text */
  const row = (tag, text) => {
    const found = cells(text);
    return node("tr", align.map((side, i) => node(tag, inline(found[i] ?? ""), side ? { align: side } : undefined)));
  };
  const head = node("thead", [row("th", line(lines, at))]);
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && line(lines, end).includes("|"); end++) rows.push(row("td", line(lines, end)));
  return [node("table", rows.length ? [head, node("tbody", rows)] : [head]), end];
}

/** @param {string} text */
function cells(text) {
  const inner = text.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

// Inline ------------------------------------------------------------------------------------------------

const SPECIAL = /[\\`*_~[\]!<\nh]/g;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const SPACE = /\s/;
/** Japanese and Chinese have no space where a line was wrapped. */
const WIDE = /[\u3000-\u9fff\uff00-\uffef]/;
const BARE_URL = /https?:\/\/[^\s<>"`|\\^{}]+/y;
const ANGLE_URL = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/iy;
const BREAK = /<br ?\/?>/iy;
const SAFE_URL = /^(?:https?:\/\/|mailto:)/i;

/** A mark that may open emphasis, and where it stands in the output. */
/** A line that was wrapped is long; verse and addresses are short, and models end them without a mark. */
const SHORT_LINE = 60;

/** @typedef {{mark: string, size: number, at: number}} Open */

/** @param {string} text @returns {Node_[]} */
export function inline(text) {
  if (text.length > MAX_INLINE) return text ? [text] : [];
  return new Inline(text).run();
}

class Inline {
  #text;
  #at = 0;
  /** @type {Node_[]} */ #out = [];
  /** @type {Open[]} */ #open = [];
  /** Where each `[` stands in #out. @type {{at: number, image: boolean}[]} */ #brackets = [];
  /** Lengths of backtick runs known not to close any more: each is looked for once. */
  /** @type {Set<number>} */ #unclosed = new Set();

  /** @param {string} text */
  constructor(text) {
    this.#text = text;
  }

  run() {
    const text = this.#text;
    while (this.#at < text.length) {
      SPECIAL.lastIndex = this.#at;
      const next = SPECIAL.exec(text)?.index ?? text.length;
      if (next > this.#at) this.#push(text.slice(this.#at, next));
      this.#at = next;
      if (next < text.length) this.#special(text[next] ?? "");
    }
    return merge(this.#out);
  }

  /** @param {Node_} item */
  #push(item) {
    this.#out.push(item);
  }

  /** @param {number} length */
  #literal(length) {
    this.#push(this.#text.slice(this.#at, this.#at + length));
    this.#at += length;
  }

  /** @param {string} char */
  #special(char) {
    const text = this.#text;
    const next = text[this.#at + 1] ?? "";
    if (char === "\n") return this.#newline();
    if (char === "\\" && next === "\n") return this.#break(2);
    if (char === "\\" && PUNCTUATION.test(next)) {
      this.#push(next);
      this.#at += 2;
    } else if (char === "`") this.#code();
    else if (char === "*" || char === "_" || char === "~") this.#mark(char);
    else if (char === "[") this.#bracket(false, 1);
    else if (char === "!" && next === "[") this.#bracket(true, 2);
    else if (char === "]") this.#close();
    else if (char === "<") this.#angle();
    else if (char === "h") this.#bare();
    else this.#literal(1);
  }

  #newline() {
    const line = this.#at - this.#text.lastIndexOf("\n", this.#at - 1) - 1;
    if (line < SHORT_LINE || this.#text.endsWith("  ", this.#at)) return this.#break(1);
    const wide = WIDE.test(this.#text[this.#at - 1] ?? "") && WIDE.test(this.#text[this.#at + 1] ?? "");
    this.#push(wide ? "" : " ");
    this.#at++;
  }

  /** @param {number} length */
  #break(length) {
    this.#push(node("br", []));
    this.#at += length;
  }

  #code() {
    const text = this.#text;
    const length = run(text, this.#at, "`");
    let from = this.#at + length;
    while (!this.#unclosed.has(length)) {
      const close = text.indexOf("`", from);
      if (close < 0) break;
      const size = run(text, close, "`");
      if (size === length) {
        let code = text.slice(this.#at + length, close).replaceAll("\n", " ");
        if (/^ .*\S.* $/.test(code)) code = code.slice(1, -1);
        this.#push(node("code", [code]));
        this.#at = close + size;
        return;
      }
      from = close + size;
    }
    this.#unclosed.add(length);
    this.#literal(length);
  }

  /**
   * Emphasis. Laxer than CommonMark about punctuation, which there keeps Japanese and Chinese
   * text from being bold beside a bracket or a full stop.
   * @param {string} mark
   */
  #mark(mark) {
    const text = this.#text;
    let size = run(text, this.#at, mark);
    const before = text[this.#at - 1] ?? " ";
    const after = text[this.#at + size] ?? " ";
    if (mark === "~" && size !== 2) return this.#literal(size);
    const word = mark === "_" && WORD.test(before) && WORD.test(after);
    const opens = !SPACE.test(after) && !word;
    const closes = !SPACE.test(before) && !word;
    this.#at += size;
    while (closes && size > 0) {
      const found = this.#open.findLastIndex((open) => open.mark === mark);
      const open = this.#open[found];
      if (!open || this.#out.length === open.at + 1) break;
      const used = Math.min(open.size, size, 2);
      this.#open.length = found;
      this.#brackets = this.#brackets.filter((bracket) => bracket.at < open.at);
      const kids = this.#out.splice(open.at + 1);
      this.#out.pop();
      open.size -= used;
      if (open.size) {
        this.#out.push(mark.repeat(open.size));
        this.#open.push(open);
      }
      this.#push(node(mark === "~" ? "del" : used === 2 ? "strong" : "em", merge(kids)));
      size -= used;
    }
    if (!size) return;
    if (opens && this.#open.length < MAX_OPEN) this.#open.push({ mark, size, at: this.#out.length });
    this.#push(mark.repeat(size));
  }

  /** @param {boolean} image @param {number} length */
  #bracket(image, length) {
    this.#brackets.push({ at: this.#out.length, image });
    this.#literal(length);
  }

  #close() {
    const open = this.#brackets.pop();
    const link = open && this.#destination();
    if (!link) return this.#literal(1);
    const kids = this.#out.splice(open.at + 1);
    this.#out.pop();
    // Marks opened inside the link cannot close outside of it.
    this.#open = this.#open.filter((mark) => mark.at < open.at);
    const inside = merge(unlink(kids));
    if (SAFE_URL.test(link.href)) {
      this.#push(node("a", inside.length ? inside : [link.href], { href: link.href }));
    } else this.#out.push(...inside);
    this.#at = link.end;
    if (!open.image) this.#brackets = this.#brackets.filter((bracket) => bracket.image);
  }

  /** `(url "title")` after a `]`. @returns {{href: string, end: number} | null} */
  #destination() {
    const text = this.#text;
    let at = this.#at + 1;
    if (text[at] !== "(") return null;
    const limit = Math.min(text.length, at + MAX_URL);
    let depth = 0;
    for (let i = at; i < limit; i++) {
      const char = text[i];
      if (char === "\n") return null;
      if (char === "\\") i++;
      else if (char === "(") depth++;
      else if (char === ")" && --depth === 0) {
        const inner = text.slice(at + 1, i).trim();
        const parts = /^(?:<([^<>]*)>|(\S*))(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?$/.exec(inner);
        const href = parts?.[1] ?? parts?.[2];
        return href === undefined ? null : { href: href.replace(/\\([!-/:-@[-`{-~])/g, "$1"), end: i + 1 };
      }
    }
    return null;
  }

  #angle() {
    ANGLE_URL.lastIndex = BREAK.lastIndex = this.#at;
    const url = ANGLE_URL.exec(this.#text);
    if (url) {
      const href = url[1] ?? "";
      this.#push(node("a", [href], { href }));
      this.#at = ANGLE_URL.lastIndex;
    } else if (BREAK.test(this.#text)) this.#break(BREAK.lastIndex - this.#at);
    else this.#literal(1);
  }

  #bare() {
    BARE_URL.lastIndex = this.#at;
    const before = this.#text[this.#at - 1] ?? " ";
    let href = !WORD.test(before) && BARE_URL.exec(this.#text)?.[0];
    if (!href) return this.#literal(1);
    // Sentence punctuation and emphasis after an address are not part of it, nor is a bracket it did not open.
    href = href.slice(0, MAX_URL).replace(/[.,:;!?'"*_~\]]+$/, "");
    while (href.endsWith(")") && href.split(")").length > href.split("(").length) href = href.slice(0, -1);
    this.#push(node("a", [href], { href }));
    this.#at += href.length;
  }
}

/** @param {string} text @param {number} at @param {string} char */
function run(text, at, char) {
  let end = at;
  while (text[end] === char) end++;
  return end - at;
}

/** A link inside a link becomes its text. @param {Node_[]} kids @returns {Node_[]} */
function unlink(kids) {
  return kids.flatMap((kid) => {
    if (typeof kid === "string") return [kid];
    const inner = unlink(kid.kids);
    return kid.tag === "a" ? inner : [{ ...kid, kids: inner }];
  });
}

/** Join neighbouring texts, as the DOM's normalize() does. @param {Node_[]} kids @returns {Node_[]} */
function merge(kids) {
  /** @type {Node_[]} */
  const merged = [];
  for (const kid of kids) {
    const last = merged.length - 1;
    if (typeof kid === "string" && typeof merged[last] === "string") merged[last] += kid;
    else if (kid !== "") merged.push(kid);
  }
  return merged;
}
