// The operators: one file per family, each operator's checks, shapes, forward and backward side by side, in one table.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/model.hpp"

namespace nibble::ops {

/// One node about to run. An input or output that is left out (ONNX's empty name, or none at the end) is a Tensor that
/// does not exist().
struct Call {
  const Node& node;
  int64_t opset = 0;                   ///< of the node's domain
  std::span<const Param> params = {};  ///< of the model: attributes that hold tensors refer to them
  std::vector<Tensor> inputs = {};     ///< in the node's order; all exist() that the node names
  /// True while training: BatchNormalization takes the batch's statistics, Dropout drops, and `saved` is wanted.
  bool training = false;
  uint64_t key = 0;                ///< of this node's random stream in this run
  std::vector<Tensor> saved = {};  ///< what forward leaves for backward; only looked at when training
  std::vector<bool> wanted = {};   ///< backward: which inputs' gradients are asked for
  /// Runs a graph that an attribute holds; it may name values of the graphs around it.
  std::function<std::vector<Tensor>(const Graph&, std::vector<Tensor> inputs)> run_graph = {};

  bool has(size_t input) const { return input < inputs.size() && inputs[input].exists(); }
  /// The input, which must exist: throws Error{BadData} naming the node and the input's number.
  const Tensor& in(size_t input) const;
  /// The input as float32: what operators whose Reals is AsFloat32 always get. Throws where it is another type.
  std::span<const float> floats(size_t input) const;
  /// The input moved out. Where nobody else needs it any more its storage is unshared, and write() is in place.
  Tensor take(size_t input);
  /// Values of an int32 or int64 input.
  std::vector<int64_t> integers(size_t input) const;
  /// True where the node names this output.
  bool wants(size_t output) const;

  // Attributes, or `otherwise` where absent. A wrong type throws Error{BadFile}.
  bool has_attribute(std::string_view name) const { return find_attribute(node, name) != nullptr; }
  int64_t integer(std::string_view name, int64_t otherwise) const;
  float real(std::string_view name, float otherwise) const;
  std::string text(std::string_view name, std::string_view otherwise) const;
  /// An element type by ONNX's number; 0 is `otherwise` too. A number that is no type's throws Error{BadData}.
  DType type(std::string_view name, DType otherwise) const;
  std::vector<int64_t> integers(std::string_view name, std::vector<int64_t> otherwise = {}) const;
  std::vector<float> reals(std::string_view name, std::vector<float> otherwise = {}) const;
  const Tensor& tensor(std::string_view name) const;  ///< must be there
  const Graph& graph(std::string_view name) const;    ///< must be there

  /// "conv1 (Conv)", or "the node that makes y (Conv)" for a node without a name.
  std::string label() const;
  /// Throws Error{Unsupported}: valid ONNX that Nibble cannot run.
  [[noreturn]] void refuse(const std::string& message) const;
  /// Throws Error{BadData}: shapes, types or values that break the operator's rules.
  [[noreturn]] void fail(const std::string& message) const;
};

/// Gives the node's outputs, as many as it names (those it leaves out at the end may be missing).
using Forward = std::vector<Tensor> (*)(Call& call);

/// Gives the gradient of each input, in their order; those that are not wanted, or have none, do not exist(). Called
/// with call.inputs and call.saved as forward had and left them, its outputs, and the gradients of those (of the same
/// shape; an output that nothing depends on has none). All gradients are float32.
using Backward = std::vector<Tensor> (*)(const Call& call, std::span<const Tensor> outputs,
                                         std::span<const Tensor> grads);

/// How an operator takes inputs of real types.
enum class Reals : uint8_t {
  AsFloat32,  ///< float16, bfloat16 and float64 arrive as float32; float32 outputs become the first real input's type
  Own,        ///< as they are: the operator looks at the types itself
};

struct Op {
  std::string_view name;
  Forward forward = nullptr;
  Backward backward = nullptr;  ///< null: training across it is refused, where a gradient arrives at all
  Reals reals = Reals::Own;
  /// Input i is a running statistic: after a training step it becomes saved[j], for each pair (i, j).
  std::vector<std::pair<size_t, size_t>> running = {};
  std::string_view domain = "";
  /// AsFloat32: the input that decides the outputs' type; those before it are never real.
  size_t first_real = 0;
};

// The families; a span over a static table each.
std::span<const Op> convolution_ops();    ///< Conv, ConvTranspose, pooling, Resize and other image operators
std::span<const Op> normalization_ops();  ///< BatchNormalization, LayerNormalization, ... , Dropout
std::span<const Op> product_ops();        ///< MatMul, Gemm, Einsum, the integer and quantized products
std::span<const Op> arithmetic_ops();     ///< Add, Pow, Max, comparison, logic, bits, Where
std::span<const Op> elementwise_ops();    ///< Abs, Round, Exp, Sin, Clip, IsNaN, Identity
std::span<const Op> activation_ops();     ///< Relu, Sigmoid, Gelu, PRelu, ...
std::span<const Op> cast_ops();           ///< Cast, CastLike, BitCast
std::span<const Op> random_ops();         ///< RandomNormal, RandomUniform and the like
std::span<const Op> reduction_ops();      ///< Reduce*, ArgMax, ArgMin, CumSum, CumProd
std::span<const Op> softmax_ops();        ///< Softmax, LogSoftmax, Hardmax
std::span<const Op> ranking_ops();        ///< TopK, NonZero, Unique, Det
std::span<const Op> shape_ops();          ///< Reshape, Transpose, Slice, Gather, Scatter, Pad, ...
std::span<const Op> quantization_ops();   ///< QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear
std::span<const Op> sequence_ops();       ///< LSTM, GRU, RNN, Attention, RotaryEmbedding
std::span<const Op> loss_ops();           ///< SoftmaxCrossEntropyLoss, NegativeLogLikelihoodLoss
std::span<const Op> control_ops();        ///< If, Loop, Scan

/// Null where we have none.
const Op* find_op(std::string_view domain, std::string_view name);

}  // namespace nibble::ops
