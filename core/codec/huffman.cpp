#include "core/codec/huffman.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/codec/tokens.hpp"

namespace nibble::codec {

namespace {

constexpr int kMostLength = 15;

/// The codes of given lengths: shorter codes first, equal ones in the order of their symbols (canonical). Bits are
/// reversed, as they are written lowest first.
struct Code {
  std::array<uint8_t, 256> length{};
  std::array<uint16_t, 256> bits{};

  explicit Code(std::span<const uint8_t> lengths) {
    std::copy(lengths.begin(), lengths.end(), length.begin());
    uint32_t next = 0;
    for (int size = 1; size <= kMostLength; ++size, next <<= 1) {
      for (size_t symbol = 0; symbol < lengths.size(); ++symbol) {
        if (length[symbol] != size) continue;
        uint32_t reversed = 0;
        for (int i = 0; i < size; ++i) reversed |= (next >> i & 1) << (size - 1 - i);
        bits[symbol] = static_cast<uint16_t>(reversed);
        ++next;
      }
    }
  }
};

/// All codes by their first kMostLength bits: symbol and length.
class DecodingTable {
 public:
  explicit DecodingTable(std::span<const uint8_t> lengths) : entries_(size_t{1} << kMostLength) {
    const Code code(lengths);
    for (size_t symbol = 0; symbol < lengths.size(); ++symbol) {
      if (code.length[symbol] == 0) continue;
      for (size_t at = code.bits[symbol]; at < entries_.size(); at += size_t{1} << code.length[symbol])
        entries_[at] = {static_cast<uint8_t>(symbol), code.length[symbol]};
    }
  }
  /// Bits that no code begins with, in a damaged stream, are symbol 0 of length 1.
  uint8_t decode(BitReader& reader) const {
    const Entry entry = entries_[reader.peek(kMostLength)];
    reader.skip(entry.length);
    return entry.symbol;
  }

 private:
  struct Entry {
    uint8_t symbol = 0, length = 1;
  };
  std::vector<Entry> entries_;
};

/// True where no two codes can be confused: the lengths are those of a prefix code.
bool is_prefix_code(std::span<const uint8_t> lengths) {
  uint32_t used = 0;
  for (const uint8_t length : lengths) used += length ? 1u << (kMostLength - length) : 0;
  return used > 0 && used <= 1u << kMostLength;
}

/// A level with the zeros before it.
struct Entries {
  std::vector<uint8_t> gaps;
  std::vector<int32_t> levels;
  size_t fillers = 0;
};

Entries entries_of(std::span<const int32_t> levels, int index_bits) {
  const size_t most = (size_t{1} << index_bits) - 1;
  Entries entries;
  size_t zeros = 0;
  for (const int32_t level : levels) {
    if (level == 0 && zeros < most) {
      ++zeros;
      continue;
    }
    entries.gaps.push_back(static_cast<uint8_t>(zeros));
    entries.levels.push_back(level);
    entries.fillers += level == 0;
    zeros = 0;
  }
  return entries;  // zeros at the end need no entry
}

template <class Number>
std::vector<uint8_t> lengths_for(const std::vector<Number>& symbols, size_t count) {
  std::vector<uint64_t> counts(count, 0);
  for (const Number symbol : symbols) ++counts[symbol];
  return code_lengths(counts);
}

std::vector<uint8_t> encode_as(std::span<const int32_t> levels, int index_bits, HuffmanSizes& sizes) {
  Entries entries;
  if (index_bits) {
    entries = entries_of(levels, index_bits);
  } else {
    entries.levels.assign(levels.begin(), levels.end());
  }
  const Alphabet alphabet = Alphabet::of(entries.levels);
  std::vector<uint8_t> symbols;
  symbols.reserve(entries.levels.size());
  for (const int32_t level : entries.levels) symbols.push_back(alphabet.symbol(level));
  const std::vector<uint8_t> value_lengths = lengths_for(symbols, alphabet.symbols);
  const std::vector<uint8_t> gap_lengths = lengths_for(entries.gaps, size_t{1} << index_bits);

  std::vector<uint8_t> side;
  RangeEncoder coder(side);
  coder.bits(static_cast<uint32_t>(index_bits), 4);
  code_alphabet(coder, alphabet);
  NumberModel<RangeEncoder> numbers(coder), gap_numbers(coder);
  for (const uint8_t length : value_lengths) numbers.code(length);
  if (index_bits) {
    for (const uint8_t length : gap_lengths) gap_numbers.code(length);
  }
  coder.finish();

  BitWriter gaps, values;
  const Code gap_code(gap_lengths), value_code(value_lengths);
  for (const uint8_t gap : entries.gaps) gaps.put(gap_code.bits[gap], gap_code.length[gap]);
  for (size_t i = 0; i < symbols.size(); ++i) {
    values.put(value_code.bits[symbols[i]], value_code.length[symbols[i]]);
    values.put(alphabet.extra(entries.levels[i]), alphabet.extra_bits(symbols[i]));
  }
  sizes = {index_bits, entries.levels.size(), entries.fillers, gaps.bits(), values.bits(), 0};

  std::vector<uint8_t> out;
  put_varint(out, side.size());
  out.insert(out.end(), side.begin(), side.end());
  if (index_bits) {
    put_varint(out, entries.levels.size());
    const std::vector<uint8_t> index = gaps.take();
    put_varint(out, index.size());
    out.insert(out.end(), index.begin(), index.end());
  }
  sizes.tables = 8 * (out.size() - (sizes.index + 7) / 8);
  const std::vector<uint8_t> coded = values.take();
  out.insert(out.end(), coded.begin(), coded.end());
  return out;
}

}  // namespace

std::vector<uint8_t> code_lengths(std::span<const uint64_t> counts) {
  std::vector<uint8_t> lengths(counts.size(), 0);
  std::vector<size_t> symbols;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i]) symbols.push_back(i);
  }
  if (symbols.size() == 1) lengths[symbols[0]] = 1;
  if (symbols.size() < 2) return lengths;
  std::stable_sort(symbols.begin(), symbols.end(), [&](size_t a, size_t b) { return counts[a] < counts[b]; });

  // A coin for every symbol at each of kMostLength levels; two coins of a level are a package of the next. The cheapest
  // 2 (n - 1) of the last level say how long the codes are: a symbol's length is how often its coin is among them.
  struct Coin {
    uint64_t weight;
    std::vector<uint16_t> symbols;  // positions in `symbols`
  };
  std::vector<Coin> coins, packages;
  for (int level = 0; level < kMostLength; ++level) {
    std::vector<Coin> merged;
    size_t next = 0;
    for (size_t i = 0; i < symbols.size(); ++i) {
      while (next < packages.size() && packages[next].weight < counts[symbols[i]])
        merged.push_back(std::move(packages[next++]));
      merged.push_back({counts[symbols[i]], {static_cast<uint16_t>(i)}});
    }
    while (next < packages.size()) merged.push_back(std::move(packages[next++]));
    coins = std::move(merged);
    if (level == kMostLength - 1) break;
    packages.clear();
    for (size_t i = 0; i + 1 < coins.size(); i += 2) {
      Coin package{coins[i].weight + coins[i + 1].weight, coins[i].symbols};
      package.symbols.insert(package.symbols.end(), coins[i + 1].symbols.begin(), coins[i + 1].symbols.end());
      packages.push_back(std::move(package));
    }
  }
  for (size_t i = 0; i < 2 * (symbols.size() - 1); ++i) {
    for (const uint16_t symbol : coins[i].symbols) ++lengths[symbols[symbol]];
  }
  return lengths;
}

std::vector<uint8_t> huffman_encode(std::span<const int32_t> levels, int index_bits, HuffmanSizes* sizes) {
  HuffmanSizes own;
  HuffmanSizes& reported = sizes ? *sizes : own;
  if (index_bits >= 0) return encode_as(levels, index_bits, reported);
  // Relative indices cost at least two bits an entry, so they are not for dense tensors. Otherwise the best width is
  // near the logarithm of the mean number of zeros; going through all is not worth it.
  std::vector<uint8_t> best = encode_as(levels, 0, reported);
  const auto zeros = static_cast<size_t>(std::count(levels.begin(), levels.end(), 0));
  if (zeros * 2 < levels.size()) return best;
  const size_t mean = zeros / (levels.size() - zeros + 1) + 1;
  const int guess = std::bit_width(mean) + 1;
  for (int width = std::clamp(guess - 1, 1, 8); width <= std::clamp(guess + 2, 1, 8); ++width) {
    HuffmanSizes tried;
    std::vector<uint8_t> bytes = encode_as(levels, width, tried);
    if (bytes.size() >= best.size()) continue;
    best = std::move(bytes);
    reported = tried;
  }
  return best;
}

bool huffman_decode(std::span<const uint8_t> bytes, std::span<int32_t> levels) {
  uint64_t side_size = 0;
  if (!take_varint(bytes, side_size) || side_size > bytes.size()) return false;
  RangeDecoder coder(bytes.first(static_cast<size_t>(side_size)));
  bytes = bytes.subspan(static_cast<size_t>(side_size));
  const uint32_t index_bits = coder.bits(0, 4);
  if (index_bits > 8) return false;
  const Alphabet alphabet = code_alphabet(coder, {});
  NumberModel<RangeDecoder> numbers(coder), gap_numbers(coder);
  std::vector<uint8_t> value_lengths(alphabet.symbols), gap_lengths(size_t{1} << index_bits);
  for (uint8_t& length : value_lengths) length = static_cast<uint8_t>(numbers.code(0));
  const auto level_from = [&](const DecodingTable& table, BitReader& reader) {
    const uint8_t symbol = table.decode(reader);
    return alphabet.level(symbol, reader.take(alphabet.extra_bits(symbol)));
  };
  std::fill(levels.begin(), levels.end(), 0);
  if (index_bits == 0) {
    if (levels.empty()) return true;
    if (!is_prefix_code(value_lengths)) return false;
    const DecodingTable table(value_lengths);
    BitReader reader(bytes);
    for (int32_t& level : levels) level = level_from(table, reader);
    return true;
  }
  for (uint8_t& length : gap_lengths) length = static_cast<uint8_t>(gap_numbers.code(0));
  uint64_t entries = 0, index_size = 0;
  if (!take_varint(bytes, entries) || entries > levels.size()) return false;
  if (!take_varint(bytes, index_size) || index_size > bytes.size()) return false;
  if (entries == 0) return true;
  if (!is_prefix_code(value_lengths) || !is_prefix_code(gap_lengths)) return false;
  const DecodingTable gap_table(gap_lengths), table(value_lengths);
  BitReader gaps(bytes.first(static_cast<size_t>(index_size)));
  BitReader values(bytes.subspan(static_cast<size_t>(index_size)));
  size_t at = 0;
  for (uint64_t i = 0; i < entries; ++i) {
    at += gap_table.decode(gaps);
    if (at >= levels.size()) return false;
    levels[at++] = level_from(table, values);
  }
  return true;
}

}  // namespace nibble::codec
