// Operators that move elements, against loops over indices.
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>

#include "ops_support.hpp"

namespace nibble::test {
namespace {

using Index = std::vector<size_t>;

size_t flat(const Shape& shape, const Index& index) {
  size_t at = 0;
  for (size_t i = 0; i < shape.size(); ++i) at = at * shape[i] + index[i];
  return at;
}

void for_each_index(const Shape& shape, const std::function<void(const Index&)>& visit) {
  const size_t count = elements_of(shape);
  for (size_t at = 0; at < count; ++at) {
    Index index(shape.size());
    for (size_t i = shape.size(), rest = at; i-- > 0; rest /= shape[i]) index[i] = rest % shape[i];
    visit(index);
  }
}

/// A tensor each of whose elements is its own place.
Tensor counting(const Shape& shape) {
  std::vector<float> values(elements_of(shape));
  std::iota(values.begin(), values.end(), 0.0f);
  return floats(shape, values);
}

Shape random_shape(Random& random, size_t rank, size_t most) {
  Shape shape(rank);
  for (size_t& extent : shape) extent = 1 + random.below(most);
  return shape;
}

int64_t between(Random& random, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random.below(static_cast<size_t>(high - low + 1)));
}

/// Checks the first output's shape, and its elements against what `expected` says of each index.
void check_elements(const Tensor& y, const Shape& shape, const std::function<float(const Index&)>& expected) {
  REQUIRE(y.shape() == shape);
  const std::span<const float> values = y.data<float>();
  size_t wrong = 0;
  for_each_index(shape, [&](const Index& index) { wrong += values[flat(shape, index)] != expected(index); });
  CHECK(wrong == 0);
}

TEST_CASE("Transpose moves every element to where its permuted index is") {
  Random random{1};
  for (int round = 0; round < 60; ++round) {
    const size_t rank = 1 + random.below(5);
    const Shape shape = round % 10 == 0 ? Shape{67, 3, 130} : random_shape(random, rank, 6);
    std::vector<int64_t> perm(shape.size());
    std::iota(perm.begin(), perm.end(), 0);
    for (size_t i = perm.size(); i > 1; --i) std::swap(perm[i - 1], perm[random.below(i)]);
    const Tensor x = counting(shape), y = run_op("Transpose", {x}, {{"perm", perm}})[0];
    Shape expected;
    for (const int64_t axis : perm) expected.push_back(shape[static_cast<size_t>(axis)]);
    check_elements(y, expected, [&](const Index& index) {
      Index from(index.size());
      for (size_t i = 0; i < index.size(); ++i) from[static_cast<size_t>(perm[i])] = index[i];
      return x.data<float>()[flat(shape, from)];
    });
  }
}

TEST_CASE("Transpose moves elements of one to sixteen bytes") {
  const auto check = [](DType dtype, auto zero) {
    using T = decltype(zero);
    std::vector<T> values(6), turned;
    for (size_t i = 0; i < 6; ++i)
      values[i] = static_cast<T>(static_cast<int>(i) % 2 + (sizeof(T) > 1 ? 2 * static_cast<int>(i) : 0));
    for (size_t column = 0; column < 3; ++column) {
      for (size_t row = 0; row < 2; ++row) turned.push_back(values[row * 3 + column]);
    }
    const Tensor y = run_op("Transpose", {Tensor::from<T>(dtype, {2, 3}, values)})[0];
    CHECK(y.dtype() == dtype);
    CHECK(text_of(y.bytes()) == raw(turned));
  };
  check(DType::Bool, uint8_t{});
  check(DType::Float16, uint16_t{});
  check(DType::Int32, int32_t{});
  check(DType::Float64, double{});
  check(DType::Complex64, uint64_t{});
  std::vector<uint64_t> pairs = {0, 1, 2, 3, 4, 5, 6, 7};
  const Tensor wide = Tensor::copy_of(DType::Complex128, {2, 2}, std::as_bytes(std::span<const uint64_t>(pairs)));
  CHECK(text_of(run_op("Transpose", {wide})[0].bytes()) == raw(std::vector<uint64_t>{0, 1, 4, 5, 2, 3, 6, 7}));
}

TEST_CASE("Another shape of the same elements copies nothing") {
  const Tensor x = counting({2, 1, 3, 4});
  const auto shares = [&](const Tensor& y, const Shape& shape) {
    CHECK(y.shape() == shape);
    CHECK(y.same_storage(x));
  };
  const auto once = [&](std::string_view op, const std::vector<Tensor>& more, const Givens& given = {}) {
    std::vector<Tensor> inputs = {x};
    inputs.insert(inputs.end(), more.begin(), more.end());
    const Alone alone(op, inputs, given, 21, 1, "");
    ops::Call call = alone.call(inputs);
    return alone.op->forward(call)[0];
  };
  shares(once("Reshape", {integers({4, -1})}), {4, 6});
  shares(once("Reshape", {integers({0, 0, -1})}), {2, 1, 12});
  shares(once("Flatten", {}, {{"axis", 2}}), {2, 12});
  shares(once("Flatten", {}, {{"axis", 0}}), {1, 24});
  shares(once("Squeeze", {}), {2, 3, 4});
  shares(once("Unsqueeze", {integers({0, -1})}), {1, 2, 1, 3, 4, 1});
  shares(once("Transpose", {}, {{"perm", {1, 0, 2, 3}}}), {1, 2, 3, 4});
  shares(once("Slice", {integers({0}), integers({INT64_MAX})}), {2, 1, 3, 4});
  shares(once("Concat", {}, {{"axis", 0}}), {2, 1, 3, 4});
}

TEST_CASE("Slice takes what Python's slices take, but starts no earlier than the first element") {
  Random random{2};
  for (int round = 0; round < 200; ++round) {
    const Shape shape = random_shape(random, 1 + random.below(4), 7);
    std::vector<int64_t> starts, ends, axes, steps;
    std::vector<Index> taken(shape.size());
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      const auto whole = static_cast<int64_t>(shape[axis]);
      int64_t start = between(random, -10, 10), end = between(random, -10, 10), step = between(random, -3, 3);
      if (step == 0) step = random.below(2) ? INT64_MAX : INT64_MIN;
      if (random.below(8) == 0) end = step > 0 ? INT64_MAX : INT64_MIN;
      starts.push_back(start), ends.push_back(end), steps.push_back(step);
      axes.push_back(random.below(2) ? static_cast<int64_t>(axis)
                                     : static_cast<int64_t>(axis) - static_cast<int64_t>(shape.size()));
      if (start < 0) start += whole;
      if (end < 0) end += whole;
      const uint64_t pace = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
      if (step > 0) {
        start = std::max<int64_t>(start, 0);
        for (int64_t i = start; i < std::min(end, whole); ++i) {
          if (static_cast<uint64_t>(i - start) % pace == 0) taken[axis].push_back(static_cast<size_t>(i));
        }
      } else {
        // The one difference: ONNX moves a start before the first element onto it.
        start = std::clamp<int64_t>(start, 0, whole - 1);
        for (int64_t i = start; i > std::max<int64_t>(end, -1); --i) {
          if (static_cast<uint64_t>(start - i) % pace == 0) taken[axis].push_back(static_cast<size_t>(i));
        }
      }
    }
    Shape expected;
    for (const Index& list : taken) expected.push_back(list.size());
    const Tensor x = counting(shape);
    const Tensor y = run_op("Slice", {x, integers(starts), integers(ends), integers(axes), integers(steps)})[0];
    check_elements(y, expected, [&](const Index& index) {
      Index from(index.size());
      for (size_t i = 0; i < index.size(); ++i) from[i] = taken[i][index[i]];
      return x.data<float>()[flat(shape, from)];
    });
  }
}

TEST_CASE("Pad surrounds by a constant, a mirror, the edge or the other end") {
  Random random{3};
  for (int round = 0; round < 200; ++round) {
    const std::string mode = std::vector<std::string>{"constant", "reflect", "edge", "wrap"}[random.below(4)];
    const Shape shape = random_shape(random, 1 + random.below(3), 5);
    const size_t rank = shape.size();
    std::vector<int64_t> pads(2 * rank);
    Shape expected = shape, left = shape;
    std::vector<int64_t> cut(rank);
    for (size_t i = 0; i < rank; ++i) {
      const auto whole = static_cast<int64_t>(shape[i]);
      pads[i] = between(random, -1, 7), pads[i + rank] = between(random, -1, 7);
      if (pads[i] + pads[i + rank] + whole < 0 ||
          std::min<int64_t>(0, pads[i]) + std::min<int64_t>(0, pads[i + rank]) + whole <= 0) {
        pads[i] = pads[i + rank] = 1;
      }
      expected[i] = static_cast<size_t>(whole + pads[i] + pads[i + rank]);
      cut[i] = std::max<int64_t>(0, -pads[i]);
      left[i] = static_cast<size_t>(whole - cut[i] - std::max<int64_t>(0, -pads[i + rank]));
    }
    const Tensor x = counting(shape);
    const Tensor y = run_op("Pad", {x, integers(pads), floats({}, {-7})}, {{"mode", mode.c_str()}})[0];
    check_elements(y, expected, [&](const Index& index) {
      Index from(rank);
      for (size_t i = 0; i < rank; ++i) {
        const auto count = static_cast<int64_t>(left[i]);
        int64_t at = static_cast<int64_t>(index[i]) - std::max<int64_t>(0, pads[i]);
        if (mode == "constant" && (at < 0 || at >= count)) return -7.0f;
        while (at < 0 || at >= count) {  // as often as it takes
          if (mode == "edge")
            at = at < 0 ? 0 : count - 1;
          else if (mode == "wrap")
            at += at < 0 ? count : -count;
          else if (count == 1)
            at = 0;
          else
            at = at < 0 ? -at : 2 * (count - 1) - at;
        }
        from[i] = static_cast<size_t>(at + cut[i]);
      }
      return x.data<float>()[flat(shape, from)];
    });
  }
}

TEST_CASE("Pad takes some axes, and attributes in old operator sets") {
  const Tensor x = floats({1, 2}, {1, 2});
  CHECK(values_of(run_op("Pad", {x, integers({1, 0}), Tensor(), integers({-1})})[0]) == std::vector<float>{0, 1, 2});
  CHECK(values_of(run_op("Pad", {x}, {{"pads", {0, 1, 0, 0}}, {"value", 3.0f}}, 10)[0]) == std::vector<float>{3, 1, 2});
  CHECK(values_of(run_op("Pad", {x}, {{"paddings", {0, 0, 0, 1}}}, 1)[0]) == std::vector<float>{1, 2, 0});
}

TEST_CASE("Gather, GatherElements and GatherND read where their indices say") {
  Random random{4};
  for (int round = 0; round < 60; ++round) {
    const Shape shape = random_shape(random, 1 + random.below(4), 5);
    const Tensor x = counting(shape);
    const std::span<const float> values = x.data<float>();
    const size_t axis = random.below(shape.size());
    const auto whole = static_cast<int64_t>(shape[axis]);
    const auto place = [&](int64_t index, size_t along) {
      return static_cast<size_t>(index < 0 ? index + static_cast<int64_t>(shape[along]) : index);
    };

    const Shape own = random_shape(random, random.below(3), 4);
    std::vector<int64_t> indices(elements_of(own));
    for (int64_t& index : indices) index = between(random, -whole, whole - 1);
    Shape expected(shape.begin(), shape.begin() + static_cast<ptrdiff_t>(axis));
    expected.insert(expected.end(), own.begin(), own.end());
    expected.insert(expected.end(), shape.begin() + static_cast<ptrdiff_t>(axis) + 1, shape.end());
    check_elements(
        run_op("Gather", {x, tensor_of(DType::Int64, own, indices)}, {{"axis", static_cast<int64_t>(axis)}})[0],
        expected, [&](const Index& index) {
          const auto middle = index.begin() + static_cast<ptrdiff_t>(axis);
          const auto end = middle + static_cast<ptrdiff_t>(own.size());
          Index from(index.begin(), middle);
          from.push_back(place(indices[flat(own, Index(middle, end))], axis));
          from.insert(from.end(), end, index.end());
          return values[flat(shape, from)];
        });

    Shape like = shape;
    for (size_t& extent : like) extent = 1 + random.below(extent);
    like[axis] = 1 + random.below(6);
    std::vector<int32_t> each(elements_of(like));
    for (int32_t& index : each) index = static_cast<int32_t>(between(random, -whole, whole - 1));
    check_elements(
        run_op("GatherElements", {x, tensor_of(DType::Int32, like, each)}, {{"axis", static_cast<int64_t>(axis)}})[0],
        like, [&](const Index& index) {
          Index from = index;
          from[axis] = place(each[flat(like, index)], axis);
          return values[flat(shape, from)];
        });

    const size_t batch = random.below(std::min<size_t>(2, shape.size()));
    const size_t length = 1 + random.below(shape.size() - batch);
    Shape tuples(shape.begin(), shape.begin() + static_cast<ptrdiff_t>(batch));
    tuples.push_back(1 + random.below(4));
    Shape led = tuples;
    led.insert(led.end(), shape.begin() + static_cast<ptrdiff_t>(batch + length), shape.end());
    tuples.push_back(length);
    std::vector<int64_t> lists(elements_of(tuples));
    for (size_t i = 0; i < lists.size(); ++i) {
      const auto extent = static_cast<int64_t>(shape[batch + i % length]);
      lists[i] = between(random, -extent, extent - 1);
    }
    check_elements(run_op("GatherND", {x, tensor_of(DType::Int64, tuples, lists)},
                          {{"batch_dims", static_cast<int64_t>(batch)}})[0],
                   led, [&](const Index& index) {
                     Index from(index.begin(), index.begin() + static_cast<ptrdiff_t>(batch));
                     for (size_t i = 0; i < length; ++i) {
                       Index list(index.begin(), index.begin() + static_cast<ptrdiff_t>(batch) + 1);
                       list.push_back(i);
                       from.push_back(place(lists[flat(tuples, list)], batch + i));
                     }
                     from.insert(from.end(), index.begin() + static_cast<ptrdiff_t>(batch) + 1, index.end());
                     return values[flat(shape, from)];
                   });
  }
}

TEST_CASE("ScatterElements and ScatterND put, add, multiply and compare") {
  const Tensor data = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor columns = tensor_of<int64_t>(DType::Int64, {2, 2}, {0, 0, -1, 1}),
               updates = floats({2, 2}, {10, 20, -1, 7});
  const auto elements = [&](const char* reduction, int64_t opset = 18) {
    return values_of(
        run_op("ScatterElements", {data, columns, updates}, {{"axis", 1}, {"reduction", reduction}}, opset)[0]);
  };
  CHECK(elements("none") == std::vector<float>{20, 2, 3, 4, 7, -1});
  CHECK(elements("add") == std::vector<float>{31, 2, 3, 4, 12, 5});
  CHECK(elements("mul") == std::vector<float>{200, 2, 3, 4, 35, -6});
  CHECK(elements("max") == std::vector<float>{20, 2, 3, 4, 7, 6});
  CHECK(elements("min") == std::vector<float>{1, 2, 3, 4, 5, -1});
  const Tensor rows = tensor_of<int64_t>(DType::Int64, {2, 1}, {1, -1}), lines = floats({2, 3}, {1, 1, 1, 2, 2, 2});
  const auto whole = [&](const char* reduction) {
    return values_of(run_op("ScatterND", {data, rows, lines}, {{"reduction", reduction}}, 18)[0]);
  };
  CHECK(whole("none") == std::vector<float>{1, 2, 3, 2, 2, 2});
  CHECK(whole("add") == std::vector<float>{1, 2, 3, 7, 8, 9});
  // Integers wrap; halves are summed in float32 and rounded.
  const Tensor bytes = tensor_of<uint8_t>(DType::UInt8, {1}, {200}), zero = tensor_of<int64_t>(DType::Int64, {1}, {0});
  CHECK(values_of<uint8_t>(run_op("ScatterElements", {bytes, zero, bytes}, {{"reduction", "add"}})[0])[0] == 144);
  const Tensor half = from_floats(DType::Float16, {1}, std::vector<float>{1.5f});
  CHECK(FloatView(run_op("ScatterElements", {half, zero, half}, {{"reduction", "mul"}})[0]).values()[0] == 2.25f);
}

TEST_CASE("Split undoes Concat along every axis") {
  Random random{5};
  for (int round = 0; round < 40; ++round) {
    Shape shape = random_shape(random, 1 + random.below(4), 5);
    const size_t axis = random.below(shape.size());
    std::vector<Tensor> parts;
    std::vector<int64_t> lengths;
    for (size_t i = 0; i < 3; ++i) {
      shape[axis] = random.below(4);
      lengths.push_back(static_cast<int64_t>(shape[axis]));
      parts.push_back(random_real(shape, random.bits()));
    }
    const int64_t from_end = static_cast<int64_t>(axis) - static_cast<int64_t>(shape.size());
    const Tensor whole = run_op("Concat", parts, {{"axis", from_end}})[0];
    shape[axis] = static_cast<size_t>(lengths[0] + lengths[1] + lengths[2]);
    check_elements(whole, shape, [&](const Index& index) {
      Index from = index;
      size_t part = 0;
      while (from[axis] >= parts[part].shape()[axis]) from[axis] -= parts[part++].shape()[axis];
      return parts[part].data<float>()[flat(parts[part].shape(), from)];
    });
    const auto again = run_op("Split", {whole, integers(lengths)}, {{"axis", from_end}}, 21, 3);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(again[i].shape() == parts[i].shape());
      CHECK(text_of(again[i].bytes()) == text_of(parts[i].bytes()));
    }
  }
}

TEST_CASE("Expand and Tile repeat") {
  Random random{6};
  for (int round = 0; round < 40; ++round) {
    const Shape shape = random_shape(random, 1 + random.below(4), 4);
    const Tensor x = counting(shape);
    std::vector<int64_t> repeats;
    Shape tiled;
    for (const size_t extent : shape) {
      repeats.push_back(static_cast<int64_t>(random.below(4)));
      tiled.push_back(extent * static_cast<size_t>(repeats.back()));
    }
    check_elements(run_op("Tile", {x, integers(repeats)})[0], tiled, [&](const Index& index) {
      Index from = index;
      for (size_t i = 0; i < from.size(); ++i) from[i] %= shape[i];
      return x.data<float>()[flat(shape, from)];
    });
    Shape narrow = shape;
    for (size_t& extent : narrow) extent = random.below(2) ? 1 : extent;
    std::vector<int64_t> wanted(shape.begin(), shape.end());
    wanted.insert(wanted.begin(), 2);
    Shape wide(wanted.begin(), wanted.end());
    const Tensor y = counting(narrow);
    check_elements(run_op("Expand", {y, integers(wanted)})[0], wide, [&](const Index& index) {
      Index from(index.begin() + 1, index.end());
      for (size_t i = 0; i < from.size(); ++i) from[i] %= narrow[i];
      return y.data<float>()[flat(narrow, from)];
    });
  }
}

TEST_CASE("Constant has every form but text") {
  CHECK(values_of(run_op("Constant", {}, {{"value_float", 2.5f}})[0]) == std::vector<float>{2.5f});
  CHECK(run_op("Constant", {}, {{"value_float", 2.5f}})[0].shape().empty());
  CHECK(values_of<int64_t>(run_op("Constant", {}, {{"value_int", 3}})[0]) == std::vector<int64_t>{3});
  CHECK(values_of<int64_t>(run_op("Constant", {}, {{"value_ints", {3, 4}}})[0]) == std::vector<int64_t>{3, 4});
  CHECK(values_of(run_op("Constant", {}, {{"value_floats", std::vector<float>{1, 2}}})[0]) == std::vector<float>{1, 2});
  CHECK(run_op("Constant", {}, {{"value", counting({2, 2})}})[0].shape() == Shape{2, 2});
  CHECK(error_of_op("Constant", {}, {{"value_string", "text"}}).code == ErrorCode::Unsupported);
  CHECK(error_of_op("Constant", {}).code == ErrorCode::BadData);
}

TEST_CASE("Range counts up and down in every type") {
  const auto whole = [](int64_t value) { return tensor_of<int64_t>(DType::Int64, {}, {value}); };
  const auto range = [&](int64_t start, int64_t limit, int64_t delta) {
    return values_of<int64_t>(run_op("Range", {whole(start), whole(limit), whole(delta)})[0]);
  };
  CHECK(range(3, 9, 2) == std::vector<int64_t>{3, 5, 7});
  CHECK(range(9, 3, -3) == std::vector<int64_t>{9, 6});
  CHECK(range(3, 3, 1).empty());
  CHECK(range(3, 9, -1).empty());
  CHECK(range(INT64_MIN, INT64_MAX, INT64_MAX) == std::vector<int64_t>{INT64_MIN, -1, INT64_MAX - 1});
  CHECK(values_of(run_op("Range", {floats({}, {1}), floats({}, {2}), floats({}, {0.25f})})[0]) ==
        std::vector<float>{1, 1.25f, 1.5f, 1.75f});
}

TEST_CASE("Trilu, EyeLike, OneHot, ReverseSequence and Compress do what their names say") {
  const Tensor x = counting({2, 3, 4});
  for (const int64_t k : {-5, -2, 0, 1, 9}) {
    for (const bool upper : {true, false}) {
      const Tensor y = run_op("Trilu", {x, tensor_of<int64_t>(DType::Int64, {}, {k})}, {{"upper", upper ? 1 : 0}})[0];
      check_elements(y, x.shape(), [&](const Index& at) {
        const int64_t diagonal = static_cast<int64_t>(at[2]) - static_cast<int64_t>(at[1]);
        return (upper ? diagonal >= k : diagonal <= k) ? x.data<float>()[flat(x.shape(), at)] : 0.0f;
      });
    }
  }
  for (const int64_t k : {-9, -1, 0, 2, 9}) {
    check_elements(run_op("EyeLike", {counting({3, 4})}, {{"k", k}})[0], {3, 4}, [&](const Index& at) {
      return static_cast<int64_t>(at[1]) - static_cast<int64_t>(at[0]) == k ? 1.0f : 0.0f;
    });
  }
  const Tensor hot = run_op("OneHot", {integers({1, -1, 7}), integers({3}), floats({2}, {5, 9})}, {{"axis", 0}})[0];
  check_elements(hot, {3, 3}, [](const Index& at) {
    return (at[1] == 0 && at[0] == 1) || (at[1] == 1 && at[0] == 2) ? 9.0f : 5.0f;
  });
  const Tensor back = run_op("ReverseSequence", {x, integers({1, 3})}, {{"batch_axis", 0}, {"time_axis", 1}})[0];
  check_elements(back, x.shape(), [&](const Index& at) {
    Index from = at;
    if (at[0] == 1) from[1] = 2 - at[1];
    return x.data<float>()[flat(x.shape(), from)];
  });
  const Tensor choice = tensor_of<uint8_t>(DType::Bool, {3}, {0, 1, 1});
  CHECK(run_op("Compress", {x, choice}, {{"axis", 1}})[0].shape() == Shape{2, 2, 4});
  CHECK(values_of(run_op("Compress", {x, choice})[0]) == std::vector<float>{1, 2});
}

TEST_CASE("DFT is the sum of its definition for every length, and its inverse returns") {
  for (const size_t length : {1, 2, 3, 5, 8, 12, 31, 64, 97, 100}) {
    const Tensor x = random_real({2, length, 2}, length);
    const std::span<const float> values = x.data<float>();
    const Tensor y = run_op("DFT", {x}, {}, 20)[0];
    REQUIRE(y.shape() == x.shape());
    double worst = 0;
    for (size_t b = 0; b < 2; ++b) {
      for (size_t k = 0; k < length; ++k) {
        double re = 0, im = 0;
        for (size_t n = 0; n < length; ++n) {
          const double angle =
              -2 * std::numbers::pi * static_cast<double>(k * n % length) / static_cast<double>(length);
          const double a = values[(b * length + n) * 2], c = values[(b * length + n) * 2 + 1];
          re += a * std::cos(angle) - c * std::sin(angle);
          im += a * std::sin(angle) + c * std::cos(angle);
        }
        const float* const got = y.data<float>().data() + (b * length + k) * 2;
        worst = std::max({worst, std::fabs(re - double{got[0]}), std::fabs(im - double{got[1]})});
      }
    }
    CHECK(worst < 1e-5);  // sums of up to 100 normal numbers, rounded to float32
    const Tensor again = run_op("DFT", {y}, {{"inverse", 1}}, 20)[0];
    for (size_t i = 0; i < values.size(); ++i) CHECK(std::fabs(again.data<float>()[i] - values[i]) < 1e-5);
    // Half a spectrum gives the real signal back.
    const Tensor real = random_real({1, length, 1}, length + 1);
    const Tensor half = run_op("DFT", {real}, {{"onesided", 1}}, 20)[0];
    CHECK(half.shape() == Shape{1, length / 2 + 1, 2});
    const Tensor size = tensor_of<int64_t>(DType::Int64, {}, {static_cast<int64_t>(length)});
    const Tensor signal = run_op("DFT", {half, size}, {{"onesided", 1}, {"inverse", 1}}, 20)[0];
    REQUIRE(signal.shape() == real.shape());
    for (size_t i = 0; i < length; ++i) CHECK(std::fabs(signal.data<float>()[i] - real.data<float>()[i]) < 1e-5);
  }
}

TEST_CASE("STFT is the DFT of each windowed frame") {
  const Tensor x = random_real({2, 20, 1}, 7), window = random_real({6}, 8);
  const auto scalar = [](int64_t value) { return tensor_of<int64_t>(DType::Int64, {}, {value}); };
  const Tensor y = run_op("STFT", {x, scalar(4), window, scalar(6)}, {}, 17)[0];
  REQUIRE(y.shape() == Shape{2, 4, 4, 2});
  for (size_t b = 0; b < 2; ++b) {
    for (size_t f = 0; f < 4; ++f) {
      std::vector<float> frame;
      for (size_t i = 0; i < 6; ++i) frame.push_back(x.data<float>()[b * 20 + f * 4 + i] * window.data<float>()[i]);
      const Tensor part = run_op("DFT", {floats({1, 6, 1}, frame)}, {{"onesided", 1}}, 20)[0];
      for (size_t i = 0; i < 8; ++i) {
        CHECK(std::fabs(part.data<float>()[i] - y.data<float>()[(b * 4 + f) * 8 + i]) < 1e-5);
      }
    }
  }
}

TEST_CASE("NonMaxSuppression keeps the best of boxes that overlap") {
  // Two boxes of 2 x 2, shifted by 1: intersection 2, union 6. A third one lies apart.
  const Tensor boxes = floats({1, 3, 4}, {0, 0, 2, 2, 0, 1, 2, 3, 5, 5, 6, 6});
  const Tensor scores = floats({1, 1, 3}, {0.5f, 0.9f, 0.1f});
  const auto kept = [&](float overlap, float score, int64_t most) {
    const Tensor y =
        run_op("NonMaxSuppression", {boxes, scores, integers({most}), floats({1}, {overlap}), floats({1}, {score})})[0];
    std::vector<int64_t> out;
    for (size_t i = 0; i < y.shape()[0]; ++i) out.push_back(y.data<int64_t>()[3 * i + 2]);
    return out;
  };
  CHECK(kept(0.3f, 0, 9) == std::vector<int64_t>{1, 2});
  CHECK(kept(0.34f, 0, 9) == std::vector<int64_t>{1, 0, 2});
  CHECK(kept(0.34f, 0.2f, 9) == std::vector<int64_t>{1, 0});
  CHECK(kept(0.34f, 0, 1) == std::vector<int64_t>{1});
  CHECK(kept(0.34f, 0, 0).empty());
  CHECK(kept(0.34f, 0, -1).empty());
}

// --- Hostile input ---------------------------------------------------------------------------------------------------

void check_fails(std::string_view op, const std::vector<Tensor>& inputs, const Givens& given = {}, int64_t opset = 21,
                 size_t outputs = 1) {
  CAPTURE(std::string(op));
  const Error error = error_of_op(op, inputs, given, opset, outputs);
  CHECK(error.code == ErrorCode::BadData);
  CHECK(holds(error.where, "node"));
  CHECK(error.message.size() > 10);
}

TEST_CASE("Shapes, axes and indices that do not fit are named") {
  const Tensor x = counting({2, 3, 4}), one = integers({0});
  check_fails("Reshape", {x, integers({5, 5})});
  check_fails("Reshape", {x, integers({5, -1})});
  check_fails("Reshape", {x, integers({-1, -1})});
  check_fails("Reshape", {x, integers({-2, 12})});
  check_fails("Reshape", {x, integers({24, 1, 1, 0})});
  check_fails("Reshape", {x, integers({0, -1})}, {{"allowzero", 1}});
  check_fails("Reshape", {x, floats({1}, {24})});
  check_fails("Flatten", {x}, {{"axis", 4}});
  check_fails("Squeeze", {x, integers({0})});
  check_fails("Squeeze", {x, integers({3})});
  check_fails("Unsqueeze", {x, integers({1, 1})});
  check_fails("Unsqueeze", {x, integers({INT64_MIN})});
  check_fails("Transpose", {x}, {{"perm", {0, 1}}});
  check_fails("Transpose", {x}, {{"perm", {0, 1, 1}}});
  check_fails("Transpose", {x}, {{"perm", {0, 1, 3}}});
  check_fails("Concat", {x, counting({2, 3})}, {{"axis", 0}});
  check_fails("Concat", {x, counting({2, 4, 4})}, {{"axis", 0}});
  check_fails("Concat", {x, integers({1})}, {{"axis", 0}});
  check_fails("Concat", {x}, {});
  check_fails("Split", {x, integers({1, 2})}, {{"axis", 0}}, 21, 2);
  check_fails("Split", {x, integers({-1, 3})}, {{"axis", 0}}, 21, 2);
  check_fails("Split", {x}, {{"axis", 0}, {"num_outputs", 5}}, 21, 2);
  check_fails("Split", {x, integers({2, INT64_MIN})}, {{"axis", 0}}, 21, 2);
  check_fails("Split", {x}, {{"axis", 1}}, 13, 2);
  check_fails("Slice", {x, integers({0, 0}), one});
  check_fails("Slice", {x, one, one, integers({3})});
  check_fails("Slice", {x, one, one, one, one});
  check_fails("Slice", {x, integers({0, 0}), integers({1, 1}), integers({1, -2})});
  check_fails("Gather", {x, integers({2})});
  check_fails("Gather", {x, integers({-3})});
  check_fails("Gather", {x, integers({INT64_MIN})});
  check_fails("Gather", {x, floats({1}, {0})});
  check_fails("GatherElements", {x, integers({0})});
  check_fails("GatherElements", {x, tensor_of<int64_t>(DType::Int64, {1, 1, 1}, {2})});
  check_fails("GatherElements", {counting({2, 2}), tensor_of<int64_t>(DType::Int64, {1, 3}, {0, 0, 0})});
  check_fails("GatherND", {x, integers({0, 0, 0, 0})});
  check_fails("GatherND", {x, integers({0, 3})});
  check_fails("GatherND", {x, integers({0})}, {{"batch_dims", 1}});
  check_fails("GatherND", {x, integers({0})}, {{"batch_dims", -1}});
  check_fails("ScatterElements", {x, tensor_of<int64_t>(DType::Int64, {1, 1, 1}, {2}), floats({1, 1, 1}, {0})});
  check_fails("ScatterElements", {x, tensor_of<int64_t>(DType::Int64, {1, 1, 1}, {1}), floats({1}, {0})});
  check_fails("ScatterElements", {floats({1}, {0}), one, floats({1}, {0})}, {{"reduction", "sum"}});
  check_fails("ScatterND", {x, integers({0, 0, 4}), floats({}, {0})});
  check_fails("ScatterND", {x, integers({0, 0, 0}), floats({1}, {0})});
  check_fails("ScatterND", {x, integers({0, 0, 0}), integers({1}).reshaped({})});
  check_fails("TensorScatter", {x, x, integers({0})}, {}, 24);
  check_fails("TensorScatter", {x, x, integers({0, 1})}, {}, 24);
  check_fails("TensorScatter", {x, x, integers({0, -1})}, {{"mode", "circular"}}, 24);
  check_fails("Expand", {x, integers({5, 1, 1})});
  check_fails("Expand", {x, integers({2, 3, -4})});
  check_fails("Tile", {x, integers({1, 1})});
  check_fails("Tile", {x, integers({1, 1, -1})});
  check_fails("Pad", {x, integers({1, 1})});
  check_fails("Pad", {x, integers({-9, 0, 0, 0, 0, 0})});
  check_fails("Pad", {x, integers({INT64_MIN, 0, 0, INT64_MIN, 0, 0})});
  check_fails("Pad", {x, integers({1, 0, 0, 0, 0, 0})}, {{"mode", "mirror"}});
  check_fails("Pad", {counting({0}), integers({1, 0})}, {{"mode", "edge"}});
  check_fails("Pad", {x, integers({1, 0, 0, 0, 0, 0}), integers({1})});
  check_fails("Range", {one, integers({5}), one});
  check_fails("EyeLike", {x});
  check_fails("OneHot", {one, integers({-1}), floats({2}, {0, 1})});
  check_fails("OneHot", {one, integers({3}), floats({1}, {0})});
  check_fails("Trilu", {counting({3})});
  check_fails("ReverseSequence", {x, integers({1, 1, 1, 1})});
  check_fails("ReverseSequence", {x, integers({1, 3, 1})});
  check_fails("Compress", {x, tensor_of<uint8_t>(DType::Bool, {3}, {0, 0, 1})}, {{"axis", 0}});
  check_fails("DFT", {x}, {}, 20);
  check_fails("DFT", {counting({1, 4, 1}), integers({0})}, {}, 20);
  check_fails("DFT", {counting({1, 4, 1})}, {{"axis", 2}}, 17);
  check_fails("STFT", {counting({1, 4, 1}), integers({0}), Tensor(), integers({2})}, {}, 17);
  check_fails("STFT", {counting({1, 4, 1}), integers({1}), Tensor(), integers({5})}, {}, 17);
  check_fails("HannWindow", {integers({-1})});
  check_fails("NonMaxSuppression", {x, x});
  check_fails("ConstantOfShape", {integers({-1})});
  check_fails("ConstantOfShape", {integers({1})}, {{"value", counting({2})}});
}

TEST_CASE("A few numbers cannot ask for gigabytes") {
  const auto check = [](std::string_view op, const std::vector<Tensor>& inputs, const Givens& given = {},
                        int64_t opset = 21) {
    CAPTURE(std::string(op));
    const Error error = error_of_op(op, inputs, given, opset);
    CHECK(error.code == ErrorCode::Unsupported);
    CHECK(holds(error.where, "node"));
  };
  const Tensor x = counting({2, 3});
  const int64_t huge = int64_t{1} << 40, large = 1 << 20;
  for (const int64_t extent : {huge, INT64_MAX, large * 1024}) {
    check("ConstantOfShape", {integers({extent})});
    check("ConstantOfShape", {integers({0, extent, extent})});
    check("Expand", {floats({1}, {0}), integers({extent})});
    check("Tile", {x, integers({extent, 1})});
    check("Pad", {x, integers({extent, 0, 0, 0})});
    check("Pad", {x, integers({extent, 0, 0, 0})}, {{"mode", "reflect"}});
    check("Range", {integers({0}), integers({extent}), integers({1})});
    check("HannWindow", {integers({extent})});
    check("DFT", {counting({1, 4, 1}), integers({extent})}, {}, 20);
    check("Reshape", {counting({0}), integers({0, extent, extent})}, {{"allowzero", 1}});
  }
  check("ConstantOfShape", {integers({large, large, large, large})});
  check("Split", {x, integers({INT64_MAX, INT64_MAX, 4})});
  check("Expand", {floats({1}, {0}), integers({large, large})});
  check("Tile", {x, integers({large, large})});
  check("Range", {floats({}, {0}), floats({}, {INFINITY}), floats({}, {1})});
  check("Range", {floats({}, {0}), floats({}, {NAN}), floats({}, {1})});
  check("OneHot", {integers({0, 0}), tensor_of<int64_t>(DType::Int64, {}, {1 << 30}), floats({2}, {0, 1})});
}

// --- Gradients -------------------------------------------------------------------------------------------------------

TEST_CASE("Gradients of moved elements agree with finite differences") {
  const Tensor x = random_real({2, 3, 4}, 11);
  const auto check = [](std::string_view op, const std::vector<Tensor>& inputs, const Givens& given = {},
                        const std::vector<size_t>& which = {0}, GradientCheck how = {}) {
    CAPTURE(std::string(op));
    how.step = 0.25f;  // all of these are linear
    how.bound = 1e-4;
    check_gradients(op, inputs, given, which, how);
  };
  check("Reshape", {x, integers({4, -1})});
  check("Flatten", {x});
  check("Squeeze", {x.reshaped({2, 1, 12}), integers({1})});
  check("Unsqueeze", {x, integers({1})});
  check("Transpose", {x}, {{"perm", {2, 0, 1}}});
  check("Transpose", {x});
  check("Concat", {x, random_real({2, 2, 4}, 12), x}, {{"axis", 1}}, {0, 1, 2});
  GradientCheck parts;
  parts.outputs = parts.losses = 2;
  check("Split", {x, integers({1, 2})}, {{"axis", 1}}, {0}, parts);
  parts.losses = 1;  // nothing depends on the second part
  check("Split", {x, integers({1, 3})}, {{"axis", 2}}, {0}, parts);
  check("Slice", {x, integers({3, 0}), integers({INT64_MIN, 2}), integers({2, 1}), integers({-2, 1})});
  check("Gather", {x, integers({0, -1, 0, 2})}, {{"axis", 1}});
  check("Gather", {x, integers({1})}, {{"axis", 2}});
  check("GatherElements", {x, tensor_of<int64_t>(DType::Int64, {2, 1, 3}, {0, -1, 1, 1, 1, 0})}, {{"axis", 0}});
  check("GatherND", {x, tensor_of<int64_t>(DType::Int64, {3, 2}, {0, 1, 1, -1, 0, 1})});
  check("GatherND", {x, tensor_of<int64_t>(DType::Int64, {2, 1}, {0, 2})}, {{"batch_dims", 1}});
  check("Compress", {x, tensor_of<uint8_t>(DType::Bool, {3}, {1, 0, 1})}, {{"axis", 1}});
  check("Compress", {x, tensor_of<uint8_t>(DType::Bool, {3}, {1, 0, 1})});
  for (const char* reduction : {"none", "add"}) {
    const Tensor twice = tensor_of<int64_t>(DType::Int64, {3, 2}, {0, 1, 1, -1, 0, 1});
    check("ScatterND", {x, twice, random_real({3, 4}, 13)}, {{"reduction", reduction}}, {0, 2});
    const Tensor indices = tensor_of<int64_t>(DType::Int64, {2, 1, 3}, {0, -1, 1, 1, 1, 0});
    check("ScatterElements", {x, indices, random_real({2, 1, 3}, 14)}, {{"reduction", reduction}, {"axis", 0}}, {0, 2});
  }
  check("Expand", {x.reshaped({2, 1, 12}), integers({3, 2, 4, 1})});
  check("Tile", {x, integers({2, 1, 3})});
  for (const char* mode : {"constant", "reflect", "edge", "wrap"}) {
    const std::vector<size_t> which =
        std::string_view(mode) == "constant" ? std::vector<size_t>{0, 2} : std::vector<size_t>{0};
    check("Pad", {x, integers({1, 0, 3, 0, 2, -1}), floats({}, {1})}, {{"mode", mode}}, which);
  }
  check("Trilu", {x}, {{"upper", 0}});
  check("ReverseSequence", {x, integers({1, 2, 2})});
}

}  // namespace
}  // namespace nibble::test
