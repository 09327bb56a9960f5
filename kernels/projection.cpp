// CPU path of projection.py: products of any number of rows with weights, without a copy of the weights in another order.
//
// A tile is some rows of x times four rows of the weight, its sums in registers, so that x is read from the cache once
// for four rows. All rows of a band pass over a tile while its weights lie in the cache; where the rows are few, the next
// tile is asked for meanwhile, since the processor's own prefetching stops whenever old weights are read. Every element
// has one accumulator vector of its own for each stretch of the inner dimension, filled in order and summed as a fixed
// tree: its bits depend on nothing else, the number of rows least of all.
//
// Numbers of 16 bits are widened on the way where the CPU cannot multiply them: x once, a weight in registers where few
// rows pass over it, once into the cache where many do.

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
#include <vector>

#include "operations.h"
#include "vectors.h"

namespace seer_ray {

namespace {

constexpr int64_t kSerial = 65536;  // weights below which waking other threads costs more than it brings
constexpr int64_t kFew = 16;        // rows that are done before the weights have come from memory
constexpr int64_t kStretch = 4096;  // bytes of the inner dimension: those of a tile, and of its x, stay in the first cache
constexpr int64_t kBand = 128;      // rows of which a stretch stays in the second cache
constexpr int64_t kChunk = 16;      // tiles that a band passes over before the next stretch

// A vector of factors for each `part` of a vector of T: 16 bits are widened into the even and the odd ones.
template <typename T>
constexpr int kParts = sizeof(Factor<T>) / sizeof(T);
template <typename T>
constexpr int64_t kStep = kBytes / sizeof(T);  // numbers of a vector

template <typename T>
inline Words part_of(Words both, int part) {
  if constexpr (kParts<T> == 1) return both;
  return part ? both & 0xFFFF0000u : both << 16;
}

// run(Words) for every vector of `count` numbers, the last one filled up with zeros.
template <typename T, typename Run>
inline void vectors_of(const T* from, int64_t count, Run run) {
  int64_t i = 0;
  for (; i + kStep<T> <= count; i += kStep<T>) run(words(from + i));
  if (i < count) {
    T rest[kStep<T>] = {};
    std::memcpy(rest, from + i, (count - i) * sizeof(T));
    run(words(rest));
  }
}

// Numbers as factors, all parts of a vector one behind the other.
template <typename T>
void widen(const T* from, int64_t count, Factor<T>* to) {
  vectors_of(from, count, [&](Words both) {
    for (int part = 0; part < kParts<T>; ++part) {
      const Words one = part_of<T>(both, part);
      std::memcpy(to, &one, kBytes);
      to += kBytes / sizeof(Factor<T>);
    }
  });
}

// y[ROWS] += x [ROWS, count], its rows `stride` apart, times four rows of a weight. Each vector of theirs asks for
// `lines` lines from `ahead` on. x is filled up with zeros to whole vectors.
template <typename T, int ROWS>
void tile(const Factor<T>* x, int64_t stride, const T* const* weight, int64_t count, const char* ahead,
          int64_t lines, Four* y) {
  Floats sum[ROWS][kColumns] = {};
  const auto advance = [&](int64_t i, auto at) __attribute__((always_inline)) {
    each<kParts<T>>([&](auto part) __attribute__((always_inline)) {
      Words row[ROWS];
      each<ROWS>([&](auto r) __attribute__((always_inline)) {
        row[r] = words(x + r * stride + i + part * (kBytes / sizeof(Factor<T>)));
        keep(row[r]);
      });
      each<kColumns>([&](auto c) __attribute__((always_inline)) {
        Words w = part_of<T>(at(weight[c]), part);
        if (ROWS > 1) keep(w);
        each<ROWS>([&](auto r) __attribute__((always_inline)) { multiply_add(sum[r][c], w, row[r], Factor<T>()); });
      });
    });
  };
  int64_t i = 0;
  if (lines == 0) {
#pragma GCC unroll 2
    for (; i + kStep<T> <= count; i += kStep<T>) advance(i, [=](const T* from) { return words(from + i); });
  }
  for (; i + kStep<T> <= count; i += kStep<T>) {
    for (int64_t line = 0; line < lines; ++line, ahead += kLine) __builtin_prefetch(ahead, 0, 2);
    advance(i, [=](const T* from) { return words(from + i); });
  }
  if (i < count) {
    advance(i, [=](const T* from) {
      T rest[kStep<T>] = {};
      std::memcpy(rest, from + i, (count - i) * sizeof(T));
      return words(rest);
    });
  }
  each<ROWS>([&](auto r) __attribute__((always_inline)) { y[r] += sums(sum[r]); });
}

template <typename T, int ROWS = kTileRows>
void tile_of(int64_t rows, const Factor<T>* x, int64_t stride, const T* const* weight, int64_t count,
             const char* ahead, int64_t lines, Four* y) {
  if (rows == ROWS) {
    tile<T, ROWS>(x, stride, weight, count, ahead, lines, y);
  } else if constexpr (ROWS > 1) {
    tile_of<T, ROWS - 1>(rows, x, stride, weight, count, ahead, lines, y);
  }
}

// Some rows of x as factors, stretch by stretch, each row of a stretch filled up with zeros to whole vectors.
template <typename T>
class Band {
 public:
  Band(const T* x, int64_t rows, int64_t inner) : rows(rows), inner_(inner) {
    // Kept: it is as large in the next product.
    static thread_local std::vector<Factor<T>> kept;
    kept.resize(std::max<size_t>(kept.size(), rows * (inner + kStep<T>) + kLine));
    factors_ = reinterpret_cast<Factor<T>*>((reinterpret_cast<uintptr_t>(kept.data()) + kLine - 1) & -kLine);
    for (int64_t begin = 0; begin < inner; begin += kLength) {
      for (int64_t row = 0; row < rows; ++row) {
        widen(x + row * inner + begin, count(begin), factors_ + rows * begin + row * stride(begin));
      }
    }
  }

  // y[row * tiles] += four columns from `begin` to the end of its stretch.
  void add(const T* const* columns, int64_t begin, Four* y) const {
    const int64_t passes = (rows + kTileRows - 1) / kTileRows, share = (rows + passes - 1) / passes;
    const int64_t length = count(begin), apart = stride(begin);
    const Factor<T>* x = factors_ + rows * begin;
    const T* weight[kColumns];
    for (int c = 0; c < kColumns; ++c) weight[c] = columns[c] + begin;
    // Lines of the next tile per vector of each pass over this one, so that all passes together ask for all of it.
    const int64_t size = kColumns * length * sizeof(T);
    auto ahead = reinterpret_cast<const char*>(columns[0] + kColumns * inner_) + kColumns * begin * sizeof(T);
    const auto pass_over = [&](auto type, const auto* const* from, int64_t numbers) {
      using W = decltype(type);
      const int64_t vectors = std::max<int64_t>(1, numbers / kStep<W>);
      const int64_t lines = rows > kFew ? 0 : (size + passes * vectors * kLine - 1) / (passes * vectors * kLine);
      for (int64_t row = 0; row < rows; row += share, ahead += vectors * lines * kLine) {
        tile_of<W>(std::min(share, rows - row), x + row * apart, apart, from, numbers, ahead, lines, y + row);
      }
    };
    if constexpr (kParts<T> > 1) {
      if (passes > 2) {
        alignas(kLine) float wide[kColumns][kLength];
        const float* widened[kColumns];
        for (int c = 0; c < kColumns; ++c) {
          widen(weight[c], length, wide[c]);
          widened[c] = wide[c];
        }
        return pass_over(float(), widened, apart);
      }
    }
    pass_over(T(), weight, length);
  }

  static constexpr int64_t kLength = kStretch / sizeof(Factor<T>);  // numbers of a stretch
  const int64_t rows;

 private:
  int64_t count(int64_t begin) const { return std::min(kLength, inner_ - begin); }
  int64_t stride(int64_t begin) const { return (count(begin) + kStep<T> - 1) / kStep<T> * kStep<T>; }

  int64_t inner_;
  Factor<T>* factors_;
};

// y [tiles, rows] = x W^T + bias for the four columns of each tile from `column` on; past the last one, that one again.
template <typename T>
void columns_of(const Matrix<T>& matrix, int64_t column, int64_t tiles, const Band<T>& x, int64_t inner, Four* y) {
  std::memset(y, 0, tiles * x.rows * sizeof(Four));
  for (int64_t begin = 0; begin < inner; begin += Band<T>::kLength) {
    for (int64_t t = 0; t < tiles; ++t) {
      const T* weight[kColumns];
      for (int c = 0; c < kColumns; ++c) {
        weight[c] = matrix.weight + std::min(column + t * kColumns + c, matrix.columns - 1) * inner;
      }
      x.add(weight, begin, y + t * x.rows);
    }
  }
  if (!matrix.bias) return;
  for (int64_t t = 0; t < tiles; ++t) {
    Four bias;
    for (int c = 0; c < kColumns; ++c) bias[c] = load(matrix.bias[std::min(column + t * kColumns + c, matrix.columns - 1)]);
    for (int64_t row = 0; row < x.rows; ++row) y[t * x.rows + row] += bias;
  }
}

// Those columns of the rows from `first` on.
template <typename T>
void write(const Matrix<T>& matrix, int64_t column, int64_t tiles, int64_t first, int64_t rows, const Four* y) {
  for (int64_t t = 0; t < tiles; ++t, column += kColumns) {
    const int64_t size = std::min<int64_t>(kColumns, matrix.columns - column) * sizeof(T);
    for (int64_t row = 0; row < rows; ++row) {
      T kept[kColumns];
      for (int c = 0; c < kColumns; ++c) store(kept + c, y[t * rows + row][c]);
      std::memcpy(matrix.out + (first + row) * matrix.columns + column, kept, size);
    }
  }
}

inline int64_t tiles_of(int64_t columns) { return (columns + kColumns - 1) / kColumns; }

// run(band, its first row, first tile, number of them) for all tiles of all bands, each thread's in one range: it reads
// weights in order of memory. `ends`: tiles before which one call has to end, ascending, the last one's all there are.
template <typename T, typename Run>
void share_out(const T* x, int64_t rows, int64_t inner, const std::vector<int64_t>& ends, Run run) {
  const int64_t bands = (rows + kBand - 1) / kBand, height = (rows + bands - 1) / bands, tiles = ends.back();
  const int64_t most = rows > kFew ? kChunk : 1;
#pragma omp parallel if (tiles * kColumns * inner > kSerial)
  {
    const int64_t threads = omp_get_num_threads(), self = omp_get_thread_num();
    int64_t at = bands * tiles * self / threads;
    const int64_t end = bands * tiles * (self + 1) / threads;
    while (at < end) {
      const int64_t first = at / tiles * height, over = at / tiles * tiles;
      const Band<T> band(x + first * inner, std::min(height, rows - first), inner);
      const int64_t stop = std::min(end, over + tiles);
      for (int64_t next; at < stop; at = next) {
        next = std::min({stop, at + most, over + *std::upper_bound(ends.begin(), ends.end(), at - over)});
        run(band, first, at - over, next - at);
      }
    }
  }
}

// out of `up` = silu(gate) * up, each rounded before the next as the models do.
template <typename T>
void gated(const T* x, int64_t rows, int64_t inner, const Matrix<T>& gate, const Matrix<T>& up) {
  share_out(x, rows, inner, {tiles_of(up.columns)}, [&](const Band<T>& band, int64_t first, int64_t tile, int64_t tiles) {
    Four g[kChunk * kBand], u[kChunk * kBand];
    columns_of(gate, tile * kColumns, tiles, band, inner, g);
    columns_of(up, tile * kColumns, tiles, band, inner, u);
    float *a = reinterpret_cast<float*>(g), *b = reinterpret_cast<float*>(u);
    for (int64_t i = 0; i < tiles * band.rows * kColumns; ++i) {
      const float value = rounded<T>(a[i]), decay = fast_exp(-std::abs(value));
      const float silu = value * (value < 0 ? decay : 1.0f) / (1.0f + decay);
      b[i] = rounded<T>(silu) * rounded<T>(b[i]);
    }
    write(up, tile * kColumns, tiles, first, band.rows, u);
  });
}

}  // namespace

template <typename T>
void project(const T* x, int64_t rows, int64_t inner, const Matrix<T>* matrices, int64_t count) {
  std::vector<int64_t> ends;
  for (int64_t m = 0; m < count; ++m) ends.push_back((m ? ends.back() : 0) + tiles_of(matrices[m].columns));
  share_out(x, rows, inner, ends, [&](const Band<T>& band, int64_t first, int64_t tile, int64_t tiles) {
    const Matrix<T>* matrix = matrices;
    for (; tile >= tiles_of(matrix->columns); ++matrix) tile -= tiles_of(matrix->columns);
    Four y[kChunk * kBand];
    columns_of(*matrix, tile * kColumns, tiles, band, inner, y);
    write(*matrix, tile * kColumns, tiles, first, band.rows, y);
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
