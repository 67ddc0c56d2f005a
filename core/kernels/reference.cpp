// The plain twins: no vectors, no blocks, no tricks. Slow on purpose, so that each line can be checked against
// kernels.hpp.
#include "core/kernels/reference.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "core/base/context.hpp"

namespace nibble::kernels::reference {
namespace {

uint32_t magnitude_bits(float x) { return std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu; }

void set_bit(std::span<uint64_t> mask, size_t i) { mask[i / 64] |= uint64_t{1} << (i % 64); }

/// Four partial sums, added in the order kernels.hpp fixes.
struct Sum {
  double lane[4] = {0, 0, 0, 0};
  double total() const { return (lane[0] + lane[1]) + (lane[2] + lane[3]); }
};

float symmetric_scale(std::span<const float> x, float highest) {
  const float scale = abs_max(x) / highest;
  return scale == 0 ? 1.0f : scale;
}

float inverse_of(float scale) { return std::min(1.0f / scale, std::numeric_limits<float>::max()); }

template <class Code>
void quantize_all(std::span<const float> x, const Grid& grid, std::span<Code> out) {
  for (size_t i = 0; i < x.size(); ++i) out[i] = static_cast<Code>(code_of(x[i], grid));
}

template <class Code>
void dequantize_all(std::span<const Code> codes, const Grid& grid, std::span<float> out) {
  for (size_t i = 0; i < codes.size(); ++i) {
    out[i] = grid.scale * static_cast<float>(int32_t{codes[i]} - grid.zero_point);
  }
}

}  // namespace

MinMax min_max(std::span<const float> x) {
  MinMax result;
  bool any = false;
  for (float v : x) {
    if (std::isnan(v)) {
      ++result.nan;
    } else if (std::isinf(v)) {
      ++result.infinite;
    } else {
      result.min = any ? std::min(result.min, v) : v;
      result.max = any ? std::max(result.max, v) : v;
      any = true;
    }
  }
  result.min += 0.0f;  // turns -0 into +0
  result.max += 0.0f;
  return result;
}

float abs_max(std::span<const float> x) {
  uint32_t largest = 0;
  for (float v : x) largest = std::max(largest, magnitude_bits(v));
  return std::bit_cast<float>(largest);
}

Moments moments(std::span<const float> x, double shift) {
  Moments result;
  Sum sum, sum_abs, sum_squares;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) continue;
    const double v = x[i];
    ++result.finite;
    if (v == 0) ++result.zeros;
    sum.lane[i % 4] += v;
    sum_abs.lane[i % 4] += std::abs(v);
    sum_squares.lane[i % 4] += (v - shift) * (v - shift);
  }
  result.sum = sum.total();
  result.sum_abs = sum_abs.total();
  result.sum_squares = sum_squares.total();
  return result;
}

void histogram(std::span<const float> x, float lo, float hi, std::span<uint32_t> bins) {
  if (bins.empty()) return;
  const float per_unit = static_cast<float>(bins.size()) / (hi - lo);
  const float top = static_cast<float>(bins.size() - 1);
  for (float v : x) {
    if (!std::isfinite(v)) continue;
    const float place = (v - lo) * per_unit;
    const float clamped = place > 0 ? std::min(place, top) : 0.0f;  // a place that is NaN goes to the first bin
    ++bins[static_cast<size_t>(clamped)];
  }
}

Difference difference(std::span<const float> before, std::span<const float> after) {
  Difference result;
  Sum error, squares_before, squares_after, product;
  for (size_t i = 0; i < before.size(); ++i) {
    if (!std::isfinite(before[i]) || !std::isfinite(after[i])) continue;
    const double a = before[i], b = after[i];
    ++result.count;
    error.lane[i % 4] += (a - b) * (a - b);
    squares_before.lane[i % 4] += a * a;
    squares_after.lane[i % 4] += b * b;
    product.lane[i % 4] += a * b;
    result.max_abs_error = std::max(result.max_abs_error, std::abs(before[i] - after[i]));
  }
  result.sum_squared_error = error.total();
  result.sum_squared_before = squares_before.total();
  result.sum_squared_after = squares_after.total();
  result.sum_product = product.total();
  return result;
}

Kth kth_magnitude(std::span<const std::span<const float>> parts, size_t k) {
  std::vector<uint32_t> all;
  for (auto part : parts) {
    for (float v : part) all.push_back(magnitude_bits(v));
  }
  const auto kth = all.begin() + static_cast<std::ptrdiff_t>(k);
  std::nth_element(all.begin(), kth, all.end());
  const uint32_t found = *kth;
  const auto below = std::count_if(all.begin(), all.end(), [=](uint32_t v) { return v < found; });
  return {std::bit_cast<float>(found), static_cast<size_t>(below)};
}

float kth_value(std::span<const std::span<const float>> parts, size_t k, bool skip_zeros) {
  std::vector<float> all;
  for (const auto part : parts) {
    std::copy_if(part.begin(), part.end(), std::back_inserter(all),
                 [&](float v) { return std::isfinite(v) && !(skip_zeros && v == 0); });
  }
  const auto before = [](float a, float b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); };
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(k), all.end(), before);
  return all[k];
}

MagnitudeCounts count_magnitudes(std::span<const float> x, float t) {
  MagnitudeCounts counts;
  for (float v : x) {
    counts.zero += v == 0;
    counts.below += std::abs(v) < t;
    counts.equal += std::abs(v) == t;
  }
  return counts;
}

size_t threshold_mask(std::span<const float> x, float t, size_t drop_equal, std::span<uint64_t> mask) {
  std::fill(mask.begin(), mask.end(), 0);
  size_t kept = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    bool keep = std::abs(x[i]) > t || std::isnan(x[i]);
    if (std::abs(x[i]) == t) {
      keep = drop_equal == 0;
      if (drop_equal > 0) --drop_equal;
    }
    if (!keep) continue;
    set_bit(mask, i);
    ++kept;
  }
  return kept;
}

size_t n_of_m_mask(std::span<const float> x, int n, int m, std::span<uint64_t> mask) {
  std::fill(mask.begin(), mask.end(), 0);
  size_t kept = 0;
  for (size_t start = 0; start < x.size(); start += static_cast<size_t>(m)) {
    const size_t end = std::min(x.size(), start + static_cast<size_t>(m));
    for (size_t i = start; i < end; ++i) {
      int ahead = 0;
      for (size_t j = start; j < end; ++j) {
        const uint32_t a = magnitude_bits(x[j]), b = magnitude_bits(x[i]);
        ahead += a > b || (a == b && j < i);
      }
      if (ahead >= n) continue;
      set_bit(mask, i);
      ++kept;
    }
  }
  return kept;
}

void apply_mask(std::span<const float> x, std::span<const uint64_t> mask, std::span<float> out) {
  for (size_t i = 0; i < x.size(); ++i) out[i] = (mask[i / 64] >> (i % 64)) & 1 ? x[i] : 0.0f;
}

int32_t code_of(float x, const Grid& grid) {
  const float place = x * grid.inverse_scale;
  if (std::isnan(place)) return grid.zero_point;
  // Clamped before the conversion: a float out of the integer's range has no integer value.
  const float lowest = static_cast<float>(grid.lowest - grid.zero_point);
  const float highest = static_cast<float>(grid.highest - grid.zero_point);
  const float rounded = std::nearbyint(std::clamp(place, lowest, highest));
  return static_cast<int32_t>(rounded) + grid.zero_point;
}

void quantize(std::span<const float> x, const Grid& grid, std::span<int8_t> out) { quantize_all(x, grid, out); }
void quantize(std::span<const float> x, const Grid& grid, std::span<uint8_t> out) { quantize_all(x, grid, out); }
void quantize(std::span<const float> x, const Grid& grid, std::span<int16_t> out) { quantize_all(x, grid, out); }
void quantize(std::span<const float> x, const Grid& grid, std::span<uint16_t> out) { quantize_all(x, grid, out); }

void dequantize(std::span<const int8_t> codes, const Grid& grid, std::span<float> out) {
  dequantize_all(codes, grid, out);
}
void dequantize(std::span<const uint8_t> codes, const Grid& grid, std::span<float> out) {
  dequantize_all(codes, grid, out);
}
void dequantize(std::span<const int16_t> codes, const Grid& grid, std::span<float> out) {
  dequantize_all(codes, grid, out);
}
void dequantize(std::span<const uint16_t> codes, const Grid& grid, std::span<float> out) {
  dequantize_all(codes, grid, out);
}

void fake_quantize(std::span<const float> x, const Grid& grid, std::span<float> out) {
  for (size_t i = 0; i < x.size(); ++i) {
    out[i] = grid.scale * static_cast<float>(code_of(x[i], grid) - grid.zero_point);
  }
}

void fake_quantize_stochastic(std::span<const float> x, const Grid& grid, uint64_t key, uint64_t first,
                              std::span<float> out) {
  const float lowest = static_cast<float>(grid.lowest - grid.zero_point);
  const float highest = static_cast<float>(grid.highest - grid.zero_point);
  for (size_t i = 0; i < x.size(); ++i) {
    const float place = x[i] * grid.inverse_scale;
    int32_t code = grid.zero_point;
    if (!std::isnan(place)) {
      const float rounded = std::floor(place + uniform24(key, first + i));
      code += static_cast<int32_t>(std::clamp(rounded, lowest, highest));
    }
    out[i] = grid.scale * static_cast<float>(code - grid.zero_point);
  }
}

double quantization_error(std::span<const float> x, const Grid& grid) {
  constexpr size_t kRun = 64;
  Sum total;
  for (size_t start = 0; start < x.size(); start += kRun) {
    float lane[4] = {0, 0, 0, 0};
    for (size_t i = start; i < std::min(x.size(), start + kRun); ++i) {
      if (!std::isfinite(x[i])) continue;
      const float error = x[i] - grid.scale * static_cast<float>(code_of(x[i], grid) - grid.zero_point);
      lane[i % 4] += error * error;
    }
    for (int j = 0; j < 4; ++j) total.lane[j] += lane[j];
  }
  return total.total();
}

void quantize_rows(std::span<const float> x, size_t rows, std::span<float> scales, std::span<int8_t> out) {
  const size_t columns = rows == 0 ? 0 : x.size() / rows;
  for (size_t r = 0; r < rows; ++r) {
    const auto row = x.subspan(r * columns, columns);
    scales[r] = symmetric_scale(row, 127);
    quantize(row, {scales[r], inverse_of(scales[r]), 0, -127, 127}, out.subspan(r * columns, columns));
  }
}

void quantize_groups_of_32(std::span<const float> x, std::span<float> scales, std::span<uint8_t> out) {
  for (size_t g = 0; g < scales.size(); ++g) {
    const auto group = x.subspan(g * 32, 32);
    scales[g] = symmetric_scale(group, 7);
    const Grid grid{scales[g], inverse_of(scales[g]), 0, -7, 7};
    for (size_t i = 0; i < 32; i += 2) {
      const int even = code_of(group[i], grid) & 15, odd = code_of(group[i + 1], grid) & 15;
      out[g * 16 + i / 2] = static_cast<uint8_t>(even | odd << 4);
    }
  }
}

void dequantize_groups_of_32(std::span<const uint8_t> codes, std::span<const float> scales, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int nibble = codes[i / 2] >> (i % 2 * 4) & 15;
    out[i] = scales[i / 32] * static_cast<float>(nibble < 8 ? nibble : nibble - 16);
  }
}

void pack_bits(std::span<const uint8_t> codes, int bits, std::span<uint8_t> out) {
  std::fill(out.begin(), out.end(), 0);
  for (size_t i = 0; i < codes.size(); ++i) {
    for (int b = 0; b < bits; ++b) {
      const size_t at = i * static_cast<size_t>(bits) + static_cast<size_t>(b);
      out[at / 8] = static_cast<uint8_t>(out[at / 8] | (codes[i] >> b & 1) << at % 8);
    }
  }
}

void unpack_bits(std::span<const uint8_t> packed, int bits, std::span<uint8_t> codes) {
  for (size_t i = 0; i < codes.size(); ++i) {
    int code = 0;
    for (int b = 0; b < bits; ++b) {
      const size_t at = i * static_cast<size_t>(bits) + static_cast<size_t>(b);
      code |= (packed[at / 8] >> at % 8 & 1) << b;
    }
    codes[i] = static_cast<uint8_t>(code);
  }
}

size_t rans_encode(std::span<const uint8_t> symbols, std::span<const uint16_t, 256> frequencies,
                   std::span<uint16_t> words, std::span<uint32_t, kRansLanes> states) {
  for (uint32_t& state : states) state = 1u << 16;
  size_t used = 0;
  for (size_t i = symbols.size(); i-- > 0;) {
    uint64_t start = 0;
    for (size_t s = 0; s < symbols[i]; ++s) start += frequencies[s];
    const uint64_t frequency = frequencies[symbols[i]];
    uint32_t& state = states[i % kRansLanes];
    // A state that would outgrow 32 bits hands its low half to the stream first.
    if ((state / frequency << kRansBits) + state % frequency + start > 0xffffffffu) {
      words[words.size() - ++used] = static_cast<uint16_t>(state);
      state >>= 16;
    }
    state = static_cast<uint32_t>((state / frequency << kRansBits) + state % frequency + start);
  }
  return used;
}

bool rans_decode(std::span<const uint8_t> stream, std::span<const uint32_t, kRansLanes> states,
                 std::span<const uint16_t, 256> frequencies, std::span<uint8_t> symbols) {
  std::vector<uint32_t> state(states.begin(), states.end());
  size_t at = 0;
  for (size_t i = 0; i < symbols.size(); ++i) {
    uint32_t& x = state[i % kRansLanes];
    const uint32_t slot = x % (1u << kRansBits);
    uint32_t start = 0, symbol = 0;
    while (start + frequencies[symbol] <= slot) start += frequencies[symbol++];
    symbols[i] = static_cast<uint8_t>(symbol);
    x = frequencies[symbol] * (x >> kRansBits) + slot - start;
    if (x >= 1u << 16) continue;
    uint32_t word = 0;
    if (stream.size() - at >= 2) {
      word = stream[at] | stream[at + 1] << 8;
      at += 2;
    }
    x = x << 16 | word;
  }
  for (const uint32_t x : state) {
    if (x != 1u << 16) return false;
  }
  return at == stream.size();
}

void transpose(std::span<const float> x, size_t rows, size_t columns, std::span<float> out) {
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) out[c * rows + r] = x[r * columns + c];
  }
}

float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | mantissa << 13);
  if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -tiny : tiny;
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  uint32_t half;
  if (magnitude > 0x7F800000u) {
    half = 0x7E00u | (magnitude >> 13 & 0x3FFu);
  } else if (magnitude >= 0x47800000u) {  // 2^16 and more
    half = 0x7C00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24
    half = static_cast<uint32_t>(std::nearbyint(std::bit_cast<float>(magnitude) * 0x1p24f));
  } else {
    half = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

float bfloat16_to_float(uint16_t value) { return std::bit_cast<float>(uint32_t{value} << 16); }

uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

void half_to_float(std::span<const uint16_t> x, std::span<float> out) {
  for (size_t i = 0; i < x.size(); ++i) out[i] = half_to_float(x[i]);
}
void float_to_half(std::span<const float> x, std::span<uint16_t> out) {
  for (size_t i = 0; i < x.size(); ++i) out[i] = float_to_half(x[i]);
}
void bfloat16_to_float(std::span<const uint16_t> x, std::span<float> out) {
  for (size_t i = 0; i < x.size(); ++i) out[i] = bfloat16_to_float(x[i]);
}
void float_to_bfloat16(std::span<const float> x, std::span<uint16_t> out) {
  for (size_t i = 0; i < x.size(); ++i) out[i] = float_to_bfloat16(x[i]);
}

}  // namespace nibble::kernels::reference
