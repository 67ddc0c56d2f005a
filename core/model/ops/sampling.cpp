// Images sampled at given points: GridSample, AffineGrid.
#include <cmath>

#include "core/model/ops/convolution.hpp"
#include "core/model/ops/support.hpp"

namespace nibble::ops {
namespace {

enum class Mode : uint8_t { Nearest, Linear, Cubic };

enum class Padding : uint8_t { Zeros, Border, Reflection };

struct Sampler {
  Mode mode = Mode::Linear;
  Padding padding = Padding::Zeros;
  bool align_corners = false;
};

/// Reflected at `low` and `high` until it lies between them.
double reflected(double x, double low, double high) {
  const double range = high - low;
  if (range <= 0) return low;
  if (x >= low && x <= high) return x;
  const double beyond = x < low ? low - x : x - high;
  const double turns = std::floor(beyond / range), rest = beyond - turns * range;
  const bool even = std::fmod(turns, 2) == 0;
  return (x < low) == even ? low + rest : high - rest;
}

/// Up to four positions along one axis, -1 where the padding's zero is meant, and their weights.
struct AxisSample {
  std::array<std::ptrdiff_t, 4> at = {};
  std::array<float, 4> weight = {};
  size_t count = 0;
};

AxisSample sample_axis(const Sampler& sampler, float normal, size_t extent_in) {
  const auto size = static_cast<float>(extent_in);
  const double low = sampler.align_corners ? 0.0 : -0.5,
               high = static_cast<double>(size) + low - (sampler.align_corners ? 1.0 : 0.0);
  float place = sampler.align_corners ? (normal + 1) / 2 * (size - 1) : ((normal + 1) * size - 1) / 2;
  AxisSample sample;
  // Where a network's grid runs off to infinity or NaN, any pixel is as good; PyTorch takes -1 (zeros) or the first.
  if (!(std::fabs(place) < 0x1p30f)) place = -0x1p30f;
  if (sampler.mode == Mode::Nearest) place = std::nearbyint(place);
  double x = static_cast<double>(place);
  if (x < low || x > high) {
    if (sampler.padding == Padding::Border) x = std::clamp(x, 0.0, static_cast<double>(size) - 1);
    if (sampler.padding == Padding::Reflection) x = reflected(x, low, high);
  }
  const auto last = static_cast<int64_t>(extent_in) - 1;
  const auto position = [&](int64_t i) -> std::ptrdiff_t {
    if (i >= 0 && i <= last) return static_cast<std::ptrdiff_t>(i);
    if (sampler.padding == Padding::Zeros) return -1;
    if (sampler.padding == Padding::Reflection) i = static_cast<int64_t>(reflected(static_cast<double>(i), low, high));
    return static_cast<std::ptrdiff_t>(std::clamp<int64_t>(i, 0, last));
  };
  if (sampler.mode == Mode::Nearest) {
    sample.at[0] = position(static_cast<int64_t>(x));
    sample.weight[0] = 1;
    sample.count = 1;
    return sample;
  }
  const double floor = std::floor(x), ratio = x - floor;
  const int64_t first = static_cast<int64_t>(floor) - (sampler.mode == Mode::Cubic ? 1 : 0);
  sample.count = sampler.mode == Mode::Cubic ? 4 : 2;
  for (size_t k = 0; k < sample.count; ++k) {
    const double distance = static_cast<double>(first + static_cast<int64_t>(k)) - floor - ratio;
    sample.at[k] = position(first + static_cast<int64_t>(k));
    sample.weight[k] =
        static_cast<float>(sampler.mode == Mode::Cubic ? cubic_weight(distance, -0.75) : 1 - std::fabs(distance));
  }
  return sample;
}

Sampler sampler_of(const Call& call) {
  Sampler sampler;
  const std::string mode = call.text("mode", "linear"), padding = call.text("padding_mode", "zeros");
  if (mode == "nearest")
    sampler.mode = Mode::Nearest;
  else if (mode == "cubic" || mode == "bicubic")
    sampler.mode = Mode::Cubic;
  else if (mode != "linear" && mode != "bilinear")
    call.fail("mode must be linear, nearest or cubic, it is " + mode);
  if (padding == "border")
    sampler.padding = Padding::Border;
  else if (padding == "reflection")
    sampler.padding = Padding::Reflection;
  else if (padding != "zeros")
    call.fail("padding_mode must be zeros, border or reflection, it is " + padding);
  sampler.align_corners = call.integer("align_corners", 0) != 0;
  return sampler;
}

std::vector<Tensor> grid_sample(Call& call) {
  const std::span<const float> x = call.floats(0), grid = call.floats(1);
  const Shape &shape = call.in(0).shape(), &points = call.in(1).shape();
  const Sampler sampler = sampler_of(call);
  if (shape.size() != 4 && shape.size() != 5) call.refuse("an input of rank " + std::to_string(shape.size()));
  const size_t rank = shape.size() - 2;
  if (points.size() != shape.size() || points[0] != shape[0] || points.back() != rank) {
    call.fail("a grid of " + to_string(points) + " does not fit an input of " + to_string(shape));
  }
  Shape made = {shape[0], shape[1]};
  made.insert(made.end(), points.begin() + 1, points.end() - 1);
  Tensor y = zeros(made);
  if (y.elements() == 0) return {y};
  if (elements_of(shape) == 0) call.fail("an input without elements, " + to_string(shape));
  const std::span<float> out = y.write<float>();
  const size_t plane_in = extent(shape, 2, shape.size()), plane_out = extent(made, 2, made.size());
  const size_t depth = rank == 3 ? shape[2] : 1, height = shape[rank], width = shape[rank + 1];
  for (size_t image = 0; image < shape[0]; ++image) {
    for (size_t i = 0; i < plane_out; ++i) {
      // The grid's last axis is x, y and, for volumes, z.
      const std::span<const float> at = grid.subspan((image * plane_out + i) * rank, rank);
      const AxisSample columns = sample_axis(sampler, at[0], width);
      const AxisSample rows = sample_axis(sampler, at[1], height);
      AxisSample depths;
      depths.count = 1;
      depths.weight[0] = 1;
      if (rank == 3) depths = sample_axis(sampler, at[2], depth);
      for (size_t d = 0; d < depths.count; ++d) {
        for (size_t r = 0; r < rows.count; ++r) {
          for (size_t c = 0; c < columns.count; ++c) {
            if (depths.at[d] < 0 || rows.at[r] < 0 || columns.at[c] < 0) continue;
            const float weight = depths.weight[d] * rows.weight[r] * columns.weight[c];
            const size_t from = (static_cast<size_t>(depths.at[d]) * height + static_cast<size_t>(rows.at[r])) * width +
                                static_cast<size_t>(columns.at[c]);
            for (size_t channel = 0; channel < shape[1]; ++channel) {
              const size_t plane = image * shape[1] + channel;
              out[plane * plane_out + i] += weight * x[plane * plane_in + from];
            }
          }
        }
      }
    }
  }
  return {y};
}

/// Normalized coordinates of the pixels' centres, or with align_corners of -1 to 1, under an affine map.
std::vector<Tensor> affine_grid(Call& call) {
  const std::span<const float> theta = call.floats(0);
  const Shape& shape = call.in(0).shape();
  const std::vector<int64_t> size = call.integers(1);
  const size_t rank = size.size() - 2;
  if (size.size() != 4 && size.size() != 5) call.fail("size must be [N, C, H, W] or [N, C, D, H, W]");
  if (shape != Shape{static_cast<size_t>(size[0]), rank, rank + 1}) {
    call.fail("theta must be [" + std::to_string(size[0]) + ", " + std::to_string(rank) + ", " +
              std::to_string(rank + 1) + "], it is " + to_string(shape));
  }
  const bool align = call.integer("align_corners", 0) != 0;
  Shape made = {shape[0]};
  for (size_t i = 2; i < size.size(); ++i) {
    if (size[i] < 1) call.fail("an extent of " + std::to_string(size[i]));
    made.push_back(static_cast<size_t>(size[i]));
  }
  made.push_back(rank);
  Tensor y = Tensor::allocate(DType::Float32, made);
  const std::span<float> out = y.write<float>();
  const size_t points = extent(made, 1, made.size() - 1);
  const auto place = [&](size_t i, size_t count) {
    if (!align) return (2 * static_cast<float>(i) + 1) / static_cast<float>(count) - 1;
    return count == 1 ? 0.0f : 2 * static_cast<float>(i) / static_cast<float>(count - 1) - 1;
  };
  for (size_t image = 0; image < shape[0]; ++image) {
    const std::span<const float> map = theta.subspan(image * rank * (rank + 1), rank * (rank + 1));
    for (size_t p = 0; p < points; ++p) {
      size_t left = p;
      std::array<float, 3> at = {};  // x, y, z: the innermost axis first
      for (size_t k = 0; k < rank; ++k) {
        const size_t count = made[rank - k];
        at[k] = place(left % count, count);
        left /= count;
      }
      for (size_t r = 0; r < rank; ++r) {
        float sum = map[r * (rank + 1) + rank];
        for (size_t k = 0; k < rank; ++k) sum += map[r * (rank + 1) + k] * at[k];
        out[(image * points + p) * rank + r] = sum;
      }
    }
  }
  return {y};
}

}  // namespace

std::span<const Op> sampling_ops() {
  static const Op kOps[] = {
      {.name = "GridSample", .forward = grid_sample, .reals = Reals::AsFloat32},
      {.name = "AffineGrid", .forward = affine_grid, .reals = Reals::AsFloat32},
  };
  return kOps;
}

}  // namespace nibble::ops
