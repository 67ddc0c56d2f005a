// The loops that run and train networks: matrix product, convolution, pooling, transcendental functions. Spans and
// pointers in and out, no allocation: what needs room gets it as `scratch`. All arrays are float32, row-major, images
// NCHW. Twins of each function are in kernels/reference.hpp.
//
// This is the one folder's half that exists in two builds. *strict*: products and sums are rounded one by one, in an
// order that depends on the sizes alone, so the same input gives the same bits natively and in every browser. *relaxed*
// (WebAssembly only, NIBBLE_RELAXED): matrix product and convolution use the relaxed multiply-add, faster and not the
// same everywhere. Nothing that decides codes from given weights calls this header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nibble::kernels {

/// True in the build with relaxed multiply-add.
bool is_relaxed();

// --- Matrix product (matmul.cpp) -------------------------------------------------------------------------------------

/// A matrix somewhere in memory: element (i, j) is data[i * row_step + j * column_step]. A transposed matrix is the
/// same memory with the two steps exchanged.
struct MatrixView {
  const float* data = nullptr;
  size_t row_step = 0, column_step = 1;
};

/// Floats of scratch that matmul and the convolutions need, whatever the sizes.
extern const size_t kComputeScratch;

/// C[m, n] = A[m, k] B[k, n], or C += A B with `accumulate`; sizes may be 0. Row i of C starts at c + i * c_step. C
/// overlaps neither.
void matmul(size_t m, size_t n, size_t k, MatrixView a, MatrixView b, float* c, size_t c_step, bool accumulate,
            std::span<float> scratch);

// --- Convolution (convolve.cpp) --------------------------------------------------------------------------------------

/// A two-dimensional (cross-)correlation as ONNX's Conv defines it. A one-dimensional one has height 1 throughout.
/// x is [channels_in, height, width], weight [channels_out, channels_in / groups, kernel_height, kernel_width],
/// y [channels_out, out_height, out_width]; y(o, i, j) = sum x(c, i * stride - pad + k * dilation) weight(o, c, k).
/// Padding at the bottom and right is what makes the output as large as it is.
struct Conv2d {
  size_t channels_in = 1, height = 1, width = 1;
  size_t channels_out = 1, out_height = 1, out_width = 1;
  size_t kernel_height = 1, kernel_width = 1;
  size_t stride_height = 1, stride_width = 1;
  size_t dilation_height = 1, dilation_width = 1;
  ptrdiff_t pad_top = 0, pad_left = 0;
  size_t groups = 1;

  size_t x_size() const { return channels_in * height * width; }
  size_t y_size() const { return channels_out * out_height * out_width; }
  size_t weight_size() const { return channels_out * (channels_in / groups) * kernel_height * kernel_width; }
};

/// `bias` may be null. `images` of x follow each other, as do those of y. Depthwise and pointwise shapes take ways of
/// their own.
void conv2d(const Conv2d& conv, size_t images, const float* x, const float* weight, const float* bias, float* y,
            std::span<float> scratch);
/// grad_x is overwritten. Also the forward pass of ConvTranspose (which swaps the roles of x and y).
void conv2d_grad_input(const Conv2d& conv, size_t images, const float* weight, const float* grad_y, float* grad_x,
                       std::span<float> scratch);
/// Adds to grad_weight, and to grad_bias where that is not null.
void conv2d_grad_weight(const Conv2d& conv, size_t images, const float* x, const float* grad_y, float* grad_weight,
                        float* grad_bias, std::span<float> scratch);

// --- Pooling (pool.cpp) ----------------------------------------------------------------------------------------------

/// Windows over planes: `planes` images of [height, width] give as many of [out_height, out_width].
struct Pool2d {
  size_t planes = 1, height = 1, width = 1, out_height = 1, out_width = 1;
  size_t kernel_height = 1, kernel_width = 1, stride_height = 1, stride_width = 1;
  size_t dilation_height = 1, dilation_width = 1;
  ptrdiff_t pad_top = 0, pad_left = 0;
};
/// Largest element of each window, padding left out; `index`, where not null, gets its position within the plane
/// (y * width + x), the first one of equals. A NaN in the window gives NaN or is passed over, as it comes. A window
/// that lies wholly in padding gives -infinity and the index -1, which max_pool2d_grad leaves out.
void max_pool2d(const Pool2d& pool, const float* x, float* y, int32_t* index);
/// grad_x, which the call clears, gets each grad_y at its index.
void max_pool2d_grad(const Pool2d& pool, const float* grad_y, const int32_t* index, float* grad_x);
/// Mean over the window; divided by the kernel's size, or by how much of it lies within the plane where
/// `count_padding` is false (0 where nothing does). Padding beyond the declared one, from ceil_mode, is the caller's to
/// handle.
void average_pool2d(const Pool2d& pool, const float* x, float* y, bool count_padding);
void average_pool2d_grad(const Pool2d& pool, const float* grad_y, float* grad_x, bool count_padding);

// --- Functions of one value (functions.cpp) --------------------------------------------------------------------------
//
// Our own approximations by +, -, * and / alone, so that they are the same everywhere; the largest error is given in
// units in the last place (ulp) of the exact result, and tested over the whole range against double. `out` may be `x`.

void exp(std::span<const float> x, std::span<float> out);      ///< 2 ulp; +0 below -104, infinity above 88.72284
void log(std::span<const float> x, std::span<float> out);      ///< 2 ulp; -infinity at 0, NaN below
void tanh(std::span<const float> x, std::span<float> out);     ///< 4 ulp
void sigmoid(std::span<const float> x, std::span<float> out);  ///< 1 / (1 + exp(-x)), 4 ulp
void erf(std::span<const float> x, std::span<float> out);      ///< 4 ulp
void relu(std::span<const float> x, std::span<float> out);     ///< max(x, 0); NaN stays
/// grad_x = y > 0 ? grad_y : 0, y being relu's output (or its input: the two give the same).
void relu_grad(std::span<const float> y, std::span<const float> grad_y, std::span<float> grad_x);
/// Rows of `columns`: exp(x - max) / sum, in place or not. A row of -infinity gives NaN, as the formula does. What is
/// beyond the last whole row is not touched.
void softmax_rows(std::span<const float> x, size_t columns, std::span<float> out);
/// x - max - log(sum(exp(x - max))).
void log_softmax_rows(std::span<const float> x, size_t columns, std::span<float> out);

// --- Arithmetic on whole arrays (arithmetic.cpp) ---------------------------------------------------------------------

void add(std::span<const float> a, std::span<const float> b, std::span<float> out);
void subtract(std::span<const float> a, std::span<const float> b, std::span<float> out);
void multiply(std::span<const float> a, std::span<const float> b, std::span<float> out);
void divide(std::span<const float> a, std::span<const float> b, std::span<float> out);
/// out = x * scale + shift.
void scale_shift(std::span<const float> x, float scale, float shift, std::span<float> out);
/// y += alpha * x.
void add_scaled(float alpha, std::span<const float> x, std::span<float> y);
/// Sum and dot product in float with sixteen partial sums (four vectors), element i in number i modulo 16; for
/// gradients and normalisations.
float sum(std::span<const float> x);
float dot(std::span<const float> a, std::span<const float> b);

/// One step of stochastic gradient descent with momentum as PyTorch defines it (torch.optim.SGD, dampening 0):
/// g += weight_decay * w; v = momentum * v + g; w -= rate * (nesterov ? g + momentum * v : v). `velocity` may be empty
/// where momentum is 0.
struct SgdStep {
  float rate = 0, momentum = 0, weight_decay = 0;
  bool nesterov = false;
};
void sgd_step(const SgdStep& step, std::span<const float> grad, std::span<float> velocity, std::span<float> weight);

/// One step of Adam (Kingma and Ba 2015, algorithm 1) or, with `decoupled`, AdamW (Loshchilov and Hutter 2019,
/// algorithm 2: w -= rate * weight_decay * w first; otherwise weight_decay * w is added to the gradient).
/// correction1 = 1 - beta1^t, correction2 = 1 - beta2^t are the caller's. Computed as
/// w -= (rate / correction1) m / (sqrt(v) (1 / sqrt(correction2)) + epsilon).
struct AdamStep {
  float rate = 0, beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, weight_decay = 0;
  float correction1 = 1, correction2 = 1;
  bool decoupled = false;
};
void adam_step(const AdamStep& step, std::span<const float> grad, std::span<float> first, std::span<float> second,
               std::span<float> weight);

}  // namespace nibble::kernels
