/** Wiring: what the page is made of, and how the address and the browser's life reach it. */
import { openStream } from "../client.js";
import { Api } from "./api.js";
import { openHistory } from "./history.js";
import { recall, Session } from "./session.js";
import { Store } from "./state.js";
import { t } from "./strings.js";
import { createView } from "./view.js";

document.documentElement.dataset.theme = recall("theme") ?? "auto"; // before anything is waited for: no flash

const store = new Store();
const api = new Api();
const history = await openHistory().catch(() => null);
const session = new Session(store, api, history, openStream);
const chatOfAddress = () => location.hash.slice(1);
await session.start(chatOfAddress());
const { toast } = createView(store, session, api);

addEventListener("pagehide", () => void session.flush());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") void session.flush();
  else void session.refresh();
});

void session.refresh();
void session.resume();
addEventListener("hashchange", () => void session.open(chatOfAddress()));
let addressed = chatOfAddress();
store.addEventListener("change", () => {
  // A new chat gets its address with its first prompt; before that a reload has nothing to come back to.
  const { chat, chats } = store.state;
  const id = chats.some(({ id }) => id === chat.id) ? chat.id : "";
  // Only a change of chat: a token that arrives between a click on a link and its event must not undo the click.
  if (id === addressed) return;
  addressed = id;
  if (id !== chatOfAddress()) globalThis.history.pushState(null, "", id ? `#${id}` : location.pathname);
});
if (!history) toast(t("noHistory"));
