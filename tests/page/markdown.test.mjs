/** The Markdown parser: what it builds, that streaming changes nothing, and that nothing hostile gets through. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Incremental } from "../../static/js/markdown/markdown.js";
import { parse } from "./markup.mjs";
import { random } from "./samples.mjs";

/** A tree as text that is easy to read in a test. */
function show(nodes) {
  return nodes
    .map((node) => {
      if (typeof node === "string") return node;
      const attrs = Object.entries(node.attrs ?? {})
        .filter(([name, value]) => value && !(name === "start" && value === "1"))
        .map(([name, value]) => ` ${name}=${value}`)
        .join("");
      return node.kids.length ? `<${node.tag}${attrs}>${show(node.kids)}</${node.tag}>` : `<${node.tag}${attrs}>`;
    })
    .join("");
}
const html = (text) => show(parse(text));
/** While more of the text is to come. */
const open = (text) => show(parse(text, true));

const EXAMPLES = [
  ["plain", "<p>plain</p>"],
  ["# One\n## Two ##\n###### Six", "<h1>One</h1><h2>Two</h2><h6>Six</h6>"],
  ["#hashtag", "<p>#hashtag</p>"],
  ["C#\n# C# #", "<p>C#</p><h1>C#</h1>"],
  ["one\n\ntwo", "<p>one</p><p>two</p>"],
  ["short line\nnext", "<p>short line<br>next</p>"],
  [`${"a long line of prose ".repeat(4)}\nnext`, `<p>${"a long line of prose ".repeat(4).trim()} next</p>`],
  [`${"a long line of prose ".repeat(4)} \nnext`, `<p>${"a long line of prose ".repeat(4).trim()}<br>next</p>`],
  [`${"これは長い行です。".repeat(9)}\n次の行`, `<p>${"これは長い行です。".repeat(9)}次の行</p>`],
  [
    "**bold** *em* __bold__ _em_ ~~gone~~",
    "<p><strong>bold</strong> <em>em</em> <strong>bold</strong> <em>em</em> <del>gone</del></p>",
  ],
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
  [
    "1. run\n   ```sh\n   a\n\n   b\n   ```\n2. done",
    "<ol><li>run<pre language=sh>a\n\nb</pre></li><li>done</li></ol>",
  ],
  ["- [ ] open\n- [x] done", "<ul><li class=task>☐ open</li><li class=task>☑ done</li></ul>"],
  ["```js\nlet a = 1;\n```\nafter", "<pre language=js>let a = 1;</pre><p>after</p>"],
  ["```\nstill open\n# not a heading", "<pre>still open\n# not a heading</pre>"],
  ["````\n```\n````", "<pre>```</pre>"],
  ["~~~\na\n~~~", "<pre>a</pre>"],
  ["text\n```\ncode\n```", "<p>text</p><pre>code</pre>"],
  [
    "| a | b |\n|---|--:|\n| 1 | `x\\|y` |",
    "<table><thead><tr><th>a</th><th class=right>b</th></tr></thead><tbody><tr><td>1</td><td class=right><code>x|y</code></td></tr></tbody></table>",
  ],
  [
    "a | b\n:-: | -\n1",
    "<table><thead><tr><th class=center>a</th><th>b</th></tr></thead><tbody><tr><td class=center>1</td></tr></tbody></table>",
  ],
  ["a | b\n--- | --- | ---", "<p>a | b<br>--- | --- | ---</p>"],
  ["one<br>two", "<p>one<br>two</p>"],
  ['[Ollama](https://ollama.com "title")', "<p><a href=https://ollama.com title=title>Ollama</a></p>"],
  ["[a **b** c](mailto:x@y.z)", "<p><a href=mailto:x@y.z>a <strong>b</strong> c</a></p>"],
  ["[wiki](https://en.wikipedia.org/wiki/A_(b))", "<p><a href=https://en.wikipedia.org/wiki/A_(b)>wiki</a></p>"],
  [
    "see https://example.org/a_b_c, or (https://example.org).",
    "<p>see <a href=https://example.org/a_b_c>https://example.org/a_b_c</a>, or (<a href=https://example.org>https://example.org</a>).</p>",
  ],
  ["<https://example.org>", "<p><a href=https://example.org>https://example.org</a></p>"],
  ["![a picture](https://example.org/x.png)", "<p><a href=https://example.org/x.png>a picture</a></p>"],
  ["[![badge](https://a.b/x.svg)](https://a.b)", "<p><a href=https://a.b>badge</a></p>"],
  ["[not a link] [x](", "<p>[not a link] [x](</p>"],
  ["a\r\nb\r\n\r\nc", "<p>a<br>b</p><p>c</p>"],
  // Addresses end where people end them.
  [
    "（https://a.example）と「https://b.example/x」。",
    "<p>（<a href=https://a.example>https://a.example</a>）と「<a href=https://b.example/x>https://b.example/x</a>」。</p>",
  ],
  [
    "“https://a.example/x” – https://b.example… 'https://c.example'",
    "<p>“<a href=https://a.example/x>https://a.example/x</a>” – <a href=https://b.example>https://b.example</a>… '<a href=https://c.example>https://c.example</a>'</p>",
  ],
  [
    "见https://a.example，以及https://b.example。",
    "<p>见<a href=https://a.example>https://a.example</a>，以及<a href=https://b.example>https://b.example</a>。</p>",
  ],
  ["[https://a.example](https://a.example)", "<p><a href=https://a.example>https://a.example</a></p>"],
  [
    "[docs](/guide) and ![plan](plan.png)",
    "<p><span title=/guide>docs</span> and <span title=plan.png>plan</span></p>",
  ],
  // HTML is text, but for a few tags.
  [
    "H<sub>2</sub>O x<SUP>2</SUP> <kbd>Ctrl</kbd> </sub> <sub>open",
    "<p>H<sub>2</sub>O x<sup>2</sup> <kbd>Ctrl</kbd> </sub> <sub>open</p>",
  ],
  ["<sub>*a</sub> b*", "<p><sub>*a</sub> b*</p>"],
  ['<a href="*x*" title="https://a.example">*y*</a>', '<p><a href="*x*" title="https://a.example"><em>y</em></a></p>'],
  [
    "| a |\n|---|\n| x<br>y |",
    "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>x<br>y</td></tr></tbody></table>",
  ],
  [
    "<details>\n<summary>More **here**</summary>\n\n- a\n\n```html\n</details>\n```\n</details>\nafter",
    "<details><summary>More <strong>here</strong></summary><ul><li>a</li></ul><pre language=html></details></pre></details><p>after</p>",
  ],
  ["<details><summary>S</summary>text\n</details>", "<details><summary>S</summary><p>text</p></details>"],
  // Mathematics.
  [
    "so $a_1$ and \\(b_2\\) cost $5 and $10, $HOME or US$5",
    "<p>so <math tex=a_1> and <math tex=b_2> cost $5 and $10, $HOME or US$5</p>",
  ],
  ["$$\n\\frac{a}{b}\n$$", "<math tex=\\frac{a}{b} display=block>"],
  ["text\n\\[\nx_1 \\\\ y_2\n\\]\nmore", "<p>text</p><math tex=x_1 \\\\ y_2 display=block><p>more</p>"],
  ["$$x_1$$.", "<math tex=x_1. display=block>"],
  ["see $$x_1$$ here", "<p>see <math tex=x_1 display=block> here</p>"],
  ["1. a\n   $$\n   x\n   $$\n2. b", "<ol><li>a<math tex=x display=block></li><li>b</li></ol>"],
  ["```math\nx_1\n```", "<math tex=x_1 display=block>"],
  ["$$ never closed\n\n*a*", "<p>$$ never closed</p><p><em>a</em></p>"],
  ["`$a$` \\$b$ $c\\$ d$ $ e$", "<p><code>$a$</code> $b$ <math tex=c\\$ d> $ e$</p>"],
  // What models do.
  ["5~10 and 15~20", "<p>5~10 and 15~20</p>"],
  ["C:\\Users\\me and \\d+\\w", "<p>C:\\Users\\me and \\d+\\w</p>"],
  ["**強調。**次 **「a」**b", "<p><strong>強調。</strong>次 <strong>「a」</strong>b</p>"],
  [
    "```markdown\n# T\n```js\nx\n```\nend\n```\nafter",
    "<pre language=markdown># T\n```js\nx\n```\nend</pre><p>after</p>",
  ],
  ["- a\n      ```js\n      x\n      ```", "<ul><li>a<pre language=js>x</pre></li></ul>"],
  ["10. a\n  - b", "<ol start=10><li>a<ul><li>b</li></ul></li></ol>"],
  [`98. a\n99. b\n100. c`, "<ol start=98 class=wide><li>a</li><li>b</li><li>c</li></ol>"],
  [
    "a[^1] b[^x]\n\n[^1]: The *note*.\n    more\n\nc",
    "<p>a<button note=^1>1</button> b[^x]</p><div note=^1 label=1><p>The <em>note</em>.<br>more</p></div><p>c</p>",
  ],
  [`![plot](data:image/png;base64,${"A".repeat(4_000)})`, "<p><span class=picture>plot (PNG, 3 KB)</span></p>"],
  ["```js src/app.js\nx\n```", "<pre language=js name=src/app.js>x</pre>"],
  ['```js title="a b.js"\nx\n```', "<pre language=js name=a b.js>x</pre>"],
  ["```python:main.py\nx\n```", "<pre language=python name=main.py>x</pre>"],
  ["```main.py\nx\n```", "<pre language=py name=main.py>x</pre>"],
];

/** What is unfinished, and how it looks until the rest is there. */
const UNFINISHED = [
  ["a **bo", "<p>a <strong>bo</strong></p>"],
  ["a **bold*", "<p>a <strong>bold</strong></p>"],
  ["a **bold**", "<p>a <strong>bold</strong></p>"],
  ["a **b *c", "<p>a <strong>b <em>c</em></strong></p>"],
  ["2*3 and 2 * 3", "<p>2*3 and 2 * 3</p>"],
  ["a `co", "<p>a <code>co</code></p>"],
  ["a [link](https://a.exam", "<p>a <span>link</span></p>"],
  ["**a [b](https://a.example) c", "<p><strong>a <a href=https://a.example>b</a> c</strong></p>"],
  ["see \\(a_1", "<p>see <code>a_1</code></p>"],
  ["$$\na_1 = *b", "<p><code>$$\na_1 = *b</code></p>"],
  ["text\n-", "<p>text</p>"],
  ["text\n- **", "<p>text</p>"],
  ["a\n\n#", "<p>a</p>"],
  ["a\n\n1.", "<p>a</p>"],
  ["a\n\n``", "<p>a</p>"],
  ["```js\nx\n``", "<pre language=js>x</pre>"],
  ["```js\nx", "<pre language=js>x</pre>"],
  ["| a | b", "<table><thead><tr><th>a</th><th>b</th></tr></thead></table>"],
  ["| a | b |\n|--", "<table><thead><tr><th>a</th><th>b</th></tr></thead></table>"],
  ["is:\n| a | **b", "<p>is:</p><table><thead><tr><th>a</th><th><strong>b</strong></th></tr></thead></table>"],
  [
    "| a |\n|---|\n| **b",
    "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td><strong>b</strong></td></tr></tbody></table>",
  ],
  ["**a\n\nb", "<p>**a</p><p>b</p>"],
];
for (const [text, expected] of UNFINISHED)
  test(`unfinished: ${JSON.stringify(text)}`, () => assert.equal(open(text), expected));

for (const [text, expected] of EXAMPLES) test(JSON.stringify(text), () => assert.equal(html(text), expected));

/** An answer, and each of its blocks alone. */
const HOSTILE = readFileSync(new URL("hostile.md", import.meta.url), "utf8");
const TAGS =
  /^(?:p|h[1-6]|hr|br|pre|code|blockquote|ul|ol|li|table|thead|tbody|tr|th|td|strong|em|del|a|span|sub|sup|kbd|button|details|summary|div|math)$/;
const ATTRS = {
  a: /^(?:href|title)$/,
  ol: /^(?:start|class)$/,
  pre: /^(?:language|name)$/,
  th: /^class$/,
  td: /^class$/,
  li: /^class$/,
  span: /^(?:class|title)$/,
  button: /^note$/,
  div: /^(?:note|label)$/,
  math: /^(?:tex|display)$/,
};

/** Only known tags, only known attributes, only links that are safe. */
function assertHarmless(nodes) {
  for (const node of nodes) {
    if (typeof node === "string") continue;
    assert.match(node.tag, TAGS);
    for (const [name, value] of Object.entries(node.attrs ?? {})) {
      assert.match(name, ATTRS[node.tag] ?? /^$/);
      if (name === "href") assert.match(value, /^(?:https?:\/\/|mailto:)/i);
      if (name === "class") assert.match(value, /^(?:task|picture|wide|wider|left|right|center)$/);
      if (name === "start") assert.match(value, /^\d+$/);
    }
    assertHarmless(node.kids);
  }
}

test("nothing hostile becomes more than text", () => {
  for (const text of [HOSTILE, ...HOSTILE.split("\n\n")]) assertHarmless(parse(text));
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
  emphasis: `${"*a **a ".repeat(1_500)}b${" a** a*".repeat(1_500)}`,
  closers: "a_ ".repeat(6_600),
  openers: "_a ".repeat(6_600),
  mismatched: "*a_ ".repeat(5_000),
  threes: `a**b${"c* ".repeat(6_600)}`,
  mixed: "[ a_".repeat(5_000),
  "links in brackets": "[ (](".repeat(4_000),
  "brackets in brackets": `${"[".repeat(10_000)}a${"]".repeat(10_000)}`,
  "images in images": "![[]()".repeat(3_300),
  "open addresses": "[a](<b".repeat(3_300),
  "open titles": '[a](b "'.repeat(2_800),
  labels: `${"[a\\]".repeat(4_000)}]`,
  comments: "<!-- ".repeat(4_000),
  attributes: '<a b="'.repeat(3_300),
  spaced: `<a${" ".repeat(20_000)}`,
  entities: "&a".repeat(10_000),
  emails: "a.".repeat(10_000),
  "at signs": "a@".repeat(10_000),
  "url brackets": `https://a.b/${")".repeat(19_000)}`,
  "url stops": `https://a.b/${".".repeat(19_000)}`,
  tags: "<sub>".repeat(4_000),
  "closed tags": `${"[".repeat(9_000)}${"</sub>".repeat(1_800)}`,
  definitions: Array.from({ length: 2_000 }, (_, i) => `[${i}]: u${i}\n`).join(""),
  references: `${Array.from({ length: 1_500 }, (_, i) => `[${i}] `).join("")}\n\n${Array.from({ length: 1_500 }, (_, i) => `[${i}]: u\n\n`).join("")}`,
  undefined: "[a] ".repeat(5_000),
  notes: `${"[^1] ".repeat(2_000)}\n\n${"[^1]: x\n".repeat(1_200)}`,
  "short rows": `${"|a".repeat(64)}\n${"|-".repeat(64)}\n${"a\n".repeat(9_000)}`,
  "long heads": "| a ".repeat(5_000),
  "many heads": "| a |\n".repeat(3_300),
  "delimiter rows": "|-|\n".repeat(5_000),
  dollars: "$a ".repeat(6_600),
  "more dollars": "$".repeat(20_000),
  "escaped dollars": "$\\$".repeat(6_600),
  "open formulas": "\\( ".repeat(6_600),
  "open blocks": "$$ a\n\n".repeat(2_800),
  "open brackets": "\\[ a\n\n".repeat(2_800),
  details: "<details>".repeat(2_200),
  summaries: "<details>\n<summary>a</summary>\n".repeat(600),
  markdowns: "```md\n```js\n".repeat(1_600),
  tabs: "\t".repeat(20_000),
  "quoted lists": "> - ".repeat(5_000),
  numbers: "1. ".repeat(6_600),
  blanks: "\n".repeat(20_000),
  "blank code": `    a\n${"\n".repeat(19_000)}    b`,
  "blank items": "- a\n\n".repeat(4_000),
  hashes: `# ${"#".repeat(19_000)}`,
  rules: `${"* ".repeat(10_000)}a`,
  base64: `![](data:image/png;base64,${"A".repeat(200_000)}`,
  "many base64": "![](data:image/png;base64,".repeat(800),
  huge: "word ".repeat(40_000),
};

for (const [name, text] of Object.entries(LONG))
  test(`20,000 hostile characters: ${name}`, { timeout: 20_000 }, () => {
    assertHarmless(parse(text));
    // Under the bound up to which inline marks are looked for; and while it arrives.
    assertHarmless(parse(text.slice(0, 19_900)));
    const streamed = new Incremental();
    for (let at = 0; at < text.length; at += 500) {
      streamed.push(text.slice(at, at + 500));
      streamed.tree(true);
    }
    assert.deepEqual(streamed.tree(), parse(text));
  });

const CORPUS = [...EXAMPLES.map(([text]) => text), ...HOSTILE.split("\n\n")].map((text) =>
  text.replaceAll("\r\n", "\n"),
);

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
  const pieces = [
    "\n",
    "\n\n",
    "  ",
    "    ",
    "- ",
    "1. ",
    "2. ",
    "```",
    "```js\n",
    "> ",
    "# ",
    "|",
    "---",
    "|-|-|\n",
    "*",
    "**",
    "_",
    "`",
    "[",
    "](",
    "https://x.y",
    ")",
    "word",
    "単語",
    " ",
    "\\",
    "<br>",
    "~~",
    "\r\n",
    "\t",
    "!",
    "🙂",
  ];
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
