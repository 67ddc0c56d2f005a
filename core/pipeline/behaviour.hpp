// Which data, how they are split and prepared, and what comes out of running models on them, as JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/analyze/evaluate.hpp"
#include "core/train/train.hpp"

namespace nibble {

enum class Part : uint8_t { Calibration, Training, Validation, Test, All };

/// DataOptions of wasm/src/types.ts.
struct DataOptions {
  Part part = Part::Test;
  std::optional<size_t> limit;  ///< at most so many samples, the first of the part
  uint64_t seed = 0;            ///< of the splits
  SplitChoice shares;
  std::optional<Preparation> preparation;  ///< none: guessed
};

/// "" gives the defaults. Throws Error{BadData} with the place of what is wrong.
DataOptions parse_data_options(std::string_view json);

/// The samples that are meant, as indices into the data.
std::vector<uint32_t> chosen_samples(const Dataset& data, const DataOptions& options);

/// What the options say, or what guess_preparation() finds on the calibration split.
Preparation preparation_for(const Model& model, const Dataset& data, const DataOptions& options,
                            const Context& context);

// JSON as wasm/src/types.ts describes it: DataInfo, Preparation, EvaluationReport, ComparisonReport, TrainProgress.
std::string describe(const Dataset& data, const DataOptions& options);
std::string print(const Preparation& preparation);
std::string print(const Evaluation& evaluation, const Dataset& data, const Preparation& preparation);
std::string print(const Comparison& comparison, const Dataset& data, const Preparation& preparation);
std::string print(const std::vector<TrainProgress>& progress, const Dataset& data);

}  // namespace nibble
