// A contiguous row-major array that shares its storage when copied and clones it when written, so that "before" and
// "after" of a step can stand side by side for free.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

/// Element types. The sub-byte types are stored packed, first element in the low bits, as ONNX does.
enum class DType : uint8_t {
  Float32,
  Float64,
  Float16,
  BFloat16,
  Float8E4M3FN,
  Float8E4M3FNUZ,
  Float8E5M2,
  Float8E5M2FNUZ,
  Float8E8M0,
  Float4E2M1,
  Int8,
  UInt8,
  Int16,
  UInt16,
  Int32,
  UInt32,
  Int64,
  UInt64,
  Int4,
  UInt4,
  Int2,
  UInt2,
  Bool,
  Complex64,
  Complex128,
  String,  ///< has elements but no bytes here: a format keeps the text itself
};

/// "float32", "int4", "bool", ...
std::string_view to_string(DType dtype);

/// Bits per element; 0 for String.
int bits_of(DType dtype);

/// True for the types whose values Nibble can compress: float32, float64, float16, bfloat16.
bool is_real(DType dtype);
/// Of a real type: the largest float32, more or less, that does not become infinity in it.
double largest_finite(DType dtype);

/// Extents, outermost first. Rank 0 is a scalar with one element.
using Shape = std::vector<size_t>;

/// Product of the extents. Throws Error{BadFile, where} beyond 2^48 (2^31 where pointers have 32 bits).
size_t elements_of(const Shape& shape, std::string_view where = "");

/// "20x1x5x5"; "scalar" for rank 0.
std::string to_string(const Shape& shape);

/// The bytes of a file that are ours to keep: tensors may point into them, and they live as long as one does.
class FileBytes {
 public:
  FileBytes() = default;
  FileBytes(std::shared_ptr<std::byte[]> bytes, size_t size) : bytes_(std::move(bytes)), size_(size) {}
  /// A copy.
  FileBytes(std::span<const std::byte> bytes);
  std::span<const std::byte> span() const { return {bytes_.get(), size_}; }

 private:
  friend class Tensor;
  std::shared_ptr<std::byte[]> bytes_;
  size_t size_ = 0;
};

class Tensor {
 public:
  Tensor() = default;

  /// Uninitialised. Throws Error{OutOfMemory} naming the size when there is no room.
  static Tensor allocate(DType dtype, Shape shape);
  /// A copy of `bytes`, whose number must be bytes_for(dtype, elements).
  static Tensor copy_of(DType dtype, Shape shape, std::span<const std::byte> bytes);
  /// A tensor that points into `file`, where `bytes` (part of it) lies. Where that is not aligned for the type, the
  /// bytes are moved down by at most `slack`, the number of bytes before them that are no longer needed; where that is
  /// not enough, or the tensor is small, they are copied.
  static Tensor borrow(DType dtype, Shape shape, const FileBytes& file, std::span<const std::byte> bytes, size_t slack);
  template <class T>
  static Tensor from(DType dtype, Shape shape, std::span<const T> values) {
    return copy_of(dtype, std::move(shape), std::as_bytes(values));
  }

  /// False for a tensor that was never made (or was moved from): an operator's omitted input. One without elements
  /// exists.
  bool exists() const { return storage_ != nullptr; }
  /// The same values, in the same storage, under another shape of as many elements.
  Tensor reshaped(Shape shape) const&;
  Tensor reshaped(Shape shape) &&;

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  size_t elements() const { return elements_; }
  std::span<const std::byte> bytes() const { return {storage_.get(), size_}; }
  /// True where two tensors are the same storage: nothing has been written since one was copied from the other.
  bool same_storage(const Tensor& other) const { return storage_ == other.storage_; }

  /// True where writing would not have to clone.
  bool is_unshared() const { return storage_.use_count() == 1; }

  /// The elements as T, whose size must be the type's. Valid while this tensor lives and is not written.
  template <class T>
  std::span<const T> data() const {
    return {reinterpret_cast<const T*>(storage_.get()), size_ / sizeof(T)};
  }
  /// The same for writing: clones the storage first if it is shared.
  template <class T>
  std::span<T> write() {
    unshare();
    return {reinterpret_cast<T*>(storage_.get()), size_ / sizeof(T)};
  }

 private:
  void unshare();

  DType dtype_ = DType::Float32;
  Shape shape_ = {0};
  size_t elements_ = 0, size_ = 0;
  std::shared_ptr<std::byte[]> storage_;
};

/// Bytes that `elements` take when packed. Throws Error{OutOfMemory} beyond half of the address space.
size_t bytes_for(DType dtype, size_t elements);

/// The values of a real tensor as float32. A float32 tensor is looked at in place; other types are converted into a
/// buffer of this object's. float64 is rounded to nearest.
class FloatView {
 public:
  explicit FloatView(const Tensor& tensor);
  FloatView(FloatView&&) = default;
  FloatView(const FloatView&) = delete;  // values_ may point into converted_
  std::span<const float> values() const { return values_; }

 private:
  Tensor source_;
  std::vector<float> converted_;
  std::span<const float> values_;
};

/// A tensor of real type `dtype` from float32 values, each rounded to nearest even.
Tensor from_floats(DType dtype, const Shape& shape, std::span<const float> values);

/// Rounds float32 values through `dtype` in place: what from_floats followed by FloatView gives.
void round_through(DType dtype, std::span<float> values);

}  // namespace nibble
