// Vectors of the width that the CPU has, and what tiles of sums in registers are made of.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "scalar.h"

namespace seer_ray {
namespace {  // each file's own: they are compiled by different rules for sums

// As many rows to a tile of four columns as the registers hold sums.
#if defined(__AVX512F__)
constexpr int kBytes = 64, kTileRows = 6;
#elif defined(__AVX__)
constexpr int kBytes = 32, kTileRows = 3;
#else
constexpr int kBytes = 16, kTileRows = 3;
#endif
constexpr int kColumns = 4, kLine = 64;
constexpr int64_t kLanes = kBytes / sizeof(float);

typedef float Floats __attribute__((vector_size(kBytes)));
typedef uint32_t Words __attribute__((vector_size(kBytes)));
typedef float Four __attribute__((vector_size(16)));

inline Words words(const void* from) {
  Words to;
  std::memcpy(&to, from, kBytes);
  return to;
}

// As many numbers as a vector has floats.
inline Floats floats(const float* from) { return reinterpret_cast<Floats>(words(from)); }

inline Floats floats(const bf16* from) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16));
#else
  Words to;
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<uint32_t>(from[i].bits) << 16;
  return reinterpret_cast<Floats>(to);
#endif
}

inline Floats floats(const int8_t* from) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from))));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from))));
#else
  Floats to;
  for (int i = 0; i < kLanes; ++i) to[i] = from[i];
  return to;
#endif
}

// The first `count` of them, zeros beyond. WHOLE: there are as many in any case.
template <bool WHOLE, typename T>
inline Floats floats(const T* from, int64_t count) {
  if (WHOLE || count >= kLanes) return floats(from);
  T rest[kLanes] = {};
  std::memcpy(rest, from, count * sizeof(T));
  return floats(rest);
}

// So many numbers, the last vector filled up with zeros.
template <typename T>
inline Words words(const T* from, int64_t count) {
  if (count * static_cast<int64_t>(sizeof(T)) >= kBytes) return words(from);
  Words to = {};
  if (count > 0) std::memcpy(&to, from, count * sizeof(T));
  return to;
}

inline Floats whole_numbers(Floats x) {  // the nearest ones
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_roundscale_ps(reinterpret_cast<__m512>(x), 0));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(_mm256_round_ps(reinterpret_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int i = 0; i < kLanes; ++i) x[i] = std::nearbyint(x[i]);
  return x;
#endif
}

inline bool any_above(Floats x, Floats limit) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(limit), _CMP_GT_OQ);
#elif defined(__AVX2__)
  return _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(x), reinterpret_cast<__m256>(limit), _CMP_GT_OQ));
#else
  for (int i = 0; i < kLanes; ++i) {
    if (x[i] > limit[i]) return true;
  }
  return false;
#endif
}

// See fast_exp2.
inline Floats powers_of_two(Floats x) {
  typedef int32_t Ints __attribute__((vector_size(kBytes)));
  const Floats t = x < -127.0f ? Floats{} - 127.0f : x;  // NaN stays
  const Floats n = whole_numbers(t), f = t - n;
  Floats p = Floats{} + kExp2[0];
  for (int i = 1; i < 7; ++i) p = p * f + kExp2[i];
  return p * reinterpret_cast<Floats>(__builtin_convertvector(n + 127.0f, Ints) << 23);
}

// Stays in a register: read as an operand of each multiplication, it would be loaded once for each.
template <typename Vector>
inline void keep(Vector& x) {
#if defined(__x86_64__)
  asm("" : "+v"(x));
#endif
}

// What numbers of type T are multiplied as.
#if defined(__AVX512BF16__)
template <typename T>
using Factor = std::conditional_t<std::is_same_v<T, bf16>, bf16, float>;
#else
template <typename T>
using Factor = float;
#endif

inline void multiply_add(Floats& sum, Words a, Words b, float) {
  sum += reinterpret_cast<Floats>(a) * reinterpret_cast<Floats>(b);
}

#if defined(__AVX512BF16__)
// Two numbers to a word. The instruction takes denormal numbers for zero.
inline void multiply_add(Floats& sum, Words a, Words b, bf16) {
  sum = reinterpret_cast<Floats>(_mm512_dpbf16_ps(
      reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}
#endif

// The sums of four vectors, each by halves: upper and lower one together, then those of that, and so on.
#if defined(__AVX512F__)
inline Four sums(const Floats* x) {
  const auto at = [=](int i) { return reinterpret_cast<__m512>(x[i]); };
  const auto halves = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
  };
  const __m512 ab = halves(at(0), at(1)), cd = halves(at(2), at(3));
  __m512 all = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
  all = _mm512_add_ps(all, _mm512_permute_ps(all, 0x4E));
  all = _mm512_add_ps(all, _mm512_permute_ps(all, 0xB1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  return reinterpret_cast<Four>(_mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, all)));
}
#else
#if defined(__clang__)
#define SEER_RAY_SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
typedef int32_t Lanes __attribute__((vector_size(16)));
#define SEER_RAY_SHUFFLE(A, B, ...) __builtin_shuffle(A, B, Lanes{__VA_ARGS__})
#endif

inline Four folded(Floats x) {
  Four parts[kBytes / 16];
  std::memcpy(parts, &x, kBytes);
  for (int i = 1; i < kBytes / 16; ++i) parts[0] += parts[i];
  return parts[0];
}

inline Four sums(const Floats* x) {
  const Four a = folded(x[0]), b = folded(x[1]), c = folded(x[2]), d = folded(x[3]);
  const Four ab = SEER_RAY_SHUFFLE(a, b, 0, 4, 1, 5) + SEER_RAY_SHUFFLE(a, b, 2, 6, 3, 7);
  const Four cd = SEER_RAY_SHUFFLE(c, d, 0, 4, 1, 5) + SEER_RAY_SHUFFLE(c, d, 2, 6, 3, 7);
  return SEER_RAY_SHUFFLE(ab, cd, 0, 1, 4, 5) + SEER_RAY_SHUFFLE(ab, cd, 2, 3, 6, 7);
}
#endif

// run(0) to run(N - 1), of constants: what they index stays in registers.
template <int N, typename Run>
[[gnu::always_inline]] inline void each(Run run) {
  if constexpr (N > 0) {
    each<N - 1>(run);
    run(std::integral_constant<int, N - 1>());
  }
}

// run(constant) of a number from 1 to MOST.
template <int MOST, typename Run>
inline void with_constant(int64_t number, Run run) {
  if (number == MOST) {
    run(std::integral_constant<int, MOST>());
  } else if constexpr (MOST > 1) {
    with_constant<MOST - 1>(number, run);
  }
}

// run(first, constant number) for all of `count`, MOST at a time at most, shared out evenly.
template <int MOST, typename Run>
inline void by_tiles(int64_t count, Run run) {
  const int64_t tiles = (count + MOST - 1) / MOST;
  for (int64_t tile = 0, first = 0; tile < tiles; ++tile) {
    const int64_t next = count * (tile + 1) / tiles;
    with_constant<MOST>(next - first, [&](auto number) { run(first, number); });
    first = next;
  }
}

}  // namespace
}  // namespace seer_ray
