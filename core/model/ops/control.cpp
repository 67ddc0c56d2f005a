// If, Loop and Scan: operators that run graphs which their attributes hold. Forward only.
#include <new>

#include "core/model/ops/support.hpp"

namespace nibble::ops {

namespace {

// A model may ask for any number of rounds, and for any amount of output with them.
constexpr size_t kMostRounds = size_t{1} << 20;
constexpr size_t kMostBytes = size_t{1} << 31;

/// Counts the rounds of a loop together with those of the loops inside it.
class Rounds {
 public:
  Rounds() {
    if (depth_++ == 0) used_ = 0;
  }
  Rounds(const Rounds&) = delete;
  Rounds& operator=(const Rounds&) = delete;
  ~Rounds() { --depth_; }
  void next(const Call& call) const {
    if (++used_ > kMostRounds)
      call.refuse("it runs its graph more than " + std::to_string(kMostRounds) +
                  " times; such a model is not run here");
  }

 private:
  static thread_local size_t depth_, used_;
};
thread_local size_t Rounds::depth_ = 0;
thread_local size_t Rounds::used_ = 0;

std::vector<Tensor> run_body(const Call& call, const Graph& body, std::vector<Tensor> inputs) {
  if (!call.run_graph) call.refuse("inner graphs cannot be run here");
  return call.run_graph(body, std::move(inputs));
}

bool truth(const Call& call, const Tensor& tensor, const std::string& what) {
  if (!tensor.exists() || tensor.dtype() != DType::Bool || tensor.elements() != 1) {
    call.fail(what + " must be one bool, it is " +
              (tensor.exists() ? std::string(to_string(tensor.dtype())) + " " + to_string(tensor.shape()) : "absent"));
  }
  return tensor.data<uint8_t>()[0] != 0;
}

std::vector<Tensor> if_forward(Call& call) {
  const bool yes = truth(call, call.in(0), "the condition");
  return run_body(call, call.graph(yes ? "then_branch" : "else_branch"), {});
}

/// What the rounds give, one after the other.
class Stack {
 public:
  void push(const Call& call, const Tensor& slice, size_t& total_bytes) {
    if (!slice.exists()) call.refuse("its graph gives something that is not a tensor");
    if (count_ == 0) {
      visit_width(call, slice.dtype(), [](auto) {});
      dtype_ = slice.dtype();
      shape_ = slice.shape();
    } else if (slice.dtype() != dtype_ || slice.shape() != shape_) {
      call.fail("what its graph gives to be stacked was " + to_string(shape_) + " first and is " +
                to_string(slice.shape()) + " in round " + std::to_string(count_));
    }
    total_bytes += slice.bytes().size();
    if (total_bytes > kMostBytes) call.refuse("what its graph gives in all rounds is more than 2 GiB");
    try {
      bytes_.insert(bytes_.end(), slice.bytes().begin(), slice.bytes().end());
    } catch (const std::bad_alloc&) {
      nibble::fail(ErrorCode::OutOfMemory, call.label(), "there is no room for what its graph gives in all rounds");
    }
    ++count_;
  }

  /// Stacked along a new first axis. Without a round its shape is what the graph declares, as far as it does.
  Tensor finish(const Call& call, const Value& declared) && {
    if (count_ == 0) {
      if (!declared.dtype) call.refuse("it has no rounds, and output \"" + declared.name + "\" declares no type");
      dtype_ = *declared.dtype;
      for (const auto& extent : declared.shape) {
        const int64_t* fixed = std::get_if<int64_t>(&extent);
        shape_.push_back(fixed && *fixed > 0 ? static_cast<size_t>(*fixed) : 0);
      }
    }
    shape_.insert(shape_.begin(), count_);
    return Tensor::copy_of(dtype_, std::move(shape_), bytes_);
  }

 private:
  DType dtype_ = DType::Float32;
  Shape shape_;
  std::vector<std::byte> bytes_;
  size_t count_ = 0;
};

std::vector<Tensor> loop_forward(Call& call) {
  const Graph& body = call.graph("body");
  const Rounds rounds;
  int64_t most = INT64_MAX;
  if (call.has(0)) {
    const std::vector<int64_t> given = call.integers(0);
    if (given.size() != 1) call.fail("the trip count must be one integer, there are " + std::to_string(given.size()));
    most = given[0];
  }
  bool goes_on = !call.has(1) || truth(call, call.in(1), "the condition");
  const size_t carried_count = call.inputs.size() < 2 ? 0 : call.inputs.size() - 2;
  if (body.outputs.size() < 1 + carried_count) {
    call.fail("its graph must give a condition and " + std::to_string(carried_count) + " values, it gives " +
              std::to_string(body.outputs.size()));
  }
  std::vector<Tensor> carried;
  for (size_t i = 0; i < carried_count; ++i) carried.push_back(call.take(i + 2));
  std::vector<Stack> stacks(body.outputs.size() - 1 - carried_count);
  size_t bytes = 0;
  for (int64_t round = 0; round < most && goes_on; ++round) {
    rounds.next(call);
    std::vector<Tensor> inputs = {full<int64_t>({}, round), full<bool>({}, true)};
    for (Tensor& value : carried) inputs.push_back(std::move(value));
    std::vector<Tensor> made = run_body(call, body, std::move(inputs));
    if (made.size() != body.outputs.size()) call.fail("its graph does not give all of its outputs");
    goes_on = truth(call, made[0], "the condition that its graph gives");
    for (size_t i = 0; i < carried_count; ++i) carried[i] = std::move(made[1 + i]);
    for (size_t i = 0; i < stacks.size(); ++i) stacks[i].push(call, made[1 + carried_count + i], bytes);
  }
  for (size_t i = 0; i < stacks.size(); ++i) {
    carried.push_back(std::move(stacks[i]).finish(call, body.outputs[1 + carried_count + i]));
  }
  return carried;
}

/// x without `axis`, at `index` along it.
Tensor slice_of(const Call& call, const Tensor& x, size_t axis, size_t index) {
  std::vector<std::ptrdiff_t> steps = steps_of(x.shape());
  const std::ptrdiff_t start = steps[axis] * static_cast<std::ptrdiff_t>(index);
  Shape shape = x.shape();
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
  steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(axis));
  return strided(call, x, shape, steps, start);
}

/// x with its first axis moved to `axis`, and turned around where `reversed`.
Tensor placed(const Call& call, const Tensor& x, size_t axis, bool reversed) {
  if (axis == 0 && !reversed) return x;
  std::vector<std::ptrdiff_t> steps = steps_of(x.shape());
  Shape shape = x.shape();
  std::ptrdiff_t step = steps[0], start = 0;
  const size_t length = shape[0];
  if (reversed && length > 0) {
    start = step * static_cast<std::ptrdiff_t>(length - 1);
    step = -step;
  }
  shape.erase(shape.begin());
  steps.erase(steps.begin());
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(axis), length);
  steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(axis), step);
  return strided(call, x, shape, steps, start);
}

struct ScanPlan {
  const Graph* body = nullptr;
  size_t states = 0, scanned = 0, made = 0;
  std::vector<int64_t> input_axes, input_directions, output_axes, output_directions;
};

std::vector<int64_t> list_of(const Call& call, std::string_view name, size_t count) {
  std::vector<int64_t> list = call.integers(name);
  if (list.empty()) list.assign(count, 0);
  if (list.size() != count) {
    call.fail("attribute \"" + std::string(name) + "\" must have " + std::to_string(count) + " entries, it has " +
              std::to_string(list.size()));
  }
  return list;
}

/// One scan of one sequence: states and scanned inputs in, states and stacked outputs out.
std::vector<Tensor> scan(const Call& call, const ScanPlan& plan, const Rounds& rounds, std::vector<Tensor> states,
                         std::span<const Tensor> scanned, size_t& bytes) {
  std::vector<size_t> axes;
  size_t length = 0;
  for (size_t i = 0; i < scanned.size(); ++i) {
    axes.push_back(axis_of(call, plan.input_axes[i], scanned[i].shape().size()));
    const size_t extent = scanned[i].shape()[axes[i]];
    if (i > 0 && extent != length) {
      call.fail("all scanned inputs must be equally long, one has " + std::to_string(length) + " and one " +
                std::to_string(extent));
    }
    length = extent;
  }
  std::vector<Stack> stacks(plan.made);
  for (size_t round = 0; round < length; ++round) {
    rounds.next(call);
    std::vector<Tensor> inputs = std::move(states);
    for (size_t i = 0; i < scanned.size(); ++i)
      inputs.push_back(slice_of(call, scanned[i], axes[i], plan.input_directions[i] ? length - 1 - round : round));
    std::vector<Tensor> given = run_body(call, *plan.body, std::move(inputs));
    if (given.size() != plan.states + plan.made) call.fail("its graph does not give all of its outputs");
    for (size_t i = 0; i < plan.made; ++i) stacks[i].push(call, given[plan.states + i], bytes);
    given.resize(plan.states);
    states = std::move(given);
  }
  for (size_t i = 0; i < plan.made; ++i) {
    const Tensor stacked = std::move(stacks[i]).finish(call, plan.body->outputs[plan.states + i]);
    const size_t axis = axis_of(call, plan.output_axes[i], stacked.shape().size());
    states.push_back(placed(call, stacked, axis, plan.output_directions[i] != 0));
  }
  return states;
}

// Before operator set 9 the first input was the sequences' lengths, and states and scanned inputs had a batch in front.
constexpr int64_t kNoBatchFrom = 9;

std::vector<Tensor> scan_forward(Call& call) {
  ScanPlan plan;
  plan.body = &call.graph("body");
  const bool batched = call.opset < kNoBatchFrom;
  const size_t first = batched ? 1 : 0, given = call.inputs.size() < first ? 0 : call.inputs.size() - first;
  const int64_t scanned = call.integer("num_scan_inputs", 0);
  if (scanned < 1 || static_cast<uint64_t>(scanned) > given) {
    call.fail("attribute \"num_scan_inputs\" must be 1 to " + std::to_string(given) + ", it is " +
              std::to_string(scanned));
  }
  plan.scanned = static_cast<size_t>(scanned);
  plan.states = given - plan.scanned;
  if (plan.body->outputs.size() < plan.states) {
    call.fail("its graph must give " + std::to_string(plan.states) + " states, it gives " +
              std::to_string(plan.body->outputs.size()) + " values");
  }
  plan.made = plan.body->outputs.size() - plan.states;
  plan.input_axes = list_of(call, "scan_input_axes", plan.scanned);
  plan.input_directions = list_of(call, batched ? "directions" : "scan_input_directions", plan.scanned);
  plan.output_axes = list_of(call, "scan_output_axes", plan.made);
  plan.output_directions = list_of(call, "scan_output_directions", plan.made);
  const Rounds rounds;
  size_t bytes = 0;
  for (size_t i = first; i < call.inputs.size(); ++i) call.in(i);
  const std::span<Tensor> inputs = std::span(call.inputs).subspan(first);
  if (!batched) {
    std::vector<Tensor> states;
    for (size_t i = 0; i < plan.states; ++i) states.push_back(std::move(inputs[i]));
    return scan(call, plan, rounds, std::move(states), inputs.subspan(plan.states), bytes);
  }
  if (call.has(0)) call.refuse("sequence lengths are not supported");
  size_t batch = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape& shape = inputs[i].shape();
    if (shape.empty() || (i > 0 && shape[0] != batch)) call.fail("all inputs must have the same batch");
    batch = shape[0];
  }
  if (batch == 0) call.refuse("a batch of nothing is not supported");
  std::vector<Stack> stacks(plan.states + plan.made);
  size_t stacked_bytes = 0;
  for (size_t b = 0; b < batch; ++b) {
    std::vector<Tensor> states, sequences;
    for (size_t i = 0; i < inputs.size(); ++i)
      (i < plan.states ? states : sequences).push_back(slice_of(call, inputs[i], 0, b));
    const std::vector<Tensor> made = scan(call, plan, rounds, std::move(states), sequences, bytes);
    for (size_t i = 0; i < made.size(); ++i) stacks[i].push(call, made[i], stacked_bytes);
  }
  std::vector<Tensor> outputs;
  for (Stack& stack : stacks) outputs.push_back(std::move(stack).finish(call, {}));
  return outputs;
}

}  // namespace

std::span<const Op> control_ops() {
  static const Op kOps[] = {
      {"If", if_forward, nullptr},
      {"Loop", loop_forward, nullptr},
      {"Scan", scan_forward, nullptr},
  };
  return kOps;
}

}  // namespace nibble::ops
