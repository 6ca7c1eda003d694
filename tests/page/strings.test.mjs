/** Every text exists in both languages, with the same gaps to fill, and is used. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { tables } from "../../static/js/strings.js";

const root = new URL("../../static/", import.meta.url);
const gaps = (text) => (text.match(/\{\w+\}/g) ?? []).sort();

test("both languages have the same texts", () => {
  assert.deepEqual(Object.keys(tables.ja), Object.keys(tables.en));
  for (const [key, text] of Object.entries(tables.en)) assert.deepEqual(gaps(tables.ja[key]), gaps(text), key);
});

test("every text is used, and every text that is used exists", () => {
  const sources = readdirSync(new URL("js/", root), { recursive: true }).filter(
    (name) => name.endsWith(".js") && name !== "strings.js",
  );
  const code = sources.map((name) => readFileSync(new URL(`js/${name}`, root), "utf8")).join("\n");
  const page = readFileSync(new URL("index.html", root), "utf8");
  const named = [...page.matchAll(/data-(?:t|label|placeholder)="(\w+)"/g)].map((match) => match[1]);
  for (const key of named) assert.ok(key in tables.en, key);
  // Put together at run time from a name of the gateway or of a choice.
  const composed = /^(?:error_|cap_|think_|theme_|queued$|starting$|loading$|prompt$|generating$|pulling$)/;
  for (const key of Object.keys(tables.en))
    assert.ok(composed.test(key) || named.includes(key) || new RegExp(`["']${key}["']|key: "${key}"`).test(code), key);
});
