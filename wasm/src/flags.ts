// The command's options. Those of a step are the recipe's fields under their own names, so a recipe file, the page and the
// command line say the same thing in the same words.
import type {
  ClusterStep,
  DataOptions,
  DataSpec,
  EncodeStep,
  LayerFilter,
  PruneStep,
  QuantizeStep,
  Recipe,
  Step,
  TrainChoice,
} from "./types";

/** Wrong use of the command: shown as one sentence, exit code 2. */
export class UsageError extends Error {}

type Kind = "text" | "number" | "numbers" | "on" | "off" | "list";

export interface Flag {
  name: string;
  short?: string;
  kind: Kind;
  /** Shown in the help for the value. */
  value?: string;
  help: string;
}

/** A flag that sets a field of a step. */
export interface StepFlag extends Flag {
  step: Step["kind"];
  field: string;
}

/** The fields of TrainChoice. */
export const kTrainFlags: StepFlag[] = (
  [
    ["epochs", "number", "N", "passes over the training split (5)"],
    ["batch", "number", "N", "samples per step (64)"],
    ["loss", "text", "WHAT", "cross_entropy or mean_squared (by the data)"],
    ["optimizer", "text", "WHAT", "sgd, adam or adamw (adam)"],
    ["learning_rate", "number", "RATE", "size of a step (0.001, with sgd 0.05)"],
    ["momentum", "number", "SHARE", "with --optimizer sgd (0.9)"],
    ["weight_decay", "number", "RATE", "of weights, not of biases and normalisation (0)"],
    ["schedule", "text", "HOW", "how the rate changes: constant, cosine or step (cosine)"],
    ["warmup", "number", "EPOCHS", "epochs in which the rate rises from 0 (0)"],
    ["step_epochs", "number", "N", "with --schedule step: epochs between two changes (2)"],
    ["step_factor", "number", "F", "with --schedule step: what the rate is multiplied by (0.1)"],
    ["clip_norm", "number", "NORM", "scale larger gradients down to this norm; 0 never does (0)"],
    ["keep_masks", "off", "", "let pruned weights become other than zero"],
    ["keep_grids", "off", "", "let quantized weights leave their grid"],
    ["patience", "number", "EPOCHS", "stop after so many epochs without a better validation loss; 0 never does (0)"],
  ] as const
).map(([field, kind, value, help]) => ({
  step: "train",
  field,
  name: `${kind === "off" ? "no-" : ""}${field.replace("_", "-")}`,
  kind,
  help,
  ...(value && { value }),
}));

/** What of it a compression offers, which fine-tunes: enough to say how long and how fast. A recipe says the rest. */
const kFineTuning = ["epochs", "batch", "optimizer", "learning_rate", "weight_decay", "schedule", "clip_norm"];

/** The fields of EncodeStep. */
export const kEncodeFlags: StepFlag[] = [
  {
    step: "encode",
    field: "coder",
    name: "coder",
    kind: "text",
    value: "CODER",
    help: "auto, huffman, rans or cabac (auto)",
  },
  {
    step: "encode",
    field: "lambda",
    name: "lambda",
    kind: "number",
    value: "LOSS",
    help: "loss that a bit is worth: choose levels that are cheap to code; 0 changes none (0)",
  },
  {
    step: "encode",
    field: "importance",
    name: "importance",
    kind: "text",
    value: "WHAT",
    help: "with --lambda, what errors are weighed with: none, diagonal or hessian; the last two need --data (none)",
  },
  {
    step: "encode",
    field: "quantized_form",
    name: "no-quantized-form",
    kind: "off",
    help: "leave out what decoding to integer weights needs",
  },
];

export const kStepFlags: StepFlag[] = [
  {
    step: "prune",
    field: "sparsity",
    name: "sparsity",
    kind: "number",
    value: "SHARE",
    help: "share of the weights to set to zero, 0 to 1",
  },
  {
    step: "prune",
    field: "threshold",
    name: "threshold",
    kind: "number",
    value: "T",
    help: "set every weight of a smaller magnitude to zero",
  },
  {
    step: "prune",
    field: "scope",
    name: "scope",
    kind: "text",
    value: "layer|global",
    help: "the same share of each weight, or of all together (layer)",
  },
  {
    step: "prune",
    field: "criterion",
    name: "criterion",
    kind: "text",
    value: "magnitude",
    help: "what makes a weight unimportant (magnitude)",
  },
  {
    step: "prune",
    field: "pattern",
    name: "pattern",
    kind: "text",
    value: "PATTERN",
    help: "unstructured, channels, or N:M such as 2:4 (unstructured)",
  },
  { step: "quantize", field: "bits", name: "bits", kind: "number", value: "N", help: "bits per weight, 1 to 8, or 16" },
  { step: "quantize", field: "symmetric", name: "symmetric", kind: "on", help: "zero point 0 (this is the default)" },
  {
    step: "quantize",
    field: "symmetric",
    name: "asymmetric",
    kind: "off",
    help: "a zero point per scale; also --no-symmetric",
  },
  {
    step: "quantize",
    field: "granularity",
    name: "granularity",
    kind: "text",
    value: "WHAT",
    help: "what shares a scale: global, tensor, channel, group (channel)",
  },
  {
    step: "quantize",
    field: "group_size",
    name: "group-size",
    kind: "number",
    value: "N",
    help: "elements per group with --granularity group (32)",
  },
  {
    step: "quantize",
    field: "range",
    name: "range",
    kind: "text",
    value: "HOW",
    help: "minmax, percentile, sigma or mse (minmax)",
  },
  {
    step: "quantize",
    field: "percentile",
    name: "percentile",
    kind: "number",
    value: "P",
    help: "percent of the weights inside, with --range percentile (99.9)",
  },
  {
    step: "quantize",
    field: "sigmas",
    name: "sigmas",
    kind: "number",
    value: "K",
    help: "standard deviations inside, with --range sigma (3)",
  },
  {
    step: "quantize",
    field: "rounding",
    name: "rounding",
    kind: "text",
    value: "HOW",
    help: "nearest or stochastic (nearest)",
  },
  {
    step: "cluster",
    field: "bits",
    name: "cluster-bits",
    kind: "number",
    value: "N",
    help: "let weights share 2^N values, 1 to 8 bits",
  },
  {
    step: "cluster",
    field: "initial",
    name: "cluster-initial",
    kind: "text",
    value: "HOW",
    help: "where k-means starts: linear, density or random (linear)",
  },
  ...kTrainFlags
    .filter(({ field }) => kFineTuning.includes(field))
    .map((flag): StepFlag => ({ ...flag, name: `train-${flag.name}` })),
  ...kEncodeFlags,
];

export const kDataFlag: Flag = {
  name: "data",
  kind: "text",
  value: "DATA",
  help: "files, a folder, or data made here such as digits:seed=1,n=2000",
};

const kShareFlags: Flag[] = [
  { name: "validation", kind: "number", value: "SHARE", help: "share of the data kept for validation (0.1)" },
  {
    name: "test",
    kind: "number",
    value: "SHARE",
    help: "share kept for test, where the data have no test part of their own (0.1)",
  },
];

export const kSplitFlags: Flag[] = [
  {
    name: "split",
    kind: "text",
    value: "WHICH",
    help: "calibration, training, validation, test or all (test)",
  },
  { name: "limit", kind: "number", value: "N", help: "at most so many samples" },
  { name: "seed", kind: "number", value: "N", help: "seed of the splits (0)" },
  ...kShareFlags,
];

/** How stored samples become the model's input; what is not given is guessed. */
export const kPreparationFlags: Flag[] = [
  { name: "scale", kind: "number", value: "X", help: "input = (stored * scale - mean) / std" },
  { name: "mean", kind: "numbers", value: "X,..", help: "one number, or one for each channel" },
  { name: "std", kind: "numbers", value: "X,..", help: "one number, or one for each channel" },
  { name: "layout", kind: "text", value: "HOW", help: "what the model's input is: features, hw, chw or hwc" },
];

export const kTrainingFlags: Flag[] = [
  { name: "seed", kind: "number", value: "N", help: "seed of new weights, of the splits and of the order (0)" },
  ...kShareFlags,
  { name: "resume", kind: "text", value: "FILE", help: "go on where --save left off, with the same model and options" },
  { name: "save", kind: "text", value: "FILE", help: "write after every epoch what --resume needs" },
];

export const kRecipeFlags: Flag[] = [
  {
    name: "recipe",
    kind: "text",
    value: "FILE",
    help: "a recipe as JSON instead of the options below; - reads it from stdin",
  },
  { name: "include", kind: "list", value: "GLOB", help: "only weights whose name matches; repeatable" },
  { name: "exclude", kind: "list", value: "GLOB", help: "no weights whose name matches; repeatable" },
  { name: "seed", kind: "number", value: "N", help: "seed of stochastic rounding (0)" },
];

export const kFileFlags: Flag[] = [
  {
    name: "external",
    kind: "list",
    value: "FILE",
    help: "external data of the model; files beside the model are found by themselves",
  },
];

export const kOutputFlags: Flag[] = [
  {
    name: "output",
    short: "o",
    kind: "text",
    value: "OUT",
    help: "the file to write, .onnx, .safetensors or .nib; - writes to stdout",
  },
  { name: "report", kind: "text", value: "FILE", help: "write the full report as JSON; - writes to stdout" },
];

export const kTrainOutputFlag: Flag = {
  name: "output",
  short: "o",
  kind: "text",
  value: "OUT",
  help: "the file to write, .onnx, .safetensors or .nib; - writes to stdout",
};

export const kDecodeFlags: Flag[] = [
  {
    name: "output",
    short: "o",
    kind: "text",
    value: "OUT",
    help: "the file to write, .onnx or .safetensors; - writes to stdout",
  },
  {
    name: "form",
    kind: "text",
    value: "FORM",
    help: "float: values in full; quantized: integers behind DequantizeLinear, where the file has them (float)",
  },
];

export const kJsonFlag: Flag = { name: "json", kind: "on", help: "print JSON instead of a table, errors too" };
const kHelpFlag: Flag = { name: "help", short: "h", kind: "on", help: "print this help" };

export const kCommandFlags: Record<string, Flag[]> = {
  inspect: [...kFileFlags, kJsonFlag, kHelpFlag],
  compress: [
    ...kOutputFlags,
    ...kFileFlags,
    kJsonFlag,
    ...kRecipeFlags,
    ...kStepFlags,
    kDataFlag,
    ...kPreparationFlags,
    kHelpFlag,
  ],
  encode: [
    ...kOutputFlags,
    ...kFileFlags,
    kJsonFlag,
    ...kEncodeFlags,
    ...kRecipeFlags.filter(({ name }) => name !== "recipe"),
    kDataFlag,
    ...kPreparationFlags,
    kHelpFlag,
  ],
  decode: [...kDecodeFlags, kHelpFlag],
  bytes: [...kFileFlags, kJsonFlag, kHelpFlag],
  evaluate: [kDataFlag, ...kSplitFlags, ...kPreparationFlags, ...kFileFlags, kJsonFlag, kHelpFlag],
  compare: [kDataFlag, ...kSplitFlags, ...kPreparationFlags, ...kFileFlags, kJsonFlag, kHelpFlag],
  train: [
    kDataFlag,
    kTrainOutputFlag,
    ...kTrainFlags,
    ...kTrainingFlags,
    ...kPreparationFlags,
    ...kFileFlags,
    kJsonFlag,
    kHelpFlag,
  ],
};

export interface Arguments {
  positional: string[];
  /** By flag name, in the order given. */
  values: Map<string, (string | number | number[] | true)[]>;
}

/** The value of a flag that is given once. */
export const text = ({ values }: Arguments, name: string) => values.get(name)?.[0] as string | undefined;

/** Reads `--name value`, `--name=value`, `-o value` and what else there is; `--` ends the options. */
export function parse(words: string[], flags: Flag[]): Arguments {
  const result: Arguments = { positional: [], values: new Map() };
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? "";
    if (word === "--") {
      result.positional.push(...words.slice(i + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      result.positional.push(word);
      continue;
    }
    const split = /^(-{1,2})([^=]+)(?:=(.*))?$/s.exec(word);
    const name = split?.[2] === "no-symmetric" ? "asymmetric" : split?.[2];
    const flag = flags.find((known) => (split?.[1] === "--" ? known.name : known.short) === name);
    if (!split || !flag)
      throw new UsageError(`unknown option ${word.replace(/=.*/s, "")}${suggestion(name ?? "", flags)}`);
    const given = result.values.get(flag.name) ?? [];
    result.values.set(flag.name, given);
    if (flag.kind === "on" || flag.kind === "off") {
      if (split[3] !== undefined) throw new UsageError(`--${flag.name} takes no value`);
      given.push(true);
      continue;
    }
    const value = split[3] ?? words[++i];
    if (value === undefined) throw new UsageError(`--${flag.name} needs a value: --${flag.name} ${flag.value}`);
    if (given.length > 0 && flag.kind !== "list") throw new UsageError(`--${flag.name} is given twice`);
    given.push(
      flag.kind === "number"
        ? toNumber(flag, value)
        : flag.kind === "numbers"
          ? value.split(",").map((part) => toNumber(flag, part))
          : value,
    );
  }
  return result;
}

function toNumber(flag: Flag, value: string): number {
  const number = value.trim() === "" ? NaN : Number(value);
  if (!Number.isFinite(number)) throw new UsageError(`--${flag.name}: expected a number, got "${value}"`);
  return number;
}

function suggestion(word: string, flags: Flag[]): string {
  const near = nearest(
    word,
    flags.map(({ name }) => name),
  );
  return near ? `; did you mean --${near}?` : "";
}

/** The word that was probably meant. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  return known
    .map((name) => ({ name, distance: editDistance(word, name) }))
    .filter(({ name, distance }) => distance <= name.length / 2)
    .sort((a, b) => a.distance - b.distance)[0]?.name;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substituted, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** What the flags of a step set, by field. */
function fieldsOf({ values }: Arguments, flags: StepFlag[]): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  for (const flag of flags) {
    const given = values.get(flag.name);
    if (!given) continue;
    const value = flag.kind === "on" ? true : flag.kind === "off" ? false : given[0];
    if (flag.field in fields) throw new UsageError("--symmetric and --asymmetric exclude each other");
    fields[flag.field] = value;
  }
  return fields;
}

/** The recipe that the flags spell: first prune, then quantize or cluster, then train, then encode, each only if one of its
 *  own flags is given, or, with `encodes`, encode in any case. */
export function recipeOf(args: Arguments, encodes = false): Recipe {
  const { values } = args;
  const layers: LayerFilter = {};
  if (values.has("include")) layers.include = values.get("include") as string[];
  if (values.has("exclude")) layers.exclude = values.get("exclude") as string[];
  const of = (kind: Step["kind"]) =>
    fieldsOf(
      args,
      kStepFlags.filter(({ step }) => step === kind),
    );
  const [prune, quantize, cluster] = [of("prune"), of("quantize"), of("cluster")];
  const [train, encode]: [TrainChoice, Omit<EncodeStep, "kind">] = [of("train"), of("encode")];
  const given = (fields: object) => Object.keys(fields).length > 0;

  const steps: Step[] = [];
  const filter = Object.keys(layers).length > 0 ? { layers } : {};
  if (given(quantize) && given(cluster)) {
    throw new UsageError("--bits and --cluster-bits exclude each other: a grid, or shared values");
  }
  if (given(prune)) steps.push({ kind: "prune", ...prune, ...filter } as PruneStep);
  if (given(quantize)) {
    const { bits, symmetric, granularity, group_size, ...rest } = quantize;
    if (bits === undefined) throw new UsageError("--bits is missing: how many bits per weight? (for example --bits 8)");
    const scheme = Object.entries({ bits, symmetric, granularity, group_size }).filter(
      ([, value]) => value !== undefined,
    );
    steps.push({ kind: "quantize", scheme: Object.fromEntries(scheme), ...rest, ...filter } as unknown as QuantizeStep);
  }
  if (given(cluster)) steps.push({ kind: "cluster", ...cluster, ...filter } as ClusterStep);
  if (given(train)) steps.push({ kind: "train", ...train });
  if (encodes || given(encode)) {
    // What no step makes use of would go unnoticed, a wrong name too.
    const idle = steps.length === 0 && !encode.lambda && Object.keys(layers)[0];
    if (idle) throw new UsageError(`--${idle} goes only with --lambda: coding alone changes no weight`);
    steps.push({ kind: "encode", ...encode, ...(encode.lambda ? filter : {}) });
  }
  if (steps.length === 0) {
    throw new UsageError(
      "nothing to do: give --recipe FILE, or an option of a step such as --bits 8 or --sparsity 0.5",
    );
  }
  const seed = values.get("seed")?.[0] as number | undefined;
  return { version: 1, ...(seed === undefined ? {} : { seed }), steps };
}

/** How the flags of `nibble train` say that a model learns. */
export const choiceOf = (args: Arguments): TrainChoice => fieldsOf(args, kTrainFlags);

/** The flags about splits; those about the preparation need a model and are not in it. */
export function splitOf({ values }: Arguments): DataOptions {
  const given = ["split", "limit", "seed", "validation", "test"].flatMap((name) =>
    values.has(name) ? [[name, values.get(name)?.[0]]] : [],
  );
  return Object.fromEntries(given) as DataOptions;
}

/** What the flags say about the preparation. */
export function preparationOf({ values }: Arguments): Record<string, unknown> {
  const given = kPreparationFlags.flatMap(({ name }) => (values.has(name) ? [[name, values.get(name)?.[0]]] : []));
  return Object.fromEntries(given) as Record<string, unknown>;
}

/** What data made here may be given: seed and number of samples. */
const kSpecKeys = ["seed", "n"] as const;

/** "digits:seed=1,n=2000" as a spec; undefined where it is none. */
export function specOf(text: string): DataSpec | undefined {
  const [, kind, rest] = /^(digits|linear)(?::(.*))?$/s.exec(text) ?? [];
  if (kind === undefined) return undefined;
  const spec: Record<string, unknown> = { kind };
  for (const part of rest ? rest.split(",") : []) {
    const [key = "", value = "", ...more] = part.split("=");
    if (!kSpecKeys.some((known) => known === key)) {
      throw new UsageError(`--data ${text}: expected seed=N or n=N after "${kind}:", got "${part}"`);
    }
    if (more.length > 0 || !/^\d{1,16}$/.test(value)) {
      throw new UsageError(`--data ${text}: expected a whole number for ${key}, got "${value}"`);
    }
    if (key in spec) throw new UsageError(`--data ${text}: ${key} is given twice`);
    spec[key] = Number(value);
  }
  return spec as unknown as DataSpec;
}

/** An error's place and sentence in the words of the command line: fields become the flags that set them ("--bits" for
 *  "steps[1].scheme.bits"; the given flags of a step for the step as a whole). Undefined where no flag is behind it.
 *  Without a recipe only flags that were given count: the error may be one of the data. */
export function inFlags(
  where: string,
  detail: string,
  args: Arguments,
  flags: readonly Flag[],
  recipe?: Recipe,
): string | undefined {
  const number = /^steps\[(\d+)\]/.exec(where)?.[1];
  const kind = number === undefined ? undefined : recipe?.steps[Number(number)]?.kind;
  const mine = flags.filter((flag) => !kind || !("step" in flag) || flag.step === kind);
  const fieldOf = (flag: Flag) => ("field" in flag ? (flag.field as string) : flag.name.replace("-", "_"));
  const byField = (field: string) => {
    const all = mine.filter((flag) => fieldOf(flag) === field);
    return all.find(({ name }) => args.values.has(name)) ?? all[0];
  };
  const shown = (field: string) => {
    const flag = byField(field);
    return flag && (recipe || args.values.has(flag.name)) ? `--${flag.name}` : undefined;
  };
  const last = /([a-z_]+)(\[\d+\])?$/.exec(where)?.[1];
  const single = last === undefined || last === "steps" ? undefined : shown(last);
  const whole = kind && mine.filter((flag) => "step" in flag && args.values.has(flag.name));
  const place = single ?? (whole && whole.map(({ name }) => `--${name}`).join(", "));
  if (!place) return undefined;
  const ofStep = (all: string, field: string, flagged: (flag: string) => string) => {
    const flag = mine.find((known) => "step" in known && fieldOf(known) === field);
    return flag && (kind || !recipe) ? flagged(`--${flag.name}`) : all;
  };
  let sentence = detail.replace(/"([a-z_]+)":"([^"]*)"/g, (all, field: string, value: string) =>
    ofStep(all, field, (flag) => `${flag} ${value}`),
  );
  // A quoted word is a field where the step as a whole is meant, and one to be given; elsewhere it may be a value.
  const words = single ? /(?<=give )"([a-z_]+)"/g : /"([a-z_]+)"/g;
  sentence = sentence.replace(words, (all, field: string) => ofStep(all, field, (flag) => flag));
  return `${place}: ${sentence}`;
}
