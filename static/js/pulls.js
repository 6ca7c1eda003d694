/** Getting a model: one at a time in this browser, read by one tab and shown in all; a reload goes on with it. */
import { LOST } from "./answer.js";
import { recall, remember } from "./prefs.js";
import { newPull, reducePull } from "./pull.js";
import { MAX_RUNNING, RESUME_WINDOW } from "./state.js";

/** @import { Pull } from "./types.js" */

/** @typedef {import("./api.js").ApiError} ApiError */

/** Progress is told to the other tabs this often. */
const TELL_MS = 250;
/** What the tabs call a pull, to tell it from an answer. */
const NAME = "pull:";

export class Pulls {
  #store;
  #server;
  #chats;
  #tabs;
  #api;
  #openStream;
  /** @type {import("../client.js").Stream | null} */ #stream = null;

  /**
   * @param {import("./state.js").Store} store @param {import("./server.js").Server} server
   * @param {import("./chats.js").Chats} chats @param {import("./tabs.js").Tabs} tabs
   * @param {import("./api.js").Api} api @param {typeof import("../client.js").openStream} openStream
   */
  constructor(store, server, chats, tabs, api, openStream) {
    this.#store = store;
    this.#server = server;
    this.#chats = chats;
    this.#tabs = tabs;
    this.#api = api;
    this.#openStream = openStream;
    tabs.on("take", (id) => {
      const pull = id.startsWith(NAME);
      if (pull) void this.#follow(id.slice(NAME.length));
      return pull;
    });
    tabs.on("drop", (id) => id.startsWith(NAME) && this.#close());
    tabs.on("pull", ({ url, pull }) => {
      if (pull && !pull.failure) tabs.heard(NAME + url);
      else tabs.release(NAME + url);
      store.set({ pull });
      if (!pull) void server.refresh();
    });
    tabs.on("stopPull", () => this.#close());
    tabs.on("back", () => this.resume());
  }

  /** Go on with a pull that was left running, or show it. */
  resume() {
    const running = recall("pull");
    if (typeof running?.url !== "string") return;
    this.#store.set({ pull: newPull(String(running.model)) });
    this.#tabs.watch(NAME + running.url);
  }

  /** @param {string} model */
  async pull(model) {
    if (Object.keys(this.#store.state.running).length >= MAX_RUNNING)
      return this.#store.notice({ key: "tooMany", vars: { n: MAX_RUNNING } });
    this.#store.set({ pull: newPull(model) });
    try {
      const { url } = await this.#api.createStream({ pull: { model }, resume_window: RESUME_WINDOW });
      remember("pull", { model, url });
      this.#tabs.own(NAME + url);
      await this.#follow(url);
    } catch (error) {
      const { message, code = "" } = /** @type {ApiError} */ (error);
      this.#store.set({ pull: { ...newPull(model), failure: { error: message, code } } });
    }
  }

  stop() {
    const { url } = recall("pull") ?? {};
    this.#close();
    this.#store.set({ pull: null });
    if (!url) return;
    this.#tabs.post("stopPull");
    this.#end(url, null);
    this.#api.deleteStream(url).catch(() => this.#store.notice({ key: "stopFailed" }));
  }

  /** @param {string} url */
  async #follow(url) {
    const stream = this.#openStream(url);
    this.#stream = stream;
    let told = 0;
    let pull = newPull(this.#store.state.pull?.model ?? "");
    for await (const event of stream) {
      if (event.type === "chunk") pull = reducePull(pull, event.chunk, Date.now());
      else if (event.type === "error") pull = { ...pull, failure: event };
      else if (event.type === "lost") pull = { ...pull, failure: LOST };
      else continue;
      this.#store.set({ pull });
      if (Date.now() - told < TELL_MS) continue;
      told = Date.now();
      this.#tabs.post("pull", { url, pull });
    }
    if (this.#stream !== stream) return; // stopped, or another tab goes on
    this.#stream = null;
    const { done, failure, model } = pull;
    this.#end(url, failure && failure.code !== "cancelled" ? pull : null);
    await this.#server.refresh();
    if (!done) return;
    // "llama3.2" is listed as "llama3.2:latest".
    const name = this.#store.state.models.find(({ name }) => name === model || name === `${model}:latest`)?.name;
    if (name) this.#chats.setModel(name);
    this.#store.notice({ key: "pulled", vars: { model } });
  }

  /** @param {string} url @param {Pull | null} pull  null: there is nothing more to be said */
  #end(url, pull) {
    remember("pull", null);
    this.#tabs.release(NAME + url);
    this.#store.set({ pull });
    this.#tabs.post("pull", { url, pull });
  }

  #close() {
    const stream = this.#stream;
    this.#stream = null;
    stream?.close();
  }
}
