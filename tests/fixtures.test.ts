// The test models are what they claim to be: ONNX Runtime opens them and computes what the weights say.
import { expect, test } from "vitest";
import {
  branchNet,
  constantNet,
  convNet,
  embeddingNet,
  externalNet,
  gemmNet,
  halfNet,
  matmulNet,
} from "./fixtures/make";
import { toHalf } from "./fixtures/onnx";
import { uniform, weights } from "./fixtures/random";
import { runModel } from "./fixtures/runtime";
import type { Feed } from "./fixtures/runtime";

const input = (dims: number[]): Feed => {
  const count = dims.reduce((product, dim) => product * dim, 1);
  return { type: "float32", dims, data: weights(count, 99, 1) };
};

test("ONNX Runtime runs the convolutional net", async () => {
  expect(await runModel(convNet(), { x: input([2, 1, 8, 8]) })).toHaveLength(20);
});

test("the matrix products of the MatMul net are those of its weights", async () => {
  const x = input([1, 5]);
  const w = weights(15, 10, 1 / Math.sqrt(5));
  const expected = [0, 1, 2].map((column) => {
    return Array.from({ length: 5 }, (_, row) => (x.data[row] as number) * w[row * 3 + column]!).reduce(
      (a, b) => a + b,
    );
  });
  const y = await runModel(matmulNet([5, 3]), { x });
  // Sums of five products: rounding differs by the order only.
  for (const [index, value] of expected.entries()) expect(y[index]).toBeCloseTo(value, 6);
});

test("a Gemm's weight is read as stored, transposed or not", async () => {
  for (const transB of [false, true]) {
    const x = {
      type: "float32",
      dims: [1, 24],
      data: Float32Array.from({ length: 24 }, (_, i) => (i === 3 ? 1 : 0)),
    } as const;
    const w = weights(288, 20);
    const bias = weights(12, 21);
    const y = await runModel(gemmNet(transB), { x });
    for (let j = 0; j < 12; j++) {
      expect(y[j]).toBeCloseTo((transB ? w[j * 24 + 3]! : w[3 * 12 + j]!) + bias[j]!, 6);
    }
  }
});

test("half floats round to nearest, ties to even", () => {
  // Bit patterns from IEEE 754 binary16: 1, -2, largest 65504, overflow at 65520, smallest subnormal 2^-24, ties.
  const cases: [number, number][] = [
    [0, 0],
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [65519, 0x7bff],
    [65520, 0x7c00],
    [2 ** -24, 1],
    [2 ** -25, 0],
    [3 * 2 ** -25, 2],
    [2 ** -14, 0x0400],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [2 - 2 ** -12, 0x4000],
  ];
  for (const [value, bits] of cases) expect(toHalf(value), String(value)).toBe(bits);
});

test("ONNX Runtime runs the half-float, constant, branching, embedding and external models", async () => {
  const half: Feed = { type: "float16", dims: [1, 24], data: new Uint16Array(24) };
  expect(await runModel(halfNet(), { x: half })).toHaveLength(12);
  expect(await runModel(constantNet(), { x: input([1, 16]) })).toHaveLength(8);
  const flag: Feed = { type: "bool", dims: [], data: Uint8Array.of(1) };
  expect(await runModel(branchNet(), { x: input([1, 16]), flag })).toHaveLength(8);
  const ids: Feed = { type: "int64", dims: [2], data: BigInt64Array.of(0n, 49n) };
  expect(await runModel(embeddingNet(), { ids })).toHaveLength(24);
  const { model, external } = externalNet();
  expect(await runModel(model, { x: input([1, 16]) }, { "weights.bin": external })).toHaveLength(8);
});

test("seeded numbers are the same every time and spread over their range", () => {
  const first = Array.from({ length: 1000 }, uniform(7));
  expect(first).toEqual(Array.from({ length: 1000 }, uniform(7)));
  const mean = first.reduce((a, b) => a + b) / 1000;
  // The mean of 1000 uniforms has standard deviation 0.0091; five of those.
  expect(Math.abs(mean - 0.5)).toBeLessThan(0.046);
  const spread = weights(10_000, 8, 0.1);
  const std = Math.sqrt(spread.reduce((sum, x) => sum + x * x, 0) / spread.length);
  expect(std).toBeCloseTo(0.1, 2);
});
