// The JSON form of Statistics, which the report and the description share.
#pragma once

#include "core/analyze/analyze.hpp"
#include "core/base/json.hpp"

namespace nibble {

inline Json to_json(const Statistics& statistics) {
  return {{"min", statistics.min},
          {"max", statistics.max},
          {"mean", statistics.mean},
          {"std", statistics.std},
          {"sparsity", statistics.sparsity()},
          {"nan", statistics.nan},
          {"infinite", statistics.infinite}};
}

}  // namespace nibble
