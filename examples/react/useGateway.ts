import { useEffect, useRef, useState } from "react";
import { type Answer, type ChatChunk, GatewayError, type Message, stream } from "../../static/client.js";

const base = "http://127.0.0.1:8000";

/** Streams the answer to the latest question. Leaving the page, or asking again, stops the model. */
export function useGateway() {
  const [text, setText] = useState("");
  const [error, setError] = useState<GatewayError>();
  const [busy, setBusy] = useState(false);
  const current = useRef<Answer<ChatChunk>>(undefined);

  const stop = () => current.current?.stop();
  useEffect(() => () => void current.current?.stop(), []);

  async function ask(messages: Message[]) {
    void stop();
    const answer = stream({ messages }, { base });
    current.current = answer;
    setText("");
    setError(undefined);
    setBusy(true);
    try {
      for await (const chunk of answer) setText((text) => text + chunk.message.content);
    } catch (reason) {
      if (!(reason instanceof GatewayError)) throw reason;
      setError(reason);
    }
    if (answer === current.current) setBusy(false);
  }

  return { text, error, busy, ask, stop };
}
