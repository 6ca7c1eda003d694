/** Writes to the browser's storage: told to the other tabs, and made up for when the storage could not take them. */
import { Busy, Gone } from "./history.js";

/** @type {Record<string, import("./strings.js").Key>} */
const REASONS = { QuotaExceededError: "storageFull", TimeoutError: "storageSlow", VersionError: "storageNewer" };

export class Writer {
  #store;
  #history;
  #tabs;
  /** Chats that the browser does not have as this tab does. @type {Set<string>} */ #unsaved = new Set();
  /** Writes that were begun, by chat. @type {Map<string, number>} */ #begun = new Map();
  /** Whether a person knows that nothing is kept. */ #told = false;

  /**
   * @param {import("./state.js").Store} store @param {import("./history.js").History} history
   * @param {import("./tabs.js").Tabs} tabs @param {() => Promise<void>} sync  with what the storage has
   */
  constructor(store, history, tabs, sync) {
    this.#store = store;
    this.#history = history;
    this.#tabs = tabs;
    history.events.addEventListener("open", () => void this.#opened(sync));
    history.events.addEventListener("cleared", () => this.#cleared());
  }

  /** @param {string} chatId */
  lacks(chatId) {
    return this.#unsaved.has(chatId);
  }

  /** The whole chat is written with its next change. @param {string} chatId */
  miss(chatId) {
    this.#unsaved.add(chatId);
  }

  /**
   * What the storage has of a chat, with every change that was made here while it was read.
   * @template T @param {string} chatId @param {() => Promise<T>} work @returns {Promise<T>}
   */
  async read(chatId, work) {
    for (;;) {
      const begun = this.#begun.get(chatId);
      const result = await work();
      if (begun === this.#begun.get(chatId)) return result;
    }
  }

  /** @param {string} chatId @param {() => Promise<unknown>} work @param {boolean} [throws]  `Busy` and `Gone` */
  async write(chatId, work, throws = false) {
    const unsaved = () => this.#unsaved.has(chatId);
    this.#begun.set(chatId, (this.#begun.get(chatId) ?? 0) + 1);
    try {
      // It may turn out only now that the storage was cleared.
      if (!unsaved()) await work().catch((error) => (unsaved() ? null : Promise.reject(error)));
      if (unsaved()) await this.#writeWhole(chatId);
      this.#told = false;
      this.#tabs.post("saved", chatId);
    } catch (error) {
      if (error instanceof Busy || error instanceof Gone) {
        if (throws) throw error;
        return;
      }
      if (this.#store.state.chats.some(({ id }) => id === chatId)) this.#unsaved.add(chatId);
      this.failed(error);
    }
  }

  /** @param {string} chatId */
  async #writeWhole(chatId) {
    const chat = this.#store.state.chats.find(({ id }) => id === chatId);
    if (chat) await this.#history.restore(chat, this.#store.state.turns[chatId] ?? []);
    this.#unsaved.delete(chatId);
  }

  /** @param {unknown} error */
  failed(error) {
    if (this.#told) return;
    this.#told = true;
    const { name } = /** @type {Error} */ (error);
    this.#store.notice({ key: REASONS[name] ?? "noHistory" });
  }

  /**
   * It may have been late, or closed for a while: what there is on both sides comes together.
   * @param {() => Promise<void>} sync
   */
  async #opened(sync) {
    if (!this.#told && !this.#unsaved.size) return;
    this.#told = false;
    await sync().catch(() => {});
    for (const id of [...this.#unsaved]) await this.write(id, async () => {});
  }

  /** What is on the screen is all that is left. It is kept again when the person goes on with it. */
  #cleared() {
    for (const { id } of this.#store.state.chats) this.#unsaved.add(id);
    this.#store.notice({ key: "storageCleared" });
  }
}
