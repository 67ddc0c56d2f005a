// The client alone, over a host made of a few lines: what happens when the engine's thread dies, and in which order.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expose } from "comlink";
import { afterEach, expect, test } from "vitest";
import { createLoad } from "../../wasm/src/client";
import { hasRelaxedSimd } from "../../wasm/src/platform";
import type { Platform, ThreadEvents } from "../../wasm/src/platform";
import type { DataFile, Host, Kind, NamedBlob, Reply } from "../../wasm/src/wire";
import type { Data, Engine, Model, Recipe, TrainProgress } from "nibble-nn";

/** The eight bytes that every WebAssembly module starts with, which make an empty one. */
const kEmptyModule = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

const noImages = () => Promise.reject(new Error("no images here"));

/** Batches of an epoch, and epochs, of every fake training. */
const kBatches = 4;
const kEpochs = 3;

/** A host whose models are strings: the file's text, then one "+recipe" per compression. A training counts its steps. */
class FakeHost implements Host {
  models = new Map<number, string>();
  datasets = new Map<number, string>();
  trainings = new Map<number, { from: string; step: number }>();
  log: string[] = [];
  #next = 1;
  /** Calls of compress with the recipe "slow" wait for this. */
  gate = new Promise<void>(() => {});
  /** Steps that a call of trainStep does. */
  slice = 3;
  /** The step that traps. */
  trapAt = Infinity;

  constructor(readonly events: ThreadEvents) {}

  start = async (): Promise<Reply<null>> => ({ value: null });
  open = async (files: NamedBlob[]) => this.#add(await files[0]!.blob.text(), "open");
  create = async (architecture: string, seed: number) => this.#add(`${architecture}#${seed}`, "create");
  architectures = async (): Promise<Reply<string>> => ({ value: '[{"name":"tiny","summary":"the smallest"}]' });
  check = async (recipe: string): Promise<Reply<string>> => ({ value: recipe });
  compress = async (model: number, recipe: string, _format: string, data: number) => {
    const name = (JSON.parse(recipe) as { name: string }).name;
    this.events.onProgress({ phase: "quantize", item: name, fraction: 0.5 });
    if (name === "slow") await this.gate;
    if (name === "lost") this.events.onLost("out of memory");
    if (name === "lost") await this.gate;
    if (name === "trap") return fail("internal", "unreachable", true);
    if (name === "bad") return fail("bad-recipe", "expected 1 to 8, got 9", false);
    const learnt = data ? `(${this.datasets.get(data)})` : "";
    return this.#add(`${this.models.get(model)}+${name}${learnt}`, `compress ${name}`);
  };
  values = async (): Promise<Reply<Float32Array>> => ({ value: new Float32Array(1) });
  bytes = async (model: number, exact: boolean): Promise<Reply<string>> => ({
    value: JSON.stringify({ estimated: !exact, file: this.models.get(model)?.length }),
  });
  packed = async (model: number, weight: string): Promise<Reply<Uint8Array>> => ({
    value: new TextEncoder().encode(`${this.models.get(model)}: ${weight}`),
  });
  picture = async (): Promise<Reply<never>> => fail("internal", "no pictures here", false);
  write = async (model: number): Promise<Reply<Uint8Array>> => ({
    value: new TextEncoder().encode(this.models.get(model) ?? "no such model"),
  });

  makeData = async (spec: string) => this.#addData((JSON.parse(spec) as { kind: string }).kind);
  openData = async (files: DataFile[]) => this.#addData(await (files[0]!.file as Blob).text());
  samples = async (data: number, indices: Uint32Array) => ({
    value: {
      values: new TextEncoder().encode(this.datasets.get(data) ?? "no such data"),
      labels: Int32Array.from(indices),
    },
  });

  cannotRun = async (model: number): Promise<Reply<string>> => ({
    value: this.models.get(model)?.startsWith("odd") ? "an odd operator" : "",
  });
  run = async (_model: number, inputs: string, bytes: Uint8Array[]) => ({ value: { outputs: inputs, data: bytes } });
  prepare = async (): Promise<Reply<string>> => ({ value: "{}" });
  evaluate = async (model: number, data: number) => ({
    value: {
      report: JSON.stringify({ seen: `${this.models.get(model)} on ${this.datasets.get(data)}` }),
      indices: new Uint32Array(),
      predictions: new Int32Array(),
      confidence: new Float32Array(),
      confusion: new Uint32Array(),
    },
  });
  compare = async (): Promise<Reply<never>> => fail("internal", "no comparisons here", false);
  activation = async (): Promise<Reply<never>> => fail("internal", "no activations here", false);

  trainOpen = async (model: number, data: number, choice: string) => {
    this.log.push("train open");
    const from = `${this.models.get(model)} on ${this.datasets.get(data)} by ${choice}`;
    this.trainings.set(this.#next, { from, step: 0 });
    return { value: this.#next++ };
  };
  trainStep = async (training: number, milliseconds: number): Promise<Reply<string>> => {
    const at = this.trainings.get(training)!;
    const steps: Partial<TrainProgress>[] = [];
    for (let i = 0; i < (milliseconds > 0 ? this.slice : 1) && at.step < kBatches * kEpochs; i++) {
      if (at.step === this.trapAt) return fail("internal", "unreachable", true);
      const [epoch, batch] = [Math.floor(at.step / kBatches), at.step % kBatches];
      steps.push({ epoch, batch, batches: kBatches, step: at.step++, done: at.step === kBatches * kEpochs });
    }
    this.log.push(`step to ${at.step}`);
    return { value: JSON.stringify(steps) };
  };
  trainModel = async (training: number, which: string) => {
    const { from, step } = this.trainings.get(training)!;
    return this.#add(`${which} of ${from} at ${step}`, `train model ${step}`);
  };
  trainSave = async (training: number) => {
    const { step } = this.trainings.get(training)!;
    this.log.push(`save ${step}`);
    return { value: new TextEncoder().encode(String(step)) };
  };
  trainRestore = async (training: number, saved: Blob): Promise<Reply<null>> => {
    const step = Number(await saved.text());
    // What is half taken over shows that the client does not go on with it.
    this.trainings.get(training)!.step = Number.isNaN(step) ? 999 : step;
    if (Number.isNaN(step)) return fail("bad-file", "no saved training", false);
    this.log.push(`restore ${step}`);
    return { value: null };
  };

  close = async (held: number, kind: Kind): Promise<Reply<null>> => {
    const all = { model: this.models, data: this.datasets, training: this.trainings }[kind];
    this.log.push(kind === "training" ? "close training" : `close ${String(all.get(held))}`);
    all.delete(held);
    return { value: null };
  };

  #add(text: string, what: string) {
    this.log.push(what);
    const model = this.#next++;
    this.models.set(model, text);
    return { value: { model, info: JSON.stringify({ name: text }), report: JSON.stringify({ text }) } };
  }

  #addData(text: string) {
    this.log.push("data");
    this.datasets.set(this.#next, text);
    return { value: { data: this.#next++, info: JSON.stringify({ name: text, samples: 10 }) } };
  }
}

const fail = (code: "internal" | "bad-recipe" | "bad-file", detail: string, fatal: boolean) => ({
  failure: { code, where: "", detail, fatal },
});

let engine: Engine | undefined;
afterEach(() => {
  engine?.close();
  for (const port of ports.splice(0)) port.close();
});

const ports: MessagePort[] = [];

/** An engine over fake hosts; `hosts` gets one for every thread that is started. */
async function fake(worker = true): Promise<{ engine: Engine; hosts: FakeHost[] }> {
  const hosts: FakeHost[] = [];
  const platform: Platform = {
    relaxed: false,
    decode: noImages,
    wasm: async () => ({ bytes: kEmptyModule, source: "test" }),
    thread: async (events) => {
      const host = new FakeHost(events);
      hosts.push(host);
      const { port1, port2 } = new MessageChannel();
      ports.push(port1, port2);
      expose({ ...host }, port1 as never);
      port2.start();
      return { endpoint: port2 as never, end: () => port1.close(), hold: () => {} };
    },
    local: async (events) => {
      const host = new FakeHost({ ...events, onLost: () => {} });
      hosts.push(host);
      return host;
    },
  };
  engine = await createLoad(platform)({ worker });
  return { engine, hosts };
}

const recipe = (name: string) => ({ name }) as unknown as Recipe;
const open = (from: Engine, text = "file") => from.open(new TextEncoder().encode(text));
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

test("a cancelled call ends the thread, and models are made again in the next one", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  const first = await model.compress(recipe("a"));
  const second = await first.model.compress(recipe("b"));
  const stop = new AbortController();
  const slow = second.model.compress(recipe("slow"), { signal: stop.signal, onProgress: () => stop.abort() });
  await expect(slow).rejects.toMatchObject({ name: "NibbleError", code: "cancelled" });
  expect(hosts).toHaveLength(1);

  expect(text(await second.model.export())).toBe("file+a+b");
  expect(hosts).toHaveLength(2);
  expect(hosts[1]!.log).toEqual(["open", "compress a", "compress b"]);
  // Each of them is there again and not made twice.
  expect(text(await first.model.export())).toBe("file+a");
  expect(hosts[1]!.log).toHaveLength(3);
});

test("cancelling one call leaves those that wait behind it", async () => {
  const { engine } = await fake();
  const model = await open(engine);
  const stop = new AbortController();
  const slow = model.compress(recipe("slow"), { signal: stop.signal });
  const waiting = model.compress(recipe("a"));
  const withdrawn = new AbortController();
  const never = model.export(undefined, { signal: withdrawn.signal });
  withdrawn.abort();
  await expect(never).rejects.toMatchObject({ code: "cancelled" });
  stop.abort();
  await expect(slow).rejects.toMatchObject({ code: "cancelled" });
  expect((await waiting).model.info.name).toBe("file+a");
});

test("a signal that is aborted already stops the call before it begins", async () => {
  const { engine, hosts } = await fake();
  const signal = AbortSignal.abort();
  await expect(engine.open(new Uint8Array(1), { signal })).rejects.toMatchObject({ code: "cancelled" });
  expect(hosts[0]!.log).toEqual([]);
});

for (const name of ["trap", "lost"]) {
  test(`after "${name}" the thread is replaced and the models live on`, async () => {
    const { engine, hosts } = await fake();
    const model = await open(engine);
    await expect(model.compress(recipe(name))).rejects.toMatchObject({ code: "internal" });
    expect(text(await model.export())).toBe("file");
    expect(hosts).toHaveLength(2);
  });
}

test("a trap in the caller's own thread replaces the module", async () => {
  const { engine, hosts } = await fake(false);
  const model = await open(engine);
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal", detail: "unreachable" });
  expect(text(await model.export())).toBe("file");
  expect(hosts).toHaveLength(2);
});

test("bytes and codes are asked of a model that was made again", async () => {
  const { engine, hosts } = await fake();
  const { model: result } = await (await open(engine)).compress(recipe("a"));
  await expect(result.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  expect(text(await result.packed("fc"))).toBe("file+a: fc");
  expect(await result.bytes()).toEqual({ estimated: false, file: "file+a".length });
  expect(await result.bytes({ exact: false })).toMatchObject({ estimated: true });
  expect(hosts).toHaveLength(2);
  result.dispose();
  for (const call of [() => result.bytes(), () => result.packed("fc")]) {
    await expect(call()).rejects.toMatchObject({ code: "bad-data", detail: expect.stringContaining("disposed") });
  }
});

test("an ordinary error keeps the thread", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  await expect(model.compress(recipe("bad"))).rejects.toMatchObject({ code: "bad-recipe" });
  await model.export();
  expect(hosts).toHaveLength(1);
});

test("a disposed ancestor is made again only for as long as it is needed", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  const result = await model.compress(recipe("a"));
  model.dispose();
  await expect(model.export()).rejects.toMatchObject({ code: "bad-data", detail: expect.stringContaining("disposed") });
  await expect(result.model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  expect(hosts[0]!.log).toContain("close file");

  expect(text(await result.model.export())).toBe("file+a");
  expect(hosts[1]!.log).toEqual(["open", "compress a", "close file"]);
  expect([...hosts[1]!.models.values()]).toEqual(["file+a"]);
});

test("disposing twice and disposing what a dead thread held do no harm", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  model.dispose();
  model.dispose();
  await engine.check("{}");
  expect(hosts[1]!.log).toEqual([]);
});

test("a model disposed of while it is made again is freed after that", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  const last = model.export();
  model.dispose();
  expect(text(await last)).toBe("file");
  await engine.check("{}");
  expect(hosts[1]!.log).toEqual(["open", "close file"]);
});

test("disposing of what a dead thread held starts no new thread", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  model.dispose();
  await new Promise((later) => setTimeout(later, 10));
  expect(hosts).toHaveLength(1);
});

test("using frees a model at the end of its block", async () => {
  const { engine, hosts } = await fake();
  {
    using model = await open(engine);
    expect(model.info.name).toBe("file");
  }
  await engine.check("{}");
  expect(hosts[0]!.log).toEqual(["open", "close file"]);
});

test("a model that nobody holds any more is freed with its garbage", async () => {
  const { engine, hosts } = await fake();
  const forget = async () => void (await open(engine, "forgotten"));
  await forget();
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  await expect
    .poll(() => {
      collect();
      return hosts[0]!.log;
    })
    .toContain("close forgotten");
});

test("a result keeps what it was made from, held or not", async () => {
  const { engine, hosts } = await fake();
  const compressed = async () => (await (await open(engine)).compress(recipe("a"))).model;
  const result = await compressed();
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  await expect.poll(() => (collect(), hosts[0]!.log)).toContain("close file");
  await expect(result.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  expect(text(await result.export())).toBe("file+a");
});

test("close rejects what runs and what waits, and everything after", async () => {
  const { engine } = await fake();
  const model = await open(engine);
  const running = model.compress(recipe("slow"));
  const waiting = model.export();
  engine.close();
  await expect(running).rejects.toMatchObject({ code: "cancelled" });
  await expect(waiting).rejects.toMatchObject({ code: "cancelled" });
  await expect(engine.check("{}")).rejects.toMatchObject({ code: "cancelled" });
  model.dispose();
});

test("progress of making models again and of the call itself is one run from 0 to 1", async () => {
  const { engine } = await fake();
  const model = await open(engine);
  const first = await model.compress(recipe("a"));
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  const seen: number[] = [];
  await first.model.compress(recipe("b"), { onProgress: ({ fraction }) => seen.push(fraction) });
  // Three parts (open, compress a, compress b), the last two of which report their middle.
  expect(seen).toEqual([1 / 3 + 1 / 6, 2 / 3 + 1 / 6]);
});

test("an error thrown by a progress listener reaches the caller and harms nothing else", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  const onProgress = () => {
    throw new RangeError("from the listener");
  };
  await expect(model.compress(recipe("a"), { onProgress })).rejects.toThrow("from the listener");
  expect(text(await model.export())).toBe("file");
  expect(hosts).toHaveLength(1);
});

test("loading can be stopped", async () => {
  const platform = (stop: AbortController): Platform => ({
    relaxed: false,
    decode: noImages,
    wasm: async () => {
      stop.abort();
      return { bytes: kEmptyModule, source: "test" };
    },
    thread: () => Promise.reject(new Error("not reached")),
    local: () => Promise.reject(new Error("not reached")),
  });
  const stop = new AbortController();
  await expect(createLoad(platform(stop))({ signal: stop.signal })).rejects.toMatchObject({ code: "cancelled" });
});

test("a thread that cannot be started is an error of its own, and is tried again", async () => {
  let tries = 0;
  const platform: Platform = {
    relaxed: false,
    decode: noImages,
    wasm: async () => ({ bytes: kEmptyModule, source: "test" }),
    thread: () => Promise.reject(new Error(`no threads today (${++tries})`)),
    local: () => Promise.reject(new Error("not reached")),
  };
  for (const message of ["no threads today (1)", "no threads today (2)"]) {
    await expect(createLoad(platform)()).rejects.toMatchObject({ name: "NibbleError", code: "internal", message });
  }
});

test("what is not a file, a recipe or a model is refused with a sentence", async () => {
  const { engine } = await fake();
  await expect(engine.open("path.onnx" as never)).rejects.toMatchObject({
    code: "bad-file",
    detail: expect.stringContaining("string"),
  });
  const model = await open(engine);
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  await expect(model.compress(circle as never)).rejects.toMatchObject({ code: "bad-recipe" });
  await expect(model.picture("w", {} as never)).rejects.toMatchObject({ code: "bad-data", where: "result" });
});

test("the caller may change its bytes after open", async () => {
  const { engine } = await fake();
  const bytes = new TextEncoder().encode("file");
  const opening = engine.open(bytes);
  bytes.fill(0);
  const model = await opening;
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  expect(text(await model.export())).toBe("file");
});

test("a page in the place of the module is named as such", async () => {
  const platform = (bytes: Uint8Array): Platform => ({
    relaxed: false,
    decode: noImages,
    wasm: async () => ({ bytes, source: "https://example.org/engine.wasm" }),
    thread: () => Promise.reject(new Error("not reached")),
    local: () => Promise.reject(new Error("not reached")),
  });
  const page = new TextEncoder().encode("<!doctype html><title>Home</title>");
  await expect(createLoad(platform(page))()).rejects.toMatchObject({
    name: "NibbleError",
    where: "https://example.org/engine.wasm",
    detail: expect.stringMatching(/HTML page.*wasmUrl.*nibble-nn\/inline/),
  });
  await expect(createLoad(platform(new Uint8Array()))()).rejects.toMatchObject({
    detail: expect.stringContaining("an empty file"),
  });
});

// --- Data and training -----------------------------------------------------------------------------------------------

/** Ends the session of an engine: what it held is gone. */
async function lose(engine: Engine): Promise<void> {
  const model = await open(engine, "victim");
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  model.dispose();
}

/** A training of a model on data, of a new engine. */
async function training(worker = true) {
  const { engine, hosts } = await fake(worker);
  const model: Model = await open(engine);
  const data: Data = await engine.data({ kind: "digits" });
  return { engine, hosts, model, data, training: await model.train(data, { epochs: 3 }) };
}

const named = 'file on digits by {"epochs":3}';

test("data are made again from their files or their seed, and freed", async () => {
  const { engine, hosts } = await fake();
  const drawn = await engine.data({ kind: "digits", seed: 1 });
  const bytes = new TextEncoder().encode("1,2,3");
  const opened = await engine.data([{ name: "a.csv", bytes }]);
  bytes.fill(0);
  await lose(engine);
  expect(text((await opened.samples([0])).values as Uint8Array)).toBe("1,2,3");
  expect(text((await drawn.samples([0, 9])).values as Uint8Array)).toBe("digits");
  expect((await drawn.samples(Uint8Array.of(3, 4))).labels).toEqual(Int32Array.of(3, 4));
  drawn.dispose();
  await expect(drawn.samples([0])).rejects.toMatchObject({ code: "bad-data", where: "digits" });
  await engine.check("{}");
  expect(hosts[1]!.log.at(-1)).toBe("close digits");
});

test("a place outside of the data is named", async () => {
  const { engine } = await fake();
  const data = await engine.data({ kind: "digits" });
  await expect(data.samples([0, 10])).rejects.toMatchObject({ where: "indices[1]", detail: "expected 0 to 9, got 10" });
  await expect(data.samples([0.5])).rejects.toMatchObject({ code: "bad-data", where: "indices" });
  await expect(engine.data([])).rejects.toMatchObject({ code: "bad-data" });
  await expect(engine.data([{ name: "x", bytes: 5 as never }])).rejects.toMatchObject({ where: "files[0]" });
});

test("a compression that learnt is made again with its data", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  const data = await engine.data({ kind: "linear" });
  const { model: result } = await model.compress(recipe("train"), { data });
  data.dispose();
  await lose(engine);
  expect(text(await result.export())).toBe("file+train(linear)");
  // The data are gone again, the model is not.
  expect(hosts[1]!.log).toEqual(["open", "data", "compress train", "close linear"]);
});

test("a model that was created is made again from its name and seed", async () => {
  const { engine } = await fake();
  const model = await engine.create("tiny", { seed: 7 });
  await lose(engine);
  expect(text(await model.export())).toBe("tiny#7");
  expect(await engine.architectures()).toEqual([{ name: "tiny", summary: "the smallest" }]);
  await expect(engine.create("tiny", { seed: -1 })).rejects.toMatchObject({ code: "bad-data", where: "seed" });
});

test("training gives every batch's progress and stands at its end", async () => {
  const { training: it, hosts } = await training();
  const seen: number[] = [];
  const last = await it.run({ onProgress: ({ step }) => seen.push(step) });
  expect(seen).toEqual(Array.from({ length: 12 }, (_, step) => step));
  expect(last).toMatchObject({ step: 11, done: true });
  expect(it.progress).toEqual(last);
  // After the slices in which an epoch ended: steps 4, 8 and 12 are in those that end at 6, 9 and 12.
  expect(hosts[0]!.log.filter((line) => line.startsWith("save"))).toEqual(["save 6", "save 9", "save 12"]);
  // Run again, there is nothing to do.
  expect(await it.run()).toEqual(last);
  expect(text(await (await it.model()).export())).toBe(`best of ${named} at 12`);
});

for (const worker of [true, false]) {
  test(`a pause loses nothing, and the thread goes on (${worker ? "worker" : "same thread"})`, async () => {
    const { training: it, hosts } = await training(worker);
    const stop = new AbortController();
    const paused = await it.run({ signal: stop.signal, onProgress: ({ step }) => step === 4 && stop.abort() });
    expect(paused).toMatchObject({ step: 5, done: false });
    expect(hosts).toHaveLength(1);
    const seen: number[] = [];
    await it.run({ onProgress: ({ step }) => seen.push(step) });
    expect(seen).toEqual([6, 7, 8, 9, 10, 11]);
  });
}

test("a training in a lost thread goes on where it was, its models too", async () => {
  const { engine, training: it, hosts } = await training();
  hosts[0]!.slice = 5;
  const stop = new AbortController();
  await it.run({ signal: stop.signal, onProgress: () => stop.abort() });
  const model = await it.model("current");
  await lose(engine);
  const seen: number[] = [];
  await it.run({ onProgress: ({ step }) => seen.push(step) });
  expect(seen).toEqual([5, 6, 7, 8, 9, 10, 11]);
  expect(hosts[1]!.log.slice(0, 4)).toEqual(["open", "data", "train open", "restore 5"]);
  // The model is that of its time, whatever the training did since.
  await lose(engine);
  expect(text(await model.export())).toBe(`current of ${named} at 5`);
});

test("steps since the last save are done again, one by one, before the trained weights are given", async () => {
  const { engine, training: it, hosts } = await training();
  Object.assign(hosts[0]!, { slice: 1, trapAt: 6 });
  await expect(it.run()).rejects.toMatchObject({ code: "internal" });
  expect(it.progress).toMatchObject({ step: 5 });
  expect(text(await (await it.model("current")).export())).toBe(`current of ${named} at 6`);
  expect(hosts[1]!.log).toContain("restore 4");
  expect(await it.run()).toMatchObject({ step: 11, done: true });
  engine.close();
  await expect(it.run()).resolves.toMatchObject({ done: true });
  await expect(it.save()).rejects.toMatchObject({ code: "cancelled" });
});

test("what a training learns from may be disposed of", async () => {
  const { engine, training: it, model, data, hosts } = await training();
  model.dispose();
  data.dispose();
  await lose(engine);
  await it.run();
  expect(hosts[1]!.log.slice(0, 5)).toEqual(["open", "data", "train open", "close file", "close digits"]);
});

test("other calls come between two slices of a training", async () => {
  const { training: it, model, data } = await training();
  const order: string[] = [];
  const running = it.run({ onProgress: ({ step }) => order.push(String(step)) }).then(() => order.push("trained"));
  for (const round of [1, 2]) await model.evaluate(data).then(() => order.push(`evaluated ${round}`));
  await running;
  expect(order.indexOf("evaluated 2")).toBeLessThan(order.indexOf("11"));
  expect(order.at(-1)).toBe("trained");
});

test("a training that waits behind another call is paused at once", async () => {
  const { training: it, model } = await training();
  const first = new AbortController();
  await it.run({ signal: first.signal, onProgress: () => first.abort() });
  const stop = new AbortController();
  const slow = model.compress(recipe("slow"), { signal: stop.signal });
  const pause = new AbortController();
  const running = it.run({ signal: pause.signal });
  pause.abort();
  expect(await running).toMatchObject({ step: 2 });
  stop.abort();
  await expect(slow).rejects.toMatchObject({ code: "cancelled" });
  expect(await it.run()).toMatchObject({ done: true });
});

test("saved bytes go into another engine's training, and others are refused without a trace", async () => {
  const first = await training();
  const stop = new AbortController();
  await first.training.run({ signal: stop.signal, onProgress: () => stop.abort() });
  const saved = await first.training.save();
  first.engine.close();
  const { training: it, hosts } = await training();
  await it.restore(saved);
  await expect(it.restore(new TextEncoder().encode("a picture"))).rejects.toMatchObject({ code: "bad-file" });
  const seen: number[] = [];
  await it.run({ onProgress: ({ step }) => seen.push(step) });
  expect(seen).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11]);
  expect(hosts).toHaveLength(1);
});

test("one training does not run twice at once, and nothing is put under it", async () => {
  const { training: it } = await training();
  const running = it.run();
  await expect(it.run()).rejects.toMatchObject({ code: "bad-data", detail: expect.stringContaining("running") });
  await expect(it.restore(new Uint8Array(1))).rejects.toMatchObject({ code: "bad-data" });
  await running;
  await expect(it.model("newest" as never)).rejects.toMatchObject({ code: "bad-data", where: "which" });
});

test("a training is freed by dispose, and a run of it ends", async () => {
  const { engine, training: it, hosts } = await training();
  const running = it.run();
  it.dispose();
  await expect(running).rejects.toMatchObject({ code: "bad-data", detail: expect.stringContaining("disposed") });
  await engine.check("{}");
  expect(hosts[0]!.log.at(-1)).toBe("close training");
});

test("stopped before its first batch, a training has nothing to show", async () => {
  const { training: it } = await training();
  await expect(it.run({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "cancelled" });
  expect(it.progress).toBeNull();
});

test("models and data of another engine, or neither, are refused", async () => {
  const one = await training();
  const { engine } = await fake();
  const model = await open(engine);
  await expect(model.evaluate(one.data)).rejects.toMatchObject({ code: "bad-data", where: "data" });
  await expect(model.evaluate(model as never)).rejects.toMatchObject({ code: "bad-data", where: "data" });
  await expect(model.compare(one.model, one.data)).rejects.toMatchObject({ code: "bad-data", where: "other" });
  await expect(model.train(undefined as never)).rejects.toMatchObject({ code: "bad-data", where: "data" });
  one.engine.close();
});

test("tensors cross with their bytes, and wrong ones are named", async () => {
  const { engine } = await fake();
  const model = await open(engine);
  expect(await model.cannotRun()).toBeNull();
  expect(await (await open(engine, "odd")).cannotRun()).toBe("an odd operator");
  const ids = { dtype: "int64", shape: [2], data: BigInt64Array.of(1n, -2n) };
  // A part of a larger array, at an odd place.
  const x = { dtype: "float32", shape: [1, 3], data: Float32Array.of(9, 1, 2, 3, 9).subarray(1, 4) };
  expect(await model.run({ ids, x })).toEqual({ ids, x: { ...x, data: Float32Array.of(1, 2, 3) } });
  const wrong: [object, RegExp][] = [
    [{ ...x, shape: [2, 2] }, /4 elements, data has 3/],
    [{ ...x, dtype: "float64" }, /Float64Array for float64, got Float32Array/],
    [{ ...x, dtype: "real" }, /unknown dtype "real"/],
    [{ ...x, data: [1, 2, 3] }, /got Array/],
    [{ ...x, shape: [-1, -3] }, /whole numbers/],
  ];
  for (const [tensor, message] of wrong) {
    await expect(model.run({ x: tensor as never })).rejects.toMatchObject({
      code: "bad-data",
      where: 'inputs["x"]',
      detail: expect.stringMatching(message),
    });
  }
});

test("a training that nobody holds any more is freed with its garbage", async () => {
  const { engine, hosts } = await fake();
  const forget = async () => {
    const it = await (await open(engine)).train(await engine.data({ kind: "digits" }));
    await it.run();
  };
  await forget();
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  await expect.poll(() => (collect(), hosts[0]!.log)).toContain("close training");
  await expect.poll(() => (collect(), hosts[0]!.log)).toContain("close digits");
});

test("the build is chosen by what the machine has, and the strict one stands in", async () => {
  const relaxedHere = hasRelaxedSimd();
  const asked: string[] = [];
  const platform = (relaxed: boolean, missing = false): Platform => ({
    relaxed,
    decode: noImages,
    wasm: async (_options, build) => {
      asked.push(build);
      if (missing && build === "relaxed") throw new Error("404");
      return { bytes: kEmptyModule, source: "test" };
    },
    thread: () => Promise.reject(new Error("not reached")),
    local: async (events) => new FakeHost({ ...events, onLost: () => {} }),
  });
  const builds = async (options: object, from: Platform) => {
    asked.length = 0;
    (await createLoad(from)({ worker: false, ...options })).close();
    return [...asked];
  };
  expect(await builds({ arithmetic: "strict" }, platform(true))).toEqual(["strict"]);
  expect(await builds({}, platform(false))).toEqual(["strict"]);
  expect(await builds({}, platform(true))).toEqual([relaxedHere ? "relaxed" : "strict"]);
  expect((await builds({}, platform(true, true))).at(-1)).toBe("strict");
  expect(await builds({ wasmUrl: "elsewhere.wasm", arithmetic: "relaxed" }, platform(true))).toEqual(["strict"]);
  const relaxed = createLoad(platform(false))({ arithmetic: "relaxed" });
  await expect(relaxed).rejects.toMatchObject({ code: "unsupported", where: "arithmetic" });
  await expect(createLoad(platform(true))({ arithmetic: "fast" as never })).rejects.toMatchObject({ code: "bad-data" });
});
