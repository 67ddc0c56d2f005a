// 4-bit symmetric groups of 32 with packing. Four groups go at once: after a transpose one vector holds the four
// largest magnitudes, so that one division serves four groups and no maximum is taken across a vector.
#include <algorithm>
#include <limits>

#include "core/kernels/kernels.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {
namespace {

using namespace simd;

constexpr size_t kGroup = 32;  // elements, 16 bytes of codes
constexpr float kHighest = 7;

/// What finding the scales needs.
struct GroupScales {
  I32 magnitude = in_register<I32>(0x7FFFFFFF);
  F32 highest = in_register<F32>(kHighest), one = in_register<F32>(1);
  F32 largest_float = in_register<F32>(std::numeric_limits<float>::max());

  /// Largest magnitude of a group, spread over four lanes.
  F32 largest_lanes(const float* x) const {
    const auto bits = [&](size_t i) { return as<I32>(load_at(x + i)) & magnitude; };
    const I32 a = xsimd::max(xsimd::max(bits(0), bits(4)), xsimd::max(bits(8), bits(12)));
    const I32 b = xsimd::max(xsimd::max(bits(16), bits(20)), xsimd::max(bits(24), bits(28)));
    return as<F32>(xsimd::max(a, b));
  }

  /// Scale and its inverse from the largest magnitudes of four groups.
  void scales(F32 largest, float* out, float* inverses) const {
    const F32 raw = largest / highest;
    const F32 scale = xsimd::select(raw == F32(0.0f), one, raw);
    store_at(out, scale);
    store_at(inverses, lesser(one / scale, largest_float));
  }
};

/// What the conversion of one group needs besides its scale.
struct GroupCodes {
  F32 shift = in_register<F32>(kRoundShift);
  I32 bias = in_register<I32>(kRoundShiftBits - 8);
  U16 low_byte = in_register<U16>(0xFF);
  U8 flip = in_register<U8>(0x88);

  /// 16 codes as bytes 1 to 15, which is 8 more than the code: unsigned nibbles can be shifted without care for the
  /// sign.
  U16 raised(const float* x, F32 inverse) const {
    const I32 a = round_bits(load_at(x) * inverse, shift) - bias,
              b = round_bits(load_at(x + 4) * inverse, shift) - bias;
    const I32 c = round_bits(load_at(x + 8) * inverse, shift) - bias,
              d = round_bits(load_at(x + 12) * inverse, shift) - bias;
    return as<U16>(narrow_unsigned(narrow(a, b), narrow(c, d)));
  }

  void quantize(const float* x, float inverse_scale, uint8_t* out) const {
    const F32 inverse(inverse_scale);
    // A 16-bit lane holds an even code below an odd one; shifted right by four, the odd one lands beside the even one.
    const U16 a = raised(x, inverse), b = raised(x + 16, inverse);
    const U8 packed = narrow_unsigned(as<I16>((a | (a >> 4)) & low_byte), as<I16>((b | (b >> 4)) & low_byte));
    // Flipping the highest bit of each nibble takes the 8 away again, in two's complement.
    store_at(out, packed ^ flip);
  }
};

}  // namespace

void quantize_groups_of_32(std::span<const float> x, std::span<float> scales, std::span<uint8_t> out) {
  // Scales of a block first, codes second: neither loop then waits for a division.
  constexpr size_t kBlock = 64;  // groups, 8 KB
  const float* p = x.data();
  float* s = scales.data();
  uint8_t* q = out.data();
  float inverse[kBlock];
  const GroupScales find;
  const GroupCodes codes;
  for (size_t left = scales.size(); left > 0;) {
    const size_t groups = std::min(left, kBlock);
    size_t g = 0;
    for (const float* in = p; g + 4 <= groups; g += 4, in += 4 * kGroup) {
      F32 a = find.largest_lanes(in), b = find.largest_lanes(in + kGroup);
      F32 c = find.largest_lanes(in + 2 * kGroup), d = find.largest_lanes(in + 3 * kGroup);
      transpose_4x4(a, b, c, d);
      find.scales(greater(greater(a, b), greater(c, d)), s + g, inverse + g);
    }
    for (; g < groups; ++g) {
      float four_scales[4], four_inverses[4];
      find.scales(F32(xsimd::reduce_max(find.largest_lanes(p + g * kGroup))), four_scales, four_inverses);
      s[g] = four_scales[0];
      inverse[g] = four_inverses[0];
    }
    for (g = 0; g < groups; ++g, p += kGroup, q += kGroup / 2) codes.quantize(p, inverse[g], q);
    s += groups;
    left -= groups;
  }
}

void dequantize_groups_of_32(std::span<const uint8_t> codes, std::span<const float> scales, std::span<float> out) {
  const uint8_t* q = codes.data();
  const float* s = scales.data();
  float* p = out.data();
  const size_t groups = scales.size();
  const U8 nibble(uint8_t{15}), eight(uint8_t{8});
  for (size_t g = 0; g < groups; ++g, q += kGroup / 2, p += kGroup) {
    const F32 scale(s[g]);
    const U8 bytes = load_at(q) ^ U8(uint8_t{0x88});  // nibbles 8 too large, unsigned
    const Pair<U8> raised = interleave(bytes & nibble, as<U8>(as<U16>(bytes) >> 4) & nibble);
    const auto put = [=](float* at, U8 sixteen) {
      const Pair<I16> half = widen(as<I8>(sixteen - eight));
      const Pair<I32> low = widen(half.low), high = widen(half.high);
      store_at(at, scale * to_float(low.low)), store_at(at + 4, scale * to_float(low.high));
      store_at(at + 8, scale * to_float(high.low)), store_at(at + 12, scale * to_float(high.high));
    };
    put(p, raised.low);
    put(p + 16, raised.high);
  }
}

}  // namespace nibble::kernels
