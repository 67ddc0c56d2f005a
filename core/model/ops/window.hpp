// The sliding window of convolutions and pools: ONNX's strides, dilations, pads and auto_pad, checked.
#pragma once

#include <vector>

#include "core/model/ops/support.hpp"

namespace nibble::ops {

/// One entry per spatial axis, outermost first.
struct Window {
  std::vector<size_t> in, out, kernel, stride, dilation;
  std::vector<std::ptrdiff_t> pad_begin, pad_end;

  size_t rank() const { return in.size(); }
  size_t plane_in() const { return extent(in, 0, in.size()); }
  size_t plane_out() const { return extent(out, 0, out.size()); }
  size_t kernel_size() const { return extent(kernel, 0, kernel.size()); }
};

/// Up to three spatial axes are computed with.
constexpr size_t kMostSpatialAxes = 3;

/// The attributes' values, at least 1 each (`otherwise` where absent). `count` is how many there must be.
std::vector<size_t> positive_attribute(const Call& call, std::string_view name, size_t count);

/// Attribute kernel_shape, which pools must have. Throws Error{BadData} where it does not fit the shape [N, C, ...].
std::vector<size_t> kernel_attribute(const Call& call, const Shape& x);

/// The window of `kernel` on x [N, C, ...]. Throws Error{BadData} for attributes that break ONNX's rules and for a
/// window larger than what it moves over, and refuses more than three spatial axes. `ceil_mode`: the last window may
/// reach beyond the end, as long as it starts on x or its padding before.
Window window_of(const Call& call, const Shape& x, std::vector<size_t> kernel, bool ceil_mode);

/// The window of ConvTranspose, seen as that of the convolution whose gradient it is: `out` is x's extent, `in` the
/// extent of what is made.
Window transposed_window_of(const Call& call, const Shape& x, std::vector<size_t> kernel);

/// The same window on exactly three axes: extents of 1 in front.
Window on_three_axes(Window window);

/// Where a window's elements lie on x along one axis: `count` of them from `first` on, `dilation` apart; `tap` is the
/// kernel's first element among them.
struct Reach {
  size_t first = 0, count = 0, tap = 0;
};
/// One entry per output position along an axis.
std::vector<Reach> reaches(const Window& window, size_t axis);

/// Elements of each window along an axis that lie on x or its declared padding (ceil_mode reaches beyond).
std::vector<size_t> padded_counts(const Window& window, size_t axis);

}  // namespace nibble::ops
