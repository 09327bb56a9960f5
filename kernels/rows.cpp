// CPU paths of norm.py, append.py and gate_query.py: small operations on one row of the batch each, which cost more in
// calls than in work. Rows are computed alone and in a fixed order.

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "operations.h"

namespace seer_ray {

namespace {

constexpr int kMaxDim = 256;
constexpr int64_t kSerial = 16384;  // numbers below which waking other threads costs more than it brings

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

// The q branch of a gate: projection of a group's queries, RMSNorm (weight null: none), rotation (cos null: none).
// DIM is the gate's where it is known at compile time, else 0: the sums then stay in registers.
template <typename T, typename W, int DIM>
void gate_query_of(const T* q, const W* weight, const W* norm, const float* cos, const float* sin, float* out,
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

template <typename T, typename W>
void gate_query(const T* q, const W* weight, const W* norm, const float* cos, const float* sin, float* out,
                int64_t rows, int64_t heads, int64_t inputs, int64_t dim, float eps, float scale) {
  auto run = dim == 64 ? gate_query_of<T, W, 64> : dim == 128 ? gate_query_of<T, W, 128> : gate_query_of<T, W, 0>;
  run(q, weight, norm, cos, sin, out, rows, heads, inputs, dim, eps, scale);
}

template decltype(rms_norm<float>) rms_norm<float>;
template decltype(rms_norm<bf16>) rms_norm<bf16>;
template decltype(rotate_append<float, float>) rotate_append<float, float>;
template decltype(rotate_append<bf16, bf16>) rotate_append<bf16, bf16>;
template decltype(rotate_append<float, int8_t>) rotate_append<float, int8_t>;
template decltype(rotate_append<bf16, int8_t>) rotate_append<bf16, int8_t>;
template decltype(gate_query<float, float>) gate_query<float, float>;
template decltype(gate_query<float, bf16>) gate_query<float, bf16>;
template decltype(gate_query<bf16, float>) gate_query<bf16, float>;
template decltype(gate_query<bf16, bf16>) gate_query<bf16, bf16>;

}  // namespace seer_ray
