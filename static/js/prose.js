/** A place for Markdown that grows. What renders it is loaded with the first answer: an empty page needs none of it. */
import { setText } from "./dom.js";

/** @type {Promise<typeof import("./markdown/view.js")> | undefined} */
let loading;

export class Prose {
  #element;
  #text = "";
  #open = false;
  /** @type {import("./markdown/view.js").View | undefined} */ #view;
  /** @type {Promise<void> | undefined} */ #loaded;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /** Begin again, with nothing. */
  clear() {
    this.#element.replaceChildren();
    this.#view = undefined;
    this.#text = "";
  }

  /** @param {string} text the whole text @param {boolean} open more text follows */
  update(text, open) {
    if (text === this.#text && open === this.#open) return;
    // Half a tag of thoughts was text until the rest of it came.
    if (!text.startsWith(this.#text)) this.clear();
    this.#text = text;
    this.#open = open;
    if (this.#view) this.#view.update(text, open);
    else this.#loaded = this.#load();
  }

  /** The text as a person would read it out. */
  async spoken() {
    await this.#loaded;
    return this.#view?.spoken ?? this.#text;
  }

  async #load() {
    try {
      loading ??= import("./markdown/view.js");
      const { View } = await loading;
      this.#view ??= new View(this.#element);
      this.#view.update(this.#text, this.#open);
    } catch {
      // The gateway is away: the text is shown as it is, and the next piece of it tries again.
      loading = undefined;
      setText(this.#element, this.#text);
    }
  }
}
