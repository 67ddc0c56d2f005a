// What levels would cost in the midst of a tensor: for rounding that weighs bits against errors.
#pragma once

#include <memory>

#include "core/codec/levels.hpp"

namespace nibble::codec {

/// The model that would code a tensor, asked before each level. Levels are taken in the tensor's own order.
class LevelPricer {
 public:
  /// Runs and uniform levels are priced by the direct model, whose decisions are one level's own.
  LevelPricer(const LevelChoice& choice, const Widths& widths);
  ~LevelPricer();

  /// Cost of the next level, in 1 / 65536 bit, if it were this one.
  uint64_t price(int32_t level);
  /// The next level is this one.
  void take(int32_t level);

 private:
  BitCounter nobody_;
  std::unique_ptr<DirectModel<BitCounter>> direct_;
  std::unique_ptr<MixedModel<BitCounter>> mixed_;
};

}  // namespace nibble::codec
