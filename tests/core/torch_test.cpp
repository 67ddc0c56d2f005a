// Losses, gradients and optimizer steps against PyTorch's, from golden/torch.hpp.
#include "tests/core/golden/torch.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "core/kernels/compute.hpp"
#include "core/model/execute.hpp"
#include "tests/core/support.hpp"

using namespace nibble;
using namespace nibble::test;

namespace {

// Both sides compute in float32, in orders of their own.
constexpr double kBound = 1e-4;

/// Largest difference, relative to the largest expected magnitude.
double difference(std::span<const float> actual, std::span<const float> expected) {
  REQUIRE(actual.size() == expected.size());
  double worst = 0, largest = 1e-6;
  for (size_t i = 0; i < actual.size(); ++i) {
    worst = std::max(worst, std::fabs(double{actual[i]} - expected[i]));
    largest = std::max(largest, std::fabs(double{expected[i]}));
    if (std::isnan(actual[i])) return INFINITY;
  }
  return worst / largest;
}

Tensor tensor_of(const golden::Array& array) {
  const Shape shape(array.shape.begin(), array.shape.end());
  return Tensor::from(DType::Float32, shape, array.values);
}

using Ints = std::vector<int64_t>;

/// The node list of a golden network.
struct Layers {
  GraphFile graph;
  void add(std::string_view op, const Texts& inputs, const std::string& output, const Texts& attributes = {}) {
    graph.nodes.push_back(node(op, inputs, {output}, attributes, output));
  }
  void conv(const std::string& x, const std::string& name, const std::string& y, bool bias, int64_t pad,
            int64_t stride = 1, int64_t group = 1) {
    Texts inputs = {x, name + ".weight"};
    if (bias) inputs.push_back(name + ".bias");
    add("Conv", inputs, y,
        {attribute("pads", Ints(4, pad)), attribute("strides", Ints(2, stride)), attribute("group", group)});
  }
  void dense(const std::string& x, const std::string& name, const std::string& y) {
    add("Gemm", {x, name + ".weight", name + ".bias"}, y, {attribute("transB", int64_t{1})});
  }
  void tokens(const std::string& x, const std::string& name) {
    add("MatMul", {x, name + ".weight"}, name + "_product");
    add("Add", {name + "_product", name + ".bias"}, name);
  }
  void norm(const std::string& x, const std::string& name) {
    add("LayerNormalization", {x, name + ".weight", name + ".bias"}, name,
        {attribute("axis", int64_t{-1}), float_attribute("epsilon", 1e-5f)});
  }
  void batch_norm(const std::string& x, const std::string& name) {
    add("BatchNormalization", {x, name + ".weight", name + ".bias", name + ".running_mean", name + ".running_var"},
        name);
  }
  void constant(const std::string& name, const std::string& tensor) {
    add("Constant", {}, name, {tensor_attribute("value", tensor)});
  }
  void mean(const std::string& x, const Ints& axes, const std::string& y) {
    add("ReduceMean", {x}, y, {attribute("axes", axes), attribute("keepdims", int64_t{0})});
  }
};

Layers layers_of(const std::string& name) {
  Layers l;
  if (name == "cnn") {
    l.conv("input", "conv1", "c1", true, 1);
    l.add("Relu", {"c1"}, "r1");
    l.add("MaxPool", {"r1"}, "p1", {attribute("kernel_shape", Ints{2, 2}), attribute("strides", Ints{2, 2})});
    l.conv("p1", "conv2", "c2", true, 0, 2);
    l.add("Relu", {"c2"}, "r2");
    l.add("Flatten", {"r2"}, "f");
    l.dense("f", "fc", "logits");
  } else if (name == "mlp") {
    l.dense("input", "fc1", "h1");
    l.add("Tanh", {"h1"}, "t1");
    l.dense("t1", "fc2", "h2");
    l.add("Sigmoid", {"h2"}, "s2");
    l.dense("s2", "fc3", "logits");
  } else if (name == "residual") {
    l.conv("input", "conv1", "c1", true, 1);
    l.add("Relu", {"c1"}, "r1");
    l.conv("r1", "conv2", "c2", true, 1);
    l.conv("input", "shortcut", "s", true, 0);
    l.add("Add", {"s", "c2"}, "a");
    l.add("Relu", {"a"}, "r");
    l.add("GlobalAveragePool", {"r"}, "g");
    l.add("Flatten", {"g"}, "f");
    l.dense("f", "fc", "logits");
  } else if (name == "depthwise") {
    l.conv("input", "conv1", "c1", false, 1, 1, 4);
    l.batch_norm("c1", "bn1");
    l.add("Relu", {"bn1"}, "r1");
    l.conv("r1", "conv2", "c2", false, 0);
    l.batch_norm("c2", "bn2");
    l.add("Relu", {"bn2"}, "r2");
    l.mean("r2", {2, 3}, "g");
    l.dense("g", "fc", "logits");
    for (const auto& [norm, channels] : {std::pair("bn1", 4), std::pair("bn2", 6)}) {
      const size_t count = static_cast<size_t>(channels);
      l.graph.initializers.push_back(
          float_tensor(std::string(norm) + ".running_mean", {channels}, std::vector<float>(count, 0)));
      l.graph.initializers.push_back(
          float_tensor(std::string(norm) + ".running_var", {channels}, std::vector<float>(count, 1)));
    }
  } else if (name == "rnn_lstm" || name == "rnn_gru") {
    Texts attributes = {attribute("hidden_size", int64_t{4}), text_attribute("direction", "bidirectional")};
    if (name == "rnn_gru") attributes.push_back(attribute("linear_before_reset", int64_t{1}));
    l.add(name == "rnn_gru" ? "GRU" : "LSTM", {"input", "rnn.W", "rnn.R", "rnn.B"}, "states", attributes);
    l.add("Transpose", {"states"}, "by_row", {attribute("perm", Ints{0, 2, 1, 3})});
    l.constant("flat", int64_tensor("", {0, 0, 8}));
    l.add("Reshape", {"by_row", "flat"}, "joined");
    l.mean("joined", {0}, "mean");
    l.dense("mean", "fc", "logits");
  } else if (name == "block") {
    l.constant("heads", int64_tensor("", {0, 0, 2, 4}));
    l.constant("whole", int64_tensor("", {0, 0, 8}));
    l.constant("scale", float_tensor("", {}, {0.5f}));
    l.constant("root", float_tensor("", {}, {std::sqrt(2.0f)}));
    l.constant("one", float_tensor("", {}, {1.0f}));
    l.constant("half", float_tensor("", {}, {0.5f}));
    l.norm("input", "norm1");
    for (const std::string part : {"query", "key", "value"}) {
      l.tokens("norm1", part);
      l.add("Reshape", {part, "heads"}, part + "_split");
      const Ints order = part == "key" ? Ints{0, 2, 3, 1} : Ints{0, 2, 1, 3};
      l.add("Transpose", {part + "_split"}, part + "_heads", {attribute("perm", order)});
    }
    l.add("MatMul", {"query_heads", "key_heads"}, "scores");
    l.add("Mul", {"scores", "scale"}, "scaled");
    l.add("Softmax", {"scaled"}, "weights", {attribute("axis", int64_t{-1})});
    l.add("MatMul", {"weights", "value_heads"}, "attended");
    l.add("Transpose", {"attended"}, "merged", {attribute("perm", Ints{0, 2, 1, 3})});
    l.add("Reshape", {"merged", "whole"}, "flat");
    l.tokens("flat", "project");
    l.add("Add", {"input", "project"}, "x1");
    l.norm("x1", "norm2");
    l.tokens("norm2", "mlp1");
    l.add("Div", {"mlp1", "root"}, "gelu1");
    l.add("Erf", {"gelu1"}, "gelu2");
    l.add("Add", {"gelu2", "one"}, "gelu3");
    l.add("Mul", {"mlp1", "gelu3"}, "gelu4");
    l.add("Mul", {"gelu4", "half"}, "gelu");
    l.tokens("gelu", "mlp2");
    l.add("Add", {"x1", "mlp2"}, "x2");
    l.mean("x2", {1}, "mean");
    l.dense("mean", "fc", "logits");
  }
  return l;
}

Model build(const std::string& name, const golden::Array& input, std::span<const golden::Named> params) {
  OnnxFile file;
  file.opset = 17;
  file.graph = layers_of(name).graph;
  for (const golden::Named& param : params) {
    file.graph.initializers.push_back(
        float_tensor(param.name, param.array.shape, {param.array.values.begin(), param.array.values.end()}));
  }
  file.graph.inputs = {value("input", kFloat, input.shape)};
  file.graph.outputs = {value("logits", kFloat, {-1, -1})};
  return file.read();
}

/// Mean cross-entropy of the rows of `logits`, and its gradient, in double.
std::pair<double, Tensor> cross_entropy(const Tensor& logits, std::span<const int> labels) {
  const size_t rows = labels.size(), classes = logits.elements() / rows;
  const std::span<const float> z = logits.data<float>();
  std::vector<float> grad(z.size());
  double loss = 0;
  for (size_t i = 0; i < rows; ++i) {
    double sum = 0;
    for (size_t j = 0; j < classes; ++j) sum += std::exp(double{z[i * classes + j]});
    loss += std::log(sum) - z[i * classes + static_cast<size_t>(labels[i])];
    for (size_t j = 0; j < classes; ++j) {
      const double p = std::exp(double{z[i * classes + j]}) / sum;
      grad[i * classes + j] = static_cast<float>((p - (static_cast<int>(j) == labels[i])) / static_cast<double>(rows));
    }
  }
  return {loss / static_cast<double>(rows), Tensor::from(DType::Float32, logits.shape(), std::span<const float>(grad))};
}

std::vector<size_t> indices(const Model& model, std::span<const golden::Named> params) {
  std::vector<size_t> found;
  for (const golden::Named& wanted : params) {
    for (size_t i = 0; i < model.params.size(); ++i) {
      if (model.params[i].name == wanted.name) found.push_back(i);
    }
  }
  REQUIRE(found.size() == params.size());
  return found;
}

}  // namespace

TEST_CASE("losses and gradients of small networks are PyTorch's") {
  for (const golden::Network& network : golden::kNetworks) {
    CAPTURE(std::string(network.name));
    const Model model = build(network.name, network.input, network.params);
    const std::vector<size_t> trained = indices(model, network.params);
    const Program program(model, trained);
    Tape tape;
    RunOptions options;
    options.training = true;
    options.tape = &tape;
    const std::vector<Tensor> outputs = program.forward({tensor_of(network.input)}, options);
    REQUIRE(outputs.size() == 1);
    CHECK(difference(outputs[0].data<float>(), network.logits.values) < kBound);
    const auto [loss, grad] = cross_entropy(outputs[0], network.labels);
    CHECK(loss == doctest::Approx(network.loss).epsilon(kBound));

    const std::vector<Tensor> grads = program.backward(tape, {&grad, 1});
    REQUIRE(grads.size() == network.grads.size());
    for (size_t i = 0; i < grads.size(); ++i) {
      CAPTURE(std::string(network.grads[i].name));
      CHECK(std::string(network.grads[i].name) == network.params[i].name);
      CHECK(grads[i].shape() == model.params[trained[i]].value.shape());
      // The softmax does not feel what is added to all keys: that gradient is rounding and nothing else.
      if (std::string_view(network.grads[i].name) == "key.bias") {
        for (const float g : grads[i].data<float>()) CHECK(std::fabs(g) < 1e-6f);
        continue;
      }
      CHECK(difference(grads[i].data<float>(), network.grads[i].array.values) < kBound);
    }
    const std::vector<std::string> names = {"input"};
    const std::vector<Tensor> of_input = program.backward(tape, {&grad, 1}, names);
    CHECK(difference(of_input.at(0).data<float>(), network.input_grad.values) < kBound);

    std::map<std::string, Tensor> running;
    for (const auto& [index, tensor] : tape.running) running[model.params[index].name] = tensor;
    for (const golden::Named& expected : network.running) {
      REQUIRE(running.contains(expected.name));
      CHECK(difference(running[expected.name].data<float>(), expected.array.values) < kBound);
    }
  }
}

TEST_CASE("five steps of each optimizer end where PyTorch's do") {
  const auto step_of = [](std::string_view name, int t, std::span<const float> grad, std::span<float> first,
                          std::span<float> second, std::span<float> weight) {
    if (name.starts_with("sgd")) {
      kernels::SgdStep step{.rate = 0.1f};
      if (name != "sgd") step = {.rate = 0.05f, .momentum = 0.9f, .weight_decay = 0.01f};
      step.nesterov = name == "sgd nesterov";
      kernels::sgd_step(step, grad, name == "sgd" ? std::span<float>() : first, weight);
      return;
    }
    kernels::AdamStep step{.rate = 0.01f, .weight_decay = 0.01f};
    step.correction1 = static_cast<float>(1 - std::pow(0.9, t));
    step.correction2 = static_cast<float>(1 - std::pow(0.999, t));
    if (name == "adamw") {
      step.decoupled = true;
      step.weight_decay = 0.05f;
    }
    kernels::adam_step(step, grad, first, second, weight);
  };
  for (const golden::Optimized& run : golden::kOptimized) {
    CAPTURE(std::string(run.name));
    const std::vector<int64_t>& shape = golden::kBatches.shape;
    const golden::Array one = {{shape[1], shape[2]}, {}};
    const size_t size = static_cast<size_t>(shape[1] * shape[2]);
    const Model model = build("mlp", one, golden::kStart);
    const std::vector<size_t> trained = indices(model, golden::kStart);
    Program program(model, trained);
    std::vector<std::vector<float>> first, second;
    for (const size_t index : trained) {
      first.emplace_back(model.params[index].value.elements(), 0.0f);
      second.emplace_back(first.back());
    }
    for (size_t t = 0; t < golden::kBatchLabels.size(); ++t) {
      Tape tape;
      RunOptions options;
      options.training = true;
      options.tape = &tape;
      const Tensor x = tensor_of({one.shape, golden::kBatches.values.subspan(t * size, size)});
      const auto [loss, grad] = cross_entropy(program.forward({x}, options).at(0), golden::kBatchLabels[t]);
      CHECK(loss == doctest::Approx(run.losses[t]).epsilon(kBound));
      const std::vector<Tensor> grads = program.backward(tape, {&grad, 1});
      for (size_t i = 0; i < trained.size(); ++i) {
        Tensor weight = program.value(trained[i]);
        step_of(run.name, static_cast<int>(t) + 1, grads[i].data<float>(), first[i], second[i], weight.write<float>());
        program.set(trained[i], weight);
      }
    }
    for (size_t i = 0; i < trained.size(); ++i) {
      CAPTURE(std::string(run.params[i].name));
      CHECK(difference(program.value(trained[i]).data<float>(), run.params[i].array.values) < kBound);
    }
  }
}
