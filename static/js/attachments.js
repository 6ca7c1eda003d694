/** Pictures and text files that wait for the prompt to be sent: by picker, paste and drop. */
import { $, h, iconButton, show } from "./dom.js";
import { isPicture, pasted, readPicture, readText } from "./files.js";
import * as format from "./format.js";
import { newId } from "./state.js";
import { t } from "./strings.js";

/** @import { Image, TextFile } from "./types.js" */

/** @typedef {{images: Image[], files: TextFile[]}} Attached */

/** @type {Attached} */
export const NOTHING = Object.freeze({ images: [], files: [] });

export class Attachments {
  #attached = NOTHING;
  #list = $("#thumbs");
  #form = $("#composer");
  #actions;

  /**
   * @param {{seesImages: () => boolean, toast: (text: string) => void, changed: () => void, focus: () => void}} actions
   */
  constructor(actions) {
    this.#actions = actions;
    $("#prompt").addEventListener("paste", (event) => {
      const files = pasted(event.clipboardData);
      if (!files.length) return;
      event.preventDefault();
      void this.#add(files);
    });
    const picker = /** @type {HTMLInputElement} */ ($("#files"));
    $("#attach").addEventListener("click", () => picker.click());
    picker.addEventListener("change", async () => {
      await this.#add([...(picker.files ?? [])]);
      picker.value = "";
    });
    this.#acceptDrops();
  }

  get value() {
    return this.#attached;
  }

  get empty() {
    return !this.#attached.images.length && !this.#attached.files.length;
  }

  /** @param {Attached} attached */
  set(attached) {
    this.#attached = attached;
    const { images, files } = attached;
    show(this.#list, !this.empty);
    this.#list.replaceChildren(
      ...images.map((image, i) =>
        this.#item(h("img", { src: image.url, alt: t("image", { n: i + 1 }) }), "removeImage", () =>
          this.set({ files, images: images.filter((other) => other !== image) }),
        ),
      ),
      ...files.map((file) =>
        this.#item(fileMark(file), "removeFile", () =>
          this.set({ images, files: files.filter((other) => other !== file) }),
        ),
      ),
    );
    this.#actions.changed();
  }

  /** @param {Node} content @param {"removeImage" | "removeFile"} label @param {() => void} remove */
  #item(content, label, remove) {
    const button = iconButton("close", label);
    button.addEventListener("click", () => {
      remove();
      this.#actions.focus();
    });
    return h("li", {}, content, button);
  }

  /** @param {File[]} given */
  async #add(given) {
    for (const file of given) {
      try {
        if (await isPicture(file)) await this.#addPicture(file);
        else await this.#addText(file);
      } catch {
        this.#actions.toast(t("badImage", { name: file.name }));
      }
    }
    if (given.length) this.#actions.focus();
  }

  /** @param {File} file */
  async #addPicture(file) {
    if (!this.#actions.seesImages()) return;
    const image = { id: newId(), url: await readPicture(file) };
    this.set({ ...this.#attached, images: [...this.#attached.images, image] });
  }

  /** @param {File} file */
  async #addText(file) {
    const read = await readText(file);
    if (read === "binary") this.#actions.toast(t("badFile", { name: file.name }));
    else if (read === "large") this.#actions.toast(t("fileTooLarge", { name: file.name }));
    else this.set({ ...this.#attached, files: [...this.#attached.files, read] });
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

/** A text file by its name and size. @param {TextFile} file */
export function fileMark({ name, text }) {
  const size = format.size(new Blob([text]).size);
  return h("span", { class: "file", dir: "auto", title: name }, h("b", {}, name), ` ${size}`);
}
