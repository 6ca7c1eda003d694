/** The turns of the open chat, and where the reader stands in them. */
import { $, setText, show } from "./dom.js";
import { Following } from "./following.js";
import { copyText } from "./platform.js";
import { savePrompt } from "./saved.js";
import { isActive, shownAnswer } from "./state.js";
import { t } from "./strings.js";
import { pathOf, versionsOf } from "./tree.js";
import { TurnView } from "./turn.js";

/** @import { Place, State, Turn } from "./types.js" */

export class Conversation {
  #session;
  #announcer;
  #dialogs;
  #place = $("#turns");
  #reader = new Following($("#conversation"), (following) => show($("#latest"), !following));
  /** @type {Map<string, TurnView>} */ #views = new Map();
  #chatId = "";
  /** Those on the path. @type {Turn[]} */ #turns = [];
  /** What they were found in. @type {Turn[] | undefined} */ #all;
  /** The answer that began last in the open chat, until a screen reader is told its end. @type {Place | undefined} */
  #begun;
  /** Whether its begin was told. */ #told = false;

  /**
   * @param {import("./session.js").Session} session @param {import("./state.js").Store} store
   * @param {import("./announcer.js").Announcer} announcer
   * @param {{pickModel: (choose: (model: string) => void) => void, showCode: (request: any) => void,
   *   focusPrompt: () => void, toast: (text: string) => void}} dialogs
   */
  constructor(session, store, announcer, dialogs) {
    this.#session = session;
    this.#announcer = announcer;
    this.#dialogs = dialogs;
    // At every change, not once per frame: an answer may begin and end in between.
    const note = () => this.#note(store.state);
    store.addEventListener("change", note);
    note();
    $("#latest").addEventListener("click", () => this.follow());
    this.#place.addEventListener("click", (event) => void this.#onClick(event));
    // An image or a font that arrives late, the composer growing: the end moves without a scroll.
    const grown = new ResizeObserver(() => this.#reader.stay());
    grown.observe(this.#place);
    grown.observe($("#conversation"));
    setInterval(() => this.#tick(), 1_000);
  }

  /** @param {State} state */
  render(state) {
    const { chat, turns } = state;
    setText($("#chat-title"), chat.title || t("newChat"));
    if (chat.id !== this.#chatId) this.#open(chat.id);
    const all = turns[chat.id] ?? [];
    if (all !== this.#all) this.#show(all);
    void this.#announce(state);
  }

  /** @param {string} chatId */
  #open(chatId) {
    this.#chatId = chatId;
    this.#all = undefined;
    this.#views.clear();
    this.#place.replaceChildren();
    this.#reader.start();
    this.#announcer.quiet();
    this.#told = false;
    if (this.#begun?.chat !== chatId) this.#begun = undefined;
  }

  /** @param {Turn[]} all */
  #show(all) {
    this.#all = all;
    const list = pathOf(all);
    this.#turns = list;
    const ids = new Set(list.map((turn) => turn.id));
    for (const [id, view] of this.#views)
      if (!ids.has(id)) {
        view.element.remove();
        this.#views.delete(id);
      }
    for (const [i, turn] of list.entries()) {
      try {
        this.#renderTurn(turn, i);
      } catch (error) {
        reportError(error); // and the others are shown all the same
      }
    }
    this.#reader.stay();
  }

  /** @param {Turn} turn @param {number} i */
  #renderTurn(turn, i) {
    const view = this.#views.get(turn.id) ?? new TurnView(turn);
    this.#views.set(turn.id, view);
    view.update(turn, versionsOf(this.#all ?? [], turn.id));
    if (this.#place.children[i] !== view.element)
      this.#place.insertBefore(view.element, this.#place.children[i] ?? null);
  }

  /** Go to the end and stay there. */
  follow() {
    this.#reader.start();
  }

  /** Edit the last prompt. */
  editLast() {
    const last = this.#turns.at(-1);
    if (last) this.#edit(last.id);
  }

  #tick() {
    const now = Date.now();
    for (const view of this.#views.values()) if (view.active) view.tick(now);
  }

  /** @param {State} state */
  #note({ chat, running }) {
    const begun = Object.values(running).find((place) => place.chat === chat.id);
    if (!begun || begun.id === this.#begun?.id) return;
    this.#begun = begun;
    this.#told = false;
  }

  /** @param {State} state */
  async #announce({ running }) {
    if (!this.#begun) return;
    const { turn, id } = this.#begun;
    const answer = this.#all?.find((one) => one.id === turn)?.answers.find((answer) => answer.id === id);
    if (running[id] || isActive(answer)) {
      if (!this.#told) this.#announcer.begin();
      this.#told = true;
      return;
    }
    this.#begun = undefined;
    if (answer?.status === "failed") this.#announcer.end(`${t("saidFailed")} ${answer.failure?.error ?? ""}`);
    else if (answer?.status === "done")
      this.#announcer.end(`${t("saidDone")} ${(await this.#views.get(turn)?.spoken()) ?? ""}`);
    else this.#announcer.end(t("saidStopped"));
  }

  /** @param {string} id */
  #edit(id) {
    // The keyboard of a phone makes the view smaller: the field must stay in it, not the end of the answer.
    this.#reader.stop();
    this.#views.get(id)?.edit(
      (prompt) => {
        this.#reader.start();
        this.#session.asking.edit(id, prompt);
      },
      () => this.#reader.resume(),
    );
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
        this.#session.asking.deleteTurn(turn.id);
        return this.#dialogs.focusPrompt();
      case "copy-prompt":
        return this.#copy(button, turn.prompt);
      case "copy":
        return this.#copy(button, answer?.text ?? "");
      case "copy-block":
        return this.#copy(button, (await import("./markdown/view.js")).blockText(button));
      case "wrap":
        return void button.closest(".code")?.classList.toggle("wrap");
      case "note":
        return showNote(button);
      case "retry":
        return this.#session.asking.regenerate(turn.id, answer?.model);
      case "regenerate":
        return this.#session.asking.regenerate(turn.id);
      case "swap":
        return this.#dialogs.pickModel((model) => this.#session.asking.regenerate(turn.id, model));
      case "code":
        return this.#dialogs.showCode(this.#session.asking.requestOf(turn.id));
      case "save-prompt":
        savePrompt(turn.prompt);
        TurnView.confirm(button);
        return this.#dialogs.toast(t("promptSaved"));
      case "previous-version":
        return this.#session.asking.choose(turn.id, -1);
      case "next-version":
        return this.#session.asking.choose(turn.id, 1);
      case "previous":
        return this.#session.asking.show(turn.id, turn.shown - 1);
      case "next":
        return this.#session.asking.show(turn.id, turn.shown + 1);
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

/** Go to the footnote that a mark in the text names. @param {HTMLElement} mark */
function showNote(mark) {
  const notes = mark.closest(".text, .thoughts")?.querySelectorAll(".note") ?? [];
  const note = [...notes].find((note) => /** @type {HTMLElement} */ (note).dataset.note === mark.dataset.note);
  /** @type {HTMLElement | undefined} */ (note)?.focus();
}
