// The CPU paths as operations of torch, which cpu.py calls: they write what they are given to write, so that nothing is
// allocated and a step can be run again. cpu.py has checked dtypes and shapes, and that all is contiguous.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "operations.h"

namespace seer_ray {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

template <typename T>
T* at(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

template <typename T>
T* at(const Maybe& x) {
  return x ? at<T>(*x) : nullptr;
}

// run(number of the dtype).
template <typename Run>
void by_dtype(const Tensor& x, Run run) {
  if (x.scalar_type() == ScalarType::BFloat16) {
    run(bf16());
  } else {
    run(float());
  }
}

bool quantised(const Tensor& kv) { return kv.scalar_type() == ScalarType::Char; }

void attend_(Tensor q, Tensor kv, Maybe scales, Tensor page_ids, Tensor counts, Tensor tails, Maybe skips,
             Maybe starts, Maybe lives, Maybe sinks, Tensor out, int64_t split, int64_t window, int64_t most,
             double scale) {
  const int64_t rows = page_ids.size(0), q_heads = q.size(1), dim = q.size(2), heads = kv.size(1), block = kv.size(3);
  const int64_t width = page_ids.size(2), group = q_heads / heads, splits = (width + split - 1) / split;
  // Kept: it is as large in the next layer and step.
  static thread_local std::vector<float> workspace;
  workspace.resize(std::max<size_t>(workspace.size(), q.size(0) * splits * q_heads * (dim + 2)));
  const auto run = [&](auto number, auto cached) {
    using Q = decltype(number);
    using T = decltype(cached);
    attend<Q, T>(at<Q>(q), at<T>(kv), at<float>(scales), at<int64_t>(page_ids), page_ids.stride(0),
                 page_ids.stride(1), at<int64_t>(counts), at<int64_t>(tails), at<int64_t>(skips),
                 at<int64_t>(starts), at<int64_t>(lives), at<float>(sinks), at<Q>(out), workspace.data(), rows, heads,
                 group, block, dim, width, split, window, most, scale);
  };
  if (quantised(kv)) {
    run(float(), int8_t());
  } else {
    by_dtype(kv, [&](auto number) { run(number, number); });
  }
}

void prefill_(Tensor q, Tensor kv, Maybe scales, Tensor work, Tensor table, Maybe page_ids, Maybe counts, Maybe sinks,
              Tensor out, int64_t window, double scale) {
  const int64_t heads = kv.size(1);
  const auto run = [&](auto number, auto cached) {
    using Q = decltype(number);
    using T = decltype(cached);
    prefill<Q, T>(at<Q>(q), at<T>(kv), at<float>(scales), at<int64_t>(work), at<int64_t>(table), table.stride(0),
                  at<int64_t>(page_ids), page_ids ? page_ids->stride(0) : 0, page_ids ? page_ids->stride(1) : 0,
                  at<int64_t>(counts), at<float>(sinks), at<Q>(out), work.size(0), q.size(1), heads,
                  page_ids ? page_ids->size(1) : heads, kv.size(3), q.size(2), window, scale);
  };
  if (quantised(kv)) {
    run(float(), int8_t());
  } else {
    by_dtype(kv, [&](auto number) { run(number, number); });
  }
}

void score_(Tensor features, Tensor summary, Tensor table, Tensor lengths, Tensor out, int64_t block) {
  by_dtype(summary, [&](auto number) {
    using T = decltype(number);
    score<T>(at<float>(features), at<T>(summary), at<int64_t>(table), table.stride(0), at<int64_t>(lengths),
             at<float>(out), features.size(0), features.size(1), features.size(2), features.size(3),
             table.size(1), block);
  });
}

void select_(Tensor scores, Tensor table, Tensor lengths, Tensor limits, Tensor page_ids, Tensor counts, int64_t block,
             bool sink, int64_t rule) {
  select(at<float>(scores), at<int64_t>(table), table.stride(0), at<int64_t>(lengths), at<float>(limits),
         limits.size(1), at<int64_t>(page_ids), at<int64_t>(counts), scores.size(0), scores.size(1), scores.size(2), block,
         page_ids.size(2), sink, static_cast<Rule>(rule));
}

void rms_norm_(Tensor x, Tensor weight, Tensor out, double eps) {
  const int64_t numbers = x.numel(), width = weight.numel();
  by_dtype(x, [&](auto number) {
    using T = decltype(number);
    rms_norm<T>(at<T>(x), at<T>(weight), at<T>(out), numbers / width, width, eps);
  });
}

void rotate_append_(Tensor q, Tensor k, Tensor v, Tensor cos, Tensor sin, Tensor kv, Maybe scales, Tensor pages,
                    Tensor offsets, Tensor out) {
  by_dtype(q, [&](auto number) {
    using T = decltype(number);
    const auto run = [&](auto cached) {
      using S = decltype(cached);
      rotate_append<T, S>(at<T>(q), at<T>(k), at<T>(v), at<float>(cos), at<float>(sin), at<S>(kv),
                          at<float>(scales), at<int64_t>(pages), at<int64_t>(offsets), at<T>(out), q.size(0),
                          q.size(1), k.size(1), kv.size(3), q.size(2));
    };
    if (quantised(kv)) {
      run(int8_t());
    } else {
      run(number);
    }
  });
}

void gate_query_(Tensor q, Tensor weight, Maybe norm, Maybe cos, Maybe sin, Tensor out, double eps, double scale) {
  const int64_t rows = out.size(0), heads = out.size(1), dim = out.size(2), inputs = q.numel() / (rows * heads);
  by_dtype(q, [&](auto number) {
    by_dtype(weight, [&](auto weighed) {
      using T = decltype(number);
      using W = decltype(weighed);
      gate_query<T, W>(at<T>(q), at<W>(weight), at<W>(norm), at<float>(cos), at<float>(sin), at<float>(out), rows,
                       heads, inputs, dim, eps, scale);
    });
  });
}

template <typename T>
Matrix<T> matrix(const Tensor& weight, const Maybe& bias, const Tensor& out) {
  return {at<T>(weight), at<T>(bias), at<T>(out), weight.size(0)};
}

void projections_(Tensor x, std::vector<Tensor> weights, std::vector<Maybe> biases, std::vector<Tensor> outs) {
  const int64_t inner = weights[0].size(1);
  by_dtype(x, [&](auto number) {
    using T = decltype(number);
    std::vector<Matrix<T>> matrices;
    for (size_t i = 0; i < weights.size(); ++i) matrices.push_back(matrix<T>(weights[i], biases[i], outs[i]));
    project<T>(at<T>(x), x.numel() / inner, inner, matrices.data(), matrices.size());
  });
}

void mlp_(Tensor x, Tensor gate, Maybe gate_bias, Tensor up, Maybe up_bias, Tensor down, Maybe down_bias,
          Tensor inside, Tensor out) {
  const int64_t inner = gate.size(1);
  by_dtype(x, [&](auto number) {
    using T = decltype(number);
    mlp<T>(at<T>(x), x.numel() / inner, inner, matrix<T>(gate, gate_bias, inside), matrix<T>(up, up_bias, inside),
           matrix<T>(down, down_bias, out));
  });
}

void delta_step_(Tensor q, Tensor k, Tensor v, Tensor g, Tensor b, Tensor states, Tensor slots, Tensor out, double eps) {
  by_dtype(v, [&](auto number) {
    using T = decltype(number);
    delta_step<T>(at<T>(q), at<T>(k), at<T>(v), at<float>(g), at<T>(b), at<float>(states), at<int64_t>(slots),
                  at<T>(out), q.stride(0), k.stride(0), v.stride(0), q.size(0), q.size(1), v.size(1), q.size(2),
                  v.size(2), eps);
  });
}

void convolve_step_(Tensor x, Tensor states, Tensor slots, Tensor weight, Maybe bias, Tensor out) {
  by_dtype(x, [&](auto number) {
    using T = decltype(number);
    convolve_step<T>(at<T>(x), at<T>(states), at<int64_t>(slots), at<T>(weight), at<T>(bias), at<T>(out), x.size(0),
                     x.size(1), weight.size(1));
  });
}

void target_max_(Tensor q, Tensor keys, Tensor sums, Tensor out, int64_t first) {
  const int64_t tokens = q.size(0), dim = q.size(2), heads = keys.size(0), blocks = keys.size(1);
  target_max(at<float>(q), at<float>(keys), at<float>(sums), at<float>(out), tokens, first, heads,
             q.size(1) / heads, dim, keys.size(3), blocks);
}

}  // namespace

// LIBRARY is a name of its own for each build: several may be loaded into a process.
#define SEER_RAY_DEFINE(NAME, M) STABLE_TORCH_LIBRARY(NAME, M)
#define SEER_RAY_IMPLEMENT(NAME, M) STABLE_TORCH_LIBRARY_IMPL(NAME, CPU, M)

SEER_RAY_DEFINE(LIBRARY, m) {
  m.def(
      "attend(Tensor q, Tensor kv, Tensor? scales, Tensor page_ids, Tensor counts, Tensor tails, Tensor? skips, "
      "Tensor? starts, Tensor? lives, Tensor? sinks, Tensor(a!) out, int split, int window, int most, float scale) "
      "-> ()");
  m.def(
      "prefill(Tensor q, Tensor kv, Tensor? scales, Tensor work, Tensor table, Tensor? page_ids, Tensor? counts, "
      "Tensor? sinks, Tensor(a!) out, int window, float scale) -> ()");
  m.def("score(Tensor features, Tensor summary, Tensor table, Tensor lengths, Tensor(a!) out, int block) -> ()");
  m.def(
      "select(Tensor scores, Tensor table, Tensor lengths, Tensor limits, Tensor(a!) page_ids, Tensor(b!) counts, "
      "int block, bool sink, int rule) -> ()");
  m.def("rms_norm(Tensor x, Tensor weight, Tensor(a!) out, float eps) -> ()");
  m.def(
      "rotate_append(Tensor q, Tensor k, Tensor v, Tensor cos, Tensor sin, Tensor(a!) kv, Tensor(b!)? scales, "
      "Tensor pages, Tensor offsets, Tensor(c!) out) -> ()");
  m.def(
      "gate_query(Tensor q, Tensor weight, Tensor? norm, Tensor? cos, Tensor? sin, Tensor(a!) out, float eps, "
      "float scale) -> ()");
  m.def("projections(Tensor x, Tensor[] weights, Tensor?[] biases, Tensor(a!)[] outs) -> ()");
  m.def(
      "mlp(Tensor x, Tensor gate, Tensor? gate_bias, Tensor up, Tensor? up_bias, Tensor down, Tensor? down_bias, "
      "Tensor(a!) inside, Tensor(b!) out) -> ()");
  m.def(
      "delta_step(Tensor q, Tensor k, Tensor v, Tensor g, Tensor b, Tensor(a!) states, Tensor slots, Tensor(b!) out, "
      "float eps) -> ()");
  m.def(
      "convolve_step(Tensor x, Tensor(a!) states, Tensor slots, Tensor weight, Tensor? bias, Tensor(b!) out) -> ()");
  m.def("target_max(Tensor q, Tensor keys, Tensor sums, Tensor(a!) out, int first) -> ()");
}

SEER_RAY_IMPLEMENT(LIBRARY, m) {
  m.impl("attend", TORCH_BOX(&attend_));
  m.impl("prefill", TORCH_BOX(&prefill_));
  m.impl("score", TORCH_BOX(&score_));
  m.impl("select", TORCH_BOX(&select_));
  m.impl("rms_norm", TORCH_BOX(&rms_norm_));
  m.impl("rotate_append", TORCH_BOX(&rotate_append_));
  m.impl("gate_query", TORCH_BOX(&gate_query_));
  m.impl("projections", TORCH_BOX(&projections_));
  m.impl("mlp", TORCH_BOX(&mlp_));
  m.impl("delta_step", TORCH_BOX(&delta_step_));
  m.impl("convolve_step", TORCH_BOX(&convolve_step_));
  m.impl("target_max", TORCH_BOX(&target_max_));
}

}  // namespace seer_ray
