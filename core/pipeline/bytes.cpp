#include "core/pipeline/bytes.hpp"

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/base/json.hpp"
#include "core/codec/floats.hpp"
#include "core/codec/huffman.hpp"
#include "core/codec/rans_levels.hpp"
#include "core/formats/nib.hpp"
#include "core/kernels/kernels.hpp"

namespace nibble {

namespace {

constexpr double kBitCost = 1.0 / 65536 / 8;  // of codec's costs, in bytes

/// Bits of a code when all are packed at one width.
int code_bits(const Param& param, const nib::Prepared& prepared) {
  if (param.grid) return param.grid->scheme.bits;
  return std::max(1, static_cast<int>(std::bit_width(prepared.numbers.palette.size() - 1)));
}

WeightBytes of_levels(const Param& param, const nib::Prepared& prepared) {
  WeightBytes bytes;
  const size_t bits = static_cast<size_t>(code_bits(param, prepared));
  bytes.codes = static_cast<size_t>((uint64_t{prepared.entry.elements} * bits + 7) / 8);
  const nib::Numbers& numbers = prepared.numbers;
  // A codebook need not list the 0 of what was pruned, as in the report.
  const size_t shared = param.codebook ? param.codebook->centroids.size() : numbers.palette.size();
  bytes.scales = numbers.scales.size() * sizeof(float) + (numbers.zero_points.size() * bits + 7) / 8 +
                 shared * static_cast<size_t>(bits_of(prepared.entry.dtype)) / 8;
  bytes.entropy = codec::entropy_of(numbers.levels) / 8;
  return bytes;
}

void add_coders(const nib::Prepared& prepared, WeightBytes& bytes) {
  const std::span<const int32_t> levels = prepared.numbers.levels;
  const codec::Widths widths = codec::widths_of(prepared.entry.shape);
  codec::HuffmanSizes sizes;
  bytes.huffman = static_cast<double>(codec::huffman_encode(levels, -1, &sizes).size());
  bytes.huffman_index = static_cast<double>(sizes.index) / 8;
  bytes.rans = static_cast<double>(codec::rans_encode_levels(levels).size());
  const codec::LevelChoice choice =
      prepared.numbers.choice ? *prepared.numbers.choice : codec::choose_model(levels, widths);
  bytes.cabac = static_cast<double>(codec::cost_of_levels(levels, widths, choice)) * kBitCost;
  const codec::LevelCosts costs = codec::costs_of_levels(levels, widths, choice);
  bytes.parts.emplace();
  for (const uint64_t cost : costs.of) bytes.parts->push_back(static_cast<double>(cost) * kBitCost);
}

/// The share of `total` that a part of the elements stands for.
double scaled(double part, size_t of, size_t total) {
  return part * static_cast<double>(total) / static_cast<double>(std::max<size_t>(1, of));
}

/// Levels that the table-driven coders are tried on.
constexpr size_t kTried = size_t{1} << 16;

void estimate_coders(const nib::Prepared& prepared, WeightBytes& bytes) {
  const std::span<const int32_t> levels = prepared.numbers.levels;
  // What their tables take is the same however many levels follow; the rest grows with them.
  const auto grown = [&](auto size_of) {
    if (levels.size() <= kTried) return size_of(levels);
    const std::span<const int32_t> sample = levels.subspan((levels.size() - kTried) / 2, kTried);
    const double half = size_of(sample.first(kTried / 2)), both = size_of(sample);
    return both + scaled(both - half, kTried / 2, levels.size() - kTried);
  };
  double index = 0;
  bytes.huffman = grown([&](std::span<const int32_t> some) {
    codec::HuffmanSizes sizes;
    const auto size = static_cast<double>(codec::huffman_encode(some, -1, &sizes).size());
    index = scaled(static_cast<double>(sizes.index) / 8, some.size(), levels.size());
    return size;
  });
  bytes.huffman_index = index;
  bytes.rans =
      grown([](std::span<const int32_t> some) { return static_cast<double>(codec::rans_encode_levels(some).size()); });
  bytes.cabac = codec::estimate_cost(levels, codec::widths_of(prepared.entry.shape)) / 8;
}

double cost_of(codec::FloatModel& model, std::vector<uint32_t> patterns, size_t columns) {
  if (patterns.empty()) return 0;
  codec::BitCounter counter;
  model.code(counter, patterns, columns);
  return static_cast<double>(counter.cost()) * kBitCost;
}

/// What stands beside levels; `scales` is the model that all scales of a block share.
double estimate_scales(const nib::Prepared& prepared, codec::FloatModel& scales) {
  const nib::Numbers& numbers = prepared.numbers;
  double bytes = numbers.zero_points.empty() ? 0 : codec::entropy_of(numbers.zero_points) / 8;
  std::vector<uint32_t> patterns;
  for (const float scale : numbers.scales) patterns.push_back(std::bit_cast<uint32_t>(scale));
  bytes += cost_of(scales, std::move(patterns), std::max<size_t>(1, prepared.entry.groups));
  if (numbers.palette.empty()) return bytes;
  bytes += 4;  // the list's length, and the place of 0
  const DType dtype = prepared.entry.dtype;
  if (bits_of(dtype) > 32) return bytes + 8 * static_cast<double>(numbers.palette.size());
  codec::FloatModel model(nib::float_format(dtype));
  return bytes + cost_of(model, {numbers.palette.begin(), numbers.palette.end()}, numbers.palette.size());
}

/// A tensor without levels, by the first of its values.
double estimate_values(const Tensor& tensor) {
  constexpr size_t kSome = size_t{1} << 14;
  const DType dtype = tensor.dtype();
  if (!is_real(dtype) || bits_of(dtype) > 32) return static_cast<double>(tensor.bytes().size());
  const size_t count = std::min(kSome, tensor.elements());
  std::vector<uint32_t> patterns(count);
  for (size_t i = 0; i < count; ++i)
    patterns[i] = dtype == DType::Float32 ? tensor.data<uint32_t>()[i] : tensor.data<uint16_t>()[i];
  codec::FloatModel model(nib::float_format(dtype));
  return scaled(cost_of(model, std::move(patterns), codec::widths_of(tensor.shape()).of[0]), count, tensor.elements());
}

double coded(const WeightBytes& bytes, EntropyCoder coder) {
  switch (coder) {
    case EntropyCoder::Huffman: return *bytes.huffman;
    case EntropyCoder::Rans: return *bytes.rans;
    default: return *bytes.cabac;
  }
}

/// The one that the model wants, or the smallest, as nib::prepare has it.
EntropyCoder coder_of(const Model& model, const WeightBytes& bytes) {
  if (model.coding.coder != EntropyCoder::Auto) return model.coding.coder;
  EntropyCoder best = EntropyCoder::Cabac;
  for (const EntropyCoder other : {EntropyCoder::Rans, EntropyCoder::Huffman}) {
    if (coded(bytes, other) + 8 < coded(bytes, best)) best = other;
  }
  return best;
}

/// Text of a file up to which its header is coded for an estimate, too: that takes some 10 ms, and the header is a good
/// part of a small file.
constexpr double kShortText = 64 * 1024;

/// Of a param without promised levels, as far as that is known without coding it.
nib::TensorEntry entry_of(const Param& param) {
  nib::TensorEntry entry;
  entry.name = param.name;
  entry.dtype = param.value.dtype();
  entry.shape = param.value.shape();
  entry.masked = param.mask.has_value();
  entry.values = is_real(entry.dtype) && bits_of(entry.dtype) <= 32 ? nib::Values::Floats : nib::Values::Bytes;
  nib::complete(entry);
  return entry;
}

/// `outlines`: of every param, those of weights filled in.
void estimate_file(const Model& model, std::vector<std::optional<nib::Outline>> outlines, ByteReport& report) {
  codec::FloatModel scales(codec::kFloat32);
  double values = 0;
  size_t quickly_coded = size_t{1} << 13;  // elements that are tried in every way, as the file has them
  for (const WeightBytes& bytes : report.weights) report.file += bytes.nib;
  for (size_t i = 0; i < model.params.size(); ++i) {
    const Param& param = model.params[i];
    values += static_cast<double>(param.value.bytes().size());
    if (outlines[i] || nib::stays_in_text(param, false)) continue;
    double bytes = 0;
    // A bias may have been rounded by rate.
    std::optional<nib::Prepared> prepared =
        param.value.elements() ? nib::promised_levels(param, nullptr) : std::nullopt;
    if (prepared) {
      WeightBytes levels;
      estimate_coders(*prepared, levels);
      levels.coder = coder_of(model, levels);
      bytes = coded(levels, levels.coder) + estimate_scales(*prepared, scales);
      outlines[i] = {std::move(prepared->entry), levels.coder, static_cast<size_t>(bytes)};
    } else {
      bytes = estimate_values(param.value);
      outlines[i] = {entry_of(param), EntropyCoder::Cabac, static_cast<size_t>(bytes)};
      if (param.value.elements() && param.value.elements() <= quickly_coded) {
        quickly_coded -= param.value.elements();
        nib::Prepared coded = nib::prepare(param, nullptr, model.coding.coder);
        if (const double alone = static_cast<double>(coded.bits) * kBitCost; alone < bytes) {
          bytes = alone;
          outlines[i] = {std::move(coded.entry), coded.coder, static_cast<size_t>(bytes)};
        }
      }
    }
    report.others += bytes;
  }
  const double text = std::max(0.0, static_cast<double>(report.dense_file) - values);
  // Text is mostly graph, which the model of headers takes to a tenth; a name and a shape are some ten bytes.
  report.header = text <= kShortText
                      ? static_cast<double>(nib::estimate_header(model, [&](size_t i) { return *outlines[i]; }))
                      : 100 + 0.1 * text + 10 * static_cast<double>(model.params.size());
  report.file += report.header + report.others;
}

}  // namespace

ByteReport measure_bytes(const Model& model, bool exact, const Context& context) {
  ByteReport report;
  report.estimated = !exact;
  report.weights.resize(model.weights->size());
  WritePlan plan{model.header->format, opset_of(*model.header), {}, {}, {}};
  plan.weights.resize(model.weights->size());
  report.dense_file = write_model(model, plan).size();
  std::unordered_map<size_t, size_t> weights;
  for (size_t i = 0; i < model.weights->size(); ++i) weights.emplace((*model.weights)[i].param, i);
  const auto start = [&](size_t i, WeightBytes bytes) -> WeightBytes& {
    const Param& param = model.params[(*model.weights)[i].param];
    bytes.name = param.name;
    bytes.dense = param.value.bytes().size();
    report.weights[i] = std::move(bytes);
    return report.weights[i];
  };
  const auto progress = [&](size_t i) {
    const Param& param = model.params[(*model.weights)[i].param];
    context.tick({"bytes", param.name, static_cast<double>(i) / static_cast<double>(model.weights->size())});
  };

  if (!exact) {
    std::vector<std::optional<nib::Outline>> outlines(model.params.size());
    codec::FloatModel scales(codec::kFloat32);
    for (size_t i = 0; i < model.weights->size(); ++i) {
      const Weight& weight = (*model.weights)[i];
      const Param& param = model.params[weight.param];
      progress(i);
      std::optional<nib::Prepared> prepared =
          param.value.elements() ? nib::promised_levels(param, &weight) : std::nullopt;
      if (!prepared) {
        WeightBytes& bytes = start(i, {});
        bytes.codes = bytes.dense;
        bytes.nib = estimate_values(param.value);
        outlines[weight.param] = {entry_of(param), bytes.coder, static_cast<size_t>(bytes.nib)};
        continue;
      }
      WeightBytes& bytes = start(i, of_levels(param, *prepared));
      estimate_coders(*prepared, bytes);
      bytes.coder = coder_of(model, bytes);
      bytes.nib = coded(bytes, bytes.coder) + estimate_scales(*prepared, scales);
      outlines[weight.param] = {std::move(prepared->entry), bytes.coder, static_cast<size_t>(bytes.nib)};
    }
    estimate_file(model, std::move(outlines), report);
    return report;
  }

  for (size_t i = 0; i < model.weights->size(); ++i) {
    WeightBytes& bytes = start(i, {});
    bytes.codes = bytes.dense;
  }
  const nib::File file = nib::encode(model, [&](size_t param, const nib::Prepared& prepared) {
    const auto found = weights.find(param);
    if (found == weights.end()) return;
    progress(found->second);
    const Param& of = model.params[param];
    // Levels that only the file has (few different numbers) are none of the model's.
    if (!of.grid && !of.codebook) return;
    if (!nib::has_levels(prepared.entry)) return;
    add_coders(prepared, start(found->second, of_levels(of, prepared)));
  });
  double coded_bytes = 0;
  for (size_t i = 0; i < model.params.size(); ++i) {
    const double bytes = static_cast<double>(file.bits[i]) * kBitCost;
    coded_bytes += bytes;
    const auto found = weights.find(i);
    if (found == weights.end()) {
      report.others += bytes;
    } else {
      report.weights[found->second].nib = bytes;
      report.weights[found->second].coder = file.coders[i];
    }
  }
  report.file = static_cast<double>(file.bytes.size());
  report.header = report.file - coded_bytes;
  return report;
}

std::string print(const ByteReport& report) {
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); };
  Json json{{"estimated", report.estimated}, {"dense_file", report.dense_file}, {"file", report.file},
            {"header", report.header},       {"others", report.others},         {"weights", Json::array()}};
  for (const WeightBytes& bytes : report.weights) {
    Json weight{{"name", bytes.name},
                {"dense", bytes.dense},
                {"codes", bytes.codes},
                {"scales", bytes.scales},
                {"entropy", number(bytes.entropy)},
                {"huffman", number(bytes.huffman)},
                {"huffman_index", number(bytes.huffman_index)},
                {"rans", number(bytes.rans)},
                {"cabac", number(bytes.cabac)},
                {"nib", bytes.nib},
                {"coder", to_string(bytes.coder)}};
    weight["parts"] = nullptr;
    if (bytes.parts) {
      weight["parts"] = {{"significance", (*bytes.parts)[0]},
                         {"sign", (*bytes.parts)[1]},
                         {"magnitude", (*bytes.parts)[2]},
                         {"remainder", (*bytes.parts)[3]}};
    }
    json["weights"].push_back(std::move(weight));
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<uint8_t> packed_codes(const Model& model, const std::string& name) {
  for (const Weight& weight : *model.weights) {
    const Param& param = model.params[weight.param];
    if (param.name != name) continue;
    const std::optional<nib::Prepared> prepared =
        param.value.elements() ? nib::promised_levels(param, &weight) : std::nullopt;
    if (!prepared) {
      const std::span<const std::byte> bytes = param.value.bytes();
      const auto* first = reinterpret_cast<const uint8_t*>(bytes.data());
      return {first, first + bytes.size()};
    }
    // Levels as two's complement, palette entries by their position: either way the low bits tell them apart.
    const int bits = code_bits(param, *prepared);
    const int32_t first = param.grid ? 0 : prepared->numbers.zero;
    std::vector<uint8_t> codes;
    if (bits > 8) {
      for (const int32_t level : prepared->numbers.levels) {
        codes.push_back(static_cast<uint8_t>(level));
        codes.push_back(static_cast<uint8_t>(level >> 8));
      }
      return codes;
    }
    // One symmetric bit has the levels -1 and 1, whose lowest bits are alike.
    const bool sign_only = param.grid && bits == 1 && param.grid->scheme.symmetric;
    for (const int32_t level : prepared->numbers.levels)
      codes.push_back(static_cast<uint8_t>(sign_only ? level > 0 : level + first));
    std::vector<uint8_t> packed(kernels::packed_bytes(codes.size(), bits));
    kernels::pack_bits(codes, bits, packed);
    return packed;
  }
  fail(ErrorCode::BadData, name, "the model has no weight of this name");
}

}  // namespace nibble
