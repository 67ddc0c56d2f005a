// Running a model, forward and backward.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/context.hpp"
#include "core/model/model.hpp"

namespace nibble {

/// Sees a value as soon as it is made: its name and the node that makes it. Calibration, activation errors and maps,
/// Hessians are taps.
using Tap = std::function<void(const std::string& name, const Node& node, const Tensor& value)>;

/// What a forward pass leaves behind for the backward pass: every value, and what operators saved.
struct Tape {
  struct Entry {
    size_t node = 0;
    std::vector<Tensor> inputs, outputs, saved;
    uint64_t key = 0;
  };
  std::vector<Entry> entries;
  std::vector<std::pair<size_t, Tensor>> running;  ///< running statistics after this pass: param and its new value
};

struct RunOptions {
  Tap tap = {};
  bool training = false;               ///< batch statistics, dropout
  uint64_t key = 0;                    ///< of the random streams of this run
  Tape* tape = nullptr;                ///< filled where not null; nothing is then computed in place
  std::vector<std::string> also = {};  ///< values to be given beside the graph's outputs, in this order, after them
};

/// A graph made ready to run: operators looked up, values numbered, last uses known, what depends on constants alone
/// computed once. Holds the model's values by sharing; whoever trains writes them here.
class Program {
 public:
  /// `trained`: params whose values will change (set), so nothing that depends on them is computed in advance.
  /// Throws Error{Unsupported} naming each operator that cannot be run, with its node and operator set.
  explicit Program(const Model& model, std::span<const size_t> trained = {});
  Program(Program&&) noexcept;
  ~Program();

  /// The graph's inputs that are not initializers: what forward() wants, in this order.
  const std::vector<Value>& inputs() const;
  const std::vector<Value>& outputs() const;

  /// Outputs in the graph's order. A value is freed after its last use, and an operator whose input nobody else needs
  /// works in place. Throws Error{BadData} naming the input or the node for shapes and types that do not fit.
  std::vector<Tensor> forward(std::vector<Tensor> inputs, const RunOptions& options = {}) const;

  /// d(sum_i sum(outputs[i] * grads[i])) / d(param) for each of the `trained` params, in that order; float32, of the
  /// param's shape; zeros where nothing depends on it. Throws Error{Unsupported} naming a node on the way that has no
  /// gradient.
  std::vector<Tensor> backward(const Tape& tape, std::span<const Tensor> grads) const;
  /// The same with respect to graph inputs and tapped values by name, for those who need them (distillation, tests).
  std::vector<Tensor> backward(const Tape& tape, std::span<const Tensor> grads,
                               std::span<const std::string> with_respect_to) const;

  const Tensor& value(size_t param) const;
  void set(size_t param, Tensor value);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The model with its first output taken before a final Softmax or LogSoftmax over the last axis (or the only axis that
/// is not 1): the logits that cross-entropy wants, numerically sounder than the logarithm of a probability. The model
/// itself where it does not end so.
Model before_softmax(const Model& model);

/// Why the model cannot be run: one sentence naming the operators, or "" where it can.
std::string cannot_run(const Model& model);

}  // namespace nibble
