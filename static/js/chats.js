/** The list of chats, and which one is open. */
import { fromBackup, toBackup } from "./backup.js";
import { forget } from "./drafts.js";
import { remember } from "./prefs.js";
import { settled } from "./state.js";

/** @import { Settings } from "./types.js" */

/** A search begins when the person has stopped typing for this long. */
const SEARCH_MS = 150;

export class Chats {
  #store;
  #keeper;
  #history;
  #stop;

  /**
   * @param {import("./state.js").Store} store @param {import("./keeper.js").Keeper} keeper
   * @param {import("./history.js").History} history
   * @param {(chatId: string) => void} stop  what runs in a chat
   */
  constructor(store, keeper, history, stop) {
    this.#store = store;
    this.#keeper = keeper;
    this.#history = history;
    this.#stop = stop;
  }

  get #state() {
    return this.#store.state;
  }

  /** Load the list of chats and open one; before the view is made, which shows it. @param {string} id */
  async start(id) {
    this.#store.set({ chat: this.#keeper.newChat() });
    await this.#keeper.start();
    await this.#show(id);
  }

  /** @param {string} id unknown: a new chat */
  async open(id) {
    // Another tab may have made it a moment ago.
    if (id && !this.#find(id)) await this.#keeper.start();
    await this.#show(id);
  }

  /** @param {string} id */
  #find(id) {
    return this.#state.chats.find((chat) => chat.id === id);
  }

  /** @param {string} id */
  async #show(id) {
    if (!this.#find(id)) return this.newChat();
    await this.#keeper.load(id);
    const chat = this.#find(id);
    if (chat) this.#store.set({ chat });
  }

  newChat() {
    const { chat, chats } = this.#state;
    if (chats.some((known) => known.id === chat.id)) this.#store.set({ chat: this.#keeper.newChat(chat.model) });
  }

  /** @param {string} id @param {string} title */
  rename(id, title) {
    if (title.trim()) this.#keeper.changeChat(id, { title: title.trim(), renamed: true });
  }

  /** @param {string} id */
  async deleteChat(id) {
    const chat = this.#find(id);
    if (!chat) return;
    await this.#keeper.load(id);
    this.#stop(id);
    const turns = this.#state.turns[id] ?? [];
    await this.#keeper.deleteChat(id);
    forget([id, ...turns.map((turn) => turn.id)]);
    const undo = async () => {
      await this.#keeper.restore(chat, turns.map(settled));
      await this.open(id);
    };
    this.#store.notice({ key: "chatDeleted", vars: { title: chat.title }, undo: () => void undo() });
  }

  /** @param {string} query */
  async search(query) {
    this.#store.set({ query });
    if (!query.trim()) return this.#store.set({ found: null });
    const stale = () => this.#state.query !== query;
    await new Promise((resolve) => setTimeout(resolve, SEARCH_MS));
    if (stale()) return;
    const found = await this.#history.search(this.#state.chats, query, stale).catch(() => new Set());
    if (!stale()) this.#store.set({ found });
  }

  /** Everything, from memory where the storage does not have it. */
  async exportAll() {
    const { chats, turns } = this.#state;
    const all = chats.map(async (chat) => ({
      chat,
      turns: turns[chat.id] ?? (await this.#history.turns(chat.id).catch(() => [])),
    }));
    return toBackup(await Promise.all(all), new Date());
  }

  /** @param {string} text the content of an exported file */
  async importAll(text) {
    const backup = fromBackup(text);
    if (!backup) return this.#store.notice({ key: "importFailed" });
    const { added, updated, kept } = await this.#keeper.merge(backup.chats);
    const vars = { added, updated, kept, skipped: backup.skipped };
    this.#store.notice({ key: backup.skipped ? "importedSome" : "imported", vars });
  }

  /** @param {string} model */
  setModel(model) {
    remember("model", model);
    this.#keeper.changeChat(this.#state.chat.id, { model });
  }

  /** @param {Partial<Settings>} patch */
  setSettings(patch) {
    const { chat } = this.#state;
    this.#keeper.changeChat(chat.id, { settings: { ...chat.settings, ...patch } });
  }

  /** New chats begin with this chat's settings from now on. */
  keepSettings() {
    remember("settings", this.#state.chat.settings);
    this.#store.notice({ key: "settingsKept" });
  }
}
