// Small networks by name, with freshly drawn weights: what training starts from.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/model/model.hpp"

namespace nibble {

/// Names that make_architecture knows, with a sentence each.
struct Architecture {
  std::string_view name, summary;
};
/// linear, simplenet, lenet-300-100, lenet-5, depthwise, resnet-8, lstm, transformer.
std::span<const Architecture> architectures();

/// An ONNX model (operator set 17) for input [N, 1, 28, 28] and ten classes ("linear": [N, 5] and one number), weights
/// drawn by He's or Glorot's rule from the seed. Throws Error{BadData} naming the nearest known one.
Model make_architecture(std::string_view name, uint64_t seed);

}  // namespace nibble
