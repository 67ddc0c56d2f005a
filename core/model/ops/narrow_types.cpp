#include "core/model/ops/narrow_types.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "core/base/error.hpp"

namespace nibble::ops {
namespace {

/// A small float: sign, exponent with `bias`, `mantissa` bits of fraction; exponent 0 holds the subnormals.
struct SmallFloat {
  int mantissa = 0, bias = 0;
  unsigned sign = 0;      ///< the sign's bit
  unsigned largest = 0;   ///< code of the largest finite value
  unsigned infinity = 0;  ///< what a value too large becomes: infinity or NaN, without sign
  unsigned nan = 0;
  bool has_negative_zero = true;  ///< otherwise that code is the only NaN
};

/// The tables of ONNX's "Float stored in 8 bits" and "Float stored in 4 bits".
constexpr SmallFloat kE4M3FN = {3, 7, 0x80, 0x7E, 0x7F, 0x7F, true};
constexpr SmallFloat kE4M3FNUZ = {3, 8, 0x80, 0x7F, 0x80, 0x80, false};
constexpr SmallFloat kE5M2 = {2, 15, 0x80, 0x7B, 0x7C, 0x7E, true};
constexpr SmallFloat kE5M2FNUZ = {2, 16, 0x80, 0x7F, 0x80, 0x80, false};
constexpr SmallFloat kE2M1 = {1, 1, 0x8, 0x7, 0x7, 0x8, true};

const SmallFloat* small_float(DType dtype) {
  switch (dtype) {
    case DType::Float8E4M3FN: return &kE4M3FN;
    case DType::Float8E4M3FNUZ: return &kE4M3FNUZ;
    case DType::Float8E5M2: return &kE5M2;
    case DType::Float8E5M2FNUZ: return &kE5M2FNUZ;
    case DType::Float4E2M1: return &kE2M1;
    default: return nullptr;
  }
}

float decoded(const SmallFloat& type, unsigned code) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  if (!type.has_negative_zero && code == type.nan) return kNan;
  const unsigned magnitude = code & (type.sign - 1);
  const bool negative = (code & type.sign) != 0;
  if (type.has_negative_zero && magnitude > type.largest) {
    const float beyond =
        magnitude == type.infinity && type.infinity != type.nan ? std::numeric_limits<float>::infinity() : kNan;
    return negative ? -beyond : beyond;
  }
  const unsigned hidden = 1u << type.mantissa;
  const unsigned exponent = magnitude >> type.mantissa;
  const unsigned fraction = magnitude & (hidden - 1);
  const float value = std::ldexp(static_cast<float>(exponent == 0 ? fraction : hidden + fraction),
                                 static_cast<int>(std::max(exponent, 1u)) - type.bias - type.mantissa);
  return negative ? -value : value;
}

/// x / 2^exponent to the nearest integer, ties to even. Exact: the quotient has at most 24 bits.
unsigned rounded_quotient(float magnitude, int exponent) {
  const double quotient = std::ldexp(static_cast<double>(magnitude), -exponent);
  return static_cast<unsigned>(std::nearbyint(quotient));
}

unsigned encoded(const SmallFloat& type, float value, bool saturate) {
  if (std::isnan(value)) return type.nan;
  const unsigned sign = std::signbit(value) ? type.sign : 0;
  const float magnitude = std::fabs(value);
  const auto beyond = [&] {
    if (saturate || type.infinity == type.largest) return sign | type.largest;
    return type.has_negative_zero ? sign | type.infinity : type.infinity;
  };
  if (std::isinf(value)) return beyond();
  const int lowest = 1 - type.bias;
  const int exponent = magnitude == 0 ? lowest : std::max(std::ilogb(magnitude), lowest);
  // A quotient that is rounded up to 2^(mantissa + 1) carries into the exponent, which is the next code.
  const unsigned quotient = rounded_quotient(magnitude, exponent - type.mantissa);
  const unsigned code = quotient + (static_cast<unsigned>(exponent - lowest) << type.mantissa);
  if (code > type.largest) return beyond();
  if (code == 0 && !type.has_negative_zero) return 0;
  return sign | code;
}

constexpr unsigned kPowerNan = 0xFF, kLargestPower = 0xFE;

/// 2^(code - 127). The sign is dropped, as ONNX's reference does: the type has none.
unsigned encoded_power(float value, bool saturate, PowerRounding rounding) {
  if (!std::isfinite(value)) return kPowerNan;
  const float magnitude = std::fabs(value);
  if (magnitude <= 0x1p-127f) return 0;
  const int exponent = std::ilogb(magnitude);
  const float power = std::ldexp(1.0f, exponent);
  const bool up = rounding == PowerRounding::Up ? magnitude > power
                                                : rounding == PowerRounding::Nearest && magnitude >= 1.5f * power;
  const unsigned code = static_cast<unsigned>(exponent + 127) + (up ? 1 : 0);
  return code > kLargestPower && saturate ? kLargestPower : code;
}

struct SmallInteger {
  int bits = 0, lowest = 0, highest = 0;
};

SmallInteger small_integer(DType dtype) {
  switch (dtype) {
    case DType::Int4: return {4, -8, 7};
    case DType::UInt4: return {4, 0, 15};
    case DType::Int2: return {2, -2, 1};
    case DType::UInt2: return {2, 0, 3};
    default: return {};
  }
}

unsigned encoded(const SmallInteger& type, float value, bool saturate) {
  if (std::isnan(value)) return 0;
  const unsigned mask = (1u << type.bits) - 1;
  if (saturate) {
    const float inside = std::clamp(value, static_cast<float>(type.lowest), static_cast<float>(type.highest));
    return static_cast<unsigned>(static_cast<int>(std::nearbyint(inside))) & mask;
  }
  // From 2^28 on every float32 is a multiple of 16: its low bits are zeros.
  if (std::fabs(value) >= 0x1p28f) return 0;
  return static_cast<unsigned>(static_cast<int>(std::nearbyint(value))) & mask;
}

float decoded(const SmallInteger& type, unsigned code) {
  const int value = static_cast<int>(code);
  return static_cast<float>(value > type.highest ? value - (1 << type.bits) : value);
}

/// Calls visit(i, code) with each packed element.
template <class Visit>
void for_each_code(const Tensor& tensor, const Visit& visit) {
  const std::span<const uint8_t> bytes = tensor.data<uint8_t>();
  const auto bits = static_cast<size_t>(bits_of(tensor.dtype()));
  const size_t per_byte = 8 / bits;
  const unsigned mask = (1u << bits) - 1;
  for (size_t i = 0; i < tensor.elements(); ++i) {
    visit(i, (unsigned{bytes[i / per_byte]} >> (i % per_byte * bits)) & mask);
  }
}

template <class T>
std::vector<float> converted(const Tensor& tensor) {
  const std::span<const T> values = tensor.data<T>();
  std::vector<float> out(values.size());
  std::transform(values.begin(), values.end(), out.begin(), [](T value) { return static_cast<float>(value); });
  return out;
}

}  // namespace

bool is_narrow(DType dtype) {
  return small_float(dtype) != nullptr || small_integer(dtype).bits != 0 || dtype == DType::Float8E8M0;
}

std::vector<float> widen(const Tensor& tensor) {
  if (is_real(tensor.dtype())) {
    const FloatView view(tensor);
    return {view.values().begin(), view.values().end()};
  }
  switch (tensor.dtype()) {
    case DType::Int8: return converted<int8_t>(tensor);
    case DType::UInt8: return converted<uint8_t>(tensor);
    case DType::Int16: return converted<int16_t>(tensor);
    case DType::UInt16: return converted<uint16_t>(tensor);
    case DType::Int32: return converted<int32_t>(tensor);
    case DType::UInt32: return converted<uint32_t>(tensor);
    default: break;
  }
  if (!is_narrow(tensor.dtype())) {
    fail(ErrorCode::Unsupported, std::string(to_string(tensor.dtype())), "values of this type cannot become float32");
  }
  std::array<float, 256> table = {};
  const SmallFloat* real = small_float(tensor.dtype());
  const SmallInteger integer = small_integer(tensor.dtype());
  for (unsigned code = 0; code < 1u << bits_of(tensor.dtype()); ++code) {
    if (real) {
      table[code] = decoded(*real, code);
    } else if (integer.bits) {
      table[code] = decoded(integer, code);
    } else {
      table[code] =
          code == kPowerNan ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, static_cast<int>(code) - 127);
    }
  }
  std::vector<float> out(tensor.elements());
  for_each_code(tensor, [&](size_t i, unsigned code) { out[i] = table[code]; });
  return out;
}

Tensor narrowed(std::span<const float> values, DType dtype, Shape shape, bool saturate, PowerRounding rounding) {
  if (!is_narrow(dtype)) {
    fail(ErrorCode::Unsupported, std::string(to_string(dtype)), "float32 values cannot be narrowed to this type");
  }
  Tensor tensor = Tensor::allocate(dtype, std::move(shape));
  if (tensor.elements() != values.size()) {
    fail(ErrorCode::BadData, std::string(to_string(dtype)),
         std::to_string(values.size()) + " values for " + std::to_string(tensor.elements()) + " elements");
  }
  const std::span<uint8_t> bytes = tensor.write<uint8_t>();
  std::fill(bytes.begin(), bytes.end(), uint8_t{0});
  const auto bits = static_cast<size_t>(bits_of(dtype));
  const size_t per_byte = 8 / bits;
  const SmallFloat* real = small_float(dtype);
  const SmallInteger integer = small_integer(dtype);
  for (size_t i = 0; i < values.size(); ++i) {
    const unsigned code = real           ? encoded(*real, values[i], saturate)
                          : integer.bits ? encoded(integer, values[i], saturate)
                                         : encoded_power(values[i], saturate, rounding);
    bytes[i / per_byte] = static_cast<uint8_t>(bytes[i / per_byte] | code << (i % per_byte * bits));
  }
  return tensor;
}

}  // namespace nibble::ops
