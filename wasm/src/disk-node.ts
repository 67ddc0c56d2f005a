// Files on the disk of Node.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { NibbleError } from "./api";
import { isArray } from "./array-file";
import type { ReadNow } from "./host";
import type { DiskFile } from "./wire";

/** What is at a file: URL. An array of more than `held` bytes stays where it is. */
export async function fileAt(url: URL, name: string, held: number): Promise<Blob | DiskFile> {
  let file: FileHandle | undefined;
  try {
    const path = fileURLToPath(url);
    file = await open(path);
    const { size, mtimeMs } = await file.stat();
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0);
    if (size > held && isArray(buffer)) return { path, size, modified: mtimeMs };
    return new Blob([await file.readFile()]);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new NibbleError("bad-file", name, `the file cannot be read: ${reason}`);
  } finally {
    await file?.close();
  }
}

export const readNow: ReadNow = (file) =>
  file instanceof Blob ? undefined : (offset, into) => readPart(file, offset, into);

/** Opens the file for each part: hours may lie between two, and it may have been changed. */
function readPart({ path, size, modified }: DiskFile, offset: number, into: Uint8Array): void {
  const handle = openSync(path, "r");
  try {
    const now = fstatSync(handle);
    if (now.size !== size || now.mtimeMs !== modified) throw new Error("it has been changed since it was opened");
    for (let done = 0; done < into.length;) {
      const more = readSync(handle, into, done, into.length - done, offset + done);
      if (more === 0) throw new Error("it ends too early");
      done += more;
    }
  } finally {
    closeSync(handle);
  }
}
