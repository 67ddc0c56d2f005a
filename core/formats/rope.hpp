// What a file is made of before it is bytes.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor/tensor.hpp"

namespace nibble {

/// Which array of a param a part of a file holds.
enum class StoredArray : uint8_t {
  Values,      ///< the dense value, in its own type and order
  Codes,       ///< codes of a quantized weight
  Scales,      ///< float32
  ZeroPoints,  ///< in the codes' type
};

/// What a made piece is, for a writer that has another way to store it (nib_write.cpp).
struct Source {
  size_t param = 0;  ///< index into Model::params
  StoredArray array = StoredArray::Values;
  DType dtype = DType::Float32;  ///< of the elements in the file
  bool rows = false;             ///< Codes: in row order, [channels, inputs], not in the weight's own
  bool transposed = false;       ///< Scales, ZeroPoints: [groups, channels], not [channels, groups]
};

/// Bytes to be written: pieces that exist, and pieces that are made when their turn comes, of known size. A whole
/// export therefore never needs room for a second copy of the model.
class Rope {
 public:
  void append(std::string text);
  void append(Tensor tensor, std::optional<Source> source = std::nullopt);
  void append(size_t size, std::function<Tensor()> make, std::optional<Source> source = std::nullopt);
  void append(Rope other);
  size_t size() const { return size_; }
  /// Hands over the pieces in order. Throws std::logic_error where a made piece is not of its promised size.
  void emit(const std::function<void(std::span<const std::byte>)>& sink) const;
  std::vector<std::byte> bytes() const;
  /// Hands over the pieces in order, those that have a source without making them, all others as text.
  void visit(const std::function<void(const std::string&)>& text,
             const std::function<void(const Source&, size_t, const std::function<Tensor()>&)>& array) const;

 private:
  struct Piece {
    std::string text;
    size_t size = 0;
    std::function<Tensor()> make;  ///< empty: the text is the piece
    std::optional<Source> source;
  };
  void grow(size_t size);

  std::vector<Piece> pieces_;
  size_t size_ = 0;
};

/// A tensor's bytes as a piece of text.
std::string as_text(const Tensor& tensor);

}  // namespace nibble
