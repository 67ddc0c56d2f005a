// Recipe from and to JSON. Every key is read by one line that knows its type, range and default.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/base/json.hpp"
#include "core/pipeline/pipeline.hpp"

namespace nibble {

namespace {

[[noreturn]] void bad(const std::string& where, const std::string& message) {
  fail(ErrorCode::BadRecipe, where, message);
}

template <class Enum>
using Words = std::initializer_list<std::pair<std::string_view, Enum>>;

const Words<Granularity> kGranularities = {{"global", Granularity::Global},
                                           {"tensor", Granularity::Tensor},
                                           {"channel", Granularity::Channel},
                                           {"group", Granularity::Group}};
const Words<RangeKind> kRanges = {{"minmax", RangeKind::MinMax},
                                  {"percentile", RangeKind::Percentile},
                                  {"sigma", RangeKind::Sigma},
                                  {"mse", RangeKind::Mse}};
const Words<Rounding> kRoundings = {{"nearest", Rounding::Nearest}, {"stochastic", Rounding::Stochastic}};
const Words<Scope> kScopes = {{"layer", Scope::Layer}, {"global", Scope::Global}};

template <class Enum>
std::string_view word_of(const Words<Enum>& words, Enum value) {
  return std::find_if(words.begin(), words.end(), [&](const auto& word) { return word.second == value; })->first;
}

std::string number_text(double value) {
  const Json json =
      value == std::floor(value) && std::abs(value) <= 0x1p53 ? Json(static_cast<int64_t>(value)) : Json(value);
  return json.dump();
}

/// What a value looks like in a message: short.
std::string shown(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= 40 ? text : text.substr(0, 40) + "...";
}

/// One object of the recipe, and where it stands.
class Object {
 public:
  Object(const Json& json, std::string where, std::initializer_list<std::string_view> keys)
      : json_(json), where_(std::move(where)) {
    if (!json.is_object()) bad(where_.empty() ? "recipe" : where_, "expected an object, got " + shown(json));
    for (const auto& [key, value] : json.items()) {
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
      const std::string nearest = nearest_word(key, keys);
      std::string all;
      for (const std::string_view valid : keys) all += (all.empty() ? "" : ", ") + std::string(valid);
      bad(at(key),
          "unknown key" + (nearest.empty() ? "" : ", did you mean \"" + nearest + "\"?") + " (known: " + all + ")");
    }
  }

  std::string at(std::string_view key) const {
    return where_.empty() ? std::string(key) : where_ + "." + std::string(key);
  }
  bool has(std::string_view key) const { return json_.contains(key); }
  const Json& operator[](std::string_view key) const { return json_.at(std::string(key)); }

  double number(std::string_view key, double lowest, double highest, double otherwise) const {
    if (!has(key)) return otherwise;
    const Json& value = (*this)[key];
    if (!value.is_number() || !(value.get<double>() >= lowest && value.get<double>() <= highest)) {
      bad(at(key),
          "expected a number from " + number_text(lowest) + " to " + number_text(highest) + ", got " + shown(value));
    }
    return value.get<double>();
  }

  int64_t integer(std::string_view key, int64_t lowest, int64_t highest, int64_t otherwise) const {
    if (!has(key)) return otherwise;
    const double value = number(key, static_cast<double>(lowest), static_cast<double>(highest), 0);
    if (value != std::floor(value)) bad(at(key), "expected a whole number, got " + shown((*this)[key]));
    return static_cast<int64_t>(value);
  }

  bool boolean(std::string_view key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!(*this)[key].is_boolean()) bad(at(key), "expected true or false, got " + shown((*this)[key]));
    return (*this)[key].get<bool>();
  }

  template <class Enum>
  Enum choice(std::string_view key, const Words<Enum>& words, Enum otherwise) const {
    if (!has(key)) return otherwise;
    const Json& value = (*this)[key];
    std::string all;
    for (const auto& [word, meaning] : words) {
      if (value.is_string() && value.get<std::string>() == word) return meaning;
      all += (all.empty() ? "\"" : ", \"") + std::string(word) + "\"";
    }
    bad(at(key), "expected one of " + all + ", got " + shown(value));
  }

 private:
  const Json& json_;
  std::string where_;
};

std::vector<std::string> read_globs(const Object& object, std::string_view key) {
  std::vector<std::string> globs;
  if (!object.has(key)) return globs;
  const Json& list = object[key];
  if (!list.is_array()) bad(object.at(key), "expected a list of globs such as [\"conv*\"], got " + shown(list));
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_string())
      bad(object.at(key) + "[" + std::to_string(i) + "]", "expected a text, got " + shown(list[i]));
    globs.push_back(list[i].get<std::string>());
  }
  return globs;
}

LayerFilter read_layers(const Object& step) {
  if (!step.has("layers")) return {};
  const Object layers(step["layers"], step.at("layers"), {"include", "exclude"});
  return {read_globs(layers, "include"), read_globs(layers, "exclude")};
}

Pattern read_pattern(const Object& step) {
  if (!step.has("pattern")) return {};
  const Json& value = step["pattern"];
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  if (text == "unstructured") return {};
  if (text == "channels") return {PatternKind::Channels, 0, 0};
  Pattern pattern{PatternKind::NofM, 0, 0};
  const char* const end = text.data() + text.size();
  const auto [colon, first_error] = std::from_chars(text.data(), end, pattern.n);
  if (first_error == std::errc() && colon != end && *colon == ':') {
    const auto [stop, second_error] = std::from_chars(colon + 1, end, pattern.m);
    if (second_error == std::errc() && stop == end && pattern.n >= 1 && pattern.n < pattern.m && pattern.m <= 64)
      return pattern;
  }
  bad(step.at("pattern"),
      "expected \"unstructured\", \"channels\" or \"N:M\" with 1 <= N < M <= 64 such as \"2:4\", got " + shown(value));
}

PruneStep read_prune(const Json& json, const std::string& where) {
  const Object step(json, where, {"kind", "sparsity", "threshold", "scope", "criterion", "pattern", "layers"});
  PruneStep prune;
  prune.choice.pattern = read_pattern(step);
  if (step.has("sparsity")) prune.choice.sparsity = step.number("sparsity", 0, 1, 0);
  if (step.has("threshold")) prune.choice.threshold = step.number("threshold", 0, 3.4e38, 0);
  prune.choice.scope = step.choice("scope", kScopes, Scope::Layer);
  step.choice("criterion", Words<int>{{"magnitude", 0}}, 0);
  prune.layers = read_layers(step);
  switch (prune.choice.pattern.kind) {
    case PatternKind::Unstructured:
      if (step.has("sparsity") == step.has("threshold"))
        bad(where, "expected one of \"sparsity\" and \"threshold\", got " +
                       std::string(step.has("sparsity") ? "both" : "neither"));
      break;
    case PatternKind::Channels:
      if (step.has("threshold"))
        bad(step.at("threshold"), "does not go with the pattern \"channels\"; give \"sparsity\"");
      if (!step.has("sparsity")) bad(where, "expected \"sparsity\", the share of channels to remove");
      break;
    case PatternKind::NofM:
      for (const char* key : {"sparsity", "threshold", "scope"}) {
        if (step.has(key)) bad(step.at(key), "does not go with an N:M pattern, which says by itself how many stay");
      }
  }
  return prune;
}

QuantizeStep read_quantize(const Json& json, const std::string& where) {
  const Object step(json, where, {"kind", "scheme", "range", "percentile", "sigmas", "rounding", "layers"});
  if (!step.has("scheme")) bad(where, "expected a \"scheme\" such as {\"bits\":8}");
  const Object scheme(step["scheme"], step.at("scheme"), {"bits", "symmetric", "granularity", "group_size"});
  QuantizeStep quantize;
  if (!scheme.has("bits")) bad(step.at("scheme"), "expected \"bits\", 1 to 8 or 16");
  const Json& bits = scheme["bits"];
  const double width = bits.is_number() ? bits.get<double>() : 0;
  if (!(width == std::floor(width) && ((width >= 1 && width <= 8) || width == 16)))
    bad(scheme.at("bits"), "expected 1 to 8 or 16, got " + shown(bits));
  quantize.scheme.bits = static_cast<int>(width);
  quantize.scheme.symmetric = scheme.boolean("symmetric", true);
  quantize.scheme.granularity = scheme.choice("granularity", kGranularities, Granularity::Channel);
  if (scheme.has("group_size") && quantize.scheme.granularity != Granularity::Group)
    bad(scheme.at("group_size"), "goes only with \"granularity\":\"group\"");
  quantize.scheme.group_size = static_cast<size_t>(scheme.integer("group_size", 2, 65536, 32));
  quantize.range.kind = step.choice("range", kRanges, RangeKind::MinMax);
  if (step.has("percentile") && quantize.range.kind != RangeKind::Percentile)
    bad(step.at("percentile"), "goes only with \"range\":\"percentile\"");
  if (step.has("sigmas") && quantize.range.kind != RangeKind::Sigma)
    bad(step.at("sigmas"), "goes only with \"range\":\"sigma\"");
  quantize.range.percentile = step.number("percentile", 50, 100, 99.9);
  quantize.range.sigmas = step.number("sigmas", 0.1, 100, 3);
  quantize.rounding = step.choice("rounding", kRoundings, Rounding::Nearest);
  quantize.layers = read_layers(step);
  return quantize;
}

Step read_step(const Json& json, const std::string& where) {
  if (!json.is_object()) bad(where, "expected an object, got " + shown(json));
  if (!json.contains("kind")) bad(where, "expected a \"kind\": \"prune\" or \"quantize\"");
  const std::string kind = json["kind"].is_string() ? json["kind"].get<std::string>() : "";
  if (kind == "prune") return read_prune(json, where);
  if (kind == "quantize") return read_quantize(json, where);
  const std::string nearest = nearest_word(kind, {"prune", "quantize"});
  bad(where + ".kind", "expected \"prune\" or \"quantize\", got " + shown(json["kind"]) +
                           (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?"));
}

bool glob_matches(std::string_view glob, std::string_view text) {
  // Greedy with one point to come back to: linear in practice, never exponential.
  size_t g = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (g < glob.size() && (glob[g] == '?' || (glob[g] != '*' && glob[g] == text[t]))) {
      ++g;
      ++t;
    } else if (g < glob.size() && glob[g] == '*') {
      star = g++;
      resume = t;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return glob.find_first_not_of('*', g) == std::string_view::npos;
}

void print_layers(const LayerFilter& layers, Json& json) {
  if (!layers.include.empty()) json["layers"]["include"] = layers.include;
  if (!layers.exclude.empty()) json["layers"]["exclude"] = layers.exclude;
}

Json number_json(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? Json(static_cast<int64_t>(value)) : Json(value);
}

Json print_step(const PruneStep& step) {
  const PruneChoice& choice = step.choice;
  Json json{{"kind", "prune"}};
  if (choice.sparsity) json["sparsity"] = number_json(*choice.sparsity);
  if (choice.threshold) json["threshold"] = number_json(*choice.threshold);
  if (choice.pattern.kind != PatternKind::NofM) json["scope"] = word_of(kScopes, choice.scope);
  json["criterion"] = "magnitude";
  switch (choice.pattern.kind) {
    case PatternKind::Unstructured: json["pattern"] = "unstructured"; break;
    case PatternKind::Channels: json["pattern"] = "channels"; break;
    case PatternKind::NofM: json["pattern"] = std::to_string(choice.pattern.n) + ":" + std::to_string(choice.pattern.m);
  }
  print_layers(step.layers, json);
  return json;
}

Json print_step(const QuantizeStep& step) {
  Json scheme{{"bits", step.scheme.bits},
              {"symmetric", step.scheme.symmetric},
              {"granularity", to_string(step.scheme.granularity)}};
  if (step.scheme.granularity == Granularity::Group) scheme["group_size"] = step.scheme.group_size;
  Json json{{"kind", "quantize"}, {"scheme", scheme}, {"range", word_of(kRanges, step.range.kind)}};
  if (step.range.kind == RangeKind::Percentile) json["percentile"] = number_json(step.range.percentile);
  if (step.range.kind == RangeKind::Sigma) json["sigmas"] = number_json(step.range.sigmas);
  json["rounding"] = word_of(kRoundings, step.rounding);
  print_layers(step.layers, json);
  return json;
}

}  // namespace

std::string_view to_string(Granularity granularity) { return word_of(kGranularities, granularity); }

bool LayerFilter::matches(std::string_view name) const {
  const auto any = [&](const std::vector<std::string>& globs) {
    return std::any_of(globs.begin(), globs.end(), [&](const std::string& glob) { return glob_matches(glob, name); });
  };
  return (include.empty() || any(include)) && !any(exclude);
}

Recipe parse_recipe(std::string_view text) {
  const Json json = parse_json(text, ErrorCode::BadRecipe, "recipe");
  const Object object(json, "", {"version", "seed", "steps"});
  if (!object.has("version")) bad("version", "expected 1, the version of the recipe format");
  if (object.integer("version", 0, INT32_MAX, 0) != 1)
    bad("version", "expected 1, got " + shown(json["version"]) + "; a newer Nibble may be able to read it");
  Recipe recipe;
  constexpr int64_t kMostExact = (int64_t{1} << 53) - 1;  // the largest whole number that JavaScript holds exactly
  recipe.seed = static_cast<uint64_t>(object.integer("seed", 0, kMostExact, 0));
  if (!object.has("steps") || !json["steps"].is_array()) bad("steps", "expected a list of steps");
  constexpr size_t kMostSteps = 1000;
  if (json["steps"].size() > kMostSteps)
    bad("steps", "expected at most " + std::to_string(kMostSteps) + ", got " + std::to_string(json["steps"].size()));
  for (size_t i = 0; i < json["steps"].size(); ++i)
    recipe.steps.push_back(read_step(json["steps"][i], "steps[" + std::to_string(i) + "]"));
  return recipe;
}

std::string print_recipe(const Recipe& recipe) {
  Json json{{"version", 1}, {"seed", recipe.seed}, {"steps", Json::array()}};
  for (const Step& step : recipe.steps)
    json["steps"].push_back(std::visit([](const auto& kind) { return print_step(kind); }, step));
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace nibble
