// Weight sharing: k-means of a weight's values.
#include <algorithm>
#include <cmath>

#include "core/quantize/quantize.hpp"

namespace nibble {

namespace {

/// Where the centroids start (Han et al., arXiv:1510.00149, section 3.2 and figure 6).
std::vector<double> initial_centroids(std::span<const float> sorted, size_t count, InitialCentroids initial,
                                      uint64_t key) {
  std::vector<double> centroids(count);
  const double low = sorted.front(), high = sorted.back();
  for (size_t i = 0; i < count; ++i) {
    const double share = count == 1 ? 0.5 : static_cast<double>(i) / static_cast<double>(count - 1);
    switch (initial) {
      case InitialCentroids::Linear: centroids[i] = low + share * (high - low); break;
      case InitialCentroids::Density:
        // In the middle of equal parts of the sorted values.
        centroids[i] =
            sorted[std::min(sorted.size() - 1, static_cast<size_t>(uint64_t{2 * i + 1} * sorted.size() / (2 * count)))];
        break;
      case InitialCentroids::Random: centroids[i] = sorted[mix64(key, i) % sorted.size()]; break;
    }
  }
  std::sort(centroids.begin(), centroids.end());
  return centroids;
}

/// Lloyd's algorithm on sorted values, by prefix sums: an iteration takes as many binary searches as there are
/// centroids. Centroids that nothing is nearest to stay where they are.
std::vector<double> lloyd(std::span<const float> sorted, std::vector<double> centroids) {
  constexpr int kMostIterations = 200;
  std::vector<double> sums(sorted.size() + 1, 0);
  for (size_t i = 0; i < sorted.size(); ++i) sums[i + 1] = sums[i] + sorted[i];
  for (int iteration = 0; iteration < kMostIterations; ++iteration) {
    bool moved = false;
    size_t from = 0;
    for (size_t c = 0; c < centroids.size(); ++c) {
      size_t to = sorted.size();
      if (c + 1 < centroids.size()) {
        const double border = (centroids[c] + centroids[c + 1]) / 2;
        to = static_cast<size_t>(std::upper_bound(sorted.begin() + static_cast<ptrdiff_t>(from), sorted.end(), border,
                                                  [](double value, float element) { return value < element; }) -
                                 sorted.begin());
      }
      if (to > from) {
        const double mean = (sums[to] - sums[from]) / static_cast<double>(to - from);
        moved = moved || mean != centroids[c];
        centroids[c] = mean;
      }
      from = to;
    }
    if (!moved) break;
  }
  return centroids;
}

}  // namespace

size_t nearest_centroid(const Codebook& codebook, float value) {
  const std::vector<float>& centroids = codebook.centroids;
  const auto above =
      static_cast<size_t>(std::lower_bound(centroids.begin(), centroids.end(), value) - centroids.begin());
  if (above == 0) return 0;
  if (above == centroids.size()) return above - 1;
  return value - centroids[above - 1] <= centroids[above] - value ? above - 1 : above;
}

Param cluster_weight(Param param, int bits, InitialCentroids initial, uint64_t key) {
  const FloatView view(param.value);
  const std::span<const float> values = view.values();
  const auto kept = [&](size_t i) { return !param.mask || (param.mask->words[i / 64] >> (i % 64) & 1); };
  std::vector<float> sorted;
  sorted.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (kept(i) && std::isfinite(values[i])) sorted.push_back(values[i]);
  }
  param.grid.reset();
  param.codebook.reset();
  if (sorted.empty()) return param;
  std::sort(sorted.begin(), sorted.end());
  const std::vector<double> found = lloyd(sorted, initial_centroids(sorted, size_t{1} << bits, initial, key));
  Codebook codebook;
  for (const double centroid : found) codebook.centroids.push_back(static_cast<float>(centroid));
  round_through(param.value.dtype(), codebook.centroids);
  std::sort(codebook.centroids.begin(), codebook.centroids.end());
  codebook.centroids.erase(std::unique(codebook.centroids.begin(), codebook.centroids.end()), codebook.centroids.end());

  std::vector<float> out(values.size());
  std::vector<bool> used(codebook.centroids.size(), false);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!kept(i)) continue;
    // NaN has no nearest; infinities have the outermost.
    const size_t nearest = nearest_centroid(codebook, std::isnan(values[i]) ? 0.0f : values[i]);
    used[nearest] = true;
    out[i] = codebook.centroids[nearest];
  }
  std::vector<float> needed;
  for (size_t c = 0; c < used.size(); ++c) {
    if (used[c]) needed.push_back(codebook.centroids[c]);
  }
  codebook.centroids = std::move(needed);
  param.value = from_floats(param.value.dtype(), param.value.shape(), out);
  param.codebook = std::move(codebook);
  return param;
}

}  // namespace nibble
