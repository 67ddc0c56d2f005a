// Attention and RotaryEmbedding as ONNX defines them (docs/Operators.md, operator sets 23 and 24).
#include <cmath>
#include <limits>

#include "core/model/ops/sequence.hpp"
#include "core/model/ops/support.hpp"

namespace nibble::ops {

namespace {

using kernels::MatrixView;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kHeadsSecond[] = {0, 2, 1, 3};

enum : size_t { kQ, kK, kV, kMask, kPastKey, kPastValue, kNonpad };
enum : size_t { kY, kPresentKey, kPresentValue, kScores };
/// What the fourth output shows: the products, those after the soft cap, with the mask, or the softmax.
enum : int64_t { kPlain, kCapped, kMasked, kSoftmax };

struct Attend {
  size_t batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, past = 0, width = 0, value_width = 0;
  float scale = 1, cap = 0;
  bool causal = false, tokens_first = false;  ///< [batch, tokens, heads * width] in and out
  int64_t shown = kPlain;
  Tensor q, k, v;  ///< [batch, heads, tokens, width], past ones included
  Tensor mask;
  std::vector<std::ptrdiff_t> mask_steps;  ///< of batch, heads, queries, keys
  size_t mask_keys = 0;                    ///< keys that the mask covers; those after them are hidden
  std::vector<int64_t> nonpad;             ///< valid keys of each batch entry, or empty

  size_t kv_head(size_t head) const { return head / (heads / kv_heads); }
  const float* query(size_t b, size_t h) const { return q.data<float>().data() + (b * heads + h) * queries * width; }
  size_t key_at(size_t b, size_t h) const { return (b * kv_heads + kv_head(h)) * keys * width; }
  size_t value_at(size_t b, size_t h) const { return (b * kv_heads + kv_head(h)) * keys * value_width; }
  size_t result_at(size_t b, size_t h) const { return (b * heads + h) * queries * value_width; }
};

/// An input as [batch, heads, tokens, width].
Tensor split_heads(const Call& call, size_t input, std::string_view attribute, bool tokens_first) {
  call.floats(input);
  const Tensor& x = call.in(input);
  if (!tokens_first) return x;
  const int64_t heads = call.integer(attribute, 0);
  const Shape& shape = x.shape();
  if (heads < 1 || shape[2] % static_cast<uint64_t>(heads) != 0) {
    call.fail("attribute \"" + std::string(attribute) + "\" must divide the last axis of " + to_string(shape) +
              ", it is " + std::to_string(heads));
  }
  const size_t count = static_cast<size_t>(heads);
  return transposed(call, x.reshaped({shape[0], shape[1], count, shape[2] / count}), kHeadsSecond);
}

Tensor merge_heads(const Call& call, const Tensor& x) {
  const Shape& shape = x.shape();
  return transposed(call, x, kHeadsSecond).reshaped({shape[0], shape[2], shape[1] * shape[3]});
}

/// Past keys (or values) followed by the new ones.
Tensor joined(const Tensor& fresh, const Tensor& past) {
  const Shape &before = past.shape(), &after = fresh.shape();
  Tensor made = Tensor::allocate(DType::Float32, {after[0], after[1], before[2] + after[2], after[3]});
  const size_t old_run = before[2] * before[3], new_run = after[2] * after[3];
  float* to = made.write<float>().data();
  for (size_t i = 0; i < after[0] * after[1]; ++i) {
    to = std::copy_n(past.data<float>().data() + i * old_run, old_run, to);
    to = std::copy_n(fresh.data<float>().data() + i * new_run, new_run, to);
  }
  return made;
}

Tensor with_past(const Call& call, size_t input, const Tensor& fresh) {
  if (!call.has(input)) return fresh;
  call.floats(input);
  const Shape &before = call.inputs[input].shape(), &after = fresh.shape();
  if (before.size() != 4 || before[0] != after[0] || before[1] != after[1] || before[3] != after[3]) {
    call.fail("past keys and values must be like the new ones but for their number, they are " + to_string(before) +
              " and " + to_string(after));
  }
  return joined(fresh, call.inputs[input]);
}

Attend read_attend(const Call& call) {
  Attend a;
  const size_t rank = call.in(kQ).shape().size();
  if ((rank != 3 && rank != 4) || call.in(kK).shape().size() != rank || call.in(kV).shape().size() != rank) {
    call.fail("queries, keys and values must all have three axes or all four, they are " +
              to_string(call.in(kQ).shape()) + ", " + to_string(call.in(kK).shape()) + " and " +
              to_string(call.in(kV).shape()));
  }
  a.tokens_first = rank == 3;
  a.q = split_heads(call, kQ, "q_num_heads", a.tokens_first);
  const Tensor k = split_heads(call, kK, "kv_num_heads", a.tokens_first),
               v = split_heads(call, kV, "kv_num_heads", a.tokens_first);
  const Shape &qs = a.q.shape(), &ks = k.shape(), &vs = v.shape();
  const bool fits = ks[0] == qs[0] && vs[0] == qs[0] && ks[1] == vs[1] && ks[2] == vs[2] && ks[3] == qs[3];
  // Empty heads would leave nothing to bound the number of scores by.
  if (!fits || qs[3] == 0 || vs[3] == 0 || ks[1] == 0 || qs[1] % ks[1] != 0) {
    call.fail("queries " + to_string(qs) + ", keys " + to_string(ks) + " and values " + to_string(vs) +
              " (batch, heads, tokens, width) do not fit together");
  }
  if (call.has(kPastKey) != call.has(kPastValue)) call.fail("past keys and past values must come together");
  a.k = with_past(call, kPastKey, k);
  a.v = with_past(call, kPastValue, v);
  a.batch = qs[0], a.heads = qs[1], a.kv_heads = ks[1], a.queries = qs[2], a.width = qs[3], a.value_width = vs[3];
  a.keys = a.k.shape()[2];
  a.past = a.keys - ks[2];
  if (a.v.shape()[2] != a.keys) call.fail("there must be as many past keys as past values");
  a.scale = call.real("scale", 1 / std::sqrt(static_cast<float>(a.width)));
  a.cap = call.real("softcap", 0);
  if (!(a.cap >= 0)) call.fail("attribute \"softcap\" must not be negative, it is " + std::to_string(a.cap));
  a.causal = call.integer("is_causal", 0) != 0;
  a.shown = call.integer("qk_matmul_output_mode", kPlain);
  if (a.shown < kPlain || a.shown > kSoftmax)
    call.fail("attribute \"qk_matmul_output_mode\" must be 0 to 3, it is " + std::to_string(a.shown));
  if (call.has(kNonpad)) {
    a.nonpad = call.integers(kNonpad);
    if (a.nonpad.size() != a.batch) {
      call.fail("nonpad_kv_seqlen must have one entry for each of " + std::to_string(a.batch) +
                " batch entries, it has " + std::to_string(a.nonpad.size()));
    }
    for (const int64_t valid : a.nonpad) {
      if (valid < 0 || static_cast<uint64_t>(valid) > a.keys)
        call.fail("nonpad_kv_seqlen must be 0 to " + std::to_string(a.keys) + ", one is " + std::to_string(valid));
    }
  }
  a.mask_keys = a.keys;
  if (call.has(kMask)) {
    a.mask = call.in(kMask);
    if (a.mask.dtype() != DType::Bool) call.floats(kMask);
    Shape shape = a.mask.shape();
    const Shape target = {a.batch, a.heads, a.queries, a.keys};
    bool allowed = shape.size() >= 2 && shape.size() <= 4 && shape.back() <= a.keys;
    if (allowed) {
      a.mask_keys = shape.back();
      a.mask_steps = steps_of(shape);
      while (a.mask_steps.size() < 4) {
        shape.insert(shape.begin(), 1);
        a.mask_steps.insert(a.mask_steps.begin(), 0);
      }
    }
    for (size_t axis = 0; allowed && axis < 3; ++axis) {
      if (shape[axis] == 1)
        a.mask_steps[axis] = 0;
      else
        allowed = shape[axis] == target[axis];
    }
    if (!allowed) call.fail("the mask " + to_string(a.mask.shape()) + " does not fit scores " + to_string(target));
  }
  return a;
}

/// Scores of queries first to first + count of one head: [count, keys]; `capped` is what the soft cap leaves.
void scores(const Attend& a, size_t b, size_t h, size_t first, size_t count, std::span<float> out) {
  kernels::matmul(count, a.keys, a.width, {a.query(b, h) + first * a.width, a.width, 1},
                  {a.k.data<float>().data() + a.key_at(b, h), 1, a.width}, out.data(), a.keys, false, scratch());
  kernels::scale_shift(out, a.scale, 0, out);
}

void cap_scores(const Attend& a, std::span<float> out) {
  if (a.cap == 0) return;
  kernels::scale_shift(out, 1 / a.cap, 0, out);
  kernels::tanh(out, out);
  kernels::scale_shift(out, a.cap, 0, out);
}

void mask_scores(const Attend& a, size_t b, size_t h, size_t first, size_t count, std::span<float> out) {
  for (size_t i = 0; i < count; ++i) {
    float* row = out.data() + i * a.keys;
    if (a.mask.exists()) {
      const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(b) * a.mask_steps[0] +
                                static_cast<std::ptrdiff_t>(h) * a.mask_steps[1] +
                                static_cast<std::ptrdiff_t>(first + i) * a.mask_steps[2];
      if (a.mask.dtype() == DType::Bool) {
        const uint8_t* shows = a.mask.data<uint8_t>().data() + at;
        for (size_t j = 0; j < a.mask_keys; ++j) row[j] = shows[j] ? row[j] : -kInfinity;
      } else {
        const float* adds = a.mask.data<float>().data() + at;
        for (size_t j = 0; j < a.mask_keys; ++j) row[j] += adds[j];
      }
      std::fill(row + a.mask_keys, row + a.keys, -kInfinity);
    }
    // Query i sees keys up to its own place, which is after the past ones, or among the last of the valid ones.
    std::ptrdiff_t visible = static_cast<std::ptrdiff_t>(a.keys);
    if (!a.nonpad.empty()) visible = std::min(visible, static_cast<std::ptrdiff_t>(a.nonpad[b]));
    if (a.causal) {
      std::ptrdiff_t offset = static_cast<std::ptrdiff_t>(a.past);
      if (a.past == 0 && !a.nonpad.empty())
        offset = static_cast<std::ptrdiff_t>(a.nonpad[b]) - static_cast<std::ptrdiff_t>(a.queries);
      visible = std::min(visible, static_cast<std::ptrdiff_t>(first + i) + offset + 1);
    }
    std::fill(row + std::max<std::ptrdiff_t>(visible, 0), row + a.keys, -kInfinity);
  }
}

/// A row without a visible key attends to nothing, where the formula would say 0 / 0.
void softmax(const Attend& a, std::span<float> out) {
  for (size_t row = 0; row + a.keys <= out.size() && a.keys > 0; row += a.keys) {
    const std::span<float> one = out.subspan(row, a.keys);
    if (std::ranges::all_of(one, [](float v) { return v == -kInfinity; }))
      std::ranges::fill(one, 0.0f);
    else
      kernels::softmax_rows(one, a.keys, one);
  }
}

/// Queries worked on at a time: their scores stay within a megabyte or one row.
size_t block_of(const Attend& a) {
  constexpr size_t kScores = size_t{1} << 18;
  return std::clamp<size_t>(kScores / std::max<size_t>(a.keys, 1), 1, std::max<size_t>(a.queries, 1));
}

template <class Visit>
void for_each_block(const Attend& a, const Visit& visit) {
  const size_t step = block_of(a);
  for (size_t b = 0; b < a.batch; ++b) {
    for (size_t h = 0; h < a.heads; ++h) {
      for (size_t first = 0; first < a.queries; first += step) visit(b, h, first, std::min(step, a.queries - first));
    }
  }
}

/// What the queries attend to, [batch, heads, queries, value_width]; `show` gets the scores at the stage asked for.
Tensor attended(const Attend& a, std::span<float> show = {}) {
  Tensor y = Tensor::allocate(DType::Float32, {a.batch, a.heads, a.queries, a.value_width});
  float* result = y.write<float>().data();
  Tensor room = Tensor::allocate(DType::Float32, {block_of(a), a.keys});
  const std::span<float> buffer = room.write<float>();
  for_each_block(a, [&](size_t b, size_t h, size_t first, size_t count) {
    const std::span<float> block = buffer.first(count * a.keys);
    const auto keep = [&](int64_t stage) {
      if (show.empty() || a.shown != stage) return;
      std::ranges::copy(block, show.subspan(((b * a.heads + h) * a.queries + first) * a.keys, block.size()).begin());
    };
    scores(a, b, h, first, count, block);
    keep(kPlain);
    cap_scores(a, block);
    keep(kCapped);
    mask_scores(a, b, h, first, count, block);
    keep(kMasked);
    softmax(a, block);
    keep(kSoftmax);
    kernels::matmul(count, a.value_width, a.keys, {block.data(), a.keys, 1},
                    {a.v.data<float>().data() + a.value_at(b, h), a.value_width, 1},
                    result + a.result_at(b, h) + first * a.value_width, a.value_width, false, scratch());
  });
  return y;
}

std::vector<Tensor> attention_forward(Call& call) {
  const Attend a = read_attend(call);
  Tensor shown;
  if (call.wants(kScores)) shown = Tensor::allocate(DType::Float32, {a.batch, a.heads, a.queries, a.keys});
  const Tensor y = attended(a, shown.exists() ? shown.write<float>() : std::span<float>());
  return {a.tokens_first ? merge_heads(call, y) : y, a.k, a.v, shown};
}

/// The part of [batch, heads, tokens, width] from token `first` on, `count` tokens.
Tensor some_tokens(const Call& call, const Tensor& x, size_t first, size_t count) {
  const std::vector<std::ptrdiff_t> steps = steps_of(x.shape());
  Shape shape = x.shape();
  shape[2] = count;
  return strided(call, x, shape, steps, steps[2] * static_cast<std::ptrdiff_t>(first));
}

std::vector<Tensor> attention_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Attend a = read_attend(call);
  const auto given = [&](size_t output) { return output < grads.size() && grads[output].exists(); };
  const auto wanted = [&](size_t input) { return call.has(input) && input < call.wanted.size() && call.wanted[input]; };
  if (given(kScores)) call.refuse("no gradient passes through the scores that it gives");
  if (wanted(kMask) && a.mask_keys != a.keys) call.refuse("a mask shorter than the keys has no gradient here");
  Tensor dq = zeros(a.q.shape()), dk = given(kPresentKey) ? grads[kPresentKey] : zeros(a.k.shape()),
         dv = given(kPresentValue) ? grads[kPresentValue] : zeros(a.v.shape());
  Tensor dmask = wanted(kMask) ? zeros({a.batch, a.heads, a.queries, a.keys}) : Tensor();
  if (given(kY)) {
    Tensor dy = grads[kY];
    if (a.tokens_first) {
      dy = transposed(call, dy.reshaped({a.batch, a.queries, a.heads, a.value_width}), kHeadsSecond);
    }
    const Shape block_shape = {block_of(a), a.keys};
    std::vector<Tensor> rooms;
    for (int i = 0; i < 3; ++i) rooms.push_back(Tensor::allocate(DType::Float32, block_shape));
    for_each_block(a, [&](size_t b, size_t h, size_t first, size_t count) {
      const size_t size = count * a.keys;
      const std::span<float> capped = rooms[0].write<float>().first(size), p = rooms[1].write<float>().first(size),
                             ds = rooms[2].write<float>().first(size);
      scores(a, b, h, first, count, capped);
      cap_scores(a, capped);
      std::ranges::copy(capped, p.begin());
      mask_scores(a, b, h, first, count, p);
      softmax(a, p);
      const float* from = dy.data<float>().data() + a.result_at(b, h) + first * a.value_width;
      kernels::matmul(count, a.keys, a.value_width, {from, a.value_width, 1},
                      {a.v.data<float>().data() + a.value_at(b, h), 1, a.value_width}, ds.data(), a.keys, false,
                      scratch());
      // Softmax: ds = p (dp - sum p dp).
      for (size_t i = 0; i < count; ++i) {
        const std::span<float> row = ds.subspan(i * a.keys, a.keys);
        const std::span<const float> weights = p.subspan(i * a.keys, a.keys);
        const float mean = kernels::dot(row, weights);
        for (size_t j = 0; j < a.keys; ++j) row[j] = weights[j] * (row[j] - mean);
      }
      if (dmask.exists()) {
        std::ranges::copy(ds, dmask.write<float>().begin() +
                                  static_cast<std::ptrdiff_t>(((b * a.heads + h) * a.queries + first) * a.keys));
      }
      if (a.cap > 0) {
        for (size_t i = 0; i < size; ++i) ds[i] *= 1 - (capped[i] / a.cap) * (capped[i] / a.cap);
      }
      kernels::scale_shift(ds, a.scale, 0, ds);
      kernels::matmul(a.keys, a.value_width, count, {p.data(), 1, a.keys}, {from, a.value_width, 1},
                      dv.write<float>().data() + a.value_at(b, h), a.value_width, true, scratch());
      kernels::matmul(
          count, a.width, a.keys, {ds.data(), a.keys, 1}, {a.k.data<float>().data() + a.key_at(b, h), a.width, 1},
          dq.write<float>().data() + ((b * a.heads + h) * a.queries + first) * a.width, a.width, false, scratch());
      kernels::matmul(a.keys, a.width, count, {ds.data(), 1, a.keys}, {a.query(b, h) + first * a.width, a.width, 1},
                      dk.write<float>().data() + a.key_at(b, h), a.width, true, scratch());
    });
  }
  std::vector<Tensor> result(call.inputs.size());
  const auto own = [&](const Tensor& x) { return a.tokens_first ? merge_heads(call, x) : x; };
  if (wanted(kQ)) result[kQ] = own(dq);
  if (wanted(kK)) result[kK] = own(some_tokens(call, dk, a.past, a.keys - a.past));
  if (wanted(kV)) result[kV] = own(some_tokens(call, dv, a.past, a.keys - a.past));
  if (wanted(kMask)) result[kMask] = sum_to(dmask, call.inputs[kMask].shape());
  if (wanted(kPastKey)) result[kPastKey] = some_tokens(call, dk, 0, a.past);
  if (wanted(kPastValue)) result[kPastValue] = some_tokens(call, dv, 0, a.past);
  return result;
}

/// What a graph of the node makes of a tensor that it takes in the type it declares.
Tensor modified(const Call& call, std::string_view attribute, const Tensor& x) {
  if (!call.has_attribute(attribute)) return x;
  const Graph& body = call.graph(attribute);
  if (!call.run_graph || body.inputs.size() != 1) call.fail("its graph must take one input");
  const DType type = body.inputs[0].dtype.value_or(DType::Float32);
  if (!is_real(type)) call.fail("its graph must take real numbers");
  std::vector<Tensor> made =
      call.run_graph(body, {type == DType::Float32 ? x : from_floats(type, x.shape(), x.data<float>())});
  if (made.size() != 1 || !is_real(made[0].dtype()) || made[0].shape() != x.shape())
    call.fail("its graph must give real numbers in the shape that it takes, " + to_string(x.shape()));
  if (made[0].dtype() == DType::Float32) return made[0];
  return from_floats(DType::Float32, x.shape(), FloatView(made[0]).values());
}

/// ai.onnx.preview's attention between graphs of the user's own, which want all scores at once.
std::vector<Tensor> flex_forward(Call& call) {
  if (call.inputs.size() != 3 || call.in(kQ).shape().size() != 4)
    call.fail("it takes queries, keys and values of four axes");
  const Attend a = read_attend(call);
  Tensor all = Tensor::allocate(DType::Float32, {a.batch, a.heads, a.queries, a.keys});
  const size_t size = a.queries * a.keys;
  const auto head = [&](size_t b, size_t h) { return (b * a.heads + h) * size; };
  const auto for_each_head = [&](const auto& visit) {
    for (size_t b = 0; b < a.batch; ++b) {
      for (size_t h = 0; h < a.heads; ++h) visit(b, h);
    }
  };
  const std::span<float> products = all.write<float>();
  for_each_head([&](size_t b, size_t h) { scores(a, b, h, 0, a.queries, products.subspan(head(b, h), size)); });
  all = modified(call, "score_mod", all);
  softmax(a, all.write<float>());
  all = modified(call, "prob_mod", all);
  Tensor y = Tensor::allocate(DType::Float32, {a.batch, a.heads, a.queries, a.value_width});
  float* result = y.write<float>().data();
  for_each_head([&](size_t b, size_t h) {
    kernels::matmul(a.queries, a.value_width, a.keys, {all.data<float>().data() + head(b, h), a.keys, 1},
                    {a.v.data<float>().data() + a.value_at(b, h), a.value_width, 1}, result + a.result_at(b, h),
                    a.value_width, false, scratch());
  });
  return {y};
}

// com.microsoft's Attention (docs/ContribOperators.md of ONNX Runtime): one product makes queries, keys and values.
enum : size_t { kInput, kWeights, kBias, kMaskIndex, kPast, kExtraBias, kPastLength };

/// What is added to the scores because of a mask of lengths, of keys, or of queries and keys.
Tensor mask_of(const Call& call, size_t batch, size_t queries, size_t keys) {
  const float hidden = call.real("mask_filter_value", -10000);
  const std::vector<int64_t> given = call.integers(kMaskIndex);
  const Shape& shape = call.in(kMaskIndex).shape();
  const size_t rows = shape == Shape{batch, queries, keys} ? queries : 1;
  Tensor mask = zeros({batch, 1, rows, keys});
  const std::span<float> adds = mask.write<float>();
  if (shape == Shape{batch, keys} || rows > 1 || shape == Shape{batch, 1, keys}) {
    for (size_t i = 0; i < adds.size(); ++i) adds[i] = given[i] > 0 ? 0 : hidden;
  } else if (shape == Shape{batch} || shape == Shape{2 * batch}) {
    // Where each sequence ends, and where it starts.
    for (size_t b = 0; b < batch; ++b) {
      const int64_t start = given.size() > batch ? given[batch + b] : 0;
      for (size_t j = 0; j < keys; ++j) {
        const int64_t at = static_cast<int64_t>(j);
        if (at < start || at >= given[b]) adds[b * keys + j] = hidden;
      }
    }
  } else {
    call.refuse("a mask of shape " + to_string(shape) + " is not supported");
  }
  return mask;
}

std::vector<Tensor> fused_attention_forward(Call& call) {
  const std::span<const float> x = call.floats(kInput), weights = call.floats(kWeights);
  const Shape &xs = call.in(kInput).shape(), &ws = call.in(kWeights).shape();
  const int64_t heads = call.integer("num_heads", 0);
  if (call.integer("do_rotary", 0) || call.integer("past_present_share_buffer", 0) || call.has(kPastLength))
    call.refuse("rotary embedding and shared past buffers are not supported");
  if (xs.size() != 3 || ws.size() != 2 || ws[0] != xs[2] || ws[0] == 0) {
    call.fail("the input must be batch x tokens x width and the weights width x 3 outputs, they are " + to_string(xs) +
              " and " + to_string(ws));
  }
  const size_t third = ws[1] / 3;
  std::vector<int64_t> widths = call.integers("qkv_hidden_sizes");
  if (widths.empty()) widths.assign(3, static_cast<int64_t>(third));
  const auto divided = [&](int64_t width) { return width > 0 && heads > 0 && width % heads == 0; };
  if (widths.size() != 3 || !std::ranges::all_of(widths, divided) || widths[0] != widths[1] ||
      std::ranges::any_of(widths, [&](int64_t width) { return static_cast<uint64_t>(width) > ws[1]; }) ||
      static_cast<size_t>(widths[0] + widths[1] + widths[2]) != ws[1]) {
    call.fail("weights " + to_string(ws) + " cannot be cut into queries, keys and values of " + std::to_string(heads) +
              " heads");
  }
  const size_t rows = xs[0] * xs[1], all = ws[1];
  Tensor product = Tensor::allocate(DType::Float32, {rows, all});
  const std::span<float> made = product.write<float>();
  kernels::matmul(rows, all, ws[0], {x.data(), ws[0], 1}, {weights.data(), all, 1}, made.data(), all, false, scratch());
  if (call.has(kBias)) {
    const std::span<const float> bias = call.floats(kBias);
    if (bias.size() != all) call.fail("the bias must have " + std::to_string(all) + " values");
    for (size_t row = 0; row < rows; ++row)
      kernels::add(made.subspan(row * all, all), bias, made.subspan(row * all, all));
  }
  Attend a;
  a.batch = xs[0], a.queries = xs[1], a.heads = a.kv_heads = static_cast<size_t>(heads);
  a.width = static_cast<size_t>(widths[0]) / a.heads, a.value_width = static_cast<size_t>(widths[2]) / a.heads;
  const auto part = [&](size_t first, size_t width) {
    const auto step = [](size_t n) { return static_cast<std::ptrdiff_t>(n); };
    const std::ptrdiff_t steps[] = {step(a.queries * all), step(width), step(all), 1};
    return strided(call, product, {a.batch, a.heads, a.queries, width}, steps, step(first));
  };
  a.q = part(0, a.width);
  a.k = part(a.heads * a.width, a.width);
  a.v = part(2 * a.heads * a.width, a.value_width);
  if (call.has(kPast)) {
    // [2, batch, heads, past, width], keys before values.
    const std::span<const float> past = call.floats(kPast);
    const Shape& shape = call.in(kPast).shape();
    if (shape.size() != 5 || shape[0] != 2 || shape[1] != a.batch || shape[2] != a.heads || shape[4] != a.width ||
        a.width != a.value_width)
      call.fail("the past " + to_string(shape) + " does not fit " + to_string(a.k.shape()));
    a.past = shape[3];
    const Shape half = {a.batch, a.heads, a.past, a.width};
    const size_t size = past.size() / 2;
    const Tensor old_k = Tensor::from(DType::Float32, half, past.first(size)),
                 old_v = Tensor::from(DType::Float32, half, past.last(size));
    a.k = joined(a.k, old_k);
    a.v = joined(a.v, old_v);
  }
  a.keys = a.mask_keys = a.past + a.queries;
  a.scale = call.real("scale", 0);
  if (a.scale == 0) a.scale = 1 / std::sqrt(static_cast<float>(a.width));
  a.causal = call.integer("unidirectional", 0) != 0;
  if (call.has(kMaskIndex)) a.mask = mask_of(call, a.batch, a.queries, a.keys);
  if (call.has(kExtraBias)) {
    call.floats(kExtraBias);
    const Shape target = {a.batch, a.heads, a.queries, a.keys};
    if (call.in(kExtraBias).shape().size() != 4 || broadcast(call, call.in(kExtraBias).shape(), target) != target)
      call.fail("the bias of the scores is " + to_string(call.in(kExtraBias).shape()) + ", they are " +
                to_string(target));
    Tensor sum = broadcast_to(call, call.in(kExtraBias), target);
    if (a.mask.exists()) {
      const Tensor more = broadcast_to(call, a.mask, target);
      kernels::add(sum.data<float>(), more.data<float>(), sum.write<float>());
    }
    a.mask = sum;
  }
  if (a.mask.exists()) a.mask_steps = broadcast_steps(a.mask.shape(), {a.batch, a.heads, a.queries, a.keys});
  Tensor present;
  if (call.wants(1)) {
    if (a.width != a.value_width) call.refuse("keys and values of different widths cannot be given as one output");
    present = Tensor::allocate(DType::Float32, {2, a.batch, a.heads, a.keys, a.width});
    const std::span<float> to = present.write<float>();
    std::ranges::copy(a.k.data<float>(), to.begin());
    std::ranges::copy(a.v.data<float>(), to.begin() + static_cast<std::ptrdiff_t>(a.k.elements()));
  }
  return {merge_heads(call, attended(a)), present};
}

/// What turns by which angle: x is [batch, heads, tokens, width] or [batch, tokens, heads, width] in memory.
struct Rotary {
  size_t batch = 0, tokens = 0, heads = 0, width = 0, half = 0;
  bool interleaved = false, heads_first = false;
  std::span<const float> cosines, sines;
  std::vector<int64_t> positions;  ///< rows of the tables for [batch, tokens]

  template <class Visit>
  void for_each(const Visit& visit) const {
    for (size_t b = 0; b < batch; ++b) {
      for (size_t t = 0; t < tokens; ++t) {
        const size_t row = positions.empty() ? b * tokens + t : static_cast<size_t>(positions[b * tokens + t]);
        for (size_t h = 0; h < heads; ++h) {
          const size_t at = (heads_first ? (b * heads + h) * tokens + t : (b * tokens + t) * heads + h) * width;
          visit(at, cosines.data() + row * half, sines.data() + row * half);
        }
      }
    }
  }
};

Rotary read_rotary(const Call& call) {
  Rotary r;
  call.floats(0);
  const Shape& x = call.in(0).shape();
  r.cosines = call.floats(1);
  r.sines = call.floats(2);
  r.interleaved = call.integer("interleaved", 0) != 0;
  const int64_t heads = call.integer("num_heads", 0), turned = call.integer("rotary_embedding_dim", 0);
  if (x.size() == 4) {
    r.heads_first = true;
    r.batch = x[0], r.heads = x[1], r.tokens = x[2], r.width = x[3];
  } else if (x.size() == 3 && heads > 0 && x[2] % static_cast<uint64_t>(heads) == 0) {
    r.batch = x[0], r.tokens = x[1], r.heads = static_cast<size_t>(heads), r.width = x[2] / r.heads;
  } else {
    call.fail(
        "the input must be batch, heads, tokens, width, or have three axes and attribute \"num_heads\" divide "
        "the last, it is " +
        to_string(x));
  }
  const uint64_t rotated = turned == 0 ? r.width : static_cast<uint64_t>(turned);
  if (turned < 0 || rotated > r.width || rotated % 2 != 0) {
    call.fail("attribute \"rotary_embedding_dim\" must be an even number up to " + std::to_string(r.width) +
              ", it is " + std::to_string(turned));
  }
  r.half = static_cast<size_t>(rotated) / 2;
  const Shape &cosines = call.in(1).shape(), &sines = call.in(2).shape();
  const bool by_position = call.has(3);
  const Shape direct = {r.batch, r.tokens, r.half};
  if (cosines != sines || (by_position ? cosines.size() != 2 || cosines[1] != r.half : cosines != direct)) {
    call.fail("the tables must both be " + (by_position ? "positions x " + std::to_string(r.half) : to_string(direct)) +
              ", they are " + to_string(cosines) + " and " + to_string(sines));
  }
  if (by_position) {
    r.positions = call.integers(3);
    if (r.positions.size() != r.batch * r.tokens)
      call.fail("position_ids must be " + to_string(Shape{r.batch, r.tokens}) + ", they are " +
                to_string(call.in(3).shape()));
    for (const int64_t position : r.positions) {
      if (position < 0 || static_cast<uint64_t>(position) >= cosines[0])
        call.fail("position " + std::to_string(position) + " is not in the tables, which have " +
                  std::to_string(cosines[0]));
    }
  }
  return r;
}

/// Turns pairs of `x` in place; backwards (the transposed, that is the inverse, rotation) with direction -1.
void rotate(const Rotary& r, float* x, float direction) {
  const size_t step = r.interleaved ? 2 : 1, apart = r.interleaved ? 1 : r.half;
  r.for_each([&](size_t at, const float* cosine, const float* sine) {
    float* head = x + at;
    for (size_t i = 0; i < r.half; ++i, head += step) {
      const float a = head[0], b = head[apart], s = direction * sine[i];
      head[0] = cosine[i] * a - s * b;
      head[apart] = s * a + cosine[i] * b;
    }
  });
}

std::vector<Tensor> rotary_forward(Call& call) {
  const Rotary r = read_rotary(call);
  Tensor y = call.take(0);
  rotate(r, y.write<float>().data(), 1);
  return {y};
}

std::vector<Tensor> rotary_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  for (size_t input = 1; input < 3; ++input) {
    if (input < call.wanted.size() && call.wanted[input]) call.refuse("its tables have no gradient here");
  }
  const Rotary r = read_rotary(call);
  Tensor dx = grads[0];
  rotate(r, dx.write<float>().data(), -1);
  return {dx};
}

}  // namespace

std::span<const Op> attention_ops() {
  static const Op kOps[] = {
      {"Attention", attention_forward, attention_backward, Reals::AsFloat32},
      {"Attention", fused_attention_forward, nullptr, Reals::AsFloat32, {}, "com.microsoft"},
      {"FlexAttention", flex_forward, nullptr, Reals::AsFloat32, {}, "ai.onnx.preview"},
      {"RotaryEmbedding", rotary_forward, rotary_backward, Reals::AsFloat32},
  };
  return kOps;
}

}  // namespace nibble::ops
