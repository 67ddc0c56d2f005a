// Model to ONNX: first what will be written is planned (which operator set, which weight as integers), then encoded.
#include <algorithm>
#include <protozero/pbf_builder.hpp>
#include <unordered_map>
#include <unordered_set>

#include "core/base/error.hpp"
#include "core/formats/onnx_fields.hpp"
#include "core/formats/onnx_internal.hpp"

namespace nibble {

namespace onnx {

namespace {

// A field that holds a message.
template <class Field>
void append_message(Rope& out, Field field, Rope message) {
  std::string head;
  protozero::add_varint_to_buffer(&head, uint64_t{static_cast<uint32_t>(field)} << 3 | 2);
  protozero::add_varint_to_buffer(&head, message.size());
  out.append(std::move(head));
  out.append(std::move(message));
}

template <class Field>
void append_text(Rope& out, Field field, const std::string& text) {
  Rope inner;
  inner.append(text);
  append_message(out, field, std::move(inner));
}

std::string tensor_head(const std::string& name, DType dtype, const Shape& shape) {
  std::string head;
  protozero::pbf_builder<TensorField> tensor(head);
  for (const size_t extent : shape) tensor.add_int64(TensorField::Dims, static_cast<int64_t>(extent));
  tensor.add_int32(TensorField::DataType, code_of(dtype));
  if (!name.empty()) tensor.add_string(TensorField::Name, name);
  return head;
}

template <class Field>
void append_raw(Rope& out, Field field, size_t size, std::function<Tensor()> make, std::optional<Source> source) {
  std::string head;
  protozero::add_varint_to_buffer(&head, uint64_t{static_cast<uint32_t>(field)} << 3 | 2);
  protozero::add_varint_to_buffer(&head, size);
  out.append(std::move(head));
  out.append(size, std::move(make), source);
}

/// The values as varints where that is smaller than raw, else nothing. Shapes and axes are small numbers in eight
/// bytes.
template <class T>
std::string as_varints(const Tensor& tensor) {
  std::string varints;
  for (const T value : tensor.data<T>()) {
    protozero::add_varint_to_buffer(&varints, static_cast<uint64_t>(static_cast<int64_t>(value)));
    if (varints.size() >= tensor.bytes().size()) return {};
  }
  return varints;
}

/// `param` is the tensor's index among the model's.
Rope encode_tensor(const std::string& name, size_t param, const Tensor& tensor, const std::string& extra) {
  Rope out;
  out.append(tensor_head(name, tensor.dtype(), tensor.shape()));
  // Texts are in `extra`; everything else is written in the form that takes least room, whichever field it was read
  // from.
  if (tensor.dtype() == DType::Int64 || tensor.dtype() == DType::Int32) {
    const bool wide = tensor.dtype() == DType::Int64;
    if (std::string varints = wide ? as_varints<int64_t>(tensor) : as_varints<int32_t>(tensor); !varints.empty()) {
      append_text(out, wide ? TensorField::Int64Data : TensorField::Int32Data, varints);
      out.append(extra);
      return out;
    }
  }
  if (tensor.dtype() != DType::String) {
    const Source source{param, StoredArray::Values, tensor.dtype(), false, false};
    append_raw(
        out, TensorField::RawData, tensor.bytes().size(), [tensor] { return tensor; }, source);
  }
  out.append(extra);
  return out;
}

void encode_plain_attribute(const Attribute& attribute, std::string& out) {
  protozero::pbf_builder<AttributeField> builder(out);
  builder.add_string(AttributeField::Name, attribute.name);
  const auto type = [&](AttributeType code) { builder.add_int32(AttributeField::Type, static_cast<int32_t>(code)); };
  if (const auto* number = std::get_if<float>(&attribute.value)) {
    builder.add_float(AttributeField::F, *number);
    type(AttributeType::Float);
  } else if (const auto* integer = std::get_if<int64_t>(&attribute.value)) {
    builder.add_int64(AttributeField::I, *integer);
    type(AttributeType::Int);
  } else if (const auto* text = std::get_if<std::string>(&attribute.value)) {
    builder.add_bytes(AttributeField::S, *text);
    type(AttributeType::String);
  } else if (const auto* floats = std::get_if<std::vector<float>>(&attribute.value)) {
    for (const float value : *floats) builder.add_float(AttributeField::Floats, value);
    type(AttributeType::Floats);
  } else if (const auto* ints = std::get_if<std::vector<int64_t>>(&attribute.value)) {
    for (const int64_t value : *ints) builder.add_int64(AttributeField::Ints, value);
    type(AttributeType::Ints);
  } else if (const auto* strings = std::get_if<std::vector<std::string>>(&attribute.value)) {
    for (const std::string& value : *strings) builder.add_bytes(AttributeField::Strings, value);
    type(AttributeType::Strings);
  }
}

/// The entry as the file had it; one of a model made in memory is encoded from its type and shape.
std::string encode_value(const Value& value) {
  if (!value.encoded.empty()) return value.encoded;
  std::string type;
  if (value.dtype) {
    std::string tensor;
    protozero::pbf_builder<TensorTypeField> tensor_builder(tensor);
    tensor_builder.add_int32(TensorTypeField::ElemType, code_of(*value.dtype));
    if (value.ranked) {
      std::string shape;
      for (const auto& extent : value.shape) {
        std::string dim;
        protozero::pbf_builder<DimField> dim_builder(dim);
        if (const int64_t* fixed = std::get_if<int64_t>(&extent)) dim_builder.add_int64(DimField::Value, *fixed);
        if (const std::string* named = std::get_if<std::string>(&extent))
          dim_builder.add_string(DimField::Param, *named);
        protozero::pbf_builder<ShapeField>(shape).add_message(ShapeField::Dim, dim);
      }
      tensor_builder.add_message(TensorTypeField::Shape, shape);
    }
    protozero::pbf_builder<TypeField>(type).add_message(TypeField::TensorType, tensor);
  }
  std::string out;
  protozero::pbf_builder<ValueField> builder(out);
  builder.add_string(ValueField::Name, value.name);
  if (!type.empty()) builder.add_message(ValueField::Type, type);
  return out;
}

/// Encodes a node; `held` encodes the attributes that hold a tensor or a graph.
Rope encode_node(const Node& node, const std::function<Rope(const Attribute&)>& held) {
  Rope out;
  std::string head;
  protozero::pbf_builder<NodeField> builder(head);
  for (const std::string& input : node.inputs) builder.add_string(NodeField::Input, input);
  for (const std::string& output : node.outputs) builder.add_string(NodeField::Output, output);
  if (!node.name.empty()) builder.add_string(NodeField::Name, node.name);
  builder.add_string(NodeField::OpType, node.op);
  if (!node.domain.empty()) builder.add_string(NodeField::Domain, node.domain);
  out.append(std::move(head));
  for (const Attribute& attribute : node.attributes) {
    Rope encoded;
    std::string plain;
    encode_plain_attribute(attribute, plain);
    encoded.append(std::move(plain));
    if (std::holds_alternative<ParamRef>(attribute.value) ||
        std::holds_alternative<std::shared_ptr<const Graph>>(attribute.value)) {
      encoded.append(held(attribute));
    }
    encoded.append(attribute.extra);
    append_message(out, NodeField::Attribute, std::move(encoded));
  }
  out.append(node.extra);
  return out;
}

Rope encode_initializer(const QdqInitializer& initializer) {
  Rope out;
  out.append(tensor_head(initializer.name, initializer.dtype, initializer.shape));
  append_raw(out, TensorField::RawData, bytes_for(initializer.dtype, elements_of(initializer.shape)), initializer.make,
             initializer.source);
  return out;
}

/// The oldest IR version that may name an operator set (docs/Versioning.md, "Released Versions").
int64_t ir_version_for(int64_t opset) {
  constexpr std::pair<int64_t, int64_t> kReleases[] = {{21, 10}, {19, 9}, {15, 8}, {12, 7}, {11, 6}, {10, 5}, {9, 4}};
  for (const auto& [from, ir] : kReleases) {
    if (opset >= from) return ir;
  }
  return 3;
}

class Encoder {
 public:
  Encoder(const Model& model, const std::vector<Storage>& storages) : model_(model) {
    for (size_t i = 0; i < model.weights->size(); ++i) {
      if (storages[i].quantized)
        quantized_.emplace((*model.weights)[i].param, std::pair(&(*model.weights)[i], storages[i].dtype));
    }
    for_each_graph(*model.graph, [&](const Graph& graph) {
      for (const Node& node : graph.nodes) {
        names_.insert(node.outputs.begin(), node.outputs.end());
        // Among the inputs are sparse initializers, which are not looked into.
        names_.insert(node.inputs.begin(), node.inputs.end());
        names_.insert(node.name);
      }
      for (const Initializer& initializer : graph.initializers) names_.insert(initializer.name);
      for (const Value& value : graph.inputs) names_.insert(value.name);
    });
  }

  Rope encode() {
    Rope out;
    std::string head;
    protozero::pbf_builder<ModelField> builder(head);
    int64_t ir_version = model_.header->ir_version;
    // Before IR version 4 every initializer had to be a graph input too; the new ones are not.
    if (!quantized_.empty()) ir_version = std::max({ir_version, int64_t{4}, ir_version_for(opset_of(*model_.header))});
    builder.add_int64(ModelField::IrVersion, ir_version);
    // A file that was read has its producer among the fields that are carried through.
    if (model_.header->extra.empty() && !model_.header->producer.empty())
      builder.add_string(ModelField::ProducerName, model_.header->producer);
    out.append(std::move(head));
    out.append(model_.header->extra);
    append_message(out, ModelField::Graph, encode_graph(*model_.graph));
    for (const auto& [domain, version] : model_.header->opsets) {
      std::string opset;
      protozero::pbf_builder<OpsetField> entry(opset);
      if (!domain.empty()) entry.add_string(OpsetField::Domain, domain);
      entry.add_int64(OpsetField::Version, version);
      append_text(out, ModelField::OpsetImport, opset);
    }
    for (const auto& [key, value] : model_.header->metadata) {
      std::string text;
      protozero::pbf_builder<EntryField> entry(text);
      entry.add_string(EntryField::Key, key);
      entry.add_string(EntryField::Value, value);
      append_text(out, ModelField::MetadataProps, text);
    }
    return out;
  }

  /// What one weight adds to the file as integers and as it is: the sizes between which the plan chooses.
  std::pair<size_t, size_t> sizes(const Weight& weight, DType codes) {
    const Param& param = model_.params[weight.param];
    const Qdq qdq = build(param, weight, param.name, codes);
    Rope integers, plain;
    append_qdq(integers, qdq);
    append_message(plain, GraphField::Initializer, encode_tensor(param.name, weight.param, param.value, ""));
    return {integers.size(), plain.size()};
  }

  size_t payload(const Weight& weight, DType codes) {
    const Param& param = model_.params[weight.param];
    return build(param, weight, param.name, codes).payload_bytes;
  }

 private:
  Qdq build(const Param& param, const Weight& weight, const std::string& name, DType codes) {
    return build_qdq(param, weight, name, codes, [this](const std::string& wanted) {
      std::string unused = wanted;
      int& last = last_number_.try_emplace(wanted, 1).first->second;
      while (!names_.insert(unused).second) unused = wanted + "_" + std::to_string(++last);
      return unused;
    });
  }

  static void append_qdq(Rope& out, const Qdq& qdq) {
    for (const QdqInitializer& initializer : qdq.initializers)
      append_message(out, GraphField::Initializer, encode_initializer(initializer));
    for (const Node& node : qdq.nodes) append_message(out, GraphField::Node, encode_node(node, {}));
  }

  const std::pair<const Weight*, DType>* quantized(size_t param) const {
    const auto found = quantized_.find(param);
    return found == quantized_.end() ? nullptr : &found->second;
  }

  Rope encode_graph(const Graph& graph) {
    Rope out;
    std::unordered_set<std::string_view> replaced;
    // The dequantizing nodes come first: they depend on initializers only.
    for (const Initializer& initializer : graph.initializers) {
      if (const auto* how = quantized(initializer.param)) {
        append_qdq(out, build(model_.params[initializer.param], *how->first, initializer.name, how->second));
        replaced.insert(initializer.name);
      }
    }
    std::unordered_set<const Node*> dropped;
    for (const Node& node : graph.nodes) {
      const Attribute* value = node.op == "Constant" && node.domain.empty() ? find_attribute(node, "value") : nullptr;
      const ParamRef* held = value ? std::get_if<ParamRef>(&value->value) : nullptr;
      if (const auto* how = held ? quantized(held->param) : nullptr) {
        append_qdq(out, build(model_.params[held->param], *how->first, node.outputs[0], how->second));
        dropped.insert(&node);
      }
    }
    for (const Node& node : graph.nodes) {
      if (!dropped.count(&node))
        append_message(out, GraphField::Node,
                       encode_node(node, [this](const Attribute& attribute) { return encode_held(attribute); }));
    }
    if (!graph.name.empty()) append_text(out, GraphField::Name, graph.name);
    for (const Initializer& initializer : graph.initializers) {
      if (replaced.count(initializer.name)) continue;
      append_message(out, GraphField::Initializer,
                     encode_tensor(initializer.name, initializer.param, model_.params[initializer.param].value,
                                   initializer.extra));
    }
    for (const Value& value : graph.inputs) {
      if (!replaced.count(value.name)) append_text(out, GraphField::Input, encode_value(value));
    }
    for (const Value& value : graph.outputs) append_text(out, GraphField::Output, encode_value(value));
    for (const Value& value : graph.values) append_text(out, GraphField::ValueInfo, encode_value(value));
    out.append(graph.extra);
    return out;
  }

  Rope encode_held(const Attribute& attribute) {
    Rope out;
    std::string type;
    protozero::pbf_builder<AttributeField> builder(type);
    if (const ParamRef* held = std::get_if<ParamRef>(&attribute.value)) {
      append_message(out, AttributeField::T,
                     encode_tensor("", held->param, model_.params[held->param].value, held->extra));
      builder.add_int32(AttributeField::Type, static_cast<int32_t>(AttributeType::Tensor));
    } else {
      append_message(out, AttributeField::G, encode_graph(*std::get<std::shared_ptr<const Graph>>(attribute.value)));
      builder.add_int32(AttributeField::Type, static_cast<int32_t>(AttributeType::Graph));
    }
    out.append(std::move(type));
    return out;
  }

  const Model& model_;
  std::unordered_map<size_t, std::pair<const Weight*, DType>> quantized_;
  std::unordered_set<std::string> names_;
  std::unordered_map<std::string, int> last_number_;  // given to a name that was taken
};

/// The operator set that a weight's codes, scales and blocks need (Changelog.md: QuantizeLinear 10, 13 and 21).
int64_t opset_needed(const QuantParams& grid, DType codes) {
  if (grid.scheme.granularity == Granularity::Group || bits_of(codes) != 8) return 21;
  return grid.scale.size() > 1 ? 13 : 10;
}

class Planner {
 public:
  explicit Planner(const Model& model) : model_(model), opset_(opset_of(*model.header)) {}

  WritePlan plan() {
    WritePlan plan{Format::Onnx, opset_, {}, {}, {}};
    const std::vector<Storage> none(model_.weights->size());
    Encoder encoder(model_, none);
    for (const Weight& weight : *model_.weights) {
      plan.weights.push_back(storage_of(weight, encoder));
      if (plan.weights.back().quantized) {
        const int64_t needed = opset_needed(*model_.params[weight.param].grid, plan.weights.back().dtype);
        if (needed > plan.opset)
          plan.opset = needed == 10 ? 13 : needed;  // 13 is no harder to reach and names its axes
      }
    }
    if (plan.opset == opset_) return plan;
    // Raising the operator set has a price too (attributes become stored inputs): it may be more than is saved.
    WritePlan plain{Format::Onnx, opset_, none, {}, {}};
    for (size_t i = 0; i < none.size(); ++i) {
      const Param& param = model_.params[(*model_.weights)[i].param];
      plain.weights[i] = {param.value.dtype(), false, plan.weights[i].note, param.value.bytes().size(), {}};
    }
    const size_t raised_size = write_onnx(model_, plan).size(), plain_size = write_onnx(model_, plain).size();
    if (raised_size < plain_size) {
      plan.notes.push_back("operator set raised from " + std::to_string(opset_) + " to " + std::to_string(plan.opset) +
                           " for the quantized weights");
      return plan;
    }
    plain.notes.push_back("weights are stored in full: with integers and operator set " + std::to_string(plan.opset) +
                          " the file would have " + std::to_string(raised_size) + " bytes, so it has " +
                          std::to_string(plain_size));
    return plain;
  }

 private:
  Storage storage_of(const Weight& weight, Encoder& encoder) {
    const Param& param = model_.params[weight.param];
    Storage storage{param.value.dtype(), false, "", param.value.bytes().size(), {}};
    if (!param.grid || param.value.elements() == 0) return storage;
    const std::string as_float = "stored as " + std::string(to_string(param.value.dtype())) + ": ";
    DType codes = code_type(param.grid->scheme, true);
    if (const std::string reason = unreachable(opset_needed(*param.grid, codes)); !reason.empty()) {
      const DType wider = code_type(param.grid->scheme, false);
      const std::string wider_reason = wider == codes ? reason : unreachable(opset_needed(*param.grid, wider));
      if (!wider_reason.empty()) {
        storage.note = as_float + wider_reason;
        return storage;
      }
      codes = wider;
      storage.note = std::to_string(param.grid->scheme.bits) + "-bit codes stored as " + std::string(to_string(wider)) +
                     ": " + reason;
    }
    if (param.value.dtype() != DType::Float32 && param.value.dtype() != DType::Float64 && param.grid->scheme.bits > 8) {
      storage.note = as_float + "16-bit codes are no smaller than it";
      return storage;
    }
    const auto [integers, plain] = encoder.sizes(weight, codes);
    if (integers >= plain) {
      storage.note = as_float + "as integers it would take " + std::to_string(integers) +
                     " bytes with its scales and its node, so it takes " + std::to_string(plain);
      return storage;
    }
    storage.dtype = codes;
    storage.quantized = true;
    storage.bytes = encoder.payload(weight, codes);
    return storage;
  }

  /// Why `opset` cannot be had; empty where it can.
  const std::string& unreachable(int64_t opset) {
    opset = opset == 10 && opset_ < 10 ? 13 : opset;
    const auto [known, is_new] = reasons_.try_emplace(opset);
    if (is_new && opset_ < opset) {
      if (opset_ == 0) {
        known->second = "the model does not say which operator set it uses";
      } else if (const auto raised = raise_opset(model_, opset);
                 const std::string* reason = std::get_if<std::string>(&raised)) {
        known->second = "it needs operator set " + std::to_string(opset) + ", the model has " + std::to_string(opset_) +
                        " and cannot be raised because " + *reason;
      }
    }
    return known->second;
  }

  const Model& model_;
  int64_t opset_;
  std::unordered_map<int64_t, std::string> reasons_;
};

}  // namespace

}  // namespace onnx

WritePlan plan_onnx(const Model& model) { return onnx::Planner(model).plan(); }

Rope write_onnx(const Model& model, const WritePlan& plan) {
  Rope file;
  if (plan.opset == opset_of(*model.header)) {
    file = onnx::Encoder(model, plan.weights).encode();
  } else {
    auto raised = onnx::raise_opset(model, plan.opset);
    if (const std::string* reason = std::get_if<std::string>(&raised)) fail(ErrorCode::Unsupported, "opset", *reason);
    file = onnx::Encoder(std::get<Model>(raised), plan.weights).encode();
  }
  constexpr size_t kMostMessageBytes = 0x7fffffff;
  if (file.size() > kMostMessageBytes) {
    fail(ErrorCode::Unsupported, model.header->name,
         "the file would have " + std::to_string(file.size()) + " bytes; a protobuf message ends at 2 GiB");
  }
  return file;
}

}  // namespace nibble
