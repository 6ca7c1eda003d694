/** "Copy as code": the code says what was sent, whatever the prompt holds. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { SNIPPETS } from "../../static/js/snippets.js";

const ORIGIN = "http://127.0.0.1:8000";
const NASTY = 'It\'s "x"\n`${y}` \\ true null </script>';
const simple = {
  chat: {
    model: "m:1",
    messages: [
      { role: "system", content: "Be brief" },
      { role: "user", content: NASTY },
    ],
    options: { seed: 7 },
    think: true,
  },
  preset: "p",
  variables: { tone: "d'y" },
};
const long = {
  chat: {
    model: "m",
    messages: [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
      { role: "user", content: NASTY, images: ["QUJD".repeat(99)] },
    ],
  },
};

/** Run a JavaScript snippet with everything it may touch; answers what it asked for. */
async function run(code) {
  const asked = [];
  class EventSource {
    constructor(url) {
      asked.push(String(url));
    }
  }
  const fetch = async (url, options) => {
    asked.push(String(url), JSON.parse(options.body));
    return {
      json: async () => ({ url: "/api/streams/s" }),
      body: { getReader: () => ({ read: async () => ({ done: true }) }) },
    };
  };
  const body = `return (async () => { ${code} })()`;
  await new Function("EventSource", "fetch", body)(EventSource, fetch);
  return asked;
}

test("one prompt is one address for EventSource", async () => {
  const [url] = await run(SNIPPETS.EventSource(ORIGIN, simple));
  const { pathname, searchParams } = new URL(url);
  assert.equal(pathname, "/api/chat");
  assert.deepEqual(Object.fromEntries(searchParams), {
    preset: "p",
    "variables.tone": "d'y",
    model: "m:1",
    prompt: NASTY,
    system: "Be brief",
    think: "true",
    "options.seed": "7",
  });
});

test("a conversation is posted first", async () => {
  const [url, body, stream] = await run(SNIPPETS.EventSource(ORIGIN, long));
  assert.equal(url, `${ORIGIN}/api/streams`);
  assert.equal(body.chat.messages[2].content, NASTY);
  assert.deepEqual(body.chat.messages[2].images, ["<base64 image>"]);
  assert.equal(stream, `${ORIGIN}/api/streams/s`);
});

test("fetch posts Ollama's own body", async () => {
  const [url, body] = await run(SNIPPETS.fetch(ORIGIN, simple));
  assert.equal(url, `${ORIGIN}/api/chat?preset=p&variables.tone=d%27y`);
  assert.deepEqual(body, simple.chat);
});

test("curl survives quotes", () => {
  const code = SNIPPETS.curl(ORIGIN, simple);
  const quoted = /-d '((?:[^']|'\\'')*)'\n$/.exec(code)?.[1];
  assert.deepEqual(JSON.parse(quoted.replaceAll("'\\''", "'")), simple.chat);
});

test("Python spells its constants, and only those", () => {
  const code = SNIPPETS.Python(ORIGIN, simple);
  assert.match(code, /"think": True/);
  assert.ok(code.includes(JSON.stringify(NASTY)));
  assert.match(SNIPPETS.Streamlit(ORIGIN, simple), /st\.write_stream\(answer\(\)\)/);
});
