/** The prompt: text, attachments, send and stop; and what was typed and not sent, by chat. */
import { Attachments, NOTHING } from "./attachments.js";
import { $, show } from "./dom.js";
import { recallAttached, recallText, rememberAttached, rememberText } from "./drafts.js";
import { composes } from "./platform.js";
import { SavedPrompts } from "./saved.js";
import { isRunning } from "./state.js";
import { t } from "./strings.js";

/** @import { State } from "./types.js" */

/** Where fingers type, Enter is the only way to a new line, and the button sends. */
const touch = matchMedia("(pointer: coarse)");

export class Composer {
  #session;
  #store;
  #actions;
  #form = /** @type {HTMLFormElement} */ ($("#composer"));
  #field = /** @type {HTMLTextAreaElement} */ ($("#prompt"));
  #send = /** @type {HTMLButtonElement} */ ($("#send"));
  #attachments;
  #saved;
  #chatId;

  /**
   * @param {import("./session.js").Session} session @param {import("./state.js").Store} store
   * @param {{sent: () => void, editLast: () => void, toast: (text: string) => void}} actions
   */
  constructor(session, store, actions) {
    this.#session = session;
    this.#store = store;
    this.#actions = actions;
    this.#attachments = new Attachments({
      seesImages: () => this.#seesImages(),
      toast: actions.toast,
      changed: () => {
        const { value } = this.#attachments;
        rememberAttached(this.#draftName(), value);
        store.set({ attached: new Blob(value.files.map(({ text }) => text)).size });
        this.#enable();
      },
      focus: () => this.focus(),
    });
    this.#saved = new SavedPrompts(this.#field, () => this.#changed());
    this.#chatId = store.state.chat.id;
    // What was typed while the page started is for the chat that it opens with.
    this.#field.value ||= recallText(this.#draftName());
    this.#recallAttached();
    this.#field.enterKeyHint = touch.matches ? "enter" : "send";
    // At once and not with the next frame: what is typed in between is for the chat that was just opened.
    store.addEventListener("change", () => this.#switch(store.state.chat.id));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    $("#stop").addEventListener("click", () => {
      session.asking.stop();
      this.focus();
    });
    this.#field.addEventListener("keydown", (event) => this.#onKey(event));
    this.#field.addEventListener("input", () => {
      rememberText(this.#draftName(), this.#field.value);
      this.#changed();
    });
    this.#changed();
  }

  /** @param {State} state */
  render(state) {
    const running = isRunning(state, state.chat.id);
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

  /** A chat that is not in the list yet has another id after a reload. */
  #draftName() {
    return this.#store.state.chats.some(({ id }) => id === this.#chatId) ? this.#chatId : "";
  }

  /** @param {string} chatId */
  #switch(chatId) {
    if (chatId === this.#chatId) return;
    // A chat that is gone leaves what was being typed for it to the new one.
    rememberText(this.#draftName(), this.#field.value);
    rememberAttached(this.#draftName(), this.#attachments.value);
    this.#chatId = chatId;
    this.#field.value = recallText(this.#draftName());
    this.#recallAttached();
    this.#changed();
  }

  #recallAttached() {
    const { attached, lost } = recallAttached(this.#draftName());
    if (lost > 0) this.#actions.toast(t("attachmentsLost", { n: lost }));
    this.#attachments.set(attached);
  }

  #submit() {
    const text = this.#field.value.trimEnd();
    const { state } = this.#store;
    const { images, files } = this.#attachments.value;
    if ((!text && this.#attachments.empty) || isRunning(state, state.chat.id) || !this.#session.server.model()) return;
    if (images.length && !this.#seesImages()) return;
    const draft = this.#draftName();
    if (!this.#session.asking.send(text, images, files)) return;
    this.#field.value = "";
    rememberText(draft, "");
    rememberAttached(draft, NOTHING);
    this.#attachments.set(NOTHING);
    this.#changed();
    this.#actions.sent();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (composes(event) || this.#saved.onKey(event)) return;
    const sends = event.ctrlKey || event.metaKey || (!event.shiftKey && !touch.matches);
    if (event.key === "Enter" && sends) {
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
    this.#saved.render();
    this.#enable();
  }

  #enable() {
    const empty = !this.#field.value.trim() && this.#attachments.empty;
    this.#send.disabled = empty || !this.#session.server.model();
  }

  #seesImages() {
    const name = this.#session.server.model();
    if (!name) return true; // the images wait for one, as the prompt does
    const model = this.#store.state.models.find((model) => model.name === name);
    if (model?.capabilities.includes("vision")) return true;
    this.#actions.toast(t("noVision", { model: name }));
    return false;
  }
}
