// The package's engine, models, data and trainings. What the engine holds is made again after its thread was lost, see
// session.ts.
import { NibbleError } from "./api";
import type {
  Bytes,
  CompressOptions,
  Data,
  DataCallOptions,
  DataSourceOptions,
  Engine,
  Format,
  Load,
  LoadOptions,
  Model,
  NamedBytes,
  OpenOptions,
  Training,
} from "./api";
import { kHeld } from "./array-file";
import { comparison, dataOptions, evaluation, fromTensors, picture, toBlob, toTensors, toText } from "./convert";
import { userData } from "./data";
import { compile, hasRelaxedSimd } from "./platform";
import type { Platform } from "./platform";
import {
  Call,
  cancelled,
  createdOrigin,
  Fatal,
  fileOrigin,
  filesOrigin,
  internal,
  nothing,
  resultOrigin,
  Session,
  specOrigin,
  trainedOrigin,
  trainingOrigin,
} from "./session";
import type { Origin, State, TrainMemory, TrainPlan } from "./session";
import type {
  ByteReport,
  CallOptions,
  Comparison,
  DataInfo,
  DataSpec,
  Evaluation,
  ModelInfo,
  PictureOptions,
  Preparation,
  Progress,
  Recipe,
  Report,
  TensorValue,
  TrainChoice,
  TrainProgress,
  WeightPicture,
} from "./types";
import type { DataFile, Kind, MadeData, MadeModel, NamedBlob, TensorHead } from "./wire";

// Node 20 has no Symbol.dispose; code compiled from `using` looks it up under this name.
if (!Symbol.dispose) Object.defineProperty(Symbol, "dispose", { value: Symbol("Symbol.dispose") });

/** Milliseconds of training between two looks at who else wants the engine. */
const kTrainSlice = 100;
/** Milliseconds of training after which its state is saved, if no epoch ended: what would be done again at most. */
const kTrainUnsaved = 10_000;

/** Makes the package's `load` for one platform. */
export function createLoad(platform: Platform): Load {
  return async (options = {}) => {
    const { signal } = options;
    const stopIfAborted = () => {
      if (signal?.aborted) throw cancelled();
    };
    stopIfAborted();
    const wasm = await compiled(platform, options);
    stopIfAborted();
    const engine = new EngineClient(platform, wasm, options.worker ?? true);
    try {
      await engine.start(signal);
    } catch (error) {
      engine.close();
      throw error;
    }
    return engine;
  };
}

/** The build that the options ask for. "auto" takes the strict one where the other cannot be had. */
async function compiled(platform: Platform, options: LoadOptions): Promise<WebAssembly.Module> {
  const { arithmetic = "auto", signal } = options;
  if (!["auto", "strict", "relaxed"].includes(arithmetic)) {
    throw new NibbleError(
      "bad-data",
      "arithmetic",
      `expected "auto", "strict" or "relaxed", got "${String(arithmetic)}"`,
    );
  }
  const build = async (which: "strict" | "relaxed") => {
    const { bytes, source } = await platform.wasm(options, which);
    if (signal?.aborted) throw cancelled();
    return compile(bytes, source);
  };
  const given = options.wasmBinary !== undefined || options.wasmUrl !== undefined;
  if (given || arithmetic === "strict") return build("strict");
  const lack = !platform.relaxed
    ? 'the inlined package has the strict build only: ask for "auto" or "strict"'
    : !hasRelaxedSimd()
      ? 'this machine has no relaxed SIMD: ask for "auto" or "strict"'
      : undefined;
  if (arithmetic === "relaxed") {
    if (lack === undefined) return build("relaxed");
    throw new NibbleError("unsupported", "arithmetic", lack);
  }
  if (lack !== undefined) return build("strict");
  try {
    return await build("relaxed");
  } catch (error) {
    if (signal?.aborted) throw error;
    return build("strict");
  }
}

interface Job {
  run(): Promise<void>;
  fail(error: NibbleError): void;
}

interface Waiting extends CallOptions {
  /** The signal only withdraws the call while it waits; once it runs, it runs to its end. */
  gentle?: boolean;
}

class EngineClient implements Engine {
  #session: Session | undefined;
  #waiting: Job[] = [];
  #running: Job | undefined;
  #closed = false;
  #onProgress: (progress: Progress) => void = nothing;
  #registry = new FinalizationRegistry<State>((state) => this.release(state));

  constructor(
    readonly platform: Platform,
    readonly wasm: WebAssembly.Module,
    readonly threaded: boolean,
  ) {}

  start(signal: AbortSignal | undefined): Promise<void> {
    return this.call(signal && { signal }, async (call) => void (await call.session.host()));
  }

  async open(file: Bytes, options: OpenOptions = {}): Promise<Model> {
    const name = options.name ?? (typeof File !== "undefined" && file instanceof File ? file.name : "");
    const files: NamedBlob[] = [{ name, blob: toBlob(file, "file") }];
    for (const [key, bytes] of Object.entries(options.external ?? {})) {
      files.push({ name: key, blob: toBlob(bytes, `external["${key}"]`) });
    }
    return this.call(options, async (call) => {
      const opened = await call.ask((host) => host.open(files));
      return this.model(opened, fileOrigin(files), name || "model", call.session);
    });
  }

  async data(source: DataSpec | NamedBytes[], options: DataSourceOptions = {}): Promise<Data> {
    if (!Array.isArray(source)) {
      const spec = toText(source, "data", "bad-data");
      return this.call(options, async (call) => {
        const made = await call.ask((host) => host.makeData(spec));
        return this.#data(made, specOrigin(spec), call.session);
      });
    }
    if (source.length === 0) throw new NibbleError("bad-data", "files", "no file was given");
    const { heldBytes = kHeld } = options;
    if (!(heldBytes >= 0)) {
      throw new NibbleError("bad-data", "heldBytes", `expected a number of bytes, got ${String(heldBytes)}`);
    }
    const given: DataFile[] = [];
    for (const [index, { name, bytes }] of source.entries()) {
      const file =
        bytes instanceof URL && this.platform.fileAt
          ? await this.platform.fileAt(bytes, String(name), heldBytes)
          : toBlob(bytes as Bytes, `files[${index}]`);
      given.push({ name: String(name), file });
    }
    const { files, spec, held } = await userData(given, this.platform.decode, heldBytes, options);
    return this.call(options, async (call) => {
      const made = await call.ask((host) => host.openData(files, spec, held));
      return this.#data(made, filesOrigin(files, spec, held), call.session);
    });
  }

  async create(architecture: string, { seed = 0 }: { seed?: number } = {}): Promise<Model> {
    const name = String(architecture);
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new NibbleError("bad-data", "seed", `expected a whole number from 0 to 2^53-1, got ${String(seed)}`);
    }
    return this.call(undefined, async (call) => {
      const made = await call.ask((host) => host.create(name, seed));
      return this.model(made, createdOrigin(name, seed), name, call.session);
    });
  }

  architectures(): Promise<{ name: string; summary: string }[]> {
    return this.call(undefined, async (call) => {
      return JSON.parse(await call.ask((host) => host.architectures())) as { name: string; summary: string }[];
    });
  }

  check(recipe: Recipe | string): Promise<Recipe> {
    return this.call(undefined, async (call) => {
      const text = toText(recipe);
      return JSON.parse(await call.ask((host) => host.check(text))) as Recipe;
    });
  }

  close(): void {
    this.#closed = true;
    const error = new NibbleError("cancelled", "", "the engine was closed");
    for (const job of this.#waiting.splice(0)) job.fail(error);
    this.#session?.end(error);
    this.#session = undefined;
  }

  /** Makes the public object of a model that the engine now holds. */
  model(made: MadeModel, origin: Origin, name: string, session: Session): ModelClient {
    const state = newState("model", name, origin, made.model, session);
    const model = new ModelClient(this, state, JSON.parse(made.info) as ModelInfo);
    this.watch(model, state);
    return model;
  }

  #data(made: MadeData, origin: Origin, session: Session): DataClient {
    const info = JSON.parse(made.info) as DataInfo;
    const state = newState("data", info.name, origin, made.data, session);
    const data = new DataClient(this, state, info);
    this.watch(data, state);
    return data;
  }

  /** What the object stands for is freed with it. */
  watch(object: object, state: State): void {
    this.#registry.register(object, state, state);
  }

  /** Frees something in the engine, after the calls that were made before. */
  release(state: State): void {
    if (state.disposed) return;
    state.disposed = true;
    this.#registry.unregister(state);
    this.#free(state);
  }

  #free(state: State): void {
    if (this.#closed) return;
    this.call(undefined, async (call) => {
      // Looked up when its turn comes: a call before it may have made it again.
      if (state.session === call.session) await call.ask((host) => host.close(state.handle, state.kind));
      state.session = undefined;
    }).catch(nothing); // the session ended, and what it held with it
  }

  /** Runs one call after those before it. Calls never overlap in the engine, so stopping one harms no other. */
  call<T>(options: Waiting | undefined, work: (call: Call) => Promise<T>): Promise<T> {
    const signal = options?.signal;
    return new Promise<T>((resolve, reject) => {
      if (this.#closed) return reject(new NibbleError("cancelled", "", "the engine is closed"));
      if (signal?.aborted) return reject(cancelled());

      let thrown: { error: unknown } | undefined;
      const onProgress = (progress: Progress) => {
        try {
          options?.onProgress?.(progress);
        } catch (error) {
          // It must not unwind through the engine: the call ends first.
          thrown ??= { error };
        }
      };
      const job: Job = {
        run: async () => {
          const session = (this.#session ??= this.#newSession());
          const call = new Call(session, onProgress);
          this.#onProgress = (progress) => call.pass(progress);
          session.stopping = false;
          session.hold(true);
          try {
            const result = await new Promise<T>((done, failed) => {
              session.onEnd = failed;
              work(call).then(done, failed);
            });
            if (thrown) throw thrown.error;
            resolve(result);
          } catch (error) {
            if (thrown && !session.ended) return reject(thrown.error);
            if (error instanceof NibbleError) return reject(error);
            const reason = error instanceof Fatal ? error.reason : internal(error);
            this.#drop(session, reason);
            reject(reason);
          } finally {
            session.onEnd = nothing;
            this.#onProgress = nothing;
            session.hold(false);
            signal?.removeEventListener("abort", stop);
          }
        },
        fail: (error) => {
          signal?.removeEventListener("abort", stop);
          reject(error);
        },
      };
      const stop = () => {
        if (this.#running !== job) {
          this.#waiting = this.#waiting.filter((other) => other !== job);
          return reject(cancelled());
        }
        const session = this.#session;
        if (!session || options?.gentle) return;
        if (session.threaded) this.#drop(session, cancelled());
        else session.stopping = true;
      };
      signal?.addEventListener("abort", stop, { once: true });
      this.#waiting.push(job);
      void this.#next();
    });
  }

  #newSession(): Session {
    return new Session(this.platform, this.wasm, this.threaded, (progress) => this.#onProgress(progress));
  }

  #drop(session: Session, reason: NibbleError): void {
    if (this.#session === session) this.#session = undefined;
    session.end(reason);
  }

  async #next(): Promise<void> {
    if (this.#running) return;
    while ((this.#running = this.#waiting.shift())) {
      // A session that ended by itself while nothing ran is replaced by the next call.
      if (this.#session?.ended) this.#session = undefined;
      await this.#running.run();
    }
  }
}

const newState = (kind: Kind, name: string, origin: Origin, handle: number, session: Session): State => ({
  kind,
  name,
  origin,
  handle,
  session,
  disposed: false,
});

const kHowAgain: Record<Kind, string> = {
  model: "open the file again to use it",
  data: "open the files again to use them",
  training: "call train() again to go on",
};

/** What the engine holds, seen from outside. */
class Held {
  readonly #engine: EngineClient;
  readonly #state: State;

  constructor(engine: EngineClient, state: State) {
    this.#engine = engine;
    this.#state = state;
  }

  dispose(): void {
    this.#engine.release(this.#state);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  static engine(object: Held): EngineClient {
    return object.#engine;
  }

  /** What the object stands for, which is still there. */
  static state(object: Held): State {
    const { kind, name, disposed } = object.#state;
    if (!disposed) return object.#state;
    throw new NibbleError("bad-data", name, `this ${kind} has been disposed of; ${kHowAgain[kind]}`);
  }

  /** The same of what a caller gave beside `object`. */
  static other(object: Held, given: unknown, kind: Kind, where: string): State {
    if (!(typeof given === "object" && given !== null && #state in given)) {
      throw new NibbleError("bad-data", where, `expected ${kind === "data" ? "data" : `a ${kind}`} of this engine`);
    }
    if (given.#engine !== object.#engine || given.#state.kind !== kind) {
      throw new NibbleError("bad-data", where, `expected ${kind === "data" ? "data" : `a ${kind}`} of the same engine`);
    }
    return Held.state(given);
  }
}

class ModelClient extends Held implements Model {
  constructor(
    engine: EngineClient,
    state: State,
    readonly info: ModelInfo,
  ) {
    super(engine, state);
  }

  async compress(recipe: Recipe, options?: CompressOptions): Promise<{ model: Model; report: Report }> {
    const engine = Held.engine(this);
    const state = Held.state(this);
    const data = options?.data && Held.other(this, options.data, "data", "data");
    const text = toText(recipe);
    const about = dataOptions(options?.dataOptions);
    return engine.call(options, async (call) => {
      const [model, samples] = await call.handles(state, ...(data ? [data] : []));
      const made = await call.ask((host) => host.compress(model!, text, options?.format ?? "", samples ?? 0, about));
      return {
        model: engine.model(made, resultOrigin(state, text, data, about), state.name, call.session),
        report: JSON.parse(made.report) as Report,
      };
    });
  }

  async values(weight: string): Promise<Float32Array> {
    const state = Held.state(this);
    return Held.engine(this).call(undefined, async (call) => {
      const [model] = await call.handles(state);
      return call.ask((host) => host.values(model!, String(weight)));
    });
  }

  async bytes({ exact = true, ...options }: CallOptions & { exact?: boolean } = {}): Promise<ByteReport> {
    const state = Held.state(this);
    return Held.engine(this).call(options, async (call) => {
      const [model] = await call.handles(state);
      return JSON.parse(await call.ask((host) => host.bytes(model!, Boolean(exact)))) as ByteReport;
    });
  }

  async packed(weight: string): Promise<Uint8Array> {
    const state = Held.state(this);
    return Held.engine(this).call(undefined, async (call) => {
      const [model] = await call.handles(state);
      return call.ask((host) => host.packed(model!, String(weight)));
    });
  }

  async picture(weight: string, result: Model, options: PictureOptions = {}): Promise<WeightPicture> {
    const state = Held.state(this);
    const other = Held.other(this, result, "model", "result");
    const text = toText(options, "options", "bad-data");
    return Held.engine(this).call(undefined, async (call) => {
      const [before, after] = await call.handles(state, other);
      return picture(weight, await call.ask((host) => host.picture(before!, after!, String(weight), text)));
    });
  }

  async cannotRun(): Promise<string | null> {
    const state = Held.state(this);
    return Held.engine(this).call(undefined, async (call) => {
      const [model] = await call.handles(state);
      return (await call.ask((host) => host.cannotRun(model!))) || null;
    });
  }

  async run(
    inputs: Record<string, TensorValue>,
    options?: CallOptions & { outputs?: string[] },
  ): Promise<Record<string, TensorValue>> {
    const state = Held.state(this);
    const { heads, bytes } = fromTensors(inputs);
    const names = toText(options?.outputs ?? [], "outputs", "bad-data");
    return Held.engine(this).call(options, async (call) => {
      const [model] = await call.handles(state);
      const result = await call.ask((host) => host.run(model!, JSON.stringify(heads), bytes, names));
      return toTensors(JSON.parse(result.outputs) as TensorHead[], result.data);
    });
  }

  async prepare(data: Data, options?: DataCallOptions): Promise<Preparation> {
    const [state, samples] = [Held.state(this), Held.other(this, data, "data", "data")];
    const about = dataOptions(options);
    return Held.engine(this).call(options, async (call) => {
      const [model, from] = await call.handles(state, samples);
      return JSON.parse(await call.ask((host) => host.prepare(model!, from!, about))) as Preparation;
    });
  }

  async evaluate(data: Data, options?: DataCallOptions): Promise<Evaluation> {
    const [state, samples] = [Held.state(this), Held.other(this, data, "data", "data")];
    const about = dataOptions(options);
    return Held.engine(this).call(options, async (call) => {
      const [model, from] = await call.handles(state, samples);
      return evaluation(await call.ask((host) => host.evaluate(model!, from!, about)));
    });
  }

  async compare(other: Model, data: Data, options?: DataCallOptions): Promise<Comparison> {
    const [state, second] = [Held.state(this), Held.other(this, other, "model", "other")];
    const samples = Held.other(this, data, "data", "data");
    const about = dataOptions(options);
    return Held.engine(this).call(options, async (call) => {
      const [before, after, from] = await call.handles(state, second, samples);
      return comparison(await call.ask((host) => host.compare(before!, after!, from!, about)));
    });
  }

  async activation(
    data: Data,
    index: number,
    value: string,
    options?: DataCallOptions,
  ): Promise<{ shape: number[]; values: Float32Array }> {
    const [state, samples] = [Held.state(this), Held.other(this, data, "data", "data")];
    positions([index], data.info.samples, "index");
    const about = dataOptions(options);
    return Held.engine(this).call(options, async (call) => {
      const [model, from] = await call.handles(state, samples);
      const { shape, values } = await call.ask((host) => host.activation(model!, from!, index, String(value), about));
      return { shape: JSON.parse(shape) as number[], values };
    });
  }

  async train(data: Data, choice: TrainChoice = {}, options?: DataCallOptions): Promise<Training> {
    const engine = Held.engine(this);
    const plan: TrainPlan = {
      model: Held.state(this),
      data: Held.other(this, data, "data", "data"),
      choice: toText(choice, "choice"),
      options: dataOptions(options),
    };
    return engine.call(options, async (call) => {
      const [model, samples] = await call.handles(plan.model, plan.data);
      const training = await call.ask((host) => host.trainOpen(model!, samples!, plan.choice, plan.options));
      const memory: TrainMemory = { saved: undefined, since: 0 };
      const state = newState("training", plan.model.name, trainingOrigin(plan, memory), training, call.session);
      const client = new TrainingClient(engine, state, plan, memory);
      engine.watch(client, state);
      return client;
    });
  }

  async export(format?: Format, options?: CallOptions): Promise<Uint8Array> {
    const state = Held.state(this);
    return Held.engine(this).call(options, async (call) => {
      const [model] = await call.handles(state);
      return call.ask((host) => host.write(model!, format ?? ""));
    });
  }
}

class DataClient extends Held implements Data {
  constructor(
    engine: EngineClient,
    state: State,
    readonly info: DataInfo,
  ) {
    super(engine, state);
  }

  async samples(indices: ArrayLike<number>): Promise<{ values: Uint8Array | Float32Array; labels: Int32Array }> {
    const state = Held.state(this);
    const wanted = positions(indices, this.info.samples, "indices");
    return Held.engine(this).call(undefined, async (call) => {
      const [data] = await call.handles(state);
      return call.ask((host) => host.samples(data!, wanted));
    });
  }
}

class TrainingClient extends Held implements Training {
  progress: TrainProgress | null = null;
  readonly #plan: TrainPlan;
  readonly #memory: TrainMemory;
  #running = false;
  /** Milliseconds trained since the state was saved. */
  #unsaved = 0;

  constructor(engine: EngineClient, state: State, plan: TrainPlan, memory: TrainMemory) {
    super(engine, state);
    this.#plan = plan;
    this.#memory = memory;
  }

  async run(
    options: { signal?: AbortSignal; onProgress?: (progress: TrainProgress) => void } = {},
  ): Promise<TrainProgress> {
    const { signal, onProgress } = options;
    Held.state(this);
    if (this.#running) throw new NibbleError("bad-data", "training", "it is running already");
    this.#running = true;
    try {
      while (!signal?.aborted && !this.progress?.done) {
        const steps = await this.#slice(signal);
        for (const step of steps) onProgress?.(step);
        // In this very thread nobody else has had a turn since: not the page, and not who would abort.
        if (!Held.engine(this).threaded) await new Promise((later) => setTimeout(later, 0));
        if (steps.length === 0) break;
      }
    } finally {
      this.#running = false;
    }
    // Not waited for: whoever paused wants to know now, and what comes next waits for it anyway.
    if (!this.progress?.done) this.#saved().catch(nothing);
    if (!this.progress) throw cancelled();
    return this.progress;
  }

  /** Trains for a moment, and saves where that is due. A signal withdraws it only while it waits for other calls. */
  async #slice(signal: AbortSignal | undefined): Promise<TrainProgress[]> {
    const state = Held.state(this);
    try {
      return await Held.engine(this).call({ ...(signal && { signal }), gentle: true }, async (call) => {
        const [training] = await call.handles(state);
        const started = performance.now();
        const text = await call.ask((host) => host.trainStep(training!, kTrainSlice));
        const steps = JSON.parse(text) as TrainProgress[];
        this.#memory.since += steps.length;
        this.progress = steps.at(-1) ?? this.progress;
        this.#unsaved += performance.now() - started;
        const epochEnded = steps.some(({ batch, batches, done }) => done || batch + 1 === batches);
        if (epochEnded || this.#unsaved > kTrainUnsaved) await this.#keep(call, training!);
        return steps;
      });
    } catch (error) {
      if (signal?.aborted && error instanceof NibbleError && error.code === "cancelled") return [];
      throw error;
    }
  }

  /** Saves the state as it is now, unless that was done. */
  async #keep(call: Call, training: number): Promise<Blob> {
    const memory = this.#memory;
    if (!memory.saved || memory.since > 0) {
      memory.saved = toBlob(await call.ask((host) => host.trainSave(training)), "saved");
      memory.since = 0;
    }
    this.#unsaved = 0;
    return memory.saved;
  }

  async model(which: "current" | "best" = "best"): Promise<Model> {
    const engine = Held.engine(this);
    const state = Held.state(this);
    if (which !== "current" && which !== "best") {
      throw new NibbleError("bad-data", "which", `expected "current" or "best", got "${String(which)}"`);
    }
    return engine.call(undefined, async (call) => {
      const [training] = await call.handles(state);
      const saved = await this.#keep(call, training!);
      const made = await call.ask((host) => host.trainModel(training!, which));
      return engine.model(made, trainedOrigin(this.#plan, saved, which), state.name, call.session);
    });
  }

  async save(): Promise<Uint8Array> {
    return new Uint8Array(await (await this.#saved()).arrayBuffer());
  }

  async #saved(): Promise<Blob> {
    const state = Held.state(this);
    return Held.engine(this).call(undefined, async (call) => {
      const [training] = await call.handles(state);
      return this.#keep(call, training!);
    });
  }

  async restore(saved: Bytes): Promise<void> {
    const state = Held.state(this);
    const blob = toBlob(saved, "saved");
    if (this.#running) throw new NibbleError("bad-data", "training", "it is running: stop run() before restore()");
    return Held.engine(this).call(undefined, async (call) => {
      const [training] = await call.handles(state);
      try {
        await call.ask((host) => host.trainRestore(training!, blob));
      } catch (error) {
        // Whatever was taken over of it goes: the training is made again as it was.
        if (error instanceof NibbleError) {
          state.session = undefined;
          await call.ask((host) => host.close(training!, "training"));
        }
        throw error;
      }
      Object.assign(this.#memory, { saved: blob, since: 0 });
      this.progress = null;
    });
  }
}

/** Positions in data, checked. */
function positions(given: ArrayLike<number>, count: number, where: string): Uint32Array {
  const indices = Array.from(given);
  const wrong = indices.findIndex((index) => !Number.isInteger(index) || index < 0 || index >= count);
  if (wrong >= 0) {
    const place = indices.length > 1 ? `${where}[${wrong}]` : where;
    throw new NibbleError("bad-data", place, `expected 0 to ${count - 1}, got ${String(indices[wrong])}`);
  }
  return Uint32Array.from(indices);
}
