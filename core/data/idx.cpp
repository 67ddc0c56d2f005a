// The format of MNIST's files: two zero bytes, a type, the number of dimensions, their extents, the values, all big
// endian (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits").
#include "core/data/read.hpp"

namespace nibble {

StoredArray idx_header(std::span<const std::byte> head, uint64_t size, std::string_view name) {
  if (head.size() < 4) fail_at(name, head.size(), "the file ends before its type");
  if (head[0] != std::byte{0} || head[1] != std::byte{0}) fail_at(name, 0, "expected an IDX file (two zero bytes)");
  StoredArray array;
  switch (std::to_integer<int>(head[2])) {
    case 0x08: array.dtype = DType::UInt8; break;
    case 0x09: array.dtype = DType::Int8; break;
    case 0x0B: array.dtype = DType::Int16; break;
    case 0x0C: array.dtype = DType::Int32; break;
    case 0x0D: array.dtype = DType::Float32; break;
    case 0x0E: array.dtype = DType::Float64; break;
    default:
      fail_at(name, 2, "expected a type of 8, 9 or 11 to 14, found " + std::to_string(std::to_integer<int>(head[2])));
  }
  const auto rank = std::to_integer<size_t>(head[3]);
  if (rank == 0) fail_at(name, 3, "expected 1 to 255 dimensions, found none");
  array.start = 4 + 4 * rank;
  if (head.size() < array.start) {
    fail_at(name, head.size(), "the file ends before the extents of its " + std::to_string(rank) + " dimensions");
  }
  array.shape.resize(rank);
  for (size_t d = 0; d < rank; ++d) {
    for (size_t i = 0; i < 4; ++i) array.shape[d] = array.shape[d] << 8 | std::to_integer<size_t>(head[4 + 4 * d + i]);
  }
  array.big_endian = true;
  check_size(array, size, name);
  return array;
}

Tensor read_idx(std::span<const std::byte> file, std::string_view name) {
  return read_array(file, idx_header(file, file.size(), name));
}

}  // namespace nibble
