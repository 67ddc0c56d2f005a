// Training: losses, optimizers, schedules, and a loop that can be stopped, saved and resumed bit for bit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/context.hpp"
#include "core/data/data.hpp"
#include "core/model/model.hpp"

namespace nibble {

enum class Loss : uint8_t {
  CrossEntropy,  ///< of softmax(output) and the label; a model that ends in Softmax or LogSoftmax is trained before it
  MeanSquared,   ///< mean over outputs of (output - target)^2
};
enum class Optimizer : uint8_t { Sgd, Adam, AdamW };
enum class Schedule : uint8_t { Constant, Cosine, Step };

struct TrainChoice {
  size_t epochs = 5, batch = 64;
  Loss loss = Loss::CrossEntropy;
  Optimizer optimizer = Optimizer::Adam;
  double learning_rate = 0.001;
  double momentum = 0.9;    ///< sgd
  double weight_decay = 0;  ///< on weights, not on biases and normalisation parameters
  Schedule schedule = Schedule::Cosine;
  double warmup = 0;                          ///< epochs in which the rate rises linearly from 0
  double step_epochs = 2, step_factor = 0.1;  ///< step: the rate is multiplied by the factor every so many epochs
  double clip_norm = 0;    ///< gradients of a larger 2-norm (all params together) are scaled down to it; 0: never
  bool keep_masks = true;  ///< pruned weights stay zero
  bool keep_grids = true;  ///< quantized weights stay on their grid (straight-through gradient)
  size_t patience = 0;     ///< stop after so many epochs without a better validation loss; 0: never
};

/// Where training stands, after each batch.
struct TrainProgress {
  size_t epoch = 0, epochs = 0, batch = 0, batches = 0;  ///< within the epoch
  size_t step = 0, steps = 0;                            ///< in all
  double loss = 0;                                       ///< of this batch
  double accuracy = 0;                                   ///< of this batch; for regression the same as loss
  double learning_rate = 0;
  double seconds = 0;
  /// After an epoch's last batch: of the validation split.
  std::optional<double> validation_loss, validation_accuracy;
  bool best = false;  ///< the validation loss is the lowest so far
  bool done = false;
};

class Trainer {
 public:
  /// Throws Error{Unsupported} where the model has no gradient (naming the node), Error{BadData} where data and model
  /// do not fit, Error{BadRecipe} for choices out of range.
  Trainer(const Model& model, const Dataset& dataset, const Split& split, const Preparation& preparation,
          const TrainChoice& choice, uint64_t seed);
  Trainer(Trainer&&) noexcept;
  ~Trainer();

  /// One batch; after an epoch's last one the validation split too. Throws Error{BadData} where the loss is not a
  /// number, naming the batch; the weights are then those of the best epoch so far (or the start).
  TrainProgress step(const Context& context);
  bool done() const;

  /// The model with the weights as they are now, or with those of the best validation loss.
  Model current() const;
  Model best() const;

  /// Everything that the next step depends on, and back. restore() throws Error{BadFile} for bytes that are not from a
  /// trainer of the same model, data and choice.
  std::vector<std::byte> save() const;
  void restore(std::span<const std::byte> saved);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Runs to the end and gives the best model.
Model train(const Model& model, const Dataset& dataset, const Split& split, const Preparation& preparation,
            const TrainChoice& choice, uint64_t seed, const Context& context,
            const std::function<void(const TrainProgress&)>& listener = {});

std::string_view to_string(Loss loss);            ///< "cross_entropy", "mean_squared"
std::string_view to_string(Optimizer optimizer);  ///< "sgd", "adam", "adamw"
std::string_view to_string(Schedule schedule);    ///< "constant", "cosine", "step"

}  // namespace nibble
