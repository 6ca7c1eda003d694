/**
 * What a screen reader is told. Tokens are in no live region: word by word they would drown everything else.
 */
import { $ } from "./dom.js";
import { t } from "./strings.js";

const REMIND_MS = 20_000;

export class Announcer {
  #region = $("#status");
  /** @type {ReturnType<typeof setInterval> | undefined} */ #reminder;

  /** @param {string} text */
  say(text) {
    // The same text twice is announced once by most readers; a space makes it another.
    this.#region.textContent = this.#region.textContent === text ? `${text}\u00a0` : text;
  }

  begin() {
    this.say(t("saidGenerating"));
    this.quiet();
    this.#reminder = setInterval(() => this.say(t("saidStill")), REMIND_MS);
  }

  /** @param {string} text */
  end(text) {
    this.quiet();
    this.say(text);
  }

  /** What was begun is out of sight. */
  quiet() {
    clearInterval(this.#reminder);
  }
}
