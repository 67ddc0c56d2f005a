// The training loop: that it learns, keeps promises, stops and goes on bit for bit, and says what is wrong.
#include "core/train/train.hpp"

#include <doctest/doctest.h>

#include "core/analyze/evaluate.hpp"
#include "core/model/architectures.hpp"
#include "core/model/execute.hpp"
#include "core/prune/prune.hpp"
#include "core/quantize/quantize.hpp"
#include "ops_support.hpp"

namespace nibble {
namespace {

using namespace test;

Preparation image() {
  Preparation preparation;
  preparation.shape = {1, 28, 28};
  preparation.layout = SampleLayout::Chw;
  preparation.scale = 1 / 255.0f;
  preparation.mean = {0.1307f};
  preparation.std = {0.3081f};
  return preparation;
}

Preparation features(size_t count) {
  Preparation preparation;
  preparation.shape = {count};
  return preparation;
}

/// Points around the lines through class centres: 2 classes, 4 features, easily told apart.
Dataset blobs(size_t n, uint64_t seed) {
  std::vector<float> values = random_floats(n * 4, seed);
  std::vector<int32_t> labels(n);
  for (size_t i = 0; i < n; ++i) {
    labels[i] = static_cast<int32_t>(i % 2);
    for (size_t f = 0; f < 4; ++f) values[i * 4 + f] += labels[i] ? 1.5f : -1.5f;
  }
  return in_memory("blobs", floats({n, 4}, values), SampleLayout::Features, labels);
}

/// x [batch, 4] -> Gemm -> Relu -> Gemm -> (Softmax) -> [batch, 2]
Model small_net(int64_t batch = -1, bool softmax = false) {
  OnnxFile file;
  file.opset = 17;
  file.graph.nodes = {
      node("Gemm", {"x", "W1", "b1"}, {"h"}, {attribute("transB", int64_t{1})}, "first"),
      node("Relu", {"h"}, {"r"}, {}, "relu"),
      node("Gemm", {"r", "W2", "b2"}, {softmax ? "s" : "y"}, {attribute("transB", int64_t{1})}, "second")};
  if (softmax) file.graph.nodes.push_back(node("Softmax", {"s"}, {"y"}, {}, "softmax"));
  file.graph.initializers = {random_tensor("W1", {16, 4}), random_tensor("b1", {16}), random_tensor("W2", {2, 16}),
                             random_tensor("b2", {2})};
  file.graph.inputs = {value("x", kFloat, {batch, 4})};
  file.graph.outputs = {value("y", kFloat, {batch, 2})};
  return file.read();
}

std::vector<TrainProgress> run_all(Trainer& trainer, size_t most = SIZE_MAX) {
  std::vector<TrainProgress> steps;
  while (!trainer.done() && steps.size() < most) steps.push_back(trainer.step(Context()));
  return steps;
}

std::string bits_of_model(const Model& model) {
  std::string all;
  for (const Param& param : model.params) all += text_of(param.value.bytes());
  return all;
}

TEST_CASE("linear regression finds the least squares solution") {
  const Dataset data = linear_data(3, 600, 5);
  const Split parts = split(data, {}, 1);
  TrainChoice choice;
  choice.loss = Loss::MeanSquared;
  choice.epochs = 60;
  choice.learning_rate = 0.05;
  Trainer trainer(make_architecture("linear", 2), data, parts, features(5), choice, 4);
  run_all(trainer);
  // The normal equations of the training samples, by Gauss's elimination in double: [x 1]^T [x 1] w = [x 1]^T y.
  constexpr size_t kSize = 6;
  double matrix[kSize][kSize + 1] = {};
  const Tensor x = data.read(parts.training);
  for (size_t i = 0; i < parts.training.size(); ++i) {
    double row[kSize + 1];
    for (size_t f = 0; f < 5; ++f) row[f] = x.data<float>()[i * 5 + f];
    row[5] = 1;
    row[6] = data.targets.data<float>()[parts.training[i]];
    for (size_t a = 0; a < kSize; ++a) {
      for (size_t b = 0; b <= kSize; ++b) matrix[a][b] += row[a] * row[b];
    }
  }
  for (size_t a = 0; a < kSize; ++a) {
    for (size_t b = 0; b < kSize; ++b) {
      if (b == a) continue;
      const double factor = matrix[b][a] / matrix[a][a];
      for (size_t c = a; c <= kSize; ++c) matrix[b][c] -= factor * matrix[a][c];
    }
  }
  const Model found = trainer.current();
  std::vector<float> weights;
  for (const Initializer& initializer : found.graph->initializers) {
    const std::vector<float> values = values_of(found.params[initializer.param].value);
    weights.insert(weights.end(), values.begin(), values.end());
  }
  REQUIRE(weights.size() == kSize);
  // The rate has come down to nothing, so what is left is the noise of the last batches.
  for (size_t a = 0; a < kSize; ++a)
    CHECK(weights[a] == doctest::Approx(matrix[a][kSize] / matrix[a][a]).epsilon(0.02).scale(1));
}

TEST_CASE("each optimizer and schedule learns to tell two blobs apart") {
  const Dataset data = blobs(400, 1);
  const Split parts = split(data, {}, 1);
  for (const Optimizer optimizer : {Optimizer::Sgd, Optimizer::Adam, Optimizer::AdamW}) {
    for (const Schedule schedule : {Schedule::Constant, Schedule::Cosine, Schedule::Step}) {
      TrainChoice choice;
      choice.optimizer = optimizer;
      choice.schedule = schedule;
      choice.learning_rate = optimizer == Optimizer::Sgd ? 0.05 : 0.01;
      choice.weight_decay = 0.001;
      choice.warmup = 1;
      choice.clip_norm = 1;
      choice.step_factor = 0.5;
      choice.epochs = 15;
      choice.batch = 32;
      Trainer trainer(small_net(), data, parts, features(4), choice, 1);
      const std::vector<TrainProgress> steps = run_all(trainer);
      CHECK(steps.back().validation_accuracy.value() > 0.9);
      CHECK(steps.front().learning_rate < choice.learning_rate / 2);
      const Evaluation test = evaluate(trainer.best(), data, parts.test, features(4), Context());
      CHECK(test.accuracy.value() > 0.9);
    }
  }
}

TEST_CASE("the rate follows the schedule's formula") {
  const Dataset data = blobs(130, 1);
  Split parts;
  for (uint32_t i = 0; i < 128; ++i) parts.training.push_back(i);
  TrainChoice choice;
  choice.epochs = 4;
  choice.batch = 32;
  choice.learning_rate = 0.5;
  choice.optimizer = Optimizer::Sgd;
  const auto rates = [&] {
    Trainer trainer(small_net(), data, parts, features(4), choice, 1);
    std::vector<double> out;
    for (const TrainProgress& step : run_all(trainer)) out.push_back(step.learning_rate);
    return out;
  };
  const std::vector<double> cosine = rates();
  for (size_t i = 0; i < 16; ++i)
    CHECK(cosine[i] ==
          doctest::Approx(0.25 * (1 + std::cos(3.14159265358979 * static_cast<double>(i) / 16))).epsilon(1e-12));
  choice.schedule = Schedule::Step;
  choice.step_epochs = 2;
  choice.step_factor = 0.1;
  const std::vector<double> step = rates();
  CHECK(step[7] == 0.5);
  CHECK(step[8] == doctest::Approx(0.05));
}

TEST_CASE("training goes on bit for bit where it was saved, in the middle of an epoch too") {
  const Dataset data = digits(5, 300);
  const Split parts = split(data, {}, 1);
  TrainChoice choice;
  choice.epochs = 2;
  choice.batch = 32;
  const Model model = make_architecture("depthwise", 3);  // with running statistics
  Trainer straight(model, data, parts, image(), choice, 9);
  run_all(straight);
  for (const size_t stop : {size_t{1}, size_t{4}, straight.step(Context()).batches}) {
    Trainer first(model, data, parts, image(), choice, 9);
    run_all(first, stop);
    const std::vector<std::byte> saved = first.save();
    Trainer second(model, data, parts, image(), choice, 9);
    second.restore(saved);
    run_all(second);
    CHECK(bits_of_model(second.current()) == bits_of_model(straight.current()));
    CHECK(bits_of_model(second.best()) == bits_of_model(straight.best()));
  }
  // Into a trainer that has gone on, too: also what it had before the first step, running statistics among it.
  Trainer again(model, data, parts, image(), choice, 9);
  const std::vector<std::byte> start = again.save();
  run_all(again, 3);
  again.restore(start);
  CHECK(bits_of_model(again.current()) == bits_of_model(model));
  run_all(again);
  CHECK(bits_of_model(again.current()) == bits_of_model(straight.current()));
  CHECK(bits_of_model(again.best()) == bits_of_model(straight.best()));
}

TEST_CASE("an epoch whose validation is broken off is judged by the next step") {
  const Dataset data = blobs(200, 1);
  const Split parts = split(data, {}, 1);
  TrainChoice choice;
  choice.epochs = 2;
  Trainer straight(small_net(), data, parts, features(4), choice, 3),
      broken(small_net(), data, parts, features(4), choice, 3);
  const std::vector<TrainProgress> steps = run_all(straight);
  size_t cancelled = 0, taken = 0;
  TrainProgress last;
  while (!broken.done()) {
    try {
      last = broken.step(
          Context(0, [&](const Progress& progress) { return progress.item != "validation" || cancelled % 2; }));
      ++taken;
      if (last.validation_loss) ++cancelled;
    } catch (const Error& error) {
      CHECK(error.code == ErrorCode::Cancelled);
      ++cancelled;
      // It is part of what is saved.
      const std::vector<std::byte> saved = broken.save();
      broken.restore(saved);
    }
  }
  CHECK(cancelled == 4);
  CHECK(taken == steps.size());
  CHECK(last.validation_loss == steps.back().validation_loss);
  CHECK(bits_of_model(broken.best()) == bits_of_model(straight.best()));
}

TEST_CASE("gradients of what does not move have no part in the norm") {
  // y = w0 x0 + w1 x1, w0 pruned: its gradient is a hundred times the other's.
  OnnxFile file;
  file.graph.nodes = {node("Gemm", {"x", "W"}, {"y"}, {attribute("transB", int64_t{1})}, "only")};
  file.graph.initializers = {float_tensor("W", {1, 2}, {0, 1})};
  file.graph.inputs = {value("x", kFloat, {-1, 2})};
  file.graph.outputs = {value("y", kFloat, {-1, 1})};
  Model model = file.read();
  model.params[0].mask = Mask{{2}, 1};
  Dataset data = in_memory("pair", floats({4, 2}, {100, 1, 100, 1, 100, 1, 100, 1}), SampleLayout::Features, {});
  data.targets = floats({4, 1}, {0.75f, 0.75f, 0.75f, 0.75f});
  TrainChoice choice;
  choice.loss = Loss::MeanSquared;
  choice.optimizer = Optimizer::Sgd;
  choice.momentum = 0;
  choice.schedule = Schedule::Constant;
  choice.learning_rate = 0.5;
  choice.clip_norm = 1;
  Split parts;
  parts.training = {0, 1, 2, 3};
  Trainer trainer(model, data, parts, features(2), choice, 1);
  trainer.step(Context());
  // The gradient is 2 (1 - 0.75) = 1/2, within the norm.
  CHECK(values_of(trainer.current().params[0].value) == std::vector<float>{0, 0.75f});
}

TEST_CASE("weights decay, and biases of any shape do not") {
  const Dataset data = digits(8, 60);
  TrainChoice choice;
  choice.optimizer = Optimizer::AdamW;
  choice.batch = 64;
  choice.schedule = Schedule::Constant;
  const auto after_step = [&](double decay) {
    choice.weight_decay = decay;
    Trainer trainer(make_architecture("lstm", 4), data, split(data, {}, 1), image(), choice, 2);
    trainer.step(Context());
    return trainer.current();
  };
  const Model with = after_step(0.5), without = after_step(0);
  for (size_t i = 0; i < with.params.size(); ++i) {
    const bool is_weight = std::any_of(with.weights->begin(), with.weights->end(),
                                       [&](const Weight& weight) { return weight.param == i; });
    CAPTURE(with.params[i].name);
    CHECK((values_of(with.params[i].value) != values_of(without.params[i].value)) == is_weight);
  }
}

TEST_CASE("without validation nothing that is not finite is the best") {
  const Dataset data = blobs(64, 3);
  Split parts;
  for (uint32_t i = 0; i < 64; ++i) parts.training.push_back(i);
  TrainChoice choice;
  choice.optimizer = Optimizer::Sgd;
  choice.learning_rate = 100;
  choice.momentum = 0.99;
  choice.epochs = 400;
  choice.batch = 65536;
  choice.schedule = Schedule::Constant;
  Trainer trainer(small_net(), data, parts, features(4), choice, 1);
  CHECK(error_of([&] { run_all(trainer); }).code == ErrorCode::BadData);
  for (const Param& param : trainer.best().params) {
    for (const float value : values_of(param.value)) CHECK(std::isfinite(value));
  }
}

TEST_CASE("the strict build trains to the same bits on every platform") {
  const Dataset data = digits(8, 120);
  TrainChoice choice;
  choice.batch = 16;
  choice.clip_norm = 1;
  choice.weight_decay = 0.01;
  const auto hash_after_steps = [&](const char* name) {
    Trainer trainer(make_architecture(name, 4), data, split(data, {}, 1), image(), choice, 2);
    run_all(trainer, 4);
    uint64_t hash = 0;
    for (const char byte : bits_of_model(trainer.current())) hash = mix64(hash, static_cast<unsigned char>(byte));
    return hash;
  };
  // Recorded natively on x86-64 with gcc 12; clang's WebAssembly gives the same.
  CHECK(hash_after_steps("lenet-5") == 16599973743042003950u);
  CHECK(hash_after_steps("depthwise") == 6247860852508171814u);
  CHECK(hash_after_steps("lstm") == 12282026952562646469u);
  CHECK(hash_after_steps("transformer") == 16843700323250024439u);
}

TEST_CASE("a saved training that is damaged or another one's is refused, and changes nothing") {
  const Dataset data = blobs(100, 1);
  const Split parts = split(data, {}, 1);
  TrainChoice choice;
  Trainer trainer(small_net(), data, parts, features(4), choice, 1);
  run_all(trainer, 1);
  const std::vector<std::byte> saved = trainer.save();
  const std::string before = bits_of_model(trainer.current());
  for (size_t cut = 0; cut < saved.size(); cut += 7) {
    CHECK(error_of([&] { trainer.restore(std::span(saved).first(cut)); }).code == ErrorCode::BadFile);
  }
  std::vector<std::byte> longer = saved;
  longer.push_back({});
  CHECK(error_of([&] { trainer.restore(longer); }).code == ErrorCode::BadFile);
  choice.learning_rate = 0.002;
  Trainer other(small_net(), data, parts, features(4), choice, 1);
  CHECK(holds(error_of([&] { other.restore(saved); }).message, "other choices"));
  CHECK(bits_of_model(trainer.current()) == before);
  // The same numbers of everything, and yet another training.
  choice.learning_rate = TrainChoice{}.learning_rate;
  Preparation scaled = features(4);
  scaled.scale = 2;
  Model half = small_net(), other_half = small_net();
  Mask mask{{0x5555555555555555}, 32}, other_mask{{0xAAAAAAAAAAAAAAAA}, 32};
  half.params[0] = apply_mask(half.params[0], mask);
  other_half.params[0] = apply_mask(other_half.params[0], other_mask);
  Dataset renamed = data;
  renamed.name = "other blobs";
  Split swapped = parts;
  std::swap(swapped.training.front(), swapped.training.back());
  const auto refuses = [&](const Model& model, const Dataset& from, const Split& split, const Preparation& preparation,
                           std::span<const std::byte> state) {
    Trainer third(model, from, split, preparation, choice, 1);
    return error_of([&] { third.restore(state); }).code == ErrorCode::BadFile;
  };
  CHECK(refuses(small_net(), renamed, parts, features(4), saved));
  CHECK(refuses(small_net(), data, swapped, features(4), saved));
  CHECK(refuses(small_net(), data, parts, scaled, saved));
  CHECK(refuses(small_net(-1, true), data, parts, features(4), saved));
  Trainer pruned(half, data, parts, features(4), choice, 1);
  CHECK(refuses(other_half, data, parts, features(4), pruned.save()));
}

TEST_CASE("pruned weights stay zero and quantized ones on their grid, unless told otherwise") {
  const Dataset data = blobs(200, 2);
  const Split parts = split(data, {}, 1);
  Model model = small_net();
  for (const Weight& weight : *model.weights) {
    Param& param = model.params[weight.param];
    std::vector<std::pair<size_t, std::string>> notes;
    const std::vector<const Param*> params = {&param};
    const std::vector<const Weight*> weights = {&weight};
    PruneChoice half;
    half.sparsity = 0.5;
    param = apply_mask(std::move(param), find_masks(params, weights, half, notes)[0]);
    QuantScheme scheme;
    scheme.bits = 4;
    param = quantize_weight(std::move(param), weight, scheme, {}, Rounding::Nearest, 0, std::nullopt);
  }
  TrainChoice choice;
  choice.learning_rate = 0.02;
  choice.epochs = 4;
  Trainer trainer(model, data, parts, features(4), choice, 1);
  run_all(trainer);
  const Model trained = trainer.current();
  size_t moved = 0;
  for (const Weight& weight : *model.weights) {
    const Param &before = model.params[weight.param], &after = trained.params[weight.param];
    REQUIRE(after.mask.has_value());
    REQUIRE(after.grid.has_value());
    const std::vector<float> values = values_of(after.value);
    std::vector<float> snapped(values.size());
    snap_to_grid(*after.grid, rows_of(after.value.shape(), weight.channel_axis), values, snapped);
    for (size_t i = 0; i < values.size(); ++i) {
      if (!(after.mask->words[i / 64] >> (i % 64) & 1))
        CHECK(values[i] == 0);
      else
        CHECK(values[i] == snapped[i]);
      moved += values[i] != before.value.data<float>()[i];
    }
    CHECK(after.grid->scale == before.grid->scale);
  }
  CHECK(moved > 0);

  choice.keep_masks = choice.keep_grids = false;
  Trainer free(model, data, parts, features(4), choice, 1);
  run_all(free);
  const Model loose = free.current();
  const Param& weight = loose.params[(*model.weights)[0].param];
  CHECK_FALSE(weight.mask.has_value());
  CHECK_FALSE(weight.grid.has_value());
  const std::vector<float> values = values_of(weight.value);
  // Half of 64 were zero; those before a unit that no sample wakes stay so.
  CHECK(std::count(values.begin(), values.end(), 0.0f) < 24);
}

TEST_CASE("a loss that is no number stops training and keeps the best weights") {
  const Dataset data = blobs(200, 3);
  const Split parts = split(data, {}, 1);
  TrainChoice choice;
  choice.loss = Loss::CrossEntropy;
  choice.optimizer = Optimizer::Sgd;
  choice.learning_rate = 100;
  choice.momentum = 0.99;
  choice.epochs = 400;
  choice.schedule = Schedule::Constant;
  const Model model = small_net();
  Trainer trainer(model, data, parts, features(4), choice, 1);
  const Error error = error_of([&] { run_all(trainer); });
  CHECK(error.code == ErrorCode::BadData);
  CHECK(holds(error.where, "epoch"));
  CHECK(holds(error.where, "batch"));
  CHECK(holds(error.message, "learning rate"));
  CHECK(trainer.done());
  for (const Param& param : trainer.current().params) {
    for (const float value : values_of(param.value)) CHECK(std::isfinite(value));
  }
  CHECK(bits_of_model(trainer.current()) == bits_of_model(trainer.best()));
}

TEST_CASE("patience ends training that no longer gets better") {
  const Dataset data = blobs(200, 4);
  TrainChoice choice;
  choice.epochs = 1000;
  choice.learning_rate = 0.05;
  choice.patience = 3;
  Trainer trainer(small_net(), data, split(data, {}, 1), features(4), choice, 1);
  const std::vector<TrainProgress> steps = run_all(trainer);
  CHECK(steps.back().done);
  CHECK(steps.back().epoch < 900);
  CHECK(std::count_if(steps.end() - 3 * static_cast<std::ptrdiff_t>(steps.back().batches), steps.end(),
                      [](const TrainProgress& step) { return step.best; }) == 0);
}

TEST_CASE("a model that takes one sample at a time learns what one that takes batches learns") {
  const Dataset data = blobs(120, 5);
  const Split parts = split(data, {}, 1);
  TrainChoice choice;
  choice.epochs = 1;
  choice.batch = 16;
  Trainer many(small_net(-1), data, parts, features(4), choice, 1),
      one(small_net(1), data, parts, features(4), choice, 1);
  const std::vector<TrainProgress> a = run_all(many), b = run_all(one);
  REQUIRE(a.size() == b.size());
  // Sums of 16 gradients in another order, over eight steps.
  for (size_t i = 0; i < a.size(); ++i) CHECK(a[i].loss == doctest::Approx(b[i].loss).epsilon(1e-4));
}

TEST_CASE("a model that ends in Softmax is trained before it") {
  const Dataset data = blobs(120, 6);
  const Split parts = split(data, {}, 1);
  TrainChoice choice;
  choice.epochs = 2;
  Trainer plain(small_net(-1, false), data, parts, features(4), choice, 1),
      ends(small_net(-1, true), data, parts, features(4), choice, 1);
  run_all(plain);
  run_all(ends);
  CHECK(bits_of_model(plain.current()) == bits_of_model(ends.current()));
  CHECK(ends.current().graph->outputs[0].name == "y");
}

TEST_CASE("running statistics follow the data, and the trained model is in inference form") {
  const Dataset data = digits(6, 200);
  TrainChoice choice;
  choice.epochs = 1;
  const Model model = make_architecture("depthwise", 1);
  Trainer trainer(model, data, split(data, {}, 1), image(), choice, 1);
  run_all(trainer);
  const Model trained = trainer.current();
  size_t norms = 0, moved = 0;
  for (const Node& node : trained.graph->nodes) {
    if (node.op != "BatchNormalization") continue;
    ++norms;
    CHECK(int_attribute(node, "training_mode", 0) == 0);
    for (const Initializer& initializer : trained.graph->initializers) {
      if (initializer.name != node.inputs[3] && initializer.name != node.inputs[4]) continue;
      moved += values_of(trained.params[initializer.param].value) != values_of(model.params[initializer.param].value);
    }
  }
  CHECK(norms > 2);
  CHECK(moved == 2 * norms);
}

TEST_CASE("the trained model says how its input is prepared") {
  const Dataset data = digits(6, 100);
  TrainChoice choice;
  choice.epochs = 1;
  Trainer trainer(make_architecture("lenet-300-100", 1), data, split(data, {}, 1), image(), choice, 1);
  const Model model = trainer.best();
  const Rope file = write_model(model, plan_write(model, Format::Onnx));
  const Model read = read_model(file.bytes(), "again.onnx");
  const Preparation said = guess_preparation(read, data, {}, Context());
  CHECK(said.scale == image().scale);
  CHECK(said.mean == image().mean);
  CHECK(said.std == image().std);
  CHECK(said.shape == image().shape);
  CHECK(holds(said.reason, "metadata"));
}

TEST_CASE("what does not fit is refused before a step is taken") {
  const Dataset data = blobs(100, 1);
  const Split parts = split(data, {}, 1);
  TrainChoice choice;
  const auto error = [&](const Model& model, const Dataset& given, const Split& split_given, const TrainChoice& chosen,
                         const Preparation& prepared) {
    return error_of([&] {
      Trainer trainer(model, given, split_given, prepared, chosen, 1);
      trainer.step(Context());
    });
  };
  CHECK(holds(error(small_net(), data, {}, choice, features(4)).message, "no sample"));
  CHECK(error(small_net(), data, parts, choice, features(5)).code == ErrorCode::BadData);
  choice.loss = Loss::MeanSquared;
  CHECK(holds(error(small_net(), data, parts, choice, features(4)).message, "targets"));
  choice.loss = Loss::CrossEntropy;
  const Dataset lines = linear_data(1, 100, 4);
  CHECK(holds(error(small_net(), lines, split(lines, {}, 1), choice, features(4)).message, "labels"));
  Dataset many = data;
  many.classes = 3;
  many.labels[parts.training[0]] = 2;
  CHECK(holds(error(small_net(), many, parts, choice, features(4)).message, "3 classes"));
  choice.learning_rate = -1;
  const Error rate = error(small_net(), data, parts, choice, features(4));
  CHECK(rate.code == ErrorCode::BadRecipe);
  CHECK(rate.where == "learning_rate");
}

}  // namespace
}  // namespace nibble
