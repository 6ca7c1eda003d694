/** What a frontend writes; it has to pass `tsc --strict` as it stands. */
import {
  type Answer,
  type ChatChunk,
  type ErrorCode,
  GatewayError,
  type GenerateChunk,
  openStream,
  type PullChunk,
  resume,
  type SidecarEvent,
  stream,
  type StreamEvent,
  VERSION,
} from "../../static/client.js";

export const version: string = VERSION;

export async function chat(show: (text: string) => void, signal: AbortSignal): Promise<number> {
  const messages = [
    { role: "system" as const, content: "Be brief." },
    { role: "user" as const, content: "Hi", images: ["aGk="] },
  ];
  const answer = stream({ model: "llama3.2", messages, think: "low", options: { temperature: 0.2 } }, { signal });
  let tokens = 0;
  for await (const chunk of answer) {
    show(chunk.message.thinking ?? chunk.message.content);
    for (const call of chunk.message.tool_calls ?? []) show(call.function.name);
    if (chunk.done) tokens = chunk.eval_count ?? 0;
  }
  return tokens;
}

export async function complete(): Promise<string> {
  let text = "";
  const options = { base: "http://gateway:8000", key: "secret", resumeWindow: 60, watchdog: 10 };
  for await (const chunk of stream({ model: "llama3.2", prompt: "Hi" }, options)) {
    text += chunk.response;
    if (chunk.done && chunk.context) text += chunk.context.length;
  }
  return text;
}

export function preset(onEvent: (event: SidecarEvent) => void): Answer<ChatChunk> {
  return stream(
    { messages: [{ role: "user", content: "Hi" }] },
    { preset: "translate", variables: { lang: "French" }, onEvent },
  );
}

export async function reload(id: string): Promise<string> {
  const answer: Answer<GenerateChunk> = resume<GenerateChunk>(id);
  for await (const chunk of answer) if (chunk.response) await answer.stop();
  return answer.lastEventId;
}

/** Every kind of event, told apart. */
export function describe(event: StreamEvent<ChatChunk>): string {
  switch (event.type) {
    case "open":
    case "reconnecting":
      return event.type;
    case "meta":
      return `${event.kind} ${event.model}`;
    case "status":
      return event.phase === "queued" ? `place ${event.position ?? "?"}` : event.phase;
    case "chunk":
      return event.chunk.message.content;
    case "error":
    case "lost":
      return `${event.code} ${event.error}`;
    case "end":
      return `${event.outcome} ${event.first_token_ms ?? 0}`;
    default:
      return event satisfies never;
  }
}

export async function pull(url: string): Promise<PullChunk[]> {
  const steps: PullChunk[] = [];
  for await (const event of openStream<PullChunk>(url)) if (event.type === "chunk") steps.push(event.chunk);
  return steps;
}

/** Every error, in words. */
const WORDS: Record<ErrorCode, string> = {
  bad_upstream: "That is no Ollama.",
  busy: "Wait a little.",
  cancelled: "Stopped.",
  conflict: "This was asked before, but not in these words.",
  connect_timeout: "Ollama is away.",
  first_token_timeout: "The model is too slow.",
  forbidden_host: "Not this name.",
  forbidden_origin: "Not from here.",
  gone: "It is over.",
  idle_timeout: "The model hangs.",
  internal_error: "A fault.",
  invalid_request: "That is wrong.",
  method_not_allowed: "Not so.",
  model_not_found: "Pull it first.",
  not_found: "There is no such thing.",
  ollama_error: "Ollama says no.",
  ollama_unreachable: "Ollama is away.",
  producer_lost: "Its gateway went away.",
  rejected: "The operator says no.",
  shape_failed: "The operator's hook failed.",
  shutting_down: "Come back in a minute.",
  too_large: "Less, please.",
  total_timeout: "It took too long.",
  truncated: "It broke off.",
  unauthorized: "Your key, please.",
  unreachable: "The gateway is away.",
};

export function explain(error: unknown): string {
  if (!(error instanceof GatewayError)) throw error;
  return `${WORDS[error.code]} ${error.message} ${error.phase} ${error.status} ${error.retryable ? "again?" : ""}`;
}
