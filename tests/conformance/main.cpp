// Runs ONNX's own tests: folders with a model and with inputs and outputs as tensor messages. Prints what passed, what
// Nibble refused to run and what came out wrong, for each operator and in all.
//
//   conformance FOLDER [only names that contain this] [--failures]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "core/base/error.hpp"
#include "core/formats/onnx_tensor.hpp"
#include "core/model/execute.hpp"
#include "core/model/ops/narrow_types.hpp"

namespace {

namespace fs = std::filesystem;
using nibble::DType;
using nibble::Tensor;

std::vector<std::byte> bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> chars((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::byte> bytes(chars.size());
  if (!chars.empty()) std::memcpy(bytes.data(), chars.data(), chars.size());
  return bytes;
}

Tensor tensor_of(const fs::path& path) {
  const nibble::FileBytes file{std::span<const std::byte>(bytes_of(path))};
  const nibble::ExternalFiles none;
  nibble::onnx::TensorReader reader(file, none);
  std::string name, extra;
  const protozero::data_view view(reinterpret_cast<const char*>(file.span().data()), file.span().size());
  const auto raw = nibble::onnx::TensorReader::parse(view, path.string(), name, extra);
  return reader.build(raw, name);
}

/// The values as doubles, of every type that has numbers.
std::vector<double> numbers_of(const Tensor& tensor) {
  const auto all = [](auto values) { return std::vector<double>(values.begin(), values.end()); };
  switch (tensor.dtype()) {
    case DType::Float64: return all(tensor.data<double>());
    case DType::Int8: return all(tensor.data<int8_t>());
    case DType::UInt8:
    case DType::Bool: return all(tensor.data<uint8_t>());
    case DType::Int16: return all(tensor.data<int16_t>());
    case DType::UInt16: return all(tensor.data<uint16_t>());
    case DType::Int32: return all(tensor.data<int32_t>());
    case DType::UInt32: return all(tensor.data<uint32_t>());
    case DType::Int64: return all(tensor.data<int64_t>());
    case DType::UInt64: return all(tensor.data<uint64_t>());
    case DType::Float32:
    case DType::Float16:
    case DType::BFloat16: return all(nibble::FloatView(tensor).values());
    case DType::Complex64: {
      std::vector<double> out;
      for (size_t i = 0; i < tensor.elements() * 2; ++i) {
        float part;
        std::memcpy(&part, tensor.bytes().data() + i * sizeof(part), sizeof(part));
        out.push_back(part);
      }
      return out;
    }
    default: return all(nibble::ops::widen(tensor));
  }
}

/// Why the two differ, or "". The bounds are those of ONNX's own runner (relative 1e-3, absolute 1e-7), the absolute
/// one widened by the rounding of sums of numbers as large as the largest; half floats have eleven or eight bits.
std::string difference(const Tensor& expected, const Tensor& got) {
  if (expected.dtype() != got.dtype())
    return "type " + std::string(to_string(got.dtype())) + " instead of " + std::string(to_string(expected.dtype()));
  if (expected.shape() != got.shape())
    return "shape " + nibble::to_string(got.shape()) + " instead of " + nibble::to_string(expected.shape());
  const std::vector<double> a = numbers_of(expected), b = numbers_of(got);
  double largest = 0;
  for (const double value : a) largest = std::isfinite(value) ? std::max(largest, std::abs(value)) : largest;
  const bool narrow = nibble::bits_of(expected.dtype()) <= 16 && nibble::is_real(expected.dtype());
  const double relative = narrow ? 1e-2 : 1e-3, absolute = 1e-7 + (narrow ? 1e-3 : 1e-6) * largest;
  const bool whole = !nibble::is_real(expected.dtype());
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (a[i] == b[i]) continue;
    if (!whole && std::abs(a[i] - b[i]) <= absolute + relative * std::abs(a[i])) continue;
    return "element " + std::to_string(i) + " is " + std::to_string(b[i]) + " instead of " + std::to_string(a[i]);
  }
  return "";
}

struct Counts {
  size_t passed = 0, refused = 0, failed = 0;
};

enum class Outcome { kPassed, kRefused, kFailed };

Outcome run_one(const fs::path& folder, std::string& op, std::string& why) {
  try {
    const nibble::Model model = nibble::read_model(bytes_of(folder / "model.onnx"), folder.filename().string());
    op = model.graph->nodes.size() == 1 ? model.graph->nodes[0].op : "(several)";
    const nibble::Program program(model);
    for (size_t set = 0;; ++set) {
      const fs::path data = folder / ("test_data_set_" + std::to_string(set));
      if (!fs::exists(data)) return Outcome::kPassed;
      std::vector<Tensor> inputs;
      for (size_t i = 0; i < program.inputs().size(); ++i)
        inputs.push_back(tensor_of(data / ("input_" + std::to_string(i) + ".pb")));
      const std::vector<Tensor> outputs = program.forward(std::move(inputs));
      for (size_t i = 0; i < outputs.size(); ++i) {
        const fs::path file = data / ("output_" + std::to_string(i) + ".pb");
        if (!fs::exists(file)) continue;
        why = difference(tensor_of(file), outputs[i]);
        if (!why.empty()) {
          why = "output " + std::to_string(i) + ": " + why;
          return Outcome::kFailed;
        }
      }
    }
  } catch (const nibble::Error& error) {
    why = error.what();
    return error.code == nibble::ErrorCode::Unsupported ? Outcome::kRefused : Outcome::kFailed;
  } catch (const std::exception& error) {
    why = error.what();
    return Outcome::kFailed;
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::printf("conformance FOLDER [only names that contain this]\n");
    return 2;
  }
  const std::string only = count > 2 ? arguments[2] : "";
  std::vector<fs::path> folders;
  for (const auto& entry : fs::recursive_directory_iterator(arguments[1])) {
    if (entry.path().filename() == "model.onnx" &&
        entry.path().parent_path().filename().string().find(only) != std::string::npos)
      folders.push_back(entry.path().parent_path());
  }
  std::sort(folders.begin(), folders.end());
  std::map<std::string, Counts> by_op;
  Counts all;
  for (const fs::path& folder : folders) {
    std::string op = "(unreadable)", why;
    const Outcome outcome = run_one(folder, op, why);
    for (Counts* counts : {&all, &by_op[op]}) {
      ++(outcome == Outcome::kPassed    ? counts->passed
         : outcome == Outcome::kRefused ? counts->refused
                                        : counts->failed);
    }
    if (outcome == Outcome::kFailed || (outcome == Outcome::kRefused && !only.empty())) {
      std::printf("%s %s: %s\n", outcome == Outcome::kFailed ? "FAILED" : "refused", folder.filename().c_str(),
                  why.c_str());
    }
  }
  std::printf("\n%-34s %7s %8s %7s\n", "operator", "passed", "refused", "failed");
  for (const auto& [op, counts] : by_op)
    std::printf("%-34s %7zu %8zu %7zu\n", op.c_str(), counts.passed, counts.refused, counts.failed);
  std::printf("%zu passed, %zu refused, %zu failed\n", all.passed, all.refused, all.failed);
  return all.failed ? 1 : 0;
}
