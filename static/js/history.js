/**
 * Chats in IndexedDB. Turns are records of their own, so that an answer which grows rewrites only itself.
 * Without IndexedDB (some private windows) the page works and keeps nothing: `openHistory` rejects.
 */

/** @typedef {import("./state.js").Chat} Chat */
/** @typedef {import("./state.js").Turn} Turn */
/** @typedef {{format: string, version: number, exported: string, chats: (Chat & {turns: Turn[]})[]}} Export */

const FORMAT = "ollama-sse-gateway-chats";

/** @param {string} [name] @returns {Promise<History>} */
export function openHistory(name = "gateway") {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("chats", { keyPath: "id" });
      request.result.createObjectStore("turns", { keyPath: ["chat", "id"] });
    };
    request.onsuccess = () => resolve(new History(request.result));
    request.onerror = () => reject(request.error);
  });
}

export class History {
  #db;

  /** @param {IDBDatabase} db */
  constructor(db) {
    this.#db = db;
  }

  /** Newest first. @returns {Promise<Chat[]>} */
  async chats() {
    const chats = await this.#read("chats", (store) => store.getAll());
    return chats.sort((/** @type {Chat} */ a, /** @type {Chat} */ b) => b.updated - a.updated);
  }

  /** Oldest first. @param {string} chat @returns {Promise<Turn[]>} */
  async turns(chat) {
    const turns = await this.#read("turns", (store) => store.getAll(turnsOf(chat)));
    return turns
      .map(({ chat: _, ...turn }) => turn)
      .sort((/** @type {Turn} */ a, /** @type {Turn} */ b) => a.at - b.at);
  }

  /** @param {Chat} chat */
  saveChat(chat) {
    return this.#write(["chats"], (tx) => tx.objectStore("chats").put(chat));
  }

  /** @param {string} chat @param {Turn[]} turns */
  saveTurns(chat, turns) {
    return this.#write(["turns"], (tx) => turns.forEach((turn) => tx.objectStore("turns").put({ ...turn, chat })));
  }

  /** @param {string} chat @param {string[]} ids */
  deleteTurns(chat, ids) {
    return this.#write(["turns"], (tx) => ids.forEach((id) => tx.objectStore("turns").delete([chat, id])));
  }

  /** @param {string} chat */
  deleteChat(chat) {
    return this.#write(["chats", "turns"], (tx) => {
      tx.objectStore("chats").delete(chat);
      tx.objectStore("turns").delete(turnsOf(chat));
    });
  }

  /** The chats with these words in title, prompts or answers. @param {string} query @returns {Promise<Set<string>>} */
  async search(query) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    /** @type {Map<string, string[]>} */
    const texts = new Map();
    for (const chat of await this.chats()) texts.set(chat.id, [chat.title]);
    for (const turn of await this.#read("turns", (store) => store.getAll()))
      texts.get(turn.chat)?.push(turn.prompt, ...turn.answers.map((/** @type {{text: string}} */ a) => a.text));
    /** @type {Set<string>} */
    const found = new Set();
    for (const [id, parts] of texts) {
      const text = parts.join("\n").toLowerCase();
      if (words.every((word) => text.includes(word))) found.add(id);
    }
    return found;
  }

  /** @returns {Promise<Export>} */
  async exportAll() {
    const chats = [];
    for (const chat of await this.chats()) chats.push({ ...chat, turns: await this.turns(chat.id) });
    return { format: FORMAT, version: 1, exported: new Date().toISOString(), chats };
  }

  /** Adds to what is there; the same chat is replaced. @param {any} data @returns {Promise<number>} chats read */
  async importAll(data) {
    if (data?.format !== FORMAT || data.version !== 1 || !Array.isArray(data.chats)) throw new TypeError("not an export");
    for (const { turns, ...chat } of data.chats) {
      if (typeof chat.id !== "string" || !Array.isArray(turns)) throw new TypeError("not an export");
      await this.deleteChat(chat.id);
      await this.saveChat(chat);
      await this.saveTurns(chat.id, turns);
    }
    return data.chats.length;
  }

  /** @param {string} name @param {(store: IDBObjectStore) => IDBRequest} ask @returns {Promise<any[]>} */
  #read(name, ask) {
    return new Promise((resolve, reject) => {
      const request = ask(this.#db.transaction(name).objectStore(name));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  /** @param {string[]} names @param {(tx: IDBTransaction) => void} change @returns {Promise<void>} */
  #write(names, change) {
    return new Promise((resolve, reject) => {
      const tx = this.#db.transaction(names, "readwrite");
      tx.oncomplete = () => resolve();
      tx.onerror = tx.onabort = () => reject(tx.error);
      change(tx);
    });
  }
}

/** @param {string} chat */
const turnsOf = (chat) => IDBKeyRange.bound([chat], [chat, []]);
