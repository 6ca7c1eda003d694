/** The gateway's routes as functions: shapes, errors, keys. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Api, ApiError } from "../../static/js/api.js";

let answers = [];
let asked = [];

beforeEach(() => {
  answers = [];
  asked = [];
  globalThis.fetch = async (url, options) => {
    asked.push({ url, ...options });
    const answer = answers.shift();
    if (!answer) throw new TypeError("refused");
    return answer;
  };
});

const answer = (status, body) => new Response(body === undefined ? null : JSON.stringify(body), { status });

test("models, presets and streams", async () => {
  const api = new Api();
  answers = [
    answer(200, { models: [] }),
    answer(200, { presets: [] }),
    answer(201, { url: "/api/streams/s" }),
    answer(204),
  ];
  assert.deepEqual(await api.models(), { models: [] });
  assert.deepEqual(await api.presets(), { presets: [] });
  assert.deepEqual(await api.createStream({ chat: {} }), { url: "/api/streams/s" });
  assert.equal(await api.deleteStream("/api/streams/s"), null);
  assert.deepEqual(
    asked.map(({ method, url }) => `${method} ${url}`),
    ["GET /api/models", "GET /api/presets", "POST /api/streams", "DELETE /api/streams/s"],
  );
  assert.equal(asked[2].body, '{"chat":{}}');
  assert.equal(asked[2].headers["Content-Type"], "application/json");
});

test("an error carries the gateway's code and text", async () => {
  answers = [answer(503, { error: "full", code: "busy" })];
  const error = await new Api().models().catch((error) => error);
  assert.ok(error instanceof ApiError);
  assert.deepEqual([error.message, error.code, error.status, error.retryable], ["full", "busy", 503, true]);
});

test("a proxy's page of HTML is an error with its status", async () => {
  answers = [new Response("<h1>Bad gateway</h1>", { status: 502, statusText: "Bad Gateway" })];
  const error = await new Api().models().catch((error) => error);
  assert.deepEqual([error.message, error.code], ["Bad Gateway", "http_502"]);
});

test("a start whose answer is lost is sent again, with the same key; a refusal is not", async () => {
  answers = [undefined, new Response("<h1>", { status: 502 }), answer(201, { url: "/api/streams/s" })];
  assert.deepEqual(await new Api().createStream({ chat: {} }), { url: "/api/streams/s" });
  assert.equal(asked.length, 3);
  assert.equal(new Set(asked.map(({ headers }) => headers["Idempotency-Key"])).size, 1);
  answers = [new Response("<h1>", { status: 413 })];
  assert.equal((await new Api().createStream({ chat: {} }).catch((error) => error)).status, 413);
  assert.equal(asked.length, 4);
});

test("a gateway that does not answer has a code of its own", async () => {
  const error = await new Api().models().catch((error) => error);
  assert.deepEqual([error.code, error.status, error.retryable], ["gateway_unreachable", 0, true]);
});

test("401 asks for a key and tries again", async () => {
  const api = new Api();
  answers = [answer(401, { error: "key", code: "unauthorized" }), answer(200, { models: [] })];
  let asks = 0;
  api.onUnauthorized = async () => ++asks === 1;
  await api.models();
  assert.equal(asks, 1);
});

test("401 stays an error when no key is given", async () => {
  answers = [answer(401, { error: "key", code: "unauthorized" })];
  await assert.rejects(new Api().models(), { code: "unauthorized" });
});

test("the key goes into one header, once", async () => {
  answers = [answer(204)];
  await new Api().signIn("secret");
  assert.equal(asked[0].url, "/api/session");
  assert.deepEqual(asked[0].headers, { Authorization: "Bearer secret" });
});
