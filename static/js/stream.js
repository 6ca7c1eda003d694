/**
 * The life of one stream: read it through EventSource, survive cuts, stop it.
 *
 * Knows the gateway's events and nothing of the page. What `for await` yields, in order:
 * `open` and `reconnecting` (the connection), `meta`, `status`, `line` (Ollama's own JSON, or the error
 * the gateway ends with), and last `end` or, when the stream cannot be had any more, `lost`.
 *
 * A reconnect never runs the model again: it asks for what follows the last id that was read.
 */

/**
 * @typedef {{type: "open"}
 *   | {type: "reconnecting"}
 *   | {type: "meta", id: string, url: string, kind: string, model: string}
 *   | {type: "status", phase: string, position?: number, elapsed_ms: number}
 *   | {type: "line", id: string, line: any}
 *   | {type: "end", id: string, outcome: "complete" | "cancelled" | "error", events: number,
 *      first_token_ms: number | null, elapsed_ms: number}
 *   | {type: "lost", code: "gone" | "unauthorized" | "unreachable"}} StreamEvent
 */

/** Silence after which a connection is not trusted. Comment pings keep proxies awake but cannot be seen
 * from JavaScript, so a quiet model is asked again too: that costs one request and no generation. */
const SILENCE_MS = 20_000;
/** How long a dead gateway is asked again before the reader is told that the stream is lost. */
const GIVE_UP_MS = 120_000;
const MAX_BACKOFF_MS = 5_000;
const PAGE_EVENTS = ["online", "pageshow", "pagehide", "visibilitychange"];

/**
 * @param {string} url  `/api/streams/<id>`, or a one-shot such as `/api/chat?prompt=…`
 * @param {{lastEventId?: string}} [options]  lastEventId: go on after this id (after a reload)
 */
export function openStream(url, options = {}) {
  return new Stream(url, options.lastEventId ?? "");
}

/** @implements {AsyncIterable<StreamEvent>} */
export class Stream {
  /** @type {StreamEvent[]} */ #queue = [];
  /** @type {(() => void) | null} */ #wake = null;
  /** @type {EventSource | null} */ #source = null;
  /** The open connection that #source is about to replace. @type {EventSource | null} */ #former = null;
  /** @type {ReturnType<typeof setInterval>} */ #watchdog;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retry;
  #url;
  #lastId;
  #resumable;
  #ended = false;
  #terminal = false;
  #lastSign = 0;
  /** When the connection was lost. @type {number | null} */ #downSince = null;
  #failures = 0;

  /** @param {string} url @param {string} lastEventId */
  constructor(url, lastEventId) {
    this.#url = url;
    this.#lastId = lastEventId;
    this.#resumable = url.includes("/api/streams/");
    for (const name of PAGE_EVENTS) globalThis.addEventListener?.(name, this.#onPage);
    this.#watchdog = setInterval(() => this.#watch(), SILENCE_MS / 4);
    this.#connect();
  }

  /** The id of the last event that was read; with it a later page can go on. */
  get lastEventId() {
    return this.#lastId;
  }

  /** Stop the generation, in whatever phase it is. The iteration goes on to its terminal event. */
  async stop() {
    if (!this.#resumable) return this.close();
    const response = await fetch(this.#url, { method: "DELETE", keepalive: true });
    if (!response.ok && response.status !== 404) throw new Error(`DELETE answered ${response.status}`);
  }

  /** Stop reading. The generation ends by itself when its last reader is gone for its resume window. */
  close() {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#watchdog);
    clearTimeout(this.#retry);
    this.#disconnect();
    for (const name of PAGE_EVENTS) globalThis.removeEventListener?.(name, this.#onPage);
    this.#wake?.();
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        const event = this.#queue.shift();
        if (event) yield event;
        else if (this.#ended) return;
        else await /** @type {Promise<void>} */ (new Promise((wake) => (this.#wake = wake)));
      }
    } finally {
      this.close();
    }
  }

  /** @param {StreamEvent} event */
  #push(event) {
    if (this.#ended) return;
    this.#queue.push(event);
    if (event.type === "end" || event.type === "lost") this.close();
    else this.#wake?.();
  }

  #connect() {
    let url = this.#url;
    // A new EventSource has no Last-Event-ID to send; only its own reconnects have.
    if (this.#lastId) url += `${url.includes("?") ? "&" : "?"}last_event_id=${this.#lastId}`;
    if (this.#source?.readyState === EventSource.OPEN) this.#former = this.#source;
    else this.#source?.close();
    const source = new EventSource(url);
    this.#source = source;
    this.#lastSign = Date.now();
    source.onopen = () => {
      // The former connection is closed only now: with no reader left a one-shot would be cancelled.
      this.#former?.close();
      this.#former = null;
      this.#failures = 0;
      this.#downSince = null;
      this.#lastSign = Date.now();
      this.#push({ type: "open" });
    };
    source.onerror = () => {
      if (source !== this.#source || this.#ended) return;
      if (source.readyState === EventSource.CLOSED) this.#refused();
      else this.#down();
    };
    source.onmessage = (message) => {
      if (this.#seen(message)) return;
      const line = JSON.parse(message.data);
      this.#terminal = line.done === true || line.error !== undefined || line.status === "success";
      this.#push({ type: "line", id: message.lastEventId, line });
    };
    source.addEventListener("meta", (message) => {
      this.#lastSign = Date.now();
      const meta = JSON.parse(message.data);
      if (!this.#resumable) {
        this.#url = new URL(meta.url, source.url).href;
        this.#resumable = true;
      }
      this.#push({ type: "meta", ...meta });
    });
    source.addEventListener("status", (message) => {
      this.#lastSign = Date.now();
      this.#push({ type: "status", ...JSON.parse(message.data) });
    });
    source.addEventListener("end", (message) => {
      if (this.#seen(message)) return;
      this.#push({ type: "end", id: message.lastEventId, ...JSON.parse(message.data) });
    });
  }

  /**
   * Two connections may overlap for a moment; the number in the id tells what was read already.
   * @param {MessageEvent} message
   */
  #seen(message) {
    this.#lastSign = Date.now();
    const id = message.lastEventId;
    if (!id) return false;
    if (this.#lastId && sequence(id) <= sequence(this.#lastId)) return true;
    this.#lastId = id;
    return false;
  }

  #watch() {
    const quiet = Date.now() - this.#lastSign;
    if (this.#source?.readyState === EventSource.CONNECTING && quiet > SILENCE_MS / 4) this.#down();
    if (quiet > SILENCE_MS && this.#resumable) this.#connect();
  }

  #disconnect() {
    this.#source?.close();
    this.#former?.close();
    this.#former = null;
  }

  #down() {
    if (this.#downSince !== null) return;
    this.#downSince = Date.now();
    this.#push({ type: "reconnecting" });
  }

  /** A status other than 200: EventSource gives up for good and hides the status, so ask for it. */
  async #refused() {
    if (this.#terminal) return this.close();
    if (!this.#resumable) return this.#push({ type: "lost", code: "unreachable" });
    this.#down();
    const code = await probe(this.#url, this.#lastId);
    if (this.#ended) return;
    if (code === "gone" || code === "unauthorized") return this.#push({ type: "lost", code });
    if (Date.now() - (this.#downSince ?? 0) > GIVE_UP_MS) return this.#push({ type: "lost", code: "unreachable" });
    this.#retry = setTimeout(() => this.#connect(), Math.min(MAX_BACKOFF_MS, 500 * 2 ** this.#failures++));
  }

  /**
   * The page was away or offline, and a mobile browser kills its sockets without a word.
   * @param {Event} event
   */
  #onPage = (event) => {
    if (!this.#resumable) return;
    if (event.type === "pagehide") {
      // An open connection would keep the page out of the back/forward cache.
      clearTimeout(this.#retry);
      this.#disconnect();
    } else if (event.type === "pageshow") {
      if (!(/** @type {PageTransitionEvent} */ (event).persisted)) return;
      this.#down();
      this.#connect();
    } else if (/** @type {any} */ (event.target).visibilityState !== "hidden" && this.#stale()) {
      this.#connect();
    }
  };

  #stale() {
    return this.#source?.readyState !== EventSource.OPEN || Date.now() - this.#lastSign > 5_000;
  }
}

/** @param {string} id `<sid>-<seq>` */
const sequence = (id) => Number(id.slice(id.lastIndexOf("-") + 1));

/**
 * What a refused stream answers to `fetch`, which may read what EventSource may not.
 * @param {string} url @param {string} lastEventId
 * @returns {Promise<"gone" | "unauthorized" | "again">}
 */
async function probe(url, lastEventId) {
  const abort = new AbortController();
  try {
    const { status } = await fetch(url, {
      headers: lastEventId ? { "Last-Event-ID": lastEventId } : {},
      signal: abort.signal,
    });
    if (status === 401 || status === 403) return "unauthorized";
    return status === 204 || status === 404 ? "gone" : "again";
  } catch {
    return "again";
  } finally {
    abort.abort();
  }
}
