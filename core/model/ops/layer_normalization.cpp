// Normalisations of rows: LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization.
#include <cmath>

#include "core/model/ops/normalization.hpp"

namespace nibble::ops {
namespace {

// Layer, instance and group normalisation are one thing: rows of x become (x - mean) * inverse deviation, RMS
// normalisation the same without the mean.

struct Rows {
  size_t count = 0, size = 0;
  float epsilon = 0;
  bool centred = true;
  size_t axes = 0;  ///< of x, the last, that a row runs over (where apply_affine is called)
};

struct RowMoments {
  std::vector<float> mean, inverse;
};

/// Normalises each row of x into y (which may be x).
RowMoments normalise_rows(const Rows& rows, std::span<const float> x, std::span<float> y) {
  RowMoments moments;
  moments.mean.assign(rows.count, 0.0f);
  moments.inverse.resize(rows.count);
  for (size_t r = 0; r < rows.count; ++r) {
    const std::span<const float> in = x.subspan(r * rows.size, rows.size);
    const std::span<float> out = y.subspan(r * rows.size, rows.size);
    float squares;
    if (rows.centred) {
      moments.mean[r] = mean_of(in);
      squares = squared_deviations(in, moments.mean[r], out);
    } else {
      squares = kernels::dot(in, in);
    }
    moments.inverse[r] = 1 / std::sqrt(squares / static_cast<float>(rows.size) + rows.epsilon);
    kernels::scale_shift(rows.centred ? out : in, moments.inverse[r], 0.0f, out);
  }
  return moments;
}

/// The gradient through that: with n the normalised row and g the gradient that arrives at it,
/// inverse * (g - mean(g) - n * mean(g * n)); without centring mean(g) falls away (Ioffe and Szegedy 2015, section 3;
/// Zhang and Sennrich 2019, section 4). In place of `grad`.
void normalise_rows_grad(const Rows& rows, std::span<const float> normal, std::span<const float> inverse,
                         std::span<float> grad) {
  for (size_t r = 0; r < rows.count; ++r) {
    const std::span<const float> n = normal.subspan(r * rows.size, rows.size);
    const std::span<float> g = grad.subspan(r * rows.size, rows.size);
    const float along = kernels::dot(g, n) / static_cast<float>(rows.size);
    const float mean = rows.centred ? mean_of(g) : 0.0f;
    kernels::add_scaled(-along, n, g);
    kernels::scale_shift(g, inverse[r], -mean * inverse[r], g);
  }
}

/// What the backward passes begin with: the normalised rows again, from x.
struct Renormalised {
  Tensor normal;
  RowMoments moments;
};
Renormalised renormalised(const Rows& rows, const Tensor& x) {
  Renormalised made;
  made.normal = Tensor::allocate(DType::Float32, x.shape());
  made.moments = normalise_rows(rows, x.data<float>(), made.normal.write<float>());
  return made;
}

/// y = normal * scale + bias, in place; scale and bias (which may be left out) broadcast to y's shape. Where they are
/// one row, as they are in practice, nothing is stretched.
void apply_affine(const Call& call, const Rows& rows, const Tensor& scale, const Tensor& bias, Tensor& y) {
  const std::span<float> out = y.write<float>();
  const auto run = [&](const Tensor& tensor, auto combine) {
    if (!tensor.exists()) return;
    const size_t leading = tensor.shape().size() - std::min(tensor.shape().size(), rows.axes);
    if (tensor.elements() == rows.size && extent(tensor.shape(), 0, leading) == 1) {
      const std::span<const float> values = tensor.data<float>();
      for (size_t r = 0; r < rows.count; ++r) {
        const std::span<float> row = out.subspan(r * rows.size, rows.size);
        combine(row, values, row);
      }
      return;
    }
    const Tensor stretched = broadcast_to(call, tensor, y.shape());
    combine(out, stretched.data<float>(), out);
  };
  run(scale, kernels::multiply);
  run(bias, kernels::add);
}

struct LayerOptions {
  Rows rows;
  Shape reduced;  ///< of the mean: x's shape with 1 for the normalised axes
};

LayerOptions layer_of(const Call& call, bool centred) {
  const Shape& x = call.in(0).shape();
  const size_t axis = axis_of(call, call.integer("axis", -1), x.size());
  LayerOptions options;
  options.rows = {extent(x, 0, axis), extent(x, axis, x.size()), call.real("epsilon", 1e-5f), centred, x.size() - axis};
  check_epsilon(call, options.rows.epsilon);
  if (options.rows.size == 0) call.fail("rows without elements, " + to_string(x));
  options.reduced.assign(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(axis));
  options.reduced.resize(x.size(), 1);
  for (const size_t input : {size_t{1}, size_t{2}}) {
    if (!call.has(input)) continue;
    call.floats(input);
    const Shape& shape = call.in(input).shape();
    if (shape.size() > x.size() || broadcast(call, shape, x) != x) {
      call.fail("a scale or bias of " + to_string(shape) + " does not fit an input of " + to_string(x));
    }
  }
  return options;
}

/// LayerNormalization (Ba, Kiros and Hinton 2016) and RMSNormalization (Zhang and Sennrich 2019).
std::vector<Tensor> layer_like(Call& call, bool centred) {
  call.floats(0);
  const LayerOptions options = layer_of(call, centred);
  Tensor y = call.take(0);
  const std::span<float> values = y.write<float>();
  const RowMoments moments = normalise_rows(options.rows, values, values);
  apply_affine(call, options.rows, call.in(1), call.has(2) ? call.in(2) : Tensor(), y);
  std::vector<Tensor> out = {std::move(y)};
  if (call.wants(1) || call.wants(2)) {
    const Tensor inverse = Tensor::from<float>(DType::Float32, options.reduced, moments.inverse);
    if (centred) out.push_back(Tensor::from<float>(DType::Float32, options.reduced, moments.mean));
    out.push_back(inverse);
  }
  return out;
}

std::vector<Tensor> layer_like_backward(const Call& call, std::span<const Tensor> grads, bool centred) {
  const LayerOptions options = layer_of(call, centred);
  if (!grads[0].exists()) call.refuse("no gradient passes through its mean and deviation");
  const Renormalised again = renormalised(options.rows, call.in(0));
  std::vector<Tensor> out(call.inputs.size());
  const Shape& shape = call.in(0).shape();
  if (wanted(call, 0)) {
    out[0] = grads[0];
    apply_affine(call, options.rows, call.in(1), Tensor(), out[0]);
    normalise_rows_grad(options.rows, again.normal.data<float>(), again.moments.inverse, out[0].write<float>());
  }
  if (wanted(call, 1)) {
    Tensor product = Tensor::allocate(DType::Float32, shape);
    kernels::multiply(grads[0].data<float>(), again.normal.data<float>(), product.write<float>());
    out[1] = sum_to(product, call.in(1).shape());
  }
  if (wanted(call, 2)) out[2] = sum_to(grads[0], call.in(2).shape());
  return out;
}

std::vector<Tensor> layer_normalization(Call& call) { return layer_like(call, true); }
std::vector<Tensor> layer_normalization_backward(const Call& call, std::span<const Tensor>,
                                                 std::span<const Tensor> grads) {
  return layer_like_backward(call, grads, true);
}
std::vector<Tensor> rms_normalization(Call& call) { return layer_like(call, false); }
std::vector<Tensor> rms_normalization_backward(const Call& call, std::span<const Tensor>,
                                               std::span<const Tensor> grads) {
  return layer_like_backward(call, grads, false);
}

/// A row is the channels of one group of one image; scale and bias are per channel or, in GroupNormalization before
/// operator set 21, per group.
struct GroupOptions {
  Rows rows;
  size_t channels = 0, plane = 0;
  size_t per_value = 1;  ///< channels that share one scale
};

GroupOptions group_of(const Call& call, size_t groups, bool scale_per_group) {
  const Shape& x = call.in(0).shape();
  if (x.size() < 2) call.fail("the input must be [images, channels, ...], it is " + to_string(x));
  GroupOptions options;
  options.channels = x[1];
  options.plane = extent(x, 2, x.size());
  if (groups == 0 || options.channels % groups != 0 || options.plane == 0 || options.channels == 0) {
    call.fail(std::to_string(options.channels) + " channels cannot be cut into " + std::to_string(groups) + " groups");
  }
  options.rows = {x[0] * groups, options.channels / groups * options.plane, call.real("epsilon", 1e-5f), true};
  check_epsilon(call, options.rows.epsilon);
  if (scale_per_group) options.per_value = options.channels / groups;
  const size_t values = options.channels / options.per_value;
  if (call.floats(1).size() != values || call.floats(2).size() != values) {
    call.fail("scale and bias must have " + std::to_string(values) + " values");
  }
  return options;
}

/// Calls visit(plane of the image, which scale) in order.
template <class Visit>
void for_each_plane(const GroupOptions& options, size_t elements, const Visit& visit) {
  for (size_t i = 0; i < elements / options.plane; ++i)
    visit(i * options.plane, i % options.channels / options.per_value);
}

std::vector<Tensor> group_like(Call& call, const GroupOptions& options) {
  call.floats(0);
  Tensor y = call.take(0);
  const std::span<float> values = y.write<float>();
  normalise_rows(options.rows, values, values);
  const std::span<const float> scale = call.floats(1), bias = call.floats(2);
  for_each_plane(options, values.size(), [&](size_t at, size_t which) {
    const std::span<float> plane = values.subspan(at, options.plane);
    kernels::scale_shift(plane, scale[which], bias[which], plane);
  });
  return {y};
}

std::vector<Tensor> group_like_backward(const Call& call, std::span<const Tensor> grads, const GroupOptions& options) {
  const Renormalised again = renormalised(options.rows, call.in(0));
  const std::span<const float> normal = again.normal.data<float>(), grad_y = grads[0].data<float>();
  const std::span<const float> scale = call.floats(1);
  std::vector<Tensor> out(3);
  out[1] = zeros(call.in(1).shape());
  out[2] = zeros(call.in(2).shape());
  const std::span<float> grad_scale = out[1].write<float>(), grad_bias = out[2].write<float>();
  out[0] = grads[0];
  const std::span<float> grad_x = out[0].write<float>();
  for_each_plane(options, grad_y.size(), [&](size_t at, size_t which) {
    const std::span<const float> g = grad_y.subspan(at, options.plane);
    grad_scale[which] += kernels::dot(g, normal.subspan(at, options.plane));
    grad_bias[which] += kernels::sum(g);
    kernels::scale_shift(g, scale[which], 0.0f, grad_x.subspan(at, options.plane));
  });
  normalise_rows_grad(options.rows, normal, again.moments.inverse, grad_x);
  return out;
}

/// Ulyanov, Vedaldi and Lempitsky 2016: groups of one channel.
GroupOptions instance_of(const Call& call) {
  const Shape& x = call.in(0).shape();
  return group_of(call, x.size() < 2 ? 0 : x[1], false);
}
std::vector<Tensor> instance_normalization(Call& call) { return group_like(call, instance_of(call)); }
std::vector<Tensor> instance_normalization_backward(const Call& call, std::span<const Tensor>,
                                                    std::span<const Tensor> grads) {
  return group_like_backward(call, grads, instance_of(call));
}

/// Wu and He 2018.
GroupOptions groups_of(const Call& call) {
  const int64_t groups = call.integer("num_groups", 0);
  return group_of(call, groups < 1 ? 0 : static_cast<size_t>(groups), call.opset < 21);
}
std::vector<Tensor> group_normalization(Call& call) { return group_like(call, groups_of(call)); }
std::vector<Tensor> group_normalization_backward(const Call& call, std::span<const Tensor>,
                                                 std::span<const Tensor> grads) {
  return group_like_backward(call, grads, groups_of(call));
}

}  // namespace

std::span<const Op> row_normalization_ops() {
  static const Op kOps[] = {
      {.name = "LayerNormalization",
       .forward = layer_normalization,
       .backward = layer_normalization_backward,
       .reals = Reals::AsFloat32},
      {.name = "RMSNormalization",
       .forward = rms_normalization,
       .backward = rms_normalization_backward,
       .reals = Reals::AsFloat32},
      // As ONNX Runtime writes it into ONNX's own domain; its second output is the inverse deviation.
      {.name = "SimplifiedLayerNormalization",
       .forward = rms_normalization,
       .backward = rms_normalization_backward,
       .reals = Reals::AsFloat32},
      {.name = "InstanceNormalization",
       .forward = instance_normalization,
       .backward = instance_normalization_backward,
       .reals = Reals::AsFloat32},
      {.name = "GroupNormalization",
       .forward = group_normalization,
       .backward = group_normalization_backward,
       .reals = Reals::AsFloat32},
  };
  return kOps;
}

}  // namespace nibble::ops
