/**
 * LaTeX's mathematics to a tree of MathML: the common subset, read from left to right, without macros.
 *
 * What is not known makes the whole formula unknown: it is shown as it is meant or as it was written, never half.
 */
/** @import {Element_} from "./types.js" */
import {
  ACCENTS,
  COMMANDS,
  LETTER,
  SAME,
  TABLES,
  Unknown,
  binomial,
  character,
  fence,
  fontOf,
  inFont,
  joined,
  mo,
  plain,
  row,
  sign,
  space,
  table,
} from "./mathml.js";
import { node } from "./tokens.js";

const MAX_LENGTH = 10_000;
const MAX_DEPTH = 100;
const TOKEN = /\\(?:[a-z]+|.)|\s+|\d+(?:\.\d+)?|./gisu;
const ROW_END = /^(?:[}&]|\\\\|\\(?:right|end|middle|over|choose))?$/;

/** @param {string} tex @param {boolean} display on a line of its own @returns {Element_ | null} null where it is unknown */
export function mathematics(tex, display) {
  if (tex.length > MAX_LENGTH) return null;
  try {
    return node("math", new Reader(tex).all(), display ? { display: "block" } : {});
  } catch (error) {
    if (error instanceof Unknown) return null;
    throw error;
  }
}

export class Reader {
  #tokens;
  #at = 0;
  #depth = 0;

  /** @param {string} tex */
  constructor(tex) {
    this.#tokens = tex.match(TOKEN) ?? [];
  }

  all() {
    const rows = this.rows("");
    return rows.length > 1 || (rows[0]?.length ?? 0) > 1 ? [table(rows, "right,left")] : (rows[0]?.[0] ?? []);
  }

  /** The next token that is no white space; "" at the end. */
  get #next() {
    while (/^\s/.test(this.#tokens[this.#at] ?? "")) this.#at++;
    return this.#tokens[this.#at] ?? "";
  }

  /** Take a token if it is the next one. @param {string} token */
  take(token) {
    const taken = this.#next === token;
    if (taken) this.#at++;
    return taken;
  }

  /** @param {string} token */
  expect(token) {
    if (!this.take(token)) throw new Unknown();
  }

  /** Atoms with their scripts, up to what ends them. @returns {Element_[]} */
  row() {
    if (++this.#depth > MAX_DEPTH) throw new Unknown();
    /** @type {Element_[]} */
    const kids = [];
    while (!ROW_END.test(this.#next)) kids.push(...this.#scripted(kids.at(-1)?.tag));
    let made = kids;
    if (this.take("\\over")) made = [node("mfrac", [row(kids), row(this.row())])];
    else if (this.take("\\choose")) made = [binomial(row(kids), row(this.row()))];
    this.#depth--;
    return made;
  }

  /** Rows of cells. @param {string} end the token after them */
  rows(end) {
    const rows = [[this.row()]];
    while (this.#next !== end) {
      if (this.take("&")) rows.at(-1)?.push(this.row());
      else {
        this.expect("\\\\");
        this.optional();
        rows.push([this.row()]);
      }
    }
    // A line end after the last row begins no other.
    if (rows.length > 1 && rows.at(-1)?.every((cell) => !cell.length)) rows.pop();
    return rows;
  }

  /** A group in braces, or one atom. */
  argument() {
    const token = this.#next;
    if (ROW_END.test(token) || /^[\^_]$/.test(token)) throw new Unknown();
    // Of "12" only the first digit is the argument.
    if (!/^\d\d/.test(token)) return row(this.atom());
    this.#tokens[this.#at] = token.slice(1);
    return node("mn", [token[0] ?? ""]);
  }

  #group() {
    this.expect("{");
    const kids = this.row();
    this.expect("}");
    return kids;
  }

  /** The text between braces as it is, such as a name. */
  raw() {
    this.expect("{");
    const from = this.#at;
    for (let depth = 1; depth; this.#at++) {
      const token = this.#tokens[this.#at];
      if (token === undefined) throw new Unknown();
      depth += token === "{" ? 1 : token === "}" ? -1 : 0;
    }
    return this.#tokens.slice(from, this.#at - 1).join("");
  }

  /** What stands in square brackets, if they are there. @returns {Element_ | null} */
  optional() {
    if (!this.take("[")) return null;
    const kids = [];
    while (!this.take("]")) {
      if (ROW_END.test(this.#next)) throw new Unknown();
      kids.push(...this.#scripted());
    }
    return row(kids);
  }

  /** An atom with what stands below and above it. @param {string} [before] the tag of the last one @returns {Element_[]} */
  #scripted(before = "mo") {
    const kids = /^[\^_']$/.test(this.#next) ? [node("mrow", [])] : this.atom();
    const base = kids.pop();
    if (!base) return [];
    const limits = this.take("\\limits") || (!this.take("\\nolimits") && !!base.attrs?.movablelimits);
    kids.push(this.#scripts(base, limits));
    // Between a function's name and its argument, but before no bracket, operator or end.
    if (/^m[io]$/.test(base.tag) && /^\w\w/.test(String(base.kids[0]))) {
      if (base.tag === "mi" && !/^m(?:o|space)$/.test(before)) kids.unshift(space(0.17));
      const next = this.#next;
      const argument = /^(?:[a-z\d]|\\(?:frac|sqrt|math))/i.test(next) || LETTER.test(sign(next.slice(1)) ?? "");
      if (argument) kids.push(space(0.17));
    }
    return kids;
  }

  /** @param {Element_} base @param {boolean} limits */
  #scripts(base, limits) {
    let below = null;
    /** @type {Element_[]} */
    const above = [];
    while (/^['^_]$/.test(this.#next)) {
      if (this.take("'")) above.push(mo("′"));
      else if (this.take("^") && above.every(({ tag }) => tag === "mo")) above.push(this.argument());
      else if (!below && this.take("_")) below = this.argument();
      else throw new Unknown();
    }
    const upper = row(above);
    if (below && above.length) return node(limits ? "munderover" : "msubsup", [base, below, upper]);
    if (below) return node(limits ? "munder" : "msub", [base, below]);
    return above.length ? node(limits ? "mover" : "msup", [base, upper]) : base;
  }

  atom() {
    if (++this.#depth > MAX_DEPTH) throw new Unknown();
    const atom = this.#atom();
    this.#depth--;
    return atom;
  }

  /** @returns {Element_[]} */
  #atom() {
    const token = this.#next;
    if (token === "{") return [row(this.#group())];
    this.#at++;
    if (token[0] === "\\") return this.#command(token.slice(1));
    if (/\s|~/.test(token)) return [space(0.25)];
    return [/^\d/.test(token) ? node("mn", [token]) : character(token)];
  }

  /** @param {string} name @returns {Element_[]} */
  #command(name) {
    const known = plain(name);
    if (known) return known;
    const accent = ACCENTS.get(name);
    if (accent) return [this.#accent(name, accent)];
    const [, big, more] = /^([bB]ig)(g?)[lrm]?$/.exec(name) ?? [];
    if (big) return [this.#sized((big === "Big" ? 1.8 : 1.2) + (more ? 1.2 : 0))];
    const font = fontOf(name);
    if (/^(?:text(?:rm|bf|it|tt|sf|normal)?|mbox)$/.test(name)) return this.#text(font ?? -1);
    if (font !== null) return this.#font(font);
    const bare = name.replace(/^[dtc](?=frac|binom)/, "");
    const same = SAME.get(bare) ?? bare;
    const command = Object.hasOwn(COMMANDS, same) && COMMANDS[same];
    if (!command) throw new Unknown();
    return [command(this, name)].flat();
  }

  /** @param {string} name @param {string} sign */
  #accent(name, sign) {
    const kids = [this.argument(), mo(sign, { stretchy: String(/^(?:wide|over|under)/.test(name)) })];
    const attr = name.endsWith("brace") ? "movablelimits" : "accent";
    return node(name.startsWith("under") ? "munder" : "mover", kids, { [attr]: "true" });
  }

  /** @param {number} font */
  #font(font) {
    const kids = this.#next === "{" ? this.#group() : [this.argument()];
    return [row(joined(kids, font))];
  }

  /** @param {number} em */
  #sized(em) {
    const size = `${em}em`;
    return mo(this.delimiter(), { minsize: size, maxsize: size, stretchy: "true" });
  }

  delimiter() {
    const token = this.#next;
    this.#at++;
    const bracket = token[0] === "\\" ? sign(token.slice(1)) : token;
    if (!bracket || !/^[\p{Ps}\p{Pe}|‖/\\<>.↑↓⇑⇓]$/u.test(bracket)) throw new Unknown();
    return bracket.replace(".", "").replace("<", "⟨").replace(">", "⟩");
  }

  /** Text, in which `$` begins mathematics again. @param {number} font @returns {Element_[]} */
  #text(font) {
    const parts = this.raw().split(/(?<!\\)\$/);
    if (parts.length % 2 === 0) throw new Unknown();
    return parts.flatMap((part, i) => {
      if (i % 2) return new Reader(part).all();
      const plain = part.replace(/\\([{}$%#&_ ])/g, "$1").replaceAll("~", " ");
      if (/[\\{}]/.test(plain)) throw new Unknown();
      const text = [...plain.replace(/^\s|\s$/g, "\u00a0")].map((char) => inFont(char, font)).join("");
      return text ? [node("mtext", [text])] : [];
    });
  }

  environment() {
    const full = this.raw();
    const name = full.replace(/\*$/, "");
    const [open, close, align = ""] = TABLES.get(name)?.split(":") ?? [];
    if (open === undefined || close === undefined) throw new Unknown();
    if (/^(?:array|aligned)/.test(name)) this.optional();
    const columns = /^array$|at$/.test(name) ? this.raw() : "";
    const rows = this.rows("\\end");
    this.#at++;
    if (this.raw() !== full) throw new Unknown();
    const made = table(rows, name === "array" ? sides(columns) : align);
    return open || close ? node("mrow", [fence(open), made, fence(close)]) : made;
  }
}

/** "l|cr" as names. @param {string} columns */
const sides = (columns) =>
  [...columns.replace(/[^lcr]/g, "")].map((c) => ({ l: "left", r: "right" })[c] ?? "center").join();
