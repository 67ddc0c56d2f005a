// Images looked at in regions and at places that the network computes: MaxRoiPool, RoiAlign, DeformConv.
#include <cmath>
#include <limits>

#include "core/model/ops/convolution.hpp"
#include "core/model/ops/window.hpp"

namespace nibble::ops {
namespace {

struct Regions {
  size_t count = 0, channels = 0, height = 0, width = 0;
  size_t out_height = 1, out_width = 1;
};

/// Checks x [images, channels, height, width] and regions of `columns` numbers each.
Regions regions_of(const Call& call, size_t columns, int64_t out_height, int64_t out_width) {
  const Shape &x = call.in(0).shape(), &rois = call.in(1).shape();
  if (x.size() != 4 || elements_of(x) == 0) call.fail("the input must be [images, channels, height, width]");
  if (rois.size() != 2 || rois[1] != columns) {
    call.fail("the regions must be [regions, " + std::to_string(columns) + "], they are " + to_string(rois));
  }
  if (out_height < 1 || out_width < 1 || out_height > 65536 || out_width > 65536) {
    call.fail("an output of " + std::to_string(out_height) + " by " + std::to_string(out_width));
  }
  return {rois[0], x[1], x[2], x[3], static_cast<size_t>(out_height), static_cast<size_t>(out_width)};
}

size_t image_of(const Call& call, double image) {
  const size_t images = call.in(0).shape()[0];
  if (!(image >= 0) || image >= static_cast<double>(images)) {
    call.fail("a region of image " + std::to_string(image) + " of " + std::to_string(images));
  }
  return static_cast<size_t>(image);
}

/// Regions [image, x1, y1, x2, y2], corners included and rounded to pixels, cut into a grid of which each cell gives
/// its largest element (Girshick, "Fast R-CNN", ICCV 2015, section 2.1); an empty cell gives 0.
std::vector<Tensor> max_roi_pool(Call& call) {
  const std::span<const float> x = call.floats(0), rois = call.floats(1);
  const std::vector<int64_t> pooled = call.integers("pooled_shape");
  if (pooled.size() != 2) call.fail("pooled_shape must have two values");
  const Regions at = regions_of(call, 5, pooled[0], pooled[1]);
  const float scale = call.real("spatial_scale", 1.0f);
  Tensor y = zeros({at.count, at.channels, at.out_height, at.out_width});
  const std::span<float> out = y.write<float>();
  for (size_t r = 0; r < at.count; ++r) {
    const std::span<const float> roi = rois.subspan(5 * r, 5);
    const size_t image = image_of(call, roi[0]);
    std::array<double, 4> corner = {};
    for (size_t i = 0; i < 4; ++i) {
      corner[i] = std::round(double{roi[i + 1]} * scale);
      if (!(std::fabs(corner[i]) < 0x1p31)) call.fail("a corner of a region is not a finite number");
    }
    const double cell_width = std::max(corner[2] - corner[0] + 1, 1.0) / static_cast<double>(at.out_width);
    const double cell_height = std::max(corner[3] - corner[1] + 1, 1.0) / static_cast<double>(at.out_height);
    const auto bounds = [](double start, double cell, size_t i, size_t most) {
      const double last = static_cast<double>(most);
      const double low = std::floor(static_cast<double>(i) * cell) + start;
      const double high = std::ceil(static_cast<double>(i + 1) * cell) + start;
      return std::pair{static_cast<size_t>(std::clamp(low, 0.0, last)),
                       static_cast<size_t>(std::clamp(high, 0.0, last))};
    };
    for (size_t c = 0; c < at.channels; ++c) {
      const float* plane = x.data() + (image * at.channels + c) * at.height * at.width;
      float* to = out.data() + (r * at.channels + c) * at.out_height * at.out_width;
      for (size_t i = 0; i < at.out_height; ++i) {
        const auto [top, bottom] = bounds(corner[1], cell_height, i, at.height);
        for (size_t j = 0; j < at.out_width; ++j) {
          const auto [left, right] = bounds(corner[0], cell_width, j, at.width);
          if (top >= bottom || left >= right) continue;
          float best = plane[top * at.width + left];
          for (size_t row = top; row < bottom; ++row) {
            for (size_t column = left; column < right; ++column) best = std::max(best, plane[row * at.width + column]);
          }
          to[i * at.out_width + j] = best;
        }
      }
    }
  }
  return {y};
}

/// Four neighbours of a point and their weights.
struct Sample {
  std::array<size_t, 4> at = {};
  std::array<float, 4> weight = {};
};

/// He et al., "Mask R-CNN" (ICCV 2017), section 3: bilinear samples inside of each cell, their mean or largest. A point
/// more than one pixel outside counts 0. ONNX's "max" takes the largest of the weighted neighbours, as its reference
/// does.
std::vector<Tensor> roi_align(Call& call) {
  const std::span<const float> x = call.floats(0), rois = call.floats(1);
  const std::vector<int64_t> images = call.integers(2);
  const Regions at = regions_of(call, 4, call.integer("output_height", 1), call.integer("output_width", 1));
  if (images.size() != at.count) call.fail("one image number is wanted for each region");
  const std::string mode = call.text("mode", "avg");
  if (mode != "avg" && mode != "max") call.fail("mode must be avg or max, it is " + mode);
  const bool largest = mode == "max";
  const int64_t sampling = call.integer("sampling_ratio", 0);
  if (sampling < 0 || sampling > 1024) call.fail("sampling_ratio must be 0 to 1024");
  // Before operator set 16 there was no half pixel.
  const bool half =
      call.text("coordinate_transformation_mode", call.opset < 16 ? "output_half_pixel" : "half_pixel") == "half_pixel";
  const float scale = call.real("spatial_scale", 1.0f), offset = half ? 0.5f : 0.0f;
  Tensor y = zeros({at.count, at.channels, at.out_height, at.out_width});
  const std::span<float> out = y.write<float>();
  const auto width = static_cast<float>(at.width), height = static_cast<float>(at.height);
  for (size_t r = 0; r < at.count; ++r) {
    const size_t image = image_of(call, static_cast<double>(images[r]));
    const float left = rois[4 * r] * scale - offset, top = rois[4 * r + 1] * scale - offset;
    float region_width = rois[4 * r + 2] * scale - offset - left;
    float region_height = rois[4 * r + 3] * scale - offset - top;
    if (!half) {
      region_width = std::max(region_width, 1.0f);
      region_height = std::max(region_height, 1.0f);
    }
    if (!(std::fabs(region_width) < 0x1p24f) || !(std::fabs(region_height) < 0x1p24f) || !(std::fabs(left) < 0x1p24f) ||
        !(std::fabs(top) < 0x1p24f)) {
      call.fail("a region is not finite or too large");
    }
    const float cell_width = region_width / static_cast<float>(at.out_width);
    const float cell_height = region_height / static_cast<float>(at.out_height);
    const auto samples_of = [&](float cell) {
      const float count = sampling > 0 ? static_cast<float>(sampling) : std::ceil(cell);
      if (count > 4096) call.refuse("regions of which a cell has more than 4096 rows");
      return static_cast<size_t>(std::max(count, 0.0f));
    };
    const size_t down = samples_of(cell_height), across = samples_of(cell_width);
    const float count = static_cast<float>(std::max<size_t>(down * across, 1));
    for (size_t i = 0; i < at.out_height; ++i) {
      for (size_t j = 0; j < at.out_width; ++j) {
        std::vector<Sample> samples;
        for (size_t a = 0; a < down; ++a) {
          for (size_t b = 0; b < across; ++b) {
            float row =
                top + (static_cast<float>(i) + (static_cast<float>(a) + 0.5f) / static_cast<float>(down)) * cell_height;
            float column =
                left +
                (static_cast<float>(j) + (static_cast<float>(b) + 0.5f) / static_cast<float>(across)) * cell_width;
            if (!(row >= -1 && row <= height && column >= -1 && column <= width)) {
              samples.emplace_back();
              continue;
            }
            row = std::clamp(row, 0.0f, height - 1);
            column = std::clamp(column, 0.0f, width - 1);
            const auto low_row = static_cast<size_t>(row), low_column = static_cast<size_t>(column);
            const size_t high_row = std::min(low_row + 1, at.height - 1);
            const size_t high_column = std::min(low_column + 1, at.width - 1);
            const float v = row - static_cast<float>(low_row), u = column - static_cast<float>(low_column);
            samples.push_back({{low_row * at.width + low_column, low_row * at.width + high_column,
                                high_row * at.width + low_column, high_row * at.width + high_column},
                               {(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u}});
          }
        }
        for (size_t c = 0; c < at.channels; ++c) {
          const float* plane = x.data() + (image * at.channels + c) * at.height * at.width;
          float sum = 0, best = samples.empty() ? 0.0f : -std::numeric_limits<float>::infinity();
          for (const Sample& sample : samples) {
            for (size_t k = 0; k < 4; ++k) {
              const float value = sample.weight[k] * plane[sample.at[k]];
              sum += value;
              best = std::max(best, value);
            }
          }
          out[((r * at.channels + c) * at.out_height + i) * at.out_width + j] = largest ? best : sum / count;
        }
      }
    }
  }
  return {y};
}

/// x at (row, column) by bilinear interpolation; pixels outside count 0.
float bilinear(const float* plane, size_t height, size_t width, float row, float column) {
  const float top = std::floor(row), left = std::floor(column);
  // Far outside and NaN alike: nothing of the plane is near.
  if (!(top >= -1 && left >= -1 && top < static_cast<float>(height) && left < static_cast<float>(width))) return 0;
  const float v = row - top, u = column - left;
  const auto i = static_cast<std::ptrdiff_t>(top), j = static_cast<std::ptrdiff_t>(left);
  const auto pixel = [&](std::ptrdiff_t r, std::ptrdiff_t c) {
    const bool inside =
        r >= 0 && c >= 0 && r < static_cast<std::ptrdiff_t>(height) && c < static_cast<std::ptrdiff_t>(width);
    return inside ? plane[static_cast<size_t>(r) * width + static_cast<size_t>(c)] : 0.0f;
  };
  return (1 - v) * ((1 - u) * pixel(i, j) + u * pixel(i, j + 1)) +
         v * ((1 - u) * pixel(i + 1, j) + u * pixel(i + 1, j + 1));
}

/// Zhu et al., "Deformable ConvNets v2" (CVPR 2019), equation 1: a convolution whose taps lie where `offset` moves them
/// to, weighted by `mask`. For each image: the moved pixels become columns, which the filter is multiplied with.
std::vector<Tensor> deform_conv(Call& call) {
  const std::span<const float> x = call.floats(0), weight = call.floats(1), offset = call.floats(2);
  const Shape &shape = call.in(0).shape(), &filter = call.in(1).shape();
  if (shape.size() != 4 || filter.size() != 4) call.refuse("other than two spatial axes");
  if (elements_of(filter) == 0) call.fail("the filter " + to_string(filter) + " has no elements");
  const Window window = window_of(call, shape, {filter[2], filter[3]}, false);
  const int64_t group = call.integer("group", 1), offset_group = call.integer("offset_group", 1);
  if (group < 1 || offset_group < 1) call.fail("group and offset_group must be at least 1");
  const auto groups = static_cast<size_t>(group), shifts = static_cast<size_t>(offset_group);
  const size_t channels = shape[1], made = filter[0], taps = filter[2] * filter[3];
  if (channels % groups != 0 || channels / groups != filter[1] || made % groups != 0 || channels % shifts != 0) {
    call.fail("an input of " + to_string(shape) + " in " + std::to_string(groups) +
              " groups does not fit a filter of " + to_string(filter) + " with " + std::to_string(shifts) +
              " groups of offsets");
  }
  const size_t plane_in = window.plane_in(), plane_out = window.plane_out();
  if (call.in(2).shape() != Shape{shape[0], shifts * taps * 2, window.out[0], window.out[1]}) {
    call.fail("offsets of " + to_string(call.in(2).shape()) + " do not fit the output");
  }
  std::span<const float> mask, bias;
  if (call.has(3)) bias = call.floats(3);
  if (call.has(4)) mask = call.floats(4);
  if (call.has(3) && bias.size() != made) call.fail("the bias must have " + std::to_string(made) + " values");
  if (call.has(4) && call.in(4).shape() != Shape{shape[0], shifts * taps, window.out[0], window.out[1]}) {
    call.fail("a mask of " + to_string(call.in(4).shape()) + " does not fit the output");
  }
  Tensor y = Tensor::allocate(DType::Float32, {shape[0], made, window.out[0], window.out[1]});
  Tensor room = Tensor::allocate(DType::Float32, {channels, taps, plane_out});
  const std::span<float> out = y.write<float>(), columns = room.write<float>();
  const size_t group_in = filter[1] * taps, group_out = made / groups;
  for (size_t image = 0; image < shape[0]; ++image) {
    for (size_t c = 0; c < channels; ++c) {
      const float* plane = x.data() + (image * channels + c) * plane_in;
      const size_t shift = image * shifts + c / (channels / shifts);
      for (size_t tap = 0; tap < taps; ++tap) {
        const float* down = offset.data() + (shift * taps + tap) * 2 * plane_out;
        const float* across = down + plane_out;
        for (size_t i = 0; i < plane_out; ++i) {
          const auto row =
              static_cast<std::ptrdiff_t>(i / window.out[1] * window.stride[0] + tap / filter[3] * window.dilation[0]) -
              window.pad_begin[0];
          const auto column =
              static_cast<std::ptrdiff_t>(i % window.out[1] * window.stride[1] + tap % filter[3] * window.dilation[1]) -
              window.pad_begin[1];
          const float value = bilinear(plane, shape[2], shape[3], static_cast<float>(row) + down[i],
                                       static_cast<float>(column) + across[i]);
          columns[(c * taps + tap) * plane_out + i] =
              mask.empty() ? value : value * mask[(shift * taps + tap) * plane_out + i];
        }
      }
    }
    for (size_t g = 0; g < groups; ++g) {
      float* to = out.data() + (image * made + g * group_out) * plane_out;
      kernels::matmul(group_out, plane_out, group_in, {weight.data() + g * group_out * group_in, group_in, 1},
                      {columns.data() + g * group_in * plane_out, plane_out, 1}, to, plane_out, false, scratch());
    }
    for (size_t o = 0; o < made && !bias.empty(); ++o) {
      const std::span<float> values = out.subspan((image * made + o) * plane_out, plane_out);
      kernels::scale_shift(values, 1.0f, bias[o], values);
    }
  }
  return {y};
}

}  // namespace

std::span<const Op> region_ops() {
  static const Op kOps[] = {
      {.name = "MaxRoiPool", .forward = max_roi_pool, .reals = Reals::AsFloat32},
      {.name = "RoiAlign", .forward = roi_align, .reals = Reals::AsFloat32},
      {.name = "DeformConv", .forward = deform_conv, .reals = Reals::AsFloat32},
  };
  return kOps;
}

}  // namespace nibble::ops
