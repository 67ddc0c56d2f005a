#include "core/model/execute.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/model/ops/ops.hpp"

namespace nibble {

namespace {

using ops::Call;
using ops::Op;

constexpr int kNone = -1;

/// One node of a graph, its values numbered.
struct Step {
  const Node* node = nullptr;
  const Op* op = nullptr;
  int64_t opset = 0;
  std::vector<int> inputs, outputs;  ///< slots, or kNone where left out
  std::vector<int> last_uses;        ///< slots that nothing looks at after this step
};

/// A graph made ready: the main one or one that an attribute holds.
struct Plan {
  const Graph* graph = nullptr;
  std::unordered_map<std::string, int> slots;
  std::vector<Step> steps;
  std::vector<int> inputs, outputs;
  std::vector<std::pair<int, size_t>> params;         ///< slot and the param it holds
  std::vector<std::pair<int, std::string>> captured;  ///< slots that hold values of the graphs around
  std::map<const Graph*, std::unique_ptr<Plan>> inner;

  int slot(const std::string& name) { return slots.emplace(name, static_cast<int>(slots.size())).first->second; }
};

int64_t opset_for(const Header& header, const std::string& domain) {
  if (domain.empty()) return std::max<int64_t>(1, opset_of(header));
  for (const auto& [name, version] : header.opsets) {
    if (name == domain) return version;
  }
  return 1;
}

std::string node_label(const Node& node) { return Call{node}.label(); }

/// What draws new numbers each time is not a constant, whatever it depends on.
bool draws_numbers(const Node& node) {
  static const std::set<std::string_view> kDrawing = {
      "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"};
  return kDrawing.count(node.op) > 0;
}

class Planner {
 public:
  explicit Planner(const Model& model) : model_(model) {}

  /// Why the graph cannot be run, "" where it can.
  std::string missing() const {
    std::set<std::string> seen;
    std::string text;
    size_t left_out = 0;
    for_each_graph(*model_.graph, [&](const Graph& graph) {
      for (const Node& node : graph.nodes) {
        if (ops::find_op(node.domain, node.op)) continue;
        const std::string name = (node.domain.empty() ? "" : node.domain + ".") + node.op;
        if (!seen.insert(name).second) continue;
        if (seen.size() > 8) {
          ++left_out;
          continue;
        }
        text += (text.empty() ? "" : ", ") + name + " (" + (node.name.empty() ? "makes " : "node ") +
                (node.name.empty() ? (node.outputs.empty() ? "nothing" : node.outputs[0]) : node.name) +
                ", operator set " + std::to_string(opset_for(*model_.header, node.domain)) + ")";
      }
    });
    for (const Value& input : model_.graph->inputs) {
      if (text.empty() && !input.dtype)
        return "input \"" + input.name + "\" is not a tensor; the model can be compressed and exported, but not run";
    }
    if (text.empty()) return "";
    if (left_out) text += " and " + std::to_string(left_out) + " more";
    return "Nibble has no " + text + "; the model can be compressed and exported, but not run";
  }

  std::unique_ptr<Plan> plan(const Graph& graph, const Plan* outer) {
    auto made = std::make_unique<Plan>();
    made->graph = &graph;
    std::set<std::string> defined;
    for (const Initializer& initializer : graph.initializers) {
      made->params.emplace_back(made->slot(initializer.name), initializer.param);
      defined.insert(initializer.name);
    }
    for (const Value& input : graph.inputs) {
      if (defined.insert(input.name).second) made->inputs.push_back(made->slot(input.name));
    }
    for (const size_t index : order_of(graph)) {
      const Node& node = graph.nodes[index];
      Step step{&node, ops::find_op(node.domain, node.op), opset_for(*model_.header, node.domain), {}, {}, {}};
      const auto use = [&](const std::string& name) {
        if (name.empty()) return kNone;
        if (defined.insert(name).second) {
          if (!outer) {
            fail(ErrorCode::BadFile, node_label(node),
                 "it uses \"" + name + "\", which no input, initializer or node before it makes");
          }
          made->captured.emplace_back(made->slot(name), name);
        }
        return made->slot(name);
      };
      for (const std::string& name : node.inputs) step.inputs.push_back(use(name));
      for (const Attribute& attribute : node.attributes) {
        const auto* held = std::get_if<std::shared_ptr<const Graph>>(&attribute.value);
        if (!held) continue;
        auto inner = plan(**held, made.get());
        // What the inner graph takes from outside is an input of this node in all but name.
        for (const auto& [slot, name] : inner->captured) step.inputs.push_back(use(name));
        made->inner.emplace(held->get(), std::move(inner));
      }
      for (const std::string& name : node.outputs) {
        if (name.empty()) {
          step.outputs.push_back(kNone);
          continue;
        }
        if (!defined.insert(name).second)
          fail(ErrorCode::BadFile, node_label(node), "it makes \"" + name + "\", which exists already");
        step.outputs.push_back(made->slot(name));
      }
      made->steps.push_back(std::move(step));
    }
    for (const Value& output : graph.outputs) {
      if (defined.insert(output.name).second) {
        if (!outer) fail(ErrorCode::BadFile, output.name, "the graph gives it, but nothing makes it");
        made->captured.emplace_back(made->slot(output.name), output.name);
      }
      made->outputs.push_back(made->slot(output.name));
    }
    return made;
  }

 private:
  /// Every name that a node and the graphs within it take from outside. What a graph makes itself hides the same name
  /// outside, which ONNX forbids and files have.
  static void collect_uses(const Node& node, std::vector<std::string_view>& names) {
    names.insert(names.end(), node.inputs.begin(), node.inputs.end());
    for (const Attribute& attribute : node.attributes) {
      const auto* held = std::get_if<std::shared_ptr<const Graph>>(&attribute.value);
      if (!held) continue;
      const Graph& graph = **held;
      std::set<std::string_view> own;
      for (const Value& input : graph.inputs) own.insert(input.name);
      for (const Initializer& initializer : graph.initializers) own.insert(initializer.name);
      std::vector<std::string_view> inner_names;
      for (const Node& inner : graph.nodes) {
        own.insert(inner.outputs.begin(), inner.outputs.end());
        collect_uses(inner, inner_names);
      }
      for (const Value& output : graph.outputs) inner_names.push_back(output.name);
      for (const std::string_view name : inner_names) {
        if (!own.count(name)) names.push_back(name);
      }
    }
  }

  /// An order in which each node comes after those it needs: the file's own where that is one. ONNX demands it, but
  /// ONNX Runtime sorts, and so there are files without it (Kahn, "Topological sorting of large networks", 1962).
  static std::vector<size_t> order_of(const Graph& graph) {
    std::unordered_map<std::string_view, size_t> maker;
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (const std::string& name : graph.nodes[i].outputs) {
        if (!name.empty()) maker.emplace(name, i);
      }
    }
    std::vector<std::vector<size_t>> users(graph.nodes.size());
    std::vector<size_t> waiting(graph.nodes.size(), 0);
    std::vector<std::string_view> uses;
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      uses.clear();
      collect_uses(graph.nodes[i], uses);
      for (const std::string_view name : uses) {
        const auto found = maker.find(name);
        if (found == maker.end()) continue;
        users[found->second].push_back(i);
        ++waiting[i];
      }
    }
    std::set<size_t> ready;
    for (size_t i = 0; i < waiting.size(); ++i) {
      if (waiting[i] == 0) ready.insert(i);
    }
    std::vector<size_t> order;
    while (!ready.empty()) {
      const size_t next = *ready.begin();
      ready.erase(ready.begin());
      order.push_back(next);
      for (const size_t user : users[next]) {
        if (--waiting[user] == 0) ready.insert(user);
      }
    }
    if (order.size() == graph.nodes.size()) return order;
    const auto stuck = std::find_if(waiting.begin(), waiting.end(), [](size_t count) { return count > 0; });
    fail(ErrorCode::BadFile, node_label(graph.nodes[static_cast<size_t>(stuck - waiting.begin())]),
         "it needs its own output, through a circle of nodes");
  }

  const Model& model_;
};

/// Slots whose value nobody needs after each step; those of `keep` are needed to the end.
void find_last_uses(Plan& plan, const std::vector<char>& keep) {
  std::vector<char> used = keep;
  for (size_t i = plan.steps.size(); i-- > 0;) {
    Step& step = plan.steps[i];
    step.last_uses.clear();
    const auto look = [&](int slot) {
      if (slot == kNone || used[static_cast<size_t>(slot)]) return;
      used[static_cast<size_t>(slot)] = 1;
      step.last_uses.push_back(slot);
    };
    for (const int slot : step.inputs) look(slot);
    for (const int slot : step.outputs) look(slot);
  }
}

Tensor as_float32(const Tensor& tensor) {
  const FloatView view(tensor);
  return Tensor::from(DType::Float32, tensor.shape(), view.values());
}

bool needs_conversion(const Tensor& tensor) {
  return tensor.exists() && is_real(tensor.dtype()) && tensor.dtype() != DType::Float32;
}

void add_to(Tensor& sum, Tensor grad) {
  if (!grad.exists()) return;
  if (!sum.exists()) {
    sum = std::move(grad);
    return;
  }
  const std::span<const float> from = grad.data<float>();
  const std::span<float> to = sum.write<float>();
  for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
}

/// Runs plans; knows the constants of the main one.
class Runner {
 public:
  Runner(const std::vector<Param>& params, const RunOptions& options) : params_(params), options_(options) {}

  /// Runs one step on the values so far.
  void run(const Plan& plan, size_t index, std::vector<Tensor>& values) {
    const Step& step = plan.steps[index];
    Call call{*step.node, step.opset, params_};
    call.training = options_.training;
    call.key = mix64(options_.key, index);
    const size_t named = step.node->inputs.size();
    DType real = DType::Float32;
    for (size_t i = 0; i < named; ++i) {
      const int slot = step.inputs[i];
      if (slot == kNone) {
        call.inputs.emplace_back();
        continue;
      }
      Tensor& value = values[static_cast<size_t>(slot)];
      if (!value.exists()) {
        fail(ErrorCode::BadData, call.label(), "\"" + step.node->inputs[i] + "\" has no value where it is used");
      }
      const bool last = std::find(step.last_uses.begin(), step.last_uses.end(), slot) != step.last_uses.end();
      const bool again = std::count(step.inputs.begin() + static_cast<std::ptrdiff_t>(i) + 1, step.inputs.end(), slot);
      call.inputs.push_back(last && !again ? std::move(value) : value);
    }
    if (step.op->reals == ops::Reals::AsFloat32) {
      bool first = true;
      for (Tensor& input : call.inputs) {
        if (!input.exists() || !is_real(input.dtype())) continue;
        if (first) real = input.dtype();
        first = false;
        if (needs_conversion(input)) input = as_float32(input);
      }
    }
    if (!plan.inner.empty()) {
      call.run_graph = [&](const Graph& graph, std::vector<Tensor> inputs) {
        return run_inner(plan, *plan.inner.at(&graph), std::move(inputs), values);
      };
    }
    Tape::Entry* entry = nullptr;
    if (options_.tape && &plan == main) {
      entry = &options_.tape->entries.emplace_back();
      entry->node = index;
      entry->inputs = call.inputs;
      entry->key = call.key;
    }
    std::vector<Tensor> outputs;
    try {
      outputs = step.op->forward(call);
    } catch (const Error& error) {
      if (!error.where.empty()) throw;
      throw Error(error.code, call.label(), error.message);
    }
    if (entry) {
      entry->outputs = outputs;
      entry->saved = call.saved;
    }
    if (options_.tape && options_.training && &plan == main) {
      for (const auto& [input, saved] : step.op->running) {
        if (input >= named || saved >= call.saved.size()) continue;
        for (const auto& [slot, param] : plan.params) {
          if (slot == step.inputs[input]) options_.tape->running.emplace_back(param, call.saved[saved]);
        }
      }
    }
    for (size_t i = 0; i < step.outputs.size(); ++i) {
      const int slot = step.outputs[i];
      if (slot == kNone) continue;
      if (i >= outputs.size() || !outputs[i].exists())
        call.refuse("its output " + std::to_string(i) + " (\"" + step.node->outputs[i] + "\") is not supported");
      if (real != DType::Float32 && outputs[i].dtype() == DType::Float32)
        outputs[i] = from_floats(real, outputs[i].shape(), outputs[i].data<float>());
      if (options_.tap && &plan == main) options_.tap(step.node->outputs[i], *step.node, outputs[i]);
      values[static_cast<size_t>(slot)] = std::move(outputs[i]);
    }
    for (const int slot : step.last_uses) {
      // What only the caller may want is freed by the caller.
      const bool made = std::find(step.outputs.begin(), step.outputs.end(), slot) != step.outputs.end();
      if (!made || options_.also.empty() || &plan != main) values[static_cast<size_t>(slot)] = Tensor();
    }
  }

  const Plan* main = nullptr;

 private:
  std::vector<Tensor> run_inner(const Plan& outer, const Plan& plan, std::vector<Tensor> inputs,
                                const std::vector<Tensor>& around) {
    std::vector<Tensor> values(plan.slots.size());
    for (const auto& [slot, param] : plan.params) values[static_cast<size_t>(slot)] = params_[param].value;
    for (const auto& [slot, name] : plan.captured)
      values[static_cast<size_t>(slot)] = around[static_cast<size_t>(outer.slots.at(name))];
    if (inputs.size() != plan.inputs.size()) {
      fail(ErrorCode::BadData, plan.graph->name,
           "the inner graph wants " + std::to_string(plan.inputs.size()) + " inputs, it gets " +
               std::to_string(inputs.size()));
    }
    for (size_t i = 0; i < inputs.size(); ++i) values[static_cast<size_t>(plan.inputs[i])] = std::move(inputs[i]);
    for (size_t i = 0; i < plan.steps.size(); ++i) run(plan, i, values);
    std::vector<Tensor> outputs;
    for (const int slot : plan.outputs) outputs.push_back(values[static_cast<size_t>(slot)]);
    return outputs;
  }

  const std::vector<Param>& params_;
  const RunOptions& options_;
};

std::string described(const Value& value) {
  std::string text;
  for (const auto& extent : value.shape) {
    if (!text.empty()) text += "x";
    if (const auto* fixed = std::get_if<int64_t>(&extent))
      text += std::to_string(*fixed);
    else if (const auto* name = std::get_if<std::string>(&extent))
      text += *name;
    else
      text += "?";
  }
  return value.shape.empty() ? "scalar" : text;
}

/// Throws where a tensor is not what the graph declares.
void check_input(const Value& declared, const Tensor& tensor) {
  const std::string where = "input \"" + declared.name + "\"";
  if (!tensor.exists()) fail(ErrorCode::BadData, where, "it was not given");
  if (declared.dtype && *declared.dtype != tensor.dtype()) {
    fail(ErrorCode::BadData, where,
         "expected " + std::string(to_string(*declared.dtype)) + ", got " + std::string(to_string(tensor.dtype())));
  }
  if (tensor.dtype() == DType::String) fail(ErrorCode::Unsupported, where, "strings cannot be run");
  if (!declared.ranked) return;
  bool fits = declared.shape.size() == tensor.shape().size();
  for (size_t i = 0; fits && i < declared.shape.size(); ++i) {
    const auto* fixed = std::get_if<int64_t>(&declared.shape[i]);
    // Old exporters write 0 or -1 for an extent that is not known.
    fits = !fixed || *fixed <= 0 || static_cast<size_t>(*fixed) == tensor.shape()[i];
  }
  if (!fits) {
    fail(ErrorCode::BadData, where, "expected shape " + described(declared) + ", got " + to_string(tensor.shape()));
  }
}

}  // namespace

struct Program::Impl {
  Impl(const Model& source, std::span<const size_t> trained_params)
      : model(source), trained(trained_params.begin(), trained_params.end()) {
    Planner planner(model);
    if (const std::string reason = planner.missing(); !reason.empty()) fail(ErrorCode::Unsupported, "model", reason);
    plan = planner.plan(*model.graph, nullptr);
    fold();
    for (const int slot : plan->inputs) {
      const auto found = std::find_if(model.graph->inputs.begin(), model.graph->inputs.end(),
                                      [&](const Value& value) { return plan->slots.at(value.name) == slot; });
      inputs.push_back(*found);
    }
    keep.assign(plan->slots.size(), 0);
    for (const int slot : plan->outputs) keep[static_cast<size_t>(slot)] = 1;
    for (size_t slot = 0; slot < constants.size(); ++slot) {
      if (constants[slot].exists()) keep[slot] = 1;
    }
    find_last_uses(*plan, keep);
  }

  /// Runs what depends on constants alone, once.
  void fold() {
    constants.assign(plan->slots.size(), Tensor());
    std::vector<char> varies(plan->slots.size(), 0);
    for (const auto& [slot, param] : plan->params) {
      constants[static_cast<size_t>(slot)] = model.params[param].value;
      varies[static_cast<size_t>(slot)] = std::find(trained.begin(), trained.end(), param) != trained.end();
    }
    const RunOptions options;
    Runner runner(model.params, options);
    std::vector<Tensor> values = constants;
    std::vector<Step> left;
    for (size_t i = 0; i < plan->steps.size(); ++i) {
      const Step& step = plan->steps[i];
      bool constant = !draws_numbers(*step.node);
      for (const int slot : step.inputs) {
        constant &= slot == kNone || (values[static_cast<size_t>(slot)].exists() && !varies[static_cast<size_t>(slot)]);
      }
      if (constant) {
        try {
          runner.run(*plan, i, values);
        } catch (const Error&) {
          constant = false;  // it is told when the model runs, if it ever comes to that
        }
      }
      if (!constant) left.push_back(step);
    }
    for (const Step& step : plan->steps) {
      for (const int slot : step.outputs) {
        if (slot != kNone && values[static_cast<size_t>(slot)].exists())
          constants[static_cast<size_t>(slot)] = values[static_cast<size_t>(slot)];
      }
    }
    plan->steps = std::move(left);
    // What only the folded nodes looked at need not stay.
    std::vector<char> used(plan->slots.size(), 0);
    for (const Step& step : plan->steps) {
      for (const int slot : step.inputs) {
        if (slot != kNone) used[static_cast<size_t>(slot)] = 1;
      }
    }
    for (const int slot : plan->outputs) used[static_cast<size_t>(slot)] = 1;
    for (size_t slot = 0; slot < used.size(); ++slot) {
      if (!used[slot]) constants[slot] = Tensor();
    }
    widen_constants();
  }

  /// Half-precision constants of operators that compute in float32 are converted once, where nobody else wants them.
  void widen_constants() {
    std::vector<char> plain(plan->slots.size(), 0);
    for (const int slot : plan->outputs) plain[static_cast<size_t>(slot)] = 1;
    for (const Step& step : plan->steps) {
      for (size_t i = 0; i < step.inputs.size(); ++i) {
        const int slot = step.inputs[i];
        // The input that decides the outputs' type keeps its own.
        const bool decides = i == step.op->first_real;
        if (slot != kNone && (step.op->reals != ops::Reals::AsFloat32 || decides)) plain[static_cast<size_t>(slot)] = 1;
      }
    }
    for (size_t slot = 0; slot < constants.size(); ++slot) {
      if (!plain[slot] && needs_conversion(constants[slot])) constants[slot] = as_float32(constants[slot]);
    }
  }

  Model model;
  std::vector<size_t> trained;
  std::unique_ptr<Plan> plan;
  std::vector<Tensor> constants;  ///< by slot: initializers and what was computed from them
  std::vector<Value> inputs;
  std::vector<char> keep;
};

Program::Program(const Model& model, std::span<const size_t> trained) : impl_(std::make_unique<Impl>(model, trained)) {}
Program::Program(Program&&) noexcept = default;
Program::~Program() = default;

const std::vector<Value>& Program::inputs() const { return impl_->inputs; }
const std::vector<Value>& Program::outputs() const { return impl_->model.graph->outputs; }

const Tensor& Program::value(size_t param) const { return impl_->model.params[param].value; }

void Program::set(size_t param, Tensor value) {
  for (const auto& [slot, held] : impl_->plan->params) {
    if (held == param) impl_->constants[static_cast<size_t>(slot)] = value;
  }
  impl_->model.params[param].value = std::move(value);
}

std::vector<Tensor> Program::forward(std::vector<Tensor> inputs, const RunOptions& options) const {
  Plan& plan = *impl_->plan;
  if (inputs.size() != plan.inputs.size()) {
    fail(ErrorCode::BadData, "inputs",
         "the model has " + std::to_string(plan.inputs.size()) + " inputs, " + std::to_string(inputs.size()) +
             " were given");
  }
  for (size_t i = 0; i < inputs.size(); ++i) check_input(impl_->inputs[i], inputs[i]);

  std::vector<int> also;
  for (const std::string& name : options.also) {
    const auto found = plan.slots.find(name);
    if (found == plan.slots.end()) fail(ErrorCode::BadData, name, "the graph has no value of this name");
    also.push_back(found->second);
  }
  std::vector<Tensor> values = impl_->constants;
  for (size_t i = 0; i < inputs.size(); ++i) values[static_cast<size_t>(plan.inputs[i])] = std::move(inputs[i]);

  Runner runner(impl_->model.params, options);
  runner.main = &plan;
  std::vector<Tensor> also_made(options.also.size());
  // Values asked for beside the outputs are held before a later step frees them.
  const auto hold = [&] {
    for (size_t a = 0; a < also_made.size(); ++a) {
      const Tensor& value = values[static_cast<size_t>(also[a])];
      if (!also_made[a].exists() && value.exists()) also_made[a] = value;
    }
  };
  hold();
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    runner.run(plan, i, values);
    hold();
  }
  std::vector<Tensor> outputs;
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const Tensor& value = values[static_cast<size_t>(plan.outputs[i])];
    if (!value.exists()) fail(ErrorCode::BadData, impl_->model.graph->outputs[i].name, "the graph gives no value");
    outputs.push_back(value);
  }
  for (Tensor& value : also_made) outputs.push_back(std::move(value));
  return outputs;
}

namespace {

/// Gradients by slot, from those of the outputs back to the slots in `asked`.
std::vector<Tensor> gradients(const Plan& plan, const std::vector<Param>& params, const Tape& tape,
                              std::span<const Tensor> grads, const std::vector<char>& asked) {
  std::vector<char> varies = asked;
  for (const Step& step : plan.steps) {
    const bool reached = std::any_of(step.inputs.begin(), step.inputs.end(),
                                     [&](int slot) { return slot != kNone && varies[static_cast<size_t>(slot)]; });
    for (const int slot : step.outputs) {
      if (slot != kNone && reached) varies[static_cast<size_t>(slot)] = 1;
    }
  }
  std::vector<Tensor> sums(plan.slots.size());
  for (size_t i = 0; i < grads.size() && i < plan.outputs.size(); ++i)
    add_to(sums[static_cast<size_t>(plan.outputs[i])], grads[i]);

  for (auto entry = tape.entries.rbegin(); entry != tape.entries.rend(); ++entry) {
    const Step& step = plan.steps[entry->node];
    const size_t named = step.node->inputs.size();
    Call call{*step.node, step.opset, params, entry->inputs, true, entry->key, entry->saved};
    bool wanted = false, given = false;
    for (size_t i = 0; i < named; ++i) {
      const int slot = step.inputs[i];
      const bool this_one = slot != kNone && varies[static_cast<size_t>(slot)] && entry->inputs[i].exists() &&
                            is_real(entry->inputs[i].dtype());
      call.wanted.push_back(this_one);
      wanted |= this_one;
    }
    std::vector<Tensor> arrived(entry->outputs.size());
    for (size_t i = 0; i < arrived.size() && i < step.outputs.size(); ++i) {
      if (step.outputs[i] == kNone) continue;
      Tensor& sum = sums[static_cast<size_t>(step.outputs[i])];
      given |= sum.exists();
      arrived[i] = asked[static_cast<size_t>(step.outputs[i])] ? sum : std::move(sum);
    }
    if (!wanted || !given) continue;
    if (!step.op->backward) {
      call.refuse("no gradient passes through it, so what comes before it cannot be trained");
    }
    std::vector<Tensor> back;
    try {
      back = step.op->backward(call, entry->outputs, arrived);
    } catch (const Error& error) {
      if (!error.where.empty()) throw;
      throw Error(error.code, call.label(), error.message);
    }
    for (size_t i = 0; i < named && i < back.size(); ++i) {
      if (call.wanted[i]) add_to(sums[static_cast<size_t>(step.inputs[i])], std::move(back[i]));
    }
  }
  return sums;
}

Tensor zero_like(const Tensor& tensor) {
  Tensor zero = Tensor::allocate(DType::Float32, tensor.shape());
  const std::span<float> values = zero.write<float>();
  std::fill(values.begin(), values.end(), 0.0f);
  return zero;
}

}  // namespace

std::vector<Tensor> Program::backward(const Tape& tape, std::span<const Tensor> grads) const {
  std::vector<char> asked(impl_->plan->slots.size(), 0);
  for (const auto& [slot, param] : impl_->plan->params) {
    if (std::find(impl_->trained.begin(), impl_->trained.end(), param) != impl_->trained.end())
      asked[static_cast<size_t>(slot)] = 1;
  }
  std::vector<Tensor> sums = gradients(*impl_->plan, impl_->model.params, tape, grads, asked);
  std::vector<Tensor> out(impl_->trained.size());
  for (size_t i = 0; i < out.size(); ++i) {
    for (const auto& [slot, param] : impl_->plan->params) {
      if (param == impl_->trained[i]) add_to(out[i], std::move(sums[static_cast<size_t>(slot)]));
    }
    if (!out[i].exists()) out[i] = zero_like(value(impl_->trained[i]));
  }
  return out;
}

std::vector<Tensor> Program::backward(const Tape& tape, std::span<const Tensor> grads,
                                      std::span<const std::string> with_respect_to) const {
  const Plan& plan = *impl_->plan;
  std::vector<char> asked(plan.slots.size(), 0);
  for (const std::string& name : with_respect_to) {
    const auto found = plan.slots.find(name);
    if (found == plan.slots.end()) fail(ErrorCode::BadData, name, "the graph has no value of this name");
    asked[static_cast<size_t>(found->second)] = 1;
  }
  const std::vector<Tensor> sums = gradients(plan, impl_->model.params, tape, grads, asked);
  std::vector<Tensor> out;
  for (const std::string& name : with_respect_to) out.push_back(sums[static_cast<size_t>(plan.slots.at(name))]);
  return out;
}

namespace {

/// Whether a softmax runs over all numbers of a sample, as far as that can be told; `value` is what it makes, where its
/// shape is known. Before operator set 13 it runs over all axes from the given one on.
bool spans_sample(const Node& softmax, int64_t opset, const Value* value) {
  const int64_t axis = int_attribute(softmax, "axis", opset < 13 ? 1 : -1);
  if (axis == -1 || (axis == 1 && (opset < 13 || !value || !value->ranked))) return true;
  if (!value || !value->ranked) return false;
  const auto rank = static_cast<int64_t>(value->shape.size());
  for (int64_t i = (axis < 0 ? axis + rank : axis) + 1; i < rank; ++i) {
    const auto* extent = std::get_if<int64_t>(&value->shape[static_cast<size_t>(i)]);
    if (!extent || *extent != 1) return false;
  }
  return true;
}

}  // namespace

Model before_softmax(const Model& model) {
  const Graph& graph = *model.graph;
  if (graph.outputs.empty()) return model;
  std::string name = graph.outputs[0].name;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    if (node->outputs.empty() || node->outputs[0] != name || node->inputs.empty() || !node->domain.empty()) continue;
    const bool passes = node->op == "Identity" || node->op == "Flatten" || node->op == "Squeeze";
    if (node->op != "Softmax" && node->op != "LogSoftmax" && !passes) return model;
    const Value& output = graph.outputs[0];
    if (!passes && !spans_sample(*node, opset_of(*model.header), name == output.name ? &output : nullptr)) return model;
    name = node->inputs[0];
    if (passes) continue;
    Graph taken = graph;
    taken.outputs[0] = Value{};
    taken.outputs[0].name = name;
    taken.outputs[0].dtype = DType::Float32;
    Model out = model;
    out.graph = std::make_shared<const Graph>(std::move(taken));
    return out;
  }
  return model;
}

std::string cannot_run(const Model& model) {
  Planner planner(model);
  if (std::string reason = planner.missing(); !reason.empty()) return reason;
  try {
    planner.plan(*model.graph, nullptr);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace nibble
