// Bit packing through 64-bit words: eight codes, one a byte, close up in three steps (pairs, fours, eights), each of
// which halves the number of gaps. The same code serves every width; eight codes of `bits` bits are exactly `bits`
// bytes.
#include <bit>
#include <cstring>

#include "core/kernels/kernels.hpp"

namespace nibble::kernels {
namespace {

static_assert(std::endian::native == std::endian::little, "packed bytes are written as little-endian words");

/// `width` low bits set in every field of `field` bits.
constexpr uint64_t fields(int width, int field) {
  uint64_t word = 0;
  for (int at = 0; at < 64; at += field) word |= (~uint64_t{0} >> (64 - width)) << at;
  return word;
}

/// The codes in the low `bits` of eight bytes, as 8 * bits bits without gaps.
template <int kBits>
uint64_t close_up(uint64_t v) {
  constexpr uint64_t kCodes = fields(kBits, 16), kPairs = fields(2 * kBits, 32), kFours = fields(4 * kBits, 64);
  v = (v & kCodes) | (v >> (8 - kBits) & kCodes << kBits);
  v = (v & kPairs) | (v >> (16 - 2 * kBits) & kPairs << 2 * kBits);
  return (v & kFours) | (v >> (32 - 4 * kBits) & kFours << 4 * kBits);
}

/// The way back.
template <int kBits>
uint64_t spread_out(uint64_t v) {
  constexpr uint64_t kCodes = fields(kBits, 16), kPairs = fields(2 * kBits, 32), kFours = fields(4 * kBits, 64);
  v = (v & kFours) | (v & kFours << 4 * kBits) << (32 - 4 * kBits);
  v = (v & kPairs) | (v & kPairs << 2 * kBits) << (16 - 2 * kBits);
  return (v & kCodes) | (v & kCodes << kBits) << (8 - kBits);
}

template <int kBits>
void pack(const uint8_t* codes, size_t count, uint8_t* out) {
  const size_t words = count / 8, rest = count % 8;
  for (size_t w = 0; w < words; ++w, codes += 8, out += kBits) {
    uint64_t v;
    std::memcpy(&v, codes, 8);
    v = close_up<kBits>(v);
    std::memcpy(out, &v, kBits);
  }
  if (rest == 0) return;
  uint64_t v = 0;
  std::memcpy(&v, codes, rest);
  v = close_up<kBits>(v);
  std::memcpy(out, &v, (rest * kBits + 7) / 8);
}

template <int kBits>
void unpack(const uint8_t* packed, size_t count, uint8_t* codes) {
  const size_t words = count / 8, rest = count % 8;
  for (size_t w = 0; w < words; ++w, codes += 8, packed += kBits) {
    uint64_t v = 0;
    std::memcpy(&v, packed, kBits);
    v = spread_out<kBits>(v);
    std::memcpy(codes, &v, 8);
  }
  if (rest == 0) return;
  uint64_t v = 0;
  std::memcpy(&v, packed, (rest * kBits + 7) / 8);
  v = spread_out<kBits>(v);
  std::memcpy(codes, &v, rest);
}

/// The width becomes a constant of one of eight instances.
using Loop = void (*)(const uint8_t*, size_t, uint8_t*);

}  // namespace

void pack_bits(std::span<const uint8_t> codes, int bits, std::span<uint8_t> out) {
  constexpr Loop kByWidth[8] = {pack<1>, pack<2>, pack<3>, pack<4>, pack<5>, pack<6>, pack<7>, pack<8>};
  kByWidth[bits - 1](codes.data(), codes.size(), out.data());
}

void unpack_bits(std::span<const uint8_t> packed, int bits, std::span<uint8_t> codes) {
  constexpr Loop kByWidth[8] = {unpack<1>, unpack<2>, unpack<3>, unpack<4>, unpack<5>, unpack<6>, unpack<7>, unpack<8>};
  kByWidth[bits - 1](packed.data(), codes.size(), codes.data());
}

}  // namespace nibble::kernels
