// Raises a model's operator set. Sources: the operator change log of ONNX (docs/Changelog.md) and the schemas' own
// "since version" histories. An operator is either steady (every version from 7 to 21 gives the same results for the
// same node), or has rules for the versions that changed it, or is unknown, and then the model stays as it is.
#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "core/formats/onnx_fields.hpp"
#include "core/formats/onnx_internal.hpp"

namespace nibble::onnx {

namespace {

// Versions between 7 and 21 only widened the types of these, added attributes whose defaults keep the old meaning, or
// said more exactly what was meant.
const std::unordered_set<std::string_view>& steady_operators() {
  static const std::unordered_set<std::string_view> kSteady = {
      "Abs",
      "Acos",
      "Acosh",
      "Add",
      "And",
      "ArgMax",
      "ArgMin",
      "Asin",
      "Asinh",
      "Atan",
      "Atanh",
      "AveragePool",
      "Bernoulli",
      "BitShift",
      "BitwiseAnd",
      "BitwiseNot",
      "BitwiseOr",
      "BitwiseXor",
      "BlackmanWindow",
      "Cast",
      "CastLike",
      "Ceil",
      "Celu",
      "CenterCropPad",
      "Col2Im",
      "Compress",
      "Concat",
      "ConcatFromSequence",
      "Constant",
      "ConstantOfShape",
      "Conv",
      "ConvInteger",
      "ConvTranspose",
      "Cos",
      "Cosh",
      "CumSum",
      "DepthToSpace",
      "DequantizeLinear",
      "Det",
      "Div",
      "DynamicQuantizeLinear",
      "Einsum",
      "Elu",
      "Equal",
      "Erf",
      "Exp",
      "Expand",
      "EyeLike",
      "Flatten",
      "Floor",
      "GRU",
      "Gather",
      "GatherElements",
      "GatherND",
      "Gelu",
      "Gemm",
      "GlobalAveragePool",
      "GlobalLpPool",
      "GlobalMaxPool",
      "Greater",
      "GreaterOrEqual",
      "HammingWindow",
      "HannWindow",
      "HardSigmoid",
      "HardSwish",
      "Identity",
      "If",
      "InstanceNormalization",
      "IsInf",
      "IsNaN",
      "LRN",
      "LSTM",
      "LayerNormalization",
      "LeakyRelu",
      "Less",
      "LessOrEqual",
      "Log",
      "Loop",
      "LpNormalization",
      "LpPool",
      "MatMul",
      "MatMulInteger",
      "Max",
      "MaxPool",
      "MaxRoiPool",
      "MaxUnpool",
      "Mean",
      "MeanVarianceNormalization",
      "MelWeightMatrix",
      "Min",
      "Mish",
      "Mod",
      "Mul",
      "Multinomial",
      "Neg",
      "NegativeLogLikelihoodLoss",
      "NonMaxSuppression",
      "NonZero",
      "Not",
      "Optional",
      "OptionalGetElement",
      "OptionalHasElement",
      "Or",
      "PRelu",
      "Pow",
      "QLinearConv",
      "QLinearMatMul",
      "QuantizeLinear",
      "RNN",
      "RandomNormal",
      "RandomNormalLike",
      "RandomUniform",
      "RandomUniformLike",
      "Range",
      "Reciprocal",
      "Relu",
      "Reshape",
      "ReverseSequence",
      "Round",
      "STFT",
      "ScatterElements",
      "ScatterND",
      "Selu",
      "SequenceAt",
      "SequenceConstruct",
      "SequenceEmpty",
      "SequenceErase",
      "SequenceInsert",
      "SequenceLength",
      "Shape",
      "Shrink",
      "Sigmoid",
      "Sign",
      "Sin",
      "Sinh",
      "Size",
      "Softplus",
      "Softsign",
      "SpaceToDepth",
      "SplitToSequence",
      "Sqrt",
      "StringNormalizer",
      "Sub",
      "Sum",
      "Tan",
      "Tanh",
      "TfIdfVectorizer",
      "ThresholdedRelu",
      "Tile",
      "Transpose",
      "Trilu",
      "Unique",
      "Where",
      "Xor",
  };
  return kSteady;
}

class Raiser {
 public:
  Raiser(const Model& model, int64_t target) : model_(model), from_(opset_of(*model.header)), target_(target) {
    for (const Param& param : model.params) {
      if (is_real(param.value.dtype()) && param.value.dtype() != DType::Float32) float32_only_ = false;
    }
    for_each_graph(*model.graph, [&](const Graph& graph) {
      for (const Initializer& initializer : graph.initializers) stored_.emplace(initializer.name, initializer.param);
      for (const Node& node : graph.nodes) {
        const Attribute* held = node.op == "Constant" ? find_attribute(node, "value") : nullptr;
        const ParamRef* tensor = held ? std::get_if<ParamRef>(&held->value) : nullptr;
        if (tensor && !node.outputs.empty()) stored_.emplace(node.outputs[0], tensor->param);
        for (const char* key : {"to", "dtype"}) {
          const auto type = dtype_of_code(int_attribute(node, key, 0));
          if (type && is_real(*type) && *type != DType::Float32) float32_only_ = false;
        }
        names_.insert(node.outputs.begin(), node.outputs.end());
        // Among the inputs are sparse initializers, which are not looked into.
        names_.insert(node.inputs.begin(), node.inputs.end());
        used_.insert(node.inputs.begin(), node.inputs.end());
      }
      for (const Value& value : graph.outputs) used_.insert(value.name);
      for (const Initializer& initializer : graph.initializers) names_.insert(initializer.name);
      for (const Value& value : graph.inputs) names_.insert(value.name);
      for (const auto* list : {&graph.inputs, &graph.outputs, &graph.values}) {
        for (const Value& value : *list) {
          if (value.dtype && is_real(*value.dtype) && *value.dtype != DType::Float32) float32_only_ = false;
          if (!value.ranked) continue;
          // Sibling subgraphs may use one name for two values: then nothing is known of either.
          const auto [known, is_new] = ranks_.try_emplace(value.name, value.shape.size());
          if (!is_new && known->second != value.shape.size()) known->second = std::nullopt;
        }
      }
    });
  }

  std::variant<Model, std::string> raise() {
    constexpr int64_t kOldest = 7;  // before 7, broadcasting was another thing
    if (from_ < kOldest) return "operator set " + std::to_string(from_) + " is older than " + std::to_string(kOldest);
    if (model_.header->functions)
      return std::string("the model has functions of its own, written for its present operator set");
    std::shared_ptr<Graph> graph = raised(*model_.graph);
    if (!reason_.empty()) return reason_;
    // Constants of subgraphs are put into the outermost graph too, where all can share them.
    graph->initializers.insert(graph->initializers.end(), added_initializers_.begin(), added_initializers_.end());
    auto header = std::make_shared<Header>(*model_.header);
    for (auto& [domain, version] : header->opsets) {
      if (domain.empty() || domain == "ai.onnx") version = target_;
    }
    Model result = model_;
    result.graph = std::move(graph);
    result.header = std::move(header);
    result.params.insert(result.params.end(), added_params_.begin(), added_params_.end());
    return result;
  }

 private:
  using Ints = std::vector<int64_t>;

  std::shared_ptr<Graph> raised(const Graph& graph) {
    auto result = std::make_shared<Graph>(graph);
    result->nodes.clear();
    for (const Node& node : graph.nodes) {
      Node changed = node;
      for (Attribute& attribute : changed.attributes) {
        if (const auto* inner = std::get_if<std::shared_ptr<const Graph>>(&attribute.value)) {
          attribute.value = std::shared_ptr<const Graph>(raised(**inner));
        }
      }
      before_.clear();
      after_.clear();
      if (changed.domain.empty()) apply_rules(changed);
      if (!reason_.empty()) return result;
      std::move(before_.begin(), before_.end(), std::back_inserter(result->nodes));
      result->nodes.push_back(std::move(changed));
      std::move(after_.begin(), after_.end(), std::back_inserter(result->nodes));
    }
    return result;
  }

  bool crosses(int64_t version) const { return from_ < version && target_ >= version; }

  void refuse(const Node& node, const std::string& why) {
    const std::string label = node.name.empty() && !node.outputs.empty() ? node.outputs[0] : node.name;
    if (reason_.empty()) reason_ = "node " + label + " (" + node.op + ") " + why;
  }

  void apply_rules(Node& node) {
    const std::string op = node.op;
    static constexpr std::array<std::string_view, 9> kReductions = {"ReduceL1",        "ReduceL2",   "ReduceLogSum",
                                                                    "ReduceLogSumExp", "ReduceMax",  "ReduceMean",
                                                                    "ReduceMin",       "ReduceProd", "ReduceSumSquare"};
    if (op == "BatchNormalization") {
      if (crosses(9)) {
        if (int_attribute(node, "spatial", 1) != 1)
          return refuse(node, "normalises each position by itself (spatial = 0), which later versions cannot");
        drop(node, "spatial");
      }
      if (crosses(14) && outputs_used(node) > 1)
        return refuse(node, "gives training statistics, whose form changed in version 14");
    } else if (op == "Dropout") {
      if (crosses(10) && outputs_used(node) > 1) {
        if (used_.count(node.outputs[1])) return refuse(node, "gives its mask, whose type changed in version 10");
        node.outputs.resize(1);
      }
      if (crosses(12)) drop(node, "ratio");  // means nothing in inference
    } else if (op == "Clip") {
      if (crosses(11)) bounds_to_inputs(node);
    } else if (op == "Pad") {
      if (crosses(11)) pads_to_inputs(node);
    } else if (op == "Slice") {
      if (crosses(10)) {
        const std::optional<Ints> axes = take_ints(node, "axes");
        node.inputs.push_back(constant("starts", take_ints(node, "starts").value_or(Ints{})));
        node.inputs.push_back(constant("ends", take_ints(node, "ends").value_or(Ints{})));
        if (axes) node.inputs.push_back(constant("axes", *axes));
      }
    } else if (op == "TopK") {
      if (crosses(10)) {
        node.inputs.push_back(constant("k", Ints{int_attribute(node, "k", 1)}));
        drop(node, "k");
      }
    } else if (op == "Split") {
      if (crosses(13)) ints_to_input(node, "split");
      if (crosses(18) && (node.inputs.size() < 2 || node.inputs[1].empty()))
        node.attributes.push_back({"num_outputs", static_cast<int64_t>(node.outputs.size()), ""});
    } else if (op == "Squeeze" || op == "Unsqueeze" || op == "ReduceSum") {
      if (crosses(13)) ints_to_input(node, "axes");
    } else if (std::find(kReductions.begin(), kReductions.end(), op) != kReductions.end()) {
      if (crosses(18)) ints_to_input(node, "axes");
    } else if (op == "Softmax" || op == "LogSoftmax" || op == "Hardmax") {
      if (crosses(13)) softmax_over_flattened(node);
    } else if (op == "Upsample") {
      if (crosses(10)) upsample_to_resize(node);
    } else if (op == "Resize") {
      if (crosses(11)) {
        if (text_attribute(node, "mode") != "linear" && !never_shrinks(node)) {
          return refuse(node, "may shrink with mode nearest, whose rounding before version 11 has no later name");
        }
        resize_with_explicit_mode(node);
      }
      if (crosses(13) && text_attribute(node, "coordinate_transformation_mode") == "tf_half_pixel_for_nn") {
        return refuse(node, "uses tf_half_pixel_for_nn, which version 13 took away");
      }
    } else if (op == "Scatter") {
      if (crosses(11)) node.op = "ScatterElements";
    } else if (op == "RoiAlign") {
      if (crosses(16) && !find_attribute(node, "coordinate_transformation_mode")) {
        node.attributes.push_back({"coordinate_transformation_mode", std::string("output_half_pixel"), ""});
      }
    } else if (op == "GridSample") {
      if (crosses(20)) {
        for (Attribute& attribute : node.attributes) {
          auto* mode = std::get_if<std::string>(&attribute.value);
          if (mode && *mode == "bilinear") *mode = "linear";
          if (mode && *mode == "bicubic") *mode = "cubic";
        }
      }
    } else if (op == "OneHot") {
      if (crosses(11)) return refuse(node, "may have negative indices, which version 11 gave a meaning");
    } else if (op == "DFT") {
      if (crosses(20)) return refuse(node, "names its axis in the way of before version 20");
    } else if (op == "GroupNormalization") {
      if (crosses(21)) return refuse(node, "takes its scale per group, version 21 takes it per channel");
    } else if (op == "Scan") {
      if (crosses(9)) return refuse(node, "has the form of version 8");
    } else if (!steady_operators().count(op)) {
      refuse(node, "is not an operator whose history is known here");
    }
  }

  static size_t outputs_used(const Node& node) {
    return static_cast<size_t>(
        std::count_if(node.outputs.begin(), node.outputs.end(), [](const std::string& name) { return !name.empty(); }));
  }

  static void drop(Node& node, std::string_view name) {
    std::erase_if(node.attributes, [&](const Attribute& attribute) { return attribute.name == name; });
  }

  static std::string text_attribute(const Node& node, std::string_view name) {
    const Attribute* attribute = find_attribute(node, name);
    const std::string* text = attribute ? std::get_if<std::string>(&attribute->value) : nullptr;
    return text ? *text : "";
  }

  static std::optional<Ints> take_ints(Node& node, std::string_view name) {
    std::optional<Ints> taken;
    if (const Attribute* attribute = find_attribute(node, name)) {
      if (const Ints* list = std::get_if<Ints>(&attribute->value)) taken = *list;
    }
    drop(node, name);
    return taken;
  }

  void ints_to_input(Node& node, std::string_view name) {
    if (const std::optional<Ints> list = take_ints(node, name)) node.inputs.push_back(constant(name, *list));
  }

  std::string unused(const std::string& wanted) {
    std::string name = wanted;
    int& last = last_number_.try_emplace(wanted, 1).first->second;
    while (!names_.insert(name).second) name = wanted + "_" + std::to_string(++last);
    return name;
  }

  /// Whether a Resize's scales are stored, and none is below 1.
  bool never_shrinks(const Node& node) const {
    const auto scales = node.inputs.size() > 1 ? stored_.find(node.inputs[1]) : stored_.end();
    if (scales == stored_.end()) return false;
    const Tensor& tensor = model_.params[scales->second].value;
    if (tensor.dtype() != DType::Float32) return false;
    const auto values = tensor.data<float>();
    return std::all_of(values.begin(), values.end(), [](float scale) { return scale >= 1; });
  }

  /// The name of a stored constant; equal constants are stored once (a BERT has hundreds of axes that are [1]).
  std::string add_constant(std::string_view what, const Tensor& tensor) {
    const auto bytes = tensor.bytes();
    std::string content = to_string(tensor.shape()) + ":" + std::string(to_string(tensor.dtype())) + ":";
    content.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto [known, is_new] = constants_.try_emplace(content);
    if (!is_new) return known->second;
    known->second = unused(std::string(what));
    added_initializers_.push_back({known->second, model_.params.size() + added_params_.size(), ""});
    added_params_.push_back({known->second, tensor, {}, {}});
    return known->second;
  }
  std::string constant(std::string_view what, const Ints& values) {
    return add_constant(what, Tensor::from<int64_t>(DType::Int64, {values.size()}, values));
  }
  std::string constant(std::string_view what, float value) {
    return add_constant(what, Tensor::from<float>(DType::Float32, {}, std::span<const float>(&value, 1)));
  }

  static std::optional<float> take_float(Node& node, std::string_view name) {
    std::optional<float> taken;
    if (const Attribute* attribute = find_attribute(node, name)) {
      if (const float* value = std::get_if<float>(&attribute->value)) taken = *value;
    }
    drop(node, name);
    return taken;
  }

  // The new inputs must have the data's type, which is known without shape inference only in an all-float32 model.
  void bounds_to_inputs(Node& node) {
    const std::optional<float> low = take_float(node, "min"), high = take_float(node, "max");
    if (!low && !high) return;
    if (!float32_only_) return refuse(node, "has bounds whose type is not known");
    node.inputs.push_back(low ? constant("min", *low) : "");
    if (high) node.inputs.push_back(constant("max", *high));
  }

  void pads_to_inputs(Node& node) {
    const std::optional<float> value = take_float(node, "value");
    node.inputs.push_back(constant("pads", take_ints(node, "pads").value_or(Ints{})));
    if (!value || *value == 0) return;
    if (!float32_only_) return refuse(node, "has a padding value whose type is not known");
    node.inputs.push_back(constant("value", *value));
  }

  // Before 13 the operator flattened its input to two dimensions at `axis` (1 where not given) and worked on the
  // second. On the last axis that is the same; elsewhere the flattening is written out, as ONNX's own converter does.
  void softmax_over_flattened(Node& node) {
    const int64_t axis = int_attribute(node, "axis", 1);
    drop(node, "axis");
    node.attributes.push_back({"axis", int64_t{-1}, ""});
    const auto rank = node.outputs.empty() ? ranks_.end() : ranks_.find(node.outputs[0]);
    if (axis == -1 || (rank != ranks_.end() && rank->second && axis == static_cast<int64_t>(*rank->second) - 1)) return;
    if (node.inputs.empty() || node.outputs.empty()) return refuse(node, "has no input or no output");
    const std::string input = node.inputs[0], output = node.outputs[0];
    const std::string shape = unused(output + "_shape"), flat = unused(output + "_flat"),
                      result = unused(output + "_soft");
    before_.push_back({"", "Shape", "", {input}, {shape}, {}, ""});
    before_.push_back({"", "Flatten", "", {input}, {flat}, {{"axis", axis, ""}}, ""});
    node.inputs[0] = flat;
    node.outputs[0] = result;
    after_.push_back({"", "Reshape", "", {result, shape}, {output}, {}, ""});
  }

  void upsample_to_resize(Node& node) {
    if (node.inputs.size() < 2) {
      const Attribute* scales = find_attribute(node, "scales");
      const auto* list = scales ? std::get_if<std::vector<float>>(&scales->value) : nullptr;
      if (!list) return refuse(node, "has no scales");
      const Tensor tensor = Tensor::from<float>(DType::Float32, {list->size()}, *list);
      drop(node, "scales");
      node.inputs.push_back(add_constant("scales", tensor));
    }
    node.op = "Resize";
    if (crosses(11)) resize_with_explicit_mode(node);
  }

  // Version 10 scaled coordinates plainly and rounded them down; 11 made both a choice and put `roi` between the
  // inputs.
  static void resize_with_explicit_mode(Node& node) {
    if (node.inputs.size() == 2) node.inputs.insert(node.inputs.begin() + 1, "");
    node.attributes.push_back({"coordinate_transformation_mode", std::string("asymmetric"), ""});
    if (text_attribute(node, "mode") != "linear") node.attributes.push_back({"nearest_mode", std::string("floor"), ""});
  }

  const Model& model_;
  int64_t from_, target_;
  bool float32_only_ = true;
  std::unordered_set<std::string> names_, used_;  // all values, and those that something reads
  std::unordered_map<std::string, std::optional<size_t>> ranks_;
  std::string reason_;
  std::vector<Param> added_params_;
  std::vector<Initializer> added_initializers_;
  std::unordered_map<std::string, int> last_number_;        // given to a name that was taken
  std::unordered_map<std::string, size_t> stored_;          // values that are stored tensors, and their params
  std::unordered_map<std::string, std::string> constants_;  // content to name
  std::vector<Node> before_, after_;                        // nodes that the node being rewritten brings along
};

}  // namespace

std::variant<Model, std::string> raise_opset(const Model& model, int64_t target) {
  return Raiser(model, target).raise();
}

}  // namespace nibble::onnx
