#include "core/formats/onnx_tensor.hpp"

#include <algorithm>
#include <cstring>

#include "core/formats/onnx_fields.hpp"
#include "core/formats/onnx_wire.hpp"

namespace nibble::onnx {

namespace {

void append_floats(const protozero::data_view& view, std::vector<float>& out, const std::string& where) {
  if (view.size() % sizeof(float)) bad(where, "float_data of " + std::to_string(view.size()) + " bytes");
  const size_t old = out.size();
  out.resize(old + view.size() / sizeof(float));
  if (view.size()) std::memcpy(out.data() + old, view.data(), view.size());
}

/// float_data. A packed field is little-endian floats one after the other, which is what raw_data is: where it is the
/// only one, it is left where it lies.
void read_floats(pbf_reader& reader, RawTensor& raw, const std::string& where) {
  const bool packed = reader.wire_type() == pbf_wire_type::length_delimited;
  if (packed && raw.floats.empty() && !raw.packed_floats) {
    raw.packed_floats = reader.get_view();
    return;
  }
  if (raw.packed_floats) append_floats(*raw.packed_floats, raw.floats, where);
  raw.packed_floats.reset();
  if (packed) {
    append_floats(reader.get_view(), raw.floats, where);
  } else {
    want(pbf_wire_type::fixed32, reader, where);
    raw.floats.push_back(reader.get_float());
  }
}

std::pair<std::string, std::string> read_entry(const protozero::data_view& message) {
  std::pair<std::string, std::string> entry;
  std::string ignored;
  read_fields<EntryField>(message, ignored, [&](EntryField field, pbf_reader& reader) {
    switch (field) {
      case EntryField::Key: entry.first = string_field(reader, "external_data.key"); return true;
      case EntryField::Value: entry.second = string_field(reader, "external_data.value"); return true;
    }
    return false;
  });
  return entry;
}

uint64_t natural(const std::string& text, const std::string& where) {
  if (text.empty() || text.size() > 18 ||
      !std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    bad(where, "expected a whole number, got \"" + text.substr(0, 40) + "\"");
  }
  return std::stoull(text);
}

void check_size(DType dtype, const Shape& shape, size_t bytes, const std::string& name) {
  const size_t need = bytes_for(dtype, elements_of(shape, name));
  if (bytes != need) {
    bad(name, "shape " + to_string(shape) + " of " + std::string(to_string(dtype)) + " needs " + std::to_string(need) +
                  " bytes, the file has " + std::to_string(bytes));
  }
}

Tensor copied(DType dtype, const Shape& shape, std::span<const std::byte> bytes, const std::string& name) {
  check_size(dtype, shape, bytes.size(), name);
  return Tensor::copy_of(dtype, shape, bytes);
}

template <class T>
void append_low_bytes(const std::vector<T>& values, size_t count, std::vector<std::byte>& out) {
  out.reserve(values.size() * count);
  for (const T value : values) {
    for (size_t i = 0; i < count; ++i)
      out.push_back(static_cast<std::byte>(static_cast<uint64_t>(value) >> (8 * i) & 0xff));
  }
}

}  // namespace

RawTensor TensorReader::parse(const protozero::data_view& message, const std::string& where, std::string& own_name,
                              std::string& extra) {
  RawTensor raw;
  read_fields<TensorField>(message, extra, [&](TensorField field, pbf_reader& reader) {
    switch (field) {
      case TensorField::Dims:
        repeated(reader, raw.dims, where, &pbf_reader::get_int64, &pbf_reader::get_packed_int64);
        return true;
      case TensorField::DataType: raw.type = int_field(reader, where); return true;
      case TensorField::Name: own_name = string_field(reader, where); return true;
      case TensorField::RawData: raw.bytes = bytes_field(reader, where); return true;
      case TensorField::FloatData: read_floats(reader, raw, where); return true;
      case TensorField::DoubleData:
        repeated(reader, raw.doubles, where, &pbf_reader::get_double, &pbf_reader::get_packed_double);
        return true;
      case TensorField::Int32Data:
        repeated(reader, raw.int32s, where, &pbf_reader::get_int32, &pbf_reader::get_packed_int32);
        return true;
      case TensorField::Int64Data:
        repeated(reader, raw.int64s, where, &pbf_reader::get_int64, &pbf_reader::get_packed_int64);
        return true;
      case TensorField::Uint64Data:
        repeated(reader, raw.uint64s, where, &pbf_reader::get_uint64, &pbf_reader::get_packed_uint64);
        return true;
      case TensorField::StringData: ++raw.strings; return false;
      case TensorField::DataLocation: raw.location = int_field(reader, where); return true;
      case TensorField::ExternalData: raw.external.push_back(read_entry(bytes_field(reader, where))); return true;
    }
    return false;
  });
  return raw;
}

Tensor TensorReader::build(const RawTensor& raw, const std::string& name) {
  const std::optional<DType> dtype = dtype_of_code(raw.type);
  if (!dtype || raw.type < 0 || raw.type > INT32_MAX) bad(name, "unknown tensor type " + std::to_string(raw.type));
  Shape shape;
  constexpr size_t kMostExtents = 64;  // NumPy's limit; operators stop far below, and so may loops over extents
  if (raw.dims.size() > kMostExtents) {
    bad(name,
        "a shape of " + std::to_string(raw.dims.size()) + " extents, expected at most " + std::to_string(kMostExtents));
  }
  for (int64_t extent : raw.dims) {
    if (extent < 0 || static_cast<uint64_t>(extent) > SIZE_MAX)
      bad(name, "extent " + std::to_string(extent) + " of the shape is not possible");
    shape.push_back(static_cast<size_t>(extent));
  }
  const size_t elements = elements_of(shape, name);
  if (*dtype == DType::String) {
    if (raw.strings != elements)
      bad(name, "shape " + to_string(shape) + " needs " + std::to_string(elements) + " texts, got " +
                    std::to_string(raw.strings));
    return Tensor::allocate(*dtype, shape);
  }
  constexpr int64_t kExternal = 1;
  if (raw.location == kExternal) return from_external(raw, *dtype, shape, name);
  if (raw.bytes) return borrowed(*dtype, shape, *raw.bytes, name);
  return from_typed_fields(raw, *dtype, shape, name);
}

Tensor TensorReader::borrowed(DType dtype, const Shape& shape, const protozero::data_view& view,
                              const std::string& name) const {
  check_size(dtype, shape, view.size(), name);
  // The key and the length before a field of a kilobyte and more are three bytes, and have been read.
  return Tensor::borrow(dtype, shape, file_, std::as_bytes(std::span(view.data(), view.size())), 3);
}

// onnx.proto, TensorProto: which typed field holds which type. Small types lie one to an int32, 4-bit and 2-bit types
// one packed byte to an int32.
Tensor TensorReader::from_typed_fields(const RawTensor& raw, DType dtype, const Shape& shape,
                                       const std::string& name) const {
  std::vector<std::byte> bytes;
  switch (dtype) {
    case DType::Float32:
    case DType::Complex64:
      if (raw.packed_floats) return borrowed(dtype, shape, *raw.packed_floats, name);
      return copied(dtype, shape, std::as_bytes(std::span(raw.floats)), name);
    case DType::Float64:
    case DType::Complex128: return copied(dtype, shape, std::as_bytes(std::span(raw.doubles)), name);
    case DType::Int64: return copied(dtype, shape, std::as_bytes(std::span(raw.int64s)), name);
    case DType::UInt64: return copied(dtype, shape, std::as_bytes(std::span(raw.uint64s)), name);
    case DType::Int32: return copied(dtype, shape, std::as_bytes(std::span(raw.int32s)), name);
    case DType::UInt32: append_low_bytes(raw.uint64s, 4, bytes); break;
    case DType::Int16:
    case DType::UInt16:
    case DType::Float16:
    case DType::BFloat16: append_low_bytes(raw.int32s, 2, bytes); break;
    default: append_low_bytes(raw.int32s, 1, bytes);
  }
  return copied(dtype, shape, bytes, name);
}

Tensor TensorReader::from_external(const RawTensor& raw, DType dtype, const Shape& shape, const std::string& name) {
  std::string location;
  uint64_t offset = 0;
  std::optional<uint64_t> length;
  for (const auto& [key, value] : raw.external) {
    if (key == "location") location = value;
    if (key == "offset") offset = natural(value, name + ".external_data.offset");
    if (key == "length") length = natural(value, name + ".external_data.length");
  }
  const std::string file = location.substr(location.find_last_of("/\\") + 1);
  if (file.empty()) bad(name, "its external data names no file");
  const auto found = external_.find(file);
  if (found == external_.end()) {
    bad(name, "its external data file \"" + file + "\" is missing; open it together with the model");
  }
  const std::span<const std::byte> all = found->second.span();
  const uint64_t size = length.value_or(bytes_for(dtype, elements_of(shape, name)));
  if (offset > all.size() || size > all.size() - offset) {
    bad(name, "its external data, bytes " + std::to_string(offset) + " to " + std::to_string(offset + size) + " of \"" +
                  file + "\", lies outside of that file of " + std::to_string(all.size()) + " bytes");
  }
  external_bytes_ += static_cast<size_t>(size);
  check_size(dtype, shape, static_cast<size_t>(size), name);
  return Tensor::borrow(dtype, shape, found->second,
                        all.subspan(static_cast<size_t>(offset), static_cast<size_t>(size)), 0);
}

}  // namespace nibble::onnx
