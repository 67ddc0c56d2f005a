// One apply() per kind of step.
#include <algorithm>
#include <chrono>
#include <cmath>

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
    // Each weight has its own stream, so that excluding one does not change the others.
    uint64_t own_key = key;
    for (const char c : param.name) own_key = mix64(own_key, static_cast<unsigned char>(c));
    param = quantize_weight(std::move(param), weight, step.scheme, step.range, step.rounding, own_key, global);
    const bool wants_channels =
        step.scheme.granularity == Granularity::Channel || step.scheme.granularity == Granularity::Group;
    if (wants_channels && !weight.note.empty()) report.notes.push_back({param.name, weight.note});
  }
  report.weights = chosen.size();
}

}  // namespace

Run run(const Recipe& recipe, const Model& model, const Context& context, std::optional<Format> format) {
  const double start = now();
  Run result{model, {}};
  result.report.recipe = recipe;
  const Context seeded(recipe.seed);
  for (size_t i = 0; i < recipe.steps.size(); ++i) {
    const double step_start = now();
    const std::string where = "steps[" + std::to_string(i) + "]";
    StepReport report;
    if (const auto* prune = std::get_if<PruneStep>(&recipe.steps[i])) {
      apply(*prune, where, {context, "prune", i, recipe.steps.size()}, result.model, report);
    } else {
      apply(std::get<QuantizeStep>(recipe.steps[i]), where, {context, "quantize", i, recipe.steps.size()},
            seeded.random_key(where), result.model, report);
    }
    report.seconds = now() - step_start;
    result.report.steps.push_back(std::move(report));
  }
  measure(model, result, format.value_or(model.header->format), context, result.report);
  result.report.seconds = now() - start;
  return result;
}

}  // namespace nibble
