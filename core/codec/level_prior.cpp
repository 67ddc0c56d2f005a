#include "core/codec/level_prior.hpp"

#include <algorithm>
#include <bit>
#include <vector>

#include "core/codec/mixer.hpp"
#include "core/codec/range_coder.hpp"

namespace nibble::codec {

namespace {

/// -log2 of the share of magnitudes above x, in 1 / 1024 bit, for x in steps of an eighth of the mean magnitude:
/// Q(1 / b, (x / a)^b) with a = gamma(1 / b) / gamma(2 / b) for the exponents b = 2, 1.4, 1 and 0.7. Made by
/// tests/golden/make_tails.py.
constexpr int kTailSteps = 64;
constexpr uint16_t kTails[4][kTailSteps + 1] = {
    {0,     122,   254,   396,   548,   711,   884,   1069,  1264,  1471,  1690,  1920,  2162,
     2417,  2683,  2962,  3254,  3558,  3874,  4204,  4546,  4902,  5271,  5652,  6047,  6456,
     6877,  7313,  7761,  8223,  8699,  9189,  9692,  10209, 10740, 11284, 11843, 12415, 13001,
     13601, 14215, 14843, 15486, 16142, 16812, 17496, 18195, 18908, 19634, 20375, 21131, 21900,
     22684, 23482, 24294, 25120, 25961, 26816, 27685, 28569, 29467, 30379, 31306, 32247, 33202},
    {0,     146,   300,   462,   630,   805,   986,   1172,  1364,  1561,  1763,  1969,  2181,
     2396,  2617,  2841,  3070,  3302,  3539,  3779,  4023,  4271,  4522,  4777,  5036,  5298,
     5563,  5831,  6103,  6378,  6656,  6937,  7221,  7508,  7798,  8091,  8387,  8685,  8987,
     9291,  9598,  9907,  10220, 10534, 10852, 11172, 11494, 11819, 12147, 12477, 12809, 13144,
     13481, 13821, 14162, 14507, 14853, 15202, 15553, 15906, 16261, 16619, 16978, 17340, 17704},
    {0,    185,  369,  554,  739,   923,   1108,  1293,  1477,  1662,  1847,  2031,  2216,  2401, 2585, 2770, 2955,
     3139, 3324, 3509, 3693, 3878,  4063,  4247,  4432,  4617,  4801,  4986,  5171,  5355,  5540, 5725, 5909, 6094,
     6279, 6463, 6648, 6833, 7017,  7202,  7387,  7571,  7756,  7941,  8125,  8310,  8495,  8679, 8864, 9049, 9233,
     9418, 9603, 9787, 9972, 10157, 10341, 10526, 10711, 10895, 11080, 11265, 11449, 11634, 11819},
    {0,    254,  480,  691,  891,  1083, 1268, 1448, 1622, 1793, 1960, 2123, 2283, 2440, 2595, 2747, 2897,
     3045, 3191, 3336, 3478, 3619, 3758, 3896, 4032, 4167, 4301, 4433, 4564, 4695, 4824, 4952, 5079, 5205,
     5330, 5454, 5577, 5699, 5821, 5942, 6062, 6181, 6299, 6417, 6534, 6651, 6766, 6882, 6996, 7110, 7223,
     7336, 7448, 7559, 7670, 7781, 7891, 8000, 8109, 8218, 8326, 8433, 8540, 8647, 8753},
};

/// 2^(-i / count) in 1 / 2^31 for i from 0 to count - 1, from 2^(-1 / count).
template <uint32_t kCount>
struct Powers {
  uint64_t of[kCount];
  explicit Powers(uint64_t step) {
    uint64_t power = uint64_t{1} << 31;
    for (uint64_t& entry : of) {
      entry = power;
      power = (power * step + (uint64_t{1} << 31)) >> 32;
    }
  }
};
const Powers<4> kQuarters(3611622603);  // 2^32 2^(-1 / 4)
const Powers<32> kCoarse(4202935003);   // 2^32 2^(-1 / 32)
const Powers<32> kFine(4292061010);     // 2^32 2^(-1 / 1024)

/// 2^(-bits / 1024) in 1 / 2^31.
uint64_t power_of_half(uint32_t bits) {
  const uint32_t whole = bits >> 10;
  if (whole > 31) return 0;
  const uint64_t fraction = (kCoarse.of[bits >> 5 & 31] * kFine.of[bits & 31]) >> 31;
  return fraction >> whole;
}

/// kTails at any x, in 1 / 4096 of the mean magnitude; on a straight line beyond the table.
uint32_t tail(int shape, uint64_t x) {
  constexpr uint32_t kMostBits = 40 << 10;
  const uint16_t* const table = kTails[shape];
  const uint64_t step = std::min<uint64_t>(x >> 9, kTailSteps - 1);
  const uint64_t slope = static_cast<uint64_t>(table[step + 1] - table[step]);
  return static_cast<uint32_t>(std::min<uint64_t>(table[step] + (slope * (x - (step << 9)) >> 9), kMostBits));
}

/// -log2 of the share of magnitudes that round to `magnitude` or more.
uint32_t tail_from(const LevelPrior& prior, uint32_t magnitude) {
  // (m - 1/2) / 2^(scale / 4), the quarters by a table and the rest by a shift.
  const uint64_t edge = uint64_t{2 * std::max(magnitude, prior.least) - 1} << 11;
  const uint64_t scaled = (edge * kQuarters.of[prior.scale & 3]) >> 23;  // times 2^8
  const int shift = 8 + (prior.scale >> 2);
  return tail(prior.shape, scaled >> shift);
}

}  // namespace

uint32_t LevelPrior::split(uint32_t low, uint32_t middle, uint32_t high) const {
  const uint32_t from = tail_from(*this, low);
  const uint64_t upper = power_of_half(tail_from(*this, middle) - from);
  const uint64_t beyond = high ? power_of_half(tail_from(*this, high) - from) : 0;
  const uint64_t all = (uint64_t{1} << 31) - beyond;
  if (all < 4096) return kEven;      // so far out that the distribution says nothing
  constexpr uint64_t kCertain = 48;  // nobody should believe a guess more than that
  const uint64_t share = ((upper - std::min(upper, beyond)) << 16) / all;
  return static_cast<uint32_t>(std::clamp(share, kCertain, 65536 - kCertain));
}

uint32_t LevelPrior::significance() const { return squash((density - 16) * 128); }

int LevelPrior::median_class() const {
  int k = 1;
  while (k < 17 && split(1, 1u << k, 0) > kEven) ++k;
  return k;
}

LevelPrior fit_prior(std::span<const int32_t> levels) {
  uint32_t largest = 0;
  for (const int32_t level : levels) largest = std::max(largest, static_cast<uint32_t>(level < 0 ? -level : level));
  LevelPrior best;
  if (largest == 0) return best;
  std::vector<uint32_t> all(size_t{largest} + 1, 0);
  for (const int32_t level : levels) ++all[static_cast<uint32_t>(level < 0 ? -level : level)];
  std::vector<std::pair<uint32_t, uint64_t>> counts;  // of the magnitudes that there are
  uint64_t total = 0, nonzero = 0;
  for (uint32_t magnitude = 1; magnitude <= largest; ++magnitude) {
    if (all[magnitude] == 0) continue;
    counts.emplace_back(magnitude, all[magnitude]);
    nonzero += all[magnitude];
    total += uint64_t{magnitude} * all[magnitude];
  }
  best.given = true;
  best.least = counts[0].first;
  const uint64_t share = std::clamp<uint64_t>((nonzero << 16) / levels.size(), 1, 65535);
  best.density = std::clamp((stretch(static_cast<uint32_t>(share)) + 64 + 16 * 128) / 128, 0, 31);
  // The mean in quarters of an octave, roughly; the mean of what pruning cut from is lower.
  const int mean = 4 * (std::bit_width(total / nonzero) - 1) + 2;
  uint64_t least_cost = ~uint64_t{0};
  LevelPrior prior = best;
  for (prior.shape = 0; prior.shape < 4; ++prior.shape) {
    for (int scale = mean - 16; scale <= mean + 4; ++scale) {
      prior.scale = std::clamp(scale, LevelPrior::kLowestScale, LevelPrior::kHighestScale);
      uint64_t cost = 0;
      for (const auto& [magnitude, count] : counts) {
        const uint32_t from = tail_from(prior, prior.least);
        const uint64_t mass =
            power_of_half(tail_from(prior, magnitude) - from) - power_of_half(tail_from(prior, magnitude + 1) - from);
        cost += count * cost_of(static_cast<uint32_t>(std::clamp<uint64_t>(mass >> 15, 1, 65535)));
      }
      if (cost < least_cost) {
        least_cost = cost;
        best = prior;
      }
    }
  }
  return best;
}

}  // namespace nibble::codec
