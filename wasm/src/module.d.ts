// What bindings.cpp exports through Embind. Checked against the compiled module by tests/wasm/bindings.test.ts.

/** A call's outcome: C++ errors never cross as exceptions. */
export type Outcome<T> = { ok: true; value: T } | { ok: false; code: string; where: string; message: string };

/** Bytes in the module's heap. `view()` is valid only within the statement that uses it. */
export interface Buffer {
  view(): Uint8Array;
  delete(): void;
}

/** The files of one `open` call; the main file is the first. */
export interface Files {
  /** Takes room for `size` bytes; fill it through the buffer's view. Out of memory gives a failed outcome. */
  add(name: string, size: number): Outcome<Buffer>;
  delete(): void;
}

/** Returns false to stop. */
export type Listener = (phase: string, item: string, fraction: number) => boolean;

export interface EngineModule {
  Files: { new (): Files };
  version(): string;
  /** Opens files[0], consuming the buffers; gives a model number. */
  open(files: Files, listener: Listener): Outcome<number>;
  /** ModelInfo as JSON. */
  describe(model: number): Outcome<string>;
  /** The recipe with defaults filled in, as JSON. */
  check(recipe: string): Outcome<string>;
  /** Gives the new model's number and, as JSON, the Report of a file of `format` ("" for the model's own). */
  compress(
    model: number,
    recipe: string,
    format: string,
    listener: Listener,
  ): Outcome<{ model: number; report: string }>;
  values(model: number, weight: string): Outcome<Float32Array>;
  /** Options and the scalar part of the result as JSON; arrays beside it. */
  picture(
    model: number,
    result: number,
    weight: string,
    options: string,
  ): Outcome<{
    scalars: string;
    before: Uint32Array;
    after: Uint32Array;
    levels: Float32Array;
    cells: Float32Array;
    mse: Float32Array;
    sqnr_db: Float32Array;
    max_abs: Float32Array;
  }>;
  /** The file's exact bytes, "onnx" or "safetensors" or "" for the model's own format. */
  write(model: number, format: string, listener: Listener): Outcome<Uint8Array>;
  /** Frees a model; its number is not used again. */
  close(model: number): void;
  /** Bytes that the module's allocator holds now. */
  heap_bytes(): number;
}

export default function createEngine(options?: {
  wasmBinary?: ArrayBuffer | Uint8Array;
  locateFile?: (name: string) => string;
}): Promise<EngineModule>;
