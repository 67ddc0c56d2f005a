// How much the loss bends along each weight: what an error in it costs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/context.hpp"
#include "core/data/data.hpp"
#include "core/model/model.hpp"

namespace nibble {

/// Second moments of a layer's inputs, E[x x^T], for each group of a grouped convolution: [groups, columns, columns],
/// row-major, symmetric. Columns are the inputs of one output channel in row order (rows_of).
struct InputMoments {
  size_t groups = 0, columns = 0;
  std::vector<double> values;
};

struct Curvature {
  /// For each of the model's params: E[g^2] of the gradients of -log p(y | x), y drawn from the model's own output (the
  /// diagonal of the Fisher information, which for small errors is the second derivative of the loss; Kunstner et al.,
  /// arXiv:1905.12558, say why y is not the label). In nats per squared unit of the weight. Empty where the param is
  /// not learnt, nor a running mean or variance of a BatchNormalization, for which it follows from its scale and bias.
  std::vector<std::vector<float>> diagonal;
  /// For each of the model's weights, where asked for and where its node is a Conv, a Gemm or a MatMul that uses it as
  /// it is, with at most kMostColumns inputs, as long as all together take at most a gigabyte; else empty.
  std::vector<InputMoments> inputs;

  static constexpr size_t kMostColumns = 2048;
};

/// From the given samples: gradients from at most 256 of them, moments from all, of which there should be several times
/// as many as a layer has inputs. Throws Error{Unsupported} naming a node that has no gradient, and what running a
/// model throws.
Curvature measure_curvature(const Model& model, const Dataset& dataset, std::span<const uint32_t> indices,
                            const Preparation& preparation, bool with_inputs, uint64_t key, const Context& context);

}  // namespace nibble
