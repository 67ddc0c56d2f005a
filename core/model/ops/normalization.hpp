// What the normalisations share. Sums are taken in float by kernels::sum and kernels::dot. Variances are means of
// squared differences (two passes), not differences of means, which would lose what matters where the mean is large.
#pragma once

#include <cmath>

#include "core/model/ops/support.hpp"

namespace nibble::ops {

/// layer_normalization.cpp: layers, groups, instances. The others of normalization_ops() are in normalization.cpp.
std::span<const Op> row_normalization_ops();

inline bool wanted(const Call& call, size_t input) { return input < call.wanted.size() && call.wanted[input]; }

inline void check_epsilon(const Call& call, float epsilon) {
  if (!(epsilon >= 0) || !std::isfinite(epsilon))
    call.fail("epsilon must not be negative, it is " + std::to_string(epsilon));
}

inline float mean_of(std::span<const float> x) { return kernels::sum(x) / static_cast<float>(x.size()); }

/// The sum of (x - mean)^2, `room` holding the differences; it is as long as x (and may be x).
inline float squared_deviations(std::span<const float> x, float mean, std::span<float> room) {
  kernels::scale_shift(x, 1.0f, -mean, room);
  return kernels::dot(room, room);
}

}  // namespace nibble::ops
