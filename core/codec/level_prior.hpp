// What levels probably look like before any was seen: a few numbers that stand at the start of a tensor's stream, so
// that the adaptive models need not learn a smooth distribution one probability after the other. For a tensor of a
// thousand 8-bit levels that is worth some 3 % of the file.
#pragma once

#include <cstdint>
#include <span>

namespace nibble::codec {

/// The magnitudes of the levels that are not 0, as a generalised normal distribution (Nadarajah 2005) of continuous
/// values, cut off below `least` and rounded to whole numbers.
struct LevelPrior {
  bool given = false;
  int shape = 0;       ///< exponent 2 (normal), 1.4, 1 (Laplace) or 0.7, as 0 to 3
  int scale = 0;       ///< mean magnitude 2^(scale / 4), kLowestScale to kHighestScale
  uint32_t least = 1;  ///< smallest magnitude that occurs: after pruning there is a gap around 0
  int density = 16;    ///< share of levels that are not 0, as log-odds (density - 16) / 2; 0 to 31

  static constexpr int kLowestScale = -12, kHighestScale = 68;

  /// The probability, in 1 / 65536, that a level is not 0.
  uint32_t significance() const;
  /// The class (number of bits) that the median magnitude has.
  int median_class() const;
  /// The probability, in 1 / 65536, that a magnitude in [low, high) is in [middle, high). high = 0: no upper end.
  /// 1 <= low < middle < high, all below 2^20.
  uint32_t split(uint32_t low, uint32_t middle, uint32_t high) const;
};

/// The prior under which the levels have least cost; not given where all are 0.
LevelPrior fit_prior(std::span<const int32_t> levels);

}  // namespace nibble::codec
