// The tensors of a .nib: from blocks to numbers, and from numbers to the bytes of a file.
#pragma once

#include <span>
#include <vector>

#include "core/codec/floats.hpp"
#include "core/codec/levels.hpp"
#include "core/formats/nib_container.hpp"

namespace nibble::nib {

/// What stands for a tensor in its block; which fields are used depends on TensorEntry::values.
struct Numbers {
  std::vector<int32_t> levels;       ///< Grid, Palette, Integers; in the tensor's own order
  std::vector<float> scales;         ///< Grid: [rows, groups], or one
  std::vector<int32_t> zero_points;  ///< Grid, not symmetric: as many
  std::vector<uint64_t> palette;     ///< Palette: bit patterns, in the order of their values
  int32_t zero = 0;                  ///< Palette: the entry of level 0
  int64_t offset = 0;                ///< Integers: the value of level 0
  std::vector<uint32_t> patterns;    ///< Floats
  std::vector<uint8_t> bytes;        ///< Bytes

  std::optional<codec::LevelChoice>
      choice;  ///< for encoding: how the levels are, where that has been found out already
};

/// Decodes the tensors of a block, whose bytes have the size that its entry says. Throws Error{BadFile, block} where
/// the checksum does not fit or the streams cannot be what they are said to be.
std::vector<Numbers> decode_block(const Container& container, size_t block, std::span<const uint8_t> bytes);

/// Room in memory that decode_block needs for a tensor, about.
uint64_t room_for(const TensorEntry& tensor);

/// The array that a hole wants; `out` has its size.
void fill(const Hole& hole, const TensorEntry& tensor, const Numbers& numbers, std::span<uint8_t> out);

/// A block's bytes; the numbers are as they were afterwards. `bits`, where not null, receives what each tensor takes in
/// it, in 1 / 65536 bit.
std::vector<uint8_t> encode_block(std::span<const TensorEntry> tensors, std::span<Numbers> numbers, EntropyCoder coder,
                                  std::vector<uint64_t>* bits = nullptr);

/// How Values::Floats and palettes of a real type of at most 32 bits are coded.
codec::FloatFormat float_format(DType dtype);

/// True where a tensor is coded as levels, by whichever coder.
bool has_levels(const TensorEntry& tensor);

}  // namespace nibble::nib
