// One TensorProto: its values in any of the fields and files that may hold them.
#pragma once

#include <optional>
#include <protozero/data_view.hpp>

#include "core/formats/formats.hpp"

namespace nibble::onnx {

/// A tensor message as it lies in the file; views point into the file.
struct RawTensor {
  std::vector<int64_t> dims;
  int64_t type = 0, location = 0;
  std::optional<protozero::data_view> bytes, packed_floats;
  std::vector<float> floats;
  std::vector<double> doubles;
  std::vector<int32_t> int32s;
  std::vector<int64_t> int64s;
  std::vector<uint64_t> uint64s;
  size_t strings = 0;
  std::vector<std::pair<std::string, std::string>> external;
};

class TensorReader {
 public:
  TensorReader(FileBytes file, const ExternalFiles& external) : file_(std::move(file)), external_(external) {}

  /// Reads the fields. `where` is for messages, `own_name` receives the tensor's name, `extra` what is carried through.
  static RawTensor parse(const protozero::data_view& message, const std::string& where, std::string& own_name,
                         std::string& extra);

  /// The values, pointing into the file where they can. Throws Error{BadFile, name} where sizes do not fit or an
  /// external file is missing.
  Tensor build(const RawTensor& raw, const std::string& name);

  const FileBytes& file() const { return file_; }
  size_t external_bytes() const { return external_bytes_; }  ///< read from external files so far

 private:
  Tensor borrowed(DType dtype, const Shape& shape, const protozero::data_view& view, const std::string& name) const;
  Tensor from_typed_fields(const RawTensor& raw, DType dtype, const Shape& shape, const std::string& name) const;
  Tensor from_external(const RawTensor& raw, DType dtype, const Shape& shape, const std::string& name);

  FileBytes file_;
  const ExternalFiles& external_;
  size_t external_bytes_ = 0;
};

}  // namespace nibble::onnx
