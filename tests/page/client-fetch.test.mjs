/** The client without EventSource, or with a key: by fetch. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CHAT, CREATED, META, body, openStream, played, reading, stream, tick } from "./played.mjs";

const TEXT =
  'retry: 1000\n\nevent: meta\ndata: {"v":1,"id":"s","url":"/api/streams/s","kind":"chat","model":"m"}\n\n: ping\n\n' +
  'data: {"message":{"content":"é 👩‍👧 \u2028 : data: x"},"done":false}\nid: s-1\n\n' +
  'data: {"done":true}\nid: s-2\n\nevent: end\ndata: {"outcome":"complete"}\nid: s-3\n\n';
const EVENTS = [
  { type: "open" },
  { type: "meta", ...META },
  { type: "chunk", id: "s-1", chunk: { message: { content: "é 👩‍👧 \u2028 : data: x" }, done: false } },
  { type: "chunk", id: "s-2", chunk: { done: true } },
  { type: "end", id: "s-3", outcome: "complete" },
];

test("without EventSource the stream is read by fetch, cut anywhere into pieces", async () => {
  delete globalThis.EventSource;
  const bytes = new TextEncoder().encode(TEXT);
  for (let size = 1; size < 40; size++) {
    const response = body();
    played.answers = [response];
    const { events, ended } = reading(openStream("/api/streams/s"));
    for (let at = 0; at < bytes.length; at += size) response.send(bytes.slice(at, at + size));
    await ended;
    assert.deepEqual(events, EVENTS, `pieces of ${size}`);
  }
});

test("a cut by fetch goes on after the last whole event", async () => {
  delete globalThis.EventSource;
  const [first, second] = [body(), body()];
  played.answers = [first, second];
  const { events, ended } = reading(openStream("/api/streams/s"));
  first.send(TEXT.slice(0, TEXT.indexOf("id: s-2")));
  await tick(3);
  first.cut();
  await tick(3);
  played.clock.tick(1_000);
  second.send(TEXT.slice(TEXT.indexOf('data: {"done"')));
  await ended;
  assert.equal(played.asked[1][1], "http://gateway/api/streams/s?last_event_id=s-1");
  assert.deepEqual(events, [...EVENTS.slice(0, 3), { type: "reconnecting" }, { type: "open" }, ...EVENTS.slice(3)]);
});

test("with a key all is asked by fetch, which can send it", async () => {
  const response = body();
  played.answers = [CREATED(), response, 204];
  response.send(TEXT.slice(0, TEXT.indexOf('data: {"done')));
  for await (const _ of stream(CHAT, { key: "secret" })) break;
  await tick();
  assert.deepEqual(
    played.asked.map(([method, , authorization]) => [method, authorization]),
    [
      ["POST", "Bearer secret"],
      ["GET", "Bearer secret"],
      ["DELETE", "Bearer secret"],
    ],
  );
  assert.equal(played.opened.length, 0);
});
