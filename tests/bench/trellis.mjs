// Would trellis-coded quantization pay? An experiment: weights are quantized for least error + lambda * bits with scalar
// levels, and with a trellis of 4 or 8 states, both against the same model of an adaptive coder, and the bits are compared
// at equal mean squared error. Gives numbers; printing is the caller's.

/// Of a tensor, so many weights from its start stand for all.
const kMost = 1 << 15;
const kPasses = 6;
/// Steps by the weights' root mean square: every quarter octave from a quarter of it to four times.
const kSteps = Array.from({ length: 17 }, (_, i) => 2 ** (i / 4 - 2));
/// lambda / step^2. At high rate the slope of error over bits is 2 ln 2 / 12 = 0.116 of it.
const kSlopes = [0.05, 0.08, 0.12, 0.18, 0.27];
/// Bits per weight of the scalar levels at which the others are compared.
const kRates = [0.5, 0.75, 1, 1.5, 2, 3, 4];

// --- Cost of levels -------------------------------------------------------------------------------------------------------

const kClasses = 14; // of magnitudes, by their number of bits
const kTree = 8; // contexts for the three highest bits below the leading one
const kContexts = 1 + kClasses + kClasses * kTree;
const kMagnitudes = 1 << 12;

/// The binary decisions of each magnitude as context * 2 + bit: zero or not, the class in unary, three bits by a tree.
const kDecisions = Array.from({ length: kMagnitudes }, (_, magnitude) => {
  if (magnitude === 0) return [0];
  const decisions = [1];
  const bits = 31 - Math.clz32(magnitude);
  for (let c = 0; c < bits; c++) decisions.push((1 + c) * 2 + 1);
  decisions.push((1 + bits) * 2);
  for (let place = 1, bit = bits - 1; bit >= 0 && place < kTree; bit--) {
    const value = (magnitude >> bit) & 1;
    decisions.push((1 + kClasses + bits * kTree + place) * 2 + value);
    place = place * 2 + value;
  }
  return decisions;
});
/// Bits that are coded as they are: the sign, and what is below the tree.
const raw_bits = (magnitude) => (magnitude === 0 ? 0 : 1 + Math.max(0, 31 - Math.clz32(magnitude) - 3));

/// log2 of the gamma function, by Stirling's series (argument raised above 8 first).
function log2_gamma(x) {
  let product = 1;
  for (; x < 8; x++) product *= x;
  const series = (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + 1 / (12 * x) - 1 / (360 * x ** 3);
  return (series - Math.log(product)) / Math.LN2;
}

/// What an adaptive coder spends on levels: each decision has the probability (n1 + 0.4) / (n + 0.8) of those before it in
/// its context, in whichever order they come.
class Coder {
  constructor(sets) {
    this.counts = Array.from({ length: sets }, () => new Float64Array(2 * kContexts));
    this.raw = 0;
  }
  add(set, level) {
    const magnitude = Math.abs(level);
    for (const decision of kDecisions[magnitude]) this.counts[set][decision]++;
    this.raw += raw_bits(magnitude);
  }
  /// Bits of all that was added: {known, learning}, what they would be if the shares were known, and what is more.
  bits() {
    const start = 2 * log2_gamma(0.4) - log2_gamma(0.8);
    const of = (count, all) => (count > 0 ? count * Math.log2(all / count) : 0);
    let known = this.raw;
    let adaptive = this.raw;
    for (const counts of this.counts) {
      for (let c = 0; c < counts.length; c += 2) {
        const [zeros, ones] = [counts[c], counts[c + 1]];
        if (zeros + ones === 0) continue;
        known += of(zeros, zeros + ones) + of(ones, zeros + ones);
        adaptive += log2_gamma(zeros + ones + 0.8) - log2_gamma(zeros + 0.4) - log2_gamma(ones + 0.4) + start;
      }
    }
    return { known, learning: adaptive - known };
  }
  /// For each set the bits of a magnitude (with its sign) as things stand at the end.
  prices() {
    return this.counts.map((counts) =>
      Float64Array.from({ length: kMagnitudes }, (_, magnitude) => {
        let sum = raw_bits(magnitude);
        for (const decision of kDecisions[magnitude])
          sum -= Math.log2((counts[decision] + 0.4) / (counts[decision] + counts[decision ^ 1] + 0.8));
        return sum;
      }),
    );
  }
}

// --- Quantizers -----------------------------------------------------------------------------------------------------------

const clamped = (level) => Math.max(1 - kMagnitudes, Math.min(kMagnitudes - 1, level));

/// Each value by itself: the nearest level, the two before it, 0. `prices` null: the nearest. Returns {error, coder}.
function scalar(values, step, lambda, prices) {
  const coder = new Coder(1);
  let error = 0;
  for (const value of values) {
    const nearest = clamped(Math.round(value / step));
    const inwards = Math.sign(nearest);
    let best = nearest;
    let least = Infinity;
    for (let i = 0; prices && i < 4; i++) {
      const level = i === 3 ? 0 : nearest - i * inwards;
      const cost = (value - level * step) ** 2 + lambda * prices[0][Math.abs(level)];
      if (cost < least) [least, best] = [cost, level];
    }
    error += (value - best * step) ** 2;
    coder.add(0, best);
  }
  return { error, coder };
}

/// Ungerboeck's codes of one dimension (1982) as parity checks: the lowest bit of a state says which of two union
/// quantizers its level belongs to, the level's lowest bit where the trellis goes.
const kChecks = { 4: [0o5, 0o2], 8: [0o13, 0o04] };
const next_state = (states, state, bit) => {
  const [own, input] = kChecks[states];
  return (state >> 1) ^ (state & 1 ? own >> 1 : 0) ^ (bit ? input >> 1 : 0);
};

/// What a level stands for, in half steps: the even points, or the odd ones and 0 (as in dependent quantization of video).
const half_steps = (union, level) => 2 * level - (union ? Math.sign(level) : 0);

/// The cheapest path through the trellis (Viterbi). `step` is that of a union quantizer: two of its points are two half
/// steps apart. The coder knows which union quantizer a level belongs to. Returns {error, coder}.
function trellis(states, values, step, lambda, prices) {
  const half = step / 2;
  const n = values.length;
  let costs = new Float64Array(states).fill(Infinity);
  costs[0] = 0;
  const came = new Uint8Array(n * states);
  const took = new Int16Array(n * states);
  for (let i = 0; i < n; i++) {
    const next = new Float64Array(states).fill(Infinity);
    for (let union = 0; union < 2; union++) {
      // For each parity the best level of this union quantizer; it is the same in all states that have it.
      const scaled = values[i] / half;
      const nearest = clamped(Math.round((scaled + (union ? Math.sign(scaled) : 0)) / 2));
      const inwards = Math.sign(nearest) || Math.sign(scaled) || 1;
      const best = [0, 0];
      const least = [Infinity, Infinity];
      for (let c = -1; c < 4; c++) {
        const level = c === 3 ? 0 : clamped(nearest - c * inwards);
        const bits = prices ? lambda * prices[union][Math.abs(level)] : 0;
        const cost = (values[i] - half_steps(union, level) * half) ** 2 + bits;
        if (cost < least[level & 1]) [least[level & 1], best[level & 1]] = [cost, level];
      }
      for (let state = union; state < states; state += 2) {
        for (let bit = 0; bit < 2; bit++) {
          const to = next_state(states, state, bit);
          const cost = costs[state] + least[bit];
          if (cost >= next[to]) continue;
          next[to] = cost;
          came[i * states + to] = state;
          took[i * states + to] = best[bit];
        }
      }
    }
    costs = next;
  }
  const coder = new Coder(2);
  let error = 0;
  let state = costs.indexOf(Math.min(...costs));
  for (let i = n - 1; i >= 0; i--) {
    const level = took[i * states + state];
    state = came[i * states + state];
    error += (values[i] - half_steps(state & 1, level) * half) ** 2;
    coder.add(state & 1, level);
  }
  return { error, coder };
}

const kQuantizers = {
  scalar,
  "4 states": (...args) => trellis(4, ...args),
  "8 states": (...args) => trellis(8, ...args),
};

// --- Comparing ------------------------------------------------------------------------------------------------------------

/// Errors and bits per weight of a source at one step and slope, its tensors by their share: of the nearest levels, and of
/// each pass after that, which has the prices of the one before. At few bits the passes go on until all is 0, and the best
/// bargain is on the way.
function points_of(quantizer, tensors, step, slope) {
  const elements = tensors.reduce((sum, tensor) => sum + tensor.elements, 0);
  const points = Array.from({ length: kPasses + 1 }, () => ({ error: 0, bits: 0 }));
  for (const { values, elements: count } of tensors) {
    const scale = count / values.length;
    let prices = null;
    for (const point of points) {
      const { error, coder } = quantizer(values, step, slope * step * step, prices);
      prices = coder.prices();
      // Probabilities are learnt once, however many weights there are.
      const { known, learning } = coder.bits();
      point.error += (error * scale) / elements;
      point.bits += (known * scale + learning) / elements;
    }
  }
  return points;
}

/// The lower convex hull of points, fewest bits first.
function hull_of(points) {
  const sorted = points.sort((a, b) => a.bits - b.bits || a.error - b.error);
  const hull = [];
  for (const point of sorted) {
    if (hull.length > 0 && point.error >= hull.at(-1).error) continue;
    while (hull.length > 1) {
      const [a, b] = hull.slice(-2);
      const turn = (b.bits - a.bits) * (point.error - a.error) - (b.error - a.error) * (point.bits - a.bits);
      if (turn > 0) break;
      hull.pop();
    }
    hull.push(point);
  }
  return hull;
}

/// On a hull, between two of its points with the error's logarithm linear in the bits, as it is at high rate. Undefined
/// outside.
function between(hull, key, at) {
  const of = { bits: ({ bits }) => bits, error: ({ error }) => Math.log2(error) };
  const other = key === "bits" ? "error" : "bits";
  for (let i = 0; i + 1 < hull.length; i++) {
    const [a, b] = [of[key](hull[i]), of[key](hull[i + 1])];
    if ((at - a) * (at - b) > 0) continue;
    const share = (at - a) / (b - a);
    return of[other](hull[i]) * (1 - share) + of[other](hull[i + 1]) * share;
  }
  return undefined;
}

/// `sources` are [{name, rest, tensors: [values]}], `rest` the bytes of the file that are no weights. Every tensor is
/// divided by its root mean square first, as rounding without importance does. Returns [{name, rows: [{bits, snr, others:
/// {name: {bits, of_file}}}]}]: at so many bits of scalar levels the bits of the others with the same error, and what they
/// save of the file, as a share.
export function measure_trellis(sources, say = () => {}) {
  return sources.map(({ name, rest, tensors }) => {
    say(name);
    const parts = tensors.map((all) => {
      const values = all.subarray(0, kMost);
      const size = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
      return { values: Float64Array.from(values, (value) => value / size), elements: all.length };
    });
    const elements = parts.reduce((sum, part) => sum + part.elements, 0);
    const hulls = {};
    for (const [key, quantizer] of Object.entries(kQuantizers)) {
      const points = kSteps.flatMap((step) => kSlopes.flatMap((slope) => points_of(quantizer, parts, step, slope)));
      hulls[key] = hull_of(points);
    }
    const rows = kRates.flatMap((bits) => {
      const error = between(hulls.scalar, "bits", bits);
      if (error === undefined) return [];
      const others = {};
      for (const key of Object.keys(kQuantizers).slice(1)) {
        const theirs = between(hulls[key], "error", error);
        if (theirs === undefined) continue;
        const bytes = (each) => (each * elements) / 8;
        others[key] = { bits: theirs, of_file: bytes(bits - theirs) / (bytes(bits) + rest) };
      }
      return [{ bits, snr: (-10 * error) / Math.log2(10), others }];
    });
    return { name, rows };
  });
}

/// Normal and Laplacian values, from a seed.
export function synthetic(kind, count, seed = 1) {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  const laplacian = () => -Math.log(uniform()) * (uniform() < 0.5 ? -1 : 1);
  return Float32Array.from({ length: count }, kind === "normal" ? normal : laplacian);
}
