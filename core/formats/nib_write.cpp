// Model to .nib: what each tensor is coded as, which tensors share a block, and the forms of the file with holes.
#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/codec/huffman.hpp"
#include "core/codec/rans_levels.hpp"
#include "core/formats/grid_codes.hpp"
#include "core/formats/nib.hpp"

namespace nibble::nib {

namespace {

/// Blocks are closed when they have about so many bytes: what one fetches to get at one small tensor.
constexpr size_t kBlockBytes = size_t{16} * 1024;
constexpr uint64_t kBlockBits = uint64_t{kBlockBytes * 8} << 16;
/// What a block costs beside its stream: its entry in the header.
constexpr uint64_t kBlockOverheadBits = uint64_t{8 * 8} << 16;
/// Arrays up to this many bytes that are no weights stay in the text.
constexpr size_t kMostInText = 32;

// --- What a tensor is coded as ---------------------------------------------------------------------------------------

bool put_grid(const Param& param, const Weight* weight, Prepared& prepared) {
  const QuantParams& grid = *param.grid;
  TensorEntry& entry = prepared.entry;
  entry.values = Values::Grid;
  entry.scheme = grid.scheme;
  const Granularity granularity = grid.scheme.granularity;
  const std::optional<size_t> axis = weight ? weight->channel_axis : std::nullopt;
  if (granularity == Granularity::Channel || granularity == Granularity::Group) entry.channel_axis = axis;
  complete(entry);
  if (entry.scales != grid.scale.size()) return false;
  prepared.numbers.scales = grid.scale;
  if (!grid.scheme.symmetric) prepared.numbers.zero_points = grid.zero_point;
  prepared.numbers.levels.resize(entry.elements);
  return grid_levels(param, axis, prepared.numbers.levels);
}

/// The elements of an integer type, sign-extended; empty for types that are none.
std::vector<int64_t> integers_of(const Tensor& tensor) {
  const auto wide = [&](auto kind) {
    const auto values = tensor.data<decltype(kind)>();
    return std::vector<int64_t>(values.begin(), values.end());
  };
  const auto packed = [&](int bits, bool is_signed) {
    std::vector<int64_t> values(tensor.elements());
    const auto bytes = tensor.data<uint8_t>();
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t bit = i * static_cast<size_t>(bits);
      const int64_t value = bytes[bit / 8] >> (bit % 8) & ((1 << bits) - 1);
      values[i] = is_signed && value >> (bits - 1) ? value - (int64_t{1} << bits) : value;
    }
    return values;
  };
  switch (tensor.dtype()) {
    case DType::Int8: return wide(int8_t{});
    case DType::UInt8:
    case DType::Bool: return wide(uint8_t{});
    case DType::Int16: return wide(int16_t{});
    case DType::UInt16: return wide(uint16_t{});
    case DType::Int32: return wide(int32_t{});
    case DType::UInt32: return wide(uint32_t{});
    case DType::Int64: return wide(int64_t{});
    case DType::Int4: return packed(4, true);
    case DType::UInt4: return packed(4, false);
    case DType::Int2: return packed(2, true);
    case DType::UInt2: return packed(2, false);
    default: return {};
  }
}

bool put_integers(const Param& param, Prepared& prepared) {
  const std::vector<int64_t> values = integers_of(param.value);
  if (values.empty()) return false;
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  if (static_cast<uint64_t>(*most) - static_cast<uint64_t>(*least) > codec::kMostLevel) return false;
  // Level 0 is for the value that is there most often.
  std::unordered_map<int64_t, size_t> counts;
  for (const int64_t value : values) ++counts[value];
  int64_t offset = values[0];
  for (const int64_t value : values) {
    if (counts[value] > counts[offset]) offset = value;
  }
  prepared.entry.values = Values::Integers;
  prepared.numbers.offset = offset;
  for (const int64_t value : values) prepared.numbers.levels.push_back(static_cast<int32_t>(value - offset));
  return true;
}

/// Bit patterns of a real type.
std::vector<uint64_t> patterns_of(const Tensor& tensor) {
  const size_t width = static_cast<size_t>(bits_of(tensor.dtype())) / 8;
  std::vector<uint64_t> patterns(tensor.elements());
  for (size_t i = 0; i < patterns.size(); ++i) std::memcpy(&patterns[i], tensor.bytes().data() + i * width, width);
  return patterns;
}

/// Where few different numbers stand, in the order of their values, so that near levels are near numbers.
bool put_palette(const Param& param, const std::vector<uint64_t>& patterns, Prepared& prepared) {
  constexpr size_t kMost = 4096, kUses = 4;
  std::unordered_map<uint64_t, int32_t> places;
  for (const uint64_t pattern : patterns) {
    places.try_emplace(pattern, 0);
    if (!param.codebook && (places.size() > kMost || places.size() * kUses > patterns.size())) return false;
  }
  const uint64_t sign = uint64_t{1} << (bits_of(param.value.dtype()) - 1);
  const auto order = [&](uint64_t pattern) { return pattern & sign ? ~pattern & (2 * sign - 1) : pattern | sign; };
  Numbers& numbers = prepared.numbers;
  for (const auto& [pattern, place] : places) numbers.palette.push_back(pattern);
  std::sort(numbers.palette.begin(), numbers.palette.end(),
            [&](uint64_t a, uint64_t b) { return order(a) < order(b); });
  for (size_t i = 0; i < numbers.palette.size(); ++i) places[numbers.palette[i]] = static_cast<int32_t>(i);
  const auto zero = places.find(0);
  numbers.zero = zero == places.end() ? 0 : zero->second;
  prepared.entry.values = Values::Palette;
  prepared.entry.shared = param.codebook.has_value();
  for (const uint64_t pattern : patterns) numbers.levels.push_back(places[pattern] - numbers.zero);
  return true;
}

Prepared start(const Param& param) {
  Prepared prepared;
  prepared.entry.name = param.name;
  prepared.entry.dtype = param.value.dtype();
  prepared.entry.shape = param.value.shape();
  prepared.entry.masked = param.mask.has_value();
  complete(prepared.entry);
  return prepared;
}

/// Whether decoding gives the very bytes of the param.
bool is_exact(const Param& param, const Prepared& prepared) {
  std::vector<uint8_t> decoded(param.value.bytes().size());
  fill({0, StoredArray::Values, param.value.dtype(), false, false, 0, decoded.size()}, prepared.entry, prepared.numbers,
       decoded);
  return std::memcmp(decoded.data(), param.value.bytes().data(), decoded.size()) == 0;
}

/// Codes it in a block of its own.
void weigh(Prepared& prepared) {
  if (has_levels(prepared.entry) && !prepared.numbers.choice)
    prepared.numbers.choice = codec::choose_model(prepared.numbers.levels, codec::widths_of(prepared.entry.shape));
  std::vector<uint64_t> bits;
  encode_block({&prepared.entry, 1}, {&prepared.numbers, 1}, prepared.coder, &bits);
  prepared.bits = bits[0];
}

// --- Forms -----------------------------------------------------------------------------------------------------------

/// `entries`: which tensor a param is; params that are none, and those that only this form has, are text.
Form form_of(const Rope& rope, const std::unordered_map<size_t, size_t>& entries) {
  Form form;
  size_t filled = 0;
  rope.visit([&](const std::string& text) { form.text += text; },
             [&](const Source& source, size_t size, const std::function<Tensor()>& make) {
               const auto entry = entries.find(source.param);
               if (entry == entries.end()) {
                 form.text += as_text(make());
                 return;
               }
               form.holes.push_back({entry->second, source.array, source.dtype, source.rows, source.transposed,
                                     form.text.size() + filled, size});
               filled += size;
             });
  form.bytes = form.text.size() + filled;
  return form;
}

/// Which params are weights.
std::unordered_map<size_t, const Weight*> weights_of(const Model& model) {
  std::unordered_map<size_t, const Weight*> weights;
  for (const Weight& weight : *model.weights) weights.emplace(weight.param, &weight);
  return weights;
}

/// The file with all values in full.
Rope full_rope(const Model& model) {
  WritePlan plan{model.header->format, model.header->format == Format::Onnx ? opset_of(*model.header) : 0, {}, {}, {}};
  plan.weights.resize(model.weights->size());
  return write_model(model, plan);
}

/// The bytes before the first block; `container` has its tensors and blocks, `entries` says which params they are.
std::vector<uint8_t> header_of(const Model& model, const Rope& full, const std::unordered_map<size_t, size_t>& entries,
                               Container container) {
  container.format = model.header->format;
  if (model.history) container.history = *model.history;
  container.full = form_of(full, entries);
  if (container.format == Format::Onnx && model.coding.quantized_form) {
    const WritePlan plan = plan_onnx(model);
    if (std::any_of(plan.weights.begin(), plan.weights.end(), [](const Storage& storage) { return storage.quantized; }))
      container.quantized = form_of(write_onnx(model, plan), entries);
  }
  return seal_header(print_header(container));
}

}  // namespace

Prepared prepare(const Param& param, const Weight* weight, EntropyCoder coder) {
  std::vector<Prepared> candidates;
  const auto offer = [&](const auto& put) {
    Prepared prepared = start(param);
    if (put(prepared) && is_exact(param, prepared)) candidates.push_back(std::move(prepared));
    return !candidates.empty();
  };
  const bool small = param.value.elements() <= 4096;  // cheap enough to try everything
  if (param.grid) offer([&](Prepared& prepared) { return put_grid(param, weight, prepared); });
  if (candidates.empty()) offer([&](Prepared& prepared) { return put_integers(param, prepared); });
  if (candidates.empty() && is_real(param.value.dtype())) {
    const std::vector<uint64_t> patterns = patterns_of(param.value);
    const bool listed = offer([&](Prepared& prepared) { return put_palette(param, patterns, prepared); });
    // A long list of numbers that hardly repeat may take more than the numbers themselves.
    const bool surely = listed && !small && candidates[0].numbers.palette.size() <= 64;
    if (param.value.dtype() != DType::Float64 && !surely) {
      offer([&](Prepared& prepared) {
        prepared.entry.values = Values::Floats;
        prepared.numbers.patterns.assign(patterns.begin(), patterns.end());
        return true;
      });
    }
  }
  // A promise is kept, whatever it costs.
  const bool promised =
      !candidates.empty() && (candidates[0].entry.values == Values::Grid || candidates[0].entry.shared);
  if (promised) candidates.resize(1);
  if (candidates.empty() || (small && !promised)) {
    offer([&](Prepared& prepared) {
      prepared.entry.values = Values::Bytes;
      const auto bytes = param.value.data<uint8_t>();
      prepared.numbers.bytes.assign(bytes.begin(), bytes.end());
      return true;
    });
  }
  for (Prepared& candidate : candidates) weigh(candidate);
  Prepared& best = *std::min_element(candidates.begin(), candidates.end(),
                                     [](const Prepared& a, const Prepared& b) { return a.bits < b.bits; });
  if (!has_levels(best.entry) || coder == EntropyCoder::Cabac) return std::move(best);
  Prepared other = best;
  for (const EntropyCoder tried : {EntropyCoder::Rans, EntropyCoder::Huffman}) {
    if (coder != EntropyCoder::Auto && coder != tried) continue;
    other.coder = tried;
    weigh(other);
    if (coder == tried || other.bits + kBlockOverheadBits < best.bits) {
      best.coder = tried;
      best.bits = other.bits;
    }
  }
  return std::move(best);
}

std::optional<Prepared> promised_levels(const Param& param, const Weight* weight) {
  Prepared prepared = start(param);
  const bool put = param.grid       ? put_grid(param, weight, prepared)
                   : param.codebook ? put_palette(param, patterns_of(param.value), prepared)
                                    : false;
  if (!put) return std::nullopt;
  return prepared;
}

bool stays_in_text(const Param& param, bool is_weight) {
  return !is_weight && param.value.bytes().size() <= kMostInText;
}

File encode(const Model& model, const std::function<void(size_t, const Prepared&)>& seen) {
  const std::unordered_map<size_t, const Weight*> weights = weights_of(model);
  const Rope rope = full_rope(model);

  File file;
  file.bits.assign(model.params.size(), 0);
  file.coders.assign(model.params.size(), EntropyCoder::Cabac);
  Container container;
  std::unordered_map<size_t, size_t> entries;
  std::vector<uint8_t> blocks;
  std::vector<TensorEntry> open_entries;
  std::vector<Numbers> open_numbers;
  std::vector<size_t> open_params;
  uint64_t open_bits = 0;
  const auto close = [&](EntropyCoder coder) {
    if (open_entries.empty()) return;
    std::vector<uint64_t> bits;
    const std::vector<uint8_t> bytes = encode_block(open_entries, open_numbers, coder, &bits);
    container.blocks.push_back({coder, open_entries.size(), bytes.size(), crc32(bytes), 0, 0});
    blocks.insert(blocks.end(), bytes.begin(), bytes.end());
    for (size_t i = 0; i < open_params.size(); ++i) file.bits[open_params[i]] = bits[i];
    open_entries.clear();
    open_numbers.clear();
    open_params.clear();
    open_bits = 0;
  };
  rope.visit([](const std::string&) {},
             [&](const Source& source, size_t, const std::function<Tensor()>&) {
               const Param& param = model.params[source.param];
               const auto weight = weights.find(source.param);
               if (stays_in_text(param, weight != weights.end())) return;
               Prepared prepared =
                   prepare(param, weight == weights.end() ? nullptr : weight->second, model.coding.coder);
               if (seen) seen(source.param, prepared);
               entries.emplace(source.param, container.tensors.size());
               container.tensors.push_back(prepared.entry);
               file.coders[source.param] = prepared.coder;
               const bool alone = prepared.coder != EntropyCoder::Cabac;
               if (alone) close(EntropyCoder::Cabac);
               open_entries.push_back(std::move(prepared.entry));
               open_numbers.push_back(std::move(prepared.numbers));
               open_params.push_back(source.param);
               open_bits += prepared.bits;
               if (alone || open_bits >= kBlockBits) close(prepared.coder);
             });
  close(EntropyCoder::Cabac);

  file.bytes = header_of(model, rope, entries, std::move(container));
  file.header_bytes = file.bytes.size();
  file.bytes.insert(file.bytes.end(), blocks.begin(), blocks.end());
  return file;
}

size_t estimate_header(const Model& model, const std::function<Outline(size_t)>& outline) {
  const std::unordered_map<size_t, const Weight*> weights = weights_of(model);
  const Rope rope = full_rope(model);
  Container container;
  std::unordered_map<size_t, size_t> entries;
  BlockEntry open;
  const auto close = [&](EntropyCoder coder) {
    if (!open.tensors) return;
    open.coder = coder;
    // Nobody can tell a checksum before, so any will do.
    open.crc = 0x9E3779B1u * static_cast<uint32_t>(container.blocks.size() + 1);
    container.blocks.push_back(open);
    open = {};
  };
  rope.visit([](const std::string&) {},
             [&](const Source& source, size_t, const std::function<Tensor()>&) {
               if (stays_in_text(model.params[source.param], weights.contains(source.param))) return;
               Outline param = outline(source.param);
               entries.emplace(source.param, container.tensors.size());
               container.tensors.push_back(std::move(param.entry));
               const bool alone = param.coder != EntropyCoder::Cabac;
               if (alone) close(EntropyCoder::Cabac);
               ++open.tensors;
               open.bytes += param.bytes;
               if (alone || open.bytes >= kBlockBytes) close(param.coder);
             });
  close(EntropyCoder::Cabac);
  return header_of(model, rope, entries, std::move(container)).size();
}

}  // namespace nibble::nib
