// The shape of the client: what `load()` gives. Kept apart from its implementation so that the page, the command and the
// tests depend on this alone.
import type {
  ByteReport,
  CallOptions,
  Comparison,
  DataInfo,
  DataOptions,
  DataSpec,
  ErrorCode,
  Evaluation,
  ModelInfo,
  PictureOptions,
  Preparation,
  Recipe,
  Report,
  TensorValue,
  TrainChoice,
  TrainProgress,
  WeightPicture,
} from "./types";

/** Every failure of the package. `where` is a path into the input: "steps[2].bits", "conv1.weight", "byte 1042". */
export class NibbleError extends Error {
  override readonly name = "NibbleError";
  constructor(
    readonly code: ErrorCode,
    readonly where: string,
    /** The sentence without `where`; `message` has both. */
    readonly detail: string,
  ) {
    super(where ? `${where}: ${detail}` : detail);
  }
}

export type Bytes = Blob | ArrayBuffer | Uint8Array;
/** Of a file to write. "nib" holds a model of either other format, entropy coded; `nibble-nn/decode` turns it back. */
export type Format = "onnx" | "safetensors" | "nib";

export interface OpenOptions extends CallOptions {
  /** File name, for messages and for the model's name. */
  name?: string;
  /** External data by the file name that the model gives (only the last part of a path counts). */
  external?: Record<string, Bytes>;
}

export interface Engine {
  /** Opens an ONNX, safetensors or .nib file, told apart by content. The bytes are copied; the caller keeps its own. */
  open(file: Bytes, options?: OpenOptions): Promise<Model>;
  /** Data to run and train with: made from a seed, or from what the user has: IDX (gzipped or not), npz, npy, CSV, or
   *  images in folders named by their class (a zip of them, or files whose names have the folder). */
  data(source: DataSpec | NamedBytes[], options?: DataSourceOptions): Promise<Data>;
  /** A new network with freshly drawn weights: "lenet-5", "resnet-8", ... */
  create(architecture: string, options?: { seed?: number }): Promise<Model>;
  /** The names that create() knows. */
  architectures(): Promise<{ name: string; summary: string }[]>;
  /** Checks a recipe (object or JSON text) and returns it with every default filled in; throws "bad-recipe". */
  check(recipe: Recipe | string): Promise<Recipe>;
  /** Ends the worker; every model is gone. */
  close(): void;
}

export interface NamedBytes {
  /** With the folders, where they are the labels. */
  name: string;
  /** In Node a file: URL stands for the file itself. */
  bytes: Bytes | URL;
}

export interface DataSourceOptions extends CallOptions {
  /** Samples of an npy or IDX file of more bytes than this stay in it and are read batch by batch, so that they may be
   *  more than memory: of a File in a browser (whose worker alone can do that), of a file: URL in Node. 1 GiB where it
   *  is not given. Labels, tables and archives are read whole. */
  heldBytes?: number;
}

/** Samples, in the engine. Freed by `using` or by dispose. */
export interface Data extends Disposable {
  readonly info: DataInfo;
  /** Samples as they are stored, and their labels (empty where there are none). */
  samples(indices: ArrayLike<number>): Promise<{ values: Uint8Array | Float32Array; labels: Int32Array }>;
  dispose(): void;
}

export interface DataCallOptions extends CallOptions, DataOptions {}

/** Training that is under way: run, pause, look, go on. Freed by `using` or by dispose. */
export interface Training extends Disposable {
  /** Trains until it is done, or `signal` asks to stop, which it does after the batch at hand: nothing is lost, and run()
   *  goes on where it stopped. Gives where it stands. */
  run(options?: { signal?: AbortSignal; onProgress?: (progress: TrainProgress) => void }): Promise<TrainProgress>;
  readonly progress: TrainProgress | null;
  /** A model with the weights as they are now, or with those of the lowest validation loss. */
  model(which?: "current" | "best"): Promise<Model>;
  /** Everything the next step depends on: restore() in a training of the same model, data and choice goes on bit for bit. */
  save(): Promise<Uint8Array>;
  restore(saved: Bytes): Promise<void>;
  dispose(): void;
}

export interface CompressOptions extends CallOptions {
  /** What a step "train" learns from, or a step "encode" finds importance with, and how it is split and prepared. */
  data?: Data;
  dataOptions?: DataOptions;
  /** The format that the report's sizes are of. Default: the opened file's own. */
  format?: Format;
}

/** An opened or compressed model, unchanging. Freed by `using` or by dispose. */
export interface Model extends Disposable {
  readonly info: ModelInfo;
  /** Runs a recipe; this model stays as it is. */
  compress(recipe: Recipe, options?: CompressOptions): Promise<{ model: Model; report: Report }>;
  /** A weight's values as float32, row major: a copy. */
  values(weight: string): Promise<Float32Array>;
  /** What changed in one weight between this model and a result of compressing it. */
  picture(weight: string, result: Model, options?: PictureOptions): Promise<WeightPicture>;
  /** Where the bytes of a .nib file of it go. Without `exact` large weights are coded in part: the sum is then mostly
   *  within 2 %, in some 10 ms a weight. Default exact. */
  bytes(options?: CallOptions & { exact?: boolean }): Promise<ByteReport>;
  /** A weight's codes, bit-packed; its values as they are stored where it has none. For other compressors to try. */
  packed(weight: string): Promise<Uint8Array>;
  /** Why the model cannot be run (naming operators and nodes), or null where it can. */
  cannotRun(): Promise<string | null>;
  /** One forward pass with inputs by name; gives the graph's outputs, or the values named in `outputs`. */
  run(
    inputs: Record<string, TensorValue>,
    options?: CallOptions & { outputs?: string[] },
  ): Promise<Record<string, TensorValue>>;
  /** How these data become this model's input: what the model's metadata say, or else the range of numbers that gives the
   *  best accuracy on the calibration split, with the reason. */
  prepare(data: Data, options?: DataCallOptions): Promise<Preparation>;
  evaluate(data: Data, options?: DataCallOptions): Promise<Evaluation>;
  /** This model beside another: accuracy, activations, flipped samples. */
  compare(other: Model, data: Data, options?: DataCallOptions): Promise<Comparison>;
  /** One value of the graph (see Comparison.activations) for one sample of the data. */
  activation(
    data: Data,
    index: number,
    value: string,
    options?: DataCallOptions,
  ): Promise<{ shape: number[]; values: Float32Array }>;
  train(data: Data, choice?: TrainChoice, options?: DataCallOptions): Promise<Training>;
  /** The file: QDQ weights for ONNX. Default: the opened file's own format. */
  export(format?: Format, options?: CallOptions): Promise<Uint8Array>;
  dispose(): void;
}

export interface LoadOptions {
  /** Where engine.wasm is, if not beside the script. */
  wasmUrl?: string | URL;
  /** The module's bytes, instead of a URL. */
  wasmBinary?: ArrayBuffer | Uint8Array;
  /** Which build runs: "relaxed" is faster at running and training, and its numbers may differ in the last bits from one
   *  machine to the next; what quantizing and pruning give is the same in both. Default "auto": relaxed where the machine
   *  has it. With `wasmUrl` or `wasmBinary` this says nothing. */
  arithmetic?: "auto" | "strict" | "relaxed";
  /** false: run in this thread (a call cannot then be stopped half way). Default true. */
  worker?: boolean;
  signal?: AbortSignal;
}

/** What the package exports as `load`. */
export type Load = (options?: LoadOptions) => Promise<Engine>;
