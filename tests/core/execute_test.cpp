// Running graphs: order, lifetimes, constants, inner graphs, taps, gradients through whole graphs, refusals.
#include "core/model/execute.hpp"

#include <doctest/doctest.h>

#include "ops_support.hpp"

namespace nibble {
namespace {

using namespace test;

/// y = f(x) for a graph of these nodes; initializers as messages.
Model graph_of(const Texts& nodes, const Texts& initializers = {}, const Dims& x = {-1, 4}, int64_t opset = 17,
               const std::string& output = "y") {
  OnnxFile file;
  file.opset = opset;
  file.graph.nodes = nodes;
  file.graph.initializers = initializers;
  file.graph.inputs = {value("x", kFloat, x)};
  file.graph.outputs = {value(output, kFloat, {-1})};
  file.graph.outputs = {[&] {
    std::string out;
    protozero::pbf_writer(out).add_string(1, output.data(), output.size());
    return out;
  }()};
  return file.read();
}

std::vector<Tensor> forward(const Program& program, Tensor x, const RunOptions& options = {}) {
  std::vector<Tensor> inputs;
  inputs.push_back(std::move(x));
  return program.forward(std::move(inputs), options);
}

TEST_CASE("a graph gives what its nodes give one after the other") {
  const Program program(small_mlp().read());
  const Model model = small_mlp().read();
  const Tensor x = random_real({3, 16}, 1);
  const std::span<const float> in = x.data<float>(), w1 = param(model, "W1").value.data<float>(),
                               b1 = param(model, "b1").value.data<float>(), w2 = param(model, "W2").value.data<float>();
  const Tensor y = forward(program, x)[0];
  REQUIRE(y.shape() == Shape{3, 8});
  for (size_t n = 0; n < 3; ++n) {
    for (size_t o = 0; o < 8; ++o) {
      double sum = 0;
      for (size_t h = 0; h < 32; ++h) {
        double hidden = b1[h];
        for (size_t i = 0; i < 16; ++i) hidden += double{in[n * 16 + i]} * w1[h * 16 + i];
        sum += std::max(hidden, 0.0) * w2[h * 8 + o];
      }
      // Two sums of 16 and 32 products, each rounded some 2^-24 of its terms.
      CHECK(y.data<float>()[n * 8 + o] == doctest::Approx(sum).epsilon(1e-5));
    }
  }
}

TEST_CASE("a value whose last use has come is worked on in place, one that others need is not") {
  const Model chain = graph_of({node("Relu", {"x"}, {"a"}), node("Relu", {"a"}, {"b"}), node("Relu", {"b"}, {"y"})});
  std::vector<const float*> places;
  RunOptions options;
  options.tap = [&](const std::string&, const Node&, const Tensor& value) {
    places.push_back(value.data<float>().data());
  };
  forward(Program(chain), random_real({2, 4}, 1), options);
  REQUIRE(places.size() == 3);
  CHECK(places[0] == places[1]);
  CHECK(places[1] == places[2]);

  // x is needed twice, and the caller holds it as well.
  const Model shared = graph_of({node("Neg", {"x"}, {"a"}), node("Add", {"a", "x"}, {"y"})});
  const Tensor x = random_real({2, 4}, 2), before = clone(x);
  const Tensor y = forward(Program(shared), x)[0];
  CHECK(values_of(y) == std::vector<float>(8, 0.0f));
  CHECK(values_of(x) == values_of(before));
}

TEST_CASE("values between may be asked for beside the outputs") {
  const Program program(small_mlp().read());
  RunOptions options;
  options.also = {"r", "h", "x"};
  const std::vector<Tensor> given = forward(program, random_real({2, 16}, 3), options);
  REQUIRE(given.size() == 4);
  CHECK(given[1].shape() == Shape{2, 32});
  for (size_t i = 0; i < given[1].elements(); ++i)
    CHECK(given[1].data<float>()[i] == std::max(given[2].data<float>()[i], 0.0f));
  CHECK(values_of(given[3]) == values_of(random_real({2, 16}, 3)));
  options.also = {"nothing"};
  CHECK(error_of([&] { forward(program, random_real({2, 16}, 3), options); }).where == "nothing");
}

TEST_CASE("what depends on constants alone is computed once, and not where a trained param is in it") {
  const Texts nodes = {node("Transpose", {"W"}, {"Wt"}), node("MatMul", {"x", "Wt"}, {"y"})};
  const Model model = graph_of(nodes, {float_tensor("W", {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8})});
  std::vector<std::string> seen;
  RunOptions options;
  options.tap = [&](const std::string& name, const Node&, const Tensor&) { seen.push_back(name); };
  const Tensor x = floats({1, 4}, {1, 0, 0, 1});
  CHECK(values_of(forward(Program(model), x, options)[0]) == std::vector<float>{5, 13});
  CHECK(seen == std::vector<std::string>{"y"});
  seen.clear();
  const std::vector<size_t> trained = {model.graph->initializers[0].param};
  Program program(model, trained);
  forward(program, x, options);
  CHECK(seen == std::vector<std::string>{"Wt", "y"});
  program.set(trained[0], floats({2, 4}, {0, 0, 0, 1, 1, 0, 0, 0}));
  CHECK(values_of(forward(program, x)[0]) == std::vector<float>{1, 1});
}

TEST_CASE("an operator that Nibble does not have is refused with its node and operator set, the rest stays usable") {
  const Model model = graph_of({node("Frobnicate", {"x"}, {"a"}, {}, "strange"), node("Relu", {"a"}, {"y"})});
  const std::string reason = cannot_run(model);
  CHECK(holds(reason, "Frobnicate"));
  CHECK(holds(reason, "strange"));
  CHECK(holds(reason, "operator set 17"));
  const Error error = error_of([&] { Program program(model); });
  CHECK(error.code == ErrorCode::Unsupported);
  CHECK(error.message == reason);
  CHECK(write_model(model, plan_write(model, Format::Onnx)).size() > 0);
  CHECK(cannot_run(small_cnn().read()).empty());
}

TEST_CASE("inputs that do not fit are refused by name") {
  const Program program(small_cnn().read());
  CHECK(holds(error_of([&] { forward(program, random_real({2, 3, 8}, 1)); }).message, "3x8x8"));
  CHECK(holds(error_of([&] { forward(program, random_real({2, 3, 8, 9}, 1)); }).where, "\"x\""));
  CHECK(error_of([&] { forward(program, integers({1, 2})); }).code == ErrorCode::BadData);
  CHECK(error_of([&] { program.forward({}); }).code == ErrorCode::BadData);
  CHECK(error_of([&] { forward(program, Tensor()); }).code == ErrorCode::BadData);
}

TEST_CASE("a graph whose nodes are not in order runs all the same") {
  const Model model = graph_of({node("Neg", {"a"}, {"y"}), node("Relu", {"x"}, {"a"})});
  CHECK(values_of(forward(Program(model), floats({1, 4}, {1, -1, 2, -2}))[0]) == std::vector<float>{-1, 0, -2, 0});
}

TEST_CASE("a graph that runs in a circle, with a value made twice or one that nothing makes is refused") {
  CHECK(holds(error_of([&] {
                Program p(graph_of({node("Relu", {"a"}, {"y"}), node("Relu", {"y"}, {"a"})}));
              }).message,
              "circle"));
  CHECK(holds(error_of([&] { Program p(graph_of({node("Add", {"x", "b"}, {"y"})})); }).message, "\"b\""));
  CHECK(error_of([&] {
          Program p(graph_of({node("Relu", {"x"}, {"y"}), node("Relu", {"x"}, {"y"})}));
        }).code == ErrorCode::BadFile);
  CHECK(error_of([&] { Program p(graph_of({node("Relu", {"x"}, {"a"})})); }).code == ErrorCode::BadFile);
}

TEST_CASE("a failing node is named") {
  const Model model = graph_of({node("Gemm", {"x", "W"}, {"y"}, {}, "dense")}, {random_tensor("W", {5, 3})});
  const Error error = error_of([&] { forward(Program(model), random_real({2, 4}, 1)); });
  CHECK(error.code == ErrorCode::BadData);
  CHECK(holds(error.where, "dense"));
}

/// A graph for an attribute, with one output.
std::string inner(const Texts& nodes, const std::string& output) {
  GraphFile graph;
  graph.nodes = nodes;
  graph.outputs = {value(output, kFloat, {-1, 4})};
  return graph.encode();
}

TEST_CASE("inner graphs see the values around them, through several layers") {
  // y = sum(x) > 0 ? (sum(x) > 0 ? x + h : x) : h, with h = -x made outside.
  const std::string nested = inner({node("Add", {"x", "h"}, {"deep"})}, "deep");
  const std::string same = inner({node("Identity", {"x"}, {"same"})}, "same");
  const std::string then_branch =
      inner({node("If", {"positive"}, {"then"},
                  {graph_attribute("then_branch", nested), graph_attribute("else_branch", same)})},
            "then");
  const std::string else_branch = inner({node("Identity", {"h"}, {"else"})}, "else");
  const Model model =
      graph_of({node("Neg", {"x"}, {"h"}), node("ReduceSum", {"x"}, {"sum"}, {attribute("keepdims", int64_t{0})}),
                node("Greater", {"sum", "zero"}, {"positive"}),
                node("If", {"positive"}, {"y"},
                     {graph_attribute("then_branch", then_branch), graph_attribute("else_branch", else_branch)})},
               {float_tensor("zero", {}, {0})});
  const Program program(model);
  CHECK(values_of(forward(program, floats({1, 4}, {1, 2, 3, 4}))[0]) == std::vector<float>(4, 0.0f));
  CHECK(values_of(forward(program, floats({1, 4}, {-1, -2, -3, -4}))[0]) == std::vector<float>{1, 2, 3, 4});
}

TEST_CASE("half-precision graphs compute in float32 and keep their type") {
  OnnxFile file;
  file.opset = 17;
  file.graph.nodes = {node("MatMul", {"x", "W"}, {"h"}), node("Sigmoid", {"h"}, {"y"})};
  const std::vector<float> weights = random_floats(12, 5);
  const Tensor half = from_floats(DType::Float16, {4, 3}, weights);
  file.graph.initializers = {tensor("W", kFloat16, {4, 3}, text_of(half.bytes()))};
  file.graph.inputs = {value("x", kFloat16, {-1, 4})};
  file.graph.outputs = {value("y", kFloat16, {-1, 3})};
  const Tensor x = from_floats(DType::Float16, {1, 4}, std::vector<float>{0.5f, -1, 2, 0.25f});
  const Tensor y = forward(Program(file.read()), x)[0];
  REQUIRE(y.dtype() == DType::Float16);
  const FloatView got(y), rounded(half), in(x);
  for (size_t o = 0; o < 3; ++o) {
    double sum = 0;
    for (size_t i = 0; i < 4; ++i) sum += double{in.values()[i]} * rounded.values()[i * 3 + o];
    // Two roundings to 11 bits, of the sum and of the sigmoid.
    CHECK(got.values()[o] == doctest::Approx(1 / (1 + std::exp(-sum))).epsilon(2e-3));
  }
}

TEST_CASE("gradients of a whole graph are those of finite differences, where a value is used twice too") {
  const Texts nodes = {node("Gemm", {"x", "W", "b"}, {"h"}, {attribute("transB", int64_t{1})}),
                       node("Tanh", {"h"}, {"t"}), node("Mul", {"t", "h"}, {"m"}), node("Add", {"m", "t"}, {"s"}),
                       node("MatMul", {"s", "V"}, {"y"})};
  const Model model =
      graph_of(nodes, {random_tensor("W", {6, 4}), random_tensor("b", {6}), random_tensor("V", {6, 2})});
  std::vector<size_t> trained;
  for (const Initializer& initializer : model.graph->initializers) trained.push_back(initializer.param);
  Program program(model, trained);
  const Tensor x = random_real({3, 4}, 7), weight = random_real({3, 2}, 8);
  Tape tape;
  RunOptions options;
  options.training = true;
  options.tape = &tape;
  forward(program, x, options);
  const std::vector<Tensor> grads = program.backward(tape, std::span(&weight, 1));
  const std::string names[] = {"x"};
  const std::vector<Tensor> of_input = program.backward(tape, std::span(&weight, 1), names);
  const auto loss = [&](const Tensor& in) {
    const Tensor y = forward(program, in)[0];
    double sum = 0;
    for (size_t i = 0; i < y.elements(); ++i) sum += double{y.data<float>()[i]} * weight.data<float>()[i];
    return sum;
  };
  constexpr float kStep = 1e-2f;
  for (size_t p = 0; p < trained.size(); ++p) {
    const Tensor before = clone(program.value(trained[p]));
    for (size_t i = 0; i < before.elements(); ++i) {
      const auto at = [&](float shift) {
        Tensor moved = clone(before);
        moved.write<float>()[i] += shift;
        program.set(trained[p], moved);
        return loss(x);
      };
      const double difference = (at(kStep) - at(-kStep)) / (2 * kStep);
      // The second-order error of the difference at this step, and float32 sums divided by it.
      CHECK(grads[p].data<float>()[i] == doctest::Approx(difference).epsilon(5e-3).scale(1));
    }
    program.set(trained[p], before);
  }
  for (size_t i = 0; i < x.elements(); ++i) {
    Tensor up = clone(x), down = clone(x);
    up.write<float>()[i] += kStep;
    down.write<float>()[i] -= kStep;
    CHECK(of_input[0].data<float>()[i] ==
          doctest::Approx((loss(up) - loss(down)) / (2 * kStep)).epsilon(5e-3).scale(1));
  }
}

TEST_CASE("training across an operator without a gradient is refused by its node, beside it is not") {
  const Texts nodes = {node("Mul", {"x", "a"}, {"h"}),
                       node("LRN", {"h"}, {"l"}, {attribute("size", int64_t{3})}, "lrn"),
                       node("Mul", {"l", "b"}, {"y"})};
  const Model model = graph_of(nodes, {float_tensor("a", {1}, {2}), float_tensor("b", {1}, {3})}, {1, 4, 1, 1});
  const auto backward = [&](size_t which) {
    const std::vector<size_t> trained = {model.graph->initializers[which].param};
    Program program(model, trained);
    Tape tape;
    RunOptions options;
    options.tape = &tape;
    const Tensor y = forward(program, random_real({1, 4, 1, 1}, 9), options)[0];
    const Tensor ones = floats({1, 4, 1, 1}, {1, 1, 1, 1});
    return program.backward(tape, std::span(&ones, 1));
  };
  if (ops::find_op("", "LRN")->backward) return;  // it has learnt to
  const Error error = error_of([&] { backward(0); });
  CHECK(error.code == ErrorCode::Unsupported);
  CHECK(holds(error.where, "lrn"));
  CHECK(backward(1)[0].elements() == 1);
}

TEST_CASE("a param that nothing depends on has gradient zero") {
  const Model model = graph_of({node("Mul", {"x", "a"}, {"y"}), node("Mul", {"x", "b"}, {"unused"})},
                               {float_tensor("a", {1}, {2}), float_tensor("b", {1}, {3})});
  const std::vector<size_t> trained = {model.graph->initializers[0].param, model.graph->initializers[1].param};
  Program program(model, trained);
  Tape tape;
  RunOptions options;
  options.tape = &tape;
  forward(program, floats({1, 4}, {1, 2, 3, 4}), options);
  const Tensor ones = floats({1, 4}, {1, 1, 1, 1});
  const std::vector<Tensor> grads = program.backward(tape, std::span(&ones, 1));
  CHECK(values_of(grads[0]) == std::vector<float>{10});
  CHECK(values_of(grads[1]) == std::vector<float>{0});
}

TEST_CASE("a final Softmax can be left out, through what only reshapes, and nothing else can") {
  const auto first_output = [](const Texts& nodes) { return before_softmax(graph_of(nodes)).graph->outputs[0].name; };
  CHECK(first_output({node("Relu", {"x"}, {"h"}), node("Softmax", {"h"}, {"y"})}) == "h");
  CHECK(first_output({node("LogSoftmax", {"x"}, {"h"}), node("Identity", {"h"}, {"y"})}) == "x");
  CHECK(first_output({node("Softmax", {"x"}, {"h"}), node("Relu", {"h"}, {"y"})}) == "y");
  CHECK(first_output({node("Relu", {"x"}, {"y"})}) == "y");
  // A softmax over another axis than a sample's numbers is part of the model.
  const auto over = [](int64_t axis, int64_t opset, const Dims& shape) {
    OnnxFile file;
    file.opset = opset;
    file.graph.nodes = {node("Softmax", {"x"}, {"y"}, {attribute("axis", axis)})};
    file.graph.inputs = {value("x", kFloat, shape)};
    file.graph.outputs = {value("y", kFloat, shape)};
    return before_softmax(file.read()).graph->outputs[0].name;
  };
  CHECK(over(1, 17, {-1, 10}) == "x");
  CHECK(over(-1, 17, {-1, 10, 4}) == "x");
  CHECK(over(1, 17, {-1, 10, 1, 1}) == "x");
  CHECK(over(1, 17, {-1, 10, 4}) == "y");
  CHECK(over(0, 17, {-1, 10}) == "y");
  CHECK(over(1, 11, {-1, 10, 4}) == "x");
}

TEST_CASE("a value that no node uses can be asked for") {
  const Program program(graph_of({node("TopK", {"x", "k"}, {"values", "places"}), node("Relu", {"values"}, {"y"})},
                                 {tensor("k", kInt64, {1}, raw(std::vector<int64_t>{2}))}));
  RunOptions options;
  options.also = {"places"};
  const std::vector<Tensor> outputs = forward(program, floats({1, 4}, {1, 4, 2, 3}), options);
  REQUIRE(outputs.size() == 2);
  CHECK(outputs[1].data<int64_t>()[0] == 1);
  CHECK(outputs[1].data<int64_t>()[1] == 3);
}

TEST_CASE("the table that a fused embedding looks up decides its type, constant or not") {
  OnnxFile file;
  file.opset = 17;
  file.more_opsets = {{"com.microsoft", 1}};
  file.graph.nodes = {node("EmbedLayerNormalization", {"ids", "", "words", "places", "", "gamma", "beta"}, {"e"}, {},
                           "embed", "com.microsoft"),
                      node("MatMul", {"e", "W"}, {"y"})};
  const auto halves = [](const char* name, const Dims& dims) {
    size_t count = 1;
    for (const int64_t extent : dims) count *= static_cast<size_t>(extent);
    return tensor(name, kFloat16, dims, raw(std::vector<uint16_t>(count, 0x3800)));
  };
  file.graph.initializers = {halves("words", {5, 4}), halves("places", {3, 4}), halves("gamma", {4}),
                             halves("beta", {4}), halves("W", {4, 2})};
  file.graph.inputs = {value("ids", kInt32, {1, 3})};
  file.graph.outputs = {value("y", kFloat16, {1, 3, 2})};
  const Program program(file.read());
  const std::vector<int32_t> ids = {1, 2, 3};
  const std::vector<Tensor> outputs = program.forward({Tensor::from<int32_t>(DType::Int32, {1, 3}, ids)});
  CHECK(outputs[0].dtype() == DType::Float16);
}

}  // namespace
}  // namespace nibble
