/**
 * The text of one block to nodes, by CommonMark's algorithm. One pass makes flat tokens; pairs that match note on them
 * what they open and close; a last pass makes the tree. Nothing is searched for twice, so the time is linear.
 */
/** @import {Attributes, Delimiter, Element_, Mark, Node_, Opener, Resolve} from "./types.js" */
import { addressAt, labelAt, matchAt, normalized, reference, targetAt, where } from "./references.js";
import { matches, node, pair, run, tree } from "./tokens.js";

/** A wrapped line is long; verse and addresses are short, and models end them without a mark. */
const SHORT_LINE = 60;

const SPECIAL =
  /[\\`*_~[\]<\n$&]|!\[|(?<![a-z\d])(?:https?:\/\/|www\.)|(?<![\w.+-])(?:mailto:|xmpp:)?[\w.+-]{1,64}@(?=[a-z\d])/gi;
const SPACE = /\s/;
const PUNCTUATION = /[\p{P}\p{S}]/u;
/** Scripts without spaces between words: emphasis begins and ends beside their punctuation. */
const UNSPACED = /[\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]/;
const WIDE = /[\u3000-\u9fff\uff00-\uffef]/;
const ANGLE =
  /<([a-z][a-z\d+.-]{1,31}:[^\s<>]{0,2000}|[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[a-z\d-]{1,63}(?:\.[a-z\d-]{1,63})*)>/iy;
const TAG = /<(?:(br) ?\/?|(\/?)(sub|sup|kbd))>/iy;
/** HTML stays text, whole: nothing in its attributes is Markdown. */
const HTML =
  /<(?:\/?[a-z][\w-]{0,40}(?:\s+[\w:.@-]{1,60}(?:\s*=\s*(?:"[^"]{0,999}"|'[^']{0,999}'|[^\s"'=<>`]+))?){0,20}\s*\/?|!--.{0,999}?--)>/isy;
const MEANT = /[\p{L}\p{N}]/u;

/** @param {string} text @param {Resolve} resolve @param {boolean} open more follows: what has begun is shown as what it will be */
export const inlines = (text, resolve, open) => new Inlines(text, resolve, open).parse();

class Inlines {
  #text;
  #resolve;
  #open;
  #at = 0;
  /** @type {(Node_ | Mark)[]} */ #tokens = [];
  /** @type {Delimiter[]} */ #delimiters = [];
  /** @type {Opener[]} */ #openers = [];
  /** Ends that are not there. @type {Set<string>} */ #missing = new Set();

  /** @param {string} text @param {Resolve} resolve @param {boolean} open */
  constructor(text, resolve, open) {
    this.#text = text;
    this.#resolve = resolve;
    this.#open = open;
  }

  parse() {
    const text = this.#text;
    while (this.#at < text.length) {
      const next = matchAt(SPECIAL, text, this.#at)?.index ?? text.length;
      if (next > this.#at) this.#push(text.slice(this.#at, next), next - this.#at);
      else this.#special(text[next] ?? "", text[next + 1] ?? "");
    }
    const unmatched = this.#emphasis(0);
    if (this.#open) this.#closeAll(unmatched);
    return tree(this.#tokens);
  }

  /** @param {Node_ | Mark} token @param {number} length of its source */
  #push(token, length) {
    this.#tokens.push(token);
    this.#at += length;
  }

  /** @param {string} char @param {string} next */
  #special(char, next) {
    if (char === "\\") this.#backslash(next);
    else if (char === "`") this.#code();
    else if (/[*_~]/.test(char)) this.#delimiter(char);
    else if (char === "\n") this.#newline();
    else if (char === "[") this.#opener("[", 1);
    else if (char === "!") this.#opener("![", 2);
    else if (char === "]") this.#bracket();
    else if (char === "<") this.#angle();
    else if (char === "$") this.#dollar(next);
    else if (char === "&") {
      const found = reference(this.#text, this.#at);
      this.#push(found?.char ?? "&", found?.length ?? 1);
    } else {
      const found = addressAt(this.#text, this.#at, this.#openers.length > 0);
      this.#push(found ? node("a", [found.text], where(found.href)) : char, found?.text.length ?? 1);
    }
  }

  /** @param {string} next */
  #backslash(next) {
    if (next === "\n") this.#break(2);
    else if (next === "(" && this.#maths("\\)", {})) return;
    else if (next === "[" && this.#maths("\\]", { display: "block" })) return;
    else if (/[!-/:-@[-`{-~]/.test(next)) this.#push(next, 2);
    else this.#push("\\", 1);
  }

  /** @param {number} length */
  #break(length) {
    this.#push(node("br"), length);
    while (this.#text[this.#at] === " ") this.#at++;
  }

  #newline() {
    const text = this.#text;
    const last = this.#tokens.length - 1;
    const before = this.#tokens[last];
    if (typeof before === "string") this.#tokens[last] = before.trimEnd();
    const short = this.#at - text.lastIndexOf("\n", this.#at - 1) <= SHORT_LINE;
    if (short || text.endsWith("  ", this.#at)) return this.#break(1);
    const wide = WIDE.test(text[this.#at - 1] ?? "") && WIDE.test(text[this.#at + 1] ?? "");
    this.#push(wide ? "" : " ", 1);
  }

  #code() {
    const text = this.#text;
    const marks = run(text, this.#at);
    const from = this.#at + marks.length;
    let end = this.#missing.has(marks) ? -1 : text.indexOf(marks, from);
    while (end >= 0 && run(text, end) !== marks) end = text.indexOf(marks, end + run(text, end).length);
    if (end < 0) {
      const begun = this.#open && !this.#missing.has(marks);
      this.#missing.add(marks);
      if (!begun) return this.#push(marks, marks.length);
      end = text.length;
    }
    let code = text.slice(from, end).replaceAll("\n", " ");
    if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
    this.#push(node("code", [code]), end + marks.length - this.#at);
  }

  /** By pandoc's rule, so that "$5 and $10" stays text. @param {string} next */
  #dollar(next) {
    if (next === "$") {
      if (!this.#maths("$$", { display: "block" })) this.#push("$$", 2);
      return;
    }
    const text = this.#text;
    let end = text.indexOf("$", this.#at + 1);
    while (text[end - 1] === "\\") end = text.indexOf("$", end + 1);
    const tex = text.slice(this.#at + 1, end);
    if (end < 0 || !tex || tex !== tex.trim() || /\d/.test(text[end + 1] ?? "")) this.#push("$", 1);
    else this.#push(node("math", [], { tex }), tex.length + 2);
  }

  /** Between marks of two characters. @param {string} close @param {Attributes} attrs */
  #maths(close, attrs) {
    let end = this.#missing.has(close) ? -1 : this.#text.indexOf(close, this.#at + 2);
    const begun = end < 0 && this.#open && !this.#missing.has(close);
    if (end < 0) {
      this.#missing.add(close);
      if (!begun) return false;
      end = this.#text.length;
    }
    const tex = this.#text.slice(this.#at + 2, end).trim();
    if (!MEANT.test(tex)) return false;
    this.#push(begun ? node("code", [tex]) : node("math", [], { tex, ...attrs }), end + 2 - this.#at);
    return true;
  }

  /** @param {string} char */
  #delimiter(char) {
    const text = run(this.#text, this.#at);
    const last = this.#text[this.#at - 1] ?? " ";
    const before = /[\udc00-\udfff]/.test(last) ? this.#text.slice(this.#at - 2, this.#at) : last;
    const after = String.fromCodePoint(this.#text.codePointAt(this.#at + text.length) ?? 32);
    const marked = isMark(before);
    const marks = isMark(after);
    const left = !SPACE.test(after) && (!marks || SPACE.test(before) || marked || UNSPACED.test(before));
    const right = !SPACE.test(before) && (!marked || SPACE.test(after) || marks || UNSPACED.test(after));
    // Neither snake_case nor a range as "5~10" is emphasis.
    const strict = char === "_" || text === "~";
    const fit = char !== "~" || text.length < 3;
    const mark = {
      text,
      closes: 0,
      opens: [],
      char,
      size: text.length,
      canOpen: fit && left && (!strict || !right || marked),
      canClose: fit && right && (!strict || !left || marks),
      order: this.#delimiters.length,
    };
    this.#delimiters.push(mark);
    this.#push(mark, text.length);
  }

  /** Match the delimiters from one on, and forget them. @param {number} bottom */
  #emphasis(bottom) {
    /** @type {Delimiter[]} */
    const stack = [];
    /** Up to where there is no opener for a kind of closer. @type {Record<string, number>} */
    const floors = {};
    for (const closer of this.#delimiters.splice(bottom)) {
      const kind = closer.char === "~" ? closer.text : `${closer.char}${closer.canOpen}${closer.size % 3}`;
      while (closer.canClose && closer.text) {
        const floor = floors[kind] ?? -1;
        const found = stack.findLastIndex((opener) => opener.order <= floor || matches(opener, closer));
        const opener = stack[found];
        if (!opener || opener.order <= floor) {
          floors[kind] = stack.at(-1)?.order ?? floor;
          break;
        }
        stack.length = found + 1;
        pair(opener, closer);
        if (!opener.text) stack.pop();
      }
      if (closer.canOpen && closer.text) stack.push(closer);
    }
    return stack;
  }

  /** More text follows: what is bold stays bold until its end is there. @param {Delimiter[]} unmatched */
  #closeAll(unmatched) {
    for (const opener of unmatched.reverse()) {
      if (opener.size === 1 && opener.canClose) continue;
      const closer = { ...opener, closes: 0, opens: [] };
      while (opener.text) pair(opener, closer);
      this.#tokens.push(closer);
    }
  }

  /** @param {string} name @param {number} length */
  #opener(name, length) {
    const at = this.#at + length;
    const mark = { text: this.#text.slice(this.#at, at), closes: 0, opens: [] };
    this.#missing.delete(name);
    const above = this.#openers.at(-1);
    if (above) above.inner = true;
    const token = this.#tokens.length;
    this.#openers.push({ name, mark, token, delimiters: this.#delimiters.length, at, active: true, inner: false });
    this.#push(mark, length);
  }

  #bracket() {
    let opener = this.#openers.pop();
    while (opener && !opener.name.endsWith("[")) opener = this.#openers.pop();
    const label = this.#text.slice(opener?.at, this.#at);
    const target = opener?.active ? this.#target(opener, label) : null;
    if (!opener || !target) return this.#push("]", 1);
    const { href, title, end } = target;
    if (opener.name === "![") return this.#close(opener, node("img", [], { href }), end);
    if (label[0] === "^" && !href) {
      this.#tokens.length = opener.token;
      this.#delimiters.length = opener.delimiters;
      return this.#push(node("button", [label.slice(1)], { note: normalized(label) }), 1);
    }
    this.#close(opener, node("a", [], where(href, title)), end);
    for (const other of this.#openers) if (other.name === "[") other.active = false;
  }

  /** @param {Opener} opener @param {string} label */
  #target(opener, label) {
    const text = this.#text;
    const at = this.#at + 1;
    const inline = targetAt(text, at);
    if (inline) return inline;
    const full = labelAt(text, at);
    const own = full?.label || opener.inner || label.length > 999 ? full?.label : label;
    const target = own && this.#resolve(normalized(own));
    if (target) return { ...target, end: full?.end ?? at };
    // The address has only begun to arrive.
    const begun = this.#open && text[at] === "(" && /^[^()\s]*$/.test(text.slice(at + 1));
    return begun ? { href: "", title: "", end: text.length } : null;
  }

  /** @param {Opener} opener @param {Element_} element @param {number} end of what closes it */
  #close(opener, element, end) {
    this.#emphasis(opener.delimiters);
    opener.mark.text = "";
    opener.mark.opens.push(element);
    this.#push({ text: "", closes: 1, opens: [] }, end - this.#at);
  }

  #angle() {
    const text = this.#text;
    const [, address] = matchAt(ANGLE, text, this.#at) ?? [];
    if (address) {
      const href = address.includes(":") ? address : `mailto:${address}`;
      return this.#push(node("a", [address], where(href)), address.length + 2);
    }
    const [all = "", br, slash, tag] = matchAt(TAG, text, this.#at) ?? [];
    if (br) return this.#push(node("br"), all.length);
    const name = tag?.toLowerCase() ?? "";
    if (name && !slash) return this.#opener(name, all.length);
    const found = this.#missing.has(name) ? -1 : this.#openers.findLastIndex((opener) => opener.name === name);
    const opener = this.#openers[found];
    if (opener) {
      this.#openers.length = found;
      return this.#close(opener, node(opener.name), this.#at + all.length);
    }
    this.#missing.add(name);
    const html = matchAt(HTML, text, this.#at)?.[0] ?? "<";
    this.#push(html, html.length);
  }
}

/** @param {string} char */
const isMark = (char) => PUNCTUATION.test(char) && !UNSPACED.test(char);
