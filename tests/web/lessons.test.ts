// The lessons' arithmetic against worked examples, closed forms and brute force.
import { describe, expect, test } from "vitest";
import * as m from "../../web/src/lessons/math";

/** Many normal weights, for laws that hold on average. */
const weights = m.bell(2000, 7);

describe("rounding", () => {
  test("3.6 with step 1 becomes 4 with error -0.4", () => {
    for (const rule of [m.roundHalfAway, m.roundHalfEven]) {
      const { code, value, error } = m.quantizeOne(3.6, 1, rule);
      expect([code, value]).toEqual([4, 4]);
      expect(error).toBeCloseTo(-0.4, 12);
    }
  });

  test("-3.6 becomes -4, and the misprinted branch gives -5", () => {
    expect(m.quantizeOne(-3.6, 1, m.roundHalfAway).code).toBe(-4);
    expect(m.quantizeOne(-3.6, 1, m.roundHalfEven).code).toBe(-4);
    expect(m.quantizeOne(-3.6, 1, m.roundMisprinted).code).toBe(-5);
  });

  test("the misprint moves even a number that is a level already, and agrees only on ties", () => {
    expect(m.roundMisprinted(-3)).toBe(-4);
    expect(m.roundMisprinted(-3.5)).toBe(m.roundHalfAway(-3.5));
  });

  test("ties go away from zero or to the even neighbor", () => {
    const ties = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5];
    expect(ties.map((y) => m.roundHalfAway(y) + 0)).toEqual([-3, -2, -1, 1, 2, 3]);
    expect(ties.map((y) => m.roundHalfEven(y) + 0)).toEqual([-2, -2, 0, 0, 2, 2]);
  });

  test("rounding to nearest has no mean error, offset rounding half a step, the misprint a whole one below zero", () => {
    for (const s of [0.25, 1, 1.5]) {
      expect(m.meanError(s, m.roundHalfAway)).toBeCloseTo(0, 9);
      expect(m.meanError(s, m.roundHalfEven)).toBeCloseTo(0, 9);
      expect(m.meanError(s, m.roundOffset)).toBeCloseTo(-s / 2, 9);
      expect(m.meanError(s, m.roundMisprinted)).toBeCloseTo(s / 2, 9); // a whole step on the negative half
    }
  });

  test("stochastic rounding is right on average, with variance s^2 f (1 - f)", () => {
    const next = m.stream(3);
    const s = 0.5;
    for (const x of [0.15, -0.4, 1.1]) {
      const draws = Array.from({ length: 20000 }, () => m.roundStochastic(x, s, next()));
      const f = x / s - Math.floor(x / s);
      const variance = s * s * f * (1 - f);
      expect(Math.abs(m.mean(draws) - x)).toBeLessThan(5 * Math.sqrt(variance / draws.length));
      expect(m.deviation(draws) ** 2 / variance).toBeCloseTo(1, 1);
    }
    expect(m.roundStochastic(1.5, 0.5, 0.999)).toBe(1.5); // a level never moves
  });
});

describe("grids", () => {
  test("int4 holds -8 to 7 and int8 -128 to 127", () => {
    expect(m.storageRange(4)).toEqual([-8, 7]);
    expect(m.storageRange(8)).toEqual([-128, 127]);
    expect(m.storageRange(5)).toEqual([-16, 15]);
  });

  test("a symmetric grid ends at plus and minus the clip and two bits are ternary", () => {
    const grid = m.symmetricGrid(1.4, 4);
    expect(grid.scale).toBeCloseTo(0.2, 12);
    expect([grid.lowest, grid.highest]).toEqual([-7, 7]);
    expect(m.levels(m.symmetricGrid(3, 2)).map((v) => v + 0)).toEqual([-3, 0, 3]);
  });

  test("an affine grid has zero among its levels, whatever the range", () => {
    for (const [min, max] of [
      [-0.2, 1.4],
      [-1, 1],
      [0.3, 2],
      [-2, -0.5],
      [0, 0],
    ] as const) {
      const grid = m.affineGrid(min, max, 4);
      expect(Number.isInteger(grid.zeroPoint)).toBe(true);
      expect(m.snap(0, grid)).toBe(0);
      expect(m.levels(grid)).toHaveLength(16);
    }
    expect(m.affineGrid(-0.2, 1.4, 4).zeroPoint).toBe(2);
    expect(m.affineGrid(-0.2, 1.4, 4).scale).toBeCloseTo(1.6 / 15, 12);
    expect(m.codeOf(0.5, { scale: 1, zeroPoint: 3, lowest: 0, highest: 15 })).toBe(3); // round(0.5) + 3, not round(3.5)
    expect(m.snap(0, m.looseAffineGrid(-0.2, 1.4, 4))).not.toBe(0);
    expect(m.snap(0, m.looseAffineGrid(0.3, 2, 4))).toBeCloseTo(0.3, 12);
  });

  test("the mean magnitude is the least-squares scale of one bit", () => {
    const error = (s: number) => m.compare(weights, m.binarize(weights, s)).mse;
    const s = m.meanAbs(weights);
    for (const factor of [0.5, 0.9, 0.99, 1.01, 1.1, 2]) expect(error(s)).toBeLessThan(error(s * factor));
    // Of a normal distribution 1 - 2/pi of the energy is lost.
    expect(m.compare(weights, m.binarize(weights)).sqnrDb).toBeCloseTo(-10 * Math.log10(1 - 2 / Math.PI), 0);
  });

  test("one more bit halves the error: about 6.02 dB", () => {
    const db = (bits: number) => m.compare(weights, m.fakeQuantize(weights, bits)).sqnrDb;
    for (const bits of [5, 6, 7, 8]) expect(Math.abs(db(bits + 1) - db(bits) - 6.02)).toBeLessThan(0.6);
  });

  test("the fitted range beats min-max, most of all at few bits", () => {
    const gain = (bits: number) =>
      m.compare(weights, m.fakeQuantize(weights, bits, m.bestClip(weights, bits))).sqnrDb -
      m.compare(weights, m.fakeQuantize(weights, bits)).sqnrDb;
    expect(gain(2)).toBeGreaterThan(gain(4));
    expect(gain(4)).toBeGreaterThan(1);
    expect(gain(8)).toBeGreaterThanOrEqual(0);
  });
});

describe("error", () => {
  test("SQNR, cosine and largest error of a hand-made pair", () => {
    const { mse, sqnrDb, maxAbs, cosine } = m.compare([3, 4], [3, 3.5]);
    expect(mse).toBeCloseTo(0.125, 12);
    expect(sqnrDb).toBeCloseTo(20, 12); // 25 / 0.25 = 100
    expect(maxAbs).toBe(0.5);
    expect(cosine).toBeCloseTo(23 / Math.sqrt(25 * 21.25), 12);
    expect(m.compare([1], [1]).sqnrDb).toBe(Infinity);
  });

  test("rounding and clipping errors add up to the whole", () => {
    for (const clip of [0.5, 1, 2, 5]) {
      const { rounding, clipping } = m.splitError(weights, 4, clip);
      expect(rounding + clipping).toBeCloseTo(m.compare(weights, m.fakeQuantize(weights, 4, clip)).mse, 12);
    }
    expect(m.splitError(weights, 4, m.maxAbs(weights)).clipping).toBe(0);
  });

  test("far from clipping the rounding error is a twelfth of the squared step", () => {
    const grid = m.symmetricGrid(m.maxAbs(weights), 8);
    expect(m.splitError(weights, 8, m.maxAbs(weights)).rounding / (grid.scale ** 2 / 12)).toBeCloseTo(1, 1);
  });

  test("quantiles interpolate and the deviation is the root of the variance", () => {
    expect(m.quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(m.quantile([4, 1, 3, 2], 1)).toBe(4);
    expect(m.deviation([2, 4, 4, 4, 5, 5, 7, 9])).toBe(2);
    expect(m.histogram([-9, 0, 0.5, 9], -1, 1, 4)).toEqual([1, 0, 1, 2]);
  });

  test("a scale of 32 bits shared by 32 weights costs one bit each", () => {
    expect(m.bitsPerWeight(4, 32)).toBe(5);
    expect(m.bitsPerWeight(4, 128)).toBe(4.25);
  });

  test("groups keep a wide neighbor from spoiling the rest", () => {
    const row = [...m.bell(32, 1, 0.01), ...m.bell(32, 2, 1)];
    const narrow = row.slice(0, 32);
    expect(
      m
        .fakeQuantize(row, 4)
        .slice(0, 32)
        .every((v) => v === 0),
    ).toBe(true);
    expect(m.compare(narrow, m.quantizeGroups(row, 4, 32).slice(0, 32)).sqnrDb).toBeGreaterThan(15);
  });
});

describe("pruning", () => {
  test("layer scope drops the same share of each layer, global scope the smallest of all", () => {
    const layers = [
      [0.1, -0.2, 0.3, -0.4],
      [1, -2, 3, -4],
    ];
    expect(m.pruneLayers(layers, 0.5, "layer")).toEqual([
      [false, false, true, true],
      [false, false, true, true],
    ]);
    expect(m.pruneLayers(layers, 0.5, "global")).toEqual([
      [false, false, false, false],
      [true, true, true, true],
    ]);
    expect(m.pruneLayers(layers, 0, "global").flat().every(Boolean)).toBe(true);
    expect(m.pruneLayers(layers, 1, "layer").flat().some(Boolean)).toBe(false);
  });

  test("global pruning keeps the most energy of any mask of its size", () => {
    const layers = [m.bell(40, 5, 0.1), m.bell(40, 6, 1)];
    const kept = (scope: "layer" | "global") => {
      const keep = m.pruneLayers(layers, 0.6, scope).flat();
      expect(keep.filter(Boolean)).toHaveLength(32);
      return m.energy(layers.flat().filter((_, i) => keep[i]));
    };
    expect(kept("global")).toBeGreaterThan(kept("layer"));
  });

  test("2:4 keeps the two largest of every four", () => {
    expect(m.keepNOfM([1, -5, 2, 4, 0, 0, 0, 0, 9, -8], 2, 4)).toEqual([
      false,
      true,
      false,
      true,
      true,
      true,
      false,
      false,
      true,
      true,
    ]);
    const keep = m.keepNOfM(weights, 2, 4);
    for (let i = 0; i < keep.length; i += 4) expect(keep.slice(i, i + 4).filter(Boolean)).toHaveLength(2);
  });

  test("half of the channels is three quarters of the weights", () => {
    expect(m.removedByChannels(0.5)).toBe(0.75);
    expect(
      m.keepRows(
        [
          [3, 4],
          [1, 1],
          [0, 6],
          [2, 2],
        ],
        0.5,
      ),
    ).toEqual([true, false, true, false]);
  });
});

describe("learning", () => {
  /** Slope by trying. */
  const slope = (f: (x: number) => number, x: number): number => (f(x + 1e-5) - f(x - 1e-5)) / 2e-5;

  test("the valley's slope is its slope, and its left minimum is the deeper one", () => {
    for (const x of [-2, -0.4, 0, 0.9, 1.7]) expect(m.valleySlope(x)).toBeCloseTo(slope(m.valley, x), 8);
    const lowest = (from: number, to: number): number =>
      Math.min(...Array.from({ length: 1001 }, (_, i) => m.valley(from + ((to - from) * i) / 1000)));
    expect(lowest(-2.2, 0)).toBeLessThan(lowest(0.5, 2.2) - 0.5);
  });

  test("on a parabola plain descent shrinks by 1 - 2 rate a step, and flies away beyond rate 1", () => {
    const path = m.descend((x) => 2 * x, 1, 0.1, 5, "sgd");
    path.forEach((x, i) => expect(x).toBeCloseTo(0.8 ** i, 12));
    expect(m.descend((x) => 2 * x, 1, 1.5, 200, "sgd").length).toBeLessThan(201);
  });

  test("momentum's first steps on a straight slope are 1, 1.9 and 2.71 rates long", () => {
    const [a, b, c, d] = m.descend(() => 1, 0, 1, 3, "momentum") as [number, number, number, number];
    expect([a - b, b - c, c - d].map((step) => Number(step.toFixed(12)))).toEqual([1, 1.9, 2.71]);
  });

  test("Adam steps by its rate, however steep the slope is", () => {
    for (const steepness of [1e-3, 1, 1e3]) {
      const path = m.descend(() => steepness, 0, 0.25, 4, "adam");
      path.forEach((x, i) => expect(x).toBeCloseTo(-0.25 * i, 4));
    }
  });

  test("the lesson's task can be done, and not by plain descent at its starting rate", () => {
    const end = (rate: number, optimizer: m.Optimizer): number =>
      m.descend(m.valleySlope, 1.9, rate, 60, optimizer).at(-1)!;
    expect(end(0.05, "sgd")).toBeGreaterThan(1);
    expect(end(0.2, "momentum")).toBeLessThan(-0.7);
    expect(end(1.4, "adam")).toBeLessThan(-0.7);
  });

  test("the chain rule agrees with trying each number", () => {
    const [x, w, c, t] = [2, 1.5, -1, -2];
    const now = m.chain(x, w, c, t);
    expect(now.dw).toBeCloseTo(
      slope((v) => m.chain(x, v, c, t).loss, w),
      6,
    );
    expect(now.dx).toBeCloseTo(
      slope((v) => m.chain(v, w, c, t).loss, x),
      6,
    );
    expect(now.dc).toBeCloseTo(
      slope((v) => m.chain(x, w, v, t).loss, c),
      6,
    );
    expect([now.a, now.b, now.loss]).toEqual([3, 2, 16]);
  });

  test("fine-tuning with a mask repairs most of the damage and keeps the zeros; without one they grow back", () => {
    const { x, y } = m.regressionData(80, 18, 7);
    const all = new Array<boolean>(18).fill(true);
    const trained = m.fineTune(x, y, new Array<number>(18).fill(0), all, 600, 0.05);
    const keep = m.dropSmallest(trained.weights, 9);
    const pruned = trained.weights.map((w, i) => (keep[i] ? w : 0));
    const tuned = m.fineTune(x, y, pruned, keep, 60, 0.05);
    const [before, damaged, after] = [trained.losses.at(-1)!, tuned.losses[0]!, tuned.losses.at(-1)!];
    expect(damaged).toBeGreaterThan(before * 10);
    expect((damaged - after) / (damaged - before)).toBeGreaterThan(0.75);
    expect(tuned.weights.filter((w) => w === 0)).toHaveLength(9);
    expect(m.fineTune(x, y, pruned, all, 60, 0.05).weights.filter((w) => w === 0)).toHaveLength(0);
    // Descent with a rate that is small enough never goes up.
    tuned.losses.forEach((loss, i) => expect(loss).toBeLessThanOrEqual(tuned.losses[Math.max(0, i - 1)]!));
  });

  test("Chebyshev polynomials are cosines of multiples of an angle", () => {
    for (const angle of [0.1, 1, 2.5])
      m.chebyshev(Math.cos(angle), 7).forEach((value, k) => expect(value).toBeCloseTo(Math.cos(k * angle), 12));
  });

  test("a fit goes through as many points as it has numbers, and finds the polynomial that made them", () => {
    const x = [-0.9, -0.5, -0.1, 0.2, 0.4, 0.7, 0.95];
    const y = x.map((v) => 1 - 2 * v + 0.5 * v ** 3);
    const fit = m.polynomialFit(x, y, 3);
    expect(m.polynomialError(fit, x, y)).toBeLessThan(1e-12);
    expect(m.polynomialAt(fit, 0.33)).toBeCloseTo(1 - 0.66 + 0.5 * 0.33 ** 3, 10);
    const noisy = m.bell(7, 3);
    expect(m.polynomialError(m.polynomialFit(x, noisy, 6), x, noisy)).toBeLessThan(1e-9);
    // The residual of a least squares fit is orthogonal to every polynomial of its degree.
    const line = m.polynomialFit(x, noisy, 1);
    const rest = x.map((v, i) => noisy[i]! - m.polynomialAt(line, v));
    expect(rest.reduce((sum, r) => sum + r, 0)).toBeCloseTo(0, 10);
    expect(rest.reduce((sum, r, i) => sum + r * x[i]!, 0)).toBeCloseTo(0, 10);
  });

  test("more degrees never fit the training points worse", () => {
    const x = m.bell(14, 8, 0.4).map((v) => Math.max(-1, Math.min(1, v)));
    const y = m.bell(14, 9);
    const errors = Array.from({ length: 11 }, (_, i) => m.polynomialError(m.polynomialFit(x, y, i + 1), x, y));
    errors.forEach((error, i) => expect(error).toBeLessThanOrEqual((errors[i - 1] ?? Infinity) + 1e-9));
  });

  test("the network learns the moons; 8 bits keep what it does, 1 bit does not", () => {
    const { points, classes } = m.moons(160, 5);
    const test = m.moons(200, 77);
    const net = m.trainNet([2, 8, 8, 1], points, classes, 200, 3);
    const accuracy = (of: m.Net): number => m.netAccuracy(of, test.points, test.classes);
    expect(accuracy(net)).toBeGreaterThan(0.93);
    expect(Math.abs(accuracy(m.quantizeNet(net, [8, 8, 8])) - accuracy(net))).toBeLessThan(0.011);
    expect(accuracy(m.quantizeNet(net, [1, 1, 1]))).toBeLessThan(accuracy(net) - 0.05);
    // The lesson's task: 10 bits in all, 2 points.
    expect(accuracy(m.quantizeNet(net, [4, 4, 2]))).toBeGreaterThan(accuracy(net) - 0.02);
  });
});

test("the streams repeat for one seed and differ for another", () => {
  expect(m.bell(5, 1)).toEqual(m.bell(5, 1));
  expect(m.bell(5, 1)).not.toEqual(m.bell(5, 2));
  expect(Math.abs(m.mean(weights))).toBeLessThan(0.1);
  expect(m.deviation(weights)).toBeCloseTo(1, 1);
});
