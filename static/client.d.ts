/**
 * A client of the Ollama SSE gateway, for browsers and Node 18 or later, without dependencies.
 *
 * ```js
 * import { stream } from "http://127.0.0.1:8000/client.js";
 *
 * const answer = stream({ model: "llama3.2", messages: [{ role: "user", content: "Hi" }] });
 * for await (const chunk of answer) document.body.append(chunk.message.content);
 * ```
 *
 * Pages of another origin may use the gateway if `GATEWAY_CORS_ORIGINS` lists that origin; localhost is always allowed.
 */

/** The version of the gateway that this file belongs to. */
export const VERSION: string;

/**
 * Asks a model and reads its answer; lost connections are resumed. The request is sent when the loop begins.
 *
 * The loop ends with the answer, or throws a {@link GatewayError}. Leaving the loop stops the generation.
 *
 * @param body Ollama's own request body: a chat if it has `messages`, otherwise a completion.
 */
export function stream(body: ChatBody, options?: AskOptions): Answer<ChatChunk>;
export function stream(body: GenerateBody, options?: AskOptions): Answer<GenerateChunk>;

/**
 * Continues to read a stream that another page, or this page before it was reloaded, has started.
 *
 * @param id The {@link Answer.lastEventId} to continue after, or the id of a stream ({@link MetaEvent.id}) to read all
 *   of it.
 */
export function resume<Chunk extends AnyChunk = ChatChunk>(id: string, options?: ReadOptions): Answer<Chunk>;

/**
 * Reads a stream and yields everything that happens on it as events. `stream` and `resume` are built on it.
 *
 * @param url `/api/streams/<id>`, as in the answer to `POST /api/streams`, or a one-shot such as `/api/chat?prompt=Hi`.
 *   A one-shot survives a lost connection only with a `resume_window` in its query.
 */
export function openStream<Chunk extends AnyChunk = AnyChunk>(url: string, options?: OpenOptions): Stream<Chunk>;

/** The result of `stream` and `resume`: chunks, to be read in one loop. */
export interface Answer<Chunk extends AnyChunk> extends AsyncIterable<Chunk, void> {
  /** The id of the last chunk that the loop received, or "". Pass it to `resume`, for example after a reload. */
  readonly lastEventId: string;
  /**
   * Ends the loop at once, without an error, and stops the generation in any phase. Never rejects: if the gateway
   * cannot be reached, the generation ends after its resume window.
   */
  stop(): Promise<void>;
}

/** The result of `openStream`: events, to be read in one loop. Leaving the loop only stops reading. */
export interface Stream<Chunk extends AnyChunk = AnyChunk> extends AsyncIterable<StreamEvent<Chunk>, void> {
  /** The id of the last event that was received, or "". */
  readonly lastEventId: string;
  /** Stops the generation. The loop continues to the stream's own end. Rejects if the gateway cannot be reached. */
  stop(): Promise<void>;
  /** Stops reading. The generation ends once it has had no reader for its resume window. */
  close(): void;
}

/** How to reach a gateway. */
export interface ConnectionOptions {
  /** The gateway's URL. Default: the origin that this module was loaded from. Required in Node. */
  base?: string;
  /** An API key, sent as a bearer token. With a key, and in Node, `fetch` reads the stream, otherwise `EventSource`. */
  key?: string;
  /** Seconds without any event after which the client reconnects, which starts no generation. Default: 20. */
  watchdog?: number;
}

export interface OpenOptions extends ConnectionOptions {
  /** The event to continue after. */
  lastEventId?: string;
}

export interface ReadOptions extends ConnectionOptions {
  /** Aborting it stops the generation, and the loop throws the signal's reason. */
  signal?: AbortSignal;
  /** Called with all other events: the stream's phases, lost and new connections, the outcome at the end. */
  onEvent?(event: SidecarEvent): void;
}

export interface AskOptions extends ReadOptions {
  /** The name of one of the operator's presets. */
  preset?: string;
  /** The values of the preset's variables. */
  variables?: Record<string, string>;
  /** Seconds for which the generation continues while nobody reads it, so that a cut may last as long. Default: 30. */
  resumeWindow?: number;
}

export type StreamOptions = AskOptions & OpenOptions;

// Requests: Ollama's own bodies ----------------------------------------------------------------------------------

interface Body {
  /** Default: the operator's default model, else the first installed one. */
  model?: string;
  /** `"json"`, or a JSON schema that the answer follows. */
  format?: "" | "json" | object;
  /** How long the model stays loaded: seconds, or a duration such as `"5m"`. 0 unloads it. */
  keep_alive?: number | string;
  options?: ModelOptions;
  think?: boolean | "low" | "medium" | "high" | "max";
  truncate?: boolean;
  shift?: boolean;
  logprobs?: boolean;
  top_logprobs?: number;
}

/** Ollama's body of `POST /api/chat`. */
export interface ChatBody extends Body {
  messages: Message[];
  /** Tools as JSON schemas, in Ollama's form. */
  tools?: object[];
}

/** Ollama's body of `POST /api/generate`. Without a prompt it loads the model. */
export interface GenerateBody extends Body {
  prompt?: string;
  suffix?: string;
  system?: string;
  template?: string;
  context?: number[];
  raw?: boolean;
  /** In base64. */
  images?: string[];
}

export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  content?: string;
  thinking?: string;
  /** In base64. */
  images?: string[];
  tool_calls?: ToolCall[];
  tool_name?: string;
  tool_call_id?: string;
}

export interface ToolCall {
  id?: string;
  function: { index?: number; name: string; arguments?: Record<string, unknown> };
}

/** Ollama's model options. */
export interface ModelOptions {
  num_keep?: number;
  num_predict?: number;
  num_ctx?: number;
  num_batch?: number;
  num_gpu?: number;
  main_gpu?: number;
  num_thread?: number;
  seed?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  typical_p?: number;
  repeat_last_n?: number;
  temperature?: number;
  repeat_penalty?: number;
  presence_penalty?: number;
  frequency_penalty?: number;
  stop?: string[];
  use_mmap?: boolean;
}

// Answers: Ollama's own chunks -----------------------------------------------------------------------------------

/** A piece of a chat. In the last one `done` is true, and it has counts and durations. */
export type ChatChunk = ChatPiece & (Going | Done);
/** A piece of a completion. In the last one `done` is true, and it has counts and durations. */
export type GenerateChunk = GeneratePiece & (Going | (Done & { context?: number[] }));
/** A step of a pull. The `status` of the last one is `"success"`. */
export interface PullChunk {
  status: string;
  digest?: string;
  total?: number;
  completed?: number;
}
export type AnyChunk = ChatChunk | GenerateChunk | PullChunk;

interface Piece {
  model: string;
  created_at: string;
  logprobs?: Logprob[];
}
interface ChatPiece extends Piece {
  message: { role: "assistant"; content: string; thinking?: string; tool_calls?: ToolCall[] };
}
interface GeneratePiece extends Piece {
  response: string;
  thinking?: string;
  tool_calls?: ToolCall[];
}
interface Going {
  done: false;
}
/** Durations are in nanoseconds. Ollama omits a number that is zero. */
interface Done {
  done: true;
  done_reason?: "stop" | "length" | "load" | "unload";
  total_duration?: number;
  load_duration?: number;
  prompt_eval_count?: number;
  prompt_eval_duration?: number;
  eval_count?: number;
  eval_duration?: number;
}
export interface Logprob {
  token: string;
  logprob: number;
  bytes?: number[];
  top_logprobs?: Logprob[];
}

// The events of a stream ---------------------------------------------------------------------------------------

/** Any event of {@link openStream}; `type` tells which. */
export type StreamEvent<Chunk extends AnyChunk = AnyChunk> = ChunkEvent<Chunk> | ErrorEvent | LostEvent | SidecarEvent;
/** Any event that is neither a chunk nor an error. */
export type SidecarEvent = OpenEvent | ReconnectingEvent | MetaEvent | StatusEvent | EndEvent;

/** The connection is open, for the first time or again. */
export interface OpenEvent {
  type: "open";
}
/** The connection was lost, and the client is reconnecting. */
export interface ReconnectingEvent {
  type: "reconnecting";
}
/** Identifies the stream. It comes with every connection. */
export interface MetaEvent {
  type: "meta";
  /** The version of the contract. */
  v: 1;
  id: string;
  url: string;
  kind: Kind;
  model: string;
}
/** How far the stream is, until the first token. */
export interface StatusEvent {
  type: "status";
  phase: Exclude<Phase, "generating" | "pulling">;
  /** The position in the queue; 1 is next. */
  position?: number;
  /**
   * Why it waits: all slots are taken, its model must displace one in use, other clients have had less, or Ollama is
   * down.
   */
  reason?: "slots" | "model" | "fairness" | "ollama_down";
  /** The milliseconds that it will probably wait, where that is known. */
  eta_ms?: number;
  /** The share of the phase, from 0 to 1, that Ollama says is done. */
  progress?: number;
  /** Milliseconds since the stream was created. */
  elapsed_ms: number;
}
/** A line from Ollama. */
export interface ChunkEvent<Chunk extends AnyChunk = AnyChunk> {
  type: "chunk";
  id: string;
  chunk: Chunk;
}
/** The stream has failed; `end` follows. */
export interface ErrorEvent extends ErrorPayload {
  type: "error";
  id: string;
}
/** The last event of a stream that was read to its end. A time is null if it never came, or is not known. */
export interface EndEvent {
  type: "end";
  id: string;
  outcome: Outcome;
  events: number;
  first_token_ms: number | null;
  elapsed_ms: number | null;
}
/** The last event of a stream that can no longer be read. */
export interface LostEvent extends ErrorPayload {
  type: "lost";
  code: "gone" | "unauthorized" | "unreachable";
  phase: "connection";
}

/** Only Ollama's own clients start the last two. */
export type Kind = "chat" | "generate" | "pull" | "embed" | "embeddings";
export type Phase = "queued" | "starting" | "loading" | "prompt" | "generating" | "pulling";
export type Outcome = "complete" | "cancelled" | "error";

// Errors -------------------------------------------------------------------------------------------------------

export interface ErrorPayload {
  /** For a person. */
  error: string;
  /** For a program. An operator's hook can use codes of its own. */
  code: ErrorCode;
  /** The HTTP status that it has, or would have had before the stream began. */
  status?: number;
  /** The phase in which it failed. `request` is before there was a stream, `connection` between client and gateway. */
  phase: Phase | "request" | "connection";
  /** Whether the same request may succeed later. */
  retryable: boolean;
}

/** The error that the loops of `stream` and `resume` throw. */
export class GatewayError extends Error implements Omit<ErrorPayload, "error"> {
  constructor(payload: Partial<ErrorPayload>, status?: number);
  readonly name: "GatewayError";
  readonly code: ErrorCode;
  readonly phase: ErrorPayload["phase"];
  readonly retryable: boolean;
  /** The status of the HTTP response that refused the request, else 0. */
  readonly status: number;
}

/** The gateway's codes, and `gone` and `unreachable`, which are this client's own. */
export type ErrorCode =
  | "bad_upstream"
  | "busy"
  | "cancelled"
  | "conflict"
  | "connect_timeout"
  | "first_token_timeout"
  | "forbidden_host"
  | "forbidden_origin"
  | "gone"
  | "idle_timeout"
  | "internal_error"
  | "invalid_request"
  | "method_not_allowed"
  | "model_not_found"
  | "not_found"
  | "ollama_error"
  | "ollama_unreachable"
  | "producer_lost"
  | "rejected"
  | "shape_failed"
  | "shutting_down"
  | "too_large"
  | "total_timeout"
  | "truncated"
  | "unauthorized"
  | "unreachable";
