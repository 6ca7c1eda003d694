/**
 * What the page knows, and how it changes. No DOM, no network, no storage.
 *
 * The state is one plain object that is replaced, never altered: a view compares by identity. A chat is a
 * list of turns; a turn is a prompt with its answers (one per "regenerate"); an answer takes the events
 * of one stream through `reduceAnswer`.
 */

/** @typedef {"idle" | "connecting" | "streaming" | "reconnecting" | "done" | "failed" | "cancelled"} Status */
/** @typedef {{error: string, code: string, phase?: string, retryable?: boolean}} Failure */
/** @typedef {{phase: string, ms: number}} Step  how long a phase took */
/** @typedef {{name: string, arguments: unknown}} ToolCall */
/**
 * @typedef {{promptTokens: number, tokens: number, tokensPerSecond: number, firstTokenMs: number,
 *   elapsedMs: number, reason: string}} Figures
 */
/**
 * @typedef {object} Answer
 * @property {string} id
 * @property {string} model
 * @property {Status} status
 * @property {string} text
 * @property {string} thinking
 * @property {number} thinkingMs  0 while it still thinks
 * @property {ToolCall[]} tools
 * @property {Failure | null} failure
 * @property {Figures | null} figures
 * @property {string} url  of its stream; "" until the gateway has made it
 * @property {string} lastId  the last event that is in this answer
 * @property {any} request  what was sent to `POST /api/streams`
 * @property {number} sentLength  characters of the turns in it
 * @property {number} startedAt  epoch ms, as all below; 0 = not yet
 * @property {string} phase
 * @property {number} position  in the queue
 * @property {number} phaseAt
 * @property {Step[]} steps  the phases before this one
 * @property {number} thinkingAt
 * @property {number} firstAt
 * @property {number} lastAt
 * @property {number} pieces  text pieces so far, about one token each
 * @property {number} caughtUpAt
 */
/**
 * @typedef {object} Turn
 * @property {string} id
 * @property {number} at
 * @property {string} prompt
 * @property {string[]} images  data: URLs
 * @property {Answer[]} answers
 * @property {number} shown  index of the answer on display
 * @property {boolean} omitted  no longer sent to the model
 */
/**
 * @typedef {object} Settings
 * @property {string} system
 * @property {string} preset
 * @property {Record<string, string>} variables
 * @property {string} think
 * @property {number | null} temperature
 * @property {number | null} num_ctx
 * @property {number | null} num_predict
 * @property {number | null} seed
 */
/**
 * @typedef {{id: string, title: string, renamed: boolean, created: number, updated: number, model: string,
 *   settings: Settings, running: boolean}} Chat
 */
/**
 * @typedef {{name: string, size: number, parameters?: string, quantization?: string, context_length?: number,
 *   loaded_context_length?: number, capabilities: string[], loaded: boolean, modified_at?: string}} Model
 */
/**
 * @typedef {{name: string, description: string, overrides: string[],
 *   variables: {name: string, description?: string, default?: string | null}[]}} Preset
 */
/** @typedef {{model: string, status: string, layers: Record<string, [number, number]>,
 *   samples: [number, number][], failure: Failure | null, done: boolean}} Pull */
/**
 * @typedef {object} State
 * @property {Chat[]} chats  newest first
 * @property {Chat} chat  the open one; not among `chats` until its first prompt
 * @property {Record<string, Turn[]>} turns  of the chats that are in memory
 * @property {string} query
 * @property {Set<string> | null} found  the chats that match `query`
 * @property {Model[]} models
 * @property {string | null} defaultModel
 * @property {boolean} allowPull
 * @property {Preset[]} presets
 * @property {string | null} defaultPreset
 * @property {boolean} presetsOnly
 * @property {"unknown" | "ok" | "down"} server
 * @property {Failure | null} serverFailure
 * @property {Pull | null} pull
 */

/** Seconds an answer goes on without a reader: a reload, a tunnel, a phone that sleeps for a moment. */
export const RESUME_WINDOW = 120;
/** HTTP/1.1 allows six connections per origin; a stream holds one. The rest is for stop, models and a pull. */
export const MAX_RUNNING = 4;

/** The stream is gone: ended long ago, or its gateway was restarted. @type {Failure} */
export const LOST = Object.freeze({ error: "", code: "lost_gone", retryable: true });

/** @type {Settings} */
export const NO_SETTINGS = Object.freeze({
  system: "",
  preset: "",
  variables: {},
  think: "",
  temperature: null,
  num_ctx: null,
  num_predict: null,
  seed: null,
});

/** Unique enough for this browser; `crypto.randomUUID` does not exist on plain HTTP in a LAN. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} model @param {Settings} settings @returns {Chat} */
export function newChat(model, settings) {
  const now = Date.now();
  return { id: newId(), title: "", renamed: false, created: now, updated: now, model, settings, running: false };
}

/** @param {string} prompt @param {string[]} images @returns {Turn} */
export function newTurn(prompt, images) {
  return { id: newId(), at: Date.now(), prompt, images, answers: [], shown: 0, omitted: false };
}

/** A turn as it comes from storage or from a file a person imported. @param {Partial<Turn>} turn @returns {Turn} */
export function reviveTurn(turn) {
  const revived = { ...newTurn("", []), ...turn };
  revived.answers = revived.answers.map((answer) => ({ ...newAnswer("", null, []), ...answer }));
  // Nothing is fetched because a file named an address.
  revived.images = revived.images.filter((url) => url.startsWith("data:image/"));
  return revived;
}

/** @param {string} model @returns {Pull} */
export const newPull = (model) => ({ model, status: "", layers: {}, samples: [], failure: null, done: false });

/** @param {string} model @param {any} request @param {Turn[]} turns those that are sent @returns {Answer} */
export function newAnswer(model, request, turns) {
  const now = Date.now();
  return {
    id: newId(),
    model,
    status: "connecting",
    text: "",
    thinking: "",
    thinkingMs: 0,
    tools: [],
    failure: null,
    figures: null,
    url: "",
    lastId: "",
    request,
    sentLength: lengthOf(turns),
    startedAt: now,
    phase: "",
    position: 0,
    phaseAt: now,
    steps: [],
    thinkingAt: 0,
    firstAt: 0,
    lastAt: 0,
    pieces: 0,
    caughtUpAt: 0,
  };
}

/** @returns {State} */
export function initialState() {
  return {
    chats: [],
    chat: newChat("", NO_SETTINGS),
    turns: {},
    query: "",
    found: null,
    models: [],
    defaultModel: null,
    allowPull: false,
    presets: [],
    defaultPreset: null,
    presetsOnly: false,
    server: "unknown",
    serverFailure: null,
    pull: null,
  };
}

/** Holds the state; a `change` event follows every replacement. */
export class Store extends EventTarget {
  state = initialState();

  /** @param {Partial<State>} patch */
  set(patch) {
    this.state = { ...this.state, ...patch };
    this.dispatchEvent(new Event("change"));
  }
}

/** @param {Answer | undefined} answer */
export const isActive = (answer) =>
  answer?.status === "connecting" || answer?.status === "streaming" || answer?.status === "reconnecting";

/** @param {Turn} turn */
export const shownAnswer = (turn) => turn.answers[turn.shown];

/** @param {Turn[] | undefined} turns */
export const isRunning = (turns) => !!turns?.some((turn) => turn.answers.some(isActive));

/**
 * One event of the stream, applied.
 * @param {Answer} answer
 * @param {import("../client.js").StreamEvent} event
 * @param {number} now epoch ms
 * @returns {Answer}
 */
export function reduceAnswer(answer, event, now) {
  // Stopped here first: what still arrives is not wanted any more.
  if (!isActive(answer) && event.type !== "end") return answer;
  switch (event.type) {
    case "reconnecting":
      return { ...answer, status: "reconnecting" };
    case "open":
      return answer.status === "reconnecting" ? { ...answer, status: "streaming", caughtUpAt: now } : answer;
    case "status":
      return enterPhase({ ...answer, status: "streaming", position: event.position ?? 0 }, event.phase, now);
    case "chunk":
      return { ...reduceChunk(answer, event.chunk, now), lastId: event.id };
    case "error":
      return { ...fail(answer, event), lastId: event.id };
    case "end":
      return reduceEnd(answer, event);
    case "lost":
      return fail(answer, { error: "", code: `lost_${event.code}`, retryable: true });
    default:
      return answer;
  }
}

/** @param {Answer} answer @param {string} phase @param {number} now @returns {Answer} */
function enterPhase(answer, phase, now) {
  if (answer.phase === phase) return answer;
  const steps = answer.phase ? [...answer.steps, { phase: answer.phase, ms: now - answer.phaseAt }] : answer.steps;
  return { ...answer, phase, phaseAt: now, steps };
}

/** @param {Answer} answer @param {any} chunk @param {number} now @returns {Answer} */
function reduceChunk(answer, chunk, now) {
  const { content = "", thinking = "", tool_calls = [] } = chunk.message ?? {};
  let next = answer;
  if (content || thinking || tool_calls.length) {
    next = enterPhase({ ...next, status: "streaming", position: 0 }, "generating", now);
    next = { ...next, firstAt: next.firstAt || now, lastAt: now, pieces: next.pieces + 1 };
  }
  if (thinking) next = { ...next, thinking: next.thinking + thinking, thinkingAt: next.thinkingAt || now };
  if ((content || tool_calls.length || chunk.done) && next.thinkingAt && !next.thinkingMs)
    next = { ...next, thinkingMs: Math.max(1, now - next.thinkingAt) };
  if (content) next = { ...next, text: next.text + content };
  if (tool_calls.length) {
    const calls = tool_calls.map((/** @type {any} */ call) => call.function).filter(Boolean);
    next = { ...next, tools: [...next.tools, ...calls] };
  }
  return chunk.done ? { ...next, status: "done", figures: figuresOf(next, chunk, now) } : next;
}

/** @param {Answer} answer @param {any} chunk @param {number} now @returns {Figures} */
function figuresOf(answer, chunk, now) {
  const tokens = chunk.eval_count ?? 0;
  const seconds = (chunk.eval_duration ?? 0) / 1e9;
  return {
    promptTokens: chunk.prompt_eval_count ?? 0,
    tokens,
    tokensPerSecond: seconds ? tokens / seconds : 0,
    firstTokenMs: answer.firstAt ? answer.firstAt - answer.startedAt : 0,
    elapsedMs: now - answer.startedAt,
    reason: chunk.done_reason ?? "",
  };
}

/** @param {Answer} answer @param {Failure} failure @returns {Answer} */
export function fail(answer, failure) {
  const { error, code, phase, retryable } = failure;
  if (code === "cancelled") return { ...answer, status: "cancelled" };
  return { ...answer, status: "failed", failure: { error, code, phase, retryable } };
}

/** The gateway's own measure of the times stands where there is one.
 * @param {Answer} answer @param {Extract<import("../client.js").StreamEvent, {type: "end"}>} event @returns {Answer} */
function reduceEnd(answer, event) {
  const next = { ...answer, lastId: event.id };
  if (next.figures) {
    const firstTokenMs = event.first_token_ms ?? next.figures.firstTokenMs;
    next.figures = { ...next.figures, firstTokenMs, elapsedMs: event.elapsed_ms };
  }
  if (isActive(next)) next.status = event.outcome === "cancelled" ? "cancelled" : "failed";
  return next;
}

/** Tokens per second so far, from the pieces that arrived. @param {Answer} answer @param {number} now */
export function liveRate(answer, now) {
  const seconds = (now - answer.firstAt) / 1000;
  return answer.firstAt && seconds > 0.5 ? (answer.pieces - 1) / seconds : 0;
}

/**
 * Whether a chat with this preset may set a field itself; without a preset it may set everything.
 * @param {Preset | undefined} preset @param {string} field `system`, `think`, or an option as `options.NAME`
 */
export const mayOverride = (preset, field) =>
  !preset || preset.overrides.some((name) => name === field || field.startsWith(`${name}.`));

/** The preset in force. @param {State} state @param {Chat} chat */
export const presetOf = ({ presets, defaultPreset, presetsOnly }, chat) =>
  presets.find((preset) => preset.name === (chat.settings.preset || defaultPreset)) ??
  (presetsOnly ? presets[0] : undefined);

/**
 * The body of `POST /api/streams` for one turn: everything before it that is not omitted, then it. What the
 * preset decides is left out: the gateway would refuse it.
 * @param {Chat} chat @param {Turn[]} turns @param {Turn} turn @param {string} model @param {string[]} capabilities
 * @param {Preset} [inForce]
 */
export function requestFor(chat, turns, turn, model, capabilities, inForce) {
  const { system, preset, variables, think, ...options } = chat.settings;
  const may = (/** @type {string} */ field) => mayOverride(inForce, field);
  /** @type {{role: string, content: string, images?: string[], tool_calls?: unknown[]}[]} */
  const messages = system.trim() && may("system") ? [{ role: "system", content: system }] : [];
  for (const past of turns) {
    if (past !== turn && past.omitted) continue;
    const images = capabilities.includes("vision") || !may("model") ? past.images.map((url) => url.slice(url.indexOf(",") + 1)) : [];
    messages.push({ role: "user", content: past.prompt, ...(images.length ? { images } : {}) });
    if (past === turn) break;
    const answer = shownAnswer(past);
    if (!answer || !(answer.text || answer.tools.length)) continue;
    const calls = answer.tools.map((call) => ({ function: call }));
    messages.push({ role: "assistant", content: answer.text, ...(calls.length ? { tool_calls: calls } : {}) });
  }
  // Without a value the preset's own stands; one that the preset has no more would be refused.
  const given = Object.entries(variables).filter(([name, value]) => value && inForce?.variables.some((variable) => variable.name === name));
  const set = Object.entries(options).filter(([name, value]) => value !== null && may(`options.${name}`));
  /** @type {Record<string, unknown>} */
  const body = may("model") ? { model, messages } : { messages };
  if (set.length) body.options = Object.fromEntries(set);
  if (think && may("think") && capabilities.includes("thinking")) body.think = think === "on" ? true : think === "off" ? false : think;
  return {
    chat: body,
    ...(inForce ? { preset: inForce.name, variables: Object.fromEntries(given) } : preset ? { preset } : {}),
    resume_window: RESUME_WINDOW,
  };
}

/** Characters of the turns that go to the model; a stand-in for tokens where only a ratio is wanted.
 * @param {Turn[]} turns */
const lengthOf = (turns) =>
  turns.reduce((sum, turn) => sum + (turn.omitted ? 0 : turn.prompt.length + (shownAnswer(turn)?.text.length ?? 0)), 0);

/**
 * How full the context is for the next prompt, or null where that is not known. Ollama counted the last
 * answer's tokens; turns that were dropped or deleted since then take their share of it away.
 * @param {Chat} chat @param {Turn[]} turns @param {Model | undefined} model
 */
export function contextUse(chat, turns, model) {
  const limit = chat.settings.num_ctx ?? model?.loaded_context_length ?? model?.context_length;
  const answer = turns.map(shownAnswer).findLast((past) => past?.figures?.promptTokens);
  if (!limit || !answer?.figures) return null;
  const { promptTokens, tokens } = answer.figures;
  const share = Math.min(1, lengthOf(turns) / (answer.sentLength + answer.text.length || 1));
  const used = Math.round((promptTokens + tokens) * share);
  return { used, limit, share: Math.min(1, used / limit) };
}

/** Leave out the oldest turns until half of the text is left; the last turn always stays. @param {Turn[]} turns */
export function dropOldest(turns) {
  const goal = lengthOf(turns) / 2;
  let left = lengthOf(turns);
  return turns.map((turn, i) => {
    if (turn.omitted || left <= goal || i === turns.length - 1) return turn;
    left -= lengthOf([turn]);
    return { ...turn, omitted: true };
  });
}

/** The first line of a prompt, short. @param {string} prompt */
export function titleOf(prompt) {
  const line = prompt.trim().split("\n", 1)[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

/**
 * Download progress over all layers: one layer's percentage jumps back whenever the next one begins.
 * @param {Pull} pull @param {any} line @param {number} now @returns {Pull}
 */
export function reducePull(pull, line, now) {
  const next = { ...pull, status: line.status ?? pull.status, done: line.status === "success" };
  if (!line.digest) return next;
  next.layers = { ...pull.layers, [line.digest]: [line.completed ?? 0, line.total ?? 0] };
  const { completed } = pullTotals(next);
  // A few seconds of samples: a speed that neither jumps nor remembers a stalled start.
  next.samples = [...pull.samples.filter(([at]) => now - at < 5_000), [now, completed]];
  return next;
}

/** @param {Pull} pull */
export function pullTotals(pull) {
  let completed = 0;
  let total = 0;
  for (const [have, all] of Object.values(pull.layers)) {
    completed += have;
    total += all;
  }
  const [from, to] = [pull.samples[0], pull.samples.at(-1)];
  const speed = from && to && to[0] > from[0] ? ((to[1] - from[1]) * 1000) / (to[0] - from[0]) : 0;
  return { completed, total, speed, remainingMs: speed > 0 ? ((total - completed) / speed) * 1000 : 0 };
}
