// Rounding that weighs what an error costs against what a code costs: least loss + lambda * bits, the bits being those
// of the very coder that a .nib file has. Trellis-coded quantization is left out: at the rates of our files it would
// save some 5 to 9 % (`npm run bench:codec -- --trellis`), but its search cannot hand errors on to later weights, as
// the full Hessian does, and that saves several times as much.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "core/model/model.hpp"

namespace nibble {

/// What errors in one param cost, to second order: sum over errors of 1/2 * curvature * error^2.
struct ErrorCost {
  /// One curvature for each element; empty: `mean` for all.
  std::span<const float> diagonal;
  double mean = 1;
  /// E[x x^T] of the layer's inputs, [groups, columns, columns] (analyze/curvature.hpp), scaled here so that its mean
  /// diagonal is `mean`; empty: errors are counted one by one. Where given, errors of one output are counted together,
  /// and each makes up for those before it.
  std::span<const double> moments;
  size_t groups = 1, columns = 0;
};

/// A param whose values are chosen for least 1/2 curvature error^2 + lambda * bits. One that is on a grid stays on it;
/// one that is not gets one scale, the step at which error and bits of a fine uniform grid are in balance, sqrt(12
/// lambda / (curvature ln 2)) (Gish and Pierce 1968, through the entropy's derivative), rounded to four bits. Masked
/// elements stay 0.
///
/// Levels are chosen in the tensor's own order, each from the nearest, its neighbour towards 0 and 0, against the
/// adaptive coder as it stands there (Wiedemann et al., DeepCABAC, arXiv:1907.11900, section III). With moments that is
/// done inside a GPTQ sweep on H' = H + lambda gamma I and W H H'^-1, gamma = 1 / (ln 2 var(w)) taking the cost of
/// large levels into the quadratic part (Conzel et al., CERWU, arXiv:2505.18758, section 3).
///
/// `weight` is the param's entry where it is a weight. lambda > 0. Returns nothing, and leaves the param as it is,
/// where values are not finite or shared, or the grid has one symmetric bit; `note` then says why, and also where
/// moments could not be used.
std::optional<Param> round_by_rate(const Param& param, const Weight* weight, const ErrorCost& cost, double lambda,
                                   std::string& note);

/// Values with as many mantissa bits as their errors are worth at this lambda, at least 3: for numbers such as
/// variances, whose error counts by its ratio to them.
Param shorten_mantissas(const Param& param, const ErrorCost& cost, double lambda);

/// Scales of a grid likewise, each by what all codes of its piece lose when it is not exact; the values follow.
Param shorten_scales(const Param& param, const Weight& weight, const ErrorCost& cost, double lambda);

}  // namespace nibble
