#include "core/codec/levels.hpp"

#include <algorithm>
#include <cmath>

namespace nibble::codec {

namespace {

/// Levels that choices are tried on.
constexpr size_t kTried = size_t{1} << 15;

/// A magnitude below 2^kMostClass: how many bits, then those below the leading one. 0 has none.
template <class Coder>
uint32_t code_magnitude(Coder& coder, uint32_t magnitude) {
  const int k = std::min(static_cast<int>(coder.bits(static_cast<uint32_t>(std::bit_width(magnitude)), 5)), kMostClass);
  if (k < 2) return static_cast<uint32_t>(k);
  uint32_t rest = magnitude - (1u << (k - 1));
  if (k > 16)
    rest = coder.bits(rest >> 1, k - 2) << 1 | coder.bits(rest & 1, 1);
  else
    rest = coder.bits(rest, k - 1);
  return (1u << (k - 1)) + rest;
}

template <class Coder>
int32_t code_signed(Coder& coder, int32_t level) {
  const bool negative = coder.bits(level < 0, 1) != 0;
  const auto magnitude = static_cast<int32_t>(code_magnitude(coder, magnitude_of(level)));
  return negative ? -magnitude : magnitude;
}

/// The choice itself, some 28 bits.
template <class Coder>
LevelChoice code_choice(Coder& coder, LevelChoice choice) {
  const auto number = [&](auto& field, int count) {
    field = static_cast<std::remove_reference_t<decltype(field)>>(coder.bits(static_cast<uint32_t>(field), count));
  };
  number(choice.model, 2);
  if (choice.model == LevelChoice::Model::Uniform) {
    choice.lowest = code_signed(coder, choice.lowest);
    choice.highest = std::max(code_signed(coder, choice.highest), choice.lowest);
    return choice;
  }
  if (choice.model != LevelChoice::Model::Runs) number(choice.width, 2);
  if (choice.model == LevelChoice::Model::Direct) {
    number(choice.neighbours, 2);
    choice.neighbours = std::min(choice.neighbours, 2);
  }
  if (choice.model != LevelChoice::Model::Mixed) {
    number(choice.by_sign, 1);
    choice.limit = coder.bits(choice.limit == 127, 1) ? 127 : FineEstimator::kMostLimit;
  }
  LevelPrior& prior = choice.prior;
  number(prior.given, 1);
  if (!prior.given) return choice;
  number(prior.shape, 2);
  uint32_t scale = static_cast<uint32_t>(prior.scale - LevelPrior::kLowestScale);
  number(scale, 7);
  prior.scale = std::min(static_cast<int>(scale) + LevelPrior::kLowestScale, LevelPrior::kHighestScale);
  number(prior.density, 5);
  prior.least = std::max(code_magnitude(coder, prior.least), 1u);
  return choice;
}

/// One body for all directions; writes what it decodes.
template <class Coder>
void code_levels(Coder& coder, std::span<int32_t> levels, const Widths& widths, const LevelChoice& choice) {
  if (choice.model == LevelChoice::Model::Runs) {
    std::make_unique<RunModel<Coder>>(coder, choice)->code(levels);
    return;
  }
  if (choice.model == LevelChoice::Model::Uniform) {
    detail::enter(coder, LevelPart::Remainder);
    const auto count = static_cast<uint32_t>(choice.highest - choice.lowest + 1);
    for (int32_t& level : levels)
      level = choice.lowest + static_cast<int32_t>(coder.uniform(static_cast<uint32_t>(level - choice.lowest), count));
    return;
  }
  const size_t columns = std::min(widths.of[choice.width], levels.size());
  const auto run = [&](auto model) {
    for (int32_t& level : levels) level = model->step(level);
  };
  if (choice.model == LevelChoice::Model::Direct) {
    run(std::make_unique<DirectModel<Coder>>(coder, choice, columns));
  } else {
    run(std::make_unique<MixedModel<Coder>>(coder, choice, columns));
  }
}

/// Encoders and counters return every level as it was given, so the levels are not really written.
template <class Coder>
void code_given(Coder& coder, std::span<const int32_t> levels, const Widths& widths, const LevelChoice& choice) {
  code_levels(coder, std::span(const_cast<int32_t*>(levels.data()), levels.size()), widths, choice);
}

}  // namespace

Widths widths_of(std::span<const size_t> shape) {
  Widths widths;
  size_t all = 1;
  for (const size_t extent : shape) all *= extent;
  const auto product_from = [&](size_t axis) {
    size_t product = 1;
    for (; axis < shape.size(); ++axis) product *= shape[axis];
    return std::max<size_t>(product, 1);
  };
  const size_t rank = shape.size();
  widths.of[0] = rank < 2 ? std::max<size_t>(all, 1) : product_from(1);
  widths.of[1] = rank < 3 ? widths.of[0] : product_from(2);
  widths.of[2] = rank < 2 ? widths.of[0] : product_from(rank - 1);
  return widths;
}

uint64_t decoding_room(uint64_t levels, const Widths& widths) {
  const uint64_t columns = std::min<uint64_t>(*std::max_element(widths.of, widths.of + 3), levels);
  // Rows above and here as int32; the mixed model has three, two means of each column, and grows its memory by
  // doubling.
  return 8 * columns + (levels <= kMostMixed ? 12 * columns + 12 * levels : 0);
}

LevelChoice choose_model(std::span<const int32_t> levels, const Widths& widths) {
  LevelChoice best;
  if (levels.empty()) return best;
  // The middle of a large tensor, from the start of a row.
  const size_t columns = widths.of[0];
  const size_t from = levels.size() <= kTried ? 0 : (levels.size() - kTried) / 2 / columns * columns;
  const std::span<const int32_t> tried = levels.subspan(from, std::min(kTried, levels.size() - from));
  uint64_t least = ~uint64_t{0};
  const auto attempt = [&](const LevelChoice& choice) {
    const uint64_t cost = cost_of_levels(tried, widths, choice);
    if (cost < least) {
      least = cost;
      best = choice;
    }
  };
  LevelChoice choice;
  attempt(choice);
  choice.prior = fit_prior(levels);
  attempt(choice);
  const bool prior_helps = best.prior.given;
  for (choice.neighbours = 1; choice.neighbours <= 2; ++choice.neighbours) attempt(choice);
  const auto vary = [&](auto change) {
    LevelChoice other = best;
    change(other);
    attempt(other);
  };
  vary([](LevelChoice& other) { other.by_sign = true; });
  vary([](LevelChoice& other) { other.limit = 127; });
  vary([](LevelChoice& other) { other.model = LevelChoice::Model::Runs; });
  vary([&](LevelChoice& other) {
    const auto [lowest, highest] = std::minmax_element(levels.begin(), levels.end());
    other = {};
    other.model = LevelChoice::Model::Uniform;
    other.lowest = *lowest;
    other.highest = *highest;
  });
  if (levels.size() > kMostMixed) return best;

  const LevelChoice unmixed = best;
  LevelChoice mixed;
  mixed.model = LevelChoice::Model::Mixed;
  if (prior_helps) mixed.prior = choice.prior;
  for (mixed.width = 0; mixed.width < 3; ++mixed.width) {
    if (mixed.width == 0 || widths.of[mixed.width] != widths.of[mixed.width - 1]) attempt(mixed);
  }
  if (tried.size() == levels.size() || best.model != LevelChoice::Model::Mixed) return best;
  return cost_of_levels(levels, widths, best) < cost_of_levels(levels, widths, unmixed) ? best : unmixed;
}

void encode_levels(RangeEncoder& coder, std::span<const int32_t> levels, const Widths& widths,
                   const LevelChoice& choice) {
  code_choice(coder, choice);
  code_given(coder, levels, widths, choice);
}

bool decode_levels(RangeDecoder& coder, std::span<int32_t> levels, const Widths& widths) {
  std::fill(levels.begin(), levels.end(), 0);
  const LevelChoice choice = code_choice(coder, LevelChoice{});
  if (choice.width > 2 || (choice.model == LevelChoice::Model::Mixed && levels.size() > kMostMixed)) return false;
  code_levels(coder, levels, widths, choice);
  return true;
}

uint64_t cost_of_levels(std::span<const int32_t> levels, const Widths& widths, const LevelChoice& choice) {
  BitCounter counter;
  code_choice(counter, choice);
  code_given(counter, levels, widths, choice);
  return counter.cost();
}

LevelCosts costs_of_levels(std::span<const int32_t> levels, const Widths& widths, const LevelChoice& choice) {
  PartCounter counter;
  code_given(counter, levels, widths, choice);
  LevelCosts costs;
  for (size_t part = 0; part < kLevelParts; ++part) costs.of[part] = counter.cost(static_cast<LevelPart>(part));
  return costs;
}

namespace {

/// How often each level stands, by level - lowest.
struct Histogram {
  int32_t lowest = 0;
  std::vector<uint64_t> counts;

  explicit Histogram(std::span<const int32_t> levels) {
    if (levels.empty()) return;
    const auto [least, most] = std::minmax_element(levels.begin(), levels.end());
    lowest = *least;
    counts.assign(static_cast<size_t>(int64_t{*most} - *least) + 1, 0);
    for (const int32_t level : levels) ++counts[static_cast<size_t>(level - lowest)];
  }
  uint64_t of(int32_t level) const { return counts[static_cast<size_t>(level - lowest)]; }
};

}  // namespace

double entropy_of(std::span<const int32_t> levels) {
  const Histogram histogram(levels);
  const auto total = static_cast<double>(levels.size());
  double bits = 0;
  for (const uint64_t count : histogram.counts) {
    if (count) bits -= static_cast<double>(count) * std::log2(static_cast<double>(count) / total);
  }
  return bits;
}

double estimate_cost(std::span<const int32_t> levels, const Widths& widths) {
  constexpr size_t kSample = size_t{1} << 15;
  LevelChoice direct;
  direct.prior = fit_prior(levels);
  direct.neighbours = 1;
  LevelChoice mixed = direct;
  mixed.model = LevelChoice::Model::Mixed;
  const auto bits = [&](std::span<const int32_t> some, const LevelChoice& choice) {
    return static_cast<double>(cost_of_levels(some, widths, choice)) / 65536;
  };
  if (levels.size() <= kSample + kSample / 4) {
    // The choices of choose_model that are mostly among the best.
    LevelChoice runs = direct, plain;
    runs.model = LevelChoice::Model::Runs;
    const double without = bits(levels, plain);
    double least = std::min({bits(levels, direct), bits(levels, runs), without});
    if (least == without) mixed.prior = {};
    for (mixed.width = 0; mixed.width < 3; ++mixed.width) {
      if (mixed.width == 0 || widths.of[mixed.width] != widths.of[mixed.width - 1])
        least = std::min(least, bits(levels, mixed));
    }
    return least;
  }

  // The middle, by halves: the second tells what a level costs once the model has learned, compared with its share in
  // the entropy of all levels, and the first what learning costs.
  const Histogram histogram(levels);
  const auto ideal = [&](std::span<const int32_t> some) {
    double sum = 0;
    for (const int32_t level : some)
      sum -= std::log2(static_cast<double>(histogram.of(level)) / static_cast<double>(levels.size()));
    return sum;
  };
  const size_t from = (levels.size() - kSample) / 2 / widths.of[0] * widths.of[0];
  const std::span<const int32_t> sample = levels.subspan(from, kSample), half = sample.first(kSample / 2);
  const double ideal_all = entropy_of(levels), ideal_half = ideal(half), ideal_rest = ideal(sample) - ideal_half;
  if (!(ideal_rest > 0)) return ideal_all;
  const auto extrapolated = [&](const LevelChoice& choice) {
    const double first = bits(half, choice), both = bits(sample, choice);
    const double ratio = (both - first) / ideal_rest;
    return ratio * ideal_all + std::max(0.0, first - ratio * ideal_half);
  };
  const double best = extrapolated(direct);
  return levels.size() > kMostMixed ? best : std::min(best, extrapolated(mixed));
}

}  // namespace nibble::codec
