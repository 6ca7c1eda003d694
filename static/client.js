/**
 * A client of the Ollama SSE gateway, for browsers and Node; client.d.ts documents it.
 * @import { ErrorPayload, Stream, StreamEvent, StreamOptions } from "./client.js"
 */
export const VERSION = "0.1.0";

const ORIGIN = new URL(import.meta.url).origin;
const RETRY_MS = 1_000;
/** How long a dead gateway is asked again. */
const GIVE_UP_MS = 120_000;
const ONE_SHOT = /\/api\/(chat|generate)\b.*/s;
const SOURCE_EVENTS = ["open", "error", "ping", "meta", "status", "message", "end"];
const PAGE_EVENTS = ["online", "pageshow", "pagehide", "visibilitychange"];
const [CONNECTING, OPEN, CLOSED] = [0, 1, 2];
const UNREACHABLE = "The gateway does not answer.";

export class GatewayError extends Error {
  name = "GatewayError";
  /** @param {Partial<ErrorPayload>} payload */
  constructor({ error = UNREACHABLE, code = "unreachable", phase = "connection", retryable = true }, status = 0) {
    super(error);
    Object.assign(this, { code, phase, retryable, status });
  }
}

/** @param {object} body @param {StreamOptions} [options] */
export const stream = (body, options) => read(async () => openStream(await create(body, options), options), options);

/** @param {string} id @param {StreamOptions} [options] */
export function resume(id, options) {
  const [sid, seq] = id.split("-");
  return read(async () => openStream(`/api/streams/${sid}`, { ...options, lastEventId: seq && id }), options);
}

/** With one key for all tries, a lost answer costs nothing. @param {object} body @param {StreamOptions} [options] */
async function create(body, { base = ORIGIN, key, preset, variables, resumeWindow = 30 } = {}) {
  const ask = { ["messages" in body ? "chat" : "generate"]: body, preset, variables, resume_window: resumeWindow };
  const once = `${Math.random()}${Math.random()}`;
  const headers = { ...authorization(key), "Content-Type": "application/json", "Idempotency-Key": once };
  const request = { method: "POST", headers, body: JSON.stringify(ask) };
  for (let tries = 3; ; ) {
    const response = await fetch(`${base.replace(/\/$/, "")}/api/streams`, request).catch(() => null);
    const answer = await response?.json().catch(() => null);
    if (answer?.id) return `/api/streams/${answer.id}`;
    if (answer || response?.status < 500 || !--tries)
      throw new GatewayError(answer ?? { error: `No gateway answers at ${base}.` }, response?.status);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

/** @param {string} [key] @returns {Record<string, string>} */
const authorization = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

/** The chunks of a stream. @param {() => Promise<Stream>} start @param {StreamOptions} [options] */
function read(start, { signal, onEvent } = {}) {
  /** @type {any} */ let [halt, opening, events] = [];
  /** @type {Promise<void> | undefined} */ let stopped;
  const halted = new Promise((resolve) => (halt = resolve));
  const stop = () => (stopped ??= end());
  async function end() {
    halt();
    events?.close();
    const late = await opening?.catch(() => null);
    // Where the gateway is away, it ends with its resume window.
    await late?.stop().catch(() => {});
    late?.close();
  }

  async function* chunks() {
    signal?.addEventListener("abort", stop);
    try {
      signal?.throwIfAborted();
      if (stopped) return;
      opening = start();
      events = await Promise.race([opening, halted]);
      for await (const event of events ?? []) {
        if (stopped) break;
        if ("error" in event) throw new GatewayError(event);
        if (event.type === "chunk") {
          answer.lastEventId = event.id;
          yield event.chunk;
        } else onEvent?.(event);
      }
      signal?.throwIfAborted();
    } finally {
      signal?.removeEventListener("abort", stop);
      stop();
    }
  }

  const iterator = chunks();
  const answer = { lastEventId: "", stop, [Symbol.asyncIterator]: () => iterator };
  return answer;
}

/** The events of a stream. @param {string} url @param {StreamOptions} [options] */
export function openStream(url, { base = ORIGIN, key, lastEventId = "", watchdog = 20 } = {}) {
  const headers = authorization(key);
  /** @type {StreamEvent[]} */ const queue = [];
  /** `former` is the open connection that `source` is about to replace. @type {any} */
  let [source, former, retry, wake] = [];
  let byFetch = !!key || !globalThis.EventSource;
  let [lastSign, downSince] = [0, 0];
  let terminal = false;
  let closed = false;
  if (url[0] === "/") url = base.replace(/\/$/, "") + url;
  const resumable = () => !ONE_SHOT.test(url);

  function connect() {
    clearTimeout(retry);
    // Only an EventSource's own reconnects send a Last-Event-ID.
    const from = lastEventId ? `${url}?last_event_id=${lastEventId}` : url;
    if (source?.readyState === OPEN) former = source;
    else source?.close();
    lastSign = Date.now();
    source = byFetch ? new FetchSource(from, headers) : new EventSource(from);
    for (const type of SOURCE_EVENTS) source.addEventListener(type, onSource);
  }

  function disconnect() {
    clearTimeout(retry);
    source?.close();
    former?.close();
  }

  /** @param {StreamEvent} event */
  function push(event) {
    if (closed) return;
    queue.push(event);
    if (event.type === "end" || event.type === "lost") close();
    wake?.();
  }

  /** @param {any} code */
  function lose(code, error = UNREACHABLE) {
    terminal = true;
    push({ type: "lost", error, code, phase: "connection", retryable: code !== "unauthorized" });
  }

  /** @param {any} event */
  function onSource({ type, target, data, lastEventId: id }) {
    if (type === "error") {
      if (target === source && !closed) target.readyState === CLOSED ? refused(target.status) : down();
      return;
    }
    lastSign = Date.now();
    downSince = 0;
    if (type === "open") {
      // Only now: with no reader left a generation would be cancelled.
      former?.close();
      push({ type });
    } else if (type === "meta" || type === "status") {
      const sidecar = { ...JSON.parse(data), type };
      if (type === "meta") url = url.replace(ONE_SHOT, `/api/streams/${sidecar.id}`);
      push(sidecar);
    } else if (type !== "ping" && !seen(id)) {
      const value = JSON.parse(data);
      terminal ||= type === "end" || value.done === true || "error" in value || value.status === "success";
      if (type === "end") push({ ...value, type, id });
      else push("error" in value ? { ...value, type: "error", id } : { type: "chunk", id, chunk: value });
    }
  }

  /** Two connections may overlap for a moment; the number in the id tells what was read. @param {string} id */
  function seen(id) {
    const [sid, seq] = id.split("-");
    const [lastSid, lastSeq] = lastEventId.split("-");
    if (sid === lastSid && Number(seq) <= Number(lastSeq)) return true;
    lastEventId = id;
  }

  function down() {
    if (!downSince) push({ type: "reconnecting" });
    downSince ||= Date.now();
    if (Date.now() - downSince > GIVE_UP_MS) lose("unreachable");
  }

  /** @param {any} status 200 when it was cut, 0 without an answer, none from an EventSource */
  function refused(status) {
    if (terminal && status !== 200) return close();
    if (!resumable()) return lose("unreachable");
    if (status === 401 || status === 403) return lose("unauthorized", "The gateway asks for a key.");
    if (status === 204 || status === 404) return lose("gone", "The gateway no longer holds this stream.");
    down();
    if (closed) return;
    // An EventSource that gave up hides why; fetch tells.
    retry = setTimeout(connect, byFetch ? RETRY_MS : 0);
    byFetch = true;
  }

  /** A browser hides pings, so a quiet model is asked again too: that generates nothing. */
  function watch() {
    const quiet = Date.now() - lastSign;
    if (source.readyState === CONNECTING && quiet > watchdog * 250) down();
    if (quiet > watchdog * 1000 && resumable() && !closed) connect();
  }

  /** The page was away: mobile browsers kill its sockets without a word. @param {any} event */
  function onPage({ type, persisted, target }) {
    if (!resumable()) return;
    // An open connection would keep the page out of the back/forward cache.
    if (type === "pagehide") return disconnect();
    // The time asleep says nothing about the gateway.
    if (downSince) downSince = Date.now();
    const stale = source.readyState !== OPEN || Date.now() - lastSign > 5_000;
    if (type === "pageshow" ? persisted : target.visibilityState !== "hidden" && stale) {
      if (persisted) down();
      connect();
    }
  }

  function close() {
    if (closed) return;
    closed = true;
    clearInterval(watching);
    disconnect();
    for (const name of PAGE_EVENTS) globalThis.removeEventListener?.(name, onPage);
    wake?.();
  }

  connect();
  const watching = setInterval(watch, watchdog * 250);
  for (const name of PAGE_EVENTS) globalThis.addEventListener?.(name, onPage);
  return {
    get lastEventId() {
      return lastEventId;
    },
    close,
    async stop() {
      if (!resumable() || terminal) return close();
      const { ok, status } = await fetch(url, { method: "DELETE", headers, keepalive: true });
      if (!ok && status !== 404) throw new GatewayError({}, status);
    },
    async *[Symbol.asyncIterator]() {
      try {
        for (;;) {
          const event = queue.shift();
          if (event) yield event;
          else if (closed) return;
          else await new Promise((resolve) => (wake = resolve));
        }
      } finally {
        close();
      }
    },
  };
}

/** As much of an EventSource as is needed, by fetch: for Node, for a key, and to learn a status. */
class FetchSource extends EventTarget {
  readyState = CONNECTING;
  status = 0;
  #abort = new AbortController();

  /** @param {string} url @param {Record<string, string>} headers */
  constructor(url, headers) {
    super();
    this.#read(fetch(url, { headers: { ...headers, Accept: "text/event-stream" }, signal: this.#abort.signal }));
  }

  close() {
    this.readyState = CLOSED;
    this.#abort.abort();
  }

  /** @param {any} answer */
  async #read(answer) {
    try {
      const { status, headers, body } = await answer;
      this.status = status;
      if (body && headers.get("content-type")?.includes("event-stream")) {
        this.readyState = OPEN;
        this.dispatchEvent(new Event("open"));
        const reader = body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = ""; ; ) {
          const { done, value } = await reader.read();
          if (done) break;
          rest += value;
          if (!value.includes("\n")) continue; // or a long line would be searched again and again
          const blocks = rest.split("\n\n");
          rest = blocks.pop() ?? "";
          for (const block of blocks) this.#dispatch(block);
        }
      }
    } catch {
      // The status tells.
    }
    if (this.readyState === CLOSED) return;
    this.close();
    this.dispatchEvent(new Event("error"));
  }

  /** Fields in lines, as the gateway writes them. @param {string} block */
  #dispatch(block) {
    if (this.readyState === CLOSED) return;
    const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
    const { event = "message", data, id: lastEventId } = fields;
    this.dispatchEvent(new MessageEvent(data ? event : "ping", { data, lastEventId }));
  }
}
