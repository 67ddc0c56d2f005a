// Errors, untrusted JSON, progress and the random streams.
#include <doctest/doctest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "core/base/context.hpp"
#include "core/base/error.hpp"
#include "core/base/json.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using test::error_of;
using test::holds;

TEST_CASE("an error says its code, its place and its message, and what() joins the two") {
  const Error error = error_of([] { fail(ErrorCode::BadRecipe, "steps[2].bits", "expected 1 to 8, got 9"); });
  CHECK(error.code == ErrorCode::BadRecipe);
  CHECK(error.where == "steps[2].bits");
  CHECK(error.message == "expected 1 to 8, got 9");
  CHECK(std::string(error.what()) == "steps[2].bits: expected 1 to 8, got 9");
  CHECK(std::string(error_of([] { fail(ErrorCode::BadData, "", "no place"); }).what()) == "no place");
}

TEST_CASE("error codes have the spellings of the TypeScript types") {
  CHECK(to_string(ErrorCode::BadFile) == "bad-file");
  CHECK(to_string(ErrorCode::Unsupported) == "unsupported");
  CHECK(to_string(ErrorCode::BadRecipe) == "bad-recipe");
  CHECK(to_string(ErrorCode::BadData) == "bad-data");
  CHECK(to_string(ErrorCode::OutOfMemory) == "out-of-memory");
  CHECK(to_string(ErrorCode::Cancelled) == "cancelled");
}

TEST_CASE("nearest_word finds the slip of a pen and nothing in noise") {
  CHECK(nearest_word("sparsty", {"sparsity", "scope", "seed"}) == "sparsity");
  CHECK(nearest_word("Sparsity", {"scope", "sparsity"}) == "sparsity");
  CHECK(nearest_word("scop", {"sparsity", "scope"}) == "scope");
  CHECK(nearest_word("bits", {"bits"}) == "bits");
  CHECK(nearest_word("qqqqqqqq", {"sparsity", "scope"}).empty());
  CHECK(nearest_word("", {"a"}).empty());
  CHECK(nearest_word("x", {}).empty());
  // Of two at the same distance the first.
  CHECK(nearest_word("cat", {"bat", "hat"}) == "bat");
}

TEST_CASE("nearest_word is not asked to measure a text of any length") {
  CHECK(nearest_word(std::string(65, 's'), {"s", "sparsity"}).empty());
  CHECK(nearest_word(std::string(100'000, 's'), {"sparsity"}).empty());
}

TEST_CASE("parse_json keeps the order of keys and the kinds of numbers") {
  const Json json = parse_json(R"({"b": 1, "a": [true, null, 1.5, "text"], "c": {}})", ErrorCode::BadFile, "header");
  CHECK(json.dump() == R"({"b":1,"a":[true,null,1.5,"text"],"c":{}})");
  CHECK(json["b"].is_number_unsigned());
  CHECK_FALSE(parse_json("-1", ErrorCode::BadFile, "").is_number_unsigned());
}

TEST_CASE("parse_json refuses what is not JSON, with the code and the place it was given and the byte") {
  for (const char* text :
       {"", "{", "[1,]", "{\"a\":}", "nul", "{\"a\" 1}", "1 2", "\"\x01\"", "\"\xff\"", "{\"a\":1}}", "\"open"}) {
    CAPTURE(text);
    const Error error = error_of([&] { parse_json(text, ErrorCode::BadRecipe, "recipe"); });
    CHECK(error.code == ErrorCode::BadRecipe);
    CHECK(error.where == "recipe");
    CHECK(holds(error.message, "not valid JSON at byte"));
  }
}

TEST_CASE("parse_json refuses a number that is out of range") {
  const Error error = error_of([] { parse_json("[1e999]", ErrorCode::BadFile, "header"); });
  CHECK(error.code == ErrorCode::BadFile);
  CHECK(error.where == "header");
}

TEST_CASE("parse_json refuses a key that stands twice in one object, at any depth, and names it") {
  for (const char* text :
       {R"({"a": 1, "a": 2})", R"([{"b": {"a": 1, "x": 0, "a": {}}}])", R"({"a": 1, "\u0061": 2})"}) {
    CAPTURE(text);
    const Error error = error_of([&] { parse_json(text, ErrorCode::BadFile, "header"); });
    CHECK(error.code == ErrorCode::BadFile);
    CHECK(holds(error.message, "\"a\" twice"));
  }
  // The same key in different objects is no repetition.
  CHECK(parse_json(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})", ErrorCode::BadFile, "").size() == 2);
}

TEST_CASE("parse_json follows brackets to depth 16 and no deeper, and does not count those in texts") {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(parse_json(nested(16), ErrorCode::BadFile, "").is_array());
  const Error error = error_of([&] { parse_json(nested(17), ErrorCode::BadFile, "header"); });
  CHECK(holds(error.message, "deeper than 16"));
  CHECK_THROWS_AS(parse_json(std::string(1'000'000, '['), ErrorCode::BadFile, ""), Error);
  CHECK(parse_json("\"" + std::string(40, '[') + "\"", ErrorCode::BadFile, "").is_string());
  CHECK(parse_json("\"\\\"" + std::string(40, '{') + "\"", ErrorCode::BadFile, "").is_string());
}

// The reference implementation of SplitMix64 (Sebastiano Vigna, prng.di.unimi.it/splitmix64.c), started at 1234567 and
// at 0: its first outputs as published with Rosetta Code's task "Pseudo-random numbers/Splitmix64" and in the test
// vectors of other generators that are seeded by it.
TEST_CASE("mix64 is the published SplitMix64 sequence") {
  const uint64_t from_1234567[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                   4593380528125082431u, 16408922859458223821u};
  for (uint64_t i = 0; i < 5; ++i) CHECK(mix64(1234567, i) == from_1234567[i]);
  CHECK(mix64(0, 0) == 0xE220A8397B1DCDAFu);
  CHECK(mix64(0, 1) == 0x6E789E6AA1B965F4u);
  CHECK(mix64(0, 2) == 0x06C45D188009454Fu);
  static_assert(mix64(0, 0) == 0xE220A8397B1DCDAFu);
}

TEST_CASE("uniform24 is the top 24 bits of mix64, in [0, 1), with the mean and variance of a uniform number") {
  // 0xE220A8 / 2^24, exact.
  CHECK(uniform24(0, 0) == static_cast<float>(0xE220A8) / 16777216.0f);
  double sum = 0, squares = 0;
  constexpr int kCount = 100'000;
  for (int i = 0; i < kCount; ++i) {
    const float value = uniform24(42, static_cast<uint64_t>(i));
    REQUIRE(value >= 0);
    REQUIRE(value < 1);
    sum += value;
    squares += double{value} * double{value};
  }
  // Five standard errors: sqrt(1/12 / n) and sqrt(4/45 / n).
  CHECK(std::abs(sum / kCount - 0.5) < 5 * 0.2887 / 316.2);
  CHECK(std::abs(squares / kCount - 1.0 / 3) < 5 * 0.2981 / 316.2);
}

// From the definition, worked out with arbitrary-precision integers: key = mix64(seed, length), then mix64(key, byte)
// for each byte of the use.
TEST_CASE("random_key gives fixed numbers, so that a recipe gives the same bytes everywhere and next year") {
  CHECK(Context(0).random_key("") == mix64(0, 0));
  CHECK(Context(0).random_key("steps[0]") == 0x66F57EF08E1CC63Eu);
  CHECK(Context(7).random_key("steps[0]") == 0x10609101B3F3BC53u);
  // Bytes above 127 count as 128 to 255 whether char is signed or not.
  CHECK(Context(0).random_key("\xC3\xA9") == 0xF27E85C49843C90Bu);
}

TEST_CASE("random_key depends on the seed and on the whole name of the use") {
  std::set<uint64_t> keys;
  size_t count = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const char* use : {"", "a", "b", "ab", "ba", "aa", "steps[0]", "steps[1]", "steps[10]"}) {
      keys.insert(Context(seed).random_key(use));
      ++count;
    }
  }
  CHECK(keys.size() == count);
}

TEST_CASE("tick hands over the progress and stops when the listener says so") {
  std::vector<double> seen;
  const Context context(0, [&](const Progress& progress) {
    seen.push_back(progress.fraction);
    CHECK(progress.phase == "prune");
    return progress.fraction < 0.5;
  });
  context.tick({"prune", "conv1.weight", 0.25});
  const Error error = error_of([&] { context.tick({"prune", "conv1.weight", 0.75}); });
  CHECK(error.code == ErrorCode::Cancelled);
  CHECK(error.where == "conv1.weight");
  CHECK(seen == std::vector<double>{0.25, 0.75});
  Context().tick({"prune", "", 1});  // no listener, nothing to ask
}

}  // namespace
}  // namespace nibble
