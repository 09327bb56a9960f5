// The CPU paths, by the types of what they read: float and bf16, the cache also int8_t with scales.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace seer_ray {

// Q: of queries and results. T: of the cache. skips and sinks null: none. A row has `lives` queries, `most` at most, the
// first of which is number `starts`; both null: one each, in order. window -1: none. workspace: queries of all rows *
// heads * (width / split, rounded up) * group * (dim + 2).
template <typename Q, typename T>
void attend(const Q* q, const T* kv, const float* scales, const int64_t* page_ids, int64_t row_stride,
            int64_t head_stride, const int64_t* counts, const int64_t* tails, const int64_t* skips,
            const int64_t* starts, const int64_t* lives, const float* sinks, Q* out, float* workspace, int64_t rows,
            int64_t heads, int64_t group, int64_t block, int64_t dim, int64_t width, int64_t split, int64_t window,
            int64_t most, float scale);

// work [tiles, 6]: index, chunk, block, position of the first token and of the one past the last, first packed token.
// page_ids null: all pages of the chunk. lists: of pages, one for each KV head or each query head. window -1: none.
template <typename Q, typename T>
void prefill(const Q* q, const T* kv, const float* scales, const int64_t* work, const int64_t* table,
             int64_t table_stride, const int64_t* page_ids, int64_t row_stride, int64_t head_stride,
             const int64_t* counts, const float* sinks, Q* out, int64_t tiles, int64_t q_heads, int64_t heads,
             int64_t lists, int64_t block, int64_t dim, int64_t window, float scale);

template <typename T>
void score(const float* features, const T* summary, const int64_t* table, int64_t table_stride,
           const int64_t* lengths, float* out, int64_t rows, int64_t heads, int64_t vectors, int64_t width,
           int64_t pages, int64_t block);

// What cuts a selection off before its budget, in the order of limits.py.
enum class Rule : int64_t { kCount, kThreshold, kMass };

// limits [heads, limits_stride]: blocks, fraction, level, sharpness, then the budgets where there are 1, 2, ... blocks.
void select(const float* scores, const int64_t* table, int64_t table_stride, const int64_t* lengths,
            const float* limits, int64_t limits_stride, int64_t* page_ids, int64_t* counts, int64_t rows,
            int64_t heads, int64_t pages, int64_t block, int64_t k, bool sink, Rule rule);

template <typename T>
void rms_norm(const T* x, const T* weight, T* out, int64_t rows, int64_t width, float eps);

// S: of the cache, T or int8 with scales.
template <typename T, typename S>
void rotate_append(const T* q, const T* k, const T* v, const float* cos, const float* sin, S* kv,
                   float* scales, const int64_t* pages, const int64_t* offsets, T* out, int64_t tokens,
                   int64_t q_heads, int64_t heads, int64_t block, int64_t dim);

// norm null: none. cos and sin null: no rotation.
template <typename T, typename W>
void gate_query(const T* q, const W* weight, const W* norm, const float* cos, const float* sin, float* out,
                int64_t rows, int64_t heads, int64_t inputs, int64_t dim, float eps, float scale);

template <typename T>
struct Matrix {
  const T* weight;  // [columns, inner]
  const T* bias;    // [columns] or null
  T* out;           // [rows, columns]
  int64_t columns;
};

// Each matrix's out = x W^T + bias.
template <typename T>
void project(const T* x, int64_t rows, int64_t inner, const Matrix<T>* matrices, int64_t count);

// down's out, by way of up's: down(silu(gate(x)) * up(x)).
template <typename T>
void mlp(const T* x, int64_t rows, int64_t inner, const Matrix<T>& gate, const Matrix<T>& up,
         const Matrix<T>& down);

// states [slots, heads, key_dim, value_dim], changed in place. q, k and v: rows apart by their strides.
template <typename T>
void delta_step(const T* q, const T* k, const T* v, const float* g, const T* b, float* states, const int64_t* slots,
                T* out, int64_t q_stride, int64_t k_stride, int64_t v_stride, int64_t rows, int64_t key_heads,
                int64_t heads, int64_t key_dim, int64_t value_dim, float eps);

// states [slots, channels, kernel], changed in place. bias null: none.
template <typename T>
void convolve_step(const T* x, T* states, const int64_t* slots, const T* weight, const T* bias, T* out, int64_t rows,
                   int64_t channels, int64_t kernel);

// q [tokens, heads * group, dim] with the scale folded in, keys [heads, blocks, dim, block], sums [heads * group, tokens],
// out [tokens - first, heads, blocks] of zeros. block is a multiple of kLanes.
void target_max(const float* q, const float* keys, const float* sums, float* out, int64_t tokens, int64_t first,
                int64_t heads, int64_t group, int64_t dim, int64_t block, int64_t blocks);

}  // namespace seer_ray
