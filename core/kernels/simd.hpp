// The one file that names an instruction set: names for xsimd's 128-bit batches, and the few operations that xsimd
// lacks or that come out slow or wrong in WebAssembly. Each has a branch for WebAssembly, one for SSE4.1 and one in
// plain C++.
//
// Known traps of xsimd 13.2 on WebAssembly, so that nobody walks into them again: `!=` between float masks compares
// NaNs (use `^`), nearbyint() and round() are emulated (use round_bits / round_small), count() divides by 64-bit
// remainder (use bitmask), a swizzle by a run-time batch goes through memory, min() and max() treat NaN by argument
// order and the order differs from SSE's (use lesser / greater).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <xsimd/xsimd.hpp>

#if defined(__wasm_simd128__)
#include <wasm_simd128.h>
#define NIBBLE_SIMD_WASM 1
#elif defined(__SSE4_1__)
#include <smmintrin.h>
#define NIBBLE_SIMD_SSE 1
#endif

namespace nibble::simd {

using F32 = xsimd::make_sized_batch_t<float, 4>;
using F64 = xsimd::make_sized_batch_t<double, 2>;
using I32 = xsimd::make_sized_batch_t<int32_t, 4>;
using U32 = xsimd::make_sized_batch_t<uint32_t, 4>;
using I16 = xsimd::make_sized_batch_t<int16_t, 8>;
using U16 = xsimd::make_sized_batch_t<uint16_t, 8>;
using I8 = xsimd::make_sized_batch_t<int8_t, 16>;
using U8 = xsimd::make_sized_batch_t<uint8_t, 16>;
using Mask32 = F32::batch_bool_type;  // one truth value for each of four floats

template <class To, class From>
inline To as(From x) {
  return xsimd::bitwise_cast<typename To::value_type>(x);
}

// Not named load and store: those would find xsimd's own by argument, which expect aligned memory.
inline F32 load_at(const float* p) { return F32::load_unaligned(p); }
inline I8 load_at(const int8_t* p) { return I8::load_unaligned(p); }
inline U8 load_at(const uint8_t* p) { return U8::load_unaligned(p); }
inline I16 load_at(const int16_t* p) { return I16::load_unaligned(p); }
inline U16 load_at(const uint16_t* p) { return U16::load_unaligned(p); }

template <class Batch>
inline void store_at(typename Batch::value_type* p, Batch x) {
  x.store_unaligned(p);
}

/// A vector with the same number in each lane that the compiler does not recognise as a constant. Compilers to
/// WebAssembly put vector constants where they are used, and browsers then build them anew in every iteration, from two
/// 64-bit immediates; a loop that is short of instructions wants them in registers, and so built by this, before the
/// loop.
template <class Batch>
inline Batch in_register(typename Batch::value_type number) {
  volatile typename Batch::value_type hidden = number;
  return Batch(hidden);
}

/// The bits of |x|: as integers they order like the magnitudes, with infinity at kInfinityBits and NaN above it.
inline I32 magnitude_bits(F32 x) { return as<I32>(x) & I32(0x7FFFFFFF); }
inline constexpr int32_t kInfinityBits = 0x7F800000;

/// b < a ? b : a. A NaN in `b` is passed over, a NaN in `a` stays.
inline F32 lesser(F32 a, F32 b) {
#if NIBBLE_SIMD_WASM
  return wasm_f32x4_pmin(a, b);
#elif NIBBLE_SIMD_SSE
  return _mm_min_ps(b, a);
#else
  return xsimd::select(b < a, b, a);
#endif
}

/// a < b ? b : a. A NaN in `b` is passed over, a NaN in `a` stays.
inline F32 greater(F32 a, F32 b) {
#if NIBBLE_SIMD_WASM
  return wasm_f32x4_pmax(a, b);
#elif NIBBLE_SIMD_SSE
  return _mm_max_ps(b, a);
#else
  return xsimd::select(a < b, b, a);
#endif
}

// Rounding to the nearest integer, ties to even, by the floating-point adder: adding 1.5 * 2^23 leaves no bits for a
// fraction, so the sum's low mantissa bits are the integer. Three instructions where a conversion takes six or more in
// the browsers' code for x86. Exact for |x| <= 2^22.
inline constexpr float kRoundShift = 12582912.0f;
inline constexpr int32_t kRoundShiftBits = 0x4B400000;

/// The rounded value as a float; |x| <= 2^22. Never -0.
inline F32 round_small(F32 x) { return (x + F32(kRoundShift)) - F32(kRoundShift); }

/// Bits of x + kRoundShift: integer + kRoundShiftBits for |x| <= 2^22; for larger x > -2^23 still ordered like x, which
/// is all that a saturating narrowing needs. NaN and x < -1.5 * 2^23 give bits above kInfinityBits when read as
/// unsigned.
inline I32 round_bits(F32 x, F32 round_shift) { return as<I32>(x + round_shift); }

/// floor(x) as an integer for 0 <= x < 2^22.
inline U32 floor_index(F32 x) { return as<U32>(xsimd::floor(x) + F32(8388608.0f)) & U32(0x7FFFFFu); }

/// Two vectors into one of half the width, values outside the range clamped to it. Order is kept: a first, then b.
inline I16 narrow(I32 a, I32 b) {
#if NIBBLE_SIMD_WASM
  return wasm_i16x8_narrow_i32x4(a, b);
#elif NIBBLE_SIMD_SSE
  return _mm_packs_epi32(a, b);
#else
  int32_t in[8];
  int16_t out[8];
  store_at(in, a), store_at(in + 4, b);
  for (int i = 0; i < 8; ++i) out[i] = static_cast<int16_t>(in[i] < -32768 ? -32768 : in[i] > 32767 ? 32767 : in[i]);
  return load_at(out);
#endif
}

inline U16 narrow_unsigned(I32 a, I32 b) {
#if NIBBLE_SIMD_WASM
  return wasm_u16x8_narrow_i32x4(a, b);
#elif NIBBLE_SIMD_SSE
  return _mm_packus_epi32(a, b);
#else
  int32_t in[8];
  uint16_t out[8];
  store_at(in, a), store_at(in + 4, b);
  for (int i = 0; i < 8; ++i) out[i] = static_cast<uint16_t>(in[i] < 0 ? 0 : in[i] > 65535 ? 65535 : in[i]);
  return load_at(out);
#endif
}

inline I8 narrow(I16 a, I16 b) {
#if NIBBLE_SIMD_WASM
  return wasm_i8x16_narrow_i16x8(a, b);
#elif NIBBLE_SIMD_SSE
  return _mm_packs_epi16(a, b);
#else
  int16_t in[16];
  int8_t out[16];
  store_at(in, a), store_at(in + 8, b);
  for (int i = 0; i < 16; ++i) out[i] = static_cast<int8_t>(in[i] < -128 ? -128 : in[i] > 127 ? 127 : in[i]);
  return load_at(out);
#endif
}

inline U8 narrow_unsigned(I16 a, I16 b) {
#if NIBBLE_SIMD_WASM
  return wasm_u8x16_narrow_i16x8(a, b);
#elif NIBBLE_SIMD_SSE
  return _mm_packus_epi16(a, b);
#else
  int16_t in[16];
  uint8_t out[16];
  store_at(in, a), store_at(in + 8, b);
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>(in[i] < 0 ? 0 : in[i] > 255 ? 255 : in[i]);
  return load_at(out);
#endif
}

/// One vector into two of twice the width.
template <class Batch>
struct Pair {
  Batch low, high;
};

namespace detail {
template <class Wide, class Narrow>
inline Pair<Wide> widen_plain(Narrow x) {
  typename Narrow::value_type in[Narrow::size];
  typename Wide::value_type out[Narrow::size];
  store_at(in, x);
  for (size_t i = 0; i < Narrow::size; ++i) out[i] = in[i];
  return {Wide::load_unaligned(out), Wide::load_unaligned(out + Wide::size)};
}
}  // namespace detail

inline Pair<I16> widen(I8 x) {
#if NIBBLE_SIMD_WASM
  return {wasm_i16x8_extend_low_i8x16(x), wasm_i16x8_extend_high_i8x16(x)};
#elif NIBBLE_SIMD_SSE
  return {_mm_cvtepi8_epi16(x), _mm_cvtepi8_epi16(_mm_srli_si128(x, 8))};
#else
  return detail::widen_plain<I16>(x);
#endif
}

inline Pair<I16> widen(U8 x) {
#if NIBBLE_SIMD_WASM
  return {wasm_u16x8_extend_low_u8x16(x), wasm_u16x8_extend_high_u8x16(x)};
#elif NIBBLE_SIMD_SSE
  return {_mm_cvtepu8_epi16(x), _mm_cvtepu8_epi16(_mm_srli_si128(x, 8))};
#else
  return detail::widen_plain<I16>(x);
#endif
}

inline Pair<I32> widen(I16 x) {
#if NIBBLE_SIMD_WASM
  return {wasm_i32x4_extend_low_i16x8(x), wasm_i32x4_extend_high_i16x8(x)};
#elif NIBBLE_SIMD_SSE
  return {_mm_cvtepi16_epi32(x), _mm_cvtepi16_epi32(_mm_srli_si128(x, 8))};
#else
  return detail::widen_plain<I32>(x);
#endif
}

inline Pair<I32> widen(U16 x) {
#if NIBBLE_SIMD_WASM
  return {wasm_u32x4_extend_low_u16x8(x), wasm_u32x4_extend_high_u16x8(x)};
#elif NIBBLE_SIMD_SSE
  return {_mm_cvtepu16_epi32(x), _mm_cvtepu16_epi32(_mm_srli_si128(x, 8))};
#else
  return detail::widen_plain<I32>(x);
#endif
}

inline Pair<F64> widen(F32 x) {
#if NIBBLE_SIMD_WASM
  return {wasm_f64x2_promote_low_f32x4(x), wasm_f64x2_promote_low_f32x4(wasm_i64x2_shuffle(x, x, 1, 1))};
#elif NIBBLE_SIMD_SSE
  return {_mm_cvtps_pd(x), _mm_cvtps_pd(_mm_movehl_ps(x, x))};
#else
  return detail::widen_plain<F64>(x);
#endif
}

/// a * b + c: two roundings, or in the relaxed build (kernels/compute.hpp) one or two, as the machine likes.
[[gnu::always_inline]] inline F32 multiply_add(F32 a, F32 b, F32 c) {
#if defined(NIBBLE_RELAXED) && defined(__wasm_relaxed_simd__)
  return wasm_f32x4_relaxed_madd(a, b, c);
#else
  return a * b + c;
#endif
}

inline F32 to_float(I32 x) { return xsimd::batch_cast<float>(x); }

/// Bytes of x picked by index: out[i] = x[index[i]], 0 for an index of 128 and more; 16 to 127 are not to be used.
inline U8 pick(U8 x, U8 index) {
#if NIBBLE_SIMD_WASM
  return wasm_i8x16_swizzle(x, index);
#elif NIBBLE_SIMD_SSE
  return _mm_shuffle_epi8(x, index);
#else
  uint8_t in[16], at[16], out[16];
  store_at(in, x), store_at(at, index);
  for (int i = 0; i < 16; ++i) out[i] = at[i] < 16 ? in[at[i]] : 0;
  return load_at(out);
#endif
}

/// Bit i is set where lane i is less than 2^16.
inline uint32_t below_2_16(U32 x) {
#if NIBBLE_SIMD_WASM
  return wasm_i32x4_bitmask(wasm_i32x4_eq(wasm_u32x4_shr(x, 16), wasm_i32x4_const_splat(0)));
#elif NIBBLE_SIMD_SSE
  return static_cast<uint32_t>(
      _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(_mm_srli_epi32(x, 16), _mm_setzero_si128()))));
#else
  uint32_t in[4], bits = 0;
  store_at(in, x);
  for (int i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(in[i] < 65536) << i;
  return bits;
#endif
}

/// Eight bytes from memory in the low half, zeros in the other.
inline U8 load_half(const uint8_t* p) {
#if NIBBLE_SIMD_WASM
  return wasm_v128_load64_zero(p);
#elif NIBBLE_SIMD_SSE
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
#else
  uint8_t bytes[16] = {};
  std::copy_n(p, 8, bytes);
  return load_at(bytes);
#endif
}

/// Bytes of a and b taken in turns: {a0, b0, a1, b1, ...}, in two vectors.
inline Pair<U8> interleave(U8 a, U8 b) { return {xsimd::zip_lo(a, b), xsimd::zip_hi(a, b)}; }

/// Every second lane of eight: {a0, a2, b0, b2}; and the others: {a1, a3, b1, b3}.
inline F32 even_lanes(F32 a, F32 b) {
#if NIBBLE_SIMD_WASM
  return wasm_i32x4_shuffle(a, b, 0, 2, 4, 6);
#elif NIBBLE_SIMD_SSE
  return _mm_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0));
#else
  float in[8];
  store_at(in, a), store_at(in + 4, b);
  return F32(in[0], in[2], in[4], in[6]);
#endif
}
inline F32 odd_lanes(F32 a, F32 b) {
#if NIBBLE_SIMD_WASM
  return wasm_i32x4_shuffle(a, b, 1, 3, 5, 7);
#elif NIBBLE_SIMD_SSE
  return _mm_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1));
#else
  float in[8];
  store_at(in, a), store_at(in + 4, b);
  return F32(in[1], in[3], in[5], in[7]);
#endif
}

/// Rows of a 4 x 4 matrix become its columns.
inline void transpose_4x4(F32& a, F32& b, F32& c, F32& d) {
  F32 rows[4] = {a, b, c, d};
  xsimd::transpose(rows, rows + 4);
  a = rows[0], b = rows[1], c = rows[2], d = rows[3];
}

/// A truth value as a number: -1, all bits set, where it holds, 0 elsewhere.
inline I32 to_bits(Mask32 m) {
#if NIBBLE_SIMD_WASM
  return I32(static_cast<v128_t>(m));
#elif NIBBLE_SIMD_SSE
  return I32(_mm_castps_si128(m));
#else
  return as<I32>(xsimd::bitwise_cast(m));
#endif
}
inline I32 to_bits(I32::batch_bool_type m) {
#if NIBBLE_SIMD_WASM
  return I32(static_cast<v128_t>(m));
#elif NIBBLE_SIMD_SSE
  return I32(static_cast<__m128i>(m));
#else
  return xsimd::select(m, I32(-1), I32(0));
#endif
}

/// Bit i is the truth value i of the four vectors of to_bits(); the first vector gives the lowest bits.
inline uint32_t bitmask(I32 a, I32 b, I32 c, I32 d) {
  const I8 all = narrow(narrow(a, b), narrow(c, d));
#if NIBBLE_SIMD_WASM
  return wasm_i8x16_bitmask(all);
#elif NIBBLE_SIMD_SSE
  return static_cast<uint32_t>(_mm_movemask_epi8(all));
#else
  int8_t bytes[16];
  store_at(bytes, all);
  uint32_t bits = 0;
  for (int i = 0; i < 16; ++i) bits |= static_cast<uint32_t>(bytes[i] < 0) << i;
  return bits;
#endif
}

/// The lanes as scalars, two 64-bit extractions instead of four.
struct Lanes {
  uint32_t a, b, c, d;
};
inline Lanes lanes(U32 x) {
#if NIBBLE_SIMD_WASM
  const uint64_t low = static_cast<uint64_t>(wasm_i64x2_extract_lane(x, 0));
  const uint64_t high = static_cast<uint64_t>(wasm_i64x2_extract_lane(x, 1));
#elif NIBBLE_SIMD_SSE && defined(__x86_64__)
  const uint64_t low = static_cast<uint64_t>(_mm_cvtsi128_si64(x));
  const uint64_t high = static_cast<uint64_t>(_mm_extract_epi64(x, 1));
#else
  uint64_t low, high;
  uint32_t out[4];
  store_at(out, x);
  low = out[0] | static_cast<uint64_t>(out[1]) << 32, high = out[2] | static_cast<uint64_t>(out[3]) << 32;
#endif
  return {static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), static_cast<uint32_t>(high),
          static_cast<uint32_t>(high >> 32)};
}

/// Calls step(input, output) for every kStep elements. What remains at the end goes through buffers of kStep elements,
/// so that a loop has one body and not a second one for the tail.
template <size_t kStep, class In, class Out, class Step>
inline void for_each_step(const In* in, size_t n, Out* out, Step step) {
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) step(in + i, out + i);
  if (i == n) return;
  In last_in[kStep] = {};
  Out last_out[kStep];
  std::copy_n(in + i, n - i, last_in);
  step(last_in, last_out);
  std::copy_n(last_out, n - i, out + i);
}

}  // namespace nibble::simd
