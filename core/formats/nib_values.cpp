#include "core/formats/nib_values.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/error.hpp"
#include "core/codec/bytes.hpp"
#include "core/codec/floats.hpp"
#include "core/codec/huffman.hpp"
#include "core/codec/levels.hpp"
#include "core/codec/rans_levels.hpp"
#include "core/codec/tokens.hpp"
#include "core/kernels/kernels.hpp"

namespace nibble::nib {

namespace {

using codec::Widths;

[[noreturn]] void bad(const std::string& where, const std::string& message) {
  fail(ErrorCode::BadFile, where, message);
}

/// Bytes of one number of a type, for contexts; 1 where several share a byte.
size_t stride_of(DType dtype) { return std::max<size_t>(static_cast<size_t>(bits_of(dtype)) / 8, 1); }

/// A number of `bits` bits.
template <class Coder>
uint64_t code_wide(Coder& coder, uint64_t value, int bits) {
  uint64_t coded = 0;
  for (int at = 0; at < bits; at += 16) {
    const int count = std::min(16, bits - at);
    coded |= uint64_t{coder.bits(static_cast<uint32_t>(value >> at & ((1u << count) - 1)), count)} << at;
  }
  return coded;
}

/// A number of any size, small ones in few bits.
template <class Coder>
int64_t code_signed(Coder& coder, int64_t value) {
  const uint64_t folded = static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63);
  const auto width = static_cast<int>(coder.bits(static_cast<uint32_t>(std::bit_width(folded)), 7));
  const uint64_t coded = code_wide(coder, folded, std::min(width, 64));
  return static_cast<int64_t>(coded >> 1) ^ -static_cast<int64_t>(coded & 1);
}

/// Everything but levels that are coded elsewhere, in one body for both directions. All scales of a block are alike and
/// share a model; other floats are biases, means and variances by turns, and each tensor does better with its own.
template <class Coder>
class BlockCoder {
 public:
  explicit BlockCoder(Coder& coder) : coder_(coder) {}

  /// `in_place`: the levels too.
  void code(const TensorEntry& tensor, Numbers& numbers, bool in_place) {
    switch (tensor.values) {
      case Values::Grid: {
        numbers.scales.resize(tensor.scales);
        // Floats and their bits have the same size.
        std::vector<uint32_t> bits(tensor.scales);
        std::memcpy(bits.data(), numbers.scales.data(), 4 * bits.size());
        scale_model_.code(coder_, bits, tensor.groups);
        std::memcpy(numbers.scales.data(), bits.data(), 4 * bits.size());
        if (!tensor.scheme.symmetric) {
          numbers.zero_points.resize(tensor.scales);
          const size_t shape[2] = {tensor.rows.channels, tensor.groups};
          code_levels(numbers.zero_points, codec::widths_of(shape), {});
        }
        break;
      }
      case Values::Palette: code_palette(tensor, numbers); break;
      case Values::Integers: numbers.offset = code_signed(coder_, numbers.offset); break;
      case Values::Floats:
        numbers.patterns.resize(tensor.elements);
        codec::FloatModel(float_format(tensor.dtype))
            .code(coder_, numbers.patterns, codec::widths_of(tensor.shape).of[0]);
        break;
      case Values::Bytes: {
        numbers.bytes.resize(tensor.bytes);
        codec::ByteModel model(tensor.bytes, stride_of(tensor.dtype));
        model.code(coder_, numbers.bytes);
        break;
      }
    }
    if (!has_levels(tensor) || !in_place) return;
    numbers.levels.resize(tensor.elements);
    code_levels(numbers.levels, codec::widths_of(tensor.shape), numbers.choice);
  }

 private:
  void code_levels(std::vector<int32_t>& levels, const Widths& widths,
                   const std::optional<codec::LevelChoice>& choice) {
    if constexpr (Coder::kDecodes) {
      if (!codec::decode_levels(coder_, levels, widths)) bad("levels", "coded by a model that is not for so many");
    } else {
      codec::encode_levels(coder_, levels, widths, choice ? *choice : codec::choose_model(levels, widths));
    }
  }

  void code_palette(const TensorEntry& tensor, Numbers& numbers) {
    numbers.palette.resize(coder_.bits(static_cast<uint32_t>(numbers.palette.size()), 16));
    numbers.zero = static_cast<int32_t>(coder_.bits(static_cast<uint32_t>(numbers.zero), 16));
    if (tensor.dtype == DType::Float64) {
      for (uint64_t& entry : numbers.palette) entry = code_wide(coder_, entry, 64);
      return;
    }
    std::vector<uint32_t> bits(numbers.palette.begin(), numbers.palette.end());
    codec::FloatModel(float_format(tensor.dtype)).code(coder_, bits, std::max<size_t>(bits.size(), 1));
    std::copy(bits.begin(), bits.end(), numbers.palette.begin());
  }

  Coder& coder_;
  codec::FloatModel scale_model_{codec::kFloat32};
};

/// What fill() relies on: damaged streams decode to something, which need not make sense.
void check(const TensorEntry& tensor, const Numbers& numbers, const std::string& where) {
  if (tensor.values != Values::Palette) return;
  const auto count = static_cast<int64_t>(numbers.palette.size());
  for (const int32_t level : numbers.levels) {
    const int64_t index = int64_t{level} + numbers.zero;
    if (index < 0 || index >= count)
      bad(where, tensor.name + ": entry " + std::to_string(index) + " of a list of " + std::to_string(count));
  }
}

// --- Filling ---------------------------------------------------------------------------------------------------------

/// Calls visit(position, piece) for every element in storage order, piece being the index of its scale.
template <class Visit>
void for_each_scaled(const TensorEntry& tensor, const Visit& visit) {
  const Rows& rows = tensor.rows;
  size_t at = 0;
  for (size_t o = 0; o < rows.outer; ++o) {
    for (size_t c = 0; c < rows.channels; ++c) {
      for (size_t i = 0; i < rows.inner; ++i, ++at)
        visit(at, c * tensor.groups + (tensor.groups == 1 ? 0 : (o * rows.inner + i) / tensor.group));
    }
  }
}

void put_float(DType dtype, float value, size_t at, uint8_t* out) {
  switch (dtype) {
    case DType::Float16: kernels::float_to_half({&value, 1}, {reinterpret_cast<uint16_t*>(out + 2 * at), 1}); break;
    case DType::BFloat16:
      kernels::float_to_bfloat16({&value, 1}, {reinterpret_cast<uint16_t*>(out + 2 * at), 1});
      break;
    case DType::Float64: {
      const double wide = value;
      std::memcpy(out + 8 * at, &wide, 8);
      break;
    }
    default: std::memcpy(out + 4 * at, &value, 4);
  }
}

void fill_values(const TensorEntry& tensor, const Numbers& numbers, std::span<uint8_t> out) {
  const size_t width = stride_of(tensor.dtype);
  switch (tensor.values) {
    case Values::Grid:
      for_each_scaled(tensor, [&](size_t at, size_t piece) {
        put_float(tensor.dtype, numbers.scales[piece] * static_cast<float>(numbers.levels[at]), at, out.data());
      });
      return;
    case Values::Palette:
      for (size_t i = 0; i < tensor.elements; ++i) {
        const uint64_t pattern = numbers.palette[static_cast<size_t>(numbers.levels[i] + numbers.zero)];
        std::memcpy(out.data() + i * width, &pattern, width);
      }
      return;
    case Values::Integers: {
      const int bits = bits_of(tensor.dtype);
      if (bits < 8) std::fill(out.begin(), out.end(), uint8_t{0});
      for (size_t i = 0; i < tensor.elements; ++i) {
        const uint64_t value =
            static_cast<uint64_t>(int64_t{numbers.levels[i]}) + static_cast<uint64_t>(numbers.offset);
        if (bits < 8) {
          const size_t bit = i * static_cast<size_t>(bits);
          out[bit / 8] = static_cast<uint8_t>(out[bit / 8] | (value & ((1u << bits) - 1)) << (bit % 8));
        } else {
          std::memcpy(out.data() + i * width, &value, width);
        }
      }
      return;
    }
    case Values::Floats:
      for (size_t i = 0; i < tensor.elements; ++i) std::memcpy(out.data() + i * width, &numbers.patterns[i], width);
      return;
    case Values::Bytes: std::copy(numbers.bytes.begin(), numbers.bytes.end(), out.begin()); return;
  }
}

void put_code(DType dtype, int32_t code, size_t at, uint8_t* out) {
  switch (bits_of(dtype)) {
    case 4: out[at / 2] = static_cast<uint8_t>(out[at / 2] | (code & 15) << (4 * (at % 2))); break;
    case 8: out[at] = static_cast<uint8_t>(code); break;
    default: out[2 * at] = static_cast<uint8_t>(code); out[2 * at + 1] = static_cast<uint8_t>(code >> 8);
  }
}

}  // namespace

codec::FloatFormat float_format(DType dtype) {
  return dtype == DType::Float16 ? codec::kFloat16 : dtype == DType::BFloat16 ? codec::kBFloat16 : codec::kFloat32;
}

bool has_levels(const TensorEntry& tensor) {
  return tensor.values == Values::Grid || tensor.values == Values::Palette || tensor.values == Values::Integers;
}

void fill(const Hole& hole, const TensorEntry& tensor, const Numbers& numbers, std::span<uint8_t> out) {
  const auto place = [&](size_t piece) {
    if (!hole.transposed) return piece;
    return piece % tensor.groups * tensor.rows.channels + piece / tensor.groups;
  };
  switch (hole.array) {
    case StoredArray::Values: fill_values(tensor, numbers, out); return;
    case StoredArray::Scales:
      for (size_t i = 0; i < numbers.scales.size(); ++i) std::memcpy(out.data() + 4 * place(i), &numbers.scales[i], 4);
      return;
    case StoredArray::ZeroPoints:
      std::fill(out.begin(), out.end(), uint8_t{0});
      for (size_t i = 0; i < numbers.zero_points.size(); ++i)
        put_code(hole.dtype, numbers.zero_points[i], place(i), out.data());
      return;
    case StoredArray::Codes: break;
  }
  std::fill(out.begin(), out.end(), uint8_t{0});
  const Rows& rows = tensor.rows;
  for_each_scaled(tensor, [&](size_t at, size_t piece) {
    const int32_t code = numbers.levels[at] + (numbers.zero_points.empty() ? 0 : numbers.zero_points[piece]);
    size_t where = at;
    if (hole.rows) {
      const size_t inner = at % rows.inner, channel = at / rows.inner % rows.channels;
      where = channel * rows.length() + at / rows.inner / rows.channels * rows.inner + inner;
    }
    put_code(hole.dtype, code, where, out.data());
  });
}

uint64_t room_for(const TensorEntry& tensor) {
  const uint64_t elements = tensor.elements, scales = 8 * uint64_t{tensor.scales};
  const codec::Widths widths = codec::widths_of(tensor.shape);
  if (has_levels(tensor)) return 4 * elements + codec::decoding_room(elements, widths) + scales;
  if (tensor.values == Values::Floats) return 4 * elements + 2 * std::min<uint64_t>(widths.of[0], elements);
  // What the model of bytes has seen grows by doubling.
  return 4 * uint64_t{tensor.bytes};
}

std::vector<Numbers> decode_block(const Container& container, size_t block, std::span<const uint8_t> bytes) {
  const BlockEntry& entry = container.blocks[block];
  const std::string where = "block " + std::to_string(block);
  if (crc32(bytes) != entry.crc) bad(where, "its checksum does not fit: the file is damaged");
  const std::span<const TensorEntry> tensors = std::span(container.tensors).subspan(entry.first, entry.tensors);
  std::vector<Numbers> all(entry.tensors);
  if (entry.coder == EntropyCoder::Cabac) {
    codec::RangeDecoder coder(bytes);
    BlockCoder<codec::RangeDecoder> decoder(coder);
    for (size_t i = 0; i < tensors.size(); ++i) {
      decoder.code(tensors[i], all[i], true);
      check(tensors[i], all[i], where);
    }
    return all;
  }
  uint64_t side = 0;
  if (!has_levels(tensors[0]) || !codec::take_varint(bytes, side) || side > bytes.size())
    bad(where, "its side information is damaged");
  codec::RangeDecoder coder(bytes.first(static_cast<size_t>(side)));
  BlockCoder<codec::RangeDecoder>(coder).code(tensors[0], all[0], false);
  all[0].levels.resize(tensors[0].elements);
  const std::span<const uint8_t> stream = bytes.subspan(static_cast<size_t>(side));
  const bool decoded = entry.coder == EntropyCoder::Rans ? codec::rans_decode_levels(stream, all[0].levels)
                                                         : codec::huffman_decode(stream, all[0].levels);
  if (!decoded) bad(where, "its levels are damaged");
  check(tensors[0], all[0], where);
  return all;
}

std::vector<uint8_t> encode_block(std::span<const TensorEntry> tensors, std::span<Numbers> numbers, EntropyCoder coder,
                                  std::vector<uint64_t>* bits) {
  std::vector<uint8_t> side;
  codec::RangeEncoder encoder(side);
  BlockCoder<codec::RangeEncoder> block(encoder);
  uint64_t before = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    block.code(tensors[i], numbers[i], coder == EntropyCoder::Cabac);
    if (bits) bits->push_back(encoder.spent() - before);
    before = encoder.spent();
  }
  encoder.finish();
  if (coder == EntropyCoder::Cabac) return side;
  std::vector<uint8_t> out;
  codec::put_varint(out, side.size());
  out.insert(out.end(), side.begin(), side.end());
  const std::vector<uint8_t> stream = coder == EntropyCoder::Rans ? codec::rans_encode_levels(numbers[0].levels)
                                                                  : codec::huffman_encode(numbers[0].levels);
  out.insert(out.end(), stream.begin(), stream.end());
  if (bits) bits->back() = uint64_t{8 * out.size()} << 16;
  return out;
}

}  // namespace nibble::nib
