// Files in and out. Reading gives a Model; writing gives a Rope, whose size is known before any of it is made.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/formats/rope.hpp"
#include "core/model/model.hpp"

namespace nibble {

/// External data by file name (the last part of the path that the model gives).
using ExternalFiles = std::map<std::string, FileBytes, std::less<>>;

/// Opens a file by its content. Large tensors point into `file`, which is rearranged for that (Tensor::borrow): nobody
/// else may read it afterwards. Throws Error{BadFile} naming the place, or Error{Unsupported} for other formats.
Model read_model(FileBytes file, std::string_view name, const ExternalFiles& external = {});
/// The same from bytes that belong to somebody else, by a copy.
Model read_model(std::span<const std::byte> file, std::string_view name, const ExternalFiles& external = {});

/// How the exported file holds one weight.
struct Storage {
  DType dtype = DType::Float32;  ///< of the codes, or of the values where not quantized
  bool quantized = false;
  std::string note;                         ///< why it is so, where that needs saying
  size_t bytes = 0;                         ///< of values, or of codes, scales and zero points
  EntropyCoder coder = EntropyCoder::Auto;  ///< Format::Nib: of its levels, Auto where it has none
};

/// What writing will do: decided before a byte is made, and what the report shows.
struct WritePlan {
  Format format = Format::Onnx;
  int64_t opset = 0;               ///< of the written file; 0 for safetensors
  std::vector<Storage> weights;    ///< one for each of model.weights
  std::vector<std::string> notes;  ///< about the whole file
  std::shared_ptr<const std::vector<uint8_t>>
      encoded;  ///< Format::Nib: the file, whose size cannot be known without it
};
WritePlan plan_write(const Model& model, Format format);

/// The file. Quantized weights of an ONNX model become DequantizeLinear nodes over integer initializers, whose outputs
/// equal the model's values bit for bit; all else is carried through. Throws Error{Unsupported} for ONNX from a
/// safetensors model and for files over 2 GiB, the most a protobuf message can be.
Rope write_model(const Model& model, const WritePlan& plan);

// The formats themselves.
bool looks_like_safetensors(std::span<const std::byte> file);
Model read_onnx(FileBytes file, std::string_view name, const ExternalFiles& external);
Model read_safetensors(FileBytes file, std::string_view name);
WritePlan plan_onnx(const Model& model);
Rope write_onnx(const Model& model, const WritePlan& plan);
Rope write_safetensors(const Model& model);

}  // namespace nibble
