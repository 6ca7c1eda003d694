/** Wiring: what the page is made of, and how the address and the browser's life reach it. */
import { openStream } from "../client.js";
import { Api } from "./api.js";
import { recall } from "./prefs.js";
import { createSession } from "./session.js";
import { Store } from "./state.js";
import { createView } from "./view.js";

document.documentElement.dataset.theme = recall("theme") ?? "auto"; // before anything is waited for: no flash

const store = new Store();
const api = new Api();
const session = createSession(store, api, openStream);
const chatOfAddress = () => location.hash.slice(1);
await session.chats.start(chatOfAddress());
createView(store, session, api);

addEventListener("pagehide", () => void session.keeper.flush());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") void session.keeper.flush();
  else void session.server.refresh();
});

void session.server.refresh();
session.pulls.resume();
addEventListener("hashchange", () => void session.chats.open(chatOfAddress()));
/** A new chat gets its address with its first prompt; before that a reload has nothing to come back to. */
const listed = () => (store.state.chats.some(({ id }) => id === store.state.chat.id) ? store.state.chat.id : "");
let addressed = listed();
// A chat that is not known may be so a little later, where the storage is slow: its address stays until then.
let awaited = addressed ? "" : chatOfAddress();
store.addEventListener("change", () => {
  const id = listed();
  if (!id && store.state.chats.some((chat) => chat.id === awaited)) {
    void session.chats.open(awaited);
    awaited = "";
  }
  // Only a change of chat: a token that arrives between a click on a link and its event must not undo the click.
  if (id === addressed) return;
  addressed = id;
  awaited = "";
  if (id !== chatOfAddress()) history.pushState(null, "", id ? `#${id}` : location.pathname);
});
