// The engine's life and what it holds. The thread that the engine lives in may die at any time (a cancelled call ends it, a
// trap ends it): the client keeps what everything in it came from, a file, a recipe, a seed, and makes it again in the next
// thread when it is next used. Runs are reproducible, so what is made again is the same.
import { wrap } from "comlink";
import { NibbleError } from "./api";
import type { Platform, Thread } from "./platform";
import type { Progress } from "./types";
import type { DataFile, Host, Kind, NamedBlob, Reply } from "./wire";

/** Made here and not where it is set: a function made inside of a call would keep the call's result alive. */
export const nothing = () => {};

/** One life of the engine: a thread, or the module in this thread. Connects when it is first asked something. */
export class Session {
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

/** Every method of a host; the object type makes a forgotten one an error. */
const kMethods: Record<keyof Host, true> = {
  start: true,
  open: true,
  create: true,
  architectures: true,
  check: true,
  compress: true,
  values: true,
  bytes: true,
  packed: true,
  picture: true,
  write: true,
  makeData: true,
  openData: true,
  samples: true,
  cannotRun: true,
  run: true,
  prepare: true,
  evaluate: true,
  compare: true,
  activation: true,
  trainOpen: true,
  trainStep: true,
  trainModel: true,
  trainSave: true,
  trainRestore: true,
  close: true,
};

/** A comlink proxy answers to every name, `then` too, so a promise cannot be fulfilled with it. */
function unproxied(host: Host): Host {
  const methods = (Object.keys(kMethods) as (keyof Host)[]).map((name) => [
    name,
    (...args: never[]) => (host[name] as (...args: never[]) => unknown)(...args),
  ]);
  return Object.fromEntries(methods) as Host;
}

// --- What the engine holds -------------------------------------------------------------------------------------------

/** Asks the engine one thing. */
export type Ask = <T>(question: (host: Host) => Promise<Reply<T>>) => Promise<T>;

/** Where something came from: enough to make it again. */
export interface Origin {
  needs: readonly State[];
  /** Gives the number in the engine; `needs` are the numbers of what is needed. */
  make(ask: Ask, needs: number[]): Promise<number>;
}

/** Something in the engine. Its public object refers to this, never the other way round, so that it can be garbage. */
export interface State {
  readonly kind: Kind;
  readonly name: string;
  readonly origin: Origin;
  /** The number in `session`; stale once that session has ended. */
  handle: number;
  session: Session | undefined;
  disposed: boolean;
}

// Origins are made by functions of this file's own: a closure made inside of a call would keep what that call knows alive.

export const fileOrigin = (files: NamedBlob[]): Origin => ({
  needs: [],
  make: async (ask) => (await ask((host) => host.open(files))).model,
});

export const createdOrigin = (architecture: string, seed: number): Origin => ({
  needs: [],
  make: async (ask) => (await ask((host) => host.create(architecture, seed))).model,
});

export const resultOrigin = (parent: State, recipe: string, data: State | undefined, options: string): Origin => ({
  needs: data ? [parent, data] : [parent],
  make: async (ask, [model, samples]) =>
    (await ask((host) => host.compress(model!, recipe, "", samples ?? 0, options))).model,
});

export const specOrigin = (spec: string): Origin => ({
  needs: [],
  make: async (ask) => (await ask((host) => host.makeData(spec))).data,
});

export const filesOrigin = (files: DataFile[], spec: string, held: number): Origin => ({
  needs: [],
  make: async (ask) => (await ask((host) => host.openData(files, spec, held))).data,
});

/** What training learns from and how. */
export interface TrainPlan {
  model: State;
  data: State;
  choice: string;
  options: string;
}

/** How far a training is: a saved state and the steps done since. */
export interface TrainMemory {
  saved: Blob | undefined;
  since: number;
}

async function openTraining(ask: Ask, plan: TrainPlan, memory: TrainMemory, needs: number[]): Promise<number> {
  const [model, data] = needs;
  const training = await ask((host) => host.trainOpen(model!, data!, plan.choice, plan.options));
  const { saved } = memory;
  if (saved) await ask((host) => host.trainRestore(training, saved));
  // No time at all is one step: the very steps that were done are done again.
  for (let i = 0; i < memory.since; i++) await ask((host) => host.trainStep(training, 0));
  return training;
}

/** `memory` changes as the training goes on. */
export const trainingOrigin = (plan: TrainPlan, memory: TrainMemory): Origin => ({
  needs: [plan.model, plan.data],
  make: (ask, needs) => openTraining(ask, plan, memory, needs),
});

export const trainedOrigin = (plan: TrainPlan, saved: Blob, which: string): Origin => ({
  needs: [plan.model, plan.data],
  async make(ask, needs) {
    const training = await openTraining(ask, plan, { saved, since: 0 }, needs);
    const { model } = await ask((host) => host.trainModel(training, which));
    await ask((host) => host.close(training, "training"));
    return model;
  },
});

// --- One call --------------------------------------------------------------------------------------------------------

/** One call in progress: asks the engine, and makes again what an ended session took with it. */
export class Call {
  #from = 0;
  #to = 1;

  constructor(
    readonly session: Session,
    readonly onProgress: (progress: Progress) => void,
  ) {}

  pass(progress: Progress): void {
    this.onProgress({ ...progress, fraction: this.#from + (this.#to - this.#from) * progress.fraction });
  }

  readonly ask: Ask = async (question) => {
    const host = await this.session.host().catch((error: unknown) => {
      throw error instanceof Fatal ? error : new Fatal(error instanceof NibbleError ? error : internal(error));
    });
    return take(await question(host));
  };

  /** The numbers in this session. What has to be made again first takes its part of the progress. */
  async handles(...states: State[]): Promise<number[]> {
    const missing = new Set<State>();
    const collect = (state: State): void => {
      if (state.session === this.session || missing.has(state)) return;
      state.origin.needs.forEach(collect);
      missing.add(state);
    };
    states.forEach(collect);
    const parts = missing.size + 1;
    let done = 0;
    for (const lost of missing) {
      this.#from = done / parts;
      this.#to = ++done / parts;
      lost.handle = await lost.origin.make(
        this.ask,
        lost.origin.needs.map((need) => need.handle),
      );
      lost.session = this.session;
    }
    if (missing.size > 0) [this.#from, this.#to] = [done / parts, 1];
    // Ancestors that the caller has disposed of were only needed for that.
    for (const helper of missing) {
      if (!helper.disposed || states.includes(helper)) continue;
      await this.ask((host) => host.close(helper.handle, helper.kind));
      helper.session = undefined;
    }
    return states.map((state) => state.handle);
  }
}

/** Ends the engine's session: nothing in it can be trusted any more. */
export class Fatal {
  constructor(readonly reason: NibbleError) {}
}

function take<T>(reply: Reply<T>): T {
  if ("value" in reply) return reply.value;
  const { code, where, detail, fatal } = reply.failure;
  const error = new NibbleError(code, where, detail);
  throw fatal ? new Fatal(error) : error;
}

export function internal(error: unknown): NibbleError {
  return new NibbleError("internal", "", error instanceof Error ? error.message : String(error));
}

export const cancelled = () => new NibbleError("cancelled", "", "stopped by the caller");
