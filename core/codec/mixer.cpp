#include "core/codec/mixer.hpp"

namespace nibble::codec {

namespace {

constexpr int32_t kMost = 2839;  // squash(2839) is 65535

/// Made when the program starts, not when it is compiled: they are larger than what makes them, and a decoder that a
/// page downloads should be small.
struct Tables {
  uint16_t squashed[2 * kMost + 1];
  int16_t stretched[4096];

  Tables() {
    uint64_t power = uint64_t{1} << 32;     // e^(-i / 256) in 1 / 2^32
    constexpr uint64_t kStep = 4278222805;  // 2^32 e^(-1 / 256)
    for (int32_t i = 0; i <= kMost; ++i) {
      // 1 / (1 + e^-x) and its mirror image.
      const uint64_t denominator = (uint64_t{1} << 32) + power;
      const uint64_t p = ((uint64_t{1} << 48) + denominator / 2) / denominator;
      squashed[kMost + i] = static_cast<uint16_t>(p > 65535 ? 65535 : p);
      squashed[kMost - i] = static_cast<uint16_t>(65536 - squashed[kMost + i]);
      power = (power * kStep + (uint64_t{1} << 31)) >> 32;
    }
    // For the middle of each sixteen probabilities.
    int32_t x = -kMost;
    for (uint32_t i = 0; i < 4096; ++i) {
      while (x < kMost && squashed[kMost + x] < 16 * i + 8) ++x;
      stretched[i] = static_cast<int16_t>(x);
    }
  }
};
const Tables kTables;

}  // namespace

int32_t stretch(uint32_t probability) { return kTables.stretched[probability >> 4]; }

uint32_t squash(int32_t log_odds) { return kTables.squashed[kMost + std::clamp(log_odds, -kMost, kMost)]; }

}  // namespace nibble::codec
