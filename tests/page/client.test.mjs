/** The client, against an EventSource and a `fetch` that a test plays: Node has no EventSource of its own. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";
import * as client from "../../static/client.js";

const { GatewayError, resume } = client;
const BASE = "http://gateway";
const openStream = (url, options) => client.openStream(url, { base: BASE, ...options });
const stream = (body, options) => client.stream(body, { base: BASE, ...options });

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
    this.url = url;
    opened.push(this);
  }
  close() {
    this.readyState = 2;
  }
  open() {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
  }
  cut(readyState) {
    this.readyState = readyState;
    this.dispatchEvent(new Event("error"));
  }
  send(data, lastEventId = "") {
    this.sendNamed("message", data, lastEventId);
  }
  sendNamed(type, data, lastEventId = "") {
    this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(data), lastEventId }));
  }
}

const REAL = { setTimeout, setInterval, clearTimeout, clearInterval, now: Date.now };

/** The time, which passes when the test says so. (Node 18 mocks no Date.) */
class Clock {
  now = 1_000_000;
  #timers = new Map();
  #id = 0;
  constructor() {
    const set = (run, ms, every) => this.#timers.set(++this.#id, { run, at: this.now + ms, every }) && this.#id;
    globalThis.setTimeout = (run, ms) => set(run, ms);
    globalThis.setInterval = (run, ms) => set(run, ms, ms);
    globalThis.clearTimeout = globalThis.clearInterval = (id) => this.#timers.delete(id);
    Date.now = () => this.now;
  }
  tick(ms) {
    const end = this.now + ms;
    for (;;) {
      const [id, timer] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!timer || timer.at > end) break;
      this.now = timer.at;
      if (timer.every) timer.at += timer.every;
      else this.#timers.delete(id);
      timer.run();
    }
    this.now = end;
  }
  restore() {
    const { now, ...timers } = REAL;
    Object.assign(globalThis, timers);
    Date.now = now;
  }
}
/** @type {Clock} */
let clock;

/** What `fetch` answers, taken one by one: a status, or a Response; nothing is no answer. */
let answers = [];
let asked = [];

beforeEach(() => {
  opened = [];
  asked = [];
  answers = [];
  globalThis.EventSource = Played;
  clock = new Clock();
  globalThis.fetch = async (url, { method = "GET", headers = {}, body, signal } = {}) => {
    asked.push([method, url, headers.Authorization ?? "", body && JSON.parse(body)]);
    const answer = answers.shift();
    if (answer === undefined) throw new TypeError("refused");
    signal?.addEventListener("abort", () => answer.cut?.(signal.reason));
    return typeof answer === "number" ? new Response(null, { status: answer }) : answer;
  };
});
afterEach(() => {
  clock.restore();
  delete globalThis.EventSource;
});

/** An event stream by `fetch` whose server is the test. */
function body() {
  let controller;
  const stream = new ReadableStream({ start: (given) => void (controller = given) });
  const response = new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
  const send = (text) => controller.enqueue(typeof text === "string" ? new TextEncoder().encode(text) : text);
  return Object.assign(response, { send, end: () => controller.close(), cut: (reason) => controller.error(reason) });
}

async function tick(times = 1) {
  for (let n = 0; n < times; n++) await new Promise((resolve) => setImmediate(resolve));
}

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
const META = { v: 1, id: "s", url: "/api/streams/s", kind: "chat", model: "m" };
const CREATED = () => Response.json({ id: "s", url: "/api/streams/s" }, { status: 201 });
const CHAT = { model: "m", messages: [{ role: "user", content: "Hi" }] };

test("it is small", () => {
  const text = readFileSync(new URL("../../static/client.js", import.meta.url));
  const size = gzipSync(text, { level: 9 }).length;
  assert.ok(size < 4096, `${size} bytes`);
});

// Events -----------------------------------------------------------------------------------------------------

test("a whole stream, read to its end", async () => {
  const { events, ended } = reading(openStream("/api/streams/s"));
  const [source] = opened;
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
  assert.deepEqual(types(), ["open", "chunk", "reconnecting", "open", "chunk"]);
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
  const mended = body();
  answers = [502, 502, mended];
  opened[0].cut(Played.CLOSED);
  clock.tick(0);
  await tick();
  clock.tick(1_000);
  await tick();
  clock.tick(1_000);
  await tick();
  assert.deepEqual(asked, Array(3).fill(["GET", "http://gateway/api/streams/s?last_event_id=s-1", "", undefined]));
  mended.send(`data: ${JSON.stringify(token(2))}\nid: s-2\n\n`);
  await tick(2);
  assert.deepEqual(types(), ["open", "chunk", "reconnecting", "open", "chunk"]);
  stream.close();
});

for (const [status, code] of [[204, "gone"], [404, "gone"], [401, "unauthorized"], [403, "unauthorized"]])
  test(`a stream refused with ${status} is lost: ${code}`, async () => {
    const { events, ended } = reading(openStream("/api/streams/s"));
    answers = [status];
    opened[0].cut(Played.CLOSED);
    clock.tick(0);
    await ended;
    assert.equal(events.at(-1).type, "lost");
    assert.equal(events.at(-1).code, code);
    assert.equal(events.at(-1).retryable, code === "gone");
  });

test("a page instead of a stream, as of a captive portal, is no answer", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  answers = [new Response("<!doctype html>", { headers: { "Content-Type": "text/html" } })];
  opened[0].cut(Played.CLOSED);
  clock.tick(0);
  await tick(2);
  assert.deepEqual(types(), ["reconnecting"]);
  stream.close();
});

for (const readyState of [Played.CONNECTING, Played.CLOSED])
  test(`a gateway that stays away is given up (readyState ${readyState})`, async () => {
    const { events, ended } = reading(openStream("/api/streams/s"));
    opened[0].open();
    let seconds = 0;
    for (; seconds < 200 && events.at(-1)?.type !== "lost"; seconds++) {
      opened.at(-1).cut(readyState);
      clock.tick(1_000);
      await tick();
    }
    await ended;
    assert.equal(events.at(-1).code, "unreachable");
    assert.ok(seconds > 110 && seconds < 130, `${seconds} s`);
  });

test("204 after the terminal message is the end, not a loss", async () => {
  const { events, ended } = reading(openStream("/api/streams/s"));
  opened[0].open();
  opened[0].send({ done: true }, "s-1");
  opened[0].cut(Played.CLOSED);
  await ended;
  assert.equal(events.at(-1).type, "chunk");
  assert.deepEqual(asked, []);
});

test("an error that came before there was a stream is read, whatever its id", async () => {
  const { events, ended } = reading(openStream("/api/chat?prompt=x", { lastEventId: "s-9" }));
  opened[0].open();
  opened[0].send({ error: "no such model", code: "model_not_found" }, "other-1");
  opened[0].sendNamed("end", { ...END, outcome: "error" }, "other-2");
  await ended;
  assert.deepEqual(events[1], { type: "error", id: "other-1", error: "no such model", code: "model_not_found" });
  assert.deepEqual(asked, []);
});

test("a one-shot is never sent again before it has a stream", async () => {
  const { events, ended } = reading(openStream("/api/chat?prompt=x"));
  opened[0].cut(Played.CLOSED);
  await ended;
  assert.deepEqual(events.map(({ type, code }) => [type, code]), [["lost", "unreachable"]]);
  assert.equal(opened.length, 1);
});

test("a one-shot goes on by its stream's own address, under the path it was asked by", async () => {
  const stream = openStream("/api/chat?prompt=/api/generate", { base: "http://host/below/" });
  const { ended } = reading(stream);
  opened[0].open();
  opened[0].sendNamed("meta", META);
  opened[0].send(token(1), "s-1");
  clock.tick(30_000);
  assert.equal(opened[1].url, "http://host/below/api/streams/s?last_event_id=s-1");
  stream.close();
  await ended;
});

test("silence: a new connection is made before the old one is given up", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  opened[0].open();
  opened[0].send(token(1), "s-1");
  clock.tick(25_000);
  assert.equal(opened.length, 2);
  assert.equal(opened[0].readyState, Played.OPEN);
  opened[0].send(token(2), "s-2");
  opened[1].open();
  assert.equal(opened[0].readyState, Played.CLOSED);
  opened[1].send(token(2), "s-2");
  opened[1].send(token(3), "s-3");
  await tick();
  assert.deepEqual(types(), ["open", "chunk", "chunk", "open", "chunk"]);
  stream.close();
});

test("a stream that can still be read is not lost when no other connection can be had", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  opened[0].open();
  for (let n = 1; n <= 10; n++) {
    clock.tick(30_000);
    opened[0].send(token(n), `s-${n}`);
  }
  await tick();
  assert.equal(types().filter((type) => type === "chunk").length, 10);
  assert.ok(!types().includes("lost"));
  stream.close();
});

test("the watchdog's patience can be chosen", () => {
  const stream = openStream("/api/streams/s", { watchdog: 4 });
  opened[0].open();
  clock.tick(4_000);
  assert.equal(opened.length, 1);
  clock.tick(1_000);
  assert.equal(opened.length, 2);
  stream.close();
});

test("a connection that hangs is shown as such", async () => {
  const stream = openStream("/api/streams/s");
  const { types } = reading(stream);
  clock.tick(15_000);
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
  assert.deepEqual(asked, [["DELETE", "http://gateway/api/streams/s", "", undefined]]);
  opened[0].send({ error: "stopped", code: "cancelled" }, "s-1");
  opened[0].sendNamed("end", { ...END, outcome: "cancelled" }, "s-2");
  await ended;
  assert.equal(events.at(-1).outcome, "cancelled");
});

test("stop of a gateway that is away rejects", async () => {
  const stream = openStream("/api/streams/s");
  await assert.rejects(stream.stop());
  answers = [502];
  await assert.rejects(stream.stop(), { code: "unreachable", status: 502 });
  stream.close();
});

test("close ends the iteration and leaves no timer", async () => {
  const stream = openStream("/api/streams/s");
  const { types, ended } = reading(stream);
  stream.close();
  await ended;
  clock.tick(600_000);
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
    opened[0].open();
    opened[0].send(token(1), "s-1");
    listeners.get("pagehide")({ type: "pagehide" });
    assert.equal(opened[0].readyState, Played.CLOSED);
    listeners.get("pageshow")({ type: "pageshow", persisted: false });
    assert.equal(opened.length, 1);
    listeners.get("pageshow")({ type: "pageshow", persisted: true });
    opened[1].open();
    // Awake again after a while: the old socket may be dead without a word.
    clock.tick(6_000);
    listeners.get("visibilitychange")({ type: "visibilitychange", target: { visibilityState: "hidden" } });
    assert.equal(opened.length, 2);
    listeners.get("visibilitychange")({ type: "visibilitychange", target: { visibilityState: "visible" } });
    assert.equal(opened.length, 3);
    await tick();
    assert.deepEqual(types(), ["open", "chunk", "reconnecting", "open"]);
    stream.close();
  }));

test("an hour asleep is not an hour without a gateway", () =>
  onAPage(async (listeners) => {
    const stream = openStream("/api/streams/s");
    const { types } = reading(stream);
    opened[0].open();
    opened[0].cut(Played.CONNECTING);
    clock.now += 3_600_000;
    listeners.get("online")({ type: "online", target: {} });
    opened[1].cut(Played.CONNECTING);
    opened[1].open();
    await tick();
    assert.deepEqual(types(), ["open", "reconnecting", "open"]);
    stream.close();
  }));

// The reader by fetch ------------------------------------------------------------------------------------------

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
    answers = [response];
    const { events, ended } = reading(openStream("/api/streams/s"));
    for (let at = 0; at < bytes.length; at += size) response.send(bytes.slice(at, at + size));
    await ended;
    assert.deepEqual(events, EVENTS, `pieces of ${size}`);
  }
});

test("a cut by fetch goes on after the last whole event", async () => {
  delete globalThis.EventSource;
  const [first, second] = [body(), body()];
  answers = [first, second];
  const { events, ended } = reading(openStream("/api/streams/s"));
  first.send(TEXT.slice(0, TEXT.indexOf("id: s-2")));
  await tick(3);
  first.cut();
  await tick(3);
  clock.tick(1_000);
  second.send(TEXT.slice(TEXT.indexOf('data: {"done"')));
  await ended;
  assert.equal(asked[1][1], "http://gateway/api/streams/s?last_event_id=s-1");
  assert.deepEqual(events, [...EVENTS.slice(0, 3), { type: "reconnecting" }, { type: "open" }, ...EVENTS.slice(3)]);
});

test("with a key all is asked by fetch, which can send it", async () => {
  const response = body();
  answers = [CREATED(), response, 204];
  response.send(TEXT.slice(0, TEXT.indexOf("data: {\"done")));
  for await (const _ of stream(CHAT, { key: "secret" })) break;
  await tick();
  assert.deepEqual(
    asked.map(([method, , authorization]) => [method, authorization]),
    [["POST", "Bearer secret"], ["GET", "Bearer secret"], ["DELETE", "Bearer secret"]],
  );
  assert.equal(opened.length, 0);
});

// Chunks -------------------------------------------------------------------------------------------------------

/** Reads an answer; once its stream is open, `play` plays the server. */
async function told(answer, play) {
  const chunks = [];
  const ended = (async () => {
    for await (const chunk of answer) chunks.push(chunk);
  })();
  ended.catch(() => {});
  await tick(2);
  opened[0]?.open();
  await play?.(opened[0]);
  await tick();
  return { chunks, ended };
}

test("stream asks, and its loop gives Ollama's chunks", async () => {
  answers = [CREATED()];
  const seen = [];
  const options = { preset: "p", variables: { lang: "French" }, onEvent: (event) => seen.push(event.type) };
  const answer = stream(CHAT, options);
  assert.equal(asked.length, 0);
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
  assert.deepEqual(asked, [["POST", "http://gateway/api/streams", "", request]]);
});

test("a body without messages is a completion", async () => {
  answers = [CREATED(), 204];
  const answer = stream({ model: "m", prompt: "Hi" }, { resumeWindow: 0 });
  await told(answer);
  assert.deepEqual(asked[0][3], { generate: { model: "m", prompt: "Hi" }, resume_window: 0 });
  await answer.stop();
});

test("resume goes on after an event, or reads a stream from its start", async () => {
  for (const [id, url] of [["s-7", "http://gateway/api/streams/s?last_event_id=s-7"], ["s", "http://gateway/api/streams/s"]]) {
    opened = [];
    answers = [204];
    const answer = resume(id, { base: BASE });
    await told(answer);
    assert.equal(opened[0].url, url);
    await answer.stop();
  }
});

test("an answer that fails throws what failed", async () => {
  answers = [CREATED()];
  const { chunks, ended } = await told(stream(CHAT), (source) => {
    source.send(token(1), "s-1");
    source.send({ error: "too slow", code: "idle_timeout", phase: "generating", retryable: true }, "s-2");
    source.sendNamed("end", { ...END, outcome: "error" }, "s-3");
  });
  await assert.rejects(ended, (error) => {
    assert.ok(error instanceof GatewayError);
    const { name, message, code, phase, retryable, status } = error;
    assert.deepEqual([name, message, code, phase, retryable, status], ["GatewayError", "too slow", "idle_timeout", "generating", true, 0]);
    return true;
  });
  assert.deepEqual(chunks, [token(1)]);
  assert.equal(asked.length, 1);
});

test("a stream that is lost throws too", async () => {
  answers = [CREATED(), 204];
  const { ended } = await told(stream(CHAT), (source) => {
    source.cut(Played.CLOSED);
    clock.tick(0);
  });
  await assert.rejects(ended, { code: "gone", phase: "connection", retryable: true });
});

const REFUSAL = { error: "no model", code: "model_not_found", phase: "request", retryable: false };
for (const [what, answer, expected] of [
  ["the gateway's error", () => Response.json(REFUSAL, { status: 404 }), { message: "no model", code: "model_not_found", phase: "request", retryable: false, status: 404 }],
  ["a proxy's page", () => new Response("<html>", { status: 502 }), { code: "unreachable", phase: "connection", retryable: true, status: 502 }],
  ["another server's JSON", () => Response.json({ detail: "?" }), { code: "unreachable", status: 200 }],
  ["no answer", () => undefined, { code: "unreachable", message: `No gateway answers at ${BASE}.`, status: 0 }],
])
  test(`a request that is refused throws: ${what}`, async () => {
    answers = [answer()];
    const { ended } = await told(stream(CHAT));
    await assert.rejects(ended, { name: "GatewayError", ...expected });
    assert.equal(asked.length, 1);
  });

test("stop ends the loop at once and the generation", async () => {
  answers = [CREATED(), 204];
  const answer = stream(CHAT);
  const { chunks, ended } = await told(answer, (source) => source.send(token(1), "s-1"));
  await answer.stop();
  await ended;
  assert.deepEqual(chunks, [token(1)]);
  assert.deepEqual(asked[1].slice(0, 2), ["DELETE", "http://gateway/api/streams/s"]);
  assert.equal(opened[0].readyState, Played.CLOSED);
});

test("stop before the request was answered ends the loop at once, and the generation when it is known", async () => {
  let created;
  answers = [new Promise((resolve) => (created = resolve)), 204];
  const answer = stream(CHAT);
  const { ended } = await told(answer);
  const stopped = answer.stop();
  await ended;
  created(CREATED());
  await stopped;
  assert.deepEqual(asked.map(([method]) => method), ["POST", "DELETE"]);
  assert.equal(opened.at(-1).readyState, Played.CLOSED);
});

test("stop before the loop asks for nothing", async () => {
  const answer = stream(CHAT);
  await answer.stop();
  for await (const _ of answer) assert.fail();
  assert.deepEqual(asked, []);
});

test("stop never rejects", async () => {
  answers = [CREATED()];
  const answer = stream(CHAT);
  await told(answer);
  await answer.stop();
});

test("an aborted signal stops the generation, and the loop throws its reason", async () => {
  answers = [CREATED(), 204];
  const abort = new AbortController();
  const { ended } = await told(stream(CHAT, { signal: abort.signal }), (source) => source.send(token(1), "s-1"));
  abort.abort();
  await assert.rejects(ended, { name: "AbortError" });
  assert.equal(asked[1][0], "DELETE");
});

test("a signal that was aborted before asks for nothing", async () => {
  const { ended } = await told(stream(CHAT, { signal: AbortSignal.abort() }));
  await assert.rejects(ended, { name: "AbortError" });
  assert.deepEqual(asked, []);
});

test("leaving the loop stops the generation, unless the answer was complete", async () => {
  for (const [last, methods] of [[token(1), ["POST", "DELETE"]], [{ done: true }, ["POST"]]]) {
    asked = [];
    opened = [];
    answers = [CREATED(), 204];
    const left = (async () => {
      for await (const _ of stream(CHAT)) break;
    })();
    await tick(2);
    opened[0].open();
    opened[0].send(last, "s-1");
    await left;
    await tick();
    assert.deepEqual(asked.map(([method]) => method), methods);
  }
});
