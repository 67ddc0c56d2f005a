// Datasets as values: made from memory, joined, checked.
#include <algorithm>
#include <cstring>
#include <memory>

#include "core/data/read.hpp"

namespace nibble {

namespace {

/// Beyond this, numbers taken for classes are something else (prices, years times a thousand, identifiers).
constexpr size_t kMostClasses = 65536;

std::vector<std::string> numbered(size_t classes) {
  std::vector<std::string> names(classes);
  for (size_t i = 0; i < classes; ++i) names[i] = std::to_string(i);
  return names;
}

/// Copies rows of `bytes` each: row `from[i]` of `source` becomes row `to[i]`.
void copy_rows(std::span<const std::byte> source, std::span<std::byte> target, size_t bytes,
               std::span<const size_t> from, std::span<const size_t> to) {
  if (bytes == 0) return;
  for (size_t i = 0; i < from.size(); ++i) {
    std::memcpy(target.data() + to[i] * bytes, source.data() + from[i] * bytes, bytes);
  }
}

/// Where each class of `second` is among the classes of `first`, which gets further ones where both are but numbered.
std::vector<int32_t> match_classes(Dataset& first, const Dataset& second) {
  std::vector<int32_t> place(second.classes);
  const bool both_numbered =
      first.class_names == numbered(first.classes) && second.class_names == numbered(second.classes);
  if (both_numbered && second.classes > first.classes) {
    first.classes = second.classes;
    first.class_names = second.class_names;
  }
  for (size_t i = 0; i < second.classes; ++i) {
    const auto found = std::find(first.class_names.begin(), first.class_names.end(), second.class_names[i]);
    if (found == first.class_names.end()) {
      fail(ErrorCode::BadData, second.name,
           "class \"" + second.class_names[i] + "\" does not occur in " + first.name +
               ", whose test part this is to be: both need the same classes");
    }
    place[i] = static_cast<int32_t>(found - first.class_names.begin());
  }
  return place;
}

std::string kind_of(const Dataset& dataset) {
  if (dataset.labelled()) return "labels of " + std::to_string(dataset.classes) + " classes";
  if (dataset.targets.exists()) return "targets of " + to_string(dataset.targets.shape());
  return "no labels";
}

}  // namespace

void check_indices(std::span<const uint32_t> indices, size_t size) {
  for (uint32_t index : indices) {
    if (index >= size) {
      fail(ErrorCode::BadData, "sample " + std::to_string(index),
           "there is no such sample: the dataset has " + std::to_string(size));
    }
  }
}

Shape batch_shape(size_t count, const Shape& sample) {
  Shape shape = {count};
  shape.insert(shape.end(), sample.begin(), sample.end());
  return shape;
}

void set_labels(Dataset& dataset, std::vector<int32_t> labels, std::vector<std::string> class_names) {
  if (labels.empty()) return;
  const int32_t largest = *std::max_element(labels.begin(), labels.end());
  if (class_names.empty() && largest >= 0 && static_cast<size_t>(largest) < kMostClasses) {
    class_names = numbered(static_cast<size_t>(largest) + 1);
  }
  dataset.labels = std::move(labels);
  dataset.classes = class_names.size();
  dataset.class_names = std::move(class_names);
}

std::string_view to_string(SampleLayout layout) {
  switch (layout) {
    case SampleLayout::Features: return "features";
    case SampleLayout::Hw: return "hw";
    case SampleLayout::Chw: return "chw";
    case SampleLayout::Hwc: return "hwc";
  }
  return "features";
}

Dataset in_memory(std::string name, Tensor samples, SampleLayout layout, std::vector<int32_t> labels,
                  std::vector<std::string> class_names) {
  if (samples.dtype() != DType::UInt8 && samples.dtype() != DType::Float32) {
    fail(ErrorCode::BadData, name,
         "samples are kept as uint8 or float32, found " + std::string(to_string(samples.dtype())) +
             ": convert them first");
  }
  if (!samples.exists() || samples.shape().empty()) {
    fail(ErrorCode::BadData, name, "expected samples along the first extent, found a single number");
  }
  Dataset dataset;
  dataset.name = std::move(name);
  dataset.size = dataset.test_from = samples.shape()[0];
  dataset.shape.assign(samples.shape().begin() + 1, samples.shape().end());
  dataset.layout = layout;
  dataset.dtype = samples.dtype();
  set_labels(dataset, std::move(labels), std::move(class_names));
  dataset.read = [samples = std::move(samples), shape = dataset.shape](std::span<const uint32_t> indices) {
    const size_t size = samples.shape()[0];
    check_indices(indices, size);
    Tensor batch = Tensor::allocate(samples.dtype(), batch_shape(indices.size(), shape));
    const size_t bytes = size ? samples.bytes().size() / size : 0;
    std::byte* const target = batch.write<std::byte>().data();
    for (size_t i = 0; bytes && i < indices.size(); ++i) {
      std::memcpy(target + i * bytes, samples.bytes().data() + indices[i] * bytes, bytes);
    }
    return batch;
  };
  check(dataset);
  return dataset;
}

void check(const Dataset& dataset) {
  const auto refuse = [&](std::string message) { fail(ErrorCode::BadData, dataset.name, std::move(message)); };
  if (dataset.size == 0) refuse("the dataset is empty: at least one sample is needed");
  if (dataset.size > UINT32_MAX) refuse("a dataset holds at most 4294967295 samples");
  if (elements_of(dataset.shape, dataset.name) == 0) {
    refuse("samples of shape " + to_string(dataset.shape) + " hold nothing");
  }
  if (dataset.dtype != DType::UInt8 && dataset.dtype != DType::Float32) {
    refuse("samples are uint8 or float32, found " + std::string(to_string(dataset.dtype)));
  }
  const size_t rank = dataset.shape.size();
  if ((dataset.layout == SampleLayout::Hw && rank != 2) ||
      ((dataset.layout == SampleLayout::Chw || dataset.layout == SampleLayout::Hwc) && rank != 3)) {
    refuse("samples of shape " + to_string(dataset.shape) + " are not laid out as " +
           std::string(to_string(dataset.layout)));
  }
  if (dataset.test_from > dataset.size) {
    refuse("the test split starts at sample " + std::to_string(dataset.test_from) + " of " +
           std::to_string(dataset.size));
  }
  if (!dataset.read) refuse("nothing reads the samples");

  if (dataset.targets.exists()) {
    if (dataset.labelled()) refuse("samples have either labels or targets, found both");
    const Shape& shape = dataset.targets.shape();
    if (dataset.targets.dtype() != DType::Float32 || shape.size() != 2 || shape[0] != dataset.size || shape[1] == 0) {
      refuse("expected float32 targets of " + std::to_string(dataset.size) + " samples, one row each, found " +
             std::string(to_string(dataset.targets.dtype())) + " " + to_string(shape));
    }
  }
  if (!dataset.labelled()) return;
  if (dataset.labels.size() != dataset.size) {
    refuse("there are " + std::to_string(dataset.labels.size()) + " labels for " + std::to_string(dataset.size) +
           " samples: each sample needs one");
  }
  const int32_t largest = *std::max_element(dataset.labels.begin(), dataset.labels.end());
  if (dataset.classes > kMostClasses || static_cast<int64_t>(largest) >= static_cast<int64_t>(kMostClasses)) {
    refuse("a label of " + std::to_string(largest) + " means more than " + std::to_string(kMostClasses) +
           " classes: numbers to be predicted are given as real numbers, not as labels");
  }
  if (dataset.class_names.size() != dataset.classes) {
    refuse("there are " + std::to_string(dataset.class_names.size()) + " names for " + std::to_string(dataset.classes) +
           " classes");
  }
  for (size_t i = 0; i < dataset.size; ++i) {
    const int32_t label = dataset.labels[i];
    if (label >= 0 && static_cast<size_t>(label) < dataset.classes) continue;
    refuse("sample " + std::to_string(i) + " has the label " + std::to_string(label) +
           (dataset.classes ? ", expected 0 to " + std::to_string(dataset.classes - 1) : ", expected 0 or more"));
  }
}

Dataset with_test(Dataset first, Dataset second) {
  check(first);
  check(second);
  if (first.shape != second.shape || first.layout != second.layout || first.dtype != second.dtype) {
    const auto describe = [](const Dataset& part) {
      return std::string(to_string(part.dtype)) + " " + to_string(part.shape) + " (" +
             std::string(to_string(part.layout)) + ")";
    };
    fail(ErrorCode::BadData, second.name,
         "test samples are " + describe(second) + ", those to train with are " + describe(first) +
             ": both need the same shape and type");
  }
  const auto outputs = [](const Dataset& part) { return part.targets.exists() ? part.targets.shape()[1] : 0; };
  if (first.labelled() != second.labelled() || outputs(first) != outputs(second)) {
    fail(ErrorCode::BadData, second.name,
         "test samples have " + kind_of(second) + ", those to train with have " + kind_of(first) +
             ": both need the same");
  }
  const size_t count = first.size, total = first.size + second.size;
  if (total > UINT32_MAX) fail(ErrorCode::BadData, first.name, "a dataset holds at most 4294967295 samples");
  if (first.labelled()) {
    const std::vector<int32_t> place = match_classes(first, second);
    for (int32_t label : second.labels) first.labels.push_back(place[static_cast<size_t>(label)]);
  }
  if (first.targets.exists()) {
    Tensor both = Tensor::allocate(DType::Float32, {total, outputs(first)});
    const std::span<float> values = both.write<float>();
    const std::span<const float> a = first.targets.data<float>(), b = second.targets.data<float>();
    std::copy(b.begin(), b.end(), std::copy(a.begin(), a.end(), values.begin()));
    first.targets = std::move(both);
  }
  first.size = total;
  first.test_from = count;
  first.read = [a = std::move(first.read), b = std::move(second.read), count, total, dtype = first.dtype,
                shape = first.shape](std::span<const uint32_t> indices) {
    check_indices(indices, total);
    std::vector<uint32_t> of_a, of_b;
    std::vector<size_t> rows_a, rows_b;
    for (size_t i = 0; i < indices.size(); ++i) {
      if (indices[i] < count) {
        of_a.push_back(indices[i]);
        rows_a.push_back(i);
      } else {
        of_b.push_back(static_cast<uint32_t>(indices[i] - count));
        rows_b.push_back(i);
      }
    }
    if (of_b.empty()) return a(of_a);
    if (of_a.empty()) return b(of_b);
    Tensor batch = Tensor::allocate(dtype, batch_shape(indices.size(), shape));
    const std::span<std::byte> target = batch.write<std::byte>();
    const size_t bytes = target.size() / indices.size();
    std::vector<size_t> counting(std::max(of_a.size(), of_b.size()));
    for (size_t i = 0; i < counting.size(); ++i) counting[i] = i;
    copy_rows(a(of_a).bytes(), target, bytes, std::span(counting).first(of_a.size()), rows_a);
    copy_rows(b(of_b).bytes(), target, bytes, std::span(counting).first(of_b.size()), rows_b);
    return batch;
  };
  return first;
}

void check_outputs(const Dataset& dataset, size_t outputs) {
  if (dataset.targets.exists()) {
    const size_t targets = dataset.targets.elements() / std::max<size_t>(1, dataset.size);
    if (outputs == targets) return;
    fail(ErrorCode::BadData, "targets",
         "the data have " + std::to_string(targets) + " numbers for each sample, the model gives " +
             std::to_string(outputs) + ": they do not belong to each other");
  }
  if (!dataset.labelled() || outputs >= dataset.classes) return;
  fail(ErrorCode::BadData, "labels",
       "the data have " + std::to_string(dataset.classes) + " classes, the model has " + std::to_string(outputs) +
           " outputs: they do not belong to each other");
}

std::vector<int32_t> labels_of(const Dataset& dataset, std::span<const uint32_t> indices) {
  std::vector<int32_t> labels;
  if (!dataset.labelled()) return labels;
  labels.reserve(indices.size());
  for (const uint32_t index : indices) labels.push_back(dataset.labels[index]);
  return labels;
}

std::vector<float> targets_of(const Dataset& dataset, std::span<const uint32_t> indices) {
  std::vector<float> targets;
  if (!dataset.targets.exists()) return targets;
  const size_t count = dataset.targets.elements() / std::max<size_t>(1, dataset.size);
  targets.reserve(indices.size() * count);
  for (const uint32_t index : indices) {
    const std::span<const float> row = dataset.targets.data<float>().subspan(index * count, count);
    targets.insert(targets.end(), row.begin(), row.end());
  }
  return targets;
}

}  // namespace nibble
