/** The state: how an answer takes its events, what is sent, what is counted. */
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { test } from "node:test";
import * as answers from "../../static/js/answer.js";
import * as pulls from "../../static/js/pull.js";
import * as requests from "../../static/js/request.js";
import * as revive from "../../static/js/revive.js";
import * as state from "../../static/js/state.js";

const S = { ...answers, ...pulls, ...requests, ...revive, ...state };
globalThis.crypto ??= webcrypto; // Node 18 has it there only

const line = (content, more = {}) => ({
  type: "chunk",
  id: "s-1",
  chunk: { message: { content, ...more }, done: false },
});
const status = (phase, position) => ({ type: "status", phase, position, elapsed_ms: 0 });
const DONE = {
  type: "chunk",
  id: "s-9",
  chunk: { done: true, done_reason: "stop", prompt_eval_count: 30, eval_count: 20, eval_duration: 5e8 },
};
const end = (outcome) => ({ type: "end", id: "s-10", outcome, events: 9, first_token_ms: 120, elapsed_ms: 900 });

/** An answer after these events, one every 100 ms. */
function after(...events) {
  let now = 1_000;
  const answer = { ...S.newAnswer("m", {}, 0), startedAt: now, phaseAt: now };
  return events.reduce((before, event) => {
    now += 100;
    return S.reduceAnswer(before, event, now);
  }, answer);
}

test("a whole answer: queued, loaded, written, counted", () => {
  const answer = after(
    status("queued", 2),
    status("loading"),
    status("prompt"),
    line("Hel"),
    line("lo"),
    DONE,
    end("complete"),
  );
  assert.equal(answer.status, "done");
  assert.equal(answer.text, "Hello");
  assert.equal(answer.lastId, "s-10");
  assert.deepEqual(answer.steps, [
    { phase: "queued", ms: 100 },
    { phase: "loading", ms: 100 },
    { phase: "prompt", ms: 100 },
  ]);
  assert.deepEqual(answer.figures, {
    promptTokens: 30,
    tokens: 20,
    tokensPerSecond: 40,
    firstTokenMs: 120,
    reason: "stop",
  });
});

test("the status follows the stream", () => {
  assert.equal(after().status, "connecting");
  assert.equal(after({ type: "open" }).status, "connecting");
  assert.equal(after(status("loading")).status, "streaming");
  assert.equal(after(status("queued", 3)).position, 3);
  const cut = [line("a"), { type: "reconnecting" }];
  assert.equal(after(...cut).status, "reconnecting");
  assert.equal(after(...cut, { type: "open" }).status, "streaming");
  assert.equal(after(...cut, { type: "open" }).caughtUpAt, 1_300);
});

test("thoughts in tags before the answer are thinking, however they are cut", () => {
  const text = "\n<think>\nfirst <b>\n</think>\n\nThe *answer*, with <think> in it.";
  for (let size = 1; size < text.length; size++) {
    const pieces = text.match(new RegExp(`[\\s\\S]{1,${size}}`, "g"));
    const answer = after(...pieces.map((piece) => line(piece)), DONE);
    assert.deepEqual([answer.thinking, answer.text.trim()], ["first <b>", "The *answer*, with <think> in it."]);
    assert.ok(answer.thinkingMs > 0);
  }
  const open = after(line("<think>still"), line(" open"));
  assert.deepEqual([open.thinking, open.text, open.thinkingMs], ["still open", "", 0]);
  assert.equal(after(line("a <think> b </think> c")).text, "a <think> b </think> c");
});

test("thinking is kept apart and timed", () => {
  const thinking = after(line("", { thinking: "a" }), line("", { thinking: "b" }));
  assert.deepEqual([thinking.thinking, thinking.text, thinking.thinkingMs], ["ab", "", 0]);
  assert.equal(after(line("", { thinking: "a" }), line("x"), line("y")).thinkingMs, 100);
  assert.equal(after(line("", { thinking: "a" }), DONE).thinkingMs, 100);
});

test("tool calls are collected from any line, the last one too", () => {
  const call = (name) => ({ tool_calls: [{ function: { name, arguments: {} } }] });
  const answer = after(line("", call("a")), { ...DONE, chunk: { ...DONE.chunk, message: call("b") } });
  assert.deepEqual(
    answer.tools.map((tool) => tool.name),
    ["a", "b"],
  );
  assert.equal(answer.status, "done");
});

test("an error keeps the text", () => {
  const answer = after(
    line("half"),
    { type: "error", id: "s-2", error: "gone", code: "truncated", retryable: true },
    end("error"),
  );
  assert.deepEqual([answer.status, answer.text, answer.failure.code], ["failed", "half", "truncated"]);
});

test("cancelled is no failure", () => {
  const answer = after(
    line("half"),
    { type: "error", id: "s-2", error: "stopped", code: "cancelled" },
    end("cancelled"),
  );
  assert.deepEqual([answer.status, answer.text, answer.failure], ["cancelled", "half", null]);
});

test("what arrives after a stop is not taken", () => {
  const stopped = { ...after(line("a")), status: "cancelled" };
  assert.equal(S.reduceAnswer(stopped, line("b"), 0).text, "a");
  assert.equal(S.reduceAnswer(stopped, { type: "reconnecting" }, 0).status, "cancelled");
});

test("an end without a terminal message is not passed off as complete", () => {
  assert.equal(after(line("a"), end("complete")).status, "failed");
});

test("a lost stream can be tried again", () => {
  const answer = after(line("a"), { type: "lost", code: "gone" });
  assert.deepEqual([answer.status, answer.failure.code, answer.failure.retryable], ["failed", "lost_gone", true]);
});

test("the rate is that of the pieces", () => {
  const answer = { ...after(), firstAt: 1_000, pieces: 41 };
  assert.equal(S.liveRate(answer, 3_000), 20);
  assert.equal(S.liveRate(answer, 1_100), 0);
});

const turn = (prompt, text, more = {}) => ({
  ...S.newTurn(prompt, []),
  answers: text ? [{ ...S.newAnswer("m", {}, 0), status: "done", text }] : [],
  ...more,
});
const chat = (settings = {}) => S.newChat("m", { ...S.NO_SETTINGS, ...settings });

test("a request has the turns before it, and no others", () => {
  const turns = [turn("a", "A"), turn("b", "B", { omitted: true }), turn("c", ""), turn("d", "D"), turn("e", "E")];
  const request = S.requestFor(chat({ system: "Be brief" }), turns, turns[3], "m", []);
  assert.deepEqual(
    request.chat.messages.map(({ role, content }) => [role, content]),
    [
      ["system", "Be brief"],
      ["user", "a"],
      ["assistant", "A"],
      ["user", "c"],
      ["user", "d"],
    ],
  );
  assert.equal(request.resume_window, S.RESUME_WINDOW);
  assert.deepEqual(Object.keys(request).sort(), ["chat", "resume_window"]);
  assert.deepEqual(Object.keys(request.chat).sort(), ["messages", "model"]);
});

test("only what was set is sent", () => {
  const settings = { temperature: 0, seed: 7, think: "on" };
  const turns = [turn("a", "")];
  const request = S.requestFor(chat(settings), turns, turns[0], "m", ["thinking"]);
  assert.deepEqual(request.chat.options, { temperature: 0, seed: 7 });
  assert.equal(request.chat.think, true);
  // A model that cannot think answers 400 to the question.
  assert.equal("think" in S.requestFor(chat(settings), turns, turns[0], "m", []).chat, false);
});

test("with a preset only what it leaves to the client is sent", () => {
  const settings = {
    system: "Be brief",
    temperature: 0,
    seed: 7,
    think: "on",
    preset: "p",
    variables: { tone: "dry", mood: "", gone: "x" },
  };
  const turns = [turn("a", "")];
  const variables = [{ name: "tone" }, { name: "mood", default: "calm" }];
  const sent = (overrides) =>
    S.requestFor(chat(settings), turns, turns[0], "m", ["thinking"], { name: "p", overrides, variables });
  assert.deepEqual(sent([]), {
    chat: { messages: [{ role: "user", content: "a" }] },
    preset: "p",
    variables: { tone: "dry" },
    resume_window: S.RESUME_WINDOW,
  });
  assert.deepEqual(sent(["options.seed"]).chat.options, { seed: 7 });
  const all = sent(["model", "system", "think", "options"]).chat;
  assert.deepEqual(
    [all.model, all.messages.length, all.think, all.options],
    ["m", 2, true, { temperature: 0, seed: 7 }],
  );
});

test("images go to models that see, as bare base64", () => {
  const turns = [turn("a", "", { images: [{ id: "i", url: "data:image/png;base64,QUJD" }] })];
  assert.deepEqual(S.requestFor(chat(), turns, turns[0], "m", ["vision"]).chat.messages[0].images, ["QUJD"]);
  assert.equal("images" in S.requestFor(chat(), turns, turns[0], "m", []).chat.messages[0], false);
});

test("the context gauge follows what is sent", () => {
  const counted = { promptTokens: 3_000, tokens: 1_000, tokensPerSecond: 1, firstTokenMs: 1, reason: "" };
  const turns = [turn("a".repeat(500), "b".repeat(500)), turn("c".repeat(500), "d".repeat(500))];
  turns[1].answers[0] = { ...turns[1].answers[0], figures: counted, sentLength: 1_500 };
  const model = { loaded_context_length: 8_000, context_length: 100_000 };
  assert.deepEqual(S.contextUse(chat(), turns, model), { used: 4_000, limit: 8_000, share: 0.5 });
  assert.equal(S.contextUse(chat({ num_ctx: 4_000 }), turns, model).share, 1);
  const dropped = S.dropOldest(turns);
  assert.deepEqual(
    dropped.map((one) => one.omitted),
    [true, false],
  );
  assert.equal(S.contextUse(chat(), dropped, model).used, 2_000);
  assert.equal(S.contextUse(chat(), [turn("a", "b")], model), null);
  assert.equal(S.contextUse(chat(), turns, undefined), null);
  assert.equal(S.contextUse(chat(), turns, model, 4_000).used, 5_000);
  assert.equal(S.contextUse(chat(), [], model, 4_000).used, 1_000);
});

test("the last turn is never dropped", () => {
  assert.deepEqual(
    S.dropOldest([turn("a".repeat(999), "")]).map((one) => one.omitted),
    [false],
  );
});

test("a title is one short line", () => {
  assert.equal(S.titleOf("  Hello\nworld"), "Hello");
  assert.equal(S.titleOf("x".repeat(99)).length, 60);
});

test("a pull is measured over all its layers", () => {
  let pull = S.newPull("m");
  pull = S.reducePull(pull, { status: "pulling manifest" }, 0);
  pull = S.reducePull(pull, { status: "pulling a", digest: "a", total: 1_000 }, 0);
  pull = S.reducePull(pull, { status: "pulling a", digest: "a", total: 1_000, completed: 500 }, 1_000);
  pull = S.reducePull(pull, { status: "pulling b", digest: "b", total: 1_000, completed: 500 }, 2_000);
  assert.deepEqual(S.pullTotals(pull), { completed: 1_000, total: 2_000, speed: 500, remainingMs: 2_000 });
  assert.equal(S.reducePull(pull, { status: "success" }, 3_000).done, true);
});

test("a turn from an old or foreign file is completed, and fetches nothing", () => {
  const revived = S.reviveTurn({
    id: "t",
    prompt: "p",
    images: ["https://evil.example/x.png", "data:image/png;base64,QUJD"],
    answers: [{ text: "x" }],
  });
  assert.deepEqual(
    revived.images.map(({ url }) => url),
    ["data:image/png;base64,QUJD"],
  );
  assert.deepEqual(revived.answers[0].steps, []);
  assert.equal(revived.answers[0].text, "x");
});

test("ids do not need a secure context", () => {
  assert.match(S.newId(), /^[0-9a-f]{24}$/);
  assert.notEqual(S.newId(), S.newId());
});
