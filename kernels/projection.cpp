// CPU path of projection.py: products of few rows with weights that are streamed from memory once.
//
// A tile is some rows of x times four rows of the weight, its sums in registers, so that x is read from the cache once
// for four rows. All rows pass over a tile while its weights lie in the cache; meanwhile the next tile is asked for,
// since the processor's own prefetching stops whenever old weights are read. Every element has one accumulator vector of
// its own, filled in order of the inner dimension and summed as a fixed tree: its bits depend on nothing else.

// The one promise that flags would break: no regrouping of sums, which may differ between sizes of tiles.
#if defined(__clang__)
#pragma clang fp reassociate(off)
#else
#pragma GCC optimize("no-associative-math")
#endif

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "operations.h"

namespace seer_ray {

namespace {

// Vectors of the width that the CPU has, and as many rows to a tile as its registers hold sums.
#if defined(__AVX512F__)
constexpr int kBytes = 64, kTileRows = 6;
#elif defined(__AVX__)
constexpr int kBytes = 32, kTileRows = 2;
#else
constexpr int kBytes = 16, kTileRows = 2;
#endif
constexpr int kColumns = 4, kMaxRows = 16, kLine = 64;
constexpr int64_t kSerial = 65536;  // weights below which waking other threads costs more than it brings

typedef float Floats __attribute__((vector_size(kBytes)));
typedef uint32_t Words __attribute__((vector_size(kBytes)));
typedef float Four __attribute__((vector_size(16)));

inline Words words(const void* from) {
  Words to;
  std::memcpy(&to, from, kBytes);
  return to;
}

inline void multiply_add(Floats& sum, Words a, Words b, float) {
  sum += reinterpret_cast<Floats>(a) * reinterpret_cast<Floats>(b);
}

// Two numbers to a word. The instruction takes denormal numbers for zero.
inline void multiply_add(Floats& sum, Words a, Words b, bf16) {
#if defined(__AVX512BF16__)
  sum = reinterpret_cast<Floats>(_mm512_dpbf16_ps(
      reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
#else
  sum += reinterpret_cast<Floats>(a << 16) * reinterpret_cast<Floats>(b << 16);
  sum += reinterpret_cast<Floats>(a & 0xFFFF0000u) * reinterpret_cast<Floats>(b & 0xFFFF0000u);
#endif
}

#if defined(__clang__)
#define SEER_RAY_SHUFFLE(A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
typedef int32_t Lanes __attribute__((vector_size(16)));
#define SEER_RAY_SHUFFLE(A, B, ...) __builtin_shuffle(A, B, Lanes{__VA_ARGS__})
#endif

inline Four folded(Floats x) {
  Four parts[kBytes / 16];
  std::memcpy(parts, &x, kBytes);
  for (int half = kBytes / 32; half; half /= 2) {
    for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
  }
  return parts[0];
}

inline Four sums(const Floats* x) {
  const Four a = folded(x[0]), b = folded(x[1]), c = folded(x[2]), d = folded(x[3]);
  const Four ab = SEER_RAY_SHUFFLE(a, b, 0, 4, 1, 5) + SEER_RAY_SHUFFLE(a, b, 2, 6, 3, 7);
  const Four cd = SEER_RAY_SHUFFLE(c, d, 0, 4, 1, 5) + SEER_RAY_SHUFFLE(c, d, 2, 6, 3, 7);
  return SEER_RAY_SHUFFLE(ab, cd, 0, 1, 4, 5) + SEER_RAY_SHUFFLE(ab, cd, 2, 3, 6, 7);
}

// y[ROWS] of x [ROWS, inner] and four rows of a weight. Each vector of theirs asks for `lines` lines from `ahead` on.
template <typename T, int ROWS>
void tile(const T* x, const T* const* weight, int64_t inner, const char* ahead, int64_t lines, Four* y) {
  constexpr int64_t step = kBytes / sizeof(T);
  Floats sum[ROWS][kColumns] = {};
  const auto advance = [&](auto at) {
    Words w[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) w[c] = at(weight[c]);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; ++r) {
      const Words row = at(x + r * inner);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) multiply_add(sum[r][c], w[c], row, T());
    }
  };
  int64_t i = 0;
  for (; i + step <= inner; i += step) {
    for (int64_t line = 0; line < lines; ++line, ahead += kLine) __builtin_prefetch(ahead, 0, 2);
    advance([=](const T* from) { return words(from + i); });
  }
  if (i < inner) {
    advance([=](const T* from) {
      T rest[step] = {};
      std::memcpy(rest, from + i, (inner - i) * sizeof(T));
      return words(rest);
    });
  }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; ++r) y[r] = sums(sum[r]);
}

template <typename T, int ROWS = kTileRows>
void tile_of(int64_t rows, const T* x, const T* const* weight, int64_t inner, const char* ahead,
             int64_t lines, Four* y) {
  if (rows == ROWS) {
    tile<T, ROWS>(x, weight, inner, ahead, lines, y);
  } else if constexpr (ROWS > 1) {
    tile_of<T, ROWS - 1>(rows, x, weight, inner, ahead, lines, y);
  }
}

// y[rows] = four columns of x W^T + bias from `column` on; past the last column, the last one again.
template <typename T>
void columns_of(const Matrix<T>& matrix, int64_t column, const T* x, int64_t rows, int64_t inner, Four* y) {
  const T* weight[kColumns];
  Four bias = {};
  for (int c = 0; c < kColumns; ++c) {
    const int64_t at = std::min(column + c, matrix.columns - 1);
    weight[c] = matrix.weight + at * inner;
    if (matrix.bias) bias[c] = load(matrix.bias[at]);
  }
  const int64_t passes = (rows + kTileRows - 1) / kTileRows, share = (rows + passes - 1) / passes;
  const int64_t vectors = inner * sizeof(T) / kBytes;
  // Lines of the next tile per vector of each row of this one, so that all passes together ask for all of it.
  const int64_t lines = (kColumns * kBytes + passes * kLine - 1) / (passes * kLine);
  auto ahead = reinterpret_cast<const char*>(weight[0] + kColumns * inner);
  for (int64_t row = 0; row < rows; row += share, ahead += vectors * lines * kLine) {
    tile_of<T>(std::min(share, rows - row), x + row * inner, weight, inner, ahead, lines, y + row);
  }
  for (int64_t row = 0; row < rows; ++row) y[row] += bias;
}

template <typename T>
void write(const Matrix<T>& matrix, int64_t column, int64_t rows, const float* y) {
  T kept[kMaxRows * kColumns];
  for (int64_t i = 0; i < rows * kColumns; ++i) store(kept + i, y[i]);
  const int64_t size = std::min<int64_t>(kColumns, matrix.columns - column) * sizeof(T);
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(matrix.out + row * matrix.columns + column, kept + row * kColumns, size);
  }
}

inline int64_t tiles_of(int64_t columns) { return (columns + kColumns - 1) / kColumns; }

// run(tile) for all tiles, each thread's in one range: it reads weights in order of memory.
template <typename Run>
void share_out(int64_t tiles, int64_t inner, Run run) {
#pragma omp parallel if (tiles * kColumns * inner > kSerial)
  {
    const int64_t threads = omp_get_num_threads(), self = omp_get_thread_num();
    for (int64_t t = tiles * self / threads; t < tiles * (self + 1) / threads; ++t) run(t);
  }
}

// out of `up` = silu(gate) * up, each rounded before the next as the models do.
template <typename T>
void gated(const T* x, int64_t rows, int64_t inner, const Matrix<T>& gate, const Matrix<T>& up) {
  share_out(tiles_of(up.columns), 2 * inner, [=](int64_t tile) {
    Four g[kMaxRows], u[kMaxRows];
    columns_of(gate, tile * kColumns, x, rows, inner, g);
    columns_of(up, tile * kColumns, x, rows, inner, u);
    float *a = reinterpret_cast<float*>(g), *b = reinterpret_cast<float*>(u);
    for (int64_t i = 0; i < rows * kColumns; ++i) {
      const float value = rounded<T>(a[i]), decay = fast_exp(-std::abs(value));
      const float silu = value * (value < 0 ? decay : 1.0f) / (1.0f + decay);
      b[i] = rounded<T>(silu) * rounded<T>(b[i]);
    }
    write(up, tile * kColumns, rows, b);
  });
}

}  // namespace

template <typename T>
void project(const T* x, int64_t rows, int64_t inner, const Matrix<T>* matrices, int64_t count) {
  int64_t tiles = 0;
  for (int64_t m = 0; m < count; ++m) tiles += tiles_of(matrices[m].columns);
  share_out(tiles, inner, [=](int64_t tile) {
    const Matrix<T>* matrix = matrices;
    for (; tile >= tiles_of(matrix->columns); ++matrix) tile -= tiles_of(matrix->columns);
    Four y[kMaxRows];
    columns_of(*matrix, tile * kColumns, x, rows, inner, y);
    write(*matrix, tile * kColumns, rows, reinterpret_cast<float*>(y));
  });
}

template <typename T>
void mlp(const T* x, int64_t rows, int64_t inner, const Matrix<T>& gate, const Matrix<T>& up,
         const Matrix<T>& down) {
  gated(x, rows, inner, gate, up);
  project<T>(up.out, rows, up.columns, &down, 1);
}

template decltype(project<float>) project<float>;
template decltype(project<bf16>) project<bf16>;
template decltype(mlp<float>) mlp<float>;
template decltype(mlp<bf16>) mlp<bf16>;

}  // namespace seer_ray
