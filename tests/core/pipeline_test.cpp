// Holds recipes and runs against what they promise: every slip named with its place, defaults, purity, the same bytes
// everywhere, and reports whose numbers agree with the model, with each other and with the file.
#include "core/pipeline/pipeline.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "core/base/json.hpp"
#include "tests/core/support.hpp"

namespace nibble {
namespace {

using test::error_of;
using test::holds;
using test::same_bits;

/// A recipe of the steps given as JSON.
std::string with_steps(const std::string& steps) { return R"({"version":1,"steps":[)" + steps + "]}"; }

Recipe recipe_of(const std::string& steps, uint64_t seed = 0) {
  Recipe recipe = parse_recipe(with_steps(steps));
  recipe.seed = seed;
  return recipe;
}

std::vector<std::byte> exported(const Model& model) {
  return write_model(model, plan_write(model, model.header->format)).bytes();
}

/// FNV-1a over 64 bits.
uint64_t hash_of(std::span<const std::byte> bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<uint64_t>(byte)) * 0x100000001b3u;
  return hash;
}

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%08lx%08lx", static_cast<unsigned long>(value >> 32),
                static_cast<unsigned long>(value & 0xffffffffu));
  return text;
}

std::vector<float> values_of(const Model& model, std::string_view name) {
  const FloatView view(test::param(model, name).value);
  return {view.values().begin(), view.values().end()};
}

/// Weights of 20,000 and 6,400 values, so that quantizing pays for its nodes in the file, and a bias.
Model model_of_two(int64_t opset = 13) {
  test::OnnxFile file;
  file.opset = opset;
  file.graph.nodes = {test::node("Gemm", {"x", "W1", "b1"}, {"h"}, {test::attribute("transB", int64_t{1})}, "first"),
                      test::node("Relu", {"h"}, {"r"}, {}, "relu"),
                      test::node("MatMul", {"r", "W2"}, {"y"}, {}, "second")};
  file.graph.initializers = {test::random_tensor("W1", {200, 100}), test::random_tensor("b1", {200}),
                             test::random_tensor("W2", {200, 32})};
  file.graph.inputs = {test::value("x", test::kFloat, {-1, 100})};
  file.graph.outputs = {test::value("y", test::kFloat, {-1, 32})};
  return file.read();
}

const char* const kIssueRecipe =
    R"({"version":1,"seed":0,"steps":[{"kind":"prune","sparsity":0.8,"scope":"global","criterion":"magnitude",)"
    R"("pattern":"unstructured"},{"kind":"quantize","scheme":{"bits":8,"symmetric":true,"granularity":"channel"},)"
    R"("range":"mse","rounding":"nearest"}]})";

}  // namespace

// ---- recipes ----

TEST_CASE("the usual recipe is read as it stands") {
  const Recipe recipe = parse_recipe(kIssueRecipe);
  CHECK(recipe.seed == 0);
  REQUIRE(recipe.steps.size() == 2);
  const auto& prune = std::get<PruneStep>(recipe.steps[0]);
  CHECK(prune.choice.sparsity == 0.8);
  CHECK(!prune.choice.threshold);
  CHECK(prune.choice.scope == Scope::Global);
  CHECK(prune.choice.pattern.kind == PatternKind::Unstructured);
  const auto& quantize = std::get<QuantizeStep>(recipe.steps[1]);
  CHECK(quantize.scheme.bits == 8);
  CHECK(quantize.scheme.symmetric);
  CHECK(quantize.scheme.granularity == Granularity::Channel);
  CHECK(quantize.range.kind == RangeKind::Mse);
  CHECK(quantize.rounding == Rounding::Nearest);
  const Run result = run(recipe, model_of_two(), Context());
  CHECK(result.report.zeros >= 21120);  // 80 % of 26,400; quantizing may round more to zero
}

TEST_CASE("what is not said has its default") {
  const Recipe recipe = recipe_of(R"({"kind":"prune","sparsity":0.5},{"kind":"quantize","scheme":{"bits":4}})");
  CHECK(recipe.seed == 0);
  const auto& prune = std::get<PruneStep>(recipe.steps[0]);
  CHECK(prune.choice.scope == Scope::Layer);
  CHECK(prune.choice.pattern.kind == PatternKind::Unstructured);
  CHECK(prune.layers.include.empty());
  const auto& quantize = std::get<QuantizeStep>(recipe.steps[1]);
  CHECK(quantize.scheme.symmetric);
  CHECK(quantize.scheme.granularity == Granularity::Channel);
  CHECK(quantize.scheme.group_size == 32);
  CHECK(quantize.range.kind == RangeKind::MinMax);
  CHECK(quantize.range.percentile == 99.9);
  CHECK(quantize.range.sigmas == 3);
  CHECK(quantize.rounding == Rounding::Nearest);
  CHECK(print_recipe(parse_recipe(R"({"version":1,"steps":[]})")) == R"({"version":1,"seed":0,"steps":[]})");
}

TEST_CASE("every choice is read, and printing a recipe gives one that reads the same") {
  const char* const steps[] = {
      R"({"kind":"prune","sparsity":0})",
      R"({"kind":"prune","sparsity":1,"scope":"global","pattern":"channels"})",
      R"({"kind":"prune","threshold":0.0123,"layers":{"include":["conv*","a?"],"exclude":["*.bias"]}})",
      R"({"kind":"prune","pattern":"2:4"})",
      R"({"kind":"prune","pattern":"63:64","layers":{"exclude":["x"]}})",
      R"({"kind":"quantize","scheme":{"bits":1}})",
      R"({"kind":"quantize","scheme":{"bits":16,"symmetric":false,"granularity":"global"},"range":"minmax"})",
      R"({"kind":"quantize","scheme":{"bits":3,"granularity":"group","group_size":65536},"rounding":"stochastic"})",
      R"({"kind":"quantize","scheme":{"bits":2,"granularity":"group"},"range":"percentile","percentile":99.99})",
      R"({"kind":"quantize","scheme":{"bits":7,"granularity":"tensor"},"range":"sigma","sigmas":2.5})",
      R"({"kind":"quantize","scheme":{"bits":8.0},"range":"mse"})",
  };
  for (const std::string step : steps) {
    CAPTURE(step);
    const std::string printed = print_recipe(recipe_of(step, (uint64_t{1} << 53) - 1));
    CHECK(print_recipe(parse_recipe(printed)) == printed);
    const Json json = Json::parse(printed);
    CHECK(json["seed"] == (uint64_t{1} << 53) - 1);
    // Every key that was given is there again, with its value.
    const Json given = Json::parse(step);
    for (const auto& [key, value] : given.items()) {
      const Json& again = json["steps"][0];
      REQUIRE(again.contains(key));
      if (value.is_object()) {
        for (const auto& [inner, inner_value] : value.items()) CHECK(again[key][inner] == inner_value);
      } else {
        CHECK(again[key] == value);
      }
    }
  }
  const auto channels = std::get<PruneStep>(recipe_of(steps[1]).steps[0]);
  CHECK(channels.choice.pattern.kind == PatternKind::Channels);
  const auto pattern = std::get<PruneStep>(recipe_of(steps[4]).steps[0]).choice.pattern;
  CHECK(pattern.kind == PatternKind::NofM);
  CHECK(pattern.n == 63);
  CHECK(pattern.m == 64);
  const auto group = std::get<QuantizeStep>(recipe_of(steps[7]).steps[0]);
  CHECK(group.scheme.group_size == 65536);
  CHECK(group.rounding == Rounding::Stochastic);
  CHECK(std::get<QuantizeStep>(recipe_of(steps[9]).steps[0]).range.sigmas == 2.5);
}

TEST_CASE("every slip in a recipe is named with its place") {
  struct Slip {
    std::string recipe, where, part;
  };
  const auto prune = [](const std::string& rest) { return with_steps(R"({"kind":"prune",)" + rest + "}"); };
  const auto quantize = [](const std::string& rest) {
    return with_steps(R"({"kind":"prune","sparsity":0.5},{"kind":"quantize",)" + rest + "}");
  };
  const auto scheme = [&](const std::string& rest) { return quantize(R"("scheme":{)" + rest + "}"); };
  const std::vector<Slip> slips = {
      // the document
      {"", "recipe", "not valid JSON"},
      {"{", "recipe", "not valid JSON"},
      {"[]", "recipe", "expected an object"},
      {"null", "recipe", "expected an object"},
      {R"({"version":1,"steps":[]} x)", "recipe", "not valid JSON"},
      {R"({"version":1,"version":1,"steps":[]})", "recipe", "twice"},
      {R"({"version":1,"steps":[{"kind":"prune","sparsity":0.1,"sparsity":0.9}]})", "recipe", "\"sparsity\" twice"},
      {std::string(100000, '['), "recipe", "nested deeper"},
      {R"({"steps":[]})", "version", "expected 1"},
      {R"({"version":2,"steps":[]})", "version", "got 2"},
      {R"({"version":"1","steps":[]})", "version", "got \"1\""},
      {R"({"version":1})", "steps", "expected a list"},
      {R"({"version":1,"steps":{}})", "steps", "expected a list"},
      {R"({"version":1,"steps":[],"sed":3})", "sed", "did you mean \"seed\"?"},
      {R"({"version":1,"steps":[],"zzzzzz":3})", "zzzzzz", "known: version, seed, steps"},
      {R"({"version":1,"seed":-1,"steps":[]})", "seed", "expected a number from 0"},
      {R"({"version":1,"seed":1.5,"steps":[]})", "seed", "whole number"},
      {R"({"version":1,"seed":9007199254740992,"steps":[]})", "seed", "to 9007199254740991"},
      {R"({"version":1,"seed":"7","steps":[]})", "seed", "expected a number"},
      {R"({"version":1,"seed":1e999,"steps":[]})", "recipe", "not valid JSON"},
      // a step
      {with_steps("3"), "steps[0]", "expected an object, got 3"},
      {with_steps("{}"), "steps[0]", "\"kind\""},
      {with_steps(R"({"kind":7})"), "steps[0].kind", "got 7"},
      {with_steps(R"({"kind":"quantise","scheme":{"bits":8}})"), "steps[0].kind", "did you mean \"quantize\"?"},
      {with_steps(R"({"kind":"distill"})"), "steps[0].kind", "got \"distill\""},
      {prune(R"("sparsity":0.5,"sparsty":0.5)"), "steps[0].sparsty", "did you mean \"sparsity\"?"},
      {prune(R"("sparsity":1.01)"), "steps[0].sparsity", "from 0 to 1, got 1.01"},
      {prune(R"("sparsity":-0.1)"), "steps[0].sparsity", "got -0.1"},
      {prune(R"("sparsity":"80%")"), "steps[0].sparsity", "got \"80%\""},
      {prune(R"("sparsity":null)"), "steps[0].sparsity", "got null"},
      {prune(R"("threshold":-1)"), "steps[0].threshold", "got -1"},
      {prune(R"("threshold":1e39)"), "steps[0].threshold", "1e+39"},
      {prune(R"("sparsity":0.5,"threshold":1)"), "steps[0]", "got both"},
      {prune(R"("scope":"layer")"), "steps[0]", "got neither"},
      {prune(R"("sparsity":0.5,"scope":"model")"), "steps[0].scope", "\"layer\", \"global\", got \"model\""},
      {prune(R"("sparsity":0.5,"criterion":"taylor")"), "steps[0].criterion", "\"magnitude\", got \"taylor\""},
      {prune(R"("pattern":"2:4","sparsity":0.5)"), "steps[0].sparsity", "N:M"},
      {prune(R"("pattern":"2:4","threshold":0.5)"), "steps[0].threshold", "N:M"},
      {prune(R"("pattern":"2:4","scope":"global")"), "steps[0].scope", "N:M"},
      {prune(R"("pattern":"channels","threshold":0.5)"), "steps[0].threshold", "channels"},
      {prune(R"("pattern":"channels")"), "steps[0]", "\"sparsity\""},
      {prune(R"("sparsity":0.5,"layers":["a"])"), "steps[0].layers", "expected an object"},
      {prune(R"("sparsity":0.5,"layers":{"includes":["a"]})"), "steps[0].layers.includes", "did you mean \"include\"?"},
      {prune(R"("sparsity":0.5,"layers":{"include":"a"})"), "steps[0].layers.include", "expected a list"},
      {prune(R"("sparsity":0.5,"layers":{"exclude":["a",1]})"), "steps[0].layers.exclude[1]", "got 1"},
      {quantize(R"("range":"mse")"), "steps[1]", "\"scheme\""},
      {quantize(R"("scheme":8)"), "steps[1].scheme", "got 8"},
      {scheme(""), "steps[1].scheme", "\"bits\""},
      {scheme(R"("bits":8,"bit":8)"), "steps[1].scheme.bit", "did you mean \"bits\"?"},
      {scheme(R"("bits":0)"), "steps[1].scheme.bits", "1 to 8 or 16, got 0"},
      {scheme(R"("bits":9)"), "steps[1].scheme.bits", "got 9"},
      {scheme(R"("bits":15)"), "steps[1].scheme.bits", "got 15"},
      {scheme(R"("bits":17)"), "steps[1].scheme.bits", "got 17"},
      {scheme(R"("bits":-8)"), "steps[1].scheme.bits", "got -8"},
      {scheme(R"("bits":7.5)"), "steps[1].scheme.bits", "got 7.5"},
      {scheme(R"("bits":"8")"), "steps[1].scheme.bits", "got \"8\""},
      {scheme(R"("bits":true)"), "steps[1].scheme.bits", "got true"},
      {scheme(R"("bits":8,"symmetric":1)"), "steps[1].scheme.symmetric", "true or false, got 1"},
      {scheme(R"("bits":8,"granularity":"row")"), "steps[1].scheme.granularity", "got \"row\""},
      {scheme(R"("bits":8,"group_size":32)"), "steps[1].scheme.group_size", "granularity"},
      {scheme(R"("bits":8,"granularity":"group","group_size":1)"), "steps[1].scheme.group_size", "from 2 to 65536"},
      {scheme(R"("bits":8,"granularity":"group","group_size":65537)"), "steps[1].scheme.group_size", "got 65537"},
      {scheme(R"("bits":8,"granularity":"group","group_size":32.5)"), "steps[1].scheme.group_size", "whole number"},
      {quantize(R"("scheme":{"bits":8},"range":"kl")"), "steps[1].range", "\"mse\", got \"kl\""},
      {quantize(R"("scheme":{"bits":8},"percentile":99)"), "steps[1].percentile", "goes only with"},
      {quantize(R"("scheme":{"bits":8},"range":"percentile","percentile":49)"), "steps[1].percentile", "50 to 100"},
      {quantize(R"("scheme":{"bits":8},"range":"percentile","percentile":100.1)"), "steps[1].percentile", "got 100.1"},
      {quantize(R"("scheme":{"bits":8},"range":"mse","sigmas":3)"), "steps[1].sigmas", "goes only with"},
      {quantize(R"("scheme":{"bits":8},"range":"sigma","sigmas":0)"), "steps[1].sigmas", "from 0.1 to 100"},
      {quantize(R"("scheme":{"bits":8},"rounding":"floor")"), "steps[1].rounding", "\"nearest\", \"stochastic\""},
      {quantize(R"("scheme":{"bits":8},"roundin":"nearest")"), "steps[1].roundin", "did you mean \"rounding\"?"},
  };
  for (const Slip& slip : slips) {
    CAPTURE(slip.recipe.substr(0, 200));
    const Error error = error_of([&] { parse_recipe(slip.recipe); });
    CHECK(error.code == ErrorCode::BadRecipe);
    CHECK(error.where == slip.where);
    CHECK_MESSAGE(holds(error.message, slip.part), error.message);
    CHECK(error.message.size() < 300);
  }
  for (const char* pattern :
       {"4:2", "0:4", "4:4", "1:65", "2:4x", "2:", ":4", "2", "-1:4", "2 :4", "", "Channels", "99999999999:4"}) {
    CAPTURE(pattern);
    const Error error = error_of([&] { parse_recipe(prune("\"pattern\":\"" + std::string(pattern) + "\"")); });
    CHECK(error.code == ErrorCode::BadRecipe);
    CHECK(error.where == "steps[0].pattern");
    CHECK(holds(error.message, "2:4"));
  }
  std::string many = R"({"kind":"prune","sparsity":0.5})";
  for (int i = 0; i < 1000; ++i) many += R"(,{"kind":"prune","sparsity":0.5})";
  CHECK(error_of([&] { parse_recipe(with_steps(many)); }).where == "steps");
}

TEST_CASE("a recipe cut off anywhere is refused, never a crash") {
  const std::string recipe = kIssueRecipe;
  for (size_t length = 0; length < recipe.size(); ++length) {
    CHECK(error_of([&] { parse_recipe(recipe.substr(0, length)); }).code == ErrorCode::BadRecipe);
  }
}

TEST_CASE("globs match whole names") {
  struct Case {
    const char *glob, *name;
    bool matches;
  };
  const Case cases[] = {{"*", "", true},
                        {"*", "conv1.weight", true},
                        {"", "", true},
                        {"", "a", false},
                        {"conv1", "conv1.weight", false},
                        {"conv1*", "conv1.weight", true},
                        {"*weight", "conv1.weight", true},
                        {"*weight", "weights", false},
                        {"c?nv*", "conv", true},
                        {"c?nv", "cnv", false},
                        {"?", "", false},
                        {"a*b*c", "aXbYbZc", true},
                        {"a*b*c", "aXcYb", false},
                        {"**", "x", true},
                        {"*a", "aaab", false},
                        {"*ab", "aaab", true},
                        {"[a]", "a", false},
                        {"[a]", "[a]", true},
                        {"a.b", "aXb", false},
                        {"layer1/*", "layer1/conv/W", true},
                        {"A", "a", false}};
  for (const Case& each : cases) {
    CAPTURE(std::string(each.glob));
    CAPTURE(std::string(each.name));
    CHECK(LayerFilter{{each.glob}, {}}.matches(each.name) == each.matches);
    CHECK(LayerFilter{{}, {each.glob}}.matches(each.name) == !each.matches);
    CHECK(!LayerFilter{{each.glob}, {each.glob}}.matches(each.name));
  }
  CHECK(LayerFilter{{"b*", "a*"}, {}}.matches("a1"));
  CHECK(!LayerFilter{{"*"}, {"x", "a?"}}.matches("a1"));
  // No glob takes exponential time.
  std::string stars;
  for (int i = 0; i < 200; ++i) stars += "a*";
  CHECK(!LayerFilter{{stars + "b"}, {}}.matches(std::string(5000, 'a')));
}

// ---- runs ----

TEST_CASE("an include that matches nothing is refused, an exclude that leaves nothing is not") {
  const Model model = model_of_two();
  const Error error = error_of([&] {
    run(recipe_of(
            R"({"kind":"prune","sparsity":0.5},{"kind":"quantize","scheme":{"bits":8},"layers":{"include":["w*"]}})"),
        model, Context());
  });
  CHECK(error.code == ErrorCode::BadRecipe);
  CHECK(error.where == "steps[1].layers.include");
  CHECK(holds(error.message, "W1, W2"));
  const Recipe nothing = recipe_of(R"({"kind":"prune","sparsity":0.5,"layers":{"include":["W*"],"exclude":["W?"]}})");
  const Run result = run(nothing, model, Context());
  CHECK(result.report.steps[0].weights == 0);
  CHECK(exported(result.model) == exported(model));
}

TEST_CASE("a run leaves its model as it was and shares what it does not touch") {
  const Model model = model_of_two();
  const std::vector<std::byte> before = exported(model);
  const std::vector<Param> held = model.params;
  const Run result = run(recipe_of(R"({"kind":"prune","sparsity":0.5,"layers":{"exclude":["W2"]}},
      {"kind":"quantize","scheme":{"bits":4},"layers":{"include":["W1"]}})"),
                         model, Context());
  CHECK(exported(model) == before);
  for (size_t i = 0; i < model.params.size(); ++i) {
    CAPTURE(model.params[i].name);
    CHECK(!model.params[i].mask);
    CHECK(!model.params[i].grid);
    CHECK(model.params[i].value.same_storage(held[i].value));
    CHECK(result.model.params[i].value.same_storage(model.params[i].value) == (model.params[i].name != "W1"));
  }
  CHECK(result.model.graph == model.graph);
  CHECK(test::param(result.model, "W1").mask);
  CHECK(test::param(result.model, "W1").grid);
  CHECK(!test::param(result.model, "W2").grid);
}

TEST_CASE("a run without steps changes nothing and has no error") {
  const Model model = model_of_two();
  const Run result = run(parse_recipe(R"({"version":1,"steps":[]})"), model, Context());
  CHECK(exported(result.model) == exported(model));
  CHECK(result.report.total.mse == 0);
  CHECK(!result.report.total.sqnr_db);
  CHECK(result.report.steps.empty());
  for (const WeightReport& weight : result.report.weights) CHECK(weight.bits == 32);
}

TEST_CASE("steps follow each other: what was pruned stays zero, what was gridded stays on its grid") {
  const Model model = model_of_two();
  const std::string prune = R"({"kind":"prune","pattern":"2:4"})";
  for (const char* granularity : {"tensor", "channel", "group", "global"}) {
    for (const int bits : {1, 2, 4, 8, 16}) {
      for (const char* symmetric : {"true", "false"}) {
        const std::string quantize = R"({"kind":"quantize","scheme":{"bits":)" + std::to_string(bits) +
                                     R"(,"symmetric":)" + symmetric + R"(,"granularity":")" + granularity + "\"}}";
        for (const std::string& steps :
             {prune + "," + quantize, quantize + "," + prune, prune + "," + quantize + "," + prune}) {
          CAPTURE(steps);
          const Run result = run(recipe_of(steps), model, Context());
          // Rows of 100 and columns of 200 inputs, both multiples of 4.
          CHECK(result.report.zeros >= result.report.elements / 2);
          for (const char* name : {"W1", "W2"}) {
            const Param& param = test::param(result.model, name);
            REQUIRE(param.mask);
            REQUIRE(param.grid);
            // Values that quantizing made zero may be masked, too, when the pattern is asked for again.
            if (steps.find(prune, 1) == std::string::npos || steps.rfind(quantize, 0) == 0) {
              CHECK(param.mask->kept == param.value.elements() / 2);
            } else {
              CHECK(param.mask->kept <= param.value.elements() / 2);
              const Run once = run(recipe_of(prune + "," + quantize), model, Context());
              CHECK(values_of(once.model, name) == values_of(result.model, name));
            }
            const std::vector<float> values = values_of(result.model, name);
            size_t revived = 0;
            for (size_t i = 0; i < values.size(); ++i) {
              revived += !(param.mask->words[i / 64] >> (i % 64) & 1) && values[i] != 0;
            }
            CHECK(revived == 0);
          }
          // Writing checks that each value is a point of its grid, and throws where one is not.
          CHECK(exported(result.model).size() == result.report.file_after);
        }
      }
    }
  }
}

TEST_CASE("one global scale is one scale, found from the unpruned values of all weights that the step touches") {
  const Model model = model_of_two();
  const Run result =
      run(recipe_of(R"({"kind":"quantize","scheme":{"bits":8,"granularity":"global"}})"), model, Context());
  float largest = 0;
  for (const char* name : {"W1", "W2"}) {
    for (const float value : values_of(model, name)) largest = std::max(largest, std::abs(value));
  }
  for (const char* name : {"W1", "W2"}) {
    CHECK(test::param(result.model, name).grid->scale == std::vector<float>{static_cast<float>(double{largest} / 127)});
  }
  SUBCASE("weights left out have no part in it") {
    const Run one =
        run(recipe_of(R"({"kind":"quantize","scheme":{"bits":8,"granularity":"global"},"layers":{"include":["W2"]}})"),
            model, Context());
    float own = 0;
    for (const float value : values_of(model, "W2")) own = std::max(own, std::abs(value));
    CHECK(test::param(one.model, "W2").grid->scale[0] == static_cast<float>(double{own} / 127));
  }
  SUBCASE("nor have pruned zeros") {
    const Run one = run(
        recipe_of(R"({"kind":"prune","sparsity":0.9},{"kind":"quantize","scheme":{"bits":1,"granularity":"global"}})"),
        model, Context());
    double sum = 0, count = 0;
    for (const char* name : {"W1", "W2"}) {
      std::vector<float> values = values_of(model, name);
      for (float& value : values) value = std::abs(value);
      std::sort(values.begin(), values.end(), std::greater<>());
      values.resize(values.size() / 10);
      for (const float value : values) sum += value, ++count;
    }
    CHECK(test::param(one.model, "W1").grid->scale[0] == doctest::Approx(sum / count).epsilon(1e-6));
  }
}

TEST_CASE("the same run gives the same bytes, another seed others") {
  const Model model = model_of_two();
  const std::string steps = R"({"kind":"prune","sparsity":0.6,"scope":"global"},
      {"kind":"quantize","scheme":{"bits":5,"symmetric":false},"rounding":"stochastic"})";
  const std::vector<std::byte> first = exported(run(recipe_of(steps, 7), model, Context()).model);
  CHECK(first == exported(run(recipe_of(steps, 7), model, Context()).model));
  CHECK(first == exported(run(recipe_of(steps, 7), model, Context(99)).model));  // the recipe's seed decides
  CHECK(first != exported(run(recipe_of(steps, 8), model, Context()).model));
}

TEST_CASE("the random numbers of a weight are its own") {
  const Model model = model_of_two();
  const auto w2 = [&](const std::string& layers) {
    return values_of(
        run(recipe_of(R"({"kind":"quantize","scheme":{"bits":4},"rounding":"stochastic")" + layers + "}", 3), model,
            Context())
            .model,
        "W2");
  };
  CHECK(w2("") == w2(R"(,"layers":{"exclude":["W1"]})"));
  CHECK(w2("") == w2(R"(,"layers":{"include":["W2"]})"));
  const Run both =
      run(recipe_of(R"({"kind":"quantize","scheme":{"bits":4},"rounding":"stochastic"})"), model, Context());
  CHECK(values_of(both.model, "W1")[0] != values_of(both.model, "W2")[0]);
}

TEST_CASE("the same bytes on every platform") {
  // Recorded once. Natively and as WebAssembly, with any compiler, these recipes give these files.
  struct Case {
    std::string steps;
    int64_t opset;
    std::string hash;
  };
  const Case cases[] = {
      {R"({"kind":"prune","sparsity":0.8,"scope":"global"},{"kind":"quantize","scheme":{"bits":8},"range":"mse"})", 13,
       "4275ff1fac8ac380"},
      {R"({"kind":"prune","pattern":"2:4"},{"kind":"quantize","scheme":{"bits":4,"symmetric":false,"granularity":"group"},"range":"percentile","percentile":99.5,"rounding":"stochastic"})",
       21, "e4d6ea7760732f78"},
      {R"({"kind":"prune","pattern":"channels","sparsity":0.25},{"kind":"quantize","scheme":{"bits":6,"symmetric":false,"granularity":"tensor"},"range":"sigma","sigmas":2.5},{"kind":"prune","threshold":0.3})",
       13, "02ea3dd4b7848d66"},
      {R"({"kind":"quantize","scheme":{"bits":3,"symmetric":false,"granularity":"global"},"range":"mse"},{"kind":"quantize","scheme":{"bits":1},"layers":{"include":["W2"]}})",
       13, "a6b387b453e7ea2c"},
  };
  for (const Case& each : cases) {
    CAPTURE(each.steps);
    const Run result = run(recipe_of(each.steps, 20240607), model_of_two(each.opset), Context());
    CHECK(hex(hash_of(exported(result.model))) == each.hash);
  }
}

TEST_CASE("a cancelled run throws and leaves the model as it was, whenever the stop comes") {
  const Model model = model_of_two();
  const std::vector<std::byte> before = exported(model);
  const Recipe recipe = parse_recipe(kIssueRecipe);
  int calls = 0;
  run(recipe, model, Context(0, [&](const Progress&) { return ++calls > 0; }));
  REQUIRE(calls > 5);
  for (int stop = 1; stop <= calls; ++stop) {
    int at = 0;
    const Error error = error_of([&] { run(recipe, model, Context(0, [&](const Progress&) { return ++at < stop; })); });
    CHECK(error.code == ErrorCode::Cancelled);
    CHECK(at == stop);
    CHECK(exported(model) == before);
    for (const Param& param : model.params) CHECK((!param.mask && !param.grid));
  }
}

TEST_CASE("progress climbs from 0 to 1 and names its phase and weight") {
  const Model model = model_of_two();
  for (
      const std::string& steps :
      {std::string(), std::string(R"({"kind":"prune","sparsity":0.5})"),
       std::string(
           R"({"kind":"prune","pattern":"2:4"},{"kind":"quantize","scheme":{"bits":8}},{"kind":"prune","sparsity":1,"layers":{"exclude":["*"]}})")}) {
    CAPTURE(steps);
    double last = 0;
    bool named = true;
    run(recipe_of(steps), model, Context(0, [&](const Progress& progress) {
          CHECK(progress.fraction >= last);
          CHECK(progress.fraction <= 1);
          last = progress.fraction;
          named = named && (progress.phase == "prune" || progress.phase == "quantize" || progress.phase == "report") &&
                  (progress.item.empty() || progress.item == "W1" || progress.item == "W2");
          return true;
        }));
    CHECK(last == 1);
    CHECK(named);
  }
}

// ---- reports ----

TEST_CASE("a report's numbers agree with the model, with each other and with the file") {
  const Model model = model_of_two(21);
  for (const char* steps :
       {R"({"kind":"prune","sparsity":0.7},{"kind":"quantize","scheme":{"bits":8,"symmetric":false}})",
        R"({"kind":"quantize","scheme":{"bits":4,"granularity":"group","group_size":32},"layers":{"include":["W1"]}})",
        R"({"kind":"quantize","scheme":{"bits":3,"symmetric":false,"granularity":"group","group_size":7}})",
        R"({"kind":"quantize","scheme":{"bits":1,"granularity":"tensor"}})",
        R"({"kind":"prune","sparsity":0.5,"scope":"global"})", R"({"kind":"prune","sparsity":1})"}) {
    CAPTURE(std::string(steps));
    const Run result = run(recipe_of(steps), model, Context());
    const Report& report = result.report;
    size_t elements = 0, zeros = 0, dense = 0, packed = 0;
    double error = 0, signal = 0, largest = 0, product = 0, after_squared = 0;
    REQUIRE(report.weights.size() == 2);
    for (const WeightReport& weight : report.weights) {
      CAPTURE(weight.name);
      const std::vector<float> before = values_of(model, weight.name), after = values_of(result.model, weight.name);
      const Param& param = test::param(result.model, weight.name);
      double own_error = 0, own_signal = 0;
      size_t own_zeros = 0;
      for (size_t i = 0; i < before.size(); ++i) {
        const double gap = double{before[i]} - after[i];
        own_error += gap * gap;
        own_signal += double{before[i]} * before[i];
        product += double{before[i]} * after[i];
        after_squared += double{after[i]} * after[i];
        largest = std::max(largest, std::abs(gap));
        own_zeros += after[i] == 0;
      }
      CHECK(weight.elements == before.size());
      CHECK(weight.error.mse == doctest::Approx(own_error / static_cast<double>(before.size())).epsilon(1e-9));
      CHECK(weight.after.zeros == own_zeros);
      if (own_error > 0)
        CHECK(*weight.error.sqnr_db == doctest::Approx(10 * std::log10(own_signal / own_error)).epsilon(1e-9));
      CHECK(weight.dense_bytes == 4 * before.size());
      size_t expected_packed = weight.dense_bytes;
      if (param.grid) {
        const auto bits = static_cast<size_t>(param.grid->scheme.bits);
        CHECK(weight.bits == param.grid->scheme.bits);
        CHECK(weight.scales == param.grid->scale.size());
        expected_packed = (before.size() * bits + 7) / 8 + 4 * weight.scales +
                          (param.grid->scheme.symmetric ? 0 : (weight.scales * bits + 7) / 8);
      } else {
        CHECK(weight.bits == 32);
        CHECK(!weight.scheme);
        CHECK(weight.storage.bytes == weight.dense_bytes);
      }
      CHECK(weight.packed_bytes == expected_packed);
      elements += weight.elements;
      zeros += weight.after.zeros;
      dense += weight.dense_bytes;
      packed += weight.packed_bytes;
      error += own_error;
      signal += own_signal;
    }
    CHECK(report.elements == elements);
    CHECK(report.zeros == zeros);
    CHECK(report.dense_bytes == dense);
    CHECK(report.packed_bytes == packed);
    CHECK(report.total.mse == doctest::Approx(error / static_cast<double>(elements)).epsilon(1e-9));
    CHECK(*report.total.sqnr_db == doctest::Approx(10 * std::log10(signal / error)).epsilon(1e-9));
    CHECK(report.total.max_abs_error == doctest::Approx(largest).epsilon(1e-6));
    if (after_squared > 0) {
      CHECK(*report.total.cosine == doctest::Approx(product / std::sqrt(signal * after_squared)).epsilon(1e-9));
    } else {
      CHECK(!report.total.cosine);
    }
    CHECK(report.file_before == model.header->file_bytes);
    CHECK(report.file_after == exported(result.model).size());
    CHECK(report.opset_before == 21);
    CHECK(report.opset_after == plan_write(result.model, Format::Onnx).opset);
  }
}

TEST_CASE("the file of a report opens and holds the report's values bit for bit") {
  const Model model = model_of_two();
  const Run result = run(parse_recipe(kIssueRecipe), model, Context());
  const Model again = read_model(exported(result.model), "again.onnx");
  // 8 bits a code and a scale for each channel, by hand: codes times scales are the report's values.
  const Param& codes = test::param(again, "W1_quantized");
  const Param& scales = test::param(again, "W1_scale");
  const std::vector<float> values = values_of(result.model, "W1");
  REQUIRE(codes.value.dtype() == DType::Int8);
  REQUIRE(scales.value.elements() == 200);
  size_t wrong = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = scales.value.data<float>()[i / 100] * static_cast<float>(codes.value.data<int8_t>()[i]);
    wrong += value != values[i];
  }
  CHECK(wrong == 0);
  CHECK(result.report.weights[0].storage.bytes == 20000 + 4 * 200);
}

TEST_CASE("step reports count what they did and note what is odd") {
  const Model model = model_of_two();
  const Run result = run(recipe_of(R"({"kind":"prune","sparsity":0.25,"layers":{"include":["W1"]}},
      {"kind":"quantize","scheme":{"bits":8}},{"kind":"prune","sparsity":1,"layers":{"include":["W2"]}})"),
                         model, Context());
  REQUIRE(result.report.steps.size() == 3);
  const std::vector<StepReport>& steps = result.report.steps;
  CHECK(steps[0].kind == "prune");
  CHECK(steps[0].weights == 1);
  CHECK(*steps[0].zeros == 5000);
  CHECK(steps[1].kind == "quantize");
  CHECK(steps[1].weights == 2);
  CHECK(!steps[1].zeros);
  CHECK(*steps[2].zeros == 6400);
  REQUIRE(steps[2].notes.size() == 1);
  CHECK(steps[2].notes[0].where == "W2");
  CHECK(holds(steps[2].notes[0].message, "nothing of it is left"));
  for (const StepReport& step : steps) CHECK(step.seconds >= 0);
}

TEST_CASE("NaN and infinity are reported and leave no NaN behind") {
  test::OnnxFile file = test::small_mlp();
  std::vector<float> values = test::random_floats(512, 3);
  values[10] = std::nanf("");
  values[20] = HUGE_VALF;
  file.graph.initializers[0] = test::float_tensor("W1", {32, 16}, values);
  const Run result = run(recipe_of(R"({"kind":"quantize","scheme":{"bits":8}})"), file.read(), Context());
  const std::vector<float> after = values_of(result.model, "W1");
  CHECK(same_bits(after[10], 0));
  for (const float value : after) CHECK(std::isfinite(value));
  const auto note = std::find_if(result.report.notes.begin(), result.report.notes.end(),
                                 [](const Note& each) { return each.where == "W1"; });
  REQUIRE(note != result.report.notes.end());
  CHECK(holds(note->message, "1 NaN and 1 infinite"));
  const Json json = Json::parse(print_report(result.report));
  CHECK(json["weights"][0]["before"]["nan"] == 1);
  CHECK(json["weights"][0]["before"]["infinite"] == 1);
  CHECK(json["weights"][0]["after"]["nan"] == 0);
  CHECK(json["total"]["mse"].is_number());
}

TEST_CASE("the report as JSON has the documented keys and the report's numbers") {
  const Model model = model_of_two(21);
  const Run result = run(recipe_of(R"({"kind":"prune","sparsity":0.5},
      {"kind":"quantize","scheme":{"bits":4,"symmetric":false,"granularity":"group","group_size":16},"layers":{"include":["W1"]}})",
                                   5),
                         model, Context());
  const Json json = Json::parse(print_report(result.report));
  const auto keys = [](const Json& object) {
    std::vector<std::string> names;
    for (const auto& [key, value] : object.items()) names.push_back(key);
    std::sort(names.begin(), names.end());
    return names;
  };
  using Names = std::vector<std::string>;
  CHECK(keys(json) == Names{"file", "notes", "recipe", "seconds", "steps", "total", "version", "weights"});
  CHECK(keys(json["total"]) ==
        Names{"bits", "bytes", "cosine", "elements", "max_abs_error", "mse", "sparsity", "sqnr_db"});
  CHECK(keys(json["file"]) == Names{"after", "before", "format", "opset_after", "opset_before"});
  CHECK(keys(json["weights"][0]) == Names{"after", "before", "bits", "bytes", "clusters", "cosine", "elements",
                                          "granularity", "group_size", "max_abs_error", "mse", "name", "note", "scales",
                                          "sqnr_db", "stored", "symmetric"});
  CHECK(keys(json["weights"][0]["before"]) == Names{"infinite", "max", "mean", "min", "nan", "sparsity", "std"});
  CHECK(keys(json["weights"][0]["bytes"]) == Names{"dense", "file", "packed"});
  CHECK(keys(json["steps"][0]) == Names{"kind", "notes", "seconds", "weights", "zeros"});

  CHECK(json["version"] == 1);
  CHECK(json["recipe"] == Json::parse(print_recipe(result.report.recipe)));
  CHECK(json["recipe"]["seed"] == 5);
  CHECK(json["file"]["after"] == exported(result.model).size());
  CHECK(json["file"]["before"] == model.header->file_bytes);
  CHECK(json["file"]["format"] == "onnx");
  CHECK(json["total"]["elements"] == 26400);
  CHECK(json["total"]["bytes"]["dense"] == 105600);
  CHECK(json["total"]["bits"].get<double>() ==
        doctest::Approx(8 * json["total"]["bytes"]["packed"].get<double>() / 26400));
  CHECK(json["total"]["sparsity"].get<double>() >= 0.5);
  const Json& first = json["weights"][0];
  CHECK(first["name"] == "W1");
  CHECK(first["bits"] == 4);
  CHECK(first["symmetric"] == false);
  CHECK(first["granularity"] == "group");
  CHECK(first["group_size"] == 16);
  CHECK(first["scales"] == 200 * 7);
  CHECK(first["stored"] == "uint4");
  CHECK(first["note"] == nullptr);
  const Json& second = json["weights"][1];
  CHECK(first["clusters"] == nullptr);
  CHECK(second["granularity"] == nullptr);
  CHECK(second["group_size"] == nullptr);
  CHECK(second["bits"] == 32);
  CHECK(second["stored"] == "float32");
  CHECK(json["steps"][0]["zeros"] == 13200);
  CHECK(json["steps"][1]["zeros"] == nullptr);
}

TEST_CASE("a safetensors model runs, is written as safetensors and has no operator set") {
  const std::vector<float> values = test::random_floats(64, 1);
  const test::Bytes file =
      test::safetensors_file(R"({"a":{"dtype":"F32","shape":[8,8],"data_offsets":[0,256]}})", test::raw(values));
  const Run result = run(recipe_of(R"({"kind":"prune","sparsity":0.5},{"kind":"quantize","scheme":{"bits":4}})"),
                         read_model(file, "a.safetensors"), Context());
  CHECK(result.report.zeros >= 32);
  CHECK(result.report.file_after == exported(result.model).size());
  const Json json = Json::parse(print_report(result.report));
  CHECK(json["file"]["format"] == "safetensors");
  CHECK(json["file"]["opset_before"] == nullptr);
  CHECK(json["file"]["opset_after"] == nullptr);
  CHECK(values_of(read_model(exported(result.model), "b.safetensors"), "a") == values_of(result.model, "a"));
}

TEST_CASE("names that are not text make a report that is still JSON") {
  test::OnnxFile file = test::small_mlp();
  file.graph.nodes[2] = test::node("MatMul", {"r", "W\xff\xfe"}, {"y"});
  file.graph.initializers[2] = test::random_tensor("W\xff\xfe", {32, 8});
  const Model model = file.read();
  const Run result = run(recipe_of(R"({"kind":"prune","sparsity":1})"), model, Context());
  CHECK(Json::parse(print_report(result.report))["weights"].size() == 2);
  CHECK(Json::parse(describe(model))["weights"].size() == 2);
}

TEST_CASE("a description has the model's own numbers") {
  const Model model = test::small_cnn().read();
  const Json json = Json::parse(describe(model));
  CHECK(json["format"] == "onnx");
  CHECK(json["opset"] == 13);
  CHECK(json["file_bytes"] == model.header->file_bytes);
  CHECK(json["nodes"] == 4);
  CHECK(json["parameters"] == 216 + 2880);
  CHECK(json["weight_parameters"] == 216 + 2880);
  REQUIRE(json["weights"].size() == 2);
  const Json& conv = json["weights"][0];
  CHECK(conv["name"] == "W");
  CHECK(conv["kind"] == "conv");
  CHECK(conv["op"] == "Conv");
  CHECK(conv["node"] == "conv");
  CHECK(conv["shape"] == Json::array({8, 3, 3, 3}));
  CHECK(conv["channel_axis"] == 0);
  CHECK(conv["channels"] == 8);
  CHECK(conv["bytes"] == 864);
  const std::vector<float> values = values_of(model, "W");
  CHECK(conv["statistics"]["min"].get<float>() == *std::min_element(values.begin(), values.end()));
  CHECK(conv["statistics"]["sparsity"] == 0);
  CHECK(json["inputs"] == Json::parse(R"([{"name":"x","dtype":"float32","shape":["N",3,8,8]}])"));
  CHECK(json["operators"].size() == 4);
}

}  // namespace nibble
