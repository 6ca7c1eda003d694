/** The stream's life, against an EventSource that a test plays: Node has none of its own. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { openStream } from "../../static/js/stream.js";

/** @type {Played[]} */
let opened = [];

/** An EventSource whose server is the test. */
class Played extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  readyState = 0;
  constructor(url) {
    super();
    this.url = new URL(url, "http://gateway/").href;
    opened.push(this);
  }
  close() {
    this.readyState = 2;
  }
  open() {
    this.readyState = 1;
    this.onopen?.(new Event("open"));
  }
  cut(readyState) {
    this.readyState = readyState;
    this.onerror?.(new Event("error"));
  }
  send(data, lastEventId = "") {
    this.onmessage(new MessageEvent("message", { data: JSON.stringify(data), lastEventId }));
  }
  sendNamed(type, data, lastEventId = "") {
    this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(data), lastEventId }));
  }
}

/** Answers of `fetch`, taken one by one. */
let answers = [];
let asked = [];

beforeEach(() => {
  opened = [];
  asked = [];
  answers = [];
  globalThis.EventSource = Played;
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  globalThis.fetch = async (url, options = {}) => {
    asked.push([options.method ?? "GET", url, options.headers?.["Last-Event-ID"] ?? ""]);
    const answer = answers.shift();
    if (answer === undefined) throw new TypeError("refused");
    return { status: answer, ok: answer < 300 };
  };
});
afterEach(() => mock.timers.reset());

const tick = () => new Promise((resolve) => setImmediate(resolve));

/** Reads a stream into a list of types, and keeps the events. */
function reading(stream) {
  const events = [];
  const ended = (async () => {
    for await (const event of stream) events.push(event);
  })();
  return { events, ended, types: () => events.map((event) => event.type) };
}

const token = (n) => ({ message: { content: `t${n}` }, done: false });
const END = { outcome: "complete", events: 2, first_token_ms: 5, elapsed_ms: 9 };

test("a whole stream, read to its end", async () => {
  const { events, ended } = reading(openStream("/api/streams/s"));
  const [source] = opened;
  source.open();
  source.sendNamed("meta", { v: 1, id: "s", url: "/api/streams/s", kind: "chat", model: "m" });
  source.sendNamed("status", { phase: "loading", elapsed_ms: 10 });
  source.send(token(1), "s-1");
  source.send({ done: true }, "s-2");
  source.sendNamed("end", END, "s-3");
  await ended;
  assert.deepEqual(events.map(({ type }) => type), ["open", "meta", "status", "line", "line", "end"]);
  assert.deepEqual(events[3], { type: "line", id: "s-1", line: token(1) });
  assert.equal(source.readyState, Played.CLOSED);
});

test("a reload goes on after the saved id", () => {
  const stream = openStream("/api/streams/s", { lastEventId: "s-7" });
  assert.equal(opened[0].url, "http://gateway/api/streams/s?last_event_id=s-7");
  stream.close();
});

test("a cut that the browser mends is seen once and loses nothing", async () => {
  const stream = openStream("/api/streams/s");
  const { events, types } = reading(stream);
  const [source] = opened;
  source.open();
  source.send(token(1), "s-1");
  source.cut(Played.CONNECTING);
  source.cut(Played.CONNECTING);
  source.open();
  source.send(token(1), "s-1");
  source.send(token(2), "s-2");
  await tick();
  assert.deepEqual(types(), ["open", "line", "reconnecting", "open", "line"]);
  assert.equal(events.at(-1).id, "s-2");
  assert.equal(stream.lastEventId, "s-2");
  assert.equal(opened.length, 1);
  stream.close();
});

test("a proxy that answers 502 for a while is asked again", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  opened[0].open();
  opened[0].send(token(1), "s-1");
  answers = [502, 200];
  opened[0].cut(Played.CLOSED);
  await tick();
  mock.timers.tick(500);
  opened[1].cut(Played.CLOSED);
  await tick();
  mock.timers.tick(1_000);
  assert.equal(opened[2].url, "http://gateway/api/streams/s?last_event_id=s-1");
  opened[2].open();
  await tick();
  assert.deepEqual(types(), ["open", "line", "reconnecting", "open"]);
  assert.deepEqual(asked[0], ["GET", "/api/streams/s", "s-1"]);
  stream.close();
});

for (const [status, code] of [[204, "gone"], [404, "gone"], [401, "unauthorized"], [403, "unauthorized"]])
  test(`a stream refused with ${status} is lost: ${code}`, async () => {
    const { events, ended } = reading(openStream("/api/streams/s"));
    answers = [status];
    opened[0].cut(Played.CLOSED);
    await ended;
    assert.deepEqual(events.at(-1), { type: "lost", code });
  });

test("a gateway that stays away is given up", async () => {
  const { events, ended } = reading(openStream("/api/streams/s"));
  opened[0].open();
  for (let n = 0; n < 60 && events.at(-1)?.type !== "lost"; n++) {
    opened.at(-1).cut(Played.CLOSED);
    await tick();
    mock.timers.tick(5_000);
    await tick();
  }
  await ended;
  assert.deepEqual(events.at(-1), { type: "lost", code: "unreachable" });
});

test("204 after the terminal message is the end, not a loss", async () => {
  const { events, ended } = reading(openStream("/api/streams/s"));
  opened[0].open();
  opened[0].send({ done: true }, "s-1");
  opened[0].cut(Played.CLOSED);
  await ended;
  assert.equal(events.at(-1).type, "line");
  assert.deepEqual(asked, []);
});

test("an error that came before there was a stream has no id, and is read", async () => {
  const stream = openStream("/api/chat?prompt=x");
  const { events } = reading(stream);
  opened[0].open();
  opened[0].send({ error: "no such model", code: "model_not_found" });
  await tick();
  assert.equal(events.at(-1).line.code, "model_not_found");
  opened[0].cut(Played.CLOSED);
  assert.deepEqual(asked, []);
});

test("a one-shot is never sent again before it has a stream", async () => {
  const { events, ended } = reading(openStream("/api/chat?prompt=x"));
  opened[0].cut(Played.CLOSED);
  await ended;
  assert.deepEqual(events, [{ type: "lost", code: "unreachable" }]);
  assert.equal(opened.length, 1);
});

test("a one-shot goes on by its stream's own address", async () => {
  const stream = openStream("/api/chat?prompt=x");
  const { ended } = reading(stream);
  opened[0].open();
  opened[0].sendNamed("meta", { v: 1, id: "s", url: "/api/streams/s", kind: "chat", model: "m" });
  opened[0].send(token(1), "s-1");
  mock.timers.tick(30_000);
  assert.equal(opened[1].url, "http://gateway/api/streams/s?last_event_id=s-1");
  stream.close();
  await ended;
});

test("silence: a new connection is made before the old one is given up", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  opened[0].open();
  opened[0].send(token(1), "s-1");
  mock.timers.tick(25_000);
  assert.equal(opened.length, 2);
  assert.equal(opened[0].readyState, Played.OPEN);
  opened[0].send(token(2), "s-2");
  opened[1].open();
  assert.equal(opened[0].readyState, Played.CLOSED);
  opened[1].send(token(2), "s-2");
  opened[1].send(token(3), "s-3");
  await tick();
  assert.deepEqual(types(), ["open", "line", "line", "open", "line"]);
  stream.close();
});

test("a connection that hangs is shown as such", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  mock.timers.tick(15_000);
  await tick();
  assert.deepEqual(types(), ["reconnecting"]);
  stream.close();
});

test("stop is a DELETE; the terminal event still arrives", async () => {
  const stream = openStream("/api/streams/s");
  const { events, ended } = reading(stream);
  opened[0].open();
  answers = [204];
  await stream.stop();
  assert.deepEqual(asked, [["DELETE", "/api/streams/s", ""]]);
  opened[0].send({ error: "stopped", code: "cancelled" }, "s-1");
  opened[0].sendNamed("end", { ...END, outcome: "cancelled" }, "s-2");
  await ended;
  assert.equal(events.at(-1).outcome, "cancelled");
});

test("stop of a gateway that is away rejects", async () => {
  const stream = openStream("/api/streams/s");
  await assert.rejects(stream.stop());
  stream.close();
});

test("close ends the iteration and leaves no timer", async () => {
  const stream = openStream("/api/streams/s");
  const { types, ended } = reading(stream);
  stream.close();
  await ended;
  mock.timers.tick(600_000);
  assert.deepEqual(types(), []);
  assert.equal(opened.length, 1);
});

test("leaving the loop closes the stream", async () => {
  const stream = openStream("/api/streams/s");
  opened[0].open();
  for await (const event of stream) {
    assert.equal(event.type, "open");
    break;
  }
  assert.equal(opened[0].readyState, Played.CLOSED);
});

test("the back/forward cache: closed on leaving, mended on coming back", async () => {
  const listeners = new Map();
  globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
  globalThis.removeEventListener = (name) => listeners.delete(name);
  try {
    const stream = openStream("/api/streams/s");
    const { types } = reading(stream);
    opened[0].open();
    opened[0].send(token(1), "s-1");
    listeners.get("pagehide")({ type: "pagehide" });
    assert.equal(opened[0].readyState, Played.CLOSED);
    listeners.get("pageshow")({ type: "pageshow", persisted: false });
    assert.equal(opened.length, 1);
    listeners.get("pageshow")({ type: "pageshow", persisted: true });
    opened[1].open();
    // Awake again after a while: the old socket may be dead without a word.
    mock.timers.tick(6_000);
    listeners.get("visibilitychange")({ type: "visibilitychange", target: { visibilityState: "hidden" } });
    assert.equal(opened.length, 2);
    listeners.get("visibilitychange")({ type: "visibilitychange", target: { visibilityState: "visible" } });
    assert.equal(opened.length, 3);
    await tick();
    assert.deepEqual(types(), ["open", "line", "reconnecting", "open"]);
    stream.close();
    assert.equal(listeners.size, 0);
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});
