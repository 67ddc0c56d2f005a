// Threads and bytes in a browser.
import { NibbleError } from "./api";
import type { LoadOptions } from "./api";
import type { Thread, ThreadEvents } from "./platform";
import type { WorkerMessage } from "./wire";

export async function fetchBytes(url: string | URL, options: LoadOptions): Promise<Uint8Array> {
  const hint =
    'Say where engine.wasm is with load({ wasmUrl }), or import "nibble-nn/inline", which needs no second file.';
  let response: Response;
  try {
    response = await fetch(url, { signal: options.signal ?? null, credentials: "same-origin" });
    if (response.ok) return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    if (options.signal?.aborted) throw new NibbleError("cancelled", "", "stopped by the caller");
    const reason = error instanceof Error ? error.message : String(error);
    throw new NibbleError("bad-file", String(url), `the engine's file cannot be fetched (${reason}). ${hint}`);
  }
  throw new NibbleError(
    "bad-file",
    String(url),
    `the server answered ${response.status} for the engine's file. ${hint}`,
  );
}

/** Fulfilled once the script runs. */
export function startWorker(url: string | URL, { onProgress, onLost }: ThreadEvents): Promise<Thread> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(url, { name: "nibble" });
    let running = false;
    worker.addEventListener("message", ({ data }: MessageEvent<WorkerMessage>) => {
      if ("progress" in data) return onProgress(data.progress);
      if (!("ready" in data)) return;
      running = true;
      resolve({ endpoint: worker, end: () => worker.terminate(), hold: () => {} });
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      if (running) return onLost(event.message || "unknown error");
      worker.terminate();
      reject(new NibbleError("internal", String(url), "the engine's worker could not be started from this address"));
    });
    worker.addEventListener("messageerror", () => onLost("a message could not be read"));
  });
}
