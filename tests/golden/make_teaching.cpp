// Writes core/formats/nib_teaching.hpp: the plain header of a .nib of a model that has something of everything, named
// as exporters name things. Built by `npm run build -- native`; run it without arguments and put its output into that
// file. Whoever changes the header's layout or this model changes what old files mean, so the version goes up with it.
#include <cstdio>

#include "core/formats/nib.hpp"

namespace {

using namespace nibble;
using Ints = std::vector<int64_t>;

class Sampler {
 public:
  Sampler() : graph_(std::make_shared<Graph>()) {}

  std::string weight(const std::string& name, Shape shape) {
    size_t elements = 1;
    for (const size_t extent : shape) elements *= extent;
    std::vector<float> values(elements);
    for (size_t i = 0; i < elements; ++i) values[i] = static_cast<float>(i % 15) - 7;
    graph_->initializers.push_back({name, params_.size(), ""});
    params_.push_back({name, Tensor::from<float>(DType::Float32, std::move(shape), values), {}, {}});
    return name;
  }
  std::string integers(const std::string& name, const Ints& values) {
    graph_->initializers.push_back({name, params_.size(), ""});
    params_.push_back({name, Tensor::from<int64_t>(DType::Int64, {values.size()}, values), {}, {}});
    return name;
  }
  /// The value is named after the node, as PyTorch 2 does it.
  std::string node(const std::string& name, const std::string& op, std::vector<std::string> inputs,
                   std::vector<Attribute> attributes = {}, std::string output = "") {
    if (output.empty()) output = name + "_output_0";
    graph_->nodes.push_back({name, op, "", std::move(inputs), {output}, std::move(attributes), ""});
    return output;
  }
  std::string constant(const std::string& name, float number) {
    params_.push_back({name, Tensor::from<float>(DType::Float32, {}, std::span<const float>(&number, 1)), {}, {}});
    return node(name, "Constant", {}, {{"value", ParamRef{params_.size() - 1, ""}, ""}});
  }
  std::string conv(const std::string& path, const std::string& x, const std::string& weight_name, size_t out, size_t in,
                   int64_t kernel, int64_t pad, int64_t stride, bool bias = true) {
    const auto side = static_cast<size_t>(kernel);
    std::vector<std::string> inputs = {x, weight(weight_name + ".weight", {out, in, side, side})};
    if (bias) inputs.push_back(weight(weight_name + ".bias", {out}));
    return node(path, "Conv", inputs,
                {{"dilations", Ints{1, 1}, ""},
                 {"group", int64_t{1}, ""},
                 {"kernel_shape", Ints{kernel, kernel}, ""},
                 {"pads", Ints(4, pad), ""},
                 {"strides", Ints{stride, stride}, ""}});
  }
  std::string batch_norm(const std::string& path, const std::string& x, const std::string& name, size_t channels) {
    return node(path, "BatchNormalization",
                {x, weight(name + ".weight", {channels}), weight(name + ".bias", {channels}),
                 weight(name + ".running_mean", {channels}), weight(name + ".running_var", {channels})},
                {{"epsilon", 1e-5f, ""}, {"momentum", 0.9f, ""}, {"training_mode", int64_t{0}, ""}});
  }
  std::string dense(const std::string& path, const std::string& x, const std::string& name, size_t out, size_t in,
                    const std::string& output = "") {
    return node(path, "Gemm", {x, weight(name + ".weight", {out, in}), weight(name + ".bias", {out})},
                {{"alpha", 1.0f, ""}, {"beta", 1.0f, ""}, {"transB", int64_t{1}, ""}}, output);
  }

  Model finish(const std::string& name, const std::string& producer, int64_t ir_version, int64_t opset) {
    auto header = std::make_shared<Header>();
    header->producer = producer;
    header->ir_version = ir_version;
    header->opsets = {{"", opset}};
    graph_->name = name;
    Model model{std::move(header), graph_, nullptr, std::move(params_), nullptr, {}};
    model.weights = std::make_shared<const std::vector<Weight>>(find_weights(*graph_, model.params));
    return model;
  }
  void value(std::vector<Value>& list, const std::string& name, const std::vector<std::string>& shape) {
    Value made{name, DType::Float32, true, {}, ""};
    for (const std::string& extent : shape) {
      if (extent[0] >= '0' && extent[0] <= '9')
        made.shape.emplace_back(int64_t{std::stoll(extent)});
      else
        made.shape.emplace_back(extent);
    }
    list.push_back(std::move(made));
  }
  void input(const std::string& name, const std::vector<std::string>& shape) { value(graph_->inputs, name, shape); }
  void output(const std::string& name, const std::vector<std::string>& shape) { value(graph_->outputs, name, shape); }

 private:
  std::shared_ptr<Graph> graph_;
  std::vector<Param> params_;
};

/// What is rarer, each once, so that its words are known.
Model assorted() {
  Sampler s;
  std::string x =
      s.node("/embed/Gather", "Gather", {s.weight("embed.weight", {512, 64}), "input_ids"}, {{"axis", int64_t{0}, ""}});
  x = s.node("/norm1/LayerNormalization", "LayerNormalization",
             {x, s.weight("norm1.weight", {64}), s.weight("norm1.bias", {64})},
             {{"axis", int64_t{-1}, ""}, {"epsilon", 1e-5f, ""}});
  x = s.node("/attn/q_proj/MatMul", "MatMul", {x, s.weight("onnx::MatMul_210", {64, 64})});
  x = s.node("/attn/Reshape", "Reshape", {x, s.integers("/attn/Concat_output_0", {0, -1, 2, 4})},
             {{"allowzero", int64_t{0}, ""}});
  x = s.node("/attn/Transpose", "Transpose", {x}, {{"perm", Ints{0, 2, 1, 3}, ""}});
  x = s.node("/attn/Mul", "Mul", {x, s.constant("/attn/Constant", 0.5f)});
  x = s.node("/attn/Softmax", "Softmax", {x}, {{"axis", int64_t{-1}, ""}});
  x = s.node("/lstm/LSTM", "LSTM", {x, s.weight("onnx::LSTM_211", {1, 256, 64})},
             {{"direction", std::string("bidirectional"), ""}, {"hidden_size", int64_t{4}, ""}});
  x = s.node("Shape_12", "Shape", {x}, {}, "34");
  x = s.node("Unsqueeze_14", "Unsqueeze", {x}, {{"axes", Ints{0}, ""}}, "37");
  x = s.node("Concat_15", "Concat", {x, "37"}, {{"axis", int64_t{0}, ""}}, "38");
  x = s.node("Cast_16", "Cast", {x}, {{"to", int64_t{7}, ""}}, "39");
  x = s.node("Slice_17", "Slice", {x, "starts", "ends", "axes", "steps"}, {}, "40");
  x = s.node("ReduceMean_18", "ReduceMean", {x}, {{"axes", Ints{-1}, ""}, {"keepdims", int64_t{1}, ""}}, "41");
  x = s.node("Div_19", "Div", {x, "41"}, {}, "42");
  x = s.node("Clip_22", "Clip", {x}, {{"max", 6.0f, ""}, {"min", 0.0f, ""}}, "45");
  x = s.node("LeakyRelu_23", "LeakyRelu", {x}, {{"alpha", 0.01f, ""}}, "46");
  x = s.node("Sigmoid_24", "Sigmoid", {x}, {}, "47");
  x = s.node("Resize_30", "Resize", {x},
             {{"coordinate_transformation_mode", std::string("asymmetric"), ""}, {"mode", std::string("nearest"), ""}},
             "53");
  x = s.node("Identity_31", "Identity", {x}, {}, "54");
  return s.finish("torch_jit", "pytorch 2.1.0", 8, 14);
}

/// What is in most files.
Model typical() {
  Sampler s;
  s.input("input", {"batch_size", "3", "224", "224"});
  std::string x = s.conv("/conv1/Conv", "input", "conv1", 64, 3, 3, 1, 1);
  x = s.node("/relu/Relu", "Relu", {x});
  x = s.node("/maxpool/MaxPool", "MaxPool", {x},
             {{"ceil_mode", int64_t{0}, ""},
              {"dilations", Ints{1, 1}, ""},
              {"kernel_shape", Ints{2, 2}, ""},
              {"pads", Ints(4, 0), ""},
              {"strides", Ints{2, 2}, ""}});
  for (const std::string layer : {"1", "2"}) {
    const std::string path = "/layer" + layer + "/layer" + layer + ".0", name = "layer" + layer + ".0";
    std::string y = s.conv(path + "/conv1/Conv", x, name + ".conv1", 64, 64, 3, 1, 2, false);
    y = s.batch_norm(path + "/bn1/BatchNormalization", y, name + ".bn1", 64);
    y = s.node(path + "/relu/Relu", "Relu", {y});
    y = s.conv(path + "/conv2/Conv", y, "onnx::Conv_19" + layer, 64, 64, 3, 1, 1);
    y = s.conv(path + "/downsample/downsample.0/Conv", y, name + ".downsample.0", 64, 64, 1, 0, 1);
    x = s.node(path + "/Add", "Add", {y, x});
  }
  x = s.node("/avgpool/GlobalAveragePool", "GlobalAveragePool", {x});
  x = s.node("flatten", "Flatten", {x}, {{"axis", int64_t{1}, ""}}, "flatten");
  x = s.dense("fc1", x, "fc1", 128, 64, "fc1");
  x = s.node("relu1", "Relu", {x}, {}, "relu1");
  x = s.dense("fc2", x, "fc2", 10, 128, "fc2");
  s.node("softmax", "Softmax", {x}, {{"axis", int64_t{1}, ""}}, "output");
  s.output("output", {"batch_size", "10"});
  return s.finish("main_graph", "pytorch", 8, 17);
}

std::vector<uint8_t> header_of(Model model, Granularity granularity, bool with_history) {
  const char* const recipe =
      R"({"version":1,"seed":0,"steps":[)"
      R"({"kind":"prune","sparsity":0.8,"scope":"global","criterion":"magnitude","pattern":"unstructured"},)"
      R"({"kind":"cluster","bits":4,"initial":"linear"},)"
      R"({"kind":"train","epochs":5,"batch":64,"optimizer":"adam","learning_rate":0.001,"weight_decay":0,)"
      R"("schedule":"cosine","warmup":0,"clip_norm":0,"keep_masks":true,"keep_grids":true,"patience":0},)"
      R"({"kind":"quantize","scheme":{"bits":8,"symmetric":true,"granularity":"channel"},"range":"minmax",)"
      R"("rounding":"nearest"},{"kind":"encode","coder":"auto","lambda":0}]})";
  if (with_history) model.history = std::make_shared<const History>(History{{recipe}, 100000, 0.01f});
  for (const Weight& weight : *model.weights) {
    Param& param = model.params[weight.param];
    QuantParams grid{{8, true, granularity, 32}, {}, {}};
    if (granularity == Granularity::Channel) {
      const Rows rows = rows_of(param.value.shape(), weight.channel_axis);
      grid.scale.assign(rows.channels, 1);
    } else {
      grid.scale.assign(1, 1);
    }
    grid.zero_point.assign(grid.scale.size(), 0);
    param.grid = std::move(grid);
  }
  return nib::print_header(nib::parse_header(nib::encode(model).bytes));
}

void print(const std::vector<uint8_t>& bytes) {
  std::string line;
  bool hex = false;  // a digit must not follow a hexadecimal escape
  const auto flush = [&] {
    if (!line.empty()) std::printf("    \"%s\"\n", line.c_str());
    line.clear();
    hex = false;
  };
  for (const uint8_t byte : bytes) {
    const bool digit = (byte >= '0' && byte <= '9') || ((byte | 32) >= 'a' && (byte | 32) <= 'f');
    if (hex && digit) line += "\"\"";
    hex = byte < 32 || byte > 126;
    char text[8];
    if (hex) {
      std::snprintf(text, sizeof(text), "\\x%02x", byte);
    } else if (byte == '"' || byte == '\\' || byte == '?') {
      std::snprintf(text, sizeof(text), "\\%c", byte);
    } else {
      std::snprintf(text, sizeof(text), "%c", byte);
    }
    line += text;
    if (line.size() > 100) flush();
  }
  flush();
}

}  // namespace

int main() {
  const std::vector<uint8_t> first = header_of(assorted(), Granularity::Tensor, false);
  const std::vector<uint8_t> second = header_of(typical(), Granularity::Channel, true);
  std::printf(
      "// What the model of .nib headers is taught before it codes one: written by tests/golden/make_teaching.cpp.\n"
      "#pragma once\n\n#include <string_view>\n\nnamespace nibble::nib {\n\n"
      "// clang-format off\ninline constexpr char kTaught[] =\n");
  print(first);
  print(second);
  std::printf(
      "    ;\n// clang-format on\ninline constexpr std::string_view kTeaching(kTaught, sizeof(kTaught) - 1);\n\n"
      "}  // namespace nibble::nib\n");
}
