// Products, against loops over indices.
#include <cmath>
#include <map>
#include <numeric>

#include "ops_support.hpp"

namespace nibble::test {
namespace {

constexpr double kUnit = 0x1p-24;  // the relative error of one rounding to float32

/// |a - b| <= bound, element by element.
void check_close(const Tensor& y, const std::vector<double>& expected, const std::vector<double>& bound) {
  const std::span<const float> values = y.data<float>();
  REQUIRE(values.size() == expected.size());
  size_t wrong = 0;
  for (size_t i = 0; i < values.size(); ++i) wrong += !(std::fabs(double{values[i]} - expected[i]) <= bound[i]);
  CHECK(wrong == 0);
}

/// A sum of n products in float32, in whatever order, is off by at most (n + 2) roundings of the sum of their sizes
/// (Higham 2002, section 3.1).
struct Sum {
  double value = 0, size = 0;
  size_t terms = 0;
  void add(double product) { value += product, size += std::fabs(product), ++terms; }
  double bound() const { return (static_cast<double>(terms) + 2) * kUnit * size; }
};

/// numpy.matmul by its definition.
std::vector<Sum> naive_matmul(const Tensor& a, const Tensor& b, const Shape& batch, size_t m, size_t n, size_t k) {
  const auto matrix_of = [&](const Tensor& tensor, size_t at, size_t rank) {
    const Shape& shape = tensor.shape();
    const size_t own = shape.size() > rank ? shape.size() - rank : 0;
    std::vector<size_t> index(batch.size());
    for (size_t i = batch.size(); i-- > 0; at /= batch[i]) index[i] = at % batch[i];
    size_t place = 0;
    for (size_t i = 0; i < own; ++i) place = place * shape[i] + (shape[i] == 1 ? 0 : index[batch.size() - own + i]);
    return place;
  };
  std::vector<Sum> out;
  for (size_t at = 0; at < elements_of(batch); ++at) {
    const float* const x = a.data<float>().data() + matrix_of(a, at, 2) * m * k;
    const float* const y = b.data<float>().data() + matrix_of(b, at, 2) * k * n;
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j < n; ++j) {
        Sum sum;
        for (size_t l = 0; l < k; ++l) sum.add(double{x[i * k + l]} * y[l * n + j]);
        out.push_back(sum);
      }
    }
  }
  return out;
}

void check_sums(const Tensor& y, const std::vector<Sum>& sums) {
  std::vector<double> values, bounds;
  for (const Sum& sum : sums) values.push_back(sum.value), bounds.push_back(sum.bound());
  check_close(y, values, bounds);
}

TEST_CASE("MatMul multiplies stretched batches of matrices, rows and columns") {
  struct Case {
    Shape a, b, batch, out;
    size_t m, n, k;
  };
  const std::vector<Case> cases = {
      {{5}, {5}, {}, {}, 1, 1, 5},
      {{5}, {5, 3}, {}, {3}, 1, 3, 5},
      {{4, 5}, {5}, {}, {4}, 4, 1, 5},
      {{4, 5}, {5, 3}, {}, {4, 3}, 4, 3, 5},
      {{1, 70}, {70, 33}, {}, {1, 33}, 1, 33, 70},
      {{2, 4, 5}, {5, 3}, {2}, {2, 4, 3}, 4, 3, 5},
      {{2, 4, 5}, {5}, {2}, {2, 4}, 4, 1, 5},
      {{5}, {2, 5, 3}, {2}, {2, 3}, 1, 3, 5},
      {{2, 4, 5}, {1, 5, 3}, {2}, {2, 4, 3}, 4, 3, 5},
      {{1, 4, 5}, {2, 5, 3}, {2}, {2, 4, 3}, 4, 3, 5},
      {{4, 5}, {2, 3, 5, 3}, {2, 3}, {2, 3, 4, 3}, 4, 3, 5},
      {{2, 1, 4, 5}, {3, 5, 6}, {2, 3}, {2, 3, 4, 6}, 4, 6, 5},
      {{7, 2, 3, 4, 5}, {2, 1, 5, 6}, {7, 2, 3}, {7, 2, 3, 4, 6}, 4, 6, 5},
      {{1, 1, 4, 5}, {1, 1, 5, 6}, {1, 1}, {1, 1, 4, 6}, 4, 6, 5},
      {{3, 40, 90}, {90, 50}, {3}, {3, 40, 50}, 40, 50, 90},
  };
  for (const Case& c : cases) {
    const Tensor a = random_real(c.a, 1), b = random_real(c.b, 2);
    const Tensor y = run_op("MatMul", {a, b})[0];
    CHECK(y.shape() == c.out);
    check_sums(y, naive_matmul(a, b, c.batch, c.m, c.n, c.k));
    GradientCheck how;
    how.step = 0.25f;  // linear in each
    how.bound = 1e-3;
    if (elements_of(c.a) < 200) check_gradients("MatMul", {a, b}, {}, {0, 1}, how);
  }
}

TEST_CASE("MatMul without elements gives zeros or nothing") {
  CHECK(values_of(run_op("MatMul", {floats({2, 0}, {}), floats({0, 2}, {})})[0]) == std::vector<float>(4, 0.0f));
  CHECK(run_op("MatMul", {floats({0, 2}, {}), floats({2, 3}, {1, 2, 3, 4, 5, 6})})[0].shape() == Shape{0, 3});
  CHECK(run_op("MatMul", {floats({0, 1, 2}, {}), floats({2, 3}, {1, 2, 3, 4, 5, 6})})[0].shape() == Shape{0, 1, 3});
  CHECK(run_op("Gemm", {floats({2, 0}, {}), floats({0, 2}, {}), floats({1}, {3})})[0].data<float>()[3] == 3.0f);
  CHECK(run_op("Gemm", {floats({2, 0}, {}), floats({0, 2}, {})})[0].data<float>()[3] == 0.0f);
}

TEST_CASE("MatMul of other types is exact, and integers wrap") {
  const auto product = [](DType dtype, auto zero) {
    using T = decltype(zero);
    const Tensor a = tensor_of<T>(dtype, {2, 2}, {1, 2, 3, 4}), b = tensor_of<T>(dtype, {2, 2}, {5, 6, 7, 8});
    CHECK(values_of<T>(run_op("MatMul", {a, b})[0]) == std::vector<T>{19, 22, 43, 50});
    const Tensor c = tensor_of<T>(dtype, {2}, {1, 2});
    const Tensor y = run_op("Gemm", {a, b, c}, {{"alpha", 2.0f}, {"beta", 3.0f}, {"transB", 1}})[0];
    CHECK(values_of<T>(y) == std::vector<T>{37, 52, 81, 112});
  };
  product(DType::Int32, int32_t{});
  product(DType::Int64, int64_t{});
  product(DType::UInt32, uint32_t{});
  product(DType::UInt64, uint64_t{});
  product(DType::Float64, double{});
  const Tensor most = tensor_of<int32_t>(DType::Int32, {1, 1}, {INT32_MIN});
  CHECK(values_of<int32_t>(run_op("MatMul", {most, most})[0]) == std::vector<int32_t>{0});
  const Tensor half = from_floats(DType::Float16, {1, 2}, std::vector<float>{1.5f, 2.5f});
  const Tensor square = run_op("MatMul", {half, half.reshaped({2, 1})})[0];
  CHECK(square.dtype() == DType::Float16);
  CHECK(FloatView(square).values()[0] == 8.5f);
}

TEST_CASE("Gemm multiplies either way round, scales, and adds what can be stretched") {
  Random random{3};
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      for (const Shape& c_shape : {Shape{}, Shape{1}, Shape{5}, Shape{4, 1}, Shape{1, 5}, Shape{4, 5}}) {
        const float alpha = random.below(2) ? 1 : 0.5f, beta = random.below(2) ? 1 : -2;
        const Tensor a = random_real(ta ? Shape{3, 4} : Shape{4, 3}, random.bits());
        const Tensor b = random_real(tb ? Shape{5, 3} : Shape{3, 5}, random.bits());
        const Tensor c = random_real(c_shape, random.bits());
        const Givens given = {{"transA", ta ? 1 : 0}, {"transB", tb ? 1 : 0}, {"alpha", alpha}, {"beta", beta}};
        std::vector<Sum> sums;
        for (size_t i = 0; i < 4; ++i) {
          for (size_t j = 0; j < 5; ++j) {
            Sum sum;
            const size_t rows = c_shape.size() == 2 ? c_shape[0] : 1, columns = c_shape.empty() ? 1 : c_shape.back();
            sum.add(double{beta} * c.data<float>()[(rows == 1 ? 0 : i) * columns + (columns == 1 ? 0 : j)]);
            for (size_t l = 0; l < 3; ++l) {
              sum.add(double{alpha} * a.data<float>()[ta ? l * 4 + i : i * 3 + l] *
                      b.data<float>()[tb ? j * 3 + l : l * 5 + j]);
            }
            sums.push_back(sum);
          }
        }
        check_sums(run_op("Gemm", {a, b, c}, given)[0], sums);
        GradientCheck how;
        how.step = 0.25f;
        how.bound = 1e-3;
        check_gradients("Gemm", {a, b, c}, given, {0, 1, 2}, how);
      }
    }
  }
  const Tensor x = floats({1, 1}, {2});
  CHECK(values_of(run_op("Gemm", {x, x, x}, {{"broadcast", 1}}, 6)[0]) == std::vector<float>{6});
}

// --- Einsum ----------------------------------------------------------------------------------------------------------

/// The sum over all values of all letters, by an equation whose ellipses are spelled out.
std::vector<Sum> naive_einsum(const std::string& equation, const std::vector<Tensor>& operands) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; equation[i] != '-'; ++i) {
    if (equation[i] == ',')
      parts.emplace_back();
    else
      parts.back() += equation[i];
  }
  const std::string result = equation.substr(equation.find('>') + 1);
  std::map<char, size_t> extents;
  for (size_t i = 0; i < parts.size(); ++i) {
    for (size_t axis = 0; axis < parts[i].size(); ++axis) {
      size_t& extent = extents.emplace(parts[i][axis], 1).first->second;
      extent = std::max(extent, operands[i].shape()[axis]);
    }
  }
  size_t all = 1, made = 1;
  for (const auto& [letter, extent] : extents) all *= extent;
  for (const char letter : result) made *= extents[letter];
  std::vector<Sum> sums(made);
  for (size_t at = 0; at < all; ++at) {
    std::map<char, size_t> value;
    size_t rest = at;
    for (const auto& [letter, extent] : extents) value[letter] = rest % extent, rest /= extent;
    double product = 1;
    for (size_t i = 0; i < parts.size(); ++i) {
      const Shape& shape = operands[i].shape();
      size_t place = 0;
      for (size_t axis = 0; axis < shape.size(); ++axis) {
        place = place * shape[axis] + (shape[axis] == 1 ? 0 : value[parts[i][axis]]);
      }
      product *= operands[i].data<float>()[place];
    }
    size_t to = 0;
    for (const char letter : result) to = to * extents[letter] + value[letter];
    sums[to].add(product);
  }
  // Products of several operands are rounded once for each.
  for (Sum& sum : sums) sum.terms += 2 * parts.size();
  return sums;
}

TEST_CASE("Einsum is the sum over all labels that the result does not have") {
  struct Case {
    std::string equation, spelled;
    std::vector<Shape> shapes;
  };
  const std::vector<Case> cases = {
      {"ij,jk->ik", "ij,jk->ik", {{3, 4}, {4, 5}}},
      {"ij,jk", "ij,jk->ik", {{3, 4}, {4, 5}}},
      {"ba", "ba->ab", {{3, 4}}},
      {"i,i", "i,i->", {{6}, {6}}},
      {"i,j->ij", "i,j->ij", {{3}, {4}}},
      {"i,j->ji", "i,j->ji", {{3}, {4}}},
      {"ii", "ii->", {{4, 4}}},
      {"ii->i", "ii->i", {{4, 4}}},
      {"iji->ji", "iji->ji", {{4, 2, 4}}},
      {"ij->", "ij->", {{3, 4}}},
      {"ij->j", "ij->j", {{3, 4}}},
      {"bij,bjk->bik", "bij,bjk->bik", {{2, 3, 4}, {2, 4, 5}}},
      {"bij,bkj->bik", "bij,bkj->bik", {{2, 3, 4}, {2, 5, 4}}},
      {"bji,bjk->ikb", "bji,bjk->ikb", {{2, 4, 3}, {2, 4, 5}}},
      {"bqhd,bkhd->bhqk", "bqhd,bkhd->bhqk", {{2, 3, 2, 4}, {2, 5, 2, 4}}},
      {"bhqk,bkhd->bqhd", "bhqk,bkhd->bqhd", {{2, 2, 3, 5}, {2, 5, 2, 4}}},
      {"ij,ij->ij", "ij,ij->ij", {{3, 4}, {3, 4}}},
      {"ij,ji->ij", "ij,ji->ij", {{3, 4}, {4, 3}}},
      {"ij,k->k", "ij,k->k", {{3, 4}, {5}}},
      {"ijk,k->ij", "ijk,k->ij", {{2, 3, 4}, {4}}},
      {"ii,i->i", "ii,i->i", {{4, 4}, {4}}},
      {"ij,jk,kl->il", "ij,jk,kl->il", {{2, 3}, {3, 4}, {4, 5}}},
      {"ij,jk,ki->", "ij,jk,ki->", {{2, 3}, {3, 4}, {4, 2}}},
      {"a,ab,abc,c->b", "a,ab,abc,c->b", {{2}, {2, 3}, {2, 3, 4}, {4}}},
      {"...ij,...jk->...ik", "xyij,xyjk->xyik", {{2, 3, 2, 4}, {2, 3, 4, 5}}},
      {"...ij,jk->...ik", "xyij,jk->xyik", {{2, 3, 2, 4}, {4, 5}}},
      {"...ij,...jk", "xyij,xyjk->xyik", {{2, 1, 2, 4}, {1, 3, 4, 5}}},
      {"i...,i...->...", "ix,ix->x", {{3, 4}, {3, 4}}},
      {"...ii->...i", "xii->xi", {{2, 3, 3}}},
      {"... , ... -> ...", "x,x->x", {{3}, {1}}},
      {"ij,jk->ik", "ij,jk->ik", {{3, 1}, {4, 5}}},
      {"ij,jk->ik", "ij,jk->ik", {{1, 4}, {4, 1}}},
      {",i->i", ",i->i", {{}, {3}}},
      {"Ab,bA->A", "Ab,bA->A", {{2, 3}, {3, 2}}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.equation);
    std::vector<Tensor> operands;
    std::vector<size_t> which;
    for (const Shape& shape : c.shapes) {
      which.push_back(operands.size());
      operands.push_back(random_real(shape, 40 + operands.size()));
    }
    check_sums(run_op("Einsum", operands, {{"equation", c.equation.c_str()}})[0], naive_einsum(c.spelled, operands));
    GradientCheck how;
    how.step = 0.25f;  // linear in each
    how.bound = 1e-3;
    check_gradients("Einsum", operands, {{"equation", c.equation.c_str()}}, which, how);
  }
}

TEST_CASE("Einsum of integers is exact") {
  const Tensor a = tensor_of<int32_t>(DType::Int32, {2, 2}, {1, 2, 3, 4});
  CHECK(values_of<int32_t>(run_op("Einsum", {a, a}, {{"equation", "ij,kj->ik"}})[0]) ==
        std::vector<int32_t>{5, 11, 11, 25});
  CHECK(values_of<int32_t>(run_op("Einsum", {a}, {{"equation", "ij->j"}})[0]) == std::vector<int32_t>{4, 6});
}

// --- Products of codes -----------------------------------------------------------------------------------------------

TEST_CASE("MatMulInteger takes zero points of rows and columns away first") {
  Random random{9};
  const size_t m = 3, n = 4, k = 5;
  for (const bool is_signed : {false, true}) {
    for (const size_t form :
         {0, 1, 2, 3}) {  // no zero points, one, one for each line, one for each line of each matrix
      std::vector<uint8_t> a(2 * m * k), b(k * n);
      for (uint8_t& code : a) code = static_cast<uint8_t>(random.below(256));
      for (uint8_t& code : b) code = static_cast<uint8_t>(random.below(256));
      const size_t a_zeros = form < 2 ? 1 : form == 2 ? m : 2 * m, b_zeros = form < 2 ? 1 : n;
      std::vector<uint8_t> az(a_zeros), bz(b_zeros);
      for (uint8_t& code : az) code = static_cast<uint8_t>(form ? random.below(256) : 0);
      for (uint8_t& code : bz) code = static_cast<uint8_t>(form ? random.below(256) : 0);
      const DType left = is_signed ? DType::Int8 : DType::UInt8;
      std::vector<Tensor> inputs = {tensor_of(left, {2, m, k}, a), tensor_of(DType::UInt8, {k, n}, b)};
      const Shape az_shape = form == 3 ? Shape{2, m, 1} : form == 2 ? Shape{m} : Shape{};
      if (form) {
        inputs.push_back(tensor_of(left, az_shape, az));
        inputs.push_back(tensor_of(DType::UInt8, form == 1 ? Shape{} : Shape{n}, bz));
      }
      const auto number = [&](uint8_t code) {
        return is_signed ? static_cast<int>(static_cast<int8_t>(code)) : int{code};
      };
      std::vector<int32_t> expected;
      for (size_t row = 0; row < 2 * m; ++row) {
        for (size_t j = 0; j < n; ++j) {
          int32_t sum = 0;
          const int zero = number(az[form < 2 ? 0 : form == 2 ? row % m : row]), other = bz[form < 2 ? 0 : j];
          for (size_t l = 0; l < k; ++l) sum += (number(a[row * k + l]) - zero) * (int{b[l * n + j]} - other);
          expected.push_back(sum);
        }
      }
      CHECK(values_of<int32_t>(run_op("MatMulInteger", inputs)[0]) == expected);
    }
  }
}

TEST_CASE("QLinearMatMul rounds to even and stays within its codes") {
  const auto codes = [](const Shape& shape, const std::vector<uint8_t>& values) {
    return tensor_of(DType::UInt8, shape, values);
  };
  const Tensor one = floats({}, {1}), zero = codes({}, {0});
  const auto product = [&](uint8_t a, uint8_t b, float scale, uint8_t shift) {
    return values_of<uint8_t>(run_op("QLinearMatMul", {codes({1, 1}, {a}), one, zero, codes({1, 1}, {b}), one, zero,
                                                       floats({}, {scale}), codes({}, {shift})})[0])[0];
  };
  CHECK(product(5, 1, 2, 0) == 2);  // 2.5
  CHECK(product(7, 1, 2, 0) == 4);  // 3.5
  CHECK(product(5, 1, 2, 10) == 12);
  CHECK(product(200, 2, 1, 0) == 255);
  CHECK(product(200, 2, 1e-30f, 0) == 255);
  CHECK(product(0, 2, 0, 0) == 0);  // 0 * infinity is no number
  // A scale for each row and each column.
  const Tensor y =
      run_op("QLinearMatMul", {codes({2, 1}, {1, 1}), floats({2}, {1, 2}), codes({2}, {0, 0}), codes({1, 2}, {1, 1}),
                               floats({2}, {3, 5}), codes({2}, {0, 0}), one, zero})[0];
  CHECK(values_of<uint8_t>(y) == std::vector<uint8_t>{3, 5, 6, 10});
}

TEST_CASE("Operands of products that do not fit are named") {
  const auto check = [](std::string_view op, const std::vector<Tensor>& inputs, const Givens& given = {}) {
    CAPTURE(std::string(op));
    const Error error = error_of_op(op, inputs, given);
    CHECK(error.code == ErrorCode::BadData);
    CHECK(holds(error.where, "node"));
  };
  const Tensor x = random_real({2, 3}, 1), one = floats({}, {1}), list = integers({1, 2, 3});
  check("MatMul", {x, x});
  check("MatMul", {x, one});
  check("MatMul", {one, x});
  check("MatMul", {x, list});
  check("MatMul", {random_real({2, 2, 3}, 1), random_real({3, 3, 2}, 1)});
  check("MatMul", {x});
  check("Gemm", {x, x});
  check("Gemm", {x, x}, {{"transA", 1}, {"transB", 1}});
  check("Gemm", {x, x.reshaped({3, 2}), random_real({3}, 1)});
  check("Gemm", {x, x.reshaped({3, 2}), random_real({1, 2, 2}, 1)});
  check("Gemm", {x, x.reshaped({3, 2}), integers({1, 2})});
  check("Gemm", {x.reshaped({6}), x});
  for (const char* equation : {"", "ij", "ij,jk,kl->i", "ij,ij->k", "ij,ij->ii", "i,ij->j", "ijk,ij->i", "ij,ji->ij",
                               "i1,ij->i", "..,ij->i", "i..j,ij->", "......ij,ij->", "ij,ij-ij", "ij,ij->i->j"}) {
    CAPTURE(std::string(equation));
    check("Einsum", {x, x}, {{"equation", equation}});
  }
  check("Einsum", {x, list}, {{"equation", "ij,j->i"}});
  const Tensor codes = tensor_of<uint8_t>(DType::UInt8, {2, 2}, {1, 2, 3, 4});
  check("MatMulInteger", {codes, codes, tensor_of<uint8_t>(DType::UInt8, {3}, {0, 0, 0})});
  CHECK(error_of_op("MatMulInteger", {x, x}).code == ErrorCode::Unsupported);
  // An outer product of two vectors can be as large as anything.
  const Tensor line = random_real({50000}, 1);
  CHECK(error_of_op("Einsum", {line, line}, {{"equation", "i,j->ij"}}).code == ErrorCode::Unsupported);
  CHECK(run_op("Einsum", {line, line, line}, {{"equation", "i,j,k->"}})[0].shape().empty());  // summed before they meet
  CHECK(error_of_op("MatMul", {line.reshaped({50000, 1}), line.reshaped({1, 50000})}).code == ErrorCode::Unsupported);
  CHECK(error_of_op("Gemm", {line.reshaped({50000, 1}), line.reshaped({1, 50000})}).code == ErrorCode::Unsupported);
}

}  // namespace
}  // namespace nibble::test
