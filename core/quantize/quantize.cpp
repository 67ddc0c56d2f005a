#include "core/quantize/quantize.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace nibble {

namespace {

using kernels::Grid;

// One symmetric bit has no zero, so it does not go through the rounding of the other grids: a value takes its sign.
void binarize(std::span<const float> values, const Grid& grid, Rounding rounding, uint64_t key, uint64_t first, std::span<float> out) {
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

}  // namespace

Param quantize_weight(const Param& param, const Weight& weight, const QuantScheme& scheme, const RangeChoice& range,
                      Rounding rounding, uint64_t key, const std::optional<Grid>& global) {
  const FloatView view(param.value);
  const bool by_row = scheme.granularity == Granularity::Channel || scheme.granularity == Granularity::Group;
  const Rows rows = by_row ? rows_of(param.value.shape(), weight.channel_axis) : Rows{1, 1, view.values().size()};
  const RowView in_rows(view.values(), rows);
  std::vector<float> snapped(view.values().size());

  QuantParams params{scheme, {}, {}};
  const size_t length = rows.length();
  const size_t group = scheme.granularity == Granularity::Group ? scheme.group_size : length;
  const size_t groups = length ? groups_of(length, group) : 1;
  std::vector<float> kept;
  for (size_t row = 0; row < rows.channels; ++row) {
    for (size_t g = 0; g < groups; ++g) {
      const size_t first = row * length + g * group;
      const std::span<const float> values = in_rows.all().subspan(first, std::min(group, length - g * group));
      std::span<const float> seen = values;
      if (param.mask && !global) {
        // Pruned zeros cost nothing on any grid; the range is for what is left.
        kept.clear();
        std::copy_if(values.begin(), values.end(), std::back_inserter(kept), [](float value) { return value != 0; });
        seen = kept;
      }
      const Grid grid = global ? *global : find_grid(std::span(&seen, 1), scheme, range);
      if (!global || params.scale.empty()) {
        params.scale.push_back(grid.scale);
        params.zero_point.push_back(grid.zero_point);
      }
      snap(values, scheme, grid, rounding, key, first, std::span(snapped).subspan(first, values.size()));
    }
  }
  if (rows.outer > 1) {
    std::vector<float> back(snapped.size());
    scatter_rows(snapped, rows, back);
    snapped = std::move(back);
  }
  if (param.mask) kernels::apply_mask(snapped, param.mask->words, snapped);
  return {param.name, from_floats(param.value.dtype(), param.value.shape(), snapped), param.mask, std::move(params)};
}

}  // namespace nibble
