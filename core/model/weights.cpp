// Finds weights by tracing each operator's weight input back to a stored tensor.
#include <algorithm>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "core/model/model.hpp"

namespace nibble {

namespace {

/// A value that is a stored tensor, perhaps rearranged: its shape, and for each of its axes the tensor's axis it is.
struct Traced {
  size_t param = 0;
  Shape shape;
  std::vector<std::optional<size_t>> axes;
};

/// The names visible in one graph: its own, then its parents'.
struct Scope {
  const Scope* parent = nullptr;
  std::unordered_map<std::string_view, size_t> params;
  std::unordered_map<std::string_view, const Node*> makers;
};

// A chain of rearrangements longer than this is no exporter's work.
constexpr int kDeepestChain = 16;

class Finder {
 public:
  explicit Finder(const std::vector<Param>& params) : params_(params) {}

  void visit(const Graph& graph, const Scope* parent) {
    Scope scope{parent, {}, {}};
    for (const Initializer& initializer : graph.initializers) scope.params.emplace(initializer.name, initializer.param);
    for (const Node& node : graph.nodes) {
      for (const std::string& output : node.outputs) scope.makers.emplace(output, &node);
    }
    for (const Node& node : graph.nodes) {
      add_weights_of(node, scope);
      for (const Attribute& attribute : node.attributes) {
        if (const auto* inner = std::get_if<std::shared_ptr<const Graph>>(&attribute.value)) visit(**inner, &scope);
      }
    }
  }

  std::vector<Weight> take() && { return std::move(weights_); }

 private:
  void add_weights_of(const Node& node, const Scope& scope) {
    const std::string_view op = node.op;
    const bool microsoft = node.domain == "com.microsoft";
    if (!node.domain.empty() && !microsoft) return;
    if (op == "Conv" || (microsoft && op == "FusedConv")) return add(node, scope, 1, WeightKind::Conv, 0);
    if (op == "ConvTranspose") return add(node, scope, 1, WeightKind::ConvTranspose, 1);
    if (op == "Gemm" || (microsoft && op == "FusedGemm")) {
      add(node, scope, 1, WeightKind::Dense, int_attribute(node, "transB", 0) ? 0 : 1);
      add(node, scope, 0, WeightKind::Dense, int_attribute(node, "transA", 0) ? 1 : 0);
      return;
    }
    if (op == "MatMul") {
      add(node, scope, 1, WeightKind::Dense, -1);
      add(node, scope, 0, WeightKind::Dense, -2);
      return;
    }
    if (microsoft && op == "FusedMatMul")
      return add(node, scope, 1, WeightKind::Dense, int_attribute(node, "transB", 0) ? -2 : -1);
    if (op == "Gather")
      return add(node, scope, 0, WeightKind::Embedding, static_cast<int>(int_attribute(node, "axis", 0)));
    if (op == "LSTM" || op == "GRU" || op == "RNN") {
      add(node, scope, 1, WeightKind::Recurrent, 1);
      add(node, scope, 2, WeightKind::Recurrent, 1);
      return;
    }
    if (microsoft && op == "Attention") return add(node, scope, 1, WeightKind::Dense, 1);
    if (microsoft && op == "EmbedLayerNormalization") {
      for (size_t table : {2, 3, 4}) add(node, scope, table, WeightKind::Embedding, 0);
    }
  }

  void add(const Node& node, const Scope& scope, size_t input, WeightKind kind, int64_t axis) {
    if (input >= node.inputs.size() || node.inputs[input].empty()) return;
    const std::optional<Traced> traced = trace(node.inputs[input], scope, 0);
    if (!traced || !is_real(params_[traced->param].value.dtype())) return;
    const int64_t rank = static_cast<int64_t>(traced->shape.size());
    // Scalars and vectors (a Gather from a shape vector, say) are not weights in the sense meant here.
    if (rank < 2) return;
    if (axis < 0) axis += rank;
    std::optional<size_t> channel_axis;
    if (axis >= 0 && axis < rank) channel_axis = traced->axes[static_cast<size_t>(axis)];

    const auto [known, is_new] = index_.emplace(traced->param, weights_.size());
    if (!is_new) {
      Weight& first = weights_[known->second];
      if (first.channel_axis != channel_axis) {
        first.note = "shared by " + first.node + " and " + label(node) +
                     ", whose output channels lie on different axes; those of the first are used";
      }
      return;
    }
    Weight weight{traced->param, kind, label(node), node.op, channel_axis, ""};
    if (!channel_axis) {
      weight.note =
          "a reshape between the stored tensor and " + weight.node + " hides its output channels; it has one scale";
    }
    weights_.push_back(std::move(weight));
  }

  static std::string label(const Node& node) {
    if (!node.name.empty()) return node.name;
    return node.outputs.empty() ? node.op : node.op + ":" + node.outputs[0];
  }

  std::optional<Traced> trace(const std::string& name, const Scope& scope, int depth) const {
    if (depth > kDeepestChain) return std::nullopt;
    for (const Scope* at = &scope; at; at = at->parent) {
      if (const auto maker = at->makers.find(name); maker != at->makers.end())
        return trace_through(*maker->second, *at, depth);
      if (const auto param = at->params.find(name); param != at->params.end()) return stored(param->second);
    }
    return std::nullopt;
  }

  Traced stored(size_t param) const {
    Traced traced{param, params_[param].value.shape(), {}};
    for (size_t axis = 0; axis < traced.shape.size(); ++axis) traced.axes.emplace_back(axis);
    return traced;
  }

  std::optional<Traced> trace_through(const Node& node, const Scope& scope, int depth) const {
    if (!node.domain.empty()) return std::nullopt;
    if (node.op == "Constant") {
      const Attribute* value = find_attribute(node, "value");
      const ParamRef* held = value ? std::get_if<ParamRef>(&value->value) : nullptr;
      return held ? std::optional(stored(held->param)) : std::nullopt;
    }
    static constexpr std::string_view kRearranging[] = {"Identity", "Cast",    "Transpose", "Reshape",
                                                        "Flatten",  "Squeeze", "Unsqueeze"};
    if (std::find(std::begin(kRearranging), std::end(kRearranging), node.op) == std::end(kRearranging))
      return std::nullopt;
    if (node.inputs.empty()) return std::nullopt;
    std::optional<Traced> source = trace(node.inputs[0], scope, depth + 1);
    if (!source) return std::nullopt;
    if (node.op == "Identity" || node.op == "Cast") return source;
    if (node.op == "Transpose") return transposed(*source, node);
    const std::optional<Shape> shape = new_shape(*source, node, scope);
    if (!shape || elements_of(*shape) != elements_of(source->shape)) return std::nullopt;
    return reshaped(*source, *shape);
  }

  static std::optional<Traced> transposed(const Traced& source, const Node& node) {
    const size_t rank = source.shape.size();
    std::vector<int64_t> order(rank);
    std::iota(order.rbegin(), order.rend(), 0);
    if (const Attribute* perm = find_attribute(node, "perm")) {
      const auto* given = std::get_if<std::vector<int64_t>>(&perm->value);
      if (!given || given->size() != rank) return std::nullopt;
      order = *given;
    }
    Traced out{source.param, {}, {}};
    for (int64_t axis : order) {
      if (axis < 0 || axis >= static_cast<int64_t>(rank)) return std::nullopt;
      out.shape.push_back(source.shape[static_cast<size_t>(axis)]);
      out.axes.push_back(source.axes[static_cast<size_t>(axis)]);
    }
    return out;
  }

  // An axis survives a reshape where the same extent stands behind the same number of elements.
  static Traced reshaped(const Traced& source, const Shape& shape) {
    Traced out{source.param, shape, std::vector<std::optional<size_t>>(shape.size())};
    size_t before = 1;
    for (size_t i = 0; i < shape.size(); before *= shape[i++]) {
      size_t source_before = 1;
      for (size_t j = 0; j < source.shape.size(); source_before *= source.shape[j++]) {
        if (before == source_before && shape[i] == source.shape[j] && shape[i] != 1) out.axes[i] = source.axes[j];
      }
    }
    return out;
  }

  std::optional<Shape> new_shape(const Traced& source, const Node& node, const Scope& scope) const {
    const size_t rank = source.shape.size();
    if (node.op == "Flatten") {
      int64_t axis = int_attribute(node, "axis", 1);
      if (axis < 0) axis += static_cast<int64_t>(rank);
      if (axis < 0 || axis > static_cast<int64_t>(rank)) return std::nullopt;
      Shape flat{1, 1};
      for (size_t i = 0; i < rank; ++i) flat[i < static_cast<size_t>(axis) ? 0 : 1] *= source.shape[i];
      return flat;
    }
    std::optional<std::vector<int64_t>> numbers = integers(node, scope, node.op == "Reshape" ? "shape" : "axes");
    if (node.op == "Reshape") return numbers ? resolved(source.shape, *numbers) : std::nullopt;
    const bool computed = !numbers && node.inputs.size() > 1 && !node.inputs[1].empty();
    if (computed || (!numbers && node.op == "Unsqueeze")) return std::nullopt;
    const size_t new_rank = node.op == "Unsqueeze" ? rank + numbers->size() : rank;
    std::vector<bool> named(new_rank, !numbers);
    if (numbers) {
      for (int64_t axis : *numbers) {
        if (axis < 0) axis += static_cast<int64_t>(new_rank);
        if (axis < 0 || axis >= static_cast<int64_t>(new_rank)) return std::nullopt;
        named[static_cast<size_t>(axis)] = true;
      }
    }
    Shape shape;
    size_t next = 0;
    for (size_t i = 0; i < new_rank; ++i) {
      if (node.op == "Unsqueeze") {
        if (!named[i] && next >= rank) return std::nullopt;
        shape.push_back(named[i] ? 1 : source.shape[next++]);
      } else if (!named[i] || source.shape[i] != 1) {
        shape.push_back(source.shape[i]);
      }
    }
    return shape;
  }

  // ONNX Reshape: 0 copies an extent, -1 is what is left.
  static std::optional<Shape> resolved(const Shape& from, const std::vector<int64_t>& wanted) {
    Shape shape;
    std::optional<size_t> open;
    size_t product = 1;
    for (size_t i = 0; i < wanted.size(); ++i) {
      size_t extent = 1;
      if (wanted[i] == 0) {
        if (i >= from.size()) return std::nullopt;
        extent = from[i];
      } else if (wanted[i] == -1 && !open) {
        open = i;
      } else if (wanted[i] < 0) {
        return std::nullopt;
      } else {
        extent = static_cast<size_t>(wanted[i]);
      }
      shape.push_back(extent);
      if (extent != 0 && product > elements_of(from) / extent) return std::nullopt;
      product *= extent;
    }
    if (open) {
      if (product == 0) return std::nullopt;
      shape[*open] = elements_of(from) / product;
    }
    return shape;
  }

  // A list of integers that is an attribute (older opsets) or the second input, an int64 tensor stored as it is
  // (looking through rearrangements here too would let a hostile file double the work at every step of a chain).
  std::optional<std::vector<int64_t>> integers(const Node& node, const Scope& scope, std::string_view name) const {
    if (const Attribute* attribute = find_attribute(node, name)) {
      const auto* list = std::get_if<std::vector<int64_t>>(&attribute->value);
      return list ? std::optional(*list) : std::nullopt;
    }
    if (node.inputs.size() < 2 || node.inputs[1].empty()) return std::nullopt;
    const std::optional<Traced> held = trace(node.inputs[1], scope, kDeepestChain);
    if (!held) return std::nullopt;
    const Tensor& tensor = params_[held->param].value;
    if (tensor.dtype() != DType::Int64 || tensor.elements() > 64) return std::nullopt;
    const auto values = tensor.data<int64_t>();
    return std::vector<int64_t>(values.begin(), values.end());
  }

  const std::vector<Param>& params_;
  std::vector<Weight> weights_;
  std::unordered_map<size_t, size_t> index_;  // param to its place in weights_
};

}  // namespace

std::vector<Weight> find_weights(const Graph& graph, const std::vector<Param>& params) {
  Finder finder(params);
  finder.visit(graph, nullptr);
  std::vector<Weight> weights = std::move(finder).take();
  if (!graph.nodes.empty()) return weights;
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor& value = params[i].value;
    if (is_real(value.dtype()) && value.shape().size() >= 2) weights.push_back({i, WeightKind::Tensor, "", "", 0, ""});
  }
  return weights;
}

}  // namespace nibble
