/**
 * The browser's database: opened late, closed under us, cleared, of an older version; and one transaction.
 *
 * | store    | key                        | what                                                               |
 * |----------|----------------------------|--------------------------------------------------------------------|
 * | chats    | id                         | title, model, settings                                             |
 * | turns    | chat, id                   | a prompt, the turn it follows, its images by id                    |
 * | images   | chat, id                   | a data: URL, once however many turns show it                       |
 * | answers  | chat, turn, id             | index `active` holds those that have not ended                     |
 * | pieces   | chat, turn, answer, number | what came to an answer that has not ended, since the piece before  |
 * | meta     | name                       | `born` tells this database from one made after it was cleared      |
 */
import { newId } from "./state.js";

/** A browser whose disk is busy, or that waits for a tab of an older version, may never answer. */
const PATIENCE_MS = 1_500;

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
export function asked(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Everything below a key. @param {string[]} key */
export const below = (...key) => IDBKeyRange.bound(key, [...key, []]);

/** `open`: it can be used, possibly after it could not; `cleared`: what was in it is gone. */
export class Database extends EventTarget {
  #name;
  /** @type {Promise<IDBDatabase> | null} */ #opening = null;
  #born = "";

  /** @param {string} name */
  constructor(name) {
    super();
    this.#name = name;
  }

  /**
   * One transaction: all of `work` is kept, or nothing.
   * @template T
   * @param {string[]} stores @param {IDBTransactionMode} mode @param {(tx: IDBTransaction) => Promise<T>} work
   * @returns {Promise<T>} rejects where storage is denied, full or silent, and with what `work` throws
   */
  async run(stores, mode, work) {
    const tx = await this.#begin(stores, mode);
    const done = new Promise((resolve, reject) => {
      tx.oncomplete = resolve;
      tx.onabort = () => reject(tx.error ?? new Error("aborted"));
    });
    try {
      const result = await work(tx);
      await done;
      return result;
    } catch (error) {
      done.catch(() => {});
      try {
        tx.abort();
      } catch {
        // It has ended by itself.
      }
      throw error;
    }
  }

  /** @param {string[]} stores @param {IDBTransactionMode} mode */
  async #begin(stores, mode) {
    const db = await this.#connected();
    try {
      return db.transaction(stores, mode);
    } catch (error) {
      // Closed, and the event that says so is still to come.
      if (/** @type {Error} */ (error).name !== "InvalidStateError") throw error;
      this.#opening = null;
      return (await this.#connected()).transaction(stores, mode);
    }
  }

  #connected() {
    this.#opening ??= this.#open();
    /** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new DOMException("The database does not open.", "TimeoutError")), PATIENCE_MS);
    });
    return /** @type {Promise<IDBDatabase>} */ (Promise.race([this.#opening, late])).finally(() => clearTimeout(timer));
  }

  /** @param {number} tries @returns {Promise<IDBDatabase>} */
  async #request(tries) {
    const request = indexedDB.open(this.#name, 2);
    request.onupgradeneeded = ({ oldVersion }) => upgrade(request, oldVersion);
    try {
      return await asked(request);
    } catch (error) {
      // It is being cleared at this moment.
      if (/** @type {Error} */ (error).name !== "AbortError" || tries === 1) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
      return this.#request(tries - 1);
    }
  }

  async #open() {
    try {
      const db = await this.#request(3);
      // It was cleared, or its disk is gone; or another tab deletes it, or has a later version of the page.
      db.onclose = db.onversionchange = () => {
        db.close();
        this.#opening = this.#open();
        this.#opening.catch(() => {});
      };
      const born = String((await asked(db.transaction("meta").objectStore("meta").get("born"))).value);
      const cleared = this.#born && born !== this.#born;
      this.#born = born;
      this.dispatchEvent(new Event(cleared ? "cleared" : "open"));
      return db;
    } catch (error) {
      this.#opening = null;
      throw error;
    }
  }
}

/** @param {IDBOpenDBRequest} request @param {number} oldVersion */
function upgrade({ result: db, transaction }, oldVersion) {
  if (oldVersion < 1) {
    db.createObjectStore("chats", { keyPath: "id" });
    db.createObjectStore("turns", { keyPath: ["chat", "id"] });
  }
  db.createObjectStore("images", { keyPath: ["chat", "id"] });
  db.createObjectStore("answers", { keyPath: ["chat", "turn", "id"] }).createIndex("active", "active");
  db.createObjectStore("pieces", { keyPath: ["chat", "turn", "answer", "number"] });
  db.createObjectStore("meta", { keyPath: "name" }).put({ name: "born", value: newId() });
  const tx = /** @type {IDBTransaction} */ (transaction);
  if (oldVersion === 1)
    tx.objectStore("turns").openCursor().onsuccess = ({ target }) => {
      const cursor = /** @type {IDBRequest<IDBCursorWithValue | null>} */ (target).result;
      if (!cursor) return;
      cursor.update(divided(tx, cursor.value));
      cursor.continue();
    };
}

/**
 * A turn of version 1, which held its images, its answers and all that was sent for each of them.
 * @param {IDBTransaction} tx @param {any} turn
 */
function divided(tx, turn) {
  const { chat, id } = turn;
  const images = Array.isArray(turn.images)
    ? turn.images.filter((/** @type {unknown} */ url) => typeof url === "string")
    : [];
  const kept = images.map((/** @type {string} */ url) => ({ chat, id: newId(), url }));
  for (const image of kept) tx.objectStore("images").put(image);
  for (const { request: _, ...answer } of Array.isArray(turn.answers) ? turn.answers : []) {
    const active = /^(connecting|streaming|reconnecting)$/.test(answer.status);
    tx.objectStore("answers").put({ ...answer, id: String(answer.id), chat, turn: id, ...(active && { active: 1 }) });
  }
  const { answers: _, ...rest } = turn;
  return { ...rest, images: kept.map((/** @type {{id: string}} */ image) => image.id) };
}
