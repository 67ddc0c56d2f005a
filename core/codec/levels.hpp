// Context-adaptive binary arithmetic coding of integer levels: choosing a model for a tensor, and running it.
#pragma once

#include <span>

#include "core/codec/level_models.hpp"

namespace nibble::codec {

/// Above this many levels the mixed model, some 3 million levels a second, takes longer than what it saves is worth.
inline constexpr size_t kMostMixed = size_t{1} << 18;

/// The row lengths that a tensor's levels can be seen in, the choice among them being the encoder's: of all inputs of
/// one output, of a kernel, of its last axis. Both sides find them from the shape alone; all are at least 1.
struct Widths {
  size_t of[3] = {1, 1, 1};
};
Widths widths_of(std::span<const size_t> shape);

/// The choice that makes the stream smallest: tried out, on a part where there are more than 2^15 levels. Levels are
/// between -kMostLevel and kMostLevel.
LevelChoice choose_model(std::span<const int32_t> levels, const Widths& widths);

/// The choice, then the levels.
void encode_levels(RangeEncoder& coder, std::span<const int32_t> levels, const Widths& widths,
                   const LevelChoice& choice);
/// Any bytes are safe to decode; levels are within the bounds above. False where the stream makes a choice that no
/// encoder makes, and that would take memory beyond decoding_room().
bool decode_levels(RangeDecoder& coder, std::span<int32_t> levels, const Widths& widths);

/// Bytes that decode_levels takes beside the levels, about: rows and means of columns, and what the mixed model has
/// seen.
uint64_t decoding_room(uint64_t levels, const Widths& widths);

/// What encode_levels would write, in 1 / 65536 bit: in all, and by what it is for (without the choice itself).
uint64_t cost_of_levels(std::span<const int32_t> levels, const Widths& widths, const LevelChoice& choice);
struct LevelCosts {
  uint64_t of[kLevelParts] = {};
};
LevelCosts costs_of_levels(std::span<const int32_t> levels, const Widths& widths, const LevelChoice& choice);

/// The order-0 entropy of levels, in bits: what no coder that knows nothing but their frequencies goes below, and one
/// that must also tell the frequencies does not reach.
double entropy_of(std::span<const int32_t> levels);

/// What the best model would write, in bits, from some 2^15 levels: exact but for the last choices where there are no
/// more, else mostly within 2 %, and further off where a tensor is not the same all over.
double estimate_cost(std::span<const int32_t> levels, const Widths& widths);

}  // namespace nibble::codec
