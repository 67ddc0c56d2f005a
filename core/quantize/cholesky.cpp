#include "core/quantize/cholesky.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace nibble {

namespace {

/// Sum of products with four partial sums, added as (s0 + s1) + (s2 + s3).
double dot(const double* a, const double* b, size_t n) {
  double sums[4] = {};
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t lane = 0; lane < 4; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < n; ++i) sums[0] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

bool inverse_factor(std::span<double> matrix, size_t n) {
  double* const a = matrix.data();
  // H = R R^T with R upper triangular: Cholesky's factorisation from the last row and column to the first. Row i of R
  // needs rows j > i, right of j: dot products of contiguous ends of rows.
  for (size_t j = n; j-- > 0;) {
    const size_t tail = n - j - 1;
    const double* const row_j = a + j * n + j + 1;
    const double pivot = a[j * n + j] - dot(row_j, row_j, tail);
    if (!(pivot > 0)) return false;
    const double root = std::sqrt(pivot), inverse = 1 / root;
    a[j * n + j] = root;
    for (size_t i = 0; i < j; ++i) {
      double& entry = a[i * n + j];
      entry = (entry - dot(a + i * n + j + 1, row_j, tail)) * inverse;
    }
  }
  // H^-1 = R^-T R^-1, so U = R^-1: row by row from the last, U_i = (e_i - sum_k>i R_ik U_k) / R_ii.
  std::vector<double> sum(n);
  for (size_t i = n; i-- > 0;) {
    double* const row = a + i * n;
    std::fill(sum.begin() + static_cast<ptrdiff_t>(i), sum.end(), 0.0);
    for (size_t k = i + 1; k < n; ++k) {
      const double factor = row[k];
      const double* const below = a + k * n;
      for (size_t j = k; j < n; ++j) sum[j] += factor * below[j];
    }
    const double inverse = 1 / row[i];
    std::fill_n(row, i, 0.0);
    row[i] = inverse;
    for (size_t j = i + 1; j < n; ++j) row[j] = -sum[j] * inverse;
  }
  return true;
}

}  // namespace nibble
