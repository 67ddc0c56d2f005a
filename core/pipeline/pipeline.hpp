// The one idea: Model --Step--> Model, and a Report beside it. A recipe is a list of steps; its JSON form, the
// TypeScript type (wasm/src/types.ts), the command's options and the page's form have the same names.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/analyze/analyze.hpp"
#include "core/base/context.hpp"
#include "core/formats/formats.hpp"
#include "core/pipeline/behaviour.hpp"
#include "core/prune/prune.hpp"
#include "core/quantize/quantize.hpp"
#include "core/quantize/rate_distortion.hpp"
#include "core/train/train.hpp"

namespace nibble {

/// Globs over weight names: `*` any run, `?` one byte, everything else itself. Empty include: all.
struct LayerFilter {
  std::vector<std::string> include, exclude;
  bool matches(std::string_view name) const;
};

struct PruneStep {
  PruneChoice choice;
  LayerFilter layers;
};

struct QuantizeStep {
  QuantScheme scheme;
  RangeChoice range;
  Rounding rounding = Rounding::Nearest;
  LayerFilter layers;
};

struct TrainStep {
  TrainChoice choice;
  std::optional<Loss> loss;  ///< none: what the data have
};

struct ClusterStep {
  int bits = 4;  ///< 1 to 8
  InitialCentroids initial = InitialCentroids::Linear;
  LayerFilter layers;
};

/// What an error is weighed with when lambda is not 0.
enum class Importance : uint8_t {
  None,      ///< the tensor's own mean square: errors relative to it
  Diagonal,  ///< curvature of the loss along each weight, from data
  Hessian,   ///< and how inputs of a layer go together, so that later weights make up for earlier ones
};

/// How a .nib file of the result is coded, and whether its levels are chosen for that.
struct EncodeStep {
  Coding coding;
  double lambda = 0;  ///< loss that a bit is worth: nats, or with Importance::None shares of a tensor's square; 0: none
  Importance importance = Importance::None;
  LayerFilter layers;
};

using Step = std::variant<PruneStep, QuantizeStep, ClusterStep, TrainStep, EncodeStep>;

struct Recipe {
  uint64_t seed = 0;
  std::vector<Step> steps;
};

/// Throws Error{BadRecipe} with a path such as "steps[2].scheme.bits"; an unknown key is named with the nearest valid
/// one.
Recipe parse_recipe(std::string_view json);
/// A TrainChoice by itself, as training that is not part of a recipe is asked for.
TrainStep parse_train(std::string_view json);
/// The choice with the loss that the data want where none was asked for.
TrainChoice with_loss(const TrainStep& step, const Dataset& data);
/// With every default filled in. parse_recipe(print_recipe(r)) is r.
std::string print_recipe(const Recipe& recipe);

struct Note {
  std::string where, message;
};

struct WeightReport {
  std::string name;
  size_t elements = 0;
  int bits = 0;
  std::optional<QuantScheme> scheme;  ///< none where not quantized
  size_t scales = 0;
  std::optional<size_t> clusters;  ///< values that are shared; none where they are not
  Statistics before, after;
  WeightError error;
  size_t dense_bytes = 0, packed_bytes = 0;
  Storage storage;
};

struct StepReport {
  std::string kind;
  double seconds = 0;
  size_t weights = 0;
  std::optional<size_t> zeros;
  std::vector<Note> notes;
};

struct Report {
  Recipe recipe;
  double seconds = 0;
  WeightError total;
  size_t elements = 0, zeros = 0, dense_bytes = 0, packed_bytes = 0;
  Format format = Format::Onnx;
  size_t file_before = 0, file_after = 0;
  int64_t opset_before = 0, opset_after = 0;
  std::vector<WeightReport> weights;
  std::vector<StepReport> steps;
  std::vector<Note> notes;
};

struct Run {
  Model model;
  Report report;
};

/// Applies the steps in order; `model` stays as it is. Throws Error{BadRecipe} where an include matches no weight.
/// The report is of a file of `format`, by default the model's own. A step "train" learns from `data`, split and
/// prepared as `options` say, and so does a step "encode" with an importance; without data they throw
/// Error{BadRecipe}.
Run run(const Recipe& recipe, const Model& model, const Context& context, std::optional<Format> format = std::nullopt,
        const Dataset* data = nullptr, const DataOptions& options = {});

/// "global", "tensor", "channel", "group".
std::string_view to_string(Granularity granularity);

/// JSON as wasm/src/types.ts and wasm/schemas describe it: Report, and ModelInfo.
std::string print_report(const Report& report);
std::string describe(const Model& model);

}  // namespace nibble
