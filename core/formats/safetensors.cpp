// safetensors: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' bytes.
// https://github.com/huggingface/safetensors, README, section "Format".
#include <algorithm>
#include <cstring>

#include "core/base/json.hpp"
#include "core/formats/formats.hpp"

namespace nibble {

namespace {

// The reference implementation's limit; a larger header is a broken or hostile file.
constexpr uint64_t kMostHeaderBytes = 100'000'000;

struct TypeName {
  std::string_view name;
  DType dtype;
};
constexpr TypeName kTypes[] = {
    {"F32", DType::Float32},
    {"F64", DType::Float64},
    {"F16", DType::Float16},
    {"BF16", DType::BFloat16},
    {"I8", DType::Int8},
    {"U8", DType::UInt8},
    {"I16", DType::Int16},
    {"U16", DType::UInt16},
    {"I32", DType::Int32},
    {"U32", DType::UInt32},
    {"I64", DType::Int64},
    {"U64", DType::UInt64},
    {"BOOL", DType::Bool},
    {"F8_E4M3", DType::Float8E4M3FN},
    {"F8_E5M2", DType::Float8E5M2},
    {"F8_E8M0", DType::Float8E8M0},
    {"F4", DType::Float4E2M1},
    {"C64", DType::Complex64},
};

uint64_t little_endian_u64(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = 8; i-- > 0;) value = value << 8 | std::to_integer<uint64_t>(bytes[i]);
  return value;
}

[[noreturn]] void bad(const std::string& where, const std::string& message) {
  fail(ErrorCode::BadFile, where, message);
}

uint64_t natural(const Json& value, const std::string& where) {
  if (!value.is_number_unsigned()) bad(where, "expected a whole number of at least 0, got " + value.dump());
  return value.get<uint64_t>();
}

}  // namespace

bool looks_like_safetensors(std::span<const std::byte> file) {
  if (file.size() < 10 || file[8] != std::byte{'{'}) return false;
  // An ONNX file's first bytes are small field tags; its ninth byte can be '{' by chance, its length field cannot.
  return little_endian_u64(file) <= kMostHeaderBytes;
}

Model read_safetensors(FileBytes owner, std::string_view name) {
  const std::span<const std::byte> file = owner.span();
  const uint64_t header_bytes = little_endian_u64(file);
  if (header_bytes > kMostHeaderBytes || header_bytes > file.size() - 8) {
    bad("byte 0", "the header is said to take " + std::to_string(header_bytes) + " bytes, the file has " +
                      std::to_string(file.size() - 8) + " after its length");
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, header_bytes);
  const std::span<const std::byte> data = file.subspan(8 + header_bytes);
  // Closing an object costs a pass over its parent's entries, so their number is bounded before any is read.
  constexpr ptrdiff_t kMostEntries = 20'000;
  if (std::count(text.begin(), text.end(), '{') > kMostEntries ||
      std::count(text.begin(), text.end(), ':') > 4 * kMostEntries) {
    fail(ErrorCode::Unsupported, "header",
         "names more than " + std::to_string(kMostEntries) + " tensors, more than Nibble opens; split the file");
  }
  const Json json = parse_json(text, ErrorCode::BadFile, "header");
  if (!json.is_object()) bad("header", "expected an object");

  auto header = std::make_shared<Header>();
  header->format = Format::Safetensors;
  header->name = name;
  header->file_bytes = file.size();
  Model model;
  std::vector<std::array<uint64_t, 2>> ranges;
  for (const auto& [key, entry] : json.items()) {
    if (!entry.is_object()) bad(key, "expected an object");
    if (key == "__metadata__") {
      for (const auto& [word, meaning] : entry.items()) {
        if (!meaning.is_string()) bad("__metadata__." + word, "expected a text");
        header->metadata.emplace_back(word, meaning.get<std::string>());
      }
      continue;
    }
    for (const char* field : {"dtype", "shape", "data_offsets"}) {
      if (!entry.contains(field)) bad(key, std::string("the header gives no ") + field);
    }
    const Json& type = entry["dtype"];
    const auto known = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeName& candidate) {
      return type.is_string() && candidate.name == type.get<std::string>();
    });
    if (known == std::end(kTypes)) bad(key, "unknown dtype " + type.dump());
    if (!entry["shape"].is_array() || entry["shape"].size() > 64) bad(key, "expected a shape of at most 64 extents");
    Shape shape;
    for (const Json& extent : entry["shape"]) {
      const uint64_t value = natural(extent, key + ".shape");
      if (value > SIZE_MAX) bad(key + ".shape", "too large for this machine");
      shape.push_back(static_cast<size_t>(value));
    }
    if (!entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2) bad(key, "expected two data_offsets");
    const uint64_t begin = natural(entry["data_offsets"][0], key + ".data_offsets");
    const uint64_t end = natural(entry["data_offsets"][1], key + ".data_offsets");
    if (begin > end || end > data.size()) {
      bad(key, "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "] are outside the " +
                   std::to_string(data.size()) + " bytes of data");
    }
    const size_t need = bytes_for(known->dtype, elements_of(shape, key));
    if (need != end - begin) {
      bad(key, "shape " + to_string(shape) + " of " + type.get<std::string>() + " needs " + std::to_string(need) +
                   " bytes, data_offsets give " + std::to_string(end - begin));
    }
    ranges.push_back({begin, end});
    model.params.push_back(
        {key, Tensor::borrow(known->dtype, shape, owner, data.subspan(begin, end - begin), 0), {}, {}});
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t covered = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin < covered) bad("byte " + std::to_string(8 + header_bytes + begin), "two tensors overlap");
    if (begin > covered) bad("byte " + std::to_string(8 + header_bytes + covered), "bytes that belong to no tensor");
    covered = end;
  }
  if (covered != data.size())
    bad("byte " + std::to_string(8 + header_bytes + covered), "bytes that belong to no tensor");

  auto graph = std::make_shared<Graph>();
  for (size_t i = 0; i < model.params.size(); ++i) graph->initializers.push_back({model.params[i].name, i, ""});
  model.weights = std::make_shared<const std::vector<Weight>>(find_weights(*graph, model.params));
  model.graph = std::move(graph);
  model.header = std::move(header);
  return model;
}

Rope write_safetensors(const Model& model) {
  Json json = Json::object();
  if (!model.header->metadata.empty()) {
    Json& metadata = json["__metadata__"] = Json::object();
    for (const auto& [key, value] : model.header->metadata) metadata[key] = value;
  }
  Rope data;
  for (size_t i = 0; i < model.params.size(); ++i) {
    const Param& param = model.params[i];
    const DType dtype = param.value.dtype();
    const auto known =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeName& type) { return type.dtype == dtype; });
    if (known == std::end(kTypes)) {
      fail(ErrorCode::Unsupported, param.name,
           "safetensors has no " + std::string(to_string(dtype)) + " type; write ONNX");
    }
    const size_t begin = data.size();
    data.append(param.value, Source{i, StoredArray::Values, dtype, false, false});
    json[param.name] = {{"dtype", known->name}, {"shape", param.value.shape()}, {"data_offsets", {begin, data.size()}}};
  }
  std::string header = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  header.append((8 - header.size() % 8) % 8, ' ');  // so that the data is aligned, as the reference implementation does
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(uint64_t{header.size()} >> (8 * i));
  Rope file;
  file.append(length + header);
  file.append(std::move(data));
  return file;
}

}  // namespace nibble
