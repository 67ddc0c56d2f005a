// Conv, ConvTranspose and the integer convolutions.
#include "core/model/ops/convolution.hpp"

#include <cmath>

#include "core/model/ops/window.hpp"

namespace nibble::ops {
namespace {

/// A convolution of x [images, channels_in, ...] by a filter [channels_out, channels_in / groups, ...].
struct Filter {
  Window window;
  size_t images = 0, channels_in = 0, channels_out = 0, groups = 1;

  size_t x_size() const { return channels_in * window.plane_in(); }
  size_t y_size() const { return channels_out * window.plane_out(); }
};

size_t groups_of(const Call& call) {
  const int64_t groups = call.integer("group", 1);
  if (groups < 1) call.fail("group must be at least 1, it is " + std::to_string(groups));
  return static_cast<size_t>(groups);
}

std::vector<size_t> kernel_of(const Call& call, const Shape& x, const Shape& weight) {
  if (x.size() < 3 || weight.size() != x.size()) {
    call.fail("the input must have the shape [images, channels, ...] and the filter the same rank, they are " +
              to_string(x) + " and " + to_string(weight));
  }
  if (elements_of(weight) == 0) call.fail("the filter " + to_string(weight) + " has no elements");
  std::vector<size_t> kernel(weight.begin() + 2, weight.end());
  const std::vector<int64_t> declared = call.integers("kernel_shape");
  if (!declared.empty() && !std::equal(declared.begin(), declared.end(), kernel.begin(), kernel.end(),
                                       [](int64_t a, size_t b) { return a == static_cast<int64_t>(b); })) {
    call.fail("kernel_shape is not that of the filter " + to_string(weight));
  }
  return kernel;
}

Filter filter_of(const Call& call, const Shape& x, const Shape& weight) {
  Filter filter;
  std::vector<size_t> kernel = kernel_of(call, x, weight);
  filter.groups = groups_of(call);
  filter.images = x[0];
  filter.channels_in = x[1];
  filter.channels_out = weight[0];
  if (x[1] % filter.groups != 0 || x[1] / filter.groups != weight[1] || weight[0] % filter.groups != 0) {
    call.fail("an input of " + std::to_string(x[1]) + " channels in " + std::to_string(filter.groups) +
              " groups does not fit a filter of " + to_string(weight));
  }
  filter.window = window_of(call, x, std::move(kernel), false);
  return filter;
}

/// The convolution whose gradient this ConvTranspose is: it makes our input from our output.
Filter transposed_filter_of(const Call& call, const Shape& x, const Shape& weight) {
  Filter filter;
  std::vector<size_t> kernel = kernel_of(call, x, weight);
  filter.groups = groups_of(call);
  filter.images = x[0];
  filter.channels_out = x[1];
  if (x[1] % filter.groups != 0 || x[1] != weight[0]) {
    call.fail("an input of " + std::to_string(x[1]) + " channels in " + std::to_string(filter.groups) +
              " groups does not fit a filter of " + to_string(weight));
  }
  if (weight[1] > std::numeric_limits<uint32_t>::max() / filter.groups) call.fail("too many channels");
  filter.channels_in = weight[1] * filter.groups;
  filter.window = transposed_window_of(call, x, std::move(kernel));
  return filter;
}

Shape shape_of(size_t images, size_t channels, const std::vector<size_t>& extents) {
  Shape shape = {images, channels};
  shape.insert(shape.end(), extents.begin(), extents.end());
  return shape;
}

/// The filter's innermost two axes as the kernels want them. Of three axes, the outermost becomes channels: for one
/// output depth, the planes that the window reaches are as many input channels, in the filter's own order.
kernels::Conv2d flat(const Filter& filter) {
  const Window& w = filter.window;
  kernels::Conv2d conv;
  const size_t last = w.rank() - 1;
  conv.channels_in = filter.channels_in * (w.rank() == 3 ? w.kernel[0] : 1);
  conv.channels_out = filter.channels_out;
  conv.groups = filter.groups;
  conv.width = w.in[last];
  conv.out_width = w.out[last];
  conv.kernel_width = w.kernel[last];
  conv.stride_width = w.stride[last];
  conv.dilation_width = w.dilation[last];
  conv.pad_left = w.pad_begin[last];
  if (w.rank() == 1) return conv;
  conv.height = w.in[last - 1];
  conv.out_height = w.out[last - 1];
  conv.kernel_height = w.kernel[last - 1];
  conv.stride_height = w.stride[last - 1];
  conv.dilation_height = w.dilation[last - 1];
  conv.pad_top = w.pad_begin[last - 1];
  return conv;
}

/// Calls visit(channel, tap, depth) for each input plane that the window at `out_depth` has a tap for; depth is
/// negative or too large in the padding.
template <class Visit>
void for_each_plane(const Filter& filter, size_t out_depth, const Visit& visit) {
  const Window& w = filter.window;
  for (size_t channel = 0; channel < filter.channels_in; ++channel) {
    for (size_t tap = 0; tap < w.kernel[0]; ++tap) {
      const auto depth = static_cast<std::ptrdiff_t>(out_depth * w.stride[0] + tap * w.dilation[0]) - w.pad_begin[0];
      visit(channel, tap, depth >= 0 && depth < static_cast<std::ptrdiff_t>(w.in[0]) ? depth : -1);
    }
  }
}

/// Planes of x [channels, depth, plane] under the window at one output depth, one after the other.
void gather_planes(const Filter& filter, size_t out_depth, const float* x, float* planes) {
  const size_t depths = filter.window.in[0], plane = filter.window.plane_in() / depths;
  for_each_plane(filter, out_depth, [&](size_t channel, size_t, std::ptrdiff_t depth) {
    if (depth < 0)
      std::fill_n(planes, plane, 0.0f);
    else
      std::copy_n(x + (channel * depths + static_cast<size_t>(depth)) * plane, plane, planes);
    planes += plane;
  });
}
void scatter_planes(const Filter& filter, size_t out_depth, const float* planes, float* x) {
  const size_t depths = filter.window.in[0], plane = filter.window.plane_in() / depths;
  for_each_plane(filter, out_depth, [&](size_t channel, size_t, std::ptrdiff_t depth) {
    if (depth >= 0) {
      const std::span<float> to{x + (channel * depths + static_cast<size_t>(depth)) * plane, plane};
      kernels::add(to, std::span<const float>{planes, plane}, to);
    }
    planes += plane;
  });
}

/// One output depth of y [channels, depth, plane], out of it and into it.
void gather_depth(const Filter& filter, size_t depth, const float* y, float* slice) {
  const size_t depths = filter.window.out[0], plane = filter.window.plane_out() / depths;
  for (size_t c = 0; c < filter.channels_out; ++c)
    std::copy_n(y + (c * depths + depth) * plane, plane, slice + c * plane);
}
void scatter_depth(const Filter& filter, size_t depth, const float* slice, float* y) {
  const size_t depths = filter.window.out[0], plane = filter.window.plane_out() / depths;
  for (size_t c = 0; c < filter.channels_out; ++c)
    std::copy_n(slice + c * plane, plane, y + (c * depths + depth) * plane);
}

/// Room for the slices of a convolution over three axes.
struct Slices {
  Tensor x_room, y_room;
  float *x, *y;
  Slices(const Filter& filter, const kernels::Conv2d& conv)
      : x_room(
            Tensor::allocate(DType::Float32, {filter.channels_in, filter.window.kernel[0], conv.height, conv.width})),
        y_room(Tensor::allocate(DType::Float32, {conv.channels_out, conv.out_height, conv.out_width})),
        x(x_room.write<float>().data()),
        y(y_room.write<float>().data()) {}
};

void correlate(const Filter& filter, const float* x, const float* weight, const float* bias, float* y) {
  const kernels::Conv2d conv = flat(filter);
  if (filter.window.rank() < 3) return kernels::conv2d(conv, filter.images, x, weight, bias, y, scratch());
  const Slices slices(filter, conv);
  for (size_t image = 0; image < filter.images; ++image, x += filter.x_size(), y += filter.y_size()) {
    for (size_t depth = 0; depth < filter.window.out[0]; ++depth) {
      gather_planes(filter, depth, x, slices.x);
      kernels::conv2d(conv, 1, slices.x, weight, bias, slices.y, scratch());
      scatter_depth(filter, depth, slices.y, y);
    }
  }
}

void correlate_grad_input(const Filter& filter, const float* weight, const float* grad_y, float* grad_x) {
  const kernels::Conv2d conv = flat(filter);
  if (filter.window.rank() < 3) {
    return kernels::conv2d_grad_input(conv, filter.images, weight, grad_y, grad_x, scratch());
  }
  const Slices slices(filter, conv);
  std::fill_n(grad_x, filter.images * filter.x_size(), 0.0f);
  for (size_t image = 0; image < filter.images; ++image, grad_x += filter.x_size(), grad_y += filter.y_size()) {
    for (size_t depth = 0; depth < filter.window.out[0]; ++depth) {
      gather_depth(filter, depth, grad_y, slices.y);
      kernels::conv2d_grad_input(conv, 1, weight, slices.y, slices.x, scratch());
      scatter_planes(filter, depth, slices.x, grad_x);
    }
  }
}

void correlate_grad_weight(const Filter& filter, const float* x, const float* grad_y, float* grad_weight,
                           float* grad_bias) {
  const kernels::Conv2d conv = flat(filter);
  if (filter.window.rank() < 3) {
    return kernels::conv2d_grad_weight(conv, filter.images, x, grad_y, grad_weight, grad_bias, scratch());
  }
  const Slices slices(filter, conv);
  for (size_t image = 0; image < filter.images; ++image, x += filter.x_size(), grad_y += filter.y_size()) {
    for (size_t depth = 0; depth < filter.window.out[0]; ++depth) {
      gather_planes(filter, depth, x, slices.x);
      gather_depth(filter, depth, grad_y, slices.y);
      kernels::conv2d_grad_weight(conv, 1, slices.x, slices.y, grad_weight, grad_bias, scratch());
    }
  }
}

/// The bias's values, null where there is none.
const float* bias_of(const Call& call, size_t channels) {
  if (!call.has(2)) return nullptr;
  const std::span<const float> bias = call.floats(2);
  if (bias.size() != channels) {
    call.fail("a bias of " + std::to_string(bias.size()) + " values for " + std::to_string(channels) + " channels");
  }
  return bias.data();
}

bool wanted(const Call& call, size_t input) { return input < call.wanted.size() && call.wanted[input]; }

std::vector<Tensor> conv(Call& call) {
  const std::span<const float> x = call.floats(0), weight = call.floats(1);
  const Filter filter = filter_of(call, call.in(0).shape(), call.in(1).shape());
  const float* bias = bias_of(call, filter.channels_out);
  Tensor y = Tensor::allocate(DType::Float32, shape_of(filter.images, filter.channels_out, filter.window.out));
  if (y.elements() != 0) correlate(filter, x.data(), weight.data(), bias, y.write<float>().data());
  return {y};
}

std::vector<Tensor> conv_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Tensor &x = call.in(0), &weight = call.in(1);
  const Filter filter = filter_of(call, x.shape(), weight.shape());
  const float* grad_y = grads[0].data<float>().data();
  std::vector<Tensor> out(call.inputs.size());
  if (wanted(call, 0)) {
    out[0] = zeros(x.shape());
    if (out[0].elements() != 0) {
      correlate_grad_input(filter, weight.data<float>().data(), grad_y, out[0].write<float>().data());
    }
  }
  if (!wanted(call, 1) && !wanted(call, 2)) return out;
  out[1] = zeros(weight.shape());
  if (wanted(call, 2)) out[2] = zeros(call.in(2).shape());
  if (x.elements() != 0) {
    correlate_grad_weight(filter, x.data<float>().data(), grad_y, out[1].write<float>().data(),
                          wanted(call, 2) ? out[2].write<float>().data() : nullptr);
  }
  return out;
}

std::vector<Tensor> conv_transpose(Call& call) {
  const std::span<const float> x = call.floats(0), weight = call.floats(1);
  const Filter filter = transposed_filter_of(call, call.in(0).shape(), call.in(1).shape());
  const float* bias = bias_of(call, filter.channels_in);
  Tensor y = zeros(shape_of(filter.images, filter.channels_in, filter.window.in));
  if (y.elements() == 0) return {y};
  const std::span<float> out = y.write<float>();
  correlate_grad_input(filter, weight.data(), x.data(), out.data());
  if (!bias) return {y};
  const size_t plane = filter.window.plane_in();
  for (size_t i = 0; i < filter.images * filter.channels_in; ++i) {
    const std::span<float> values = out.subspan(i * plane, plane);
    kernels::scale_shift(values, 1.0f, bias[i % filter.channels_in], values);
  }
  return {y};
}

std::vector<Tensor> conv_transpose_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Tensor &x = call.in(0), &weight = call.in(1);
  const Filter filter = transposed_filter_of(call, x.shape(), weight.shape());
  const std::span<const float> grad_y = grads[0].data<float>();
  std::vector<Tensor> out(call.inputs.size());
  if (wanted(call, 0)) {
    out[0] = zeros(x.shape());
    if (x.elements() != 0) {
      correlate(filter, grad_y.data(), weight.data<float>().data(), nullptr, out[0].write<float>().data());
    }
  }
  if (wanted(call, 1)) {
    out[1] = zeros(weight.shape());
    if (x.elements() != 0) {
      correlate_grad_weight(filter, grad_y.data(), x.data<float>().data(), out[1].write<float>().data(), nullptr);
    }
  }
  if (wanted(call, 2)) {
    out[2] = zeros(call.in(2).shape());
    const std::span<float> sums = out[2].write<float>();
    const size_t plane = filter.window.plane_in();
    for (size_t i = 0; i < filter.images * filter.channels_in; ++i) {
      sums[i % filter.channels_in] += kernels::sum(grad_y.subspan(i * plane, plane));
    }
  }
  return out;
}

// --- Integers --------------------------------------------------------------------------------------------------------

/// Values of an int8 or uint8 tensor, or of one int8 or uint8 for all `count`, or zeros where the input is left out.
std::vector<int32_t> bytes_of(const Call& call, size_t input, size_t count) {
  if (!call.has(input)) return std::vector<int32_t>(count, 0);
  const Tensor& tensor = call.in(input);
  std::vector<int32_t> values;
  if (tensor.dtype() == DType::Int8) {
    const std::span<const int8_t> bytes = tensor.data<int8_t>();
    values.assign(bytes.begin(), bytes.end());
  } else if (tensor.dtype() == DType::UInt8) {
    const std::span<const uint8_t> bytes = tensor.data<uint8_t>();
    values.assign(bytes.begin(), bytes.end());
  } else {
    call.fail("input " + std::to_string(input) + " must be int8 or uint8, it is " +
              std::string(to_string(tensor.dtype())));
  }
  if (values.size() == 1) values.resize(count, values[0]);
  if (values.size() != count) {
    call.fail("input " + std::to_string(input) + " must have 1 or " + std::to_string(count) + " values, it has " +
              std::to_string(values.size()));
  }
  return values;
}

std::vector<float> reals_of(const Call& call, size_t input, size_t count) {
  const std::span<const float> given = call.floats(input);
  if (given.size() != 1 && given.size() != count) {
    call.fail("input " + std::to_string(input) + " must have 1 or " + std::to_string(count) + " values, it has " +
              std::to_string(given.size()));
  }
  std::vector<float> values(given.begin(), given.end());
  values.resize(count, values[0]);
  return values;
}

/// The int32 convolution of x - x_zero and weight - weight_zero (one for all, or one per output channel). Sums wrap
/// around, as they do in every implementation.
std::vector<int32_t> integer_correlate(const Filter& filter, std::span<const int32_t> x,
                                       std::span<const int32_t> weight) {
  const Window w = on_three_axes(filter.window);
  const std::vector<Reach> depths = reaches(w, 0), rows = reaches(w, 1);
  const size_t plane_in = w.plane_in(), plane_out = w.plane_out();
  const size_t group_in = filter.channels_in / filter.groups, group_out = filter.channels_out / filter.groups;
  std::vector<int32_t> y(filter.images * filter.y_size(), 0);
  for (size_t image = 0; image < filter.images; ++image) {
    for (size_t o = 0; o < filter.channels_out; ++o) {
      int32_t* out = y.data() + (image * filter.channels_out + o) * plane_out;
      for (size_t c = 0; c < group_in; ++c) {
        const size_t channel = o / group_out * group_in + c;
        const int32_t* in = x.data() + (image * filter.channels_in + channel) * plane_in;
        const int32_t* taps = weight.data() + (o * group_in + c) * w.kernel_size();
        for (size_t d = 0; d < w.out[0]; ++d) {
          for (size_t r = 0; r < w.out[1]; ++r) {
            int32_t* to = out + (d * w.out[1] + r) * w.out[2];
            for (size_t kd = 0; kd < depths[d].count; ++kd) {
              for (size_t kr = 0; kr < rows[r].count; ++kr) {
                const size_t depth = depths[d].first + kd * w.dilation[0], row = rows[r].first + kr * w.dilation[1];
                const int32_t* from = in + (depth * w.in[1] + row) * w.in[2];
                const int32_t* tap = taps + ((depths[d].tap + kd) * w.kernel[1] + rows[r].tap + kr) * w.kernel[2];
                for (size_t k = 0; k < w.kernel[2]; ++k) {
                  // The outputs whose tap k lies on the row.
                  const auto shift = static_cast<std::ptrdiff_t>(k * w.dilation[2]) - w.pad_begin[2];
                  const auto stride = static_cast<std::ptrdiff_t>(w.stride[2]);
                  const std::ptrdiff_t first = shift < 0 ? (-shift + stride - 1) / stride : 0;
                  const std::ptrdiff_t room = static_cast<std::ptrdiff_t>(w.in[2]) - 1 - shift;
                  const std::ptrdiff_t end =
                      room < 0 ? 0 : std::min(static_cast<std::ptrdiff_t>(w.out[2]), room / stride + 1);
                  const auto factor = static_cast<uint32_t>(tap[k]);
                  for (std::ptrdiff_t i = first; i < end; ++i) {
                    to[i] = static_cast<int32_t>(static_cast<uint32_t>(to[i]) +
                                                 factor * static_cast<uint32_t>(from[i * stride + shift]));
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  return y;
}

struct IntegerInputs {
  size_t x, x_zero, weight, weight_zero;
};

/// The sums of ConvInteger and QLinearConv, whose inputs lie at other places.
std::vector<int32_t> integer_sums(const Call& call, const Filter& filter, const IntegerInputs& at) {
  std::vector<int32_t> x = bytes_of(call, at.x, call.in(at.x).elements());
  std::vector<int32_t> weight = bytes_of(call, at.weight, call.in(at.weight).elements());
  const int32_t x_zero = bytes_of(call, at.x_zero, 1)[0];
  for (int32_t& value : x) value -= x_zero;
  const std::vector<int32_t> weight_zero = bytes_of(call, at.weight_zero, filter.channels_out);
  const size_t per_channel = weight.size() / filter.channels_out;
  for (size_t i = 0; i < weight.size(); ++i) weight[i] -= weight_zero[i / per_channel];
  return integer_correlate(filter, x, weight);
}

std::vector<Tensor> conv_integer(Call& call) {
  const Filter filter = filter_of(call, call.in(0).shape(), call.in(1).shape());
  const std::vector<int32_t> sums = integer_sums(call, filter, {0, 2, 1, 3});
  return {Tensor::from<int32_t>(DType::Int32, shape_of(filter.images, filter.channels_out, filter.window.out), sums)};
}

std::vector<Tensor> qlinear_conv(Call& call) {
  const Filter filter = filter_of(call, call.in(0).shape(), call.in(3).shape());
  std::vector<int32_t> sums = integer_sums(call, filter, {0, 2, 3, 5});
  const size_t plane = filter.window.plane_out(), channels = filter.channels_out;
  if (call.has(8)) {
    const Tensor& bias = call.in(8);
    if (bias.dtype() != DType::Int32 || bias.elements() != channels) {
      call.fail("the bias must be " + std::to_string(channels) + " int32 values");
    }
    const std::span<const int32_t> values = bias.data<int32_t>();
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] =
          static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + static_cast<uint32_t>(values[i / plane % channels]));
    }
  }
  const float x_scale = reals_of(call, 1, 1)[0], y_scale = reals_of(call, 6, 1)[0];
  const std::vector<float> weight_scale = reals_of(call, 4, channels);
  const int32_t zero = bytes_of(call, 7, 1)[0];
  const DType dtype = call.in(7).dtype();
  const float lowest = dtype == DType::Int8 ? -128.0f : 0.0f, highest = dtype == DType::Int8 ? 127.0f : 255.0f;
  Tensor y = Tensor::allocate(dtype, shape_of(filter.images, channels, filter.window.out));
  const std::span<uint8_t> out = y.write<uint8_t>();
  for (size_t i = 0; i < out.size(); ++i) {
    const float scale = x_scale * weight_scale[i / plane % channels] / y_scale;
    const float value = std::nearbyint(static_cast<float>(sums[i]) * scale) + static_cast<float>(zero);
    // A scale of zero or NaN makes NaN; it becomes the zero point.
    const float held = std::isnan(value) ? static_cast<float>(zero) : std::clamp(value, lowest, highest);
    out[i] = static_cast<uint8_t>(static_cast<int32_t>(held));
  }
  return {y};
}

}  // namespace

std::span<const Op> filter_ops() {
  static const Op kOps[] = {
      {.name = "Conv", .forward = conv, .backward = conv_backward, .reals = Reals::AsFloat32},
      {.name = "ConvTranspose",
       .forward = conv_transpose,
       .backward = conv_transpose_backward,
       .reals = Reals::AsFloat32},
      {.name = "ConvInteger", .forward = conv_integer},
      {.name = "QLinearConv", .forward = qlinear_conv, .reals = Reals::AsFloat32},
  };
  return kOps;
}

std::span<const Op> convolution_ops() {
  static const std::vector<Op> kAll = [] {
    std::vector<Op> all;
    for (const std::span<const Op> family :
         {filter_ops(), pooling_ops(), region_ops(), resize_ops(), sampling_ops(), image_ops()}) {
      all.insert(all.end(), family.begin(), family.end());
    }
    return all;
  }();
  return kAll;
}

}  // namespace nibble::ops
