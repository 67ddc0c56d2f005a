// Sets weights to zero and promises, by a mask, that they stay so.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/model/model.hpp"

namespace nibble {

enum class PatternKind : uint8_t {
  Unstructured,
  Channels,  ///< whole output channels, those of smallest L2 norm
  NofM,      ///< at most n of each m consecutive inputs of an output channel, those of largest magnitude
};
struct Pattern {
  PatternKind kind = PatternKind::Unstructured;
  int n = 2, m = 4;  ///< 1 <= n < m <= 64
};

enum class Scope : uint8_t { Layer, Global };

struct PruneChoice {
  std::optional<double> sparsity;   ///< share to remove, 0 to 1
  std::optional<double> threshold;  ///< magnitudes below this go; at least 0
  Scope scope = Scope::Layer;
  Pattern pattern;
};

/// The masks for some weights, in their order. Unstructured by sparsity: of n values exactly round(sparsity * n) go
/// (per weight, or of all together), the smallest magnitudes first, the earlier of equal ones first (Han et al.,
/// arXiv:1506.02626). Channels: round(sparsity * channels) go; over all layers together channels compare by mean
/// square, so that a long row is not preferred for its length. NaN and infinity count as largest. `notes` receives
/// (weight index, message) for weights that the pattern does not fit.
std::vector<Mask> find_masks(const std::vector<const Param*>& params, const std::vector<const Weight*>& weights,
                             const PruneChoice& choice, std::vector<std::pair<size_t, std::string>>& notes);

/// The weight with the mask applied, joined with a mask that it already has. A grid stays: every grid has a zero. Works
/// in place where the caller gives up the only copy of the value.
Param apply_mask(Param param, const Mask& mask);

}  // namespace nibble
