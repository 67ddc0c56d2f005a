// Which stored tensors are learnt: by what the operators use them for.
#include <algorithm>
#include <unordered_set>

#include "core/model/model.hpp"

namespace nibble {

namespace {

/// Inputs of operators that hold what is learnt; running statistics and constants of formulas are not among them.
bool is_learnt(const Node& node, size_t input) {
  const auto among = [&](std::initializer_list<std::string_view> ops) {
    return std::find(ops.begin(), ops.end(), node.op) != ops.end();
  };
  if (!node.domain.empty()) return false;
  if (among({"Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "LayerNormalization",
             "GroupNormalization", "RMSNormalization", "Gemm"}))
    return input == 1 || input == 2;
  if (among({"LSTM", "GRU", "RNN"})) return input == 1 || input == 2 || input == 3 || input == 7;
  if (among({"PRelu"})) return input == 1;
  if (among({"Gather"})) return input == 0;
  return among({"MatMul", "Add", "Mul", "Einsum"});
}

}  // namespace

std::vector<size_t> find_learnt(const Model& model) {
  std::unordered_set<std::string_view> learnt;
  // Through what only moves a tensor's values on their way to the operator, from the last node to the first.
  for (auto node = model.graph->nodes.rbegin(); node != model.graph->nodes.rend(); ++node) {
    for (size_t i = 0; i < node->inputs.size(); ++i) {
      if (is_learnt(*node, i)) learnt.insert(node->inputs[i]);
    }
    const bool moves = node->op == "Transpose" || node->op == "Reshape" || node->op == "Identity" ||
                       node->op == "Squeeze" || node->op == "Unsqueeze" || node->op == "Flatten";
    if (moves && !node->outputs.empty() && !node->inputs.empty() && learnt.count(node->outputs[0]))
      learnt.insert(node->inputs[0]);
  }
  std::vector<size_t> found;
  for (const Initializer& initializer : model.graph->initializers) {
    const Tensor& value = model.params[initializer.param].value;
    if (learnt.count(initializer.name) && is_real(value.dtype()) && !value.shape().empty())
      found.push_back(initializer.param);
  }
  return found;
}

}  // namespace nibble
