// Real models, where they are at hand, run by the engine: against recorded outputs, else against ONNX Runtime on seeded
// random inputs. What cannot be run is listed here, so that the list cannot grow unnoticed.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Engine } from "nibble-nn";
import { load } from "nibble-nn";
import { dataFolder, realModels } from "../fixtures/data";
import { runOutputs } from "../fixtures/runtime";
import type { Feed } from "../fixtures/runtime";
import { difference, numbers, randomInputs, toValue } from "../fixtures/tensors";

/** Models that the engine does not open or refuses to run, and the reason's main words. */
const kRefused: Record<string, RegExp> = {
  "ext-missing": /external data file "Pads\.bin" is missing/,
  "ext-missing-arbitrary": /external data file "passwd" is missing/,
  // Operators of others than ONNX's own sets.
  "finn-cybsec": /^Nibble has no finn\.custom_op/,
  "ort-lr_mnist_scikit": /^Nibble has no ai\.onnx\.ml\.LinearClassifier/,
  "qonnx-espcn-quant_model": /^Nibble has no onnx\.brevitas\.Quant/,
  "superres-pre-post-opset18": /^Nibble has no com\.microsoft\.extensions\.DecodeImage/,
  "winml-squeezenet-2.9MB": /^Nibble has no ai\.onnx\.ml\.ArrayFeatureExtractor/,
  "ort-gpt2_past": /makes "284", which exists already/, // two nodes make the same value, which ONNX forbids
  "trt-sparse_nnz": /uses "w_sparse", which no input, initializer or node before it makes/, // a sparse initializer
};

/** Models that ONNX Runtime does not run, or not with random inputs, so nobody knows what is right. */
const kNoReference = [
  "trt-attention_head", // an inner dimension of 100 meets one of 1
  "trt-matmul_bf16", // bfloat16
  "trt-residual_block", // the output is declared with another rank
  "tutorial-super_resolution", // no operator set
  "winml-starry-night-fp16", // shapes that do not fit
];

/** Quantized activations: a sum on the other side of a tie is a whole step away, and these are one or two steps of the last
 *  values. ONNX Runtime disagrees with itself as much, with its optimizations and without. */
const kSteps: Record<string, number> = { "mobilenetv2-int8-test": 0.05, "ort-qdq_multi_consumer": 0.05 };

/** Share of the largest magnitude; half floats have 11 bits. */
const kTolerance = 1e-4;
const kHalfTolerance = 1e-2;
/** ONNX Runtime's logistic function gives multiples of 2^-24 near zero, and is wrong by some of them. */
const kAbsolute = 4 * 2 ** -24;

let engine: Engine;
beforeAll(async () => {
  engine = await load({ arithmetic: "strict" });
});
afterAll(() => engine.close());

/** Inputs by name, and outputs by position, of every run that somebody vouches for. */
async function references(
  model: ReturnType<typeof realModels>[number],
  info: { inputs: Inputs },
): Promise<Reference[]> {
  if (model.runs.length > 0) {
    return model.runs.map(({ name, inputs, outputs }) => ({
      name,
      inputs: Object.fromEntries(inputs.map((feed, index) => [info.inputs[index]!.name, feed])),
      outputs: outputs.map(({ type, data }) => numbers(type, data)),
    }));
  }
  const inputs = randomInputs(info.inputs, 7);
  const outputs = await runOutputs(model.bytes, inputs, model.external);
  return [{ name: "ONNX Runtime", inputs, outputs: outputs.map((values) => numbers("", values)) }];
}

type Inputs = Parameters<typeof randomInputs>[0];
interface Reference {
  name: string;
  inputs: Record<string, Feed>;
  outputs: Float64Array[];
}

const models = realModels();
if (models.length === 0) test("without the data folder there is nothing to run", () => expect(models).toEqual([]));

describe.each(models)("$name", (model) => {
  test("runs as it was recorded, or is refused with the reason that is known", async () => {
    const opened = await engine
      .open(model.bytes, { name: model.file, external: model.external })
      .catch((error: unknown) => error as Error);
    if (opened instanceof Error) return expect(opened.message).toMatch(kRefused[model.name] ?? /^opens$/);
    const refusal = await opened.cannotRun();
    const known = kRefused[model.name];
    if (refusal !== null || known) return expect(refusal ?? "runs").toMatch(known ?? /^is run$/);

    const runs = await references(model, opened.info).catch((error: unknown) => error as Error);
    if (runs instanceof Error) return expect(kNoReference, runs.message).toContain(model.name);
    const half = [...opened.info.inputs, ...opened.info.outputs].some(({ dtype }) => dtype === "float16");
    const bound = kSteps[model.name] ?? (half ? kHalfTolerance : kTolerance);
    for (const { name, inputs, outputs } of runs) {
      const values = Object.fromEntries(Object.entries(inputs).map(([key, feed]) => [key, toValue(feed)]));
      const found = await opened.run(values);
      opened.info.outputs.forEach((output, index) => {
        const value = found[output.name]!;
        const error = difference(numbers(value.dtype, value.data), outputs[index]!, kAbsolute);
        expect(error, `${name}: output ${output.name}`).toBeLessThanOrEqual(bound);
      });
    }
    opened.dispose();
  });
});

test.skipIf(!dataFolder)("a network made for MNIST is right about MNIST, as often as ONNX Runtime", async () => {
  const names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"];
  const files = names.map((name) => ({
    name: `${name}-ubyte.gz`,
    bytes: readFileSync(join(dataFolder!, "mnist", `${name}-ubyte.gz`)),
  }));
  using data = await engine.data(files);
  expect(data.info).toMatchObject({ samples: 70_000, classes: 10, shape: [28, 28] });
  expect(data.info.splits.test).toBe(10_000);
  const file = models.find(({ name }) => name === "mnist-8")!;
  using model = await engine.open(file.bytes);
  const result = await model.evaluate(data, { limit: 300 });
  expect(result.accuracy).toBeGreaterThan(0.97);

  // The test files' samples come last, in their order; the split has its own.
  const { values, labels } = await data.samples(result.indices);
  expect(Math.min(...result.indices)).toBeGreaterThanOrEqual(60_000);
  const pixels = gunzipSync(files[2]!.bytes).subarray(16);
  const first = pixels.subarray((result.indices[0]! - 60_000) * 784).subarray(0, 784);
  expect(values.subarray(0, 784)).toEqual(new Uint8Array(first));
  const { scale, mean, std } = result.preparation;
  const input = Float32Array.from(values, (x) => (x * scale - mean[0]!) / std[0]!);
  let right = 0;
  for (let i = 0; i < 300; i++) {
    const x: Feed = { type: "float32", dims: [1, 1, 28, 28], data: input.slice(784 * i, 784 * (i + 1)) };
    const [logits] = await runOutputs(file.bytes, { [model.info.inputs[0]!.name]: x });
    const scores = Array.from(logits!, Number);
    const top = scores.indexOf(Math.max(...scores));
    expect(result.predictions[i]).toBe(top);
    right += top === labels[i] ? 1 : 0;
  }
  expect(result.accuracy).toBeCloseTo(right / 300, 12);
});
