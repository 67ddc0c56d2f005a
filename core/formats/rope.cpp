#include "core/formats/rope.hpp"

#include <stdexcept>

#include "core/base/error.hpp"

namespace nibble {

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
  pieces_.push_back({std::move(text), size, {}, {}});
}

void Rope::append(Tensor tensor, std::optional<Source> source) {
  const size_t size = tensor.bytes().size();
  append(
      size, [tensor = std::move(tensor)] { return tensor; }, source);
}

void Rope::append(size_t size, std::function<Tensor()> make, std::optional<Source> source) {
  if (size == 0) return;
  grow(size);
  pieces_.push_back({"", size, std::move(make), source});
}

void Rope::append(Rope other) {
  for (Piece& piece : other.pieces_) {
    if (piece.make) {
      append(piece.size, std::move(piece.make), piece.source);
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

std::string as_text(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()};
}

void Rope::visit(const std::function<void(const std::string&)>& text,
                 const std::function<void(const Source&, size_t, const std::function<Tensor()>&)>& array) const {
  for (const Piece& piece : pieces_) {
    if (piece.source) {
      array(*piece.source, piece.size, piece.make);
    } else if (piece.make) {
      text(as_text(piece.make()));
    } else {
      text(piece.text);
    }
  }
}

}  // namespace nibble
