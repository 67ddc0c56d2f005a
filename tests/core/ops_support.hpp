// One operator alone: run, and its gradients held against finite differences.
#pragma once

#include <cmath>

#include "core/model/ops/ops.hpp"
#include "support.hpp"

namespace nibble::test {

// ---- tensors ----

template <class T>
Tensor tensor_of(DType dtype, const Shape& shape, const std::vector<T>& values) {
  REQUIRE(bytes_for(dtype, elements_of(shape)) == values.size() * sizeof(T));
  return Tensor::from(dtype, shape, std::span<const T>(values));
}
inline Tensor floats(const Shape& shape, const std::vector<float>& values) {
  return tensor_of(DType::Float32, shape, values);
}
inline Tensor integers(const std::vector<int64_t>& values) { return tensor_of(DType::Int64, {values.size()}, values); }
inline Tensor random_real(const Shape& shape, uint64_t seed, float deviation = 1) {
  return floats(shape, random_floats(elements_of(shape), seed, deviation));
}
template <class T = float>
std::vector<T> values_of(const Tensor& tensor) {
  const std::span<const T> values = tensor.data<T>();
  return {values.begin(), values.end()};
}
/// A tensor of its own storage.
inline Tensor clone(const Tensor& tensor) {
  return tensor.exists() ? Tensor::copy_of(tensor.dtype(), tensor.shape(), tensor.bytes()) : Tensor();
}

// ---- attributes ----

/// An attribute as a test writes it: {"axis", 1}, {"pads", {1, 1, 1, 1}}, {"epsilon", 1e-3f}, {"mode", "linear"}, or
/// a tensor, or a graph.
struct Given {
  std::string name;
  AttributeValue value;
  Tensor tensor = {};

  Given(std::string_view n, int v) : name(n), value(int64_t{v}) {}
  Given(std::string_view n, int64_t v) : name(n), value(v) {}
  Given(std::string_view n, float v) : name(n), value(v) {}
  Given(std::string_view n, double v) : name(n), value(static_cast<float>(v)) {}
  Given(std::string_view n, const char* v) : name(n), value(std::string(v)) {}
  Given(std::string_view n, std::vector<int64_t> v) : name(n), value(std::move(v)) {}
  Given(std::string_view n, std::vector<float> v) : name(n), value(std::move(v)) {}
  Given(std::string_view n, std::vector<std::string> v) : name(n), value(std::move(v)) {}
  Given(std::string_view n, std::initializer_list<int> v) : name(n), value(std::vector<int64_t>(v.begin(), v.end())) {}
  Given(std::string_view n, Tensor v) : name(n), value(ParamRef{}), tensor(std::move(v)) {}
  Given(std::string_view n, std::shared_ptr<const Graph> v) : name(n), value(std::move(v)) {}
};
using Givens = std::vector<Given>;

/// A node by itself. Call refers to it, so it must outlive the calls.
struct Alone {
  Node node;
  std::vector<Param> params;
  const ops::Op* op = nullptr;
  int64_t opset = 0;

  Alone(std::string_view name, std::span<const Tensor> inputs, const Givens& attributes, int64_t version,
        size_t outputs, std::string_view domain)
      : op(ops::find_op(domain, name)), opset(version) {
    REQUIRE_MESSAGE(op != nullptr, "no operator ", std::string(name));
    node.name = "node";
    node.op = name;
    node.domain = domain;
    for (size_t i = 0; i < inputs.size(); ++i) node.inputs.push_back(inputs[i].exists() ? "x" + std::to_string(i) : "");
    for (size_t i = 0; i < outputs; ++i) node.outputs.push_back("y" + std::to_string(i));
    for (const Given& given : attributes) {
      node.attributes.push_back({given.name, given.value, {}});
      if (!std::holds_alternative<ParamRef>(given.value)) continue;
      node.attributes.back().value = ParamRef{params.size(), {}};
      params.push_back({given.name, given.tensor, {}, {}});
    }
  }

  /// The inputs as the executor hands them over: real types as float32 where the operator wants that.
  ops::Call call(std::vector<Tensor> inputs) const {
    if (op->reals == ops::Reals::AsFloat32) {
      for (Tensor& input : inputs) {
        if (!input.exists() || !is_real(input.dtype()) || input.dtype() == DType::Float32) continue;
        input = from_floats(DType::Float32, input.shape(), FloatView(input).values());
      }
    }
    ops::Call made{node, opset, params};
    made.inputs = std::move(inputs);
    return made;
  }
};

// ---- running ----

/// The outputs of one operator on `inputs` (a Tensor() is an input left out), outside training. It runs twice, once on
/// inputs that others hold as well and once on inputs of its own, which it may overwrite: both must give the same bits.
inline std::vector<Tensor> run_op(std::string_view op, const std::vector<Tensor>& inputs, const Givens& attributes = {},
                                  int64_t opset = 21, size_t outputs = 1, std::string_view domain = "") {
  const Alone alone(op, inputs, attributes, opset, outputs, domain);
  std::vector<Tensor> before;
  for (const Tensor& input : inputs) before.push_back(clone(input));
  ops::Call shared = alone.call(inputs);
  const std::vector<Tensor> made = alone.op->forward(shared);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].exists()) CHECK(text_of(inputs[i].bytes()) == text_of(before[i].bytes()));
  }
  ops::Call own = alone.call(std::move(before));
  const std::vector<Tensor> again = alone.op->forward(own);
  REQUIRE(again.size() == made.size());
  for (size_t i = 0; i < made.size(); ++i) {
    REQUIRE(again[i].exists() == made[i].exists());
    if (!made[i].exists()) continue;
    CHECK(again[i].shape() == made[i].shape());
    CHECK(text_of(again[i].bytes()) == text_of(made[i].bytes()));
  }
  return made;
}

/// The Error of an operator that must not run.
inline Error error_of_op(std::string_view op, const std::vector<Tensor>& inputs, const Givens& attributes = {},
                         int64_t opset = 21, size_t outputs = 1, std::string_view domain = "") {
  const Alone alone(op, inputs, attributes, opset, outputs, domain);
  return error_of([&] {
    ops::Call call = alone.call(inputs);
    alone.op->forward(call);
  });
}

struct GradientCheck {
  int64_t opset = 21;
  size_t outputs = 1;   ///< that the node names
  size_t losses = 1;    ///< of them the first, which the loss is made of
  float step = 1e-2f;   ///< of the central differences
  double bound = 1e-2;  ///< of the difference, relative to the input's largest gradient
  size_t samples = 48;  ///< elements looked at per input
  bool training = true;
  uint64_t key = 7;
  std::string domain = "";
};

/// Backward against (loss(x + step) - loss(x - step)) / (2 step), loss = sum of random weights times the outputs,
/// summed in double; for the float32 inputs numbered by `which`.
inline void check_gradients(std::string_view op, const std::vector<Tensor>& inputs, const Givens& attributes,
                            const std::vector<size_t>& which, const GradientCheck& check = {}) {
  const Alone alone(op, inputs, attributes, check.opset, check.outputs, check.domain);
  REQUIRE(alone.op->backward != nullptr);
  const auto run = [&](const std::vector<Tensor>& given, std::vector<Tensor>* saved) {
    ops::Call call = alone.call(given);
    call.training = check.training;
    call.key = check.key;
    std::vector<Tensor> outputs = alone.op->forward(call);
    if (saved) *saved = call.saved;
    return outputs;
  };
  std::vector<Tensor> saved;
  const std::vector<Tensor> outputs = run(inputs, &saved);
  std::vector<Tensor> weights(outputs.size());
  for (size_t i = 0; i < std::min(check.losses, outputs.size()); ++i) {
    if (outputs[i].exists() && outputs[i].dtype() == DType::Float32) {
      weights[i] = random_real(outputs[i].shape(), 1000 + i);
    }
  }
  const auto loss = [&](const std::vector<Tensor>& given) {
    const std::vector<Tensor> made = run(given, nullptr);
    double sum = 0;
    for (size_t i = 0; i < made.size(); ++i) {
      if (!weights[i].exists()) continue;
      const std::span<const float> y = made[i].data<float>(), w = weights[i].data<float>();
      for (size_t j = 0; j < y.size(); ++j) sum += double{y[j]} * w[j];
    }
    return sum;
  };

  ops::Call call = alone.call(inputs);
  call.training = check.training;
  call.key = check.key;
  call.saved = saved;
  call.wanted.assign(inputs.size(), false);
  for (const size_t i : which) call.wanted[i] = true;
  const std::vector<Tensor> grads = alone.op->backward(call, outputs, weights);
  for (const size_t i : which) {
    CAPTURE(i);
    REQUIRE(i < grads.size());
    REQUIRE(grads[i].exists());
    REQUIRE(grads[i].dtype() == DType::Float32);
    REQUIRE(grads[i].shape() == inputs[i].shape());
    const std::span<const float> grad = grads[i].data<float>();
    double largest = 0;
    for (const float g : grad) largest = std::max(largest, std::fabs(double{g}));
    CHECK(largest > 0);
    Random random{mix64(99, i)};
    for (size_t k = 0; k < std::min(check.samples, grad.size()); ++k) {
      const size_t at = grad.size() <= check.samples ? k : random.below(grad.size());
      std::vector<Tensor> moved = inputs;
      const float x = inputs[i].data<float>()[at];
      const float above = x + check.step, below = x - check.step;
      moved[i].write<float>()[at] = above;
      const double high = loss(moved);
      moved[i].write<float>()[at] = below;
      const double expected = (high - loss(moved)) / (double{above} - double{below});
      CAPTURE(at);
      CAPTURE(expected);
      CAPTURE(grad[at]);
      CHECK(std::fabs(expected - double{grad[at]}) <= check.bound * largest);
    }
  }
}

}  // namespace nibble::test
