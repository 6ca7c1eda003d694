/** What the page knows, as `types.d.ts` describes it. No DOM, no network, no storage. */

/** @import { Answer, Chat, Image, Notice, Settings, State, TextFile, Turn } from "./types.js" */

/** Seconds an answer goes on without a reader: a reload, a tunnel, a phone that sleeps for a moment. */
export const RESUME_WINDOW = 120;
/**
 * Streams that are read at once, in all tabs together, a pull included: HTTP/1.1 allows six connections to an origin,
 * and where all of them wait for tokens no page loads and nothing can be stopped.
 */
export const MAX_RUNNING = 3;

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
  return { id: newId(), title: "", renamed: false, created: now, updated: now, model, settings };
}

/**
 * @param {string} prompt @param {Image[]} images @param {TextFile[]} [files] @param {Turn} [after]
 * @returns {Turn}
 */
export function newTurn(prompt, images, files = [], after) {
  // Later than what it follows, whatever the clock says.
  const at = Math.max(Date.now(), (after?.at ?? 0) + 1);
  const parent = after?.id ?? "";
  return { id: newId(), at, parent, chosen: at, prompt, images, files, answers: [], shown: 0, omitted: false };
}

/** @returns {State} */
export function initialState() {
  return {
    chats: [],
    chat: newChat("", NO_SETTINGS),
    turns: {},
    running: {},
    attached: 0,
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
  /** @type {((notice: Notice) => void) | null} */ #tell = null;
  /** @type {Notice[]} */ #untold = [];

  /** @param {Partial<State>} patch */
  set(patch) {
    this.state = { ...this.state, ...patch };
    this.dispatchEvent(new Event("change"));
  }

  /** Tell a person something in passing, as soon as there is a page to tell it on. @param {Notice} notice */
  notice(notice) {
    if (this.#tell) this.#tell(notice);
    else this.#untold.push(notice);
  }

  /** @param {(notice: Notice) => void} tell */
  onNotice(tell) {
    this.#tell = tell;
    this.#untold.forEach(tell);
  }
}

/** @param {Answer | undefined} answer */
export const isActive = (answer) =>
  answer?.status === "connecting" || answer?.status === "streaming" || answer?.status === "reconnecting";

/** @param {Turn} turn */
export const shownAnswer = (turn) => turn.answers[turn.shown];

/** @param {State} state @param {string} chatId */
export const isRunning = ({ running }, chatId) => Object.values(running).some(({ chat }) => chat === chatId);

/** The first line of a prompt, short. @param {string} prompt */
export function titleOf(prompt) {
  const line = prompt.trim().split("\n", 1)[0] ?? "";
  return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

/** A turn that is brought back has no stream any more. @param {Turn} turn @returns {Turn} */
export const settled = (turn) => ({
  ...turn,
  answers: turn.answers.map((answer) => (isActive(answer) ? { ...answer, status: "cancelled" } : answer)),
});
