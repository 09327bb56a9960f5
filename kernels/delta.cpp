// CPU paths of delta.py: states are read and written where they lie. A column of a state needs none of the others, so
// that threads share columns, not rows: every number is computed in a fixed order, and rows of one slot by turns.

#include <cmath>
#include <cstdint>

#include "operations.h"

namespace seer_ray {

namespace {

constexpr int kMaxDim = 256;
constexpr int64_t kTile = 64;       // columns of a state that a thread computes together: they stay in registers
constexpr int64_t kChannels = 512;  // of a convolution, likewise
constexpr int64_t kSerial = 65536;  // of its numbers, below which waking other threads costs more than it brings

template <typename T>
void normalise(const T* x, float* out, int64_t dim, float eps, float scale) {
  float squares = 0.0f;
  for (int64_t i = 0; i < dim; ++i) squares += load(x[i]) * load(x[i]);
  const float by = scale / std::sqrt(squares + eps);
  for (int64_t i = 0; i < dim; ++i) out[i] = load(x[i]) * by;
}

// COLUMNS: of the tile where they are known at compile time, else 0.
template <typename T, int COLUMNS>
void update(float* state, const float* q, const float* k, const T* v, float decay, float strength, T* out,
            int64_t key_dim, int64_t value_dim, int64_t columns_) {
  const int64_t columns = COLUMNS ? COLUMNS : columns_;
  float known[kTile] = {}, made[kTile] = {};
  for (int64_t i = 0; i < key_dim; ++i) {
    const float* row = state + i * value_dim;
    for (int64_t j = 0; j < columns; ++j) known[j] += row[j] * k[i];
  }
  for (int64_t j = 0; j < columns; ++j) known[j] = strength * (load(v[j]) - decay * known[j]);
  for (int64_t i = 0; i < key_dim; ++i) {
    float* row = state + i * value_dim;
    for (int64_t j = 0; j < columns; ++j) {
      row[j] = decay * row[j] + k[i] * known[j];
      made[j] += row[j] * q[i];
    }
  }
  for (int64_t j = 0; j < columns; ++j) store(out + j, made[j]);
}

// KERNEL: the kernel's width where it is known at compile time, else 0.
template <typename T, int KERNEL>
void convolve(const T* x, T* states, const T* weight, const T* bias, T* out, int64_t channels, int64_t kernel_) {
  const int64_t kernel = KERNEL ? KERNEL : kernel_;
  float sums[kChannels];
  for (int64_t c = 0; c < channels; ++c) {
    T* inputs = states + c * kernel;
    const T* w = weight + c * kernel;
    float sum = (bias ? load(bias[c]) : 0.0f) + load(x[c]) * load(w[kernel - 1]);
    for (int64_t i = 1; i < kernel; ++i) {
      sum += load(inputs[i]) * load(w[i - 1]);
      inputs[i - 1] = inputs[i];
    }
    inputs[kernel - 1] = x[c];
    sums[c] = rounded<T>(sum);
  }
  for (int64_t c = 0; c < channels; ++c) {
    const float small = fast_exp(-std::fabs(sums[c]));
    store(out + c, sums[c] * (sums[c] < 0.0f ? small : 1.0f) / (1.0f + small));
  }
}

}  // namespace

template <typename T>
void delta_step(const T* q, const T* k, const T* v, const float* g, const T* b, float* states, const int64_t* slots,
                T* out, int64_t q_stride, int64_t k_stride, int64_t v_stride, int64_t rows, int64_t key_heads,
                int64_t heads, int64_t key_dim, int64_t value_dim, float eps) {
  const int64_t tiles = (value_dim + kTile - 1) / kTile, served = heads / key_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(key_dim));
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * kTile, columns = std::min(kTile, value_dim - first);
      const auto run = columns == kTile ? update<T, kTile> : update<T, 0>;
      for (int64_t row = 0; row < rows; ++row) {
        float query[kMaxDim], key[kMaxDim];
        normalise(q + row * q_stride + head / served * key_dim, query, key_dim, eps, scale);
        normalise(k + row * k_stride + head / served * key_dim, key, key_dim, eps, 1.0f);
        const int64_t at = row * heads + head;
        run(states + (slots[row] * heads + head) * key_dim * value_dim + first, query, key,
            v + row * v_stride + head * value_dim + first, std::exp(g[at]), load(b[at]), out + at * value_dim + first,
            key_dim, value_dim, columns);
      }
    }
  }
}

template <typename T>
void convolve_step(const T* x, T* states, const int64_t* slots, const T* weight, const T* bias, T* out, int64_t rows,
                   int64_t channels, int64_t kernel) {
  const auto run = kernel == 4 ? convolve<T, 4> : convolve<T, 0>;
#pragma omp parallel for schedule(static) if (rows * channels > kSerial)
  for (int64_t first = 0; first < channels; first += kChannels) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = row * channels + first;
      run(x + at, states + (slots[row] * channels + first) * kernel, weight + first * kernel,
          bias ? bias + first : nullptr, out + at, std::min(kChannels, channels - first), kernel);
    }
  }
}

template decltype(delta_step<float>) delta_step<float>;
template decltype(delta_step<bf16>) delta_step<bf16>;
template decltype(convolve_step<float>) convolve_step<float>;
template decltype(convolve_step<bf16>) convolve_step<bf16>;

}  // namespace seer_ray
