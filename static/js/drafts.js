/**
 * What was typed and attached and not sent, by chat; or by turn, while its prompt is edited. A chat that is not in the
 * list yet, "", has its draft in each tab: two tabs may begin one.
 */
import { recall, remember } from "./prefs.js";
import { reviveTurn } from "./revive.js";

/** @typedef {import("./attachments.js").Attached} Attached */

/** Where storage is off or full, a draft lasts as long as the page. @type {Map<string, unknown>} */
const drafts = new Map();

/** @param {string} chatId */
const place = (chatId) => (chatId ? "localStorage" : "sessionStorage");

/** @param {string} key @param {unknown} value  null: none @param {"localStorage" | "sessionStorage"} storage */
function put(key, value, storage) {
  drafts.set(key, value);
  remember(key, value, storage);
}

/** @param {string} key @param {"localStorage" | "sessionStorage"} storage @returns {any} */
const get = (key, storage) => (drafts.has(key) ? drafts.get(key) : recall(key, storage));

/** Of what was deleted nothing stays but in this tab, for an undo. @param {string[]} ids */
export function forget(ids) {
  for (const id of ids)
    for (const name of ["draft", "attachments", "attached"]) {
      const storage = name === "attached" ? "sessionStorage" : place(id);
      drafts.set(`${name}.${id}`, get(`${name}.${id}`, storage));
      remember(`${name}.${id}`, null, storage);
    }
}

/** @param {string} id @param {string} text */
export const rememberText = (id, text) => put(`draft.${id}`, text || null, place(id));

/** @param {string} id @returns {string} */
export const recallText = (id) => String(get(`draft.${id}`, place(id)) ?? "");

/**
 * Pictures are too large for the store that all tabs share: they last as long as the tab, as far as they fit. Their
 * number lasts as long as the text, to tell when they are missing.
 * @param {string} chatId @param {Attached} attached
 */
export function rememberAttached(chatId, attached) {
  const count = attached.images.length + attached.files.length;
  put(`attachments.${chatId}`, count || null, place(chatId));
  put(`attached.${chatId}`, count ? attached : null, "sessionStorage");
}

/** @param {string} chatId @returns {{attached: Attached, lost: number}} */
export function recallAttached(chatId) {
  const kept = reviveTurn({ ...get(`attached.${chatId}`, "sessionStorage"), id: "draft" });
  const { images = [], files = [] } = kept ?? {};
  const count = Number(get(`attachments.${chatId}`, place(chatId)));
  return { attached: { images, files }, lost: count - images.length - files.length };
}
