/** Texts for the Markdown tests: GFM's syntax, and answers as models write them. */

/** Tables, strikethrough, task lists and bare addresses; each is rendered by a reference as well. */
export const GFM = [
  "| a | b |\n| - | - |\n| 1 | 2 |",
  "| a | bcd |\n:-: | ---:\nc | d",
  "| p\\|q |\n| --- |\n| x `\\|` y |\n| x **\\|** y |",
  "| a | b |\n| --- | --- |\n| c | d |\n> quote",
  "| a | b |\n| --- | --- |\n| c | d |\nloose\n\nafter",
  "| a | b |\n| --- |\n| c |",
  "| a | b |\n| --- | --- |\n| c |\n| d | e | f |",
  "| a | b |\n| --- | --- |",
  "a | b\n--- | ---\nc | d",
  "text before\n| a | b |\n| --- | --- |\n| c | d |",
  "| a |\n| --- |\n| c |\n\n| d |\n| --- |",
  "| *a* | `b` |\n| :-- | --- |\n| [c](https://c.example) | ~~d~~ |",
  "| a | b |\n| --- | --- |\n- item",
  "| a | b |\n| --- | --- |\n# heading",
  "| a | b |\n| --- | --- |\n```\ncode\n```",
  "- | a | b |\n  | --- | --- |\n  | c | d |",
  "> | a |\n> | --- |\n> | b |",
  "| a | b |\n|:---|---:|\n| | |",
  "|a|b|\n|-|-|\n|1|2|",
  "| a | b |\n| -- - | --- |",
  "a\n:-: |\nb",
  "- [ ] open\n- [x] done",
  "- [x] a\n  - [ ] b\n  - [X] c\n- [ ] d",
  "1. [ ] one\n2. [x] two",
  "- [ ]no space\n- [y] other",
  "- [ ] a\n\n- [x] b",
  "~~gone~~ and ~gone~",
  "~~not\n\nhere~~",
  "~~~not~~~ this",
  "a~~b~~c",
  "~~a *b* c~~",
  "*a ~~b~~ c*",
  "~~a~ b~~",
  "www.a.example",
  "see www.a.example/help for more",
  "see www.a.example. And www.a.example/x.y.",
  "www.a.example/s?q=x+(y)\n\nwww.a.example/s?q=x+(y)))\n\n(www.a.example/s?q=x+(y))\n\n(www.a.example/s?q=x+(y)",
  "www.a.example/s?q=(x))+y",
  "www.a.example/s?q=x&y=z\n\nwww.a.example/s?q=x&copy;",
  "www.a.example/x<y",
  "http://a.example\n\n(see https://b.example/s?q=x+(y))",
  "https://a.example/x_y_z, https://a.example/*x*",
  "**https://a.example** and *https://a.example/x*",
  "https://a.example/?q=1&b=2#frag!",
  "https://localhost:8000/x",
  "me@a.example",
  "me@b+c.example but me+c@b.example",
  "a.b-c_d@a.example\n\na.b-c_d@a.example.\n\na.b-c_d@a.b-\n\na.b-c_d@a.b_",
  "[https://a.example](https://a.example)",
  "[www.a.example](https://b.example)",
  "xhttps://a.example",
  "https://a_b.example and https://a.b_c.example",
  "https://",
  "www.",
  "`www.a.example` <https://a.example>",
];

/** A small generator with a seed, so that a failure can be repeated. */
export function random(seed) {
  return (limit) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * limit);
  };
}

// Answers in the style of models ------------------------------------------------------------------------------

/** What models begin with, write in between and end with: each voice has its own habits. */
const VOICES = [
  {
    name: "cheerful",
    open: ["Sure! Here's how to do it:", "Great question! 🎉 Let's break it down.", "Absolutely! 😊"],
    heading: (text) => `### ${text}`,
    item: (n) => `- **Step ${n}:** `,
    indent: "  ",
    close: ["Let me know if you'd like more detail! 😊", "Would you like an example in another language?"],
  },
  {
    name: "numbered",
    open: ["There are several ways to do this.", "To solve this, follow these steps:"],
    heading: (text) => `## ${text}\n`,
    item: (n) => `${n}. `,
    indent: "   ",
    close: ["In summary, each of these has its place.", "---\n\n**Note:** results may differ."],
  },
  {
    name: "bold headings",
    open: ["Okay, let's look at this in detail.", "Here's a breakdown:"],
    heading: (text) => `**${text}**\n`,
    item: () => "*   ",
    indent: "    ",
    close: ["**In conclusion,** it depends.", "Hope this helps!"],
  },
  {
    name: "reasoner",
    open: ["We need to show that $f$ is continuous.", "Let \\(x\\) be given. We proceed by cases."],
    heading: (text) => `#### ${text}`,
    item: (n) => `${n}) `,
    indent: "  ",
    close: ["$$\\boxed{x = 42}$$", "Therefore the answer is \\(\\boxed{\\frac{1}{2}}\\)."],
  },
  {
    name: "Japanese",
    open: ["はい、以下のように書けます。", "順番に説明します。"],
    heading: (text) => `## ${text}について`,
    item: () => "- **「要点」**：",
    indent: "  ",
    close: ["詳しくは（https://example.org/docs）を見てください。", "以上です。ご不明な点があれば、お知らせください。"],
  },
  {
    name: "terse",
    open: ["Yes.", "Short answer: no."],
    heading: (text) => `${text}\n---`,
    item: () => "+ ",
    indent: "  ",
    close: ["[1]: https://example.org/one\n[2]: <https://example.org/two> 'Two'", "See [docs][1] and [more][2]."],
  },
  {
    name: "Arabic",
    open: ["بالتأكيد، إليك الشرح:", "نعم، **بالطبع**."],
    heading: (text) => `## ${text} بالعربية`,
    item: (n) => `${n}. `,
    indent: "   ",
    close: ["آمل أن يكون هذا مفيدا.", "المصدر: https://example.org"],
  },
  {
    name: "nested documents",
    open: ["Here is the file:", "Below is a complete README you can copy:"],
    heading: (text) => `# ${text}`,
    item: () => "- [ ] ",
    indent: "  ",
    close: ["Save it as `README.md`.", "Then run `git add . && git commit`."],
  },
];
const TOPICS = ["Overview", "Why it works", "Example in C#", "Trade-offs", "Step 1: Set up", "`async` and `await`"];
const SENTENCES = [
  "The *first* call returns a promise, so you have to `await` it.",
  "It costs $5 to $10 per month, or about 2 * 3 * 4 units.",
  "Use snake_case_names and **never** `eval()`; see https://example.org/a_b_c, and (https://example.org).",
  "The file is in C:\\Users\\me\\file.txt and matches \\d+\\.\\w*.",
  "For $n \\to \\infty$ the sum $\\sum_{k=1}^n \\frac{1}{k^2}$ tends to $\\frac{\\pi^2}{6}$.",
  "Press <kbd>Ctrl</kbd>+<kbd>C</kbd>, then H<sub>2</sub>O boils at 100 °C[^1].",
  "これは**重要**です。`print()`を使います。",
  "A long sentence that goes on for quite a while, so that it is wrapped by the model\nand continues on the next line.",
  "If a < b && c > d then <T> is a `List<T>`; 5~10 of them, ~~not 20~~.",
  'Compare [the guide](https://example.org/guide "Guide") with ![a chart](https://example.org/chart.png).',
  "***Important:*** **always _check_ the result**!",
];
const CODE = [
  '```python\ndef greet(name: str) -> str:\n    """Say hello."""\n\n    return f"Hello, {name}!"  # done\n```',
  "```js\nconst a = [1, 2, 3].map((n) => n * 2);\n\nconsole.log(`${a}`);\n```",
  "```bash\ncurl -s http://localhost:11434/api/tags | jq '.models[].name'\n```",
  '```json\n{"a": [1, 2, {"b": null}]}\n```',
  "~~~\nplain\n\ttab\n~~~",
  "```markdown\n# Title\n\n```sh\nls\n```\n\n- item\n```",
  "    indented code\n\n    and more",
  "```diff\n- old\n+ new\n```",
];
const TABLES = [
  "| Name | Value | Note |\n|:-----|------:|:----:|\n| `a` | 1 | **yes** |\n| b \\| c | 2.5 | first<br>second |",
  "Option | Cost\n--- | ---\nA | $5\nB | $10",
];
const MATHS = [
  "$$\n\\int_0^1 x^2 \\, dx = \\frac{1}{3}\n$$",
  "\\[\n\\begin{aligned}\na &= b + c \\\\\n  &= d\n\\end{aligned}\n\\]",
  "$$E = mc^2$$",
  "The matrix\n$$\nA = \\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}\n$$\nis invertible.",
];
const OTHERS = [
  "> **Tip:** keep it simple,\nand lazy.\n>\n> > Quoted twice.",
  "<details>\n<summary>More</summary>\n\nHidden **text**.\n\n</details>",
  "[^1]: A note with `code`.\n    And its second line.",
  "***",
  "First\nSecond  \nThird\\\nFourth",
];

/** One answer of a voice: paragraphs, lists, code, tables and formulas in its manner. */
function answer(pick) {
  const of = (list) => list[pick(list.length)];
  const voice = of(VOICES);
  const list = () => {
    const lines = [];
    for (let n = 1; n <= 2 + pick(3); n++) {
      lines.push(voice.item(n) + of(SENTENCES));
      if (pick(3) === 0) lines.push(`${voice.indent}- ${of(SENTENCES)}`);
      if (pick(4) === 0) lines.push("", of(CODE).replace(/^/gm, voice.indent), "");
      if (pick(5) === 0) lines.push("");
    }
    return lines.join("\n");
  };
  const parts = [of(voice.open)];
  for (let n = 2 + pick(5); n > 0; n--) {
    if (pick(2)) parts.push(voice.heading(of(TOPICS)));
    parts.push(
      of([() => of(SENTENCES), list, list, () => of(CODE), () => of(TABLES), () => of(MATHS), () => of(OTHERS)])(),
    );
  }
  parts.push(of(voice.close));
  return parts.join(pick(6) ? "\n\n" : "\n");
}

const pick = random(20261126);
/** Two hundred answers. */
export const ANSWERS = Array.from({ length: 200 }, () => answer(pick));
