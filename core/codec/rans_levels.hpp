// Levels as interleaved rANS with a table of frequencies: not the smallest, but decoded at hundreds of megabytes a
// second.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble::codec {

std::vector<uint8_t> rans_encode_levels(std::span<const int32_t> levels);
/// False where the bytes cannot have been written for so many levels; any bytes are safe to decode.
bool rans_decode_levels(std::span<const uint8_t> bytes, std::span<int32_t> levels);

/// Frequencies that sum to 2^kernels::kRansBits, near the counts' shares and at least 1 where a count is not 0. 256
/// counts, two of them or more not 0.
void rans_frequencies(std::span<const uint64_t, 256> counts, std::span<uint16_t, 256> frequencies);

}  // namespace nibble::codec
