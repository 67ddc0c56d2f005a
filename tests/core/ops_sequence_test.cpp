// The sample architectures, recurrent and attention operators, control flow.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "core/model/architectures.hpp"
#include "core/model/execute.hpp"
#include "tests/core/support.hpp"

using namespace nibble;
using namespace nibble::test;

namespace {

/// Numbers in the initializers, as a framework would count parameters: without the constants of the graph and the
/// running statistics.
size_t parameters(const Model& model) {
  size_t count = 0;
  for (const Initializer& initializer : model.graph->initializers) {
    if (!holds(initializer.name, "running_")) count += model.params[initializer.param].value.elements();
  }
  return count;
}

}  // namespace

TEST_CASE("every architecture has the layers and the number of parameters of its paper") {
  const auto count = [](std::string_view name) { return parameters(make_architecture(name, 1)); };
  CHECK(count("linear") == 6);
  CHECK(count("simplenet") == 260 + 5020 + 16050 + 510);
  CHECK(count("lenet-300-100") == 266610);
  CHECK(count("lenet-5") == 431080);
  // 1 x 16, three stages of two 3 x 3 convolutions, two projections, the head; two numbers per normalised channel.
  CHECK(count("resnet-8") ==
        144 + 2 * 2304 + (4608 + 9216 + 512) + (18432 + 36864 + 2048) + 650 + 2 * (16 + 2 * 16 + 3 * 32 + 3 * 64));
  CHECK(count("lstm") == 4 * 64 * (28 + 64 + 2) + 650);
  CHECK(count("depthwise") > 20000);
  CHECK(count("depthwise") < 60000);
  CHECK(count("transformer") > 20000);
  CHECK(count("transformer") < 60000);
}

TEST_CASE("an architecture written as ONNX is read back the same") {
  for (const Architecture& architecture : architectures()) {
    CAPTURE(std::string(architecture.name));
    const Model made = make_architecture(architecture.name, 7);
    const std::vector<std::byte> file = write_model(made, plan_write(made, Format::Onnx)).bytes();
    const Model read = read_model(std::span<const std::byte>(file), "made.onnx");
    CHECK(read.header->producer == "nibble");
    CHECK(read.header->ir_version == 8);
    CHECK(opset_of(*read.header) == 17);
    REQUIRE(read.graph->nodes.size() == made.graph->nodes.size());
    for (size_t i = 0; i < read.graph->nodes.size(); ++i) {
      CHECK(read.graph->nodes[i].name == made.graph->nodes[i].name);
      CHECK(read.graph->nodes[i].inputs == made.graph->nodes[i].inputs);
      CHECK(read.graph->nodes[i].outputs == made.graph->nodes[i].outputs);
      CHECK(read.graph->nodes[i].attributes.size() == made.graph->nodes[i].attributes.size());
    }
    REQUIRE(read.params.size() == made.params.size());
    for (const Param& mine : made.params) {
      const Param& theirs = param(read, mine.name);
      CHECK(theirs.value.shape() == mine.value.shape());
      CHECK(std::ranges::equal(theirs.value.bytes(), mine.value.bytes()));
    }
    for (const auto& [written, original] :
         {std::pair(&read.graph->inputs, &made.graph->inputs), std::pair(&read.graph->outputs, &made.graph->outputs)}) {
      REQUIRE(written->size() == 1);
      CHECK((*written)[0].name == (*original)[0].name);
      CHECK((*written)[0].dtype == DType::Float32);
      CHECK((*written)[0].shape == (*original)[0].shape);
    }
    // Names of nodes and of values are unique, and every value that a node reads has been made before.
    std::set<std::string> known = {"input"}, names;
    for (const Initializer& initializer : made.graph->initializers) CHECK(known.insert(initializer.name).second);
    for (const Node& node : made.graph->nodes) {
      CHECK(names.insert(node.name).second);
      for (const std::string& input : node.inputs) CHECK(known.contains(input));
      for (const std::string& output : node.outputs) {
        if (!output.empty()) CHECK(known.insert(output).second);
      }
    }
    CHECK(known.contains(made.graph->outputs[0].name));
    REQUIRE(read.weights->size() == made.weights->size());
    for (size_t i = 0; i < made.weights->size(); ++i) {
      CHECK((*read.weights)[i].channel_axis == (*made.weights)[i].channel_axis);
      CHECK((*made.weights)[i].channel_axis.has_value());
      CHECK((*made.weights)[i].note.empty());
    }
  }
}

TEST_CASE("an architecture's weights depend on the seed, and spread as the initial rules say") {
  const Model a = make_architecture("lenet-300-100", 3), b = make_architecture("lenet-300-100", 3),
              c = make_architecture("lenet-300-100", 4);
  const std::span<const float> weights = param(a, "fc1.weight").value.data<float>();
  CHECK(std::ranges::equal(weights, param(b, "fc1.weight").value.data<float>()));
  CHECK_FALSE(std::ranges::equal(weights, param(c, "fc1.weight").value.data<float>()));
  double square = 0;
  for (const float weight : weights) square += double{weight} * weight;
  // He: variance 2 / fan_in; of 235,200 uniform numbers the sample variance is within 1 % (seven deviations).
  CHECK(square / static_cast<double>(weights.size()) == doctest::Approx(2.0 / 784).epsilon(0.01));
}

TEST_CASE("an unknown architecture is refused with the nearest known one") {
  const Error error = error_of([] { make_architecture("resnet8", 0); });
  CHECK(error.code == ErrorCode::BadData);
  CHECK(holds(error.what(), "\"resnet-8\""));
}

namespace {

/// A graph inside a node; its inputs and outputs as (name, type, shape).
struct Port {
  std::string name;
  int32_t type = kFloat;
  Dims dims = {};
};
std::string inner_graph(const std::vector<Port>& inputs, const Texts& nodes, const std::vector<Port>& outputs,
                        const Texts& initializers = {}) {
  GraphFile graph;
  graph.nodes = nodes;
  graph.initializers = initializers;
  for (const auto& [name, type, dims] : inputs) graph.inputs.push_back(value(name, type, dims));
  for (const auto& [name, type, dims] : outputs) graph.outputs.push_back(value(name, type, dims));
  return graph.encode();
}

Tensor reals(const Shape& shape, const std::vector<float>& values) {
  return Tensor::from(DType::Float32, shape, std::span<const float>(values));
}
Tensor whole(int64_t number) { return Tensor::from(DType::Int64, {}, std::span<const int64_t>(&number, 1)); }
Tensor flag(bool set) {
  const uint8_t byte = set;
  return Tensor::from(DType::Bool, {}, std::span<const uint8_t>(&byte, 1));
}
std::vector<float> numbers(const Tensor& tensor) {
  const std::span<const float> values = tensor.data<float>();
  return {values.begin(), values.end()};
}

/// total += step (a value of the graph around) until the total is at least `limit`; gives each total.
OnnxFile summing_loop() {
  OnnxFile file;
  file.graph.nodes = {
      node("Loop", {"count", "goes", "start"}, {"total", "all"},
           {graph_attribute(
               "body", inner_graph({{"i", kInt64}, {"go", kBool}, {"sum", kFloat, {1}}},
                                   {node("Add", {"sum", "step"}, {"next"}), node("Less", {"next", "limit"}, {"less"}),
                                    node("Squeeze", {"less"}, {"on"}), node("Identity", {"next"}, {"seen"})},
                                   {{"on", kBool}, {"next", kFloat, {1}}, {"seen", kFloat, {1}}},
                                   {float_tensor("limit", {1}, {10})}))},
           "loop")};
  file.graph.inputs = {value("count", kInt64, {}), value("goes", kBool, {}), value("start", kFloat, {1}),
                       value("step", kFloat, {1})};
  file.graph.outputs = {value("total", kFloat, {1}), value("all", kFloat, {-1, 1})};
  return file;
}

}  // namespace

TEST_CASE("a loop runs until its count or its condition ends it, and stacks what it sees") {
  const Model model = summing_loop().read();
  const Program program(model);
  const auto run = [&](int64_t count, bool goes, float step) {
    return program.forward({whole(count), flag(goes), reals({1}, {1}), reals({1}, {step})});
  };
  std::vector<Tensor> out = run(3, true, 2);
  CHECK(numbers(out[0]) == std::vector<float>{7});
  CHECK(numbers(out[1]) == std::vector<float>{3, 5, 7});
  CHECK(out[1].shape() == Shape{3, 1});
  out = run(100, true, 4);
  CHECK(numbers(out[1]) == std::vector<float>{5, 9, 13});
  for (const auto& [count, goes] :
       {std::pair(int64_t{0}, true), std::pair(int64_t{-5}, true), std::pair(int64_t{9}, false)}) {
    out = run(count, goes, 2);
    CHECK(numbers(out[0]) == std::vector<float>{1});
    CHECK(out[1].shape() == Shape{0, 1});
  }
}

TEST_CASE("a loop without end is refused instead of run for ever") {
  const Model model = summing_loop().read();
  const Program program(model);
  const Error error = error_of([&] {
    program.forward({whole(INT64_MAX), flag(true), reals({1}, {0}), reals({1}, {0})});
  });
  CHECK(error.code == ErrorCode::Unsupported);
  CHECK(holds(error.where, "loop"));
  CHECK(holds(error.message, "times"));
}

TEST_CASE("If runs the branch that its condition names, with values of the graph around it") {
  OnnxFile file;
  const std::string twice = inner_graph({}, {node("Add", {"x", "x"}, {"a"})}, {{"a", kFloat, {2}}});
  const std::string square = inner_graph({}, {node("Mul", {"x", "x"}, {"b"})}, {{"b", kFloat, {2}}});
  file.graph.nodes = {
      node("If", {"which"}, {"y"}, {graph_attribute("then_branch", twice), graph_attribute("else_branch", square)})};
  file.graph.inputs = {value("which", kBool, {}), value("x", kFloat, {2})};
  file.graph.outputs = {value("y", kFloat, {2})};
  const Model model = file.read();
  const Program program(model);
  CHECK(numbers(program.forward({flag(true), reals({2}, {3, 5})})[0]) == std::vector<float>{6, 10});
  CHECK(numbers(program.forward({flag(false), reals({2}, {3, 5})})[0]) == std::vector<float>{9, 25});
}

TEST_CASE("a scan walks any axis in either direction and stacks along any") {
  OnnxFile file;
  const std::string body = inner_graph({{"sum", kFloat, {2}}, {"next", kFloat, {2}}},
                                       {node("Add", {"sum", "next"}, {"made"}), node("Identity", {"made"}, {"seen"})},
                                       {{"made", kFloat, {2}}, {"seen", kFloat, {2}}});
  file.graph.nodes = {node("Scan", {"start", "x"}, {"end", "sums"},
                           {graph_attribute("body", body), attribute("num_scan_inputs", int64_t{1}),
                            attribute("scan_input_axes", std::vector<int64_t>{-1}),
                            attribute("scan_input_directions", std::vector<int64_t>{1}),
                            attribute("scan_output_axes", std::vector<int64_t>{1}),
                            attribute("scan_output_directions", std::vector<int64_t>{1})})};
  file.graph.inputs = {value("start", kFloat, {2}), value("x", kFloat, {2, 3})};
  file.graph.outputs = {value("end", kFloat, {2}), value("sums", kFloat, {2, 3})};
  const Model model = file.read();
  const Program program(model);
  const std::vector<Tensor> out = program.forward({reals({2}, {0, 100}), reals({2, 3}, {1, 2, 3, 10, 20, 30})});
  CHECK(numbers(out[0]) == std::vector<float>{6, 160});
  CHECK(out[1].shape() == Shape{2, 3});
  CHECK(numbers(out[1]) == std::vector<float>{6, 5, 3, 160, 150, 130});
}

TEST_CASE("every architecture runs, has a gradient for every parameter, and follows it downhill") {
  constexpr size_t kBatch = 8, kClasses = 10;
  for (const Architecture& architecture : architectures()) {
    CAPTURE(std::string(architecture.name));
    const Model model = make_architecture(architecture.name, 5);
    const bool linear = architecture.name == "linear";
    std::vector<size_t> trained;
    for (const Initializer& initializer : model.graph->initializers) {
      if (!holds(initializer.name, "running_")) trained.push_back(initializer.param);
    }
    Program program(model, trained);
    const Shape shape = linear ? Shape{kBatch, 5} : Shape{kBatch, 1, 28, 28};
    const Tensor images = reals(shape, random_floats(elements_of(shape), 11, 0.5f));
    // Cross-entropy with labels 0, 1, ...; for regression half the square of the distance to 1.
    const auto loss = [&](Tape* tape, Tensor* grad) {
      RunOptions options;
      options.training = true;
      options.tape = tape;
      const std::vector<Tensor> outputs = program.forward({images}, options);
      REQUIRE(outputs[0].shape() == Shape{kBatch, linear ? 1 : kClasses});
      std::vector<float> y = numbers(outputs[0]);
      double sum = 0;
      for (size_t i = 0; i < kBatch; ++i) {
        if (linear) {
          y[i] -= 1;
          sum += 0.5 * double{y[i]} * y[i];
          continue;
        }
        float* row = y.data() + i * kClasses;
        double total = 0;
        for (size_t j = 0; j < kClasses; ++j) total += std::exp(double{row[j]});
        sum += std::log(total) - row[i % kClasses];
        for (size_t j = 0; j < kClasses; ++j)
          row[j] = static_cast<float>(std::exp(double{row[j]}) / total) - (j == i % kClasses ? 1.0f : 0.0f);
      }
      if (grad) *grad = reals(outputs[0].shape(), y);
      return sum;
    };
    Tape tape;
    Tensor grad;
    const double before = loss(&tape, &grad);
    CHECK(std::isfinite(before));
    const std::vector<Tensor> grads = program.backward(tape, {&grad, 1});
    double square = 0;
    for (size_t i = 0; i < trained.size(); ++i) {
      CAPTURE(model.params[trained[i]].name);
      double own = 0;
      for (const float g : grads[i].data<float>()) own += double{g} * g;
      CHECK(std::isfinite(own));
      // The softmax does not feel what is added to all keys: that gradient is rounding and nothing else.
      if (!holds(model.params[trained[i]].name, "key.bias")) CHECK(own > 0);
      square += own;
    }
    // A step so short that the loss falls by about a thousandth of itself: the slope along the gradient is its square.
    const double rate = 1e-3 * before / square;
    for (size_t i = 0; i < trained.size(); ++i) {
      Tensor weight = program.value(trained[i]);
      const std::span<float> values = weight.write<float>();
      for (size_t j = 0; j < values.size(); ++j) values[j] -= static_cast<float>(rate * grads[i].data<float>()[j]);
      program.set(trained[i], weight);
    }
    CHECK((before - loss(nullptr, nullptr)) / (1e-3 * before) == doctest::Approx(1).epsilon(0.2));
  }
}
