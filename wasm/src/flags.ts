// The command's options. Those of a step are the recipe's fields under their own names, so a recipe file, the page and the
// command line say the same thing in the same words.
import type { LayerFilter, PruneStep, QuantizeStep, Recipe, Step } from "./types";

/** Wrong use of the command: shown as one sentence, exit code 2. */
export class UsageError extends Error {}

type Kind = "text" | "number" | "on" | "off" | "list";

export interface Flag {
  name: string;
  short?: string;
  kind: Kind;
  /** Shown in the help for the value. */
  value?: string;
  help: string;
}

/** A flag that sets a field of a step. */
interface StepFlag extends Flag {
  step: "prune" | "quantize";
  field: string;
}

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
    help: "the file to write, .onnx or .safetensors; - writes to stdout",
  },
  { name: "report", kind: "text", value: "FILE", help: "write the full report as JSON; - writes to stdout" },
];

export const kJsonFlag: Flag = { name: "json", kind: "on", help: "print JSON instead of a table, errors too" };
const kHelpFlag: Flag = { name: "help", short: "h", kind: "on", help: "print this help" };

export const kCommandFlags: Record<string, Flag[]> = {
  inspect: [...kFileFlags, kJsonFlag, kHelpFlag],
  compress: [...kOutputFlags, ...kFileFlags, kJsonFlag, ...kRecipeFlags, ...kStepFlags, kHelpFlag],
};

export interface Arguments {
  positional: string[];
  /** By flag name, in the order given. */
  values: Map<string, (string | number | true)[]>;
}

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
    given.push(flag.kind === "number" ? toNumber(flag, value) : value);
  }
  return result;
}

function toNumber(flag: Flag, value: string): number {
  const number = value.trim() === "" ? NaN : Number(value);
  if (!Number.isFinite(number)) throw new UsageError(`--${flag.name}: expected a number, got "${value}"`);
  return number;
}

function suggestion(word: string, flags: Flag[]): string {
  const near = flags
    .map((flag) => ({ name: flag.name, distance: editDistance(word, flag.name) }))
    .filter(({ name, distance }) => distance <= name.length / 2)
    .sort((a, b) => a.distance - b.distance)[0];
  return near ? `; did you mean --${near.name}?` : "";
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

/** The recipe that the flags spell: first prune, then quantize, each only if one of its own flags is given. */
export function recipeOf({ values }: Arguments): Recipe {
  const layers: LayerFilter = {};
  if (values.has("include")) layers.include = values.get("include") as string[];
  if (values.has("exclude")) layers.exclude = values.get("exclude") as string[];

  const fields = { prune: {} as Record<string, unknown>, quantize: {} as Record<string, unknown> };
  for (const flag of kStepFlags) {
    const given = values.get(flag.name);
    if (!given) continue;
    const value = flag.kind === "on" ? true : flag.kind === "off" ? false : given[0];
    if (flag.field in fields[flag.step]) throw new UsageError("--symmetric and --asymmetric exclude each other");
    fields[flag.step][flag.field] = value;
  }

  const steps: Step[] = [];
  const filter = Object.keys(layers).length > 0 ? { layers } : {};
  if (Object.keys(fields.prune).length > 0) steps.push({ kind: "prune", ...fields.prune, ...filter } as PruneStep);
  if (Object.keys(fields.quantize).length > 0) {
    const { bits, symmetric, granularity, group_size, ...rest } = fields.quantize;
    if (bits === undefined) throw new UsageError("--bits is missing: how many bits per weight? (for example --bits 8)");
    const given = Object.entries({ bits, symmetric, granularity, group_size }).filter(
      ([, value]) => value !== undefined,
    );
    steps.push({ kind: "quantize", scheme: Object.fromEntries(given), ...rest, ...filter } as unknown as QuantizeStep);
  }
  if (steps.length === 0) {
    throw new UsageError(
      "nothing to do: give --recipe FILE, or an option of a step such as --bits 8 or --sparsity 0.5",
    );
  }
  const seed = values.get("seed")?.[0] as number | undefined;
  return { version: 1, ...(seed === undefined ? {} : { seed }), steps };
}

/** The flag that wrote the place an error points at ("steps[1].scheme.bits" gives "--bits"), or undefined. */
export function flagAt(where: string): string | undefined {
  const last = /([a-z_]+)(\[\d+\])?$/.exec(where)?.[1];
  const flag = [...kStepFlags, ...kRecipeFlags].find(
    (known) => (("field" in known && known.field) || known.name) === last,
  );
  return flag && `--${flag.name}`;
}
