/** State to DOM: asks every part to show its share, once per frame. */
import { Announcer } from "./announcer.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { CodeDialog, KeyDialog, toaster, wireDialogs } from "./dialogs.js";
import { oncePerFrame, translate } from "./dom.js";
import { listShortcuts, onKeys } from "./keys.js";
import { ModelPicker } from "./models.js";
import { Notices } from "./notices.js";
import { SettingsPanel } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { lang, t } from "./strings.js";

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
  const conversation = new Conversation(session, store, announcer, {
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
    session.chats.newChat();
    sidebar.leave();
    composer.focus();
  };
  const sidebar = new Sidebar(session, store, newChat);
  const notices = new Notices(session);

  const render = oncePerFrame(() => {
    const { state } = store;
    for (const part of [conversation, composer, sidebar, picker, settings, notices]) {
      try {
        part.render(state);
      } catch (error) {
        reportError(error); // and the other parts go on
      }
    }
    document.title = state.chat.title ? `${state.chat.title} · ${t("brand")}` : t("brand");
  });
  store.addEventListener("change", render);
  render();
  store.onNotice(({ key, vars, undo }) => toast(t(key, vars), undo));
  listShortcuts();
  onKeys({ store, session, composer, sidebar, picker, settings, newChat });
  // On a phone the focus would bring up the keyboard and hide half of the page.
  if (matchMedia("(hover: hover)").matches) composer.focus();
  return { toast };
}
