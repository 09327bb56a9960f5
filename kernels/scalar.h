// Storage types of the CPU paths: arithmetic is in float, results are rounded once, to nearest even. And exp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

struct bf16 {
  uint16_t bits;
};

inline float load(float x) { return x; }

inline float load(bf16 x) {
  uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float load(int8_t x) { return x; }

inline void store(float* to, float value) { *to = value; }

inline void store(bf16* to, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  to->bits = static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// `value` as storage type T would keep it.
template <typename T>
inline float rounded(float value) {
  T kept;
  store(&kept, value);
  return load(kept);
}

constexpr float kLog2e = 1.442695041f;
// 2^f for f from -1/2 to 1/2, by falling powers.
constexpr float kExp2[] = {1.535336188e-4f, 1.339887440e-3f, 9.618437357e-3f, 5.550332471e-2f,
                           2.402264791e-1f, 6.931472028e-1f, 1.0f};

// 2^x for x <= 127: 2^n times a polynomial for 2^f, about 1 ulp, and 0 where that is no normal number. The library call
// would not be vectorised.
inline float fast_exp2(float x) {
  float t = std::max(x, -127.0f);
  float n = std::nearbyint(t), f = t - n;
  float p = kExp2[0];
  for (int i = 1; i < 7; ++i) p = p * f + kExp2[i];
  int32_t exponent = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &exponent, sizeof scale);
  return p * scale;
}

// exp for x <= 0.
inline float fast_exp(float x) { return fast_exp2(x * kLog2e); }
