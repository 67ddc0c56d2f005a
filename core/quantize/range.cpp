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
  const double hi =
      scheme.symmetric ? std::max(std::abs(interval.lo), std::abs(interval.hi)) : std::max(interval.hi, 0.0f);
  if (hi == lo) return grid;
  // Below FLT_MIN the reciprocal would be infinite.
  grid.scale = static_cast<float>(std::clamp<double>((hi - lo) / grid.highest, FLT_MIN, FLT_MAX));
  if (!scheme.symmetric) {
    grid.zero_point =
        static_cast<int32_t>(std::clamp(std::nearbyint(-lo / grid.scale), 0.0, static_cast<double>(grid.highest)));
  }
  // The outermost points must be finite floats, though rounding the zero point moves them by up to half a step.
  const float reach = static_cast<float>(std::max(grid.zero_point, grid.highest - grid.zero_point));
  grid.scale = std::min(grid.scale, FLT_MAX / reach);
  while (std::isinf(grid.scale * reach)) grid.scale = std::nextafter(grid.scale, 0.0f);
  grid.inverse_scale = 1.0f / grid.scale;
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

Spread spread(Pieces pieces, bool skip_zeros) {
  double count = 0, zeros = 0, sum = 0, magnitude = 0, squares = 0;
  for (const auto piece : pieces) {
    const kernels::Moments moments = kernels::moments(piece, 0);
    count += static_cast<double>(moments.finite);
    zeros += static_cast<double>(moments.zeros);
    sum += moments.sum;
    magnitude += moments.sum_abs;
  }
  if (!skip_zeros) zeros = 0;
  if (count == zeros) return {};
  const double mean = sum / (count - zeros);
  for (const auto piece : pieces) squares += kernels::moments(piece, mean).sum_squares;
  // Each zero that is left out had its share of the squares.
  return {mean, std::sqrt(std::max(0.0, squares - zeros * mean * mean) / (count - zeros)), magnitude / (count - zeros)};
}

// Nearest rank: the smallest value that at least `percentile` percent of the values do not exceed.
size_t rank_of(double percentile, size_t count) {
  const double rank = std::ceil(percentile / 100 * static_cast<double>(count));
  return std::min(count, std::max<size_t>(1, static_cast<size_t>(rank))) - 1;
}

/// By selection in place. Zeros are the smallest magnitudes and values that are not finite the largest, so leaving
/// either out only shifts the rank of a magnitude.
Interval percentile_interval(Pieces pieces, bool symmetric, double percentile, bool skip_zeros) {
  size_t finite = 0, zeros = 0;
  for (const auto piece : pieces) {
    const kernels::Moments moments = kernels::moments(piece, 0);
    finite += moments.finite;
    zeros += skip_zeros ? moments.zeros : 0;
  }
  const size_t count = finite - zeros;
  if (count == 0) return {};
  if (symmetric) {
    const float bound = kernels::kth_magnitude(pieces, zeros + rank_of(percentile, count)).magnitude;
    return {-bound, bound};
  }
  const double tail = (100 - percentile) / 2;
  return {kernels::kth_value(pieces, rank_of(tail, count), skip_zeros),
          kernels::kth_value(pieces, rank_of(100 - tail, count), skip_zeros)};
}

struct Trial {
  double error = 0;  ///< squared, of all values
  double step = 0;   ///< of the grid
};

/// Searches the end of the interval along one line, from ratio 1 downwards: first on a coarse geometric ladder, then
/// evenly between the rungs beside the best one, then by steps that shrink. The squared error is a rounding part, at
/// most a quarter of the squared step for each of `count` values, and a clipping part that grows with smaller ratios:
/// where the clipping alone exceeds the best error, no smaller ratio can be better. There may be a hump before (coarse
/// steps that round all but an outlier to zero), so nothing weaker may end the descent.
template <class TrialAt>
double best_ratio(const TrialAt& trial_at, size_t count) {
  constexpr double kRung = 0.88;
  constexpr int kMostRungs = 60, kShrinking = 5;
  Trial least = trial_at(1.0);
  double best = 1;
  const auto consider = [&](double candidate) {
    const Trial trial = trial_at(candidate);
    if (trial.error < least.error) {
      least = trial;
      best = candidate;
    }
    return trial;
  };
  double ratio = 1;
  for (int rung = 1; rung <= kMostRungs; ++rung) {
    ratio *= kRung;
    const Trial trial = consider(ratio);
    if (trial.error - static_cast<double>(count) * trial.step * trial.step / 4 > least.error) break;
  }
  // Few values make a bumpy curve and are quick to look at.
  const double below = best * kRung, above = std::min(1.0, best / kRung);
  const int between = static_cast<int>(std::min<size_t>(8, 8192 / std::max<size_t>(1, count)));
  for (int i = 1; i <= between; ++i) consider(below + (above - below) * i / (between + 1));
  double step = between ? (above - below) / (between + 1) : best * (1 - kRung);
  for (int i = 0; i < kShrinking; ++i) {
    step *= 0.55;
    const double centre = best;
    consider(centre - step);
    if (best == centre && centre + step <= 1) consider(centre + step);
  }
  return best;
}

Interval scaled(const Interval& interval, double lo_ratio, double hi_ratio) {
  return {static_cast<float>(interval.lo * lo_ratio), static_cast<float>(interval.hi * hi_ratio)};
}

Interval mse_interval(Pieces pieces, const QuantScheme& scheme) {
  const Interval widest = ends(pieces);
  size_t count = 0;
  for (const auto piece : pieces) count += piece.size();
  const auto trial = [&](const Interval& interval) {
    const Grid grid = grid_over(interval, scheme);
    double sum = 0;
    for (const auto piece : pieces) sum += kernels::quantization_error(piece, grid);
    return Trial{sum, grid.scale};
  };
  const double both = best_ratio([&](double ratio) { return trial(scaled(widest, ratio, ratio)); }, count);
  if (scheme.symmetric) return scaled(widest, both, both);
  // Affine ends are free of each other: each is searched again with the other held.
  double lo = both, hi = both, least = trial(scaled(widest, lo, hi)).error;
  const double wider_hi = best_ratio([&](double ratio) { return trial(scaled(widest, lo, ratio)); }, count);
  if (const double found = trial(scaled(widest, lo, wider_hi)).error; found < least) {
    hi = wider_hi;
    least = found;
  }
  const double wider_lo = best_ratio([&](double ratio) { return trial(scaled(widest, ratio, hi)); }, count);
  if (trial(scaled(widest, wider_lo, hi)).error < least) lo = wider_lo;
  return scaled(widest, lo, hi);
}

}  // namespace

Grid find_grid(Pieces pieces, const QuantScheme& scheme, const RangeChoice& range, bool zeros_are_pruned) {
  if (scheme.bits == 1 && scheme.symmetric) {
    const float magnitude = static_cast<float>(spread(pieces, zeros_are_pruned).mean_magnitude);
    return grid_over({-magnitude, magnitude}, scheme);
  }
  switch (range.kind) {
    case RangeKind::MinMax: return grid_over(ends(pieces), scheme);
    case RangeKind::Percentile:
      return grid_over(percentile_interval(pieces, scheme.symmetric, range.percentile, zeros_are_pruned), scheme);
    case RangeKind::Sigma: {
      const Spread found = spread(pieces, zeros_are_pruned);
      const Interval widest = ends(pieces);
      const double reach = range.sigmas * found.deviation;
      return grid_over({std::max(widest.lo, static_cast<float>(found.mean - reach)),
                        std::min(widest.hi, static_cast<float>(found.mean + reach))},
                       scheme);
    }
    case RangeKind::Mse: return grid_over(mse_interval(pieces, scheme), scheme);
  }
  return {};
}

}  // namespace nibble
