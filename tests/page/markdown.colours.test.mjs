/** Colours of code: the parts that they mark, that being fed by pieces changes nothing, and that no text is lost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { painter } from "../../static/js/markdown/colours.js";
import { random } from "./samples.mjs";

/** The pieces of all lots. */
const pieces = (lots) => lots.flatMap(({ kids }) => kids);
/** What has a colour, as "class:text". */
const marked = (lots) =>
  pieces(lots).flatMap((piece) => (typeof piece === "object" ? [`${piece.attrs.class}:${piece.kids[0]}`] : []));
const textOf = (lots) =>
  pieces(lots)
    .map((piece) => (typeof piece === "string" ? piece : piece.kids[0]))
    .join("");

const EXAMPLES = [
  ["python", "def f(x): return 'a' # b", ["keyword:def", "name:f", "keyword:return", "string:'a'", "comment:# b"]],
  ["py", '"""a\nb""" + 1', ['string:"""a\nb"""', "number:1"]],
  ["js", "const a = `b\nc`; // d", ["keyword:const", "template:`b\nc`", "comment:// d"]],
  [
    "TypeScript",
    "let a: string = f(/* b\nc */ 1)",
    ["keyword:let", "keyword:string", "name:f", "comment:/* b\nc */", "number:1"],
  ],
  ["bash", 'echo "$A" --all $B # c', ["keyword:echo", 'string:"$A"', "name:--all", "name:$B", "comment:# c"]],
  ["sh", "a=b#c", []],
  ["json", '{"a": [1, true, "b"]}', ['name:"a"', "number:1", "keyword:true", 'string:"b"']],
  ["yaml", "a: 'b' # c\n- d: true", ["name:a", "string:'b'", "comment:# c", "name:- d", "keyword:true"]],
  [
    "html",
    '<a href="b">c</a><!-- d\n-->',
    ["keyword:<a", "name:href", 'string:"b"', "keyword:>", "keyword:</a", "keyword:>", "comment:<!-- d\n-->"],
  ],
  ["css", ".a { color: red; } /* b */", ["name:.a", "name:color", "comment:/* b */"]],
  [
    "sql",
    "SELECT a FROM b WHERE c = 'd' -- e",
    ["keyword:SELECT", "keyword:FROM", "keyword:WHERE", "string:'d'", "comment:-- e"],
  ],
  ["go", "func f() {}", ["keyword:func", "name:f"]],
  ["rust", "fn f() { println!(1); }", ["keyword:fn", "name:f", "name:println!", "number:1"]],
  ["c++", "#include <a>\nint f();", ["keyword:#include", "keyword:int", "name:f"]],
  ["java", "class Alpha { }", ["keyword:class", "name:Alpha"]],
  ["diff", "@@ 1 @@\n-a\n+b\n c", ["keyword:@@ 1 @@", "removed:-a", "added:+b"]],
  ["dockerfile", "FROM a AS b\nRUN c", ["keyword:FROM", "keyword:AS", "keyword:RUN"]],
];
for (const [language, code, expected] of EXAMPLES)
  test(`${language}: ${JSON.stringify(code)}`, () => assert.deepEqual(marked(painter(language).paint(code)), expected));

test("an unknown language has no colours", () => {
  for (const name of ["", "text", "constructor", "brainfuck"]) assert.equal(painter(name), undefined);
});

test("fed by pieces it has the colours that it has as a whole, and its text", () => {
  const pieces = EXAMPLES.flatMap(([, code]) => code.match(/\w+|\s|[^\w\s]+/g)).concat([
    "\n",
    '"',
    "'",
    "`",
    "/*",
    "*/",
    '"""',
  ]);
  const pick = random(5);
  for (let round = 0; round < 300; round++) {
    const [language] = EXAMPLES[pick(EXAMPLES.length)];
    const fed = painter(language);
    let text = "";
    for (let n = 0; n < 40; n++) {
      text += pieces[pick(pieces.length)];
      const nodes = fed.paint(text);
      assert.equal(textOf(nodes), text);
      assert.deepEqual(nodes, painter(language).paint(text), `${language} ${JSON.stringify(text)}`);
    }
  }
});

test("complete lines are painted once, and in lots, which are laid out once", () => {
  const fed = painter("js");
  const [first] = pieces(fed.paint("let a;\nlet"));
  assert.equal(pieces(fed.paint("let a;\nlet b;"))[0], first);
  const lines = "f(1); // done\n".repeat(500);
  const before = fed.paint(lines);
  const after = fed.paint(`${lines}let`);
  assert.ok(before.length > 5);
  assert.equal(
    after.findIndex((lot, i) => lot !== before[i]),
    before.length - 1,
  );
  assert.equal(textOf(after), `${lines}let`);
});

test("another text than before is painted from its beginning", () => {
  const fed = painter("js");
  fed.paint("/* a\nb");
  assert.deepEqual(marked(fed.paint("let\nb")), ["keyword:let"]);
});

test("hostile code is painted in bounded time, with classes that are known", { timeout: 60_000 }, () => {
  for (const [language] of EXAMPLES)
    for (const piece of [
      '"',
      "'",
      "\\",
      "/*",
      "`",
      "<",
      "<!--",
      "a",
      "a:",
      " - ",
      "$",
      "${",
      "1",
      "#",
      "@",
      "\n",
      "--",
      "[",
      "a!",
      "\t",
    ])
      for (const kind of marked(painter(language).paint(piece.repeat(40_000 / piece.length)))) {
        assert.match(kind, /^(?:keyword|string|template|number|name|comment|added|removed):/);
      }
});
