// Tiled products that matmul.cpp and convolve.cpp share (not part of any interface). Both operands are copied, block by
// block, into the order in which the innermost loop reads them, as in Goto and van de Geijn 2008, "Anatomy of
// high-performance matrix multiplication"; what a convolution multiplies is only gathered there, so that its patches
// never exist as a matrix.
//
// A sum is formed over blocks of at most kDepth products, each block from its first to its last product and then added
// to the element; the cut depends on the sizes alone. The tiles are as large as fifteen vector registers allow, and the
// loop over the depth must not be unrolled: browsers' compilers would move loads ahead until registers spill.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/kernels/simd.hpp"

#if defined(__clang__)
#define NIBBLE_KEEP_ROLLED _Pragma("clang loop unroll(disable) vectorize(disable)")
#elif defined(__GNUC__)
#define NIBBLE_KEEP_ROLLED _Pragma("GCC unroll 1")
#else
#define NIBBLE_KEEP_ROLLED
#endif

namespace nibble::kernels::product {
// A namespace without a name, in a header, on purpose: strict and relaxed builds of these must never be merged.
namespace {

using simd::F32;
using simd::load_at;
using simd::store_at;

#if defined(NIBBLE_RELAXED)
constexpr size_t kRows = 4;  // of a tile
#else
constexpr size_t kRows = 4;
#endif
constexpr size_t kColumns = 8;
constexpr size_t kDepth = 256;
constexpr size_t kBlockRows = 120;               // a multiple of kRows
constexpr size_t kBlockA = kBlockRows * kDepth;  // floats
constexpr size_t kBlockB = size_t{1} << 17;      // floats
constexpr size_t kTemporary = size_t{1} << 16;   // floats for packing, and for what a caller keeps
constexpr size_t kMostColumns = 4096;            // of a block of B, so that a row of it fits where it is gathered
constexpr size_t kSlack = 64;                    // floats beyond a block that packing may write
constexpr size_t kScratch = kBlockA + kBlockB + kSlack + kTemporary;

constexpr size_t kWhole = SIZE_MAX;  // a period that never ends

/// A matrix whose columns fall into periods, as those of several images do: element (i, j) is
/// data[j / period * period_step + i * row_step + j % period * column_step].
struct Periodic {
  const float* data = nullptr;
  size_t row_step = 0, column_step = 1, period = kWhole, period_step = 0;

  const float* at(size_t i, size_t j) const {
    return period == kWhole ? data + i * row_step + j * column_step
                            : data + j / period * period_step + i * row_step + j % period * column_step;
  }
};

/// Where a product goes, in the same way; columns lie next to each other.
struct Target {
  float* data = nullptr;
  size_t row_step = 0, period = kWhole, period_step = 0;
};

/// The next of at most `most` items: `left` cut into equal pieces, multiples of `unit` but for the last one.
inline size_t even_share(size_t left, size_t most, size_t unit) {
  if (left <= most) return left;
  const size_t pieces = (left + most - 1) / most, share = (left + pieces - 1) / pieces;
  return std::min(most, (share + unit - 1) / unit * unit);
}

// --- Packing ---------------------------------------------------------------------------------------------------------

/// Four vectors from four places become columns, stored `step` floats apart.
inline void store_transposed(const float* p0, const float* p1, const float* p2, const float* p3, float* to,
                             size_t step) {
  F32 a = load_at(p0), b = load_at(p1), c = load_at(p2), d = load_at(p3);
  simd::transpose_4x4(a, b, c, d);
  store_at(to, a), store_at(to + step, b), store_at(to + 2 * step, c), store_at(to + 3 * step, d);
}

/// `lanes` rows side by side: to[l * step + lane] = from[lane][l].
inline void interleave_rows(const float* const* from, size_t lanes, size_t depth, float* to, size_t step) {
  size_t lane = 0;
  for (; lane + 4 <= lanes; lane += 4) {
    const float *p0 = from[lane], *p1 = from[lane + 1], *p2 = from[lane + 2], *p3 = from[lane + 3];
    float* out = to + lane;
    size_t l = 0;
    for (; l + 4 <= depth; l += 4) store_transposed(p0 + l, p1 + l, p2 + l, p3 + l, out + l * step, step);
    for (; l < depth; ++l) {
      float* at = out + l * step;
      at[0] = p0[l], at[1] = p1[l], at[2] = p2[l], at[3] = p3[l];
    }
  }
  for (; lane < lanes; ++lane) {
    for (size_t l = 0; l < depth; ++l) to[l * step + lane] = from[lane][l];
  }
}

/// One strip of A, `rows` high: to[l * rows + row]; the depth is A's columns.
inline void pack_strip(const Periodic& a, size_t row, size_t rows, size_t first, size_t depth, float* to) {
  while (depth > 0) {
    const size_t run = a.period == kWhole ? depth : std::min(depth, a.period - first % a.period);
    const float* from = a.at(row, first);
    if (a.column_step == 1 && run > 1) {
      const float* sources[kRows];
      for (size_t r = 0; r < rows; ++r) sources[r] = from + r * a.row_step;
      interleave_rows(sources, rows, run, to, rows);
    } else if (a.row_step == 1 && rows >= 4) {
      for (size_t l = 0; l < run; ++l) {
        const float* p = from + l * a.column_step;
        store_at(to + l * rows, load_at(p));
        for (size_t r = 4; r < rows; ++r) to[l * rows + r] = p[r];
      }
    } else {
      for (size_t l = 0; l < run; ++l) {
        for (size_t r = 0; r < rows; ++r) to[l * rows + r] = from[r * a.row_step + l * a.column_step];
      }
    }
    to += run * rows;
    first += run;
    depth -= run;
  }
}

/// The width of the panel of B that starts `left` columns before the end: the last one may be half as wide.
inline size_t panel_width(size_t left) { return left <= kColumns / 2 ? kColumns / 2 : kColumns; }

/// Columns [column, column + columns) of B, the depth being its rows, in panels of kColumns: panel p holds, for each
/// row, its columns' elements, zeros beyond the last.
struct PackMatrix {
  Periodic b;

  void operator()(size_t column, size_t columns, size_t first, size_t depth, float* to, float*) const {
    const bool plain = b.column_step == 1 && (b.period == kWhole || b.period >= kColumns);
    if (!plain) return pack_panels(column, columns, first, depth, to);
    // By bands of rows: neighbouring panels share cache lines of a row, rows of a large matrix are pages apart.
    constexpr size_t kBand = 16;
    for (size_t l0 = 0; l0 < depth; l0 += kBand) {
      const size_t l1 = std::min(depth, l0 + kBand);
      for (size_t j = 0; j < columns; j += kColumns) {
        float* panel = to + j * depth;
        const size_t at = column + j;
        if (columns - j < kColumns || (b.period != kWhole && at % b.period + kColumns > b.period)) {
          if (l0 == 0) pack_panels(at, std::min(kColumns, columns - j), first, depth, panel);
          continue;
        }
        const float* from = b.at(first + l0, at);
        for (size_t l = l0; l < l1; ++l, from += b.row_step) {
          const F32 low = load_at(from), high = load_at(from + 4);
          store_at(panel + l * kColumns, low), store_at(panel + l * kColumns + 4, high);
        }
      }
    }
  }

  void pack_panels(size_t column, size_t columns, size_t first, size_t depth, float* to) const {
    for (size_t j = 0; j < columns; j += kColumns, to += depth * kColumns) {
      const size_t lanes = std::min(kColumns, columns - j), width = panel_width(columns - j);
      const float* from[kColumns];
      for (size_t lane = 0; lane < lanes; ++lane) from[lane] = b.at(first, column + j + lane);
      if (lanes < width) std::fill_n(to, depth * width, 0.0f);
      if (b.row_step == 1) {
        interleave_rows(from, lanes, depth, to, width);
        continue;
      }
      for (size_t l = 0; l < depth; ++l) {
        for (size_t lane = 0; lane < lanes; ++lane) to[l * width + lane] = from[lane][l * b.row_step];
      }
    }
  }
};

// --- Tiles -----------------------------------------------------------------------------------------------------------

/// kHeight rows by kWidth vectors of C from a strip of A and a panel of B. `start`, where not null, holds a number per
/// row to begin with.
template <size_t kHeight, size_t kWidth>
inline void tile(size_t depth, const float* a, const float* b, float* c, size_t c_step, const float* start,
                 bool accumulate) {
  F32 sum[kHeight][kWidth];
  for (size_t r = 0; r < kHeight; ++r) {
    for (size_t v = 0; v < kWidth; ++v) sum[r][v] = F32(start ? start[r] : 0.0f);
  }
  NIBBLE_KEEP_ROLLED
  for (size_t l = 0; l < depth; ++l) {
    F32 column[kWidth];
    for (size_t v = 0; v < kWidth; ++v) column[v] = load_at(b + 4 * v);
    for (size_t r = 0; r < kHeight; ++r) {
      const F32 row(a[r]);
      for (size_t v = 0; v < kWidth; ++v) sum[r][v] = simd::multiply_add(row, column[v], sum[r][v]);
    }
    a += kHeight;
    b += 4 * kWidth;
  }
  for (size_t r = 0; r < kHeight; ++r) {
    float* to = c + r * c_step;
    for (size_t v = 0; v < kWidth; ++v) {
      store_at(to + 4 * v, accumulate ? load_at(to + 4 * v) + sum[r][v] : sum[r][v]);
    }
  }
}

template <size_t kWidth>
inline void tile_of(size_t rows, size_t depth, const float* a, const float* b, float* c, size_t c_step,
                    const float* start, bool accumulate) {
  switch (rows) {
    case 1: return tile<1, kWidth>(depth, a, b, c, c_step, start, accumulate);
    case 2: return tile<2, kWidth>(depth, a, b, c, c_step, start, accumulate);
    case 3: return tile<3, kWidth>(depth, a, b, c, c_step, start, accumulate);
#if defined(NIBBLE_RELAXED)
    case 4: return tile<4, kWidth>(depth, a, b, c, c_step, start, accumulate);
#endif
    default: return tile<kRows, kWidth>(depth, a, b, c, c_step, start, accumulate);
  }
}

/// A tile that does not fit its place: less wide than its vectors, or on both sides of a period's end.
inline void broken_tile(size_t rows, size_t columns, size_t depth, const float* a, const float* b, const Target& target,
                        size_t row, size_t column, const float* start, bool accumulate) {
  float whole[kRows * kColumns];
  if (columns <= 4) {
    tile_of<1>(rows, depth, a, b, whole, kColumns, start, false);
  } else {
    tile_of<2>(rows, depth, a, b, whole, kColumns, start, false);
  }
  for (size_t j = 0; j < columns; ++j) {
    const size_t at = column + j;
    float* to = target.data + row * target.row_step +
                (target.period == kWhole ? at : at / target.period * target.period_step + at % target.period);
    for (size_t r = 0; r < rows; ++r) {
      const float sum = whole[r * kColumns + j];
      to[r * target.row_step] = accumulate ? to[r * target.row_step] + sum : sum;
    }
  }
}

/// The product of one packed block of A with one of B.
inline void block(size_t rows, size_t columns, size_t depth, const float* a, const float* b, const Target& target,
                  size_t row, size_t column, const float* start, bool accumulate) {
  for (size_t j = 0; j < columns; j += kColumns) {
    const float* panel = b + j * depth;
    const size_t at = column + j, left = columns - j;
    const size_t in_period = target.period == kWhole ? at : at % target.period;
    const bool fits = left >= kColumns && (target.period == kWhole || in_period + kColumns <= target.period);
    float* to = target.data + (target.period == kWhole ? 0 : at / target.period * target.period_step) + in_period +
                row * target.row_step;
    for (size_t i = 0; i < rows; i += kRows) {
      const size_t height = std::min(kRows, rows - i);
      const float* first = start ? start + i : nullptr;
      if (!fits) {
        broken_tile(height, std::min(kColumns, left), depth, a + i * depth, panel, target, row + i, at, first,
                    accumulate);
      } else if (height == kRows) {
        tile<kRows, 2>(depth, a + i * depth, panel, to + i * target.row_step, target.row_step, first, accumulate);
      } else {
        tile_of<2>(height, depth, a + i * depth, panel, to + i * target.row_step, target.row_step, first, accumulate);
      }
    }
  }
}

/// C[m, n] = A[m, k] B[k, n], A's columns and C's in periods, B whatever `pack_b` gathers. `start` is a number per row
/// that is added, or null.
template <class PackB>
inline void multiply(size_t m, size_t n, size_t k, const Periodic& a, const PackB& pack_b, const Target& target,
                     const float* start, bool accumulate, std::span<float> scratch) {
  float *block_a = scratch.data(), *block_b = block_a + kBlockA, *temporary = block_b + kBlockB + kSlack;
  const size_t deepest = std::max<size_t>(1, even_share(k, kDepth, 1));
  const size_t most_columns = std::min(kMostColumns, kBlockB / deepest / kColumns * kColumns);
  for (size_t j = 0; j < n;) {
    const size_t columns = even_share(n - j, most_columns, kColumns);
    size_t l = 0;
    do {
      const size_t depth = std::min(deepest, k - l);
      pack_b(j, columns, l, depth, block_b, temporary);
      for (size_t i = 0; i < m;) {
        const size_t rows = even_share(m - i, kBlockRows, kRows);
        for (size_t r = 0; r < rows; r += kRows) {
          pack_strip(a, i + r, std::min(kRows, rows - r), l, depth, block_a + r * depth);
        }
        block(rows, columns, depth, block_a, block_b, target, i, j, start && l == 0 ? start + i : nullptr,
              accumulate || l > 0);
        i += rows;
      }
      l += depth;
    } while (l < k);
    j += columns;
  }
}

}  // namespace
}  // namespace nibble::kernels::product
