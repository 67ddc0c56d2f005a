// Trains the page's sample models on MNIST in plain JavaScript and writes them as ONNX.
//   node .tools/make_sample.mjs DIRECTORY
// DIRECTORY holds MNIST's four IDX files (train-images-idx3-ubyte.gz and so on). Everything random is seeded, so the
// same Node version writes the same files. What a model was trained on and how well it does stands in its metadata.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

const directory = process.argv[2];
if (!directory) {
  console.error("usage: node .tools/make_sample.mjs DIRECTORY (with MNIST's train-images-idx3-ubyte.gz and so on)");
  process.exit(2);
}
const idx = (name, header) =>
  new Uint8Array(gunzipSync(readFileSync(join(directory, `${name}-ubyte.gz`)))).subarray(header);
const train = { images: idx("train-images-idx3", 16), labels: idx("train-labels-idx1", 8) };
const test = { images: idx("t10k-images-idx3", 16), labels: idx("t10k-labels-idx1", 8) };

const PIXELS = 28 * 28;
const TRAINED = 30_000; // images of the training set that are used: enough for the purpose, and quick
const EPOCHS = 2;
const BATCH = 16;

// mulberry32: 32 bits of state, good enough for initial weights and shuffling.
function randomStream(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Uniform in +-1/sqrt(fan in), the usual start for layers with ReLU in between.
function parameter(name, shape, fanIn, random) {
  const value = Float32Array.from(
    { length: shape.reduce((a, b) => a * b, 1) },
    () => (2 * random() - 1) / Math.sqrt(fanIn),
  );
  const zeros = () => new Float32Array(value.length);
  return { name, shape, value, gradient: zeros(), m: zeros(), v: zeros() };
}

// Each layer: forward(x) keeps what backward(dy) needs; backward adds to gradients and returns dx.

// x is [I], y is [O], weight is [O, I].
function dense(name, inputs, outputs, random) {
  const weight = parameter(`${name}.weight`, [outputs, inputs], inputs, random);
  const bias = parameter(`${name}.bias`, [outputs], inputs, random);
  const w = weight.value,
    dw = weight.gradient,
    y = new Float32Array(outputs),
    dx = new Float32Array(inputs);
  let x;
  return {
    op: "Gemm",
    name,
    parameters: [weight, bias],
    forward(input) {
      x = input;
      for (let o = 0; o < outputs; o++) {
        let sum = bias.value[o];
        for (let i = 0, k = o * inputs; i < inputs; i++, k++) sum += w[k] * x[i];
        y[o] = sum;
      }
      return y;
    },
    backward(dy) {
      dx.fill(0);
      for (let o = 0; o < outputs; o++) {
        const d = dy[o];
        if (d === 0) continue;
        bias.gradient[o] += d;
        for (let i = 0, k = o * inputs; i < inputs; i++, k++) {
          dw[k] += d * x[i];
          dx[i] += d * w[k];
        }
      }
      return dx;
    },
  };
}

// x is [C, S, S], y is [O, T, T] with T = S - K + 1, weight is [O, C, K, K]. As a matrix product over unfolded columns.
function conv(name, C, O, S, K, random) {
  const weight = parameter(`${name}.weight`, [O, C, K, K], C * K * K, random);
  const bias = parameter(`${name}.bias`, [O], C * K * K, random);
  const T = S - K + 1,
    area = T * T,
    taps = C * K * K;
  const w = weight.value,
    columns = new Float32Array(taps * area),
    dcolumns = new Float32Array(taps * area);
  const y = new Float32Array(O * area),
    dx = new Float32Array(C * S * S);
  const eachTap = (visit) => {
    for (let c = 0, t = 0; c < C; c++)
      for (let i = 0; i < K; i++) for (let j = 0; j < K; j++, t++) visit(t, (c * S + i) * S + j);
  };
  return {
    op: "Conv",
    name,
    kernel: K,
    parameters: [weight, bias],
    forward(x) {
      eachTap((t, from) => {
        for (let r = 0; r < T; r++) columns.set(x.subarray(from + r * S, from + r * S + T), t * area + r * T);
      });
      for (let o = 0; o < O; o++) {
        const row = y.subarray(o * area, (o + 1) * area).fill(bias.value[o]);
        for (let t = 0; t < taps; t++) {
          const weightHere = w[o * taps + t],
            base = t * area;
          for (let p = 0; p < area; p++) row[p] += weightHere * columns[base + p];
        }
      }
      return y;
    },
    backward(dy) {
      dcolumns.fill(0);
      for (let o = 0; o < O; o++) {
        const row = dy.subarray(o * area, (o + 1) * area);
        let sum = 0;
        for (let p = 0; p < area; p++) sum += row[p];
        bias.gradient[o] += sum;
        for (let t = 0; t < taps; t++) {
          const weightHere = w[o * taps + t],
            base = t * area;
          let dot = 0;
          for (let p = 0; p < area; p++) {
            dot += row[p] * columns[base + p];
            dcolumns[base + p] += weightHere * row[p];
          }
          weight.gradient[o * taps + t] += dot;
        }
      }
      dx.fill(0);
      eachTap((t, to) => {
        for (let r = 0; r < T; r++) for (let q = 0; q < T; q++) dx[to + r * S + q] += dcolumns[t * area + r * T + q];
      });
      return dx;
    },
  };
}

function relu(size) {
  const y = new Float32Array(size),
    dx = new Float32Array(size);
  return {
    op: "Relu",
    parameters: [],
    forward(x) {
      for (let i = 0; i < size; i++) y[i] = x[i] > 0 ? x[i] : 0;
      return y;
    },
    backward(dy) {
      for (let i = 0; i < size; i++) dx[i] = y[i] > 0 ? dy[i] : 0;
      return dx;
    },
  };
}

// x is [C, S, S], y is [C, S/2, S/2].
function maxPool(C, S) {
  const H = S / 2,
    y = new Float32Array(C * H * H),
    winner = new Int32Array(y.length),
    dx = new Float32Array(C * S * S);
  return {
    op: "MaxPool",
    parameters: [],
    forward(x) {
      for (let c = 0, k = 0; c < C; c++)
        for (let r = 0; r < H; r++)
          for (let q = 0; q < H; q++, k++) {
            const a = (c * S + 2 * r) * S + 2 * q;
            let best = a;
            for (const b of [a + 1, a + S, a + S + 1]) if (x[b] > x[best]) best = b;
            winner[k] = best;
            y[k] = x[best];
          }
      return y;
    },
    backward(dy) {
      dx.fill(0);
      for (let k = 0; k < y.length; k++) dx[winner[k]] += dy[k];
      return dx;
    },
  };
}

const flatten = () => ({ op: "Flatten", parameters: [], forward: (x) => x, backward: (dy) => dy });

function fit(layers, random) {
  const parameters = layers.flatMap((layer) => layer.parameters);
  const order = Uint32Array.from({ length: TRAINED }, (_, i) => i);
  const x = new Float32Array(PIXELS),
    dy = new Float32Array(10);
  const run = (set, index) => {
    for (let i = 0; i < PIXELS; i++) x[i] = set.images[index * PIXELS + i] / 255;
    return layers.reduce((value, layer) => layer.forward(value), x);
  };
  const updates = EPOCHS * Math.floor(TRAINED / BATCH);
  let update = 0;
  for (let epoch = 0; epoch < EPOCHS; epoch++) {
    for (let i = TRAINED - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    for (let n = 0; n + BATCH <= TRAINED; n += BATCH) {
      for (let b = 0; b < BATCH; b++) {
        const logits = run(train, order[n + b]),
          top = Math.max(...logits);
        let sum = 0;
        for (let k = 0; k < 10; k++) sum += dy[k] = Math.exp(logits[k] - top);
        for (let k = 0; k < 10; k++) dy[k] = (dy[k] / sum - (k === train.labels[order[n + b]] ? 1 : 0)) / BATCH;
        layers.reduceRight((gradient, layer) => layer.backward(gradient), dy);
      }
      // Adam (Kingma and Ba 2015, algorithm 1), the step falling linearly to zero.
      update++;
      const step = (2e-3 * (1 - update / updates) * Math.sqrt(1 - 0.999 ** update)) / (1 - 0.9 ** update);
      for (const p of parameters) {
        for (let i = 0; i < p.value.length; i++) {
          const g = p.gradient[i];
          p.m[i] = 0.9 * p.m[i] + 0.1 * g;
          p.v[i] = 0.999 * p.v[i] + 0.001 * g * g;
          p.value[i] -= (step * p.m[i]) / (Math.sqrt(p.v[i]) + 1e-8);
          p.gradient[i] = 0;
        }
      }
    }
  }
  let right = 0;
  for (let n = 0; n < test.labels.length; n++) {
    const logits = run(test, n);
    if (logits.indexOf(Math.max(...logits)) === test.labels[n]) right++;
  }
  return right / test.labels.length;
}

// --- ONNX: the few protobuf messages that these models need, field numbers from onnx.proto3 ---------------------------

const varint = (n) => {
  const out = [];
  for (; n > 127; n = Math.floor(n / 128)) out.push((n % 128) | 128);
  return [...out, n];
};
const bytesField = (field, body) =>
  Buffer.concat([Buffer.from([...varint(field * 8 + 2), ...varint(body.length)]), body]);
const text = (field, s) => bytesField(field, Buffer.from(s));
const number = (field, n) => Buffer.from([...varint(field * 8), ...varint(n)]);
const message = (field, ...parts) => bytesField(field, Buffer.concat(parts));
const ints = (name, values) => message(5, text(1, name), ...values.map((v) => number(8, v)), number(20, 7));
const int = (name, v) => message(5, text(1, name), number(3, v), number(20, 2));
const valueInfo = (field, name, shape) =>
  message(
    field,
    text(1, name),
    message(
      2,
      message(
        1,
        number(1, 1),
        message(2, ...shape.map((d) => (typeof d === "string" ? message(1, text(2, d)) : message(1, number(1, d))))),
      ),
    ),
  );

function onnx(name, layers, metadata, description) {
  const attributes = {
    Conv: (layer) => [ints("kernel_shape", [layer.kernel, layer.kernel])],
    MaxPool: () => [ints("kernel_shape", [2, 2]), ints("strides", [2, 2])],
    Gemm: () => [int("transB", 1)],
    Flatten: () => [int("axis", 1)],
    Relu: () => [],
  };
  let value = "input";
  const nodes = layers.map((layer, i) => {
    const output = i === layers.length - 1 ? "logits" : `${layer.op.toLowerCase()}_${i}`;
    const inputs = [value, ...layer.parameters.map((p) => p.name)];
    value = output;
    return message(
      1,
      ...inputs.map((s) => text(1, s)),
      text(2, output),
      text(3, layer.name ?? output),
      text(4, layer.op),
      ...attributes[layer.op](layer),
    );
  });
  const initializers = layers
    .flatMap((layer) => layer.parameters)
    .map((p) =>
      message(
        5,
        ...p.shape.map((d) => number(1, d)),
        number(2, 1),
        text(8, p.name),
        bytesField(9, Buffer.from(p.value.buffer)),
      ),
    );
  const graph = message(
    7,
    ...nodes,
    text(2, name),
    ...initializers,
    valueInfo(11, "input", ["N", 1, 28, 28]),
    valueInfo(12, "logits", ["N", 10]),
  );
  const meta = Object.entries(metadata).map(([key, v]) => message(14, text(1, key), text(2, v)));
  return Buffer.concat([
    number(1, 7),
    text(2, "nibble sample"),
    text(6, description),
    graph,
    message(8, text(1, ""), number(2, 13)),
    ...meta,
  ]);
}

const models = {
  simplenet: {
    description: "Two convolutions and two dense layers for handwritten digits.",
    layers: (random) => [
      conv("conv1", 1, 10, 28, 5, random),
      relu(10 * 24 * 24),
      maxPool(10, 24),
      conv("conv2", 10, 20, 12, 5, random),
      relu(20 * 8 * 8),
      maxPool(20, 8),
      flatten(),
      dense("fc1", 320, 50, random),
      relu(50),
      dense("fc2", 50, 10, random),
    ],
  },
  "lenet-300-100": {
    description: "Three dense layers for handwritten digits.",
    layers: (random) => [
      flatten(),
      dense("fc1", PIXELS, 300, random),
      relu(300),
      dense("fc2", 300, 100, random),
      relu(100),
      dense("fc3", 100, 10, random),
    ],
  },
};

const folder = new URL("../web/public/samples/", import.meta.url);
mkdirSync(folder, { recursive: true });
for (const [name, { layers: build, description }] of Object.entries(models)) {
  const random = randomStream(1),
    layers = build(random),
    started = Date.now();
  const accuracy = fit(layers, random);
  const metadata = {
    trained_on: `MNIST, first ${TRAINED} training images, ${EPOCHS} epochs, pixels 0 to 1, Adam, seed 1`,
    test_accuracy: `${accuracy} on MNIST's 10000 test images`,
  };
  const file = onnx(name, layers, metadata, description);
  writeFileSync(new URL(`${name}.onnx`, folder), file);
  console.log(
    `${name}.onnx: ${file.length} bytes, test accuracy ${accuracy}, ${((Date.now() - started) / 1000).toFixed(0)} s`,
  );
}
