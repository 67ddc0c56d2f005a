// Operators of each number, reductions, softmax, ranking and losses: against loops written here, closed forms and
// finite differences. ONNX's own node tests are run by the conformance program.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "core/model/ops/pointwise.hpp"
#include "ops_support.hpp"

namespace nibble {
namespace {

using test::Alone;
using test::check_gradients;
using test::error_of;
using test::error_of_op;
using test::floats;
using test::Givens;
using test::GradientCheck;
using test::holds;
using test::integers;
using test::Random;
using test::random_real;
using test::run_op;
using test::tensor_of;
using test::values_of;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

Tensor scalar(float value) { return floats({}, {value}); }
Tensor bools(const Shape& shape, const std::vector<uint8_t>& values) { return tensor_of(DType::Bool, shape, values); }

/// A shape that broadcasts to `target`: some axes are 1, some leading ones are missing.
Shape part_of(const Shape& target, Random& random) {
  Shape shape = target;
  for (size_t& extent : shape) extent = random.below(3) == 0 ? 1 : extent;
  shape.erase(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(random.below(shape.size() + 1)));
  return shape;
}

/// Where element `at` of `target` lies in a tensor of `shape` that is stretched to it.
size_t source_of(size_t at, const Shape& target, const Shape& shape) {
  size_t index = 0, step = 1;
  for (size_t k = 0; k < target.size(); ++k) {
    const size_t axis = target.size() - 1 - k;
    const size_t place = at % target[axis];
    at /= target[axis];
    if (k >= shape.size()) continue;
    const size_t own = shape[shape.size() - 1 - k];
    index += (own == 1 ? 0 : place) * step;
    step *= own;
  }
  return index;
}

Shape stretched(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (const Shape* shape : {&a, &b}) {
    for (size_t k = 0; k < shape->size(); ++k) {
      size_t& extent = out[out.size() - 1 - k];
      extent = std::max(extent, (*shape)[shape->size() - 1 - k]);
    }
  }
  return out;
}

template <class T>
Tensor random_of(DType dtype, const Shape& shape, Random& random, bool zero_allowed = true) {
  std::vector<T> values(elements_of(shape));
  for (T& value : values) {
    if constexpr (std::is_floating_point_v<T>)
      value = static_cast<T>(random.normal());
    else
      value = static_cast<T>(random.bits());
    if (!zero_allowed && value == 0) value = 1;
  }
  return tensor_of(dtype, shape, values);
}

/// `op` on random tensors of type T that are stretched to each other, against f on each pair.
template <class T, class Out = T, class F>
void check_pairs(std::string_view op, DType dtype, const F& f, bool zero_allowed = true) {
  CAPTURE(std::string(op));
  CAPTURE(std::string(to_string(dtype)));
  Random random{op.size() * 7 + static_cast<size_t>(dtype)};
  for (int round = 0; round < 12; ++round) {
    Shape target(random.below(5));
    for (size_t& extent : target) extent = 1 + random.below(6);
    const Shape first = round == 0 ? target : part_of(target, random);
    const Shape second = round < 2 ? target : part_of(target, random);
    const Tensor a = random_of<T>(dtype, first, random), b = random_of<T>(dtype, second, random, zero_allowed);
    const Tensor out = run_op(op, {a, b})[0];
    const Shape expected_shape = stretched(first, second);
    REQUIRE(out.shape() == expected_shape);
    const std::span<const T> x = a.data<T>(), y = b.data<T>();
    const std::span<const Out> z = out.data<Out>();
    for (size_t i = 0; i < z.size(); ++i) {
      const Out expected = f(x[source_of(i, expected_shape, first)], y[source_of(i, expected_shape, second)]);
      REQUIRE(z[i] == expected);
    }
  }
}

/// Integer arithmetic of T as it is in the type itself, wrapping around.
template <class T>
void check_integers(DType dtype) {
  check_pairs<T>("Add", dtype, [](T a, T b) { return static_cast<T>(uint64_t(a) + uint64_t(b)); });
  check_pairs<T>("Sub", dtype, [](T a, T b) { return static_cast<T>(uint64_t(a) - uint64_t(b)); });
  check_pairs<T>("Mul", dtype, [](T a, T b) { return static_cast<T>(uint64_t(a) * uint64_t(b)); });
  check_pairs<T>("Max", dtype, [](T a, T b) { return std::max(a, b); });
  check_pairs<T>("Min", dtype, [](T a, T b) { return std::min(a, b); });
  check_pairs<T>("BitwiseXor", dtype, [](T a, T b) { return static_cast<T>(a ^ b); });
  check_pairs<T, uint8_t>("Less", dtype, [](T a, T b) { return a < b; });
  check_pairs<T, uint8_t>("GreaterOrEqual", dtype, [](T a, T b) { return a >= b; });
  const auto quotient = [](T a, T b) -> T {
    if (b == T(-1) && std::is_signed_v<T>) return static_cast<T>(uint64_t{0} - uint64_t(a));
    return static_cast<T>(a / b);
  };
  check_pairs<T>("Div", dtype, quotient, false);
  const auto remainder = [](T a, T b) -> T {
    if (b == T(-1) && std::is_signed_v<T>) return 0;
    const auto rest = static_cast<T>(a % b);
    return rest != 0 && (rest < 0) != (b < 0) ? static_cast<T>(rest + b) : rest;
  };
  check_pairs<T>("Mod", dtype, remainder, false);
}

TEST_CASE("arithmetic and comparison of stretched operands agree with a loop over indices") {
  const auto check = [](auto zero, DType dtype) {
    using T = decltype(zero);
    check_pairs<T>("Add", dtype, [](T a, T b) { return a + b; });
    check_pairs<T>("Sub", dtype, [](T a, T b) { return a - b; });
    check_pairs<T>("Mul", dtype, [](T a, T b) { return a * b; });
    check_pairs<T>(
        "Div", dtype, [](T a, T b) { return a / b; }, false);
    check_pairs<T>("Max", dtype, [](T a, T b) { return std::max(a, b); });
    check_pairs<T>("Min", dtype, [](T a, T b) { return std::min(a, b); });
    check_pairs<T, uint8_t>("Greater", dtype, [](T a, T b) { return a > b; });
    check_pairs<T, uint8_t>("LessOrEqual", dtype, [](T a, T b) { return a <= b; });
  };
  check(float{}, DType::Float32);
  check(double{}, DType::Float64);
  check_integers<int8_t>(DType::Int8);
  check_integers<uint8_t>(DType::UInt8);
  check_integers<int16_t>(DType::Int16);
  check_integers<uint16_t>(DType::UInt16);
  check_integers<int32_t>(DType::Int32);
  check_integers<uint32_t>(DType::UInt32);
  check_integers<int64_t>(DType::Int64);
  check_integers<uint64_t>(DType::UInt64);
}

TEST_CASE("half floats are computed with in float32 and rounded once") {
  for (const DType dtype : {DType::Float16, DType::BFloat16}) {
    const Tensor a = from_floats(dtype, {4, 5}, random_real({4, 5}, 1).data<float>());
    const Tensor b = from_floats(dtype, {5}, random_real({5}, 2).data<float>());
    const Tensor out = run_op("Mul", {a, b})[0];
    REQUIRE(out.dtype() == dtype);
    const FloatView x(a), y(b);
    std::vector<float> expected(20);
    for (size_t i = 0; i < 20; ++i) expected[i] = x.values()[i] * y.values()[i % 5];
    CHECK(values_of<uint16_t>(out) == values_of<uint16_t>(from_floats(dtype, {4, 5}, expected)));
  }
}

TEST_CASE("integers divided by zero are an error, the least by minus one is not") {
  const std::vector<int64_t> least = {std::numeric_limits<int64_t>::min()};
  for (const char* op : {"Div", "Mod"}) {
    CHECK(error_of_op(op, {integers({1, 2}), integers({1, 0})}).code == ErrorCode::BadData);
    CHECK(holds(error_of_op(op, {integers({1, 2}), integers({1, 0})}).message, "divided by zero"));
  }
  CHECK(values_of<int64_t>(run_op("Div", {integers(least), integers({-1})})[0]) == least);
  CHECK(values_of<int64_t>(run_op("Mod", {integers(least), integers({-1})})[0]) == std::vector<int64_t>{0});
  CHECK(std::isinf(run_op("Div", {scalar(1), scalar(0)})[0].data<float>()[0]));
}

TEST_CASE("Mod takes the divisor's sign and with fmod the dividend's") {
  const Tensor a = integers({7, -7, 7, -7}), b = integers({3, 3, -3, -3});
  CHECK(values_of<int64_t>(run_op("Mod", {a, b})[0]) == std::vector<int64_t>{1, 2, -2, -1});
  CHECK(values_of<int64_t>(run_op("Mod", {a, b}, {{"fmod", 1}})[0]) == std::vector<int64_t>{1, -1, 1, -1});
  const Tensor x = floats({2}, {-7.5f, 7.5f});
  CHECK(values_of(run_op("Mod", {x, scalar(2)}, {{"fmod", 1}})[0]) == std::vector<float>{-1.5f, 1.5f});
}

TEST_CASE("operands of old models are stretched along `axis`") {
  const Tensor a = random_real({2, 3, 4, 5}, 1), b = random_real({3, 4}, 2);
  const Tensor out = run_op("Add", {a, b}, {{"broadcast", 1}, {"axis", 1}}, 6)[0];
  REQUIRE(out.shape() == a.shape());
  for (size_t i = 0; i < out.elements(); ++i)
    REQUIRE(out.data<float>()[i] == a.data<float>()[i] + b.data<float>()[i / 5 % 12]);
  check_gradients("Mul", {a, b}, {{"broadcast", 1}, {"axis", 1}}, {0, 1}, {.opset = 6});
  CHECK(error_of_op("Add", {a, b}, {{"broadcast", 1}, {"axis", 3}}, 6).code == ErrorCode::BadData);
  CHECK(error_of_op("Add", {a, b}, {{"broadcast", 1}, {"axis", 9}}, 6).code == ErrorCode::BadData);
  // The attributes mean nothing since operator set 7.
  CHECK(error_of_op("Add", {a, b}, {{"broadcast", 1}, {"axis", 1}}, 7).code == ErrorCode::BadData);
}

TEST_CASE("operands that do not fit each other are an error") {
  CHECK(holds(error_of_op("Add", {random_real({2, 3}, 1), random_real({2}, 1)}).message, "broadcast"));
  CHECK(holds(error_of_op("Add", {random_real({2}, 1), integers({1, 2})}).message, "one type"));
  CHECK(error_of_op("And", {random_real({2}, 1), random_real({2}, 1)}).code == ErrorCode::BadData);
  CHECK(error_of_op("BitwiseAnd", {random_real({2}, 1), random_real({2}, 1)}).code == ErrorCode::Unsupported);
  CHECK(error_of_op("BitShift", {integers({1}), integers({1})}, {{"direction", "LEFT"}}).code == ErrorCode::BadData);
  CHECK(error_of_op("Sum", {}).code == ErrorCode::BadData);
  const Tensor text = Tensor::allocate(DType::String, {2});
  CHECK(error_of_op("Equal", {text, text}).code == ErrorCode::Unsupported);
}

TEST_CASE("tensors without elements give tensors without elements") {
  const Tensor none = floats({0, 3}, {});
  CHECK(run_op("Add", {none, scalar(1)})[0].shape() == Shape{0, 3});
  CHECK(run_op("Add", {none, random_real({1, 3}, 1)})[0].shape() == Shape{0, 3});
  CHECK(run_op("Relu", {none})[0].shape() == Shape{0, 3});
  CHECK(run_op("Softmax", {none})[0].shape() == Shape{0, 3});
  CHECK(run_op("Where", {bools({1}, {1}), none, scalar(1)})[0].shape() == Shape{0, 3});
  CHECK(run_op("CumSum", {none, integers({0})})[0].shape() == Shape{0, 3});
  // Extents whose product would overflow.
  const size_t huge = size_t{1} << (sizeof(size_t) * 8 / 2 + 1);
  const Tensor hostile = floats({huge, 0, huge}, {});
  CHECK(run_op("Mul", {hostile, hostile})[0].elements() == 0);
  CHECK(run_op("ReduceSum", {hostile, integers({0, 2})}, {{"keepdims", 0}})[0].shape() == Shape{0});
  CHECK(run_op("Softmax", {hostile})[0].elements() == 0);
}

TEST_CASE("NaN stays in Max, Min, Relu, Clip, Sign and reductions") {
  const Tensor a = floats({2}, {kNan, 1}), b = floats({2}, {1, kNan});
  for (const char* op : {"Max", "Min"}) {
    for (const float value : values_of(run_op(op, {a, b})[0])) CHECK(std::isnan(value));
  }
  CHECK(std::isnan(run_op("Sign", {a})[0].data<float>()[0]));
  CHECK(std::isnan(run_op("Relu", {a})[0].data<float>()[0]));
  CHECK(std::isnan(run_op("Clip", {a, scalar(0), scalar(1)})[0].data<float>()[0]));
  for (const char* op : {"ReduceMax", "ReduceMin"}) {
    CHECK(std::isnan(run_op(op, {a})[0].data<float>()[0]));
    CHECK(std::isnan(run_op(op, {b})[0].data<float>()[0]));
  }
}

TEST_CASE("Pow mixes types, squares fast and powers integers exactly") {
  const Tensor x = random_real({3, 4}, 5);
  for (const float power : {-1.0f, 0.0f, 1.0f, 2.0f, 3.0f, 4.0f}) {
    const Tensor out = run_op("Pow", {x, scalar(power)})[0];
    for (size_t i = 0; i < 12; ++i)
      CHECK(out.data<float>()[i] == doctest::Approx(std::pow(double{x.data<float>()[i]}, double{power})).epsilon(1e-6));
  }
  CHECK(values_of(run_op("Pow", {floats({3}, {4, 0, kInf}), scalar(0.5f)})[0]) == std::vector<float>{2, 0, kInf});
  CHECK(values_of<int64_t>(run_op("Pow", {integers({3, -2, 1, -1, 2}), integers({39, 3, -5, -3, -1})})[0]) ==
        std::vector<int64_t>{4052555153018976267, -8, 1, -1, 0});
  CHECK(values_of(run_op("Pow", {floats({2}, {2, 3}), integers({10, -1})})[0]) == std::vector<float>{1024, 1 / 3.0f});
  const Tensor whole = tensor_of<int32_t>(DType::Int32, {2}, {2, 9});
  CHECK(values_of<int32_t>(run_op("Pow", {whole, floats({2}, {3, 0.5f})})[0]) == std::vector<int32_t>{8, 3});
}

TEST_CASE("shifts by the width and beyond give zero") {
  const auto shift = [](const char* direction, std::vector<uint8_t> by) {
    const Tensor x = tensor_of<uint8_t>(DType::UInt8, {by.size()}, std::vector<uint8_t>(by.size(), 0x91));
    const Shape shape = {by.size()};
    return values_of<uint8_t>(
        run_op("BitShift", {x, tensor_of<uint8_t>(DType::UInt8, shape, by)}, {{"direction", direction}})[0]);
  };
  CHECK(shift("LEFT", {0, 1, 7, 8, 64, 200}) == std::vector<uint8_t>{0x91, 0x22, 0x80, 0, 0, 0});
  CHECK(shift("RIGHT", {0, 1, 7, 8, 64, 200}) == std::vector<uint8_t>{0x91, 0x48, 1, 0, 0, 0});
}

TEST_CASE("a bool of any non-zero byte is true") {
  const Tensor a = bools({4}, {0, 1, 2, 255}), b = bools({4}, {2, 2, 2, 0});
  CHECK(values_of<uint8_t>(run_op("And", {a, b})[0]) == std::vector<uint8_t>{0, 1, 1, 0});
  CHECK(values_of<uint8_t>(run_op("Xor", {a, b})[0]) == std::vector<uint8_t>{1, 0, 0, 1});
  CHECK(values_of<uint8_t>(run_op("Not", {a})[0]) == std::vector<uint8_t>{1, 0, 0, 0});
  CHECK(values_of<uint8_t>(run_op("Equal", {a, b})[0]) == std::vector<uint8_t>{0, 1, 1, 0});
  CHECK(values_of(run_op("Cast", {a}, {{"to", 1}})[0]) == std::vector<float>{0, 1, 1, 1});
}

TEST_CASE("Where chooses among stretched tensors of any width") {
  Random random{3};
  for (int round = 0; round < 10; ++round) {
    const Shape target = {1 + random.below(4), 1 + random.below(4), 1 + random.below(5)};
    const Shape c_shape = part_of(target, random), a_shape = part_of(target, random), b_shape = part_of(target, random);
    const Shape shape = stretched(c_shape, stretched(a_shape, b_shape));
    std::vector<uint8_t> truths(elements_of(c_shape));
    for (uint8_t& truth : truths) truth = random.below(2) != 0;
    const Tensor a = random_of<int16_t>(DType::Int16, a_shape, random);
    const Tensor b = random_of<int16_t>(DType::Int16, b_shape, random);
    const Tensor out = run_op("Where", {bools(c_shape, truths), a, b})[0];
    REQUIRE(out.shape() == shape);
    for (size_t i = 0; i < out.elements(); ++i) {
      const int16_t expected = truths[source_of(i, shape, c_shape)] ? a.data<int16_t>()[source_of(i, shape, a_shape)]
                                                                    : b.data<int16_t>()[source_of(i, shape, b_shape)];
      REQUIRE(out.data<int16_t>()[i] == expected);
    }
  }
}

TEST_CASE("functions of one number agree with the C library in double") {
  struct Function {
    const char* op;
    double (*f)(double);
    float low, high;
  };
  const Function all[] = {
      {"Abs", [](double x) { return std::fabs(x); }, -9, 9},
      {"Neg", [](double x) { return -x; }, -9, 9},
      {"Ceil", [](double x) { return std::ceil(x); }, -9, 9},
      {"Floor", [](double x) { return std::floor(x); }, -9, 9},
      {"Sqrt", [](double x) { return std::sqrt(x); }, 0, 100},
      {"Reciprocal", [](double x) { return 1 / x; }, 0.5f, 9},
      {"Exp", [](double x) { return std::exp(x); }, -20, 20},
      {"Log", [](double x) { return std::log(x); }, 0.01f, 100},
      {"Erf", [](double x) { return std::erf(x); }, -3, 3},
      {"Tanh", [](double x) { return std::tanh(x); }, -5, 5},
      {"Sin", [](double x) { return std::sin(x); }, -9, 9},
      {"Cos", [](double x) { return std::cos(x); }, -9, 9},
      {"Tan", [](double x) { return std::tan(x); }, -1.5f, 1.5f},
      {"Asin", [](double x) { return std::asin(x); }, -1, 1},
      {"Acos", [](double x) { return std::acos(x); }, -1, 1},
      {"Atan", [](double x) { return std::atan(x); }, -9, 9},
      {"Sinh", [](double x) { return std::sinh(x); }, -9, 9},
      {"Cosh", [](double x) { return std::cosh(x); }, -9, 9},
      {"Asinh", [](double x) { return std::asinh(x); }, -9, 9},
      {"Acosh", [](double x) { return std::acosh(x); }, 1, 9},
      {"Atanh", [](double x) { return std::atanh(x); }, -0.99f, 0.99f},
  };
  for (const Function& function : all) {
    CAPTURE(function.op);
    std::vector<float> x(1003);  // not a multiple of any block
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = function.low + (function.high - function.low) * (static_cast<float>(i) + 0.5f) / 1003;
    const std::vector<float> y = values_of(run_op(function.op, {floats({17, 59}, x)})[0]);
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = function.f(x[i]);
      REQUIRE(std::fabs(y[i] - expected) <= 5e-7 * std::fabs(expected) + 1e-12);
    }
  }
  CHECK(values_of(run_op("Round", {floats({6}, {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 2.4f})})[0]) ==
        std::vector<float>{0, 2, 2, -0.0f, -2, 2});
  CHECK(values_of<int64_t>(run_op("Abs", {integers({-3, std::numeric_limits<int64_t>::min()})})[0]) ==
        std::vector<int64_t>{3, std::numeric_limits<int64_t>::min()});
  CHECK(run_op("Sqrt", {tensor_of<double>(DType::Float64, {1}, {2})})[0].data<double>()[0] == std::sqrt(2.0));
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::log1p(std::exp(x)); }

TEST_CASE("activations agree with their formulas in double") {
  struct Activation {
    const char* op;
    Givens attributes;
    std::function<double(double)> f;
  };
  const double alpha = 1.67326319217681884765625, gamma = 1.05070102214813232421875;
  const Activation all[] = {
      {"Relu", {}, [](double x) { return std::max(x, 0.0); }},
      {"LeakyRelu", {}, [](double x) { return x < 0 ? 0.01 * x : x; }},
      {"LeakyRelu", {{"alpha", 0.3}}, [](double x) { return x < 0 ? 0.3 * x : x; }},
      {"Elu", {{"alpha", 2.0}}, [](double x) { return x > 0 ? x : 2 * std::expm1(x); }},
      {"Selu", {}, [=](double x) { return gamma * (x > 0 ? x : alpha * std::expm1(x)); }},
      {"Celu", {{"alpha", 2.0}}, [](double x) { return x > 0 ? x : 2 * std::expm1(x / 2); }},
      {"Sigmoid", {}, sigmoid},
      {"HardSigmoid", {}, [](double x) { return std::clamp(0.2 * x + 0.5, 0.0, 1.0); }},
      {"HardSwish", {}, [](double x) { return x * std::clamp(x / 6 + 0.5, 0.0, 1.0); }},
      {"Swish", {}, [](double x) { return x * sigmoid(x); }},
      {"Swish", {{"alpha", 0.5}}, [](double x) { return x * sigmoid(x / 2); }},
      {"Softplus", {}, softplus},
      {"Softsign", {}, [](double x) { return x / (1 + std::fabs(x)); }},
      {"Mish", {}, [](double x) { return x * std::tanh(softplus(x)); }},
      {"Gelu", {}, [](double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }},
      {"Gelu",
       {{"approximate", "tanh"}},
       [](double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x))); }},
      {"ThresholdedRelu", {}, [](double x) { return x > 1 ? x : 0; }},
      {"Shrink", {{"lambd", 1.5}, {"bias", 0.5}}, [](double x) { return x < -1.5  ? x + 0.5
                                                                        : x > 1.5 ? x - 0.5
                                                                                  : 0; }},
  };
  const std::vector<float> x = values_of(random_real({9, 137}, 4, 3));
  for (const Activation& activation : all) {
    CAPTURE(activation.op);
    const std::vector<float> y = values_of(run_op(activation.op, {floats({9, 137}, x)}, activation.attributes)[0]);
    // Near 0, exp(x) - 1 and the like lose what float32 has no digits for.
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = activation.f(x[i]);
      REQUIRE(std::fabs(y[i] - expected) <= 2e-6 * std::fabs(expected) + 4e-7);
    }
    const Tensor spread = floats({8}, {-2.3f, -1.7f, -0.9f, -0.2f, 0.3f, 0.8f, 1.7f, 2.6f});
    check_gradients(activation.op, {spread}, activation.attributes, {0}, {.step = 4e-3f});
  }
  // Far out nothing overflows.
  const Tensor far = floats({4}, {-1000, 1000, -80, 80});
  CHECK(values_of(run_op("Softplus", {far})[0])[1] == 1000);
  CHECK(values_of(run_op("Softplus", {far})[0])[2] == doctest::Approx(std::exp(-80.0)).epsilon(1e-5));
  CHECK(values_of(run_op("Mish", {far})[0]) == std::vector<float>{0, 1000, values_of(run_op("Mish", {far})[0])[2], 80});
  CHECK(values_of(run_op("Swish", {far})[0])[1] == 1000);
  CHECK(values_of(run_op("Elu", {far})[0])[0] == -1);
  CHECK(error_of_op("Gelu", {far}, {{"approximate", "fast"}}).code == ErrorCode::BadData);
  CHECK(error_of_op("Sigmoid", {integers({1})}).code == ErrorCode::BadData);
}

TEST_CASE("PRelu takes a slope per channel, in old models without its trailing axes") {
  const Tensor x = random_real({2, 3, 4}, 8), slope = floats({3}, {0.5f, -1, 2}),
               column = floats({3, 1}, {0.5f, -1, 2});
  const std::vector<float> y = values_of(run_op("PRelu", {x, column})[0]);
  for (size_t i = 0; i < y.size(); ++i) {
    const float value = x.data<float>()[i];
    CHECK(y[i] == (value < 0 ? value * slope.data<float>()[i / 4 % 3] : value));
  }
  CHECK(values_of(run_op("PRelu", {x, slope}, {}, 6)[0]) == y);
  CHECK(error_of_op("PRelu", {x, slope}).code == ErrorCode::BadData);
  CHECK(error_of_op("PRelu", {floats({1}, {1}), slope}).code == ErrorCode::BadData);
  check_gradients("PRelu", {x, column}, {}, {0, 1}, {.step = 1e-3f});
  check_gradients("PRelu", {x, slope}, {}, {0, 1}, {.opset = 6, .step = 1e-3f});
}

TEST_CASE("SwiGLU multiplies a gate with a tensor of its shape") {
  const Tensor a = random_real({3, 5}, 1), b = random_real({3, 5}, 2);
  const std::vector<float> y = values_of(run_op("SwiGLU", {a, b}, {{"alpha", 0.7}})[0]);
  for (size_t i = 0; i < y.size(); ++i) {
    const double x = a.data<float>()[i];
    CHECK(y[i] == doctest::Approx(x * sigmoid(0.7 * x) * b.data<float>()[i]).epsilon(1e-5));
  }
  check_gradients("SwiGLU", {a, b}, {{"alpha", 0.7}}, {0, 1});
  CHECK(error_of_op("SwiGLU", {a, scalar(1)}).code == ErrorCode::BadData);
}

TEST_CASE("Clip has its limits in attributes before operator set 11 and in inputs since") {
  const Tensor x = floats({5}, {-3, -1, 0, 1, 3});
  CHECK(values_of(run_op("Clip", {x}, {{"min", -1.0}, {"max", 2.0}}, 6)[0]) == std::vector<float>{-1, -1, 0, 1, 2});
  CHECK(values_of(run_op("Clip", {x}, {{"min", 0.0}}, 6)[0]) == std::vector<float>{0, 0, 0, 1, 3});
  CHECK(values_of(run_op("Clip", {x, scalar(-1), scalar(2)})[0]) == std::vector<float>{-1, -1, 0, 1, 2});
  CHECK(values_of(run_op("Clip", {x, Tensor(), scalar(2)})[0]) == std::vector<float>{-3, -1, 0, 1, 2});
  CHECK(values_of(run_op("Clip", {x}, {{"min", 0.0}}, 13)[0]) == values_of(x));
  CHECK(values_of(run_op("Clip", {x, scalar(2), scalar(1)})[0]) == std::vector<float>(5, 1));
  CHECK(
      values_of<int64_t>(run_op("Clip", {integers({-5, 5}), Tensor(), tensor_of<int64_t>(DType::Int64, {}, {3})})[0]) ==
      std::vector<int64_t>{-5, 3});
  CHECK(error_of_op("Clip", {x, x}).code == ErrorCode::BadData);
  CHECK(error_of_op("Clip", {x, integers({1})}).code == ErrorCode::BadData);
  check_gradients("Clip", {x, scalar(-0.7f), scalar(2.2f)}, {}, {0, 1, 2}, {.step = 1e-3f});
}

TEST_CASE("casts truncate, wrap and round once") {
  const auto cast = [](const Tensor& x, int to) { return run_op("Cast", {x}, {{"to", to}})[0]; };
  const Tensor x = floats({5}, {-1.9f, 1.9f, 300.5f, -129, kNan});
  CHECK(values_of<int64_t>(cast(x, 7)) == std::vector<int64_t>{-1, 1, 300, -129, 0});
  CHECK(values_of<int8_t>(cast(x, 3)) == std::vector<int8_t>{-1, 1, 44, 127, 0});
  CHECK(values_of<uint8_t>(cast(x, 9)) == std::vector<uint8_t>{1, 1, 1, 1, 1});
  CHECK(values_of<int64_t>(cast(floats({2}, {1e30f, -kInf}), 7)) ==
        std::vector<int64_t>{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()});
  CHECK(values_of<uint64_t>(cast(floats({2}, {0x1p63f, kInf}), 13)) ==
        std::vector<uint64_t>{uint64_t{1} << 63, std::numeric_limits<uint64_t>::max()});
  CHECK(values_of<int8_t>(cast(integers({200, -200}), 3)) == std::vector<int8_t>{-56, 56});
  // Just above the middle between two half floats: rounding to float32 first would lose which side it is on.
  const double above = 1 + 0x1p-11 + 0x1p-40, middle = 1 + 0x1p-11;
  const Tensor halves = cast(tensor_of<double>(DType::Float64, {3}, {above, middle, -above}), 10);
  CHECK(values_of<uint16_t>(halves) == std::vector<uint16_t>{0x3C01, 0x3C00, 0xBC01});
  // int4: two to a byte, the low bits kept.
  CHECK(values_of<uint8_t>(cast(floats({3}, {-9, 7, -1}), 22)) == std::vector<uint8_t>{0x77, 0x0F});
  CHECK(values_of<int8_t>(
            run_op("CastLike", {cast(floats({3}, {-8, 7, -1}), 22), tensor_of<int8_t>(DType::Int8, {1}, {0})})[0]) ==
        std::vector<int8_t>{-8, 7, -1});
  CHECK(values_of(run_op("Cast", {integers({2})}, {{"to", "float"}}, 1)[0]) == std::vector<float>{2});
  CHECK(error_of_op("Cast", {x}, {{"to", 8}}).code == ErrorCode::Unsupported);
  CHECK(error_of_op("Cast", {x}, {{"to", 99}}).code == ErrorCode::BadData);
  CHECK(error_of_op("Cast", {x}).code == ErrorCode::BadData);
  CHECK(error_of_op("BitCast", {x}, {{"to", 7}}).code == ErrorCode::BadData);
  CHECK(values_of<uint8_t>(run_op("BitCast", {tensor_of<uint8_t>(DType::UInt8, {2}, {0, 7})}, {{"to", 9}})[0]) ==
        std::vector<uint8_t>{0, 1});
}

TEST_CASE("gradients of arithmetic and functions are those of finite differences") {
  const Tensor a = random_real({2, 3, 4}, 1), column = random_real({3, 1}, 2), row = random_real({4}, 3);
  const Tensor positive = run_op("Add", {run_op("Abs", {column})[0], scalar(0.5f)})[0];
  for (const Tensor& b : {column, row, random_real({2, 3, 4}, 4), random_real({}, 5)}) {
    for (const char* op : {"Add", "Sub", "Mul"}) {
      check_gradients(op, {a, b}, {}, {0, 1});
      check_gradients(op, {b, a}, {}, {0, 1});
    }
  }
  check_gradients("Div", {a, positive}, {}, {0, 1}, {.step = 2e-3f});
  check_gradients("Pow", {positive, a}, {}, {0, 1}, {.step = 2e-3f});
  check_gradients("Pow", {a, scalar(2)}, {}, {0});
  check_gradients("Pow", {a, scalar(3)}, {}, {0}, {.step = 2e-3f});
  check_gradients("Pow", {a, integers({2})}, {}, {0});
  for (const char* op : {"Max", "Min"}) check_gradients(op, {a, column, row}, {}, {0, 1, 2}, {.step = 1e-3f});
  for (const char* op : {"Sum", "Mean"}) check_gradients(op, {a, column, row}, {}, {0, 1, 2});
  check_gradients("Where", {bools({3, 1}, {1, 0, 1}), a, row}, {}, {1, 2});
  check_gradients("Identity", {a}, {}, {0});
  check_gradients("Cast", {a}, {{"to", 1}}, {0});

  const Tensor small = run_op("Mul", {run_op("Tanh", {a})[0], scalar(0.9f)})[0];
  const Tensor large = run_op("Add", {run_op("Abs", {a})[0], scalar(1.5f)})[0];
  for (const char* op : {"Abs", "Neg", "Exp", "Erf", "Tanh", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Asin",
                         "Acos", "Atanh", "Tan"}) {
    CAPTURE(op);
    check_gradients(op, {small}, {}, {0}, {.step = 1e-3f, .bound = 2e-2});
  }
  for (const char* op : {"Log", "Sqrt", "Reciprocal", "Acosh"}) {
    CAPTURE(op);
    check_gradients(op, {large}, {}, {0}, {.step = 2e-3f});
  }
}

// --- Reductions ------------------------------------------------------------------------------------------------------

/// Each number that goes to an element of the result, in order, by walking over all indices.
std::vector<std::vector<double>> grouped(const Tensor& x, const std::vector<char>& reduced) {
  const Shape& shape = x.shape();
  Shape kept;
  for (size_t axis = 0; axis < shape.size(); ++axis) kept.push_back(reduced[axis] ? 1 : shape[axis]);
  std::vector<std::vector<double>> groups(elements_of(kept));
  for (size_t i = 0; i < x.elements(); ++i) groups[source_of(i, shape, kept)].push_back(x.data<float>()[i]);
  return groups;
}

double folded(std::string_view op, const std::vector<double>& group) {
  double sum = 0, product = 1, squares = 0, magnitudes = 0, powers = 0;
  for (const double x : group) {
    sum += x;
    product *= x;
    squares += x * x;
    magnitudes += std::fabs(x);
    powers += std::exp(x);
  }
  if (op == "ReduceSum") return sum;
  if (op == "ReduceMean") return sum / static_cast<double>(group.size());
  if (op == "ReduceProd") return product;
  if (op == "ReduceSumSquare") return squares;
  if (op == "ReduceL1") return magnitudes;
  if (op == "ReduceL2") return std::sqrt(squares);
  if (op == "ReduceLogSum") return std::log(sum);
  if (op == "ReduceLogSumExp") return std::log(powers);
  if (op == "ReduceMax") return *std::max_element(group.begin(), group.end());
  return *std::min_element(group.begin(), group.end());
}

TEST_CASE("reductions over any axes agree with a loop over indices") {
  Random random{11};
  for (const char* op : {"ReduceSum", "ReduceMean", "ReduceProd", "ReduceSumSquare", "ReduceL1", "ReduceL2",
                         "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin"}) {
    CAPTURE(op);
    for (int round = 0; round < 16; ++round) {
      Shape shape(random.below(5));
      for (size_t& extent : shape) extent = 1 + random.below(5);
      if (round == 1) shape = {3, 37};  // rows longer than the lanes
      Tensor x = random_real(shape, random.bits());
      if (std::string_view(op) == "ReduceLogSum") x = run_op("Exp", {x})[0];
      std::vector<char> reduced(shape.size());
      std::vector<int64_t> axes;
      for (size_t axis = 0; axis < shape.size(); ++axis) {
        reduced[axis] = round == 1 ? axis == 1 : random.below(2) != 0;
        if (reduced[axis]) axes.push_back(static_cast<int64_t>(axis) - (random.below(2) ? 0 : std::ssize(shape)));
      }
      std::reverse(axes.begin(), axes.end());
      if (axes.empty()) reduced.assign(shape.size(), 1);
      const bool keep = random.below(2) != 0;
      Shape expected_shape;
      for (size_t axis = 0; axis < shape.size(); ++axis) {
        if (keep || !reduced[axis]) expected_shape.push_back(reduced[axis] ? 1 : shape[axis]);
      }
      // Axes were an attribute first and are an input now.
      const Tensor y = round % 2 ? run_op(op, {x, integers(axes)}, {{"keepdims", keep}}, 18)[0]
                                 : run_op(op, {x}, {{"keepdims", keep}, {"axes", axes}}, 11)[0];
      REQUIRE(y.shape() == expected_shape);
      const std::vector<std::vector<double>> groups = grouped(x, reduced);
      for (size_t i = 0; i < y.elements(); ++i) {
        const double expected = folded(op, groups[i]);
        REQUIRE(y.data<float>()[i] == doctest::Approx(expected).epsilon(1e-5).scale(1));
      }
    }
  }
}

TEST_CASE("reductions over no axes, of no numbers, of integers and of hostile axes") {
  const Tensor x = floats({2, 2}, {1, -2, 3, 4});
  const Givens noop = {{"noop_with_empty_axes", 1}};
  CHECK(values_of(run_op("ReduceSum", {x}, noop)[0]) == values_of(x));
  CHECK(values_of(run_op("ReduceSum", {x, integers({})}, noop)[0]) == values_of(x));
  CHECK(values_of(run_op("ReduceSumSquare", {x, integers({})}, noop)[0]) == std::vector<float>{1, 4, 9, 16});
  CHECK(values_of(run_op("ReduceSum", {x, integers({})})[0]) == std::vector<float>{6});

  const Tensor none = floats({2, 0}, {});
  CHECK(values_of(run_op("ReduceSum", {none, integers({1})})[0]) == std::vector<float>{0, 0});
  CHECK(values_of(run_op("ReduceProd", {none, integers({1})})[0]) == std::vector<float>{1, 1});
  CHECK(values_of(run_op("ReduceMax", {none, integers({1})})[0]) == std::vector<float>{-kInf, -kInf});
  CHECK(values_of(run_op("ReduceLogSumExp", {none, integers({1})})[0]) == std::vector<float>{-kInf, -kInf});
  CHECK(std::isnan(values_of(run_op("ReduceMean", {none, integers({1})})[0])[0]));
  CHECK(std::isnan(values_of<double>(run_op("ReduceMean", {tensor_of<double>(DType::Float64, {0}, {})})[0])[0]));
  const Tensor no_bytes = tensor_of<int8_t>(DType::Int8, {0}, {});
  CHECK(values_of<int8_t>(run_op("ReduceMax", {no_bytes})[0]) == std::vector<int8_t>{-128});
  CHECK(values_of<int8_t>(run_op("ReduceMin", {no_bytes})[0]) == std::vector<int8_t>{127});
  CHECK(values_of<uint8_t>(run_op("ReduceMin", {bools({0}, {})})[0]) == std::vector<uint8_t>{1});
  CHECK(error_of_op("ReduceMean", {no_bytes}).code == ErrorCode::BadData);

  const Tensor bytes = tensor_of<int8_t>(DType::Int8, {3}, {100, 100, -7});
  CHECK(values_of<int8_t>(run_op("ReduceSum", {bytes})[0]) == std::vector<int8_t>{-63});
  CHECK(values_of<int8_t>(run_op("ReduceMean", {bytes})[0]) == std::vector<int8_t>{64});
  CHECK(values_of<int64_t>(run_op("ReduceL2", {integers({3, 4})})[0]) == std::vector<int64_t>{5});
  CHECK(values_of<double>(run_op("ReduceSum", {tensor_of<double>(DType::Float64, {2}, {1, 1e-15})})[0])[0] > 1);

  CHECK(values_of(run_op("ReduceLogSumExp", {floats({2}, {1000, 1000})})[0])[0] == doctest::Approx(1000.6931f));
  CHECK(values_of(run_op("ReduceLogSumExp", {floats({2}, {kInf, 0})})[0])[0] == kInf);
  CHECK(values_of(run_op("ReduceLogSumExp", {floats({2}, {-kInf, -kInf})})[0])[0] == -kInf);

  for (const std::vector<int64_t>& axes : std::vector<std::vector<int64_t>>{{2}, {-3}, {0, 0}, {1, -1}, {INT64_MIN}}) {
    CHECK(error_of_op("ReduceSum", {x, integers(axes)}).code == ErrorCode::BadData);
    CHECK(error_of_op("ReduceMax", {x}, {{"axes", axes}}, 11).code == ErrorCode::BadData);
  }
}

TEST_CASE("gradients of reductions are those of finite differences") {
  const Tensor x = random_real({3, 4, 5}, 21);
  for (const char* op : {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare",
                         "ReduceLogSumExp"}) {
    CAPTURE(op);
    for (const std::vector<int64_t>& axes : std::vector<std::vector<int64_t>>{{1}, {0, 2}, {-1}, {}}) {
      for (const int keep : {0, 1})
        check_gradients(op, {x, integers(axes)}, {{"keepdims", keep}}, {0}, {.step = 1e-3f, .bound = 2e-2});
    }
  }
  check_gradients("ReduceLogSum", {run_op("Exp", {x})[0], integers({1})}, {}, {0}, {.step = 1e-3f});
  for (const char* op : {"CumSum"}) {
    for (const int exclusive : {0, 1}) {
      for (const int reverse : {0, 1})
        check_gradients(op, {x, integers({1})}, {{"exclusive", exclusive}, {"reverse", reverse}}, {0});
    }
  }
}

TEST_CASE("equal numbers share the gradient of the largest") {
  const test::Alone alone("ReduceMax", std::vector<Tensor>{floats({3}, {2, 1, 2})}, {}, 18, 1, "");
  ops::Call call = alone.call({floats({3}, {2, 1, 2})});
  call.wanted = {true};
  const Tensor y = floats({1}, {2}), grad = floats({1}, {3});
  CHECK(values_of(alone.op->backward(call, std::span(&y, 1), std::span(&grad, 1))[0]) ==
        std::vector<float>{1.5f, 0, 1.5f});
}

TEST_CASE("ArgMax and ArgMin tell the first or the last of equals and find NaN") {
  const Tensor x = floats({2, 4}, {1, 3, 3, 2, 0, kNan, 5, kNan});
  const Givens first = {{"axis", 1}, {"keepdims", 0}};
  const Givens last = {{"axis", 1}, {"keepdims", 0}, {"select_last_index", 1}};
  CHECK(values_of<int64_t>(run_op("ArgMax", {x}, first)[0]) == std::vector<int64_t>{1, 1});
  CHECK(values_of<int64_t>(run_op("ArgMax", {x}, last)[0]) == std::vector<int64_t>{2, 3});
  CHECK(values_of<int64_t>(run_op("ArgMin", {x}, first)[0]) == std::vector<int64_t>{0, 1});
  CHECK(run_op("ArgMin", {x}, {{"axis", -2}})[0].shape() == Shape{1, 4});
  CHECK(values_of<int64_t>(run_op("ArgMax", {tensor_of<uint64_t>(DType::UInt64, {2}, {1, ~uint64_t{0}})})[0]) ==
        std::vector<int64_t>{1});
  CHECK(error_of_op("ArgMax", {floats({2, 0}, {})}, first).code == ErrorCode::BadData);
  CHECK(error_of_op("ArgMax", {x}, {{"axis", 2}}).code == ErrorCode::BadData);
  CHECK(error_of_op("ArgMax", {scalar(1)}).code == ErrorCode::BadData);
}

TEST_CASE("running sums and products go along an axis from either end") {
  const Tensor x = tensor_of<int32_t>(DType::Int32, {2, 3}, {1, 2, 3, 4, 5, 6});
  const auto run = [&](const char* op, int64_t axis, int exclusive, int reverse) {
    return values_of<int32_t>(run_op(op, {x, integers({axis})}, {{"exclusive", exclusive}, {"reverse", reverse}})[0]);
  };
  CHECK(run("CumSum", 1, 0, 0) == std::vector<int32_t>{1, 3, 6, 4, 9, 15});
  CHECK(run("CumSum", -2, 0, 0) == std::vector<int32_t>{1, 2, 3, 5, 7, 9});
  CHECK(run("CumSum", 1, 1, 0) == std::vector<int32_t>{0, 1, 3, 0, 4, 9});
  CHECK(run("CumSum", 1, 0, 1) == std::vector<int32_t>{6, 5, 3, 15, 11, 6});
  CHECK(run("CumProd", 1, 1, 1) == std::vector<int32_t>{6, 3, 1, 30, 6, 1});
  CHECK(error_of_op("CumSum", {x, integers({2})}).code == ErrorCode::BadData);
  CHECK(error_of_op("CumSum", {x, integers({0, 1})}).code == ErrorCode::BadData);
  CHECK(error_of_op("CumSum", {x}).code == ErrorCode::BadData);
}

// --- Softmax ---------------------------------------------------------------------------------------------------------

TEST_CASE("softmax goes along one axis since operator set 13 and over all from one on before") {
  const Tensor x = random_real({2, 3, 4}, 31);
  const auto check = [&](int64_t opset, int64_t axis, const std::vector<char>& together) {
    const Tensor y = run_op("Softmax", {x}, {{"axis", axis}}, opset)[0];
    const Tensor logs = run_op("LogSoftmax", {x}, {{"axis", axis}}, opset)[0];
    const Tensor one = run_op("Hardmax", {x}, {{"axis", axis}}, opset)[0];
    const std::vector<std::vector<double>> groups = grouped(x, together);
    Shape kept;
    for (size_t i = 0; i < 3; ++i) kept.push_back(together[i] ? 1 : x.shape()[i]);
    for (size_t i = 0; i < x.elements(); ++i) {
      const std::vector<double>& group = groups[source_of(i, x.shape(), kept)];
      const double log = x.data<float>()[i] - folded("ReduceLogSumExp", group);
      REQUIRE(y.data<float>()[i] == doctest::Approx(std::exp(log)).epsilon(1e-5));
      REQUIRE(logs.data<float>()[i] == doctest::Approx(log).epsilon(1e-5));
      REQUIRE(one.data<float>()[i] == (x.data<float>()[i] == folded("ReduceMax", group) ? 1 : 0));
    }
  };
  check(13, 0, {1, 0, 0});
  check(13, 1, {0, 1, 0});
  check(13, -1, {0, 0, 1});
  check(12, 0, {1, 1, 1});
  check(12, 1, {0, 1, 1});
  check(11, -1, {0, 0, 1});
  CHECK(values_of(run_op("Softmax", {x}, {}, 12)[0]) == values_of(run_op("Softmax", {x}, {{"axis", 1}}, 12)[0]));
  CHECK(values_of(run_op("Softmax", {x}, {}, 13)[0]) == values_of(run_op("Softmax", {x}, {{"axis", 2}}, 13)[0]));
  CHECK(error_of_op("Softmax", {x}, {{"axis", 3}}).code == ErrorCode::BadData);
  CHECK(error_of_op("Softmax", {x}, {{"axis", -4}}, 11).code == ErrorCode::BadData);
  for (const char* op : {"Softmax", "LogSoftmax"}) {
    for (const int64_t axis : {0, 1, 2}) check_gradients(op, {x}, {{"axis", axis}}, {0});
    check_gradients(op, {x}, {{"axis", 1}}, {0}, {.opset = 11});
  }
}

// --- Ranking ---------------------------------------------------------------------------------------------------------

TEST_CASE("TopK takes the best along an axis, the first of equals") {
  const Tensor x = floats({2, 5}, {3, 1, 3, kNan, 2, 0, -1, 7, 7, 5});
  std::vector<Tensor> best = run_op("TopK", {x, integers({3})}, {{"axis", 1}}, 11, 2);
  CHECK(values_of<int64_t>(best[1]) == std::vector<int64_t>{3, 0, 2, 2, 3, 4});
  CHECK(std::isnan(values_of(best[0])[0]));
  best = run_op("TopK", {x, integers({2})}, {{"largest", 0}}, 11, 2);
  CHECK(values_of(best[0]) == std::vector<float>{1, 2, -1, 0});
  CHECK(values_of<int64_t>(run_op("TopK", {x, integers({1})}, {{"axis", 0}}, 10, 2)[1]) ==
        std::vector<int64_t>{0, 0, 1, 0, 1});
  CHECK(values_of<int64_t>(run_op("TopK", {x}, {{"k", 2}}, 1, 2)[1]) == std::vector<int64_t>{3, 0, 2, 3});
  CHECK(run_op("TopK", {x, integers({0})}, {}, 11, 2)[0].shape() == Shape{2, 0});
  const Tensor bytes = tensor_of<uint8_t>(DType::UInt8, {3}, {200, 5, 201});
  CHECK(values_of<uint8_t>(run_op("TopK", {bytes, integers({2})}, {}, 11, 2)[0]) == std::vector<uint8_t>{201, 200});
  for (const int64_t k : {int64_t{6}, int64_t{-1}, INT64_MAX})
    CHECK(error_of_op("TopK", {x, integers({k})}, {}, 11, 2).code == ErrorCode::BadData);
  CHECK(error_of_op("TopK", {x, integers({1, 1})}, {}, 11, 2).code == ErrorCode::BadData);
  CHECK(error_of_op("TopK", {x}, {}, 1, 2).code == ErrorCode::BadData);
  check_gradients("TopK", {random_real({3, 4, 5}, 41), integers({2})}, {{"axis", 1}}, {0},
                  {.outputs = 2, .step = 1e-3f});
}

TEST_CASE("NonZero gives a column for each number that is not zero") {
  const Tensor found = run_op("NonZero", {floats({2, 3}, {0, 1, kNan, 0, 0, -1})})[0];
  CHECK(found.shape() == Shape{2, 3});
  CHECK(values_of<int64_t>(found) == std::vector<int64_t>{0, 0, 1, 1, 2, 2});
  CHECK(run_op("NonZero", {scalar(3)})[0].shape() == Shape{0, 1});
  CHECK(run_op("NonZero", {bools({2, 0}, {})})[0].shape() == Shape{2, 0});
}

TEST_CASE("Unique finds the kinds of numbers and of slices") {
  const Tensor x = tensor_of<int16_t>(DType::Int16, {6}, {2, 1, 1, 3, 4, 3});
  std::vector<Tensor> found = run_op("Unique", {x}, {{"sorted", 0}}, 21, 4);
  CHECK(values_of<int16_t>(found[0]) == std::vector<int16_t>{2, 1, 3, 4});
  CHECK(values_of<int64_t>(found[1]) == std::vector<int64_t>{0, 1, 3, 4});
  CHECK(values_of<int64_t>(found[2]) == std::vector<int64_t>{0, 1, 1, 2, 3, 2});
  CHECK(values_of<int64_t>(found[3]) == std::vector<int64_t>{1, 2, 2, 1});
  found = run_op("Unique", {floats({2, 3}, {1, 0, 1, 2, 5, 2})}, {{"axis", 1}}, 21, 4);
  CHECK(found[0].shape() == Shape{2, 2});
  CHECK(values_of(found[0]) == std::vector<float>{0, 1, 5, 2});
  CHECK(values_of<int64_t>(found[2]) == std::vector<int64_t>{1, 0, 1});
  CHECK(values_of(run_op("Unique", {floats({3}, {kNan, 1, kNan})})[0]).size() == 2);
  CHECK(run_op("Unique", {floats({0}, {})})[0].shape() == Shape{0});
  CHECK(error_of_op("Unique", {x}, {{"axis", 1}}).code == ErrorCode::BadData);
  CHECK(error_of_op("Unique", {floats({size_t{1} << 24, 0}, {})}, {{"axis", 0}}).code == ErrorCode::BadData);
}

TEST_CASE("Det is that of the closed form") {
  const Tensor x = floats({3, 2, 2}, {1, 2, 3, 4, 0, 1, 1, 0, 2, 4, 1, 2});
  const std::vector<float> expected = {-2, -1, 0};
  const std::vector<float> got = values_of(run_op("Det", {x})[0]);
  for (size_t i = 0; i < 3; ++i) CHECK(got[i] == doctest::Approx(expected[i]));
  CHECK(values_of(run_op("Det", {floats({0, 0}, {})})[0]) == std::vector<float>{1});
  CHECK(error_of_op("Det", {random_real({2, 3}, 1)}).code == ErrorCode::BadData);
  CHECK(error_of_op("Det", {scalar(1)}).code == ErrorCode::BadData);
}

// --- Losses ----------------------------------------------------------------------------------------------------------

TEST_CASE("losses agree with their definition, with weights, ignored labels and any rank") {
  Random random{51};
  for (const Shape& shape : std::vector<Shape>{{5, 3}, {2, 4, 3}, {2, 3, 2, 2}}) {
    const size_t classes = shape[1], places = elements_of(shape) / shape[0] / classes, count = shape[0] * places;
    const Tensor scores = random_real(shape, random.bits());
    std::vector<int64_t> labels(count);
    for (int64_t& label : labels) label = static_cast<int64_t>(random.below(classes));
    labels[1] = -7;
    Shape label_shape = shape;
    label_shape.erase(label_shape.begin() + 1);
    const Tensor targets = tensor_of(DType::Int64, label_shape, labels);
    const Tensor weights = run_op("Abs", {random_real({classes}, 3)})[0];
    for (const bool weighted : {false, true}) {
      for (const char* reduction : {"none", "sum", "mean"}) {
        CAPTURE(reduction);
        const Givens attributes = {{"reduction", reduction}, {"ignore_index", -7}};
        const std::vector<Tensor> inputs =
            weighted ? std::vector<Tensor>{scores, targets, weights} : std::vector<Tensor>{scores, targets};
        double sum = 0, total = 0;
        std::vector<double> each;
        for (size_t i = 0; i < count; ++i) {
          const size_t start = i / places * classes * places + i % places;
          double powers = 0;
          for (size_t c = 0; c < classes; ++c) powers += std::exp(double{scores.data<float>()[start + c * places]});
          each.push_back(0);
          if (labels[i] < 0) continue;
          const auto label = static_cast<size_t>(labels[i]);
          const double weight = weighted ? weights.data<float>()[label] : 1;
          each.back() = weight * (std::log(powers) - scores.data<float>()[start + label * places]);
          sum += each.back();
          total += weight;
        }
        const std::vector<Tensor> out = run_op("SoftmaxCrossEntropyLoss", inputs, attributes, 13, 2);
        std::vector<Tensor> known = inputs;
        known[0] = out[1];
        const Tensor again = run_op("NegativeLogLikelihoodLoss", known, attributes, 13)[0];
        if (std::string_view(reduction) == "none") {
          REQUIRE(out[0].shape() == label_shape);
          for (size_t i = 0; i < count; ++i) CHECK(out[0].data<float>()[i] == doctest::Approx(each[i]).epsilon(1e-5));
        } else {
          const double expected = std::string_view(reduction) == "sum" ? sum : sum / total;
          CHECK(out[0].shape().empty());
          CHECK(out[0].data<float>()[0] == doctest::Approx(expected).epsilon(1e-5));
        }
        CHECK(values_of(again) == values_of(out[0]));
        CHECK(values_of(out[1]) == values_of(run_op("LogSoftmax", {scores}, {{"axis", 1}}, 13)[0]));
        check_gradients("SoftmaxCrossEntropyLoss", inputs, attributes, {0}, {.opset = 13});
        check_gradients("SoftmaxCrossEntropyLoss", inputs, attributes, {0}, {.opset = 13, .outputs = 2, .losses = 2});
        check_gradients("NegativeLogLikelihoodLoss", inputs, attributes, {0}, {.opset = 13});
      }
    }
  }
}

TEST_CASE("losses refuse labels and weights that do not fit") {
  const Tensor scores = random_real({2, 3}, 1);
  for (const char* op : {"SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"}) {
    CHECK(holds(error_of_op(op, {scores, integers({0, 3})}).message, "label 3"));
    CHECK(error_of_op(op, {scores, integers({0, -1})}).code == ErrorCode::BadData);
    CHECK(error_of_op(op, {scores, integers({0})}).code == ErrorCode::BadData);
    CHECK(error_of_op(op, {scores, floats({2}, {0, 1})}).code == ErrorCode::BadData);
    CHECK(error_of_op(op, {scores, integers({0, 1}), floats({2}, {1, 1})}).code == ErrorCode::BadData);
    CHECK(error_of_op(op, {scores, integers({0, 1})}, {{"reduction", "median"}}).code == ErrorCode::BadData);
    CHECK(error_of_op(op, {floats({3}, {1, 2, 3}), integers({0})}).code == ErrorCode::BadData);
  }
}

// --- Random numbers --------------------------------------------------------------------------------------------------

TEST_CASE("random tensors have the asked-for moments and depend on seed or stream alone") {
  const Givens shape = {{"shape", {100, 100}}, {"seed", 3.0}};
  const auto drawn = [](std::string_view op, const std::vector<Tensor>& inputs, const Givens& attributes) {
    const Alone alone(op, inputs, attributes, 21, 1, "");
    ops::Call call = alone.call(inputs);
    call.training = true;
    return alone.op->forward(call)[0];
  };
  const std::vector<float> uniform =
      values_of(drawn("RandomUniform", {}, {shape[0], shape[1], {"low", -1.0}, {"high", 3.0}}));
  const std::vector<float> normal =
      values_of(drawn("RandomNormal", {}, {shape[0], shape[1], {"mean", 2.0}, {"scale", 0.5}}));
  const auto moments = [](const std::vector<float>& values) {
    double sum = 0, squares = 0;
    for (const float value : values) {
      sum += value;
      squares += double{value} * value;
    }
    const auto count = static_cast<double>(values.size());
    return std::pair{sum / count, squares / count - sum / count * sum / count};
  };
  // Five standard errors of the mean of 10000 numbers, and about as much of the variance.
  CHECK(std::fabs(moments(uniform).first - 1) < 0.06);
  CHECK(std::fabs(moments(uniform).second - 16 / 12.0) < 0.06);
  CHECK(std::fabs(moments(normal).first - 2) < 0.025);
  CHECK(std::fabs(moments(normal).second - 0.25) < 0.018);
  for (const float value : uniform) REQUIRE((value >= -1 && value <= 3));
  const Tensor like = from_floats(DType::Float16, {3}, std::vector<float>{0, 0, 0});
  CHECK(drawn("RandomNormalLike", {like}, {}).dtype() == DType::Float16);
  const auto refusal = [&](const Givens& attributes) {
    return error_of([&] { drawn("RandomUniform", {}, attributes); }).code;
  };
  CHECK(refusal({{"shape", {-1}}}) == ErrorCode::BadData);
  CHECK(refusal({{"shape", std::vector<int64_t>{1 << 20, 1 << 20}}}) == ErrorCode::BadData);
  CHECK(refusal({{"shape", {2}}, {"dtype", 7}}) == ErrorCode::Unsupported);
}

TEST_CASE("random tensors are refused outside of training, where nobody could say what they should be") {
  CHECK(error_of_op("RandomUniform", {}, {{"shape", {2}}}).code == ErrorCode::Unsupported);
  CHECK(error_of_op("RandomNormalLike", {floats({2}, {0, 0})}).code == ErrorCode::Unsupported);
}

}  // namespace
}  // namespace nibble
