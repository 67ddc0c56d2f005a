// The format of MNIST's files: two zero bytes, a type, the number of dimensions, their extents, the values, all big
// endian (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits").
#include "core/data/read.hpp"

namespace nibble {

Tensor read_idx(std::span<const std::byte> file, std::string_view name) {
  if (file.size() < 4) fail_at(name, file.size(), "the file ends before its type");
  if (file[0] != std::byte{0} || file[1] != std::byte{0}) fail_at(name, 0, "expected an IDX file (two zero bytes)");
  DType dtype = DType::UInt8;
  switch (std::to_integer<int>(file[2])) {
    case 0x08: dtype = DType::UInt8; break;
    case 0x09: dtype = DType::Int8; break;
    case 0x0B: dtype = DType::Int16; break;
    case 0x0C: dtype = DType::Int32; break;
    case 0x0D: dtype = DType::Float32; break;
    case 0x0E: dtype = DType::Float64; break;
    default:
      fail_at(name, 2, "expected a type of 8, 9 or 11 to 14, found " + std::to_string(std::to_integer<int>(file[2])));
  }
  const auto rank = std::to_integer<size_t>(file[3]);
  if (rank == 0) fail_at(name, 3, "expected 1 to 255 dimensions, found none");
  const size_t start = 4 + 4 * rank;
  if (file.size() < start) {
    fail_at(name, file.size(), "the file ends before the extents of its " + std::to_string(rank) + " dimensions");
  }
  Shape shape(rank);
  for (size_t d = 0; d < rank; ++d) {
    for (size_t i = 0; i < 4; ++i) shape[d] = shape[d] << 8 | std::to_integer<size_t>(file[4 + 4 * d + i]);
  }
  check_values(name, start, dtype, shape, file.size() - start);
  Tensor tensor = Tensor::copy_of(dtype, std::move(shape), file.subspan(start));
  reverse_numbers(tensor.write<std::byte>(), static_cast<size_t>(bits_of(dtype)) / 8);
  return tensor;
}

}  // namespace nibble
