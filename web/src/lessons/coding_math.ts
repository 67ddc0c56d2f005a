// The arithmetic of the lessons about bytes: codes, coders, shared values and rounding that counts bits. As in math.ts:
// plain functions on doubles, written to be read beside the formulas; nothing is edited in place. Nibble's own coders
// are integers only (core/codec), for doubles would not give the same bytes everywhere.
import { dropSmallest, mean, quantile, snap, stream, symmetricGrid, maxAbs } from "./math";

// --- Counting --------------------------------------------------------------------------------------------------------

const sum = (x: readonly number[]): number => x.reduce((total, v) => total + v, 0);

/** How often each whole number from `lowest` to `highest` occurs. */
export function tally(levels: readonly number[], lowest: number, highest: number): number[] {
  const counts = new Array<number>(highest - lowest + 1).fill(0);
  for (const level of levels) counts[level - lowest]! += 1;
  return counts;
}

/** Bits that a value of this probability is worth; Infinity where it never occurs. */
export const ideal = (probability: number): number => -Math.log2(probability) + 0;

/** Order-0 entropy in bits a symbol: sum of p log2(1 / p). */
export function entropyOf(counts: readonly number[]): number {
  const total = sum(counts);
  return sum(counts.map((count) => (count > 0 ? (count / total) * ideal(count / total) : 0)));
}

/** Levels of weights on a symmetric grid, after the share `sparsity` with the smallest magnitudes became 0. */
export function prunedLevels(weights: readonly number[], sparsity: number, bits: number): number[] {
  const keep = dropSmallest(weights, Math.round(sparsity * weights.length));
  const grid = symmetricGrid(maxAbs(weights), bits);
  return weights.map((w, i) => (keep[i] ? Math.round(snap(w, grid) / grid.scale) + 0 : 0));
}

// --- Huffman codes ---------------------------------------------------------------------------------------------------

/** Lengths of an optimal prefix code (Huffman 1952): the two rarest become one until one is left. 0 where a count is 0;
 *  a single symbol gets length 1, there being no code of no bits. */
export function huffmanLengths(counts: readonly number[]): number[] {
  const lengths = counts.map(() => 0);
  const groups = counts.map((count, i) => ({ count, symbols: [i] })).filter(({ count }) => count > 0);
  if (groups.length === 1) lengths[groups[0]!.symbols[0]!] = 1;
  while (groups.length > 1) {
    groups.sort((a, b) => a.count - b.count);
    const [a, b] = groups.splice(0, 2) as [(typeof groups)[0], (typeof groups)[0]];
    const symbols = [...a.symbols, ...b.symbols];
    for (const i of symbols) lengths[i]! += 1;
    groups.push({ count: a.count + b.count, symbols });
  }
  return lengths;
}

/** The canonical code of these lengths: codes of one length are consecutive numbers, so that lengths alone tell it. */
export function canonicalCodes(lengths: readonly number[]): string[] {
  const codes = lengths.map(() => "");
  let next = 0;
  for (let size = 1; size <= Math.max(0, ...lengths); ++size, next *= 2) {
    lengths.forEach((length, i) => {
      if (length === size) codes[i] = (next++).toString(2).padStart(size, "0");
    });
  }
  return codes;
}

/** Bits of all symbols together. */
export const codedBits = (counts: readonly number[], lengths: readonly number[]): number =>
  sum(counts.map((count, i) => count * lengths[i]!));

/** A level and how many zeros stand before it, at most 2^bits - 1: more zeros than that need an entry whose level is
 *  itself 0. Zeros at the end need none. */
export function gapEntries(levels: readonly number[], bits: number): { gap: number; level: number }[] {
  const most = 2 ** bits - 1;
  const entries: { gap: number; level: number }[] = [];
  let gap = 0;
  for (const level of levels) {
    if (level === 0 && gap < most) {
      ++gap;
    } else {
      entries.push({ gap, level });
      gap = 0;
    }
  }
  return entries;
}

/** Bits of the gaps and of the levels of gapEntries, each with a Huffman code of its own; tables not counted. */
export function gapBits(levels: readonly number[], bits: number): { gaps: number; values: number; fillers: number } {
  const entries = gapEntries(levels, bits);
  const most = maxAbs(levels);
  const gaps = tally(
    entries.map(({ gap }) => gap),
    0,
    2 ** bits - 1,
  );
  const values = tally(
    entries.map(({ level }) => level),
    -most,
    most,
  );
  return {
    gaps: codedBits(gaps, huffmanLengths(gaps)),
    values: codedBits(values, huffmanLengths(values)),
    fillers: values[most]!,
  };
}

// --- Arithmetic coding -----------------------------------------------------------------------------------------------

export interface Interval {
  low: number;
  width: number;
}

/** The part of an interval that stands for a decision: the lower one, of width p, for a 1. */
export const narrow = ({ low, width }: Interval, value: number, p: number): Interval =>
  value ? { low, width: width * p } : { low: low + width * p, width: width * (1 - p) };

/** The shortest binary fraction in [low, low + width), as the digits behind the point: what has to be written. */
export function shortestFraction({ low, width }: Interval): string {
  for (let bits = 0; bits < 50; ++bits) {
    const number = Math.ceil(low * 2 ** bits);
    // 1 is no fraction, though rounding may have put the end a little above it.
    if (number < Math.min(1, low + width) * 2 ** bits) return bits === 0 ? "" : number.toString(2).padStart(bits, "0");
  }
  throw new Error("the interval is too narrow for doubles");
}

/** The decisions that a fraction stands for, `chance` saying the probability of a 1 after those before. */
export function readFraction(digits: string, count: number, chance: (before: readonly number[]) => number): number[] {
  const value = digits === "" ? 0 : parseInt(digits, 2) / 2 ** digits.length;
  const decisions: number[] = [];
  let interval: Interval = { low: 0, width: 1 };
  while (decisions.length < count) {
    const p = chance(decisions);
    const decision = value < interval.low + interval.width * p ? 1 : 0;
    interval = narrow(interval, decision, p);
    decisions.push(decision);
  }
  return decisions;
}

/** The frequency of 1 among what was seen, as if 0.4 of each had been seen before (after Krichevsky and Trofimov). */
export const learned = (ones: number, seen: number): number => (ones + 0.4) / (seen + 0.8);

/** Cost in bits of each decision of a map of rows, by estimators that learn as they go, one for each context. */
export function adaptiveCosts(map: readonly (readonly number[])[], context: (row: number, column: number) => number) {
  const seen = new Map<number, [ones: number, all: number]>();
  return map.map((decisions, r) =>
    decisions.map((value, c) => {
      const key = context(r, c);
      const [ones, all] = seen.get(key) ?? [0, 0];
      seen.set(key, [ones + value, all + 1]);
      const p = learned(ones, all);
      return ideal(value ? p : 1 - p);
    }),
  );
}

// --- Asymmetric numeral systems --------------------------------------------------------------------------------------

/** Where each symbol's slots begin, and how many there are in all. */
export function slotStarts(frequencies: readonly number[]): { starts: number[]; total: number } {
  let total = 0;
  const starts = frequencies.map((f) => (total += f) - f);
  return { starts, total };
}

/** Puts a symbol into the state: x' = floor(x / f) M + c + x mod f. */
export function ransPush(x: number, symbol: number, frequencies: readonly number[]): number {
  const { starts, total } = slotStarts(frequencies);
  const f = frequencies[symbol]!;
  return Math.floor(x / f) * total + starts[symbol]! + (x % f);
}

/** Takes the last symbol out again: the slot x mod M tells it, and x = f floor(x' / M) + slot - c. */
export function ransPop(x: number, frequencies: readonly number[]): { x: number; symbol: number; slot: number } {
  const { starts, total } = slotStarts(frequencies);
  const slot = x % total;
  const symbol = frequencies.findIndex((f, i) => f > 0 && slot < starts[i]! + f);
  return { x: frequencies[symbol]! * Math.floor(x / total) + slot - starts[symbol]!, symbol, slot };
}

/** All states from `start` on while the message is put in, last symbol first. */
export function ransStates(message: readonly number[], frequencies: readonly number[], start: number): number[] {
  const states = [start];
  for (const symbol of [...message].reverse()) states.push(ransPush(states.at(-1)!, symbol, frequencies));
  return states;
}

// --- Shared values ---------------------------------------------------------------------------------------------------

export type Initial = "linear" | "density" | "random";

/** Where k centroids start: evenly over the range, in the middle of equal shares of the weights, or at weights drawn by
 *  lot. Ascending. */
export function initialCentroids(x: readonly number[], k: number, initial: Initial, seed = 1): number[] {
  const next = stream(seed);
  const sorted = [...x].sort((a, b) => a - b);
  const [low, high] = [sorted[0]!, sorted.at(-1)!];
  const start = Array.from({ length: k }, (_, i) => {
    if (initial === "linear") return k === 1 ? (low + high) / 2 : low + (i / (k - 1)) * (high - low);
    return initial === "density" ? quantile(sorted, (i + 0.5) / k) : sorted[Math.floor(next() * sorted.length)]!;
  });
  return start.sort((a, b) => a - b);
}

/** The nearest of ascending centroids. */
export function nearestOf(centroids: readonly number[], v: number): number {
  let best = 0;
  centroids.forEach((c, i) => {
    if (Math.abs(v - c) < Math.abs(v - centroids[best]!)) best = i;
  });
  return best;
}

/** One round of Lloyd's algorithm: every centroid moves to the mean of the weights nearest to it. */
export function lloydStep(x: readonly number[], centroids: readonly number[]): number[] {
  const totals = centroids.map(() => 0);
  const counts = centroids.map(() => 0);
  for (const v of x) {
    const i = nearestOf(centroids, v);
    totals[i]! += v;
    counts[i]! += 1;
  }
  return centroids.map((c, i) => (counts[i]! > 0 ? totals[i]! / counts[i]! : c));
}

/** The centroids before each round and after the last, which is the one after which nothing moves. */
export function lloyd(x: readonly number[], start: readonly number[], most = 200): number[][] {
  const rounds = [[...start]];
  while (rounds.length <= most) {
    const before = rounds.at(-1)!;
    const after = lloydStep(x, before);
    if (after.every((c, i) => c === before[i])) break;
    rounds.push(after);
  }
  return rounds;
}

/** Mean squared error of replacing every weight by its nearest centroid. */
export const sharingError = (x: readonly number[], centroids: readonly number[]): number =>
  mean(x.map((v) => (v - centroids[nearestOf(centroids, v)]!) ** 2));

/** The least mean squared error that any k shared values reach, by a dynamic programme over the sorted weights: the
 *  groups are runs of them. */
export function leastSharingError(x: readonly number[], k: number): number {
  const sorted = [...x].sort((a, b) => a - b);
  const n = sorted.length;
  const [first, second] = [[0], [0]];
  sorted.forEach((v, i) => {
    first.push(first[i]! + v);
    second.push(second[i]! + v * v);
  });
  /** Squared error of one value for the weights from `from` up to, not including, `to`. */
  const of = (from: number, to: number): number =>
    second[to]! - second[from]! - (first[to]! - first[from]!) ** 2 / (to - from);
  let least = Array.from({ length: n + 1 }, (_, to) => (to === 0 ? 0 : of(0, to)));
  for (let groups = 2; groups <= k; ++groups) {
    least = least.map((before, to) => {
      let best = before;
      for (let from = 1; from < to; ++from) best = Math.min(best, least[from]! + of(from, to));
      return best;
    });
  }
  return Math.max(0, least[n]!) / n;
}

/** Bits of n weights that share k values: an index each, and the values themselves. */
export const sharingBits = (n: number, k: number, valueBits = 32): { indices: number; codebook: number } => ({
  indices: n * Math.ceil(Math.log2(k)),
  codebook: k * valueBits,
});

// --- Rounding that counts bits ---------------------------------------------------------------------------------------

/** Upper triangular U with U^T U = the inverse of a positive definite matrix: what an error at i still costs when all
 *  later ones are chosen best is e^2 / U_ii^2, and it moves the later targets by e U_ij / U_ii. */
export function inverseFactor(matrix: readonly (readonly number[])[]): number[][] {
  const n = matrix.length;
  // Gauss and Jordan; a positive definite matrix needs no pivoting.
  const work = matrix.map((row, i) => [...row, ...row.map((_, j) => (i === j ? 1 : 0))]);
  for (let p = 0; p < n; ++p) {
    const pivot = work[p]!.map((v) => v / work[p]![p]!);
    work.forEach((row, i) => {
      work[i] = i === p ? pivot : row.map((v, j) => v - row[p]! * pivot[j]!);
    });
  }
  const upper = matrix.map((row) => row.map(() => 0));
  for (let i = 0; i < n; ++i) {
    for (let j = i; j < n; ++j) {
      let rest = work[i]![n + j]!;
      for (let k = 0; k < i; ++k) rest -= upper[k]![i]! * upper[k]![j]!;
      upper[i]![j] = i === j ? Math.sqrt(rest) : rest / upper[i]![i]!;
    }
  }
  return upper;
}

/** The level with the least (target - level)^2 curvature + lambda price; of equal ones the nearest. `prices` are those of
 *  the levels from -most to most. */
export function cheapest(target: number, curvature: number, lambda: number, prices: readonly number[]): number {
  const most = (prices.length - 1) / 2;
  // Infinity * 0 is no number: a price does not count where bits do not.
  const loss = (level: number): number =>
    (target - level) ** 2 * curvature + (lambda > 0 ? lambda * prices[level + most]! : 0);
  let best = Math.max(-most, Math.min(most, Math.round(target))) + 0;
  for (let level = -most; level <= most; ++level) if (loss(level) < loss(best)) best = level;
  return best;
}

/** Rows of weights, in steps, rounded one after the other. `factor`: as inverseFactor gives it; a diagonal one counts
 *  errors one by one. */
export function sweep(
  rows: readonly (readonly number[])[],
  factor: readonly (readonly number[])[],
  lambda: number,
  prices: readonly number[],
): number[][] {
  return rows.map((row) => {
    const targets = [...row];
    return row.map((_, i) => {
      const own = factor[i]![i]!;
      const level = cheapest(targets[i]!, 1 / own ** 2, lambda, prices);
      const error = (targets[i]! - level) / own;
      for (let j = i + 1; j < targets.length; ++j) targets[j]! -= error * factor[i]![j]!;
      return level;
    });
  });
}

/** The sweep again and again, each time with the prices that the levels of the last one have: -log2 of their share. A
 *  level that has died out stays away. `bits`: a weight's, by the entropy. */
export function rateRound(
  rows: readonly (readonly number[])[],
  factor: readonly (readonly number[])[],
  lambda: number,
  most: number,
  rounds = 6,
): { levels: number[][]; prices: number[]; bits: number } {
  let levels = sweep(rows, factor, 0, new Array<number>(2 * most + 1).fill(0));
  for (let round = 0; ; ++round) {
    const counts = tally(levels.flat(), -most, most);
    const prices = counts.map((count) => ideal(count / sum(counts)));
    if (round === rounds || lambda === 0) return { levels, prices, bits: entropyOf(counts) };
    levels = sweep(rows, factor, lambda, prices);
  }
}

/** Mean over all weights of e^T H e, e being each row's error. */
export function quadraticLoss(
  rows: readonly (readonly number[])[],
  levels: readonly (readonly number[])[],
  hessian: readonly (readonly number[])[],
): number {
  const of = rows.map((row, r) => {
    const e = row.map((w, i) => w - levels[r]![i]!);
    return sum(e.map((ei, i) => ei * sum(e.map((ej, j) => hessian[i]![j]! * ej)))) / row.length;
  });
  return mean(of);
}
