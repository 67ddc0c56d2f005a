// Normalisations over batches and axes; Dropout. Those of rows are in layer_normalization.cpp.
#include "core/model/ops/normalization.hpp"

#include <cmath>

#include "core/base/context.hpp"

namespace nibble::ops {
namespace {

// --- BatchNormalization ----------------------------------------------------------------------------------------------

struct Batch {
  size_t images = 0, channels = 0, plane = 0;
  float epsilon = 0;
  size_t count() const { return images * plane; }
};

Batch batch_of(const Call& call) {
  const Shape& x = call.in(0).shape();
  if (x.empty()) call.fail("the input must be [images, channels, ...], it is a scalar");
  // ONNX: a tensor of rank 1 is a batch of one channel.
  Batch batch{x[0], x.size() < 2 ? 1 : x[1], extent(x, std::min<size_t>(2, x.size()), x.size()),
              call.real("epsilon", 1e-5f)};
  check_epsilon(call, batch.epsilon);
  if (call.integer("spatial", 1) == 0) call.refuse("statistics for every pixel (spatial = 0)");
  for (size_t i = 1; i < 5; ++i) {
    if (call.floats(i).size() != batch.channels) {
      call.fail("input " + std::to_string(i) + " must have " + std::to_string(batch.channels) + " values, it has " +
                std::to_string(call.in(i).elements()));
    }
  }
  return batch;
}

/// Calls visit(offset) for each plane of a channel.
template <class Visit>
void for_each_image(const Batch& batch, size_t channel, const Visit& visit) {
  for (size_t image = 0; image < batch.images; ++image) visit((image * batch.channels + channel) * batch.plane);
}

bool trains_by_attribute(const Call& call) { return call.opset >= 14 && call.integer("training_mode", 0) != 0; }

/// y = (x - mean) * scale * inverse + bias. The mean is taken off first: folded into the shift it would cancel where it
/// is large against the deviation.
void normalise_channels(const Batch& batch, std::span<const float> mean, std::span<const float> inverse,
                        std::span<const float> scale, std::span<const float> bias, std::span<float> x) {
  for (size_t c = 0; c < batch.channels; ++c) {
    for_each_image(batch, c, [&](size_t at) {
      const std::span<float> plane = x.subspan(at, batch.plane);
      kernels::scale_shift(plane, 1.0f, -mean[c], plane);
      kernels::scale_shift(plane, scale[c] * inverse[c], bias[c], plane);
    });
  }
}

std::vector<float> inverse_deviations(std::span<const float> variance, float epsilon) {
  std::vector<float> inverse(variance.size());
  for (size_t i = 0; i < inverse.size(); ++i) inverse[i] = 1 / std::sqrt(variance[i] + epsilon);
  return inverse;
}

/// Ioffe and Szegedy 2015. saved: the batch's mean, the batch's inverse deviation, new running mean, new running
/// variance.
std::vector<Tensor> batch_training(Call& call, const Batch& batch) {
  const std::span<const float> x = call.floats(0);
  if (batch.count() == 0) call.fail("a batch without elements, " + to_string(call.in(0).shape()));
  const Shape per_channel = {batch.channels};
  Tensor mean = Tensor::allocate(DType::Float32, per_channel), variance = Tensor::allocate(DType::Float32, per_channel);
  const std::span<float> means = mean.write<float>(), variances = variance.write<float>();
  std::vector<float> room(batch.plane);
  const auto count = static_cast<float>(batch.count());
  for (size_t c = 0; c < batch.channels; ++c) {
    float sum = 0, squares = 0;
    for_each_image(batch, c, [&](size_t at) { sum += kernels::sum(x.subspan(at, batch.plane)); });
    means[c] = sum / count;
    for_each_image(batch, c,
                   [&](size_t at) { squares += squared_deviations(x.subspan(at, batch.plane), means[c], room); });
    variances[c] = squares / count;
  }
  const std::vector<float> inverse = inverse_deviations(variances, batch.epsilon);
  const float momentum = call.real("momentum", 0.9f);
  // Outputs that carry running statistics have the running inputs' shape.
  const auto running = [&](size_t input, std::span<const float> now) {
    Tensor made = Tensor::allocate(DType::Float32, call.in(input).shape());
    const std::span<float> values = made.write<float>();
    const std::span<const float> old = call.floats(input);
    for (size_t c = 0; c < batch.channels; ++c) values[c] = momentum * old[c] + (1 - momentum) * now[c];
    return made;
  };
  const Tensor running_mean = running(3, means), running_variance = running(4, variances);
  Tensor y = call.take(0);
  normalise_channels(batch, means, inverse, call.floats(1), call.floats(2), y.write<float>());
  if (call.training) {
    call.saved = {mean, Tensor::from<float>(DType::Float32, per_channel, inverse), running_mean, running_variance};
  }
  std::vector<Tensor> out = {std::move(y), running_mean, running_variance};
  if (call.opset < 14) {  // the batch's own statistics follow; saved_var is the variance
    out.push_back(mean);
    out.push_back(variance);
  }
  return out;
}

std::vector<Tensor> batch_normalization(Call& call) {
  call.floats(0);
  const Batch batch = batch_of(call);
  // Before operator set 7 `is_test` told whether the batch's statistics are taken; a file that is run is one to be
  // tested, as in every other runtime.
  if (call.training || trains_by_attribute(call)) return batch_training(call, batch);
  Tensor y = call.take(0);
  const std::vector<float> inverse = inverse_deviations(call.floats(4), batch.epsilon);
  normalise_channels(batch, call.floats(3), inverse, call.floats(1), call.floats(2), y.write<float>());
  return {y};
}

std::vector<Tensor> batch_normalization_backward(const Call& call, std::span<const Tensor>,
                                                 std::span<const Tensor> grads) {
  const Batch batch = batch_of(call);
  if (!grads[0].exists()) call.refuse("no gradient passes through its running statistics");
  const bool trained = call.saved.size() == 4;
  const std::span<const float> x = call.floats(0), grad_y = grads[0].data<float>(), scale = call.floats(1);
  const std::span<const float> mean = trained ? call.saved[0].data<float>() : call.floats(3);
  std::vector<float> inverse;
  if (trained) {
    const std::span<const float> values = call.saved[1].data<float>();
    inverse.assign(values.begin(), values.end());
  } else {
    inverse = inverse_deviations(call.floats(4), batch.epsilon);
  }
  std::vector<Tensor> out(5);
  out[0] = Tensor::allocate(DType::Float32, call.in(0).shape());
  out[1] = zeros(call.in(1).shape());
  out[2] = zeros(call.in(2).shape());
  const bool wants_running = !trained && (wanted(call, 3) || wanted(call, 4));
  if (wants_running) call.refuse("no gradient reaches its running statistics");
  const std::span<float> grad_x = out[0].write<float>(), grad_scale = out[1].write<float>(),
                         grad_bias = out[2].write<float>();
  std::vector<float> room(batch.plane);
  for (size_t c = 0; c < batch.channels; ++c) {
    float sum = 0, along = 0;
    for_each_image(batch, c, [&](size_t at) {
      const std::span<const float> g = grad_y.subspan(at, batch.plane);
      kernels::scale_shift(x.subspan(at, batch.plane), 1.0f, -mean[c], room);
      sum += kernels::sum(g);
      along += kernels::dot(g, room);
    });
    along *= inverse[c];
    grad_scale[c] = along;
    grad_bias[c] = sum;
    const float factor = scale[c] * inverse[c];
    const auto count = static_cast<float>(batch.count());
    // Through the batch's statistics: factor * (g - mean(g) - n * mean(g n)), n the normalised x.
    const float shift = trained ? -factor * sum / count : 0.0f;
    const float slope = trained ? -factor * along / count * inverse[c] : 0.0f;
    for_each_image(batch, c, [&](size_t at) {
      const std::span<float> to = grad_x.subspan(at, batch.plane);
      kernels::scale_shift(grad_y.subspan(at, batch.plane), factor, shift, to);
      if (!trained) return;
      kernels::scale_shift(x.subspan(at, batch.plane), 1.0f, -mean[c], room);
      kernels::add_scaled(slope, room, to);
    });
  }
  return out;
}

// --- Norms over axes -------------------------------------------------------------------------------------------------

/// ONNX: (x - E[x]) / (sqrt(E[x^2] - E[x]^2) + 1e-9) over `axes`.
std::vector<Tensor> mean_variance_normalization(Call& call) {
  call.floats(0);
  const Tensor& x = call.in(0);
  const size_t rank = x.shape().size();
  const std::vector<int64_t> otherwise = call.opset < 9 && call.integer("across_channels", 0) != 0
                                             ? std::vector<int64_t>{0, 1, 2, 3}
                                             : std::vector<int64_t>{0, 2, 3};
  const std::vector<size_t> axes = axes_of(call, call.integers("axes", otherwise), rank);
  const bool variance = call.opset >= 9 || call.integer("normalize_variance", 1) != 0;
  // The axes go last, rows are normalised, and they go back.
  std::vector<size_t> order;
  for (size_t i = 0; i < rank; ++i) {
    if (std::find(axes.begin(), axes.end(), i) == axes.end()) order.push_back(i);
  }
  size_t size = 1;
  for (const size_t axis : axes) {
    order.push_back(axis);
    size *= x.shape()[axis];
  }
  if (size == 0) call.fail("axes without elements, " + to_string(x.shape()));
  Tensor rows = transposed(call, x, order);
  const std::span<float> values = rows.write<float>();
  for (size_t at = 0; at < values.size(); at += size) {
    const std::span<float> row = values.subspan(at, size);
    kernels::scale_shift(row, 1.0f, -mean_of(row), row);
    if (!variance) continue;
    const float deviation = std::sqrt(kernels::dot(row, row) / static_cast<float>(size));
    kernels::scale_shift(row, 1 / (deviation + 1e-9f), 0.0f, row);
  }
  std::vector<size_t> back(rank);
  for (size_t i = 0; i < rank; ++i) back[order[i]] = i;
  return {transposed(call, rows, back)};
}

struct LpOptions {
  size_t outer = 0, size = 0, inner = 0;
  int64_t p = 2;
};

LpOptions lp_of(const Call& call) {
  const Shape& x = call.in(0).shape();
  const size_t axis = axis_of(call, call.integer("axis", -1), x.size());
  LpOptions options{extent(x, 0, axis), x[axis], extent(x, axis + 1, x.size()), call.integer("p", 2)};
  if (options.p != 1 && options.p != 2) call.fail("p must be 1 or 2, it is " + std::to_string(options.p));
  return options;
}

/// The norm of each row along the axis, [outer, inner].
std::vector<float> norms_of(const LpOptions& options, std::span<const float> x) {
  std::vector<float> norms(options.outer * options.inner, 0.0f);
  for (size_t i = 0; i < x.size(); ++i) {
    float& norm = norms[i / (options.size * options.inner) * options.inner + i % options.inner];
    norm += options.p == 1 ? std::fabs(x[i]) : x[i] * x[i];
  }
  if (options.p == 2) {
    for (float& norm : norms) norm = std::sqrt(norm);
  }
  return norms;
}

std::vector<Tensor> lp_normalization(Call& call) {
  call.floats(0);
  const LpOptions options = lp_of(call);
  Tensor y = call.take(0);
  const std::span<float> values = y.write<float>();
  const std::vector<float> norms = norms_of(options, values);
  for (size_t i = 0; i < values.size(); ++i) {
    const float norm = norms[i / (options.size * options.inner) * options.inner + i % options.inner];
    values[i] = norm == 0 ? 0.0f : values[i] / norm;  // ONNX: where the norm is 0, so is the output
  }
  return {y};
}

/// grad_x = (g - d * sum(g y)) / norm, d being sign(x) for p = 1 and y for p = 2.
std::vector<Tensor> lp_normalization_backward(const Call& call, std::span<const Tensor> outputs,
                                              std::span<const Tensor> grads) {
  const LpOptions options = lp_of(call);
  const std::span<const float> x = call.floats(0), y = outputs[0].data<float>(), g = grads[0].data<float>();
  const std::vector<float> norms = norms_of(options, x);
  std::vector<float> along(norms.size(), 0.0f);
  const auto row = [&](size_t i) { return i / (options.size * options.inner) * options.inner + i % options.inner; };
  for (size_t i = 0; i < x.size(); ++i) along[row(i)] += g[i] * y[i];
  Tensor grad_x = Tensor::allocate(DType::Float32, call.in(0).shape());
  const std::span<float> out = grad_x.write<float>();
  for (size_t i = 0; i < x.size(); ++i) {
    const float norm = norms[row(i)];
    const float sign = x[i] > 0 ? 1.0f : x[i] < 0 ? -1.0f : 0.0f;
    out[i] = norm == 0 ? 0.0f : (g[i] - (options.p == 1 ? sign : y[i]) * along[row(i)]) / norm;
  }
  return {grad_x};
}

// --- Dropout ---------------------------------------------------------------------------------------------------------

struct Drop {
  bool drops = false;
  float ratio = 0.5f;
};

bool flag_of(const Call& call, size_t input) {
  const Tensor& tensor = call.in(input);
  if (tensor.dtype() != DType::Bool || tensor.elements() != 1) {
    call.fail("input " + std::to_string(input) + " must be one bool");
  }
  return tensor.data<uint8_t>()[0] != 0;
}

/// Before operator set 12 the ratio is an attribute and the model's own mode inference; `training` drops in all.
Drop drop_of(const Call& call) {
  Drop drop;
  drop.ratio = call.real("ratio", 0.5f);
  if (call.opset >= 12 && call.has(1)) {
    if (call.floats(1).size() != 1) call.fail("the ratio must be one value");
    drop.ratio = call.floats(1)[0];
  }
  if (!(drop.ratio >= 0 && drop.ratio < 1)) {
    call.fail("the ratio must be at least 0 and below 1, it is " + std::to_string(drop.ratio));
  }
  const bool by_input = call.opset >= 12 && call.has(2) && flag_of(call, 2);
  drop.drops = (call.training || by_input) && drop.ratio > 0;
  if (drop.drops && !call.training) {
    call.refuse(
        "it asks to drop values while the model runs, and ONNX does not say which, so its output means nothing");
  }
  return drop;
}

/// Srivastava et al. 2014, scaled so that the mean stays. Element i stays where number i of the node's stream is at
/// least the ratio. saved: the mask, where something is dropped.
std::vector<Tensor> dropout(Call& call) {
  call.floats(0);
  const Drop drop = drop_of(call);
  Tensor y = call.take(0);
  Tensor mask;
  if (drop.drops || call.wants(1)) mask = full<bool>(y.shape(), true);
  if (drop.drops) {
    const std::span<bool> stays = mask.write<bool>();
    const std::span<float> values = y.write<float>();
    const float scale = 1 / (1 - drop.ratio);
    for (size_t i = 0; i < values.size(); ++i) {
      stays[i] = uniform24(call.key, i) >= drop.ratio;
      values[i] = stays[i] ? values[i] * scale : 0.0f;
    }
    call.saved = {mask};
  }
  std::vector<Tensor> out = {std::move(y)};
  if (!call.wants(1)) return out;
  // Before operator set 10 the mask has the input's type.
  if (call.opset >= 10) {
    out.push_back(mask);
    return out;
  }
  Tensor reals = Tensor::allocate(DType::Float32, mask.shape());
  const std::span<const bool> stays = mask.data<bool>();
  std::transform(stays.begin(), stays.end(), reals.write<float>().begin(),
                 [](bool stay) { return stay ? 1.0f : 0.0f; });
  out.push_back(reals);
  return out;
}

std::vector<Tensor> dropout_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  if (!grads[0].exists()) return {Tensor()};
  Tensor grad = grads[0];
  if (call.saved.empty()) return {grad};
  const float scale = 1 / (1 - drop_of(call).ratio);
  const std::span<float> values = grad.write<float>();
  const std::span<const bool> stays = call.saved[0].data<bool>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = stays[i] ? values[i] * scale : 0.0f;
  return {grad};
}

}  // namespace

std::span<const Op> normalization_ops() {
  static const std::vector<Op> kOps = [] {
    std::vector<Op> all = {
        {.name = "BatchNormalization",
         .forward = batch_normalization,
         .backward = batch_normalization_backward,
         .reals = Reals::AsFloat32,
         .running = {{3, 2}, {4, 3}}},
        {.name = "MeanVarianceNormalization", .forward = mean_variance_normalization, .reals = Reals::AsFloat32},
        {.name = "LpNormalization",
         .forward = lp_normalization,
         .backward = lp_normalization_backward,
         .reals = Reals::AsFloat32},
        {.name = "Dropout", .forward = dropout, .backward = dropout_backward, .reals = Reals::AsFloat32},
    };
    const std::span<const Op> rows = row_normalization_ops();
    all.insert(all.end(), rows.begin(), rows.end());
    return all;
  }();
  return kOps;
}

}  // namespace nibble::ops
