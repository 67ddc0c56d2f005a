// Random tensors. ONNX leaves the generator open; ours is counter based, from the node's stream or its `seed`.
#include <bit>
#include <numbers>

#include "core/base/context.hpp"
#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

uint64_t key_of(const Call& call) {
  return call.has_attribute("seed") ? mix64(std::bit_cast<uint32_t>(call.real("seed", 0)), 0) : call.key;
}

/// Only real types are drawn.
DType drawn_type(const Call& call, DType otherwise) {
  const DType dtype = call.type("dtype", otherwise);
  if (!is_real(dtype)) call.refuse("numbers of type " + std::string(to_string(dtype)) + " are not drawn here");
  return dtype;
}

Shape shape_given(const Call& call) {
  constexpr size_t kMost = size_t{1} << 28;
  Shape shape;
  uint64_t elements = 1;  // of the extents so far; an extent of 0 hides none of the others
  for (const int64_t size : call.integers("shape")) {
    if (size < 0 || static_cast<uint64_t>(size) > kMost)
      call.fail("attribute \"shape\" has an extent of " + std::to_string(size));
    shape.push_back(static_cast<size_t>(size));
    elements *= std::max<uint64_t>(1, shape.back());
    if (elements > kMost) call.fail("attribute \"shape\" is too large: " + to_string(shape));
  }
  return shape;
}

Tensor uniform(const Call& call, const Shape& shape, DType dtype) {
  const float low = call.real("low", 0), high = call.real("high", 1);
  const uint64_t key = key_of(call);
  std::vector<float> values(elements_of(shape));
  for (size_t i = 0; i < values.size(); ++i) values[i] = low + (high - low) * uniform24(key, i);
  return from_floats(dtype, shape, values);
}

/// Box and Muller (1958).
Tensor normal(const Call& call, const Shape& shape, DType dtype) {
  const float mean = call.real("mean", 0), scale = call.real("scale", 1);
  const uint64_t key = key_of(call);
  std::vector<float> values(elements_of(shape));
  for (size_t i = 0; i < values.size(); ++i) {
    const double radius = std::sqrt(-2 * std::log(1 - double{uniform24(key, 2 * i)}));
    const double angle = 2 * std::numbers::pi * double{uniform24(key, 2 * i + 1)};
    values[i] = mean + scale * static_cast<float>(radius * std::cos(angle));
  }
  return from_floats(dtype, shape, values);
}

/// Whoever runs a model wants to know what it computes; ONNX leaves the generator open, so no two runtimes agree here.
void only_in_training(const Call& call) {
  if (!call.training) call.refuse("it draws random numbers, and ONNX does not say which, so its output means nothing");
}

using Draw = Tensor (*)(const Call&, const Shape&, DType);

template <Draw draw>
std::vector<Tensor> drawn(Call& call) {
  only_in_training(call);
  return {draw(call, shape_given(call), drawn_type(call, DType::Float32))};
}
template <Draw draw>
std::vector<Tensor> drawn_like(Call& call) {
  only_in_training(call);
  return {draw(call, call.in(0).shape(), drawn_type(call, call.in(0).dtype()))};
}

std::vector<Tensor> no_gradient(const Call& call, std::span<const Tensor>, std::span<const Tensor>) {
  return std::vector<Tensor>(call.inputs.size());
}

const Op kOps[] = {
    {"RandomUniform", drawn<uniform>},
    {"RandomNormal", drawn<normal>},
    {"RandomUniformLike", drawn_like<uniform>, no_gradient},
    {"RandomNormalLike", drawn_like<normal>, no_gradient},
};

}  // namespace

std::span<const Op> random_ops() { return kOps; }

}  // namespace nibble::ops
