import { type FormEvent, useState } from "react";
import { createRoot } from "react-dom/client";
import { useGateway } from "./useGateway";

function Chat() {
  const { text, error, busy, ask, stop } = useGateway();
  const [prompt, setPrompt] = useState("Why is the sky blue?");

  function submit(event: FormEvent) {
    event.preventDefault();
    void ask([{ role: "user", content: prompt }]);
  }

  return (
    <form onSubmit={submit}>
      <input value={prompt} onChange={(event) => setPrompt(event.target.value)} />
      <button type="submit" disabled={busy}>
        Ask
      </button>
      <button type="button" disabled={!busy} onClick={stop}>
        Stop
      </button>
      <p id="answer">{text}</p>
      {error && <p role="alert">{error.message}</p>}
    </form>
  );
}

createRoot(document.body.appendChild(document.createElement("main"))).render(<Chat />);
