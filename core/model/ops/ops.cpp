#include "core/model/ops/ops.hpp"

#include <map>

#include "core/base/error.hpp"
#include "core/model/type_codes.hpp"

namespace nibble::ops {

const Tensor& Call::in(size_t input) const {
  if (!has(input)) fail("input " + std::to_string(input) + " is missing");
  return inputs[input];
}

std::span<const float> Call::floats(size_t input) const {
  const Tensor& tensor = in(input);
  if (tensor.dtype() != DType::Float32) {
    fail("input " + std::to_string(input) + " must hold real numbers, it is " + std::string(to_string(tensor.dtype())));
  }
  return tensor.data<float>();
}

Tensor Call::take(size_t input) {
  in(input);
  return std::move(inputs[input]);
}

std::vector<int64_t> Call::integers(size_t input) const {
  const Tensor& tensor = in(input);
  if (tensor.dtype() == DType::Int64) {
    const std::span<const int64_t> values = tensor.data<int64_t>();
    return {values.begin(), values.end()};
  }
  if (tensor.dtype() == DType::Int32) {
    const std::span<const int32_t> values = tensor.data<int32_t>();
    return {values.begin(), values.end()};
  }
  fail("input " + std::to_string(input) + " must be int32 or int64, it is " + std::string(to_string(tensor.dtype())));
}

bool Call::wants(size_t output) const { return output < node.outputs.size() && !node.outputs[output].empty(); }

namespace {

template <class T>
const T* attribute_of(const Node& node, std::string_view name, const std::string& label) {
  const Attribute* attribute = find_attribute(node, name);
  if (!attribute) return nullptr;
  const T* value = std::get_if<T>(&attribute->value);
  if (!value) nibble::fail(ErrorCode::BadFile, label, "attribute \"" + std::string(name) + "\" has an unexpected type");
  return value;
}

}  // namespace

int64_t Call::integer(std::string_view name, int64_t otherwise) const {
  const int64_t* value = attribute_of<int64_t>(node, name, label());
  return value ? *value : otherwise;
}

float Call::real(std::string_view name, float otherwise) const {
  const float* value = attribute_of<float>(node, name, label());
  return value ? *value : otherwise;
}

std::string Call::text(std::string_view name, std::string_view otherwise) const {
  const std::string* value = attribute_of<std::string>(node, name, label());
  return value ? *value : std::string(otherwise);
}

DType Call::type(std::string_view name, DType otherwise) const {
  const int64_t code = integer(name, 0);
  if (code == 0) return otherwise;
  const std::optional<DType> dtype = dtype_of_code(code);
  if (!dtype) fail("attribute \"" + std::string(name) + "\" is " + std::to_string(code) + ", which is no element type");
  return *dtype;
}

std::vector<int64_t> Call::integers(std::string_view name, std::vector<int64_t> otherwise) const {
  // A list without elements has no type in the file.
  const Attribute* attribute = find_attribute(node, name);
  if (attribute && std::holds_alternative<std::monostate>(attribute->value)) return {};
  const auto* value = attribute_of<std::vector<int64_t>>(node, name, label());
  return value ? *value : otherwise;
}

std::vector<float> Call::reals(std::string_view name, std::vector<float> otherwise) const {
  const Attribute* attribute = find_attribute(node, name);
  if (attribute && std::holds_alternative<std::monostate>(attribute->value)) return {};
  const auto* value = attribute_of<std::vector<float>>(node, name, label());
  return value ? *value : otherwise;
}

const Tensor& Call::tensor(std::string_view name) const {
  const ParamRef* held = attribute_of<ParamRef>(node, name, label());
  if (!held) fail("attribute \"" + std::string(name) + "\" is missing");
  return params[held->param].value;
}

const Graph& Call::graph(std::string_view name) const {
  const auto* held = attribute_of<std::shared_ptr<const Graph>>(node, name, label());
  if (!held) fail("attribute \"" + std::string(name) + "\" is missing");
  return **held;
}

std::string Call::label() const {
  if (!node.name.empty()) return node.name + " (" + node.op + ")";
  const std::string made = node.outputs.empty() ? "nothing" : node.outputs[0];
  return "the node that makes " + made + " (" + node.op + ")";
}

void Call::refuse(const std::string& message) const { nibble::fail(ErrorCode::Unsupported, label(), message); }

void Call::fail(const std::string& message) const { nibble::fail(ErrorCode::BadData, label(), message); }

const Op* find_op(std::string_view domain, std::string_view name) {
  using Key = std::pair<std::string_view, std::string_view>;
  static const std::map<Key, const Op*> all = [] {
    std::map<Key, const Op*> made;
    for (const auto family :
         {convolution_ops(), normalization_ops(), product_ops(), arithmetic_ops(), elementwise_ops(), activation_ops(),
          cast_ops(), random_ops(), reduction_ops(), softmax_ops(), ranking_ops(), shape_ops(), quantization_ops(),
          sequence_ops(), loss_ops(), control_ops()}) {
      for (const Op& op : family) made.emplace(Key{op.domain, op.name}, &op);
    }
    return made;
  }();
  const auto found = all.find({domain, name});
  return found == all.end() ? nullptr : found->second;
}

}  // namespace nibble::ops
