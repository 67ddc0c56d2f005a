// The package in Node: engine.wasm, engine-relaxed.wasm and worker-node.js lie beside this file.
import type { Load } from "./api";
import { createLoad } from "./client";
import { fileAt, readNow } from "./disk-node";
import { createHost } from "./host";
import type { Platform } from "./platform";
import { readBytes, startThread } from "./threads-node";

export * from "./api";
export * from "./types";

const platform: Platform = {
  relaxed: true,
  fileAt,
  decode: async (image, name) => (await import("./decode-node")).decodeInNode(image, name),
  async wasm(options, build) {
    if (options.wasmBinary) return { bytes: new Uint8Array(options.wasmBinary), source: "wasmBinary" };
    const name = build === "relaxed" ? "engine-relaxed.wasm" : "engine.wasm";
    const at = options.wasmUrl ?? new URL(`./${name}`, import.meta.url);
    return { bytes: await readBytes(at, options), source: String(at) };
  },
  thread: (events) => startThread(new URL("./worker-node.js", import.meta.url), events),
  local: async (events) => createHost({ ...events, readNow }),
};

export const load: Load = createLoad(platform);
