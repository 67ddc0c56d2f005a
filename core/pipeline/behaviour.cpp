#include "core/pipeline/behaviour.hpp"

#include <numeric>

#include "core/base/error.hpp"
#include "core/pipeline/json_object.hpp"

namespace nibble {

namespace {

const Words<Part> kParts = {{"calibration", Part::Calibration},
                            {"training", Part::Training},
                            {"validation", Part::Validation},
                            {"test", Part::Test},
                            {"all", Part::All}};
const Words<SampleLayout> kLayouts = {{"features", SampleLayout::Features},
                                      {"hw", SampleLayout::Hw},
                                      {"chw", SampleLayout::Chw},
                                      {"hwc", SampleLayout::Hwc}};

std::vector<float> numbers(const Object& object, std::string_view key) {
  const Json& list = object[key];
  if (!list.is_array() || list.empty()) object.bad(object.at(key), "expected a list of numbers, got " + shown(list));
  std::vector<float> out;
  for (const Json& entry : list) {
    if (!entry.is_number()) object.bad(object.at(key), "expected a list of numbers, got " + shown(list));
    out.push_back(entry.get<float>());
  }
  return out;
}

Preparation read_preparation(const Json& json) {
  const Object object(json, "preparation", {"shape", "layout", "scale", "mean", "std", "reason"}, ErrorCode::BadData);
  Preparation out;
  for (const char* key : {"shape", "layout", "scale", "mean", "std"}) {
    if (!object.has(key)) object.bad(object.at(key), "is missing");
  }
  if (!object["shape"].is_array())
    object.bad(object.at("shape"), "expected a list of whole numbers, got " + shown(object["shape"]));
  for (const Json& extent : object["shape"]) {
    if (!extent.is_number_unsigned() || extent.get<uint64_t>() == 0 || extent.get<uint64_t>() > (1u << 24))
      object.bad(object.at("shape"), "expected whole numbers above 0, got " + shown(object["shape"]));
    out.shape.push_back(extent.get<size_t>());
  }
  out.layout = object.choice("layout", kLayouts, SampleLayout::Features);
  out.scale = static_cast<float>(object.number("scale", -3.4e38, 3.4e38, 1));
  out.mean = numbers(object, "mean");
  out.std = numbers(object, "std");
  if (out.mean.size() != out.std.size())
    object.bad(object.at("std"), "expected as many numbers as mean has, " + std::to_string(out.mean.size()) + ", got " +
                                     std::to_string(out.std.size()));
  for (const float value : out.std) {
    if (value == 0) object.bad(object.at("std"), "must not be 0: the input is divided by it");
  }
  out.reason = object.has("reason") && object["reason"].is_string() ? object["reason"].get<std::string>()
                                                                    : "as it was asked for";
  return out;
}

/// A number that JSON can hold: null for infinities and NaN.
Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json to_json(const Preparation& preparation) {
  return {{"shape", preparation.shape}, {"layout", word_of(kLayouts, preparation.layout)},
          {"scale", preparation.scale}, {"mean", preparation.mean},
          {"std", preparation.std},     {"reason", preparation.reason}};
}

Json to_json(const Evaluation& evaluation, const Dataset& data, const Preparation& preparation) {
  const bool has_loss = data.labelled() || data.targets.exists();
  return {{"samples", evaluation.samples},
          {"classes", evaluation.classes},
          {"loss", has_loss ? finite(evaluation.loss) : Json(nullptr)},
          {"accuracy", evaluation.accuracy ? Json(*evaluation.accuracy) : Json(nullptr)},
          {"seconds", evaluation.seconds},
          {"preparation", to_json(preparation)}};
}

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

DataOptions parse_data_options(std::string_view text) {
  DataOptions options;
  if (text.empty()) return options;
  const Json json = parse_json(text, ErrorCode::BadData, "options");
  const Object object(json, "", {"split", "limit", "seed", "validation", "test", "preparation"}, ErrorCode::BadData);
  options.part = object.choice("split", kParts, Part::Test);
  if (object.has("limit")) options.limit = static_cast<size_t>(object.integer("limit", 1, int64_t{1} << 40, 1));
  options.seed = static_cast<uint64_t>(object.integer("seed", 0, (int64_t{1} << 53) - 1, 0));
  options.shares.validation = object.number("validation", 0, 0.5, options.shares.validation);
  options.shares.test = object.number("test", 0, 0.5, options.shares.test);
  if (object.has("preparation")) options.preparation = read_preparation(object["preparation"]);
  return options;
}

std::vector<uint32_t> chosen_samples(const Dataset& data, const DataOptions& options) {
  Split parts = split(data, options.shares, options.seed);
  std::vector<uint32_t> chosen;
  switch (options.part) {
    case Part::Calibration: chosen = std::move(parts.calibration); break;
    case Part::Training: chosen = std::move(parts.training); break;
    case Part::Validation: chosen = std::move(parts.validation); break;
    case Part::Test: chosen = std::move(parts.test); break;
    case Part::All: chosen.resize(data.size); std::iota(chosen.begin(), chosen.end(), 0u);
  }
  if (chosen.empty()) {
    fail(ErrorCode::BadData, "data",
         "the split \"" + std::string(word_of(kParts, options.part)) +
             "\" has no samples; choose another one, or \"all\"");
  }
  if (options.limit && *options.limit < chosen.size()) chosen.resize(*options.limit);
  return chosen;
}

Preparation preparation_for(const Model& model, const Dataset& data, const DataOptions& options,
                            const Context& context) {
  if (options.preparation) {
    check(*options.preparation, data);
    return *options.preparation;
  }
  return guess_preparation(model, data, split(data, options.shares, options.seed).calibration, context);
}

std::string describe(const Dataset& data, const DataOptions& options) {
  const Split parts = split(data, options.shares, options.seed);
  const size_t targets = data.targets.exists() && data.size ? data.targets.elements() / data.size : 0;
  return text_of({{"name", data.name},
                  {"samples", data.size},
                  {"shape", data.shape},
                  {"layout", word_of(kLayouts, data.layout)},
                  {"dtype", to_string(data.dtype)},
                  {"labelled", data.labelled()},
                  {"classes", data.classes},
                  {"class_names", data.class_names},
                  {"targets", targets},
                  {"splits",
                   {{"calibration", parts.calibration.size()},
                    {"training", parts.training.size()},
                    {"validation", parts.validation.size()},
                    {"test", parts.test.size()}}}});
}

std::string print(const Preparation& preparation) { return text_of(to_json(preparation)); }

std::string print(const Evaluation& evaluation, const Dataset& data, const Preparation& preparation) {
  return text_of(to_json(evaluation, data, preparation));
}

std::string print(const Comparison& comparison, const Dataset& data, const Preparation& preparation) {
  Json activations = Json::array();
  for (const ActivationError& error : comparison.activations) {
    activations.push_back({{"name", error.name},
                           {"node", error.node},
                           {"op", error.op},
                           {"weights", error.weights},
                           {"shape", error.shape},
                           {"mse", finite(error.mse)},
                           {"sqnr_db", finite(error.sqnr_db)},
                           {"max_abs_error", finite(error.max_abs)},
                           {"cosine", finite(error.cosine)}});
  }
  const bool classes = !comparison.before.predictions.empty();
  return text_of({{"before", to_json(comparison.before, data, preparation)},
                  {"after", to_json(comparison.after, data, preparation)},
                  {"activations", std::move(activations)},
                  {"agreement", classes ? Json(comparison.agreement) : Json(nullptr)}});
}

std::string print(const std::vector<TrainProgress>& progress, const Dataset& data) {
  Json list = Json::array();
  const auto maybe = [](const std::optional<double>& value) { return value ? finite(*value) : Json(nullptr); };
  for (const TrainProgress& entry : progress) {
    list.push_back({{"epoch", entry.epoch},
                    {"epochs", entry.epochs},
                    {"batch", entry.batch},
                    {"batches", entry.batches},
                    {"step", entry.step},
                    {"steps", entry.steps},
                    {"loss", finite(entry.loss)},
                    {"accuracy", data.labelled() ? Json(entry.accuracy) : Json(nullptr)},
                    {"learning_rate", entry.learning_rate},
                    {"seconds", entry.seconds},
                    {"validation_loss", maybe(entry.validation_loss)},
                    {"validation_accuracy", maybe(entry.validation_accuracy)},
                    {"best", entry.best},
                    {"done", entry.done}});
  }
  return text_of(list);
}

}  // namespace nibble
