// Operators that pick numbers out by their values, TopK, NonZero and Unique; and Det.
#include <numeric>

#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

// --- TopK ------------------------------------------------------------------------------------------------------------

/// A strict order: NaN lies above every number, equals are told apart by their place.
template <class T>
bool above(T a, T b) {
  return a > b || (a != a && b == b);
}

size_t top_count(const Call& call, size_t extent_of_axis) {
  int64_t k = 0;
  if (call.opset < 10) {
    if (!call.has_attribute("k")) call.fail("attribute \"k\" is missing");
    k = call.integer("k", 0);
  } else {
    if (call.in(1).elements() != 1) call.fail("k must be one number, its shape is " + to_string(call.in(1).shape()));
    k = call.integers(1)[0];
  }
  if (k < 0 || static_cast<uint64_t>(k) > extent_of_axis) {
    call.fail("k is " + std::to_string(k) + ", the axis has " + std::to_string(extent_of_axis) + " elements");
  }
  return static_cast<size_t>(k);
}

std::vector<Tensor> top_k(Call& call) {
  const Tensor x = call.in(0);
  const Shape& shape = x.shape();
  const size_t axis = axis_of(call, call.integer("axis", -1), shape.size());
  const size_t count = shape[axis], k = top_count(call, count), inner = extent(shape, axis + 1, shape.size());
  const bool largest = call.opset < 11 || call.integer("largest", 1) != 0;
  Shape result = shape;
  result[axis] = k;
  Tensor values = Tensor::allocate(x.dtype(), result), indices = Tensor::allocate(DType::Int64, result);
  if (values.elements() == 0) return {std::move(values), std::move(indices)};
  const size_t outer = extent(shape, 0, axis);
  std::vector<size_t> order(count);
  visit_wide(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const std::span<const T> from = x.data<T>();
    const std::span<T> to = values.write<T>();
    const std::span<int64_t> places = indices.write<int64_t>();
    for (size_t row = 0; row < outer * inner; ++row) {
      const size_t start = row / inner * count * inner + row % inner;
      std::iota(order.begin(), order.end(), size_t{0});
      std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(),
                        [&](size_t a, size_t b) {
                          const T first = from[start + a * inner], second = from[start + b * inner];
                          if (above(first, second)) return largest;
                          if (above(second, first)) return !largest;
                          return a < b;
                        });
      for (size_t i = 0; i < k; ++i) {
        const size_t at = (row / inner * k + i) * inner + row % inner;
        to[at] = from[start + order[i] * inner];
        places[at] = static_cast<int64_t>(order[i]);
      }
    }
  });
  if (call.training) call.saved = {indices};
  return {std::move(values), std::move(indices)};
}

std::vector<Tensor> top_k_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Shape& shape = call.in(0).shape();
  const size_t axis = axis_of(call, call.integer("axis", -1), shape.size());
  const Tensor& indices = call.saved.at(0);
  const size_t count = shape[axis], k = indices.shape()[axis], inner = extent(shape, axis + 1, shape.size());
  Tensor out = zeros(shape);
  if (!grads[0].exists()) return {std::move(out)};
  const std::span<float> to = out.write<float>();
  const std::span<const float> grad = grads[0].data<float>();
  const std::span<const int64_t> places = indices.data<int64_t>();
  for (size_t at = 0; at < grad.size(); ++at) {
    const size_t row = at / (k * inner);
    to[(row * count + static_cast<size_t>(places[at])) * inner + at % inner] += grad[at];
  }
  return {std::move(out)};
}

// --- NonZero ---------------------------------------------------------------------------------------------------------

/// [rank, found]: where each number that is not zero lies, in row-major order. A scalar has no axes to tell.
std::vector<Tensor> non_zero(Call& call) {
  const Tensor x = to_wide(call, call.in(0));
  std::vector<size_t> found;
  visit_wide(x.dtype(), [&](auto zero) {
    const auto values = x.data<decltype(zero)>();
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] != zero) found.push_back(i);
    }
  });
  const Shape& shape = x.shape();
  Tensor out = Tensor::allocate(DType::Int64, {shape.size(), found.size()});
  const std::span<int64_t> to = out.write<int64_t>();
  for (size_t i = 0; i < found.size(); ++i) {
    size_t left = found[i];
    for (size_t axis = shape.size(); axis-- > 0; left /= shape[axis])
      to[axis * found.size() + i] = static_cast<int64_t>(left % shape[axis]);
  }
  return {std::move(out)};
}

// --- Unique ----------------------------------------------------------------------------------------------------------

/// The slices along an axis (without one: the numbers), each once; in ascending or in first order.
std::vector<Tensor> unique(Call& call) {
  const bool sorted = call.integer("sorted", 1) != 0;
  Tensor x = call.in(0);
  if (x.elements() == 0 && call.has_attribute("axis")) call.fail("slices without elements cannot be told apart");
  std::vector<size_t> order;  // brings the axis to the front, and back
  if (call.has_attribute("axis")) {
    const size_t axis = axis_of(call, call.integer("axis", 0), x.shape().size());
    for (size_t i = 0; i < x.shape().size(); ++i) order.push_back(i);
    std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(axis),
                order.begin() + static_cast<std::ptrdiff_t>(axis + 1));
    x = transposed(call, x, order);
  } else {
    x = x.reshaped({x.elements()});
  }
  const size_t count = x.shape()[0], length = extent(x.shape(), 1, x.shape().size());

  std::vector<size_t> firsts, sizes;  // of each kind of slice
  std::vector<int64_t> kinds(count);  // of each slice
  Tensor values;
  visit_wide(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const std::span<const T> from = x.data<T>();
    const auto less = [&](size_t a, size_t b) {
      for (size_t i = 0; i < length; ++i) {
        const T first = from[a * length + i], second = from[b * length + i];
        if (above(second, first)) return true;
        if (above(first, second)) return false;
      }
      return false;
    };
    std::vector<size_t> rows(count);
    std::iota(rows.begin(), rows.end(), size_t{0});
    std::stable_sort(rows.begin(), rows.end(), less);
    std::vector<std::pair<size_t, size_t>> runs;  // in `rows`: begin and size
    for (size_t i = 0; i < count; ++i) {
      if (i == 0 || less(rows[i - 1], rows[i])) runs.push_back({i, 0});
      ++runs.back().second;
    }
    if (!sorted)
      std::sort(runs.begin(), runs.end(), [&](const auto& a, const auto& b) { return rows[a.first] < rows[b.first]; });
    Shape shape = x.shape();
    shape[0] = runs.size();
    values = Tensor::allocate(x.dtype(), shape);
    const std::span<T> to = values.write<T>();
    for (size_t kind = 0; kind < runs.size(); ++kind) {
      const auto [begin, size] = runs[kind];
      firsts.push_back(rows[begin]);
      sizes.push_back(size);
      for (size_t i = 0; i < size; ++i) kinds[rows[begin + i]] = static_cast<int64_t>(kind);
      std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(rows[begin] * length), length,
                  to.begin() + static_cast<std::ptrdiff_t>(kind * length));
    }
  });
  if (!order.empty()) {
    std::vector<size_t> back(order.size());
    for (size_t i = 0; i < order.size(); ++i) back[order[i]] = i;
    values = transposed(call, values, back);
  }
  const auto tensor = [](const std::vector<size_t>& list) {
    return int64s(std::vector<int64_t>(list.begin(), list.end()));
  };
  return {std::move(values), tensor(firsts), int64s(kinds), tensor(sizes)};
}

// --- Det -------------------------------------------------------------------------------------------------------------

/// By elimination with partial pivoting, in double.
double determinant(std::vector<double> a, size_t size) {
  double product = 1;
  for (size_t column = 0; column < size; ++column) {
    size_t pivot = column;
    for (size_t row = column + 1; row < size; ++row) {
      if (std::fabs(a[row * size + column]) > std::fabs(a[pivot * size + column])) pivot = row;
    }
    if (a[pivot * size + column] == 0) return 0;
    if (pivot != column) {
      for (size_t i = column; i < size; ++i) std::swap(a[pivot * size + i], a[column * size + i]);
      product = -product;
    }
    product *= a[column * size + column];
    for (size_t row = column + 1; row < size; ++row) {
      const double factor = a[row * size + column] / a[column * size + column];
      for (size_t i = column; i < size; ++i) a[row * size + i] -= factor * a[column * size + i];
    }
  }
  return product;
}

std::vector<Tensor> det(Call& call) {
  const Tensor& x = call.in(0);
  const Shape& shape = x.shape();
  if (shape.size() < 2 || shape[shape.size() - 1] != shape[shape.size() - 2])
    call.fail("the last two axes must be those of a square matrix, the shape is " + to_string(shape));
  const size_t size = shape.back();
  Tensor out = Tensor::allocate(x.dtype(), Shape(shape.begin(), shape.end() - 2));
  visit_wide(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_integral_v<T>) {
      call.fail("the matrix must hold real numbers, it is " + std::string(to_string(x.dtype())));
    } else {
      const std::span<const T> from = x.data<T>();
      const std::span<T> to = out.write<T>();
      for (size_t i = 0; i < to.size(); ++i) {
        const std::span<const T> matrix = from.subspan(i * size * size, size * size);
        to[i] = static_cast<T>(determinant(std::vector<double>(matrix.begin(), matrix.end()), size));
      }
    }
  });
  return {std::move(out)};
}

const Op kOps[] = {
    {"TopK", in_wide<top_k>, top_k_backward},
    {"NonZero", non_zero},
    {"Unique", in_wide<unique>},
    {"Det", in_wide<det>},
};

}  // namespace

std::span<const Op> ranking_ops() { return kOps; }

}  // namespace nibble::ops
