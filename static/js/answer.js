/** One answer, from its first event to its last. Pure. */
import { isActive, newId } from "./state.js";

/** @import { Answer, Failure, Figures, Settings } from "./types.js" */

/** The stream is gone: ended long ago, or its gateway was restarted. @type {Failure} */
export const LOST = Object.freeze({ error: "", code: "lost_gone", retryable: true });

/** @param {string} model @param {Partial<Settings>} sent @param {number} sentLength @returns {Answer} */
export function newAnswer(model, sent, sentLength) {
  const now = Date.now();
  return {
    id: newId(),
    model,
    status: "connecting",
    text: "",
    thinking: "",
    thinkingMs: 0,
    thinksInText: false,
    tools: [],
    failure: null,
    figures: null,
    url: "",
    lastId: "",
    sent,
    sentLength,
    startedAt: now,
    phase: "",
    position: 0,
    reason: "",
    dueAt: 0,
    progress: 0,
    phaseAt: now,
    steps: [],
    thinkingAt: 0,
    firstAt: 0,
    lastAt: 0,
    pieces: 0,
    caughtUpAt: 0,
  };
}

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
    case "meta":
      return { ...answer, url: event.url };
    case "status": {
      const { phase, position = 0, reason = "", eta_ms = 0, progress = 0 } = event;
      return enterPhase(
        { ...answer, status: "streaming", position, reason, dueAt: eta_ms && now + eta_ms, progress },
        phase,
        now,
      );
    }
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
  const { content, thinking, tool_calls } = chunk.message ?? {};
  const calls = (tool_calls ?? []).map((/** @type {any} */ call) => call.function).filter(Boolean);
  let next = answer;
  if (content || thinking || calls.length) {
    next = enterPhase({ ...next, status: "streaming", position: 0 }, "generating", now);
    next = { ...next, firstAt: next.firstAt || now, lastAt: now, pieces: next.pieces + 1 };
  }
  if (thinking) next = { ...next, thinking: next.thinking + thinking, thinkingAt: next.thinkingAt || now };
  if (content) next = addText(next, content, now);
  if ((next.text || calls.length || chunk.done) && next.thinkingAt && !next.thinkingMs)
    next = { ...next, thinkingMs: Math.max(1, now - next.thinkingAt) };
  if (calls.length) next = { ...next, tools: [...next.tools, ...calls] };
  return chunk.done ? { ...next, status: "done", figures: figuresOf(next, chunk) } : next;
}

const THINK = /^\s*<think(?:ing)?>/;
const THINK_END = /<\/think(?:ing)?>\s*/;

/**
 * Some models put their thoughts before the answer itself, in tags: they are thoughts as well.
 * @param {Answer} answer @param {string} content @param {number} now @returns {Answer}
 */
function addText(answer, content, now) {
  if (!answer.thinksInText) {
    const text = answer.text + content;
    const begin = answer.thinking ? null : THINK.exec(text);
    if (!begin) return { ...answer, text };
    const thoughts = { ...answer, text: "", thinksInText: true, thinkingAt: now };
    return addText(thoughts, text.slice(begin[0].length), now);
  }
  const thinking = answer.thinking + content;
  const end = THINK_END.exec(thinking);
  if (!end) return { ...answer, thinking };
  const text = thinking.slice(end.index + end[0].length);
  return { ...answer, thinking: thinking.slice(0, end.index).trim(), text, thinksInText: false };
}

/** @param {Answer} answer @param {any} chunk @returns {Figures} */
function figuresOf(answer, chunk) {
  const tokens = chunk.eval_count ?? 0;
  const seconds = (chunk.eval_duration ?? 0) / 1e9;
  return {
    promptTokens: chunk.prompt_eval_count ?? 0,
    tokens,
    tokensPerSecond: seconds ? tokens / seconds : 0,
    firstTokenMs: answer.firstAt ? answer.firstAt - answer.startedAt : 0,
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
    next.figures = { ...next.figures, firstTokenMs };
  }
  if (isActive(next)) next.status = event.outcome === "cancelled" ? "cancelled" : "failed";
  return next;
}

/** @param {string} id  of an event */
export const numberOf = (id) => Number(id.split("-")[1] ?? 0);

/** Tokens per second so far, from the pieces that arrived. @param {Answer} answer @param {number} now */
export function liveRate(answer, now) {
  const seconds = (now - answer.firstAt) / 1000;
  return answer.firstAt && seconds > 0.5 ? (answer.pieces - 1) / seconds : 0;
}
