// The public types of the package, written once. The C++ core reads and writes the same names as JSON: a recipe file,
// the page's form and the command's options are this type.

// --- Recipe ----------------------------------------------------------------------------------------------------------

/** Which weights a step applies to: globs over weight names (`*` any run, `?` one character). Default: all. */
export interface LayerFilter {
  include?: string[];
  exclude?: string[];
}

/** Sets weights to zero. Exactly one of `sparsity` and `threshold` with the pattern "unstructured"; only `sparsity`
 *  with "channels"; neither with an N:M pattern, which says its own sparsity. */
export interface PruneStep {
  kind: "prune";
  /** Share of the weights (or channels) to remove, 0 to 1. */
  sparsity?: number;
  /** Removes every weight whose magnitude is below this, 0 or more. */
  threshold?: number;
  /** "layer" removes the same share of each weight, "global" the smallest of all weights together. Default "layer". */
  scope?: "layer" | "global";
  criterion?: "magnitude";
  /** "unstructured", "channels" (whole output channels by L2 norm), or "N:M" such as "2:4": at most N of each M
   *  consecutive inputs of an output channel stay. Default "unstructured". */
  pattern?: "unstructured" | "channels" | `${number}:${number}`;
  layers?: LayerFilter;
}

/** What grid is asked for. */
export interface QuantScheme {
  /** 1 to 8, or 16. */
  bits: number;
  /** true: zero point 0, codes -(2^(bits-1)-1) to 2^(bits-1)-1 (1 bit: -1 and +1). false: codes 0 to 2^bits-1 with a
   *  zero point. Default true. */
  symmetric?: boolean;
  /** What shares one scale: the whole model, a tensor, an output channel, or a group of inputs of one output channel.
   *  Default "channel". */
  granularity?: "global" | "tensor" | "channel" | "group";
  /** Elements per group with granularity "group", 2 to 65536. Default 32. */
  group_size?: number;
}

/** Snaps weights to a grid. */
export interface QuantizeStep {
  kind: "quantize";
  scheme: QuantScheme;
  /** How the represented range is found. "percentile": the central `percentile` percent of the weights; "sigma": mean
   *  plus and minus `sigmas` standard deviations; "mse": least squared error. Default "minmax". */
  range?: "minmax" | "percentile" | "sigma" | "mse";
  /** 50 to 100, default 99.9; only with range "percentile". */
  percentile?: number;
  /** 0.1 to 100, default 3; only with range "sigma". */
  sigmas?: number;
  /** "nearest" rounds half to even as ONNX does; "stochastic" is unbiased and seeded by the recipe. Default "nearest". */
  rounding?: "nearest" | "stochastic";
  layers?: LayerFilter;
}

export type Step = PruneStep | QuantizeStep;

export interface Recipe {
  version: 1;
  /** Seed of everything random, 0 to 2^53-1. Default 0. */
  seed?: number;
  steps: Step[];
}

// --- What a model is -------------------------------------------------------------------------------------------------

/** Statistics over the finite elements of a weight. */
export interface Statistics {
  min: number;
  max: number;
  mean: number;
  /** Standard deviation (population). */
  std: number;
  /** Share of zeros, 0 to 1. */
  sparsity: number;
  nan: number;
  infinite: number;
}

/** What a weight does in the graph. */
export type WeightKind = "conv" | "conv-transpose" | "dense" | "embedding" | "recurrent" | "tensor";

export interface WeightInfo {
  /** Unique in the model; what layer globs are matched with. */
  name: string;
  kind: WeightKind;
  /** The node that uses it ("" in a safetensors file) and its operator. */
  node: string;
  op: string;
  shape: number[];
  dtype: "float32" | "float16" | "bfloat16" | "float64";
  elements: number;
  /** Axis of the output channels, or null where the weight has none. */
  channel_axis: number | null;
  channels: number;
  /** Bytes of the values in the opened file's type. */
  bytes: number;
  statistics: Statistics;
}

export interface ModelInfo {
  name: string;
  format: "onnx" | "safetensors";
  /** Size of the opened file (with external data). */
  file_bytes: number;
  /** ONNX: default-domain opset, IR version, producer; null for safetensors. */
  opset: number | null;
  ir_version: number | null;
  producer: string | null;
  nodes: number;
  /** Operator to count, most frequent first. */
  operators: [string, number][];
  inputs: { name: string; dtype: string; shape: (number | string)[] }[];
  outputs: { name: string; dtype: string; shape: (number | string)[] }[];
  /** All numbers stored in the model, and those in `weights`. */
  parameters: number;
  weight_parameters: number;
  weights: WeightInfo[];
  /** Things worth knowing: weights in functions that are left alone, NaN in weights, and the like. */
  notes: Note[];
}

export interface Note {
  /** A path: a weight, a node, "file". */
  where: string;
  message: string;
}

// --- Report ----------------------------------------------------------------------------------------------------------

/** Error of one weight, or of all together (then over all their elements). */
export interface WeightError {
  /** Mean squared error. */
  mse: number;
  /** Signal to quantization noise, 10 log10(sum before^2 / sum error^2); null where the error is zero. */
  sqnr_db: number | null;
  max_abs_error: number;
  /** Cosine of the angle between before and after; null where one of them is zero. */
  cosine: number | null;
}

export interface WeightReport extends WeightError {
  name: string;
  elements: number;
  /** Bits per code; 32, 16 or 64 (the type's own) where not quantized. */
  bits: number;
  symmetric: boolean;
  granularity: "global" | "tensor" | "channel" | "group" | null;
  group_size: number | null;
  /** How many scales. */
  scales: number;
  before: Statistics;
  after: Statistics;
  bytes: {
    /** Values in the opened file's type. */
    dense: number;
    /** Codes bit-packed at `bits`, plus scales and zero points; the dense size where not quantized. */
    packed: number;
    /** What this weight's values, scales and zero points take in the exported file. */
    file: number;
  };
  /** How the exported file holds it: "int8", "uint4", ..., or the float type. */
  stored: string;
  /** Why it is stored so, where that needs saying (float fallback, a wider code than asked for). */
  note: string | null;
}

export interface StepReport {
  kind: Step["kind"];
  seconds: number;
  /** How many weights the step changed. */
  weights: number;
  /** Prune: elements (or N:M and channels likewise) that are zero now. Quantize: null. */
  zeros: number | null;
  notes: Note[];
}

export interface Report {
  version: 1;
  recipe: Recipe;
  seconds: number;
  total: WeightError & {
    elements: number;
    /** Average bits per weight of the packed form. */
    bits: number;
    sparsity: number;
    bytes: { dense: number; packed: number };
  };
  /** Whole files: the opened one, and what exporting now would weigh, exactly. */
  file: {
    format: "onnx" | "safetensors";
    before: number;
    after: number;
    opset_before: number | null;
    opset_after: number | null;
  };
  weights: WeightReport[];
  steps: StepReport[];
  notes: Note[];
}

// --- Pictures --------------------------------------------------------------------------------------------------------

export interface Histogram {
  /** Edges are lo + (hi - lo) * i / counts.length. */
  lo: number;
  hi: number;
  counts: Uint32Array;
}

/** Everything the page draws about one weight, before (`model`) and after (`result`). */
export interface WeightPicture {
  name: string;
  /** Same edges for both. */
  before: Histogram;
  after: Histogram;
  /** Grid values inside the drawn range: all grid points of a weight with one scale, of `channel` otherwise. Empty where
   *  the weight is not quantized or has more than 4096 points. */
  levels: Float32Array;
  /** Mean absolute error of cells, [rows, columns] row major. Rows are output channels, columns the inputs of one
   *  channel; where the weight is larger than the map, a cell is the mean of a block. */
  error_map: {
    rows: number;
    columns: number;
    weight_rows: number;
    weight_columns: number;
    max: number;
    cells: Float32Array;
  };
  /** Per output channel. */
  channels: { mse: Float32Array; sqnr_db: Float32Array; max_abs: Float32Array };
}

export interface PictureOptions {
  /** Bins of the histograms, 2 to 4096. Default 128. */
  bins?: number;
  /** Largest error map. Default 128 by 256. */
  rows?: number;
  columns?: number;
  /** The channel whose levels are returned. Default 0. */
  channel?: number;
}

// --- Errors and progress ---------------------------------------------------------------------------------------------

export type ErrorCode =
  "bad-file" | "unsupported" | "bad-recipe" | "bad-data" | "out-of-memory" | "cancelled" | "internal";

export interface Progress {
  phase: "load" | "open" | "prune" | "quantize" | "report" | "write";
  item: string;
  /** Of the whole call, 0 to 1. */
  fraction: number;
}

export interface CallOptions {
  /** Really stops the work: the engine's worker is ended and made anew. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}
