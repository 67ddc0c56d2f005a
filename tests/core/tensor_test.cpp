// Tensors and what is promised about them: element types, sharing, conversions, rows.
#include "core/tensor/tensor.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/tensor/param.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using test::error_of;
using test::holds;
using test::same_bits;

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST_CASE("element types have the names and widths of the ONNX types") {
  struct Expected {
    DType dtype;
    const char* name;
    int bits;
  };
  const Expected all[] = {
      {DType::Float32, "float32", 32},
      {DType::Float64, "float64", 64},
      {DType::Float16, "float16", 16},
      {DType::BFloat16, "bfloat16", 16},
      {DType::Float8E4M3FN, "float8e4m3fn", 8},
      {DType::Float8E4M3FNUZ, "float8e4m3fnuz", 8},
      {DType::Float8E5M2, "float8e5m2", 8},
      {DType::Float8E5M2FNUZ, "float8e5m2fnuz", 8},
      {DType::Float8E8M0, "float8e8m0", 8},
      {DType::Float4E2M1, "float4e2m1", 4},
      {DType::Int8, "int8", 8},
      {DType::UInt8, "uint8", 8},
      {DType::Int16, "int16", 16},
      {DType::UInt16, "uint16", 16},
      {DType::Int32, "int32", 32},
      {DType::UInt32, "uint32", 32},
      {DType::Int64, "int64", 64},
      {DType::UInt64, "uint64", 64},
      {DType::Int4, "int4", 4},
      {DType::UInt4, "uint4", 4},
      {DType::Int2, "int2", 2},
      {DType::UInt2, "uint2", 2},
      {DType::Bool, "bool", 8},
      {DType::Complex64, "complex64", 64},
      {DType::Complex128, "complex128", 128},
      {DType::String, "string", 0},
  };
  CHECK(std::size(all) == static_cast<size_t>(DType::String) + 1);
  for (const Expected& expected : all) {
    CHECK(to_string(expected.dtype) == expected.name);
    CHECK(bits_of(expected.dtype) == expected.bits);
    const bool real = expected.dtype == DType::Float32 || expected.dtype == DType::Float64 ||
                      expected.dtype == DType::Float16 || expected.dtype == DType::BFloat16;
    CHECK(is_real(expected.dtype) == real);
  }
}

TEST_CASE("elements_of multiplies, a scalar has one element, and a zero anywhere leaves none") {
  CHECK(elements_of({}) == 1);
  CHECK(elements_of({7}) == 7);
  CHECK(elements_of({2, 3, 5}) == 30);
  CHECK(elements_of({2, 0, 5}) == 0);
  CHECK(elements_of({SIZE_MAX, SIZE_MAX, 0}) == 0);
}

TEST_CASE("elements_of refuses a product that overflows and names the place") {
  for (const Shape& shape :
       {Shape{SIZE_MAX, 2}, Shape{SIZE_MAX}, Shape{size_t{1} << 25, size_t{1} << 25}, Shape(64, size_t{2}),
        Shape{size_t{1} << (sizeof(size_t) * 4), size_t{1} << (sizeof(size_t) * 4)}}) {
    const Error error = error_of([&] { elements_of(shape, "conv.weight"); });
    CHECK(error.code == ErrorCode::BadFile);
    CHECK(error.where == "conv.weight");
    CHECK(holds(error.message, to_string(shape)));
  }
}

TEST_CASE("shapes are printed as people write them") {
  CHECK(to_string(Shape{}) == "scalar");
  CHECK(to_string(Shape{10}) == "10");
  CHECK(to_string(Shape{20, 1, 5, 5}) == "20x1x5x5");
}

TEST_CASE("packed types round their bytes up") {
  CHECK(bytes_for(DType::Int4, 0) == 0);
  CHECK(bytes_for(DType::Int4, 1) == 1);
  CHECK(bytes_for(DType::UInt4, 2) == 1);
  CHECK(bytes_for(DType::Float4E2M1, 3) == 2);
  CHECK(bytes_for(DType::Int2, 4) == 1);
  CHECK(bytes_for(DType::UInt2, 5) == 2);
  CHECK(bytes_for(DType::Float32, 3) == 12);
  CHECK(bytes_for(DType::Complex128, 3) == 48);
  CHECK(bytes_for(DType::String, 1000) == 0);
}

TEST_CASE("allocate refuses what no machine has, as an Error that names the size") {
  // 2^47 complex128 are 2^51 bytes; on a 32-bit machine the number of elements alone is too large.
  const Error error =
      error_of([] { Tensor::allocate(DType::Complex128, {size_t{1} << (sizeof(size_t) == 8 ? 47 : 30)}); });
  CHECK(error.code == ErrorCode::OutOfMemory);
  CHECK(holds(error.message, sizeof(size_t) == 8 ? "2251799813685248" : "17179869184"));
}

TEST_CASE("copy_of demands exactly the shape's bytes") {
  const std::vector<float> values{1, 2, 3};
  const Error error = error_of([&] { Tensor::from<float>(DType::Float32, {2, 2}, values); });
  CHECK(error.code == ErrorCode::BadData);
  CHECK(holds(error.message, "16 bytes, got 12"));
  CHECK(Tensor::from<float>(DType::Float32, {3}, values).data<float>()[2] == 3);
}

TEST_CASE("an empty tensor has a shape and no bytes, and a scalar has one element") {
  CHECK(Tensor().elements() == 0);
  CHECK(Tensor().bytes().empty());
  const Tensor none = Tensor::allocate(DType::Float32, {3, 0, 2});
  CHECK(none.shape() == Shape{3, 0, 2});
  CHECK(none.bytes().empty());
  CHECK(FloatView(none).values().empty());
  const float pi = 3.25f;
  const Tensor scalar = Tensor::from<float>(DType::Float32, {}, std::span(&pi, 1));
  CHECK(scalar.elements() == 1);
  CHECK(scalar.data<float>()[0] == pi);
}

TEST_CASE("copies share their storage until one of them is written") {
  const std::vector<float> values{1, 2, 3};
  Tensor before = Tensor::from<float>(DType::Float32, {3}, values);
  Tensor after = before;
  CHECK(after.same_storage(before));
  CHECK(after.bytes().data() == before.bytes().data());
  after.write<float>()[1] = 20;
  CHECK_FALSE(after.same_storage(before));
  CHECK(before.data<float>()[1] == 2);
  CHECK(after.data<float>()[0] == 1);
  CHECK(after.data<float>()[1] == 20);
  // Alone again, it is written in place.
  const auto* at = after.bytes().data();
  after.write<float>()[2] = 30;
  CHECK(after.bytes().data() == at);
  Tensor third = after;
  before = Tensor();
  third.write<float>()[0] = 10;
  CHECK(after.data<float>()[0] == 1);
  CHECK(third.data<float>()[2] == 30);
}

TEST_CASE(
    "a tensor borrows its bytes from a file, moves them down where there is slack, and copies where there is none") {
  const std::vector<float> values = test::random_floats(512, 9);
  const std::string text = test::raw(values);
  for (size_t offset = 0; offset <= 8; ++offset) {
    for (const size_t slack : {0, 3}) {
      CAPTURE(offset);
      CAPTURE(slack);
      const test::Bytes bytes = test::bytes_of(std::string(offset, '.') + text + "tail");
      const FileBytes file{std::span(bytes)};
      const std::span<const std::byte> inside = file.span().subspan(offset, text.size());
      const Tensor tensor = Tensor::borrow(DType::Float32, {512}, file, inside, slack);
      CHECK(test::text_of(tensor.bytes()) == text);
      CHECK(reinterpret_cast<uintptr_t>(tensor.bytes().data()) % 4 == 0);
      CHECK(test::text_of(file.span().last(4)) == "tail");
      const bool in_file = tensor.bytes().data() >= file.span().data() &&
                           tensor.bytes().data() < file.span().data() + file.span().size();
      CHECK(in_file == (offset % 4 <= slack));
      Tensor changed = tensor;
      changed.write<float>()[0] = 1e9f;
      CHECK(test::text_of(tensor.bytes()) == text);
    }
  }
}

TEST_CASE("a borrowed tensor outlives the file it was borrowed from") {
  const std::string text(4096, 'b');
  Tensor tensor;
  {
    const test::Bytes bytes = test::bytes_of(text);
    const FileBytes file{std::span(bytes)};
    tensor = Tensor::borrow(DType::UInt8, {4096}, file, file.span(), 0);
    CHECK_FALSE(tensor.is_unshared());
    // Of the wrong size it is refused, as copy_of refuses it.
    CHECK_THROWS_AS(Tensor::borrow(DType::UInt8, {4095}, file, file.span(), 0), Error);
  }
  CHECK(test::text_of(tensor.bytes()) == text);
  CHECK(tensor.is_unshared());
}

// The bit patterns are the examples of IEEE 754 binary16: 1, -2, the largest, the smallest normal, the largest and the
// smallest subnormal, -0, infinity.
TEST_CASE("float16 is read as the numbers its bits mean") {
  const std::vector<uint16_t> bits{0x3C00, 0xC000, 0x7BFF, 0x0400, 0x03FF, 0x0001,
                                   0x8000, 0x7C00, 0xFC00, 0x3555, 0x7E00};
  const std::vector<float> meant{1,     -2,   65504, 0x1p-14f,    0x1p-14f - 0x1p-24f, 0x1p-24f,
                                 -0.0f, kInf, -kInf, 0x1.554p-2f, std::nanf("")};
  const FloatView view(Tensor::from<uint16_t>(DType::Float16, {bits.size()}, bits));
  for (size_t i = 0; i + 1 < meant.size(); ++i) CHECK(same_bits(view.values()[i], meant[i]));
  CHECK(std::isnan(view.values().back()));
}

TEST_CASE("bfloat16 is the upper half of float32") {
  const std::vector<uint16_t> bits{0x3F80, 0x4049, 0xC2FF, 0x0080, 0x0001, 0x8000, 0x7F80, 0x7FC0};
  const std::vector<float> meant{1, 3.140625f, -127.5f, 0x1p-126f, 0x1p-133f, -0.0f, kInf, std::nanf("")};
  const FloatView view(Tensor::from<uint16_t>(DType::BFloat16, {bits.size()}, bits));
  for (size_t i = 0; i + 1 < meant.size(); ++i) CHECK(same_bits(view.values()[i], meant[i]));
  CHECK(std::isnan(view.values().back()));
}

TEST_CASE("float64 is rounded to the nearest float32, ties to even") {
  const std::vector<double> values{1 + 0x1p-24, 1 + 0x1p-24 + 0x1p-50, 1 + 3 * 0x1p-24, 0.1, -1e300,
                                   1e-60,       std::nan("")};
  const std::vector<float> meant{1, 1 + 0x1p-23f, 1 + 0x1p-22f, 0.1f, -kInf, 0};
  const FloatView view(Tensor::from<double>(DType::Float64, {values.size()}, values));
  for (size_t i = 0; i < meant.size(); ++i) CHECK(same_bits(view.values()[i], meant[i]));
  CHECK(std::isnan(view.values().back()));
}

TEST_CASE("a float32 tensor is looked at in place, and the view keeps it alive") {
  Tensor tensor = Tensor::from<float>(DType::Float32, {2}, std::vector<float>{5, 6});
  const FloatView view(tensor);
  CHECK(reinterpret_cast<const std::byte*>(view.values().data()) == tensor.bytes().data());
  tensor.write<float>()[0] = 50;  // clones, because the view shares the storage
  tensor = Tensor();
  CHECK(view.values()[0] == 5);
  CHECK(view.values()[1] == 6);
}

TEST_CASE("only real types have a view of floats") {
  for (const DType dtype :
       {DType::Int8, DType::Int4, DType::Bool, DType::Complex64, DType::Float8E5M2, DType::String}) {
    const Error error = error_of([&] { FloatView view(Tensor::allocate(dtype, {4})); });
    CHECK(error.code == ErrorCode::BadData);
    CHECK(holds(error.message, to_string(dtype)));
    CHECK_THROWS_AS(from_floats(dtype, {1}, std::vector<float>{1}), Error);
  }
}

// 2048 and 2050 are neighbours in float16 (11 significant bits), 1 and 1 + 2^-7 in bfloat16 (8 bits).
TEST_CASE("from_floats rounds to nearest, ties to even, and overflows to infinity") {
  const std::vector<float> values{2049, 2051, 2049.001f, -65519.996f, 65520, 0x1p-25f, 0x1.8p-25f, -0.0f};
  const std::vector<uint16_t> half{0x6800, 0x6802, 0x6801, 0xFBFF, 0x7C00, 0x0000, 0x0001, 0x8000};
  const Tensor tensor = from_floats(DType::Float16, {2, 4}, values);
  CHECK(tensor.dtype() == DType::Float16);
  CHECK(tensor.shape() == Shape{2, 4});
  for (size_t i = 0; i < half.size(); ++i) CHECK(tensor.data<uint16_t>()[i] == half[i]);

  const std::vector<float> wide{1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1 + 0x1p-8f + 0x1p-20f, std::numeric_limits<float>::max(),
                                -0.0f};
  const std::vector<uint16_t> brain{0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x8000};
  const Tensor rounded = from_floats(DType::BFloat16, {wide.size()}, wide);
  for (size_t i = 0; i < brain.size(); ++i) CHECK(rounded.data<uint16_t>()[i] == brain[i]);

  CHECK(from_floats(DType::Float64, {1}, std::vector<float>{0.1f}).data<double>()[0] == double{0.1f});
}

TEST_CASE("round_through is from_floats and FloatView one after the other") {
  for (const DType dtype : {DType::Float32, DType::Float64, DType::Float16, DType::BFloat16}) {
    std::vector<float> values = test::random_floats(1003, 5, 100);
    values[7] = 1e6f, values[8] = -1e-9f, values[9] = -0.0f;
    const FloatView expected(from_floats(dtype, {values.size()}, values));
    round_through(dtype, values);
    for (size_t i = 0; i < values.size(); ++i) REQUIRE(same_bits(values[i], expected.values()[i]));
    // A second time changes nothing.
    std::vector<float> again = values;
    round_through(dtype, again);
    CHECK(again == values);
  }
}

TEST_CASE("the ends of a scheme's codes") {
  const auto ends = [](int bits, bool symmetric) {
    const QuantScheme scheme{bits, symmetric, Granularity::Tensor, 32};
    return std::pair(lowest_code(scheme), highest_code(scheme));
  };
  CHECK(ends(8, true) == std::pair(-127, 127));
  CHECK(ends(8, false) == std::pair(0, 255));
  CHECK(ends(4, true) == std::pair(-7, 7));
  CHECK(ends(4, false) == std::pair(0, 15));
  CHECK(ends(2, true) == std::pair(-1, 1));
  CHECK(ends(1, true) == std::pair(-1, 1));
  CHECK(ends(1, false) == std::pair(0, 1));
  CHECK(ends(16, true) == std::pair(-32767, 32767));
  CHECK(ends(16, false) == std::pair(0, 65535));
}

TEST_CASE("rows_of splits a shape around its channel axis") {
  const auto split = [](const Shape& shape, std::optional<size_t> axis) {
    const Rows rows = rows_of(shape, axis);
    return Shape{rows.outer, rows.channels, rows.inner};
  };
  CHECK(split({8, 3, 5, 5}, 0) == Shape{1, 8, 75});
  CHECK(split({8, 3, 5, 5}, 1) == Shape{8, 3, 25});
  CHECK(split({8, 3, 5, 5}, 3) == Shape{120, 5, 1});
  CHECK(split({8, 3, 5, 5}, std::nullopt) == Shape{1, 1, 600});
  CHECK(split({}, std::nullopt) == Shape{1, 1, 1});
  CHECK(rows_of({8, 3, 5, 5}, 1).length() == 200);
}

// What is done per row must not be done 2^40 times for a file of a hundred bytes.
TEST_CASE("a weight without elements is one empty row, whatever extents stand beside the zero") {
  for (const Shape& shape : {Shape{size_t{1} << 30, 0}, Shape{0, size_t{1} << 30}, Shape{SIZE_MAX, SIZE_MAX, 0}}) {
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      const Rows rows = rows_of(shape, axis);
      CHECK(rows.channels <= 1);
      CHECK(rows.outer == 1);
      CHECK(rows.channels * rows.length() == 0);
    }
  }
}

TEST_CASE("gather_rows brings channels first, any run of them, and scatter_rows brings them back") {
  for (const Rows& rows :
       {Rows{1, 4, 6}, Rows{3, 4, 1}, Rows{3, 4, 5}, Rows{7, 1, 2}, Rows{65, 33, 1}, Rows{2, 3, 17}}) {
    std::vector<float> values(rows.outer * rows.channels * rows.inner);
    std::iota(values.begin(), values.end(), 0.0f);
    for (size_t first = 0; first < rows.channels; ++first) {
      const size_t count = rows.channels - first;
      std::vector<float> gathered(count * rows.length(), -1), scattered(values.size(), -1);
      gather_rows<float>(values, rows, first, count, gathered);
      std::vector<float> tiled(gathered.size(), -1);  // the overload for float
      gather_rows(std::span<const float>(values), rows, first, count, std::span<float>(tiled));
      CHECK(tiled == gathered);
      for (size_t c = 0; c < count; ++c) {
        for (size_t o = 0; o < rows.outer; ++o) {
          for (size_t i = 0; i < rows.inner; ++i) {
            REQUIRE(gathered[c * rows.length() + o * rows.inner + i] ==
                    values[(o * rows.channels + first + c) * rows.inner + i]);
          }
        }
      }
      scatter_rows<float>(gathered, rows, first, count, scattered);
      tiled.assign(values.size(), -1);
      scatter_rows(std::span<const float>(gathered), rows, first, count, std::span<float>(tiled));
      CHECK(tiled == scattered);
      for (size_t i = 0; i < values.size(); ++i) {
        const bool touched = i / rows.inner % rows.channels >= first;
        REQUIRE(scattered[i] == (touched ? values[i] : -1));
      }
    }
  }
}

TEST_CASE("for_each_row_block shows every row once and in order, in place where rows are contiguous") {
  for (const Rows& rows :
       {Rows{1, 7, 6}, Rows{3, 4, 1}, Rows{2, 0, 4}, Rows{1, 1, 0}, Rows{300, 2000, 1}, Rows{300'000, 3, 1}}) {
    std::vector<float> values(rows.outer * rows.channels * rows.inner);
    std::iota(values.begin(), values.end(), 0.0f);
    size_t next = 0, calls = 0;
    for_each_row_block<float>(values, rows, [&](size_t first, size_t count, std::span<const float> block) {
      ++calls;
      CHECK(first == next);
      REQUIRE(block.size() == count * rows.length());
      for (size_t i = 0; i < block.size(); ++i) {
        const size_t c = i / rows.length(), o = i % rows.length() / rows.inner, k = i % rows.inner;
        REQUIRE(block[i] == values[(o * rows.channels + first + c) * rows.inner + k]);
      }
      if (rows.outer == 1) CHECK(block.data() == values.data());
      next += count;
    });
    CHECK(next == rows.channels);
    if (rows.outer == 1) CHECK(calls == 1);
    // Never room for a second copy of a large weight.
    CHECK(rows_per_block(rows) * rows.length() <= std::max(size_t{1} << 18, rows.length()));
  }
}

TEST_CASE("groups_of counts the last short group, and none of an empty row") {
  CHECK(groups_of(64, 32) == 2);
  CHECK(groups_of(65, 32) == 3);
  CHECK(groups_of(5, 32) == 1);
  CHECK(groups_of(0, 32) == 0);
}

}  // namespace
}  // namespace nibble
