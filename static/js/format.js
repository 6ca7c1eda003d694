/** Numbers for people. Pure; the language comes from the string table. */
import { lang, t } from "./strings.js";

const number = new Intl.NumberFormat(lang);
const decimal = new Intl.NumberFormat(lang, { maximumFractionDigits: 1 });
const units = ["B", "KB", "MB", "GB", "TB"];

/** @param {number} value */
export const count = (value) => number.format(value);

/** @param {number} bytes */
export function size(bytes) {
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${bytes < 10 && unit ? decimal.format(bytes) : number.format(Math.round(bytes))} ${units[unit]}`;
}

/** Milliseconds, then seconds with one decimal, whole seconds, minutes. @param {number} ms */
export function duration(ms) {
  if (ms < 1000) return t("milliseconds", { n: Math.max(0, Math.round(ms)) });
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 9.95) return t("seconds", { n: decimal.format(seconds) });
  if (seconds < 60) return t("seconds", { n: Math.round(seconds) });
  const minutes = Math.floor(seconds / 60);
  return t("minutes", { m: minutes, s: Math.floor(seconds % 60) });
}

/** Whole seconds, for a clock that ticks. @param {number} ms */
export function clock(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return t("seconds", { n: seconds });
  return t("minutes", { m: Math.floor(seconds / 60), s: seconds % 60 });
}

/** @param {number} perSecond */
export const rate = (perSecond) => t("rate", { n: perSecond < 10 ? decimal.format(perSecond) : Math.round(perSecond) });

/** @param {number} tokens */
export const context = (tokens) => (tokens >= 1024 ? `${Math.round(tokens / 1024)}K` : String(tokens));
