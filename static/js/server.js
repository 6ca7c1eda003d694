/** What the gateway offers: models and presets, asked for again while there is no Ollama or no model. */

/** @typedef {import("./api.js").ApiError} ApiError */

/** How often a gateway without Ollama, or without a model, is asked again. */
const POLL_MS = 3_000;

export class Server {
  #store;
  #api;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #polling;

  /** @param {import("./state.js").Store} store @param {import("./api.js").Api} api */
  constructor(store, api) {
    this.#store = store;
    this.#api = api;
  }

  get #state() {
    return this.#store.state;
  }

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

  /** The model the next prompt goes to. */
  model() {
    const { chat, models, defaultModel } = this.#state;
    const known = (/** @type {string | null} */ name) => models.some((model) => model.name === name);
    if (known(chat.model)) return chat.model;
    if (known(defaultModel)) return /** @type {string} */ (defaultModel);
    const chats = models.find((model) => model.capabilities.includes("completion"));
    return (chats ?? models[0])?.name ?? chat.model;
  }
}
