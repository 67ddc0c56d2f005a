#include "core/codec/range_coder.hpp"

namespace nibble::codec {

const detail::EstimatorSteps detail::kEstimatorSteps;

void RangeEncoder::carry() {
  // The interval never reaches 1, so there is a byte that takes the carry.
  for (size_t i = out_.size(); i-- > start_;) {
    if (++out_[i] != 0) return;
  }
}

void RangeEncoder::shift() {
  for (int at = 56; at >= 32; at -= 8) out_.push_back(static_cast<uint8_t>(low_ >> at));
  low_ <<= 32;
  range_ <<= 32;
}

void RangeEncoder::finish() {
  // The value in [low, low + range) with the most trailing zeros.
  for (int kept = 0; kept <= 64; kept += 8) {
    const uint64_t rest = kept == 64 ? 0 : ~uint64_t{0} >> kept;
    const uint64_t value = (low_ + rest) & ~rest;  // may wrap to 0, which is the carry out of low
    if (value - low_ >= range_) continue;
    if (value < low_) carry();
    for (int at = 56; at >= 64 - kept; at -= 8) out_.push_back(static_cast<uint8_t>(value >> at));
    break;
  }
  while (out_.size() > start_ && out_.back() == 0) out_.pop_back();
}

}  // namespace nibble::codec
