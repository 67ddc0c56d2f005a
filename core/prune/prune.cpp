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
size_t share_of(double sparsity, size_t n) {
  return std::min(n, static_cast<size_t>(std::llround(sparsity * static_cast<double>(n))));
}

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
  if (std::isnan(kth.magnitude)) {
    // Every number goes, and NaN, which equals nothing, is counted here.
    drop_equal = drop;
    for (const auto piece : pieces) drop_equal -= piece.size() - kernels::min_max(piece).nan;
    for (const auto piece : pieces) {
      masks.push_back(above(piece, kth.magnitude, 0));
      for (size_t i = 0; i < piece.size() && drop_equal > 0; ++i) {
        if (!std::isnan(piece[i])) continue;
        masks.back().words[i / kWord] &= ~(uint64_t{1} << i % kWord);
        --masks.back().kept;
        --drop_equal;
      }
    }
    return masks;
  }
  for (const auto piece : pieces) {
    const size_t equal = kernels::count_magnitudes(piece, kth.magnitude).equal;
    const size_t here = std::min(equal, drop_equal);
    drop_equal -= here;
    masks.push_back(above(piece, kth.magnitude, here));
  }
  return masks;
}

/// Where element j of row c lies in the weight.
size_t place_of(const Rows& rows, size_t c, size_t j) {
  return (j / rows.inner * rows.channels + c) * rows.inner + j % rows.inner;
}

Mask n_of_m(std::span<const float> values, const Rows& rows, const Pattern& pattern) {
  Mask mask{std::vector<uint64_t>(words_for(values.size())), 0};
  const size_t length = rows.length();
  if (rows.outer == 1 && length % static_cast<size_t>(pattern.m) == 0) {
    mask.kept = kernels::n_of_m_mask(values, pattern.n, pattern.m, mask.words);
    return mask;
  }
  std::vector<uint64_t> words(words_for(length));
  for_each_row_block(values, rows, [&](size_t first, size_t count, std::span<const float> block) {
    for (size_t c = 0; c < count; ++c) {
      mask.kept += kernels::n_of_m_mask(block.subspan(c * length, length), pattern.n, pattern.m, words);
      for (size_t j = 0; j < length; ++j) {
        if (bit(words, j)) set_bit(mask.words, place_of(rows, first + c, j));
      }
    }
  });
  return mask;
}

/// Mean square of each output channel; not finite where the channel holds a NaN or an infinity, which then counts as
/// largest.
std::vector<double> channel_scores(std::span<const float> values, const Rows& rows) {
  std::vector<double> scores(rows.channels);
  const size_t length = rows.length();
  for_each_row_block(values, rows, [&](size_t first, size_t count, std::span<const float> block) {
    for (size_t c = 0; c < count; ++c) {
      const kernels::Moments moments = kernels::moments(block.subspan(c * length, length), 0);
      const double mean_square = moments.sum_squares / static_cast<double>(std::max<size_t>(1, length));
      scores[first + c] = moments.finite == length ? mean_square : HUGE_VAL;
    }
  });
  return scores;
}

Mask without_channels(const Rows& rows, const std::vector<bool>& gone) {
  const size_t length = rows.length();
  Mask mask{std::vector<uint64_t>(words_for(rows.channels * length)), 0};
  for (size_t c = 0; c < rows.channels; ++c) {
    if (gone[c]) continue;
    for (size_t j = 0; j < length; ++j) set_bit(mask.words, place_of(rows, c, j));
    mask.kept += length;
  }
  return mask;
}

struct Channel {
  double score;
  size_t weight, channel;
};

void mark_smallest(std::vector<Channel> channels, double sparsity, std::vector<std::vector<bool>>& gone) {
  std::stable_sort(channels.begin(), channels.end(),
                   [](const Channel& a, const Channel& b) { return a.score < b.score; });
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
  for (const auto piece : pieces)
    masks.push_back(std::move(drop_smallest({piece}, share_of(*choice.sparsity, piece.size()))[0]));
  return masks;
}

Param apply_mask(Param param, const Mask& mask) {
  if (!param.mask) {
    param.mask = mask;
  } else {
    param.mask->kept = 0;
    for (size_t i = 0; i < mask.words.size(); ++i) {
      param.mask->words[i] &= mask.words[i];
      param.mask->kept += static_cast<size_t>(std::popcount(param.mask->words[i]));
    }
  }
  if (param.value.dtype() == DType::Float32) {
    // Writing through a shared tensor would copy it first and then walk it again.
    const bool in_place = param.value.is_unshared();
    Tensor pruned = in_place ? std::move(param.value) : Tensor::allocate(DType::Float32, param.value.shape());
    const std::span<float> out = pruned.write<float>();
    kernels::apply_mask(in_place ? std::span<const float>(out) : param.value.data<float>(), param.mask->words, out);
    param.value = std::move(pruned);
    return param;
  }
  // All bits zero is +0 in every real type, and the values that stay keep theirs exactly.
  const std::span<std::byte> bytes = param.value.write<std::byte>();
  const size_t width = bytes_for(param.value.dtype(), 1);
  for (size_t i = 0; i < param.value.elements(); ++i) {
    if (!bit(param.mask->words, i)) std::memset(bytes.data() + i * width, 0, width);
  }
  return param;
}

}  // namespace nibble
