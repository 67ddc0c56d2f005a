// Logistic mixing of several predictions of one decision (Mahoney, "Adaptive weighing of context models for lossless
// data compression", Florida Tech TR CS-2005-16), in fixed point: log-odds in 1 / 256, weights in 1 / 65536.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nibble::codec {

/// ln(p / (1 - p)) in 1 / 256, for a probability in 1 / 65536; between -2839 and 2839.
int32_t stretch(uint32_t probability);
/// The way back, for any argument: between 1 and 65535.
uint32_t squash(int32_t log_odds);

/// Weighs kInputs predictions, all of them log-odds.
template <size_t kInputs>
class Mixer {
 public:
  /// Every prediction starts with a weight of kTogether / kInputs: predictions that know little are near 0 and weigh
  /// little, so those that know something should together weigh more than 1.
  Mixer() { std::fill_n(weights_, kInputs, kTogether / static_cast<int32_t>(kInputs)); }

  /// The probability of a 1.
  uint32_t mix(const int32_t (&inputs)[kInputs]) const {
    int64_t sum = 0;
    for (size_t i = 0; i < kInputs; ++i) sum += int64_t{weights_[i]} * inputs[i];
    return squash(static_cast<int32_t>(std::clamp<int64_t>(sum >> 16, -4096, 4096)));
  }

  /// One step down the gradient of the coding cost, `mixed` being what mix() gave. Steps halve after 2^9 decisions and
  /// again after 2^12.
  void update(const int32_t (&inputs)[kInputs], bool value, uint32_t mixed) {
    const int rate = decisions_ < (1u << 9) ? 14 : decisions_ < (1u << 12) ? 15 : 16;
    if (decisions_ < (1u << 12)) ++decisions_;
    const int32_t error = (value ? 65536 : 0) - static_cast<int32_t>(mixed);
    for (size_t i = 0; i < kInputs; ++i) {
      const int64_t weight = weights_[i] + ((int64_t{inputs[i]} * error) >> rate);
      weights_[i] = static_cast<int32_t>(std::clamp<int64_t>(weight, -kMostWeight, kMostWeight));
    }
  }

 private:
  static constexpr int32_t kTogether = 65536 * 4 / 3;
  static constexpr int32_t kMostWeight = 65536 * 64;
  int32_t weights_[kInputs];
  uint32_t decisions_ = 0;
};

}  // namespace nibble::codec
