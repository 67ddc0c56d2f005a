// Operators of two or more tensors stretched to each other: arithmetic, comparison, logic, bits, Where.
#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

// --- Stretching as old models ask for it -----------------------------------------------------------------------------

/// Before operator set 7 the second operand is stretched where attribute `broadcast` says so, its axes lying along the
/// first one's from `axis` on: seen with ones behind it, NumPy's rule does the same.
Shape second_shape(const Call& call) {
  Shape shape = call.in(1).shape();
  if (call.opset >= 7 || call.integer("broadcast", 0) == 0 || !call.has_attribute("axis")) return shape;
  const size_t rank = call.in(0).shape().size();
  // A scalar has no axes to lie along anything.
  if (shape.empty()) return shape;
  const size_t axis = axis_of(call, call.integer("axis", 0), rank);
  if (axis + shape.size() > rank) {
    call.fail("the second operand, of shape " + to_string(shape) + ", does not fit into " +
              to_string(call.in(0).shape()) + " at axis " + std::to_string(axis));
  }
  shape.resize(rank - axis, 1);
  return shape;
}

Tensor take_second(Call& call) {
  Shape shape = second_shape(call);
  return call.take(1).reshaped(std::move(shape));
}

/// The second operand as float32, as backward sees it.
Tensor second_floats(const Call& call) { return as_floats(call.in(1)).reshaped(second_shape(call)); }

/// What an operand's gradient is, given the gradient of the operand as stretched.
Tensor gathered(const Call& call, size_t input, const Tensor& grad) {
  const Shape& own = call.in(input).shape();
  return sum_to(grad, input == 1 ? second_shape(call) : own).reshaped(own);
}

bool wanted(const Call& call, size_t input) { return input < call.wanted.size() && call.wanted[input]; }

// --- Arithmetic ------------------------------------------------------------------------------------------------------

template <class F>
std::vector<Tensor> binary(Call& call) {
  call.in(1);
  Tensor second = take_second(call);
  return {combine<F>(call, call.take(0), std::move(second))};
}

bool has_zero(const Tensor& tensor) {
  return visit_wide(tensor.dtype(), [&](auto zero) {
    const auto values = tensor.data<decltype(zero)>();
    return std::is_integral_v<decltype(zero)> && std::find(values.begin(), values.end(), zero) != values.end();
  });
}

std::vector<Tensor> divide(Call& call) {
  if (has_zero(call.in(1))) call.fail("an integer is divided by zero");
  return binary<Over>(call);
}

std::vector<Tensor> add_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  std::vector<Tensor> out(2);
  for (const size_t i : {0, 1}) {
    if (wanted(call, i)) out[i] = gathered(call, i, grads[0]);
  }
  return out;
}

Tensor scaled(const Tensor& x, float scale) {
  Tensor out = Tensor::allocate(DType::Float32, x.shape());
  kernels::scale_shift(x.data<float>(), scale, 0, out.write<float>());
  return out;
}

std::vector<Tensor> subtract_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  std::vector<Tensor> out(2);
  if (wanted(call, 0)) out[0] = gathered(call, 0, grads[0]);
  if (wanted(call, 1)) out[1] = scaled(gathered(call, 1, grads[0]), -1);
  return out;
}

std::vector<Tensor> multiply_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  std::vector<Tensor> out(2);
  if (wanted(call, 0)) out[0] = gathered(call, 0, combine<Times>(call, grads[0], second_floats(call)));
  if (wanted(call, 1)) out[1] = gathered(call, 1, combine<Times>(call, grads[0], as_floats(call.in(0))));
  return out;
}

std::vector<Tensor> divide_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  std::vector<Tensor> out(2);
  // d(a / b) = da / b - (a / b) db / b.
  Tensor by_b = combine<Over>(call, grads[0], second_floats(call));
  if (wanted(call, 1)) out[1] = scaled(gathered(call, 1, combine<Times>(call, by_b, as_floats(outputs[0]))), -1);
  if (wanted(call, 0)) out[0] = gathered(call, 0, by_b);
  return out;
}

/// NumPy's remainder, which has the divisor's sign. Of integers: b is not 0.
struct Remainder {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>) {
      const T rest = std::fmod(a, b);
      return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
    } else if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
      const T rest = a % b;
      return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
    } else {
      return a % b;
    }
  }
};
/// C's remainder, which has the dividend's sign.
struct Fmod {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>)
      return std::fmod(a, b);
    else if constexpr (std::is_signed_v<T>)
      return b == -1 ? 0 : a % b;
    else
      return a % b;
  }
};

std::vector<Tensor> modulo(Call& call) {
  if (has_zero(call.in(1))) call.fail("an integer is divided by zero");
  return call.integer("fmod", 0) ? binary<Fmod>(call) : binary<Remainder>(call);
}

// --- Power -----------------------------------------------------------------------------------------------------------

/// By repeated squaring, wrapping around.
template <class T>
T integer_power(T base, uint64_t exponent) {
  uint64_t result = 1, square = static_cast<uint64_t>(base);
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) result *= square;
    square *= square;
  }
  return static_cast<T>(result);
}

template <class Base, class Exponent>
Base power_of(Base base, Exponent exponent) {
  if constexpr (std::is_integral_v<Base> && std::is_integral_v<Exponent>) {
    if (exponent >= 0) return integer_power(base, static_cast<uint64_t>(exponent));
    // 1 / base^n is 0 unless base is 1 or -1.
    if (base == 1) return 1;
    if (std::is_signed_v<Base> && base == static_cast<Base>(-1)) return exponent % 2 == 0 ? 1 : static_cast<Base>(-1);
    return 0;
  } else {
    // In double, so that the rounded result is right in all but the rarest cases and the same everywhere.
    const double result = std::pow(static_cast<double>(base), static_cast<double>(exponent));
    if constexpr (std::is_integral_v<Base>) {
      if (!(result == result)) return 0;
      if (result >= 0x1p63) return std::numeric_limits<Base>::max();
      if (result < -0x1p63) return std::numeric_limits<Base>::min();
      return static_cast<Base>(static_cast<int64_t>(result));
    } else {
      return static_cast<Base>(result);
    }
  }
}

Tensor power_of(const Call& call, Tensor base, const Tensor& exponent) {
  const Shape shape = broadcast(call, base.shape(), exponent.shape());
  // Squares, roots and the like are what models have.
  if (exponent.elements() == 1 && base.dtype() == DType::Float32 && shape == base.shape()) {
    const auto common = visit_wide(exponent.dtype(),
                                   [&](auto zero) { return static_cast<double>(exponent.data<decltype(zero)>()[0]); });
    if (common == 1) return base;
    if (common == 2) return each(call, std::move(base), [](float x) { return x * x; });
    if (common == 3) return each(call, std::move(base), [](float x) { return x * x * x; });
    if (common == 0.5) {
      // pow(-0, 0.5) is +0 and pow(-infinity, 0.5) is +infinity, unlike square roots.
      return each(call, std::move(base), [](float x) { return std::isinf(x) ? std::fabs(x) : std::sqrt(x + 0.0f); });
    }
    if (common == -1) return each(call, std::move(base), [](float x) { return 1 / x; });
  }
  const Sweep<2> sweep(shape, {&base.shape(), &exponent.shape()});
  Tensor out = Tensor::allocate(base.dtype(), shape);
  visit_wide(base.dtype(), [&](auto base_zero) {
    visit_wide(exponent.dtype(), [&](auto exponent_zero) {
      using Base = decltype(base_zero);
      using Exponent = decltype(exponent_zero);
      const Base* const from = base.data<Base>().data();
      const Exponent* const powers = exponent.data<Exponent>().data();
      Base* const to = out.write<Base>().data();
      const auto steps = sweep.run_steps();
      sweep.for_each_run([&](size_t at, const auto& in) {
        for (size_t i = 0; i < sweep.run(); ++i) {
          const auto k = static_cast<std::ptrdiff_t>(i);
          to[at + i] = power_of(from[in[0] + k * steps[0]], powers[in[1] + k * steps[1]]);
        }
      });
    });
  });
  return out;
}

std::vector<Tensor> power(Call& call) {
  const Tensor exponent = call.in(1).reshaped(second_shape(call));
  return {power_of(call, call.take(0), exponent)};
}

Tensor wide_floats(const Call& call, const Tensor& tensor) { return from_wide(to_wide(call, tensor), DType::Float32); }

/// d(a^b) / da; that of a^0 is 0, at 0 too.
struct PowerSlope {
  float operator()(float a, float b) const { return b == 0 ? 0 : b * power_of(a, b - 1); }
};

std::vector<Tensor> power_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  std::vector<Tensor> out(2);
  const Tensor base = as_floats(call.in(0)), exponent = wide_floats(call, call.in(1)).reshaped(second_shape(call));
  if (wanted(call, 0)) {
    Tensor slope;
    if (exponent.elements() == 1 && exponent.data<float>()[0] != 0) {
      const float power = exponent.data<float>()[0];
      slope = power_of(call, base, full(exponent.shape(), power - 1));
      slope = each(call, std::move(slope), [power](float x) { return power * x; });
    } else {
      slope = combine<PowerSlope>(call, base, exponent);
    }
    slope = combine<Times>(call, std::move(slope), grads[0]);
    out[0] = gathered(call, 0, slope);
  }
  if (wanted(call, 1)) {
    // d(a^b) / db = a^b log(a), 0 where a^b is 0.
    Tensor logs = Tensor::allocate(DType::Float32, base.shape());
    kernels::log(base.data<float>(), logs.write<float>());
    logs = each(call, std::move(logs), [](float x) { return std::isinf(x) && x < 0 ? 0.0f : x; });
    const Tensor slope = combine<Times>(call, combine<Times>(call, as_floats(outputs[0]), logs), grads[0]);
    out[1] = gathered(call, 1, slope);
  }
  return out;
}

// --- Of any number of operands ---------------------------------------------------------------------------------------

template <class F>
std::vector<Tensor> fold(Call& call) {
  Tensor result = call.take(0);
  for (size_t i = 1; i < call.inputs.size(); ++i) {
    call.in(i);
    result = combine<F>(call, std::move(result), call.take(i));
  }
  return {std::move(result)};
}

std::vector<Tensor> mean(Call& call) {
  const auto count = static_cast<double>(call.inputs.size());
  Tensor sum = fold<Plus>(call)[0];
  return {visit_wide(sum.dtype(), [&](auto zero) -> Tensor {
    using T = decltype(zero);
    return each(call, std::move(sum), [count](T x) { return static_cast<T>(x / static_cast<T>(count)); });
  })};
}

template <bool kMean>
std::vector<Tensor> sum_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  std::vector<Tensor> out(call.inputs.size());
  const Tensor grad = kMean ? scaled(grads[0], 1 / static_cast<float>(call.inputs.size())) : grads[0];
  for (size_t i = 0; i < out.size(); ++i) {
    if (wanted(call, i)) out[i] = sum_to(grad, call.in(i).shape());
  }
  return out;
}

struct Same {
  template <class T>
  T operator()(T a, T b) const {
    return a == b ? T{1} : T{0};
  }
};

/// Of Max and Min: what is equal to the result shares the gradient.
std::vector<Tensor> extreme_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  std::vector<Tensor> out(call.inputs.size()), hits(call.inputs.size());
  const Tensor result = as_floats(outputs[0]);
  Tensor count = zeros(result.shape());
  for (size_t i = 0; i < hits.size(); ++i) {
    hits[i] = combine<Same>(call, result, as_floats(call.in(i)));
    count = combine<Plus>(call, std::move(count), hits[i]);
  }
  const Tensor share = combine<Over>(call, grads[0], combine<Larger>(call, count, full(Shape{}, 1.0f)));
  for (size_t i = 0; i < hits.size(); ++i) {
    if (wanted(call, i)) out[i] = sum_to(combine<Times>(call, std::move(hits[i]), share), call.in(i).shape());
  }
  return out;
}

// --- Bits ------------------------------------------------------------------------------------------------------------

/// Wide integers are sign-extended or zero-extended, and of the result the low bits are kept, so bits come out as in
/// the type itself.
template <class T>
concept Integer = std::is_integral_v<T>;

struct BitAnd {
  template <Integer T>
  T operator()(T a, T b) const {
    return a & b;
  }
};
struct BitOr {
  template <Integer T>
  T operator()(T a, T b) const {
    return a | b;
  }
};
struct BitXor {
  template <Integer T>
  T operator()(T a, T b) const {
    return a ^ b;
  }
};
/// Shifts of unsigned numbers; by their width and more they give 0.
struct ShiftLeft {
  template <Integer T>
  T operator()(T a, T b) const {
    return static_cast<uint64_t>(b) < 64 ? static_cast<T>(static_cast<uint64_t>(a) << b) : 0;
  }
};
struct ShiftRight {
  template <Integer T>
  T operator()(T a, T b) const {
    return static_cast<uint64_t>(b) < 64 ? static_cast<T>(static_cast<uint64_t>(a) >> b) : 0;
  }
};

std::vector<Tensor> bit_shift(Call& call) {
  const std::string direction = call.text("direction", "");
  if (direction == "LEFT") return binary<ShiftLeft>(call);
  if (direction == "RIGHT") return binary<ShiftRight>(call);
  call.fail("attribute \"direction\" must be LEFT or RIGHT, it is \"" + direction + "\"");
}

std::vector<Tensor> bit_shift_unsigned(Call& call) {
  const DType dtype = call.in(0).dtype();
  if (dtype != DType::UInt8 && dtype != DType::UInt16 && dtype != DType::UInt32 && dtype != DType::UInt64)
    call.fail("only unsigned integers can be shifted, the input is " + std::string(to_string(dtype)));
  return in_wide<bit_shift>(call);
}

std::vector<Tensor> bit_not(Call& call) {
  return {each(call, call.take(0), []<Integer T>(T x) { return static_cast<T>(~x); })};
}

// --- Comparison and logic --------------------------------------------------------------------------------------------

template <class F>
std::vector<Tensor> compare(Call& call) {
  call.in(1);
  Tensor second = take_second(call);
  return {combine<F, true>(call, call.take(0), std::move(second))};
}

/// Of truths, which in their wide type are 0 and 1.
template <class F>
std::vector<Tensor> logic(Call& call) {
  for (const size_t i : {0, 1}) {
    if (call.in(i).dtype() != DType::Bool)
      call.fail("operands must be bool, one is " + std::string(to_string(call.in(i).dtype())));
  }
  return in_wide<compare<F>>(call);
}

std::vector<Tensor> logical_not(Call& call) {
  if (call.in(0).dtype() != DType::Bool)
    call.fail("the operand must be bool, it is " + std::string(to_string(call.in(0).dtype())));
  Tensor x = call.take(0);
  for (uint8_t& value : x.write<uint8_t>()) value = value == 0;
  return {std::move(x)};
}

// --- Where -----------------------------------------------------------------------------------------------------------

/// out = condition ? a : b, of numbers of one width, all stretched to `shape`.
template <class Word>
void choose(const Sweep<3>& sweep, const uint8_t* condition, const Word* a, const Word* b, Word* out) {
  const auto steps = sweep.run_steps();
  sweep.for_each_run([&](size_t at, const auto& in) {
    for (size_t i = 0; i < sweep.run(); ++i) {
      const auto k = static_cast<std::ptrdiff_t>(i);
      const Word yes = a[in[1] + k * steps[1]], no = b[in[2] + k * steps[2]];
      out[at + i] = condition[in[0] + k * steps[0]] ? yes : no;
    }
  });
}

Tensor choose(const Call& call, const Tensor& condition, const Tensor& a, const Tensor& b) {
  if (condition.dtype() != DType::Bool)
    call.fail("the condition must be bool, it is " + std::string(to_string(condition.dtype())));
  if (a.dtype() != b.dtype()) {
    call.fail("both choices must be of one type, they are " + std::string(to_string(a.dtype())) + " and " +
              std::string(to_string(b.dtype())));
  }
  const Shape shape = broadcast(call, condition.shape(), broadcast(call, a.shape(), b.shape()));
  const Sweep<3> sweep(shape, {&condition.shape(), &a.shape(), &b.shape()});
  Tensor out = Tensor::allocate(a.dtype(), shape);
  visit_width(call, a.dtype(), [&](auto word) {
    using Word = decltype(word);
    choose(sweep, condition.data<uint8_t>().data(), a.data<Word>().data(), b.data<Word>().data(),
           out.write<Word>().data());
  });
  return out;
}

std::vector<Tensor> where(Call& call) { return {choose(call, call.in(0), call.in(1), call.in(2))}; }

std::vector<Tensor> where_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  std::vector<Tensor> out(3);
  const Tensor nothing = full(Shape{}, 0.0f);
  if (wanted(call, 1)) out[1] = sum_to(choose(call, call.in(0), grads[0], nothing), call.in(1).shape());
  if (wanted(call, 2)) out[2] = sum_to(choose(call, call.in(0), nothing, grads[0]), call.in(2).shape());
  return out;
}

// What compares and joins truths, as types.
struct Equals {
  template <class T>
  bool operator()(T a, T b) const {
    return a == b;
  }
};
struct IsLess {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};
struct IsLessOrEqual {
  template <class T>
  bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct IsGreater {
  template <class T>
  bool operator()(T a, T b) const {
    return a > b;
  }
};
struct IsGreaterOrEqual {
  template <class T>
  bool operator()(T a, T b) const {
    return a >= b;
  }
};
struct Both {
  template <Integer T>
  bool operator()(T a, T b) const {
    return (a & b) != 0;
  }
};
struct Either {
  template <Integer T>
  bool operator()(T a, T b) const {
    return (a | b) != 0;
  }
};
struct OneOf {
  template <Integer T>
  bool operator()(T a, T b) const {
    return (a ^ b) != 0;
  }
};

const Op kOps[] = {
    {"Add", in_wide<binary<Plus>>, add_backward},
    {"Sub", in_wide<binary<Minus>>, subtract_backward},
    {"Mul", in_wide<binary<Times>>, multiply_backward},
    {"Div", in_wide<divide>, divide_backward},
    {"Mod", in_wide<modulo>},
    {"Pow", in_wide<power>, power_backward},
    {"Max", in_wide<fold<Larger>>, extreme_backward},
    {"Min", in_wide<fold<Smaller>>, extreme_backward},
    {"Sum", in_wide<fold<Plus>>, sum_backward<false>},
    {"Mean", in_wide<mean>, sum_backward<true>},
    {"BitShift", bit_shift_unsigned},
    {"BitwiseAnd", in_wide<binary<BitAnd>>},
    {"BitwiseOr", in_wide<binary<BitOr>>},
    {"BitwiseXor", in_wide<binary<BitXor>>},
    {"BitwiseNot", in_wide<bit_not>},
    {"Equal", in_wide<compare<Equals>>},
    {"Less", in_wide<compare<IsLess>>},
    {"LessOrEqual", in_wide<compare<IsLessOrEqual>>},
    {"Greater", in_wide<compare<IsGreater>>},
    {"GreaterOrEqual", in_wide<compare<IsGreaterOrEqual>>},
    {"And", logic<Both>},
    {"Or", logic<Either>},
    {"Xor", logic<OneOf>},
    {"Not", logical_not},
    {"Where", where, where_backward},
};

}  // namespace

std::span<const Op> arithmetic_ops() { return kOps; }

}  // namespace nibble::ops
