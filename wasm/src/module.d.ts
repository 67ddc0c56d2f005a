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
  /** A file of data whose bytes stay where they are. `read` fills `into` with those from `offset` on whenever they are
   *  needed, and gives "" or why it cannot. */
  add_stored(name: string, size: number, read: (offset: number, into: Uint8Array) => string): void;
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
    /** What a step "train" learns from; 0 for none. */
    data: number,
    /** DataOptions as JSON, "" for the defaults. */
    options: string,
    listener: Listener,
  ): Outcome<{ model: number; report: string }>;
  values(model: number, weight: string): Outcome<Float32Array>;
  /** ByteReport as JSON. */
  bytes(model: number, exact: boolean, listener: Listener): Outcome<string>;
  packed(model: number, weight: string): Outcome<Uint8Array>;
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
  /** The file's exact bytes, "onnx", "safetensors", "nib" or "" for the model's own format. */
  write(model: number, format: string, listener: Listener): Outcome<Uint8Array>;
  /** Frees a model; its number is not used again. */
  close(model: number): void;

  // Data. `options` is DataOptions of types.ts as JSON ("" for the defaults).

  /** From a DataSpec of types.ts without bytes: {"kind":"digits",...}. Gives a data number. */
  make_data(spec: string): Outcome<number>;
  /** From files. {"kind":"files","name":...}: IDX, npy (an npz's members), CSV, unpacked already. {"kind":"arrays","name",
   *  "shape","layout","class_names","test_from"}: files[0] the samples' bytes (uint8, [n, shape...]), files[1] the labels
   *  as int32, or no second one. */
  open_data(files: Files, spec: string): Outcome<number>;
  /** DataInfo as JSON. */
  describe_data(data: number, options: string): Outcome<string>;
  /** Samples as they are stored, one after the other, and their labels (empty where there are none). */
  samples(data: number, indices: Uint32Array): Outcome<{ values: Uint8Array | Float32Array; labels: Int32Array }>;
  close_data(data: number): void;

  // Running.

  /** "" where the model can be run, else the sentence that says why not. */
  cannot_run(model: number): Outcome<string>;
  /** One forward pass. `files` hold the inputs' bytes in the order of `inputs`, JSON [{"name","dtype","shape"}]; `outputs`
   *  is a JSON list of value names, [] for the graph's outputs. Gives the same of the outputs, bytes beside it. */
  run(model: number, files: Files, inputs: string, outputs: string): Outcome<{ outputs: string; data: Uint8Array[] }>;
  /** Preparation as JSON: options.preparation, or what is guessed from model and data. */
  prepare(model: number, data: number, options: string, listener: Listener): Outcome<string>;
  /** `report` is EvaluationReport as JSON; arrays beside it, `indices` into the data. */
  evaluate(
    model: number,
    data: number,
    options: string,
    listener: Listener,
  ): Outcome<{
    report: string;
    indices: Uint32Array;
    predictions: Int32Array;
    confidence: Float32Array;
    confusion: Uint32Array;
  }>;
  /** `report` is ComparisonReport as JSON; `flipped` are indices into the data. */
  compare(
    before: number,
    after: number,
    data: number,
    options: string,
    listener: Listener,
  ): Outcome<{
    report: string;
    indices: Uint32Array;
    flipped: Uint32Array;
    predictions_before: Int32Array;
    predictions_after: Int32Array;
    confidence_before: Float32Array;
    confidence_after: Float32Array;
    confusion_before: Uint32Array;
    confusion_after: Uint32Array;
  }>;
  /** One value of the graph for one sample of the data. `shape` is JSON, without the batch extent. */
  activation(
    model: number,
    data: number,
    index: number,
    value: string,
    options: string,
  ): Outcome<{ shape: string; values: Float32Array }>;

  // Training.

  /** JSON [{"name","summary"}]. */
  architectures(): string;
  /** A model of an architecture's name with freshly drawn weights. */
  create(architecture: string, seed: number): Outcome<number>;
  /** `choice` is TrainChoice as JSON. Gives a trainer number; the model and the data may be closed. */
  train_open(model: number, data: number, choice: string, options: string, listener: Listener): Outcome<number>;
  /** Batches for about so many milliseconds, at least one; TrainProgress[] as JSON. */
  train_step(trainer: number, milliseconds: number, listener: Listener): Outcome<string>;
  /** The model as it is now, "current", or with the lowest validation loss, "best". */
  train_model(trainer: number, which: string): Outcome<number>;
  train_save(trainer: number): Outcome<Uint8Array>;
  train_restore(trainer: number, files: Files): Outcome<null>;
  train_close(trainer: number): void;

  /** True for the build with relaxed multiply-add. */
  relaxed(): boolean;
  /** Bytes that the module's allocator holds now. */
  heap_bytes(): number;
}

export default function createEngine(options?: {
  wasmBinary?: ArrayBuffer | Uint8Array;
  locateFile?: (name: string) => string;
}): Promise<EngineModule>;
