// ONNX's numbers of element types (TensorProto.DataType in onnx.proto): in files, and in attributes such as Cast's
// `to`.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor/tensor.hpp"

namespace nibble {

struct TypeCode {
  int32_t code;
  DType dtype;
};
inline constexpr TypeCode kTypeCodes[] = {
    {1, DType::Float32},       {2, DType::UInt8},           {3, DType::Int8},        {4, DType::UInt16},
    {5, DType::Int16},         {6, DType::Int32},           {7, DType::Int64},       {8, DType::String},
    {9, DType::Bool},          {10, DType::Float16},        {11, DType::Float64},    {12, DType::UInt32},
    {13, DType::UInt64},       {14, DType::Complex64},      {15, DType::Complex128}, {16, DType::BFloat16},
    {17, DType::Float8E4M3FN}, {18, DType::Float8E4M3FNUZ}, {19, DType::Float8E5M2}, {20, DType::Float8E5M2FNUZ},
    {21, DType::UInt4},        {22, DType::Int4},           {23, DType::Float4E2M1}, {24, DType::Float8E8M0},
    {25, DType::UInt2},        {26, DType::Int2},
};

/// None for a number that is no type's.
inline std::optional<DType> dtype_of_code(int64_t code) {
  for (const TypeCode& type : kTypeCodes) {
    if (type.code == code) return type.dtype;
  }
  return std::nullopt;
}

inline int32_t code_of(DType dtype) {
  for (const TypeCode& type : kTypeCodes) {
    if (type.dtype == dtype) return type.code;
  }
  return 0;
}

}  // namespace nibble
