// The package runs, evaluates, compares and trains models with its real module. What is right comes from ONNX Runtime, from
// plain loops written here, or from what must be equal.
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Data, Engine, Evaluation, Model, Preparation, Recipe, TrainChoice, TrainProgress } from "nibble-nn";
import { load, NibbleError } from "nibble-nn";
import { convNet, gemmNet, matmulNet } from "../fixtures/make";
import { graph, model as modelOf, node, value } from "../fixtures/onnx";
import { uniform, weights } from "../fixtures/random";
import { runOutputs } from "../fixtures/runtime";
import { difference, numbers, randomInputs, toValue } from "../fixtures/tensors";

/** Share of the largest magnitude by which two float32 runtimes may differ: sums of some thousands of products. */
const kTolerance = 1e-4;

let engine: Engine;
beforeAll(async () => {
  engine = await load({ arithmetic: "strict" });
});
afterAll(() => engine.close());

const float = (shape: number[], data: Float32Array) => ({ dtype: "float32", shape, data });
/** Large files: Vitest's own comparison goes number by number. */
const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
const digits = (n = 300, seed = 1) => engine.data({ kind: "digits", seed, n });

describe("run", () => {
  test("computes what ONNX Runtime computes, intermediate values too", async () => {
    const x = weights(2 * 64, 90, 1);
    const file = convNet();
    const model = await engine.open(file);
    expect(await model.cannotRun()).toBeNull();
    const { y } = await model.run({ x: float([2, 1, 8, 8], x) });
    const [expected] = await runOutputs(file, { x: { type: "float32", dims: [2, 1, 8, 8], data: x } });
    expect(y!.shape).toEqual([2, 10]);
    expect(y!.data).toBeInstanceOf(Float32Array);
    expect(difference(numbers("", y!.data), numbers("", expected!))).toBeLessThanOrEqual(kTolerance);
    const inner = await model.run({ x: float([2, 1, 8, 8], x) }, { outputs: ["b", "a"] });
    expect(Object.keys(inner)).toEqual(["b", "a"]);
    expect(inner.b!.shape).toEqual([2, 8, 8, 8]);
    expect(inner.b!.data).toEqual((inner.a!.data as Float32Array).map((v) => Math.max(0, v)));
  });

  test("every architecture computes what ONNX Runtime computes of its export", async () => {
    const known = await engine.architectures();
    expect(known.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["linear", "simplenet", "lenet-5", "resnet-8"]),
    );
    for (const { name, summary } of known) {
      expect(summary.length, name).toBeGreaterThan(10);
      using model = await engine.create(name, { seed: 3 });
      const inputs = randomInputs(model.info.inputs, 5, 2);
      const values = Object.fromEntries(Object.entries(inputs).map(([key, feed]) => [key, toValue(feed)]));
      const [expected] = await runOutputs(await model.export(), inputs);
      const found = (await model.run(values))[model.info.outputs[0]!.name]!;
      const error = difference(numbers(found.dtype, found.data), numbers("", expected!));
      expect(error, name).toBeLessThanOrEqual(kTolerance);
    }
  });

  test("a seed gives the same network again, another seed another one", async () => {
    const [one, same, other] = await Promise.all(
      [1, 1, 2].map(async (seed) => (await engine.create("simplenet", { seed })).export()),
    );
    expect(same).toEqual(one);
    expect(other).not.toEqual(one);
    await expect(engine.create("lenet5")).rejects.toMatchObject({
      code: "bad-data",
      message: expect.stringContaining("lenet-5"),
    });
  });

  test("a quantized model runs with the values that its export has", async () => {
    const { model } = await (
      await engine.open(gemmNet(true))
    ).compress({
      version: 1,
      steps: [{ kind: "quantize", scheme: { bits: 4 } }],
    });
    const x = weights(24, 91, 1);
    const { y } = await model.run({ x: float([1, 24], x) });
    const [expected] = await runOutputs(await model.export(), { x: { type: "float32", dims: [1, 24], data: x } });
    expect(difference(numbers("", y!.data), numbers("", expected!))).toBeLessThanOrEqual(kTolerance);
  });

  test("inputs that do not fit are named, and the engine goes on", async () => {
    const model = await engine.open(convNet());
    const x = float([1, 1, 8, 8], new Float32Array(64));
    const cases: [() => Promise<unknown>, RegExp][] = [
      [() => model.run({}), /x/],
      [() => model.run({ z: x }), /z.*x/s],
      [() => model.run({ x: float([1, 1, 4, 4], new Float32Array(16)) }), /./],
      [() => model.run({ x: float([1, 3, 8, 8], new Float32Array(192)) }), /./],
      [() => model.run({ x: { dtype: "int32", shape: [1, 1, 8, 8], data: new Int32Array(64) } }), /float32|int32/],
      [
        () => model.run({ x: float([0, 1, 8, 8], new Float32Array(0)) }).then(() => Promise.reject(new Error("x"))),
        /x/,
      ],
      [() => model.run({ x }, { outputs: ["nowhere"] }), /nowhere/],
    ];
    for (const [run, message] of cases) {
      const error = (await run().catch((thrown: unknown) => thrown)) as Error;
      expect(error).toBeInstanceOf(Error);
      expect(error.message).toMatch(message);
      if (error instanceof NibbleError) expect(error.code, error.message).not.toBe("internal");
    }
    expect((await model.run({ x })).y!.shape).toEqual([1, 10]);
  });

  test("a model with an unknown operator says which, and can still be compressed", async () => {
    const file = modelOf(
      graph({
        nodes: [node("Frobnicate", ["x"], ["y"], { name: "odd", domain: "elsewhere" })],
        inputs: [value("x", [1])],
        outputs: [value("y", [1])],
      }),
      { domains: { elsewhere: 1 } },
    );
    const model = await engine.open(file);
    expect(await model.cannotRun()).toMatch(/Frobnicate.*odd/);
    await expect(model.run({ x: float([1], new Float32Array(1)) })).rejects.toMatchObject({ code: "unsupported" });
    expect((await model.export()).length).toBeGreaterThan(0);
  });
});

// --- Data ------------------------------------------------------------------------------------------------------------

/** LeCun's IDX of bytes: a magic number with type and rank, the extents, the values; all big endian. */
function idx(shape: number[], values: Uint8Array): Uint8Array {
  const head = new DataView(new ArrayBuffer(4 + 4 * shape.length));
  head.setUint32(0, 0x0800 | shape.length);
  shape.forEach((extent, index) => head.setUint32(4 + 4 * index, extent));
  return new Uint8Array([...new Uint8Array(head.buffer), ...values]);
}

/** An NPY file (version 1) in C order. */
function npy(descr: string, shape: number[], bytes: Uint8Array): Uint8Array {
  const tuple = `(${shape.map((extent) => `${extent},`).join("")})`;
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const padded = `${text.padEnd(Math.ceil((11 + text.length) / 64) * 64 - 11)}\n`;
  const head = [0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, padded.length & 255, padded.length >> 8];
  return new Uint8Array([...head, ...new TextEncoder().encode(padded), ...bytes]);
}

/** The bytes of a small network after an epoch. */
async function trainedOn(data: Data): Promise<Uint8Array> {
  const training = await (await engine.create("simplenet", { seed: 3 })).train(data, { epochs: 1, batch: 32 });
  await training.run();
  return (await training.model()).export();
}

describe("data", () => {
  test("digits are described, split, and the same for the same seed", async () => {
    const data = await digits();
    expect(data.info).toMatchObject({ samples: 300, shape: [28, 28], dtype: "uint8", labelled: true, classes: 10 });
    const { training, validation, test } = data.info.splits;
    expect(training + validation + test).toBe(300);
    expect(test).toBe(50); // the last sixth is a test split of its own
    const same = await digits();
    expect(await same.samples([0, 299])).toEqual(await data.samples([0, 299]));
    const other = await digits(300, 2);
    expect((await other.samples([0])).values).not.toEqual((await data.samples([0])).values);
    const { values, labels } = await data.samples([5, 6, 7]);
    expect(values).toBeInstanceOf(Uint8Array);
    expect([values.length, labels.length]).toEqual([3 * 784, 3]);
  });

  test("IDX files, gzipped or not, give back what was written", async () => {
    const images = Uint8Array.from({ length: 12 * 6 }, (_, i) => (i * 7) % 256);
    const labels = Uint8Array.from({ length: 12 }, (_, i) => i % 3);
    for (const pack of [(bytes: Uint8Array) => bytes, gzipSync]) {
      const ending = pack === gzipSync ? ".gz" : "";
      const data = await engine.data([
        { name: `train-images-idx3-ubyte${ending}`, bytes: pack(idx([12, 2, 3], images)) },
        { name: `train-labels-idx1-ubyte${ending}`, bytes: pack(idx([12], labels)) },
      ]);
      expect(data.info).toMatchObject({ samples: 12, shape: [2, 3], classes: 3, labelled: true });
      const all = await data.samples(Array.from({ length: 12 }, (_, i) => i));
      expect(Array.from(all.values)).toEqual(Array.from(images));
      expect(Array.from(all.labels)).toEqual(Array.from(labels));
    }
  });

  test("a pair of NPY files and a CSV are read", async () => {
    const x = Float32Array.from({ length: 20 * 4 }, (_, i) => i / 8);
    const y = BigInt64Array.from({ length: 20 }, (_, i) => BigInt(i % 2));
    const pair = await engine.data([
      { name: "x.npy", bytes: npy("<f4", [20, 4], new Uint8Array(x.buffer)) },
      { name: "y.npy", bytes: npy("<i8", [20], new Uint8Array(y.buffer)) },
    ]);
    expect(pair.info).toMatchObject({ samples: 20, shape: [4], dtype: "float32", classes: 2 });
    expect((await pair.samples([3])).values).toEqual(x.slice(12, 16));
    const rows = Array.from({ length: 20 }, (_, i) => `${i},${i / 2},${i % 2 ? "odd" : "even"}`);
    const table = await engine.data([
      { name: "t.csv", bytes: new TextEncoder().encode(`a,b,label\n${rows.join("\n")}\n`) },
    ]);
    expect(table.info).toMatchObject({ samples: 20, shape: [2], classes: 2 });
    expect([...table.info.class_names].sort()).toEqual(["even", "odd"]);
    expect(Array.from((await table.samples([5])).values)).toEqual([5, 2.5]);
  });

  test("samples of a large file stay in it: it can be larger than memory, and gives what a held one gives", async () => {
    const folder = mkdtempSync(join(tmpdir(), "nibble-"));
    const path = join(folder, "x.npy");
    const { values, labels } = await (await digits()).samples(Array.from({ length: 300 }, (_, i) => i));
    const x = npy("|u1", [300, 28, 28], values as Uint8Array);
    const y = { name: "y.npy", bytes: npy("<i4", [300], new Uint8Array(labels.buffer)) };
    writeFileSync(path, x);
    const held = await engine.data([{ name: "x.npy", bytes: x }, y]);
    const stored = await engine.data([{ name: "x.npy", bytes: pathToFileURL(path) }, y], { heldBytes: 5000 });
    expect(stored.info).toEqual(held.info);
    expect(await stored.samples([299, 0, 1, 2])).toEqual(await held.samples([299, 0, 1, 2]));
    // The order in which they are given says which are the samples where names do not.
    const targets = { name: "b.npy", bytes: npy("<f4", [300, 1], new Uint8Array(1200)) };
    const pair = [{ name: "a.npy", bytes: npy("|u1", [300, 2], new Uint8Array(600)) }, targets];
    for (const heldBytes of [0, 1000, 1e6]) {
      expect((await engine.data(pair, { heldBytes })).info.shape).toEqual([2]);
      const files = [pair[0]!, { name: "b.npy", bytes: pathToFileURL(join(folder, "b.npy")) }];
      writeFileSync(join(folder, "b.npy"), targets.bytes);
      expect((await engine.data(files, { heldBytes })).info.shape).toEqual([2]);
    }
    const [a, b] = await Promise.all([held, stored].map((data) => trainedOn(data)));
    expect(same(a!, b!)).toBe(true);

    // A call that is stopped ends the engine's thread; the next one opens the file again.
    const stop = new AbortController();
    const stopped = lenet.evaluate(stored, { signal: stop.signal, onProgress: () => stop.abort() });
    await expect(stopped).rejects.toMatchObject({ code: "cancelled" });
    const [again, before] = [await lenet.evaluate(stored), await lenet.evaluate(held)];
    expect({ ...again, seconds: 0 }).toEqual({ ...before, seconds: 0 });

    writeFileSync(
      path,
      x.map((byte, i) => (i < 200 ? byte : 255 - byte)),
    );
    utimesSync(path, new Date(), new Date(Date.now() + 5000));
    const changed = await lenet.evaluate(stored).catch((error: unknown) => error);
    expect(changed).toMatchObject({ code: "bad-file", where: "x.npy", detail: expect.stringMatching(/changed/) });
    rmSync(path);
    await expect(stored.samples([0])).rejects.toMatchObject({
      code: "bad-file",
      detail: expect.stringMatching(/ENOENT/),
    });
    const missing = engine.data([{ name: "x.npy", bytes: pathToFileURL(path) }]);
    await expect(missing).rejects.toMatchObject({ code: "bad-file", detail: expect.stringMatching(/ENOENT/) });
    expect((await held.samples([7])).labels).toEqual(labels.slice(7, 8)); // and the engine goes on

    // Five gigabytes, of which the disk holds but the beginning and the end.
    const head = npy("|u1", [5_000_000, 1000], new Uint8Array());
    const file = openSync(path, "w");
    writeSync(file, head);
    ftruncateSync(file, head.length + 5e9);
    writeSync(file, Uint8Array.of(1, 2, 3), 0, 3, head.length + 5e9 - 3);
    closeSync(file);
    const large = await engine.data([{ name: "x.npy", bytes: pathToFileURL(path) }]);
    expect(large.info.samples).toBe(5_000_000);
    const last = (await large.samples([4_999_999])).values;
    expect([last.length, last[996], last[997], last[999]]).toEqual([1000, 0, 1, 3]);
    rmSync(folder, { recursive: true });
    await expect(engine.data([y], { heldBytes: -1 })).rejects.toMatchObject({ code: "bad-data", where: "heldBytes" });
  });

  test("files that are no data are refused with a code and a sentence, and the engine goes on", async () => {
    const text = (content: string) => new TextEncoder().encode(content);
    const good = idx([4, 2, 2], new Uint8Array(16));
    const huge = npy("<f4", [2 ** 31, 2 ** 31, 2 ** 31], new Uint8Array(4));
    const noise = uniform(1);
    const cases: [string, { name: string; bytes: Uint8Array }[]][] = [
      ["an empty file", [{ name: "a.csv", bytes: new Uint8Array() }]],
      ["noise", [{ name: "a.bin", bytes: Uint8Array.from({ length: 999 }, () => noise() * 256) }]],
      ["IDX cut short", [{ name: "images", bytes: good.subarray(0, 20) }]],
      [
        "IDX of extents that overflow",
        [{ name: "images", bytes: idx([2 ** 31, 2 ** 31, 2 ** 31], new Uint8Array(8)) }],
      ],
      [
        "more labels than samples",
        [
          { name: "i", bytes: good },
          { name: "l", bytes: idx([5], new Uint8Array(5)) },
        ],
      ],
      ["no samples", [{ name: "images", bytes: idx([0, 2, 2], new Uint8Array()) }]],
      ["NPY of a huge shape", [{ name: "x.npy", bytes: huge }]],
      ["NPY of objects", [{ name: "x.npy", bytes: npy("|O", [2], new Uint8Array(16)) }]],
      ["a ragged CSV", [{ name: "a.csv", bytes: text("a,b,c\n1,2,0\n1,0\n") }]],
      ["a CSV of words", [{ name: "a.csv", bytes: text("a,b\nx,y\nz,w\n") }]],
      ["a cut gzip", [{ name: "a.csv.gz", bytes: gzipSync(text("a,b\n1,0\n2,1\n")).subarray(0, 20) }]],
      ["what is no zip", [{ name: "a.zip", bytes: text("PK\u0003\u0004 and nothing else") }]],
      ["what is no picture", [{ name: "cat/a.png", bytes: text("not a picture") }]],
    ];
    for (const [what, files] of cases) {
      const error = (await engine.data(files).catch((thrown: unknown) => thrown)) as NibbleError;
      expect(error, what).toBeInstanceOf(NibbleError);
      expect(["bad-file", "bad-data", "unsupported", "out-of-memory"], `${what}: ${error.message}`).toContain(
        error.code,
      );
      expect(error.detail.length, what).toBeGreaterThan(10);
    }
    await expect(engine.data({ kind: "digits", n: 0 })).rejects.toMatchObject({ code: "bad-data" });
    await expect(engine.data({ kind: "letters" } as never)).rejects.toMatchObject({ code: "bad-data" });
    expect((await digits(20)).info.samples).toBe(20);
  });
});

// --- Evaluation ------------------------------------------------------------------------------------------------------

/** The model's input for a sample of one grey picture. */
const prepared = (values: ArrayLike<number>, { scale, mean, std }: Preparation) =>
  Float32Array.from(values, (x) => (x * scale - mean[0]!) / std[0]!);

/** Cross-entropy of softmax, predicted class and its probability. */
function judge(logits: Float64Array, label: number) {
  const top = logits.reduce((best, x, i) => (x > logits[best]! ? i : best), 0);
  const sum = logits.reduce((total, x) => total + Math.exp(x - logits[top]!), 0);
  return { top, confidence: 1 / sum, loss: Math.log(sum) + logits[top]! - logits[label]! };
}

/** A model that knows something about digits, for all tests. */
let lenet: Model;
let data: Data;
beforeAll(async () => {
  data = await digits();
  const training = await (
    await engine.create("simplenet", { seed: 1 })
  ).train(data, {
    epochs: 10,
    batch: 16,
    learning_rate: 0.003,
  });
  await training.run();
  lenet = await training.model();
});

describe("evaluate", () => {
  test("accuracy, loss, confusion and confidence are those of running the samples one by one", async () => {
    const seen: string[] = [];
    const result = await lenet.evaluate(data, { onProgress: ({ phase }) => seen.push(phase) });
    expect(seen).toContain("evaluate");
    expect(result).toMatchObject({ samples: 50, classes: 10 });
    expect(result.indices).toHaveLength(50);
    const { values, labels } = await data.samples(result.indices);
    const input = lenet.info.inputs[0]!;
    const confusion = new Uint32Array(100);
    let [loss, right] = [0, 0];
    for (let i = 0; i < 50; i++) {
      const x = prepared(values.subarray(784 * i, 784 * (i + 1)), result.preparation);
      const outputs = await lenet.run({ [input.name]: float([1, 1, 28, 28], x) });
      const judged = judge(numbers("", outputs[lenet.info.outputs[0]!.name]!.data), labels[i]!);
      expect(result.predictions[i]).toBe(judged.top);
      // Another batch size sums in another order.
      expect(result.confidence[i]).toBeCloseTo(judged.confidence, 4);
      loss += judged.loss / 50;
      right += judged.top === labels[i] ? 1 : 0;
      confusion[labels[i]! * 10 + judged.top]!++;
    }
    expect(result.accuracy).toBeCloseTo(right / 50, 12);
    expect(result.loss).toBeCloseTo(loss, 4);
    expect(result.confusion).toEqual(confusion);
  });

  test("splits are disjoint, all of them is all, and a limit takes the first", async () => {
    const on = (split: "training" | "validation" | "test" | "all", more = {}) =>
      lenet.evaluate(data, { split, ...more });
    const parts = [await on("training"), await on("validation"), await on("test")];
    const together = parts.flatMap(({ indices }) => [...indices]);
    expect(new Set(together).size).toBe(300);
    expect((await on("all")).samples).toBe(300);
    const first = await on("training", { limit: 7 });
    expect(first.indices).toEqual(parts[0]!.indices.slice(0, 7));
    // It has learnt from the training split.
    expect(parts[0]!.accuracy).toBeGreaterThan(0.5);
  });

  test("options that make no sense are named", async () => {
    const cases: [object, RegExp][] = [
      [{ split: "tests" }, /split/],
      [{ limit: 0 }, /limit/],
      [{ seed: -1 }, /seed/],
      [{ validation: 0.9 }, /validation/],
      [{ spilt: "test" }, /spilt.*split/],
      [{ preparation: { shape: [1, 28, 28], layout: "chw", scale: 1, mean: [0], std: [0] } }, /std/],
      [{ preparation: { shape: [3, 28, 28], layout: "chw", scale: 1, mean: [0], std: [1] } }, /28/],
    ];
    for (const [options, message] of cases) {
      const error = await lenet.evaluate(data, options as never).catch((thrown: unknown) => thrown);
      expect(error, JSON.stringify(options)).toMatchObject({
        code: "bad-data",
        message: expect.stringMatching(message),
      });
    }
  });

  test("data of another shape, and models that cannot run, are refused", async () => {
    const other = await engine.data({ kind: "linear" });
    await expect(lenet.evaluate(other)).rejects.toMatchObject({ code: "bad-data" });
    const model = await engine.open(convNet());
    await expect(model.evaluate(data)).rejects.toMatchObject({
      code: "bad-data",
      message: expect.stringMatching(/28.*8|8.*28/s),
    });
  });

  test("the preparation is what the trained model says, and an untrained one says why", async () => {
    const known = await lenet.prepare(data);
    expect(known.shape).toEqual([1, 28, 28]);
    expect(known.reason.length).toBeGreaterThan(20);
    // It is in the file: opened again, the model is fed the same way.
    const again = await engine.open(await lenet.export());
    expect(await again.prepare(data)).toEqual(known);
    const strange = { ...known, scale: 1, mean: [100], std: [3] };
    expect((await lenet.evaluate(data, { preparation: strange })).preparation).toMatchObject({ scale: 1, mean: [100] });
  });

  test("an activation is what run gives for that sample", async () => {
    const { preparation } = await lenet.evaluate(data, { limit: 1 });
    const comparison = await lenet.compare(lenet, data, { limit: 1 });
    const { name, shape } = comparison.activations[0]!;
    const found = await lenet.activation(data, 17, name);
    expect(found.shape).toEqual(shape);
    const x = prepared((await data.samples([17])).values, preparation);
    const outputs = await lenet.run({ [lenet.info.inputs[0]!.name]: float([1, 1, 28, 28], x) }, { outputs: [name] });
    expect(difference(numbers("", found.values), numbers("", outputs[name]!.data))).toBeLessThanOrEqual(kTolerance);
    await expect(lenet.activation(data, 300, name)).rejects.toMatchObject({ where: "index" });
    await expect(lenet.activation(data, 0, "nowhere")).rejects.toMatchObject({
      message: expect.stringContaining("nowhere"),
    });
  });
});

describe("compare", () => {
  const recipe = (bits: number): Recipe => ({
    version: 1,
    steps: [{ kind: "quantize", scheme: { bits, granularity: "tensor" } }],
  });

  test("a model beside itself agrees everywhere", async () => {
    const result = await lenet.compare(lenet, data);
    expect(result.agreement).toBe(1);
    expect(result.flipped).toHaveLength(0);
    expect(result.activations.length).toBeGreaterThan(0);
    for (const { mse, sqnr_db, max_abs_error } of result.activations) {
      expect([mse, sqnr_db, max_abs_error]).toEqual([0, null, 0]);
    }
  });

  test("predictions are those of two evaluations, flips are where they differ, errors are of the values", async () => {
    const { model: coarse } = await lenet.compress(recipe(2));
    const options = { split: "all", limit: 60 } as const;
    const result = await lenet.compare(coarse, data, options);
    const strip = ({ seconds: _, ...rest }: Evaluation) => rest;
    const before = await lenet.evaluate(data, options);
    const after = await coarse.evaluate(data, { ...options, preparation: before.preparation });
    expect(strip(result.before)).toEqual(strip(before));
    expect(strip({ ...result.after, preparation: after.preparation })).toEqual(strip(after));
    const flipped = Array.from(before.indices).filter((_, i) => before.predictions[i] !== after.predictions[i]);
    expect(Array.from(result.flipped)).toEqual(flipped);
    expect(result.agreement).toBeCloseTo(1 - flipped.length / 60, 12);

    const { name, mse, max_abs_error, weights: used } = result.activations[0]!;
    expect(used).toEqual([lenet.info.weights[0]!.name]);
    const { values } = await data.samples(before.indices);
    const input = lenet.info.inputs[0]!.name;
    let [squares, count, worst] = [0, 0, 0];
    for (let i = 0; i < 60; i++) {
      const x = float([1, 1, 28, 28], prepared(values.subarray(784 * i, 784 * (i + 1)), before.preparation));
      const [a, b] = await Promise.all(
        [lenet, coarse].map(async (model) =>
          numbers("", (await model.run({ [input]: x }, { outputs: [name] }))[name]!.data),
        ),
      );
      a!.forEach((value, j) => {
        squares += (value - b![j]!) ** 2;
        worst = Math.max(worst, Math.abs(value - b![j]!));
        count++;
      });
    }
    expect(Math.abs(mse - squares / count)).toBeLessThanOrEqual(1e-4 * mse);
    expect(Math.abs(max_abs_error - worst)).toBeLessThanOrEqual(1e-4 * worst);
  });

  test("models that have nothing to do with each other are refused or compared by their outputs alone", async () => {
    const other = await engine.create("lenet-300-100");
    const result = await lenet.compare(other, data, { limit: 5 });
    expect(result.before.samples).toBe(5);
    await expect(lenet.compare(await engine.open(matmulNet()), data)).rejects.toBeInstanceOf(NibbleError);
  });
});

// --- Training --------------------------------------------------------------------------------------------------------

describe("train", () => {
  test("the loss falls, every batch is told, and the best epoch is marked", async () => {
    const training = await (await engine.create("simplenet")).train(data, { epochs: 3, batch: 25 });
    expect(training.progress).toBeNull();
    const all: TrainProgress[] = [];
    const last = await training.run({ onProgress: (progress) => all.push(progress) });
    const { training: count } = data.info.splits;
    const batches = Math.ceil(count / 25);
    expect(all).toHaveLength(3 * batches);
    expect(all.map(({ batch }) => batch)).toEqual(all.map((_, i) => i % batches));
    expect(all.map(({ done }) => done)).toEqual(all.map((_, i) => i === all.length - 1));
    expect(last).toEqual(all.at(-1));
    const ends = all.filter(({ batch }) => batch === batches - 1);
    const losses = ends.map(({ validation_loss }) => validation_loss!);
    expect(losses.at(-1)).toBeLessThan(losses[0]!);
    ends.forEach(({ best }, i) => expect(best).toBe(losses[i]! < Math.min(Infinity, ...losses.slice(0, i))));
    expect(
      all.filter(({ batch }) => batch < batches - 1).every(({ validation_loss }) => validation_loss === null),
    ).toBe(true);

    // What it said about the validation split is what evaluating says.
    const best = await training.model("best");
    const checked = await best.evaluate(data, { split: "validation" });
    expect(checked.loss).toBeCloseTo(Math.min(...losses), 4);
    training.dispose();
  });

  test("a linear model finds the least squares solution", async () => {
    const points = await engine.data({ kind: "linear", seed: 1, n: 400 });
    const training = await (
      await engine.create("linear")
    ).train(points, { epochs: 60, learning_rate: 0.02, batch: 32 });
    await training.run();
    const trained = await (await training.model()).evaluate(points, { split: "training" });
    // Drawn with noise of a certain size, whose variance is what a good fit leaves: see linear_data in core/data.
    const { indices } = trained;
    const { values } = await points.samples(indices);
    expect(values.length).toBe(5 * indices.length);
    expect(trained.accuracy).toBeNull();
    const start = await (await engine.create("linear")).evaluate(points, { split: "training" });
    expect(trained.loss).toBeLessThan(0.05 * start.loss!);
  });

  // Several times as long as the moment between two looks at the signal.
  const choice: TrainChoice = { epochs: 2, batch: 32, optimizer: "adamw", weight_decay: 0.01, clip_norm: 1 };

  test("paused, saved and restored in another engine, it gives the same bytes as straight through", async () => {
    const straight = await (await engine.create("lenet-5", { seed: 2 })).train(data, choice);
    await straight.run();
    const expected = await (await straight.model("current")).export();

    const stop = new AbortController();
    const first = await (await engine.create("lenet-5", { seed: 2 })).train(data, choice);
    let batches = 0;
    await first.run({ signal: stop.signal, onProgress: () => ++batches === 3 && stop.abort() });
    expect(first.progress!.done).toBe(false);
    const saved = await first.save();

    const other = await load({ worker: false, arithmetic: "strict" });
    const second = await (
      await other.create("lenet-5", { seed: 2 })
    ).train(await other.data({ kind: "digits", seed: 1, n: 300 }), choice);
    await second.restore(saved);
    await second.run();
    expect(same(await (await second.model("current")).export(), expected)).toBe(true);
    const [one, best] = await Promise.all([second, straight].map(async (it) => (await it.model("best")).export()));
    expect(same(one!, best!)).toBe(true);
    other.close();
    // The first one, too, goes on where it stopped.
    await first.run();
    expect(same(await (await first.model("current")).export(), expected)).toBe(true);
  });

  test("a lost worker changes nothing about the result", async () => {
    const own = await load({ arithmetic: "strict" });
    const samples = await own.data({ kind: "digits", seed: 1, n: 300 });
    const straight = await (await own.create("lenet-5", { seed: 4 })).train(samples, choice);
    await straight.run();
    const expected = await (await straight.model("current")).export();

    const training = await (await own.create("lenet-5", { seed: 4 })).train(samples, choice);
    const pause = new AbortController();
    await training.run({ signal: pause.signal, onProgress: () => pause.abort() });
    expect(training.progress!.done).toBe(false);
    const then = await training.model("current");
    const file = await then.export();
    // Stopping a call really ends the worker.
    const stop = new AbortController();
    const big = await own.open(matmulNet([1024, 1024, 1024]));
    const slow = big.compress(
      {
        version: 1,
        steps: Array.from({ length: 50 }, () => ({ kind: "quantize", scheme: { bits: 4 }, range: "mse" })),
      },
      { signal: stop.signal, onProgress: ({ phase }) => phase === "quantize" && stop.abort() },
    );
    await expect(slow).rejects.toMatchObject({ code: "cancelled" });
    expect(same(await then.export(), file)).toBe(true);
    expect((await samples.samples([0])).values).toHaveLength(784);
    await training.run();
    expect(same(await (await training.model("current")).export(), expected)).toBe(true);
    own.close();
  });

  test("other calls are answered while it trains", async () => {
    const training = await (await engine.create("lenet-5")).train(data, { epochs: 3, batch: 16 });
    let done = false;
    const running = training.run().then(() => (done = true));
    const first = await lenet.evaluate(data);
    expect(done).toBe(false);
    expect(first.samples).toBe(50);
    const now = await training.model("current");
    expect((await now.evaluate(data)).samples).toBe(50);
    await running;
  });

  test("bytes that are no saved training, or one of something else, are refused and change nothing", async () => {
    const start = await engine.create("simplenet", { seed: 9 });
    const training = await start.train(data, { epochs: 1 });
    const before = await (await training.model("current")).export();
    const other = await start.train(data, { epochs: 2 });
    const saved = await training.save();
    const flipped = saved.slice();
    flipped[3]! ^= 0xff;
    for (const bytes of [
      new Uint8Array(),
      new Uint8Array(64).fill(255),
      saved.subarray(0, saved.length - 1),
      flipped,
      await other.save(),
    ]) {
      const error = await training.restore(bytes).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(NibbleError);
      expect((error as NibbleError).code).toBe("bad-file");
    }
    expect(await (await training.model("current")).export()).toEqual(before);
    await training.restore(saved);
  });

  test("choices that make no sense are named", async () => {
    const start = await engine.create("simplenet");
    const cases: [object, RegExp][] = [
      [{ epochs: 0 }, /epochs/],
      [{ batch: 1.5 }, /batch/],
      [{ optimizer: "adma" }, /optimizer/],
      [{ momentum: 0.5 }, /momentum.*sgd/],
      [{ learning_rate: -1 }, /learning_rate/],
      [{ epoch: 3 }, /epochs/],
      [{ loss: "mean_squared" }, /mean_squared|loss|targets/],
    ];
    for (const [wrong, message] of cases) {
      const error = (await start.train(data, wrong as never).catch((thrown: unknown) => thrown)) as NibbleError;
      expect(error, JSON.stringify(wrong)).toBeInstanceOf(NibbleError);
      expect(["bad-recipe", "bad-data"]).toContain(error.code);
      expect(error.message).toMatch(message);
    }
  });

  test("a loss that is not a number ends it with a way out, and the weights stay usable", async () => {
    const training = await (
      await engine.create("lenet-5")
    ).train(data, { optimizer: "sgd", learning_rate: 100, epochs: 9 });
    const error = await training.run().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "bad-data", message: expect.stringMatching(/not a number.*learning rate/s) });
    const values = await (await training.model()).values(lenet.info.weights[0]!.name).catch(() => undefined);
    for (const value of values ?? []) expect(Number.isFinite(value)).toBe(true);
  });
});

describe("a recipe that trains", () => {
  const recipe: Recipe = {
    version: 1,
    seed: 1,
    steps: [
      { kind: "prune", sparsity: 0.6 },
      { kind: "quantize", scheme: { bits: 3, symmetric: false } },
      { kind: "train", epochs: 1, learning_rate: 0.0005 },
    ],
  };

  test("keeps zeros zero and grids grids, reports itself, and is better than without", async () => {
    const { model: fine, report } = await lenet.compress(recipe, { data });
    const { model: raw } = await lenet.compress({ ...recipe, steps: recipe.steps.slice(0, 2) });
    expect(report.steps.map(({ kind }) => kind)).toEqual(["prune", "quantize", "train"]);
    expect(report.file.after).toBe((await fine.export()).length);
    for (const { name } of lenet.info.weights) {
      const [before, after] = [await raw.values(name), await fine.values(name)];
      before.forEach((value, i) => value === 0 && expect(Math.abs(after[i]!)).toBe(0));
      // 3 bits: at most 8 values in each output channel.
      const [rows = 1] = lenet.info.weights.find((weight) => weight.name === name)!.shape;
      expect(new Set(after.subarray(0, after.length / rows)).size).toBeLessThanOrEqual(8);
    }
    const on = { split: "training" } as const;
    expect((await fine.evaluate(data, on)).loss).toBeLessThan((await raw.evaluate(data, on)).loss!);
  });

  test("without data it is refused", async () => {
    await expect(lenet.compress(recipe)).rejects.toMatchObject({
      code: "bad-recipe",
      message: expect.stringMatching(/data/),
    });
  });

  test("engine and schema accept and refuse the same training steps", async () => {
    const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
    const schema = readFileSync(new URL("../../wasm/schemas/recipe.schema.json", import.meta.url), "utf8");
    const validate = ajv.compile(JSON.parse(schema) as object);
    const good = [
      {},
      { epochs: 3, batch: 8, loss: "cross_entropy", optimizer: "adamw", learning_rate: 0.01, weight_decay: 0.1 },
      { optimizer: "sgd", momentum: 0.5, schedule: "step", step_epochs: 1, step_factor: 0.5 },
      { warmup: 1, clip_norm: 1, keep_masks: false, keep_grids: false, patience: 2, schedule: "constant" },
    ];
    const bad = [
      { epochs: 0 },
      { epochs: 10001 },
      { batch: 0 },
      { loss: "hinge" },
      { optimizer: "rmsprop" },
      { learning_rate: 0 },
      { momentum: 0.9 },
      { optimizer: "sgd", momentum: 1 },
      { step_epochs: 2 },
      { schedule: "linear" },
      { weight_decay: -1 },
      { keep_masks: 1 },
      { patience: 0.5 },
      { layers: {} },
    ];
    const whole = (step: object) => ({ version: 1, steps: [{ kind: "train", ...step }] });
    for (const step of good) {
      const checked = await engine.check(whole(step) as Recipe);
      expect(validate(whole(step)), JSON.stringify(step)).toBe(true);
      expect(validate(checked), `${JSON.stringify(checked)}: ${ajv.errorsText(validate.errors)}`).toBe(true);
      expect(await engine.check(checked)).toEqual(checked);
    }
    for (const step of bad) {
      await expect(engine.check(whole(step) as Recipe), JSON.stringify(step)).rejects.toMatchObject({
        code: "bad-recipe",
      });
      expect(validate(whole(step)), JSON.stringify(step)).toBe(false);
    }
  });
});
