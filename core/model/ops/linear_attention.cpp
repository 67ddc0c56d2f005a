// LinearAttention and CausalConvWithState, the recurrent layers of operator set 27 (docs/Operators.md). Forward only.
#include <cmath>

#include "core/model/ops/sequence.hpp"
#include "core/model/ops/support.hpp"

namespace nibble::ops {

namespace {

/// Each key and value head keeps a matrix S [width, value_width]. A step (Yang et al. 2024, "Gated delta networks",
/// eq. 10; each part as the update rule has it):
///   S *= exp(decay);  v <- beta (v - S^T (erase k));  S += k v^T;  y = scale S^T q.
struct Recurrence {
  size_t batch = 0, steps = 0, heads = 0, kv_heads = 0, width = 0, value_width = 0;
  bool gated = false, corrects = false;
  float scale = 1;
};

enum : size_t { kQuery, kKey, kValue, kPast, kDecay, kBeta, kErase };

Recurrence read_recurrence(const Call& call) {
  Recurrence r;
  const std::string rule = call.text("update_rule", "gated_delta");
  if (rule != "linear" && rule != "gated" && rule != "delta" && rule != "gated_delta")
    call.refuse("update rule \"" + rule + "\" is not known");
  r.gated = rule == "gated" || rule == "gated_delta";
  r.corrects = rule == "delta" || rule == "gated_delta";
  for (const size_t input : {kQuery, kKey, kValue}) {
    call.floats(input);
    if (call.in(input).shape().size() != 3)
      call.fail("queries, keys and values must have three axes, one is " + to_string(call.in(input).shape()));
  }
  const Shape &q = call.in(kQuery).shape(), &k = call.in(kKey).shape(), &v = call.in(kValue).shape();
  const int64_t heads = call.integer("q_num_heads", 0), kv_heads = call.integer("kv_num_heads", 0);
  const auto divides = [](int64_t count, size_t extent) {
    return count > 0 && extent > 0 && extent % static_cast<uint64_t>(count) == 0;
  };
  if (!divides(heads, q[2]) || !divides(kv_heads, k[2]) || !divides(kv_heads, v[2]) || heads % kv_heads != 0) {
    call.fail("attributes \"q_num_heads\" and \"kv_num_heads\" (" + std::to_string(heads) + ", " +
              std::to_string(kv_heads) + ") must divide the last axes of " + to_string(q) + ", " + to_string(k) + ", " +
              to_string(v));
  }
  r.batch = q[0], r.steps = q[1], r.heads = static_cast<size_t>(heads), r.kv_heads = static_cast<size_t>(kv_heads);
  r.width = q[2] / r.heads, r.value_width = v[2] / r.kv_heads;
  if (k[0] != q[0] || v[0] != q[0] || k[1] != q[1] || v[1] != q[1] || k[2] != r.kv_heads * r.width) {
    call.fail("queries " + to_string(q) + ", keys " + to_string(k) + " and values " + to_string(v) +
              " do not fit together");
  }
  const auto check = [&](size_t input, std::string_view what, bool needed, std::initializer_list<size_t> lasts) {
    if (call.has(input) != needed && !(input == kErase && needed))
      call.fail(std::string(what) + (needed ? " is missing" : " is given, which this update rule has no use for"));
    if (!call.has(input)) return;
    call.floats(input);
    const Shape& shape = call.in(input).shape();
    const bool fits = shape.size() == 3 && shape[0] == r.batch && shape[1] == r.steps &&
                      std::ranges::find(lasts, shape[2]) != lasts.end();
    if (!fits) call.fail(std::string(what) + " is " + to_string(shape) + ", which does not fit keys " + to_string(k));
  };
  check(kDecay, "decay", r.gated, {r.kv_heads, r.kv_heads * r.width});
  check(kBeta, "beta", r.corrects, {r.kv_heads, 1});
  check(kErase, "erase gate", r.corrects, {r.kv_heads * r.width});
  const Shape state = {r.batch, r.kv_heads, r.width, r.value_width};
  if (call.has(kPast)) {
    call.floats(kPast);
    if (call.in(kPast).shape() != state)
      call.fail("the past state must be " + to_string(state) + ", it is " + to_string(call.in(kPast).shape()));
  }
  r.scale = call.real("scale", 0);
  if (r.scale == 0) r.scale = 1 / std::sqrt(static_cast<float>(r.width));
  return r;
}

std::vector<Tensor> linear_attention_forward(Call& call) {
  const Recurrence r = read_recurrence(call);
  const std::span<const float> q = call.floats(kQuery), k = call.floats(kKey), v = call.floats(kValue);
  const auto optional = [&](size_t input) { return call.has(input) ? call.floats(input) : std::span<const float>(); };
  const std::span<const float> decay = optional(kDecay), beta = optional(kBeta), erase = optional(kErase);
  const size_t width = r.width, values = r.value_width, group = r.heads / r.kv_heads, tokens = r.batch * r.steps;
  const size_t decays = tokens ? decay.size() / tokens : 0, betas = tokens ? beta.size() / tokens : 0;
  Tensor state = call.has(kPast) ? call.take(kPast) : zeros({r.batch, r.kv_heads, width, values});
  Tensor y = zeros({r.batch, r.steps, r.heads * values});
  const std::span<float> all_states = state.write<float>(), out = y.write<float>();
  std::vector<float> update(values), factor(width);
  for (size_t b = 0; b < r.batch; ++b) {
    for (size_t h = 0; h < r.kv_heads; ++h) {
      const std::span<float> s = all_states.subspan((b * r.kv_heads + h) * width * values, width * values);
      const auto row = [&](size_t i) { return s.subspan(i * values, values); };
      for (size_t t = 0; t < r.steps; ++t) {
        const size_t token = b * r.steps + t;
        const std::span<const float> key = k.subspan((token * r.kv_heads + h) * width, width);
        std::copy_n(v.data() + (token * r.kv_heads + h) * values, values, update.data());
        if (r.gated) {
          const bool per_head = decays == r.kv_heads;
          const std::span<const float> gate =
              per_head ? decay.subspan(token * decays + h, 1) : decay.subspan(token * decays + h * width, width);
          kernels::exp(gate, std::span(factor).first(gate.size()));
          for (size_t i = 0; i < width; ++i) kernels::scale_shift(row(i), factor[per_head ? 0 : i], 0, row(i));
        }
        if (r.corrects) {
          for (size_t i = 0; i < width; ++i) {
            const float gate = erase.empty() ? 1 : erase[(token * r.kv_heads + h) * width + i];
            kernels::add_scaled(-gate * key[i], row(i), update);
          }
          kernels::scale_shift(update, beta[token * betas + (betas == 1 ? 0 : h)], 0, update);
        }
        for (size_t i = 0; i < width; ++i) kernels::add_scaled(key[i], update, row(i));
        for (size_t g = h * group; g < (h + 1) * group; ++g) {
          const std::span<const float> query = q.subspan((token * r.heads + g) * width, width);
          const std::span<float> to = out.subspan((token * r.heads + g) * values, values);
          for (size_t i = 0; i < width; ++i) kernels::add_scaled(r.scale * query[i], row(i), to);
        }
      }
    }
  }
  return {y, state};
}

std::vector<Tensor> causal_conv_forward(Call& call) {
  const std::string activation = call.text("activation", "none");
  if (activation != "none" && activation != "silu" && activation != "swish")
    call.refuse("activation \"" + activation + "\" is not known");
  const std::span<const float> x = call.floats(0), weight = call.floats(1);
  const Shape &shape = call.in(0).shape(), &kernel = call.in(1).shape();
  if (shape.size() != 3 || kernel.size() != 3 || kernel[0] != shape[1] || kernel[1] != 1 || kernel[2] == 0) {
    call.fail("the input must be batch x channels x length and the weights channels x 1 x width, they are " +
              to_string(shape) + " and " + to_string(kernel));
  }
  const size_t batch = shape[0], channels = shape[1], length = shape[2], width = kernel[2], past = width - 1;
  const bool has_bias = call.has(2), has_past = call.has(3);
  if (has_bias && (call.floats(2), call.in(2).shape() != Shape{channels}))
    call.fail("the bias must be " + to_string(Shape{channels}) + ", it is " + to_string(call.in(2).shape()));
  const Shape state_shape = {batch, channels, past};
  if (has_past && (call.floats(3), call.in(3).shape() != state_shape))
    call.fail("the past state must be " + to_string(state_shape) + ", it is " + to_string(call.in(3).shape()));
  Tensor y = Tensor::allocate(DType::Float32, shape), state = Tensor::allocate(DType::Float32, state_shape);
  const std::span<float> out = y.write<float>(), kept = state.write<float>();
  std::vector<float> line(past + length);
  for (size_t row = 0; row < batch * channels; ++row) {
    const size_t c = row % channels;
    if (has_past)
      std::copy_n(call.floats(3).data() + row * past, past, line.data());
    else
      std::fill_n(line.data(), past, 0.0f);
    std::copy_n(x.data() + row * length, length, line.data() + past);
    const std::span<float> to = out.subspan(row * length, length);
    std::ranges::fill(to, has_bias ? call.floats(2)[c] : 0.0f);
    for (size_t i = 0; i < width; ++i)
      kernels::add_scaled(weight[c * width + i], std::span<const float>(line).subspan(i, length), to);
    std::copy_n(line.data() + length, past, kept.data() + row * past);
  }
  if (activation != "none") {
    Tensor gate = Tensor::allocate(DType::Float32, shape);
    kernels::sigmoid(out, gate.write<float>());
    kernels::multiply(out, gate.data<float>(), out);
  }
  return {y, state};
}

}  // namespace

std::span<const Op> linear_attention_ops() {
  static const Op kOps[] = {
      {"LinearAttention", linear_attention_forward, nullptr, Reals::AsFloat32},
      {"CausalConvWithState", causal_conv_forward, nullptr, Reals::AsFloat32},
  };
  return kOps;
}

}  // namespace nibble::ops
