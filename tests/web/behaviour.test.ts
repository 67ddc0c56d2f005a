// What the page does with data, without a page: actions over the fake engine, whose answers follow from its inputs.
import { beforeEach, expect, test, vi } from "vitest";
import type { Training } from "../../wasm/src/api";
import type { Comparison, TensorValue } from "../../wasm/src/types";

const engine = vi.hoisted(() => ({
  compared: 0,
  prepared: 0,
  read: 0,
  gate: null as Promise<void> | null,
  /** Holds the start of a training back until it is resolved. */
  trainGate: null as Promise<void> | null,
  /** Trainings that there are. */
  trainings: 0,
  /** Options of the last run of a recipe. */
  learned: undefined as unknown,
  /** Makes every run of a recipe fail. */
  fail: false,
  /** The largest number that a model was last given. */
  largest: 0,
}));

vi.mock("nibble-nn", async () => {
  const fake = await import("./fake_engine");
  return {
    ...fake,
    load: async () => {
      const real = await fake.load();
      const probe = await real.create("probe");
      const kind = Object.getPrototypeOf(probe) as typeof probe;
      const { compare, prepare, train, compress, run } = kind;
      kind.train = async function (this: typeof probe, ...args): Promise<Training> {
        if (engine.trainGate) await engine.trainGate;
        engine.trainings++;
        return Object.assign(await train.apply(this, args), { dispose: () => void engine.trainings-- });
      };
      kind.compress = async function (this: typeof probe, ...args) {
        if (engine.fail) throw new fake.NibbleError("bad-recipe", "steps", "no run works here");
        engine.learned = args[1]?.dataOptions;
        return compress.apply(this, args);
      };
      kind.run = function (this: typeof probe, ...args) {
        const [input] = Object.values(args[0]) as TensorValue[];
        engine.largest = (input!.data as Float32Array).reduce((a, b) => Math.max(a, b));
        return run.apply(this, args);
      };
      kind.compare = async function (this: typeof probe, ...args): Promise<Comparison> {
        engine.compared++;
        if (engine.gate) await engine.gate;
        return compare.apply(this, args);
      };
      kind.prepare = function (this: typeof probe, ...args) {
        engine.prepared++;
        return prepare.apply(this, args);
      };
      const data = real.data.bind(real);
      real.data = async (...args) => {
        engine.read++;
        const made = await data(...args);
        const { info } = made;
        // The same as numbers from 0 to 1, or in a shape that is no digit.
        if (info.name.startsWith("floats")) {
          return Object.assign(Object.create(made) as typeof made, {
            info: { ...info, dtype: "float32" as const },
            async samples(indices: ArrayLike<number>) {
              const { values, labels } = await made.samples(indices);
              return { values: Float32Array.from(values as Uint8Array, (value) => value / 255), labels };
            },
          });
        }
        if (!info.name.startsWith("wide")) return made;
        return Object.assign(Object.create(made) as typeof made, { info: { ...info, shape: [14, 14] } });
      };
      return real;
    },
  };
});

const { readFileSync } = await import("node:fs");
const page = await import("../../web/src/actions");
const pageState = await import("../../web/src/state");
const actions = await import("../../web/src/behaviour/actions");
const training = await import("../../web/src/behaviour/training");
const state = await import("../../web/src/behaviour/state");
const { firstChoice, firstSide } = await import("../../web/src/recipe");

const sample = readFileSync(new URL("../../web/public/samples/simplenet.onnx", import.meta.url));
const modelFile = (name: string): File => new File([sample], name);
const DIGITS = { kind: "digits", seed: 1, n: 2000 } as const;
const QUANTIZE = 1;

/** Waits until the comparison of what the page shows is there. */
const judged = (): Promise<void> =>
  vi.waitFor(() => {
    expect(state.compared.value).not.toBeNull();
    expect(state.compared.value!.side).toBe(pageState.side.value);
    expect(state.comparing.value).toBeNull();
  }, 5000);

beforeEach(async () => {
  Object.assign(engine, { gate: null, trainGate: null, fail: false });
  await training.discard();
  pageState.side.value = firstSide();
  pageState.view.value = "layer";
  pageState.trouble.value = null;
  state.split.value = "test";
  state.choice.value = firstChoice();
  state.trainFrom.value = "result";
  await page.openFiles([modelFile("model.onnx")]);
  actions.makeData(DIGITS);
  await vi.waitFor(() => expect(state.data.value?.source).toEqual(DIGITS));
  await judged();
  Object.assign(engine, { compared: 0, prepared: 0, read: 0 });
});

test("data and a model give accuracy before and after, and the samples that flipped with their pictures", async () => {
  expect(state.data.value?.info.samples).toBe(2000);
  expect(state.preparation.value?.reason).toContain("best accuracy");
  page.setStep(QUANTIZE, { bits: 2 });
  await judged();
  const { before, after, flipped } = state.compared.value!;
  expect(before.accuracy).toBeGreaterThan(0.9);
  expect(after.accuracy).toBeLessThan(before.accuracy! - 0.1);
  expect(state.flips.value.map(({ index }) => index)).toEqual(Array.from(flipped));
  const counts = state.flipCounts.value;
  expect(counts.worse + counts.better + counts.other).toBe(flipped.length);
  expect(counts.worse - counts.better).toBe(Math.round((before.accuracy! - after.accuracy!) * after.samples));
  expect(state.flips.value[0]!.values.length).toBe(784);
});

test("many slider moves are few comparisons, the last of them of the last recipe", async () => {
  for (const bits of [7, 6, 5, 4, 3]) {
    page.setStep(QUANTIZE, { bits });
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await judged();
  expect(engine.compared).toBeLessThanOrEqual(2);
  expect(engine.prepared).toBe(0);
});

test("looking at another layer compares nothing anew", async () => {
  page.select("conv1.weight");
  await page.settled();
  await new Promise((resolve) => setTimeout(resolve, 150));
  expect(engine.compared).toBe(0);
});

test("an answer for a model that is no longer open is dropped", async () => {
  let open = (): void => {};
  engine.gate = new Promise((resolve) => (open = resolve));
  page.setStep(QUANTIZE, { bits: 3 });
  await vi.waitFor(() => expect(state.comparing.value).not.toBeNull());
  await page.openFiles([modelFile("other.onnx")]);
  expect(state.compared.value).toBeNull();
  engine.gate = null;
  open();
  await judged();
  expect(pageState.opened.value?.file).toBe("other.onnx");
});

test("another preparation, split or number of samples is compared with", async () => {
  actions.setPreparation({ mean: [0], std: [1] });
  await vi.waitFor(() => expect(state.compared.value?.before.preparation.mean).toEqual([0]));
  expect(state.preparation.value?.reason).toBe("");
  actions.setPreparation(null);
  await vi.waitFor(() => expect(state.compared.value?.before.preparation.mean).toEqual([0.1307]));
  state.split.value = "all";
  await vi.waitFor(() => expect(state.compared.value?.after.samples).toBe(1000));
  state.everySample.value = true;
  await vi.waitFor(() => expect(state.compared.value?.after.samples).toBe(2000));
  state.everySample.value = false;
});

test("dropped data go to the data and dropped models to the model, also together", async () => {
  await page.openFiles([new File(["x"], "train-images-idx3-ubyte.gz"), modelFile("mine.onnx")]);
  await judged();
  expect(state.data.value?.source).toEqual({ kind: "files", names: ["train-images-idx3-ubyte.gz"] });
  expect(pageState.opened.value?.file).toBe("mine.onnx");
  expect(pageState.trouble.value).toBeNull();
});

test("data that cannot be read say so, and what was there stays", async () => {
  const before = state.data.value;
  await page.openFiles([new File(["x"], "broken.csv")]);
  expect(pageState.trouble.value).toMatchObject({ code: "bad-data", file: "broken.csv" });
  expect(state.data.value).toBe(before);
  expect(pageState.wishedData.value).toEqual(DIGITS);
});

test("data that could not be read are not read again with the next model", async () => {
  await page.openFiles([new File(["x"], "train.csv")]);
  await page.openFiles([new File(["x"], "broken.csv")]);
  expect(pageState.trouble.value).toMatchObject({ code: "bad-data", file: "broken.csv" });
  engine.read = 0;
  await page.openFiles([modelFile("next.onnx")]);
  await judged();
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(engine.read).toBe(0);
  expect(pageState.trouble.value).toBeNull();
  expect(state.data.value?.source).toEqual({ kind: "files", names: ["train.csv"] });
});

test("data that could not be read do not take back what was asked for meanwhile", async () => {
  const reading = actions.openData([new File(["x"], "broken.csv")]);
  actions.makeData({ ...DIGITS, seed: 2 });
  await reading;
  await vi.waitFor(() => expect(state.data.value?.source).toEqual({ ...DIGITS, seed: 2 }));
});

test("removed data take their numbers with them", async () => {
  actions.removeData();
  await vi.waitFor(() => expect(state.data.value).toBeNull());
  expect(state.compared.value).toBeNull();
  expect(pageState.hasData.value).toBe(false);
  expect(page.currentHash()).toContain("data=none");
});

test("activations of a sample are fetched when they are looked at, and follow the layer that is picked", async () => {
  expect(state.maps.value).toBeNull();
  pageState.view.value = "activations";
  await vi.waitFor(() => expect(state.maps.value).not.toBeNull());
  page.select("conv2.weight");
  await vi.waitFor(() => expect(state.maps.value?.name).toBe("conv2.out"));
  expect(pageState.view.value).toBe("activations");
  actions.selectValue("fc1.out");
  expect(pageState.selected.value).toBe("fc1.weight");
  await vi.waitFor(() => expect(state.maps.value?.name).toBe("fc1.out"));
  const index = state.compared.value!.before.indices[5]!;
  actions.lookInside(index);
  await vi.waitFor(() => expect(state.maps.value?.index).toBe(index));
});

test("a drawn digit is answered before and after, and again when the recipe changes", async () => {
  pageState.view.value = "draw";
  await actions.takeSample();
  await vi.waitFor(() => expect(state.guess.value).not.toBeNull());
  const first = state.guess.value!;
  expect(first.before.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
  page.setStep(QUANTIZE, { bits: 1 });
  await judged();
  await vi.waitFor(() => expect(state.guess.value).not.toBe(first));
  state.drawn.value = null;
  await vi.waitFor(() => expect(state.guess.value).toBeNull());
});

test("a drawn digit is given to the model as the data are, also where they are no bytes", async () => {
  await page.openFiles([new File(["x"], "floats.npz")]);
  await judged();
  expect(state.preparation.value?.scale).toBe(1);
  actions.setPreparation({ mean: [0], std: [1] });
  pageState.view.value = "draw";
  const white = new Uint8Array(784).fill(255, 300, 400);
  state.drawn.value = white;
  await vi.waitFor(() => expect(engine.largest).toBe(1));
  await actions.takeSample();
  const taken = state.drawn.value;
  expect(taken).not.toBe(white);
  expect(Math.max(...taken)).toBe(255);
  expect(new Set(taken).size).toBeGreaterThan(10);
});

test("samples that are no digits cannot be put on the pad", async () => {
  expect(state.samplesAreDigits.value).toBe(true);
  await page.openFiles([new File(["x"], "wide.npz")]);
  await judged();
  expect(state.samplesAreDigits.value).toBe(false);
  state.drawn.value = null;
  await actions.takeSample();
  expect(state.drawn.value).toBeNull();
});

// --- Training --------------------------------------------------------------------------------------------------------

const phase = (): string | undefined => state.training.value?.phase;

test("training runs, pauses, goes on where it stopped, and notes every batch once", async () => {
  state.choice.value = { ...firstChoice(), epochs: 3, batch: 64 };
  await training.start();
  await vi.waitFor(() => expect(state.training.value?.progress?.step).toBeGreaterThan(5));
  await training.pause();
  expect(phase()).toBe("paused");
  const at = state.curve.loss.length;
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(state.curve.loss.length).toBe(at);
  training.resume();
  await vi.waitFor(() => expect(phase()).toBe("done"), 5000);
  const { progress } = state.training.value!;
  expect(progress!.step).toBe(progress!.steps);
  expect(state.curve.loss.length).toBe(progress!.steps);
  expect(state.curve.validation.length).toBe(3);
  expect(state.training.value?.best?.loss).toBe(Math.min(...state.curve.validation.map(({ loss }) => loss)));
});

test("a training that is stopped keeps the best weights so far, and says so", async () => {
  await training.start();
  await vi.waitFor(() => expect(state.training.value?.progress?.step).toBeGreaterThan(2));
  await training.stop();
  expect(phase()).toBe("stopped");
  expect(pageState.said.value?.key).toBe("trainingKept");
  await training.use();
  expect(pageState.opened.value?.file).toBe("model.trained.onnx");
  expect(state.training.value).toBeNull();
});

test("what was learned becomes the page's model, and the recipe is run on it", async () => {
  page.setStep(QUANTIZE, { bits: 2 });
  await judged();
  const poor = state.compared.value!.after.accuracy!;
  state.choice.value = { ...firstChoice(), epochs: 5, learning_rate: 0.01 };
  await training.start();
  await vi.waitFor(() => expect(phase()).toBe("done"), 5000);
  await training.use();
  await judged();
  expect(state.compared.value!.before.accuracy!).toBeGreaterThan(poor);
});

test("a new network is trained from nothing", async () => {
  await training.fetchArchitectures();
  expect(state.architectures.value!.length).toBeGreaterThan(0);
  state.trainFrom.value = `new:${state.architectures.value![0]!.name}`;
  await training.start();
  await vi.waitFor(() => expect(phase()).toBe("done"), 5000);
  await training.use();
  await judged();
  expect(pageState.opened.value?.file).toBe(`${state.architectures.value![0]!.name}.trained.onnx`);
});

test("the data that came with a sample stay with what was trained on them", async () => {
  vi.stubGlobal("document", { baseURI: "http://localhost/" });
  vi.stubGlobal("fetch", async () => new Response(sample));
  pageState.wishedData.value = "default";
  await page.openSample("simplenet");
  vi.unstubAllGlobals();
  await judged();
  await training.start();
  await vi.waitFor(() => expect(phase()).toBe("done"), 5000);
  await training.use();
  await judged();
  expect(pageState.opened.value?.sample).toBeNull();
  expect(state.data.value?.source).toEqual(DIGITS);
});

test("opening another model ends the training of the last", async () => {
  await training.start();
  await vi.waitFor(() => expect(phase()).toBe("running"));
  await page.openFiles([modelFile("another.onnx")]);
  await vi.waitFor(() => expect(state.training.value).toBeNull());
});

test("where the first run failed there is no result, and the opened model is trained", async () => {
  engine.fail = true;
  await page.openFiles([modelFile("unrun.onnx")]);
  expect(pageState.shown.value).toBeNull();
  await training.start();
  await vi.waitFor(() => expect(phase()).toBe("running"));
  expect(state.training.value?.file).toBe("unrun.trained.onnx");
});

test.each([
  ["other data", () => actions.makeData({ ...DIGITS, seed: 9 })],
  ["another model", () => page.openFiles([modelFile("another.onnx")])],
])("a training whose start is overtaken by %s never runs", async (_what, overtake) => {
  let open = (): void => {};
  engine.trainGate = new Promise((resolve) => (open = resolve));
  const before = engine.trainings;
  const starting = training.start();
  await vi.waitFor(() => expect(phase()).toBe("starting"));
  await page.settled();
  void overtake();
  await vi.waitFor(() => expect(phase()).toBeUndefined());
  open();
  await starting;
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(phase()).toBeUndefined();
  expect(state.curve.loss.length).toBe(0);
  expect(engine.trainings).toBe(before);
});

test("of two starts the later one stays", async () => {
  const before = engine.trainings;
  state.choice.value = { ...firstChoice(), epochs: 1 };
  await Promise.all([training.start(), training.start()]);
  await vi.waitFor(() => expect(phase()).toBe("done"), 5000);
  expect(engine.trainings).toBe(before + 1);
  expect(state.curve.loss.length).toBe(state.training.value!.progress!.steps);
});

// --- Training in a recipe --------------------------------------------------------------------------------------------

test("a recipe that trains shows what comes before the training until it is run, and again after each change", async () => {
  page.setStep(QUANTIZE, { bits: 2 });
  page.addStep("train");
  await judged();
  expect(pageState.untrained.value).toBe(true);
  expect(pageState.shown.value?.report.recipe.steps.map(({ kind }) => kind)).toEqual(["quantize"]);
  const poor = state.compared.value!.after.accuracy!;
  await page.runAll();
  expect(pageState.untrained.value).toBe(false);
  expect(pageState.shown.value?.report.recipe.steps.map(({ kind }) => kind)).toEqual(["quantize", "train"]);
  await vi.waitFor(() => expect(state.compared.value!.after.accuracy!).toBeGreaterThan(poor));
  page.setStep(QUANTIZE, { bits: 3 });
  await judged();
  expect(pageState.untrained.value).toBe(true);
});

test("a recipe that trains without data says that data are missing", async () => {
  actions.removeData();
  await vi.waitFor(() => expect(state.data.value).toBeNull());
  page.addStep("train");
  await page.runAll();
  expect(pageState.trouble.value?.code).toBe("bad-data");
  expect(pageState.untrained.value).toBe(true);
});

test("a recipe learns from data as the user has just prepared them, and the command says how", async () => {
  vi.stubGlobal("navigator", { clipboard: { writeText: async () => {} } });
  page.addStep("train");
  await judged();
  await page.copyCommand();
  expect(pageState.said.value?.text).toMatch(/ --data digits:seed=1,n=2000 -o /);
  actions.setPreparation({ scale: 0.5, mean: [0], std: [2] });
  await page.runAll();
  expect(engine.learned).toMatchObject({ preparation: { scale: 0.5, mean: [0], std: [2] } });
  await page.copyCommand();
  const given = "--data digits:seed=1,n=2000 --scale 0.5 --mean 0 --std 2 --layout chw -o ";
  expect(pageState.said.value?.text).toContain(given);
  actions.setPreparation(null);
  await vi.waitFor(() => expect(state.preparation.value).not.toBeNull());
  await page.copyCommand();
  expect(pageState.said.value?.text).not.toContain("--scale");
  vi.unstubAllGlobals();
});
