/** Choosing a model, and getting one. */
import { $, fromTemplate, h, icon, setText, show } from "./dom.js";
import * as format from "./format.js";
import { pullTotals } from "./pull.js";
import { maybe, t } from "./strings.js";
import { failureText } from "./turn.js";

/** @import { Model, Pull, State } from "./types.js" */

/** More models than this are filtered by typing. */
const MANY = 10;

export class ModelPicker {
  #session;
  #button = $("#model");
  #dialog = /** @type {HTMLDialogElement} */ ($("#models-dialog"));
  #list = $("#models");
  #pullForm;
  #filter = /** @type {HTMLInputElement} */ ($("#filter-models"));
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
      else session.chats.setModel(name);
    });
    this.#dialog.addEventListener("keydown", (event) => this.#onKey(event));
    this.#filter.addEventListener("input", () => this.#hide());
  }

  /** @param {((model: string) => void) | null} [choose] */
  open(choose = null) {
    this.#choose = choose;
    setText($("#models-title"), t(choose ? "regenerateWith" : "models"));
    this.#filter.value = "";
    this.#hide();
    this.#dialog.showModal();
    const current = this.#list.querySelector("[aria-current]") ?? this.#list.querySelector("button");
    /** @type {HTMLElement | null} */ (current)?.focus();
    void this.#session.server.refresh();
  }

  /** @param {State} state */
  render({ models, chat, pull, allowPull, server }) {
    this.#pullForm.render(pull);
    show(this.#pullForm.element, allowPull && server === "ok");
    const current = this.#session.server.model();
    const parts = [models, current, chat.id];
    if (parts.every((part, i) => part === this.#shown[i])) return;
    this.#shown = parts;
    setText($(".name", this.#button), current || t("noModel"));
    this.#button.setAttribute("aria-label", t("chooseModel", { model: current || t("noModel") }));
    const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest("#models button"))?.dataset
      .model;
    this.#list.replaceChildren(...models.map((model) => modelItem(model, model.name === current)));
    this.#hide();
    if (focused)
      /** @type {HTMLElement | null} */ (this.#list.querySelector(`[data-model="${CSS.escape(focused)}"]`))?.focus();
  }

  /** Show only the models whose name has the words. */
  #hide() {
    const words = this.#filter.value.toLowerCase().split(/\s+/);
    show(this.#filter, this.#list.children.length > MANY || words[0] !== "");
    for (const item of this.#list.children) {
      const name = item.querySelector("button")?.dataset.model?.toLowerCase() ?? "";
      show(
        /** @type {HTMLElement} */ (item),
        words.every((word) => name.includes(word)),
      );
    }
  }

  /** Arrows move through the list; letters filter it, wherever the focus is. @param {KeyboardEvent} event */
  #onKey(event) {
    const typed = event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey;
    const { length } = this.#list.children;
    // Nobody knows how many models there are until they have come.
    if (typed && !(event.target instanceof HTMLInputElement) && (!length || length > MANY)) {
      show(this.#filter, true);
      return this.#filter.focus(); // before the key types
    }
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (!step || !(this.#list.contains(document.activeElement) || document.activeElement === this.#filter)) return;
    event.preventDefault();
    const buttons = [...this.#list.querySelectorAll("li:not([hidden]) button:enabled")];
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
  /** @type {Pull | null | undefined} */ #shown;

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    const form = /** @type {HTMLFormElement} */ ($("form", this.element));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = String(new FormData(form).get("model")).trim();
      if (name) void session.pulls.pull(name);
    });
    $("[data-do=stop-pull]", this.element).addEventListener("click", () => session.pulls.stop());
  }

  /** @param {Pull | null} pull */
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
