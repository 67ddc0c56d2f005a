// The decoder that ships with .nib files: a module of its own, without Embind, exceptions or the engine. decode.ts
// drives it; each decoding has an instance to itself, so what is left behind by a failure goes with it.
#include <cstdlib>
#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "core/formats/nib_values.hpp"

using namespace nibble;

extern "C" {
/// Throws a NibbleError in JavaScript.
[[noreturn]] __attribute__((import_module("nibble"), import_name("fail"))) void nibble_fail(
    uint32_t code, const char* where, size_t where_size, const char* message, size_t message_size);
}

namespace nibble {

void fail(ErrorCode code, std::string where, std::string message) {
  nibble_fail(static_cast<uint32_t>(code), where.data(), where.size(), message.data(), message.size());
}

}  // namespace nibble

namespace {

nib::Container container;
size_t decoded_block = 0;
std::vector<nib::Numbers> numbers;  // of the decoded block
std::vector<uint8_t> filled;

const nib::Form& form_at(uint32_t form) { return form ? *container.quantized : container.full; }

}  // namespace

// Sizes and offsets in files are doubles, which JavaScript's numbers are; indices and sizes in this memory are 32 bits.
extern "C" {

#define EXPORT(name) __attribute__((export_name(#name))) name

/// Room for bytes that JavaScript puts in; freed by release.
uint8_t* EXPORT(reserve)(size_t size) { return static_cast<uint8_t*>(std::malloc(size ? size : 1)); }
void EXPORT(release)(uint8_t* bytes) { std::free(bytes); }

/// How many bytes there are before the first block, 0 where `size` bytes do not tell.
double EXPORT(extent)(const uint8_t* bytes, size_t size) {
  return static_cast<double>(nib::header_extent({bytes, size}));
}
void EXPORT(open)(const uint8_t* bytes, size_t size) { container = nib::parse_header({bytes, size}); }

uint32_t EXPORT(format)() { return static_cast<uint32_t>(container.format); }
uint32_t EXPORT(has_quantized)() { return container.quantized.has_value(); }
uint32_t EXPORT(tensors)() { return static_cast<uint32_t>(container.tensors.size()); }
const char* EXPORT(tensor_name)(uint32_t tensor) { return container.tensors[tensor].name.data(); }
uint32_t EXPORT(tensor_name_size)(uint32_t tensor) {
  return static_cast<uint32_t>(container.tensors[tensor].name.size());
}
const char* EXPORT(tensor_dtype)(uint32_t tensor) { return to_string(container.tensors[tensor].dtype).data(); }
uint32_t EXPORT(tensor_dtype_size)(uint32_t tensor) {
  return static_cast<uint32_t>(to_string(container.tensors[tensor].dtype).size());
}
uint32_t EXPORT(tensor_rank)(uint32_t tensor) { return static_cast<uint32_t>(container.tensors[tensor].shape.size()); }
double EXPORT(tensor_extent)(uint32_t tensor, uint32_t axis) {
  return static_cast<double>(container.tensors[tensor].shape[axis]);
}

uint32_t EXPORT(recipes)() { return static_cast<uint32_t>(container.history.recipes.size()); }
const char* EXPORT(recipe)(uint32_t index) { return container.history.recipes[index].data(); }
uint32_t EXPORT(recipe_size)(uint32_t index) { return static_cast<uint32_t>(container.history.recipes[index].size()); }
double EXPORT(original_bytes)() { return static_cast<double>(container.history.file_bytes); }

uint32_t EXPORT(blocks)() { return static_cast<uint32_t>(container.blocks.size()); }
double EXPORT(block_offset)(uint32_t block) { return static_cast<double>(container.blocks[block].offset); }
double EXPORT(block_bytes)(uint32_t block) { return static_cast<double>(container.blocks[block].bytes); }
uint32_t EXPORT(block_first)(uint32_t block) { return static_cast<uint32_t>(container.blocks[block].first); }
uint32_t EXPORT(block_tensors)(uint32_t block) { return static_cast<uint32_t>(container.blocks[block].tensors); }
/// Memory that decoding it takes, about.
double EXPORT(block_room)(uint32_t block) {
  const nib::BlockEntry& entry = container.blocks[block];
  double room = 0;
  for (size_t i = 0; i < entry.tensors; ++i) {
    const nib::TensorEntry& tensor = container.tensors[entry.first + i];
    room += static_cast<double>(nib::room_for(tensor)) + static_cast<double>(tensor.bytes);
  }
  return room;
}

double EXPORT(form_bytes)(uint32_t form) { return static_cast<double>(form_at(form).bytes); }
const char* EXPORT(form_text)(uint32_t form) { return form_at(form).text.data(); }
uint32_t EXPORT(form_text_size)(uint32_t form) { return static_cast<uint32_t>(form_at(form).text.size()); }
uint32_t EXPORT(holes)(uint32_t form) { return static_cast<uint32_t>(form_at(form).holes.size()); }
uint32_t EXPORT(hole_tensor)(uint32_t form, uint32_t hole) {
  return static_cast<uint32_t>(form_at(form).holes[hole].tensor);
}
double EXPORT(hole_offset)(uint32_t form, uint32_t hole) {
  return static_cast<double>(form_at(form).holes[hole].offset);
}
double EXPORT(hole_bytes)(uint32_t form, uint32_t hole) { return static_cast<double>(form_at(form).holes[hole].bytes); }

/// Decodes a block; its tensors are what fill() takes its numbers from.
void EXPORT(decode)(uint32_t block, const uint8_t* bytes, size_t size) {
  numbers = nib::decode_block(container, block, {bytes, size});
  decoded_block = block;
}
/// The array of a hole, hole_bytes() long, valid until the next call. Its tensor is one of the decoded block.
const uint8_t* EXPORT(fill)(uint32_t form, uint32_t hole) {
  const nib::Hole& wanted = form_at(form).holes[hole];
  filled.resize(wanted.bytes);
  nib::fill(wanted, container.tensors[wanted.tensor], numbers[wanted.tensor - container.blocks[decoded_block].first],
            filled);
  return filled.data();
}

}  // extern "C"
