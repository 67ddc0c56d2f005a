// The integers behind a weight that lies on a grid.
#pragma once

#include <optional>
#include <span>

#include "core/tensor/param.hpp"

namespace nibble {

/// Codes of rows first to first + count, given and written in row order (rows_of the weight's shape and channel axis):
/// [count, row length]. False where a value is not a point of the grid that the weight is promised to be on. Code is
/// int8_t, uint8_t, int16_t or uint16_t.
template <class Code>
bool codes_of_rows(const Param& param, const Rows& rows, size_t first_row, size_t count, std::span<const float> values,
                   std::span<Code> out);

/// Codes less their zero points, in the weight's own order: 0 is the value 0.
bool grid_levels(const Param& param, std::optional<size_t> channel_axis, std::span<int32_t> levels);

}  // namespace nibble
