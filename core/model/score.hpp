// What a model's output says about labels and targets: loss, its gradient, predictions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/model/execute.hpp"

namespace nibble {

/// Sums over samples; `correct` counts those whose largest logit is the label's.
struct Score {
  double loss = 0;
  size_t correct = 0;
};

/// Cross-entropy -log(softmax(logits)[label]) of rows of `classes` logits. `grad`, where not empty, gets
/// (softmax - onehot) * scale. `predicted` and `confidence` (the softmax of the predicted class), where not empty, get
/// one entry per row. `labels` may be empty: then only predictions are made. Labels are below `classes`.
Score cross_entropy(std::span<const float> logits, size_t classes, std::span<const int32_t> labels,
                    std::span<float> grad, float scale, std::span<int32_t> predicted, std::span<float> confidence);

/// Mean over a sample's outputs of (output - target)^2, summed over samples of `outputs` numbers. `grad`, where not
/// empty, gets 2 (output - target) / outputs * scale.
Score mean_squared(std::span<const float> out, size_t outputs, std::span<const float> targets, std::span<float> grad,
                   float scale);

/// How many samples the model takes at a time where its input says so; none where the batch extent is free.
std::optional<size_t> fixed_batch(const Program& program);

/// Calls run(piece, real, done) for pieces of `indices` that a model can take: of `largest` samples, or of the number
/// that it takes, the last one then filled up with copies of its first. The first `real` are meant; `done` is the share
/// of samples before this piece.
template <class Run>
void for_each_piece(std::span<const uint32_t> indices, std::optional<size_t> fixed, size_t largest, const Run& run) {
  const size_t size = fixed.value_or(largest);
  for (size_t at = 0; at < indices.size(); at += size) {
    const size_t real = std::min(size, indices.size() - at);
    const std::span<const uint32_t> meant = indices.subspan(at, real);
    std::vector<uint32_t> piece(meant.begin(), meant.end());
    if (fixed) piece.resize(size, piece[0]);
    run(piece, real, static_cast<double>(at) / static_cast<double>(indices.size()));
  }
}

/// Runs samples [n, ...], float32, as the one input of the program, which has another real type perhaps and a fixed
/// number of samples perhaps: then n is that number. Throws Error{Unsupported} where the program has several inputs or
/// takes whole numbers.
std::vector<Tensor> run_samples(const Program& program, const Tensor& samples, const RunOptions& options = {});

/// An output as rows, one per sample, float32. Throws Error{BadData} where its elements cannot be divided by `samples`.
Tensor as_rows(const Tensor& output, size_t samples);

}  // namespace nibble
