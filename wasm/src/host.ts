// The engine's side of the wire: turns module calls into replies. Runs inside a worker, or in the caller's own thread.
import type { EngineModule, Files, Listener, Outcome } from "./module";
import createEngine from "engine-module";
import { NibbleError } from "./api";
import type { ErrorCode, Progress } from "./types";
import { isArray } from "./array-file";
import type { DiskFile, Host, MadeData, MadeModel, NamedBlob, Reply } from "./wire";

/** Bytes read from a blob at a time: large enough to be fast, small beside any model that needs care. */
const kChunk = 8 << 20;
/** Reading the file is about this share of opening it. */
const kLoadShare = 0.3;
/** The name that the saved state of a training has in messages. */
const kSaved = "saved training";
/** Milliseconds between two progress messages of one phase: 20 a second look smooth and cost nothing. */
const kProgressInterval = 50;

/** Gives what reads parts of this file while nothing else happens, throwing where they cannot be read; undefined where
 *  this thread may not wait for such a file. */
export type ReadNow = (file: Blob | DiskFile) => ((offset: number, into: Uint8Array) => void) | undefined;

export interface HostOptions {
  onProgress: (progress: Progress) => void;
  /** Asked between two pieces of work; only useful where the caller's code can run meanwhile. */
  stopped: () => boolean;
  readNow?: ReadNow | undefined;
}

export function createHost({ onProgress, stopped, readNow }: HostOptions): Host {
  let engine: EngineModule | undefined;
  let lastPhase = "";
  let lastTime = 0;

  const report = (phase: string, item: string, fraction: number): boolean => {
    const now = performance.now();
    if (phase !== lastPhase || now - lastTime >= kProgressInterval) {
      lastPhase = phase;
      lastTime = now;
      onProgress({ phase: phase as Progress["phase"], item, fraction });
    }
    return !stopped();
  };

  const module = (): EngineModule => {
    if (!engine) throw new Error("the engine was used before it was started");
    return engine;
  };

  /** Runs one call; whatever it throws becomes a reply. */
  const reply = async <T>(work: () => T | Promise<T>): Promise<Reply<T>> => {
    lastPhase = "";
    try {
      return { value: await work() };
    } catch (error) {
      if (error instanceof NibbleError) {
        return { failure: { code: error.code, where: error.where, detail: error.detail, fatal: false } };
      }
      return { failure: { code: "internal", where: "", detail: describeTrap(error), fatal: true } };
    }
  };

  /** Stages the files, works with them and frees what nobody took over. */
  const withFiles = async <T>(files: (NamedBlob | StoredFile)[], work: (staged: Files) => Outcome<T>): Promise<T> => {
    const staged = new (module().Files)();
    try {
      await stage(files, staged, report);
      return unwrap(work(staged));
    } finally {
      release(staged);
    }
  };

  /** The share of a call's work that comes after its files are read. */
  const afterLoading: Listener = (phase, item, fraction) =>
    report(phase, item, kLoadShare + (1 - kLoadShare) * fraction);

  const madeModel = (model: number): MadeModel => ({ model, info: unwrap(module().describe(model)) });
  const madeData = (data: number): MadeData => ({ data, info: unwrap(module().describe_data(data, "")) });

  return {
    start: (wasm) =>
      reply(async () => {
        engine = await instantiate(wasm);
        return null;
      }),

    open: (files) =>
      reply(async () => madeModel(await withFiles(files, (staged) => module().open(staged, afterLoading)))),

    create: (architecture, seed) => reply(() => madeModel(unwrap(module().create(architecture, seed)))),

    architectures: () => reply(() => module().architectures()),

    check: (recipe) => reply(() => unwrap(module().check(recipe))),

    compress: (model, recipe, format, data, options) =>
      reply(() => {
        const result = unwrap(module().compress(model, recipe, format, data, options, report));
        return { ...madeModel(result.model), report: result.report };
      }),

    values: (model, weight) => reply(() => own(unwrap(module().values(model, weight)))),

    bytes: (model, exact) => reply(() => unwrap(module().bytes(model, exact, report))),
    packed: (model, weight) => reply(() => own(unwrap(module().packed(model, weight)))),
    picture: (model, result, weight, options) =>
      reply(() => ownAll(unwrap(module().picture(model, result, weight, options)))),

    write: (model, format) => reply(() => own(unwrap(module().write(model, format, report)))),

    makeData: (spec) => reply(() => madeData(unwrap(module().make_data(spec)))),

    openData: (files, spec, held) =>
      reply(async () => {
        const given: (NamedBlob | StoredFile)[] = [];
        for (const { name, file } of files) {
          const part = file.size > held ? readNow?.(file) : undefined;
          if (file instanceof Blob && !(part && isArray(await read(file.slice(0, 4), name)))) {
            given.push({ name, blob: file });
          } else {
            given.push({ name, size: file.size, read: (offset, into) => troubleOf(() => part!(offset, into)) });
          }
        }
        return madeData(await withFiles(given, (staged) => module().open_data(staged, spec)));
      }),

    samples: (data, indices) => reply(() => ownAll(unwrap(module().samples(data, indices)))),

    cannotRun: (model) => reply(() => unwrap(module().cannot_run(model))),

    run: (model, inputs, bytes, outputs) =>
      reply(() => {
        const staged = new (module().Files)();
        try {
          for (const [index, part] of bytes.entries()) {
            const buffer = unwrap(staged.add(`input ${index}`, part.length));
            buffer.view().set(part);
            release(buffer);
          }
          const result = unwrap(module().run(model, staged, inputs, outputs));
          return { outputs: result.outputs, data: result.data.map(own) };
        } finally {
          release(staged);
        }
      }),

    prepare: (model, data, options) => reply(() => unwrap(module().prepare(model, data, options, report))),

    evaluate: (model, data, options) => reply(() => ownAll(unwrap(module().evaluate(model, data, options, report)))),

    compare: (before, after, data, options) =>
      reply(() => ownAll(unwrap(module().compare(before, after, data, options, report)))),

    activation: (model, data, index, value, options) =>
      reply(() => ownAll(unwrap(module().activation(model, data, index, value, options)))),

    trainOpen: (model, data, choice, options) =>
      reply(() => unwrap(module().train_open(model, data, choice, options, report))),

    trainStep: (training, milliseconds) => reply(() => unwrap(module().train_step(training, milliseconds, report))),

    trainModel: (training, which) => reply(() => madeModel(unwrap(module().train_model(training, which)))),

    trainSave: (training) => reply(() => own(unwrap(module().train_save(training)))),

    trainRestore: (training, saved) =>
      reply(() => withFiles([{ name: kSaved, blob: saved }], (staged) => module().train_restore(training, staged))),

    close: (held, kind) =>
      reply(() => {
        if (kind === "model") module().close(held);
        else if (kind === "data") module().close_data(held);
        else module().train_close(held);
        return null;
      }),
  };
}

/** The buffers of a reply that may be moved instead of copied. */
export function transferables(reply: Reply<unknown>): ArrayBuffer[] {
  const found = new Set<ArrayBuffer>();
  const search = (part: unknown): void => {
    if (ArrayBuffer.isView(part)) {
      if (part.buffer instanceof ArrayBuffer) found.add(part.buffer);
    } else if (typeof part === "object" && part !== null) {
      Object.values(part).forEach(search);
    }
  };
  if ("value" in reply) search(reply.value);
  return [...found];
}

/** The client compiled the module already (once for all workers), so only an instance is made here. */
async function instantiate(wasm: WebAssembly.Module): Promise<EngineModule> {
  return new Promise((resolve, reject) => {
    const options = {
      // Never used, but without it the module would look for its own URL, which a worker made of a blob does not have.
      locateFile: (name: string) => name,
      instantiateWasm: (
        imports: WebAssembly.Imports,
        done: (instance: WebAssembly.Instance, module: WebAssembly.Module) => void,
      ) => {
        WebAssembly.instantiate(wasm, imports).then((instance) => done(instance, wasm), reject);
        return {};
      },
    };
    createEngine(options).then(resolve, reject);
  });
}

/** A file whose bytes stay where they are. */
interface StoredFile {
  name: string;
  size: number;
  read: Parameters<Files["add_stored"]>[2];
}

/** Copies the files into the heap piece by piece: the whole file is never twice in memory on this side. */
async function stage(files: (NamedBlob | StoredFile)[], staged: Files, report: Listener): Promise<void> {
  const total = Math.max(
    1,
    files.reduce((sum, file) => sum + ("blob" in file ? file.blob.size : 0), 0),
  );
  let done = 0;
  for (const file of files) {
    if (!("blob" in file)) {
      staged.add_stored(file.name, file.size, file.read);
      continue;
    }
    const { name, blob } = file;
    const buffer = unwrap(staged.add(name, blob.size));
    try {
      for (let at = 0; at < blob.size; at += kChunk) {
        const chunk = await read(blob.slice(at, at + kChunk), name);
        buffer.view().set(chunk, at);
        done += chunk.length;
        if (!report("load", name, (kLoadShare * done) / total)) throw new NibbleError("cancelled", "", "stopped");
      }
    } finally {
      // Only this handle: the bytes stay with `staged`, which alone decides from here on how long they live.
      release(buffer);
    }
  }
}

/** After a trap the module may refuse even this; the first error is the one that matters, and the module is replaced. */
function release(object: { delete(): void }): void {
  try {
    object.delete();
  } catch {
    // see above
  }
}

async function read(blob: Blob, name: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (error) {
    throw new NibbleError("bad-file", name, unreadable(error));
  }
}

const unreadable = (error: unknown): string =>
  `the file can no longer be read (moved, changed or removed?): ${error instanceof Error ? error.message : String(error)}`;

/** "", or what the work threw: no exception may cross the module. */
function troubleOf(work: () => void): string {
  try {
    work();
    return "";
  } catch (error) {
    return unreadable(error);
  }
}

function unwrap<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw new NibbleError(outcome.code as ErrorCode, outcome.where, outcome.message);
}

/** An array of its own: a view into the module's heap must not leave this thread. */
function own<T extends Uint8Array | Int32Array | Uint32Array | Float32Array>(array: T): T {
  return array.byteLength === array.buffer.byteLength ? array : (array.slice() as T);
}

/** An object with every array its own. */
function ownAll<T extends object>(parts: T): T {
  const owned = Object.entries(parts).map(([key, part]) => [
    key,
    ArrayBuffer.isView(part) ? own(part as Uint8Array) : (part as unknown),
  ]);
  return Object.fromEntries(owned) as T;
}

function describeTrap(error: unknown): string {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return `the engine stopped unexpectedly (${text}); this is a bug worth reporting`;
}
