/** The request of an exchange as code in five languages, for the page's own address. Pure. */

/** @typedef {{chat: Record<string, any>, preset?: string, variables?: Record<string, string>}} Request */

/** @type {Record<string, (origin: string, request: Request) => string>} */
export const SNIPPETS = { EventSource: eventSource, fetch: fetchSnippet, curl, Python: python, Streamlit: streamlit };

/** Images are long; who runs the code has them as files. @param {Request} request @returns {Record<string, any>} */
function bodyOf(request) {
  const messages = request.chat.messages.map((/** @type {any} */ message) =>
    message.images ? { ...message, images: message.images.map(() => "<base64 image>") } : message,
  );
  return { ...request.chat, messages };
}

/** The gateway's own options go into the query. @param {Request} request */
function query(request) {
  const params = new URLSearchParams();
  if (request.preset) params.set("preset", request.preset);
  for (const [name, value] of Object.entries(request.variables ?? {})) params.set(`variables.${name}`, value);
  const text = params.toString();
  return text && `?${text}`;
}

/** @param {unknown} value @param {string} indent */
const json = (value, indent = "") => JSON.stringify(value, null, 2).replaceAll("\n", `\n${indent}`);

/** The same for Python: only these three words are spelled differently. @param {unknown} value */
function literal(value) {
  const words = /** @type {Record<string, string>} */ ({ true: "True", false: "False", null: "None" });
  // A string is matched first and kept, so that a word inside of it is not touched.
  return json(value).replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g, (token) => words[token] ?? token);
}

/** @param {string} origin @param {Request} request */
function eventSource(origin, request) {
  const { model, messages, options, think } = request.chat;
  const [first, second] = messages;
  const system = first.role === "system" ? first.content : "";
  const prompt = system ? second : first;
  const simple = messages.length === (system ? 2 : 1) && !prompt.images;
  if (!simple) return eventSourcePost(origin, request);
  const params = new URLSearchParams(query(request));
  params.set("model", model);
  params.set("prompt", prompt.content);
  if (system) params.set("system", system);
  if (think !== undefined) params.set("think", String(think));
  for (const [name, value] of Object.entries(options ?? {})) params.set(`options.${name}`, String(value));
  return `const query = new URLSearchParams(${json(Object.fromEntries(params))});
const source = new EventSource(\`${origin}/api/chat?\${query}\`);
${READ}`;
}

const READ = `source.onmessage = (event) => {
  const line = JSON.parse(event.data);
  if (line.error) console.error(line.error);
  else console.log(line.message.content);
  if (line.error || line.done) source.close();
};
`;

/** A whole conversation does not fit into an address. @param {string} origin @param {Request} request */
function eventSourcePost(origin, request) {
  const body = { ...request, chat: bodyOf(request) };
  return `const response = await fetch(${JSON.stringify(`${origin}/api/streams`)}, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(${json(body, "  ")}),
});
const { url } = await response.json();
const source = new EventSource(new URL(url, ${JSON.stringify(origin)}));
${READ}`;
}

/** @param {string} origin @param {Request} request */
function fetchSnippet(origin, request) {
  return `const response = await fetch(${JSON.stringify(`${origin}/api/chat${query(request)}`)}, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(${json(bodyOf(request), "  ")}),
});
const decoder = new TextDecoder();
const reader = response.body.getReader();
let buffer = "";
for (;;) {
  const { done, value } = await reader.read();
  if (done) break;
  buffer += decoder.decode(value, { stream: true });
  const events = buffer.split("\\n\\n");
  buffer = events.pop();
  for (const event of events) {
    if (event.includes("event:")) continue; // meta, status, end
    const data = event.split("\\n").find((field) => field.startsWith("data: "));
    if (!data) continue;
    const line = JSON.parse(data.slice(6));
    console.log(line.error ?? line.message.content);
  }
}
`;
}

/** @param {string} origin @param {Request} request */
function curl(origin, request) {
  const body = json(bodyOf(request)).replaceAll("'", "'\\''");
  return `curl -N '${origin}/api/chat${query(request).replaceAll("'", "%27")}' \\
  -H 'Content-Type: application/json' \\
  -d '${body}'
`;
}

/** @param {string} origin @param {Request} request @param {string} [imports] */
function python(origin, request, imports = "") {
  return `import json
import urllib.request
${imports}
URL = ${JSON.stringify(`${origin}/api/chat${query(request)}`)}
BODY = ${literal(bodyOf(request))}

def answer():
    data = json.dumps(BODY).encode()
    request = urllib.request.Request(URL, data, {"Content-Type": "application/json"})
    event = ""
    with urllib.request.urlopen(request) as response:
        for raw in response:
            field, _, value = raw.decode().rstrip("\\n").partition(": ")
            if field == "event":
                event = value
            elif field == "data" and not event:
                line = json.loads(value)
                if "error" in line:
                    raise RuntimeError(line["error"])
                yield line["message"].get("content", "")
            elif not field:
                event = ""
${
  imports
    ? ""
    : `

for piece in answer():
    print(piece, end="", flush=True)
`
}`;
}

/** @param {string} origin @param {Request} request */
function streamlit(origin, request) {
  return `${python(origin, request, "\nimport streamlit as st\n")}

st.write_stream(answer())
`;
}
