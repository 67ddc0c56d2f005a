// What the readers of one file share. Not for use outside of this folder.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/error.hpp"
#include "core/data/data.hpp"

namespace nibble {

static_assert(std::endian::native == std::endian::little, "the readers turn big-endian numbers round");

/// Throws Error{BadFile} that names file and byte.
[[noreturn]] inline void fail_at(std::string_view file, size_t byte, std::string message) {
  fail(ErrorCode::BadFile, std::string(file) + ", byte " + std::to_string(byte), std::move(message));
}

/// Turns the bytes of each number round. `width` is that of a number: 1, 2, 4 or 8.
inline void reverse_numbers(std::span<std::byte> bytes, size_t width) {
  if (width < 2) return;
  for (size_t at = 0; at + width <= bytes.size(); at += width) {
    std::reverse(bytes.begin() + static_cast<ptrdiff_t>(at), bytes.begin() + static_cast<ptrdiff_t>(at + width));
  }
}

/// Throws unless `found` bytes of values are what `shape` needs; `byte` is where they start.
inline void check_values(std::string_view file, size_t byte, DType dtype, const Shape& shape, size_t found) {
  const std::string where = std::string(file) + ", byte " + std::to_string(byte);
  const size_t needed = bytes_for(dtype, elements_of(shape, where));
  if (found == needed) return;
  fail(ErrorCode::BadFile, where,
       std::string(to_string(dtype)) + " values of shape " + to_string(shape) + " take " + std::to_string(needed) +
           " bytes, found " + std::to_string(found) +
           (found < needed ? ": the file is incomplete" : ": something follows that does not belong to them"));
}

/// A dataset of a table in text; what the header says about CSV.
Dataset read_csv(std::span<const std::byte> file, std::string_view name);

/// The layout that samples of this shape most likely have.
SampleLayout guess_layout(const Shape& shape);

/// 28 * 28: rows of this many numbers are images (MNIST's digits and all that took their format).
constexpr size_t kFlatImage = 784, kFlatImageSide = 28;

}  // namespace nibble
