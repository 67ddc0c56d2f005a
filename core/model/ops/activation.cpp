// Activations: functions of one number that networks put between their layers, with their slopes.
#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

/// An activation's attributes.
struct Factors {
  float alpha = 0, beta = 0;
};

/// One activation. Both functions work on at most kBlock numbers; y may be x, and d (the slope at x, of which y is the
/// value) overlaps nothing.
struct Activation {
  Factors (*factors)(const Call& call);
  void (*map)(const Factors& by, const float* x, float* y, size_t count);
  void (*slope)(const Factors& by, const float* x, const float* y, float* d, size_t count);
};

template <class Visit>
void by_blocks(size_t count, const Visit& visit) {
  for (size_t at = 0; at < count; at += kBlock) visit(at, std::min(kBlock, count - at));
}

template <const Activation& activation>
std::vector<Tensor> activate(Call& call) {
  const Factors factors = activation.factors(call);
  const size_t count = call.floats(0).size();
  Tensor x = call.take(0);
  const float* const from = x.data<float>().data();
  Tensor out = x.is_unshared() ? std::move(x) : Tensor::allocate(DType::Float32, x.shape());
  float* const to = out.write<float>().data();
  by_blocks(count, [&](size_t at, size_t n) { activation.map(factors, from + at, to + at, n); });
  return {std::move(out)};
}

template <const Activation& activation>
std::vector<Tensor> activate_backward(const Call& call, std::span<const Tensor> outputs,
                                      std::span<const Tensor> grads) {
  const Factors factors = activation.factors(call);
  const Tensor y = as_floats(outputs[0]);
  Tensor out = Tensor::allocate(DType::Float32, y.shape());
  const float *const xs = call.floats(0).data(), *const ys = y.data<float>().data();
  const std::span<const float> grad = grads[0].data<float>();
  const std::span<float> to = out.write<float>();
  by_blocks(to.size(), [&](size_t at, size_t n) {
    activation.slope(factors, xs + at, ys + at, &to[at], n);
    kernels::multiply(to.subspan(at, n), grad.subspan(at, n), to.subspan(at, n));
  });
  return {std::move(out)};
}

Factors none(const Call&) { return {}; }
template <int kThousandths>
Factors alpha(const Call& call) {
  return {call.real("alpha", kThousandths / 1000.0f), 0};
}

// The functions of one number that need no block: written once, looped over by these.
template <float (*f)(const Factors&, float)>
void plain(const Factors& given, const float* x, float* y, size_t count) {
  const Factors by = given;  // not to be read anew after each store, which could be to it
  if (x == y) {
    for (size_t i = 0; i < count; ++i) y[i] = f(by, y[i]);
  } else {
    for (size_t i = 0; i < count; ++i) y[i] = f(by, x[i]);
  }
}
template <float (*f)(const Factors&, float x, float y)>
void plain_slope(const Factors& given, const float* x, const float* y, float* d, size_t count) {
  const Factors by = given;
  for (size_t i = 0; i < count; ++i) d[i] = f(by, x[i], y[i]);
}

// --- Relu and its relatives ------------------------------------------------------------------------------------------

std::vector<Tensor> relu(Call& call) {
  Tensor x = call.take(0);
  if (x.dtype() != DType::Float32) {
    return {each(call, std::move(x), []<class T>(T value) { return value < T{0} ? T{0} : value; })};
  }
  const std::span<const float> from = x.data<float>();
  Tensor out = x.is_unshared() ? std::move(x) : Tensor::allocate(DType::Float32, x.shape());
  kernels::relu(from, out.write<float>());
  return {std::move(out)};
}

std::vector<Tensor> relu_backward(const Call&, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  const Tensor y = as_floats(outputs[0]);
  Tensor out = Tensor::allocate(DType::Float32, y.shape());
  kernels::relu_grad(y.data<float>(), grads[0].data<float>(), out.write<float>());
  return {std::move(out)};
}

float leaky(const Factors& by, float x) { return x < 0 ? by.alpha * x : x; }
float leaky_slope(const Factors& by, float x, float) { return x < 0 ? by.alpha : 1; }
constexpr Activation kLeakyRelu{alpha<10>, plain<leaky>, plain_slope<leaky_slope>};

float thresholded(const Factors& by, float x) { return x > by.alpha ? x : 0; }
float thresholded_slope(const Factors& by, float x, float) { return x > by.alpha ? 1 : 0; }
constexpr Activation kThresholdedRelu{alpha<1000>, plain<thresholded>, plain_slope<thresholded_slope>};

// beta * (x > 0 ? x : alpha * (exp(x / gamma) - 1)) covers Elu, Selu and Celu.
struct Exponential {
  float alpha, beta, gamma;
};

template <Exponential (*parts)(const Factors&)>
void exponential(const Factors& by, const float* x, float* y, size_t count) {
  const Exponential of = parts(by);
  float room[kBlock];
  for (size_t i = 0; i < count; ++i) room[i] = x[i] / of.gamma;
  kernels::exp({room, count}, {room, count});
  for (size_t i = 0; i < count; ++i) y[i] = of.beta * (x[i] > 0 ? x[i] : of.alpha * (room[i] - 1));
}
template <Exponential (*parts)(const Factors&)>
void exponential_slope(const Factors& by, const float* x, const float*, float* d, size_t count) {
  const Exponential of = parts(by);
  for (size_t i = 0; i < count; ++i) d[i] = x[i] / of.gamma;
  kernels::exp({d, count}, {d, count});
  for (size_t i = 0; i < count; ++i) d[i] = of.beta * (x[i] > 0 ? 1 : of.alpha / of.gamma * d[i]);
}

Exponential elu_parts(const Factors& by) { return {by.alpha, 1, 1}; }
Exponential selu_parts(const Factors& by) { return {by.alpha, by.beta, 1}; }
Exponential celu_parts(const Factors& by) { return {by.alpha, 1, by.alpha}; }
// The constants of self-normalisation (Klambauer et al. 2017), with the digits each operator set gives.
Factors selu_factors(const Call& call) {
  return call.opset < 6
             ? Factors{call.real("alpha", 1.6732f), call.real("gamma", 1.0507f)}
             : Factors{call.real("alpha", 1.67326319217681884765625f), call.real("gamma", 1.05070102214813232421875f)};
}
constexpr Activation kElu{alpha<1000>, exponential<elu_parts>, exponential_slope<elu_parts>};
constexpr Activation kSelu{selu_factors, exponential<selu_parts>, exponential_slope<selu_parts>};
constexpr Activation kCelu{alpha<1000>, exponential<celu_parts>, exponential_slope<celu_parts>};

// --- Sigmoid and its relatives ---------------------------------------------------------------------------------------

void sigmoid(const Factors&, const float* x, float* y, size_t count) { kernels::sigmoid({x, count}, {y, count}); }
float sigmoid_slope(const Factors&, float, float y) { return y * (1 - y); }
constexpr Activation kSigmoid{none, sigmoid, plain_slope<sigmoid_slope>};

Factors hard_factors(const Call& call) { return {call.real("alpha", 0.2f), call.real("beta", 0.5f)}; }
float limited(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
float hard_sigmoid(const Factors& by, float x) { return limited(by.alpha * x + by.beta); }
float hard_sigmoid_slope(const Factors& by, float, float y) { return y > 0 && y < 1 ? by.alpha : 0; }
constexpr Activation kHardSigmoid{hard_factors, plain<hard_sigmoid>, plain_slope<hard_sigmoid_slope>};

float hard_swish(const Factors&, float x) { return x * limited(x * (1 / 6.0f) + 0.5f); }
float hard_swish_slope(const Factors&, float x, float) { return x <= -3 ? 0 : x >= 3 ? 1 : x * (1 / 3.0f) + 0.5f; }
constexpr Activation kHardSwish{none, plain<hard_swish>, plain_slope<hard_swish_slope>};

/// s = sigmoid(alpha x).
void gate(float alpha, const float* x, float* s, size_t count) {
  for (size_t i = 0; i < count; ++i) s[i] = alpha * x[i];
  kernels::sigmoid({s, count}, {s, count});
}
void swish(const Factors& by, const float* x, float* y, size_t count) {
  float room[kBlock];
  gate(by.alpha, x, room, count);
  for (size_t i = 0; i < count; ++i) y[i] = x[i] * room[i];
}
/// s + alpha x s (1 - s).
void swish_slope(const Factors& by, const float* x, const float*, float* d, size_t count) {
  gate(by.alpha, x, d, count);
  for (size_t i = 0; i < count; ++i) d[i] = d[i] * (1 + by.alpha * x[i] * (1 - d[i]));
}
constexpr Activation kSwish{alpha<1000>, swish, swish_slope};
/// Of com.microsoft, with another default.
constexpr Activation kQuickGelu{alpha<1702>, swish, swish_slope};

/// max(x, 0) + log(1 + exp(-|x|)), which never overflows. For small e, log(1 + e) is log(u) e / (u - 1), u being the
/// rounded 1 + e: the rounding cancels (Kahan's correction, Higham, "Accuracy and Stability", problem 1.5).
void softplus(const Factors&, const float* x, float* y, size_t count) {
  float small[kBlock], logs[kBlock];
  for (size_t i = 0; i < count; ++i) small[i] = -std::fabs(x[i]);
  kernels::exp({small, count}, {small, count});
  for (size_t i = 0; i < count; ++i) logs[i] = 1 + small[i];
  kernels::log({logs, count}, {logs, count});
  for (size_t i = 0; i < count; ++i) {
    const float u = 1 + small[i];
    const float above = u == 1 ? small[i] : logs[i] * (small[i] / (u - 1));
    y[i] = (x[i] < 0 ? 0 : x[i]) + above;
  }
}
void softplus_slope(const Factors&, const float* x, const float*, float* d, size_t count) {
  kernels::sigmoid({x, count}, {d, count});
}
constexpr Activation kSoftplus{none, softplus, softplus_slope};

float softsign(const Factors&, float x) { return x / (1 + std::fabs(x)); }
float softsign_slope(const Factors&, float x, float) {
  const float below = 1 + std::fabs(x);
  return 1 / (below * below);
}
constexpr Activation kSoftsign{none, plain<softsign>, plain_slope<softsign_slope>};

/// tanh(softplus(x)) = (e^2 + 2e) / (e^2 + 2e + 2) with e = exp(x); beyond 20 that is 1.
void mish_gate(const float* x, float* t, size_t count) {
  for (size_t i = 0; i < count; ++i) t[i] = std::min(x[i], 20.0f);
  kernels::exp({t, count}, {t, count});
  for (size_t i = 0; i < count; ++i) {
    const float n = t[i] * (t[i] + 2);
    t[i] = n / (n + 2);
  }
}
void mish(const Factors&, const float* x, float* y, size_t count) {
  float room[kBlock];
  mish_gate(x, room, count);
  for (size_t i = 0; i < count; ++i) y[i] = x[i] * room[i];
}
/// t + x (1 - t^2) sigmoid(x).
void mish_slope(const Factors&, const float* x, const float*, float* d, size_t count) {
  float room[kBlock];
  mish_gate(x, room, count);
  kernels::sigmoid({x, count}, {d, count});
  for (size_t i = 0; i < count; ++i) d[i] = room[i] + x[i] * (1 - room[i] * room[i]) * d[i];
}
constexpr Activation kMish{none, mish, mish_slope};

// --- Gelu (Hendrycks and Gimpel 2016) --------------------------------------------------------------------------------

constexpr float kRootHalf = 0.70710678118654752f, kTwoOverPiRoot = 0.79788456080286536f, kCubic = 0.044715f;

void gelu(const Factors&, const float* x, float* y, size_t count) {
  float room[kBlock];
  for (size_t i = 0; i < count; ++i) room[i] = x[i] * kRootHalf;
  kernels::erf({room, count}, {room, count});
  for (size_t i = 0; i < count; ++i) y[i] = 0.5f * x[i] * (1 + room[i]);
}
/// The normal distribution's function plus x times its density.
void gelu_slope(const Factors&, const float* x, const float*, float* d, size_t count) {
  constexpr float kDensity = 0.39894228040143268f;
  float room[kBlock];
  for (size_t i = 0; i < count; ++i) {
    room[i] = x[i] * kRootHalf;
    d[i] = -0.5f * x[i] * x[i];
  }
  kernels::erf({room, count}, {room, count});
  kernels::exp({d, count}, {d, count});
  for (size_t i = 0; i < count; ++i) d[i] = 0.5f * (1 + room[i]) + x[i] * kDensity * d[i];
}
constexpr Activation kGelu{none, gelu, gelu_slope};

void gelu_tanh_gate(const float* x, float* t, size_t count) {
  for (size_t i = 0; i < count; ++i) t[i] = kTwoOverPiRoot * (x[i] + kCubic * x[i] * x[i] * x[i]);
  kernels::tanh({t, count}, {t, count});
}
void gelu_tanh(const Factors&, const float* x, float* y, size_t count) {
  float room[kBlock];
  gelu_tanh_gate(x, room, count);
  for (size_t i = 0; i < count; ++i) y[i] = 0.5f * x[i] * (1 + room[i]);
}
void gelu_tanh_slope(const Factors&, const float* x, const float*, float* d, size_t count) {
  gelu_tanh_gate(x, d, count);
  for (size_t i = 0; i < count; ++i) {
    const float inner = kTwoOverPiRoot * (1 + 3 * kCubic * x[i] * x[i]);
    d[i] = 0.5f * (1 + d[i]) + 0.5f * x[i] * (1 - d[i] * d[i]) * inner;
  }
}
constexpr Activation kGeluTanh{none, gelu_tanh, gelu_tanh_slope};

bool is_tanh(const Call& call) {
  const std::string approximate = call.text("approximate", "none");
  if (approximate != "none" && approximate != "tanh")
    call.fail("attribute \"approximate\" must be none or tanh, it is \"" + approximate + "\"");
  return approximate == "tanh";
}
std::vector<Tensor> any_gelu(Call& call) { return is_tanh(call) ? activate<kGeluTanh>(call) : activate<kGelu>(call); }
std::vector<Tensor> any_gelu_backward(const Call& call, std::span<const Tensor> outputs,
                                      std::span<const Tensor> grads) {
  return is_tanh(call) ? activate_backward<kGeluTanh>(call, outputs, grads)
                       : activate_backward<kGelu>(call, outputs, grads);
}

// --- SwiGLU: swish(a) * b --------------------------------------------------------------------------------------------

void check_pair(const Call& call) {
  call.floats(0);
  call.floats(1);
  if (call.in(0).shape() != call.in(1).shape()) {
    call.fail("both inputs must have one shape, they are " + to_string(call.in(0).shape()) + " and " +
              to_string(call.in(1).shape()));
  }
}

std::vector<Tensor> swiglu(Call& call) {
  check_pair(call);
  Tensor other = call.take(1);
  return {combine<Times>(call, activate<kSwish>(call)[0], std::move(other))};
}

std::vector<Tensor> swiglu_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Factors factors = kSwish.factors(call);
  Tensor first = Tensor::allocate(DType::Float32, call.in(0).shape());
  Tensor second = Tensor::allocate(DType::Float32, call.in(0).shape());
  const float* const a = call.floats(0).data();
  const std::span<float> to_first = first.write<float>(), to_second = second.write<float>();
  by_blocks(to_first.size(), [&](size_t at, size_t n) {
    swish_slope(factors, a + at, nullptr, &to_first[at], n);
    swish(factors, a + at, &to_second[at], n);
  });
  return {combine<Times>(call, combine<Times>(call, std::move(first), call.in(1)), grads[0]),
          combine<Times>(call, std::move(second), grads[0])};
}

// --- PRelu: a slope for each channel, or however it stretches --------------------------------------------------------

struct ParametricRelu {
  float operator()(float x, float slope) const { return x < 0 ? slope * x : x; }
  double operator()(double x, double slope) const { return x < 0 ? slope * x : x; }
  int64_t operator()(int64_t x, int64_t slope) const { return x < 0 ? Times{}(slope, x) : x; }
  uint64_t operator()(uint64_t x, uint64_t) const { return x; }
};
struct BelowZero {
  float operator()(float x, float value) const { return x < 0 ? value : 0; }
};
struct SlopeHere {
  float operator()(float x, float slope) const { return x < 0 ? slope : 1; }
};

/// Before operator set 7 a list of slopes goes along axis 1.
Shape slope_shape(const Call& call) {
  const Shape &x = call.in(0).shape(), &slope = call.in(1).shape();
  Shape shape = slope;
  if (call.opset < 7 && slope.size() == 1 && x.size() > 2 && slope[0] == x[1]) shape.resize(x.size() - 1, 1);
  if (broadcast(call, x, shape) != x)
    call.fail("slopes of shape " + to_string(slope) + " do not stretch to " + to_string(x));
  return shape;
}

std::vector<Tensor> prelu(Call& call) {
  Tensor slope = call.in(1).reshaped(slope_shape(call));
  return {combine<ParametricRelu>(call, call.take(0), std::move(slope))};
}

std::vector<Tensor> prelu_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  std::vector<Tensor> out(2);
  const Tensor x = as_floats(call.in(0)), slope = as_floats(call.in(1)).reshaped(slope_shape(call));
  if (call.wanted[0]) out[0] = combine<Times>(call, combine<SlopeHere>(call, x, slope), grads[0]);
  if (call.wanted[1]) {
    const Tensor below = combine<Times>(call, combine<BelowZero>(call, x, x), grads[0]);
    out[1] = sum_to(below, slope.shape()).reshaped(call.in(1).shape());
  }
  return out;
}

// --- Shrink ----------------------------------------------------------------------------------------------------------

std::vector<Tensor> shrink(Call& call) {
  const float bias = call.real("bias", 0), lambda = call.real("lambd", 0.5f);
  return {each(call, call.take(0), [bias, lambda]<class T>(T x) {
    // In double, like the reference, so that a fractional lambd is one for integers too.
    using Real = std::conditional_t<std::is_same_v<T, float>, float, double>;
    const auto real = static_cast<Real>(x);
    const Real y = real < -lambda ? real + bias : real > lambda ? real - bias : Real{0};
    if constexpr (std::is_integral_v<T>) {
      return y > Real(-0x1p63) && y < Real(0x1p63) ? static_cast<T>(static_cast<int64_t>(y)) : T{0};
    } else {
      return static_cast<T>(y);
    }
  })};
}

float shrink_slope(const Factors& by, float x, float) { return x < -by.alpha || x > by.alpha ? 1 : 0; }
Factors shrink_factors(const Call& call) { return {call.real("lambd", 0.5f), 0}; }
constexpr Activation kShrink{shrink_factors, nullptr, plain_slope<shrink_slope>};

std::vector<Tensor> shrink_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  Call wide = call;
  wide.inputs[0] = as_floats(call.in(0));
  return activate_backward<kShrink>(wide, outputs, grads);
}

const Op kOps[] = {
    {"Relu", in_wide<relu>, relu_backward},
    {"LeakyRelu", activate<kLeakyRelu>, activate_backward<kLeakyRelu>, Reals::AsFloat32},
    {"ThresholdedRelu", activate<kThresholdedRelu>, activate_backward<kThresholdedRelu>, Reals::AsFloat32},
    {"PRelu", in_wide<prelu>, prelu_backward},
    {"Elu", activate<kElu>, activate_backward<kElu>, Reals::AsFloat32},
    {"Selu", activate<kSelu>, activate_backward<kSelu>, Reals::AsFloat32},
    {"Celu", activate<kCelu>, activate_backward<kCelu>, Reals::AsFloat32},
    {"Sigmoid", activate<kSigmoid>, activate_backward<kSigmoid>, Reals::AsFloat32},
    {"HardSigmoid", activate<kHardSigmoid>, activate_backward<kHardSigmoid>, Reals::AsFloat32},
    {"HardSwish", activate<kHardSwish>, activate_backward<kHardSwish>, Reals::AsFloat32},
    {"Swish", activate<kSwish>, activate_backward<kSwish>, Reals::AsFloat32},
    {"SwiGLU", swiglu, swiglu_backward, Reals::AsFloat32},
    {"Softplus", activate<kSoftplus>, activate_backward<kSoftplus>, Reals::AsFloat32},
    {"Softsign", activate<kSoftsign>, activate_backward<kSoftsign>, Reals::AsFloat32},
    {"Mish", activate<kMish>, activate_backward<kMish>, Reals::AsFloat32},
    {"Gelu", any_gelu, any_gelu_backward, Reals::AsFloat32},
    {"Shrink", in_wide<shrink>, shrink_backward},
    {"Gelu", activate<kGelu>, activate_backward<kGelu>, Reals::AsFloat32, {}, "com.microsoft"},
    {"QuickGelu", activate<kQuickGelu>, activate_backward<kQuickGelu>, Reals::AsFloat32, {}, "com.microsoft"},
};

}  // namespace

std::span<const Op> activation_ops() { return kOps; }

}  // namespace nibble::ops
