// What the parts of the ONNX writer share.
#pragma once

#include <variant>

#include "core/formats/formats.hpp"

namespace nibble::onnx {

/// The model with its default operator set raised to `target`, its nodes rewritten where an operator's meaning or
/// inputs have changed in between; or the reason why that cannot be done, naming the node. target is 13 or 21.
std::variant<Model, std::string> raise_opset(const Model& model, int64_t target);

/// What stands in an exported file for one quantized weight: initializers and the nodes that turn them into the value
/// again. Its bytes are made when written.
struct QdqInitializer {
  std::string name;
  DType dtype = DType::Float32;
  Shape shape;
  std::function<Tensor()> make;
  std::optional<Source> source;
};
struct Qdq {
  std::vector<QdqInitializer> initializers;
  std::vector<Node> nodes;
  size_t payload_bytes = 0;  ///< of codes, scales and zero points
};

/// The integer type that holds the scheme's codes, or the next wider one where 4-bit types are not to be had.
DType code_type(const QuantScheme& scheme, bool four_bit_types);

/// `name` is the value that the weight has in its graph, `unused` gives a name that no value has.
Qdq build_qdq(const Param& param, const Weight& weight, const std::string& name, DType codes,
              const std::function<std::string(const std::string&)>& unused);

}  // namespace nibble::onnx
