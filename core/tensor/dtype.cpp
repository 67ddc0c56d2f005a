// Types and shapes by themselves: all that the decoder of .nib files wants of this room.
#include <algorithm>
#include <cfloat>

#include "core/base/error.hpp"
#include "core/tensor/tensor.hpp"

namespace nibble {

namespace {

struct DTypeFacts {
  std::string_view name;
  int bits;
};

// In the order of DType.
constexpr DTypeFacts kFacts[] = {
    {"float32", 32},       {"float64", 64},   {"float16", 16},       {"bfloat16", 16},  {"float8e4m3fn", 8},
    {"float8e4m3fnuz", 8}, {"float8e5m2", 8}, {"float8e5m2fnuz", 8}, {"float8e8m0", 8}, {"float4e2m1", 4},
    {"int8", 8},           {"uint8", 8},      {"int16", 16},         {"uint16", 16},    {"int32", 32},
    {"uint32", 32},        {"int64", 64},     {"uint64", 64},        {"int4", 4},       {"uint4", 4},
    {"int2", 2},           {"uint2", 2},      {"bool", 8},           {"complex64", 64}, {"complex128", 128},
    {"string", 0},
};
static_assert(std::size(kFacts) == static_cast<size_t>(DType::String) + 1);

const DTypeFacts& facts(DType dtype) { return kFacts[static_cast<size_t>(dtype)]; }

// More than any file can hold, and far from overflowing when multiplied by 128 bits.
constexpr size_t kMostElements = size_t{1} << (sizeof(size_t) == 8 ? 48 : 31);

}  // namespace

std::string_view to_string(DType dtype) { return facts(dtype).name; }

int bits_of(DType dtype) { return facts(dtype).bits; }

bool is_real(DType dtype) {
  return dtype == DType::Float32 || dtype == DType::Float64 || dtype == DType::Float16 || dtype == DType::BFloat16;
}

double largest_finite(DType dtype) {
  return dtype == DType::Float16 ? 65519 : dtype == DType::BFloat16 ? 0x1.FEFp127 : FLT_MAX;
}

size_t elements_of(const Shape& shape, std::string_view where) {
  if (std::find(shape.begin(), shape.end(), size_t{0}) != shape.end()) return 0;
  size_t product = 1;
  for (size_t extent : shape) {
    if (extent > kMostElements / product) {
      fail(ErrorCode::BadFile, std::string(where),
           "shape " + to_string(shape) + " has more elements than a file can hold");
    }
    product *= extent;
  }
  return product;
}

std::string to_string(const Shape& shape) {
  if (shape.empty()) return "scalar";
  std::string text;
  for (size_t extent : shape) text += (text.empty() ? "" : "x") + std::to_string(extent);
  return text;
}

size_t bytes_for(DType dtype, size_t elements) {
  const uint64_t bytes = (uint64_t{elements} * static_cast<uint64_t>(bits_of(dtype)) + 7) / 8;
  if (bytes > SIZE_MAX / 2)
    fail(ErrorCode::OutOfMemory, "", "a tensor of " + std::to_string(bytes) + " bytes does not fit this machine");
  return static_cast<size_t>(bytes);
}

}  // namespace nibble
