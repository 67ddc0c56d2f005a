// Threads and bytes in Node.
import nodeEndpoint from "comlink/dist/esm/node-adapter.mjs";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { NibbleError } from "./api";
import type { LoadOptions } from "./api";
import { fetchBytes } from "./browser";
import type { Thread, ThreadEvents } from "./platform";
import type { WorkerMessage } from "./wire";

/** Bytes of a file, or of an address with http: or https:. */
export async function readBytes(at: string | URL, options: LoadOptions): Promise<Uint8Array> {
  const url = at instanceof URL ? at : /^(https?|file|data):/.test(at) ? new URL(at) : pathToFileURL(at);
  if (url.protocol !== "file:") return fetchBytes(url, options);
  try {
    return await readFile(url);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new NibbleError("bad-file", String(at), `the engine's file cannot be read: ${reason}`);
  }
}

/** Fulfilled once the script runs. */
export function startThread(url: URL, { onProgress, onLost }: ThreadEvents): Promise<Thread> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(url, { name: "nibble" });
    let running = false;
    const lost = (reason: string) => {
      if (running) return onLost(reason);
      reject(new NibbleError("internal", "", `the engine's worker could not be started: ${reason}`));
    };
    worker.on("message", (message: WorkerMessage) => {
      if ("progress" in message) return onProgress(message.progress);
      if (!("ready" in message)) return;
      running = true;
      resolve({
        endpoint: nodeEndpoint(worker),
        end: () => void worker.terminate(),
        hold: (on) => (on ? worker.ref() : worker.unref()),
      });
    });
    worker.on("error", (error) => lost(error.message));
    worker.on("messageerror", (error) => lost(error.message));
    worker.on("exit", (code) => lost(`it ended with code ${code}`));
  });
}
