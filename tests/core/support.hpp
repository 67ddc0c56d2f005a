// What the tests of core/ share: seeded numbers, ONNX and safetensors files made in memory, and the optional data
// folder. Field numbers and type codes of ONNX are written down here a second time, from onnx.proto, so that a slip in
// formats/onnx_fields.hpp cannot hide behind itself.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <protozero/pbf_writer.hpp>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "core/base/context.hpp"
#include "core/base/error.hpp"
#include "core/formats/formats.hpp"

namespace nibble::test {

using Bytes = std::vector<std::byte>;

inline Bytes bytes_of(std::string_view text) {
  Bytes bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}
inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The elements' own bytes, little-endian as on every machine that runs this.
template <class T>
std::string raw(std::span<const T> values) {
  return text_of(std::as_bytes(values));
}
template <class T>
std::string raw(const std::vector<T>& values) {
  return raw(std::span<const T>(values));
}

// ---- numbers ----

/// A seeded stream.
struct Random {
  uint64_t key = 0, at = 0;
  uint64_t bits() { return mix64(key, at++); }
  /// 0 to count - 1; count is at least 1.
  size_t below(size_t count) { return static_cast<size_t>(bits() % count); }
  float uniform() { return uniform24(key, at++); }
  /// About normal, mean 0 and deviation 1: the sum of twelve uniform numbers less six.
  float normal() {
    float sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
};

inline std::vector<float> random_floats(size_t count, uint64_t seed, float deviation = 1) {
  Random random{mix64(seed, count)};
  std::vector<float> values(count);
  for (float& value : values) value = deviation * random.normal();
  return values;
}

inline bool same_bits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

/// The Error that `call` throws; fails the test where it throws none.
template <class Call>
Error error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  FAIL("expected an Error, none was thrown");
  return Error(ErrorCode::BadData, "", "");
}

inline bool holds(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// ---- ONNX files in memory ----
// Every message is the std::string of its encoding, so that a test can also add fields that no builder knows.

/// TensorProto.DataType.
enum Type : int32_t {
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kUint32 = 12,
  kUint64 = 13,
  kComplex64 = 14,
  kComplex128 = 15,
  kBfloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUint4 = 21,
  kInt4 = 22,
  kFloat4E2M1 = 23,
  kFloat8E8M0 = 24,
  kUint2 = 25,
  kInt2 = 26,
};

using Dims = std::vector<int64_t>;
using Texts = std::vector<std::string>;

/// TensorProto with dims (1), data_type (2), name (8) and nothing else.
inline std::string tensor_head(std::string_view name, int32_t type, const Dims& dims) {
  std::string out;
  protozero::pbf_writer writer(out);
  for (const int64_t extent : dims) writer.add_int64(1, extent);
  writer.add_int32(2, type);
  if (!name.empty()) writer.add_string(8, name.data(), name.size());
  return out;
}
/// With raw_data (9).
inline std::string tensor(std::string_view name, int32_t type, const Dims& dims, std::string_view bytes) {
  std::string out = tensor_head(name, type, dims);
  protozero::pbf_writer(out).add_bytes(9, bytes.data(), bytes.size());
  return out;
}
inline std::string float_tensor(std::string_view name, const Dims& dims, const std::vector<float>& values) {
  return tensor(name, kFloat, dims, raw(values));
}
/// Seeded by its name.
inline std::string random_tensor(std::string_view name, const Dims& dims) {
  size_t count = 1, seed = 0;
  for (const int64_t extent : dims) count *= static_cast<size_t>(extent);
  for (const char c : name) seed = seed * 31 + static_cast<unsigned char>(c);
  return float_tensor(name, dims, random_floats(count, seed));
}
inline std::string int64_tensor(std::string_view name, const std::vector<int64_t>& values) {
  return tensor(name, kInt64, {static_cast<int64_t>(values.size())}, raw(values));
}
/// External data (13, entries of key 1 and value 2) and data_location (14) EXTERNAL.
inline std::string external_tensor(std::string_view name, int32_t type, const Dims& dims,
                                   const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string out = tensor_head(name, type, dims);
  protozero::pbf_writer writer(out);
  for (const auto& [key, value] : entries) {
    std::string entry;
    protozero::pbf_writer fields(entry);
    fields.add_string(1, key);
    fields.add_string(2, value);
    writer.add_message(13, entry);
  }
  writer.add_int32(14, 1);
  return out;
}

// AttributeProto: name 1, f 2, i 3, s 4, t 5, g 6, floats 7, ints 8, strings 9, type 20.
inline std::string attribute(std::string_view name, int64_t value) {
  std::string out;
  protozero::pbf_writer writer(out);
  writer.add_string(1, name.data(), name.size());
  writer.add_int64(3, value);
  writer.add_int32(20, 2);
  return out;
}
inline std::string float_attribute(std::string_view name, float value) {
  std::string out;
  protozero::pbf_writer writer(out);
  writer.add_string(1, name.data(), name.size());
  writer.add_float(2, value);
  writer.add_int32(20, 1);
  return out;
}
inline std::string text_attribute(std::string_view name, std::string_view value) {
  std::string out;
  protozero::pbf_writer writer(out);
  writer.add_string(1, name.data(), name.size());
  writer.add_bytes(4, value.data(), value.size());
  writer.add_int32(20, 3);
  return out;
}
inline std::string attribute(std::string_view name, const std::vector<int64_t>& values) {
  std::string out;
  protozero::pbf_writer writer(out);
  writer.add_string(1, name.data(), name.size());
  for (const int64_t value : values) writer.add_int64(8, value);
  writer.add_int32(20, 7);
  return out;
}
inline std::string floats_attribute(std::string_view name, const std::vector<float>& values) {
  std::string out;
  protozero::pbf_writer writer(out);
  writer.add_string(1, name.data(), name.size());
  for (const float value : values) writer.add_float(7, value);
  writer.add_int32(20, 6);
  return out;
}
inline std::string tensor_attribute(std::string_view name, std::string_view message) {
  std::string out;
  protozero::pbf_writer writer(out);
  writer.add_string(1, name.data(), name.size());
  writer.add_message(5, message.data(), message.size());
  writer.add_int32(20, 4);
  return out;
}
inline std::string graph_attribute(std::string_view name, std::string_view message) {
  std::string out;
  protozero::pbf_writer writer(out);
  writer.add_string(1, name.data(), name.size());
  writer.add_message(6, message.data(), message.size());
  writer.add_int32(20, 5);
  return out;
}

/// NodeProto: input 1, output 2, name 3, op_type 4, attribute 5, domain 7.
inline std::string node(std::string_view op, const Texts& inputs, const Texts& outputs, const Texts& attributes = {},
                        std::string_view name = "", std::string_view domain = "") {
  std::string out;
  protozero::pbf_writer writer(out);
  for (const std::string& input : inputs) writer.add_string(1, input);
  for (const std::string& output : outputs) writer.add_string(2, output);
  if (!name.empty()) writer.add_string(3, name.data(), name.size());
  writer.add_string(4, op.data(), op.size());
  for (const std::string& attribute : attributes) writer.add_message(5, attribute);
  if (!domain.empty()) writer.add_string(7, domain.data(), domain.size());
  return out;
}

/// ValueInfoProto of a tensor type: name 1, type 2 {tensor_type 1 {elem_type 1, shape 2 {dim 1 {value 1, param 2}}}}.
/// A negative extent becomes the named extent "N".
inline std::string value(std::string_view name, int32_t type, const Dims& dims) {
  std::string shape;
  for (const int64_t extent : dims) {
    std::string dim;
    if (extent >= 0) {
      protozero::pbf_writer(dim).add_int64(1, extent);
    } else {
      protozero::pbf_writer(dim).add_string(2, "N");
    }
    protozero::pbf_writer(shape).add_message(1, dim);
  }
  std::string tensor_type;
  protozero::pbf_writer(tensor_type).add_int32(1, type);
  protozero::pbf_writer(tensor_type).add_message(2, shape);
  std::string type_message;
  protozero::pbf_writer(type_message).add_message(1, tensor_type);
  std::string out;
  protozero::pbf_writer writer(out);
  writer.add_string(1, name.data(), name.size());
  writer.add_message(2, type_message);
  return out;
}

/// GraphProto: node 1, name 2, initializer 5, input 11, output 12, value_info 13.
struct GraphFile {
  Texts nodes, initializers, inputs, outputs, values;
  std::string name = "g";
  std::string extra;  ///< encoded fields put at the end
  std::string encode() const {
    std::string out;
    protozero::pbf_writer writer(out);
    for (const std::string& message : nodes) writer.add_message(1, message);
    if (!name.empty()) writer.add_string(2, name);
    for (const std::string& message : initializers) writer.add_message(5, message);
    for (const std::string& message : inputs) writer.add_message(11, message);
    for (const std::string& message : outputs) writer.add_message(12, message);
    for (const std::string& message : values) writer.add_message(13, message);
    return out + extra;
  }
};

/// ModelProto: ir_version 1, graph 7, opset_import 8 {domain 1, version 2}.
struct OnnxFile {
  GraphFile graph;
  int64_t opset = 13, ir_version = 8;
  std::vector<std::pair<std::string, int64_t>> more_opsets = {};
  std::string extra = {};
  Bytes encode() const {
    std::string out;
    protozero::pbf_writer writer(out);
    writer.add_int64(1, ir_version);
    writer.add_message(7, graph.encode());
    const auto import = [&](const std::string& domain, int64_t version) {
      std::string message;
      if (!domain.empty()) protozero::pbf_writer(message).add_string(1, domain);
      protozero::pbf_writer(message).add_int64(2, version);
      writer.add_message(8, message);
    };
    if (opset) import("", opset);
    for (const auto& [domain, version] : more_opsets) import(domain, version);
    return bytes_of(out + extra);
  }
  Model read(const ExternalFiles& external = {}) const { return read_model(encode(), "test.onnx", external); }
};

/// A two-layer network: x [N, 16] -> Gemm (transB) with W1 [32, 16] -> Relu -> MatMul with W2 [32, 8] -> y.
inline OnnxFile small_mlp(int64_t opset = 13) {
  OnnxFile file;
  file.opset = opset;
  file.graph.nodes = {node("Gemm", {"x", "W1", "b1"}, {"h"}, {attribute("transB", int64_t{1})}, "first"),
                      node("Relu", {"h"}, {"r"}, {}, "relu"), node("MatMul", {"r", "W2"}, {"y"}, {}, "second")};
  file.graph.initializers = {random_tensor("W1", {32, 16}), random_tensor("b1", {32}), random_tensor("W2", {32, 8})};
  file.graph.inputs = {value("x", kFloat, {-1, 16})};
  file.graph.outputs = {value("y", kFloat, {-1, 8})};
  return file;
}

/// A network with a convolution: x [N, 3, 8, 8] -> Conv W [8, 3, 3, 3] -> Relu -> Flatten -> Gemm V [10, 288] -> y.
inline OnnxFile small_cnn(int64_t opset = 13) {
  OnnxFile file;
  file.opset = opset;
  file.graph.nodes = {node("Conv", {"x", "W"}, {"c"}, {attribute("kernel_shape", std::vector<int64_t>{3, 3})}, "conv"),
                      node("Relu", {"c"}, {"r"}, {}, "relu"), node("Flatten", {"r"}, {"f"}, {}, "flatten"),
                      node("Gemm", {"f", "V"}, {"y"}, {attribute("transB", int64_t{1})}, "dense")};
  file.graph.initializers = {random_tensor("W", {8, 3, 3, 3}), random_tensor("V", {10, 288})};
  file.graph.inputs = {value("x", kFloat, {-1, 3, 8, 8})};
  file.graph.outputs = {value("y", kFloat, {-1, 10})};
  return file;
}

/// The param of that name; fails the test where there is none.
inline const Param& param(const Model& model, std::string_view name) {
  const auto found = std::find_if(model.params.begin(), model.params.end(),
                                  [&](const Param& candidate) { return candidate.name == name; });
  REQUIRE_MESSAGE(found != model.params.end(), "no param ", std::string(name));
  return *found;
}
/// The weight of that name, or null.
inline const Weight* weight(const Model& model, std::string_view name) {
  for (const Weight& candidate : *model.weights) {
    if (model.params[candidate.param].name == name) return &candidate;
  }
  return nullptr;
}

// ---- safetensors files in memory ----

/// 8 bytes of little-endian header length, the header's JSON text, the data.
inline Bytes safetensors_file(std::string_view header, std::string_view data) {
  std::string out;
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
  out += header;
  out += data;
  return bytes_of(out);
}

// ---- the optional data folder ----

/// $NIBBLE_DATA, or shared/data beside the repository, or none.
inline std::optional<std::filesystem::path> data_folder() {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (const char* given = std::getenv("NIBBLE_DATA")) {
    return fs::is_directory(given, ignored) ? std::optional(fs::path(given)) : std::nullopt;
  }
  const fs::path beside = fs::path("..") / "shared" / "data";
  const fs::path repository = fs::path(__FILE__).parent_path() / ".." / "..";
  if (fs::is_directory(repository / beside, ignored)) return repository / beside;
  fs::path at = fs::current_path(ignored);
  for (int up = 0; up < 4; ++up, at = at.parent_path()) {
    if (fs::is_directory(at / beside, ignored)) return at / beside;
  }
  return std::nullopt;
}

inline Bytes read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return bytes_of(text);
}

/// The regular files below `folder` of the data folder with one of these extensions (".onnx") and at most `most` bytes,
/// sorted; says so and gives none where the folder is absent.
inline std::vector<std::filesystem::path> data_files(const std::string& folder, const Texts& extensions,
                                                     uintmax_t most = UINTMAX_MAX) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  const std::optional<fs::path> root = data_folder();
  std::error_code failed;
  if (!root || !fs::is_directory(*root / folder, failed)) {
    MESSAGE("no data folder ", folder, ": nothing of it is checked (set NIBBLE_DATA)");
    return files;
  }
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(*root / folder, failed)) {
    const bool wanted = extensions.empty() || std::find(extensions.begin(), extensions.end(),
                                                        entry.path().extension().string()) != extensions.end();
    if (wanted && entry.is_regular_file(failed) && entry.file_size(failed) <= most) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// One file of the data folder, or none, which is said.
inline std::optional<Bytes> data_file(const std::string& path) {
  const std::optional<std::filesystem::path> root = data_folder();
  std::error_code ignored;
  if (root && std::filesystem::is_regular_file(*root / path, ignored)) return read_file(*root / path);
  MESSAGE("no data file ", path, ": nothing of it is checked (set NIBBLE_DATA)");
  return std::nullopt;
}

}  // namespace nibble::test
