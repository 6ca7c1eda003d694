/** One turn on the page: the prompt, and the answer as it grows. */
import { fileMark } from "./attachments.js";
import { $, fromTemplate, h, icon, setText, show } from "./dom.js";
import { recallText, rememberText } from "./drafts.js";
import { liveRate } from "./answer.js";
import { Following } from "./following.js";
import * as format from "./format.js";
import { composes } from "./platform.js";
import { Prose } from "./prose.js";
import { isActive, shownAnswer } from "./state.js";
import { maybe, t } from "./strings.js";

/** @import { Answer, Failure, Turn } from "./types.js" */

/** Where fingers type, Enter is the only way to a new line. */
const touch = matchMedia("(pointer: coarse)");
/** Phases shorter than this are noise in the line. */
const NOTABLE_MS = 400;
const STALLED_MS = 10_000;
const CAUGHT_UP_MS = 4_000;

/** A screen reader cannot be told to skip what it was given to say. */
const MAX_SPOKEN = 800;

export class TurnView {
  element = fromTemplate("t-turn");
  /** @type {Turn | null} */ turn = null;
  #text = $(".text", this.element);
  #thinking = /** @type {HTMLDetailsElement} */ ($(".thinking", this.element));
  #thoughts = $(".thoughts", this.element);
  #thinker = new Following(this.#thoughts);
  #phase = $(".phase", this.element);
  /** @type {Answer | undefined} */ #answer;
  #prose = new Prose(this.#text);
  #thoughtProse = new Prose(this.#thoughts);

  /** @param {Turn} turn */
  constructor(turn) {
    this.element.dataset.turn = turn.id;
  }

  /** @param {Turn} turn @param {Turn[]} versions  the turn and those that stand beside it */
  update(turn, versions) {
    showSteps($(".versions", this.element), versions.indexOf(turn), versions.length);
    if (turn === this.turn) return;
    const first = !this.turn;
    this.turn = turn;
    if (first) this.#showPrompt(turn);
    this.element.classList.toggle("omitted", turn.omitted);
    if (turn.omitted) this.element.dataset.note = t("omitted");
    const answer = shownAnswer(turn);
    if (answer && answer !== this.#answer) this.#showAnswer(turn, answer);
  }

  /** @param {Turn} turn */
  #showPrompt({ prompt, images, files }) {
    setText($(".prompt", this.element), prompt);
    show($(".prompt", this.element), prompt !== "");
    const list = $(".images", this.element);
    show(list, images.length + files.length > 0);
    list.replaceChildren(
      ...images.map(({ url }, i) => h("li", {}, h("img", { src: url, alt: t("image", { n: i + 1 }) }))),
      ...files.map((file) => h("li", {}, fileMark(file))),
    );
  }

  /** @param {Turn} turn @param {Answer} answer */
  #showAnswer(turn, answer) {
    const before = this.#answer?.id === answer.id ? this.#answer : undefined;
    if (!before) {
      this.#prose.clear();
      this.#thoughtProse.clear();
      this.#thinker.start();
    }
    this.#answer = answer;
    this.element.dataset.status = answer.status;
    // What was stopped is as unfinished as what still arrives.
    this.#prose.update(answer.text, answer.status !== "done");
    this.#showThinking(answer, before);
    if (answer.tools !== before?.tools) this.#showTools(answer);
    if (answer.status !== before?.status || turn.answers.length > 1 || answer.figures !== before?.figures)
      this.#showEnd(turn, answer);
    this.tick(Date.now());
  }

  /** @param {Answer} answer @param {Answer | undefined} before */
  #showThinking(answer, before) {
    show(this.#thinking, answer.thinking !== "");
    if (!answer.thinking) return;
    const thinks = isActive(answer) && !answer.thinkingMs;
    this.#thoughtProse.update(answer.thinking, answer.status !== "done" && !answer.thinkingMs);
    // Opened and closed once each; in between it is the reader's.
    if (thinks && !before?.thinking) this.#thinking.open = true;
    if (!thinks && (!before || (isActive(before) && !before.thinkingMs))) this.#thinking.open = false;
    if (thinks && this.#thinking.open) this.#thinker.stay();
    const known =
      answer.thinkingMs > 1 ? t("thought", { time: format.duration(answer.thinkingMs) }) : t("thoughtBriefly");
    setText($("summary", this.#thinking), thinks ? t("thinking") : known);
  }

  /** @param {Answer} answer */
  #showTools({ tools }) {
    const list = $(".calls", this.element);
    show(list, tools.length > 0);
    list.replaceChildren(
      ...tools.map((call) =>
        h(
          "li",
          {},
          icon("tool"),
          h("code", {}, call.name),
          h("pre", { tabindex: "0" }, JSON.stringify(call.arguments, null, 2)),
        ),
      ),
    );
  }

  /** @param {Turn} turn @param {Answer} answer */
  #showEnd(turn, answer) {
    const active = isActive(answer);
    show($(".end", this.element), !active);
    const failure = $(".failure", this.element);
    show(failure, answer.status === "failed");
    if (answer.failure) setText($("p", failure), failureText(answer.failure));
    if (active) return;
    setText($(".figures", this.element), figuresText(answer));
    showSteps($(".variants", this.element), turn.shown, turn.answers.length);
  }

  /** The line with the clock; called whenever something changed, and every second. @param {number} now */
  tick(now) {
    const answer = this.#answer;
    const active = isActive(answer);
    show(this.#phase, active);
    if (!answer || !active) return;
    setText(this.#phase, phaseText(answer, now));
    this.#phase.classList.toggle("warn", answer.status === "reconnecting");
  }

  get active() {
    return isActive(this.#answer);
  }

  /** The finished answer as a screen reader should say it. */
  async spoken() {
    const text = await this.#prose.spoken();
    return text.length > MAX_SPOKEN ? `${text.slice(0, MAX_SPOKEN).replace(/\S*$/, "")}… ${t("saidMore")}` : text;
  }

  /**
   * Turn the prompt into a field.
   * @param {(prompt: string) => void} done @param {() => void} closed  before that, or instead
   */
  edit(done, closed) {
    const prompt = $(".prompt", this.element);
    if (this.element.querySelector(".editing")) return;
    const field = h("textarea", { "aria-label": t("edit"), rows: "3", dir: "auto" });
    const id = this.turn?.id ?? "";
    field.value = recallText(id) || (this.turn?.prompt ?? "");
    field.addEventListener("input", () => rememberText(id, field.value));
    const cancel = h("button", { type: "button", class: "plain" }, t("cancel"));
    const form = h(
      "form",
      { class: "editing" },
      field,
      h("div", { class: "row" }, cancel, h("button", { class: "primary" }, t("send"))),
    );
    const close = () => {
      rememberText(id, "");
      form.remove();
      show(prompt, true);
      closed();
      $("[data-do=edit]", this.element).focus();
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = field.value.trimEnd();
      close();
      if (text) done(text);
    });
    form.addEventListener("keydown", (event) => {
      if (composes(event)) return;
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey || !(event.shiftKey || touch.matches))) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    cancel.addEventListener("click", close);
    show(prompt, false);
    prompt.after(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  /** Say for a moment that a button did its work. @param {Element} button */
  static confirm(button) {
    const use = button.querySelector("use");
    const name = use?.getAttribute("href") ?? "";
    if (name === "#i-check") return;
    use?.setAttribute("href", "#i-check");
    setTimeout(() => use?.setAttribute("href", name), 1_500);
  }
}

/** @param {Failure} failure */
export function failureText({ code, error }) {
  const known = maybe(`error_${code}`);
  return [known, error === known ? "" : error].filter(Boolean).join(" ");
}

/** "queued 4 s → loading the model 8 s → reading the prompt" @param {Answer} answer @param {number} now */
function phaseText(answer, now) {
  if (answer.status === "reconnecting") return t("reconnecting");
  const past = answer.steps
    .filter((step) => step.ms >= NOTABLE_MS)
    .map((step) => `${phaseName(step.phase)} ${format.clock(step.ms)}`);
  const line = [...past, current(answer, now)].join(" → ");
  const silent = now - answer.lastAt;
  if (answer.phase === "generating" && silent > STALLED_MS)
    return `${line} · ${t("stalled", { time: format.clock(silent) })}`;
  return now - answer.caughtUpAt < CAUGHT_UP_MS ? `${line} · ${t("caughtUp")}` : line;
}

/** @param {Answer} answer @param {number} now */
function current(answer, now) {
  const { phase, position, reason, dueAt, progress, phaseAt, model } = answer;
  if (!phase) return t("connecting");
  if (phase === "generating") {
    const rate = liveRate(answer, now);
    return rate ? format.rate(rate) : t("generating");
  }
  const name =
    phase === "queued" && position
      ? t("queuedAt", { n: position })
      : phaseName(reason === "ollama_down" ? reason : phase);
  const share = progress ? ` ${Math.round(progress * 100)}%` : "";
  const line = [`${name}${share} ${format.clock(now - phaseAt)}`];
  if (dueAt > now) line.push(t("eta", { time: format.clock(dueAt - now) }));
  if (reason === "model") line.push(t("modelFirst", { model }));
  return line.join(" · ");
}

/** A phase of a later gateway is shown as it is called there. @param {string} phase */
const phaseName = (phase) => maybe(phase) ?? phase;

/** @param {Answer} answer */
function figuresText(answer) {
  const { figures } = answer;
  const parts = [];
  if (figures) {
    parts.push(t("tokens", { n: format.count(figures.tokens) }));
    if (figures.tokensPerSecond) parts.push(format.rate(figures.tokensPerSecond));
    if (figures.firstTokenMs) parts.push(t("firstToken", { time: format.duration(figures.firstTokenMs) }));
    if (figures.reason === "length") parts.push(t("lengthReached"));
  }
  if (answer.status === "cancelled") parts.push(t("stopped"));
  if (answer.status === "done" && !answer.text && !answer.tools.length) parts.push(t("emptyAnswer"));
  parts.push(answer.model);
  return parts.join(" · ");
}

/** "‹ 2/3 ›" @param {HTMLElement} element @param {number} at @param {number} count */
function showSteps(element, at, count) {
  show(element, count > 1);
  setText($("span", element), `${at + 1}/${count}`);
  const [previous, next] = element.querySelectorAll("button");
  if (previous) previous.disabled = at === 0;
  if (next) next.disabled = at === count - 1;
}
