// SoftmaxCrossEntropyLoss and NegativeLogLikelihoodLoss.
#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

enum class Summary : uint8_t { None, Sum, Mean };

/// The labels looked up: scores are [images, classes, places], a label for each image and place.
struct Labels {
  size_t images = 0, classes = 0, places = 1;
  Shape shape;  ///< of the labels
  Summary summary = Summary::Mean;
  std::vector<size_t> label;  ///< 0 where it is ignored
  std::vector<float> weight;  ///< of the label's class; 0 where it is ignored
  double total = 0;           ///< of the weights

  explicit Labels(const Call& call) {
    const Shape &scores = call.in(0).shape(), &given = call.in(1).shape();
    if (scores.size() < 2)
      call.fail("scores must have an axis of images and one of classes, their shape is " + to_string(scores));
    images = scores[0];
    classes = scores[1];
    places = extent(scores, 2, scores.size());
    shape = scores;
    shape.erase(shape.begin() + 1);
    if (given != shape)
      call.fail("labels must have shape " + to_string(shape) + " for scores of shape " + to_string(scores) +
                ", theirs is " + to_string(given));

    const std::string reduction = call.text("reduction", "mean");
    if (reduction == "none")
      summary = Summary::None;
    else if (reduction == "sum")
      summary = Summary::Sum;
    else if (reduction != "mean")
      call.fail("attribute \"reduction\" must be none, sum or mean, it is \"" + reduction + "\"");

    std::span<const float> weights;
    if (call.has(2)) {
      weights = call.floats(2);
      if (weights.size() != classes)
        call.fail(std::to_string(weights.size()) + " weights are given for " + std::to_string(classes) + " classes");
    }
    const bool ignores = call.has_attribute("ignore_index");
    const int64_t ignored = call.integer("ignore_index", 0);
    for (const int64_t value : call.integers(1)) {
      const bool skip = ignores && value == ignored;
      if (!skip && (value < 0 || static_cast<uint64_t>(value) >= classes)) {
        call.fail("label " + std::to_string(value) + " is none of " + std::to_string(classes) + " classes");
      }
      label.push_back(skip ? 0 : static_cast<size_t>(value));
      weight.push_back(skip ? 0 : weights.empty() ? 1 : weights[label.back()]);
      total += weight.back();
    }
  }

  /// Where the label's score lies among the scores, in ONNX's order.
  size_t at(size_t i) const { return (i / places * classes + label[i]) * places + i % places; }
};

/// What is subtracted from a label's weight: nothing is multiplied where it is 0, so that an infinite score of an
/// ignored label does no harm.
Tensor summed_up(const Labels& labels, std::span<const float> log_probability) {
  std::vector<float> losses(labels.label.size());
  double sum = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    losses[i] = labels.weight[i] == 0 ? 0 : -labels.weight[i] * log_probability[labels.at(i)];
    sum += losses[i];
  }
  if (labels.summary == Summary::None)
    return Tensor::from(DType::Float32, labels.shape, std::span<const float>(losses));
  if (labels.summary == Summary::Mean) sum /= labels.total;
  return full(Shape{}, static_cast<float>(sum));
}

/// d loss / d log probability of each label.
std::vector<float> label_slopes(const Labels& labels, const Tensor& grad) {
  const std::span<const float> given = grad.data<float>();
  std::vector<float> slopes(labels.label.size());
  for (size_t i = 0; i < slopes.size(); ++i) {
    const float g = labels.summary == Summary::None  ? given[i]
                    : labels.summary == Summary::Sum ? given[0]
                                                     : static_cast<float>(given[0] / labels.total);
    slopes[i] = labels.weight[i] == 0 ? 0 : -labels.weight[i] * g;
  }
  return slopes;
}

std::vector<Tensor> likelihood(Call& call) {
  const Labels labels(call);
  return {summed_up(labels, call.floats(0))};
}

std::vector<Tensor> likelihood_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Labels labels(call);
  Tensor out = zeros(call.in(0).shape());
  const std::span<float> to = out.write<float>();
  const std::vector<float> slopes = label_slopes(labels, grads[0]);
  for (size_t i = 0; i < slopes.size(); ++i) to[labels.at(i)] = slopes[i];
  return {std::move(out)};
}

/// Scores [images, classes, places] to rows of classes, or back.
Tensor turned(const Call& call, const Tensor& x, size_t images, size_t second, size_t third) {
  if (second == 1 || third == 1 || x.elements() == 0) return x;
  constexpr size_t kOrder[] = {0, 2, 1};
  return transposed(call, x.reshaped({images, second, third}), kOrder);
}

std::vector<Tensor> cross_entropy(Call& call) {
  const Labels labels(call);
  call.floats(0);
  const Tensor rows = turned(call, call.in(0), labels.images, labels.classes, labels.places);
  Tensor logs = Tensor::allocate(DType::Float32, rows.shape());
  if (rows.elements() > 0) kernels::log_softmax_rows(rows.data<float>(), labels.classes, logs.write<float>());
  logs = turned(call, logs, labels.images, labels.places, labels.classes).reshaped(call.in(0).shape());
  if (call.training) call.saved = {logs};
  Tensor loss = summed_up(labels, logs.data<float>());
  return {std::move(loss), std::move(logs)};
}

/// Through the logarithm of the softmax: g - softmax * sum(g) for each row, g being what arrives at the logarithms.
std::vector<Tensor> cross_entropy_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Labels labels(call);
  const Tensor& logs = call.saved.at(0);
  Tensor out = Tensor::allocate(DType::Float32, call.in(0).shape());
  const std::span<float> to = out.write<float>();
  std::vector<float> sums(labels.label.size(), 0.0f), slopes(labels.label.size(), 0.0f);
  if (grads[0].exists()) slopes = sums = label_slopes(labels, grads[0]);
  std::span<const float> also;
  if (grads.size() > 1 && grads[1].exists()) also = grads[1].data<float>();
  const size_t image = labels.classes * labels.places;
  for (size_t i = 0; i < also.size(); ++i) sums[i / image * labels.places + i % labels.places] += also[i];
  kernels::exp(logs.data<float>(), to);
  for (size_t i = 0; i < to.size(); ++i) {
    to[i] = (also.empty() ? 0 : also[i]) - to[i] * sums[i / image * labels.places + i % labels.places];
  }
  for (size_t i = 0; i < slopes.size(); ++i) {
    if (slopes[i] != 0) to[labels.at(i)] += slopes[i];
  }
  return {std::move(out)};
}

const Op kOps[] = {
    {"SoftmaxCrossEntropyLoss", cross_entropy, cross_entropy_backward, Reals::AsFloat32},
    {"NegativeLogLikelihoodLoss", likelihood, likelihood_backward, Reals::AsFloat32},
};

}  // namespace

std::span<const Op> loss_ops() { return kOps; }

}  // namespace nibble::ops
