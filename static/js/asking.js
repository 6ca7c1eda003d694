/** Prompts and their answers: ask, follow, stop, ask again; in whichever tab. */
import { fail, newAnswer } from "./answer.js";
import { dropOldest, lengthOf, presetOf, requestFor } from "./request.js";
import { isActive, MAX_RUNNING, NO_SETTINGS, newTurn, settled, titleOf } from "./state.js";
import { followersOf, parentOf, pathOf, versionsOf } from "./tree.js";

/** @import { Answer, Chat, Image, TextFile, Turn } from "./types.js" */

/** @typedef {import("./api.js").ApiError} ApiError */

export class Asking {
  #store;
  #keeper;
  #server;
  #reading;

  /**
   * @param {import("./state.js").Store} store @param {import("./keeper.js").Keeper} keeper
   * @param {import("./server.js").Server} server @param {import("./reading.js").Reading} reading
   */
  constructor(store, keeper, server, reading) {
    this.#store = store;
    this.#keeper = keeper;
    this.#server = server;
    this.#reading = reading;
  }

  get #state() {
    return this.#store.state;
  }

  get #turns() {
    return this.#state.turns[this.#state.chat.id] ?? [];
  }

  /**
   * @param {string} prompt @param {Image[]} images @param {TextFile[]} files
   * @returns {boolean} whether it was taken
   */
  send(prompt, images, files) {
    const { chat } = this.#state;
    const turn = newTurn(prompt, images, files, pathOf(this.#turns).at(-1));
    const title = chat.title || titleOf(prompt) || (files[0]?.name ?? "");
    return this.#begin({ ...chat, title }, turn);
  }

  /** Another answer to the same prompt; the earlier ones stay. @param {string} turnId @param {string} [model] */
  regenerate(turnId, model) {
    const turn = this.#turns.find((turn) => turn.id === turnId);
    if (turn) this.#begin(this.#state.chat, turn, model);
  }

  /** Ask differently, beside the old prompt and what followed it. @param {string} turnId @param {string} prompt */
  edit(turnId, prompt) {
    const { chat } = this.#state;
    const old = this.#turns.find((turn) => turn.id === turnId);
    if (!old) return;
    const before = this.#turns.find(({ id }) => id === parentOf(this.#turns, turnId));
    const follows = !before && !chat.renamed && prompt.trim();
    const turn = newTurn(prompt, old.images, old.files, before);
    this.#begin(follows ? { ...chat, title: titleOf(prompt) } : chat, turn);
  }

  /** Show the version of a prompt before or after this one. @param {string} turnId @param {number} step */
  choose(turnId, step) {
    const versions = versionsOf(this.#turns, turnId);
    const other = versions[versions.findIndex(({ id }) => id === turnId) + step];
    const chosen = Math.max(Date.now(), ...versions.map((turn) => turn.chosen + 1));
    if (other) this.#keeper.patchTurns(this.#state.chat.id, [{ id: other.id, chosen }]);
  }

  /** @param {string} turnId */
  deleteTurn(turnId) {
    const { chat } = this.#state;
    const turn = this.#turns.find((turn) => turn.id === turnId);
    if (!turn) return;
    if (turn.answers.some(isActive)) this.stop();
    const parent = parentOf(this.#turns, turnId);
    const shown = pathOf(this.#turns);
    const next = shown[shown.findIndex(({ id }) => id === turnId) + 1];
    const followers = followersOf(this.#turns, turnId);
    // What followed it stays in view, and not a version that stood beside it.
    const patches = followers.map(({ id, chosen }) => ({ id, parent, chosen: id === next?.id ? Date.now() : chosen }));
    this.#keeper.deleteTurn(chat.id, turnId, patches);
    const undo = () => void this.#keeper.restore(chat, [settled(turn), ...followers]);
    this.#store.notice({ key: "turnDeleted", undo });
  }

  dropOldest() {
    const { chat } = this.#state;
    const before = pathOf(this.#turns);
    const dropped = dropOldest(before).filter((turn, i) => turn.omitted && !before[i]?.omitted);
    const patch = (/** @type {boolean} */ omitted) =>
      this.#keeper.patchTurns(
        chat.id,
        dropped.map(({ id }) => ({ id, omitted })),
      );
    patch(true);
    this.#store.notice({ key: "turnsDropped", undo: () => patch(false) });
  }

  /** @param {string} turnId @param {number} shown index of the answer */
  show(turnId, shown) {
    this.#keeper.patchTurns(this.#state.chat.id, [{ id: turnId, shown }]);
  }

  /** Stop what runs in a chat, in whatever phase it is. @param {string} chatId */
  stop(chatId = this.#state.chat.id) {
    for (const place of Object.values(this.#state.running)) if (place.chat === chatId) this.#reading.stop(place);
  }

  /** The request behind an answer: what would be sent for it now, with the settings of then. @param {string} turnId */
  requestOf(turnId) {
    const turn = this.#turns.find((turn) => turn.id === turnId);
    const answer = turn?.answers[turn.shown];
    if (!turn || !answer) return null;
    const { chat } = this.#state;
    return this.#request({ ...chat, settings: { ...NO_SETTINGS, ...answer.sent } }, turn, answer.model);
  }

  /** @param {Chat} chat @param {Turn} turn @param {string} model */
  #request(chat, turn, model) {
    const capabilities = this.#state.models.find((known) => known.name === model)?.capabilities ?? [];
    const turns = pathTo(this.#state.turns[chat.id] ?? [], turn.id);
    return requestFor(chat, turns, turn, model, capabilities, presetOf(this.#state, chat));
  }

  /** @param {Chat} chat @param {Turn} turn @param {string} [model] @returns {boolean} whether it was taken */
  #begin(chat, turn, model = this.#server.model()) {
    this.stop(chat.id);
    const { running, pull } = this.#state;
    if (Object.keys(running).length + (pull && !pull.failure ? 1 : 0) >= MAX_RUNNING) {
      this.#store.notice({ key: "tooMany", vars: { n: MAX_RUNNING } });
      return false;
    }
    const sent = Object.entries(chat.settings).filter(
      ([name, value]) => JSON.stringify(value) !== JSON.stringify(NO_SETTINGS[/** @type {"think"} */ (name)]),
    );
    const before = pathTo(this.#turns, turn.parent);
    const answer = newAnswer(model, Object.fromEntries(sent), lengthOf([...before, turn]));
    void this.#ask({ ...chat, updated: Date.now() }, turn, answer);
    return true;
  }

  /** @param {Chat} chat @param {Turn} turn @param {Answer} answer */
  async #ask(chat, turn, answer) {
    const place = { chat: chat.id, turn: turn.id, id: answer.id };
    const outcome = await this.#keeper.begin(chat, turn, answer);
    if (outcome === "gone") {
      this.#reading.end(place);
      this.#keeper.forget(chat.id);
      this.#store.notice({ key: "deletedElsewhere" });
      return;
    }
    if (outcome === "busy") {
      this.#keeper.setAnswer(place, (answer) => fail(answer, { error: "", code: "too_many", retryable: true }));
      this.#reading.end(place);
    } else await this.#reading.start(place, () => this.#request(chat, turn, answer.model));
    void this.#server.refresh();
  }
}

/** The turns that lead to one, and it. @param {Turn[]} turns @param {string} id */
function pathTo(turns, id) {
  const path = [];
  for (let at = id; at; at = parentOf(turns, at)) {
    const turn = turns.find((turn) => turn.id === at);
    if (!turn) break;
    path.unshift(turn);
  }
  return path;
}
