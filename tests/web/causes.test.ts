// The sentences say what the report says.
import { beforeEach, expect, test } from "vitest";
import type { Report, WeightInfo, WeightReport } from "../../wasm/src/types";
import { causesOfFile, causesOfLayer, restOf } from "../../web/src/causes";
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
    "70 % zeros save 0 bytes in .onnx: it stores zeros like any other number.",
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
