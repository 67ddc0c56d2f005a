// How one level after the other becomes binary decisions, and what each decision is expected to be.
//
// Binarisation, the same in all models:
//   significance   level != 0?
//   sign           level < 0?
//   class          k, the number of bits of the magnitude (1 for 1, 2 for 2 and 3, ...): first "k > pivot?", then one
//                  step after the other up or down from there; the pivot is the class that the prior's median has
//   mantissa       the k - 1 bits below the leading one, highest first
//   remainder      those mantissa bits of large classes that are too fine to have a shape
//
// A template parameter says what becomes of the decisions: RangeEncoder, RangeDecoder, BitCounter (range_coder.hpp).
#pragma once

#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "core/codec/level_prior.hpp"
#include "core/codec/mixer.hpp"
#include "core/codec/range_coder.hpp"

namespace nibble::codec {

/// Magnitudes are below 2^kMostClass: any difference of two 16-bit codes.
inline constexpr int kMostClass = 17;
inline constexpr int32_t kMostLevel = (1 << kMostClass) - 1;

inline uint32_t magnitude_of(int32_t level) {
  return level < 0 ? 0u - static_cast<uint32_t>(level) : static_cast<uint32_t>(level);
}

/// What a decision is about: where the bits of a tensor go.
enum class LevelPart : uint8_t { Significance, Sign, Magnitude, Remainder };
inline constexpr size_t kLevelParts = 4;

/// Which model, and how it is set: chosen by the encoder and sent before the levels.
struct LevelChoice {
  enum class Model : uint8_t {
    Direct,   ///< each decision has one estimator, chosen by the neighbourhood: fast
    Mixed,    ///< several estimators for each decision, and a match with earlier levels, are mixed: small
    Runs,     ///< runs of zeros as one number: for tensors with next to nothing in them
    Uniform,  ///< all levels between the lowest and the highest are as likely: for noise
  };
  Model model = Model::Direct;
  /// Whose magnitudes choose the estimators of Model::Direct: 0 nobody's, 1 the two levels before, 2 the three above
  /// too.
  int neighbours = 0;
  bool by_sign = false;  ///< Model::Direct and Runs: negative magnitudes have estimators of their own
  uint32_t limit = FineEstimator::kMostLimit;  ///< of the estimators of Model::Direct and Runs: that or 127
  size_t width = 0;                            ///< which of the widths that the levels can be seen in: 0 to 3
  LevelPrior prior;
  int32_t lowest = 0, highest = 0;  ///< Model::Uniform
};

/// The class that is asked for first.
inline int pivot_of(const LevelChoice& choice) { return choice.prior.given ? choice.prior.median_class() : 1; }

/// The nodes of the decision tree that have estimators: classes going up and down from the pivot, mantissa bits by all
/// bits before them, in classes up to kFineClass in full and in larger ones the first kCoarseBits, and the remainder by
/// class and place alone.
struct LevelTree {
  static constexpr int kFineClass = 8, kCoarseBits = 4, kPlaces = 16;
  static constexpr int kUp = 0, kDown = kUp + kMostClass, kFine = kDown + kMostClass;
  static constexpr int kCoarse = kFine + (1 << kFineClass);
  static constexpr int kRemainder = kCoarse + (kMostClass - kFineClass) * (1 << kCoarseBits);
  static constexpr int kNodes = kRemainder + (kMostClass - kFineClass) * kPlaces;

  /// For the mantissa bit after `prefix` (the leading one and the bits so far) of class `k`, `left` bits being to come.
  static int mantissa(int k, uint32_t prefix, int left) {
    if (k <= kFineClass) return kFine + (1 << (k - 1)) + static_cast<int>(prefix) - 2;
    const int wide = k - kFineClass - 1;
    if (prefix >> kCoarseBits) return kRemainder + wide * kPlaces + left - 1;
    return kCoarse + wide * (1 << kCoarseBits) + static_cast<int>(prefix);
  }
};

/// What the prior expects of every node.
class ExpectedNodes {
 public:
  explicit ExpectedNodes(const LevelChoice& choice);
  uint32_t operator[](int node) const { return probability_[node]; }
  uint32_t significance() const { return significance_; }

  /// As sure as this many decisions the models are of what the prior says.
  static constexpr uint32_t kTrust = 8, kTrustInDensity = 4;

 private:
  uint32_t probability_[LevelTree::kNodes];
  uint32_t significance_ = kEven;
};

/// Walks the decisions of one level other than 0: `decide(node, value)` codes one and returns it. Returns the
/// magnitude, which `magnitude` is when encoding.
template <class Decide>
[[gnu::always_inline]] inline uint32_t walk_magnitude(uint32_t magnitude, int pivot, const Decide& decide) {
  const int wanted = std::bit_width(magnitude);
  int k = pivot;
  if (k < kMostClass && decide(LevelTree::kUp, wanted > pivot)) {
    ++k;
    while (k < kMostClass && decide(LevelTree::kUp + k - pivot, wanted > k)) ++k;
  } else {
    while (k > 1 && decide(LevelTree::kDown + pivot - k, wanted < k)) --k;
  }
  uint32_t prefix = 1;
  for (int left = k - 1; left > 0; --left) {
    const int node = LevelTree::mantissa(k, prefix, left);
    prefix = prefix << 1 | static_cast<uint32_t>(decide(node, magnitude >> (left - 1) & 1));
  }
  return prefix;
}

namespace detail {
/// Tells a coder that wants to know (PartCounter) what the next decisions are about.
template <class Coder>
[[gnu::always_inline]] inline void enter(Coder& coder, LevelPart part) {
  if constexpr (requires { coder.enter(part); }) coder.enter(part);
}
template <class Coder>
[[gnu::always_inline]] inline void enter_node(Coder& coder, int node) {
  enter(coder, node < LevelTree::kRemainder ? LevelPart::Magnitude : LevelPart::Remainder);
}
}  // namespace detail

/// Counts bits by what they are for.
class PartCounter {
 public:
  static constexpr bool kDecodes = false;

  void enter(LevelPart part) { part_ = static_cast<size_t>(part); }
  bool bit(bool value, uint32_t probability) {
    cost_[part_] += cost_of(value ? probability : 65536 - probability);
    return value;
  }
  uint32_t bits(uint32_t value, int count) {
    cost_[part_] += static_cast<uint64_t>(count) << 16;
    return value;
  }
  uint32_t uniform(uint32_t value, uint32_t total) {
    cost_[part_] += cost_of_one_in(total);
    return value;
  }
  /// In 1 / 65536 bit.
  uint64_t cost(LevelPart part) const { return cost_[static_cast<size_t>(part)]; }

 private:
  size_t part_ = 0;
  uint64_t cost_[kLevelParts] = {};
};

/// LevelChoice::Model::Direct.
template <class Coder>
class DirectModel {
 public:
  DirectModel(Coder& coder, const LevelChoice& choice, size_t columns)
      : coder_(coder), choice_(choice), columns_(columns), pivot_(pivot_of(choice)) {
    if (choice.neighbours) {
      above_.assign(columns + 3, 0);
      here_.assign(columns + 3, 0);
    }
    if (!choice.prior.given) return;
    const ExpectedNodes expected(choice);
    for (FineEstimator& estimator : significant_)
      estimator.set(expected.significance(), ExpectedNodes::kTrustInDensity);
    for (auto& of_sign : nodes_) {
      for (size_t node = 0; node < LevelTree::kNodes; ++node) {
        for (size_t c = 0; c < (node < LevelTree::kFine ? kContexts : 1); ++c)
          at(of_sign, static_cast<int>(node), c).set(expected[static_cast<int>(node)], ExpectedNodes::kTrust);
      }
    }
  }

  /// Codes the next level, in row order.
  int32_t step(int32_t level) {
    const size_t context = choice_.neighbours ? context_here() : 0;
    const int32_t coded = code(level, context);
    if (choice_.neighbours) {
      here_[column_ + 2] = magnitude_of(coded);
      if (++column_ == columns_) next_row();
    }
    return coded;
  }

  /// What step(level) would cost, in 1 / 65536 bit.
  uint64_t price(int32_t level) {
    uint64_t cost = 0;
    const size_t context = choice_.neighbours ? context_here() : 0;
    const auto add = [&](const FineEstimator& estimator, bool value) {
      cost += cost_of(value ? estimator.probability() : 65536 - estimator.probability());
      return value;
    };
    if (!add(significant_[context], level != 0)) return cost;
    const bool negative = add(sign_, level < 0);
    Nodes& nodes = nodes_[choice_.by_sign && negative];
    walk_magnitude(magnitude_of(level), pivot_,
                   [&](int node, bool value) { return add(at(nodes, node, context), value); });
    return cost;
  }

 private:
  static constexpr size_t kContexts = 12;

  // Magnitudes in columns 2 and on; what is left of a row and right of it is 0.
  size_t context_here() const {
    uint32_t activity = 2 * here_[column_ + 1] + here_[column_];
    if (choice_.neighbours == 2) activity += 2 * above_[column_ + 2] + above_[column_ + 1] + above_[column_ + 3];
    return std::min<size_t>(static_cast<size_t>(std::bit_width(activity)), kContexts - 1);
  }

  void next_row() {
    above_.swap(here_);
    column_ = 0;
  }

  using Nodes = FineEstimator[LevelTree::kFine * kContexts + LevelTree::kNodes - LevelTree::kFine];
  static FineEstimator& at(Nodes& nodes, int node, size_t context) {
    if (node < LevelTree::kFine) return nodes[static_cast<size_t>(node) * kContexts + context];
    return nodes[LevelTree::kFine * (kContexts - 1) + static_cast<size_t>(node)];
  }

  [[gnu::always_inline]] bool decide(FineEstimator& estimator, bool value) {
    const bool coded = coder_.bit(value, estimator.probability());
    estimator.update(coded, choice_.limit);
    return coded;
  }

  int32_t code(int32_t level, size_t context) {
    detail::enter(coder_, LevelPart::Significance);
    if (!decide(significant_[context], level != 0)) return 0;
    detail::enter(coder_, LevelPart::Sign);
    const bool negative = decide(sign_, level < 0);
    Nodes& nodes = nodes_[choice_.by_sign && negative];
    const uint32_t magnitude = walk_magnitude(magnitude_of(level), pivot_, [&](int node, bool value) {
      detail::enter_node(coder_, node);
      return decide(at(nodes, node, context), value);
    });
    return negative ? -static_cast<int32_t>(magnitude) : static_cast<int32_t>(magnitude);
  }

  Coder& coder_;
  const LevelChoice choice_;
  const size_t columns_;
  const int pivot_;
  std::vector<uint32_t> above_, here_;
  size_t column_ = 0;
  FineEstimator significant_[kContexts], sign_;
  Nodes nodes_[2];
};

/// LevelChoice::Model::Runs: before each level that is not 0, how many zeros there are, as one magnitude more; then the
/// level as in the direct model. The last run is not ended by a level.
template <class Coder>
class RunModel {
 public:
  RunModel(Coder& coder, const LevelChoice& choice) : coder_(coder), choice_(choice), pivot_(pivot_of(choice)) {}

  /// Codes all levels at once; decoding writes those that are not 0.
  void code(std::span<int32_t> levels) {
    size_t i = 0;
    while (i < levels.size()) {
      size_t next = i;
      if constexpr (!Coder::kDecodes) {
        while (next < levels.size() && levels[next] == 0) ++next;
      }
      detail::enter(coder_, LevelPart::Significance);
      // A damaged stream may tell of a run that is longer than what is left.
      i += static_cast<size_t>(std::min<uint64_t>(code_run(next - i), levels.size() - i));
      if (i == levels.size()) break;
      levels[i] = code_level(levels[i]);
      ++i;
    }
  }

 private:
  static constexpr int kMostRunClass = 48;

  bool decide(FineEstimator& estimator, bool value) {
    const bool coded = coder_.bit(value, estimator.probability());
    estimator.update(coded, choice_.limit);
    return coded;
  }

  /// Exp-Golomb (Teuhola 1978): the number of bits of run + 1 in unary, then those below the leading one, the first two
  /// of them by estimators.
  uint64_t code_run(size_t run) {
    const uint64_t number = uint64_t{run} + 1;
    const int wanted = std::bit_width(number);
    int k = 1;
    while (k < kMostRunClass && decide(run_class_[k], wanted > k)) ++k;
    uint64_t prefix = 1;
    for (int left = k - 1; left > 0; --left) {
      const bool value = number >> (left - 1) & 1;
      const bool coded = prefix < 4 ? decide(run_bits_[k][prefix], value) : coder_.bits(value, 1) != 0;
      prefix = prefix << 1 | static_cast<uint64_t>(coded);
    }
    return prefix - 1;
  }

  int32_t code_level(int32_t level) {
    detail::enter(coder_, LevelPart::Sign);
    const bool negative = decide(sign_, level < 0);
    auto& nodes = nodes_[choice_.by_sign && negative];
    const uint32_t magnitude = walk_magnitude(magnitude_of(level), pivot_, [&](int node, bool value) {
      detail::enter_node(coder_, node);
      return decide(nodes[node], value);
    });
    return negative ? -static_cast<int32_t>(magnitude) : static_cast<int32_t>(magnitude);
  }

  Coder& coder_;
  const LevelChoice choice_;
  const int pivot_;
  FineEstimator run_class_[kMostRunClass + 1], run_bits_[kMostRunClass + 1][4], sign_;
  FineEstimator nodes_[2][LevelTree::kNodes];
};

/// LevelChoice::Model::Mixed.
template <class Coder>
class MixedModel {
 public:
  MixedModel(Coder& coder, const LevelChoice& choice, size_t columns)
      : coder_(coder),
        choice_(choice),
        columns_(columns),
        pivot_(pivot_of(choice)),
        expected_(choice),
        estimators_(new Estimator[(kMantissaSets * kNodes + (kContextSets - kMantissaSets) * kHeads) * kContexts]),
        above_(columns + 3, 0),
        above_that_(columns + 3, 0),
        here_(columns + 3, 0),
        column_size_(columns, 0),
        column_mean_(columns, 0),
        last_seen_(size_t{1} << kMatchBits, 0) {}

  /// Codes the next level, in row order.
  int32_t step(int32_t level) {
    look_around();
    const int32_t coded = code(
        level, [this](int node, int kind, bool value, bool foretold) { return decide(node, kind, value, foretold); });
    remember(coded);
    return coded;
  }

  /// What step(level) would cost, in 1 / 65536 bit.
  uint64_t price(int32_t level) {
    look_around();
    uint64_t cost = 0;
    code(level, [&](int node, int kind, bool value, bool foretold) {
      Prediction prediction;
      predict(node, kind, foretold, prediction);
      cost += cost_of(value ? prediction.probability : 65536 - prediction.probability);
      follows_ = follows_ && value == foretold;
      return value;
    });
    return cost;
  }

 private:
  // The decisions' nodes: significance and sign before those of the tree.
  static constexpr int kSignificance = 0, kSign = 1, kTreeFrom = 2, kNodes = kTreeFrom + LevelTree::kNodes;
  static constexpr int kContextSets = 9, kContexts = 32;
  /// The sets that say something about mantissa bits come first.
  static constexpr int kMantissaSets = 4;
  static constexpr int kHeads = kTreeFrom + LevelTree::kFine;  ///< nodes before those of the mantissa
  static constexpr int kPrior = kContextSets, kMatch = kContextSets + 1, kInputs = kContextSets + 2;
  static constexpr int kMatchBits = 16, kLeastMatch = 4, kMostMatch = 32;
  static constexpr uint32_t kLimit = 255;

  // --- What is known around the next level ---

  /// A mean magnitude compared with the tensor's, in half octaves, 0 to most - 1, most / 2 where they are alike. Means
  /// here are in 1 / 16.
  int relative(uint32_t mean, int most) const {
    const uint64_t ratio = (uint64_t{mean} + 1) * 64 / (overall() + 1);
    const int width = std::bit_width(ratio);
    const int halves = 2 * width + (width > 1 && (ratio >> (width - 2) & 1)) - 14;
    return std::clamp(halves + most / 2, 0, most - 1);
  }
  /// A signed mean by its sign and whether it is small, 0 to 4.
  int direction(int32_t mean) const {
    const int32_t small = static_cast<int32_t>(overall() / 4) + 1;
    return mean < -2 * small ? 0 : mean < -small / 2 ? 1 : mean <= small / 2 ? 2 : mean <= 2 * small ? 3 : 4;
  }
  static int size_class(int32_t level) { return std::min(3, static_cast<int>(std::bit_width(magnitude_of(level)))); }
  uint32_t overall() const { return std::max(size_ >> 8, 1u); }

  void look_around() {
    const int32_t before = here_[column_ + 1], before_that = here_[column_];
    const int32_t above = above_[column_ + 2], above_that = above_that_[column_ + 2];
    const uint32_t activity = 2 * magnitude_of(before) + magnitude_of(before_that) + 2 * magnitude_of(above) +
                              magnitude_of(above_[column_ + 1]) + magnitude_of(above_[column_ + 3]) +
                              magnitude_of(above_that);
    context_[0] = 0;  // the sign, once it is known
    context_[6] = direction(16 * before) * 5 + direction(16 * before_that);
    context_[7] = direction(16 * above) * 5 + direction(16 * above_that);
    context_[1] = relative(2 * activity, 24);
    context_[8] = size_class(before) * 4 + size_class(above);  // and the sign, likewise
    context_[4] = relative(column_size_[column_] >> 4, 5) * 5 + relative(row_size_ >> 4, 5);
    context_[2] = relative(column_size_[column_] >> 4, 16);
    context_[5] = direction(column_mean_[column_] >> 4) * 5 + direction(row_mean_ >> 4);
    context_[3] = direction(8 * (before + above)) * 5 + direction(16 * before);
    foretold_ = match_ ? seen_[match_] : 0;
    follows_ = match_ != 0;
  }

  void remember(int32_t level) {
    // Means in 1 / 256 that forget: those of a row or column count a level for a sixteenth.
    const auto size = static_cast<int32_t>(std::min(magnitude_of(level), kMostInMeans));
    const int32_t value = level < 0 ? -size : size;
    const int column_rate = row_ < 1 ? 0 : row_ < 2 ? 1 : row_ < 4 ? 2 : row_ < 8 ? 3 : 4;
    follow(column_size_[column_], size, column_rate);
    follow(column_mean_[column_], value, column_rate);
    const int row_rate = seen_.empty() ? 0 : 4;
    follow(row_size_, size, row_rate);
    follow(row_mean_, value, row_rate);
    // The tensor's in 1 / 4096.
    const auto count = static_cast<int32_t>(std::min<size_t>(seen_.size(), 4095));
    size_ =
        static_cast<uint32_t>(static_cast<int32_t>(size_) + (size * 4096 - static_cast<int32_t>(size_)) / (count + 1));

    here_[column_ + 2] = level;
    if (++column_ == columns_) {
      above_that_.swap(above_);
      above_.swap(here_);
      column_ = 0;
      ++row_;
    }
    seen_.push_back(level);
    find_match();
  }

  static constexpr uint32_t kMostInMeans = 4095;
  template <class Mean>
  static void follow(Mean& mean, int32_t value, int rate) {
    const auto old = static_cast<int32_t>(mean);
    mean = static_cast<Mean>(old + ((value * 256 - old) >> rate));
  }

  /// Where the last kLeastMatch levels have stood before: repeated rows, mirrored filters, tables. Position 0 is no
  /// match.
  void find_match() {
    const size_t count = seen_.size();
    if (match_ && seen_[match_] == seen_[count - 1]) {
      ++match_;
      length_ = std::min(length_ + 1, kMostMatch);
    } else {
      match_ = 0;
      length_ = 0;
    }
    if (count < kLeastMatch) return;
    uint32_t hash = 0;
    for (size_t i = 1; i <= kLeastMatch; ++i) hash = (hash + static_cast<uint32_t>(seen_[count - i]) + 1) * 0x2F0B4C47u;
    uint32_t& last = last_seen_[hash >> (32 - kMatchBits)];
    if (!match_ && last) {
      const size_t reach = std::min<size_t>(last, kMostMatch);
      size_t length = 0;
      while (length < reach && seen_[last - 1 - length] == seen_[count - 1 - length]) ++length;
      if (length >= kLeastMatch) {
        match_ = last;
        length_ = static_cast<int>(length);
      }
    }
    last = static_cast<uint32_t>(count);
  }

  // --- One level ---

  template <class Decide>
  int32_t code(int32_t level, const Decide& decide_on) {
    detail::enter(coder_, LevelPart::Significance);
    if (!decide_on(kSignificance, 0, level != 0, foretold_ != 0)) return 0;
    detail::enter(coder_, LevelPart::Sign);
    const bool negative = decide_on(kSign, 1, level < 0, foretold_ < 0);
    context_[0] = negative;
    context_[8] += 16 * negative;
    const uint32_t foretold = magnitude_of(foretold_);
    const int foretold_class = std::bit_width(foretold);
    int mantissa_bits = 0;
    const uint32_t magnitude = walk_magnitude(magnitude_of(level), pivot_, [&](int node, bool value) {
      detail::enter_node(coder_, node);
      if (node < LevelTree::kDown) {
        const int k = pivot_ + node - LevelTree::kUp;
        return decide_on(kTreeFrom + node, node == LevelTree::kUp ? 2 : 3, value, foretold_class > k);
      }
      if (node < LevelTree::kFine) {
        const int k = pivot_ - (node - LevelTree::kDown);
        return decide_on(kTreeFrom + node, 4, value, foretold_class < k);
      }
      // The mantissa bits of the foretold magnitude, as far as its class is this one's.
      ++mantissa_bits;
      const int shift = foretold_class - 1 - mantissa_bits;
      const bool expected = shift >= 0 && (foretold >> shift & 1);
      return decide_on(kTreeFrom + node, mantissa_bits == 1 ? 5 : 6, value, expected);
    });
    return negative ? -static_cast<int32_t>(magnitude) : static_cast<int32_t>(magnitude);
  }

  uint32_t expected_of(int node) const {
    return node == kSignificance ? expected_.significance() : node == kSign ? kEven : expected_[node - kTreeFrom];
  }

  struct Prediction {
    int32_t inputs[kInputs] = {};
    Estimator* estimators[kContextSets];
    int sets = 0;
    Estimator* reliance = nullptr;
    Mixer<kInputs>* mixer = nullptr;
    uint32_t probability = 0;
  };

  /// `kind` chooses the mixer; `foretold` is what the match expects, as long as it has been right about this level.
  void predict(int node, int kind, bool foretold, Prediction& made) {
    const uint32_t expected = expected_of(node);
    const uint32_t trust = node == kSignificance ? ExpectedNodes::kTrustInDensity : ExpectedNodes::kTrust;
    made.sets = node < kHeads ? kContextSets : kMantissaSets;
    for (int set = 0; set < made.sets; ++set) {
      const int row = set < kMantissaSets ? set * kNodes : kMantissaSets * kNodes + (set - kMantissaSets) * kHeads;
      Estimator& estimator = estimators_[static_cast<size_t>((row + node) * kContexts + context_[set])];
      if (choice_.prior.given && estimator.count() == 0) estimator.set(expected, trust);
      made.estimators[set] = &estimator;
      made.inputs[set] = stretch(estimator.probability());
    }
    made.inputs[kPrior] = choice_.prior.given ? stretch(expected) : 0;
    made.reliance = &reliance_[length_ * follows_][std::min(kind, 2)];
    const int32_t certainty = stretch(made.reliance->probability());
    made.inputs[kMatch] = !follows_ ? 0 : foretold ? certainty : -certainty;
    made.mixer = &mixers_[kind + kKinds * follows_];
    made.probability = made.mixer->mix(made.inputs);
  }

  bool decide(int node, int kind, bool value, bool foretold) {
    Prediction made;
    predict(node, kind, foretold, made);
    const bool coded = coder_.bit(value, made.probability);
    made.mixer->update(made.inputs, coded, made.probability);
    for (int set = 0; set < made.sets; ++set) made.estimators[set]->update(coded, kLimit);
    if (follows_) made.reliance->update(coded == foretold, kLimit);
    follows_ = follows_ && coded == foretold;
    return coded;
  }

  static constexpr int kKinds = 7;

  Coder& coder_;
  const LevelChoice choice_;
  const size_t columns_;
  const int pivot_;
  const ExpectedNodes expected_;
  std::unique_ptr<Estimator[]> estimators_;  // [context set, node, context], sets of fewer nodes last
  Mixer<kInputs> mixers_[2 * kKinds];
  // Levels in columns 2 and on.
  std::vector<int32_t> above_, above_that_, here_;
  size_t column_ = 0, row_ = 0;
  std::vector<uint32_t> column_size_;
  std::vector<int32_t> column_mean_;
  uint32_t row_size_ = 0, size_ = 0;
  int32_t row_mean_ = 0;
  int context_[kContextSets] = {};

  std::vector<int32_t> seen_;
  std::vector<uint32_t> last_seen_;  // the position after the last kLeastMatch levels of this hash
  size_t match_ = 0;
  int length_ = 0;
  int32_t foretold_ = 0;
  bool follows_ = false;
  Estimator reliance_[kMostMatch + 1][3];
};

}  // namespace nibble::codec
