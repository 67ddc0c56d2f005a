// Softmax, LogSoftmax and Hardmax: along one axis since operator set 13, before it over all axes from that one on.
#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

/// The input seen as [outer, count, inner], the numbers that go together `inner` apart.
struct Groups {
  size_t outer = 1, count = 1, inner = 1;
};

Groups groups_in(const Call& call) {
  const Shape& shape = call.in(0).shape();
  const size_t rank = shape.size();
  if (call.opset >= 13) {
    const size_t axis = axis_of(call, call.integer("axis", -1), rank);
    return {extent(shape, 0, axis), shape[axis], extent(shape, axis + 1, rank)};
  }
  // The input is seen as a matrix; an axis behind the last one leaves one column.
  const int64_t axis = call.integer("axis", 1);
  const bool behind = axis == static_cast<int64_t>(rank);
  const size_t split = behind ? rank : axis_of(call, axis, rank);
  return {extent(shape, 0, split), extent(shape, split, rank), 1};
}

/// The groups as rows: [outer * inner, count].
Tensor as_rows(const Call& call, const Tensor& x, const Groups& groups) {
  if (groups.inner == 1 || x.elements() == 0) return x;
  constexpr size_t kOrder[] = {0, 2, 1};
  return transposed(call, x.reshaped({groups.outer, groups.count, groups.inner}), kOrder);
}
Tensor from_rows(const Call& call, Tensor rows, const Groups& groups, const Shape& shape) {
  if (groups.inner == 1 || rows.elements() == 0) return std::move(rows).reshaped(shape);
  constexpr size_t kOrder[] = {0, 2, 1};
  rows = std::move(rows).reshaped({groups.outer, groups.inner, groups.count});
  return transposed(call, rows, kOrder).reshaped(shape);
}

template <bool kLog>
std::vector<Tensor> softmax(Call& call) {
  call.floats(0);
  const Groups groups = groups_in(call);
  const Shape shape = call.in(0).shape();
  Tensor x = as_rows(call, call.take(0), groups);
  if (x.elements() == 0) return {std::move(x).reshaped(shape)};
  const std::span<const float> from = x.data<float>();
  Tensor out = x.is_unshared() ? std::move(x) : Tensor::allocate(DType::Float32, x.shape());
  if (kLog)
    kernels::log_softmax_rows(from, groups.count, out.write<float>());
  else
    kernels::softmax_rows(from, groups.count, out.write<float>());
  return {from_rows(call, std::move(out), groups, shape)};
}

template <bool kLog>
std::vector<Tensor> softmax_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Groups groups = groups_in(call);
  const Tensor y = as_rows(call, as_floats(outputs[0]), groups), grad = as_rows(call, grads[0], groups);
  Tensor out = Tensor::allocate(DType::Float32, grad.shape());
  const std::span<const float> ys = y.data<float>(), gs = grad.data<float>();
  const std::span<float> to = out.write<float>();
  if (kLog) kernels::exp(ys, to);
  for (size_t at = 0; at < to.size(); at += groups.count) {
    const std::span<const float> g = gs.subspan(at, groups.count), row = ys.subspan(at, groups.count);
    const std::span<float> d = to.subspan(at, groups.count);
    // y (g - sum(g y)), and g - exp(y) sum(g) of the logarithm.
    const float sum = kLog ? kernels::sum(g) : kernels::dot(g, row);
    for (size_t i = 0; i < d.size(); ++i) d[i] = kLog ? g[i] - d[i] * sum : row[i] * (g[i] - sum);
  }
  return {from_rows(call, std::move(out), groups, call.in(0).shape())};
}

/// 1 at the first of the largest, 0 elsewhere.
std::vector<Tensor> hardmax(Call& call) {
  const Groups groups = groups_in(call);
  const std::span<const float> x = call.floats(0);
  Tensor out = zeros(call.in(0).shape());
  const std::span<float> to = out.write<float>();
  if (to.empty()) return {std::move(out)};
  for (size_t row = 0; row < groups.outer * groups.inner; ++row) {
    const size_t start = row / groups.inner * groups.count * groups.inner + row % groups.inner;
    size_t best = start;
    for (size_t i = 1; i < groups.count; ++i) {
      const size_t at = start + i * groups.inner;
      if (x[at] > x[best]) best = at;
    }
    to[best] = 1;
  }
  return {std::move(out)};
}

const Op kOps[] = {
    {"Softmax", softmax<false>, softmax_backward<false>, Reals::AsFloat32},
    {"LogSoftmax", softmax<true>, softmax_backward<true>, Reals::AsFloat32},
    {"Hardmax", hardmax, nullptr, Reals::AsFloat32},
};

}  // namespace

std::span<const Op> softmax_ops() { return kOps; }

}  // namespace nibble::ops
