// The sentences say what the report says.
import { beforeEach, expect, test } from "vitest";
import type {
  ActivationError,
  Comparison,
  Evaluation,
  Report,
  WeightBytes,
  WeightInfo,
  WeightReport,
} from "../../wasm/src/types";
import { causesOfBehaviour, moreWrong, uncertainty, wrongMore } from "../../web/src/behaviour/causes";
import { causesOfBytes, causesOfFile, causesOfLayer, restOf } from "../../web/src/causes";
import { language } from "../../web/src/language";

beforeEach(() => void (language.value = "en"));

const statistics = { min: -1, max: 1, mean: 0, std: 0.3, sparsity: 0, nan: 0, infinite: 0 };
const info = {
  name: "w",
  kind: "dense",
  shape: [4, 1000],
  elements: 4000,
  channel_axis: 0,
  channels: 4,
  bytes: 16000,
  statistics,
} as WeightInfo;
const exact: WeightReport = {
  name: "w",
  elements: 4000,
  bits: 32,
  symmetric: true,
  granularity: null,
  group_size: null,
  scales: 0,
  clusters: null,
  before: statistics,
  after: statistics,
  mse: 0,
  sqnr_db: null,
  max_abs_error: 0,
  cosine: 1,
  bytes: { dense: 16000, packed: 16000, file: 16000 },
  stored: "float32",
  note: null,
};
const int8: WeightReport = {
  ...exact,
  bits: 8,
  granularity: "tensor",
  scales: 1,
  sqnr_db: 40,
  mse: 1e-5,
  bytes: { dense: 16000, packed: 4004, file: 4004 },
  stored: "int8",
};
const texts = (
  report: WeightReport,
  { on = true, widths = null as Float32Array | null, weight = info } = {},
): string[] => causesOfLayer(weight, report, on, "onnx", widths).map(({ text }) => text);

test("no error is called no loss, and an unticked layer is called that", () => {
  expect(texts(exact)).toEqual(["Nothing is lost here: every weight is what it was."]);
  expect(texts(exact, { on: false })).toEqual(["Left as it is: you unticked this layer."]);
});

test("40 dB is an error of 1 % of the weights' size, 20 dB of 10 %", () => {
  expect(texts(int8)).toEqual(["The error is 1 % of the weights' own size (root mean square)."]);
  expect(texts({ ...int8, sqnr_db: 20 })[0]).toContain("10 %");
});

test("zeros are said to save nothing", () => {
  expect(texts({ ...int8, after: { ...statistics, sparsity: 0.7 } })).toContain(
    "70 % zeros save 0 bytes in .onnx: it stores zeros like any other number. A .nib file does not.",
  );
});

test("a wide channel is blamed on one scale for all, and excused by scales of its own", () => {
  const widths = new Float32Array([1, 1, 9, 1, 1]);
  expect(texts(int8, { widths })).toContain(
    "Channel 2 is 9 times wider than the median channel; one scale for the whole tensor wastes levels on the others.",
  );
  expect(texts({ ...int8, granularity: "channel" }, { widths }).join()).toContain("its own scale");
  expect(texts(int8, { widths: new Float32Array([1, 2, 1, 2, 1]) }).join()).not.toContain("wider");
});

test("codes that the file cannot hold are named with what they would take", () => {
  const three = { ...int8, bits: 3, stored: "int8", bytes: { dense: 16000, packed: 1504, file: 4004 } };
  expect(texts(three).join()).toContain("3-bit codes are stored as int8");
  expect(texts(three).join()).toContain("1.50 KB");
  const float = { ...three, stored: "float32", note: "opset 9 has no per-channel scales" };
  expect(texts(float)).toContain("Stored as float32: opset 9 has no per-channel scales.");
});

test("what coding makes of a weight is said by its own numbers", () => {
  const of = {
    name: "w",
    dense: 16000,
    codes: 4000,
    scales: 4,
    entropy: 450,
    huffman: 700,
    huffman_index: 300,
    rans: 455,
    cabac: 405,
    parts: { significance: 300, sign: 50, magnitude: 45, remainder: 10 },
    nib: 410,
    coder: "cabac" as const,
  };
  const said = (changed: Partial<WeightBytes>): string[] =>
    causesOfBytes({ ...of, ...changed }, 4000).map(({ text }) => text);
  expect(said({})).toEqual([
    "A level holds 0.9 bits of news: below one bit, a code word for each level wastes part of its bit.",
    "The arithmetic coder is 10 % below the entropy: neighbours tell something about each level.",
    "Most of its bits in a .nib file say “zero or not”: 74 % of 405 B.",
  ]);
  expect(said({ entropy: 3000, cabac: 2990, parts: null })).toEqual([]);
  expect(said({ entropy: null })).toEqual([]);
});

test("a codebook that the file has no type for is said to be a matter of the format", () => {
  const shared = { ...exact, bits: 4, clusters: 16, sqnr_db: 30 };
  expect(texts(shared)).toContain(
    "Stored as float32: .onnx has no codebooks. In a .nib file each weight is a code of 4 bits or fewer.",
  );
  expect(texts({ ...shared, clusters: null })).toHaveLength(1);
});

test("weights that are no numbers are counted", () => {
  const weight = { ...info, statistics: { ...statistics, nan: 2, infinite: 1 } };
  expect(texts(int8, { weight })[0]).toBe("3 weights are not finite numbers (NaN or infinity).");
});

const report = (before: number, after: number, weights: WeightReport[]): Report =>
  ({
    file: { format: "onnx", before, after },
    weights,
    total: { sqnr_db: weights[0]!.sqnr_db, bytes: { packed: 4004 } },
  }) as unknown as Report;

test("a file that grew is advised against, one that cannot shrink is explained", () => {
  expect(causesOfFile(report(5000, 6000, [int8]))[0]!.text).toContain("best left as it is");
  expect(causesOfFile(report(20000, 20000, [{ ...exact, sqnr_db: 9 }]))[0]!.text).toContain("nothing is quantized");
  expect(causesOfFile(report(18000, 8008, [int8]))[0]!.text).toContain("4.00 KB of the file are not weights");
  expect(causesOfFile(report(16100, 4104, [int8]))).toEqual([]);
});

test("a file that holds rounded weights as floats is not blamed on the graph", () => {
  const float = { ...int8, stored: "float32", note: "opset 9 has none" };
  expect(causesOfFile(report(16100, 16110, [float])).map(({ text }) => text)).toEqual([
    "The download is no smaller: this .onnx file holds the rounded weights as floats. Packed they would take 4.00 KB. (opset 9 has none)",
  ]);
});

test("what is not weights is the rest of the file", () => {
  expect(restOf(report(16100, 4104, [int8]))).toBe(100);
});

// --- What the model does ---------------------------------------------------------------------------------------------

const activation = (weight: string, sqnr_db: number | null): ActivationError => ({
  name: `${weight}.out`,
  node: weight,
  op: "Gemm",
  weights: weight ? [weight] : [],
  shape: [10],
  mse: 0,
  sqnr_db,
  max_abs_error: 0,
  cosine: 1,
});
const comparison = (before: number, after: number, flipped: number, activations: ActivationError[], samples = 1000) =>
  ({
    before: { accuracy: before, samples } as Evaluation,
    after: { accuracy: after, samples } as Evaluation,
    activations,
    agreement: 1 - flipped / samples,
    flipped: new Uint32Array(flipped),
  }) as Comparison;
const ran = (weights: [string, number | null][], kind = "quantize"): Report =>
  ({
    weights: weights.map(([name, sqnr_db]) => ({ name, sqnr_db })),
    recipe: { steps: [{ kind }] },
  }) as unknown as Report;
const said = (...args: Parameters<typeof causesOfBehaviour>): string[] =>
  causesOfBehaviour(...args).map(({ text }) => text);

test("a fall of accuracy is counted in points and samples, and the layer that suffers most is named", () => {
  const causes = said(
    comparison(0.98, 0.86, 150, [activation("fc1", 14), activation("fc2", 11)]),
    ran([
      ["fc1", 16],
      ["fc2", 30],
    ]),
  );
  expect(causes[0]).toBe(
    "Accuracy fell 12 points (120 more samples wrong); of all layers, what comes out of fc2 suffers most: 11.0 dB.",
  );
  expect(causes[1]).toBe("The first layer whose output falls below 20 dB is fc1 (14.0 dB); its weights have 16.0 dB.");
  expect(causes[2]).toBe(
    "fc2 has good weights (30.0 dB) and bad output (11.0 dB): its error comes from the layers before it.",
  );
});

test("where nothing flips that is said, and how far the output is from trouble", () => {
  expect(said(comparison(0.995, 0.995, 0, [activation("fc1", 41)]), ran([["fc1", 44]]))).toEqual([
    "Nothing flipped: all 1,000 samples keep the class they had.",
    "Every activation stays above 20 dB; the last one has 41.0 dB.",
  ]);
});

test("a rise is called chance, or training where the recipe trains", () => {
  expect(said(comparison(0.97, 0.98, 30, []), ran([]))[0]).toContain("flip the right way");
  expect(said(comparison(0.97, 0.98, 30, []), ran([], "train"))[0]).toContain("the recipe trains");
  expect(said(comparison(0.97, 0.97, 30, []), ran([]))[0]).toContain("as many for the better");
});

test("few samples are said to know little: 1.96 standard deviations of a share", () => {
  expect(uncertainty(0.9, 100)).toBeCloseTo(0.0588, 4);
  expect(said(comparison(0.9, 0.9, 0, [], 100), ran([]))).toContain(
    "100 samples tell accuracy to about ± 5.9 points; a smaller change may be chance.",
  );
});

test("wrong samples are counted in whole ones", () => {
  expect([0, 1, 5, -1, -5].map(wrongMore)).toEqual([
    "as many wrong as before",
    "1 more sample wrong",
    "5 more samples wrong",
    "1 fewer sample wrong",
    "5 fewer samples wrong",
  ]);
  expect(moreWrong(comparison(0.9333333, 0.9, 0, [], 30))).toBe(1);
});

test("the same is said in Chinese", () => {
  language.value = "zh";
  const causes = said(comparison(0.98, 0.86, 150, [activation("fc1", 14)]), ran([["fc1", 16]]));
  expect(causes[0]).toBe("准确率下降 12 个百分点（多错 120 个样本）；各层中 fc1 的输出受损最重：14.0 dB。");
});
