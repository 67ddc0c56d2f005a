// Turns a .nib file back into the model it was made from: a few kilobytes to put on any page, without the engine, a worker
// or a dependency. Decodes while the bytes arrive.
import packed from "inlined:decoder";
import { NibbleError } from "./api";
import { gunzipped } from "./gzip";
import type { ErrorCode } from "./types";

export { NibbleError } from "./api";
export type { ErrorCode } from "./types";

/** Where the bytes come from. A Response is read as it arrives; of a Blob only what is asked for is read. */
export type NibSource = Uint8Array | ArrayBuffer | Blob | Response | ReadableStream<Uint8Array>;

export interface DecodeOptions {
  /** "float": the model file with all values in full, which every runtime opens. "quantized": the ONNX file with integer
   *  weights behind DequantizeLinear nodes, where the .nib holds one. Default "float". */
  form?: "float" | "quantized";
  /** Refuse files that would become larger than this, in bytes. Default 2 GiB. */
  maxBytes?: number;
  signal?: AbortSignal;
  /** Bytes read so far, and the file's size. */
  onProgress?: (done: number, total: number) => void;
}

/** A tensor of the model with its values in full. `data` holds float16 and bfloat16 as bits, types narrower than a byte
 *  packed, first element in the low bits. */
export interface NibTensor {
  name: string;
  dtype: string;
  shape: number[];
  data: TypedArray;
}
type TypedArray =
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

/** What a file says about itself. */
export interface NibInfo {
  /** Of the decoded file. */
  format: "onnx" | "safetensors";
  /** Sizes of the decoded file in each of its forms. */
  bytes: { float: number; quantized: number | null };
  /** What `decodeTensors` gives. */
  tensors: { name: string; dtype: string; shape: number[] }[];
  /** JSON of the recipes that made the model, the first one first. */
  recipes: string[];
  /** Size of the file that the model was made from; 0 where that is not known. */
  original_bytes: number;
}

/** What decoder.cpp exports. */
interface Decoder {
  memory: WebAssembly.Memory;
  _initialize(): void;
  reserve(size: number): number;
  release(bytes: number): void;
  extent(bytes: number, size: number): number;
  open(bytes: number, size: number): void;
  format(): number;
  has_quantized(): number;
  tensors(): number;
  tensor_name(tensor: number): number;
  tensor_name_size(tensor: number): number;
  tensor_dtype(tensor: number): number;
  tensor_dtype_size(tensor: number): number;
  tensor_rank(tensor: number): number;
  tensor_extent(tensor: number, axis: number): number;
  recipes(): number;
  recipe(index: number): number;
  recipe_size(index: number): number;
  original_bytes(): number;
  blocks(): number;
  block_offset(block: number): number;
  block_bytes(block: number): number;
  block_first(block: number): number;
  block_tensors(block: number): number;
  block_room(block: number): number;
  form_bytes(form: number): number;
  form_text(form: number): number;
  form_text_size(form: number): number;
  holes(form: number): number;
  hole_tensor(form: number, hole: number): number;
  hole_offset(form: number, hole: number): number;
  hole_bytes(form: number, hole: number): number;
  decode(block: number, bytes: number, size: number): void;
  fill(form: number, hole: number): number;
}

/** The model file: ONNX for onnxruntime-web and others, or safetensors, as `inspectNib` says. */
export async function decode(source: NibSource, options: DecodeOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
  const { form = "float", maxBytes = 2 ** 31 } = options;
  if (form !== "float" && form !== "quantized") {
    throw new NibbleError("bad-data", "form", `expected "float" or "quantized", got "${String(form)}"`);
  }
  const file = await OpenedNib.open(source, options);
  try {
    const { wasm } = file;
    const kind = form === "quantized" ? 1 : 0;
    if (kind && !wasm.has_quantized()) {
      throw new NibbleError("unsupported", "form", 'this file holds no quantized form: decode it as "float"');
    }
    const size = wasm.form_bytes(kind);
    if (size > maxBytes) {
      throw new NibbleError("out-of-memory", "", `decoded it has ${size} bytes, expected at most ${maxBytes}`);
    }
    const out = allocate(size);
    const holes = Array.from({ length: wasm.holes(kind) }, (_, hole) => ({
      hole,
      tensor: wasm.hole_tensor(kind, hole),
      offset: wasm.hole_offset(kind, hole),
      bytes: wasm.hole_bytes(kind, hole),
    }));
    // The text lies between the holes.
    const text = file.view(wasm.form_text(kind), wasm.form_text_size(kind));
    let taken = 0;
    let at = 0;
    for (const { offset, bytes } of holes) {
      out.set(text.subarray(taken, taken + offset - at), at);
      taken += offset - at;
      at = offset + bytes;
    }
    out.set(text.subarray(taken), at);

    const byTensor = new Map<number, typeof holes>();
    for (const hole of holes) byTensor.set(hole.tensor, [...(byTensor.get(hole.tensor) ?? []), hole]);
    for (let block = 0; block < wasm.blocks(); block++) {
      await file.decode(block);
      const first = wasm.block_first(block);
      for (let tensor = first; tensor < first + wasm.block_tensors(block); tensor++) {
        for (const { hole, offset, bytes } of byTensor.get(tensor) ?? []) {
          const filled = guarded(() => wasm.fill(kind, hole));
          out.set(file.view(filled, bytes), offset);
        }
      }
    }
    await file.end();
    return out;
  } finally {
    await file.cancel();
  }
}

/** The tensors one by one, in the order of the file: weights, and what else has more than 32 bytes (smaller ones are part
 *  of the file's text). With `names` only these, and of a Blob only their blocks are read. */
export async function* decodeTensors(
  source: NibSource,
  options: Omit<DecodeOptions, "form"> & { names?: readonly string[] } = {},
): AsyncGenerator<NibTensor, void, void> {
  const { maxBytes = 2 ** 31, names } = options;
  const file = await OpenedNib.open(source, options);
  // Also where the caller has enough and asks for no further tensor.
  try {
    const { wasm } = file;
    const infos = file.tensors();
    const wanted = names && new Set(names);
    for (const name of wanted ?? []) {
      if (!infos.some((tensor) => tensor.name === name)) {
        throw new NibbleError("bad-data", name, "expected the name of a tensor that inspectNib lists");
      }
    }
    for (let block = 0; block < wasm.blocks(); block++) {
      const first = wasm.block_first(block);
      const here = infos
        .map((info, tensor) => ({ info, tensor }))
        .slice(first, first + wasm.block_tensors(block))
        .filter(({ info }) => !wanted || wanted.has(info.name));
      if (here.length === 0) continue;
      if (wasm.block_room(block) > maxBytes) {
        throw new NibbleError("out-of-memory", here[0]!.info.name, `needs more than ${maxBytes} bytes`);
      }
      await file.decode(block);
      for (const { info, tensor } of here) {
        // The hole of a tensor's values has its number, see nib_container.hpp.
        const bytes = wasm.hole_bytes(0, tensor);
        const own = allocate(bytes);
        const filled = guarded(() => wasm.fill(0, tensor));
        own.set(file.view(filled, bytes));
        yield { ...info, data: typed(info.dtype, own.buffer) };
      }
    }
    if (!wanted) await file.end();
  } finally {
    await file.cancel();
  }
}

/** Reads the header alone. */
export async function inspectNib(source: NibSource): Promise<NibInfo> {
  const file = await OpenedNib.open(source, {});
  await file.cancel();
  const { wasm } = file;
  return {
    format: wasm.format() === 0 ? "onnx" : "safetensors",
    bytes: { float: wasm.form_bytes(0), quantized: wasm.has_quantized() ? wasm.form_bytes(1) : null },
    tensors: file.tensors(),
    recipes: Array.from({ length: wasm.recipes() }, (_, i) => file.text(wasm.recipe(i), wasm.recipe_size(i))),
    original_bytes: wasm.original_bytes(),
  };
}

// --- Inside ----------------------------------------------------------------------------------------------------------

const codes: ErrorCode[] = ["bad-file", "unsupported", "bad-recipe", "bad-data", "out-of-memory", "cancelled"];

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

let compiling: Promise<WebAssembly.Module> | undefined;

function compiled(): Promise<WebAssembly.Module> {
  compiling ??= (async () => {
    const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
    const module = await new Response(gunzipped(new Blob([bytes]), "", "the decoder")).arrayBuffer();
    return WebAssembly.compile(module).catch((error: unknown) => {
      const needed = "WebAssembly SIMD (Chrome 95, Firefox 113, Safari 16.4)";
      const why = `this browser cannot compile the decoder, which needs ${needed}: ${reasonOf(error)}`;
      throw new NibbleError("unsupported", "", why);
    });
  })();
  return compiling;
}

/** A module of one's own: a failure in it leaves nothing behind. */
async function instantiate(): Promise<Decoder> {
  const instance = await WebAssembly.instantiate(await compiled(), {
    nibble: {
      fail(code: number, where: number, whereSize: number, message: number, messageSize: number): never {
        const { memory } = instance.exports as unknown as Decoder;
        const text = (at: number, size: number) => new TextDecoder().decode(new Uint8Array(memory.buffer, at, size));
        throw new NibbleError(codes[code] ?? "internal", text(where, whereSize), text(message, messageSize));
      },
    },
    env: { emscripten_notify_memory_growth() {} },
  });
  const decoder = instance.exports as unknown as Decoder;
  decoder._initialize();
  return decoder;
}

/** A trap is what is left when memory runs out: the module is built without exceptions. */
function guarded<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof WebAssembly.RuntimeError)) throw error;
    throw new NibbleError("out-of-memory", "", `decoding needs more memory than there is (${error.message})`);
  }
}

function allocate(size: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(size);
  } catch {
    throw new NibbleError("out-of-memory", "", `no room for ${size} bytes`);
  }
}

/** A file whose header has been read. Blocks are decoded in their order, or out of it where the source can be sliced. */
class OpenedNib {
  /** Bytes before the first block. */
  #header = 0;

  private constructor(
    readonly wasm: Decoder,
    private readonly bytes: ByteSource,
    private readonly options: Pick<DecodeOptions, "signal" | "onProgress">,
  ) {}

  static async open(source: NibSource, options: DecodeOptions): Promise<OpenedNib> {
    const bytes = sourceOf(source, options.signal);
    try {
      const file = new OpenedNib(await instantiate(), bytes, options);
      await file.#readHeader();
      return file;
    } catch (error) {
      await bytes.cancel();
      throw error;
    }
  }

  async #readHeader(): Promise<void> {
    const { wasm } = this;
    let wanted = 32;
    for (;;) {
      const start = await this.bytes.read(0, wanted);
      const extent = this.#within(start, (at) => wasm.extent(at, start.length));
      if ((extent > 0 && start.length >= extent) || start.length < wanted) {
        this.#header = extent || start.length;
        this.#within(start.subarray(0, this.#header), (at, size) => wasm.open(at, size));
        return;
      }
      wanted = extent || wanted * 2;
    }
  }

  /** Calls `body` with the bytes in the module's memory. */
  #within<T>(bytes: Uint8Array, body: (at: number, size: number) => T): T {
    const at = guarded(() => this.wasm.reserve(bytes.length));
    if (at === 0) throw new NibbleError("out-of-memory", "", `no room for ${bytes.length} bytes`);
    this.view(at, bytes.length).set(bytes);
    const result = guarded(() => body(at, bytes.length));
    this.wasm.release(at);
    return result;
  }

  /** Valid until the module is called again. */
  view(at: number, size: number): Uint8Array {
    return new Uint8Array(this.wasm.memory.buffer, at, size);
  }
  text(at: number, size: number): string {
    return new TextDecoder().decode(this.view(at, size));
  }

  tensors(): NibInfo["tensors"] {
    const { wasm } = this;
    return Array.from({ length: wasm.tensors() }, (_, tensor) => ({
      name: this.text(wasm.tensor_name(tensor), wasm.tensor_name_size(tensor)),
      dtype: this.text(wasm.tensor_dtype(tensor), wasm.tensor_dtype_size(tensor)),
      shape: Array.from({ length: wasm.tensor_rank(tensor) }, (_none, axis) => wasm.tensor_extent(tensor, axis)),
    }));
  }

  get #size(): number {
    const last = this.wasm.blocks() - 1;
    return last < 0 ? this.#header : this.wasm.block_offset(last) + this.wasm.block_bytes(last);
  }

  async decode(block: number): Promise<void> {
    const { wasm, options } = this;
    const offset = wasm.block_offset(block);
    const size = wasm.block_bytes(block);
    const bytes = await this.bytes.read(offset, size);
    if (bytes.length < size) {
      throw new NibbleError(
        "bad-file",
        `byte ${offset + bytes.length}`,
        `the file is cut off: it has ${offset + bytes.length} of ${this.#size} bytes`,
      );
    }
    this.#within(bytes, (at) => wasm.decode(block, at, size));
    options.onProgress?.(offset + size, this.#size);
  }

  /** After the last block nothing may follow. */
  async end(): Promise<void> {
    const size = this.#size;
    const more = await this.bytes.read(size, 1);
    if (more.length) throw new NibbleError("bad-file", `byte ${size}`, "bytes follow the last block");
  }
  cancel(): Promise<void> {
    return this.bytes.cancel();
  }
}

/** Gives `size` bytes from `offset`, fewer where the source ends. */
interface ByteSource {
  read(offset: number, size: number): Promise<Uint8Array>;
  /** Nothing more will be read. */
  cancel(): Promise<void>;
}

const stopped = () => new NibbleError("cancelled", "", "stopped by the caller");

/** What to throw for what a browser throws where a source breaks off at `offset`: a connection that was lost, a file that
 *  was removed. A request that the caller aborted breaks off its response, too. */
function brokenOff(error: unknown, offset: number, signal: AbortSignal | undefined): NibbleError {
  if (error instanceof NibbleError) return error;
  if (signal?.aborted || (error instanceof Error && error.name === "AbortError")) return stopped();
  return new NibbleError("bad-file", `byte ${offset}`, `the source cannot be read on: ${reasonOf(error)}`);
}

function sourceOf(source: NibSource, signal: AbortSignal | undefined): ByteSource {
  const check = () => {
    if (signal?.aborted) throw stopped();
  };
  check();
  if (source instanceof Uint8Array || source instanceof ArrayBuffer) {
    const bytes = source instanceof ArrayBuffer ? new Uint8Array(source) : source;
    return sliced((offset, size) => Promise.resolve(bytes.subarray(offset, offset + size)), check);
  }
  if (source instanceof Blob) {
    return sliced(async (offset, size) => {
      try {
        return new Uint8Array(await source.slice(offset, offset + size).arrayBuffer());
      } catch (error) {
        throw brokenOff(error, offset, signal);
      }
    }, check);
  }
  if (source instanceof Response) {
    if (!source.ok) {
      throw new NibbleError("bad-file", source.url, `the server answered ${source.status} ${source.statusText}`);
    }
    if (!source.body) throw new NibbleError("bad-file", source.url, "the response has no body");
    return new StreamSource(source.body, signal);
  }
  if (source instanceof ReadableStream) return new StreamSource(source, signal);
  throw new NibbleError("bad-data", "source", "expected bytes, a Blob, a Response or a ReadableStream");
}

const sliced = (read: ByteSource["read"], check: () => void): ByteSource => ({
  read: async (offset, size) => {
    check();
    return read(offset, size);
  },
  cancel: () => Promise.resolve(),
});

/** Reads forward only: what lies before the last offset that was asked for is let go. */
class StreamSource implements ByteSource {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #signal: AbortSignal | undefined;
  #chunks: Uint8Array[] = [];
  /** Where the first chunk lies, and where the last one ends. */
  #from = 0;
  #to = 0;
  #ended = false;

  constructor(stream: ReadableStream<Uint8Array>, signal: AbortSignal | undefined) {
    if (stream.locked) throw new NibbleError("bad-data", "source", "expected a stream that nobody else reads");
    this.#reader = stream.getReader();
    this.#signal = signal;
  }

  async read(offset: number, size: number): Promise<Uint8Array> {
    while (this.#to < offset + size && !this.#ended) {
      const { done, value } = await this.#next().catch((error: unknown) => {
        throw brokenOff(error, this.#to, this.#signal);
      });
      if (done) {
        this.#ended = true;
      } else if (value.length > 0) {
        this.#chunks.push(value);
        this.#to += value.length;
      }
    }
    if (this.#signal?.aborted) throw stopped();
    while (this.#chunks.length && this.#from + this.#chunks[0]!.length <= offset) {
      this.#from += this.#chunks.shift()!.length;
    }
    const out = new Uint8Array(Math.max(0, Math.min(size, this.#to - offset)));
    let at = this.#from;
    for (const chunk of this.#chunks) {
      if (at >= offset + out.length) break;
      const start = Math.max(0, offset - at);
      const piece = chunk.subarray(start, offset + out.length - at);
      out.set(piece, at + start - offset);
      at += chunk.length;
    }
    return out;
  }

  /** Whoever stops it does not wait for a source from which nothing comes. */
  #next(): Promise<ReadableStreamReadResult<Uint8Array>> {
    const signal = this.#signal;
    if (!signal) return this.#reader.read();
    return new Promise((resolve, reject) => {
      const stop = () => reject(stopped());
      if (signal.aborted) return stop();
      signal.addEventListener("abort", stop);
      void this.#reader
        .read()
        .then(resolve, reject)
        .finally(() => signal.removeEventListener("abort", stop));
    });
  }

  async cancel(): Promise<void> {
    this.#ended = true;
    await this.#reader.cancel().catch(() => {});
  }
}

function typed(dtype: string, buffer: ArrayBuffer): TypedArray {
  switch (dtype) {
    case "float32":
      return new Float32Array(buffer);
    case "float64":
      return new Float64Array(buffer);
    case "int8":
      return new Int8Array(buffer);
    case "int16":
      return new Int16Array(buffer);
    case "uint16":
    case "float16":
    case "bfloat16":
      return new Uint16Array(buffer);
    case "int32":
      return new Int32Array(buffer);
    case "uint32":
      return new Uint32Array(buffer);
    case "int64":
      return new BigInt64Array(buffer);
    case "uint64":
      return new BigUint64Array(buffer);
    default:
      return new Uint8Array(buffer);
  }
}
