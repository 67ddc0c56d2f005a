// What decisions cost, from tables: for encoders that try things out.
#include <bit>

#include "core/codec/range_coder.hpp"

namespace nibble::codec {

namespace {

/// log2 of a whole number in 1 / 65536, by squaring: bit after bit of the fraction.
uint32_t log2_fixed(uint32_t x) {
  int whole = 31;
  while (!(x >> whole & 1)) --whole;
  uint64_t mantissa = static_cast<uint64_t>(x) << (31 - whole);  // in [2^31, 2^32)
  uint32_t result = static_cast<uint32_t>(whole);
  for (int i = 0; i < 16; ++i) {
    mantissa = mantissa * mantissa >> 31;
    result = result << 1 | static_cast<uint32_t>(mantissa >> 32);
    if (mantissa >> 32) mantissa >>= 1;
  }
  return result;
}

/// In steps of 16, and in steps of 1 at both ends, where a step is much.
struct Costs {
  uint32_t of[4096], of_unlikely[4096], of_likely[4096];
  Costs() {
    for (uint32_t i = 0; i < 4096; ++i) {
      of[i] = (16u << 16) - log2_fixed(16 * i + 8);
      of_unlikely[i] = (16u << 16) - log2_fixed(i ? i : 1);
      of_likely[i] = (16u << 16) - log2_fixed(65536 - 4096 + i);
    }
  }
};
const Costs kCosts;

}  // namespace

uint32_t cost_of(uint32_t probability) {
  if (probability < 4096) return kCosts.of_unlikely[probability];
  return probability >= 65536 - 4096 ? kCosts.of_likely[probability - (65536 - 4096)] : kCosts.of[probability >> 4];
}

uint32_t cost_of_one_in(uint32_t total) { return log2_fixed(total); }

uint64_t RangeEncoder::spent() const {
  // The interval's size before anything was written is 2^64. Its 32 highest bits are enough for the logarithm.
  const int above = std::countl_zero(range_);
  const uint64_t left = (uint64_t{32} << 16) + log2_fixed(static_cast<uint32_t>(range_ << above >> 32)) -
                        (static_cast<uint64_t>(above) << 16);
  return (uint64_t{8 * (out_.size() - start_)} << 16) + (uint64_t{64} << 16) - left;
}

}  // namespace nibble::codec
