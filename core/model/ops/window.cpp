#include "core/model/ops/window.hpp"

namespace nibble::ops {
namespace {

constexpr int64_t kLargestAttribute = (int64_t{1} << 31) - 1;  // sums and products of two stay within int64

enum class AutoPad : uint8_t { NotSet, SameUpper, SameLower, Valid };

AutoPad auto_pad_of(const Call& call) {
  const std::string text = call.text("auto_pad", "NOTSET");
  if (text == "NOTSET" || text.empty()) return AutoPad::NotSet;
  if (text == "SAME_UPPER") return AutoPad::SameUpper;
  if (text == "SAME_LOWER") return AutoPad::SameLower;
  if (text == "VALID") return AutoPad::Valid;
  call.fail("auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, it is " + text);
}

/// Begin and end of each axis; zeros where absent.
std::vector<int64_t> pads_of(const Call& call, size_t rank) {
  std::vector<int64_t> pads = call.integers("pads", std::vector<int64_t>(2 * rank, 0));
  if (pads.empty()) pads.assign(2 * rank, 0);
  if (pads.size() != 2 * rank) {
    call.fail("pads must have " + std::to_string(2 * rank) + " values, it has " + std::to_string(pads.size()));
  }
  for (const int64_t pad : pads) {
    if (pad < 0) call.refuse("pads must not be negative, one is " + std::to_string(pad));
    if (pad > kLargestAttribute) call.fail("a pad of " + std::to_string(pad) + " is too large");
  }
  return pads;
}

size_t spatial_rank(const Call& call, const Shape& x) {
  if (x.size() < 3) {
    call.fail("the input must have the shape [images, channels, ...], it is " + to_string(x));
  }
  if (x.size() - 2 > kMostSpatialAxes) {
    call.refuse("more than three spatial axes, the input is " + to_string(x));
  }
  return x.size() - 2;
}

Window empty_window(const Call& call, const Shape& x, std::vector<size_t> kernel) {
  const size_t rank = spatial_rank(call, x);
  Window window;
  window.kernel = std::move(kernel);
  window.stride = positive_attribute(call, "strides", rank);
  window.dilation = positive_attribute(call, "dilations", rank);
  window.pad_begin.resize(rank);
  window.pad_end.resize(rank);
  return window;
}

/// From the window's first element to its last.
int64_t reach_of(const Window& window, size_t axis) {
  return static_cast<int64_t>((window.kernel[axis] - 1) * window.dilation[axis] + 1);
}

void split_padding(Window& window, size_t axis, int64_t total, bool more_at_end) {
  const int64_t half = total / 2;
  window.pad_begin[axis] = static_cast<std::ptrdiff_t>(more_at_end ? half : total - half);
  window.pad_end[axis] = static_cast<std::ptrdiff_t>(more_at_end ? total - half : half);
}

}  // namespace

std::vector<size_t> positive_attribute(const Call& call, std::string_view name, size_t count) {
  std::vector<int64_t> values = call.integers(name, std::vector<int64_t>(count, 1));
  if (values.empty()) values.assign(count, 1);
  if (values.size() != count) {
    call.fail(std::string(name) + " must have " + std::to_string(count) + " values, it has " +
              std::to_string(values.size()));
  }
  std::vector<size_t> out;
  for (const int64_t value : values) {
    if (value < 1 || value > kLargestAttribute) {
      call.fail(std::string(name) + " must be at least 1 and below 2^31, one is " + std::to_string(value));
    }
    out.push_back(static_cast<size_t>(value));
  }
  return out;
}

std::vector<size_t> kernel_attribute(const Call& call, const Shape& x) {
  const size_t rank = spatial_rank(call, x);
  if (call.integers("kernel_shape").empty()) call.fail("attribute \"kernel_shape\" is missing");
  return positive_attribute(call, "kernel_shape", rank);
}

Window window_of(const Call& call, const Shape& x, std::vector<size_t> kernel, bool ceil_mode) {
  Window window = empty_window(call, x, std::move(kernel));
  window.in.assign(x.begin() + 2, x.end());
  const size_t rank = window.rank();
  const AutoPad auto_pad = auto_pad_of(call);
  const std::vector<int64_t> pads = auto_pad == AutoPad::NotSet ? pads_of(call, rank) : std::vector<int64_t>(2 * rank);
  for (size_t i = 0; i < rank; ++i) {
    const auto in = static_cast<int64_t>(window.in[i]), stride = static_cast<int64_t>(window.stride[i]);
    const int64_t reach = reach_of(window, i);
    if (in == 0) call.fail("an input without elements along a spatial axis: " + to_string(x));
    if (auto_pad == AutoPad::SameUpper || auto_pad == AutoPad::SameLower) {
      // As many outputs as strides begin on the input; what the last window lacks is padded, the odd one at the end
      // for SAME_UPPER.
      const int64_t out = (in - 1) / stride + 1;
      window.out.push_back(static_cast<size_t>(out));
      split_padding(window, i, std::max<int64_t>(0, (out - 1) * stride + reach - in), auto_pad == AutoPad::SameUpper);
      continue;
    }
    // Beyond this the outermost outputs see padding alone: no network means that, and a file could ask for any size.
    if (std::max(pads[i], pads[i + rank]) > in + reach) {
      call.fail("a pad of " + std::to_string(std::max(pads[i], pads[i + rank])) + " for an extent of " +
                std::to_string(in) + " and a window of " + std::to_string(reach));
    }
    window.pad_begin[i] = static_cast<std::ptrdiff_t>(pads[i]);
    window.pad_end[i] = static_cast<std::ptrdiff_t>(pads[i + rank]);
    const int64_t room = in + pads[i] + pads[i + rank] - reach;
    if (room < 0) {
      call.fail("a window of " + std::to_string(reach) + " is larger than the padded input, which has " +
                std::to_string(room + reach) + " along axis " + std::to_string(i + 2));
    }
    int64_t out = room / stride + 1;
    if (ceil_mode && room % stride != 0 && out * stride < in + pads[i]) ++out;
    window.out.push_back(static_cast<size_t>(out));
  }
  return window;
}

Window transposed_window_of(const Call& call, const Shape& x, std::vector<size_t> kernel) {
  Window window = empty_window(call, x, std::move(kernel));
  window.out.assign(x.begin() + 2, x.end());
  const size_t rank = window.out.size();
  const AutoPad auto_pad = auto_pad_of(call);
  std::vector<int64_t> wanted = call.integers("output_shape");
  if (wanted.size() == rank + 2) wanted.erase(wanted.begin(), wanted.begin() + 2);  // some exporters give all extents
  if (!wanted.empty() && wanted.size() != rank) {
    call.fail("output_shape must have " + std::to_string(rank) + " values");
  }
  std::vector<int64_t> more = call.integers("output_padding", std::vector<int64_t>(rank, 0));
  if (more.empty()) more.assign(rank, 0);
  if (more.size() != rank) call.fail("output_padding must have " + std::to_string(rank) + " values");
  const bool explicit_pads = auto_pad == AutoPad::NotSet && wanted.empty();
  const std::vector<int64_t> pads = explicit_pads ? pads_of(call, rank) : std::vector<int64_t>(2 * rank);
  for (size_t i = 0; i < rank; ++i) {
    const auto out = static_cast<int64_t>(window.out[i]), stride = static_cast<int64_t>(window.stride[i]);
    if (out == 0) call.fail("an input without elements along a spatial axis: " + to_string(x));
    // 2^62 is far away: out < 2^48 elements and stride < 2^31 could pass it, so they are held here.
    if (out > kLargestAttribute) call.refuse("an extent of " + std::to_string(out));
    if (more[i] < 0 || more[i] >= std::max(stride, static_cast<int64_t>(window.dilation[i]))) {
      call.fail("output_padding must be at least 0 and below the stride or the dilation, one is " +
                std::to_string(more[i]));
    }
    const int64_t natural = stride * (out - 1) + reach_of(window, i) + more[i];
    int64_t made = natural - pads[i] - pads[i + rank];
    if (explicit_pads) {
      window.pad_begin[i] = static_cast<std::ptrdiff_t>(pads[i]);
      window.pad_end[i] = static_cast<std::ptrdiff_t>(pads[i + rank]);
    } else {
      if (!wanted.empty())
        made = wanted[i];
      else if (auto_pad != AutoPad::Valid)
        made = stride * out;
      const int64_t most = natural + std::max(stride, static_cast<int64_t>(window.dilation[i])) - 1;
      if (made > std::max(most, stride * out)) {
        call.fail("output_shape asks for " + std::to_string(made) + " where the windows reach to " +
                  std::to_string(natural));
      }
      // The formula of ONNX's ConvTranspose for output_shape; the odd one goes to the end for SAME_UPPER alone.
      split_padding(window, i, std::max<int64_t>(0, natural - made), auto_pad == AutoPad::SameUpper);
    }
    if (made < 1) call.fail("the pads leave nothing of an output of " + std::to_string(natural));
    window.in.push_back(static_cast<size_t>(made));
  }
  return window;
}

Window on_three_axes(Window window) {
  const size_t missing = kMostSpatialAxes - window.rank();
  for (auto* values : {&window.in, &window.out, &window.kernel, &window.stride, &window.dilation}) {
    values->insert(values->begin(), missing, size_t{1});
  }
  for (auto* values : {&window.pad_begin, &window.pad_end}) {
    values->insert(values->begin(), missing, std::ptrdiff_t{0});
  }
  return window;
}

std::vector<Reach> reaches(const Window& window, size_t axis) {
  const auto in = static_cast<int64_t>(window.in[axis]), dilation = static_cast<int64_t>(window.dilation[axis]);
  std::vector<Reach> out(window.out[axis]);
  for (size_t o = 0; o < out.size(); ++o) {
    const int64_t start = static_cast<int64_t>(o * window.stride[axis]) - window.pad_begin[axis];
    const int64_t tap = start < 0 ? (-start + dilation - 1) / dilation : 0;
    const int64_t end =
        start >= in ? 0 : std::min(static_cast<int64_t>(window.kernel[axis]), (in - 1 - start) / dilation + 1);
    if (end <= tap) continue;
    out[o] = {static_cast<size_t>(start + tap * dilation), static_cast<size_t>(end - tap), static_cast<size_t>(tap)};
  }
  return out;
}

std::vector<size_t> padded_counts(const Window& window, size_t axis) {
  const int64_t padded = static_cast<int64_t>(window.in[axis]) + window.pad_begin[axis] + window.pad_end[axis];
  std::vector<size_t> out(window.out[axis]);
  for (size_t o = 0; o < out.size(); ++o) {
    const int64_t left = padded - static_cast<int64_t>(o * window.stride[axis]);
    const int64_t fit = (left - 1) / static_cast<int64_t>(window.dilation[axis]) + 1;
    out[o] = static_cast<size_t>(std::min(fit, static_cast<int64_t>(window.kernel[axis])));
  }
  return out;
}

}  // namespace nibble::ops
