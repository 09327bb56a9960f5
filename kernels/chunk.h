// Tokens of K and V as attention multiplies them: a chunk at a time is brought into the first cache, in the order in which
// products with any number of queries read it, so that it is read and widened once for all of them.
//
// A factor is a word: a number, or two of 16 bits where the CPU multiplies such pairs. Of pairs, those of K are put in
// order of the dimension, so that a sum is one lane, and those of V in order of the token. Other numbers of K are
// multiplied as they lie. What an element is summed of, and how, does not depend on how many queries there are.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace seer_ray {
namespace {

// Numbers of T that a factor is.
template <typename T>
constexpr int64_t kPer = sizeof(Factor<T>) == 2 ? 2 : 1;

// Tokens of a chunk: it and the next one stay in the first cache.
template <typename T>
constexpr int64_t kChunk = 32 * kPer<T>;

inline int64_t up_to(int64_t count, int64_t whole) { return (count + whole - 1) / whole * whole; }

// Factors of a query, and numbers of a value, in whole vectors.
template <typename T>
inline int64_t depth_of(int64_t dim) {
  return up_to(dim, kPer<T> * kLanes) / kPer<T>;
}
template <typename T>
inline int64_t columns_of(int64_t dim) {
  return up_to(dim, kPer<T> * kLanes);
}

// What is asked for meanwhile: vectors of K or V that come next, a few lines with each step of a product.
class Ahead {
 public:
  Ahead(const char* const* vectors, int64_t count, int64_t bytes, int64_t steps)
      : vectors_(vectors), end_(vectors + count), bytes_(bytes), each_((count + steps - 1) / std::max<int64_t>(1, steps)) {}

  void step() {
    for (int64_t i = 0; i < each_ && vectors_ < end_; ++i, ++vectors_) {
      for (int64_t at = 0; at < bytes_; at += kLine) __builtin_prefetch(*vectors_ + at);
    }
  }

 private:
  const char *const *vectors_, *const *end_;
  int64_t bytes_, each_;
};

inline Words factors(const uint32_t* from) { return words(from); }

template <typename T>
inline Words factors(const T* from) {
  return reinterpret_cast<Words>(floats(from));
}

// out [ROWS][COUNT vectors] = a [ROWS, count] times those vectors of `count` rows of b from `at` on; adds: to what is there.
template <typename F, typename B, int ROWS, int COUNT>
[[gnu::always_inline]] inline void product_tile(const uint32_t* a, int64_t a_apart, const B* const* b, int64_t at,
                                                int64_t count, bool adds, float* out, int64_t apart, Ahead* ahead) {
  Floats sum[ROWS][COUNT];
  each<ROWS>([&](auto r) __attribute__((always_inline)) {
    each<COUNT>([&](auto c) __attribute__((always_inline)) {
      sum[r][c] = adds ? floats(out + r * apart + c * kLanes) : Floats{};
    });
  });
  for (int64_t k = 0; k < count; ++k) {
    if (ahead) ahead->step();
    Words one[ROWS];
    each<ROWS>([&](auto r) __attribute__((always_inline)) {
      one[r] = Words{} + a[r * a_apart + k];
      keep(one[r]);
    });
    each<COUNT>([&](auto c) __attribute__((always_inline)) {
      Words column = factors(b[k] + at + c * kLanes);
      keep(column);
      each<ROWS>([&](auto r) __attribute__((always_inline)) {
        multiply_add(sum[r][c], one[r], column, F());
        keep(sum[r][c]);
      });
    });
  }
  each<ROWS>([&](auto r) __attribute__((always_inline)) {
    each<COUNT>([&](auto c) __attribute__((always_inline)) { std::memcpy(out + r * apart + c * kLanes, &sum[r][c], kBytes); });
  });
}

// The same of `rows` and `columns`, which are whole vectors. B: factors, or numbers that are widened to them.
template <typename F, typename B>
void product(const uint32_t* a, int64_t a_apart, const B* const* b, int64_t count, bool adds, float* out,
             int64_t apart, int64_t rows, int64_t columns, Ahead ahead) {
  by_tiles<kTileRows>(rows, [&](int64_t row, auto number) {
    by_tiles<kColumns>(columns / kLanes, [&](int64_t vector, auto vectors) {
      const int64_t at = vector * kLanes;
      product_tile<F, B, number, vectors>(a + row * a_apart, a_apart, b, at, count, adds, out + row * apart + at, apart,
                                       row || vector ? nullptr : &ahead);
    });
  });
}

// out[ROWS][4] = q [ROWS, stride] times four keys. DIM is the head dim where it is known at compile time, else 0.
template <typename T, int DIM, int ROWS>
[[gnu::always_inline]] inline void dots_tile(const float* q, int64_t stride, const T* const* keys, int64_t dim, Four* out) {
  constexpr bool kWhole = DIM > 0 && DIM % kLanes == 0;
  Floats sum[ROWS][kColumns] = {};
  for (int64_t d = 0; d < dim; d += kLanes) {
    Floats row[ROWS];
    each<ROWS>([&](auto r) __attribute__((always_inline)) {
      row[r] = floats(q + r * stride + d);
      keep(row[r]);
    });
    each<kColumns>([&](auto c) __attribute__((always_inline)) {
      Floats key = floats<kWhole>(keys[c] + d, dim - d);
      keep(key);
      each<ROWS>([&](auto r) __attribute__((always_inline)) {
        sum[r][c] += row[r] * key;
        keep(sum[r][c]);
      });
    });
  }
  each<ROWS>([&](auto r) __attribute__((always_inline)) { out[r] = sums(sum[r]); });
}

// out [rows, apart] = q [rows, stride], filled up with zeros to whole vectors, times `count` keys, each read once.
template <typename T, int DIM>
void dots(const float* q, int64_t stride, const char* const* keys, int64_t count, int64_t dim_, float* out, int64_t apart,
          int64_t rows, Ahead ahead) {
  const int64_t dim = DIM ? DIM : dim_;
  for (int64_t t = 0; t < count; t += kColumns) {
    ahead.step();
    const T* some[kColumns];
    for (int c = 0; c < kColumns; ++c) some[c] = reinterpret_cast<const T*>(keys[std::min(t + c, count - 1)]);
    by_tiles<kTileRows>(rows, [&](int64_t row, auto number) {
      Four found[number];
      dots_tile<T, DIM, number>(q + row * stride, stride, some, dim, found);
      for (int r = 0; r < number; ++r) std::memcpy(out + (row + r) * apart + t, found + r, sizeof(Four));
    });
  }
}

#if defined(__AVX512BF16__)
// put(w, word w of each of kLanes vectors) for the words of a vector's width.
template <typename Put>
[[gnu::always_inline]] inline void transposed(const char* const* from, Put put) {
  each<4>([&](auto part) __attribute__((always_inline)) {
    __m512i x[4];
    each<4>([&](auto i) __attribute__((always_inline)) {
      const auto load = [&](int row) { return _mm_loadu_si128((const __m128i*)(from[row] + part * 16)); };
      x[i] = _mm512_inserti32x4(_mm512_castsi128_si512(load(i)), load(4 + i), 1);
      x[i] = _mm512_inserti32x4(_mm512_inserti32x4(x[i], load(8 + i), 2), load(12 + i), 3);
    });
    const __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpacklo_epi32(x[2], x[3]);
    const __m512i c = _mm512_unpackhi_epi32(x[0], x[1]), d = _mm512_unpackhi_epi32(x[2], x[3]);
    put(4 * part, _mm512_unpacklo_epi64(a, b));
    put(4 * part + 1, _mm512_unpackhi_epi64(a, b));
    put(4 * part + 2, _mm512_unpacklo_epi64(c, d));
    put(4 * part + 3, _mm512_unpackhi_epi64(c, d));
  });
}

// to [depth, kChunk] = the words of `count` keys side by side; behind those something.
template <typename T>
void put_keys(const char* const* keys, int64_t count, int64_t dim, uint32_t* to, Ahead ahead) {
  const int64_t bytes = dim * sizeof(T);
  for (int64_t t = 0; t < count; t += kLanes) {
    const char* some[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) some[i] = keys[std::min(t + i, count - 1)];
    for (int64_t at = 0; at < bytes; at += kBytes) {
      ahead.step();
      char rest[kLanes][kBytes];
      if (at + kBytes > bytes) {
        for (int64_t i = 0; i < kLanes; ++i) {
          const Words filled = words(some[i], bytes - at);
          std::memcpy(rest[i], &filled, kBytes);
          some[i] = rest[i];
        }
      }
      uint32_t* from = to + at / 4 * kChunk<T> + t;
      transposed(some, [&](int w, __m512i x) __attribute__((always_inline)) { _mm512_storeu_si512(from + w * kChunk<T>, x); });
      for (int64_t i = 0; i < kLanes; ++i) some[i] += kBytes;
    }
  }
}
#endif

// rows[i] = values [from, count) of token i, or of two tokens side by side, zeros for those before them: in place, or in
// `to`, [kChunk / per, columns].
template <typename T>
void put_values(const char* const* values, int64_t from, int64_t count, int64_t dim, uint32_t* to,
                const uint32_t** rows, Ahead ahead) {
  const int64_t columns = columns_of<T>(dim);
  for (int64_t t = 0; t < count; t += kPer<T>, to += columns) {
    ahead.step();
    *rows++ = to;
    const T* value = reinterpret_cast<const T*>(values[t]);
    if constexpr (kPer<T> == 1) {
      if (t < from) {
        std::fill(to, to + columns, 0);
      } else if (std::is_same_v<T, float> && columns == dim) {
        rows[-1] = reinterpret_cast<const uint32_t*>(value);
      } else {
        for (int64_t d = 0; d < columns; d += kLanes) {
          const Floats one = floats<false>(value + d, dim - d);
          std::memcpy(to + d, &one, kBytes);
        }
      }
    } else {
#if defined(__AVX512BF16__)
      const T* second = reinterpret_cast<const T*>(values[t + 1]);
      const auto put = [=](int64_t d, Words a, Words b) __attribute__((always_inline)) {
        _mm512_store_si512(to + d, _mm512_unpacklo_epi16((__m512i)a, (__m512i)b));
        _mm512_store_si512(to + d + kLanes, _mm512_unpackhi_epi16((__m512i)a, (__m512i)b));
      };
      if (t >= from && t + 1 < count && columns == dim) {
        for (int64_t d = 0; d < columns; d += 2 * kLanes) put(d, words(value + d), words(second + d));
        continue;
      }
      for (int64_t d = 0; d < columns; d += 2 * kLanes) {
        const Words none = {};
        put(d, t < from ? none : words(value + d, dim - d),
            t + 1 < from || t + 1 == count ? none : words(second + d, dim - d));
      }
#endif
    }
  }
}

// Numbers of a product with values in order of the head's dimensions: pairs are of halves of each 16 bytes.
template <typename T>
void in_order(const float* from, int64_t dim, float* to) {
  if constexpr (kPer<T> == 1) {
    std::copy(from, from + dim, to);
  } else {
    for (int64_t d = 0; d < dim; d += 4) {
      const int64_t at = d / (2 * kLanes) * 2 * kLanes + (d / 4 % 2) * kLanes + d % (2 * kLanes) / 8 * 4;
      std::copy(from + at, from + at + std::min<int64_t>(4, dim - d), to + d);
    }
  }
}

}  // namespace
}  // namespace seer_ray
