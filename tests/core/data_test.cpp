#include "core/data/data.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <set>

#include "support.hpp"

using namespace nibble;
using test::Bytes;
using test::bytes_of;
using test::error_of;
using test::holds;
using test::Random;
using test::raw;
using test::text_of;

namespace {

std::vector<uint32_t> first_indices(size_t count) {
  std::vector<uint32_t> indices(count);
  std::iota(indices.begin(), indices.end(), 0u);
  return indices;
}

uint64_t fnv1a(std::span<const std::byte> bytes, uint64_t hash = 0xCBF29CE484222325u) {
  for (std::byte byte : bytes) hash = (hash ^ std::to_integer<uint64_t>(byte)) * 0x100000001B3u;
  return hash;
}

template <class T>
std::vector<T> values_of(const Tensor& tensor) {
  return {tensor.data<T>().begin(), tensor.data<T>().end()};
}

template <class T>
Tensor tensor_of(DType dtype, Shape shape, const std::vector<T>& values) {
  return Tensor::from<T>(dtype, std::move(shape), std::span<const T>(values));
}

/// Numbers 0, 1, 2, ... as samples of this shape.
Tensor counting(Shape shape) {
  std::vector<float> values(elements_of(shape));
  std::iota(values.begin(), values.end(), 0.0f);
  return tensor_of<float>(DType::Float32, std::move(shape), values);
}

/// A NumPy file of version 1 (two bytes of header length) to 3 (four).
std::string npy(std::string_view type, std::string_view fortran, std::string_view shape, std::string_view values,
                char version = 1) {
  std::string header = "{'descr': '" + std::string(type) + "', 'fortran_order': " + std::string(fortran) +
                       ", 'shape': " + std::string(shape) + ", }";
  header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  std::string file = std::string("\x93NUMPY") + version + '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) file += static_cast<char>(header.size() >> (8 * i));
  return file + header + std::string(values);
}

std::string idx(char type, const std::vector<uint32_t>& extents, std::string_view values) {
  std::string file = {'\0', '\0', type, static_cast<char>(extents.size())};
  for (uint32_t extent : extents) {
    for (int shift = 24; shift >= 0; shift -= 8) file += static_cast<char>(extent >> shift);
  }
  return file + std::string(values);
}

/// The bytes of each number turned round.
std::string reversed(std::string bytes, size_t width) {
  for (size_t at = 0; at < bytes.size(); at += width) {
    std::reverse(bytes.begin() + static_cast<ptrdiff_t>(at), bytes.begin() + static_cast<ptrdiff_t>(at + width));
  }
  return bytes;
}

Tensor from_npy(const std::string& file) { return read_npy(bytes_of(file), "a.npy"); }
Tensor from_idx(const std::string& file) { return read_idx(bytes_of(file), "a.idx"); }

struct Given {
  std::string name, bytes;
};

/// A file that is read when it is asked for; `asked` gets the offset and number of bytes each time.
StoredFile stored(Bytes bytes, std::vector<std::pair<uint64_t, size_t>>* asked = nullptr) {
  return {bytes.size(), [bytes, asked](uint64_t offset, std::span<std::byte> into) {
            REQUIRE(offset + into.size() <= bytes.size());
            if (asked) asked->emplace_back(offset, into.size());
            std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), into.size(), into.begin());
          }};
}

/// What is read of these files in memory; where they stay stored the same is read of them, or the same is wrong.
Dataset from_files(const std::vector<Given>& given) {
  std::vector<Bytes> kept;
  for (const Given& file : given) kept.push_back(bytes_of(file.bytes));
  std::vector<NamedFile> files, left;
  for (size_t i = 0; i < given.size(); ++i) {
    files.push_back({given[i].name, kept[i]});
    left.push_back({given[i].name, {}, stored(kept[i])});
  }
  Dataset dataset;
  try {
    dataset = read_dataset(files, "given");
  } catch (const Error& error) {
    const Error other = error_of([&] { read_dataset(left, "given"); });
    CHECK(other.code == error.code);
    CHECK(other.where == error.where);
    CHECK(other.message == error.message);
    throw;
  }
  const Dataset other = read_dataset(left, "given");
  const std::vector<uint32_t> all = first_indices(dataset.size);
  CHECK(other.size == dataset.size);
  CHECK(other.shape == dataset.shape);
  CHECK(other.layout == dataset.layout);
  CHECK(other.dtype == dataset.dtype);
  CHECK(other.labels == dataset.labels);
  CHECK(other.class_names == dataset.class_names);
  CHECK(other.test_from == dataset.test_from);
  CHECK(other.targets.exists() == dataset.targets.exists());
  if (other.targets.exists()) CHECK(text_of(other.targets.bytes()) == text_of(dataset.targets.bytes()));
  const std::vector<uint32_t> backwards(all.rbegin(), all.rend());
  for (const std::vector<uint32_t>& indices : {all, backwards})
    CHECK(text_of(other.read(indices).bytes()) == text_of(dataset.read(indices).bytes()));
  return dataset;
}

Dataset from_csv(const std::string& text) { return from_files({{"table.csv", text}}); }

std::vector<float> all_floats(const Dataset& dataset) {
  const Tensor samples = dataset.read(first_indices(dataset.size));
  REQUIRE(samples.dtype() == DType::Float32);
  return values_of<float>(samples);
}

/// Every beginning of the file, and the file with bytes changed, is read or refused with an Error: nothing else
/// happens.
template <class Read>
void check_hostile(const std::string& file, const Read& read, size_t header, bool every_beginning_fails) {
  for (size_t length = 0; length < file.size(); ++length) {
    bool refused = false;
    try {
      read(file.substr(0, length));
    } catch (const Error& error) {
      refused = true;
      CHECK_FALSE(error.message.empty());
    }
    if (every_beginning_fails) CHECK_MESSAGE(refused, "the first ", length, " bytes");
  }
  Random random{7};
  for (int i = 0; i < 3000; ++i) {
    std::string changed = file;
    for (size_t changes = 1 + random.below(3); changes > 0; --changes) {
      changed[random.below(std::min(header, file.size()))] = static_cast<char>(random.below(256));
    }
    try {
      read(changed);
    } catch (const Error& error) {
      CHECK_FALSE(error.message.empty());
    }
  }
}

/// float32 from the bits of float16, by the definition of the format.
float half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                        : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

}  // namespace

// ---- digits ----

TEST_CASE("digits are the same bytes on every machine") {
  const Dataset dataset = digits(1, 1000);
  const Tensor pixels = dataset.read(first_indices(1000));
  REQUIRE(pixels.shape() == Shape{1000, 28, 28});
  const uint64_t hash = fnv1a(std::as_bytes(std::span(dataset.labels)), fnv1a(pixels.bytes()));
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  // Recorded from the first version; a change of it is a change of what every seed means.
  CHECK(std::string(text) == "70401f1c4e2c947c");
}

TEST_CASE("a digit depends on seed and index alone") {
  const Dataset few = digits(5, 30), many = digits(5, 100000), other = digits(6, 30);
  CHECK(std::equal(few.labels.begin(), few.labels.end(), many.labels.begin()));
  CHECK(few.labels != other.labels);
  const std::vector<uint32_t> mixed = {17, 3, 29, 3};
  const Tensor a = few.read(mixed), b = many.read(mixed), c = other.read(mixed);
  CHECK(test::text_of(a.bytes()) == test::text_of(b.bytes()));
  CHECK(test::text_of(a.bytes()) != test::text_of(c.bytes()));
  const std::span<const uint8_t> rows = a.data<uint8_t>();
  CHECK(std::equal(rows.begin() + 784, rows.begin() + 2 * 784, rows.begin() + 3 * 784));  // sample 3 twice
  const Tensor alone = few.read(std::array<uint32_t, 1>{29});
  CHECK(std::equal(alone.data<uint8_t>().begin(), alone.data<uint8_t>().end(), rows.begin() + 2 * 784));
}

TEST_CASE("digits come with every class equally often and a sixth for testing") {
  const Dataset dataset = digits(3, 1200);
  check(dataset);
  CHECK(dataset.name == "digits:seed=3,n=1200");
  CHECK(dataset.test_from == 1000);
  CHECK(dataset.classes == 10);
  CHECK(dataset.class_names[7] == "7");
  for (int32_t digit = 0; digit < 10; ++digit) {
    CHECK(std::count(dataset.labels.begin(), dataset.labels.end(), digit) == 120);
    CHECK(std::count(dataset.labels.begin() + 1000, dataset.labels.end(), digit) == 20);
  }
  CHECK(digits(3, 1).size == 1);
  CHECK(error_of([] { digits(1, 0); }).code == ErrorCode::BadData);
  CHECK(error_of([] { digits(1, 1000001); }).code == ErrorCode::BadData);
  CHECK(error_of([&] { dataset.read(std::array<uint32_t, 1>{1200}); }).code == ErrorCode::BadData);
}

TEST_CASE("digits are written inside the picture, in ink that can be seen") {
  const Dataset dataset = digits(11, 500);
  const Tensor pixels = dataset.read(first_indices(500));
  for (size_t i = 0; i < 500; ++i) {
    const std::span<const uint8_t> one = pixels.data<uint8_t>().subspan(i * 784, 784);
    double ink = 0, x = 0, y = 0;
    for (size_t p = 0; p < 784; ++p) {
      ink += one[p];
      x += one[p] * static_cast<double>(p % 28);
      y += one[p] * static_cast<double>(p / 28);
    }
    CHECK(*std::max_element(one.begin(), one.end()) >= 120);
    CHECK(ink / 784 / 255 > 0.01);  // a thin 1 covers some 3 percent
    CHECK(ink / 784 / 255 < 0.40);
    CHECK(std::abs(x / ink - 13.5) < 6);  // the middle of the ink is near that of the picture
    CHECK(std::abs(y / ink - 13.5) < 6);
  }
}

TEST_CASE("digits of one class are alike and those of others are not: the nearest class mean is mostly right") {
  const Dataset dataset = digits(2, 3000);
  const Tensor pixels = dataset.read(first_indices(3000));
  const std::span<const uint8_t> all = pixels.data<uint8_t>();
  std::vector<std::array<double, 784>> means(10);
  std::vector<double> counts(10);
  for (size_t i = 0; i < dataset.test_from; ++i) {
    const auto label = static_cast<size_t>(dataset.labels[i]);
    ++counts[label];
    for (size_t p = 0; p < 784; ++p) means[label][p] += all[i * 784 + p];
  }
  size_t right = 0;
  for (size_t i = dataset.test_from; i < 3000; ++i) {
    size_t best = 0;
    double least = 1e300;
    for (size_t c = 0; c < 10; ++c) {
      double distance = 0;
      for (size_t p = 0; p < 784; ++p) {
        const double difference = all[i * 784 + p] - means[c][p] / counts[c];
        distance += difference * difference;
      }
      if (distance < least) least = distance, best = c;
    }
    right += static_cast<int32_t>(best) == dataset.labels[i];
  }
  const double accuracy = static_cast<double>(right) / 500;
  CHECK(accuracy > 0.5);   // chance is 0.1
  CHECK(accuracy < 0.95);  // and yet they are not printed
}

TEST_CASE("points of a linear model lie on its plane but for the noise") {
  const Dataset dataset = linear_data(4, 400, 3);
  CHECK(dataset.shape == Shape{3});
  CHECK(dataset.targets.shape() == Shape{400, 1});
  CHECK_FALSE(dataset.labelled());
  // Least squares by the normal equations, in double.
  const std::vector<float> x = all_floats(dataset);
  const std::span<const float> y = dataset.targets.data<float>();
  double a[4][5] = {};
  for (size_t i = 0; i < 400; ++i) {
    const double row[5] = {x[i * 3], x[i * 3 + 1], x[i * 3 + 2], 1, y[i]};
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 5; ++c) a[r][c] += row[r] * row[c];
    }
  }
  for (int pivot = 0; pivot < 4; ++pivot) {
    for (int r = 0; r < 4; ++r) {
      if (r == pivot) continue;
      const double factor = a[r][pivot] / a[pivot][pivot];
      for (int c = 0; c < 5; ++c) a[r][c] -= factor * a[pivot][c];
    }
  }
  double squares = 0;
  for (size_t i = 0; i < 400; ++i) {
    double residual = y[i] - a[3][4] / a[3][3];
    for (size_t j = 0; j < 3; ++j) residual -= x[i * 3 + j] * a[j][4] / a[j][j];
    squares += residual * residual;
  }
  const double deviation = std::sqrt(squares / 396);
  CHECK(deviation > 0.085);  // 0.1, give or take four times 0.1 / sqrt(2 * 396)
  CHECK(deviation < 0.115);
  CHECK(error_of([] { linear_data(1, 10, 0); }).code == ErrorCode::BadData);
  CHECK(error_of([] { linear_data(1, size_t{1} << 20, size_t{1} << 20); }).code == ErrorCode::BadData);
}

// ---- datasets in memory ----

TEST_CASE("a dataset in memory gives the samples that are asked for, in that order") {
  const Dataset dataset = in_memory("d", counting({4, 3}), SampleLayout::Features, {1, 0, 2, 1});
  CHECK(dataset.classes == 3);
  CHECK(dataset.class_names == std::vector<std::string>{"0", "1", "2"});
  CHECK(dataset.test_from == 4);
  const Tensor batch = dataset.read(std::array<uint32_t, 3>{3, 0, 3});
  CHECK(batch.shape() == Shape{3, 3});
  CHECK(values_of<float>(batch) == std::vector<float>{9, 10, 11, 0, 1, 2, 9, 10, 11});
  CHECK(dataset.read({}).shape() == Shape{0, 3});
  CHECK(error_of([&] { dataset.read(std::array<uint32_t, 1>{4}); }).code == ErrorCode::BadData);
}

TEST_CASE("what does not make a dataset is refused") {
  const auto refusal = [](Tensor samples, SampleLayout layout, std::vector<int32_t> labels,
                          std::vector<std::string> names = {}) {
    const Error error = error_of([&] { in_memory("d", samples, layout, labels, names); });
    CHECK(error.code == ErrorCode::BadData);
    return error.message;
  };
  constexpr SampleLayout kFeatures = SampleLayout::Features;
  CHECK(holds(refusal(counting({0, 3}), kFeatures, {}), "empty"));
  CHECK(holds(refusal(counting({3, 0}), kFeatures, {}), "hold nothing"));
  CHECK(holds(refusal(counting({2, 3}), kFeatures, {0}), "1 labels for 2 samples"));
  CHECK(holds(refusal(counting({3, 1}), kFeatures, {0, -4, -5}), "sample 1 has the label -4"));
  CHECK(holds(refusal(counting({3, 1}), kFeatures, {0, 1, 2}, {"cat", "dog"}), "sample 2 has the label 2"));
  CHECK(holds(refusal(counting({2, 1}), kFeatures, {0, 2000000000}), "real numbers"));
  CHECK(holds(refusal(counting({2, 3}), SampleLayout::Hw, {}), "not laid out as hw"));
  CHECK(holds(refusal(tensor_of<double>(DType::Float64, {1, 1}, {1}), kFeatures, {}), "float64"));

  Dataset dataset = in_memory("d", counting({2, 3}), kFeatures, {0, 1});
  dataset.targets = counting({2, 1});
  CHECK(holds(error_of([&] { check(dataset); }).message, "both"));
  dataset.labels.clear();
  check(dataset);
  dataset.targets = counting({3, 1});
  CHECK(error_of([&] { check(dataset); }).code == ErrorCode::BadData);
}

TEST_CASE("a test part follows the part to train with, its classes found by name") {
  const Dataset first = in_memory("a", counting({3, 2}), SampleLayout::Features, {0, 1, 2}, {"cat", "dog", "eel"});
  const Dataset second = in_memory("b", counting({2, 2}), SampleLayout::Features, {0, 1}, {"eel", "cat"});
  const Dataset both = with_test(first, second);
  CHECK(both.size == 5);
  CHECK(both.test_from == 3);
  CHECK(both.labels == std::vector<int32_t>{0, 1, 2, 2, 0});
  const Tensor batch = both.read(std::array<uint32_t, 4>{4, 2, 3, 0});
  CHECK(values_of<float>(batch) == std::vector<float>{2, 3, 4, 5, 0, 1, 0, 1});
  CHECK(error_of([&] { both.read(std::array<uint32_t, 1>{5}); }).code == ErrorCode::BadData);

  const Dataset stranger = in_memory("c", counting({2, 2}), SampleLayout::Features, {0, 1}, {"eel", "fox"});
  CHECK(holds(error_of([&] { with_test(first, stranger); }).message, "fox"));
  const Dataset larger = in_memory("c", counting({2, 3}), SampleLayout::Features, {0, 1}, {"eel", "cat"});
  CHECK(holds(error_of([&] { with_test(first, larger); }).message, "float32 3 (features)"));
  const Dataset unlabelled = in_memory("c", counting({2, 2}), SampleLayout::Features, {});
  CHECK(holds(error_of([&] { with_test(first, unlabelled); }).message, "no labels"));

  const Dataset numbered = in_memory("n", counting({3, 2}), SampleLayout::Features, {0, 1, 2});
  const Dataset more = in_memory("m", counting({1, 2}), SampleLayout::Features, {4});
  CHECK(with_test(numbered, more).classes == 5);
  CHECK(with_test(more, numbered).labels == std::vector<int32_t>{4, 0, 1, 2});
}

// ---- splits ----

TEST_CASE("a split takes every sample once, each class by its share") {
  std::vector<int32_t> labels;
  for (size_t i = 0; i < 1000; ++i) labels.push_back(i < 700 ? 0 : i < 990 ? 1 : 2);
  const Dataset dataset = in_memory("d", counting({1000, 1}), SampleLayout::Features, labels);
  const Split parts = split(dataset, {.validation = 0.1, .test = 0.2, .calibration = 50}, 9);
  CHECK(parts.test.size() == 200);
  CHECK(parts.validation.size() == 100);
  CHECK(parts.training.size() == 700);
  CHECK(std::equal(parts.calibration.begin(), parts.calibration.end(), parts.training.begin()));
  CHECK(parts.calibration.size() == 50);
  std::set<uint32_t> seen;
  for (const auto* part : {&parts.training, &parts.validation, &parts.test}) {
    std::array<size_t, 3> counts = {};
    for (uint32_t index : *part) {
      CHECK(seen.insert(index).second);
      ++counts[static_cast<size_t>(labels[index])];
    }
    const size_t n = part->size();
    CHECK(counts[0] == n * 70 / 100);
    CHECK(counts[1] == n * 29 / 100);
    CHECK(counts[2] == n * 1 / 100);
  }
  CHECK(seen.size() == 1000);
  // Calibration samples are not the file's first ones.
  CHECK_FALSE(std::is_sorted(parts.training.begin(), parts.training.end()));

  const Split again = split(dataset, {.validation = 0.1, .test = 0.2, .calibration = 50}, 9);
  CHECK(again.training == parts.training);
  CHECK(again.test == parts.test);
  CHECK(split(dataset, {.validation = 0.1, .test = 0.2, .calibration = 50}, 10).test != parts.test);
}

TEST_CASE("a test split of the data's own is kept") {
  const Dataset dataset = digits(1, 120);
  const Split parts = split(dataset, {.validation = 0.1, .test = 0.5, .calibration = 1000}, 1);
  std::vector<uint32_t> sorted = parts.test;
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == [] {
    std::vector<uint32_t> last(20);
    std::iota(last.begin(), last.end(), 100u);
    return last;
  }());
  CHECK(parts.validation.size() == 12);
  CHECK(parts.training.size() == 88);
  CHECK(parts.calibration.size() == 88);
}

TEST_CASE("small and unlabelled data are split, senseless shares refused") {
  const Dataset single = in_memory("d", counting({1, 1}), SampleLayout::Features, {0});
  CHECK(split(single, {.validation = 0.5, .test = 0.5, .calibration = 8}, 1).training.size() == 1);
  // A class's last sample is for training.
  const Dataset rare = in_memory("d", counting({6, 1}), SampleLayout::Features, {0, 1, 2, 3, 4, 5});
  CHECK(split(rare, {.validation = 0.3, .test = 0.3, .calibration = 8}, 1).training.size() == 6);
  const Dataset plain = in_memory("d", counting({10, 1}), SampleLayout::Features, {});
  const Split parts = split(plain, {.validation = 0.2, .test = 0.3, .calibration = 8}, 1);
  CHECK(parts.training.size() == 5);
  CHECK(parts.validation.size() == 2);
  CHECK(parts.test.size() == 3);
  CHECK(error_of([&] { split(plain, {.validation = -0.1}, 1); }).where == "validation");
  CHECK(error_of([&] { split(plain, {.validation = 0.1, .test = 0.6}, 1); }).where == "test");
  CHECK(error_of([&] { split(plain, {.validation = std::nan("")}, 1); }).code == ErrorCode::BadData);
  Dataset all_test = plain;
  all_test.test_from = 0;
  CHECK(holds(error_of([&] { split(all_test, {}, 1); }).message, "none is left"));
}

// ---- preparation ----

TEST_CASE("images change their layout and scale on the way into a model") {
  Random random{3};
  constexpr size_t kN = 2, kH = 3, kW = 4, kC = 3;
  std::vector<uint8_t> pixels(kN * kH * kW * kC);
  for (uint8_t& pixel : pixels) pixel = static_cast<uint8_t>(random.below(256));
  Preparation preparation{{kC, kH, kW}, SampleLayout::Chw, 1.0f / 255, {0.5f, 0.25f, 0}, {0.5f, 2, 1}, ""};
  for (bool bytes : {true, false}) {
    Tensor samples = tensor_of<uint8_t>(DType::UInt8, {kN, kH, kW, kC}, pixels);
    if (!bytes) {
      samples = tensor_of<float>(DType::Float32, {kN, kH, kW, kC}, std::vector<float>(pixels.begin(), pixels.end()));
    }
    const Dataset dataset = in_memory("d", samples, SampleLayout::Hwc, {});
    const Tensor input = prepare(dataset, preparation, std::array<uint32_t, 2>{1, 0});
    REQUIRE(input.shape() == Shape{2, kC, kH, kW});
    for (size_t i = 0; i < 2; ++i) {
      for (size_t c = 0; c < kC; ++c) {
        for (size_t y = 0; y < kH; ++y) {
          for (size_t x = 0; x < kW; ++x) {
            const float stored = pixels[(((1 - i) * kH + y) * kW + x) * kC + c];
            const float expected = (stored * preparation.scale - preparation.mean[c]) / preparation.std[c];
            CHECK(input.data<float>()[((i * kC + c) * kH + y) * kW + x] == expected);
          }
        }
      }
    }
    // And back: what was Chw becomes Hwc again.
    const Dataset turned =
        in_memory("d", prepare(dataset, {{kC, kH, kW}, SampleLayout::Chw, 1, {0}, {1}, ""}, first_indices(2)),
                  SampleLayout::Chw, {});
    const Tensor back = prepare(turned, {{kH, kW, kC}, SampleLayout::Hwc, 1, {0}, {1}, ""}, first_indices(2));
    CHECK(values_of<float>(back) == std::vector<float>(pixels.begin(), pixels.end()));
  }
}

TEST_CASE("grey images, rows of numbers and models that take either fit together") {
  const Dataset grey = in_memory("d", counting({2, 3, 4}), SampleLayout::Hw, {});
  std::vector<float> expected(24);
  std::iota(expected.begin(), expected.end(), 0.0f);
  for (const auto& [shape, layout] : std::vector<std::pair<Shape, SampleLayout>>{{{12}, SampleLayout::Features},
                                                                                 {{1, 3, 4}, SampleLayout::Chw},
                                                                                 {{3, 4, 1}, SampleLayout::Hwc},
                                                                                 {{3, 4}, SampleLayout::Hw},
                                                                                 {{2, 6}, SampleLayout::Features}}) {
    const Tensor input = prepare(grey, {shape, layout, 1, {0}, {1}, ""}, first_indices(2));
    CHECK(values_of<float>(input) == expected);
    const Dataset rows = in_memory("d", counting({2, 12}), SampleLayout::Features, {});
    CHECK(values_of<float>(prepare(rows, {shape, layout, 1, {0}, {1}, ""}, first_indices(2))) == expected);
  }
  const Tensor scaled = prepare(grey, {{12}, SampleLayout::Features, 2, {1}, {4}, ""}, std::array<uint32_t, 1>{0});
  CHECK(scaled.data<float>()[5] == 2.25f);
}

TEST_CASE("samples that cannot become the input are refused with both shapes") {
  const Dataset grey = in_memory("d", counting({2, 28, 28}), SampleLayout::Hw, {});
  const Dataset colour = in_memory("d", counting({2, 8, 8, 3}), SampleLayout::Hwc, {});
  const auto refusal = [](const Dataset& dataset, Shape shape, SampleLayout layout, std::vector<float> mean = {0},
                          std::vector<float> std = {1}) {
    const Preparation preparation{shape, layout, 1, mean, std, ""};
    const Error error = error_of([&] { check(preparation, dataset); });
    CHECK(error.code == ErrorCode::BadData);
    CHECK(error_of([&] { prepare(dataset, preparation, first_indices(1)); }).message == error.message);
    return error.message;
  };
  const std::string to_colour = refusal(grey, {3, 28, 28}, SampleLayout::Chw);
  CHECK(holds(to_colour, "28x28 (hw)"));
  CHECK(holds(to_colour, "3x28x28 (chw)"));
  CHECK(holds(to_colour, "give colour images"));
  CHECK(holds(refusal(colour, {1, 8, 8}, SampleLayout::Chw), "3 channel(s) where 1"));
  CHECK(holds(refusal(grey, {1, 32, 32}, SampleLayout::Chw), "resize them to 32x32"));
  CHECK(holds(refusal(grey, {783}, SampleLayout::Features), "784 numbers where 783"));
  CHECK(holds(refusal(grey, {28, 28}, SampleLayout::Chw), "do not fit together"));
  CHECK(holds(refusal(colour, {3, 8, 8}, SampleLayout::Chw, {0, 0}), "3 channel(s), found 2"));
  CHECK(holds(refusal(colour, {3, 8, 8}, SampleLayout::Chw, {0}, {1, 0, 1}), "above 0"));
  CHECK(holds(refusal(colour, {3, 8, 8}, SampleLayout::Chw, {0}, {}), "found 0"));
}

// ---- NumPy files ----

TEST_CASE("NumPy arrays are read in every type, byte order and version") {
  const std::vector<int16_t> shorts = {-2, 700, 32767, 0, 5, -32768};
  for (char version : {1, 2, 3}) {
    const Tensor tensor = from_npy(npy("<i2", "False", "(2, 3)", raw(shorts), version));
    CHECK(tensor.dtype() == DType::Int16);
    CHECK(tensor.shape() == Shape{2, 3});
    CHECK(values_of<int16_t>(tensor) == shorts);
  }
  CHECK(values_of<int16_t>(from_npy(npy(">i2", "False", "(6,)", reversed(raw(shorts), 2)))) == shorts);
  const std::vector<double> doubles = {1.5, -1e300, 0};
  CHECK(values_of<double>(from_npy(npy(">f8", "False", "(3,)", reversed(raw(doubles), 8)))) == doubles);
  const std::vector<float> floats = {1.5f, -2e30f, 0.1f};
  CHECK(values_of<float>(from_npy(npy("=f4", "False", "(3,)", raw(floats)))) == floats);
  CHECK(values_of<uint8_t>(from_npy(npy("|b1", "False", "(3,)", std::string("\0\1\7", 3)))) ==
        std::vector<uint8_t>{0, 1, 1});
  CHECK(from_npy(npy("<u8", "False", "()", std::string(8, '\3'))).shape().empty());
  CHECK(from_npy(npy("<f4", "False", "(3, 0)", "")).shape() == Shape{3, 0});
  CHECK(from_npy(npy("<f2", "False", "(1,)", "ab")).dtype() == DType::Float16);
  CHECK(from_npy(npy("|u1", "False", "(3L,)", "abc")).shape() == Shape{3});  // as Python 2 wrote it
}

TEST_CASE("a NumPy array in Fortran order is turned to rows") {
  // Element (i, j, k) of [2, 3, 4] is 100 i + 10 j + k, and lies at i + 2 j + 6 k.
  std::vector<int32_t> stored(24), expected;
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 4; ++k) {
        stored[static_cast<size_t>(i + 2 * j + 6 * k)] = 100 * i + 10 * j + k;
        expected.push_back(100 * i + 10 * j + k);
      }
    }
  }
  const Tensor tensor = from_npy(npy("<i4", "True", "(2, 3, 4)", raw(stored)));
  CHECK(tensor.shape() == Shape{2, 3, 4});
  CHECK(values_of<int32_t>(tensor) == expected);
}

TEST_CASE("a small array in Fortran order is the same from a stored file") {
  const Dataset dataset = from_files({{"x.npy", npy("|u1", "True", "(2, 3)", std::string("\1\4\2\5\3\6"))}});
  CHECK(values_of<uint8_t>(dataset.read(std::array<uint32_t, 2>{1, 0})) == std::vector<uint8_t>{4, 5, 6, 1, 2, 3});
}

TEST_CASE("arrays whose names say nothing keep their order, stored or not") {
  const Bytes in = bytes_of(npy("|u1", "False", "(2, 3)", "abcdef")),
              out = bytes_of(npy("<f4", "False", "(2, 1)", std::string(8, '\0')));
  for (const bool first : {false, true}) {
    for (const bool second : {false, true}) {
      const std::array files{first ? NamedFile{"in.npy", {}, stored(in)} : NamedFile{"in.npy", in},
                             second ? NamedFile{"out.npy", {}, stored(out)} : NamedFile{"out.npy", out}};
      const Dataset dataset = read_dataset(files, "pair");
      CHECK(dataset.shape == Shape{3});
      CHECK(dataset.targets.exists());
    }
  }
}

TEST_CASE("of a stored file only the rows that are asked for are read, those that lie close together at once") {
  std::vector<std::pair<uint64_t, size_t>> asked;
  std::string values;
  for (char i = 0; i < 10; ++i) values += std::string(6, i);
  const std::string file = npy("|u1", "False", "(10, 2, 3)", values);
  const size_t start = file.size() - values.size();
  const Dataset dataset = read_dataset(std::array{NamedFile{"x.npy", {}, stored(bytes_of(file), &asked)}}, "x.npy");
  CHECK(dataset.size == 10);
  CHECK(asked == std::vector<std::pair<uint64_t, size_t>>{{0, file.size()}});
  asked.clear();
  const Tensor rows = dataset.read(std::array<uint32_t, 6>{7, 2, 3, 4, 9, 9});
  CHECK(asked == std::vector<std::pair<uint64_t, size_t>>{{start + 12, 48}});
  for (const auto& [row, value] : {std::pair{0, 7}, {1, 2}, {2, 3}, {3, 4}, {4, 9}, {5, 9}}) {
    CHECK(rows.data<uint8_t>()[static_cast<size_t>(row) * 6 + 5] == value);
  }
  const Error beyond = error_of([&] { dataset.read(std::array<uint32_t, 1>{10}); });
  CHECK(beyond.code == ErrorCode::BadData);

  // Rows of 100,000 bytes: what is between is no longer read, nor is everything at once.
  std::string wide;
  for (size_t i = 0; i < 200; ++i) wide += std::string(100'000, static_cast<char>(i));
  const std::string large = npy("|u1", "False", "(200, 100000)", wide);
  const size_t from = large.size() - wide.size();
  const Dataset far = read_dataset(std::array{NamedFile{"x.npy", {}, stored(bytes_of(large), &asked)}}, "x.npy");
  asked.clear();
  const Tensor three = far.read(std::array<uint32_t, 4>{9, 3, 2, 9});
  CHECK(asked == std::vector<std::pair<uint64_t, size_t>>{{from + 200'000, 200'000}, {from + 900'000, 100'000}});
  const size_t places[] = {9, 3, 2, 9};
  for (size_t i = 0; i < 4; ++i) CHECK(three.data<uint8_t>()[i * 100'000 + 99'999] == places[i]);
  asked.clear();
  const Tensor all = far.read(first_indices(200));
  CHECK(asked.size() == 3);
  for (const auto& [offset, size] : asked) CHECK(size <= 8'388'608);
  CHECK(text_of(all.bytes()) == wide);
}

TEST_CASE("a stored file may be larger than any memory, and may not hold what its header says") {
  // 20 GB of bytes, each a function of its place.
  const std::string head = npy("|u1", "False", "(20000000, 1000)", "");
  const auto byte_at = [&](uint64_t at) {
    return at < head.size() ? static_cast<std::byte>(head[at])
                            : static_cast<std::byte>((at - head.size()) / 1000 % 251);
  };
  StoredFile file{head.size() + 20'000'000'000u, [&](uint64_t offset, std::span<std::byte> into) {
                    for (std::byte& byte : into) byte = byte_at(offset++);
                  }};
  const Dataset dataset = read_dataset(std::array{NamedFile{"x.npy", {}, file}}, "x.npy");
  CHECK(dataset.size == 20'000'000);
  const Tensor rows = dataset.read(std::array<uint32_t, 2>{19'999'999, 5});
  CHECK(rows.data<uint8_t>()[999] == 19'999'999 % 251);
  CHECK(rows.data<uint8_t>()[1000] == 5);

  ++file.size;
  const Error longer = error_of([&] { read_dataset(std::array{NamedFile{"x.npy", {}, file}}, "x.npy"); });
  CHECK(longer.code == ErrorCode::BadFile);
  CHECK(longer.message.find("take 20000000000 bytes, found 20000000001") != std::string::npos);

  const std::string fortran = npy("|u1", "True", "(20000000, 1000)", "");
  const StoredFile rows_apart{fortran.size() + 20'000'000'000u, [&](uint64_t offset, std::span<std::byte> into) {
                                for (std::byte& byte : into)
                                  byte = static_cast<std::byte>(fortran[offset++ % fortran.size()]);
                              }};
  const Error turned = error_of([&] { read_dataset(std::array{NamedFile{"x.npy", {}, rows_apart}}, "x.npy"); });
  CHECK(turned.code == ErrorCode::Unsupported);
  CHECK(turned.message.find("np.ascontiguousarray") != std::string::npos);

  const StoredFile gone{head.size() + 20'000'000'000u, [&](uint64_t offset, std::span<std::byte> into) {
                          if (offset > 0) fail(ErrorCode::BadFile, "x.npy", "gone");
                          for (std::byte& byte : into) byte = byte_at(offset++);
                        }};
  const Dataset lost = read_dataset(std::array{NamedFile{"x.npy", {}, gone}}, "x.npy");
  CHECK(error_of([&] { lost.read(std::array<uint32_t, 1>{0}); }).message == "gone");
}

TEST_CASE("NumPy arrays that do not hold numbers are refused with a way out") {
  for (const char* type : {"|O", "<U8", "|S3", "<c8", "<c16", "<M8[ns]", "|V2", "<f16"}) {
    const Error error = error_of([&] { from_npy(npy(type, "False", "(1,)", "")); });
    CHECK(error.code == ErrorCode::Unsupported);
    CHECK(holds(error.message, "astype"));
  }
  const std::string records = npy("X", "False", "(1,)", "");
  std::string named = records;
  named.replace(named.find("'X'"), 3, "[('a', '<f4')]");
  named.erase(named.find(" \n") - 11, 11);
  CHECK(error_of([&] { from_npy(named); }).code == ErrorCode::Unsupported);
}

TEST_CASE("NumPy headers that lie are refused with the byte") {
  const auto refusal = [](const std::string& file) {
    const Error error = error_of([&] { from_npy(file); });
    CHECK(error.code == ErrorCode::BadFile);
    CHECK(holds(error.where, "a.npy, byte "));
    return error.message;
  };
  CHECK(holds(refusal(npy("<f4", "False", "(3,)", std::string(8, 'x'))), "take 12 bytes, found 8"));
  CHECK(holds(refusal(npy("<f4", "False", "(1,)", std::string(8, 'x'))), "something follows"));
  CHECK(holds(refusal(npy("<f4", "False", "(4000000000, 4000000000)", "")), "more elements"));
  CHECK(holds(refusal(npy("<f4", "False", "(99999999999999999999999,)", "")), "larger than any file"));
  CHECK(holds(refusal(npy("<f4", "False", "(-1,)", "")), "extent"));
  CHECK(holds(refusal(npy("<f4", "Maybe", "(1,)", "abcd")), "True or False"));
  CHECK(holds(refusal(npy("<q9", "False", "(1,)", "abcd")), "<q9"));
  std::string tuple = "(";
  for (int i = 0; i < 70; ++i) tuple += "1, ";
  CHECK(holds(refusal(npy("|u1", "False", tuple + ")", "a")), "64 dimensions"));
  CHECK(holds(refusal(std::string("\x93NUMPY\x01\x00\xFF\xFF{", 11)), "incomplete"));
  CHECK(error_of([] { from_npy(npy("<f4", "False", "(1,)", "abcd", 4)); }).code == ErrorCode::Unsupported);
  const std::string good = npy("<f4", "True", "(2, 3)", std::string(24, 'x'));
  check_hostile(good, from_npy, good.size() - 24, true);
}

// ---- IDX files ----

TEST_CASE("IDX arrays are read in every type") {
  const Tensor images = from_idx(idx(8, {2, 2, 3}, "abcdefghijkl"));
  CHECK(images.dtype() == DType::UInt8);
  CHECK(images.shape() == Shape{2, 2, 3});
  CHECK(test::text_of(images.bytes()) == "abcdefghijkl");
  CHECK(values_of<int8_t>(from_idx(idx(9, {2}, "\x01\xFF"))) == std::vector<int8_t>{1, -1});
  CHECK(values_of<int16_t>(from_idx(idx(0xB, {2}, std::string("\x01\x02\xFF\xFE", 4)))) ==
        std::vector<int16_t>{0x102, -2});
  CHECK(values_of<int32_t>(from_idx(idx(0xC, {1}, std::string("\0\0\1\2", 4)))) == std::vector<int32_t>{0x102});
  const std::vector<float> floats = {0.1f, -3e20f};
  CHECK(values_of<float>(from_idx(idx(0xD, {2}, reversed(raw(floats), 4)))) == floats);
  const std::vector<double> doubles = {0.1, -3e200};
  CHECK(values_of<double>(from_idx(idx(0xE, {2}, reversed(raw(doubles), 8)))) == doubles);
}

TEST_CASE("IDX files that lie are refused with the byte") {
  const auto refusal = [](const std::string& file) {
    const Error error = error_of([&] { from_idx(file); });
    CHECK(error.code == ErrorCode::BadFile);
    CHECK(holds(error.where, "a.idx, byte "));
    return error.message;
  };
  CHECK(holds(refusal(idx(8, {4}, "abc")), "incomplete"));
  CHECK(holds(refusal(idx(8, {2}, "abc")), "something follows"));
  CHECK(holds(refusal(idx(8, {}, "")), "dimensions"));
  CHECK(holds(refusal(idx(10, {1}, "a")), "found 10"));
  CHECK(holds(refusal(idx(8, {0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, "")), "more elements"));
  CHECK(holds(refusal(std::string("\0\0\x08\xFF", 4)), "255 dimensions"));
  const std::string good = idx(0xB, {2, 3}, "abcdefghijkl");
  check_hostile(good, from_idx, 12, true);
}

// ---- what the files are for ----

TEST_CASE("four IDX files become training and test samples with labels") {
  const std::string images = std::string(2 * 784, 'a') + std::string(784, 'b');
  const Dataset dataset = from_files({{"mnist/t10k-labels-idx1-ubyte", idx(8, {1}, "\4")},
                                      {"mnist/train-images-idx3-ubyte", idx(8, {3, 28, 28}, images)},
                                      {"mnist/t10k-images-idx3-ubyte", idx(8, {1, 28, 28}, std::string(784, 'c'))},
                                      {"mnist/train-labels-idx1-ubyte", idx(8, {3}, std::string("\0\3\1", 3))}});
  CHECK(dataset.name == "given");
  CHECK(dataset.size == 4);
  CHECK(dataset.test_from == 3);
  CHECK(dataset.shape == Shape{28, 28});
  CHECK(dataset.layout == SampleLayout::Hw);
  CHECK(dataset.dtype == DType::UInt8);
  CHECK(dataset.labels == std::vector<int32_t>{0, 3, 1, 4});
  const Tensor batch = dataset.read(std::array<uint32_t, 2>{3, 2});
  CHECK(test::text_of(batch.bytes()) == std::string(784, 'c') + std::string(784, 'b'));

  // Two files are one dataset, whatever they are called.
  const Dataset test_only = from_files(
      {{"t10k-labels-idx1-ubyte", idx(8, {1}, "\4")}, {"t10k-images-idx3-ubyte", idx(8, {1, 2, 2}, "abcd")}});
  CHECK(test_only.size == 1);
  CHECK(test_only.test_from == 1);
  CHECK(test_only.classes == 5);
  CHECK_FALSE(from_files({{"images", idx(8, {1, 2, 2}, "abcd")}}).labelled());
}

TEST_CASE("arrays are told apart by name, and else by shape") {
  const std::string x = npy("|u1", "False", "(3, 2)", "abcdef"),
                    y = npy("<i8", "False", "(3,)", raw(std::vector<int64_t>{2, 0, 1}));
  const std::vector<int32_t> labels = {2, 0, 1};
  for (const auto& [x_name, y_name] :
       std::vector<std::pair<std::string, std::string>>{{"x.npy", "y.npy"},
                                                        {"X_train.npy", "y_train.npy"},
                                                        {"train_images.npy", "train_labels.npy"},
                                                        {"d.npz/data.npy", "d.npz/target.npy"},
                                                        {"arr_0.npy", "arr_1.npy"},
                                                        {"inputs.npy", "labels.npy"},
                                                        {"XTrain.npy", "YTrain.npy"},
                                                        {"first.npy", "second.npy"},
                                                        {"k-imgs.npz/arr_0.npy", "k-labels.npz/arr_0.npy"},
                                                        {"features.npy", "other.npy"}}) {
    for (bool turned : {false, true}) {
      std::vector<Given> files = {{x_name, x}, {y_name, y}};
      if (turned) std::swap(files[0], files[1]);
      const Dataset dataset = from_files(files);
      CHECK_MESSAGE(dataset.labels == labels, x_name, " ", y_name);
      CHECK(dataset.shape == Shape{2});
      CHECK(dataset.layout == SampleLayout::Features);
    }
  }
  const Dataset parts = from_files({{"d.npz/x_train.npy", x},
                                    {"d.npz/y_train.npy", y},
                                    {"d.npz/x_test.npy", x},
                                    {"d.npz/y_test.npy", y},
                                    {"d.npz/x_val.npy", x},
                                    {"d.npz/y_val.npy", y}});
  CHECK(parts.size == 9);
  CHECK(parts.test_from == 6);
  CHECK(parts.labels == std::vector<int32_t>{2, 0, 1, 2, 0, 1, 2, 0, 1});

  const auto refusal = [](const std::vector<Given>& files) {
    const Error error = error_of([&] { from_files(files); });
    CHECK(error.code == ErrorCode::BadData);
    return error.where + ": " + error.message;
  };
  CHECK(holds(refusal({{"x.npy", x}, {"images.npy", x}, {"y.npy", y}}), "both this and x.npy"));
  CHECK(holds(refusal({{"x.npy", x}, {"y.npy", y}, {"extra.npy", y}}), "extra.npy"));
  CHECK(holds(refusal({{"x.npy", x}, {"y.npy", npy("|u1", "False", "(2,)", "ab")}}), "2 labels for the 3 samples"));
  CHECK(holds(refusal({{"x_train.npy", x}, {"y_train.npy", y}, {"y_test.npy", y}}), "without samples"));
  CHECK(holds(refusal({{"x.npy", x}, {"table.csv", "1,2\n3,4\n"}}), "do not go together"));
  CHECK(holds(refusal({{"x.npy", npy("|u1", "False", "()", "a")}}), "single number"));
}

TEST_CASE("labels are integers or rows with a single 1, targets are reals") {
  const std::string x = npy("|u1", "False", "(3, 2)", "abcdef");
  const auto with = [&](const std::string& y) { return from_files({{"x.npy", x}, {"y.npy", y}}); };
  CHECK(with(npy("|u1", "False", "(3, 1)", std::string("\1\0\2", 3))).labels == std::vector<int32_t>{1, 0, 2});
  CHECK(with(npy("|b1", "False", "(3,)", std::string("\1\0\1", 3))).labels == std::vector<int32_t>{1, 0, 1});
  const Dataset one_hot =
      with(npy("<f4", "False", "(3, 4)", raw(std::vector<float>{0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0})));
  CHECK(one_hot.labels == std::vector<int32_t>{1, 0, 2});
  CHECK(one_hot.classes == 4);
  const Dataset reals = with(npy("<f8", "False", "(3,)", raw(std::vector<double>{1, 0, 2})));
  CHECK_FALSE(reals.labelled());
  CHECK(reals.targets.shape() == Shape{3, 1});
  CHECK(values_of<float>(reals.targets) == std::vector<float>{1, 0, 2});
  const Dataset rows = with(npy("<i4", "False", "(3, 2)", raw(std::vector<int32_t>{1, 0, 2, 1, 1, 1})));
  CHECK(values_of<float>(rows.targets) == std::vector<float>{1, 0, 2, 1, 1, 1});
  CHECK(error_of([&] {
          with(npy("<i4", "False", "(3,)", raw(std::vector<int32_t>{1, -1, 2})));
        }).code == ErrorCode::BadData);
  CHECK(error_of([&] {
          with(npy("<u8", "False", "(3,)", raw(std::vector<uint64_t>{1, UINT64_MAX, 2})));
        }).code == ErrorCode::BadData);
  CHECK(error_of([&] { with(npy("|u1", "False", "(3, 1, 1)", "abc")); }).code == ErrorCode::BadData);
}

TEST_CASE("samples of other types become float32, their layout follows from their shape") {
  const auto alone = [](const std::string& file) { return from_files({{"data.npy", file}}); };
  CHECK(all_floats(alone(npy("<i4", "False", "(2, 1)", raw(std::vector<int32_t>{-7, 9})))) ==
        std::vector<float>{-7, 9});
  CHECK(all_floats(alone(npy("<f8", "False", "(2,)", raw(std::vector<double>{0.1, 1e40})))) ==
        std::vector<float>{0.1f, std::numeric_limits<float>::infinity()});
  CHECK(all_floats(alone(npy("<f2", "False", "(1, 2)", raw(std::vector<uint16_t>{0x3C01, 0xC000})))) ==
        std::vector<float>{half_value(0x3C01), -2});
  CHECK(alone(npy("|b1", "False", "(1, 2)", "ab")).dtype == DType::UInt8);

  const auto layout_of = [&](const std::string& shape, size_t elements) {
    return alone(npy("|u1", "False", shape, std::string(elements, 'a'))).layout;
  };
  CHECK(layout_of("(2, 5, 6)", 60) == SampleLayout::Hw);
  CHECK(layout_of("(2, 5, 6, 3)", 180) == SampleLayout::Hwc);
  CHECK(layout_of("(2, 5, 6, 1)", 60) == SampleLayout::Hwc);
  CHECK(layout_of("(2, 4, 5, 6)", 240) == SampleLayout::Chw);
  CHECK(layout_of("(2, 2, 5, 6)", 120) == SampleLayout::Features);
  CHECK(layout_of("(2, 3, 3, 3, 3)", 162) == SampleLayout::Features);
  const Dataset flat = alone(npy("|u1", "False", "(2, 784)", std::string(1568, 'a')));
  CHECK(flat.shape == Shape{28, 28});
  CHECK(flat.layout == SampleLayout::Hw);
  CHECK(alone(npy("|u1", "False", "(1, 3072)", std::string(3072, 'a'))).shape == Shape{3072});
}

TEST_CASE("files that are no data are refused by what they are") {
  for (const char* start : {"\x1F\x8B\x08", "PK\x03\x04", "\x89PNG\r\n", "\x89HDF\r\n", "PAR1", "\x80\x04\x95"}) {
    CHECK(error_of([&] { from_files({{"x", start + std::string("rest")}}); }).code == ErrorCode::Unsupported);
  }
  CHECK(error_of([&] { from_files({{"x", ""}}); }).code == ErrorCode::BadFile);
  CHECK(error_of([&] { from_files({}); }).code == ErrorCode::BadFile);
  CHECK(error_of([&] { from_files({{"x", std::string("ab\0cd", 5)}}); }).code == ErrorCode::BadFile);
}

// ---- CSV ----

TEST_CASE("a table's separator, header and label column are found") {
  const std::vector<float> expected = {5.1f, -3.5f, 4.9f, 3e2f};
  for (const std::string& text : {
           std::string("5.1,-3.5,1\n4.9,3e2,0\n"),
           std::string("\xEF\xBB\xBF"
                       "a;b;c\r\n5.1;-3.5;1\r\n\r\n4.9;+300;0"),
           std::string("class\ta\tb\n1\t5.1\t-3.5\n0\t4.9\t300.\n"),
           std::string("a,Label,b\n5.1,1,-3.5\n4.9,0,.3E+3\n"),
           std::string("\"a, b\",b,\"y\"\n\"5.1\", -3.5 ,1\n4.9,\"300\" ,\"0\"\n\n \n"),
           std::string(",a,b,target\n0,5.1,-3.5,1\n1,4.9,300,0\n"),
       }) {
    CAPTURE(text);
    const Dataset dataset = from_csv(text);
    CHECK(dataset.shape == Shape{2});
    CHECK(all_floats(dataset) == expected);
    CHECK(dataset.labels == std::vector<int32_t>{1, 0});
  }
}

TEST_CASE("a label column of words gives classes in alphabetical order") {
  const Dataset dataset = from_csv("1,setosa\n2,\"say \"\"eel\"\"\"\n3,setosa\n4,ant\n");
  CHECK(dataset.class_names == std::vector<std::string>{"ant", "say \"eel\"", "setosa"});
  CHECK(dataset.labels == std::vector<int32_t>{2, 1, 2, 0});
  const Dataset parts = from_files({{"train.csv", "1,ant\n2,eel\n"}, {"test.csv", "5,eel\n"}});
  CHECK(parts.test_from == 2);
  CHECK(parts.labels == std::vector<int32_t>{0, 1, 1});
}

TEST_CASE("a label column of numbers gives classes where they can be classes, else targets") {
  CHECK(from_csv("1,3\n2,5\n").classes == 6);
  const Dataset signs = from_csv("1,-1\n2,1\n3,-1\n");
  CHECK(signs.class_names == std::vector<std::string>{"-1", "1"});
  CHECK(signs.labels == std::vector<int32_t>{0, 1, 0});
  const Dataset reals = from_csv("1,0.5\n2,1\n");
  CHECK(values_of<float>(reals.targets) == std::vector<float>{0.5f, 1});
  std::string prices;
  for (int i = 0; i < 200; ++i) prices += std::to_string(i) + "," + std::to_string(100000 + 1000 * i) + "\n";
  CHECK(from_csv(prices).targets.shape() == Shape{200, 1});
  CHECK_FALSE(from_csv("1\n2\n3\n").labelled());
}

TEST_CASE("tables of 784 columns are images, as small as their bytes") {
  std::string row, header = "label", halves;
  for (int i = 0; i < 784; ++i) {
    row += "," + std::to_string(i % 256);
    header += ",p" + std::to_string(i);
    halves += "," + std::to_string(i % 256) + (i == 500 ? ".5" : "");
  }
  for (const std::string& text : {"7" + row + "\n2" + row, header + "\n7" + row + "\n2" + row}) {
    const Dataset dataset = from_csv(text);
    CHECK(dataset.dtype == DType::UInt8);
    CHECK(dataset.shape == Shape{28, 28});
    CHECK(dataset.layout == SampleLayout::Hw);
    CHECK(dataset.labels == std::vector<int32_t>{7, 2});
    CHECK(dataset.read(std::array<uint32_t, 1>{1}).data<uint8_t>()[300] == 300 - 256);
  }
  const Dataset floats = from_csv("7" + row + "\n2" + halves);
  CHECK(floats.dtype == DType::Float32);
  const std::vector<float> values = all_floats(floats);
  for (size_t i = 0; i < 2 * 784; ++i) {
    const float expected = static_cast<float>(i % 784 % 256) + (i == 784 + 500 ? 0.5f : 0.0f);
    CHECK(values[i] == expected);
  }
  CHECK_FALSE(from_csv(row.substr(1) + "\n" + row.substr(1)).labelled());
}

TEST_CASE("decimal numbers are read to the nearest float") {
  Random random{5};
  std::string text;
  std::vector<float> expected;
  for (int i = 0; i < 2000; ++i) {
    const float value = std::ldexp(random.uniform() * 2 - 1, static_cast<int>(random.below(200)) - 100);
    char buffer[64];
    std::snprintf(buffer, sizeof buffer,
                  i % 3 == 0   ? "%.9g"
                  : i % 3 == 1 ? "%.17g"
                               : "%.40f",
                  static_cast<double>(value));
    if (i % 3 != 2 || std::abs(value) > 1e-20f) {
      text += std::string(buffer) + "\n";
      expected.push_back(value);
    }
  }
  const std::vector<float> read = all_floats(from_csv(text));
  REQUIRE(read.size() == expected.size());
  for (size_t i = 0; i < read.size(); ++i) CHECK(read[i] == expected[i]);
}

TEST_CASE("tables that do not hold together are refused with line and column") {
  const auto refusal = [](const std::string& text) {
    const Error error = error_of([&] { from_csv(text); });
    CHECK(error.code == ErrorCode::BadFile);
    return error.where + ": " + error.message;
  };
  CHECK(holds(refusal("1,2,3\n\n4,5\n"), "table.csv, line 3: expected 3 cells as in the first line, found 2"));
  CHECK(holds(refusal("a,b,y\n1,2,3\n4,red,5\n"), "line 3: column 2 (\"b\"): expected a number, found \"red\""));
  CHECK(holds(refusal("1,2,3\n4,,5\n"), "line 2: column 2: expected a number, found nothing"));
  CHECK(holds(refusal("1,2\n3,\n"), "line 2: the label is missing"));
  CHECK(holds(refusal("1,2\n3,4\n5,x\n"), "line 3: the label is \"x\""));
  CHECK(holds(refusal("1,2\nnan,4\n"), "line 2: column 1"));
  CHECK(holds(refusal("1,2\n0x10,4\n"), "line 2: column 1"));
  CHECK(holds(refusal("1,2\n1e99,4\n"), "line 2: column 1"));
  CHECK(holds(refusal("1,2\n\"3,4\n"), "line 2: a quoted cell"));
  CHECK(holds(refusal("1,2\n\"3\"4,4\n"), "line 2: a quoted cell"));
  CHECK(holds(refusal("\n \n"), "empty"));
  CHECK(holds(refusal("y\n"), "line 1"));
  // A first line that promises a million columns to a million rows of one.
  CHECK(holds(refusal(std::string(100000, ',') + "\n" +
                      [] {
                        std::string rows;
                        for (int i = 0; i < 100000; ++i) rows += "1\n";
                        return rows;
                      }()),
              "cells"));
  const std::string good = "a,b,label\n1.5,\"2\",red\n-3e2,4,blue\n";
  check_hostile(good, from_csv, good.size(), false);
}

// ---- real files ----

TEST_CASE("NumPy files from elsewhere are read or refused for a reason") {
  size_t read = 0;
  for (const std::filesystem::path& path : test::data_files("npy", {".npy"})) {
    const std::string name = path.filename().string();
    const Bytes bytes = test::read_file(path);
    CAPTURE(name);
    if (holds(name, "complex") || holds(name, "unicode") || holds(name, "objarr")) {
      CHECK(error_of([&] { read_npy(bytes, name); }).code == ErrorCode::Unsupported);
      continue;
    }
    const Tensor tensor = read_npy(bytes, name);
    ++read;
    if (name.starts_with("10-")) CHECK(tensor.shape() == Shape{10});
    if (name.starts_with("65x65-")) CHECK(tensor.shape() == Shape{65, 65});
    if (name.starts_with("4x4x4x4x4-")) CHECK(tensor.shape() == Shape{4, 4, 4, 4, 4});
    const size_t dash = name.rfind('-');
    if (holds(path.parent_path().filename().string(), "npyjs") && dash != std::string::npos) {
      CHECK(to_string(tensor.dtype()) == name.substr(dash + 1, name.size() - dash - 5));
    }
    if (name == "candle-test.npy") {
      CHECK(values_of<int64_t>(tensor).size() == 10);
    }
  }
  MESSAGE("NumPy files read: ", read);
}
