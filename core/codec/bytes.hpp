// Bytes of any kind: a graph's names and attributes, tables of whole numbers, doubles. Each bit is predicted from the
// bytes before it, by contexts of several lengths and by the last place where they stood before, and the predictions
// are mixed (after Mahoney's lpaq). For headers it can be taught a text beforehand, so that what all ONNX files have in
// common costs next to nothing.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/codec/mixer.hpp"
#include "core/codec/range_coder.hpp"

namespace nibble::codec {

class ByteModel {
 public:
  /// `size`: about how many bytes will come. `stride`: bytes of one number (1 for text), whose byte before is a
  /// context.
  ByteModel(size_t size, size_t stride)
      : stride_(stride),
        table_bits_(std::clamp(static_cast<int>(std::bit_width(size)) + 4, 12, 20)),
        table_(kContexts << table_bits_),
        last_seen_(size_t{1} << kMatchBits, 0) {
    choose_contexts();
  }

  /// Learns from `text` as if it had been coded.
  void learn(std::string_view text) {
    struct Nobody {
      bool bit(bool value, uint32_t) { return value; }
    } nobody;
    for (const char c : text) code(nobody, static_cast<uint8_t>(c));
  }

  template <class Coder>
  void code(Coder& coder, std::span<uint8_t> bytes) {
    for (uint8_t& byte : bytes) byte = code(coder, byte);
  }

  template <class Coder>
  uint8_t code(Coder& coder, uint8_t byte) {
    uint32_t prefix = 1;
    for (int bit = 7; bit >= 0; --bit)
      prefix = prefix << 1 | static_cast<uint32_t>(decide(coder, prefix, byte >> bit & 1));
    seen_.push_back(static_cast<uint8_t>(prefix));
    find_match();
    choose_contexts();
    return seen_.back();
  }

 private:
  static constexpr size_t kContexts = 5;
  static constexpr size_t kMatch = kContexts, kInputs = kContexts + 1;
  static constexpr int kMatchBits = 14, kMostMatch = 32;
  static constexpr size_t kLeastMatch = 4;
  static constexpr uint32_t kLimit = 255;

  uint8_t before(size_t distance) const { return distance <= seen_.size() ? seen_[seen_.size() - distance] : 0; }

  static uint32_t hash(uint32_t a, uint32_t b) { return (a * 0x2F0B4C47u + b + 1) * 0x9E3779B1u; }

  void choose_contexts() {
    // The last one, two, three and six bytes.
    uint32_t order = 0;
    for (size_t i = 1; i <= 6; ++i) {
      order = hash(order, before(i));
      if (i <= 3) contexts_[i - 1] = order;
    }
    contexts_[3] = order;
    if (stride_ > 1) {
      contexts_[4] = hash(static_cast<uint32_t>(seen_.size() % stride_), before(stride_));
    } else {
      // The word so far: letters and digits.
      uint32_t word = 0;
      for (size_t i = 1; i <= 16; ++i) {
        const uint8_t c = before(i);
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter) break;
        word = hash(word, c);
      }
      contexts_[4] = word;
    }
    foretold_ = match_ ? 256u | seen_[match_] : 0;
  }

  template <class Coder>
  bool decide(Coder& coder, uint32_t prefix, bool value) {
    int32_t inputs[kInputs];
    Estimator* estimators[kContexts];
    for (size_t i = 0; i < kContexts; ++i) {
      const uint32_t slot = hash(contexts_[i] + static_cast<uint32_t>(i), prefix) >> (32 - table_bits_);
      estimators[i] = &table_[(i << table_bits_) + slot];
      // An estimator that has seen little says little.
      const auto seen = static_cast<int32_t>(estimators[i]->count());
      inputs[i] = stretch(estimators[i]->probability()) * (seen < 3 ? 1 + seen : 4) / 4;
    }
    // What the match says, as long as it has been right about this byte.
    const int width = std::bit_width(prefix);
    const bool follows = foretold_ && foretold_ >> (9 - width) == prefix;
    const bool expected = foretold_ >> (8 - width) & 1;
    Estimator& reliance = reliance_[follows ? length_ : 0];
    const int32_t certainty = stretch(reliance.probability());
    inputs[kMatch] = !follows ? 0 : expected ? certainty : -certainty;
    Mixer<kInputs>& mixer = mixers_[follows ? 1 + (length_ > 15) : 0];
    const uint32_t probability = mixer.mix(inputs);
    const bool coded = coder.bit(value, probability);
    mixer.update(inputs, coded, probability);
    for (Estimator* estimator : estimators) estimator->update(coded, kLimit);
    if (follows) reliance.update(coded == expected, kLimit);
    return coded;
  }

  void find_match() {
    const size_t count = seen_.size();
    if (match_ && seen_[match_] == seen_[count - 1]) {
      ++match_;
      length_ = std::min(length_ + 1, kMostMatch);
    } else {
      match_ = 0;
      length_ = 0;
    }
    if (count < kLeastMatch) return;
    uint32_t key = 0;
    for (size_t i = 1; i <= kLeastMatch; ++i) key = hash(key, seen_[count - i]);
    uint32_t& last = last_seen_[key >> (32 - kMatchBits)];
    if (!match_ && last) {
      int length = 0;
      while (length < kMostMatch && static_cast<size_t>(length) < last &&
             seen_[last - 1 - static_cast<size_t>(length)] == seen_[count - 1 - static_cast<size_t>(length)])
        ++length;
      if (length >= static_cast<int>(kLeastMatch)) {
        match_ = last;
        length_ = length;
      }
    }
    last = static_cast<uint32_t>(count);
  }

  size_t stride_;
  int table_bits_;
  std::vector<Estimator> table_;  // [context, slot]
  uint32_t contexts_[kContexts] = {};
  std::vector<uint8_t> seen_;
  std::vector<uint32_t> last_seen_;
  size_t match_ = 0;
  int length_ = 0;
  uint32_t foretold_ = 0;  // the byte after the match with a leading one, or 0
  Estimator reliance_[kMostMatch + 1];
  Mixer<kInputs> mixers_[3];
};

}  // namespace nibble::codec
