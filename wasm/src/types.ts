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

/** How a model learns. Every field has a default. */
export interface TrainChoice {
  /** Passes over the training split, 1 to 10000. Default 5. */
  epochs?: number;
  /** Samples per step, 1 to 65536. Default 64. */
  batch?: number;
  /** Default: "cross_entropy" for labelled data, "mean_squared" for data with targets. */
  loss?: "cross_entropy" | "mean_squared";
  /** Default "adam". */
  optimizer?: "sgd" | "adam" | "adamw";
  /** Default 0.001 ("sgd": 0.05). */
  learning_rate?: number;
  /** 0 to below 1, only with "sgd". Default 0.9. */
  momentum?: number;
  /** On weights, not on biases and normalisation parameters. Default 0. */
  weight_decay?: number;
  /** How the rate changes: not, half a cosine down to 0, or by `step_factor` every `step_epochs`. Default "cosine". */
  schedule?: "constant" | "cosine" | "step";
  /** Epochs in which the rate rises from 0. Default 0. */
  warmup?: number;
  step_epochs?: number;
  step_factor?: number;
  /** Gradients whose 2-norm is larger are scaled down to it; 0 leaves them. Default 0. */
  clip_norm?: number;
  /** Pruned weights stay zero. Default true. */
  keep_masks?: boolean;
  /** Quantized weights stay on their grid: the gradient passes straight through. Default true. */
  keep_grids?: boolean;
  /** Stop after so many epochs without a better validation loss; 0 never does. Default 0. */
  patience?: number;
}

/** Fine-tunes the model on the data that the run is given, with the promises of the steps before kept. */
export interface TrainStep extends TrainChoice {
  kind: "train";
}

/** Lets weights share values: k-means, 2^bits centroids per weight. Pruned weights stay zero and have no part in it. */
export interface ClusterStep {
  kind: "cluster";
  /** 1 to 8. */
  bits: number;
  /** Where k-means starts: evenly over the range, at quantiles, or at random. Default "linear". */
  initial?: "linear" | "density" | "random";
  layers?: LayerFilter;
}

/** How a .nib file of the result is coded, and, with a lambda, a choice of levels that are cheap to code. */
export interface EncodeStep {
  kind: "encode";
  /** "cabac": context-adaptive binary arithmetic coding, the smallest; "rans": decoded several times as fast; "huffman":
   *  canonical Huffman with relative indices, as Deep Compression has it; "auto": for each weight the one that gives
   *  fewest bytes. Default "auto". */
  coder?: "auto" | "huffman" | "rans" | "cabac";
  /** Loss that a bit is worth, 0 to 1: levels are chosen for least loss + lambda * bits. The loss is in nats, or with
   *  importance "none" in shares of a tensor's mean square. 0 leaves all values as they are. Default 0. */
  lambda?: number;
  /** What an error is weighed with, only with a lambda: "none", the tensor's own size; "diagonal", the curvature of the
   *  loss along each weight; "hessian", also how the inputs of a layer go together, so that later weights make up for
   *  earlier ones. The last two need data, without labels. Default "none". */
  importance?: "none" | "diagonal" | "hessian";
  /** Hold the ONNX file with integer weights too, where there is one; some 20 bytes a weight. Default true. */
  quantized_form?: boolean;
  /** Only with a lambda. */
  layers?: LayerFilter;
}

export type Step = PruneStep | QuantizeStep | ClusterStep | TrainStep | EncodeStep;

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
  /** How it was made, where it comes from a .nib file or from `compress`; else null. */
  history: History | null;
  /** Things worth knowing: weights in functions that are left alone, NaN in weights, and the like. */
  notes: Note[];
}

export interface History {
  /** The first one first. */
  recipes: Recipe[];
  /** Size of the file that it was made from. */
  file_bytes: number;
  /** Of all weights together, by the last recipe; null where the error is zero or not known. */
  sqnr_db: number | null;
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
  /** Bits per code; 32, 16 or 64 (the type's own) where neither quantized nor clustered. */
  bits: number;
  symmetric: boolean;
  granularity: "global" | "tensor" | "channel" | "group" | null;
  group_size: number | null;
  /** How many scales. */
  scales: number;
  /** How many values are shared, where they are. */
  clusters: number | null;
  before: Statistics;
  after: Statistics;
  bytes: {
    /** Values in the opened file's type. */
    dense: number;
    /** Codes bit-packed at `bits`, plus scales and zero points or a codebook; the dense size where there are no codes. */
    packed: number;
    /** What this weight's values, scales and zero points take in the exported file. */
    file: number;
  };
  /** How the exported file holds it: "int8", "uint4", ..., or the float type; in a .nib file its coder. */
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
    format: "onnx" | "safetensors" | "nib";
    before: number;
    after: number;
    opset_before: number | null;
    opset_after: number | null;
  };
  weights: WeightReport[];
  steps: StepReport[];
  notes: Note[];
}

// --- Bytes -----------------------------------------------------------------------------------------------------------

/** One weight under every way of storing it, in bytes; fractions where a coder shares a byte with its neighbours. What is
 *  about levels is null where the weight has none, being neither quantized nor clustered. */
export interface WeightBytes {
  name: string;
  /** Values in their type. */
  dense: number;
  /** Codes, bit-packed; the values where there are no codes. */
  codes: number;
  /** Scales and zero points, or a codebook, uncoded. */
  scales: number;
  /** Order-0 entropy of the levels: what a coder that knows their frequencies, and nothing else, cannot beat. */
  entropy: number | null;
  /** Canonical Huffman with its tables, and what of it are relative indices. */
  huffman: number | null;
  huffman_index: number | null;
  rans: number | null;
  cabac: number | null;
  /** What cabac spends on which decisions; null in an estimate. */
  parts: { significance: number; sign: number; magnitude: number; remainder: number } | null;
  /** In the .nib file, with scales. */
  nib: number;
  coder: "huffman" | "rans" | "cabac";
}

/** Where the bytes of a .nib file go. */
export interface ByteReport {
  estimated: boolean;
  /** The model's own format with all values in full. */
  dense_file: number;
  /** The .nib file, and of it the header (graph, tables, recipe, checksums) and tensors that are no weights. */
  file: number;
  header: number;
  others: number;
  weights: WeightBytes[];
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

// --- Data ------------------------------------------------------------------------------------------------------------

/** Data made here, from a seed. */
export type DataSpec =
  /** Handwritten-like digits, 28 x 28. */
  | { kind: "digits"; seed?: number; n?: number }
  /** Points of a noisy linear function of five inputs. */
  | { kind: "linear"; seed?: number; n?: number };

export interface DataInfo {
  name: string;
  samples: number;
  /** Of one sample. */
  shape: number[];
  layout: "features" | "hw" | "chw" | "hwc";
  dtype: "uint8" | "float32";
  labelled: boolean;
  /** 0 where there are no labels. */
  classes: number;
  class_names: string[];
  /** Numbers to be predicted per sample; 0 where there are none. */
  targets: number;
  /** How many samples each purpose has. */
  splits: { calibration: number; training: number; validation: number; test: number };
}

/** How stored samples become a model's input: (stored * scale - mean) / std, in `layout`. */
export interface Preparation {
  shape: number[];
  layout: "features" | "hw" | "chw" | "hwc";
  scale: number;
  /** One entry, or one for each channel. */
  mean: number[];
  std: number[];
  /** Where this comes from, in a sentence. */
  reason: string;
}

/** Which samples are meant, and how they are given to the model. */
export interface DataOptions {
  /** Default "test" for evaluating and comparing. */
  split?: "calibration" | "training" | "validation" | "test" | "all";
  /** At most so many samples, the first of the split. Default: all. */
  limit?: number;
  /** Of the splits; 0 to 2^53-1. Default 0. */
  seed?: number;
  /** Fractions of the data kept for validation, and for test where the data have no test part of their own. Default 0.1. */
  validation?: number;
  test?: number;
  /** Default: guessed, see Model.prepare. */
  preparation?: Omit<Preparation, "reason"> & { reason?: string };
}

/** The JSON part of an evaluation. */
export interface EvaluationReport {
  samples: number;
  classes: number;
  /** Cross-entropy, or mean squared error for targets; null for data with neither. */
  loss: number | null;
  /** 0 to 1; null for data without labels. */
  accuracy: number | null;
  seconds: number;
  preparation: Preparation;
}

export interface Evaluation extends EvaluationReport {
  /** Positions in the data of the samples that were used. */
  indices: Uint32Array;
  /** The predicted class of each; empty for regression. */
  predictions: Int32Array;
  /** Softmax of the predicted class. */
  confidence: Float32Array;
  /** [true class, predicted class], row major; empty for regression and beyond 1,024 classes. */
  confusion: Uint32Array;
}

/** How far a value of the graph is from its twin in the other model, over all samples. */
export interface ActivationError {
  /** The value, and the node that makes it. */
  name: string;
  node: string;
  op: string;
  /** Weights that the node uses. */
  weights: string[];
  /** Of one sample. */
  shape: number[];
  mse: number;
  sqnr_db: number | null;
  max_abs_error: number;
  cosine: number | null;
}

export interface ComparisonReport {
  before: EvaluationReport;
  after: EvaluationReport;
  /** In graph order, of the values that both models have. */
  activations: ActivationError[];
  /** Share of samples with the same predicted class, 0 to 1. */
  agreement: number | null;
}

export interface Comparison {
  before: Evaluation;
  after: Evaluation;
  activations: ActivationError[];
  agreement: number | null;
  /** Positions in the data of the samples whose predicted class differs. */
  flipped: Uint32Array;
}

/** Numbers with a shape. `data` has the type's own array; float16 and bfloat16 as bits, bool as bytes. */
export interface TensorValue {
  dtype: string;
  shape: number[];
  data:
    | Float32Array
    | Float64Array
    | Int8Array
    | Uint8Array
    | Int16Array
    | Uint16Array
    | Int32Array
    | Uint32Array
    | BigInt64Array
    | BigUint64Array;
}

// --- Training --------------------------------------------------------------------------------------------------------

/** Where training stands after a batch. */
export interface TrainProgress {
  /** From 0. */
  epoch: number;
  epochs: number;
  /** Within the epoch, from 0. */
  batch: number;
  batches: number;
  /** Steps done, and in all. */
  step: number;
  steps: number;
  /** Of this batch. */
  loss: number;
  accuracy: number | null;
  learning_rate: number;
  seconds: number;
  /** After an epoch's last batch. */
  validation_loss: number | null;
  validation_accuracy: number | null;
  /** The validation loss is the lowest so far. */
  best: boolean;
  done: boolean;
}

// --- Errors and progress ---------------------------------------------------------------------------------------------

export type ErrorCode =
  "bad-file" | "unsupported" | "bad-recipe" | "bad-data" | "out-of-memory" | "cancelled" | "internal";

export interface Progress {
  phase:
    | "load"
    | "open"
    | "prune"
    | "quantize"
    | "cluster"
    | "train"
    | "curvature"
    | "encode"
    | "evaluate"
    | "compare"
    | "report"
    | "bytes"
    | "write";
  item: string;
  /** Of the whole call, 0 to 1. */
  fraction: number;
}

export interface CallOptions {
  /** Really stops the work: the engine's worker is ended and made anew. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}
