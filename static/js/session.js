/**
 * Everything a person can do, as methods: they change the store, talk to the gateway and keep the history.
 * No DOM. A `notice` event on the store carries what a person should be told in passing, with its undo.
 */
import { ApiError } from "./api.js";
import * as S from "./state.js";

/** @typedef {import("./state.js").Chat} Chat */
/** @typedef {import("./state.js").Turn} Turn */
/** @typedef {import("./state.js").Answer} Answer */
/** @typedef {{key: string, vars?: Record<string, string | number>, undo?: () => void}} Notice */

/** An answer that grows is written this often; a reload goes on from there. */
const SAVE_MS = 500;
/** How often a gateway without Ollama, or without a model, is asked again. */
const POLL_MS = 3_000;

export class Session {
  #store;
  #api;
  #history;
  #openStream;
  /** Of the answers that are read at the moment, by answer id. */
  /** @type {Map<string, import("../client.js").Stream>} */ #streams = new Map();
  /** @type {import("../client.js").Stream | null} */ #pulling = null;
  /** Turns to write, by chat. @type {Map<string, Set<string>>} */ #dirty = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #saving;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #polling;

  /**
   * @param {S.Store} store @param {import("./api.js").Api} api
   * @param {import("./history.js").History | null} history  null: nothing is kept
   * @param {typeof import("../client.js").openStream} openStream
   */
  constructor(store, api, history, openStream) {
    this.#store = store;
    this.#api = api;
    this.#history = history;
    this.#openStream = openStream;
  }

  get #state() {
    return this.#store.state;
  }

  /** Load the list of chats and open one; before the view is made, which shows it. @param {string} id */
  async start(id) {
    const chats = (await this.#history?.chats()) ?? [];
    this.#store.set({ chats, chat: S.newChat(recall("model") ?? "", this.#defaults()) });
    await this.open(id);
  }

  /** Go on reading every answer, and a pull, that were left running. */
  async resume() {
    for (const chat of this.#state.chats.filter((chat) => chat.running)) {
      for (const turn of await this.#load(chat.id))
        for (const answer of turn.answers.filter(S.isActive)) void this.#resume(chat.id, turn.id, answer);
    }
    const pull = recall("pull");
    if (pull) void this.#followPull(pull.model, pull.url);
  }

  // Chats ---------------------------------------------------------------------------------------------

  /** @param {string} id unknown: a new chat */
  async open(id) {
    const chat = this.#state.chats.find((chat) => chat.id === id);
    if (!chat) return this.newChat();
    await this.#load(id);
    this.#store.set({ chat: this.#state.chats.find((chat) => chat.id === id) ?? chat });
  }

  newChat() {
    const { chat, chats } = this.#state;
    if (chats.some((known) => known.id === chat.id))
      this.#store.set({ chat: S.newChat(recall("model") ?? chat.model, this.#defaults()) });
  }

  /** @param {string} id @param {string} title */
  rename(id, title) {
    if (title.trim()) this.#changeChat(id, { title: title.trim(), renamed: true });
  }

  /** @param {string} id */
  async deleteChat(id) {
    const chat = this.#state.chats.find((chat) => chat.id === id);
    if (!chat) return;
    const turns = await this.#load(id);
    this.stop(id);
    this.#forget(id);
    await this.#history?.deleteChat(id);
    const undo = () => {
      this.#store.set({
        chats: [...this.#state.chats, chat].sort((a, b) => b.updated - a.updated),
        turns: { ...this.#state.turns, [id]: turns.map(settled) },
      });
      this.#changeChat(id, { running: false });
      this.#save(id, turns.map((turn) => turn.id));
      void this.open(id);
    };
    this.#notice({ key: "chatDeleted", vars: { title: chat.title }, undo });
  }

  /** @param {string} id */
  #forget(id) {
    const { [id]: _, ...turns } = this.#state.turns;
    this.#store.set({ chats: this.#state.chats.filter((chat) => chat.id !== id), turns });
    if (this.#state.chat.id === id) this.#store.set({ chat: S.newChat(recall("model") ?? "", this.#defaults()) });
  }

  /** @param {string} query */
  async search(query) {
    this.#store.set({ query });
    const found = query.trim() ? ((await this.#history?.search(query)) ?? new Set()) : null;
    if (this.#state.query === query) this.#store.set({ found });
  }

  async exportAll() {
    await this.flush();
    return this.#history?.exportAll();
  }

  /** @param {string} text the content of an exported file */
  async importAll(text) {
    try {
      const count = (await this.#history?.importAll(JSON.parse(text))) ?? 0;
      // What is running stays in memory; the rest is read again when it is opened.
      const running = Object.entries(this.#state.turns).filter(([, turns]) => S.isRunning(turns));
      this.#store.set({ chats: (await this.#history?.chats()) ?? [], turns: Object.fromEntries(running) });
      await this.open(this.#state.chat.id);
      this.#notice({ key: "imported", vars: { n: count } });
    } catch {
      this.#notice({ key: "importFailed" });
    }
  }

  /** @param {string} model */
  setModel(model) {
    remember("model", model);
    this.#changeChat(this.#state.chat.id, { model });
  }

  /** @param {Partial<S.Settings>} patch */
  setSettings(patch) {
    const { chat } = this.#state;
    this.#changeChat(chat.id, { settings: { ...chat.settings, ...patch } });
  }

  /** New chats begin with this chat's settings from now on. */
  keepSettings() {
    remember("settings", this.#state.chat.settings);
    this.#notice({ key: "settingsKept" });
  }

  /** @returns {S.Settings} */
  #defaults() {
    return { ...S.NO_SETTINGS, ...recall("settings") };
  }

  // Turns ---------------------------------------------------------------------------------------------

  /** @param {string} prompt @param {string[]} images @returns {boolean} whether it was taken */
  send(prompt, images) {
    if (!this.#mayRun()) return false;
    const { chat, chats, turns } = this.#state;
    const turn = S.newTurn(prompt, images);
    if (!chats.some((known) => known.id === chat.id)) this.#store.set({ chats: [chat, ...chats] });
    if (!chat.title) this.#changeChat(chat.id, { title: S.titleOf(prompt) });
    this.#setTurns(chat.id, [...(turns[chat.id] ?? []), turn]);
    void this.#answer(chat.id, turn.id, this.model());
    return true;
  }

  /** Another answer to the same prompt; the earlier ones stay. @param {string} turnId @param {string} [model] */
  regenerate(turnId, model) {
    if (this.#mayRun()) void this.#answer(this.#state.chat.id, turnId, model ?? this.model());
  }

  /** Ask differently: this turn and what followed make way for the new one. @param {string} turnId @param {string} prompt */
  edit(turnId, prompt) {
    const { chat, turns } = this.#state;
    const before = turns[chat.id] ?? [];
    const at = before.findIndex((turn) => turn.id === turnId);
    const old = before[at];
    if (!old || !this.#mayRun()) return;
    this.stop(chat.id);
    this.#setTurns(chat.id, before.slice(0, at));
    this.send(prompt, old.images);
    if (at < before.length - 1) this.#notice({ key: "turnsReplaced", undo: this.#undo(chat.id, before) });
  }

  /** @param {string} turnId */
  deleteTurn(turnId) {
    const { chat, turns } = this.#state;
    const before = turns[chat.id] ?? [];
    const turn = before.find((turn) => turn.id === turnId);
    if (turn?.answers.some(S.isActive)) this.stop(chat.id);
    this.#setTurns(chat.id, before.filter((turn) => turn.id !== turnId));
    this.#notice({ key: "turnDeleted", undo: this.#undo(chat.id, before) });
  }

  dropOldest() {
    const { chat, turns } = this.#state;
    const before = turns[chat.id] ?? [];
    this.#setTurns(chat.id, S.dropOldest(before));
    this.#notice({ key: "turnsDropped", undo: this.#undo(chat.id, before) });
  }

  /** @param {string} turnId @param {number} shown index of the answer */
  show(turnId, shown) {
    const { id } = this.#state.chat;
    this.#setTurn(id, turnId, (turn) => ({ ...turn, shown }));
    this.#save(id, [turnId]);
  }

  /** Stop what runs in a chat, in whatever phase it is. @param {string} chatId */
  stop(chatId = this.#state.chat.id) {
    for (const turn of this.#state.turns[chatId] ?? [])
      for (const answer of turn.answers.filter(S.isActive)) {
        this.#setAnswer(chatId, turn.id, answer.id, (answer) => ({ ...answer, status: "cancelled" }));
        const stream = this.#streams.get(answer.id);
        stream?.stop().catch(() => {
          stream.close();
          this.#notice({ key: "stopFailed" });
        });
        this.#save(chatId, [turn.id]);
      }
  }

  /** The model the next prompt goes to. */
  model() {
    const { chat, models, defaultModel } = this.#state;
    const known = (/** @type {string | null} */ name) => models.some((model) => model.name === name);
    if (known(chat.model)) return chat.model;
    if (known(defaultModel)) return /** @type {string} */ (defaultModel);
    const chats = models.find((model) => model.capabilities.includes("completion"));
    return (chats ?? models[0])?.name ?? chat.model;
  }

  #mayRun() {
    const running = Object.values(this.#state.turns).filter((turns) => S.isRunning(turns)).length;
    if (running < S.MAX_RUNNING) return true;
    this.#notice({ key: "tooMany", vars: { n: S.MAX_RUNNING } });
    return false;
  }

  /** @param {string} chatId @param {string} turnId @param {string} model */
  async #answer(chatId, turnId, model) {
    this.stop(chatId);
    const { chat, chats, models } = this.#state;
    const owner = chats.find((known) => known.id === chatId) ?? chat;
    const turns = this.#state.turns[chatId] ?? [];
    const at = turns.findIndex((turn) => turn.id === turnId);
    const turn = turns[at];
    if (!turn) return;
    const capabilities = models.find((known) => known.name === model)?.capabilities ?? [];
    const request = S.requestFor(owner, turns, turn, model, capabilities, S.presetOf(this.#state, owner));
    const answer = S.newAnswer(model, request, turns.slice(0, at + 1));
    this.#setTurn(chatId, turnId, (turn) => ({
      ...turn,
      omitted: false,
      answers: [...turn.answers, answer],
      shown: turn.answers.length,
    }));
    this.#changeChat(chatId, { updated: Date.now(), running: true });
    this.#save(chatId, [turnId]);
    try {
      const { url, model: asked } = await this.#api.createStream(request);
      // Stopped before the gateway had answered.
      if (!S.isActive(this.#find(chatId, turnId, answer.id))) return void this.#api.deleteStream(url).catch(() => {});
      this.#setAnswer(chatId, turnId, answer.id, (answer) => ({ ...answer, url, model: asked }));
      this.#save(chatId, [turnId]);
      await this.#follow(chatId, turnId, answer.id, this.#openStream(url));
    } catch (error) {
      const { message, code = "", retryable = true } = /** @type {ApiError} */ (error);
      this.#setAnswer(chatId, turnId, answer.id, (answer) =>
        S.isActive(answer) ? S.fail(answer, { error: message, code, retryable }) : answer,
      );
    } finally {
      this.#finish(chatId, turnId);
    }
  }

  /** After a reload: go on where the saved text ends. @param {string} chatId @param {string} turnId @param {Answer} answer */
  async #resume(chatId, turnId, answer) {
    if (answer.url) {
      this.#setAnswer(chatId, turnId, answer.id, (answer) => ({ ...answer, status: "reconnecting" }));
      const stream = this.#openStream(answer.url, { lastEventId: answer.lastId });
      await this.#follow(chatId, turnId, answer.id, stream);
    } else this.#setAnswer(chatId, turnId, answer.id, (answer) => S.fail(answer, S.LOST));
    this.#finish(chatId, turnId);
  }

  /** @param {string} chatId @param {string} turnId @param {string} answerId @param {import("../client.js").Stream} stream */
  async #follow(chatId, turnId, answerId, stream) {
    this.#streams.set(answerId, stream);
    for await (const event of stream) {
      this.#setAnswer(chatId, turnId, answerId, (answer) => S.reduceAnswer(answer, event, Date.now()));
      this.#save(chatId, [turnId]);
    }
    this.#streams.delete(answerId);
    // Closed without an end, which only happens when the terminal event was read before.
    this.#setAnswer(chatId, turnId, answerId, (answer) => (S.isActive(answer) ? S.fail(answer, S.LOST) : answer));
  }

  /** @param {string} chatId @param {string} turnId */
  #finish(chatId, turnId) {
    this.#changeChat(chatId, { running: S.isRunning(this.#state.turns[chatId]), updated: Date.now() });
    this.#save(chatId, [turnId]);
    void this.refresh();
  }

  // The server ------------------------------------------------------------------------------------------

  /** Ask for models and presets, and keep asking while there is no Ollama or no model. */
  async refresh() {
    clearTimeout(this.#polling);
    try {
      const [models, presets] = await Promise.all([this.#api.models(), this.#api.presets()]);
      this.#store.set({
        models: models.models,
        defaultModel: models.default,
        allowPull: models.allow_pull,
        presets: presets.presets,
        defaultPreset: presets.default,
        presetsOnly: presets.only,
        server: "ok",
        serverFailure: null,
      });
    } catch (error) {
      const { message, code = "" } = /** @type {ApiError} */ (error);
      this.#store.set({ server: "down", serverFailure: { error: message, code } });
    }
    const { server, serverFailure, models } = this.#state;
    // Without a key the next request asks for it; a timer that asks again and again would be a nuisance.
    if ((server === "down" && serverFailure?.code !== "unauthorized") || (server === "ok" && !models.length))
      this.#polling = setTimeout(() => void this.refresh(), POLL_MS);
  }

  /** @param {string} model */
  async pull(model) {
    this.#store.set({ pull: S.newPull(model) });
    try {
      const { url } = await this.#api.createStream({ pull: { model }, resume_window: S.RESUME_WINDOW });
      remember("pull", { model, url });
      await this.#followPull(model, url);
    } catch (error) {
      const { message, code = "" } = /** @type {ApiError} */ (error);
      this.#store.set({ pull: { ...S.newPull(model), failure: { error: message, code } } });
    }
  }

  /** @param {string} model @param {string} url */
  async #followPull(model, url) {
    let pull = S.newPull(model);
    this.#store.set({ pull });
    this.#pulling = this.#openStream(url);
    for await (const event of this.#pulling) {
      if (event.type === "chunk") pull = S.reducePull(pull, event.chunk, Date.now());
      else if (event.type === "error") pull = { ...pull, failure: event };
      else if (event.type === "lost") pull = { ...pull, failure: S.LOST };
      else continue;
      this.#store.set({ pull });
    }
    this.#pulling = null;
    remember("pull", null);
    await this.refresh();
    if (pull.done) {
      // "llama3.2" is listed as "llama3.2:latest".
      const name = this.#state.models.find(({ name }) => name === model || name === `${model}:latest`)?.name;
      if (name) this.setModel(name);
      this.#notice({ key: "pulled", vars: { model } });
    }
    if (pull.done || pull.failure?.code === "cancelled") this.#store.set({ pull: null });
  }

  stopPull() {
    if (this.#pulling) this.#pulling.stop().catch(() => this.#pulling?.close());
    else this.#store.set({ pull: null });
  }

  // The store and the history ---------------------------------------------------------------------------

  /** @param {string} chatId */
  async #load(chatId) {
    const known = this.#state.turns[chatId];
    if (known) return known;
    const turns = ((await this.#history?.turns(chatId)) ?? []).map(S.reviveTurn);
    this.#store.set({ turns: { ...this.#state.turns, [chatId]: turns } });
    return turns;
  }

  /** @param {string} id @param {Partial<Chat>} patch */
  #changeChat(id, patch) {
    const { chat, chats } = this.#state;
    const known = chats.find((chat) => chat.id === id);
    const changed = { ...(known ?? chat), ...patch };
    if (!known) return chat.id === id ? this.#store.set({ chat: changed }) : undefined;
    const others = chats.map((chat) => (chat.id === id ? changed : chat));
    this.#store.set({
      chats: patch.updated ? others.sort((a, b) => b.updated - a.updated) : others,
      chat: chat.id === id ? changed : chat,
    });
    void this.#keep(this.#history?.saveChat(changed));
  }

  /** Replace a chat's turns, in the history too. @param {string} chatId @param {Turn[]} turns */
  #setTurns(chatId, turns) {
    const before = this.#state.turns[chatId] ?? [];
    this.#store.set({ turns: { ...this.#state.turns, [chatId]: turns } });
    const gone = before.filter((turn) => !turns.some((kept) => kept.id === turn.id)).map((turn) => turn.id);
    if (gone.length) void this.#keep(this.#history?.deleteTurns(chatId, gone));
    this.#save(chatId, turns.filter((turn) => !before.includes(turn)).map((turn) => turn.id));
  }

  /** @param {string} chatId @param {Turn[]} turns */
  #undo(chatId, turns) {
    return () => {
      this.stop(chatId);
      this.#setTurns(chatId, turns.map(settled));
    };
  }

  /** @param {string} chatId @param {string} turnId @param {(turn: Turn) => Turn} change */
  #setTurn(chatId, turnId, change) {
    const turns = this.#state.turns[chatId];
    if (!turns?.some((turn) => turn.id === turnId)) return;
    const changed = turns.map((turn) => (turn.id === turnId ? change(turn) : turn));
    this.#store.set({ turns: { ...this.#state.turns, [chatId]: changed } });
  }

  /** @param {string} chatId @param {string} turnId @param {string} id @param {(answer: Answer) => Answer} change */
  #setAnswer(chatId, turnId, id, change) {
    this.#setTurn(chatId, turnId, (turn) => ({
      ...turn,
      answers: turn.answers.map((answer) => (answer.id === id ? change(answer) : answer)),
    }));
  }

  /** @param {string} chatId @param {string} turnId @param {string} id */
  #find(chatId, turnId, id) {
    const turn = this.#state.turns[chatId]?.find((turn) => turn.id === turnId);
    return turn?.answers.find((answer) => answer.id === id);
  }

  /** @param {string} chatId @param {string[]} turnIds */
  #save(chatId, turnIds) {
    const dirty = this.#dirty.get(chatId) ?? new Set();
    turnIds.forEach((id) => dirty.add(id));
    this.#dirty.set(chatId, dirty);
    this.#saving ??= setTimeout(() => void this.flush(), SAVE_MS);
  }

  /** Write what changed at once, as when the page goes away. */
  async flush() {
    clearTimeout(this.#saving);
    this.#saving = undefined;
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    await Promise.all(
      dirty.map(([chatId, ids]) => {
        const turns = this.#state.turns[chatId]?.filter((turn) => ids.has(turn.id)) ?? [];
        return this.#keep(turns.length ? this.#history?.saveTurns(chatId, turns) : undefined);
      }),
    );
  }

  /** @param {Promise<void> | undefined} writing */
  async #keep(writing) {
    try {
      await writing;
    } catch {
      // Quota, or a private window that lost its storage.
      this.#notice({ key: "notSaved" });
    }
  }

  /** @param {Notice} notice */
  #notice(notice) {
    this.#store.dispatchEvent(new CustomEvent("notice", { detail: notice }));
  }
}

/** A turn that is brought back has no stream any more. @param {Turn} turn @returns {Turn} */
const settled = (turn) => ({
  ...turn,
  answers: turn.answers.map((answer) => (S.isActive(answer) ? { ...answer, status: "cancelled" } : answer)),
});

/** Small preferences, outside the history. @param {string} key @param {unknown} value */
export function remember(key, value) {
  try {
    if (value === null) localStorage.removeItem(`gateway.${key}`);
    else localStorage.setItem(`gateway.${key}`, JSON.stringify(value));
  } catch {
    // Storage is off: the preference lasts as long as the page.
  }
}

/** @param {string} key @returns {any} */
export function recall(key) {
  try {
    return JSON.parse(localStorage.getItem(`gateway.${key}`) ?? "null");
  } catch {
    return null;
  }
}
