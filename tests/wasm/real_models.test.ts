// Real files, where they are at hand: all of them open; a file that is read and written again computes the same; a file
// that is quantized is what ONNX Runtime still opens and runs; a .nib file of either gives the same bytes back.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Engine, Recipe } from "nibble-nn";
import { load, NibbleError } from "nibble-nn";
import { decode, inspectNib } from "nibble-nn/decode";
import { dataFolder, realModels } from "../fixtures/data";
import { runAll } from "../fixtures/runtime";
import { expectSame } from "../fixtures/tensors";

let engine: Engine;
beforeAll(async () => {
  engine = await load();
});
afterAll(() => engine.close());

const recipes: Record<string, Recipe> = {
  "8 bits per channel": { version: 1, steps: [{ kind: "quantize", scheme: { bits: 8 } }] },
  "4 bits in groups, affine": {
    version: 1,
    steps: [{ kind: "quantize", scheme: { bits: 4, symmetric: false, granularity: "group" }, range: "mse" }],
  },
  "80 % pruned, then 8 bits": {
    version: 1,
    seed: 0,
    steps: [
      { kind: "prune", sparsity: 0.8, scope: "global", criterion: "magnitude", pattern: "unstructured" },
      {
        kind: "quantize",
        scheme: { bits: 8, symmetric: true, granularity: "channel" },
        range: "mse",
        rounding: "nearest",
      },
    ],
  },
};

const models = realModels();
if (!dataFolder) test("without the data folder there is nothing to open", () => expect(models).toEqual([]));

describe.each(models)("$name", ({ file, bytes, external, inputs }) => {
  test("opens, or says which external file it lacks", async () => {
    try {
      using model = await engine.open(bytes, { name: file, external });
      expect(model.info.file_bytes).toBeGreaterThanOrEqual(bytes.length);
    } catch (error) {
      expect(error).toBeInstanceOf(NibbleError);
      expect((error as NibbleError).detail).toMatch(/external data file "[^"]+" is missing/);
      expect(Object.keys(external)).toEqual([]);
    }
  });

  // Coding takes its time: the larger ones are left out.
  const comesBack = () =>
    test("comes back from a .nib file byte by byte, as it is and at 4 bits", async () => {
      const model = await engine.open(bytes, { name: file, external }).catch(() => undefined);
      // The test before this one says why.
      if (!model) return;
      const nib = await model.export("nib");
      expectSame(await decode(nib), await model.export());
      using again = await engine.open(nib);
      expectSame(await again.export("nib"), nib);
      const { model: result } = await model.compress({
        version: 1,
        steps: [{ kind: "quantize", scheme: { bits: 4 } }],
      });
      const quantized = await result.export("nib");
      const form = (await inspectNib(quantized)).bytes.quantized === null ? "float" : "quantized";
      expectSame(await decode(quantized, { form }), await result.export());
      result.dispose();
      model.dispose();
    });
  if (bytes.length < 600_000) comesBack();

  // What ONNX Runtime refuses in the original needs no second opinion.
  if (inputs.length === 0) return;

  test("computes the same after a round trip", async () => {
    const before = await runAll(bytes, inputs, external);
    if (!before) return;
    using model = await engine.open(bytes, { name: file, external });
    const after = await runAll(await model.export(), inputs);
    expect(after).toEqual(before);
  });

  test.each(Object.keys(recipes))("runs after %s", async (name) => {
    if (!(await runAll(bytes, inputs, external))) return;
    using model = await engine.open(bytes, { name: file, external });
    const { model: result, report } = await model.compress(recipes[name]!);
    const exported = await result.export();
    expect(exported.length).toBe(report.file.after);
    const outputs = await runAll(exported, inputs);
    expect(outputs).toBeDefined();
    result.dispose();
  });
});
