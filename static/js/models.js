/** Choosing a model, and getting one. */
import { $, fromTemplate, h, icon, setText, show } from "./dom.js";
import * as format from "./format.js";
import { pullTotals } from "./state.js";
import { maybe, t } from "./strings.js";
import { failureText } from "./turn.js";

/** @typedef {import("./state.js").Model} Model */

export class ModelPicker {
  #session;
  #button = $("#model");
  #dialog = /** @type {HTMLDialogElement} */ ($("#models-dialog"));
  #list = $("#models");
  #pullForm;
  /** What to do with the choice; null: it becomes the chat's model. */
  /** @type {((model: string) => void) | null} */ #choose = null;
  /** @type {unknown[]} */ #shown = [];

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.#session = session;
    this.#pullForm = new PullForm(session);
    $("#pull-place").append(this.#pullForm.element);
    this.#button.addEventListener("click", () => this.open());
    this.#list.addEventListener("click", (event) => {
      const name = /** @type {HTMLElement} */ (event.target).closest("button")?.dataset.model;
      if (!name) return;
      this.#dialog.close();
      if (this.#choose) this.#choose(name);
      else session.setModel(name);
    });
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** @param {((model: string) => void) | null} [choose] */
  open(choose = null) {
    this.#choose = choose;
    setText($("#models-title"), t(choose ? "answerWith" : "models"));
    this.#dialog.showModal();
    const current = this.#list.querySelector("[aria-current]") ?? this.#list.querySelector("button");
    /** @type {HTMLElement | null} */ (current)?.focus();
    void this.#session.refresh();
  }

  /** @param {import("./state.js").State} state */
  render({ models, chat, pull, allowPull, server }) {
    this.#pullForm.render(pull);
    show(this.#pullForm.element, allowPull && server === "ok");
    const current = this.#session.model();
    const parts = [models, current, chat.id];
    if (parts.every((part, i) => part === this.#shown[i])) return;
    this.#shown = parts;
    setText($(".name", this.#button), current || t("noModel"));
    this.#button.setAttribute("aria-label", t("chooseModel", { model: current || t("noModel") }));
    const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest("#models button"))?.dataset.model;
    this.#list.replaceChildren(...models.map((model) => modelItem(model, model.name === current)));
    if (focused) /** @type {HTMLElement | null} */ (this.#list.querySelector(`[data-model="${CSS.escape(focused)}"]`))?.focus();
  }

  /** Arrows move through the list. @param {KeyboardEvent} event */
  #onKey(event) {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.#list.querySelectorAll("button:enabled")];
    const at = buttons.indexOf(/** @type {Element} */ (document.activeElement));
    /** @type {HTMLElement | undefined} */ (buttons.at((at + step) % buttons.length))?.focus();
  }
}

/** @param {Model} model @param {boolean} current */
function modelItem(model, current) {
  const item = fromTemplate("t-model");
  const button = /** @type {HTMLButtonElement} */ ($("button", item));
  button.dataset.model = model.name;
  // An older Ollama names no capabilities; such a model may well chat.
  button.disabled = model.capabilities.length > 0 && !model.capabilities.includes("completion");
  if (current) {
    button.setAttribute("aria-current", "true");
    button.append(icon("check"));
  }
  setText($(".name", item), model.name);
  const marks = [];
  if (model.loaded) marks.push(h("span", { class: "mark loaded" }, t("loaded")));
  const capabilities = model.capabilities.includes("completion")
    ? model.capabilities
    : model.capabilities.filter((name) => name === "embedding");
  for (const name of capabilities) {
    const label = maybe(`cap_${name}`);
    if (label) marks.push(h("span", { class: "mark" }, label));
  }
  $(".marks", item).append(...marks);
  const limit = model.loaded_context_length ?? model.context_length;
  const about = [model.parameters, model.quantization, model.size ? format.size(model.size) : ""];
  if (limit) about.push(t("contextOf", { n: format.context(limit) }));
  setText($(".about", item), about.filter((part) => part && part !== "unknown").join(" · "));
  return item;
}

/** The form to pull a model and its progress; stands in the picker and on the screen without models. */
export class PullForm {
  element = fromTemplate("t-pull");
  /** @type {import("./state.js").Pull | null | undefined} */ #shown;

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    const form = /** @type {HTMLFormElement} */ ($("form", this.element));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = String(new FormData(form).get("model")).trim();
      if (name) void session.pull(name);
    });
    $("[data-do=stop-pull]", this.element).addEventListener("click", () => session.stopPull());
  }

  /** @param {import("./state.js").Pull | null} pull */
  render(pull) {
    if (pull === this.#shown) return;
    this.#shown = pull;
    const running = !!pull && !pull.failure;
    const focused = this.element.contains(document.activeElement);
    show($("form", this.element), !running);
    show($(".pulling", this.element), running);
    // The focus must not fall out of the dialog with the control that had it.
    if (focused && !this.element.contains(document.activeElement))
      $(running ? "[data-do=stop-pull]" : "input", this.element).focus();
    const error = $(".error", this.element);
    show(error, !!pull?.failure);
    if (pull?.failure) setText(error, failureText(pull.failure));
    if (!pull || !running) return;
    const { completed, total, speed, remainingMs } = pullTotals(pull);
    setText($(".what", this.element), t("pullingModel", { model: pull.model }));
    const bar = /** @type {HTMLProgressElement} */ ($("progress", this.element));
    bar.setAttribute("aria-label", t("pullingModel", { model: pull.model }));
    if (total) bar.value = completed / total;
    else bar.removeAttribute("value");
    setText($(".how", this.element), howText(pull.status, completed, total, speed, remainingMs));
  }
}

/** @param {string} status @param {number} have @param {number} all @param {number} speed @param {number} left */
function howText(status, have, all, speed, left) {
  if (!all || have === all) return status;
  const sizes = { have: format.size(have), all: format.size(all) };
  if (!speed) return t("pullStart", sizes);
  return t("pullProgress", { ...sizes, speed: format.size(speed), time: format.clock(left) });
}
