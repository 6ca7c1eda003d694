/**
 * Reads a stream with one of the clients, and prints what it was given, an event a line:
 * node read.mjs CLIENT URL [forgetful]
 *
 * A forgetful reader does not stop at the end: the client has to, when it is told to.
 */
import { fetchEventSource } from "@microsoft/fetch-event-source";
import polyfill from "event-source-polyfill";
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";
import { EventSource as UndiciEventSource } from "undici";
import { openStream } from "../../static/client.js";

const [, , client, url, mode] = process.argv;
const NAMES = ["message", "meta", "status", "end"];

const write = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

/** Prints an event, and returns whether it was the last one. */
function print(event, data, id) {
  write({ event, data, id });
  return event === "end" && mode !== "forgetful";
}

/** The interface of the standard. */
function standard(Source) {
  const source = new Source(url);
  for (const name of NAMES)
    source.addEventListener(name, ({ data, lastEventId }) => print(name, data, lastEventId) && source.close());
  // Undici's does not keep Node alive while it waits to reconnect.
  const alive = setInterval(() => source.readyState === source.CLOSED && clearInterval(alive), 50);
}

const READERS = {
  "client.js": async () => {
    for await (const event of openStream(url)) write(event);
  },
  eventsource: () => standard(EventSource),
  undici: () => standard(UndiciEventSource),
  "event-source-polyfill": () => standard(polyfill.EventSourcePolyfill),
  "eventsource-client": () => {
    const source = createEventSource({
      url,
      onMessage: ({ event = "message", data, id }) => print(event, data, id) && source.close(),
    });
  },
  "fetch-event-source": async () => {
    // It expects a page around it.
    globalThis.window = globalThis;
    globalThis.document = { removeEventListener() {} };
    const stop = new AbortController();
    await fetchEventSource(url, {
      openWhenHidden: true,
      signal: stop.signal,
      onmessage: ({ event, data, id }) => {
        if (data && print(event || "message", data, id)) stop.abort();
      },
    });
  },
};

await READERS[client]();
