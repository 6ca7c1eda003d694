/** The keyboard: shortcuts, on any layout, and their list. */
import { $, h } from "./dom.js";
import { composes } from "./platform.js";
import { isRunning } from "./state.js";
import { t } from "./strings.js";

const mac = /Mac|iPhone|iPad/.test(navigator.platform);
const MOD = mac ? "⌘" : "Ctrl";

/** @type {[string, import("./strings.js").Key][]} */
const SHORTCUTS = [
  ["Enter", "key_send"],
  ["Shift Enter", "key_line"],
  ["Esc", "key_stop"],
  ["↑", "key_edit"],
  ["/", "key_focus"],
  [`${MOD} Shift O`, "newChat"],
  [`${MOD} K`, "search"],
  [`${MOD} Shift M`, "key_model"],
  [`${MOD} ,`, "settings"],
  ["Alt ↑ / Alt ↓", "key_chats"],
  [`${MOD} /`, "key_list"],
];

export function listShortcuts() {
  const dialog = /** @type {HTMLDialogElement} */ ($("#shortcuts-dialog"));
  const keys = (/** @type {string} */ text) =>
    text
      .split(" ")
      .map((part) => (part === "/" && text.length > 3 && !text.startsWith(MOD) ? " / " : h("kbd", {}, part)));
  $("#shortcut-list").append(
    ...SHORTCUTS.map(([combination, label]) => h("div", {}, h("dt", {}, ...keys(combination)), h("dd", {}, t(label)))),
  );
  $("#shortcuts").addEventListener("click", () => dialog.showModal());
}

/**
 * @param {{store: import("./state.js").Store, session: import("./session.js").Session, composer: import("./composer.js").Composer,
 *   sidebar: import("./sidebar.js").Sidebar, picker: import("./models.js").ModelPicker,
 *   settings: import("./settings.js").SettingsPanel, newChat: () => void}} parts
 */
export function onKeys({ store, session, composer, sidebar, picker, settings, newChat }) {
  /** @param {number} step */
  const neighbour = (step) => {
    const { chats, chat } = store.state;
    const next = chats[chats.findIndex(({ id }) => id === chat.id) + step];
    if (next) location.hash = next.id;
  };
  addEventListener("keydown", (event) => {
    if (composes(event) || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const pressed = pressedKeys(event);
    const typing = /^(?:INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
    /** @type {Record<string, () => void>} */
    const actions = {
      "mod shift o": newChat,
      "mod k": () => sidebar.focusSearch(),
      "mod shift m": () => picker.open(),
      "mod ,": () => settings.open(),
      "mod /": () => $("#shortcuts").click(),
      "alt arrowup": () => neighbour(-1),
      "alt arrowdown": () => neighbour(1),
    };
    if (!typing) actions["/"] = () => composer.focus();
    const { chat } = store.state;
    if (isRunning(store.state, chat.id)) actions.escape = () => session.asking.stop();
    const action = actions[pressed];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/**
 * "mod shift o", on any layout: where a key types no Latin letter, it is named by its place; and a sign may need Shift.
 * @param {KeyboardEvent} event
 */
export function pressedKeys({ key, code, ctrlKey, metaKey, shiftKey, altKey }) {
  const place = /^Key[A-Z]$/.test(code) ? code.slice(3) : { Comma: ",", Slash: "/" }[code];
  const name = (/^[\x20-\x7e]+$/.test(key) ? key : (place ?? key)).toLowerCase();
  const shift = shiftKey && !/^[^a-z0-9]$/.test(name);
  return `${(mac ? metaKey : ctrlKey) ? "mod " : ""}${shift ? "shift " : ""}${altKey ? "alt " : ""}${name}`;
}
