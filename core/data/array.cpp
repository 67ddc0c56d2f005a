// Arrays of files: their values as tensors, whole or row by row from a file that is too large to be held.
#include <numeric>

#include "core/data/read.hpp"

namespace nibble {

namespace {

/// Values whose first index runs fastest, put so that the last one does.
Tensor from_fortran(const Tensor& source) {
  const Shape& shape = source.shape();
  if (shape.size() < 2 || source.elements() == 0) return source;
  Tensor result = Tensor::allocate(source.dtype(), shape);
  const auto width = static_cast<size_t>(bits_of(source.dtype())) / 8;
  std::vector<size_t> steps(shape.size()), index(shape.size());
  for (size_t d = 0, step = 1; d < shape.size(); step *= shape[d++]) steps[d] = step;
  const std::byte* const from = source.bytes().data();
  std::byte* const to = result.write<std::byte>().data();
  size_t offset = 0;
  for (size_t i = 0; i < source.elements(); ++i) {
    std::memcpy(to + i * width, from + offset * width, width);
    for (size_t d = shape.size(); d-- > 0;) {  // the next index, the last extent fastest
      offset += steps[d];
      if (++index[d] < shape[d]) break;
      offset -= steps[d] * shape[d];
      index[d] = 0;
    }
  }
  return result;
}

/// Values as they lie in the file, made into this machine's.
void settle(Tensor& values, const StoredArray& array) {
  if (array.big_endian) reverse_numbers(values.write<std::byte>(), static_cast<size_t>(bits_of(array.dtype)) / 8);
  if (array.dtype == DType::Bool) {
    for (uint8_t& value : values.write<uint8_t>()) value = value != 0;
  }
}

/// In 64 bits everywhere: a stored array may be larger than the address space.
uint64_t bytes_of(const StoredArray& array, const std::string& where) {
  constexpr uint64_t kMost = uint64_t{1} << 48;  // more than any file can hold
  uint64_t bytes = static_cast<uint64_t>(bits_of(array.dtype)) / 8;
  for (const size_t extent : array.shape) {
    if (extent == 0) return 0;
  }
  for (const size_t extent : array.shape) {
    if (extent > kMost / bytes) {
      fail(ErrorCode::BadFile, where, "shape " + to_string(array.shape) + " has more elements than a file can hold");
    }
    bytes *= extent;
  }
  return bytes;
}

/// Bytes between two samples that are sooner read than left out, and most bytes that are read at once.
constexpr uint64_t kGap = uint64_t{1} << 16, kPiece = uint64_t{1} << 23;

}  // namespace

void check_size(const StoredArray& array, uint64_t size, std::string_view name) {
  const std::string where = std::string(name) + ", byte " + std::to_string(array.start);
  const uint64_t needed = bytes_of(array, where), found = size - array.start;
  if (found == needed) return;
  fail(ErrorCode::BadFile, where,
       std::string(to_string(array.dtype)) + " values of shape " + to_string(array.shape) + " take " +
           std::to_string(needed) + " bytes, found " + std::to_string(found) +
           (found < needed ? ": the file is incomplete" : ": something follows that does not belong to them"));
}

Tensor read_array(std::span<const std::byte> file, const StoredArray& array) {
  Tensor values = Tensor::copy_of(array.dtype, array.shape, file.subspan(array.start));
  settle(values, array);
  return array.fortran ? from_fortran(values) : values;
}

Tensor to_samples(const Tensor& values, std::string_view name) {
  const auto convert = [&]<class T>(T) {
    Tensor floats = Tensor::allocate(DType::Float32, values.shape());
    std::transform(values.data<T>().begin(), values.data<T>().end(), floats.write<float>().begin(),
                   [](T value) { return static_cast<float>(value); });
    return floats;
  };
  switch (values.dtype()) {
    case DType::UInt8:
    case DType::Float32: return values;
    case DType::Bool: return Tensor::copy_of(DType::UInt8, values.shape(), values.bytes());
    case DType::Float16:
    case DType::Float64: {
      const FloatView floats(values);
      return from_floats(DType::Float32, values.shape(), floats.values());
    }
    case DType::Int8: return convert(int8_t{});
    case DType::Int16: return convert(int16_t{});
    case DType::UInt16: return convert(uint16_t{});
    case DType::Int32: return convert(int32_t{});
    case DType::UInt32: return convert(uint32_t{});
    case DType::Int64: return convert(int64_t{});
    case DType::UInt64: return convert(uint64_t{});
    default:
      fail(ErrorCode::Unsupported, std::string(name),
           "samples of type " + std::string(to_string(values.dtype())) + "; numbers are read");
  }
}

Dataset stored_samples(std::string name, StoredFile file, StoredArray array, const Shape& sample, SampleLayout layout) {
  if (array.fortran && array.shape.size() > 1) {
    fail(ErrorCode::Unsupported, name,
         "an array in Fortran order of " + std::to_string(file.size) +
             " bytes: samples of files this large are read one after the other; save it with "
             "np.save(file, np.ascontiguousarray(array))");
  }
  Dataset dataset;
  dataset.name = name;
  dataset.size = dataset.test_from = array.shape[0];
  dataset.shape = sample;
  dataset.layout = layout;
  dataset.dtype = to_samples(Tensor::allocate(array.dtype, {0}), name).dtype();
  const size_t row = bytes_for(array.dtype, elements_of(sample, name));
  dataset.read = [=, name = std::move(name), file = std::move(file),
                  array = std::move(array)](std::span<const uint32_t> indices) {
    check_indices(indices, array.shape[0]);
    Tensor batch = Tensor::allocate(array.dtype, batch_shape(indices.size(), sample));
    const std::span<std::byte> bytes = batch.write<std::byte>();
    // In the order of the file: samples that lie close together are read at once, with what is between them.
    std::vector<size_t> order(indices.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return indices[a] < indices[b]; });
    const auto place = [&](size_t i) { return uint64_t{indices[order[i]]} * row; };
    std::vector<std::byte> piece;
    for (size_t i = 0, end; row && i < order.size(); i = end) {
      for (end = i + 1; end < order.size(); ++end) {
        if (place(end) > place(end - 1) + row + kGap || place(end) + row - place(i) > kPiece) break;
      }
      if (end == i + 1) {
        file.read(array.start + place(i), bytes.subspan(order[i] * row, row));
        continue;
      }
      piece.resize(static_cast<size_t>(place(end - 1) + row - place(i)));
      file.read(array.start + place(i), piece);
      for (size_t k = i; k < end; ++k) {
        std::memcpy(bytes.data() + order[k] * row, piece.data() + static_cast<size_t>(place(k) - place(i)), row);
      }
    }
    settle(batch, array);
    return to_samples(batch, name);
  };
  check(dataset);
  return dataset;
}

}  // namespace nibble
