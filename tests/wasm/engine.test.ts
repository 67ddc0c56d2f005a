// The package with its real module: opens, runs, stops, fails with reasons, and exports what it says.
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ByteReport, Engine, Recipe } from "nibble-nn";
import { load, NibbleError } from "nibble-nn";
import {
  branchNet,
  constantNet,
  convNet,
  embeddingNet,
  externalNet,
  gemmNet,
  halfNet,
  matmulNet,
} from "../fixtures/make";
import { readInitializers, wholeNumbers } from "../fixtures/onnx";
import { weights } from "../fixtures/random";
import { runModel } from "../fixtures/runtime";
import { sample, sampleNames } from "../fixtures/samples";

let engine: Engine;
beforeAll(async () => {
  engine = await load();
});
afterAll(() => engine.close());

const schema = (name: string) =>
  JSON.parse(readFileSync(new URL(`../../wasm/schemas/${name}.schema.json`, import.meta.url), "utf8")) as object;
const ajv = new Ajv2020({ allErrors: true, strict: true, allowUnionTypes: true });
ajv.addSchema(schema("recipe"));
ajv.addSchema(schema("report"));

const quantize = (bits: number, more: object = {}): Recipe => ({
  version: 1,
  steps: [{ kind: "quantize", scheme: { bits, ...more } }],
});

describe("open", () => {
  test("describes every kind of net", async () => {
    const external = externalNet();
    const files: [string, Uint8Array, string[], string[]][] = [
      ["conv", convNet(), ["conv1.weight", "conv2.weight", "fc.weight"], ["conv", "conv", "dense"]],
      ["matmul", matmulNet(), ["w0", "w1"], ["dense", "dense"]],
      ["gemm", gemmNet(false), ["weight"], ["dense"]],
      ["half", halfNet(), ["weight"], ["dense"]],
      ["constant", constantNet(), ["weight"], ["dense"]],
      ["embedding", embeddingNet(), ["table"], ["embedding"]],
      ["external", external.model, ["weight"], ["dense"]],
    ];
    for (const [name, file, names, kinds] of files) {
      const { info } = await engine.open(file, {
        name: `${name}.onnx`,
        external: { "weights.bin": external.external },
      });
      expect(
        info.weights.map((weight) => weight.name),
        name,
      ).toEqual(names);
      expect(
        info.weights.map((weight) => weight.kind),
        name,
      ).toEqual(kinds);
    }
    const { info } = await engine.open(branchNet());
    expect(info.weights).toHaveLength(2);
  });

  test("takes a Blob, an ArrayBuffer or a part of one, and leaves them as they are", async () => {
    const file = convNet();
    const wide = new Uint8Array(file.length + 20);
    wide.set(file, 10);
    const expected = (await engine.open(file)).info;
    for (const bytes of [new Blob([file as BlobPart]), file.slice().buffer, wide.subarray(10, 10 + file.length)]) {
      expect((await engine.open(bytes)).info).toEqual(expected);
    }
    expect(wide.subarray(10, 10 + file.length)).toEqual(file);
  });

  test("statistics are those of the numbers in the file", async () => {
    const { info } = await engine.open(gemmNet(true));
    const values = weights(288, 20);
    const { statistics, channels, channel_axis, shape } = info.weights[0]!;
    expect(statistics.min).toBe(Math.min(...values));
    expect(statistics.max).toBe(Math.max(...values));
    const mean = values.reduce((a, b) => a + b, 0) / 288;
    // Sums in double; the statistics cross as decimal text.
    expect(statistics.mean).toBeCloseTo(mean, 6);
    expect(statistics.std).toBeCloseTo(Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / 288), 6);
    expect([shape, channel_axis, channels]).toEqual([[12, 24], 0, 12]);
    const plain = (await engine.open(gemmNet(false))).info.weights[0]!;
    expect([plain.shape, plain.channel_axis, plain.channels]).toEqual([[24, 12], 1, 12]);
  });

  test("refuses what is no model with a code, a place and a sentence", async () => {
    const broken = [
      new Uint8Array(),
      new TextEncoder().encode("hello"),
      convNet().subarray(0, 300),
      new Uint8Array(4096).fill(255),
    ];
    for (const bytes of broken) {
      const error = await engine.open(bytes, { name: "broken.onnx" }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(NibbleError);
      expect((error as NibbleError).code).toBe("bad-file");
      expect((error as NibbleError).detail.length).toBeGreaterThan(10);
    }
    expect((await engine.open(convNet())).info.nodes).toBe(7);
  });

  test("names the missing file of external data", async () => {
    const opening = engine.open(externalNet("some/where/weights.bin").model);
    await expect(opening).rejects.toMatchObject({
      code: "bad-file",
      detail: expect.stringMatching(/external data file "[^"]*weights\.bin"/),
    });
  });

  test("finds external data by the last part of its path", async () => {
    const { model, external } = externalNet("some/where/weights.bin");
    const opened = await engine.open(model, { external: { "weights.bin": external } });
    expect(await opened.values("weight")).toEqual(weights(128, 70));
  });
});

describe("compress", () => {
  test("prunes and quantizes, and the report says so and fits its schema", async () => {
    const model = await engine.open(convNet());
    const recipe: Recipe = {
      version: 1,
      steps: [
        { kind: "prune", sparsity: 0.5 },
        { kind: "quantize", scheme: { bits: 4, symmetric: false, granularity: "channel" }, range: "mse" },
      ],
    };
    const { model: result, report } = await model.compress(recipe);
    expect(ajv.validate("report.schema.json", report), ajv.errorsText()).toBe(true);
    for (const weight of report.weights) {
      const before = await model.values(weight.name);
      const after = await result.values(weight.name);
      expect(after.filter((x) => x === 0).length / after.length).toBeGreaterThanOrEqual(0.5 - 1 / after.length);
      let squares = 0;
      before.forEach((x, i) => (squares += (x - after[i]!) ** 2));
      // Both in double; summed in another order.
      expect(weight.mse).toBeCloseTo(squares / before.length, 8);
      expect(weight.elements).toBe(before.length);
    }
    expect(report.file.after).toBe((await result.export()).length);
  });

  test("every scheme gives a report that fits its schema, and the exact size of the export", async () => {
    const model = await engine.open(convNet());
    for (const bits of [1, 2, 3, 4, 5, 6, 7, 8, 16]) {
      for (const symmetric of [true, false]) {
        for (const granularity of ["global", "tensor", "channel", "group"] as const) {
          const { model: result, report } = await model.compress(quantize(bits, { symmetric, granularity }));
          const what = `${bits} bits, symmetric ${symmetric}, per ${granularity}`;
          expect(ajv.validate("report.schema.json", report), `${what}: ${ajv.errorsText()}`).toBe(true);
          expect((await result.export()).length, what).toBe(report.file.after);
          result.dispose();
        }
      }
    }
  });

  test("leaves the model that it was called on as it was", async () => {
    const model = await engine.open(gemmNet(true));
    await model.compress(quantize(2));
    expect(await model.values("weight")).toEqual(weights(288, 20));
  });

  test("reports progress that rises to the end", async () => {
    const model = await engine.open(matmulNet([512, 512, 512]));
    const fractions: number[] = [];
    await model.compress(quantize(4, { granularity: "group" }), {
      onProgress: ({ fraction }) => fractions.push(fraction),
    });
    expect(fractions.length).toBeGreaterThan(0);
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(fractions.every((fraction) => fraction >= 0 && fraction <= 1)).toBe(true);
  });

  test("stopped half way leaves a client whose models still work", async () => {
    const model = await engine.open(matmulNet([2048, 2048, 2048]));
    const { model: small } = await (await engine.open(gemmNet(true))).compress(quantize(8));
    const expected = await small.values("weight");
    const stop = new AbortController();
    const slow = model.compress(
      {
        version: 1,
        steps: Array.from({ length: 50 }, () => ({
          kind: "quantize",
          scheme: { bits: 4, granularity: "group" },
          range: "mse",
        })),
      },
      { signal: stop.signal, onProgress: ({ phase }) => phase === "quantize" && stop.abort() },
    );
    await expect(slow).rejects.toMatchObject({ name: "NibbleError", code: "cancelled" });
    expect(await small.values("weight")).toEqual(expected);
    expect((await model.values("w0")).length).toBe(2048 * 2048);
  });

  test("in the caller's own thread, a listener can stop it too", async () => {
    const local = await load({ worker: false });
    const model = await local.open(convNet());
    const stop = new AbortController();
    const running = model.compress(quantize(8), { signal: stop.signal, onProgress: () => stop.abort() });
    await expect(running).rejects.toMatchObject({ code: "cancelled" });
    expect((await model.compress(quantize(8))).report.weights).toHaveLength(3);
    local.close();
  });
});

describe("recipes", () => {
  const good: object[] = [
    { version: 1, steps: [] },
    { version: 1, seed: 5, steps: [{ kind: "prune", threshold: 0.1 }] },
    { version: 1, steps: [{ kind: "prune", pattern: "2:4", layers: { include: ["a*"], exclude: ["b?"] } }] },
    {
      version: 1,
      steps: [{ kind: "prune", pattern: "channels", sparsity: 1, scope: "global", criterion: "magnitude" }],
    },
    {
      version: 1,
      steps: [{ kind: "quantize", scheme: { bits: 16, symmetric: false, granularity: "group", group_size: 64 } }],
    },
    {
      version: 1,
      steps: [{ kind: "quantize", scheme: { bits: 1 }, range: "percentile", percentile: 50, rounding: "stochastic" }],
    },
    { version: 1, steps: [{ kind: "quantize", scheme: { bits: 8 }, range: "sigma", sigmas: 2.5 }] },
    { version: 1, steps: [{ kind: "cluster", bits: 1 }] },
    { version: 1, steps: [{ kind: "cluster", bits: 8, initial: "density", layers: { include: ["fc*"] } }] },
    { version: 1, steps: [{ kind: "encode" }] },
    { version: 1, steps: [{ kind: "encode", coder: "rans", lambda: 0, quantized_form: false }] },
    {
      version: 1,
      steps: [{ kind: "encode", coder: "huffman", lambda: 1, importance: "hessian", layers: { exclude: ["x"] } }],
    },
  ];
  const bad: [object, RegExp][] = [
    [{ steps: [] }, /version/],
    [{ version: 2, steps: [] }, /version/],
    [{ version: 1 }, /steps/],
    [{ version: 1, steps: [], sed: 1 }, /sed/],
    [{ version: 1, seed: -1, steps: [] }, /seed/],
    [{ version: 1, seed: 1.5, steps: [] }, /seed/],
    [{ version: 1, steps: Array.from({ length: 1001 }, () => ({ kind: "prune", sparsity: 0 })) }, /steps.*1000/],
    [{ version: 1, steps: [{}] }, /steps\[0\]/],
    [{ version: 1, steps: [{ kind: "shrink" }] }, /steps\[0\]\.kind/],
    [{ version: 1, steps: [{ kind: "prune" }] }, /steps\[0\]/],
    [{ version: 1, steps: [{ kind: "prune", sparsity: 0.5, threshold: 1 }] }, /steps\[0\]/],
    [{ version: 1, steps: [{ kind: "prune", sparsity: 1.1 }] }, /steps\[0\]\.sparsity/],
    [{ version: 1, steps: [{ kind: "prune", threshold: -1 }] }, /steps\[0\]\.threshold/],
    [{ version: 1, steps: [{ kind: "prune", sparsity: 0.5, pattern: "2:4" }] }, /steps\[0\]/],
    [{ version: 1, steps: [{ kind: "prune", threshold: 0.5, pattern: "channels" }] }, /steps\[0\]/],
    [{ version: 1, steps: [{ kind: "prune", pattern: "two:four" }] }, /steps\[0\]\.pattern/],
    [{ version: 1, steps: [{ kind: "quantize" }] }, /steps\[0\]\.?(scheme)?/],
    [{ version: 1, steps: [{ kind: "quantize", scheme: { bits: 9 } }] }, /steps\[0\]\.scheme\.bits/],
    [{ version: 1, steps: [{ kind: "quantize", scheme: { bits: 4.5 } }] }, /steps\[0\]\.scheme\.bits/],
    [{ version: 1, steps: [{ kind: "quantize", scheme: { bits: 8, symetric: true } }] }, /symetric.*symmetric/],
    [{ version: 1, steps: [{ kind: "quantize", scheme: { bits: 8, group_size: 1 } }] }, /group_size/],
    [{ version: 1, steps: [{ kind: "quantize", scheme: { bits: 8 }, range: "max" }] }, /steps\[0\]\.range/],
    [{ version: 1, steps: [{ kind: "quantize", scheme: { bits: 8 }, layers: { only: [] } }] }, /only/],
    [{ version: 1, steps: [{ kind: "quantize", scheme: { bits: 8 }, layers: { include: "a" } }] }, /include/],
    [{ version: 1, steps: [{ kind: "cluster" }] }, /steps\[0\].*bits/],
    [{ version: 1, steps: [{ kind: "cluster", bits: 0 }] }, /steps\[0\]\.bits/],
    [{ version: 1, steps: [{ kind: "cluster", bits: 9 }] }, /steps\[0\]\.bits/],
    [{ version: 1, steps: [{ kind: "cluster", bits: 4, initial: "even" }] }, /steps\[0\]\.initial.*"density"/],
    [{ version: 1, steps: [{ kind: "cluster", scheme: { bits: 4 } }] }, /scheme/],
    [{ version: 1, steps: [{ kind: "encode", coder: "zip" }] }, /steps\[0\]\.coder.*"rans"/],
    [{ version: 1, steps: [{ kind: "encode", lambda: 1.5 }] }, /steps\[0\]\.lambda/],
    [{ version: 1, steps: [{ kind: "encode", lambda: -0.1 }] }, /steps\[0\]\.lambda/],
    [{ version: 1, steps: [{ kind: "encode", importance: "diagonal" }] }, /steps\[0\]\.importance.*lambda/],
    [{ version: 1, steps: [{ kind: "encode", lambda: 0.1, importance: "full" }] }, /steps\[0\]\.importance/],
    [{ version: 1, steps: [{ kind: "encode", layers: { include: ["a"] } }] }, /steps\[0\]\.layers.*lambda/],
    [{ version: 1, steps: [{ kind: "encode", quantized_form: 1 }] }, /steps\[0\]\.quantized_form/],
  ];

  test("engine and schema accept the same recipes", async () => {
    for (const recipe of good) {
      const checked = await engine.check(recipe as Recipe);
      expect(ajv.validate("recipe.schema.json", recipe), `${JSON.stringify(recipe)}: ${ajv.errorsText()}`).toBe(true);
      expect(ajv.validate("recipe.schema.json", checked), `${JSON.stringify(checked)}: ${ajv.errorsText()}`).toBe(true);
      // Checked twice is checked once.
      expect(await engine.check(checked)).toEqual(checked);
    }
  });

  test("engine and schema refuse the same recipes, and the engine says where", async () => {
    for (const [recipe, message] of bad) {
      const text = JSON.stringify(recipe);
      const error = await engine.check(recipe as Recipe).catch((thrown: unknown) => thrown);
      expect(error, text).toBeInstanceOf(NibbleError);
      expect((error as NibbleError).code, text).toBe("bad-recipe");
      expect((error as NibbleError).message, text).toMatch(message);
      expect(ajv.validate("recipe.schema.json", recipe), text).toBe(false);
    }
  });

  test("text that is no JSON is refused with its place", async () => {
    await expect(engine.check('{"version":1,')).rejects.toMatchObject({ code: "bad-recipe" });
    await expect(engine.check("")).rejects.toMatchObject({ code: "bad-recipe" });
  });

  test("defaults are filled in", async () => {
    expect(await engine.check(quantize(8))).toMatchObject({
      version: 1,
      seed: 0,
      steps: [
        {
          kind: "quantize",
          scheme: { bits: 8, symmetric: true, granularity: "channel" },
          range: "minmax",
          rounding: "nearest",
        },
      ],
    });
    const steps: Recipe["steps"] = [{ kind: "cluster", bits: 4 }, { kind: "encode" }, { kind: "encode", lambda: 0.5 }];
    const encode = { kind: "encode", coder: "auto", quantized_form: true };
    expect((await engine.check({ version: 1, steps })).steps).toEqual([
      { kind: "cluster", bits: 4, initial: "linear" },
      { ...encode, lambda: 0 },
      { ...encode, lambda: 0.5, importance: "none" },
    ]);
  });
});

describe("values, pictures, exports", () => {
  test("a weight that is not there is named, with what there is", async () => {
    const model = await engine.open(gemmNet(true));
    await expect(model.values("weigth")).rejects.toMatchObject({
      name: "NibbleError",
      message: expect.stringContaining("weigth"),
    });
    expect(await model.values("weight")).toHaveLength(288);
  });

  test("a picture counts every weight before and after, and maps the error", async () => {
    const model = await engine.open(convNet());
    const { model: result } = await model.compress(quantize(3, { granularity: "tensor" }));
    const picture = await model.picture("fc.weight", result, { bins: 64, rows: 10, columns: 16 });
    const sum = (array: ArrayLike<number>) => Array.from(array).reduce((a, b) => a + b, 0);
    expect(picture.before.counts).toHaveLength(64);
    expect(sum(picture.before.counts)).toBe(2560);
    expect(sum(picture.after.counts)).toBe(2560);
    expect([picture.before.lo, picture.before.hi]).toEqual([picture.after.lo, picture.after.hi]);
    expect(picture.levels.length).toBeLessThanOrEqual(8);
    expect(picture.levels.length).toBeGreaterThan(0);
    expect(picture.error_map).toMatchObject({ rows: 10, columns: 16, weight_rows: 10, weight_columns: 256 });
    expect(picture.error_map.cells).toHaveLength(160);
    expect(picture.channels.mse).toHaveLength(10);
    // Every value after is one of the levels.
    const levels = new Set(picture.levels);
    for (const value of await result.values("fc.weight")) expect(levels.has(value)).toBe(true);
  });

  test("ONNX Runtime computes the same before and after a round trip without steps", async () => {
    const x = { type: "float32", dims: [2, 1, 8, 8], data: weights(128, 98, 1) } as const;
    const file = convNet({ opset: 11, metadata: { author: "somebody" } });
    const out = await (await engine.open(file)).export();
    expect(Array.from(await runModel(out, { x }))).toEqual(Array.from(await runModel(file, { x })));
  });

  test("ONNX Runtime opens every export and computes with the values that the engine reports", async () => {
    const unit = (k: number) =>
      ({
        type: "float32",
        dims: [1, 24],
        data: Float32Array.from({ length: 24 }, (_, i) => (i === k ? 1 : 0)),
      }) as const;
    const bias = weights(12, 21);
    for (const [bits, options] of [
      [8, {}],
      [8, { symmetric: false, granularity: "tensor" }],
      [4, { granularity: "group", group_size: 8 }],
      [4, { symmetric: false }],
      [3, {}],
      [16, {}],
    ] as const) {
      for (const transB of [true, false]) {
        const model = await engine.open(gemmNet(transB));
        const { model: result } = await model.compress(quantize(bits, options));
        const values = await result.values("weight");
        const file = await result.export();
        for (const k of [0, 11, 23]) {
          const y = await runModel(file, { x: unit(k) });
          for (let j = 0; j < 12; j++) {
            // One weight times one, plus the bias: the same two roundings.
            expect(y[j], `${bits} bits, transB ${transB}`).toBe(
              Math.fround((transB ? values[j * 24 + k]! : values[k * 12 + j]!) + bias[j]!),
            );
          }
        }
      }
    }
  });

  test("an export opens again: as ONNX with its new nodes, as safetensors with the values that were exported", async () => {
    const model = await engine.open(convNet());
    const { model: result } = await model.compress(quantize(8));
    const again = await engine.open(await result.export());
    // One DequantizeLinear for each of the three weights.
    expect(again.info.nodes).toBe(model.info.nodes + 3);
    const tensors = await engine.open(await result.export("safetensors"));
    expect(tensors.info.format).toBe("safetensors");
    for (const { name } of model.info.weights)
      expect(await tensors.values(name), name).toEqual(await result.values(name));
  });

  test("the same input and recipe give the same bytes in a worker and without one", async () => {
    const local = await load({ worker: false });
    const recipe = { ...quantize(4, { granularity: "group" }), seed: 3 };
    const [one, other] = await Promise.all(
      [engine, local].map(async (where) => (await (await where.open(convNet())).compress(recipe)).model.export()),
    );
    expect(one).toEqual(other);
    local.close();
  });
});

describe("shared values", () => {
  const cluster = (bits: number, more: object = {}): Recipe => ({
    version: 1,
    steps: [{ kind: "cluster", bits, ...more }],
  });

  test("a weight has at most 2^bits values, each the mean of what it stands for and the nearest to it", async () => {
    const model = await engine.open(convNet());
    for (const bits of [1, 2, 4, 8]) {
      for (const initial of ["linear", "density", "random"] as const) {
        const what = `${bits} bits from ${initial}`;
        const { model: result, report } = await model.compress(cluster(bits, { initial }), { format: "nib" });
        expect(ajv.validate("report.schema.json", report), `${what}: ${ajv.errorsText()}`).toBe(true);
        for (const weight of report.weights) {
          const before = await model.values(weight.name);
          const after = await result.values(weight.name);
          const groups = new Map<number, number[]>();
          after.forEach((x, i) => groups.set(x, [...(groups.get(x) ?? []), before[i]!]));
          expect(groups.size, what).toBeLessThanOrEqual(2 ** bits);
          expect(groups.size, what).toBeGreaterThan(1);
          expect(weight, what).toMatchObject({
            clusters: groups.size,
            bits: Math.ceil(Math.log2(groups.size)),
            granularity: null,
            stored: "cabac",
          });
          const centroids = [...groups.keys()];
          for (const [centroid, values] of groups) {
            const mean = values.reduce((a, b) => a + b, 0) / values.length;
            expect(Math.abs(centroid - mean), what).toBeLessThanOrEqual(2 ** -23 * Math.abs(mean));
            for (const value of values) {
              const distance = Math.min(...centroids.map((other) => Math.abs(other - value)));
              // As far as centroids that are rounded to float32 can tell.
              expect(Math.abs(centroid - value), what).toBeLessThanOrEqual(distance + 2 ** -22 * Math.abs(value));
            }
          }
        }
        result.dispose();
      }
    }
  });

  test("pruned weights stay zero and take no centroid", async () => {
    const model = await engine.open(convNet());
    const { model: result, report } = await model.compress({
      version: 1,
      steps: [
        { kind: "prune", sparsity: 0.75 },
        { kind: "cluster", bits: 2 },
      ],
    });
    for (const weight of report.weights) {
      const before = await model.values(weight.name);
      const after = await result.values(weight.name);
      const kept = new Set(after.filter((x) => x !== 0));
      expect(kept.size).toBe(4);
      expect(weight).toMatchObject({ clusters: 4, bits: 3, stored: "float32" });
      // The largest quarter is what is left.
      const limit = [...before.map(Math.abs)].sort((a, b) => b - a)[Math.round(before.length / 4) - 1]!;
      after.forEach((x, i) => expect(x !== 0).toBe(Math.abs(before[i]!) >= limit));
    }
  });

  test("layers that are left out keep their values", async () => {
    const model = await engine.open(convNet());
    const { model: result, report } = await model.compress(cluster(3, { layers: { include: ["conv*"] } }));
    expect(report.weights.map(({ clusters }) => clusters)).toEqual([8, 8, null]);
    expect(await result.values("fc.weight")).toEqual(await model.values("fc.weight"));
  });
});

/** The levels of a quantized weight: what its integers in the exported ONNX file are less their zero points. */
function levelsOf(file: Uint8Array, weight: string, groupSize: number): Int32Array {
  const initializers = readInitializers(file);
  const codes = initializers.get(`${weight}_quantized`)!;
  const found = initializers.get(`${weight}_zero_point`);
  const zeros = found ? wholeNumbers(found) : Int32Array.of(0);
  const columns = codes.dims.slice(1).reduce((a, b) => a * b, 1);
  const groups = zeros.length / codes.dims[0]!;
  return wholeNumbers(codes).map((code, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    const at = zeros.length === 1 ? 0 : groups === 1 ? row : row * groups + Math.floor(column / groupSize);
    return code - zeros[at]!;
  });
}

/** The low bits of whole numbers one after the other, the first in the lowest bits. */
function packed(values: ArrayLike<number>, bits: number): Uint8Array {
  const out = new Uint8Array(Math.ceil((values.length * bits) / 8));
  for (let i = 0; i < values.length; i++) {
    for (let b = 0; b < bits; b++) out[(i * bits + b) >> 3]! |= ((values[i]! >> b) & 1) << ((i * bits + b) & 7);
  }
  return out;
}

/** Order-0 entropy in bytes. */
function entropy(values: Int32Array): number {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  let bits = 0;
  for (const count of counts.values()) bits -= count * Math.log2(count / values.length);
  return bits / 8;
}

describe("packed codes", () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8, 16])("at %d bits are the integers of the exported ONNX file", async (bits) => {
    const model = await engine.open(sample("simplenet"));
    for (const scheme of [
      {},
      { symmetric: false },
      { symmetric: false, granularity: "tensor" },
      { symmetric: false, granularity: "group", group_size: 32 },
    ]) {
      const { model: result } = await model.compress(quantize(bits, scheme));
      const file = await result.export();
      for (const { name } of model.info.weights) {
        const levels = levelsOf(file, name, 32);
        // One symmetric bit is a sign.
        const signs = bits === 1 && !("symmetric" in scheme);
        const expected = packed(signs ? levels.map((level) => Number(level > 0)) : levels, bits);
        expect(await result.packed(name), `${name}, ${JSON.stringify(scheme)}`).toEqual(expected);
      }
      result.dispose();
    }
  });

  test("of shared values are their places in ascending order, of others the values as they are", async () => {
    const model = await engine.open(sample("simplenet"));
    const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    for (const steps of [[], [{ kind: "prune", sparsity: 0.5 }]] as Recipe["steps"][]) {
      const { model: result, report } = await model.compress({
        version: 1,
        steps: [...steps, { kind: "cluster", bits: 4, layers: { exclude: ["conv1.*"] } }],
      });
      for (const { name, bits } of report.weights) {
        const values = await result.values(name);
        const ascending = [...new Set(values)].sort((a, b) => a - b);
        const places = Array.from(values, (value) => ascending.indexOf(value));
        const expected = name === "conv1.weight" ? bytesOf(values) : packed(places, bits);
        expect(await result.packed(name), name).toEqual(expected);
      }
    }
    await expect(model.packed("nowhere")).rejects.toMatchObject({ code: "bad-data", where: "nowhere" });
  });
});

const recipes: Record<string, Recipe["steps"]> = {
  "as it is": [],
  "8 bits": [{ kind: "quantize", scheme: { bits: 8 } }],
  "4 bits in groups": [{ kind: "quantize", scheme: { bits: 4, granularity: "group" } }],
  "80 % pruned, 4 bits": [
    { kind: "prune", sparsity: 0.8, scope: "global" },
    { kind: "quantize", scheme: { bits: 4 } },
  ],
  "80 % pruned, 4 bits in groups, affine": [
    { kind: "prune", sparsity: 0.8, scope: "global" },
    { kind: "quantize", scheme: { bits: 4, symmetric: false, granularity: "group" }, range: "mse" },
  ],
  "16 shared values": [{ kind: "cluster", bits: 4 }],
  "90 % pruned, 32 shared values": [
    { kind: "prune", sparsity: 0.9 },
    { kind: "cluster", bits: 5 },
  ],
  "8 bits with a lambda": [
    { kind: "quantize", scheme: { bits: 8 } },
    { kind: "encode", lambda: 0.001 },
  ],
};

describe("bytes", () => {
  test.each(Object.keys(recipes))("%s: all of them together are the file", async (name) => {
    for (const from of [sample("simplenet"), sample("transformer"), matmulNet(), gemmNet(false), embeddingNet()]) {
      const model = await engine.open(from);
      const { model: result, report: made } = await model.compress(
        { version: 1, steps: recipes[name]! },
        { format: "nib" },
      );
      const report = await result.bytes();
      expect(report.estimated).toBe(false);
      expect(report.file).toBe((await result.export("nib")).length);
      expect(report.dense_file).toBe((await model.export()).length);
      const sum = report.weights.reduce((all, { nib }) => all + nib, report.header + report.others);
      expect(sum).toBeCloseTo(report.file, 6);
      expect(report.header).toBeGreaterThan(0);
      expect(report.others).toBeGreaterThanOrEqual(0);
      for (const [i, weight] of report.weights.entries()) {
        const { elements, bits, clusters, granularity, bytes, stored } = made.weights[i]!;
        const coded = granularity !== null || clusters !== null;
        expect(weight).toMatchObject({
          name: made.weights[i]!.name,
          dense: bytes.dense,
          codes: coded ? Math.ceil((elements * bits) / 8) : bytes.dense,
          coder: stored,
        });
        expect(weight.codes).toBe((await result.packed(weight.name)).length);
        const { entropy: order0, huffman, huffman_index, rans, cabac, parts } = weight;
        if (!coded) {
          expect([order0, huffman, huffman_index, rans, cabac, parts]).toEqual(Array(6).fill(null));
          continue;
        }
        // Its relative indices see more than frequencies of single levels; what has none cannot pass the entropy.
        if (huffman_index === 0) expect(huffman).toBeGreaterThanOrEqual(order0!);
        expect(rans).toBeGreaterThanOrEqual(order0!);
        expect(weight.nib).toBeGreaterThan(Math.min(huffman!, rans!, cabac!) - 1);
        const decisions = Object.values(parts!).reduce((a, b) => a + b, 0);
        expect(Object.keys(parts!)).toEqual(["significance", "sign", "magnitude", "remainder"]);
        // The rest says which contexts there are.
        expect(decisions).toBeLessThanOrEqual(cabac! + 1e-6);
        expect(cabac! - decisions).toBeLessThan(16);
      }
    }
  });

  test.each(Object.keys(recipes))("%s: codes and scales are what the report calls packed", async (name) => {
    for (const from of [sample("simplenet"), gemmNet(false), halfNet()]) {
      const model = await engine.open(from);
      const { model: result, report } = await model.compress({ version: 1, steps: recipes[name]! });
      const found = (await result.bytes()).weights.map(({ codes, scales }) => codes + scales);
      expect(found).toEqual(report.weights.map(({ bytes }) => bytes.packed));
    }
  });

  test("the entropy is that of the levels", async () => {
    const model = await engine.open(sample("simplenet"));
    for (const scheme of [{ bits: 8 }, { bits: 4, symmetric: false, granularity: "group", group_size: 32 }] as const) {
      const { model: result } = await model.compress({ version: 1, steps: [{ kind: "quantize", scheme }] });
      const file = await result.export();
      for (const { name, entropy: told } of (await result.bytes()).weights) {
        expect(told, name).toBeCloseTo(entropy(levelsOf(file, name, 32)), 3);
      }
    }
  });

  const cases = sampleNames.flatMap((name) => Object.keys(recipes).map((recipe) => [name, recipe] as const));
  /** Counting takes long enough to do it once for both tests. */
  const counts = new Map<string, Promise<ByteReport[]>>();
  const counted = (name: string, recipe: string) => {
    const count = async () => {
      using model = await engine.open(sample(name));
      const { model: result } = await model.compress({ version: 1, steps: recipes[recipe]! });
      const reports = [await result.bytes({ exact: true }), await result.bytes({ exact: false })];
      result.dispose();
      return reports;
    };
    const key = `${name}, ${recipe}`;
    counts.set(key, counts.get(key) ?? count());
    return counts.get(key)!;
  };

  test.each(cases)("%s, %s: the estimate of the file is within two hundredths", async (name, recipe) => {
    const [exact, estimate] = await counted(name, recipe);
    expect(estimate!.estimated).toBe(true);
    expect(Math.abs(estimate!.file / exact!.file - 1)).toBeLessThanOrEqual(0.02);
  });

  test.each(cases)("%s, %s: the estimate of every coder is within two hundredths", async (name, recipe) => {
    const [exact, estimate] = await counted(name, recipe);
    for (const coder of ["entropy", "huffman", "rans", "cabac"] as const) {
      const sum = ({ weights }: ByteReport) => weights.reduce((bytes, weight) => bytes + (weight[coder] ?? 0), 0);
      // A tensor of twenty weights has a few bytes; one more or less is no error of the estimate.
      expect(Math.abs(sum(estimate!) - sum(exact!)), coder).toBeLessThanOrEqual(0.02 * sum(exact!) + 1);
    }
    expect(estimate!.weights.every(({ parts }) => parts === null)).toBe(true);
  });

  test("an abort stops the count, and progress rises to the end", async () => {
    const { model } = await (await engine.open(sample("lenet-300-100"))).compress(quantize(8));
    const fractions: number[] = [];
    await model.bytes({ onProgress: ({ phase, fraction }) => phase === "bytes" && fractions.push(fraction) });
    expect(fractions.length).toBeGreaterThan(0);
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    const stop = new AbortController();
    const counting = model.bytes({ signal: stop.signal, onProgress: () => stop.abort() });
    await expect(counting).rejects.toMatchObject({ code: "cancelled" });
  });
});

describe(".nib files", () => {
  test.each(Object.keys(recipes))("%s: the report's size is the file's, which opens as it was", async (name) => {
    for (const from of [convNet(), matmulNet(), gemmNet(false), halfNet(), embeddingNet(), sample("lstm")]) {
      const { model: result, report } = await (
        await engine.open(from)
      ).compress({ version: 1, steps: recipes[name]! }, { format: "nib" });
      expect(ajv.validate("report.schema.json", report), ajv.errorsText()).toBe(true);
      expect(report.file.format).toBe("nib");
      const file = await result.export("nib");
      expect(file.length).toBe(report.file.after);
      const again = await engine.open(file);
      for (const weight of result.info.weights) {
        expect(await again.values(weight.name), weight.name).toEqual(await result.values(weight.name));
      }
      expect(again.info).toMatchObject({ format: result.info.format, file_bytes: file.length });
      expect(again.info.weights).toEqual(result.info.weights);
      expect(again.info.history!.recipes).toEqual(result.info.history!.recipes);
      for (const format of ["onnx", "safetensors"] as const) {
        expect(await again.export(format), format).toEqual(await result.export(format));
      }
      // It is read as what it was written from, so it is written as it was read.
      expect(await again.export("nib")).toEqual(file);
    }
  });

  test("a coder that is asked for is used, and auto is no larger than any", async () => {
    const model = await engine.open(sample("simplenet"));
    const prune = { kind: "prune", sparsity: 0.8, scope: "global" } as const;
    const sizes: Record<string, number> = {};
    for (const coder of ["auto", "huffman", "rans", "cabac"] as const) {
      const steps: Recipe["steps"] = [prune, { kind: "quantize", scheme: { bits: 4 } }, { kind: "encode", coder }];
      const { model: result, report } = await model.compress({ version: 1, steps }, { format: "nib" });
      const stored = report.weights.map((weight) => weight.stored);
      if (coder !== "auto") expect(stored).toEqual(stored.map(() => coder));
      sizes[coder] = (await result.export("nib")).length;
      expect(await (await engine.open(await result.export("nib"))).values("fc1.weight")).toEqual(
        await result.values("fc1.weight"),
      );
    }
    expect(sizes.auto).toBeLessThanOrEqual(Math.min(sizes.huffman!, sizes.rans!, sizes.cabac!));
    expect(new Set(Object.values(sizes)).size).toBeGreaterThan(2);
  });

  test("without the quantized form it is smaller, and with more lambda still smaller and worse", async () => {
    const model = await engine.open(sample("simplenet"));
    const made = async (more: object) => {
      const steps: Recipe["steps"] = [
        { kind: "quantize", scheme: { bits: 8 } },
        { kind: "encode", ...more },
      ];
      const { model: result, report } = await model.compress({ version: 1, steps });
      return { size: (await result.export("nib")).length, sqnr: report.total.sqnr_db! };
    };
    const [whole, float] = [await made({}), await made({ quantized_form: false })];
    expect(float.size).toBeLessThan(whole.size);
    expect(float.sqnr).toBe(whole.sqnr);
    let last = whole;
    for (const lambda of [1e-4, 1e-3, 1e-2]) {
      const next = await made({ lambda });
      expect(next.size, `${lambda}`).toBeLessThan(last.size);
      expect(next.sqnr, `${lambda}`).toBeLessThan(last.sqnr);
      last = next;
    }
  });

  test("importance is found with data, and without data there is none", async () => {
    const model = await engine.open(sample("simplenet"));
    const data = await engine.data({ kind: "digits", seed: 1, n: 100 });
    const recipe = (importance: "diagonal" | "hessian"): Recipe => ({
      version: 1,
      steps: [{ kind: "encode", lambda: 1e-8, importance }],
    });
    await expect(model.compress(recipe("diagonal"))).rejects.toMatchObject({ name: "NibbleError" });
    const results = [];
    for (const importance of ["diagonal", "hessian"] as const) {
      const phases = new Set<string>();
      const { report } = await model.compress(recipe(importance), {
        data,
        format: "nib",
        onProgress: ({ phase }) => phases.add(phase),
      });
      expect(ajv.validate("report.schema.json", report), ajv.errorsText()).toBe(true);
      expect([...phases]).toContain("encode");
      expect(report.file.after).toBeLessThan(model.info.file_bytes / 5);
      results.push(report.file.after);
    }
    expect(results[0]).not.toBe(results[1]);
  });

  test("history goes with the file, from recipe to recipe", async () => {
    const model = await engine.open(convNet());
    expect(model.info.history).toBeNull();
    const one = await model.compress({ ...quantize(8), seed: 4 });
    const { history } = one.model.info;
    expect(history).toEqual({
      recipes: [one.report.recipe],
      file_bytes: convNet().length,
      sqnr_db: expect.closeTo(one.report.total.sqnr_db!, 3),
    });
    expect(history!.recipes[0]).toMatchObject({ seed: 4, steps: [{ kind: "quantize", scheme: { bits: 8 } }] });
    const opened = await engine.open(await one.model.export("nib"));
    // The file has eight bits of the error's mantissa.
    expect(opened.info.history).toEqual({ ...history, sqnr_db: expect.closeTo(history!.sqnr_db!, 1) });
    const two = await opened.compress({ version: 1, steps: [{ kind: "prune", sparsity: 0.5 }] });
    expect((await engine.open(await two.model.export("nib"))).info.history).toEqual({
      recipes: [one.report.recipe, two.report.recipe],
      file_bytes: convNet().length,
      sqnr_db: expect.closeTo(two.report.total.sqnr_db!, 1),
    });
    // Other formats have no place for it.
    expect((await engine.open(await two.model.export())).info.history).toBeNull();
  });

  test("what is cut off, damaged or of a later version is refused with a place and a sentence", async () => {
    const { model } = await (await engine.open(convNet())).compress(quantize(4));
    const file = await model.export("nib");
    const with_ = (at: number, value: number) => file.map((byte, i) => (i === at ? value : byte));
    const cases: [Uint8Array, object][] = [
      [file.subarray(0, 3), { code: "bad-file" }],
      [file.subarray(0, 40), { code: "bad-file", detail: expect.stringContaining("cut off") }],
      [file.subarray(0, file.length - 1), { code: "bad-file", detail: expect.stringContaining("cut off") }],
      [with_(3, 2), { code: "unsupported", where: "byte 3", detail: expect.stringMatching(/version 2.* version 1/) }],
      [with_(file.length - 9, file[file.length - 9]! ^ 16), { code: "bad-file" }],
      [Uint8Array.of(...file, 0), { code: "bad-file", where: `byte ${file.length}` }],
    ];
    for (const [bytes, error] of cases) {
      await expect(engine.open(bytes)).rejects.toMatchObject({ name: "NibbleError", ...error });
    }
    expect((await engine.open(file)).info.weights).toHaveLength(3);
  });
});
