// The networks are written down layer by layer by a small builder; names are those that PyTorch's exporter would give.
#include "core/model/architectures.hpp"

#include <algorithm>
#include <cmath>

#include "core/base/context.hpp"
#include "core/base/error.hpp"

namespace nibble {

namespace {

constexpr int64_t kOpset = 17, kIrVersion = 8;
constexpr size_t kSide = 28, kClasses = 10;

constexpr Architecture kArchitectures[] = {
    {"linear", "one weighted sum of five numbers: linear regression"},
    {"simplenet", "two small convolutions and two dense layers, 21,840 parameters"},
    {"lenet-300-100", "three dense layers, 266,610 parameters (LeCun et al. 1998)"},
    {"lenet-5", "Caffe's variant of LeNet-5: two convolutions and two dense layers, 431,080 parameters"},
    {"depthwise", "depthwise separable convolutions with batch normalization, as in MobileNet (Howard et al. 2017)"},
    {"resnet-8", "three residual blocks with batch normalization (He et al. 2016, CIFAR style, n = 1)"},
    {"lstm", "reads the image row by row with 64 LSTM cells"},
    {"transformer", "a small vision transformer: patches, two blocks of self-attention and MLP"},
};

/// Builds a graph node by node. Layers take the name of a value and give the name of theirs.
class Builder {
 public:
  explicit Builder(std::string_view name, uint64_t seed) : random_(seed), graph_(std::make_shared<Graph>()) {
    graph_->name = name;
  }

  void input(const std::string& name, std::vector<int64_t> shape) { graph_->inputs.push_back(value(name, shape)); }
  void output(const std::string& name, std::vector<int64_t> shape) { graph_->outputs.push_back(value(name, shape)); }

  /// A node with one output, which is named like the node unless told otherwise.
  std::string node(const std::string& name, const std::string& op, std::vector<std::string> inputs,
                   std::vector<Attribute> attributes = {}, const std::string& output = "") {
    const std::string made = output.empty() ? name : output;
    graph_->nodes.push_back({name, op, "", std::move(inputs), {made}, std::move(attributes), ""});
    return made;
  }
  void add(Node node) { graph_->nodes.push_back(std::move(node)); }

  /// Uniform in [-bound, bound); the stream depends on the seed and the name alone.
  std::string uniform(const std::string& name, Shape shape, float bound) {
    Tensor tensor = Tensor::allocate(DType::Float32, std::move(shape));
    const uint64_t key = random_.random_key(name);
    uint64_t at = 0;
    for (float& drawn : tensor.write<float>()) drawn = (2 * uniform24(key, at++) - 1) * bound;
    return initializer(name, std::move(tensor));
  }
  std::string filled(const std::string& name, Shape shape, float everywhere) {
    Tensor tensor = Tensor::allocate(DType::Float32, std::move(shape));
    std::ranges::fill(tensor.write<float>(), everywhere);
    return initializer(name, std::move(tensor));
  }

  /// Constant nodes, not initializers: numbers that are part of the architecture and must not be trained.
  std::string integers(const std::string& name, std::vector<int64_t> values) {
    return constant(name, Tensor::from(DType::Int64, {values.size()}, std::span<const int64_t>(values)));
  }
  std::string number(const std::string& name, float number) {
    return constant(name, Tensor::from(DType::Float32, {}, std::span<const float>(&number, 1)));
  }

  // He et al. 2015 ("Delving deep into rectifiers", eq. 10) before a rectifier, Glorot and Bengio 2010 (eq. 16)
  // elsewhere, both as uniform distributions of that variance.
  static float he(size_t fan_in) { return std::sqrt(6.0f / static_cast<float>(fan_in)); }
  static float glorot(size_t fan_in, size_t fan_out) { return std::sqrt(6.0f / static_cast<float>(fan_in + fan_out)); }

  struct Conv {
    size_t in, out, kernel;
    int64_t stride = 1, pad = 0;
    size_t groups = 1;
    bool bias = true;
  };
  std::string conv(const std::string& name, const std::string& x, const Conv& conv) {
    const size_t inputs = conv.in / conv.groups;
    std::vector<std::string> operands = {x, uniform(name + ".weight", {conv.out, inputs, conv.kernel, conv.kernel},
                                                    he(inputs * conv.kernel * conv.kernel))};
    if (conv.bias) operands.push_back(filled(name + ".bias", {conv.out}, 0));
    const int64_t kernel = static_cast<int64_t>(conv.kernel);
    return node(name, "Conv", std::move(operands),
                {{"dilations", std::vector<int64_t>{1, 1}, ""},
                 {"group", static_cast<int64_t>(conv.groups), ""},
                 {"kernel_shape", std::vector<int64_t>{kernel, kernel}, ""},
                 {"pads", std::vector<int64_t>(4, conv.pad), ""},
                 {"strides", std::vector<int64_t>{conv.stride, conv.stride}, ""}});
  }
  std::string batch_norm(const std::string& name, const std::string& x, size_t channels) {
    return node(name, "BatchNormalization",
                {x, filled(name + ".weight", {channels}, 1), filled(name + ".bias", {channels}, 0),
                 filled(name + ".running_mean", {channels}, 0), filled(name + ".running_var", {channels}, 1)},
                {{"epsilon", 1e-5f, ""}, {"momentum", 0.9f, ""}});
  }
  std::string relu(const std::string& name, const std::string& x) { return node(name, "Relu", {x}); }
  std::string max_pool(const std::string& name, const std::string& x) {
    return node(name, "MaxPool", {x},
                {{"kernel_shape", std::vector<int64_t>{2, 2}, ""}, {"strides", std::vector<int64_t>{2, 2}, ""}});
  }
  std::string flatten(const std::string& x) { return node("flatten", "Flatten", {x}, {{"axis", int64_t{1}, ""}}); }

  /// x weight^T + bias, the weight as [out, in].
  std::string dense(const std::string& name, const std::string& x, size_t in, size_t out, float bound,
                    const std::string& result = "") {
    return node(name, "Gemm", {x, uniform(name + ".weight", {out, in}, bound), filled(name + ".bias", {out}, 0)},
                {{"alpha", 1.0f, ""}, {"beta", 1.0f, ""}, {"transB", int64_t{1}, ""}}, result);
  }
  /// The layer that gives the classes.
  void head(const std::string& name, const std::string& x, size_t in) {
    dense(name, x, in, kClasses, glorot(in, kClasses), "logits");
  }
  /// The same for every token: Gemm takes matrices only, so the exporters write MatMul, weight [in, out], and Add.
  std::string token_dense(const std::string& name, const std::string& x, size_t in, size_t out) {
    const std::string weight = uniform(name + ".weight", {in, out}, glorot(in, out));
    const std::string product = node(name, "MatMul", {x, weight}, {}, name + "_product");
    return node(name + "_bias", "Add", {product, filled(name + ".bias", {out}, 0)}, {}, name);
  }
  std::string layer_norm(const std::string& name, const std::string& x, size_t width) {
    return node(name, "LayerNormalization",
                {x, filled(name + ".weight", {width}, 1), filled(name + ".bias", {width}, 0)},
                {{"axis", int64_t{-1}, ""}, {"epsilon", 1e-5f, ""}});
  }
  std::string reshape(const std::string& name, const std::string& x, std::vector<int64_t> shape) {
    return node(name, "Reshape", {x, integers(name + "_shape", std::move(shape))});
  }
  std::string transpose(const std::string& name, const std::string& x, std::vector<int64_t> order) {
    return node(name, "Transpose", {x}, {{"perm", std::move(order), ""}});
  }

  Model finish() && {
    auto header = std::make_shared<Header>();
    header->format = Format::Onnx;
    header->name = graph_->name + ".onnx";
    header->producer = "nibble";
    header->ir_version = kIrVersion;
    header->opsets = {{"", kOpset}};
    Model model{std::move(header), graph_, nullptr, std::move(params_), nullptr, {}};
    model.weights = std::make_shared<const std::vector<Weight>>(find_weights(*model.graph, model.params));
    return model;
  }

 private:
  /// A negative extent is the batch's.
  static Value value(const std::string& name, const std::vector<int64_t>& shape) {
    Value made{name, DType::Float32, true, {}, ""};
    for (const int64_t extent : shape) {
      if (extent < 0)
        made.shape.emplace_back(std::string("N"));
      else
        made.shape.emplace_back(extent);
    }
    return made;
  }
  std::string initializer(const std::string& name, Tensor tensor) {
    graph_->initializers.push_back({name, params_.size(), ""});
    params_.push_back({name, std::move(tensor), {}, {}});
    return name;
  }
  std::string constant(const std::string& name, Tensor tensor) {
    const ParamRef held{params_.size(), ""};
    params_.push_back({name, std::move(tensor), {}, {}});
    return node(name, "Constant", {}, {{"value", held, ""}});
  }

  Context random_;
  std::shared_ptr<Graph> graph_;
  std::vector<Param> params_;
};

void image_classifier(Builder& b) {
  b.input("input", {-1, 1, kSide, kSide});
  b.output("logits", {-1, kClasses});
}

void linear(Builder& b) {
  constexpr size_t kInputs = 5;
  b.input("input", {-1, kInputs});
  b.output("output", {-1, 1});
  b.dense("fc1", "input", kInputs, 1, Builder::glorot(kInputs, 1), "output");
}

void simplenet(Builder& b) {
  image_classifier(b);
  std::string x = b.conv("conv1", "input", {.in = 1, .out = 10, .kernel = 5});
  x = b.relu("relu1", b.max_pool("pool1", x));
  x = b.conv("conv2", x, {.in = 10, .out = 20, .kernel = 5});
  x = b.relu("relu2", b.max_pool("pool2", x));
  x = b.relu("relu3", b.dense("fc1", b.flatten(x), 320, 50, Builder::he(320)));
  b.head("fc2", x, 50);
}

void lenet_300_100(Builder& b) {
  image_classifier(b);
  constexpr size_t kPixels = kSide * kSide;
  std::string x = b.relu("relu1", b.dense("fc1", b.flatten("input"), kPixels, 300, Builder::he(kPixels)));
  x = b.relu("relu2", b.dense("fc2", x, 300, 100, Builder::he(300)));
  b.head("fc3", x, 100);
}

// examples/mnist/lenet.prototxt of Caffe: no rectifier after the convolutions.
void lenet_5(Builder& b) {
  image_classifier(b);
  std::string x = b.max_pool("pool1", b.conv("conv1", "input", {.in = 1, .out = 20, .kernel = 5}));
  x = b.max_pool("pool2", b.conv("conv2", x, {.in = 20, .out = 50, .kernel = 5}));
  x = b.relu("relu1", b.dense("fc1", b.flatten(x), 800, 500, Builder::he(800)));
  b.head("fc2", x, 500);
}

void global_head(Builder& b, const std::string& x, size_t channels) {
  b.head("fc", b.flatten(b.node("pool", "GlobalAveragePool", {x})), channels);
}

void depthwise(Builder& b) {
  image_classifier(b);
  size_t channels = 16;
  std::string x =
      b.conv("conv1", "input", {.in = 1, .out = channels, .kernel = 3, .stride = 2, .pad = 1, .bias = false});
  x = b.relu("relu1", b.batch_norm("bn1", x, channels));
  struct Block {
    size_t out;
    int64_t stride;
  };
  // 14 x 14, then 7 x 7.
  constexpr Block kBlocks[] = {{32, 1}, {64, 2}, {64, 1}, {128, 1}, {128, 1}};
  for (size_t i = 0; i < std::size(kBlocks); ++i) {
    const std::string block = "block" + std::to_string(i + 1);
    const auto& [out, stride] = kBlocks[i];
    x = b.conv(
        block + ".depthwise", x,
        {.in = channels, .out = channels, .kernel = 3, .stride = stride, .pad = 1, .groups = channels, .bias = false});
    x = b.relu(block + ".relu1", b.batch_norm(block + ".bn1", x, channels));
    x = b.conv(block + ".pointwise", x, {.in = channels, .out = out, .kernel = 1, .bias = false});
    x = b.relu(block + ".relu2", b.batch_norm(block + ".bn2", x, out));
    channels = out;
  }
  global_head(b, x, channels);
}

// He et al. 2016, section 4.2, with n = 1: 6 n + 2 layers. Where the shape changes the shortcut is a projection (their
// option B).
void resnet_8(Builder& b) {
  image_classifier(b);
  size_t channels = 16;
  std::string x = b.conv("conv1", "input", {.in = 1, .out = channels, .kernel = 3, .pad = 1, .bias = false});
  x = b.relu("relu1", b.batch_norm("bn1", x, channels));
  for (size_t stage = 1; stage <= 3; ++stage) {
    const std::string name = "stage" + std::to_string(stage);
    const size_t out = size_t{8} << stage;
    const int64_t stride = stage == 1 ? 1 : 2;
    std::string y = b.conv(name + ".conv1", x,
                           {.in = channels, .out = out, .kernel = 3, .stride = stride, .pad = 1, .bias = false});
    y = b.relu(name + ".relu1", b.batch_norm(name + ".bn1", y, out));
    y = b.conv(name + ".conv2", y, {.in = out, .out = out, .kernel = 3, .pad = 1, .bias = false});
    y = b.batch_norm(name + ".bn2", y, out);
    if (stride != 1) {
      x = b.conv(name + ".shortcut", x, {.in = channels, .out = out, .kernel = 1, .stride = stride, .bias = false});
      x = b.batch_norm(name + ".shortcut_bn", x, out);
    }
    x = b.relu(name + ".relu2", b.node(name + ".add", "Add", {y, x}));
    channels = out;
  }
  global_head(b, x, channels);
}

void lstm(Builder& b) {
  image_classifier(b);
  constexpr size_t kHidden = 64;
  const std::string rows = b.node("squeeze1", "Squeeze", {"input", b.integers("squeeze1_axes", {1})});
  const std::string steps = b.transpose("transpose1", rows, {1, 0, 2});
  // PyTorch's initial weights: uniform within 1 / sqrt(hidden).
  constexpr float kBound = 0.125f;
  static_assert(kBound * kBound * kHidden == 1);
  const std::string input_weight = b.uniform("lstm.weight_ih", {1, 4 * kHidden, kSide}, kBound);
  const std::string hidden_weight = b.uniform("lstm.weight_hh", {1, 4 * kHidden, kHidden}, kBound);
  const std::string bias = b.uniform("lstm.bias", {1, 8 * kHidden}, kBound);
  b.add({"lstm",
         "LSTM",
         "",
         {steps, input_weight, hidden_weight, bias},
         {"", "lstm_state"},
         {{"hidden_size", int64_t{kHidden}, ""}},
         ""});
  const std::string state = b.node("squeeze2", "Squeeze", {"lstm_state", b.integers("squeeze2_axes", {0})});
  b.head("fc", state, kHidden);
}

void transformer(Builder& b) {
  image_classifier(b);
  constexpr size_t kPatch = 7, kPerSide = kSide / kPatch, kTokens = kPerSide * kPerSide;
  constexpr size_t kWidth = 32, kHeads = 4, kHeadWidth = kWidth / kHeads, kMlp = 4 * kWidth, kBlocks = 2;
  std::string x = b.reshape("patch_rows", "input", {-1, kPerSide, kPatch, kPerSide, kPatch});
  x = b.transpose("patch_order", x, {0, 1, 3, 2, 4});
  x = b.reshape("patches", x, {-1, kTokens, kPatch * kPatch});
  x = b.token_dense("embed", x, kPatch * kPatch, kWidth);
  // Uniform of deviation 0.02, the usual start of learned positions.
  x = b.node("add_positions", "Add", {x, b.uniform("positions", {1, kTokens, kWidth}, 0.02f * std::sqrt(3.0f))});
  const std::string scale = b.number("attention_scale", 1 / std::sqrt(static_cast<float>(kHeadWidth)));
  const std::string root2 = b.number("root_of_two", std::sqrt(2.0f));
  const std::string one = b.number("one", 1), half = b.number("half", 0.5f);
  const std::string heads = b.integers("heads_shape", {-1, kTokens, kHeads, kHeadWidth});
  const std::string tokens = b.integers("tokens_shape", {-1, kTokens, kWidth});
  for (size_t i = 1; i <= kBlocks; ++i) {
    const std::string block = "block" + std::to_string(i) + ".";
    const std::string normal = b.layer_norm(block + "norm1", x, kWidth);
    const auto split = [&](const std::string& name, std::vector<int64_t> order) {
      const std::string all = b.token_dense(block + name, normal, kWidth, kWidth);
      const std::string parts = b.node(block + name + "_split", "Reshape", {all, heads});
      return b.transpose(block + name + "_heads", parts, std::move(order));
    };
    const std::string query = split("query", {0, 2, 1, 3}), key = split("key", {0, 2, 3, 1}),
                      values = split("value", {0, 2, 1, 3});
    std::string y = b.node(block + "scores", "MatMul", {query, key});
    y = b.node(block + "scaled", "Mul", {y, scale});
    y = b.node(block + "attention", "Softmax", {y}, {{"axis", int64_t{-1}, ""}});
    y = b.node(block + "attended", "MatMul", {y, values});
    y = b.node(block + "merged", "Reshape", {b.transpose(block + "merged_order", y, {0, 2, 1, 3}), tokens});
    x = b.node(block + "add1", "Add", {x, b.token_dense(block + "project", y, kWidth, kWidth)});
    y = b.token_dense(block + "mlp1", b.layer_norm(block + "norm2", x, kWidth), kWidth, kMlp);
    // Gelu(y) = y / 2 * (1 + erf(y / sqrt(2))); an operator of its own from operator set 20 on only.
    std::string gate = b.node(block + "gelu_erf", "Erf", {b.node(block + "gelu_div", "Div", {y, root2})});
    gate = b.node(block + "gelu_add", "Add", {gate, one});
    y = b.node(block + "gelu", "Mul", {b.node(block + "gelu_mul", "Mul", {y, gate}), half});
    x = b.node(block + "add2", "Add", {x, b.token_dense(block + "mlp2", y, kMlp, kWidth)});
  }
  x = b.layer_norm("norm", x, kWidth);
  x = b.node("mean", "ReduceMean", {x}, {{"axes", std::vector<int64_t>{1}, ""}, {"keepdims", int64_t{0}, ""}});
  b.head("fc", x, kWidth);
}

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

Model make_architecture(std::string_view name, uint64_t seed) {
  using Build = void (*)(Builder&);
  // In the order of kArchitectures.
  constexpr Build kBuild[] = {linear, simplenet, lenet_300_100, lenet_5, depthwise, resnet_8, lstm, transformer};
  static_assert(std::size(kBuild) == std::size(kArchitectures));
  for (size_t i = 0; i < std::size(kBuild); ++i) {
    if (kArchitectures[i].name != name) continue;
    Builder builder(name, seed);
    kBuild[i](builder);
    return std::move(builder).finish();
  }
  const std::string nearest = nearest_word(
      name, {"linear", "simplenet", "lenet-300-100", "lenet-5", "depthwise", "resnet-8", "lstm", "transformer"});
  std::string message = "\"" + std::string(name.substr(0, 64)) + "\" is not known; ";
  if (!nearest.empty()) {
    message += "did you mean \"" + nearest + "\"?";
  } else {
    message += "known are";
    for (const Architecture& known : kArchitectures) message += " " + std::string(known.name);
  }
  fail(ErrorCode::BadData, "architecture", message);
}

}  // namespace nibble
