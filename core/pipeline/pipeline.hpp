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
#include "core/prune/prune.hpp"
#include "core/quantize/quantize.hpp"

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

using Step = std::variant<PruneStep, QuantizeStep>;

struct Recipe {
  uint64_t seed = 0;
  std::vector<Step> steps;
};

/// Throws Error{BadRecipe} with a path such as "steps[2].scheme.bits"; an unknown key is named with the nearest valid
/// one.
Recipe parse_recipe(std::string_view json);
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
/// The report is of a file of `format`, by default the model's own.
Run run(const Recipe& recipe, const Model& model, const Context& context, std::optional<Format> format = std::nullopt);

/// "global", "tensor", "channel", "group".
std::string_view to_string(Granularity granularity);

/// JSON as wasm/src/types.ts and wasm/schemas describe it: Report, and ModelInfo.
std::string print_report(const Report& report);
std::string describe(const Model& model);

}  // namespace nibble
