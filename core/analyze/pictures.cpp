#include <algorithm>
#include <cmath>
#include <limits>

#include "core/analyze/analyze.hpp"

namespace nibble {

namespace {

constexpr size_t kMostLevels = 4096;

std::vector<float> levels_of(const Param& param, const Rows& rows, size_t channel, float lo, float hi) {
  if (!param.grid) return {};
  const QuantParams& grid = *param.grid;
  const int32_t lowest = lowest_code(grid.scheme), highest = highest_code(grid.scheme);
  if (grid.scale.empty() || static_cast<size_t>(highest - lowest) >= kMostLevels) return {};
  const size_t per_channel = std::max<size_t>(1, grid.scale.size() / std::max<size_t>(1, rows.channels));
  const size_t index = grid.scale.size() == 1 ? 0 : std::min(channel * per_channel, grid.scale.size() - 1);
  std::vector<float> levels;
  const bool no_zero = grid.scheme.bits == 1 && grid.scheme.symmetric && !param.mask;
  for (int32_t code = lowest; code <= highest; ++code) {
    if (code == 0 && no_zero) continue;
    const float level = grid.scale[index] * static_cast<float>(code - grid.zero_point[index]);
    if (level >= lo && level <= hi) levels.push_back(level);
  }
  return levels;
}

// Mean absolute error over blocks of the [channels, inputs] matrix; positions that are not finite on both sides are left out.
void draw_map(std::span<const float> before, std::span<const float> after, const Rows& rows, const PictureSize& size, WeightPicture& picture) {
  const size_t columns = rows.length();
  picture.weight_rows = rows.channels;
  picture.weight_columns = columns;
  picture.map_rows = std::min(rows.channels, size.rows);
  picture.map_columns = std::min(columns, size.columns);
  const size_t cells = picture.map_rows * picture.map_columns;
  picture.cells.assign(cells, 0);
  if (cells == 0) return;
  std::vector<double> sums(cells);
  std::vector<uint32_t> counts(cells);
  std::vector<uint32_t> cell_of_column(columns);
  for (size_t c = 0; c < columns; ++c) cell_of_column[c] = static_cast<uint32_t>(uint64_t{c} * picture.map_columns / columns);
  for (size_t r = 0; r < rows.channels; ++r) {
    const size_t base = static_cast<size_t>(uint64_t{r} * picture.map_rows / rows.channels) * picture.map_columns;
    const float* a = before.data() + r * columns;
    const float* b = after.data() + r * columns;
    for (size_t c = 0; c < columns; ++c) {
      const float error = std::abs(a[c] - b[c]);
      if (!std::isfinite(error)) continue;
      sums[base + cell_of_column[c]] += error;
      ++counts[base + cell_of_column[c]];
    }
  }
  for (size_t i = 0; i < cells; ++i) {
    if (counts[i]) picture.cells[i] = static_cast<float>(sums[i] / counts[i]);
    picture.map_max = std::max(picture.map_max, picture.cells[i]);
  }
}

}  // namespace

WeightPicture picture_of(const Param& before, const Param& after, const Weight& weight, const PictureSize& size) {
  const FloatView before_view(before.value), after_view(after.value);
  const Rows rows = rows_of(before.value.shape(), weight.channel_axis);
  const RowView before_rows(before_view.values(), rows), after_rows(after_view.values(), rows);

  WeightPicture picture;
  const kernels::MinMax a = kernels::min_max(before_view.values()), b = kernels::min_max(after_view.values());
  picture.lo = std::min(a.min, b.min);
  picture.hi = std::max(a.max, b.max);
  if (!(picture.lo < picture.hi)) {  // constant: one full bin in the middle
    const float reach = picture.lo == 0 ? 1 : std::abs(picture.lo) / 2;
    picture.lo -= reach;
    picture.hi += reach;
  }
  picture.before.resize(size.bins);
  picture.after.resize(size.bins);
  kernels::histogram(before_view.values(), picture.lo, picture.hi, picture.before);
  kernels::histogram(after_view.values(), picture.lo, picture.hi, picture.after);
  picture.levels = levels_of(after, rows, size.channel, picture.lo, picture.hi);
  draw_map(before_rows.all(), after_rows.all(), rows, size, picture);
  for (size_t c = 0; c < rows.channels; ++c) {
    const kernels::Difference difference = kernels::difference(before_rows.row(c), after_rows.row(c));
    const WeightError error = error_from(difference);
    picture.mse.push_back(static_cast<float>(error.mse));
    const bool exact = difference.sum_squared_error == 0;
    picture.sqnr_db.push_back(exact ? std::numeric_limits<float>::infinity() : static_cast<float>(error.sqnr_db.value_or(0)));
    picture.max_abs.push_back(static_cast<float>(error.max_abs_error));
  }
  return picture;
}

}  // namespace nibble
