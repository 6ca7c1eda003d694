/**
 * A client of the Ollama SSE gateway, for browsers and Node 18 or later. No dependency.
 *
 * ```js
 * import { stream } from "http://127.0.0.1:8000/client.js";
 *
 * const answer = stream({ model: "llama3.2", messages: [{ role: "user", content: "Hi" }] });
 * for await (const chunk of answer) document.body.append(chunk.message.content);
 * ```
 *
 * A browser that asks from another origin needs that origin in `GATEWAY_CORS_ORIGINS`; localhost is always allowed.
 */

/** The version of the gateway that this file belongs to. */
export const VERSION: string;

/**
 * Asks a model and reads its answer, across cuts of the connection. Nothing is asked before the loop begins.
 *
 * The loop ends with the answer, or throws a {@link GatewayError}. Leaving it stops the generation.
 *
 * @param body Ollama's own request body: with `messages` it is a chat, else a completion.
 */
export function stream(body: ChatBody, options?: AskOptions): Answer<ChatChunk>;
export function stream(body: GenerateBody, options?: AskOptions): Answer<GenerateChunk>;

/**
 * Reads on in a stream that another page, or this one before it was reloaded, has begun.
 *
 * @param id The {@link Answer.lastEventId} to go on after, or a stream's id ({@link MetaEvent.id}) to read all of it.
 */
export function resume<Chunk extends AnyChunk = ChatChunk>(id: string, options?: ReadOptions): Answer<Chunk>;

/**
 * Everything that happens on a stream, as events. `stream` and `resume` are made of it.
 *
 * @param url `/api/streams/<id>`, as `POST /api/streams` answers it, or a one-shot such as `/api/chat?prompt=Hi`.
 *   A one-shot survives a cut only with a `resume_window` in its query.
 */
export function openStream<Chunk extends AnyChunk = AnyChunk>(url: string, options?: OpenOptions): Stream<Chunk>;

/** What `stream` and `resume` give: chunks, in one loop. */
export interface Answer<Chunk extends AnyChunk> extends AsyncIterable<Chunk, void> {
  /** Of the last chunk that the loop was given, or "". What to give `resume`, for example after a reload. */
  readonly lastEventId: string;
  /**
   * Ends the loop at once, without an error, and stops the generation in whatever phase it is. Never rejects: when
   * the gateway is away, the generation ends with its resume window.
   */
  stop(): Promise<void>;
}

/** What `openStream` gives: events, in one loop. Leaving the loop stops only the reading. */
export interface Stream<Chunk extends AnyChunk = AnyChunk> extends AsyncIterable<StreamEvent<Chunk>, void> {
  /** Of the last event that was received, or "". */
  readonly lastEventId: string;
  /** Stops the generation. The loop goes on to the stream's own end. Rejects when the gateway is away. */
  stop(): Promise<void>;
  /** Stops reading. The generation ends when its last reader has been away for its resume window. */
  close(): void;
}

/** How to reach a gateway. */
export interface ConnectionOptions {
  /** The gateway's URL. Default: where this module was loaded from; Node has to say. */
  base?: string;
  /** An API key, sent as a bearer token. With a key, and in Node, the stream is read by `fetch`, else by EventSource. */
  key?: string;
  /** Seconds without any event after which a new connection is made. Default: 20. It costs no generation. */
  watchdog?: number;
}

export interface OpenOptions extends ConnectionOptions {
  /** Go on after this event. */
  lastEventId?: string;
}

export interface ReadOptions extends ConnectionOptions {
  /** Aborting it stops the generation, and the loop throws the signal's reason. */
  signal?: AbortSignal;
  /** Is given everything else that happens: where the model stands, cuts and their mending, the figures at the end. */
  onEvent?(event: SidecarEvent): void;
}

export interface AskOptions extends ReadOptions {
  /** One of the operator's presets. */
  preset?: string;
  /** The preset's variables. */
  variables?: Record<string, string>;
  /** Seconds that the generation goes on when nobody reads it: how long a cut may last. Default: 30. */
  resumeWindow?: number;
}

export type StreamOptions = AskOptions & OpenOptions;

// What is asked: Ollama's own bodies -----------------------------------------------------------------------------

interface Body {
  /** Default: the operator's, else the first that is installed. */
  model?: string;
  /** `"json"`, or a JSON schema that the answer follows. */
  format?: "" | "json" | object;
  /** How long the model stays loaded: seconds, or a duration such as `"5m"`; 0 unloads it. */
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

// What is answered: Ollama's own chunks --------------------------------------------------------------------------

/** A piece of a chat: `done` tells the last one, which has the figures. */
export type ChatChunk = ChatPiece & (Going | Done);
/** A piece of a completion: `done` tells the last one, which has the figures. */
export type GenerateChunk = GeneratePiece & (Going | (Done & { context?: number[] }));
/** A step of a pull. The last one's `status` is `"success"`. */
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
/** Durations are nanoseconds. A figure that is zero is missing. */
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

// What happens on a stream -------------------------------------------------------------------------------------

/** Every event of {@link openStream}, told apart by `type`. */
export type StreamEvent<Chunk extends AnyChunk = AnyChunk> = ChunkEvent<Chunk> | ErrorEvent | LostEvent | SidecarEvent;
/** What a chunk or an error does not tell. */
export type SidecarEvent = OpenEvent | ReconnectingEvent | MetaEvent | StatusEvent | EndEvent;

/** The connection stands, for the first time or again. */
export interface OpenEvent {
  type: "open";
}
/** The connection was lost, and is being made again. */
export interface ReconnectingEvent {
  type: "reconnecting";
}
/** Which stream this is. Comes with every connection. */
export interface MetaEvent {
  type: "meta";
  /** The version of the contract. */
  v: 1;
  id: string;
  url: string;
  kind: Kind;
  model: string;
}
/** Where the model stands, until the first token. */
export interface StatusEvent {
  type: "status";
  phase: Exclude<Phase, "generating" | "pulling">;
  /** In the queue; 1 is next. */
  position?: number;
  /** Since the stream was created. */
  elapsed_ms: number;
}
/** A line of Ollama's. */
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
/** The last event of every stream that was read to its end. */
export interface EndEvent {
  type: "end";
  id: string;
  outcome: Outcome;
  events: number;
  first_token_ms: number | null;
  elapsed_ms: number;
}
/** The last event of a stream that cannot be had any more. */
export interface LostEvent extends ErrorPayload {
  type: "lost";
  code: "gone" | "unauthorized" | "unreachable";
  phase: "connection";
}

export type Kind = "chat" | "generate" | "pull";
export type Phase = "queued" | "loading" | "prompt" | "generating" | "pulling";
export type Outcome = "complete" | "cancelled" | "error";

// What fails ---------------------------------------------------------------------------------------------------

export interface ErrorPayload {
  /** For a person. */
  error: string;
  /** For a program. An operator's hook may have codes of its own. */
  code: ErrorCode;
  /** Where it failed: `request` is before there was a stream, `connection` between here and the gateway. */
  phase: Phase | "request" | "connection";
  /** Whether the same request may succeed later. */
  retryable: boolean;
}

/** What the loops of `stream` and `resume` throw. */
export class GatewayError extends Error implements Omit<ErrorPayload, "error"> {
  constructor(payload: Partial<ErrorPayload>, status?: number);
  readonly name: "GatewayError";
  readonly code: ErrorCode;
  readonly phase: ErrorPayload["phase"];
  readonly retryable: boolean;
  /** Of the HTTP response that refused the request, else 0. */
  readonly status: number;
}

/** The gateway's codes, and `gone` and `unreachable`, which this client finds out by itself. */
export type ErrorCode =
  | "bad_upstream"
  | "busy"
  | "cancelled"
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
