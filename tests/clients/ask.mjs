/**
 * Asks with the gateway's own client, and prints the text and what ended the loop:
 * node ask.mjs BASE HOW [KEY]
 *
 * HOW is `whole`, or what to do at the first chunk: `stop`, `abort` or `leave`; `early` stops before there is one.
 */
import { stream } from "../../static/client.js";

const [, , base, how, key] = process.argv;
const abort = new AbortController();
const messages = [{ role: "user", content: "Hi" }];
const onEvent = ({ type }) => how === "early" && type === "meta" && answer.stop();
const answer = stream({ model: "m", messages }, { base, key, signal: abort.signal, onEvent });

let text = "";
let error = null;
try {
  for await (const chunk of answer) {
    text += chunk.message.content;
    if (how === "stop") void answer.stop();
    if (how === "abort") abort.abort();
    if (how === "leave") break;
  }
} catch (thrown) {
  const { name, message, code, phase, retryable, status } = thrown;
  error = { name, message, code, phase, retryable, status };
}
console.log(JSON.stringify({ text, error, lastEventId: answer.lastEventId }));
