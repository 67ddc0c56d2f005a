// Functions of one value by +, -, *, / and the bits of floating-point numbers: the same everywhere. Polynomials are
// minimax fits of our own (Remez's exchange); the reductions are the usual ones (Muller 2016, "Elementary functions",
// chapter 11).
#include <algorithm>
#include <limits>

#include "core/kernels/compute.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {
namespace {

using namespace simd;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

F32 number(float value) { return in_register<F32>(value); }
I32 integer(int32_t value) { return in_register<I32>(value); }

/// c[0] + c[1] x + c[2] x^2 + ... by Horner's rule.
template <size_t kCount>
F32 polynomial(F32 x, const F32 (&c)[kCount]) {
  F32 sum = c[kCount - 1];
  for (size_t i = kCount - 1; i-- > 0;) sum = sum * x + c[i];
  return sum;
}

/// x = n ln 2 + r with |r| <= ln(2) / 2; exp(x) = 2^n (1 + r + r^2 q(r)).
struct Exp {
  // Results outside these are +0 and infinity; between them n fits two factors of 2^75 at most.
  F32 lowest = number(-104.5f), highest = number(89.0f);
  F32 log2e = number(1.44269504f), shift = number(kRoundShift), one = number(1.0f);
  F32 ln2_high = number(0.693359375f), ln2_low = number(-2.12194440e-4f);  // the first has 10 bits: n times it is exact
  F32 q[5] = {number(0.5f), number(0.166665062f), number(0.0416661687f), number(0.00837032124f),
              number(0.00139529724f)};
  I32 bias = integer(127), shift_bits = integer(kRoundShiftBits);

  F32 operator()(F32 x) const {
    x = greater(lesser(x, highest), lowest);  // NaN stays
    const F32 shifted = x * log2e + shift, n = shifted - shift;
    const F32 r = (x - n * ln2_high) - n * ln2_low;
    const F32 value = (polynomial(r, q) * (r * r) + r) + one;
    // 2^n in two factors: the first is exact, so that a subnormal result is rounded once.
    const I32 exponent = as<I32>(shifted) - shift_bits, half = exponent >> 1;
    return (value * power(half)) * power(exponent - half);
  }
  F32 power(I32 n) const { return as<F32>((n + bias) << 23); }
};

/// x = 2^n m with sqrt(1/2) <= m < sqrt(2), f = m - 1; log(x) = n ln 2 + (f - f^2 / 2 + f^3 p(f)).
struct Log {
  F32 least = number(0x1p-126f), scale = number(0x1p23f), zero = number(0.0f), one = number(1.0f);
  F32 half = number(0.5f), infinity = number(kInfinity), nan = number(kNaN), minus_infinity = number(-kInfinity);
  F32 shift = number(23.0f), ln2_high = number(0.693359375f), ln2_low = number(-2.12194440e-4f);
  I32 root = integer(0x3F3504F3), mantissa = integer(0x007FFFFF);  // the bits of sqrt(1/2)
  F32 p[9] = {number(0.333333135f),  number(-0.250000089f), number(0.200021192f),
              number(-0.166679963f), number(0.142195523f),  number(-0.1240559f),
              number(0.11888162f),   number(-0.116756454f), number(0.067466341f)};

  F32 operator()(F32 x) const {
    const auto subnormal = x < least;
    const F32 normal = xsimd::select(subnormal, x * scale, x);
    const I32 bits = as<I32>(normal) - root;
    const F32 n = to_float(bits >> 23) - xsimd::select(subnormal, shift, zero);
    const F32 f = as<F32>((bits & mantissa) + root) - one, square = f * f;
    const F32 tail = (polynomial(f, p) * f) * square - half * square;
    F32 value = n * ln2_high + (f + (n * ln2_low + tail));
    value = xsimd::select(x < infinity, value, x);  // infinity and NaN
    value = xsimd::select(x > zero, value, xsimd::select(x == zero, minus_infinity, nan));
    return xsimd::select(x == x, value, x);
  }
};

/// Odd: for small |x| a polynomial, otherwise 1 - 2 / (exp(2 |x|) + 1).
struct Tanh {
  Exp exp;
  F32 small = number(0.625f), large = number(10.0f), two = number(2.0f);
  I32 magnitude = integer(0x7FFFFFFF);
  F32 p[5] = {number(-0.333332837f), number(0.133314908f), number(-0.0537434965f), number(0.020650588f),
              number(-0.00571704516f)};

  F32 operator()(F32 x) const {
    const F32 size = as<F32>(as<I32>(x) & magnitude), square = x * x;
    const F32 near = size + size * (square * polynomial(square, p));
    const F32 far = exp.one - two / (exp(two * lesser(size, large)) + exp.one);
    const I32 value = as<I32>(xsimd::select(size < small, near, far));
    return as<F32>(value | (as<I32>(x) & ~magnitude));
  }
};

/// By the exponential of -|x|, which cannot overflow; right for results that are subnormal, too.
struct Sigmoid {
  Exp exp;
  F32 zero = number(0.0f);
  I32 sign = integer(std::numeric_limits<int32_t>::min());

  F32 operator()(F32 x) const {
    const F32 power = exp(as<F32>(as<I32>(x) | sign));
    return xsimd::select(x < zero, power, exp.one) / (power + exp.one);
  }
};

/// Odd: |x| p(x^2) up to 1, beyond that 1 - exp(-q(|x|)), q being a fit of -log(erfc).
struct Erf {
  Exp exp;
  F32 large = number(4.0f), zero = number(0.0f);  // erf(4) rounds to 1
  I32 magnitude = integer(0x7FFFFFFF);
  F32 p[7] = {number(1.12837911f),    number(-0.37612626f),     number(0.112835854f),   number(-0.0268538129f),
              number(0.00518832775f), number(-0.000801019371f), number(7.85386073e-05f)};
  F32 q[7] = {number(0.000341526f),   number(1.12708914f),    number(0.638144851f),    number(0.103106737f),
              number(-0.0218380559f), number(0.00294765644f), number(-0.000186378995f)};

  F32 operator()(F32 x) const {
    const F32 size = as<F32>(as<I32>(x) & magnitude), square = x * x;
    const F32 near = size * polynomial(square, p);
    const F32 limited = lesser(size, large);
    const F32 far = exp.one - exp(zero - polynomial(limited, q));
    const I32 value = as<I32>(xsimd::select(size < exp.one, near, far));
    return as<F32>(value | (as<I32>(x) & ~magnitude));
  }
};

template <class Function>
void map(std::span<const float> x, std::span<float> out, const Function& function) {
  for_each_step<8>(x.data(), x.size(), out.data(), [&](const float* in, float* to) {
    const F32 low = function(load_at(in)), high = function(load_at(in + 4));
    store_at(to, low), store_at(to + 4, high);
  });
}

/// Vectors of a row: step(vector, index) for each; what is left at the end is filled up with `rest`.
template <class Step>
inline void for_each_vector(const float* x, size_t n, float rest, Step step) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) step(load_at(x + i), i);
  if (i == n) return;
  float last[4] = {rest, rest, rest, rest};
  std::copy_n(x + i, n - i, last);
  step(load_at(last), i);
}

inline void store_some(float* out, F32 value, size_t count) {
  if (count >= 4) return store_at(out, value);
  float lanes[4];
  store_at(lanes, value);
  std::copy_n(lanes, count, out);
}

float largest(const float* x, size_t n) {
  F32 most[4];
  for (F32& v : most) v = F32(-kInfinity);
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t v = 0; v < 4; ++v) most[v] = greater(most[v], load_at(x + i + 4 * v));
  }
  F32 all = greater(greater(most[0], most[1]), greater(most[2], most[3]));
  for_each_vector(x + i, n - i, -kInfinity, [&](F32 v, size_t) { all = greater(all, v); });
  float lanes[4];
  store_at(lanes, all);
  return std::max(std::max(lanes[0], lanes[1]), std::max(lanes[2], lanes[3]));
}

/// Sixteen partial sums, four vectors of them.
struct Sum {
  F32 partial[4] = {F32(0.0f), F32(0.0f), F32(0.0f), F32(0.0f)};
  void add(F32 value, size_t i) { partial[i / 4 % 4] = partial[i / 4 % 4] + value; }
  float total() const {
    float lanes[4];
    store_at(lanes, (partial[0] + partial[1]) + (partial[2] + partial[3]));
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  }
};

/// Sum of exp(x - most); the terms go to `out` where that is not null.
float sum_of_exp(const Exp& exp, const float* x, size_t n, float most, float* out) {
  const F32 offset(most);
  Sum sum;
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t v = 0; v < 4; ++v) {
      const F32 term = exp(load_at(x + i + 4 * v) - offset);
      if (out) store_at(out + i + 4 * v, term);
      sum.partial[v] = sum.partial[v] + term;
    }
  }
  for_each_vector(x + i, n - i, -kInfinity, [&](F32 v, size_t at) {
    // What fills up the last vector adds +0, but not where the row's largest is -infinity: there all is NaN anyway.
    const F32 term = exp(v - offset);
    if (out) store_some(out + i + at, term, n - i - at);
    sum.add(term, at);
  });
  return sum.total();
}

constexpr size_t kFewColumns = 16;  // rows up to this long are taken several at a time
constexpr size_t kBlock = 512;      // elements of such rows

/// Rows of few columns: differences from each row's largest, all their exponentials at once, then each row's sum.
/// finish(differences, exponentials, columns, sum, out) makes one row's result.
template <class Finish>
void for_few_columns(const Exp& exp, std::span<const float> x, size_t columns, std::span<float> out, Finish finish) {
  float differences[kBlock], powers[kBlock];
  const size_t rows = kBlock / columns, whole = x.size() / columns * columns;
  for (size_t at = 0; at < whole; at += rows * columns) {
    const size_t count = std::min(rows * columns, whole - at);
    for (size_t row = 0; row < count; row += columns) {
      const float* from = x.data() + at + row;
      float most = -kInfinity;
      for (size_t j = 0; j < columns; ++j) most = most < from[j] ? from[j] : most;
      for (size_t j = 0; j < columns; ++j) differences[row + j] = from[j] - most;
    }
    map(std::span<const float>(differences, count), std::span<float>(powers, count), exp);
    for (size_t row = 0; row < count; row += columns) {
      float sum = 0;
      for (size_t j = 0; j < columns; ++j) sum += powers[row + j];
      finish(differences + row, powers + row, sum, out.data() + at + row);
    }
  }
}

}  // namespace

void exp(std::span<const float> x, std::span<float> out) { map(x, out, Exp{}); }
void log(std::span<const float> x, std::span<float> out) { map(x, out, Log{}); }
void tanh(std::span<const float> x, std::span<float> out) { map(x, out, Tanh{}); }
void sigmoid(std::span<const float> x, std::span<float> out) { map(x, out, Sigmoid{}); }
void erf(std::span<const float> x, std::span<float> out) { map(x, out, Erf{}); }

void relu(std::span<const float> x, std::span<float> out) {
  const float* in = x.data();
  float* to = out.data();
  const size_t n = x.size();
  const F32 zero(0.0f);
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t j = i; j < i + 16; j += 4) store_at(to + j, greater(load_at(in + j), zero));
  }
  for (; i < n; ++i) to[i] = in[i] < 0 ? 0.0f : in[i];
}

void relu_grad(std::span<const float> y, std::span<const float> grad_y, std::span<float> grad_x) {
  const float *value = y.data(), *grad = grad_y.data();
  float* to = grad_x.data();
  const size_t n = y.size();
  const F32 zero(0.0f);
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t j = i; j < i + 16; j += 4) {
      store_at(to + j, as<F32>(as<I32>(load_at(grad + j)) & to_bits(load_at(value + j) > zero)));
    }
  }
  for (; i < n; ++i) to[i] = value[i] > 0 ? grad[i] : 0.0f;
}

void softmax_rows(std::span<const float> x, size_t columns, std::span<float> out) {
  if (columns == 0) return;
  const Exp exp;
  if (columns <= kFewColumns) {
    return for_few_columns(exp, x, columns, out, [&](const float*, const float* powers, float sum, float* to) {
      for (size_t j = 0; j < columns; ++j) to[j] = powers[j] / sum;
    });
  }
  for (size_t at = 0; at + columns <= x.size(); at += columns) {
    const float* row = x.data() + at;
    float* to = out.data() + at;
    const F32 sum(sum_of_exp(exp, row, columns, largest(row, columns), to));
    for_each_vector(to, columns, 0, [&](F32 v, size_t i) { store_some(to + i, v / sum, columns - i); });
  }
}

void log_softmax_rows(std::span<const float> x, size_t columns, std::span<float> out) {
  if (columns == 0) return;
  const Exp exp;
  const Log log;
  const auto log_of = [&](float value) { return log(F32(value)).get(0); };
  if (columns <= kFewColumns) {
    return for_few_columns(exp, x, columns, out, [&](const float* differences, const float*, float sum, float* to) {
      const float logarithm = log_of(sum);
      for (size_t j = 0; j < columns; ++j) to[j] = differences[j] - logarithm;
    });
  }
  for (size_t at = 0; at + columns <= x.size(); at += columns) {
    const float* row = x.data() + at;
    float* to = out.data() + at;
    const float most = largest(row, columns);
    const F32 offset(most), logarithm(log_of(sum_of_exp(exp, row, columns, most, nullptr)));
    for_each_vector(row, columns, 0,
                    [&](F32 v, size_t i) { store_some(to + i, (v - offset) - logarithm, columns - i); });
  }
}

}  // namespace nibble::kernels
