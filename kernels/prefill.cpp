// CPU path of prefill.py for selected pages: pages that are not listed are not touched. Every row is a lane of its own,
// computed in the order of its list, so neither its mates nor the places where chunks begin and end change a bit.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "operations.h"

namespace seer_ray {

namespace {

constexpr int kLanes = 16, kRows = 4;
typedef float vec __attribute__((vector_size(kLanes * sizeof(float))));

inline vec at(const float* from) {
  vec value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline void put(float* to, vec value) { std::memcpy(to, &value, sizeof value); }

// kRows rows and WIDE vectors of c += a b. a(m, k) = a[m * row + k * step], b [inner, lanes], c [.., lanes].
template <int WIDE>
inline void multiply(const float* a, int64_t row, int64_t step, const float* b, float* c, int64_t count, int64_t inner,
                     int64_t lanes) {
  vec sums[kRows][WIDE];
  const float* from[kRows];
  for (int r = 0; r < kRows; ++r) {
    from[r] = a + std::min<int64_t>(r, count - 1) * row;
    for (int i = 0; i < WIDE; ++i) sums[r][i] = at(c + std::min<int64_t>(r, count - 1) * lanes + i * kLanes);
  }
  for (int64_t k = 0; k < inner; ++k) {
    vec right[WIDE];
    for (int i = 0; i < WIDE; ++i) right[i] = at(b + k * lanes + i * kLanes);
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < WIDE; ++i) sums[r][i] += from[r][k * step] * right[i];
  }
  for (int r = 0; r < kRows && r < count; ++r)
    for (int i = 0; i < WIDE; ++i) put(c + r * lanes + i * kLanes, sums[r][i]);
}

void multiply_all(const float* a, int64_t row, int64_t step, const float* b, float* c, int64_t rows, int64_t inner,
                  int64_t lanes) {
  for (int64_t m = 0; m < rows; m += kRows) {
    const int64_t count = std::min<int64_t>(kRows, rows - m);
    int64_t lane = 0;
    for (; lane + 4 * kLanes <= lanes; lane += 4 * kLanes)
      multiply<4>(a + m * row, row, step, b + lane, c + m * lanes + lane, count, inner, lanes);
    for (; lane < lanes; lane += kLanes)
      multiply<1>(a + m * row, row, step, b + lane, c + m * lanes + lane, count, inner, lanes);
  }
}

const float* as_float(const float* from, int64_t, float*) { return from; }

const float* as_float(const bf16* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = load(from[i]);
  return to;
}

struct Scratch {
  std::vector<float> q, logits, out, k, v, peak, total, shrink;
};

}  // namespace

// q [tokens, q_heads, dim] with a stride of rows, out the same without. tiles [tiles, 3]: packed index of the first
// token, its offset in its page, tokens. page_ids [tiles, lists, width], counts [tiles, lists]; lists are the KV heads or the
// query heads.
template <typename T>
void prefill_tiles(const T* q, int64_t q_stride, const T* kv, const int64_t* tiles, const int64_t* page_ids,
                   const int64_t* counts, T* out, int64_t count, int64_t q_heads, int64_t heads, int64_t lists,
                   int64_t width, int64_t block, int64_t dim, float scale) {
  const int64_t group = q_heads / heads, members = q_heads / lists;
#pragma omp parallel
  {
    Scratch s;
    const int64_t most = (block + kLanes - 1) / kLanes * kLanes;
    for (auto* part : {&s.peak, &s.total, &s.shrink}) part->resize(most);
    for (auto* part : {&s.q, &s.out}) part->resize(dim * most);
    for (auto* part : {&s.k, &s.v}) part->resize(block * dim);
    s.logits.resize(block * most);
#pragma omp for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < count * q_heads; ++unit) {
      // The last tiles have the longest past: they do not begin last.
      const int64_t tile = count - 1 - unit / q_heads, q_head = unit % q_heads;
      const int64_t list = q_head / members, head = q_head / group;
      const int64_t first = tiles[tile * 3], offset = tiles[tile * 3 + 1], rows = tiles[tile * 3 + 2];
      const int64_t lanes = (rows + kLanes - 1) / kLanes * kLanes;
      const int64_t* pages = page_ids + (tile * lists + list) * width;
      const int64_t number = counts[tile * lists + list];
      float *queries = s.q.data(), *logits = s.logits.data(), *values = s.out.data();
      std::fill(queries, queries + dim * lanes, 0.0f);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t d = 0; d < dim; ++d)
          queries[d * lanes + r] = load(q[(first + r) * q_stride + q_head * dim + d]) * scale;
      std::fill(values, values + dim * lanes, 0.0f);
      std::fill(s.peak.begin(), s.peak.end(), -std::numeric_limits<float>::infinity());
      std::fill(s.total.begin(), s.total.end(), 0.0f);
      for (int64_t i = 0; i < number; ++i) {
        const bool own = i + 1 == number;
        const int64_t here = own ? offset + rows : block, place = (pages[i] * heads + head) * 2 * block * dim;
        const float* k = as_float(kv + place, here * dim, s.k.data());
        const float* v = as_float(kv + place + block * dim, here * dim, s.v.data());
        std::fill(logits, logits + here * lanes, 0.0f);
        multiply_all(k, dim, 1, queries, logits, here, dim, lanes);
        float *peak = s.peak.data(), *total = s.total.data(), *shrink = s.shrink.data();
        std::copy(peak, peak + lanes, shrink);
        if (own)  // the row of lane r sees its own token and those before it
          for (int64_t t = offset + 1; t < here; ++t)
            for (int64_t r = 0; r < std::min(t - offset, lanes); ++r)
              logits[t * lanes + r] = -std::numeric_limits<float>::infinity();
        for (int64_t t = 0; t < here; ++t)
          for (int64_t r = 0; r < lanes; ++r) peak[r] = std::max(peak[r], logits[t * lanes + r]);
        for (int64_t r = 0; r < lanes; ++r) {
          shrink[r] = fast_exp(shrink[r] - peak[r]);
          total[r] *= shrink[r];
        }
        for (int64_t t = 0; t < here; ++t)
          for (int64_t r = 0; r < lanes; ++r) {
            const float p = fast_exp(logits[t * lanes + r] - peak[r]);
            logits[t * lanes + r] = p;
          }
        if (own)  // exactly nothing, which fast_exp does not give
          for (int64_t t = offset + 1; t < here; ++t)
            std::fill(logits + t * lanes, logits + t * lanes + std::min(t - offset, lanes), 0.0f);
        for (int64_t t = 0; t < here; ++t)
          for (int64_t r = 0; r < lanes; ++r) total[r] += logits[t * lanes + r];
        for (int64_t d = 0; d < dim; ++d)
          for (int64_t r = 0; r < lanes; ++r) values[d * lanes + r] *= shrink[r];
        multiply_all(v, 1, dim, logits, values, dim, here, lanes);
      }
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t d = 0; d < dim; ++d)
          store(out + ((first + r) * q_heads + q_head) * dim + d, values[d * lanes + r] / s.total[r]);
    }
  }
}

template decltype(prefill_tiles<float>) prefill_tiles<float>;
template decltype(prefill_tiles<bf16>) prefill_tiles<bf16>;

}  // namespace seer_ray
