/**
 * Asks with Ollama's own client for JavaScript: node ollama.mjs HOST METHOD REQUEST [abort]
 *
 * Prints each part of the answer, or the whole of it, as a line of JSON, and last an error, if there was one. With
 * `abort`, it aborts at the first part.
 */
import { Ollama } from "ollama";

const [, , host, method, request, abort] = process.argv;
const ollama = new Ollama({ host });
const print = (value) => console.log(JSON.stringify(value));
try {
  const given = JSON.parse(request);
  const answer = await ollama[method](given);
  if (given.stream) {
    for await (const part of answer) {
      print(part);
      if (abort) ollama.abort();
    }
  } else print(answer);
} catch ({ name, message, status_code }) {
  print({ error: { name, message, status_code } });
}
