// Tells formats apart by content.
#include <cstring>

#include "core/base/error.hpp"
#include "core/formats/formats.hpp"
#include "core/formats/nib.hpp"

namespace nibble {

namespace {

bool starts_with(std::span<const std::byte> file, std::string_view magic) {
  return file.size() >= magic.size() && std::memcmp(file.data(), magic.data(), magic.size()) == 0;
}

// Files that people try and that are something else: name them instead of reporting a protobuf error.
void refuse_known_others(std::span<const std::byte> file, std::string_view name) {
  struct Known {
    size_t at;
    std::string_view magic, what;
  };
  static constexpr Known kKnown[] = {
      {0, "GGUF", "a GGUF file"},
      {0, "PK\x03\x04",
       "a zip archive (perhaps a PyTorch checkpoint or an .npz); export the model to ONNX or safetensors first"},
      {0, "\x89HDF", "an HDF5 file (Keras?); convert it with tf2onnx first"},
      {4, "TFL3", "a TensorFlow Lite file; convert it with tf2onnx first"},
      {4, "ORTM", "an ORT-format model; the .onnx file that it was made from is what Nibble opens"},
      {0, "\x80\x02", "a pickle (an old PyTorch checkpoint?); export the model to ONNX or safetensors first"},
      {0, "\x93NUMPY", "a NumPy array"},
      {0, "\x1f\x8b", "gzip-compressed; unpack it first"},
      {0, "<!DOCTYPE", "a web page: the download has gone wrong"},
      {0, "<html", "a web page: the download has gone wrong"},
      {0, "version https://git-lfs", "a Git LFS pointer, not the file itself; run 'git lfs pull'"},
  };
  for (const Known& known : kKnown) {
    if (file.size() > known.at && starts_with(file.subspan(known.at), known.magic)) {
      fail(ErrorCode::Unsupported, std::string(name),
           "this is " + std::string(known.what) + ". Nibble opens ONNX, safetensors and .nib");
    }
  }
}

}  // namespace

Model read_model(std::span<const std::byte> file, std::string_view name, const ExternalFiles& external) {
  return read_model(FileBytes(file), name, external);
}

Model read_model(FileBytes file, std::string_view name, const ExternalFiles& external) {
  if (file.span().empty()) fail(ErrorCode::BadFile, std::string(name), "the file is empty");
  // First: the length at a safetensors file's start may look like any other magic number.
  if (looks_like_safetensors(file.span())) return read_safetensors(std::move(file), name);
  if (nib::looks_like_nib(file.span())) return nib::read(file.span(), name);
  refuse_known_others(file.span(), name);
  return read_onnx(std::move(file), name, external);
}

namespace {

WritePlan plan_nib(const Model& model) {
  WritePlan plan{Format::Nib, opset_of(*model.header), {}, {}, {}};
  nib::File file = nib::encode(model);
  for (const Weight& weight : *model.weights) {
    const Param& param = model.params[weight.param];
    Storage storage{param.value.dtype(), param.grid.has_value(), "", 0, file.coders[weight.param]};
    storage.bytes = static_cast<size_t>((file.bits[weight.param] + (uint64_t{8} << 16) - 1) / (uint64_t{8} << 16));
    plan.weights.push_back(std::move(storage));
  }
  plan.encoded = std::make_shared<const std::vector<uint8_t>>(std::move(file.bytes));
  return plan;
}

}  // namespace

WritePlan plan_write(const Model& model, Format format) {
  if (format == Format::Nib) return plan_nib(model);
  if (format == Format::Onnx) {
    if (model.header->format != Format::Onnx) {
      fail(ErrorCode::Unsupported, "format",
           "a safetensors file has no graph, so it cannot be written as ONNX; write safetensors");
    }
    return plan_onnx(model);
  }
  WritePlan plan{Format::Safetensors, 0, {}, {}, {}};
  bool any_grid = false;
  for (const Weight& weight : model.weights ? *model.weights : std::vector<Weight>{}) {
    const Param& param = model.params[weight.param];
    Storage storage{param.value.dtype(), false, "", param.value.bytes().size(), {}};
    if (param.grid) {
      any_grid = true;
      storage.note = "safetensors has no quantized form: the grid's values are written in full";
    }
    plan.weights.push_back(std::move(storage));
  }
  if (any_grid)
    plan.notes.push_back("safetensors stores the quantized values in their full type: the file does not get smaller");
  return plan;
}

Rope write_model(const Model& model, const WritePlan& plan) {
  switch (plan.format) {
    case Format::Onnx: return write_onnx(model, plan);
    case Format::Safetensors: return write_safetensors(model);
    case Format::Nib: break;
  }
  Rope rope;
  rope.append(std::string(plan.encoded->begin(), plan.encoded->end()));
  return rope;
}

}  // namespace nibble
