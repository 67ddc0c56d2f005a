// The recipe as the page's form holds it (a draft), and its three other faces: the engine's recipe, the address's hash,
// the command line. A draft keeps every field, also those that do not apply now, so that switching back loses nothing.
import type {
  ClusterStep,
  EncodeStep,
  LayerFilter,
  Preparation,
  PruneStep,
  QuantizeStep,
  Recipe,
  Step,
  TrainChoice,
  TrainStep,
} from "nibble-nn";

/** Sets weights to zero. Fields as in PruneStep. */
export interface PruneDraft {
  kind: "prune";
  /** Steps that are switched off stay in the form and leave the recipe. */
  on: boolean;
  by: "sparsity" | "threshold";
  sparsity: number;
  threshold: number;
  scope: "layer" | "global";
  pattern: "unstructured" | "channels" | "n:m";
  /** Of each `m` consecutive inputs at most `n` stay; only with pattern "n:m". */
  n: number;
  m: number;
  layers: LayerFilter;
}

/** Snaps weights to a grid. Fields as in QuantizeStep, the scheme's laid flat. */
export interface QuantizeDraft {
  kind: "quantize";
  on: boolean;
  bits: number;
  symmetric: boolean;
  granularity: "global" | "tensor" | "channel" | "group";
  group_size: number;
  range: "minmax" | "percentile" | "sigma" | "mse";
  percentile: number;
  sigmas: number;
  rounding: "nearest" | "stochastic";
  layers: LayerFilter;
}

/** Weights share a few values. Fields as in ClusterStep. */
export interface ClusterDraft {
  kind: "cluster";
  on: boolean;
  bits: number;
  initial: "linear" | "density" | "random";
  layers: LayerFilter;
}

/** How the .nib file is coded. Fields as in EncodeStep. */
export interface EncodeDraft {
  kind: "encode";
  on: boolean;
  coder: "auto" | "huffman" | "rans" | "cabac";
  /** Loss that a bit is worth; 0 leaves the levels as they are. */
  lambda: number;
  importance: "none" | "diagonal" | "hessian";
  quantized_form: boolean;
  layers: LayerFilter;
}

/** Fine-tunes the model on the page's data. */
export interface TrainDraft {
  kind: "train";
  on: boolean;
  /** Fields as in TrainStep; what the form has no control for is kept as it came. */
  choice: TrainChoice;
  /** Always empty: training is of the whole model. */
  layers: LayerFilter;
}

export type StepDraft = PruneDraft | QuantizeDraft | ClusterDraft | TrainDraft | EncodeDraft;

/** One side of the page: a recipe being edited. A second side is a second object of this type. */
export interface Side {
  seed: number;
  steps: StepDraft[];
}

export const BITS = [1, 2, 3, 4, 5, 6, 7, 8, 16];

export const pruneDraft = (): PruneDraft => ({
  kind: "prune",
  on: false,
  by: "sparsity",
  sparsity: 0.5,
  threshold: 0.01,
  scope: "layer",
  pattern: "unstructured",
  n: 2,
  m: 4,
  layers: {},
});

export const quantizeDraft = (): QuantizeDraft => ({
  kind: "quantize",
  on: true,
  bits: 8,
  symmetric: true,
  granularity: "channel",
  group_size: 32,
  range: "minmax",
  percentile: 99.9,
  sigmas: 3,
  rounding: "nearest",
  layers: {},
});

/** What a training starts with in the form. */
export const firstChoice = (): TrainChoice => ({
  epochs: 5,
  batch: 32,
  optimizer: "adam",
  // Three times the engine's default: the page's data are few, and so are the steps.
  learning_rate: 0.003,
  schedule: "cosine",
  keep_masks: true,
  keep_grids: true,
});

export const trainDraft = (): TrainDraft => ({ kind: "train", on: true, choice: firstChoice(), layers: {} });

export const clusterDraft = (): ClusterDraft => ({ kind: "cluster", on: true, bits: 4, initial: "linear", layers: {} });

export const encodeDraft = (): EncodeDraft => ({
  kind: "encode",
  on: true,
  coder: "auto",
  lambda: 0,
  importance: "none",
  quantized_form: true,
  layers: {},
});

export const firstSide = (): Side => ({ seed: 0, steps: [pruneDraft(), quantizeDraft()] });

// --- Draft to recipe and back ----------------------------------------------------------------------------------------

const filterOf = ({ include, exclude }: LayerFilter): { layers?: LayerFilter } =>
  include || exclude?.length ? { layers: { ...(include && { include }), ...(exclude?.length && { exclude }) } } : {};

/** The engine's step: only the fields that apply. */
export function stepOf(draft: StepDraft): Step {
  const layers = filterOf(draft.layers);
  if (draft.kind === "prune") {
    if (draft.pattern === "n:m")
      return { kind: "prune", criterion: "magnitude", pattern: `${draft.n}:${draft.m}`, ...layers };
    const share = draft.by === "sparsity" || draft.pattern === "channels" ? { sparsity: draft.sparsity } : null;
    // A threshold already says which weights go, so the scope makes no difference and is left out.
    const amount = share ? { ...share, scope: draft.scope } : { threshold: draft.threshold };
    return { kind: "prune", ...amount, criterion: "magnitude", pattern: draft.pattern, ...layers };
  }
  if (draft.kind === "train") return { kind: "train", ...fittingChoice(draft.choice) };
  if (draft.kind === "cluster") return { kind: "cluster", bits: draft.bits, initial: draft.initial, ...layers };
  if (draft.kind === "encode") {
    const { coder, lambda, importance, quantized_form } = draft;
    return {
      kind: "encode",
      coder,
      ...(lambda > 0 && { lambda, importance }),
      ...(!quantized_form && { quantized_form }),
      ...(lambda > 0 && layers),
    };
  }
  const { bits, symmetric, granularity } = draft;
  return {
    kind: "quantize",
    scheme: { bits, symmetric, granularity, ...(granularity === "group" && { group_size: draft.group_size }) },
    range: draft.range,
    ...(draft.range === "percentile" && { percentile: draft.percentile }),
    ...(draft.range === "sigma" && { sigmas: draft.sigmas }),
    rounding: draft.rounding,
    ...layers,
  };
}

/** `choice` without the fields that belong to another optimizer or schedule. */
export function fittingChoice(choice: TrainChoice): TrainChoice {
  const { momentum, step_epochs, step_factor, ...rest } = definedOnly(choice);
  return {
    ...rest,
    ...(rest.optimizer === "sgd" && momentum !== undefined && { momentum }),
    ...(rest.schedule === "step" && definedOnly({ step_epochs, step_factor })),
  };
}

/** Whether a step looks at data, which no slider should wait for: training, and importance that data tell. */
export const needsData = (step: StepDraft): boolean =>
  step.kind === "train" || (step.kind === "encode" && step.lambda > 0 && step.importance !== "none");

export const learns = (side: Side): boolean => side.steps.some((step) => step.on && needsData(step));

/** `side` as it is before anything is learned: what is shown while its sliders move. */
export const withoutLearning = (side: Side): Side => ({
  ...side,
  steps: side.steps.filter((step) => !needsData(step)),
});

/** What is run and shared: the steps that are switched on. */
export const recipeOf = (side: Side): Recipe => ({
  version: 1,
  seed: side.seed,
  steps: side.steps.filter((step) => step.on).map(stepOf),
});

function draftOfPrune(step: PruneStep): PruneDraft {
  const draft = { ...pruneDraft(), on: true, layers: step.layers ?? {} };
  if (step.sparsity !== undefined) draft.sparsity = step.sparsity;
  if (step.threshold !== undefined) Object.assign(draft, { by: "threshold", threshold: step.threshold });
  if (step.scope) draft.scope = step.scope;
  const pair = /^(\d+):(\d+)$/.exec(step.pattern ?? "");
  if (pair) return { ...draft, pattern: "n:m", n: Number(pair[1]), m: Number(pair[2]) };
  return step.pattern === "channels" ? { ...draft, pattern: "channels" } : draft;
}

function draftOfQuantize(step: QuantizeStep): QuantizeDraft {
  const { scheme, kind: _kind, layers, ...rest } = step;
  return { ...quantizeDraft(), ...definedOnly(scheme), ...definedOnly(rest), layers: layers ?? {} };
}

const draftOfCluster = ({ layers, ...step }: ClusterStep): ClusterDraft => ({
  ...clusterDraft(),
  ...definedOnly(step),
  layers: layers ?? {},
});

const draftOfEncode = ({ layers, ...step }: EncodeStep): EncodeDraft => ({
  ...encodeDraft(),
  ...definedOnly(step),
  layers: layers ?? {},
});

function draftOfTrain({ kind: _kind, ...choice }: TrainStep): TrainDraft {
  return { ...trainDraft(), choice: definedOnly(choice) };
}

/** Without what is undefined, or null, as a checked recipe says that a field does not apply. */
const definedOnly = <T extends object>(object: T): T =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined && value !== null)) as T;

/** The form for a recipe that the engine has checked. */
export const sideOf = (recipe: Recipe): Side => ({
  seed: recipe.seed ?? 0,
  steps: recipe.steps.map((step): StepDraft => {
    if (step.kind === "prune") return draftOfPrune(step);
    if (step.kind === "quantize") return draftOfQuantize(step);
    if (step.kind === "cluster") return draftOfCluster(step);
    return step.kind === "encode" ? draftOfEncode(step) : draftOfTrain(step);
  }),
});

// --- Layers ----------------------------------------------------------------------------------------------------------

/** Globs over weight names: `*` any run, `?` one character. */
export function matches(glob: string, name: string): boolean {
  if (!/[*?]/.test(glob)) return glob === name;
  const pattern = glob
    .replace(/[.+^${}()|[\]\\]/g, "\\$&")
    .replaceAll("*", ".*")
    .replaceAll("?", ".");
  return new RegExp(`^${pattern}$`, "su").test(name);
}

export const includes = ({ include, exclude }: LayerFilter, name: string): boolean =>
  (!include || include.some((glob) => matches(glob, name))) && !exclude?.some((glob) => matches(glob, name));

/** Whether any step would change this weight. */
export const takesPart = (side: Side, name: string): boolean => {
  const steps = side.steps.filter(({ kind }) => kind !== "train" && kind !== "encode");
  const on = steps.filter((step) => step.on);
  return (on.length > 0 ? on : steps).some((step) => includes(step.layers, name));
};

/** `side` for a model of these weights: without the steps whose include finds none of them. */
export const fitting = (side: Side, names: string[]): Side => ({
  ...side,
  steps: side.steps.filter(
    ({ layers: { include } }) => !include || names.some((name) => include.some((glob) => matches(glob, name))),
  ),
});

/** `side` with one weight taken out of every step or put back into every step. `names` are all weights of the model:
 *  a glob that shuts out more than this one is replaced by the names of the others. */
export function withLayer(side: Side, name: string, on: boolean, names: string[]): Side {
  const change = (filter: LayerFilter): LayerFilter => {
    if (includes(filter, name) === on) return filter;
    if (!on) return { ...filter, exclude: [...(filter.exclude ?? []), name] };
    const include = filter.include?.some((glob) => matches(glob, name))
      ? filter.include
      : filter.include && [...filter.include, name];
    const exclude = (filter.exclude ?? []).flatMap((glob) =>
      matches(glob, name) ? names.filter((other) => other !== name && matches(glob, other)) : [glob],
    );
    return { ...(include && { include }), ...(exclude.length && { exclude: [...new Set(exclude)] }) };
  };
  // A layer with bits of its own stays out of the step that it was taken from.
  const own = side.steps.some((step) => isOwn(step, name));
  const concerns = (step: StepDraft): boolean =>
    step.kind !== "train" && !(on && own && step.kind === "quantize" && !isOwn(step, name));
  return {
    ...side,
    steps: side.steps.map((step) => (concerns(step) ? { ...step, layers: change(step.layers) } : step)),
  };
}

/** Whether this is a quantize step for layers that are listed, this one among them. */
const isOwn = (step: StepDraft, name: string): step is QuantizeDraft =>
  step.kind === "quantize" && (step.layers.include?.includes(name) ?? false);

/** Bits that a layer has been given apart from the others, or null. */
export const ownBits = (side: Side, name: string): number | null =>
  side.steps.find((step) => isOwn(step, name))?.bits ?? null;

/** `side` with a layer quantized to bits of its own, or (null) like the others again. Layers of the same own bits share
 *  a step, which otherwise is as the first quantize step. */
export function withOwnBits(side: Side, name: string, bits: number | null): Side {
  const without = (list: string[] | undefined): string[] => (list ?? []).filter((other) => other !== name);
  const steps = side.steps
    .map((step): StepDraft =>
      isOwn(step, name) ? { ...step, layers: { ...step.layers, include: without(step.layers.include) } } : step,
    )
    .filter((step) => step.layers.include?.length !== 0)
    .map((step): StepDraft =>
      step.kind === "quantize" && !step.layers.include
        ? {
            ...step,
            layers: { exclude: bits === null ? without(step.layers.exclude) : [...without(step.layers.exclude), name] },
          }
        : step,
    );
  if (bits === null) return { ...side, steps };
  const shared = steps.findIndex((step) => step.kind === "quantize" && step.bits === bits && step.layers.include);
  if (shared >= 0) {
    const join = (step: StepDraft): StepDraft => ({
      ...step,
      layers: { ...step.layers, include: [...step.layers.include!, name] },
    });
    return { ...side, steps: steps.map((step, i) => (i === shared ? join(step) : step)) };
  }
  const like = steps.find((step) => step.kind === "quantize") ?? quantizeDraft();
  // Training comes after all quantizing, where it stood after it.
  const last = steps.map(({ kind }) => kind).lastIndexOf("quantize");
  const own: QuantizeDraft = { ...like, bits, on: true, layers: { include: [name] } };
  return { ...side, steps: inserted(steps, last < 0 ? steps.length : last + 1, own) };
}

/** `steps` with more of them at a place. Array.toSpliced does that, in browsers from 2023 on. */
const inserted = (steps: StepDraft[], at: number, ...added: StepDraft[]): StepDraft[] => [
  ...steps.slice(0, at),
  ...added,
  ...steps.slice(at),
];

/** `side` without step `index`; layers that had it as their own go back to the others. */
export function withoutStep(side: Side, index: number): Side {
  const step = side.steps[index];
  if (step.kind === "quantize" && step.layers.include) {
    return step.layers.include.reduce((left, name) => withOwnBits(left, name, null), side);
  }
  return { ...side, steps: withBoth(side.steps.filter((_, i) => i !== index)) };
}

// --- The address's hash ----------------------------------------------------------------------------------------------

/** Everything that the hash holds. */
export interface Place {
  side: Side;
  language?: "en" | "zh";
  /** Which sample model, and which of its weights is looked at. */
  sample?: string;
  layer?: string;
  /** Data that are made from a seed, or that there shall be none. */
  data?: GeneratedData | "none";
  /** Which part of the page is looked at. */
  view?: View;
}

export interface GeneratedData {
  kind: "digits" | "linear";
  seed: number;
  n: number;
}

export const VIEWS = ["layer", "mistakes", "activations", "draw", "train"] as const;
export type View = (typeof VIEWS)[number];

/** Most samples that the page makes. */
export const MOST_SAMPLES = 60_000;

// #lang=en&sample=simplenet&seed=0&prune=off,sparsity:0.8,scope:global&quantize=bits:8,exclude:fc2.weight
// Steps in order, fields of the recipe by their own names, "off" for a step that is switched off.
export function hashOf({ side, language, sample, layer, data, view }: Place): string {
  const pairs: string[] = [];
  const add = (key: string, value: string | undefined): void => {
    if (value !== undefined) pairs.push(`${key}=${value}`);
  };
  add("lang", language);
  add("sample", sample && encodeURIComponent(sample));
  add("layer", layer && encodeURIComponent(layer));
  if (view !== "layer") add("view", view);
  add("data", data && (data === "none" ? data : `${data.kind},seed:${data.seed},n:${data.n}`));
  add("seed", String(side.seed));
  for (const draft of side.steps) {
    const { kind, layers, ...step } = { layers: undefined, ...stepOf(draft) };
    const flat: object =
      "scheme" in step ? { ...step.scheme, ...step, scheme: undefined } : { ...step, criterion: undefined };
    const fields = Object.entries(flat).filter(([, value]) => value !== undefined);
    const globs = (["include", "exclude"] as const).flatMap((key) =>
      (layers?.[key] ?? []).map((glob) => [key, glob] as const),
    );
    const parts = [...fields, ...globs].map(([key, value]) => `${key}:${encodeURIComponent(String(value))}`);
    add(kind, [...(draft.on ? [] : ["off"]), ...parts].join(","));
  }
  return `#${pairs.join("&")}`;
}

// What a field of the hash may be; everything else in it is ignored, since anybody can write a link.
const oneOf =
  (...choices: string[]) =>
  (text: string) =>
    choices.includes(text) ? text : undefined;
const between = (low: number, high: number, whole = false) => {
  return (text: string) => {
    const value = Number(text);
    return text !== "" && value >= low && value <= high && (!whole || Number.isInteger(value)) ? value : undefined;
  };
};
const truth = (text: string) => (text === "true" ? true : text === "false" ? false : undefined);
const READ: Record<string, (text: string) => string | number | boolean | undefined> = {
  sparsity: between(0, 1),
  threshold: between(0, Infinity),
  scope: oneOf("layer", "global"),
  pattern: (text) => {
    const pair = /^(\d+):(\d+)$/.exec(text)?.slice(1).map(Number);
    const fits = pair && pair[0] >= 1 && pair[0] < pair[1] && pair[1] <= 64;
    return fits ? text : oneOf("unstructured", "channels")(text);
  },
  bits: (text) => (BITS.includes(Number(text)) ? Number(text) : undefined),
  symmetric: truth,
  granularity: oneOf("global", "tensor", "channel", "group"),
  group_size: between(2, 65536, true),
  range: oneOf("minmax", "percentile", "sigma", "mse"),
  percentile: between(50, 100),
  sigmas: between(0.1, 100),
  rounding: oneOf("nearest", "stochastic"),
};
const READ_TRAIN: typeof READ = {
  epochs: between(1, 10000, true),
  batch: between(1, 65536, true),
  loss: oneOf("cross_entropy", "mean_squared"),
  optimizer: oneOf("sgd", "adam", "adamw"),
  learning_rate: between(1e-9, 100),
  momentum: between(0, 0.999999),
  weight_decay: between(0, 100),
  schedule: oneOf("constant", "cosine", "step"),
  warmup: between(0, 10000),
  step_epochs: between(1, 10000, true),
  step_factor: between(1e-6, 1),
  clip_norm: between(0, 1e9),
  keep_masks: truth,
  keep_grids: truth,
  patience: between(0, 10000, true),
};

const READ_CLUSTER: typeof READ = { bits: between(1, 8, true), initial: oneOf("linear", "density", "random") };
const READ_ENCODE: typeof READ = {
  coder: oneOf("auto", "huffman", "rans", "cabac"),
  lambda: between(0, 1),
  importance: oneOf("none", "diagonal", "hessian"),
  quantized_form: truth,
};
const KNOWN: Record<StepDraft["kind"], typeof READ> = {
  prune: READ,
  quantize: READ,
  cluster: READ_CLUSTER,
  train: READ_TRAIN,
  encode: READ_ENCODE,
};
const KINDS = Object.keys(KNOWN) as StepDraft["kind"][];

const decode = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined; // a broken escape
  }
};

/** Reads a hash; `side` is null where it holds no recipe. */
export function placeOf(hash: string): Omit<Place, "side"> & { side: Side | null } {
  const place: Omit<Place, "side"> & { side: Side | null } = { side: null };
  const steps: StepDraft[] = [];
  let seed: number | undefined;
  for (const pair of hash.replace(/^#/, "").split("&")) {
    const [key, text = ""] = splitOnce(pair, "=");
    if (key === "lang" && (text === "en" || text === "zh")) place.language = text;
    if (key === "sample") place.sample = decode(text);
    if (key === "layer") place.layer = decode(text);
    if (key === "view") place.view = VIEWS.find((view) => view === text);
    if (key === "data") place.data = dataOfHash(text);
    if (key === "seed") seed = between(0, Number.MAX_SAFE_INTEGER, true)(text);
    const kind = KINDS.find((known) => known === key);
    if (kind) steps.push(stepOfHash(kind, text));
  }
  if (seed !== undefined || steps.length > 0) place.side = { seed: seed ?? 0, steps: withBoth(steps) };
  return place;
}

function dataOfHash(text: string): Place["data"] {
  if (text === "none") return "none";
  const [kind, ...fields] = text.split(",");
  if (kind !== "digits" && kind !== "linear") return undefined;
  const data: GeneratedData = { kind, seed: 1, n: 2000 };
  for (const field of fields) {
    const [key, value = ""] = splitOnce(field, ":");
    if (key === "seed") data.seed = between(0, Number.MAX_SAFE_INTEGER, true)(value) ?? data.seed;
    if (key === "n") data.n = between(20, MOST_SAMPLES, true)(value) ?? data.n;
  }
  return data;
}

function stepOfHash(kind: StepDraft["kind"], text: string): StepDraft {
  const known = KNOWN[kind];
  const values: Record<string, string | number | boolean> = {};
  const layers: LayerFilter = {};
  let on = true;
  for (const part of text.split(",")) {
    const [key, raw = ""] = splitOnce(part, ":");
    const value = decode(raw);
    if (part === "off") on = false;
    if (value === undefined) continue;
    if (key === "include" || key === "exclude") (layers[key] ??= []).push(value);
    const read = Object.hasOwn(known, key) ? known[key](value) : undefined;
    if (read !== undefined) values[key] = read;
  }
  if (kind === "train") return { ...trainDraft(), on, choice: { ...firstChoice(), ...values } };
  if (kind === "cluster") return { ...clusterDraft(), ...values, on, layers };
  if (kind === "encode") return { ...encodeDraft(), ...values, on, layers };
  const step =
    kind === "prune"
      ? draftOfPrune(values as Partial<PruneStep> as PruneStep)
      : draftOfQuantize({ scheme: {}, ...values } as Partial<QuantizeStep> as QuantizeStep);
  return { ...step, on, layers };
}

/** The form always offers pruning and quantizing; a recipe without one of them gets it switched off. */
export function withBoth(steps: StepDraft[]): StepDraft[] {
  const prune = steps.some((step) => step.kind === "prune") ? [] : [pruneDraft()];
  const quantize = steps.some((step) => step.kind === "quantize") ? [] : [{ ...quantizeDraft(), on: false }];
  const late = steps.findIndex((step) => step.kind === "train" || step.kind === "encode");
  return [...prune, ...inserted(steps, late < 0 ? steps.length : late, ...quantize)];
}

/** `side` with one step more, where it belongs: shared values after pruning and quantizing, then training, then coding. */
export function withStep(side: Side, step: ClusterDraft | TrainDraft | EncodeDraft): Side {
  const ORDER = { prune: 0, quantize: 0, cluster: 1, train: 2, encode: 3 };
  const place = side.steps.findIndex(({ kind }) => ORDER[kind] > ORDER[step.kind]);
  // A weight lies on a grid or has a codebook, not both.
  const others = side.steps.map((other) =>
    step.kind === "cluster" && other.kind === "quantize" ? { ...other, on: false } : other,
  );
  return { ...side, steps: inserted(others, place < 0 ? others.length : place, step) };
}

const splitOnce = (text: string, mark: string): [string, string?] => {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
};

// --- The command line ------------------------------------------------------------------------------------------------

/** Name of the compressed file: model.onnx and model.nib give model.small.onnx, and so does a model.pb that holds ONNX. */
export const smallName = (name: string, format: string): string =>
  `${name.replace(new RegExp(`\\.(${format}|onnx|safetensors|nib)$`, "i"), "")}.small.${format}`;

const quote = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** What the command calls data: those made from a seed by their spec, files by their names, folders by theirs. */
export function dataName(data: GeneratedData | { kind: "files"; names: string[] }): string {
  if (data.kind !== "files") return `${data.kind}:seed=${data.seed},n=${data.n}`;
  return quote([...new Set(data.names.map((name) => name.split("/")[0]))].join(","));
}

const preparationFlags = (preparation?: Omit<Preparation, "reason">): string => {
  if (!preparation) return "";
  const { scale, mean, std, layout } = preparation;
  return ` --scale ${scale} --mean ${mean.join(",")} --std ${std.join(",")} --layout ${layout}`;
};

/** The command that gives the same file. Flags say one step of each kind, prune first and both with the same layers;
 *  any other recipe goes in as JSON through standard input. A recipe that says how to code gives a .nib file.
 *  `from`: what it learns from, if it learns (see dataName), and the preparation where it is not to be guessed. */
export function commandOf(
  recipe: Recipe,
  model: string,
  format: string,
  from: { data?: string; preparation?: Omit<Preparation, "reason"> } = {},
): string {
  const output = smallName(model, recipe.steps.some(({ kind }) => kind === "encode") ? "nib" : format);
  const prune = recipe.steps.filter((step) => step.kind === "prune");
  const quantize = recipe.steps.filter((step) => step.kind === "quantize");
  const learning = sideOf(recipe).steps.some(needsData);
  const filters = [...prune, ...quantize].map(({ layers }) => layers ?? {});
  const same = new Set(filters.map((layers) => JSON.stringify(layers))).size <= 1;
  const ordered = prune.length === 0 || recipe.steps[0].kind === "prune";
  const others = recipe.steps.length > prune.length + quantize.length;
  const plain = prune.length <= 1 && quantize.length <= 1 && same && ordered && !others;
  if (recipe.steps.length === 0 || !plain) {
    const learnsFrom = learning ? ` --data ${from.data ?? "DATA"}${preparationFlags(from.preparation)}` : "";
    return `echo ${quote(JSON.stringify(recipe))} | npx nibble-nn compress ${quote(model)} --recipe -${learnsFrom} -o ${quote(output)}`;
  }
  const flags: string[] = [];
  const add = (name: string, value: string | number | boolean | undefined): void => {
    if (value === undefined) return;
    if (name === "symmetric") flags.push(value ? "--symmetric" : "--asymmetric");
    else flags.push(`--${name.replaceAll("_", "-")}`, quote(String(value)));
  };
  for (const step of [...prune, ...quantize]) {
    const { kind: _kind, layers: _layers, ...rest } = step;
    const flat = "scheme" in rest ? { ...rest.scheme, ...rest, scheme: undefined } : { ...rest, criterion: undefined };
    for (const [name, value] of Object.entries(flat)) add(name, value);
  }
  for (const key of ["include", "exclude"] as const) for (const glob of filters[0]?.[key] ?? []) add(key, glob);
  if (recipe.seed) add("seed", recipe.seed);
  return `npx nibble-nn compress ${quote(model)} ${flags.join(" ")} -o ${quote(output)}`;
}
