// What a model does with data: accuracy, and where two models part.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/base/context.hpp"
#include "core/data/data.hpp"
#include "core/model/model.hpp"

namespace nibble {

struct Evaluation {
  size_t samples = 0, classes = 0;
  double loss = 0;                   ///< cross-entropy of labels, mean squared error of targets; 0 without either
  std::optional<double> accuracy;    ///< of labelled data
  std::vector<uint32_t> confusion;   ///< [true class, predicted class]; empty beyond 1,024 classes
  std::vector<int32_t> predictions;  ///< a class for each sample; empty for regression
  std::vector<float> confidence;     ///< softmax of the predicted class
  double seconds = 0;                ///< in the model alone
};
/// Of the first output. Throws Error{Unsupported} where the model cannot be run, Error{BadData} where data do not fit.
Evaluation evaluate(const Model& model, const Dataset& dataset, std::span<const uint32_t> indices,
                    const Preparation& preparation, const Context& context);

/// How far one value of the graph is from its twin in the other model, over all samples that were run.
struct ActivationError {
  std::string name;                  ///< the value
  std::string node, op;              ///< that makes it
  std::vector<std::string> weights;  ///< params that this node uses
  Shape shape;                       ///< of one sample
  double mse = 0, sqnr_db = 0, max_abs = 0, cosine = 0;
};

struct Comparison {
  Evaluation before, after;
  std::vector<ActivationError> activations;  ///< in graph order, of the values that both models have
  /// Samples whose predicted class differs, as positions in the `indices` that were given.
  std::vector<uint32_t> flipped;
  double agreement = 0;  ///< share of samples with the same predicted class
};
Comparison compare(const Model& before, const Model& after, const Dataset& dataset, std::span<const uint32_t> indices,
                   const Preparation& preparation, const Context& context);

/// The preparation that the model's metadata gives (nibble.scale, nibble.mean, nibble.std), or else one that fits the
/// model's input shape, with the numbers' range chosen among 0 to 255, 0 to 1, -1 to 1 and MNIST's standardisation by
/// which gives the best accuracy on `calibration`; `reason` says which, and what the others gave. Throws Error{BadData}
/// where the input's shape cannot be met.
Preparation guess_preparation(const Model& model, const Dataset& dataset, std::span<const uint32_t> calibration,
                              const Context& context);

/// One value of the graph for one sample, for pictures: float32 of its own shape without the batch extent.
Tensor activation(const Model& model, const Dataset& dataset, uint32_t index, const Preparation& preparation,
                  const std::string& value);

}  // namespace nibble
