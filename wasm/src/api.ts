// The shape of the client: what `load()` gives. Kept apart from its implementation so that the page, the command and the
// tests depend on this alone.
import type { CallOptions, ErrorCode, ModelInfo, PictureOptions, Recipe, Report, WeightPicture } from "./types";

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
export type Format = "onnx" | "safetensors";

export interface OpenOptions extends CallOptions {
  /** File name, for messages and for the model's name. */
  name?: string;
  /** External data by the file name that the model gives (only the last part of a path counts). */
  external?: Record<string, Bytes>;
}

export interface Engine {
  /** Opens an ONNX or safetensors file, told apart by content. The bytes are copied; the caller keeps its own. */
  open(file: Bytes, options?: OpenOptions): Promise<Model>;
  /** Checks a recipe (object or JSON text) and returns it with every default filled in; throws "bad-recipe". */
  check(recipe: Recipe | string): Promise<Recipe>;
  /** Ends the worker; every model is gone. */
  close(): void;
}

export interface CompressOptions extends CallOptions {
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
  /** The file: QDQ weights for ONNX. Default: the opened file's own format. */
  export(format?: Format, options?: CallOptions): Promise<Uint8Array>;
  dispose(): void;
}

export interface LoadOptions {
  /** Where engine.wasm is, if not beside the script. */
  wasmUrl?: string | URL;
  /** The module's bytes, instead of a URL. */
  wasmBinary?: ArrayBuffer | Uint8Array;
  /** false: run in this thread (a call cannot then be stopped half way). Default true. */
  worker?: boolean;
  signal?: AbortSignal;
}

/** What the package exports as `load`. */
export type Load = (options?: LoadOptions) => Promise<Engine>;
