/** The list of chats: open, rename, search, delete, export and import. */
import { $, fromTemplate, h, setText, show, translate } from "./dom.js";
import { toMarkdown } from "./backup.js";
import { composes, copyText, saveFile } from "./platform.js";
import { recall, remember } from "./prefs.js";
import { isRunning } from "./state.js";
import { t } from "./strings.js";

/** @import { Chat, State } from "./types.js" */

const DAY_MS = 86_400_000;
const THEMES = /** @type {const} */ (["auto", "light", "dark"]);
const narrow = matchMedia("(max-width: 760px)");

export class Sidebar {
  #session;
  #store;
  #list = $("#chats");
  #element = $("#sidebar");
  #search = /** @type {HTMLInputElement} */ ($("#search"));
  /** What the list was made of. @type {unknown[]} */ #shown = [];
  /** The latest state, where a title is being edited and the list must not change under it. */
  /** @type {State | null} */ #waiting = null;

  /**
   * @param {import("./session.js").Session} session @param {import("./state.js").Store} store
   * @param {() => void} onNew
   */
  constructor(session, store, onNew) {
    this.#session = session;
    this.#store = store;
    translate(this.#element);
    $("#new-chat").addEventListener("click", onNew);
    $("#toggle-sidebar").addEventListener("click", () => this.toggle());
    $("#close-sidebar").addEventListener("click", () => this.toggle(false));
    $("#scrim").addEventListener("click", () => this.toggle(false));
    this.#search.addEventListener("input", () => void session.chats.search(this.#search.value));
    this.#list.addEventListener("click", (event) => this.#onClick(event));
    $("#export").addEventListener("click", () => void this.#export());
    $("#copy-chat").addEventListener("click", () => void this.#copyChat());
    $("#save-chat").addEventListener("click", () => this.#saveChat());
    const file = /** @type {HTMLInputElement} */ ($("#import-file"));
    $("#import").addEventListener("click", () => file.click());
    file.addEventListener("change", async () => {
      const [chosen] = file.files ?? [];
      if (chosen) await session.chats.importAll(await chosen.text());
      file.value = "";
    });
    $("#theme").addEventListener("click", () => this.#theme(THEMES[(THEMES.indexOf(this.#chosenTheme()) + 1) % 3]));
    this.#theme(this.#chosenTheme());
    narrow.addEventListener("change", () => this.toggle(this.#wanted()));
    this.toggle(this.#wanted());
  }

  /** @param {State} state */
  render(state) {
    if (this.#list.querySelector("input")) {
      this.#waiting = state;
      return;
    }
    const { chats, chat, found, query, running, turns } = state;
    for (const button of ["#copy-chat", "#save-chat"]) show($(button), !!turns[chat.id]?.length);
    // Tokens that arrive change none of these.
    const parts = [chats, chat.id, found, running];
    if (parts.every((part, i) => part === this.#shown[i])) return;
    this.#shown = parts;
    const listed = found ? chats.filter(({ id }) => found.has(id)) : chats;
    const items = [];
    let group = "";
    for (const one of listed) {
      const name = groupOf(one.updated);
      if (name !== group) items.push(h("li", { class: "group" }, t(name)));
      group = name;
      items.push(chatItem(one, one.id === chat.id, isRunning(state, one.id)));
    }
    const focused = document.activeElement?.closest("[data-chat]");
    const control = /** @type {HTMLElement} */ (document.activeElement)?.dataset.do;
    this.#list.replaceChildren(...items);
    if (focused) this.#refocus(/** @type {HTMLElement} */ (focused).dataset.chat ?? "", control);
    const empty = $("#no-chats");
    show(empty, !listed.length);
    setText(empty, t(query.trim() ? "noMatch" : "noChats"));
  }

  /** @param {boolean} [open] */
  toggle(open = document.body.classList.contains("no-sidebar")) {
    document.body.classList.toggle("no-sidebar", !open);
    $("#toggle-sidebar").setAttribute("aria-expanded", String(open));
    show($("#scrim"), open && narrow.matches);
    // The page behind the open list cannot be reached on a phone, nor a closed list anywhere.
    this.#element.inert = !open;
    $("#page").inert = open && narrow.matches;
    if (!narrow.matches) remember("sidebar", open);
  }

  /** On a phone the list covers the page: a choice closes it. */
  leave() {
    if (narrow.matches) this.toggle(false);
  }

  focusSearch() {
    this.toggle(true);
    this.#search.select();
  }

  #wanted() {
    return !narrow.matches && (recall("sidebar") ?? true);
  }

  /** @returns {typeof THEMES[number]} */
  #chosenTheme() {
    return recall("theme") ?? "auto";
  }

  /** @param {typeof THEMES[number]} [theme] */
  #theme(theme = "auto") {
    remember("theme", theme);
    document.documentElement.dataset.theme = theme;
    setText($("#theme"), t(`theme_${theme}`));
  }

  async #export() {
    const data = await this.#session.chats.exportAll();
    saveFile(`chats-${data.exported.slice(0, 10)}.json`, JSON.stringify(data), "application/json");
  }

  async #copyChat() {
    this.#store.notice({ key: (await copyText(this.#markdown())) ? "copied" : "copyFailed" });
  }

  #saveChat() {
    const name = this.#store.state.chat.title.replace(/[\\/:*?"<>|\s]+/g, " ").trim() || "chat";
    saveFile(`${name}.md`, this.#markdown(), "text/markdown");
  }

  #markdown() {
    const { chat, turns } = this.#store.state;
    return toMarkdown(chat, turns[chat.id] ?? [], { you: t("you"), image: (n) => t("image", { n }) });
  }

  /** @param {Event} event */
  #onClick(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const item = /** @type {HTMLElement | null} */ (target.closest("[data-chat]"));
    const id = item?.dataset.chat;
    if (!item || !id) return;
    const action = target.closest("button")?.dataset.do;
    if (action === "delete") void this.#session.chats.deleteChat(id);
    else if (action === "rename") this.#rename(item, id);
    else if (target.closest("a")) this.leave();
  }

  /** Keep the focus where it was in the list, or near. @param {string} id @param {string} [control] */
  #refocus(id, control) {
    const item = this.#list.querySelector(`[data-chat="${CSS.escape(id)}"]`);
    const target = item ? (control ? `[data-do=${control}]` : "a") : "#new-chat";
    $(target, item ?? document).focus();
  }

  /** @param {HTMLElement} item @param {string} id */
  #rename(item, id) {
    const link = $("a", item);
    const field = h("input", { "aria-label": t("rename"), dir: "auto", value: $(".title", item).textContent ?? "" });
    let over = false;
    const end = (/** @type {boolean} */ keep) => {
      if (over) return;
      over = true;
      field.replaceWith(link);
      if (this.#waiting) this.render(this.#waiting);
      if (keep) this.#session.chats.rename(id, field.value);
    };
    field.addEventListener("blur", () => end(true));
    field.addEventListener("keydown", (event) => {
      if (composes(event)) return;
      if (event.key === "Escape") event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") {
        end(event.key === "Enter");
        this.#refocus(id);
      }
    });
    link.replaceWith(field);
    field.select();
  }
}

/** @param {Chat} chat @param {boolean} open @param {boolean} running */
function chatItem(chat, open, running) {
  const item = fromTemplate("t-chat");
  item.dataset.chat = chat.id;
  const link = $("a", item);
  link.setAttribute("href", `#${chat.id}`);
  if (open) link.setAttribute("aria-current", "page");
  setText($(".title", item), chat.title || t("newChat"));
  link.title = chat.title;
  show($(".running", item), running);
  if (running) setText($(".running", item), t("running"));
  for (const button of item.querySelectorAll("button"))
    button.setAttribute("aria-label", `${button.title}: ${chat.title}`);
  return item;
}

/** @param {number} updated @returns {"today" | "week" | "earlier"} */
function groupOf(updated) {
  const today = new Date().setHours(0, 0, 0, 0);
  return updated >= today ? "today" : updated >= today - 6 * DAY_MS ? "week" : "earlier";
}
