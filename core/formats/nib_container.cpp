#include "core/formats/nib_container.hpp"

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/codec/bytes.hpp"
#include "core/codec/tokens.hpp"
#include "core/formats/nib_teaching.hpp"
#include "core/model/type_codes.hpp"

namespace nibble::nib {

namespace {

constexpr uint8_t kMagic[4] = {'N', 'I', 'B', kVersion};
/// Text of 64 MiB is a graph of a hundred thousand nodes, and takes minutes to decode.
constexpr size_t kMostHeader = size_t{64} << 20;
/// What one byte of a coded header may stand for: real graphs have 5 to 50, and damage should not take minutes to see.
constexpr size_t kMostRatio = 256;
constexpr size_t kMostRank = 64;
/// Entries take some hundred times as much memory as they take in a file.
constexpr size_t kMostTensors = size_t{1} << 18, kMostRecipes = size_t{1} << 12;

[[noreturn]] void bad(const std::string& where, const std::string& message) {
  fail(ErrorCode::BadFile, where, message);
}

// --- Numbers and texts -----------------------------------------------------------------------------------------------

uint64_t zigzag(int64_t value) { return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63); }
int64_t unzigzag(uint64_t value) { return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1); }

class Writer {
 public:
  void number(uint64_t value) { codec::put_varint(bytes, value); }
  void text(std::string_view value) {
    number(value.size());
    bytes.insert(bytes.end(), value.begin(), value.end());
  }
  void word(uint32_t value) {
    for (int i = 0; i < 32; i += 8) bytes.push_back(static_cast<uint8_t>(value >> i));
  }

  std::vector<uint8_t> bytes;
};

class Reader {
 public:
  Reader(std::span<const uint8_t> bytes, std::string where)
      : left_(bytes), all_(bytes.size()), where_(std::move(where)) {}

  uint64_t number() {
    uint64_t value = 0;
    if (!codec::take_varint(left_, value)) ended();
    return value;
  }
  /// A number that is at most `most`.
  size_t number(uint64_t most, const char* what) {
    const uint64_t value = number();
    if (value > most) {
      bad(place(), std::string(what) + " is " + std::to_string(value) + ", expected at most " + std::to_string(most));
    }
    return static_cast<size_t>(value);
  }
  /// How many of something follow, each of which takes at least a byte.
  size_t count(const char* what) { return number(left_.size(), what); }
  std::span<const uint8_t> take(size_t size) {
    if (size > left_.size()) ended();
    const std::span<const uint8_t> taken = left_.first(size);
    left_ = left_.subspan(size);
    return taken;
  }
  std::string text() {
    const std::span<const uint8_t> taken = take(count("a length"));
    return {taken.begin(), taken.end()};
  }
  uint32_t word() {
    const std::span<const uint8_t> taken = take(4);
    return taken[0] | taken[1] << 8 | taken[2] << 16 | static_cast<uint32_t>(taken[3]) << 24;
  }
  std::string place() const { return where_ + ", byte " + std::to_string(all_ - left_.size()); }
  size_t left() const { return left_.size(); }

 private:
  [[noreturn]] void ended() const { bad(place(), "ends in the middle of an entry"); }

  std::span<const uint8_t> left_;
  size_t all_;
  std::string where_;
};

// --- Entries ---------------------------------------------------------------------------------------------------------

bool uses_rows(const QuantScheme& scheme) {
  return scheme.granularity == Granularity::Channel || scheme.granularity == Granularity::Group;
}

void print_tensor(const TensorEntry& tensor, Writer& out) {
  out.text(tensor.name);
  out.number(static_cast<uint64_t>(tensor.dtype));
  out.number(tensor.shape.size());
  for (const size_t extent : tensor.shape) out.number(extent);
  out.number(static_cast<uint64_t>(tensor.values) << 2 | static_cast<uint64_t>(tensor.shared) << 1 | tensor.masked);
  if (tensor.values != Values::Grid) return;
  out.number(static_cast<uint64_t>(tensor.scheme.bits));
  out.number(static_cast<uint64_t>(tensor.scheme.granularity) << 1 | tensor.scheme.symmetric);
  if (tensor.scheme.granularity == Granularity::Group) out.number(tensor.scheme.group_size);
  if (uses_rows(tensor.scheme)) out.number(tensor.channel_axis ? *tensor.channel_axis + 1 : 0);
}

TensorEntry parse_tensor(Reader& in) {
  TensorEntry tensor;
  tensor.name = in.text();
  tensor.dtype = static_cast<DType>(in.number(static_cast<uint64_t>(DType::Complex128), "the type"));
  tensor.shape.resize(in.number(kMostRank, "the rank"));
  for (size_t& extent : tensor.shape) extent = in.number(SIZE_MAX, "an extent");
  const size_t how = in.number(static_cast<uint64_t>(Values::Bytes) << 2 | 3, "the kind of values");
  tensor.values = static_cast<Values>(how >> 2);
  tensor.shared = how >> 1 & 1;
  tensor.masked = how & 1;
  if (tensor.values == Values::Grid) {
    tensor.scheme.bits = static_cast<int>(in.number(16, "the number of bits"));
    const size_t grid = in.number(static_cast<uint64_t>(Granularity::Group) << 1 | 1, "the granularity");
    tensor.scheme.granularity = static_cast<Granularity>(grid >> 1);
    tensor.scheme.symmetric = grid & 1;
    if (tensor.scheme.granularity == Granularity::Group) {
      tensor.scheme.group_size = in.number(65536, "the group size");
      if (tensor.scheme.group_size == 0) bad(in.place(), "a group size of 0");
    }
    if (uses_rows(tensor.scheme)) {
      const size_t axis = in.number(tensor.shape.size(), "the channel axis");
      if (axis) tensor.channel_axis = axis - 1;
    }
  }
  complete(tensor);
  // They are part of the text, having nothing to code.
  if (tensor.elements == 0) bad(tensor.name, "a tensor without elements among those that are coded");
  return tensor;
}

// --- Forms -----------------------------------------------------------------------------------------------------------

/// What ONNX's writer puts before an array: the field of a graph's initializer, with the tensor's shape, type, name and
/// the size of its bytes (onnx_write.cpp, encode_tensor). All of it follows from the tensor's entry, so it is not
/// stored.
std::string onnx_frame(const TensorEntry& tensor, const Hole& hole) {
  Shape shape = tensor.shape;
  std::string name = tensor.name;
  if (hole.array != StoredArray::Values) {
    name += hole.array == StoredArray::Codes    ? "_quantized"
            : hole.array == StoredArray::Scales ? "_scale"
                                                : "_zero_point";
    const bool grouped = tensor.scheme.granularity == Granularity::Group;
    const Rows& rows = tensor.rows;
    if (hole.array == StoredArray::Codes) {
      if (hole.rows) shape = {rows.channels, rows.length()};
    } else if (grouped) {
      shape = hole.transposed ? Shape{tensor.groups, rows.channels} : Shape{rows.channels, tensor.groups};
    } else {
      shape = tensor.scales == 1 ? Shape{} : Shape{tensor.scales};
    }
  }
  const auto number = [](std::string& out, uint64_t value) {
    for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
    out += static_cast<char>(value);
  };
  std::string head;
  for (const size_t extent : shape) {
    head += '\x08';
    number(head, extent);
  }
  head += '\x10';
  number(head, static_cast<uint64_t>(code_of(hole.dtype)));
  head += '\x42';
  number(head, name.size());
  head += name + '\x4a';
  number(head, hole.bytes);
  std::string frame = "\x2a";
  number(frame, head.size() + hole.bytes);
  return frame + head;
}

/// A form as it is stored: its text without the frames, and for each hole the length of text since the one before,
/// doubled, and 1 where the frame was there.
struct Stored {
  std::string text;
  std::vector<uint64_t> holes;
};

Stored without_frames(const std::vector<TensorEntry>& tensors, const Form& form) {
  Stored stored;
  size_t at = 0, filled = 0, last = 0;
  for (const Hole& hole : form.holes) {
    const size_t end = hole.offset - filled;  // in the text
    const std::string frame = onnx_frame(tensors[hole.tensor], hole);
    const bool framed = std::string_view(form.text).substr(at, end - at).ends_with(frame);
    stored.text.append(form.text, at, end - at - (framed ? frame.size() : 0));
    stored.holes.push_back((stored.text.size() - last) << 1 | framed);
    last = stored.text.size();
    at = end;
    filled += hole.bytes;
  }
  stored.text.append(form.text, at);
  return stored;
}

/// Puts the frames in again, places the holes and finds the size of the file. `text` is as stored.
void place(const std::vector<TensorEntry>& tensors, std::string_view text, const std::vector<size_t>& gaps, Form& form,
           const Reader& in) {
  size_t at = 0, filled = 0;
  for (size_t i = 0; i < form.holes.size(); ++i) {
    Hole& hole = form.holes[i];
    hole.bytes = bytes_of_hole(hole, tensors[hole.tensor]);
    const size_t gap = gaps[i] >> 1;
    if (gap > text.size() - at) bad(in.place(), "a tensor's place lies outside of the text");
    form.text += text.substr(at, gap);
    at += gap;
    if (gaps[i] & 1) form.text += onnx_frame(tensors[hole.tensor], hole);
    if (form.text.size() > kMostHeader) bad(in.place(), "a text of more than 64 MiB");
    hole.offset = form.text.size() + filled;
    filled += hole.bytes;
    if (filled > SIZE_MAX / 4) bad(in.place(), "the decoded file would be larger than this machine can count");
  }
  form.text += text.substr(at);
  form.bytes = form.text.size() + filled;
}

void print_full(const std::vector<TensorEntry>& tensors, const Form& form, Writer& out) {
  const Stored stored = without_frames(tensors, form);
  out.text(stored.text);
  for (const uint64_t hole : stored.holes) out.number(hole);
}

/// `text` receives what is stored.
Form parse_full(const std::vector<TensorEntry>& tensors, std::string& text, Reader& in) {
  Form form;
  text = in.text();
  std::vector<size_t> gaps;
  for (size_t i = 0; i < tensors.size(); ++i) {
    gaps.push_back(in.number(SIZE_MAX, "the place of a tensor"));
    Hole hole;
    hole.tensor = i;
    hole.dtype = tensors[i].dtype;
    form.holes.push_back(hole);
  }
  place(tensors, text, gaps, form, in);
  return form;
}

/// Where 16 bytes of a text have stood.
constexpr size_t kWindow = 16;

uint64_t window_at(std::string_view text, size_t at) {
  uint64_t hash = 0;
  for (size_t i = 0; i < kWindow; ++i) hash = hash * 0x9E3779B97F4A7C15u + static_cast<unsigned char>(text[at + i]);
  return hash;
}

/// A text as pieces of its own and pieces of another one (after Tridgell's rsync, with windows at every byte).
void print_difference(std::string_view other, std::string_view text, Writer& out) {
  std::unordered_map<uint64_t, size_t> places;
  for (size_t i = 0; i + kWindow <= other.size(); ++i) places.try_emplace(window_at(other, i), i);
  struct Piece {
    size_t own_from, own, from, copied;
  };
  std::vector<Piece> pieces;
  size_t own_from = 0, expected = 0;
  for (size_t i = 0; i < text.size();) {
    size_t from = 0, length = 0;
    const auto try_at = [&](size_t candidate) {
      size_t same = 0;
      while (candidate + same < other.size() && i + same < text.size() && other[candidate + same] == text[i + same])
        ++same;
      if (same > length) from = candidate, length = same;
    };
    try_at(expected);  // what follows the last piece is often the best, if not the first, place
    if (i + kWindow <= text.size()) {
      if (const auto found = places.find(window_at(text, i)); found != places.end()) try_at(found->second);
    }
    if (length < kWindow) {
      ++i;
      continue;
    }
    pieces.push_back({own_from, i - own_from, from, length});
    i += length;
    own_from = i;
    expected = from + length;
  }
  out.number(pieces.size());
  size_t last = 0;
  for (const Piece& piece : pieces) {
    out.text(text.substr(piece.own_from, piece.own));
    out.number(zigzag(static_cast<int64_t>(piece.from) - static_cast<int64_t>(last)));
    out.number(piece.copied);
    last = piece.from + piece.copied;
  }
  out.text(text.substr(own_from));
}

std::string parse_difference(std::string_view other, Reader& in) {
  std::string text;
  const size_t pieces = in.count("the number of pieces");
  size_t last = 0;
  for (size_t i = 0; i < pieces; ++i) {
    text += in.text();
    const int64_t from = static_cast<int64_t>(last) + unzigzag(in.number());
    if (from < 0 || static_cast<uint64_t>(from) > other.size()) bad(in.place(), "a piece lies outside of the text");
    const size_t length = in.number(other.size() - static_cast<size_t>(from), "the length of a piece");
    text += other.substr(static_cast<size_t>(from), length);
    if (text.size() > kMostHeader) bad(in.place(), "a text of more than 64 MiB");
    last = static_cast<size_t>(from) + length;
  }
  return text + in.text();
}

void print_quantized(const std::vector<TensorEntry>& tensors, const Form& full, const Form& form, Writer& out) {
  const Stored stored = without_frames(tensors, form);
  print_difference(without_frames(tensors, full).text, stored.text, out);
  out.number(form.holes.size());
  for (size_t i = 0; i < form.holes.size(); ++i) {
    const Hole& hole = form.holes[i];
    out.number(stored.holes[i]);
    out.number(hole.tensor);
    out.number(static_cast<uint64_t>(hole.array) << 2 | static_cast<uint64_t>(hole.rows) << 1 | hole.transposed);
    out.number(static_cast<uint64_t>(hole.dtype));
  }
}

/// `text` is the other form's, as stored.
Form parse_quantized(const std::vector<TensorEntry>& tensors, std::string_view full, Reader& in) {
  Form form;
  const std::string text = parse_difference(full, in);
  // Codes, scales and zero points.
  form.holes.resize(in.number(3 * tensors.size(), "the number of arrays"));
  std::vector<size_t> gaps;
  for (Hole& hole : form.holes) {
    gaps.push_back(in.number(SIZE_MAX, "the place of an array"));
    if (tensors.empty()) bad(in.place(), "an array of no tensor");
    hole.tensor = in.number(tensors.size() - 1, "the number of a tensor");
    const size_t what = in.number(static_cast<uint64_t>(StoredArray::ZeroPoints) << 2 | 3, "the kind of array");
    hole.array = static_cast<StoredArray>(what >> 2);
    hole.rows = what >> 1 & 1;
    hole.transposed = what & 1;
    hole.dtype = static_cast<DType>(in.number(static_cast<uint64_t>(DType::Complex128), "the type of an array"));
  }
  place(tensors, text, gaps, form, in);
  return form;
}

void print_history(const History& history, Writer& out) {
  out.number(history.recipes.size());
  for (const std::string& recipe : history.recipes) out.text(recipe);
  out.number(history.file_bytes);
  // The upper half of a float's bits is as exact as anybody wants to know it.
  out.number(history.noise ? 1 + (std::bit_cast<uint32_t>(*history.noise) >> 16) : 0);
}

History parse_history(Reader& in) {
  History history;
  history.recipes.resize(in.number(kMostRecipes, "the number of recipes"));
  for (std::string& recipe : history.recipes) recipe = in.text();
  history.file_bytes = in.number(SIZE_MAX, "the size of the first file");
  if (const size_t noise = in.number(1 << 16, "the error"))
    history.noise = std::bit_cast<float>(static_cast<uint32_t>(noise - 1) << 16);
  return history;
}

codec::ByteModel header_model(size_t size) {
  codec::ByteModel model(kTeaching.size() + size, 1);
  model.learn(kTeaching);
  return model;
}

/// What stands before the coded header.
struct Prefix {
  size_t bytes = 0, coded = 0, header = 0;
};

/// Nothing where `start` ends before the numbers do.
std::optional<Prefix> parse_prefix(std::span<const uint8_t> start) {
  constexpr size_t kMostPrefix = sizeof(kMagic) + 18;
  const size_t seen = std::min(start.size(), sizeof(kMagic));
  if (!std::equal(start.begin(), start.begin() + static_cast<ptrdiff_t>(std::min<size_t>(seen, 3)), kMagic))
    bad("byte 0", "this is not a .nib file");
  if (seen == sizeof(kMagic) && start[3] != kVersion) {
    fail(ErrorCode::Unsupported, "byte 3",
         "this .nib file has version " + std::to_string(start[3]) + ", this Nibble reads version " +
             std::to_string(kVersion) + "; a newer one may be able to read it");
  }
  std::span<const uint8_t> left = start.subspan(seen);
  uint64_t coded = 0, header = 0;
  if (!codec::take_varint(left, coded) || !codec::take_varint(left, header)) {
    if (start.size() >= kMostPrefix) bad("byte 4", "the sizes of the header are damaged");
    return std::nullopt;
  }
  if (header > kMostHeader || coded > kMostHeader || header / kMostRatio > coded)
    bad("byte 4", "a header of " + std::to_string(header) + " bytes in " + std::to_string(coded) + " is not possible");
  return Prefix{start.size() - left.size(), static_cast<size_t>(coded), static_cast<size_t>(header)};
}

}  // namespace

void complete(TensorEntry& tensor) {
  tensor.elements = elements_of(tensor.shape, tensor.name);
  tensor.bytes = bytes_for(tensor.dtype, tensor.elements);
  const bool real = is_real(tensor.dtype);
  const bool possible = tensor.values == Values::Integers  ? !real && bits_of(tensor.dtype) <= 64
                        : tensor.values == Values::Floats  ? real && bits_of(tensor.dtype) <= 32
                        : tensor.values == Values::Palette ? real
                        : tensor.values == Values::Grid    ? real && tensor.elements
                                                           : true;
  if (!possible) bad(tensor.name, "a tensor of its type does not have values of this kind");
  if (tensor.values != Values::Grid) return;
  const QuantScheme& scheme = tensor.scheme;
  if (scheme.bits < 1 || (scheme.bits > 8 && scheme.bits != 16))
    bad(tensor.name, "a grid of " + std::to_string(scheme.bits) + " bits, expected 1 to 8 or 16");
  tensor.rows = rows_of(tensor.shape, uses_rows(scheme) ? tensor.channel_axis : std::nullopt);
  tensor.group = scheme.granularity == Granularity::Group ? std::min(scheme.group_size, tensor.rows.length())
                                                          : tensor.rows.length();
  tensor.groups = groups_of(tensor.rows.length(), tensor.group);
  tensor.scales = tensor.rows.channels * tensor.groups;
}

size_t bytes_of_hole(const Hole& hole, const TensorEntry& tensor) {
  if (hole.array == StoredArray::Values) {
    if (hole.dtype != tensor.dtype) bad(tensor.name, "a place for its values has another type");
    return tensor.bytes;
  }
  if (tensor.values != Values::Grid) bad(tensor.name, "has no codes, but a place for them");
  if (hole.array == StoredArray::Scales) {
    if (hole.dtype != DType::Float32) bad(tensor.name, "scales of another type than float32");
    return bytes_for(DType::Float32, tensor.scales);
  }
  switch (hole.dtype) {
    case DType::Int4:
    case DType::UInt4:
    case DType::Int8:
    case DType::UInt8:
    case DType::Int16:
    case DType::UInt16: break;
    default: bad(tensor.name, "codes of a type that is no integer of 4, 8 or 16 bits");
  }
  return bytes_for(hole.dtype, hole.array == StoredArray::Codes ? tensor.elements : tensor.scales);
}

uint32_t crc32(std::span<const uint8_t> bytes) {
  static const auto table = [] {
    std::vector<uint32_t> entries(256);
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t entry = i;
      for (int bit = 0; bit < 8; ++bit) entry = entry & 1 ? entry >> 1 ^ 0xEDB88320u : entry >> 1;
      entries[i] = entry;
    }
    return entries;
  }();
  uint32_t crc = ~0u;
  for (const uint8_t byte : bytes) crc = table[(crc ^ byte) & 255] ^ crc >> 8;
  return ~crc;
}

size_t header_extent(std::span<const uint8_t> start) {
  const std::optional<Prefix> prefix = parse_prefix(start);
  return prefix ? prefix->bytes + prefix->coded + 4 : 0;
}

Container parse_header(std::span<const uint8_t> start) {
  const std::optional<Prefix> prefix = parse_prefix(start);
  const size_t extent = prefix ? prefix->bytes + prefix->coded + 4 : 0;
  if (!prefix || start.size() < extent)
    bad("byte " + std::to_string(start.size()), "the file ends within its header: it is cut off");
  Reader crc(start.subspan(extent - 4, 4), "checksum");
  if (crc.word() != crc32(start.first(extent - 4)))
    bad("byte " + std::to_string(extent - 4), "the header's checksum does not fit: the file is damaged");

  std::vector<uint8_t> header(prefix->header);
  codec::RangeDecoder coder(start.subspan(prefix->bytes, prefix->coded));
  header_model(header.size()).code(coder, header);

  Reader in(header, "header");
  Container container;
  container.header_bytes = extent;
  container.format = static_cast<Format>(in.number(static_cast<uint64_t>(Format::Safetensors), "the format"));
  const bool quantized = in.number(1, "the flags") != 0;
  const size_t tensors = in.number(kMostTensors, "the number of tensors");
  for (size_t i = 0; i < tensors; ++i) container.tensors.push_back(parse_tensor(in));
  const size_t blocks = in.number(tensors, "the number of blocks");
  size_t offset = extent, first = 0;
  for (size_t i = 0; i < blocks; ++i) {
    BlockEntry block;
    block.coder = static_cast<EntropyCoder>(in.number(static_cast<uint64_t>(EntropyCoder::Huffman), "the coder"));
    block.tensors = in.number(tensors - first, "the number of tensors in a block");
    block.bytes = in.number(SIZE_MAX - offset, "the size of a block");
    block.crc = in.word();
    if (block.coder == EntropyCoder::Auto || block.tensors == 0 ||
        (block.coder != EntropyCoder::Cabac && block.tensors != 1))
      bad(in.place(), "a block of " + std::to_string(block.tensors) + " tensors");
    block.offset = offset;
    block.first = first;
    offset += block.bytes;
    first += block.tensors;
    container.blocks.push_back(block);
  }
  if (first != tensors) bad(in.place(), "the blocks do not hold all tensors");
  std::string text;
  container.full = parse_full(container.tensors, text, in);
  if (quantized) container.quantized = parse_quantized(container.tensors, text, in);
  container.history = parse_history(in);
  if (in.left()) bad(in.place(), std::to_string(in.left()) + " bytes are left over");
  return container;
}

std::vector<uint8_t> print_header(const Container& container) {
  if (container.tensors.size() > kMostTensors || container.history.recipes.size() > kMostRecipes) {
    fail(ErrorCode::Unsupported, "model",
         "it has " + std::to_string(container.tensors.size()) + " tensors and " +
             std::to_string(container.history.recipes.size()) + " recipes; a .nib takes " +
             std::to_string(kMostTensors) + " and " + std::to_string(kMostRecipes));
  }
  Writer out;
  out.number(static_cast<uint64_t>(container.format));
  out.number(container.quantized.has_value());
  out.number(container.tensors.size());
  for (const TensorEntry& tensor : container.tensors) print_tensor(tensor, out);
  out.number(container.blocks.size());
  for (const BlockEntry& block : container.blocks) {
    out.number(static_cast<uint64_t>(block.coder));
    out.number(block.tensors);
    out.number(block.bytes);
    out.word(block.crc);
  }
  print_full(container.tensors, container.full, out);
  if (container.quantized) print_quantized(container.tensors, container.full, *container.quantized, out);
  print_history(container.history, out);
  return std::move(out.bytes);
}

std::vector<uint8_t> seal_header(std::vector<uint8_t> header) {
  if (header.size() > kMostHeader) {
    fail(ErrorCode::Unsupported, "graph",
         "without its tensors the file still has " + std::to_string(header.size()) + " bytes; a .nib takes 64 MiB");
  }
  std::vector<uint8_t> coded;
  codec::RangeEncoder coder(coded);
  header_model(header.size()).code(coder, header);
  coder.finish();
  coded.resize(std::max(coded.size(), header.size() / kMostRatio));  // a decoder reads no further than it must
  Writer file;
  file.bytes.assign(std::begin(kMagic), std::end(kMagic));
  file.number(coded.size());
  file.number(header.size());
  file.bytes.insert(file.bytes.end(), coded.begin(), coded.end());
  file.word(crc32(file.bytes));
  return std::move(file.bytes);
}

}  // namespace nibble::nib
