#include "core/tensor/tensor.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/base/error.hpp"
#include "core/kernels/kernels.hpp"

namespace nibble {

namespace {

struct DTypeFacts {
  std::string_view name;
  int bits;
};

// In the order of DType.
constexpr DTypeFacts kFacts[] = {
    {"float32", 32},       {"float64", 64},   {"float16", 16},       {"bfloat16", 16},  {"float8e4m3fn", 8},
    {"float8e4m3fnuz", 8}, {"float8e5m2", 8}, {"float8e5m2fnuz", 8}, {"float8e8m0", 8}, {"float4e2m1", 4},
    {"int8", 8},           {"uint8", 8},      {"int16", 16},         {"uint16", 16},    {"int32", 32},
    {"uint32", 32},        {"int64", 64},     {"uint64", 64},        {"int4", 4},       {"uint4", 4},
    {"int2", 2},           {"uint2", 2},      {"bool", 8},           {"complex64", 64}, {"complex128", 128},
    {"string", 0},
};
static_assert(std::size(kFacts) == static_cast<size_t>(DType::String) + 1);

const DTypeFacts& facts(DType dtype) { return kFacts[static_cast<size_t>(dtype)]; }

// More than any file can hold, and far from overflowing when multiplied by 128 bits.
constexpr size_t kMostElements = size_t{1} << (sizeof(size_t) == 8 ? 48 : 31);

}  // namespace

std::string_view to_string(DType dtype) { return facts(dtype).name; }

int bits_of(DType dtype) { return facts(dtype).bits; }

bool is_real(DType dtype) {
  return dtype == DType::Float32 || dtype == DType::Float64 || dtype == DType::Float16 || dtype == DType::BFloat16;
}

size_t elements_of(const Shape& shape, std::string_view where) {
  if (std::find(shape.begin(), shape.end(), size_t{0}) != shape.end()) return 0;
  size_t product = 1;
  for (size_t extent : shape) {
    if (extent > kMostElements / product) {
      fail(ErrorCode::BadFile, std::string(where),
           "shape " + to_string(shape) + " has more elements than a file can hold");
    }
    product *= extent;
  }
  return product;
}

std::string to_string(const Shape& shape) {
  if (shape.empty()) return "scalar";
  std::string text;
  for (size_t extent : shape) text += (text.empty() ? "" : "x") + std::to_string(extent);
  return text;
}

size_t bytes_for(DType dtype, size_t elements) {
  const uint64_t bytes = (uint64_t{elements} * static_cast<uint64_t>(bits_of(dtype)) + 7) / 8;
  if (bytes > SIZE_MAX / 2)
    fail(ErrorCode::OutOfMemory, "", "a tensor of " + std::to_string(bytes) + " bytes does not fit this machine");
  return static_cast<size_t>(bytes);
}

Tensor Tensor::allocate(DType dtype, Shape shape) {
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.elements_ = elements_of(shape);
  tensor.shape_ = std::move(shape);
  tensor.size_ = bytes_for(dtype, tensor.elements_);
  try {
    tensor.storage_ = std::shared_ptr<std::byte[]>(new std::byte[tensor.size_]);
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::OutOfMemory, "", "no room for a tensor of " + std::to_string(tensor.size_) + " bytes");
  }
  return tensor;
}

Tensor Tensor::copy_of(DType dtype, Shape shape, std::span<const std::byte> bytes) {
  Tensor tensor = allocate(dtype, std::move(shape));
  if (bytes.size() != tensor.size_) {
    fail(ErrorCode::BadData, "",
         "a " + std::string(to_string(dtype)) + " tensor of shape " + to_string(tensor.shape_) + " needs " +
             std::to_string(tensor.size_) + " bytes, got " + std::to_string(bytes.size()));
  }
  if (!bytes.empty()) std::memcpy(tensor.storage_.get(), bytes.data(), bytes.size());
  return tensor;
}

FileBytes::FileBytes(std::span<const std::byte> bytes) : bytes_(new std::byte[bytes.size()]), size_(bytes.size()) {
  if (!bytes.empty()) std::memcpy(bytes_.get(), bytes.data(), bytes.size());
}

Tensor Tensor::borrow(DType dtype, Shape shape, const FileBytes& file, std::span<const std::byte> bytes, size_t slack) {
  constexpr size_t kWorthIt = 1024;  // below this a tensor that keeps a whole file alive costs more than it saves
  const size_t unit = std::min<size_t>(8, static_cast<size_t>(std::max(8, bits_of(dtype)) / 8));
  const size_t shift = reinterpret_cast<uintptr_t>(bytes.data()) % unit;
  if (bytes.size() < kWorthIt || shift > slack) return copy_of(dtype, std::move(shape), bytes);
  const size_t elements = elements_of(shape);
  if (bytes.size() != bytes_for(dtype, elements)) return copy_of(dtype, std::move(shape), bytes);  // which refuses it
  std::byte* const start = file.bytes_.get() + (bytes.data() - file.bytes_.get()) - shift;
  if (shift) std::memmove(start, bytes.data(), bytes.size());
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  tensor.elements_ = elements;
  tensor.size_ = bytes.size();
  tensor.storage_ = std::shared_ptr<std::byte[]>(file.bytes_, start);
  return tensor;
}

void Tensor::unshare() {
  if (storage_.use_count() > 1) *this = copy_of(dtype_, shape_, bytes());
}

FloatView::FloatView(const Tensor& tensor) : source_(tensor) {
  if (tensor.dtype() == DType::Float32) {
    values_ = source_.data<float>();
    return;
  }
  if (!is_real(tensor.dtype())) {
    fail(ErrorCode::BadData, "", "expected real numbers, found " + std::string(to_string(tensor.dtype())));
  }
  converted_.resize(tensor.elements());
  switch (tensor.dtype()) {
    case DType::Float16: kernels::half_to_float(source_.data<uint16_t>(), converted_); break;
    case DType::BFloat16: kernels::bfloat16_to_float(source_.data<uint16_t>(), converted_); break;
    default:
      std::transform(source_.data<double>().begin(), source_.data<double>().end(), converted_.begin(),
                     [](double value) { return static_cast<float>(value); });
  }
  values_ = converted_;
}

Tensor from_floats(DType dtype, const Shape& shape, std::span<const float> values) {
  Tensor tensor = Tensor::allocate(dtype, shape);
  switch (dtype) {
    case DType::Float32: std::copy(values.begin(), values.end(), tensor.write<float>().begin()); break;
    case DType::Float64: std::copy(values.begin(), values.end(), tensor.write<double>().begin()); break;
    case DType::Float16: kernels::float_to_half(values, tensor.write<uint16_t>()); break;
    case DType::BFloat16: kernels::float_to_bfloat16(values, tensor.write<uint16_t>()); break;
    default: fail(ErrorCode::BadData, "", std::string(to_string(dtype)) + " does not hold real numbers");
  }
  return tensor;
}

void round_through(DType dtype, std::span<float> values) {
  if (dtype == DType::Float32 || dtype == DType::Float64) return;
  const FloatView rounded(from_floats(dtype, {values.size()}, values));
  std::copy(rounded.values().begin(), rounded.values().end(), values.begin());
}

}  // namespace nibble
