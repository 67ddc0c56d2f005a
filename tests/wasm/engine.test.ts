// The package with its real module: opens, runs, stops, fails with reasons, and exports what it says.
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Engine, Recipe } from "nibble-nn";
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
import { weights } from "../fixtures/random";
import { runModel } from "../fixtures/runtime";

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
