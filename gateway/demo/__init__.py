"""A simulated Ollama: its wire as recorded, made-up answers at a human pace, and named faults.

For trying out the gateway without a GPU, and for every test that needs an Ollama. `Simulator` is all there is
to use; `Simulator().app` must be served by uvicorn. `GET /simulator` is not Ollama's: it counts what is going on.

**Models:** `llama3.2` (tools), `qwen3` (thinking, tools), `gemma3` (images), `nomic-embed-text` (embeddings only).
A pull of any other name adds it; a name that begins with `nope` is not to be found.

**Faults:** the model `fault:NAME` fails as below, in chat and in generate. `fault:NAME-N` sets its number.

| NAME | N | what happens |
|---|---|---|
| `stall` | 8 tokens | tokens, then silence for ever |
| `silent` | | never a first token |
| `truncate` | 8 tokens | tokens, then a clean end without `done` |
| `repeat` | 30 | one token over and over; after N repeats a clean end without `done` |
| `crash` | 4 tokens | tokens, then the error line of a runner that died |
| `bare-eof` | 6 tokens | tokens, then the connection closes without a terminating chunk |
| `no-response` | | the connection closes instead of a response |
| `empty` | | 200 with an empty body |
| `no-tokens` | | the done line is the only line |
| `not-json` | 8 tokens | tokens, a line that is not JSON, then the done line |
| `html` | | 200 with a page of `text/html` |
| `oversized-line` | 17 MiB | one line of N bytes in pieces, then the done line |
| `long-line` | 1 MiB | one line of N bytes, one chunk, then the done line |
| `cr` | 8 tokens | raw CRs as JSON white space, lines that end in CRLF |
| `unicode` | | characters in pieces, what JSON must escape, what looks like SSE |
| `rechunked` | 7 bytes | `unicode` in chunks of N bytes |
| `unterminated` | 8 tokens | the done line has no LF |
| `burst` | 5000 tokens | all at once |
| `error` | status 500 | this status and a JSON body instead of a stream; 500 is a dead runner |
| `error-400` | | the runner refuses the prompt as too long |
| `error-401` | | as for a cloud model, not signed in |
| `error-503` | | at once: the queue is full |
| `load-failed` | | 500 after the load |
| `slow-load` | 60 s | a load of N seconds |

A pull of `fault:NAME` knows `stall`, `truncate`, `bare-eof`, `digest-mismatch` and `unreachable`.
"""

from gateway.demo.simulator import Request, Simulator

__all__ = ["Request", "Simulator"]
