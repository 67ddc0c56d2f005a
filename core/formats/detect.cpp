// Tells formats apart by content, and the Rope that all of them write.
#include <cstring>
#include <stdexcept>

#include "core/base/error.hpp"
#include "core/formats/formats.hpp"

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
           "this is " + std::string(known.what) + ". Nibble opens ONNX and safetensors");
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
  refuse_known_others(file.span(), name);
  return read_onnx(std::move(file), name, external);
}

WritePlan plan_write(const Model& model, Format format) {
  if (format == Format::Onnx) {
    if (model.header->format != Format::Onnx) {
      fail(ErrorCode::Unsupported, "format",
           "a safetensors file has no graph, so it cannot be written as ONNX; write safetensors");
    }
    return plan_onnx(model);
  }
  WritePlan plan{Format::Safetensors, 0, {}, {}};
  bool any_grid = false;
  for (const Weight& weight : model.weights ? *model.weights : std::vector<Weight>{}) {
    const Param& param = model.params[weight.param];
    Storage storage{param.value.dtype(), false, "", param.value.bytes().size()};
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
  return plan.format == Format::Onnx ? write_onnx(model, plan) : write_safetensors(model);
}

void Rope::grow(size_t size) {
  // Borrowed bytes may be in several places, so the sum can be more than the memory that they take.
  if (size > SIZE_MAX - size_) fail(ErrorCode::Unsupported, "", "the file would be larger than this machine can count");
  size_ += size;
}

void Rope::append(std::string text) {
  if (text.empty()) return;
  grow(text.size());
  if (!pieces_.empty() && !pieces_.back().make) {
    pieces_.back().text += text;
    pieces_.back().size += text.size();
    return;
  }
  const size_t size = text.size();
  pieces_.push_back({std::move(text), size, {}});
}

void Rope::append(Tensor tensor) {
  const size_t size = tensor.bytes().size();
  append(size, [tensor = std::move(tensor)] { return tensor; });
}

void Rope::append(size_t size, std::function<Tensor()> make) {
  if (size == 0) return;
  grow(size);
  pieces_.push_back({"", size, std::move(make)});
}

void Rope::append(Rope other) {
  for (Piece& piece : other.pieces_) {
    if (piece.make) {
      append(piece.size, std::move(piece.make));
    } else {
      append(std::move(piece.text));
    }
  }
}

void Rope::emit(const std::function<void(std::span<const std::byte>)>& sink) const {
  for (const Piece& piece : pieces_) {
    if (!piece.make) {
      sink(std::as_bytes(std::span(piece.text)));
      continue;
    }
    const Tensor made = piece.make();
    if (made.bytes().size() != piece.size) throw std::logic_error("a piece of a rope is not of its promised size");
    sink(made.bytes());
  }
}

std::vector<std::byte> Rope::bytes() const {
  std::vector<std::byte> all;
  all.reserve(size_);
  emit([&](std::span<const std::byte> piece) { all.insert(all.end(), piece.begin(), piece.end()); });
  return all;
}

}  // namespace nibble
