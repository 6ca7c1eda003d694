/** The smaller dialogs and the toasts. */
import { $, h, iconButton, setText, show } from "./dom.js";
import { copyText } from "./platform.js";
import { recall, remember } from "./prefs.js";
import { SNIPPETS } from "./snippets.js";
import { t } from "./strings.js";

const TOAST_MS = 8_000;

/** Every `data-close` button closes its dialog. */
export function wireDialogs() {
  for (const dialog of document.querySelectorAll("dialog"))
    dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
}

/** A message in passing, with an undo. @param {import("./announcer.js").Announcer} announcer */
export function toaster(announcer) {
  const place = $("#toasts");
  const dock = $("#dock");
  // Above the prompt, and what is listed in it, however high that is.
  new ResizeObserver(() => (place.style.bottom = `${dock.offsetHeight}px`)).observe(dock);
  /** @param {string} text @param {() => void} [undo] */
  return (text, undo) => {
    const close = iconButton("close", "close");
    const toast = h("div", { class: "toast" }, h("span", {}, text));
    if (undo) {
      const button = h("button", { class: "plain" }, t("undo"));
      button.addEventListener("click", () => {
        toast.remove();
        undo();
      });
      toast.append(button);
    }
    close.addEventListener("click", () => toast.remove());
    toast.append(close);
    // One at a time: an older undo would bring back what the newer change was made on.
    place.replaceChildren(toast);
    announcer.say(text);
    setTimeout(() => toast.remove(), TOAST_MS);
  };
}

/** "Copy as code". */
export class CodeDialog {
  #dialog = /** @type {HTMLDialogElement} */ ($("#code-dialog"));
  #tabs = $("#code-kinds");
  #code = $("#code-panel code");
  /** @type {any} */ #request = null;

  constructor() {
    for (const kind of Object.keys(SNIPPETS)) {
      const tab = h("button", { type: "button", role: "tab", id: `tab-${kind}`, "aria-controls": "code-panel" }, kind);
      tab.addEventListener("click", () => this.#select(kind));
      this.#tabs.append(tab);
    }
    this.#tabs.addEventListener("keydown", (event) => {
      const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      const kinds = Object.keys(SNIPPETS);
      const next = kinds.at((kinds.indexOf(this.#kind()) + step) % kinds.length);
      if (step && next) {
        this.#select(next);
        $(`#tab-${next}`).focus();
      }
    });
    const copy = $("#copy-code");
    copy.addEventListener("click", async () => {
      const copied = await copyText(this.#code.textContent ?? "");
      setText(copy, t(copied ? "copied" : "copyFailed"));
      setTimeout(() => setText(copy, t("copy")), 1_500);
    });
  }

  /** @param {any} request */
  open(request) {
    this.#request = request;
    this.#select(this.#kind());
    this.#dialog.showModal();
  }

  #kind() {
    const kind = recall("snippet");
    return typeof kind === "string" && kind in SNIPPETS ? kind : "EventSource";
  }

  /** @param {string} kind */
  #select(kind) {
    remember("snippet", kind);
    for (const tab of this.#tabs.children) {
      const selected = tab.id === `tab-${kind}`;
      tab.setAttribute("aria-selected", String(selected));
      tab.setAttribute("tabindex", selected ? "0" : "-1");
    }
    setText(this.#code, SNIPPETS[kind]?.(location.origin, this.#request) ?? "");
  }
}

/** Asks for the gateway's key; every request that was refused waits for the same answer. */
export class KeyDialog {
  #dialog = /** @type {HTMLDialogElement} */ ($("#key-dialog"));
  #form = /** @type {HTMLFormElement} */ ($("form", this.#dialog));
  #api;
  /** @type {Promise<boolean> | null} */ #asking = null;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  /** @returns {Promise<boolean>} whether a key was accepted */
  ask() {
    this.#asking ??= new Promise((resolve) => {
      const error = $(".error", this.#form);
      show(error, false);
      this.#form.reset();
      this.#form.onsubmit = async (event) => {
        event.preventDefault();
        try {
          await this.#api.signIn(String(new FormData(this.#form).get("key")));
          this.#dialog.close("accepted");
        } catch {
          show(error, true);
          setText(error, t("keyWrong"));
        }
      };
      this.#dialog.onclose = () => {
        this.#asking = null;
        resolve(this.#dialog.returnValue === "accepted");
      };
      this.#dialog.returnValue = "";
      this.#dialog.showModal();
    });
    return this.#asking;
  }
}
