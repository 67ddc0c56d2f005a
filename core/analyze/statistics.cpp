#include <algorithm>
#include <cmath>

#include "core/analyze/analyze.hpp"

namespace nibble {

Statistics statistics_of(std::span<const float> values) {
  const kernels::MinMax ends = kernels::min_max(values);
  const kernels::Moments raw = kernels::moments(values, 0);
  Statistics result;
  result.elements = values.size();
  result.min = ends.min;
  result.max = ends.max;
  result.nan = ends.nan;
  result.infinite = ends.infinite;
  result.zeros = raw.zeros;
  if (raw.finite == 0) return result;
  const double count = static_cast<double>(raw.finite);
  result.mean = raw.sum / count;
  result.std = std::sqrt(kernels::moments(values, result.mean).sum_squares / count);
  return result;
}

WeightError error_from(const kernels::Difference& difference) {
  WeightError error;
  if (difference.count == 0) return error;
  error.mse = difference.sum_squared_error / static_cast<double>(difference.count);
  error.max_abs_error = difference.max_abs_error;
  if (difference.sum_squared_error > 0 && difference.sum_squared_before > 0) {
    error.sqnr_db = 10 * std::log10(difference.sum_squared_before / difference.sum_squared_error);
  }
  const double norms = std::sqrt(difference.sum_squared_before) * std::sqrt(difference.sum_squared_after);
  if (norms > 0) error.cosine = std::clamp(difference.sum_product / norms, -1.0, 1.0);
  return error;
}

void add(kernels::Difference& sum, const kernels::Difference& other) {
  sum.count += other.count;
  sum.sum_squared_error += other.sum_squared_error;
  sum.sum_squared_before += other.sum_squared_before;
  sum.sum_squared_after += other.sum_squared_after;
  sum.sum_product += other.sum_product;
  sum.max_abs_error = std::max(sum.max_abs_error, other.max_abs_error);
}

}  // namespace nibble
