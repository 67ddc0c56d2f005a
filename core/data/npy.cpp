// NumPy's file format: a magic string, a version, a header that is a Python dictionary, the values
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#include <optional>

#include "core/data/read.hpp"

namespace nibble {

namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

/// Reads the dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, keys in any order.
class Header {
 public:
  Header(std::string_view text, std::string_view file, size_t offset) : text_(text), file_(file), offset_(offset) {
    expect('{');
    while (!next_is('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr") {
        once(type_byte_.has_value(), key);
        skip_space();
        type_byte_ = offset_ + at_;
        if (at_ < text_.size() && text_[at_] == '[') {
          fail(ErrorCode::Unsupported, std::string(file_),
               "records with named fields are not read; save each field as an array of its own");
        }
        type = string();
      } else if (key == "fortran_order") {
        once(fortran_.has_value(), key);
        fortran_ = boolean();
      } else if (key == "shape") {
        once(shape_.has_value(), key);
        shape_ = tuple();
      } else {
        refuse("an entry \"" + key + "\" in the header; expected descr, fortran_order and shape");
      }
      if (!next_is(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size()) refuse("the header goes on after its closing brace");
    if (!type_byte_ || !fortran_ || !shape_) refuse("the header lacks descr, fortran_order or shape");
  }

  std::string type;
  size_t type_byte() const { return *type_byte_; }
  bool fortran() const { return *fortran_; }
  const Shape& shape() const { return *shape_; }

 private:
  [[noreturn]] void refuse(std::string message) const { fail_at(file_, offset_ + at_, std::move(message)); }

  void once(bool had, const std::string& key) const {
    if (had) refuse("the header names \"" + key + "\" twice");
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }

  /// Steps over `c` where it comes next.
  bool next_is(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!next_is(c)) refuse(std::string("expected \"") + c + "\" in the header");
  }

  std::string string() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') refuse("expected a string in the header");
    const size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) refuse("a string of the header does not end");
    std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }

  bool boolean() {
    skip_space();
    for (const auto& [word, value] : {std::pair<std::string_view, bool>{"True", true}, {"False", false}}) {
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    refuse("expected True or False in the header");
  }

  Shape tuple() {
    constexpr size_t kMostDimensions = 64;  // NumPy's own limit
    Shape shape;
    expect('(');
    while (!next_is(')')) {
      if (shape.size() == kMostDimensions) refuse("more than 64 dimensions");
      shape.push_back(number());
      if (next_is(',')) continue;
      expect(')');
      break;
    }
    return shape;
  }

  size_t number() {
    skip_space();
    const size_t start = at_;
    size_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const auto digit = static_cast<size_t>(text_[at_] - '0');
      if (value > (SIZE_MAX - digit) / 10) refuse("an extent larger than any file");
      value = value * 10 + digit;
    }
    if (at_ == start) refuse("expected an extent (a whole number, 0 or more) in the header");
    if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 wrote 10L
    return value;
  }

  std::string_view text_, file_;
  size_t offset_, at_ = 0;
  std::optional<size_t> type_byte_;
  std::optional<bool> fortran_;
  std::optional<Shape> shape_;
};

struct ElementType {
  DType dtype;
  bool big_endian;
};

ElementType element_type(const Header& header, std::string_view file) {
  constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"b1", DType::Bool},   {"i1", DType::Int8},    {"u1", DType::UInt8},   {"i2", DType::Int16},
      {"u2", DType::UInt16}, {"i4", DType::Int32},   {"u4", DType::UInt32},  {"i8", DType::Int64},
      {"u8", DType::UInt64}, {"f2", DType::Float16}, {"f4", DType::Float32}, {"f8", DType::Float64},
  };
  const std::string_view type = header.type;
  const std::string_view letters = "<>=|";
  const bool has_order = !type.empty() && letters.find(type[0]) != std::string_view::npos;
  for (const auto& [name, dtype] : kTypes) {
    if (type.substr(has_order ? 1 : 0) == name) return {dtype, has_order && type[0] == '>'};
  }
  const char kind = type.size() > (has_order ? 1u : 0u) ? type[has_order ? 1 : 0] : '\0';
  const std::string way_out = "; save numbers instead: np.save(file, array.astype(\"float32\"))";
  const auto unsupported = [&](std::string_view what) {
    fail(ErrorCode::Unsupported, std::string(file), "the array holds " + std::string(what) + way_out);
  };
  switch (kind) {
    case 'O': unsupported("Python objects, which are not read (they could run code)"); break;
    case 'U':
    case 'S':
    case 'a': unsupported("strings"); break;
    case 'c': unsupported("complex numbers"); break;
    case 'm':
    case 'M': unsupported("dates or durations"); break;
    case 'V': unsupported("raw records"); break;
    case 'f': unsupported("floating-point numbers of type \"" + std::string(type) + "\""); break;
    default: break;
  }
  fail_at(file, header.type_byte(),
          "expected a type such as \"<f4\", found \"" + std::string(type.substr(0, 40)) + "\"");
}

}  // namespace

StoredArray npy_header(std::span<const std::byte> head, uint64_t size, std::string_view name) {
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  if (!text.starts_with(kMagic)) fail_at(name, 0, "expected a NumPy file (\\x93NUMPY)");
  const auto byte = [&](size_t at) { return static_cast<size_t>(static_cast<uint8_t>(text[at])); };
  if (text.size() < 8) fail_at(name, text.size(), "the file ends before its version");
  const size_t version = byte(6);
  if (version < 1 || version > 3) {
    fail(ErrorCode::Unsupported, std::string(name),
         "version " + std::to_string(version) + " of the NumPy format; versions 1 to 3 are read");
  }
  const size_t start = version == 1 ? 10 : 12;
  if (text.size() < start) fail_at(name, text.size(), "the file ends before the length of its header");
  uint64_t length = byte(8) | byte(9) << 8;
  if (version > 1) length |= uint64_t{byte(10)} << 16 | uint64_t{byte(11)} << 24;
  if (length > size - start) {
    fail_at(name, 8,
            "a header of " + std::to_string(length) + " bytes is announced, " + std::to_string(size - start) +
                " bytes follow: the file is incomplete");
  }
  if (length > text.size() - start) {
    fail(ErrorCode::Unsupported, std::string(name) + ", byte 8",
         "a header of " + std::to_string(length) + " bytes; of files this large one of " +
             std::to_string(text.size() - start) + " is read");
  }
  const Header header(text.substr(start, static_cast<size_t>(length)), name, start);
  const ElementType type = element_type(header, name);
  StoredArray array{.dtype = type.dtype,
                    .shape = header.shape(),
                    .start = start + static_cast<size_t>(length),
                    .big_endian = type.big_endian,
                    .fortran = header.fortran()};
  check_size(array, size, name);
  return array;
}

Tensor read_npy(std::span<const std::byte> file, std::string_view name) {
  return read_array(file, npy_header(file, file.size(), name));
}

}  // namespace nibble
