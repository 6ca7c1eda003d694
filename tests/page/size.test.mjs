/** The page stays small: what a browser loads, compressed one by one as a server sends it. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const root = new URL("../../static/", import.meta.url);

test("the whole page is well under 100 KB on the wire", () => {
  const files = ["index.html", "favicon.svg", "client.js"];
  for (const folder of ["css", "js"])
    files.push(...readdirSync(new URL(`${folder}/`, root)).map((name) => `${folder}/${name}`));
  const bytes = files.map((name) => gzipSync(readFileSync(new URL(name, root))).length);
  const total = bytes.reduce((sum, size) => sum + size, 0);
  assert.ok(total < 75_000, `${total} bytes`);
});
