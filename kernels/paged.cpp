// CPU paths of attend.py, prefill.py and score.py: no copy of K or V, every row computed alone and in a fixed order, so
// its bits do not depend on its batch mates.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "chunk.h"
#include "operations.h"

namespace seer_ray {

namespace {

constexpr int kMaxDim = 256;
constexpr int64_t kAhead = 4096;  // bytes between what is read and what is asked for: pages lie anywhere
constexpr float kSlack = 8.0f;    // powers of two by which weights may be above 1 before all are scaled down

inline void prefetch(const void* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(static_cast<const char*>(from) + at);
}

// What some queries of one KV head see: `per` of a token, of which the first one sees `tokens` from the first page on,
// each token one more than the one before it; window: the last ones only, -1: all. skip: of page 0 nobody sees so many.
struct Seen {
  int64_t rows, per, tokens, skip, window;

  int64_t most() const { return tokens + (rows - 1) / per; }
  int64_t last(int64_t row) const { return tokens + row / per; }
  int64_t first(int64_t row) const { return window < 0 ? skip : std::max(skip, last(row) - window); }
};

// The pages of one KV head, in the order of a list.
template <typename T>
struct Pages {
  const T* kv;
  const float* scales;  // of each vector, where they are int8
  const int64_t* ids;
  int64_t head, heads, block, dim;
};

// Where tokens of a chunk stand.
template <typename T>
struct Place {
  const char *keys[kChunk<T>], *values[kChunk<T>];
  float key_scales[kChunk<T>], value_scales[kChunk<T>];
  int64_t count;

  void find(const Pages<T>& in, int64_t begin, int64_t end) {
    count = std::max<int64_t>(0, std::min(kChunk<T>, end - begin));
    for (int64_t t = 0; t < count;) {
      const int64_t page = (begin + t) / in.block, offset = (begin + t) % in.block;
      int64_t slot = (in.ids[page] * in.heads + in.head) * 2 * in.block + offset;
      for (const int64_t stop = std::min(count, t + in.block - offset); t < stop; ++t, ++slot) {
        keys[t] = reinterpret_cast<const char*>(in.kv + slot * in.dim);
        values[t] = reinterpret_cast<const char*>(in.kv + (slot + in.block) * in.dim);
        if constexpr (std::is_same_v<T, int8_t>) {
          key_scales[t] = in.scales[slot];
          value_scales[t] = in.scales[slot + in.block];
        }
      }
    }
  }
};

// Online softmax of some queries of one KV head over the pages of a list. Logits are powers of two.
template <typename T>
class Rows {
 public:
  static int64_t size(int64_t rows, int64_t dim) {
    const int64_t depth = depth_of<T>(dim), columns = columns_of<T>(dim);
    return rows * (depth + kChunk<T> + columns + kLanes + 1) + kChunk<T> * (depth + columns);
  }

  Rows(float* memory, int64_t rows, int64_t dim, float scale)
      : dim_(dim), depth_(depth_of<T>(dim)), columns_(columns_of<T>(dim)), factor_(scale * kLog2e) {
    keys_ = reinterpret_cast<uint32_t*>(memory);
    values_ = keys_ + kChunk<T> * depth_;
    weights_ = reinterpret_cast<float*>(values_ + kChunk<T> * columns_);
    out_ = weights_ + rows * kChunk<T>;
    sums_ = out_ + rows * columns_;
    peaks_ = sums_ + rows * kLanes;
    queries_ = reinterpret_cast<uint32_t*>(peaks_ + rows);
    for (int64_t i = 0; i < depth_; ++i) key_rows_[i] = keys_ + i * kChunk<T>;
  }

  template <typename Q>
  void take(int64_t row, const Q* q) {
    uint32_t* to = queries_ + row * depth_;
    std::fill(to, to + depth_, 0);
    if constexpr (kPer<T> == 2) {
      std::memcpy(to, q, dim_ * sizeof(Q));
    } else {
      for (int64_t d = 0; d < dim_; ++d) {
        const float value = load(q[d]);
        std::memcpy(to + d, &value, sizeof value);
      }
    }
  }

  // Tokens [begin, end) of the list, as far as they are seen.
  void run(const Pages<T>& pages, int64_t begin, int64_t end, const Seen& seen) {
    std::fill(peaks_, peaks_ + seen.rows, -std::numeric_limits<float>::infinity());
    std::fill(sums_, sums_ + seen.rows * kLanes, 0.0f);
    end = std::min(end, seen.most());
    begin += std::max<int64_t>(0, seen.first(0) - begin) / kChunk<T> * kChunk<T>;
    Place<T> places[2], *now = places, *next = places + 1;
    now->find(pages, begin, end);
    const int64_t bytes = dim_ * sizeof(T);
    for (int64_t t = 0; t < now->count; ++t) {
      prefetch(now->keys[t], bytes);
      prefetch(now->values[t], bytes);
    }
    for (int64_t at = begin; at < end; at += kChunk<T>, std::swap(now, next)) {
      next->find(pages, at + kChunk<T>, end);
      const int64_t count = now->count, half = next->count / 2, rest = next->count - half;
      const int64_t steps = up_to(count, kPer<T>) / kPer<T>;
#if defined(__AVX512BF16__)
      if constexpr (kPer<T> == 2) {
        put_keys<T>(now->keys, count, dim_, keys_, Ahead(next->keys, half, bytes, depth_ * count / kLanes / kLanes));
        product<Factor<T>>(queries_, depth_, key_rows_, depth_, false, weights_, kChunk<T>, seen.rows,
                           up_to(count, kLanes), Ahead(next->keys + half, rest, bytes, depth_));
      } else
#endif
      {
        const auto run = dim_ == 64 ? dots<T, 64> : dim_ == 128 ? dots<T, 128> : dots<T, 0>;
        run(reinterpret_cast<float*>(queries_), depth_, now->keys, count, dim_, weights_, kChunk<T>, seen.rows,
            Ahead(next->keys, next->count, bytes, up_to(count, kColumns) / kColumns));
      }
      for (int64_t row = 0; row < seen.rows; ++row) {
        const int64_t from = std::max<int64_t>(0, seen.first(row) - at), to = std::min(count, seen.last(row) - at);
        soften(row, from, to, *now, at > begin);
      }
      if constexpr (kPer<T> == 1 && !std::is_same_v<T, float>) {
        // Few enough rows to read each value once: widened on the way.
        if (seen.rows <= kTileRows && columns_ == dim_ && seen.first(0) <= at) {
          const T* values[kChunk<T>];
          for (int64_t t = 0; t < count; ++t) values[t] = reinterpret_cast<const T*>(now->values[t]);
          product<float>(reinterpret_cast<uint32_t*>(weights_), kChunk<T>, values, count, at > begin, out_, columns_,
                         seen.rows, columns_, Ahead(next->values, next->count, bytes, count));
          continue;
        }
      }
      const uint32_t* value_rows[kChunk<T>];
      put_values<T>(now->values, std::max<int64_t>(0, seen.first(0) - at), count, dim_, values_, value_rows,
                    Ahead(next->values, half, bytes, steps));
      product<Factor<T>>(reinterpret_cast<uint32_t*>(weights_), kChunk<T>, value_rows, steps, at > begin, out_, columns_,
                         seen.rows, columns_, Ahead(next->values + half, rest, bytes, steps));
    }
  }

  float peak(int64_t row) const { return peaks_[row]; }

  float sum(int64_t row) const {
    float total = 0.0f;
    for (int64_t lane = 0; lane < kLanes; ++lane) total += sums_[row * kLanes + lane];
    return total;
  }

  void values(int64_t row, float* to) const { in_order<T>(out_ + row * columns_, dim_, to); }

 private:
  // A row's logits of a chunk, of which it sees [from, to), become weights.
  void soften(int64_t row, int64_t from, int64_t to, const Place<T>& place, bool adds) {
    float* x = weights_ + row * kChunk<T>;
    if (from >= to) {
      std::fill(x, x + kChunk<T>, 0.0f);
      return;
    }
    if constexpr (std::is_same_v<T, int8_t>) {
      for (int64_t t = from; t < to; ++t) x[t] *= place.key_scales[t];
    }
    const float least = -std::numeric_limits<float>::infinity();
    std::fill(x, x + from, least);
    std::fill(x + to, x + kChunk<T>, least);
    Floats logits[kVectors], top = Floats{} + least;
    each<kVectors>([&](auto v) __attribute__((always_inline)) {
      logits[v] = floats(x + v * kLanes) * factor_;
      top = logits[v] > top ? logits[v] : top;
    });
    if (any_above(top, Floats{} + (peaks_[row] + kSlack))) raise(row, top, adds);
    const float peak = peaks_[row];
    Floats sum = floats(sums_ + row * kLanes);
    each<kVectors>([&](auto v) __attribute__((always_inline)) {
      logits[v] = powers_of_two(logits[v] - peak);
      sum += logits[v];
    });
    std::memcpy(sums_ + row * kLanes, &sum, kBytes);
    put_weights(logits, x);
    if constexpr (std::is_same_v<T, int8_t>) {
      for (int64_t t = from; t < to; ++t) x[t] *= place.value_scales[t];
    }
  }

  // The peak is the largest of `top` from now on.
  void raise(int64_t row, Floats top, bool adds) {
    float peak = top[0];
    for (int64_t lane = 1; lane < kLanes; ++lane) peak = std::max(peak, top[lane]);
    const float shrink = fast_exp2(peaks_[row] - peak);
    peaks_[row] = peak;
    for (int64_t lane = 0; lane < kLanes; ++lane) sums_[row * kLanes + lane] *= shrink;
    if (adds) {
      for (int64_t d = 0; d < columns_; ++d) out_[row * columns_ + d] *= shrink;
    }
  }

  static void put_weights(const Floats* from, float* to) {
#if defined(__AVX512BF16__)
    if constexpr (kPer<T> == 2) {
      for (int v = 0; v < kVectors; v += 2) {
        const auto pairs = _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(from[v + 1]), reinterpret_cast<__m512>(from[v]));
        std::memcpy(to + v / 2 * kLanes, &pairs, kBytes);
      }
      return;
    }
#endif
    std::memcpy(to, from, kChunk<T> * sizeof(float));
  }

  static constexpr int kVectors = kChunk<T> / kLanes;
  int64_t dim_, depth_, columns_;
  float factor_;
  uint32_t *queries_, *keys_, *values_;
  const uint32_t* key_rows_[kMaxDim];
  float *weights_, *out_, *sums_, *peaks_;
};

// Memory of a thread, from the beginning of a line on.
float* scratch(int64_t size) {
  static thread_local std::vector<float> kept;
  kept.resize(std::max<size_t>(kept.size(), size + kLine));
  return kept.data() + (kLine - reinterpret_cast<uintptr_t>(kept.data()) % kLine) / sizeof(float);
}

// 2^(sum of a row with sinks) / 2^(its peak): what its values are divided by.
inline float with_sink(float sum, float peak, const float* sinks, int64_t head) {
  return sinks ? sum + std::exp2(sinks[head] * kLog2e - peak) : sum;  // may be infinite
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
        if (i + ahead < complete) prefetch(at(i + ahead), width * sizeof(T));
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
  const int64_t splits = (width + split - 1) / split, size = dim + 2;
  const auto live = [=](int64_t row) { return lives ? lives[row] : 1; };
  const auto start = [=](int64_t row) { return starts ? starts[row] : row; };
  // Partial results of a row, KV head and split, [queries, group, size]: peak, sum, values.
  const auto kept = [=](int64_t row, int64_t head, int64_t part) {
    return workspace + (start(row) * heads * splits + (head * splits + part) * live(row)) * group * size;
  };
#pragma omp parallel
  {
    Rows<T> own(scratch(Rows<T>::size(most * group, dim)), most * group, dim, scale);
#pragma omp for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < rows * heads * splits; ++unit) {
      const int64_t row = unit / (heads * splits), head = unit / splits % heads, part = unit % splits;
      const int64_t count = counts[row * heads + head], first = part * split, queries = live(row);
      if (first >= count || queries == 0) continue;
      for (int64_t j = 0; j < queries; ++j) {
        const Q* from = q + ((start(row) + j) * heads + head) * group * dim;
        for (int64_t h = 0; h < group; ++h) own.take(j * group + h, from + h * dim);
      }
      const Seen seen{queries * group, group, (count - 1) * block + tails[row] - (queries - 1), skips ? skips[row] : 0,
                      window};
      const Pages<T> pages{kv, scales, page_ids + row * row_stride + head * head_stride, head, heads, block, dim};
      own.run(pages, first * block, std::min(first + split, count) * block, seen);
      float* state = kept(row, head, part);
      for (int64_t r = 0; r < seen.rows; ++r, state += size) {
        state[0] = own.peak(r);
        state[1] = own.sum(r);
        own.values(r, state + 2);
      }
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
          const float weight = fast_exp2(state[s * apart] - peak);
          total += weight * state[s * apart + 1];
          for (int64_t d = 0; d < dim; ++d) result[d] += weight * state[s * apart + 2 + d];
        }
        total = with_sink(total, peak, sinks, head * group + h);
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
#pragma omp parallel
  {
    Rows<T> own(scratch(Rows<T>::size(block * group, dim)), block * group, dim, scale);
#pragma omp for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < tiles * lists; ++unit) {
      const int64_t *tile = work + unit / lists * 6, list = unit % lists, head = list * heads / lists;
      const int64_t index = tile[0], at = tile[2], start = tile[3], number = tile[4] - start, first = tile[5];
      const int64_t* ids = page_ids ? page_ids + index * row_stride + list * head_stride : table + tile[1] * table_stride;
      const int64_t count = page_ids ? counts[index * lists + list] : at + 1;
      for (int64_t row = 0; row < number * group; ++row) {
        own.take(row, q + (((first + row / group) * lists + list) * group + row % group) * dim);
      }
      const Seen seen{number * group, group, (count - 1) * block + start % block + 1, 0, page_ids ? -1 : window};
      own.run(Pages<T>{kv, scales, ids, head, heads, block, dim}, 0, count * block, seen);
      for (int64_t row = 0; row < seen.rows; ++row) {
        const int64_t query = list * group + row % group;
        const float total = with_sink(own.sum(row), own.peak(row), sinks, query);
        float result[kMaxDim];
        own.values(row, result);
        Q* to = out + ((first + row / group) * q_heads + query) * dim;
        for (int64_t d = 0; d < dim; ++d) store(to + d, result[d] / total);
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
