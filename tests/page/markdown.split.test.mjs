/** A text that arrives in pieces has at every moment the tree that it has as a whole, however it is cut. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import spec from "commonmark-spec";
import { Incremental } from "../../static/js/markdown/markdown.js";
import { FORMULAS } from "./formulas.mjs";
import { parse } from "./markup.mjs";
import { ANSWERS, GFM, random } from "./samples.mjs";

/** Read the tree after every piece, now and then as one that is still open, and compare. */
function assertSplit(text, sizes) {
  const streamed = new Incremental();
  for (let at = 0, n = 0; at < text.length; n++) {
    const size = sizes();
    streamed.push(text.slice(at, at + size));
    at += size;
    const now = text.slice(0, at);
    assert.deepEqual(streamed.tree(true), parse(now, true), JSON.stringify(now));
    if (n % 3 === 0) assert.deepEqual(streamed.tree(), parse(now), JSON.stringify(now));
  }
  assert.deepEqual(streamed.tree(), parse(text), JSON.stringify(text));
}
const byCharacter = () => 1;

test("the specification's examples, character by character", () => {
  for (const { markdown } of spec.tests) assertSplit(markdown.replaceAll("→", "\t"), byCharacter);
  for (const markdown of GFM) assertSplit(markdown, byCharacter);
});

test("every formula, between all of its marks", () => {
  for (const tex of FORMULAS)
    for (const [begin, end] of [
      ["a $", "$ b"],
      ["$$\n", "\n$$\nb"],
      ["- \\[", "\\]\n- b"],
      ["\\(", "\\)"],
    ])
      assertSplit(begin + tex + end, byCharacter);
});

test("200 answers in the style of models, cut as tokens are", () => {
  const pick = random(7);
  for (const text of ANSWERS) assertSplit(text, () => 1 + pick(24));
});

test("one long answer with everything", () => {
  const text = readFileSync(new URL("answer.md", import.meta.url), "utf8");
  const pick = random(11);
  assertSplit(text, () => 1 + pick(30));
});

test("a definition at the end changes what stands before it, and only that", () => {
  const streamed = new Incremental();
  streamed.push("[a] and [b]\n\nother\n\n[^1]\n\n");
  const [before, other] = streamed.tree();
  streamed.push("[a]: https://a.example\n\n[^1]: note\n");
  const [after, same] = streamed.tree();
  assert.equal(other, same);
  assert.notDeepEqual(before, after);
  assert.deepEqual(streamed.tree(), parse("[a] and [b]\n\nother\n\n[^1]\n\n[a]: https://a.example\n\n[^1]: note\n"));
});

test("nothing that stands is taken back while bold, code, links and tables arrive", () => {
  const text =
    "A **bold *word*, `code`** and [a link](https://a.example).\n\n| a | b |\n|---|---|\n| 1 | **2** |\n\n- x\n- y\n";
  const tags = (nodes) => nodes.flatMap((node) => (typeof node === "string" ? [] : [node.tag, ...tags(node.kids)]));
  const streamed = new Incremental();
  let before = [];
  for (const char of text) {
    streamed.push(char);
    const now = tags(streamed.tree(true)).map((tag) => (tag === "span" ? "a" : tag));
    assert.deepEqual(now.slice(0, before.length), before, char);
    before = now;
  }
});
