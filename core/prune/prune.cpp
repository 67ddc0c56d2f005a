#include "core/prune/prune.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/kernels/kernels.hpp"

namespace nibble {

namespace {

constexpr size_t kWord = 64;

size_t words_for(size_t elements) { return (elements + kWord - 1) / kWord; }

bool bit(const std::vector<uint64_t>& words, size_t i) { return words[i / kWord] >> (i % kWord) & 1; }
void set_bit(std::vector<uint64_t>& words, size_t i) { words[i / kWord] |= uint64_t{1} << (i % kWord); }

Mask all_kept(size_t elements) {
  Mask mask{std::vector<uint64_t>(words_for(elements), ~uint64_t{0}), elements};
  if (elements % kWord) mask.words.back() >>= kWord - elements % kWord;
  return mask;
}

Mask above(std::span<const float> values, float threshold, size_t drop_equal) {
  Mask mask{std::vector<uint64_t>(words_for(values.size())), 0};
  mask.kept = kernels::threshold_mask(values, threshold, drop_equal, mask.words);
  return mask;
}

// How many of n go.
size_t share_of(double sparsity, size_t n) { return std::min(n, static_cast<size_t>(std::llround(sparsity * static_cast<double>(n)))); }

/// Masks that together drop exactly `drop` elements of all pieces.
std::vector<Mask> drop_smallest(const std::vector<std::span<const float>>& pieces, size_t drop) {
  size_t total = 0;
  for (const auto piece : pieces) total += piece.size();
  std::vector<Mask> masks;
  if (drop == 0) {
    for (const auto piece : pieces) masks.push_back(all_kept(piece.size()));
    return masks;
  }
  if (drop >= total) {
    for (const auto piece : pieces) masks.push_back({std::vector<uint64_t>(words_for(piece.size())), 0});
    return masks;
  }
  const kernels::Kth kth = kernels::kth_magnitude(pieces, drop);
  size_t drop_equal = drop - kth.below;
  for (const auto piece : pieces) {
    const size_t equal = kernels::count_magnitudes(piece, kth.magnitude).equal;
    const size_t here = std::min(equal, drop_equal);
    drop_equal -= here;
    masks.push_back(above(piece, kth.magnitude, here));
  }
  return masks;
}

/// A mask given in row order, put into the weight's own order.
Mask from_rows(const Mask& in_rows, const Rows& rows) {
  if (rows.outer == 1) return in_rows;
  const size_t elements = rows.channels * rows.length();
  Mask mask{std::vector<uint64_t>(words_for(elements)), in_rows.kept};
  size_t i = 0;
  for (size_t c = 0; c < rows.channels; ++c) {
    for (size_t o = 0; o < rows.outer; ++o) {
      for (size_t k = 0; k < rows.inner; ++k, ++i) {
        if (bit(in_rows.words, i)) set_bit(mask.words, (o * rows.channels + c) * rows.inner + k);
      }
    }
  }
  return mask;
}

Mask n_of_m(std::span<const float> values, const Rows& rows, const Pattern& pattern) {
  const RowView view(values, rows);
  Mask mask{std::vector<uint64_t>(words_for(values.size())), 0};
  const size_t length = rows.length();
  if (length % static_cast<size_t>(pattern.m) == 0) {
    mask.kept = kernels::n_of_m_mask(view.all(), pattern.n, pattern.m, mask.words);
    return from_rows(mask, rows);
  }
  std::vector<uint64_t> words(words_for(length));
  for (size_t c = 0; c < rows.channels; ++c) {
    mask.kept += kernels::n_of_m_mask(view.row(c), pattern.n, pattern.m, words);
    for (size_t i = 0; i < length; ++i) {
      if (bit(words, i)) set_bit(mask.words, c * length + i);
    }
  }
  return from_rows(mask, rows);
}

/// Mean square of each output channel; not finite where the channel holds a NaN or an infinity, which then counts as largest.
std::vector<double> channel_scores(std::span<const float> values, const Rows& rows) {
  const RowView view(values, rows);
  std::vector<double> scores(rows.channels);
  const double length = static_cast<double>(std::max<size_t>(1, rows.length()));
  for (size_t c = 0; c < rows.channels; ++c) {
    const kernels::Moments moments = kernels::moments(view.row(c), 0);
    scores[c] = moments.finite == rows.length() ? moments.sum_squares / length : HUGE_VAL;
  }
  return scores;
}

Mask without_channels(const Rows& rows, const std::vector<bool>& gone) {
  const size_t length = rows.length();
  Mask in_rows{std::vector<uint64_t>(words_for(rows.channels * length)), 0};
  for (size_t c = 0; c < rows.channels; ++c) {
    if (gone[c]) continue;
    for (size_t i = 0; i < length; ++i) set_bit(in_rows.words, c * length + i);
    in_rows.kept += length;
  }
  return from_rows(in_rows, rows);
}

struct Channel {
  double score;
  size_t weight, channel;
};

void mark_smallest(std::vector<Channel> channels, double sparsity, std::vector<std::vector<bool>>& gone) {
  std::stable_sort(channels.begin(), channels.end(), [](const Channel& a, const Channel& b) { return a.score < b.score; });
  channels.resize(share_of(sparsity, channels.size()));
  for (const Channel& channel : channels) gone[channel.weight][channel.channel] = true;
}

}  // namespace

std::vector<Mask> find_masks(const std::vector<const Param*>& params, const std::vector<const Weight*>& weights,
                             const PruneChoice& choice, std::vector<std::pair<size_t, std::string>>& notes) {
  std::vector<FloatView> views;
  views.reserve(params.size());
  std::vector<std::span<const float>> pieces;
  std::vector<Rows> rows;
  size_t total = 0;
  for (size_t i = 0; i < params.size(); ++i) {
    views.emplace_back(params[i]->value);
    pieces.push_back(views.back().values());
    rows.push_back(rows_of(params[i]->value.shape(), weights[i]->channel_axis));
    total += pieces.back().size();
  }

  std::vector<Mask> masks;
  if (choice.pattern.kind == PatternKind::NofM) {
    for (size_t i = 0; i < params.size(); ++i) masks.push_back(n_of_m(pieces[i], rows[i], choice.pattern));
    return masks;
  }
  if (choice.pattern.kind == PatternKind::Channels) {
    std::vector<std::vector<bool>> gone;
    std::vector<Channel> all;
    for (size_t i = 0; i < params.size(); ++i) {
      gone.emplace_back(rows[i].channels);
      if (!weights[i]->channel_axis) {
        notes.emplace_back(i, "has no axis of output channels, so no channel was pruned");
        continue;
      }
      const std::vector<double> scores = channel_scores(pieces[i], rows[i]);
      std::vector<Channel> channels;
      for (size_t c = 0; c < scores.size(); ++c) channels.push_back({scores[c], i, c});
      if (choice.scope == Scope::Layer) {
        mark_smallest(std::move(channels), *choice.sparsity, gone);
      } else {
        all.insert(all.end(), channels.begin(), channels.end());
      }
    }
    if (choice.scope == Scope::Global) mark_smallest(std::move(all), *choice.sparsity, gone);
    for (size_t i = 0; i < params.size(); ++i) masks.push_back(without_channels(rows[i], gone[i]));
    return masks;
  }
  if (choice.threshold) {
    for (const auto piece : pieces) masks.push_back(above(piece, static_cast<float>(*choice.threshold), 0));
    return masks;
  }
  if (choice.scope == Scope::Global) return drop_smallest(pieces, share_of(*choice.sparsity, total));
  for (const auto piece : pieces) masks.push_back(std::move(drop_smallest({piece}, share_of(*choice.sparsity, piece.size()))[0]));
  return masks;
}

Param apply_mask(const Param& param, const Mask& mask) {
  Param result = param;
  if (!result.mask) {
    result.mask = mask;
  } else {
    result.mask->kept = 0;
    for (size_t i = 0; i < mask.words.size(); ++i) {
      result.mask->words[i] &= mask.words[i];
      result.mask->kept += static_cast<size_t>(std::popcount(result.mask->words[i]));
    }
  }
  if (param.value.dtype() == DType::Float32) {
    // Into fresh storage: writing through a shared tensor would copy it first and then walk it again.
    result.value = Tensor::allocate(DType::Float32, param.value.shape());
    kernels::apply_mask(param.value.data<float>(), result.mask->words, result.value.write<float>());
    return result;
  }
  // All bits zero is +0 in every real type, and the values that stay keep theirs exactly.
  const std::span<std::byte> bytes = result.value.write<std::byte>();
  const size_t width = bytes_for(param.value.dtype(), 1);
  for (size_t i = 0; i < param.value.elements(); ++i) {
    if (!bit(result.mask->words, i)) std::memset(bytes.data() + i * width, 0, width);
  }
  return result;
}

}  // namespace nibble
