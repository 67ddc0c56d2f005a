// Which samples are for training, for choosing, and for nobody to see before the end.
#include <algorithm>
#include <numeric>

#include "core/base/error.hpp"
#include "core/data/data.hpp"

namespace nibble {

namespace {

void shuffle(std::span<uint32_t> indices, uint64_t key) {
  for (size_t i = indices.size(); i > 1; --i) {  // Fisher and Yates; 32 random bits times the range, without division
    const size_t j = static_cast<size_t>(((mix64(key, i) >> 32) * uint64_t{i}) >> 32);
    std::swap(indices[i - 1], indices[j]);
  }
}

/// How many samples of each class a part takes when it takes `wanted` in all: each class its share, the rounding
/// carried on from class to class so that the total comes out, and never a class's last sample, which training needs.
std::vector<size_t> quotas(std::span<const size_t> left, std::span<const size_t> counts, size_t wanted) {
  const size_t total = std::accumulate(counts.begin(), counts.end(), size_t{0});
  std::vector<size_t> quota(counts.size());
  size_t seen = 0, taken = 0;
  for (size_t c = 0; c < counts.size(); ++c) {
    seen += counts[c];
    // Both factors are below 2^32.
    const auto due = static_cast<size_t>((uint64_t{seen} * wanted + total / 2) / total);
    const size_t most = left[c] > 0 ? left[c] - 1 : 0;
    quota[c] = std::min(due - std::min(due, taken), most);
    taken += quota[c];
  }
  return quota;
}

bool is_fraction(double value) { return value >= 0 && value <= 0.5; }

}  // namespace

Split split(const Dataset& dataset, const SplitChoice& choice, uint64_t seed) {
  check(dataset);
  if (!is_fraction(choice.validation)) {
    fail(ErrorCode::BadData, "validation", "expected a share of the samples, 0 to 0.5");
  }
  if (!is_fraction(choice.test)) fail(ErrorCode::BadData, "test", "expected a share of the samples, 0 to 0.5");

  std::vector<uint32_t> order(dataset.size);
  std::iota(order.begin(), order.end(), 0u);
  shuffle(order, Context(seed).random_key("split"));

  const size_t classes = dataset.labelled() ? dataset.classes : 1;
  const auto class_of = [&](uint32_t index) {
    return dataset.labelled() ? static_cast<size_t>(dataset.labels[index]) : size_t{0};
  };
  const bool own_test = dataset.test_from < dataset.size;
  std::vector<size_t> counts(classes);
  for (uint32_t index = 0; index < dataset.test_from; ++index) ++counts[class_of(index)];
  std::vector<size_t> left = counts;
  const auto take = [&](double share) {
    const auto wanted = static_cast<size_t>(share * static_cast<double>(dataset.size) + 0.5);
    if (wanted == 0 || dataset.test_from == 0) return std::vector<size_t>(classes);
    std::vector<size_t> quota = quotas(left, counts, std::min(wanted, dataset.test_from));
    for (size_t c = 0; c < classes; ++c) left[c] -= quota[c];
    return quota;
  };
  std::vector<size_t> to_test = own_test ? std::vector<size_t>(classes) : take(choice.test);
  std::vector<size_t> to_validation = take(choice.validation);

  Split parts;
  for (uint32_t index : order) {
    const size_t c = class_of(index);
    if (index >= dataset.test_from) {
      parts.test.push_back(index);
    } else if (to_test[c] > 0) {
      --to_test[c];
      parts.test.push_back(index);
    } else if (to_validation[c] > 0) {
      --to_validation[c];
      parts.validation.push_back(index);
    } else {
      parts.training.push_back(index);
    }
  }
  if (parts.training.empty()) {
    fail(ErrorCode::BadData, dataset.name, "every sample is set apart for testing: none is left to train with");
  }
  parts.calibration.assign(
      parts.training.begin(),
      parts.training.begin() + static_cast<ptrdiff_t>(std::min(choice.calibration, parts.training.size())));
  return parts;
}

}  // namespace nibble
