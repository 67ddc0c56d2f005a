// ONNX to Model. Messages are read field by field; what we do not read is kept as encoded bytes (`extra`), so a file
// written again still has its functions, metadata, annotations and fields younger than this program.
#include <protozero/pbf_builder.hpp>
#include <unordered_map>
#include <unordered_set>

#include "core/base/error.hpp"
#include "core/formats/formats.hpp"
#include "core/formats/onnx_fields.hpp"
#include "core/formats/onnx_tensor.hpp"
#include "core/formats/onnx_wire.hpp"

namespace nibble {

namespace {

using namespace onnx;

// Subgraphs in subgraphs. ONNX Runtime's own test has 30; the stack of a WebAssembly module bears several hundred.
constexpr int kDeepestNesting = 100;

class Reader {
 public:
  Reader(FileBytes file, const ExternalFiles& external) : tensors_(std::move(file), external) {}

  Model read(std::string_view name) {
    const std::span<const std::byte> file = tensors_.file().span();
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
        case ModelField::MetadataProps:
          header->metadata.push_back(read_entry(bytes_field(reader, "metadata_props")));
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
    header->file_bytes += tensors_.external_bytes();
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

  static std::pair<std::string, std::string> read_entry(const protozero::data_view& message) {
    std::pair<std::string, std::string> entry;
    std::string ignored;
    read_fields<EntryField>(message, ignored, [&](EntryField field, pbf_reader& reader) {
      switch (field) {
        case EntryField::Key: entry.first = string_field(reader, "metadata_props.key"); return true;
        case EntryField::Value: entry.second = string_field(reader, "metadata_props.value"); return true;
      }
      return false;
    });
    return entry;
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
    const std::string where = path + (given_name.empty() ? "initializer" : given_name);
    const RawTensor raw = TensorReader::parse(message, where, own_name, extra);
    const std::string name = unique_name(given_name.empty() ? own_name : given_name, path);
    model_.params.push_back({name, tensors_.build(raw, name), {}, {}});
    return model_.params.size() - 1;
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

  // Kept as it is encoded; what is read of it is for the user to see.
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
                                         value.dtype = dtype_of_code(int_field(in, value.name));
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

  TensorReader tensors_;
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
