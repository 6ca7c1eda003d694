/** Colours for code: one pattern for each language, of the parts that have a colour. */
/** @import {Element_, Node_} from "./types.js" */
import { node } from "./tokens.js";

/** Longer texts keep one colour, as do longer lines: each piece is an element, and may be looked at to the line's end. */
const MAX_TEXT = 100_000;
/** Pieces whose lines are a block of their own: what stands before them is not laid out again for each new one. */
const LOT = 200;
const LONG = /.{2000,}/;

const STARS = between(/\/\*/, /\*\//);
const SLASHES = /\/\/.*/;
const HASH = /(?<!\S)#.*/;
const C_COMMENT = either(SLASHES, STARS);
/** Of all languages for programs: a word that one of them lacks is seldom a name there. */
const PROGRAM =
  "and as assert async await bool break case catch class const continue def default defer del delete do double elif else " +
  "enum except export extends False false final finally float fn for from func function global if impl implements import " +
  "in int interface is lambda let long loop match mod mut namespace new nil None not null number of or override package " +
  "pass private protected public raise return self static string struct super switch this throw True true try type " +
  "undefined use using val var void where while with yield";
/** By their names: keywords, and patterns by the class that they give. @type {Record<string, [string, Record<string, RegExp>]>} */
const LANGUAGES = {
  "js javascript jsx ts typescript tsx go": [PROGRAM, { comment: C_COMMENT, template: between(/`/, /`/) }],
  "c h cpp c++ java cs csharp c# kotlin swift php dart scala rust rs": [
    PROGRAM,
    { comment: C_COMMENT, keyword: /^[ \t]*#[ \t]*\w+/, name: /\w+!(?=[([{])|#\[.*?\]|'[a-z]+\b(?!')|@\w+/ },
  ],
  "python py": [PROGRAM, { comment: HASH, name: /@[\w.]+/ }],
  // Words in capitals, which hardly anyone writes for anything else, and the most frequent small ones.
  "sql postgresql mysql sqlite": [
    "and as by create delete from group in insert into is join left limit not null on or order select set table update " +
      "values where",
    { comment: either(/--.*/, STARS), keyword: /\b[A-Z]{2,}\b/ },
  ],
  // The first word of a command; an instruction of a Dockerfile.
  "shell sh bash zsh console dockerfile docker": [
    "AS in",
    {
      comment: HASH,
      keyword: /(?<=(?:^|[|&;($])[ \t]{0,20})[a-z][\w.-]*(?=\s|$)|^[ \t]*[A-Z]{3,}(?= )/,
      name: /\$(?:\{[^}\n]*\}|\w+|[@#?*])|(?<=\s)--?\w[\w-]*/,
    },
  ],
  "json jsonc jsonl": [PROGRAM, { comment: SLASHES, name: /"(?:[^"\\\n]|\\.)*"(?=[ \t]*:)/ }],
  "yaml yml toml ini env": [
    "true false null",
    { comment: /(?<!\S)[#;].*/, keyword: /^[ \t]*\[.*\]/, name: /^[ \t]*(?:- +)*[\w./-]+(?=[ \t]*(?:=|:\s|:$))/ },
  ],
  "html xml svg vue": [
    "",
    { comment: between(/<!--/, /-->/), keyword: /<[/!?]?[\w:.-]+|\/?>/, name: /[\w:@.-]+(?==)/ },
  ],
  "css scss": [
    "",
    { comment: STARS, keyword: /@[\w-]+/, name: /[\w-]+(?=[ \t]*:\s)|[.#][A-Za-z][\w-]*(?=[^;{}\n]*[{,])/ },
  ],
  "diff patch": ["", { name: /^(?:diff|index|---|\+\+\+) .*/, keyword: /^@@.*/, added: /^\+.*/, removed: /^-.*/ }],
};
const REST = {
  string: either(between(/"""/, /"""/), between(/'''/, /'''/), /"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?/),
  number: /(?:\b|#)\d[\w.]*/,
  word: /[\p{L}_$][\p{L}\d_$]*/u,
  end: /\n/,
};

/** @param {RegExp[]} patterns */
function either(...patterns) {
  return new RegExp(patterns.map(({ source }) => source).join("|"));
}

/** What goes on over lines; to the end of the text, until its own end is there. @param {RegExp} begin @param {RegExp} end */
function between(begin, end) {
  return new RegExp(`${begin.source}[\\s\\S]*?(?:${end.source}|(?![\\s\\S]))`);
}

/** @param {string} name of a language */
export function painter(name) {
  const known = Object.entries(LANGUAGES).find(([names]) => names.split(" ").includes(name.toLowerCase()));
  return known && new Painter(...known[1]);
}

/** @param {Node_[]} nodes */
const lot = (nodes) => node("span", nodes, { class: "lot" });

/** Paints complete lines once, and the last one each time. */
class Painter {
  #words;
  #pattern;
  /** The text of complete lines, and what it has become: lots, and the pieces of the next one. */
  #done = "";
  /** @type {Element_[]} */ #lots = [];
  /** @type {Node_[]} */ #pieces = [];

  /** @param {string} words @param {Record<string, RegExp>} patterns */
  constructor(words, patterns) {
    this.#words = words.split(" ");
    const all = Object.entries({ long: LONG, ...patterns, ...REST });
    this.#pattern = new RegExp(all.map(([kind, { source }]) => `(?<${kind}>${source})`).join("|"), "gmu");
  }

  /** @param {string} text that only grows @returns {Node_[]} */
  paint(text) {
    if (text.length > MAX_TEXT) return [text];
    if (!text.startsWith(this.#done)) {
      this.#done = "";
      this.#lots = [];
      this.#pieces = [];
    }
    let at = this.#done.length;
    /** @type {Node_[]} */
    let line = [];
    /** @param {number} to @param {string} [kind] */
    const add = (to, kind) => {
      if (to > at) line.push(kind ? node("span", [text.slice(at, to)], { class: kind }) : text.slice(at, to));
      at = to;
    };
    this.#pattern.lastIndex = at;
    for (const found of text.matchAll(this.#pattern)) {
      const kind = this.#kind(found);
      const end = found.index + found[0].length;
      if (kind === "end") {
        add(end);
        // Chromium does not copy an empty line at the beginning of a block.
        if (this.#pieces.length > LOT && line[0] !== "\n") this.#lots.push(lot(this.#pieces.splice(0)));
        this.#pieces.push(...line);
        this.#done = text.slice(0, end);
        line = [];
      } else if (kind) {
        add(found.index);
        add(end, kind);
      }
    }
    add(text.length);
    return [...this.#lots, lot([...this.#pieces, ...line])];
  }

  /** @param {RegExpExecArray} found */
  #kind({ 0: text, index, groups = {}, input }) {
    const kind = Object.keys(groups).find((name) => groups[name] !== undefined);
    if (kind !== "word") return kind === "long" ? "" : kind;
    if (this.#words.includes(text)) return "keyword";
    return input[index + text.length] === "(" || /^[A-Z]\w*[a-z]/.test(text) ? "name" : "";
  }
}
