// Between what callers hand over and what crosses to the engine: bytes, JSON texts, tensors, results.
import { NibbleError } from "./api";
import type { Bytes, DataCallOptions } from "./api";
import type { Comparison, ComparisonReport, DataOptions, Evaluation, EvaluationReport, TensorValue } from "./types";
import type { WeightPicture } from "./types";
import type { ComparisonParts, EvaluationParts, PictureParts, PictureScalars, TensorHead } from "./wire";

/** A blob is a copy that cannot change, is sent to a thread without being copied again, and may live on disk. */
export function toBlob(bytes: Bytes, where: string): Blob {
  if (bytes instanceof Blob) return bytes;
  if (bytes instanceof ArrayBuffer) return new Blob([bytes]);
  if (bytes instanceof Uint8Array) {
    const shared = !(bytes.buffer instanceof ArrayBuffer);
    return new Blob([(shared ? bytes.slice() : bytes) as Uint8Array<ArrayBuffer>]);
  }
  throw new NibbleError("bad-file", where, `expected a Blob, an ArrayBuffer or a Uint8Array, got ${typeof bytes}`);
}

/** JSON of what the caller gave; text is taken as it is. */
export function toText(value: unknown, what = "recipe", code: "bad-recipe" | "bad-data" = "bad-recipe"): string {
  if (typeof value === "string") return value;
  try {
    return JSON.stringify(value) ?? "null";
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new NibbleError(code, "", `the ${what} cannot be written as JSON: ${reason}`);
  }
}

/** The part of a call's options that concerns the data, as JSON. */
export function dataOptions(options: (DataOptions & Partial<DataCallOptions>) | undefined): string {
  if (!options) return "";
  const { signal: _signal, onProgress: _onProgress, ...rest } = options;
  return toText(rest, "options", "bad-data");
}

// --- Tensors ---------------------------------------------------------------------------------------------------------

/** The array of each element type. Those without an array of their own travel as bits, smaller ones than a byte packed. */
const kArrays = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
} as const;

/** Checks the inputs of a run and takes their bytes out. */
export function fromTensors(inputs: Record<string, TensorValue>): { heads: TensorHead[]; bytes: Uint8Array[] } {
  const heads: TensorHead[] = [];
  const bytes: Uint8Array[] = [];
  for (const [name, { dtype, shape, data }] of Object.entries(inputs)) {
    const where = `inputs["${name}"]`;
    const bad = (detail: string) => new NibbleError("bad-data", where, detail);
    const array = Object.hasOwn(kArrays, dtype) ? kArrays[dtype as keyof typeof kArrays] : undefined;
    if (!array) throw bad(`unknown dtype "${String(dtype)}"; expected one of ${Object.keys(kArrays).join(", ")}`);
    if (!(data instanceof array)) {
      const found = (data as unknown)?.constructor?.name ?? typeof data;
      throw bad(`expected a ${array.name} for ${dtype}, got ${found}`);
    }
    if (!Array.isArray(shape) || !shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0)) {
      throw bad(`expected a shape of whole numbers, got ${JSON.stringify(shape)}`);
    }
    const elements = shape.reduce((product, extent) => product * extent, 1);
    if (elements !== data.length) {
      throw bad(`the shape [${shape.join(", ")}] has ${elements} elements, data has ${data.length}`);
    }
    heads.push({ name, dtype, shape });
    // A copy of just these bytes: a view would take its whole buffer across.
    bytes.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice());
  }
  return { heads, bytes };
}

export function toTensors(heads: TensorHead[], bytes: Uint8Array[]): Record<string, TensorValue> {
  const tensors = heads.map(({ name, dtype, shape }, index): [string, TensorValue] => {
    const array = kArrays[dtype as keyof typeof kArrays] ?? Uint8Array;
    const part = bytes[index] ?? new Uint8Array();
    const aligned = part.byteOffset % array.BYTES_PER_ELEMENT === 0 ? part : part.slice();
    const data = new array(aligned.buffer as ArrayBuffer, aligned.byteOffset, part.length / array.BYTES_PER_ELEMENT);
    return [name, { dtype, shape, data }];
  });
  return Object.fromEntries(tensors);
}

// --- Results ---------------------------------------------------------------------------------------------------------

export function picture(name: string, parts: PictureParts): WeightPicture {
  const { lo, hi, rows, columns, weight_rows, weight_columns, max } = JSON.parse(parts.scalars) as PictureScalars;
  return {
    name,
    before: { lo, hi, counts: parts.before },
    after: { lo, hi, counts: parts.after },
    levels: parts.levels,
    error_map: { rows, columns, weight_rows, weight_columns, max, cells: parts.cells },
    channels: { mse: parts.mse, sqnr_db: parts.sqnr_db, max_abs: parts.max_abs },
  };
}

export function evaluation({ report, ...arrays }: EvaluationParts): Evaluation {
  return { ...(JSON.parse(report) as EvaluationReport), ...arrays };
}

export function comparison(parts: ComparisonParts): Comparison {
  const { before, after, activations, agreement } = JSON.parse(parts.report) as ComparisonReport;
  const { indices } = parts;
  return {
    before: {
      ...before,
      indices,
      predictions: parts.predictions_before,
      confidence: parts.confidence_before,
      confusion: parts.confusion_before,
    },
    after: {
      ...after,
      indices,
      predictions: parts.predictions_after,
      confidence: parts.confidence_after,
      confusion: parts.confusion_after,
    },
    activations,
    agreement,
    flipped: parts.flipped,
  };
}
