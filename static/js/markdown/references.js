/**
 * What a text refers to: characters by their names and numbers, and where a link leads, by its destination, by a label
 * and its definition, or as a bare address.
 */
/** @import {Attributes} from "./types.js" */

// Characters: those that models name, since the specification's table is longer than the parser -------------

/** Names, each followed by the sign that it stands for. @param {string} list */
export const signs = (list) => new Map(Array.from(list.matchAll(/([a-z]+)(.)/giu), ([, name, sign]) => [name, sign]));

/** Letters with marks are put together: `&eacute;` is "e" and this. */
const MARKS = signs("grave\u0300acute\u0301circ\u0302tilde\u0303uml\u0308ring\u030acedil\u0327");
export const GREEK = signs(
  "alphaαbetaβgammaγdeltaδepsilonεzetaζetaηthetaθiotaιkappaκlambdaλmuμnuνxiξomicronοpiπrhoρsigmaσtauτupsilonυphiφchiχpsiψomegaω",
);
for (const [name = "", sign = ""] of [...GREEK])
  GREEK.set(
    name.replace(/./, (letter) => letter.toUpperCase()),
    sign.toUpperCase(),
  );
const OTHERS = signs(
  "amp&lt<gt>quot\"apos'nbsp\u00a0copy©reg®trade™hellip…mdash—ndash–lsquo‘rsquo’ldquo“rdquo”laquo«raquo»bull•middot·times×divide÷" +
    "plusmn±deg°microµsect§euro€pound£yen¥larr←rarr→uarr↑darr↓harr↔rArr⇒hArr⇔le≤ge≥ne≠asymp≈equiv≡infin∞sum∑radic√" +
    "minus−szligßaeligæoslashøOslashØ",
);

const REFERENCE = /&(?:#(\d{1,7})|#x([\da-f]{1,6})|([a-z][a-z\d]{1,31}));/iy;
const ESCAPED = /\\([!-/:-@[-`{-~])|&#?\w{1,32};/g;

/** The reference at `at`, or null. @param {string} text @param {number} at */
export function reference(text, at) {
  const [all, decimal, hex, name] = matchAt(REFERENCE, text, at) ?? [];
  const char = name ? named(name) : all && numbered(Number(decimal ?? `0x${hex}`));
  return all && char ? { char, length: all.length } : null;
}

/** @param {string} name @returns {string | undefined} */
function named(name) {
  const mark = MARKS.get(name.slice(1));
  return mark ? (name[0] + mark).normalize("NFC") : (OTHERS.get(name) ?? GREEK.get(name));
}

/** @param {number} code */
const numbered = (code) =>
  code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : "\ufffd";

/** Without backslash escapes and character references. @param {string} text */
export const unescaped = (text) => text.replace(ESCAPED, (all, char) => char ?? reference(all, 0)?.char ?? all);

// Links ---------------------------------------------------------------------------------------------------

/** It bounds the search for an end that never comes. */
const WINDOW = 4_000;
const MAX_LABEL = 999;
const MAX_PARENTHESES = 32;
const SAFE = /^(?:https?:\/\/|mailto:)/i;

/** An address that may not be followed is shown on hover. @param {string} href @returns {Attributes} */
export function where(href, title = "") {
  if (!SAFE.test(href)) return { title: href };
  return title ? { href, title } : { href };
}

const SPACES = /[ \t]*\n?[ \t]*/y;
const ANGLE = /<((?:[^<>\n\\]|\\.)*)>/y;
const TITLE = /"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|\(((?:[^()\\]|\\.)*)\)/sy;
const LABEL = /\[((?:[^[\]\\]|\\.)*)\]/sy;
const BLANK_LINE = /\n[ \t]*\n/;

/** @param {RegExp} pattern sticky, or one that looks for the next match @param {string} text @param {number} at */
export function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** Past spaces with at most one line end. @param {string} text @param {number} at */
const skip = (text, at) => at + (matchAt(SPACES, text, at)?.[0].length ?? 0);

/** @param {string} label */
export const normalized = (label) => label.trim().replace(/\s+/g, " ").toLowerCase().toUpperCase();

/** `[label]` at `at`. @param {string} text @param {number} at */
export function labelAt(text, at) {
  if (text[at] !== "[") return null;
  const found = matchAt(LABEL, text.slice(at, at + MAX_LABEL + 2), 0);
  return found && { label: found[1] ?? "", end: at + found[0].length };
}

/** @param {string} text @param {number} at */
function destinationAt(text, at) {
  if (text[at] === "<") {
    const found = matchAt(ANGLE, text, at);
    return found && { href: unescaped(found[1] ?? ""), end: at + found[0].length };
  }
  let depth = 0;
  let end = at;
  for (; end < text.length; end++) {
    const char = text[end] ?? "";
    if (char <= " ") break;
    if (char === "\\" && (text[end + 1] ?? " ") > " ") end++;
    else if (char === "(") {
      if (++depth > MAX_PARENTHESES) return null;
    } else if (char === ")" && --depth < 0) break;
  }
  return depth > 0 ? null : { href: unescaped(text.slice(at, end)), end };
}

/** @param {string} text @param {number} at */
function titleAt(text, at) {
  const found = matchAt(TITLE, text, at);
  if (!found || BLANK_LINE.test(found[0])) return null;
  return { title: unescaped(found[1] ?? found[2] ?? found[3] ?? ""), end: at + found[0].length };
}

/** An address with its title, if one follows. @param {string} text @param {number} at */
function placeAt(text, at) {
  const destination = destinationAt(text, at);
  if (!destination) return null;
  const after = skip(text, destination.end);
  return { ...destination, title: after > destination.end ? titleAt(text, after) : null };
}

/** `(address "title")` at `at`. @param {string} whole @param {number} at */
export function targetAt(whole, at) {
  if (whole[at] !== "(") return null;
  const text = whole.slice(at, at + WINDOW);
  const place = placeAt(text, skip(text, 1));
  const end = place ? skip(text, place.title?.end ?? place.end) : 0;
  return place && text[end] === ")" ? { href: place.href, title: place.title?.title ?? "", end: at + end + 1 } : null;
}

const REST_OF_LINE = /[ \t]*(?:\n|$)/y;

/** The link reference definition that `whole` begins with. @param {string} whole */
export function definitionAt(whole) {
  const text = whole.slice(0, WINDOW);
  const label = labelAt(text, 0);
  if (!label?.label.trim() || text[label.end] !== ":") return null;
  const begin = skip(text, label.end + 1);
  const place = placeAt(text, begin);
  if (!place || place.end === begin) return null;
  const titled = place.title && matchAt(REST_OF_LINE, text, place.title.end);
  // What looks like a title but does not end its line is the text of the next paragraph.
  const rest = titled ?? matchAt(REST_OF_LINE, text, place.end);
  const target = { href: place.href, title: (titled && place.title?.title) ?? "" };
  return rest && { label: normalized(label.label), target, end: rest.index + rest[0].length };
}

// Bare addresses ------------------------------------------------------------------------------------------

/** Quotes and the punctuation of other scripts stand in no address. */
const URL_AT =
  /(?:https?:\/\/|www\.)[\w.-]+(?:[/:?#@%][^\s<>"`|\\^{}«»\u2010-\u203a\u3000-\u303f\uff01-\uff65]{0,2000})?/iy;
const EMAIL = "[\\w.+-]{1,64}@[a-z\\d_-]+(?:\\.[a-z\\d_-]+)+(?<![_-])(?![\\w-])";
const EMAIL_AT = new RegExp(`(?:mailto:)?${EMAIL}|xmpp:${EMAIL}(?:/[\\w.@]*\\w)?`, "iy");
const ENTITY_END = /&[A-Za-z\d]{1,32};$/;
const LOOSE_END = /[.,:;!?'"*_~]/;

/** A bare address. @param {string} text @param {number} at @param {boolean} bracketed inside of `[`, whose end it must not contain */
export function addressAt(text, at, bracketed) {
  const email = matchAt(EMAIL_AT, text, at)?.[0];
  if (email) return { text: email, href: email.replace(/^(?!mailto:|xmpp:)/i, "mailto:") };
  const found = matchAt(URL_AT, text, at)?.[0] ?? "";
  const url = trimmed(bracketed ? found.replace(/\].*/, "") : found);
  const [, scheme, host = ""] = /^(https?:\/\/)?([\w.-]*)/i.exec(url) ?? [];
  const labels = host.split(".");
  if (labels.includes("") || labels.slice(-2).some((label) => label.includes("_"))) return null;
  return { text: url, href: scheme ? url : `http://${url}` };
}

/** Without the sentence's punctuation and brackets. @param {string} url */
function trimmed(url) {
  let open = url.split("(").length - url.split(")").length;
  for (;;) {
    const last = url.at(-1) ?? "";
    const entity = last === ";" && ENTITY_END.exec(url);
    if (entity) url = url.slice(0, entity.index);
    else if (LOOSE_END.test(last) || (last === ")" && open++ < 0)) url = url.slice(0, -1);
    else return url;
  }
}
