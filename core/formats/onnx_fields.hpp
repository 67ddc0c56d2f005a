// Field numbers of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), as far as we read
// them. Fields not named here are carried through a read and a write as they are.
#pragma once

#include <cstdint>

#include "core/model/type_codes.hpp"

namespace nibble::onnx {

enum class ModelField : uint32_t {
  IrVersion = 1,
  ProducerName = 2,
  ProducerVersion = 3,
  Graph = 7,
  OpsetImport = 8,
  MetadataProps = 14,
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

}  // namespace nibble::onnx
