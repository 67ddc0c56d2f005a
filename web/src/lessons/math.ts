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
