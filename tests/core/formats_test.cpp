// ONNX and safetensors, read and written: what is in a file comes out of it, what is odd about it is refused with a
// place. Encodings are written down here from onnx.proto and the safetensors README, not taken from the code under
// test.
#include "core/formats/formats.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>

#include "core/formats/onnx_internal.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using namespace test;

/// Writes the file, which must have the size that its rope promised.
Bytes written(const Model& model, const WritePlan& plan) {
  const Rope rope = write_model(model, plan);
  const Bytes bytes = rope.bytes();
  CHECK(bytes.size() == rope.size());
  return bytes;
}
Bytes written(const Model& model) { return written(model, plan_write(model, model.header->format)); }

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    for (const int shift : {4, 0}) text += "0123456789ABCDEF"[std::to_integer<int>(byte) >> shift & 15];
  }
  return text;
}

void check_same(const Graph& a, const Graph& b, const Model& model_a, const Model& model_b);

void check_same(const Param& a, const Param& b) {
  CHECK(a.name == b.name);
  CHECK(a.value.dtype() == b.value.dtype());
  CHECK(a.value.shape() == b.value.shape());
  CHECK(hex(a.value.bytes()) == hex(b.value.bytes()));
}

void check_same(const Attribute& a, const Attribute& b, const Model& model_a, const Model& model_b) {
  CHECK(a.name == b.name);
  CHECK(a.extra == b.extra);
  REQUIRE(a.value.index() == b.value.index());
  if (const auto* held = std::get_if<ParamRef>(&a.value)) {
    check_same(model_a.params[held->param], model_b.params[std::get<ParamRef>(b.value).param]);
    CHECK(held->extra == std::get<ParamRef>(b.value).extra);
  } else if (const auto* inner = std::get_if<std::shared_ptr<const Graph>>(&a.value)) {
    check_same(**inner, *std::get<std::shared_ptr<const Graph>>(b.value), model_a, model_b);
  } else if (const auto* number = std::get_if<float>(&a.value)) {
    CHECK(same_bits(*number, std::get<float>(b.value)));
  } else if (const auto* integer = std::get_if<int64_t>(&a.value)) {
    CHECK(*integer == std::get<int64_t>(b.value));
  } else if (const auto* text = std::get_if<std::string>(&a.value)) {
    CHECK(*text == std::get<std::string>(b.value));
  } else if (const auto* floats = std::get_if<std::vector<float>>(&a.value)) {
    CHECK(*floats == std::get<std::vector<float>>(b.value));
  } else if (const auto* ints = std::get_if<std::vector<int64_t>>(&a.value)) {
    CHECK(*ints == std::get<std::vector<int64_t>>(b.value));
  } else if (const auto* texts = std::get_if<Texts>(&a.value)) {
    CHECK(*texts == std::get<Texts>(b.value));
  }
}

void check_same(const Graph& a, const Graph& b, const Model& model_a, const Model& model_b) {
  CHECK(a.name == b.name);
  CHECK(a.extra == b.extra);
  REQUIRE(a.nodes.size() == b.nodes.size());
  for (size_t i = 0; i < a.nodes.size(); ++i) {
    CHECK(a.nodes[i].name == b.nodes[i].name);
    CHECK(a.nodes[i].op == b.nodes[i].op);
    CHECK(a.nodes[i].domain == b.nodes[i].domain);
    CHECK(a.nodes[i].inputs == b.nodes[i].inputs);
    CHECK(a.nodes[i].outputs == b.nodes[i].outputs);
    CHECK(a.nodes[i].extra == b.nodes[i].extra);
    REQUIRE(a.nodes[i].attributes.size() == b.nodes[i].attributes.size());
    for (size_t k = 0; k < a.nodes[i].attributes.size(); ++k) {
      check_same(a.nodes[i].attributes[k], b.nodes[i].attributes[k], model_a, model_b);
    }
  }
  REQUIRE(a.initializers.size() == b.initializers.size());
  for (size_t i = 0; i < a.initializers.size(); ++i) {
    CHECK(a.initializers[i].name == b.initializers[i].name);
    CHECK(a.initializers[i].extra == b.initializers[i].extra);
    check_same(model_a.params[a.initializers[i].param], model_b.params[b.initializers[i].param]);
  }
  for (const auto list : {&Graph::inputs, &Graph::outputs, &Graph::values}) {
    REQUIRE((a.*list).size() == (b.*list).size());
    for (size_t i = 0; i < (a.*list).size(); ++i) CHECK((a.*list)[i].encoded == (b.*list)[i].encoded);
  }
}

void check_same(const Model& a, const Model& b) {
  CHECK(a.header->format == b.header->format);
  CHECK(a.header->ir_version == b.header->ir_version);
  CHECK(a.header->producer == b.header->producer);
  CHECK(a.header->opsets == b.header->opsets);
  CHECK(a.header->metadata == b.header->metadata);
  CHECK(a.header->functions == b.header->functions);
  CHECK(a.header->extra == b.header->extra);
  REQUIRE(a.params.size() == b.params.size());
  REQUIRE(a.weights->size() == b.weights->size());
  check_same(*a.graph, *b.graph, a, b);
}

/// Reads, writes, reads and writes: the models are the same, and so are the two written files. Gives the written file.
Bytes check_round_trip(const Bytes& file, const ExternalFiles& external = {}) {
  const Model first = read_model(file, "test.onnx", external);
  const Bytes once = written(first);
  const Model second = read_model(once, "test.onnx");
  check_same(first, second);
  CHECK(text_of(once) == text_of(written(second)));
  return once;
}

/// The error of reading a model with one initializer.
Error error_of_tensor(const std::string& message, const ExternalFiles& external = {}) {
  OnnxFile file;
  file.graph.initializers = {message};
  return error_of([&] { file.read(external); });
}

Tensor read_tensor(const std::string& message, const ExternalFiles& external = {}) {
  OnnxFile file;
  file.graph.initializers = {message};
  const Model model = file.read(external);
  REQUIRE(model.params.size() == 1);
  return model.params[0].value;
}

// ---- tensors ----

/// One value in a typed field of TensorProto: float_data 4, int32_data 5, int64_data 7, double_data 10, uint64_data 11.
struct TypedCase {
  const char* name;
  int32_t type;
  DType dtype;
  Dims dims;
  uint32_t field;
  std::vector<double> reals;       ///< for fields 4 and 10
  std::vector<uint64_t> integers;  ///< for the others, as the varint they are encoded in
  const char* bytes;               ///< what they are in memory, little-endian
};

constexpr uint64_t kMinus1 = ~uint64_t{0};  // negative int32 and int64 are sign-extended to ten-byte varints

const TypedCase kTyped[] = {
    {"float", 1, DType::Float32, {2}, 4, {1.5, -2}, {}, "0000C03F000000C0"},
    {"uint8", 2, DType::UInt8, {3}, 5, {}, {0, 255, 128}, "00FF80"},
    {"int8", 3, DType::Int8, {3}, 5, {}, {kMinus1, 127, kMinus1 - 127}, "FF7F80"},
    {"uint16", 4, DType::UInt16, {2}, 5, {}, {65535, 1}, "FFFF0100"},
    {"int16", 5, DType::Int16, {2}, 5, {}, {kMinus1 - 1, 256}, "FEFF0001"},
    {"int32", 6, DType::Int32, {2}, 5, {}, {kMinus1, 65536}, "FFFFFFFF00000100"},
    {"int64", 7, DType::Int64, {2}, 7, {}, {kMinus1, kMinus1 << 32}, "FFFFFFFFFFFFFFFF00000000FFFFFFFF"},
    {"bool", 9, DType::Bool, {2}, 5, {}, {1, 0}, "0100"},
    {"float16", 10, DType::Float16, {2}, 5, {}, {0x3C00, 0xC000}, "003C00C0"},
    {"double", 11, DType::Float64, {2}, 10, {1, -0.5}, {}, "000000000000F03F000000000000E0BF"},
    {"uint32", 12, DType::UInt32, {2}, 11, {}, {4294967295u, 258}, "FFFFFFFF02010000"},
    {"uint64", 13, DType::UInt64, {1}, 11, {}, {kMinus1 - 15}, "F0FFFFFFFFFFFFFF"},
    {"complex64", 14, DType::Complex64, {1}, 4, {1, -1}, {}, "0000803F000080BF"},
    {"complex128", 15, DType::Complex128, {1}, 10, {2, 0}, {}, "00000000000000400000000000000000"},
    {"bfloat16", 16, DType::BFloat16, {2}, 5, {}, {0x3F80, 0xC040}, "803F40C0"},
    {"float8e4m3fn", 17, DType::Float8E4M3FN, {2}, 5, {}, {0x38, 0xC0}, "38C0"},
    {"float8e4m3fnuz", 18, DType::Float8E4M3FNUZ, {1}, 5, {}, {0x40}, "40"},
    {"float8e5m2", 19, DType::Float8E5M2, {1}, 5, {}, {0x3C}, "3C"},
    {"float8e5m2fnuz", 20, DType::Float8E5M2FNUZ, {1}, 5, {}, {0x80}, "80"},
    // 1, 2, 3: two to a byte, the first in the low half; one byte to an int32.
    {"uint4", 21, DType::UInt4, {3}, 5, {}, {0x21, 0x03}, "2103"},
    // -1, 7, -8.
    {"int4", 22, DType::Int4, {3}, 5, {}, {0x7F, 0x08}, "7F08"},
    {"float4e2m1", 23, DType::Float4E2M1, {2, 2}, 5, {}, {0x12, 0xF4}, "12F4"},
    {"float8e8m0", 24, DType::Float8E8M0, {1}, 5, {}, {0x7F}, "7F"},
    // 1, 2, 3, 0, 1: four to a byte.
    {"uint2", 25, DType::UInt2, {5}, 5, {}, {0x39, 0x01}, "3901"},
    {"int2", 26, DType::Int2, {4}, 5, {}, {0xE4}, "E4"},
};

std::string typed_tensor(const TypedCase& typed, bool packed) {
  std::string out = tensor_head("t", typed.type, typed.dims);
  protozero::pbf_writer writer(out);
  std::vector<float> floats(typed.reals.begin(), typed.reals.end());
  if (typed.field == 4 && packed) writer.add_packed_float(4, floats.begin(), floats.end());
  if (typed.field == 10 && packed) writer.add_packed_double(10, typed.reals.begin(), typed.reals.end());
  if (typed.field != 4 && typed.field != 10 && packed) {
    writer.add_packed_uint64(typed.field, typed.integers.begin(), typed.integers.end());
  }
  if (packed) return out;
  for (const double value : typed.reals) {
    if (typed.field == 4) writer.add_float(4, static_cast<float>(value));
    if (typed.field == 10) writer.add_double(10, value);
  }
  for (const uint64_t value : typed.integers) writer.add_uint64(typed.field, value);
  return out;
}

TEST_CASE("every tensor type is read from its typed field, packed or not, and is written raw") {
  for (const TypedCase& typed : kTyped) {
    CAPTURE(std::string(typed.name));
    for (const bool packed : {true, false}) {
      const Tensor tensor = read_tensor(typed_tensor(typed, packed));
      CHECK(tensor.dtype() == typed.dtype);
      CHECK(tensor.shape() == Shape(typed.dims.begin(), typed.dims.end()));
      CHECK(hex(tensor.bytes()) == typed.bytes);
    }
    OnnxFile file;
    file.graph.initializers = {typed_tensor(typed, true)};
    const Bytes once = check_round_trip(file.encode());
    // raw_data is field 9: tag 0x4A, then the length, then the bytes. (These integers are too large to gain as
    // varints.)
    const std::string length = hex(std::vector{static_cast<std::byte>(std::string_view(typed.bytes).size() / 2)});
    const std::string expected = "4A" + length + typed.bytes;
    CHECK_MESSAGE(holds(hex(once), expected), hex(once));
  }
}

TEST_CASE("whole numbers are written as varints where that takes less room than raw") {
  OnnxFile file;
  const int64_t shape[] = {1, -1, 300};
  file.graph.initializers = {tensor("t", 7, {3}, std::string(reinterpret_cast<const char*>(shape), sizeof(shape)))};
  // int64_data is field 7: tag 0x3A, 13 bytes: one for 1, ten for -1, two for 300.
  CHECK(holds(hex(check_round_trip(file.encode())),
              "3A0D"
              "01"
              "FFFFFFFFFFFFFFFFFF01"
              "AC02"));
}

TEST_CASE("every tensor type is read raw") {
  for (const TypedCase& typed : kTyped) {
    CAPTURE(std::string(typed.name));
    std::string bytes;
    for (const char* at = typed.bytes; *at; at += 2)
      bytes += static_cast<char>(std::stoi(std::string(at, 2), nullptr, 16));
    OnnxFile file;
    file.graph.initializers = {tensor("t", typed.type, typed.dims, bytes)};
    check_round_trip(file.encode());
    CHECK(hex(read_tensor(file.graph.initializers[0]).bytes()) == typed.bytes);
    // One byte more or fewer is one too many or too few.
    for (const std::string& wrong : {bytes + "x", bytes.substr(1)}) {
      const Error error = error_of_tensor(tensor("t", typed.type, typed.dims, wrong));
      CHECK(error.code == ErrorCode::BadFile);
      CHECK(error.where == "t");
      CHECK(holds(error.message,
                  "needs " + std::to_string(bytes.size()) + " bytes, the file has " + std::to_string(wrong.size())));
    }
  }
}

TEST_CASE("small integers, as in shapes and axes, are written as varints, and come back as they were") {
  const std::vector<int64_t> wide{0, 1, -1, 300, INT64_MAX, INT64_MIN, 7, 7, 7, 7, 7, 7, 7, 7};
  const std::vector<int32_t> narrow{0, 1, INT32_MAX, INT32_MIN, 5, 5, 5, 5, 5, 5, 5};
  OnnxFile file;
  file.graph.initializers = {int64_tensor("wide", wide), tensor("narrow", kInt32, {11}, raw(narrow)),
                             int64_tensor("large", {-1, -2}), int64_tensor("empty", {})};
  const Model again = read_model(check_round_trip(file.encode()), "m");
  CHECK(text_of(param(again, "wide").value.bytes()) == raw(wide));
  CHECK(text_of(param(again, "narrow").value.bytes()) == raw(narrow));
  CHECK(written(again).size() < file.encode().size());
}

TEST_CASE("float and double are read by their values too") {
  CHECK(read_tensor(float_tensor("t", {3}, {0.1f, -3, 1e30f})).data<float>()[1] == -3);
  CHECK(FloatView(read_tensor(tensor("t", kFloat16, {2}, std::string("\x00\x3C\x00\xC0", 4)))).values()[1] == -2);
}

TEST_CASE("texts are counted and carried") {
  std::string message = tensor_head("words", kString, {2, 1});
  protozero::pbf_writer writer(message);
  writer.add_bytes(6, std::string("first\0word", 10));
  writer.add_bytes(6, "\xFF\xFE");
  OnnxFile file;
  file.graph.initializers = {message};
  const Model model = file.read();
  CHECK(model.params[0].value.dtype() == DType::String);
  CHECK(model.params[0].value.elements() == 2);
  CHECK(holds(text_of(check_round_trip(file.encode())), std::string("first\0word", 10)));
  const Error error = error_of_tensor(tensor_head("words", kString, {3}) +
                                      message.substr(tensor_head("words", kString, {2, 1}).size()));
  CHECK(error.where == "words");
  CHECK(holds(error.message, "needs 3 texts, got 2"));
}

TEST_CASE("a scalar has no extents, and a tensor may have no elements") {
  CHECK(read_tensor(float_tensor("t", {}, {7})).shape().empty());
  CHECK(read_tensor(float_tensor("t", {}, {7})).data<float>()[0] == 7);
  CHECK(read_tensor(float_tensor("t", {0, 4}, {})).elements() == 0);
  CHECK(read_tensor(tensor_head("t", kFloat, {0})).elements() == 0);
}

TEST_CASE("extents may be packed, as proto3 writers do") {
  std::string message;
  protozero::pbf_writer writer(message);
  const std::vector<int64_t> dims{2, 3};
  writer.add_packed_int64(1, dims.begin(), dims.end());
  writer.add_int32(2, kUint8);
  writer.add_bytes(9, "abcdef");
  CHECK(read_tensor(message).shape() == Shape{2, 3});
}

TEST_CASE("impossible tensors are refused by name") {
  const auto check = [](const std::string& message, std::string_view part) {
    const Error error = error_of_tensor(message);
    CHECK(error.code == ErrorCode::BadFile);
    CHECK(error.where == "t");
    CHECK_MESSAGE(holds(error.message, part), error.message);
  };
  check(tensor("t", 0, {1}, "abcd"), "unknown tensor type 0");
  check(tensor("t", 27, {1}, "abcd"), "unknown tensor type 27");
  check(tensor("t", -1, {1}, "abcd"), "unknown tensor type -1");
  check(tensor("t", kFloat, {-1}, "abcd"), "extent -1");
  check(tensor("t", kFloat, {int64_t{1} << 40, int64_t{1} << 40}, "abcd"),
        sizeof(size_t) == 8 ? "more elements" : "extent");
  check(tensor("t", kFloat, {INT64_MAX}, "abcd"), sizeof(size_t) == 8 ? "more elements" : "extent");
  check(tensor("t", kFloat, {2}, "abcd"), "needs 8 bytes, the file has 4");
  check(tensor("t", kInt4, {5}, "ab"), "needs 3 bytes, the file has 2");
  check(tensor_head("t", kFloat, {2}), "needs 8 bytes, the file has 0");
  check(tensor_head("t", kString, {2}), "needs 2 texts, got 0");
  // The tensor type is an int32; one that only looks like FLOAT in its low 32 bits is none.
  std::string message = tensor_head("t", kFloat, {1});
  protozero::pbf_writer writer(message);
  writer.add_int64(2, (int64_t{1} << 32) + 1);
  writer.add_bytes(9, "abcd");
  check(message, "unknown tensor type 4294967297");
}

// Large tensors point into the file, moved down by up to three bytes where they are not aligned. Names of every length
// put them at every alignment; a field behind the data, and the next tensor, must not be hurt by the move.
TEST_CASE("large tensors keep their values at every alignment, and so do their neighbours and the caller's bytes") {
  for (const int32_t type : {kFloat, kDouble, kFloat16, kUint8, kInt64}) {
    for (size_t length = 1; length <= 16; ++length) {
      const std::string name(length, 'n');
      std::string data(4096, '\0');
      Random random{length};
      for (char& c : data) c = static_cast<char>(random.bits());
      const int64_t count = type == kFloat ? 1024 : type == kFloat16 ? 2048 : type == kUint8 ? 4096 : 512;
      const std::vector<float> packed = random_floats(600, length);
      std::string typed = tensor_head(name + "p", kFloat, {600});
      protozero::pbf_writer(typed).add_packed_float(4, packed.begin(), packed.end());
      OnnxFile file;
      file.graph.nodes = {
          node("Constant", {}, {"c"},
               {tensor_attribute("value", tensor("", type, {count}, data)) + std::string("\xAA\x01\x00", 3)})};
      file.graph.initializers = {tensor(name, type, {count}, data) + std::string("\x62\x03"
                                                                                 "doc"),
                                 typed, tensor(name + "2", type, {count}, data)};
      const Bytes bytes = file.encode();
      const Bytes kept = bytes;
      const Model model = read_model(bytes, "m");
      CHECK(bytes == kept);
      CHECK(text_of(param(model, "c").value.bytes()) == data);
      CHECK(text_of(param(model, name).value.bytes()) == data);
      CHECK(text_of(param(model, name + "2").value.bytes()) == data);
      CHECK(text_of(param(model, name + "p").value.bytes()) == raw(packed));
      CHECK(model.graph->initializers[0].extra == std::string("\x62\x03"
                                                              "doc"));
      for (const Param& each : model.params) {
        const size_t unit = std::min<size_t>(8, static_cast<size_t>(bits_of(each.value.dtype())) / 8);
        CHECK(reinterpret_cast<uintptr_t>(each.value.bytes().data()) % unit == 0);
      }
      // Writing to one tensor changes no other that lies in the same file.
      Model changed = model;
      std::memset(changed.params[1].value.write<std::byte>().data(), 0, 4);
      CHECK(text_of(model.params[1].value.bytes()) != text_of(changed.params[1].value.bytes()));
      CHECK(text_of(written(model)) == text_of(written(read_model(written(model), "m"))));
    }
  }
}

// ---- external data ----

const std::string kDataText = "....abcdefgh";

TEST_CASE("external data is taken from its file, wherever the model's path says that it lies") {
  const Bytes data = bytes_of(kDataText);
  const ExternalFiles external{{"weights.bin", FileBytes(std::span(data))}};
  for (const char* location : {"weights.bin", "./weights.bin", "some/folder/weights.bin", "C:\\models\\weights.bin"}) {
    CAPTURE(location);
    CHECK(text_of(
              read_tensor(external_tensor("t", kFloat, {2}, {{"location", location}, {"offset", "4"}, {"length", "8"}}),
                          external)
                  .bytes()) == "abcdefgh");
  }
  // Length and offset need not be given; an unknown key is nobody's business.
  CHECK(text_of(
            read_tensor(external_tensor("t", kUint8, {3}, {{"location", "weights.bin"}, {"checksum", "zz"}}), external)
                .bytes()) == "...");
  CHECK(text_of(read_tensor(external_tensor("t", kUint8, {8}, {{"location", "weights.bin"}, {"offset", "4"}}), external)
                    .bytes()) == "abcdefgh");
}

TEST_CASE("two tensors that share bytes of an external file do not share what is written to one") {
  const std::vector<float> values = random_floats(1024, 3);
  const Bytes data = bytes_of(raw(values));
  const ExternalFiles external{{"weights.bin", FileBytes(std::span(data))}};
  OnnxFile file;
  file.graph.initializers = {external_tensor("a", kFloat, {1024}, {{"location", "weights.bin"}}),
                             external_tensor("b", kFloat, {512}, {{"location", "weights.bin"}, {"offset", "1024"}}),
                             external_tensor("odd", kFloat, {512}, {{"location", "weights.bin"}, {"offset", "3"}})};
  Model model = file.read(external);
  model.params[0].value.write<float>()[300] = 77;
  CHECK(model.params[1].value.data<float>()[300 - 256] == values[300]);
  CHECK(text_of(model.params[2].value.bytes()) == raw(values).substr(3, 2048));
}

TEST_CASE("external data moves into the written file and counts in the size of the opened one") {
  const Bytes data = bytes_of(kDataText);
  const ExternalFiles external{{"weights.bin", FileBytes(std::span(data))}};
  OnnxFile file;
  file.graph.initializers = {
      external_tensor("t", kFloat, {2}, {{"location", "weights.bin"}, {"offset", "4"}, {"length", "8"}})};
  const Bytes once = check_round_trip(file.encode(), external);
  CHECK(text_of(read_model(once, "test.onnx").params[0].value.bytes()) == "abcdefgh");
  CHECK(file.read(external).header->file_bytes == file.encode().size() + 8);
  CHECK_FALSE(holds(text_of(once), "weights.bin"));
}

TEST_CASE("external data that is missing, out of range or badly numbered is refused by name") {
  const Bytes data = bytes_of(kDataText);
  const ExternalFiles external{{"weights.bin", FileBytes(std::span(data))}};
  using Entries = std::vector<std::pair<std::string, std::string>>;
  const auto check = [&](const Entries& entries, std::string_view where, std::string_view part) {
    const Error error = error_of_tensor(external_tensor("t", kFloat, {2}, entries), external);
    CHECK(error.code == ErrorCode::BadFile);
    CHECK(error.where == where);
    CHECK_MESSAGE(holds(error.message, part), error.message);
  };
  check({{"location", "other.bin"}}, "t", "\"other.bin\" is missing");
  check({{"location", "folder/"}}, "t", "names no file");
  check({}, "t", "names no file");
  check({{"location", "weights.bin"}, {"offset", "5"}}, "t", "bytes 5 to 13");
  check({{"location", "weights.bin"}, {"offset", "13"}}, "t", "12 bytes");
  check({{"location", "weights.bin"}, {"offset", "999999999999999999"}}, "t", "outside");
  check({{"location", "weights.bin"}, {"length", "999999999999999999"}}, "t", "outside");
  check({{"location", "weights.bin"}, {"length", "4"}}, "t", "needs 8 bytes, the file has 4");
  for (const char* number :
       {"", "-1", "+1", " 1", "1 ", "0x10", "1e3", "4.0", "9999999999999999999", "18446744073709551616"}) {
    CAPTURE(number);
    check({{"location", "weights.bin"}, {"offset", number}}, "t.external_data.offset", "expected a whole number");
    check({{"location", "weights.bin"}, {"length", number}}, "t.external_data.length", "expected a whole number");
  }
  // A message of any length is not repeated in full.
  CHECK(error_of_tensor(
            external_tensor("t", kFloat, {2}, {{"location", "weights.bin"}, {"offset", std::string(100'000, '7')}}),
            external)
            .message.size() < 200);
}

// ---- the whole file ----

/// A field of a number that onnx.proto does not have, with a text to find it by.
std::string unknown_field(uint32_t number, std::string_view text) {
  std::string out;
  protozero::pbf_writer(out).add_bytes(number, text.data(), text.size());
  return out;
}

TEST_CASE(
    "functions, metadata, annotations, sparse initializers and fields younger than this program survive a round trip") {
  GraphFile inner;
  inner.initializers = {random_tensor("k", {2, 2}) + unknown_field(900, "in an inner tensor")};
  inner.nodes = {node("MatMul", {"x", "k"}, {"t"})};
  inner.outputs = {value("t", kFloat, {1, 2})};
  inner.extra = unknown_field(901, "in an inner graph") + unknown_field(10, "inner doc string");

  OnnxFile file;
  file.more_opsets = {{"com.microsoft", 1}, {"a.b", 3}};
  file.graph.name = "main graph";
  std::string with_doc = node("Add", {"x", "", "v"}, {"sum", ""},
                              {attribute("a", int64_t{-5}) + unknown_field(902, "in an attribute")}, "adds", "a.b");
  with_doc +=
      unknown_field(6, "node doc string") + unknown_field(9, "node metadata_props") + unknown_field(903, "in a node");
  std::string strings;  // AttributeProto.strings 9, type STRINGS 8
  protozero::pbf_writer(strings).add_string(1, "words");
  protozero::pbf_writer(strings).add_bytes(9, "one word");
  protozero::pbf_writer(strings).add_bytes(9, "");
  protozero::pbf_writer(strings).add_int32(20, 8);
  std::string tensors;  // AttributeProto.tensors 10, type TENSORS 9: carried, not looked into
  protozero::pbf_writer(tensors).add_string(1, "many");
  protozero::pbf_writer(tensors).add_message(10, float_tensor("inside a list", {1}, {1}));
  protozero::pbf_writer(tensors).add_int32(20, 9);
  std::string reference;  // ref_attr_name 21, as inside of functions
  protozero::pbf_writer(reference).add_string(1, "alpha");
  protozero::pbf_writer(reference).add_string(21, "name of the outer attribute");
  protozero::pbf_writer(reference).add_int32(20, 1);
  file.graph.nodes = {
      with_doc,
      node("If", {"c"}, {"y"},
           {graph_attribute("then_branch", inner.encode()), graph_attribute("else_branch", inner.encode())}, "choose"),
      node("Constant", {}, {"held"},
           {tensor_attribute("value", random_tensor("its own name", {3, 2}) + unknown_field(904, "in a held tensor"))}),
      node("Odd", {}, {},
           {strings, tensors, reference, floats_attribute("f", {0.5f, -0.0f}), float_attribute("g", 1.25f),
            text_attribute("s", "te\xFFxt")},
           "odd", "a.b")};
  file.graph.initializers = {random_tensor("v", {4}) + unknown_field(12, "tensor doc string") +
                             unknown_field(905, "in a tensor")};
  file.graph.inputs = {value("x", kFloat, {-1, 4}) + unknown_field(3, "value doc string")};
  file.graph.outputs = {value("y", kFloat, {1, 2})};
  file.graph.values = {value("sum", kFloat, {4})};
  file.graph.extra = unknown_field(10, "graph doc string") + unknown_field(14, "quantization_annotation") +
                     unknown_field(15, "sparse_initializer") + unknown_field(906, "in the graph");
  file.extra = unknown_field(2, "maker") + unknown_field(3, "1.2") + unknown_field(4, "its domain") +
               unknown_field(6, "model doc string") + unknown_field(14, "metadata_props") +
               unknown_field(20, "training_info") + unknown_field(25, "a function") +
               unknown_field(907, "in the model");

  const Model model = file.read();
  CHECK(model.header->producer == "maker 1.2");
  CHECK(model.header->functions == 1);
  CHECK(model.header->ir_version == 8);
  CHECK(model.graph->name == "main graph");
  CHECK(std::get<Texts>(find_attribute(model.graph->nodes[3], "words")->value) == Texts{"one word", ""});
  const std::string once = text_of(check_round_trip(file.encode()));
  for (const char* text : {"in an inner tensor",
                           "in an inner graph",
                           "inner doc string",
                           "in an attribute",
                           "node doc string",
                           "node metadata_props",
                           "in a node",
                           "one word",
                           "inside a list",
                           "name of the outer attribute",
                           "its own name",
                           "in a held tensor",
                           "te\xFFxt",
                           "tensor doc string",
                           "in a tensor",
                           "value doc string",
                           "graph doc string",
                           "quantization_annotation",
                           "sparse_initializer",
                           "in the graph",
                           "maker",
                           "1.2",
                           "its domain",
                           "model doc string",
                           "metadata_props",
                           "training_info",
                           "a function",
                           "in the model"}) {
    CAPTURE(text);
    CHECK(holds(once, text));
  }
}

TEST_CASE("fields of every wire type survive") {
  std::string extra;
  protozero::pbf_writer writer(extra);
  writer.add_uint64(910, 1u << 30);
  writer.add_fixed32(911, 0x12345678);
  writer.add_fixed64(912, 0x1122334455667788u);
  writer.add_bytes(913, "text");
  OnnxFile file = small_mlp();
  file.graph.extra = extra;
  file.extra = extra;
  const std::string once = text_of(check_round_trip(file.encode()));
  const size_t first = once.find(extra);
  REQUIRE(first != std::string::npos);
  CHECK(once.find(extra, first + 1) != std::string::npos);
}

TEST_CASE("values say their types and shapes") {
  OnnxFile file = small_mlp();
  std::string untyped;
  protozero::pbf_writer(untyped).add_string(1, "untyped");
  std::string sequence = untyped;  // TypeProto.sequence_type 4
  std::string type;
  protozero::pbf_writer(type).add_message(4, std::string());
  protozero::pbf_writer(sequence).add_message(2, type);
  file.graph.values = {untyped, sequence};
  const Model model = file.read();
  const Value& x = model.graph->inputs.at(0);
  CHECK(x.name == "x");
  CHECK(x.dtype == DType::Float32);
  CHECK(x.ranked);
  REQUIRE(x.shape.size() == 2);
  CHECK(std::get<std::string>(x.shape[0]) == "N");
  CHECK(std::get<int64_t>(x.shape[1]) == 16);
  for (const Value& other : model.graph->values) {
    CHECK(other.name == "untyped");
    CHECK_FALSE(other.dtype);
    CHECK_FALSE(other.ranked);
  }
}

TEST_CASE("attributes of IR versions 1 and 2 have no type and are known by the field they are in") {
  std::string untyped;
  protozero::pbf_writer(untyped).add_string(1, "transB");
  protozero::pbf_writer(untyped).add_int64(3, 1);
  OnnxFile file;
  file.graph.nodes = {node("Gemm", {"x", "W"}, {"y"}, {untyped})};
  file.graph.initializers = {random_tensor("W", {4, 6})};
  CHECK(weight(file.read(), "W")->channel_axis == size_t{0});
  check_round_trip(file.encode());
}

TEST_CASE("names are unique in the model, though sibling subgraphs use them twice") {
  GraphFile branch;
  branch.initializers = {random_tensor("k", {2, 2})};
  OnnxFile file;
  file.graph.nodes = {
      node("If", {"c"}, {"y"},
           {graph_attribute("then_branch", branch.encode()), graph_attribute("else_branch", branch.encode())},
           "choose"),
      node("If", {"c"}, {"z"},
           {graph_attribute("then_branch", branch.encode()), graph_attribute("else_branch", branch.encode())},
           "choose")};
  const Model model = file.read();
  std::set<std::string> names;
  for (const Param& param : model.params) names.insert(param.name);
  CHECK(model.params.size() == 4);
  CHECK(names.size() == 4);
  CHECK(names.count("choose/else_branch/k") == 1);
  check_round_trip(file.encode());
}

TEST_CASE("what is not a model is named") {
  const auto check = [](std::string_view file, ErrorCode code, std::string_view part) {
    const Error error = error_of([&] { read_model(bytes_of(file), "some.file"); });
    CHECK(error.code == code);
    CHECK(error.where == "some.file");
    CHECK_MESSAGE(holds(error.message, part), error.message);
  };
  check("", ErrorCode::BadFile, "empty");
  check("GGUF\x03", ErrorCode::Unsupported, "GGUF");
  check("PK\x03\x04zip", ErrorCode::Unsupported, "zip");
  check("\x89HDF\r\n", ErrorCode::Unsupported, "HDF5");
  check("\x1C\x01\x02\x03TFL3", ErrorCode::Unsupported, "TensorFlow Lite");
  check("\x1C\x01\x02\x03ORTM", ErrorCode::Unsupported, "ORT");
  check("\x80\x02}q", ErrorCode::Unsupported, "pickle");
  check("\x93NUMPY\x01", ErrorCode::Unsupported, "NumPy");
  check("\x1F\x8B\x08", ErrorCode::Unsupported, "gzip");
  check("<!DOCTYPE html>", ErrorCode::Unsupported, "web page");
  check("<html><body>", ErrorCode::Unsupported, "web page");
  check("version https://git-lfs.github.com/spec/v1", ErrorCode::Unsupported, "git lfs pull");
  check("hello, world", ErrorCode::BadFile, "not an ONNX model");
  check("\x08\x07", ErrorCode::BadFile, "no graph");
  check(std::string("\x08\x07\x3A\x00\x3A\x00", 6), ErrorCode::BadFile, "2 graphs");
}

TEST_CASE("fields of another wire type than onnx.proto gives them are refused") {
  // ir_version as text, and a graph that is a number.
  CHECK(error_of([] { read_model(bytes_of("\x0A\x01x"), "m"); }).where == "ir_version");
  CHECK(error_of([] { read_model(bytes_of("\x38\x01"), "m"); }).where == "graph");
  // Tensors: floats as a varint, dims as a fixed number.
  for (const std::string& field : {std::string("\x20\x01", 2), std::string("\x0D\x01\x02\x03\x04", 5)}) {
    OnnxFile file;
    file.graph.initializers = {tensor_head("t", kFloat, {}) + field};
    CHECK_THROWS_AS(file.read(), Error);
  }
}

TEST_CASE("two initializers of one name are refused") {
  OnnxFile file;
  file.graph.initializers = {random_tensor("W", {2}), random_tensor("W", {2})};
  const Error error = error_of([&] { file.read(); });
  CHECK(error.code == ErrorCode::BadFile);
  CHECK(error.where == "W");
}

TEST_CASE("an attribute that promises a tensor or a graph and has none is refused by its node") {
  for (const int32_t type : {4, 5}) {
    std::string broken;
    protozero::pbf_writer(broken).add_string(1, "value");
    protozero::pbf_writer(broken).add_int32(20, type);
    OnnxFile file;
    file.graph.nodes = {node("Constant", {}, {"c"}, {broken}, "holder")};
    const Error error = error_of([&] { file.read(); });
    CHECK(error.code == ErrorCode::BadFile);
    CHECK(error.where == "holder");
  }
}

TEST_CASE("subgraphs nest to depth 100 and no deeper") {
  const auto nested = [](int depth) {
    GraphFile graph;
    graph.initializers = {random_tensor("deep", {4, 4})};
    graph.nodes = {node("MatMul", {"x", "deep"}, {"y"})};
    for (int i = 0; i < depth; ++i) {
      GraphFile outer;
      outer.nodes = {node("If", {"c"}, {"y"}, {graph_attribute("then_branch", graph.encode())}, "n")};
      graph = outer;
    }
    OnnxFile file;
    file.graph = graph;
    return file;
  };
  CHECK(nested(100).read().weights->size() == 1);
  check_round_trip(nested(100).encode());
  const Error error = error_of([&] { nested(101).read(); });
  CHECK(error.code == ErrorCode::BadFile);
  CHECK(holds(error.message, "nested deeper than 100"));
}

// ---- ropes ----

TEST_CASE("a rope knows its size before its pieces are made, and hands them over in order") {
  int made = 0;
  Rope rope, inner;
  rope.append(std::string("ab"));
  rope.append(std::string());
  rope.append(3, [&] {
    ++made;
    return Tensor::from<char>(DType::UInt8, {3}, std::span("cde", 3));
  });
  inner.append(Tensor::from<char>(DType::UInt8, {2}, std::span("fg", 2)));
  inner.append(std::string("h"));
  rope.append(std::move(inner));
  rope.append(std::string("i"));
  rope.append(Tensor::allocate(DType::Float32, {0}));
  CHECK(rope.size() == 9);
  CHECK(made == 0);
  CHECK(text_of(rope.bytes()) == "abcdefghi");
  CHECK(text_of(rope.bytes()) == "abcdefghi");
  CHECK(made == 2);
  CHECK(Rope().bytes().empty());
}

TEST_CASE("a piece of another size than promised never gets into a file") {
  Rope rope;
  rope.append(4, [] { return Tensor::allocate(DType::UInt8, {3}); });
  CHECK_THROWS_AS(rope.bytes(), std::logic_error);
}

// ---- raising the operator set ----
// Each expectation is the operator's entry in ONNX's docs/Changelog.md for the version that is crossed.

OnnxFile file_of(const Texts& nodes, int64_t opset, const Texts& initializers = {}) {
  OnnxFile file;
  file.opset = opset;
  file.graph.nodes = nodes;
  file.graph.initializers = initializers;
  file.graph.inputs = {value("x", kFloat, {2, 3, 4})};
  file.graph.outputs = {value("y", kFloat, {2, 3, 4})};
  return file;
}

Model raised(const OnnxFile& file, int64_t target) {
  const Model model = file.read();
  auto result = onnx::raise_opset(model, target);
  if (const std::string* reason = std::get_if<std::string>(&result)) FAIL(*reason);
  const Model& high = std::get<Model>(result);
  CHECK(opset_of(*high.header) == target);
  CHECK(opset_of(*model.header) == file.opset);  // the model that it is made from stays
  check_same(file.read(), model);
  return high;
}

std::string refusal(const OnnxFile& file, int64_t target) {
  const auto result = onnx::raise_opset(file.read(), target);
  const std::string* reason = std::get_if<std::string>(&result);
  return reason ? *reason : "";
}

/// "Op(in,in;attribute=value)->out" for each node, one constant input shown as {values}.
std::string shown(const Model& model, const Node& node) {
  std::string text = node.op + "(";
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (i) text += ",";
    const auto held = std::find_if(model.graph->initializers.begin(), model.graph->initializers.end(),
                                   [&](const Initializer& candidate) { return candidate.name == node.inputs[i]; });
    const Tensor* tensor = held == model.graph->initializers.end() ? nullptr : &model.params[held->param].value;
    if (!tensor || (tensor->dtype() == DType::Float32 && tensor->shape().size() > 1)) {
      text += node.inputs[i];
      continue;
    }
    text += "{";
    for (size_t k = 0; k < tensor->elements(); ++k) {
      if (k) text += " ";
      std::string number = tensor->dtype() == DType::Int64 ? std::to_string(tensor->data<int64_t>()[k])
                                                           : std::to_string(tensor->data<float>()[k]);
      if (tensor->dtype() == DType::Float32) number = number.substr(0, number.find('.') + 2);
      text += number;
    }
    text += "}";
  }
  for (const Attribute& attribute : node.attributes) {
    text += ";" + attribute.name + "=";
    if (const auto* integer = std::get_if<int64_t>(&attribute.value)) text += std::to_string(*integer);
    if (const auto* word = std::get_if<std::string>(&attribute.value)) text += *word;
    if (const auto* ints = std::get_if<std::vector<int64_t>>(&attribute.value)) {
      for (const int64_t integer : *ints) text += std::to_string(integer) + " ";
    }
    if (std::holds_alternative<float>(attribute.value)) text += "f";
  }
  text += ")->";
  for (size_t i = 0; i < node.outputs.size(); ++i) text += (i ? "," : "") + node.outputs[i];
  return text;
}

Texts shown(const Model& model) {
  Texts all;
  for (const Node& node : model.graph->nodes) all.push_back(shown(model, node));
  return all;
}

void check_raised(const std::string& node, int64_t from, int64_t target, const Texts& expected,
                  const Texts& initializers = {}) {
  const Texts found = shown(raised(file_of({node}, from, initializers), target));
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) CHECK(found[i] == expected[i]);
}

using Ints = std::vector<int64_t>;

TEST_CASE("operators whose history is only wider types stay as they are") {
  check_raised(node("Relu", {"x"}, {"y"}), 7, 21, {"Relu(x)->y"});
  check_raised(node("Conv", {"x", "W"}, {"y"}, {attribute("group", int64_t{1})}), 7, 21, {"Conv(x,W;group=1)->y"},
               {random_tensor("W", {2, 3, 1})});
  check_raised(node("MaxPool", {"x"}, {"y", "indices"}, {attribute("kernel_shape", Ints{2})}), 8, 21,
               {"MaxPool(x;kernel_shape=2 )->y,indices"});
}

TEST_CASE("BatchNormalization: 9 took spatial away, 14 changed the training outputs") {
  const Texts inputs{"x", "s", "b", "m", "v"};
  check_raised(node("BatchNormalization", inputs, {"y"}, {attribute("spatial", int64_t{1})}), 7, 13,
               {"BatchNormalization(x,s,b,m,v)->y"});
  check_raised(node("BatchNormalization", inputs, {"y", "", ""}), 9, 21, {"BatchNormalization(x,s,b,m,v)->y,,"});
  const std::string flat =
      refusal(file_of({node("BatchNormalization", inputs, {"y"}, {attribute("spatial", int64_t{0})}, "norm")}, 8), 13);
  CHECK(holds(flat, "node norm (BatchNormalization)"));
  CHECK(holds(flat, "spatial"));
  const OnnxFile training =
      file_of({node("BatchNormalization", inputs, {"y", "mean", "var", "sm", "sv"}, {}, "norm")}, 9);
  CHECK(refusal(training, 13).empty());
  CHECK(holds(refusal(training, 21), "training"));
}

TEST_CASE("Dropout: 10 changed the mask's type, 12 made the ratio an input that inference does not need") {
  check_raised(node("Dropout", {"x"}, {"y"}, {float_attribute("ratio", 0.25f)}), 7, 13, {"Dropout(x)->y"});
  check_raised(node("Dropout", {"x"}, {"y", "mask"}, {float_attribute("ratio", 0.25f)}), 7, 13, {"Dropout(x)->y"});
  check_raised(node("Dropout", {"x"}, {"y", "mask"}, {float_attribute("ratio", 0.25f)}), 10, 13,
               {"Dropout(x)->y,mask"});
  OnnxFile used = file_of({node("Dropout", {"x"}, {"y", "mask"}, {}, "drop"), node("Not", {"mask"}, {"z"})}, 7);
  CHECK(holds(refusal(used, 13), "node drop (Dropout) gives its mask"));
  used = file_of({node("Dropout", {"x"}, {"y", "mask"}, {}, "drop")}, 9);
  used.graph.outputs.push_back(value("mask", kFloat, {2}));
  CHECK(holds(refusal(used, 13), "gives its mask"));
}

TEST_CASE("Clip: 11 made the bounds inputs") {
  check_raised(node("Clip", {"x"}, {"y"}, {float_attribute("min", 0), float_attribute("max", 6)}), 7, 13,
               {"Clip(x,{0.0},{6.0})->y"});
  check_raised(node("Clip", {"x"}, {"y"}, {float_attribute("max", 6)}), 7, 13, {"Clip(x,,{6.0})->y"});
  check_raised(node("Clip", {"x"}, {"y"}, {float_attribute("min", -1)}), 10, 21, {"Clip(x,{-1.0})->y"});
  check_raised(node("Clip", {"x"}, {"y"}), 7, 13, {"Clip(x)->y"});
  check_raised(node("Clip", {"x", "lo"}, {"y"}), 11, 21, {"Clip(x,lo)->y"});
  // The bounds are scalars.
  const Model model = raised(file_of({node("Clip", {"x"}, {"y"}, {float_attribute("min", 0)})}, 7), 13);
  CHECK(model.params.back().value.shape().empty());
  // Their type must be the data's, which is not known where the model holds halves.
  const OnnxFile half =
      file_of({node("Clip", {"x"}, {"y"}, {float_attribute("min", 0)}, "clip")}, 7, {tensor("h", kFloat16, {1}, "ab")});
  CHECK(holds(refusal(half, 13), "node clip (Clip)"));
}

TEST_CASE("Pad: 11 made pads and value inputs") {
  check_raised(node("Pad", {"x"}, {"y"}, {attribute("pads", Ints{0, 1, 0, 1}), text_attribute("mode", "reflect")}), 7,
               13, {"Pad(x,{0 1 0 1};mode=reflect)->y"});
  check_raised(node("Pad", {"x"}, {"y"}, {attribute("pads", Ints{1, 1}), float_attribute("value", 0)}), 7, 13,
               {"Pad(x,{1 1})->y"});
  check_raised(node("Pad", {"x"}, {"y"}, {attribute("pads", Ints{1, 1}), float_attribute("value", 2.5f)}), 7, 13,
               {"Pad(x,{1 1},{2.5})->y"});
  const OnnxFile half =
      file_of({node("Pad", {"x"}, {"y"}, {attribute("pads", Ints{1, 1}), float_attribute("value", 2)}, "pad")}, 7,
              {tensor("h", kFloat16, {1}, "ab")});
  CHECK(holds(refusal(half, 13), "node pad (Pad)"));
}

TEST_CASE("Slice and TopK: 10 made their numbers inputs") {
  check_raised(node("Slice", {"x"}, {"y"},
                    {attribute("ends", Ints{2, 9}), attribute("starts", Ints{0, -1}), attribute("axes", Ints{1, 2})}),
               7, 13, {"Slice(x,{0 -1},{2 9},{1 2})->y"});
  check_raised(node("Slice", {"x"}, {"y"}, {attribute("starts", Ints{1}), attribute("ends", Ints{2})}), 9, 13,
               {"Slice(x,{1},{2})->y"});
  check_raised(node("Slice", {"x", "s", "e"}, {"y"}), 10, 21, {"Slice(x,s,e)->y"});
  check_raised(node("TopK", {"x"}, {"y", "i"}, {attribute("k", int64_t{5}), attribute("axis", int64_t{1})}), 7, 13,
               {"TopK(x,{5};axis=1)->y,i"});
  check_raised(node("TopK", {"x", "k"}, {"y", "i"}), 10, 21, {"TopK(x,k)->y,i"});
}

TEST_CASE("Split: 13 made the sizes an input, 18 wants the number of outputs where there are no sizes") {
  check_raised(node("Split", {"x"}, {"y", "z"}, {attribute("split", Ints{1, 2}), attribute("axis", int64_t{1})}), 11,
               13, {"Split(x,{1 2};axis=1)->y,z"});
  check_raised(node("Split", {"x"}, {"y", "z"}, {attribute("split", Ints{1, 2})}), 11, 21, {"Split(x,{1 2})->y,z"});
  check_raised(node("Split", {"x"}, {"y", "z"}), 11, 13, {"Split(x)->y,z"});
  check_raised(node("Split", {"x"}, {"y", "z"}), 11, 21, {"Split(x;num_outputs=2)->y,z"});
  check_raised(node("Split", {"x", "sizes"}, {"y", "z"}), 13, 21, {"Split(x,sizes)->y,z"});
  check_raised(node("Split", {"x", ""}, {"y", "z"}), 13, 21, {"Split(x,;num_outputs=2)->y,z"});
}

TEST_CASE("Squeeze, Unsqueeze and ReduceSum got their axes as an input in 13, the other reductions in 18") {
  for (const char* op : {"Squeeze", "Unsqueeze", "ReduceSum"}) {
    check_raised(node(op, {"x"}, {"y"}, {attribute("axes", Ints{0, 2})}), 11, 13, {std::string(op) + "(x,{0 2})->y"});
    check_raised(node(op, {"x", "a"}, {"y"}), 13, 21, {std::string(op) + "(x,a)->y"});
  }
  check_raised(node("Squeeze", {"x"}, {"y"}), 11, 13, {"Squeeze(x)->y"});
  for (const char* op : {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
                         "ReduceMin", "ReduceProd", "ReduceSumSquare"}) {
    const std::string reduction =
        node(op, {"x"}, {"y"}, {attribute("axes", Ints{-1}), attribute("keepdims", int64_t{0})});
    check_raised(reduction, 11, 13, {std::string(op) + "(x;axes=-1 ;keepdims=0)->y"});
    check_raised(reduction, 11, 21, {std::string(op) + "(x,{-1};keepdims=0)->y"});
    check_raised(node(op, {"x", "a"}, {"y"}), 18, 21, {std::string(op) + "(x,a)->y"});
  }
}

TEST_CASE("Softmax: before 13 it worked on its input flattened to two dimensions") {
  for (const std::string op : {"Softmax", "LogSoftmax", "Hardmax"}) {
    check_raised(node(op, {"x"}, {"y"}, {attribute("axis", int64_t{-1})}), 11, 13, {op + "(x;axis=-1)->y"});
    check_raised(node(op, {"x"}, {"y"}, {attribute("axis", int64_t{2})}), 7, 13,
                 {op + "(x;axis=-1)->y"});  // y has rank 3
    check_raised(node(op, {"x"}, {"y"}, {attribute("axis", int64_t{1})}), 7, 13,
                 {"Shape(x)->y_shape", "Flatten(x;axis=1)->y_flat", op + "(y_flat;axis=-1)->y_soft",
                  "Reshape(y_soft,y_shape)->y"});
    // 1 is the axis where none is given; of "hidden" the rank is not known.
    check_raised(node(op, {"x"}, {"hidden"}), 12, 21,
                 {"Shape(x)->hidden_shape", "Flatten(x;axis=1)->hidden_flat", op + "(hidden_flat;axis=-1)->hidden_soft",
                  "Reshape(hidden_soft,hidden_shape)->hidden"});
    check_raised(node(op, {"x"}, {"y"}), 13, 21, {op + "(x)->y"});
  }
  CHECK(holds(refusal(file_of({node("Softmax", {}, {"hidden"}, {}, "soft")}, 12), 13), "node soft (Softmax)"));
  CHECK(holds(refusal(file_of({node("Softmax", {"x"}, {}, {}, "soft")}, 12), 13), "node soft (Softmax)"));
}

TEST_CASE("what changed its meaning and cannot be said otherwise is refused") {
  CHECK(holds(refusal(file_of({node("OneHot", {"x", "d", "v"}, {"y"}, {}, "hot")}, 9), 13), "node hot (OneHot)"));
  CHECK(holds(refusal(file_of({node("DFT", {"x"}, {"y"}, {}, "wave")}, 17), 21), "node wave (DFT)"));
  // The type of a bound is that of the data, which is not float32 behind this Cast.
  const OnnxFile half =
      file_of({node("Cast", {"x"}, {"h"}, {attribute("to", int64_t{kFloat16})}),
               node("Clip", {"h"}, {"y"}, {float_attribute("min", 0), float_attribute("max", 6)}, "clip")},
              10);
  CHECK(holds(refusal(half, 13), "node clip (Clip)"));
}

TEST_CASE("a safetensors header may be of any length, one that looks like another format's magic number too") {
  for (const size_t length : {size_t{640}, size_t{640 + 65536}}) {  // 80 02: how a pickle begins
    std::string header = R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    header.append(length - header.size(), ' ');
    std::string file;
    for (int i = 0; i < 8; ++i) file += static_cast<char>(static_cast<uint64_t>(length) >> (8 * i));
    file += header + std::string(4, '\0');
    CHECK(read_model(std::as_bytes(std::span(file)), "t").params.size() == 1);
  }
}

TEST_CASE("a safetensors header of more tensors than can be read in good time is refused before it is read") {
  std::string header = R"({"t":[)";
  for (int i = 0; i < 30'000; ++i) header += i ? ",{}" : "{}";
  header += "]}";
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  file += header;
  const Error error = error_of([&] { read_model(std::as_bytes(std::span(file)), "t"); });
  CHECK(error.code == ErrorCode::Unsupported);
  CHECK(holds(error.message, "more than 20000 tensors"));
}

TEST_CASE("Upsample became Resize in 10, whose coordinates became a choice in 11") {
  check_raised(node("Upsample", {"x"}, {"y"}, {text_attribute("mode", "nearest"), floats_attribute("scales", {1, 2})}),
               7, 13,
               {"Resize(x,,{1.0 2.0};mode=nearest;coordinate_transformation_mode=asymmetric;nearest_mode=floor)->y"});
  check_raised(node("Upsample", {"x", "scales"}, {"y"}, {text_attribute("mode", "linear")}), 9, 13,
               {"Resize(x,,scales;mode=linear;coordinate_transformation_mode=asymmetric)->y"});
  check_raised(node("Resize", {"x", "scales"}, {"y"}, {text_attribute("mode", "linear")}), 10, 21,
               {"Resize(x,,scales;mode=linear;coordinate_transformation_mode=asymmetric)->y"});
  // Before 11 nearest rounded one way where an axis grew and the other where it shrank.
  const auto nearest_by = [](float scale) {
    const std::vector<float> scales{1, 1, scale};
    const std::string bytes(reinterpret_cast<const char*>(scales.data()), scales.size() * sizeof(float));
    return refusal(file_of({node("Resize", {"x", "s"}, {"y"}, {}, "up")}, 10, {tensor("s", kFloat, {3}, bytes)}), 13);
  };
  CHECK(nearest_by(2) == "");
  CHECK(holds(nearest_by(0.5f), "node up (Resize) may shrink"));
  CHECK(holds(refusal(file_of({node("Resize", {"x", "s"}, {"y"}, {}, "up")}, 10), 13), "node up (Resize) may shrink"));
  check_raised(node("Resize", {"x", "", "scales"}, {"y"}), 11, 21, {"Resize(x,,scales)->y"});
  CHECK(holds(refusal(file_of({node("Upsample", {"x"}, {"y"}, {}, "up")}, 7), 13), "node up (Upsample) has no scales"));
  const std::string old_mode =
      refusal(file_of({node("Resize", {"x", "", "s"}, {"y"},
                            {text_attribute("coordinate_transformation_mode", "tf_half_pixel_for_nn")}, "up")},
                      11),
              13);
  CHECK(holds(old_mode, "node up (Resize) uses tf_half_pixel_for_nn"));
}

TEST_CASE("Scatter, RoiAlign and GridSample got other words") {
  check_raised(node("Scatter", {"x", "i", "u"}, {"y"}, {attribute("axis", int64_t{1})}), 9, 13,
               {"ScatterElements(x,i,u;axis=1)->y"});
  check_raised(node("RoiAlign", {"x", "r", "b"}, {"y"}), 10, 21,
               {"RoiAlign(x,r,b;coordinate_transformation_mode=output_half_pixel)->y"});
  check_raised(
      node("RoiAlign", {"x", "r", "b"}, {"y"}, {text_attribute("coordinate_transformation_mode", "half_pixel")}), 16,
      21, {"RoiAlign(x,r,b;coordinate_transformation_mode=half_pixel)->y"});
  check_raised(node("GridSample", {"x", "g"}, {"y"}, {text_attribute("mode", "bilinear")}), 16, 21,
               {"GridSample(x,g;mode=linear)->y"});
  check_raised(node("GridSample", {"x", "g"}, {"y"}, {text_attribute("mode", "bicubic")}), 16, 21,
               {"GridSample(x,g;mode=cubic)->y"});
  check_raised(node("GridSample", {"x", "g"}, {"y"}, {text_attribute("mode", "nearest")}), 16, 21,
               {"GridSample(x,g;mode=nearest)->y"});
}

TEST_CASE("what cannot be raised is refused with the node and the reason") {
  const auto check = [](const OnnxFile& file, int64_t target, std::string_view part) {
    const std::string reason = refusal(file, target);
    CHECK_MESSAGE(holds(reason, part), reason);
  };
  check(file_of({node("GroupNormalization", {"x", "s", "b"}, {"y"}, {}, "group")}, 18), 21,
        "node group (GroupNormalization)");
  check(file_of({node("Scan", {"", "x"}, {"y"}, {}, "scan")}, 8), 13, "node scan (Scan)");
  check(file_of({node("Wonder", {"x"}, {"y"}, {}, "odd")}, 13), 21, "node odd (Wonder) is not an operator");
  check(file_of({node("Wonder", {"x"}, {"output"})}, 13), 21, "node output (Wonder)");
  check(file_of({node("Relu", {"x"}, {"y"})}, 6), 13, "operator set 6 is older than 7");
  OnnxFile functions = file_of({node("Relu", {"x"}, {"y"})}, 13);
  functions.extra = unknown_field(25, "");
  check(functions, 21, "functions of its own");
  // Operators of other domains have versions of their own.
  check_raised(node("Wonder", {"x"}, {"y"}, {}, "odd", "com.microsoft"), 13, 21, {"Wonder(x)->y"});
}

TEST_CASE("constants that raising adds are shared where equal, and their names and those of new nodes are new") {
  GraphFile branch;
  branch.nodes = {node("Squeeze", {"x"}, {"inner"}, {attribute("axes", Ints{1})})};
  branch.initializers = {int64_tensor("axes_2", {1})};
  OnnxFile file =
      file_of({node("Squeeze", {"x"}, {"y"}, {attribute("axes", Ints{1})}),
               node("Unsqueeze", {"y"}, {"axes"}, {attribute("axes", Ints{1})}),
               node("Squeeze", {"axes"}, {"z"}, {attribute("axes", Ints{2})}),
               node("Softmax", {"z"}, {"s"}, {attribute("axis", int64_t{0})}), node("Relu", {"s"}, {"s_flat"}),
               node("If", {"c"}, {"w"}, {graph_attribute("then_branch", branch.encode())}),
               node("Add", {"s", "axes_3"}, {"last"})},
              11);
  file.graph.extra = unknown_field(15, "");  // sparse initializers are not looked into, but "axes_3" is used by a node
  const Model model = raised(file, 13);
  std::set<std::string> names;
  size_t count = 0;
  for_each_graph(*model.graph, [&](const Graph& graph) {
    for (const Node& each : graph.nodes) {
      names.insert(each.outputs.begin(), each.outputs.end());
      count += each.outputs.size();
    }
    for (const Initializer& each : graph.initializers) {
      names.insert(each.name);
      ++count;
    }
  });
  CHECK(names.size() == count);
  CHECK(names.count("axes_3") == 0);
  CHECK(model.params.size() == 3);  // {1} for three nodes, {2}, and the branch's own
  CHECK(model.graph->nodes[0].inputs[1] == model.graph->nodes[1].inputs[1]);
  const Node& choose = model.graph->nodes[model.graph->nodes.size() - 2];
  const Graph& inner = *std::get<std::shared_ptr<const Graph>>(choose.attributes[0].value);
  CHECK(inner.nodes[0].inputs == Texts{"x", model.graph->nodes[0].inputs[1]});
}

TEST_CASE("the version of ONNX's own domain is raised under either of its names, and no other") {
  OnnxFile file = file_of({node("Relu", {"x"}, {"y"})}, 0);
  file.more_opsets = {{"com.microsoft", 1}, {"ai.onnx", 13}, {"ai.onnx.ml", 2}};
  const auto result = onnx::raise_opset(file.read(), 21);
  REQUIRE(std::holds_alternative<Model>(result));
  CHECK(std::get<Model>(result).header->opsets ==
        std::vector<std::pair<std::string, int64_t>>{{"com.microsoft", 1}, {"ai.onnx", 21}, {"ai.onnx.ml", 2}});
}

// ---- quantized weights ----

/// The model with one weight put on a random grid of the scheme: value = scale * (code - zero point), in the weight's
/// type.
Model on_grid(Model model, std::string_view name, const QuantScheme& scheme, uint64_t seed = 1) {
  const Weight* known = weight(model, name);
  REQUIRE_MESSAGE(known, "no weight ", std::string(name));
  const Weight& found = *known;
  Param& target = model.params[found.param];
  const bool by_row = scheme.granularity == Granularity::Channel || scheme.granularity == Granularity::Group;
  const Rows rows = rows_of(target.value.shape(), by_row ? found.channel_axis : std::nullopt);
  const size_t group =
      scheme.granularity == Granularity::Group ? scheme.group_size : std::max<size_t>(1, rows.length());
  Random random{seed};
  QuantParams grid{scheme, {}, {}};
  std::vector<float> in_rows(target.value.elements()), values(in_rows.size());
  const int32_t lowest = lowest_code(scheme), highest = highest_code(scheme);
  for (size_t row = 0; row < rows.channels; ++row) {
    for (size_t begin = 0; begin < rows.length(); begin += group) {
      grid.scale.push_back(0.001f + random.uniform() / 64);
      grid.zero_point.push_back(
          scheme.symmetric ? 0 : static_cast<int32_t>(random.below(static_cast<size_t>(highest) + 1)));
      for (size_t i = begin; i < std::min(begin + group, rows.length()); ++i) {
        int32_t code = lowest + static_cast<int32_t>(random.below(static_cast<size_t>(highest - lowest) + 1));
        if (scheme.bits == 1 && scheme.symmetric && code == 0) code = 1;
        in_rows[row * rows.length() + i] = grid.scale.back() * static_cast<float>(code - grid.zero_point.back());
      }
    }
  }
  scatter_rows(std::span<const float>(in_rows), rows, 0, rows.channels, std::span<float>(values));
  target.value = from_floats(target.value.dtype(), target.value.shape(), values);
  target.grid = std::move(grid);
  return model;
}

/// Two's complement or plain integers of a tensor, 4-bit ones unpacked: first element in the low half.
std::vector<int64_t> integers_of(const Tensor& tensor) {
  std::vector<int64_t> out;
  for (size_t i = 0; i < tensor.elements(); ++i) {
    const auto byte = [&](size_t at) { return std::to_integer<int64_t>(tensor.bytes()[at]); };
    const int64_t half = byte(bits_of(tensor.dtype()) == 4 ? i / 2 : 0) >> (4 * (i % 2)) & 15;
    switch (tensor.dtype()) {
      case DType::UInt4: out.push_back(half); break;
      case DType::Int4: out.push_back(half >= 8 ? half - 16 : half); break;
      case DType::UInt8: out.push_back(byte(i)); break;
      case DType::Int8: out.push_back(byte(i) >= 128 ? byte(i) - 256 : byte(i)); break;
      case DType::UInt16: out.push_back(tensor.data<uint16_t>()[i]); break;
      case DType::Int16: out.push_back(tensor.data<int16_t>()[i]); break;
      case DType::Int64: out.push_back(tensor.data<int64_t>()[i]); break;
      default: FAIL("not a type of codes: ", std::string(to_string(tensor.dtype())));
    }
  }
  return out;
}

/// A small ONNX evaluator of what an exporter may put behind a weight, after the operators' own specifications.
class Evaluator {
 public:
  explicit Evaluator(const Model& model) : model_(model) {
    for_each_graph(*model.graph, [&](const Graph& graph) {
      for (const Initializer& each : graph.initializers) held_.emplace(each.name, &model.params[each.param].value);
      for (const Node& each : graph.nodes) {
        for (const std::string& output : each.outputs) makers_.emplace(output, &each);
      }
    });
  }

  Tensor value(const std::string& name) const {
    if (const auto found = held_.find(name); found != held_.end()) return *found->second;
    const auto maker = makers_.find(name);
    REQUIRE_MESSAGE(maker != makers_.end(), "nothing gives ", name);
    const Node& node = *maker->second;
    if (node.op == "Constant")
      return model_.params[std::get<ParamRef>(find_attribute(node, "value")->value).param].value;
    if (node.op == "DequantizeLinear") return dequantized(node);
    const Tensor input = value(node.inputs.at(0));
    if (node.op == "Cast") {
      const int64_t to = int_attribute(node, "to", 0);
      return from_floats(to == kFloat16    ? DType::Float16
                         : to == kBfloat16 ? DType::BFloat16
                                           : DType::Float64,
                         input.shape(), input.data<float>());
    }
    if (node.op == "Reshape") {
      const std::vector<int64_t> shape = integers_of(value(node.inputs.at(1)));
      return Tensor::copy_of(input.dtype(), Shape(shape.begin(), shape.end()), input.bytes());
    }
    REQUIRE(node.op == "Transpose");
    return transposed(input, std::get<Ints>(find_attribute(node, "perm")->value));
  }

 private:
  Tensor dequantized(const Node& node) const {
    const Tensor codes = value(node.inputs.at(0)), scale = value(node.inputs.at(1));
    const std::vector<int64_t> integers = integers_of(codes);
    std::vector<int64_t> zero_points(scale.elements());
    if (node.inputs.size() > 2) {
      const Tensor zero_point = value(node.inputs[2]);
      CHECK(zero_point.dtype() == codes.dtype());
      CHECK(zero_point.shape() == scale.shape());
      zero_points = integers_of(zero_point);
    }
    const Shape& shape = codes.shape();
    const int64_t block = int_attribute(node, "block_size", 0);
    const size_t axis = static_cast<size_t>(int_attribute(node, "axis", 1));
    if (block) {
      Shape expected = shape;
      expected.at(axis) = (shape.at(axis) + static_cast<size_t>(block) - 1) / static_cast<size_t>(block);
      CHECK(scale.shape() == expected);
    } else if (!scale.shape().empty()) {
      CHECK(scale.shape() == Shape{shape.at(axis)});
    }
    std::vector<float> out(integers.size());
    for (size_t i = 0; i < out.size(); ++i) {
      size_t at = 0;
      if (!scale.shape().empty()) {
        size_t inner = 1;
        for (size_t k = axis + 1; k < shape.size(); ++k) inner *= shape[k];
        const size_t along = i / inner % shape[axis];
        at = along;
        if (block)
          at = (i / inner / shape[axis] * scale.shape()[axis] + along / static_cast<size_t>(block)) * inner + i % inner;
      }
      out[i] = static_cast<float>(integers[i] - zero_points[at]) * scale.data<float>()[at];
    }
    return Tensor::from<float>(DType::Float32, shape, out);
  }

  static Tensor transposed(const Tensor& input, const Ints& perm) {
    Shape shape;
    for (const int64_t axis : perm) shape.push_back(input.shape().at(static_cast<size_t>(axis)));
    std::vector<float> out(input.elements());
    for (size_t i = 0; i < out.size(); ++i) {
      size_t rest = i, from = 0;
      for (size_t k = shape.size(); k-- > 0;) {
        size_t stride = 1;
        for (size_t j = static_cast<size_t>(perm[k]) + 1; j < shape.size(); ++j) stride *= input.shape()[j];
        from += rest % shape[k] * stride;
        rest /= shape[k];
      }
      out[i] = input.data<float>()[from];
    }
    return Tensor::from<float>(DType::Float32, shape, out);
  }

  const Model& model_;
  std::map<std::string, const Tensor*> held_;
  std::map<std::string, const Node*> makers_;
};

/// All names that a model defines are different, and every node input is defined before it is used.
void check_well_formed(const Model& model) {
  std::set<std::string> names, node_names;
  for (const Initializer& each : model.graph->initializers) CHECK_MESSAGE(names.insert(each.name).second, each.name);
  for (const Value& each : model.graph->inputs) names.insert(each.name);
  for (const Node& each : model.graph->nodes) {
    for (const std::string& input : each.inputs) CHECK_MESSAGE((input.empty() || names.count(input)), input);
    for (const std::string& output : each.outputs)
      CHECK_MESSAGE((output.empty() || names.insert(output).second), output);
    if (!each.name.empty()) CHECK_MESSAGE(node_names.insert(each.name).second, each.name);
  }
}

/// Writes the model and reads it again: `value` has in the file, bit for bit, what the param has. Gives what was read.
Model check_exported(const Model& model, const std::string& name, const WritePlan& plan) {
  const Model again = read_model(written(model, plan), "again.onnx");
  check_well_formed(again);
  CHECK(opset_of(*again.header) == plan.opset);
  const Tensor& wanted = param(model, name).value;
  const Tensor found = Evaluator(again).value(name);
  CHECK(found.dtype() == wanted.dtype());
  CHECK(found.shape() == wanted.shape());
  CHECK(hex(found.bytes()) == hex(wanted.bytes()));
  return again;
}

QuantScheme scheme_of(int bits, bool symmetric, Granularity granularity, size_t group_size = 32) {
  return {bits, symmetric, granularity, group_size};
}

TEST_CASE(
    "the values in the file are the model's, bit for bit, for every type, width, granularity and place of the "
    "channels") {
  struct Case {
    const char* op;
    Dims dims;
    Texts attributes;
  };
  const Case cases[] = {{"MatMul", {64, 48}, {}},
                        {"Gemm", {48, 64}, {attribute("transB", int64_t{1})}},
                        {"MatMul", {2, 20, 64}, {}},
                        {"Conv", {16, 8, 3, 3}, {}},
                        {"ConvTranspose", {8, 16, 3, 3}, {}}};
  const std::pair<int32_t, size_t> types[] = {{kFloat, 4}, {kFloat16, 2}, {kBfloat16, 2}, {kDouble, 8}};
  size_t quantized = 0;
  for (const Case& each : cases) {
    for (const auto& [type, width] : types) {
      size_t count = width;
      for (const int64_t extent : each.dims) count *= static_cast<size_t>(extent);
      OnnxFile file;
      file.opset = 21;
      file.ir_version = 10;
      file.graph.nodes = {node(each.op, {"x", "W"}, {"y"}, each.attributes, "layer")};
      file.graph.initializers = {tensor("W", type, each.dims, std::string(count, '\0'))};
      file.graph.inputs = {value("x", type, {-1, 64})};
      const Model plain = file.read();
      for (const int bits : {1, 2, 4, 5, 8, 16}) {
        for (const bool symmetric : {true, false}) {
          for (const Granularity granularity : {Granularity::Tensor, Granularity::Channel, Granularity::Group}) {
            if (bits == 16 && granularity == Granularity::Channel) continue;  // the same path as 8 bits
            // Halves keep 8 to 11 bits: their points of a wider grid would coincide.
            if (width == 2 && bits > 5) continue;
            CAPTURE(std::string(each.op));
            CAPTURE(type);
            CAPTURE(bits);
            CAPTURE(symmetric);
            CAPTURE(static_cast<int>(granularity));
            const Model model = on_grid(plain, "W", scheme_of(bits, symmetric, granularity, bits == 5 ? 7 : 16),
                                        static_cast<uint64_t>(bits));
            const WritePlan plan = plan_write(model, Format::Onnx);
            check_exported(model, "W", plan);
            quantized += plan.weights[0].quantized;
            if (granularity != Granularity::Group) CHECK(plan.weights[0].quantized);
          }
        }
      }
    }
  }
  CHECK(quantized > 150);
}

TEST_CASE("a quantized file is smaller by what the codes save, and the plan says what they take") {
  const Model model = on_grid(small_mlp().read(), "W1", scheme_of(8, true, Granularity::Channel));
  const WritePlan plan = plan_write(model, Format::Onnx);
  REQUIRE(plan.weights.size() == 2);
  CHECK(plan.opset == 13);
  CHECK(plan.notes.empty());
  CHECK(plan.weights[0].quantized);
  CHECK(plan.weights[0].dtype == DType::Int8);
  CHECK(plan.weights[0].note.empty());
  CHECK(plan.weights[0].bytes == 32 * 16 + 32 * 4);  // codes and scales
  CHECK_FALSE(plan.weights[1].quantized);
  CHECK(plan.weights[1].dtype == DType::Float32);
  CHECK(plan.weights[1].bytes == 32 * 8 * 4);
  const Model again = check_exported(model, "W1", plan);
  CHECK(written(model).size() + 1000 < small_mlp().encode().size());
  CHECK(again.graph->nodes[0].op == "DequantizeLinear");
  CHECK(int_attribute(again.graph->nodes[0], "axis", -9) == 0);
  // Affine: a zero point for each scale; 4 bits: two codes and two zero points to a byte.
  const auto bytes_with = [](const QuantScheme& scheme, int64_t opset) {
    return plan_write(on_grid(small_mlp(opset).read(), "W1", scheme), Format::Onnx).weights[0].bytes;
  };
  CHECK(bytes_with(scheme_of(8, false, Granularity::Channel), 13) == 512 + 32 * 4 + 32);
  CHECK(bytes_with(scheme_of(4, false, Granularity::Channel), 21) == 256 + 32 * 4 + 16);
  CHECK(bytes_with(scheme_of(4, true, Granularity::Group, 8), 21) == 256 + 64 * 4);
  CHECK(bytes_with(scheme_of(16, true, Granularity::Tensor), 21) == 1024 + 4);
}

TEST_CASE("the operator set is raised no further than the codes need") {
  const auto opset_for = [](int64_t from, const QuantScheme& scheme) {
    const Model model = on_grid(small_mlp(from).read(), "W1", scheme);
    const WritePlan plan = plan_write(model, Format::Onnx);
    CHECK(plan.weights[0].quantized);
    CHECK(plan.notes.size() == (plan.opset == from ? 0 : 1));
    if (plan.opset != from)
      CHECK(holds(plan.notes[0], "raised from " + std::to_string(from) + " to " + std::to_string(plan.opset)));
    check_exported(model, "W1", plan);
    return plan.opset;
  };
  CHECK(opset_for(10, scheme_of(8, true, Granularity::Tensor)) == 10);
  CHECK(opset_for(10, scheme_of(8, false, Granularity::Tensor)) == 10);
  CHECK(opset_for(9, scheme_of(8, true, Granularity::Tensor)) == 13);
  CHECK(opset_for(10, scheme_of(8, true, Granularity::Channel)) == 13);
  CHECK(opset_for(13, scheme_of(5, false, Granularity::Channel)) == 13);
  CHECK(opset_for(7, scheme_of(4, true, Granularity::Channel)) == 21);
  CHECK(opset_for(13, scheme_of(4, true, Granularity::Tensor)) == 21);
  CHECK(opset_for(13, scheme_of(8, true, Granularity::Group, 8)) == 21);
  CHECK(opset_for(13, scheme_of(16, true, Granularity::Tensor)) == 21);
  CHECK(opset_for(22, scheme_of(4, true, Granularity::Tensor)) == 22);
}

TEST_CASE("where the operator set cannot be raised the next form that can be had is taken, and the reason is told") {
  const auto planned = [](int64_t opset, const QuantScheme& scheme) {
    OnnxFile file = small_mlp(opset);
    file.graph.nodes.push_back(node("Wonder", {"y"}, {"z"}, {}, "odd"));
    const Model model = on_grid(file.read(), "W1", scheme);
    const WritePlan plan = plan_write(model, Format::Onnx);
    CHECK(plan.opset == opset);
    check_exported(model, "W1", plan);
    return plan.weights[0];
  };
  const Storage four = planned(13, scheme_of(4, true, Granularity::Channel));
  CHECK(four.quantized);
  CHECK(four.dtype == DType::Int8);
  CHECK_MESSAGE(holds(four.note, "4-bit codes stored as int8"), four.note);
  CHECK_MESSAGE(holds(four.note, "node odd (Wonder)"), four.note);
  const Storage affine = planned(13, scheme_of(3, false, Granularity::Channel));
  CHECK(affine.dtype == DType::UInt8);
  for (const QuantScheme& scheme : {scheme_of(4, true, Granularity::Group), scheme_of(8, true, Granularity::Group),
                                    scheme_of(16, true, Granularity::Tensor)}) {
    const Storage full = planned(13, scheme);
    CHECK_FALSE(full.quantized);
    CHECK(full.dtype == DType::Float32);
    CHECK(full.bytes == 2048);
    CHECK_MESSAGE(holds(full.note, "stored as float32: it needs operator set 21, the model has 13"), full.note);
    CHECK_MESSAGE(holds(full.note, "node odd (Wonder)"), full.note);
  }
  CHECK_FALSE(planned(9, scheme_of(8, true, Granularity::Tensor)).quantized);
}

TEST_CASE("a model that names no operator set stays as it is") {
  OnnxFile file = small_mlp(0);
  const Model model = on_grid(file.read(), "W1", scheme_of(8, true, Granularity::Tensor));
  const WritePlan plan = plan_write(model, Format::Onnx);
  CHECK_FALSE(plan.weights[0].quantized);
  CHECK(holds(plan.weights[0].note, "does not say which operator set"));
  check_exported(model, "W1", plan);
}

TEST_CASE("a weight that integers would not make smaller stays as it is, with both sizes") {
  OnnxFile file;
  file.graph.nodes = {node("MatMul", {"x", "W"}, {"y"})};
  file.graph.initializers = {random_tensor("W", {4, 4})};
  file.graph.inputs = {value("x", kFloat, {-1, 4})};
  const Model model = on_grid(file.read(), "W", scheme_of(8, true, Granularity::Channel));
  const WritePlan plan = plan_write(model, Format::Onnx);
  CHECK_FALSE(plan.weights[0].quantized);
  CHECK(plan.weights[0].bytes == 64);
  CHECK_MESSAGE(holds(plan.weights[0].note, "as integers it would take "), plan.weights[0].note);
  check_exported(model, "W", plan);
}

TEST_CASE("halves are not replaced by 16-bit codes") {
  OnnxFile file;
  file.opset = 21;
  file.graph.nodes = {node("MatMul", {"x", "W"}, {"y"})};
  file.graph.initializers = {tensor("W", kFloat16, {64, 64}, std::string(8192, '\0'))};
  file.graph.inputs = {value("x", kFloat16, {-1, 64})};
  Model model = file.read();
  model.params[0].grid = QuantParams{scheme_of(16, true, Granularity::Tensor), {1.0f}, {0}};
  const WritePlan plan = plan_write(model, Format::Onnx);
  CHECK_FALSE(plan.weights[0].quantized);
  CHECK(holds(plan.weights[0].note, "16-bit codes are no smaller"));
}

TEST_CASE("a bfloat16 value whose nearest code means another value is written by a neighbouring code") {
  // Every value is made from a code, as stochastic rounding does. Near 1 bfloat16 has steps of 1/256, a little less
  // than this scale; a search over scales found that one of these 256 values rounds to where another code is nearest.
  OnnxFile file;
  file.opset = 21;
  file.graph.nodes = {node("MatMul", {"x", "W"}, {"y"})};
  file.graph.initializers = {tensor("W", 16, {16, 16}, std::string(512, '\0'))};
  file.graph.inputs = {value("x", 16, {-1, 16})};
  Model model = file.read();
  const float scale = 0.00400820002f;
  std::vector<float> values;
  for (int code = 0; code < 256; ++code) values.push_back(scale * static_cast<float>(code));
  model.params[0].value = from_floats(DType::BFloat16, {16, 16}, values);
  model.params[0].grid = QuantParams{scheme_of(8, false, Granularity::Tensor), {scale}, {0}};
  const WritePlan plan = plan_write(model, Format::Onnx);
  REQUIRE(plan.weights[0].quantized);
  check_exported(model, "W", plan);
}

TEST_CASE("where raising the operator set costs more than the codes save, the weights stay in full") {
  OnnxFile file;
  file.opset = 10;
  file.graph.nodes = {node("MatMul", {"x", "W"}, {"h0"})};
  for (int i = 0; i < 120; ++i) {  // each bound becomes a stored constant
    const float bound = static_cast<float>(i + 1);
    file.graph.nodes.push_back(node("Clip", {"h" + std::to_string(i)}, {"h" + std::to_string(i + 1)},
                                    {float_attribute("min", -bound), float_attribute("max", bound)}));
  }
  file.graph.initializers = {random_tensor("W", {24, 24})};
  file.graph.inputs = {value("x", kFloat, {-1, 24})};
  const Model model = on_grid(file.read(), "W", scheme_of(8, true, Granularity::Channel));
  const WritePlan plan = plan_write(model, Format::Onnx);
  CHECK_FALSE(plan.weights[0].quantized);
  CHECK(plan.opset == 10);
  REQUIRE(plan.notes.size() == 1);
  CHECK_MESSAGE(holds(plan.notes[0], "stored in full"), plan.notes[0]);
  CHECK(holds(plan.notes[0], std::to_string(written(model, plan).size())));
  check_exported(model, "W", plan);
}

TEST_CASE("names of the new initializers, values and nodes never collide with those of the model") {
  OnnxFile file = small_mlp(21);
  const Texts wanted = {"W1_quantized", "W1_scale", "W1_zero_point", "W1_dequantized",
                        "W1_shape",     "W1_cast",  "W1_reshape"};
  for (const std::string& name : wanted) file.graph.initializers.push_back(float_tensor(name, {1}, {1}));
  file.graph.nodes.push_back(node("Relu", {"y"}, {"W1_quantized_2"}, {}, "W1_dequantize"));
  for (const Granularity granularity : {Granularity::Channel, Granularity::Group}) {
    const Model model = on_grid(file.read(), "W1", scheme_of(4, false, granularity, 8));
    const WritePlan plan = plan_write(model, Format::Onnx);
    CHECK(plan.weights[0].quantized);
    const Model again = check_exported(model, "W1", plan);
    for (const std::string& name : wanted) CHECK(hex(Evaluator(again).value(name).bytes()) == "0000803F");
  }
}

TEST_CASE("a name that only a node's input has is not taken either: it may be a sparse initializer's") {
  OnnxFile file = small_mlp(13);
  file.graph.nodes.push_back(node("Add", {"y", "W1_scale"}, {"z"}));
  const Model model = on_grid(file.read(), "W1", scheme_of(8, true, Granularity::Tensor));
  const Model again = read_model(written(model), "again.onnx");
  for (const Initializer& each : again.graph->initializers) CHECK(each.name != "W1_scale");
}

// IR versions and operator sets that came together: docs/Versioning.md. Before IR version 4 initializers were inputs.
TEST_CASE(
    "files of old IR versions get a version that allows what is in them, and lose the input of a replaced weight") {
  OnnxFile file = small_mlp(8);
  file.ir_version = 3;
  file.graph.inputs.push_back(value("W1", kFloat, {32, 16}));
  file.graph.inputs.push_back(value("W2", kFloat, {32, 8}));
  CHECK(read_model(check_round_trip(file.encode()), "m").header->ir_version == 3);
  const Model model = on_grid(file.read(), "W1", scheme_of(8, true, Granularity::Channel));
  const Model again = check_exported(model, "W1", plan_write(model, Format::Onnx));
  CHECK(again.header->ir_version >= 7);
  std::set<std::string> inputs;
  for (const Value& each : again.graph->inputs) inputs.insert(each.name);
  CHECK(inputs == std::set<std::string>{"x", "W2"});
  OnnxFile late = small_mlp(13);
  late.ir_version = 7;
  const Model four = on_grid(late.read(), "W1", scheme_of(4, true, Granularity::Tensor));
  CHECK(read_model(written(four), "m").header->ir_version >= 10);
  late.ir_version = 11;
  CHECK(read_model(written(on_grid(late.read(), "W1", scheme_of(4, true, Granularity::Tensor))), "m")
            .header->ir_version == 11);
}

TEST_CASE("weights in Constant nodes and in subgraphs are replaced where they are") {
  GraphFile branch;
  branch.initializers = {random_tensor("inner", {32, 32})};
  branch.nodes = {node("Constant", {}, {"held"}, {tensor_attribute("value", random_tensor("own", {32, 32}))}),
                  node("MatMul", {"x", "inner"}, {"a"}), node("MatMul", {"a", "held"}, {"t"})};
  branch.outputs = {value("t", kFloat, {-1, 32})};
  OnnxFile file;
  file.graph.nodes = {node("Constant", {}, {"c"}, {tensor_attribute("value", random_tensor("own", {32, 32}))}),
                      node("MatMul", {"x", "c"}, {"m"}),
                      node("If", {"cond"}, {"y"}, {graph_attribute("then_branch", branch.encode())})};
  Model model = file.read();
  for (const char* name : {"c", "inner", "held"})
    model = on_grid(model, name, scheme_of(8, true, Granularity::Channel));
  const WritePlan plan = plan_write(model, Format::Onnx);
  const Model again = read_model(written(model, plan), "again.onnx");
  const Evaluator evaluator(again);
  for (const char* name : {"c", "inner", "held"})
    CHECK(hex(evaluator.value(name).bytes()) == hex(param(model, name).value.bytes()));
  for_each_graph(*again.graph, [&](const Graph& graph) {
    for (const Node& each : graph.nodes) CHECK(each.op != "Constant");
  });
}

TEST_CASE("a weight behind a Transpose keeps its place, its scales along the stored tensor's channels") {
  OnnxFile file;
  file.graph.nodes = {node("Transpose", {"W"}, {"t"}), node("MatMul", {"x", "t"}, {"y"})};
  file.graph.initializers = {random_tensor("W", {32, 48})};
  file.graph.inputs = {value("x", kFloat, {-1, 48})};
  const Model model = on_grid(file.read(), "W", scheme_of(8, true, Granularity::Channel));
  const Model again = check_exported(model, "W", plan_write(model, Format::Onnx));
  CHECK(param(again, "W_scale").value.shape() == Shape{32});
}

TEST_CASE("codes that would mean other values than the model's are never written") {
  Model model = on_grid(small_mlp().read(), "W1", scheme_of(8, true, Granularity::Channel));
  const WritePlan plan = plan_write(model, Format::Onnx);
  model.params[weight(model, "W1")->param].value.write<float>()[5] += 1e-3f;
  CHECK_THROWS_AS(write_model(model, plan).bytes(), std::logic_error);
}

TEST_CASE("real ONNX models come through a round trip unchanged") {
  for (const auto& path : data_files("onnx", {".onnx"}, 300'000)) {
    CAPTURE(path.string());
    const Bytes file = read_file(path);
    try {
      read_model(file, path.filename().string());
    } catch (const Error& error) {
      CHECK_MESSAGE(holds(error.message, "is missing; open it together with the model"), error.what());
      continue;
    }
    check_round_trip(file);
  }
}

// ---- safetensors ----

Model read_tensors(std::string_view header, std::string_view data) {
  return read_model(safetensors_file(header, data), "m.safetensors");
}

void check_refused(std::string_view header, std::string_view data, std::string_view where, std::string_view part) {
  const Error error = error_of([&] { read_tensors(header, data); });
  CAPTURE(std::string(error.what()));
  CHECK(error.code == ErrorCode::BadFile);
  CHECK(error.where == where);
  CHECK(holds(error.message, part));
}

TEST_CASE("safetensors: names, types, shapes, bytes, metadata and their order are kept") {
  const std::string header =
      R"({"__metadata__":{"format":"pt","z":"1","a":"ä\n"},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]},)"
      R"("a":{"dtype":"U8","shape":[1,1],"data_offsets":[0,1]},"none":{"dtype":"F16","shape":[0,3],"data_offsets":[9,9]},)"
      R"("s":{"dtype":"I64","shape":[],"data_offsets":[9,17]}}    )";
  const Model model = read_tensors(header, std::string("\x07\x00\x00\x80\x3F\x00\x00\x00\xC0", 9) + "12345678");
  CHECK(model.header->format == Format::Safetensors);
  CHECK(model.header->metadata ==
        std::vector<std::pair<std::string, std::string>>{{"format", "pt"}, {"z", "1"}, {"a", "ä\n"}});
  REQUIRE(model.params.size() == 4);
  CHECK(model.params[0].name == "b");
  CHECK(model.params[0].value.data<float>()[1] == -2);
  CHECK(model.params[1].name == "a");
  CHECK(hex(model.params[1].value.bytes()) == "07");
  CHECK(model.params[2].value.shape() == Shape{0, 3});
  CHECK(model.params[3].value.shape().empty());
  const Bytes once = written(model);
  const Model again = read_model(once, "m.safetensors");
  check_same(model, again);
  CHECK(text_of(once) == text_of(written(again)));
  // The data begins on a multiple of 8, as the reference implementation writes it.
  CHECK(std::to_integer<size_t>(once[0]) % 8 == 0);
}

TEST_CASE("safetensors: every type of the format") {
  const std::pair<const char*, DType> types[] = {{"F64", DType::Float64},        {"F32", DType::Float32},
                                                 {"F16", DType::Float16},        {"BF16", DType::BFloat16},
                                                 {"I64", DType::Int64},          {"I32", DType::Int32},
                                                 {"I16", DType::Int16},          {"I8", DType::Int8},
                                                 {"U64", DType::UInt64},         {"U32", DType::UInt32},
                                                 {"U16", DType::UInt16},         {"U8", DType::UInt8},
                                                 {"BOOL", DType::Bool},          {"F8_E4M3", DType::Float8E4M3FN},
                                                 {"F8_E5M2", DType::Float8E5M2}, {"F4", DType::Float4E2M1},
                                                 {"F8_E8M0", DType::Float8E8M0}, {"C64", DType::Complex64}};
  for (const auto& [name, dtype] : types) {
    CAPTURE(std::string(name));
    const std::string bytes(static_cast<size_t>(bits_of(dtype)) / 4, 'q');  // two elements
    const Model model = read_tensors(std::string(R"({"t":{"dtype":")") + name + R"(","shape":[2],"data_offsets":[0,)" +
                                         std::to_string(bytes.size()) + "]}}",
                                     bytes);
    CHECK(model.params.at(0).value.dtype() == dtype);
    check_same(model, read_model(written(model), "m.safetensors"));
  }
}

TEST_CASE("safetensors: an empty file of tensors is one") {
  CHECK(read_tensors("{}", "").params.empty());
  check_same(read_tensors("{}", ""), read_model(written(read_tensors("{}", "")), "m"));
}

TEST_CASE("safetensors: the header's length is held against the file") {
  const auto length = [](uint64_t claimed, std::string_view rest) {
    std::string out;
    for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(claimed >> (8 * i)));
    return bytes_of(out + std::string(rest));
  };
  for (const uint64_t claimed : {uint64_t{3}, uint64_t{100}, uint64_t{100'000'000}}) {
    const Error error = error_of([&] { read_model(length(claimed, "{}"), "m"); });
    CHECK(error.code == ErrorCode::BadFile);
    CHECK(error.where == "byte 0");
    CHECK(holds(error.message, std::to_string(claimed) + " bytes, the file has 2"));
  }
  // Beyond the reference implementation's limit the file is not taken for safetensors at all; called by name it is
  // refused.
  CHECK_FALSE(looks_like_safetensors(length(100'000'001, "{}")));
  CHECK(error_of([&] {
          read_safetensors(FileBytes(std::span<const std::byte>(length(100'000'001, "{}"))), "m");
        }).where == "byte 0");
  CHECK(error_of([&] {
          read_safetensors(FileBytes(std::span<const std::byte>(length(~uint64_t{0}, "{}"))), "m");
        }).where == "byte 0");
  CHECK(looks_like_safetensors(length(2, "{}")));
  CHECK_FALSE(looks_like_safetensors(bytes_of("\x02\0\0\0\0\0\0")));
  CHECK_THROWS_AS(read_model(length(1, "{}"), "m"), Error);
}

TEST_CASE("safetensors: headers that are not what they should be are refused with their place") {
  check_refused("{  ", "", "header", "not valid JSON");
  check_refused("{\"a\":1}", "", "a", "expected an object");
  check_refused(R"({"__metadata__":1})", "", "__metadata__", "expected an object");
  check_refused(R"({"__metadata__":{"a":1}})", "", "__metadata__.a", "expected a text");
  check_refused(R"({"t":{"shape":[1],"data_offsets":[0,4]}})", "abcd", "t", "no dtype");
  check_refused(R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", "abcd", "t", "no shape");
  check_refused(R"({"t":{"dtype":"F32","shape":[1]}})", "abcd", "t", "no data_offsets");
  check_refused(R"({"t":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", "abcd", "t", "unknown dtype \"F33\"");
  check_refused(R"({"t":{"dtype":5,"shape":[1],"data_offsets":[0,4]}})", "abcd", "t", "unknown dtype 5");
  check_refused(R"({"t":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", "abcd", "t", "expected a shape");
  for (const char* extent : {"-1", "1.5", "\"1\"", "null", "1e3", "99999999999999999999"}) {
    CAPTURE(extent);
    check_refused(std::string(R"({"t":{"dtype":"F32","shape":[)") + extent + R"(],"data_offsets":[0,4]}})", "abcd",
                  "t.shape", "whole number");
    check_refused(std::string(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,)") + extent + "]}}", "abcd",
                  "t.data_offsets", "whole number");
  }
  check_refused(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "abcd", "t", "two data_offsets");
  check_refused(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", "abcd", "t", "two data_offsets");
  check_refused(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":4}})", "abcd", "t", "two data_offsets");
  std::string extents = "1";
  for (int i = 0; i < 64; ++i) extents += ",1";
  check_refused(R"({"t":{"dtype":"F32","shape":[)" + extents + R"(],"data_offsets":[0,4]}})", "abcd", "t",
                "at most 64");
  check_refused(
      R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      "abcdefgh", "header", "\"t\" twice");
  check_refused(R"({"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "abcd", "header",
                "\"dtype\" twice");
}

TEST_CASE("safetensors: offsets outside, overlapping, with gaps, or of another size than the shape are refused") {
  const auto one = [](const char* shape, const char* offsets) {
    return std::string(R"({"t":{"dtype":"F32","shape":)") + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  check_refused(one("[1]", "[0,8]"), "abcd", "t", "outside the 4 bytes");
  check_refused(one("[1]", "[4,0]"), "abcd", "t", "outside");
  check_refused(one("[1]", "[18446744073709551612,18446744073709551615]"), "abcd", "t", "outside");
  check_refused(one("[2]", "[0,4]"), "abcd", "t", "shape 2 of F32 needs 8 bytes, data_offsets give 4");
  check_refused(one("[1]", "[0,3]"), "abcd", "t", "needs 4 bytes");
  const std::string huge = one("[4294967296,4294967296]", "[0,0]");
  CHECK_THROWS_AS(read_tensors(huge, ""), Error);
  CHECK_THROWS_AS(read_tensors(one("[4611686018427387904]", "[0,0]"), ""), Error);  // times 4 is 2^64
  const auto two = [](const char* first, const char* second) {
    return std::string(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)") + first +
           R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)" + second + "}}";
  };
  const auto at = [](const std::string& header, size_t byte) {
    return "byte " + std::to_string(8 + header.size() + byte);
  };
  check_refused(two("[0,4]", "[2,6]"), "abcdef", at(two("[0,4]", "[2,6]"), 2), "overlap");
  check_refused(two("[0,4]", "[0,4]"), "abcd", at(two("[0,4]", "[0,4]"), 0), "overlap");
  check_refused(two("[0,4]", "[5,9]"), "abcdefghi", at(two("[0,4]", "[5,9]"), 4), "belong to no tensor");
  check_refused(two("[1,5]", "[5,9]"), "abcdefghi", at(two("[1,5]", "[5,9]"), 0), "belong to no tensor");
  check_refused(two("[0,4]", "[4,8]"), "abcdefghi", at(two("[0,4]", "[4,8]"), 8), "belong to no tensor");
  CHECK(read_tensors(two("[4,8]", "[0,4]"), "abcdefgh").params[0].value.bytes()[0] == std::byte{'e'});
}

TEST_CASE(
    "safetensors writes quantized values in full and says so, and has no way to ONNX nor for types it does not know") {
  const Model plain =
      read_tensors(R"({"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})", std::string(16, '\0'));
  const Model model = on_grid(plain, "w", scheme_of(8, true, Granularity::Channel));
  const WritePlan plan = plan_write(model, Format::Safetensors);
  CHECK(plan.opset == 0);
  CHECK_FALSE(plan.weights.at(0).quantized);
  CHECK(plan.weights[0].bytes == 16);
  CHECK(holds(plan.weights[0].note, "written in full"));
  CHECK(plan.notes.size() == 1);
  CHECK(hex(read_model(written(model, plan), "m").params[0].value.bytes()) == hex(model.params[0].value.bytes()));
  CHECK(plan_write(plain, Format::Safetensors).notes.empty());
  const Error error = error_of([&] { plan_write(plain, Format::Onnx); });
  CHECK(error.code == ErrorCode::Unsupported);
  CHECK(error.where == "format");

  OnnxFile file;
  file.graph.initializers = {tensor("four", kInt4, {2}, "a")};
  const Model onnx = file.read();
  const Error unknown = error_of([&] { write_model(onnx, plan_write(onnx, Format::Safetensors)); });
  CHECK(unknown.code == ErrorCode::Unsupported);
  CHECK(unknown.where == "four");
}

TEST_CASE("an ONNX model's tensors can be written as safetensors") {
  const Model model = small_mlp().read();
  const Model again = read_model(written(model, plan_write(model, Format::Safetensors)), "m.safetensors");
  REQUIRE(again.params.size() == model.params.size());
  for (size_t i = 0; i < model.params.size(); ++i) check_same(model.params[i], again.params[i]);
}

TEST_CASE("real safetensors files come through a round trip unchanged") {
  for (const auto& path : data_files("safetensors", {".safetensors"}, 4'000'000)) {
    CAPTURE(path.string());
    check_round_trip(read_file(path));
  }
}

}  // namespace
}  // namespace nibble
