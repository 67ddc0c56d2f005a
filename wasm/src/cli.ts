// The command `nibble`: inspect and compress on Node, with the same words as the page and the recipe.
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
import { readFile } from "node:fs/promises";
import { basename, dirname, extname, isAbsolute, join, relative, resolve } from "node:path";
import {
  flagAt,
  kCommandFlags,
  kFileFlags,
  kJsonFlag,
  kOutputFlags,
  kRecipeFlags,
  kStepFlags,
  parse,
  recipeOf,
  UsageError,
} from "./flags";
import type { Arguments, Flag } from "./flags";
import { load, NibbleError } from "./node";
import type { Format, Model, Progress } from "./node";
import { bytes as byteText, describeModel, describeReport, ProgressBar } from "./tables";

const kOk = 0;
const kFailed = 1;
const kUsage = 2;
const kInterrupted = 130;

/** A model may ask for this many external files before the search beside it ends. */
const kMostExternalFiles = 64;

/** The machine failed: a file that is not there, a full disk. `where` is the file. */
class FileError extends Error {
  constructor(
    readonly where: string,
    readonly detail: string,
  ) {
    super(`${where}: ${detail}`);
  }
}

function lines(flags: Flag[]): string {
  const left = flags.map(
    ({ name, short, value }) => `${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`,
  );
  const width = Math.max(...left.map((text) => text.length));
  return flags.map(({ help }, index) => `  ${(left[index] ?? "").padEnd(width)}  ${help}`).join("\n");
}

const kHelp: Record<string, string> = {
  "": `nibble makes small neural networks smaller and says what that costs.

Usage
  nibble inspect MODEL [--json]
  nibble compress MODEL (--recipe FILE | options) -o OUT [--report FILE]
  nibble help [inspect | compress]
  nibble --version

MODEL is an ONNX or safetensors file, or - for stdin.

Examples
  nibble inspect model.onnx
  nibble compress model.onnx --bits 8 -o small.onnx
  nibble compress model.onnx --sparsity 0.8 --scope global --bits 4 --range mse -o small.onnx

Exit codes: 0 done, 1 the input or the machine failed, 2 wrong usage, 130 interrupted.
`,
  inspect: `nibble inspect MODEL [--json]
Lists the weights of a model: shapes, sizes and statistics.

${lines([...kFileFlags, kJsonFlag])}

Examples
  nibble inspect model.onnx
  nibble inspect model.safetensors --json | jq '.weights[] | .name'
  cat model.onnx | nibble inspect -
`,
  compress: `nibble compress MODEL (--recipe FILE | options) -o OUT [--report FILE]
Prunes and quantizes the weights of a model, says what that costs, and writes the smaller file.

Files
${lines([...kOutputFlags, ...kFileFlags, kJsonFlag])}

What to do
${lines(kRecipeFlags)}

Pruning (happens first, if one of these is given)
${lines(kStepFlags.filter(({ step }) => step === "prune"))}

Quantization (happens second, if one of these is given)
${lines(kStepFlags.filter(({ step }) => step === "quantize"))}

Examples
  nibble compress model.onnx --bits 8 -o small.onnx
  nibble compress model.onnx --bits 4 --granularity group --group-size 64 --range mse -o small.onnx
  nibble compress model.onnx --pattern 2:4 --bits 8 --exclude 'head.*' -o small.onnx --report report.json
  nibble compress model.onnx --recipe recipe.json -o - | wc -c
`,
};

async function main(words: string[]): Promise<number> {
  const [command, ...rest] = words;
  if (command === undefined) {
    process.stderr.write(kHelp[""] ?? "");
    return kUsage;
  }
  if (command === "--version" || command === "-v") return print(`nibble ${NIBBLE_VERSION}\n`);
  if (command === "--help" || command === "-h") return print(kHelp[""] ?? "");
  if (command === "help") {
    const topic = rest[0] ?? "";
    const text = Object.hasOwn(kHelp, topic) ? kHelp[topic] : undefined;
    if (text === undefined) throw new UsageError(`there is no command "${rest[0]}": try inspect or compress`);
    return print(text);
  }
  const flags = Object.hasOwn(kCommandFlags, command) ? kCommandFlags[command] : undefined;
  if (!flags) throw new UsageError(`there is no command "${command}": try inspect, compress or help`);
  const args = parse(rest, flags);
  if (args.values.has("help")) return print(kHelp[command] ?? "");
  const [path, ...more] = args.positional;
  if (path === undefined) throw new UsageError(`which model? nibble ${command} MODEL`);
  if (more.length > 0) throw new UsageError(`expected one model, got also "${more[0]}"`);
  return command === "inspect" ? inspect(path, args) : compress(path, args);
}

async function inspect(path: string, args: Arguments): Promise<number> {
  const bar = progressBar();
  try {
    const { model } = await openModel(path, args, bar);
    bar?.clear();
    return print(args.values.has("json") ? `${JSON.stringify(model.info, null, 2)}\n` : describeModel(model.info));
  } finally {
    bar?.clear();
  }
}

async function compress(path: string, args: Arguments): Promise<number> {
  const text = (name: string) => args.values.get(name)?.[0] as string | undefined;
  const output = text("output");
  const reportPath = text("report");
  const recipePath = text("recipe");
  if (output === undefined) throw new UsageError("where to? Give -o OUT, for example -o small.onnx");
  const format = formatOf(output);
  if (path === "-" && recipePath === "-") throw new UsageError("the model and the recipe cannot both come from stdin");
  if (output === "-" && reportPath === "-") throw new UsageError("the model and the report cannot both go to stdout");
  if (output === "-" && process.stdout.isTTY) {
    throw new UsageError("the model would be written to the terminal: give -o FILE, or send stdout to a file");
  }
  const refuseToOverwrite = (inputs: (string | undefined)[]) => {
    for (const target of [output, reportPath]) {
      if (target && inputs.some((input) => input && sameFile(target, input))) {
        throw new UsageError(`${target} is also an input and would be overwritten: choose another name`);
      }
    }
  };
  refuseToOverwrite([path, recipePath, ...((args.values.get("external") ?? []) as string[])]);
  if (reportPath && sameFile(reportPath, output)) throw new UsageError("the model and the report need two files");

  let recipe;
  if (recipePath !== undefined) {
    const other = [...kStepFlags, ...kRecipeFlags].find(({ name }) => name !== "recipe" && args.values.has(name));
    if (other)
      throw new UsageError(`--recipe already says it all: leave out --${other.name}, or write it into the recipe`);
    recipe = new TextDecoder().decode(await readInput(recipePath));
  } else {
    recipe = recipeOf(args);
  }

  const bar = progressBar();
  try {
    // A wrong recipe is found before a large file is read.
    const checked = await withFlagNames(recipePath, async () => (await engine()).check(recipe));
    const { model, beside } = await openModel(path, args, bar);
    refuseToOverwrite(beside);
    const onProgress = bar && (({ phase, item, fraction }: Progress) => bar.show(phase, item, fraction));
    const result = await withFlagNames(recipePath, () => model.compress(checked, { onProgress, format }));
    const file = await result.model.export(format, { onProgress });
    bar?.clear();

    const json = `${JSON.stringify(result.report, null, 2)}\n`;
    if (reportPath !== undefined && reportPath !== "-") writeWhole(reportPath, new TextEncoder().encode(json));
    if (output === "-") writeAll(1, file, "stdout");
    else writeWhole(output, file);

    if (reportPath === "-" || (args.values.has("json") && output !== "-")) return print(json);
    const summary = describeReport(result.report);
    if (output !== "-") return print(`${summary}wrote ${output} (${byteText(file.length)})\n`);
    if (process.stderr.isTTY) process.stderr.write(summary);
    return kOk;
  } finally {
    bar?.clear();
  }
}

/** An error in a recipe that came from flags names the flag and is a matter of usage. */
async function withFlagNames<T>(recipePath: string | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof NibbleError) || error.code !== "bad-recipe") throw error;
    if (recipePath !== undefined) throw new FileError(`${recipePath === "-" ? "stdin" : recipePath}`, error.message);
    throw new UsageError(`${flagAt(error.where) ?? (error.where || "the recipe")}: ${error.detail}`);
  }
}

function formatOf(output: string): Format | undefined {
  if (output === "-") return undefined;
  const extension = extname(output).toLowerCase();
  if (extension === ".onnx") return "onnx";
  if (extension === ".safetensors") return "safetensors";
  throw new UsageError(`-o ${output}: expected a name that ends in .onnx or .safetensors`);
}

let loaded: ReturnType<typeof load> | undefined;
const engine = () => (loaded ??= load({ worker: false }));

/** Opens a model with the external data that is named, and with what it asks for and lies beside it: the paths of those. */
async function openModel(
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

async function readInput(path: string): Promise<Uint8Array> {
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

function sameFile(a: string, b: string): boolean {
  if (a === "-" || b === "-") return false;
  if (resolve(a) === resolve(b)) return true;
  try {
    const [one, other] = [statSync(a), statSync(b)];
    return one.dev === other.dev && one.ino === other.ino;
  } catch {
    return false;
  }
}

/** Writes under another name and renames, so that the file is there whole or not at all. */
function writeWhole(path: string, content: Uint8Array): void {
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
function writeAll(file: number, content: Uint8Array, shown: string): void {
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

function print(text: string): number {
  process.stdout.write(text);
  return kOk;
}

function progressBar(): ProgressBar | undefined {
  return process.stderr.isTTY ? new ProgressBar(process.stderr) : undefined;
}

/** One sentence, or JSON for programs. */
function complain(error: unknown, json: boolean): number {
  const usage = error instanceof UsageError;
  const code = usage
    ? "usage"
    : error instanceof NibbleError
      ? error.code
      : error instanceof FileError
        ? "file"
        : "internal";
  const where = error instanceof NibbleError || error instanceof FileError ? error.where : "";
  const detail = error instanceof NibbleError || error instanceof FileError ? error.detail : (error as Error).message;
  if (json) process.stderr.write(`${JSON.stringify({ error: { code, where, message: detail } })}\n`);
  else process.stderr.write(`nibble: ${where ? `${where}: ` : ""}${detail}\n${usage ? "Try 'nibble help'.\n" : ""}`);
  return usage ? kUsage : kFailed;
}

// `nibble inspect model | head` closes the pipe early; that is not an error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? kOk : kFailed));

const words = process.argv.slice(2);
try {
  process.exitCode = await main(words);
} catch (error) {
  process.exitCode = complain(error, words.includes("--json"));
}
