// Snaps weights to uniform grids. Three independent choices: the scheme (which grid is asked for), the range (how its
// ends are found) and the rounding (how a value picks its code).
#pragma once

#include <optional>
#include <span>

#include "core/base/context.hpp"
#include "core/kernels/kernels.hpp"
#include "core/model/model.hpp"

namespace nibble {

/// How the represented interval is found from the finite, unpruned values.
enum class RangeKind : uint8_t {
  MinMax,
  Percentile,  ///< the central `percentile` percent, by nearest rank; symmetric: that percentile of the magnitudes
  Sigma,       ///< mean plus and minus `sigmas` standard deviations, never wider than the values themselves
  Mse,         ///< least squared error, searched; never worse than MinMax
};
struct RangeChoice {
  RangeKind kind = RangeKind::MinMax;
  double percentile = 99.9;  ///< 50 to 100
  double sigmas = 3;         ///< 0.1 to 100
};

enum class Rounding : uint8_t {
  Nearest,     ///< half to even, as ONNX QuantizeLinear
  Stochastic,  ///< up with the probability of the fraction: unbiased
};

/// The grid for values seen in one or more pieces. Symmetric: scale = max |end| / highest code. Affine: the interval is
/// widened to hold 0, scale = (hi - lo) / (2^bits - 1), zero_point = round(-lo / scale), so 0 is a grid point exactly.
/// One symmetric bit: scale = mean |w|, which has least squared error (Rastegari et al., XNOR-Net, arXiv:1603.05279,
/// eq. 6), whatever the range says. Values that are all zero get scale 1. With `zeros_are_pruned` the range is found
/// from the other values: a pruned zero costs nothing on any grid.
kernels::Grid find_grid(std::span<const std::span<const float>> pieces, const QuantScheme& scheme,
                        const RangeChoice& range, bool zeros_are_pruned = false);

/// One weight on its grid. NaN becomes 0 and an infinity the outermost grid point; pruned values stay 0. `global` is
/// the grid for Granularity::Global and not looked at otherwise. `key` seeds stochastic rounding. Works in place where
/// the caller gives up the only copy of the value, and needs room for one more otherwise.
Param quantize_weight(Param param, const Weight& weight, const QuantScheme& scheme, const RangeChoice& range,
                      Rounding rounding, uint64_t key, const std::optional<kernels::Grid>& global);

/// Where k-means starts.
enum class InitialCentroids : uint8_t {
  Linear,   ///< evenly over the range of the values: what Deep Compression found best, for it keeps the few large ones
  Density,  ///< quantiles
  Random,   ///< values drawn by `key`
};

/// One weight with its values replaced by at most 2^bits shared ones (1 to 8 bits), by k-means: Lloyd's algorithm until
/// nothing moves (Han et al., arXiv:1510.00149, section 3). Pruned values stay 0 and have no part in it. NaN becomes
/// the centroid nearest to 0 and an infinity the outermost. A grid that it had is forgotten.
Param cluster_weight(Param param, int bits, InitialCentroids initial, uint64_t key);

/// The position of the centroid nearest to a value; the lower of two that are as near.
size_t nearest_centroid(const Codebook& codebook, float value);

}  // namespace nibble
