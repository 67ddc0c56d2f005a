// Floating-point numbers without loss: sign, exponent and the first bits of the mantissa by adaptive probabilities, the
// other bits as they are. Zeros, of which a pruned tensor has many, are one decision each, by what stands beside and
// above.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "core/codec/range_coder.hpp"

namespace nibble::codec {

/// Fields of a type, in bits; the sign is the highest bit.
struct FloatFormat {
  int exponent = 8, mantissa = 23;
};
inline constexpr FloatFormat kFloat32{8, 23}, kFloat16{5, 10}, kBFloat16{8, 7};

/// One model may code several tensors of one format; what it has learned stays.
class FloatModel {
 public:
  explicit FloatModel(FloatFormat format) : format_(format), exponents_(size_t{1} << format.exponent) {}

  /// Bit patterns, seen in rows of `columns`; decoding writes them.
  template <class Coder>
  void code(Coder& coder, std::span<uint32_t> values, size_t columns) {
    columns = std::min(columns, values.size());
    int unused = 0;  // low mantissa bits that are 0 in all values
    bool zeros = false;
    if constexpr (!Coder::kDecodes) {
      uint32_t all = 0;
      for (const uint32_t value : values) {
        all |= value;
        zeros = zeros || value == 0;
      }
      unused = std::min(std::countr_zero(all), format_.mantissa);
    }
    unused = std::min(static_cast<int>(coder.bits(static_cast<uint32_t>(unused), 5)), format_.mantissa);
    zeros = coder.bits(zeros, 1) != 0;
    std::vector<uint8_t> above(zeros ? columns + 3 : 0, 0), here(above);
    size_t column = 0;
    for (uint32_t& value : values) {
      if (!zeros) {
        value = code_value(coder, value, unused);
        continue;
      }
      // Columns from 2 on; 1 where there is a number.
      const size_t context = here[column + 1] + here[column] + 3 * above[column + 2];
      const bool some = decide(coder, some_[context], value != 0);
      value = some ? code_value(coder, value, unused) : 0;
      here[column + 2] = some;
      if (++column == columns) {
        above.swap(here);
        column = 0;
      }
    }
  }

 private:
  template <class Coder>
  bool decide(Coder& coder, FineEstimator& estimator, bool value) {
    const bool coded = coder.bit(value, estimator.probability());
    estimator.update(coded, 1023);
    return coded;
  }

  template <class Coder>
  uint32_t code_value(Coder& coder, uint32_t value, int unused) {
    const bool negative = decide(coder, sign_, value >> (format_.exponent + format_.mantissa) & 1);
    const uint32_t exponent = value >> format_.mantissa & ((1u << format_.exponent) - 1);
    uint32_t prefix = 1;
    for (int bit = format_.exponent - 1; bit >= 0; --bit)
      prefix = prefix << 1 | static_cast<uint32_t>(decide(coder, exponents_[prefix], exponent >> bit & 1));
    const uint32_t coded_exponent = prefix - (1u << format_.exponent);
    int left = format_.mantissa - unused;
    uint32_t mantissa = value >> unused & ((1u << left) - 1), coded = 0;
    const int modelled = std::min(left, kModelled);
    prefix = 1;
    for (int i = 0; i < modelled; ++i) {
      --left;
      const bool bit = decide(coder, tops_[coded_exponent & 15][prefix], mantissa >> left & 1);
      prefix = prefix << 1 | static_cast<uint32_t>(bit);
      coded = coded << 1 | static_cast<uint32_t>(bit);
    }
    while (left > 0) {
      const int count = std::min(left, 16);
      left -= count;
      coded = coded << count | coder.bits(mantissa >> left & ((1u << count) - 1), count);
    }
    return (static_cast<uint32_t>(negative) << format_.exponent | coded_exponent) << format_.mantissa | coded << unused;
  }

  static constexpr int kModelled = 2;
  FloatFormat format_;
  FineEstimator some_[6], sign_, tops_[16][1 << kModelled];
  std::vector<FineEstimator> exponents_;
};

}  // namespace nibble::codec
