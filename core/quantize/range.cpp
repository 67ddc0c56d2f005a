// Finds the interval that a grid represents.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "core/quantize/quantize.hpp"

namespace nibble {

namespace {

using Pieces = std::span<const std::span<const float>>;
using kernels::Grid;

struct Interval {
  float lo = 0, hi = 0;
};

Grid grid_over(const Interval& interval, const QuantScheme& scheme) {
  Grid grid;
  grid.lowest = lowest_code(scheme);
  grid.highest = highest_code(scheme);
  const double lo = scheme.symmetric ? 0 : std::min(interval.lo, 0.0f);
  const double hi = scheme.symmetric ? std::max(std::abs(interval.lo), std::abs(interval.hi)) : std::max(interval.hi, 0.0f);
  if (hi == lo) return grid;
  // Below FLT_MIN the reciprocal would be infinite.
  grid.scale = std::max(static_cast<float>((hi - lo) / grid.highest), FLT_MIN);
  // The outermost point must be a finite float.
  while (std::isinf(grid.scale * static_cast<float>(grid.highest))) grid.scale = std::nextafter(grid.scale, 0.0f);
  grid.inverse_scale = 1.0f / grid.scale;
  if (!scheme.symmetric) {
    grid.zero_point = static_cast<int32_t>(std::clamp(std::nearbyint(-lo / grid.scale), 0.0, static_cast<double>(grid.highest)));
  }
  return grid;
}

Interval ends(Pieces pieces) {
  Interval all;
  bool any = false;
  for (const auto piece : pieces) {
    const kernels::MinMax found = kernels::min_max(piece);
    if (found.nan + found.infinite == piece.size()) continue;
    all.lo = any ? std::min(all.lo, found.min) : found.min;
    all.hi = any ? std::max(all.hi, found.max) : found.max;
    any = true;
  }
  return all;
}

struct Spread {
  double mean = 0, deviation = 0, mean_magnitude = 0;
};

Spread spread(Pieces pieces) {
  double count = 0, sum = 0, magnitude = 0, squares = 0;
  for (const auto piece : pieces) {
    const kernels::Moments moments = kernels::moments(piece, 0);
    count += static_cast<double>(moments.finite);
    sum += moments.sum;
    magnitude += moments.sum_abs;
  }
  if (count == 0) return {};
  const double mean = sum / count;
  for (const auto piece : pieces) squares += kernels::moments(piece, mean).sum_squares;
  return {mean, std::sqrt(squares / count), magnitude / count};
}

// Nearest rank: the smallest value that at least `percentile` percent of the values do not exceed.
size_t rank_of(double percentile, size_t count) {
  const double rank = std::ceil(percentile / 100 * static_cast<double>(count));
  return std::min(count, std::max<size_t>(1, static_cast<size_t>(rank))) - 1;
}

Interval percentile_interval(Pieces pieces, bool symmetric, double percentile) {
  std::vector<float> values;
  for (const auto piece : pieces) {
    std::copy_if(piece.begin(), piece.end(), std::back_inserter(values), [](float value) { return std::isfinite(value); });
  }
  if (values.empty()) return {};
  if (symmetric) {
    const std::span<const float> all(values);
    const float bound = kernels::kth_magnitude(std::span(&all, 1), rank_of(percentile, values.size())).magnitude;
    return {-bound, bound};
  }
  const double tail = (100 - percentile) / 2;
  const auto at = [&](double percent) {
    const auto nth = values.begin() + static_cast<ptrdiff_t>(rank_of(percent, values.size()));
    std::nth_element(values.begin(), nth, values.end());
    return *nth;
  };
  const float lo = at(tail), hi = at(100 - tail);
  return {lo, hi};
}

/// Searches the end of the interval along one line, from ratio 1 downwards: first on a coarse geometric ladder, then by
/// thirds between the rungs beside the best one. The squared error over the ratio is a rounding part that falls and a
/// clipping part that grows with smaller ratios; on few values it has small bumps, which is why a step down the ladder
/// may fail twice before the search gives up.
template <class ErrorAt>
double best_ratio(const ErrorAt& error_at) {
  constexpr double kRung = 0.88;
  constexpr int kMostRungs = 24, kPatience = 3, kThirds = 5;
  double best = 1, best_error = error_at(1.0), ratio = 1;
  const auto consider = [&](double candidate) {
    const double error = error_at(candidate);
    if (error < best_error) {
      best_error = error;
      best = candidate;
      return true;
    }
    return false;
  };
  for (int rung = 1, failures = 0; rung <= kMostRungs && failures < kPatience; ++rung) {
    ratio *= kRung;
    failures = consider(ratio) ? 0 : failures + 1;
  }
  double step = best * (1 - kRung);
  for (int i = 0; i < kThirds; ++i) {
    step *= 0.55;
    const double centre = best;
    if (!consider(centre - step) && centre + step <= 1) consider(centre + step);
  }
  return best;
}

Interval scaled(const Interval& interval, double lo_ratio, double hi_ratio) {
  return {static_cast<float>(interval.lo * lo_ratio), static_cast<float>(interval.hi * hi_ratio)};
}

Interval mse_interval(Pieces pieces, const QuantScheme& scheme) {
  const Interval widest = ends(pieces);
  const auto error = [&](const Interval& interval) {
    const Grid grid = grid_over(interval, scheme);
    double sum = 0;
    for (const auto piece : pieces) sum += kernels::quantization_error(piece, grid);
    return sum;
  };
  const double both = best_ratio([&](double ratio) { return error(scaled(widest, ratio, ratio)); });
  if (scheme.symmetric) return scaled(widest, both, both);
  // Affine ends are free of each other: each is searched again with the other held.
  double lo = both, hi = both, least = error(scaled(widest, lo, hi));
  const double wider_hi = best_ratio([&](double ratio) { return error(scaled(widest, lo, ratio)); });
  if (const double found = error(scaled(widest, lo, wider_hi)); found < least) {
    hi = wider_hi;
    least = found;
  }
  const double wider_lo = best_ratio([&](double ratio) { return error(scaled(widest, ratio, hi)); });
  if (error(scaled(widest, wider_lo, hi)) < least) lo = wider_lo;
  return scaled(widest, lo, hi);
}

}  // namespace

Grid find_grid(Pieces pieces, const QuantScheme& scheme, const RangeChoice& range) {
  if (scheme.bits == 1 && scheme.symmetric) {
    const float magnitude = static_cast<float>(spread(pieces).mean_magnitude);
    return grid_over({-magnitude, magnitude}, scheme);
  }
  switch (range.kind) {
    case RangeKind::MinMax: return grid_over(ends(pieces), scheme);
    case RangeKind::Percentile: return grid_over(percentile_interval(pieces, scheme.symmetric, range.percentile), scheme);
    case RangeKind::Sigma: {
      const Spread found = spread(pieces);
      const Interval widest = ends(pieces);
      const double reach = range.sigmas * found.deviation;
      return grid_over({std::max(widest.lo, static_cast<float>(found.mean - reach)), std::min(widest.hi, static_cast<float>(found.mean + reach))}, scheme);
    }
    case RangeKind::Mse: return grid_over(mse_interval(pieces, scheme), scheme);
  }
  return {};
}

}  // namespace nibble
