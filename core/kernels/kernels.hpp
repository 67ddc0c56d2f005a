// Every numeric loop of the project: spans in, spans out, no allocation, no knowledge of tensors.
//
// Arithmetic is fixed: 128-bit vectors on every platform, no contraction of a*b+c, sums kept in four partial sums (lane
// i takes the elements whose index is i modulo 4) that are added as (s0 + s1) + (s2 + s3). The same input therefore
// gives the same bits natively and as WebAssembly. kernels/reference.hpp declares a plain twin of each function; the
// tests hold the two against each other.
//
// Unless said otherwise spans of one call have the same length, may be empty, need no alignment beyond their type's
// own, and `out` may be the same span as the input but must not overlap it otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nibble::kernels {

// --- Statistics (reduce.cpp) -----------------------------------------------------------------------------------------

/// Smallest and largest finite element; min = max = 0 where there is none.
struct MinMax {
  float min = 0, max = 0;
  size_t nan = 0, infinite = 0;  ///< how many elements were left out
};
MinMax min_max(std::span<const float> x);

/// Largest magnitude. A NaN or an infinity gives a value that is not finite (never a wrong finite one).
float abs_max(std::span<const float> x);

/// Sums over the finite elements, in double. `sum_squares` is the sum of squared deviations from `shift`.
struct Moments {
  size_t finite = 0, zeros = 0;
  double sum = 0, sum_abs = 0, sum_squares = 0;
};
/// `shift` is subtracted before squaring: pass 0 for raw second moments, the mean for a stable variance.
Moments moments(std::span<const float> x, double shift);

/// Counts into bins.size() equal bins over [lo, hi], lo < hi; bin = floor((x - lo) * (bins / (hi - lo))) in float,
/// clamped to the outer bins. Elements that are not finite are not counted. `bins` is added to, not cleared.
/// At most 4096 bins.
void histogram(std::span<const float> x, float lo, float hi, std::span<uint32_t> bins);

/// What the difference of two arrays amounts to, over the positions where both are finite.
struct Difference {
  size_t count = 0;
  double sum_squared_error = 0, sum_squared_before = 0, sum_squared_after = 0, sum_product = 0;
  float max_abs_error = 0;
};
Difference difference(std::span<const float> before, std::span<const float> after);

// --- Selection (select.cpp) ------------------------------------------------------------------------------------------

/// The k-th smallest magnitude (k from 0) of the concatenation of all parts, exactly, by radix selection on the bits of
/// |x|: three passes over the data, no sort, no copy. NaN and infinity count as larger than every finite number.
/// `below` is how many elements are strictly smaller, so `k - below` of those equal to it belong to the k smallest.
/// Requires k < total number of elements.
struct Kth {
  float magnitude = 0;
  size_t below = 0;
};
Kth kth_magnitude(std::span<const std::span<const float>> parts, size_t k);

/// The k-th smallest finite element (k from 0) of the concatenation of all parts, exactly, in the same way; -0 comes
/// before +0. With `skip_zeros` zeros of either sign are left out too. Requires k < number of elements that are left.
float kth_value(std::span<const std::span<const float>> parts, size_t k, bool skip_zeros);

/// Number of elements with |x| == 0, |x| < t and |x| == t (NaN counts in none).
struct MagnitudeCounts {
  size_t zero = 0, below = 0, equal = 0;
};
MagnitudeCounts count_magnitudes(std::span<const float> x, float t);

/// Bit i of `mask` (word i / 64, bit i % 64; 1 = keep) is set where |x[i]| > t or x[i] is NaN, and, for |x[i]| == t,
/// once the first `drop_equal` such elements have been dropped. Unused bits of the last word are 0.
/// mask.size() == ceil(x.size() / 64). Returns how many were kept.
size_t threshold_mask(std::span<const float> x, float t, size_t drop_equal, std::span<uint64_t> mask);

/// Keeps the n largest magnitudes of each run of m elements (the last run may be shorter: it keeps min(n, length)).
/// Among equal magnitudes the earlier element is kept. 1 <= n <= m <= 64. Same mask layout and result as above.
size_t n_of_m_mask(std::span<const float> x, int n, int m, std::span<uint64_t> mask);

/// out[i] = mask bit i ? x[i] : +0.
void apply_mask(std::span<const float> x, std::span<const uint64_t> mask, std::span<float> out);

// --- Quantization (quantize.cpp) -------------------------------------------------------------------------------------

/// A uniform grid: code = clamp(round_half_even(x * inverse_scale) + zero_point, lowest, highest),
/// value = scale * (code - zero_point). Codes fit 16 bits: -32768 <= lowest <= zero_point <= highest <= 65535.
/// NaN takes the code of zero (zero_point); infinities take the outermost codes.
struct Grid {
  float scale = 1, inverse_scale = 1;
  int32_t zero_point = 0, lowest = -127, highest = 127;
};

/// Codes of x. The code range must fit the output type.
void quantize(std::span<const float> x, const Grid& grid, std::span<int8_t> out);
void quantize(std::span<const float> x, const Grid& grid, std::span<uint8_t> out);
void quantize(std::span<const float> x, const Grid& grid, std::span<int16_t> out);
void quantize(std::span<const float> x, const Grid& grid, std::span<uint16_t> out);

/// out[i] = scale * float(codes[i] - zero_point): one rounding, as ONNX DequantizeLinear does it.
void dequantize(std::span<const int8_t> codes, const Grid& grid, std::span<float> out);
void dequantize(std::span<const uint8_t> codes, const Grid& grid, std::span<float> out);
void dequantize(std::span<const int16_t> codes, const Grid& grid, std::span<float> out);
void dequantize(std::span<const uint16_t> codes, const Grid& grid, std::span<float> out);

/// Quantize and dequantize in one pass: out[i] is the grid point of x[i].
void fake_quantize(std::span<const float> x, const Grid& grid, std::span<float> out);

/// The same with stochastic rounding: code = floor(x * inverse_scale + u), u uniform in [0, 1) in steps of 2^-24, drawn
/// from (key, first + i) alone, so the result does not depend on how an array is cut. E[value] = x inside the range.
/// u is `uniform24(key, first + i)` of base/context.hpp.
void fake_quantize_stochastic(std::span<const float> x, const Grid& grid, uint64_t key, uint64_t first,
                              std::span<float> out);

/// Sum of (x - fake_quantize(x))^2 over the finite elements, in float within a run of 64 elements and in double across
/// runs.
double quantization_error(std::span<const float> x, const Grid& grid);

/// Symmetric 8-bit conversion of contiguous rows, each with its own scale = abs_max(row) / 127 (1 where that is 0):
/// x is [rows, columns], scales [rows]. Statistics and conversion of one row run while it is in cache.
/// Requires finite input.
void quantize_rows(std::span<const float> x, size_t rows, std::span<float> scales, std::span<int8_t> out);

/// Symmetric 4-bit conversion in groups of 32 with packing (groups.cpp): scale = abs_max(group) / 7 (1 where that is
/// 0), codes in [-7, 7], two codes a byte in ONNX's order (even index in the low nibble). x.size() is a multiple of 32,
/// scales.size() == x.size() / 32, out.size() == x.size() / 2. Requires finite input.
void quantize_groups_of_32(std::span<const float> x, std::span<float> scales, std::span<uint8_t> out);
void dequantize_groups_of_32(std::span<const uint8_t> codes, std::span<const float> scales, std::span<float> out);

// --- Bit packing (pack.cpp) ------------------------------------------------------------------------------------------

/// Packs the low `bits` (1 to 8) of each code, least significant bit first within a byte; with bits = 4 this is ONNX's
/// int4 layout (element 0 in the low nibble). out.size() == packed_bytes(codes.size(), bits).
void pack_bits(std::span<const uint8_t> codes, int bits, std::span<uint8_t> out);
void unpack_bits(std::span<const uint8_t> packed, int bits, std::span<uint8_t> codes);
constexpr size_t packed_bytes(size_t count, int bits) { return (count / 8) * bits + ((count % 8) * bits + 7) / 8; }

// --- Interleaved rANS (rans.cpp) -------------------------------------------------------------------------------------

/// Range asymmetric numeral systems (Duda, arXiv:1311.2540; interleaved: Giesen, arXiv:1402.3392) over bytes, with
/// fixed frequencies that sum to 2^kRansBits. kRansLanes coders take the symbols in turns (symbol i belongs to lane i %
/// kRansLanes) and share one stream of 16-bit words. A lane's state is at least 2^16 between symbols.
inline constexpr int kRansBits = 12;
inline constexpr size_t kRansLanes = 16;

/// Fills `words` from its end backwards, at most one word a symbol, and returns how many were written: the stream in
/// reading order is the last so many of `words`. `states` receives what a decoder starts with. Requires
/// words.size() >= symbols.size() and a frequency of 1 to 2^kRansBits - 1 for every symbol that occurs.
size_t rans_encode(std::span<const uint8_t> symbols, std::span<const uint16_t, 256> frequencies,
                   std::span<uint16_t> words, std::span<uint32_t, kRansLanes> states);

/// Decodes symbols.size() symbols. `stream` is the words as little-endian bytes; beyond its end words are 0. Returns
/// false where the states do not come back to what rans_encode started from, or words are left: the stream is damaged.
/// Any bytes are safe to decode. Requires frequencies that sum to 2^kRansBits.
bool rans_decode(std::span<const uint8_t> stream, std::span<const uint32_t, kRansLanes> states,
                 std::span<const uint16_t, 256> frequencies, std::span<uint8_t> symbols);

// --- Layout and types (layout.cpp) -----------------------------------------------------------------------------------

/// x is [rows, columns], out is [columns, rows]. Must not overlap.
void transpose(std::span<const float> x, size_t rows, size_t columns, std::span<float> out);

/// Half floats by bit pattern; to half rounds to nearest even, overflow gives infinity, NaN stays NaN.
void half_to_float(std::span<const uint16_t> x, std::span<float> out);
void float_to_half(std::span<const float> x, std::span<uint16_t> out);
void bfloat16_to_float(std::span<const uint16_t> x, std::span<float> out);
void float_to_bfloat16(std::span<const float> x, std::span<uint16_t> out);

}  // namespace nibble::kernels
