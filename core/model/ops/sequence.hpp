// The parts that sequence_ops() is put together from.
#pragma once

#include "core/model/ops/ops.hpp"

namespace nibble::ops {

std::span<const Op> recurrent_ops();  ///< RNN, GRU, LSTM
std::span<const Op> attention_ops();  ///< Attention, FlexAttention, RotaryEmbedding
std::span<const Op> linear_attention_ops();
std::span<const Op> fused_ops();  ///< SkipLayerNormalization and other operators of com.microsoft

}  // namespace nibble::ops
