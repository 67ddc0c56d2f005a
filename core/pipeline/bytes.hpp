// Where the bytes of a model go, under every way of storing it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/base/context.hpp"
#include "core/model/model.hpp"

namespace nibble {

/// One weight, in bytes; fractions where a coder shares a byte with its neighbours. What stands for levels is none
/// where the weight has none, being neither on a grid nor shared.
struct WeightBytes {
  std::string name;
  size_t dense = 0;                     ///< values in their type
  size_t codes = 0;                     ///< codes, bit-packed
  size_t scales = 0;                    ///< scales and zero points, or a codebook, as they are
  std::optional<double> entropy;        ///< order 0, of the levels
  std::optional<double> huffman;        ///< with tables, the relative indices among it
  std::optional<double> huffman_index;  ///< of those, relative indices
  std::optional<double> rans, cabac;
  /// What cabac spends on significance, signs, magnitudes and remainders, in this order.
  std::optional<std::vector<double>> parts;
  double nib = 0;  ///< in the .nib file, with everything that belongs to it
  EntropyCoder coder = EntropyCoder::Cabac;
};

struct ByteReport {
  std::vector<WeightBytes> weights;  ///< one for each of model.weights
  size_t dense_file = 0;             ///< the model's own format with all values in full
  double others = 0;                 ///< in the .nib file: tensors that are no weights
  double header = 0;                 ///< in the .nib file: graph, tables, recipe, checksums
  double file = 0;                   ///< the .nib file
  bool estimated = false;
};

/// `exact` encodes everything with every coder; without it large weights are coded in part, from 2^14 elements on where
/// they have no levels and from some 2^15 to 2^16 where they have (codec::estimate_cost), which takes some 10 ms a
/// weight, and `parts` are none.
ByteReport measure_bytes(const Model& model, bool exact, const Context& context);

/// JSON as wasm/src/types.ts describes it.
std::string print(const ByteReport& report);

/// A weight's codes, bit-packed as ByteReport counts them: what a general compressor is given to show what it makes of
/// them. The values themselves where it has no levels. Throws Error{BadData} where `weight` is not one of the model's.
std::vector<uint8_t> packed_codes(const Model& model, const std::string& weight);

}  // namespace nibble
