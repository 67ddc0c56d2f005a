#include "core/analyze/evaluate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <set>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/kernels/kernels.hpp"
#include "core/model/score.hpp"

namespace nibble {

namespace {

/// Samples that run at a time: enough to keep the matrix products busy, few enough that all activations of both models
/// fit beside each other when they are compared.
constexpr size_t kChunk = 64, kCompareChunk = 16;
/// Classes up to which confusion is counted: a label may be any number up to 65,535, and the matrix has its square.
constexpr size_t kMostConfused = 1024;

/// Gathers an evaluation piece by piece.
class Evaluator {
 public:
  Evaluator(const Dataset& dataset, size_t samples) : dataset_(dataset) {
    out_.samples = samples;
    out_.classes = dataset.classes;
  }

  /// The first `real` rows belong to `indices`.
  void add(const Tensor& output, std::span<const uint32_t> indices, size_t real) {
    const Tensor rows = as_rows(output, indices.size());
    const size_t columns = rows.shape()[1];
    const std::span<const float> values = rows.data<float>().first(real * columns);
    const std::span<const uint32_t> meant = indices.first(real);
    check_outputs(dataset_, columns);
    if (dataset_.targets.exists()) {
      loss_ += mean_squared(values, columns, targets_of(dataset_, meant), {}, 0).loss;
      return;
    }
    // Not before it is known that the model has so many classes.
    if (out_.confusion.empty() && dataset_.labelled() && dataset_.classes <= kMostConfused)
      out_.confusion.assign(dataset_.classes * dataset_.classes, 0);
    const std::vector<int32_t> labels = labels_of(dataset_, meant);
    std::vector<int32_t> predicted(real);
    std::vector<float> confidence(real);
    const Score score = cross_entropy(values, columns, labels, {}, 0, predicted, confidence);
    loss_ += score.loss;
    correct_ += score.correct;
    for (size_t i = 0; i < labels.size(); ++i) {
      // A model may know more classes than the data have; such a guess is wrong, and has no column of its own.
      const auto guess = static_cast<size_t>(predicted[i]);
      if (!out_.confusion.empty() && guess < dataset_.classes)
        ++out_.confusion[static_cast<size_t>(labels[i]) * dataset_.classes + guess];
    }
    out_.predictions.insert(out_.predictions.end(), predicted.begin(), predicted.end());
    out_.confidence.insert(out_.confidence.end(), confidence.begin(), confidence.end());
  }

  Evaluation result(double seconds) {
    const auto count = static_cast<double>(std::max<size_t>(1, out_.samples));
    out_.loss = loss_ / count;
    if (dataset_.labelled()) out_.accuracy = static_cast<double>(correct_) / count;
    out_.seconds = seconds;
    return std::move(out_);
  }

 private:
  const Dataset& dataset_;
  Evaluation out_;
  double loss_ = 0;
  size_t correct_ = 0;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// What the loss is computed from: cross-entropy from the numbers before a last softmax, squared errors from the
/// outputs themselves, as in training.
Model judged(const Model& model, const Dataset& dataset) {
  return dataset.targets.exists() ? model : before_softmax(model);
}

void check_data(const Dataset& dataset, std::span<const uint32_t> indices) {
  check(dataset);
  if (indices.empty()) fail(ErrorCode::BadData, "data", "no samples were chosen: the split is empty");
}

Shape without_batch(const Shape& shape) { return shape.empty() ? shape : Shape(shape.begin() + 1, shape.end()); }

/// The shape of one of `samples` samples in a value: without the first extent that is their number (recurrent networks
/// have the steps before it), the value's own where there is none.
Shape of_one_sample(const Shape& shape, size_t samples) {
  Shape out = shape;
  const auto batch = std::find(out.begin(), out.end(), samples);
  if (batch != out.end()) out.erase(batch);
  return out;
}

/// Sums over all samples of what ActivationError says.
struct Sums {
  ActivationError about;
  double error = 0, before = 0, after = 0, product = 0;
  size_t count = 0;
};

}  // namespace

Evaluation evaluate(const Model& model, const Dataset& dataset, std::span<const uint32_t> indices,
                    const Preparation& preparation, const Context& context) {
  check_data(dataset, indices);
  const Program program(judged(model, dataset));
  Evaluator evaluator(dataset, indices.size());
  double seconds = 0;
  for_each_piece(indices, fixed_batch(program), kChunk,
                 [&](const std::vector<uint32_t>& piece, size_t real, double done) {
                   context.tick({"evaluate", model.header->name, done});
                   const Tensor samples = prepare(dataset, preparation, piece);
                   const auto started = std::chrono::steady_clock::now();
                   const std::vector<Tensor> outputs = run_samples(program, samples);
                   seconds += seconds_since(started);
                   evaluator.add(outputs[0], piece, real);
                 });
  return evaluator.result(seconds);
}

Comparison compare(const Model& before, const Model& after, const Dataset& dataset, std::span<const uint32_t> indices,
                   const Preparation& preparation, const Context& context) {
  check_data(dataset, indices);
  const Program first(judged(before, dataset)), second(judged(after, dataset));
  const std::optional<size_t> fixed = fixed_batch(first), other_fixed = fixed_batch(second);
  if (fixed != other_fixed && fixed && other_fixed) {
    fail(ErrorCode::BadData, "models",
         "one takes " + std::to_string(*fixed) + " samples at a time, the other " + std::to_string(*other_fixed));
  }
  Evaluator one(dataset, indices.size()), two(dataset, indices.size());
  double seconds_one = 0, seconds_two = 0;
  std::vector<Sums> sums;
  std::unordered_map<std::string, size_t> known;
  for_each_piece(indices, fixed ? fixed : other_fixed, kCompareChunk,
                 [&](const std::vector<uint32_t>& piece, size_t real, double done) {
                   context.tick({"compare", after.header->name, done});
                   const Tensor samples = prepare(dataset, preparation, piece);
                   std::unordered_map<std::string, Tensor> values;
                   RunOptions keep;
                   keep.tap = [&](const std::string& name, const Node& node, const Tensor& value) {
                     if (!is_real(value.dtype()) || value.elements() == 0) return;
                     values[name] = value;
                     if (!known.emplace(name, sums.size()).second) return;
                     Sums& entry = sums.emplace_back();
                     entry.about.name = name;
                     entry.about.node = node.name;
                     entry.about.op = node.op;
                     entry.about.shape = of_one_sample(value.shape(), piece.size());
                   };
                   auto started = std::chrono::steady_clock::now();
                   one.add(run_samples(first, samples, keep)[0], piece, real);
                   seconds_one += seconds_since(started);
                   RunOptions measure;
                   measure.tap = [&](const std::string& name, const Node&, const Tensor& value) {
                     const auto twin = values.find(name);
                     if (twin == values.end() || twin->second.shape() != value.shape() || !is_real(value.dtype()))
                       return;
                     Sums& entry = sums[known.at(name)];
                     const FloatView a(twin->second), b(value);
                     // The last piece may be filled up with copies of a sample, which would count twice.
                     const size_t used = value.shape().empty() || value.shape()[0] != piece.size()
                                             ? value.elements()
                                             : value.elements() / piece.size() * real;
                     const kernels::Difference difference =
                         kernels::difference(a.values().first(used), b.values().first(used));
                     entry.error += difference.sum_squared_error;
                     entry.before += difference.sum_squared_before;
                     entry.after += difference.sum_squared_after;
                     entry.product += difference.sum_product;
                     entry.count += difference.count;
                     entry.about.max_abs = std::max(entry.about.max_abs, static_cast<double>(difference.max_abs_error));
                     values.erase(twin);
                   };
                   started = std::chrono::steady_clock::now();
                   two.add(run_samples(second, samples, measure)[0], piece, real);
                   seconds_two += seconds_since(started);
                 });

  Comparison out;
  out.before = one.result(seconds_one);
  out.after = two.result(seconds_two);
  std::unordered_map<std::string, std::vector<std::string>> weights_of;  // by the value that the node makes
  for (const Node& node : before.graph->nodes) {
    for (const Weight& weight : *before.weights) {
      const std::string& name = before.params[weight.param].name;
      if (weight.node != node.name || weight.op != node.op ||
          std::find(node.inputs.begin(), node.inputs.end(), name) == node.inputs.end())
        continue;
      for (const std::string& output : node.outputs) {
        if (!output.empty()) weights_of[output].push_back(name);
      }
    }
  }
  for (Sums& entry : sums) {
    if (entry.count == 0) continue;
    ActivationError& about = entry.about;
    about.mse = entry.error / static_cast<double>(entry.count);
    about.sqnr_db = entry.error > 0 ? 10 * std::log10(entry.before / entry.error) : INFINITY;
    const double size = std::sqrt(entry.before) * std::sqrt(entry.after);
    about.cosine = size > 0 ? entry.product / size : NAN;
    if (const auto used = weights_of.find(about.name); used != weights_of.end()) about.weights = used->second;
    out.activations.push_back(std::move(about));
  }
  size_t same = 0;
  for (size_t i = 0; i < out.before.predictions.size(); ++i) {
    if (out.before.predictions[i] == out.after.predictions[i])
      ++same;
    else
      out.flipped.push_back(static_cast<uint32_t>(i));
  }
  out.agreement = out.before.predictions.empty()
                      ? 1
                      : static_cast<double>(same) / static_cast<double>(out.before.predictions.size());
  return out;
}

namespace {

std::vector<float> numbers_of(const std::string& text) {
  std::vector<float> out;
  const char* at = text.c_str();
  while (*at) {
    char* end = nullptr;
    out.push_back(std::strtof(at, &end));
    if (end == at) return {};
    at = *end == ',' ? end + 1 : end;
    if (*end && *end != ',') return {};
  }
  return out;
}

const std::string* metadata_of(const Model& model, std::string_view key) {
  for (const auto& [name, value] : model.header->metadata) {
    if (name == key) return &value;
  }
  return nullptr;
}

/// The shape of one sample as the model's one input takes it; extents that the model leaves free are the data's.
Preparation shape_of_input(const Program& program, const Dataset& dataset) {
  if (program.inputs().size() != 1) {
    fail(ErrorCode::Unsupported, "model",
         "it has " + std::to_string(program.inputs().size()) + " inputs, and data can fill one");
  }
  const Value& input = program.inputs()[0];
  Preparation out;
  const Shape& own = dataset.shape;
  // How many channels, rows and columns the data's images have.
  size_t channels = 1, height = 0, width = 0;
  switch (dataset.layout) {
    case SampleLayout::Hw: height = own[0], width = own[1]; break;
    case SampleLayout::Chw: channels = own[0], height = own[1], width = own[2]; break;
    case SampleLayout::Hwc: height = own[0], width = own[1], channels = own[2]; break;
    case SampleLayout::Features: break;
  }
  const bool image = dataset.layout != SampleLayout::Features;
  if (!input.ranked || input.shape.size() < 2) {
    out.shape = own;
    out.layout = dataset.layout;
    return out;
  }
  const size_t rank = input.shape.size() - 1;
  std::vector<size_t> extents(rank, 0);  // 0: free
  for (size_t i = 0; i < rank; ++i) {
    const auto* fixed = std::get_if<int64_t>(&input.shape[i + 1]);
    if (fixed && *fixed > 0) extents[i] = static_cast<size_t>(*fixed);
  }
  const auto fits = [&](const Shape& shape) {
    if (shape.size() != rank) return false;
    for (size_t i = 0; i < rank; ++i) {
      if (extents[i] && extents[i] != shape[i]) return false;
    }
    return true;
  };
  struct Candidate {
    Shape shape;
    SampleLayout layout;
  };
  std::vector<Candidate> candidates;
  if (image) {
    candidates.push_back({{channels, height, width}, SampleLayout::Chw});
    candidates.push_back({{height, width, channels}, SampleLayout::Hwc});
    if (channels == 1) candidates.push_back({{height, width}, SampleLayout::Hw});
    candidates.push_back({{channels * height * width}, SampleLayout::Features});
  }
  candidates.push_back({own, dataset.layout});
  candidates.push_back({{elements_of(own)}, SampleLayout::Features});
  for (const Candidate& candidate : candidates) {
    if (!fits(candidate.shape)) continue;
    out.shape = candidate.shape;
    out.layout = candidate.layout;
    return out;
  }
  std::string wanted;
  for (const size_t value : extents) wanted += (wanted.empty() ? "" : "x") + (value ? std::to_string(value) : "?");
  fail(ErrorCode::BadData, "input \"" + input.name + "\"",
       "the model takes samples of shape " + wanted + ", the data have " + to_string(own) + " (" +
           std::string(to_string(dataset.layout)) + "); Nibble does not resize images: give data of the model's size");
}

/// Whether the data are numbers that somebody has divided by 255 already, judged by some of them.
bool are_shares(const Dataset& dataset, std::span<const uint32_t> calibration) {
  if (dataset.dtype == DType::UInt8 || dataset.size == 0) return false;
  constexpr size_t kSome = 256;
  const uint32_t first = 0;
  const Tensor some =
      dataset.read(calibration.empty() ? std::span(&first, 1) : calibration.first(std::min(calibration.size(), kSome)));
  const FloatView values(some);
  return kernels::abs_max(values.values()) <= 1;
}

std::string percent(double share) {
  const auto tenths = static_cast<int>(std::lround(share * 1000));
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " %";
}

}  // namespace

Preparation guess_preparation(const Model& model, const Dataset& dataset, std::span<const uint32_t> calibration,
                              const Context& context) {
  const Program program(model);
  Preparation found = shape_of_input(program, dataset);
  const std::string* scale = metadata_of(model, "nibble.scale");
  const std::string* mean = metadata_of(model, "nibble.mean");
  const std::string* std = metadata_of(model, "nibble.std");
  if (scale && mean && std) {
    const std::vector<float> scales = numbers_of(*scale), means = numbers_of(*mean), stds = numbers_of(*std);
    if (scales.size() == 1 && !means.empty() && means.size() == stds.size()) {
      found.scale = scales[0];
      found.mean = means;
      found.std = stds;
      found.reason = "the model says so in its metadata (nibble.scale, nibble.mean, nibble.std)";
      if (found.scale == 1 / 255.0f && are_shares(dataset, calibration)) {
        found.scale = 1;
        found.reason += ", where nibble.scale is for bytes, and the data are shares of 255 already";
      }
      return found;
    }
  }
  if (dataset.dtype != DType::UInt8) {
    found.reason = "the numbers are given to the model as they are";
    return found;
  }
  struct Range {
    const char* name;
    float scale, mean, std;
  };
  // What exporters' models take: bytes as they are, shares of 255, around zero, and MNIST's mean and deviation.
  constexpr Range kRanges[] = {{"0 to 1", 1 / 255.0f, 0, 1},
                               {"0 to 255", 1, 0, 1},
                               {"-1 to 1", 1 / 255.0f, 0.5f, 0.5f},
                               {"MNIST's mean 0.1307 and deviation 0.3081", 1 / 255.0f, 0.1307f, 0.3081f}};
  const auto with = [&](const Range& range) {
    Preparation trial = found;
    trial.scale = range.scale;
    trial.mean = {range.mean};
    trial.std = {range.std};
    return trial;
  };
  if (!dataset.labelled() || calibration.empty()) {
    Preparation plain = with(kRanges[0]);
    plain.reason = "bytes become 0 to 1, which is usual; the data have no labels to try others with";
    return plain;
  }
  double best = -1;
  std::string tried;
  size_t chosen = 0;
  for (size_t i = 0; i < std::size(kRanges); ++i) {
    const double accuracy = evaluate(model, dataset, calibration, with(kRanges[i]), context).accuracy.value_or(0);
    tried += std::string(tried.empty() ? "" : ", ") + kRanges[i].name + " " + percent(accuracy);
    if (accuracy > best) {
      best = accuracy;
      chosen = i;
    }
  }
  Preparation out = with(kRanges[chosen]);
  out.reason = std::string("bytes become ") + kRanges[chosen].name + ", the best of what was tried on " +
               std::to_string(calibration.size()) + " calibration samples: " + tried;
  return out;
}

Tensor activation(const Model& model, const Dataset& dataset, uint32_t index, const Preparation& preparation,
                  const std::string& value) {
  if (index >= dataset.size) {
    fail(ErrorCode::BadData, "index",
         "the data have " + std::to_string(dataset.size) + " samples, " + std::to_string(index) + " is beyond them");
  }
  const Program program(model);
  const std::vector<uint32_t> indices(fixed_batch(program).value_or(1), index);
  RunOptions options;
  options.also = {value};
  const std::vector<Tensor> outputs = run_samples(program, prepare(dataset, preparation, indices), options);
  const Tensor& found = outputs.back();
  if (!found.exists()) fail(ErrorCode::BadData, value, "the model gives no such value");
  if (!is_real(found.dtype()))
    fail(ErrorCode::BadData, value, "it holds " + std::string(to_string(found.dtype())) + ", not real numbers");
  const bool batched = !found.shape().empty() && found.shape()[0] == indices.size();
  const FloatView view(found);
  const size_t elements = batched ? found.elements() / indices.size() : found.elements();
  return Tensor::from(DType::Float32, batched ? without_batch(found.shape()) : found.shape(),
                      view.values().first(elements));
}

}  // namespace nibble
