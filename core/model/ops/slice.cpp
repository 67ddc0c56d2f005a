// Operators that take or make a part of a tensor by rule: Slice, Pad, Trilu, ReverseSequence, Range, EyeLike.
#include <cmath>
#include <numeric>

#include "core/model/ops/shape_parts.hpp"

namespace nibble::ops {

namespace {

// --- Slice -----------------------------------------------------------------------------------------------------------

struct Cut {
  Shape shape;
  Walk walk;  ///< through the input
};

Cut cut_of(const Call& call, const Shape& shape) {
  const bool attributes = call.opset < 10 && call.inputs.size() < 2;
  const std::vector<int64_t> starts = attributes ? call.integers("starts") : call.integers(1);
  const std::vector<int64_t> ends = attributes ? call.integers("ends") : call.integers(2);
  std::vector<int64_t> axes(starts.size()), by(starts.size(), 1);
  std::iota(axes.begin(), axes.end(), int64_t{0});
  if (attributes) {
    axes = call.integers("axes", axes);
  } else {
    if (call.has(3)) axes = call.integers(3);
    if (call.has(4)) by = call.integers(4);
  }
  if (ends.size() != starts.size() || axes.size() != starts.size() || by.size() != starts.size()) {
    call.fail("its starts, ends, axes and steps are " + std::to_string(starts.size()) + ", " +
              std::to_string(ends.size()) + ", " + std::to_string(axes.size()) + " and " + std::to_string(by.size()) +
              "; they must be equally many");
  }
  axes_of(call, axes, shape.size());
  Cut cut{shape, {0, steps_of(shape)}};
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t axis = axis_of(call, axes[i], shape.size());
    const auto whole = static_cast<int64_t>(shape[axis]);
    if (by[i] == 0) call.fail("a step of 0 leads nowhere");
    // A step beyond the whole extent takes one element at most, as the extent does.
    const int64_t step = std::clamp<int64_t>(by[i], -std::max<int64_t>(whole, 1), std::max<int64_t>(whole, 1));
    const auto place = [&](int64_t at, int64_t lowest, int64_t highest) {
      return std::clamp<int64_t>(at < 0 ? at + whole : at, lowest, highest);
    };
    // As the operator's text has it; NumPy would take nothing, going back from before the first element.
    const bool up = step > 0;
    const int64_t first = place(starts[i], 0, up ? whole : whole - 1 < 0 ? 0 : whole - 1);
    const int64_t end = place(ends[i], up ? 0 : -1, up ? whole : whole - 1);
    int64_t count = up ? (end - first + step - 1) / step : (first - end - step - 1) / -step;
    if (whole == 0 || (up ? end <= first : first <= end)) count = 0;
    cut.shape[axis] = static_cast<size_t>(count);
    if (count > 0) cut.walk.start += static_cast<std::ptrdiff_t>(first) * cut.walk.steps[axis];
    cut.walk.steps[axis] *= static_cast<std::ptrdiff_t>(step);
  }
  return cut;
}

std::vector<Tensor> slice(Call& call) {
  const Cut cut = cut_of(call, call.in(0).shape());
  if (cut.shape == call.in(0).shape() && cut.walk.start == 0) return {call.take(0)};
  return {strided(call, call.in(0), cut.shape, cut.walk.steps, cut.walk.start)};
}

std::vector<Tensor> slice_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  Tensor grad = zeros(call.inputs[0].shape());
  const Cut cut = cut_of(call, grad.shape());
  copy_box(call, cut.shape, grads[0], {0, steps_of(cut.shape)}, grad, cut.walk);
  return {std::move(grad)};
}

// --- Pad -------------------------------------------------------------------------------------------------------------

struct Padding {
  std::vector<int64_t> before, after;
  Shape shape;  ///< of the output
  std::string mode;
};

Padding padding_of(const Call& call, const Shape& shape) {
  const size_t rank = shape.size();
  Padding padding{std::vector<int64_t>(rank, 0), std::vector<int64_t>(rank, 0), shape, call.text("mode", "constant")};
  std::vector<int64_t> pads;
  if (call.opset >= 11)
    pads = call.integers(1);
  else
    pads = call.integers(call.opset < 2 && call.has_attribute("paddings") ? "paddings" : "pads");
  std::vector<int64_t> axes(rank);
  std::iota(axes.begin(), axes.end(), int64_t{0});
  if (call.opset >= 18 && call.has(3)) axes = call.integers(3);
  axes_of(call, axes, rank);
  if (pads.size() != 2 * axes.size()) {
    call.fail("gives " + std::to_string(pads.size()) + " pads for " + std::to_string(axes.size()) +
              " axes; it takes two for each");
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    const size_t axis = axis_of(call, axes[i], rank);
    constexpr int64_t kMost = int64_t{1} << 40;  // more than anything has, and far from overflowing when added
    const int64_t before = std::max(pads[i], -kMost), after = std::max(pads[i + axes.size()], -kMost);
    if (std::max(before, after) > kMost) call.refuse("pads of more than 2^40 elements are not made here");
    const int64_t extent = static_cast<int64_t>(shape[axis]) + before + after;
    if (extent < 0) call.fail("pads cut more from axis " + std::to_string(axis) + " than there is");
    padding.before[axis] = before;
    padding.after[axis] = after;
    padding.shape[axis] = count_of(call, extent, "the padded extent");
  }
  if (padding.mode != "constant" && padding.mode != "reflect" && padding.mode != "edge" && padding.mode != "wrap") {
    call.fail("mode \"" + padding.mode + "\" is none of constant, reflect, edge and wrap");
  }
  return padding;
}

/// What of the input is left by negative pads, and where it lies in input and output.
struct Kept {
  Shape shape;
  Walk from, to;
};
Kept kept_of(const Padding& padding, const Shape& shape) {
  Kept kept{shape, {0, steps_of(shape)}, {0, steps_of(padding.shape)}};
  for (size_t i = 0; i < shape.size(); ++i) {
    const auto whole = static_cast<int64_t>(shape[i]);
    const int64_t first = std::min(whole, std::max<int64_t>(0, -padding.before[i]));
    const int64_t end = std::max(first, whole - std::min(whole, std::max<int64_t>(0, -padding.after[i])));
    kept.shape[i] = static_cast<size_t>(end - first);
    if (end == first) continue;
    kept.from.start += static_cast<std::ptrdiff_t>(first) * kept.from.steps[i];
    kept.to.start += static_cast<std::ptrdiff_t>(std::max<int64_t>(0, padding.before[i])) * kept.to.steps[i];
  }
  return kept;
}

/// For the other modes: the input's place that each place along an axis of the output shows. Negative pads cut first.
std::vector<std::ptrdiff_t> sources(const Call& call, const Padding& padding, const Shape& shape, size_t axis) {
  const auto whole = static_cast<int64_t>(shape[axis]);
  const int64_t first = std::max<int64_t>(0, -padding.before[axis]);
  const int64_t left = whole - first - std::max<int64_t>(0, -padding.after[axis]);
  if (padding.shape[axis] >> 28) call.refuse("pads an axis to more than 2^28 by mode " + padding.mode);
  std::vector<std::ptrdiff_t> out(padding.shape[axis]);
  if (!out.empty() && left <= 0) call.fail("has nothing to pad from along axis " + std::to_string(axis));
  for (size_t i = 0; i < out.size(); ++i) {
    int64_t at = static_cast<int64_t>(i) - std::max<int64_t>(0, padding.before[axis]);
    if (padding.mode == "edge") {
      at = std::clamp<int64_t>(at, 0, left - 1);
    } else if (padding.mode == "wrap") {
      at = (at % left + left) % left;
    } else if (left == 1) {
      at = 0;
    } else {
      const int64_t period = 2 * (left - 1);
      at = (at % period + period) % period;
      at = std::min(at, period - at);
    }
    out[i] = static_cast<std::ptrdiff_t>(first + at);
  }
  return out;
}

/// Calls visit(out, in) for each element of the output.
template <class Visit>
void for_each_source(const Call& call, const Padding& padding, const Shape& shape, const Visit& visit) {
  const size_t rank = shape.size();
  const Steps steps = steps_of(shape);
  std::vector<std::vector<std::ptrdiff_t>> places(rank);
  for (size_t axis = 0; axis < rank; ++axis) {
    places[axis] = sources(call, padding, shape, axis);
    for (std::ptrdiff_t& place : places[axis]) place *= steps[axis];
  }
  const size_t run = rank ? padding.shape.back() : 1;
  std::vector<size_t> at(rank, 0);
  const size_t all = elements_of(padding.shape);
  for (size_t out = 0; out < all; out += run) {
    std::ptrdiff_t in = 0;
    for (size_t i = 0; i + 1 < rank; ++i) in += places[i][at[i]];
    for (size_t i = 0; i < run; ++i) visit(out + i, static_cast<size_t>(rank ? in + places[rank - 1][i] : 0));
    for (size_t i = rank < 2 ? 0 : rank - 1; i-- > 0;) {
      if (++at[i] < padding.shape[i]) break;
      at[i] = 0;
    }
  }
}

std::vector<Tensor> pad(Call& call) {
  const Tensor& x = call.in(0);
  const Padding padding = padding_of(call, x.shape());
  const bool nothing = std::all_of(padding.before.begin(), padding.before.end(), [](int64_t n) { return n == 0; }) &&
                       std::all_of(padding.after.begin(), padding.after.end(), [](int64_t n) { return n == 0; });
  if (nothing) return {call.take(0)};
  Tensor out = allocate(call, x.dtype(), padding.shape);
  if (padding.mode != "constant") {
    visit_width(call, x.dtype(), [&](auto word) {
      const auto to = out.write<decltype(word)>();
      const auto from = x.data<decltype(word)>();
      for_each_source(call, padding, x.shape(), [&](size_t o, size_t i) { to[o] = from[i]; });
    });
    return {std::move(out)};
  }
  Tensor value = call.opset < 11 ? from_numbers(call, x.dtype(), {}, std::vector<double>{call.real("value", 0)})
                 : call.has(2)   ? call.in(2)
                                 : zeros(x.dtype(), {});
  if (value.dtype() != x.dtype() || value.elements() != 1) {
    call.fail("pads " + std::string(to_string(x.dtype())) + " with a " + std::string(to_string(value.dtype())) +
              " of shape " + to_string(value.shape()) + "; it takes one value of the same type");
  }
  visit_width(call, x.dtype(), [&](auto word) {
    const auto to = out.write<decltype(word)>();
    std::fill(to.begin(), to.end(), value.data<decltype(word)>()[0]);
  });
  const Kept kept = kept_of(padding, x.shape());
  copy_box(call, kept.shape, x, kept.from, out, kept.to);
  return {std::move(out)};
}

std::vector<Tensor> pad_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  std::vector<Tensor> out(call.inputs.size());
  out[0] = zeros(call.inputs[0].shape());
  const Padding padding = padding_of(call, out[0].shape());
  if (padding.mode != "constant") {
    const std::span<float> to = out[0].write<float>();
    const std::span<const float> from = grads[0].data<float>();
    for_each_source(call, padding, call.inputs[0].shape(), [&](size_t o, size_t i) { to[i] += from[o]; });
    return out;
  }
  const Kept kept = kept_of(padding, out[0].shape());
  copy_box(call, kept.shape, grads[0], kept.to, out[0], kept.from);
  if (call.opset >= 11 && call.has(2) && call.wanted.size() > 2 && call.wanted[2]) {
    // What went into the padding: everything but what came from the input.
    Tensor rest = grads[0];
    copy_box(call, kept.shape, zeros({}), {0, Steps(kept.shape.size(), 0)}, rest, kept.to);
    out[2] = full(call.inputs[2].shape(), kernels::sum(rest.data<float>()));
  }
  return out;
}

// --- Trilu and ReverseSequence ---------------------------------------------------------------------------------------

Tensor triangle(const Call& call, Tensor x) {
  const Shape shape = x.shape();
  if (shape.size() < 2) call.fail("wants matrices, found " + to_string(shape));
  int64_t diagonal = 0;
  if (call.has(1)) {
    const std::vector<int64_t> k = call.integers(1);
    if (k.size() != 1) call.fail("wants one number for the diagonal");
    diagonal = k[0];
  }
  const bool upper = call.integer("upper", 1) != 0;
  const size_t rows = shape[shape.size() - 2], columns = shape.back();
  if (x.elements() == 0) return x;
  const auto end = static_cast<int64_t>(columns);
  // Column - row >= diagonal is the upper part; far diagonals are as good as just outside.
  diagonal = std::clamp(diagonal, -static_cast<int64_t>(rows) - 1, end + 1);
  visit_width(call, x.dtype(), [&](auto word) {
    const auto to = x.write<decltype(word)>();
    for (size_t row = 0; row < to.size() / columns; ++row) {
      const int64_t at = std::clamp<int64_t>(static_cast<int64_t>(row % rows) + diagonal + (upper ? 0 : 1), 0, end);
      auto* const first = to.data() + row * columns;
      if (upper)
        std::fill_n(first, at, decltype(word){});
      else
        std::fill(first + at, first + columns, decltype(word){});
    }
  });
  return x;
}

std::vector<Tensor> trilu(Call& call) { return {triangle(call, call.take(0))}; }

std::vector<Tensor> trilu_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  return {triangle(call, grads[0])};
}

Tensor reversed(const Call& call, const Tensor& x) {
  const Shape& shape = x.shape();
  const int64_t time_axis = call.integer("time_axis", 0), batch_axis = call.integer("batch_axis", 1);
  if (shape.size() < 2 || time_axis + batch_axis != 1 || time_axis * batch_axis != 0) {
    call.fail("wants time and batch as the first two axes; they are " + std::to_string(time_axis) + " and " +
              std::to_string(batch_axis) + " of " + to_string(shape));
  }
  const size_t time = shape[time_axis == 0 ? 0 : 1], batch = shape[time_axis == 0 ? 1 : 0];
  const std::vector<int64_t> lengths = call.integers(1);
  if (lengths.size() != batch) {
    call.fail("gives " + std::to_string(lengths.size()) + " lengths for a batch of " + std::to_string(batch));
  }
  const size_t block = extent(shape, 2, shape.size());
  Tensor out = allocate(call, x.dtype(), shape);
  visit_width(call, x.dtype(), [&](auto word) {
    const auto from = x.data<decltype(word)>();
    const auto to = out.write<decltype(word)>();
    for (size_t b = 0; b < batch; ++b) {
      if (lengths[b] < 0 || static_cast<uint64_t>(lengths[b]) > time) {
        call.fail("a length of " + std::to_string(lengths[b]) + " is not within 0 to " + std::to_string(time));
      }
      const auto length = static_cast<size_t>(lengths[b]);
      for (size_t t = 0; t < time; ++t) {
        const size_t source = t < length ? length - 1 - t : t;
        const auto place = [&](size_t at) { return (time_axis == 0 ? at * batch + b : b * time + at) * block; };
        std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(place(source)), block,
                    to.begin() + static_cast<std::ptrdiff_t>(place(t)));
      }
    }
  });
  return out;
}

std::vector<Tensor> reverse_sequence(Call& call) { return {reversed(call, call.in(0))}; }

std::vector<Tensor> reverse_sequence_backward(const Call& call, std::span<const Tensor>,
                                              std::span<const Tensor> grads) {
  return {reversed(call, grads[0])};
}

// --- Range and EyeLike -----------------------------------------------------------------------------------------------

template <class T>
Tensor range_of(const Call& call, T start, T limit, T delta) {
  if (delta == 0) call.fail("a delta of 0 leads nowhere");
  size_t count = 0;
  if constexpr (std::is_floating_point_v<T>) {
    const double steps = std::ceil(static_cast<double>(limit - start) / static_cast<double>(delta));
    if (!(steps < 4e9)) call.refuse("would make more elements than Nibble has room for");
    count = steps > 0 ? static_cast<size_t>(steps) : 0;
  } else if (delta > 0 ? start < limit : limit < start) {
    // The distance between two int64 fits uint64.
    const uint64_t way = delta > 0 ? static_cast<uint64_t>(limit) - static_cast<uint64_t>(start)
                                   : static_cast<uint64_t>(start) - static_cast<uint64_t>(limit);
    const uint64_t step = delta > 0 ? static_cast<uint64_t>(delta) : 0 - static_cast<uint64_t>(delta);
    const uint64_t steps = (way - 1) / step + 1;
    count = count_of(call, static_cast<int64_t>(std::min<uint64_t>(steps, INT64_MAX)), "a range");
  }
  Tensor out = allocate(call, dtype_of<T>(), {count});
  const std::span<T> to = out.write<T>();
  for (size_t i = 0; i < count; ++i) {
    if constexpr (std::is_floating_point_v<T>)
      to[i] = start + static_cast<T>(i) * delta;
    else
      to[i] = static_cast<T>(static_cast<uint64_t>(start) + i * static_cast<uint64_t>(delta));
  }
  return out;
}

std::vector<Tensor> range(Call& call) {
  const DType dtype = call.in(0).dtype();
  for (size_t i = 0; i < 3; ++i) {
    if (call.in(i).elements() != 1 || call.in(i).dtype() != dtype) {
      call.fail("wants its start, limit and delta as single values of one type");
    }
  }
  if (is_half(dtype)) {
    const auto value = [&](size_t i) { return widened(call.in(i)).data<float>()[0]; };
    const Tensor out = range_of<float>(call, value(0), value(1), value(2));
    return {from_floats(dtype, out.shape(), out.data<float>())};
  }
  return {visit_type(call, dtype, [&](auto type) -> Tensor {
    using T = decltype(type);
    if constexpr (std::is_same_v<T, bool>) {
      call.fail("a range of bool is nothing");
    } else {
      const auto value = [&](size_t i) { return call.in(i).data<T>()[0]; };
      return range_of<T>(call, value(0), value(1), value(2));
    }
  })};
}

std::vector<Tensor> eye_like(Call& call) {
  const Shape shape = call.in(0).shape();
  if (shape.size() != 2) call.fail("wants a matrix, found " + to_string(shape));
  const DType dtype = call.type("dtype", call.in(0).dtype());
  const auto rows = static_cast<int64_t>(shape[0]), columns = static_cast<int64_t>(shape[1]);
  const int64_t k = std::clamp(call.integer("k", 0), -rows, columns);
  const Tensor one = from_numbers(call, dtype, {}, std::vector<double>{1});
  check_size(call, dtype, shape);
  Tensor out = zeros(dtype, shape);
  visit_width(call, dtype, [&](auto word) {
    const auto to = out.write<decltype(word)>();
    for (int64_t row = std::max<int64_t>(0, -k); row < rows && row + k < columns; ++row) {
      to[static_cast<size_t>(row * columns + row + k)] = one.data<decltype(word)>()[0];
    }
  });
  return {std::move(out)};
}

}  // namespace

std::span<const Op> slice_ops() {
  static const std::vector<Op> table = {
      {"Slice", slice, slice_backward},
      {"Pad", pad, pad_backward},
      {"Trilu", trilu, trilu_backward},
      {"ReverseSequence", reverse_sequence, reverse_sequence_backward},
      {"Range", range},
      {"EyeLike", eye_like},
  };
  return table;
}

}  // namespace nibble::ops
