// What an exported file computes is what the report speaks of: ONNX Runtime's value of every weight, whatever its shape,
// operator, type and grid, equals the model's own bit for bit.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Engine, QuantScheme, Recipe } from "nibble-nn";
import { load } from "nibble-nn";
import { DataType, Message, floats, graph, halves, int64s, model, node, value, type Attribute } from "../fixtures/onnx";
import { weights } from "../fixtures/random";
import { runModel } from "../fixtures/runtime";

let engine: Engine;
beforeAll(async () => {
  engine = await load();
});
afterAll(() => engine.close());

interface Case {
  name: string;
  op: string;
  shape: number[];
  /** Shape of the other operand. */
  x: number[];
  half?: boolean;
  opset?: number;
  inputs: (weight: string) => string[];
  attributes?: Record<string, Attribute>;
}

// One for each place that output channels can have in a stored tensor, with extents that no group size divides.
const cases: Case[] = [
  { name: "a convolution", op: "Conv", shape: [7, 5, 3, 3], x: [1, 5, 4, 4], inputs: (w) => ["x", w] },
  {
    name: "a depthwise convolution",
    op: "Conv",
    shape: [9, 1, 3, 3],
    x: [1, 9, 4, 4],
    inputs: (w) => ["x", w],
    attributes: { group: { i: 9 } },
  },
  {
    name: "a transposed convolution",
    op: "ConvTranspose",
    shape: [6, 5, 2, 3],
    x: [1, 6, 4, 4],
    inputs: (w) => ["x", w],
  },
  { name: "a product's right side", op: "MatMul", shape: [37, 11], x: [1, 37], inputs: (w) => ["x", w] },
  { name: "a batched product", op: "MatMul", shape: [3, 19, 10], x: [3, 1, 19], inputs: (w) => ["x", w] },
  { name: "a product's left side", op: "MatMul", shape: [11, 37], x: [37, 1], inputs: (w) => [w, "x"] },
  {
    name: "a Gemm with transB",
    op: "Gemm",
    shape: [13, 41],
    x: [1, 41],
    inputs: (w) => ["x", w],
    attributes: { transB: { i: 1 } },
  },
  {
    name: "a recurrent matrix in two directions",
    op: "GRU",
    shape: [2, 12, 5],
    x: [1, 1, 5],
    inputs: (w) => ["x", w, "r"],
    attributes: { hidden_size: { i: 4 }, direction: { s: "bidirectional" } },
  },
  {
    name: "a float16 convolution",
    op: "Conv",
    shape: [7, 5, 3, 3],
    half: true,
    x: [1, 5, 4, 4],
    inputs: (w) => ["x", w],
  },
  {
    name: "a convolution of operator set 8",
    op: "Conv",
    shape: [16, 8, 3, 3],
    opset: 8,
    x: [1, 8, 4, 4],
    inputs: (w) => ["x", w],
  },
];

const schemes: QuantScheme[] = [];
for (const symmetric of [true, false]) {
  for (const bits of [1, 2, 4, 8, 16]) {
    for (const granularity of ["global", "tensor", "channel", "group"] as const) {
      schemes.push({ bits, symmetric, granularity, ...(granularity === "group" ? { group_size: 16 } : {}) });
    }
  }
}

/** A value of a type, its shape unsaid. */
const typed = (name: string, type: number) =>
  new Message().text(1, name).message(2, new Message().message(1, new Message().int(1, type)));

/** A model that hands out its weight beside using it. The use itself never runs: ONNX Runtime computes what is asked for. */
function modelOf({ op, shape, x, half, opset, inputs, attributes }: Case): Uint8Array {
  const type = half ? DataType.float16 : DataType.float;
  const count = shape.reduce((a, b) => a * b, 1);
  const values = weights(count, 77, 0.4);
  return model(
    graph({
      nodes: [
        node("Identity", ["weight"], ["out"]),
        node("If", ["no"], ["y"], {
          attributes: {
            then_branch: {
              g: graph({
                name: "then",
                nodes: [node(op, inputs("weight"), ["t"], { attributes })],
                inputs: [],
                outputs: [typed("t", type)],
              }),
            },
            else_branch: {
              g: graph({
                name: "else",
                nodes: [node("Identity", ["x"], ["e"])],
                inputs: [],
                outputs: [typed("e", type)],
              }),
            },
          },
        }),
      ],
      initializers: [
        half ? halves("weight", shape, values) : floats("weight", shape, values),
        floats("r", [2, 12, 4], weights(96, 5)),
      ],
      inputs: [value("x", x, type), value("no", [], DataType.bool)],
      outputs: [value("out", shape, type), typed("y", type)],
    }),
    { opset },
  );
}

/** The float16 bit pattern's value, by its definition. */
function fromHalf(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -size : size;
}

describe.each(cases)("$name", (example) => {
  test.each(schemes)("$bits bits, symmetric $symmetric, per $granularity", async (scheme) => {
    const recipe: Recipe = { version: 1, steps: [{ kind: "quantize", scheme, range: "mse" }] };
    using opened = await engine.open(modelOf(example));
    const { model: result, report } = await opened.compress(recipe);
    const file = await result.export();
    expect(file.length).toBe(report.file.after);
    const promised = await result.values("weight");
    const size = example.x.reduce((a, b) => a * b, 1);
    const x = example.half
      ? { type: "float16" as const, dims: example.x, data: new Uint16Array(size) }
      : { type: "float32" as const, dims: example.x, data: new Float32Array(size) };
    const no = { type: "bool" as const, dims: [], data: new Uint8Array(1) };
    const found = await runModel(file, { x, no });
    const computed =
      example.half && found instanceof Uint16Array ? Float32Array.from(found, fromHalf) : Float32Array.from(found);
    expect(computed).toEqual(promised);
    // Few enough different values, or nothing has been quantized at all.
    if (scheme.granularity === "tensor") expect(new Set(promised).size).toBeLessThanOrEqual(2 ** scheme.bits);
    result.dispose();
  });
});

test("a bias of 64-bit integers is carried through untouched", async () => {
  const file = model(
    graph({
      nodes: [node("MatMul", ["x", "w"], ["p"]), node("Identity", ["steps"], ["out"])],
      initializers: [floats("w", [64, 64], weights(4096, 3)), int64s("steps", [2], [2 ** 40, -3])],
      inputs: [value("x", ["n", 64])],
      outputs: [value("out", [2], DataType.int64)],
    }),
  );
  using opened = await engine.open(file);
  const { model: result } = await opened.compress({ version: 1, steps: [{ kind: "quantize", scheme: { bits: 8 } }] });
  const x = { type: "float32" as const, dims: [1, 64], data: new Float32Array(64) };
  expect([...(await runModel(await result.export(), { x }))]).toEqual([2n ** 40n, -3n]);
});
