// What the user's files are, by their names alone, and the files of dropped folders.

/** Data: IDX (gzipped or not), npz, npy, CSV, images and archives of them. Models and recipes have other endings. */
const DATA = /(\.(gz|idx\w*|npz|npy|csv|tsv|zip|png|jpe?g|bmp)|ubyte)$/i;

export const isData = (file: File): boolean => DATA.test(file.name);

/** With the folders that it was picked or dropped with: they may be its label. */
export const pathOf = (file: File): string => file.webkitRelativePath || file.name;

/** Files that are dropped, those in dropped folders too. Must be called while the event is handled. */
export async function filesOf(transfer: DataTransfer | null): Promise<File[]> {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.() ?? null);
  const plain = [...(transfer?.files ?? [])];
  if (!entries.some((entry) => entry?.isDirectory)) return plain;
  return (await Promise.all(entries.map((entry) => (entry ? below(entry) : [])))).flat();
}

async function below(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    // What a picked folder's files have, dropped ones lack.
    return [Object.defineProperty(file, "webkitRelativePath", { value: entry.fullPath.replace(/^\//, "") })];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: File[] = [];
  // A reader gives a folder in parts, the last of them empty.
  for (;;) {
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return found;
    for (const inner of part) found.push(...(await below(inner)));
  }
}
