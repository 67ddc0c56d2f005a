// Pools: MaxPool, AveragePool, LpPool, the global ones, MaxUnpool.
#include <cmath>
#include <limits>

#include "core/model/ops/convolution.hpp"
#include "core/model/ops/window.hpp"

namespace nibble::ops {
namespace {

/// Elements looked at, beyond which a pool is refused: minutes of work that a file of a few bytes could ask for.
constexpr double kMostVisits = 0x1p36;

struct Pool {
  Window window;
  size_t planes = 0;
  Shape shape;  ///< of the output
};

Pool pool_of(const Call& call, bool ceil_mode) {
  const Shape& x = call.in(0).shape();
  Pool pool;
  pool.window = window_of(call, x, kernel_attribute(call, x), ceil_mode);
  pool.planes = x[0] * x[1];
  pool.shape = {x[0], x[1]};
  pool.shape.insert(pool.shape.end(), pool.window.out.begin(), pool.window.out.end());
  if (elements_of(pool.window.in) > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    call.refuse("planes of more than 2^31 elements");
  }
  double visits = static_cast<double>(pool.planes);
  for (size_t i = 0; i < pool.window.rank(); ++i) {
    visits *= static_cast<double>(pool.window.out[i]) *
              static_cast<double>(std::min(pool.window.kernel[i], pool.window.in[i]));
  }
  if (visits > kMostVisits) call.refuse("windows of this size and number, " + to_string(pool.shape));
  return pool;
}

/// A window that sees padding alone has no largest element and no mean.
void check_reaches(const Call& call, const Window& window) {
  for (size_t axis = 0; axis < window.rank(); ++axis) {
    for (const Reach& reach : reaches(window, axis)) {
      if (reach.count == 0) call.fail("a window lies wholly in the padding along axis " + std::to_string(axis + 2));
    }
  }
}

kernels::Pool2d flat(const Pool& pool) {
  const Window& w = pool.window;
  const size_t last = w.rank() - 1;
  kernels::Pool2d flat;
  flat.planes = pool.planes;
  flat.width = w.in[last];
  flat.out_width = w.out[last];
  flat.kernel_width = w.kernel[last];
  flat.stride_width = w.stride[last];
  flat.dilation_width = w.dilation[last];
  flat.pad_left = w.pad_begin[last];
  if (w.rank() == 1) return flat;
  flat.height = w.in[0];
  flat.out_height = w.out[0];
  flat.kernel_height = w.kernel[0];
  flat.stride_height = w.stride[0];
  flat.dilation_height = w.dilation[0];
  flat.pad_top = w.pad_begin[0];
  return flat;
}

/// Calls visit(out, reach along each of the three axes) for each window of a plane.
template <class Visit>
void for_each_window(const Window& w, const Visit& visit) {
  const std::vector<Reach> depths = reaches(w, 0), rows = reaches(w, 1), columns = reaches(w, 2);
  size_t out = 0;
  for (const Reach& depth : depths) {
    for (const Reach& row : rows) {
      for (const Reach& column : columns) visit(out++, depth, row, column);
    }
  }
}

/// Calls visit(position in the plane) for each element of a window.
template <class Visit>
void for_each_element(const Window& w, const Reach& depth, const Reach& row, const Reach& column, const Visit& visit) {
  for (size_t d = 0; d < depth.count; ++d) {
    for (size_t r = 0; r < row.count; ++r) {
      const size_t line = ((depth.first + d * w.dilation[0]) * w.in[1] + row.first + r * w.dilation[1]) * w.in[2];
      for (size_t c = 0; c < column.count; ++c) visit(line + column.first + c * w.dilation[2]);
    }
  }
}

// --- MaxPool ---------------------------------------------------------------------------------------------------------

template <class T>
void max_loop(const Pool& pool, const T* x, T* y, int32_t* index) {
  const Window w = on_three_axes(pool.window);
  const size_t plane_in = w.plane_in(), plane_out = w.plane_out();
  for_each_window(w, [&](size_t out, const Reach& depth, const Reach& row, const Reach& column) {
    for (size_t plane = 0; plane < pool.planes; ++plane) {
      const T* values = x + plane * plane_in;
      bool first = true;
      T best = {};
      size_t at = 0;
      for_each_element(w, depth, row, column, [&](size_t position) {
        if (!first && !(values[position] > best)) return;
        best = values[position];
        at = position;
        first = false;
      });
      y[plane * plane_out + out] = best;
      if (index) index[plane * plane_out + out] = static_cast<int32_t>(at);
    }
  });
}

/// Position within the plane, row-major, of each output's element.
Tensor max_pooled(const Call& call, const Pool& pool, bool with_index, Tensor& index) {
  const Tensor& x = call.in(0);
  Tensor y = Tensor::allocate(x.dtype(), pool.shape);
  if (with_index) index = Tensor::allocate(DType::Int32, pool.shape);
  int32_t* at = with_index ? index.write<int32_t>().data() : nullptr;
  if (y.elements() == 0) return y;
  check_reaches(call, pool.window);
  if (x.dtype() == DType::Float32 && pool.window.rank() < 3) {
    kernels::max_pool2d(flat(pool), x.data<float>().data(), y.write<float>().data(), at);
    return y;
  }
  visit_type(call, x.dtype(), [&](auto value) {
    using T = decltype(value);
    max_loop(pool, x.data<T>().data(), y.write<T>().data(), at);
  });
  return y;
}

/// ONNX's Indices: positions in the whole input, within a plane row-major or (storage_order 1) column-major.
Tensor flat_indices(const Pool& pool, const Tensor& index, bool column_major) {
  const Window w = on_three_axes(pool.window);
  const size_t plane_in = w.plane_in(), plane_out = w.plane_out();
  Tensor out = Tensor::allocate(DType::Int64, pool.shape);
  const std::span<int64_t> to = out.write<int64_t>();
  const std::span<const int32_t> from = index.data<int32_t>();
  for (size_t i = 0; i < to.size(); ++i) {
    auto at = static_cast<size_t>(from[i]);
    if (column_major) {
      const size_t column = at % w.in[2], row = at / w.in[2] % w.in[1], depth = at / w.in[2] / w.in[1];
      at = (column * w.in[1] + row) * w.in[0] + depth;
    }
    to[i] = static_cast<int64_t>(i / plane_out * plane_in + at);
  }
  return out;
}

std::vector<Tensor> max_pool(Call& call) {
  const Pool pool = pool_of(call, call.integer("ceil_mode", 0) != 0);
  Tensor index;
  Tensor y = max_pooled(call, pool, call.training || call.wants(1), index);
  std::vector<Tensor> out = {std::move(y)};
  if (call.wants(1)) out.push_back(flat_indices(pool, index, call.integer("storage_order", 0) != 0));
  if (call.training) call.saved = {std::move(index)};
  return out;
}

std::vector<Tensor> max_pool_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Pool pool = pool_of(call, call.integer("ceil_mode", 0) != 0);
  Tensor index;
  if (!call.saved.empty())
    index = call.saved[0];
  else
    max_pooled(call, pool, true, index);
  Tensor grad_x = zeros(call.in(0).shape());
  const std::span<float> to = grad_x.write<float>();
  if (!grads[0].exists()) return {grad_x};  // the loss looks at the indices alone
  const std::span<const float> from = grads[0].data<float>();
  const std::span<const int32_t> at = index.data<int32_t>();
  const size_t plane_in = pool.window.plane_in(), plane_out = pool.window.plane_out();
  for (size_t i = 0; i < from.size(); ++i) to[i / plane_out * plane_in + static_cast<size_t>(at[i])] += from[i];
  return {grad_x};
}

/// The inverse of MaxPool with indices: each value at its place, zeros elsewhere.
std::vector<Tensor> max_unpool(Call& call) {
  const std::span<const float> x = call.floats(0);
  const Shape& shape = call.in(0).shape();
  const std::vector<int64_t> index = call.integers(1);
  if (call.in(1).shape() != shape) call.fail("the indices must have the input's shape");
  const std::vector<size_t> kernel = kernel_attribute(call, shape);
  const std::vector<size_t> stride = positive_attribute(call, "strides", kernel.size());
  std::vector<int64_t> pads = call.integers("pads", std::vector<int64_t>(2 * kernel.size(), 0));
  if (pads.size() != 2 * kernel.size()) call.fail("pads must have two values per spatial axis");
  Shape inner = {shape[0], shape[1]};
  for (size_t i = 0; i < kernel.size(); ++i) {
    const int64_t made = static_cast<int64_t>((std::max<size_t>(shape[i + 2], 1) - 1) * stride[i] + kernel[i]);
    if (pads[i] < 0 || pads[i + kernel.size()] < 0 || pads[i] >= made || pads[i + kernel.size()] >= made - pads[i]) {
      call.fail("the pads leave nothing of an output of " + std::to_string(made));
    }
    inner.push_back(static_cast<size_t>(made - pads[i] - pads[i + kernel.size()]));
  }
  Shape wanted = inner;
  if (call.has(2)) {
    wanted.clear();
    for (const int64_t value : call.integers(2)) {
      if (value < 0) call.fail("output_shape must not be negative");
      wanted.push_back(static_cast<size_t>(value));
    }
    if (wanted.size() != shape.size()) call.fail("output_shape must have the input's rank");
  }
  Tensor y = zeros(wanted);
  const std::span<float> out = y.write<float>();
  // The indices are positions in the tensor that was pooled, whose shape is the one that the attributes give.
  const size_t rank = shape.size(), elements = elements_of(inner);
  const std::vector<std::ptrdiff_t> steps = steps_of(wanted);
  for (size_t i = 0; i < x.size(); ++i) {
    if (index[i] < 0 || static_cast<size_t>(index[i]) >= std::max(elements, out.size())) {
      call.fail("index " + std::to_string(index[i]) + " lies outside of the output");
    }
    auto left = static_cast<size_t>(index[i]);
    if (inner == wanted) {
      out[left] = x[i];
      continue;
    }
    std::ptrdiff_t at = 0;
    bool inside = left < elements;
    for (size_t axis = rank; axis-- > 0;) {
      const size_t position = left % std::max<size_t>(inner[axis], 1);
      left /= std::max<size_t>(inner[axis], 1);
      inside &= position < wanted[axis];
      at += static_cast<std::ptrdiff_t>(position) * steps[axis];
    }
    if (!inside) call.fail("index " + std::to_string(index[i]) + " lies outside of output_shape " + to_string(wanted));
    out[static_cast<size_t>(at)] = x[i];
  }
  return {y};
}

// --- AveragePool and LpPool ------------------------------------------------------------------------------------------

/// By how much each window of a plane is divided.
std::vector<float> divisors(const Window& w, bool count_padding) {
  std::array<std::vector<size_t>, kMostSpatialAxes> counts;
  for (size_t axis = 0; axis < kMostSpatialAxes; ++axis) {
    if (count_padding) {
      counts[axis] = padded_counts(w, axis);
      continue;
    }
    for (const Reach& reach : reaches(w, axis)) counts[axis].push_back(reach.count);
  }
  std::vector<float> out;
  for (const size_t depth : counts[0]) {
    for (const size_t row : counts[1]) {
      for (const size_t column : counts[2]) out.push_back(static_cast<float>(depth * row * column));
    }
  }
  return out;
}

/// True where the kernels divide by the same: two axes, and no window that reaches beyond the declared padding.
bool is_plain_average(const Window& window, bool count_padding) {
  if (window.rank() > 2) return false;
  if (!count_padding) return true;
  for (size_t axis = 0; axis < window.rank(); ++axis) {
    const std::vector<size_t> counts = padded_counts(window, axis);
    if (std::any_of(counts.begin(), counts.end(), [&](size_t count) { return count != window.kernel[axis]; })) {
      return false;
    }
  }
  return true;
}

std::vector<Tensor> average_pool(Call& call) {
  const std::span<const float> x = call.floats(0);
  const Pool pool = pool_of(call, call.integer("ceil_mode", 0) != 0);
  const bool count_padding = call.integer("count_include_pad", 0) != 0;
  Tensor y = Tensor::allocate(DType::Float32, pool.shape);
  if (y.elements() == 0) return {y};
  if (!count_padding) check_reaches(call, pool.window);
  const std::span<float> out = y.write<float>();
  if (is_plain_average(pool.window, count_padding)) {
    kernels::average_pool2d(flat(pool), x.data(), out.data(), count_padding);
    return {y};
  }
  const Window w = on_three_axes(pool.window);
  const std::vector<float> divisor = divisors(w, count_padding);
  const size_t plane_in = w.plane_in(), plane_out = w.plane_out();
  for_each_window(w, [&](size_t at, const Reach& depth, const Reach& row, const Reach& column) {
    for (size_t plane = 0; plane < pool.planes; ++plane) {
      float sum = 0;
      for_each_element(w, depth, row, column, [&](size_t position) { sum += x[plane * plane_in + position]; });
      out[plane * plane_out + at] = sum / divisor[at];
    }
  });
  return {y};
}

std::vector<Tensor> average_pool_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Pool pool = pool_of(call, call.integer("ceil_mode", 0) != 0);
  const bool count_padding = call.integer("count_include_pad", 0) != 0;
  Tensor grad_x = zeros(call.in(0).shape());
  const std::span<const float> from = grads[0].data<float>();
  const std::span<float> to = grad_x.write<float>();
  if (from.empty()) return {grad_x};
  if (is_plain_average(pool.window, count_padding)) {
    kernels::average_pool2d_grad(flat(pool), from.data(), to.data(), count_padding);
    return {grad_x};
  }
  const Window w = on_three_axes(pool.window);
  const std::vector<float> divisor = divisors(w, count_padding);
  const size_t plane_in = w.plane_in(), plane_out = w.plane_out();
  for_each_window(w, [&](size_t at, const Reach& depth, const Reach& row, const Reach& column) {
    for (size_t plane = 0; plane < pool.planes; ++plane) {
      const float share = from[plane * plane_out + at] / divisor[at];
      for_each_element(w, depth, row, column, [&](size_t position) { to[plane * plane_in + position] += share; });
    }
  });
  return {grad_x};
}

/// The exponent of a norm: an integer, a float in operator set 1.
float exponent_of(const Call& call) {
  const Attribute* given = find_attribute(call.node, "p");
  const bool real = given && std::holds_alternative<float>(given->value);
  const float p = real ? call.real("p", 2) : static_cast<float>(call.integer("p", 2));
  if (!(p >= 1)) call.fail("p must be at least 1, it is " + std::to_string(p));
  return p;
}

float powered(float x, float p) {
  if (p == 1) return std::fabs(x);
  return p == 2 ? x * x : std::pow(std::fabs(x), p);
}
float rooted(float sum, float p) {
  if (p == 1) return sum;
  return p == 2 ? std::sqrt(sum) : std::pow(sum, 1 / p);
}

std::vector<Tensor> lp_pool(Call& call) {
  const std::span<const float> x = call.floats(0);
  const Pool pool = pool_of(call, call.integer("ceil_mode", 0) != 0);
  const float p = exponent_of(call);
  Tensor y = Tensor::allocate(DType::Float32, pool.shape);
  if (y.elements() == 0) return {y};
  const std::span<float> out = y.write<float>();
  const Window w = on_three_axes(pool.window);
  const size_t plane_in = w.plane_in(), plane_out = w.plane_out();
  for_each_window(w, [&](size_t at, const Reach& depth, const Reach& row, const Reach& column) {
    for (size_t plane = 0; plane < pool.planes; ++plane) {
      float sum = 0;
      for_each_element(w, depth, row, column,
                       [&](size_t position) { sum += powered(x[plane * plane_in + position], p); });
      out[plane * plane_out + at] = rooted(sum, p);
    }
  });
  return {y};
}

// --- Global ----------------------------------------------------------------------------------------------------------

struct Global {
  size_t planes = 0, plane = 0;
  Shape shape;
};

Global global_of(const Call& call) {
  const Shape& x = call.in(0).shape();
  if (x.size() < 2) call.fail("the input must have the shape [images, channels, ...], it is " + to_string(x));
  Global global{x[0] * x[1], extent(x, 2, x.size()), Shape(x.size(), 1)};
  global.shape[0] = x[0];
  global.shape[1] = x[1];
  if (global.plane == 0) call.fail("an input without elements along a spatial axis: " + to_string(x));
  return global;
}

std::vector<Tensor> global_average_pool(Call& call) {
  const std::span<const float> x = call.floats(0);
  const Global global = global_of(call);
  Tensor y = Tensor::allocate(DType::Float32, global.shape);
  const std::span<float> out = y.write<float>();
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = kernels::sum(x.subspan(i * global.plane, global.plane)) / static_cast<float>(global.plane);
  }
  return {y};
}

std::vector<Tensor> global_average_pool_backward(const Call& call, std::span<const Tensor>,
                                                 std::span<const Tensor> grads) {
  const Global global = global_of(call);
  Tensor grad_x = Tensor::allocate(DType::Float32, call.in(0).shape());
  const std::span<float> to = grad_x.write<float>();
  const std::span<const float> from = grads[0].data<float>();
  for (size_t i = 0; i < from.size(); ++i) {
    const float share = from[i] / static_cast<float>(global.plane);
    std::fill_n(to.begin() + static_cast<std::ptrdiff_t>(i * global.plane), global.plane, share);
  }
  return {grad_x};
}

std::vector<Tensor> global_max_pool(Call& call) {
  const std::span<const float> x = call.floats(0);
  const Global global = global_of(call);
  Tensor y = Tensor::allocate(DType::Float32, global.shape);
  const std::span<float> out = y.write<float>();
  for (size_t i = 0; i < out.size(); ++i) {
    const std::span<const float> plane = x.subspan(i * global.plane, global.plane);
    out[i] = *std::max_element(plane.begin(), plane.end());
  }
  return {y};
}

std::vector<Tensor> global_max_pool_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Global global = global_of(call);
  const std::span<const float> x = call.floats(0), from = grads[0].data<float>();
  Tensor grad_x = zeros(call.in(0).shape());
  const std::span<float> to = grad_x.write<float>();
  for (size_t i = 0; i < from.size(); ++i) {
    const std::span<const float> plane = x.subspan(i * global.plane, global.plane);
    const auto at = static_cast<size_t>(std::max_element(plane.begin(), plane.end()) - plane.begin());
    to[i * global.plane + at] = from[i];
  }
  return {grad_x};
}

std::vector<Tensor> global_lp_pool(Call& call) {
  const std::span<const float> x = call.floats(0);
  const Global global = global_of(call);
  const float p = exponent_of(call);
  Tensor y = Tensor::allocate(DType::Float32, global.shape);
  const std::span<float> out = y.write<float>();
  for (size_t i = 0; i < out.size(); ++i) {
    float sum = 0;
    for (const float value : x.subspan(i * global.plane, global.plane)) sum += powered(value, p);
    out[i] = rooted(sum, p);
  }
  return {y};
}

}  // namespace

std::span<const Op> pooling_ops() {
  static const Op kOps[] = {
      {.name = "MaxPool", .forward = max_pool, .backward = max_pool_backward, .reals = Reals::AsFloat32},
      {.name = "AveragePool", .forward = average_pool, .backward = average_pool_backward, .reals = Reals::AsFloat32},
      {.name = "LpPool", .forward = lp_pool, .reals = Reals::AsFloat32},
      {.name = "GlobalAveragePool",
       .forward = global_average_pool,
       .backward = global_average_pool_backward,
       .reals = Reals::AsFloat32},
      {.name = "GlobalMaxPool",
       .forward = global_max_pool,
       .backward = global_max_pool_backward,
       .reals = Reals::AsFloat32},
      {.name = "GlobalLpPool", .forward = global_lp_pool, .reals = Reals::AsFloat32},
      {.name = "MaxUnpool", .forward = max_unpool, .reals = Reals::AsFloat32},
  };
  return kOps;
}

}  // namespace nibble::ops
