/** `stream` and `resume`: Ollama's chunks as a loop. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { GatewayError, resume } from "../../static/client.js";
import { BASE, CHAT, CREATED, END, META, Played, played, stream, tick, token, told } from "./played.mjs";

test("stream asks, and its loop gives Ollama's chunks", async () => {
  played.answers = [CREATED()];
  const seen = [];
  const options = { preset: "p", variables: { lang: "French" }, onEvent: (event) => seen.push(event.type) };
  const answer = stream(CHAT, options);
  assert.equal(played.asked.length, 0);
  const { chunks, ended } = await told(answer, (source) => {
    source.sendNamed("meta", META);
    source.sendNamed("status", { phase: "loading", elapsed_ms: 1 });
    source.send(token(1), "s-1");
    source.send({ done: true }, "s-2");
    source.sendNamed("end", END, "s-3");
  });
  await ended;
  assert.deepEqual(chunks, [token(1), { done: true }]);
  assert.deepEqual(seen, ["open", "meta", "status", "end"]);
  assert.equal(answer.lastEventId, "s-2");
  const request = { chat: CHAT, preset: "p", variables: { lang: "French" }, resume_window: 30 };
  assert.deepEqual(played.asked, [["POST", "http://gateway/api/streams", "", request]]);
});

test("a body without messages is a completion", async () => {
  played.answers = [CREATED(), 204];
  const answer = stream({ model: "m", prompt: "Hi" }, { resumeWindow: 0 });
  await told(answer);
  assert.deepEqual(played.asked[0][3], { generate: { model: "m", prompt: "Hi" }, resume_window: 0 });
  await answer.stop();
});

test("resume goes on after an event, or reads a stream from its start", async () => {
  for (const [id, url] of [
    ["s-7", "http://gateway/api/streams/s?last_event_id=s-7"],
    ["s", "http://gateway/api/streams/s"],
  ]) {
    played.opened = [];
    played.answers = [204];
    const answer = resume(id, { base: BASE });
    await told(answer);
    assert.equal(played.opened[0].url, url);
    await answer.stop();
  }
});

test("an answer that fails throws what failed", async () => {
  played.answers = [CREATED()];
  const { chunks, ended } = await told(stream(CHAT), (source) => {
    source.send(token(1), "s-1");
    source.send({ error: "too slow", code: "idle_timeout", phase: "generating", retryable: true }, "s-2");
    source.sendNamed("end", { ...END, outcome: "error" }, "s-3");
  });
  await assert.rejects(ended, (error) => {
    assert.ok(error instanceof GatewayError);
    const { name, message, code, phase, retryable, status } = error;
    assert.deepEqual(
      [name, message, code, phase, retryable, status],
      ["GatewayError", "too slow", "idle_timeout", "generating", true, 0],
    );
    return true;
  });
  assert.deepEqual(chunks, [token(1)]);
  assert.equal(played.asked.length, 1);
});

test("a stream that is lost throws too", async () => {
  played.answers = [CREATED(), 204];
  const { ended } = await told(stream(CHAT), (source) => {
    source.cut(Played.CLOSED);
    played.clock.tick(0);
  });
  await assert.rejects(ended, { code: "gone", phase: "connection", retryable: true });
});

const REFUSAL = { error: "no model", code: "model_not_found", phase: "request", retryable: false };
for (const [what, answer, expected, tries = 1] of [
  [
    "the gateway's error",
    () => Response.json(REFUSAL, { status: 404 }),
    { message: "no model", code: "model_not_found", phase: "request", retryable: false, status: 404 },
  ],
  [
    "a proxy's page",
    () => new Response("<html>", { status: 502 }),
    { code: "unreachable", phase: "connection", retryable: true, status: 502 },
    3,
  ],
  ["a proxy's refusal", () => new Response("<html>", { status: 413 }), { code: "unreachable", status: 413 }],
  ["another server's JSON", () => Response.json({ detail: "?" }), { code: "unreachable", status: 200 }],
  ["no answer", () => undefined, { code: "unreachable", message: `No gateway answers at ${BASE}.`, status: 0 }, 3],
])
  test(`a request that is refused throws: ${what}`, async () => {
    played.answers = [answer(), answer(), answer()];
    const { ended } = await told(stream(CHAT));
    const refused = assert.rejects(ended, { name: "GatewayError", ...expected });
    for (let n = 1; n < tries; n++) {
      await tick(3);
      played.clock.tick(1_000);
    }
    await refused;
    assert.equal(played.asked.length, tries);
    const keys = new Set(played.keys);
    assert.ok(keys.size === 1 && !keys.has(undefined), "one Idempotency-Key for all tries");
  });
