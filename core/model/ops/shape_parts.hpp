// The files that shape_ops() and product_ops() are made of, and what they share.
#pragma once

#include "core/model/ops/support.hpp"

namespace nibble::ops {

using Steps = std::vector<std::ptrdiff_t>;

std::span<const Op> layout_ops();           ///< shape.cpp: constants, Reshape, Transpose, Concat, Split, Expand, Tile
std::span<const Op> slice_ops();            ///< slice.cpp: Slice, Pad, Trilu, ReverseSequence, Range, EyeLike
std::span<const Op> gather_ops();           ///< gather.cpp: Gather*, Scatter*, Compress, OneHot
std::span<const Op> signal_ops();           ///< signal.cpp: windows, DFT, STFT
std::span<const Op> selection_ops();        ///< signal.cpp's neighbour selection.cpp: NonMaxSuppression
std::span<const Op> matrix_ops();           ///< product.cpp: MatMul, Gemm
std::span<const Op> einsum_ops();           ///< einsum.cpp
std::span<const Op> integer_product_ops();  ///< integer_product.cpp: MatMulInteger, QLinearMatMul

/// One table of several.
std::vector<Op> together(std::initializer_list<std::span<const Op>> tables);

/// Any numeric tensor as double; int64 beyond 2^53 is rounded.
std::vector<double> numbers_of(const Call& call, const Tensor& tensor);
/// Of a type that holds numbers: real numbers are rounded, integers are cut.
Tensor from_numbers(const Call& call, DType dtype, const Shape& shape, std::span<const double> values);

/// Whether backward is asked for the gradient of an input.
inline bool wants_grad(const Call& call, size_t input) {
  return call.has(input) && (call.wanted.empty() || (input < call.wanted.size() && call.wanted[input]));
}

/// A [batch..., m, k] by B [batch..., k, n], the batches stretched to each other, as numpy.matmul has it: an operand of
/// rank 1 is a row at the left and a column at the right. Throws Error{BadData} naming the node.
struct BatchedProduct {
  size_t m = 1, n = 1, k = 1;
  Shape batch;
  Steps a_steps, b_steps;  ///< elements from matrix to matrix, along the axes of `batch`
  Shape out;
  bool a_stretched = false, b_stretched = false;
};
BatchedProduct batched_product(const Call& call, const Shape& a, const Shape& b);

/// C[m, n] (+)= A B of any type: float32 by the kernel, the others by plain loops (integers wrap).
template <class T>
struct View {
  const T* data = nullptr;
  size_t row_step = 0, column_step = 1;
};
template <class T>
void multiply(size_t m, size_t n, size_t k, View<T> a, View<T> b, T* c, size_t c_step, bool accumulate) {
  if constexpr (std::is_same_v<T, float>) {
    kernels::matmul(m, n, k, {a.data, a.row_step, a.column_step}, {b.data, b.row_step, b.column_step}, c, c_step,
                    accumulate, scratch());
  } else {
    // Sums of signed numbers may overflow, those of unsigned ones wrap.
    using Sum = std::conditional_t<std::is_floating_point_v<T>, T, uint64_t>;
    std::vector<Sum> row(n);
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) row[j] = accumulate ? static_cast<Sum>(c[i * c_step + j]) : Sum{0};
      for (size_t l = 0; l < k; ++l) {
        const Sum left = static_cast<Sum>(a.data[i * a.row_step + l * a.column_step]);
        const T* const right = b.data + l * b.row_step;
        for (size_t j = 0; j < n; ++j) row[j] += left * static_cast<Sum>(right[j * b.column_step]);
      }
      for (size_t j = 0; j < n; ++j) c[i * c_step + j] = static_cast<T>(row[j]);
    }
  }
}

/// Whether a product of this type is computed in float32 and rounded at the end.
inline bool is_half(DType dtype) { return dtype == DType::Float16 || dtype == DType::BFloat16; }
/// A half tensor as float32, another one as it is.
inline Tensor widened(const Tensor& tensor) {
  if (!is_half(tensor.dtype())) return tensor;
  return from_floats(DType::Float32, tensor.shape(), FloatView(tensor).values());
}
/// Any real tensor as float32, for gradients.
inline Tensor as_float32(const Tensor& tensor) {
  if (tensor.dtype() == DType::Float32) return tensor;
  return from_floats(DType::Float32, tensor.shape(), FloatView(tensor).values());
}

}  // namespace nibble::ops
