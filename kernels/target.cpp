// CPU path of target.py: the largest attention probability of each key block, from q, k and the logarithms of the rows'
// sums. Logits stay in registers. Rows are computed alone and in a fixed order.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "operations.h"

namespace seer_ray {

namespace {

constexpr int kLanes = 16, kRows = 4, kTile = 16;
typedef float vec __attribute__((vector_size(kLanes * sizeof(float))));

inline vec at(const float* from) {
  vec value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Largest products of kRows queries with kLanes * kWide keys, which lie one dimension after the other.
template <int kWide>
inline void largest(const float* const* q, const float* keys, int64_t dim, int64_t block, float* best) {
  vec sums[kRows][kWide] = {};
  for (int64_t d = 0; d < dim; ++d) {
    const float* key = keys + d * block;
    vec k[kWide];
    for (int i = 0; i < kWide; ++i) k[i] = at(key + i * kLanes);
    for (int r = 0; r < kRows; ++r)
      for (int i = 0; i < kWide; ++i) sums[r][i] += q[r][d] * k[i];
  }
  for (int r = 0; r < kRows; ++r) {
    vec top = sums[r][0];
    for (int i = 1; i < kWide; ++i) top = sums[r][i] > top ? sums[r][i] : top;
    for (int lane = 0; lane < kLanes; ++lane) best[r] = std::max(best[r], top[lane]);
  }
}

}  // namespace

// q [tokens, heads * group, dim] with the scale folded in, keys [heads, blocks, dim, block], sums [heads * group, tokens],
// out [tokens - first, heads, blocks] of zeros. block is a multiple of kLanes.
void target_max(const float* q, const float* keys, const float* sums, float* out, int64_t tokens, int64_t first,
                int64_t heads, int64_t group, int64_t dim, int64_t block, int64_t blocks) {
  const int64_t tiles = (tokens - first + kTile - 1) / kTile;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t reversed = 0; reversed < tiles; ++reversed) {
      const int64_t start = first + (tiles - 1 - reversed) * kTile, end = std::min(start + kTile, tokens);
      // Blocks that are earlier than any row's own; rows of an earlier block leave the last one out.
      const int64_t last = std::min((end - 1) / block, blocks);
      for (int64_t b = 0; b < last; ++b) {
        const float* block_keys = keys + (head * blocks + b) * dim * block;
        for (int64_t row = start; row < end; row += kRows) {
          float share[kRows] = {};
          for (int64_t g = 0; g < group; ++g) {
            const int64_t q_head = head * group + g;
            const float* queries[kRows];
            float best[kRows];
            for (int r = 0; r < kRows; ++r) {
              queries[r] = q + (std::min(row + r, end - 1) * heads * group + q_head) * dim;
              best[r] = -INFINITY;
            }
            int64_t c = 0;
            for (; c + 4 * kLanes <= block; c += 4 * kLanes) largest<4>(queries, block_keys + c, dim, block, best);
            for (; c < block; c += kLanes) largest<1>(queries, block_keys + c, dim, block, best);
            for (int r = 0; r < kRows && row + r < end; ++r)
              share[r] = std::max(share[r], std::exp(best[r] - sums[q_head * tokens + row + r]));
          }
          for (int r = 0; r < kRows && row + r < end; ++r)
            if (b < (row + r) / block) out[((row + r - first) * heads + head) * blocks + b] = share[r];
        }
      }
      for (int64_t row = start; row < end; ++row) {
        float* shares = out + ((row - first) * heads + head) * blocks;
        float total = 0.0f;
        for (int64_t b = 0; b < blocks; ++b) total += shares[b];
        if (total > 0.0f)
          for (int64_t b = 0; b < blocks; ++b) shares[b] /= total;
      }
    }
  }
}

}  // namespace seer_ray
