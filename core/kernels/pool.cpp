// Pooling. Windows that lie inside the plane are taken four at a time along the width; those at borders one by one.
#include <algorithm>
#include <limits>

#include "core/kernels/compute.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {
namespace {

using namespace simd;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The taps [first, last) along one axis that lie inside, for one output position; `start` is where tap 0 would be.
struct Taps {
  int64_t start = 0;
  size_t first = 0, last = 0;
  size_t count() const { return last - first; }
  size_t at(size_t tap, size_t dilation) const {
    return static_cast<size_t>(start + static_cast<int64_t>(uint64_t{tap} * dilation));
  }
};

Taps taps_of(size_t out, size_t stride, ptrdiff_t pad, size_t kernel, size_t dilation, size_t extent) {
  Taps taps;
  taps.start = static_cast<int64_t>(uint64_t{out} * stride) - pad;
  const auto first_not_below = [&](int64_t limit) {
    if (taps.start >= limit) return size_t{0};
    const auto distance = static_cast<uint64_t>(limit - taps.start);
    const uint64_t steps = dilation == 1 ? distance : (distance + dilation - 1) / dilation;
    return static_cast<size_t>(std::min<uint64_t>(steps, kernel));
  };
  taps.first = first_not_below(0);
  taps.last = std::max(taps.first, first_not_below(static_cast<int64_t>(extent)));
  return taps;
}

Taps rows_of(const Pool2d& p, size_t i) {
  return taps_of(i, p.stride_height, p.pad_top, p.kernel_height, p.dilation_height, p.height);
}
Taps columns_of(const Pool2d& p, size_t j) {
  return taps_of(j, p.stride_width, p.pad_left, p.kernel_width, p.dilation_width, p.width);
}

/// The column that the window of an inner output column starts at.
size_t start_of(const Pool2d& p, size_t j) { return j * p.stride_width - static_cast<size_t>(p.pad_left); }

/// Output columns [low, high) whose windows lie inside the plane's width.
struct Inner {
  size_t low = 0, high = 0;
};

Inner inner_columns(const Pool2d& p) {
  Inner inner;
  const auto whole = [&](size_t j) { return columns_of(p, j).count() == p.kernel_width; };
  while (inner.low < p.out_width && !whole(inner.low)) ++inner.low;
  inner.high = p.out_width;
  while (inner.high > inner.low && !whole(inner.high - 1)) --inner.high;
  return inner;
}

/// Four elements, kStride apart.
template <size_t kStride>
inline F32 load_strided(const float* p) {
  if constexpr (kStride == 1) return load_at(p);
  const F32 low = load_at(p), high = load_at(p + 4);
  return even_lanes(low, high);
}

/// Calls window(i, j) for the output columns [from, to) of row i.
template <class Window>
inline void for_columns(size_t from, size_t to, Window window) {
  for (size_t j = from; j < to; ++j) window(j);
}

/// Calls four(j) for groups of four inner columns of row i and one(j) for all others. A last group that is not full
/// goes back over columns already done. A strided load reads one element more than it needs, which must exist.
template <size_t kStride, class Four, class One>
inline void for_row(const Pool2d& p, const Inner& inner, const Taps& rows, Four four, One one) {
  for_columns(0, inner.low, one);
  size_t j = inner.low;
  if (rows.count() > 0) {
    const size_t reach = (p.kernel_width - 1) * p.dilation_width + 3 * kStride + kStride;
    const size_t last_row = rows.at(rows.last - 1, p.dilation_height) * p.width, plane = p.height * p.width;
    const auto fits = [&](size_t column) {
      return column + 4 <= inner.high && last_row + start_of(p, column) + reach <= plane;
    };
    for (; fits(j); j += 4) four(j);
    if (j < inner.high && inner.high >= inner.low + 4 && fits(inner.high - 4)) four(inner.high - 4), j = inner.high;
  }
  for_columns(j, p.out_width, one);
}

template <size_t kStride, bool kIndex>
void max_pool(const Pool2d& p, const float* x, float* y, int32_t* index) {
  const Inner inner = kStride > 0 ? inner_columns(p) : Inner{};
  for (size_t plane = 0; plane < p.planes; ++plane, x += p.height * p.width) {
    for (size_t i = 0; i < p.out_height; ++i, y += p.out_width, index += kIndex ? p.out_width : 0) {
      const Taps rows = rows_of(p, i);
      const auto one = [&](size_t j) {
        const Taps columns = columns_of(p, j);
        float most = -kInfinity;
        int32_t where = -1;
        for (size_t kh = rows.first; kh < rows.last; ++kh) {
          for (size_t kw = columns.first; kw < columns.last; ++kw) {
            const size_t at = rows.at(kh, p.dilation_height) * p.width + columns.at(kw, p.dilation_width);
            if (where >= 0 && !(x[at] > most)) continue;
            if (x[at] > most) most = x[at];
            where = static_cast<int32_t>(at);
          }
        }
        y[j] = most;
        if constexpr (kIndex) index[j] = where;
      };
      if constexpr (kStride == 0) {
        for_columns(0, p.out_width, one);
      } else {
        const auto four = [&](size_t j) {
          const size_t left = start_of(p, j);
          const size_t start = rows.at(rows.first, p.dilation_height) * p.width + left;
          F32 most = load_strided<kStride>(x + start);
          constexpr int32_t kStep = static_cast<int32_t>(kStride);
          const I32 steps(0, kStep, 2 * kStep, 3 * kStep);
          I32 where = I32(static_cast<int32_t>(start)) + steps;
          for (size_t kh = rows.first; kh < rows.last; ++kh) {
            const size_t row = rows.at(kh, p.dilation_height) * p.width + left;
            for (size_t kw = 0; kw < p.kernel_width; ++kw) {
              const size_t at = row + kw * p.dilation_width;
              const F32 value = load_strided<kStride>(x + at);
              if constexpr (kIndex) {
                const auto more = value > most;
                most = xsimd::select(more, value, most);
                const I32 bits = to_bits(more);
                where = (where & ~bits) | ((I32(static_cast<int32_t>(at)) + steps) & bits);
              } else {
                most = greater(most, value);
              }
            }
          }
          store_at(y + j, most);
          if constexpr (kIndex) store_at(index + j, where);
        };
        for_row<kStride>(p, inner, rows, four, one);
      }
    }
  }
}

/// Sum of n elements next to each other.
float sum_of(const float* x, size_t n) {
  if (n >= 8) return sum({x, n});
  float total = 0;
  for (size_t i = 0; i < n; ++i) total += x[i];
  return total;
}

template <size_t kStride>
void average_pool(const Pool2d& p, const float* x, float* y, bool count_padding) {
  const Inner inner = kStride > 0 ? inner_columns(p) : Inner{};
  const auto window = static_cast<float>(p.kernel_height * p.kernel_width);
  for (size_t plane = 0; plane < p.planes; ++plane, x += p.height * p.width) {
    for (size_t i = 0; i < p.out_height; ++i, y += p.out_width) {
      const Taps rows = rows_of(p, i);
      const auto one = [&](size_t j) {
        const Taps columns = columns_of(p, j);
        float total = 0;
        for (size_t kh = rows.first; kh < rows.last && columns.count() > 0; ++kh) {
          const float* row = x + rows.at(kh, p.dilation_height) * p.width;
          if (p.dilation_width == 1) {
            total += sum_of(row + columns.at(columns.first, 1), columns.count());
            continue;
          }
          for (size_t kw = columns.first; kw < columns.last; ++kw) total += row[columns.at(kw, p.dilation_width)];
        }
        const float count = count_padding ? window : static_cast<float>(rows.count() * columns.count());
        y[j] = count == 0 ? 0.0f : total / count;
      };
      if constexpr (kStride == 0) {
        for_columns(0, p.out_width, one);
      } else {
        const F32 count(count_padding ? window : static_cast<float>(rows.count() * p.kernel_width));
        const auto four = [&](size_t j) {
          const size_t left = start_of(p, j);
          F32 total(0.0f);
          for (size_t kh = rows.first; kh < rows.last; ++kh) {
            const float* row = x + rows.at(kh, p.dilation_height) * p.width + left;
            for (size_t kw = 0; kw < p.kernel_width; ++kw) {
              total = total + load_strided<kStride>(row + kw * p.dilation_width);
            }
          }
          store_at(y + j, total / count);
        };
        for_row<kStride>(p, inner, rows, four, one);
      }
    }
  }
}

}  // namespace

void max_pool2d(const Pool2d& pool, const float* x, float* y, int32_t* index) {
  switch (pool.stride_width) {
    case 1: return index ? max_pool<1, true>(pool, x, y, index) : max_pool<1, false>(pool, x, y, index);
    case 2: return index ? max_pool<2, true>(pool, x, y, index) : max_pool<2, false>(pool, x, y, index);
    default: return index ? max_pool<0, true>(pool, x, y, index) : max_pool<0, false>(pool, x, y, index);
  }
}

void max_pool2d_grad(const Pool2d& pool, const float* grad_y, const int32_t* index, float* grad_x) {
  const size_t inputs = pool.height * pool.width, outputs = pool.out_height * pool.out_width;
  std::fill_n(grad_x, pool.planes * inputs, 0.0f);
  for (size_t plane = 0; plane < pool.planes; ++plane) {
    for (size_t i = 0; i < outputs; ++i) {
      if (index[i] >= 0) grad_x[index[i]] += grad_y[i];
    }
    grad_x += inputs, grad_y += outputs, index += outputs;
  }
}

void average_pool2d(const Pool2d& pool, const float* x, float* y, bool count_padding) {
  switch (pool.stride_width) {
    case 1: return average_pool<1>(pool, x, y, count_padding);
    case 2: return average_pool<2>(pool, x, y, count_padding);
    default: return average_pool<0>(pool, x, y, count_padding);
  }
}

void average_pool2d_grad(const Pool2d& pool, const float* grad_y, float* grad_x, bool count_padding) {
  const size_t inputs = pool.height * pool.width;
  std::fill_n(grad_x, pool.planes * inputs, 0.0f);
  const auto window = static_cast<float>(pool.kernel_height * pool.kernel_width);
  for (size_t plane = 0; plane < pool.planes; ++plane, grad_x += inputs) {
    for (size_t i = 0; i < pool.out_height; ++i, grad_y += pool.out_width) {
      const Taps rows = rows_of(pool, i);
      for (size_t j = 0; j < pool.out_width; ++j) {
        const Taps columns = columns_of(pool, j);
        if (rows.count() == 0 || columns.count() == 0) continue;
        const float share = grad_y[j] / (count_padding ? window : static_cast<float>(rows.count() * columns.count()));
        for (size_t kh = rows.first; kh < rows.last; ++kh) {
          float* to =
              grad_x + rows.at(kh, pool.dilation_height) * pool.width + columns.at(columns.first, pool.dilation_width);
          for (size_t kw = 0; kw < columns.count(); ++kw) to[kw * pool.dilation_width] += share;
        }
      }
    }
  }
}

}  // namespace nibble::kernels
