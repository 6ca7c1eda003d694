/** The Markdown parser: what it builds, that streaming changes nothing, and that nothing hostile gets through. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Incremental, parse } from "../../static/js/markdown.js";

/** A tree as text that is easy to read in a test. */
function show(nodes) {
  return nodes
    .map((node) => {
      if (typeof node === "string") return node;
      const attrs = Object.entries(node.attrs ?? {})
        .filter(([, value]) => value)
        .map(([name, value]) => ` ${name}=${value}`)
        .join("");
      return node.kids.length ? `<${node.tag}${attrs}>${show(node.kids)}</${node.tag}>` : `<${node.tag}${attrs}>`;
    })
    .join("");
}
const html = (text) => show(parse(text));

const EXAMPLES = [
  ["plain", "<p>plain</p>"],
  ["# One\n## Two ##\n###### Six", "<h1>One</h1><h2>Two</h2><h6>Six</h6>"],
  ["#hashtag", "<p>#hashtag</p>"],
  ["C#\n# C# #", "<p>C#</p><h1>C#</h1>"],
  ["one\n\ntwo", "<p>one</p><p>two</p>"],
  ["short line\nnext", "<p>short line<br>next</p>"],
  [`${"a long line of prose ".repeat(4)}\nnext`, `<p>${"a long line of prose ".repeat(4).trim()} next</p>`],
  [`${"a long line of prose ".repeat(4)} \nnext`, `<p>${"a long line of prose ".repeat(4).trim()}  <br>next</p>`],
  [`${"これは長い行です。".repeat(9)}\n次の行`, `<p>${"これは長い行です。".repeat(9)}次の行</p>`],
  ["**bold** *em* __bold__ _em_ ~~gone~~", "<p><strong>bold</strong> <em>em</em> <strong>bold</strong> <em>em</em> <del>gone</del></p>"],
  ["***both*** **a *b* c**", "<p><em><strong>both</strong></em> <strong>a <em>b</em> c</strong></p>"],
  ["snake_case_name 2 * 3 * 4 **open", "<p>snake_case_name 2 * 3 * 4 **open</p>"],
  ["これは**「重要」**です。", "<p>これは<strong>「重要」</strong>です。</p>"],
  ["`code` ``a `b` c`` `**x**`", "<p><code>code</code> <code>a `b` c</code> <code>**x**</code></p>"],
  ["\\*not em\\* \\`", "<p>*not em* `</p>"],
  ["---\n***", "<hr><hr>"],
  ["> quote\n> more\n\nafter", "<blockquote><p>quote<br>more</p></blockquote><p>after</p>"],
  ["> - a\n>   - b", "<blockquote><ul><li>a<ul><li>b</li></ul></li></ul></blockquote>"],
  ["- a\n- b", "<ul><li>a</li><li>b</li></ul>"],
  ["- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"],
  ["3. c\n4. d", "<ol start=3><li>c</li><li>d</li></ol>"],
  ["1. a\n  - b\n  - c\n2. d", "<ol><li>a<ul><li>b</li><li>c</li></ul></li><li>d</li></ol>"],
  ["- a\n1. b", "<ul><li>a</li></ul><ol><li>b</li></ol>"],
  ["In\n1986. A year", "<p>In<br>1986. A year</p>"],
  ["1. run\n   ```sh\n   a\n\n   b\n   ```\n2. done", "<ol><li><p>run</p><pre language=sh>a\n\nb</pre></li><li><p>done</p></li></ol>"],
  ["- [ ] open\n- [x] done", "<ul><li>☐ open</li><li>☑ done</li></ul>"],
  ["```js\nlet a = 1;\n```\nafter", "<pre language=js>let a = 1;</pre><p>after</p>"],
  ["```\nstill open\n# not a heading", "<pre>still open\n# not a heading</pre>"],
  ["````\n```\n````", "<pre>```</pre>"],
  ["~~~\na\n~~~", "<pre>a</pre>"],
  ["text\n```\ncode\n```", "<p>text</p><pre>code</pre>"],
  ["| a | b |\n|---|--:|\n| 1 | `x\\|y` |", "<table><thead><tr><th>a</th><th align=right>b</th></tr></thead><tbody><tr><td>1</td><td align=right><code>x|y</code></td></tr></tbody></table>"],
  ["a | b\n:-: | -\n1", "<table><thead><tr><th align=center>a</th><th>b</th></tr></thead></table><p>1</p>"],
  ["a | b\n--- | --- | ---", "<p>a | b<br>--- | --- | ---</p>"],
  ["one<br>two", "<p>one<br>two</p>"],
  ["[Ollama](https://ollama.com \"title\")", "<p><a href=https://ollama.com>Ollama</a></p>"],
  ["[a **b** c](mailto:x@y.z)", "<p><a href=mailto:x@y.z>a <strong>b</strong> c</a></p>"],
  ["[wiki](https://en.wikipedia.org/wiki/A_(b))", "<p><a href=https://en.wikipedia.org/wiki/A_(b)>wiki</a></p>"],
  ["see https://example.org/a_b_c, or (https://example.org).", "<p>see <a href=https://example.org/a_b_c>https://example.org/a_b_c</a>, or (<a href=https://example.org>https://example.org</a>).</p>"],
  ["<https://example.org>", "<p><a href=https://example.org>https://example.org</a></p>"],
  ["![a picture](https://example.org/x.png)", "<p><a href=https://example.org/x.png>a picture</a></p>"],
  ["[![badge](https://a.b/x.svg)](https://a.b)", "<p><a href=https://a.b>badge</a></p>"],
  ["[not a link] [x](", "<p>[not a link] [x](</p>"],
  ["a\r\nb\r\n\r\nc", "<p>a<br>b</p><p>c</p>"],
];

for (const [text, expected] of EXAMPLES) test(JSON.stringify(text), () => assert.equal(html(text), expected));

const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "[x](javascript:alert(1))",
  "[x](JaVaScRiPt:alert(1))",
  "[x](java\tscript:alert(1))",
  "[x](&#106;avascript:alert(1))",
  "[x](\\javascript:alert(1))",
  "[x](<javascript:alert(1)>)",
  "[x](data:text/html;base64,PHNjcmlwdD4=)",
  "![x](data:image/svg+xml,<svg onload=alert(1)>)",
  "[x](vbscript:x)",
  "[x](//evil.example)",
  "[x](/etc/passwd)",
  "<javascript:alert(1)>",
  "[x](file:///etc/passwd)",
  "[a](https://x.y\" onclick=\"alert(1))",
  "```\"><script>alert(1)</script>\nx\n```",
  "| a | b |\n|---|---|\n| <b onclick=x> | [x](javascript:1) |",
];
const TAGS = /^(?:p|h[1-6]|hr|br|pre|code|blockquote|ul|ol|li|table|thead|tbody|tr|th|td|strong|em|del|a)$/;
const ATTRS = { a: /^href$/, ol: /^start$/, pre: /^language$/, th: /^align$/, td: /^align$/ };

/** Only known tags, only known attributes, only links that are safe. */
function assertHarmless(nodes) {
  for (const node of nodes) {
    if (typeof node === "string") continue;
    assert.match(node.tag, TAGS);
    for (const [name, value] of Object.entries(node.attrs ?? {})) {
      assert.match(name, ATTRS[node.tag] ?? /^$/);
      if (name === "href") assert.match(value, /^(?:https?:\/\/|mailto:)/i);
      if (name === "start") assert.match(value, /^\d+$/);
      if (name === "align") assert.match(value, /^(?:right|center)$/);
    }
    assertHarmless(node.kids);
  }
}

test("nothing hostile becomes more than text", () => {
  for (const text of HOSTILE) {
    assertHarmless(parse(text));
    assert.equal(html(text).includes("href=javascript"), false);
  }
});

/** Work, not time: a bounded parser does not slow down more than its input grows. */
const LONG = {
  brackets: "[".repeat(20_000),
  closing: "]".repeat(20_000),
  links: "[a](".repeat(5_000),
  images: "![".repeat(3_300) + "](x)".repeat(3_300),
  stars: "*a ".repeat(7_000),
  runs: "*".repeat(20_000),
  underscores: "_a_".repeat(6_000),
  backticks: Array.from({ length: 190 }, (_, i) => "`".repeat(i + 1)).join(" "),
  quotes: "> ".repeat(10_000),
  lists: "- ".repeat(10_000),
  nested: Array.from({ length: 300 }, (_, i) => `${" ".repeat(i * 2)}- x`).join("\n"),
  pipes: `${"|".repeat(20_000)}\n${"-|".repeat(10_000)}`,
  spaces: `# ${" ".repeat(20_000)}x`,
  dashes: `${"- ".repeat(10_000)}x`,
  parentheses: `[a](${"(".repeat(20_000)}`,
  urls: "http://".repeat(3_000),
  angle: "<http://".repeat(2_500),
  lines: "a|b\n".repeat(5_000),
  fences: "```\n".repeat(5_000),
  huge: "word ".repeat(40_000),
};

for (const [name, text] of Object.entries(LONG))
  test(`20,000 hostile characters: ${name}`, { timeout: 20_000 }, () => {
    assertHarmless(parse(text));
    // Under the bound up to which inline marks are looked for.
    assertHarmless(parse(text.slice(0, 19_900)));
  });

/** A small generator with a seed, so that a failure can be repeated. */
function random(seed) {
  return (limit) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * limit);
  };
}

const CORPUS = [...EXAMPLES.map(([text]) => text), ...HOSTILE].map((text) => text.replaceAll("\r\n", "\n"));

test("every prefix of every example: streamed equals one-shot", () => {
  for (const text of [...CORPUS, CORPUS.join("\n\n"), CORPUS.join("\n"), "a\r\nb\r\n\r\nc\r\n- d\r\n\r\ne"]) {
    const streamed = new Incremental();
    for (let i = 0; i < text.length; i++) {
      streamed.push(text[i]);
      const now = text.slice(0, i + 1);
      if (text.length < 500 || i % 7 === 0 || i === text.length - 1)
        assert.deepEqual(streamed.tree(), parse(now), JSON.stringify(now.slice(-80)));
    }
  }
});

test("any text, split anywhere: streamed equals one-shot", () => {
  const pieces = ["\n", "\n\n", "  ", "    ", "- ", "1. ", "2. ", "```", "```js\n", "> ", "# ", "|", "---", "|-|-|\n", "*", "**", "_", "`", "[", "](", "https://x.y", ")", "word", "単語", " ", "\\", "<br>", "~~", "\r\n", "\t", "!", "🙂"];
  const pick = random(20261122);
  for (let round = 0; round < 3_000; round++) {
    let text = "";
    for (let n = pick(40); n >= 0; n--) text += pieces[pick(pieces.length)];
    const streamed = new Incremental();
    for (let at = 0; at < text.length; ) {
      const size = 1 + pick(9);
      streamed.push(text.slice(at, at + size));
      at += size;
      assert.deepEqual(streamed.tree(), parse(text.slice(0, at)), JSON.stringify(text.slice(0, at)));
    }
    assertHarmless(streamed.tree());
  }
});

test("what can no longer change is kept as it is", () => {
  const streamed = new Incremental();
  streamed.push("one\n\ntwo\n\nthree\n\nfour");
  const [first] = streamed.tree();
  streamed.push(" more\n\nfive");
  assert.equal(streamed.tree()[0], first);
});
