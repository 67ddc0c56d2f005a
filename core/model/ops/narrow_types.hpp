// Elements narrower than what is computed with: the 8-bit and 4-bit floats, the 4-bit and 2-bit integers.
#pragma once

#include <span>
#include <vector>

#include "core/tensor/tensor.hpp"

namespace nibble::ops {

/// True for float8 (all five), float4e2m1, int4, uint4, int2 and uint2.
bool is_narrow(DType dtype);

/// Where float8e8m0, which is powers of two alone, takes a value between two of them (Cast-25's `round_mode`).
enum class PowerRounding : uint8_t { Up, Down, Nearest };

/// The elements of a tensor of a narrow type, of a real type, or of integers of 8 to 32 bits, as float32: exact but for
/// float64 and large 32-bit integers, which are rounded to nearest.
std::vector<float> widen(const Tensor& tensor);

/// A tensor of a narrow type from float32 values, rounded to nearest even.
///
/// Floats, by the tables of ONNX's "Float stored in 8 bits" and by its test data: with `saturate` what lies beyond the
/// largest value becomes that value, infinity as well; without, infinity where the type has one and NaN elsewhere.
/// float4e2m1 always saturates; its NaN is -0, as the test data has it.
/// Integers: with `saturate` clamped (QuantizeLinear), without the lowest bits are kept (Cast); NaN becomes 0.
Tensor narrowed(std::span<const float> values, DType dtype, Shape shape, bool saturate,
                PowerRounding rounding = PowerRounding::Up);

}  // namespace nibble::ops
