// CPU paths of attend.py, prefill.py and score.py: no copy of K or V, every row computed alone and in a fixed order, so
// its bits do not depend on its batch mates.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "operations.h"
#include "vectors.h"

namespace seer_ray {

namespace {

constexpr int kMaxBlock = 256, kMaxDim = 256;
constexpr int kApart = kMaxBlock + kColumns;  // between rows of logits, which are written in fours

constexpr int64_t kAhead = 4096;  // bytes between what is read and what is asked for: pages lie anywhere

// Whether vectors of DIM numbers, of those known at compile time, end with a whole one.
template <int DIM>
constexpr bool kWhole = DIM > 0 && DIM % kLanes == 0;

template <typename T>
inline void prefetch(const T* from, int64_t count) {
  const char* at = reinterpret_cast<const char*>(from);
  const char* end = reinterpret_cast<const char*>(from + count);
  for (; at < end; at += kLine) __builtin_prefetch(at);
}

// out[ROWS][4] = q [ROWS, stride] times four keys.
template <typename T, int DIM, int ROWS>
[[gnu::always_inline]] inline void logits_tile(const float* q, int64_t stride, const T* const* keys, int64_t dim,
                                               Four* out) {
  Floats sum[ROWS][kColumns] = {};
  for (int64_t d = 0; d < dim; d += kLanes) {
    Floats row[ROWS];
    each<ROWS>([&](auto r) __attribute__((always_inline)) {
      row[r] = floats(q + r * stride + d);
      keep(row[r]);
    });
    each<kColumns>([&](auto c) __attribute__((always_inline)) {
      Floats key = floats<kWhole<DIM>>(keys[c] + d, dim - d);
      keep(key);
      each<ROWS>([&](auto r) __attribute__((always_inline)) {
        sum[r][c] += row[r] * key;
        keep(sum[r][c]);
      });
    });
  }
  each<ROWS>([&](auto r) __attribute__((always_inline)) { out[r] = sums(sum[r]); });
}

// out [ROWS, apart] = out * shrink + p [ROWS, kApart] times values [from, to), of COUNT vectors and `left` numbers. Each
// value asks for as much from `ahead`, from `to` - `near` on from `next`; null: for nothing.
template <typename T, int DIM, int ROWS, int COUNT>
[[gnu::always_inline]] inline void values_tile(const float* p, const T* values, int64_t from, int64_t to, int64_t left,
                                               int64_t dim, const float* shrink, float* out, int64_t apart,
                                               const T* ahead, const T* next, int64_t near) {
  Floats sum[ROWS][COUNT];
  each<ROWS>([&](auto r) __attribute__((always_inline)) {
    each<COUNT>([&](auto c) __attribute__((always_inline)) {
      sum[r][c] = floats<kWhole<DIM>>(out + r * apart + c * kLanes, left - c * kLanes) * shrink[r];
    });
  });
  for (int64_t t = from; t < to; ++t) {
    if (ahead) prefetch((t < to - near ? ahead : next) + t * dim, dim);
    Floats weight[ROWS];
    each<ROWS>([&](auto r) __attribute__((always_inline)) {
      weight[r] = Floats{} + p[r * kApart + t];
      keep(weight[r]);
    });
    each<COUNT>([&](auto c) __attribute__((always_inline)) {
      Floats value = floats<kWhole<DIM>>(values + t * dim + c * kLanes, left - c * kLanes);
      keep(value);
      each<ROWS>([&](auto r) __attribute__((always_inline)) {
        sum[r][c] += weight[r] * value;
        keep(sum[r][c]);
      });
    });
  }
  each<ROWS>([&](auto r) __attribute__((always_inline)) {
    each<COUNT>([&](auto c) __attribute__((always_inline)) {
      const int64_t count = kWhole<DIM> ? kLanes : std::min(kLanes, left - c * kLanes);
      std::memcpy(out + r * apart + c * kLanes, &sum[r][c], count * sizeof(float));
    });
  });
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

// run(first, constant number) for all of `count`, MOST at a time.
template <int MOST, typename Run>
inline void by_tiles(int64_t count, Run run) {
  for (int64_t first = 0; first < count; first += MOST) {
    with_constant<MOST>(std::min<int64_t>(MOST, count - first), [&](auto number) { run(first, number); });
  }
}

// What some queries of one KV head see: `per` of a token, of which the first one sees `tokens` from the first page on,
// each token one more than the one before it; window: the last ones only, -1: all. skip: of page 0 nobody sees so many.
struct Seen {
  int64_t rows, per, tokens, skip, window;
  int64_t filled = rows;  // with rows of no meaning, up to whole tiles

  int64_t most() const { return tokens + (rows - 1) / per; }
  int64_t last(int64_t row) const { return tokens + row / per; }
  int64_t first(int64_t row) const { return window < 0 ? skip : std::max(skip, last(row) - window); }
};

// Online softmax of queries [rows, stride] over pages [first, last) of one KV head.
// partial: rows x (max, sum, out[dim]). logits: rows x kApart, of no meaning afterwards. DIM is the head dim where it is
// known at compile time, else 0. scales: of each vector of kv, where it is int8.
template <typename T, int DIM>
void attend_split(const float* q, int64_t stride, const T* kv, const float* scales, const int64_t* pages, int64_t first,
                  int64_t last, const Seen& seen, int64_t head, int64_t heads, int64_t block, int64_t dim_,
                  float* partial, float* logits, float* shrink) {
  const int64_t dim = DIM ? DIM : dim_;
  const int64_t ahead = std::min(block, kAhead / static_cast<int64_t>(dim * sizeof(T)));
  for (int64_t r = 0; r < seen.filled; ++r) {
    shrink[r] = 0.0f;
    float* state = partial + r * (dim + 2);
    state[0] = -std::numeric_limits<float>::infinity();
    std::fill(state + 1, state + 2 + dim, 0.0f);
  }
  for (int64_t i = first; i < last; ++i) {
    const int64_t at = (pages[i] * heads + head) * 2 * block;
    const T *k = kv + at * dim, *v = k + block * dim;
    const int64_t here = std::min(block, seen.most() - i * block);
    const int64_t from = std::min(here, std::max<int64_t>(0, seen.first(0) - i * block));
    const T* next = i + 1 < last ? kv + (pages[i + 1] * heads + head) * 2 * block * dim : k;
    for (int64_t t = from; t < here; t += kColumns) {
      const T* keys[kColumns];
      for (int c = 0; c < kColumns; ++c) {
        const int64_t token = std::min(t + c, here - 1);
        keys[c] = k + token * dim;
        prefetch(token + ahead < here ? k + (token + ahead) * dim : v + (token + ahead - here) * dim, dim);
      }
      by_tiles<kTileRows>(seen.filled, [&](int64_t r, auto rows) {
        Four found[rows];
        logits_tile<T, DIM, rows>(q + r * stride, stride, keys, dim, found);
        for (int j = 0; j < rows; ++j) std::memcpy(logits + (r + j) * kApart + t, found + j, sizeof(Four));
      });
    }
    for (int64_t r = 0; r < seen.rows; ++r) {
      float* state = partial + r * (dim + 2);
      float* row = logits + r * kApart;
      const int64_t begin = std::max<int64_t>(0, seen.first(r) - i * block), end = std::min(here, seen.last(r) - i * block);
      if (begin >= end) {
        std::fill(row + from, row + here, 0.0f);
        shrink[r] = 1.0f;
        continue;
      }
      if (std::is_same_v<T, int8_t>) {
        for (int64_t t = begin; t < end; ++t) row[t] *= scales[at + t];
      }
      float peak = state[0];
      for (int64_t t = begin; t < end; ++t) peak = std::max(peak, row[t]);
      shrink[r] = std::isinf(state[0]) ? 0.0f : fast_exp(state[0] - peak);
      float sum = 0.0f;
      for (int64_t t = begin; t < end; ++t) sum += row[t] = fast_exp(row[t] - peak);
      state[0] = peak;
      state[1] = state[1] * shrink[r] + sum;
      if (std::is_same_v<T, int8_t>) {
        for (int64_t t = begin; t < end; ++t) row[t] *= scales[at + block + t];
      }
      std::fill(row + from, row + begin, 0.0f);
      std::fill(row + end, row + here, 0.0f);
    }
    by_tiles<kTileRows>(seen.filled, [&](int64_t r, auto rows) {
      by_tiles<kColumns>((dim + kLanes - 1) / kLanes, [&](int64_t vector, auto count) {
        const int64_t d = vector * kLanes;
        const T* asked = r || vector ? nullptr : v + ahead * dim;  // once for each value
        values_tile<T, DIM, rows, count>(logits + r * kApart, v + d, from, here, dim - d, dim, shrink + r,
                                         partial + r * (dim + 2) + 2 + d, dim + 2, asked,
                                         next + (ahead - here) * dim, ahead);
      });
    });
  }
}

// `count` vectors of q as floats times scale, in rows filled up with zeros to whole vectors.
template <typename Q>
void scale_queries(const Q* q, int64_t count, int64_t dim, float scale, int64_t stride, float* to) {
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t d = 0; d < dim; ++d) to[row * stride + d] = load(q[row * dim + d]) * scale;
    std::fill(to + row * stride + dim, to + (row + 1) * stride, 0.0f);
  }
}

inline int64_t stride_of(int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }

// exp(sum of a row with sinks) / exp(its peak): what its values are divided by.
inline float with_sink(const float* state, const float* sinks, int64_t head) {
  return sinks ? state[1] + std::exp(sinks[head] - state[0]) : state[1];  // may be infinite
}

// WIDTH is the summaries' width where it is known at compile time, else 0.
template <typename T, int WIDTH>
void score_of(const float* features, const T* summary, const int64_t* table, int64_t table_stride,
           const int64_t* lengths, float* out, int64_t rows, int64_t heads, int64_t vectors,
           int64_t width_, int64_t pages, int64_t block) {
  const int64_t width = WIDTH ? WIDTH : width_;
  const int64_t ahead = std::max<int64_t>(1, kAhead / static_cast<int64_t>(width * sizeof(T)));
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t complete = lengths[row] / block;
      const int64_t* physical = table + row * table_stride;
      const float* f = features + (row * heads + head) * vectors * width;
      float* to = out + (row * heads + head) * pages;
      auto at = [&](int64_t i) { return summary + (physical[i] * heads + head) * width; };
      for (int64_t i = 0; i < pages; ++i) {
        float best = -std::numeric_limits<float>::infinity();
        if (i + ahead < complete) prefetch(at(i + ahead), width);
        if (i < complete) {
          const T* s = at(i);
          for (int64_t n = 0; n < vectors; ++n) {
            float dot = 0.0f;
            for (int64_t d = 0; d < width; ++d) dot += f[n * width + d] * load(s[d]);
            best = std::max(best, dot);
          }
        }
        to[i] = best;
      }
    }
  }
}

}  // namespace

template <typename Q, typename T>
void attend(const Q* q, const T* kv, const float* scales, const int64_t* page_ids, int64_t row_stride,
            int64_t head_stride, const int64_t* counts, const int64_t* tails, const int64_t* skips,
            const int64_t* starts, const int64_t* lives, const float* sinks, Q* out, float* workspace, int64_t rows,
            int64_t heads, int64_t group, int64_t block, int64_t dim, int64_t width, int64_t split, int64_t window,
            int64_t most, float scale) {
  const int64_t splits = (width + split - 1) / split, size = dim + 2, stride = stride_of(dim);
  const auto live = [=](int64_t row) { return lives ? lives[row] : 1; };
  const auto start = [=](int64_t row) { return starts ? starts[row] : row; };
  // Partial results of a row, KV head and split, [queries, group, size].
  const auto kept = [=](int64_t row, int64_t head, int64_t part) {
    return workspace + (start(row) * heads * splits + (head * splits + part) * live(row)) * group * size;
  };
#pragma omp parallel
  {
    static thread_local std::vector<float> own;
    own.resize(std::max<size_t>(own.size(), most * group * (stride + kApart + 1) + kLine));
    float* scaled = own.data() + (kLine - reinterpret_cast<uintptr_t>(own.data()) % kLine) / sizeof(float);
    float *logits = scaled + most * group * stride, *shrink = logits + most * group * kApart;
#pragma omp for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < rows * heads * splits; ++unit) {
      const int64_t row = unit / (heads * splits), head = unit / splits % heads, part = unit % splits;
      const int64_t count = counts[row * heads + head], first = part * split, queries = live(row);
      if (first >= count || queries == 0) continue;
      for (int64_t j = 0; j < queries; ++j) {
        scale_queries(q + ((start(row) + j) * heads + head) * group * dim, group, dim, scale, stride,
                      scaled + j * group * stride);
      }
      const Seen seen{queries * group, group, (count - 1) * block + tails[row] - (queries - 1), skips ? skips[row] : 0,
                      window};
      auto run = dim == 64 ? attend_split<T, 64> : dim == 128 ? attend_split<T, 128> : attend_split<T, 0>;
      run(scaled, stride, kv, scales, page_ids + row * row_stride + head * head_stride, first,
          std::min(first + split, count), seen, head, heads, block, dim, kept(row, head, part), logits, shrink);
    }
    // In order of position, so that the sum is the same whichever thread finished first.
#pragma omp for schedule(static)
    for (int64_t item = 0; item < rows * heads * group; ++item) {
      const int64_t pair = item / group, row = pair / heads, head = pair % heads, h = item % group, queries = live(row);
      for (int64_t j = 0; j < queries; ++j) {
        // What a query does not see changes nothing: its sums are those of a row of its own.
        const int64_t seen = (counts[pair] - 1) * block + tails[row] - (queries - 1) + j;
        const int64_t used = ((seen - 1) / block + split) / split;
        const float* state = kept(row, head, 0) + (j * group + h) * size;
        const int64_t apart = queries * group * size;
        float peak = state[0], total = 0.0f, result[kMaxDim] = {};
        for (int64_t s = 1; s < used; ++s) peak = std::max(peak, state[s * apart]);
        for (int64_t s = 0; s < used; ++s) {
          const float weight = fast_exp(state[s * apart] - peak);
          total += weight * state[s * apart + 1];
          for (int64_t d = 0; d < dim; ++d) result[d] += weight * state[s * apart + 2 + d];
        }
        if (sinks) total += std::exp(sinks[head * group + h] - peak);  // may be infinite
        Q* to = out + ((start(row) + j) * heads * group + head * group + h) * dim;
        for (int64_t d = 0; d < dim; ++d) store(to + d, result[d] / total);
      }
    }
  }
}

template <typename Q, typename T>
void prefill(const Q* q, const T* kv, const float* scales, const int64_t* work, const int64_t* table,
             int64_t table_stride, const int64_t* page_ids, int64_t row_stride, int64_t head_stride,
             const int64_t* counts, const float* sinks, Q* out, int64_t tiles, int64_t q_heads, int64_t heads,
             int64_t lists, int64_t block, int64_t dim, int64_t window, float scale) {
  const int64_t group = q_heads / lists;  // query heads of a list
  const int64_t stride = stride_of(dim);
#pragma omp parallel
  {
    static thread_local std::vector<float> kept;
    // Rows are filled up to whole tiles: of what a row's tile is made does not depend on the number of them.
    const int64_t most = (block * group + kTileRows - 1) / kTileRows * kTileRows;
    kept.resize(std::max<size_t>(kept.size(), most * (stride + kApart + 1 + dim + 2)));
    float *scaled = kept.data(), *logits = scaled + most * stride, *shrink = logits + most * kApart;
    float* partial = shrink + most;
#pragma omp for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < tiles * lists; ++unit) {
      const int64_t *tile = work + unit / lists * 6, list = unit % lists, head = list * heads / lists;
      const int64_t index = tile[0], at = tile[2], start = tile[3], number = tile[4] - start, first = tile[5];
      const int64_t rows = number * group, filled = (rows + kTileRows - 1) / kTileRows * kTileRows;
      const int64_t* pages = page_ids ? page_ids + index * row_stride + list * head_stride : table + tile[1] * table_stride;
      const int64_t count = page_ids ? counts[index * lists + list] : at + 1;
      for (int64_t token = 0; token < number; ++token) {
        scale_queries(q + ((first + token) * lists + list) * group * dim, group, dim, scale, stride,
                      scaled + token * group * stride);
      }
      std::fill(scaled + rows * stride, scaled + filled * stride, 0.0f);
      const Seen seen{rows, group, (count - 1) * block + start % block + 1, 0, page_ids ? -1 : window, filled};
      const int64_t from = seen.first(0) / block;
      auto run = dim == 64 ? attend_split<T, 64> : dim == 128 ? attend_split<T, 128> : attend_split<T, 0>;
      run(scaled, stride, kv, scales, pages, from, count, seen, head, heads, block, dim, partial, logits, shrink);
      for (int64_t row = 0; row < rows; ++row) {
        const float* state = partial + row * (dim + 2);
        const int64_t query = list * group + row % group;
        const float total = with_sink(state, sinks, query);
        Q* to = out + ((first + row / group) * q_heads + query) * dim;
        for (int64_t d = 0; d < dim; ++d) store(to + d, state[2 + d] / total);
      }
    }
  }
}

template <typename T>
void score(const float* features, const T* summary, const int64_t* table, int64_t table_stride,
           const int64_t* lengths, float* out, int64_t rows, int64_t heads, int64_t vectors, int64_t width,
           int64_t pages, int64_t block) {
  auto run = width == 64 ? score_of<T, 64> : width == 128 ? score_of<T, 128> : score_of<T, 0>;
  run(features, summary, table, table_stride, lengths, out, rows, heads, vectors, width, pages, block);
}

template decltype(prefill<float, float>) prefill<float, float>;
template decltype(prefill<bf16, bf16>) prefill<bf16, bf16>;
template decltype(prefill<float, int8_t>) prefill<float, int8_t>;
template decltype(attend<float, float>) attend<float, float>;
template decltype(attend<bf16, bf16>) attend<bf16, bf16>;
template decltype(attend<float, int8_t>) attend<float, int8_t>;
template decltype(score<float>) score<float>;
template decltype(score<bf16>) score<bf16>;

}  // namespace seer_ray
