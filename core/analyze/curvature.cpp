#include "core/analyze/curvature.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/model/score.hpp"

namespace nibble {

namespace {

/// Rows of inputs that are summed for one layer, over all samples: several times as many as a layer has columns, and no
/// more, because a convolution of an image has thousands of positions that say the same.
constexpr size_t kRows = 8192;
/// Samples that gradients are taken of, one by one: their mean square settles long before the moments of a wide layer
/// do.
constexpr size_t kGradients = 256;
/// Samples that run at a time.
constexpr size_t kBatch = 32;
/// Memory for the moments of all layers together.
constexpr uint64_t kMostMomentBytes = uint64_t{1} << 30;

/// A layer whose inputs are looked at.
struct Layer {
  size_t weight = 0;
  const Node* node = nullptr;
  Shape shape;  ///< of the weight
  bool convolution = false;
  size_t groups = 1, columns = 0;
};

std::vector<Layer> find_layers(const Model& model) {
  std::unordered_map<std::string_view, std::vector<const Node*>> users;
  for (const Node& node : model.graph->nodes) {
    if (node.inputs.size() > 1 && node.domain.empty()) users[node.inputs[1]].push_back(&node);
  }
  std::unordered_map<size_t, std::string_view> names;
  for (const Initializer& initializer : model.graph->initializers) names.emplace(initializer.param, initializer.name);
  std::vector<Layer> layers;
  uint64_t bytes = 0;
  for (size_t i = 0; i < model.weights->size(); ++i) {
    const Weight& weight = (*model.weights)[i];
    const auto name = names.find(weight.param);
    if (name == names.end() || !weight.channel_axis) continue;
    const auto used = users.find(name->second);
    if (used == users.end() || used->second.size() != 1) continue;
    const Node& node = *used->second[0];
    Layer layer{i, &node, model.params[weight.param].value.shape(), node.op == "Conv", 1, 0};
    const bool dense = node.op == "MatMul" || (node.op == "Gemm" && !int_attribute(node, "transA", 0));
    const size_t rank = layer.shape.size();
    if (layer.convolution ? rank != 3 && rank != 4 : !dense || rank != 2) continue;
    if (layer.convolution) layer.groups = static_cast<size_t>(std::max<int64_t>(1, int_attribute(node, "group", 1)));
    layer.columns = rows_of(layer.shape, weight.channel_axis).length();
    if (layer.columns == 0 || layer.columns > Curvature::kMostColumns || layer.shape[0] % layer.groups) continue;
    const uint64_t square = uint64_t{layer.columns} * layer.columns * sizeof(double);
    if (layer.groups > (kMostMomentBytes - bytes) / square) continue;
    bytes += layer.groups * square;
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::vector<int64_t> ints_attribute(const Node& node, std::string_view name, size_t count, int64_t otherwise) {
  const Attribute* attribute = find_attribute(node, name);
  const auto* values = attribute ? std::get_if<std::vector<int64_t>>(&attribute->value) : nullptr;
  return values && values->size() == count ? *values : std::vector<int64_t>(count, otherwise);
}

/// moments += x x^T, the part on and below the diagonal.
void add_row(std::span<const float> x, std::span<double> moments) {
  const size_t columns = x.size();
  for (size_t i = 0; i < columns; ++i) {
    const double value = x[i];
    if (value == 0) continue;
    double* const row = moments.data() + i * columns;
    for (size_t j = 0; j <= i; ++j) row[j] += value * x[j];
  }
}

/// Sums the rows of one layer's input for the first `samples` of a batch, which are those from `first` on: at most
/// `most` of each, spread over it. Returns how many.
size_t add_inputs(const Layer& layer, const Tensor& input, const Tensor& output, size_t first, size_t samples,
                  size_t most, InputMoments& moments) {
  const std::span<const float> all = input.data<float>();
  const size_t square = layer.columns * layer.columns, batch = input.shape().empty() ? 1 : input.shape()[0];
  const size_t size = all.size() / std::max<size_t>(batch, 1);
  samples = std::min(samples, batch);
  size_t added = 0;
  if (!layer.convolution) {
    const size_t rows = size / layer.columns, step = std::max<size_t>(1, (rows + most - 1) / most);
    for (size_t sample = 0; sample < samples; ++sample) {
      for (size_t row = 0; row < rows; row += step, ++added)
        add_row(all.subspan(sample * size + row * layer.columns, layer.columns), moments.values);
    }
    return added;
  }
  // [1, channels, height, width] and [out, channels / groups, kernel]; one axis is two with a height of 1.
  const auto plane = [](const Shape& shape) {
    return shape.size() == 4 ? std::pair(shape[2], shape[3]) : std::pair(size_t{1}, shape[2]);
  };
  const auto [height, width] = plane(input.shape());
  const auto [out_height, out_width] = plane(output.shape());
  const auto [kernel_height, kernel_width] = plane(layer.shape);
  const size_t spatial = layer.shape.size() - 2;
  std::vector<int64_t> strides = ints_attribute(*layer.node, "strides", spatial, 1);
  std::vector<int64_t> dilations = ints_attribute(*layer.node, "dilations", spatial, 1);
  std::vector<int64_t> pads = ints_attribute(*layer.node, "pads", 2 * spatial, 0);
  if (spatial == 1) {
    strides.insert(strides.begin(), 1);
    dilations.insert(dilations.begin(), 1);
    pads = {0, pads[0], 0, pads[1]};
  }
  const Attribute* auto_pad = find_attribute(*layer.node, "auto_pad");
  const auto* mode = auto_pad ? std::get_if<std::string>(&auto_pad->value) : nullptr;
  if (mode && mode->starts_with("SAME")) {
    const size_t in[2] = {height, width}, out[2] = {out_height, out_width}, kernel[2] = {kernel_height, kernel_width};
    for (size_t axis = 0; axis < 2; ++axis) {
      const int64_t reach = (static_cast<int64_t>(out[axis]) - 1) * strides[axis] +
                            (static_cast<int64_t>(kernel[axis]) - 1) * dilations[axis] + 1;
      const int64_t all = std::max<int64_t>(0, reach - static_cast<int64_t>(in[axis]));
      pads[axis] = *mode == "SAME_UPPER" ? all / 2 : (all + 1) / 2;
    }
  }
  const size_t channels = layer.shape[1];  // of one group
  const size_t positions = out_height * out_width, taken = std::min(positions, most);
  std::vector<float> row(layer.columns);
  for (size_t number = 0; number < samples * taken; ++number, ++added) {
    // Drawn anew for each sample, where not all are taken: fixed ones would all see the same part of the image.
    const size_t in_sample = number % taken;
    const size_t position =
        taken < positions ? static_cast<size_t>(mix64(first + number / taken, in_sample) % positions) : in_sample;
    const float* const x = all.data() + number / taken * size;
    const int64_t top = static_cast<int64_t>(position / out_width) * strides[0] - pads[0];
    const int64_t left = static_cast<int64_t>(position % out_width) * strides[1] - pads[1];
    for (size_t group = 0; group < layer.groups; ++group) {
      size_t at = 0;
      for (size_t c = 0; c < channels; ++c) {
        const float* const image = x + (group * channels + c) * height * width;
        for (size_t i = 0; i < kernel_height; ++i) {
          const int64_t y = top + static_cast<int64_t>(i) * dilations[0];
          for (size_t j = 0; j < kernel_width; ++j, ++at) {
            const int64_t column = left + static_cast<int64_t>(j) * dilations[1];
            const bool inside =
                y >= 0 && y < static_cast<int64_t>(height) && column >= 0 && column < static_cast<int64_t>(width);
            row[at] = inside ? image[static_cast<size_t>(y) * width + static_cast<size_t>(column)] : 0;
          }
        }
      }
      add_row(row, std::span(moments.values).subspan(group * square, square));
    }
  }
  return added;
}

/// Sums on and below the diagonal to means everywhere.
void finish(std::span<double> sums, size_t columns, size_t rows) {
  for (size_t i = 0; i < columns; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      sums[i * columns + j] /= static_cast<double>(rows);
      sums[j * columns + i] = sums[i * columns + j];
    }
  }
}

/// d(-log p(y | x)) / d(output) for a y drawn from the output: a class by its softmax, a number of unit variance.
Tensor drawn_gradient(const Tensor& output, size_t columns, bool classes, uint64_t key, uint64_t sample) {
  Tensor grad = Tensor::allocate(DType::Float32, output.shape());
  const std::span<float> out = grad.write<float>();
  std::fill(out.begin(), out.end(), 0.0f);
  const std::span<float> row = out.first(columns);
  if (!classes) {
    for (size_t i = 0; i < columns; ++i) row[i] = mix64(key, sample * columns + i) & 1 ? 1.0f : -1.0f;
    return grad;
  }
  const int32_t first = 0;
  const FloatView logits(output);
  cross_entropy(logits.values().first(columns), columns, {&first, 1}, row, 1, {}, {});
  row[0] += 1;  // softmax now
  const float point = uniform24(key, sample);
  float sum = 0;
  size_t drawn = columns - 1;
  for (size_t i = 0; i < columns; ++i) {
    sum += row[i];
    if (point < sum) {
      drawn = i;
      break;
    }
  }
  row[drawn] -= 1;
  return grad;
}

/// What follows for the running statistics of a BatchNormalization, y = scale (x - mean) / sqrt(var + epsilon) + bias:
/// a step of the mean is one of the bias, scale / sigma times as large; a relative step of the variance is half a
/// relative step of the scale.
void add_running_statistics(const Model& model, Curvature& curvature) {
  std::unordered_map<std::string_view, size_t> params;
  for (const Initializer& initializer : model.graph->initializers) params.emplace(initializer.name, initializer.param);
  for (const Node& node : model.graph->nodes) {
    if (node.op != "BatchNormalization" || !node.domain.empty() || node.inputs.size() < 5) continue;
    size_t of[5] = {};
    bool all = true;
    for (size_t i = 1; i < 5; ++i) {
      const auto found = params.find(node.inputs[i]);
      all = all && found != params.end();
      if (all) of[i] = found->second;
    }
    if (!all || curvature.diagonal[of[1]].empty() || curvature.diagonal[of[2]].empty()) continue;
    const FloatView scale(model.params[of[1]].value), variance(model.params[of[4]].value);
    const size_t channels = scale.values().size();
    if (variance.values().size() != channels || curvature.diagonal[of[2]].size() != channels) continue;
    const Attribute* attribute = find_attribute(node, "epsilon");
    const auto* given = attribute ? std::get_if<float>(&attribute->value) : nullptr;
    const float epsilon = given ? *given : 1e-5f;
    std::vector<float> of_mean(channels), of_variance(channels);
    for (size_t c = 0; c < channels; ++c) {
      const float gain = scale.values()[c], square = variance.values()[c] + epsilon;
      of_mean[c] = curvature.diagonal[of[2]][c] * gain * gain / square;
      of_variance[c] = curvature.diagonal[of[1]][c] * gain * gain / (4 * square * square);
    }
    curvature.diagonal[of[3]] = std::move(of_mean);
    curvature.diagonal[of[4]] = std::move(of_variance);
  }
}

}  // namespace

Curvature measure_curvature(const Model& model, const Dataset& dataset, std::span<const uint32_t> indices,
                            const Preparation& preparation, bool with_inputs, uint64_t key, const Context& context) {
  check(dataset);
  check(preparation, dataset);
  if (indices.empty()) fail(ErrorCode::BadData, "data", "no samples were chosen: the split is empty");
  const std::vector<size_t> learnt = find_learnt(model);
  const bool classes = !dataset.targets.exists();
  const Program program(classes ? before_softmax(model) : model, learnt);
  const std::optional<size_t> fixed = fixed_batch(program);

  Curvature curvature;
  curvature.diagonal.resize(model.params.size());
  curvature.inputs.resize(model.weights->size());
  for (const size_t param : learnt) curvature.diagonal[param].assign(model.params[param].value.elements(), 0);
  std::vector<Layer> layers = with_inputs ? find_layers(model) : std::vector<Layer>{};
  const double share = layers.empty() ? 1 : 0.5;  // of the progress

  const std::span<const uint32_t> for_gradients = indices.first(std::min(indices.size(), kGradients));
  for (size_t i = 0; i < for_gradients.size(); ++i) {
    context.tick({"curvature", "", share * static_cast<double>(i) / static_cast<double>(for_gradients.size())});
    const std::vector<uint32_t> samples(fixed.value_or(1), for_gradients[i]);
    Tape tape;
    RunOptions options;
    options.tape = &tape;
    const std::vector<Tensor> outputs = run_samples(program, prepare(dataset, preparation, samples), options);
    const Tensor rows = as_rows(outputs[0], samples.size());
    const Tensor grad = drawn_gradient(rows, rows.shape()[1], classes, key, i).reshaped(outputs[0].shape());
    const std::vector<Tensor> grads = program.backward(tape, std::span(&grad, 1));
    for (size_t p = 0; p < learnt.size(); ++p) {
      std::vector<float>& sums = curvature.diagonal[learnt[p]];
      const std::span<const float> g = grads[p].data<float>();
      for (size_t at = 0; at < sums.size(); ++at) sums[at] += g[at] * g[at];
    }
  }
  for (const size_t param : learnt) {
    for (float& sum : curvature.diagonal[param]) sum /= static_cast<float>(for_gradients.size());
  }
  add_running_statistics(model, curvature);

  if (layers.empty()) return curvature;
  const size_t most = std::max<size_t>(1, kRows / indices.size());
  RunOptions options;
  const std::string& graph_input = program.inputs()[0].name;
  for (const Layer& layer : layers) {
    curvature.inputs[layer.weight] = {layer.groups, layer.columns,
                                      std::vector<double>(layer.groups * layer.columns * layer.columns, 0)};
    options.also.push_back(layer.node->outputs[0]);
    if (layer.node->inputs[0] != graph_input) options.also.push_back(layer.node->inputs[0]);
  }
  std::vector<size_t> added(layers.size(), 0);
  size_t seen = 0;
  for_each_piece(indices, fixed, kBatch, [&](const std::vector<uint32_t>& piece, size_t real, double done) {
    context.tick({"curvature", "", share + (1 - share) * done});
    const Tensor input = prepare(dataset, preparation, piece);
    const std::vector<Tensor> outputs = run_samples(program, input, options);
    size_t next = program.outputs().size();
    for (size_t l = 0; l < layers.size(); ++l) {
      const Tensor& output = outputs[next++];
      const Tensor& given = layers[l].node->inputs[0] == graph_input ? input : outputs[next++];
      if (given.dtype() == DType::Float32)
        added[l] += add_inputs(layers[l], given, output, seen, real, most, curvature.inputs[layers[l].weight]);
    }
    seen += real;
  });
  for (size_t l = 0; l < layers.size(); ++l) {
    InputMoments& moments = curvature.inputs[layers[l].weight];
    if (added[l] == 0) {
      moments = {};
      continue;
    }
    for (size_t group = 0; group < moments.groups; ++group)
      finish(std::span(moments.values).subspan(group * moments.columns * moments.columns), moments.columns, added[l]);
  }
  return curvature;
}

}  // namespace nibble
