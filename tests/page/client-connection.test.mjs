/** The client's connection: silence, sleep, the back/forward cache, stop and close. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { END, Played, openStream, played, reading, tick, token } from "./played.mjs";

test("silence: a new connection is made before the old one is given up", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  played.opened[0].open();
  played.opened[0].send(token(1), "s-1");
  played.clock.tick(25_000);
  assert.equal(played.opened.length, 2);
  assert.equal(played.opened[0].readyState, Played.OPEN);
  played.opened[0].send(token(2), "s-2");
  played.opened[1].open();
  assert.equal(played.opened[0].readyState, Played.CLOSED);
  played.opened[1].send(token(2), "s-2");
  played.opened[1].send(token(3), "s-3");
  await tick();
  assert.deepEqual(types(), ["open", "chunk", "chunk", "open", "chunk"]);
  stream.close();
});

test("closed while the old connection and the new one overlap, both are closed", () => {
  const stream = openStream("/api/streams/s");
  played.opened[0].open();
  played.clock.tick(25_000);
  assert.deepEqual(
    played.opened.map(({ readyState }) => readyState),
    [Played.OPEN, Played.CONNECTING],
  );
  stream.close();
  assert.deepEqual(
    played.opened.map(({ readyState }) => readyState),
    [Played.CLOSED, Played.CLOSED],
  );
});

test("a stream that can still be read is not lost when no other connection can be had", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  played.opened[0].open();
  for (let n = 1; n <= 10; n++) {
    played.clock.tick(30_000);
    played.opened[0].send(token(n), `s-${n}`);
  }
  await tick();
  assert.equal(types().filter((type) => type === "chunk").length, 10);
  assert.ok(!types().includes("lost"));
  stream.close();
});

test("the watchdog's patience can be chosen", () => {
  const stream = openStream("/api/streams/s", { watchdog: 4 });
  played.opened[0].open();
  played.clock.tick(4_000);
  assert.equal(played.opened.length, 1);
  played.clock.tick(1_000);
  assert.equal(played.opened.length, 2);
  stream.close();
});

test("a connection that hangs is shown as such", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  played.clock.tick(15_000);
  await tick();
  assert.deepEqual(types(), ["reconnecting"]);
  stream.close();
});

test("stop is a DELETE; the terminal event still arrives", async () => {
  const stream = openStream("/api/streams/s");
  const { events, ended } = reading(stream);
  played.opened[0].open();
  played.answers = [204];
  await stream.stop();
  assert.deepEqual(played.asked, [["DELETE", "http://gateway/api/streams/s", "", undefined]]);
  played.opened[0].send({ error: "stopped", code: "cancelled" }, "s-1");
  played.opened[0].sendNamed("end", { ...END, outcome: "cancelled" }, "s-2");
  await ended;
  assert.equal(events.at(-1).outcome, "cancelled");
});

test("stop of a gateway that is away rejects", async () => {
  const stream = openStream("/api/streams/s");
  await assert.rejects(stream.stop());
  played.answers = [502];
  await assert.rejects(stream.stop(), { code: "unreachable", status: 502 });
  stream.close();
});

test("close ends the iteration and leaves no timer", async () => {
  const stream = openStream("/api/streams/s");
  const { types, ended } = reading(stream);
  stream.close();
  await ended;
  played.clock.tick(600_000);
  assert.deepEqual(types(), []);
  assert.equal(played.opened.length, 1);
});

test("leaving the loop closes the stream", async () => {
  const stream = openStream("/api/streams/s");
  played.opened[0].open();
  for await (const event of stream) {
    assert.equal(event.type, "open");
    break;
  }
  assert.equal(played.opened[0].readyState, Played.CLOSED);
});

/** @param {(listeners: Map<string, (event: object) => void>) => Promise<void>} play */
async function onAPage(play) {
  const listeners = new Map();
  globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
  globalThis.removeEventListener = (name) => listeners.delete(name);
  try {
    await play(listeners);
    assert.equal(listeners.size, 0);
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
}

test("the back/forward cache: closed on leaving, mended on coming back", () =>
  onAPage(async (listeners) => {
    const stream = openStream("/api/streams/s");
    const { types } = reading(stream);
    played.opened[0].open();
    played.opened[0].send(token(1), "s-1");
    listeners.get("pagehide")({ type: "pagehide" });
    assert.equal(played.opened[0].readyState, Played.CLOSED);
    listeners.get("pageshow")({ type: "pageshow", persisted: false });
    assert.equal(played.opened.length, 1);
    listeners.get("pageshow")({ type: "pageshow", persisted: true });
    played.opened[1].open();
    // Awake again after a while: the old socket may be dead without a word.
    played.clock.tick(6_000);
    listeners.get("visibilitychange")({ type: "visibilitychange", target: { visibilityState: "hidden" } });
    assert.equal(played.opened.length, 2);
    listeners.get("visibilitychange")({ type: "visibilitychange", target: { visibilityState: "visible" } });
    assert.equal(played.opened.length, 3);
    await tick();
    assert.deepEqual(types(), ["open", "chunk", "reconnecting", "open"]);
    stream.close();
  }));

test("a page that is back before the next try makes that try itself", () =>
  onAPage(async (listeners) => {
    const stream = openStream("/api/streams/s");
    played.opened[0].cut(Played.CLOSED);
    listeners.get("online")({ type: "online", target: {} });
    await tick(2);
    const tries = played.asked.length;
    played.clock.tick(500);
    await tick(2);
    assert.equal(played.asked.length, tries);
    stream.close();
  }));

test("an hour asleep is not an hour without a gateway", () =>
  onAPage(async (listeners) => {
    const stream = openStream("/api/streams/s");
    const { types } = reading(stream);
    played.opened[0].open();
    played.opened[0].cut(Played.CONNECTING);
    played.clock.now += 3_600_000;
    listeners.get("online")({ type: "online", target: {} });
    played.opened[1].cut(Played.CONNECTING);
    played.opened[1].open();
    await tick();
    assert.deepEqual(types(), ["open", "reconnecting", "open"]);
    stream.close();
  }));
