// ONNX to Model. Messages are read field by field; what we do not read is kept as encoded bytes (`extra`), so a file
// written again still has its functions, metadata, annotations and fields younger than this program.
#include <algorithm>
#include <cstring>
#include <protozero/pbf_builder.hpp>
#include <protozero/pbf_reader.hpp>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>

#include "core/base/error.hpp"
#include "core/formats/formats.hpp"
#include "core/formats/onnx_fields.hpp"

namespace nibble {

namespace {

using namespace onnx;
using protozero::pbf_reader;
using protozero::pbf_wire_type;

// Subgraphs in subgraphs. ONNX Runtime's own test has 30; the stack of a WebAssembly module bears several hundred.
constexpr int kDeepestNesting = 100;

[[noreturn]] void bad(const std::string& where, const std::string& message) {
  fail(ErrorCode::BadFile, where, message);
}

std::string text_of(const protozero::data_view& view) { return {view.data(), view.size()}; }

/// Where pointers have 32 bits, protozero takes a length of 2 GiB and more for a negative one and walks backwards; and
/// it cuts lengths to 32 bits everywhere. So every length is held against what is left before protozero follows it.
void check_length(const pbf_reader& reader) {
  if (reader.wire_type() != pbf_wire_type::length_delimited) return;
  const protozero::data_view rest = reader.data();
  const char* at = rest.data();
  const char* const end = at + rest.size();
  const uint64_t length = protozero::decode_varint(&at, end);
  if (length > static_cast<uint64_t>(end - at)) throw protozero::end_of_buffer_exception{};
}

/// Walks the fields of one message. `handle(field, reader)` returns true where it has read the field; any other field
/// is skipped and its encoded bytes are appended to `extra`.
template <class Field, class Handle>
void read_fields(const protozero::data_view& message, std::string& extra, const Handle& handle) {
  pbf_reader reader(message);
  const char* const end = message.data() + message.size();
  const char* start = message.data();
  while (reader.next()) {
    check_length(reader);
    if (!handle(static_cast<Field>(reader.tag()), reader)) {
      reader.skip();
      const char* stop = end - reader.length();
      extra.append(start, stop);
    }
    start = end - reader.length();
  }
}

void want(pbf_wire_type expected, const pbf_reader& reader, const std::string& where) {
  if (reader.wire_type() != expected) {
    bad(where, "field " + std::to_string(reader.tag()) + " has wire type " +
                   std::to_string(static_cast<int>(reader.wire_type())) + " where onnx.proto has " +
                   std::to_string(static_cast<int>(expected)));
  }
}

protozero::data_view bytes_field(pbf_reader& reader, const std::string& where) {
  want(pbf_wire_type::length_delimited, reader, where);
  return reader.get_view();
}

std::string string_field(pbf_reader& reader, const std::string& where) { return text_of(bytes_field(reader, where)); }

int64_t int_field(pbf_reader& reader, const std::string& where) {
  want(pbf_wire_type::varint, reader, where);
  return reader.get_int64();
}

/// A repeated scalar, packed or not: appends to `out`. Get is a member of pbf_reader for one element, Packed for many.
template <class T, class Get, class Packed>
void repeated(pbf_reader& reader, std::vector<T>& out, const std::string& where, Get get, Packed packed) {
  if (reader.wire_type() == pbf_wire_type::length_delimited) {
    for (const auto value : (reader.*packed)()) out.push_back(static_cast<T>(value));
  } else {
    constexpr pbf_wire_type kOne = std::is_same_v<T, float>    ? pbf_wire_type::fixed32
                                   : std::is_same_v<T, double> ? pbf_wire_type::fixed64
                                                               : pbf_wire_type::varint;
    want(kOne, reader, where);
    out.push_back(static_cast<T>((reader.*get)()));
  }
}

class Reader {
 public:
  Reader(FileBytes file, const ExternalFiles& external) : file_(std::move(file)), external_(external) {}

  Model read(std::string_view name) {
    const std::span<const std::byte> file = file_.span();
    auto header = std::make_shared<Header>();
    header->format = Format::Onnx;
    header->name = name;
    header->file_bytes = file.size();
    std::string producer_version;
    std::vector<protozero::data_view> graphs;
    const protozero::data_view message(reinterpret_cast<const char*>(file.data()), file.size());
    read_fields<ModelField>(message, header->extra, [&](ModelField field, pbf_reader& reader) {
      switch (field) {
        case ModelField::IrVersion: header->ir_version = int_field(reader, "ir_version"); return true;
        case ModelField::OpsetImport:
          header->opsets.push_back(read_opset(bytes_field(reader, "opset_import")));
          return true;
        case ModelField::Graph: graphs.push_back(bytes_field(reader, "graph")); return true;
        // Looked at, and left among the fields that are carried through.
        case ModelField::ProducerName: header->producer = peek_text(reader); return false;
        case ModelField::ProducerVersion: producer_version = peek_text(reader); return false;
        case ModelField::Functions: ++header->functions; return false;
      }
      return false;
    });
    if (graphs.size() != 1) {
      bad(std::string(name), graphs.empty()
                                 ? "this is not an ONNX model: it holds no graph"
                                 : "the model holds " + std::to_string(graphs.size()) + " graphs, expected one");
    }
    if (!header->producer.empty() && !producer_version.empty()) header->producer += " " + producer_version;
    model_.graph = read_graph(graphs[0], "", 0);
    header->file_bytes += external_bytes_;
    model_.weights = std::make_shared<const std::vector<Weight>>(find_weights(*model_.graph, model_.params));
    model_.header = std::move(header);
    return std::move(model_);
  }

 private:
  static std::string peek_text(const pbf_reader& reader) {
    pbf_reader copy = reader;
    return copy.wire_type() == pbf_wire_type::length_delimited ? text_of(copy.get_view()) : "";
  }

  static std::pair<std::string, int64_t> read_opset(const protozero::data_view& message) {
    std::pair<std::string, int64_t> opset{"", 0};
    std::string ignored;
    read_fields<OpsetField>(message, ignored, [&](OpsetField field, pbf_reader& reader) {
      switch (field) {
        case OpsetField::Domain: opset.first = string_field(reader, "opset_import.domain"); return true;
        case OpsetField::Version: opset.second = int_field(reader, "opset_import.version"); return true;
      }
      return false;
    });
    return opset;
  }

  std::shared_ptr<const Graph> read_graph(const protozero::data_view& message, const std::string& path, int depth) {
    if (depth > kDeepestNesting) bad(path, "subgraphs nested deeper than " + std::to_string(kDeepestNesting));
    auto graph = std::make_shared<Graph>();
    std::unordered_set<std::string> defined;
    const std::string where = path.empty() ? "graph" : path;
    read_fields<GraphField>(message, graph->extra, [&](GraphField field, pbf_reader& reader) {
      switch (field) {
        case GraphField::Name: graph->name = string_field(reader, where); return true;
        case GraphField::Node:
          graph->nodes.push_back(read_node(bytes_field(reader, where), path, graph->nodes.size(), depth));
          return true;
        case GraphField::Initializer: {
          Initializer initializer;
          const protozero::data_view tensor = bytes_field(reader, where);
          initializer.param = read_tensor(tensor, path, "", initializer.name, initializer.extra);
          if (!defined.insert(initializer.name).second) bad(path + initializer.name, "two initializers have this name");
          graph->initializers.push_back(std::move(initializer));
          return true;
        }
        case GraphField::Input: graph->inputs.push_back(read_value(bytes_field(reader, where))); return true;
        case GraphField::Output: graph->outputs.push_back(read_value(bytes_field(reader, where))); return true;
        case GraphField::ValueInfo: graph->values.push_back(read_value(bytes_field(reader, where))); return true;
      }
      return false;
    });
    return graph;
  }

  Node read_node(const protozero::data_view& message, const std::string& path, size_t index, int depth) {
    Node node;
    // A first look for the names, because attributes (read in the second) want them in their messages.
    const std::string place = path + "node " + std::to_string(index);
    std::string ignored;
    read_fields<NodeField>(message, ignored, [&](NodeField field, pbf_reader& reader) {
      switch (field) {
        case NodeField::Input: node.inputs.push_back(string_field(reader, place)); return true;
        case NodeField::Output: node.outputs.push_back(string_field(reader, place)); return true;
        case NodeField::Name: node.name = string_field(reader, place); return true;
        case NodeField::OpType: node.op = string_field(reader, place); return true;
        case NodeField::Domain: node.domain = string_field(reader, place); return true;
        case NodeField::Attribute: break;
      }
      reader.skip();  // not kept here: attributes can hold whole subgraphs
      return true;
    });
    if (node.domain == "ai.onnx") node.domain.clear();
    const std::string label = node.name.empty() ? (node.outputs.empty() ? node.op : node.outputs[0]) : node.name;
    read_fields<NodeField>(message, node.extra, [&](NodeField field, pbf_reader& reader) {
      switch (field) {
        case NodeField::Attribute:
          node.attributes.push_back(read_attribute(bytes_field(reader, place), path, label, node, depth));
          return true;
        case NodeField::Input:
        case NodeField::Output:
        case NodeField::Name:
        case NodeField::OpType:
        case NodeField::Domain: reader.skip(); return true;
      }
      return false;
    });
    return node;
  }

  Attribute read_attribute(const protozero::data_view& message, const std::string& path, const std::string& label,
                           const Node& node, int depth) {
    Attribute attribute;
    AttributeType type = AttributeType::Undefined;
    float number = 0;
    int64_t integer = 0;
    std::string text;
    std::vector<float> floats;
    std::vector<int64_t> ints;
    std::vector<std::string> strings;
    std::optional<protozero::data_view> tensor, graph;
    AttributeType seen = AttributeType::Undefined;
    const std::string where = path + label;
    read_fields<AttributeField>(message, attribute.extra, [&](AttributeField field, pbf_reader& reader) {
      switch (field) {
        case AttributeField::Name: attribute.name = string_field(reader, where); return true;
        case AttributeField::Type: type = static_cast<AttributeType>(int_field(reader, where)); return true;
        case AttributeField::F:
          want(pbf_wire_type::fixed32, reader, where);
          number = reader.get_float();
          seen = AttributeType::Float;
          return true;
        case AttributeField::I:
          integer = int_field(reader, where);
          seen = AttributeType::Int;
          return true;
        case AttributeField::S:
          text = string_field(reader, where);
          seen = AttributeType::String;
          return true;
        case AttributeField::T:
          tensor = bytes_field(reader, where);
          seen = AttributeType::Tensor;
          return true;
        case AttributeField::G:
          graph = bytes_field(reader, where);
          seen = AttributeType::Graph;
          return true;
        case AttributeField::Floats:
          repeated(reader, floats, where, &pbf_reader::get_float, &pbf_reader::get_packed_float);
          seen = AttributeType::Floats;
          return true;
        case AttributeField::Ints:
          repeated(reader, ints, where, &pbf_reader::get_int64, &pbf_reader::get_packed_int64);
          seen = AttributeType::Ints;
          return true;
        case AttributeField::Strings:
          strings.push_back(string_field(reader, where));
          seen = AttributeType::Strings;
          return true;
      }
      return false;
    });
    if (type == AttributeType::Undefined) type = seen;  // IR versions 1 and 2 had no type field
    switch (type) {
      case AttributeType::Float: attribute.value = number; break;
      case AttributeType::Int: attribute.value = integer; break;
      case AttributeType::String: attribute.value = std::move(text); break;
      case AttributeType::Floats: attribute.value = std::move(floats); break;
      case AttributeType::Ints: attribute.value = std::move(ints); break;
      case AttributeType::Strings: attribute.value = std::move(strings); break;
      case AttributeType::Tensor: {
        if (!tensor) bad(where, "attribute " + attribute.name + " holds no tensor");
        // The name that the tensor itself carries means nothing in an attribute; a Constant is known by its output.
        const bool constant = node.op == "Constant" && !node.outputs.empty();
        std::string own_name;
        ParamRef held;
        held.param =
            read_tensor(*tensor, path, constant ? node.outputs[0] : label + "." + attribute.name, own_name, held.extra);
        if (!own_name.empty()) {
          protozero::pbf_builder<TensorField>(held.extra).add_string(TensorField::Name, own_name);
        }
        attribute.value = std::move(held);
        break;
      }
      case AttributeType::Graph: {
        if (!graph) bad(where, "attribute " + attribute.name + " holds no graph");
        attribute.value = read_graph(*graph, path + label + "/" + attribute.name + "/", depth + 1);
        break;
      }
      default:
        // Lists of tensors or graphs, sparse tensors, types: all in `extra`; their type code joins them.
        if (type != AttributeType::Undefined) {
          protozero::pbf_builder<AttributeField>(attribute.extra)
              .add_int32(AttributeField::Type, static_cast<int32_t>(type));
        }
    }
    return attribute;
  }

  /// Reads a tensor into a new param and returns its index. `given_name` names a tensor that is known by another name
  /// than its own; `own_name` receives the message's.
  size_t read_tensor(const protozero::data_view& message, const std::string& path, const std::string& given_name,
                     std::string& own_name, std::string& extra) {
    RawTensor raw;
    read_fields<TensorField>(message, extra, [&](TensorField field, pbf_reader& reader) {
      const std::string where = path + (given_name.empty() ? "initializer" : given_name);
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
    const std::string name = unique_name(given_name.empty() ? own_name : given_name, path);
    model_.params.push_back({name, build(raw, name), {}, {}});
    return model_.params.size() - 1;
  }

  struct RawTensor {
    std::vector<int64_t> dims;
    int64_t type = 0, location = 0;
    std::optional<protozero::data_view> bytes, packed_floats;
    std::vector<float> floats;
    std::vector<double> doubles;
    std::vector<int32_t> int32s;
    std::vector<int64_t> int64s;
    std::vector<uint64_t> uint64s;
    size_t strings = 0;
    std::vector<std::pair<std::string, std::string>> external;
  };

  /// float_data. A packed field is little-endian floats one after the other, which is what raw_data is: where it is the
  /// only one, it is left where it lies.
  static void read_floats(pbf_reader& reader, RawTensor& raw, const std::string& where) {
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

  static void append_floats(const protozero::data_view& view, std::vector<float>& out, const std::string& where) {
    if (view.size() % sizeof(float)) bad(where, "float_data of " + std::to_string(view.size()) + " bytes");
    const size_t old = out.size();
    out.resize(old + view.size() / sizeof(float));
    if (view.size()) std::memcpy(out.data() + old, view.data(), view.size());
  }

  std::string unique_name(const std::string& name, const std::string& path) {
    // Sibling subgraphs may use the same names; the path tells them apart, and where that fails a number.
    if (names_.emplace(name, 1).second) return name;
    const std::string longer = path + name;
    if (names_.emplace(longer, 1).second) return longer;
    for (;;) {
      std::string numbered = longer + "#" + std::to_string(++names_[longer]);
      if (names_.emplace(numbered, 1).second) return numbered;
    }
  }

  Tensor build(const RawTensor& raw, const std::string& name) {
    const std::optional<DType> dtype = dtype_of(static_cast<int32_t>(raw.type));
    if (!dtype || raw.type < 0 || raw.type > INT32_MAX) bad(name, "unknown tensor type " + std::to_string(raw.type));
    Shape shape;
    constexpr size_t kMostExtents = 64;  // NumPy's limit; operators stop far below, and so may loops over extents
    if (raw.dims.size() > kMostExtents) {
      bad(name, "a shape of " + std::to_string(raw.dims.size()) + " extents, expected at most " +
                    std::to_string(kMostExtents));
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

  static void check_size(DType dtype, const Shape& shape, size_t bytes, const std::string& name) {
    const size_t need = bytes_for(dtype, elements_of(shape, name));
    if (bytes != need) {
      bad(name, "shape " + to_string(shape) + " of " + std::string(to_string(dtype)) + " needs " +
                    std::to_string(need) + " bytes, the file has " + std::to_string(bytes));
    }
  }

  Tensor borrowed(DType dtype, const Shape& shape, const protozero::data_view& view, const std::string& name) const {
    check_size(dtype, shape, view.size(), name);
    // The key and the length before a field of a kilobyte and more are three bytes, and have been read.
    return Tensor::borrow(dtype, shape, file_, std::as_bytes(std::span(view.data(), view.size())), 3);
  }

  static Tensor copied(DType dtype, const Shape& shape, std::span<const std::byte> bytes, const std::string& name) {
    check_size(dtype, shape, bytes.size(), name);
    return Tensor::copy_of(dtype, shape, bytes);
  }

  // onnx.proto, TensorProto: which typed field holds which type. Small types lie one to an int32, 4-bit and 2-bit types
  // one packed byte to an int32.
  Tensor from_typed_fields(const RawTensor& raw, DType dtype, const Shape& shape, const std::string& name) const {
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

  template <class T>
  static void append_low_bytes(const std::vector<T>& values, size_t count, std::vector<std::byte>& out) {
    out.reserve(values.size() * count);
    for (const T value : values) {
      for (size_t i = 0; i < count; ++i)
        out.push_back(static_cast<std::byte>(static_cast<uint64_t>(value) >> (8 * i) & 0xff));
    }
  }

  Tensor from_external(const RawTensor& raw, DType dtype, const Shape& shape, const std::string& name) {
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
      bad(name, "its external data, bytes " + std::to_string(offset) + " to " + std::to_string(offset + size) +
                    " of \"" + file + "\", lies outside of that file of " + std::to_string(all.size()) + " bytes");
    }
    external_bytes_ += static_cast<size_t>(size);
    check_size(dtype, shape, static_cast<size_t>(size), name);
    return Tensor::borrow(dtype, shape, found->second,
                          all.subspan(static_cast<size_t>(offset), static_cast<size_t>(size)), 0);
  }

  static uint64_t natural(const std::string& text, const std::string& where) {
    if (text.empty() || text.size() > 18 ||
        !std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      bad(where, "expected a whole number, got \"" + text.substr(0, 40) + "\"");
    }
    return std::stoull(text);
  }

  static std::pair<std::string, std::string> read_entry(const protozero::data_view& message) {
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

  // A value that does not parse is kept encoded all the same: its type matters to a runtime, not to us.
  static Value read_value(const protozero::data_view& message) {
    Value value;
    value.encoded = text_of(message);
    std::string ignored;
    std::optional<protozero::data_view> type;
    read_fields<ValueField>(message, ignored, [&](ValueField field, pbf_reader& reader) {
      switch (field) {
        case ValueField::Name: value.name = string_field(reader, "value"); return true;
        case ValueField::Type: type = bytes_field(reader, value.name); return true;
      }
      return false;
    });
    if (!type) return value;
    read_fields<TypeField>(*type, ignored, [&](TypeField field, pbf_reader& reader) {
      if (field != TypeField::TensorType) return false;
      read_fields<TensorTypeField>(bytes_field(reader, value.name), ignored,
                                   [&](TensorTypeField inner, pbf_reader& in) {
                                     switch (inner) {
                                       case TensorTypeField::ElemType:
                                         value.dtype = dtype_of(static_cast<int32_t>(int_field(in, value.name)));
                                         return true;
                                       case TensorTypeField::Shape:
                                         read_shape(bytes_field(in, value.name), value);
                                         return true;
                                     }
                                     return false;
                                   });
      return true;
    });
    return value;
  }

  static void read_shape(const protozero::data_view& message, Value& value) {
    value.ranked = true;
    std::string ignored;
    read_fields<ShapeField>(message, ignored, [&](ShapeField field, pbf_reader& reader) {
      if (field != ShapeField::Dim) return false;
      auto& extent = value.shape.emplace_back();
      read_fields<DimField>(bytes_field(reader, value.name), ignored, [&](DimField inner, pbf_reader& in) {
        switch (inner) {
          case DimField::Value: extent = int_field(in, value.name); return true;
          case DimField::Param: extent = string_field(in, value.name); return true;
        }
        return false;
      });
      return true;
    });
  }

  FileBytes file_;
  const ExternalFiles& external_;
  size_t external_bytes_ = 0;
  std::unordered_map<std::string, int> names_;  // and the last number given to it
  Model model_;
};

}  // namespace

Model read_onnx(FileBytes file, std::string_view name, const ExternalFiles& external) {
  try {
    return Reader(std::move(file), external).read(name);
  } catch (const protozero::exception& error) {
    fail(ErrorCode::BadFile, std::string(name),
         std::string("this is not an ONNX model, or it is damaged: its protobuf encoding breaks off (") + error.what() +
             ")");
  }
}

}  // namespace nibble
