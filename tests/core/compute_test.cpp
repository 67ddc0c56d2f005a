// Holds what runs and trains networks against its plain twins, which accumulate in double, and against the standard
// library's functions in double, on awkward sizes, strides, alignments and values.
#include "core/kernels/compute.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/base/context.hpp"
#include "core/kernels/reference.hpp"

namespace nibble::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kRound = 0x1p-24;  // half a unit in the last place of 1: the relative error of one rounding

struct Random {
  uint64_t key, at = 0;
  size_t below(size_t count) { return static_cast<size_t>(mix64(key, at++) % count); }
  size_t between(size_t low, size_t high) { return low + below(high - low + 1); }
  float uniform() { return 2 * uniform24(key, at++) - 1; }
};

std::vector<float> random_floats(size_t count, uint64_t seed) {
  Random random{mix64(seed, count)};
  std::vector<float> values(count);
  for (float& value : values) value = random.uniform();
  return values;
}

std::vector<float> magnitudes(std::vector<float> values) {
  for (float& value : values) value = std::abs(value);
  return values;
}

/// An array of exactly its size on the heap, `shift` floats beyond a 16-byte boundary, with marks on both sides.
class Guarded {
 public:
  Guarded(size_t size, size_t shift, float fill) : floats_(size + 2 * kRoom + 8, kMark), size_(size) {
    const auto address = reinterpret_cast<uintptr_t>(floats_.data());
    offset_ = kRoom + (16 - address % 16) % 16 / sizeof(float) + shift % 4;
    std::fill_n(data(), size, fill);
  }
  Guarded(const std::vector<float>& values, size_t shift) : Guarded(values.size(), shift, 0) {
    std::copy(values.begin(), values.end(), data());
  }
  float* data() { return floats_.data() + offset_; }
  std::span<float> span() { return {data(), size_}; }
  std::vector<float> values() { return {data(), data() + size_}; }
  bool intact() const {
    const auto marked = [](float v) { return v == kMark; };
    return std::all_of(floats_.begin(), floats_.begin() + static_cast<ptrdiff_t>(offset_), marked) &&
           std::all_of(floats_.begin() + static_cast<ptrdiff_t>(offset_ + size_), floats_.end(), marked);
  }

 private:
  static constexpr size_t kRoom = 16;
  static constexpr float kMark = 12345.678f;
  std::vector<float> floats_;
  size_t offset_ = 0, size_ = 0;
};

std::vector<float>& scratch() {
  static std::vector<float> floats(kComputeScratch, kNaN);
  return floats;
}

/// Each element within (terms + 2) roundings of the sum of the magnitudes that make it up: the bound of any order of
/// summation (Higham 2002, section 4.2).
void check_near(std::span<const float> got, const std::vector<float>& expected, const std::vector<float>& size,
                size_t terms) {
  REQUIRE(got.size() == expected.size());
  size_t wrong = 0, where = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double bound = static_cast<double>(terms + 2) * kRound * static_cast<double>(size[i]);
    if (std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i])) <= bound) continue;
    if (wrong++ == 0) where = i;
  }
  if (wrong == 0) return;
  CAPTURE(where);
  CAPTURE(got[where]);
  CAPTURE(expected[where]);
  CHECK(wrong == 0);
}

void check_equal(std::span<const float> got, const std::vector<float>& expected) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(expected[i])) continue;
    if (std::isnan(got[i]) && std::isnan(expected[i])) continue;
    CAPTURE(i);
    CAPTURE(got[i]);
    CAPTURE(expected[i]);
    CHECK(false);
    return;
  }
}

// ---- matrix product ----

enum class Layout { kRows, kColumns, kPaddedRows, kScattered };
constexpr Layout kLayouts[] = {Layout::kRows, Layout::kColumns, Layout::kPaddedRows, Layout::kScattered};

struct Matrix {
  std::vector<float> values;
  MatrixView view;
  Matrix(size_t rows, size_t columns, Layout layout, uint64_t seed) {
    size_t row_step = columns, column_step = 1;
    if (layout == Layout::kColumns) row_step = 1, column_step = rows;
    if (layout == Layout::kPaddedRows) row_step = columns + 3;
    if (layout == Layout::kScattered) column_step = 2, row_step = 2 * columns + 1;
    const size_t count = rows == 0 || columns == 0 ? 0 : (rows - 1) * row_step + (columns - 1) * column_step + 1;
    values = random_floats(count, seed);  // exactly as long as the matrix needs: sanitizers see a read beyond it
    view = {values.data(), row_step, column_step};
  }
  Matrix absolute() const {
    Matrix other = *this;
    other.values = magnitudes(values);
    other.view.data = other.values.data();
    return other;
  }
};

void check_matmul(size_t m, size_t n, size_t k, Layout a_layout, Layout b_layout, bool accumulate, size_t gap,
                  size_t shift) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(static_cast<int>(a_layout));
  CAPTURE(static_cast<int>(b_layout));
  CAPTURE(accumulate);
  const Matrix a(m, k, a_layout, 1), b(k, n, b_layout, 2);
  const Matrix abs_a = a.absolute(), abs_b = b.absolute();
  const size_t step = n + gap, count = (m - 1) * step + n;
  const std::vector<float> before = random_floats(count, 3);
  std::vector<float> expected = before, size = magnitudes(before);
  Guarded c(before, shift);
  reference::matmul(m, n, k, a.view, b.view, expected.data(), step, accumulate);
  reference::matmul(m, n, k, abs_a.view, abs_b.view, size.data(), step, accumulate);
  matmul(m, n, k, a.view, b.view, c.data(), step, accumulate, scratch());
  check_near(c.span(), expected, size, k + 1);
  CHECK(c.intact());
  for (size_t i = 0; i + 1 < m; ++i) {
    for (size_t j = n; j < step; ++j) CHECK(c.span()[i * step + j] == before[i * step + j]);
  }
}

TEST_CASE("a matrix product is near its twin for every small size") {
  size_t turn = 0;
  for (size_t m = 1; m <= 11; ++m) {
    for (size_t n = 1; n <= 18; ++n) {
      for (const size_t k : {1, 2, 3, 4, 5, 7, 8, 9, 17}) {
        ++turn;
        check_matmul(m, n, k, kLayouts[turn % 4], kLayouts[turn / 4 % 4], turn % 3 == 0, turn % 5, turn % 4);
      }
    }
  }
}

TEST_CASE("a matrix product is near its twin for all layouts and across blocks") {
  struct Size {
    size_t m, n, k;
  };
  // Beyond the blocks of rows (120), depth (256) and columns (512 to 4096); vectors; long and thin.
  for (const Size s :
       {Size{1, 37, 70}, Size{1, 4099, 9}, Size{2, 30, 300}, Size{41, 1, 300}, Size{4100, 1, 5}, Size{123, 50, 257},
        Size{9, 530, 513}, Size{3, 4105, 3}, Size{241, 9, 10}, Size{1, 3, 16400}, Size{5, 4, 1030}}) {
    for (const Layout a : kLayouts) {
      for (const Layout b : kLayouts) {
        check_matmul(s.m, s.n, s.k, a, b, false, 0, 1);
        check_matmul(s.m, s.n, s.k, a, b, true, 2, 0);
      }
    }
  }
}

TEST_CASE("a matrix product without depth clears or keeps, and one without rows or columns does nothing") {
  std::vector<float> c = {1, 2, 3, 4, 5, 6};
  matmul(2, 3, 0, {}, {}, c.data(), 3, true, scratch());
  CHECK(c == std::vector<float>{1, 2, 3, 4, 5, 6});
  matmul(0, 3, 4, {}, {}, c.data(), 3, false, scratch());
  matmul(2, 0, 4, {}, {}, c.data(), 3, false, scratch());
  CHECK(c == std::vector<float>{1, 2, 3, 4, 5, 6});
  matmul(2, 2, 0, {}, {}, c.data(), 3, false, scratch());
  CHECK(c == std::vector<float>{0, 0, 3, 0, 0, 6});
  matmul(1, 3, 0, {}, {}, c.data(), 3, false, scratch());
  CHECK(c == std::vector<float>{0, 0, 0, 0, 0, 6});
  matmul(6, 1, 0, {}, {}, c.data(), 1, false, scratch());
  CHECK(c == std::vector<float>(6, 0.0f));
}

TEST_CASE("a matrix product of small integers is exact") {
  const size_t m = 131, n = 77, k = 300;
  std::vector<float> a(m * k), b(k * n), c(m * n), expected(m * n);
  Random random{9};
  for (float& v : a) v = static_cast<float>(random.below(17)) - 8;
  for (float& v : b) v = static_cast<float>(random.below(17)) - 8;
  reference::matmul(m, n, k, {a.data(), k, 1}, {b.data(), n, 1}, expected.data(), n, false);
  matmul(m, n, k, {a.data(), k, 1}, {b.data(), n, 1}, c.data(), n, false, scratch());
  check_equal(c, expected);
}

// ---- convolution ----

std::string text(const Conv2d& c, size_t images) {
  const auto n = [](auto v) { return std::to_string(v) + ' '; };
  return "images " + n(images) + "in " + n(c.channels_in) + n(c.height) + n(c.width) + "out " + n(c.channels_out) +
         n(c.out_height) + n(c.out_width) + "kernel " + n(c.kernel_height) + n(c.kernel_width) + "stride " +
         n(c.stride_height) + n(c.stride_width) + "dilation " + n(c.dilation_height) + n(c.dilation_width) + "pad " +
         n(c.pad_top) + n(c.pad_left) + "groups " + n(c.groups);
}

/// Forward and both gradients against the twins.
void check_conv(const Conv2d& conv, size_t images, size_t shift = 1) {
  CAPTURE(text(conv, images));
  const auto x = random_floats(images * conv.x_size(), 1), weight = random_floats(conv.weight_size(), 2);
  const auto bias = random_floats(conv.channels_out, 3), grad_y = random_floats(images * conv.y_size(), 4);
  const auto abs_x = magnitudes(x), abs_weight = magnitudes(weight), abs_bias = magnitudes(bias);
  const auto abs_grad = magnitudes(grad_y);
  const size_t taps = conv.kernel_height * conv.kernel_width;

  {
    INFO("forward");
    std::vector<float> expected(images * conv.y_size()), size = expected;
    reference::conv2d(conv, images, x.data(), weight.data(), bias.data(), expected.data());
    reference::conv2d(conv, images, abs_x.data(), abs_weight.data(), abs_bias.data(), size.data());
    Guarded y(expected.size(), shift, kNaN);
    conv2d(conv, images, x.data(), weight.data(), bias.data(), y.data(), scratch());
    check_near(y.span(), expected, size, conv.channels_in / conv.groups * taps + 1);
    CHECK(y.intact());
    reference::conv2d(conv, images, x.data(), weight.data(), nullptr, expected.data());
    conv2d(conv, images, x.data(), weight.data(), nullptr, y.data(), scratch());
    check_near(y.span(), expected, size, conv.channels_in / conv.groups * taps + 1);
    CHECK(y.intact());
  }
  {
    INFO("gradient of the input");
    std::vector<float> expected(images * conv.x_size()), size = expected;
    reference::conv2d_grad_input(conv, images, weight.data(), grad_y.data(), expected.data());
    reference::conv2d_grad_input(conv, images, abs_weight.data(), abs_grad.data(), size.data());
    Guarded grad_x(expected.size(), shift, kNaN);
    conv2d_grad_input(conv, images, weight.data(), grad_y.data(), grad_x.data(), scratch());
    check_near(grad_x.span(), expected, size, conv.channels_out / conv.groups * taps + 1);
    CHECK(grad_x.intact());
  }
  {
    INFO("gradient of weight and bias");
    std::vector<float> expected = random_floats(conv.weight_size(), 5), size = magnitudes(expected);
    std::vector<float> expected_bias = random_floats(conv.channels_out, 6), size_bias = magnitudes(expected_bias);
    Guarded grad_weight(expected, shift), grad_bias(expected_bias, shift), again(expected, 0);
    reference::conv2d_grad_weight(conv, images, x.data(), grad_y.data(), expected.data(), expected_bias.data());
    reference::conv2d_grad_weight(conv, images, abs_x.data(), abs_grad.data(), size.data(), size_bias.data());
    conv2d_grad_weight(conv, images, x.data(), grad_y.data(), grad_weight.data(), grad_bias.data(), scratch());
    const size_t terms = images * conv.out_height * conv.out_width + 1;
    check_near(grad_weight.span(), expected, size, terms);
    check_near(grad_bias.span(), expected_bias, size_bias, terms);
    CHECK(grad_weight.intact());
    CHECK(grad_bias.intact());
    conv2d_grad_weight(conv, images, x.data(), grad_y.data(), again.data(), nullptr, scratch());
    check_equal(again.span(), grad_weight.values());
  }
}

/// The convolution of an image of height by width with the padding given at all sides.
Conv2d conv_of(size_t in, size_t height, size_t width, size_t out, size_t kernel, size_t stride, size_t pad,
               size_t groups = 1, size_t dilation = 1) {
  const size_t extent = (kernel - 1) * dilation + 1;
  return {.channels_in = in,
          .height = height,
          .width = width,
          .channels_out = out,
          .out_height = (height + 2 * pad - extent) / stride + 1,
          .out_width = (width + 2 * pad - extent) / stride + 1,
          .kernel_height = kernel,
          .kernel_width = kernel,
          .stride_height = stride,
          .stride_width = stride,
          .dilation_height = dilation,
          .dilation_width = dilation,
          .pad_top = static_cast<ptrdiff_t>(pad),
          .pad_left = static_cast<ptrdiff_t>(pad),
          .groups = groups};
}

TEST_CASE("convolutions as networks have them are near their twins, forward and back") {
  check_conv(conv_of(1, 28, 28, 20, 5, 1, 0), 3);       // LeNet-5, first
  check_conv(conv_of(20, 12, 12, 50, 5, 1, 0), 3);      // LeNet-5, second
  check_conv(conv_of(3, 33, 31, 8, 3, 2, 1), 2);        // a first layer with stride 2
  check_conv(conv_of(3, 37, 37, 16, 7, 2, 3), 1);       // ResNet's first
  check_conv(conv_of(24, 14, 14, 20, 3, 1, 1), 2);      // the usual 3x3
  check_conv(conv_of(31, 7, 7, 33, 3, 1, 1), 5);        // panels across rows and images
  check_conv(conv_of(13, 14, 14, 30, 3, 2, 1), 3);      // stride 2 in the middle
  check_conv(conv_of(19, 14, 14, 21, 1, 1, 0), 3);      // pointwise
  check_conv(conv_of(300, 7, 7, 130, 1, 1, 0), 3);      // pointwise, beyond the blocks
  check_conv(conv_of(16, 15, 15, 24, 1, 2, 0), 2);      // pointwise with stride 2, a shortcut
  check_conv(conv_of(33, 1, 1, 17, 1, 1, 0), 1);        // one pixel: a dense layer
  check_conv(conv_of(33, 1, 1, 17, 1, 1, 0), 9);        // the same for several images
  check_conv(conv_of(12, 13, 13, 18, 3, 1, 1, 3), 2);   // groups
  check_conv(conv_of(6, 12, 12, 9, 3, 1, 2, 1, 2), 2);  // dilated
  check_conv(conv_of(520, 3, 3, 5, 3, 1, 1), 2);        // deep
}

TEST_CASE("depthwise convolutions are near their twins, forward and back") {
  for (const size_t kernel : {3, 5, 7}) {
    for (const size_t stride : {1, 2, 3}) {
      for (const size_t size : {7, 8, 9, 14, 15, 16, 28, 33}) {
        check_conv(conv_of(5, size, size + 2, 5, kernel, stride, kernel / 2, 5), 2);
      }
    }
  }
  check_conv(conv_of(4, 20, 20, 8, 3, 1, 1, 4), 2);     // two results per channel
  check_conv(conv_of(3, 21, 19, 3, 3, 1, 2, 3, 2), 2);  // dilated
  check_conv(conv_of(2, 150, 700, 2, 3, 1, 1, 2), 1);   // a plane larger than the scratch of a tile
  check_conv(conv_of(2, 150, 701, 2, 3, 2, 1, 2), 1);
  check_conv(conv_of(3, 10, 10, 3, 1, 1, 0, 3), 2);  // one tap
}

TEST_CASE("convolutions of any shape are near their twins, forward and back") {
  Random random{77};
  for (int turn = 0; turn < 400; ++turn) {
    Conv2d conv;
    conv.groups = random.between(1, 3);
    conv.channels_in = conv.groups * (turn % 4 == 0 ? 1 : random.between(1, 5));
    conv.channels_out = conv.groups * random.between(1, 6);
    conv.height = random.between(1, 9), conv.width = random.between(1, 20);
    conv.out_height = random.between(1, 8), conv.out_width = random.between(1, 20);
    conv.kernel_height = random.between(1, 4), conv.kernel_width = random.between(1, 5);
    conv.stride_height = random.between(1, 3), conv.stride_width = random.between(1, 3);
    conv.dilation_height = random.between(1, 3), conv.dilation_width = random.between(1, 3);
    conv.pad_top = static_cast<ptrdiff_t>(random.between(0, 9)) - 2;
    conv.pad_left = static_cast<ptrdiff_t>(random.between(0, 24)) - 3;
    check_conv(conv, random.between(1, 3), static_cast<size_t>(turn));
  }
}

TEST_CASE("one-dimensional convolutions are near their twins, forward and back") {
  Conv2d conv{.channels_in = 4, .width = 300, .channels_out = 6, .out_width = 298, .kernel_width = 3};
  check_conv(conv, 2);
  conv = {
      .channels_in = 1, .width = 70000, .channels_out = 3, .out_width = 34999, .kernel_width = 4, .stride_width = 2};
  check_conv(conv, 1);
  conv = {.channels_in = 2, .width = 70000, .channels_out = 2, .out_width = 69998, .kernel_width = 3, .groups = 2};
  check_conv(conv, 1);
}

TEST_CASE("a convolution with extreme dilation, stride and padding reads nothing outside") {
  Conv2d conv = conv_of(2, 5, 5, 2, 3, 1, 1);
  conv.dilation_height = conv.dilation_width = 100000000;
  conv.pad_top = conv.pad_left = 100000000;
  conv.out_height = conv.out_width = 5;
  check_conv(conv, 1);
  conv.groups = 2;
  check_conv(conv, 1);
  conv.stride_height = conv.stride_width = 500000000;
  check_conv(conv, 1);
}

TEST_CASE("a convolution of no images does nothing, and clears nothing") {
  const Conv2d conv = conv_of(3, 5, 5, 4, 3, 1, 1);
  std::vector<float> weight(conv.weight_size(), 1), grad_weight = weight, bias(4, 2);
  conv2d(conv, 0, nullptr, weight.data(), nullptr, nullptr, scratch());
  conv2d_grad_input(conv, 0, weight.data(), nullptr, nullptr, scratch());
  conv2d_grad_weight(conv, 0, nullptr, nullptr, grad_weight.data(), bias.data(), scratch());
  CHECK(grad_weight == weight);
  CHECK(bias == std::vector<float>(4, 2.0f));
}

// ---- pooling ----

std::string text(const Pool2d& p) {
  const auto n = [](auto v) { return std::to_string(v) + ' '; };
  return "planes " + n(p.planes) + n(p.height) + n(p.width) + "out " + n(p.out_height) + n(p.out_width) + "kernel " +
         n(p.kernel_height) + n(p.kernel_width) + "stride " + n(p.stride_height) + n(p.stride_width) + "dilation " +
         n(p.dilation_height) + n(p.dilation_width) + "pad " + n(p.pad_top) + n(p.pad_left);
}

void check_pool(const Pool2d& pool, size_t shift = 1) {
  CAPTURE(text(pool));
  const size_t inputs = pool.planes * pool.height * pool.width,
               outputs = pool.planes * pool.out_height * pool.out_width;
  auto x = random_floats(inputs, 1);
  for (float& v : x) v = std::round(v * 4);  // so that there are equals
  const auto grad_y = random_floats(outputs, 2), abs_grad = magnitudes(grad_y), abs_x = magnitudes(x);
  std::vector<float> expected(outputs), size(outputs), expected_grad(inputs), size_grad(inputs);
  std::vector<int32_t> index(outputs, -7), expected_index(outputs, -9);
  Guarded y(outputs, shift, kNaN), grad_x(inputs, shift, kNaN);

  reference::max_pool2d(pool, x.data(), expected.data(), expected_index.data());
  max_pool2d(pool, x.data(), y.data(), index.data());
  check_equal(y.span(), expected);
  CHECK(index == expected_index);
  std::fill_n(y.data(), outputs, kNaN);
  max_pool2d(pool, x.data(), y.data(), nullptr);
  check_equal(y.span(), expected);
  reference::max_pool2d_grad(pool, grad_y.data(), index.data(), expected_grad.data());
  max_pool2d_grad(pool, grad_y.data(), index.data(), grad_x.data());
  check_equal(grad_x.span(), expected_grad);

  const size_t window = pool.kernel_height * pool.kernel_width;
  for (const bool count_padding : {true, false}) {
    CAPTURE(count_padding);
    reference::average_pool2d(pool, x.data(), expected.data(), count_padding);
    reference::average_pool2d(pool, abs_x.data(), size.data(), count_padding);
    average_pool2d(pool, x.data(), y.data(), count_padding);
    check_near(y.span(), expected, size, window + 2);
    reference::average_pool2d_grad(pool, grad_y.data(), expected_grad.data(), count_padding);
    reference::average_pool2d_grad(pool, abs_grad.data(), size_grad.data(), count_padding);
    average_pool2d_grad(pool, grad_y.data(), grad_x.data(), count_padding);
    check_near(grad_x.span(), expected_grad, size_grad, window + 2);
  }
  CHECK(y.intact());
  CHECK(grad_x.intact());
}

Pool2d pool_of(size_t planes, size_t height, size_t width, size_t kernel, size_t stride, size_t pad) {
  return {.planes = planes,
          .height = height,
          .width = width,
          .out_height = (height + 2 * pad - kernel) / stride + 1,
          .out_width = (width + 2 * pad - kernel) / stride + 1,
          .kernel_height = kernel,
          .kernel_width = kernel,
          .stride_height = stride,
          .stride_width = stride,
          .pad_top = static_cast<ptrdiff_t>(pad),
          .pad_left = static_cast<ptrdiff_t>(pad)};
}

TEST_CASE("pooling as networks have it is like its twins, forward and back") {
  for (const size_t size : {4, 7, 8, 9, 16, 17, 24, 31, 33}) {
    check_pool(pool_of(3, size, size + 1, 2, 2, 0));
    check_pool(pool_of(3, size + 1, size, 3, 2, 1));
    check_pool(pool_of(2, size, size, 3, 2, 0));
    check_pool(pool_of(2, size, size, 3, 1, 1));
    check_pool(pool_of(2, size, size, 2, 1, 0));
  }
  check_pool(pool_of(5, 13, 13, 13, 1, 0));  // the whole plane
}

TEST_CASE("pooling of any shape is like its twins, forward and back") {
  Random random{78};
  for (int turn = 0; turn < 500; ++turn) {
    Pool2d pool;
    pool.planes = random.between(1, 3);
    pool.height = random.between(1, 9), pool.width = random.between(1, 20);
    pool.out_height = random.between(1, 8), pool.out_width = random.between(1, 20);
    pool.kernel_height = random.between(1, 4), pool.kernel_width = random.between(1, 5);
    pool.stride_height = random.between(1, 3), pool.stride_width = random.between(1, 3);
    pool.dilation_height = random.between(1, 3), pool.dilation_width = random.between(1, 3);
    // Windows that lie wholly in padding included: their largest element is -infinity, at no position.
    pool.pad_top = static_cast<ptrdiff_t>(random.between(0, 6)) - 1;
    pool.pad_left = static_cast<ptrdiff_t>(random.between(0, 12)) - 2;
    if (turn % 2 == 0) pool.kernel_height = pool.kernel_width = pool.stride_height = pool.stride_width = 2;
    if (turn % 2 == 0) pool.dilation_height = pool.dilation_width = 1;
    check_pool(pool, static_cast<size_t>(turn));
  }
}

TEST_CASE("the largest element may be -infinity, and a NaN gives NaN or is passed over") {
  const Pool2d pool = pool_of(1, 2, 16, 2, 2, 0);
  std::vector<float> x(32, -kInf), y(8, 1);
  std::vector<int32_t> index(8, -1);
  max_pool2d(pool, x.data(), y.data(), index.data());
  for (size_t i = 0; i < 8; ++i) CHECK((y[i] == -kInf && index[i] == static_cast<int32_t>(2 * i)));
  for (size_t i = 0; i < 32; ++i) x[i] = i % 4 == 1 ? kNaN : 1;
  max_pool2d(pool, x.data(), y.data(), index.data());
  for (size_t i = 0; i < 8; ++i) CHECK((std::isnan(y[i]) || y[i] == 1));
  for (size_t i = 0; i < 8; ++i) CHECK((index[i] >= 0 && index[i] < 32));
}

// ---- functions of one value ----

/// The distance in units in the last place of the exact result, which for subnormal results is 2^-149.
double ulps(float got, double exact) {
  const auto rounded = static_cast<float>(exact);
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e30;
  if (std::bit_cast<uint32_t>(got) == std::bit_cast<uint32_t>(rounded)) return 0;
  if (std::isinf(rounded)) return std::isinf(got) ? 1e30 : ulps(got, std::copysign(0x1.fffffep127, exact));
  if (std::isinf(got)) return 1 + ulps(std::copysign(0x1.fffffep127f, got), exact);
  if (std::isnan(got)) return 1e30;
  int exponent = 0;
  std::frexp(exact, &exponent);
  return std::abs(static_cast<double>(got) - exact) / std::ldexp(1.0, std::max(exponent, -125) - 24);
}

using Map = void (*)(std::span<const float>, std::span<float>);

/// The largest error over one number in 97 of all 2^32, in blocks of a length that leaves a tail.
void check_function(Map function, double (*exact)(double), double bound, bool sign_of_zero = true) {
  constexpr size_t kBlock = 1023;
  std::vector<float> x(kBlock), out(kBlock);
  double worst = 0;
  float at = 0;
  size_t bad_zeros = 0;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32);) {
    size_t n = 0;
    for (; n < kBlock && bits < (uint64_t{1} << 32); bits += 97)
      x[n++] = std::bit_cast<float>(static_cast<uint32_t>(bits));
    function({x.data(), n}, {out.data(), n});
    for (size_t i = 0; i < n; ++i) {
      const double right = exact(static_cast<double>(x[i]));
      if (out[i] == 0 && right == 0) {
        bad_zeros += std::signbit(out[i]) != std::signbit(right);
        continue;
      }
      const double error = ulps(out[i], right);
      if (error > worst) worst = error, at = x[i];
    }
  }
  INFO("largest error " << worst << " ulp at " << at);
  CHECK(worst <= bound);
  if (sign_of_zero) CHECK(bad_zeros == 0);
}

void check_values(Map function, std::vector<float> x, const std::vector<float>& expected) {
  function(x, x);  // in place
  check_equal(x, expected);
}

constexpr float kTiny = 1e-45f;  // the least number above 0

TEST_CASE("exp is within 2 ulp everywhere and right at the edges") {
  check_function(
      exp, [](double v) { return std::exp(v); }, 2);
  check_values(exp, {0, -0.0f, kInf, -kInf, kNaN, 88.72284f, 89, 1000, -104, -1000, kTiny},
               {1, 1, kInf, 0, kNaN, kInf, kInf, kInf, 0, 0, 1});
}

TEST_CASE("log is within 2 ulp everywhere and right at the edges") {
  check_function(
      log, [](double v) { return std::log(v); }, 2);
  check_values(log, {1, 0, -0.0f, -1, -kTiny, kInf, -kInf, kNaN}, {0, -kInf, -kInf, kNaN, kNaN, kInf, kNaN, kNaN});
}

TEST_CASE("tanh is within 4 ulp everywhere and right at the edges") {
  check_function(
      tanh, [](double v) { return std::tanh(v); }, 4);
  check_values(tanh, {0, -0.0f, kInf, -kInf, kNaN, 20, -20, kTiny, -kTiny},
               {0, -0.0f, 1, -1, kNaN, 1, -1, kTiny, -kTiny});
}

TEST_CASE("sigmoid is within 4 ulp everywhere and right at the edges") {
  check_function(
      sigmoid, [](double v) { return 1 / (1 + std::exp(-v)); }, 4);
  check_values(sigmoid, {0, -0.0f, kInf, -kInf, kNaN, 100, -200}, {0.5f, 0.5f, 1, 0, kNaN, 1, 0});
}

TEST_CASE("erf is within 4 ulp everywhere and right at the edges") {
  check_function(
      erf, [](double v) { return std::erf(v); }, 4);
  check_values(erf, {0, -0.0f, kInf, -kInf, kNaN, 6, -6}, {0, -0.0f, 1, -1, kNaN, 1, -1});
}

TEST_CASE("relu and its gradient are right for every kind of number") {
  check_function(
      relu, [](double v) { return v <= 0 ? 0.0 : v; }, 0, false);
  const std::vector<float> y = {0, -0.0f, 1, -1, kInf, -kInf, kTiny, kNaN, 2};
  const std::vector<float> grad = {1, 2, 3, 4, 5, 6, kInf, 8, kNaN};
  std::vector<float> out(y.size());
  relu_grad(y, grad, out);
  check_equal(out, {0, 0, 3, 0, 5, 0, kInf, 0, kNaN});
  std::vector<float> in_place = grad;
  relu_grad(y, in_place, in_place);
  check_equal(in_place, out);
}

TEST_CASE("functions give the same for an element wherever it stands, and write nothing beyond") {
  const std::vector<float> values = random_floats(70, 5);
  for (const Map function : {Map{exp}, Map{log}, Map{tanh}, Map{sigmoid}, Map{erf}, Map{relu}}) {
    for (size_t n = 0; n < 70; ++n) {
      Guarded in({values.begin(), values.begin() + static_cast<ptrdiff_t>(n)}, n), out(n, n + 1, kNaN);
      function(in.span(), out.span());
      CHECK(out.intact());
      for (size_t i = 0; i < n; ++i) {
        float one = values[i];
        function({&one, 1}, {&one, 1});
        const bool same = std::bit_cast<uint32_t>(one) == std::bit_cast<uint32_t>(out.span()[i]);
        CHECK((same || (std::isnan(one) && std::isnan(out.span()[i]))));
      }
    }
  }
}

TEST_CASE("softmax and its logarithm are near their twins from 1 to 100,000 columns") {
  for (const size_t columns : {1, 2, 3, 4, 5, 7, 8, 10, 16, 17, 33, 100, 1000, 1001, 100000}) {
    CAPTURE(columns);
    const size_t rows = columns > 1000 ? 2 : 5;
    auto x = random_floats(rows * columns, 7);
    for (size_t i = 0; i < x.size(); ++i) x[i] *= 1 << i / columns % 5 * 2;  // rows of growing spread
    std::vector<float> expected(x.size());
    Guarded in(x, 1), out(x.size(), 2, kNaN);
    reference::softmax_rows(x, columns, expected);
    softmax_rows(in.span(), columns, out.span());
    // Terms and their sum are relatively right: exp (2 ulp, of a difference that is off by half a last place of at most
    // 2^7 for results that matter), columns / 16 additions per partial sum, a division.
    for (size_t i = 0; i < x.size(); ++i) {
      const double bound =
          (300 + static_cast<double>(columns) / 16) * kRound * static_cast<double>(expected[i]) + 1e-44;
      REQUIRE(std::abs(static_cast<double>(out.span()[i]) - static_cast<double>(expected[i])) <= bound);
    }
    CHECK(out.intact());
    softmax_rows(in.span(), columns, in.span());
    check_equal(in.span(), out.values());

    Guarded log_in(x, 3);
    reference::log_softmax_rows(x, columns, expected);
    log_softmax_rows(log_in.span(), columns, out.span());
    for (size_t i = 0; i < x.size(); ++i) {
      const double bound =
          (20 + static_cast<double>(columns) / 16) * kRound * (1 + 2 * std::abs(static_cast<double>(expected[i])));
      REQUIRE(std::abs(static_cast<double>(out.span()[i]) - static_cast<double>(expected[i])) <= bound);
    }
    CHECK(out.intact());
    log_softmax_rows(log_in.span(), columns, log_in.span());
    check_equal(log_in.span(), out.values());
  }
}

TEST_CASE("softmax passes on what is not finite as its formula does") {
  std::vector<float> x = {-kInf, -kInf, -kInf, 1, -kInf, 1, kNaN, 0, 0, kInf, 0, 0}, out(12), log_out(12);
  softmax_rows(x, 3, out);
  log_softmax_rows(x, 3, log_out);
  for (size_t i : {0, 1, 2, 6, 7, 8, 9, 10, 11}) CHECK_MESSAGE((i >= 10 || std::isnan(out[i])), i);
  CHECK(out[3] == 0.5f);
  CHECK(out[4] == 0);
  CHECK(log_out[4] == -kInf);
  CHECK(std::abs(log_out[3] + 0.693147181f) < 1e-6f);
  for (size_t i = 0; i < 3; ++i) CHECK(std::isnan(log_out[i]));
  const std::vector<float> five = {0, 0, 0, 0, 7};  // two rows and a rest
  std::vector<float> rest(5, 9);
  softmax_rows(five, 2, rest);
  CHECK(rest == std::vector<float>{0.5f, 0.5f, 0.5f, 0.5f, 9});
  softmax_rows({}, 3, {});
  softmax_rows({}, 0, {});
  log_softmax_rows({}, 0, {});
}

// ---- arithmetic ----

TEST_CASE("arithmetic on arrays equals its twins bit for bit, also in place") {
  for (size_t n = 0; n < 70; ++n) {
    CAPTURE(n);
    const auto a = random_floats(n, 1), b = random_floats(n, 2);
    std::vector<float> expected(n);
    using Binary = void (*)(std::span<const float>, std::span<const float>, std::span<float>);
    const Binary kernel[] = {add, subtract, multiply, divide};
    const Binary twin[] = {reference::add, reference::subtract, reference::multiply, reference::divide};
    for (size_t f = 0; f < 4; ++f) {
      Guarded left(a, n), right(b, n + 1), out(n, n + 2, kNaN);
      twin[f](a, b, expected);
      kernel[f](left.span(), right.span(), out.span());
      check_equal(out.span(), expected);
      CHECK(out.intact());
      kernel[f](left.span(), right.span(), left.span());
      check_equal(left.span(), expected);
    }
    Guarded x(a, n), y(b, n + 3);
    std::vector<float> expected_y = b;
    reference::add_scaled(0.37f, a, expected_y);
    add_scaled(0.37f, x.span(), y.span());
    check_equal(y.span(), expected_y);
    CHECK(y.intact());
    reference::scale_shift(a, 1.7f, -0.3f, expected);
    scale_shift(x.span(), 1.7f, -0.3f, x.span());
    check_equal(x.span(), expected);
    CHECK(x.intact());
    check_equal(std::vector<float>{sum(a), dot(a, b)}, {reference::sum(a), reference::dot(a, b)});
  }
  CHECK(sum({}) == 0);
  const std::vector<float> ones(1000, 1.0f);
  CHECK(sum(ones) == 1000);
  CHECK(dot(ones, ones) == 1000);
}

TEST_CASE("a step of gradient descent or Adam equals its twin bit for bit") {
  for (const size_t n : {0, 1, 3, 4, 7, 16, 33, 250}) {
    CAPTURE(n);
    const auto grad = random_floats(n, 1), weight = random_floats(n, 2), state = random_floats(n, 3);
    const auto square = magnitudes(random_floats(n, 4));
    for (const SgdStep& step : {SgdStep{.rate = 0.1f}, SgdStep{.rate = 0.1f, .weight_decay = 0.01f},
                                SgdStep{.rate = 0.03f, .momentum = 0.9f, .weight_decay = 0.001f},
                                SgdStep{.rate = 0.03f, .momentum = 0.9f, .weight_decay = 0.001f, .nesterov = true}}) {
      Guarded g(grad, n), v(state, n + 1), w(weight, n + 2);
      std::vector<float> expected_v = state, expected_w = weight;
      const bool has_velocity = step.momentum != 0;
      reference::sgd_step(step, grad, has_velocity ? std::span(expected_v) : std::span<float>{}, expected_w);
      sgd_step(step, g.span(), has_velocity ? v.span() : std::span<float>{}, w.span());
      check_equal(v.span(), expected_v);
      check_equal(w.span(), expected_w);
      CHECK((v.intact() && w.intact()));
    }
    for (const bool decoupled : {false, true}) {
      const AdamStep step{
          .rate = 0.001f, .weight_decay = 0.01f, .correction1 = 0.19f, .correction2 = 0.002f, .decoupled = decoupled};
      Guarded g(grad, n), first(state, n + 1), second(square, n + 2), w(weight, n + 3);
      std::vector<float> expected_first = state, expected_second = square, expected_w = weight;
      reference::adam_step(step, grad, expected_first, expected_second, expected_w);
      adam_step(step, g.span(), first.span(), second.span(), w.span());
      check_equal(first.span(), expected_first);
      check_equal(second.span(), expected_second);
      check_equal(w.span(), expected_w);
      CHECK((first.intact() && second.intact() && w.intact()));
    }
  }
}

TEST_CASE("training steps follow the formulas of their sources") {
  // torch.optim.SGD, by hand: g = 1 + 0.5 * 2 = 2, v = 0.5 * 4 + 2 = 4, w = 2 - 0.25 * 4.
  std::vector<float> w = {2}, v = {4}, g = {1};
  sgd_step({.rate = 0.25f, .momentum = 0.5f, .weight_decay = 0.5f}, g, v, w);
  CHECK(v[0] == 4);
  CHECK(w[0] == 1);
  // Nesterov: w = 2 - 0.25 * (2 + 0.5 * 4).
  w = {2}, v = {4};
  sgd_step({.rate = 0.25f, .momentum = 0.5f, .weight_decay = 0.5f, .nesterov = true}, g, v, w);
  CHECK(w[0] == 1);
  // Adam's first step moves by the rate against the gradient's sign, whatever its size (Kingma and Ba 2015, 2.1).
  for (const float gradient : {1e-3f, 1.0f, 300.0f, -5.0f}) {
    std::vector<float> first = {0}, second = {0};
    w = {1}, g = {gradient};
    adam_step({.rate = 0.01f, .correction1 = 1 - 0.9f, .correction2 = 1 - 0.999f}, g, first, second, w);
    CHECK(w[0] == doctest::Approx(gradient > 0 ? 0.99 : 1.01).epsilon(1e-5));
  }
}

// ---- the same everywhere ----

/// FNV-1a over the bits.
uint64_t hash_of(std::span<const float> values) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const float value : values) hash = (hash ^ std::bit_cast<uint32_t>(value)) * 0x100000001B3u;
  return hash;
}

TEST_CASE("the strict build gives the same bits natively and as WebAssembly") {
  // What the native build gave on the day this was written. A change of the order of summation changes the first two,
  // of an approximation the last; that both platforms agree is the point.
  if (is_relaxed()) return;
  const size_t m = 37, n = 45, k = 300;
  const auto a = random_floats(m * k, 1), b = random_floats(k * n, 2);
  std::vector<float> c(m * n);
  matmul(m, n, k, {a.data(), k, 1}, {b.data(), 1, k}, c.data(), n, false, scratch());
  matmul(1, n, k, {a.data(), k, 1}, {b.data(), 1, k}, c.data(), n, true, scratch());
  CHECK(hash_of(c) == 10886786601940019879u);

  uint64_t hash = 0;
  for (const Conv2d& conv : {conv_of(6, 15, 15, 10, 3, 2, 1), conv_of(8, 15, 15, 8, 3, 1, 1, 8)}) {
    const auto x = random_floats(2 * conv.x_size(), 3), weight = random_floats(conv.weight_size(), 4);
    const auto grad_y = random_floats(2 * conv.y_size(), 5);
    std::vector<float> y(grad_y.size()), grad_x(x.size()), grad_weight(weight.size()), grad_bias(conv.channels_out);
    conv2d(conv, 2, x.data(), weight.data(), nullptr, y.data(), scratch());
    conv2d_grad_input(conv, 2, weight.data(), grad_y.data(), grad_x.data(), scratch());
    conv2d_grad_weight(conv, 2, x.data(), grad_y.data(), grad_weight.data(), grad_bias.data(), scratch());
    for (const auto* values : {&y, &grad_x, &grad_weight, &grad_bias}) hash = hash * 31 + hash_of(*values);
  }
  CHECK(hash == 14306535902847638897u);

  std::vector<float> x = random_floats(5000, 6), out(5000);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= std::ldexp(1.0f, static_cast<int>(i % 24) - 16);
  hash = 0;
  for (const Map function : {Map{exp}, Map{log}, Map{tanh}, Map{sigmoid}, Map{erf}}) {
    function(x, out);
    for (float& value : out) value = std::isnan(value) ? 0 : value;  // a NaN's sign is the machine's own
    hash = hash * 31 + hash_of(out);
  }
  for (const size_t columns : {10, 250}) {
    softmax_rows(x, columns, out);
    hash = hash * 31 + hash_of(out);
    log_softmax_rows(x, columns, out);
    hash = hash * 31 + hash_of(out);
  }
  CHECK(hash == 13083820237017357394u);
}

}  // namespace
}  // namespace nibble::kernels
