/** System prompt, preset and parameters of the open chat. */
import { $, h, setText, show } from "./dom.js";
import { mayOverride, presetOf } from "./state.js";
import { t } from "./strings.js";

const THINK = /** @type {const} */ (["", "on", "off", "low", "medium", "high"]);
const NUMBERS = /** @type {const} */ (["temperature", "num_ctx", "num_predict", "seed"]);

export class SettingsPanel {
  #session;
  #store;
  #dialog = /** @type {HTMLDialogElement} */ ($("#settings-dialog"));
  #form = /** @type {HTMLFormElement} */ ($("form", this.#dialog));

  /** @param {import("./session.js").Session} session @param {import("./state.js").Store} store */
  constructor(session, store) {
    this.#session = session;
    this.#store = store;
    $("#settings").addEventListener("click", () => this.open());
    $("#keep-settings").addEventListener("click", () => session.keepSettings());
    this.#field("think").append(...THINK.map((value) => h("option", { value }, t(`think_${value}`))));
    this.#form.addEventListener("input", () => this.#read());
    // A click beside the sheet closes it.
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
  }

  open() {
    this.#fill();
    this.#dialog.showModal();
  }

  /** @param {string} name */
  #field(name) {
    return /** @type {HTMLInputElement} */ (this.#form.elements.namedItem(name));
  }

  #fill() {
    const { chat, presets, defaultPreset, presetsOnly } = this.#store.state;
    const { settings } = chat;
    show($(".preset-field", this.#form), presets.length > 0);
    const none = defaultPreset ? t("defaultPreset", { name: defaultPreset }) : t("noPreset");
    const options = presets.map(({ name }) => h("option", { value: name }, name));
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
    const { models, chat } = this.#store.state;
    const preset = presetOf(this.#store.state, chat);
    setText($(".preset-field .about", this.#form), preset?.description ?? "");
    for (const name of ["system", "think", ...NUMBERS.map((name) => `options.${name}`)]) {
      const field = this.#field(name.replace("options.", ""));
      field.disabled = !mayOverride(preset, name);
      field.title = field.disabled ? t("setByPreset") : "";
    }
    const model = models.find((model) => model.name === this.#session.model());
    show($(".think-field", this.#form), !!model?.capabilities.includes("thinking"));
    $("#variables").replaceChildren(
      ...(preset?.variables ?? []).map((variable) => {
        const value = chat.settings.variables[variable.name] ?? "";
        const input = h("input", { name: `variable:${variable.name}`, placeholder: variable.default ?? "" });
        input.value = value;
        return h("label", {}, h("span", {}, variable.name), input, h("small", {}, variable.description ?? ""));
      }),
    );
  }

  #read() {
    const data = new FormData(this.#form);
    const text = (/** @type {string} */ name) => this.#field(name).value;
    const number = (/** @type {string} */ name) => {
      const field = this.#field(name);
      return field.value === "" || !field.validity.valid ? null : Number(field.value);
    };
    const preset = text("preset");
    const changed = preset !== this.#store.state.chat.settings.preset;
    /** @type {Record<string, string>} */
    const variables = {};
    for (const [name, value] of data)
      if (!changed && name.startsWith("variable:") && value) variables[name.slice(9)] = String(value);
    this.#session.setSettings({
      system: text("system"),
      preset,
      variables,
      think: text("think"),
      temperature: number("temperature"),
      num_ctx: number("num_ctx"),
      num_predict: number("num_predict"),
      seed: number("seed"),
    });
    if (changed) this.#applyPreset();
  }
}
