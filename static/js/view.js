/** State to DOM: asks every part to show its share, once per frame; and the keyboard. */
import { Announcer } from "./announcer.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { CodeDialog, KeyDialog, toaster, wireDialogs } from "./dialogs.js";
import { $, h, oncePerFrame, translate } from "./dom.js";
import { ModelPicker } from "./models.js";
import { Notices } from "./notices.js";
import { SettingsPanel } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { isRunning } from "./state.js";
import { lang, t } from "./strings.js";

const mac = /Mac|iPhone|iPad/.test(navigator.platform);
const MOD = mac ? "⌘" : "Ctrl";

/** @type {[string, import("./strings.js").Key][]} */
const SHORTCUTS = [
  ["Enter", "key_send"],
  ["Shift Enter", "key_line"],
  ["Esc", "key_stop"],
  ["↑", "key_edit"],
  ["/", "key_focus"],
  [`${MOD} Shift O`, "key_new"],
  [`${MOD} K`, "key_search"],
  [`${MOD} Shift M`, "key_model"],
  [`${MOD} ,`, "key_settings"],
  ["Alt ↑ / Alt ↓", "key_chats"],
  [`${MOD} /`, "key_list"],
];

/**
 * @param {import("./state.js").Store} store
 * @param {import("./session.js").Session} session
 * @param {import("./api.js").Api} api
 */
export function createView(store, session, api) {
  document.documentElement.lang = lang;
  translate(document);
  wireDialogs();
  const announcer = new Announcer();
  const toast = toaster(announcer);
  const key = new KeyDialog(api);
  api.onUnauthorized = () => key.ask();
  const picker = new ModelPicker(session);
  const code = new CodeDialog();
  const settings = new SettingsPanel(session, store);
  const conversation = new Conversation(session, announcer, {
    pickModel: (choose) => picker.open(choose),
    showCode: (request) => code.open(request),
    focusPrompt: () => composer.focus(),
    toast,
  });
  const composer = new Composer(session, store, {
    sent: () => conversation.follow(),
    editLast: () => conversation.editLast(),
    toast,
  });
  const newChat = () => {
    session.newChat();
    sidebar.leave();
    composer.focus();
  };
  const sidebar = new Sidebar(session, newChat);
  const notices = new Notices(session);

  const render = oncePerFrame(() => {
    const { state } = store;
    conversation.render(state);
    composer.render(state);
    sidebar.render(state);
    picker.render(state);
    settings.render();
    notices.render(state);
    document.title = state.chat.title ? `${state.chat.title} · ${t("brand")}` : t("brand");
  });
  store.addEventListener("change", render);
  render();
  store.addEventListener("notice", (event) => {
    const notice = /** @type {CustomEvent<import("./session.js").Notice>} */ (event).detail;
    toast(t(/** @type {import("./strings.js").Key} */ (notice.key), notice.vars), notice.undo);
  });
  listShortcuts();
  onKeys({ store, session, composer, sidebar, picker, settings, newChat });
  // On a phone the focus would bring up the keyboard and hide half of the page.
  if (matchMedia("(hover: hover)").matches) composer.focus();
  return { toast };
}

function listShortcuts() {
  const dialog = /** @type {HTMLDialogElement} */ ($("#shortcuts-dialog"));
  const keys = (/** @type {string} */ text) =>
    text.split(" ").map((part) => (part === "/" && text.length > 3 && !text.startsWith(MOD) ? " / " : h("kbd", {}, part)));
  $("#shortcut-list").append(
    ...SHORTCUTS.map(([combination, label]) => h("div", {}, h("dt", {}, ...keys(combination)), h("dd", {}, t(label)))),
  );
  $("#shortcuts").addEventListener("click", () => dialog.showModal());
}

/**
 * @param {{store: import("./state.js").Store, session: import("./session.js").Session, composer: Composer,
 *   sidebar: Sidebar, picker: ModelPicker, settings: SettingsPanel, newChat: () => void}} parts
 */
function onKeys({ store, session, composer, sidebar, picker, settings, newChat }) {
  /** @param {number} step */
  const neighbour = (step) => {
    const { chats, chat } = store.state;
    const next = chats[chats.findIndex(({ id }) => id === chat.id) + step];
    if (next) location.hash = next.id;
  };
  addEventListener("keydown", (event) => {
    if (event.isComposing || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const mod = mac ? event.metaKey : event.ctrlKey;
    const typing = /^(?:INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
    const pressed = `${mod ? "mod " : ""}${event.shiftKey ? "shift " : ""}${event.altKey ? "alt " : ""}${event.key.toLowerCase()}`;
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
    const { chat, turns } = store.state;
    if (isRunning(turns[chat.id])) actions.escape = () => session.stop();
    const action = actions[pressed];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
