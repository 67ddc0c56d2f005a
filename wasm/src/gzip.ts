// Undoes gzip with what the browser has for that.
import { NibbleError } from "./api";

/** The bytes of `packed` without gzip. `where` and `what` (what cannot be unpacked) are for the message of old browsers. */
export function gunzipped(packed: Blob, where: string, what: string): ReadableStream<Uint8Array<ArrayBuffer>> {
  // Not in every browser that runs the engine.
  if (typeof DecompressionStream === "undefined") {
    const needed = "DecompressionStream (Chrome 80, Firefox 113, Safari 16.4)";
    throw new NibbleError("unsupported", where, `this browser cannot unpack ${what}: it has no ${needed}`);
  }
  return packed.stream().pipeThrough(new DecompressionStream("gzip")) as ReadableStream<Uint8Array<ArrayBuffer>>;
}
