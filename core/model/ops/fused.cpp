// Operators of the domain com.microsoft that ONNX Runtime's optimizer leaves in transformer models (docs/
// ContribOperators.md of ONNX Runtime), beside its Attention in attention.cpp. Forward only.
#include <cmath>

#include "core/model/ops/sequence.hpp"
#include "core/model/ops/support.hpp"

namespace nibble::ops {

namespace {

/// A vector as long as the last axis of `shape`; empty where the input is left out.
std::span<const float> vector_for(const Call& call, size_t input, std::string_view what, const Shape& shape) {
  if (!call.has(input)) return {};
  const std::span<const float> values = call.floats(input);
  if (call.in(input).shape() != Shape{shape.back()}) {
    call.fail("the " + std::string(what) + " must have one value for each of " + std::to_string(shape.back()) +
              ", its shape is " + to_string(call.in(input).shape()));
  }
  return values;
}

/// Rows of `x` normalised in place: (x - mean) / deviation, or x / root mean square, times gamma plus beta.
void normalize_rows(std::span<float> x, size_t width, bool centred, float epsilon, std::span<const float> gamma,
                    std::span<const float> beta) {
  for (size_t at = 0; at + width <= x.size(); at += width) {
    const std::span<float> row = x.subspan(at, width);
    if (centred) kernels::scale_shift(row, 1, -kernels::sum(row) / static_cast<float>(width), row);
    const float square = kernels::dot(row, row) / static_cast<float>(width);
    kernels::scale_shift(row, 1 / std::sqrt(square + epsilon), 0, row);
    if (!gamma.empty()) kernels::multiply(row, gamma, row);
    if (!beta.empty()) kernels::add(row, beta, row);
  }
}

constexpr float kEpsilon = 1e-12f;  // the default of all of these

std::vector<Tensor> skip_norm(Call& call, bool centred) {
  call.floats(0);
  call.floats(1);
  const Shape shape = call.in(0).shape();
  if (shape.empty() || shape.back() == 0) call.fail("the input must have a last axis, it is " + to_string(shape));
  const std::span<const float> gamma = vector_for(call, 2, "scale", shape),
                               beta = centred ? vector_for(call, 3, "shift", shape) : std::span<const float>(),
                               bias = vector_for(call, centred ? 4 : 3, "bias", shape);
  if (call.wants(1) || call.wants(2)) call.refuse("the mean and the deviation are not given here");
  const Tensor skip = broadcast_to(call, call.in(1), shape);
  Tensor sum = call.take(0);
  const std::span<float> values = sum.write<float>();
  kernels::add(values, skip.data<float>(), values);
  for (size_t at = 0; !bias.empty() && at < values.size(); at += bias.size())
    kernels::add(values.subspan(at, bias.size()), bias, values.subspan(at, bias.size()));
  Tensor y = sum;
  normalize_rows(y.write<float>(), shape.back(), centred, call.real("epsilon", kEpsilon), gamma, beta);
  return {y, Tensor(), Tensor(), sum};
}
std::vector<Tensor> skip_layer_norm(Call& call) { return skip_norm(call, true); }
std::vector<Tensor> skip_rms_norm(Call& call) { return skip_norm(call, false); }

/// Adds row ids[i] of a table to row i of `sums`; without ids row i modulo `period`.
void add_rows(const Call& call, size_t table, std::span<const int64_t> ids, size_t period, std::span<float> sums,
              size_t width) {
  const std::span<const float> rows = call.floats(table);
  const Shape& shape = call.in(table).shape();
  if (shape.size() != 2 || shape[1] != width)
    call.fail("input " + std::to_string(table) + " must be a table of " + std::to_string(width) + " columns, it is " +
              to_string(shape));
  for (size_t i = 0; i * width < sums.size(); ++i) {
    const int64_t row = ids.empty() ? static_cast<int64_t>(i % period) : ids[i];
    if (row < 0 || static_cast<uint64_t>(row) >= shape[0]) {
      call.fail("index " + std::to_string(row) + " is not in the table of input " + std::to_string(table) +
                ", which has " + std::to_string(shape[0]) + " rows");
    }
    const std::span<float> to = sums.subspan(i * width, width);
    kernels::add(to, rows.subspan(static_cast<size_t>(row) * width, width), to);
  }
}

std::vector<Tensor> embed_layer_norm(Call& call) {
  enum : size_t { kIds, kSegments, kWords, kPositions, kSegmentTable, kGamma, kBeta, kMask, kPositionIds };
  const Shape& ids = call.in(kIds).shape();
  const Shape& words = call.in(kWords).shape();
  if (ids.size() != 2 || words.size() != 2 || words[1] == 0)
    call.fail("ids must be batch x steps and the table rows x columns, they are " + to_string(ids) + " and " +
              to_string(words));
  const size_t width = words[1], tokens = ids[0] * ids[1];
  const auto ids_of = [&](size_t input) {
    std::vector<int64_t> values = call.integers(input);
    // Positions may be given once for the whole batch.
    if (values.size() == ids[1] && input == kPositionIds && ids[0] > 1) {
      for (size_t i = ids[1]; i < tokens; ++i) values.push_back(values[i - ids[1]]);
    }
    if (values.size() != tokens)
      call.fail("input " + std::to_string(input) + " must have one number for each of " + std::to_string(tokens) +
                " tokens, it has " + std::to_string(values.size()));
    return values;
  };
  Tensor sum = zeros({ids[0], ids[1], width});
  const std::span<float> sums = sum.write<float>();
  const Shape& shape = sum.shape();
  if (tokens > 0) {
    add_rows(call, kWords, ids_of(kIds), 1, sums, width);
    add_rows(call, kPositions, call.has(kPositionIds) ? ids_of(kPositionIds) : std::vector<int64_t>(), ids[1], sums,
             width);
    if (call.has(kSegmentTable) && call.has(kSegments))
      add_rows(call, kSegmentTable, ids_of(kSegments), 1, sums, width);
  }
  Tensor y = sum;
  normalize_rows(y.write<float>(), width, true, call.real("epsilon", kEpsilon),
                 vector_for(call, kGamma, "scale", shape), vector_for(call, kBeta, "shift", shape));
  std::vector<int32_t> valid(ids[0], 0);
  if (call.has(kMask)) {
    const std::vector<int64_t> mask = ids_of(kMask);
    for (size_t i = 0; i < mask.size(); ++i) valid[i / ids[1]] += mask[i] == 1;
  }
  return {y, Tensor::from(DType::Int32, {ids[0]}, std::span<const int32_t>(valid)), sum};
}

/// x + bias, in place where nobody else needs x.
Tensor with_bias(Call& call) {
  call.floats(0);
  const Shape shape = call.in(0).shape();
  if (shape.empty()) call.fail("the input must have a last axis");
  const std::span<const float> bias = vector_for(call, 1, "bias", shape);
  Tensor x = call.take(0);
  const std::span<float> values = x.write<float>();
  for (size_t at = 0; !bias.empty() && at < values.size(); at += bias.size())
    kernels::add(values.subspan(at, bias.size()), bias, values.subspan(at, bias.size()));
  return x;
}

/// x / 2 (1 + inner), inner being a function of x that is odd.
std::vector<Tensor> gated(Tensor x, const Tensor& inner) {
  const std::span<float> values = x.write<float>();
  const std::span<const float> gate = inner.data<float>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f * values[i] * (1 + gate[i]);
  return {x};
}

/// Hendrycks and Gimpel 2016, the approximation of section 2 by tanh.
std::vector<Tensor> fast_gelu(Call& call) {
  const Tensor x = with_bias(call);
  Tensor inner = x;
  constexpr float kRoot = 0.7978845608028654f;  // of 2 / pi
  for (float& v : inner.write<float>()) v = kRoot * (v + 0.044715f * v * v * v);
  kernels::tanh(inner.data<float>(), inner.write<float>());
  return gated(x, inner);
}

std::vector<Tensor> bias_gelu(Call& call) {
  const Tensor x = with_bias(call);
  Tensor inner = x;
  kernels::scale_shift(x.data<float>(), std::sqrt(0.5f), 0, inner.write<float>());
  kernels::erf(inner.data<float>(), inner.write<float>());
  return gated(x, inner);
}

}  // namespace

std::span<const Op> fused_ops() {
  constexpr std::string_view kDomain = "com.microsoft";
  static const Op kOps[] = {
      {"SkipLayerNormalization", skip_layer_norm, nullptr, Reals::AsFloat32, {}, kDomain},
      {"SkipSimplifiedLayerNormalization", skip_rms_norm, nullptr, Reals::AsFloat32, {}, kDomain},
      {"EmbedLayerNormalization", embed_layer_norm, nullptr, Reals::AsFloat32, {}, kDomain, 2},
      {"FastGelu", fast_gelu, nullptr, Reals::AsFloat32, {}, kDomain},
      {"BiasGelu", bias_gelu, nullptr, Reals::AsFloat32, {}, kDomain},
  };
  return kOps;
}

}  // namespace nibble::ops
