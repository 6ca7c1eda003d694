/**
 * Chats in the browser's database. Every method is one transaction. Nothing but `begin` with `fresh`, `restore` and
 * `merge` makes a chat: a tab that has not heard of a deletion cannot bring the chat back.
 */
import { asked, below, Database } from "./database.js";
import { assemble, reviveChat } from "./revive.js";
import { isActive, MAX_RUNNING } from "./state.js";

/** @import { Answer, Chat, Piece, Place, Turn } from "./types.js" */

const ALL = ["chats", "turns", "images", "answers", "pieces"];

/** Another tab deleted the chat. */
export class Gone extends Error {}
/** As many answers as are allowed are running, in all tabs together. */
export class Busy extends Error {}

export class History {
  #db;

  /** @param {string} [name] */
  constructor(name = "gateway") {
    this.#db = new Database(name);
    /** @type {EventTarget} what happens to the database: `open` and `cleared` */
    this.events = this.#db;
  }

  /** Newest first, and the answers that have not ended. @returns {Promise<{chats: Chat[], running: Place[]}>} */
  chats() {
    return this.#db.run(["chats", "answers"], "readonly", async (tx) => {
      const [chats, active] = await Promise.all([
        asked(tx.objectStore("chats").getAll()),
        asked(tx.objectStore("answers").index("active").getAll()),
      ]);
      const revived = chats.map(reviveChat).filter((chat) => chat !== null);
      return { chats: revived.sort((a, b) => b.updated - a.updated), running: active.map(placeOf) };
    });
  }

  /** One chat, and which of its answers have not ended. @param {string} id @returns {Promise<{chat: Chat | null, running: Place[]}>} */
  chat(id) {
    return this.#db.run(["chats", "answers"], "readonly", async (tx) => {
      const [chat, active] = await Promise.all([
        asked(tx.objectStore("chats").get(id)),
        asked(tx.objectStore("answers").index("active").getAll()),
      ]);
      return { chat: reviveChat(chat), running: active.filter((answer) => answer.chat === id).map(placeOf) };
    });
  }

  /** All turns of a chat, of every branch. @param {string} chat @returns {Promise<Turn[]>} */
  turns(chat) {
    return this.#db.run(ALL, "readonly", (tx) => turnsIn(tx, chat));
  }

  /**
   * An answer begins: its chat, its turn and it, or nothing.
   * @param {Chat} chat @param {Turn} turn @param {Answer} answer @param {boolean} fresh  the chat may be made
   */
  begin(chat, turn, answer, fresh) {
    return this.#db.run(ALL, "readwrite", async (tx) => {
      const [stored, running] = await Promise.all([
        asked(tx.objectStore("chats").get(chat.id)),
        asked(tx.objectStore("answers").index("active").count()),
      ]);
      if (!stored && !fresh) throw new Gone();
      if (running >= MAX_RUNNING) throw new Busy();
      tx.objectStore("chats").put({ ...(stored ?? chat), updated: chat.updated, title: chat.title });
      await putTurn(tx, chat.id, { ...turn, answers: [answer] });
    });
  }

  /**
   * What came to answers since the last time. Those that another tab ended or deleted take nothing more.
   * @param {Piece[]} pieces
   */
  grow(pieces) {
    return this.#db.run(["answers", "pieces"], "readwrite", async (tx) => {
      for (const piece of pieces) {
        const stored = await asked(tx.objectStore("answers").get([piece.chat, piece.turn, piece.id]));
        if (!stored?.active) continue;
        const { id: answer, ...rest } = piece;
        tx.objectStore("pieces").put({ ...rest, answer });
      }
    });
  }

  /** An answer has ended; one that nothing is known of is forgotten. @param {Place} place @param {Answer} [answer] */
  settle({ chat, turn, id }, answer) {
    return this.#db.run(["chats", "answers", "pieces"], "readwrite", async (tx) => {
      const stored = await asked(tx.objectStore("answers").get([chat, turn, id]));
      // The first end stands: a stop in one tab is not undone by the last words that another one reads.
      if (!stored?.active) return;
      if (answer) putAnswer(tx, chat, turn, answer);
      else tx.objectStore("answers").delete([chat, turn, id]);
      tx.objectStore("pieces").delete(below(chat, turn, id));
      const owner = await asked(tx.objectStore("chats").get(chat));
      if (owner) tx.objectStore("chats").put({ ...owner, updated: Date.now() });
    });
  }

  /** @param {string} id @param {Partial<Chat>} patch */
  patchChat(id, patch) {
    return this.#db.run(["chats"], "readwrite", async (tx) => {
      const stored = await asked(tx.objectStore("chats").get(id));
      if (stored) tx.objectStore("chats").put({ ...stored, ...patch });
    });
  }

  /** @param {string} chat @param {(Partial<Turn> & {id: string})[]} patches  none of them with images or answers */
  patchTurns(chat, patches) {
    return this.#db.run(["turns"], "readwrite", async (tx) => {
      for (const patch of patches) {
        const stored = await asked(tx.objectStore("turns").get([chat, patch.id]));
        if (stored) tx.objectStore("turns").put({ ...stored, ...patch });
      }
    });
  }

  /**
   * @param {string} chat @param {string} id
   * @param {(Partial<Turn> & {id: string})[]} patches  of the turns that followed it
   */
  deleteTurn(chat, id, patches) {
    return this.#db.run(ALL, "readwrite", async (tx) => {
      tx.objectStore("turns").delete([chat, id]);
      tx.objectStore("answers").delete(below(chat, id));
      tx.objectStore("pieces").delete(below(chat, id));
      const left = await asked(tx.objectStore("turns").getAll(below(chat)));
      for (const patch of patches) {
        const stored = left.find((turn) => turn.id === patch.id);
        if (stored) tx.objectStore("turns").put({ ...stored, ...patch });
      }
      const shown = new Set(left.flatMap((turn) => turn.images));
      for (const key of await asked(tx.objectStore("images").getAllKeys(below(chat))))
        if (!shown.has(/** @type {string[]} */ (key)[1])) tx.objectStore("images").delete(key);
    });
  }

  /** @param {string} chat */
  deleteChat(chat) {
    return this.#db.run(ALL, "readwrite", async (tx) => {
      tx.objectStore("chats").delete(chat);
      for (const name of ["turns", "images", "answers", "pieces"]) tx.objectStore(name).delete(below(chat));
    });
  }

  /** Keep these turns as they are, and their chat. @param {Chat} chat @param {Turn[]} turns */
  restore(chat, turns) {
    return this.#db.run(ALL, "readwrite", async (tx) => {
      tx.objectStore("chats").put(chat);
      for (const turn of turns) await putTurn(tx, chat.id, turn);
    });
  }

  /**
   * Chats of a file: the newer of two titles and settings, and the turns and answers of both.
   * @param {{chat: Chat, turns: Turn[]}[]} imported
   * @returns {Promise<{added: number, updated: number, kept: number}>} chats
   */
  merge(imported) {
    return this.#db.run(ALL, "readwrite", async (tx) => {
      const count = { added: 0, updated: 0, kept: 0 };
      for (const { chat, turns } of imported) {
        const stored = reviveChat(await asked(tx.objectStore("chats").get(chat.id)));
        const known = new Set((await asked(tx.objectStore("answers").getAllKeys(below(chat.id)))).map(String));
        const ids = new Set((await asked(tx.objectStore("turns").getAllKeys(below(chat.id)))).map(String));
        const news = turns.filter(
          (turn) =>
            !ids.has(String([chat.id, turn.id])) ||
            turn.answers.some((answer) => !known.has(String([chat.id, turn.id, answer.id]))),
        );
        const newer = !stored || chat.updated > stored.updated;
        count[stored ? (news.length || newer ? "updated" : "kept") : "added"]++;
        if (newer) tx.objectStore("chats").put(chat);
        for (const turn of news) {
          const answers = turn.answers.filter((answer) => !known.has(String([chat.id, turn.id, answer.id])));
          if (ids.has(String([chat.id, turn.id])))
            for (const answer of answers) putAnswer(tx, chat.id, turn.id, answer);
          else await putTurn(tx, chat.id, { ...turn, answers });
        }
      }
      return count;
    });
  }

  /**
   * The chats with these words in title, prompts or answers.
   * @param {Chat[]} chats @param {string} query @param {() => boolean} stale  whether nobody waits for it any more
   * @returns {Promise<Set<string>>}
   */
  async search(chats, query, stale) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    /** @type {Set<string>} */
    const found = new Set();
    for (let i = 0; i < chats.length && !stale(); i += 50) {
      const some = chats.slice(i, i + 50);
      const texts = await this.#db.run(["turns", "answers"], "readonly", (tx) =>
        Promise.all(some.map((chat) => textsIn(tx, chat.id))),
      );
      for (const [n, chat] of some.entries()) {
        const text = `${chat.title}\n${texts[n]}`.toLowerCase();
        if (words.every((word) => text.includes(word))) found.add(chat.id);
      }
    }
    return found;
  }
}

/** @param {IDBTransaction} tx @param {string} chat @returns {Promise<Turn[]>} */
async function turnsIn(tx, chat) {
  const all = (/** @type {string} */ name) => asked(tx.objectStore(name).getAll(below(chat)));
  return assemble(...(await Promise.all([all("turns"), all("images"), all("answers"), all("pieces")])));
}

/** @param {IDBTransaction} tx @param {string} chat */
async function textsIn(tx, chat) {
  const all = (/** @type {string} */ name) => asked(tx.objectStore(name).getAll(below(chat)));
  const [turns, answers] = await Promise.all([all("turns"), all("answers")]);
  return [...turns.map((turn) => turn.prompt), ...answers.map((answer) => answer.text)].join("\n");
}

/** @param {IDBTransaction} tx @param {string} chat @param {Turn} turn */
async function putTurn(tx, chat, turn) {
  const { answers, images, ...rest } = turn;
  tx.objectStore("turns").put({ ...rest, chat, images: images.map(({ id }) => id) });
  for (const answer of answers) putAnswer(tx, chat, turn.id, answer);
  for (const image of images)
    if (!(await asked(tx.objectStore("images").getKey([chat, image.id]))))
      tx.objectStore("images").put({ ...image, chat });
}

/** @param {IDBTransaction} tx @param {string} chat @param {string} turn @param {Answer} answer */
function putAnswer(tx, chat, turn, answer) {
  tx.objectStore("answers").put({ ...answer, chat, turn, ...(isActive(answer) && { active: 1 }) });
}

/** @param {Place} answer @returns {Place} */
const placeOf = ({ chat, turn, id }) => ({ chat, turn, id });
