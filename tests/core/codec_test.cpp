#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <queue>
#include <set>

#include "core/codec/bytes.hpp"
#include "core/codec/floats.hpp"
#include "core/codec/huffman.hpp"
#include "core/codec/level_pricer.hpp"
#include "core/codec/levels.hpp"
#include "core/codec/rans_levels.hpp"
#include "core/codec/tokens.hpp"
#include "core/kernels/kernels.hpp"
#include "core/kernels/reference.hpp"
#include "tests/core/support.hpp"

namespace nibble::codec {
namespace {

using test::Random;

double entropy_bits(double p) { return p <= 0 || p >= 1 ? 0 : -p * std::log2(p) - (1 - p) * std::log2(1 - p); }

/// Levels from named sources, as they come from quantized weights.
struct Source {
  const char* name;
  std::vector<int32_t> levels;
  std::vector<size_t> shape;
};

/// A geometric magnitude of this mean, which is Laplace's distribution on whole numbers. No logarithm: those of libm
/// differ from machine to machine, and bytes are compared here.
int32_t laplace(Random& random, size_t mean) {
  int32_t magnitude = 0;
  while (random.below(mean + 1)) ++magnitude;
  return random.below(2) ? magnitude : -magnitude;
}

std::vector<Source> sources(size_t rows, size_t columns) {
  const size_t n = rows * columns;
  Random random{uint64_t{n} * 2654435761u};
  std::vector<Source> all;
  const auto add = [&](const char* name, const std::function<int32_t(size_t)>& at) {
    Source source{name, {}, {rows, columns}};
    for (size_t i = 0; i < n; ++i) source.levels.push_back(at(i));
    all.push_back(std::move(source));
  };
  const auto normal = [&](double deviation) { return static_cast<int32_t>(std::lround(deviation * random.normal())); };
  add("normal, 8 bits", [&](size_t) { return std::clamp(normal(35), -127, 127); });
  add("laplace, 8 bits", [&](size_t) { return std::clamp(laplace(random, 14), -127, 127); });
  add("normal, 4 bits", [&](size_t) { return std::clamp(normal(2.4), -7, 7); });
  add("one in ten", [&](size_t) { return random.below(10) ? 0 : std::clamp(normal(35), -127, 127); });
  add("one in a hundred", [&](size_t) { return random.below(100) ? 0 : laplace(random, 3); });
  add("ternary", [&](size_t) { return static_cast<int32_t>(random.below(3)) - 1; });
  add("signs", [&](size_t) { return random.below(2) ? 1 : -1; });
  add("all zero", [&](size_t) { return 0; });
  add("all the same", [&](size_t) { return -5; });
  add("noise of 8 bits", [&](size_t) { return static_cast<int32_t>(random.below(256)) - 128; });
  add("16 bits", [&](size_t) { return std::clamp(normal(9000), -32767, 32767); });
  add("the widest", [&](size_t i) { return i % 3 ? kMostLevel : -kMostLevel; });
  add("rows of different width", [&](size_t i) { return normal(0.5 + static_cast<double>(i / columns % 7) * 4); });
  add("dead columns", [&](size_t i) { return i % columns % 3 ? 0 : normal(12); });
  add("repeated rows", [&](size_t i) { return static_cast<int32_t>(mix64(7, i % (3 * columns)) % 201) - 100; });
  add("lopsided",
      [&](size_t) { return std::clamp(static_cast<int32_t>(-random.below(40) * random.below(5)), -127, 20); });
  return all;
}

std::vector<uint8_t> encoded(std::span<const int32_t> levels, const Widths& widths, const LevelChoice& choice) {
  std::vector<uint8_t> bytes;
  RangeEncoder coder(bytes);
  encode_levels(coder, levels, widths, choice);
  coder.finish();
  return bytes;
}
std::vector<int32_t> decoded(std::span<const uint8_t> bytes, size_t count, const Widths& widths) {
  std::vector<int32_t> levels(count, 12345);
  RangeDecoder coder(bytes);
  decode_levels(coder, levels, widths);
  return levels;
}

/// FNV-1a: a number to write down for bytes that must be the same everywhere.
uint64_t hash_of(std::span<const uint8_t> bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3u;
  return hash;
}

}  // namespace

// --- The range coder -------------------------------------------------------------------------------------------------

TEST_CASE("decisions of any probability come back, in no more bytes than they are worth") {
  for (const size_t count : {0u, 1u, 2u, 7u, 1000u, 100000u}) {
    for (const uint32_t likely : {1u, 40u, 6000u, 32768u, 60000u, 65535u}) {
      Random random{likely + count};
      std::vector<bool> bits(count);
      std::vector<uint32_t> chances(count);
      double ideal = 0;
      for (size_t i = 0; i < count; ++i) {
        chances[i] = std::clamp<uint32_t>(likely + static_cast<uint32_t>(random.below(9)) - 4, 1, 65535);
        if (likely < 4) chances[i] = likely;
        bits[i] = random.below(65536) < chances[i];
        ideal -= std::log2((bits[i] ? chances[i] : 65536 - chances[i]) / 65536.0);
      }
      std::vector<uint8_t> bytes = {1, 2, 3};  // what was there before stays
      RangeEncoder encoder(bytes);
      for (size_t i = 0; i < count; ++i) encoder.bit(bits[i], chances[i]);
      CHECK(static_cast<double>(encoder.spent()) / 65536 == doctest::Approx(ideal).epsilon(2e-3).scale(1));
      encoder.finish();
      CHECK(std::equal(bytes.begin(), bytes.begin() + 3, std::array<uint8_t, 3>{1, 2, 3}.begin()));
      CHECK(static_cast<double>(bytes.size() - 3) <= ideal / 8 * 1.0001 + 2);
      RangeDecoder decoder(std::span<const uint8_t>(bytes).subspan(3));
      bool same = true;
      for (size_t i = 0; i < count; ++i) same = same && decoder.bit(false, chances[i]) == bits[i];
      CHECK(same);
    }
  }
}

TEST_CASE("carries run through any number of bytes") {
  // Always the upper end of the interval: low comes as near to 1 as it can, and then over it.
  std::vector<uint8_t> bytes;
  RangeEncoder encoder(bytes);
  for (int i = 0; i < 4000; ++i) encoder.bit(false, i % 97 == 96 ? 65535 : 1);
  for (int i = 0; i < 50; ++i) encoder.bit(true, 65535);
  encoder.finish();
  RangeDecoder decoder(bytes);
  bool same = true;
  for (int i = 0; i < 4000; ++i) same = same && !decoder.bit(false, i % 97 == 96 ? 65535 : 1);
  for (int i = 0; i < 50; ++i) same = same && decoder.bit(false, 65535);
  CHECK(same);
}

TEST_CASE("equiprobable bits and values come back, mixed with decisions") {
  Random random{5};
  std::vector<uint8_t> bytes;
  RangeEncoder encoder(bytes);
  struct One {
    uint32_t value, total;
    int bits;
  };
  std::vector<One> all;
  double ideal = 0;
  for (int i = 0; i < 5000; ++i) {
    One one{0, 1 + static_cast<uint32_t>(random.below(i % 7 ? 300 : 200000)), static_cast<int>(random.below(17))};
    one.value = static_cast<uint32_t>(random.below(one.total));
    all.push_back(one);
    encoder.uniform(one.value, one.total);
    encoder.bits(one.value & ((1u << one.bits) - 1), one.bits);
    encoder.bit(one.value & 1, 20000);
    ideal += std::log2(one.total) + one.bits - std::log2((one.value & 1 ? 20000 : 45536) / 65536.0);
  }
  encoder.finish();
  CHECK(static_cast<double>(bytes.size()) == doctest::Approx(ideal / 8).epsilon(0.001));
  RangeDecoder decoder(bytes);
  bool same = true;
  for (const One& one : all) {
    same = same && decoder.uniform(0, one.total) == one.value;
    same = same && decoder.bits(0, one.bits) == (one.value & ((1u << one.bits) - 1));
    same = same && decoder.bit(false, 20000) == (one.value & 1);
  }
  CHECK(same);
}

TEST_CASE("costs are logarithms") {
  for (uint32_t p = 1; p < 65536; p += p < 5000 || p > 60000 ? 1 : 37)
    CHECK(cost_of(p) / 65536.0 == doctest::Approx(-std::log2(p / 65536.0)).epsilon(0.002).scale(0.01));
  for (const uint32_t total : {1u, 2u, 3u, 255u, 256u, 100000u})
    CHECK(cost_of_one_in(total) / 65536.0 == doctest::Approx(std::log2(total)).epsilon(1e-4).scale(1));
}

TEST_CASE("an estimator is the share of what was seen, and then follows") {
  Estimator coarse;
  FineEstimator fine;
  Random random{11};
  int ones = 0;
  for (int n = 0; n < 900; ++n) {
    // (n1 + 0.4) / (n + 0.8), Krichevsky and Trofimov's with another constant.
    const double expected = (ones + 0.4) / (n + 0.8);
    CHECK(coarse.probability() / 65536.0 == doctest::Approx(expected).epsilon(0.003).scale(0.01));
    CHECK(fine.probability() / 65536.0 == doctest::Approx(expected).epsilon(0.003).scale(0.01));
    const bool value = random.below(10) < 3;
    ones += value;
    coarse.update(value, 1023);
    fine.update(value, FineEstimator::kMostLimit);
  }
  CHECK(coarse.count() == 900);
  Estimator forgetful;
  for (int n = 0; n < 1000; ++n) forgetful.update(false, 30);
  for (int n = 0; n < 100; ++n) forgetful.update(true, 30);
  CHECK(forgetful.probability() > 60000);
  // Nothing is ever certain.
  for (int n = 0; n < 100000; ++n) fine.update(false, FineEstimator::kMostLimit);
  CHECK(fine.probability() >= 1);
  CHECK(fine.probability() < 20);
}

TEST_CASE("squash is the logistic function and stretch its inverse") {
  for (int32_t x = -3000; x <= 3000; x += 7) {
    const double expected = 65536 / (1 + std::exp(-std::clamp(x, -2839, 2839) / 256.0));
    CHECK(std::abs(static_cast<double>(squash(x)) - expected) <= 1.01);
  }
  for (uint32_t p = 8; p < 65536; p += 16) {
    const double expected = 256 * std::log(p / (65536.0 - p));
    if (std::abs(expected) < 2000) CHECK(std::abs(stretch(p) - expected) <= 1 + 600.0 / std::min(p, 65536 - p));
  }
}

TEST_CASE("a mixer learns whom to believe") {
  Mixer<3> mixer;
  Random random{3};
  double cost = 0;
  for (int i = 0; i < 20000; ++i) {
    const bool value = random.below(2);
    // One that is right nine times of ten, one that knows nothing, one that is always wrong.
    const bool right = random.below(10) != 0;
    const int32_t inputs[3] = {value == right ? 500 : -500, random.below(2) ? 700 : -700, value ? -900 : 900};
    const uint32_t p = mixer.mix(inputs);
    if (i > 5000) cost -= std::log2((value ? p : 65536 - p) / 65536.0);
    mixer.update(inputs, value, p);
  }
  CHECK(cost / 15000 < 0.05);
}

// --- Models of levels ------------------------------------------------------------------------------------------------

TEST_CASE("the prior is the distribution that it says it is") {
  // Tails in closed form: a normal distribution of mean magnitude m has deviation m sqrt(pi / 2), Laplace's is
  // exponential.
  const auto normal = [](double x, double mean) { return std::erfc(x / (mean * std::sqrt(M_PI / 2)) / std::sqrt(2)); };
  const auto laplacian = [](double x, double mean) { return std::exp(-x / mean); };
  for (const int scale : {0, 7, 13, 22}) {
    LevelPrior prior;
    prior.given = true;
    prior.scale = scale;
    const double mean = std::exp2(scale / 4.0);
    for (const uint32_t low : {1u, 3u, 20u}) {
      for (const uint32_t half : {1u, 4u, 16u}) {
        const double edges[3] = {low - 0.5, low + half - 0.5, low + 2 * half - 0.5};
        if (edges[0] > 5 * mean) continue;
        const auto check = [&](int shape, const auto& tail) {
          prior.shape = shape;
          const double whole = tail(edges[0], mean) - tail(edges[2], mean);
          const auto expected_of = [](double share) { return std::clamp(share, 48 / 65536.0, 1 - 48 / 65536.0); };
          const double expected = expected_of((tail(edges[1], mean) - tail(edges[2], mean)) / whole);
          CHECK(prior.split(low, low + half, low + 2 * half) / 65536.0 ==
                doctest::Approx(expected).epsilon(0.03).scale(0.02));
          CHECK(prior.split(low, low + half, 0) / 65536.0 ==
                doctest::Approx(expected_of(tail(edges[1], mean) / tail(edges[0], mean))).epsilon(0.03).scale(0.02));
        };
        check(0, normal);
        check(2, laplacian);
      }
    }
  }
}

TEST_CASE("the prior that fits is the one that levels were drawn from") {
  Random random{17};
  std::vector<int32_t> levels(20000);
  for (int32_t& level : levels) level = laplace(random, 11);
  const LevelPrior fitted = fit_prior(levels);
  CHECK(fitted.given);
  CHECK(fitted.shape == 2);
  CHECK(std::abs(fitted.scale - std::lround(4 * std::log2(11))) <= 1);
  CHECK(fitted.least == 1);
  for (int32_t& level : levels) level = std::abs(level) < 9 ? 0 : level;
  CHECK(fit_prior(levels).least == 9);
  std::fill(levels.begin(), levels.end(), 0);
  CHECK_FALSE(fit_prior(levels).given);
}

TEST_CASE("levels come back from every model, whatever they are") {
  for (const auto& [rows, columns] :
       {std::pair<size_t, size_t>{0, 5}, {1, 1}, {1, 2}, {3, 1}, {1, 300}, {40, 25}, {7, 131}}) {
    for (Source& source : sources(rows, columns)) {
      const Widths widths = widths_of(source.shape);
      const LevelPrior prior = fit_prior(source.levels);
      for (const bool with_prior : {false, true}) {
        LevelChoice choice;
        if (with_prior) choice.prior = prior;
        const auto check = [&] {
          const std::string name = source.name;
          CAPTURE(name);
          const std::vector<uint8_t> bytes = encoded(source.levels, widths, choice);
          CHECK(decoded(bytes, source.levels.size(), widths) == source.levels);
          const double cost = static_cast<double>(cost_of_levels(source.levels, widths, choice)) / 65536 / 8;
          // What is left of the interval at the end may hold a number with up to eight zero bytes, which are not
          // written.
          CHECK(static_cast<double>(bytes.size()) <= 1.002 * cost + 1.5);
          CHECK(static_cast<double>(bytes.size()) >= 0.998 * cost - 8);
        };
        for (choice.neighbours = 0; choice.neighbours <= 2; ++choice.neighbours) check();
        choice.neighbours = 1;
        choice.by_sign = true;
        choice.limit = 127;
        check();
        choice.model = LevelChoice::Model::Runs;
        check();
        choice.model = LevelChoice::Model::Mixed;
        for (choice.width = 0; choice.width < 3; ++choice.width) check();
      }
      if (source.levels.empty()) continue;
      LevelChoice uniform;
      uniform.model = LevelChoice::Model::Uniform;
      const auto [lowest, highest] = std::minmax_element(source.levels.begin(), source.levels.end());
      uniform.lowest = *lowest;
      uniform.highest = *highest;
      CHECK(decoded(encoded(source.levels, widths, uniform), source.levels.size(), widths) == source.levels);
    }
  }
}

TEST_CASE("the chosen model comes within one percent and sixteen bytes of the entropy, or below it") {
  for (const auto& [rows, columns] : {std::pair<size_t, size_t>{100, 100}, {300, 784}}) {
    for (const Source& source : sources(rows, columns)) {
      const Widths widths = widths_of(source.shape);
      const std::vector<uint8_t> bytes = encoded(source.levels, widths, choose_model(source.levels, widths));
      CHECK(decoded(bytes, source.levels.size(), widths) == source.levels);
      const std::string name = source.name;
      CAPTURE(name);
      // The entropy of a sample is below that of its source, by (k - 1) / (2 n) nats a level where it has k different
      // ones (Miller 1955, Madow 1948): nobody can know the sample before it is read.
      const std::set<int32_t> different(source.levels.begin(), source.levels.end());
      const double known =
          (entropy_of(source.levels) + static_cast<double>(different.size() - 1) / (2 * std::log(2))) / 8;
      if (name == "16 bits" && rows == 100) continue;  // nearly all different: the correction is for k far below n
      CHECK(static_cast<double>(bytes.size()) <= known * 1.01 + 16);
    }
  }
}

TEST_CASE("what neighbours tell is made use of") {
  for (const Source& source : sources(100, 100)) {
    const std::string name = source.name;
    if (name != "rows of different width" && name != "dead columns" && name != "repeated rows") continue;
    CAPTURE(name);
    const Widths widths = widths_of(source.shape);
    const std::vector<uint8_t> bytes = encoded(source.levels, widths, choose_model(source.levels, widths));
    CHECK(static_cast<double>(bytes.size()) < 0.93 * entropy_of(source.levels) / 8);
  }
}

TEST_CASE("the entropy is the textbook's") {
  std::vector<int32_t> levels(1000, 0);
  std::fill_n(levels.begin(), 100, 3);
  CHECK(entropy_of(levels) == doctest::Approx(1000 * entropy_bits(0.1)));
  CHECK(entropy_of({}) == 0);
}

TEST_CASE("an estimate of what a large tensor costs is within two percent where it is the same all over") {
  for (const Source& source : sources(300, 784)) {
    const std::string name = source.name;
    if (name == "all zero" || name == "all the same" || name == "repeated rows" || name == "rows of different width" ||
        name == "the widest")
      continue;
    CAPTURE(name);
    const Widths widths = widths_of(source.shape);
    const double real =
        static_cast<double>(cost_of_levels(source.levels, widths, choose_model(source.levels, widths))) / 65536;
    CHECK(estimate_cost(source.levels, widths) == doctest::Approx(real).epsilon(0.02));
  }
}

TEST_CASE("prices are what the coder then takes") {
  for (const Source& source : sources(40, 25)) {
    if (source.name == std::string("repeated rows") || source.name == std::string("the widest")) continue;
    const Widths widths = widths_of(source.shape);
    for (const auto model : {LevelChoice::Model::Direct, LevelChoice::Model::Mixed}) {
      LevelChoice choice;
      choice.model = model;
      choice.neighbours = 2;
      choice.prior = fit_prior(source.levels);
      LevelPricer pricer(choice, widths);
      uint64_t sum = 0;
      for (const int32_t level : source.levels) {
        pricer.price(0);  // asking changes nothing
        pricer.price(-3);
        sum += pricer.price(level);
        pricer.take(level);
      }
      const LevelCosts parts = costs_of_levels(source.levels, widths, choice);
      const uint64_t taken = parts.of[0] + parts.of[1] + parts.of[2] + parts.of[3];
      if (model == LevelChoice::Model::Direct) CHECK(sum == taken);
      // Mixers learn between two decisions of one level, which a price does not foresee.
      CHECK(static_cast<double>(sum) == doctest::Approx(static_cast<double>(taken)).epsilon(0.01).scale(65536));
    }
  }
}

TEST_CASE("the parts of a tensor's cost are its decisions' entropies") {
  // Every tenth level is 1 or -1: a significance each, a sign for one in ten, and magnitudes that are all 1.
  Random random{23};
  std::vector<int32_t> levels(100000);
  for (int32_t& level : levels) level = random.below(10) ? 0 : random.below(2) ? 1 : -1;
  const size_t shape[] = {100, 1000};
  const Widths widths = widths_of(shape);
  const LevelCosts costs = costs_of_levels(levels, widths, {});
  const auto share = static_cast<double>(std::count(levels.begin(), levels.end(), 0)) / 100000;
  CHECK(static_cast<double>(costs.of[0]) / 65536 == doctest::Approx(100000 * entropy_bits(share)).epsilon(0.005));
  CHECK(static_cast<double>(costs.of[1]) / 65536 == doctest::Approx(100000 * (1 - share)).epsilon(0.01));
  CHECK(static_cast<double>(costs.of[2]) / 65536 < 50);
  CHECK(costs.of[3] == 0);
}

TEST_CASE("levels are coded to the same bytes on every machine") {
  uint64_t all = 0;
  for (const Source& source : sources(50, 60)) {
    const Widths widths = widths_of(source.shape);
    all = all * 31 + hash_of(encoded(source.levels, widths, choose_model(source.levels, widths)));
    all = all * 31 + hash_of(huffman_encode(source.levels));
    all = all * 31 + hash_of(rans_encode_levels(source.levels));
  }
  CHECK(all == 3101765104744061210u);
}

TEST_CASE("the widths of a tensor are those of its axes") {
  const auto of = [](std::vector<size_t> shape) {
    const Widths widths = widths_of(shape);
    return std::vector<size_t>(std::begin(widths.of), std::end(widths.of));
  };
  CHECK(of({20, 10, 5, 5}) == std::vector<size_t>{250, 25, 5});
  CHECK(of({500, 800}) == std::vector<size_t>{800, 800, 800});
  CHECK(of({64}) == std::vector<size_t>{64, 64, 64});
  CHECK(of({}) == std::vector<size_t>{1, 1, 1});
  CHECK(of({0, 3}) == std::vector<size_t>{3, 3, 3});
}

TEST_CASE("any bytes decode to levels within bounds") {
  Random random{99};
  for (int round = 0; round < 400; ++round) {
    std::vector<uint8_t> bytes(random.below(200));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
    const size_t shape[] = {1 + random.below(20), 1 + random.below(40)};
    const std::vector<int32_t> levels = decoded(bytes, shape[0] * shape[1], widths_of(shape));
    CHECK(std::all_of(levels.begin(), levels.end(), [](int32_t level) { return std::abs(level) <= kMostLevel; }));
    std::vector<int32_t> others(shape[0] * shape[1]);
    huffman_decode(bytes, others);
    rans_decode_levels(bytes, others);
  }
}

// --- Huffman ---------------------------------------------------------------------------------------------------------

namespace {

/// Huffman's own algorithm, by a heap: the sum of counts times lengths.
uint64_t huffman_total(std::vector<uint64_t> counts, int& deepest) {
  struct Tree {
    uint64_t count;
    int depth;
  };
  const auto later = [](const Tree& a, const Tree& b) {
    return a.count != b.count ? a.count > b.count : a.depth > b.depth;
  };
  std::priority_queue<Tree, std::vector<Tree>, decltype(later)> heap(later);
  for (const uint64_t count : counts) {
    if (count) heap.push({count, 0});
  }
  uint64_t total = 0;
  deepest = 0;
  while (heap.size() > 1) {
    const Tree a = heap.top();
    heap.pop();
    const Tree b = heap.top();
    heap.pop();
    total += a.count + b.count;
    heap.push({a.count + b.count, std::max(a.depth, b.depth) + 1});
    deepest = std::max(deepest, std::max(a.depth, b.depth) + 1);
  }
  return total;
}

}  // namespace

TEST_CASE("code lengths are Huffman's, and never longer than fifteen bits") {
  Random random{31};
  for (int round = 0; round < 200; ++round) {
    std::vector<uint64_t> counts(2 + random.below(255));
    for (uint64_t& count : counts) count = random.below(4) ? random.below(size_t{1} << random.below(20)) : 0;
    const std::vector<uint8_t> lengths = code_lengths(counts);
    uint64_t total = 0;
    double kraft = 0;
    size_t used = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      CHECK((lengths[i] > 0) == (counts[i] > 0));
      CHECK(lengths[i] <= 15);
      total += counts[i] * lengths[i];
      kraft += lengths[i] ? std::exp2(-lengths[i]) : 0;
      used += counts[i] > 0;
    }
    int deepest = 0;
    const uint64_t best = huffman_total(counts, deepest);
    if (used >= 2) CHECK(kraft == doctest::Approx(1));
    if (used >= 2 && deepest <= 15) CHECK(total == best);
    CHECK(total >= best);
  }
  // Fibonacci's numbers want one bit more for each.
  std::vector<uint64_t> fibonacci = {1, 1};
  while (fibonacci.size() < 40) fibonacci.push_back(fibonacci.end()[-1] + fibonacci.end()[-2]);
  const std::vector<uint8_t> lengths = code_lengths(fibonacci);
  double kraft = 0;
  for (const uint8_t length : lengths) kraft += std::exp2(-length);
  CHECK(kraft <= 1);
  CHECK(*std::max_element(lengths.begin(), lengths.end()) == 15);
  const uint64_t one[] = {0, 7, 0};
  CHECK(code_lengths(one) == std::vector<uint8_t>{0, 1, 0});
}

TEST_CASE("levels come back from Huffman, dense and with relative indices of any width") {
  for (const auto& [rows, columns] : {std::pair<size_t, size_t>{0, 5}, {1, 1}, {1, 2}, {40, 25}, {7, 131}}) {
    for (const Source& source : sources(rows, columns)) {
      const std::string name = source.name;
      CAPTURE(name);
      for (int index_bits = -1; index_bits <= 8; ++index_bits) {
        HuffmanSizes sizes;
        const std::vector<uint8_t> bytes = huffman_encode(source.levels, index_bits, &sizes);
        std::vector<int32_t> levels(source.levels.size(), 777);
        CHECK(huffman_decode(bytes, levels));
        CHECK(levels == source.levels);
        CHECK((sizes.index + 7) / 8 + (sizes.values + 7) / 8 + sizes.tables / 8 == bytes.size());
      }
    }
  }
}

TEST_CASE("a relative index that does not fit has a filler, as in Deep Compression's example") {
  // Their figure 2: values at 1, 4 and 15 of a row, differences of 3 bits, so that 15 needs a filler at 12.
  std::vector<int32_t> levels(16, 0);
  levels[1] = 34;
  levels[4] = 9;
  levels[15] = 17;
  HuffmanSizes sizes;
  huffman_encode(levels, 3, &sizes);
  CHECK(sizes.entries == 4);
  CHECK(sizes.fillers == 1);
  CHECK(sizes.index_bits == 3);
  // Gaps of 1, 2, 7 and 2 zeros: one of them twice, so lengths 1, 2, 2; four different values with two bits each.
  CHECK(sizes.index == 6);
  CHECK(sizes.values == 8);
}

// --- rANS ------------------------------------------------------------------------------------------------------------

TEST_CASE("rANS gives the words and symbols of its plain twin") {
  namespace k = kernels;
  Random random{41};
  for (const size_t count : {0u, 1u, 15u, 16u, 17u, 100u, 4096u, 20011u}) {
    for (int kind = 0; kind < 4; ++kind) {
      std::vector<uint8_t> symbols(count);
      for (uint8_t& symbol : symbols) {
        symbol = static_cast<uint8_t>(kind == 0   ? random.below(256)
                                      : kind == 1 ? random.below(2) * 200
                                      : kind == 2 ? (random.below(50) ? 7 : random.below(256))
                                                  : std::lround(128 + 20 * random.normal()));
      }
      std::array<uint64_t, 256> counts{};
      for (const uint8_t symbol : symbols) ++counts[symbol];
      ++counts[0];
      ++counts[255];  // two symbols at least
      std::array<uint16_t, 256> frequencies{};
      rans_frequencies(counts, frequencies);
      std::vector<uint16_t> words(count), plain_words(count);
      std::array<uint32_t, k::kRansLanes> states, plain_states;
      const size_t used = k::rans_encode(symbols, frequencies, words, states);
      const size_t plain = k::reference::rans_encode(symbols, frequencies, plain_words, plain_states);
      CHECK(used == plain);
      CHECK(states == plain_states);
      CHECK(std::equal(words.end() - static_cast<ptrdiff_t>(used), words.end(),
                       plain_words.end() - static_cast<ptrdiff_t>(used)));
      const std::span<const uint8_t> stream(reinterpret_cast<const uint8_t*>(words.data() + count - used), 2 * used);
      std::vector<uint8_t> back(count), plain_back(count);
      CHECK(k::rans_decode(stream, states, frequencies, back));
      CHECK(k::reference::rans_decode(stream, states, frequencies, plain_back));
      CHECK(back == symbols);
      CHECK(plain_back == symbols);
      // Damage: both see the same, and neither reads where it should not.
      if (used < 4) continue;
      std::vector<uint8_t> damaged(stream.begin(), stream.end() - 3);
      damaged[random.below(damaged.size())] ^= 0x10;
      CHECK(k::rans_decode(damaged, states, frequencies, back) ==
            k::reference::rans_decode(damaged, states, frequencies, plain_back));
      CHECK(back == plain_back);
    }
  }
}

TEST_CASE("rANS frequencies sum to the table's size and miss nobody") {
  Random random{43};
  for (int round = 0; round < 300; ++round) {
    std::array<uint64_t, 256> counts{};
    const size_t different = 2 + random.below(255);
    for (size_t i = 0; i < different; ++i) counts[i] = random.below(size_t{1} << random.below(24));
    counts[0] += 1;
    counts[1] += 1;
    std::array<uint16_t, 256> frequencies{};
    rans_frequencies(counts, frequencies);
    uint32_t sum = 0;
    for (size_t i = 0; i < 256; ++i) {
      CHECK((frequencies[i] > 0) == (counts[i] > 0));
      sum += frequencies[i];
    }
    CHECK(sum == 1u << kernels::kRansBits);
  }
}

TEST_CASE("levels come back from rANS, near the entropy") {
  for (const auto& [rows, columns] : {std::pair<size_t, size_t>{0, 5}, {1, 1}, {1, 2}, {40, 25}, {300, 400}}) {
    for (const Source& source : sources(rows, columns)) {
      const std::string name = source.name;
      CAPTURE(name);
      const std::vector<uint8_t> bytes = rans_encode_levels(source.levels);
      std::vector<int32_t> levels(source.levels.size(), 777);
      CHECK(rans_decode_levels(bytes, levels));
      CHECK(levels == source.levels);
      if (rows == 300 && name != "16 bits" && name != "the widest")
        CHECK(static_cast<double>(bytes.size()) < 1.06 * entropy_of(source.levels) / 8 + 400);
    }
  }
}

TEST_CASE("levels of one symbol that differ in their extra bits come back from rANS") {
  std::vector<int32_t> many(301), one(9, -70000);
  for (size_t i = 0; i < many.size(); ++i) many[i] = 40000 + static_cast<int32_t>(i);
  one[4] = -70001;
  for (const std::vector<int32_t>& levels : {many, one}) {
    std::vector<int32_t> back(levels.size(), 777);
    CHECK(rans_decode_levels(rans_encode_levels(levels), back));
    CHECK(back == levels);
  }
}

// --- Floats and bytes ------------------------------------------------------------------------------------------------

TEST_CASE("floats come back bit for bit, and pruned ones take little") {
  Random random{51};
  for (const FloatFormat format : {kFloat32, kFloat16, kBFloat16}) {
    const int bits = 1 + format.exponent + format.mantissa;
    for (const size_t count : {0u, 1u, 33u, 3000u}) {
      for (int kind = 0; kind < 4; ++kind) {
        std::vector<uint32_t> values(count);
        for (uint32_t& value : values) {
          value = static_cast<uint32_t>(random.bits() >> (64 - bits));  // anything, NaN too
          if (kind == 1) value = std::bit_cast<uint32_t>(0.05f * random.normal()) >> (32 - bits);
          if (kind == 2 && random.below(10)) value = 0;
          if (kind == 3) value &= ~0u << (format.mantissa / 2);  // few mantissa bits
        }
        std::vector<uint8_t> bytes;
        RangeEncoder encoder(bytes);
        std::vector<uint32_t> given = values;
        FloatModel(format).code(encoder, given, 50);
        encoder.finish();
        CHECK(given == values);
        std::vector<uint32_t> back(count, 1);
        RangeDecoder decoder(bytes);
        FloatModel(format).code(decoder, back, 50);
        CHECK(back == values);
        if (count < 3000) continue;
        const double raw = static_cast<double>(count) * bits / 8;
        const double size = static_cast<double>(bytes.size());
        CHECK(size < (kind == 1 ? 0.95 : kind == 2 ? 0.2 : kind == 3 ? 1 - 0.35 * format.mantissa / bits : 1.03) * raw);
      }
    }
  }
}

TEST_CASE("bytes come back, and what was taught beforehand costs little") {
  const std::string text =
      "The quick brown fox jumps over the lazy dog; the lazy dog sleeps on, and the quick brown fox jumps over it "
      "again. ";
  Random random{61};
  std::string noise(500, ' ');
  for (char& c : noise) c = static_cast<char>(random.bits());
  const auto size_of = [&](const std::string& content, const std::string& taught, size_t stride) {
    std::vector<uint8_t> given(content.begin(), content.end()), bytes;
    ByteModel writing(taught.size() + given.size(), stride), reading(taught.size() + given.size(), stride);
    writing.learn(taught);
    reading.learn(taught);
    RangeEncoder encoder(bytes);
    writing.code(encoder, given);
    encoder.finish();
    std::vector<uint8_t> back(content.size());
    RangeDecoder decoder(bytes);
    reading.code(decoder, back);
    CHECK(std::string(back.begin(), back.end()) == content);
    return bytes.size();
  };
  CHECK(size_of("", "", 1) == 0);
  CHECK(size_of(text + text + text, "", 1) < text.size());
  CHECK(size_of(text, text, 1) < text.size() / 6);
  CHECK(size_of(noise, "", 1) < noise.size() * 11 / 10);
  // A table of slowly growing doubles: the bytes at the same place of the number before say most.
  std::vector<double> table(400);
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<double>(i);
  const std::string numbers = test::raw(table);
  CHECK(size_of(numbers, "", 8) < numbers.size() / 4);
}

TEST_CASE("numbers of seven bits a byte come back, and cut ones are refused") {
  for (const uint64_t value :
       {uint64_t{0}, uint64_t{127}, uint64_t{128}, uint64_t{300}, uint64_t{1} << 40, (uint64_t{1} << 63) - 1}) {
    std::vector<uint8_t> bytes;
    put_varint(bytes, value);
    std::span<const uint8_t> left(bytes);
    uint64_t back = 0;
    CHECK(take_varint(left, back));
    CHECK(back == value);
    CHECK(left.empty());
    left = std::span(bytes).first(bytes.size() - 1);
    CHECK_FALSE(take_varint(left, back));
  }
}

}  // namespace nibble::codec
