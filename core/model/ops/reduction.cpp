// Operators that make one number of many along axes: Reduce*, ArgMax and ArgMin; and the running ones, CumSum, CumProd.
#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

// --- Which numbers go together ---------------------------------------------------------------------------------------

struct Reduction {
  Shape kept;                              ///< of the result, with extent 1 where it is reduced
  Shape result;                            ///< of the result as the node wants it
  std::vector<size_t> order;               ///< kept axes first, then the reduced; empty where the input's order will do
  size_t outer = 1, count = 1, inner = 1;  ///< of the (reordered) input: `count` numbers, `inner` apart, make one
};

std::vector<int64_t> axes_given(const Call& call) { return call.has(1) ? call.integers(1) : call.integers("axes"); }

Reduction reduction_of(const Call& call) {
  const Shape& shape = call.in(0).shape();
  const size_t rank = shape.size();
  const std::vector<int64_t> given = axes_given(call);
  std::vector<size_t> axes = axes_of(call, given, rank);
  if (given.empty() && call.integer("noop_with_empty_axes", 0) == 0) {
    for (size_t axis = 0; axis < rank; ++axis) axes.push_back(axis);
  }
  std::vector<char> reduced(rank, 0);
  for (const size_t axis : axes) reduced[axis] = 1;

  Reduction of;
  const bool keep = call.integer("keepdims", 1) != 0;
  size_t first = rank, last = 0;  // of the reduced axes that are not of extent 1
  for (size_t axis = 0; axis < rank; ++axis) {
    of.kept.push_back(reduced[axis] ? 1 : shape[axis]);
    if (keep || !reduced[axis]) of.result.push_back(of.kept.back());
    if (!reduced[axis] || shape[axis] == 1) continue;
    first = std::min(first, axis);
    last = axis + 1;
    of.count *= shape[axis];
  }
  bool together = true;
  for (size_t axis = first; axis < last; ++axis) together = together && (reduced[axis] || shape[axis] == 1);
  if (first >= last) {
    of.outer = elements_of(shape);
  } else if (together) {
    of.outer = extent(shape, 0, first);
    of.inner = extent(shape, last, rank);
  } else {
    for (const char wanted : {0, 1}) {
      for (size_t axis = 0; axis < rank; ++axis) {
        if (reduced[axis] == wanted) of.order.push_back(axis);
      }
    }
    of.outer = elements_of(of.kept);
  }
  return of;
}

/// The reduced axes put back, so that the tensor stretches to the input.
Tensor kept(const Reduction& of, const Tensor& tensor) { return tensor.reshaped(of.kept); }

// --- Loops -----------------------------------------------------------------------------------------------------------

/// Rows are folded in eight lanes, which compilers vectorise; the order depends on the count alone.
constexpr size_t kLanes = 8;

template <class F, class T>
T fold_row(const T* x, size_t count, const F& f) {
  if constexpr (std::is_same_v<F, Plus> && std::is_same_v<T, float>) return kernels::sum({x, count});
  T lanes[kLanes];
  std::fill(lanes, lanes + kLanes, f.template none<T>());
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] = f(lanes[lane], x[i + lane]);
  }
  for (; i < count; ++i) lanes[i % kLanes] = f(lanes[i % kLanes], x[i]);
  for (size_t width = kLanes / 2; width > 0; width /= 2) {
    for (size_t lane = 0; lane < width; ++lane) lanes[lane] = F::join(lanes[lane], lanes[lane + width]);
  }
  return lanes[0];
}

/// out = f(... f(f(none, x0), x1) ...) of the numbers that go together.
template <class F>
Tensor folded(const Call& call, const Tensor& given, const Reduction& of, const F& f) {
  Tensor out = Tensor::allocate(given.dtype(), of.kept);
  if (given.elements() == 0) {
    visit_wide(given.dtype(), [&](auto zero) {
      const auto to = out.write<decltype(zero)>();
      std::fill(to.begin(), to.end(), f.template none<decltype(zero)>());
    });
    return out;
  }
  const Tensor x = of.order.empty() ? given : transposed(call, given, of.order);
  visit_wide(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>().data();
    T* to = out.write<T>().data();
    for (size_t o = 0; o < of.outer; ++o) {
      if (of.inner == 1) {
        *to++ = fold_row(from, of.count, f);
        from += of.count;
        continue;
      }
      std::fill(to, to + of.inner, f.template none<T>());
      for (size_t k = 0; k < of.count; ++k, from += of.inner) {
        for (size_t i = 0; i < of.inner; ++i) to[i] = f(to[i], from[i]);
      }
      to += of.inner;
    }
  });
  return out;
}

/// A fold that joins what it gives by itself.
template <class F, int kNone>
struct Folding : F {
  template <class T>
  T none() const {
    return T{kNone};
  }
  template <class T>
  static T join(T a, T b) {
    return F{}(a, b);
  }
};
struct Summing : Folding<Plus, 0> {};
struct Multiplying : Folding<Times, 1> {};

struct Largest : Folding<Larger, 0> {
  template <class T>
  T none() const {
    return std::is_floating_point_v<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
  }
};
struct Smallest : Folding<Smaller, 0> {
  template <class T>
  T none() const {
    return std::is_floating_point_v<T> ? std::numeric_limits<T>::infinity() : std::numeric_limits<T>::max();
  }
};
struct SummingMagnitudes : Folding<Plus, 0> {
  template <class T>
  T operator()(T sum, T x) const {
    if constexpr (std::is_unsigned_v<T>)
      return sum + x;
    else
      return x < 0 ? Minus{}(sum, x) : Plus{}(sum, x);
  }
};
struct SummingSquares : Folding<Plus, 0> {
  template <class T>
  T operator()(T sum, T x) const {
    return Plus{}(sum, Times{}(x, x));
  }
};

// --- Forward ---------------------------------------------------------------------------------------------------------

template <class F>
std::vector<Tensor> reduce(Call& call) {
  const Reduction of = reduction_of(call);
  return {folded(call, call.in(0), of, F{}).reshaped(of.result)};
}

/// Of integers too: through double, then truncated.
template <class F>
Tensor each_real(const Call& call, Tensor x, const F& f) {
  return each(call, std::move(x), [&f]<class T>(T value) {
    if constexpr (std::is_floating_point_v<T>) {
      return static_cast<T>(f(value));
    } else {
      const double result = f(static_cast<double>(value));
      return result > -0x1p63 && result < 0x1p63 ? static_cast<T>(static_cast<int64_t>(result)) : T{0};
    }
  });
}

std::vector<Tensor> reduce_mean(Call& call) {
  const Reduction of = reduction_of(call);
  Tensor sums = folded(call, call.in(0), of, Summing{});
  if (of.count == 0 && sums.elements() > 0 && !is_real(sums.dtype())) call.fail("no integers have no mean");
  // The mean of no real numbers is 0 / 0, not a number.
  const size_t count = is_real(sums.dtype()) ? of.count : std::max<size_t>(1, of.count);
  return {each(call, std::move(sums), [count]<class T>(T sum) {
            return static_cast<T>(sum / static_cast<T>(count));
          }).reshaped(of.result)};
}

std::vector<Tensor> reduce_l2(Call& call) {
  const Reduction of = reduction_of(call);
  Tensor squares = folded(call, call.in(0), of, SummingSquares{});
  return {each_real(call, std::move(squares), [](auto x) { return std::sqrt(x); }).reshaped(of.result)};
}

Tensor logarithm(const Call& call, Tensor x) {
  if (x.dtype() != DType::Float32) return each_real(call, std::move(x), [](auto value) { return std::log(value); });
  const std::span<float> values = x.write<float>();
  kernels::log(values, values);
  return x;
}

std::vector<Tensor> reduce_log_sum(Call& call) {
  const Reduction of = reduction_of(call);
  return {logarithm(call, folded(call, call.in(0), of, Summing{})).reshaped(of.result)};
}

/// max + log(sum(exp(x - max))), which neither overflows nor vanishes.
std::vector<Tensor> reduce_log_sum_exp(Call& call) {
  const Reduction of = reduction_of(call);
  const DType dtype = call.in(0).dtype();
  const Tensor x = from_wide(call.in(0), DType::Float32);
  // A largest number that is infinite is the result; nothing is taken off then, so that no infinities meet.
  const Tensor largest = each(call, folded(call, x, of, Largest{}), [](float m) { return std::isinf(m) ? 0.0f : m; });
  Tensor powers = combine<Minus>(call, x, largest);
  kernels::exp(powers.data<float>(), powers.write<float>());
  const Tensor logs = logarithm(call, folded(call, powers, of, Summing{}));
  return {from_wide(combine<Plus>(call, logs, largest), dtype).reshaped(of.result)};
}

/// The largest or smallest of no numbers is the least or most that the type holds; infinite in real types.
template <class F>
std::vector<Tensor> reduce_extreme(Call& call) {
  const DType dtype = call.in(0).dtype();
  const bool none = call.in(0).elements() == 0;
  std::vector<Tensor> outputs = in_wide<reduce<F>>(call);
  if (!none || outputs[0].elements() == 0 || wide_type(call, dtype) != DType::Int64) return outputs;
  const bool is_signed = dtype == DType::Int8 || dtype == DType::Int16 || dtype == DType::Int32 ||
                         dtype == DType::Int64 || dtype == DType::Int4 || dtype == DType::Int2;
  const int bits = dtype == DType::Bool ? 1 : bits_of(dtype);
  const int64_t most = static_cast<int64_t>((uint64_t{1} << (is_signed ? bits - 1 : bits)) - 1);
  const int64_t least = is_signed ? -most - 1 : 0;
  const int64_t limit = std::is_same_v<F, Largest> ? least : most;
  return {from_wide(full(outputs[0].shape(), limit), dtype)};
}

// --- Backward --------------------------------------------------------------------------------------------------------

/// What the gradients of all reductions are: the input as float32, the result's gradient and the result, both with
/// reduced axes kept so that they stretch to the input.
struct Back {
  Reduction of;
  Tensor x, y, grad;
  Back(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads)
      : of(reduction_of(call)),
        x(as_floats(call.in(0))),
        y(kept(of, as_floats(outputs[0]))),
        grad(kept(of, grads[0])) {}
};

std::vector<Tensor> sum_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Back back(call, outputs, grads);
  return {broadcast_to(call, back.grad, back.x.shape())};
}

std::vector<Tensor> mean_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Back back(call, outputs, grads);
  const auto count = static_cast<float>(std::max<size_t>(1, back.of.count));
  return {broadcast_to(call, each(call, back.grad, [count](float g) { return g / count; }), back.x.shape())};
}

struct Same {
  float operator()(float a, float b) const { return a == b ? 1.0f : 0.0f; }
};
/// What is equal to the result shares the gradient.
std::vector<Tensor> extreme_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Back back(call, outputs, grads);
  Tensor hits = combine<Same>(call, back.x, back.y);
  Tensor count = folded(call, hits, back.of, Summing{});
  const Tensor share = combine<Over>(call, back.grad, each(call, count, [](float n) { return n > 0 ? n : 1; }));
  return {combine<Times>(call, std::move(hits), share)};
}

struct SignTimes {
  float operator()(float x, float g) const { return x > 0 ? g : x < 0 ? -g : 0; }
};
std::vector<Tensor> l1_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Back back(call, outputs, grads);
  return {combine<SignTimes>(call, back.x, back.grad)};
}

std::vector<Tensor> square_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Back back(call, outputs, grads);
  return {combine<Times>(call, back.x, each(call, back.grad, [](float g) { return 2 * g; }))};
}

/// x / norm; where the norm is 0, so is the gradient.
std::vector<Tensor> l2_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Back back(call, outputs, grads);
  const Tensor norm = each(call, back.y, [](float y) { return y > 0 ? y : std::numeric_limits<float>::infinity(); });
  return {combine<Times>(call, back.x, combine<Over>(call, back.grad, norm))};
}

std::vector<Tensor> log_sum_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Back back(call, outputs, grads);
  const Tensor sums = folded(call, back.x, back.of, Summing{});
  return {broadcast_to(call, combine<Over>(call, back.grad, sums), back.x.shape())};
}

std::vector<Tensor> log_sum_exp_backward(const Call& call, std::span<const Tensor> outputs,
                                         std::span<const Tensor> grads) {
  const Back back(call, outputs, grads);
  Tensor shares = combine<Minus>(call, back.x, back.y);
  kernels::exp(shares.data<float>(), shares.write<float>());
  return {combine<Times>(call, std::move(shares), back.grad)};
}

// --- ArgMax, ArgMin --------------------------------------------------------------------------------------------------

/// Where the best number along an axis lies. A NaN is better than any number, the first one best, as in NumPy.
template <bool kLargest>
std::vector<Tensor> arg_best(Call& call) {
  const Tensor x = to_wide(call, call.in(0));
  const size_t axis = axis_of(call, call.integer("axis", 0), x.shape().size());
  const bool take_last = call.integer("select_last_index", 0) != 0;
  const size_t count = x.shape()[axis];
  const size_t inner = extent(x.shape(), axis + 1, x.shape().size());
  Shape shape = x.shape();
  shape[axis] = 1;
  if (call.integer("keepdims", 1) == 0) shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
  Tensor out = Tensor::allocate(DType::Int64, shape);
  const std::span<int64_t> to = out.write<int64_t>();
  if (count == 0 && !to.empty()) call.fail("the axis is empty, so nothing along it is the best");
  visit_wide(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const std::span<const T> from = x.data<T>();
    for (size_t at = 0; at < to.size(); ++at) {
      const size_t start = at / inner * count * inner + at % inner;
      size_t best = 0;
      T value = from[start];
      for (size_t i = 1; i < count; ++i) {
        const T other = from[start + i * inner];
        const bool better = kLargest ? other > value : other < value;
        const bool first_nan = other != other && value == value;
        const bool again = take_last && (other == value || (other != other && value != value));
        if ((better && value == value) || first_nan || again) {
          best = i;
          value = other;
        }
      }
      to[at] = static_cast<int64_t>(best);
    }
  });
  return {std::move(out)};
}

// --- CumSum, CumProd -------------------------------------------------------------------------------------------------

/// out[i] = f(out[i - 1], x[i]), or x[i - 1] with `exclusive`; from the other end with `reverse`.
template <class F>
Tensor running(const Tensor& x, size_t axis, bool exclusive, bool reverse) {
  const F f{};
  Tensor out = Tensor::allocate(x.dtype(), x.shape());
  const size_t count = x.shape()[axis], inner = extent(x.shape(), axis + 1, x.shape().size());
  if (x.elements() == 0) return out;
  visit_wide(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const std::span<const T> from = x.data<T>();
    const std::span<T> to = out.write<T>();
    std::vector<T> sums(inner);
    for (size_t start = 0; start < to.size(); start += count * inner) {
      std::fill(sums.begin(), sums.end(), f.template none<T>());
      for (size_t step = 0; step < count; ++step) {
        const size_t at = start + (reverse ? count - 1 - step : step) * inner;
        for (size_t i = 0; i < inner; ++i) {
          const T sum = f(sums[i], from[at + i]);
          to[at + i] = exclusive ? sums[i] : sum;
          sums[i] = sum;
        }
      }
    }
  });
  return out;
}

size_t running_axis(const Call& call) {
  if (call.in(1).elements() != 1)
    call.fail("the axis must be one number, its shape is " + to_string(call.in(1).shape()));
  return axis_of(call, call.integers(1)[0], call.in(0).shape().size());
}

template <class F>
std::vector<Tensor> cumulate(Call& call) {
  const size_t axis = running_axis(call);
  return {running<F>(call.in(0), axis, call.integer("exclusive", 0) != 0, call.integer("reverse", 0) != 0)};
}

std::vector<Tensor> cumsum_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const size_t axis = running_axis(call);
  return {running<Summing>(grads[0], axis, call.integer("exclusive", 0) != 0, call.integer("reverse", 0) == 0)};
}

const Op kOps[] = {
    {"ReduceSum", in_wide<reduce<Summing>>, sum_backward},
    {"ReduceMean", in_wide<reduce_mean>, mean_backward},
    {"ReduceMax", reduce_extreme<Largest>, extreme_backward},
    {"ReduceMin", reduce_extreme<Smallest>, extreme_backward},
    {"ReduceProd", in_wide<reduce<Multiplying>>},
    {"ReduceL1", in_wide<reduce<SummingMagnitudes>>, l1_backward},
    {"ReduceL2", in_wide<reduce_l2>, l2_backward},
    {"ReduceSumSquare", in_wide<reduce<SummingSquares>>, square_backward},
    {"ReduceLogSum", in_wide<reduce_log_sum>, log_sum_backward},
    {"ReduceLogSumExp", in_wide<reduce_log_sum_exp>, log_sum_exp_backward},
    {"ArgMax", arg_best<true>},
    {"ArgMin", arg_best<false>},
    {"CumSum", in_wide<cumulate<Summing>>, cumsum_backward},
    {"CumProd", in_wide<cumulate<Multiplying>>},
};

}  // namespace

std::span<const Op> reduction_ops() { return kOps; }

}  // namespace nibble::ops
