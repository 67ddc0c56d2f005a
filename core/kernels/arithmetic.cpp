// Arithmetic on whole arrays, and the steps by which weights learn.
#include <algorithm>
#include <cmath>

#include "core/kernels/compute.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {
namespace {

using namespace simd;

/// Calls step(i, vector type's tag) over all elements: F32 for four at a time, float for those that are left. The same
/// code for both, so that an element's result does not depend on where it stands.
template <class Step>
inline void for_each(size_t n, Step step) {
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t j = i; j < i + 16; j += 4) step(j, F32());
  }
  for (; i + 4 <= n; i += 4) step(i, F32());
  for (; i < n; ++i) step(i, float());
}

inline F32 take(const float* p, F32) { return load_at(p); }
inline float take(const float* p, float) { return *p; }
inline void put(float* p, F32 x) { store_at(p, x); }
inline void put(float* p, float x) { *p = x; }
inline F32 root(F32 x) { return xsimd::sqrt(x); }
inline float root(float x) { return std::sqrt(x); }

template <class Operation>
void binary(std::span<const float> a, std::span<const float> b, std::span<float> out, Operation operation) {
  const float *left = a.data(), *right = b.data();
  float* to = out.data();
  for_each(a.size(), [=](size_t i, auto kind) { put(to + i, operation(take(left + i, kind), take(right + i, kind))); });
}

/// Sixteen partial sums: element i goes to number i modulo 16.
template <class Term>
float partial_sums(size_t n, Term term) {
  F32 sum[4] = {F32(0.0f), F32(0.0f), F32(0.0f), F32(0.0f)};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t v = 0; v < 4; ++v) sum[v] = sum[v] + term(i + 4 * v, F32());
  }
  float last[16] = {};
  for (size_t j = 0; i + j < n; ++j) last[j] = term(i + j, float());
  for (size_t v = 0; v < 4; ++v) sum[v] = sum[v] + load_at(last + 4 * v);
  float lanes[4];
  store_at(lanes, (sum[0] + sum[1]) + (sum[2] + sum[3]));
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

}  // namespace

void add(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  binary(a, b, out, [](auto x, auto y) { return x + y; });
}
void subtract(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  binary(a, b, out, [](auto x, auto y) { return x - y; });
}
void multiply(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  binary(a, b, out, [](auto x, auto y) { return x * y; });
}
void divide(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  binary(a, b, out, [](auto x, auto y) { return x / y; });
}

void scale_shift(std::span<const float> x, float scale, float shift, std::span<float> out) {
  const float* in = x.data();
  float* to = out.data();
  for_each(x.size(), [=](size_t i, auto kind) {
    using Kind = decltype(kind);
    put(to + i, take(in + i, kind) * Kind(scale) + Kind(shift));
  });
}

void add_scaled(float alpha, std::span<const float> x, std::span<float> y) {
  const float* in = x.data();
  float* to = y.data();
  for_each(x.size(),
           [=](size_t i, auto kind) { put(to + i, take(to + i, kind) + decltype(kind)(alpha) * take(in + i, kind)); });
}

float sum(std::span<const float> x) {
  const float* in = x.data();
  return partial_sums(x.size(), [=](size_t i, auto kind) { return take(in + i, kind); });
}

float dot(std::span<const float> a, std::span<const float> b) {
  const float *left = a.data(), *right = b.data();
  return partial_sums(a.size(), [=](size_t i, auto kind) { return take(left + i, kind) * take(right + i, kind); });
}

void sgd_step(const SgdStep& step, std::span<const float> grad, std::span<float> velocity, std::span<float> weight) {
  const float *gradient = grad.data(), rate = step.rate, momentum = step.momentum, decay = step.weight_decay;
  float *speed = velocity.data(), *to = weight.data();
  if (velocity.empty()) {
    return for_each(grad.size(), [=](size_t i, auto kind) {
      using Kind = decltype(kind);
      const auto w = take(to + i, kind), g = take(gradient + i, kind) + Kind(decay) * w;
      put(to + i, w - Kind(rate) * g);
    });
  }
  const bool nesterov = step.nesterov;
  for_each(grad.size(), [=](size_t i, auto kind) {
    using Kind = decltype(kind);
    const auto w = take(to + i, kind), g = take(gradient + i, kind) + Kind(decay) * w;
    const auto v = Kind(momentum) * take(speed + i, kind) + g;
    put(speed + i, v);
    put(to + i, w - Kind(rate) * (nesterov ? g + Kind(momentum) * v : v));
  });
}

void adam_step(const AdamStep& step, std::span<const float> grad, std::span<float> first, std::span<float> second,
               std::span<float> weight) {
  const float *gradient = grad.data(), rate = step.rate / step.correction1;
  const float inverse = 1 / std::sqrt(step.correction2);
  float *mean = first.data(), *square = second.data(), *to = weight.data();
  const AdamStep s = step;
  for_each(grad.size(), [=](size_t i, auto kind) {
    using Kind = decltype(kind);
    const auto before = take(to + i, kind), decay = Kind(s.weight_decay) * before;
    const auto g = s.decoupled ? take(gradient + i, kind) : take(gradient + i, kind) + decay;
    const auto w = s.decoupled ? before - Kind(s.rate) * decay : before;
    const auto m = Kind(s.beta1) * take(mean + i, kind) + Kind(1 - s.beta1) * g;
    const auto v = Kind(s.beta2) * take(square + i, kind) + Kind(1 - s.beta2) * (g * g);
    put(mean + i, m);
    put(square + i, v);
    put(to + i, w - Kind(rate) * m / (root(v) * Kind(inverse) + Kind(s.epsilon)));
  });
}

}  // namespace nibble::kernels
