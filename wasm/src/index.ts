// The package in a browser: engine.wasm, engine-relaxed.wasm and worker.js lie beside this file.
/// <reference lib="esnext.disposable" preserve="true" />
import type { Load } from "./api";
import { fetchBytes, startWorker } from "./browser";
import { createLoad } from "./client";
import { decodeInBrowser } from "./data";
import type { Platform } from "./platform";

export * from "./api";
export * from "./types";

const workerUrl = new URL("./worker.js", import.meta.url);

let script: Promise<string | undefined> | undefined;

/** The worker's script as a blob: fetched once, so that a worker can be replaced while the network is gone or the site has
 *  a newer version, and so that a script from another origin works. Undefined where it cannot be had this way. */
async function blobOfScript(): Promise<string | undefined> {
  try {
    const response = await fetch(workerUrl);
    if (!response.ok || !/javascript/.test(response.headers.get("content-type") ?? "")) return undefined;
    return URL.createObjectURL(new Blob([await response.text()], { type: "text/javascript" }));
  } catch {
    return undefined;
  }
}

const platform: Platform = {
  relaxed: true,
  decode: decodeInBrowser,
  async wasm(options, build) {
    if (options.wasmBinary) return { bytes: new Uint8Array(options.wasmBinary), source: "wasmBinary" };
    // Each address in full: bundlers find the files by this very expression.
    const strict = new URL("./engine.wasm", import.meta.url);
    const relaxed = new URL("./engine-relaxed.wasm", import.meta.url);
    const url = options.wasmUrl ?? (build === "relaxed" ? relaxed : strict);
    return { bytes: await fetchBytes(url, options), source: String(url) };
  },
  async thread(events) {
    const blob = await (script ??= blobOfScript());
    if (blob) {
      try {
        return await startWorker(blob, events);
      } catch {
        // A content security policy may forbid workers made of blobs: the script's own address is left.
        script = Promise.resolve(undefined);
      }
    }
    return startWorker(workerUrl, events);
  },
  async local(events) {
    const { createHost } = await import("./host");
    return createHost(events);
  },
};

export const load: Load = createLoad(platform);
