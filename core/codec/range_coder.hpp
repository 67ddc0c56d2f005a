// Binary arithmetic coding with 16-bit probabilities, in integers only: the same bytes on every machine.
//
// Three classes with the same two functions, so that one body of a model serves all: RangeEncoder writes what it is
// given, RangeDecoder returns what was written, BitCounter says what writing would cost.
//
// The interval is [low, low + range) of 64 bits (Martin, "Range encoding", 1979). After every decision range is at
// least 2^32, so range >> 16 has 16 bits and more and the rounding of the split costs less than 2^-16 of a bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nibble::codec {

/// Probabilities are those of a 1, in 1 / 65536, from 1 to 65535.
inline constexpr uint32_t kEven = 32768;

class RangeEncoder {
 public:
  static constexpr bool kDecodes = false;

  /// Appends to `out`.
  explicit RangeEncoder(std::vector<uint8_t>& out) : out_(out), start_(out.size()) {}

  bool bit(bool value, uint32_t probability) {
    const uint64_t bound = (range_ >> 16) * probability;
    if (value) {
      range_ = bound;
    } else {
      add(bound);
      range_ -= bound;
    }
    if (range_ < kLeast) shift();
    return value;
  }

  /// `count` (at most 16) equiprobable bits.
  uint32_t bits(uint32_t value, int count) {
    range_ >>= count;
    add(range_ * value);
    if (range_ < kLeast) shift();
    return value;
  }

  /// One of `total` equiprobable values; total is at most 2^18.
  uint32_t uniform(uint32_t value, uint32_t total) {
    range_ /= total;
    add(range_ * value);
    if (range_ < kLeast) shift();
    return value;
  }

  /// What has been written so far, in 1 / 65536 bit: what is still in the interval counts.
  uint64_t spent() const;

  /// Writes what remains, in as few bytes as tell the interval apart: a decoder takes the bytes after the end for 0.
  void finish();

 private:
  static constexpr uint64_t kLeast = uint64_t{1} << 32;

  void add(uint64_t amount) {
    low_ += amount;
    if (low_ < amount) carry();
  }
  void carry();
  void shift();

  std::vector<uint8_t>& out_;
  size_t start_;
  uint64_t low_ = 0, range_ = ~uint64_t{0};
};

class RangeDecoder {
 public:
  static constexpr bool kDecodes = true;

  explicit RangeDecoder(std::span<const uint8_t> bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {
    code_ = static_cast<uint64_t>(next()) << 32;
    code_ |= next();
  }

  bool bit(bool, uint32_t probability) {
    const uint64_t bound = (range_ >> 16) * probability;
    const bool value = code_ < bound;
    if (value) {
      range_ = bound;
    } else {
      code_ -= bound;
      range_ -= bound;
    }
    if (range_ < kLeast) shift();
    return value;
  }

  uint32_t bits(uint32_t, int count) {
    range_ >>= count;
    return which(uint32_t{1} << count);
  }

  uint32_t uniform(uint32_t, uint32_t total) {
    range_ /= total;
    return which(total);
  }

 private:
  static constexpr uint64_t kLeast = uint64_t{1} << 32;

  uint32_t which(uint32_t total) {
    uint64_t value = code_ / range_;
    if (value >= total) value = total - 1;  // only in a damaged stream
    code_ -= value * range_;
    if (range_ < kLeast) shift();
    return static_cast<uint32_t>(value);
  }

  void shift() {
    code_ = code_ << 32 | next();
    range_ <<= 32;
  }
  uint32_t next() {
    if (end_ - at_ >= 4) {
      const uint32_t word =
          static_cast<uint32_t>(at_[0]) << 24 | static_cast<uint32_t>(at_[1]) << 16 | at_[2] << 8 | at_[3];
      at_ += 4;
      return word;
    }
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      word <<= 8;
      if (at_ != end_) word |= *at_++;
    }
    return word;
  }

  const uint8_t* at_;
  const uint8_t* end_;
  uint64_t code_ = 0, range_ = ~uint64_t{0};
};

/// Cost of a decision of this probability (1 to 65535) in 1 / 65536 bit, -log2(p / 65536), within 0.2 % of a bit.
uint32_t cost_of(uint32_t probability);
/// log2(total) in 1 / 65536 bit.
uint32_t cost_of_one_in(uint32_t total);

class BitCounter {
 public:
  static constexpr bool kDecodes = false;

  bool bit(bool value, uint32_t probability) {
    cost_ += cost_of(value ? probability : 65536 - probability);
    return value;
  }
  uint32_t bits(uint32_t value, int count) {
    cost_ += static_cast<uint64_t>(count) << 16;
    return value;
  }
  uint32_t uniform(uint32_t value, uint32_t total) {
    cost_ += cost_of_one_in(total);
    return value;
  }
  /// In 1 / 65536 bit.
  uint64_t cost() const { return cost_; }

 private:
  uint64_t cost_ = 0;
};

namespace detail {
/// 1 / (n + 1.8) in 1 / 2^24: after n decisions, n1 of them 1, the probability is (n1 + 0.4) / (n + 0.8). Made when the
/// program starts (see mixer.cpp).
struct EstimatorSteps {
  uint32_t of[1024];
  EstimatorSteps() {
    for (uint32_t n = 0; n < 1024; ++n) of[n] = ((10u << 24) + (10 * n + 18) / 2) / (10 * n + 18);
  }
};
extern const EstimatorSteps kEstimatorSteps;
}  // namespace detail

/// An adaptive probability: the frequency of 1 among what was seen, by a counter whose steps become smaller with every
/// decision, down to a floor that lets it follow a source that changes (the estimate of Krichevsky and Trofimov 1981
/// with 0.4 in place of 1/2, then exponential decay). In four bytes, because mixing takes thousands of them: 22 bits of
/// probability, 10 bits of count.
class Estimator {
 public:
  uint32_t probability() const { return state_ >> 16 | 1; }
  /// `limit`: after so many decisions steps shrink no more; at most 1023.
  void update(bool value, uint32_t limit) {
    const uint32_t seen = count();
    const uint64_t p = state_ >> 10;
    const uint64_t step = detail::kEstimatorSteps.of[seen];
    const uint64_t next = value ? p + (((kOne - p) * step) >> 24) : p - ((p * step) >> 24);
    state_ = static_cast<uint32_t>(next << 10) | (seen < limit ? seen + 1 : seen);
  }
  /// Decisions seen so far, up to the limit.
  uint32_t count() const { return state_ & 1023; }
  /// As if `count` decisions had been seen.
  void set(uint32_t probability, uint32_t count) { state_ = probability << 16 | count; }

 private:
  static constexpr uint64_t kOne = (1u << 22) - 1;
  uint32_t state_ = 1u << 31;
};

/// The same with finer steps, for tensors so large that an estimate gets better over thousands of decisions.
class FineEstimator {
 public:
  static constexpr uint32_t kMostLimit = 8191;

  uint32_t probability() const { return probability_ >> 16 | 1; }
  /// `limit` is at most kMostLimit.
  void update(bool value, uint32_t limit) {
    const uint64_t step =
        count_ < 1024 ? detail::kEstimatorSteps.of[count_] : detail::kEstimatorSteps.of[count_ >> 3] >> 3;
    const uint64_t p = probability_;
    probability_ = static_cast<uint32_t>(value ? p + (((kOne - p) * step) >> 24) : p - ((p * step) >> 24));
    count_ += count_ < limit;
  }
  void set(uint32_t probability, uint32_t count) {
    probability_ = probability << 16;
    count_ = count;
  }

 private:
  static constexpr uint64_t kOne = ~uint32_t{0};
  uint32_t probability_ = 1u << 31, count_ = 0;
};

}  // namespace nibble::codec
