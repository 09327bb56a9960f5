// CPU paths of norm.py, append.py and gate_query.py: small operations on one row of the batch each, which cost more in
// calls than in work. Rows are computed alone and in a fixed order. Called through ctypes by cpu.py.

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "scalar.h"

namespace {

constexpr int kMaxDim = 256;
constexpr int64_t kSerial = 16384;  // numbers below which waking other threads costs more than it brings

template <typename T>
void rms_norm(const T* x, const T* weight, T* out, int64_t rows, int64_t width, float eps) {
#pragma omp parallel for schedule(static) if (rows * width > kSerial)
  for (int64_t row = 0; row < rows; ++row) {
    const T* from = x + row * width;
    T* to = out + row * width;
    float squares = 0.0f;
    for (int64_t i = 0; i < width; ++i) squares += load(from[i]) * load(from[i]);
    const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
    // Rounded before the weight, as the models do.
    for (int64_t i = 0; i < width; ++i) store(to + i, load(weight[i]) * rounded<T>(load(from[i]) * inverse));
  }
}

// Every product and sum rounded to T, as the models do. Both halves of the tables are read: they may differ.
template <typename T>
void rotate(const T* x, const float* cos, const float* sin, T* out, int64_t dim) {
  const int64_t half = dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float first = load(x[i]), second = load(x[i + half]);
    const float low = rounded<T>(first * rounded<T>(cos[i])) - rounded<T>(second * rounded<T>(sin[i]));
    const float high =
        rounded<T>(second * rounded<T>(cos[i + half])) + rounded<T>(first * rounded<T>(sin[i + half]));
    store(out + i, low);
    store(out + i + half, high);
  }
}

// See quantise.py, which rounds in the same places.
template <typename T>
void quantise(const T* x, int8_t* out, float* scale, int64_t dim) {
  float largest = 0x1p-100f;
  for (int64_t i = 0; i < dim; ++i) largest = std::max(largest, std::fabs(load(x[i])));
  // Rounded before it divides: volatile, or the compiler would make 127 / largest of it.
  const volatile float by = largest * (1.0f / 127.0f);
  const float inverse = 1.0f / by;
  *scale = by;
  for (int64_t i = 0; i < dim; ++i) out[i] = static_cast<int8_t>(std::nearbyint(load(x[i]) * inverse));
}

// S: of the cache, T or int8 with scales.
template <typename T, typename S>
void rotate_append(const T* q, const T* k, const T* v, const float* cos, const float* sin, S* kv,
                   float* scales, const int64_t* pages, const int64_t* offsets, T* out, int64_t tokens,
                   int64_t q_heads, int64_t heads, int64_t block, int64_t dim) {
#pragma omp parallel for schedule(static) if (tokens * q_heads * dim > kSerial)
  for (int64_t token = 0; token < tokens; ++token) {
    const float *c = cos + token * dim, *s = sin + token * dim;
    for (int64_t h = 0; h < q_heads; ++h) {
      const int64_t at = (token * q_heads + h) * dim;
      rotate(q + at, c, s, out + at, dim);
    }
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = (token * heads + h) * dim;
      const int64_t slot = ((pages[token] * heads + h) * 2) * block + offsets[token];
      S *key = kv + slot * dim, *value = key + block * dim;
      if constexpr (std::is_same_v<S, T>) {
        rotate(k + at, c, s, key, dim);
        std::memcpy(value, v + at, dim * sizeof(T));
      } else {
        std::vector<T> rotated(dim);
        rotate(k + at, c, s, rotated.data(), dim);
        quantise(rotated.data(), key, scales + slot, dim);
        quantise(v + at, value, scales + slot + block, dim);
      }
    }
  }
}

// The q branch of a gate: projection of a group's queries, RMSNorm (weight null: none), rotation (cos null: none).
// DIM is the gate's where it is known at compile time, else 0: the sums then stay in registers.
template <typename T, typename W, int DIM>
void gate_query(const T* q, const W* weight, const W* norm, const float* cos, const float* sin, float* out,
                int64_t rows, int64_t heads, int64_t inputs, int64_t dim_, float eps, float scale) {
  const int64_t dim = DIM ? DIM : dim_;
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t row = 0; row < rows; ++row) {
      const T* x = q + (row * heads + head) * inputs;
      const W* w = weight + head * inputs * dim;
      float y[DIM ? DIM : kMaxDim] = {};
      for (int64_t i = 0; i < inputs; ++i) {
        const float value = load(x[i]);
        for (int64_t d = 0; d < dim; ++d) y[d] += value * load(w[i * dim + d]);
      }
      if (norm) {
        float squares = 0.0f;
        for (int64_t d = 0; d < dim; ++d) squares += y[d] * y[d];
        const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
        for (int64_t d = 0; d < dim; ++d) y[d] *= inverse * load(norm[d]);
      }
      float* to = out + (row * heads + head) * dim;
      if (cos) {
        rotate(y, cos + row * dim, sin + row * dim, to, dim);
      } else {
        for (int64_t d = 0; d < dim; ++d) to[d] = y[d];
      }
      for (int64_t d = 0; d < dim; ++d) to[d] *= scale;
    }
  }
}

}  // namespace

extern "C" {

#define SEER_RAY_NORM(NAME, T)                                                                              \
  void rms_norm_##NAME(const void* x, const void* weight, void* out, int64_t rows, int64_t width,           \
                       float eps) {                                                                         \
    rms_norm(static_cast<const T*>(x), static_cast<const T*>(weight), static_cast<T*>(out), rows, width,    \
             eps);                                                                                          \
  }

#define SEER_RAY_APPEND(NAME, T, S)                                                                        \
  void rotate_append_##NAME(const void* q, const void* k, const void* v, const float* cos,                 \
                            const float* sin, void* kv, float* scales, const int64_t* pages,               \
                            const int64_t* offsets, void* out, int64_t tokens, int64_t q_heads,            \
                            int64_t heads, int64_t block, int64_t dim) {                                   \
    rotate_append(static_cast<const T*>(q), static_cast<const T*>(k), static_cast<const T*>(v), cos, sin,  \
                  static_cast<S*>(kv), scales, pages, offsets, static_cast<T*>(out), tokens, q_heads,      \
                  heads, block, dim);                                                                      \
  }

#define SEER_RAY_GATE(NAME, T, W)                                                                          \
  void gate_query_##NAME(const void* q, const void* weight, const void* norm, const float* cos,            \
                         const float* sin, float* out, int64_t rows, int64_t heads, int64_t inputs,        \
                         int64_t dim, float eps, float scale) {                                            \
    auto run = gate_query<T, W, 0>;                                                                        \
    if (dim == 64) run = gate_query<T, W, 64>;                                                             \
    if (dim == 128) run = gate_query<T, W, 128>;                                                           \
    run(static_cast<const T*>(q), static_cast<const W*>(weight), static_cast<const W*>(norm), cos, sin,    \
        out, rows, heads, inputs, dim, eps, scale);                                                        \
  }

SEER_RAY_NORM(float32, float)
SEER_RAY_NORM(bfloat16, bf16)
SEER_RAY_APPEND(float32_float32, float, float)
SEER_RAY_APPEND(bfloat16_bfloat16, bf16, bf16)
SEER_RAY_APPEND(float32_int8, float, int8_t)
SEER_RAY_APPEND(bfloat16_int8, bf16, int8_t)
SEER_RAY_GATE(float32_float32, float, float)
SEER_RAY_GATE(float32_bfloat16, float, bf16)
SEER_RAY_GATE(bfloat16_float32, bf16, float)
SEER_RAY_GATE(bfloat16_bfloat16, bf16, bf16)
}
