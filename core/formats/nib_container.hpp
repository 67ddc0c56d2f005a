// The .nib container: a model file without its numbers, and the numbers as entropy-coded streams.
//
// A model file (ONNX, safetensors) is bytes that describe and bytes that are values. The first kind, the text, is
// stored once, compressed; the second kind is cut out of it, so the text has holes, and a decoder that fills them with
// decoded tensors has the file again, byte for byte, without knowing its format.
//
//   offset  size  what
//        0     3  "NIB"
//        3     1  version, 1
//        4     v  coded size of the header in bytes        (v: 1 to 9 bytes, seven bits each, lowest first)
//        .     v  size of the header
//        .     .  the header, coded by codec::ByteModel
//        .     4  CRC-32 (IEEE 802.3, little-endian) of all bytes before
//        .     .  blocks, one after the other, of the sizes that the header gives
//
//   header   format (0 ONNX, 1 safetensors), flags
//            tensors: name, type, shape, how its values come about, in the order of the file
//            blocks: coder, number of tensors, size, CRC-32 of its bytes
//            forms: the file with values in full, and with integers behind DequantizeLinear nodes
//            history: recipes, size of the file that the model was made from, error
//
//   block    coder Cabac: the arithmetic code of one or more tensors
//            coder Rans, Huffman: size of the side information (v), its arithmetic code, then the levels' own stream
//
// A block is what can be fetched, checked and decoded by itself: small tensors share one, a large one has its own.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/formats/rope.hpp"
#include "core/model/model.hpp"

namespace nibble::nib {

inline constexpr uint8_t kVersion = 1;

/// How a tensor's values come about.
enum class Values : uint8_t {
  Grid,      ///< scale * level, a promise of the model
  Palette,   ///< one of a list of values: an index, 0 being the value 0
  Integers,  ///< level + offset
  Floats,    ///< bit patterns
  Bytes,     ///< of any type
};

struct TensorEntry {
  std::string name;
  DType dtype = DType::Float32;
  Shape shape;
  Values values = Values::Bytes;
  bool masked = false;                 ///< the model has a mask: what is 0 is promised to stay 0
  bool shared = false;                 ///< Values::Palette: the model has a codebook, the list is a promise
  QuantScheme scheme;                  ///< Values::Grid
  std::optional<size_t> channel_axis;  ///< Values::Grid, where the granularity has use for it

  // Found from the above.
  size_t elements = 0, bytes = 0;
  Rows rows;                     ///< Values::Grid: what shares a scale is rows, or pieces of rows
  size_t group = 0, groups = 0;  ///< elements of a piece, pieces of a row
  size_t scales = 0;
};

struct BlockEntry {
  EntropyCoder coder = EntropyCoder::Cabac;
  size_t tensors = 0;
  size_t bytes = 0;
  uint32_t crc = 0;

  // Found from the above.
  size_t offset = 0;  ///< in the file
  size_t first = 0;   ///< its first tensor
};

/// Where an array of a tensor lies in a decoded file.
struct Hole {
  size_t tensor = 0;
  StoredArray array = StoredArray::Values;
  DType dtype = DType::Float32;
  bool rows = false, transposed = false;  ///< as in Source
  size_t offset = 0, bytes = 0;
};

/// A decoded file: its text, and the holes between the pieces of it.
struct Form {
  std::string text;
  std::vector<Hole> holes;  ///< in the order of the file
  size_t bytes = 0;         ///< of the file
};

struct Container {
  Format format = Format::Onnx;
  std::vector<TensorEntry> tensors;
  std::vector<BlockEntry> blocks;
  Form full;
  std::optional<Form> quantized;
  History history;
  size_t header_bytes = 0;  ///< of the file, before the first block
};

/// The whole of a .nib's first `size` bytes up to the first block, or 0 where `start` does not tell yet (it does from
/// 22 bytes on). Throws Error{BadFile} or Error{Unsupported} for what is not a .nib of this version.
size_t header_extent(std::span<const uint8_t> start);

/// Reads the header from the first header_extent() bytes. Throws Error{BadFile} with the place for anything that does
/// not fit together, so that what it returns can be believed: sizes are those of the tensors, holes lie one after the
/// other.
Container parse_header(std::span<const uint8_t> start);

/// The header before it is coded. Of a block's and a tensor's entry only what is not found from the rest is looked at.
std::vector<uint8_t> print_header(const Container& container);
/// The bytes before the first block: magic, sizes, the coded header, checksum.
std::vector<uint8_t> seal_header(std::vector<uint8_t> header);

/// Fills in what is found from the rest. Throws Error{BadFile, name} where that is impossible.
void complete(TensorEntry& tensor);

/// IEEE 802.3.
uint32_t crc32(std::span<const uint8_t> bytes);

/// Bytes of a hole: of the array in its type.
size_t bytes_of_hole(const Hole& hole, const TensorEntry& tensor);

}  // namespace nibble::nib
