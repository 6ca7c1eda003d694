/** System prompt, preset and parameters of the open chat. */
import { $, h, setText, show } from "./dom.js";
import { mayOverride, presetOf } from "./request.js";
import { t } from "./strings.js";

const THINK = /** @type {const} */ (["", "on", "off", "low", "medium", "high"]);
const NUMBERS = /** @type {const} */ (["temperature", "num_ctx", "num_predict", "seed"]);

export class SettingsPanel {
  #session;
  #store;
  #dialog = /** @type {HTMLDialogElement} */ ($("#settings-dialog"));
  #form = /** @type {HTMLFormElement} */ ($("form", this.#dialog));
  /** What the fields were filled for. */
  #shown = "";

  /** @param {import("./session.js").Session} session @param {import("./state.js").Store} store */
  constructor(session, store) {
    this.#session = session;
    this.#store = store;
    $("#settings").addEventListener("click", () => this.open());
    $("#keep-settings").addEventListener("click", () => session.chats.keepSettings());
    this.#field("think").append(...THINK.map((value) => h("option", { value }, t(`think_${value}`))));
    this.#form.addEventListener("input", (event) => {
      this.#read();
      if (event.target === this.#field("preset")) this.#applyPreset();
    });
    // A click beside the sheet closes it.
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
  }

  open() {
    this.#fill();
    this.#dialog.showModal();
  }

  /** The panel can be opened before the server has said what there is, and Back changes the chat under it. */
  render() {
    if (this.#dialog.open && this.#subject() !== this.#shown) this.#fill();
  }

  #subject() {
    const { chat, presets, defaultPreset, presetsOnly } = this.#store.state;
    return JSON.stringify([chat.id, presets, defaultPreset, presetsOnly, this.#thinks()]);
  }

  #thinks() {
    const { models } = this.#store.state;
    return !!models.find(({ name }) => name === this.#session.server.model())?.capabilities.includes("thinking");
  }

  /** @param {string} name */
  #field(name) {
    return /** @type {HTMLInputElement} */ (this.#form.elements.namedItem(name));
  }

  #fill() {
    const { chat, presets, defaultPreset, presetsOnly } = this.#store.state;
    const { settings } = chat;
    this.#shown = this.#subject();
    const names = presets.map(({ name }) => name);
    // A preset that the server does not (yet) name: without an option, the next change of any field would undo it.
    if (settings.preset && !names.includes(settings.preset)) names.push(settings.preset);
    show($(".preset-field", this.#form), names.length > 0);
    const none = defaultPreset ? t("defaultPreset", { name: defaultPreset }) : t("noPreset");
    const options = names.map((name) => h("option", { value: name }, name));
    const needed = presetsOnly && !defaultPreset;
    this.#field("preset").replaceChildren(...(needed ? [] : [h("option", { value: "" }, none)]), ...options);
    this.#field("preset").value = needed ? (presetOf(this.#store.state, chat)?.name ?? "") : settings.preset;
    this.#field("system").value = settings.system;
    this.#field("think").value = settings.think;
    for (const name of NUMBERS) this.#field(name).value = settings[name] === null ? "" : String(settings[name]);
    this.#applyPreset();
  }

  /** What the preset fixes cannot be set here; its variables can. */
  #applyPreset() {
    const { chat } = this.#store.state;
    const preset = presetOf(this.#store.state, chat);
    setText($(".preset-field .about", this.#form), preset?.description ?? "");
    for (const name of ["system", "think", ...NUMBERS.map((name) => `options.${name}`)]) {
      const field = this.#field(name.replace("options.", ""));
      field.disabled = !mayOverride(preset, name);
      field.title = field.disabled ? t("setByPreset") : "";
      const hint = /** @type {import("./strings.js").Key | undefined} */ (field.dataset.placeholder);
      if (hint) field.placeholder = t(field.disabled ? "setByPreset" : hint);
    }
    show($(".think-field", this.#form), this.#thinks());
    $("#variables").replaceChildren(
      ...(preset?.variables ?? []).map((variable) => {
        const input = h("input", { "data-variable": variable.name, placeholder: variable.default ?? "" });
        input.value = chat.settings.variables[variable.name] ?? "";
        return h("label", {}, h("span", {}, variable.name), input, h("small", {}, variable.description ?? ""));
      }),
    );
  }

  #read() {
    const text = (/** @type {string} */ name) => this.#field(name).value;
    const number = (/** @type {string} */ name) => {
      const field = this.#field(name);
      return field.value === "" || !field.validity.valid ? null : Number(field.value);
    };
    // Those of another preset are kept: it may be chosen again, or not be known yet.
    const variables = { ...this.#store.state.chat.settings.variables };
    for (const input of $("#variables").querySelectorAll("input"))
      variables[input.dataset.variable ?? ""] = input.value;
    this.#session.chats.setSettings({
      system: text("system"),
      preset: text("preset"),
      variables,
      think: text("think"),
      temperature: number("temperature"),
      num_ctx: number("num_ctx"),
      num_predict: number("num_predict"),
      seed: number("seed"),
    });
  }
}
