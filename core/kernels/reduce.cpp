// Statistics. Each loop runs over blocks that stay in the first-level cache: a block is first read as if it were all
// finite while the largest magnitude is watched, and read again with care where that turns out to be wrong.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/kernels/kernels.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {
namespace {

using namespace simd;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kBlock = 1024;  // elements: 4 KB, an eighth of the usual first-level cache

bool finite(float v) { return std::abs(v) < kInfinity; }
bool all_finite(I32 largest_bits) { return xsimd::reduce_max(largest_bits) < kInfinityBits; }

/// All ones where the element is finite.
Mask32 finite(F32 v) { return xsimd::abs(v) < F32(kInfinity); }

size_t count_true(I32 negated_counts) { return static_cast<size_t>(-int64_t{xsimd::reduce_add(negated_counts)}); }

/// Four partial sums in double, lane i of four (see kernels.hpp).
struct Sum {
  F64 low{0.0}, high{0.0};

  void add(Pair<F64> v) {
    low = low + v.low;
    high = high + v.high;
  }
  /// For the elements after the last whole vector: the first `count` lanes of v.
  void add_lanes(const double* v, size_t count) {
    double lane[4] = {low.get(0), low.get(1), high.get(0), high.get(1)};
    for (size_t i = 0; i < count; ++i) lane[i] += v[i];
    low = F64(lane[0], lane[1]);
    high = F64(lane[2], lane[3]);
  }
  double total() const { return (low.get(0) + low.get(1)) + (high.get(0) + high.get(1)); }
};

Pair<F64> multiply(Pair<F64> a, Pair<F64> b) { return {a.low * b.low, a.high * b.high}; }
Pair<F64> subtract(Pair<F64> a, Pair<F64> b) { return {a.low - b.low, a.high - b.high}; }

/// v where the mask holds, +0 elsewhere.
F32 keep(Mask32 mask, F32 v) { return as<F32>(to_bits(mask) & as<I32>(v)); }

}  // namespace

MinMax min_max(std::span<const float> x) {
  const float* p = x.data();
  size_t left = x.size();
  MinMax result;
  F32 low0(kInfinity), low1 = low0, low2 = low0, low3 = low0;
  F32 high0(-kInfinity), high1 = high0, high2 = high0, high3 = high0;
  float lowest = kInfinity, highest = -kInfinity;
  const auto one = [&](float v) {
    if (finite(v)) {
      lowest = std::min(lowest, v);
      highest = std::max(highest, v);
    } else {
      (v != v ? result.nan : result.infinite) += 1;
    }
  };
  while (left >= 16) {
    const size_t block = std::min(left, kBlock) / 16 * 16;
    F32 l0 = low0, l1 = low1, l2 = low2, l3 = low3, h0 = high0, h1 = high1, h2 = high2, h3 = high3;
    I32 top(0);
    for (size_t i = 0; i < block; i += 16) {
      const F32 a = load_at(p + i), b = load_at(p + i + 4), c = load_at(p + i + 8), d = load_at(p + i + 12);
      l0 = lesser(l0, a), h0 = greater(h0, a), top = xsimd::max(top, magnitude_bits(a));
      l1 = lesser(l1, b), h1 = greater(h1, b), top = xsimd::max(top, magnitude_bits(b));
      l2 = lesser(l2, c), h2 = greater(h2, c), top = xsimd::max(top, magnitude_bits(c));
      l3 = lesser(l3, d), h3 = greater(h3, d), top = xsimd::max(top, magnitude_bits(d));
    }
    if (all_finite(top)) {
      low0 = l0, low1 = l1, low2 = l2, low3 = l3, high0 = h0, high1 = h1, high2 = h2, high3 = h3;
    } else {
      for (size_t i = 0; i < block; ++i) one(p[i]);
    }
    p += block;
    left -= block;
  }
  for (size_t i = 0; i < left; ++i) one(p[i]);
  lowest = std::min(lowest, xsimd::reduce_min(lesser(lesser(low0, low1), lesser(low2, low3))));
  highest = std::max(highest, xsimd::reduce_max(greater(greater(high0, high1), greater(high2, high3))));
  if (lowest <= highest) {
    result.min = lowest + 0.0f;  // turns -0 into +0
    result.max = highest + 0.0f;
  }
  return result;
}

float abs_max(std::span<const float> x) {
  const float* p = x.data();
  const size_t n = x.size();
  size_t i = 0;
  I32 m0(0), m1 = m0, m2 = m0, m3 = m0;
  for (; i + 32 <= n; i += 32) {
    m0 = xsimd::max(m0, magnitude_bits(load_at(p + i)));
    m1 = xsimd::max(m1, magnitude_bits(load_at(p + i + 4)));
    m2 = xsimd::max(m2, magnitude_bits(load_at(p + i + 8)));
    m3 = xsimd::max(m3, magnitude_bits(load_at(p + i + 12)));
    m0 = xsimd::max(m0, magnitude_bits(load_at(p + i + 16)));
    m1 = xsimd::max(m1, magnitude_bits(load_at(p + i + 20)));
    m2 = xsimd::max(m2, magnitude_bits(load_at(p + i + 24)));
    m3 = xsimd::max(m3, magnitude_bits(load_at(p + i + 28)));
  }
  for (; i + 4 <= n; i += 4) m0 = xsimd::max(m0, magnitude_bits(load_at(p + i)));
  int32_t largest = xsimd::reduce_max(xsimd::max(xsimd::max(m0, m1), xsimd::max(m2, m3)));
  for (; i < n; ++i) largest = std::max(largest, std::bit_cast<int32_t>(p[i]) & 0x7FFFFFFF);
  return std::bit_cast<float>(largest);
}

Moments moments(std::span<const float> x, double shift) {
  const float* p = x.data();
  size_t left = x.size();
  Moments result;
  Sum sum, sum_abs, sum_squares;
  const Pair<F64> shifts{F64(shift), F64(shift)};
  while (left >= 4) {
    const size_t block = std::min(left, kBlock) / 4 * 4;
    Sum s = sum, a = sum_abs, q = sum_squares;
    I32 zeros(0), top(0);
    for (size_t i = 0; i < block; i += 4) {
      const F32 v = load_at(p + i);
      const F32 magnitude = xsimd::abs(v);
      const Pair<F64> wide = widen(v), deviation = subtract(wide, shifts);
      top = xsimd::max(top, as<I32>(magnitude));
      zeros = zeros + to_bits(v == F32(0.0f));
      s.add(wide);
      a.add(widen(magnitude));
      q.add(multiply(deviation, deviation));
    }
    if (all_finite(top)) {
      result.finite += block;
    } else {
      s = sum, a = sum_abs, q = sum_squares;
      I32 counted(0);
      for (size_t i = 0; i < block; i += 4) {
        const F32 v = load_at(p + i);
        const Mask32 good = finite(v);
        const F32 kept = keep(good, v);
        const Pair<F64> wide = widen(kept), weight = widen(keep(good, F32(1.0f)));
        const Pair<F64> deviation = multiply(subtract(wide, shifts), weight);
        counted = counted + to_bits(good);
        s.add(wide);
        a.add(widen(xsimd::abs(kept)));
        q.add(multiply(deviation, deviation));
      }
      result.finite += count_true(counted);
    }
    sum = s, sum_abs = a, sum_squares = q;
    result.zeros += count_true(zeros);
    p += block;
    left -= block;
  }
  double value[4] = {}, magnitude[4] = {}, square[4] = {};
  for (size_t i = 0; i < left; ++i) {
    if (!finite(p[i])) continue;
    value[i] = p[i];
    magnitude[i] = std::abs(value[i]);
    square[i] = (value[i] - shift) * (value[i] - shift);
    result.finite += 1;
    result.zeros += p[i] == 0;
  }
  sum.add_lanes(value, left);
  sum_abs.add_lanes(magnitude, left);
  sum_squares.add_lanes(square, left);
  result.sum = sum.total();
  result.sum_abs = sum_abs.total();
  result.sum_squares = sum_squares.total();
  return result;
}

void histogram(std::span<const float> x, float lo, float hi, std::span<uint32_t> bins) {
  // Neighbouring weights often fall into the same bin, and a counter just written is slow to read again: four tables
  // take turns. The slot after the last bin collects what is not finite.
  constexpr size_t kMaxBins = 4096;
  const size_t count = std::min(bins.size(), kMaxBins);
  if (count == 0) return;
  const float per_unit = static_cast<float>(count) / (hi - lo), highest = static_cast<float>(count - 1);
  const float* p = x.data();
  const size_t n = x.size();
  size_t i = 0;
  if (n >= 2 * count) {
    uint32_t tables[4 * (kMaxBins + 1)];
    uint32_t *t0 = tables, *t1 = t0 + count + 1, *t2 = t1 + count + 1, *t3 = t2 + count + 1;
    std::fill(t0, t3 + count + 1, 0u);
    const F32 lows(lo), scale(per_unit), top(highest), zero(0.0f);
    const I32 outside(static_cast<int32_t>(count));
    const auto place = [=](F32 v) {
      // `place` may be NaN (0 * infinity): greater() then yields zero.
      const F32 clamped = lesser(top, greater(zero, (v - lows) * scale));
      const I32 good = to_bits(finite(v));
      return lanes(as<U32>((as<I32>(floor_index(clamped)) & good) | xsimd::bitwise_andnot(outside, good)));
    };
    for (; i + 8 <= n; i += 8) {
      const Lanes a = place(load_at(p + i)), b = place(load_at(p + i + 4));
      ++t0[a.a], ++t1[a.b], ++t2[a.c], ++t3[a.d];
      ++t0[b.a], ++t1[b.b], ++t2[b.c], ++t3[b.d];
    }
    for (size_t b = 0; b < count; ++b) bins[b] += (t0[b] + t1[b]) + (t2[b] + t3[b]);
  }
  for (; i < n; ++i) {
    if (!finite(p[i])) continue;
    const float place = (p[i] - lo) * per_unit;
    ++bins[static_cast<size_t>(place > 0 ? std::min(place, highest) : 0.0f)];
  }
}

Difference difference(std::span<const float> before, std::span<const float> after) {
  const float *p = before.data(), *r = after.data();
  size_t left = std::min(before.size(), after.size());
  Difference result;
  Sum error, squares_before, squares_after, product;
  F32 largest(0.0f);
  while (left >= 4) {
    const size_t block = std::min(left, kBlock) / 4 * 4;
    Sum e = error, s = squares_before, t = squares_after, c = product;
    F32 max_error = largest;
    I32 top(0);
    // Two sweeps over what stays in the cache: all sums at once need more registers than x86 has.
    for (size_t i = 0; i < block; i += 4) {
      const F32 a = load_at(p + i), b = load_at(r + i);
      const Pair<F64> gap = subtract(widen(a), widen(b));
      top = xsimd::max(top, xsimd::max(magnitude_bits(a), magnitude_bits(b)));
      max_error = greater(max_error, xsimd::abs(a - b));
      e.add(multiply(gap, gap));
    }
    if (all_finite(top)) {
      for (size_t i = 0; i < block; i += 4) {
        const Pair<F64> a = widen(load_at(p + i)), b = widen(load_at(r + i));
        s.add(multiply(a, a));
        t.add(multiply(b, b));
        c.add(multiply(a, b));
      }
      result.count += block;
    } else {
      e = error;
      max_error = largest;
      I32 counted(0);
      for (size_t i = 0; i < block; i += 4) {
        const F32 raw_a = load_at(p + i), raw_b = load_at(r + i);
        const Mask32 good = finite(raw_a) & finite(raw_b);
        const F32 a = keep(good, raw_a), b = keep(good, raw_b);
        const Pair<F64> wide_a = widen(a), wide_b = widen(b), gap = subtract(wide_a, wide_b);
        counted = counted + to_bits(good);
        e.add(multiply(gap, gap));
        s.add(multiply(wide_a, wide_a));
        t.add(multiply(wide_b, wide_b));
        c.add(multiply(wide_a, wide_b));
        max_error = greater(max_error, xsimd::abs(a - b));
      }
      result.count += count_true(counted);
    }
    error = e, squares_before = s, squares_after = t, product = c;
    largest = max_error;
    p += block;
    r += block;
    left -= block;
  }
  result.max_abs_error = xsimd::reduce_max(largest);
  double gaps[4] = {}, a_squared[4] = {}, b_squared[4] = {}, products[4] = {};
  for (size_t i = 0; i < left; ++i) {
    if (!finite(p[i]) || !finite(r[i])) continue;
    const double a = p[i], b = r[i];
    gaps[i] = (a - b) * (a - b);
    a_squared[i] = a * a;
    b_squared[i] = b * b;
    products[i] = a * b;
    result.count += 1;
    result.max_abs_error = std::max(result.max_abs_error, std::abs(p[i] - r[i]));
  }
  error.add_lanes(gaps, left);
  squares_before.add_lanes(a_squared, left);
  squares_after.add_lanes(b_squared, left);
  product.add_lanes(products, left);
  result.sum_squared_error = error.total();
  result.sum_squared_before = squares_before.total();
  result.sum_squared_after = squares_after.total();
  result.sum_product = product.total();
  return result;
}

}  // namespace nibble::kernels
