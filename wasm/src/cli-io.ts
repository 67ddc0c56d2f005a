// What the commands share: files in and out, the engine, models and data by their paths.
import {
  closeSync,
  fstatSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, isAbsolute, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { kHeld } from "./array-file";
import { nearest, specOf, UsageError } from "./flags";
import type { Arguments } from "./flags";
import { load, NibbleError } from "./node";
import type { Data, Format, Model, NamedBytes, Progress } from "./node";
import { ProgressBar } from "./tables";

export const kOk = 0;
export const kFailed = 1;
export const kUsage = 2;
export const kInterrupted = 130;

/** A model may ask for this many external files before the search beside it ends. */
const kMostExternalFiles = 64;

/** The machine failed: a file that is not there, a full disk. `where` is the file. */
export class FileError extends Error {
  constructor(
    readonly where: string,
    readonly detail: string,
  ) {
    super(`${where}: ${detail}`);
  }
}

export function formatOf(output: string): Format | undefined {
  if (output === "-") return undefined;
  const extension = extname(output).toLowerCase();
  if (extension === ".onnx") return "onnx";
  if (extension === ".safetensors") return "safetensors";
  if (extension === ".nib") return "nib";
  throw new UsageError(`-o ${output}: expected a name that ends in .onnx, .safetensors or .nib`);
}

let loaded: ReturnType<typeof load> | undefined;
export const engine = () => (loaded ??= load({ worker: false }));

/** Opens a model with the external data that is named, and with what it asks for and lies beside it: the paths of those. */
export async function openModel(
  path: string,
  args: Arguments,
  bar: ProgressBar | undefined,
): Promise<{ model: Model; beside: string[] }> {
  const file = await readInput(path);
  const external: Record<string, Uint8Array> = {};
  for (const name of (args.values.get("external") ?? []) as string[]) external[basename(name)] = await readInput(name);
  const name = path === "-" ? "stdin" : basename(path);
  const onProgress = bar && (({ phase, item, fraction }: Progress) => bar.show(phase, item, fraction));
  const beside: string[] = [];
  for (;;) {
    try {
      return { model: await (await engine()).open(file, { name, external, onProgress }), beside };
    } catch (error) {
      if (!(error instanceof NibbleError) || error.code !== "bad-file" || path === "-") throw error;
      const wanted = /external data file "([^"]+)"/.exec(error.detail)?.[1];
      const known = Object.keys(external);
      if (!wanted || known.length >= kMostExternalFiles || known.includes(basename(wanted))) throw error;
      const found = fileBeside(path, wanted);
      if (!found) throw error;
      beside.push(found);
      external[basename(wanted)] = await readInput(found);
    }
  }
}

/** The file of that name in the model's folder, or undefined. A model must not reach files outside of its folder. */
function fileBeside(model: string, name: string): string | undefined {
  try {
    const folder = realpathSync(dirname(model));
    const file = realpathSync(resolve(folder, name));
    const way = relative(folder, file);
    if (way.startsWith("..") || isAbsolute(way)) return undefined;
    return statSync(file).isFile() ? file : undefined;
  } catch {
    return undefined;
  }
}

export async function readInput(path: string): Promise<Uint8Array> {
  if (path !== "-") {
    try {
      return await readFile(path);
    } catch (error) {
      throw new FileError(path, reasonOf(error));
    }
  }
  if (process.stdin.isTTY)
    throw new UsageError("nothing comes from stdin: pipe a file into it, or name a file instead of -");
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function reasonOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  const reasons: Record<string, string> = {
    ENOENT: "there is no such file or folder",
    EACCES: "permission denied",
    EPERM: "permission denied",
    EISDIR: "this is a folder, a file is needed",
    ENOTDIR: "a part of this path is not a folder",
    ENOSPC: "the disk is full",
    EROFS: "the file system is read-only",
    ERR_FS_FILE_TOO_LARGE: "the file is larger than Node can read at once (2 GB)",
  };
  return (code && reasons[code]) || (error instanceof Error ? error.message : String(error));
}

export function sameFile(a: string, b: string): boolean {
  if (a === "-" || b === "-") return false;
  if (resolve(a) === resolve(b)) return true;
  try {
    const [one, other] = [statSync(a), statSync(b)];
    return one.dev === other.dev && one.ino === other.ino;
  } catch {
    return false;
  }
}

/** Refuses to write onto what is read. */
export function refuseToOverwrite(targets: (string | undefined)[], inputs: (string | undefined)[]): void {
  for (const target of targets) {
    if (target && inputs.some((input) => input && sameFile(target, input))) {
      throw new UsageError(`${target} is also an input and would be overwritten: choose another name`);
    }
  }
}

/** Writes under another name and renames, so that the file is there whole or not at all. */
export function writeWhole(path: string, content: Uint8Array): void {
  let target = path;
  let regular = true;
  try {
    target = realpathSync(path); // a link stays a link
    regular = statSync(target).isFile();
  } catch {
    // a new file
  }
  if (!regular) return writeTo(target, path, content); // a device or a pipe cannot be renamed onto
  const part = join(dirname(target), `.${basename(target)}.${process.pid}.part`);
  const stop = () => {
    rmSync(part, { force: true });
    process.exit(kInterrupted);
  };
  process.once("SIGINT", stop);
  try {
    writeTo(part, path, content);
    renameSync(part, target);
  } catch (error) {
    rmSync(part, { force: true });
    throw error instanceof FileError ? error : new FileError(path, reasonOf(error));
  } finally {
    process.off("SIGINT", stop);
  }
}

function writeTo(path: string, shown: string, content: Uint8Array): void {
  try {
    const file = openSync(path, "w");
    try {
      writeAll(file, content, shown);
      if (fstatSync(file).isFile()) fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw error instanceof FileError ? error : new FileError(shown, reasonOf(error));
  }
}

/** Synchronous, for stdout too: the program must not end before a pipe has taken everything. */
export function writeAll(file: number, content: Uint8Array, shown: string): void {
  for (let at = 0; at < content.length;) {
    try {
      at += writeSync(file, content, at);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "EAGAIN") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
      else if (code === "EPIPE") throw new FileError(shown, "the reader went away before everything was written");
      else throw new FileError(shown, reasonOf(error));
    }
  }
}

export function print(text: string): number {
  process.stdout.write(text);
  return kOk;
}

export function progressBar(): ProgressBar | undefined {
  return process.stderr.isTTY ? new ProgressBar(process.stderr) : undefined;
}

/** What a bar shows of a call's progress. */
export const onProgressOf = (bar: ProgressBar | undefined) =>
  bar && (({ phase, item, fraction }: Progress) => bar.show(phase, item, fraction));

// --- Data ------------------------------------------------------------------------------------------------------------

/** Folders in folders in a data folder, and files in all of it, before something is certainly wrong. */
const kMostDepth = 8;
const kMostFiles = 200_000;

/** Opens what --data names: data made here, one path, or several with commas. Gives the paths of all files, too. */
export async function openData(text: string, bar: ProgressBar | undefined): Promise<{ data: Data; paths: string[] }> {
  const whole = await kindOf(text);
  const spec = whole ? undefined : specOf(text);
  const onProgress = onProgressOf(bar);
  if (spec) return { data: await (await engine()).data(spec, { onProgress }), paths: [] };
  if (text === "-") throw new UsageError("--data: data do not come from stdin; name a file or a folder");
  const paths = whole ? [text] : text.split(",");
  const files: DataPath[] = [];
  for (const path of paths) {
    const kind = whole ?? (await kindOf(path));
    if (!kind) throw new FileError(path, `there is no such file or folder${hintFor(text)}`);
    if (kind === "file") files.push({ path, name: basename(path), bytes: await dataAt(path) });
    else await readFolder(path, paths.length > 1 ? basename(resolve(path)) : "", files);
  }
  if (files.length === 0) throw new FileError(text, "the folder has no files");
  return { data: await (await engine()).data(files, { onProgress }), paths: files.map(({ path }) => path) };
}

interface DataPath extends NamedBytes {
  path: string;
}

/** Large files are left where they are, for the engine to read what it needs of them. */
async function dataAt(path: string): Promise<Uint8Array | URL> {
  const size = await stat(path)
    .then(({ size: bytes }) => bytes)
    .catch(() => 0); // which readInput tells better
  return size > kHeld ? pathToFileURL(path) : readInput(path);
}

function hintFor(text: string): string {
  const near = nearest(text.replace(/:.*/s, ""), ["digits", "linear"]);
  return near ? `; did you mean ${near}:seed=1,n=2000?` : "";
}

async function kindOf(path: string): Promise<"file" | "folder" | undefined> {
  try {
    return (await stat(path)).isDirectory() ? "folder" : "file";
  } catch {
    return undefined;
  }
}

/** Every file at or below a folder, in the order of their names, without hidden ones. */
async function readFolder(path: string, prefix: string, files: DataPath[], depth = 0): Promise<void> {
  if (depth > kMostDepth) throw new FileError(path, `folders are nested deeper than ${kMostDepth}`);
  let names: string[];
  try {
    names = await readdir(path);
  } catch (error) {
    throw new FileError(path, reasonOf(error));
  }
  for (const name of names.sort()) {
    if (name.startsWith(".") || name === "__MACOSX") continue;
    const [at, shown] = [join(path, name), prefix ? `${prefix}/${name}` : name];
    if ((await kindOf(at)) === "folder") {
      await readFolder(at, shown, files, depth + 1);
    } else {
      if (files.length >= kMostFiles) throw new FileError(path, `the folder has more than ${kMostFiles} files`);
      files.push({ path: at, name: shown, bytes: await dataAt(at) });
    }
  }
}
