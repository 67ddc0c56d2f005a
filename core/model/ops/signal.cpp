// Signal processing: windows and Fourier transforms.
#include <cmath>
#include <complex>
#include <numbers>

#include "core/model/ops/shape_parts.hpp"

namespace nibble::ops {

namespace {

using Complex = std::complex<double>;

/// Coefficients of 1, cos(x) and cos(2x).
struct CosineWindow {
  double constant, once, twice;
};

std::vector<Tensor> cosine_window(Call& call, const CosineWindow& window) {
  const std::vector<int64_t> given = call.integers(0);
  if (given.size() != 1) call.fail("wants one size");
  const size_t size = count_of(call, given[0], "the size");
  const DType dtype = call.type("output_datatype", DType::Float32);
  check_size(call, DType::Float64, {size});
  const bool periodic = call.integer("periodic", 1) != 0;
  const double period = std::max(1.0, static_cast<double>(size) - (periodic ? 0 : 1));
  std::vector<double> values(size, 1);
  for (size_t i = 0; i < size && size > 1; ++i) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(i) / period;
    values[i] = window.constant - window.once * std::cos(angle) + window.twice * std::cos(2 * angle);
  }
  return {from_numbers(call, dtype, {size}, values)};
}

std::vector<Tensor> hann_window(Call& call) { return cosine_window(call, {0.5, 0.5, 0}); }
std::vector<Tensor> hamming_window(Call& call) { return cosine_window(call, {25.0 / 46, 21.0 / 46, 0}); }
std::vector<Tensor> blackman_window(Call& call) { return cosine_window(call, {0.42, 0.5, 0.08}); }

// std::complex's own product looks for infinities first.
Complex product(Complex a, Complex b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

Complex unit(double turns) { return {std::cos(2 * std::numbers::pi * turns), std::sin(2 * std::numbers::pi * turns)}; }

/// The discrete Fourier transform of any length in n log n steps: radix 2 for powers of two (Cooley and Tukey 1965),
/// the chirp of Bluestein (1970) otherwise, which makes the transform a convolution of a power of two.
class Fourier {
 public:
  explicit Fourier(size_t length) : length_(length), size_(1) {
    const bool direct = (length & (length - 1)) == 0;
    while (size_ < (direct ? length : 2 * length - 1)) size_ *= 2;
    roots_.resize(size_ / 2);
    for (size_t i = 0; i < roots_.size(); ++i) {
      roots_[i] = unit(-static_cast<double>(i) / static_cast<double>(size_));
    }
    if (direct) return;
    chirp_.resize(length);
    response_.assign(size_, 0);
    for (size_t i = 0; i < length; ++i) {
      const uint64_t square = uint64_t{i} * i % (2 * uint64_t{length});
      chirp_[i] = unit(-static_cast<double>(square) / (2 * static_cast<double>(length)));
      response_[i] = std::conj(chirp_[i]);
      if (i) response_[size_ - i] = response_[i];
    }
    radix2(response_);
  }

  void forward(std::vector<Complex>& x) const {
    if (chirp_.empty()) return radix2(x);
    std::vector<Complex> room(size_, 0);
    for (size_t i = 0; i < length_; ++i) room[i] = product(x[i], chirp_[i]);
    radix2(room);
    for (size_t i = 0; i < size_; ++i) room[i] = std::conj(product(room[i], response_[i]));
    radix2(room);  // of the conjugate: the inverse transform, conjugated
    const double scale = 1 / static_cast<double>(size_);
    for (size_t i = 0; i < length_; ++i) x[i] = product(std::conj(room[i]), chirp_[i]) * scale;
  }

  void inverse(std::vector<Complex>& x) const {
    for (Complex& value : x) value = std::conj(value);
    forward(x);
    const double scale = 1 / static_cast<double>(length_);
    for (Complex& value : x) value = std::conj(value) * scale;
  }

 private:
  void radix2(std::vector<Complex>& x) const {
    for (size_t i = 1, j = 0; i < size_; ++i) {  // bit reversal
      size_t bit = size_ / 2;
      for (; j & bit; bit /= 2) j ^= bit;
      j ^= bit;
      if (i < j) std::swap(x[i], x[j]);
    }
    for (size_t half = 1; half < size_; half *= 2) {
      const size_t stride = size_ / (2 * half);
      for (size_t start = 0; start < size_; start += 2 * half) {
        for (size_t i = 0; i < half; ++i) {
          const Complex even = x[start + i], odd = product(x[start + half + i], roots_[i * stride]);
          x[start + i] = even + odd;
          x[start + half + i] = even - odd;
        }
      }
    }
  }

  size_t length_, size_;
  std::vector<Complex> roots_, chirp_, response_;
};

size_t one_number(const Call& call, size_t input, std::string_view what) {
  const std::vector<int64_t> values = call.integers(input);
  if (values.size() != 1) call.fail("wants one number for " + std::string(what));
  return count_of(call, values[0], what);
}

std::vector<Tensor> dft(Call& call) {
  const Tensor& x = call.in(0);
  const Shape& shape = x.shape();
  const bool inverse = call.integer("inverse", 0) != 0, onesided = call.integer("onesided", 0) != 0;
  if (shape.size() < 2 || shape.back() < 1 || shape.back() > 2) {
    call.fail("wants real or complex numbers along the last axis, found " + to_string(shape));
  }
  int64_t given = call.opset < 20 ? call.integer("axis", 1) : -2;
  if (call.opset >= 20 && call.has(2)) {
    const std::vector<int64_t> axes = call.integers(2);
    if (axes.size() != 1) call.fail("wants one axis");
    given = axes[0];
  }
  const size_t axis = axis_of(call, given, shape.size());
  if (axis + 1 == shape.size()) call.fail("the last axis holds real and imaginary parts, it cannot be transformed");
  // One-sided and inverse: half a spectrum in, real numbers out.
  const bool to_real = inverse && onesided, from_half = to_real;
  const size_t bins = shape[axis], parts = shape.back(), out_parts = to_real ? 1 : 2;
  size_t length = from_half ? (bins > 0 ? 2 * (bins - 1) : 0) : bins;
  if (call.has(1)) length = one_number(call, 1, "dft_length");
  if (length == 0) call.fail("cannot transform a length of 0");
  check_size(call, DType::Complex128, {length, 4});
  Shape out_shape = shape;
  out_shape[axis] = onesided && !inverse ? length / 2 + 1 : length;
  out_shape.back() = out_parts;
  check_size(call, DType::Float64, out_shape);
  check_size(call, DType::Float64, shape);
  const size_t outer = extent(shape, 0, axis), inner = extent(shape, axis + 1, shape.size() - 1);
  const size_t made = out_shape[axis], read = std::min(bins, from_half ? length / 2 + 1 : length);
  const std::vector<double> in = numbers_of(call, x);
  std::vector<double> out(elements_of(out_shape));
  const Fourier fourier(length);
  std::vector<Complex> line(length);
  for (size_t o = 0; o < outer; ++o) {
    for (size_t i = 0; i < inner; ++i) {
      std::fill(line.begin(), line.end(), 0);
      for (size_t k = 0; k < read; ++k) {
        const size_t at = ((o * bins + k) * inner + i) * parts;
        line[k] = {in[at], parts == 2 ? in[at + 1] : 0};
        if (from_half && k > 0 && 2 * k != length) line[length - k] = std::conj(line[k]);
      }
      inverse ? fourier.inverse(line) : fourier.forward(line);
      for (size_t k = 0; k < made; ++k) {
        const size_t at = ((o * made + k) * inner + i) * out_parts;
        out[at] = line[k].real();
        if (out_parts == 2) out[at + 1] = line[k].imag();
      }
    }
  }
  return {from_numbers(call, x.dtype(), out_shape, out)};
}

std::vector<Tensor> stft(Call& call) {
  const Tensor& x = call.in(0);
  const Shape& shape = x.shape();
  if (shape.size() < 2 || shape.size() > 3 || (shape.size() == 3 && (shape[2] < 1 || shape[2] > 2))) {
    call.fail("wants signals as batch x length x 1 or 2, found " + to_string(shape));
  }
  const size_t batch = shape[0], samples = shape[1], parts = shape.size() == 3 ? shape[2] : 1;
  const size_t step = one_number(call, 1, "frame_step");
  std::vector<double> window;
  if (call.has(2)) window = numbers_of(call, call.in(2));
  const size_t length = call.has(3) ? one_number(call, 3, "frame_length") : window.size();
  if (window.empty()) window.assign(std::min(length, samples), 1);
  if (step == 0 || length == 0 || length > samples || window.size() != length) {
    call.fail("cannot take frames of " + std::to_string(length) + " with a window of " + std::to_string(window.size()) +
              " every " + std::to_string(step) + " of " + std::to_string(samples) + " samples");
  }
  const bool onesided = call.integer("onesided", 1) != 0;
  if (onesided && parts == 2) call.fail("the spectrum of complex numbers has two sides");
  const size_t frames = (samples - length) / step + 1, bins = onesided ? length / 2 + 1 : length;
  const Shape out_shape = {batch, frames, bins, 2};
  check_size(call, DType::Float64, out_shape);
  check_size(call, DType::Complex128, {length, 4});
  const std::vector<double> in = numbers_of(call, x);
  std::vector<double> out;
  out.reserve(elements_of(out_shape));
  const Fourier fourier(length);
  std::vector<Complex> line(length);
  for (size_t b = 0; b < batch; ++b) {
    for (size_t f = 0; f < frames; ++f) {
      for (size_t i = 0; i < length; ++i) {
        const size_t at = (b * samples + f * step + i) * parts;
        line[i] = Complex(in[at], parts == 2 ? in[at + 1] : 0) * window[i];
      }
      fourier.forward(line);
      for (size_t i = 0; i < bins; ++i) out.insert(out.end(), {line[i].real(), line[i].imag()});
    }
  }
  return {from_numbers(call, x.dtype(), out_shape, out)};
}

}  // namespace

std::span<const Op> signal_ops() {
  static const std::vector<Op> table = {
      {"HannWindow", hann_window}, {"HammingWindow", hamming_window}, {"BlackmanWindow", blackman_window},
      {"DFT", dft, nullptr},       {"STFT", stft, nullptr},
  };
  return table;
}

}  // namespace nibble::ops
