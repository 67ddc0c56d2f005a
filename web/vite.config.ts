// Builds the page into web/dist, to be served from any path. `--mode fake` puts the tests' in-memory engine in the
// module's place, so that the page can be worked on without a built module.
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

/** Only the built page carries a content policy: the dev server needs inline styles and a web socket. */
function contentPolicy(): Plugin {
  const policy = [
    "default-src 'none'",
    "script-src 'self' 'wasm-unsafe-eval'",
    "worker-src 'self' blob:",
    "connect-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "manifest-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  return {
    name: "content-policy",
    apply: "build",
    transformIndexHtml: () => [
      { tag: "meta", attrs: { "http-equiv": "Content-Security-Policy", content: policy }, injectTo: "head-prepend" },
    ],
  };
}

export default defineConfig(({ mode }) => ({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  plugins: [contentPolicy()],
  resolve:
    mode === "fake"
      ? { alias: { "nibble-nn": fileURLToPath(new URL("../tests/web/fake_engine.ts", import.meta.url)) } }
      : {},
  optimizeDeps: { exclude: ["nibble-nn"] },
  server: { fs: { allow: [".."] } },
  build: {
    target: "es2022",
    outDir: mode === "fake" ? "../build/page-fake" : "dist",
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
  },
  worker: { format: "es" as const },
}));
