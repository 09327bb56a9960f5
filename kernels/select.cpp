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

using Ranked = std::pair<float, int64_t>;  // score, block

bool before(const Ranked& a, const Ranked& b) { return a.first > b.first || (a.first == b.first && a.second < b.second); }

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
  const auto worse = [](const Ranked& a, const Ranked& b) { return before(b, a); };
  std::make_heap(free.begin(), free.end(), worse);
  int64_t number = 0;
  for (auto end = free.end(); sum < target && number < room; ++number, --end) {
    sum += term(free.front().first);
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
      std::vector<Ranked> free;  // blocks that compete for what the forced ones leave
      const auto compete = [&] {
        free.reserve(last);
        for (int64_t i = begin; i < last; ++i) {
          free.emplace_back(std::isnan(own[i]) ? std::numeric_limits<float>::infinity() : own[i], i);
        }
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
      if (rule != Rule::kMass) {
        compete();
        std::nth_element(free.begin(), free.begin() + room, free.end(), before);
      }
      const auto best = rule == Rule::kMass ? free.end() - room : free.begin();
      std::sort(best, best + room, [](const Ranked& a, const Ranked& b) { return a.second < b.second; });
      if (sink) *to++ = physical[0];
      for (int64_t i = 0; i < room; ++i) *to++ = physical[best[i].second];
      *to = physical[last];
    }
  }
}

}  // namespace seer_ray
