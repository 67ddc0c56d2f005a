#include "core/codec/level_models.hpp"

namespace nibble::codec {

ExpectedNodes::ExpectedNodes(const LevelChoice& choice) {
  std::fill_n(probability_, LevelTree::kNodes, kEven);
  const LevelPrior& prior = choice.prior;
  if (!prior.given) return;
  significance_ = prior.significance();
  const int pivot = pivot_of(choice);
  for (int k = pivot; k < kMostClass; ++k) {
    const uint32_t low = k == pivot ? 1 : 1u << (k - 1);  // the first question is asked of all magnitudes
    probability_[LevelTree::kUp + k - pivot] = prior.split(low, 1u << k, 0);
  }
  for (int k = pivot; k > 1; --k)
    probability_[LevelTree::kDown + pivot - k] = 65536 - prior.split(1, 1u << (k - 1), 1u << k);
  for (int k = 2; k <= kMostClass; ++k) {
    for (uint32_t prefix = 1; prefix < 1u << (k - 1); ++prefix) {
      const int below = k - 1 - (std::bit_width(prefix) - 1);  // bits that are still to come
      const int node = LevelTree::mantissa(k, prefix, below);
      if (node >= LevelTree::kRemainder) break;
      const uint32_t low = prefix << below, half = 1u << (below - 1);
      probability_[node] = prior.split(low, low + half, low + 2 * half);
    }
  }
}

}  // namespace nibble::codec
