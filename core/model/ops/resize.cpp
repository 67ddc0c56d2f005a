// Resize and Upsample.
#include <cmath>
#include <limits>
#include <optional>

#include "core/model/ops/convolution.hpp"
#include "core/model/ops/support.hpp"

namespace nibble::ops {

/// Keys, "Cubic convolution interpolation for digital image processing" (IEEE ASSP 29, 1981), with a free parameter.
double cubic_weight(double distance, double a) {
  const double x = std::fabs(distance);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

namespace {

enum class Mode : uint8_t { Nearest, Linear, Cubic };

/// From which inputs each output along one axis is made. Every weighting of ONNX's Resize is a product of weightings
/// along single axes, so the axes are resized one after the other.
struct Taps {
  std::vector<size_t> begin = {0};  ///< of each output in the two below, and one past the last
  std::vector<size_t> index;
  std::vector<float> weight;
  std::vector<char> outside;  ///< outputs that are the extrapolation value, and have no taps
};

struct Axis {
  size_t in = 0, out = 0;
  float scale = 1, roi_start = 0, roi_end = 1;
};

struct ResizePlan {
  Mode mode = Mode::Linear;
  std::string coordinates, nearest;
  bool antialias = false, exclude_outside = false;
  float cubic_a = -0.75f, extrapolation = 0;
  std::vector<Axis> axes;
  Shape shape;
};

constexpr size_t kLongestAxis = size_t{1} << 30;

/// Where output i lies on the input: the formulas of ONNX's Resize. In float, as other runtimes compute them, because
/// the nearest pixel hangs on the last bit.
float source_of(const Call& call, const ResizePlan& plan, const Axis& axis, size_t i) {
  const auto x = static_cast<float>(i), in = static_cast<float>(axis.in);
  const float resized = axis.scale * in;  // not a whole number where `scales` is given
  const std::string& mode = plan.coordinates;
  if (mode == "half_pixel") return (x + 0.5f) / axis.scale - 0.5f;
  if (mode == "asymmetric") return x / axis.scale;
  if (mode == "pytorch_half_pixel") return axis.out > 1 ? (x + 0.5f) / axis.scale - 0.5f : 0.0f;
  if (mode == "align_corners") return resized == 1 ? 0.0f : x * (in - 1) / (resized - 1);
  if (mode == "tf_half_pixel_for_nn") return (x + 0.5f) / axis.scale;
  if (mode == "half_pixel_symmetric") {
    const float adjustment = static_cast<float>(axis.out) / resized;
    return in / 2 * (1 - adjustment) + (x + 0.5f) / axis.scale - 0.5f;
  }
  if (mode == "tf_crop_and_resize") {
    if (axis.out == 1) return 0.5f * (axis.roi_start + axis.roi_end) * (in - 1);
    return axis.roi_start * (in - 1) + x * (axis.roi_end - axis.roi_start) * (in - 1) / (resized - 1);
  }
  call.fail("coordinate_transformation_mode \"" + mode + "\" is not known");
}

int64_t nearest_of(const Call& call, const ResizePlan& plan, const Axis& axis, float x) {
  const float floor = std::floor(x), ratio = x - floor;
  const auto low = static_cast<int64_t>(floor);
  const int64_t high = ratio == 0 ? low : low + 1;
  if (plan.nearest == "round_prefer_floor") return ratio <= 0.5f ? low : high;
  if (plan.nearest == "round_prefer_ceil") return ratio < 0.5f ? low : high;
  if (plan.nearest == "floor") return low;
  if (plan.nearest == "ceil") return high;
  // Before operator set 11: the pixel before, when making smaller the one after.
  if (plan.nearest == "simple") return axis.scale < 1 ? high : low;
  call.fail("nearest_mode \"" + plan.nearest + "\" is not known");
}

Taps taps_of(const Call& call, const ResizePlan& plan, const Axis& axis) {
  Taps taps;
  taps.outside.assign(axis.out, 0);
  const bool crop = plan.coordinates == "tf_crop_and_resize";
  const auto last = static_cast<int64_t>(axis.in) - 1;
  // Antialiasing stretches the filter by how much is made smaller.
  const double stretch = plan.antialias ? std::min(static_cast<double>(axis.scale), 1.0) : 1.0;
  const double reach = (plan.mode == Mode::Cubic ? 2 : 1) / stretch;
  std::vector<double> weights;
  for (size_t i = 0; i < axis.out; ++i) {
    const float x = source_of(call, plan, axis, i);
    if (crop && !(x >= 0 && x <= static_cast<float>(last))) {
      taps.outside[i] = 1;
      taps.begin.push_back(taps.index.size());
      continue;
    }
    if (!(std::fabs(x) < 0x1p40f)) call.fail("a coordinate of the input that is not a number");
    if (plan.mode == Mode::Nearest) {
      taps.index.push_back(static_cast<size_t>(std::clamp<int64_t>(nearest_of(call, plan, axis, x), 0, last)));
      taps.weight.push_back(1);
      taps.begin.push_back(taps.index.size());
      continue;
    }
    const auto floor = static_cast<int64_t>(std::floor(x));
    const double ratio = static_cast<double>(x) - static_cast<double>(floor);
    const auto first = static_cast<int64_t>(std::floor(-reach)) + 1, end = 2 - first;
    weights.clear();
    double sum = 0;
    for (int64_t k = first; k < end; ++k) {
      const double distance = (static_cast<double>(k) - ratio) * stretch;
      double weight = plan.mode == Mode::Cubic ? cubic_weight(distance, static_cast<double>(plan.cubic_a))
                                               : std::max(0.0, 1 - std::fabs(distance));
      if (plan.exclude_outside && (floor + k < 0 || floor + k > last)) weight = 0;
      weights.push_back(weight);
      sum += weight;
    }
    const bool normalise = (plan.exclude_outside || plan.antialias) && sum != 0;
    for (int64_t k = first; k < end; ++k) {
      const double weight = weights[static_cast<size_t>(k - first)] / (normalise ? sum : 1);
      if (weight == 0) continue;
      taps.index.push_back(static_cast<size_t>(std::clamp<int64_t>(floor + k, 0, last)));
      taps.weight.push_back(static_cast<float>(weight));
    }
    taps.begin.push_back(taps.index.size());
  }
  return taps;
}

bool is_identity(const Axis& axis, const Taps& taps) {
  if (axis.in != axis.out || taps.index.size() != axis.in) return false;
  for (size_t i = 0; i < axis.in; ++i) {
    if (taps.begin[i + 1] != i + 1 || taps.index[i] != i || taps.weight[i] != 1) return false;
  }
  return true;
}

/// y [outer, out, inner] from x [outer, in, inner].
void resize_axis(const Axis& axis, const Taps& taps, float extrapolation, size_t outer, size_t inner, const float* x,
                 float* y) {
  for (size_t o = 0; o < outer; ++o, x += axis.in * inner) {
    if (inner == 1) {
      for (size_t i = 0; i < axis.out; ++i) {
        float sum = taps.outside[i] ? extrapolation : 0.0f;
        for (size_t t = taps.begin[i]; t < taps.begin[i + 1]; ++t) sum += taps.weight[t] * x[taps.index[t]];
        *y++ = sum;
      }
      continue;
    }
    for (size_t i = 0; i < axis.out; ++i, y += inner) {
      std::fill_n(y, inner, taps.outside[i] ? extrapolation : 0.0f);
      for (size_t t = taps.begin[i]; t < taps.begin[i + 1]; ++t) {
        const float* from = x + taps.index[t] * inner;
        const float weight = taps.weight[t];
        for (size_t k = 0; k < inner; ++k) y[k] += weight * from[k];
      }
    }
  }
}
void resize_axis_grad(const Axis& axis, const Taps& taps, size_t outer, size_t inner, const float* grad_y,
                      float* grad_x) {
  std::fill_n(grad_x, outer * axis.in * inner, 0.0f);
  for (size_t o = 0; o < outer; ++o, grad_x += axis.in * inner) {
    for (size_t i = 0; i < axis.out; ++i, grad_y += inner) {
      for (size_t t = taps.begin[i]; t < taps.begin[i + 1]; ++t) {
        float* to = grad_x + taps.index[t] * inner;
        const float weight = taps.weight[t];
        for (size_t k = 0; k < inner; ++k) to[k] += weight * grad_y[k];
      }
    }
  }
}

template <class Word>
void pick_axis(const Axis& axis, const Taps& taps, size_t outer, size_t inner, const Word* x, Word* y) {
  for (size_t o = 0; o < outer; ++o, x += axis.in * inner) {
    if (inner == 1) {
      for (size_t i = 0; i < axis.out; ++i) *y++ = x[taps.index[i]];
      continue;
    }
    for (size_t i = 0; i < axis.out; ++i, y += inner) std::copy_n(x + taps.index[i] * inner, inner, y);
  }
}

/// The input that holds scales, and where sizes are, by operator and operator set.
struct ResizeInputs {
  std::vector<float> scales;
  std::vector<int64_t> sizes;
  std::vector<float> roi;
};

ResizeInputs inputs_of(const Call& call) {
  ResizeInputs given;
  const auto reals = [&](size_t input) {
    const std::span<const float> values = call.floats(input);
    return std::vector<float>(values.begin(), values.end());
  };
  if (call.node.op == "Upsample" && call.opset < 9) {
    given.scales = call.reals("scales");
    if (given.scales.empty()) {  // operator set 1
      given.scales = {1, 1, call.real("height_scale", 1), call.real("width_scale", 1)};
    }
    return given;
  }
  if (call.node.op == "Upsample" || call.opset < 11) {
    given.scales = reals(1);
    return given;
  }
  if (call.has(1)) given.roi = reals(1);
  if (call.has(2)) given.scales = reals(2);
  if (call.has(3)) given.sizes = call.integers(3);
  if (given.scales.empty() == given.sizes.empty()) call.fail("one of scales and sizes must be given, not both");
  return given;
}

Mode mode_of(const Call& call) {
  const std::string mode = call.text("mode", "nearest");
  if (mode == "nearest") return Mode::Nearest;
  if (mode == "linear" || mode == "bilinear" || mode == "trilinear") return Mode::Linear;
  if (mode == "cubic") return Mode::Cubic;
  call.fail("mode must be nearest, linear or cubic, it is " + mode);
}

/// The extents that `sizes` and keep_aspect_ratio_policy ask for, or that `scales` gives.
void set_extents(const Call& call, const ResizeInputs& given, std::span<const size_t> axes, ResizePlan& plan) {
  const std::string policy = call.text("keep_aspect_ratio_policy", "stretch");
  if (policy != "stretch" && policy != "not_larger" && policy != "not_smaller") {
    call.fail("keep_aspect_ratio_policy must be stretch, not_larger or not_smaller, it is " + policy);
  }
  std::optional<float> common;
  for (size_t i = 0; i < axes.size(); ++i) {
    Axis& axis = plan.axes[axes[i]];
    if (given.sizes.empty()) {
      if (!(given.scales[i] > 0) || !std::isfinite(given.scales[i])) {
        call.fail("a scale of " + std::to_string(given.scales[i]));
      }
      axis.scale = given.scales[i];
    } else {
      if (given.sizes[i] < 0 || static_cast<uint64_t>(given.sizes[i]) > kLongestAxis) {
        call.fail("a size of " + std::to_string(given.sizes[i]));
      }
      axis.out = static_cast<size_t>(given.sizes[i]);
      axis.scale = static_cast<float>(axis.out) / static_cast<float>(axis.in);
      if (policy == "not_larger") common = std::min(common.value_or(axis.scale), axis.scale);
      if (policy == "not_smaller") common = std::max(common.value_or(axis.scale), axis.scale);
    }
  }
  for (const size_t i : axes) {
    Axis& axis = plan.axes[i];
    if (!given.sizes.empty() && !common) continue;
    if (common) axis.scale = *common;
    const float resized = axis.scale * static_cast<float>(axis.in) + (common ? 0.5f : 0.0f);
    if (!(resized <= static_cast<float>(kLongestAxis))) call.fail("a scale of " + std::to_string(axis.scale));
    axis.out = static_cast<size_t>(resized);
  }
}

ResizePlan plan_of(const Call& call) {
  const Shape& x = call.in(0).shape();
  const bool old = call.node.op == "Upsample" || call.opset < 11;
  ResizePlan plan;
  plan.mode = mode_of(call);
  plan.coordinates = old ? "asymmetric" : call.text("coordinate_transformation_mode", "half_pixel");
  plan.nearest = old ? "simple" : call.text("nearest_mode", "round_prefer_floor");
  plan.antialias = call.integer("antialias", 0) != 0;
  plan.exclude_outside = call.integer("exclude_outside", 0) != 0;
  plan.cubic_a = call.real("cubic_coeff_a", -0.75f);
  plan.extrapolation = call.real("extrapolation_value", 0.0f);
  if (plan.antialias && plan.mode == Mode::Nearest) call.fail("mode nearest has no antialiasing");
  if (!std::isfinite(plan.cubic_a)) call.fail("cubic_coeff_a is not finite");

  std::vector<size_t> axes;
  for (const int64_t axis : call.integers("axes")) axes.push_back(axis_of(call, axis, x.size()));
  if (axes.empty()) {
    for (size_t i = 0; i < x.size(); ++i) axes.push_back(i);
  }
  std::vector<size_t> sorted = axes;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) call.fail("an axis is named twice");
  const ResizeInputs given = inputs_of(call);
  const size_t count = given.sizes.empty() ? given.scales.size() : given.sizes.size();
  if (count != axes.size()) {
    call.fail(std::to_string(count) + " scales or sizes for " + std::to_string(axes.size()) + " axes");
  }
  for (const size_t size : x) {
    if (size > kLongestAxis) call.refuse("an extent of " + std::to_string(size));
    plan.axes.push_back({size, size, 1, 0, 1});
  }
  if (elements_of(x) == 0) call.fail("an input without elements, " + to_string(x));
  set_extents(call, given, axes, plan);
  if (plan.coordinates == "tf_crop_and_resize") {
    if (given.roi.size() != 2 * axes.size()) call.fail("roi must have two values per axis");
    for (size_t i = 0; i < axes.size(); ++i) {
      plan.axes[axes[i]].roi_start = given.roi[i];
      plan.axes[axes[i]].roi_end = given.roi[i + axes.size()];
    }
  }
  for (const Axis& axis : plan.axes) {
    if (axis.out == 0) call.fail("nothing is left of an axis of " + std::to_string(axis.in));
    plan.shape.push_back(axis.out);
  }
  return plan;
}

/// Values from float32, cut off as a cast does.
Tensor as_integers(const Call& call, const Tensor& x, DType dtype) {
  Tensor out = Tensor::allocate(dtype, x.shape());
  visit_type(call, dtype, [&](auto value) {
    using T = decltype(value);
    const std::span<T> to = out.write<T>();
    const std::span<const float> from = x.data<float>();
    const auto lowest = static_cast<double>(std::numeric_limits<T>::lowest());
    const auto highest = static_cast<double>(std::numeric_limits<T>::max());
    for (size_t i = 0; i < to.size(); ++i) {
      const double held = static_cast<double>(from[i]);
      to[i] = held >= highest ? std::numeric_limits<T>::max()
                              : static_cast<T>(std::isnan(held) ? 0.0 : std::max(held, lowest));
    }
  });
  return out;
}

Tensor as_reals(const Call& call, const Tensor& x) {
  Tensor out = Tensor::allocate(DType::Float32, x.shape());
  visit_type(call, x.dtype(), [&](auto value) {
    const auto from = x.data<decltype(value)>();
    std::transform(from.begin(), from.end(), out.write<float>().begin(), [](auto v) { return static_cast<float>(v); });
  });
  return out;
}

std::vector<Tensor> resize(Call& call) {
  const ResizePlan plan = plan_of(call);
  Tensor x = call.take(0);
  const DType dtype = x.dtype();
  const bool real = dtype == DType::Float32;
  const bool picks = plan.mode == Mode::Nearest && plan.coordinates != "tf_crop_and_resize";
  if (!real && !picks) x = as_reals(call, x);
  for (size_t i = plan.axes.size(); i-- > 0;) {
    const Axis& axis = plan.axes[i];
    Shape shape = x.shape();
    shape[i] = axis.out;
    Tensor y = Tensor::allocate(x.dtype(), shape);  // first: what cannot be held is not planned
    const Taps taps = taps_of(call, plan, axis);
    if (is_identity(axis, taps)) continue;
    const size_t outer = extent(shape, 0, i), inner = extent(shape, i + 1, shape.size());
    if (picks) {
      visit_width(call, dtype, [&](auto word) {
        using Word = decltype(word);
        pick_axis(axis, taps, outer, inner, x.data<Word>().data(), y.write<Word>().data());
      });
    } else {
      resize_axis(axis, taps, plan.extrapolation, outer, inner, x.data<float>().data(), y.write<float>().data());
    }
    x = std::move(y);
  }
  if (!real && !picks) x = as_integers(call, x, dtype);
  return {x};
}

std::vector<Tensor> resize_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const ResizePlan plan = plan_of(call);
  Tensor grad = grads[0];
  for (size_t i = 0; i < plan.axes.size(); ++i) {
    const Axis& axis = plan.axes[i];
    const Taps taps = taps_of(call, plan, axis);
    if (is_identity(axis, taps)) continue;
    Shape shape = grad.shape();
    shape[i] = axis.in;
    Tensor made = Tensor::allocate(DType::Float32, shape);
    resize_axis_grad(axis, taps, extent(shape, 0, i), extent(shape, i + 1, shape.size()), grad.data<float>().data(),
                     made.write<float>().data());
    grad = std::move(made);
  }
  return {grad};
}

}  // namespace

std::span<const Op> resize_ops() {
  static const Op kOps[] = {
      {.name = "Resize", .forward = resize, .backward = resize_backward, .reals = Reals::AsFloat32},
      {.name = "Upsample", .forward = resize, .backward = resize_backward, .reals = Reals::AsFloat32},
  };
  return kOps;
}

}  // namespace nibble::ops
