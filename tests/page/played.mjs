/** An EventSource and a `fetch` that a test plays, for the client: Node has no EventSource of its own. */
import { afterEach, beforeEach } from "node:test";
import * as client from "../../static/client.js";

export const BASE = "http://gateway";
export const openStream = (url, options) => client.openStream(url, { base: BASE, ...options });
export const stream = (body, options) => client.stream(body, { base: BASE, ...options });

/** What the client did, and what `fetch` answers, taken one by one: a status, or a Response; nothing is no answer. */
export const played = {
  /** @type {Played[]} */ opened: [],
  asked: [],
  keys: [],
  answers: [],
  /** @type {Clock | null} */ clock: null,
};

/** An EventSource whose server is the test. */
export class Played extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  readyState = 0;
  constructor(url) {
    super();
    this.url = url;
    played.opened.push(this);
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
beforeEach(() => {
  played.opened = [];
  played.asked = [];
  played.keys = [];
  played.answers = [];
  globalThis.EventSource = Played;
  played.clock = new Clock();
  globalThis.fetch = async (url, { method = "GET", headers = {}, body, signal } = {}) => {
    played.asked.push([method, url, headers.Authorization ?? "", body && JSON.parse(body)]);
    played.keys.push(headers["Idempotency-Key"]);
    const answer = played.answers.shift();
    if (answer === undefined) throw new TypeError("refused");
    signal?.addEventListener("abort", () => answer.cut?.(signal.reason));
    return typeof answer === "number" ? new Response(null, { status: answer }) : answer;
  };
});
afterEach(() => {
  played.clock.restore();
  delete globalThis.EventSource;
});

/** An event stream by `fetch` whose server is the test. */
export function body() {
  let controller;
  const stream = new ReadableStream({
    start(given) {
      controller = given;
    },
  });
  const response = new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
  const send = (text) => controller.enqueue(typeof text === "string" ? new TextEncoder().encode(text) : text);
  return Object.assign(response, { send, end: () => controller.close(), cut: (reason) => controller.error(reason) });
}

export async function tick(times = 1) {
  for (let n = 0; n < times; n++) await new Promise((resolve) => setImmediate(resolve));
}

/** Reads a stream into a list of types, and keeps the events. */
export function reading(stream) {
  const events = [];
  const ended = (async () => {
    for await (const event of stream) events.push(event);
  })();
  return { events, ended, types: () => events.map((event) => event.type) };
}

export const token = (n) => ({ message: { content: `t${n}` }, done: false });
export const END = { outcome: "complete", events: 2, first_token_ms: 5, elapsed_ms: 9 };
export const META = { v: 1, id: "s", url: "/api/streams/s", kind: "chat", model: "m" };
export const CREATED = () => Response.json({ id: "s", url: "/api/streams/s" }, { status: 201 });
export const CHAT = { model: "m", messages: [{ role: "user", content: "Hi" }] };

/** Reads an answer; once its stream is open, `play` plays the server. */
export async function told(answer, play) {
  const chunks = [];
  const ended = (async () => {
    for await (const chunk of answer) chunks.push(chunk);
  })();
  ended.catch(() => {});
  await tick(2);
  played.opened[0]?.open();
  await play?.(played.opened[0]);
  await tick();
  return { chunks, ended };
}
