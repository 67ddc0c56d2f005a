// Holds quantization against the formulas written out in double precision, numpy's numbers, exhaustive searches and
// closed forms; and every result against its promise: each value is scale * (code - zero_point), rounded to its type.
#include "core/quantize/quantize.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "core/prune/prune.hpp"
#include "tests/core/golden/numpy.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using kernels::Grid;
using test::random_floats;
using test::same_bits;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr int kWidths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
constexpr RangeKind kKinds[] = {RangeKind::MinMax, RangeKind::Percentile, RangeKind::Sigma, RangeKind::Mse};
constexpr Granularity kGranularities[] = {Granularity::Tensor, Granularity::Channel, Granularity::Group};
constexpr DType kRealTypes[] = {DType::Float32, DType::Float64, DType::Float16, DType::BFloat16};

QuantScheme scheme_of(int bits, bool symmetric, Granularity granularity = Granularity::Tensor, size_t group_size = 32) {
  return {bits, symmetric, granularity, group_size};
}

std::string name_of(const QuantScheme& scheme) {
  return std::to_string(scheme.bits) + (scheme.symmetric ? " symmetric bits" : " affine bits") + ", granularity " +
         std::to_string(static_cast<int>(scheme.granularity)) + ", group " + std::to_string(scheme.group_size);
}

Param param_of(const std::vector<float>& values, Shape shape, DType dtype = DType::Float32) {
  return {"w", from_floats(dtype, shape, values), std::nullopt, std::nullopt};
}
Param vector_of(const std::vector<float>& values, DType dtype = DType::Float32) {
  return param_of(values, {values.size()}, dtype);
}

Weight weight_of(std::optional<size_t> channel_axis) {
  Weight weight;
  weight.channel_axis = channel_axis;
  return weight;
}

std::vector<float> values_of(const Param& param) {
  const FloatView view(param.value);
  return {view.values().begin(), view.values().end()};
}

Param quantized(const Param& param, const QuantScheme& scheme, const RangeChoice& range = {},
                std::optional<size_t> channel_axis = std::nullopt, Rounding rounding = Rounding::Nearest,
                uint64_t key = 1) {
  return quantize_weight(param, weight_of(channel_axis), scheme, range, rounding, key, std::nullopt);
}

Grid grid_of(const std::vector<float>& values, const QuantScheme& scheme, const RangeChoice& range = {}) {
  const std::span<const float> piece(values);
  return find_grid(std::span(&piece, 1), scheme, range);
}

/// The codes of a scheme, from its description in words.
int32_t lowest(const QuantScheme& scheme) {
  if (!scheme.symmetric) return 0;
  return scheme.bits == 1 ? -1 : 1 - (1 << (scheme.bits - 1));
}
int32_t highest(const QuantScheme& scheme) {
  if (!scheme.symmetric) return (1 << scheme.bits) - 1;
  return scheme.bits == 1 ? 1 : (1 << (scheme.bits - 1)) - 1;
}

/// Which scale an element belongs to, by its coordinates: row `channel`, and its place within that row.
struct Place {
  size_t channel = 0, at = 0;
};
Place place_of(const Shape& shape, std::optional<size_t> axis, size_t index) {
  std::vector<size_t> coordinates(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    coordinates[d] = index % shape[d];
    index /= shape[d];
  }
  Place place;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (d == axis) {
      place.channel = coordinates[d];
    } else {
      place.at = place.at * shape[d] + coordinates[d];
    }
  }
  return place;
}

/// Index into QuantParams of an element's scale.
size_t scale_index(const Param& param, std::optional<size_t> axis, size_t index) {
  const QuantScheme& scheme = param.grid->scheme;
  if (scheme.granularity == Granularity::Tensor || scheme.granularity == Granularity::Global) return 0;
  const Place place = place_of(param.value.shape(), axis, index);
  if (scheme.granularity == Granularity::Channel) return place.channel;
  const size_t channels = axis ? param.value.shape()[*axis] : 1, length = param.value.elements() / channels;
  return place.channel * ((length + scheme.group_size - 1) / scheme.group_size) + place.at / scheme.group_size;
}

/// The promise of Param::grid. One symmetric bit has code 0 for pruned values and NaN alone.
void check_on_grid(const Param& param, std::optional<size_t> axis, bool zero_allowed = false) {
  REQUIRE(param.grid);
  const QuantParams& grid = *param.grid;
  const std::vector<float> values = values_of(param);
  const bool no_zero = grid.scheme.bits == 1 && grid.scheme.symmetric && !zero_allowed;
  size_t off = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t index = scale_index(param, axis, i);
    if (index >= grid.scale.size()) FAIL("no scale for element ", i);
    const float scale = grid.scale[index];
    const int32_t zero_point = grid.zero_point[index];
    // A narrow type may have rounded the value by many steps of a fine grid.
    const double steps = std::nearbyint(double{values[i]} / scale), near = steps + zero_point;
    const DType dtype = param.value.dtype();
    const double rounded = dtype == DType::Float16 ? 0x1p-11 : dtype == DType::BFloat16 ? 0x1p-8 : 0;
    const double reach = 1 + std::ceil(std::abs(steps) * rounded);
    bool found = false;
    for (double code = near - reach; code <= near + reach && !found; ++code) {
      if (code < lowest(grid.scheme) || code > highest(grid.scheme) || (no_zero && code == 0)) continue;
      float point = scale * static_cast<float>(code - zero_point);
      round_through(param.value.dtype(), std::span(&point, 1));
      found = point == values[i];
    }
    off += !found;
  }
  CHECK_MESSAGE(off == 0, name_of(grid.scheme), ": ", off, " of ", values.size(), " values are on no grid point");
  CHECK(std::all_of(grid.zero_point.begin(), grid.zero_point.end(), [&](int32_t zero_point) {
    return grid.scheme.symmetric ? zero_point == 0 : zero_point >= 0 && zero_point <= highest(grid.scheme);
  }));
}

/// Squared error of the nearest code of (scale, zero_point), in double.
double error_of_grid(const std::vector<float>& values, const QuantScheme& scheme, double scale, double zero_point) {
  double sum = 0;
  const double low = lowest(scheme) - zero_point, high = highest(scheme) - zero_point;
  for (const float value : values) {
    const double error = value - scale * std::clamp(std::nearbyint(value / scale), low, high);
    sum += error * error;
  }
  return sum;
}

double error_of_range(const std::vector<float>& values, const QuantScheme& scheme, double lo, double hi) {
  if (scheme.symmetric) return error_of_grid(values, scheme, std::max(-lo, hi) / highest(scheme), 0);
  lo = std::min(lo, 0.0);
  hi = std::max(hi, 0.0);
  const double scale = (hi - lo) / highest(scheme);
  return error_of_grid(values, scheme, scale, std::clamp<double>(std::nearbyint(-lo / scale), 0, highest(scheme)));
}

std::vector<float> laplace(size_t count, uint64_t seed) {
  test::Random random{seed};
  std::vector<float> values(count);
  for (float& value : values) {
    const double u = random.uniform() - 0.5;
    value = static_cast<float>((u < 0 ? 1 : -1) * std::log1p(-2 * std::abs(u) + 1e-9));
  }
  return values;
}

std::vector<float> uniform(size_t count, uint64_t seed, float lo, float hi) {
  test::Random random{seed};
  std::vector<float> values(count);
  for (float& value : values) value = lo + (hi - lo) * random.uniform();
  return values;
}

}  // namespace

TEST_CASE("worked examples come out as on paper") {
  SUBCASE("step 1: 3.6 becomes 4, ties go to even") {
    const Param result = quantized(vector_of({3.6f, -3.6f, 2.5f, 3.5f, -2.5f, -0.5f, 0.49f, 127}), scheme_of(8, true));
    CHECK(result.grid->scale == std::vector<float>{1});
    CHECK(values_of(result) == std::vector<float>{4, -4, 2, 4, -2, 0, 0, 127});
  }
  SUBCASE("affine, -1 to 2 with 2 bits: step 1, zero point 1") {
    const Param result = quantized(vector_of({-1, -0.6f, 0, 0.4f, 1.2f, 2}), scheme_of(2, false));
    CHECK(result.grid->scale == std::vector<float>{1});
    CHECK(result.grid->zero_point == std::vector<int32_t>{1});
    CHECK(values_of(result) == std::vector<float>{-1, -1, 0, 0, 1, 2});
  }
  SUBCASE("affine, 8 bits: (max - min) / 255 and round(-min / scale)") {
    const Grid grid = grid_of({-1, 0.5f, 2}, scheme_of(8, false));
    CHECK(grid.scale == static_cast<float>(3.0 / 255));
    CHECK(grid.zero_point == 85);
  }
  SUBCASE("ternary") {
    const Param result = quantized(vector_of({-2, -1.1f, -0.9f, 0.3f, 1.5f}), scheme_of(2, true));
    CHECK(values_of(result) == std::vector<float>{-2, -2, 0, 0, 2});
  }
  SUBCASE("a scale for each row") {
    const Param result =
        quantized(param_of({7, 3.2f, 70, 32}, {2, 2}), scheme_of(4, true, Granularity::Channel), {}, 0);
    CHECK(result.grid->scale == std::vector<float>{1, 10});
    CHECK(values_of(result) == std::vector<float>{7, 3, 70, 30});
  }
  SUBCASE("a scale for each column") {
    const Param result =
        quantized(param_of({7, 70, 3.2f, 32}, {2, 2}), scheme_of(4, true, Granularity::Channel), {}, 1);
    CHECK(result.grid->scale == std::vector<float>{1, 10});
    CHECK(values_of(result) == std::vector<float>{7, 70, 3, 30});
  }
}

TEST_CASE("every granularity and layout matches the formulas in double precision") {
  struct Layout {
    Shape shape;
    std::optional<size_t> axis;
  };
  const Layout layouts[] = {
      {{24}, std::nullopt},    {{7, 33}, 0}, {{33, 7}, 1}, {{4, 3, 5, 2}, 0}, {{4, 3, 5, 2}, 1}, {{2, 3, 4}, 2},
      {{3, 70}, std::nullopt}, {{1, 65}, 0}, {{5, 1}, 0},  {{2, 6, 5}, 1},    {{}, std::nullopt}};
  for (const auto& [shape, axis] : layouts) {
    const std::vector<float> values = random_floats(elements_of(shape), 11 + shape.size());
    const Param param = param_of(values, shape);
    for (const int bits : kWidths) {
      for (const bool symmetric : {true, false}) {
        if (bits == 1 && symmetric) continue;
        for (const Granularity granularity : kGranularities) {
          for (const size_t group_size : {2, 7, 32, 1000}) {
            if (granularity != Granularity::Group && group_size != 32) continue;
            const QuantScheme scheme = scheme_of(bits, symmetric, granularity, group_size);
            CAPTURE(name_of(scheme));
            CAPTURE(to_string(shape));
            const Param result = quantized(param, scheme, {}, axis);
            check_on_grid(result, axis);
            CHECK(result.value.shape() == shape);
            // Ends of what shares a scale, collected by coordinates.
            std::vector<double> lo(result.grid->scale.size(), 0), hi = lo;
            for (size_t i = 0; i < values.size(); ++i) {
              const size_t index = scale_index(result, axis, i);
              if (index >= lo.size()) FAIL("no scale for element ", i);
              lo[index] = std::min<double>(lo[index], values[i]);
              hi[index] = std::max<double>(hi[index], values[i]);
            }
            for (size_t s = 0; s < lo.size(); ++s) {
              const double scale =
                  symmetric ? std::max(-lo[s], hi[s]) / highest(scheme) : (hi[s] - lo[s]) / highest(scheme);
              CHECK(result.grid->scale[s] == static_cast<float>(scale));
              if (!symmetric) CHECK(std::abs(result.grid->zero_point[s] + lo[s] / scale) <= 0.5 + 1e-3);
            }
            // No grid point lies nearer than the one found, but for the float rounding of x / scale in a near tie.
            const std::vector<float> found = values_of(result);
            size_t farther = 0;
            for (size_t i = 0; i < values.size(); ++i) {
              const size_t at = scale_index(result, axis, i);
              const double step = result.grid->scale[at], zero_point = result.grid->zero_point[at];
              const double code = std::clamp<double>(std::nearbyint(values[i] / step), lowest(scheme) - zero_point,
                                                     highest(scheme) - zero_point);
              const double least = std::abs(values[i] - step * code);
              farther += std::abs(double{values[i]} - found[i]) > least + step * (1e-6 + 4e-7 * highest(scheme));
            }
            CHECK(farther == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("a scale over several arrays is the scale of all of them joined") {
  const std::vector<float> a = random_floats(100, 1), b = random_floats(37, 2, 3), c, d = {0.5f};
  std::vector<float> joined = a;
  for (const auto* part : {&b, &c, &d}) joined.insert(joined.end(), part->begin(), part->end());
  const std::span<const float> pieces[] = {a, b, c, d};
  for (const int bits : kWidths) {
    for (const bool symmetric : {true, false}) {
      for (const RangeKind kind : kKinds) {
        CAPTURE(static_cast<int>(kind));
        const QuantScheme scheme = scheme_of(bits, symmetric, Granularity::Global);
        const Grid many = find_grid(pieces, scheme, {kind, 99, 2});
        const Grid one = grid_of(joined, scheme, {kind, 99, 2});
        // Sums over pieces associate differently, so sigma and MSE may differ in the last bits.
        CHECK(many.scale == doctest::Approx(one.scale).epsilon(kind == RangeKind::Mse ? 1e-2 : 1e-6));
        CHECK(std::abs(many.zero_point - one.zero_point) <=
              (kind == RangeKind::Mse ? std::max(1, 1 << (bits - 6 > 0 ? bits - 6 : 0)) : 0));
      }
    }
  }
}

TEST_CASE("a weight put on the global grid keeps that grid") {
  const Grid global = grid_of({-4, 1}, scheme_of(4, false, Granularity::Global));
  const Param result = quantize_weight(param_of(random_floats(60, 5), {6, 10}), weight_of(0),
                                       scheme_of(4, false, Granularity::Global), {}, Rounding::Nearest, 1, global);
  CHECK(result.grid->scale == std::vector<float>{global.scale});
  CHECK(result.grid->zero_point == std::vector<int32_t>{global.zero_point});
  check_on_grid(result, 0);
}

TEST_CASE("zero is a grid point exactly, wherever the values lie") {
  for (const int bits : kWidths) {
    for (const auto& [lo, hi] : std::vector<std::pair<float, float>>{
             {-1, 2}, {0.1f, 0.7f}, {-5, -3}, {-1e-3f, 1e3f}, {-1e3f, 1e-3f}, {0, 1}, {-1, 0}, {-0.3f, 0.29f}}) {
      for (const RangeKind kind : kKinds) {
        std::vector<float> values = uniform(200, static_cast<uint64_t>(bits), lo, hi);
        values[13] = 0.0f;
        values[77] = -0.0f;
        const Param result = quantized(vector_of(values), scheme_of(bits, false), {kind, 95, 2});
        CAPTURE(bits);
        CAPTURE(lo);
        CHECK(same_bits(values_of(result)[13], 0.0f));
        CHECK(values_of(result)[77] == 0.0f);
        check_on_grid(result, std::nullopt);
      }
    }
  }
}

TEST_CASE("nearest rounding is ONNX QuantizeLinear's: half to even before the zero point is added") {
  // Power-of-two scales make x / scale exact, so that ties are ties.
  SUBCASE("symmetric") {
    std::vector<float> values = {127 * 0.125f};
    for (int i = -254; i <= 254; ++i) values.push_back(static_cast<float>(i) * 0.0625f);
    const Param result = quantized(vector_of(values), scheme_of(8, true));
    REQUIRE(result.grid->scale[0] == 0.125f);
    const std::vector<float> found = values_of(result);
    for (size_t i = 0; i < values.size(); ++i) {
      CHECK(found[i] == 0.125 * std::clamp(std::nearbyint(values[i] / 0.125), -127.0, 127.0));
    }
  }
  SUBCASE("affine with odd and even zero points") {
    for (const int zero_point : {63, 64}) {
      const float lo = -0.25f * static_cast<float>(zero_point), hi = lo + 63.75f;
      std::vector<float> values = {lo, hi};
      for (int i = -126; i <= 380; ++i) values.push_back(static_cast<float>(i) * 0.125f);
      std::erase_if(values, [&](float value) { return value < lo || value > hi; });
      const Param result = quantized(vector_of(values), scheme_of(8, false));
      REQUIRE(result.grid->scale[0] == 0.25f);
      REQUIRE(result.grid->zero_point[0] == zero_point);
      const std::vector<float> found = values_of(result);
      for (size_t i = 0; i < values.size(); ++i) {
        const double code = std::clamp(std::nearbyint(values[i] / 0.25) + zero_point, 0.0, 255.0);
        CHECK(found[i] == 0.25 * (code - zero_point));
      }
    }
  }
}

TEST_CASE("4-bit codes are numpy's") {
  for (const golden::Set& set : golden::kSets) {
    CAPTURE(std::string(set.name));
    const Param result = quantized(vector_of(set.values), scheme_of(4, true));
    CHECK(result.grid->scale[0] == static_cast<float>(set.scale4));
    const std::vector<float> values = values_of(result);
    size_t wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      // numpy's scale is a double: what is a tie there need not be one here.
      const double place = std::abs(set.values[i] / set.scale4);
      if (std::abs(place - std::floor(place) - 0.5) < 1e-5) continue;
      wrong += values[i] != result.grid->scale[0] * static_cast<float>(set.codes4[i]);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("percentiles are numpy's, method inverted_cdf") {
  for (const golden::Set& set : golden::kSets) {
    for (size_t i = 0; i < golden::kPercentiles.size(); ++i) {
      CAPTURE(std::string(set.name));
      CAPTURE(golden::kPercentiles[i]);
      const RangeChoice range{RangeKind::Percentile, golden::kPercentiles[i], 3};
      const Grid symmetric = grid_of(set.values, scheme_of(8, true), range);
      const double bound = set.magnitude_at[i];
      CHECK(symmetric.scale == (bound == 0 ? 1.0f : static_cast<float>(bound / 127)));
      const Grid affine = grid_of(set.values, scheme_of(8, false), range);
      const double lo = std::min(0.0, set.low_at[i]), hi = std::max(0.0, set.high_at[i]);
      CHECK(affine.scale == (hi == lo ? 1.0f : static_cast<float>((hi - lo) / 255)));
      if (hi > lo) CHECK(affine.zero_point == std::lround(-lo / affine.scale));
    }
  }
}

TEST_CASE("sigma is numpy's mean and deviation, never wider than the values") {
  for (const golden::Set& set : golden::kSets) {
    const auto [least, most] = std::minmax_element(set.values.begin(), set.values.end());
    for (const double sigmas : {0.1, 1.0, 2.0, 3.0, 6.0, 100.0}) {
      CAPTURE(std::string(set.name));
      CAPTURE(sigmas);
      const double lo = std::max<double>(*least, set.mean - sigmas * set.deviation);
      const double hi = std::min<double>(*most, set.mean + sigmas * set.deviation);
      const RangeChoice range{RangeKind::Sigma, 99.9, sigmas};
      const Grid symmetric = grid_of(set.values, scheme_of(8, true), range);
      CHECK(symmetric.scale == doctest::Approx(std::max(std::abs(lo), std::abs(hi)) / 127).epsilon(1e-6));
      const Grid affine = grid_of(set.values, scheme_of(8, false), range);
      const double zero_lo = std::min(0.0, lo), zero_hi = std::max(0.0, hi);
      CHECK(affine.scale == doctest::Approx((zero_hi - zero_lo) / 255).epsilon(1e-6));
    }
  }
}

TEST_CASE("the MSE range is never worse than min-max and within 1 % of an exhaustive search") {
  struct Data {
    const char* name;
    std::vector<float> values;
  };
  std::vector<Data> data = {{"gaussian", random_floats(500, 3)},
                            {"shifted gaussian", random_floats(500, 4, 0.2f)},
                            {"laplace", laplace(500, 5)},
                            {"uniform", uniform(500, 6, -1, 1)},
                            {"lopsided", uniform(500, 7, -0.2f, 3)},
                            {"few values", {0.1f, 0.25f, -0.8f, 0.33f, 1.7f}}};
  for (float& value : data[1].values) value += 0.3f;
  for (const float far : {4.0f, 12.0f, 20.0f, 60.0f, 1000.0f}) {
    for (const size_t count : {1, 3}) {
      std::vector<float> values = random_floats(500, 8);
      for (size_t i = 0; i < count; ++i) values[i * 100] = (i % 2 ? -far : far) * (1 - 0.1f * static_cast<float>(i));
      data.push_back({"outliers", values});
    }
  }
  for (const Data& set : data) {
    const auto [least, most] = std::minmax_element(set.values.begin(), set.values.end());
    for (int bits = 2; bits <= 8; ++bits) {
      for (const bool symmetric : {true, false}) {
        const QuantScheme scheme = scheme_of(bits, symmetric);
        CAPTURE(std::string(set.name));
        CAPTURE(*most);
        CAPTURE(name_of(scheme));
        const Grid plain = grid_of(set.values, scheme);
        const Grid found = grid_of(set.values, scheme, {RangeKind::Mse, 99.9, 3});
        const double error = error_of_grid(set.values, scheme, found.scale, found.zero_point);
        CHECK(error <= error_of_grid(set.values, scheme, plain.scale, plain.zero_point) * (1 + 1e-6));
        if (set.values.size() < 100) continue;  // so bumpy that only exhaustion would do
        double best = HUGE_VAL;
        constexpr int kRatios = 4000;
        for (int i = 1; i <= kRatios; ++i) {
          const double ratio = static_cast<double>(i) / kRatios;
          best = std::min(best, error_of_range(set.values, scheme, *least * ratio, *most * ratio));
        }
        CHECK(error <= 1.01 * best);
      }
    }
  }
}

TEST_CASE("one symmetric bit is the sign times the mean magnitude, which has least squared error") {
  for (const golden::Set& set : golden::kSets) {
    CAPTURE(std::string(set.name));
    for (const RangeKind kind : kKinds) {
      const Param result = quantized(vector_of(set.values), scheme_of(1, true), {kind, 90, 1});
      const float scale = result.grid->scale[0];
      CHECK(scale == doctest::Approx(set.mean_magnitude).epsilon(1e-6));
      const std::vector<float> values = values_of(result);
      for (size_t i = 0; i < values.size(); ++i) CHECK(values[i] == (set.values[i] < 0 ? -scale : scale));
      // The closed form against its neighbours.
      const auto error = [&](double s) {
        double sum = 0;
        for (const float value : set.values) sum += std::pow(std::abs(value) - s, 2);
        return sum;
      };
      CHECK(error(scale) <= error(scale * 1.001) + 1e-12);
      CHECK(error(scale) <= error(scale * 0.999) + 1e-12);
    }
  }
}

TEST_CASE("a width has its number of levels") {
  for (const int bits : kWidths) {
    for (const bool symmetric : {true, false}) {
      // Enough evenly spread values to reach every level. Affine: not symmetric about 0, where two levels can tie.
      std::vector<float> values(300000);
      const float lo = symmetric ? -2.0f : -1.0f;
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = lo + (2 - lo) * (static_cast<float>(i) / static_cast<float>(values.size() - 1));
      }
      const Param result = quantized(vector_of(values), scheme_of(bits, symmetric));
      const std::vector<float> found = values_of(result);
      const size_t levels = std::set<float>(found.begin(), found.end()).size();
      const size_t expected = symmetric ? bits == 1 ? 2 : (size_t{1} << bits) - 1 : size_t{1} << bits;
      CAPTURE(name_of(result.grid->scheme));
      CHECK(levels == expected);
    }
  }
}

TEST_CASE("stochastic rounding is unbiased and moves by less than a step") {
  constexpr size_t kCount = 20000;
  for (const bool symmetric : {true, false}) {
    for (const int bits : {1, 2, 4, 8}) {
      const QuantScheme scheme = scheme_of(bits, symmetric);
      const float reach = symmetric ? static_cast<float>(highest(scheme)) : static_cast<float>(highest(scheme)) - 1;
      const float floor_code = symmetric ? -reach : -1.0f;
      for (const float fraction : {0.0f, 0.03125f, 0.25f, 0.5f, 0.8125f}) {
        for (const float code : {floor_code, 0.0f, reach - 1}) {
          const float x = code + fraction;
          if (x > reach || (bits == 1 && symmetric)) continue;
          // The two ends fix scale 1.
          std::vector<float> values(kCount, x);
          values[0] = symmetric ? -reach : -1.0f;
          values[1] = reach;
          const Param result = quantized(vector_of(values), scheme, {}, std::nullopt, Rounding::Stochastic, 42);
          CAPTURE(name_of(scheme));
          CAPTURE(x);
          REQUIRE(result.grid->scale[0] == 1.0f);
          check_on_grid(result, std::nullopt);
          const std::vector<float> found = values_of(result);
          double sum = 0;
          for (const float value : found) sum += value;
          CHECK(std::all_of(found.begin() + 2, found.end(), [&](float value) { return std::abs(value - x) < 1; }));
          sum -= values[0] + values[1];
          const double mean = sum / (kCount - 2);
          const double deviation = std::sqrt(fraction * (1 - fraction) / (kCount - 2));
          CHECK(std::abs(mean - x) <= 5 * deviation + 1e-9);
        }
      }
    }
  }
}

TEST_CASE("stochastic rounding of one symmetric bit is unbiased between its two levels") {
  std::vector<float> values(20000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = (i % 2 ? 1.0f : -1.0f) * (i % 4 < 2 ? 0.25f : 1.75f);
  const Param result = quantized(vector_of(values), scheme_of(1, true), {}, std::nullopt, Rounding::Stochastic, 9);
  REQUIRE(result.grid->scale[0] == 1.0f);
  check_on_grid(result, std::nullopt);
  const std::vector<float> found = values_of(result);
  double inner = 0;
  size_t outer_kept = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const float sign = values[i] < 0 ? -1.0f : 1.0f;
    if (std::abs(values[i]) > 1) {
      outer_kept += found[i] == sign;
    } else {
      inner += sign * found[i];
    }
  }
  CHECK(outer_kept == 10000);
  const double deviation = std::sqrt((1 - 0.25 * 0.25) / 10000);
  CHECK(std::abs(inner / 10000 - 0.25) <= 5 * deviation);
}

TEST_CASE("stochastic rounding depends on its key and on nothing else") {
  const Param param = param_of(random_floats(600, 21), {5, 120});
  const auto with_key = [&](uint64_t key, Granularity granularity) {
    return values_of(quantized(param, scheme_of(4, true, granularity), {}, 0, Rounding::Stochastic, key));
  };
  for (const Granularity granularity : kGranularities) {
    CHECK(with_key(5, granularity) == with_key(5, granularity));
    CHECK(with_key(5, granularity) != with_key(6, granularity));
  }
  // Values on the grid stay where they are, whatever the numbers drawn.
  const Param once = quantized(param, scheme_of(4, true, Granularity::Channel), {}, 0);
  CHECK(values_of(quantized(once, scheme_of(4, true, Granularity::Channel), {}, 0, Rounding::Nearest)) ==
        values_of(once));
}

TEST_CASE("every result keeps the promise of its grid, in every real type") {
  const std::vector<float> values = random_floats(6 * 35, 77, 0.3f);
  for (const DType dtype : kRealTypes) {
    const Param param = param_of(values, {2, 5, 21}, dtype);
    for (const std::optional<size_t> axis :
         {std::optional<size_t>(0), std::optional<size_t>(1), std::optional<size_t>(2), std::optional<size_t>()}) {
      for (const int bits : kWidths) {
        for (const bool symmetric : {true, false}) {
          for (const Granularity granularity : kGranularities) {
            for (const RangeKind kind : kKinds) {
              for (const Rounding rounding : {Rounding::Nearest, Rounding::Stochastic}) {
                const QuantScheme scheme = scheme_of(bits, symmetric, granularity, 8);
                const Param result = quantized(param, scheme, {kind, 98, 2.5}, axis, rounding, 3);
                CHECK(result.value.dtype() == dtype);
                CHECK(result.name == "w");
                CHECK(!result.mask);
                check_on_grid(result, axis);
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("a mask is kept, pruned values stay zero and do not take part in the range") {
  for (const DType dtype : kRealTypes) {
    const std::vector<float> values = random_floats(64 * 6, 31);
    const Param param = param_of(values, {6, 64}, dtype);
    Mask mask{std::vector<uint64_t>(6), 0};
    test::Random random{8};
    for (uint64_t& word : mask.words) {
      word = random.bits() & random.bits();
      mask.kept += static_cast<size_t>(std::popcount(word));
    }
    const Param pruned = apply_mask(param, mask);
    const std::vector<float> before = values_of(pruned);
    for (const int bits : kWidths) {
      for (const bool symmetric : {true, false}) {
        for (const Granularity granularity : kGranularities) {
          for (const RangeKind kind : kKinds) {
            const QuantScheme scheme = scheme_of(bits, symmetric, granularity);
            CAPTURE(name_of(scheme));
            const Param result = quantized(pruned, scheme, {kind, 95, 2}, 0);
            REQUIRE(result.mask);
            CHECK(result.mask->words == mask.words);
            CHECK(result.mask->kept == mask.kept);
            check_on_grid(result, 0, true);
            const std::vector<float> found = values_of(result);
            size_t revived = 0;
            for (size_t i = 0; i < values.size(); ++i) {
              revived += !(mask.words[i / 64] >> (i % 64) & 1) && !same_bits(found[i], 0);
            }
            CHECK(revived == 0);
            // The first row's scale is that of its surviving values alone.
            if (granularity != Granularity::Channel) continue;
            std::vector<float> left;
            for (size_t i = 0; i < 64; ++i) {
              if (mask.words[0] >> i & 1) left.push_back(before[i]);
            }
            CHECK(result.grid->scale[0] == grid_of(left, scheme, {kind, 95, 2}).scale);
          }
        }
      }
    }
  }
}

TEST_CASE("NaN becomes zero, infinities become the outermost points, neither moves the range") {
  std::vector<float> clean = random_floats(96, 51);
  std::vector<float> dirty = clean;
  dirty.insert(dirty.begin() + 40, {kNaN, kInf, -kInf, -kNaN});
  for (const DType dtype : kRealTypes) {
    const Param clean_param = vector_of(clean, dtype), dirty_param = vector_of(dirty, dtype);
    for (const int bits : kWidths) {
      for (const bool symmetric : {true, false}) {
        for (const RangeKind kind : kKinds) {
          for (const Rounding rounding : {Rounding::Nearest, Rounding::Stochastic}) {
            const QuantScheme scheme = scheme_of(bits, symmetric);
            CAPTURE(name_of(scheme));
            CAPTURE(static_cast<int>(kind));
            const Param result = quantized(dirty_param, scheme, {kind, 90, 2}, std::nullopt, rounding);
            const Param expected = quantized(clean_param, scheme, {kind, 90, 2}, std::nullopt, rounding);
            CHECK(result.grid->scale[0] ==
                  doctest::Approx(expected.grid->scale[0]).epsilon(kind == RangeKind::Mse ? 1e-2 : 1e-6));
            const std::vector<float> values = values_of(result);
            const float scale = result.grid->scale[0];
            const int32_t zero_point = result.grid->zero_point[0];
            float top = scale * static_cast<float>(highest(scheme) - zero_point);
            float bottom = scale * static_cast<float>(lowest(scheme) - zero_point);
            round_through(dtype, std::span(&top, 1));
            round_through(dtype, std::span(&bottom, 1));
            CHECK(same_bits(values[40], 0));
            CHECK(values[41] == top);
            CHECK(values[42] == bottom);
            CHECK(same_bits(values[43], 0));
            check_on_grid(result, std::nullopt, true);
          }
        }
      }
    }
  }
}

TEST_CASE("weights without a finite value take scale 1") {
  for (const std::vector<float>& values : {std::vector<float>{}, {kNaN}, {kInf, -kInf, kNaN}, {0, 0, -0.0f, 0}}) {
    for (const int bits : kWidths) {
      for (const bool symmetric : {true, false}) {
        for (const RangeKind kind : kKinds) {
          const QuantScheme scheme = scheme_of(bits, symmetric);
          const Param result = quantized(vector_of(values), scheme, {kind, 90, 2});
          CHECK(result.grid->scale == std::vector<float>{1});
          CHECK(result.grid->zero_point == std::vector<int32_t>{0});
          for (const float value : values_of(result)) CHECK(std::isfinite(value));
        }
      }
    }
  }
  const Param zeros = quantized(vector_of(std::vector<float>(50)), scheme_of(8, true));
  for (const float value : values_of(zeros)) CHECK(same_bits(value, 0));
}

TEST_CASE("a zero-size weight has one scale and stays empty") {
  for (const Shape& shape : {Shape{3, 0}, Shape{0, 4}, Shape{0}, Shape{2, 0, 5}}) {
    for (const Granularity granularity : kGranularities) {
      for (const RangeKind kind : kKinds) {
        const Param result = quantized(param_of({}, shape), scheme_of(4, false, granularity), {kind, 99, 3}, 0);
        CHECK(result.value.elements() == 0);
        CHECK(result.value.shape() == shape);
        CHECK(result.grid->scale == std::vector<float>{1});
      }
    }
  }
}

TEST_CASE("a constant weight is kept exactly by min-max and closely by every range") {
  for (const float constant : {1.0f, -1.0f, 0.3f, -7.25f, 1e-20f, 1e20f}) {
    for (const int bits : kWidths) {
      for (const bool symmetric : {true, false}) {
        for (const RangeKind kind : kKinds) {
          CAPTURE(constant);
          const Param result =
              quantized(vector_of(std::vector<float>(70, constant)), scheme_of(bits, symmetric), {kind, 99, 3});
          CAPTURE(name_of(result.grid->scheme));
          check_on_grid(result, std::nullopt);
          for (const float value : values_of(result)) CHECK(value == doctest::Approx(constant).epsilon(1e-6));
        }
      }
    }
  }
}

TEST_CASE("the smallest and the largest floats have finite grids") {
  const float denormal = std::numeric_limits<float>::denorm_min();
  const std::vector<std::vector<float>> all = {{denormal, -denormal, 0},
                                               {1e-40f, -3e-39f, 2e-41f},
                                               {FLT_MIN, -FLT_MIN, 1e-39f},
                                               {FLT_MAX, -FLT_MAX, 0, 1},
                                               {FLT_MAX, 1e-45f},
                                               {-FLT_MAX, -FLT_MAX / 2, 3},
                                               {FLT_MAX, FLT_MAX / 3, 0},
                                               {FLT_MAX, -FLT_MAX, FLT_MAX},
                                               {FLT_MAX, -FLT_MAX / 3, 1e30f}};
  for (size_t which = 0; which < all.size(); ++which) {
    CAPTURE(which);
    const std::vector<float>& values = all[which];
    for (const int bits : kWidths) {
      for (const bool symmetric : {true, false}) {
        for (const RangeKind kind : kKinds) {
          for (const Rounding rounding : {Rounding::Nearest, Rounding::Stochastic}) {
            const QuantScheme scheme = scheme_of(bits, symmetric);
            CAPTURE(name_of(scheme));
            CAPTURE(static_cast<int>(kind));
            const Param result = quantized(vector_of(values), scheme, {kind, 99, 3}, std::nullopt, rounding);
            check_on_grid(result, std::nullopt);
            const float scale = result.grid->scale[0];
            const auto zero_point = static_cast<float>(result.grid->zero_point[0]);
            CHECK(scale >= FLT_MIN);
            CHECK(std::isfinite(scale * (static_cast<float>(highest(scheme)) - zero_point)));
            CHECK(std::isfinite(scale * (static_cast<float>(lowest(scheme)) - zero_point)));
            for (const float value : values_of(result)) CHECK(std::isfinite(value));
            if (kind != RangeKind::MinMax || rounding != Rounding::Nearest || (bits == 1 && symmetric)) continue;
            // Half a step, and for affine grids another half where the outermost point had to be moved inwards.
            const std::vector<float> found = values_of(result);
            for (size_t i = 0; i < values.size(); ++i) {
              CHECK(std::abs(double{values[i]} - found[i]) <= (symmetric ? 0.5001 : 1.0001) * scale);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("results of narrow types are finite though the grid may reach beyond them") {
  for (const DType dtype : {DType::Float16, DType::BFloat16, DType::Float32, DType::Float64}) {
    const float most = dtype == DType::Float16 ? 65504.0f : dtype == DType::BFloat16 ? 0x1.FEp127f : FLT_MAX;
    for (const std::vector<float>& values :
         {std::vector<float>{most, -most, 1}, {most, -most / 3, 5}, {-most, most / 7, 0}}) {
      for (const int bits : kWidths) {
        for (const bool symmetric : {true, false}) {
          for (const Rounding rounding : {Rounding::Nearest, Rounding::Stochastic}) {
            const Param result =
                quantized(vector_of(values, dtype), scheme_of(bits, symmetric), {}, std::nullopt, rounding);
            CAPTURE(name_of(result.grid->scheme));
            CAPTURE(to_string(dtype));
            check_on_grid(result, std::nullopt);
            for (const float value : values_of(result)) CHECK(std::isfinite(value));
          }
        }
      }
    }
  }
}

TEST_CASE("float64 values are taken as the nearest float32") {
  const std::vector<double> values = {0.1, -0.7, 1e300, 1e-300, 0.333333333333333};
  Param param{"w", Tensor::from<double>(DType::Float64, {5}, values), std::nullopt, std::nullopt};
  const Param result = quantized(param, scheme_of(8, true));
  const std::span<const double> found = result.value.data<double>();
  CHECK(result.grid->scale[0] == 0.7f / 127);
  CHECK(found[1] == double{-0.7f / 127 * 127});
  CHECK(found[2] == double{result.grid->scale[0] * 127});  // beyond float32: as an infinity
  CHECK(found[3] == 0);
}

TEST_CASE("in place and copied, in blocks of rows or at once, the values are the same") {
  // More than one block of rows (2^18 values), with channels in the middle and at the end.
  for (const Shape& shape : {Shape{2, 500, 300}, Shape{331, 907}}) {
    const size_t elements = elements_of(shape), channels = shape[1], length = elements / channels;
    const std::vector<float> values = random_floats(elements, 99);
    std::vector<size_t> row_order(elements);  // where each element is once its row is contiguous
    std::vector<float> gathered(elements);
    for (size_t i = 0; i < elements; ++i) {
      const Place place = place_of(shape, 1, i);
      row_order[i] = place.channel * length + place.at;
      gathered[row_order[i]] = values[i];
    }
    const Param param = param_of(values, shape), by_rows = param_of(gathered, {channels, length});
    for (const Granularity granularity : kGranularities) {
      for (const Rounding rounding : {Rounding::Nearest, Rounding::Stochastic}) {
        const QuantScheme scheme = scheme_of(3, false, granularity);
        CAPTURE(name_of(scheme));
        const Param copied = quantized(param, scheme, {}, 1, rounding);
        Param own = param_of(values, shape);
        const Param in_place = quantize_weight(std::move(own), weight_of(1), scheme, {}, rounding, 1, std::nullopt);
        CHECK(values_of(copied) == values_of(in_place));
        CHECK(copied.grid->scale == in_place.grid->scale);
        if (granularity == Granularity::Tensor) continue;
        const std::vector<float> rows = values_of(quantized(by_rows, scheme, {}, 0, rounding));
        const std::vector<float> found = values_of(copied);
        size_t differ = 0;
        for (size_t i = 0; i < elements; ++i) differ += found[i] != rows[row_order[i]];
        CHECK(differ == 0);
      }
    }
  }
}

TEST_CASE("quantizing leaves its input as it was") {
  const Param param = param_of(random_floats(100, 3), {10, 10});
  const std::vector<float> before = values_of(param);
  const Param copy = param;
  quantized(param, scheme_of(2, true, Granularity::Channel), {}, 0);
  CHECK(values_of(param) == before);
  CHECK(!param.grid);
  CHECK(copy.value.same_storage(param.value));
}

}  // namespace nibble
