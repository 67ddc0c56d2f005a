// The package as one file for Node: module and worker are inside.
import base64 from "inlined:wasm";
import script from "inlined:worker";
import type { Load } from "./api";
import { createLoad } from "./client";
import { fileAt, readNow } from "./disk-node";
import { createHost } from "./host";
import type { Platform } from "./platform";
import { readBytes, startThread } from "./threads-node";

export * from "./api";
export * from "./types";

const platform: Platform = {
  // One build is what a single file has room for.
  relaxed: false,
  fileAt,
  decode: async (image, name) => (await import("./decode-node")).decodeInNode(image, name),
  async wasm(options) {
    if (options.wasmBinary) return { bytes: new Uint8Array(options.wasmBinary), source: "wasmBinary" };
    if (options.wasmUrl) return { bytes: await readBytes(options.wasmUrl, options), source: String(options.wasmUrl) };
    return { bytes: Buffer.from(base64, "base64"), source: "nibble-nn/inline" };
  },
  thread: (events) =>
    startThread(new URL(`data:text/javascript;base64,${Buffer.from(script).toString("base64")}`), events),
  local: async (events) => createHost({ ...events, readNow }),
};

export const load: Load = createLoad(platform);
