// Canonical Huffman coding of levels, sparse tensors by relative indices: the third step of Deep Compression (Han, Mao,
// Dally, arXiv:1510.00149, sections 2 and 4).
//
// A sparse tensor is a list of entries (how many zeros, then a level): the number of zeros in a fixed number of bits,
// with an entry of level 0 where more zeros follow than fit. Both numbers are Huffman coded, each with a code of its
// own. A dense tensor is its levels, Huffman coded.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nibble::codec {

/// The sizes that Deep Compression reports, in bits.
struct HuffmanSizes {
  int index_bits = 0;   ///< of a relative index before Huffman coding, 1 to 8; 0: not sparse
  size_t entries = 0;   ///< with the fillers
  size_t fillers = 0;   ///< entries of level 0
  uint64_t index = 0;   ///< all relative indices, Huffman coded
  uint64_t values = 0;  ///< all levels, Huffman coded
  uint64_t tables = 0;  ///< the lengths of both codes, and what else stands before
};

/// `index_bits`: 1 to 8 for that width, 0 for dense, -1 for whichever is smallest. `sizes` may be null.
std::vector<uint8_t> huffman_encode(std::span<const int32_t> levels, int index_bits = -1,
                                    HuffmanSizes* sizes = nullptr);
/// False where the bytes cannot have been written by huffman_encode for so many levels; any bytes are safe to decode.
bool huffman_decode(std::span<const uint8_t> bytes, std::span<int32_t> levels);

/// Lengths of an optimal prefix code in which no code is longer than 15 bits, 0 where the count is 0 (Larmore and
/// Hirschberg 1990, package-merge). At most 256 counts. A single symbol gets length 1.
std::vector<uint8_t> code_lengths(std::span<const uint64_t> counts);

}  // namespace nibble::codec
