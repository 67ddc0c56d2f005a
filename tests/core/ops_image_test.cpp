// Images, normalisation, quantization: closed forms, loops written out, finite differences.
#include <array>
#include <limits>

#include "core/model/ops/narrow_types.hpp"
#include "ops_support.hpp"

using namespace nibble;
using namespace nibble::test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("Every code of a narrow float comes back, and values between two codes go to the nearer or the even one") {
  for (const DType dtype :
       {DType::Float8E4M3FN, DType::Float8E4M3FNUZ, DType::Float8E5M2, DType::Float8E5M2FNUZ, DType::Float4E2M1}) {
    CAPTURE(std::string(to_string(dtype)));
    const size_t codes = size_t{1} << bits_of(dtype);
    std::vector<uint8_t> bytes(codes * static_cast<size_t>(bits_of(dtype)) / 8);
    for (size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<uint8_t>(bits_of(dtype) == 8 ? i : (2 * i) | ((2 * i + 1) << 4));
    }
    const Tensor all = tensor_of(dtype, {codes}, bytes);
    const std::vector<float> values = ops::widen(all);
    const std::vector<float> back = ops::widen(ops::narrowed(values, dtype, {codes}, false));
    for (size_t i = 0; i < codes; ++i) {
      CAPTURE(i);
      if (std::isnan(values[i])) {
        CHECK(std::isnan(back[i]));
      } else {
        CHECK(same_bits(values[i], back[i]));
      }
    }
    // The positive values ascend with their codes; the one in the middle of two goes to the even code.
    for (size_t i = 0; i + 1 < codes / 2; ++i) {
      if (!std::isfinite(values[i]) || !std::isfinite(values[i + 1])) continue;
      REQUIRE(values[i] < values[i + 1]);
      const float middle = (values[i] + values[i + 1]) / 2;
      const std::vector<float> between = {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, kInfinity),
                                          -middle};
      const std::vector<float> rounded = ops::widen(ops::narrowed(between, dtype, {4}, true));
      const float even = values[i % 2 == 0 ? i : i + 1];
      CHECK(rounded == std::vector<float>{even, values[i], values[i + 1], -even});
    }
  }
  // The largest and the smallest values, from the table of ONNX's float8 page.
  const auto code = [](DType dtype, uint8_t byte) { return ops::widen(tensor_of(dtype, {1}, std::vector{byte}))[0]; };
  CHECK(code(DType::Float8E4M3FN, 0x7E) == 448);
  CHECK(code(DType::Float8E4M3FN, 0x01) == 0x1p-9f);
  CHECK(code(DType::Float8E4M3FNUZ, 0x7F) == 240);
  CHECK(code(DType::Float8E4M3FNUZ, 0x01) == 0x1p-10f);
  CHECK(code(DType::Float8E5M2, 0x7B) == 57344);
  CHECK(code(DType::Float8E5M2, 0xFC) == -kInfinity);
  CHECK(code(DType::Float8E5M2FNUZ, 0x7F) == 57344);
  CHECK(code(DType::Float8E5M2FNUZ, 0x01) == 0x1p-17f);
  CHECK(std::isnan(code(DType::Float8E5M2FNUZ, 0x80)));
}

TEST_CASE("What a narrow type cannot hold saturates, or becomes what its table says") {
  const std::vector<float> wild = {1e6f, -1e6f, kInfinity, -kInfinity, -1e-12f};
  const auto bytes = [&](DType dtype, bool saturate) {
    return values_of<uint8_t>(ops::narrowed(wild, dtype, {5}, saturate));
  };
  using Codes = std::vector<uint8_t>;
  CHECK(bytes(DType::Float8E4M3FN, true) == Codes{0x7E, 0xFE, 0x7E, 0xFE, 0x80});
  CHECK(bytes(DType::Float8E4M3FN, false) == Codes{0x7F, 0xFF, 0x7F, 0xFF, 0x80});
  CHECK(bytes(DType::Float8E4M3FNUZ, true) == Codes{0x7F, 0xFF, 0x7F, 0xFF, 0x00});
  CHECK(bytes(DType::Float8E4M3FNUZ, false) == Codes{0x80, 0x80, 0x80, 0x80, 0x00});
  CHECK(bytes(DType::Float8E5M2, true) == Codes{0x7B, 0xFB, 0x7B, 0xFB, 0x80});
  CHECK(bytes(DType::Float8E5M2, false) == Codes{0x7C, 0xFC, 0x7C, 0xFC, 0x80});
  CHECK(bytes(DType::Float8E5M2FNUZ, false) == Codes{0x80, 0x80, 0x80, 0x80, 0x00});
  CHECK(bytes(DType::Float4E2M1, false) == Codes{0xF7, 0xF7, 0x08});
  CHECK(bytes(DType::Int4, true) == Codes{0x87, 0x87, 0x00});
  CHECK(bytes(DType::UInt2, true) == Codes{0x33, 0x00});

  // Clamped, or the low bits kept; ties to even.
  const std::vector<float> steps = {-9, -8.5f, 7.5f, 2.5f, 1.5f};
  CHECK(ops::widen(ops::narrowed(steps, DType::Int4, {5}, true)) == std::vector<float>{-8, -8, 7, 2, 2});
  CHECK(ops::widen(ops::narrowed(steps, DType::Int4, {5}, false)) == std::vector<float>{7, -8, -8, 2, 2});
  CHECK(ops::widen(ops::narrowed(steps, DType::Int2, {5}, true)) == std::vector<float>{-2, -2, 1, 1, 1});
}

TEST_CASE("float8e8m0 is powers of two, rounded up, down or to the nearer") {
  const std::vector<float> x = {1, 1.1f, 1.5f, 1.49f, 0, 3.4e38f, 0x1p-127f, 0x1.8p-127f};
  const auto powers = [&](ops::PowerRounding rounding) {
    return ops::widen(ops::narrowed(x, DType::Float8E8M0, {x.size()}, true, rounding));
  };
  CHECK(powers(ops::PowerRounding::Up) == std::vector<float>{1, 2, 2, 2, 0x1p-127f, 0x1p127f, 0x1p-127f, 0x1p-126f});
  CHECK(powers(ops::PowerRounding::Down) == std::vector<float>{1, 1, 1, 1, 0x1p-127f, 0x1p127f, 0x1p-127f, 0x1p-127f});
  CHECK(powers(ops::PowerRounding::Nearest) ==
        std::vector<float>{1, 1, 2, 1, 0x1p-127f, 0x1p127f, 0x1p-127f, 0x1p-126f});
}

// --- Convolution -----------------------------------------------------------------------------------------------------

namespace {

/// Conv over three spatial axes, written as its definition: y(o, i) = b(o) + sum x(c, i * stride - pad + k * dilation)
/// w.
struct PlainConv {
  std::array<size_t, 3> in, kernel, stride = {1, 1, 1}, dilation = {1, 1, 1}, begin = {}, end = {};
  size_t images = 1, channels_in = 1, channels_out = 1, groups = 1;

  std::array<size_t, 3> out() const {
    std::array<size_t, 3> made = {};
    for (size_t a = 0; a < 3; ++a) {
      made[a] = (in[a] + begin[a] + end[a] - ((kernel[a] - 1) * dilation[a] + 1)) / stride[a] + 1;
    }
    return made;
  }
  /// Calls visit(index in y, in x, in w) for each product.
  template <class Visit>
  void for_each_product(const Visit& visit) const {
    const std::array<size_t, 3> made = out();
    const size_t per_group = channels_in / groups;
    for (size_t n = 0; n < images; ++n) {
      for (size_t o = 0; o < channels_out; ++o) {
        for (size_t i = 0; i < made[0] * made[1] * made[2]; ++i) {
          const std::array<size_t, 3> at = {i / made[2] / made[1], i / made[2] % made[1], i % made[2]};
          for (size_t c = 0; c < per_group; ++c) {
            for (size_t k = 0; k < kernel[0] * kernel[1] * kernel[2]; ++k) {
              const std::array<size_t, 3> tap = {k / kernel[2] / kernel[1], k / kernel[2] % kernel[1], k % kernel[2]};
              size_t position = (n * channels_in + o / (channels_out / groups) * per_group + c);
              bool inside = true;
              for (size_t a = 0; a < 3; ++a) {
                const auto p =
                    static_cast<int64_t>(at[a] * stride[a] + tap[a] * dilation[a]) - static_cast<int64_t>(begin[a]);
                inside &= p >= 0 && p < static_cast<int64_t>(in[a]);
                position = position * in[a] + static_cast<size_t>(p);
              }
              if (inside) {
                visit((n * channels_out + o) * made[0] * made[1] * made[2] + i, position,
                      (o * per_group + c) * kernel[0] * kernel[1] * kernel[2] + k);
              }
            }
          }
        }
      }
    }
  }
};

void check_close(const Tensor& tensor, const std::vector<double>& expected, double bound) {
  const std::span<const float> values = tensor.data<float>();
  REQUIRE(values.size() == expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    CAPTURE(i);
    CAPTURE(values[i]);
    CAPTURE(expected[i]);
    CHECK(std::fabs(double{values[i]} - expected[i]) <= bound * std::max(1.0, std::fabs(expected[i])));
  }
}

/// Of a few products and sums of numbers about 1.
constexpr double kSumBound = 1e-5;

std::vector<int64_t> last_of(const std::array<size_t, 3>& values, size_t rank) {
  return {values.end() - static_cast<std::ptrdiff_t>(rank), values.end()};
}
Shape shape_of(size_t a, size_t b, const std::array<size_t, 3>& values, size_t rank) {
  Shape shape = {a, b};
  shape.insert(shape.end(), values.end() - static_cast<std::ptrdiff_t>(rank), values.end());
  return shape;
}

/// The cases that Conv and ConvTranspose are tried with: one, two and three axes, strides, dilations, uneven pads,
/// groups, depthwise.
std::vector<std::pair<size_t, PlainConv>> conv_cases() {
  std::vector<std::pair<size_t, PlainConv>> cases;
  cases.push_back(
      {1, {.in = {1, 1, 9}, .kernel = {1, 1, 3}, .stride = {1, 1, 2}, .begin = {0, 0, 2}, .end = {0, 0, 1}}});
  cases.push_back({2, {.in = {1, 7, 6}, .kernel = {1, 3, 2}, .images = 2, .channels_in = 3, .channels_out = 4}});
  cases.push_back({2,
                   {.in = {1, 7, 9},
                    .kernel = {1, 2, 3},
                    .stride = {1, 2, 3},
                    .dilation = {1, 2, 1},
                    .begin = {0, 0, 2},
                    .end = {0, 1, 0},
                    .images = 2,
                    .channels_in = 4,
                    .channels_out = 6,
                    .groups = 2}});
  cases.push_back({2,
                   {.in = {1, 5, 5},
                    .kernel = {1, 3, 3},
                    .begin = {0, 1, 1},
                    .end = {0, 1, 1},
                    .images = 1,
                    .channels_in = 4,
                    .channels_out = 4,
                    .groups = 4}});
  cases.push_back({3,
                   {.in = {4, 5, 3},
                    .kernel = {2, 3, 1},
                    .stride = {2, 1, 1},
                    .dilation = {1, 2, 1},
                    .begin = {1, 1, 0},
                    .end = {0, 2, 1},
                    .images = 2,
                    .channels_in = 4,
                    .channels_out = 2,
                    .groups = 2}});
  return cases;
}

Givens conv_attributes(const PlainConv& plain, size_t rank) {
  std::vector<int64_t> pads = last_of(plain.begin, rank);
  for (const int64_t pad : last_of(plain.end, rank)) pads.push_back(pad);
  return {{"strides", last_of(plain.stride, rank)},
          {"dilations", last_of(plain.dilation, rank)},
          {"pads", pads},
          {"group", static_cast<int64_t>(plain.groups)}};
}

}  // namespace

TEST_CASE("Conv is its definition, over one, two and three axes, and its gradients are those of differences") {
  for (const auto& [rank, plain] : conv_cases()) {
    CAPTURE(rank);
    const size_t per_group = plain.channels_in / plain.groups;
    const Tensor x = random_real(shape_of(plain.images, plain.channels_in, plain.in, rank), 1);
    const Tensor w = random_real(shape_of(plain.channels_out, per_group, plain.kernel, rank), 2, 0.5f);
    const Tensor b = random_real({plain.channels_out}, 3);
    const Shape made = shape_of(plain.images, plain.channels_out, plain.out(), rank);
    std::vector<double> expected(elements_of(made));
    const size_t plane = expected.size() / plain.images / plain.channels_out;
    for (size_t i = 0; i < expected.size(); ++i) expected[i] = double{b.data<float>()[i / plane % plain.channels_out]};
    plain.for_each_product([&](size_t y, size_t in, size_t tap) {
      expected[y] += double{x.data<float>()[in]} * double{w.data<float>()[tap]};
    });
    const Givens attributes = conv_attributes(plain, rank);
    const Tensor y = run_op("Conv", {x, w, b}, attributes)[0];
    CHECK(y.shape() == made);
    check_close(y, expected, kSumBound);
    check_gradients("Conv", {x, w, b}, attributes, {0, 1, 2});
    check_gradients("Conv", {x, w}, attributes, {1});
  }
}

TEST_CASE("ConvTranspose is the transpose of Conv, over one, two and three axes, and so are its gradients") {
  for (const auto& [rank, plain] : conv_cases()) {
    CAPTURE(rank);
    // What is left over by the strides is asked for as output_padding.
    const std::array<size_t, 3> out = plain.out();
    std::vector<int64_t> more;
    for (size_t a = 3 - rank; a < 3; ++a) {
      more.push_back(static_cast<int64_t>(plain.in[a] + plain.begin[a] + plain.end[a] -
                                          ((plain.kernel[a] - 1) * plain.dilation[a] + 1) -
                                          (out[a] - 1) * plain.stride[a]));
    }
    const size_t per_group = plain.channels_in / plain.groups;
    const Tensor x = random_real(shape_of(plain.images, plain.channels_out, out, rank), 1);
    const Tensor w = random_real(shape_of(plain.channels_out, per_group, plain.kernel, rank), 2, 0.5f);
    const Tensor b = random_real({plain.channels_in}, 3);
    const Shape made = shape_of(plain.images, plain.channels_in, plain.in, rank);
    std::vector<double> expected(elements_of(made));
    const size_t plane = expected.size() / plain.images / plain.channels_in;
    for (size_t i = 0; i < expected.size(); ++i) expected[i] = double{b.data<float>()[i / plane % plain.channels_in]};
    plain.for_each_product([&](size_t from, size_t to, size_t tap) {
      expected[to] += double{x.data<float>()[from]} * double{w.data<float>()[tap]};
    });
    Givens attributes = conv_attributes(plain, rank);
    attributes.push_back({"output_padding", more});
    const Tensor y = run_op("ConvTranspose", {x, w, b}, attributes)[0];
    CHECK(y.shape() == made);
    check_close(y, expected, kSumBound);
    check_gradients("ConvTranspose", {x, w, b}, attributes, {0, 1, 2});
  }
}

TEST_CASE("SAME padding gives ceil(in / stride) outputs, the odd pad at the end for UPPER and in front for LOWER") {
  // A kernel of ones counts what of its window lies on an input of ones.
  for (const size_t in : {size_t{5}, size_t{6}, size_t{7}, size_t{11}}) {
    for (const size_t kernel : {size_t{1}, size_t{2}, size_t{3}, size_t{4}}) {
      for (const size_t stride : {size_t{1}, size_t{2}, size_t{3}}) {
        for (const bool upper : {true, false}) {
          const size_t out = (in + stride - 1) / stride;
          const auto total =
              std::max<int64_t>(0, static_cast<int64_t>((out - 1) * stride + kernel) - static_cast<int64_t>(in));
          const int64_t begin = upper ? total / 2 : total - total / 2;
          std::vector<double> expected(out, 0);
          for (size_t i = 0; i < out; ++i) {
            for (size_t k = 0; k < kernel; ++k) {
              const int64_t at = static_cast<int64_t>(i * stride + k) - begin;
              expected[i] += at >= 0 && at < static_cast<int64_t>(in) ? 1 : 0;
            }
          }
          const Tensor x = floats({1, 1, in}, std::vector<float>(in, 1.0f));
          const Tensor w = floats({1, 1, kernel}, std::vector<float>(kernel, 1.0f));
          const Tensor y = run_op("Conv", {x, w},
                                  {{"auto_pad", upper ? "SAME_UPPER" : "SAME_LOWER"},
                                   {"strides", std::vector<int64_t>{static_cast<int64_t>(stride)}}})[0];
          CHECK(y.shape() == Shape{1, 1, out});
          check_close(y, expected, 0);
        }
      }
    }
  }
}

TEST_CASE("A convolution that breaks the rules is an error, not a crash") {
  const Tensor x = random_real({1, 4, 5, 5}, 1), w = random_real({4, 4, 3, 3}, 2);
  const auto fails = [&](const Givens& attributes) { return error_of_op("Conv", {x, w}, attributes).message; };
  CHECK(holds(fails({{"strides", {0, 1}}}), "strides must be at least 1"));
  CHECK(holds(fails({{"strides", {1, -2}}}), "strides must be at least 1"));
  CHECK(holds(fails({{"strides", {1}}}), "must have 2 values"));
  CHECK(holds(fails({{"dilations", {3, 3}}}), "larger than the padded input"));
  CHECK(holds(fails({{"dilations", std::vector<int64_t>{INT64_MAX, 1}}}), "dilations must be at least 1"));
  CHECK(holds(fails({{"dilations", std::vector<int64_t>{INT32_MAX, 1}}}), "larger than the padded input"));
  CHECK(holds(fails({{"pads", {-9, -9, 0, 0}}}), "must not be negative"));
  CHECK(holds(fails({{"pads", std::vector<int64_t>{INT64_MAX, 0, 0, 0}}}), "too large"));
  CHECK(holds(fails({{"pads", {1000, 0, 0, 0}}}), "a pad of 1000"));
  CHECK(holds(fails({{"pads", {1, 1}}}), "must have 4 values"));
  CHECK(holds(fails({{"group", 0}}), "group must be at least 1"));
  CHECK(holds(fails({{"group", 3}}), "does not fit"));
  CHECK(holds(fails({{"group", std::vector<int64_t>{INT64_MIN, 0}}}), "unexpected type"));
  CHECK(holds(fails({{"kernel_shape", {2, 2}}}), "kernel_shape"));
  CHECK(holds(fails({{"auto_pad", "SOMEHOW"}}), "auto_pad"));
  CHECK(holds(error_of_op("Conv", {x, random_real({4, 4, 6, 3}, 2)}).message, "larger than the padded input"));
  CHECK(holds(error_of_op("Conv", {x, random_real({4, 3, 3, 3}, 2)}).message, "does not fit"));
  CHECK(holds(error_of_op("Conv", {x, random_real({4, 4, 3}, 2)}).message, "same rank"));
  CHECK(holds(error_of_op("Conv", {x, random_real({4, 4, 0, 3}, 2)}).message, "no elements"));
  CHECK(holds(error_of_op("Conv", {x, w, random_real({3}, 2)}).message, "bias"));
  CHECK(holds(error_of_op("Conv", {integers({1}), w}).message, "real numbers"));
  CHECK(error_of_op("Conv", {random_real({1, 1, 2, 2, 2, 2}, 1), random_real({1, 1, 1, 1, 1, 1}, 1)}).code ==
        ErrorCode::Unsupported);
  const auto transposed = [&](const Givens& attributes) {
    return error_of_op("ConvTranspose", {x, w}, attributes).message;
  };
  CHECK(holds(transposed({{"pads", {4, 4, 4, 4}}}), "leave nothing"));
  CHECK(holds(transposed({{"output_padding", {1, 0}}}), "output_padding"));
  CHECK(holds(transposed({{"output_shape", std::vector<int64_t>{INT64_MAX, 5}}}), "output_shape asks"));
  CHECK(holds(transposed({{"output_shape", {0, 5}}}), "leave nothing"));
  CHECK(holds(transposed({{"group", 3}}), "does not fit"));
  // An empty batch is no error.
  CHECK(run_op("Conv", {random_real({0, 4, 5, 5}, 1), w})[0].shape() == Shape{0, 4, 3, 3});
}

TEST_CASE("The integer convolutions are their definition in whole numbers") {
  const PlainConv plain = {.in = {1, 6, 7},
                           .kernel = {1, 3, 2},
                           .stride = {1, 2, 3},
                           .dilation = {1, 1, 2},
                           .begin = {0, 1, 0},
                           .end = {0, 0, 2},
                           .images = 2,
                           .channels_in = 4,
                           .channels_out = 2,
                           .groups = 2};
  Random random{5};
  const auto bytes = [&](const Shape& shape, DType dtype) {
    std::vector<uint8_t> values(elements_of(shape));
    for (uint8_t& value : values) value = static_cast<uint8_t>(random.bits());
    return tensor_of(dtype, shape, values);
  };
  const Tensor x = bytes({2, 4, 6, 7}, DType::UInt8), w = bytes({2, 2, 3, 2}, DType::Int8);
  const Tensor x_zero = tensor_of<uint8_t>(DType::UInt8, {}, {131});
  const Tensor w_zero = tensor_of<int8_t>(DType::Int8, {2}, {5, -7});
  const Shape made = {2, 2, plain.out()[1], plain.out()[2]};
  std::vector<int32_t> sums(elements_of(made), 0);
  plain.for_each_product([&](size_t y, size_t in, size_t tap) {
    sums[y] += (x.data<uint8_t>()[in] - 131) * (w.data<int8_t>()[tap] - (tap < 12 ? 5 : -7));
  });
  const Tensor y = run_op("ConvInteger", {x, w, x_zero, w_zero}, conv_attributes(plain, 2))[0];
  CHECK(y.shape() == made);
  CHECK(values_of<int32_t>(y) == sums);

  const std::vector<float> w_scale = {0.02f, 0.03f};
  const std::vector<int32_t> bias = {1000, -300};
  const Tensor q = run_op("QLinearConv",
                          {x, floats({}, {0.01f}), x_zero, w, floats({2}, w_scale), w_zero, floats({}, {0.05f}),
                           tensor_of<int8_t>(DType::Int8, {}, {3}), tensor_of(DType::Int32, {2}, bias)},
                          conv_attributes(plain, 2))[0];
  REQUIRE(q.dtype() == DType::Int8);
  const size_t plane = made[2] * made[3];
  for (size_t i = 0; i < sums.size(); ++i) {
    const size_t channel = i / plane % 2;
    const double real = (sums[i] + bias[channel]) * 0.01 * double{w_scale[channel]} / 0.05;
    const double expected = std::clamp(real + 3, -128.0, 127.0);
    CHECK(std::fabs(q.data<int8_t>()[i] - expected) <= 0.501);
  }
}

// --- Pools -----------------------------------------------------------------------------------------------------------

namespace {

enum class PoolKind { Max, Average, AverageWithPads, Lp };

/// Pools as their definition, from the description of a convolution of one channel. Of a window that ceil_mode lets
/// reach beyond the pads, what lies there counts for nothing.
std::vector<double> plain_pool(const PlainConv& plain, PoolKind kind, const std::array<size_t, 3>& out, const float* x,
                               size_t planes, double p = 2) {
  std::vector<double> made;
  for (size_t plane = 0; plane < planes; ++plane) {
    for (size_t i = 0; i < out[0] * out[1] * out[2]; ++i) {
      const std::array<size_t, 3> at = {i / out[2] / out[1], i / out[2] % out[1], i % out[2]};
      double best = -1e30, sum = 0, powers = 0;
      size_t inside = 0, padded = 0;
      for (size_t k = 0; k < plain.kernel[0] * plain.kernel[1] * plain.kernel[2]; ++k) {
        const std::array<size_t, 3> tap = {k / plain.kernel[2] / plain.kernel[1], k / plain.kernel[2] % plain.kernel[1],
                                           k % plain.kernel[2]};
        bool on_x = true, on_pad = true;
        size_t position = plane;
        for (size_t a = 0; a < 3; ++a) {
          const size_t from_pad = at[a] * plain.stride[a] + tap[a] * plain.dilation[a];
          on_pad &= from_pad < plain.in[a] + plain.begin[a] + plain.end[a];
          on_x &= from_pad >= plain.begin[a] && from_pad < plain.begin[a] + plain.in[a];
          position = position * plain.in[a] + from_pad - plain.begin[a];
        }
        padded += on_pad;
        if (!on_x) continue;
        ++inside;
        const double value = double{x[position]};
        best = std::max(best, value);
        sum += value;
        powers += std::pow(std::fabs(value), p);
      }
      if (kind == PoolKind::Max) made.push_back(best);
      if (kind == PoolKind::Average) made.push_back(sum / static_cast<double>(inside));
      if (kind == PoolKind::AverageWithPads) made.push_back(sum / static_cast<double>(padded));
      if (kind == PoolKind::Lp) made.push_back(std::pow(powers, 1 / p));
    }
  }
  return made;
}

/// Distinct numbers, far enough apart that a difference of a step does not change which is the largest.
Tensor shuffled(const Shape& shape, uint64_t seed) {
  const size_t count = elements_of(shape);
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = 0.1f * static_cast<float>(i) - 0.05f * static_cast<float>(count);
  Random random{seed};
  for (size_t i = count; i > 1; --i) std::swap(values[i - 1], values[random.below(i)]);
  return floats(shape, values);
}

}  // namespace

TEST_CASE("Pools are their definitions over one, two and three axes, with ceil_mode, dilations and uneven pads") {
  struct Case {
    size_t rank;
    PlainConv plain;
    bool ceil_mode;
    std::array<size_t, 3> out;
  };
  const std::vector<Case> cases = {
      {1, {.in = {1, 1, 9}, .kernel = {1, 1, 3}, .stride = {1, 1, 2}, .begin = {0, 0, 1}}, false, {1, 1, 4}},
      {1, {.in = {1, 1, 9}, .kernel = {1, 1, 3}, .stride = {1, 1, 2}, .begin = {0, 0, 1}}, true, {1, 1, 5}},
      {2,
       {.in = {1, 5, 7}, .kernel = {1, 3, 3}, .stride = {1, 2, 2}, .begin = {0, 1, 1}, .end = {0, 1, 1}},
       false,
       {1, 3, 4}},
      // (6 - 3) / 2 is 1.5: two windows, with ceil_mode three; along the other axis a fourth would begin in the
      // padding.
      {2, {.in = {1, 6, 7}, .kernel = {1, 3, 2}, .stride = {1, 2, 3}, .end = {0, 0, 1}}, true, {1, 3, 3}},
      {2,
       {.in = {1, 7, 8}, .kernel = {1, 2, 3}, .dilation = {1, 3, 2}, .begin = {0, 1, 0}, .end = {0, 0, 2}},
       false,
       {1, 5, 6}},
      {3,
       {.in = {4, 5, 6}, .kernel = {2, 3, 2}, .stride = {2, 2, 3}, .begin = {1, 0, 0}, .end = {0, 1, 1}},
       true,
       {3, 3, 2}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.rank);
    CAPTURE(c.ceil_mode);
    const Tensor x = shuffled(shape_of(2, 2, c.plain.in, c.rank), 3);
    const Shape made = shape_of(2, 2, c.out, c.rank);
    Givens attributes = conv_attributes(c.plain, c.rank);
    attributes.pop_back();
    attributes.push_back({"kernel_shape", last_of(c.plain.kernel, c.rank)});
    attributes.push_back({"ceil_mode", c.ceil_mode ? 1 : 0});
    const auto plain = [&](PoolKind kind, double p = 2) {
      return plain_pool(c.plain, kind, c.out, x.data<float>().data(), 4, p);
    };
    const auto check = [&](const char* op, const Givens& given, const std::vector<double>& expected) {
      const Tensor y = run_op(op, {x}, given)[0];
      REQUIRE(y.shape() == made);
      check_close(y, expected, kSumBound);
    };
    check("MaxPool", attributes, plain(PoolKind::Max));
    check("AveragePool", attributes, plain(PoolKind::Average));
    Givens with_pads = attributes, cubes = attributes;
    with_pads.push_back({"count_include_pad", 1});
    cubes.push_back({"p", 3});
    check("AveragePool", with_pads, plain(PoolKind::AverageWithPads));
    check("LpPool", attributes, plain(PoolKind::Lp));
    check("LpPool", cubes, plain(PoolKind::Lp, 3));
    check_gradients("MaxPool", {x}, attributes, {0});
    check_gradients("MaxPool", {x}, attributes, {0}, {.training = false});
    check_gradients("AveragePool", {x}, attributes, {0});
    check_gradients("AveragePool", {x}, with_pads, {0});
  }
}

TEST_CASE("MaxPool's indices say where, row-major or column-major, and MaxUnpool puts the values back there") {
  const Tensor x = shuffled({2, 3, 4, 6}, 8);
  for (const int64_t order : {0, 1}) {
    const std::vector<Tensor> made =
        run_op("MaxPool", {x}, {{"kernel_shape", {2, 2}}, {"strides", {2, 2}}, {"storage_order", order}}, 12, 2);
    REQUIRE(made.size() == 2);
    const std::span<const float> y = made[0].data<float>();
    for (size_t i = 0; i < y.size(); ++i) {
      const auto at = static_cast<size_t>(made[1].data<int64_t>()[i]);
      const size_t plane = at / 24, within = at % 24;
      const size_t row_major = order == 0 ? within : within % 4 * 6 + within / 4;
      CHECK(x.data<float>()[plane * 24 + row_major] == y[i]);
    }
    if (order == 1) continue;
    const Tensor back = run_op("MaxUnpool", {made[0], made[1]}, {{"kernel_shape", {2, 2}}, {"strides", {2, 2}}}, 11)[0];
    REQUIRE(back.shape() == x.shape());
    size_t kept = 0;
    for (size_t i = 0; i < back.elements(); ++i) {
      const float value = back.data<float>()[i];
      if (value == 0) continue;
      CHECK(value == x.data<float>()[i]);
      ++kept;
    }
    CHECK(kept == y.size());
  }
  // Whole numbers stay whole numbers.
  const Tensor bytes = tensor_of<int8_t>(DType::Int8, {1, 1, 4}, {-5, -9, 3, -128});
  const Tensor most = run_op("MaxPool", {bytes}, {{"kernel_shape", {2}}}, 12)[0];
  CHECK(values_of<int8_t>(most) == std::vector<int8_t>{-5, 3, 3});
  const Tensor outside = tensor_of<int64_t>(DType::Int64, {1, 1, 1, 1}, {16});
  CHECK(holds(error_of_op("MaxUnpool", {floats({1, 1, 1, 1}, {1}), outside}, {{"kernel_shape", {4, 4}}}).message,
              "outside"));
}

TEST_CASE("A pool that breaks the rules is an error, not a crash") {
  const Tensor x = random_real({1, 2, 5, 5}, 1);
  const auto fails = [&](const Givens& attributes) { return error_of_op("MaxPool", {x}, attributes).message; };
  CHECK(holds(fails({}), "kernel_shape"));
  CHECK(holds(fails({{"kernel_shape", {0, 2}}}), "kernel_shape must be at least 1"));
  CHECK(holds(fails({{"kernel_shape", {6, 6}}}), "larger than the padded input"));
  CHECK(holds(fails({{"kernel_shape", {2, 2}}, {"strides", {0, 1}}}), "strides"));
  CHECK(holds(fails({{"kernel_shape", {2, 2}}, {"pads", {3, 0, 0, 0}}}), "wholly in the padding"));
  CHECK(
      holds(fails({{"kernel_shape", {2, 2}}, {"dilations", {7, 1}}, {"pads", {2, 0, 4, 0}}}), "wholly in the padding"));
  CHECK(holds(error_of_op("AveragePool", {x}, {{"kernel_shape", {2, 2}}, {"pads", {3, 0, 0, 0}}}).message,
              "wholly in the padding"));
  CHECK(holds(error_of_op("LpPool", {x}, {{"kernel_shape", {2, 2}}, {"p", 0}}).message, "p must be"));
  CHECK(holds(error_of_op("MaxPool", {random_real({1, 2, 0, 5}, 1)}, {{"kernel_shape", {1, 1}}}).message,
              "without elements"));
  CHECK(holds(error_of_op("GlobalAveragePool", {random_real({1, 2, 0}, 1)}).message, "without elements"));
}

TEST_CASE("The global pools are means, largest elements and norms of planes") {
  const Tensor x = shuffled({2, 3, 4, 5}, 4);
  const auto expected = [&](auto reduce) {
    std::vector<double> made;
    for (size_t plane = 0; plane < 6; ++plane) made.push_back(reduce(x.data<float>().subspan(plane * 20, 20)));
    return made;
  };
  check_close(run_op("GlobalAveragePool", {x})[0], expected([](auto values) {
                double sum = 0;
                for (const float v : values) sum += double{v};
                return sum / 20;
              }),
              kSumBound);
  check_close(run_op("GlobalMaxPool", {x})[0],
              expected([](auto values) { return double{*std::max_element(values.begin(), values.end())}; }), 0);
  check_close(run_op("GlobalLpPool", {x}, {{"p", 1}})[0], expected([](auto values) {
                double sum = 0;
                for (const float v : values) sum += std::fabs(double{v});
                return sum;
              }),
              kSumBound);
  CHECK(run_op("GlobalAveragePool", {x})[0].shape() == Shape{2, 3, 1, 1});
  check_gradients("GlobalAveragePool", {x}, {}, {0});
  check_gradients("GlobalMaxPool", {x}, {}, {0});
}

// --- Resizing --------------------------------------------------------------------------------------------------------

TEST_CASE(
    "Resize keeps a straight line straight, whatever the coordinates, and its gradients are those of differences") {
  // Linear interpolation, and cubic with a = -1/2 (Keys 1981), reproduce x = i, away from the ends, where x is the
  // source coordinate.
  std::vector<float> ramp(16);
  for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<float>(i);
  const Tensor x = floats({1, 1, 16}, ramp);
  for (const char* mode : {"linear", "cubic"}) {
    CAPTURE(std::string(mode));
    const auto check = [&](const char* coordinates, size_t out, auto source) {
      CAPTURE(std::string(coordinates));
      const Tensor y =
          run_op("Resize", {x, Tensor(), Tensor(), integers({1, 1, static_cast<int64_t>(out)})},
                 {{"mode", mode}, {"cubic_coeff_a", -0.5f}, {"coordinate_transformation_mode", coordinates}}, 19)[0];
      REQUIRE(y.shape() == Shape{1, 1, out});
      for (size_t i = 0; i < out; ++i) {
        const double at = source(static_cast<double>(i));
        if (at < 2 || at > 13) continue;
        CHECK(std::fabs(double{y.data<float>()[i]} - at) < 1e-4);
      }
    };
    for (const size_t out : {size_t{11}, size_t{24}, size_t{16}}) {
      const double scale = static_cast<double>(out) / 16;
      check("half_pixel", out, [&](double i) { return (i + 0.5) / scale - 0.5; });
      check("half_pixel_symmetric", out, [&](double i) { return (i + 0.5) / scale - 0.5; });
      check("pytorch_half_pixel", out, [&](double i) { return (i + 0.5) / scale - 0.5; });
      check("asymmetric", out, [&](double i) { return i / scale; });
      check("align_corners", out, [&](double i) { return i * 15 / (static_cast<double>(out) - 1); });
    }
  }
  const Tensor image = random_real({1, 2, 5, 4}, 3);
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    for (const auto& size : {std::vector<int64_t>{1, 2, 8, 3}, {1, 2, 3, 9}}) {
      check_gradients("Resize", {image, Tensor(), Tensor(), integers(size)}, {{"mode", mode}}, {0}, {.opset = 19});
    }
  }
  check_gradients("Resize",
                  {image, floats({8}, {0, 0, 0.1f, -0.2f, 1, 1, 0.8f, 0.9f}), Tensor(), integers({1, 2, 6, 6})},
                  {{"mode", "linear"}, {"coordinate_transformation_mode", "tf_crop_and_resize"}}, {0}, {.opset = 19});
  check_gradients("Upsample", {image, floats({4}, {1, 1, 2, 3})}, {{"mode", "nearest"}}, {0}, {.opset = 9});
  check_gradients("Resize", {image, Tensor(), floats({2}, {0.5f, 0.7f})},
                  {{"mode", "linear"}, {"antialias", 1}, {"axes", {2, 3}}}, {0}, {.opset = 19});
}

TEST_CASE("Upsample and the first Resize repeat pixels") {
  const Tensor x = floats({1, 1, 2, 2}, {1, 2, 3, 4});
  const std::vector<float> doubled = {1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4};
  const std::vector<float> scales = {1, 1, 2, 2};
  CHECK(values_of(run_op("Upsample", {x}, {{"scales", scales}}, 7)[0]) == doubled);
  CHECK(values_of(run_op("Upsample", {x, floats({4}, scales)}, {}, 9)[0]) == doubled);
  CHECK(values_of(run_op("Resize", {x, floats({4}, scales)}, {}, 10)[0]) == doubled);
  CHECK(values_of(run_op("Upsample", {x}, {{"height_scale", 2.0f}, {"width_scale", 2.0f}}, 1)[0]) == doubled);
  // Whole numbers too, and whatever else has a width.
  const Tensor bytes = tensor_of<uint8_t>(DType::UInt8, {1, 1, 1, 2}, {7, 250});
  CHECK(values_of<uint8_t>(run_op("Resize", {bytes, Tensor(), floats({4}, {1, 1, 1, 2})}, {{"mode", "nearest"}},
                                  13)[0]) == std::vector<uint8_t>{7, 7, 250, 250});
  CHECK(values_of<uint8_t>(run_op("Resize", {bytes, Tensor(), floats({4}, {1, 1, 1, 2})}, {{"mode", "linear"}},
                                  13)[0]) == std::vector<uint8_t>{7, 67, 189, 250});
}

TEST_CASE("A resize that breaks the rules is an error, not a crash") {
  const Tensor x = random_real({1, 1, 4, 4}, 1);
  const auto scaled = [&](const std::vector<float>& scales, const Givens& attributes = {}) {
    return error_of_op("Resize", {x, Tensor(), floats({scales.size()}, scales)}, attributes, 19).message;
  };
  CHECK(holds(scaled({1, 1, 0, 1}), "a scale of"));
  CHECK(holds(scaled({1, 1, -1, 1}), "a scale of"));
  CHECK(holds(scaled({1, 1, std::nanf(""), 1}), "a scale of"));
  CHECK(holds(scaled({1, 1, kInfinity, 1}), "a scale of"));
  CHECK(holds(scaled({1, 1, 1e30f, 1}), "a scale of"));
  CHECK(holds(scaled({1, 1, 0.1f, 1}), "nothing is left"));
  CHECK(holds(scaled({1, 1, 1}), "for 4 axes"));
  CHECK(holds(scaled({1, 1, 1, 2}, {{"mode", "round"}}), "mode must be"));
  CHECK(holds(scaled({1, 1, 1, 2}, {{"coordinate_transformation_mode", "tf_crop_and_resize"}}), "roi"));
  CHECK(holds(scaled({1, 1, 1, 2}, {{"coordinate_transformation_mode", "somehow"}}), "is not known"));
  CHECK(holds(scaled({1, 1, 1, 2}, {{"axes", {0, 1, 2, 9}}}), "axis 9"));
  CHECK(holds(scaled({1, 1, 1, 2}, {{"axes", {0, 1, 2, 2}}}), "named twice"));
  CHECK(holds(error_of_op("Resize", {x}, {}, 19).message, "scales and sizes"));
  const auto sized = [&](const std::vector<int64_t>& sizes) {
    return error_of_op("Resize", {x, Tensor(), Tensor(), integers(sizes)}, {}, 19);
  };
  CHECK(holds(sized({1, 1, -4, 4}).message, "a size of"));
  CHECK(holds(sized({1, 1, INT64_MAX, 4}).message, "a size of"));
  CHECK(holds(sized({1, 1, 0, 4}).message, "nothing is left"));
}

TEST_CASE("A grid that AffineGrid makes of the identity samples the image itself") {
  for (const int64_t align : {0, 1}) {
    for (const size_t rank : {size_t{2}, size_t{3}}) {
      Shape shape = {2, 3, 4, 5};
      std::vector<float> one = {1, 0, 0, 0, 1, 0};
      if (rank == 3) {
        shape.push_back(3);
        one = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
      }
      std::vector<float> theta = one;
      theta.insert(theta.end(), one.begin(), one.end());
      const Tensor x = random_real(shape, 2);
      const std::vector<int64_t> size(shape.begin(), shape.end());
      const Tensor grid =
          run_op("AffineGrid", {floats({2, rank, rank + 1}, theta), integers(size)}, {{"align_corners", align}}, 20)[0];
      for (const char* mode : {"linear", "nearest", "cubic"}) {
        for (const char* padding : {"zeros", "border", "reflection"}) {
          const Tensor y = run_op("GridSample", {x, grid},
                                  {{"mode", mode}, {"padding_mode", padding}, {"align_corners", align}}, 20)[0];
          const std::vector<float> values = values_of(x);
          check_close(y, {values.begin(), values.end()}, 1e-5);
        }
      }
    }
  }
  // Beyond the border, and where the grid is no number at all.
  const Tensor x = floats({1, 1, 1, 2}, {3, 5});
  const Tensor wild = floats({1, 1, 4, 2}, {9, 0, -kInfinity, 0, std::nanf(""), 0, 1e38f, 0});
  CHECK(values_of(run_op("GridSample", {x, wild}, {{"mode", "nearest"}}, 20)[0]) == std::vector<float>{0, 0, 0, 0});
  const std::vector<float> at_border =
      values_of(run_op("GridSample", {x, wild}, {{"mode", "linear"}, {"padding_mode", "border"}}, 20)[0]);
  CHECK(at_border[0] == 5);
  CHECK(at_border[1] == 3);
}

TEST_CASE("Pixels move between space and depth and back") {
  const Tensor x = random_real({2, 8, 4, 6}, 1);
  const Tensor deep = run_op("SpaceToDepth", {x}, {{"blocksize", 2}}, 13)[0];
  CHECK(deep.shape() == Shape{2, 32, 2, 3});
  CHECK(values_of(run_op("DepthToSpace", {deep}, {{"blocksize", 2}}, 13)[0]) == values_of(x));
  // CRD, PyTorch's pixel shuffle: out(n, c, h b + i, w b + j) = x(n, c b b + i b + j, h, w).
  const Tensor wide = run_op("DepthToSpace", {x}, {{"blocksize", 2}, {"mode", "CRD"}}, 13)[0];
  REQUIRE(wide.shape() == Shape{2, 2, 8, 12});
  for (size_t i = 0; i < wide.elements(); ++i) {
    const size_t column = i % 12, row = i / 12 % 8, channel = i / 96 % 2, image = i / 192;
    const size_t from = ((image * 8 + channel * 4 + row % 2 * 2 + column % 2) * 4 + row / 2) * 6 + column / 2;
    CHECK(wide.data<float>()[i] == x.data<float>()[from]);
  }
  for (const char* mode : {"DCR", "CRD"}) {
    check_gradients("DepthToSpace", {x}, {{"blocksize", 2}, {"mode", mode}}, {0}, {.opset = 13});
  }
  check_gradients("SpaceToDepth", {x}, {{"blocksize", 2}}, {0}, {.opset = 13});
  CHECK(holds(error_of_op("DepthToSpace", {x}, {{"blocksize", 3}}).message, "not a multiple"));
  CHECK(holds(error_of_op("DepthToSpace", {x}, {{"blocksize", 0}}).message, "blocksize"));
  CHECK(holds(error_of_op("SpaceToDepth", {x}, {{"blocksize", 5}}).message, "cut into blocks"));
}

TEST_CASE("Col2Im adds what overlaps, crops and pads are centred, and old operators scale") {
  // One channel, windows of 2 on an image of 4: the inner pixels lie in two windows.
  const Tensor columns = floats({1, 2, 3}, {1, 2, 3, 10, 20, 30});
  CHECK(values_of(run_op("Col2Im", {columns, integers({4}), integers({2})}, {}, 18)[0]) ==
        std::vector<float>{1, 12, 23, 30});
  CHECK(holds(error_of_op("Col2Im", {columns, integers({5}), integers({2})}, {}, 18).message, "fit on the image"));
  CHECK(holds(error_of_op("Col2Im", {columns, integers({4}), integers({0})}, {}, 18).message, "a block of 0"));

  const Tensor x = tensor_of<int32_t>(DType::Int32, {5}, {1, 2, 3, 4, 5});
  CHECK(values_of<int32_t>(run_op("CenterCropPad", {x, integers({3})}, {}, 18)[0]) == std::vector<int32_t>{2, 3, 4});
  CHECK(values_of<int32_t>(run_op("CenterCropPad", {x, integers({2})}, {}, 18)[0]) == std::vector<int32_t>{2, 3});
  CHECK(values_of<int32_t>(run_op("CenterCropPad", {x, integers({8})}, {}, 18)[0]) ==
        std::vector<int32_t>{0, 1, 2, 3, 4, 5, 0, 0});
  CHECK(holds(error_of_op("CenterCropPad", {x, integers({-1})}, {}, 18).message, "an extent of -1"));

  const Tensor image = floats({1, 2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(values_of(run_op("Crop", {image}, {{"border", {1, 0, 0, 1}}}, 1)[0]) == std::vector<float>{2, 6});
  CHECK(values_of(run_op("Crop", {image}, {{"border", {0, 1, 0, 0}}, {"scale", {1, 1}}}, 1)[0]) ==
        std::vector<float>{3, 7});
  CHECK(holds(error_of_op("Crop", {image}, {{"border", {1, 1, 1, 1}}}, 1).message, "leave nothing"));
  CHECK(values_of(run_op("ImageScaler", {image}, {{"scale", 2.0f}, {"bias", std::vector<float>{1, -1}}}, 1)[0]) ==
        std::vector<float>{3, 5, 7, 9, 9, 11, 13, 15});
  CHECK(values_of(run_op("Affine", {floats({2}, {1, 2})}, {{"alpha", 3.0f}, {"beta", 1.0f}}, 1)[0]) ==
        std::vector<float>{4, 7});
}

TEST_CASE("LRN is its formula, and its gradient that of differences") {
  const Tensor x = random_real({2, 7, 2, 3}, 6);
  for (const int64_t size : {1, 3, 4, 9}) {
    for (const float beta : {0.75f, 0.5f, 1.0f, 0.6f}) {
      std::vector<double> expected;
      for (size_t i = 0; i < x.elements(); ++i) {
        const auto channel = static_cast<int64_t>(i / 6 % 7);
        double sum = 0;
        for (int64_t c = std::max<int64_t>(0, channel - (size - 1) / 2); c <= std::min<int64_t>(6, channel + size / 2);
             ++c) {
          sum +=
              std::pow(double{x.data<float>()[i + static_cast<size_t>(c) * 6 - static_cast<size_t>(channel) * 6]}, 2);
        }
        expected.push_back(double{x.data<float>()[i]} /
                           std::pow(1.5 + 0.4 / static_cast<double>(size) * sum, double{beta}));
      }
      const Givens attributes = {{"size", size}, {"alpha", 0.4f}, {"beta", beta}, {"bias", 1.5f}};
      check_close(run_op("LRN", {x}, attributes, 13)[0], expected, 1e-5);
      check_gradients("LRN", {x}, attributes, {0}, {.opset = 13});
    }
  }
  CHECK(holds(error_of_op("LRN", {x}, {{"size", 0}}).message, "size must be"));
}

// --- Normalisation ---------------------------------------------------------------------------------------------------

TEST_CASE("BatchNormalization takes the running statistics, in training the batch's, and moves the running ones") {
  const Tensor x = random_real({3, 4, 2, 5}, 1, 2.0f);
  const Tensor scale = random_real({4}, 2), bias = random_real({4}, 3), mean = random_real({4}, 4);
  const Tensor variance = floats({4}, {0.5f, 1, 2, 0.1f});
  const std::vector<Tensor> inputs = {x, scale, bias, mean, variance};
  const auto at = [](const Tensor& t, size_t i) { return double{t.data<float>()[i]}; };
  std::vector<double> expected, trained, means(4), variances(4);
  for (size_t i = 0; i < x.elements(); ++i) means[i / 10 % 4] += at(x, i) / 30;
  for (size_t i = 0; i < x.elements(); ++i) variances[i / 10 % 4] += std::pow(at(x, i) - means[i / 10 % 4], 2) / 30;
  for (size_t i = 0; i < x.elements(); ++i) {
    const size_t c = i / 10 % 4;
    expected.push_back((at(x, i) - at(mean, c)) / std::sqrt(at(variance, c) + 1e-3) * at(scale, c) + at(bias, c));
    trained.push_back((at(x, i) - means[c]) / std::sqrt(variances[c] + 1e-3) * at(scale, c) + at(bias, c));
  }
  const Givens attributes = {{"epsilon", 1e-3f}, {"momentum", 0.8f}};
  for (const int64_t opset : {7, 9, 14, 15}) {
    check_close(run_op("BatchNormalization", inputs, attributes, opset)[0], expected, 1e-5);
    check_gradients("BatchNormalization", inputs, attributes, {0, 1, 2}, {.opset = opset});
    check_gradients("BatchNormalization", inputs, attributes, {0, 1, 2}, {.opset = opset, .training = false});
  }
  check_close(run_op("BatchNormalization", inputs,
                     {{"epsilon", 1e-3f}, {"is_test", 1}, {"consumed_inputs", {0, 0, 0, 1, 1}}}, 1)[0],
              expected, 1e-5);

  Givens mode = attributes;
  mode.push_back({"training_mode", 1});
  const std::vector<Tensor> made = run_op("BatchNormalization", inputs, mode, 15, 3);
  REQUIRE(made.size() == 3);
  check_close(made[0], trained, 1e-5);
  std::vector<double> new_mean, new_variance;
  for (size_t c = 0; c < 4; ++c) {
    new_mean.push_back(0.8 * at(mean, c) + 0.2 * means[c]);
    new_variance.push_back(0.8 * at(variance, c) + 0.2 * variances[c]);
  }
  check_close(made[1], new_mean, 1e-5);
  check_close(made[2], new_variance, 1e-5);

  // The inference form, trained: the statistics come out as saved, by the table's word.
  const Alone alone("BatchNormalization", inputs, attributes, 9, 1, "");
  ops::Call call = alone.call(inputs);
  call.training = true;
  check_close(alone.op->forward(call)[0], trained, 1e-5);
  REQUIRE(alone.op->running.size() == 2);
  for (const auto& [input, saved] : alone.op->running) {
    check_close(call.saved[saved], input == 3 ? new_mean : new_variance, 1e-5);
  }
  CHECK(holds(error_of_op("BatchNormalization", {x, scale, bias, mean, floats({3}, {1, 1, 1})}).message, "4 values"));
  CHECK(holds(error_of_op("BatchNormalization", inputs, {{"epsilon", -1.0f}}).message, "epsilon"));
}

TEST_CASE("A large mean does not spoil a normalisation") {
  // 4096 + k / 16 is exact in float32; the variance is that of k / 16.
  std::vector<float> values;
  for (size_t i = 0; i < 32; ++i) values.push_back(4096 + static_cast<float>(i) / 16);
  double variance = 0;
  for (size_t i = 0; i < 32; ++i) variance += std::pow((static_cast<double>(i) - 15.5) / 16, 2) / 32;
  std::vector<double> expected;
  for (size_t i = 0; i < 32; ++i) expected.push_back((static_cast<double>(i) - 15.5) / 16 / std::sqrt(variance + 1e-5));
  const Tensor one = floats({1}, {1}), zero = floats({1}, {0});
  check_close(run_op("LayerNormalization", {floats({1, 32}, values), one})[0], expected, 1e-4);
  check_close(run_op("InstanceNormalization", {floats({1, 1, 32}, values), one, zero})[0], expected, 1e-4);
  check_close(
      run_op("BatchNormalization", {floats({32, 1}, values), one, zero, zero, one}, {{"training_mode", 1}}, 15, 3)[0],
      expected, 1e-4);
}

TEST_CASE("Layer, RMS, instance and group normalisation are their formulas, and their gradients those of differences") {
  const Tensor x = random_real({2, 6, 3, 4}, 1, 1.5f);
  const auto at = [](const Tensor& t, size_t i) { return double{t.data<float>()[i]}; };
  /// Rows of `size`; `which` gives each element's scale.
  const auto normalised = [&](size_t size, bool centred, auto which, const Tensor& scale, const Tensor& bias) {
    std::vector<double> made;
    for (size_t row = 0; row < x.elements() / size; ++row) {
      double mean = 0, squares = 0;
      for (size_t i = 0; i < size && centred; ++i) mean += at(x, row * size + i) / static_cast<double>(size);
      for (size_t i = 0; i < size; ++i)
        squares += std::pow(at(x, row * size + i) - mean, 2) / static_cast<double>(size);
      for (size_t i = row * size; i < (row + 1) * size; ++i) {
        made.push_back((at(x, i) - mean) / std::sqrt(squares + 1e-2) * at(scale, which(i)) +
                       (bias.exists() ? at(bias, which(i)) : 0));
      }
    }
    return made;
  };
  const Givens epsilon = {{"epsilon", 1e-2f}};
  const std::vector<std::pair<int64_t, Shape>> layers = {{-1, {4}}, {2, {3, 4}}, {1, {6, 3, 4}}, {3, {1, 1, 1, 4}}};
  for (const auto& [axis, shape] : layers) {
    const size_t size = elements_of(shape);
    const Tensor scale = random_real(shape, 2), bias = random_real(shape, 3);
    const auto which = [&](size_t i) { return i % size; };
    const Givens attributes = {{"axis", axis}, {"epsilon", 1e-2f}};
    const std::vector<Tensor> made = run_op("LayerNormalization", {x, scale, bias}, attributes, 17, 3);
    REQUIRE(made.size() == 3);
    check_close(made[0], normalised(size, true, which, scale, bias), 1e-5);
    CHECK(made[1].elements() == x.elements() / size);
    CHECK(made[1].shape() == made[2].shape());
    check_close(run_op("LayerNormalization", {x, scale}, attributes, 17)[0],
                normalised(size, true, which, scale, Tensor()), 1e-5);
    check_close(run_op("RMSNormalization", {x, scale}, attributes, 23)[0],
                normalised(size, false, which, scale, Tensor()), 1e-5);
    check_close(run_op("SimplifiedLayerNormalization", {x, scale}, attributes, 1)[0],
                normalised(size, false, which, scale, Tensor()), 1e-5);
    check_gradients("LayerNormalization", {x, scale, bias}, attributes, {0, 1, 2}, {.opset = 17});
    check_gradients("RMSNormalization", {x, scale}, attributes, {0, 1}, {.opset = 23});
  }
  // A scale that does not lie along the rows: 3 values for rows of 3 x 4, stretched along the last axis.
  const Tensor column = random_real({3, 1}, 4);
  check_close(run_op("LayerNormalization", {x, column}, {{"axis", 2}, {"epsilon", 1e-2f}}, 17)[0],
              normalised(
                  12, true, [](size_t i) { return i / 4 % 3; }, column, Tensor()),
              1e-5);
  check_gradients("LayerNormalization", {x, column}, {{"axis", 2}}, {0, 1}, {.opset = 17});
  // As many values as a row has, but along another axis.
  const Tensor square = random_real({2, 4, 4}, 9), sideways = random_real({4, 1}, 5);
  const Tensor whole = floats({4, 4}, [&] {
    std::vector<float> values;
    for (size_t i = 0; i < 16; ++i) values.push_back(sideways.data<float>()[i / 4]);
    return values;
  }());
  CHECK(values_of(run_op("LayerNormalization", {square, sideways}, {{"axis", 2}}, 17)[0]) ==
        values_of(run_op("LayerNormalization", {square, whole}, {{"axis", 2}}, 17)[0]));

  const Tensor scale = random_real({6}, 2), bias = random_real({6}, 3);
  const auto channel = [](size_t i) { return i / 12 % 6; };
  check_close(run_op("InstanceNormalization", {x, scale, bias}, epsilon, 6)[0],
              normalised(12, true, channel, scale, bias), 1e-5);
  check_gradients("InstanceNormalization", {x, scale, bias}, epsilon, {0, 1, 2}, {.opset = 6});
  const Givens groups = {{"epsilon", 1e-2f}, {"num_groups", 3}};
  check_close(run_op("GroupNormalization", {x, scale, bias}, groups, 21)[0], normalised(24, true, channel, scale, bias),
              1e-5);
  check_gradients("GroupNormalization", {x, scale, bias}, groups, {0, 1, 2}, {.opset = 21});
  const Tensor group_scale = random_real({3}, 6), group_bias = random_real({3}, 7);
  check_close(run_op("GroupNormalization", {x, group_scale, group_bias}, groups, 18)[0],
              normalised(
                  24, true, [](size_t i) { return i / 24 % 3; }, group_scale, group_bias),
              1e-5);
  check_gradients("GroupNormalization", {x, group_scale, group_bias}, groups, {0, 1, 2}, {.opset = 18});

  CHECK(holds(error_of_op("GroupNormalization", {x, scale, bias}, {{"num_groups", 4}}).message, "4 groups"));
  CHECK(holds(error_of_op("GroupNormalization", {x, scale, bias}, {{"num_groups", 0}}).message, "0 groups"));
  CHECK(holds(error_of_op("LayerNormalization", {x, random_real({5}, 1)}).message, "cannot be broadcast"));
  CHECK(holds(error_of_op("LayerNormalization", {x, random_real({2, 1, 1, 1, 4}, 1)}).message, "does not fit"));
  CHECK(holds(error_of_op("LayerNormalization", {x, scale}, {{"axis", 4}}).message, "axis 4"));
}

TEST_CASE("LpNormalization and MeanVarianceNormalization are their formulas") {
  const Tensor x = random_real({2, 3, 4}, 1);
  for (const int64_t p : {1, 2}) {
    for (const int64_t axis : {0, 1, -1}) {
      const size_t a = axis < 0 ? 2 : static_cast<size_t>(axis);
      const size_t inner = std::array<size_t, 3>{12, 4, 1}[a], size = x.shape()[a];
      std::vector<double> norm(24, 0), expected;
      const auto row = [&](size_t i) { return i / (inner * size) * inner * size + i % inner; };
      for (size_t i = 0; i < 24; ++i) norm[row(i)] += std::pow(std::fabs(double{x.data<float>()[i]}), double(p));
      for (size_t i = 0; i < 24; ++i) {
        expected.push_back(double{x.data<float>()[i]} / std::pow(norm[row(i)], 1 / double(p)));
      }
      const Givens attributes = {{"axis", axis}, {"p", p}};
      check_close(run_op("LpNormalization", {x}, attributes)[0], expected, 1e-5);
      check_gradients("LpNormalization", {x}, attributes, {0}, {.step = 1e-3f});
    }
  }
  CHECK(values_of(run_op("LpNormalization", {floats({2}, {0, 0})})[0]) == std::vector<float>{0, 0});
  CHECK(holds(error_of_op("LpNormalization", {x}, {{"p", 3}}).message, "p must be"));
  // Over axis 1 alone: four rows per image.
  const Tensor y = run_op("MeanVarianceNormalization", {x}, {{"axes", {1}}}, 13)[0];
  for (size_t i = 0; i < 2; ++i) {
    for (size_t j = 0; j < 4; ++j) {
      double sum = 0, squares = 0;
      for (size_t k = 0; k < 3; ++k) {
        const double value = double{y.data<float>()[(i * 3 + k) * 4 + j]};
        sum += value;
        squares += value * value;
      }
      CHECK(std::fabs(sum) < 1e-5);
      CHECK(std::fabs(squares - 3) < 1e-4);
    }
  }
}

TEST_CASE("Dropout leaves things alone outside of training; in it, it drops the ratio and scales the rest") {
  const Tensor x = floats({4000}, std::vector<float>(4000, 2.0f));
  for (const int64_t opset : {1, 7, 10, 12, 13, 22}) {
    CHECK(values_of(run_op("Dropout", {x}, {}, opset)[0]) == values_of(x));
    const std::vector<Tensor> with_mask = run_op("Dropout", {x}, {}, opset, 2);
    REQUIRE(with_mask.size() == 2);
    CHECK(with_mask[1].dtype() == (opset < 10 ? DType::Float32 : DType::Bool));
  }
  const Tensor ratio = floats({}, {0.25f}), yes = tensor_of<uint8_t>(DType::Bool, {}, {1});
  const auto drop = [&](uint64_t key) {
    const Alone alone("Dropout", std::vector<Tensor>{x, ratio, yes}, {}, 13, 2, "");
    ops::Call call = alone.call({x, ratio, yes});
    call.key = key;
    call.training = true;
    return alone.op->forward(call);
  };
  const std::vector<Tensor> made = drop(1);
  size_t kept = 0;
  for (size_t i = 0; i < 4000; ++i) {
    const bool stays = made[1].data<bool>()[i];
    kept += stays;
    CHECK(made[0].data<float>()[i] == (stays ? 2.0f / 0.75f : 0.0f));
  }
  CHECK(kept > 2850);  // 3000 expected, deviation 27
  CHECK(kept < 3150);
  CHECK(values_of(drop(1)[0]) == values_of(made[0]));
  CHECK(values_of(drop(2)[0]) != values_of(made[0]));
  // Outside of training nobody could say which values should be dropped.
  CHECK(error_of_op("Dropout", {x, ratio, yes}, {}, 13, 2).code == ErrorCode::Unsupported);
  check_gradients("Dropout", {random_real({20}, 1), ratio}, {}, {0}, {.opset = 13});
  check_gradients("Dropout", {random_real({20}, 1)}, {{"ratio", 0.3f}}, {0}, {.opset = 7});
  check_gradients("Dropout", {random_real({20}, 1)}, {}, {0}, {.opset = 7, .training = false});
  CHECK(holds(error_of_op("Dropout", {x, floats({}, {1.0f})}, {}, 13).message, "the ratio"));
}

// --- Quantization ----------------------------------------------------------------------------------------------------

TEST_CASE("QuantizeLinear rounds to even and saturates, DequantizeLinear goes back, for every integer type") {
  const Tensor x = floats({6}, {-1000, -0.75f, 0.25f, 0.75f, 1.25f, 1000});
  const Tensor half = floats({}, {0.5f});
  struct Range {
    DType dtype;
    float lowest, highest;
  };
  for (const Range range : {Range{DType::Int8, -128, 127},
                            {DType::UInt8, 0, 255},
                            {DType::Int16, -32768, 32767},
                            {DType::UInt16, 0, 65535},
                            {DType::Int4, -8, 7},
                            {DType::UInt4, 0, 15},
                            {DType::Int2, -2, 1},
                            {DType::UInt2, 0, 3}}) {
    CAPTURE(std::string(to_string(range.dtype)));
    std::vector<uint8_t> bytes(std::max(1, bits_of(range.dtype) / 8), 0);
    bytes[0] = 1;
    const Tensor one = tensor_of(range.dtype, {}, bytes);
    const Tensor q = run_op("QuantizeLinear", {x, half, one}, {}, 25)[0];
    REQUIRE(q.dtype() == range.dtype);
    // x / 0.5 = -2000, -1.5, 0.5, 1.5, 2.5, 2000, to even -2000, -2, 0, 2, 2, 2000, and the zero point of 1.
    std::vector<float> expected = {-1999, -1, 1, 3, 3, 2001};
    for (float& code : expected) code = std::clamp(code, range.lowest, range.highest);
    CHECK(ops::widen(q) == expected);
    for (float& code : expected) code = (code - 1) * 0.5f;
    CHECK(values_of(run_op("DequantizeLinear", {q, half, one}, {}, 25)[0]) == expected);
  }
  CHECK(run_op("QuantizeLinear", {x, half}, {}, 13)[0].dtype() == DType::UInt8);
  CHECK(run_op("QuantizeLinear", {x, half}, {{"output_dtype", 22}}, 21)[0].dtype() == DType::Int4);
  // A scale of 0 and values that are no numbers give some code, not a crash.
  CHECK(run_op("QuantizeLinear", {floats({3}, {0, 1, std::nanf("")}), floats({}, {0})}, {}, 13)[0].elements() == 3);
}

TEST_CASE("Scales go along an axis or by blocks, and must fit") {
  const Tensor x = tensor_of<int8_t>(DType::Int8, {2, 3, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  const Tensor scales = floats({3}, {1, 10, 100});
  CHECK(values_of(run_op("DequantizeLinear", {x, scales}, {}, 13)[0]) ==
        std::vector<float>{1, 2, 30, 40, 500, 600, 7, 8, 90, 100, 1100, 1200});
  CHECK(values_of(run_op("DequantizeLinear", {x, floats({2}, {1, 10})}, {{"axis", -1}}, 13)[0]) ==
        std::vector<float>{1, 20, 3, 40, 5, 60, 7, 80, 9, 100, 11, 120});
  // Blocks of 2 along the axis of 3: two blocks, the second of one element.
  const Tensor blocks = floats({2, 2, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(values_of(run_op("DequantizeLinear", {x, blocks}, {{"block_size", 2}}, 21)[0]) ==
        std::vector<float>{1, 4, 3, 8, 15, 24, 35, 48, 45, 60, 77, 96});
  CHECK(holds(error_of_op("DequantizeLinear", {x, floats({4}, {1, 1, 1, 1})}).message, "axis of 3"));
  CHECK(holds(error_of_op("DequantizeLinear", {x, scales}, {{"axis", 3}}).message, "axis 3"));
  CHECK(holds(error_of_op("DequantizeLinear", {x, blocks}, {{"block_size", 3}}).message, "scales must be"));
  CHECK(holds(error_of_op("DequantizeLinear", {x, blocks}, {{"block_size", -1}}).message, "block_size"));
  CHECK(holds(error_of_op("DequantizeLinear", {x, scales, tensor_of<int8_t>(DType::Int8, {2}, {0, 0})}).message,
              "differ in shape"));
  CHECK(holds(error_of_op("DequantizeLinear", {floats({0}, {}), floats({0}, {})}).message, "axis 1"));

  const std::vector<Tensor> dynamic = run_op("DynamicQuantizeLinear", {floats({3}, {-1, 0, 4})}, {}, 11, 3);
  REQUIRE(dynamic.size() == 3);
  CHECK(values_of(dynamic[1]) == std::vector<float>{5.0f / 255});
  CHECK(values_of<uint8_t>(dynamic[0]) == std::vector<uint8_t>{0, 51, 255});
  CHECK(values_of<uint8_t>(dynamic[2]) == std::vector<uint8_t>{51});
}

TEST_CASE("Regions are pooled as their definitions say") {
  // MaxRoiPool on whole pixels: the region's rows 1 to 4 and columns 2 to 5, cut in two each way.
  const Tensor x = shuffled({2, 2, 6, 7}, 3);
  const Tensor y = run_op("MaxRoiPool", {x, floats({1, 5}, {1, 2, 1, 5, 4})}, {{"pooled_shape", {2, 2}}}, 1)[0];
  REQUIRE(y.shape() == Shape{1, 2, 2, 2});
  for (size_t c = 0; c < 2; ++c) {
    for (size_t i = 0; i < 4; ++i) {
      float best = -kInfinity;
      for (size_t row = 1 + i / 2 * 2; row < 3 + i / 2 * 2; ++row) {
        for (size_t column = 2 + i % 2 * 2; column < 4 + i % 2 * 2; ++column) {
          best = std::max(best, x.data<float>()[((2 + c) * 6 + row) * 7 + column]);
        }
      }
      CHECK(y.data<float>()[c * 4 + i] == best);
    }
  }
  // RoiAlign of a plane that rises evenly gives the plane at each cell's middle.
  std::vector<float> slope;
  for (size_t i = 0; i < 80; ++i) slope.push_back(static_cast<float>(i / 10) * 3 + static_cast<float>(i % 10));
  const Tensor aligned = run_op("RoiAlign", {floats({1, 1, 8, 10}, slope), floats({1, 4}, {2, 1, 6, 5}), integers({0})},
                                {{"output_height", 2}, {"output_width", 4}, {"sampling_ratio", 2}}, 16)[0];
  std::vector<double> expected;
  for (size_t i = 0; i < 8; ++i) {
    const double row = 0.5 + (static_cast<double>(i / 4) + 0.5) * 2, column = 1.5 + static_cast<double>(i % 4) + 0.5;
    expected.push_back(row * 3 + column);
  }
  check_close(aligned, expected, 1e-6);
  CHECK(holds(error_of_op("MaxRoiPool", {x, floats({1, 5}, {7, 0, 0, 1, 1})}, {{"pooled_shape", {2, 2}}}, 1).message,
              "a region of image"));
  CHECK(
      holds(error_of_op("MaxRoiPool", {x, floats({1, 5}, {0, 0, 0, 1e30f, 1})}, {{"pooled_shape", {2, 2}}}, 1).message,
            "not a finite number"));
  CHECK(holds(error_of_op("RoiAlign", {x, floats({1, 4}, {0, 0, 1, 1}), integers({-1})}).message, "a region of image"));
  CHECK(holds(error_of_op("RoiAlign", {x, floats({1, 4}, {0, 0, kInfinity, 1}), integers({0})}).message, "not finite"));
}

TEST_CASE("DeformConv without offsets is Conv, and with whole offsets Conv of a moved image") {
  const Tensor x = random_real({2, 4, 6, 5}, 1), w = random_real({6, 2, 3, 2}, 2), b = random_real({6}, 3);
  const Givens attributes = {{"pads", {1, 0, 2, 1}}, {"strides", {2, 1}}, {"group", 2}, {"offset_group", 2}};
  const Tensor expected = run_op("Conv", {x, w, b}, {{"pads", {1, 0, 2, 1}}, {"strides", {2, 1}}, {"group", 2}})[0];
  const Shape& made = expected.shape();
  const Shape shifts = {2, 2 * 6 * 2, made[2], made[3]};
  const std::vector<float> plain = values_of(expected);
  const Tensor still =
      run_op("DeformConv", {x, w, floats(shifts, std::vector<float>(elements_of(shifts), 0.0f)), b}, attributes, 19)[0];
  check_close(still, {plain.begin(), plain.end()}, kSumBound);
  // One row down everywhere: the image whose first row is gone.
  std::vector<float> down(elements_of(shifts), 0.0f);
  for (size_t i = 0; i < down.size(); ++i) down[i] = i / (made[2] * made[3]) % 2 == 0 ? 1.0f : 0.0f;
  std::vector<float> moved(x.elements(), 0.0f);
  for (size_t i = 0; i < moved.size(); ++i) moved[i] = i / 5 % 6 < 5 ? x.data<float>()[i + 5] : 0.0f;
  // The moved image lacks the row that the padding above would now see, so that padding is left out of the comparison.
  const std::vector<float> below = values_of(
      run_op("Conv", {floats(x.shape(), moved), w, b}, {{"pads", {1, 0, 2, 1}}, {"strides", {2, 1}}, {"group", 2}})[0]);
  const Tensor shifted = run_op("DeformConv", {x, w, floats(shifts, down), b}, attributes, 19)[0];
  for (size_t i = 0; i < below.size(); ++i) {
    if (i / made[3] % made[2] == 0) continue;
    CHECK(std::fabs(shifted.data<float>()[i] - below[i]) <= 1e-5 * std::max(1.0f, std::fabs(below[i])));
  }
  const Tensor wild = floats(shifts, std::vector<float>(elements_of(shifts), std::nanf("")));
  CHECK(std::isfinite(run_op("DeformConv", {x, w, wild, b}, attributes, 19)[0].data<float>()[0]));
  CHECK(
      holds(error_of_op("DeformConv", {x, w, floats({2, 1, 1, 1}, {0, 0}), b}, attributes, 19).message, "offsets of"));
}
