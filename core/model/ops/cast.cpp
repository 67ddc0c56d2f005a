// Between element types: Cast, CastLike, BitCast.
#include <array>

#include "core/model/ops/pointwise.hpp"

namespace nibble::ops {

namespace {

/// The attribute that must be there.
DType type_wanted(const Call& call) {
  if (call.integer("to", 0) == 0) call.fail("attribute \"to\" is missing");
  return call.type("to", DType::Float32);
}

/// Operator set 1 spells the type out.
DType target(const Call& call) {
  if (call.opset >= 6) return type_wanted(call);
  std::string name = call.text("to", "");
  for (char& c : name) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  constexpr std::array<std::pair<std::string_view, DType>, 12> kNames = {{
      {"FLOAT", DType::Float32},
      {"UINT8", DType::UInt8},
      {"INT8", DType::Int8},
      {"UINT16", DType::UInt16},
      {"INT16", DType::Int16},
      {"INT32", DType::Int32},
      {"INT64", DType::Int64},
      {"BOOL", DType::Bool},
      {"FLOAT16", DType::Float16},
      {"DOUBLE", DType::Float64},
      {"UINT32", DType::UInt32},
      {"UINT64", DType::UInt64},
  }};
  for (const auto& [known, dtype] : kNames) {
    if (known == name) return dtype;
  }
  call.fail("attribute \"to\" names no element type: \"" + name + "\"");
}

std::vector<Tensor> cast_to(Call& call, DType dtype) {
  if (dtype == DType::String || dtype == DType::Complex64 || dtype == DType::Complex128)
    call.refuse("values cannot be made " + std::string(to_string(dtype)) + " here");
  Tensor x = call.take(0);
  if (x.dtype() == dtype) return {std::move(x)};
  // What images and masks come as goes to float32 straight.
  if (dtype == DType::Float32 && (x.dtype() == DType::UInt8 || x.dtype() == DType::Bool)) {
    Tensor out = Tensor::allocate(dtype, x.shape());
    const std::span<const uint8_t> from = x.data<uint8_t>();
    const std::span<float> to = out.write<float>();
    const bool truths = x.dtype() == DType::Bool;
    for (size_t i = 0; i < to.size(); ++i) to[i] = truths ? static_cast<float>(from[i] != 0) : from[i];
    return {std::move(out)};
  }
  const std::string mode = call.text("round_mode", "up");
  const PowerRounding rounding = mode == "down"      ? PowerRounding::Down
                                 : mode == "nearest" ? PowerRounding::Nearest
                                                     : PowerRounding::Up;
  return {from_wide(to_wide(call, std::move(x)), dtype, call.integer("saturate", 1) != 0, rounding)};
}

std::vector<Tensor> cast(Call& call) {
  call.in(0);
  return cast_to(call, target(call));
}

std::vector<Tensor> cast_like(Call& call) { return cast_to(call, call.in(1).dtype()); }

/// Rounding is taken for the identity where both types are real; whole numbers pass nothing on.
std::vector<Tensor> cast_backward(const Call& call, std::span<const Tensor> outputs, std::span<const Tensor> grads) {
  std::vector<Tensor> out(call.inputs.size());
  out[0] = is_real(outputs[0].dtype()) ? grads[0] : zeros(call.in(0).shape());
  return out;
}

std::vector<Tensor> bit_cast(Call& call) {
  const Tensor& x = call.in(0);
  const DType dtype = type_wanted(call);
  if (bits_of(dtype) == 0 || bits_of(dtype) != bits_of(x.dtype())) {
    call.fail("the bits of " + std::string(to_string(x.dtype())) + " cannot be seen as " +
              std::string(to_string(dtype)) + ", which is not as wide");
  }
  Tensor out = Tensor::copy_of(dtype, x.shape(), x.bytes());
  if (dtype == DType::Bool) {
    for (uint8_t& value : out.write<uint8_t>()) value = value != 0;
  }
  return {std::move(out)};
}

const Op kOps[] = {
    {"Cast", cast, cast_backward},
    {"CastLike", cast_like, cast_backward},
    {"BitCast", bit_cast},
};

}  // namespace

std::span<const Op> cast_ops() { return kOps; }

}  // namespace nibble::ops
