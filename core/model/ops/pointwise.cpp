#include "core/model/ops/pointwise.hpp"

#include <bit>

namespace nibble::ops {

DType wide_type(const Call& call, DType dtype) {
  switch (dtype) {
    case DType::Float32:
    case DType::Float16:
    case DType::BFloat16:
    case DType::Float8E4M3FN:
    case DType::Float8E4M3FNUZ:
    case DType::Float8E5M2:
    case DType::Float8E5M2FNUZ:
    case DType::Float8E8M0:
    case DType::Float4E2M1: return DType::Float32;
    case DType::Float64: return DType::Float64;
    case DType::UInt64: return DType::UInt64;
    case DType::Complex64:
    case DType::Complex128:
    case DType::String:
      call.refuse("values of type " + std::string(to_string(dtype)) + " cannot be computed with here");
    default: return DType::Int64;
  }
}

namespace {

/// Rounded towards the neighbour whose last bit is 1 unless exact: rounding that once more, to fewer bits, gives what
/// rounding the double at once would (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
float to_float_odd(double value) {
  const auto nearest = static_cast<float>(value);
  const double back = nearest;
  const auto bits = std::bit_cast<uint32_t>(nearest);
  if (back == value || std::isnan(value) || std::isinf(nearest) || (bits & 1)) return nearest;
  return std::bit_cast<float>(std::fabs(back) > std::fabs(value) ? bits - 1 : bits + 1);
}

template <class To, class From>
To converted(From value) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (!(value == value)) return 0;
    // The largest double below 2^63 is as far as the conversion is defined.
    if constexpr (std::is_unsigned_v<To>) {
      if (value >= From(0x1p64)) return std::numeric_limits<To>::max();
      if (value >= From(0x1p63)) return static_cast<To>(value);
    }
    if (value >= From(0x1p63)) return static_cast<To>(std::numeric_limits<int64_t>::max());
    if (value < From(-0x1p63)) return static_cast<To>(std::numeric_limits<int64_t>::min());
    return static_cast<To>(static_cast<int64_t>(value));
  } else {
    return static_cast<To>(value);
  }
}

template <class To>
Tensor convert(const Tensor& wide, DType dtype) {
  Tensor out = Tensor::allocate(dtype, wide.shape());
  To* const to = out.write<To>().data();
  const size_t count = wide.elements();
  visit_wide(wide.dtype(), [&](auto zero) {
    using From = decltype(zero);
    const From* from = wide.data<From>().data();
    for (size_t i = 0; i < count; ++i) to[i] = converted<To>(from[i]);
  });
  return out;
}

template <class To>
Tensor low_bits(const Tensor& wide, DType dtype) {
  Tensor out = Tensor::allocate(dtype, wide.shape());
  To* const to = out.write<To>().data();
  const size_t count = wide.elements();
  visit_wide(wide.dtype(), [&](auto zero) {
    using From = decltype(zero);
    const From* from = wide.data<From>().data();
    for (size_t i = 0; i < count; ++i) to[i] = static_cast<To>(converted<int64_t>(from[i]));
  });
  return out;
}

template <class From>
Tensor widened(const Tensor& tensor) {
  Tensor out = Tensor::allocate(DType::Int64, tensor.shape());
  const std::span<const From> from = tensor.data<From>();
  std::copy(from.begin(), from.end(), out.write<int64_t>().begin());
  return out;
}

/// The values rounded to float so that one more rounding is right.
std::vector<float> floats_to_round(const Tensor& wide) {
  std::vector<float> out(wide.elements());
  visit_wide(wide.dtype(), [&](auto zero) {
    const auto from = wide.data<decltype(zero)>();
    for (size_t i = 0; i < out.size(); ++i) {
      if constexpr (std::is_same_v<decltype(zero), float>)
        out[i] = from[i];
      else
        out[i] = to_float_odd(static_cast<double>(from[i]));
    }
  });
  return out;
}

}  // namespace

Tensor to_wide(const Call& call, Tensor tensor) {
  const DType wide = wide_type(call, tensor.dtype());
  if (wide == tensor.dtype()) return tensor;
  switch (tensor.dtype()) {
    case DType::Int8: return widened<int8_t>(tensor);
    case DType::UInt8: return widened<uint8_t>(tensor);
    case DType::Int16: return widened<int16_t>(tensor);
    case DType::UInt16: return widened<uint16_t>(tensor);
    case DType::Int32: return widened<int32_t>(tensor);
    case DType::UInt32: return widened<uint32_t>(tensor);
    case DType::Bool: {
      // A file's bytes may be others than 0 and 1.
      Tensor out = Tensor::allocate(DType::Int64, tensor.shape());
      const std::span<const uint8_t> from = tensor.data<uint8_t>();
      std::transform(from.begin(), from.end(), out.write<int64_t>().begin(), [](uint8_t value) { return value != 0; });
      return out;
    }
    case DType::Float16:
    case DType::BFloat16: return as_floats(tensor);
    default: break;
  }
  const std::vector<float> values = widen(tensor);
  if (wide == DType::Float32) return Tensor::from(wide, tensor.shape(), std::span<const float>(values));
  Tensor out = Tensor::allocate(DType::Int64, tensor.shape());
  std::copy(values.begin(), values.end(), out.write<int64_t>().begin());
  return out;
}

Tensor from_wide(Tensor wide, DType dtype, bool saturate, PowerRounding rounding) {
  if (wide.dtype() == dtype) return wide;
  switch (dtype) {
    case DType::Float32: return convert<float>(wide, dtype);
    case DType::Float64: return convert<double>(wide, dtype);
    case DType::Int64: return convert<int64_t>(wide, dtype);
    case DType::UInt64: return convert<uint64_t>(wide, dtype);
    case DType::Int8:
    case DType::UInt8: return low_bits<uint8_t>(wide, dtype);
    case DType::Int16:
    case DType::UInt16: return low_bits<uint16_t>(wide, dtype);
    case DType::Int32:
    case DType::UInt32: return low_bits<uint32_t>(wide, dtype);
    case DType::Bool: {
      Tensor out = Tensor::allocate(dtype, wide.shape());
      const std::span<uint8_t> to = out.write<uint8_t>();
      visit_wide(wide.dtype(), [&](auto zero) {
        const auto from = wide.data<decltype(zero)>();
        for (size_t i = 0; i < to.size(); ++i) to[i] = from[i] != zero;
      });
      return out;
    }
    case DType::Int4:
    case DType::UInt4:
    case DType::Int2:
    case DType::UInt2: {
      const Tensor bits = low_bits<uint8_t>(wide, DType::UInt8);
      std::vector<float> values(bits.elements());
      const std::span<const uint8_t> from = bits.data<uint8_t>();
      const auto mask = static_cast<uint8_t>((1 << bits_of(dtype)) - 1);
      std::transform(from.begin(), from.end(), values.begin(),
                     [mask](uint8_t value) { return static_cast<float>(value & mask); });
      return narrowed(values, dtype, wide.shape(), false);
    }
    case DType::Float16:
    case DType::BFloat16:
      if (wide.dtype() == DType::Float32) return from_floats(dtype, wide.shape(), wide.data<float>());
      return from_floats(dtype, wide.shape(), floats_to_round(wide));
    default: break;
  }
  if (wide.dtype() == DType::Float32) return narrowed(wide.data<float>(), dtype, wide.shape(), saturate, rounding);
  return narrowed(floats_to_round(wide), dtype, wide.shape(), saturate, rounding);
}

Tensor as_floats(const Tensor& tensor) {
  if (tensor.dtype() == DType::Float32) return tensor;
  const FloatView view(tensor);
  return Tensor::from(DType::Float32, tensor.shape(), view.values());
}

}  // namespace nibble::ops
