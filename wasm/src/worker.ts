// The script of a browser's worker.
import { serve } from "./serve";

/** Workers alone have it: they may wait for a file. */
declare class FileReaderSync {
  readAsArrayBuffer(blob: Blob): ArrayBuffer;
}
const reader = new FileReaderSync();

serve(
  undefined,
  (message) => postMessage(message),
  (file) =>
    file instanceof Blob
      ? (offset, into) => {
          const part = new Uint8Array(reader.readAsArrayBuffer(file.slice(offset, offset + into.length)));
          if (part.length !== into.length) throw new Error("it ends too early");
          into.set(part);
        }
      : undefined,
);
