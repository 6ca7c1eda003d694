/** The turns of the open chat, and where the reader stands in them. */
import { $, show } from "./dom.js";
import { copyText } from "./platform.js";
import { isActive, shownAnswer } from "./state.js";
import { t } from "./strings.js";
import { TurnView } from "./turn.js";

/** Nearer to the end than this counts as reading along. */
const NEAR_PX = 60;

export class Conversation {
  #session;
  #announcer;
  #dialogs;
  #place = $("#turns");
  #scroller = $("#conversation");
  #latest = $("#latest");
  /** @type {Map<string, TurnView>} */ #views = new Map();
  #chatId = "";
  /** @type {import("./state.js").Turn[]} */ #turns = [];
  /** The reader follows the end until they scroll up. */
  #following = true;
  #top = 0;
  /** The answer that was told to a screen reader as running. */ #told = "";

  /**
   * @param {import("./session.js").Session} session @param {import("./announcer.js").Announcer} announcer
   * @param {{pickModel: (choose: (model: string) => void) => void, showCode: (request: any) => void, focusPrompt: () => void,
   *   toast: (text: string) => void}} dialogs
   */
  constructor(session, announcer, dialogs) {
    this.#session = session;
    this.#announcer = announcer;
    this.#dialogs = dialogs;
    this.#scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    this.#latest.addEventListener("click", () => this.follow());
    this.#place.addEventListener("click", (event) => void this.#onClick(event));
    // An image or a font that arrives late, the composer growing: the end moves without a scroll.
    const grown = new ResizeObserver(() => this.#stayAtEnd());
    grown.observe(this.#place);
    grown.observe(this.#scroller);
    setInterval(() => this.#tick(), 1_000);
  }

  /** @param {import("./state.js").State} state */
  render({ chat, turns }) {
    const list = turns[chat.id] ?? [];
    if (chat.id !== this.#chatId) {
      this.#chatId = chat.id;
      this.#views.clear();
      this.#place.replaceChildren();
      this.#following = true;
    } else if (list === this.#turns) return;
    this.#turns = list;
    const ids = new Set(list.map((turn) => turn.id));
    for (const [id, view] of this.#views)
      if (!ids.has(id)) {
        view.element.remove();
        this.#views.delete(id);
      }
    list.forEach((turn, i) => this.#renderTurn(turn, i));
    this.#announce(list);
    this.#stayAtEnd();
  }

  /** @param {import("./state.js").Turn} turn @param {number} i */
  #renderTurn(turn, i) {
    let view = this.#views.get(turn.id);
    if (view) view.update(turn);
    else {
      view = new TurnView(turn);
      this.#views.set(turn.id, view);
    }
    if (this.#place.children[i] !== view.element) this.#place.insertBefore(view.element, this.#place.children[i] ?? null);
  }

  /** Go to the end and stay there. */
  follow() {
    this.#following = true;
    this.#stayAtEnd();
  }

  /** Edit the last prompt. */
  editLast() {
    const last = this.#turns.at(-1);
    if (last) this.#edit(last.id);
  }

  #stayAtEnd() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#top = this.#scroller.scrollTop;
    this.#showLatest();
  }

  #onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const near = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    // Only a move upwards is the reader's wish: text that grows moves the end away, not the reader.
    if (near) this.#following = true;
    else if (scrollTop < this.#top) this.#following = false;
    this.#top = scrollTop;
    this.#showLatest();
  }

  #showLatest() {
    show(this.#latest, !this.#following);
  }

  #tick() {
    const now = Date.now();
    for (const view of this.#views.values()) if (view.active) view.tick(now);
  }

  /** @param {import("./state.js").Turn[]} list */
  #announce(list) {
    const running = list.flatMap((turn) => turn.answers).find(isActive);
    if (running && running.id !== this.#told) {
      this.#told = running.id;
      this.#announcer.begin();
    } else if (!running && this.#told) {
      const turn = list.find((turn) => turn.answers.some((answer) => answer.id === this.#told));
      const answer = turn && shownAnswer(turn);
      this.#told = "";
      const spoken = (turn && this.#views.get(turn.id)?.spoken) ?? "";
      if (answer?.status === "failed") this.#announcer.end(`${t("saidFailed")} ${answer.failure?.error ?? ""}`);
      else this.#announcer.end(answer?.status === "done" ? `${t("saidDone")} ${spoken}` : t("saidStopped"));
    }
  }

  /** @param {string} id */
  #edit(id) {
    this.#views.get(id)?.edit((prompt) => {
      this.#following = true;
      this.#session.edit(id, prompt);
    });
  }

  /** @param {Event} event */
  async #onClick(event) {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    const id = /** @type {HTMLElement | null} */ (button?.closest("[data-turn]"))?.dataset.turn;
    const turn = this.#turns.find((turn) => turn.id === id);
    if (!button || !turn) return;
    const answer = shownAnswer(turn);
    switch (button.dataset.do) {
      case "edit":
        return this.#edit(turn.id);
      case "delete":
        this.#session.deleteTurn(turn.id);
        return this.#dialogs.focusPrompt();
      case "copy-prompt":
        return this.#copy(button, turn.prompt);
      case "copy":
        return this.#copy(button, answer?.text ?? "");
      case "copy-block":
        return this.#copy(button, button.closest(".code")?.querySelector("code")?.textContent ?? "");
      case "retry":
        return this.#session.regenerate(turn.id, answer?.model);
      case "regenerate":
        return this.#session.regenerate(turn.id);
      case "swap":
        return this.#dialogs.pickModel((model) => this.#session.regenerate(turn.id, model));
      case "code":
        return this.#dialogs.showCode(answer?.request);
      case "previous":
        return this.#session.show(turn.id, turn.shown - 1);
      case "next":
        return this.#session.show(turn.id, turn.shown + 1);
    }
  }

  /** @param {Element} button @param {string} text */
  async #copy(button, text) {
    const copied = await copyText(text);
    if (copied) TurnView.confirm(button);
    else this.#dialogs.toast(t("copyFailed"));
    this.#announcer.say(t(copied ? "copied" : "copyFailed"));
  }
}

