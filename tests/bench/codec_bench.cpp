// The coders of levels as a WebAssembly module without main(), which bench/codec_bench.mjs times in Node and in a
// browser beside other compressors. It makes levels, codes them, decodes them, and holds what came back against what
// was given.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/base/context.hpp"
#include "core/codec/huffman.hpp"
#include "core/codec/levels.hpp"
#include "core/codec/rans_levels.hpp"

namespace {

using namespace nibble;

constexpr size_t kColumns = 1024;
constexpr float kSigma = 32;  // of 8-bit levels whose scale comes from the largest of some ten thousand weights

enum Coder { kRans, kCabac, kHuffman };

std::vector<int32_t> levels, decoded;
std::vector<int8_t> bytes;  // the same levels, for the others
std::vector<uint8_t> streams[3];

codec::Widths widths() {
  const size_t shape[] = {levels.size() / kColumns, kColumns};
  return codec::widths_of(shape);
}

}  // namespace

extern "C" {

/// n normal weights (a multiple of 1024) as 8-bit levels, the smallest `percent` of every hundred set to 0 first.
void bench_setup(size_t n, int percent) {
  std::vector<float> weights(n);
  for (size_t i = 0; i < n; ++i) {
    float sum = -6;
    for (uint64_t j = 0; j < 12; ++j) sum += uniform24(j, i);  // its variance is 1
    weights[i] = sum;
  }
  std::vector<float> magnitudes(n);
  std::transform(weights.begin(), weights.end(), magnitudes.begin(), [](float w) { return std::abs(w); });
  const auto kth = magnitudes.begin() + static_cast<std::ptrdiff_t>(n / 100 * static_cast<size_t>(percent));
  std::nth_element(magnitudes.begin(), kth, magnitudes.end());
  const float limit = percent ? *kth : 0;
  levels.resize(n);
  bytes.resize(n);
  for (size_t i = 0; i < n; ++i) {
    const float level = std::abs(weights[i]) < limit ? 0 : std::nearbyint(weights[i] * kSigma);
    levels[i] = static_cast<int32_t>(std::clamp(level, -127.0f, 127.0f));
    bytes[i] = static_cast<int8_t>(levels[i]);
  }
  decoded.assign(n, 0);
}

const int8_t* bench_bytes() { return bytes.data(); }

/// In bytes.
double bench_entropy() { return codec::entropy_of(levels) / 8; }

/// The size of the stream. Finding a model is part of the work.
size_t bench_encode(int coder) {
  std::vector<uint8_t>& stream = streams[coder];
  stream.clear();
  if (coder == kRans) stream = codec::rans_encode_levels(levels);
  if (coder == kHuffman) stream = codec::huffman_encode(levels);
  if (coder == kCabac) {
    codec::RangeEncoder encoder(stream);
    codec::encode_levels(encoder, levels, widths(), codec::choose_model(levels, widths()));
    encoder.finish();
  }
  return stream.size();
}

/// What bench_encode made last. False where the decoder refuses it.
bool bench_decode(int coder) {
  const std::vector<uint8_t>& stream = streams[coder];
  if (coder == kRans) return codec::rans_decode_levels(stream, decoded);
  if (coder == kHuffman) return codec::huffman_decode(stream, decoded);
  codec::RangeDecoder decoder(stream);
  codec::decode_levels(decoder, decoded, widths());
  return true;
}

/// Whether the levels decoded last are those that were coded; they are forgotten.
bool bench_came_back() {
  const bool same = decoded == levels;
  std::fill(decoded.begin(), decoded.end(), 0);
  return same;
}
}
