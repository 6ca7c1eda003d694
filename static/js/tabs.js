/**
 * The tabs of this page in one browser: what they tell each other, and which of them reads a stream.
 *
 * A browser allows few connections to an origin, so each stream is read by one tab: by the one that asked, and when that
 * is gone, by another that knows of it. There is no lock, because the Web Locks of browsers do not exist on plain HTTP in
 * a LAN. A tab announces that it reads; whoever has heard nothing for a while asks, and without an answer takes over. Two
 * readers for a moment do no harm: events have numbers, and the one with the smaller id stays.
 */
import { newId } from "./state.js";

/** Signs of life of a reader are asked for after this long without one. */
const QUIET_MS = 3_000;
/** A busy tab may be late with its answer. */
const ANSWER_MS = 700;
/** A tab that has just been loaded waits less: it was perhaps the reader itself, before a reload. */
const FIRST_MS = 200;
/** Tabs in the background let the others go first. */
const BACKGROUND_MS = 1_000;

export class Tabs extends EventTarget {
  #id = newId();
  /** @type {BroadcastChannel | null} */ #channel = null;
  /** What this tab reads. @type {Set<string>} */ #mine = new Set();
  /** What others read: when they were last heard, and asked. @type {Map<string, {heard: number, asked: number}>} */
  #theirs = new Map();
  /** @type {ReturnType<typeof setInterval> | undefined} */ #watching;

  /**
   * `take` and `drop` are events with the id of a stream: this tab is its reader from now on, if a listener takes it, or
   * no longer. Everything that another tab posts is an event of its own type.
   */
  constructor() {
    super();
    this.#open();
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", ({ persisted }) => {
      if (!persisted) return;
      this.#open();
      this.#dispatch("back", null);
    });
  }

  /** @param {string} type @param {(detail: any) => unknown} heard  true: a listener of `take` reads it */
  on(type, heard) {
    /** @type {(event: any) => void} */
    const listener = (event) => {
      if (heard(event.detail) === true) event.preventDefault();
    };
    this.addEventListener(type, listener);
  }

  /** @param {string} type @param {unknown} [body] */
  post(type, body) {
    this.#channel?.postMessage({ type, body, tab: this.#id });
  }

  /** This tab reads a stream. @param {string} id */
  own(id) {
    this.#theirs.delete(id);
    this.#mine.add(id);
    this.post("mine", id);
  }

  /** Nobody needs to read it any more. @param {string} id */
  release(id) {
    this.#mine.delete(id);
    this.#theirs.delete(id);
  }

  /** @param {string} id */
  owns(id) {
    return this.#mine.has(id);
  }

  /** A stream runs; if no other tab reads it, this one does. @param {string} id */
  watch(id) {
    if (this.#mine.has(id) || this.#theirs.has(id)) return;
    this.#theirs.set(id, { heard: Date.now(), asked: Date.now() });
    this.post("who", id);
    setTimeout(() => this.#look(FIRST_MS), FIRST_MS + (document.hidden ? BACKGROUND_MS : 0));
    this.#watching ??= setInterval(() => this.#look(ANSWER_MS), 1_000);
  }

  /** Another tab reads it. @param {string} id */
  heard(id) {
    const theirs = this.#theirs.get(id);
    if (theirs) Object.assign(theirs, { heard: Date.now(), asked: 0 });
    else if (!this.#mine.has(id)) this.watch(id);
  }

  /** @param {number} patience */
  #look(patience) {
    const now = Date.now();
    const wait = patience + (document.hidden ? BACKGROUND_MS : 0);
    for (const [id, theirs] of this.#theirs) {
      if (theirs.asked) {
        if (now - theirs.asked >= wait) this.#take(id);
      } else if (now - theirs.heard >= QUIET_MS) {
        theirs.asked = now;
        this.post("who", id);
      }
    }
    if (this.#theirs.size) return;
    clearInterval(this.#watching);
    this.#watching = undefined;
  }

  /** @param {string} id */
  #take(id) {
    // What nobody here knows has ended meanwhile. A tab that kept it would hold up those that do know it.
    if (this.#dispatch("take", id)) this.release(id);
    else this.own(id);
  }

  #open() {
    if (!globalThis.BroadcastChannel) return;
    this.#channel = new BroadcastChannel("gateway");
    this.#channel.onmessage = ({ data: { type, body, tab } }) => {
      if (type === "who") {
        if (this.#mine.has(body)) this.post("mine", body);
      } else if (type === "mine") this.#contend(body, tab);
      else if (type === "free") this.#inherit(body);
      else this.#dispatch(type, body);
    };
  }

  /** @param {string} id @param {string} tab  says that it reads it */
  #contend(id, tab) {
    if (!this.#mine.has(id)) return this.heard(id);
    if (tab > this.#id) return this.post("mine", id);
    this.#mine.delete(id);
    this.heard(id);
    this.#dispatch("drop", id);
  }

  /** The reader has left. @param {string[]} ids */
  #inherit(ids) {
    const delay = Math.random() * 50 + (document.hidden ? BACKGROUND_MS : 0);
    for (const id of ids) {
      const theirs = this.#theirs.get(id);
      if (!theirs) continue;
      const { heard } = Object.assign(theirs, { heard: Date.now() });
      setTimeout(() => {
        if (this.#theirs.get(id)?.heard === heard) this.#take(id);
      }, delay);
    }
  }

  /** The page closes, or is put aside, where an open channel would end it for good. */
  #leave() {
    if (this.#mine.size) this.post("free", [...this.#mine]);
    for (const id of this.#mine) this.#dispatch("drop", id);
    this.#mine.clear();
    this.#theirs.clear();
    this.#channel?.close();
    this.#channel = null;
  }

  /** @param {string} type @param {unknown} detail @returns {boolean} false when a listener has taken it */
  #dispatch(type, detail) {
    return this.dispatchEvent(new CustomEvent(type, { detail, cancelable: true }));
  }
}
