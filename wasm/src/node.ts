// The package in Node: engine.wasm and worker-node.js lie beside this file.
import type { Load } from "./api";
import { createLoad } from "./client";
import { createHost } from "./host";
import type { Platform } from "./platform";
import { readBytes, startThread } from "./threads-node";

export * from "./api";
export * from "./types";

const platform: Platform = {
  async wasm(options) {
    if (options.wasmBinary) return { bytes: new Uint8Array(options.wasmBinary), source: "wasmBinary" };
    const at = options.wasmUrl ?? new URL("./engine.wasm", import.meta.url);
    return { bytes: await readBytes(at, options), source: String(at) };
  },
  thread: (events) => startThread(new URL("./worker-node.js", import.meta.url), events),
  local: async (events) => createHost(events),
};

export const load: Load = createLoad(platform);
