// What else is done to images: pixels moved between space and channels, crops, local response normalisation.
#include <cmath>

#include "core/model/ops/convolution.hpp"
#include "core/model/ops/window.hpp"

namespace nibble::ops {
namespace {

/// x split into the six extents that DepthToSpace and SpaceToDepth exchange, and the exchange.
struct Exchange {
  Shape split, out;
  std::array<size_t, 6> order = {};
};

size_t blocksize_of(const Call& call, const Shape& x) {
  if (x.size() != 4) call.fail("the input must be [images, channels, height, width], it is " + to_string(x));
  const int64_t size = call.integer("blocksize", 0);
  if (size < 1 || size > 65536) call.fail("blocksize must be at least 1, it is " + std::to_string(size));
  return static_cast<size_t>(size);
}

Exchange depth_to_space_of(const Call& call, const Shape& x) {
  const size_t block = blocksize_of(call, x);
  if (x[1] % (block * block) != 0) {
    call.fail(std::to_string(x[1]) + " channels are not a multiple of blocksize squared, " +
              std::to_string(block * block));
  }
  const size_t channels = x[1] / (block * block);
  const Shape out = {x[0], channels, x[2] * block, x[3] * block};
  const std::string mode = call.text("mode", "DCR");
  if (mode == "DCR") return {{x[0], block, block, channels, x[2], x[3]}, out, {0, 3, 4, 1, 5, 2}};
  if (mode == "CRD") return {{x[0], channels, block, block, x[2], x[3]}, out, {0, 1, 4, 2, 5, 3}};
  call.fail("mode must be DCR or CRD, it is " + mode);
}

Exchange space_to_depth_of(const Call& call, const Shape& x) {
  const size_t block = blocksize_of(call, x);
  if (x[2] % block != 0 || x[3] % block != 0) {
    call.fail("an image of " + to_string(x) + " cannot be cut into blocks of " + std::to_string(block));
  }
  const Shape out = {x[0], x[1] * block * block, x[2] / block, x[3] / block};
  return {{x[0], x[1], x[2] / block, block, x[3] / block, block}, out, {0, 3, 5, 1, 2, 4}};
}

Tensor exchanged(const Call& call, const Tensor& x, const Exchange& exchange) {
  return transposed(call, x.reshaped(exchange.split), exchange.order).reshaped(exchange.out);
}

/// The way back: the exchanged axes of `grad` put where they were.
Tensor exchanged_back(const Call& call, const Tensor& grad, const Exchange& exchange, const Shape& x) {
  Shape split(6);
  std::array<size_t, 6> back = {};
  for (size_t i = 0; i < 6; ++i) {
    split[i] = exchange.split[exchange.order[i]];
    back[exchange.order[i]] = i;
  }
  return transposed(call, grad.reshaped(split), back).reshaped(x);
}

std::vector<Tensor> depth_to_space(Call& call) {
  return {exchanged(call, call.in(0), depth_to_space_of(call, call.in(0).shape()))};
}
std::vector<Tensor> depth_to_space_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Shape& x = call.in(0).shape();
  return {exchanged_back(call, grads[0], depth_to_space_of(call, x), x)};
}
std::vector<Tensor> space_to_depth(Call& call) {
  return {exchanged(call, call.in(0), space_to_depth_of(call, call.in(0).shape()))};
}
std::vector<Tensor> space_to_depth_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Shape& x = call.in(0).shape();
  return {exchanged_back(call, grads[0], space_to_depth_of(call, x), x)};
}

/// Columns [images, channels * block, windows], each added where its window lies on the image.
std::vector<Tensor> col2im(Call& call) {
  const std::span<const float> x = call.floats(0);
  const Shape& shape = call.in(0).shape();
  const std::vector<int64_t> image = call.integers(1), block = call.integers(2);
  if (shape.size() != 3 || image.size() != block.size()) {
    call.fail("the input must have rank 3, image_shape and block_shape as many values as each other");
  }
  Shape canvas = {shape[0], 1};
  std::vector<size_t> kernel;
  for (size_t i = 0; i < image.size(); ++i) {
    if (image[i] < 1 || block[i] < 1 || image[i] >= int64_t{1} << 31 || block[i] >= int64_t{1} << 31) {
      call.fail("an extent of " + std::to_string(image[i]) + " and a block of " + std::to_string(block[i]));
    }
    canvas.push_back(static_cast<size_t>(image[i]));
    kernel.push_back(static_cast<size_t>(block[i]));
  }
  const size_t taps = elements_of(kernel);
  const Window window = window_of(call, canvas, kernel, false);
  if (shape[1] % taps != 0 || shape[2] != window.plane_out()) {
    call.fail("an input of " + to_string(shape) + " for blocks of " + to_string(kernel) + ", of which " +
              std::to_string(window.plane_out()) + " fit on the image");
  }
  const size_t channels = shape[1] / taps;
  canvas[1] = channels;
  Tensor y = zeros(canvas);
  const std::span<float> out = y.write<float>();
  const Window w = on_three_axes(window);
  const std::vector<Reach> depths = reaches(w, 0), rows = reaches(w, 1), columns = reaches(w, 2);
  const size_t plane_in = w.plane_in(), plane_out = w.plane_out();
  for (size_t plane = 0; plane < shape[0] * channels; ++plane) {
    size_t at = 0;
    for (const Reach& depth : depths) {
      for (const Reach& row : rows) {
        for (const Reach& column : columns) {
          for (size_t d = 0; d < depth.count; ++d) {
            for (size_t r = 0; r < row.count; ++r) {
              for (size_t c = 0; c < column.count; ++c) {
                const size_t tap = ((depth.tap + d) * w.kernel[1] + row.tap + r) * w.kernel[2] + column.tap + c;
                const size_t to =
                    ((depth.first + d * w.dilation[0]) * w.in[1] + row.first + r * w.dilation[1]) * w.in[2] +
                    column.first + c * w.dilation[2];
                out[plane * plane_in + to] += x[(plane * taps + tap) * plane_out + at];
              }
            }
          }
          ++at;
        }
      }
    }
  }
  return {y};
}

/// base^-power. Square roots are the same everywhere, and 3/4 is what networks use.
float inverse_power(float base, float power) {
  if (power == 0.75f) return 1 / (std::sqrt(base) * std::sqrt(std::sqrt(base)));
  if (power == 0.5f) return 1 / std::sqrt(base);
  return power == 1 ? 1 / base : std::pow(base, -power);
}

/// Krizhevsky et al., "ImageNet classification with deep convolutional neural networks" (NIPS 2012), section 3.3, with
/// ONNX's alpha / size.
struct Response {
  size_t images = 0, channels = 0, plane = 0, before = 0, after = 0;
  float alpha = 0, beta = 0, bias = 0;
  /// Calls visit(first, end) channels around each one.
  std::pair<size_t, size_t> around(size_t channel) const {
    return {channel - std::min(channel, before), std::min(channels, channel + after + 1)};
  }
};

Response response_of(const Call& call) {
  const Shape& x = call.in(0).shape();
  const int64_t size = call.integer("size", 0);
  if (x.size() < 2) call.fail("the input must be [images, channels, ...], it is " + to_string(x));
  if (size < 1 || size >= int64_t{1} << 31) call.fail("size must be at least 1, it is " + std::to_string(size));
  Response response{x[0], x[1], extent(x, 2, x.size())};
  response.before = static_cast<size_t>((size - 1) / 2);
  response.after = static_cast<size_t>(size / 2);
  response.alpha = call.real("alpha", 0.0001f) / static_cast<float>(size);
  response.beta = call.real("beta", 0.75f);
  response.bias = call.real("bias", 1.0f);
  return response;
}

/// bias + alpha / size * the sum of squares of the channels around.
std::vector<float> response_bases(const Response& response, std::span<const float> x) {
  std::vector<float> base(x.size());
  for (size_t image = 0; image < response.images; ++image) {
    for (size_t c = 0; c < response.channels; ++c) {
      const auto [first, end] = response.around(c);
      float* to = base.data() + (image * response.channels + c) * response.plane;
      for (size_t k = first; k < end; ++k) {
        const float* from = x.data() + (image * response.channels + k) * response.plane;
        for (size_t i = 0; i < response.plane; ++i) to[i] += from[i] * from[i];
      }
      for (size_t i = 0; i < response.plane; ++i) to[i] = response.bias + response.alpha * to[i];
    }
  }
  return base;
}

std::vector<Tensor> lrn(Call& call) {
  const std::span<const float> x = call.floats(0);
  const Response response = response_of(call);
  const std::vector<float> base = response_bases(response, x);
  Tensor y = Tensor::allocate(DType::Float32, call.in(0).shape());
  const std::span<float> out = y.write<float>();
  for (size_t i = 0; i < out.size(); ++i) out[i] = x[i] * inverse_power(base[i], response.beta);
  return {y};
}

/// d y_c / d x_k = [c = k] b_c^-beta - 2 alpha beta x_c x_k b_c^(-beta - 1) for k around c.
std::vector<Tensor> lrn_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const std::span<const float> x = call.floats(0), grad_y = grads[0].data<float>();
  const Response response = response_of(call);
  const std::vector<float> base = response_bases(response, x);
  Tensor grad_x = Tensor::allocate(DType::Float32, call.in(0).shape());
  const std::span<float> out = grad_x.write<float>();
  std::vector<float> shared(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const float power = inverse_power(base[i], response.beta);
    out[i] = grad_y[i] * power;
    shared[i] = 2 * response.alpha * response.beta * grad_y[i] * x[i] * power / base[i];
  }
  for (size_t image = 0; image < response.images; ++image) {
    for (size_t c = 0; c < response.channels; ++c) {
      const auto [first, end] = response.around(c);
      const size_t from = (image * response.channels + c) * response.plane;
      for (size_t k = first; k < end; ++k) {
        const size_t to = (image * response.channels + k) * response.plane;
        for (size_t i = 0; i < response.plane; ++i) out[to + i] -= shared[from + i] * x[to + i];
      }
    }
  }
  return {grad_x};
}

/// Of ONNX's first, experimental operators: x * scale + bias of the channel.
std::vector<Tensor> image_scaler(Call& call) {
  call.floats(0);
  Tensor x = call.take(0);
  const Shape shape = x.shape();
  const std::vector<float> bias = call.reals("bias");
  if (shape.size() != 4 || bias.size() != shape[1]) {
    call.fail("the input must be [images, channels, height, width] with a bias for each channel");
  }
  const float scale = call.real("scale", 1.0f);
  const std::span<float> values = x.write<float>();
  const size_t plane = shape[2] * shape[3];
  for (size_t i = 0; i < shape[0] * shape[1]; ++i) {
    const std::span<float> part = values.subspan(i * plane, plane);
    kernels::scale_shift(part, scale, bias[i % shape[1]], part);
  }
  return {x};
}

/// alpha * x + beta.
std::vector<Tensor> affine(Call& call) {
  call.floats(0);
  Tensor x = call.take(0);
  const std::span<float> values = x.write<float>();
  kernels::scale_shift(values, call.real("alpha", 1.0f), call.real("beta", 0.0f), values);
  return {x};
}

/// `border` is left, top, right, bottom; with `scale`, height and width of what is kept from left and top on.
std::vector<Tensor> crop(Call& call) {
  const Tensor& x = call.in(0);
  const Shape& shape = x.shape();
  const std::vector<int64_t> border = call.integers("border"), scale = call.integers("scale");
  if (shape.size() != 4 || border.size() != 4 || (!scale.empty() && scale.size() != 2)) {
    call.fail("the input must be [images, channels, height, width], border 4 values and scale 2");
  }
  const auto height = static_cast<int64_t>(shape[2]), width = static_cast<int64_t>(shape[3]);
  const int64_t left = border[0], top = border[1];
  // The limits first, so that the sums below stay small.
  for (const int64_t value : border) {
    if (value < 0 || value > std::max(height, width)) call.fail("a border of " + std::to_string(value));
  }
  for (const int64_t value : scale) {
    if (value < 1 || value > std::max(height, width)) call.fail("a scale of " + std::to_string(value));
  }
  const int64_t kept_height = scale.empty() ? height - top - border[3] : scale[0];
  const int64_t kept_width = scale.empty() ? width - left - border[2] : scale[1];
  if (kept_height < 1 || kept_width < 1 || top + kept_height > height || left + kept_width > width) {
    call.fail("the borders leave nothing of an image of " + to_string(shape));
  }
  const Shape made = {shape[0], shape[1], static_cast<size_t>(kept_height), static_cast<size_t>(kept_width)};
  return {strided(call, x, made, steps_of(shape), static_cast<std::ptrdiff_t>(top * width + left))};
}

std::vector<Tensor> center_crop_pad(Call& call) {
  Tensor x = call.in(0);
  const size_t rank = x.shape().size();
  std::vector<int64_t> named = call.integers("axes");
  if (named.empty()) {
    for (size_t i = 0; i < rank; ++i) named.push_back(static_cast<int64_t>(i));
  }
  axes_of(call, named, rank);
  const std::vector<int64_t> wanted = call.integers(1);
  if (wanted.size() != named.size()) {
    call.fail(std::to_string(wanted.size()) + " extents for " + std::to_string(named.size()) + " axes");
  }
  Shape kept = x.shape(), made = x.shape();
  std::ptrdiff_t start = 0, padding = 0;
  for (size_t i = 0; i < named.size(); ++i) {
    if (wanted[i] < 0) call.fail("an extent of " + std::to_string(wanted[i]));
    const size_t axis = axis_of(call, named[i], rank);
    made[axis] = static_cast<size_t>(wanted[i]);
    kept[axis] = std::min(kept[axis], made[axis]);
  }
  elements_of(made, call.label());
  const std::vector<std::ptrdiff_t> steps = steps_of(x.shape()), made_steps = steps_of(made);
  for (size_t axis = 0; axis < rank; ++axis) {
    start += static_cast<std::ptrdiff_t>((x.shape()[axis] - kept[axis]) / 2) * steps[axis];
    padding += static_cast<std::ptrdiff_t>((made[axis] - kept[axis]) / 2) * made_steps[axis];
  }
  x = strided(call, x, kept, steps, start);
  if (kept == made) return {x};
  Tensor y = zeros(x.dtype(), made);
  visit_width(call, x.dtype(), [&](auto word) {
    using Word = decltype(word);
    const Word* from = x.data<Word>().data();
    Word* to = y.write<Word>().data();
    const size_t run = kept.empty() ? 1 : kept.back();
    for_each_run(kept, made_steps, padding,
                 [&](size_t in, std::ptrdiff_t out) { std::copy_n(from + in, run, to + out); });
  });
  return {y};
}

}  // namespace

std::span<const Op> image_ops() {
  static const Op kOps[] = {
      {.name = "DepthToSpace", .forward = depth_to_space, .backward = depth_to_space_backward},
      {.name = "SpaceToDepth", .forward = space_to_depth, .backward = space_to_depth_backward},
      {.name = "Col2Im", .forward = col2im, .reals = Reals::AsFloat32},
      {.name = "LRN", .forward = lrn, .backward = lrn_backward, .reals = Reals::AsFloat32},
      {.name = "ImageScaler", .forward = image_scaler, .reals = Reals::AsFloat32},
      {.name = "Affine", .forward = affine, .reals = Reals::AsFloat32},
      {.name = "Crop", .forward = crop},
      {.name = "CenterCropPad", .forward = center_crop_pad},
  };
  return kOps;
}

}  // namespace nibble::ops
