// Holds every kernel against its plain twin, bit for bit, on awkward sizes, alignments and values; and both against
// facts from elsewhere: closed forms, the standard library's sort, selection and rounding, exhaustive tables.
#include "core/kernels/kernels.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "core/base/context.hpp"
#include "core/kernels/reference.hpp"

namespace nibble::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kHuge = std::numeric_limits<float>::max();

// 0, 1, around the widths of vectors, steps, mask words and blocks, odd, and beyond each block length.
const size_t kSizes[] = {0,  1,  2,  3,  4,  5,   7,   8,   9,   15,  16,   17,   31,   32,   33,
                         47, 63, 64, 65, 97, 127, 128, 129, 255, 999, 1024, 1025, 2047, 2049, 4999};

/// A span with room before and after that must stay as it is. `misalign` shifts it by elements from a 16-byte boundary.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t size, size_t misalign = 0) : bytes_((size + 2 * kRoom + misalign) * sizeof(T) + 64, kMark) {
    auto at = reinterpret_cast<uintptr_t>(bytes_.data());
    offset_ = (16 - at % 16) % 16 + (kRoom + misalign) * sizeof(T);
    size_ = size;
  }
  std::span<T> span() { return {reinterpret_cast<T*>(bytes_.data() + offset_), size_}; }
  bool intact() const {
    const auto marked = [](unsigned char b) { return b == kMark; };
    return std::all_of(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset_), marked) &&
           std::all_of(bytes_.begin() + static_cast<std::ptrdiff_t>(offset_ + size_ * sizeof(T)), bytes_.end(), marked);
  }

 private:
  static constexpr size_t kRoom = 16;  // elements; a multiple of 16 bytes for every type
  static constexpr unsigned char kMark = 0xA5;
  std::vector<unsigned char> bytes_;
  size_t offset_ = 0, size_ = 0;
};

struct Random {
  uint64_t key, at = 0;
  uint64_t bits() { return mix64(key, at++); }
  float uniform() { return uniform24(key, at++); }
  /// About normal: the sum of twelve uniform numbers less six.
  float normal() {
    float sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
};

enum class Kind { kNormal, kFewValues, kSpecial, kAnyBits, kWideRange };
const Kind kKinds[] = {Kind::kNormal, Kind::kFewValues, Kind::kSpecial, Kind::kAnyBits, Kind::kWideRange};

void fill(std::span<float> x, Kind kind, uint64_t seed) {
  Random random{seed};
  const float special[] = {0.0f,
                           -0.0f,
                           kNaN,
                           -kNaN,
                           kInf,
                           -kInf,
                           kHuge,
                           -kHuge,
                           1e-45f,
                           -1e-45f,
                           1e-39f,
                           1.17549435e-38f,
                           0.5f,
                           -1.5f,
                           2.5f,
                           126.5f,
                           -127.5f,
                           1e30f,
                           -1e30f,
                           12582912.0f,
                           -12582912.0f,
                           -1.3e7f,
                           4194304.0f,
                           -4194305.0f,
                           3e7f,
                           -3e7f,
                           std::bit_cast<float>(0x7F800001u),
                           std::bit_cast<float>(0xFFFFFFFFu)};
  for (float& v : x) {
    const float n = random.normal();
    const uint64_t b = random.bits();
    switch (kind) {
      case Kind::kNormal: v = n; break;
      case Kind::kFewValues: v = static_cast<float>(static_cast<int>(b % 9) - 4) * 0.25f; break;
      case Kind::kSpecial: v = b % 4 == 0 ? special[(b >> 8) % std::size(special)] : n; break;
      case Kind::kAnyBits: v = std::bit_cast<float>(static_cast<uint32_t>(b)); break;
      case Kind::kWideRange: v = std::ldexp(n, static_cast<int>(b % 60) - 30); break;
    }
  }
}

template <class T>
bool same_bits(T a, T b) {
  if constexpr (sizeof(T) == 8 && std::is_floating_point_v<T>)
    return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
  if constexpr (sizeof(T) == 4 && std::is_floating_point_v<T>)
    return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
  return a == b;
}

/// Index of the first difference, or the size where there is none.
template <class T>
size_t first_difference(std::span<T> a, std::span<T> b) {
  size_t i = 0;
  while (i < a.size() && same_bits(a[i], b[i])) ++i;
  return i;
}

/// Calls check(x, what) for every size, alignment and kind of values.
template <class Check>
void for_each_input(Check check) {
  uint64_t seed = 1;
  for (const size_t size : kSizes) {
    for (const size_t misalign : {0, 1, 3}) {
      for (const Kind kind : kKinds) {
        Guarded<float> x(size, misalign);
        fill(x.span(), kind, ++seed);
        CAPTURE(size);
        CAPTURE(misalign);
        CAPTURE(static_cast<int>(kind));
        check(std::span<const float>(x.span()), misalign);
      }
    }
  }
}

/// Runs a kernel and its twin into guarded outputs of `size` elements and compares them.
template <class T, class Kernel, class Twin>
void check_output(size_t size, size_t misalign, Kernel kernel, Twin twin) {
  Guarded<T> out(size, misalign), expected(size, 0);
  kernel(out.span());
  twin(expected.span());
  CHECK(first_difference(out.span(), expected.span()) == size);
  CHECK(out.intact());
}

const Grid kGrids[] = {
    {0.03f, 1 / 0.03f, 0, -127, 127}, {0.5f, 2.0f, 0, -128, 127},    {0.25f, 4.0f, -7, -8, 7},
    {1.0f, 1.0f, 0, -1, 1},           {0.1f, 1 / 0.1f, 100, 0, 127}, {1e-38f, 1e38f, 3, 0, 100},
    {2.9e-39f, kHuge, 0, -127, 127},  {1e30f, 1e-30f, 0, -127, 127}, {1e-45f, kInf, 1, -5, 5},
};

}  // namespace

TEST_CASE("min_max agrees with its twin") {
  for_each_input([](std::span<const float> x, size_t) {
    const MinMax a = min_max(x), b = reference::min_max(x);
    CHECK(same_bits(a.min, b.min));
    CHECK(same_bits(a.max, b.max));
    CHECK(a.nan == b.nan);
    CHECK(a.infinite == b.infinite);
  });
}

TEST_CASE("min_max leaves out what is not finite and counts it") {
  std::vector<float> x(100, 2.0f);
  x[10] = kNaN, x[50] = kInf, x[51] = -kInf, x[99] = kNaN, x[20] = -3.0f, x[98] = 9.0f;
  const MinMax found = min_max(x);
  CHECK(found.min == -3.0f);
  CHECK(found.max == 9.0f);
  CHECK(found.nan == 2);
  CHECK(found.infinite == 2);
  const MinMax none = min_max(std::vector<float>{kNaN, kInf});
  CHECK(none.min == 0.0f);
  CHECK(none.max == 0.0f);
}

TEST_CASE("min_max gives +0 for a zero of either sign") {
  for (const size_t size : {1, 16, 37}) {
    const MinMax found = min_max(std::vector<float>(size, -0.0f));
    CHECK(same_bits(found.min, 0.0f));
    CHECK(same_bits(found.max, 0.0f));
  }
}

TEST_CASE("abs_max agrees with its twin") {
  for_each_input([](std::span<const float> x, size_t) { CHECK(same_bits(abs_max(x), reference::abs_max(x))); });
}

TEST_CASE("abs_max is not finite as soon as one element is not") {
  for (const float bad : {kNaN, -kNaN, kInf, -kInf}) {
    for (const size_t at : {0, 31, 64, 66}) {
      std::vector<float> x(67, kHuge);
      x[at] = bad;
      CHECK_FALSE(std::isfinite(abs_max(x)));
    }
  }
  CHECK(abs_max(std::vector<float>{1.0f, -4.0f, 3.0f}) == 4.0f);
}

TEST_CASE("moments agree with their twin") {
  for (const double shift : {0.0, 0.7, -1e10}) {
    for_each_input([=](std::span<const float> x, size_t) {
      const Moments a = moments(x, shift), b = reference::moments(x, shift);
      CHECK(a.finite == b.finite);
      CHECK(a.zeros == b.zeros);
      CHECK(same_bits(a.sum, b.sum));
      CHECK(same_bits(a.sum_abs, b.sum_abs));
      CHECK(same_bits(a.sum_squares, b.sum_squares));
    });
  }
}

TEST_CASE("moments of an arithmetic series are its closed forms") {
  for (const int n : {1, 2, 10, 1000, 4001}) {
    std::vector<float> x(static_cast<size_t>(n));
    for (int i = 0; i < n; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i % 2 ? i : -i);
    const double m = n - 1;
    const Moments found = moments(x, 0);
    CHECK(found.finite == static_cast<size_t>(n));
    CHECK(found.zeros == 1);
    CHECK(found.sum_abs == m * (m + 1) / 2);
    CHECK(found.sum_squares == m * (m + 1) * (2 * m + 1) / 6);
    CHECK(found.sum == (n % 2 ? -(n / 2) : n / 2));
  }
}

TEST_CASE("histogram agrees with its twin") {
  for_each_input([](std::span<const float> x, size_t) {
    const std::pair<float, float> ranges[] = {{-3.0f, 3.0f}, {0.1f, 0.2f}, {-kHuge, kHuge}, {0.0f, 1e-45f}};
    for (const auto& [lo, hi] : ranges) {
      for (const size_t bins : {1, 7, 256, 4096}) {
        if (bins == 4096 && x.size() % 3 != 0) continue;  // one size in three is enough for the largest table
        check_output<uint32_t>(
            bins, 0,
            [&](std::span<uint32_t> out) {
              std::fill(out.begin(), out.end(), 5u);
              histogram(x, lo, hi, out);
            },
            [&](std::span<uint32_t> out) {
              std::fill(out.begin(), out.end(), 5u);
              reference::histogram(x, lo, hi, out);
            });
      }
    }
  });
}

TEST_CASE("histogram of an even ramp is flat, and counts every finite element once") {
  std::vector<float> x(256 * 40);
  for (size_t i = 0; i < x.size(); ++i) x[i] = (static_cast<float>(i) + 0.5f) / 40.0f;
  std::vector<uint32_t> bins(256);
  histogram(x, 0, 256, bins);
  CHECK(std::all_of(bins.begin(), bins.end(), [](uint32_t c) { return c == 40; }));
  x[3] = kNaN, x[4] = kInf, x[5] = -1e20f, x[6] = kHuge;
  std::fill(bins.begin(), bins.end(), 0);
  histogram(x, 0, 256, bins);
  CHECK(std::accumulate(bins.begin(), bins.end(), size_t{0}) == x.size() - 2);
  CHECK(bins.back() == 41);
}

TEST_CASE("difference agrees with its twin") {
  for_each_input([](std::span<const float> x, size_t misalign) {
    Guarded<float> y(x.size(), 2 - misalign % 3);
    for (const Kind kind : {Kind::kNormal, Kind::kSpecial}) {
      fill(y.span(), kind, x.size() + 77);
      const Difference a = difference(x, y.span()), b = reference::difference(x, y.span());
      CHECK(a.count == b.count);
      CHECK(same_bits(a.sum_squared_error, b.sum_squared_error));
      CHECK(same_bits(a.sum_squared_before, b.sum_squared_before));
      CHECK(same_bits(a.sum_squared_after, b.sum_squared_after));
      CHECK(same_bits(a.sum_product, b.sum_product));
      CHECK(same_bits(a.max_abs_error, b.max_abs_error));
    }
  });
}

TEST_CASE("difference of an array and its double is the array itself") {
  std::vector<float> x(333), twice(333);
  fill(x, Kind::kNormal, 5);
  for (size_t i = 0; i < x.size(); ++i) twice[i] = 2 * x[i];
  const Difference found = difference(x, twice);
  CHECK(found.count == 333);
  CHECK(found.sum_squared_error == found.sum_squared_before);
  CHECK(found.sum_squared_after == 4 * found.sum_squared_before);
  CHECK(found.sum_product == 2 * found.sum_squared_before);
  CHECK(found.max_abs_error == abs_max(x));
}

TEST_CASE("kth_magnitude agrees with its twin for every kind of values and for ranks at both ends") {
  for_each_input([](std::span<const float> x, size_t) {
    const size_t n = x.size();
    if (n == 0) return;
    const std::span<const float> parts[] = {x.first(n / 3), x.subspan(n / 3)};
    for (const size_t k : {size_t{0}, n / 4, n / 2, n - 1}) {
      const Kth a = kth_magnitude(parts, k), b = reference::kth_magnitude(parts, k);
      CHECK(same_bits(a.magnitude, b.magnitude));
      CHECK(a.below == b.below);
    }
  });
}

TEST_CASE("kth_magnitude gives the k-th entry of the sorted magnitudes") {
  std::vector<float> x(3000);
  fill(x, Kind::kWideRange, 9);
  for (size_t i = 0; i < 700; ++i) x[i * 4] = -0.25f;  // many ties
  std::vector<float> sorted(x.size());
  std::transform(x.begin(), x.end(), sorted.begin(), [](float v) { return std::abs(v); });
  std::sort(sorted.begin(), sorted.end());
  const std::span<const float> whole[] = {x};
  for (size_t k = 0; k < x.size(); k += 37) {
    const Kth found = kth_magnitude(whole, k);
    CHECK(found.magnitude == sorted[k]);
    CHECK(found.below ==
          static_cast<size_t>(std::lower_bound(sorted.begin(), sorted.end(), sorted[k]) - sorted.begin()));
  }
}

TEST_CASE("kth_value gives the k-th entry of the sorted finite values, with and without zeros") {
  std::vector<float> a(777), b(1300);
  for (size_t i = 0; i < a.size(); ++i) a[i] = (uniform24(5, i) - 0.5f) * (i % 7 ? 1.0f : 1e-30f);
  for (size_t i = 0; i < b.size(); ++i) b[i] = i % 3 ? uniform24(6, i) - 0.7f : 0.0f;
  a[3] = kInf, a[4] = -kInf, a[5] = std::nanf(""), a[6] = -0.0f, b[1] = 3e38f, b[2] = -3e38f;
  const std::span<const float> parts[] = {a, b};
  for (const bool skip_zeros : {false, true}) {
    std::vector<float> sorted;
    for (const auto part : parts) {
      for (const float v : part) {
        if (std::isfinite(v) && !(skip_zeros && v == 0)) sorted.push_back(v);
      }
    }
    std::sort(sorted.begin(), sorted.end());
    for (const size_t k : {size_t{0}, size_t{1}, sorted.size() / 3, sorted.size() / 2, sorted.size() - 1}) {
      CHECK(kth_value(parts, k, skip_zeros) == sorted[k]);
      CHECK(kth_value(parts, k, skip_zeros) == reference::kth_value(parts, k, skip_zeros));
    }
  }
}

TEST_CASE("kth_magnitude puts infinity behind every number and NaN behind infinity") {
  const std::vector<float> x{kNaN, 1.0f, -kInf, 2.0f};
  const std::span<const float> parts[] = {x, {}};
  CHECK(kth_magnitude(parts, 1).magnitude == 2.0f);
  CHECK(kth_magnitude(parts, 2).magnitude == kInf);
  CHECK(std::isnan(kth_magnitude(parts, 3).magnitude));
  CHECK(kth_magnitude(parts, 3).below == 3);
}

TEST_CASE("count_magnitudes agrees with its twin") {
  for_each_input([](std::span<const float> x, size_t) {
    for (const float t : {0.0f, 0.25f, 1.0f, kInf, kNaN, -1.0f}) {
      const MagnitudeCounts a = count_magnitudes(x, t), b = reference::count_magnitudes(x, t);
      CHECK(a.zero == b.zero);
      CHECK(a.below == b.below);
      CHECK(a.equal == b.equal);
    }
  });
}

TEST_CASE("threshold_mask agrees with its twin, however many equals are dropped") {
  for_each_input([](std::span<const float> x, size_t) {
    for (const float t : {0.0f, 0.25f, 1.0f, kInf, kNaN, -1.0f}) {
      for (const size_t drop : {size_t{0}, size_t{1}, x.size() / 16, x.size() / 8, x.size() + 1}) {
        size_t kept = 0, expected_kept = 0;
        check_output<uint64_t>(
            (x.size() + 63) / 64, 0, [&](std::span<uint64_t> out) { kept = threshold_mask(x, t, drop, out); },
            [&](std::span<uint64_t> out) { expected_kept = reference::threshold_mask(x, t, drop, out); });
        CHECK(kept == expected_kept);
      }
    }
  });
}

TEST_CASE("the k-th magnitude and the mask together drop exactly k elements, the k smallest") {
  for (const Kind kind : {Kind::kNormal, Kind::kFewValues, Kind::kWideRange}) {
    std::vector<float> x(1777);
    fill(x, kind, 3);
    const std::span<const float> whole[] = {x};
    for (const size_t k : {1, 5, 888, 1776}) {
      const Kth limit = kth_magnitude(whole, k - 1);  // the largest magnitude that goes
      std::vector<uint64_t> mask((x.size() + 63) / 64);
      CHECK(threshold_mask(x, limit.magnitude, k - limit.below, mask) == x.size() - k);
      float largest_dropped = 0, smallest_kept = kInf;
      size_t dropped = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const bool keep = mask[i / 64] >> (i % 64) & 1;
        dropped += !keep;
        if (keep) smallest_kept = std::min(smallest_kept, std::abs(x[i]));
        if (!keep) largest_dropped = std::max(largest_dropped, std::abs(x[i]));
      }
      CHECK(dropped == k);
      CHECK(largest_dropped <= smallest_kept);
    }
  }
}

TEST_CASE("n_of_m_mask agrees with its twin") {
  for_each_input([](std::span<const float> x, size_t) {
    const std::pair<int, int> patterns[] = {{1, 1}, {1, 2}, {1, 4},  {2, 4},   {3, 4},  {4, 4},
                                            {3, 5}, {4, 8}, {7, 33}, {20, 64}, {62, 63}};
    for (const std::pair<int, int>& pattern : patterns) {
      const int n = pattern.first, m = pattern.second;
      if (m > 8 && x.size() > 1025) continue;
      size_t kept = 0, expected_kept = 0;
      check_output<uint64_t>((x.size() + 63) / 64, 0,
                             [&](std::span<uint64_t> out) { kept = n_of_m_mask(x, n, m, out); },
                             [&](std::span<uint64_t> out) { expected_kept = reference::n_of_m_mask(x, n, m, out); });
      CHECK(kept == expected_kept);
    }
  });
}

TEST_CASE("n_of_m_mask keeps the earlier of equals, and min(n, length) in a short last run") {
  std::vector<uint64_t> mask(1);
  CHECK(n_of_m_mask(std::vector<float>{1, -1, 1, 1, 0, 5, -6, 0, 3}, 2, 4, mask) == 5);
  CHECK(mask[0] == 0b1'0110'0011);
  std::vector<float> x(128, 1.0f);
  mask.resize(2);
  CHECK(n_of_m_mask(x, 2, 4, mask) == 64);
  CHECK(mask[0] == 0x3333333333333333u);
  CHECK(mask[1] == 0x3333333333333333u);
}

TEST_CASE("apply_mask agrees with its twin, also in place") {
  for_each_input([](std::span<const float> x, size_t misalign) {
    std::vector<uint64_t> mask((x.size() + 63) / 64);
    for (size_t w = 0; w < mask.size(); ++w) mask[w] = mix64(x.size(), w);
    check_output<float>(
        x.size(), 3 - misalign, [&](std::span<float> out) { apply_mask(x, mask, out); },
        [&](std::span<float> out) { reference::apply_mask(x, mask, out); });
    check_output<float>(
        x.size(), misalign,
        [&](std::span<float> out) {
          std::copy(x.begin(), x.end(), out.begin());
          apply_mask(out, mask, out);
        },
        [&](std::span<float> out) { reference::apply_mask(x, mask, out); });
  });
}

TEST_CASE("apply_mask writes +0 where it drops, even over NaN and -1") {
  std::vector<float> x(70, kNaN), out(70);
  x[1] = -1;
  const std::vector<uint64_t> mask{uint64_t{1} << 40, 1};
  x[40] = -2, x[64] = 7;
  apply_mask(x, mask, out);
  for (size_t i = 0; i < out.size(); ++i) {
    CHECK(same_bits(out[i], i == 40 ? -2.0f : i == 64 ? 7.0f : 0.0f));
  }
}

TEST_CASE_TEMPLATE("quantize and dequantize agree with their twins", Code, int8_t, uint8_t, int16_t, uint16_t) {
  std::vector<Grid> grids;
  for (const Grid& grid : kGrids) {
    if (std::is_signed_v<Code> || grid.lowest >= 0) grids.push_back(grid);
  }
  using Limits = std::numeric_limits<Code>;
  grids.push_back({0.01f, 100.0f, Limits::min(), Limits::min(), Limits::max()});
  grids.push_back({0.02f, 50.0f, Limits::max(), Limits::min(), Limits::max()});
  grids.push_back({0.001f, 1000.0f, Limits::max() / 2, Limits::min(), Limits::max()});
  for_each_input([&](std::span<const float> x, size_t misalign) {
    for (const Grid& grid : grids) {
      CAPTURE(grid.scale);
      CAPTURE(grid.zero_point);
      std::vector<Code> codes(x.size());
      reference::quantize(x, grid, std::span<Code>(codes));
      check_output<Code>(
          x.size(), misalign, [&](std::span<Code> out) { quantize(x, grid, out); },
          [&](std::span<Code> out) { std::copy(codes.begin(), codes.end(), out.begin()); });
      check_output<float>(
          x.size(), misalign, [&](std::span<float> out) { dequantize(std::span<const Code>(codes), grid, out); },
          [&](std::span<float> out) { reference::dequantize(std::span<const Code>(codes), grid, out); });
    }
  });
}

TEST_CASE("quantize rounds ties to the even code") {
  std::vector<float> x;
  for (int i = -130; i <= 130; ++i) x.push_back(static_cast<float>(i) + 0.5f);
  std::vector<int8_t> codes(x.size());
  quantize(x, {1, 1, 0, -127, 127}, std::span<int8_t>(codes));
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(codes[i] == static_cast<int>(std::clamp(std::nearbyint(x[i]), -127.0f, 127.0f)));
  }
  std::vector<uint16_t> wide(x.size());
  for (float& v : x) v += 60000;
  quantize(x, {1, 1, 0, 0, 65535}, std::span<uint16_t>(wide));
  for (size_t i = 0; i < x.size(); ++i) CHECK(static_cast<float>(wide[i]) == std::nearbyint(x[i]));
}

TEST_CASE("quantize gives NaN the code of zero and infinities the outermost codes") {
  for (const size_t n : {6, 64}) {
    std::vector<float> x{kNaN, kInf, -kInf, 3e38f, -3e38f, -kNaN};
    x.resize(n);
    std::vector<uint8_t> codes(n);
    quantize(x, {0.5f, 2, 17, 3, 250}, std::span<uint8_t>(codes));
    const int expected[] = {17, 250, 3, 250, 3, 17};
    for (size_t i = 0; i < 6; ++i) CHECK(codes[i] == expected[i]);
  }
}

TEST_CASE("every magnitude of input, however large, lands on the nearer end of the grid") {
  for (int exponent = -20; exponent < 128; ++exponent) {
    for (const float mantissa : {1.0f, 1.25f, 1.9999999f}) {
      for (const float sign : {1.0f, -1.0f}) {
        const float v = sign * std::ldexp(mantissa, exponent);
        const std::vector<float> x(32, v);
        std::vector<int16_t> codes(32);
        quantize(x, {1, 1, -100, -32768, 32767}, std::span<int16_t>(codes));
        const double expected = std::clamp(std::nearbyint(double{v}) - 100, -32768.0, 32767.0);
        CHECK(codes[31] == static_cast<int>(expected));
      }
    }
  }
}

TEST_CASE("fake_quantize agrees with its twin, also in place") {
  for_each_input([](std::span<const float> x, size_t misalign) {
    for (const Grid& grid : kGrids) {
      CAPTURE(grid.scale);
      check_output<float>(
          x.size(), 3 - misalign, [&](std::span<float> out) { fake_quantize(x, grid, out); },
          [&](std::span<float> out) { reference::fake_quantize(x, grid, out); });
      check_output<float>(
          x.size(), misalign,
          [&](std::span<float> out) {
            std::copy(x.begin(), x.end(), out.begin());
            fake_quantize(out, grid, out);
          },
          [&](std::span<float> out) { reference::fake_quantize(x, grid, out); });
    }
  });
}

TEST_CASE("fake_quantize is dequantize after quantize") {
  std::vector<float> x(500), back(500), once(500);
  fill(x, Kind::kSpecial, 8);
  const Grid grid{0.037f, 1 / 0.037f, 20, 0, 255};
  std::vector<uint8_t> codes(500);
  quantize(x, grid, std::span<uint8_t>(codes));
  dequantize(std::span<const uint8_t>(codes), grid, back);
  fake_quantize(x, grid, once);
  CHECK(first_difference(std::span(back), std::span(once)) == x.size());
}

TEST_CASE("fake_quantize_stochastic agrees with its twin, also in place") {
  for_each_input([](std::span<const float> x, size_t misalign) {
    for (const Grid& grid : kGrids) {
      CAPTURE(grid.scale);
      check_output<float>(
          x.size(), misalign,
          [&](std::span<float> out) {
            std::copy(x.begin(), x.end(), out.begin());
            fake_quantize_stochastic(out, grid, 99, 1234567, out);
          },
          [&](std::span<float> out) { reference::fake_quantize_stochastic(x, grid, 99, 1234567, out); });
    }
  });
}

TEST_CASE("stochastic rounding does not depend on how the array is cut") {
  std::vector<float> x(777), whole(777), cut(777);
  fill(x, Kind::kNormal, 4);
  const Grid grid{0.1f, 1 / 0.1f, 0, -127, 127};
  fake_quantize_stochastic(x, grid, 1, 0, whole);
  size_t at = 0;
  for (const size_t piece : {1, 30, 33, 64, 100, 549}) {
    fake_quantize_stochastic(std::span<const float>(x).subspan(at, piece), grid, 1, at,
                             std::span(cut).subspan(at, piece));
    at += piece;
  }
  REQUIRE(at == x.size());
  CHECK(first_difference(std::span(whole), std::span(cut)) == x.size());
}

TEST_CASE("the mean of stochastic rounding is the value itself") {
  // One draw is 0 or 1 with P(1) = p: the mean of n has a standard deviation of sqrt(p (1 - p) / n) < 0.5 / sqrt(n).
  constexpr size_t kDraws = 1 << 16;
  for (const float p : {0.01f, 0.25f, 0.5f, 0.9f}) {
    std::vector<float> x(kDraws, -3 + p), out(kDraws);
    fake_quantize_stochastic(x, {1, 1, 0, -127, 127}, 7, 0, out);
    double sum = 0;
    for (const float v : out) {
      CHECK_UNARY(v == -3.0f || v == -2.0f);
      sum += v;
    }
    CHECK(std::abs(sum / kDraws - (-3 + double{p})) < 5 * 0.5 / std::sqrt(double{kDraws}));
  }
}

TEST_CASE("quantization_error agrees with its twin") {
  for_each_input([](std::span<const float> x, size_t) {
    for (const Grid& grid : kGrids) {
      CAPTURE(grid.scale);
      CHECK(same_bits(quantization_error(x, grid), reference::quantization_error(x, grid)));
    }
  });
}

TEST_CASE("quantization_error is the squared error that difference finds, to single precision") {
  std::vector<float> x(10007), out(10007);
  fill(x, Kind::kNormal, 6);
  x[5] = kNaN, x[900] = kInf, x[10006] = -kInf;
  const Grid grid{0.02f, 1 / 0.02f, 0, -127, 127};
  fake_quantize(x, grid, out);
  const double expected = difference(x, out).sum_squared_error;
  CHECK(quantization_error(x, grid) == doctest::Approx(expected).epsilon(1e-5));
}

TEST_CASE("quantize_rows agrees with its twin for rows of every length") {
  for (const size_t columns : {1, 2, 9, 27, 31, 32, 33, 64, 100, 2500}) {
    for (const size_t rows : {1, 2, 5}) {
      for (const Kind kind : {Kind::kNormal, Kind::kFewValues, Kind::kWideRange}) {
        Guarded<float> x(rows * columns, 1), scales(rows, 1), expected_scales(rows);
        fill(x.span(), kind, rows * columns);
        x.span()[0] = 0;  // with one column, a row of nothing but zero
        check_output<int8_t>(
            rows * columns, 1, [&](std::span<int8_t> out) { quantize_rows(x.span(), rows, scales.span(), out); },
            [&](std::span<int8_t> out) { reference::quantize_rows(x.span(), rows, expected_scales.span(), out); });
        CHECK(first_difference(scales.span(), expected_scales.span()) == rows);
        CHECK(scales.intact());
      }
    }
  }
  quantize_rows({}, 0, {}, {});
}

TEST_CASE("quantize_rows uses the whole range of each row and errs by at most half a step") {
  std::vector<float> x(8 * 300), scales(8);
  fill(x, Kind::kNormal, 12);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= std::pow(10.0f, static_cast<float>(i / 300) - 4);
  std::vector<int8_t> codes(x.size());
  quantize_rows(x, 8, scales, codes);
  for (size_t r = 0; r < 8; ++r) {
    int widest = 0;
    for (size_t i = r * 300; i < (r + 1) * 300; ++i) {
      widest = std::max(widest, std::abs(int{codes[i]}));
      CHECK(std::abs(x[i] - scales[r] * codes[i]) <= 0.50001f * scales[r]);
    }
    CHECK(widest == 127);
  }
}

TEST_CASE("rows and groups of zeros have scale 1 and codes 0; tiny ones give no NaN") {
  for (const float tiny : {0.0f, -0.0f, 1e-45f, 1e-44f, 1e-40f, 2e-38f}) {
    std::vector<float> x(64, tiny), scales(1), group_scales(2), expected_scales(2);
    x[7] = 0;
    std::vector<int8_t> codes(64), expected(64);
    quantize_rows(x, 1, scales, codes);
    reference::quantize_rows(x, 1, std::span(expected_scales).first(1), expected);
    CHECK(codes == expected);
    CHECK(scales[0] == expected_scales[0]);
    CHECK(codes[7] == 0);
    if (tiny == 0) CHECK(scales[0] == 1);
    std::vector<uint8_t> packed(32), expected_packed(32);
    quantize_groups_of_32(x, group_scales, packed);
    reference::quantize_groups_of_32(x, expected_scales, expected_packed);
    CHECK(packed == expected_packed);
    CHECK(group_scales == expected_scales);
  }
}

TEST_CASE("groups of 32 agree with their twins, there and back") {
  for (const size_t groups : {0, 1, 2, 3, 4, 5, 7, 8, 9, 33}) {
    for (const Kind kind : {Kind::kNormal, Kind::kFewValues, Kind::kWideRange}) {
      for (const size_t misalign : {0, 1}) {
        Guarded<float> x(groups * 32, misalign), scales(groups, misalign), expected_scales(groups);
        fill(x.span(), kind, groups + 40);
        std::vector<uint8_t> packed(groups * 16);
        reference::quantize_groups_of_32(x.span(), expected_scales.span(), packed);
        check_output<uint8_t>(
            groups * 16, misalign, [&](std::span<uint8_t> out) { quantize_groups_of_32(x.span(), scales.span(), out); },
            [&](std::span<uint8_t> out) { std::copy(packed.begin(), packed.end(), out.begin()); });
        CHECK(first_difference(scales.span(), expected_scales.span()) == groups);
        CHECK(scales.intact());
        check_output<float>(
            groups * 32, misalign, [&](std::span<float> out) { dequantize_groups_of_32(packed, scales.span(), out); },
            [&](std::span<float> out) { reference::dequantize_groups_of_32(packed, scales.span(), out); });
      }
    }
  }
}

TEST_CASE("a group of 32 is packed as pack_bits packs the low four bits of its codes") {
  std::vector<float> x(32), scale(1);
  fill(x, Kind::kNormal, 2);
  std::vector<uint8_t> packed(16), expected(16);
  quantize_groups_of_32(x, scale, packed);
  CHECK(scale[0] == abs_max(x) / 7);
  std::vector<int8_t> codes(32);
  quantize(x, {scale[0], 1 / scale[0], 0, -7, 7}, std::span<int8_t>(codes));
  pack_bits({reinterpret_cast<const uint8_t*>(codes.data()), 32}, 4, expected);
  CHECK(packed == expected);
}

TEST_CASE("every nibble of a packed group means its two's complement") {
  std::vector<uint8_t> packed(256 / 2 * 16 / 8);
  packed.resize(256);
  for (size_t i = 0; i < 256; ++i) packed[i] = static_cast<uint8_t>(i);
  const std::vector<float> scales(16, 0.5f);
  std::vector<float> out(512);
  dequantize_groups_of_32(packed, scales, out);
  for (size_t i = 0; i < 512; ++i) {
    const int nibble = static_cast<int>(i % 2 ? i / 2 >> 4 : i / 2 & 15);
    CHECK(out[i] == 0.5f * static_cast<float>(nibble > 7 ? nibble - 16 : nibble));
  }
}

TEST_CASE("packing agrees with its twin and unpacking gives back the low bits, for widths 1 to 8") {
  for (int bits = 1; bits <= 8; ++bits) {
    CAPTURE(bits);
    for (const size_t size : kSizes) {
      CAPTURE(size);
      std::vector<uint8_t> codes(size), low(size);
      for (size_t i = 0; i < size; ++i) {
        codes[i] = static_cast<uint8_t>(mix64(size, i));
        low[i] = static_cast<uint8_t>(codes[i] & ((1 << bits) - 1));
      }
      const size_t bytes = packed_bytes(size, bits);
      CHECK(bytes == (size * static_cast<size_t>(bits) + 7) / 8);
      Guarded<uint8_t> packed(bytes, 1);
      pack_bits(codes, bits, packed.span());
      CHECK(packed.intact());
      std::vector<uint8_t> expected(bytes);
      reference::pack_bits(codes, bits, expected);
      CHECK(first_difference(packed.span(), std::span(expected)) == bytes);
      check_output<uint8_t>(
          size, 1, [&](std::span<uint8_t> out) { unpack_bits(packed.span(), bits, out); },
          [&](std::span<uint8_t> out) { std::copy(low.begin(), low.end(), out.begin()); });
      reference::unpack_bits(packed.span(), bits, codes);
      CHECK(codes == low);
    }
  }
}

TEST_CASE("packing puts the first code into the lowest bits") {
  std::vector<uint8_t> out(2);
  pack_bits(std::vector<uint8_t>{1, 2, 15}, 4, out);
  CHECK(out == std::vector<uint8_t>{0x21, 0x0F});
  pack_bits(std::vector<uint8_t>{0b101, 0b011, 0b110, 0b001}, 3, out);  // 001'110'011'101
  CHECK(out == std::vector<uint8_t>{0b10011101, 0b00000011});
}

TEST_CASE("transpose agrees with its twin, and twice is the identity") {
  for (const size_t rows : {0, 1, 3, 4, 5, 15, 16, 17, 33, 70}) {
    for (const size_t columns : {1, 2, 4, 7, 16, 19, 32, 65}) {
      Guarded<float> x(rows * columns, 1);
      fill(x.span(), Kind::kAnyBits, rows * columns);
      std::vector<float> once(rows * columns);
      check_output<float>(
          rows * columns, 1,
          [&](std::span<float> out) {
            transpose(x.span(), rows, columns, out);
            std::copy(out.begin(), out.end(), once.begin());
          },
          [&](std::span<float> out) { reference::transpose(x.span(), rows, columns, out); });
      std::vector<float> twice(rows * columns);
      transpose(once, columns, rows, twice);
      CHECK(first_difference(std::span(twice), x.span()) == rows * columns);
    }
  }
}

TEST_CASE("all 65536 half floats convert to the value that their fields spell") {
  std::vector<uint16_t> halves(65536);
  std::iota(halves.begin(), halves.end(), uint16_t{0});
  std::vector<float> found(65536), twin(65536);
  half_to_float(halves, found);
  reference::half_to_float(halves, twin);
  CHECK(first_difference(std::span(found), std::span(twin)) == found.size());
  for (size_t i = 0; i < halves.size(); ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31), fraction = static_cast<int>(i & 1023);
    const float sign = i & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 31 && fraction != 0) {
      CHECK(std::isnan(found[i]));
      continue;
    }
    float value = kInf;
    if (exponent < 31)
      value = std::ldexp(static_cast<float>(fraction + (exponent ? 1024 : 0)), std::max(exponent, 1) - 25);
    CHECK(same_bits(found[i], sign * value));
  }
  std::vector<uint16_t> back(65536);
  float_to_half(found, back);
  for (size_t i = 0; i < halves.size(); ++i) CHECK(back[i] == (std::isnan(found[i]) ? (i | 0x200) : i));
}

TEST_CASE("the point halfway between two half floats rounds to the even one, its neighbours to the nearer") {
  std::vector<float> middle, below, above;
  for (int i = 0; i < 0x7BFF; ++i) {
    const float m =
        (reference::half_to_float(static_cast<uint16_t>(i)) + reference::half_to_float(static_cast<uint16_t>(i + 1))) /
        2;
    middle.push_back(m);
    below.push_back(std::nextafter(m, 0.0f));
    above.push_back(std::nextafter(m, kInf));
  }
  std::vector<uint16_t> a(middle.size()), b(middle.size()), c(middle.size());
  float_to_half(middle, a);
  float_to_half(below, b);
  float_to_half(above, c);
  size_t wrong = 0;
  for (size_t i = 0; i < a.size(); ++i) wrong += a[i] != i + i % 2 || b[i] != i || c[i] != i + 1;
  CHECK(wrong == 0);
  const std::vector<float> edges{65504.0f, 65519.996f, 65520.0f, -65520.0f, 1e30f, 0x1p-25f, 0x1.000002p-25f, -0.0f};
  const std::vector<uint16_t> expected{0x7BFF, 0x7BFF, 0x7C00, 0xFC00, 0x7C00, 0, 1, 0x8000};
  std::vector<uint16_t> found(edges.size());
  float_to_half(edges, found);
  CHECK(found == expected);
}

TEST_CASE("conversions to half and bfloat16 agree with their twins") {
  for_each_input([](std::span<const float> x, size_t misalign) {
    check_output<uint16_t>(
        x.size(), misalign, [&](std::span<uint16_t> out) { float_to_half(x, out); },
        [&](std::span<uint16_t> out) { reference::float_to_half(x, out); });
    check_output<uint16_t>(
        x.size(), misalign, [&](std::span<uint16_t> out) { float_to_bfloat16(x, out); },
        [&](std::span<uint16_t> out) { reference::float_to_bfloat16(x, out); });
    std::vector<uint16_t> halves(x.size());
    for (size_t i = 0; i < x.size(); ++i) halves[i] = static_cast<uint16_t>(mix64(5, i));
    check_output<float>(
        x.size(), misalign, [&](std::span<float> out) { half_to_float(halves, out); },
        [&](std::span<float> out) { reference::half_to_float(halves, out); });
  });
}

TEST_CASE("all 65536 bfloat16 patterns are the upper half of a float, and come back") {
  std::vector<uint16_t> patterns(65536), back(65536);
  std::iota(patterns.begin(), patterns.end(), uint16_t{0});
  std::vector<float> found(65536);
  bfloat16_to_float(patterns, found);
  float_to_bfloat16(found, back);
  size_t wrong = 0;
  for (size_t i = 0; i < patterns.size(); ++i) {
    wrong += std::bit_cast<uint32_t>(found[i]) != i << 16;
    wrong += back[i] != (std::isnan(found[i]) ? (i | 0x40) : i);
  }
  CHECK(wrong == 0);
}

TEST_CASE("bfloat16 rounds half to even") {
  const auto bits = [](uint32_t b) { return std::bit_cast<float>(b); };
  const std::vector<float> x{bits(0x3F808000), bits(0x3F818000), bits(0x3F808001), bits(0x3F807FFF), kHuge,
                             -kHuge,           bits(0x7F800001)};
  const std::vector<uint16_t> expected{0x3F80, 0x3F82, 0x3F81, 0x3F80, 0x7F80, 0xFF80, 0x7FC0};
  std::vector<uint16_t> found(x.size());
  float_to_bfloat16(x, found);
  CHECK(found == expected);
}

}  // namespace nibble::kernels
