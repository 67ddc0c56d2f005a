// Selection by magnitude: what pruning needs. Magnitudes are compared through their bits, which order like the numbers.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/kernels/kernels.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {
namespace {

using namespace simd;

constexpr size_t kWord = 64;  // elements per mask word

uint32_t bits_of(float v) { return std::bit_cast<uint32_t>(v) & 0x7FFFFFFFu; }

/// The bucket that holds the k-th element; `k` becomes its rank inside the bucket.
uint32_t find_bucket(const size_t* counts, size_t buckets, size_t& k) {
  uint32_t b = 0;
  while (b + 1 < buckets && k >= counts[b]) k -= counts[b++];
  return b;
}

/// Counts the elements whose bits above `shift` + 10 equal `prefix` by the 10 bits above `shift`. Most vectors hold
/// none.
void count_below_prefix(std::span<const float> x, uint32_t prefix, int shift, size_t* counts) {
  const float* p = x.data();
  const size_t n = x.size();
  const I32 mask(0x7FFFFFFF & -(int32_t{1} << (shift + 10))), wanted(static_cast<int32_t>(prefix << (shift + 10)));
  const auto match = [=](const float* at) { return to_bits((as<I32>(load_at(at)) & mask) == wanted); };
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    uint32_t found = bitmask(match(p + i), match(p + i + 4), match(p + i + 8), match(p + i + 12));
    while (found != 0) {
      const int j = std::countr_zero(found);
      ++counts[bits_of(p[i + static_cast<size_t>(j)]) >> shift & 1023u];
      found &= found - 1;
    }
  }
  for (; i < n; ++i) {
    const uint32_t bits = bits_of(p[i]);
    if (bits >> (shift + 10) == prefix) ++counts[bits >> shift & 1023u];
  }
}

/// Which of 64 elements have |x| <= t, as mask bits; or |x| < t, or |x| == t.
enum class Compare { kAtMost, kBelow, kEqual };
template <Compare kCompare>
uint64_t compare_64(const float* p, F32 t) {
  const auto test = [=](const float* at) {
    const F32 magnitude = xsimd::abs(load_at(at));
    if constexpr (kCompare == Compare::kAtMost) return to_bits(magnitude <= t);
    if constexpr (kCompare == Compare::kBelow) return to_bits(magnitude < t);
    if constexpr (kCompare == Compare::kEqual) return to_bits(magnitude == t);
  };
  uint64_t word = 0;
  for (size_t j = 0; j < kWord; j += 16) {
    word |= uint64_t{bitmask(test(p + j), test(p + j + 4), test(p + j + 8), test(p + j + 12))} << j;
  }
  return word;
}

}  // namespace

Kth kth_magnitude(std::span<const std::span<const float>> parts, size_t k) {
  // 31 bits of magnitude as 11 + 10 + 10. The first pass counts everything; it takes turns on four tables because a
  // counter just written is slow to read again, and weights crowd into few buckets.
  constexpr size_t kTop = 2048, kRest = 1024;
  size_t counts[4 * kTop] = {};
  size_t *t0 = counts, *t1 = t0 + kTop, *t2 = t1 + kTop, *t3 = t2 + kTop;
  for (const auto part : parts) {
    const float* p = part.data();
    const size_t n = part.size();
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
      const Lanes a = lanes(as<U32>(magnitude_bits(load_at(p + i))) >> 20);
      const Lanes b = lanes(as<U32>(magnitude_bits(load_at(p + i + 4))) >> 20);
      ++t0[a.a], ++t1[a.b], ++t2[a.c], ++t3[a.d];
      ++t0[b.a], ++t1[b.b], ++t2[b.c], ++t3[b.d];
    }
    for (; i < n; ++i) ++t0[bits_of(p[i]) >> 20];
  }
  for (size_t b = 0; b < kTop; ++b) counts[b] += t1[b] + t2[b] + t3[b];

  size_t rank = k;
  uint32_t prefix = find_bucket(counts, kTop, rank);
  for (const int shift : {10, 0}) {
    std::fill_n(counts, kRest, 0);
    for (const auto part : parts) count_below_prefix(part, prefix, shift, counts);
    prefix = prefix << 10 | find_bucket(counts, kRest, rank);
  }
  return {std::bit_cast<float>(prefix), k - rank};
}

float kth_value(std::span<const std::span<const float>> parts, size_t k, bool skip_zeros) {
  // Keys that order like the numbers: the sign bit turned over, and all others of negative numbers.
  const auto key_of = [](float v) {
    const uint32_t bits = std::bit_cast<uint32_t>(v);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
  };
  // 32 bits as 11 + 11 + 10.
  constexpr int kShifts[] = {21, 10, 0}, kWidths[] = {11, 11, 10};
  size_t counts[2048];
  uint32_t prefix = 0;
  for (int pass = 0; pass < 3; ++pass) {
    const int shift = kShifts[pass], width = kWidths[pass];
    const uint32_t digits = (1u << width) - 1;
    std::fill_n(counts, size_t{1} << width, 0);
    for (const auto part : parts) {
      for (const float v : part) {
        const uint32_t magnitude = bits_of(v);
        if (magnitude >= 0x7F800000u || (skip_zeros && magnitude == 0)) continue;
        const uint32_t key = key_of(v);
        if (pass == 0 || key >> (shift + width) == prefix) ++counts[key >> shift & digits];
      }
    }
    prefix = prefix << width | find_bucket(counts, size_t{1} << width, k);
  }
  return std::bit_cast<float>(prefix >> 31 ? prefix & 0x7FFFFFFFu : ~prefix);
}

MagnitudeCounts count_magnitudes(std::span<const float> x, float t) {
  const float* p = x.data();
  size_t left = x.size();
  const F32 limit(t), none(0.0f);
  MagnitudeCounts counts;
  while (left >= 16) {
    // A lane counts at most a quarter of a block, far from overflow.
    const size_t block = std::min(left, size_t{1} << 20) / 16 * 16;
    I32 zero(0), below(0), equal(0);
    for (size_t i = 0; i < block; i += 16) {
      for (size_t j = i; j < i + 16; j += 4) {
        const F32 magnitude = xsimd::abs(load_at(p + j));
        zero = zero + to_bits(magnitude == none);
        below = below + to_bits(magnitude < limit);
        equal = equal + to_bits(magnitude == limit);
      }
    }
    counts.zero += static_cast<size_t>(-xsimd::reduce_add(zero));
    counts.below += static_cast<size_t>(-xsimd::reduce_add(below));
    counts.equal += static_cast<size_t>(-xsimd::reduce_add(equal));
    p += block;
    left -= block;
  }
  for (size_t i = 0; i < left; ++i) {
    const float magnitude = std::abs(p[i]);
    counts.zero += magnitude == 0;
    counts.below += magnitude < t;
    counts.equal += magnitude == t;
  }
  return counts;
}

size_t threshold_mask(std::span<const float> x, float t, size_t drop_equal, std::span<uint64_t> mask) {
  if (std::isnan(t)) {
    // Nothing compares with NaN, so only NaN is kept: the same as an infinite limit that drops every equal.
    t = std::numeric_limits<float>::infinity();
    drop_equal = std::numeric_limits<size_t>::max();
  }
  const float* p = x.data();
  const size_t whole = x.size() / kWord, rest = x.size() % kWord;
  uint64_t* words = mask.data();
  const F32 limit(t);
  size_t kept = 0, w = 0;
  for (; w < whole && drop_equal > 0; ++w) {
    uint64_t word = ~compare_64<Compare::kAtMost>(p + w * kWord, limit);
    uint64_t equal = compare_64<Compare::kEqual>(p + w * kWord, limit);
    const auto found = static_cast<size_t>(std::popcount(equal));
    if (found > drop_equal) {
      for (; drop_equal > 0; --drop_equal) equal &= equal - 1;
      word |= equal;
    } else {
      drop_equal -= found;
    }
    words[w] = word;
    kept += static_cast<size_t>(std::popcount(word));
  }
  for (; w < whole; ++w) {
    const uint64_t word = ~compare_64<Compare::kBelow>(p + w * kWord, limit);
    words[w] = word;
    kept += static_cast<size_t>(std::popcount(word));
  }
  if (rest == 0) return kept;
  uint64_t word = 0;
  for (size_t i = 0; i < rest; ++i) {
    const float magnitude = std::abs(p[whole * kWord + i]);
    bool keep = !(magnitude <= t);
    if (magnitude == t) {
      keep = drop_equal == 0;
      if (drop_equal > 0) --drop_equal;
    }
    word |= uint64_t{keep} << i;
  }
  words[whole] = word;
  return kept + static_cast<size_t>(std::popcount(word));
}

namespace {

/// Bit i: element i of this run of `length` is among its n largest magnitudes.
uint64_t keep_in_run(const float* p, int length, int n) {
  uint32_t bits[64];
  for (int i = 0; i < length; ++i) bits[i] = bits_of(p[i]);
  uint64_t keep = 0;
  for (int i = 0; i < length; ++i) {
    int ahead = 0;
    for (int j = 0; j < i; ++j) ahead += bits[j] >= bits[i];
    for (int j = i + 1; j < length; ++j) ahead += bits[j] > bits[i];
    keep |= uint64_t{ahead < n} << i;
  }
  return keep;
}

/// Sixteen runs of four at once: the four vectors after a transpose hold the first, second, third, fourth of four runs.
uint64_t keep_in_runs_of_4(const float* p, I32 n) {
  uint64_t word = 0;
  for (size_t j = 0; j < kWord; j += 16) {
    F32 fa = load_at(p + j), fb = load_at(p + j + 4), fc = load_at(p + j + 8), fd = load_at(p + j + 12);
    transpose_4x4(fa, fb, fc, fd);
    const I32 a = magnitude_bits(fa), b = magnitude_bits(fb), c = magnitude_bits(fc), d = magnitude_bits(fd);
    // A true comparison is -1: `xy` says that y is larger than x, so x is behind y, and otherwise y is behind x.
    const auto behind = [](I32 first, I32 second) { return to_bits(second > first); };
    const I32 ab = behind(a, b), ac = behind(a, c), ad = behind(a, d);
    const I32 bc = behind(b, c), bd = behind(b, d), cd = behind(c, d);
    const auto keep = [=](I32 ahead) { return as<F32>(to_bits(n > ahead)); };
    F32 ka = keep(I32(0) - ab - ac - ad), kb = keep(I32(1) + ab - bc - bd);
    F32 kc = keep(I32(2) + ac + bc - cd), kd = keep(I32(3) + ad + bd + cd);
    transpose_4x4(ka, kb, kc, kd);
    word |= uint64_t{bitmask(as<I32>(ka), as<I32>(kb), as<I32>(kc), as<I32>(kd))} << j;
  }
  return word;
}

}  // namespace

size_t n_of_m_mask(std::span<const float> x, int n, int m, std::span<uint64_t> mask) {
  const float* p = x.data();
  const size_t size = x.size(), length = static_cast<size_t>(m);
  std::fill(mask.begin(), mask.end(), 0);
  size_t kept = 0, i = 0;
  if (m == 4) {
    for (; i + kWord <= size; i += kWord) {
      const uint64_t word = keep_in_runs_of_4(p + i, I32(n));
      mask[i / kWord] = word;
      kept += static_cast<size_t>(std::popcount(word));
    }
  }
  for (; i < size; i += length) {
    const uint64_t keep = keep_in_run(p + i, static_cast<int>(std::min(length, size - i)), n);
    const size_t w = i / kWord, shift = i % kWord;
    mask[w] |= keep << shift;
    // A run may reach into the next word. Its last bit set there means that word exists.
    if (shift != 0 && keep >> (kWord - shift) != 0) mask[w + 1] |= keep >> (kWord - shift);
    kept += static_cast<size_t>(std::popcount(keep));
  }
  return kept;
}

void apply_mask(std::span<const float> x, std::span<const uint64_t> mask, std::span<float> out) {
  const float* p = x.data();
  float* q = out.data();
  const size_t n = x.size();
  const I32 bit0(1, 2, 4, 8);
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const I32 word(static_cast<int32_t>(static_cast<uint32_t>(mask[i / kWord] >> (i % kWord))));
    I32 bit = bit0;
    for (size_t j = i; j < i + 32; j += 4) {
      store_at(q + j, as<F32>(as<I32>(load_at(p + j)) & to_bits((word & bit) == bit)));
      bit = bit << 4;
    }
  }
  for (; i < n; ++i) q[i] = mask[i / kWord] >> (i % kWord) & 1 ? p[i] : 0.0f;
}

}  // namespace nibble::kernels
