// Looks at weights: statistics, errors between two versions of one, and the arrays that pictures are drawn from.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/kernels/kernels.hpp"
#include "core/model/model.hpp"

namespace nibble {

/// Over the finite values; all 0 where there is none.
struct Statistics {
  double min = 0, max = 0, mean = 0;
  double std = 0;  ///< of the population
  size_t elements = 0, zeros = 0, nan = 0, infinite = 0;
  double sparsity() const { return elements ? static_cast<double>(zeros) / static_cast<double>(elements) : 0; }
};
Statistics statistics_of(std::span<const float> values);

/// What lies between two versions of the same values, over the positions where both are finite.
struct WeightError {
  double mse = 0;
  std::optional<double> sqnr_db;  ///< 10 log10(sum before^2 / sum error^2); none where the error is 0
  double max_abs_error = 0;
  std::optional<double> cosine;  ///< none where one side is all 0
};
WeightError error_from(const kernels::Difference& difference);
/// Adds `other` to `sum`, as if the two arrays had been one.
void add(kernels::Difference& sum, const kernels::Difference& other);

struct PictureSize {
  size_t bins = 128;                 ///< 2 to 4096
  size_t rows = 128, columns = 256;  ///< at most 4096 each
  size_t channel = 0;                ///< whose grid is drawn, where channels have their own
};

struct WeightPicture {
  float lo = 0, hi = 0;  ///< of both histograms
  std::vector<uint32_t> before, after;
  std::vector<float> levels;
  size_t map_rows = 0, map_columns = 0, weight_rows = 0, weight_columns = 0;
  float map_max = 0;
  std::vector<float> cells;                  ///< mean absolute error, [map_rows, map_columns]
  std::vector<float> mse, sqnr_db, max_abs;  ///< per output channel; sqnr_db is infinite where the error is 0
};

/// Everything drawn about one weight. `weight` belongs to both models.
WeightPicture picture_of(const Param& before, const Param& after, const Weight& weight, const PictureSize& size);

}  // namespace nibble
