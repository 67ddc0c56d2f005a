// The arithmetic of the lessons: plain functions on a handful of numbers, written to be read beside the formulas and to
// work without the engine (the offline page has lessons before it has a model). Values are doubles; nothing is edited
// in place.

// --- Random numbers --------------------------------------------------------------------------------------------------

/** A seeded stream of numbers in [0, 1): a 32-bit counter through a mixing function (splitmix style). */
export function stream(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** `count` normal deviates with mean 0 and standard deviation `sigma` (Box-Muller). */
export function bell(count: number, seed: number, sigma = 1): number[] {
  const next = stream(seed);
  return Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    return sigma * radius * Math.cos(2 * Math.PI * next());
  });
}

// --- Rounding --------------------------------------------------------------------------------------------------------

/** Nearest integer, ties away from zero: floor(y + 0.5) for y >= 0, ceil(y - 0.5) for y < 0. */
export const roundHalfAway = (y: number): number => (y >= 0 ? Math.floor(y + 0.5) : Math.ceil(y - 0.5));

/** Nearest integer, ties to the even one (IEEE 754's default, ONNX QuantizeLinear). */
export function roundHalfEven(y: number): number {
  const below = Math.floor(y);
  const rest = y - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** The rule as some notes misprint it, floor instead of ceil for y < 0: one level too low almost everywhere there. */
export const roundMisprinted = (y: number): number => (y >= 0 ? Math.floor(y + 0.5) : Math.floor(y - 0.5));

/** Rounding after adding half a step: on average half a level too high. */
export const roundOffset = (y: number): number => roundHalfAway(y + 0.5);

export type Rule = (y: number) => number;

/** One number on the grid of step s: its code q, its value Q(x) = q s, and the error e = x - Q(x). */
export function quantizeOne(x: number, s: number, rule: Rule): { code: number; value: number; error: number } {
  const code = rule(x / s) + 0; // + 0 turns -0 into 0
  return { code, value: code * s, error: x - code * s };
}

/** Mean of e over numbers spread evenly across `steps` steps on either side of zero, none of them a tie or a level. */
export function meanError(s: number, rule: Rule, steps = 8, perStep = 100): number {
  let sum = 0;
  const half = steps * perStep;
  for (let i = -half; i < half; ++i) sum += quantizeOne(((i + 0.5) / perStep) * s, s, rule).error;
  return sum / (2 * half);
}

/** floor(x/s) plus one with probability frac(x/s); u is uniform in [0, 1). */
export const roundStochastic = (x: number, s: number, u: number): number => Math.floor(x / s + u) * s + 0;

// --- Statistics ------------------------------------------------------------------------------------------------------

export const mean = (x: readonly number[]): number => x.reduce((sum, v) => sum + v, 0) / x.length;
export const meanAbs = (x: readonly number[]): number => x.reduce((sum, v) => sum + Math.abs(v), 0) / x.length;
export const maxAbs = (x: readonly number[]): number => x.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
/** Sum of squares. */
export const energy = (x: readonly number[]): number => x.reduce((sum, v) => sum + v * v, 0);

/** Standard deviation (population): the square root of the variance. */
export function deviation(x: readonly number[]): number {
  const center = mean(x);
  return Math.sqrt(energy(x.map((v) => v - center)) / x.length);
}

/** The value below which `share` (0 to 1) of the numbers lie, interpolated between neighbors. */
export function quantile(x: readonly number[], share: number): number {
  const sorted = [...x].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low]! + (at - low) * (sorted[high]! - sorted[low]!);
}

/** Counts in `bins` equal bins over [lo, hi]; numbers outside go to the outer bins. */
export function histogram(x: readonly number[], lo: number, hi: number, bins: number): number[] {
  const counts = new Array<number>(bins).fill(0);
  for (const v of x) {
    const bin = Math.floor(((v - lo) / (hi - lo)) * bins);
    counts[Math.min(bins - 1, Math.max(0, bin))]! += 1;
  }
  return counts;
}

// --- Grids -----------------------------------------------------------------------------------------------------------

/** value = scale * (code - zeroPoint), lowest <= code <= highest. */
export interface Grid {
  scale: number;
  zeroPoint: number;
  lowest: number;
  highest: number;
}

/** What a signed integer of `bits` bits can hold: -2^(b-1) to 2^(b-1) - 1. */
export const storageRange = (bits: number): [number, number] => [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];

/** Symmetric grid of 2 or more bits whose outermost codes, +-(2^(b-1) - 1), are +-clip. */
export function symmetricGrid(clip: number, bits: number): Grid {
  const highest = 2 ** (bits - 1) - 1;
  return { scale: clip > 0 ? clip / highest : 1, zeroPoint: 0, lowest: -highest, highest };
}

/** Affine grid over [min, max], stretched to contain 0; the zero point is an integer, so 0 is exactly a level. */
export function affineGrid(min: number, max: number, bits: number): Grid {
  const low = Math.min(min, 0);
  const highest = 2 ** bits - 1;
  const scale = (Math.max(max, 0) - low) / highest || 1;
  return { scale, zeroPoint: roundHalfEven(-low / scale) + 0, lowest: 0, highest };
}

/** The same without the promise about zero: levels start at min, and the "zero point" is any real number. */
export function looseAffineGrid(min: number, max: number, bits: number): Grid {
  const highest = 2 ** bits - 1;
  const scale = (max - min) / highest || 1;
  return { scale, zeroPoint: -min / scale, lowest: 0, highest };
}

/** The code of x: x/s rounded half to even, moved by the zero point, clamped. */
export function codeOf(x: number, grid: Grid): number {
  // The whole part of the zero point is added after rounding, as ONNX does: before it, an odd one would turn ties around.
  const whole = Math.floor(grid.zeroPoint);
  const code = roundHalfEven(x / grid.scale + (grid.zeroPoint - whole)) + whole;
  return Math.min(grid.highest, Math.max(grid.lowest, code)) + 0;
}

export const snap = (x: number, grid: Grid): number => grid.scale * (codeOf(x, grid) - grid.zeroPoint) + 0;

/** All values of a grid, ascending. */
export const levels = (grid: Grid): number[] =>
  Array.from({ length: grid.highest - grid.lowest + 1 }, (_, i) => grid.scale * (grid.lowest + i - grid.zeroPoint));

/** One bit: every number becomes +s or -s. With s = mean |w| the squared error is least (XNOR-Net, section 3.1). */
export const binarize = (x: readonly number[], s = meanAbs(x)): number[] => x.map((v) => (v < 0 ? -s : s));

/** Symmetric quantization of all of x with one scale; 1 bit is binary (its scale is the mean magnitude, `clip` is not
 *  used). */
export function fakeQuantize(x: readonly number[], bits: number, clip = maxAbs(x)): number[] {
  if (bits === 1) return binarize(x);
  const grid = symmetricGrid(clip, bits);
  return x.map((v) => snap(v, grid));
}

// --- Error -----------------------------------------------------------------------------------------------------------

/** What the difference of two arrays amounts to, in the report's terms. sqnrDb is Infinity without error; 0 dB means
 *  the error is as strong as the signal. */
export function compare(before: readonly number[], after: readonly number[]) {
  const error = before.map((v, i) => v - after[i]!);
  const noise = energy(error);
  const signal = energy(before);
  const product = before.reduce((sum, v, i) => sum + v * after[i]!, 0);
  return {
    mse: noise / before.length,
    sqnrDb: noise === 0 ? Infinity : 10 * Math.log10(signal / noise),
    maxAbs: maxAbs(error),
    cosine: product / Math.sqrt(signal * energy(after)),
  };
}

/** Mean squared error of a symmetric grid with range +-clip, split by who pays it: numbers inside the range (rounding)
 *  and numbers outside (clipping). */
export function splitError(x: readonly number[], bits: number, clip: number): { rounding: number; clipping: number } {
  const grid = symmetricGrid(clip, bits);
  let rounding = 0;
  let clipping = 0;
  for (const v of x) {
    const squared = (v - snap(v, grid)) ** 2;
    if (Math.abs(v) > clip) clipping += squared;
    else rounding += squared;
  }
  return { rounding: rounding / x.length, clipping: clipping / x.length };
}

/** The clip with the least squared error among `candidates` even parts of max |x|. Requires bits >= 2. */
export function bestClip(x: readonly number[], bits: number, candidates = 100): number {
  const most = maxAbs(x);
  let best = most;
  let least = Infinity;
  for (let i = 1; i <= candidates; ++i) {
    const clip = (most * i) / candidates;
    const { rounding, clipping } = splitError(x, bits, clip);
    if (rounding + clipping >= least) continue;
    least = rounding + clipping;
    best = clip;
  }
  return best;
}

// --- Granularity -----------------------------------------------------------------------------------------------------

/** Bits per weight when `sharing` weights share one 32-bit scale. */
export const bitsPerWeight = (bits: number, sharing: number): number => bits + 32 / sharing;

/** x cut into runs of `size` (the last may be shorter), each quantized with its own max-abs scale. */
export function quantizeGroups(x: readonly number[], bits: number, size: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < x.length; i += size) out.push(...fakeQuantize(x.slice(i, i + size), bits));
  return out;
}

// --- Pruning ---------------------------------------------------------------------------------------------------------

/** true = keep. Drops the `count` smallest magnitudes; of equal ones the earlier goes first. */
export function dropSmallest(x: readonly number[], count: number): boolean[] {
  const order = x.map((_, i) => i).sort((a, b) => Math.abs(x[a]!) - Math.abs(x[b]!) || a - b);
  const keep = x.map(() => true);
  for (const i of order.slice(0, count)) keep[i] = false;
  return keep;
}

/** Masks of several layers at one sparsity: the same share of each, or the smallest of all layers together. */
export function pruneLayers(layers: readonly number[][], sparsity: number, scope: "layer" | "global"): boolean[][] {
  if (scope === "layer") return layers.map((layer) => dropSmallest(layer, Math.round(sparsity * layer.length)));
  const all = layers.flat();
  const keep = dropSmallest(all, Math.round(sparsity * all.length));
  let start = 0;
  return layers.map((layer) => keep.slice(start, (start += layer.length)));
}

/** Mask that keeps the n largest magnitudes of every m neighbors (of equal ones the earlier). */
export function keepNOfM(x: readonly number[], n: number, m: number): boolean[] {
  const keep: boolean[] = [];
  for (let i = 0; i < x.length; i += m) {
    const run = x.slice(i, i + m);
    const order = run.map((_, j) => j).sort((a, b) => Math.abs(run[b]!) - Math.abs(run[a]!) || a - b);
    keep.push(...run.map((_, j) => order.indexOf(j) < n));
  }
  return keep;
}

/** Mask of rows: drops the share `sparsity` of rows that have the smallest L2 norms. */
export const keepRows = (rows: readonly number[][], sparsity: number): boolean[] =>
  dropSmallest(
    rows.map((row) => Math.sqrt(energy(row))),
    Math.round(sparsity * rows.length),
  );

/** Share of a layer's weights that disappears when it loses the share p of its outputs and of its inputs. */
export const removedByChannels = (p: number): number => 1 - (1 - p) ** 2;

// --- Descent ---------------------------------------------------------------------------------------------------------

export type Optimizer = "sgd" | "momentum" | "adam";

/** One number's way downhill: momentum is Polyak's heavy ball as PyTorch has it (v = 0.9 v + g), Adam is Kingma and Ba
 *  2015, algorithm 1, with their constants. Gives the places, the start among them; stops where it left the numbers. */
export function descend(
  gradient: (x: number) => number,
  start: number,
  rate: number,
  steps: number,
  optimizer: Optimizer,
): number[] {
  const path = [start];
  let [x, first, second] = [start, 0, 0];
  for (let t = 1; t <= steps; ++t) {
    const g = gradient(x);
    if (optimizer === "adam") {
      first = 0.9 * first + 0.1 * g;
      second = 0.999 * second + 0.001 * g * g;
      x -= (rate * (first / (1 - 0.9 ** t))) / (Math.sqrt(second / (1 - 0.999 ** t)) + 1e-8);
    } else {
      first = (optimizer === "momentum" ? 0.9 : 0) * first + g;
      x -= rate * first;
    }
    if (!Number.isFinite(x) || Math.abs(x) > 1e6) break;
    path.push(x);
  }
  return path;
}

/** A valley with a hill in it: a shallow minimum on the right, the deeper one on the left. */
export const valley = (x: number): number => 0.25 * x ** 4 - x * x + 0.3 * x + 1.5;
export const valleySlope = (x: number): number => x ** 3 - 2 * x + 0.3;

// --- The chain rule --------------------------------------------------------------------------------------------------

/** Three nodes in a row: a = w x, b = a + c, L = (b - t)^2, and what a little more of each would add to L. */
export function chain(x: number, w: number, c: number, t: number) {
  const a = w * x;
  const b = a + c;
  const loss = (b - t) ** 2;
  const db = 2 * (b - t);
  return { a, b, loss, db, da: db * 1, dc: db * 1, dw: db * x, dx: db * w };
}

// --- A small regression that is pruned -------------------------------------------------------------------------------

/** Rows of inputs that hang together, and a target that most of them have a part in, with a little noise. */
export function regressionData(rows: number, columns: number, seed: number): { x: number[][]; y: number[] } {
  const truth = bell(columns, seed).map((w, i) => (i % 3 === 0 ? 1.6 * w : 0.7 * w));
  const x = Array.from({ length: rows }, (_, r) => {
    const own = bell(columns, seed + 10 + r);
    const common = bell(3, seed + 5000 + r);
    // Each input shares something with others, so that one can stand in for another.
    return own.map((v, c) => 0.4 * v + 0.95 * common[c % 3]!);
  });
  const noise = bell(rows, seed + 9999, 0.2);
  return { x, y: x.map((row, r) => row.reduce((sum, v, c) => sum + v * truth[c]!, noise[r]!)) };
}

export const squaredLoss = (x: readonly number[][], y: readonly number[], w: readonly number[]): number =>
  mean(x.map((row, r) => (row.reduce((sum, v, c) => sum + v * w[c]!, 0) - y[r]!) ** 2));

/** Gradient descent on the mean squared error; where `keep` is false a weight stays as it is. Gives the weights and the
 *  loss before each step and after the last. */
export function fineTune(
  x: readonly number[][],
  y: readonly number[],
  start: readonly number[],
  keep: readonly boolean[],
  steps: number,
  rate: number,
): { weights: number[]; losses: number[] } {
  let weights = [...start];
  const losses = [squaredLoss(x, y, weights)];
  for (let step = 0; step < steps; ++step) {
    const gradient = weights.map(() => 0);
    for (let r = 0; r < x.length; ++r) {
      const error = x[r]!.reduce((sum, v, c) => sum + v * weights[c]!, 0) - y[r]!;
      for (let c = 0; c < gradient.length; ++c) gradient[c]! += (2 * error * x[r]![c]!) / x.length;
    }
    weights = weights.map((w, c) => (keep[c] ? w - rate * gradient[c]! : w));
    losses.push(squaredLoss(x, y, weights));
  }
  return { weights, losses };
}

// --- Polynomials -----------------------------------------------------------------------------------------------------

/** Chebyshev polynomials T_0 to T_degree at x in [-1, 1]: the same curves as the powers of x, without their rounding. */
export function chebyshev(x: number, degree: number): number[] {
  const values = [1, x];
  for (let k = 2; k <= degree; ++k) values.push(2 * x * values[k - 1]! - values[k - 2]!);
  return values.slice(0, degree + 1);
}

/** Coefficients of the polynomial with the least squared error (modified Gram-Schmidt, twice). Requires more than
 *  `degree` different x in [-1, 1]. */
export function polynomialFit(x: readonly number[], y: readonly number[], degree: number): number[] {
  const basis = Array.from({ length: degree + 1 }, (_, k) => x.map((v) => chebyshev(v, degree)[k]!));
  const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
  const directions: number[][] = [];
  const upper = basis.map(() => basis.map(() => 0));
  basis.forEach((column, k) => {
    let rest = [...column];
    for (let round = 0; round < 2; ++round) {
      directions.forEach((q, j) => {
        const part = dot(q, rest);
        upper[j]![k]! += part;
        rest = rest.map((v, i) => v - part * q[i]!);
      });
    }
    const length = Math.sqrt(energy(rest));
    upper[k]![k] = length;
    directions.push(rest.map((v) => v / length));
  });
  const coefficients = directions.map((q) => dot(q, y));
  for (let k = degree; k >= 0; --k) {
    for (let j = k + 1; j <= degree; ++j) coefficients[k]! -= upper[k]![j]! * coefficients[j]!;
    coefficients[k]! /= upper[k]![k]!;
  }
  return coefficients;
}

export const polynomialAt = (coefficients: readonly number[], x: number): number =>
  chebyshev(x, coefficients.length - 1).reduce((sum, v, k) => sum + v * coefficients[k]!, 0);

/** Root mean squared error of a polynomial on points. */
export const polynomialError = (coefficients: readonly number[], x: readonly number[], y: readonly number[]): number =>
  Math.sqrt(mean(x.map((v, i) => (polynomialAt(coefficients, v) - y[i]!) ** 2)));

// --- A network of three layers ---------------------------------------------------------------------------------------

/** Dense layers, [output][input] with the bias last; ReLU between them. One output: the class is its sign. */
export type Net = number[][][];

/** Two half moons that reach into each other: points and their classes, -1 and 1. */
export function moons(count: number, seed: number, noise = 0.2): { points: [number, number][]; classes: number[] } {
  const next = stream(seed);
  const shake = bell(2 * count, seed + 1, noise);
  const classes = Array.from({ length: count }, (_, i) => (i % 2 === 0 ? 1 : -1));
  const points = classes.map((side, i): [number, number] => {
    const angle = Math.PI * next();
    const [x, y] =
      side > 0 ? [Math.cos(angle) - 0.5, Math.sin(angle) - 0.25] : [0.5 - Math.cos(angle), 0.25 - Math.sin(angle)];
    return [x + shake[2 * i]!, y + shake[2 * i + 1]!];
  });
  return { points, classes };
}

/** What every layer gives for one point; the last is the score. */
export function netLayers(net: Net, point: readonly number[]): number[][] {
  let values = [...point];
  return net.map((layer, l) => {
    values = layer.map((row) => {
      const sum = row.reduce((total, w, i) => total + w * (values[i] ?? 1), 0);
      return l + 1 < net.length ? Math.max(0, sum) : sum;
    });
    return values;
  });
}

export const netScore = (net: Net, point: readonly number[]): number => netLayers(net, point).at(-1)![0]!;

/** Share of points whose class the sign of the score gives. */
export const netAccuracy = (net: Net, points: readonly (readonly number[])[], classes: readonly number[]): number =>
  mean(points.map((point, i) => (netScore(net, point) > 0 === classes[i]! > 0 ? 1 : 0)));

/** A network of these widths, taught with Adam on all points at once (logistic loss). */
export function trainNet(
  widths: readonly number[],
  points: readonly (readonly number[])[],
  classes: readonly number[],
  steps: number,
  seed: number,
  rate = 0.02,
): Net {
  const net: Net = widths
    .slice(1)
    .map((out, l) =>
      Array.from({ length: out }, (_, o) => [...bell(widths[l]!, seed + 97 * l + o, Math.sqrt(2 / widths[l]!)), 0]),
    );
  const zeros = (): Net => net.map((layer) => layer.map((row) => row.map(() => 0)));
  const [first, second] = [zeros(), zeros()];
  for (let t = 1; t <= steps; ++t) {
    const gradient = zeros();
    points.forEach((point, n) => {
      const values = netLayers(net, point);
      // d/ds log(1 + exp(-y s)) = -y / (1 + exp(y s))
      let back = [-classes[n]! / (1 + Math.exp(classes[n]! * values.at(-1)![0]!)) / points.length];
      for (let l = net.length - 1; l >= 0; --l) {
        const inputs = l > 0 ? values[l - 1]! : point;
        const before = inputs.map(() => 0);
        net[l]!.forEach((row, o) => {
          row.forEach((w, i) => {
            gradient[l]![o]![i]! += back[o]! * (inputs[i] ?? 1);
            if (i < before.length) before[i]! += back[o]! * w;
          });
        });
        back = before.map((g, i) => (inputs[i]! > 0 ? g : 0));
      }
    });
    net.forEach((layer, l) =>
      layer.forEach((row, o) =>
        row.forEach((_, i) => {
          const g = gradient[l]![o]![i]!;
          const m = (first[l]![o]![i] = 0.9 * first[l]![o]![i]! + 0.1 * g);
          const v = (second[l]![o]![i] = 0.999 * second[l]![o]![i]! + 0.001 * g * g);
          row[i]! -= (rate * (m / (1 - 0.9 ** t))) / (Math.sqrt(v / (1 - 0.999 ** t)) + 1e-8);
        }),
      ),
    );
  }
  return net;
}

/** The network with each layer's weights (not its biases) on a symmetric grid of so many bits, one scale per layer. */
export const quantizeNet = (net: Net, bits: readonly number[]): Net =>
  net.map((layer, l) => {
    const flat = fakeQuantize(
      layer.flatMap((row) => row.slice(0, -1)),
      bits[l]!,
    );
    const size = layer[0]!.length - 1;
    return layer.map((row, o) => [...flat.slice(o * size, (o + 1) * size), row.at(-1)!]);
  });
