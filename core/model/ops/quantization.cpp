// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
#include <cmath>
#include <limits>

#include "core/model/ops/narrow_types.hpp"
#include "core/model/ops/support.hpp"

namespace nibble::ops {
namespace {

/// Which scale belongs to which element: x is [outer, size, inner] around the axis; element i has scale number
/// (outer * scales + place / block) * inner + inner place, or place alone where scales are one per slice.
struct Grid {
  size_t size = 1, inner = 1;  ///< of the axis, and of what follows it
  size_t block = 0;            ///< elements along the axis that share a scale; 0: one scale per place on the axis
  size_t blocks = 1;
  bool single = true;  ///< one scale for all

  /// Elements from a multiple of it on that have one scale.
  size_t run(size_t elements) const { return single ? elements : block == 0 ? inner : 1; }

  size_t operator()(size_t i) const {
    if (single) return 0;
    const size_t place = i / inner % size;
    if (block == 0) return place;
    return (i / inner / size * blocks + place / block) * inner + i % inner;
  }
};

Grid grid_of(const Call& call) {
  const Shape &x = call.in(0).shape(), &scale = call.in(1).shape();
  const int64_t block = call.integer("block_size", 0);
  if (block < 0) call.fail("block_size must not be negative, it is " + std::to_string(block));
  if (call.has(2) && call.in(2).shape() != scale && !(call.in(2).elements() == 1 && call.in(1).elements() == 1)) {
    call.fail("scale " + to_string(scale) + " and zero point " + to_string(call.in(2).shape()) + " differ in shape");
  }
  Grid grid;
  if (block == 0 && scale.size() <= 1 && call.in(1).elements() == 1) return grid;
  const size_t axis = axis_of(call, call.integer("axis", 1), x.size());
  grid.single = false;
  grid.size = x[axis];
  grid.inner = extent(x, axis + 1, x.size());
  if (block == 0) {
    if (scale.size() != 1 || scale[0] != grid.size) {
      call.fail("scales " + to_string(scale) + " for an axis of " + std::to_string(grid.size));
    }
    return grid;
  }
  grid.block = static_cast<size_t>(block);
  grid.blocks = grid.size / grid.block + (grid.size % grid.block != 0 ? 1 : 0);
  Shape wanted = x;
  wanted[axis] = grid.blocks;
  if (scale != wanted) {
    call.fail("scales must be " + to_string(wanted) + " for blocks of " + std::to_string(block) + ", they are " +
              to_string(scale));
  }
  return grid;
}

/// Values of x as float32. int32 beyond 2^24 is rounded by DequantizeLinear's own definition in float32.
std::vector<float> values_of(const Call& call, size_t input) {
  const Tensor& tensor = call.in(input);
  if (tensor.dtype() == DType::Int64 || tensor.dtype() == DType::UInt64 || tensor.dtype() == DType::Bool ||
      tensor.dtype() == DType::String || tensor.dtype() == DType::Complex64 || tensor.dtype() == DType::Complex128) {
    call.fail("input " + std::to_string(input) + " cannot be of type " + std::string(to_string(tensor.dtype())));
  }
  return widen(tensor);
}

std::vector<float> zero_points_of(const Call& call) {
  return call.has(2) ? values_of(call, 2) : std::vector<float>(call.in(1).elements(), 0.0f);
}

/// Rounded to even by the last bit of a float: exact up to 2^22, and beyond 2^18 every type here saturates. NaN stays.
float rounded(float x) {
  constexpr float kShift = 0x1.8p23f, kFar = 0x1p18f;
  return (std::clamp(x, -kFar, kFar) + kShift) - kShift;
}

template <class T>
void round_to(std::span<const float> x, float scale, float zero, T* to) {
  constexpr auto kLowest = static_cast<float>(std::numeric_limits<T>::min());
  constexpr auto kHighest = static_cast<float>(std::numeric_limits<T>::max());
  for (size_t i = 0; i < x.size(); ++i) {
    const float code = rounded(x[i] / scale) + zero;
    // In this order NaN becomes the lowest code.
    const float held = code > kLowest ? code : kLowest;
    to[i] = static_cast<T>(static_cast<int32_t>(held < kHighest ? held : kHighest));
  }
}

/// saturate(round_to_even(x / scale) + zero point) of an integer type of 8 or 16 bits.
template <class T>
Tensor quantized(const Grid& grid, std::span<const float> x, std::span<const float> scale, std::span<const float> zero,
                 Shape shape) {
  Tensor out = Tensor::allocate(dtype_of<T>(), std::move(shape));
  const std::span<T> to = out.write<T>();
  const size_t run = std::max<size_t>(1, grid.run(x.size()));
  for (size_t i = 0; i < x.size(); i += run) {
    const size_t at = grid(i);
    round_to(x.subspan(i, run), scale[at], zero[at], to.data() + i);
  }
  return out;
}

/// Integers: saturate(round_to_even(x / scale) + zero point); floats: the nearest value to x / scale.
std::vector<Tensor> quantize_linear(Call& call) {
  const Grid grid = grid_of(call);
  const std::vector<float> scale = values_of(call, 1), zero = zero_points_of(call);
  const DType dtype = call.type("output_dtype", call.has(2) ? call.in(2).dtype() : DType::UInt8);
  if (call.has(2) && call.in(2).dtype() != dtype) call.fail("output_dtype and the zero point's type differ");
  const Shape& shape = call.in(0).shape();
  std::vector<float> widened;
  if (call.in(0).dtype() != DType::Float32) widened = values_of(call, 0);
  const std::span<const float> x = call.in(0).dtype() == DType::Float32 ? call.floats(0) : widened;
  switch (dtype) {
    case DType::Int8: return {quantized<int8_t>(grid, x, scale, zero, shape)};
    case DType::UInt8: return {quantized<uint8_t>(grid, x, scale, zero, shape)};
    case DType::Int16: return {quantized<int16_t>(grid, x, scale, zero, shape)};
    case DType::UInt16: return {quantized<uint16_t>(grid, x, scale, zero, shape)};
    default: break;
  }
  if (!is_narrow(dtype)) call.refuse("an output of type " + std::string(to_string(dtype)));
  const bool integer = dtype == DType::Int4 || dtype == DType::UInt4 || dtype == DType::Int2 || dtype == DType::UInt2;
  // Every float8 has a zero point of 0 (ONNX); adding it would only spoil infinities.
  std::vector<float> codes(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t at = grid(i);
    const float quotient = x[i] / scale[at];
    codes[i] = integer ? rounded(quotient) + zero[at] : quotient;
  }
  return {narrowed(codes, dtype, shape, integer || call.integer("saturate", 1) != 0)};
}

/// (x - zero point) * scale of one type of integers.
template <class T>
void dequantize(const Grid& grid, std::span<const T> x, std::span<const float> scale, std::span<const float> zero,
                std::span<float> out) {
  const size_t run = std::max<size_t>(1, grid.run(x.size()));
  for (size_t i = 0; i < x.size(); i += run) {
    const size_t at = grid(i);
    const float step = scale[at], shift = zero[at];
    for (size_t k = i; k < i + run; ++k) out[k] = (static_cast<float>(x[k]) - shift) * step;
  }
}

/// (x - zero point) * scale, of the scale's type or of output_dtype.
std::vector<Tensor> dequantize_linear(Call& call) {
  const Grid grid = grid_of(call);
  const std::vector<float> scale = values_of(call, 1);
  const DType dtype = call.type("output_dtype", call.in(1).dtype());
  if (!is_real(dtype)) call.refuse("an output of type " + std::string(to_string(dtype)));
  const Shape& shape = call.in(0).shape();
  std::vector<float> values;
  if (call.in(0).dtype() == DType::Int32) {
    // In whole numbers, which float32 cannot hold.
    const std::span<const int32_t> codes = call.in(0).data<int32_t>();
    if (call.has(2) && call.in(2).dtype() != DType::Int32) call.fail("the zero point must be int32, as the input is");
    const std::span<const int32_t> zero = call.has(2) ? call.in(2).data<int32_t>() : std::span<const int32_t>();
    values.resize(codes.size());
    for (size_t i = 0; i < codes.size(); ++i) {
      const size_t at = grid(i);
      values[i] = static_cast<float>(int64_t{codes[i]} - (zero.empty() ? 0 : zero[at])) * scale[at];
    }
  } else {
    const std::vector<float> zero = zero_points_of(call);
    const Tensor& x = call.in(0);
    values.resize(x.elements());
    switch (x.dtype()) {
      case DType::Int8: dequantize(grid, x.data<int8_t>(), scale, zero, values); break;
      case DType::UInt8: dequantize(grid, x.data<uint8_t>(), scale, zero, values); break;
      case DType::Int16: dequantize(grid, x.data<int16_t>(), scale, zero, values); break;
      case DType::UInt16: dequantize(grid, x.data<uint16_t>(), scale, zero, values); break;
      default: dequantize<float>(grid, values_of(call, 0), scale, zero, values);
    }
  }
  return {from_floats(dtype, shape, values)};
}

/// uint8 codes over the range of x and 0, per tensor.
std::vector<Tensor> dynamic_quantize_linear(Call& call) {
  const std::span<const float> x = call.floats(0);
  float lowest = 0, highest = 0;
  for (const float value : x) {
    lowest = std::min(lowest, value);
    highest = std::max(highest, value);
  }
  const float scale = (highest - lowest) / 255;
  // All zeros: any scale gives zeros back; 1 keeps the division below from making NaN.
  const float step = scale > 0 ? scale : 1.0f;
  const float middle = 0 - lowest / step;  // NaN where the range is infinite
  const float zero = middle > 0 ? rounded(std::min(middle, 255.0f)) : 0.0f;
  Tensor codes = Tensor::allocate(DType::UInt8, call.in(0).shape());
  round_to(x, step, zero, codes.write<uint8_t>().data());
  return {codes, full<float>({}, step), full<uint8_t>({}, static_cast<uint8_t>(zero))};
}

}  // namespace

std::span<const Op> quantization_ops() {
  // Rounding has no useful gradient: training through it is refused rather than stopped in silence.
  static const Op kOps[] = {
      {.name = "QuantizeLinear", .forward = quantize_linear},
      {.name = "DequantizeLinear", .forward = dequantize_linear},
      {.name = "DynamicQuantizeLinear", .forward = dynamic_quantize_linear},
  };
  return kOps;
}

}  // namespace nibble::ops
