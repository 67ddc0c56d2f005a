#include "core/model/ops/sequence.hpp"

namespace nibble::ops {

std::span<const Op> sequence_ops() {
  static const std::vector<Op> all = [] {
    std::vector<Op> made;
    for (const auto part : {recurrent_ops(), attention_ops(), linear_attention_ops(), fused_ops()})
      made.insert(made.end(), part.begin(), part.end());
    return made;
  }();
  return all;
}

}  // namespace nibble::ops
