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

/// What the header of a file says about the one array in it.
struct StoredArray {
  DType dtype = DType::UInt8;
  Shape shape;
  size_t start = 0;  ///< the byte where its values begin; they end with the file
  bool big_endian = false;
  bool fortran = false;  ///< the first index runs fastest
};

/// The header at the beginning of an npy or IDX file of `size` bytes, of which `head` is the first part: kHead bytes,
/// or all of them. Throws what read_npy and read_idx throw, also where the size of the file does not fit.
StoredArray npy_header(std::span<const std::byte> head, uint64_t size, std::string_view name);
StoredArray idx_header(std::span<const std::byte> head, uint64_t size, std::string_view name);
constexpr size_t kHead = size_t{1} << 17;  // twice the longest header of an npy file of version 1

/// The array of a whole file.
Tensor read_array(std::span<const std::byte> file, const StoredArray& array);

/// Throws unless the file of `size` bytes ends where the array does.
void check_size(const StoredArray& array, uint64_t size, std::string_view name);

/// Samples as a dataset keeps them, uint8 or float32: integers that are not bytes and other real numbers become
/// float32, truth values bytes.
Tensor to_samples(const Tensor& values, std::string_view name);

/// The dataset of an array that stays in its file, `sample` being the shape of one sample, without labels.
Dataset stored_samples(std::string name, StoredFile file, StoredArray array, const Shape& sample, SampleLayout layout);

/// Gives a dataset the class of each sample; names are numbers where there are none. The caller checks the dataset.
void set_labels(Dataset& dataset, std::vector<int32_t> labels, std::vector<std::string> class_names = {});

/// Throws Error{BadData} for the first that is not below `size`: one message for every reader that is asked for a
/// sample that is not there.
void check_indices(std::span<const uint32_t> indices, size_t size);

/// [count, sample...]
Shape batch_shape(size_t count, const Shape& sample);

/// A dataset of a table in text; what the header says about CSV.
Dataset read_csv(std::span<const std::byte> file, std::string_view name);

/// The layout that samples of this shape most likely have.
SampleLayout guess_layout(const Shape& shape);

/// 28 * 28: rows of this many numbers are images (MNIST's digits and all that took their format).
constexpr size_t kFlatImage = 784, kFlatImageSide = 28;

}  // namespace nibble
