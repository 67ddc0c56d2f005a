// Holds pruning against sorting everything by hand: which elements go, how many, and what becomes of masks and grids
// when steps follow each other.
#include "core/prune/prune.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "core/quantize/quantize.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using test::random_floats;
using test::same_bits;
using Notes = std::vector<std::pair<size_t, std::string>>;
using Kept = std::vector<bool>;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

Param param_of(const std::vector<float>& values, Shape shape, DType dtype = DType::Float32) {
  return {"w", from_floats(dtype, shape, values), std::nullopt, std::nullopt};
}

std::vector<float> values_of(const Param& param) {
  const FloatView view(param.value);
  return {view.values().begin(), view.values().end()};
}

/// Some layers with their channel axes.
struct Layers {
  std::vector<Param> params;
  std::vector<Weight> weights;
  void add(Param param, std::optional<size_t> axis = std::nullopt) {
    params.push_back(std::move(param));
    weights.emplace_back();
    weights.back().channel_axis = axis;
  }
  std::vector<Mask> masks(const PruneChoice& choice, Notes* notes = nullptr) const {
    std::vector<const Param*> p;
    std::vector<const Weight*> w;
    for (size_t i = 0; i < params.size(); ++i) {
      p.push_back(&params[i]);
      w.push_back(&weights[i]);
    }
    Notes ignored;
    return find_masks(p, w, choice, notes ? *notes : ignored);
  }
};

Mask mask_of(const Param& param, const PruneChoice& choice, std::optional<size_t> axis = std::nullopt) {
  Layers layers;
  layers.add(param, axis);
  return layers.masks(choice)[0];
}

PruneChoice by_sparsity(double sparsity, Scope scope = Scope::Layer) { return {sparsity, std::nullopt, scope, {}}; }
PruneChoice by_threshold(double threshold) { return {std::nullopt, threshold, Scope::Layer, {}}; }
PruneChoice n_of_m(int n, int m) { return {std::nullopt, std::nullopt, Scope::Layer, {PatternKind::NofM, n, m}}; }
PruneChoice channels(double sparsity, Scope scope = Scope::Layer) {
  return {sparsity, std::nullopt, scope, {PatternKind::Channels, 0, 0}};
}

/// The mask as one flag per element; checks its size, its count and that unused bits are 0.
Kept kept_of(const Mask& mask, size_t elements) {
  REQUIRE(mask.words.size() == (elements + 63) / 64);
  Kept kept;
  for (size_t i = 0; i < mask.words.size() * 64; ++i) {
    const bool bit = mask.words[i / 64] >> (i % 64) & 1;
    if (i < elements) {
      kept.push_back(bit);
    } else {
      CHECK(!bit);
    }
  }
  CHECK(mask.kept == static_cast<size_t>(std::count(kept.begin(), kept.end(), true)));
  return kept;
}

/// NaN and infinity are largest; a NaN compares as an even larger number, so that only the order of places is left.
double size_of(float value) { return std::isnan(value) ? HUGE_VAL : std::abs(double{value}); }

/// The first `drop` of all places sorted by magnitude, earlier places first among equals.
std::vector<Kept> sorted_by_hand(const std::vector<std::vector<float>>& layers, size_t drop) {
  struct Element {
    double magnitude;
    bool nan;
    size_t layer, at;
  };
  std::vector<Element> all;
  std::vector<Kept> kept;
  for (size_t l = 0; l < layers.size(); ++l) {
    kept.emplace_back(layers[l].size(), true);
    for (size_t i = 0; i < layers[l].size(); ++i) {
      all.push_back({size_of(layers[l][i]), std::isnan(layers[l][i]), l, i});
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const Element& a, const Element& b) {
    return a.magnitude != b.magnitude ? a.magnitude < b.magnitude : a.nan < b.nan;
  });
  for (size_t i = 0; i < drop; ++i) kept[all[i].layer][all[i].at] = false;
  return kept;
}

std::vector<float> few_values(size_t count, uint64_t seed) {
  test::Random random{seed};
  std::vector<float> values(count);
  for (float& value : values) value = (static_cast<float>(random.below(7)) - 3) * 0.5f;
  return values;
}

/// Place of element (channel, position) of a weight in storage, by its coordinates.
std::vector<std::vector<size_t>> rows_by_hand(const Shape& shape, std::optional<size_t> axis) {
  const size_t elements = elements_of(shape);
  std::vector<std::vector<size_t>> rows(axis ? shape[*axis] : 1);
  for (size_t i = 0; i < elements; ++i) {
    size_t rest = i, channel = 0;
    for (size_t d = shape.size(); d-- > 0;) {
      if (d == axis) channel = rest % shape[d];
      rest /= shape[d];
    }
    rows[channel].push_back(i);
  }
  return rows;
}

struct Layout {
  Shape shape;
  std::optional<size_t> axis;
};
const Layout kLayouts[] = {{{40}, std::nullopt}, {{6, 16}, 0},      {{16, 6}, 1},      {{5, 13}, 0},
                           {{13, 5}, 1},         {{4, 3, 3, 3}, 0}, {{4, 3, 3, 3}, 1}, {{2, 7, 9}, 2},
                           {{2, 9, 7}, 1},       {{1, 3}, 0},       {{70, 1}, 0},      {{1, 130}, 0},
                           {{3, 64}, 0},         {{64, 3}, 1},      {{3, 128, 2}, 1},  {{8, 20}, std::nullopt}};

}  // namespace

TEST_CASE("a layer loses exactly the share asked for, smallest first, the earlier of equals first") {
  for (const size_t count : {1, 2, 3, 10, 63, 64, 65, 128, 200, 1000}) {
    for (const bool ties : {false, true}) {
      const std::vector<float> values = ties ? few_values(count, count) : random_floats(count, count);
      const Param param = param_of(values, {count});
      for (int percent = 0; percent <= 100; percent += 5) {
        const double sparsity = percent / 100.0;
        const auto drop = static_cast<size_t>(std::round(sparsity * static_cast<double>(count)));
        const Mask mask = mask_of(param, by_sparsity(sparsity));
        CAPTURE(count);
        CAPTURE(sparsity);
        CHECK(mask.kept == count - drop);
        CHECK(kept_of(mask, count) == sorted_by_hand({values}, drop)[0]);
      }
    }
  }
}

TEST_CASE("over all layers together exactly the share asked for goes") {
  for (const bool ties : {false, true}) {
    std::vector<std::vector<float>> values;
    for (const size_t count : {100, 1, 0, 333, 64, 7}) {
      values.push_back(ties ? few_values(count, count + 1)
                            : random_floats(count, count + 1, 0.1f + static_cast<float>(count % 3)));
    }
    Layers layers;
    size_t total = 0;
    for (const auto& layer : values) {
      layers.add(param_of(layer, {layer.size()}));
      total += layer.size();
    }
    for (int percent = 0; percent <= 100; percent += 5) {
      const auto drop = static_cast<size_t>(std::round(percent / 100.0 * static_cast<double>(total)));
      const std::vector<Mask> masks = layers.masks(by_sparsity(percent / 100.0, Scope::Global));
      const std::vector<Kept> expected = sorted_by_hand(values, drop);
      REQUIRE(masks.size() == values.size());
      size_t kept = 0;
      for (size_t i = 0; i < masks.size(); ++i) {
        kept += masks[i].kept;
        CHECK(kept_of(masks[i], values[i].size()) == expected[i]);
      }
      CHECK(kept == total - drop);
    }
  }
}

TEST_CASE("the order of layers does not matter where no magnitudes are equal, and never for how many go") {
  Layers forward, backward;
  std::vector<std::vector<float>> values;
  for (size_t i = 0; i < 5; ++i) values.push_back(random_floats(50 + 10 * i, i, 0.3f + static_cast<float>(i)));
  for (size_t i = 0; i < 5; ++i) {
    forward.add(param_of(values[i], {values[i].size()}));
    backward.add(param_of(values[4 - i], {values[4 - i].size()}));
  }
  for (const double sparsity : {0.1, 0.5, 0.93}) {
    const std::vector<Mask> a = forward.masks(by_sparsity(sparsity, Scope::Global));
    const std::vector<Mask> b = backward.masks(by_sparsity(sparsity, Scope::Global));
    for (size_t i = 0; i < 5; ++i) CHECK(a[i].words == b[4 - i].words);
  }
}

TEST_CASE("NaN and infinity go last, NaN after infinity, and the count is exact even among them") {
  std::vector<float> values = random_floats(90, 3);
  for (const size_t at : {3, 40, 41, 89}) values[at] = at % 2 ? kNaN : -kInf;
  values[70] = kNaN;
  Layers layers;
  layers.add(param_of(values, {90}));
  layers.add(param_of({kNaN, 1, kInf}, {3}));
  for (size_t drop = 0; drop <= 93; ++drop) {
    CAPTURE(drop);
    const std::vector<Mask> masks = layers.masks(by_sparsity(static_cast<double>(drop) / 93, Scope::Global));
    const std::vector<Kept> expected = sorted_by_hand({values, {kNaN, 1, kInf}}, drop);
    CHECK(kept_of(masks[0], 90) == expected[0]);
    CHECK(kept_of(masks[1], 3) == expected[1]);
  }
}

TEST_CASE("a threshold removes what is below it and keeps what equals it") {
  const std::vector<float> values = {0.5f, -0.5f, 0.49999997f, -0.7f, 0, -0.0f, kNaN, -kInf, 1e-45f};
  const Kept kept = kept_of(mask_of(param_of(values, {9}), by_threshold(0.5)), 9);
  CHECK(kept == Kept{true, true, false, true, false, false, true, true, false});
  CHECK(mask_of(param_of(values, {9}), by_threshold(0)).kept == 9);
  CHECK(mask_of(param_of({1, 2, 3}, {3}), by_threshold(3.4e38)).kept == 0);
  const std::vector<float> many = random_floats(777, 4);
  for (const double threshold : {0.1, 0.6745, 2.0}) {
    const Kept found = kept_of(mask_of(param_of(many, {777}), by_threshold(threshold)), 777);
    for (size_t i = 0; i < many.size(); ++i) CHECK(found[i] == (std::abs(many[i]) >= static_cast<float>(threshold)));
  }
}

TEST_CASE("N:M keeps the n largest of each m consecutive inputs of an output channel, whatever the layout") {
  for (const auto& [shape, axis] : kLayouts) {
    for (const bool ties : {false, true}) {
      const size_t elements = elements_of(shape);
      const std::vector<float> values = ties ? few_values(elements, 9) : random_floats(elements, 9);
      for (const auto& [n, m] :
           std::vector<std::pair<int, int>>{{2, 4}, {1, 4}, {3, 4}, {4, 8}, {1, 2}, {1, 64}, {63, 64}, {5, 9}}) {
        CAPTURE(to_string(shape));
        CAPTURE(n);
        CAPTURE(m);
        Kept expected(elements, false);
        for (const std::vector<size_t>& row : rows_by_hand(shape, axis)) {
          for (size_t first = 0; first < row.size(); first += static_cast<size_t>(m)) {
            const size_t last = std::min(row.size(), first + static_cast<size_t>(m));
            std::vector<size_t> run(row.begin() + static_cast<ptrdiff_t>(first),
                                    row.begin() + static_cast<ptrdiff_t>(last));
            std::stable_sort(run.begin(), run.end(),
                             [&](size_t a, size_t b) { return std::abs(values[a]) > std::abs(values[b]); });
            run.resize(std::min(run.size(), static_cast<size_t>(n)));
            for (const size_t i : run) expected[i] = true;
          }
        }
        CHECK(kept_of(mask_of(param_of(values, shape), n_of_m(n, m), axis), elements) == expected);
      }
    }
  }
}

TEST_CASE("the channels of smallest L2 norm go, as many as asked for") {
  for (const auto& [shape, axis] : kLayouts) {
    if (!axis) continue;
    const std::vector<float> values = random_floats(elements_of(shape), 17);
    const std::vector<std::vector<size_t>> rows = rows_by_hand(shape, axis);
    std::vector<size_t> order(rows.size());
    std::iota(order.begin(), order.end(), 0);
    const auto norm = [&](size_t c) {
      double sum = 0;
      for (const size_t i : rows[c]) sum += double{values[i]} * values[i];
      return sum;
    };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return norm(a) < norm(b); });
    for (const double sparsity : {0.0, 0.2, 0.5, 0.77, 1.0}) {
      CAPTURE(to_string(shape));
      CAPTURE(sparsity);
      Kept expected(values.size(), true);
      const auto drop = static_cast<size_t>(std::round(sparsity * static_cast<double>(rows.size())));
      for (size_t r = 0; r < drop; ++r) {
        for (const size_t i : rows[order[r]]) expected[i] = false;
      }
      CHECK(kept_of(mask_of(param_of(values, shape), channels(sparsity), axis), values.size()) == expected);
    }
  }
}

TEST_CASE("equal channels go from the first on, and a channel with a NaN or an infinity goes last") {
  CHECK(kept_of(mask_of(param_of({1, 1, 1, -1, 1, 1}, {3, 2}), channels(0.34), 0), 6) ==
        Kept{false, false, true, true, true, true});
  CHECK(kept_of(mask_of(param_of({kNaN, 0, 100, 100, kInf, 0}, {3, 2}), channels(0.34), 0), 6) ==
        Kept{true, true, false, false, true, true});
}

TEST_CASE("over all layers together channels compare by mean square") {
  // Norms 2, 20 and 3 by channel; mean squares 4, 4 and 3: the long rows are not preferred for their length.
  Layers layers;
  layers.add(param_of({2, std::sqrt(3.0f)}, {2, 1}), 0);
  layers.add(param_of(std::vector<float>(200, 1.9f), {2, 100}), 0);
  layers.add(param_of({0.001f, 0.001f, 0.001f}, {3}));
  Notes notes;
  const std::vector<Mask> masks = layers.masks(channels(0.25, Scope::Global), &notes);
  CHECK(kept_of(masks[0], 2) == Kept{true, false});
  CHECK(masks[1].kept == 200);
  SUBCASE("a weight without output channels is left alone, and said so") {
    CHECK(masks[2].kept == 3);
    REQUIRE(notes.size() == 1);
    CHECK(notes[0].first == 2);
    CHECK(test::holds(notes[0].second, "no channel was pruned"));
  }
  SUBCASE("counts are of the channels of all layers") {
    CHECK(layers.masks(channels(0.75, Scope::Global))[1].kept == 0);
    CHECK(layers.masks(channels(0.75, Scope::Global))[0].kept == 1);
    CHECK(layers.masks(channels(1, Scope::Global))[2].kept == 3);
  }
}

TEST_CASE("empty weights and no weights at all are no trouble") {
  Layers none;
  for (const PruneChoice& choice :
       {by_sparsity(0.5), by_sparsity(0.5, Scope::Global), by_threshold(1), n_of_m(2, 4), channels(0.5)}) {
    CHECK(none.masks(choice).empty());
    for (const Shape& shape : {Shape{0}, Shape{3, 0}, Shape{0, 5}}) {
      Layers layers;
      layers.add(param_of({}, shape), 0);
      const std::vector<Mask> masks = layers.masks(choice);
      CHECK(masks[0].kept == 0);
      CHECK(masks[0].words.empty());
      CHECK(apply_mask(layers.params[0], masks[0]).value.elements() == 0);
    }
  }
}

TEST_CASE("every real type is pruned by the same rule and keeps the bits of what stays") {
  std::vector<float> values = random_floats(130, 12);
  values[5] = kNaN;
  values[6] = -0.0f;
  for (const DType dtype : {DType::Float32, DType::Float64, DType::Float16, DType::BFloat16}) {
    CAPTURE(to_string(dtype));
    const Param param = param_of(values, {130}, dtype);
    const Mask mask = mask_of(param, by_sparsity(0.4));
    const Kept kept = kept_of(mask, 130);
    CHECK(kept == sorted_by_hand({values_of(param)}, 52)[0]);
    const Param pruned = apply_mask(param, mask);
    CHECK(pruned.value.dtype() == dtype);
    const size_t width = bytes_for(dtype, 1);
    const std::span<const std::byte> before = param.value.bytes(), after = pruned.value.bytes();
    size_t wrong = 0;
    for (size_t i = 0; i < 130 * width; ++i) wrong += after[i] != (kept[i / width] ? before[i] : std::byte{0});
    CHECK(wrong == 0);
    CHECK(std::isnan(values_of(pruned)[5]));
  }
}

TEST_CASE("masks join: what one step removed stays removed") {
  const std::vector<float> values = random_floats(200, 14);
  const Param param = param_of(values, {10, 20});
  const Param once = apply_mask(param, mask_of(param, n_of_m(2, 4), 0));
  const Param twice = apply_mask(once, mask_of(once, channels(0.3), 0));
  const Kept first = kept_of(*once.mask, 200), both = kept_of(*twice.mask, 200);
  const Kept second = kept_of(mask_of(once, channels(0.3), 0), 200);
  for (size_t i = 0; i < 200; ++i) {
    CHECK(both[i] == (first[i] && second[i]));
    CHECK(same_bits(values_of(twice)[i], both[i] ? values[i] : 0.0f));
  }
  SUBCASE("a larger share contains a smaller one, so two steps are the larger one") {
    const Param small = apply_mask(param, mask_of(param, by_sparsity(0.3)));
    const Param large = apply_mask(small, mask_of(small, by_sparsity(0.8)));
    CHECK(large.mask->kept == 40);
    CHECK(large.mask->words == mask_of(param, by_sparsity(0.8)).words);
    // A smaller share afterwards takes only zeros that are there already.
    CHECK(apply_mask(large, mask_of(large, by_sparsity(0.3))).mask->words == large.mask->words);
  }
}

TEST_CASE("in place and copied are the same, and a shared value is left as it was") {
  const std::vector<float> values = random_floats(100, 15);
  const Param param = param_of(values, {100});
  const Mask mask = mask_of(param, by_sparsity(0.5));
  const Param copied = apply_mask(param, mask);
  CHECK(values_of(param) == values);
  CHECK(values_of(apply_mask(param_of(values, {100}), mask)) == values_of(copied));
}

TEST_CASE("pruning after quantization keeps the grid, quantization after pruning keeps the zeros") {
  Weight weight;
  weight.channel_axis = 0;
  const Param param = param_of(random_floats(12 * 40, 16), {12, 40});
  for (const int bits : {1, 2, 4, 8, 16}) {
    for (const bool symmetric : {true, false}) {
      CAPTURE(bits);
      CAPTURE(symmetric);
      const QuantScheme scheme{bits, symmetric, Granularity::Channel, 32};
      const auto quantize = [&](const Param& in) {
        return quantize_weight(in, weight, scheme, {}, Rounding::Nearest, 1, std::nullopt);
      };
      const Param gridded = quantize(param);
      const Param then_pruned = apply_mask(gridded, mask_of(gridded, by_sparsity(0.6)));
      REQUIRE(then_pruned.grid);
      CHECK(then_pruned.grid->scale == gridded.grid->scale);
      CHECK(then_pruned.grid->zero_point == gridded.grid->zero_point);
      CHECK(then_pruned.mask->kept == 192);
      const Kept kept = kept_of(*then_pruned.mask, 480);
      const std::vector<float> before = values_of(gridded), after = values_of(then_pruned);
      for (size_t i = 0; i < 480; ++i) CHECK(same_bits(after[i], kept[i] ? before[i] : 0.0f));

      const Param pruned = apply_mask(param, mask_of(param, by_sparsity(0.6)));
      const Param then_gridded = quantize(pruned);
      CHECK(then_gridded.mask->words == pruned.mask->words);
      const Kept stayed = kept_of(*pruned.mask, 480);
      const std::vector<float> values = values_of(then_gridded);
      for (size_t i = 0; i < 480; ++i) CHECK((stayed[i] || same_bits(values[i], 0)));
    }
  }
}

}  // namespace nibble
