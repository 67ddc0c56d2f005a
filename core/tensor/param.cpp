#include "core/tensor/param.hpp"

namespace nibble {

int32_t lowest_code(const QuantScheme& scheme) { return scheme.symmetric ? -highest_code(scheme) : 0; }

int32_t highest_code(const QuantScheme& scheme) {
  if (!scheme.symmetric) return (1 << scheme.bits) - 1;
  return scheme.bits == 1 ? 1 : (1 << (scheme.bits - 1)) - 1;
}

Rows rows_of(const Shape& shape, std::optional<size_t> channel_axis) {
  const size_t elements = elements_of(shape);
  if (!channel_axis || elements == 0) return {1, 1, elements};
  Rows rows;
  for (size_t axis = 0; axis < *channel_axis; ++axis) rows.outer *= shape[axis];
  rows.channels = shape[*channel_axis];
  for (size_t axis = *channel_axis + 1; axis < shape.size(); ++axis) rows.inner *= shape[axis];
  return rows;
}

size_t rows_per_block(const Rows& rows) {
  constexpr size_t kBlock = 1 << 16;
  return std::clamp<size_t>(kBlock / std::max<size_t>(1, rows.length()), 1, std::max<size_t>(1, rows.channels));
}

size_t groups_of(size_t length, size_t group_size) { return (length + group_size - 1) / group_size; }

}  // namespace nibble
