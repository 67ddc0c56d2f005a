// MatMulInteger and QLinearMatMul: products of 8-bit codes.
#include <cmath>
#include <limits>

#include "core/model/ops/shape_parts.hpp"

namespace nibble::ops {

namespace {

/// A scale or zero point of each row of A or column of B: one for all, one for each of `lines`, or one for each line of
/// each matrix.
class PerLine {
 public:
  PerLine(const Call& call, size_t input, size_t lines, size_t matrices, double otherwise) : lines_(lines) {
    values_ = call.has(input) ? numbers_of(call, call.in(input)) : std::vector<double>{otherwise};
    if (values_.size() != 1 && values_.size() != lines && values_.size() != lines * matrices) {
      call.fail("input " + std::to_string(input) + " has " + std::to_string(values_.size()) +
                " values; it takes 1 or one for each of " + std::to_string(lines) + " lines");
    }
  }
  double at(size_t matrix, size_t line) const {
    if (values_.size() == 1) return values_[0];
    return values_[values_.size() == lines_ ? line : matrix * lines_ + line];
  }

 private:
  std::vector<double> values_;
  size_t lines_;
};

void check_codes(const Call& call, size_t input) {
  const DType dtype = call.in(input).dtype();
  if (dtype == DType::Int8 || dtype == DType::UInt8) return;
  call.refuse("multiplies int8 and uint8, input " + std::to_string(input) + " is " + std::string(to_string(dtype)));
}

/// Codes less their zero points.
void widen(const Tensor& codes, size_t start, std::span<int32_t> out) {
  const auto copy = [&](auto values) {
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(start), out.size(), out.begin());
  };
  if (codes.dtype() == DType::Int8)
    copy(codes.data<int8_t>());
  else
    copy(codes.data<uint8_t>());
}

/// The shape of the product, before batches are folded: scales belong to rows of single matrices.
struct CodeProduct {
  BatchedProduct shape;
  size_t a_matrices = 1, b_matrices = 1;
};

CodeProduct code_product(const Call& call, size_t a, size_t b) {
  check_codes(call, a);
  check_codes(call, b);
  const Shape &left = call.in(a).shape(), &right = call.in(b).shape();
  CodeProduct product{batched_product(call, left, right)};
  const size_t rows = left.size() > 1 ? left[left.size() - 2] : 1;
  if (product.shape.batch.empty() && product.shape.m != rows) {  // folded: unfold
    product.shape.batch = {product.shape.m / rows};
    product.shape.m = rows;
    product.shape.a_steps = {static_cast<std::ptrdiff_t>(rows * product.shape.k)};
    product.shape.b_steps = {0};
  }
  if (left.size() > 2) product.a_matrices = extent(left, 0, left.size() - 2);
  if (right.size() > 2) product.b_matrices = extent(right, 0, right.size() - 2);
  return product;
}

/// Calls row_done(a's matrix, b's matrix, row, sums of the row) for each row of the result, in order.
template <class Visit>
void multiply_codes(const Call& call, size_t a, size_t b, const CodeProduct& product, const PerLine& a_zero,
                    const PerLine& b_zero, const Visit& row_done) {
  const auto& [m, n, k, batch, a_steps, b_steps, out, a_stretched, b_stretched] = product.shape;
  if (elements_of(out) == 0) return;
  std::vector<int32_t> right(k * n), left(k);
  std::vector<uint32_t> sums(n);  // unsigned, because they may overflow
  std::ptrdiff_t loaded = -1;
  for_each_pair(batch, a_steps, b_steps, [&](std::ptrdiff_t at_a, std::ptrdiff_t at_b) {
    const size_t a_matrix = static_cast<size_t>(at_a) / std::max<size_t>(1, m * k);
    const size_t b_matrix = static_cast<size_t>(at_b) / std::max<size_t>(1, k * n);
    if (loaded != at_b) {
      widen(call.in(b), static_cast<size_t>(at_b), right);
      for (size_t j = 0; j < n; ++j) {
        const auto zero = static_cast<int32_t>(b_zero.at(b_matrix, j));
        for (size_t l = 0; l < k && zero; ++l) right[l * n + j] -= zero;
      }
      loaded = at_b;
    }
    for (size_t i = 0; i < m; ++i) {
      widen(call.in(a), static_cast<size_t>(at_a) + i * k, left);
      const auto zero = static_cast<int32_t>(a_zero.at(a_matrix, i));
      std::fill(sums.begin(), sums.end(), 0);
      for (size_t l = 0; l < k; ++l) {
        const auto factor = static_cast<uint32_t>(left[l] - zero);
        const int32_t* const row = right.data() + l * n;
        for (size_t j = 0; j < n; ++j) sums[j] += factor * static_cast<uint32_t>(row[j]);
      }
      row_done(a_matrix, b_matrix, i, sums);
    }
  });
}

std::vector<Tensor> matmul_integer(Call& call) {
  const CodeProduct product = code_product(call, 0, 1);
  const PerLine a_zero(call, 2, product.shape.m, product.a_matrices, 0);
  const PerLine b_zero(call, 3, product.shape.n, product.b_matrices, 0);
  Tensor out = allocate(call, DType::Int32, product.shape.out);
  int32_t* to = out.write<int32_t>().data();
  multiply_codes(call, 0, 1, product, a_zero, b_zero, [&](size_t, size_t, size_t, std::span<const uint32_t> sums) {
    to = std::transform(sums.begin(), sums.end(), to, [](uint32_t sum) { return static_cast<int32_t>(sum); });
  });
  return {std::move(out)};
}

std::vector<Tensor> qlinear_matmul(Call& call) {
  const CodeProduct product = code_product(call, 0, 3);
  const size_t m = product.shape.m, n = product.shape.n;
  const PerLine a_scale(call, 1, m, product.a_matrices, 1), a_zero(call, 2, m, product.a_matrices, 0);
  const PerLine b_scale(call, 4, n, product.b_matrices, 1), b_zero(call, 5, n, product.b_matrices, 0);
  const PerLine y_scale(call, 6, m, product.a_matrices, 1), y_zero(call, 7, m, product.a_matrices, 0);
  check_codes(call, 7);
  Tensor out = allocate(call, call.in(7).dtype(), product.shape.out);
  visit_type(call, out.dtype(), [&](auto type) {
    using T = decltype(type);
    if constexpr (sizeof(T) == 1 && !std::is_same_v<T, bool>) {
      T* to = out.write<T>().data();
      const auto finish = [&](size_t a, size_t b, size_t i, std::span<const uint32_t> sums) {
        const auto row = static_cast<float>(a_scale.at(a, i)), down = static_cast<float>(y_scale.at(a, i));
        const auto zero = static_cast<float>(y_zero.at(a, i));
        for (size_t j = 0; j < n; ++j) {
          const float factor = row * static_cast<float>(b_scale.at(b, j)) / down;
          // To nearest, ties to even; NaN becomes the lowest code.
          const float code = std::nearbyint(static_cast<float>(static_cast<int32_t>(sums[j])) * factor) + zero;
          constexpr float kLeast = std::numeric_limits<T>::min(), kMost = std::numeric_limits<T>::max();
          *to++ = code > kLeast ? static_cast<T>(std::min(code, kMost)) : std::numeric_limits<T>::min();
        }
      };
      multiply_codes(call, 0, 3, product, a_zero, b_zero, finish);
    }
  });
  return {std::move(out)};
}

}  // namespace

std::span<const Op> integer_product_ops() {
  static const std::vector<Op> table = {
      {"MatMulInteger", matmul_integer},
      {"QLinearMatMul", qlinear_matmul},
  };
  return table;
}

}  // namespace nibble::ops
