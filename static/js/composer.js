/** The prompt: text, images, send and stop. */
import { $, h, iconButton, show } from "./dom.js";
import { readImage } from "./platform.js";
import { isRunning } from "./state.js";
import { t } from "./strings.js";

export class Composer {
  #session;
  #store;
  #actions;
  #form = /** @type {HTMLFormElement} */ ($("#composer"));
  #field = /** @type {HTMLTextAreaElement} */ ($("#prompt"));
  #send = /** @type {HTMLButtonElement} */ ($("#send"));
  #thumbs = $("#thumbs");
  /** @type {string[]} */ #images = [];
  /** What was typed and not sent, by chat. @type {Map<string, {text: string, images: string[]}>} */ #drafts = new Map();
  #chatId;

  /**
   * @param {import("./session.js").Session} session @param {import("./state.js").Store} store
   * @param {{sent: () => void, editLast: () => void, toast: (text: string) => void}} actions
   */
  constructor(session, store, actions) {
    this.#session = session;
    this.#store = store;
    this.#actions = actions;
    // What was typed while the page started is for the chat that it opens with.
    this.#chatId = store.state.chat.id;
    // At once and not with the next frame: what is typed in between is for the chat that was just opened.
    store.addEventListener("change", () => this.#switch(store.state.chat.id));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    $("#stop").addEventListener("click", () => {
      session.stop();
      this.focus();
    });
    this.#field.addEventListener("keydown", (event) => this.#onKey(event));
    this.#field.addEventListener("input", () => this.#changed());
    this.#field.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) {
        event.preventDefault();
        void this.#add(files);
      }
    });
    const files = /** @type {HTMLInputElement} */ ($("#files"));
    $("#attach").addEventListener("click", () => (this.#seesImages() ? files.click() : undefined));
    files.addEventListener("change", async () => {
      await this.#add([...(files.files ?? [])]);
      files.value = "";
    });
    this.#acceptDrops();
    this.#changed();
  }

  /** @param {import("./state.js").State} state */
  render({ chat, turns }) {
    const running = isRunning(turns[chat.id]);
    if (this.#send.hidden !== running) {
      // Where the focus was on the button that goes, it must not fall out of the page.
      const focused = document.activeElement === this.#send || document.activeElement === $("#stop");
      show(this.#send, !running);
      show($("#stop"), running);
      if (focused) this.focus();
    }
    this.#enable();
  }

  focus() {
    this.#field.focus();
  }

  /** @param {string} chatId */
  #switch(chatId) {
    if (chatId === this.#chatId) return;
    this.#drafts.set(this.#chatId, { text: this.#field.value, images: this.#images });
    const draft = this.#drafts.get(chatId);
    this.#chatId = chatId;
    this.#field.value = draft?.text ?? "";
    this.#setImages(draft?.images ?? []);
    this.#changed();
  }

  #submit() {
    const text = this.#field.value.trim();
    const { chat, turns } = this.#store.state;
    if ((!text && !this.#images.length) || isRunning(turns[chat.id]) || !this.#session.model()) return;
    if (this.#images.length && !this.#seesImages()) return;
    if (!this.#session.send(text, this.#images)) return;
    this.#field.value = "";
    this.#setImages([]);
    this.#changed();
    this.#actions.sent();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    // Enter that ends an IME composition chooses a word; Safari says so only by the key code.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "ArrowUp" && !this.#field.value) {
      event.preventDefault();
      this.#actions.editLast();
    }
  }

  #changed() {
    if (!CSS.supports("field-sizing", "content")) {
      this.#field.style.height = "auto";
      this.#field.style.height = `${this.#field.scrollHeight}px`;
    }
    this.#enable();
  }

  #enable() {
    const empty = !this.#field.value.trim() && !this.#images.length;
    this.#send.disabled = empty || !this.#session.model();
  }

  #seesImages() {
    const name = this.#session.model();
    if (!name) return true; // the images wait for one, as the prompt does
    const model = this.#store.state.models.find((model) => model.name === name);
    if (model?.capabilities.includes("vision")) return true;
    this.#actions.toast(t("noVision", { model: name }));
    return false;
  }

  /** @param {File[]} files */
  async #add(files) {
    if (!files.length || !this.#seesImages()) return;
    for (const file of files) {
      try {
        this.#setImages([...this.#images, await readImage(file)]);
      } catch {
        this.#actions.toast(t("badImage"));
      }
    }
    this.focus();
  }

  /** @param {string[]} images */
  #setImages(images) {
    this.#images = images;
    show(this.#thumbs, images.length > 0);
    this.#thumbs.replaceChildren(
      ...images.map((url, i) => {
        const remove = iconButton("close", "removeImage");
        remove.addEventListener("click", () => {
          this.#setImages(this.#images.filter((_, other) => other !== i));
          this.focus();
        });
        return h("li", {}, h("img", { src: url, alt: t("image", { n: i + 1 }) }), remove);
      }),
    );
    this.#enable();
  }

  #acceptDrops() {
    const holds = (/** @type {DragEvent} */ event) => !!event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      this.#form.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) this.#form.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      this.#form.classList.remove("dropping");
      if (!holds(event)) return;
      event.preventDefault();
      void this.#add([...(event.dataTransfer?.files ?? [])]);
    });
  }
}

