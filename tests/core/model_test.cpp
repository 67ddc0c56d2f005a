// Which tensors are weights, and which of their axes is that of the output channels.
#include "core/model/model.hpp"

#include <doctest/doctest.h>

#include "tests/core/support.hpp"

namespace nibble {
namespace {

using namespace test;

/// A model of these nodes and initializers; opset 13 unless said.
Model model_of(const Texts& nodes, const Texts& initializers, int64_t opset = 13) {
  OnnxFile file;
  file.opset = opset;
  file.graph.nodes = nodes;
  file.graph.initializers = initializers;
  file.graph.inputs = {value("x", kFloat, {-1, 16})};
  file.more_opsets = {{"com.microsoft", 1}, {"other", 1}};
  return file.read();
}

struct Found {
  std::string name;
  WeightKind kind;
  std::optional<size_t> axis;
  bool operator==(const Found&) const = default;
};

std::vector<Found> found_in(const Model& model) {
  std::vector<Found> all;
  for (const Weight& weight : *model.weights)
    all.push_back({model.params[weight.param].name, weight.kind, weight.channel_axis});
  return all;
}

std::ostream& operator<<(std::ostream& out, const Found& found) {
  return out << found.name << " " << to_string(found.kind) << " "
             << (found.axis ? std::to_string(*found.axis) : "none");
}

void check_found(const Model& model, const std::vector<Found>& expected) {
  const std::vector<Found> found = found_in(model);
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) CHECK(found[i] == expected[i]);
}

constexpr auto kNone = std::nullopt;

// The operators' schemas (onnx/docs/Operators.md): Conv W is [M, C/group, ...], ConvTranspose W is [C, M/group, ...].
TEST_CASE("a convolution's filter has its output channels first, a transposed one's second") {
  check_found(model_of({node("Conv", {"x", "W", "b"}, {"a"}), node("ConvTranspose", {"a", "V"}, {"y"}, {}, "up")},
                       {random_tensor("W", {8, 3, 3, 3}), random_tensor("b", {8}), random_tensor("V", {8, 4, 2, 2})}),
              {{"W", WeightKind::Conv, 0}, {"V", WeightKind::ConvTranspose, 1}});
  check_found(
      model_of({node("FusedConv", {"x", "W"}, {"y"}, {}, "", "com.microsoft")}, {random_tensor("W", {8, 3, 3})}),
      {{"W", WeightKind::Conv, 0}});
}

TEST_CASE("Gemm's channels follow transA and transB, and its bias is no weight") {
  const auto gemm = [](const Texts& inputs, const Texts& attributes) {
    return model_of({node("Gemm", inputs, {"y"}, attributes)}, {random_tensor("W", {4, 6}), random_tensor("b", {6})});
  };
  check_found(gemm({"x", "W", "b"}, {}), {{"W", WeightKind::Dense, 1}});
  check_found(gemm({"x", "W", "b"}, {attribute("transB", int64_t{1})}), {{"W", WeightKind::Dense, 0}});
  check_found(gemm({"x", "W", "b"}, {attribute("transB", int64_t{0})}), {{"W", WeightKind::Dense, 1}});
  check_found(gemm({"W", "x", "b"}, {}), {{"W", WeightKind::Dense, 0}});
  check_found(gemm({"W", "x", "b"}, {attribute("transA", int64_t{1})}), {{"W", WeightKind::Dense, 1}});
}

TEST_CASE("MatMul's channels are the columns of a right operand and the rows of a left one, in stacks too") {
  check_found(model_of({node("MatMul", {"x", "W"}, {"y"})}, {random_tensor("W", {4, 6})}),
              {{"W", WeightKind::Dense, 1}});
  check_found(model_of({node("MatMul", {"W", "x"}, {"y"})}, {random_tensor("W", {4, 6})}),
              {{"W", WeightKind::Dense, 0}});
  check_found(model_of({node("MatMul", {"x", "W"}, {"y"})}, {random_tensor("W", {2, 4, 6})}),
              {{"W", WeightKind::Dense, 2}});
  check_found(model_of({node("MatMul", {"W", "x"}, {"y"})}, {random_tensor("W", {2, 4, 6})}),
              {{"W", WeightKind::Dense, 1}});
}

TEST_CASE("Gather's table has one channel for each entry that is looked up") {
  check_found(model_of({node("Gather", {"T", "x"}, {"y"})}, {random_tensor("T", {10, 4})}),
              {{"T", WeightKind::Embedding, 0}});
  check_found(
      model_of({node("Gather", {"T", "x"}, {"y"}, {attribute("axis", int64_t{1})})}, {random_tensor("T", {10, 4})}),
      {{"T", WeightKind::Embedding, 1}});
  check_found(
      model_of({node("Gather", {"T", "x"}, {"y"}, {attribute("axis", int64_t{-1})})}, {random_tensor("T", {10, 4, 3})}),
      {{"T", WeightKind::Embedding, 2}});
  // A list of numbers that is looked into is no table.
  check_found(model_of({node("Gather", {"T", "x"}, {"y"})}, {random_tensor("T", {10})}), {});
}

// LSTM, GRU, RNN: W [directions, gates * hidden, input], R [directions, gates * hidden, hidden], B has no matrix.
TEST_CASE("recurrent layers have two matrices whose gates are the channels") {
  for (const char* op : {"LSTM", "GRU", "RNN"}) {
    CAPTURE(op);
    check_found(model_of({node(op, {"x", "W", "R", "B"}, {"y"}, {}, "layer")},
                         {random_tensor("R", {1, 16, 4}), random_tensor("W", {1, 16, 3}), random_tensor("B", {1, 32})}),
                {{"W", WeightKind::Recurrent, 1}, {"R", WeightKind::Recurrent, 1}});
  }
}

TEST_CASE("the fusions of com.microsoft are known by their domain") {
  const Texts tensors = {random_tensor("W", {4, 6}), random_tensor("A", {5, 4}), random_tensor("B", {3, 4}),
                         random_tensor("C", {2, 4})};
  check_found(model_of({node("FusedMatMul", {"x", "W"}, {"y"}, {}, "", "com.microsoft")}, tensors),
              {{"W", WeightKind::Dense, 1}});
  check_found(model_of({node("FusedMatMul", {"x", "W"}, {"y"}, {attribute("transB", int64_t{1})}, "", "com.microsoft")},
                       tensors),
              {{"W", WeightKind::Dense, 0}});
  check_found(
      model_of({node("FusedGemm", {"x", "W"}, {"y"}, {attribute("transB", int64_t{1})}, "", "com.microsoft")}, tensors),
      {{"W", WeightKind::Dense, 0}});
  check_found(model_of({node("Attention", {"x", "W"}, {"y"}, {}, "", "com.microsoft")}, tensors),
              {{"W", WeightKind::Dense, 1}});
  check_found(
      model_of({node("EmbedLayerNormalization", {"i", "s", "A", "B", "C"}, {"y"}, {}, "", "com.microsoft")}, tensors),
      {{"A", WeightKind::Embedding, 0}, {"B", WeightKind::Embedding, 0}, {"C", WeightKind::Embedding, 0}});
  check_found(model_of({node("FusedMatMul", {"x", "W"}, {"y"})}, tensors), {});
  check_found(model_of({node("MatMul", {"x", "W"}, {"y"}, {}, "", "other")}, tensors), {});
  check_found(model_of({node("MatMul", {"x", "W"}, {"y"}, {}, "", "ai.onnx")}, tensors), {{"W", WeightKind::Dense, 1}});
}

TEST_CASE("only real types are weights") {
  const std::string four = "\x01\x02\x03\x04";
  check_found(model_of({node("MatMul", {"x", "I"}, {"a"}), node("MatMul", {"a", "H"}, {"b"}),
                        node("MatMul", {"b", "D"}, {"y"})},
                       {tensor("I", kInt8, {2, 2}, four), tensor("H", kBfloat16, {2, 1}, four),
                        tensor("D", kDouble, {1, 2}, std::string(16, '\0'))}),
              {{"H", WeightKind::Dense, 1}, {"D", WeightKind::Dense, 1}});
}

TEST_CASE("what nothing uses as a weight is none: added, multiplied, normalised with, or a graph's input") {
  check_found(
      model_of({node("Add", {"x", "W"}, {"a"}), node("Mul", {"a", "W"}, {"b"}), node("MatMul", {"b", "x"}, {"y"}),
                node("Conv", {"y"}, {"z"}), node("Conv", {"y", ""}, {"w"}), node("Gemm", {}, {"v"})},
               {random_tensor("W", {4, 6})}),
      {});
}

TEST_CASE("a Transpose between tensor and node moves the channel axis back to the stored tensor") {
  check_found(
      model_of({node("Transpose", {"W"}, {"t"}), node("MatMul", {"x", "t"}, {"y"})}, {random_tensor("W", {6, 4})}),
      {{"W", WeightKind::Dense, 0}});
  // perm says which of the input's axes each output axis is: the last output axis is axis 0 here.
  check_found(model_of({node("Transpose", {"W"}, {"t"}, {attribute("perm", std::vector<int64_t>{1, 2, 0})}),
                        node("MatMul", {"x", "t"}, {"y"})},
                       {random_tensor("W", {2, 4, 6})}),
              {{"W", WeightKind::Dense, 0}});
  check_found(model_of({node("Transpose", {"W"}, {"t"}, {attribute("perm", std::vector<int64_t>{2, 0, 1})}),
                        node("Transpose", {"t"}, {"u"}, {attribute("perm", std::vector<int64_t>{2, 0, 1})}),
                        node("MatMul", {"x", "u"}, {"y"})},
                       {random_tensor("W", {2, 4, 6})}),
              {{"W", WeightKind::Dense, 0}});
}

TEST_CASE("Identity and Cast lead to the stored tensor") {
  check_found(model_of({node("Identity", {"W"}, {"i"}), node("Cast", {"i"}, {"c"}, {attribute("to", int64_t{kFloat})}),
                        node("MatMul", {"x", "c"}, {"y"})},
                       {tensor("W", kFloat16, {2, 2}, std::string(8, '\0'))}),
              {{"W", WeightKind::Dense, 1}});
}

TEST_CASE("a Reshape keeps the channel axis where the same extent stands behind the same number of elements") {
  const auto reshaped = [](const Dims& stored, const std::vector<int64_t>& shape) {
    return found_in(model_of({node("Reshape", {"W", "shape"}, {"r"}), node("MatMul", {"x", "r"}, {"y"})},
                             {random_tensor("W", stored), int64_tensor("shape", shape)}));
  };
  using Result = std::vector<Found>;
  CHECK(reshaped({2, 3, 6}, {6, 6}) == Result{{"W", WeightKind::Dense, 2}});
  CHECK(reshaped({2, 3, 6}, {-1, 6}) == Result{{"W", WeightKind::Dense, 2}});
  CHECK(reshaped({6, 6}, {2, 3, 6}) == Result{{"W", WeightKind::Dense, 1}});
  CHECK(reshaped({6, 4}, {0, -1}) == Result{{"W", WeightKind::Dense, 1}});
  CHECK(reshaped({6, 2, 2}, {6, 4}) == Result{{"W", WeightKind::Dense, kNone}});  // the columns are two axes
  CHECK(reshaped({4, 6}, {6, 4}) == Result{{"W", WeightKind::Dense, kNone}});     // the same numbers, other columns
  CHECK(reshaped({4, 6}, {5, 5}).empty());                                        // impossible: not traced
  CHECK(reshaped({4, 6}, {-1, -1}).empty());
  CHECK(reshaped({4, 6}, {0, 0, 0}).empty());
  CHECK(reshaped({4, 6}, {-2, 6}).empty());
}

TEST_CASE("a reshape that hides the channels is told") {
  const Model model =
      model_of({node("Reshape", {"W", "shape"}, {"r"}), node("MatMul", {"x", "r"}, {"y"}, {}, "product")},
               {random_tensor("W", {4, 6}), int64_tensor("shape", {6, 4})});
  CHECK(holds(weight(model, "W")->note, "product"));
  CHECK(holds(weight(model, "W")->note, "reshape"));
}

TEST_CASE("Squeeze, Unsqueeze and Flatten are followed, their axes given as attribute or as input") {
  for (const bool as_attribute : {true, false}) {
    const Texts axes = as_attribute ? Texts{attribute("axes", std::vector<int64_t>{0})} : Texts{};
    const auto with = [&](const char* op) {
      return as_attribute ? node(op, {"W"}, {"r"}, axes) : node(op, {"W", "zero"}, {"r"});
    };
    check_found(model_of({with("Squeeze"), node("MatMul", {"x", "r"}, {"y"})},
                         {random_tensor("W", {1, 4, 6}), int64_tensor("zero", {0})}, as_attribute ? 11 : 13),
                {{"W", WeightKind::Dense, 2}});
    check_found(model_of({with("Unsqueeze"), node("MatMul", {"x", "r"}, {"y"})},
                         {random_tensor("W", {4, 6}), int64_tensor("zero", {0})}, as_attribute ? 11 : 13),
                {{"W", WeightKind::Dense, 1}});
  }
  // Without axes Squeeze takes away every 1.
  check_found(
      model_of({node("Squeeze", {"W"}, {"r"}), node("MatMul", {"r", "x"}, {"y"})}, {random_tensor("W", {1, 4, 1, 6})}),
      {{"W", WeightKind::Dense, 1}});
  check_found(model_of({node("Unsqueeze", {"W"}, {"r"}, {attribute("axes", std::vector<int64_t>{-1})}),
                        node("Conv", {"x", "r"}, {"y"})},
                       {random_tensor("W", {8, 3, 5})}, 11),
              {{"W", WeightKind::Conv, 0}});
  check_found(
      model_of({node("Flatten", {"W"}, {"r"}), node("Gemm", {"x", "r"}, {"y"}, {attribute("transB", int64_t{1})})},
               {random_tensor("W", {6, 2, 2})}),
      {{"W", WeightKind::Dense, 0}});
  check_found(
      model_of({node("Flatten", {"W"}, {"r"}, {attribute("axis", int64_t{-1})}), node("Gemm", {"x", "r"}, {"y"})},
               {random_tensor("W", {3, 2, 5})}),
      {{"W", WeightKind::Dense, 2}});
  // Axes that do not exist lead nowhere.
  check_found(model_of({node("Unsqueeze", {"W"}, {"r"}, {attribute("axes", std::vector<int64_t>{9})}),
                        node("MatMul", {"x", "r"}, {"y"})},
                       {random_tensor("W", {4, 6})}, 11),
              {});
}

TEST_CASE("a chain of rearrangements is followed to its end, and a ring of them ends") {
  Texts nodes;
  for (int i = 0; i < 8; ++i)
    nodes.push_back(node("Transpose", {i ? "t" + std::to_string(i) : "W"}, {"t" + std::to_string(i + 1)}));
  nodes.push_back(node("MatMul", {"x", "t8"}, {"y"}));
  check_found(model_of(nodes, {random_tensor("W", {4, 6})}), {{"W", WeightKind::Dense, 1}});
  check_found(
      model_of({node("Identity", {"b"}, {"a"}), node("Identity", {"a"}, {"b"}), node("MatMul", {"x", "a"}, {"y"}),
                node("Transpose", {"s"}, {"s"}), node("MatMul", {"x", "s"}, {"z"})},
               {random_tensor("W", {4, 6})}),
      {});
}

TEST_CASE("what is computed is no weight, even from stored tensors") {
  check_found(model_of({node("Add", {"W", "V"}, {"s"}), node("MatMul", {"x", "s"}, {"y"}),
                        node("Identity", {"W"}, {"i"}, {}, "", "other"), node("MatMul", {"x", "i"}, {"z"})},
                       {random_tensor("W", {4, 6}), random_tensor("V", {4, 6})}),
              {});
}

TEST_CASE("tensors in Constant nodes are weights under the name of the node's output") {
  const Model model =
      model_of({node("Constant", {}, {"c"}, {tensor_attribute("value", random_tensor("anything", {4, 6}))}),
                node("Transpose", {"c"}, {"t"}), node("MatMul", {"x", "t"}, {"y"})},
               {});
  check_found(model, {{"c", WeightKind::Dense, 0}});
}

TEST_CASE("a shared weight is listed once, by its first use, and conflicting axes are told") {
  const Model same =
      model_of({node("MatMul", {"x", "W"}, {"a"}, {}, "one"), node("MatMul", {"a", "W"}, {"y"}, {}, "two")},
               {random_tensor("W", {6, 6})});
  check_found(same, {{"W", WeightKind::Dense, 1}});
  CHECK(weight(same, "W")->note.empty());
  CHECK(weight(same, "W")->node == "one");
  CHECK(weight(same, "W")->op == "MatMul");
  // An embedding tied to the output layer: rows for the table, and rows again behind the Transpose.
  const Model tied =
      model_of({node("Gather", {"T", "x"}, {"e"}), node("Transpose", {"T"}, {"t"}), node("MatMul", {"e", "t"}, {"y"})},
               {random_tensor("T", {10, 4})});
  check_found(tied, {{"T", WeightKind::Embedding, 0}});
  CHECK(weight(tied, "T")->note.empty());
  const Model torn = model_of({node("MatMul", {"x", "W"}, {"a"}, {}, "one"),
                               node("Gemm", {"a", "W"}, {"y"}, {attribute("transB", int64_t{1})}, "two")},
                              {random_tensor("W", {6, 6})});
  check_found(torn, {{"W", WeightKind::Dense, 1}});
  CHECK(holds(weight(torn, "W")->note, "one"));
  CHECK(holds(weight(torn, "W")->note, "two"));
}

TEST_CASE("a node without a name is called by its operator and first output") {
  const Model model = model_of({node("MatMul", {"x", "W"}, {"product"})}, {random_tensor("W", {4, 6})});
  CHECK(weight(model, "W")->node == "MatMul:product");
}

TEST_CASE("weights are found in subgraphs, of their own and of the graphs around them, and inner names win") {
  GraphFile then_branch, else_branch;
  then_branch.initializers = {random_tensor("W", {4, 6}), random_tensor("inner", {6, 6})};
  then_branch.nodes = {node("MatMul", {"x", "W"}, {"a"}, {}, "mine"), node("MatMul", {"a", "inner"}, {"t"})};
  else_branch.nodes = {node("Transpose", {"outer"}, {"ot"}), node("MatMul", {"x", "ot"}, {"e"})};
  const Model model = model_of({node("If", {"cond"}, {"y"},
                                     {graph_attribute("then_branch", then_branch.encode()),
                                      graph_attribute("else_branch", else_branch.encode())},
                                     "choose")},
                               {random_tensor("outer", {6, 4}), random_tensor("W", {9, 9})});
  const auto found = found_in(model);
  REQUIRE(found.size() == 3);
  CHECK(model.params[(*model.weights)[0].param].value.shape() == Shape{4, 6});
  CHECK(found[0].axis == size_t{1});
  CHECK(found[1].name == "inner");
  CHECK(found[2] == Found{"outer", WeightKind::Dense, 0});
  size_t graphs = 0;
  for_each_graph(*model.graph, [&](const Graph&) { ++graphs; });
  CHECK(graphs == 3);
}

TEST_CASE("attributes are read by name and type") {
  const Model model = model_of(
      {node("Conv", {"x", "W"}, {"y"},
            {attribute("group", int64_t{3}), attribute("pads", std::vector<int64_t>{1, 2}), float_attribute("f", 0.5f),
             text_attribute("auto_pad", "VALID"), floats_attribute("fs", {1, 2})})},
      {random_tensor("W", {3, 1, 2, 2})});
  const Node& conv = model.graph->nodes[0];
  CHECK(int_attribute(conv, "group", 1) == 3);
  CHECK(int_attribute(conv, "absent", 7) == 7);
  CHECK(int_attribute(conv, "pads", 7) == 7);
  CHECK(find_attribute(conv, "absent") == nullptr);
  CHECK(std::get<std::vector<int64_t>>(find_attribute(conv, "pads")->value) == std::vector<int64_t>{1, 2});
  CHECK(std::get<float>(find_attribute(conv, "f")->value) == 0.5f);
  CHECK(std::get<std::string>(find_attribute(conv, "auto_pad")->value) == "VALID");
  CHECK(std::get<std::vector<float>>(find_attribute(conv, "fs")->value) == std::vector<float>{1, 2});
}

TEST_CASE("opset_of is that of ONNX's own domain, by either of its names, and 0 where none is named") {
  CHECK(opset_of(*model_of({}, {}, 17).header) == 17);
  OnnxFile file;
  file.opset = 0;
  file.more_opsets = {{"com.microsoft", 1}, {"ai.onnx", 12}};
  CHECK(opset_of(*file.read().header) == 12);
  file.more_opsets = {{"com.microsoft", 1}};
  CHECK(opset_of(*file.read().header) == 0);
}

TEST_CASE("a safetensors file's matrices are weights with their channels first") {
  const std::string header = R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                             R"("bias":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},)"
                             R"("ids":{"dtype":"I32","shape":[1,2],"data_offsets":[24,32]},)"
                             R"("h":{"dtype":"BF16","shape":[1,2,2],"data_offsets":[32,40]}})";
  const Model model = read_model(safetensors_file(header, std::string(40, '\0')), "m.safetensors");
  check_found(model, {{"a", WeightKind::Tensor, 0}, {"h", WeightKind::Tensor, 0}});
}

TEST_CASE("kinds and formats have the spellings of the TypeScript types") {
  CHECK(to_string(WeightKind::Conv) == "conv");
  CHECK(to_string(WeightKind::ConvTranspose) == "conv-transpose");
  CHECK(to_string(WeightKind::Dense) == "dense");
  CHECK(to_string(WeightKind::Embedding) == "embedding");
  CHECK(to_string(WeightKind::Recurrent) == "recurrent");
  CHECK(to_string(WeightKind::Tensor) == "tensor");
  CHECK(to_string(Format::Onnx) == "onnx");
  CHECK(to_string(Format::Safetensors) == "safetensors");
}

}  // namespace
}  // namespace nibble
