// Interleaved rANS. Four lanes are a vector when decoding: one table entry a symbol gives its frequency, its offset and
// itself, and the lanes that have run low take the next words of the stream by a byte shuffle.
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "core/kernels/kernels.hpp"
#include "core/kernels/simd.hpp"

namespace nibble::kernels {

namespace {

using namespace simd;

constexpr uint32_t kTotal = 1u << kRansBits;
constexpr uint32_t kLowest = 1u << 16;  // of a state

static_assert(std::endian::native == std::endian::little, "words are read as they lie");

/// One entry for each of kTotal slots: the symbol in bits 0 to 7, frequency - 1 in 8 to 19, slot - start in 20 to 31.
void fill_slots(std::span<const uint16_t, 256> frequencies, std::array<uint32_t, kTotal>& slots) {
  uint32_t slot = 0;
  for (uint32_t symbol = 0; symbol < 256; ++symbol) {
    const uint32_t frequency = frequencies[symbol];
    for (uint32_t i = 0; i < frequency && slot < kTotal; ++i, ++slot)
      slots[slot] = symbol | (frequency - 1) << 8 | i << 20;
  }
}

/// Where the words of the lanes that need one go: for each set of lanes the byte shuffle that spreads the next words
/// over them, low halves of 32-bit lanes.
constexpr std::array<std::array<uint8_t, 16>, 16> kSpread = [] {
  std::array<std::array<uint8_t, 16>, 16> all{};
  for (size_t set = 0; set < 16; ++set) {
    uint8_t next = 0;
    for (size_t lane = 0; lane < 4; ++lane) {
      const bool takes = set >> lane & 1;
      all[set][4 * lane] = takes ? next : 0x80;
      all[set][4 * lane + 1] = takes ? next + 1 : 0x80;
      all[set][4 * lane + 2] = all[set][4 * lane + 3] = 0x80;
      next = static_cast<uint8_t>(next + 2 * takes);
    }
  }
  return all;
}();

/// All bits of the lanes in a set.
constexpr std::array<std::array<uint32_t, 4>, 16> kLanes = [] {
  std::array<std::array<uint32_t, 4>, 16> all{};
  for (size_t set = 0; set < 16; ++set) {
    for (size_t lane = 0; lane < 4; ++lane) all[set][lane] = set >> lane & 1 ? ~0u : 0;
  }
  return all;
}();

/// One step of four lanes: returns their symbols, first in the low byte.
[[gnu::always_inline]] inline uint32_t step(U32& state, const uint32_t* slots, const uint8_t*& at) {
  const Lanes slot = lanes(state & U32(kTotal - 1));
  const uint32_t a = slots[slot.a], b = slots[slot.b], c = slots[slot.c], d = slots[slot.d];
  const U32 entry(a, b, c, d);
  state = ((entry >> 8 & U32(kTotal - 1)) + U32(1)) * (state >> kRansBits) + (entry >> 20);
  const uint32_t set = below_2_16(state);
  const U32 words = as<U32>(pick(load_half(at), load_at(kSpread[set].data())));
  const U32 takes = U32::load_unaligned(kLanes[set].data());
  // A lane that takes a word moves up by 16 bits; the others stay.
  state = (state & ~takes) | (((state << 16) | words) & takes);
  at += 2 * std::popcount(set);
  return (a & 0xff) | (b & 0xff) << 8 | (c & 0xff) << 16 | d << 24;
}

}  // namespace

size_t rans_encode(std::span<const uint8_t> symbols, std::span<const uint16_t, 256> frequencies,
                   std::span<uint16_t> words, std::span<uint32_t, kRansLanes> states) {
  struct Symbol {
    uint64_t reciprocal;  // floor(2^32 / frequency)
    uint32_t frequency, start, limit;
  };
  std::array<Symbol, 256> table;
  uint32_t start = 0;
  for (size_t s = 0; s < 256; ++s) {
    const uint32_t frequency = frequencies[s];
    const uint32_t divisor = frequency ? frequency : 1;
    table[s] = {(uint64_t{1} << 32) / divisor, frequency, start, frequency << (32 - kRansBits)};
    start += frequency;
  }
  uint32_t state[kRansLanes];
  for (uint32_t& x : state) x = kLowest;
  uint16_t* out = words.data() + words.size();
  for (size_t i = symbols.size(); i-- > 0;) {
    const Symbol& symbol = table[symbols[i]];
    uint32_t x = state[i % kRansLanes];
    // Without a branch: which symbol lets a word go is as good as random. There is room, with at most one word a
    // symbol.
    const bool full = x >= symbol.limit;
    out[-1] = static_cast<uint16_t>(x);
    out -= full;
    x >>= full ? 16 : 0;
    // x / frequency: the estimate is the quotient or one less.
    uint32_t quotient = static_cast<uint32_t>(x * symbol.reciprocal >> 32);
    uint32_t rest = x - quotient * symbol.frequency;
    if (rest >= symbol.frequency) ++quotient, rest -= symbol.frequency;
    state[i % kRansLanes] = (quotient << kRansBits) + rest + symbol.start;
  }
  std::copy_n(state, kRansLanes, states.begin());
  return static_cast<size_t>(words.data() + words.size() - out);
}

bool rans_decode(std::span<const uint8_t> stream, std::span<const uint32_t, kRansLanes> states,
                 std::span<const uint16_t, 256> frequencies, std::span<uint8_t> symbols) {
  std::array<uint32_t, kTotal> slots{};
  fill_slots(frequencies, slots);
  const uint8_t* at = stream.data();
  const uint8_t* const end = at + stream.size();
  size_t i = 0;
  uint32_t state[kRansLanes];
  std::copy(states.begin(), states.end(), state);
  // A round of all lanes takes at most 32 bytes, of which the last eight are read at once.
  constexpr ptrdiff_t kMostOfRound = 2 * kRansLanes + 8;
  if (symbols.size() >= kRansLanes && end - at >= kMostOfRound) {
    U32 a = U32::load_unaligned(state), b = U32::load_unaligned(state + 4);
    U32 c = U32::load_unaligned(state + 8), d = U32::load_unaligned(state + 12);
    for (; i + kRansLanes <= symbols.size() && end - at >= kMostOfRound; i += kRansLanes) {
      uint32_t four[4];
      four[0] = step(a, slots.data(), at);
      four[1] = step(b, slots.data(), at);
      four[2] = step(c, slots.data(), at);
      four[3] = step(d, slots.data(), at);
      std::memcpy(symbols.data() + i, four, sizeof(four));
    }
    store_at(state, a), store_at(state + 4, b), store_at(state + 8, c), store_at(state + 12, d);
  }
  for (; i < symbols.size(); ++i) {
    uint32_t& x = state[i % kRansLanes];
    const uint32_t entry = slots[x % kTotal];
    symbols[i] = static_cast<uint8_t>(entry);
    x = ((entry >> 8 & (kTotal - 1)) + 1) * (x >> kRansBits) + (entry >> 20);
    if (x >= kLowest) continue;
    uint16_t word = 0;
    if (end - at >= 2) {
      std::memcpy(&word, at, 2);
      at += 2;
    }
    x = x << 16 | word;
  }
  bool whole = at == end;
  for (const uint32_t x : state) whole = whole && x == kLowest;
  return whole;
}

}  // namespace nibble::kernels
