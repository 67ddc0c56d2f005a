// From stored samples to a model's input.
#include <array>
#include <cmath>
#include <optional>

#include "core/base/error.hpp"
#include "core/data/data.hpp"

namespace nibble {

namespace {

/// An image's extents and how far apart its neighbours lie in memory.
struct Places {
  size_t height = 1, width = 1, channels = 1;
  size_t row_step = 0, column_step = 0, channel_step = 0;
};

std::optional<Places> places_of(const Shape& shape, SampleLayout layout) {
  if (layout == SampleLayout::Hw && shape.size() == 2) return Places{shape[0], shape[1], 1, shape[1], 1, 0};
  if (shape.size() != 3) return {};
  if (layout == SampleLayout::Chw) {
    return Places{shape[1], shape[2], shape[0], shape[2], 1, shape[1] * shape[2]};
  }
  if (layout == SampleLayout::Hwc) {
    return Places{shape[0], shape[1], shape[2], shape[1] * shape[2], shape[2], 1};
  }
  return {};
}

std::string describe(const Shape& shape, SampleLayout layout) {
  return to_string(shape) + " (" + std::string(to_string(layout)) + ")";
}

/// Both sides as images: what is copied to where. Where one side has no places, both have the other's: the numbers keep
/// their order.
struct Plan {
  Places from, to;
};

Plan plan_of(const Preparation& preparation, const Dataset& dataset) {
  const std::optional<Places> from = places_of(dataset.shape, dataset.layout);
  const std::optional<Places> to = places_of(preparation.shape, preparation.layout);
  if (from && to) return {*from, *to};
  if (from) return {*from, *from};
  if (to) return {*to, *to};
  const size_t elements = elements_of(dataset.shape);
  return {{1, elements, 1, elements, 1, 0}, {1, elements, 1, elements, 1, 0}};
}

/// values[channel] of a list with one entry for all channels or one for each.
float entry(const std::vector<float>& values, size_t channel) { return values[values.size() == 1 ? 0 : channel]; }

/// Calls put(stored offset, input offset, channel) for every number of a sample, in the order of the input.
template <class Put>
void for_each_place(const Plan& plan, Put put) {
  const Places &from = plan.from, &to = plan.to;
  const auto at = [](const Places& places, size_t c, size_t y, size_t x) {
    return c * places.channel_step + y * places.row_step + x * places.column_step;
  };
  for (size_t c = 0; c < to.channels; ++c) {
    for (size_t y = 0; y < to.height; ++y) {
      for (size_t x = 0; x < to.width; ++x) put(at(from, c, y, x), at(to, c, y, x), c);
    }
  }
}

}  // namespace

void check(const Preparation& preparation, const Dataset& dataset) {
  const auto refuse = [&](const std::string& message) {
    fail(ErrorCode::BadData, dataset.name,
         "samples are " + describe(dataset.shape, dataset.layout) + ", the model takes " +
             describe(preparation.shape, preparation.layout) + ": " + message);
  };
  const std::optional<Places> from = places_of(dataset.shape, dataset.layout);
  const std::optional<Places> to = places_of(preparation.shape, preparation.layout);
  if (!to && preparation.layout != SampleLayout::Features) refuse("the input's shape and layout do not fit together");
  if (!from && dataset.layout != SampleLayout::Features) refuse("the samples' shape and layout do not fit together");
  if (from && to) {
    if (from->channels == 1 && to->channels == 3) {
      refuse("grey images are not turned into colour; give colour images, or take a model with one input channel");
    }
    if (from->channels != to->channels) {
      refuse("images have " + std::to_string(from->channels) + " channel(s) where " + std::to_string(to->channels) +
             " are expected; give images with as many channels, or take another model");
    }
    if (from->height != to->height || from->width != to->width) {
      refuse("images are not resized or cut here; resize them to " + std::to_string(to->height) + "x" +
             std::to_string(to->width) + " (height x width) first");
    }
  } else if (elements_of(dataset.shape) != elements_of(preparation.shape)) {
    refuse("a sample has " + std::to_string(elements_of(dataset.shape)) + " numbers where " +
           std::to_string(elements_of(preparation.shape)) + " are expected");
  }

  const size_t channels = plan_of(preparation, dataset).to.channels;
  const auto check_entries = [&](const char* what, const std::vector<float>& values) {
    if (values.size() == 1 || values.size() == channels) return;
    fail(ErrorCode::BadData, what,
         "expected one entry, or one for each of " + std::to_string(channels) + " channel(s), found " +
             std::to_string(values.size()));
  };
  check_entries("mean", preparation.mean);
  check_entries("std", preparation.std);
  if (!std::isfinite(preparation.scale)) fail(ErrorCode::BadData, "scale", "expected a finite number");
  for (float mean : preparation.mean) {
    if (!std::isfinite(mean)) fail(ErrorCode::BadData, "mean", "expected finite numbers");
  }
  for (float std : preparation.std) {
    if (!(std > 0) || !std::isfinite(std)) fail(ErrorCode::BadData, "std", "expected finite numbers above 0");
  }
}

Tensor prepare(const Dataset& dataset, const Preparation& preparation, std::span<const uint32_t> indices) {
  check(preparation, dataset);
  const Tensor stored = dataset.read(indices);
  const size_t elements = elements_of(dataset.shape);
  Shape shape = {indices.size()};
  shape.insert(shape.end(), preparation.shape.begin(), preparation.shape.end());
  Tensor input = Tensor::allocate(DType::Float32, std::move(shape));
  if (stored.dtype() != dataset.dtype || stored.elements() != input.elements()) {
    fail(ErrorCode::BadData, dataset.name,
         "reading " + std::to_string(indices.size()) + " samples of " + std::string(to_string(dataset.dtype)) + " " +
             to_string(dataset.shape) + " gave " + std::string(to_string(stored.dtype())) + " " +
             to_string(stored.shape()));
  }
  const std::span<float> out = input.write<float>();
  const Plan plan = plan_of(preparation, dataset);

  if (dataset.dtype == DType::UInt8) {
    // A byte has 256 values: a table for each channel takes the division out of the loop.
    std::vector<std::array<float, 256>> tables(plan.to.channels);
    for (size_t c = 0; c < tables.size(); ++c) {
      const float mean = entry(preparation.mean, c), std = entry(preparation.std, c);
      for (size_t v = 0; v < 256; ++v) tables[c][v] = (static_cast<float>(v) * preparation.scale - mean) / std;
    }
    for (size_t i = 0; i < indices.size(); ++i) {
      const uint8_t* const from = stored.data<uint8_t>().data() + i * elements;
      float* const to = out.data() + i * elements;
      for_each_place(plan, [&](size_t a, size_t b, size_t c) { to[b] = tables[c][from[a]]; });
    }
    return input;
  }
  for (size_t i = 0; i < indices.size(); ++i) {
    const float* const from = stored.data<float>().data() + i * elements;
    float* const to = out.data() + i * elements;
    for_each_place(plan, [&](size_t a, size_t b, size_t c) {
      to[b] = (from[a] * preparation.scale - entry(preparation.mean, c)) / entry(preparation.std, c);
    });
  }
  return input;
}

}  // namespace nibble
