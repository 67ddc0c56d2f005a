// Convolutions as products whose one side is gathered from the image while it is packed (product.hpp).
#include <algorithm>

#include "core/kernels/compute.hpp"
#include "core/kernels/product.hpp"

namespace nibble::kernels {
namespace {

using product::Periodic;
using product::Target;
using simd::F32;
using simd::load_at;
using simd::multiply_add;
using simd::store_at;

/// The matrix of patches of some images, never stored: row (c, kh, kw), column (image, i, j) is the element of channel
/// c at (i * stride_height + top + kh * tap_height, j * stride_width + left + kw * tap_width), or 0 outside.
struct Patches {
  size_t height, width, plane;  // of what is read; floats from channel to channel
  size_t image_step;
  size_t kernel_height, kernel_width;
  size_t out_height, out_width;
  size_t stride_height, stride_width;
  int64_t top, left, tap_height, tap_width;  // wide enough for any kernel and dilation

  size_t taps() const { return kernel_height * kernel_width; }
  size_t pixels() const { return out_height * out_width; }
};

Patches patches_of(const Conv2d& conv) {
  return {conv.height,
          conv.width,
          conv.height * conv.width,
          conv.x_size(),
          conv.kernel_height,
          conv.kernel_width,
          conv.out_height,
          conv.out_width,
          conv.stride_height,
          conv.stride_width,
          -static_cast<int64_t>(conv.pad_top),
          -static_cast<int64_t>(conv.pad_left),
          static_cast<int64_t>(conv.dilation_height),
          static_cast<int64_t>(conv.dilation_width)};
}

/// The first of `count` steps of `stride` from `origin` that is not below `limit`.
size_t first_at(int64_t limit, int64_t origin, size_t stride, size_t count) {
  if (origin >= limit) return 0;
  const auto distance = static_cast<uint64_t>(limit - origin);
  const uint64_t steps = stride == 1 ? distance : (distance + stride - 1) / stride;
  return static_cast<size_t>(std::min<uint64_t>(steps, count));
}

/// Calls visit(output position within [column, column + count), length, start of what is read) for each run of one row
/// of patches that lies inside the image. Runs come in order; what is between them is padding.
template <class Visit>
void for_each_run(const Patches& p, size_t row, size_t column, size_t count, Visit visit) {
  const size_t channel = row / p.taps(), tap = row % p.taps();
  const int64_t top = p.top + static_cast<int64_t>(tap / p.kernel_width) * p.tap_height;
  const int64_t left = p.left + static_cast<int64_t>(tap % p.kernel_width) * p.tap_width;
  const size_t low = first_at(0, left, p.stride_width, p.out_width);
  const size_t high = first_at(static_cast<int64_t>(p.width), left, p.stride_width, p.out_width);
  size_t image = column / p.pixels(), i = column % p.pixels() / p.out_width, j = column % p.out_width;
  for (size_t at = 0; at < count;) {
    const size_t end = std::min(p.out_width, j + count - at);
    const int64_t y = static_cast<int64_t>(uint64_t{i} * p.stride_height) + top;
    const size_t from = std::max(j, low), to = std::min(end, high);
    if (y >= 0 && y < static_cast<int64_t>(p.height) && from < to) {
      const int64_t x = static_cast<int64_t>(uint64_t{from} * p.stride_width) + left;
      visit(at + from - j, to - from,
            image * p.image_step + channel * p.plane + static_cast<size_t>(y) * p.width + static_cast<size_t>(x));
    }
    at += end - j;
    j = 0;
    if (++i == p.out_height) i = 0, ++image;
  }
}

/// Copies every `stride`-th element.
inline void copy_run(const float* from, size_t stride, size_t count, float* to) {
  size_t j = 0;
  if (stride == 1) {
    for (; j + 4 <= count; j += 4) store_at(to + j, load_at(from + j));
    for (; j < count; ++j) to[j] = from[j];
    return;
  }
  for (; j < count; ++j) to[j] = from[j * stride];
}

/// One row of patches, `count` columns from `column`.
void gather_row(const Patches& p, const float* x, size_t row, size_t column, size_t count, float* out) {
  size_t done = 0;
  for_each_run(p, row, column, count, [&](size_t at, size_t length, size_t source) {
    for (; done < at; ++done) out[done] = 0;
    copy_run(x + source, p.stride_width, length, out + at);
    done = at + length;
  });
  for (; done < count; ++done) out[done] = 0;
}

/// Adds one row of patches to where it came from.
void scatter_row(const Patches& p, const float* in, size_t row, size_t column, size_t count, float* x) {
  for_each_run(p, row, column, count, [&](size_t at, size_t length, size_t source) {
    for (size_t j = 0; j < length; ++j) x[source + j * p.stride_width] += in[at + j];
  });
}

/// A part of the images laid out so that every row of patches lies in it as runs of neighbours, one run per output row:
/// with the padding, and for a stride of s in s phases (all columns that are equal modulo s next to each other). It is
/// the images themselves where they already are like that.
struct Window {
  const float* data = nullptr;
  size_t image_step = 0, channel_step = 0, row_step = 0;    // floats; the row is an output row's
  size_t first_image = 0, first_row = 0, first_column = 0;  // the output pixel that `data` starts at
  size_t readable = 0;                                      // floats from `data` on
  // Where it is a copy: how many images, channels, rows and phases, and of what.
  bool copied = false;
  size_t images = 0, first_channel = 0, channels = 0, rows = 0, phases = 0, phase_length = 0, phase_step = 0,
         skipped = 0;
  int64_t top = 0, left = 0;
  size_t offset[product::kDepth];  // of the rows of patches that it is made for

  /// Where output pixel (image, i, j) is.
  size_t at(size_t image, size_t i, size_t j) const {
    return (image - first_image) * image_step + (i - first_row) * row_step + j - first_column;
  }
};

/// What one axis of a window looks like.
struct Axis {
  int64_t start = 0;              // the position that tap offset 0 of output 0 reads
  size_t stride = 1, extent = 0;  // of what is read
  size_t taps = 1;
  int64_t step = 1, lowest = 0;  // from tap to tap; the smallest tap offset
  size_t reach = 0;              // the largest less the smallest tap offset

  Axis(int64_t origin, size_t by, size_t size, size_t kernel, int64_t tap)
      : start(origin), stride(by), extent(size), taps(kernel), step(tap) {
    const int64_t last = static_cast<int64_t>(kernel - 1) * tap;
    lowest = std::min<int64_t>(0, last);
    reach = static_cast<size_t>(std::min<int64_t>(std::max<int64_t>(0, last) - lowest, INT32_MAX));
  }
  /// All taps of the outputs [first, last] are inside.
  bool inside(size_t first, size_t last) const {
    const int64_t low = start + lowest + static_cast<int64_t>(uint64_t{first} * stride);
    return low >= 0 && reach < INT32_MAX &&
           low + static_cast<int64_t>(uint64_t{last - first} * stride + reach) < static_cast<int64_t>(extent);
  }
  size_t tap_offset(size_t tap) const { return static_cast<size_t>(static_cast<int64_t>(tap) * step - lowest); }
};

constexpr size_t kBeyond = 3;  // floats that copying a line may write after it

/// Every `stride`-th element. May write kBeyond beyond the last, and reads at most `readable`.
inline void copy_phase(const float* from, size_t readable, size_t stride, size_t count, float* to) {
  size_t j = 0;
  if (stride == 1) {
    const size_t whole = (count + 3) / 4 * 4 <= readable ? count : count / 4 * 4;
    for (; j < whole; j += 4) store_at(to + j, load_at(from + j));
  } else if (stride == 2) {
    const size_t whole = (count + 3) / 4 * 8 <= readable ? count : count > 0 ? (count - 1) / 4 * 4 : 0;
    for (; j < whole; j += 4) {
      store_at(to + j, simd::even_lanes(load_at(from + 2 * j), load_at(from + 2 * j + 4)));
    }
  }
  for (; j < count; ++j) to[j] = from[j * stride];
}

constexpr size_t kNowhere = SIZE_MAX;

/// For all rows of a window that is a copy: visit(where the image has that row, or kNowhere, where it is in the
/// window).
template <class Visit>
inline void for_each_row(const Patches& p, const Window& w, Visit visit) {
  size_t at = 0;
  for (size_t image = w.first_image; image < w.first_image + w.images; ++image) {
    for (size_t c = w.first_channel; c < w.first_channel + w.channels; ++c) {
      const size_t plane = image * p.image_step + c * p.plane;
      for (size_t r = 0; r < w.rows; ++r, at += w.phases * w.phase_step) {
        const int64_t y = w.top + static_cast<int64_t>(uint64_t{r} * w.skipped);
        visit(y >= 0 && y < static_cast<int64_t>(p.height) ? plane + static_cast<size_t>(y) * p.width : kNowhere, at);
      }
    }
  }
}

/// For all lines of such a window, a line being one phase of a row: visit(where the image has its elements from `low`
/// on or kNowhere, where the line starts in the window, low, high). Elements outside [low, high) are padding.
template <class Visit>
void for_each_line(const Patches& p, const Window& w, Visit visit) {
  for (size_t phase = 0; phase < w.phases; ++phase) {
    const int64_t left = w.left + static_cast<int64_t>(phase);
    const size_t low = first_at(0, left, p.stride_width, w.phase_length);
    const size_t high = std::max(low, first_at(static_cast<int64_t>(p.width), left, p.stride_width, w.phase_length));
    const auto start =
        static_cast<size_t>(low < high ? left + static_cast<int64_t>(uint64_t{low} * p.stride_width) : 0);
    for_each_row(p, w, [&](size_t row, size_t at) {
      visit(row == kNowhere || low == high ? kNowhere : row + start, at + phase * w.phase_step, low, high);
    });
  }
}

/// Zeros; may write kBeyond beyond the last.
inline void clear(float* to, size_t count) {
  for (size_t q = 0; q < count; q += 4) store_at(to + q, F32(0.0f));
}

/// Fills a window of one phase. What is written beyond a line is the start of the next, which comes later.
void copy_one_phase(const Patches& p, const Window& w, const float* x, size_t readable, float* room) {
  const size_t length = w.phase_length, low = first_at(0, w.left, p.stride_width, length);
  const size_t high = std::max(low, first_at(static_cast<int64_t>(p.width), w.left, p.stride_width, length));
  const auto start = w.left + static_cast<int64_t>(uint64_t{low} * p.stride_width);
  for_each_row(p, w, [&](size_t row, size_t at) {
    float* to = room + at;
    if (row == kNowhere || low == high) return clear(to, length);
    clear(to, low);
    const size_t from = row + static_cast<size_t>(start);
    copy_phase(x + from, readable - from, p.stride_width, high - low, to + low);
    clear(to + high, length - high);
  });
}

/// Fills a window of stride 2: both phases of a row in one pass over it.
void copy_two_phases(const Patches& p, const Window& w, const float* x, float* room) {
  const size_t length = w.phase_length;
  const size_t low0 = first_at(0, w.left, 2, length), low1 = first_at(0, w.left + 1, 2, length);
  const size_t high0 = std::max(low0, first_at(static_cast<int64_t>(p.width), w.left, 2, length));
  const size_t high1 = std::max(low1, first_at(static_cast<int64_t>(p.width), w.left + 1, 2, length));
  const size_t low = std::max(low0, low1), high = std::min(high0, high1);
  for_each_row(p, w, [&](size_t row, size_t at) {
    float *even = room + at, *odd = even + w.phase_step;
    if (row == kNowhere) return std::fill_n(even, w.phase_step + length, 0.0f), void();
    const float* from = x + row;
    const auto at_column = [&](size_t q, int64_t phase) { return from[w.left + phase + 2 * static_cast<int64_t>(q)]; };
    const auto one = [&](size_t q) {
      even[q] = q >= low0 && q < high0 ? at_column(q, 0) : 0.0f;
      odd[q] = q >= low1 && q < high1 ? at_column(q, 1) : 0.0f;
    };
    size_t q = 0;
    for (; q < std::min(low, length); ++q) one(q);
    for (; q + 4 <= high; q += 4) {
      const float* both = from + (w.left + 2 * static_cast<int64_t>(q));
      const F32 first = load_at(both), second = load_at(both + 4);
      store_at(even + q, simd::even_lanes(first, second));
      store_at(odd + q, simd::odd_lanes(first, second));
    }
    for (; q < length; ++q) one(q);
  });
}

Axis vertical_of(const Patches& p) { return {p.top, p.stride_height, p.height, p.kernel_height, p.tap_height}; }
Axis horizontal_of(const Patches& p) { return {p.left, p.stride_width, p.width, p.kernel_width, p.tap_width}; }

/// Floats that a copy takes for one channel of one image and so many rows of `wide` outputs; may be enormous.
double window_size(const Patches& p, const Axis& vertical, const Axis& horizontal, size_t rows, size_t wide) {
  const double phases = p.kernel_width == 1 ? 1.0 : static_cast<double>(p.stride_width);
  const double row_stride = p.kernel_height == 1 ? 1.0 : static_cast<double>(p.stride_height);
  return (static_cast<double>(rows - 1) * row_stride + static_cast<double>(vertical.reach) + 1) * phases *
         static_cast<double>(wide + horizontal.reach / p.stride_width + kBeyond);
}

/// Makes the window for the columns [column, column + columns) and the rows [first, first + depth) of patches, depth at
/// most kDepth. False where it does not fit into `room` floats.
bool open_window(const Patches& p, const float* x, size_t readable, size_t column, size_t columns, size_t first,
                 size_t depth, float* room, size_t room_size, Window& window) {
  const size_t taps = p.taps(), pixels = p.pixels();
  const size_t low_channel = first / taps, channels = (first + depth - 1) / taps + 1 - low_channel;
  const size_t low_image = column / pixels, images = (column + columns - 1) / pixels + 1 - low_image;
  const size_t low_row = images > 1 ? 0 : column % pixels / p.out_width;
  const size_t high_row = images > 1 ? p.out_height - 1 : (column + columns - 1) % pixels / p.out_width;
  const Axis vertical = vertical_of(p), horizontal = horizontal_of(p);
  // A piece of a single row needs no more than itself, as in one-dimensional convolutions.
  const bool one_row = images == 1 && low_row == high_row;
  const size_t low_column = one_row ? column % p.out_width : 0, wide = one_row ? columns : p.out_width;
  window.first_image = low_image, window.first_row = low_row, window.first_column = low_column;

  window.copied = false;
  size_t line = 0, tap_row = 0, phase_step = 0;  // floats of a stored row, from one tap to the next, of a phase
  if (p.stride_width == 1 && vertical.inside(low_row, high_row) &&
      horizontal.inside(low_column, low_column + wide - 1)) {
    const auto top = vertical.start + vertical.lowest + static_cast<int64_t>(low_row * p.stride_height);
    const size_t start = low_image * p.image_step + low_channel * p.plane + static_cast<size_t>(top) * p.width +
                         static_cast<size_t>(horizontal.start + horizontal.lowest + static_cast<int64_t>(low_column));
    window.data = x + start;
    window.readable = readable - start;
    window.image_step = p.image_step, window.channel_step = p.plane;
    line = p.width, tap_row = p.width, window.row_step = p.stride_height * p.width;
  } else {
    // Taps in one column only need one phase; taps in one row only need the rows that outputs start at.
    const size_t phases = p.kernel_width == 1 ? 1 : p.stride_width;
    const size_t phase_length = wide + horizontal.reach / p.stride_width;
    phase_step = phase_length + (phases > 1 ? kBeyond : 0);
    const size_t row_stride = p.kernel_height == 1 ? 1 : p.stride_height;
    const size_t skipped = p.kernel_height == 1 ? p.stride_height : 1;
    if (window_size(p, vertical, horizontal, high_row - low_row + 1, wide) * static_cast<double>(images * channels) >
        static_cast<double>(room_size - product::kSlack)) {
      return false;
    }
    const size_t rows = (high_row - low_row) * row_stride + vertical.reach + 1;
    line = phases * phase_step, tap_row = line, window.row_step = row_stride * line;
    window.channel_step = rows * line, window.image_step = channels * window.channel_step;
    window.data = room;
    window.readable = room_size;
    window.copied = true;
    window.images = images, window.first_channel = low_channel, window.channels = channels, window.rows = rows;
    window.phases = phases, window.phase_length = phase_length, window.phase_step = phase_step,
    window.skipped = skipped;
    window.top = vertical.start + vertical.lowest + static_cast<int64_t>(uint64_t{low_row} * p.stride_height);
    window.left = horizontal.start + horizontal.lowest + static_cast<int64_t>(uint64_t{low_column} * p.stride_width);
    const auto copy_line = [&](size_t from, size_t to, size_t low, size_t high) {
      float* line_start = room + to;
      if (from == kNowhere) return std::fill_n(line_start, phase_length, 0.0f), void();
      for (size_t q = 0; q < low; ++q) line_start[q] = 0;
      // What it writes beyond is padding, space between phases, or the next line, which comes later.
      copy_phase(x + from, readable - from, p.stride_width, high - low, line_start + low);
      for (size_t q = high; q < phase_length; ++q) line_start[q] = 0;
    };
    if (phases == 1) {
      copy_one_phase(p, window, x, readable, room);
    } else if (p.stride_width == 2) {
      copy_two_phases(p, window, x, room);
    } else {
      for_each_line(p, window, copy_line);
    }
  }
  size_t channel = 0, kh = first % taps / p.kernel_width, kw = first % p.kernel_width;
  for (size_t l = 0; l < depth; ++l) {
    const size_t across = horizontal.tap_offset(kw);
    window.offset[l] = channel * window.channel_step + vertical.tap_offset(kh) * tap_row +
                       (p.stride_width == 1 ? across : across % p.stride_width * phase_step + across / p.stride_width);
    if (++kw < p.kernel_width) continue;
    kw = 0;
    if (++kh < p.kernel_height) continue;
    kh = 0, ++channel;
  }
  return true;
}

/// Puts what has been added to a window into the images that it was made of.
void close_window(const Patches& p, const Window& window, float* x) {
  if (!window.copied) return;
  for_each_line(p, window, [&](size_t to, size_t from, size_t low, size_t high) {
    if (to == kNowhere) return;
    const float* line = window.data + from;
    float* image = x + to;
    if (p.stride_width == 1) {
      std::copy(line + low, line + high, image);
    } else {
      for (size_t q = low; q < high; ++q) image[(q - low) * p.stride_width] = line[q];
    }
  });
}

/// A run of output pixels in one row: `length` of them from `at` on.
struct Run {
  size_t at, length;
};

/// The runs that `count` columns from `column` on consist of; returns how many.
struct RunFinder {
  const Patches& patches;
  const Window& window;
  size_t image, i, j;
  RunFinder(const Patches& p, const Window& w, size_t column)
      : patches(p),
        window(w),
        image(column / p.pixels()),
        i(column % p.pixels() / p.out_width),
        j(column % p.out_width) {}
  /// The next run, at most `most` long.
  Run next(size_t most) {
    const Run run{window.at(image, i, j), std::min(most, patches.out_width - j)};
    j += run.length;
    if (j < patches.out_width) return run;
    j = 0;
    if (++i == patches.out_height) i = 0, ++image;
    return run;
  }
};

constexpr size_t kScatteredColumns = 512;  // at most, at a time

/// Adds rows [first, first + depth) of patches, columns [column, column + columns), to where they came from.
void scatter(const Patches& p, const float* piece, size_t column, size_t columns, size_t first, size_t depth, float* x,
             size_t writable, std::span<float> room) {
  Window window;
  for (size_t l0 = 0; l0 < depth; l0 += product::kDepth) {
    const size_t some = std::min(product::kDepth, depth - l0);
    const float* rows = piece + l0 * columns;
    if (!open_window(p, x, writable, column, columns, first + l0, some, room.data(), room.size(), window)) {
      for (size_t l = 0; l < some; ++l) scatter_row(p, rows + l * columns, first + l0 + l, column, columns, x);
      continue;
    }
    float* base = window.copied ? room.data() : x + (window.data - x);
    Run runs[kScatteredColumns];
    size_t count = 0;
    RunFinder finder(p, window, column);
    for (size_t at = 0; at < columns; at += runs[count++].length) runs[count] = finder.next(columns - at);
    // Row by row: neighbouring taps add to nearly the same places, and those just written are slow to read again.
    for (size_t l = 0; l < some; ++l) {
      const float* from = rows + l * columns;
      float* start = base + window.offset[l];
      for (size_t r = 0; r < count; ++r) {
        float* to = start + runs[r].at;
        const size_t length = runs[r].length;
        size_t j = 0;
        for (; j + 4 <= length; j += 4) store_at(to + j, load_at(to + j) + load_at(from + j));
        for (; j < length; ++j) to[j] += from[j];
        from += length;
      }
    }
    close_window(p, window, x);
  }
}

/// Packs patches as B: depth (c, kh, kw), columns pixels.
struct PackPatches {
  Patches patches;
  const float* x;
  size_t readable;  // floats from x on

  void operator()(size_t column, size_t columns, size_t first, size_t depth, float* to, float* temporary) const {
    Window window;
    if (!open_window(patches, x, readable, column, columns, first, depth, temporary, product::kTemporary / 2, window)) {
      return gather(column, columns, first, depth, to, temporary);
    }
    RunFinder finder(patches, window, column);
    for (size_t j = 0; j < columns; j += product::kColumns, to += depth * product::kColumns) {
      const size_t lanes = std::min(product::kColumns, columns - j), width = product::panel_width(columns - j);
      Run runs[product::kColumns];
      size_t count = 0;
      for (size_t lane = 0; lane < lanes; lane += runs[count++].length) runs[count] = finder.next(lanes - lane);
      if (count == 1 && lanes == product::kColumns) {
        const float* from = window.data + runs[0].at;
        for (size_t l = 0; l < depth; ++l) {
          const F32 low = load_at(from + window.offset[l]), high = load_at(from + window.offset[l] + 4);
          store_at(to + l * product::kColumns, low), store_at(to + l * product::kColumns + 4, high);
        }
        continue;
      }
      const size_t furthest = *std::max_element(window.offset, window.offset + depth);
      if (runs[count - 1].at + furthest + product::kColumns > window.readable ||
          runs[0].at + furthest + product::kColumns > window.readable) {
        for (size_t l = 0; l < depth; ++l) {
          float* lane = to + l * width;
          for (size_t r = 0; r < count; lane += runs[r++].length) {
            std::copy_n(window.data + runs[r].at + window.offset[l], runs[r].length, lane);
          }
        }
        continue;
      }
      // What is copied beyond a run is overwritten by the next one, and at last by the next row.
      for (size_t l = 0; l < depth; ++l) {
        const float* from = window.data + window.offset[l];
        float* lane = to + l * width;
        for (size_t r = 0; r < count; lane += runs[r++].length) {
          const F32 low = load_at(from + runs[r].at), high = load_at(from + runs[r].at + 4);
          store_at(lane, low), store_at(lane + 4, high);
        }
      }
    }
  }

  /// The same for any shape, row by row.
  void gather(size_t column, size_t columns, size_t first, size_t depth, float* to, float* row) const {
    const size_t whole = columns / product::kColumns * product::kColumns, left = columns - whole;
    const size_t width = product::panel_width(left);
    for (size_t l = 0; l < depth; ++l) {
      gather_row(patches, x, first + l, column, columns, row);
      float* panel = to + l * product::kColumns;
      for (size_t j = 0; j < whole; j += product::kColumns, panel += depth * product::kColumns) {
        store_at(panel, load_at(row + j));
        store_at(panel + 4, load_at(row + j + 4));
      }
      if (left == 0) continue;
      float* last = to + whole * depth + l * width;
      for (size_t j = 0; j < width; ++j) last[j] = j < left ? row[whole + j] : 0.0f;
    }
  }
};

/// Packs patches turned round: depth pixels, columns (c, kh, kw).
struct PackTurnedPatches {
  Patches patches;
  const float* x;
  size_t readable;

  void operator()(size_t column, size_t columns, size_t first, size_t depth, float* to, float* temporary) const {
    Window window;
    for (size_t j0 = 0; j0 < columns; j0 += product::kDepth) {
      const size_t some = std::min(product::kDepth, columns - j0);
      float* panels = to + j0 * depth;
      if (!open_window(patches, x, readable, first, depth, column + j0, some, temporary, product::kTemporary, window)) {
        gather(column + j0, some, first, depth, panels, temporary);
        continue;
      }
      for (size_t j = 0; j < some; j += product::kColumns, panels += depth * product::kColumns) {
        const size_t lanes = std::min(product::kColumns, some - j), width = product::panel_width(some - j);
        pack_panel(window, window.offset + j, lanes, width, first, depth, panels);
      }
    }
  }

  void pack_panel(const Window& window, const size_t* offset, size_t lanes, size_t width, size_t first, size_t depth,
                  float* to) const {
    RunFinder finder(patches, window, first);
    const size_t furthest = *std::max_element(offset, offset + lanes);
    for (size_t l = 0; l < depth;) {
      const Run run = finder.next(depth - l);
      const float* from[product::kColumns];
      // Lanes beyond the last repeat it: their products are not used.
      for (size_t lane = 0; lane < width; ++lane) from[lane] = window.data + run.at + offset[std::min(lane, lanes - 1)];
      // Whole groups of four pixels, what is beyond the run to be overwritten, where there is that much to read.
      size_t length = (run.length + 3) / 4 * 4;
      if (run.at + furthest + length > window.readable) length = run.length;
      product::interleave_rows(from, width, length, to + l * width, width);
      l += run.length;
    }
  }

  void gather(size_t column, size_t columns, size_t first, size_t depth, float* to, float* rows) const {
    for (size_t j = 0; j < columns; j += product::kColumns, to += depth * product::kColumns) {
      const size_t lanes = std::min(product::kColumns, columns - j), width = product::panel_width(columns - j);
      const float* from[product::kColumns];
      for (size_t lane = 0; lane < lanes; ++lane) {
        float* row = rows + lane * (product::kDepth + 4);
        gather_row(patches, x, column + j + lane, first, depth, row);
        from[lane] = row;
      }
      if (lanes < width) std::fill_n(to, depth * width, 0.0f);
      product::interleave_rows(from, lanes, depth, to, width);
    }
  }
};

// --- Depthwise: one input channel per result -------------------------------------------------------------------------

/// kVectors vectors of a row of results.
template <size_t kVectors>
inline void sum_taps(const float* from, const size_t* offset, const float* weight, size_t taps, float start,
                     float* to) {
  F32 sum[kVectors];
  for (F32& s : sum) s = F32(start);
  NIBBLE_KEEP_ROLLED
  for (size_t t = 0; t < taps; ++t) {
    const F32 factor(weight[t]);
    const float* at = from + offset[t];
    for (size_t v = 0; v < kVectors; ++v) sum[v] = multiply_add(factor, load_at(at + 4 * v), sum[v]);
  }
  for (size_t v = 0; v < kVectors; ++v) store_at(to + 4 * v, sum[v]);
}

/// A row of results; its last vector goes back over some that are done.
inline void sum_row(const float* from, const size_t* offset, const float* weight, size_t taps, float start,
                    size_t width, float* to) {
  size_t j = 0;
  for (; j + 16 <= width; j += 16) sum_taps<4>(from + j, offset, weight, taps, start, to + j);
  if (j + 8 <= width) sum_taps<2>(from + j, offset, weight, taps, start, to + j), j += 8;
  if (j + 4 <= width) sum_taps<1>(from + j, offset, weight, taps, start, to + j), j += 4;
  if (j == width) return;
  if (width >= 4) return sum_taps<1>(from + width - 4, offset, weight, taps, start, to + width - 4);
  for (; j < width; ++j) {
    float sum = start;
    for (size_t t = 0; t < taps; ++t) sum += weight[t] * from[j + offset[t]];
    to[j] = sum;
  }
}

/// Rows of results of nine taps in three rows, of stride 1 or 2 and dilation 1, whose weights stay in registers. The
/// last vector of a row goes back over some results that are done; width is at least 4.
template <size_t kStride>
void sum_rows_of_9(const Window& w, const float* from, const float* weight, float start, size_t rows, size_t width,
                   float* to) {
  const size_t tap_row = w.offset[3], row_step = w.row_step;
  const size_t second = kStride == 1 ? 1 : w.phase_step, third = kStride == 1 ? 2 : 1;
  const F32 w0(weight[0]), w1(weight[1]), w2(weight[2]), w3(weight[3]), w4(weight[4]), w5(weight[5]), w6(weight[6]),
      w7(weight[7]), w8(weight[8]), begin(start);
  for (size_t i = 0; i < rows; ++i, from += row_step, to += width) {
    const auto four = [&](size_t j) {
      const float *a = from + j, *b = a + tap_row, *c = b + tap_row;
      F32 sum = multiply_add(w0, load_at(a), begin);
      sum = multiply_add(w1, load_at(a + second), sum);
      sum = multiply_add(w2, load_at(a + third), sum);
      sum = multiply_add(w3, load_at(b), sum);
      sum = multiply_add(w4, load_at(b + second), sum);
      sum = multiply_add(w5, load_at(b + third), sum);
      sum = multiply_add(w6, load_at(c), sum);
      sum = multiply_add(w7, load_at(c + second), sum);
      sum = multiply_add(w8, load_at(c + third), sum);
      store_at(to + j, sum);
    };
    size_t j = 0;
    for (; j + 4 <= width; j += 4) four(j);
    if (j < width) four(width - 4);
  }
}

/// How many output rows a window of one channel may span so that it fits; 0: not even one.
size_t rows_per_window(const Patches& p, size_t room) {
  const Axis vertical = vertical_of(p), horizontal = horizontal_of(p);
  const double first = window_size(p, vertical, horizontal, 1, p.out_width);
  const double more = window_size(p, vertical, horizontal, 2, p.out_width) - first;
  const double left = static_cast<double>(room - product::kSlack) - first;
  if (left < 0) return 0;
  return 1 + static_cast<size_t>(std::min(left / more, static_cast<double>(p.out_height)));
}

/// Windows of one channel are at most this large: they stay in the nearest cache.
constexpr size_t kRoom = size_t{1} << 15;

/// Every result has one input channel, and what the loops below need holds.
bool is_depthwise(const Patches& p, size_t in_group, size_t out_group) {
  return in_group == 1 && out_group <= 2 && p.taps() <= product::kDepth && rows_per_window(p, kRoom) > 0;
}

/// Calls band(window, first channel, channels, first row, rows) until it has seen all rows of all channels of one
/// image: several channels at a time where they are small, otherwise bands of rows.
template <class Band>
void for_each_band(const Patches& p, const float* image, size_t channels, std::span<float> room, Band band) {
  const size_t most_rows = rows_per_window(p, kRoom);
  size_t most_channels = 1;
  if (most_rows >= p.out_height) {
    const double one = window_size(p, vertical_of(p), horizontal_of(p), p.out_height, p.out_width);
    most_channels = std::clamp<size_t>(static_cast<size_t>(static_cast<double>(kRoom - product::kSlack) / one), 1,
                                       product::kDepth / p.taps());
  }
  Window window;
  for (size_t c = 0; c < channels;) {
    const size_t some = product::even_share(channels - c, most_channels, 1);
    for (size_t i = 0; i < p.out_height;) {
      const size_t rows = product::even_share(p.out_height - i, most_rows, 1);
      open_window(p, image, channels * p.plane, i * p.out_width, rows * p.out_width, c * p.taps(), some * p.taps(),
                  room.data(), kRoom, window);
      band(window, c, some, i, rows);
      i += rows;
    }
    c += some;
  }
}

void depthwise(const Patches& p, size_t images, size_t channels, size_t multiple, const float* x, const float* weight,
               const float* bias, float* y, std::span<float> scratch) {
  const size_t taps = p.taps(), pixels = p.pixels(), width = p.out_width;
  const bool three = p.kernel_height == 3 && p.kernel_width == 3 && p.tap_width == 1 && p.tap_height > 0 &&
                     p.stride_width <= 2 && width >= 4;
  for (size_t image = 0; image < images; ++image, x += p.image_step, y += channels * multiple * pixels) {
    for_each_band(p, x, channels, scratch, [&](const Window& w, size_t channel, size_t count, size_t row, size_t rows) {
      for (size_t o = channel * multiple; o < (channel + count) * multiple; ++o) {
        const float *factors = weight + o * taps, *from = w.data + (o / multiple - channel) * w.channel_step;
        const float begin = bias ? bias[o] : 0.0f;
        float* to = y + o * pixels + row * width;
        if (three && p.stride_width == 1) {
          sum_rows_of_9<1>(w, from, factors, begin, rows, width, to);
        } else if (three) {
          sum_rows_of_9<2>(w, from, factors, begin, rows, width, to);
        } else {
          for (size_t i = 0; i < rows; ++i, from += w.row_step, to += width) {
            sum_row(from, w.offset, factors, taps, begin, width, to);
          }
        }
      }
    });
  }
}

/// grad_x of one tap after the other, added up in windows; grad_x has been cleared.
void depthwise_grad_input(const Patches& p, size_t images, size_t channels, size_t multiple, const float* weight,
                          const float* grad_y, float* grad_x, std::span<float> scratch) {
  const size_t taps = p.taps(), pixels = p.pixels(), width = p.out_width;
  for (size_t image = 0; image < images; ++image, grad_x += p.image_step, grad_y += channels * multiple * pixels) {
    for_each_band(p, grad_x, channels, scratch,
                  [&](const Window& w, size_t channel, size_t count, size_t row, size_t rows) {
                    float* base = w.copied ? scratch.data() : grad_x + (w.data - grad_x);
                    for (size_t o = channel * multiple; o < (channel + count) * multiple; ++o) {
                      const float *factors = weight + o * taps, *from = grad_y + o * pixels + row * width;
                      float* to = base + (o / multiple - channel) * w.channel_step;
                      for (size_t i = 0; i < rows; ++i, from += width, to += w.row_step) {
                        for (size_t t = 0; t < taps; ++t)
                          add_scaled(factors[t], {from, width}, {to + w.offset[t], width});
                      }
                    }
                    close_window(p, w, grad_x);
                  });
  }
}

/// kTaps dot products of a row of grad_y with shifted rows of x: four partial sums each, then what is left of the row.
template <size_t kTaps>
inline void dot_row(const float* from, const size_t* offset, const float* grad, size_t width, F32* sum, float* rest) {
  F32 total[kTaps];
  const float* rows[kTaps];
  for (size_t t = 0; t < kTaps; ++t) total[t] = sum[t], rows[t] = from + offset[t];
  size_t j = 0;
  for (; j + 4 <= width; j += 4) {
    const F32 g = load_at(grad + j);
    for (size_t t = 0; t < kTaps; ++t) total[t] = multiply_add(g, load_at(rows[t] + j), total[t]);
  }
  for (size_t t = 0; t < kTaps; ++t) {
    sum[t] = total[t];
    for (size_t l = j; l < width; ++l) rest[t] += grad[l] * rows[t][l];
  }
}

/// kTaps dot products of rows of grad_y with shifted rows of x, added to as many weights.
template <size_t kTaps>
void dot_rows(const Window& w, const float* from, const size_t* offset, const float* grad, size_t width, size_t rows,
              float* to) {
  F32 sum[kTaps];
  float rest[kTaps] = {};
  for (F32& s : sum) s = F32(0.0f);
  for (size_t i = 0; i < rows; ++i) {
    dot_row<kTaps>(from + i * w.row_step, offset, grad + i * width, width, sum, rest);
  }
  for (size_t t = 0; t < kTaps; ++t) {
    float lanes[4];
    store_at(lanes, sum[t]);
    to[t] += ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + rest[t];
  }
}

void depthwise_grad_weight(const Patches& p, size_t images, size_t channels, size_t multiple, const float* x,
                           const float* grad_y, float* grad_weight, std::span<float> scratch) {
  const size_t taps = p.taps(), pixels = p.pixels(), width = p.out_width;
  for (size_t image = 0; image < images; ++image, x += p.image_step, grad_y += channels * multiple * pixels) {
    for_each_band(p, x, channels, scratch, [&](const Window& w, size_t channel, size_t count, size_t row, size_t rows) {
      for (size_t o = channel * multiple; o < (channel + count) * multiple; ++o) {
        const float *grad = grad_y + o * pixels + row * width,
                    *from = w.data + (o / multiple - channel) * w.channel_step;
        float* to = grad_weight + o * taps;
        size_t t = 0;
        for (; t + 5 <= taps; t += 5) dot_rows<5>(w, from, w.offset + t, grad, width, rows, to + t);
        for (; t + 3 <= taps; t += 3) dot_rows<3>(w, from, w.offset + t, grad, width, rows, to + t);
        for (; t < taps; ++t) dot_rows<1>(w, from, w.offset + t, grad, width, rows, to + t);
      }
    });
  }
}

bool is_pointwise(const Conv2d& conv) {
  return conv.kernel_height == 1 && conv.kernel_width == 1 && conv.stride_height == 1 && conv.stride_width == 1 &&
         conv.pad_top == 0 && conv.pad_left == 0 && conv.out_height == conv.height && conv.out_width == conv.width;
}

}  // namespace

void conv2d(const Conv2d& conv, size_t images, const float* x, const float* weight, const float* bias, float* y,
            std::span<float> scratch) {
  const Patches patches = patches_of(conv);
  const size_t in_group = conv.channels_in / conv.groups, out_group = conv.channels_out / conv.groups;
  const size_t depth = in_group * patches.taps(), pixels = patches.pixels();
  const bool pointwise = is_pointwise(conv);
  if (is_depthwise(patches, in_group, out_group) && depth > 1) {
    return depthwise(patches, images, conv.groups, out_group, x, weight, bias, y, scratch);
  }
  for (size_t g = 0; g < conv.groups; ++g) {
    const Periodic a{weight + g * out_group * depth, depth};
    const float* from = x + g * in_group * patches.plane;
    const Target target{y + g * out_group * pixels, pixels, pixels, conv.y_size()};
    const float* start = bias ? bias + g * out_group : nullptr;
    if (pointwise) {
      const product::PackMatrix pack{{from, pixels, 1, pixels, conv.x_size()}};
      product::multiply(out_group, images * pixels, depth, a, pack, target, start, false, scratch);
    } else {
      const PackPatches pack{patches, from, images * conv.x_size() - g * in_group * patches.plane};
      product::multiply(out_group, images * pixels, depth, a, pack, target, start, false, scratch);
    }
  }
}

void conv2d_grad_input(const Conv2d& conv, size_t images, const float* weight, const float* grad_y, float* grad_x,
                       std::span<float> scratch) {
  const size_t in_group = conv.channels_in / conv.groups, out_group = conv.channels_out / conv.groups;
  Patches patches = patches_of(conv);
  const size_t taps = patches.taps(), rows = in_group * taps, pixels = patches.pixels();
  const size_t plane = conv.height * conv.width, inner = product::kScratch - product::kTemporary / 2;
  if (is_pointwise(conv)) {
    for (size_t g = 0; g < conv.groups; ++g) {
      const Periodic a{weight + g * out_group * rows, 1, in_group};
      const product::PackMatrix pack{{grad_y + g * out_group * pixels, pixels, 1, pixels, conv.y_size()}};
      const Target target{grad_x + g * in_group * plane, plane, plane, conv.x_size()};
      product::multiply(in_group, images * plane, out_group, a, pack, target, nullptr, false, scratch);
    }
    return;
  }
  // With stride 1 the gradient is itself a convolution of grad_y, the taps taken backwards; worth it where grad_x is
  // not much larger than grad_y. Otherwise the patches' gradient is formed piece by piece and added to where each patch
  // came from.
  if (conv.stride_height == 1 && conv.stride_width == 1 && plane <= pixels + pixels / 8) {
    const Patches backwards{conv.out_height,
                            conv.out_width,
                            pixels,
                            conv.y_size(),
                            conv.kernel_height,
                            conv.kernel_width,
                            conv.height,
                            conv.width,
                            1,
                            1,
                            conv.pad_top,
                            conv.pad_left,
                            -patches.tap_height,
                            -patches.tap_width};
    if (is_depthwise(backwards, in_group, out_group) && out_group == 1) {
      return depthwise(backwards, images, conv.groups, 1, grad_y, weight, nullptr, grad_x, scratch);
    }
    for (size_t g = 0; g < conv.groups; ++g) {
      const Periodic a{weight + g * out_group * rows, taps, 1, taps, rows};
      const PackPatches pack{backwards, grad_y + g * out_group * pixels,
                             images * conv.y_size() - g * out_group * pixels};
      const Target target{grad_x + g * in_group * plane, plane, plane, conv.x_size()};
      product::multiply(in_group, images * plane, out_group * taps, a, pack, target, nullptr, false, scratch);
    }
    return;
  }
  std::fill_n(grad_x, images * conv.x_size(), 0.0f);
  if (is_depthwise(patches, in_group, out_group)) {
    return depthwise_grad_input(patches, images, conv.groups, out_group, weight, grad_y, grad_x, scratch);
  }
  float* piece = scratch.data() + inner;
  constexpr size_t kPiece = product::kTemporary / 2;
  for (size_t g = 0; g < conv.groups; ++g) {
    const product::PackMatrix pack{{grad_y + g * out_group * pixels, pixels, 1, pixels, conv.y_size()}};
    for (size_t column = 0; column < images * pixels;) {
      const size_t most = std::clamp<size_t>(kPiece / rows, 128, kScatteredColumns);
      const size_t columns = product::even_share(images * pixels - column, most, product::kColumns);
      for (size_t row = 0; row < rows;) {
        const size_t some = product::even_share(rows - row, kPiece / columns, product::kRows);
        const Periodic a{weight + g * out_group * rows + row, 1, rows};
        const auto shifted = [&](size_t j, size_t count, size_t first, size_t depth, float* to, float* temporary) {
          pack(column + j, count, first, depth, to, temporary);
        };
        product::multiply(some, columns, out_group, a, shifted, {piece, columns}, nullptr, false, scratch.first(inner));
        const size_t before = g * in_group * plane;  // what the product used for packing is free again
        scatter(patches, piece, column, columns, row, some, grad_x + before, images * conv.x_size() - before,
                scratch.subspan(inner - product::kTemporary / 2, product::kTemporary / 2));
        row += some;
      }
      column += columns;
    }
  }
}

void conv2d_grad_weight(const Conv2d& conv, size_t images, const float* x, const float* grad_y, float* grad_weight,
                        float* grad_bias, std::span<float> scratch) {
  const Patches patches = patches_of(conv);
  const size_t in_group = conv.channels_in / conv.groups, out_group = conv.channels_out / conv.groups;
  const size_t rows = in_group * patches.taps(), pixels = patches.pixels();
  const bool direct = is_depthwise(patches, in_group, out_group);
  if (direct) depthwise_grad_weight(patches, images, conv.groups, out_group, x, grad_y, grad_weight, scratch);
  for (size_t g = 0; g < conv.groups && !direct; ++g) {
    const Periodic a{grad_y + g * out_group * pixels, pixels, 1, pixels, conv.y_size()};
    const PackTurnedPatches pack{patches, x + g * in_group * patches.plane,
                                 images * conv.x_size() - g * in_group * patches.plane};
    product::multiply(out_group, rows, images * pixels, a, pack, {grad_weight + g * out_group * rows, rows}, nullptr,
                      true, scratch);
  }
  if (!grad_bias) return;
  for (size_t image = 0; image < images; ++image, grad_y += conv.y_size()) {
    for (size_t o = 0; o < conv.channels_out; ++o) {
      grad_bias[o] += sum({grad_y + o * pixels, pixels});
    }
  }
}

}  // namespace nibble::kernels
