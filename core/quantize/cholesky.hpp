// Factors of small symmetric matrices, in double and in one fixed order of sums: what decides codes must give the same
// bits everywhere, which a library that asks the machine for its cache sizes and vector widths does not promise.
#pragma once

#include <cstddef>
#include <span>

namespace nibble {

/// For a symmetric positive definite H [n, n], given in `matrix` (only the part on and above the diagonal is read): the
/// upper triangular U with H^-1 = U^T U, in place, zeros below. False where H is not positive definite; `matrix` is
/// then of no use. Some 2/3 n^3 multiplications.
bool inverse_factor(std::span<double> matrix, size_t n);

}  // namespace nibble
