// Uniform quantization: float to code, code to float, and both in one pass. Rounding to nearest, ties to even, is left
// to the floating-point adder (see round_bits in simd.hpp), clamping to the saturating narrowing that is needed anyway.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "core/base/context.hpp"
#include "core/kernels/kernels.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {
namespace {

using namespace simd;

constexpr size_t kStep = 32;     // elements per iteration: enough work to hide what a loop costs in WebAssembly
constexpr size_t kBlock = 2048;  // elements between two looks at what cannot be converted the fast way

/// The ends of a grid as the distance from the code of zero: at most 98303 in magnitude, so exact in float.
float lowest_of(const Grid& grid) { return static_cast<float>(grid.lowest - grid.zero_point); }
float highest_of(const Grid& grid) { return static_cast<float>(grid.highest - grid.zero_point); }

template <class Code>
using CodeBatch = xsimd::make_sized_batch_t<Code, 16 / sizeof(Code)>;

/// Narrows as many vectors of 32-bit codes as one vector of Code takes, with saturation.
template <class Code>
CodeBatch<Code> narrow_to(const I32* c) {
  if constexpr (std::is_same_v<Code, int8_t>) return narrow(narrow(c[0], c[1]), narrow(c[2], c[3]));
  if constexpr (std::is_same_v<Code, uint8_t>) return narrow_unsigned(narrow(c[0], c[1]), narrow(c[2], c[3]));
  if constexpr (std::is_same_v<Code, int16_t>) return narrow(c[0], c[1]);
  if constexpr (std::is_same_v<Code, uint16_t>) return narrow_unsigned(c[0], c[1]);
}

template <class Code>
void quantize_span(const float* x, size_t n, const Grid& grid, Code* out) {
  constexpr size_t kVectors = 4 / sizeof(Code);  // vectors of floats per vector of codes
  const F32 inverse(grid.inverse_scale), lowest(lowest_of(grid)), highest(highest_of(grid));
  const F32 shift = in_register<F32>(kRoundShift);
  const auto bias = I32(kRoundShiftBits - grid.zero_point);
  const CodeBatch<Code> first(static_cast<Code>(grid.lowest)), last(static_cast<Code>(grid.highest));

  // Sound for every input: NaN becomes 0, the rest is clamped before it is rounded.
  const auto careful = [=](const float* in, Code* codes) {
    for (size_t i = 0; i < kStep; i += 4 * kVectors) {
      I32 c[kVectors];
      for (size_t j = 0; j < kVectors; ++j) {
        const F32 place = load_at(in + i + 4 * j) * inverse;
        const F32 number = as<F32>(as<I32>(place) & to_bits(place == place));
        c[j] = round_bits(lesser(greater(number, lowest), highest), shift) - bias;
      }
      store_at(codes + i, narrow_to<Code>(c));
    }
  };

  // Three instructions a vector to get the codes; `top` watches for what they get wrong (see round_bits).
  size_t done = 0;
  while (n - done >= kStep) {
    const size_t block = std::min(n - done, kBlock) / kStep * kStep;
    const float* in = x + done;
    Code* codes = out + done;
    U32 top(0u);
    for (size_t s = 0; s < block; s += kStep) {
      for (size_t i = s; i < s + kStep; i += 4 * kVectors) {
        I32 c[kVectors];
        for (size_t j = 0; j < kVectors; ++j) {
          const I32 bits = round_bits(load_at(in + i + 4 * j) * inverse, shift);
          top = xsimd::max(top, as<U32>(bits));
          c[j] = bits - bias;
        }
        store_at(codes + i, xsimd::min(xsimd::max(narrow_to<Code>(c), first), last));
      }
    }
    if (xsimd::reduce_max(top) > static_cast<uint32_t>(kInfinityBits)) {
      for (size_t s = 0; s < block; s += kStep) careful(in + s, codes + s);
    }
    done += block;
  }
  for_each_step<kStep>(x + done, n - done, out + done, careful);
}

template <class Code>
void dequantize_span(const Code* codes, size_t n, const Grid& grid, float* out) {
  const F32 scale(grid.scale);
  const I32 zero(grid.zero_point);
  const auto put = [=](float* at, I32 c) { store_at(at, scale * to_float(c - zero)); };
  for_each_step<kStep>(codes, n, out, [=](const Code* in, float* to) {
    for (size_t i = 0; i < kStep; i += 16 / sizeof(Code)) {
      if constexpr (sizeof(Code) == 1) {
        const auto half = widen(load_at(in + i));
        const auto a = widen(half.low), b = widen(half.high);
        put(to + i, a.low), put(to + i + 4, a.high), put(to + i + 8, b.low), put(to + i + 12, b.high);
      } else {
        const auto a = widen(load_at(in + i));
        put(to + i, a.low), put(to + i + 4, a.high);
      }
    }
  });
}

}  // namespace

void quantize(std::span<const float> x, const Grid& grid, std::span<int8_t> out) {
  quantize_span(x.data(), x.size(), grid, out.data());
}
void quantize(std::span<const float> x, const Grid& grid, std::span<uint8_t> out) {
  quantize_span(x.data(), x.size(), grid, out.data());
}
void quantize(std::span<const float> x, const Grid& grid, std::span<int16_t> out) {
  quantize_span(x.data(), x.size(), grid, out.data());
}
void quantize(std::span<const float> x, const Grid& grid, std::span<uint16_t> out) {
  quantize_span(x.data(), x.size(), grid, out.data());
}

void dequantize(std::span<const int8_t> codes, const Grid& grid, std::span<float> out) {
  dequantize_span(codes.data(), codes.size(), grid, out.data());
}
void dequantize(std::span<const uint8_t> codes, const Grid& grid, std::span<float> out) {
  dequantize_span(codes.data(), codes.size(), grid, out.data());
}
void dequantize(std::span<const int16_t> codes, const Grid& grid, std::span<float> out) {
  dequantize_span(codes.data(), codes.size(), grid, out.data());
}
void dequantize(std::span<const uint16_t> codes, const Grid& grid, std::span<float> out) {
  dequantize_span(codes.data(), codes.size(), grid, out.data());
}

void fake_quantize(std::span<const float> x, const Grid& grid, std::span<float> out) {
  const F32 inverse(grid.inverse_scale), scale(grid.scale), lowest(lowest_of(grid)), highest(highest_of(grid));
  for_each_step<kStep>(x.data(), x.size(), out.data(), [=](const float* in, float* to) {
    for (size_t i = 0; i < kStep; i += 4) {
      const F32 place = load_at(in + i) * inverse;
      const F32 number = as<F32>(as<I32>(place) & to_bits(place == place));
      store_at(to + i, scale * round_small(lesser(greater(number, lowest), highest)));
    }
  });
}

void fake_quantize_stochastic(std::span<const float> x, const Grid& grid, uint64_t key, uint64_t first,
                              std::span<float> out) {
  const F32 inverse(grid.inverse_scale), scale(grid.scale), lowest(lowest_of(grid)), highest(highest_of(grid));
  uint64_t counter = first;
  for_each_step<kStep>(x.data(), x.size(), out.data(), [=, &counter](const float* in, float* to) {
    float uniform[kStep];
    for (size_t i = 0; i < kStep; ++i) uniform[i] = uniform24(key, counter + i);
    counter += kStep;
    for (size_t i = 0; i < kStep; i += 4) {
      const F32 place = load_at(in + i) * inverse;
      const F32 raised = xsimd::floor(place + load_at(uniform + i));
      const F32 number = as<F32>(as<I32>(raised) & to_bits(place == place));
      // Never -0: a place of -0 becomes +0 when the uniform number is added.
      store_at(to + i, scale * lesser(greater(number, lowest), highest));
    }
  });
}

double quantization_error(std::span<const float> x, const Grid& grid) {
  constexpr size_t kRun = 64;
  const F32 inverse(grid.inverse_scale), scale(grid.scale), lowest(lowest_of(grid)), highest(highest_of(grid));
  const float* p = x.data();
  const size_t n = x.size();
  F64 low(0.0), high(0.0);

  // A NaN passes through lesser() and greater() in this argument order and so shows in the sum; so do infinities, and
  // then the run is taken again with everything that is not finite left out.
  const auto plain = [=](const float* in) {
    F32 sum(0.0f);
    for (size_t i = 0; i < kRun; i += 4) {
      const F32 v = load_at(in + i);
      const F32 error = v - scale * round_small(lesser(greater(v * inverse, lowest), highest));
      sum = sum + error * error;
    }
    return sum;
  };
  const auto careful = [=](const float* in) {
    F32 sum(0.0f);
    for (size_t i = 0; i < kRun; i += 4) {
      const F32 v = load_at(in + i), place = v * inverse;
      const F32 number = as<F32>(as<I32>(place) & to_bits(place == place));
      const F32 error = v - scale * round_small(lesser(greater(number, lowest), highest));
      const Mask32 finite = xsimd::abs(v) < F32(std::numeric_limits<float>::infinity());
      sum = sum + as<F32>(as<I32>(error * error) & to_bits(finite));
    }
    return sum;
  };
  const auto add = [&](F32 sum) {
    const Pair<F64> wide = widen(sum);
    low = low + wide.low;
    high = high + wide.high;
  };

  size_t i = 0;
  for (; i + kRun <= n; i += kRun) {
    const F32 sum = plain(p + i);
    add(xsimd::all(sum - sum == F32(0.0f)) ? sum : careful(p + i));
  }
  if (i < n) {
    float last[kRun] = {};  // a zero has no error: zero is always on the grid
    std::copy_n(p + i, n - i, last);
    add(careful(last));
  }
  return (low.get(0) + low.get(1)) + (high.get(0) + high.get(1));
}

void quantize_rows(std::span<const float> x, size_t rows, std::span<float> scales, std::span<int8_t> out) {
  if (rows == 0) return;
  const size_t columns = x.size() / rows;
  for (size_t r = 0; r < rows; ++r) {
    const float scale = abs_max(x.subspan(r * columns, columns)) / 127.0f;
    Grid grid{scale == 0 ? 1.0f : scale, 1, 0, -127, 127};
    grid.inverse_scale = std::min(1.0f / grid.scale, std::numeric_limits<float>::max());
    quantize_span(x.data() + r * columns, columns, grid, out.data() + r * columns);
    scales[r] = grid.scale;
  }
}

}  // namespace nibble::kernels
