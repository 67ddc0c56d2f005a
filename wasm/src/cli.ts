// The command `nibble`: everything the package does, on Node, with the same words as the page and the recipe.
import { basename } from "node:path";
import {
  engine,
  FileError,
  formatOf,
  kFailed,
  kOk,
  kUsage,
  onProgressOf,
  openData,
  openModel,
  print,
  progressBar,
  readInput,
  refuseToOverwrite,
  sameFile,
  writeAll,
  writeWhole,
} from "./cli-io";
import { compare, evaluate, optionsOf, train, withFlags } from "./cli-run";
import { decode as decodeNib, inspectNib } from "./decode";
import {
  inFlags,
  kCommandFlags,
  kDataFlag,
  kDecodeFlags,
  kEncodeFlags,
  kFileFlags,
  kJsonFlag,
  kOutputFlags,
  kPreparationFlags,
  kRecipeFlags,
  kSplitFlags,
  kStepFlags,
  kTrainFlags,
  kTrainingFlags,
  kTrainOutputFlag,
  nearest,
  parse,
  recipeOf,
  text,
  UsageError,
} from "./flags";
import type { Arguments, Flag } from "./flags";
import { NibbleError } from "./node";
import type { DataOptions, Recipe, Step } from "./node";
import { bytes as byteText, describeBytes, describeModel, describeReport } from "./tables";

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
  nibble encode MODEL -o OUT.nib [options]
  nibble decode FILE.nib -o OUT
  nibble bytes MODEL [--json]
  nibble evaluate MODEL --data DATA [--json]
  nibble compare BEFORE AFTER --data DATA [--json]
  nibble train (MODEL | ARCHITECTURE) --data DATA -o OUT
  nibble help [inspect | compress | encode | decode | bytes | evaluate | compare | train]
  nibble --version

MODEL is an ONNX, safetensors or .nib file, or - for stdin. DATA is a file (.npz, .npy, .csv, .zip, IDX, gzipped or not), a
folder of such files or of one folder of images for each class, several paths with commas between them (images,labels),
or data made here: digits:seed=1,n=2000 or linear:seed=1,n=500.

Examples
  nibble inspect model.onnx
  nibble compress model.onnx --bits 8 -o small.onnx
  nibble compress model.onnx --sparsity 0.8 --scope global --bits 4 --range mse -o small.nib
  nibble decode small.nib -o small.onnx
  nibble train lenet-5 --data digits:seed=1,n=2000 -o lenet.onnx
  nibble compare model.onnx small.onnx --data digits:seed=1,n=2000

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
Prunes and quantizes the weights of a model, says what that costs, and writes the smaller file. A .nib file is entropy
coded: what pruning and quantizing save, it really saves.

Files
${lines([...kOutputFlags, ...kFileFlags, kJsonFlag])}

What to do
${lines(kRecipeFlags)}

Pruning (happens first, if one of these is given)
${lines(kStepFlags.filter(({ step }) => step === "prune"))}

Quantization (happens second, if one of these is given)
${lines(kStepFlags.filter(({ step }) => step === "quantize"))}

Weight sharing (in place of quantization)
${lines(kStepFlags.filter(({ step }) => step === "cluster"))}

Fine-tuning (happens third, if one of these is given; pruned weights stay zero, quantized ones on their grid)
${lines([kDataFlag, ...kStepFlags.filter(({ step }) => step === "train"), ...kPreparationFlags])}

Entropy coding of a .nib file (happens last)
${lines(kEncodeFlags)}

Examples
  nibble compress model.onnx --bits 8 -o small.onnx
  nibble compress model.onnx --bits 4 --granularity group --group-size 64 --range mse -o small.onnx
  nibble compress model.onnx --pattern 2:4 --bits 8 --exclude 'head.*' -o small.onnx --report report.json
  nibble compress model.onnx --recipe recipe.json -o - | wc -c
  nibble compress lenet.onnx --bits 2 --train-epochs 1 --data digits:seed=1,n=300 -o small.onnx
  nibble compress model.onnx --sparsity 0.9 --cluster-bits 5 --coder huffman -o small.nib
`,
  encode: `nibble encode MODEL -o OUT.nib [options]
Writes a model as an entropy-coded .nib file. Without --lambda every value stays as it is, bit for bit; with one, levels are
chosen for least loss + lambda * bits, which makes the file many times smaller.

Files
${lines([...kOutputFlags, ...kFileFlags, kJsonFlag])}

How to code
${lines([...kEncodeFlags, ...kRecipeFlags.filter(({ name }) => name !== "recipe"), kDataFlag, ...kPreparationFlags])}

Examples
  nibble encode model.onnx -o model.nib
  nibble encode model.onnx --lambda 0.001 -o small.nib
  nibble encode lenet.onnx --lambda 1e-8 --importance hessian --data digits:seed=1,n=300 -o small.nib
`,
  decode: `nibble decode FILE.nib -o OUT [--form FORM]
Turns a .nib file back into the model file that it holds.

${lines(kDecodeFlags)}

Examples
  nibble decode small.nib -o small.onnx
  nibble decode small.nib -o small.onnx --form quantized
`,
  bytes: `nibble bytes MODEL [--json]
Says what every weight would take under every way of storing it. Weights that are neither quantized nor clustered have no
codes to count; compress first and give the .nib file.

${lines([...kFileFlags, kJsonFlag])}

Examples
  nibble bytes small.nib
  nibble bytes small.nib --json | jq '.weights[] | [.name, .cabac]'
`,
  evaluate: `nibble evaluate MODEL --data DATA [options]
Runs a model over data: accuracy, loss, speed, and which classes it takes for which.

${lines([kDataFlag, ...kSplitFlags, ...kFileFlags, kJsonFlag])}

How a stored sample becomes the model's input (what is not given is found out)
${lines(kPreparationFlags)}

Examples
  nibble evaluate lenet.onnx --data digits:seed=1,n=300
  nibble evaluate lenet.onnx --data digits:seed=1,n=300 --split all --limit 100 --json
  nibble evaluate lenet.onnx --data digits:seed=1,n=300 --scale 0.00392157 --mean 0.5 --std 0.5
`,
  compare: `nibble compare BEFORE AFTER --data DATA [options]
Runs two models over the same data: accuracy of both, samples that change their class, and where on the way through the
network the numbers part.

${lines([kDataFlag, ...kSplitFlags, ...kFileFlags, kJsonFlag])}

How a stored sample becomes the models' input (what is not given is found out)
${lines(kPreparationFlags)}

Examples
  nibble compare lenet.onnx small.onnx --data digits:seed=1,n=300
  nibble compare lenet.onnx small.onnx --data digits:seed=1,n=300 --json | jq .agreement
`,
  train: `nibble train (MODEL | ARCHITECTURE) --data DATA -o OUT [options]
Trains a model, or a new network, and writes the weights with the lowest validation loss. Ctrl-C stops it and still writes
the best weights so far. Architectures: linear, simplenet, lenet-300-100, lenet-5, depthwise, resnet-8, lstm, transformer.

Files
${lines([kDataFlag, kTrainOutputFlag, ...kTrainingFlags.filter(({ name }) => /resume|save/.test(name)), ...kFileFlags, kJsonFlag])}

How to train
${lines([...kTrainFlags, ...kTrainingFlags.filter(({ name }) => !/resume|save/.test(name))])}

How a stored sample becomes the model's input (what is not given is found out)
${lines(kPreparationFlags)}

Examples
  nibble train lenet-5 --data digits:seed=1,n=300 --epochs 2 -o lenet.onnx
  nibble train lenet.onnx --data digits:seed=2,n=300 --epochs 1 --optimizer sgd --learning-rate 0.01 -o more.onnx
  nibble train simplenet --data digits:seed=1,n=300 --epochs 2 --save state.bin -o simple.onnx
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
  const commands = Object.keys(kCommandFlags);
  const unknown = (word: string, what: string) => {
    const near = nearest(word, [...commands, "help"]);
    return new UsageError(
      `there is no ${what} "${word}"${near ? `; did you mean ${near}?` : `: try ${commands.join(", ")} or help`}`,
    );
  };
  if (command === "help") {
    const topic = rest[0] ?? "";
    if (!Object.hasOwn(kHelp, topic)) throw unknown(topic, "command");
    return print(kHelp[topic] ?? "");
  }
  const flags = Object.hasOwn(kCommandFlags, command) ? kCommandFlags[command] : undefined;
  if (!flags) throw unknown(command, "command");
  const args = parse(rest, flags);
  if (args.values.has("help")) return print(kHelp[command] ?? "");
  const [path, other, ...more] = args.positional;
  if (path === undefined) {
    const usage = { compare: "BEFORE AFTER", train: "(MODEL | ARCHITECTURE)" }[command] ?? "MODEL";
    throw new UsageError(`which model? nibble ${command} ${usage}`);
  }
  if (command === "compare") {
    if (other === undefined) throw new UsageError("compare it with which model? nibble compare BEFORE AFTER");
    if (more.length > 0) throw new UsageError(`expected two models, got also "${more[0]}"`);
    return compare([path, other], args);
  }
  if (other !== undefined) throw new UsageError(`expected one model, got also "${other}"`);
  if (command === "evaluate") return evaluate(path, args);
  if (command === "train") return train(path, args);
  if (command === "decode") return decode(path, args);
  if (command === "bytes") return bytes(path, args);
  return command === "inspect" ? inspect(path, args) : compress(path, args, command === "encode");
}

/** Of a file that decode() gives, and of one that the engine writes from it. */
async function decode(path: string, args: Arguments): Promise<number> {
  const output = text(args, "output");
  const form = text(args, "form") ?? "float";
  if (output === undefined) throw new UsageError("where to? Give -o OUT, for example -o model.onnx");
  if (form !== "float" && form !== "quantized") {
    throw new UsageError(`--form: expected float or quantized, got "${form}"`);
  }
  const format = formatOf(output);
  if (format === "nib") throw new UsageError(`-o ${output}: expected a name that ends in .onnx or .safetensors`);
  refuseToOverwrite([output], [path]);
  refuseTerminal(output);
  const file = await readInput(path);
  const { format: held } = await inspectNib(file);
  let decoded: Uint8Array;
  if (format === undefined || format === held) {
    decoded = await decodeNib(file, { form });
  } else {
    if (form === "quantized") throw new UsageError("--form quantized: only ONNX has a quantized form; write .onnx");
    decoded = await (await (await engine()).open(file, { name: basename(path) })).export(format);
  }
  if (output === "-") {
    writeAll(1, decoded, "stdout");
    return kOk;
  }
  writeWhole(output, decoded);
  return print(`wrote ${output} (${byteText(decoded.length)} from ${byteText(file.length)})\n`);
}

async function bytes(path: string, args: Arguments): Promise<number> {
  const bar = progressBar();
  try {
    const { model } = await openModel(path, args, bar);
    const report = await model.bytes({ onProgress: onProgressOf(bar) });
    bar?.clear();
    return print(args.values.has("json") ? `${JSON.stringify(report, null, 2)}\n` : describeBytes(report));
  } finally {
    bar?.clear();
  }
}

function refuseTerminal(output: string): void {
  if (output === "-" && process.stdout.isTTY) {
    throw new UsageError("the model would be written to the terminal: give -o FILE, or send stdout to a file");
  }
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

/** Both `nibble compress` and `nibble encode`, which is a recipe of one step and a file of one format. */
async function compress(path: string, args: Arguments, encodes: boolean): Promise<number> {
  const output = text(args, "output");
  const reportPath = text(args, "report");
  const recipePath = text(args, "recipe");
  const dataText = text(args, "data");
  const json = args.values.has("json");
  if (output === undefined) {
    throw new UsageError(`where to? Give -o OUT, for example -o small.${encodes ? "nib" : "onnx"}`);
  }
  const format = encodes && output === "-" ? "nib" : formatOf(output);
  if (encodes && format !== "nib") throw new UsageError(`-o ${output}: expected a name that ends in .nib`);
  if (path === "-" && recipePath === "-") throw new UsageError("the model and the recipe cannot both come from stdin");
  if (output === "-" && reportPath === "-") throw new UsageError("the model and the report cannot both go to stdout");
  if (output === "-" && json) {
    throw new UsageError("the model and the JSON cannot both go to stdout: give --report FILE instead of --json");
  }
  refuseTerminal(output);
  const targets = [output, reportPath];
  refuseToOverwrite(targets, [path, recipePath, ...((args.values.get("external") ?? []) as string[])]);
  if (reportPath && sameFile(reportPath, output)) throw new UsageError("the model and the report need two files");

  let recipe: Recipe | string;
  if (recipePath !== undefined) {
    const other = [...kStepFlags, ...kRecipeFlags].find(({ name }) => name !== "recipe" && args.values.has(name));
    if (other)
      throw new UsageError(`--recipe already says it all: leave out --${other.name}, or write it into the recipe`);
    recipe = new TextDecoder().decode(await readInput(recipePath));
  } else {
    recipe = recipeOf(args, encodes);
  }

  const command = encodes ? "encode" : "compress";
  const bar = progressBar();
  try {
    // A wrong recipe is found before a large file is read.
    const checked = await withFlagNames(recipe, recipePath, args, async () => (await engine()).check(recipe));
    const weighs = (step: Step) => step.kind === "encode" && (step.importance ?? "none") !== "none";
    const learns = checked.steps.findIndex((step) => step.kind === "train" || weighs(step));
    if (learns >= 0 && dataText === undefined) {
      const flag = weighs(checked.steps[learns]!) ? "--importance" : "fine-tuning";
      const what = recipePath === undefined ? flag : `steps[${learns}] of the recipe`;
      throw new UsageError(`${what} learns from data: give --data DATA, for example --data digits:seed=1,n=2000`);
    }
    if (learns < 0) {
      const idle = [kDataFlag, ...kPreparationFlags].find(({ name }) => args.values.has(name));
      if (idle) {
        const more = encodes ? "--lambda and --importance" : "--train-epochs N";
        throw new UsageError(`--${idle.name} is for steps that learn, and none does: add ${more}`);
      }
    }
    const { model, beside } = await openModel(path, args, bar);
    const { data, paths } = dataText === undefined ? { data: undefined, paths: [] } : await openData(dataText, bar);
    refuseToOverwrite(targets, [...beside, ...paths]);
    const onProgress = onProgressOf(bar);
    const run = async () => {
      // The seed is the recipe's; how the data are split, and looked at, is the same for every recipe.
      const values = new Map([...args.values].filter(([flag]) => flag !== "seed"));
      const dataOptions: DataOptions = data ? await optionsOf(model, data, { ...args, values }, bar) : {};
      return model.compress(checked, { onProgress, ...(format && { format }), ...(data && { data, dataOptions }) });
    };
    const result = await withFlagNames(recipe, recipePath, args, () => withFlags(command, args, run, ["bad-data"]));
    const file = await result.model.export(format, { onProgress });
    bar?.clear();

    const report = `${JSON.stringify(result.report, null, 2)}\n`;
    if (reportPath !== undefined && reportPath !== "-") writeWhole(reportPath, new TextEncoder().encode(report));
    if (output === "-") writeAll(1, file, "stdout");
    else writeWhole(output, file);

    if (reportPath === "-" || json) return print(report);
    const summary = describeReport(result.report);
    if (output !== "-") return print(`${summary}wrote ${output} (${byteText(file.length)})\n`);
    if (process.stderr.isTTY) process.stderr.write(summary);
    return kOk;
  } finally {
    bar?.clear();
  }
}

/** An error in a recipe that came from flags names the flag and is a matter of usage. */
async function withFlagNames<T>(
  recipe: Recipe | string,
  recipePath: string | undefined,
  args: Arguments,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof NibbleError) || error.code !== "bad-recipe") throw error;
    if (typeof recipe === "string") throw new FileError(recipePath === "-" ? "stdin" : `${recipePath}`, error.message);
    const told = inFlags(error.where, error.detail, args, kCommandFlags.compress ?? [], recipe);
    throw new UsageError(told ?? `${error.where || "the recipe"}: ${error.detail}`);
  }
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
