// A model as data: the graph (shared, never changed by a step that only touches values) and the tensors (params).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/tensor/param.hpp"

namespace nibble {

struct Graph;

/// A tensor held by an attribute: an index into Model::params.
struct ParamRef {
  size_t param = 0;
  std::string extra;  ///< fields of the tensor message that are carried through
};

/// std::monostate: a kind we carry without reading (Attribute::extra holds it).
using AttributeValue = std::variant<std::monostate, float, int64_t, std::string, ParamRef, std::shared_ptr<const Graph>,
                                    std::vector<float>, std::vector<int64_t>, std::vector<std::string>>;

struct Attribute {
  std::string name;
  AttributeValue value;
  std::string extra;  ///< fields of the file that are carried through as they are, in the file's own encoding
};

struct Node {
  std::string name, op, domain;  ///< domain "" is ONNX's own; "ai.onnx" is read as ""
  std::vector<std::string> inputs, outputs;
  std::vector<Attribute> attributes;
  std::string extra;
};

/// A graph's input, output or annotated value.
struct Value {
  std::string name;
  std::optional<DType> dtype;                                             ///< none where the file gives no tensor type
  bool ranked = false;                                                    ///< the file gives a shape
  std::vector<std::variant<std::monostate, int64_t, std::string>> shape;  ///< unknown, fixed, or named extents
  std::string encoded;                                                    ///< the whole entry, as the file has it
};

struct Initializer {
  std::string name;  ///< the value it defines in its graph
  size_t param = 0;
  std::string extra;
};

struct Graph {
  std::string name;
  std::vector<Node> nodes;  ///< in topological order, as ONNX demands
  std::vector<Initializer> initializers;
  std::vector<Value> inputs, outputs, values;
  std::string extra;
};

enum class Format : uint8_t { Onnx, Safetensors, Nib };
std::string_view to_string(Format format);

/// What the opened file says about itself.
struct Header {
  Format format = Format::Onnx;
  std::string name;      ///< the file's, as given by the caller
  std::string producer;  ///< "name version", may be empty
  int64_t ir_version = 0;
  std::vector<std::pair<std::string, int64_t>> opsets;        ///< domain and version
  std::vector<std::pair<std::string, std::string>> metadata;  ///< metadata_props, or __metadata__; in file order
  size_t file_bytes = 0;                                      ///< with external data
  size_t functions = 0;                                       ///< model-local functions; carried, never looked into
  std::string extra;
};

enum class WeightKind : uint8_t { Conv, ConvTranspose, Dense, Embedding, Recurrent, Tensor };
std::string_view to_string(WeightKind kind);

/// A tensor that a compression step may touch, and the use that makes it one.
struct Weight {
  size_t param = 0;
  WeightKind kind = WeightKind::Tensor;
  std::string node, op;
  std::optional<size_t> channel_axis;  ///< of the stored tensor, whatever transposes lie between it and its node
  std::string note;                    ///< what a user should know ("two uses want different axes"), or empty
};

/// What codes a tensor's levels in a .nib file.
enum class EntropyCoder : uint8_t {
  Auto,     ///< of the others, the one that gives fewest bytes
  Cabac,    ///< context-adaptive binary arithmetic coding
  Rans,     ///< interleaved rANS, decoded several times as fast
  Huffman,  ///< canonical Huffman, sparse tensors by relative indices
};
std::string_view to_string(EntropyCoder coder);

/// What a recipe wants a .nib file of its model to be.
struct Coding {
  EntropyCoder coder = EntropyCoder::Auto;
  bool quantized_form = true;  ///< hold the ONNX file with integers too, where there is one: some 20 bytes a weight
};

/// How a model was made, as a .nib file tells it.
struct History {
  std::vector<std::string> recipes;  ///< JSON, the first one first
  size_t file_bytes = 0;             ///< of the file that it was made from
  std::optional<float> noise;        ///< squared error of all weights over their squares, by the last recipe
};

struct Model {
  std::shared_ptr<const Header> header;
  std::shared_ptr<const Graph> graph;
  std::shared_ptr<const std::vector<Weight>> weights;
  std::vector<Param> params;
  std::shared_ptr<const History> history;  ///< none for a model that was not made by a recipe
  Coding coding;
};

/// The version of ONNX's own operator set; 0 where the file names none.
int64_t opset_of(const Header& header);

const Attribute* find_attribute(const Node& node, std::string_view name);
/// The attribute's value, or `otherwise` where it is absent or of another type.
int64_t int_attribute(const Node& node, std::string_view name, int64_t otherwise);

/// Calls `visit` for the graph and every subgraph below it.
template <class Visit>
void for_each_graph(const Graph& graph, const Visit& visit) {
  visit(graph);
  for (const Node& node : graph.nodes) {
    for (const Attribute& attribute : node.attributes) {
      if (const auto* inner = std::get_if<std::shared_ptr<const Graph>>(&attribute.value))
        for_each_graph(**inner, visit);
    }
  }
}

/// Which tensors are weights, by how the graph uses them: the filter of Conv and ConvTranspose, the constant operand of
/// Gemm and MatMul, the table of Gather, the matrices of LSTM, GRU and RNN, and their com.microsoft fusions; looked up
/// through Transpose, Reshape, Squeeze, Unsqueeze, Flatten, Identity and Cast, in subgraphs too. Only real types. In
/// order of first use. A model without nodes (safetensors) is taken by shape: real tensors of rank 2 and more, channels
/// first, as PyTorch stores them.
std::vector<Weight> find_weights(const Graph& graph, const std::vector<Param>& params);

/// Params that a model has learnt, weights, biases and normalisation parameters, as indices in the order of the graph's
/// initializers: real tensors of rank 1 and more that operators with something to learn use as such.
std::vector<size_t> find_learnt(const Model& model);

}  // namespace nibble
