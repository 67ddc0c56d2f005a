// Holds statistics, errors and pictures against plain double loops, numpy's numbers and closed forms.
#include "core/analyze/analyze.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "core/prune/prune.hpp"
#include "core/quantize/quantize.hpp"
#include "tests/core/golden/numpy.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using test::random_floats;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

Param param_of(const std::vector<float>& values, Shape shape, DType dtype = DType::Float32) {
  return {"w", from_floats(dtype, shape, values), std::nullopt, std::nullopt};
}

Weight weight_of(std::optional<size_t> channel_axis) {
  Weight weight;
  weight.channel_axis = channel_axis;
  return weight;
}

Param quantized(const Param& param, const QuantScheme& scheme, std::optional<size_t> axis = std::nullopt) {
  return quantize_weight(param, weight_of(axis), scheme, {}, Rounding::Nearest, 1, std::nullopt);
}

WeightError error_of(const std::vector<float>& before, const std::vector<float>& after) {
  return error_from(kernels::difference(before, after));
}

/// The same by plain loops in double.
struct Naive {
  size_t count = 0;
  double error = 0, before = 0, after = 0, product = 0, max_abs = 0;
};
Naive naive_error(std::span<const float> before, std::span<const float> after) {
  Naive sum;
  for (size_t i = 0; i < before.size(); ++i) {
    const double a = before[i], b = after[i];
    if (!std::isfinite(a) || !std::isfinite(b)) continue;
    ++sum.count;
    sum.error += (a - b) * (a - b);
    sum.before += a * a;
    sum.after += b * b;
    sum.product += a * b;
    sum.max_abs = std::max(sum.max_abs, std::abs(a - b));
  }
  return sum;
}

size_t total(const std::vector<uint32_t>& counts) { return std::accumulate(counts.begin(), counts.end(), size_t{0}); }

}  // namespace

TEST_CASE("statistics are numpy's") {
  for (const golden::Set& set : golden::kSets) {
    CAPTURE(std::string(set.name));
    const Statistics found = statistics_of(set.values);
    CHECK(found.mean == doctest::Approx(set.mean).epsilon(1e-12));
    CHECK(found.std == doctest::Approx(set.deviation).epsilon(1e-12));
    CHECK(found.min == *std::min_element(set.values.begin(), set.values.end()));
    CHECK(found.max == *std::max_element(set.values.begin(), set.values.end()));
    CHECK(found.elements == set.values.size());
    CHECK(found.zeros == static_cast<size_t>(std::count(set.values.begin(), set.values.end(), 0.0f)));
  }
}

TEST_CASE("statistics leave out what is not finite and count it") {
  const Statistics found = statistics_of(std::vector<float>{1, kNaN, -3, kInf, 0, -0.0f, -kInf, -kNaN, 6});
  CHECK(found.min == -3);
  CHECK(found.max == 6);
  CHECK(found.mean == doctest::Approx(0.8));
  CHECK(found.std == doctest::Approx(std::sqrt(46.0 / 5 - 0.64)));
  CHECK(found.elements == 9);
  CHECK(found.zeros == 2);
  CHECK(found.nan == 2);
  CHECK(found.infinite == 2);
  CHECK(found.sparsity() == doctest::Approx(2.0 / 9));
}

TEST_CASE("statistics of nothing are zero") {
  for (const std::vector<float>& values : {std::vector<float>{}, {kNaN, kInf}}) {
    const Statistics found = statistics_of(values);
    CHECK(found.min == 0);
    CHECK(found.max == 0);
    CHECK(found.mean == 0);
    CHECK(found.std == 0);
    CHECK(found.sparsity() == 0);
  }
}

TEST_CASE("the deviation does not drown in a large mean") {
  std::vector<float> values;
  for (int i = 0; i < 1001; ++i) values.push_back(1e6f + static_cast<float>(i % 2));
  CHECK(statistics_of(values).std == doctest::Approx(std::sqrt(500.0 * 501) / 1001).epsilon(1e-9));
}

TEST_CASE("errors are numpy's") {
  for (const golden::Set& set : golden::kSets) {
    if (set.sqnr4 < 0) continue;  // exact up to the last bits of a double: nothing to compare
    CAPTURE(std::string(set.name));
    std::vector<float> after;
    for (const int code : set.codes4) after.push_back(static_cast<float>(set.scale4 * code));
    const WeightError found = error_of(set.values, after);
    CHECK(found.mse == doctest::Approx(set.mse4).epsilon(1e-5));
    CHECK(found.max_abs_error == doctest::Approx(set.max_abs4).epsilon(1e-5));
    REQUIRE(found.sqnr_db);
    CHECK(*found.sqnr_db == doctest::Approx(set.sqnr4).epsilon(1e-6));
    REQUIRE(found.cosine);
    CHECK(*found.cosine == doctest::Approx(set.cosine4).epsilon(1e-7));
  }
}

TEST_CASE("errors match plain loops, with values that are not finite on either side left out") {
  for (const size_t count : {1, 3, 4, 63, 500, 2049}) {
    std::vector<float> before = random_floats(count, 1), after = random_floats(count, 2, 0.5f);
    if (count > 60) before[7] = kNaN, after[9] = kInf, before[11] = -kInf, after[11] = kNaN;
    const Naive naive = naive_error(before, after);
    const WeightError found = error_of(before, after);
    CHECK(found.mse == doctest::Approx(naive.error / static_cast<double>(naive.count)).epsilon(1e-12));
    CHECK(found.max_abs_error == doctest::Approx(naive.max_abs).epsilon(1e-6));
    CHECK(*found.sqnr_db == doctest::Approx(10 * std::log10(naive.before / naive.error)).epsilon(1e-9));
    CHECK(*found.cosine == doctest::Approx(naive.product / std::sqrt(naive.before * naive.after)).epsilon(1e-9));
  }
}

TEST_CASE("no error has no SQNR, and a side that is all zero has no cosine") {
  const std::vector<float> values = {1, -2, 3}, zeros = {0, 0, 0};
  CHECK(error_of(values, values).mse == 0);
  CHECK(!error_of(values, values).sqnr_db);
  CHECK(*error_of(values, values).cosine == doctest::Approx(1));
  CHECK(!error_of(values, zeros).cosine);
  CHECK(*error_of(values, zeros).sqnr_db == doctest::Approx(0));
  CHECK(*error_of(values, {-1, 2, -3}).cosine == doctest::Approx(-1));
  CHECK(error_of({kNaN}, {1}).mse == 0);
  CHECK(!error_of({}, {}).cosine);
}

TEST_CASE("errors of parts add up to the error of the whole") {
  const std::vector<float> before = random_floats(300, 5), after = random_floats(300, 6);
  kernels::Difference sum;
  for (const auto& [first, count] : std::vector<std::pair<size_t, size_t>>{{0, 100}, {100, 1}, {101, 0}, {101, 199}}) {
    add(sum, kernels::difference(std::span(before).subspan(first, count), std::span(after).subspan(first, count)));
  }
  const WeightError parts = error_from(sum), whole = error_of(before, after);
  CHECK(parts.mse == doctest::Approx(whole.mse).epsilon(1e-12));
  CHECK(*parts.sqnr_db == doctest::Approx(*whole.sqnr_db).epsilon(1e-12));
  CHECK(parts.max_abs_error == whole.max_abs_error);
  CHECK(*parts.cosine == doctest::Approx(*whole.cosine).epsilon(1e-12));
}

TEST_CASE("a uniform distribution on a uniform grid has 20 log10(2) dB a bit") {
  // Evenly spread over [-1, 1] with n levels: signal 1/3, noise (2 / (n - 1))^2 / 12, the outermost cells being halves.
  std::vector<float> values(200001);
  for (size_t i = 0; i < values.size(); ++i) values[i] = (static_cast<float>(i) - 100000) / 100000;
  for (int bits = 2; bits <= 8; ++bits) {
    const Param before = param_of(values, {values.size()});
    const Param after = quantized(before, {bits, true, Granularity::Tensor, 32});
    const double cells = std::exp2(bits) - 2;
    const double noise = 4 / (cells * cells) / 12;
    const FloatView view(after.value);
    const WeightError found = error_from(kernels::difference(values, view.values()));
    CAPTURE(bits);
    CHECK(found.mse == doctest::Approx(noise).epsilon(2e-3));
    CHECK(*found.sqnr_db == doctest::Approx(20 * std::log10(cells)).epsilon(1e-3));
    if (bits >= 6) CHECK(*found.sqnr_db == doctest::Approx(6.0206 * bits).epsilon(8e-3));
  }
}

TEST_CASE("histograms are numpy's") {
  for (const golden::Set& set : golden::kSets) {
    if (set.values.size() == 1) continue;  // a constant has no width; see below
    CAPTURE(std::string(set.name));
    const Param param = param_of(set.values, {set.values.size()});
    PictureSize size;
    size.bins = set.counts.size();
    const WeightPicture picture = picture_of(param, param, weight_of(std::nullopt), size);
    CHECK(picture.before == std::vector<uint32_t>(set.counts.begin(), set.counts.end()));
    CHECK(picture.after == picture.before);
    CHECK(picture.lo == *std::min_element(set.values.begin(), set.values.end()));
    CHECK(picture.hi == *std::max_element(set.values.begin(), set.values.end()));
  }
}

TEST_CASE("both histograms count every finite value over the same edges") {
  std::vector<float> values = random_floats(64 * 70, 8);
  values[3] = kNaN;
  values[4] = kInf;
  const Param before = param_of(values, {64, 70});
  for (const size_t bins : {2, 3, 128, 4096}) {
    for (const int bits : {1, 3, 8}) {
      const Param after = quantized(before, {bits, false, Granularity::Tensor, 32});
      PictureSize size;
      size.bins = bins;
      const WeightPicture picture = picture_of(before, after, weight_of(0), size);
      CHECK(picture.before.size() == bins);
      CHECK(total(picture.before) == values.size() - 2);
      CHECK(total(picture.after) == values.size());
      CHECK(picture.lo < picture.hi);
      const FloatView view(after.value);
      CHECK(picture.lo <= *std::min_element(view.values().begin(), view.values().end()));
      CHECK(picture.hi >= *std::max_element(view.values().begin(), view.values().end()));
    }
  }
}

TEST_CASE("histograms of awkward ranges have finite edges and lose no value") {
  const std::vector<std::vector<float>> all = {{0, 0, 0},
                                               {0.375f, 0.375f},
                                               {-5, -5, -5, -5},
                                               {FLT_MAX, FLT_MAX},
                                               {FLT_MAX, -FLT_MAX, 0},
                                               {-FLT_MAX, -FLT_MAX},
                                               {1e-45f, 0, -1e-45f},
                                               {1e-45f, 1e-45f},
                                               {kNaN, kNaN},
                                               {1, std::nextafter(1.0f, 2.0f)},
                                               {FLT_MIN, 0},
                                               {}};
  for (size_t which = 0; which < all.size(); ++which) {
    CAPTURE(which);
    // Short and long: few values and many take different ways.
    for (const size_t repeat : {1, 400}) {
      std::vector<float> values;
      for (size_t i = 0; i < repeat; ++i) values.insert(values.end(), all[which].begin(), all[which].end());
      const Param param = param_of(values, {values.size()});
      const WeightPicture picture = picture_of(param, param, weight_of(std::nullopt), {});
      CHECK(std::isfinite(picture.lo));
      CHECK(std::isfinite(picture.hi));
      CHECK(picture.lo < picture.hi);
      const auto finite = std::count_if(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
      CHECK(total(picture.before) == static_cast<size_t>(finite));
      for (const float cell : picture.cells) CHECK(cell == 0);
    }
  }
}

TEST_CASE("a constant stands in the middle of its histogram") {
  for (const float constant : {0.0f, 0.375f, -5.0f}) {
    const Param param = param_of(std::vector<float>(10, constant), {10});
    PictureSize size;
    size.bins = 5;
    CHECK(picture_of(param, param, weight_of(std::nullopt), size).before == std::vector<uint32_t>{0, 0, 10, 0, 0});
  }
}

TEST_CASE("a cell of the error map is the mean absolute error of its block") {
  struct Layout {
    Shape shape;
    std::optional<size_t> axis;
  };
  const Layout layouts[] = {{{6, 10}, 0},         {{10, 6}, 1}, {{7, 3, 5}, 0}, {{3, 7, 5}, 1},
                            {{30}, std::nullopt}, {{1, 9}, 0},  {{9, 1}, 0}};
  for (const auto& [shape, axis] : layouts) {
    const size_t elements = elements_of(shape), channels = axis ? shape[*axis] : 1, inputs = elements / channels;
    std::vector<float> before = random_floats(elements, 1), after = random_floats(elements, 2);
    before[2] = kNaN;
    after[5] = kInf;
    for (const auto& [rows, columns] :
         std::vector<std::pair<size_t, size_t>>{{1, 1}, {2, 3}, {3, 4}, {100, 100}, {4, 7}}) {
      PictureSize size;
      size.rows = rows;
      size.columns = columns;
      const WeightPicture picture = picture_of(param_of(before, shape), param_of(after, shape), weight_of(axis), size);
      CAPTURE(to_string(shape));
      CHECK(picture.weight_rows == channels);
      CHECK(picture.weight_columns == inputs);
      REQUIRE(picture.map_rows == std::min(rows, channels));
      REQUIRE(picture.map_columns == std::min(columns, inputs));
      REQUIRE(picture.cells.size() == picture.map_rows * picture.map_columns);
      std::vector<double> sums(picture.cells.size()), counts(picture.cells.size());
      std::vector<size_t> next(channels);
      for (size_t i = 0; i < elements; ++i) {
        size_t rest = i, channel = 0;
        for (size_t d = shape.size(); d-- > 0;) {
          if (d == axis) channel = rest % shape[d];
          rest /= shape[d];
        }
        const size_t input = next[channel]++;
        if (!std::isfinite(before[i]) || !std::isfinite(after[i])) continue;
        const size_t cell =
            channel * picture.map_rows / channels * picture.map_columns + input * picture.map_columns / inputs;
        sums[cell] += std::abs(double{before[i]} - after[i]);
        counts[cell] += 1;
      }
      for (size_t i = 0; i < sums.size(); ++i) {
        CHECK(picture.cells[i] == doctest::Approx(counts[i] == 0 ? 0 : sums[i] / counts[i]).epsilon(1e-6));
      }
      CHECK(picture.map_max == *std::max_element(picture.cells.begin(), picture.cells.end()));
    }
  }
}

TEST_CASE("errors per channel are those of the channel alone") {
  const std::vector<float> before = random_floats(4 * 6 * 5, 3);
  for (const size_t axis : {0, 1, 2}) {
    const Shape shape = {4, 6, 5};
    const Param old_param = param_of(before, shape);
    const Param new_param = quantized(old_param, {3, true, Granularity::Channel, 32}, axis);
    const FloatView view(new_param.value);
    const WeightPicture picture = picture_of(old_param, new_param, weight_of(axis), {});
    REQUIRE(picture.mse.size() == shape[axis]);
    for (size_t c = 0; c < shape[axis]; ++c) {
      std::vector<float> a, b;
      for (size_t i = 0; i < before.size(); ++i) {
        const size_t coordinates[] = {i / 30, i / 5 % 6, i % 5};
        if (coordinates[axis] == c) a.push_back(before[i]), b.push_back(view.values()[i]);
      }
      const Naive naive = naive_error(a, b);
      CHECK(picture.mse[c] == doctest::Approx(naive.error / static_cast<double>(naive.count)).epsilon(1e-6));
      CHECK(picture.max_abs[c] == doctest::Approx(naive.max_abs).epsilon(1e-6));
      CHECK(picture.sqnr_db[c] == doctest::Approx(10 * std::log10(naive.before / naive.error)).epsilon(1e-6));
    }
  }
  const Param same = param_of(before, {4, 30});
  for (const float db : picture_of(same, same, weight_of(0), {}).sqnr_db) CHECK(db == kInf);
}

TEST_CASE("levels are the grid points inside the drawn range") {
  const Param before = param_of({-7, 7, 3.2f, 1, -70, 35, 20, 10}, {2, 4});
  SUBCASE("of the tensor") {
    const Param after = quantized(before, {4, true, Granularity::Tensor, 32});
    const WeightPicture picture = picture_of(before, after, weight_of(0), {});
    CHECK(picture.levels == std::vector<float>{-70, -60, -50, -40, -30, -20, -10, 0, 10, 20, 30, 40});
  }
  SUBCASE("of the channel asked for") {
    const Param after = quantized(before, {4, true, Granularity::Channel, 32}, 0);
    PictureSize size;
    CHECK(picture_of(before, after, weight_of(0), size).levels ==
          std::vector<float>{-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7});
    size.channel = 1;
    CHECK(picture_of(before, after, weight_of(0), size).levels.front() == -70);
    size.channel = 99;  // none such: the last
    CHECK(picture_of(before, after, weight_of(0), size).levels.front() == -70);
  }
  SUBCASE("of the first group of the channel") {
    const Param after = quantized(before, {2, true, Granularity::Group, 2}, 0);
    PictureSize size;
    CHECK(picture_of(before, after, weight_of(0), size).levels == std::vector<float>{-7, 0, 7});
    size.channel = 1;
    CHECK(picture_of(before, after, weight_of(0), size).levels == std::vector<float>{-70, 0});
  }
  SUBCASE("affine, with its zero point") {
    const Param skewed = param_of({-1, 0, 2}, {3});
    const Param after = quantized(skewed, {2, false, Granularity::Tensor, 32});
    CHECK(picture_of(skewed, after, weight_of(std::nullopt), {}).levels == std::vector<float>{-1, 0, 1, 2});
  }
  SUBCASE("one symmetric bit has two, and zero where a mask has made one") {
    const Param signs = param_of({-1, 3, 2, -2}, {4});
    const Param after = quantized(signs, {1, true, Granularity::Tensor, 32});
    CHECK(picture_of(signs, after, weight_of(std::nullopt), {}).levels == std::vector<float>{-2, 2});
    const Param pruned = apply_mask(after, {{0b0111}, 3});
    CHECK(picture_of(signs, pruned, weight_of(std::nullopt), {}).levels == std::vector<float>{-2, 0, 2});
  }
  SUBCASE("none where there is no grid, or one too fine to draw") {
    CHECK(picture_of(before, before, weight_of(0), {}).levels.empty());
    const Param fine = quantized(before, {16, true, Granularity::Tensor, 32});
    CHECK(picture_of(before, fine, weight_of(0), {}).levels.empty());
  }
}

TEST_CASE("pictures of narrow types are of their values") {
  const std::vector<float> values = random_floats(60, 4);
  for (const DType dtype : {DType::Float16, DType::BFloat16, DType::Float64}) {
    const Param before = param_of(values, {6, 10}, dtype);
    const FloatView view(before.value);
    const Param as_float = param_of({view.values().begin(), view.values().end()}, {6, 10});
    CHECK(picture_of(before, before, weight_of(0), {}).before ==
          picture_of(as_float, as_float, weight_of(0), {}).before);
    const Param coarse = quantized(before, {3, true, Granularity::Tensor, 32});
    const FloatView found(coarse.value);
    const WeightPicture picture = picture_of(before, coarse, weight_of(0), {});
    CHECK(picture.cells[17] == std::abs(view.values()[17] - found.values()[17]));
  }
}

}  // namespace nibble
