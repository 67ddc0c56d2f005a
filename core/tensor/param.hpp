// A weight and the promises made about it. The dense value is the truth; mask and grid are promises that training keeps
// and coders exploit. A model whose promises are forgotten still runs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor/tensor.hpp"

namespace nibble {

/// What shares one scale.
enum class Granularity : uint8_t {
  Global,   ///< all weights that the step touches
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

/// What was found: value = scale * (code - zero_point), rounded to the tensor's type. One entry per tensor, per channel,
/// or per channel and group ([channels, groups of one channel]).
struct QuantParams {
  QuantScheme scheme;
  std::vector<float> scale;
  std::vector<int32_t> zero_point;
};

/// Which elements stay. Bit i is word i / 64, bit i % 64; 1 = keep; unused bits are 0.
struct Mask {
  std::vector<uint64_t> words;
  size_t kept = 0;
};

/// Invariants: value[i] == 0 wherever the mask's bit is 0; every value is a point of the grid, exactly.
struct Param {
  std::string name;  ///< unique in the model
  Tensor value;
  std::optional<Mask> mask;
  std::optional<QuantParams> grid;
};

/// A weight seen as rows, one per output channel: the shape is [outer, channels, inner] around the channel axis, and row c
/// is its elements in storage order. A weight without a channel axis is one row.
struct Rows {
  size_t outer = 1, channels = 1, inner = 1;
  size_t length() const { return outer * inner; }  ///< elements of a row
};
Rows rows_of(const Shape& shape, std::optional<size_t> channel_axis);

/// [outer, channels, inner] to [channels, outer, inner] and back. Not in place; nothing to do where outer == 1.
void gather_rows(std::span<const float> values, const Rows& rows, std::span<float> out);
void scatter_rows(std::span<const float> values, const Rows& rows, std::span<float> out);

/// The rows of a weight, in place where they already are contiguous.
class RowView {
 public:
  RowView(std::span<const float> values, const Rows& rows);
  RowView(RowView&&) = default;
  RowView(const RowView&) = delete;  // all_ may point into gathered_
  std::span<const float> all() const { return all_; }
  std::span<const float> row(size_t c) const { return all_.subspan(c * length_, length_); }

 private:
  std::vector<float> gathered_;
  std::span<const float> all_;
  size_t length_;
};

/// Groups of `group_size` that a row of `length` is cut into; the last may be shorter. 0 for an empty row.
size_t groups_of(size_t length, size_t group_size);

}  // namespace nibble
