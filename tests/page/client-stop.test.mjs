/** Stopping what `stream` began, in every moment. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CHAT, CREATED, Played, played, stream, tick, token, told } from "./played.mjs";

test("stop ends the loop at once and the generation", async () => {
  played.answers = [CREATED(), 204];
  const answer = stream(CHAT);
  const { chunks, ended } = await told(answer, (source) => source.send(token(1), "s-1"));
  await answer.stop();
  await ended;
  assert.deepEqual(chunks, [token(1)]);
  assert.deepEqual(played.asked[1].slice(0, 2), ["DELETE", "http://gateway/api/streams/s"]);
  assert.equal(played.opened[0].readyState, Played.CLOSED);
});

test("stop before the request was answered ends the loop at once, and the generation when it is known", async () => {
  let created;
  played.answers = [new Promise((resolve) => (created = resolve)), 204];
  const answer = stream(CHAT);
  const { ended } = await told(answer);
  const stopped = answer.stop();
  await ended;
  created(CREATED());
  await stopped;
  assert.deepEqual(
    played.asked.map(([method]) => method),
    ["POST", "DELETE"],
  );
  assert.equal(played.opened.at(-1).readyState, Played.CLOSED);
});

test("stop before the loop asks for nothing", async () => {
  const answer = stream(CHAT);
  await answer.stop();
  for await (const _ of answer) assert.fail();
  assert.deepEqual(played.asked, []);
});

test("stop never rejects", async () => {
  played.answers = [CREATED()];
  const answer = stream(CHAT);
  await told(answer);
  await answer.stop();
});

test("an aborted signal stops the generation, and the loop throws its reason", async () => {
  played.answers = [CREATED(), 204];
  const abort = new AbortController();
  const { ended } = await told(stream(CHAT, { signal: abort.signal }), (source) => source.send(token(1), "s-1"));
  abort.abort();
  await assert.rejects(ended, { name: "AbortError" });
  assert.equal(played.asked[1][0], "DELETE");
});

test("a signal that was aborted before asks for nothing", async () => {
  const { ended } = await told(stream(CHAT, { signal: AbortSignal.abort() }));
  await assert.rejects(ended, { name: "AbortError" });
  assert.deepEqual(played.asked, []);
});

test("leaving the loop stops the generation, unless the answer was complete", async () => {
  for (const [last, methods] of [
    [token(1), ["POST", "DELETE"]],
    [{ done: true }, ["POST"]],
  ]) {
    played.asked = [];
    played.opened = [];
    played.answers = [CREATED(), 204];
    const left = (async () => {
      for await (const _ of stream(CHAT)) break;
    })();
    await tick(2);
    played.opened[0].open();
    played.opened[0].send(last, "s-1");
    await left;
    await tick();
    assert.deepEqual(
      played.asked.map(([method]) => method),
      methods,
    );
  }
});
