// How fast matrix product, convolution and training steps are: each beside the textbook's loop and beside the most that
// registers alone give (multiply and add; in the relaxed build multiply-add), all taking turns within one run. As a
// program it measures and prints; as a WebAssembly module without main() it offers the same cases to compute_bench.mjs.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/base/context.hpp"
#include "core/kernels/compute.hpp"
#include "core/kernels/simd.hpp"

float sink;  // takes a number of every result, and is seen from outside: no work is left out

namespace {

using namespace nibble;
using namespace nibble::kernels;

std::vector<float> numbers(size_t count, uint64_t seed, float size = 1) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = size * (2 * uniform24(seed, i) - 1);
  return values;
}

std::vector<float>& scratch() {
  static std::vector<float> floats(kComputeScratch);
  return floats;
}

/// One thing to time. `work` is floating-point operations per call, `items` images per call or 0. The loop is run only
/// where it ends within reason.
struct Case {
  std::string name;
  double work = 0;
  size_t items = 0;
  std::function<void()> kernel, loop;
};

// ---- matrix product ----

Case product_case(std::string name, size_t m, size_t n, size_t k, bool a_turned, bool b_turned) {
  const auto a = numbers(m * k, 1), b = numbers(k * n, 2);
  auto c = std::vector<float>(m * n);
  const size_t a_row = a_turned ? 1 : k, a_column = a_turned ? m : 1, b_row = b_turned ? 1 : n,
               b_column = b_turned ? k : 1;
  Case made{std::move(name), 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k), 0, {}, {}};
  made.kernel = [=]() mutable {
    matmul(m, n, k, {a.data(), a_row, a_column}, {b.data(), b_row, b_column}, c.data(), n, false, scratch());
    sink = c[0];
  };
  made.loop = [=]() mutable {
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) {
        float sum = 0;
        for (size_t l = 0; l < k; ++l) sum += a[i * a_row + l * a_column] * b[l * b_row + j * b_column];
        c[i * n + j] = sum;
      }
    }
    sink = c[0];
  };
  return made;
}

// ---- convolution ----

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

double work_of(const Conv2d& c, size_t images) {
  return 2.0 * static_cast<double>(images * c.y_size()) *
         static_cast<double>(c.channels_in / c.groups * c.kernel_height * c.kernel_width);
}

void loop_conv(const Conv2d& c, size_t images, const float* x, const float* weight, float* y) {
  const size_t in_group = c.channels_in / c.groups, out_group = c.channels_out / c.groups;
  for (size_t o = 0; o < images * c.channels_out; ++o) {
    const float* image = x + o / c.channels_out * c.x_size();
    const size_t channel = o % c.channels_out;
    for (size_t i = 0; i < c.out_height; ++i) {
      for (size_t j = 0; j < c.out_width; ++j) {
        float sum = 0;
        for (size_t d = 0; d < in_group; ++d) {
          for (size_t kh = 0; kh < c.kernel_height; ++kh) {
            for (size_t kw = 0; kw < c.kernel_width; ++kw) {
              const ptrdiff_t row = static_cast<ptrdiff_t>(i * c.stride_height + kh * c.dilation_height) - c.pad_top;
              const ptrdiff_t column = static_cast<ptrdiff_t>(j * c.stride_width + kw * c.dilation_width) - c.pad_left;
              if (row < 0 || column < 0) continue;
              const size_t at_row = static_cast<size_t>(row), at_column = static_cast<size_t>(column);
              if (at_row >= c.height || at_column >= c.width) continue;
              sum += image[((channel / out_group * in_group + d) * c.height + at_row) * c.width + at_column] *
                     weight[((channel * in_group + d) * c.kernel_height + kh) * c.kernel_width + kw];
            }
          }
        }
        y[(o * c.out_height + i) * c.out_width + j] = sum;
      }
    }
  }
}

enum class Way { kForward, kInput, kWeight };

Case conv_case(std::string name, const Conv2d& conv, size_t images = 1, Way way = Way::kForward) {
  auto x = numbers(images * conv.x_size(), 1), weight = numbers(conv.weight_size(), 2),
       bias = numbers(conv.channels_out, 3);
  auto y = numbers(images * conv.y_size(), 4);
  Case made{std::move(name), work_of(conv, images), 0, {}, {}};
  made.kernel = [=]() mutable {
    if (way == Way::kForward) {
      conv2d(conv, images, x.data(), weight.data(), bias.data(), y.data(), scratch());
    } else if (way == Way::kInput) {
      conv2d_grad_input(conv, images, weight.data(), y.data(), x.data(), scratch());
    } else {
      conv2d_grad_weight(conv, images, x.data(), y.data(), weight.data(), bias.data(), scratch());
    }
    sink = y[0] + x[0] + weight[0];
  };
  if (way != Way::kForward) return made;
  made.loop = [=]() mutable {
    loop_conv(conv, images, x.data(), weight.data(), y.data());
    sink = y[0];
  };
  return made;
}

// ---- training ----

/// A layer x [batch, in] W^T [in, out] + b with its gradients, and the steps that change it.
struct Dense {
  size_t in, out;
  std::vector<float> weight, bias, grad_weight, grad_bias, weight_speed, bias_speed;
  Dense(size_t inputs, size_t outputs, uint64_t seed)
      : in(inputs),
        out(outputs),
        weight(numbers(inputs * outputs, seed, 1 / std::sqrt(static_cast<float>(inputs)))),
        bias(outputs),
        grad_weight(inputs * outputs),
        grad_bias(outputs),
        weight_speed(inputs * outputs),
        bias_speed(outputs) {}
  void forward(size_t batch, const std::vector<float>& x, std::vector<float>& y) {
    for (size_t i = 0; i < batch; ++i) std::copy(bias.begin(), bias.end(), y.begin() + static_cast<ptrdiff_t>(i * out));
    matmul(batch, out, in, {x.data(), in, 1}, {weight.data(), 1, in}, y.data(), out, true, scratch());
  }
  void backward(size_t batch, const std::vector<float>& x, const std::vector<float>& grad_y, float* grad_x) {
    matmul(out, in, batch, {grad_y.data(), 1, out}, {x.data(), in, 1}, grad_weight.data(), in, false, scratch());
    std::fill(grad_bias.begin(), grad_bias.end(), 0.0f);
    for (size_t i = 0; i < batch; ++i) add_scaled(1, std::span(grad_y).subspan(i * out, out), grad_bias);
    if (grad_x) matmul(batch, in, out, {grad_y.data(), out, 1}, {weight.data(), in, 1}, grad_x, in, false, scratch());
  }
  void step(const SgdStep& sgd) {
    sgd_step(sgd, grad_weight, weight_speed, weight);
    sgd_step(sgd, grad_bias, bias_speed, bias);
  }
};

/// grad = (softmax(y) - label) / batch.
void loss_gradient(size_t batch, size_t classes, const std::vector<float>& y, std::vector<float>& grad) {
  softmax_rows(y, classes, grad);
  for (size_t i = 0; i < batch; ++i) grad[i * classes + i % classes] -= 1;
  scale_shift(grad, 1 / static_cast<float>(batch), 0, grad);
}

const SgdStep kStep{.rate = 0.01f, .momentum = 0.9f};

/// Dense layers with relu between them, trained on `batch` vectors.
struct Perceptron {
  size_t batch;
  std::vector<Dense> layers;
  std::vector<std::vector<float>> values, grads;
  Perceptron(size_t images, const std::vector<size_t>& widths) : batch(images) {
    values.push_back(numbers(batch * widths[0], 11)), grads.emplace_back(values[0].size());
    for (size_t i = 0; i + 1 < widths.size(); ++i) {
      layers.emplace_back(widths[i], widths[i + 1], i + 20);
      values.emplace_back(batch * widths[i + 1]), grads.emplace_back(batch * widths[i + 1]);
    }
  }
  void forward() {
    for (size_t i = 0; i < layers.size(); ++i) {
      layers[i].forward(batch, values[i], values[i + 1]);
      if (i + 1 < layers.size()) relu(values[i + 1], values[i + 1]);
    }
  }
  void backward(bool to_input) {
    loss_gradient(batch, layers.back().out, values.back(), grads.back());
    for (size_t i = layers.size(); i-- > 0;) {
      layers[i].backward(batch, values[i], grads[i + 1], i > 0 || to_input ? grads[i].data() : nullptr);
      if (i > 0) relu_grad(values[i], grads[i], grads[i]);
      layers[i].step(kStep);
    }
  }
};

/// conv20@5, pool, conv50@5, pool, dense 500, relu, dense 10: Caffe's LeNet, at 28 x 28.
struct LeNet {
  static constexpr size_t kBatch = 64;
  Conv2d first = conv_of(1, 28, 28, 20, 5, 1, 0), second = conv_of(20, 12, 12, 50, 5, 1, 0);
  Pool2d pool1{.planes = kBatch * 20,
               .height = 24,
               .width = 24,
               .out_height = 12,
               .out_width = 12,
               .kernel_height = 2,
               .kernel_width = 2,
               .stride_height = 2,
               .stride_width = 2};
  Pool2d pool2{.planes = kBatch * 50,
               .height = 8,
               .width = 8,
               .out_height = 4,
               .out_width = 4,
               .kernel_height = 2,
               .kernel_width = 2,
               .stride_height = 2,
               .stride_width = 2};
  std::vector<float> x = numbers(kBatch * 784, 1), w1 = numbers(500, 2, 0.2f), b1 = numbers(20, 3, 0.1f),
                     w2 = numbers(25000, 4, 0.05f), b2 = numbers(50, 5, 0.1f);
  std::vector<float> gw1 = w1, gb1 = b1, gw2 = w2, gb2 = b2, vw1 = std::vector<float>(500),
                     vb1 = std::vector<float>(20), vw2 = std::vector<float>(25000), vb2 = std::vector<float>(50);
  std::vector<float> y1 = std::vector<float>(kBatch * 11520), p1 = std::vector<float>(kBatch * 2880),
                     y2 = std::vector<float>(kBatch * 3200), gy1 = y1, gp1 = p1, gy2 = y2;
  std::vector<int32_t> i1 = std::vector<int32_t>(p1.size()), i2 = std::vector<int32_t>(kBatch * 800);
  Perceptron dense{kBatch, {800, 500, 10}};

  void forward() {
    conv2d(first, kBatch, x.data(), w1.data(), b1.data(), y1.data(), scratch());
    max_pool2d(pool1, y1.data(), p1.data(), i1.data());
    conv2d(second, kBatch, p1.data(), w2.data(), b2.data(), y2.data(), scratch());
    max_pool2d(pool2, y2.data(), dense.values[0].data(), i2.data());
    dense.forward();
  }
  void train() {
    forward();
    dense.backward(true);
    max_pool2d_grad(pool2, dense.grads[0].data(), i2.data(), gy2.data());
    for (auto* grad : {&gw1, &gb1, &gw2, &gb2}) std::fill(grad->begin(), grad->end(), 0.0f);
    conv2d_grad_weight(second, kBatch, p1.data(), gy2.data(), gw2.data(), gb2.data(), scratch());
    conv2d_grad_input(second, kBatch, w2.data(), gy2.data(), gp1.data(), scratch());
    max_pool2d_grad(pool1, gp1.data(), i1.data(), gy1.data());
    conv2d_grad_weight(first, kBatch, x.data(), gy1.data(), gw1.data(), gb1.data(), scratch());
    sgd_step(kStep, gw1, vw1, w1), sgd_step(kStep, gb1, vb1, b1);
    sgd_step(kStep, gw2, vw2, w2), sgd_step(kStep, gb2, vb2, b2);
  }
};

Case map_case(const char* name, void (*kernel)(std::span<const float>, std::span<float>), float (*loop)(float)) {
  constexpr size_t kCount = 16384;
  auto x = numbers(kCount, 5, 4), y = x;
  Case made{name, kCount, 0, {}, {}};
  made.kernel = [=]() mutable { kernel(x, y), sink = y[7]; };
  made.loop = [=]() mutable {
    for (size_t i = 0; i < kCount; ++i) y[i] = loop(x[i]);
    sink = y[7];
  };
  return made;
}

/// Sums in registers only: as many as hide the latency, and no memory.
void register_peak() {
  using simd::F32;
  F32 sum[12];
  const F32 factor = simd::in_register<F32>(0.5f), term = simd::in_register<F32>(0.25f);
  for (F32& s : sum) s = term;
#if defined(__clang__)
  _Pragma("clang loop unroll(disable)")
#endif
      for (int i = 0; i < 10000; ++i) {
    for (F32& s : sum) s = simd::multiply_add(s, factor, term);
  }
  F32 total(0.0f);
  for (const F32& s : sum) total = total + s;
  sink = total.get(0);
}

std::vector<Case> make_cases() {
  std::vector<Case> cases;
  cases.push_back({"register peak", 2.0 * 4 * 12 * 10000, 0, register_peak, {}});
  cases.push_back(product_case("matmul 256", 256, 256, 256, false, false));
  cases.push_back(product_case("matmul 512", 512, 512, 512, false, false));
  cases.push_back(product_case("matmul 1024", 1024, 1024, 1024, false, false));
  cases.push_back(product_case("matmul 512, B transposed", 512, 512, 512, false, true));
  cases.push_back(product_case("matmul 512, A transposed", 512, 512, 512, true, false));
  cases.push_back(product_case("dense 64 x 800 -> 500", 64, 500, 800, false, true));
  cases.push_back(product_case("dense 64 x 784 -> 300", 64, 300, 784, false, true));
  cases.push_back(product_case("dense gradient of weight", 500, 800, 64, true, false));
  cases.push_back(product_case("dense gradient of input", 64, 800, 500, false, false));
  cases.push_back(product_case("vector 1 x 800 -> 500", 1, 500, 800, false, true));
  cases.push_back(product_case("vector 1 x 1280 -> 1000, rows", 1, 1000, 1280, false, false));

  const Conv2d first = conv_of(1, 28, 28, 20, 5, 1, 0), second = conv_of(20, 12, 12, 50, 5, 1, 0);
  cases.push_back(conv_case("LeNet-5 first, 64 images", first, 64));
  cases.push_back(conv_case("LeNet-5 first, weight gradient", first, 64, Way::kWeight));
  cases.push_back(conv_case("LeNet-5 second, 64 images", second, 64));
  cases.push_back(conv_case("LeNet-5 second, weight gradient", second, 64, Way::kWeight));
  cases.push_back(conv_case("LeNet-5 second, input gradient", second, 64, Way::kInput));

  cases.push_back(conv_case("MobileNetV2 3x3/2 3->32 @224", conv_of(3, 224, 224, 32, 3, 2, 1)));
  cases.push_back(conv_case("MobileNetV2 depthwise 3x3 32 @112", conv_of(32, 112, 112, 32, 3, 1, 1, 32)));
  cases.push_back(conv_case("MobileNetV2 1x1 32->16 @112", conv_of(32, 112, 112, 16, 1, 1, 0)));
  cases.push_back(conv_case("MobileNetV2 1x1 16->96 @112", conv_of(16, 112, 112, 96, 1, 1, 0)));
  cases.push_back(conv_case("MobileNetV2 depthwise 3x3/2 96 @112", conv_of(96, 112, 112, 96, 3, 2, 1, 96)));
  cases.push_back(conv_case("MobileNetV2 depthwise 3x3 144 @56", conv_of(144, 56, 56, 144, 3, 1, 1, 144)));
  cases.push_back(conv_case("MobileNetV2 1x1 144->24 @56", conv_of(144, 56, 56, 24, 1, 1, 0)));
  cases.push_back(conv_case("MobileNetV2 depthwise 3x3 384 @14", conv_of(384, 14, 14, 384, 3, 1, 1, 384)));
  cases.push_back(conv_case("MobileNetV2 1x1 64->384 @14", conv_of(64, 14, 14, 384, 1, 1, 0)));
  cases.push_back(conv_case("MobileNetV2 1x1 384->64 @14", conv_of(384, 14, 14, 64, 1, 1, 0)));
  cases.push_back(conv_case("MobileNetV2 depthwise 3x3 960 @7", conv_of(960, 7, 7, 960, 3, 1, 1, 960)));
  cases.push_back(conv_case("MobileNetV2 1x1 160->960 @7", conv_of(160, 7, 7, 960, 1, 1, 0)));
  cases.push_back(conv_case("MobileNetV2 1x1 960->160 @7", conv_of(960, 7, 7, 160, 1, 1, 0)));
  cases.push_back(conv_case("MobileNetV3 depthwise 5x5 120 @28", conv_of(120, 28, 28, 120, 5, 1, 2, 120)));
  cases.push_back(conv_case("MobileNetV3 depthwise 5x5/2 240 @28", conv_of(240, 28, 28, 240, 5, 2, 2, 240)));
  cases.push_back(conv_case("UltraFace 3x3/2 3->16 @240x320", conv_of(3, 240, 320, 16, 3, 2, 1)));
  cases.push_back(conv_case("UltraFace depthwise 3x3 16 @120x160", conv_of(16, 120, 160, 16, 3, 1, 1, 16)));
  cases.push_back(conv_case("UltraFace 1x1 16->32 @120x160", conv_of(16, 120, 160, 32, 1, 1, 0)));
  cases.push_back(conv_case("UltraFace dilated 3x3 16->16 @30x40", conv_of(16, 30, 40, 16, 3, 1, 5, 1, 5)));
  cases.push_back(conv_case("UltraFace 1x1 128->128 @15x20", conv_of(128, 15, 20, 128, 1, 1, 0)));
  cases.push_back(conv_case("ResNet 3x3 64->64 @56", conv_of(64, 56, 56, 64, 3, 1, 1)));
  cases.push_back(conv_case("ResNet 3x3 256->256 @14", conv_of(256, 14, 14, 256, 3, 1, 1)));
  cases.push_back(conv_case("ResNet 3x3 512->512 @7", conv_of(512, 7, 7, 512, 3, 1, 1)));
  cases.push_back(conv_case("groups of 4, 3x3 128 @28", conv_of(128, 28, 28, 128, 3, 1, 1, 32)));
  cases.push_back(
      conv_case("depthwise 3x3 32 @28, weight gradient, 16", conv_of(32, 28, 28, 32, 3, 1, 1, 32), 16, Way::kWeight));
  cases.push_back(
      conv_case("depthwise 3x3 32 @28, input gradient, 16", conv_of(32, 28, 28, 32, 3, 1, 1, 32), 16, Way::kInput));
  cases.push_back(conv_case("3x3 32->64 @28, weight gradient, 16", conv_of(32, 28, 28, 64, 3, 1, 1), 16, Way::kWeight));
  cases.push_back(conv_case("3x3 32->64 @28, input gradient, 16", conv_of(32, 28, 28, 64, 3, 1, 1), 16, Way::kInput));

  const double lenet = 64 * 13.18e6, perceptron = 64 * 1.127e6;
  auto net = [] {
    static LeNet made;
    return &made;
  };
  cases.push_back({"LeNet-5 forward, 64 images", 64 * 4.586e6, 64, [=] { net()->forward(); }, {}});
  cases.push_back({"LeNet-5 training, 64 images", lenet, 64, [=] { net()->train(); }, {}});
  auto dense = [] {
    static Perceptron made(64, {784, 300, 100, 10});
    return &made;
  };
  cases.push_back(
      {"LeNet-300-100 training, 64 images", perceptron, 64, [=] { dense()->forward(), dense()->backward(false); }, {}});

  cases.push_back(map_case("exp", nibble::kernels::exp, [](float v) { return std::exp(v); }));
  cases.push_back(map_case("log", nibble::kernels::log, [](float v) { return std::log(v); }));
  cases.push_back(map_case("tanh", nibble::kernels::tanh, [](float v) { return std::tanh(v); }));
  cases.push_back(map_case("sigmoid", nibble::kernels::sigmoid, [](float v) { return 1 / (1 + std::exp(-v)); }));
  cases.push_back(map_case("erf", nibble::kernels::erf, [](float v) { return std::erf(v); }));
  auto rows = numbers(16384, 6, 4);
  cases.push_back({"softmax of 1024",
                   16384,
                   0,
                   [rows, out = rows]() mutable { softmax_rows(rows, 1024, out), sink = out[3]; },
                   {}});
  cases.push_back({"softmax of 10",
                   16380,
                   0,
                   [rows, out = rows]() mutable {
                     softmax_rows(std::span(rows).first(16380), 10, std::span(out).first(16380)), sink = out[3];
                   },
                   {}});
  const Pool2d pool{.planes = 64,
                    .height = 56,
                    .width = 56,
                    .out_height = 28,
                    .out_width = 28,
                    .kernel_height = 2,
                    .kernel_width = 2,
                    .stride_height = 2,
                    .stride_width = 2};
  auto planes = numbers(64 * 56 * 56, 7), pooled = std::vector<float>(64 * 28 * 28);
  auto index = std::vector<int32_t>(pooled.size());
  cases.push_back({"max pool 2x2/2, elements read",
                   64.0 * 56 * 56,
                   0,
                   [=]() mutable { max_pool2d(pool, planes.data(), pooled.data(), nullptr), sink = pooled[3]; },
                   {}});
  cases.push_back({"max pool 2x2/2 with index",
                   64.0 * 56 * 56,
                   0,
                   [=]() mutable { max_pool2d(pool, planes.data(), pooled.data(), index.data()), sink = pooled[3]; },
                   {}});
  Pool2d wide = pool;
  wide.kernel_height = wide.kernel_width = 3, wide.pad_top = wide.pad_left = 1;
  cases.push_back({"max pool 3x3/2, elements read",
                   64.0 * 56 * 56,
                   0,
                   [=]() mutable { max_pool2d(wide, planes.data(), pooled.data(), nullptr), sink = pooled[3]; },
                   {}});
  cases.push_back({"average pool 3x3/2, elements read",
                   64.0 * 56 * 56,
                   0,
                   [=]() mutable { average_pool2d(wide, planes.data(), pooled.data(), false), sink = pooled[3]; },
                   {}});
  Pool2d global{.planes = 1280, .height = 7, .width = 7, .kernel_height = 7, .kernel_width = 7};
  cases.push_back({"global average pool 7x7, elements read",
                   1280.0 * 49,
                   0,
                   [=]() mutable { average_pool2d(global, planes.data(), pooled.data(), true), sink = pooled[3]; },
                   {}});
  return cases;
}

std::vector<Case>& cases() {
  static std::vector<Case> made = make_cases();
  return made;
}

}  // namespace

// What compute_bench.mjs calls.
extern "C" {

int bench_is_relaxed() { return is_relaxed(); }
int bench_count() { return static_cast<int>(cases().size()); }
const char* bench_name(int i) { return cases()[static_cast<size_t>(i)].name.c_str(); }
double bench_work(int i) { return cases()[static_cast<size_t>(i)].work; }
int bench_items(int i) { return static_cast<int>(cases()[static_cast<size_t>(i)].items); }
int bench_has_loop(int i) { return static_cast<bool>(cases()[static_cast<size_t>(i)].loop); }

/// Runs case i's kernel, or its loop, so many times.
void bench_run(int i, int loop, int repeats) {
  const Case& one = cases()[static_cast<size_t>(i)];
  for (int r = 0; r < repeats; ++r) (loop ? one.loop : one.kernel)();
}

/// The same for a product C[m, n] = A B of one's own, for programs that bring their own data.
void bench_matmul(int m, int n, int k, const float* a, const float* b, float* c) {
  matmul(static_cast<size_t>(m), static_cast<size_t>(n), static_cast<size_t>(k), {a, static_cast<size_t>(k), 1},
         {b, static_cast<size_t>(n), 1}, c, static_cast<size_t>(n), false, scratch());
}
}

/// Usage: bench_compute [part of a name]
int main(int argc, char** argv) {
  const auto seconds = [](int i, int loop, int repeats) {
    const auto start = std::chrono::steady_clock::now();
    bench_run(i, loop, repeats);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::printf("%-44s %10s %12s %8s %8s\n", is_relaxed() ? "relaxed" : "strict", "GFLOP/s", "items/s", "of peak",
              "x loop");
  const int peak_repeats = std::max(1, static_cast<int>(0.002 / seconds(0, 0, 1)));
  for (int i = 0; i < bench_count(); ++i) {
    if (argc > 1 && !std::strstr(bench_name(i), argv[1])) continue;
    for (int warm = 0; warm < 3; ++warm) bench_run(i, 0, 1);
    const int repeats = std::max(1, static_cast<int>(0.004 / seconds(i, 0, 1)));
    // The peak takes turns with the kernel, so that both meet the same neighbours on the machine.
    double best = 1e9, best_peak = 1e9;
    for (int round = 0; round < 24; ++round) {
      best_peak = std::min(best_peak, seconds(0, 0, peak_repeats) / peak_repeats);
      best = std::min(best, seconds(i, 0, repeats) / repeats);
    }
    const double rate = bench_work(i) / best / 1e9, peak = bench_work(0) / best_peak / 1e9;
    std::printf("%-44s %10.2f", bench_name(i), rate);
    if (bench_items(i) > 0) {
      std::printf(" %12.0f", bench_items(i) / best);
    } else {
      std::printf(" %12s", "");
    }
    std::printf(" %8.2f", rate / peak);
    // A loop of seconds would tell no more.
    if (bench_has_loop(i) && bench_work(i) < 3e8)
      std::printf(" %8.1f", std::min(seconds(i, 1, 1), seconds(i, 1, 1)) / best);
    std::printf("\n");
  }
  return 0;
}
