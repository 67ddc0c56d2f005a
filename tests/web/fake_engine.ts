// The engine's interface over plain TypeScript arithmetic, for working on the page without a built module and for
// testing the page's actions. It reads float32 weights of an ONNX file, prunes and quantizes them for real (min-max,
// nearest), and measures the error; its export is the opened file with the values changed, in float.
import {
  NibbleError,
  type Engine,
  type Format,
  type LoadOptions,
  type Model,
  type OpenOptions,
  type Bytes,
} from "../../wasm/src/api";
import type {
  CallOptions,
  ModelInfo,
  PictureOptions,
  QuantizeStep,
  Recipe,
  Report,
  Statistics,
  WeightInfo,
  WeightPicture,
  WeightReport,
} from "../../wasm/src/types";

export * from "../../wasm/src/api";

interface Field {
  number: number;
  value: number;
  /** Of a length-delimited field. */
  start: number;
  end: number;
}

function fields(bytes: Uint8Array, start: number, end: number): Field[] {
  const found: Field[] = [];
  let at = start;
  const varint = (): number => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      if (at >= end) throw new NibbleError("bad-file", `byte ${at}`, "the file ends in the middle of a number");
      const byte = bytes[at++];
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < end) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const wire = tag % 8;
    if (wire === 0) found.push({ number, value: varint(), start: at, end: at });
    else if (wire === 2) {
      const length = varint();
      if (at + length > end)
        throw new NibbleError("bad-file", `byte ${at}`, `expected ${length} bytes, found ${end - at}`);
      found.push({ number, value: 0, start: at, end: at + length });
      at += length;
    } else if (wire === 5 || wire === 1) at += wire === 5 ? 4 : 8;
    else throw new NibbleError("bad-file", `byte ${at}`, "this is not an ONNX file");
  }
  return found;
}

interface Weight {
  info: WeightInfo;
  values: Float32Array;
  /** Where its raw bytes stand in the file. */
  at: number;
}

function statistics(values: Float32Array): Statistics {
  let [min, max, sum, squares, zeros] = [Infinity, -Infinity, 0, 0, 0];
  for (const v of values) {
    min = Math.min(min, v);
    max = Math.max(max, v);
    sum += v;
    squares += v * v;
    if (v === 0) zeros++;
  }
  const n = values.length || 1;
  return {
    min,
    max,
    mean: sum / n,
    std: Math.sqrt(Math.max(0, squares / n - (sum / n) ** 2)),
    sparsity: zeros / n,
    nan: 0,
    infinite: 0,
  };
}

function read(bytes: Uint8Array): Weight[] {
  const text = new TextDecoder();
  const graph = fields(bytes, 0, bytes.length).find(({ number }) => number === 7);
  if (!graph) throw new NibbleError("bad-file", "", "this is not an ONNX file: it has no graph");
  const weights: Weight[] = [];
  for (const tensor of fields(bytes, graph.start, graph.end).filter(({ number }) => number === 5)) {
    const parts = fields(bytes, tensor.start, tensor.end);
    const shape = parts.filter(({ number }) => number === 1).map(({ value }) => value);
    const name = parts.find(({ number }) => number === 8);
    const raw = parts.find(({ number }) => number === 9);
    if (shape.length < 2 || !raw || !name) continue;
    const values = new Float32Array(bytes.slice(raw.start, raw.end).buffer);
    const info: WeightInfo = {
      name: text.decode(bytes.subarray(name.start, name.end)),
      kind: shape.length === 4 ? "conv" : "dense",
      node: "",
      op: shape.length === 4 ? "Conv" : "Gemm",
      shape,
      dtype: "float32",
      elements: values.length,
      channel_axis: 0,
      channels: shape[0],
      bytes: values.byteLength,
      statistics: statistics(values),
    };
    weights.push({ info, values, at: raw.start });
  }
  return weights;
}

class FakeModel implements Model {
  constructor(
    readonly info: ModelInfo,
    readonly file: Uint8Array,
    readonly weights: Weight[],
    readonly levels: Map<string, (channel: number) => Float32Array>,
  ) {}

  async compress(recipe: Recipe, options?: CallOptions): Promise<{ model: Model; report: Report }> {
    const started = performance.now();
    const levels = new Map<string, (channel: number) => Float32Array>();
    const reports: WeightReport[] = [];
    const after = this.weights.map((weight) => {
      const values = weight.values.slice();
      let quantize: QuantizeStep | null = null;
      for (const step of recipe.steps) {
        if (step.layers?.exclude?.includes(weight.info.name)) continue;
        if (step.kind === "prune" && step.sparsity !== undefined) {
          const cut = Float32Array.from(values, Math.abs).sort()[
            Math.max(0, Math.round(step.sparsity * values.length) - 1)
          ];
          if (step.sparsity > 0) for (let i = 0; i < values.length; i++) if (Math.abs(values[i]) <= cut) values[i] = 0;
        } else if (step.kind === "quantize") quantize = step;
      }
      if (quantize) {
        const { bits, symmetric = true, granularity = "channel" } = quantize.scheme;
        const size = granularity === "channel" ? values.length / weight.info.channels : values.length;
        const grids: { scale: number; zero: number; low: number; high: number }[] = [];
        for (let from = 0; from < values.length; from += size) {
          const part = values.subarray(from, from + size);
          const { min, max } = statistics(part);
          const high = symmetric ? Math.max(1, 2 ** (bits - 1) - 1) : 2 ** bits - 1;
          const low = symmetric ? -high : 0;
          const scale = symmetric ? Math.max(-min, max) / high || 1 : (Math.max(max, 0) - Math.min(min, 0)) / high || 1;
          const zero = symmetric ? 0 : Math.round(-Math.min(min, 0) / scale);
          for (let i = 0; i < part.length; i++)
            part[i] = (Math.max(low, Math.min(high, Math.round(part[i] / scale) + zero)) - zero) * scale;
          grids.push({ scale, zero, low, high });
        }
        levels.set(weight.info.name, (channel) => {
          const { scale, zero, low, high } = grids[grids.length > 1 ? channel : 0];
          return high - low < 4096
            ? Float32Array.from({ length: high - low + 1 }, (_, i) => (low + i - zero) * scale)
            : new Float32Array();
        });
      }
      reports.push(this.#report(weight, values, quantize));
      return { ...weight, values, info: { ...weight.info, statistics: statistics(values) } };
    });
    options?.signal?.throwIfAborted();
    const model = new FakeModel(this.info, this.file, after, levels);
    const dense = reports.reduce((sum, { bytes }) => sum + bytes.dense, 0);
    const packed = reports.reduce((sum, { bytes }) => sum + bytes.packed, 0);
    const file = reports.reduce((sum, { bytes }) => sum + bytes.file, 0);
    const elements = reports.reduce((sum, weight) => sum + weight.elements, 0);
    const mse = reports.reduce((sum, weight) => sum + weight.mse * weight.elements, 0) / elements;
    const power = this.weights.reduce((sum, { values }) => sum + values.reduce((a, v) => a + v * v, 0), 0) / elements;
    return {
      model,
      report: {
        version: 1,
        recipe,
        seconds: (performance.now() - started) / 1000,
        total: {
          elements,
          bits: (packed * 8) / elements,
          sparsity: reports.reduce((sum, weight) => sum + weight.after.sparsity * weight.elements, 0) / elements,
          bytes: { dense, packed },
          mse,
          sqnr_db: mse > 0 ? 10 * Math.log10(power / mse) : null,
          max_abs_error: Math.max(...reports.map((weight) => weight.max_abs_error)),
          cosine: null,
        },
        file: {
          format: "onnx",
          before: this.file.length,
          after: this.file.length - dense + file,
          opset_before: 13,
          opset_after: 13,
        },
        weights: reports,
        steps: [],
        notes: [],
      },
    };
  }

  #report({ info, values: before }: Weight, after: Float32Array, quantize: QuantizeStep | null): WeightReport {
    let [squares, power, largest] = [0, 0, 0];
    for (let i = 0; i < before.length; i++) {
      const error = before[i] - after[i];
      squares += error * error;
      power += before[i] * before[i];
      largest = Math.max(largest, Math.abs(error));
    }
    const bits = quantize?.scheme.bits ?? 32;
    const granularity = quantize ? (quantize.scheme.granularity ?? "channel") : null;
    const scales = granularity === null ? 0 : granularity === "channel" ? info.channels : 1;
    const stored = bits > 16 ? 32 : bits > 8 ? 16 : bits > 4 ? 8 : 4;
    return {
      name: info.name,
      elements: info.elements,
      bits,
      symmetric: quantize?.scheme.symmetric ?? true,
      granularity,
      group_size: null,
      scales,
      before: info.statistics,
      after: statistics(after),
      mse: squares / before.length,
      sqnr_db: squares > 0 ? 10 * Math.log10(power / squares) : null,
      max_abs_error: largest,
      cosine: 1,
      bytes: {
        dense: info.bytes,
        packed: Math.ceil((info.elements * bits) / 8) + scales * 4,
        file: Math.ceil((info.elements * stored) / 8) + scales * 4,
      },
      stored: stored === 32 ? "float32" : `int${stored}`,
      note: null,
    };
  }

  async values(name: string): Promise<Float32Array> {
    return this.weights.find(({ info }) => info.name === name)!.values.slice();
  }

  async picture(
    name: string,
    result: Model,
    { bins = 128, channel = 0, rows: most = 128, columns: mostColumns = 256 }: PictureOptions = {},
  ): Promise<WeightPicture> {
    const { info, values } = this.weights.find((weight) => weight.info.name === name)!;
    const other = (result as FakeModel).weights.find((weight) => weight.info.name === name)!.values;
    const { min: lo, max: hi } = info.statistics;
    const histogram = (array: Float32Array): Uint32Array => {
      const counts = new Uint32Array(bins);
      for (const v of array) counts[Math.max(0, Math.min(bins - 1, Math.floor(((v - lo) / (hi - lo)) * bins)))]++;
      return counts;
    };
    const R = info.channels;
    const C = info.elements / R;
    const [rows, columns] = [Math.min(R, most), Math.min(C, mostColumns)];
    const cells = new Float32Array(rows * columns);
    const counts = new Float32Array(rows * columns);
    const [mse, max_abs, signal] = [new Float32Array(R), new Float32Array(R), new Float32Array(R)];
    for (let r = 0; r < R; r++) {
      for (let c = 0; c < C; c++) {
        const error = Math.abs(values[r * C + c] - other[r * C + c]);
        const cell = Math.floor((r * rows) / R) * columns + Math.floor((c * columns) / C);
        cells[cell] += error;
        counts[cell]++;
        mse[r] += (error * error) / C;
        signal[r] += values[r * C + c] ** 2 / C;
        max_abs[r] = Math.max(max_abs[r], error);
      }
    }
    for (let i = 0; i < cells.length; i++) cells[i] /= counts[i];
    return {
      name,
      before: { lo, hi, counts: histogram(values) },
      after: { lo, hi, counts: histogram(other) },
      levels:
        (result as FakeModel).levels
          .get(name)?.(channel)
          .filter((level) => level >= lo && level <= hi) ?? new Float32Array(),
      error_map: {
        rows,
        columns,
        weight_rows: R,
        weight_columns: C,
        max: cells.reduce((a, b) => Math.max(a, b), 0),
        cells,
      },
      channels: { mse, max_abs, sqnr_db: mse.map((error, r) => 10 * Math.log10(signal[r] / error)) },
    };
  }

  async export(_format?: Format, _options?: CallOptions): Promise<Uint8Array> {
    const file = this.file.slice();
    for (const { values, at } of this.weights) file.set(new Uint8Array(values.buffer), at);
    return file;
  }

  dispose(): void {}
  [Symbol.dispose](): void {}
}

class FakeEngine implements Engine {
  async open(file: Bytes, { name = "model.onnx" }: OpenOptions = {}): Promise<Model> {
    const bytes = new Uint8Array(await new Blob([file as BlobPart]).arrayBuffer());
    const weights = read(bytes);
    const elements = weights.reduce((sum, { info }) => sum + info.elements, 0);
    const info: ModelInfo = {
      name,
      format: "onnx",
      file_bytes: bytes.length,
      opset: 13,
      ir_version: 7,
      producer: "",
      nodes: weights.length * 2,
      operators: [],
      inputs: [],
      outputs: [],
      parameters: elements,
      weight_parameters: elements,
      weights: weights.map((weight) => weight.info),
      notes: [],
    };
    return new FakeModel(info, bytes, weights, new Map());
  }

  async check(recipe: Recipe | string): Promise<Recipe> {
    if (typeof recipe !== "string") return recipe;
    try {
      return JSON.parse(recipe) as Recipe;
    } catch (error) {
      throw new NibbleError("bad-recipe", "", String(error));
    }
  }

  close(): void {}
}

export const load = async (_options?: LoadOptions): Promise<Engine> => new FakeEngine();
