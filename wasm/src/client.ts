// The package's engine and models. The engine lives in a thread that may die at any time (a cancelled call ends it, a trap
// ends it): the client keeps what a model came from, a file or a recipe run on another model, and makes the model again in
// the next thread when it is next used. Runs are reproducible, so a model made again is the same model.
import { wrap } from "comlink";
import { NibbleError } from "./api";
import type { Bytes, CompressOptions, Engine, Format, Load, Model, OpenOptions } from "./api";
import { compile } from "./platform";
import type { Platform, Thread } from "./platform";
import type { CallOptions, ModelInfo, PictureOptions, Progress, Recipe, Report, WeightPicture } from "./types";
import type { Host, NamedBlob, PictureParts, PictureScalars, Reply } from "./wire";

// Node 20 has no Symbol.dispose; code compiled from `using` looks it up under this name.
if (!Symbol.dispose) Object.defineProperty(Symbol, "dispose", { value: Symbol("Symbol.dispose") });

/** Made here and not where it is set: a function made inside of a call would keep the call's result alive. */
const nothing = () => {};

/** Makes the package's `load` for one platform. */
export function createLoad(platform: Platform): Load {
  return async (options = {}) => {
    const { signal } = options;
    const stopIfAborted = () => {
      if (signal?.aborted) throw cancelled();
    };
    stopIfAborted();
    const { bytes, source } = await platform.wasm(options);
    stopIfAborted();
    const wasm = await compile(bytes, source);
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

/** One life of the engine: a thread, or the module in this thread. Connects when it is first asked something. */
class Session {
  ended = false;
  /** Asks a session in this thread to stop; one in a thread of its own is ended instead. */
  stopping = false;
  /** Told when the session ends before the running call does. */
  onEnd: (reason: NibbleError) => void = nothing;
  #host: Promise<Host> | undefined;
  #thread: Thread | undefined;

  constructor(
    readonly platform: Platform,
    readonly wasm: WebAssembly.Module,
    readonly threaded: boolean,
    readonly onProgress: (progress: Progress) => void,
  ) {}

  host(): Promise<Host> {
    return (this.#host ??= this.#connect());
  }

  async #connect(): Promise<Host> {
    const { platform } = this;
    const onProgress = (progress: Progress) => {
      if (!this.ended) this.onProgress(progress);
    };
    let host: Host;
    if (this.threaded) {
      const onLost = (reason: string) =>
        this.end(new NibbleError("internal", "", `the engine's worker stopped unexpectedly: ${reason}`));
      const thread = await platform.thread({ onProgress, onLost });
      if (this.ended) thread.end();
      this.#thread = thread;
      host = unproxied(wrap<Host>(thread.endpoint) as unknown as Host);
    } else {
      host = await platform.local({ onProgress, stopped: () => this.stopping });
    }
    take(await host.start(this.wasm));
    return host;
  }

  /** Whether the session's thread keeps the program alive. */
  hold(on: boolean): void {
    if (!this.ended) this.#thread?.hold(on);
  }

  end(reason: NibbleError): void {
    if (this.ended) return;
    this.ended = true;
    this.#thread?.end();
    this.onEnd(reason);
  }
}

const kMethods = ["start", "open", "check", "compress", "values", "picture", "write", "close"] as const;

/** A comlink proxy answers to every name, `then` too, so a promise cannot be fulfilled with it. */
function unproxied(host: Host): Host {
  const methods = kMethods.map((name) => [
    name,
    (...args: never[]) => (host[name] as (...args: never[]) => unknown)(...args),
  ]);
  return Object.fromEntries(methods) as Host;
}

/** Where a model came from: enough to make it again. */
type Origin = { kind: "file"; files: NamedBlob[] } | { kind: "result"; parent: ModelState; recipe: string };

interface ModelState {
  name: string;
  origin: Origin;
  /** The model's number in `session`; stale once that session has ended. */
  handle: number;
  session: Session | undefined;
  disposed: boolean;
}

interface Job {
  run(): Promise<void>;
  fail(error: NibbleError): void;
}

class EngineClient implements Engine {
  #session: Session | undefined;
  #waiting: Job[] = [];
  #running: Job | undefined;
  #closed = false;
  #onProgress: (progress: Progress) => void = nothing;
  #registry = new FinalizationRegistry<ModelState>((state) => this.release(state));

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
      return this.model(opened, { kind: "file", files }, name, call.session);
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
  model(made: { model: number; info: string }, origin: Origin, name: string, session: Session): ModelClient {
    const state: ModelState = { name, origin, handle: made.model, session, disposed: false };
    const model = new ModelClient(this, state, JSON.parse(made.info) as ModelInfo);
    this.#registry.register(model, state, state);
    return model;
  }

  /** Frees a model in the engine, after the calls that were made before. */
  release(state: ModelState): void {
    if (state.disposed) return;
    state.disposed = true;
    this.#registry.unregister(state);
    this.#free(state);
  }

  #free(state: ModelState): void {
    if (this.#closed) return;
    this.call(undefined, async (call) => {
      // Looked up when its turn comes: a call before it may have made the model again.
      if (state.session === call.session) await call.ask((host) => host.close(state.handle));
      state.session = undefined;
    }).catch(() => {}); // the session ended, and the model with it
  }

  /** Runs one call after those before it. Calls never overlap in the engine, so stopping one harms no other. */
  call<T>(options: CallOptions | undefined, work: (call: Call) => Promise<T>): Promise<T> {
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
        if (!session) return;
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

/** Ends the engine's session: nothing in it can be trusted any more. */
class Fatal {
  constructor(readonly reason: NibbleError) {}
}

/** One call in progress: asks the engine, and makes models again that an ended session took with it. */
class Call {
  #from = 0;
  #to = 1;

  constructor(
    readonly session: Session,
    readonly onProgress: (progress: Progress) => void,
  ) {}

  pass(progress: Progress): void {
    this.onProgress({ ...progress, fraction: this.#from + (this.#to - this.#from) * progress.fraction });
  }

  async ask<T>(question: (host: Host) => Promise<Reply<T>>): Promise<T> {
    const host = await this.session.host().catch((error: unknown) => {
      throw error instanceof Fatal ? error : new Fatal(error instanceof NibbleError ? error : internal(error));
    });
    return take(await question(host));
  }

  /** The model's number in this session. What has to be made again first takes its part of the progress. */
  async handle(state: ModelState): Promise<number> {
    const missing: ModelState[] = [];
    let at: ModelState | undefined = state;
    while (at && at.session !== this.session) {
      missing.unshift(at);
      at = at.origin.kind === "result" ? at.origin.parent : undefined;
    }
    for (const [index, lost] of missing.entries()) {
      this.#from = index / (missing.length + 1);
      this.#to = (index + 1) / (missing.length + 1);
      lost.handle = await this.#make(lost.origin);
      lost.session = this.session;
    }
    if (missing.length > 0) [this.#from, this.#to] = [missing.length / (missing.length + 1), 1];
    // Ancestors that the caller has disposed of were only needed for that.
    for (const helper of missing.filter((made) => made.disposed && made !== state)) {
      await this.ask((host) => host.close(helper.handle));
      helper.session = undefined;
    }
    return state.handle;
  }

  async #make(origin: Origin): Promise<number> {
    if (origin.kind === "file") return (await this.ask((host) => host.open(origin.files))).model;
    return (await this.ask((host) => host.compress(origin.parent.handle, origin.recipe, ""))).model;
  }
}

class ModelClient implements Model {
  readonly #engine: EngineClient;
  readonly #state: ModelState;

  constructor(
    engine: EngineClient,
    state: ModelState,
    readonly info: ModelInfo,
  ) {
    this.#engine = engine;
    this.#state = state;
  }

  async compress(recipe: Recipe, options?: CompressOptions): Promise<{ model: Model; report: Report }> {
    const state = this.#live();
    const text = toText(recipe);
    return this.#engine.call(options, async (call) => {
      const model = await call.handle(state);
      const made = await call.ask((host) => host.compress(model, text, options?.format ?? ""));
      const origin: Origin = { kind: "result", parent: state, recipe: text };
      return {
        model: this.#engine.model(made, origin, state.name, call.session),
        report: JSON.parse(made.report) as Report,
      };
    });
  }

  async values(weight: string): Promise<Float32Array> {
    const state = this.#live();
    return this.#engine.call(undefined, async (call) => {
      const model = await call.handle(state);
      return call.ask((host) => host.values(model, String(weight)));
    });
  }

  async picture(weight: string, result: Model, options: PictureOptions = {}): Promise<WeightPicture> {
    const state = this.#live();
    if (!(typeof result === "object" && #state in result) || result.#engine !== this.#engine) {
      throw new NibbleError("bad-data", "result", "expected a model of the same engine");
    }
    const other = result.#live();
    return this.#engine.call(undefined, async (call) => {
      const before = await call.handle(state);
      const after = await call.handle(other);
      const text = JSON.stringify(options);
      return picture(weight, await call.ask((host) => host.picture(before, after, String(weight), text)));
    });
  }

  async export(format?: Format, options?: CallOptions): Promise<Uint8Array> {
    const state = this.#live();
    return this.#engine.call(options, async (call) => {
      const model = await call.handle(state);
      return call.ask((host) => host.write(model, format ?? ""));
    });
  }

  dispose(): void {
    this.#engine.release(this.#state);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #live(): ModelState {
    if (!this.#state.disposed) return this.#state;
    throw new NibbleError(
      "bad-data",
      this.#state.name,
      "this model has been disposed of; open the file again to use it",
    );
  }
}

function picture(name: string, parts: PictureParts): WeightPicture {
  const { lo, hi, rows, columns, weight_rows, weight_columns, max } = JSON.parse(parts.scalars) as PictureScalars;
  return {
    name,
    before: { lo, hi, counts: parts.before },
    after: { lo, hi, counts: parts.after },
    levels: parts.levels,
    error_map: { rows, columns, weight_rows, weight_columns, max, cells: parts.cells },
    channels: { mse: parts.mse, sqnr_db: parts.sqnr_db, max_abs: parts.max_abs },
  };
}

function take<T>(reply: Reply<T>): T {
  if ("value" in reply) return reply.value;
  const { code, where, detail, fatal } = reply.failure;
  const error = new NibbleError(code, where, detail);
  throw fatal ? new Fatal(error) : error;
}

function internal(error: unknown): NibbleError {
  return new NibbleError("internal", "", error instanceof Error ? error.message : String(error));
}

const cancelled = () => new NibbleError("cancelled", "", "stopped by the caller");

/** A blob is a copy that cannot change, is sent to a thread without being copied again, and may live on disk. */
function toBlob(bytes: Bytes, where: string): Blob {
  if (bytes instanceof Blob) return bytes;
  if (bytes instanceof ArrayBuffer) return new Blob([bytes]);
  if (bytes instanceof Uint8Array) {
    const shared = !(bytes.buffer instanceof ArrayBuffer);
    return new Blob([(shared ? bytes.slice() : bytes) as Uint8Array<ArrayBuffer>]);
  }
  throw new NibbleError("bad-file", where, `expected a Blob, an ArrayBuffer or a Uint8Array, got ${typeof bytes}`);
}

function toText(recipe: Recipe | string): string {
  if (typeof recipe === "string") return recipe;
  try {
    return JSON.stringify(recipe) ?? "null";
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new NibbleError("bad-recipe", "", `the recipe cannot be written as JSON: ${reason}`);
  }
}
