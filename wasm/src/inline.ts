// The package as one file for a browser: module and worker are inside, so it works from file:// and under any bundler.
/// <reference lib="esnext.disposable" preserve="true" />
import base64 from "inlined:wasm";
import script from "inlined:worker";
import type { Load } from "./api";
import { fetchBytes, startWorker } from "./browser";
import { createLoad } from "./client";
import { createHost } from "./host";
import { decodeInBrowser } from "./data";
import type { Platform } from "./platform";

export * from "./api";
export * from "./types";

let scriptUrl: string | undefined;

const platform: Platform = {
  // One build is what a single file has room for.
  relaxed: false,
  decode: decodeInBrowser,
  async wasm(options) {
    if (options.wasmBinary) return { bytes: new Uint8Array(options.wasmBinary), source: "wasmBinary" };
    if (options.wasmUrl) return { bytes: await fetchBytes(options.wasmUrl, options), source: String(options.wasmUrl) };
    return { bytes: Uint8Array.from(atob(base64), (char) => char.charCodeAt(0)), source: "nibble-nn/inline" };
  },
  thread(events) {
    scriptUrl ??= URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    return startWorker(scriptUrl, events);
  },
  local: async (events) => createHost(events),
};

export const load: Load = createLoad(platform);
