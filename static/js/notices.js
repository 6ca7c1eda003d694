/** The screens in place of a conversation: welcome, no model, no Ollama; and how full the context is. */
import { $, h, iconButton, setText, show } from "./dom.js";
import * as format from "./format.js";
import { PullForm } from "./models.js";
import { copyText } from "./platform.js";
import { pullTotals } from "./pull.js";
import { contextUse } from "./request.js";
import { t } from "./strings.js";
import { pathOf } from "./tree.js";
import { failureText, TurnView } from "./turn.js";

/** @import { Failure, State } from "./types.js" */

const NEARLY_FULL = 0.85;

export class Notices {
  #session;
  #pullForm;
  #welcome = $("#welcome");
  #banner = $("#banner");
  #shown = "";

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.#session = session;
    this.#pullForm = new PullForm(session);
    const drop = h("button", { class: "plain" }, t("dropOldest"));
    drop.addEventListener("click", () => session.asking.dropOldest());
    $("#full").append(h("span"), drop);
  }

  /** @param {State} state */
  render(state) {
    this.#pullForm.render(state.pull);
    this.#renderScreen(state);
    this.#renderContext(state);
    const mark = $("#pull-mark");
    show(mark, !!state.pull && !state.pull.failure);
    if (!state.pull) return;
    const { completed, total } = pullTotals(state.pull);
    setText(mark, t("pullMark", { p: total ? Math.floor((completed / total) * 100) : 0 }));
  }

  /** @param {State} state */
  #renderScreen({ chat, turns, server, serverFailure, models, allowPull }) {
    const empty = !turns[chat.id]?.length;
    const problem =
      server === "down" ? `down:${serverFailure?.code}` : server === "ok" && !models.length ? "empty" : "";
    const key = [empty, server === "unknown", problem, allowPull, serverFailure?.error].join();
    if (key === this.#shown) return;
    this.#shown = key;
    show(this.#welcome, empty && server !== "unknown");
    show(this.#banner, !empty && problem !== "");
    const place = empty ? this.#welcome : this.#banner;
    this.#welcome.replaceChildren();
    this.#banner.replaceChildren();
    if (server === "down") place.append(...downNotice(serverFailure, empty, () => void this.#session.server.refresh()));
    else if (problem) place.append(...this.#emptyNotice(allowPull));
    else if (empty) place.append(h("h2", {}, t("welcome")), h("p", { class: "quiet" }, t("welcomeHelp")));
  }

  /** @param {boolean} allowPull */
  #emptyNotice(allowPull) {
    const way = allowPull ? this.#pullForm.element : command("ollama pull llama3.2");
    const text = h("p", {}, t(allowPull ? "noModelsPull" : "noModelsText"));
    return [h("h2", {}, t("noModelsTitle")), text, way, h("p", { class: "quiet waiting" }, t("waitingModels"))];
  }

  /** @param {State} state */
  #renderContext({ chat, turns, models, attached }) {
    const list = pathOf(turns[chat.id]);
    const model = models.find((model) => model.name === this.#session.server.model());
    const use = contextUse(chat, list, model, attached);
    const gauge = $("#gauge");
    show(gauge, !!use);
    const full = !!use && use.share >= NEARLY_FULL && list.filter((turn) => !turn.omitted).length > 1;
    show($("#full"), full);
    if (!use) return;
    const percent = Math.max(1, Math.round(use.share * 100));
    setText($(".text", gauge), t("gauge", { p: percent }));
    gauge.title = t("gaugeTitle", { used: format.count(use.used), limit: format.count(use.limit) });
    $(".bar span", gauge).style.width = `${percent}%`;
    gauge.classList.toggle("warn", use.share >= NEARLY_FULL);
    if (full) setText($("#full span"), t("contextFull", { p: percent }));
  }
}

/**
 * @param {Failure | null} failure @param {boolean} whole as a screen, with all that helps
 * @param {() => void} ask  the server again
 */
function downNotice(failure, whole, ask) {
  const waiting = h("p", { class: "quiet waiting" }, t("waitingServer"));
  if (failure?.code === "gateway_unreachable") {
    const title = h(whole ? "h2" : "strong", {}, t("gatewayDownTitle"));
    return [title, h("p", {}, t("gatewayDownText")), waiting];
  }
  if (failure?.code === "unauthorized") {
    const enter = h("button", { type: "button" }, t("enterKey"));
    enter.addEventListener("click", ask);
    return [h(whole ? "h2" : "strong", {}, t("error_lost_unauthorized")), enter];
  }
  if (failure?.code !== "ollama_unreachable")
    return [h(whole ? "h2" : "strong", {}, failure ? failureText(failure) : ""), waiting];
  const title = h(whole ? "h2" : "strong", {}, t("downTitle"));
  if (!whole) return [title, waiting];
  const said = h("p", { class: "quiet said" }, failure.error);
  return [title, h("p", {}, t("downText")), command("ollama serve"), h("p", {}, t("downSetting")), said, waiting];
}

/** A line for the terminal, with copy. @param {string} line */
function command(line) {
  const copy = iconButton("copy", "copy");
  copy.addEventListener("click", async () => {
    if (await copyText(line)) TurnView.confirm(copy);
  });
  return h("div", { class: "command" }, h("code", {}, line), copy);
}
