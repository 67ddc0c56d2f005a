#include "core/model/ops/support.hpp"

#include <numeric>

namespace nibble::ops {

namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 31;

}  // namespace

Tensor zeros(DType dtype, Shape shape) {
  Tensor tensor = Tensor::allocate(dtype, std::move(shape));
  const std::span<std::byte> out = tensor.write<std::byte>();
  std::fill(out.begin(), out.end(), std::byte{0});
  return tensor;
}

size_t count_of(const Call& call, int64_t value, std::string_view what) {
  if (value < 0) call.fail(std::string(what) + " is " + std::to_string(value) + ", it cannot be negative");
  if (static_cast<uint64_t>(value) > kMostBytes) {
    call.refuse(std::string(what) + " of " + std::to_string(value) + " is more than Nibble has room for");
  }
  return static_cast<size_t>(value);
}

void check_size(const Call& call, DType dtype, const Shape& shape) {
  uint64_t bytes = std::max<uint64_t>(1, static_cast<uint64_t>(bits_of(dtype)) / 8);
  for (const size_t extent : shape) {
    if (extent > kMostBytes / bytes) {
      call.refuse("would make a " + std::string(to_string(dtype)) + " tensor of " + to_string(shape) +
                  "; Nibble runs models whose tensors take at most 2 GiB each");
    }
    bytes *= std::max<size_t>(1, extent);
  }
}

Tensor allocate(const Call& call, DType dtype, Shape shape) {
  check_size(call, dtype, shape);
  return Tensor::allocate(dtype, std::move(shape));
}

size_t axis_of(const Call& call, int64_t axis, size_t rank) {
  const auto signed_rank = static_cast<int64_t>(rank);
  if (axis < -signed_rank || axis >= signed_rank) {
    call.fail("axis " + std::to_string(axis) + " is not one of a tensor of rank " + std::to_string(rank));
  }
  return static_cast<size_t>(axis < 0 ? axis + signed_rank : axis);
}

std::vector<size_t> axes_of(const Call& call, std::span<const int64_t> axes, size_t rank) {
  std::vector<size_t> out;
  for (const int64_t axis : axes) out.push_back(axis_of(call, axis, rank));
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end()) call.fail("an axis is named twice");
  return out;
}

size_t extent(const Shape& shape, size_t first, size_t last) {
  size_t product = 1;
  for (size_t i = first; i < last; ++i) product *= shape[i];
  return product;
}

std::vector<std::ptrdiff_t> steps_of(const Shape& shape) {
  std::vector<std::ptrdiff_t> steps(shape.size());
  // Unsigned: the extents around a zero may have any product.
  size_t step = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    steps[i] = static_cast<std::ptrdiff_t>(step);
    step *= shape[i];
  }
  return steps;
}

Shape broadcast(const Call& call, const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()));
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t x = i + a.size() < out.size() ? 1 : a[i + a.size() - out.size()];
    const size_t y = i + b.size() < out.size() ? 1 : b[i + b.size() - out.size()];
    if (x != y && x != 1 && y != 1) {
      call.fail("shapes " + to_string(a) + " and " + to_string(b) + " cannot be broadcast to each other");
    }
    out[i] = x == 1 ? y : x;
  }
  return out;
}

std::vector<std::ptrdiff_t> broadcast_steps(const Shape& shape, const Shape& target) {
  const std::vector<std::ptrdiff_t> own = steps_of(shape);
  std::vector<std::ptrdiff_t> steps(target.size(), 0);
  const size_t shift = target.size() - shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != 1 || target[i + shift] == 1) steps[i + shift] = own[i];
  }
  return steps;
}

Tensor broadcast_to(const Call& call, Tensor tensor, const Shape& shape) {
  if (tensor.shape() == shape) return tensor;
  if (broadcast(call, tensor.shape(), shape) != shape) {
    call.fail("shape " + to_string(tensor.shape()) + " cannot be stretched to " + to_string(shape));
  }
  return strided(call, tensor, shape, broadcast_steps(tensor.shape(), shape));
}

Tensor sum_to(const Tensor& grad, const Shape& shape) {
  if (grad.shape() == shape) return grad;
  Tensor out = zeros(shape);
  const std::span<float> sums = out.write<float>();
  const std::span<const float> in = grad.data<float>();
  const std::vector<std::ptrdiff_t> steps = broadcast_steps(shape, grad.shape());
  const std::ptrdiff_t last = steps.empty() ? 0 : steps.back();
  const size_t run = grad.shape().empty() ? 1 : grad.shape().back();
  for_each_run(grad.shape(), steps, 0, [&](size_t from, std::ptrdiff_t to) {
    if (last == 0) {
      sums[static_cast<size_t>(to)] += kernels::sum(in.subspan(from, run));
    } else {
      const std::span<float> target = sums.subspan(static_cast<size_t>(to), run);
      kernels::add(target, in.subspan(from, run), target);
    }
  });
  return out;
}

namespace {

/// `shape` without its axes of extent 1, neighbours that both sides walk as one joined.
Shape joined(const Shape& shape, Walk& from, Walk& to) {
  Shape out;
  Walk a{from.start, {}}, b{to.start, {}};
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 1) continue;
    const auto count = static_cast<std::ptrdiff_t>(shape[i]);
    if (!out.empty() && a.steps.back() == from.steps[i] * count && b.steps.back() == to.steps[i] * count) {
      out.back() *= shape[i];
      a.steps.back() = from.steps[i];
      b.steps.back() = to.steps[i];
      continue;
    }
    out.push_back(shape[i]);
    a.steps.push_back(from.steps[i]);
    b.steps.push_back(to.steps[i]);
  }
  from = std::move(a);
  to = std::move(b);
  return out;
}

constexpr std::ptrdiff_t kTile = 32;  // a square of 32 x 32 words of 8 bytes and its source fit the first cache

/// A transposed plane: its rows are neighbours in the source, its columns in the result. Squares whose sides are one
/// line of the cache go through a buffer, so that every line is read and written once: with steps that are powers of
/// two the lines of a column would fall on top of each other.
template <class Word>
void copy_turned(std::ptrdiff_t rows, std::ptrdiff_t columns, const Word* from, std::ptrdiff_t from_column, Word* to,
                 std::ptrdiff_t to_row) {
  constexpr auto kSide = static_cast<std::ptrdiff_t>(64 / sizeof(Word));
  const auto square = [&](std::ptrdiff_t top, std::ptrdiff_t left) {
    const Word* const source = from + top + left * from_column;
    Word* const target = to + top * to_row + left;
    if (top + kSide > rows || left + kSide > columns) {
      const std::ptrdiff_t high = std::min(kSide, rows - top), wide = std::min(kSide, columns - left);
      for (std::ptrdiff_t r = 0; r < high; ++r) {
        for (std::ptrdiff_t c = 0; c < wide; ++c) target[r * to_row + c] = source[r + c * from_column];
      }
      return;
    }
    Word buffer[kSide * kSide];
    for (std::ptrdiff_t c = 0; c < kSide; ++c) std::copy_n(source + c * from_column, kSide, buffer + c * kSide);
    for (std::ptrdiff_t r = 0; r < kSide; ++r) {
      for (std::ptrdiff_t c = 0; c < kSide; ++c) target[r * to_row + c] = buffer[c * kSide + r];
    }
  };
  // Along the longer side: a narrow strip walks through few places at a time.
  if (rows >= columns) {
    for (std::ptrdiff_t left = 0; left < columns; left += kSide) {
      for (std::ptrdiff_t top = 0; top < rows; top += kSide) square(top, left);
    }
  } else {
    for (std::ptrdiff_t top = 0; top < rows; top += kSide) {
      for (std::ptrdiff_t left = 0; left < columns; left += kSide) square(top, left);
    }
  }
}

/// to[r, c] = from[r, c]
template <class Word>
void copy_plane(std::ptrdiff_t rows, std::ptrdiff_t columns, const Word* from, std::ptrdiff_t from_row,
                std::ptrdiff_t from_column, Word* to, std::ptrdiff_t to_row, std::ptrdiff_t to_column) {
  if (from_column == 1 && to_column == 1) {
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      if (columns >= 16) {
        std::memcpy(to + r * to_row, from + r * from_row, static_cast<size_t>(columns) * sizeof(Word));
      } else {
        for (std::ptrdiff_t c = 0; c < columns; ++c) to[r * to_row + c] = from[r * from_row + c];
      }
    }
    return;
  }
  if (from_column == 0 && to_column == 1) {
    for (std::ptrdiff_t r = 0; r < rows; ++r) std::fill_n(to + r * to_row, columns, from[r * from_row]);
    return;
  }
  if (from_row == 1 && to_column == 1) return copy_turned(rows, columns, from, from_column, to, to_row);
  for (std::ptrdiff_t top = 0; top < rows; top += kTile) {
    const std::ptrdiff_t bottom = std::min(rows, top + kTile);
    for (std::ptrdiff_t left = 0; left < columns; left += kTile) {
      const std::ptrdiff_t right = std::min(columns, left + kTile);
      for (std::ptrdiff_t r = top; r < bottom; ++r) {
        for (std::ptrdiff_t c = left; c < right; ++c)
          to[r * to_row + c * to_column] = from[r * from_row + c * from_column];
      }
    }
  }
}

}  // namespace

void copy_box(const Call& call, const Shape& shape, const Tensor& from, Walk source, Tensor& to, Walk target) {
  if (elements_of(shape) == 0) return;
  Shape box = joined(shape, source, target);
  while (box.size() < 2) {
    box.insert(box.begin(), 1);
    source.steps.insert(source.steps.begin(), 0);
    target.steps.insert(target.steps.begin(), 0);
  }
  // The two innermost loops: the last axis, and the one along which the source has its neighbours.
  const size_t last = box.size() - 1;
  size_t near = last - 1;
  for (size_t i = 0; i < last; ++i) {
    if (source.steps[i] == 1 && source.steps[last] != 1) near = i;
  }
  const auto rows = static_cast<std::ptrdiff_t>(box[near]), columns = static_cast<std::ptrdiff_t>(box[last]);
  box[near] = box[last] = 1;
  visit_width(call, from.dtype(), [&](auto word) {
    using Word = decltype(word);
    const Word* const in = from.data<Word>().data() + source.start;
    Word* const out = to.write<Word>().data() + target.start;
    for_each_pair(box, source.steps, target.steps, [&](std::ptrdiff_t a, std::ptrdiff_t b) {
      copy_plane(rows, columns, in + a, source.steps[near], source.steps[last], out + b, target.steps[near],
                 target.steps[last]);
    });
  });
}

Tensor strided(const Call& call, const Tensor& x, const Shape& shape, std::span<const std::ptrdiff_t> steps,
               std::ptrdiff_t start) {
  Tensor out = allocate(call, x.dtype(), shape);
  copy_box(call, shape, x, {start, {steps.begin(), steps.end()}}, out, {0, steps_of(shape)});
  return out;
}

Tensor transposed(const Call& call, const Tensor& x, std::span<const size_t> order) {
  const std::vector<std::ptrdiff_t> own = steps_of(x.shape());
  Shape shape;
  std::vector<std::ptrdiff_t> steps;
  for (const size_t axis : order) {
    shape.push_back(x.shape()[axis]);
    steps.push_back(own[axis]);
  }
  return strided(call, x, shape, steps);
}

std::span<float> scratch() {
  static thread_local std::vector<float> room;
  if (room.size() < kernels::kComputeScratch) room.resize(kernels::kComputeScratch);
  return room;
}

}  // namespace nibble::ops
