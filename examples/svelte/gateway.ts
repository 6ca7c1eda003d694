import { writable } from "svelte/store";
import { type Answer, type ChatChunk, GatewayError, type Message, stream } from "../../static/client.js";

const base = "http://127.0.0.1:8000";

/** A store that streams the answer to the latest question. Asking again stops the model. */
export function gateway() {
  const store = writable<{ text: string; busy: boolean; error?: GatewayError }>({ text: "", busy: false });
  let current: Answer<ChatChunk> | undefined;

  const stop = () => current?.stop();

  async function ask(messages: Message[]) {
    void stop();
    const answer = stream({ messages }, { base });
    current = answer;
    store.set({ text: "", busy: true });
    try {
      for await (const chunk of answer) {
        store.update((state) => ({ ...state, text: state.text + chunk.message.content }));
      }
    } catch (reason) {
      if (!(reason instanceof GatewayError)) throw reason;
      store.update((state) => ({ ...state, error: reason }));
    }
    if (answer === current) store.update((state) => ({ ...state, busy: false }));
  }

  return { subscribe: store.subscribe, ask, stop };
}
