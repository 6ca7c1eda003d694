/** The client reads a stream: what arrives, in what order, and what is lost. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { END, META, Played, body, openStream, played, reading, tick, token } from "./played.mjs";

test("it is small", () => {
  const text = readFileSync(new URL("../../static/client.js", import.meta.url));
  const size = gzipSync(text, { level: 9 }).length;
  assert.ok(size < 4096, `${size} bytes`);
});

test("a whole stream, read to its end", async () => {
  const { events, ended } = reading(openStream("/api/streams/s"));
  const [source] = played.opened;
  source.open();
  source.sendNamed("meta", META);
  source.sendNamed("status", { phase: "loading", elapsed_ms: 10 });
  source.send(token(1), "s-1");
  source.send({ done: true }, "s-2");
  source.sendNamed("end", END, "s-3");
  await ended;
  assert.deepEqual(events, [
    { type: "open" },
    { type: "meta", ...META },
    { type: "status", phase: "loading", elapsed_ms: 10 },
    { type: "chunk", id: "s-1", chunk: token(1) },
    { type: "chunk", id: "s-2", chunk: { done: true } },
    { type: "end", id: "s-3", ...END },
  ]);
  assert.equal(source.readyState, Played.CLOSED);
});

test("a reload goes on after the saved id", () => {
  const stream = openStream("/api/streams/s", { lastEventId: "s-7" });
  assert.equal(played.opened[0].url, "http://gateway/api/streams/s?last_event_id=s-7");
  stream.close();
});

test("a cut that the browser mends is seen once and loses nothing", async () => {
  const stream = openStream("/api/streams/s");
  const { events, types } = reading(stream);
  const [source] = played.opened;
  source.open();
  source.send(token(1), "s-1");
  source.cut(Played.CONNECTING);
  source.cut(Played.CONNECTING);
  source.open();
  source.send(token(1), "s-1");
  source.send(token(2), "s-2");
  await tick();
  assert.deepEqual(types(), ["open", "chunk", "reconnecting", "open", "chunk"]);
  assert.equal(events.at(-1).id, "s-2");
  assert.equal(stream.lastEventId, "s-2");
  assert.equal(played.opened.length, 1);
  stream.close();
});

test("a proxy that answers 502 for a while is asked again", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  played.opened[0].open();
  played.opened[0].send(token(1), "s-1");
  const mended = body();
  played.answers = [502, 502, mended];
  played.opened[0].cut(Played.CLOSED);
  played.clock.tick(0);
  await tick();
  played.clock.tick(1_000);
  await tick();
  played.clock.tick(1_000);
  await tick();
  assert.deepEqual(
    played.asked,
    Array(3).fill(["GET", "http://gateway/api/streams/s?last_event_id=s-1", "", undefined]),
  );
  mended.send(`data: ${JSON.stringify(token(2))}\nid: s-2\n\n`);
  await tick(2);
  assert.deepEqual(types(), ["open", "chunk", "reconnecting", "open", "chunk"]);
  stream.close();
});

for (const [status, code] of [
  [204, "gone"],
  [404, "gone"],
  [401, "unauthorized"],
  [403, "unauthorized"],
])
  test(`a stream refused with ${status} is lost: ${code}`, async () => {
    const { events, ended } = reading(openStream("/api/streams/s"));
    played.answers = [status];
    played.opened[0].cut(Played.CLOSED);
    played.clock.tick(0);
    await ended;
    assert.equal(events.at(-1).type, "lost");
    assert.equal(events.at(-1).code, code);
    assert.equal(events.at(-1).retryable, code === "gone");
  });

test("a page instead of a stream, as of a captive portal, is no answer", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  played.answers = [new Response("<!doctype html>", { headers: { "Content-Type": "text/html" } })];
  played.opened[0].cut(Played.CLOSED);
  played.clock.tick(0);
  await tick(2);
  assert.deepEqual(types(), ["reconnecting"]);
  stream.close();
});

for (const readyState of [Played.CONNECTING, Played.CLOSED])
  test(`a gateway that stays away is given up (readyState ${readyState})`, async () => {
    const { events, ended } = reading(openStream("/api/streams/s"));
    played.opened[0].open();
    let seconds = 0;
    for (; seconds < 200 && events.at(-1)?.type !== "lost"; seconds++) {
      played.opened.at(-1).cut(readyState);
      played.clock.tick(1_000);
      await tick();
    }
    await ended;
    assert.equal(events.at(-1).code, "unreachable");
    assert.ok(seconds > 110 && seconds < 130, `${seconds} s`);
  });

test("204 after the terminal message is the end, not a loss", async () => {
  const { events, ended } = reading(openStream("/api/streams/s"));
  played.opened[0].open();
  played.opened[0].send({ done: true }, "s-1");
  played.opened[0].cut(Played.CLOSED);
  await ended;
  assert.equal(events.at(-1).type, "chunk");
  assert.deepEqual(played.asked, []);
});

test("an error that came before there was a stream is read, whatever its id", async () => {
  const { events, ended } = reading(openStream("/api/chat?prompt=x", { lastEventId: "s-9" }));
  played.opened[0].open();
  played.opened[0].send({ error: "no such model", code: "model_not_found" }, "other-1");
  played.opened[0].sendNamed("end", { ...END, outcome: "error" }, "other-2");
  await ended;
  assert.deepEqual(events[1], { type: "error", id: "other-1", error: "no such model", code: "model_not_found" });
  assert.deepEqual(played.asked, []);
});

test("a one-shot is never sent again before it has a stream", async () => {
  const { events, ended } = reading(openStream("/api/chat?prompt=x"));
  played.opened[0].cut(Played.CLOSED);
  await ended;
  assert.deepEqual(
    events.map(({ type, code }) => [type, code]),
    [["lost", "unreachable"]],
  );
  assert.equal(played.opened.length, 1);
});

test("a one-shot goes on by its stream's own address, under the path it was asked by", async () => {
  const stream = openStream("/api/chat?prompt=/api/generate", { base: "http://host/below/" });
  const { ended } = reading(stream);
  played.opened[0].open();
  played.opened[0].sendNamed("meta", META);
  played.opened[0].send(token(1), "s-1");
  played.clock.tick(30_000);
  assert.equal(played.opened[1].url, "http://host/below/api/streams/s?last_event_id=s-1");
  stream.close();
  await ended;
});
