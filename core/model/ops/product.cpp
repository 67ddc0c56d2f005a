// MatMul and Gemm.
#include <limits>

#include "core/model/ops/shape_parts.hpp"

namespace nibble::ops {

BatchedProduct batched_product(const Call& call, const Shape& a, const Shape& b) {
  if (a.empty() || b.empty()) {
    call.fail("cannot multiply " + to_string(a) + " and " + to_string(b) + ": a scalar is no matrix");
  }
  Shape left = a, right = b;
  if (a.size() == 1) left.insert(left.begin(), 1);
  if (b.size() == 1) right.push_back(1);
  BatchedProduct product;
  product.m = left[left.size() - 2];
  product.k = left.back();
  product.n = right.back();
  if (right[right.size() - 2] != product.k) {
    call.fail("cannot multiply " + to_string(a) + " and " + to_string(b) + ": rows of " + std::to_string(product.k) +
              " meet columns of " + std::to_string(right[right.size() - 2]));
  }
  left.resize(left.size() - 2);
  right.resize(right.size() - 2);
  product.batch = broadcast(call, left, right);
  product.a_stretched = elements_of(left) != elements_of(product.batch);
  product.b_stretched = elements_of(right) != elements_of(product.batch);
  product.a_steps = broadcast_steps(left, product.batch);
  product.b_steps = broadcast_steps(right, product.batch);
  for (std::ptrdiff_t& step : product.a_steps) step *= static_cast<std::ptrdiff_t>(product.m * product.k);
  for (std::ptrdiff_t& step : product.b_steps) step *= static_cast<std::ptrdiff_t>(product.k * product.n);
  product.out = product.batch;
  if (a.size() > 1) product.out.push_back(product.m);
  if (b.size() > 1) product.out.push_back(product.n);
  // One B for all: the batch is more rows of A, and the product a single large one.
  if (elements_of(right) == 1 && !product.a_stretched && elements_of(product.batch) > 0) {
    product.m *= elements_of(product.batch);
    product.batch.clear();
    product.a_steps.clear();
    product.b_steps.clear();
    product.b_stretched = false;
  }
  return product;
}

namespace {

void check_types(const Call& call) {
  if (call.in(0).dtype() == call.in(1).dtype()) return;
  call.fail("multiplies " + std::string(to_string(call.in(0).dtype())) + " with " +
            std::string(to_string(call.in(1).dtype())) + "; both must be of one type");
}

// --- MatMul ----------------------------------------------------------------------------------------------------------

template <class T>
Tensor matmul_of(const Call& call, const Tensor& a, const Tensor& b, const BatchedProduct& product) {
  Tensor out = allocate(call, a.dtype(), product.out);
  T* c = out.write<T>().data();
  if (product.k == 0) std::fill_n(c, out.elements(), T{});
  if (product.k == 0 || out.elements() == 0) return out;
  const T *const left = a.data<T>().data(), *const right = b.data<T>().data();
  for_each_pair(product.batch, product.a_steps, product.b_steps, [&](std::ptrdiff_t at_a, std::ptrdiff_t at_b) {
    multiply<T>(product.m, product.n, product.k, {left + at_a, product.k, 1}, {right + at_b, product.n, 1}, c,
                product.n, false);
    c += product.m * product.n;
  });
  return out;
}

std::vector<Tensor> matmul(Call& call) {
  check_types(call);
  const DType dtype = call.in(0).dtype();
  const Tensor a = widened(call.in(0)), b = widened(call.in(1));
  const BatchedProduct product = batched_product(call, a.shape(), b.shape());
  Tensor out = visit_type(call, a.dtype(), [&](auto type) -> Tensor {
    using T = decltype(type);
    if constexpr (std::is_same_v<T, bool>)
      call.refuse("cannot multiply matrices of bool");
    else
      return matmul_of<T>(call, a, b, product);
  });
  if (is_half(dtype)) return {from_floats(dtype, out.shape(), out.data<float>())};
  return {std::move(out)};
}

std::vector<Tensor> matmul_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const BatchedProduct p = batched_product(call, call.in(0).shape(), call.in(1).shape());
  std::vector<Tensor> out(2);
  const bool nothing = grads[0].elements() == 0 || p.k == 0;
  for (size_t side = 0; side < 2; ++side) {
    if (!wants_grad(call, side)) continue;
    out[side] = zeros(call.in(side).shape());
    if (nothing) continue;
    const Tensor other = as_float32(call.in(1 - side));
    const float* const factors = other.data<float>().data();
    const float* grad = grads[0].data<float>().data();
    float* const to = out[side].write<float>().data();
    for_each_pair(p.batch, p.a_steps, p.b_steps, [&](std::ptrdiff_t at_a, std::ptrdiff_t at_b) {
      if (side == 0) {  // G transposed(B)
        multiply<float>(p.m, p.k, p.n, {grad, p.n, 1}, {factors + at_b, 1, p.n}, to + at_a, p.k, p.a_stretched);
      } else {  // transposed(A) G
        multiply<float>(p.k, p.n, p.m, {factors + at_a, 1, p.k}, {grad, p.n, 1}, to + at_b, p.n, p.b_stretched);
      }
      grad += p.m * p.n;
    });
  }
  return out;
}

// --- Gemm ------------------------------------------------------------------------------------------------------------

struct GemmShape {
  size_t m, n, k;
  bool turned_a, turned_b;
  float alpha, beta;

  template <class T>
  View<T> a(const T* data) const {
    return turned_a ? View<T>{data, 1, m} : View<T>{data, k, 1};
  }
  template <class T>
  View<T> b(const T* data) const {
    return turned_b ? View<T>{data, 1, k} : View<T>{data, n, 1};
  }
};

template <class T>
View<T> turned(View<T> view) {
  return {view.data, view.column_step, view.row_step};
}

GemmShape gemm_shape(const Call& call) {
  const Shape &a = call.in(0).shape(), &b = call.in(1).shape();
  if (a.size() != 2 || b.size() != 2) call.fail("wants two matrices, found " + to_string(a) + " and " + to_string(b));
  const bool ta = call.integer("transA", 0) != 0, tb = call.integer("transB", 0) != 0;
  const GemmShape shape{a[ta ? 1 : 0],         b[tb ? 0 : 1],       a[ta ? 0 : 1], ta, tb,
                        call.real("alpha", 1), call.real("beta", 1)};
  if (b[tb ? 1 : 0] != shape.k) {
    call.fail("cannot multiply " + to_string(a) + (ta ? " transposed" : "") + " and " + to_string(b) +
              (tb ? " transposed" : ""));
  }
  return shape;
}

template <class T>
T scaled(float factor, T value) {
  if (factor == 1) return value;
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(factor) * value;
  } else {
    const double product = static_cast<double>(factor) * static_cast<double>(value);
    const auto least = static_cast<double>(std::numeric_limits<T>::min());
    const auto most = static_cast<double>(std::numeric_limits<T>::max());
    if (product >= most) return std::numeric_limits<T>::max();
    return product > least ? static_cast<T>(product) : std::numeric_limits<T>::min();
  }
}

template <class T>
Tensor gemm_of(const Call& call, const Tensor& a, const Tensor& b, Tensor c, const GemmShape& shape) {
  const Shape out_shape = {shape.m, shape.n};
  check_size(call, a.dtype(), out_shape);
  const bool adds = c.exists() && shape.beta != 0;
  if (adds) c = broadcast_to(call, std::move(c), out_shape);
  // With alpha 1 the product is added to what is there already.
  const bool onto = adds && shape.alpha == 1;
  Tensor out = onto ? c : Tensor::allocate(a.dtype(), out_shape);
  if (onto) c = Tensor();
  const std::span<T> to = out.write<T>();
  if (onto && shape.beta != 1) {
    for (T& value : to) value = scaled(shape.beta, value);
  }
  if (!onto && shape.k == 0) std::fill(to.begin(), to.end(), T{});
  if (shape.k > 0 && !to.empty()) {
    multiply<T>(shape.m, shape.n, shape.k, shape.a(a.data<T>().data()), shape.b(b.data<T>().data()), to.data(), shape.n,
                onto);
  }
  if (onto) return out;
  const std::span<const T> more = adds ? c.data<T>() : std::span<const T>();
  using Sum = std::conditional_t<std::is_floating_point_v<T>, T, uint64_t>;
  for (size_t i = 0; i < to.size() && (adds || shape.alpha != 1); ++i) {
    to[i] = scaled(shape.alpha, to[i]);
    if (adds) to[i] = static_cast<T>(static_cast<Sum>(to[i]) + static_cast<Sum>(scaled(shape.beta, more[i])));
  }
  return out;
}

std::vector<Tensor> gemm(Call& call) {
  check_types(call);
  const GemmShape shape = gemm_shape(call);
  const DType dtype = call.in(0).dtype();
  const Tensor a = widened(call.in(0)), b = widened(call.in(1));
  Tensor c = call.has(2) ? widened(call.take(2)) : Tensor();
  if (c.exists() && c.dtype() != a.dtype()) call.fail("adds a " + std::string(to_string(c.dtype())) + " tensor");
  Tensor out = visit_type(call, a.dtype(), [&](auto type) -> Tensor {
    using T = decltype(type);
    if constexpr (std::is_same_v<T, bool>)
      call.refuse("cannot multiply matrices of bool");
    else
      return gemm_of<T>(call, a, b, std::move(c), shape);
  });
  if (is_half(dtype)) return {from_floats(dtype, out.shape(), out.data<float>())};
  return {std::move(out)};
}

std::vector<Tensor> gemm_backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const GemmShape s = gemm_shape(call);
  std::vector<Tensor> out(call.inputs.size());
  const View<float> grad{grads[0].data<float>().data(), s.n, 1};
  const bool nothing = s.m == 0 || s.n == 0 || s.k == 0;
  const auto scale = [](Tensor& tensor, float factor) {
    if (factor != 1) kernels::scale_shift(tensor.data<float>(), factor, 0, tensor.write<float>());
  };
  for (size_t side = 0; side < 2; ++side) {
    if (!wants_grad(call, side)) continue;
    out[side] = zeros(call.in(side).shape());
    if (nothing) continue;
    const Tensor other = as_float32(call.in(1 - side));
    const float* const factors = other.data<float>().data();
    float* const to = out[side].write<float>().data();
    if (side == 0) {
      const View<float> b = s.b(factors);
      if (!s.turned_a)
        multiply<float>(s.m, s.k, s.n, grad, turned(b), to, s.k, false);
      else
        multiply<float>(s.k, s.m, s.n, b, turned(grad), to, s.m, false);
    } else {
      const View<float> a = s.a(factors);
      if (!s.turned_b)
        multiply<float>(s.k, s.n, s.m, turned(a), grad, to, s.n, false);
      else
        multiply<float>(s.n, s.k, s.m, turned(grad), a, to, s.k, false);
    }
    scale(out[side], s.alpha);
  }
  if (wants_grad(call, 2)) {
    out[2] = sum_to(grads[0], call.in(2).shape());
    scale(out[2], s.beta);
  }
  return out;
}

}  // namespace

std::span<const Op> matrix_ops() {
  static const std::vector<Op> table = {
      {"MatMul", matmul, matmul_backward},
      {"Gemm", gemm, gemm_backward},
  };
  return table;
}

std::span<const Op> product_ops() {
  static const std::vector<Op> all = together({matrix_ops(), einsum_ops(), integer_product_ops()});
  return all;
}

}  // namespace nibble::ops
