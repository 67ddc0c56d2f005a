// What the page does, without a page: actions over an engine that counts, waits and fails on command.
import { beforeEach, expect, test, vi } from "vitest";

const engine = vi.hoisted(() => ({
  running: 0,
  mostRunning: 0,
  compressed: [] as string[],
  live: 0,
  opened: [] as { name: string; external: string[] }[],
  /** Holds runs back until it is resolved. */
  gate: null as Promise<void> | null,
  fail: null as Error | null,
  /** Exact counts that began, and what holds them back. */
  counted: 0,
  countGate: null as Promise<void> | null,
}));

vi.mock("nibble-nn", async () => {
  const { load, NibbleError } = await import("./fake_engine");
  type Fake = Awaited<ReturnType<typeof load>>;
  const wrap = (model: Awaited<ReturnType<Fake["open"]>>): typeof model => {
    engine.live++;
    let disposed = false;
    const large = model.info.name.startsWith("large") && { info: { ...model.info, weight_parameters: 2_000_000 } };
    const stopped = (signal?: AbortSignal): Promise<never> => {
      const rejected = new Promise<never>((_, reject) =>
        signal?.addEventListener("abort", () => reject(new NibbleError("cancelled", "", "stopped"))),
      );
      rejected.catch(() => {});
      return rejected;
    };
    return Object.assign(Object.create(model), large, {
      async compress(...[recipe, options]: Parameters<typeof model.compress>) {
        engine.mostRunning = Math.max(engine.mostRunning, ++engine.running);
        try {
          engine.compressed.push(JSON.stringify(recipe));
          if (engine.gate) await Promise.race([engine.gate, stopped(options?.signal)]);
          if (engine.fail) throw engine.fail;
          const { model: made, report } = await model.compress(recipe, options);
          return { model: wrap(made), report };
        } finally {
          engine.running--;
        }
      },
      async bytes(options: Parameters<typeof model.bytes>[0] = {}) {
        if (!options.exact) return model.bytes(options);
        engine.counted++;
        if (engine.countGate) await Promise.race([engine.countGate, stopped(options.signal)]);
        return model.bytes(options);
      },
      picture: (name: string, result: object, options: object) =>
        model.picture(name, Object.getPrototypeOf(result), options),
      dispose() {
        if (!disposed) engine.live--;
        disposed = true;
      },
    });
  };
  return {
    NibbleError,
    load: async () => {
      const real = await load();
      const open: Fake["open"] = async (file, options = {}) => {
        engine.opened.push({ name: options.name ?? "", external: Object.keys(options.external ?? {}) });
        if (options.name === "external.onnx" && !options.external?.["weights.bin"]) {
          throw new NibbleError("bad-file", "weights.bin", "external data: the file was not given");
        }
        return wrap(await real.open(file, options));
      };
      return { open, check: real.check.bind(real), close: () => {} };
    },
  };
});

const { readFileSync } = await import("node:fs");
const { NibbleError } = await import("./fake_engine");
const actions = await import("../../web/src/actions");
const state = await import("../../web/src/state");
const { firstSide } = await import("../../web/src/recipe");

const sample = readFileSync(new URL("../../web/public/samples/simplenet.onnx", import.meta.url));
const modelFile = (name: string): File => new File([sample], name);
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 30));

beforeEach(async () => {
  Object.assign(engine, { gate: null, fail: null, countGate: null });
  state.trouble.value = null;
  state.side.value = firstSide();
  await actions.openFiles([modelFile("model.onnx")]);
  Object.assign(engine, { mostRunning: 0, compressed: [], opened: [], counted: 0 });
});

const QUANTIZE = 1; // index of the quantize step in the first recipe

test("opening a model runs the recipe and shows its largest weight", () => {
  expect(state.opened.value?.info.weight_parameters).toBe(250 + 5000 + 16000 + 500);
  expect(state.selected.value).toBe("fc1.weight");
  expect(state.shown.value?.side).toBe(state.side.value);
  expect(state.picture.value?.name).toBe("fc1.weight");
  expect(state.widths.value?.values.length).toBe(50);
  expect(state.work.value).toBeNull();
});

test("many slider moves are few runs, the last of them with the last value", async () => {
  for (let i = 0; i < 100; i++) actions.setStep(QUANTIZE, { bits: 1 + (i % 8) });
  actions.setStep(QUANTIZE, { bits: 3 });
  await settle();
  expect(engine.mostRunning).toBe(1);
  expect(engine.compressed.length).toBe(2);
  expect(engine.compressed.at(-1)).toContain('"bits":3');
  expect(state.shown.value?.report.recipe.steps[0]).toMatchObject({ scheme: { bits: 3 } });
});

test("results that are replaced are freed", async () => {
  for (let bits = 1; bits <= 8; bits++) {
    actions.setStep(QUANTIZE, { bits });
    await settle();
  }
  expect(engine.live).toBe(2); // the opened model and the newest result
});

test("cancel goes back to the last good recipe and its numbers", async () => {
  const good = state.shown.value;
  engine.gate = new Promise(() => {});
  actions.setStep(QUANTIZE, { bits: 2 });
  await settle();
  actions.cancel();
  await settle();
  expect(state.shown.value).toBe(good);
  expect(state.side.value).toBe(good?.side);
  expect(state.trouble.value).toBeNull();
  engine.gate = null;
  actions.setStep(QUANTIZE, { bits: 5 });
  await settle();
  expect(state.shown.value?.report.recipe.steps[0]).toMatchObject({ scheme: { bits: 5 } });
});

test("progress is shown only when work takes long", async () => {
  let open = (): void => {};
  engine.gate = new Promise((resolve) => (open = resolve));
  actions.setStep(QUANTIZE, { bits: 2 });
  await settle();
  expect(state.work.value).toBeNull();
  await vi.waitFor(() => expect(state.work.value?.task).toBe("run"));
  open();
  await vi.waitFor(() => expect(state.work.value).toBeNull());
});

test("a recipe that fails leaves the numbers and says where", async () => {
  const good = state.shown.value;
  engine.fail = new NibbleError("bad-recipe", "steps[1].scheme.bits", "expected 1 to 8 or 16, got 9");
  actions.setStep(QUANTIZE, { bits: 9 });
  await settle();
  expect(state.shown.value).toBe(good);
  expect(state.trouble.value).toMatchObject({ code: "bad-recipe", where: "steps[1].scheme.bits" });
  expect(state.stale.value).toBe(true);
  engine.fail = null;
  actions.setStep(QUANTIZE, { bits: 8 });
  await settle();
  expect(state.trouble.value).toBeNull();
});

test("a broken file leaves the model that is open", async () => {
  const before = state.opened.value;
  await actions.openFiles([new File(["no model"], "broken.onnx")]);
  expect(state.trouble.value).toMatchObject({ code: "bad-file", file: "broken.onnx" });
  expect(state.opened.value).toBe(before);
  await actions.openFiles([modelFile("good.onnx")]);
  expect(state.trouble.value).toBeNull();
  expect(state.opened.value?.file).toBe("good.onnx");
});

test("missing external data is asked for, and completes the model when it comes", async () => {
  await actions.openFiles([modelFile("external.onnx")]);
  expect(state.trouble.value).toMatchObject({ code: "missing-data", where: "weights.bin" });
  await actions.openFiles([new File(["x"], "weights.bin")]);
  expect(engine.opened.at(-1)).toEqual({ name: "external.onnx", external: ["weights.bin"] });
  expect(state.opened.value?.file).toBe("external.onnx");
});

test("a sample that arrives after the user has dropped a file is not opened", async () => {
  let arrive = (): void => {};
  const fetched = new Promise<Response>((resolve) => (arrive = () => resolve(new Response(sample))));
  vi.stubGlobal("document", { baseURI: "http://localhost/" });
  vi.stubGlobal("fetch", () => fetched);
  const opening = actions.openSample("simplenet");
  await actions.openFiles([modelFile("mine.onnx")]);
  arrive();
  await opening;
  vi.unstubAllGlobals();
  expect(state.opened.value?.file).toBe("mine.onnx");
});

test("files dropped together are a model and its external data, in any order", async () => {
  await actions.openFiles([new File(["x"], "weights.bin"), modelFile("external.onnx")]);
  expect(engine.opened).toEqual([{ name: "external.onnx", external: ["weights.bin"] }]);
});

test("a dropped recipe fills the form", async () => {
  const recipe = { version: 1, seed: 7, steps: [{ kind: "quantize", scheme: { bits: 4 } }] };
  await actions.openFiles([new File([JSON.stringify(recipe)], "recipe.json")]);
  expect(state.side.value.seed).toBe(7);
  expect(state.side.value.steps.map(({ kind, on }) => [kind, on])).toEqual([
    ["prune", false],
    ["quantize", true],
  ]);
  await settle();
  expect(engine.compressed.at(-1)).toContain('"bits":4');
});

test("a recipe that is no recipe says so and changes nothing", async () => {
  const before = state.side.value;
  await actions.loadRecipe("{ nothing");
  expect(state.trouble.value?.code).toBe("bad-json");
  expect(state.side.value).toBe(before);
});

test("unticking a layer takes it out of the run", async () => {
  actions.setLayer("fc1.weight", false);
  await settle();
  expect(state.shown.value?.report.weights.find(({ name }) => name === "fc1.weight")?.sqnr_db).toBeNull();
  expect(state.layers.value.find(({ info }) => info.name === "fc1.weight")?.on).toBe(false);
});

test("the byte meter is estimated with every run and counted when the page has come to rest", async () => {
  const counts: [number, boolean][] = [];
  const stop = state.meter.subscribe((now) => now && counts.push([now.bytes.file, now.compressed !== null]));
  actions.setStep(1, { bits: 4 });
  await actions.settled();
  expect(state.meter.value).toMatchObject({ side: state.side.value, compressed: null });
  await vi.waitFor(() => expect(state.meter.value!.compressed).not.toBeNull());
  stop();
  // gzip of the four-byte values that the fake engine packs: as Node's own stream has it.
  const { gzipSync } = await import("node:zlib");
  const { name } = state.meter.value!.bytes.weights[0];
  const { gzip } = state.meter.value!.compressed!.get(name)!;
  const packed = await actions.models().result!.model.packed(name);
  expect(Math.abs(gzip! / gzipSync(packed).length - 1)).toBeLessThan(0.02);
  expect(counts.at(-1)).toEqual([state.meter.value!.bytes.file, true]);
  expect(counts.at(-2)).toEqual([state.meter.value!.bytes.file, false]);
});

test("bytes are not counted while a run goes on, which can still be stopped", async () => {
  const good = state.shown.value;
  engine.gate = new Promise(() => {});
  // Within the moment after the last run, and longer than that moment.
  actions.setStep(QUANTIZE, { bits: 2 });
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(engine.counted).toBe(0);
  expect(state.work.value?.task).toBe("run");
  actions.cancel();
  await actions.settled();
  expect(state.work.value).toBeNull();
  expect(state.side.value).toBe(good?.side);
  // The page is at rest again, with a result whose bytes are still to be counted.
  await vi.waitFor(() => expect(state.meter.value?.compressed).not.toBeNull());
  expect(state.meter.value?.side).toBe(good?.side);
});

test("a long count ends when the recipe changes, also while a picture waits for it", async () => {
  await actions.openFiles([modelFile("large.onnx")]);
  expect(state.meter.value?.compressed).toBeNull();
  engine.countGate = new Promise(() => {});
  const count = actions.countBytes();
  actions.select("conv1.weight");
  await settle();
  expect(engine.counted).toBe(1); // to look at another weight leaves the count going
  actions.setStep(QUANTIZE, { bits: 2 });
  await count;
  await actions.settled();
  expect(state.shown.value?.report.recipe.steps[0]).toMatchObject({ scheme: { bits: 2 } });
  expect(state.meter.value).toMatchObject({ side: state.side.value, compressed: null });
  expect(state.trouble.value).toBeNull();
  expect(state.work.value).toBeNull();
});

test("a long count ends when another model is opened", async () => {
  await actions.openFiles([modelFile("large.onnx")]);
  engine.countGate = new Promise(() => {});
  const count = actions.countBytes();
  await settle();
  await actions.openFiles([modelFile("other.onnx")]);
  await count;
  expect(state.opened.value?.file).toBe("other.onnx");
  expect(state.trouble.value).toBeNull();
});

test("a long count can be stopped, and begun again", async () => {
  await actions.openFiles([modelFile("large.onnx")]);
  engine.countGate = new Promise(() => {});
  const count = actions.countBytes();
  await vi.waitFor(() => expect(state.work.value?.task).toBe("bytes"));
  actions.cancel();
  await count;
  expect(state.work.value).toBeNull();
  expect(state.meter.value?.compressed).toBeNull();
  engine.countGate = null;
  await actions.countBytes();
  expect(state.meter.value?.compressed).not.toBeNull();
});

test("a short count, which costs less than to end the engine, is let end, and what it counted is dropped", async () => {
  let open = (): void => {};
  engine.countGate = new Promise((resolve) => (open = resolve));
  const count = actions.countBytes();
  await settle();
  actions.setStep(QUANTIZE, { bits: 2 });
  await actions.settled();
  expect(state.meter.value).toMatchObject({ side: state.side.value, compressed: null });
  open();
  await count;
  expect(state.meter.value).toMatchObject({ side: state.side.value, compressed: null });
  expect(state.trouble.value).toBeNull();
});

test("cancel stops all that is going on, and the bar is of what began first", async () => {
  const endless = (task: "data" | "save"): Promise<string> =>
    actions.cancellable(
      task,
      ({ signal, onProgress }) =>
        new Promise((resolve) => {
          onProgress({ phase: "write", item: "", fraction: 0.5 });
          signal.addEventListener("abort", () => resolve(task));
        }),
    );
  const both = Promise.all([endless("data"), endless("save")]);
  await vi.waitFor(() => expect(state.work.value).toMatchObject({ task: "data", fraction: 0.5 }));
  actions.cancel();
  expect(await both).toEqual(["data", "save"]);
  expect(state.work.value).toBeNull();
});

test("when the first of two works ends, the bar is of the second", async () => {
  let end = (): void => {};
  const first = actions.cancellable("data", () => new Promise<void>((resolve) => (end = resolve)));
  const second = actions.cancellable(
    "save",
    ({ signal }) => new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve())),
  );
  await vi.waitFor(() => expect(state.work.value?.task).toBe("data"));
  end();
  await first;
  expect(state.work.value?.task).toBe("save");
  actions.cancel();
  await second;
  expect(state.work.value).toBeNull();
});

test("a dropped recipe or folder that the browser cannot read says so", async () => {
  const gone = (): Promise<string> => Promise.reject(new DOMException("it was moved", "NotFoundError"));
  await actions.openFiles([Object.assign(new File(["{}"], "recipe.json"), { text: gone })]);
  expect(state.trouble.value).toMatchObject({ code: "bad-file", file: "recipe.json", detail: "it was moved" });
  state.trouble.value = null;
  const readEntries = (_: unknown, reject: (error: unknown) => void): void => reject(new DOMException("no permission"));
  const folder = { isDirectory: true, isFile: false, createReader: () => ({ readEntries }) };
  const items = [{ webkitGetAsEntry: () => folder }];
  await actions.openDropped({ items, files: [] } as unknown as DataTransfer);
  expect(state.trouble.value).toMatchObject({ code: "bad-file", detail: "no permission" });
});

test("where the part for data cannot be loaded the page says so and goes on", async () => {
  // Types are not followed there, where they are of TSX.
  const link = await import(`../../web/src/${"behaviour_link"}.ts`);
  vi.doMock("../../web/src/behaviour/index", () => Promise.reject(new Error("no network")));
  vi.doMock("../../web/src/behaviour/actions", () => Promise.reject(new Error("no network")));
  await link.fetchBehaviour();
  expect(link.behaviour.value).toBeNull();
  expect(state.behaviourLost.value).not.toBeNull();
  expect(Object.keys(link.LOST)).toEqual(["en", "zh"]);
  state.behaviourLost.value = null;
  await actions.openFiles([new File(["1,2"], "data.csv"), modelFile("beside.onnx")]);
  expect(state.behaviourLost.value).not.toBeNull();
  expect(state.opened.value?.file).toBe("beside.onnx");
  vi.doUnmock("../../web/src/behaviour/index");
  vi.doUnmock("../../web/src/behaviour/actions");
});
