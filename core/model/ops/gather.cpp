// Operators that pick elements by index, or put them: Gather*, Scatter*, Compress, OneHot.
#include <cmath>

#include "core/model/ops/shape_parts.hpp"

namespace nibble::ops {

namespace {

/// Indices as places along an axis; negative ones count from its end.
std::vector<size_t> places_of(const Call& call, std::span<const int64_t> indices, size_t extent) {
  const auto whole = static_cast<int64_t>(extent);
  std::vector<size_t> out(indices.size());
  for (size_t i = 0; i < indices.size(); ++i) {
    const int64_t at = indices[i] < 0 ? indices[i] + whole : indices[i];
    if (at < 0 || at >= whole) {
      call.fail("index " + std::to_string(indices[i]) + " is not within an axis of " + std::to_string(whole));
    }
    out[i] = static_cast<size_t>(at);
  }
  return out;
}

/// to[i] = from[at[i]], each a block of elements.
void take_blocks(const Call& call, const Tensor& from, std::span<const size_t> at, size_t block, Tensor& to) {
  visit_width(call, from.dtype(), [&](auto word) {
    const auto* const in = from.data<decltype(word)>().data();
    auto* const out = to.write<decltype(word)>().data();
    if (block == 1) {
      for (size_t i = 0; i < at.size(); ++i) out[i] = in[at[i]];
    } else if (block > 0) {
      for (size_t i = 0; i < at.size(); ++i) std::memcpy(out + i * block, in + at[i], block * sizeof(word));
    }
  });
}

/// The gradient of take_blocks: to[at[i]] += from[i].
void add_blocks(std::span<const float> from, std::span<const size_t> at, size_t block, std::span<float> to) {
  for (size_t i = 0; i < at.size(); ++i) {
    if (block == 1) {
      to[at[i]] += from[i];
    } else if (block > 0) {
      const std::span<float> target = to.subspan(at[i], block);
      kernels::add(target, from.subspan(i * block, block), target);
    }
  }
}

// --- Gather and Compress ---------------------------------------------------------------------------------------------

/// Where the blocks of Gather begin, and how long they are.
struct Blocks {
  std::vector<size_t> at;
  size_t block = 1;
};

Blocks blocks_along(const Call& call, const Shape& shape, size_t axis, std::span<const size_t> places) {
  const size_t outer = extent(shape, 0, axis), whole = shape[axis];
  Blocks blocks{{}, extent(shape, axis + 1, shape.size())};
  // Without elements there may be any number of empty blocks.
  if (blocks.block == 0 || outer == 0 || places.empty()) return blocks;
  check_size(call, DType::UInt8, {outer, places.size()});
  blocks.at.reserve(outer * places.size());
  for (size_t o = 0; o < outer; ++o) {
    for (const size_t place : places) blocks.at.push_back((o * whole + place) * blocks.block);
  }
  return blocks;
}

Tensor gathered(const Call& call, size_t axis, std::span<const size_t> places, const Shape& instead) {
  const Tensor& x = call.in(0);
  Shape shape = x.shape();
  shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(axis), instead.begin(), instead.end());
  Tensor out = allocate(call, x.dtype(), std::move(shape));
  const Blocks blocks = blocks_along(call, x.shape(), axis, places);
  take_blocks(call, x, blocks.at, blocks.block, out);
  return out;
}

Tensor gathered_grad(const Call& call, size_t axis, std::span<const size_t> places, const Tensor& grad) {
  Tensor out = zeros(call.inputs[0].shape());
  const Blocks blocks = blocks_along(call, out.shape(), axis, places);
  add_blocks(grad.data<float>(), blocks.at, blocks.block, out.write<float>());
  return out;
}

std::vector<Tensor> gather(Call& call) {
  const Shape& shape = call.in(0).shape();
  const size_t axis = axis_of(call, call.integer("axis", 0), shape.size());
  return {gathered(call, axis, places_of(call, call.integers(1), shape[axis]), call.in(1).shape())};
}

std::vector<Tensor> gather_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Shape& shape = call.inputs[0].shape();
  const size_t axis = axis_of(call, call.integer("axis", 0), shape.size());
  return {gathered_grad(call, axis, places_of(call, call.integers(1), shape[axis]), grads[0])};
}

std::vector<size_t> chosen(const Call& call, size_t extent) {
  if (call.in(1).dtype() != DType::Bool || call.in(1).shape().size() != 1) {
    call.fail("wants its condition as a list of bool");
  }
  const std::span<const uint8_t> condition = call.in(1).data<uint8_t>();
  std::vector<size_t> out;
  for (size_t i = 0; i < condition.size(); ++i) {
    if (!condition[i]) continue;
    if (i >= extent) call.fail("its condition chooses beyond an axis of " + std::to_string(extent));
    out.push_back(i);
  }
  return out;
}

/// Compress without an axis works on the flat tensor.
std::vector<Tensor> compress(Call& call) {
  if (!call.has_attribute("axis")) call.inputs[0] = Tensor(call.in(0)).reshaped({call.in(0).elements()});
  const Shape& shape = call.in(0).shape();
  const size_t axis = axis_of(call, call.integer("axis", 0), shape.size());
  const std::vector<size_t> places = chosen(call, shape[axis]);
  return {gathered(call, axis, places, {places.size()})};
}

std::vector<Tensor> compress_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Shape& shape = call.inputs[0].shape();
  if (call.has_attribute("axis")) {
    const size_t axis = axis_of(call, call.integer("axis", 0), shape.size());
    return {gathered_grad(call, axis, chosen(call, shape[axis]), grads[0])};
  }
  Tensor out = zeros(shape);
  add_blocks(grads[0].data<float>(), chosen(call, out.elements()), 1, out.write<float>());
  return {std::move(out)};
}

// --- GatherElements, GatherND, ScatterElements, ScatterND ------------------------------------------------------------

/// The element of `shape` that each index names: its own place, but for the axis.
std::vector<size_t> element_places(const Call& call, const Shape& shape, const Tensor& indices) {
  const size_t axis = axis_of(call, call.integer("axis", 0), shape.size());
  const Shape& own = indices.shape();
  if (own.size() != shape.size()) {
    call.fail("indices of " + to_string(own) + " have not the rank of " + to_string(shape));
  }
  for (size_t i = 0; i < own.size(); ++i) {
    if (i != axis && own[i] > shape[i]) call.fail("indices of " + to_string(own) + " exceed " + to_string(shape));
  }
  std::vector<size_t> out = places_of(call, call.integers(1), shape[axis]);
  const Steps steps = steps_of(shape);
  for (size_t& place : out) place *= static_cast<size_t>(steps[axis]);
  Steps others = steps;
  others[axis] = 0;
  const size_t run = own.back();
  for_each_run(own, others, 0, [&](size_t at, std::ptrdiff_t in) {
    for (size_t i = 0; i < run; ++i, in += others.back()) out[at + i] += static_cast<size_t>(in);
  });
  return out;
}

/// The block of `shape` that each tuple along the last axis of the indices names.
Blocks tuple_places(const Call& call, const Shape& shape, const Tensor& indices, size_t batch_dims) {
  const Shape& own = indices.shape();
  if (own.empty() || shape.empty()) call.fail("wants indices and data of rank 1 at least");
  const size_t length = own.back();
  if (batch_dims >= own.size() || batch_dims + length > shape.size()) {
    call.fail("indices of " + to_string(own) + " with " + std::to_string(batch_dims) +
              " batch axes do not lead into data of " + to_string(shape));
  }
  if (!std::equal(own.begin(), own.begin() + static_cast<std::ptrdiff_t>(batch_dims), shape.begin())) {
    call.fail("the first " + std::to_string(batch_dims) + " extents of " + to_string(own) + " and " + to_string(shape) +
              " differ");
  }
  const std::vector<int64_t> values = call.integers(1);
  const Steps steps = steps_of(shape);
  const size_t tuples = extent(own, 0, own.size() - 1), batches = extent(own, 0, batch_dims);
  const size_t batch_step = extent(shape, batch_dims, shape.size());
  Blocks blocks{{}, extent(shape, batch_dims + length, shape.size())};
  if (tuples == 0 || (length == 0 && blocks.block == 0)) return blocks;
  check_size(call, DType::UInt8, {tuples});
  blocks.at.resize(tuples);
  for (size_t t = 0; t < tuples; ++t) {
    size_t at = t / (tuples / batches) * batch_step;
    for (size_t i = 0; i < length; ++i) {
      const auto whole = static_cast<int64_t>(shape[batch_dims + i]);
      const int64_t index = values[t * length + i], place = index < 0 ? index + whole : index;
      if (place < 0 || place >= whole) {
        call.fail("index " + std::to_string(index) + " is not within an axis of " + std::to_string(whole));
      }
      at += static_cast<size_t>(place) * static_cast<size_t>(steps[batch_dims + i]);
    }
    blocks.at[t] = at;
  }
  return blocks;
}

std::vector<Tensor> gather_elements(Call& call) {
  const Tensor& x = call.in(0);
  const std::vector<size_t> places = element_places(call, x.shape(), call.in(1));
  Tensor out = allocate(call, x.dtype(), call.in(1).shape());
  take_blocks(call, x, places, 1, out);
  return {std::move(out)};
}

std::vector<Tensor> gather_elements_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  Tensor out = zeros(call.inputs[0].shape());
  add_blocks(grads[0].data<float>(), element_places(call, out.shape(), call.inputs[1]), 1, out.write<float>());
  return {std::move(out)};
}

Blocks gather_nd_blocks(const Call& call) {
  const size_t batch_dims = count_of(call, call.integer("batch_dims", 0), "batch_dims");
  return tuple_places(call, call.in(0).shape(), call.in(1), batch_dims);
}

std::vector<Tensor> gather_nd(Call& call) {
  const Tensor& x = call.in(0);
  const Blocks blocks = gather_nd_blocks(call);
  Shape shape = call.in(1).shape();
  const size_t led = static_cast<size_t>(call.integer("batch_dims", 0)) + shape.back();
  shape.pop_back();
  shape.insert(shape.end(), x.shape().begin() + static_cast<std::ptrdiff_t>(led), x.shape().end());
  Tensor out = allocate(call, x.dtype(), std::move(shape));
  take_blocks(call, x, blocks.at, blocks.block, out);
  return {std::move(out)};
}

std::vector<Tensor> gather_nd_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  Tensor out = zeros(call.inputs[0].shape());
  const Blocks blocks = gather_nd_blocks(call);
  add_blocks(grads[0].data<float>(), blocks.at, blocks.block, out.write<float>());
  return {std::move(out)};
}

enum class Reduction : uint8_t { None, Add, Multiply, Max, Min };

Reduction reduction_of(const Call& call) {
  const std::string name = call.text("reduction", "none");
  if (name == "none") return Reduction::None;
  if (name == "add") return Reduction::Add;
  if (name == "mul") return Reduction::Multiply;
  if (name == "max") return Reduction::Max;
  if (name == "min") return Reduction::Min;
  call.fail("reduction \"" + name + "\" is none of none, add, mul, max and min");
}

template <class T>
T reduced(Reduction reduction, T old, T value) {
  using Wide = std::conditional_t<std::is_floating_point_v<T>, T, uint64_t>;  // unsigned: wraps instead of overflowing
  switch (reduction) {
    case Reduction::Add: return static_cast<T>(static_cast<Wide>(old) + static_cast<Wide>(value));
    case Reduction::Multiply: return static_cast<T>(static_cast<Wide>(old) * static_cast<Wide>(value));
    case Reduction::Max: return old < value ? value : old;
    case Reduction::Min: return value < old ? value : old;
    case Reduction::None: break;
  }
  return value;
}

/// data with its blocks replaced by, or combined with, those of the updates.
Tensor scattered(const Call& call, Tensor data, const Tensor& updates, const Blocks& blocks, Reduction reduction) {
  if (updates.dtype() != data.dtype()) {
    call.fail("puts " + std::string(to_string(updates.dtype())) + " into " + std::string(to_string(data.dtype())));
  }
  const size_t block = blocks.block;
  if (reduction == Reduction::None) {
    visit_width(call, data.dtype(), [&](auto word) {
      const auto* const from = updates.data<decltype(word)>().data();
      auto* const to = data.write<decltype(word)>().data();
      for (size_t i = 0; i < blocks.at.size(); ++i) std::copy_n(from + i * block, block, to + blocks.at[i]);
    });
    return data;
  }
  const DType dtype = data.dtype();
  if (is_half(dtype)) {
    const Tensor sums = scattered(call, widened(data), widened(updates), blocks, reduction);
    return from_floats(dtype, sums.shape(), sums.data<float>());
  }
  visit_type(call, dtype, [&](auto type) {
    using T = decltype(type);
    const T* const from = updates.data<T>().data();
    T* const to = data.write<T>().data();
    for (size_t i = 0; i < blocks.at.size(); ++i) {
      for (size_t j = 0; j < block; ++j) {
        T& target = to[blocks.at[i] + j];
        target = reduced(reduction, target, from[i * block + j]);
      }
    }
  });
  return data;
}

/// Gradients of data and updates, for the reductions under which they are picked or passed on.
std::vector<Tensor> scattered_grad(const Call& call, const Blocks& blocks, const Tensor& grad) {
  const Reduction reduction = reduction_of(call);
  if (reduction != Reduction::None && reduction != Reduction::Add) {
    call.refuse("has no gradient for reduction \"" + call.text("reduction", "") + "\"");
  }
  std::vector<Tensor> out(3);
  out[2] = Tensor::allocate(DType::Float32, call.inputs[2].shape());
  take_blocks(call, grad, blocks.at, blocks.block, out[2]);
  out[0] = reduction == Reduction::Add ? grad : scattered(call, grad, zeros(out[2].shape()), blocks, reduction);
  if (reduction == Reduction::Add) return out;
  // Of blocks that are put twice the last one stays, and the others have no part in the result.
  std::vector<size_t> last = blocks.at;
  std::sort(last.begin(), last.end());
  if (std::adjacent_find(last.begin(), last.end()) == last.end()) return out;
  std::vector<std::pair<size_t, size_t>> order;
  for (size_t i = 0; i < blocks.at.size(); ++i) order.emplace_back(blocks.at[i], i);
  std::sort(order.begin(), order.end());
  const std::span<float> updates = out[2].write<float>();
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    if (order[i].first != order[i + 1].first) continue;
    const std::span<float> hidden = updates.subspan(order[i].second * blocks.block, blocks.block);
    std::fill(hidden.begin(), hidden.end(), 0.0f);
  }
  return out;
}

Blocks scatter_elements_blocks(const Call& call) {
  if (call.in(2).shape() != call.in(1).shape()) {
    call.fail("updates of " + to_string(call.in(2).shape()) + " do not fit indices of " +
              to_string(call.in(1).shape()));
  }
  return {element_places(call, call.in(0).shape(), call.in(1)), 1};
}

std::vector<Tensor> scatter_elements(Call& call) {
  const Blocks blocks = scatter_elements_blocks(call);
  return {scattered(call, call.take(0), call.in(2), blocks, reduction_of(call))};
}

std::vector<Tensor> scatter_elements_backward(const Call& call, std::span<const Tensor>,
                                              std::span<const Tensor> grads) {
  return scattered_grad(call, scatter_elements_blocks(call), grads[0]);
}

Blocks scatter_nd_blocks(const Call& call) {
  const Shape& shape = call.in(0).shape();
  const Blocks blocks = tuple_places(call, shape, call.in(1), 0);
  Shape wanted = call.in(1).shape();
  const size_t led = wanted.back();
  wanted.pop_back();
  wanted.insert(wanted.end(), shape.begin() + static_cast<std::ptrdiff_t>(led), shape.end());
  if (call.in(2).shape() != wanted) {
    call.fail("wants updates of " + to_string(wanted) + ", found " + to_string(call.in(2).shape()));
  }
  return blocks;
}

std::vector<Tensor> scatter_nd(Call& call) {
  const Blocks blocks = scatter_nd_blocks(call);
  return {scattered(call, call.take(0), call.in(2), blocks, reduction_of(call))};
}

std::vector<Tensor> scatter_nd_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  return scattered_grad(call, scatter_nd_blocks(call), grads[0]);
}

/// A cache of keys or values: update i along the axis goes to place start + i, the start given for each batch.
Blocks tensor_scatter_blocks(const Call& call) {
  const Shape& cache = call.in(0).shape();
  const Shape& update = call.in(1).shape();
  const size_t axis = axis_of(call, call.integer("axis", -2), cache.size());
  Shape wanted = cache;
  if (axis < update.size()) wanted[axis] = update[axis];
  if (axis == 0 || update != wanted || update[axis] > cache[axis]) {
    call.fail("an update of " + to_string(update) + " does not fit a cache of " + to_string(cache) + " along axis " +
              std::to_string(axis));
  }
  const std::string mode = call.text("mode", "linear");
  if (mode != "linear" && mode != "circular") call.fail("mode \"" + mode + "\" is neither linear nor circular");
  std::vector<int64_t> starts(cache[0], 0);
  if (call.has(2)) starts = call.integers(2);
  if (starts.size() != cache[0]) call.fail("wants one start for each of " + std::to_string(cache[0]));
  const size_t whole = cache[axis], length = update[axis], middle = extent(cache, 1, axis);
  Blocks blocks{{}, extent(cache, axis + 1, cache.size())};
  if (call.in(1).elements() == 0) return blocks;
  for (size_t batch = 0; batch < cache[0]; ++batch) {
    const auto start = static_cast<uint64_t>(starts[batch]);
    if (starts[batch] < 0 || (mode == "linear" ? start > whole - length : start >= whole)) {
      call.fail("an update of " + std::to_string(length) + " does not fit at " + std::to_string(starts[batch]) +
                " of a cache of " + std::to_string(whole));
    }
    for (size_t m = 0; m < middle; ++m) {
      for (size_t i = 0; i < length; ++i) {
        const size_t place = (static_cast<size_t>(start) + i) % whole;
        blocks.at.push_back(((batch * middle + m) * whole + place) * blocks.block);
      }
    }
  }
  return blocks;
}

std::vector<Tensor> tensor_scatter(Call& call) {
  const Blocks blocks = tensor_scatter_blocks(call);
  return {scattered(call, call.take(0), call.in(1), blocks, Reduction::None)};
}

// --- OneHot ----------------------------------------------------------------------------------------------------------

std::vector<Tensor> one_hot(Call& call) {
  const std::vector<double> indices = numbers_of(call, call.in(0)), depths = numbers_of(call, call.in(1));
  const Tensor& values = call.in(2);
  if (depths.size() != 1 || values.elements() != 2) call.fail("wants one depth and two values");
  if (!(depths[0] >= 0 && depths[0] < 0x1p31)) call.fail("cannot make vectors of that depth");
  const auto depth = static_cast<size_t>(depths[0]);
  Shape shape = call.in(0).shape();
  const size_t axis = axis_of(call, call.integer("axis", -1), shape.size() + 1);
  const size_t outer = extent(shape, 0, axis), inner = extent(shape, axis, shape.size());
  shape.insert(shape.begin() + static_cast<std::ptrdiff_t>(axis), depth);
  Tensor out = allocate(call, values.dtype(), std::move(shape));
  visit_width(call, values.dtype(), [&](auto word) {
    const auto pair = values.data<decltype(word)>();
    const auto to = out.write<decltype(word)>();
    std::fill(to.begin(), to.end(), pair[0]);
    for (size_t o = 0; o < outer; ++o) {
      for (size_t i = 0; i < inner; ++i) {
        double at = std::trunc(indices[o * inner + i]);
        if (at < 0) at += depths[0];
        if (at >= 0 && at < depths[0]) to[(o * depth + static_cast<size_t>(at)) * inner + i] = pair[1];
      }
    }
  });
  return {std::move(out)};
}

}  // namespace

std::span<const Op> gather_ops() {
  static const std::vector<Op> table = {
      {"Gather", gather, gather_backward},
      {"Compress", compress, compress_backward},
      {"GatherElements", gather_elements, gather_elements_backward},
      {"GatherND", gather_nd, gather_nd_backward},
      {"Scatter", scatter_elements, scatter_elements_backward},
      {"ScatterElements", scatter_elements, scatter_elements_backward},
      {"ScatterND", scatter_nd, scatter_nd_backward},
      {"TensorScatter", tensor_scatter, nullptr},
      {"OneHot", one_hot, nullptr},
  };
  return table;
}

}  // namespace nibble::ops
