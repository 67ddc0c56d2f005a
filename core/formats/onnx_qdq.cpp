// A quantized weight as ONNX holds it: integer codes, scales and zero points behind a DequantizeLinear node.
#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "core/formats/grid_codes.hpp"
#include "core/formats/onnx_fields.hpp"
#include "core/formats/onnx_internal.hpp"
#include "core/kernels/kernels.hpp"

namespace nibble::onnx {

namespace {

/// How the codes lie in the file. Blocked scales run along one axis of the codes' shape, so groups that run through
/// several axes of the weight (a convolution's inputs and positions) need the codes as [channels, inputs], with a
/// Reshape and sometimes a Transpose behind them.
struct Layout {
  Shape shape;           ///< of the codes
  bool rows = false;     ///< codes are in row order, [channels, inputs], not in the weight's own
  int64_t axis = 0;      ///< of the scales (per channel), or of the blocks
  bool reshape = false;  ///< behind the DequantizeLinear
  std::vector<int64_t> reshape_to;
  std::vector<int64_t> transpose;  ///< behind the Reshape; empty: none
  bool scales_transposed = false;  ///< scales are [groups, channels] in the file
};

Layout layout_of(const Param& param, const Weight& weight, const Rows& rows) {
  const Shape& shape = param.value.shape();
  Layout layout;
  layout.shape = shape;
  const Granularity granularity = param.grid->scheme.granularity;
  if (granularity != Granularity::Group) {
    layout.axis = static_cast<int64_t>(weight.channel_axis.value_or(0));
    return layout;
  }
  const bool matrix = shape.size() == 2 && weight.channel_axis;
  if (matrix && *weight.channel_axis == 1) {
    layout.axis = 0;
    layout.scales_transposed = true;
    return layout;
  }
  layout.axis = 1;
  layout.shape = {rows.channels, rows.length()};
  if (matrix) return layout;
  layout.rows = true;
  layout.reshape = true;
  if (rows.outer == 1) {
    layout.reshape_to.assign(shape.begin(), shape.end());
    return layout;
  }
  // [outer..., channels, inner...] was gathered to [channels, outer..., inner...].
  const size_t channel = *weight.channel_axis;
  layout.reshape_to.push_back(static_cast<int64_t>(shape[channel]));
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (axis != channel) layout.reshape_to.push_back(static_cast<int64_t>(shape[axis]));
    layout.transpose.push_back(static_cast<int64_t>(axis < channel ? axis + 1 : axis == channel ? 0 : axis));
  }
  return layout;
}

template <class Code>
Tensor make_codes(const Param& param, const Rows& rows, const Layout& layout, DType codes) {
  const FloatView values(param.value);
  const bool pack = bits_of(codes) == 4;
  Tensor unpacked =
      pack ? Tensor::allocate(DType::Int8, {values.values().size()}) : Tensor::allocate(codes, layout.shape);
  const std::span<Code> out = unpacked.write<Code>();
  const bool in_row_order = rows.outer == 1 || layout.rows;
  std::vector<Code> scattered(in_row_order ? 0 : rows_per_block(rows) * rows.length());
  for_each_row_block(values.values(), rows, [&](size_t first, size_t count, std::span<const float> block) {
    const std::span<Code> target =
        in_row_order ? out.subspan(first * rows.length(), block.size()) : std::span(scattered).first(block.size());
    // The grid is a promise about the values; a file whose codes mean something else must never be written.
    if (!codes_of_rows<Code>(param, rows, first, count, block, target))
      throw std::logic_error(param.name + ": a value is not on the grid that it is promised to be on");
    if (!in_row_order) scatter_rows(std::span<const Code>(target), rows, first, count, out);
  });
  if (!pack) return unpacked;
  Tensor packed = Tensor::allocate(codes, layout.shape);
  kernels::pack_bits(unpacked.data<uint8_t>(), 4, packed.write<uint8_t>());
  return packed;
}

/// Integers in the codes' own type, packed where that has four bits.
Tensor integers(DType codes, const Shape& shape, std::span<const int32_t> values) {
  std::vector<std::byte> bytes;
  const size_t width = bits_of(codes) == 16 ? 2 : 1;
  for (const int32_t value : values) {
    for (size_t i = 0; i < width; ++i) bytes.push_back(static_cast<std::byte>(value >> (8 * i) & 0xff));
  }
  if (bits_of(codes) != 4) return Tensor::copy_of(codes, shape, bytes);
  Tensor packed = Tensor::allocate(codes, shape);
  kernels::pack_bits({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, 4, packed.write<uint8_t>());
  return packed;
}

/// [rows, columns] to [columns, rows].
template <class T>
std::vector<T> transposed(const std::vector<T>& values, size_t rows) {
  const size_t columns = rows ? values.size() / rows : 0;
  std::vector<T> out(values.size());
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < columns; ++j) out[j * rows + i] = values[i * columns + j];
  }
  return out;
}

}  // namespace

DType code_type(const QuantScheme& scheme, bool four_bit_types) {
  if (scheme.bits > 8) return scheme.symmetric ? DType::Int16 : DType::UInt16;
  if (scheme.bits > 4 || !four_bit_types) return scheme.symmetric ? DType::Int8 : DType::UInt8;
  return scheme.symmetric ? DType::Int4 : DType::UInt4;
}

Qdq build_qdq(const Param& param, const Weight& weight, const std::string& name, DType codes,
              const std::function<std::string(const std::string&)>& unused) {
  const QuantParams& grid = *param.grid;
  const Rows rows = rows_of(param.value.shape(), weight.channel_axis);
  const Layout layout = layout_of(param, weight, rows);
  const bool one_scale = grid.scale.size() == 1 && grid.scheme.granularity != Granularity::Group;

  Shape scale_shape;
  std::vector<float> scale = grid.scale;
  std::vector<int32_t> zero_point = grid.zero_point;
  if (grid.scheme.granularity == Granularity::Group) {
    const size_t groups = groups_of(rows.length(), grid.scheme.group_size);
    scale_shape = layout.scales_transposed ? Shape{groups, rows.channels} : Shape{rows.channels, groups};
    if (layout.scales_transposed) {
      scale = transposed(scale, rows.channels);
      zero_point = transposed(zero_point, rows.channels);
    }
  } else if (!one_scale) {
    scale_shape = {scale.size()};
  }

  Qdq qdq;
  Node node{"", "DequantizeLinear", "", {unused(name + "_quantized"), unused(name + "_scale")}, {}, {}, ""};
  node.name = unused(name + "_dequantize");
  qdq.initializers.push_back({node.inputs[0], codes, layout.shape,
                              [param, rows, layout, codes] {
                                if (bits_of(codes) == 16) {
                                  return codes == DType::Int16 ? make_codes<int16_t>(param, rows, layout, codes)
                                                               : make_codes<uint16_t>(param, rows, layout, codes);
                                }
                                const bool is_signed = codes == DType::Int8 || codes == DType::Int4;
                                return is_signed ? make_codes<int8_t>(param, rows, layout, codes)
                                                 : make_codes<uint8_t>(param, rows, layout, codes);
                              },
                              Source{weight.param, StoredArray::Codes, codes, layout.rows, false}});
  const size_t scales = scale.size();
  qdq.initializers.push_back(
      {node.inputs[1], DType::Float32, scale_shape,
       [scale = std::move(scale), scale_shape] { return Tensor::from<float>(DType::Float32, scale_shape, scale); },
       Source{weight.param, StoredArray::Scales, DType::Float32, false, layout.scales_transposed}});
  qdq.payload_bytes = bytes_for(codes, param.value.elements()) + scales * sizeof(float);
  if (!grid.scheme.symmetric) {
    node.inputs.push_back(unused(name + "_zero_point"));
    qdq.initializers.push_back(
        {node.inputs[2], codes, scale_shape,
         [zero_point = std::move(zero_point), scale_shape, codes] { return integers(codes, scale_shape, zero_point); },
         Source{weight.param, StoredArray::ZeroPoints, codes, false, layout.scales_transposed}});
    qdq.payload_bytes += bytes_for(codes, scales);
  }
  if (!one_scale) node.attributes.push_back({"axis", layout.axis, ""});
  if (grid.scheme.granularity == Granularity::Group) {
    node.attributes.push_back({"block_size", static_cast<int64_t>(grid.scheme.group_size), ""});
  }

  std::vector<Node> behind;
  if (layout.reshape) {
    const std::string shape = unused(name + "_shape");
    const std::vector<int64_t> extents = layout.reshape_to;
    qdq.initializers.push_back({shape,
                                DType::Int64,
                                {extents.size()},
                                [extents] { return Tensor::from<int64_t>(DType::Int64, {extents.size()}, extents); },
                                {}});
    behind.push_back({unused(name + "_reshape"), "Reshape", "", {"", shape}, {}, {}, ""});
  }
  if (!layout.transpose.empty()) {
    behind.push_back({unused(name + "_transpose"), "Transpose", "", {""}, {}, {{"perm", layout.transpose, ""}}, ""});
  }
  // DequantizeLinear gives float32 (other scale types came late and round on the way); the weight's own type is one
  // exact rounding behind it.
  if (param.value.dtype() != DType::Float32) {
    behind.push_back(
        {unused(name + "_cast"), "Cast", "", {""}, {}, {{"to", int64_t{code_of(param.value.dtype())}, ""}}, ""});
  }
  qdq.nodes.push_back(std::move(node));
  for (Node& next : behind) {
    const std::string between = unused(name + "_dequantized");
    qdq.nodes.back().outputs = {between};
    next.inputs[0] = between;
    qdq.nodes.push_back(std::move(next));
  }
  qdq.nodes.back().outputs = {name};
  return qdq;
}

}  // namespace nibble::onnx
