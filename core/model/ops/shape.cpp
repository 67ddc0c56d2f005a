// Operators that make constants, look at shapes, or move whole tensors about.
#include <numeric>

#include "core/model/ops/shape_parts.hpp"

namespace nibble::ops {

std::vector<Op> together(std::initializer_list<std::span<const Op>> tables) {
  std::vector<Op> all;
  for (const auto table : tables) all.insert(all.end(), table.begin(), table.end());
  return all;
}

std::vector<double> numbers_of(const Call& call, const Tensor& tensor) {
  if (is_half(tensor.dtype())) {
    const FloatView view(tensor);
    return {view.values().begin(), view.values().end()};
  }
  std::vector<double> out;
  visit_type(call, tensor.dtype(), [&](auto type) {
    const auto values = tensor.data<decltype(type)>();
    out.assign(values.begin(), values.end());
  });
  return out;
}

Tensor from_numbers(const Call& call, DType dtype, const Shape& shape, std::span<const double> values) {
  if (is_half(dtype)) {
    const std::vector<float> floats(values.begin(), values.end());
    return from_floats(dtype, shape, floats);
  }
  Tensor out = Tensor::allocate(dtype, shape);
  visit_type(call, dtype, [&](auto type) {
    using T = decltype(type);
    std::transform(values.begin(), values.end(), out.write<T>().begin(), [](double x) { return static_cast<T>(x); });
  });
  return out;
}

namespace {

// --- Constants and shapes --------------------------------------------------------------------------------------------

std::vector<Tensor> constant(Call& call) {
  if (call.has_attribute("value")) return {call.tensor("value")};
  if (call.has_attribute("value_float")) return {full<float>({}, call.real("value_float", 0))};
  if (call.has_attribute("value_int")) return {full<int64_t>({}, call.integer("value_int", 0))};
  if (call.has_attribute("value_ints")) return {int64s(call.integers("value_ints"))};
  if (call.has_attribute("value_floats")) {
    const std::vector<float> values = call.reals("value_floats");
    return {Tensor::from<float>(DType::Float32, {values.size()}, values)};
  }
  for (const std::string_view kind : {"sparse_value", "value_string", "value_strings"}) {
    if (call.has_attribute(kind)) call.refuse("a constant given as " + std::string(kind) + " cannot be run");
  }
  call.fail("has no value");
}

std::vector<Tensor> constant_of_shape(Call& call) {
  if (call.in(0).shape().size() > 1) call.fail("wants its shape as a list, found " + to_string(call.in(0).shape()));
  Shape shape;
  for (const int64_t extent : call.integers(0)) shape.push_back(count_of(call, extent, "an extent"));
  if (!call.has_attribute("value")) {
    check_size(call, DType::Float32, shape);
    return {zeros(std::move(shape))};
  }
  const Tensor& value = call.tensor("value");
  if (value.elements() != 1) call.fail("wants a value of one element, found " + to_string(value.shape()));
  Tensor out = allocate(call, value.dtype(), std::move(shape));
  visit_width(call, value.dtype(), [&](auto word) {
    const auto to = out.write<decltype(word)>();
    std::fill(to.begin(), to.end(), value.data<decltype(word)>()[0]);
  });
  return {std::move(out)};
}

std::vector<Tensor> shape_of(Call& call) {
  const Shape& shape = call.in(0).shape();
  const auto rank = static_cast<int64_t>(shape.size());
  const auto clamped = [&](int64_t axis) { return std::clamp<int64_t>(axis < 0 ? axis + rank : axis, 0, rank); };
  const int64_t start = clamped(call.integer("start", 0)), end = clamped(call.integer("end", rank));
  std::vector<int64_t> extents;
  for (int64_t i = start; i < end; ++i) extents.push_back(static_cast<int64_t>(shape[static_cast<size_t>(i)]));
  return {int64s(extents)};
}

std::vector<Tensor> size_of(Call& call) { return {full<int64_t>({}, static_cast<int64_t>(call.in(0).elements()))}; }

// --- The same elements under another shape ---------------------------------------------------------------------------

std::vector<Tensor> reshape_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  return {grads[0].reshaped(call.inputs[0].shape())};
}

std::vector<Tensor> reshape(Call& call) {
  const Shape& from = call.in(0).shape();
  const size_t elements = call.in(0).elements();
  const std::vector<int64_t> wanted = call.opset < 5 && !call.has(1) ? call.integers("shape") : call.integers(1);
  const bool copies_zero = call.integer("allowzero", 0) == 0;
  Shape shape(wanted.size(), 1);
  size_t open = wanted.size();
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == -1) {
      if (open < wanted.size()) call.fail("more than one extent of the new shape is -1");
      open = i;
    } else if (wanted[i] == 0 && copies_zero) {
      if (i >= from.size()) {
        call.fail("extent " + std::to_string(i) + " of the new shape copies one that " + to_string(from) +
                  " does not have");
      }
      shape[i] = from[i];
    } else {
      shape[i] = count_of(call, wanted[i], "an extent of the new shape");
    }
  }
  check_size(call, call.in(0).dtype(), shape);
  const size_t known = elements_of(shape);
  if (open < wanted.size()) {
    if (known == 0 || elements % known != 0) {
      call.fail("the new shape's other extents (" + std::to_string(known) + " elements) do not divide the " +
                std::to_string(elements) + " elements of " + to_string(from));
    }
    shape[open] = elements / known;
  } else if (known != elements) {
    call.fail("cannot make " + to_string(from) + " into " + to_string(shape) + ": the elements differ in number");
  }
  return {call.take(0).reshaped(std::move(shape))};
}

std::vector<Tensor> flatten(Call& call) {
  const Shape& shape = call.in(0).shape();
  const auto rank = static_cast<int64_t>(shape.size());
  const int64_t axis = call.integer("axis", 1);
  if (axis < -rank || axis > rank) {
    call.fail("axis " + std::to_string(axis) + " is not one of a tensor of rank " + std::to_string(rank));
  }
  const auto at = static_cast<size_t>(axis < 0 ? axis + rank : axis);
  Shape flat = {extent(shape, 0, at), extent(shape, at, shape.size())};
  return {call.take(0).reshaped(std::move(flat))};
}

/// The axes of Squeeze and Unsqueeze: an attribute before operator set 13, an input since.
std::vector<int64_t> given_axes(const Call& call) { return call.has(1) ? call.integers(1) : call.integers("axes"); }

std::vector<Tensor> squeeze(Call& call) {
  const Shape& shape = call.in(0).shape();
  std::vector<bool> gone(shape.size(), false);
  if (call.has(1) || call.has_attribute("axes")) {
    for (const size_t axis : axes_of(call, given_axes(call), shape.size())) {
      if (shape[axis] != 1) {
        call.fail("axis " + std::to_string(axis) + " of " + to_string(shape) + " has not extent 1, it cannot go");
      }
      gone[axis] = true;
    }
  } else {
    for (size_t i = 0; i < shape.size(); ++i) gone[i] = shape[i] == 1;
  }
  Shape out;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (!gone[i]) out.push_back(shape[i]);
  }
  return {call.take(0).reshaped(std::move(out))};
}

std::vector<Tensor> unsqueeze(Call& call) {
  const Shape& shape = call.in(0).shape();
  const std::vector<int64_t> given = given_axes(call);
  Shape out(shape.size() + given.size(), 0);
  std::vector<bool> fresh(out.size(), false);
  for (const size_t axis : axes_of(call, given, out.size())) fresh[axis] = true;
  for (size_t i = 0, from = 0; i < out.size(); ++i) out[i] = fresh[i] ? 1 : shape[from++];
  return {call.take(0).reshaped(std::move(out))};
}

// --- Transpose -------------------------------------------------------------------------------------------------------

std::vector<size_t> permutation(const Call& call, size_t rank) {
  std::vector<size_t> order(rank);
  if (!call.has_attribute("perm")) {
    for (size_t i = 0; i < rank; ++i) order[i] = rank - 1 - i;
    return order;
  }
  const std::vector<int64_t> perm = call.integers("perm");
  if (perm.size() != rank) {
    call.fail("perm names " + std::to_string(perm.size()) + " axes of a tensor of rank " + std::to_string(rank));
  }
  axes_of(call, perm, rank);  // all there, none twice
  for (size_t i = 0; i < rank; ++i) order[i] = axis_of(call, perm[i], rank);
  return order;
}

std::vector<Tensor> transpose(Call& call) {
  const Shape& shape = call.in(0).shape();
  const std::vector<size_t> order = permutation(call, shape.size());
  // Axes of extent 1 may go anywhere: nothing moves in memory.
  Shape out;
  std::vector<size_t> moved;
  for (const size_t axis : order) {
    out.push_back(shape[axis]);
    if (shape[axis] != 1) moved.push_back(axis);
  }
  if (std::is_sorted(moved.begin(), moved.end())) return {call.take(0).reshaped(std::move(out))};
  return {transposed(call, call.in(0), order)};
}

std::vector<Tensor> transpose_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const std::vector<size_t> order = permutation(call, call.inputs[0].shape().size());
  std::vector<size_t> inverse(order.size());
  for (size_t i = 0; i < order.size(); ++i) inverse[order[i]] = i;
  return {transposed(call, grads[0], inverse)};
}

// --- Concat and Split ------------------------------------------------------------------------------------------------

size_t concat_axis(const Call& call, size_t rank) {
  if (call.opset >= 4 && !call.has_attribute("axis")) call.fail("has no axis");
  return axis_of(call, call.integer("axis", 1), rank);
}

Tensor concatenated(const Call& call, std::span<const Tensor> parts, size_t axis) {
  const Shape& first = parts[0].shape();
  Shape shape = first;
  shape[axis] = 0;
  for (const Tensor& part : parts) {
    Shape other = part.shape();
    if (part.dtype() != parts[0].dtype()) {
      call.fail("cannot join " + std::string(to_string(parts[0].dtype())) + " and " +
                std::string(to_string(part.dtype())));
    }
    if (other.size() == first.size()) {
      shape[axis] += other[axis];
      other[axis] = first[axis];
    }
    if (other != first) {
      call.fail("cannot join " + to_string(first) + " and " + to_string(part.shape()) + " along axis " +
                std::to_string(axis));
    }
  }
  Tensor out = allocate(call, parts[0].dtype(), shape);
  const Steps steps = steps_of(shape);
  std::ptrdiff_t start = 0;
  for (const Tensor& part : parts) {
    copy_box(call, part.shape(), part, {0, steps_of(part.shape())}, out, {start, steps});
    start += static_cast<std::ptrdiff_t>(part.shape()[axis]) * steps[axis];
  }
  return out;
}

/// Pieces of these lengths along the axis.
std::vector<Tensor> pieces(const Call& call, const Tensor& whole, size_t axis, std::span<const size_t> lengths) {
  const Steps steps = steps_of(whole.shape());
  std::vector<Tensor> out;
  std::ptrdiff_t start = 0;
  for (const size_t length : lengths) {
    Shape shape = whole.shape();
    shape[axis] = length;
    out.push_back(strided(call, whole, shape, steps, start));
    start += static_cast<std::ptrdiff_t>(length) * steps[axis];
  }
  return out;
}

std::vector<Tensor> concat(Call& call) {
  std::vector<Tensor> parts;
  for (const Tensor& input : call.inputs) {
    if (input.exists()) parts.push_back(input);
  }
  if (parts.empty()) call.fail("has nothing to join");
  const size_t axis = concat_axis(call, parts[0].shape().size());
  if (parts.size() == 1) return {call.take(0)};
  return {concatenated(call, parts, axis)};
}

std::vector<Tensor> concat_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const size_t axis = concat_axis(call, grads[0].shape().size());
  std::vector<size_t> lengths;
  for (const Tensor& input : call.inputs) lengths.push_back(input.exists() ? input.shape()[axis] : 0);
  return pieces(call, grads[0], axis, lengths);
}

std::vector<size_t> split_lengths(const Call& call, size_t whole) {
  const size_t parts = call.node.outputs.size();
  const bool given = call.has(1) || call.has_attribute("split");
  std::vector<size_t> lengths;
  if (given) {
    for (const int64_t length : call.has(1) ? call.integers(1) : call.integers("split")) {
      lengths.push_back(count_of(call, length, "the length of a part"));
    }
    if (lengths.size() < parts) call.fail("makes " + std::to_string(parts) + " parts, but gives fewer lengths");
    if (std::accumulate(lengths.begin(), lengths.end(), uint64_t{0}) != whole) {
      call.fail("the lengths of the parts do not add up to " + std::to_string(whole));
    }
    return lengths;
  }
  const int64_t declared = call.integer("num_outputs", static_cast<int64_t>(parts));
  if (parts == 0 || declared != static_cast<int64_t>(parts)) {
    call.fail("num_outputs is " + std::to_string(declared) + ", but it names " + std::to_string(parts) + " outputs");
  }
  const size_t length = whole / parts + (whole % parts ? 1 : 0);
  if (length * (parts - 1) > whole || (whole % parts && call.opset < 18)) {
    call.fail("an extent of " + std::to_string(whole) + " cannot be cut into " + std::to_string(parts) + " parts");
  }
  lengths.assign(parts, length);
  lengths.back() = whole - length * (parts - 1);
  return lengths;
}

std::vector<Tensor> split(Call& call) {
  const Tensor& x = call.in(0);
  const size_t axis = axis_of(call, call.integer("axis", 0), x.shape().size());
  return pieces(call, x, axis, split_lengths(call, x.shape()[axis]));
}

std::vector<Tensor> split_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Shape& shape = call.inputs[0].shape();
  const size_t axis = axis_of(call, call.integer("axis", 0), shape.size());
  const std::vector<size_t> lengths = split_lengths(call, shape[axis]);
  std::vector<Tensor> parts;
  for (size_t i = 0; i < lengths.size(); ++i) {
    Shape part = shape;
    part[axis] = lengths[i];
    const bool made = i < outputs.size() && i < grads.size() && grads[i].exists();
    parts.push_back(made ? grads[i] : zeros(std::move(part)));
  }
  return {concatenated(call, parts, axis)};
}

// --- Expand and Tile -------------------------------------------------------------------------------------------------

std::vector<Tensor> expand(Call& call) {
  Shape wanted;
  for (const int64_t extent : call.integers(1)) wanted.push_back(count_of(call, extent, "an extent"));
  const Shape shape = broadcast(call, call.in(0).shape(), wanted);
  check_size(call, call.in(0).dtype(), shape);
  return {broadcast_to(call, call.take(0), shape)};
}

std::vector<Tensor> expand_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  return {sum_to(grads[0], call.inputs[0].shape())};
}

std::vector<size_t> repeats_of(const Call& call) {
  const size_t rank = call.in(0).shape().size();
  std::vector<size_t> repeats(rank, 1);
  if (call.opset < 6) {  // once as many tiles along one axis; the inputs had the tensor's type
    const std::vector<double> tiles = numbers_of(call, call.in(1)), axis = numbers_of(call, call.in(2));
    if (tiles.size() != 1 || axis.size() != 1) call.fail("wants one number of tiles and one axis");
    if (!(tiles[0] >= 0 && tiles[0] < 2e9) || !(axis[0] >= 0 && axis[0] < static_cast<double>(rank))) {
      call.fail("cannot make that many tiles along that axis");
    }
    repeats[static_cast<size_t>(axis[0])] = static_cast<size_t>(tiles[0]);
    return repeats;
  }
  const std::vector<int64_t> given = call.integers(1);
  if (given.size() != rank) {
    call.fail("gives " + std::to_string(given.size()) + " repeats for a tensor of rank " + std::to_string(rank));
  }
  for (size_t i = 0; i < rank; ++i) repeats[i] = count_of(call, given[i], "a number of repeats");
  return repeats;
}

std::vector<Tensor> tile(Call& call) {
  const Shape& shape = call.in(0).shape();
  const std::vector<size_t> repeats = repeats_of(call);
  if (std::all_of(repeats.begin(), repeats.end(), [](size_t count) { return count == 1; })) return {call.take(0)};
  // Every axis becomes two, of which the outer one stands still.
  const Steps own = steps_of(shape);
  Shape doubled, out;
  Steps steps;
  for (size_t i = 0; i < shape.size(); ++i) {
    doubled.insert(doubled.end(), {repeats[i], shape[i]});
    steps.insert(steps.end(), {0, own[i]});
    check_size(call, call.in(0).dtype(), {repeats[i], shape[i]});
    out.push_back(repeats[i] * shape[i]);
  }
  return {strided(call, call.in(0), doubled, steps).reshaped(std::move(out))};
}

std::vector<Tensor> tile_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Shape& shape = call.inputs[0].shape();
  const std::vector<size_t> repeats = repeats_of(call);
  Shape doubled, single;
  for (size_t i = 0; i < shape.size(); ++i) {
    doubled.insert(doubled.end(), {repeats[i], shape[i]});
    single.insert(single.end(), {1, shape[i]});
  }
  return {sum_to(grads[0].reshaped(std::move(doubled)), single).reshaped(shape)};
}

}  // namespace

std::span<const Op> layout_ops() {
  static const std::vector<Op> table = {
      {"Constant", constant},
      {"ConstantOfShape", constant_of_shape},
      {"Shape", shape_of},
      {"Size", size_of},
      {"Reshape", reshape, reshape_backward},
      {"Flatten", flatten, reshape_backward},
      {"Squeeze", squeeze, reshape_backward},
      {"Unsqueeze", unsqueeze, reshape_backward},
      {"Transpose", transpose, transpose_backward},
      {"Concat", concat, concat_backward},
      {"Split", split, split_backward},
      {"Expand", expand, expand_backward},
      {"Tile", tile, tile_backward},
  };
  return table;
}

std::span<const Op> shape_ops() {
  static const std::vector<Op> all = together({layout_ops(), slice_ops(), gather_ops(), signal_ops(), selection_ops()});
  return all;
}

}  // namespace nibble::ops
