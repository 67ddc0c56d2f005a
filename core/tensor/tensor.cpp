#include "core/tensor/tensor.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/base/error.hpp"
#include "core/kernels/kernels.hpp"

namespace nibble {

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

Tensor Tensor::reshaped(Shape shape) const& { return Tensor(*this).reshaped(std::move(shape)); }

Tensor Tensor::reshaped(Shape shape) && {
  if (elements_of(shape) != elements_) {
    fail(ErrorCode::BadData, "",
         std::to_string(elements_) + " elements of shape " + to_string(shape_) + " cannot be seen as " +
             to_string(shape));
  }
  shape_ = std::move(shape);
  return std::move(*this);
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
