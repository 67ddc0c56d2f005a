// Reading protobuf messages that nobody vouches for: fields one by one, each held against its type and its length.
#pragma once

#include <protozero/pbf_reader.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "core/base/error.hpp"

namespace nibble::onnx {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

[[noreturn]] inline void bad(const std::string& where, const std::string& message) {
  fail(ErrorCode::BadFile, where, message);
}

inline std::string text_of(const protozero::data_view& view) { return {view.data(), view.size()}; }

/// Where pointers have 32 bits, protozero takes a length of 2 GiB and more for a negative one and walks backwards; and
/// it cuts lengths to 32 bits everywhere. So every length is held against what is left before protozero follows it.
inline void check_length(const pbf_reader& reader) {
  if (reader.wire_type() != pbf_wire_type::length_delimited) return;
  const protozero::data_view rest = reader.data();
  const char* at = rest.data();
  const char* const end = at + rest.size();
  const uint64_t length = protozero::decode_varint(&at, end);
  if (length > static_cast<uint64_t>(end - at)) throw protozero::end_of_buffer_exception{};
}

/// Walks the fields of one message. `handle(field, reader)` returns true where it has read the field; any other field
/// is skipped and its encoded bytes are appended to `extra`.
template <class Field, class Handle>
void read_fields(const protozero::data_view& message, std::string& extra, const Handle& handle) {
  pbf_reader reader(message);
  const char* const end = message.data() + message.size();
  const char* start = message.data();
  while (reader.next()) {
    check_length(reader);
    if (!handle(static_cast<Field>(reader.tag()), reader)) {
      reader.skip();
      const char* stop = end - reader.length();
      extra.append(start, stop);
    }
    start = end - reader.length();
  }
}

inline void want(pbf_wire_type expected, const pbf_reader& reader, const std::string& where) {
  if (reader.wire_type() != expected) {
    bad(where, "field " + std::to_string(reader.tag()) + " has wire type " +
                   std::to_string(static_cast<int>(reader.wire_type())) + " where onnx.proto has " +
                   std::to_string(static_cast<int>(expected)));
  }
}

inline protozero::data_view bytes_field(pbf_reader& reader, const std::string& where) {
  want(pbf_wire_type::length_delimited, reader, where);
  return reader.get_view();
}

inline std::string string_field(pbf_reader& reader, const std::string& where) {
  return text_of(bytes_field(reader, where));
}

inline int64_t int_field(pbf_reader& reader, const std::string& where) {
  want(pbf_wire_type::varint, reader, where);
  return reader.get_int64();
}

/// A repeated scalar, packed or not: appends to `out`. Get is a member of pbf_reader for one element, Packed for many.
template <class T, class Get, class Packed>
void repeated(pbf_reader& reader, std::vector<T>& out, const std::string& where, Get get, Packed packed) {
  if (reader.wire_type() == pbf_wire_type::length_delimited) {
    for (const auto value : (reader.*packed)()) out.push_back(static_cast<T>(value));
  } else {
    constexpr pbf_wire_type kOne = std::is_same_v<T, float>    ? pbf_wire_type::fixed32
                                   : std::is_same_v<T, double> ? pbf_wire_type::fixed64
                                                               : pbf_wire_type::varint;
    want(kOne, reader, where);
    out.push_back(static_cast<T>((reader.*get)()));
  }
}

}  // namespace nibble::onnx
