// Two projects: "units" needs the built package and nothing else, "page" drives the built page in Chromium.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: fileURLToPath(new URL("..", import.meta.url)),
  // Written beside the other things that are built.
  cacheDir: "build/vite",
  test: {
    // The built package runs as it is; nothing of it is to be transformed.
    server: { deps: { external: [/\/wasm\/dist\//] } },
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      {
        extends: true,
        test: {
          name: "units",
          include: ["tests/*.test.ts", "tests/wasm/**/*.test.ts", "tests/web/**/*.test.ts", "web/src/**/*.test.ts"],
        },
      },
      {
        extends: true,
        // One browser at a time: measurements in the page are of a machine that does nothing else.
        test: {
          name: "page",
          include: ["tests/wasm/**/*.spec.ts", "tests/web/**/*.spec.ts"],
          fileParallelism: false,
          testTimeout: 120_000,
        },
      },
    ],
  },
});
