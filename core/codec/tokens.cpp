#include "core/codec/tokens.hpp"

#include <algorithm>

namespace nibble::codec {

namespace {

// The wide alphabet: levels up to kSmall by themselves, then for each sign and class eight symbols.
constexpr int32_t kSmall = 15;
constexpr uint32_t kDirectSymbols = 2 * kSmall + 1;
constexpr int kFirstClass = 5, kTopBits = 3;
static_assert(kDirectSymbols + 2 * (kMostClass - kFirstClass + 1) * (1u << kTopBits) <= 256);

}  // namespace

Alphabet Alphabet::of(std::span<const int32_t> levels) {
  if (levels.empty()) return {true, 0, 1};
  const auto [lowest, highest] = std::minmax_element(levels.begin(), levels.end());
  const int64_t count = int64_t{*highest} - *lowest + 1;
  if (count > 256) return {false, 0, 256};
  return {true, *lowest, static_cast<uint32_t>(count)};
}

uint8_t Alphabet::symbol(int32_t level) const {
  if (direct) return static_cast<uint8_t>(level - lowest);
  const uint32_t magnitude = magnitude_of(level);
  if (magnitude <= kSmall) return static_cast<uint8_t>(level + kSmall);
  const int k = std::bit_width(magnitude);
  const uint32_t top = magnitude >> (k - 1 - kTopBits) & ((1u << kTopBits) - 1);
  const auto group = static_cast<uint32_t>(2 * (k - kFirstClass) + (level < 0));
  return static_cast<uint8_t>(kDirectSymbols + (group << kTopBits) + top);
}

int Alphabet::extra_bits(uint8_t symbol) const {
  if (direct || symbol < kDirectSymbols) return 0;
  const int k = kFirstClass + static_cast<int>((symbol - kDirectSymbols) >> (kTopBits + 1));
  return std::min(k, kMostClass) - 1 - kTopBits;
}

uint32_t Alphabet::extra(int32_t level) const {
  const uint32_t magnitude = magnitude_of(level);
  if (direct || magnitude <= kSmall) return 0;
  return magnitude & ((1u << (std::bit_width(magnitude) - 1 - kTopBits)) - 1);
}

int32_t Alphabet::level(uint8_t symbol, uint32_t extra) const {
  if (direct) return lowest + symbol;
  if (symbol < kDirectSymbols) return static_cast<int32_t>(symbol) - kSmall;
  const uint32_t place = symbol - kDirectSymbols;
  const uint32_t top = place & ((1u << kTopBits) - 1);
  const auto magnitude = static_cast<int32_t>(((1u << kTopBits) | top) << extra_bits(symbol) | extra);
  return place >> kTopBits & 1 ? -magnitude : magnitude;
}

void put_varint(std::vector<uint8_t>& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value));
}

bool take_varint(std::span<const uint8_t>& bytes, uint64_t& value) {
  value = 0;
  for (size_t i = 0; i < bytes.size() && i < 9; ++i) {
    value |= uint64_t{bytes[i] & 127u} << (7 * i);
    if (bytes[i] < 128) {
      bytes = bytes.subspan(i + 1);
      return true;
    }
  }
  return false;
}

}  // namespace nibble::codec
