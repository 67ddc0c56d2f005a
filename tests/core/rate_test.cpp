#include <cmath>
#include <limits>

#include "core/analyze/curvature.hpp"
#include "core/codec/levels.hpp"
#include "core/formats/nib.hpp"
#include "core/model/execute.hpp"
#include "core/pipeline/pipeline.hpp"
#include "core/quantize/cholesky.hpp"
#include "core/quantize/rate_distortion.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using test::Random;

Recipe recipe_of(const std::string& steps) { return parse_recipe("{\"version\":1,\"steps\":[" + steps + "]}"); }

Param param_of(Shape shape, const std::vector<float>& values) {
  Param param;
  param.name = "W";
  param.value = Tensor::from<float>(DType::Float32, std::move(shape), values);
  return param;
}

std::vector<float> values_of(const Param& param) {
  const FloatView view(param.value);
  return {view.values().begin(), view.values().end()};
}

/// Levels of a param that has one scale.
std::vector<int32_t> levels_of(const Param& param) {
  std::vector<int32_t> levels;
  for (const float value : values_of(param))
    levels.push_back(static_cast<int32_t>(std::lround(value / param.grid->scale[0])));
  return levels;
}

double bits_of_levels(const Param& param) {
  const std::vector<int32_t> levels = levels_of(param);
  const codec::Widths widths = codec::widths_of(param.value.shape());
  return static_cast<double>(codec::cost_of_levels(levels, widths, codec::choose_model(levels, widths))) / 65536;
}

/// 1/2 sum h (w - q)^2.
double loss_of(const std::vector<float>& before, const std::vector<float>& after, const ErrorCost& cost) {
  double loss = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const double error = static_cast<double>(before[i]) - after[i];
    const double h = cost.diagonal.empty() ? cost.mean : 0.98 * cost.diagonal[i] + 0.02 * cost.mean;
    loss += 0.5 * h * error * error;
  }
  return loss;
}

Param on_grid(Param param, float scale, int bits) {
  std::vector<float> values = values_of(param);
  const QuantScheme scheme{bits, true, Granularity::Tensor, 32};
  for (float& value : values)
    value = scale * std::clamp(std::nearbyint(value / scale), static_cast<float>(lowest_code(scheme)),
                               static_cast<float>(highest_code(scheme)));
  param.value = Tensor::from<float>(DType::Float32, param.value.shape(), values);
  param.grid = QuantParams{scheme, {scale}, {0}};
  return param;
}

}  // namespace

// --- Weight sharing --------------------------------------------------------------------------------------------------

TEST_CASE("k-means finds the centroids of Deep Compression's own example") {
  // Figure 3 of arXiv:1510.00149: sixteen weights, four clusters, centroids 2.00, 1.50, 0.00, -1.00.
  const std::vector<float> weights = {2.09f,  -0.98f, 1.48f, 0.09f,  0.05f, -0.14f, -1.08f, 2.12f,
                                      -0.91f, 1.92f,  0.0f,  -1.03f, 1.87f, 0.0f,   1.53f,  1.49f};
  for (const InitialCentroids initial : {InitialCentroids::Linear, InitialCentroids::Density}) {
    const Param shared = cluster_weight(param_of({4, 4}, weights), 2, initial, 0);
    REQUIRE(shared.codebook);
    const std::vector<float>& centroids = shared.codebook->centroids;
    REQUIRE(centroids.size() == 4);
    CHECK(centroids[0] == doctest::Approx(-1.00));
    CHECK(centroids[1] == doctest::Approx(0.0));
    CHECK(centroids[2] == doctest::Approx(1.50));
    CHECK(centroids[3] == doctest::Approx(2.00));
    const std::vector<size_t> expected = {3, 0, 2, 1, 1, 1, 0, 3, 0, 3, 1, 0, 3, 1, 2, 2};
    const std::vector<float> values = values_of(shared);
    for (size_t i = 0; i < 16; ++i) CHECK(values[i] == centroids[expected[i]]);
  }
}

TEST_CASE("k-means leaves every value at its nearest centroid, and every centroid in the middle of its values") {
  const std::vector<float> values = test::random_floats(5000, 3, 0.1f);
  for (const InitialCentroids initial :
       {InitialCentroids::Linear, InitialCentroids::Density, InitialCentroids::Random}) {
    const Param shared = cluster_weight(param_of({50, 100}, values), 4, initial, 9);
    const std::vector<float> after = values_of(shared);
    const std::vector<float>& centroids = shared.codebook->centroids;
    CHECK(centroids.size() <= 16);
    std::vector<double> sums(centroids.size(), 0), counts(centroids.size(), 0);
    for (size_t i = 0; i < values.size(); ++i) {
      for (const float centroid : centroids)
        CHECK(std::abs(values[i] - after[i]) <= std::abs(values[i] - centroid) + 1e-6f);
      const size_t at = nearest_centroid(*shared.codebook, values[i]);
      CHECK(centroids[at] == after[i]);
      sums[at] += values[i];
      ++counts[at];
    }
    for (size_t c = 0; c < centroids.size(); ++c)
      CHECK(centroids[c] == doctest::Approx(sums[c] / counts[c]).epsilon(1e-5));
  }
}

TEST_CASE("pruned weights have no part in k-means and stay zero") {
  const Model model = test::small_cnn(21).read();
  const Run result =
      run(recipe_of(R"({"kind":"prune","sparsity":0.75},{"kind":"cluster","bits":2})"), model, Context());
  for (const char* const name : {"W", "V"}) {
    const Param& param = test::param(result.model, name);
    size_t zeros = 0;
    std::vector<float> different;
    for (const float value : values_of(param)) {
      zeros += value == 0;
      if (value != 0) different.push_back(value);
    }
    CHECK(zeros == param.value.elements() * 3 / 4);
    std::sort(different.begin(), different.end());
    different.erase(std::unique(different.begin(), different.end()), different.end());
    CHECK(different == param.codebook->centroids);
    CHECK(different.size() <= 4);
  }
  CHECK(*result.report.weights[0].clusters == 4);
  CHECK(result.report.weights[0].bits == 3);  // a fifth value, 0
}

// --- Linear algebra --------------------------------------------------------------------------------------------------

TEST_CASE("the factor is that of the inverse") {
  Random random{7};
  for (const size_t n : {1u, 2u, 3u, 8u, 33u}) {
    std::vector<double> a(n * n), h(n * n, 0);
    for (double& value : a) value = random.normal();
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        for (size_t k = 0; k < n; ++k) h[i * n + j] += a[i * n + k] * a[j * n + k];
      }
      h[i * n + i] += 0.1;
    }
    std::vector<double> u = h;
    REQUIRE(inverse_factor(u, n));
    // U^T U H = 1, and U is upper triangular.
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < i; ++j) CHECK(u[i * n + j] == 0);
      for (size_t j = 0; j < n; ++j) {
        double sum = 0;
        for (size_t k = 0; k < n; ++k) {
          double inverse = 0;
          for (size_t m = 0; m < n; ++m) inverse += u[m * n + i] * u[m * n + k];
          sum += inverse * h[k * n + j];
        }
        CHECK(sum == doctest::Approx(i == j ? 1 : 0).epsilon(1e-9).scale(1));
      }
    }
  }
  std::vector<double> indefinite = {1, 2, 2, 1};
  CHECK_FALSE(inverse_factor(indefinite, 2));
}

// --- Rounding by rate ------------------------------------------------------------------------------------------------

TEST_CASE("what rounding by rate gives costs less in all than rounding to the nearest") {
  const std::vector<float> values = test::random_floats(4096, 5, 0.05f);
  Random random{8};
  std::vector<float> curvature(values.size());
  for (float& h : curvature) h = 0.2f + 3 * random.uniform();
  for (const bool weighted : {false, true}) {
    ErrorCost cost;
    cost.mean = weighted ? 1.7 : 1;
    if (weighted) cost.diagonal = curvature;
    double last_bits = 1e9, last_loss = 0;
    for (const double lambda : {1e-6, 1e-5, 1e-4, 4e-4}) {
      const Param given = on_grid(param_of({64, 64}, values), 0.02f, 4);
      // The same grid, so that only the choice of levels differs; errors are those to the grid's own points.
      std::string note;
      const std::optional<Param> chosen = round_by_rate(given, nullptr, cost, lambda, note);
      REQUIRE(chosen);
      CHECK(note.empty());
      CHECK(chosen->grid->scale == given.grid->scale);
      const double bits = bits_of_levels(*chosen), loss = loss_of(values_of(given), values_of(*chosen), cost);
      CHECK(loss + lambda * bits <= lambda * bits_of_levels(given) * 1.001);
      // More lambda, fewer bits and more loss.
      CHECK(bits <= last_bits * 1.01);
      CHECK(loss >= last_loss);
      last_bits = bits;
      last_loss = loss;
    }
    CHECK(last_bits < 0.9 * bits_of_levels(on_grid(param_of({64, 64}, values), 0.02f, 4)));
  }
}

TEST_CASE("a weight without a grid gets the step at which errors and bits are in balance") {
  const std::vector<float> values = test::random_floats(20000, 11, 0.1f);
  for (const double curvature : {1.0, 25.0}) {
    for (const double lambda : {1e-6, 1e-5}) {
      ErrorCost cost;
      cost.mean = curvature;
      std::string note;
      const std::optional<Param> chosen = round_by_rate(param_of({100, 200}, values), nullptr, cost, lambda, note);
      REQUIRE(chosen);
      // sqrt(12 lambda / (f ln 2)) to four bits of mantissa.
      CHECK(chosen->grid->scale[0] ==
            doctest::Approx(std::sqrt(12 * lambda / (curvature * std::log(2)))).epsilon(0.04));
      // At high rate the error of a uniform grid is a twelfth of the step's square; a dead zone makes it a little more.
      const double step = chosen->grid->scale[0];
      double squares = 0;
      const std::vector<float> after = values_of(*chosen);
      for (size_t i = 0; i < values.size(); ++i) squares += std::pow(static_cast<double>(values[i]) - after[i], 2);
      const double noise = squares / static_cast<double>(values.size()) / (step * step / 12);
      CHECK(noise > 0.95);
      CHECK(noise < 1.6);
    }
  }
}

TEST_CASE("what is masked stays zero, and levels stay on the grid's own codes") {
  const std::vector<float> values = test::random_floats(1000, 13);
  Param param = param_of({10, 100}, values);
  Mask mask;
  mask.words.assign(16, 0x5555555555555555u);
  mask.words[15] &= (uint64_t{1} << (1000 - 15 * 64)) - 1;
  mask.kept = 500;
  std::vector<float> masked = values;
  for (size_t i = 0; i < 1000; ++i) masked[i] = i % 2 ? 0 : values[i];
  param.value = Tensor::from<float>(DType::Float32, {10, 100}, masked);
  param.mask = mask;
  for (const bool with_grid : {false, true}) {
    const Param given = with_grid ? on_grid(param, 0.3f, 3) : param;
    std::string note;
    const std::optional<Param> chosen = round_by_rate(given, nullptr, ErrorCost{}, 1e-3, note);
    REQUIRE(chosen);
    const std::vector<float> after = values_of(*chosen);
    for (size_t i = 1; i < 1000; i += 2) CHECK(after[i] == 0);
    if (!with_grid) continue;
    for (const int32_t level : levels_of(*chosen)) CHECK(std::abs(level) <= 3);
  }
}

TEST_CASE("what cannot be rounded is left, and why is said") {
  std::string note;
  std::vector<float> values = test::random_floats(64, 1);
  Param param = param_of({8, 8}, values);
  param.grid = QuantParams{{1, true, Granularity::Tensor, 32}, {1}, {0}};
  CHECK_FALSE(round_by_rate(param, nullptr, ErrorCost{}, 1e-3, note));
  CHECK(test::holds(note, "one bit"));
  values[5] = std::numeric_limits<float>::infinity();
  CHECK_FALSE(round_by_rate(param_of({8, 8}, values), nullptr, ErrorCost{}, 1e-3, note));
  CHECK(test::holds(note, "not finite"));
  const Param shared = cluster_weight(param_of({8, 8}, test::random_floats(64, 1)), 2, InitialCentroids::Linear, 0);
  CHECK_FALSE(round_by_rate(shared, nullptr, ErrorCost{}, 1e-3, note));
  CHECK(test::holds(note, "shares"));
}

TEST_CASE("what is rounded stays finite, in narrow types too") {
  const auto rounded = [](DType dtype, float value, double lambda) {
    Param param = param_of({4, 4}, std::vector<float>(16, value));
    param.value = from_floats(dtype, {4, 4}, std::vector<float>(16, value));
    ErrorCost cost;
    cost.mean = 1 / (static_cast<double>(value) * value);
    std::string note;
    const std::optional<Param> chosen = round_by_rate(param, nullptr, cost, lambda, note);
    REQUIRE(chosen);
    Weight weight;
    weight.channel_axis = 0;
    std::vector<float> all = values_of(*chosen);
    for (const Param& shorter :
         {shorten_scales(*chosen, weight, cost, lambda), shorten_mantissas(param, cost, lambda)}) {
      const std::vector<float> values = values_of(shorter);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  for (const double lambda : {1e-4, 0.02, 0.3, 1.0}) {
    for (const float value : rounded(DType::Float16, 65504, lambda)) CHECK(std::isfinite(value));
    for (const float value : rounded(DType::BFloat16, -3.38e38f, lambda)) CHECK(std::isfinite(value));
    for (const float value : rounded(DType::Float32, -3.4e38f, lambda)) CHECK(std::isfinite(value));
  }
}

TEST_CASE("numbers too small to have a step of their own become 0") {
  std::vector<float> values = test::random_floats(64, 1);
  for (float& value : values) value = value * 0x1p-140f;
  values[3] = 0;
  std::string note;
  ErrorCost cost;
  cost.mean = 0;
  for (const float value : values) cost.mean += static_cast<double>(value) * value;
  cost.mean = 64 / cost.mean;
  const std::optional<Param> chosen = round_by_rate(param_of({8, 8}, values), nullptr, cost, 0.01, note);
  REQUIRE(chosen);
  CHECK(chosen->grid->scale[0] >= std::numeric_limits<float>::min());
  CHECK(values_of(*chosen) == std::vector<float>(64, 0));
}

TEST_CASE("moments that cannot be counted with are not, and that is said") {
  Weight weight;
  weight.channel_axis = 0;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  // No matrix that has a factor, and products beyond all numbers.
  for (const auto& [largest, moments, reason] :
       {std::tuple{1.0f, std::vector{1.0, kInfinity, kInfinity, 1.0}, "Cholesky"},
        std::tuple{1e38f, std::vector{1e300, 0.0, 0.0, 1e300}, "too large"}}) {
    std::vector<float> values = test::random_floats(8, 1);
    for (float& value : values) value *= largest;
    ErrorCost cost;
    cost.mean = moments[0];
    cost.moments = moments;
    cost.columns = 2;
    std::string note;
    const std::optional<Param> chosen = round_by_rate(param_of({4, 2}, values), &weight, cost, 1e-3, note);
    REQUIRE(chosen);
    CHECK(test::holds(note, reason));
    for (const float value : values_of(*chosen)) CHECK(std::isfinite(value));
  }
}

TEST_CASE("with moments errors of correlated inputs make up for each other") {
  // Inputs of an order-one autoregressive process: E[x_i x_j] = 0.9^|i - j|.
  constexpr size_t kIn = 64, kOut = 32;
  std::vector<double> moments(kIn * kIn);
  for (size_t i = 0; i < kIn; ++i) {
    for (size_t j = 0; j < kIn; ++j)
      moments[i * kIn + j] = std::pow(0.9, std::abs(static_cast<double>(i) - static_cast<double>(j)));
  }
  const std::vector<float> values = test::random_floats(kIn * kOut, 21, 0.1f);
  const auto output_error = [&](const std::vector<float>& after, size_t in_step, size_t out_step) {
    double sum = 0;
    for (size_t o = 0; o < kOut; ++o) {
      for (size_t i = 0; i < kIn; ++i) {
        for (size_t j = 0; j < kIn; ++j) {
          const size_t a = o * out_step + i * in_step, b = o * out_step + j * in_step;
          sum += (values[a] - after[a]) * moments[i * kIn + j] * (values[b] - after[b]);
        }
      }
    }
    return sum;
  };
  for (const size_t axis : {0u, 1u}) {  // [out, in] as Gemm has it, [in, out] as MatMul does
    const Shape shape = axis == 0 ? Shape{kOut, kIn} : Shape{kIn, kOut};
    const size_t in_step = axis == 0 ? 1 : kOut, out_step = axis == 0 ? kIn : 1;
    Weight weight;
    weight.channel_axis = axis;
    const Param nearest = on_grid(param_of(shape, values), 0.1f, 3);
    // The dense values on the grid that rounding to the nearest gave.
    Param given = param_of(shape, values);
    given.grid = nearest.grid;
    ErrorCost together;
    together.moments = moments;
    together.columns = kIn;
    std::string note;
    // So little that only errors count: GPTQ.
    const std::optional<Param> chosen = round_by_rate(given, &weight, together, 1e-12, note);
    REQUIRE(chosen);
    CHECK(note.empty());
    const double ratio =
        output_error(values_of(*chosen), in_step, out_step) / output_error(values_of(nearest), in_step, out_step);
    CHECK(ratio < 0.6);
    // With inputs that have nothing to do with each other there is nothing to make up for.
    std::vector<double> identity(kIn * kIn, 0);
    for (size_t i = 0; i < kIn; ++i) identity[i * kIn + i] = 1;
    ErrorCost apart = together;
    apart.moments = identity;
    const std::optional<Param> same = round_by_rate(given, &weight, apart, 1e-12, note);
    REQUIRE(same);
    size_t different = 0;
    const std::vector<float> one = values_of(*same), other = values_of(nearest);
    for (size_t i = 0; i < one.size(); ++i) different += one[i] != other[i];
    CHECK(different <= 2);  // values half way between two points
  }
}

TEST_CASE("mantissas and scales are as long as they are worth") {
  Param param = param_of({4}, {1.2345678f, 2.3456789f, 3.4567891f, 0.0123456f});
  ErrorCost cost;
  for (const double lambda : {1e-12, 1e-8, 1e-4}) {
    const std::vector<float> after = values_of(shorten_mantissas(param, cost, lambda));
    for (size_t i = 0; i < 4; ++i) {
      const double relative = std::abs(after[i] / values_of(param)[i] - 1);
      // The bit that is dropped last saves lambda: 1/2 w^2 2^(-2 bits) / 12 is about that.
      const double step = std::sqrt(12 * lambda / (std::log(2) * 12));
      CHECK(relative <= std::max(step, 1.0 / 16));
      if (lambda > 1e-9) CHECK(after[i] != values_of(param)[i]);
    }
  }
  const std::vector<float> values = test::random_floats(512, 2);
  Param grid = on_grid(param_of({8, 64}, values), 0.123456789f, 4);
  Weight weight;
  weight.channel_axis = 0;
  const Param shorter = shorten_scales(grid, weight, cost, 1e-3);
  CHECK(shorter.grid->scale[0] != grid.grid->scale[0]);
  CHECK(shorter.grid->scale[0] == doctest::Approx(grid.grid->scale[0]).epsilon(0.05));
  CHECK(levels_of(shorter) == levels_of(grid));
  CHECK((std::bit_cast<uint32_t>(shorter.grid->scale[0]) & 0xffff) == 0);
}

// --- Curvature -------------------------------------------------------------------------------------------------------

namespace {

/// y = W x + b with numbers to predict: the gradient of 1/2 (y - t)^2 for a t at distance 1 is x, up to its sign.
test::OnnxFile linear_file(size_t inputs, size_t outputs) {
  test::OnnxFile file;
  file.graph.nodes = {test::node("Gemm", {"x", "W", "b"}, {"y"}, {test::attribute("transB", int64_t{1})}, "fc")};
  file.graph.initializers = {test::random_tensor("W", {static_cast<int64_t>(outputs), static_cast<int64_t>(inputs)}),
                             test::random_tensor("b", {static_cast<int64_t>(outputs)})};
  file.graph.inputs = {test::value("x", test::kFloat, {-1, static_cast<int64_t>(inputs)})};
  file.graph.outputs = {test::value("y", test::kFloat, {-1, static_cast<int64_t>(outputs)})};
  return file;
}

size_t index_of(const Model& model, std::string_view name) {
  return static_cast<size_t>(&test::param(model, name) - model.params.data());
}

std::vector<uint32_t> all_of(size_t count) {
  std::vector<uint32_t> indices(count);
  for (size_t i = 0; i < count; ++i) indices[i] = static_cast<uint32_t>(i);
  return indices;
}

}  // namespace

TEST_CASE("the curvature of a linear layer is its inputs' second moment") {
  constexpr size_t kInputs = 5, kSamples = 60;
  const Model model = linear_file(kInputs, 1).read();
  const Dataset data = linear_data(3, kSamples, kInputs);
  Preparation preparation;
  preparation.shape = {kInputs};
  const std::vector<uint32_t> indices = all_of(kSamples);
  const Curvature curvature = measure_curvature(model, data, indices, preparation, true, 1, Context());
  const Tensor x = prepare(data, preparation, indices);
  const std::span<const float> rows = x.data<float>();
  const std::vector<float>& diagonal = curvature.diagonal[index_of(model, "W")];
  REQUIRE(diagonal.size() == kInputs);
  REQUIRE(curvature.inputs[0].values.size() == kInputs * kInputs);
  for (size_t i = 0; i < kInputs; ++i) {
    for (size_t j = 0; j < kInputs; ++j) {
      double sum = 0;
      for (size_t s = 0; s < kSamples; ++s) sum += static_cast<double>(rows[s * kInputs + i]) * rows[s * kInputs + j];
      sum /= kSamples;
      CHECK(curvature.inputs[0].values[i * kInputs + j] == doctest::Approx(sum).epsilon(1e-6));
      if (i == j) CHECK(diagonal[i] == doctest::Approx(sum).epsilon(1e-5));
    }
  }
  CHECK(curvature.diagonal[index_of(model, "b")][0] == doctest::Approx(1).epsilon(1e-6));
}

TEST_CASE("moments that would take more than a gigabyte are left out") {
  // 40 groups of 2048 inputs: 1.3 GB.
  constexpr int64_t kGroups = 40, kColumns = 2048;
  test::OnnxFile file;
  file.graph.nodes = {test::node("Conv", {"x", "W"}, {"c"}, {test::attribute("group", kGroups)}, "wide"),
                      test::node("Flatten", {"c"}, {"f"}), test::node("Gemm", {"f", "V"}, {"y"}, {}, "narrow")};
  file.graph.initializers = {test::random_tensor("W", {kGroups, kColumns, 1, 1}),
                             test::random_tensor("V", {kGroups, 1})};
  file.graph.inputs = {test::value("x", test::kFloat, {-1, kGroups * kColumns, 1, 1})};
  file.graph.outputs = {test::value("y", test::kFloat, {-1, 1})};
  const Dataset data = linear_data(3, 4, kGroups * kColumns);
  Preparation preparation;
  preparation.shape = {kGroups * kColumns, 1, 1};
  const Curvature curvature = measure_curvature(file.read(), data, all_of(4), preparation, true, 1, Context());
  REQUIRE(curvature.inputs.size() == 2);
  CHECK(curvature.inputs[0].values.empty());
  CHECK(curvature.inputs[1].values.size() == kGroups * kGroups);
}

TEST_CASE("the curvature of a classifier is that of its own output") {
  // For a softmax of z = W x + b with labels drawn from it, E[dL/dz_c^2] = p_c (1 - p_c), whatever the real labels are.
  constexpr size_t kInputs = 784, kClasses = 10, kSamples = 200;
  test::OnnxFile file = linear_file(kInputs, kClasses);
  std::vector<float> weights = test::random_floats(kInputs * kClasses, 5, 0.02f);
  file.graph.initializers[0] = test::float_tensor("W", {kClasses, kInputs}, weights);
  const Model model = file.read();
  const Dataset data = digits(2, kSamples);
  Preparation preparation;
  preparation.shape = {kInputs};
  preparation.scale = 1 / 255.0f;
  const std::vector<uint32_t> indices = all_of(kSamples);
  const Curvature curvature = measure_curvature(model, data, indices, preparation, false, 4, Context());
  const Program program(model);
  const std::vector<Tensor> out = program.forward({prepare(data, preparation, indices)});
  const std::span<const float> logits = out[0].data<float>();
  std::vector<double> expected(kClasses, 0);
  for (size_t s = 0; s < kSamples; ++s) {
    double sum = 0;
    for (size_t c = 0; c < kClasses; ++c) sum += std::exp(static_cast<double>(logits[s * kClasses + c]));
    for (size_t c = 0; c < kClasses; ++c) {
      const double p = std::exp(static_cast<double>(logits[s * kClasses + c])) / sum;
      expected[c] += p * (1 - p) / kSamples;
    }
  }
  double total = 0, total_expected = 0;
  for (size_t c = 0; c < kClasses; ++c) {
    const double found = curvature.diagonal[index_of(model, "b")][c];
    CHECK(found == doctest::Approx(expected[c]).epsilon(0.5));  // one draw for each of 200 samples
    total += found;
    total_expected += expected[c];
  }
  CHECK(total == doctest::Approx(total_expected).epsilon(0.15));
}

TEST_CASE("moments of a convolution are those of its patches, padded, strided, dilated, in groups") {
  Random random{19};
  constexpr size_t kSamples = 3, kChannels = 4, kHeight = 7, kWidth = 6;
  std::vector<uint8_t> pixels(kSamples * kChannels * kHeight * kWidth);
  for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(random.below(5));
  Dataset data =
      in_memory("images", Tensor::from<uint8_t>(DType::UInt8, {kSamples, kChannels, kHeight, kWidth}, pixels),
                SampleLayout::Chw, {0, 1, 0});
  Preparation preparation;
  preparation.shape = {kChannels, kHeight, kWidth};
  preparation.layout = SampleLayout::Chw;
  struct Case {
    int64_t kernel_height, kernel_width, stride, dilation, groups;
    std::vector<int64_t> pads;  ///< top, left, bottom, right; empty: SAME_LOWER
  };
  for (const Case& c : {Case{3, 2, 1, 1, 1, {0, 0, 0, 0}}, Case{3, 3, 2, 1, 2, {1, 0, 2, 1}},
                        Case{2, 2, 1, 2, 4, {0, 1, 0, 0}}, Case{3, 2, 2, 1, 1, {}}}) {
    const int64_t in_group = static_cast<int64_t>(kChannels) / c.groups;
    test::OnnxFile file;
    std::vector<std::string> attributes = {test::attribute("strides", std::vector<int64_t>{c.stride, c.stride}),
                                           test::attribute("dilations", std::vector<int64_t>{c.dilation, c.dilation}),
                                           test::attribute("group", c.groups)};
    attributes.push_back(c.pads.empty() ? test::text_attribute("auto_pad", "SAME_LOWER")
                                        : test::attribute("pads", c.pads));
    file.graph.nodes = {
        test::node("Conv", {"x", "W"}, {"c"}, attributes),
        test::node("ReduceMean", {"c"}, {"y"},
                   {test::attribute("axes", std::vector<int64_t>{2, 3}), test::attribute("keepdims", int64_t{0})})};
    file.graph.initializers = {test::random_tensor("W", {4, in_group, c.kernel_height, c.kernel_width})};
    file.graph.inputs = {test::value("x", test::kFloat, {-1, kChannels, kHeight, kWidth})};
    file.graph.outputs = {test::value("y", test::kFloat, {-1, 4})};
    const Model model = file.read();
    const std::vector<uint32_t> indices = all_of(kSamples);
    const Curvature curvature = measure_curvature(model, data, indices, preparation, true, 1, Context());
    const InputMoments& moments = curvature.inputs[0];
    // The number of outputs from the model itself.
    const Program program(model);
    RunOptions options;
    options.also = {"c"};
    const Tensor out = program.forward({prepare(data, preparation, indices)}, options)[1];
    const auto out_height = static_cast<int64_t>(out.shape()[2]), out_width = static_cast<int64_t>(out.shape()[3]);
    int64_t top = 0, left = 0;
    if (c.pads.empty()) {
      const auto begin = [&](int64_t in, int64_t outs, int64_t kernel) {
        return (std::max<int64_t>(0, (outs - 1) * c.stride + (kernel - 1) * c.dilation + 1 - in) + 1) / 2;
      };
      top = begin(kHeight, out_height, c.kernel_height);
      left = begin(kWidth, out_width, c.kernel_width);
    } else {
      top = c.pads[0];
      left = c.pads[1];
    }
    const auto columns = static_cast<size_t>(in_group * c.kernel_height * c.kernel_width);
    REQUIRE(moments.columns == columns);
    REQUIRE(moments.groups == static_cast<size_t>(c.groups));
    const auto pixel = [&](size_t s, int64_t channel, int64_t y, int64_t x) -> double {
      if (y < 0 || x < 0 || y >= static_cast<int64_t>(kHeight) || x >= static_cast<int64_t>(kWidth)) return 0;
      return pixels[((s * kChannels + static_cast<size_t>(channel)) * kHeight + static_cast<size_t>(y)) * kWidth +
                    static_cast<size_t>(x)];
    };
    for (int64_t group = 0; group < c.groups; ++group) {
      for (size_t a = 0; a < columns; ++a) {
        for (size_t b = 0; b < columns; ++b) {
          double sum = 0;
          for (size_t s = 0; s < kSamples; ++s) {
            for (int64_t i = 0; i < out_height; ++i) {
              for (int64_t j = 0; j < out_width; ++j) {
                const auto at = [&](size_t column) {
                  const auto k = static_cast<int64_t>(column);
                  const int64_t x = k % c.kernel_width, y = k / c.kernel_width % c.kernel_height;
                  return pixel(s, group * in_group + k / c.kernel_width / c.kernel_height,
                               i * c.stride - top + y * c.dilation, j * c.stride - left + x * c.dilation);
                };
                sum += at(a) * at(b);
              }
            }
          }
          sum /= static_cast<double>(kSamples) * static_cast<double>(out_height * out_width);
          CHECK(moments.values[(static_cast<size_t>(group) * columns + a) * columns + b] ==
                doctest::Approx(sum).epsilon(1e-6).scale(0.01));
        }
      }
    }
  }
}

TEST_CASE("running statistics bend the loss as scale and bias do") {
  // y = scale (x - mean) / sqrt(var + epsilon) + bias of features, with numbers to predict: gradients in closed form.
  constexpr size_t kFeatures = 5, kSamples = 50;
  test::OnnxFile file;
  file.graph.nodes = {
      test::node("BatchNormalization", {"x", "s", "b", "m", "v"}, {"y"}, {test::float_attribute("epsilon", 0.1f)})};
  const std::vector<float> scale = {1, 2, -0.5f, 0.3f, 1}, bias = {0, 1, 2, 3, 4}, mean = {0, 0.5f, -1, 0, 2},
                           variance = {1, 4, 0.25f, 2, 1};
  file.graph.initializers = {test::float_tensor("s", {5}, scale), test::float_tensor("b", {5}, bias),
                             test::float_tensor("m", {5}, mean), test::float_tensor("v", {5}, variance)};
  file.graph.inputs = {test::value("x", test::kFloat, {-1, 5})};
  file.graph.outputs = {test::value("y", test::kFloat, {-1, 5})};
  const Model model = file.read();
  Dataset data = linear_data(3, kSamples, kFeatures);
  data.targets = Tensor::from<float>(DType::Float32, {kSamples, 5}, test::random_floats(kSamples * 5, 1));
  Preparation preparation;
  preparation.shape = {kFeatures};
  const std::vector<uint32_t> indices = all_of(kSamples);
  const Curvature curvature = measure_curvature(model, data, indices, preparation, false, 1, Context());
  const Tensor x = prepare(data, preparation, indices);
  for (size_t f = 0; f < kFeatures; ++f) {
    const double sigma = std::sqrt(variance[f] + 0.1);
    double of_scale = 0, of_variance = 0;
    for (size_t s = 0; s < kSamples; ++s) {
      const double centred = x.data<float>()[s * kFeatures + f] - mean[f];
      of_scale += std::pow(centred / sigma, 2) / kSamples;
      of_variance += std::pow(scale[f] * centred / (2 * sigma * sigma * sigma), 2) / kSamples;
    }
    CHECK(curvature.diagonal[index_of(model, "s")][f] == doctest::Approx(of_scale).epsilon(1e-4));
    CHECK(curvature.diagonal[index_of(model, "b")][f] == doctest::Approx(1).epsilon(1e-4));
    CHECK(curvature.diagonal[index_of(model, "m")][f] ==
          doctest::Approx(scale[f] * scale[f] / (sigma * sigma)).epsilon(1e-4));
    CHECK(curvature.diagonal[index_of(model, "v")][f] == doctest::Approx(of_variance).epsilon(1e-4));
  }
}

// --- The step --------------------------------------------------------------------------------------------------------

TEST_CASE("more lambda, smaller files and larger errors; the more is known, the better the bargain") {
  const Model model = test::small_cnn(21).read();
  size_t last_size = 1u << 30;
  double last_sqnr = 1000;
  for (const char* const lambda : {"0.0001", "0.001", "0.01", "0.05"}) {
    const Run result =
        run(recipe_of(std::string(R"({"kind":"encode","lambda":)") + lambda + "}"), model, Context(), Format::Nib);
    CHECK(result.report.file_after < last_size);
    CHECK(*result.report.total.sqnr_db < last_sqnr);
    last_size = result.report.file_after;
    last_sqnr = *result.report.total.sqnr_db;
    // Biases and the like are shortened too.
    CHECK(result.model.coding.coder == EntropyCoder::Auto);
  }
}

TEST_CASE("constants that are not learnt stay as they are") {
  // y = Resize(x * scale + bias): sizes and exponents are no weights.
  test::OnnxFile file;
  file.opset = 17;
  file.graph.nodes = {test::node("Conv", {"x", "W", "b"}, {"c"}, {}, "conv"),
                      test::node("Pow", {"c", "exponent"}, {"p"}), test::node("Resize", {"p", "", "sizes"}, {"y"})};
  file.graph.initializers = {test::random_tensor("W", {3, 2, 3, 3}), test::random_tensor("b", {3}),
                             test::float_tensor("exponent", {1}, {2}), test::float_tensor("sizes", {4}, {1, 1, 2, 2})};
  file.graph.inputs = {test::value("x", test::kFloat, {1, 2, 8, 8})};
  file.graph.outputs = {test::value("y", test::kFloat, {1, 3, 12, 12})};
  const Model model = file.read();
  const Run result = run(recipe_of(R"({"kind":"encode","lambda":0.05})"), model, Context());
  for (const char* name : {"exponent", "sizes"})
    CHECK(values_of(test::param(result.model, name)) == values_of(test::param(model, name)));
  for (const char* name : {"W", "b"})
    CHECK(values_of(test::param(result.model, name)) != values_of(test::param(model, name)));
}

TEST_CASE("importance wants data, and an excluded weight is left alone") {
  const Model model = test::small_mlp(21).read();
  const Error error = test::error_of(
      [&] { run(recipe_of(R"({"kind":"encode","lambda":1e-5,"importance":"hessian"})"), model, Context()); });
  CHECK(error.code == ErrorCode::BadRecipe);
  CHECK(error.where == "steps[0].importance");
  const Run result = run(recipe_of(R"({"kind":"encode","lambda":0.01,"layers":{"exclude":["W1"]}})"), model, Context());
  CHECK(values_of(test::param(result.model, "W1")) == values_of(test::param(model, "W1")));
  CHECK(values_of(test::param(result.model, "W2")) != values_of(test::param(model, "W2")));
}

TEST_CASE("recipes with cluster and encode are read, printed and refused like the others") {
  const std::string text =
      R"({"version":1,"seed":0,"steps":[{"kind":"cluster","bits":3,"initial":"density","layers":{"include":["W*"]}},)"
      R"({"kind":"encode","coder":"huffman","lambda":0.5,"importance":"diagonal","quantized_form":false}]})";
  CHECK(print_recipe(parse_recipe(text)) == text);
  CHECK(print_recipe(recipe_of(R"({"kind":"encode"})")) ==
        R"({"version":1,"seed":0,"steps":[{"kind":"encode","coder":"auto","lambda":0,"quantized_form":true}]})");
  const auto refused = [](const std::string& steps, const std::string& where, const std::string& part) {
    const Error error = test::error_of([&] { recipe_of(steps); });
    CHECK(error.code == ErrorCode::BadRecipe);
    CHECK(error.where == where);
    CHECK_MESSAGE(test::holds(error.message, part), error.message);
  };
  refused(R"({"kind":"cluster"})", "steps[0]", "expected \"bits\"");
  refused(R"({"kind":"cluster","bits":9})", "steps[0].bits", "from 1 to 8");
  refused(R"({"kind":"cluster","bits":4,"initial":"kmeans++"})", "steps[0].initial", "\"linear\"");
  refused(R"({"kind":"encode","coder":"zip"})", "steps[0].coder", "\"cabac\"");
  refused(R"({"kind":"encode","lambda":-1})", "steps[0].lambda", "from 0 to 1");
  refused(R"({"kind":"encode","importance":"hessian"})", "steps[0].importance", "goes only with a \"lambda\" above 0");
  refused(R"({"kind":"encod"})", "steps[0].kind", "did you mean \"encode\"");
}

}  // namespace nibble
