// A plain twin of every kernel: one element after the other, written for reading. The tests hold kernels.hpp against
// these, bit for bit. What the twins fix beyond kernels.hpp:
//   - min_max gives +0 for a zero of either sign;
//   - a product x * inverse_scale that is NaN (x is NaN, or 0 * infinity) takes the code of zero;
//   - the row and group kernels use inverse_scale = min(1 / scale, largest float), so a scale too small to invert gives
//     small codes, not NaN;
//   - quantization_error adds the squared errors of a run in four float sums and each of these, after the run, to the
//     double sum of the same lane;
//   - conversions to half and bfloat16 keep the sign and the upper payload bits of a NaN and make it quiet; the way
//   back
//     keeps every bit.
#pragma once

#include "core/kernels/compute.hpp"
#include "core/kernels/kernels.hpp"

namespace nibble::kernels::reference {

MinMax min_max(std::span<const float> x);
float abs_max(std::span<const float> x);
Moments moments(std::span<const float> x, double shift);
void histogram(std::span<const float> x, float lo, float hi, std::span<uint32_t> bins);
Difference difference(std::span<const float> before, std::span<const float> after);

/// By std::nth_element on a copy of all magnitudes: the one twin that allocates.
Kth kth_magnitude(std::span<const std::span<const float>> parts, size_t k);
float kth_value(std::span<const std::span<const float>> parts, size_t k, bool skip_zeros);
MagnitudeCounts count_magnitudes(std::span<const float> x, float t);
size_t threshold_mask(std::span<const float> x, float t, size_t drop_equal, std::span<uint64_t> mask);
size_t n_of_m_mask(std::span<const float> x, int n, int m, std::span<uint64_t> mask);
void apply_mask(std::span<const float> x, std::span<const uint64_t> mask, std::span<float> out);

/// The code of one value, in the whole range of a Grid.
int32_t code_of(float x, const Grid& grid);
void quantize(std::span<const float> x, const Grid& grid, std::span<int8_t> out);
void quantize(std::span<const float> x, const Grid& grid, std::span<uint8_t> out);
void quantize(std::span<const float> x, const Grid& grid, std::span<int16_t> out);
void quantize(std::span<const float> x, const Grid& grid, std::span<uint16_t> out);
void dequantize(std::span<const int8_t> codes, const Grid& grid, std::span<float> out);
void dequantize(std::span<const uint8_t> codes, const Grid& grid, std::span<float> out);
void dequantize(std::span<const int16_t> codes, const Grid& grid, std::span<float> out);
void dequantize(std::span<const uint16_t> codes, const Grid& grid, std::span<float> out);
void fake_quantize(std::span<const float> x, const Grid& grid, std::span<float> out);
void fake_quantize_stochastic(std::span<const float> x, const Grid& grid, uint64_t key, uint64_t first,
                              std::span<float> out);
double quantization_error(std::span<const float> x, const Grid& grid);
void quantize_rows(std::span<const float> x, size_t rows, std::span<float> scales, std::span<int8_t> out);
void quantize_groups_of_32(std::span<const float> x, std::span<float> scales, std::span<uint8_t> out);
void dequantize_groups_of_32(std::span<const uint8_t> codes, std::span<const float> scales, std::span<float> out);

void pack_bits(std::span<const uint8_t> codes, int bits, std::span<uint8_t> out);
void unpack_bits(std::span<const uint8_t> packed, int bits, std::span<uint8_t> codes);

size_t rans_encode(std::span<const uint8_t> symbols, std::span<const uint16_t, 256> frequencies,
                   std::span<uint16_t> words, std::span<uint32_t, kRansLanes> states);
bool rans_decode(std::span<const uint8_t> stream, std::span<const uint32_t, kRansLanes> states,
                 std::span<const uint16_t, 256> frequencies, std::span<uint8_t> symbols);

void transpose(std::span<const float> x, size_t rows, size_t columns, std::span<float> out);
float half_to_float(uint16_t half);
uint16_t float_to_half(float value);
float bfloat16_to_float(uint16_t value);
uint16_t float_to_bfloat16(float value);
void half_to_float(std::span<const uint16_t> x, std::span<float> out);
void float_to_half(std::span<const float> x, std::span<uint16_t> out);
void bfloat16_to_float(std::span<const uint16_t> x, std::span<float> out);
void float_to_bfloat16(std::span<const float> x, std::span<uint16_t> out);

// --- Twins of compute.hpp (compute_reference.cpp) --------------------------------------------------------------------
//
// Products, convolutions, averages and softmax accumulate in double and round once; functions of one value are the
// standard library's in double. Those kernels are therefore near their twins, not equal to them. Maximum pooling, sums,
// arithmetic and the steps of training are equal, bit for bit.

void matmul(size_t m, size_t n, size_t k, MatrixView a, MatrixView b, float* c, size_t c_step, bool accumulate);
void conv2d(const Conv2d& conv, size_t images, const float* x, const float* weight, const float* bias, float* y);
void conv2d_grad_input(const Conv2d& conv, size_t images, const float* weight, const float* grad_y, float* grad_x);
void conv2d_grad_weight(const Conv2d& conv, size_t images, const float* x, const float* grad_y, float* grad_weight,
                        float* grad_bias);

void max_pool2d(const Pool2d& pool, const float* x, float* y, int32_t* index);
void max_pool2d_grad(const Pool2d& pool, const float* grad_y, const int32_t* index, float* grad_x);
void average_pool2d(const Pool2d& pool, const float* x, float* y, bool count_padding);
void average_pool2d_grad(const Pool2d& pool, const float* grad_y, float* grad_x, bool count_padding);

void exp(std::span<const float> x, std::span<float> out);
void log(std::span<const float> x, std::span<float> out);
void tanh(std::span<const float> x, std::span<float> out);
void sigmoid(std::span<const float> x, std::span<float> out);
void erf(std::span<const float> x, std::span<float> out);
void relu(std::span<const float> x, std::span<float> out);
void relu_grad(std::span<const float> y, std::span<const float> grad_y, std::span<float> grad_x);
void softmax_rows(std::span<const float> x, size_t columns, std::span<float> out);
void log_softmax_rows(std::span<const float> x, size_t columns, std::span<float> out);

void add(std::span<const float> a, std::span<const float> b, std::span<float> out);
void subtract(std::span<const float> a, std::span<const float> b, std::span<float> out);
void multiply(std::span<const float> a, std::span<const float> b, std::span<float> out);
void divide(std::span<const float> a, std::span<const float> b, std::span<float> out);
void scale_shift(std::span<const float> x, float scale, float shift, std::span<float> out);
void add_scaled(float alpha, std::span<const float> x, std::span<float> y);
float sum(std::span<const float> x);
float dot(std::span<const float> a, std::span<const float> b);
void sgd_step(const SgdStep& step, std::span<const float> grad, std::span<float> velocity, std::span<float> weight);
void adam_step(const AdamStep& step, std::span<const float> grad, std::span<float> first, std::span<float> second,
               std::span<float> weight);

}  // namespace nibble::kernels::reference
