#include "core/model/score.hpp"

#include <algorithm>

#include "core/base/error.hpp"
#include "core/kernels/compute.hpp"

namespace nibble {

Score cross_entropy(std::span<const float> logits, size_t classes, std::span<const int32_t> labels,
                    std::span<float> grad, float scale, std::span<int32_t> predicted, std::span<float> confidence) {
  Score score;
  std::vector<float> row(classes), probability(classes);
  const size_t rows = classes ? logits.size() / classes : 0;
  for (size_t r = 0; r < rows; ++r) {
    const std::span<const float> in = logits.subspan(r * classes, classes);
    kernels::log_softmax_rows(in, classes, row);
    const auto best = static_cast<size_t>(std::max_element(in.begin(), in.end()) - in.begin());
    if (!predicted.empty()) predicted[r] = static_cast<int32_t>(best);
    if (!confidence.empty()) {
      kernels::exp(std::span<const float>(row).subspan(best, 1), std::span(probability).first(1));
      confidence[r] = probability[0];
    }
    if (labels.empty()) continue;
    const auto label = static_cast<size_t>(labels[r]);
    score.loss -= row[label];
    score.correct += best == label;
    if (grad.empty()) continue;
    kernels::exp(row, probability);
    const std::span<float> out = grad.subspan(r * classes, classes);
    for (size_t c = 0; c < classes; ++c) out[c] = (probability[c] - (c == label ? 1.0f : 0.0f)) * scale;
  }
  return score;
}

Score mean_squared(std::span<const float> out, size_t outputs, std::span<const float> targets, std::span<float> grad,
                   float scale) {
  Score score;
  double sum = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const float error = out[i] - targets[i];
    sum += static_cast<double>(error) * error;
    if (!grad.empty()) grad[i] = 2 * error / static_cast<float>(outputs) * scale;
  }
  score.loss = outputs ? sum / static_cast<double>(outputs) : 0;
  return score;
}

std::optional<size_t> fixed_batch(const Program& program) {
  if (program.inputs().size() != 1) return std::nullopt;
  const Value& input = program.inputs()[0];
  if (!input.ranked || input.shape.empty()) return std::nullopt;
  const auto* fixed = std::get_if<int64_t>(&input.shape[0]);
  if (!fixed || *fixed <= 0) return std::nullopt;
  return static_cast<size_t>(*fixed);
}

std::vector<Tensor> run_samples(const Program& program, const Tensor& samples, const RunOptions& options) {
  if (program.inputs().size() != 1) {
    fail(ErrorCode::Unsupported, "model",
         "it has " + std::to_string(program.inputs().size()) + " inputs, and data can fill one");
  }
  const Value& input = program.inputs()[0];
  const DType dtype = input.dtype.value_or(DType::Float32);
  if (!is_real(dtype)) {
    fail(ErrorCode::Unsupported, "input \"" + input.name + "\"",
         "it takes " + std::string(to_string(dtype)) + ", and data are real numbers");
  }
  Tensor given = dtype == DType::Float32 ? samples : from_floats(dtype, samples.shape(), samples.data<float>());
  std::vector<Tensor> inputs;
  inputs.push_back(std::move(given));
  return program.forward(std::move(inputs), options);
}

Tensor as_rows(const Tensor& output, size_t samples) {
  if (!is_real(output.dtype()) || samples == 0 || output.elements() % samples != 0) {
    fail(ErrorCode::BadData, "output",
         std::to_string(samples) + " samples gave a " + std::string(to_string(output.dtype())) + " tensor of shape " +
             to_string(output.shape()) + ", which is not a row of numbers for each");
  }
  const Shape shape{samples, output.elements() / samples};
  if (output.dtype() == DType::Float32) return output.reshaped(shape);
  const FloatView view(output);
  return Tensor::from(DType::Float32, shape, view.values());
}

}  // namespace nibble
