// The engine's interface over plain TypeScript arithmetic, for working on the page without a built module and for
// testing the page's actions. It reads float32 weights of an ONNX file, prunes and quantizes them for real (min-max,
// nearest), and measures the error; its export is the opened file with the values changed, in float. It does not run
// models: what a model answers is worked out from the sample's label, the sample's own noise, the error of the weights
// and how long the model was trained, so that more error gives more mistakes and training gives fewer.
import {
  NibbleError,
  type Bytes,
  type CompressOptions,
  type Data,
  type DataCallOptions,
  type Engine,
  type Format,
  type LoadOptions,
  type Model,
  type NamedBytes,
  type OpenOptions,
  type Training,
} from "../../wasm/src/api";
import type {
  ActivationError,
  ByteReport,
  CallOptions,
  Comparison,
  DataInfo,
  DataOptions,
  DataSpec,
  Evaluation,
  ModelInfo,
  PictureOptions,
  Preparation,
  QuantizeStep,
  Recipe,
  Report,
  Statistics,
  TensorValue,
  TrainChoice,
  TrainProgress,
  WeightBytes,
  WeightInfo,
  WeightPicture,
  WeightReport,
} from "../../wasm/src/types";

export * from "../../wasm/src/api";
export * from "../../wasm/src/types";

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
    /** 1 for a trained network, 0 for a fresh one. */
    readonly skill = 1,
    /** How much of the weights' error has been trained away. */
    readonly healed = 0,
    /** The model that the errors are measured against. */
    readonly origin: FakeModel | null = null,
  ) {}

  async compress(recipe: Recipe, options?: CompressOptions): Promise<{ model: Model; report: Report }> {
    const started = performance.now();
    const levels = new Map<string, (channel: number) => Float32Array>();
    const reports: WeightReport[] = [];
    const after = this.weights.map((weight) => {
      const values = weight.values.slice();
      let quantize: QuantizeStep | null = null;
      for (const step of recipe.steps) {
        if (step.kind === "train" || step.kind === "encode") continue;
        if (step.kind === "cluster") throw new NibbleError("unsupported", "steps", "the fake engine has no k-means");
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
    const learns = recipe.steps.find((step) => step.kind === "train");
    if (learns && !options?.data) throw new NibbleError("bad-data", "data", 'a step "train" needs data');
    const healed = learns ? 1 - 0.5 ** (learns.epochs ?? 5) : 0;
    const model = new FakeModel(this.info, this.file, after, levels, this.skill, healed, this);
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

  async cannotRun(): Promise<string | null> {
    return this.info.format === "onnx" ? null : "a safetensors file has weights and no graph";
  }

  async prepare(data: Data, _options?: DataCallOptions): Promise<Preparation> {
    return preparationOf(data.info);
  }

  /** Error of the weights against the original, as a share of their size. */
  damage(weight: Weight): number {
    const was = this.origin?.weights.find(({ info }) => info.name === weight.info.name);
    if (!was) return 0;
    let [noise, power] = [0, 0];
    for (let i = 0; i < was.values.length; i++) {
      noise += (was.values[i] - weight.values[i]) ** 2;
      power += was.values[i] ** 2;
    }
    return Math.sqrt(noise / (power || 1)) * (1 - this.healed);
  }

  /** One number for each class. */
  scores(label: number, index: number, classes: number): Float32Array {
    const damage = this.weights.reduce((sum, weight) => sum + this.damage(weight), 0);
    const next = stream(index * 77 + 5);
    const broken = stream(index * 131 + 9);
    return Float32Array.from({ length: classes }, (_, c) => {
      const noise = next() + next() + next() - 1.5;
      const wrong = broken() + broken() + broken() - 1.5;
      return (c === label ? 7 * this.skill : 0) + 3 * noise + 7 * damage * wrong;
    });
  }

  async evaluate(data: Data, options: DataCallOptions = {}): Promise<Evaluation> {
    const { samples, classes } = data.info;
    if (classes === 0) throw new NibbleError("bad-data", "data", "the fake engine only knows labelled data");
    const from = Math.floor(
      samples * { calibration: 0, training: 0, validation: 0.8, test: 0.9, all: 0 }[options.split ?? "test"],
    );
    const to = Math.floor(
      samples * { calibration: 0.1, training: 0.8, validation: 0.9, test: 1, all: 1 }[options.split ?? "test"],
    );
    const indices = Uint32Array.from({ length: Math.min(to - from, options.limit ?? Infinity) }, (_, i) => from + i);
    const { labels } = await data.samples(indices);
    const predictions = new Int32Array(indices.length);
    const confidence = new Float32Array(indices.length);
    const confusion = new Uint32Array(classes * classes);
    let [loss, right] = [0, 0];
    indices.forEach((index, i) => {
      const all = softmax(this.scores(labels[i], index, classes));
      const best = all.indexOf(Math.max(...all));
      predictions[i] = best;
      confidence[i] = all[best];
      confusion[labels[i] * classes + best]++;
      loss -= Math.log(Math.max(1e-9, all[labels[i]])) / indices.length;
      if (best === labels[i]) right++;
    });
    return {
      samples: indices.length,
      classes,
      loss,
      accuracy: right / indices.length,
      seconds: 0.1,
      preparation: { ...preparationOf(data.info), ...options.preparation },
      indices,
      predictions,
      confidence,
      confusion,
    };
  }

  async compare(other: Model, data: Data, options: DataCallOptions = {}): Promise<Comparison> {
    options.onProgress?.({ phase: "compare", item: "", fraction: 0.5 });
    const after = other as unknown as FakeModel;
    const [one, two] = [await this.evaluate(data, options), await other.evaluate(data, options)];
    let noise = 0;
    const activations = this.weights.map(({ info }, i): ActivationError => {
      const damage = after.damage(after.weights[i]);
      noise = noise * 0.9 + damage ** 2;
      return {
        name: `${info.name.replace(".weight", "")}.out`,
        node: `${info.name.replace(".weight", "")}`,
        op: info.op,
        weights: [info.name],
        shape: info.kind === "conv" ? [info.channels, 24 >> i, 24 >> i] : [info.channels],
        mse: noise,
        sqnr_db: noise > 0 ? -10 * Math.log10(noise) : null,
        max_abs_error: Math.sqrt(noise) * 4,
        cosine: 1 / Math.sqrt(1 + noise),
      };
    });
    const flipped = one.indices.filter((_, i) => one.predictions[i] !== two.predictions[i]);
    return { before: one, after: two, activations, agreement: 1 - flipped.length / one.samples, flipped };
  }

  async activation(
    data: Data,
    index: number,
    value: string,
    _options?: DataCallOptions,
  ): Promise<{ shape: number[]; values: Float32Array }> {
    const { values: pixels } = await data.samples([index]);
    const at = this.weights.findIndex(({ info }) => `${info.name.replace(".weight", "")}.out` === value);
    const { info } = this.weights[at];
    const damage = this.damage(this.weights[at]);
    const size = info.kind === "conv" ? 24 >> at : 1;
    const next = stream(at);
    const noise = stream(at + 99);
    const values = new Float32Array(info.channels * size * size);
    for (let c = 0; c < info.channels; c++) {
      const [gain, dx, dy] = [next() * 2 - 0.6, Math.floor(next() * 5) - 2, Math.floor(next() * 5) - 2];
      for (let y = 0; y < size; y++)
        for (let x = 0; x < size; x++) {
          const [px, py] = [Math.floor((x * 28) / size), Math.floor((y * 28) / size)];
          const here = pixels[Math.min(783, py * 28 + px)];
          const there = pixels[Math.max(0, Math.min(783, (py + dy) * 28 + px + dx))];
          const v = (gain * here - there * 0.5) / 255 + (size === 1 ? gain : 0);
          values[(c * size + y) * size + x] = Math.max(0, v + damage * (noise() - 0.5));
        }
    }
    return { shape: size > 1 ? [1, info.channels, size, size] : [1, info.channels], values };
  }

  async run(inputs: Record<string, TensorValue>): Promise<Record<string, TensorValue>> {
    const [input] = Object.values(inputs);
    const image = Float32Array.from(input.data as Float32Array);
    const low = Math.min(...image);
    const span = Math.max(...image) - low || 1;
    const damage = this.weights.reduce((sum, weight) => sum + this.damage(weight), 0);
    const noise = stream(3);
    const data = Float32Array.from({ length: 10 }, (_, digit) => {
      const shape = segments(digit, 0, 0, 0);
      let [product, power, other] = [0, 0, 0];
      for (let i = 0; i < 784; i++) {
        const v = (image[i] - low) / span;
        product += v * shape[i];
        power += v * v;
        other += shape[i] * shape[i];
      }
      return (14 * product) / Math.sqrt(power * other || 1) + damage * 10 * (noise() - 0.5);
    });
    return { y: { dtype: "float32", shape: [1, 10], data } };
  }

  async train(data: Data, choice: TrainChoice = {}, options: DataCallOptions = {}): Promise<Training> {
    return new FakeTraining(this, data, choice, options);
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
      clusters: null,
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
    const other = (result as unknown as FakeModel).weights.find((weight) => weight.info.name === name)!.values;
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
        (result as unknown as FakeModel).levels
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

  /** Every coder reaches the entropy here, Huffman a fifth more. */
  async bytes({ exact = true }: CallOptions & { exact?: boolean } = {}): Promise<ByteReport> {
    const weights = this.weights.map(({ info, values }): WeightBytes => {
      const coded = this.levels.has(info.name);
      const counts = new Map<number, number>();
      for (const v of values) counts.set(v, (counts.get(v) ?? 0) + 1);
      let entropy = 0;
      for (const n of counts.values()) entropy -= (n * Math.log2(n / values.length)) / 8;
      return {
        name: info.name,
        dense: info.bytes,
        codes: coded ? Math.ceil((info.elements * Math.ceil(Math.log2(counts.size + 1))) / 8) : info.bytes,
        scales: coded ? info.channels * 4 : 0,
        entropy: coded ? entropy : null,
        huffman: coded ? entropy * 1.2 : null,
        huffman_index: coded ? 0 : null,
        rans: coded ? entropy : null,
        cabac: coded ? entropy : null,
        parts:
          coded && exact
            ? { significance: entropy * 0.2, sign: entropy * 0.2, magnitude: entropy * 0.5, remainder: entropy * 0.1 }
            : null,
        nib: coded ? entropy + info.channels * 4 : info.bytes,
        coder: "cabac",
      };
    });
    const [header, others] = [300, 100];
    const coded = weights.reduce((sum, { nib }) => sum + nib, 0);
    return {
      estimated: !exact,
      dense_file: this.file.length,
      file: Math.ceil(header + others + coded),
      header,
      others,
      weights,
    };
  }

  async packed(name: string): Promise<Uint8Array> {
    const { values } = this.weights.find(({ info }) => info.name === name)!;
    return new Uint8Array(values.slice().buffer);
  }

  async export(_format?: Format, _options?: CallOptions): Promise<Uint8Array> {
    const file = this.file.slice();
    for (const { values, at } of this.weights) file.set(new Uint8Array(values.buffer), at);
    return file;
  }

  dispose(): void {}
  [Symbol.dispose](): void {}
}

const preparationOf = ({ shape, layout, dtype }: DataInfo): Preparation => ({
  shape: layout === "hw" ? [1, ...shape] : shape,
  layout: layout === "hw" ? "chw" : layout,
  scale: dtype === "uint8" ? 1 / 255 : 1,
  mean: [0.1307],
  std: [0.3081],
  reason: "of four ranges this gave the best accuracy on the calibration split",
});

/** Numbers from 0 to 1 from a seed. */
function stream(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) >>> 0) / 2 ** 32;
  };
}

function softmax(scores: Float32Array): Float32Array {
  const most = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// Strokes of the digits on a clock's display, from corner to corner.
const SEGMENTS = ["abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgecd", "abc", "abcdefg", "abcdfg"];
const CORNERS: Record<string, [number, number, number, number]> = {
  a: [9, 6, 18, 6],
  b: [18, 6, 18, 14],
  c: [18, 14, 18, 22],
  d: [9, 22, 18, 22],
  e: [9, 14, 9, 22],
  f: [9, 6, 9, 14],
  g: [9, 14, 18, 14],
};

/** A digit of 28 by 28 pixels, 0 to 255, moved and slanted. */
function segments(digit: number, dx: number, dy: number, slant: number): Uint8Array {
  const image = new Uint8Array(784);
  for (const name of SEGMENTS[digit]) {
    const [x1, y1, x2, y2] = CORNERS[name];
    for (let t = 0; t <= 1; t += 0.05) {
      const y = y1 + (y2 - y1) * t + dy;
      const x = x1 + (x2 - x1) * t + dx - slant * (y - 14);
      for (let py = Math.floor(y) - 1; py <= y + 2; py++)
        for (let px = Math.floor(x) - 1; px <= x + 2; px++) {
          const ink = 255 * Math.max(0, 1.6 - Math.hypot(px - x, py - y));
          if (px >= 0 && px < 28 && py >= 0 && py < 28)
            image[py * 28 + px] = Math.min(255, Math.max(image[py * 28 + px], ink));
        }
    }
  }
  return image;
}

class FakeData implements Data {
  readonly info: DataInfo;
  constructor(
    readonly seed: number,
    samples: number,
    name: string,
  ) {
    const tenth = Math.floor(samples / 10);
    this.info = {
      name,
      samples,
      shape: [28, 28],
      layout: "hw",
      dtype: "uint8",
      labelled: true,
      classes: 10,
      class_names: Array.from({ length: 10 }, (_, i) => String(i)),
      targets: 0,
      splits: { calibration: tenth, training: samples - 2 * tenth, validation: tenth, test: tenth },
    };
  }
  async samples(indices: ArrayLike<number>): Promise<{ values: Uint8Array; labels: Int32Array }> {
    const values = new Uint8Array(indices.length * 784);
    const labels = new Int32Array(indices.length);
    for (let i = 0; i < indices.length; i++) {
      const next = stream(this.seed * 1_000_003 + indices[i] * 7919);
      labels[i] = Math.floor(next() * 10);
      values.set(segments(labels[i], next() * 5 - 2.5, next() * 4 - 2, next() * 0.5 - 0.1), i * 784);
    }
    return { values, labels };
  }
  dispose(): void {}
  [Symbol.dispose](): void {}
}

/** Batches that take a few milliseconds each; the loss falls by a power law towards what the noise of the samples allows. */
class FakeTraining implements Training {
  progress: TrainProgress | null = null;
  #done = 0;
  #best = Infinity;
  #bestSteps = 0;
  constructor(
    readonly start: FakeModel,
    readonly data: Data,
    readonly choice: TrainChoice,
    readonly options: DataOptions,
  ) {}

  /** Of what there is to learn, how much is learned after so many steps. */
  #learned(steps: number): number {
    return 1 - 1 / (1 + steps * (this.choice.learning_rate ?? 0.001) * 60);
  }

  async run(options?: {
    signal?: AbortSignal;
    onProgress?: (progress: TrainProgress) => void;
  }): Promise<TrainProgress> {
    const { epochs = 5, batch: size = 64 } = this.choice;
    const batches = Math.max(1, Math.ceil(this.data.info.splits.training / size));
    const steps = epochs * batches;
    const noise = stream(this.#done + 1);
    while (this.#done < steps && !options?.signal?.aborted) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      const batch = this.#done % batches;
      this.#done++;
      const learned = this.#learned(this.#done);
      const loss = (2.3 * (1 - this.start.skill) + 0.4) * (1 - learned) + 0.08 + 0.06 * (noise() - 0.5);
      const ends = batch + 1 === batches;
      const validation_loss = ends ? loss + 0.03 + 0.02 * noise() : null;
      const best = validation_loss !== null && validation_loss < this.#best;
      if (best) [this.#best, this.#bestSteps] = [validation_loss, this.#done];
      this.progress = {
        epoch: Math.floor((this.#done - 1) / batches),
        epochs,
        batch,
        batches,
        step: this.#done,
        steps,
        loss,
        accuracy: Math.min(1, Math.exp(-loss * 0.6)),
        learning_rate: this.choice.learning_rate ?? 0.001,
        seconds: this.#done * 0.004,
        validation_loss,
        validation_accuracy: validation_loss === null ? null : Math.exp(-validation_loss * 0.6),
        best,
        done: this.#done === steps,
      };
      options?.onProgress?.(this.progress);
    }
    return this.progress!;
  }

  async model(which: "current" | "best" = "current"): Promise<Model> {
    const { info, file, weights, levels, skill, healed, origin } = this.start;
    const learned = this.#learned(which === "best" ? this.#bestSteps : this.#done);
    const made = new FakeModel(info, file, weights, levels, skill + (1 - skill) * learned, healed, origin);
    return Object.assign(made, { healed: healed + (1 - healed) * learned });
  }

  async save(): Promise<Uint8Array> {
    return new Uint8Array([this.#done]);
  }
  async restore(_saved: Bytes): Promise<void> {}
  dispose(): void {}
  [Symbol.dispose](): void {}
}

function infoOf(name: string, bytes: Uint8Array, weights: Weight[]): ModelInfo {
  const elements = weights.reduce((sum, { info }) => sum + info.elements, 0);
  return {
    name,
    format: "onnx",
    file_bytes: bytes.length,
    opset: 13,
    ir_version: 7,
    producer: "",
    nodes: weights.length * 2,
    operators: [],
    inputs: [{ name: "x", dtype: "float32", shape: ["n", 1, 28, 28] }],
    outputs: [{ name: "y", dtype: "float32", shape: ["n", 10] }],
    parameters: elements,
    weight_parameters: elements,
    weights: weights.map((weight) => weight.info),
    history: null,
    notes: [],
  };
}

class FakeEngine implements Engine {
  async open(file: Bytes, { name = "model.onnx" }: OpenOptions = {}): Promise<Model> {
    const bytes = new Uint8Array(await new Blob([file as BlobPart]).arrayBuffer());
    const weights = read(bytes);
    return new FakeModel(infoOf(name, bytes, weights), bytes, weights, new Map());
  }

  async data(source: DataSpec | NamedBytes[], options?: CallOptions): Promise<Data> {
    options?.signal?.throwIfAborted();
    if (!Array.isArray(source)) return new FakeData(source.seed ?? 0, source.n ?? 2000, source.kind);
    const wrong = source.find(({ name }) => name.includes("broken"));
    if (wrong) throw new NibbleError("bad-data", wrong.name, "expected images or numbers, found something else");
    return new FakeData(source.length, 500, source[0].name);
  }

  async create(architecture: string, options: { seed?: number } = {}): Promise<Model> {
    const next = stream(options.seed ?? 0);
    const weights = [
      ["conv1.weight", [8, 1, 5, 5]],
      ["fc1.weight", [10, 400]],
    ].map(([name, shape]): Weight => {
      const size = (shape as number[]).reduce((a, b) => a * b, 1);
      const values = Float32Array.from({ length: size }, () => next() - 0.5);
      const conv = (shape as number[]).length === 4;
      const info: WeightInfo = {
        name: name as string,
        kind: conv ? "conv" : "dense",
        node: "",
        op: conv ? "Conv" : "Gemm",
        shape: shape as number[],
        dtype: "float32",
        elements: size,
        channel_axis: 0,
        channels: (shape as number[])[0],
        bytes: values.byteLength,
        statistics: statistics(values),
      };
      return { info, values, at: 0 };
    });
    return new FakeModel(
      infoOf(architecture, new Uint8Array(40_000), weights),
      new Uint8Array(40_000),
      weights,
      new Map(),
      0,
    );
  }

  async architectures(): Promise<{ name: string; summary: string }[]> {
    return [
      { name: "lenet-5", summary: "2 conv, 3 dense, 28 x 28 x 1" },
      { name: "resnet-8", summary: "7 conv with shortcuts, 28 x 28 x 1" },
    ];
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
