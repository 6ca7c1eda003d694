/**
 * Records of another version, or of another hand, made whole: whatever is in them, the page can show them. Pure.
 */
import { newAnswer } from "./answer.js";
import { NO_SETTINGS, newChat, newId, newTurn } from "./state.js";

/** @import { Answer, Chat, Settings, Turn } from "./types.js" */

/** @param {unknown} value @returns {value is Record<string, any>} */
const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
/** @param {unknown} value @returns {any[]} */
const records = (value) => (Array.isArray(value) ? value.filter(isRecord) : []);
const STATUSES = ["connecting", "streaming", "reconnecting", "done", "failed", "cancelled"];

/**
 * The fields of `whole`, from `raw` where they have the same type there.
 * @template {Record<string, any>} T @param {T} whole @param {Record<string, any>} raw @returns {T}
 */
function like(whole, raw) {
  const fields = Object.entries(whole).map(([name, value]) => {
    const given = raw[name];
    const same = typeof given === typeof value && Array.isArray(given) === Array.isArray(value) && given !== null;
    return [name, same && (typeof given !== "number" || Number.isFinite(given)) ? given : value];
  });
  return Object.fromEntries(fields);
}

/** @param {unknown} raw @returns {Chat | null} null: not to be shown */
export function reviveChat(raw) {
  if (!isRecord(raw) || typeof raw.id !== "string" || !raw.id) return null;
  return {
    ...like({ ...newChat("", NO_SETTINGS), created: 0, updated: 0 }, raw),
    settings: reviveSettings(raw.settings),
  };
}

/** @param {unknown} raw @returns {Settings} */
export function reviveSettings(raw) {
  const given = isRecord(raw) ? raw : {};
  const { temperature, num_ctx, num_predict, seed, ...texts } = NO_SETTINGS;
  const number = (/** @type {string} */ name) => (Number.isFinite(given[name]) ? given[name] : null);
  const variables = Object.entries(isRecord(given.variables) ? given.variables : {}).filter(
    ([, value]) => typeof value === "string",
  );
  return {
    ...like(texts, given),
    variables: Object.fromEntries(variables),
    temperature: number("temperature"),
    num_ctx: number("num_ctx"),
    num_predict: number("num_predict"),
    seed: number("seed"),
  };
}

/** @param {unknown} raw @returns {Turn | null} */
export function reviveTurn(raw) {
  if (!isRecord(raw) || typeof raw.id !== "string" || !raw.id) return null;
  const turn = { ...like({ ...newTurn("", []), at: 0, parent: "?", chosen: 0 }, raw), id: raw.id };
  turn.answers = records(raw.answers).map(reviveAnswer);
  turn.shown = Math.max(0, Math.min(Math.trunc(turn.shown), turn.answers.length - 1));
  const urls = Array.isArray(raw.images) ? raw.images.map((image) => image?.url ?? image) : [];
  // Nothing is fetched because a file named an address.
  turn.images = urls
    .map((url, i) => ({ id: typeof raw.images[i]?.id === "string" ? raw.images[i].id : newId(), url }))
    .filter(({ url }) => typeof url === "string" && /^data:image\/[\w.+-]+;base64,/.test(url));
  turn.files = records(raw.files).map((file) => like({ name: "", text: "" }, file));
  return turn;
}

/** @param {Record<string, any>} raw @returns {Answer} */
export function reviveAnswer(raw) {
  const answer = { ...like({ ...newAnswer("", {}, 0), startedAt: 0, phaseAt: 0 }, raw) };
  if (!STATUSES.includes(answer.status)) answer.status = "done";
  if (isRecord(raw.failure)) answer.failure = { ...raw.failure, ...like({ error: "", code: "" }, raw.failure) };
  const figures = { promptTokens: 0, tokens: 0, tokensPerSecond: 0, firstTokenMs: 0, reason: "" };
  if (isRecord(raw.figures)) answer.figures = like(figures, raw.figures);
  answer.tools = records(raw.tools).map(({ name, arguments: given }) => ({ name: String(name), arguments: given }));
  answer.steps = records(raw.steps).map((step) => like({ phase: "", ms: 0 }, step));
  return answer;
}

/**
 * Turns from what is stored of them. Pieces may overlap where two tabs read a stream for a moment, and one may be
 * missing: their text says where in the answer it begins.
 * @param {any[]} turns @param {any[]} images @param {any[]} answers @param {any[]} pieces @returns {Turn[]}
 */
export function assemble(turns, images, answers, pieces) {
  const urls = new Map(images.map((image) => [image.id, image]));
  const grown = grouped(pieces, ({ turn, answer }) => `${turn} ${answer}`);
  const given = grouped(answers, ({ turn }) => turn);
  const whole = turns.map((turn) =>
    reviveTurn({
      ...turn,
      images: (Array.isArray(turn.images) ? turn.images : []).map((/** @type {string} */ id) => urls.get(id)),
      answers: (given.get(turn.id) ?? [])
        .map((answer) => withPieces(answer, grown.get(`${turn.id} ${answer.id}`) ?? []))
        .sort((a, b) => a.startedAt - b.startedAt),
    }),
  );
  return whole.filter((turn) => turn !== null).sort((a, b) => a.at - b.at);
}

/** @param {any} answer @param {any[]} pieces */
function withPieces(answer, pieces) {
  const whole = reviveAnswer(answer);
  for (const raw of pieces) {
    const piece = like({ textAt: 0, text: "", thinkingAt: 0, thinking: "", patch: {} }, raw);
    if (piece.textAt > whole.text.length || piece.thinkingAt > whole.thinking.length) continue;
    Object.assign(whole, piece.patch);
    whole.text = whole.text.slice(0, piece.textAt) + piece.text;
    whole.thinking = whole.thinking.slice(0, piece.thinkingAt) + piece.thinking;
  }
  return whole;
}

/** @param {any[]} list @param {(item: any) => string} key @returns {Map<string, any[]>} */
function grouped(list, key) {
  const groups = new Map();
  for (const item of list) {
    const group = groups.get(key(item));
    if (group) group.push(item);
    else groups.set(key(item), [item]);
  }
  return groups;
}
