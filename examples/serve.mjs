/** Builds an example and serves it: node serve.mjs react/main.tsx [port] */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { build } from "esbuild";
import { compile } from "svelte/compiler";

const svelte = {
  name: "svelte",
  setup({ onLoad }) {
    onLoad({ filter: /\.svelte$/ }, async ({ path }) => ({
      contents: compile(await readFile(path, "utf8"), { filename: path }).js.code,
    }));
  },
};

const [entry, port = "5173"] = process.argv.slice(2);
const { outputFiles } = await build({
  entryPoints: [entry],
  bundle: true,
  write: false,
  format: "esm",
  charset: "utf8",
  define: {
    "process.env.NODE_ENV": '"production"',
    __VUE_OPTIONS_API__: "true",
    __VUE_PROD_DEVTOOLS__: "false",
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
  },
  alias: { vue: "vue/dist/vue.esm-bundler.js" },
  plugins: [svelte],
});

const types = { "/": "text/html", "/main.js": "text/javascript" };
const bodies = {
  "/": `<!doctype html><meta charset="utf-8"><title>${entry}</title><body><script type="module" src="main.js"></script>`,
  "/main.js": outputFiles[0].text,
};
const server = createServer(({ url }, response) => {
  response.writeHead(url in bodies ? 200 : 404, { "Content-Type": `${types[url] ?? "text/plain"}; charset=utf-8` });
  response.end(bodies[url]);
});
server.listen(Number(port), "127.0.0.1", () => console.log(`Open http://localhost:${server.address().port}`));
