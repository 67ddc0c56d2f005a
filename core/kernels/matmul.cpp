// Matrix product: tiles of packed operands (product.hpp), and ways of its own for a vector times a matrix, where
// packing would cost more than it saves.
#include <algorithm>

#include "core/kernels/compute.hpp"
#include "core/kernels/product.hpp"

namespace nibble::kernels {

extern const size_t kComputeScratch = product::kScratch;

bool is_relaxed() {
#if defined(NIBBLE_RELAXED)
  return true;
#else
  return false;
#endif
}

namespace {

using simd::F32;
using simd::load_at;
using simd::multiply_add;
using simd::store_at;

constexpr size_t kVectorDepth = size_t{1} << 14;  // of a vector's piece that is copied to lie together
constexpr size_t kVectorWidth = size_t{1} << 12;  // of a result's piece that stays in the nearest cache

/// Dot products of x with `kCount` rows that start at b, b + step, ...: two vectors of partial sums each, added, then
/// the lanes (first + second) + (third + fourth), then what is left of the depth.
template <size_t kCount>
void dots(size_t depth, const float* x, const float* b, size_t step, float* out) {
  F32 even[kCount], odd[kCount];
  const float* rows[kCount];
  for (size_t r = 0; r < kCount; ++r) even[r] = odd[r] = F32(0.0f), rows[r] = b + r * step;
  size_t l = 0;
  NIBBLE_KEEP_ROLLED
  for (; l + 8 <= depth; l += 8) {
    const F32 x0 = load_at(x + l), x1 = load_at(x + l + 4);
    for (size_t r = 0; r < kCount; ++r) {
      even[r] = multiply_add(x0, load_at(rows[r] + l), even[r]);
      odd[r] = multiply_add(x1, load_at(rows[r] + l + 4), odd[r]);
    }
  }
  for (size_t r = 0; r < kCount; ++r) {
    float lanes[4];
    store_at(lanes, even[r] + odd[r]);
    float sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    for (size_t i = l; i < depth; ++i) sum += x[i] * rows[r][i];
    out[r] = sum;
  }
}

/// out[j] = dot(x, column j of B), whose columns lie together.
void vector_by_columns(size_t width, size_t depth, const float* x, const float* b, size_t step, float* out) {
  size_t j = 0;
  for (; j + 4 <= width; j += 4) dots<4>(depth, x, b + j * step, step, out + j);
  for (; j < width; ++j) dots<1>(depth, x, b + j * step, step, out + j);
}

/// out = sum over l of x[l] * row l of B, whose rows lie together; four rows at a time pass through the result.
void vector_by_rows(size_t width, size_t depth, const float* x, const float* b, size_t step, float* out) {
  std::fill_n(out, width, 0.0f);
  size_t l = 0;
  for (; l + 4 <= depth; l += 4) {
    const float *b0 = b + l * step, *b1 = b0 + step, *b2 = b1 + step, *b3 = b2 + step;
    const F32 x0(x[l]), x1(x[l + 1]), x2(x[l + 2]), x3(x[l + 3]);
    size_t j = 0;
    for (; j + 4 <= width; j += 4) {
      F32 sum = multiply_add(x0, load_at(b0 + j), load_at(out + j));
      sum = multiply_add(x1, load_at(b1 + j), sum);
      sum = multiply_add(x2, load_at(b2 + j), sum);
      store_at(out + j, multiply_add(x3, load_at(b3 + j), sum));
    }
    for (; j < width; ++j) out[j] = out[j] + x[l] * b0[j] + x[l + 1] * b1[j] + x[l + 2] * b2[j] + x[l + 3] * b3[j];
  }
  for (; l < depth; ++l) {
    const float* row = b + l * step;
    const F32 factor(x[l]);
    size_t j = 0;
    for (; j + 4 <= width; j += 4) store_at(out + j, multiply_add(factor, load_at(row + j), load_at(out + j)));
    for (; j < width; ++j) out[j] += x[l] * row[j];
  }
}

/// c[j * c_step] = x B or += x B, for a B with rows or columns whose elements lie together.
void vector_product(size_t n, size_t k, const float* x, size_t x_step, MatrixView b, float* c, size_t c_step,
                    bool accumulate, std::span<float> scratch) {
  float *gathered = scratch.data(), *result = gathered + kVectorDepth;
  size_t l = 0;
  do {
    const size_t depth = std::min(kVectorDepth, k - l);
    const float* piece = x + l * x_step;
    if (x_step != 1) {
      for (size_t i = 0; i < depth; ++i) gathered[i] = piece[i * x_step];
      piece = gathered;
    }
    for (size_t j = 0; j < n; j += kVectorWidth) {
      const size_t width = std::min(kVectorWidth, n - j);
      const float* from = b.data + l * b.row_step + j * b.column_step;
      if (b.column_step == 1) {
        vector_by_rows(width, depth, piece, from, b.row_step, result);
      } else {
        vector_by_columns(width, depth, piece, from, b.column_step, result);
      }
      for (size_t i = 0; i < width; ++i) {
        float& to = c[(j + i) * c_step];
        to = accumulate || l > 0 ? to + result[i] : result[i];
      }
    }
    l += depth;
  } while (l < k);
}

bool has_unit_step(MatrixView view) { return view.row_step == 1 || view.column_step == 1; }

constexpr size_t kFewRows = 2;  // as many vector products as this are faster than packing the other side

}  // namespace

void matmul(size_t m, size_t n, size_t k, MatrixView a, MatrixView b, float* c, size_t c_step, bool accumulate,
            std::span<float> scratch) {
  if (m == 0 || n == 0) return;
  if (m <= kFewRows && has_unit_step(b)) {
    for (size_t i = 0; i < m; ++i) {
      vector_product(n, k, a.data + i * a.row_step, a.column_step, b, c + i * c_step, 1, accumulate, scratch);
    }
    return;
  }
  if (n <= kFewRows && has_unit_step(a)) {
    const MatrixView turned{a.data, a.column_step, a.row_step};
    for (size_t j = 0; j < n; ++j) {
      vector_product(m, k, b.data + j * b.column_step, b.row_step, turned, c + j, c_step, accumulate, scratch);
    }
    return;
  }
  const product::PackMatrix pack_b{{b.data, b.row_step, b.column_step}};
  product::multiply(m, n, k, {a.data, a.row_step, a.column_step}, pack_b, {c, c_step}, nullptr, accumulate, scratch);
}

}  // namespace nibble::kernels
