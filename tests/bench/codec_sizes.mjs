// What models weigh under each coder, measured through the package in Node: levels beside general compressors, Deep
// Compression's recipe beside its paper, and what can be saved before accuracy is lost. Gives numbers; printing is the
// caller's.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const quantize = (bits, granularity, more = {}) => ({ kind: "quantize", scheme: { bits, granularity }, ...more });
const prune = (sparsity) => ({ kind: "prune", sparsity });
const total = (list) => list.reduce((sum, value) => sum + value, 0);

// --- Beside general compressors -------------------------------------------------------------------------------------------

const kLevelRecipes = [
  { name: "int8 per channel", bits: 8, zeros: 0, steps: [quantize(8, "channel")] },
  { name: "int8 per tensor", bits: 8, zeros: 0, steps: [quantize(8, "tensor")] },
  { name: "int4, groups of 32", bits: 4, zeros: 0, steps: [quantize(4, "group")] },
  { name: "80 % pruned, int8 per channel", bits: 8, zeros: 0.8, steps: [prune(0.8), quantize(8, "channel")] },
  { name: "90 % pruned, int4, groups of 32", bits: 4, zeros: 0.9, steps: [prune(0.9), quantize(4, "group")] },
];
const kLeastElements = 1000;

/// Bytes that a program makes of its standard input; null where it is not installed.
function program(name, args, bytes) {
  const { error, status, stdout, stderr } = spawnSync(name, args, { input: bytes, maxBuffer: 1 << 30 });
  if (error?.code === "ENOENT") return null;
  if (error || status !== 0) throw new Error(`${name} ${args.join(" ")} failed: ${error?.message ?? stderr}`);
  return stdout.length;
}

/// What others make of packed codes, in bytes, each with the container that it always has.
const kOthers = {
  gzip: (bytes) => gzipSync(bytes, { level: 9 }).length,
  brotli: (bytes) =>
    brotliCompressSync(bytes, {
      params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
    }).length,
  zstd: (bytes) => program("zstd", ["-19", "-q", "-c", `--stream-size=${bytes.length}`], bytes),
  xz: (bytes) => program("xz", ["-9e", "-q", "-c"], bytes),
};

/// At most `most` weights, spread over the models: the largest of each, then the smallest of each, then those between.
function spread(models, most) {
  const ordered = models.map(({ weights }) => {
    const left = weights
      .filter(({ elements }) => elements >= kLeastElements)
      .sort((a, b) => b.elements - a.elements || (a.name < b.name ? -1 : 1));
    const order = [];
    while (left.length > 0) {
      const [next] = left.splice([0, left.length - 1, left.length >> 1][order.length % 3], 1);
      order.push(next);
    }
    return order.map(({ name }) => name);
  });
  const chosen = models.map(() => []);
  let count = 0;
  for (let turn = 0; count < most && ordered.some((names) => names.length > turn); turn++) {
    for (const [i, names] of ordered.entries()) {
      if (names.length <= turn || count === most) continue;
      chosen[i].push(names[turn]);
      count++;
    }
  }
  return chosen;
}

/// Sizes of the levels of weights with 1000 elements and more. `files` are [{name, file, external}], `most` how many weights
/// are taken of them. Returns {weights, available, recipes: [{name, bits, zeros, tensors: [{model, weight, elements, zeros,
/// packed, entropy, cabac, rans, huffman, gzip, brotli, zstd, xz}]}]}, bytes all of them; null where a program is missing.
export async function measure_sizes(engine, files, most, say = () => {}) {
  const models = [];
  for (const { name, file, external } of files) {
    try {
      const parts = (external ?? []).map((path) => [basename(path), readFileSync(path)]);
      const model = await engine.open(readFileSync(file), { name, external: Object.fromEntries(parts) });
      models.push({ name, model, weights: model.info.weights });
    } catch (error) {
      if (error.code !== "bad-file" && error.code !== "unsupported") throw error;
      say(`${name} is left out: ${error.message}`);
    }
  }
  const chosen = spread(models, most);
  const recipes = kLevelRecipes.map(({ name, bits, zeros }) => ({ name, bits, zeros, tensors: [] }));
  for (const [i, { name, model }] of models.entries()) {
    if (chosen[i].length === 0) continue;
    say(name);
    for (const [r, { steps }] of kLevelRecipes.entries()) {
      // Only these: what each coder makes of the others need not be found out.
      const only = steps.map((step) => ({ ...step, layers: { include: chosen[i] } }));
      const { model: result, report } = await model.compress({ version: 1, steps: only });
      const bytes = await result.bytes();
      for (const weight of chosen[i]) {
        const sizes = bytes.weights.find((entry) => entry.name === weight);
        if (sizes.cabac === null) continue; // not finite, say: it has no levels
        const packed = await result.packed(weight);
        const others = Object.fromEntries(Object.entries(kOthers).map(([other, size_of]) => [other, size_of(packed)]));
        const { elements, after } = report.weights.find((entry) => entry.name === weight);
        const { entropy, cabac, rans, huffman } = sizes;
        const ours = { entropy, cabac, rans, huffman };
        const what = { model: name, weight, elements, zeros: after.sparsity, packed: packed.length };
        recipes[r].tensors.push({ ...what, ...ours, ...others });
      }
      result.dispose();
    }
    model.dispose();
  }
  const available = total(
    models.map(({ weights }) => weights.filter(({ elements }) => elements >= kLeastElements).length),
  );
  return { weights: total(chosen.map((names) => names.length)), available, recipes };
}

// --- Beside Deep Compression -----------------------------------------------------------------------------------------------

/// Tables 2 and 3 of arXiv:1510.00149: for each weight the share that stays, bits of a shared value, and the size after
/// Huffman coding as a share of the float32 size; the sizes in all.
const kPaper = [
  {
    name: "lenet-300-100",
    share: 0.0249,
    weights: {
      "fc1.weight": { kept: 0.08, bits: 6, share: 0.0232 },
      "fc2.weight": { kept: 0.09, bits: 6, share: 0.0304 },
      "fc3.weight": { kept: 0.26, bits: 6, share: 0.127 },
    },
  },
  {
    name: "lenet-5",
    share: 0.0255,
    weights: {
      "conv1.weight": { kept: 0.66, bits: 8, share: 0.6745 },
      "conv2.weight": { kept: 0.12, bits: 8, share: 0.0528 },
      "fc1.weight": { kept: 0.08, bits: 5, share: 0.0245 },
      "fc2.weight": { kept: 0.19, bits: 5, share: 0.0613 },
    },
  },
];

/// The paper's recipe without its training. Returns [{name, parameters, paper, ours, file, cabac_file, weights: [{name,
/// elements, paper, huffman, codebook, cabac}]}] in bytes; `ours` are Huffman streams and codebooks.
export async function measure_paper(engine, file_of) {
  const results = [];
  for (const { name, share, weights } of kPaper) {
    const model = await engine.open(readFileSync(file_of(name)), { name });
    const of = (weight, step) => ({ ...step, layers: { include: [weight] } });
    const steps = Object.entries(weights).flatMap(([weight, { kept, bits }]) => [
      of(weight, prune(1 - kept)),
      of(weight, { kind: "cluster", bits }),
    ]);
    const sizes = {};
    for (const coder of ["huffman", "cabac"]) {
      const recipe = { version: 1, steps: [...steps, { kind: "encode", coder, quantized_form: false }] };
      const { model: result } = await model.compress(recipe, { format: "nib" });
      sizes[coder] = await result.bytes();
      result.dispose();
    }
    const list = sizes.huffman.weights.map((entry) => {
      const { elements } = model.info.weights.find((weight) => weight.name === entry.name);
      const paper = weights[entry.name].share * elements * 4;
      return { name: entry.name, elements, paper, huffman: entry.huffman, codebook: entry.scales, cabac: entry.cabac };
    });
    results.push({
      name,
      parameters: model.info.parameters,
      paper: share * model.info.parameters * 4,
      ours: total(list.map(({ huffman, codebook }) => huffman + codebook)),
      file: sizes.huffman.file,
      cabac_file: sizes.cabac.file,
      weights: list,
    });
    model.dispose();
  }
  return results;
}

// --- Before accuracy is lost -------------------------------------------------------------------------------------------------

const kAccuracyModels = ["lenet-5", "resnet-8"];
/// Digits that the samples were not trained with (their seed is 7).
const kDigits = { kind: "digits", seed: 8, n: 12000 };
const kMostLoss = 0.003;

/// A quarter of a decade between two lambdas.
const lambdas = (from, to) =>
  Array.from({ length: Math.round(4 * (to - from)) + 1 }, (_, i) => Number((10 ** (from + i / 4)).toPrecision(3)));
const kLambdas = { none: lambdas(-4, -1), diagonal: lambdas(-10, -7), hessian: lambdas(-9, -6) };

/// One model with what it takes to try a recipe on it: try_steps(steps) gives {steps, bytes, ratio, accuracy, loss, kept,
/// result}, where `kept` is whether little enough accuracy is lost; the result is the caller's to dispose of.
async function laboratory(engine, name, file) {
  const data = await engine.data(kDigits);
  const model = await engine.open(readFileSync(file), { name });
  const before = model.info.file_bytes;
  const base = await model.evaluate(data);
  const try_steps = async (steps, format) => {
    const { model: result, report } = await model.compress({ version: 1, steps }, { data, format });
    const { accuracy } = await result.evaluate(data);
    const loss = base.accuracy - accuracy;
    const bytes = report.file.after;
    return { steps, bytes, ratio: before / bytes, accuracy, loss, kept: loss < kMostLoss - 1e-9, result };
  };
  return { model, data, before, accuracy: base.accuracy, samples: base.samples, try_steps };
}

const encode = (lambda, importance) => {
  const step = { kind: "encode", coder: "cabac", quantized_form: false };
  return lambda ? { ...step, lambda, importance } : step;
};

/// The largest lambda of a list with which accuracy is kept: by bisection, as if more lambda always lost more, and then
/// the next two, as accuracy is a number of samples and jumps. Null where none keeps it.
async function best_lambda(try_steps, before, importance) {
  const list = kLambdas[importance];
  let best = null;
  const attempt = async (i) => {
    const tried = await try_steps([...before, encode(list[i], importance)], "nib");
    const better = tried.kept && (!best || tried.bytes < best.bytes);
    (better ? best?.result : tried.result)?.dispose();
    if (better) best = { ...tried, lambda: list[i] };
    return tried.kept;
  };
  let low = -1; // kept, or before the first
  for (let high = list.length; high - low > 1;) {
    const middle = (low + high) >> 1;
    if (await attempt(middle)) low = middle;
    else high = middle;
  }
  for (const i of [low + 2, low + 3]) if (i < list.length) await attempt(i);
  return best;
}

/// What each tool is worth. Returns [{name, before, accuracy, samples, rows: [{tool, setting, bytes, ratio, accuracy,
/// entropy_bytes, rans_bytes}]}]: the last two are of the same levels in the same file, coded to their order-0 entropy
/// (what no coder without contexts goes below) and with rANS. A row without a size found nothing.
export async function measure_accuracy(engine, file_of, say = () => {}) {
  const results = [];
  for (const name of kAccuracyModels) {
    const { model, data, before, accuracy, samples, try_steps } = await laboratory(engine, name, file_of(name));
    const rows = [];
    const add = async (tool, setting, best) => {
      say(`${name}: ${tool}`);
      if (!best) return rows.push({ tool, setting: "nothing keeps it" });
      const bytes = await best.result.bytes();
      const swapped = (key) => best.bytes + total(bytes.weights.map((entry) => entry[key] - entry.cabac));
      const others = { entropy_bytes: swapped("entropy"), rans_bytes: swapped("rans") };
      best.result.dispose();
      rows.push({ tool, setting, bytes: best.bytes, ratio: best.ratio, accuracy: best.accuracy, ...others });
    };

    const qdq = await try_steps([quantize(8, "channel")], "onnx");
    rows.push({
      tool: "8 bits, QDQ in ONNX",
      setting: "per channel",
      bytes: qdq.bytes,
      ratio: qdq.ratio,
      accuracy: qdq.accuracy,
    });
    qdq.result.dispose();

    let uniform = null;
    for (const granularity of ["tensor", "channel"]) {
      for (const range of ["minmax", "mse"]) {
        for (let bits = 8; bits >= 2; bits--) {
          const tried = await try_steps([quantize(bits, granularity, { range }), encode(0)], "nib");
          const better = tried.kept && (!uniform || tried.bytes < uniform.bytes);
          (better ? uniform?.result : tried.result)?.dispose();
          if (better) uniform = { ...tried, bits, granularity, range };
          if (!tried.kept) break;
        }
      }
    }
    const grid = uniform && `${uniform.bits} bits per ${uniform.granularity}, ${uniform.range}`;
    await add("uniform grid, nearest", grid, uniform);

    // The same kind of grid with a bit more, on which there is something to choose.
    const finer = uniform && [quantize(Math.min(8, uniform.bits + 1), uniform.granularity, { range: uniform.range })];
    for (const importance of finer ? Object.keys(kLambdas) : []) {
      const best = await best_lambda(try_steps, finer, importance);
      await add(`that grid with a bit more, by rate: ${importance}`, best && `lambda ${best.lambda}`, best);
    }
    for (const importance of Object.keys(kLambdas)) {
      const best = await best_lambda(try_steps, [], importance);
      await add(`steps from lambda, by rate: ${importance}`, best && `lambda ${best.lambda}`, best);
    }
    model.dispose();
    data.dispose();
    results.push({ name, before, accuracy, samples, rows });
  }
  return results;
}

// --- For the trellis -------------------------------------------------------------------------------------------------------

/// The weights of a sample and what else its .nib file holds, in bytes: {name, rest, tensors: [values]}.
export async function weights_of(engine, name, file) {
  const model = await engine.open(readFileSync(file), { name });
  const { model: result } = await model.compress({ version: 1, steps: [encode(0.01, "none")] }, { format: "nib" });
  const { header, others } = await result.bytes();
  const tensors = [];
  for (const weight of model.info.weights) tensors.push(await model.values(weight.name));
  result.dispose();
  model.dispose();
  return { name, rest: header + others, tensors };
}
