// Recipe from and to JSON. Every key is read by one line that knows its type, range and default.
#include <algorithm>
#include <charconv>

#include "core/pipeline/json_object.hpp"
#include "core/pipeline/pipeline.hpp"

namespace nibble {

namespace {

[[noreturn]] void bad(const std::string& where, const std::string& message) {
  fail(ErrorCode::BadRecipe, where, message);
}

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

const Words<Loss> kLosses = {{"cross_entropy", Loss::CrossEntropy}, {"mean_squared", Loss::MeanSquared}};
const Words<Optimizer> kOptimizers = {{"sgd", Optimizer::Sgd}, {"adam", Optimizer::Adam}, {"adamw", Optimizer::AdamW}};
const Words<Schedule> kSchedules = {
    {"constant", Schedule::Constant}, {"cosine", Schedule::Cosine}, {"step", Schedule::Step}};

/// A TrainChoice; in a recipe it has a "kind" beside its fields.
TrainStep read_train(const Json& json, const std::string& where) {
  const Object step(
      json, where,
      {"kind", "epochs", "batch", "loss", "optimizer", "learning_rate", "momentum", "weight_decay", "schedule",
       "warmup", "step_epochs", "step_factor", "clip_norm", "keep_masks", "keep_grids", "patience"});
  TrainStep train;
  TrainChoice& choice = train.choice;
  const auto whole = [&](const char* key, size_t lowest, size_t highest, size_t otherwise) {
    return static_cast<size_t>(step.integer(key, static_cast<int64_t>(lowest), static_cast<int64_t>(highest),
                                            static_cast<int64_t>(otherwise)));
  };
  choice.epochs = whole("epochs", 1, 10000, choice.epochs);
  choice.batch = whole("batch", 1, 65536, choice.batch);
  if (step.has("loss")) train.loss = step.choice("loss", kLosses, Loss::CrossEntropy);
  choice.optimizer = step.choice("optimizer", kOptimizers, choice.optimizer);
  constexpr double kLeast = 1e-12;  // "above 0"
  choice.learning_rate = step.number("learning_rate", kLeast, 100, choice.optimizer == Optimizer::Sgd ? 0.05 : 0.001);
  if (step.has("momentum") && choice.optimizer != Optimizer::Sgd)
    bad(step.at("momentum"), "goes only with \"optimizer\":\"sgd\"");
  choice.momentum = step.number("momentum", 0, 0.9999, choice.momentum);
  choice.weight_decay = step.number("weight_decay", 0, 10, 0);
  choice.schedule = step.choice("schedule", kSchedules, choice.schedule);
  choice.warmup = step.number("warmup", 0, 10000, 0);
  for (const char* key : {"step_epochs", "step_factor"}) {
    if (step.has(key) && choice.schedule != Schedule::Step) bad(step.at(key), "goes only with \"schedule\":\"step\"");
  }
  choice.step_epochs = step.number("step_epochs", 0.001, 10000, choice.step_epochs);
  choice.step_factor = step.number("step_factor", kLeast, 1, choice.step_factor);
  choice.clip_norm = step.number("clip_norm", 0, 1e9, 0);
  choice.keep_masks = step.boolean("keep_masks", true);
  choice.keep_grids = step.boolean("keep_grids", true);
  choice.patience = whole("patience", 0, 10000, 0);
  return train;
}

const Words<InitialCentroids> kInitials = {
    {"linear", InitialCentroids::Linear}, {"density", InitialCentroids::Density}, {"random", InitialCentroids::Random}};

ClusterStep read_cluster(const Json& json, const std::string& where) {
  const Object step(json, where, {"kind", "bits", "initial", "layers"});
  if (!step.has("bits")) bad(where, "expected \"bits\", 1 to 8");
  ClusterStep cluster;
  cluster.bits = static_cast<int>(step.integer("bits", 1, 8, 4));
  cluster.initial = step.choice("initial", kInitials, InitialCentroids::Linear);
  cluster.layers = read_layers(step);
  return cluster;
}

const Words<EntropyCoder> kCoders = {{"auto", EntropyCoder::Auto},
                                     {"huffman", EntropyCoder::Huffman},
                                     {"rans", EntropyCoder::Rans},
                                     {"cabac", EntropyCoder::Cabac}};
const Words<Importance> kImportances = {
    {"none", Importance::None}, {"diagonal", Importance::Diagonal}, {"hessian", Importance::Hessian}};

EncodeStep read_encode(const Json& json, const std::string& where) {
  const Object step(json, where, {"kind", "coder", "lambda", "importance", "quantized_form", "layers"});
  EncodeStep encode;
  encode.coding.coder = step.choice("coder", kCoders, EntropyCoder::Auto);
  encode.coding.quantized_form = step.boolean("quantized_form", true);
  encode.lambda = step.number("lambda", 0, 1, 0);
  for (const char* key : {"importance", "layers"}) {
    if (step.has(key) && encode.lambda == 0) bad(step.at(key), "goes only with a \"lambda\" above 0");
  }
  encode.importance = step.choice("importance", kImportances, Importance::None);
  encode.layers = read_layers(step);
  return encode;
}

const std::initializer_list<std::string_view> kKinds = {"prune", "quantize", "cluster", "train", "encode"};

std::string all_kinds() {
  std::string all;
  for (const std::string_view kind : kKinds)
    all += (all.empty() ? "\"" : kind == *(kKinds.end() - 1) ? " or \"" : ", \"") + std::string(kind) + "\"";
  return all;
}

Step read_step(const Json& json, const std::string& where) {
  if (!json.is_object()) bad(where, "expected an object, got " + shown(json));
  if (!json.contains("kind")) bad(where, "expected a \"kind\": " + all_kinds());
  const std::string kind = json["kind"].is_string() ? json["kind"].get<std::string>() : "";
  if (kind == "prune") return read_prune(json, where);
  if (kind == "quantize") return read_quantize(json, where);
  if (kind == "train") return read_train(json, where);
  if (kind == "cluster") return read_cluster(json, where);
  if (kind == "encode") return read_encode(json, where);
  const std::string nearest = nearest_word(kind, kKinds);
  bad(where + ".kind", "expected " + all_kinds() + ", got " + shown(json["kind"]) +
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

Json print_step(const TrainStep& step) {
  const TrainChoice& choice = step.choice;
  Json json{{"kind", "train"}, {"epochs", choice.epochs}, {"batch", choice.batch}};
  if (step.loss) json["loss"] = word_of(kLosses, *step.loss);
  json["optimizer"] = word_of(kOptimizers, choice.optimizer);
  json["learning_rate"] = number_json(choice.learning_rate);
  if (choice.optimizer == Optimizer::Sgd) json["momentum"] = number_json(choice.momentum);
  json["weight_decay"] = number_json(choice.weight_decay);
  json["schedule"] = word_of(kSchedules, choice.schedule);
  json["warmup"] = number_json(choice.warmup);
  if (choice.schedule == Schedule::Step) {
    json["step_epochs"] = number_json(choice.step_epochs);
    json["step_factor"] = number_json(choice.step_factor);
  }
  json["clip_norm"] = number_json(choice.clip_norm);
  json["keep_masks"] = choice.keep_masks;
  json["keep_grids"] = choice.keep_grids;
  json["patience"] = choice.patience;
  return json;
}

Json print_step(const ClusterStep& step) {
  Json json{{"kind", "cluster"}, {"bits", step.bits}, {"initial", word_of(kInitials, step.initial)}};
  print_layers(step.layers, json);
  return json;
}

Json print_step(const EncodeStep& step) {
  Json json{{"kind", "encode"}, {"coder", word_of(kCoders, step.coding.coder)}, {"lambda", number_json(step.lambda)}};
  if (step.lambda > 0) json["importance"] = word_of(kImportances, step.importance);
  json["quantized_form"] = step.coding.quantized_form;
  print_layers(step.layers, json);
  return json;
}

}  // namespace

TrainStep parse_train(std::string_view text) {
  return read_train(parse_json(text, ErrorCode::BadRecipe, "choice"), "");
}

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
