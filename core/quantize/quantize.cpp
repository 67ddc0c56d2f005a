#include "core/quantize/quantize.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace nibble {

namespace {

using kernels::Grid;

// One symmetric bit has no zero, so it does not go through the rounding of the other grids: a value takes its sign.
void binarize(std::span<const float> values, const Grid& grid, Rounding rounding, uint64_t key, uint64_t first,
              std::span<float> out) {
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    bool up = !(value < 0);
    if (rounding == Rounding::Stochastic) up = uniform24(key, first + i) < (value * grid.inverse_scale + 1) * 0.5f;
    out[i] = std::isnan(value) ? 0 : up ? grid.scale : -grid.scale;
  }
}

void snap(std::span<const float> values, const QuantScheme& scheme, const Grid& grid, Rounding rounding, uint64_t key,
          uint64_t first, std::span<float> out) {
  if (scheme.bits == 1 && scheme.symmetric) {
    binarize(values, grid, rounding, key, first, out);
  } else if (rounding == Rounding::Stochastic) {
    kernels::fake_quantize_stochastic(values, grid, key, first, out);
  } else {
    kernels::fake_quantize(values, grid, out);
  }
}

/// The part of a grid whose points are finite numbers of the type. The zero point's rounding moves the outermost points
/// by up to half a step, which can be beyond what a narrow type holds.
Grid within(Grid grid, DType dtype) {
  const auto reach = static_cast<int32_t>(std::min(largest_finite(dtype) / grid.scale, 1e6));
  grid.lowest = std::max(grid.lowest, grid.zero_point - reach);
  grid.highest = std::min(grid.highest, grid.zero_point + reach);
  return grid;
}

/// The search for a range visits its values many times: up to this many, copying those that are not pruned is worth it.
constexpr size_t kWorthCopying = 1 << 16;

}  // namespace

Param quantize_weight(Param param, const Weight& weight, const QuantScheme& scheme, const RangeChoice& range,
                      Rounding rounding, uint64_t key, const std::optional<Grid>& global) {
  const DType dtype = param.value.dtype();
  const bool in_place = dtype == DType::Float32 && param.value.is_unshared();
  Tensor snapped = in_place ? std::move(param.value) : Tensor::allocate(DType::Float32, param.value.shape());
  std::optional<FloatView> view;
  if (!in_place) view.emplace(param.value);
  const std::span<float> out = snapped.write<float>();
  const std::span<const float> in = in_place ? out : view->values();

  const bool by_row = scheme.granularity == Granularity::Channel || scheme.granularity == Granularity::Group;
  const Rows rows = by_row ? rows_of(snapped.shape(), weight.channel_axis) : Rows{1, 1, in.size()};
  const size_t length = rows.length();
  const size_t group = scheme.granularity == Granularity::Group ? scheme.group_size : length;
  const size_t groups = length ? groups_of(length, group) : 1;
  QuantParams params{scheme, {}, {}};

  std::vector<float> kept;
  const auto snap_row = [&](size_t row, std::span<const float> values, std::span<float> target) {
    for (size_t g = 0; g < groups; ++g) {
      const size_t begin = g * group, count = std::min(group, length - begin);
      const std::span<const float> part = values.subspan(begin, count);
      std::span<const float> seen = part;
      if (param.mask && !global && count <= kWorthCopying) {
        kept.clear();
        std::copy_if(part.begin(), part.end(), std::back_inserter(kept), [](float value) { return value != 0; });
        seen = kept;
      }
      const Grid grid = global ? *global : find_grid(std::span(&seen, 1), scheme, range, param.mask.has_value());
      if (!global || params.scale.empty()) {
        params.scale.push_back(grid.scale);
        params.zero_point.push_back(grid.zero_point);
      }
      snap(part, scheme, within(grid, dtype), rounding, key, row * length + begin, target.subspan(begin, count));
    }
  };
  if (rows.outer == 1) {
    for (size_t row = 0; row < rows.channels; ++row) {
      snap_row(row, in.subspan(row * length, length), out.subspan(row * length, length));
    }
  } else {
    std::vector<float> snapped_block(rows_per_block(rows) * length);
    for_each_row_block(in, rows, [&](size_t first, size_t count, std::span<const float> block) {
      for (size_t c = 0; c < count; ++c) {
        snap_row(first + c, block.subspan(c * length, length), std::span(snapped_block).subspan(c * length, length));
      }
      scatter_rows(std::span<const float>(snapped_block), rows, first, count, out);
    });
  }
  if (param.mask) kernels::apply_mask(out, param.mask->words, out);
  param.value = dtype == DType::Float32 ? std::move(snapped) : from_floats(dtype, snapped.shape(), out);
  param.grid = std::move(params);
  param.codebook.reset();
  return param;
}

}  // namespace nibble
