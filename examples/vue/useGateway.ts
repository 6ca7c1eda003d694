import { onScopeDispose, ref, shallowRef } from "vue";
import { type Answer, type ChatChunk, GatewayError, type Message, stream } from "../../static/client.js";

const base = "http://127.0.0.1:8000";

/** Streams the answer to the latest question. Leaving the page, or asking again, stops the model. */
export function useGateway() {
  const text = ref("");
  const error = shallowRef<GatewayError>();
  const busy = ref(false);
  let current: Answer<ChatChunk> | undefined;

  const stop = () => current?.stop();
  onScopeDispose(stop);

  async function ask(messages: Message[]) {
    void stop();
    const answer = stream({ messages }, { base });
    current = answer;
    text.value = "";
    error.value = undefined;
    busy.value = true;
    try {
      for await (const chunk of answer) text.value += chunk.message.content;
    } catch (reason) {
      if (!(reason instanceof GatewayError)) throw reason;
      error.value = reason;
    }
    if (answer === current) busy.value = false;
  }

  return { text, error, busy, ask, stop };
}
