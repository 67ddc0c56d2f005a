// .nib to Model.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/base/json.hpp"
#include "core/formats/grid_codes.hpp"
#include "core/formats/nib.hpp"

namespace nibble::nib {

namespace {

std::span<const uint8_t> as_octets(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

/// A file can promise what is not so.
bool keeps_grid(const Param& param, std::optional<size_t> channel_axis) {
  const QuantParams& grid = *param.grid;
  for (const float scale : grid.scale) {
    if (!(scale > 0) || !std::isfinite(scale)) return false;
  }
  for (const int32_t zero_point : grid.zero_point) {
    if (zero_point < lowest_code(grid.scheme) || zero_point > highest_code(grid.scheme)) return false;
  }
  std::vector<int32_t> levels(param.value.elements());
  return grid_levels(param, channel_axis, levels);
}

/// The promises of a tensor that has been decoded; `channel_axis` as the model has it.
void promise(const TensorEntry& tensor, std::optional<size_t> channel_axis, Numbers& numbers, Param& param) {
  if (param.grid || param.codebook || param.mask) fail(ErrorCode::BadFile, tensor.name, "there are two of this name");
  if (tensor.masked && !is_real(tensor.dtype)) fail(ErrorCode::BadFile, tensor.name, "integers cannot be pruned");
  if (tensor.values == Values::Grid) {
    param.grid = QuantParams{tensor.scheme, std::move(numbers.scales), std::move(numbers.zero_points)};
    param.grid->zero_point.resize(tensor.scales, 0);
    const Granularity granularity = tensor.scheme.granularity;
    const bool by_row = granularity == Granularity::Channel || granularity == Granularity::Group;
    if ((by_row && tensor.channel_axis != channel_axis) || !keeps_grid(param, tensor.channel_axis))
      fail(ErrorCode::BadFile, tensor.name, "the values are not on the grid that the file promises");
  }
  if (tensor.values == Values::Palette && tensor.shared) {
    Codebook codebook;
    const FloatView values(param.value);
    const std::span<const float> all = values.values();
    if (!std::all_of(all.begin(), all.end(), [](float value) { return std::isfinite(value); }))
      fail(ErrorCode::BadFile, tensor.name, "shared values that are not finite");
    const std::set<float> different(all.begin(), all.end());
    for (const float value : different) {
      if (value != 0 || !tensor.masked) codebook.centroids.push_back(value);
    }
    param.codebook = std::move(codebook);
  }
  if (!tensor.masked) return;
  // What is not 0 stays: a weight that the mask keeps and that is 0 is not told apart from one that was removed.
  const FloatView values(param.value);
  Mask mask;
  mask.words.assign((tensor.elements + 63) / 64, 0);
  for (size_t i = 0; i < tensor.elements; ++i) {
    if (values.values()[i] == 0) continue;
    mask.words[i / 64] |= uint64_t{1} << (i % 64);
    ++mask.kept;
  }
  param.mask = std::move(mask);
}

/// How the file was coded, so that an unchanged model gives the same file again.
Coding coding_of(const Container& container) {
  Coding coding;
  std::set<EntropyCoder> coders;
  bool any_grid = false;
  for (const BlockEntry& block : container.blocks) {
    for (size_t i = block.first; i < block.first + block.tensors; ++i) {
      const TensorEntry& tensor = container.tensors[i];
      if (has_levels(tensor)) coders.insert(block.coder);
      any_grid = any_grid || tensor.values == Values::Grid;
    }
  }
  if (coders.size() == 1) coding.coder = *coders.begin();
  coding.quantized_form = container.quantized.has_value() || !any_grid;
  return coding;
}

}  // namespace

bool looks_like_nib(std::span<const std::byte> file) {
  return file.size() >= 4 && std::memcmp(file.data(), "NIB", 3) == 0 && std::to_integer<int>(file[3]) < 32;
}

Model read(std::span<const std::byte> file, std::string_view name, size_t most) {
  const std::span<const uint8_t> bytes = as_octets(file);
  const size_t extent = header_extent(bytes);
  const Container container = parse_header(bytes.first(extent ? std::min(extent, bytes.size()) : bytes.size()));
  uint64_t largest = 0;
  for (const BlockEntry& block : container.blocks) {
    uint64_t room = 0;
    for (size_t i = 0; i < block.tensors; ++i) room += room_for(container.tensors[block.first + i]);
    largest = std::max(largest, room);
  }
  const uint64_t need = container.full.bytes + largest;
  if (need > most) {
    fail(ErrorCode::OutOfMemory, std::string(name),
         "decoding it needs " + std::to_string(need) + " bytes, expected at most " + std::to_string(most));
  }
  const size_t end = container.blocks.empty() ? extent : container.blocks.back().offset + container.blocks.back().bytes;
  if (bytes.size() != end) {
    fail(ErrorCode::BadFile, "byte " + std::to_string(std::min(bytes.size(), end)),
         bytes.size() < end
             ? "the file is cut off: it has " + std::to_string(bytes.size()) + " of " + std::to_string(end) + " bytes"
             : std::to_string(bytes.size() - end) + " bytes too many");
  }

  std::shared_ptr<std::byte[]> full(new std::byte[container.full.bytes]);
  auto* const out = reinterpret_cast<uint8_t*>(full.get());
  size_t text = 0, at = 0;
  for (const Hole& hole : container.full.holes) {
    std::copy_n(container.full.text.data() + text, hole.offset - at, out + at);
    text += hole.offset - at;
    at = hole.offset + hole.bytes;
  }
  std::copy(container.full.text.begin() + static_cast<ptrdiff_t>(text), container.full.text.end(), out + at);

  std::vector<Numbers> promises(container.tensors.size());  // without their levels
  for (size_t block = 0; block < container.blocks.size(); ++block) {
    const BlockEntry& entry = container.blocks[block];
    std::vector<Numbers> numbers = decode_block(container, block, bytes.subspan(entry.offset, entry.bytes));
    for (size_t i = 0; i < numbers.size(); ++i) {
      const Hole& hole = container.full.holes[entry.first + i];
      fill(hole, container.tensors[entry.first + i], numbers[i], {out + hole.offset, hole.bytes});
      promises[entry.first + i].scales = std::move(numbers[i].scales);
      promises[entry.first + i].zero_points = std::move(numbers[i].zero_points);
    }
  }

  FileBytes decoded(std::move(full), container.full.bytes);
  Model model = container.format == Format::Onnx ? read_onnx(std::move(decoded), name, {})
                                                 : read_safetensors(std::move(decoded), name);
  std::unordered_map<std::string_view, Param*> params;
  for (Param& param : model.params) params.emplace(param.name, &param);
  std::unordered_map<const Param*, std::optional<size_t>> axes;
  for (const Weight& weight : *model.weights) axes.emplace(&model.params[weight.param], weight.channel_axis);
  for (size_t i = 0; i < container.tensors.size(); ++i) {
    const TensorEntry& tensor = container.tensors[i];
    if (tensor.values != Values::Grid && !tensor.masked && !tensor.shared) continue;
    const auto found = params.find(tensor.name);
    if (found == params.end() || found->second->value.shape() != tensor.shape ||
        found->second->value.dtype() != tensor.dtype)
      fail(ErrorCode::BadFile, tensor.name, "the model has no tensor of this name, type and shape");
    promise(tensor, axes[found->second], promises[i], *found->second);
  }
  for (const std::string& recipe : container.history.recipes) parse_json(recipe, ErrorCode::BadFile, "recipe");
  auto header = std::make_shared<Header>(*model.header);
  header->file_bytes = bytes.size();
  model.header = std::move(header);
  model.history = std::make_shared<const History>(container.history);
  model.coding = coding_of(container);
  return model;
}

}  // namespace nibble::nib
