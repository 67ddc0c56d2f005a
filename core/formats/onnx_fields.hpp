// Field numbers and codes of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), as far as we read
// them. Fields not named here are carried through a read and a write as they are.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor/tensor.hpp"

namespace nibble::onnx {

enum class ModelField : uint32_t {
  IrVersion = 1,
  ProducerName = 2,
  ProducerVersion = 3,
  Graph = 7,
  OpsetImport = 8,
  Functions = 25
};
enum class OpsetField : uint32_t { Domain = 1, Version = 2 };
enum class GraphField : uint32_t { Node = 1, Name = 2, Initializer = 5, Input = 11, Output = 12, ValueInfo = 13 };
enum class NodeField : uint32_t { Input = 1, Output = 2, Name = 3, OpType = 4, Attribute = 5, Domain = 7 };
enum class AttributeField : uint32_t {
  Name = 1,
  F = 2,
  I = 3,
  S = 4,
  T = 5,
  G = 6,
  Floats = 7,
  Ints = 8,
  Strings = 9,
  Type = 20
};
enum class AttributeType : int32_t {
  Undefined = 0,
  Float = 1,
  Int = 2,
  String = 3,
  Tensor = 4,
  Graph = 5,
  Floats = 6,
  Ints = 7,
  Strings = 8
};
enum class TensorField : uint32_t {
  Dims = 1,
  DataType = 2,
  FloatData = 4,
  Int32Data = 5,
  StringData = 6,
  Int64Data = 7,
  Name = 8,
  RawData = 9,
  DoubleData = 10,
  Uint64Data = 11,
  ExternalData = 13,
  DataLocation = 14,
};
enum class EntryField : uint32_t { Key = 1, Value = 2 };
enum class ValueField : uint32_t { Name = 1, Type = 2 };
enum class TypeField : uint32_t { TensorType = 1 };
enum class TensorTypeField : uint32_t { ElemType = 1, Shape = 2 };
enum class ShapeField : uint32_t { Dim = 1 };
enum class DimField : uint32_t { Value = 1, Param = 2 };

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

inline std::optional<DType> dtype_of(int32_t code) {
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

}  // namespace nibble::onnx
