// Models as .nib files (nib_container.hpp has the layout).
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "core/formats/formats.hpp"
#include "core/formats/nib_container.hpp"
#include "core/formats/nib_values.hpp"

namespace nibble::nib {

/// A param as it is coded.
struct Prepared {
  TensorEntry entry;
  Numbers numbers;
  EntropyCoder coder = EntropyCoder::Cabac;
  uint64_t bits = 0;  ///< in a block of its own, in 1 / 65536 bit
};

/// What is coded for a param, which is `weight` where it is one; bit for bit the same when decoded. The coder is the
/// one asked for where there are levels, and Cabac where there are none. `param` has elements.
Prepared prepare(const Param& param, const Weight* weight, EntropyCoder coder);

/// The levels of a param that is promised to have some, by a grid or a codebook, without coding them; none where it is
/// not, or where its values do not keep the promise. `bits` is 0.
std::optional<Prepared> promised_levels(const Param& param, const Weight* weight);

/// Whether a param is left in the file's text and not coded: short arrays that are no weights.
bool stays_in_text(const Param& param, bool is_weight);

/// A finished file, and where its bytes are.
struct File {
  std::vector<uint8_t> bytes;
  size_t header_bytes = 0;           ///< text, tables and checksums
  std::vector<uint64_t> bits;        ///< of every param, in 1 / 65536 bit; 0 for one that is part of the text
  std::vector<EntropyCoder> coders;  ///< of every param
};

/// The same bytes on every machine. `seen` is called for each param that is coded, in the order of the file.
File encode(const Model& model, const std::function<void(size_t, const Prepared&)>& seen = {});

/// What encode() will make of a param, as far as the header says it.
struct Outline {
  TensorEntry entry;
  EntropyCoder coder = EntropyCoder::Cabac;
  size_t bytes = 0;  ///< of its streams, about
};

/// File::header_bytes without coding a tensor, within some bytes: `outline` is asked about each param that is not
/// left in the text, in the order of the file.
size_t estimate_header(const Model& model, const std::function<Outline(size_t param)>& outline);

bool looks_like_nib(std::span<const std::byte> file);
/// Decodes everything and reads the file that comes out; grids, codebooks and masks are promises again. Throws
/// Error{BadFile}, or Error{OutOfMemory, name} with both numbers where the decoded file, or what decoding one block
/// takes, would be larger than `most` bytes: some two hundred bytes may well say a hundred million zeros.
Model read(std::span<const std::byte> file, std::string_view name, size_t most = size_t{1} << 31);

}  // namespace nibble::nib
