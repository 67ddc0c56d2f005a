// What the operators that look at each number share: four types to compute in, sweeps over stretched operands, loops.
#pragma once

#include <cmath>
#include <limits>

#include "core/model/ops/narrow_types.hpp"
#include "core/model/ops/support.hpp"

namespace nibble::ops {

// --- Types -----------------------------------------------------------------------------------------------------------
//
// Numbers are computed with as float, double, int64_t or uint64_t, the *wide* types. Every other type fits into one of
// them, and computing there and then rounding or wrapping gives what computing in the type itself would (for half
// floats because 24 bits are more than 2 * 11 + 2). So there are four loops of each operator instead of seventeen.

/// Float32 for float32 and everything narrower, Float64, UInt64, Int64 for the other integers and bool. Complex numbers
/// and strings are refused by `call`.
DType wide_type(const Call& call, DType dtype);
/// The tensor in its wide type; itself where it has that.
Tensor to_wide(const Call& call, Tensor tensor);
/// From a wide type to any (Cast's rules): floats are rounded to nearest even, or truncated to an integer of 64 bits
/// (its nearest where it is beyond, 0 for NaN); of integers the low bits are kept; bool is whether it is not zero.
Tensor from_wide(Tensor wide, DType dtype, bool saturate = true, PowerRounding rounding = PowerRounding::Up);

/// Calls visit(T{}) with the C++ type of a wide type.
template <class Visit>
decltype(auto) visit_wide(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::Float32: return visit(float{});
    case DType::Float64: return visit(double{});
    case DType::UInt64: return visit(uint64_t{});
    default: return visit(int64_t{});
  }
}

/// A forward function that gets all inputs in their wide types; its output 0, where that has the first input's wide
/// type, becomes the first input's type again.
template <Forward forward>
std::vector<Tensor> in_wide(Call& call) {
  const DType own = call.in(0).dtype();
  const DType wide = wide_type(call, own);
  for (Tensor& input : call.inputs) {
    if (input.exists()) input = to_wide(call, std::move(input));
  }
  std::vector<Tensor> outputs = forward(call);
  if (own != wide && outputs[0].dtype() == wide) outputs[0] = from_wide(std::move(outputs[0]), own);
  return outputs;
}

/// A real tensor as float32: for backward functions, whose gradients all are.
Tensor as_floats(const Tensor& tensor);

// --- Arithmetic that is defined for every value ----------------------------------------------------------------------

/// Integers wrap around, as they do in NumPy, instead of overflowing.
template <class T, class F>
constexpr T wrapping(T a, T b, F f) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(f(static_cast<uint64_t>(a), static_cast<uint64_t>(b)));
  else
    return f(a, b);
}

struct Plus {
  static constexpr auto whole = kernels::add;
  template <class T>
  T operator()(T a, T b) const {
    return wrapping(a, b, [](auto x, auto y) { return x + y; });
  }
};
struct Minus {
  static constexpr auto whole = kernels::subtract;
  template <class T>
  T operator()(T a, T b) const {
    return wrapping(a, b, [](auto x, auto y) { return x - y; });
  }
};
struct Times {
  static constexpr auto whole = kernels::multiply;
  template <class T>
  T operator()(T a, T b) const {
    return wrapping(a, b, [](auto x, auto y) { return x * y; });
  }
};
/// Of integers: b is not 0.
struct Over {
  static constexpr auto whole = kernels::divide;
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, int64_t>) {
      if (b == -1) return static_cast<T>(uint64_t{0} - static_cast<uint64_t>(a));
    }
    return a / b;
  }
};
/// A NaN in either gives NaN, as in NumPy. (`|` leaves no branch, so that loops are vectorised.)
struct Larger {
  template <class T>
  T operator()(T a, T b) const {
    return ((a > b) | (a != a)) ? a : b;
  }
};
struct Smaller {
  template <class T>
  T operator()(T a, T b) const {
    return ((a < b) | (a != a)) ? a : b;
  }
};

// --- Sweeps ----------------------------------------------------------------------------------------------------------

/// N operands stretched to one shape and walked together in row-major order. Neighbouring axes that all operands pass
/// in one stride are merged, so the last one is long: operands of equal shape make one run, a bias over the last axes
/// one per row, one over channels one per plane. Along the last axis the steps are 0 or 1.
template <size_t N>
struct Sweep {
  using Steps = std::array<std::ptrdiff_t, N>;
  std::vector<size_t> extents;  ///< never empty
  std::vector<Steps> steps;

  Sweep(const Shape& target, const std::array<const Shape*, N>& shapes) {
    if (std::find(target.begin(), target.end(), size_t{0}) != target.end()) {
      extents.push_back(0);
      steps.push_back({});
      return;
    }
    std::array<std::vector<std::ptrdiff_t>, N> own;
    for (size_t n = 0; n < N; ++n) own[n] = broadcast_steps(*shapes[n], target);
    for (size_t axis = 0; axis < target.size(); ++axis) {
      if (target[axis] == 1) continue;
      Steps here{};
      bool merges = !extents.empty();
      for (size_t n = 0; n < N; ++n) {
        here[n] = own[n][axis];
        merges = merges && steps.back()[n] == here[n] * static_cast<std::ptrdiff_t>(target[axis]);
      }
      if (merges) {
        extents.back() *= target[axis];
        steps.back() = here;
      } else {
        extents.push_back(target[axis]);
        steps.push_back(here);
      }
    }
    if (extents.empty()) {
      extents.push_back(1);
      steps.push_back({});
    }
  }

  size_t run() const { return extents.back(); }
  const Steps& run_steps() const { return steps.back(); }

  /// Calls visit(out, at) for each run along the last axis: where it starts in the output and in each operand.
  template <class Visit>
  void for_each_run(const Visit& visit) const {
    if (run() == 0) return;
    std::vector<size_t> index(extents.size() - 1, 0);
    Steps at{};
    for (size_t out = 0;; out += run()) {
      visit(out, at);
      size_t axis = index.size();
      for (; axis > 0; --axis) {
        const size_t i = axis - 1;
        for (size_t n = 0; n < N; ++n) at[n] += steps[i][n];
        if (++index[i] < extents[i]) break;
        for (size_t n = 0; n < N; ++n) at[n] -= steps[i][n] * static_cast<std::ptrdiff_t>(extents[i]);
        index[i] = 0;
      }
      if (axis == 0) return;
    }
  }
};

// --- Loops -----------------------------------------------------------------------------------------------------------

/// out[i] = f(a[i * a_step], b[i * b_step]), steps being 0 or 1. `out` may be a or b. The loops that matter (float)
/// come in the forms that compilers vectorise, with no doubt about overlap.
template <class F, class In, class Out>
void run_pairs(const In* a, std::ptrdiff_t a_step, const In* b, std::ptrdiff_t b_step, Out* out, size_t count) {
  const F f{};
  if constexpr (std::is_same_v<In, float> && std::is_same_v<Out, float>) {
    if (a_step == 1 && b_step == 1) {
      if constexpr (requires { F::whole; }) {
        F::whole({a, count}, {b, count}, {out, count});
      } else {
        for (size_t i = 0; i < count; ++i) out[i] = f(a[i], b[i]);
      }
      return;
    }
    if (a_step == 1) {
      const float other = *b;
      if (a == out) {
        for (size_t i = 0; i < count; ++i) out[i] = f(out[i], other);
      } else {
        for (size_t i = 0; i < count; ++i) out[i] = f(a[i], other);
      }
      return;
    }
    if (b_step == 1) {
      const float other = *a;
      if (b == out) {
        for (size_t i = 0; i < count; ++i) out[i] = f(other, out[i]);
      } else {
        for (size_t i = 0; i < count; ++i) out[i] = f(other, b[i]);
      }
      return;
    }
  }
  const auto n = static_cast<std::ptrdiff_t>(count);
  for (std::ptrdiff_t i = 0; i < n; ++i) out[i] = f(a[i * a_step], b[i * b_step]);
}

/// f of each pair of numbers of two tensors of one wide type, stretched to each other; f gives the same type, or, with
/// `kTruth`, bool. In place where a tensor is handed over that nobody else holds. A type that f does not take is
/// refused.
template <class F, bool kTruth = false>
Tensor combine(const Call& call, Tensor a, Tensor b) {
  if (a.dtype() != b.dtype()) {
    call.fail("operands must be of one type, they are " + std::string(to_string(a.dtype())) + " and " +
              std::string(to_string(b.dtype())));
  }
  const Shape shape = a.shape() == b.shape() ? a.shape() : broadcast(call, a.shape(), b.shape());
  const Sweep<2> sweep(shape, {&a.shape(), &b.shape()});
  const DType dtype = a.dtype();
  return visit_wide(dtype, [&](auto zero) -> Tensor {
    using T = decltype(zero);
    if constexpr (!std::is_invocable_v<F, T, T>) {
      call.refuse("it is not defined for values of type " + std::string(to_string(dtype)));
    } else {
      using Out = std::conditional_t<kTruth, uint8_t, T>;
      const T *from_a = a.data<T>().data(), *from_b = b.data<T>().data();
      Tensor out;
      if (!kTruth && a.shape() == shape && a.is_unshared())
        out = std::move(a);
      else if (!kTruth && b.shape() == shape && b.is_unshared())
        out = std::move(b);
      else
        out = Tensor::allocate(kTruth ? DType::Bool : dtype, shape);
      Out* const to = out.template write<Out>().data();
      const auto run_steps = sweep.run_steps();
      sweep.for_each_run([&, a_step = run_steps[0], b_step = run_steps[1]](size_t at, const auto& in) {
        run_pairs<F, T, Out>(from_a + in[0], a_step, from_b + in[1], b_step, to + at, sweep.run());
      });
      return out;
    }
  });
}

/// f(x) of each number of a tensor of a wide type, in place where nobody else holds it.
template <class F>
Tensor each(const Call& call, Tensor x, const F& f) {
  return visit_wide(x.dtype(), [&](auto zero) -> Tensor {
    using T = decltype(zero);
    if constexpr (!std::is_invocable_v<F, T>) {
      call.refuse("it is not defined for values of type " + std::string(to_string(x.dtype())));
    } else {
      const size_t count = x.elements();
      const T* from = x.data<T>().data();
      const bool in_place = x.is_unshared();
      Tensor out = in_place ? std::move(x) : Tensor::allocate(x.dtype(), x.shape());
      T* const to = out.template write<T>().data();
      if (in_place) {
        for (size_t i = 0; i < count; ++i) to[i] = f(to[i]);
      } else {
        for (size_t i = 0; i < count; ++i) to[i] = f(from[i]);
      }
      return out;
    }
  });
}

/// Numbers worked on at a time where a function takes several passes: they stay in the nearest cache, on the stack.
constexpr size_t kBlock = 512;

}  // namespace nibble::ops
