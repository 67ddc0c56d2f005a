// What a model does with data, against sums over samples written out here.
#include "core/analyze/evaluate.hpp"

#include <doctest/doctest.h>

#include "core/model/architectures.hpp"
#include "core/model/execute.hpp"
#include "core/model/score.hpp"
#include "ops_support.hpp"

namespace nibble {
namespace {

using namespace test;

/// Three classes, two features; the model's logits are x W.
Dataset points(const std::vector<float>& values, const std::vector<int32_t>& labels) {
  return in_memory("points", floats({labels.size(), 2}, values), SampleLayout::Features, labels,
                   {"red", "green", "blue"});
}

Model scorer(const std::vector<float>& w, int64_t batch = -1) {
  OnnxFile file;
  file.opset = 17;
  file.graph.nodes = {node("MatMul", {"x", "W"}, {"h"}, {}, "score"), node("Softmax", {"h"}, {"y"}, {}, "softmax")};
  file.graph.initializers = {float_tensor("W", {2, 3}, w)};
  file.graph.inputs = {value("x", kFloat, {batch, 2})};
  file.graph.outputs = {value("y", kFloat, {batch, 3})};
  return file.read();
}

Preparation plain() {
  Preparation preparation;
  preparation.shape = {2};
  return preparation;
}

std::vector<uint32_t> first(uint32_t count) {
  std::vector<uint32_t> indices;
  for (uint32_t i = 0; i < count; ++i) indices.push_back(i);
  return indices;
}

TEST_CASE("accuracy, confusion and loss are those of the samples one by one") {
  const std::vector<float> x = {1, 0, 0, 1, 1, 1, -1, -1, 2, -1};
  const std::vector<int32_t> labels = {0, 1, 2, 2, 1};
  const std::vector<float> w = {3, 0, 1, 0, 3, 1};
  for (const int64_t batch : {-1, 1, 2, 4}) {
    const Evaluation found = evaluate(scorer(w, batch), points(x, labels), first(5), plain(), Context());
    double loss = 0;
    std::vector<uint32_t> confusion(9, 0);
    size_t correct = 0;
    for (size_t i = 0; i < 5; ++i) {
      double logits[3], sum = 0;
      size_t best = 0;
      for (size_t c = 0; c < 3; ++c) {
        logits[c] = double{x[i * 2]} * w[c] + double{x[i * 2 + 1]} * w[3 + c];
        if (logits[c] > logits[best]) best = c;
      }
      for (const double logit : logits) sum += std::exp(logit);
      loss += std::log(sum) - logits[static_cast<size_t>(labels[i])];
      ++confusion[static_cast<size_t>(labels[i]) * 3 + best];
      correct += best == static_cast<size_t>(labels[i]);
      CHECK(found.predictions[i] == static_cast<int32_t>(best));
      CHECK(found.confidence[i] == doctest::Approx(std::exp(logits[best]) / sum).epsilon(1e-5));
    }
    CHECK(found.loss == doctest::Approx(loss / 5).epsilon(1e-5));
    CHECK(found.accuracy.value() == doctest::Approx(static_cast<double>(correct) / 5));
    CHECK(found.confusion == confusion);
  }
}

TEST_CASE("a model and itself agree everywhere; a model and another part where their logits do") {
  const std::vector<float> x = random_floats(80, 3);
  std::vector<int32_t> labels(40);
  for (size_t i = 0; i < 40; ++i) labels[i] = static_cast<int32_t>(i % 3);
  const Dataset data = points(x, labels);
  const std::vector<float> w = {1, -0.5f, 0.2f, 0.3f, 1, -1};
  const Model model = scorer(w);
  const Comparison same = compare(model, model, data, first(40), plain(), Context());
  CHECK(same.agreement == 1);
  CHECK(same.flipped.empty());
  REQUIRE(same.activations.size() == 2);
  for (const ActivationError& error : same.activations) {
    CHECK(error.mse == 0);
    CHECK(std::isinf(error.sqnr_db));
    CHECK(error.cosine == doctest::Approx(1));
  }
  std::vector<float> rounded = w;
  for (float& value : rounded) value = std::round(value);
  const Model other = scorer(rounded);
  const Comparison apart = compare(model, other, data, first(40), plain(), Context());
  double error = 0, power = 0;
  std::vector<uint32_t> flipped;
  for (uint32_t i = 0; i < 40; ++i) {
    size_t best[2] = {0, 0};
    double logits[2][3];
    for (size_t c = 0; c < 3; ++c) {
      logits[0][c] = double{x[i * 2]} * w[c] + double{x[i * 2 + 1]} * w[3 + c];
      logits[1][c] = double{x[i * 2]} * rounded[c] + double{x[i * 2 + 1]} * rounded[3 + c];
      for (size_t m = 0; m < 2; ++m) best[m] = logits[m][c] > logits[m][best[m]] ? c : best[m];
      error += (logits[0][c] - logits[1][c]) * (logits[0][c] - logits[1][c]);
      power += logits[0][c] * logits[0][c];
    }
    if (best[0] != best[1]) flipped.push_back(i);
  }
  CHECK(apart.flipped == flipped);
  CHECK(apart.agreement == doctest::Approx(1 - static_cast<double>(flipped.size()) / 40));
  CHECK(apart.activations[0].name == "h");
  CHECK(apart.activations[0].node == "score");
  CHECK(apart.activations[0].weights == std::vector<std::string>{"W"});
  CHECK(apart.activations[0].shape == Shape{3});
  CHECK(apart.activations[0].mse == doctest::Approx(error / 120).epsilon(1e-4));
  CHECK(apart.activations[0].sqnr_db == doctest::Approx(10 * std::log10(power / error)).epsilon(1e-4));
}

TEST_CASE("the last piece of a model with a fixed number of samples counts none of its filling") {
  const std::vector<float> x = random_floats(14, 9);
  const Dataset data = points(x, {0, 1, 2, 0, 1, 2, 0});
  const Model free = scorer({1, 2, 3, -1, 0, 1}), fixed = scorer({1, 2, 3, -1, 0, 1}, 4);
  const Model other_free = scorer({1, 2, 2, -1, 0, 1}), other_fixed = scorer({1, 2, 2, -1, 0, 1}, 4);
  const Comparison a = compare(free, other_free, data, first(7), plain(), Context());
  const Comparison b = compare(fixed, other_fixed, data, first(7), plain(), Context());
  CHECK(a.activations[0].mse == doctest::Approx(b.activations[0].mse));
  CHECK(a.before.predictions == b.before.predictions);
}

TEST_CASE("a recurrent network's values are of one sample each, and name their weights") {
  const Dataset data = digits(2, 30);
  const Model model = make_architecture("lstm", 1);
  const Preparation preparation = guess_preparation(model, data, {}, Context());
  const Comparison found = compare(model, model, data, first(20), preparation, Context());
  size_t recurrent = 0;
  for (const ActivationError& error : found.activations) {
    CHECK(std::find(error.shape.begin(), error.shape.end(), size_t{16}) == error.shape.end());  // samples in a piece
    if (error.op != "LSTM") continue;
    ++recurrent;
    CHECK(error.weights.size() == 2);
  }
  CHECK(recurrent > 0);
}

TEST_CASE("how bytes become numbers is found by trying, and said") {
  // Two classes of bytes: dark and bright. A model with a bias tells them apart in one range only.
  std::vector<uint8_t> bytes;
  std::vector<int32_t> labels;
  for (int i = 0; i < 40; ++i) {
    labels.push_back(i % 2);
    for (int k = 0; k < 2; ++k) bytes.push_back(static_cast<uint8_t>(i % 2 ? 200 : 20));
  }
  const Dataset data =
      in_memory("bytes", tensor_of<uint8_t>(DType::UInt8, {40, 2}, bytes), SampleLayout::Features, labels);
  const auto model = [&](float weight, float bias) {
    OnnxFile file;
    file.opset = 17;
    file.graph.nodes = {node("Gemm", {"x", "W", "b"}, {"y"})};
    file.graph.initializers = {float_tensor("W", {2, 2}, {0, weight, 0, weight}), float_tensor("b", {2}, {0, bias})};
    file.graph.inputs = {value("x", kFloat, {-1, 2})};
    file.graph.outputs = {value("y", kFloat, {-1, 2})};
    return file.read();
  };
  const std::vector<uint32_t> some = first(20);
  CHECK(guess_preparation(model(1, -220), data, some, Context()).scale == 1);  // sums 40, 400
  CHECK(guess_preparation(model(1, -0.5f), data, some, Context()).scale == doctest::Approx(1 / 255.0f));  // 0.16, 1.57
  const Preparation around_zero = guess_preparation(model(1, 0.2f), data, some, Context());               // -1.69, 1.14
  CHECK(around_zero.mean == std::vector<float>{0.5f});
  CHECK(holds(around_zero.reason, "-1 to 1"));
  CHECK(holds(around_zero.reason, "100.0 %"));
}

TEST_CASE("data that are shares of 255 already are not divided again") {
  Model model = make_architecture("lenet-300-100", 1);
  auto header = std::make_shared<Header>(*model.header);
  header->metadata = {{"nibble.scale", "0.00392156886"}, {"nibble.mean", "0.5"}, {"nibble.std", "0.25"}};
  model.header = header;
  const auto scale_for = [&](float largest) {
    const Dataset data =
        in_memory("shares", floats({2, 28, 28}, std::vector<float>(2 * 784, largest)), SampleLayout::Hw, {0, 1});
    const Preparation found = guess_preparation(model, data, {}, Context());
    CHECK(found.mean == std::vector<float>{0.5f});
    return found.scale;
  };
  CHECK(scale_for(1) == 1);
  CHECK(scale_for(255) == 1 / 255.0f);
}

TEST_CASE("images are laid out as the model takes them, and never resized") {
  const Dataset data = digits(1, 20);
  const auto model = [](const Dims& shape) {
    OnnxFile file;
    file.opset = 17;
    file.graph.nodes = {node("Flatten", {"x"}, {"y"})};
    file.graph.inputs = {value("x", kFloat, shape)};
    file.graph.outputs = {value("y", kFloat, {-1, -1})};
    return file.read();
  };
  const auto guess = [&](const Dims& shape) { return guess_preparation(model(shape), data, {}, Context()); };
  CHECK(guess({-1, 1, 28, 28}).layout == SampleLayout::Chw);
  CHECK(guess({-1, 28, 28, 1}).layout == SampleLayout::Hwc);
  CHECK(guess({-1, 28, 28}).layout == SampleLayout::Hw);
  CHECK(guess({-1, 784}).shape == Shape{784});
  const Error error = error_of([&] { guess({-1, 3, 32, 32}); });
  CHECK(error.code == ErrorCode::BadData);
  CHECK(holds(error.message, "3x32x32"));
  CHECK(holds(error.message, "28x28"));
}

TEST_CASE("one value of one sample can be looked at") {
  const Dataset data = points({1, 2, 3, 4}, {0, 1});
  const Tensor h = activation(scorer({1, 0, 1, 0, 1, 1}), data, 1, plain(), "h");
  CHECK(h.shape() == Shape{3});
  CHECK(values_of(h) == std::vector<float>{3, 4, 7});
  CHECK(error_of([&] { activation(scorer({1, 0, 1, 0, 1, 1}), data, 2, plain(), "h"); }).where == "index");
  CHECK(error_of([&] { activation(scorer({1, 0, 1, 0, 1, 1}), data, 0, plain(), "z"); }).where == "z");
}

TEST_CASE("data and model that do not belong together are told apart") {
  const Dataset data = points({1, 2, 3, 4}, {0, 1});
  const Dataset four = in_memory("four", floats({2, 2}, {1, 2, 3, 4}), SampleLayout::Features, {0, 3});
  CHECK(holds(error_of([&] {
                evaluate(scorer({1, 0, 1, 0, 1, 1}), four, first(2), plain(), Context());
              }).message,
              "4 classes"));
  // Numbers taken for classes: before any matrix of that size is made.
  const Dataset wild = in_memory("wild", floats({2, 2}, {1, 2, 3, 4}), SampleLayout::Features, {1, 65535});
  CHECK(holds(error_of([&] {
                evaluate(scorer({1, 0, 1, 0, 1, 1}), wild, first(2), plain(), Context());
              }).message,
              "65536 classes"));
  CHECK(holds(error_of([&] { evaluate(scorer({1, 0, 1, 0, 1, 1}), data, {}, plain(), Context()); }).message, "empty"));
}

TEST_CASE("squared errors are those of the outputs, also of a model that ends in Softmax") {
  // Shares that the model gives exactly.
  const std::vector<float> x = {1, 0, 0, 2};
  const float e = std::exp(1.0f), f = std::exp(2.0f);
  Dataset data = in_memory("shares", floats({2, 2}, x), SampleLayout::Features, {});
  data.targets = floats({2, 3}, {e / (e + 2), 1 / (e + 2), 1 / (e + 2), 1 / (f + 2), f / (f + 2), 1 / (f + 2)});
  const Model model = scorer({1, 0, 0, 0, 1, 0});
  CHECK(evaluate(model, data, first(2), plain(), Context()).loss < 1e-12);
  CHECK(compare(model, model, data, first(2), plain(), Context()).before.loss < 1e-12);
}

TEST_CASE("beyond a thousand classes confusion is not counted") {
  constexpr size_t kClasses = 2000;
  OnnxFile file;
  file.graph.nodes = {node("MatMul", {"x", "W"}, {"y"}, {}, "score")};
  file.graph.initializers = {random_tensor("W", {2, kClasses})};
  file.graph.inputs = {value("x", kFloat, {-1, 2})};
  file.graph.outputs = {value("y", kFloat, {-1, kClasses})};
  const Dataset data = in_memory("many", floats({2, 2}, {1, 2, 3, 4}), SampleLayout::Features, {0, kClasses - 1});
  const Evaluation found = evaluate(file.read(), data, first(2), plain(), Context());
  CHECK(found.confusion.empty());
  CHECK(found.predictions.size() == 2);
}

TEST_CASE("loss and gradient of scores are the closed forms") {
  const std::vector<float> logits = {1, 2, 3, 1000, 0, -1000};
  const std::vector<int32_t> labels = {2, 0};
  std::vector<float> grad(6);
  const Score score = cross_entropy(logits, 3, labels, grad, 0.5f, {}, {});
  const double sum = std::exp(1) + std::exp(2) + std::exp(3);
  CHECK(score.loss == doctest::Approx(std::log(sum) - 3).epsilon(1e-6));
  CHECK(score.correct == 2);
  CHECK(grad[0] == doctest::Approx(0.5 * std::exp(1) / sum));
  CHECK(grad[2] == doctest::Approx(0.5 * (std::exp(3) / sum - 1)));
  CHECK(grad[3] == 0);
  const std::vector<float> out = {1, 2, 3, 4}, targets = {0, 2, 5, 4};
  std::vector<float> slope(4);
  CHECK(mean_squared(out, 2, targets, slope, 1).loss == doctest::Approx((1 + 0) / 2.0 + (4 + 0) / 2.0));
  CHECK(slope == std::vector<float>{1, 0, -2, 0});
}

}  // namespace
}  // namespace nibble
