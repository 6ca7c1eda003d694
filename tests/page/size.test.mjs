/** The page stays small: what a browser loads, compressed one by one as a server sends it. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import ts from "typescript";

const root = new URL("../../static/", import.meta.url);
const NAMES = readdirSync(root, { recursive: true }).map(String);

/** A file as the gateway sends it: without the comments that begin a line (`_COMMENT` in web/routes/page.py). */
function served(name) {
  const text = readFileSync(new URL(name, root), "utf8");
  if (!/\.(?:js|css)$/.test(name)) return text;
  return text.replace(/^[ \t]*(?:\/\/[^\n]*|\/\*[\s\S]*?\*\/[ \t]*)/gm, (comment) => comment.replace(/[^\n]/g, ""));
}

/** @param {(name: string) => boolean} counts */
function compressed(counts) {
  const names = NAMES.filter((name) => /\.(?:html|svg|css|js|webmanifest)$/.test(name) && counts(name));
  return names.reduce((sum, name) => sum + gzipSync(served(name), { level: 9 }).length, 0);
}

test("the whole page is under 100 KB on the wire", () => {
  const total = compressed(() => true);
  assert.ok(total < 100_000, `${total} bytes`);
});

test("what renders answers comes with the first one, and is under 25 KB", () => {
  const total = compressed((name) => name.startsWith("js/markdown/"));
  assert.ok(total < 25_000, `${total} bytes`);
});

/** All but white space and comments. @param {string} text */
function tokens(text) {
  const file = ts.createSourceFile("file.js", text, ts.ScriptTarget.Latest, false, ts.ScriptKind.JS);
  const found = [];
  /** @param {ts.Node} node */
  const visit = (node) => {
    const children = [];
    ts.forEachChild(node, (child) => void children.push(child));
    // An empty block may hold a comment.
    const token = !children.length && !ts.isBlock(node);
    found.push(token ? `${node.kind} ${node.getText(file)}` : node.kind);
    children.forEach(visit);
  };
  visit(file);
  return found;
}

for (const name of NAMES.filter((name) => name.endsWith(".js")))
  test(`${name} is the same script without its comments`, () => {
    const text = readFileSync(new URL(name, root), "utf8");
    assert.deepEqual(tokens(served(name)), tokens(text));
    assert.equal(served(name).split("\n").length, text.split("\n").length);
  });
