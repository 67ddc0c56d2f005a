// Plain twins of compute.hpp: one element after the other, written for reading.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/kernels/reference.hpp"

namespace nibble::kernels::reference {
namespace {

/// The position that tap `tap` of the window at `out` reads, along one axis; below 0 or not below the extent: padding.
ptrdiff_t position(size_t out, size_t stride, ptrdiff_t pad, size_t tap, size_t dilation) {
  return static_cast<ptrdiff_t>(out * stride + tap * dilation) - pad;
}

bool inside(ptrdiff_t at, size_t extent) { return at >= 0 && at < static_cast<ptrdiff_t>(extent); }

/// Calls visit(output channel within y, input channel within x, output element, input element, weight element) for each
/// product that a convolution of one image is made of.
template <class Visit>
void for_each_product(const Conv2d& conv, Visit visit) {
  const size_t in_group = conv.channels_in / conv.groups, out_group = conv.channels_out / conv.groups;
  for (size_t o = 0; o < conv.channels_out; ++o) {
    for (size_t i = 0; i < conv.out_height; ++i) {
      for (size_t j = 0; j < conv.out_width; ++j) {
        const size_t y_at = (o * conv.out_height + i) * conv.out_width + j;
        for (size_t c = 0; c < in_group; ++c) {
          for (size_t kh = 0; kh < conv.kernel_height; ++kh) {
            const ptrdiff_t row = position(i, conv.stride_height, conv.pad_top, kh, conv.dilation_height);
            if (!inside(row, conv.height)) continue;
            for (size_t kw = 0; kw < conv.kernel_width; ++kw) {
              const ptrdiff_t column = position(j, conv.stride_width, conv.pad_left, kw, conv.dilation_width);
              if (!inside(column, conv.width)) continue;
              const size_t channel = o / out_group * in_group + c;
              const size_t x_at =
                  (channel * conv.height + static_cast<size_t>(row)) * conv.width + static_cast<size_t>(column);
              visit(y_at, x_at, ((o * in_group + c) * conv.kernel_height + kh) * conv.kernel_width + kw);
            }
          }
        }
      }
    }
  }
}

/// Calls visit(position in the plane) for each element of the window at (i, j), in the plane's order.
template <class Visit>
void for_each_in_window(const Pool2d& pool, size_t i, size_t j, Visit visit) {
  for (size_t kh = 0; kh < pool.kernel_height; ++kh) {
    const ptrdiff_t row = position(i, pool.stride_height, pool.pad_top, kh, pool.dilation_height);
    if (!inside(row, pool.height)) continue;
    for (size_t kw = 0; kw < pool.kernel_width; ++kw) {
      const ptrdiff_t column = position(j, pool.stride_width, pool.pad_left, kw, pool.dilation_width);
      if (inside(column, pool.width)) visit(static_cast<size_t>(row) * pool.width + static_cast<size_t>(column));
    }
  }
}

template <class Function>
void for_each_window(const Pool2d& pool, Function function) {
  for (size_t p = 0; p < pool.planes; ++p) {
    for (size_t i = 0; i < pool.out_height; ++i) {
      for (size_t j = 0; j < pool.out_width; ++j) function(p, i, j, (p * pool.out_height + i) * pool.out_width + j);
    }
  }
}

/// What the sum over the window at (i, j) is divided by.
double divisor(const Pool2d& pool, size_t i, size_t j, bool count_padding) {
  if (count_padding) return static_cast<double>(pool.kernel_height * pool.kernel_width);
  double count = 0;
  for_each_in_window(pool, i, j, [&](size_t) { ++count; });
  return count;
}

template <class Function>
void map(std::span<const float> x, std::span<float> out, Function function) {
  for (size_t i = 0; i < x.size(); ++i) out[i] = static_cast<float>(function(static_cast<double>(x[i])));
}

}  // namespace

void matmul(size_t m, size_t n, size_t k, MatrixView a, MatrixView b, float* c, size_t c_step, bool accumulate) {
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double sum = accumulate ? static_cast<double>(c[i * c_step + j]) : 0;
      for (size_t l = 0; l < k; ++l) {
        sum += static_cast<double>(a.data[i * a.row_step + l * a.column_step]) *
               static_cast<double>(b.data[l * b.row_step + j * b.column_step]);
      }
      c[i * c_step + j] = static_cast<float>(sum);
    }
  }
}

void conv2d(const Conv2d& conv, size_t images, const float* x, const float* weight, const float* bias, float* y) {
  const size_t plane = conv.out_height * conv.out_width;
  std::vector<double> sums(conv.y_size());
  for (size_t image = 0; image < images; ++image, x += conv.x_size(), y += conv.y_size()) {
    for (size_t i = 0; i < sums.size(); ++i) sums[i] = bias ? static_cast<double>(bias[i / plane]) : 0;
    for_each_product(conv, [&](size_t y_at, size_t x_at, size_t weight_at) {
      sums[y_at] += static_cast<double>(x[x_at]) * static_cast<double>(weight[weight_at]);
    });
    std::transform(sums.begin(), sums.end(), y, [](double sum) { return static_cast<float>(sum); });
  }
}

void conv2d_grad_input(const Conv2d& conv, size_t images, const float* weight, const float* grad_y, float* grad_x) {
  std::vector<double> sums(conv.x_size());
  for (size_t image = 0; image < images; ++image, grad_x += conv.x_size(), grad_y += conv.y_size()) {
    std::fill(sums.begin(), sums.end(), 0);
    for_each_product(conv, [&](size_t y_at, size_t x_at, size_t weight_at) {
      sums[x_at] += static_cast<double>(grad_y[y_at]) * static_cast<double>(weight[weight_at]);
    });
    std::transform(sums.begin(), sums.end(), grad_x, [](double sum) { return static_cast<float>(sum); });
  }
}

void conv2d_grad_weight(const Conv2d& conv, size_t images, const float* x, const float* grad_y, float* grad_weight,
                        float* grad_bias) {
  const size_t plane = conv.out_height * conv.out_width;
  std::vector<double> sums(grad_weight, grad_weight + conv.weight_size()), bias_sums(conv.channels_out);
  if (grad_bias) std::copy_n(grad_bias, conv.channels_out, bias_sums.begin());
  for (size_t image = 0; image < images; ++image, x += conv.x_size(), grad_y += conv.y_size()) {
    for_each_product(conv, [&](size_t y_at, size_t x_at, size_t weight_at) {
      sums[weight_at] += static_cast<double>(grad_y[y_at]) * static_cast<double>(x[x_at]);
    });
    for (size_t i = 0; i < conv.y_size(); ++i) bias_sums[i / plane] += static_cast<double>(grad_y[i]);
  }
  const auto rounded = [](double sum) { return static_cast<float>(sum); };
  std::transform(sums.begin(), sums.end(), grad_weight, rounded);
  if (grad_bias) std::transform(bias_sums.begin(), bias_sums.end(), grad_bias, rounded);
}

void max_pool2d(const Pool2d& pool, const float* x, float* y, int32_t* index) {
  for_each_window(pool, [&](size_t p, size_t i, size_t j, size_t at) {
    const float* plane = x + p * pool.height * pool.width;
    float largest = -std::numeric_limits<float>::infinity();
    int32_t where = -1;
    for_each_in_window(pool, i, j, [&](size_t position) {
      if (where >= 0 && !(plane[position] > largest)) return;
      if (plane[position] > largest) largest = plane[position];
      where = static_cast<int32_t>(position);
    });
    y[at] = largest;
    if (index) index[at] = where;
  });
}

void max_pool2d_grad(const Pool2d& pool, const float* grad_y, const int32_t* index, float* grad_x) {
  std::fill_n(grad_x, pool.planes * pool.height * pool.width, 0.0f);
  for_each_window(pool, [&](size_t p, size_t, size_t, size_t at) {
    if (index[at] >= 0) grad_x[p * pool.height * pool.width + static_cast<size_t>(index[at])] += grad_y[at];
  });
}

void average_pool2d(const Pool2d& pool, const float* x, float* y, bool count_padding) {
  for_each_window(pool, [&](size_t p, size_t i, size_t j, size_t at) {
    double sum = 0;
    for_each_in_window(
        pool, i, j, [&](size_t position) { sum += static_cast<double>(x[p * pool.height * pool.width + position]); });
    const double count = divisor(pool, i, j, count_padding);
    y[at] = count == 0 ? 0.0f : static_cast<float>(sum / count);
  });
}

void average_pool2d_grad(const Pool2d& pool, const float* grad_y, float* grad_x, bool count_padding) {
  std::vector<double> sums(pool.planes * pool.height * pool.width);
  for_each_window(pool, [&](size_t p, size_t i, size_t j, size_t at) {
    const double share = static_cast<double>(grad_y[at]) / divisor(pool, i, j, count_padding);
    for_each_in_window(pool, i, j, [&](size_t position) { sums[p * pool.height * pool.width + position] += share; });
  });
  std::transform(sums.begin(), sums.end(), grad_x, [](double sum) { return static_cast<float>(sum); });
}

void exp(std::span<const float> x, std::span<float> out) {
  map(x, out, [](double v) { return std::exp(v); });
}
void log(std::span<const float> x, std::span<float> out) {
  map(x, out, [](double v) { return std::log(v); });
}
void tanh(std::span<const float> x, std::span<float> out) {
  map(x, out, [](double v) { return std::tanh(v); });
}
void sigmoid(std::span<const float> x, std::span<float> out) {
  map(x, out, [](double v) { return 1 / (1 + std::exp(-v)); });
}
void erf(std::span<const float> x, std::span<float> out) {
  map(x, out, [](double v) { return std::erf(v); });
}
void relu(std::span<const float> x, std::span<float> out) {
  map(x, out, [](double v) { return v <= 0 ? 0.0 : v; });
}
void relu_grad(std::span<const float> y, std::span<const float> grad_y, std::span<float> grad_x) {
  for (size_t i = 0; i < y.size(); ++i) grad_x[i] = y[i] > 0 ? grad_y[i] : 0.0f;
}

void softmax_rows(std::span<const float> x, size_t columns, std::span<float> out) {
  for (size_t at = 0; at + columns <= x.size() && columns > 0; at += columns) {
    const auto row = x.subspan(at, columns);
    const double largest = static_cast<double>(*std::max_element(row.begin(), row.end()));
    double sum = 0;
    for (const float v : row) sum += std::exp(static_cast<double>(v) - largest);
    map(row, out.subspan(at, columns), [&](double v) { return std::exp(v - largest) / sum; });
  }
}

void log_softmax_rows(std::span<const float> x, size_t columns, std::span<float> out) {
  for (size_t at = 0; at + columns <= x.size() && columns > 0; at += columns) {
    const auto row = x.subspan(at, columns);
    const double largest = static_cast<double>(*std::max_element(row.begin(), row.end()));
    double sum = 0;
    for (const float v : row) sum += std::exp(static_cast<double>(v) - largest);
    map(row, out.subspan(at, columns), [&](double v) { return v - largest - std::log(sum); });
  }
}

void add(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] + b[i];
}
void subtract(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] - b[i];
}
void multiply(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] * b[i];
}
void divide(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] / b[i];
}
void scale_shift(std::span<const float> x, float scale, float shift, std::span<float> out) {
  for (size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale + shift;
}
void add_scaled(float alpha, std::span<const float> x, std::span<float> y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] = y[i] + alpha * x[i];
}

namespace {

/// Sixteen partial sums added as four vectors are: (first + second) + (third + fourth), then the four lanes alike.
float total(const float* partial) {
  float lane[4];
  for (int i = 0; i < 4; ++i) lane[i] = (partial[i] + partial[i + 4]) + (partial[i + 8] + partial[i + 12]);
  return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

}  // namespace

float sum(std::span<const float> x) {
  float partial[16] = {};
  for (size_t i = 0; i < x.size(); ++i) partial[i % 16] += x[i];
  return total(partial);
}

float dot(std::span<const float> a, std::span<const float> b) {
  float partial[16] = {};
  for (size_t i = 0; i < a.size(); ++i) partial[i % 16] += a[i] * b[i];
  return total(partial);
}

void sgd_step(const SgdStep& step, std::span<const float> grad, std::span<float> velocity, std::span<float> weight) {
  for (size_t i = 0; i < grad.size(); ++i) {
    const float g = grad[i] + step.weight_decay * weight[i];
    float direction = g;
    if (!velocity.empty()) {
      velocity[i] = step.momentum * velocity[i] + g;
      direction = step.nesterov ? g + step.momentum * velocity[i] : velocity[i];
    }
    weight[i] = weight[i] - step.rate * direction;
  }
}

void adam_step(const AdamStep& step, std::span<const float> grad, std::span<float> first, std::span<float> second,
               std::span<float> weight) {
  const float rate = step.rate / step.correction1, inverse = 1 / std::sqrt(step.correction2);
  for (size_t i = 0; i < grad.size(); ++i) {
    const float decay = step.weight_decay * weight[i];
    const float g = step.decoupled ? grad[i] : grad[i] + decay;
    const float w = step.decoupled ? weight[i] - step.rate * decay : weight[i];
    first[i] = step.beta1 * first[i] + (1 - step.beta1) * g;
    second[i] = step.beta2 * second[i] + (1 - step.beta2) * (g * g);
    weight[i] = w - rate * first[i] / (std::sqrt(second[i]) * inverse + step.epsilon);
  }
}

}  // namespace nibble::kernels::reference
