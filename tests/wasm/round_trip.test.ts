// Second opinion on whole files: what ONNX Runtime computes with a model it computes after a round trip through the engine,
// and it runs what compression exports. Over the test models; real_models.test.ts does the like with real ones.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Engine, ModelInfo } from "nibble-nn";
import { load } from "nibble-nn";
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
import { toHalf } from "../fixtures/onnx";
import { weights } from "../fixtures/random";
import { runOutputs } from "../fixtures/runtime";
import type { Feed } from "../fixtures/runtime";

let engine: Engine;
beforeAll(async () => {
  engine = await load();
});
afterAll(() => engine.close());

/** Inputs as the model describes them: free extents are 2, floats are seeded, all else is 1. */
function feedsFor(info: ModelInfo): Record<string, Feed> {
  const feeds = info.inputs.map(({ name, dtype, shape }, index): [string, Feed] => {
    const dims = shape.map((extent) => (typeof extent === "number" ? extent : 2));
    const count = dims.reduce((product, extent) => product * extent, 1);
    const values = weights(count, 200 + index, 0.5);
    if (dtype === "float32") return [name, { type: dtype, dims, data: values }];
    if (dtype === "float16") return [name, { type: dtype, dims, data: Uint16Array.from(values, toHalf) }];
    if (dtype === "int64") return [name, { type: dtype, dims, data: new BigInt64Array(count).fill(1n) }];
    expect(dtype).toBe("bool");
    return [name, { type: "bool", dims, data: new Uint8Array(count).fill(1) }];
  });
  return Object.fromEntries(feeds);
}

const external = externalNet();
const models: [string, Uint8Array, Record<string, Uint8Array>?][] = [
  ["convolutions at opset 7", convNet({ opset: 7 })],
  ["convolutions at opset 13", convNet()],
  ["convolutions at opset 21", convNet({ opset: 21 })],
  ["matrix products", matmulNet()],
  ["Gemm", gemmNet(false)],
  ["Gemm, transposed", gemmNet(true)],
  ["half floats", halfNet()],
  ["constant nodes", constantNet()],
  ["branches", branchNet()],
  ["an embedding", embeddingNet()],
  ["external data", external.model, { "weights.bin": external.external }],
];

test.each(models)("%s: a round trip keeps every output and every operator", async (_, file, beside = {}) => {
  using model = await engine.open(file, { external: beside });
  const feeds = feedsFor(model.info);
  // The exported file has its external data inside.
  const out = await model.export();
  expect(await runOutputs(out, feeds)).toEqual(await runOutputs(file, feeds, beside));
  using again = await engine.open(out);
  const { operators, parameters, inputs, outputs, weights } = model.info;
  expect(again.info).toMatchObject({ operators, parameters, inputs, outputs, weights });
});

test.each(models)(
  "%s: ONNX Runtime runs the model at 8 bits, and what it computes is near",
  async (_, file, beside = {}) => {
    using model = await engine.open(file, { external: beside });
    const { model: small, report } = await model.compress({
      version: 1,
      steps: [{ kind: "quantize", scheme: { bits: 8 } }],
    });
    const bytes = await small.export();
    expect(bytes.length).toBe(report.file.after);
    const feeds = feedsFor(model.info);
    const before = await runOutputs(file, feeds, beside);
    const after = await runOutputs(bytes, feeds);
    expect(after.map((values) => values.length)).toEqual(before.map((values) => values.length));
    if (model.info.inputs[0]!.dtype === "float16") return; // outputs are bit patterns
    for (const [index, values] of before.entries()) {
      const one = Array.from(values, Number);
      const other = Array.from(after[index]!, Number);
      const norm = Math.hypot(...one);
      const error = Math.hypot(...one.map((value, i) => value - other[i]!));
      // Half a step of 1/127 of the largest weight, relative to a typical one (a quarter of it), over at most three layers.
      expect(error / norm).toBeLessThan(0.03);
    }
  },
);
