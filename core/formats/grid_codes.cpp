#include "core/formats/grid_codes.hpp"

#include <algorithm>

#include "core/kernels/kernels.hpp"

namespace nibble {

namespace {

/// Half floats are so coarse that a value's nearest code may mean another value once rounded, where a neighbouring code
/// means this one (stochastic rounding picks such codes). Looks among the neighbours of `guess`.
std::optional<int32_t> code_near(int32_t guess, float value, const kernels::Grid& grid, DType dtype) {
  for (const int32_t distance : {-1, 1, -2, 2}) {
    const int32_t code = std::clamp(guess + distance, grid.lowest, grid.highest);
    float meant = grid.scale * static_cast<float>(code - grid.zero_point);
    round_through(dtype, std::span(&meant, 1));
    if (meant == value) return code;
  }
  return std::nullopt;
}

}  // namespace

template <class Code>
bool codes_of_rows(const Param& param, const Rows& rows, size_t first_row, size_t count, std::span<const float> values,
                   std::span<Code> out) {
  const QuantParams& grid = *param.grid;
  const size_t length = rows.length();
  const size_t group = grid.scheme.granularity == Granularity::Group ? grid.scheme.group_size : length;
  const size_t groups = length ? groups_of(length, group) : 0;
  std::vector<float> check(std::min(group, length));
  for (size_t row = 0; row < count; ++row) {
    for (size_t g = 0; g < groups; ++g) {
      const size_t index = grid.scale.size() == 1 ? 0 : (first_row + row) * groups + g;
      const size_t first = row * length + g * group, size = std::min(group, length - g * group);
      const kernels::Grid affine{grid.scale[index], 1.0f / grid.scale[index], grid.zero_point[index],
                                 lowest_code(grid.scheme), highest_code(grid.scheme)};
      const auto part = values.subspan(first, size);
      const auto codes = out.subspan(first, size);
      kernels::quantize(part, affine, codes);
      const std::span<float> meant = std::span(check).first(size);
      kernels::dequantize(std::span<const Code>(codes), affine, meant);
      round_through(param.value.dtype(), meant);
      if (std::equal(meant.begin(), meant.end(), part.begin())) continue;
      for (size_t i = 0; i < size; ++i) {
        if (meant[i] == part[i]) continue;
        const std::optional<int32_t> code = code_near(codes[i], part[i], affine, param.value.dtype());
        if (!code) return false;
        codes[i] = static_cast<Code>(*code);
      }
    }
  }
  return true;
}

template bool codes_of_rows<int8_t>(const Param&, const Rows&, size_t, size_t, std::span<const float>,
                                    std::span<int8_t>);
template bool codes_of_rows<uint8_t>(const Param&, const Rows&, size_t, size_t, std::span<const float>,
                                     std::span<uint8_t>);
template bool codes_of_rows<int16_t>(const Param&, const Rows&, size_t, size_t, std::span<const float>,
                                     std::span<int16_t>);
template bool codes_of_rows<uint16_t>(const Param&, const Rows&, size_t, size_t, std::span<const float>,
                                      std::span<uint16_t>);

namespace {

template <class Code>
bool levels_by(const Param& param, const Rows& rows, std::span<int32_t> levels) {
  const QuantParams& grid = *param.grid;
  const size_t group = grid.scheme.granularity == Granularity::Group ? grid.scheme.group_size : rows.length();
  const size_t groups = rows.length() ? groups_of(rows.length(), group) : 0;
  const FloatView values(param.value);
  std::vector<Code> codes;
  std::vector<int32_t> in_rows;
  bool all = true;
  for_each_row_block(values.values(), rows, [&](size_t first, size_t count, std::span<const float> block) {
    codes.resize(block.size());
    all = all && codes_of_rows<Code>(param, rows, first, count, block, std::span(codes));
    if (!all) return;
    in_rows.resize(block.size());
    for (size_t i = 0; i < block.size(); ++i) {
      const size_t row = first + i / rows.length(), at = i % rows.length() / group;
      in_rows[i] = codes[i] - grid.zero_point[grid.scale.size() == 1 ? 0 : row * groups + at];
    }
    scatter_rows(std::span<const int32_t>(in_rows), rows, first, count, levels);
  });
  return all;
}

}  // namespace

bool grid_levels(const Param& param, std::optional<size_t> channel_axis, std::span<int32_t> levels) {
  const Granularity granularity = param.grid->scheme.granularity;
  const bool by_row = granularity == Granularity::Channel || granularity == Granularity::Group;
  const Rows rows = rows_of(param.value.shape(), by_row ? channel_axis : std::nullopt);
  return param.grid->scheme.symmetric ? levels_by<int16_t>(param, rows, levels)
                                      : levels_by<uint16_t>(param, rows, levels);
}

}  // namespace nibble
