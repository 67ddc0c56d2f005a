#include "core/tensor/param.hpp"

#include <algorithm>

#include "core/kernels/kernels.hpp"

namespace nibble {

int32_t lowest_code(const QuantScheme& scheme) { return scheme.symmetric ? -highest_code(scheme) : 0; }

int32_t highest_code(const QuantScheme& scheme) {
  if (!scheme.symmetric) return (1 << scheme.bits) - 1;
  return scheme.bits == 1 ? 1 : (1 << (scheme.bits - 1)) - 1;
}

Rows rows_of(const Shape& shape, std::optional<size_t> channel_axis) {
  if (!channel_axis) return {1, 1, elements_of(shape)};
  Rows rows;
  for (size_t axis = 0; axis < *channel_axis; ++axis) rows.outer *= shape[axis];
  rows.channels = shape[*channel_axis];
  for (size_t axis = *channel_axis + 1; axis < shape.size(); ++axis) rows.inner *= shape[axis];
  return rows;
}

namespace {

// Moves blocks of `inner` from [first, second, inner] to [second, first, inner].
void swap_outer(std::span<const float> values, size_t first, size_t second, size_t inner, std::span<float> out) {
  if (inner == 1) {
    kernels::transpose(values, first, second, out);
    return;
  }
  for (size_t i = 0; i < first; ++i) {
    for (size_t j = 0; j < second; ++j) {
      const auto block = values.subspan((i * second + j) * inner, inner);
      std::copy(block.begin(), block.end(), out.begin() + static_cast<ptrdiff_t>((j * first + i) * inner));
    }
  }
}

}  // namespace

void gather_rows(std::span<const float> values, const Rows& rows, std::span<float> out) {
  swap_outer(values, rows.outer, rows.channels, rows.inner, out);
}

void scatter_rows(std::span<const float> values, const Rows& rows, std::span<float> out) {
  swap_outer(values, rows.channels, rows.outer, rows.inner, out);
}

RowView::RowView(std::span<const float> values, const Rows& rows) : all_(values), length_(rows.length()) {
  if (rows.outer == 1) return;
  gathered_.resize(values.size());
  gather_rows(values, rows, gathered_);
  all_ = gathered_;
}

size_t groups_of(size_t length, size_t group_size) { return (length + group_size - 1) / group_size; }

}  // namespace nibble
