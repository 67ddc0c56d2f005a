#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "core/analyze/analyze.hpp"

namespace nibble {

namespace {

constexpr size_t kMostLevels = 4096;

std::vector<float> levels_of(const Param& param, const Rows& rows, size_t channel, float lo, float hi) {
  if (param.codebook) {
    std::vector<float> levels;
    for (const float level : param.codebook->centroids) {
      if (level >= lo && level <= hi) levels.push_back(level);
    }
    return levels;
  }
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

/// Error map and channel errors, row by row.
class RowPictures {
 public:
  RowPictures(const Rows& rows, const PictureSize& size, WeightPicture& picture) : rows_(rows), picture_(picture) {
    const size_t columns = rows.length();
    picture.weight_rows = rows.channels;
    picture.weight_columns = columns;
    picture.map_rows = std::min(rows.channels, size.rows);
    picture.map_columns = std::min(columns, size.columns);
    sums_.resize(picture.map_rows * picture.map_columns);
    counts_.resize(sums_.size());
    for (size_t cell = 0; columns > 0 && cell <= picture.map_columns; ++cell) {
      ends_.push_back(static_cast<size_t>((uint64_t{cell} * columns + picture.map_columns - 1) / picture.map_columns));
    }
  }

  void add_row(size_t row, std::span<const float> before, std::span<const float> after) {
    const size_t map_row = static_cast<size_t>(uint64_t{row} * picture_.map_rows / rows_.channels);
    const size_t base = map_row * picture_.map_columns;
    for (size_t cell = 0; cell < picture_.map_columns; ++cell) {
      double sum = 0;
      uint32_t count = 0;
      for (size_t c = ends_[cell]; c < ends_[cell + 1]; ++c) {
        const float error = std::abs(before[c] - after[c]);
        if (!std::isfinite(error)) continue;  // one side is not: neither is there an error to show
        sum += error;
        ++count;
      }
      sums_[base + cell] += sum;
      counts_[base + cell] += count;
    }
    const kernels::Difference difference = kernels::difference(before, after);
    const WeightError error = error_from(difference);
    const bool exact = difference.sum_squared_error == 0;
    picture_.mse.push_back(static_cast<float>(error.mse));
    picture_.sqnr_db.push_back(exact ? std::numeric_limits<float>::infinity()
                                     : static_cast<float>(error.sqnr_db.value_or(0)));
    picture_.max_abs.push_back(static_cast<float>(error.max_abs_error));
  }

  void finish() {
    picture_.cells.assign(sums_.size(), 0);
    for (size_t i = 0; i < sums_.size(); ++i) {
      if (counts_[i]) picture_.cells[i] = static_cast<float>(sums_[i] / counts_[i]);
      picture_.map_max = std::max(picture_.map_max, picture_.cells[i]);
    }
  }

 private:
  const Rows& rows_;
  WeightPicture& picture_;
  std::vector<double> sums_;
  std::vector<uint32_t> counts_;
  std::vector<size_t> ends_;  // where each cell's columns begin, and where the last one's end
};

}  // namespace

WeightPicture picture_of(const Param& before, const Param& after, const Weight& weight, const PictureSize& size) {
  const FloatView before_view(before.value), after_view(after.value);
  const Rows rows = rows_of(before.value.shape(), weight.channel_axis);

  WeightPicture picture;
  const kernels::MinMax a = kernels::min_max(before_view.values()), b = kernels::min_max(after_view.values());
  picture.lo = std::min(a.min, b.min);
  picture.hi = std::max(a.max, b.max);
  // The distance of the edges, and the bins divided by it, must be finite floats.
  constexpr float kMost = FLT_MAX / 4, kLeast = 1e-30f;
  picture.lo = std::clamp(picture.lo, -kMost, kMost);
  picture.hi = std::clamp(picture.hi, -kMost, kMost);
  if (picture.hi - picture.lo < kLeast) {  // constant: one full bin in the middle
    const float reach = std::abs(picture.lo) < kLeast ? 1 : std::abs(picture.lo) / 2;
    picture.lo -= reach;
    picture.hi += reach;
  }
  picture.before.resize(size.bins);
  picture.after.resize(size.bins);
  kernels::histogram(before_view.values(), picture.lo, picture.hi, picture.before);
  kernels::histogram(after_view.values(), picture.lo, picture.hi, picture.after);
  picture.levels = levels_of(after, rows, size.channel, picture.lo, picture.hi);
  RowPictures row_pictures(rows, size, picture);
  const size_t length = rows.length();
  std::vector<float> after_rows(rows.outer == 1 ? 0 : rows_per_block(rows) * length);
  for_each_row_block(before_view.values(), rows, [&](size_t first, size_t count, std::span<const float> block) {
    std::span<const float> after_block = after_view.values();
    if (rows.outer > 1) {
      gather_rows(after_view.values(), rows, first, count, std::span(after_rows));
      after_block = after_rows;
    }
    for (size_t c = 0; c < count; ++c) {
      row_pictures.add_row(first + c, block.subspan(c * length, length), after_block.subspan(c * length, length));
    }
  });
  row_pictures.finish();
  return picture;
}

}  // namespace nibble
