// What crosses between the client and the thread that holds the engine. Errors cross as data: a thrown Error would lose
// its code and place on the way. Descriptions and reports cross as JSON text, arrays are transferred.
import type { ErrorCode, Progress } from "./types";

export interface Failure {
  code: ErrorCode;
  where: string;
  detail: string;
  /** The engine trapped: its heap can no longer be trusted and it must be replaced. */
  fatal: boolean;
}

export type Reply<T> = { value: T } | { failure: Failure };

/** What the engine holds by number; each kind counts for itself. */
export type Kind = "model" | "data" | "training";

export interface NamedBlob {
  name: string;
  blob: Blob;
}

/** A file that Node's threads read for themselves: a Blob of a file cannot be sent to them. */
export interface DiskFile {
  path: string;
  size: number;
  /** When it was last changed, in milliseconds: whoever reads it later notices a change. */
  modified: number;
}

/** A file of data. */
export interface DataFile {
  name: string;
  file: Blob | DiskFile;
}

/** The numbers of a picture: the range that both histograms share, and the error map's sizes and largest cell. */
export interface PictureScalars {
  lo: number;
  hi: number;
  rows: number;
  columns: number;
  weight_rows: number;
  weight_columns: number;
  max: number;
}

/** Every array of a picture; `scalars` is PictureScalars as JSON. */
export interface PictureParts {
  scalars: string;
  before: Uint32Array;
  after: Uint32Array;
  levels: Float32Array;
  cells: Float32Array;
  mse: Float32Array;
  sqnr_db: Float32Array;
  max_abs: Float32Array;
}

/** A model that the engine now has; `info` is ModelInfo as JSON. */
export interface MadeModel {
  model: number;
  info: string;
}

/** Data that the engine now has; `info` is DataInfo as JSON. */
export interface MadeData {
  data: number;
  info: string;
}

/** A tensor without its values. */
export interface TensorHead {
  name: string;
  dtype: string;
  shape: number[];
}

/** `report` is EvaluationReport as JSON. */
export interface EvaluationParts {
  report: string;
  indices: Uint32Array;
  predictions: Int32Array;
  confidence: Float32Array;
  confusion: Uint32Array;
}

/** `report` is ComparisonReport as JSON. */
export interface ComparisonParts {
  report: string;
  indices: Uint32Array;
  flipped: Uint32Array;
  predictions_before: Int32Array;
  predictions_after: Int32Array;
  confidence_before: Float32Array;
  confidence_after: Float32Array;
  confusion_before: Uint32Array;
  confusion_after: Uint32Array;
}

/** The engine's thread. Models, data and trainings are numbers; a call runs to its end before the next one starts.
 *  `options` is DataOptions as JSON, `choice` TrainChoice. */
export interface Host {
  /** Instantiates the module; comes before every other call. */
  start(wasm: WebAssembly.Module): Promise<Reply<null>>;

  /** The first file is the model, the others its external data. */
  open(files: NamedBlob[]): Promise<Reply<MadeModel>>;
  create(architecture: string, seed: number): Promise<Reply<MadeModel>>;
  /** JSON: names and summaries. */
  architectures(): Promise<Reply<string>>;
  check(recipe: string): Promise<Reply<string>>;
  /** `data` is 0 where there are none; `report` is Report as JSON. */
  compress(
    model: number,
    recipe: string,
    format: string,
    data: number,
    options: string,
  ): Promise<Reply<MadeModel & { report: string }>>;
  values(model: number, weight: string): Promise<Reply<Float32Array>>;
  /** ByteReport as JSON. */
  bytes(model: number, exact: boolean): Promise<Reply<string>>;
  packed(model: number, weight: string): Promise<Reply<Uint8Array>>;
  picture(model: number, result: number, weight: string, options: string): Promise<Reply<PictureParts>>;
  write(model: number, format: string): Promise<Reply<Uint8Array>>;

  makeData(spec: string): Promise<Reply<MadeData>>;
  /** Arrays of more than `held` bytes stay in their file where the thread can read it at any time. */
  openData(files: DataFile[], spec: string, held: number): Promise<Reply<MadeData>>;
  samples(
    data: number,
    indices: Uint32Array,
  ): Promise<Reply<{ values: Uint8Array | Float32Array; labels: Int32Array }>>;

  cannotRun(model: number): Promise<Reply<string>>;
  /** `inputs` and the reply's `outputs` are TensorHead[] as JSON, with the bytes of each beside it. */
  run(
    model: number,
    inputs: string,
    bytes: Uint8Array[],
    outputs: string,
  ): Promise<Reply<{ outputs: string; data: Uint8Array[] }>>;
  /** Preparation as JSON. */
  prepare(model: number, data: number, options: string): Promise<Reply<string>>;
  evaluate(model: number, data: number, options: string): Promise<Reply<EvaluationParts>>;
  compare(before: number, after: number, data: number, options: string): Promise<Reply<ComparisonParts>>;
  /** `shape` is JSON. */
  activation(
    model: number,
    data: number,
    index: number,
    value: string,
    options: string,
  ): Promise<Reply<{ shape: string; values: Float32Array }>>;

  trainOpen(model: number, data: number, choice: string, options: string): Promise<Reply<number>>;
  /** TrainProgress[] as JSON. */
  trainStep(training: number, milliseconds: number): Promise<Reply<string>>;
  trainModel(training: number, which: string): Promise<Reply<MadeModel>>;
  trainSave(training: number): Promise<Reply<Uint8Array>>;
  trainRestore(training: number, saved: Blob): Promise<Reply<null>>;

  close(held: number, kind: Kind): Promise<Reply<null>>;
}

/** What a worker says beside its replies: once that its script runs, then how far a call is. Sent on the same channel as
 *  the replies, so progress never arrives after the reply to its call. */
export type WorkerMessage = { ready: true } | { progress: Progress };
