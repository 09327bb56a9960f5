// CPU path of select.py: every row and head computed alone and in a fixed order, so its bits do not depend on its batch
// mates.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "operations.h"

namespace seer_ray {

namespace {

// Blocks that are not forced, from `begin` to before `last`, whose share in the softmax of the complete blocks' scores is
// above the threshold. A NaN among those leaves none, as in the definition.
int64_t above(const float* scores, int64_t begin, int64_t last, int64_t complete, float threshold, float sharpness) {
  float peak = -std::numeric_limits<float>::infinity(), total = 0.0f;
  for (int64_t i = 0; i < complete; ++i) peak = std::max(peak, scores[i]);
  for (int64_t i = 0; i < complete; ++i) total += std::exp((scores[i] - peak) * sharpness);
  int64_t number = 0;
  for (int64_t i = begin; i < last; ++i) number += std::exp((scores[i] - peak) * sharpness) / total > threshold;
  return number;
}

// A block by its score, the best first, equals by position: one number, which is quick to compare. NaN is the best.
using Ranked = uint64_t;

inline Ranked ranked(float score, int64_t block) {
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) bits = 0x7F800000;
  if (bits == 0x80000000) bits = 0;
  const uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000;
  return static_cast<uint64_t>(~rising) << 32 | static_cast<uint32_t>(block);
}

inline float score_of(Ranked rank) {
  const uint32_t rising = ~static_cast<uint32_t>(rank >> 32), bits = rising >> 31 ? rising ^ 0x80000000 : ~rising;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

// Of `free` blocks the best ones, `room` at most, that it takes until the terms of the softmax of the complete blocks'
// scores, those of forced ones first, sum to the mass; see mass.py. They end at the back of `free`.
int64_t fewest(const float* scores, int64_t begin, int64_t last, int64_t complete, float mass, float sharpness,
               std::vector<Ranked>& free, int64_t room) {
  float peak = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < complete; ++i) {
    if (std::isnan(scores[i])) return 0;
    peak = std::max(peak, scores[i]);
  }
  if (std::isinf(peak)) return 0;
  const auto term = [&](float score) { return static_cast<int64_t>(std::exp((score - peak) * sharpness) * 0x1p40f); };
  int64_t total = 0, sum = 0;
  for (int64_t i = 0; i < complete; ++i) total += term(scores[i]);
  const int64_t target = static_cast<int64_t>(static_cast<float>(total) * mass);
  if (begin > 0) sum += term(scores[0]);
  if (last < complete) sum += term(scores[last]);
  const std::greater<Ranked> worse;
  std::make_heap(free.begin(), free.end(), worse);
  int64_t number = 0;
  for (auto end = free.end(); sum < target && number < room; ++number, --end) {
    sum += term(score_of(free.front()));
    std::pop_heap(free.begin(), end, worse);
  }
  return number;
}

}  // namespace

// What each row and head reads, forced blocks among it, in order of position.
void select(const float* scores, const int64_t* table, int64_t table_stride, const int64_t* lengths,
            const float* limits, int64_t limits_stride, int64_t* page_ids, int64_t* counts, int64_t rows,
            int64_t heads, int64_t pages, int64_t block, int64_t k, bool sink, Rule rule) {
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      const float *limit = limits + head * limits_stride, level = limit[2], sharpness = limit[3];
      const int64_t last = (lengths[row] - 1) / block, complete = lengths[row] / block, begin = sink ? 1 : 0;
      const int64_t* physical = table + row * table_stride;
      int64_t* to = page_ids + (row * heads + head) * k;
      const float* own = scores + (row * heads + head) * pages;
      const float budget = last < limits_stride - 4 ? limit[4 + last]
                                                    : std::max(limit[0], limit[1] * static_cast<float>(last + 1));
      int64_t count = std::min({last + 1, k, static_cast<int64_t>(budget)});
      if (rule == Rule::kThreshold && last > 0) {
        count = std::min(begin + 1 + above(own, begin, last, complete, level, sharpness), count);
      }
      static thread_local std::vector<Ranked> free;  // blocks that compete for what the forced ones leave
      const auto compete = [&] {
        free.resize(last - begin);
        for (int64_t i = begin; i < last; ++i) free[i - begin] = ranked(own[i], i);
      };
      if (rule == Rule::kMass && last > 0) {
        compete();
        count = begin + 1 + fewest(own, begin, last, complete, level, sharpness, free, count - begin - 1);
      }
      counts[row * heads + head] = count;
      std::fill(to, to + k, 0);
      if (count > last) {
        std::copy(physical, physical + count, to);
        continue;
      }
      const int64_t room = count - begin - 1;
      Ranked worst = 0;  // of those that are chosen
      if (rule == Rule::kMass) {
        if (room > 0) worst = free[free.size() - room];
      } else if (room > 0) {
        compete();
        std::nth_element(free.begin(), free.begin() + room - 1, free.end());
        worst = free[room - 1];
      }
      if (sink) *to++ = physical[0];
      for (int64_t i = begin; i < last && room > 0; ++i) {
        if (ranked(own[i], i) <= worst) *to++ = physical[i];
      }
      *to = physical[last];
    }
  }
}

}  // namespace seer_ray
