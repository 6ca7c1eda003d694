/** The specifications' examples: CommonMark's own, and GFM's by a reference renderer. */
import assert from "node:assert/strict";
import { test } from "node:test";
import spec from "commonmark-spec";
import { micromark } from "micromark";
import { gfm, gfmHtml } from "micromark-extension-gfm";
import { agrees, expected, parse, show } from "./markup.mjs";
import { GFM } from "./samples.mjs";

const COMMONMARK = spec.tests.map(({ markdown, html, number }) => ({
  markdown: markdown.replaceAll("→", "\t"),
  html: html.replaceAll("→", "\t"),
  number,
}));

/** What is meant to differ, and why. Each of these examples does differ, or the test fails. */
const DEVIATIONS = [
  {
    reason: "HTML stays text, but for the few tags that models write: a tree of ours holds no foreign element",
    examples: [
      21, 31, 148, 149, 150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 161, 162, 163, 164, 165, 166, 167, 168,
      169, 170, 171, 172, 173, 174, 175, 176, 177, 178, 179, 180, 181, 182, 183, 184, 185, 186, 187, 188, 189, 190, 191,
      308, 309, 344, 475, 476, 477, 613, 614, 615, 616, 623, 630, 631, 642, 643,
    ],
  },
  {
    reason: "Character references are those that models write; the full table is longer than the parser",
    examples: [25],
  },
  { reason: "Models indent bullets below a number by two or three spaces, whatever its width", examples: [297] },
  { reason: "Bare addresses are links, as in GFM", examples: [602, 608, 611, 612] },
];
const MEANT = new Map(DEVIATIONS.flatMap(({ reason, examples }) => examples.map((number) => [number, reason])));

/** @param {{markdown: string, html: string}} example */
const report = ({ markdown, html, number }) =>
  `${number ?? ""} ${JSON.stringify(markdown)}\n  expected ${expected(html)}\n  got      ${show(parse(markdown))}`;

test("every example of CommonMark that is not a meant deviation", () => {
  assert.equal(COMMONMARK.length, 652);
  const wrong = COMMONMARK.filter(({ markdown, html, number }) => !MEANT.has(number) && !agrees(parse(markdown), html));
  assert.deepEqual(wrong.map(report), []);
});

test("every meant deviation is one", () => {
  const agreeing = COMMONMARK.filter(
    ({ markdown, html, number }) => MEANT.has(number) && agrees(parse(markdown), html),
  );
  assert.deepEqual(agreeing.map(report), []);
});

const reference = (markdown) =>
  micromark(markdown, {
    extensions: [gfm()],
    htmlExtensions: [gfmHtml()],
    allowDangerousHtml: true,
    allowDangerousProtocol: true,
  });

/** What GFM says of addresses with a scheme, which the reference does not do yet: what is the link, and what follows it. */
const SCHEMES = [
  ["mailto:me@a.example", ""],
  ["mailto:a.b-c_d@a.b", "."],
  ["mailto:a.b-c_d@a.b", "/"],
  ["", "mailto:a.b-c_d@a.b-"],
  ["", "mailto:a.b-c_d@a.b_"],
  ["xmpp:me@a.example", ""],
  ["xmpp:me@a.example", "."],
  ["xmpp:me@a.example/room", ""],
  ["xmpp:me@a.example/room@b", ""],
  ["xmpp:me@a.example/room@b.c", ""],
  ["xmpp:me@a.example/room", "/more"],
];

test("every example of GFM, as a reference renders it", () => {
  const examples = GFM.map((markdown) => ({ markdown, html: reference(markdown) }));
  for (const [link, rest] of SCHEMES)
    examples.push({ markdown: link + rest, html: `<p>${link && `<a href="${link}">${link}</a>`}${rest}</p>` });
  const wrong = examples.filter(({ markdown, html }) => !agrees(parse(markdown), html));
  assert.deepEqual(wrong.map(report), []);
});

test("CommonMark's examples under GFM, as a reference renders them", () => {
  const examples = COMMONMARK.map((example) => ({ ...example, html: reference(example.markdown) }));
  const wrong = examples.filter(({ markdown, html, number }) => !MEANT.has(number) && !agrees(parse(markdown), html));
  assert.deepEqual(wrong.map(report), []);
});
