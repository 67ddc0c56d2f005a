// A weight and the promises made about it. The dense value is the truth; mask and grid are promises that training keeps
// and coders exploit. A model whose promises are forgotten still runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor/tensor.hpp"

namespace nibble {

/// What shares one scale.
enum class Granularity : uint8_t {
  Global,  ///< all weights that the step touches
  Tensor,
  Channel,  ///< one output channel
  Group,    ///< group_size consecutive inputs of one output channel
};

/// What grid is asked for.
struct QuantScheme {
  int bits = 8;  ///< 1 to 8, or 16
  /// true: zero point 0, codes -(2^(bits-1)-1) to 2^(bits-1)-1; 1 bit: -1 and +1. false: codes 0 to 2^bits-1.
  bool symmetric = true;
  Granularity granularity = Granularity::Channel;
  size_t group_size = 32;
};

/// Smallest and largest code of a scheme. For one symmetric bit these are -1 and +1, and a pruned weight keeps code 0.
int32_t lowest_code(const QuantScheme& scheme);
int32_t highest_code(const QuantScheme& scheme);

/// What was found: value = scale * (code - zero_point), rounded to the tensor's type. One entry per tensor, per
/// channel, or per channel and group ([channels, groups of one channel]).
struct QuantParams {
  QuantScheme scheme;
  std::vector<float> scale;
  std::vector<int32_t> zero_point;
};

/// A list of values that all elements are taken from, in ascending order. 0 is not among them where it is what a mask's
/// removed elements have.
struct Codebook {
  std::vector<float> centroids;
};

/// Which elements stay. Bit i is word i / 64, bit i % 64; 1 = keep; unused bits are 0.
struct Mask {
  std::vector<uint64_t> words;
  size_t kept = 0;
};

/// Invariants: value[i] == 0 wherever the mask's bit is 0; every other value is a point of the grid, or a centroid of
/// the codebook, exactly. There is a grid or a codebook, not both.
struct Param {
  std::string name;  ///< unique in the model
  Tensor value;
  std::optional<Mask> mask;
  std::optional<QuantParams> grid;
  std::optional<Codebook> codebook = std::nullopt;
};

/// A weight seen as rows, one per output channel: the shape is [outer, channels, inner] around the channel axis, and
/// row c is its elements in storage order. A weight without a channel axis is one row; so is one without elements,
/// because the extents beside its 0 are whatever a file says and cost it no bytes.
struct Rows {
  size_t outer = 1, channels = 1, inner = 1;
  size_t length() const { return outer * inner; }  ///< elements of a row
};
Rows rows_of(const Shape& shape, std::optional<size_t> channel_axis);

/// Copies rows first to first + count out of the weight's own order into row order, [count, length], and back.
template <class T>
void gather_rows(std::span<const T> values, const Rows& rows, size_t first, size_t count, std::span<T> block) {
  for (size_t o = 0; o < rows.outer; ++o) {
    for (size_t c = 0; c < count; ++c) {
      const T* from = values.data() + (o * rows.channels + first + c) * rows.inner;
      std::copy_n(from, rows.inner, block.data() + c * rows.length() + o * rows.inner);
    }
  }
}
template <class T>
void scatter_rows(std::span<const T> block, const Rows& rows, size_t first, size_t count, std::span<T> values) {
  for (size_t o = 0; o < rows.outer; ++o) {
    for (size_t c = 0; c < count; ++c) {
      const T* from = block.data() + c * rows.length() + o * rows.inner;
      std::copy_n(from, rows.inner, values.data() + (o * rows.channels + first + c) * rows.inner);
    }
  }
}

// Columns of a float matrix (inner == 1, as MatMul stores its weights) by tiles in registers, several times as fast.
void gather_rows(std::span<const float> values, const Rows& rows, size_t first, size_t count, std::span<float> block);
void scatter_rows(std::span<const float> block, const Rows& rows, size_t first, size_t count, std::span<float> values);

/// How many rows are worked on at a time where they are not contiguous: about 256 K elements, so that a weight never
/// needs room for a second copy of itself.
size_t rows_per_block(const Rows& rows);

/// Calls visit(first, count, block) for successive rows, block being [count, length] in row order: one call, in place,
/// where the rows are contiguous; copies otherwise.
template <class T, class Visit>
void for_each_row_block(std::span<const T> values, const Rows& rows, const Visit& visit) {
  if (rows.outer == 1) {
    visit(size_t{0}, rows.channels, values);
    return;
  }
  const size_t step = rows_per_block(rows);
  std::vector<T> buffer(step * rows.length());
  for (size_t first = 0; first < rows.channels; first += step) {
    const size_t count = std::min(step, rows.channels - first);
    const std::span<T> block = std::span(buffer).first(count * rows.length());
    gather_rows(values, rows, first, count, block);
    visit(first, count, std::span<const T>(block));
  }
}

/// Moves each value to the nearest point of a grid that exists already: keeps the promise for values that have changed.
/// `rows` is rows_of(shape, channel axis); the number of scales must be the scheme's for it. A value of a grid with one
/// symmetric bit takes the sign of what it was. `inside`, where not empty, gets 1 where the value lay within the grid's
/// range and 0 where it was clipped: what a straight-through gradient is multiplied by. All of one size; `out` may be
/// `values`.
void snap_to_grid(const QuantParams& grid, const Rows& rows, std::span<const float> values, std::span<float> out,
                  std::span<float> inside = {});

/// Groups of `group_size` that a row of `length` is cut into; the last may be shorter. 0 for an empty row.
size_t groups_of(size_t length, size_t group_size);

}  // namespace nibble
