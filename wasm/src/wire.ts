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

export interface NamedBlob {
  name: string;
  blob: Blob;
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

/** The engine's thread. Models are numbers; a call runs to its end before the next one starts. */
export interface Host {
  /** Instantiates the module; comes before every other call. */
  start(wasm: WebAssembly.Module): Promise<Reply<null>>;
  /** The first file is the model, the others its external data. `info` is ModelInfo as JSON. */
  open(files: NamedBlob[]): Promise<Reply<{ model: number; info: string }>>;
  check(recipe: string): Promise<Reply<string>>;
  /** `info` is the result's ModelInfo, `report` its Report, both as JSON. */
  compress(
    model: number,
    recipe: string,
    format: string,
  ): Promise<Reply<{ model: number; info: string; report: string }>>;
  values(model: number, weight: string): Promise<Reply<Float32Array>>;
  picture(model: number, result: number, weight: string, options: string): Promise<Reply<PictureParts>>;
  write(model: number, format: string): Promise<Reply<Uint8Array>>;
  close(model: number): Promise<Reply<null>>;
}

/** What a worker says beside its replies: once that its script runs, then how far a call is. Sent on the same channel as
 *  the replies, so progress never arrives after the reply to its call. */
export type WorkerMessage = { ready: true } | { progress: Progress };
