#include <algorithm>

#include "core/model/model.hpp"

namespace nibble {

std::string_view to_string(Format format) {
  switch (format) {
    case Format::Onnx: return "onnx";
    case Format::Safetensors: return "safetensors";
    case Format::Nib: return "nib";
  }
  return "";
}

std::string_view to_string(EntropyCoder coder) {
  switch (coder) {
    case EntropyCoder::Auto: return "auto";
    case EntropyCoder::Cabac: return "cabac";
    case EntropyCoder::Rans: return "rans";
    case EntropyCoder::Huffman: return "huffman";
  }
  return "";
}

std::string_view to_string(WeightKind kind) {
  switch (kind) {
    case WeightKind::Conv: return "conv";
    case WeightKind::ConvTranspose: return "conv-transpose";
    case WeightKind::Dense: return "dense";
    case WeightKind::Embedding: return "embedding";
    case WeightKind::Recurrent: return "recurrent";
    case WeightKind::Tensor: return "tensor";
  }
  return "tensor";
}

int64_t opset_of(const Header& header) {
  for (const auto& [domain, version] : header.opsets) {
    if (domain.empty() || domain == "ai.onnx") return version;
  }
  return 0;
}

const Attribute* find_attribute(const Node& node, std::string_view name) {
  const auto found = std::find_if(node.attributes.begin(), node.attributes.end(),
                                  [&](const Attribute& attribute) { return attribute.name == name; });
  return found == node.attributes.end() ? nullptr : &*found;
}

int64_t int_attribute(const Node& node, std::string_view name, int64_t otherwise) {
  const Attribute* attribute = find_attribute(node, name);
  if (!attribute) return otherwise;
  const int64_t* value = std::get_if<int64_t>(&attribute->value);
  return value ? *value : otherwise;
}

}  // namespace nibble
