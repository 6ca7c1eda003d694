/** Mistakes. Each must be an error of the type that its line ends with, and there must be no other. */
import { type ErrorCode, GatewayError, openStream, resume, stream, type StreamEvent } from "../../static/client.js";

const messages = [{ role: "user" as const, content: "Hi" }];

stream({ model: "llama3.2", mesages: messages }); // TS2769
stream({ model: "llama3.2", messages: "Hi" }); // TS2769
stream({ model: "llama3.2", messages: [{ role: "robot", content: "Hi" }] }); // TS2769
stream({ model: "llama3.2", messages, options: { temprature: 0.2 } }); // TS2769
stream({ model: "llama3.2", messages }, { resume_window: 30 }); // TS2769
stream({ model: "llama3.2", messages }, { lastEventId: "x-1" }); // TS2769
stream({ model: "llama3.2", messages }, { signal: new AbortController() }); // TS2769
resume(7); // TS2345
openStream("/api/streams/x", { key: 7 }); // TS2322

for await (const chunk of stream({ model: "llama3.2", messages })) {
  chunk.response; // TS2339
  chunk.message.contents; // TS2551
  chunk.eval_count; // TS2339
  if (!chunk.done) chunk.done_reason; // TS2339
  if (chunk.done && chunk.done_reason === "end") break; // TS2367
}
for await (const chunk of stream({ model: "llama3.2", prompt: "Hi" })) {
  chunk.message; // TS2339
}
for await (const chunk of resume("x-1")) chunk.response; // TS2339

function describe(event: StreamEvent): string {
  switch (event.type) {
    case "open":
    case "reconnecting":
      return event.code; // TS2339
    case "meta":
      return event.phase; // TS2339
    case "status":
      return event.phase === "done" ? "" : event.phase; // TS2367
    case "chunk":
      return event.chunk.message.content; // TS2339
    case "lost":
      return event.id; // TS2339
    case "end":
      return event.outcome === "failed" ? "" : event.id; // TS2367
    default:
      throw event satisfies never; // TS1360
  }
}

const words: Record<ErrorCode, string> = { busy: "Wait a little." }; // TS2740

function explain(error: GatewayError): string {
  if (error.code === "overloaded") return ""; // TS2367
  if (error.phase === "thinking") return ""; // TS2367
  switch (error.code) {
    case "busy":
      return error.retry; // TS2339
    default:
      error.code satisfies never; // TS1360
  }
  error.code = "busy"; // TS2540
  return error; // TS2322
}

void [describe, words, explain];
