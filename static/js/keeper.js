/**
 * Between what this tab shows, what the browser keeps, and the other tabs. A change is made in memory, kept as one
 * transaction of exactly what changed, and told to the others, which read it from there.
 */
import { Busy } from "./history.js";
import { merge, pieceOf } from "./merging.js";
import { recall } from "./prefs.js";
import { reviveSettings } from "./revive.js";
import { newChat } from "./state.js";
import { Writer } from "./writer.js";

/** @import { Answer, Chat, Place, Turn } from "./types.js" */

/** An answer that grows is written this often. */
const SAVE_MS = 500;

export class Keeper {
  #store;
  #history;
  #tabs;
  #writer;
  /** Answers that grew since they were written, with what was. @type {Map<string, {place: Place, written: Answer}>} */
  #growing = new Map();
  /** Those whose begin is still being written. @type {Set<string>} */ #beginning = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #saving;
  /** Changes of other tabs are taken one after the other. @type {Promise<void>} */ #taking = Promise.resolve();

  /**
   * @param {import("./state.js").Store} store @param {import("./history.js").History} history
   * @param {import("./tabs.js").Tabs} tabs
   */
  constructor(store, history, tabs) {
    this.#store = store;
    this.#history = history;
    this.#tabs = tabs;
    this.#writer = new Writer(store, history, tabs, () => this.sync());
    const take = (/** @type {() => Promise<void>} */ work) => {
      this.#taking = this.#taking.then(work).catch(() => {});
    };
    tabs.on("saved", (id) => take(() => this.#takeChat(id)));
    tabs.on("imported", () => take(() => this.sync()));
    tabs.on("back", () => take(() => this.sync()));
    tabs.on("drop", (id) => {
      void this.flush();
      this.#growing.delete(id);
    });
  }

  get #state() {
    return this.#store.state;
  }

  /** The list of chats, and what still runs in them; without one the page works all the same. */
  async start() {
    await this.sync().catch((error) => this.#writer.failed(error));
  }

  /** Take over what the browser has: at the start, and after other tabs may have changed it unheard. */
  async sync() {
    const { chats, running } = await this.#history.chats();
    const begins = new Set([...this.#growing.values()].map(({ place }) => place.chat));
    const own = this.#state.chats.filter(
      ({ id }) => (this.#writer.lacks(id) || begins.has(id)) && !chats.some((chat) => chat.id === id),
    );
    this.#store.set({ chats: [...own, ...chats].sort((a, b) => b.updated - a.updated) });
    for (const id of Object.keys(this.#state.turns)) {
      if (!this.#state.chats.some((chat) => chat.id === id)) this.forget(id);
      else if (!this.#writer.lacks(id)) await this.load(id, true);
    }
    this.#setRunning([...running, ...Object.values(this.#state.running).filter(({ id }) => this.#tabs.owns(id))]);
    const open = this.#state.chats.find(({ id }) => id === this.#state.chat.id);
    if (open) this.#store.set({ chat: open });
  }

  /** The turns of a chat; empty where they cannot be read. @param {string} chatId @param {boolean} [again] */
  async load(chatId, again = false) {
    const known = this.#state.turns[chatId];
    if (known && (!again || this.#writer.lacks(chatId))) return known;
    try {
      const stored = await this.#writer.read(chatId, () => this.#history.turns(chatId));
      const merged = merge(this.#state.turns[chatId] ?? [], stored, ({ id }) => this.#beginning.has(id));
      const left = new Set(merged.flatMap((turn) => turn.answers.map(({ id }) => id)));
      this.#stop(({ chat, id }) => chat === chatId && !left.has(id));
      this.#store.set({ turns: { ...this.#state.turns, [chatId]: merged } });
      return merged;
    } catch (error) {
      this.#writer.failed(error);
      return known ?? [];
    }
  }

  /** @param {string} id @param {Partial<Chat>} patch */
  changeChat(id, patch) {
    const { chat, chats } = this.#state;
    const known = chats.find((chat) => chat.id === id);
    if (!known) return chat.id === id ? this.#store.set({ chat: { ...chat, ...patch } }) : undefined;
    this.#putChat({ ...known, ...patch });
    void this.#writer.write(id, () => this.#history.patchChat(id, patch));
  }

  /** @param {Chat} changed */
  #putChat(changed) {
    const { chat, chats } = this.#state;
    const others = chats.filter(({ id }) => id !== changed.id);
    this.#store.set({
      chats: [...others, changed].sort((a, b) => b.updated - a.updated),
      chat: chat.id === changed.id ? changed : chat,
    });
  }

  /** @param {string} chatId @param {string} turnId @param {(turn: Turn) => Turn} change */
  #setTurn(chatId, turnId, change) {
    const turns = this.#state.turns[chatId];
    if (!turns?.some((turn) => turn.id === turnId)) return;
    const changed = turns.map((turn) => (turn.id === turnId ? change(turn) : turn));
    this.#store.set({ turns: { ...this.#state.turns, [chatId]: changed } });
  }

  /** @param {string} chatId @param {(Partial<Turn> & {id: string})[]} patches  none of them with images or answers */
  patchTurns(chatId, patches) {
    for (const patch of patches) this.#setTurn(chatId, patch.id, (turn) => ({ ...turn, ...patch }));
    void this.#writer.write(chatId, () => this.#history.patchTurns(chatId, patches));
  }

  /** @param {string} chatId @param {string} id @param {(Partial<Turn> & {id: string})[]} patches  of what followed it */
  deleteTurn(chatId, id, patches) {
    const left = (this.#state.turns[chatId] ?? []).filter((turn) => turn.id !== id);
    this.#store.set({ turns: { ...this.#state.turns, [chatId]: left } });
    for (const patch of patches) this.#setTurn(chatId, patch.id, (turn) => ({ ...turn, ...patch }));
    void this.#writer.write(chatId, () => this.#history.deleteTurn(chatId, id, patches));
  }

  /** @param {string} id */
  deleteChat(id) {
    this.forget(id);
    return this.#writer.write(id, () => this.#history.deleteChat(id));
  }

  /** Bring back what an undo has kept. @param {Chat} chat @param {Turn[]} turns */
  restore(chat, turns) {
    this.#putChat(chat);
    const others = (this.#state.turns[chat.id] ?? []).filter(({ id }) => !turns.some((turn) => turn.id === id));
    this.#store.set({ turns: { ...this.#state.turns, [chat.id]: [...others, ...turns].sort((a, b) => a.at - b.at) } });
    return this.#writer.write(chat.id, () => this.#history.restore(chat, turns));
  }

  /** Drop a chat from memory. @param {string} id */
  forget(id) {
    const { [id]: _, ...turns } = this.#state.turns;
    this.#store.set({ chats: this.#state.chats.filter((chat) => chat.id !== id), turns });
    if (this.#state.chat.id === id) this.#store.set({ chat: this.newChat() });
  }

  newChat(model = "") {
    return newChat(recall("model") ?? model, reviveSettings(recall("settings")));
  }

  // Answers, from their begin to their end --------------------------------------------------------------

  /**
   * A turn, or another answer to it, begins.
   * @param {Chat} chat @param {Turn} turn @param {Answer} answer
   * @returns {Promise<"ok" | "busy" | "gone">} ok: also where nothing is kept
   */
  async begin(chat, turn, answer) {
    const { chats, turns, running } = this.#state;
    const fresh = !chats.some(({ id }) => id === chat.id) || this.#writer.lacks(chat.id);
    this.#putChat(chat);
    const list = turns[chat.id] ?? [];
    const place = { chat: chat.id, turn: turn.id, id: answer.id };
    const whole = { ...turn, answers: [...turn.answers, answer], shown: turn.answers.length, omitted: false };
    this.#store.set({
      turns: { ...turns, [chat.id]: [...list.filter(({ id }) => id !== turn.id), whole].sort((a, b) => a.at - b.at) },
      running: { ...running, [answer.id]: place },
    });
    this.#growing.set(answer.id, { place, written: answer });
    this.#tabs.own(answer.id);
    this.#beginning.add(answer.id);
    try {
      await this.#writer.write(chat.id, () => this.#history.begin(chat, whole, answer, fresh), true);
      return "ok";
    } catch (error) {
      // What was not begun is kept as a whole with its end.
      if (error instanceof Busy) this.#writer.miss(chat.id);
      return error instanceof Busy ? "busy" : "gone";
    } finally {
      this.#beginning.delete(answer.id);
    }
  }

  /** Change an answer; where this tab reads it, that is written soon. @param {Place} place @param {(answer: Answer) => Answer} change */
  setAnswer(place, change) {
    const before = this.find(place);
    if (!before) return;
    const after = change(before);
    if (after === before) return;
    this.#setTurn(place.chat, place.turn, (turn) => ({
      ...turn,
      answers: turn.answers.map((answer) => (answer.id === place.id ? after : answer)),
    }));
    if (!this.#tabs.owns(place.id)) return;
    if (!this.#growing.has(place.id)) this.#growing.set(place.id, { place, written: before });
    // Without its address an answer could not be found again.
    if (after.url !== before.url) void this.flush();
    else this.#saving ??= setTimeout(() => void this.flush(), SAVE_MS);
  }

  /** An answer has ended, and is kept at once. @param {Place} place */
  async settle(place) {
    this.#growing.delete(place.id);
    this.#tabs.release(place.id);
    const { [place.id]: _, ...running } = this.#state.running;
    this.#store.set({ running });
    const answer = this.find(place);
    const chat = this.#state.chats.find(({ id }) => id === place.chat);
    if (chat && answer) this.#putChat({ ...chat, updated: Date.now() });
    await this.#writer.write(place.chat, () => this.#history.settle(place, answer));
  }

  /** Write what grew, at once, as when the page goes away. */
  async flush() {
    clearTimeout(this.#saving);
    this.#saving = undefined;
    const pieces = [];
    for (const growing of this.#growing.values()) {
      const now = this.find(growing.place);
      if (!now || now === growing.written || this.#writer.lacks(growing.place.chat)) continue;
      pieces.push({ ...growing.place, ...pieceOf(growing.written, now) });
      growing.written = now;
    }
    if (!pieces.length) return;
    try {
      await this.#history.grow(pieces);
    } catch (error) {
      for (const { chat } of pieces) this.#writer.miss(chat);
      this.#writer.failed(error);
    }
  }

  /** @param {{chat: Chat, turns: Turn[]}[]} imported @returns {Promise<{added: number, updated: number, kept: number}>} */
  async merge(imported) {
    try {
      const count = await this.#history.merge(imported);
      this.#tabs.post("imported");
      await this.sync();
      return count;
    } catch (error) {
      this.#writer.failed(error);
      const news = imported.filter(({ chat }) => !this.#state.chats.some(({ id }) => id === chat.id));
      for (const { chat, turns } of news) {
        this.#writer.miss(chat.id);
        this.#putChat(chat);
        this.#store.set({ turns: { ...this.#state.turns, [chat.id]: turns } });
      }
      return { added: news.length, updated: 0, kept: imported.length - news.length };
    }
  }

  /** @param {Place} place */
  find({ chat, turn, id }) {
    return this.#state.turns[chat]?.find((one) => one.id === turn)?.answers.find((answer) => answer.id === id);
  }

  // The other tabs, and the browser's storage ---------------------------------------------------------------

  /** @param {string} id  of a chat that another tab changed */
  async #takeChat(id) {
    if (this.#writer.lacks(id)) return;
    const { chat, running } = await this.#writer.read(id, () => this.#history.chat(id));
    const others = Object.values(this.#state.running).filter((place) => place.chat !== id || this.#tabs.owns(place.id));
    this.#setRunning([...others, ...running]);
    if (chat) {
      this.#putChat(chat);
      if (this.#state.turns[id]) await this.load(id, true);
      return;
    }
    this.#stop((place) => place.chat === id);
    const open = this.#state.chat.id === id;
    this.forget(id);
    if (open) this.#store.notice({ key: "deletedElsewhere" });
  }

  /** Another tab deleted what is being answered here. @param {(place: Place) => boolean} gone */
  #stop(gone) {
    for (const place of Object.values(this.#state.running))
      if (this.#tabs.owns(place.id) && gone(place) && !this.#beginning.has(place.id))
        this.#tabs.dispatchEvent(new CustomEvent("stop", { detail: place }));
  }

  /** @param {Place[]} places */
  #setRunning(places) {
    const before = this.#state.running;
    const running = Object.fromEntries(places.map((place) => [place.id, place]));
    this.#store.set({ running });
    for (const id of Object.keys(before)) if (!running[id]) this.#tabs.release(id);
    for (const { id } of places) this.#tabs.watch(id);
  }
}
