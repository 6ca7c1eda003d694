/** The streams of answers: started, read in one tab, followed in the others, gone on with, stopped. */
import { fail, LOST, numberOf, reduceAnswer } from "./answer.js";
import { isActive } from "./state.js";

/** @import { Place } from "./types.js" */

/** @typedef {import("./api.js").ApiError} ApiError */
/** @typedef {import("../client.js").StreamEvent} StreamEvent */

/** Tokens are told to the other tabs this often. */
const TELL_MS = 60;
/** A stop that the gateway did not hear is repeated; after that the resume window ends the answer. */
const STOP_TRIES = 3;
const STOP_RETRY_MS = 1_500;

export class Reading {
  #store;
  #keeper;
  #tabs;
  #api;
  #openStream;
  /** What this tab reads, by answer. @type {Map<string, import("../client.js").Stream>} */ #streams = new Map();

  /**
   * @param {import("./state.js").Store} store @param {import("./keeper.js").Keeper} keeper
   * @param {import("./tabs.js").Tabs} tabs @param {import("./api.js").Api} api
   * @param {typeof import("../client.js").openStream} openStream
   */
  constructor(store, keeper, tabs, api, openStream) {
    this.#store = store;
    this.#keeper = keeper;
    this.#tabs = tabs;
    this.#api = api;
    this.#openStream = openStream;
    tabs.on("take", (id) => {
      const place = store.state.running[id];
      if (place) void this.#take(place);
      return !!place; // none: it has ended, or is no answer
    });
    tabs.on("drop", (id) => this.#close(id));
    tabs.on("events", ({ place, events }) => this.#hear(place, events));
    tabs.on("want", (place) => {
      const answer = tabs.owns(place.id) && keeper.find(place);
      if (answer) tabs.post("answer", { place, answer });
    });
    tabs.on("answer", ({ place, answer }) => {
      if (!tabs.owns(place.id)) keeper.setAnswer(place, (own) => (isActive(own) ? answer : own));
    });
    tabs.on("stop", (place) => {
      if (tabs.owns(place.id)) this.stop(place);
    });
  }

  /** Ask, and read to the end. @param {Place} place @param {() => unknown} request */
  async start(place, request) {
    try {
      if (!this.#active(place)) return;
      const { url, model } = await this.#api.createStream(request());
      // Stopped before the gateway had answered.
      if (!this.#active(place)) return void this.#delete(url);
      this.#keeper.setAnswer(place, (answer) => ({ ...answer, url, model }));
      await this.#follow(place, this.#openStream(url));
    } catch (error) {
      const { message, code = "", retryable = true } = /** @type {ApiError} */ (error);
      this.#keeper.setAnswer(place, (answer) =>
        isActive(answer) ? fail(answer, { error: message, code, retryable }) : answer,
      );
      await this.#keeper.settle(place);
    }
  }

  /** Stop an answer, whichever tab reads it. @param {Place} place */
  stop(place) {
    const url = this.#keeper.find(place)?.url;
    const own = this.#tabs.owns(place.id);
    this.#keeper.setAnswer(place, (answer) => (isActive(answer) ? { ...answer, status: "cancelled" } : answer));
    this.end(place);
    if (!own) this.#tabs.post("stop", place);
    if (url) void this.#delete(url);
  }

  /** An answer is over: before anything is asked for its connection is free. @param {Place} place */
  end(place) {
    this.#close(place.id);
    void this.#keeper.settle(place);
  }

  /** @param {Place} place */
  #active(place) {
    return isActive(this.#keeper.find(place));
  }

  /** @param {string} id */
  #close(id) {
    const stream = this.#streams.get(id);
    this.#streams.delete(id);
    stream?.close();
  }

  /** Nobody reads an answer that has not ended: go on where its text ends, or say that it is lost. @param {Place} place */
  async #take(place) {
    await this.#keeper.load(place.chat, true);
    if (!this.#tabs.owns(place.id)) return;
    const answer = this.#keeper.find(place);
    if (isActive(answer) && answer?.url) {
      this.#keeper.setAnswer(place, (answer) => ({ ...answer, status: "reconnecting" }));
      return this.#follow(place, this.#openStream(answer.url, { lastEventId: answer.lastId }));
    }
    this.#keeper.setAnswer(place, (answer) => (isActive(answer) ? fail(answer, LOST) : answer));
    this.end(place);
  }

  /** @param {Place} place @param {import("../client.js").Stream} stream */
  async #follow(place, stream) {
    this.#streams.set(place.id, stream);
    /** @type {StreamEvent[]} */ let untold = [];
    /** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
    let told = 0;
    const tell = () => {
      clearTimeout(timer);
      timer = undefined;
      told = Date.now();
      this.#tabs.post("events", { place, events: untold });
      untold = [];
    };
    for await (const event of stream) {
      this.#keeper.setAnswer(place, (answer) => reduceAnswer(answer, event, Date.now()));
      untold.push(event);
      // Not by a timer alone: in a tab in the background it may be late by a minute.
      if (Date.now() - told > TELL_MS) tell();
      else timer ??= setTimeout(tell, TELL_MS);
    }
    clearTimeout(timer);
    if (this.#streams.get(place.id) !== stream) return; // stopped, or another tab goes on
    // Closed without an end, which only happens when the terminal event was read before.
    this.#keeper.setAnswer(place, (answer) => (isActive(answer) ? fail(answer, LOST) : answer));
    this.end(place);
  }

  /** What another tab reads. @param {Place} place @param {StreamEvent[]} events */
  #hear(place, events) {
    this.#tabs.heard(place.id);
    if (this.#tabs.owns(place.id)) return;
    for (const event of events) {
      const answer = this.#keeper.find(place);
      if (!answer) return;
      const number = numberOf("id" in event ? event.id : "");
      if (number && number <= numberOf(answer.lastId)) continue;
      if (number > numberOf(answer.lastId) + 1) return this.#tabs.post("want", place);
      this.#keeper.setAnswer(place, (answer) => reduceAnswer(answer, event, Date.now()));
    }
  }

  /** @param {string} url */
  async #delete(url) {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#api.deleteStream(url);
      } catch {
        if (tries === STOP_TRIES) return this.#store.notice({ key: "stopFailed" });
        await new Promise((resolve) => setTimeout(resolve, STOP_RETRY_MS));
      }
    }
  }
}
