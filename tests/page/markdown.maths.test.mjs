/** Mathematics: the same structure as a reference renderer's, or verbatim; never half. */
import assert from "node:assert/strict";
import { test } from "node:test";
import temml from "temml";
import { mathematics } from "../../static/js/markdown/maths.js";
import { FORMULAS } from "./formulas.mjs";
import { random } from "./samples.mjs";

const SCRIPTS = { msub: "_", munder: "_", msup: "^", mover: "^", msubsup: "_^", munderover: "_^" };
/** Elements that only group or space. */
const BARE = /^(?:math|mrow|mstyle|mpadded|mspace|mphantom|mi|mn|mo|mtext)$/;
/** The same sign, as one or the other writes it. */
const SAME = {
  ˆ: "^",
  "˜": "~",
  "¯": "‾",
  _: "‾",
  "∣": "|",
  "-": "−",
  "∗": "*",
  "⋆": "*",
  "′": "'",
  "•": "∙",
  ˋ: "`",
  "⌀": "∅",
};

/** @param {string} text */
const plain = (text) =>
  [...text.normalize("NFC").replace(/[\s\u2061-\u2064]|\ufe0e/g, "")]
    .map((char) => SAME[char] ?? (/[\u{1d434}-\u{1d467}]/u.test(char) ? char.normalize("NFKC") : char))
    .join("");

/** Structure and signs, without attributes and spaces. */
function shape(node) {
  if (typeof node === "string") return plain(node);
  const kids = node.kids.map(shape);
  if (BARE.test(node.tag)) return kids.join("");
  if (/^(?:msqrt|mtd)$/.test(node.tag)) return `${node.tag}{${kids.join("")}}`;
  const marks = SCRIPTS[node.tag];
  if (!marks) return `${node.tag}{${kids.join("}{")}}`;
  const [base = "", ...scripts] = kids;
  const written = scripts.map((script, i) => (script ? `${marks[i]}{${script}}` : "")).join("");
  if (!written) return base;
  // An exponent may stand at the bracket or at all that it closes.
  const bracket = /[)\]}|⟩‖]$/.test(base) ? base.length - 1 : 0;
  return `${base.slice(0, bracket)}<${base.slice(bracket)}>${written}`;
}

/** The reference's MathML as a tree. */
function read(xml) {
  const root = { tag: "mrow", kids: [] };
  const stack = [root];
  for (const [, close, tag, attrs, empty, text] of xml.matchAll(/<(\/?)(\w+)([^>]*?)(\/?)>|([^<]+)/g)) {
    if (text) stack.at(-1).kids.push(text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"));
    else if (close) {
      const { tag, kids } = stack.pop();
      if (SCRIPTS[tag] && kids.length === 1) kids.push("‾");
    } else {
      const line = /notation="(top|bottom)"/.exec(attrs)?.[1];
      const element = { tag: line ? (line === "top" ? "mover" : "munder") : tag, kids: [] };
      stack.at(-1).kids.push(element);
      if (!empty) stack.push(element);
    }
  }
  return root;
}

test("a few hundred formulas have the structure that the reference gives them", () => {
  const wrong = FORMULAS.flatMap((tex) => {
    const ours = mathematics(tex, true);
    const got = ours && shape(ours);
    const expected = shape(
      read(
        temml.renderToString(tex.replace(/\{(align|equation)\}/g, "{$1*}"), { displayMode: true, throwOnError: true }),
      ),
    );
    return got === expected ? [] : [`${tex}\n  expected ${expected}\n  got      ${got}`];
  });
  assert.deepEqual(wrong, []);
});

test("what is not known is not shown in half", () => {
  for (const tex of [
    "\\unknown{x}",
    "x + \\href{javascript:x}{y}",
    "\\frac{1}",
    "\\frac{1}{2",
    "x}",
    "\\left( x",
    "\\begin{matrix} 1",
    "\\begin{tikzpicture} x \\end{tikzpicture}",
    "\\begin{matrix} 1 \\end{pmatrix}",
    "x^",
    "x_1_2",
    "\\text{a",
    "\\constructor",
    "\\begin{constructor}\\end{constructor}",
    "\\def\\x{1}\\x",
    "a & b \\right) c",
    "{".repeat(200),
    "x".repeat(20_000),
  ])
    assert.equal(mathematics(tex, false), null, tex.slice(0, 40));
});

/** Only MathML, and of it only what cannot do anything. */
const TAGS =
  /^(?:math|mrow|mi|mn|mo|mtext|mspace|mfrac|msqrt|mroot|msub|msup|msubsup|munder|mover|munderover|mtable|mtr|mtd|mphantom)$/;
const ATTRS =
  /^(?:display|displaystyle|mathvariant|movablelimits|fence|stretchy|accent|width|minsize|maxsize|linethickness|class)$/;

function assertHarmless(node) {
  if (typeof node === "string") return;
  assert.match(node.tag, TAGS);
  for (const [name, value] of Object.entries(node.attrs ?? {})) {
    assert.match(name, ATTRS);
    assert.match(value, /^[\w.-]*$/);
  }
  for (const kid of node.kids) assertHarmless(kid);
}

test("any text: known or not, in bounded time, and never another element or attribute", { timeout: 60_000 }, () => {
  const pieces = FORMULAS.flatMap((tex) => tex.match(/\\[A-Za-z]+|\s+|[^\\]/g) ?? []).concat([
    "\\",
    "{",
    "}",
    "&",
    "\\\\",
    "<",
    "$",
    "%",
  ]);
  const pick = random(20261126);
  for (let round = 0; round < 20_000; round++) {
    const tex = Array.from({ length: 1 + pick(20) }, () => pieces[pick(pieces.length)]).join("");
    assertHarmless(mathematics(tex, true) ?? "");
  }
  for (const piece of [
    "{",
    "}",
    "^",
    "_{",
    "\\frac",
    "\\sqrt{",
    "\\left(",
    "\\begin{matrix}",
    "&",
    "\\\\",
    "x'",
    "\\text{",
    "[",
    "\\hat",
    "\\not",
    "\\mathbf",
    "a\\over ",
    "x^{",
  ])
    assertHarmless(mathematics(piece.repeat(10_000 / piece.length), true) ?? "");
});
