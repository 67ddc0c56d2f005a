// One apply() per kind of step.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <set>
#include <unordered_map>

#include "core/analyze/curvature.hpp"
#include "core/base/error.hpp"
#include "core/pipeline/pipeline.hpp"

namespace nibble {

/// Fills in everything about the result (report.cpp).
void measure(const Model& before, const Run& run, Format format, const Context& context, Report& report);

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Which of model.weights a step touches, as indices.
std::vector<size_t> chosen_weights(const Model& model, const LayerFilter& layers, const std::string& where) {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < model.weights->size(); ++i) {
    if (layers.matches(model.params[(*model.weights)[i].param].name)) chosen.push_back(i);
  }
  // An exclude that leaves nothing is a choice; an include that finds nothing is a slip of the pen.
  if (chosen.empty() && !layers.include.empty()) {
    const auto any_alone = std::any_of(model.weights->begin(), model.weights->end(), [&](const Weight& weight) {
      return LayerFilter{layers.include, {}}.matches(model.params[weight.param].name);
    });
    if (!any_alone) {
      std::string names;
      for (size_t i = 0; i < std::min<size_t>(3, model.weights->size()); ++i)
        names += (i ? ", " : "") + model.params[(*model.weights)[i].param].name;
      fail(ErrorCode::BadRecipe, where + ".layers.include",
           "matches no weight of this model (its weights: " + names + (model.weights->size() > 3 ? ", ..." : "") + ")");
    }
  }
  return chosen;
}

/// An exclude that shuts out nothing is no error, but rarely what was meant.
void note_idle_excludes(const Model& model, const LayerFilter& layers, StepReport& report) {
  for (const std::string& glob : layers.exclude) {
    const bool any = std::any_of(model.weights->begin(), model.weights->end(), [&](const Weight& weight) {
      return LayerFilter{{glob}, {}}.matches(model.params[weight.param].name);
    });
    if (!any) report.notes.push_back({"layers.exclude", "the glob " + glob + " matches no weight of this model"});
  }
}

/// Progress within one step: steps share the first part of the run equally, the report has the rest.
struct StepClock {
  const Context& context;
  std::string_view phase;
  size_t index, steps;
  void tick(std::string_view item, size_t done, size_t total) const {
    constexpr double kStepsShare = 0.8;
    const double within = total ? static_cast<double>(done) / static_cast<double>(total) : 1;
    context.tick({phase, item, kStepsShare * (static_cast<double>(index) + within) / static_cast<double>(steps)});
  }
};

void apply(const PruneStep& step, const std::string& where, const StepClock& clock, Model& model, StepReport& report) {
  report.kind = "prune";
  note_idle_excludes(model, step.layers, report);
  const std::vector<size_t> chosen = chosen_weights(model, step.layers, where);
  std::vector<const Param*> params;
  std::vector<const Weight*> weights;
  for (const size_t i : chosen) {
    weights.push_back(&(*model.weights)[i]);
    params.push_back(&model.params[weights.back()->param]);
  }
  clock.tick("", 0, 2);
  std::vector<std::pair<size_t, std::string>> notes;
  const std::vector<Mask> masks = find_masks(params, weights, step.choice, notes);
  for (const auto& [weight, message] : notes) report.notes.push_back({params[weight]->name, message});
  size_t zeros = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    Param& param = model.params[weights[i]->param];
    clock.tick(param.name, chosen.size() + i, 2 * chosen.size());
    param = apply_mask(std::move(param), masks[i]);
    zeros += param.value.elements() - param.mask->kept;
    if (param.value.elements() && param.mask->kept == 0) report.notes.push_back({param.name, "nothing of it is left"});
  }
  report.weights = chosen.size();
  report.zeros = zeros;
}

/// Each weight has its own random stream, so that excluding one does not change the others.
uint64_t named_key(uint64_t key, const std::string& name) {
  for (const char c : name) key = mix64(key, static_cast<unsigned char>(c));
  return key;
}

void apply(const QuantizeStep& step, const std::string& where, const StepClock& clock, uint64_t key, Model& model,
           StepReport& report) {
  report.kind = "quantize";
  note_idle_excludes(model, step.layers, report);
  const std::vector<size_t> chosen = chosen_weights(model, step.layers, where);
  std::optional<kernels::Grid> global;
  if (step.scheme.granularity == Granularity::Global) {
    std::vector<FloatView> views;
    views.reserve(chosen.size());
    std::vector<std::span<const float>> pieces;
    for (const size_t i : chosen)
      pieces.push_back(views.emplace_back(model.params[(*model.weights)[i].param].value).values());
    const bool any_mask = std::any_of(chosen.begin(), chosen.end(), [&](size_t i) {
      return model.params[(*model.weights)[i].param].mask.has_value();
    });
    global = find_grid(pieces, step.scheme, step.range, any_mask);
  }
  for (size_t i = 0; i < chosen.size(); ++i) {
    const Weight& weight = (*model.weights)[chosen[i]];
    Param& param = model.params[weight.param];
    clock.tick(param.name, i, chosen.size());
    const uint64_t own_key = named_key(key, param.name);
    param = quantize_weight(std::move(param), weight, step.scheme, step.range, step.rounding, own_key, global);
    const bool wants_channels =
        step.scheme.granularity == Granularity::Channel || step.scheme.granularity == Granularity::Group;
    if (wants_channels && !weight.note.empty()) report.notes.push_back({param.name, weight.note});
  }
  report.weights = chosen.size();
}

void apply(const ClusterStep& step, const std::string& where, const StepClock& clock, uint64_t key, Model& model,
           StepReport& report) {
  report.kind = "cluster";
  note_idle_excludes(model, step.layers, report);
  const std::vector<size_t> chosen = chosen_weights(model, step.layers, where);
  for (size_t i = 0; i < chosen.size(); ++i) {
    Param& param = model.params[(*model.weights)[chosen[i]].param];
    clock.tick(param.name, i, chosen.size());
    const uint64_t own_key = named_key(key, param.name);
    param = cluster_weight(std::move(param), step.bits, step.initial, own_key);
  }
  report.weights = chosen.size();
}

/// Thousandths of a percent are more than a validation split can tell.
std::string percent(double share) {
  const auto hundredths = std::llround(share * 10000);
  const std::string cents = std::to_string(hundredths % 100);
  return std::to_string(hundredths / 100) + "." + (cents.size() < 2 ? "0" : "") + cents + " %";
}

/// Four digits, for a sentence.
std::string rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.4g", value);
  return text;
}

void apply(const TrainStep& step, const std::string& where, const StepClock& clock, uint64_t seed, const Dataset* data,
           const DataOptions& options, Model& model, StepReport& report) {
  report.kind = "train";
  if (!data) fail(ErrorCode::BadRecipe, where, "a step \"train\" needs data to learn from, and none were given");
  // Progress within this step is the trainer's fraction of it.
  const Context inner(seed, [&](const Progress& progress) {
    constexpr size_t kParts = 10000;
    clock.tick(progress.item, static_cast<size_t>(progress.fraction * kParts), kParts);
    return true;
  });
  const Split parts = split(*data, options.shares, options.seed);
  const Preparation preparation = preparation_for(model, *data, options, inner);
  std::optional<TrainProgress> best, last;
  model =
      train(model, *data, parts, preparation, with_loss(step, *data), seed, inner, [&](const TrainProgress& progress) {
        last = progress;
        if (progress.best) best = progress;
      });
  for (const Param& param : model.params)
    report.weights += param.value.shape().size() > 1 && is_real(param.value.dtype());
  std::string message = std::to_string(last->epoch + 1) + " epochs on " + std::to_string(parts.training.size()) +
                        " samples, last batch's loss " + rounded(last->loss);
  if (best && best->validation_loss) {
    message += "; kept are the weights of epoch " + std::to_string(best->epoch + 1) + " with validation loss " +
               rounded(*best->validation_loss);
    if (best->validation_accuracy) message += " and accuracy " + percent(*best->validation_accuracy);
  }
  report.notes.push_back({"data", preparation.reason});
  report.notes.push_back({"training", message});
}

/// Running means and variances of the model's batch normalisations, and which of them are variances: numbers whose
/// error counts by its ratio to them.
std::unordered_map<size_t, bool> find_statistics(const Model& model) {
  std::unordered_map<std::string_view, size_t> params;
  for (const Initializer& initializer : model.graph->initializers) params.emplace(initializer.name, initializer.param);
  std::unordered_map<size_t, bool> statistics;
  for (const Node& node : model.graph->nodes) {
    if (node.op != "BatchNormalization" || !node.domain.empty() || node.inputs.size() < 5) continue;
    for (const size_t input : {3, 4}) {
      if (const auto found = params.find(node.inputs[input]); found != params.end())
        statistics[found->second] = input == 4;
    }
  }
  return statistics;
}

/// Without data: errors relative to the tensor's own values. Biases and normalisation parameters, few and each of them
/// used everywhere, get a quarter of the step.
double relative_curvature(const Param& param, bool is_weight) {
  const FloatView values(param.value);
  const kernels::Moments moments = kernels::moments(values.values(), 0);
  if (!(moments.sum_squares > 0)) return 0;
  return (is_weight ? 1 : 16) * static_cast<double>(moments.finite) / moments.sum_squares;
}

void apply(const EncodeStep& step, const std::string& where, const StepClock& clock, uint64_t key, const Dataset* data,
           const DataOptions& options, Model& model, StepReport& report) {
  report.kind = "encode";
  model.coding = step.coding;
  if (step.lambda == 0) return;
  note_idle_excludes(model, step.layers, report);
  const std::vector<size_t> chosen = chosen_weights(model, step.layers, where);
  std::optional<Curvature> curvature;
  if (step.importance != Importance::None) {
    if (!data)
      fail(ErrorCode::BadRecipe, where + ".importance",
           "needs data (labels are not looked at), and none were given; \"none\" does without");
    const StepClock measuring{clock.context, "curvature", clock.index, clock.steps};
    const Context inner(key, [&](const Progress& progress) {
      constexpr size_t kParts = 10000;
      measuring.tick("", static_cast<size_t>(progress.fraction * kParts / 2), kParts);
      return true;
    });
    const Split parts = split(*data, options.shares, options.seed);
    const Preparation preparation = preparation_for(model, *data, options, inner);
    constexpr size_t kMostSamples = 4096;
    const std::span<const uint32_t> samples =
        std::span(parts.training).first(std::min(parts.training.size(), kMostSamples));
    curvature =
        measure_curvature(model, *data, samples, preparation, step.importance == Importance::Hessian, key, inner);
    report.notes.push_back({"data", preparation.reason});
    report.notes.push_back({"data", "importance from " + std::to_string(samples.size()) + " samples"});
  }

  // Weights, then what else is learnt or measured: biases, normalisation parameters, running statistics.
  std::unordered_map<size_t, const Weight*> weights;
  for (const Weight& weight : *model.weights) weights.emplace(weight.param, &weight);
  std::vector<std::pair<size_t, const Weight*>> params;
  std::unordered_map<size_t, size_t> position;
  for (const size_t i : chosen) {
    params.emplace_back((*model.weights)[i].param, &(*model.weights)[i]);
    position.emplace((*model.weights)[i].param, i);
  }
  // Constants of formulas, sizes and the like are neither, and stay.
  const std::unordered_map<size_t, bool> statistics = find_statistics(model);
  const std::vector<size_t> learnt = find_learnt(model);
  std::set<size_t> others(learnt.begin(), learnt.end());
  for (const auto& [param, is_variance] : statistics) others.insert(param);
  for (const size_t i : others) {
    const Param& param = model.params[i];
    const bool small = param.value.shape().size() == 1 && is_real(param.value.dtype()) && !weights.count(i);
    if (small && step.layers.include.empty() && step.layers.matches(param.name)) params.emplace_back(i, nullptr);
  }

  for (size_t done = 0; done < params.size(); ++done) {
    const auto [index, weight] = params[done];
    Param& param = model.params[index];
    clock.tick(param.name, params.size() + done, 2 * params.size());
    ErrorCost cost;
    if (!curvature) {
      cost.mean = relative_curvature(param, weight != nullptr);
    } else if (const std::vector<float>& diagonal = curvature->diagonal[index]; !diagonal.empty()) {
      cost.diagonal = diagonal;
      cost.mean = kernels::moments(diagonal, 0).sum / static_cast<double>(diagonal.size());
      if (weight && !curvature->inputs[position[index]].values.empty()) {
        const InputMoments& inputs = curvature->inputs[position[index]];
        cost.moments = inputs.values;
        cost.groups = inputs.groups;
        cost.columns = inputs.columns;
      } else if (weight && step.importance == Importance::Hessian) {
        report.notes.push_back(
            {param.name, "how its inputs go together is not measured; errors are counted one by one"});
      }
    } else {
      if (weight) report.notes.push_back({param.name, "the loss has no gradient here; it is left as it is"});
      continue;
    }
    if (!(cost.mean > 0)) {
      if (weight) report.notes.push_back({param.name, "nothing depends on it, or it is all 0; it is left as it is"});
      continue;
    }
    const auto statistic = statistics.find(index);
    if (!weight && statistic != statistics.end() && statistic->second) {
      param = shorten_mantissas(param, cost, step.lambda);
      continue;
    }
    std::string note;
    if (std::optional<Param> rounded = round_by_rate(param, weight, cost, step.lambda, note)) {
      const bool had_grid = param.grid.has_value();
      param = std::move(*rounded);
      if (weight && had_grid) param = shorten_scales(param, *weight, cost, step.lambda);
      report.weights += weight != nullptr;
    }
    if (!note.empty()) report.notes.push_back({param.name, note});
  }
}

}  // namespace

TrainChoice with_loss(const TrainStep& step, const Dataset& data) {
  TrainChoice choice = step.choice;
  choice.loss = step.loss.value_or(data.targets.exists() ? Loss::MeanSquared : Loss::CrossEntropy);
  return choice;
}

namespace {

/// What a .nib file tells of how it was made.
void add_history(const Model& before, const Recipe& recipe, Model& model) {
  History history;
  if (before.history) history = *before.history;
  if (!before.history) history.file_bytes = before.header->file_bytes;
  if (!recipe.steps.empty()) history.recipes.push_back(print_recipe(recipe));
  double noise = 0, signal = 0;
  for (const Weight& weight : *model.weights) {
    const FloatView old_values(before.params[weight.param].value), new_values(model.params[weight.param].value);
    const kernels::Difference difference = kernels::difference(old_values.values(), new_values.values());
    noise += difference.sum_squared_error;
    signal += difference.sum_squared_before;
  }
  if (signal > 0) history.noise = static_cast<float>(noise / signal);
  model.history = std::make_shared<const History>(std::move(history));
}

}  // namespace

Run run(const Recipe& recipe, const Model& model, const Context& context, std::optional<Format> format,
        const Dataset* data, const DataOptions& options) {
  const double start = now();
  Run result{model, {}};
  result.report.recipe = recipe;
  // How the file that was opened was coded stands until there is something else to code.
  if (!recipe.steps.empty()) result.model.coding = {};
  const Context seeded(recipe.seed);
  for (size_t i = 0; i < recipe.steps.size(); ++i) {
    const double step_start = now();
    const std::string where = "steps[" + std::to_string(i) + "]";
    StepReport report;
    if (const auto* prune = std::get_if<PruneStep>(&recipe.steps[i])) {
      apply(*prune, where, {context, "prune", i, recipe.steps.size()}, result.model, report);
    } else if (const auto* quantize = std::get_if<QuantizeStep>(&recipe.steps[i])) {
      apply(*quantize, where, {context, "quantize", i, recipe.steps.size()}, seeded.random_key(where), result.model,
            report);
    } else if (const auto* cluster = std::get_if<ClusterStep>(&recipe.steps[i])) {
      apply(*cluster, where, {context, "cluster", i, recipe.steps.size()}, seeded.random_key(where), result.model,
            report);
    } else if (const auto* encode = std::get_if<EncodeStep>(&recipe.steps[i])) {
      apply(*encode, where, {context, "encode", i, recipe.steps.size()}, seeded.random_key(where), data, options,
            result.model, report);
    } else {
      apply(std::get<TrainStep>(recipe.steps[i]), where, {context, "train", i, recipe.steps.size()},
            seeded.random_key(where), data, options, result.model, report);
    }
    report.seconds = now() - step_start;
    result.report.steps.push_back(std::move(report));
  }
  add_history(model, recipe, result.model);
  measure(model, result, format.value_or(model.header->format), context, result.report);
  result.report.seconds = now() - start;
  return result;
}

}  // namespace nibble
