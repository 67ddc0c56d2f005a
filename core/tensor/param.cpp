#include "core/tensor/param.hpp"

#include <algorithm>
#include <cfloat>

#include "core/kernels/kernels.hpp"

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

namespace {

// Strips of this many rows of the matrix go through the transposition at a time: what it reads stays in the cache.
constexpr size_t kStrip = 64;

}  // namespace

void gather_rows(std::span<const float> values, const Rows& rows, size_t first, size_t count, std::span<float> block) {
  if (rows.inner != 1) return gather_rows<float>(values, rows, first, count, block);
  const size_t tallest = std::min(kStrip, rows.outer);
  std::vector<float> strip(tallest * count), turned(tallest * count);
  for (size_t o = 0; o < rows.outer; o += kStrip) {
    const size_t height = std::min(kStrip, rows.outer - o);
    for (size_t i = 0; i < height; ++i) {
      std::copy_n(values.data() + (o + i) * rows.channels + first, count, strip.data() + i * count);
    }
    const std::span<float> out = std::span(turned).first(height * count);
    kernels::transpose(std::span<const float>(strip).first(height * count), height, count, out);
    for (size_t c = 0; c < count; ++c) std::copy_n(out.data() + c * height, height, block.data() + c * rows.outer + o);
  }
}

void scatter_rows(std::span<const float> block, const Rows& rows, size_t first, size_t count, std::span<float> values) {
  if (rows.inner != 1) return scatter_rows<float>(block, rows, first, count, values);
  const size_t tallest = std::min(kStrip, rows.outer);
  std::vector<float> strip(tallest * count), turned(tallest * count);
  for (size_t o = 0; o < rows.outer; o += kStrip) {
    const size_t height = std::min(kStrip, rows.outer - o);
    for (size_t c = 0; c < count; ++c)
      std::copy_n(block.data() + c * rows.outer + o, height, strip.data() + c * height);
    const std::span<float> out = std::span(turned).first(height * count);
    kernels::transpose(std::span<const float>(strip).first(height * count), count, height, out);
    for (size_t i = 0; i < height; ++i) {
      std::copy_n(out.data() + i * count, count, values.data() + (o + i) * rows.channels + first);
    }
  }
}

size_t rows_per_block(const Rows& rows) {
  constexpr size_t kBlock = 1 << 18;
  return std::clamp<size_t>(kBlock / std::max<size_t>(1, rows.length()), 1, std::max<size_t>(1, rows.channels));
}

void snap_to_grid(const QuantParams& grid, const Rows& rows, std::span<const float> values, std::span<float> out,
                  std::span<float> inside) {
  const QuantScheme& scheme = grid.scheme;
  const bool by_row = scheme.granularity == Granularity::Channel || scheme.granularity == Granularity::Group;
  const Rows view = by_row ? rows : Rows{1, 1, values.size()};
  const size_t length = view.length();
  const size_t group = scheme.granularity == Granularity::Group ? scheme.group_size : std::max<size_t>(1, length);
  const size_t groups = std::max<size_t>(1, groups_of(length, group));
  const bool sign_only = scheme.bits == 1 && scheme.symmetric;

  const auto snap_part = [&](size_t index, std::span<const float> in, std::span<float> to, std::span<float> within) {
    kernels::Grid part;
    part.scale = grid.scale[index];
    part.inverse_scale = std::min(1 / part.scale, FLT_MAX);
    part.zero_point = grid.zero_point[index];
    part.lowest = lowest_code(scheme);
    part.highest = highest_code(scheme);
    const float lo = part.scale * static_cast<float>(part.lowest - part.zero_point) - part.scale / 2;
    const float hi = part.scale * static_cast<float>(part.highest - part.zero_point) + part.scale / 2;
    for (size_t i = 0; i < within.size(); ++i) within[i] = in[i] >= lo && in[i] <= hi ? 1.0f : 0.0f;
    if (!sign_only) return kernels::fake_quantize(in, part, to);
    for (size_t i = 0; i < in.size(); ++i) to[i] = in[i] < 0 ? -part.scale : part.scale;
  };
  const auto snap_row = [&](size_t row, std::span<const float> in, std::span<float> to, std::span<float> within) {
    for (size_t g = 0; g < groups; ++g) {
      const size_t begin = g * group, count = std::min(group, length - begin);
      snap_part(row * groups + g, in.subspan(begin, count), to.subspan(begin, count),
                within.empty() ? within : within.subspan(begin, count));
    }
  };
  if (values.empty()) return;
  if (view.outer == 1) {
    for (size_t row = 0; row < view.channels; ++row) {
      snap_row(row, values.subspan(row * length, length), out.subspan(row * length, length),
               inside.empty() ? inside : inside.subspan(row * length, length));
    }
    return;
  }
  std::vector<float> row_values(length), snapped(length), within(inside.empty() ? 0 : length);
  for (size_t row = 0; row < view.channels; ++row) {
    gather_rows<float>(values, view, row, 1, row_values);
    snap_row(row, row_values, snapped, within);
    scatter_rows<float>(snapped, view, row, 1, out);
    if (!inside.empty()) scatter_rows<float>(within, view, row, 1, inside);
  }
}

size_t groups_of(size_t length, size_t group_size) { return (length + group_size - 1) / group_size; }

}  // namespace nibble
