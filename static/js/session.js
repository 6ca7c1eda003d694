/** Everything a person can do, by subject. No DOM. */
import { Asking } from "./asking.js";
import { Chats } from "./chats.js";
import { History } from "./history.js";
import { Keeper } from "./keeper.js";
import { Pulls } from "./pulls.js";
import { Reading } from "./reading.js";
import { Server } from "./server.js";
import { Tabs } from "./tabs.js";

/** @typedef {ReturnType<typeof createSession>} Session */

/**
 * @param {import("./state.js").Store} store @param {import("./api.js").Api} api
 * @param {typeof import("../client.js").openStream} openStream
 */
export function createSession(store, api, openStream) {
  const tabs = new Tabs();
  const history = new History();
  const keeper = new Keeper(store, history, tabs);
  const server = new Server(store, api);
  const reading = new Reading(store, keeper, tabs, api, openStream);
  const asking = new Asking(store, keeper, server, reading);
  const chats = new Chats(store, keeper, history, (chatId) => asking.stop(chatId));
  const pulls = new Pulls(store, server, chats, tabs, api, openStream);
  return { keeper, server, asking, chats, pulls };
}
