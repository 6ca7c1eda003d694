/** Prompts that a person saved: "/" at the beginning of the prompt lists them, and what follows it filters. */
import { $, h, iconButton, setText, show } from "./dom.js";
import { recall, remember } from "./prefs.js";
import { titleOf } from "./state.js";
import { t } from "./strings.js";

/** @returns {string[]} newest first */
const saved = () => {
  const list = recall("prompts");
  return Array.isArray(list) ? list.filter((text) => typeof text === "string" && text) : [];
};

/** @param {string} text */
export function savePrompt(text) {
  remember("prompts", [text, ...saved().filter((other) => other !== text)]);
}

export class SavedPrompts {
  #field;
  #changed;
  #list = $("#saved");
  #at = 0;
  /** Closed by Escape until the text is another one. */ #closedFor = "";

  /** @param {HTMLTextAreaElement} field @param {() => void} changed */
  constructor(field, changed) {
    this.#field = field;
    this.#changed = changed;
    // The field keeps the focus, as in any list of suggestions.
    this.#list.addEventListener("mousedown", (event) => event.preventDefault());
    field.addEventListener("blur", () => this.#show([]));
    field.addEventListener("focus", () => this.render());
  }

  render() {
    const text = this.#field.value;
    const open = text.startsWith("/") && !text.includes("\n") && text !== this.#closedFor;
    if (!open) return this.#show([]);
    const words = text.slice(1).toLowerCase();
    this.#at = 0;
    this.#show(saved().filter((prompt) => prompt.toLowerCase().includes(words)));
  }

  /** @param {KeyboardEvent} event @returns {boolean} whether the key was for the list */
  onKey(event) {
    if (this.#list.hidden) return false;
    const options = [...this.#list.querySelectorAll("[role=option]")];
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step && options.length) this.#select((this.#at + step + options.length) % options.length);
    else if ((event.key === "Enter" || event.key === "Tab") && options[this.#at])
      /** @type {HTMLElement} */ (options[this.#at]).click();
    else if (event.key === "Escape") {
      this.#closedFor = this.#field.value;
      this.#show([]);
      event.stopPropagation();
    } else return false;
    event.preventDefault();
    return true;
  }

  /** @param {string[]} prompts */
  #show(prompts) {
    const none = this.#field.value === "/" && document.activeElement === this.#field && !saved().length;
    show(this.#list, prompts.length > 0 || none);
    this.#list.replaceChildren(...prompts.map((prompt, i) => this.#option(prompt, i)));
    if (none) this.#list.append(h("li", { class: "quiet" }, t("noSavedPrompts")));
    if (prompts.length) this.#select(this.#at);
    else this.#field.removeAttribute("aria-activedescendant");
  }

  /** @param {string} prompt @param {number} i */
  #option(prompt, i) {
    const option = h("li", { role: "option", id: `saved-${i}`, dir: "auto", title: prompt }, h("span"));
    setText($("span", option), titleOf(prompt));
    option.addEventListener("click", () => {
      this.#field.value = prompt;
      this.#field.dispatchEvent(new Event("input"));
      this.#show([]);
    });
    const remove = iconButton("close", "removeSaved");
    remove.tabIndex = -1;
    remove.addEventListener("click", (event) => {
      event.stopPropagation();
      remember(
        "prompts",
        saved().filter((other) => other !== prompt),
      );
      this.#changed();
    });
    option.append(remove);
    return option;
  }

  /** @param {number} at */
  #select(at) {
    this.#at = at;
    for (const [i, option] of [...this.#list.children].entries())
      option.setAttribute("aria-selected", String(i === at));
    this.#list.children[at]?.scrollIntoView({ block: "nearest" });
    this.#field.setAttribute("aria-activedescendant", `saved-${at}`);
  }
}
