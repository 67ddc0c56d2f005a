// Transposition, and the 16-bit float types.
#include <algorithm>

#include "core/kernels/kernels.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {
namespace {

using namespace simd;

constexpr size_t kStep = 16;  // elements per iteration

/// Bits of the float with the same value as the half in the low 16 bits of each lane.
I32 float_bits(I32 half) {
  const I32 moved = (half & I32(0x7FFF)) << 13;  // exponent and fraction in a float's places
  const I32 exponent = moved & I32(31 << 23);
  const I32 normal = moved + I32((127 - 15) << 23);
  const I32 special = moved + I32((255 - 31) << 23);
  // A subnormal half is a fraction without the leading one: put one there, and subtract it as a float.
  const F32 leading = as<F32>(I32((127 - 14) << 23));
  const I32 subnormal = as<I32>(as<F32>(moved + I32((127 - 14) << 23)) - leading);
  I32 bits = xsimd::select(exponent == I32(0), subnormal, normal);
  bits = xsimd::select(exponent == I32(31 << 23), special, bits);
  return bits | ((half & I32(0x8000)) << 16);
}

/// The half nearest to each float, in the low 16 bits of its lane.
I32 half_bits(F32 v) {
  const I32 magnitude = magnitude_bits(v);
  const I32 odd = (magnitude >> 13) & I32(1);
  const I32 normal = (magnitude - I32(((127 - 15) << 23) - 0xFFF) + odd) >> 13;
  // Below 2^-14 the adder rounds: the sum with 2^-1 has its last bit at 2^-24, the step of subnormal halves.
  const F32 half_one(0.5f);
  const I32 subnormal = as<I32>(as<F32>(magnitude) + half_one) - as<I32>(half_one);
  const I32 nan = I32(0x7E00) | ((magnitude >> 13) & I32(0x3FF));
  I32 bits = xsimd::select(magnitude < I32((127 - 14) << 23), subnormal, normal);
  bits = xsimd::select(magnitude < I32((127 + 16) << 23), bits, I32(0x7C00));
  bits = xsimd::select(magnitude > I32(kInfinityBits), nan, bits);
  return bits | as<I32>((as<U32>(v) >> 16) & U32(0x8000u));
}

I32 bfloat16_bits(F32 v) {
  const U32 bits = as<U32>(v);
  const U32 rounded = (bits + U32(0x7FFFu) + ((bits >> 16) & U32(1u))) >> 16;
  const U32 nan = (bits >> 16) | U32(0x40u);
  return xsimd::select(magnitude_bits(v) > I32(kInfinityBits), as<I32>(nan), as<I32>(rounded));
}

/// Moves the tile of at most kTile rows and columns at (r, c).
constexpr size_t kTile = 16;
void transpose_tile(const float* x, size_t rows, size_t columns, size_t r, size_t c, float* out) {
  const size_t r_end = std::min(rows, r + kTile), c_end = std::min(columns, c + kTile);
  size_t j = c;
  for (; j + 4 <= c_end; j += 4) {
    size_t i = r;
    for (; i + 4 <= r_end; i += 4) {
      const float* from = x + i * columns + j;
      float* to = out + j * rows + i;
      F32 v0 = load_at(from), v1 = load_at(from + columns), v2 = load_at(from + 2 * columns),
          v3 = load_at(from + 3 * columns);
      transpose_4x4(v0, v1, v2, v3);
      store_at(to, v0), store_at(to + rows, v1), store_at(to + 2 * rows, v2), store_at(to + 3 * rows, v3);
    }
    for (; i < r_end; ++i) {
      for (size_t k = j; k < j + 4; ++k) out[k * rows + i] = x[i * columns + k];
    }
  }
  for (; j < c_end; ++j) {
    for (size_t i = r; i < r_end; ++i) out[j * rows + i] = x[i * columns + j];
  }
}

}  // namespace

void transpose(std::span<const float> x, size_t rows, size_t columns, std::span<float> out) {
  // Tiles as wide as a cache line both ways, so that each line is read and written whole while it is near.
  for (size_t r = 0; r < rows; r += kTile) {
    for (size_t c = 0; c < columns; c += kTile) transpose_tile(x.data(), rows, columns, r, c, out.data());
  }
}

void half_to_float(std::span<const uint16_t> x, std::span<float> out) {
  for_each_step<kStep>(x.data(), x.size(), out.data(), [](const uint16_t* in, float* to) {
    for (size_t i = 0; i < kStep; i += 8) {
      const Pair<I32> half = widen(load_at(in + i));
      store_at(to + i, as<F32>(float_bits(half.low)));
      store_at(to + i + 4, as<F32>(float_bits(half.high)));
    }
  });
}

void float_to_half(std::span<const float> x, std::span<uint16_t> out) {
  for_each_step<kStep>(x.data(), x.size(), out.data(), [](const float* in, uint16_t* to) {
    for (size_t i = 0; i < kStep; i += 8) {
      store_at(to + i, narrow_unsigned(half_bits(load_at(in + i)), half_bits(load_at(in + i + 4))));
    }
  });
}

void bfloat16_to_float(std::span<const uint16_t> x, std::span<float> out) {
  for_each_step<kStep>(x.data(), x.size(), out.data(), [](const uint16_t* in, float* to) {
    for (size_t i = 0; i < kStep; i += 8) {
      const Pair<I32> half = widen(load_at(in + i));
      store_at(to + i, as<F32>(half.low << 16));
      store_at(to + i + 4, as<F32>(half.high << 16));
    }
  });
}

void float_to_bfloat16(std::span<const float> x, std::span<uint16_t> out) {
  for_each_step<kStep>(x.data(), x.size(), out.data(), [](const float* in, uint16_t* to) {
    for (size_t i = 0; i < kStep; i += 8) {
      store_at(to + i, narrow_unsigned(bfloat16_bits(load_at(in + i)), bfloat16_bits(load_at(in + i + 4))));
    }
  });
}

}  // namespace nibble::kernels
