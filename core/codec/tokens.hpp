// Levels as bytes: the symbols of the coders that have a table of frequencies. A tensor with up to 256 different levels
// in a row has one symbol for each; wider ones have a symbol for a sign, a number of bits and the three highest of
// them, and the bits below those as they are.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "core/codec/level_models.hpp"

namespace nibble::codec {

struct Alphabet {
  bool direct = true;
  int32_t lowest = 0;    ///< direct: the level of symbol 0
  uint32_t symbols = 0;  ///< direct: how many there are, at most 256

  /// The smallest one for these levels.
  static Alphabet of(std::span<const int32_t> levels);

  uint8_t symbol(int32_t level) const;
  /// Bits that follow a symbol, and what they are for a level.
  int extra_bits(uint8_t symbol) const;
  uint32_t extra(int32_t level) const;
  int32_t level(uint8_t symbol, uint32_t extra) const;
};

/// Bits, lowest first within a byte.
class BitWriter {
 public:
  void put(uint32_t value, int count) {
    word_ |= uint64_t{value} << filled_;
    filled_ += count;
    while (filled_ >= 8) {
      bytes_.push_back(static_cast<uint8_t>(word_));
      word_ >>= 8;
      filled_ -= 8;
    }
  }
  /// Everything so far, the last byte filled up with 0.
  std::vector<uint8_t> take() {
    if (filled_) bytes_.push_back(static_cast<uint8_t>(word_));
    word_ = 0;
    filled_ = 0;
    return std::move(bytes_);
  }
  size_t bits() const { return bytes_.size() * 8 + static_cast<size_t>(filled_); }

 private:
  std::vector<uint8_t> bytes_;
  uint64_t word_ = 0;
  int filled_ = 0;
};

class BitReader {
 public:
  explicit BitReader(std::span<const uint8_t> bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}
  /// The next `count` (at most 24) bits without taking them; 0 after the end.
  uint32_t peek(int count) {
    while (filled_ < count) {
      word_ |= uint64_t{at_ != end_ ? *at_++ : uint8_t{0}} << filled_;
      filled_ += 8;
    }
    return static_cast<uint32_t>(word_ & ((uint64_t{1} << count) - 1));
  }
  void skip(int count) {
    word_ >>= count;
    filled_ -= count;
  }
  uint32_t take(int count) {
    const uint32_t value = peek(count);
    skip(count);
    return value;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
  uint64_t word_ = 0;
  int filled_ = 0;
};

/// A whole number of up to 64 bits in bytes of seven, lowest first.
void put_varint(std::vector<uint8_t>& out, uint64_t value);
/// Takes one from the start of `bytes`. False where they end before it does, or it is too long.
bool take_varint(std::span<const uint8_t>& bytes, uint64_t& value);

/// Small numbers that stand beside each other, such as code lengths: each is coded by what the one before was. One body
/// for both directions; numbers are below 16.
template <class Coder>
class NumberModel {
 public:
  explicit NumberModel(Coder& coder) : coder_(coder) {}
  uint32_t code(uint32_t number) {
    uint32_t prefix = 1;
    for (int bit = 3; bit >= 0; --bit) {
      Estimator& estimator = tree_[last_][prefix];
      const bool coded = coder_.bit(number >> bit & 1, estimator.probability());
      estimator.update(coded, 255);
      prefix = prefix << 1 | static_cast<uint32_t>(coded);
    }
    last_ = prefix & 15;
    return last_;
  }

 private:
  Coder& coder_;
  uint32_t last_ = 0;
  Estimator tree_[16][16];
};

/// The alphabet at the start of a stream.
template <class Coder>
Alphabet code_alphabet(Coder& coder, Alphabet alphabet) {
  alphabet.direct = coder.bits(alphabet.direct, 1) != 0;
  if (!alphabet.direct) {
    alphabet.symbols = 256;
    return alphabet;
  }
  const auto shifted = static_cast<uint32_t>(alphabet.lowest + kMostLevel);  // 18 bits
  const uint32_t high = coder.bits(shifted >> 9, 9), low = coder.bits(shifted & 511, 9);
  alphabet.lowest = static_cast<int32_t>(high << 9 | low) - kMostLevel;
  alphabet.symbols = coder.bits(alphabet.symbols - 1, 8) + 1;
  return alphabet;
}

}  // namespace nibble::codec
