// Operators of one tensor, number by number: rounding, signs, roots, trigonometry, limits, tests of numbers.
#include "core/kernels/simd.hpp"
#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

template <class T>
concept Integer = std::is_integral_v<T>;
template <class T>
concept Real = std::is_floating_point_v<T>;

/// Tensor operators of one input, in its wide type.
template <class F>
std::vector<Tensor> map(Call& call) {
  return {each(call, call.take(0), F{})};
}

struct Magnitude {
  template <class T>
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::fabs(x);
    else if constexpr (std::is_signed_v<T>)
      return x < 0 ? static_cast<T>(uint64_t{0} - static_cast<uint64_t>(x)) : x;
    else
      return x;
  }
};
struct Negative {
  template <class T>
  T operator()(T x) const {
    if constexpr (std::is_floating_point_v<T>)
      return -x;
    else
      return static_cast<T>(uint64_t{0} - static_cast<uint64_t>(x));
  }
};
struct SignOf {
  template <class T>
  T operator()(T x) const {
    if (x > 0) return 1;
    if constexpr (std::is_signed_v<T>) {
      if (x < 0) return T{-1};
    }
    return x != x ? x : T{0};
  }
};
struct RoundUp {
  template <Real T>
  T operator()(T x) const {
    return std::ceil(x);
  }
};
struct RoundDown {
  template <Real T>
  T operator()(T x) const {
    return std::floor(x);
  }
};
/// To nearest, halves to even: what the processor is set to.
struct RoundEven {
  template <Real T>
  T operator()(T x) const {
    return std::nearbyint(x);
  }
};
struct Inverse {
  template <Real T>
  T operator()(T x) const {
    return 1 / x;
  }
};
struct SquareRoot {
  template <Real T>
  T operator()(T x) const {
    return std::sqrt(x);
  }
};

std::vector<Tensor> square_root(Call& call) {
  Tensor x = call.take(0);
  if (x.dtype() != DType::Float32) return {each(call, std::move(x), SquareRoot{})};
  // The compiler does not vectorise std::sqrt, which may set errno.
  const std::span<float> values = x.write<float>();
  size_t i = 0;
  for (; i + 4 <= values.size(); i += 4) simd::store_at(&values[i], xsimd::sqrt(simd::load_at(&values[i])));
  for (; i < values.size(); ++i) values[i] = std::sqrt(values[i]);
  return {std::move(x)};
}

// --- Functions over a whole tensor -----------------------------------------------------------------------------------

using Whole = void (*)(std::span<const float>, std::span<float>);

template <Whole function>
std::vector<Tensor> apply(Call& call) {
  call.floats(0);
  Tensor x = call.take(0);
  const std::span<const float> from = x.data<float>();
  Tensor out = x.is_unshared() ? std::move(x) : Tensor::allocate(DType::Float32, x.shape());
  function(from, out.write<float>());
  return {std::move(out)};
}

/// Of the C library, in double: rounded to float it is the same on every machine in all but the rarest cases.
template <double (*function)(double)>
std::vector<Tensor> apply_double(Call& call) {
  call.floats(0);
  return {each(call, call.take(0), [](float x) { return static_cast<float>(function(x)); })};
}

double sine(double x) { return std::sin(x); }
double cosine(double x) { return std::cos(x); }
double tangent(double x) { return std::tan(x); }
double arc_sine(double x) { return std::asin(x); }
double arc_cosine(double x) { return std::acos(x); }
double arc_tangent(double x) { return std::atan(x); }
double sinh_of(double x) { return std::sinh(x); }
double cosh_of(double x) { return std::cosh(x); }
double arsinh(double x) { return std::asinh(x); }
double arcosh(double x) { return std::acosh(x); }
double artanh(double x) { return std::atanh(x); }

// --- Gradients -------------------------------------------------------------------------------------------------------

/// grad_x = slope(x, y) * grad_y.
template <float (*slope)(float x, float y)>
std::vector<Tensor> backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Tensor x = as_floats(call.in(0)), y = as_floats(outputs[0]);
  Tensor out = Tensor::allocate(DType::Float32, x.shape());
  const float *const xs = x.data<float>().data(), *const ys = y.data<float>().data(),
                     *const gs = grads[0].data<float>().data();
  float* const to = out.write<float>().data();
  const size_t count = x.elements();
  for (size_t i = 0; i < count; ++i) to[i] = slope(xs[i], ys[i]) * gs[i];
  return {std::move(out)};
}

// An AsFloat32 operator's output may be kept in another type by the executor, never its input: backward functions of
// those get both as float32.
float slope_abs(float x, float) { return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f; }
float slope_neg(float, float) { return -1; }
float slope_inverse(float, float y) { return -y * y; }
float slope_root(float, float y) { return 0.5f / y; }
float slope_exp(float, float y) { return y; }
float slope_log(float x, float) { return 1 / x; }
float slope_sin(float x, float) { return static_cast<float>(std::cos(double{x})); }
float slope_cos(float x, float) { return -static_cast<float>(std::sin(double{x})); }
float slope_tan(float, float y) { return 1 + y * y; }
float slope_asin(float x, float) { return 1 / std::sqrt((1 - x) * (1 + x)); }
float slope_acos(float x, float) { return -slope_asin(x, 0); }
float slope_atan(float x, float) { return 1 / (1 + x * x); }
float slope_sinh(float x, float) { return static_cast<float>(std::cosh(double{x})); }
float slope_cosh(float x, float) { return static_cast<float>(std::sinh(double{x})); }
float slope_tanh(float, float y) { return (1 - y) * (1 + y); }
float slope_asinh(float x, float) { return 1 / std::sqrt(x * x + 1); }
float slope_acosh(float x, float) { return 1 / std::sqrt((x - 1) * (x + 1)); }
float slope_atanh(float x, float) { return 1 / ((1 - x) * (1 + x)); }
float slope_none(float, float) { return 0; }

std::vector<Tensor> erf_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  constexpr float kTwoOverRootPi = 1.1283791670955126f;
  const Tensor x = as_floats(call.in(0));
  Tensor out = Tensor::allocate(DType::Float32, x.shape());
  const std::span<const float> xs = x.data<float>();
  const std::span<float> to = out.write<float>();
  for (size_t i = 0; i < to.size(); ++i) to[i] = -xs[i] * xs[i];
  kernels::exp(to, to);
  kernels::multiply(to, grads[0].data<float>(), to);
  kernels::scale_shift(to, kTwoOverRootPi, 0, to);
  return {std::move(out)};
}

// --- Clip ------------------------------------------------------------------------------------------------------------

/// The limits, from attributes before operator set 11 and from inputs since then.
template <class T>
struct Limits {
  T low = std::numeric_limits<T>::lowest(), high = std::numeric_limits<T>::max();
  bool has_low = false, has_high = false;

  explicit Limits(const Call& call) {
    if constexpr (std::is_floating_point_v<T>) {
      low = -std::numeric_limits<T>::infinity();
      high = std::numeric_limits<T>::infinity();
    }
    if (call.opset < 11) {
      has_low = call.has_attribute("min");
      has_high = call.has_attribute("max");
      if (has_low) low = static_cast<T>(call.real("min", 0));
      if (has_high) high = static_cast<T>(call.real("max", 0));
      return;
    }
    has_low = read(call, 1, low);
    has_high = read(call, 2, high);
  }

  static bool read(const Call& call, size_t input, T& value) {
    if (!call.has(input)) return false;
    const Tensor& limit = call.in(input);
    if (limit.elements() != 1) call.fail("a limit must be one number, its shape is " + to_string(limit.shape()));
    if (limit.dtype() != dtype_of<T>()) {
      call.fail("the limits must have the values' type, " + std::string(to_string(call.in(0).dtype())) +
                " or one like it");
    }
    value = limit.data<T>()[0];
    return true;
  }
};

std::vector<Tensor> clip(Call& call) {
  return visit_wide(call.in(0).dtype(), [&](auto zero) -> std::vector<Tensor> {
    using T = decltype(zero);
    if (std::is_integral_v<T> && call.opset < 11) call.fail("before operator set 12 only real numbers are clipped");
    const Limits<T> limits(call);
    // By ONNX's definition, min(max(x, low), high): where low is above high, everything becomes high.
    return {each(call, call.take(0), [low = limits.low, high = limits.high](T x) {
      const T raised = x < low ? low : x;
      return raised > high ? high : raised;
    })};
  });
}

std::vector<Tensor> clip_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  Call wide = call;
  for (Tensor& input : wide.inputs) {
    if (input.exists()) input = as_floats(input);
  }
  const Limits<float> limits(wide);
  const std::span<const float> x = wide.in(0).data<float>(), grad = grads[0].data<float>();
  std::vector<Tensor> out(call.inputs.size());
  out[0] = Tensor::allocate(DType::Float32, call.in(0).shape());
  const std::span<float> to = out[0].write<float>();
  for (size_t i = 0; i < to.size(); ++i) to[i] = x[i] >= limits.low && x[i] <= limits.high ? grad[i] : 0;
  // What is clipped moves with its limit.
  float low = 0, high = 0;
  for (size_t i = 0; i < to.size(); ++i) {
    const bool above = std::max(x[i], limits.low) > limits.high;
    if (above)
      high += grad[i];
    else if (x[i] < limits.low)
      low += grad[i];
  }
  if (limits.has_low && call.has(1)) out[1] = full(call.in(1).shape(), low);
  if (limits.has_high && call.has(2)) out[2] = full(call.in(2).shape(), high);
  return out;
}

// --- Tests of numbers ------------------------------------------------------------------------------------------------

template <class F>
std::vector<Tensor> test(const Call& call, const F& f) {
  const Tensor& x = call.in(0);
  Tensor out = Tensor::allocate(DType::Bool, x.shape());
  const std::span<uint8_t> to = out.write<uint8_t>();
  visit_wide(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const std::span<const T> from = x.data<T>();
    for (size_t i = 0; i < to.size(); ++i) to[i] = f(static_cast<double>(from[i]));
  });
  return {std::move(out)};
}

std::vector<Tensor> is_nan(Call& call) {
  return test(call, [](double x) { return std::isnan(x); });
}

std::vector<Tensor> is_infinite(Call& call) {
  const bool below = call.integer("detect_negative", 1) != 0, above = call.integer("detect_positive", 1) != 0;
  return test(call, [below, above](double x) { return std::isinf(x) && (x < 0 ? below : above); });
}

std::vector<Tensor> identity(Call& call) { return {call.take(0)}; }

std::vector<Tensor> identity_backward(const Call&, std::span<const Tensor>, std::span<const Tensor> grads) {
  return {grads[0]};
}

const Op kOps[] = {
    {"Abs", in_wide<map<Magnitude>>, backward<slope_abs>},
    {"Neg", in_wide<map<Negative>>, backward<slope_neg>},
    {"Sign", in_wide<map<SignOf>>, backward<slope_none>},
    {"Ceil", in_wide<map<RoundUp>>, backward<slope_none>},
    {"Floor", in_wide<map<RoundDown>>, backward<slope_none>},
    {"Round", in_wide<map<RoundEven>>, backward<slope_none>},
    {"Reciprocal", in_wide<map<Inverse>>, backward<slope_inverse>},
    {"Sqrt", in_wide<square_root>, backward<slope_root>},
    {"Exp", apply<kernels::exp>, backward<slope_exp>, Reals::AsFloat32},
    {"Log", apply<kernels::log>, backward<slope_log>, Reals::AsFloat32},
    {"Erf", apply<kernels::erf>, erf_backward, Reals::AsFloat32},
    {"Tanh", apply<kernels::tanh>, backward<slope_tanh>, Reals::AsFloat32},
    {"Sin", apply_double<sine>, backward<slope_sin>, Reals::AsFloat32},
    {"Cos", apply_double<cosine>, backward<slope_cos>, Reals::AsFloat32},
    {"Tan", apply_double<tangent>, backward<slope_tan>, Reals::AsFloat32},
    {"Asin", apply_double<arc_sine>, backward<slope_asin>, Reals::AsFloat32},
    {"Acos", apply_double<arc_cosine>, backward<slope_acos>, Reals::AsFloat32},
    {"Atan", apply_double<arc_tangent>, backward<slope_atan>, Reals::AsFloat32},
    {"Sinh", apply_double<sinh_of>, backward<slope_sinh>, Reals::AsFloat32},
    {"Cosh", apply_double<cosh_of>, backward<slope_cosh>, Reals::AsFloat32},
    {"Asinh", apply_double<arsinh>, backward<slope_asinh>, Reals::AsFloat32},
    {"Acosh", apply_double<arcosh>, backward<slope_acosh>, Reals::AsFloat32},
    {"Atanh", apply_double<artanh>, backward<slope_atanh>, Reals::AsFloat32},
    {"Clip", in_wide<clip>, clip_backward},
    {"IsNaN", in_wide<is_nan>},
    {"IsInf", in_wide<is_infinite>},
    {"Identity", identity, identity_backward},
};

}  // namespace

std::span<const Op> elementwise_ops() { return kOps; }

}  // namespace nibble::ops
