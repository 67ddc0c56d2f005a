// The arithmetic of the lessons about bytes against textbook examples, numbers worked out by hand, and brute force.
import { describe, expect, test } from "vitest";
import * as c from "../../web/src/lessons/coding_math";
import * as m from "../../web/src/lessons/math";

const sum = (x: readonly number[]): number => x.reduce((total, v) => total + v, 0);

/** All lists of `length` numbers from `lowest` to `highest`. */
function* lists(length: number, lowest: number, highest: number): Generator<number[]> {
  if (length === 0) yield [];
  else {
    for (const rest of lists(length - 1, lowest, highest)) {
      for (let v = lowest; v <= highest; ++v) yield [...rest, v];
    }
  }
}

describe("counting", () => {
  test("the entropy of halves and quarters, of one symbol, and of 90 % zeros", () => {
    expect(c.entropyOf([8, 4, 2, 2])).toBeCloseTo(1.75, 12);
    expect(c.entropyOf([0, 5, 0])).toBe(0);
    expect(c.entropyOf([90, 10])).toBeCloseTo(0.4689955935892812, 12);
    expect(c.tally([-1, 1, 1, 0], -1, 1)).toEqual([1, 1, 2]);
    expect(c.ideal(0.25)).toBe(2);
    expect(c.ideal(0)).toBe(Infinity);
  });

  test("pruned levels are zero where the small weights were and round the others", () => {
    expect(c.prunedLevels([0.7, -0.12, 0.31, -0.66], 0.25, 4)).toEqual([7, 0, 3, -7]);
    expect(c.prunedLevels(m.bell(500, 3), 0.9, 4).filter((level) => level !== 0)).toHaveLength(50);
  });
});

describe("Huffman codes", () => {
  test("the example of the textbooks: 45, 13, 12, 16, 9, 5", () => {
    const counts = [45, 13, 12, 16, 9, 5];
    expect(c.huffmanLengths(counts)).toEqual([1, 3, 3, 3, 4, 4]);
    expect(c.codedBits(counts, c.huffmanLengths(counts))).toBe(224);
    expect(c.canonicalCodes([1, 3, 3, 3, 4, 4])).toEqual(["0", "100", "101", "110", "1110", "1111"]);
  });

  test("no lengths that a prefix code can have are shorter", () => {
    for (const counts of [
      [1, 1, 2, 3, 5],
      [10, 10, 10, 10, 10],
      [90, 4, 3, 2, 1],
      [7, 1, 1, 1, 1],
    ]) {
      let least = Infinity;
      for (const lengths of lists(counts.length, 1, counts.length)) {
        if (sum(lengths.map((length) => 2 ** -length)) <= 1) least = Math.min(least, c.codedBits(counts, lengths));
      }
      expect(c.codedBits(counts, c.huffmanLengths(counts))).toBe(least);
    }
  });

  test("absent symbols have no code, a single one has a bit, and no code begins another", () => {
    expect(c.huffmanLengths([0, 9, 0])).toEqual([0, 1, 0]);
    expect(c.huffmanLengths([0, 0])).toEqual([0, 0]);
    const counts = c.tally(c.prunedLevels(m.bell(2000, 5), 0.5, 4), -7, 7);
    const codes = c.canonicalCodes(c.huffmanLengths(counts)).filter(Boolean);
    for (const a of codes) for (const b of codes) expect(a !== b && b.startsWith(a)).toBe(false);
    const each = c.codedBits(counts, c.huffmanLengths(counts)) / 2000;
    expect(each).toBeGreaterThanOrEqual(c.entropyOf(counts));
    expect(each).toBeLessThan(c.entropyOf(counts) + 1);
  });

  test("at 90 % zeros one bit a symbol is far above the entropy, and gaps are near it", () => {
    const levels = c.prunedLevels(m.bell(4000, 21), 0.9, 4);
    const counts = c.tally(levels, -7, 7);
    const bound = 4000 * c.entropyOf(counts);
    const dense = c.codedBits(counts, c.huffmanLengths(counts)) / bound - 1;
    expect(dense).toBeGreaterThan(0.5);
    expect(dense).toBeLessThan(0.75);
    const { gaps, values } = c.gapBits(levels, 5);
    expect(gaps + values).toBeLessThan(1.1 * bound);
  });

  test("gaps: where more zeros follow than fit, an entry of level zero stands between", () => {
    expect(c.gapEntries([0, 0, 0, 5, 0, 0, -2, 0], 2)).toEqual([
      { gap: 3, level: 5 },
      { gap: 2, level: -2 },
    ]);
    expect(c.gapEntries([0, 0, 0, 0, 0, 5], 2)).toEqual([
      { gap: 3, level: 0 },
      { gap: 1, level: 5 },
    ]);
    expect(c.gapEntries([0, 0, 0, 0], 8)).toEqual([]);
    expect(c.gapBits([0, 0, 0, 0, 0, 5], 2)).toEqual({ gaps: 2, values: 2, fillers: 1 });
  });

  test("gaps and levels put in a row are the weights again", () => {
    for (const sparsity of [0, 0.5, 0.97]) {
      const levels = c.prunedLevels(m.bell(600, 8), sparsity, 4);
      for (const bits of [1, 3, 8]) {
        const back = c.gapEntries(levels, bits).flatMap(({ gap, level }) => [...new Array<number>(gap).fill(0), level]);
        while (back.length < levels.length) back.push(0);
        expect(back).toEqual(levels);
      }
    }
  });
});

describe("arithmetic coding", () => {
  const walk = (decisions: readonly number[], chance: (before: readonly number[]) => number): c.Interval =>
    decisions.reduce((now, value, i) => c.narrow(now, value, chance(decisions.slice(0, i))), { low: 0, width: 1 });

  test("0 0 1 0 at one in ten ends in [0.1981, 0.271), in which 0.01 is the shortest fraction", () => {
    const { low, width } = walk([0, 0, 1, 0], () => 0.1);
    expect(low).toBeCloseTo(0.1981, 12);
    expect(width).toBeCloseTo(0.0729, 12);
    expect(c.shortestFraction({ low, width })).toBe("01");
    expect(c.shortestFraction({ low: 0, width: 1 })).toBe("");
  });

  test("what is written is read again, in at most one bit over the interval's worth", () => {
    const learnedChance = (before: readonly number[]) => c.learned(sum(before), before.length);
    for (const chance of [() => 0.5, () => 0.1, learnedChance]) {
      for (const decisions of lists(8, 0, 1)) {
        const interval = walk(decisions, chance);
        const digits = c.shortestFraction(interval);
        expect(digits.length).toBeLessThanOrEqual(Math.ceil(c.ideal(interval.width)));
        expect(c.readFraction(digits, 8, chance)).toEqual(decisions);
      }
    }
  });

  test("learned probabilities cost by counts alone, whatever the order", () => {
    const cost = (row: number[]) => sum(c.adaptiveCosts([row], () => 0).flat());
    expect(cost([0, 0, 1, 0, 0, 0, 1, 0])).toBeCloseTo(8.539561686017349, 10);
    expect(cost([1, 1, 0, 0, 0, 0, 0, 0])).toBeCloseTo(8.539561686017349, 10);
    // The task of the lesson: two ones in twelve.
    expect(cost([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).toBeLessThan(0.85 * 12);
  });

  test("contexts go below the order-0 entropy where rows differ, and do not where all is chance", () => {
    const next = m.stream(4);
    const map = (density: (row: number) => number) =>
      Array.from({ length: 20 }, (_, r) => Array.from({ length: 60 }, () => (next() < density(r) ? 1 : 0)));
    const rows = map((r) => (r % 2 ? 0.02 : 0.7));
    const even = map(() => 0.36);
    const bound = (of: number[][]) => 1200 * c.entropyOf(c.tally(of.flat(), 0, 1));
    const cost = (of: number[][]) =>
      sum(c.adaptiveCosts(of, (r, q) => 2 * (of[r]![q - 1] ?? 0) + (of[r]![q - 2] ?? 0)).flat());
    expect(cost(rows)).toBeLessThan(0.85 * bound(rows));
    expect(cost(even)).toBeGreaterThan(0.995 * bound(even));
  });
});

describe("asymmetric numeral systems", () => {
  const frequencies = [5, 2, 1];

  test("0 + 0 - 0 with 5, 2 and 1 slots of 8 takes 8 to 979", () => {
    // 8 -> 11 (0) -> 95 (-) -> 152 (0) -> 613 (+) -> 979 (0), by hand.
    expect(c.ransStates([0, 1, 0, 2, 0], frequencies, 8)).toEqual([8, 11, 95, 152, 613, 979]);
    expect(c.slotStarts(frequencies)).toEqual({ starts: [0, 5, 7], total: 8 });
    expect(c.ransPop(979, frequencies)).toEqual({ x: 613, symbol: 0, slot: 3 });
  });

  test("every number is one symbol's, and taking it out and putting it in again is the same number", () => {
    for (let x = 0; x < 500; ++x) {
      const { x: before, symbol } = c.ransPop(x, frequencies);
      expect(c.ransPush(before, symbol, frequencies)).toBe(x);
    }
  });

  test("what goes in last comes out first, and the state grows by what the symbols are worth", () => {
    const next = m.stream(9);
    const message = Array.from({ length: 20 }, () => [0, 0, 0, 0, 0, 1, 1, 2][Math.floor(8 * next())]!);
    const states = c.ransStates(message, frequencies, 1024);
    let x = states.at(-1)!;
    expect(x).toBeLessThan(2 ** 53);
    const worth = sum(message.map((symbol) => c.ideal(frequencies[symbol]! / 8)));
    expect(Math.abs(Math.log2(x / 1024) - worth)).toBeLessThan(0.1);
    for (const symbol of message) {
      const popped = c.ransPop(x, frequencies);
      expect(popped.symbol).toBe(symbol);
      x = popped.x;
    }
    expect(x).toBe(1024);
  });
});

describe("shared values", () => {
  test("the three starts", () => {
    const x = [0, 1, 2, 3, 4, 5, 6, 30];
    expect(c.initialCentroids(x, 4, "linear")).toEqual([0, 10, 20, 30]);
    expect(c.initialCentroids([0, 1, 2, 3, 4], 2, "density")).toEqual([1, 3]);
    for (const v of c.initialCentroids(x, 4, "random")) expect(x).toContain(v);
    expect(c.initialCentroids(x, 1, "linear")).toEqual([15]);
  });

  test("one round by hand: borders halfway, then means; a value that nothing is near stays", () => {
    expect(c.lloydStep([0, 1, 2, 9, 11], [0, 12])).toEqual([1, 10]);
    expect(c.lloydStep([0, 2], [1, 50])).toEqual([1, 50]);
    expect(c.lloyd([0, 1, 2, 9, 11], [0, 12])).toEqual([
      [0, 12],
      [1, 10],
    ]);
  });

  test("the error never rises, and ends where no value can move", () => {
    const x = m.bell(400, 12);
    for (const initial of ["linear", "density", "random"] as const) {
      const rounds = c.lloyd(x, c.initialCentroids(x, 8, initial));
      const errors = rounds.map((centroids) => c.sharingError(x, centroids));
      errors.forEach((error, i) => expect(error).toBeLessThanOrEqual(errors[Math.max(0, i - 1)]!));
      expect(c.lloydStep(x, rounds.at(-1)!)).toEqual(rounds.at(-1));
      expect(errors.at(-1)!).toBeGreaterThanOrEqual(c.leastSharingError(x, 8) - 1e-12);
    }
  });

  test("the least error is the least over all ways of sharing out the weights", () => {
    const x = m.bell(7, 13);
    for (const k of [1, 2, 3]) {
      let least = Infinity;
      for (const groups of lists(7, 0, k - 1)) {
        const parts = Array.from({ length: k }, (_, g) => x.filter((_, i) => groups[i] === g)).filter((p) => p.length);
        least = Math.min(least, sum(parts.map((part) => part.length * m.deviation(part) ** 2)) / 7);
      }
      expect(c.leastSharingError(x, k)).toBeCloseTo(least, 12);
    }
    expect(c.leastSharingError(x, 7)).toBeCloseTo(0, 12);
  });

  test("the lesson's weights: density ends with the least error of the three, linear with the smallest largest one", () => {
    const all = m.bell(1000, 31, 0.1);
    const x = all.filter((_, i) => m.dropSmallest(all, 700)[i]);
    const ends = (["linear", "density", "random"] as const).map((initial) =>
      c.lloyd(x, c.initialCentroids(x, 8, initial)).at(-1)!,
    );
    const squared = ends.map((centroids) => c.sharingError(x, centroids));
    const largest = ends.map((centroids) => m.maxAbs(x.map((v) => v - centroids[c.nearestOf(centroids, v)]!)));
    expect(Math.min(...squared)).toBe(squared[1]);
    expect(Math.min(...largest)).toBe(largest[0]);
  });

  test("32 values for 400,000 weights cost 5 bits each and next to nothing, for 500 more than a bit each", () => {
    expect(c.sharingBits(400000, 32)).toEqual({ indices: 2000000, codebook: 1024 });
    expect(c.sharingBits(500, 32).codebook / 500).toBeGreaterThan(2);
  });
});

describe("rounding that counts bits", () => {
  const prices = [6, 3, 0.5, 3, 6]; // of -2 to 2
  const eye = (n: number, of = (_: number) => 1) =>
    Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => (i === j ? of(i) : 0)));

  test("the worked example: at 1.45 steps, level 0 wins from lambda 1.27 on", () => {
    const costs = [9, 9, 0.5, 2, 4];
    expect(c.cheapest(1.45, 1, 0, costs)).toBe(1);
    expect(c.cheapest(1.45, 1, 1.26, costs)).toBe(1);
    expect(c.cheapest(1.45, 1, 1.27, costs)).toBe(0);
    expect(c.cheapest(9, 1, 0, costs)).toBe(2);
    expect(c.cheapest(1.45, 1, 0, [Infinity, Infinity, 0, Infinity, Infinity])).toBe(1);
    expect(c.cheapest(1.45, 1, 0.1, [Infinity, Infinity, 0, Infinity, Infinity])).toBe(0);
  });

  test("weight by weight it is the least of all choices of levels", () => {
    const rows = Array.from({ length: 12 }, (_, r) => m.bell(4, 40 + r));
    const curvature = [0.3, 1, 4, 0.7];
    const factor = eye(4, (i) => 1 / Math.sqrt(curvature[i]!));
    for (const lambda of [0, 0.05, 0.3, 2]) {
      const levels = c.sweep(rows, factor, lambda, prices);
      rows.forEach((row, r) => {
        const loss = (q: readonly number[]) =>
          sum(row.map((w, i) => curvature[i]! * (w - q[i]!) ** 2 + lambda * prices[q[i]! + 2]!));
        let least = Infinity;
        for (const choice of lists(4, -2, 2)) least = Math.min(least, loss(choice));
        expect(loss(levels[r]!)).toBeCloseTo(least, 12);
      });
    }
  });

  test("the factor of an inverse, by hand and by multiplying", () => {
    const small = c.inverseFactor([
      [2, 1],
      [1, 2],
    ]);
    expect(small[0]![0]! ** 2).toBeCloseTo(2 / 3, 12);
    expect(small[0]![0]! * small[0]![1]!).toBeCloseTo(-1 / 3, 12);
    expect(small[1]![1]! ** 2).toBeCloseTo(1 / 2, 12);
    expect(small[1]![0]).toBe(0);
    const matrix = Array.from({ length: 6 }, (_, i) => Array.from({ length: 6 }, (_, j) => 0.8 ** Math.abs(i - j)));
    const upper = c.inverseFactor(matrix);
    for (let i = 0; i < 6; ++i) {
      for (let j = 0; j < 6; ++j) {
        // matrix * U^T U is the unit matrix.
        const entry = sum(matrix[i]!.map((v, k) => v * sum(upper.map((row) => row[k]! * row[j]!))));
        expect(entry).toBeCloseTo(i === j ? 1 : 0, 10);
      }
    }
  });

  test("with two weights that hang together, the second is the best there is for what the first became", () => {
    const hessian = [
      [1, 0.9],
      [0.9, 1],
    ];
    const factor = c.inverseFactor(hessian);
    const rows = Array.from({ length: 40 }, (_, r) => m.bell(2, 70 + r));
    const nearest = rows.map((row) => row.map((w) => Math.max(-2, Math.min(2, Math.round(w)))));
    const price = (row: number[], q: number[], lambda: number) =>
      2 * c.quadraticLoss([row], [q], hessian) + lambda * sum(q.map((level) => prices[level + 2]!));
    for (const lambda of [0, 0.1, 0.4]) {
      const levels = c.sweep(rows, factor, lambda, prices);
      rows.forEach((row, r) => {
        const [first, second] = levels[r]! as [number, number];
        const others = [-2, -1, 0, 1, 2].map((level) => price(row, [first, level], lambda));
        expect(price(row, [first, second], lambda)).toBeCloseTo(Math.min(...others), 10);
      });
    }
    const made = c.sweep(rows, factor, 0, prices);
    expect(c.quadraticLoss(rows, made, hessian)).toBeLessThan(0.7 * c.quadraticLoss(rows, nearest, hessian));
  });

  test("without lambda it is rounding to nearest; more lambda never makes the error of a pass smaller or its bits more", () => {
    const rows = Array.from({ length: 20 }, (_, r) => m.bell(16, 500 + r, 1.6));
    const first = c.rateRound(rows, eye(16), 0, 7);
    expect(first.levels).toEqual(rows.map((row) => row.map((w) => Math.round(w) + 0)));
    expect(first.bits).toBeCloseTo(c.entropyOf(c.tally(first.levels.flat(), -7, 7)), 12);
    const pass = (lambda: number) => {
      const levels = c.sweep(rows, eye(16), lambda, first.prices);
      return {
        bits: sum(levels.flat().map((level) => first.prices[level + 7]!)),
        error: c.quadraticLoss(rows, levels, eye(16)),
      };
    };
    const passes = [0, 0.05, 0.1, 0.3, 1].map(pass);
    passes.slice(1).forEach(({ bits, error }, i) => {
      expect(bits).toBeLessThanOrEqual(passes[i]!.bits);
      expect(error).toBeGreaterThanOrEqual(passes[i]!.error);
    });
  });

  test("asking for prices again never makes error + lambda bits worse", () => {
    const rows = Array.from({ length: 20 }, (_, r) => m.bell(16, 500 + r, 1.6));
    for (const lambda of [0.1, 0.3]) {
      const objective = [0, 1, 2, 4, 6].map((rounds) => {
        const { levels, bits } = c.rateRound(rows, eye(16), lambda, 7, rounds);
        return c.quadraticLoss(rows, levels, eye(16)) + lambda * bits;
      });
      objective.forEach((value, i) => expect(value).toBeLessThanOrEqual(objective[Math.max(0, i - 1)]! + 1e-12));
    }
  });

  test("the lesson's corner, 2 bits at a loss of 0.12, is reached with the Hessian and not without", () => {
    const rows = Array.from({ length: 20 }, (_, r) => m.bell(16, 500 + r, 1.6));
    const strength = Array.from({ length: 16 }, (_, i) => (i % 4 === 2 ? 2.5 : 0.5));
    const hessian = strength.map((a, i) => strength.map((b, j) => Math.sqrt(a * b) * 0.8 ** Math.abs(i - j)));
    const factors = {
      none: eye(16),
      diagonal: eye(16, (i) => 1 / Math.sqrt(strength[i]!)),
      hessian: c.inverseFactor(hessian),
    };
    const reached = Object.entries(factors).filter(([, factor]) =>
      Array.from({ length: 16 }, (_, i) => i / 25).some((lambda) => {
        const { levels, bits } = c.rateRound(rows, factor, lambda, 7);
        return bits < 2 && c.quadraticLoss(rows, levels, hessian) < 0.12;
      }),
    );
    expect(reached.map(([name]) => name)).toEqual(["hessian"]);
  });
});

describe("the lessons", () => {
  type Words = { en: string; zh: string };
  /** What of a lesson is looked at here; the tests are compiled without JSX. */
  interface Texts {
    id: string;
    title: Words;
    ask: Words;
    options: Words[];
    answer: number;
    replies: (Words | null)[];
    task: Words;
    points: Words[];
    symbols: [string, Words][];
    tryIt: Words;
  }
  const load = (file: string): Promise<Record<string, unknown>> => import(`../../web/src/lessons/${file}.tsx`);
  const kFiles = {
    clusters: "clusters",
    huffman: "huffman",
    entropy: "entropy",
    rans: "rans",
    rate_distortion: "rate-distortion",
    nib: "nib",
  };

  test("every option has its reply, and every text both languages", async () => {
    for (const [file, id] of Object.entries(kFiles)) {
      const lesson = Object.values(await load(file))[0] as Texts;
      expect(lesson.id).toBe(id);
      expect(lesson.options[lesson.answer], id).toBeDefined();
      expect(lesson.replies[lesson.answer], id).not.toBeNull();
      expect(lesson.replies, id).toHaveLength(lesson.options.length);
      const texts = [lesson.title, lesson.ask, lesson.task, lesson.tryIt, ...lesson.options, ...lesson.points];
      for (const words of [...texts, ...lesson.symbols.map(([, words]) => words)]) {
        expect(words.en.length, id).toBeGreaterThan(0);
        expect(words.zh.length, id).toBeGreaterThan(0);
      }
    }
  });

  test("controls of the steps cluster and encode lead to their lessons", async () => {
    expect((await load("index")).lessonFor).toMatchObject({
      cluster_bits: "clusters",
      initial: "clusters",
      coder: "entropy",
      lambda: "rate-distortion",
      importance: "rate-distortion",
    });
  });
});
