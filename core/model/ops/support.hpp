// What the operator families share: types, axes, broadcasting, strided copies.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "core/base/error.hpp"
#include "core/kernels/compute.hpp"
#include "core/model/ops/ops.hpp"

namespace nibble::ops {

/// Calls visit(T{}) with the C++ type of a type that has one: float, double, the integers, and bool as uint8_t is not
/// among them: bool is `bool`. Others (half floats, sub-byte, complex, strings) are refused by `call`.
template <class Visit>
decltype(auto) visit_type(const Call& call, DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::Float32: return visit(float{});
    case DType::Float64: return visit(double{});
    case DType::Int8: return visit(int8_t{});
    case DType::UInt8: return visit(uint8_t{});
    case DType::Int16: return visit(int16_t{});
    case DType::UInt16: return visit(uint16_t{});
    case DType::Int32: return visit(int32_t{});
    case DType::UInt32: return visit(uint32_t{});
    case DType::Int64: return visit(int64_t{});
    case DType::UInt64: return visit(uint64_t{});
    case DType::Bool: return visit(bool{});
    default: call.refuse("values of type " + std::string(to_string(dtype)) + " cannot be computed with here");
  }
}

/// Calls visit(Word{}) with an unsigned type (or pair) as wide as the type's elements, for operators that only move
/// values. Sub-byte types and strings are refused.
struct Word128 {
  uint64_t low, high;
};
template <class Visit>
decltype(auto) visit_width(const Call& call, DType dtype, const Visit& visit) {
  switch (bits_of(dtype)) {
    case 8: return visit(uint8_t{});
    case 16: return visit(uint16_t{});
    case 32: return visit(uint32_t{});
    case 64: return visit(uint64_t{});
    case 128: return visit(Word128{});
    default: call.refuse("values of type " + std::string(to_string(dtype)) + " cannot be moved here");
  }
}

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return DType::Float32;
  else if constexpr (std::is_same_v<T, double>)
    return DType::Float64;
  else if constexpr (std::is_same_v<T, int8_t>)
    return DType::Int8;
  else if constexpr (std::is_same_v<T, uint8_t>)
    return DType::UInt8;
  else if constexpr (std::is_same_v<T, int16_t>)
    return DType::Int16;
  else if constexpr (std::is_same_v<T, uint16_t>)
    return DType::UInt16;
  else if constexpr (std::is_same_v<T, int32_t>)
    return DType::Int32;
  else if constexpr (std::is_same_v<T, uint32_t>)
    return DType::UInt32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return DType::Int64;
  else if constexpr (std::is_same_v<T, uint64_t>)
    return DType::UInt64;
  else
    return DType::Bool;
}

/// A tensor of one value everywhere.
template <class T>
Tensor full(Shape shape, T value) {
  Tensor tensor = Tensor::allocate(dtype_of<T>(), std::move(shape));
  const std::span<T> out = tensor.write<T>();
  std::fill(out.begin(), out.end(), value);
  return tensor;
}
inline Tensor zeros(Shape shape) { return full(std::move(shape), 0.0f); }
inline Tensor int64s(std::span<const int64_t> values) { return Tensor::from(DType::Int64, {values.size()}, values); }

/// Zero bytes, whatever the type.
Tensor zeros(DType dtype, Shape shape);

/// An extent, a repetition, a length: throws Error{BadData} where it is negative, and refuses what no memory holds.
size_t count_of(const Call& call, int64_t value, std::string_view what);
/// Refuses tensors of more than 2^31 bytes: a few numbers of a hostile model can ask for any size, and systems promise
/// more memory than they have. Extents are counted as at least 1, so that products of them never overflow either.
void check_size(const Call& call, DType dtype, const Shape& shape);
/// Uninitialised, after check_size.
Tensor allocate(const Call& call, DType dtype, Shape shape);

/// An axis given as -rank to rank - 1. Throws Error{BadData} naming the node.
size_t axis_of(const Call& call, int64_t axis, size_t rank);
/// The same for a list, which must not name an axis twice; sorted.
std::vector<size_t> axes_of(const Call& call, std::span<const int64_t> axes, size_t rank);

/// The product of extents first to last (excluded).
size_t extent(const Shape& shape, size_t first, size_t last);

/// Elements between neighbours along each axis of a row-major array.
std::vector<std::ptrdiff_t> steps_of(const Shape& shape);

/// NumPy's rule: shapes are aligned at the right, extents are equal or 1. Throws Error{BadData} naming the node.
Shape broadcast(const Call& call, const Shape& a, const Shape& b);
/// Steps of a tensor of `shape` seen as `target`, which it broadcasts to: 0 along the stretched axes.
std::vector<std::ptrdiff_t> broadcast_steps(const Shape& shape, const Shape& target);
/// `tensor` stretched to `shape`, of any type; itself where that is its shape.
Tensor broadcast_to(const Call& call, Tensor tensor, const Shape& shape);
/// The gradient of broadcasting: float32 `grad` summed over the axes along which `shape` was stretched.
Tensor sum_to(const Tensor& grad, const Shape& shape);

/// Calls visit(out_index, in_index) for the first element of each run along the last axis of `shape`, in row-major
/// order; in_index walks with `steps` (which may be 0). For rank 0 and 1 that is one call.
template <class Visit>
void for_each_run(const Shape& shape, std::span<const std::ptrdiff_t> steps, std::ptrdiff_t start, const Visit& visit) {
  const size_t rank = shape.size();
  if (elements_of(shape) == 0) return;
  const size_t run = rank == 0 ? 1 : shape.back();
  std::vector<size_t> at(rank, 0);
  size_t out = 0;
  std::ptrdiff_t in = start;
  for (;;) {
    visit(out, in);
    out += run;
    size_t axis = rank < 2 ? 0 : rank - 1;
    for (; axis > 0; --axis) {
      const size_t i = axis - 1;
      in += steps[i];
      if (++at[i] < shape[i]) break;
      in -= steps[i] * static_cast<std::ptrdiff_t>(shape[i]);
      at[i] = 0;
    }
    if (axis == 0) return;
  }
}

/// Calls visit(a, b) for each index of `shape` in row-major order, a and b walking with steps of their own.
template <class Visit>
void for_each_pair(const Shape& shape, std::span<const std::ptrdiff_t> a_steps, std::span<const std::ptrdiff_t> b_steps,
                   const Visit& visit) {
  if (elements_of(shape) == 0) return;
  std::vector<size_t> at(shape.size(), 0);
  std::ptrdiff_t a = 0, b = 0;
  for (;;) {
    visit(a, b);
    size_t axis = shape.size();
    for (; axis > 0; --axis) {
      const size_t i = axis - 1;
      a += a_steps[i];
      b += b_steps[i];
      if (++at[i] < shape[i]) break;
      a -= a_steps[i] * static_cast<std::ptrdiff_t>(shape[i]);
      b -= b_steps[i] * static_cast<std::ptrdiff_t>(shape[i]);
      at[i] = 0;
    }
    if (axis == 0) return;
  }
}

/// A box of elements somewhere in an array: the first one, and the steps along each axis (which may be 0 or negative).
struct Walk {
  std::ptrdiff_t start = 0;
  std::vector<std::ptrdiff_t> steps;
};
/// to[box] = from[box], the boxes of `shape`, the two tensors of one type (any but sub-byte types and strings).
void copy_box(const Call& call, const Shape& shape, const Tensor& from, Walk source, Tensor& to, Walk target);

/// out[i, j, ...] = x[start + i * steps[0] + j * steps[1] + ...], a new tensor of `shape` and x's type (any but
/// sub-byte types and strings, which `call` refuses). Transpose, slices and stretches are all this.
Tensor strided(const Call& call, const Tensor& x, const Shape& shape, std::span<const std::ptrdiff_t> steps,
               std::ptrdiff_t start = 0);

/// x with its axes in another order: output axis i is input axis order[i].
Tensor transposed(const Call& call, const Tensor& x, std::span<const size_t> order);

/// Room for the compute kernels, of this thread.
std::span<float> scratch();

}  // namespace nibble::ops
