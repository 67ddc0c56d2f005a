// Stream: length of the side information (varint), side information (alphabet and frequencies, range coded), the lanes'
// states (4 bytes each), length of the words in bytes (varint), the words, the extra bits of a wide alphabet.
#include "core/codec/rans_levels.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/codec/tokens.hpp"
#include "core/kernels/kernels.hpp"

namespace nibble::codec {

namespace {

using kernels::kRansBits;
using kernels::kRansLanes;
constexpr uint32_t kTotal = 1u << kRansBits;

/// Frequencies as a number of bits and the bits below the leading one.
template <class Coder>
void code_frequencies(Coder& coder, uint32_t symbols, std::span<uint16_t, 256> frequencies) {
  NumberModel<Coder> widths(coder);
  for (uint32_t symbol = 0; symbol < symbols; ++symbol) {
    const uint32_t frequency = frequencies[symbol];
    const auto width = static_cast<int>(widths.code(static_cast<uint32_t>(std::bit_width(frequency))));
    uint32_t coded = width ? 1u << (width - 1) : 0;
    if (width > 1) coded |= coder.bits(frequency & (coded - 1), width - 1);
    frequencies[symbol] = static_cast<uint16_t>(coded);
  }
}

}  // namespace

void rans_frequencies(std::span<const uint64_t, 256> counts, std::span<uint16_t, 256> frequencies) {
  uint64_t all = 0;
  for (const uint64_t count : counts) all += count;
  uint32_t sum = 0;
  for (size_t i = 0; i < 256; ++i) {
    const uint64_t share = (counts[i] * kTotal + all / 2) / all;
    frequencies[i] = static_cast<uint16_t>(counts[i] ? std::clamp<uint64_t>(share, 1, kTotal - 1) : 0);
    sum += frequencies[i];
  }
  // Rounding leaves a few too many or too few: they go where they cost least, by the derivative count / frequency.
  while (sum != kTotal) {
    const bool less = sum > kTotal;
    size_t best = 256;
    for (size_t i = 0; i < 256; ++i) {
      if (frequencies[i] < (less ? 2 : 1) || (!less && frequencies[i] == kTotal - 1)) continue;
      if (best == 256) {
        best = i;
        continue;
      }
      const uint64_t here = counts[i] * frequencies[best], there = counts[best] * frequencies[i];
      if (less ? here < there : here > there) best = i;
    }
    frequencies[best] = static_cast<uint16_t>(frequencies[best] + (less ? -1 : 1));
    sum += less ? ~0u : 1;
  }
}

std::vector<uint8_t> rans_encode_levels(std::span<const int32_t> levels) {
  const Alphabet alphabet = Alphabet::of(levels);
  std::vector<uint8_t> symbols;
  std::array<uint64_t, 256> counts{};
  BitWriter extra;
  if (alphabet.direct) {  // most tensors: nothing but a subtraction, which is worth a loop of its own
    symbols.resize(levels.size());
    for (size_t i = 0; i < levels.size(); ++i) symbols[i] = static_cast<uint8_t>(levels[i] - alphabet.lowest);
    for (const uint8_t symbol : symbols) ++counts[symbol];
  } else {
    symbols.reserve(levels.size());
    for (const int32_t level : levels) {
      symbols.push_back(alphabet.symbol(level));
      ++counts[symbols.back()];
      extra.put(alphabet.extra(level), alphabet.extra_bits(symbols.back()));
    }
  }
  std::vector<uint8_t> side, out;
  RangeEncoder coder(side);
  code_alphabet(coder, alphabet);
  std::array<uint16_t, 256> frequencies{};
  const bool constant = alphabet.symbols == 1;
  if (!constant) {
    // Levels of a wide alphabet may differ in their extra bits alone; frequencies want two symbols.
    if (counts[symbols[0]] == symbols.size()) ++counts[symbols[0] ^ 1];
    rans_frequencies(counts, frequencies);
    code_frequencies(coder, alphabet.symbols, std::span(frequencies));
  }
  coder.finish();
  put_varint(out, side.size());
  out.insert(out.end(), side.begin(), side.end());
  if (constant) return out;

  std::vector<uint16_t> words(symbols.size());
  std::array<uint32_t, kRansLanes> states;
  const size_t used = kernels::rans_encode(symbols, frequencies, words, states);
  const auto append = [&](const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    out.insert(out.end(), bytes, bytes + size);
  };
  append(states.data(), sizeof(states));
  put_varint(out, 2 * used);
  append(words.data() + words.size() - used, 2 * used);
  const std::vector<uint8_t> rest = extra.take();
  append(rest.data(), rest.size());
  return out;
}

bool rans_decode_levels(std::span<const uint8_t> bytes, std::span<int32_t> levels) {
  uint64_t side_size = 0;
  if (!take_varint(bytes, side_size) || side_size > bytes.size()) return false;
  RangeDecoder coder(bytes.first(static_cast<size_t>(side_size)));
  bytes = bytes.subspan(static_cast<size_t>(side_size));
  const Alphabet alphabet = code_alphabet(coder, {});
  if (alphabet.symbols == 1) {
    std::fill(levels.begin(), levels.end(), alphabet.level(0, 0));
    return bytes.empty();
  }
  std::array<uint16_t, 256> frequencies{};
  code_frequencies(coder, alphabet.symbols, std::span(frequencies));
  uint32_t sum = 0;
  for (const uint16_t frequency : frequencies) sum += frequency;
  std::array<uint32_t, kRansLanes> states;
  if (sum != kTotal || bytes.size() < sizeof(states)) return false;
  std::memcpy(states.data(), bytes.data(), sizeof(states));
  bytes = bytes.subspan(sizeof(states));
  uint64_t words_size = 0;
  if (!take_varint(bytes, words_size) || words_size > bytes.size()) return false;

  // The symbols go into the last quarter of the levels' own room; level i is written where no symbol after i lies.
  uint8_t* const room = reinterpret_cast<uint8_t*>(levels.data());
  const std::span<uint8_t> symbols(room + 3 * levels.size(), levels.size());
  if (!kernels::rans_decode(bytes.first(static_cast<size_t>(words_size)), states, frequencies, symbols)) return false;
  if (alphabet.direct) {
    for (size_t i = 0; i < levels.size(); ++i) {
      const int32_t level = alphabet.lowest + symbols[i];
      std::memcpy(room + 4 * i, &level, 4);
    }
    return true;
  }
  BitReader extra(bytes.subspan(static_cast<size_t>(words_size)));
  for (size_t i = 0; i < levels.size(); ++i) {
    const uint8_t symbol = symbols[i];
    const int32_t level = alphabet.level(symbol, extra.take(alphabet.extra_bits(symbol)));
    std::memcpy(room + 4 * i, &level, 4);
  }
  return true;
}

}  // namespace nibble::codec
