#include "core/codec/level_pricer.hpp"

namespace nibble::codec {

LevelPricer::LevelPricer(const LevelChoice& choice, const Widths& widths) {
  const size_t columns = widths.of[choice.width];
  if (choice.model == LevelChoice::Model::Mixed) {
    mixed_ = std::make_unique<MixedModel<BitCounter>>(nobody_, choice, columns);
  } else {
    direct_ = std::make_unique<DirectModel<BitCounter>>(nobody_, choice, columns);
  }
}

LevelPricer::~LevelPricer() = default;

uint64_t LevelPricer::price(int32_t level) { return mixed_ ? mixed_->price(level) : direct_->price(level); }

void LevelPricer::take(int32_t level) {
  if (mixed_) {
    mixed_->step(level);
  } else {
    direct_->step(level);
  }
}

}  // namespace nibble::codec
