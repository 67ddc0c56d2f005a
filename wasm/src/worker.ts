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
      ? (offset, into) => into.set(new Uint8Array(reader.readAsArrayBuffer(file.slice(offset, offset + into.length))))
      : undefined,
);
