// Prepares what all threads read, and shares the passes out to them.
#include "passes.h"

#include <algorithm>
#include <cmath>

#include "checks.h"
#include "kernels.h"
#include "tasks.h"
#include "workspace.h"

namespace mmevm {
namespace {

float scale_of(const BatchNorm& norm, int64_t c) {
  return norm.mean ? norm.weight[c] / std::sqrt(norm.var[c] + float(norm.eps)) : 1;
}

float shift_of(const BatchNorm& norm, int64_t c, float scale) {
  return norm.mean ? norm.bias[c] - norm.mean[c] * scale : 0;
}

int lanes() { return kernels<float>().lanes; }

template <class Data>
int64_t kernel_floats(const DepthwiseParams<Data>& p) {
  return ceil_div(p.C, lanes()) * lanes() * (p.rows * p.cols + 1);
}

// To [blocks][rows * cols][lanes] and, behind them, biases [blocks][lanes], with the norm folded in.
template <class Data>
void pack(const DepthwiseParams<Data>& p, float* packed) {
  const int64_t W = lanes(), taps = p.rows * p.cols, blocks = ceil_div(p.C, W);
  float* const bias = packed + blocks * taps * W;
  kernels<float>().pack(p.weight, p.C, taps, packed);
  for (int64_t block = 0; block < blocks && p.flip; ++block)
    for (int64_t i = 0, j = taps - 1; i < j; ++i, --j)
      std::swap_ranges(packed + (block * taps + i) * W, packed + (block * taps + i + 1) * W, packed + (block * taps + j) * W);
  std::fill_n(bias, blocks * W, 0.0f);
  for (int64_t c = 0; c < p.C; ++c) {
    const float scale = scale_of(p.norm, c);
    bias[c] = (p.bias ? p.bias[c] * scale : 0) + shift_of(p.norm, c, scale);
    float* const kernel = packed + c / W * taps * W + c % W;
    for (int64_t i = 0; i < taps && p.norm.mean; ++i) kernel[i * W] *= scale;
  }
}

// Floats of workspace.
template <class Params>
int64_t floats_of(const Params&, int) {
  return 0;
}
template <class Data>
int64_t floats_of(const DepthwiseParams<Data>& p, int) {
  return kernel_floats(p);
}
template <class Data>
int64_t floats_of(const BatchNormParams<Data>& p, int) {
  return 2 * p.C;
}
template <class Data>
int64_t floats_of(const ChannelGateParams<Data>& p, int) {
  return p.B * p.hidden;
}
// Every task sums up for itself, so that the result does not depend on which thread is the first.
template <class Data>
int64_t floats_of(const NormMeanParams<Data>& p, int threads) {
  return kTasks * threads * p.C;
}
template <class Data>
int64_t floats_of(const MeanParams<Data>& p, int threads) {
  return kTasks * threads * p.C;
}

// Output channels that a task computes.
int64_t linear_group() { return kPanels * lanes(); }
template <class Data>
bool is_product_alone(const LinearParams<Data>& p) {
  return !p.bias && !p.norm.mean && p.activation == Activation::kNone && !p.residual;
}
template <class Data>
int64_t floats_of(const LinearParams<Data>& p, int threads) {
  return 2 * p.out + threads * linear_group() * p.in;
}

template <class Data>
void run_pass(const DepthwiseParams<Data>& p, const Host& host, float* packed) {
  pack(p, packed);
  share(host, p.B * p.H * ceil_div(p.C, lanes()), ceil_div(kTask, std::max<int64_t>(p.W * lanes(), 1)),
        [&](int64_t, int64_t begin, int64_t end) { passes<Data>().depthwise(p, packed, begin, end); });
}

template <class Data>
void run_pass(const BatchNormParams<Data>& p, const Host& host, float* scale) {
  float* const shift = scale + p.C;
  for (int64_t c = 0; c < p.C; ++c) scale[c] = scale_of(p.norm, c), shift[c] = shift_of(p.norm, c, scale[c]);
  share(host, p.tokens, tokens_per_task(p.C),
        [&](int64_t, int64_t begin, int64_t end) { passes<Data>().batch_norm(p, scale, shift, begin, end); });
}

template <class Data>
void run_pass(const GatedNormParams<Data>& p, const Host& host, float*) {
  share(host, p.tokens, tokens_per_task(p.C),
        [&](int64_t, int64_t begin, int64_t end) { passes<Data>().gated_norm(p, begin, end); });
}

template <class Data>
void run_pass(const RmsNormParams<Data>& p, const Host& host, float*) {
  share(host, p.tokens, tokens_per_task(p.C),
        [&](int64_t, int64_t begin, int64_t end) { passes<Data>().rms_norm(p, begin, end); });
}

template <class Data>
void run_pass(const GatedMeanParams<Data>& p, const Host& host, float*) {
  share(host, p.elements, kTask, [&](int64_t, int64_t begin, int64_t end) { passes<Data>().gated_mean(p, begin, end); });
}

// The means over the tokens of each image, of what `add` adds to the sums of a task, as `finish` changes them.
template <class Params, class Add, class Finish>
void average(const Params& p, const Host& host, float* sums, const Add& add, const Finish& finish) {
  const int64_t tasks = kTasks * host.threads;
  for (int64_t b = 0; b < p.B; ++b) {
    std::fill_n(sums, tasks * p.C, 0.0f);
    share(host, p.tokens, tokens_per_task(p.C), [&](int64_t task, int64_t begin, int64_t end) {
      add(b * p.tokens + begin, b * p.tokens + end, sums + task * p.C);
    });
    for (int64_t c = 0; c < p.C; ++c) {
      float sum = 0;
      for (int64_t task = 0; task < tasks; ++task) sum += sums[task * p.C + c];
      p.mean[b * p.C + c] = rounded(finish(c, sum / p.tokens), p.mean);
    }
  }
}

template <class Data>
void run_pass(const MeanParams<Data>& p, const Host& host, float* sums) {
  average(p, host, sums,
          [&](int64_t begin, int64_t end, float* to) { passes<Data>().add_tokens(p, begin, end, to); },
          [](int64_t, float mean) { return mean; });
}

template <class Data>
void run_pass(const NormMeanParams<Data>& p, const Host& host, float* sums) {
  average(p, host, sums,
          [&](int64_t begin, int64_t end, float* to) { passes<Data>().add_normed(p, begin, end, to); },
          [&](int64_t c, float mean) { return mean * p.weight[c] + p.bias[c]; });
}

template <class Data>
void run_pass(const ChannelGateParams<Data>& p, const Host& host, float* hidden) {
  share(host, p.B * p.hidden, tokens_per_task(p.C),
        [&](int64_t, int64_t begin, int64_t end) { passes<Data>().gate_hidden(p, hidden, begin, end); });
  share(host, p.B * p.C, tokens_per_task(p.hidden),
        [&](int64_t, int64_t begin, int64_t end) { passes<Data>().gate_channels(p, hidden, begin, end); });
}

template <class Data>
void run_pass(const ScaledSumParams<Data>& p, const Host& host, float*) {
  share(host, p.B * p.tokens, tokens_per_task(p.C),
        [&](int64_t, int64_t begin, int64_t end) { passes<Data>().scaled_sum(p, begin, end); });
}

// A task packs the weights of its own channels, which the cache then holds for all of its tokens.
template <class Data>
void run_pass(const LinearParams<Data>& p, const Host& host, float* packed) {
  if (p.tokens == 0 || p.out == 0) return;
  const int64_t group = linear_group(), groups = ceil_div(p.out, group);
  float *const scale = packed + host.threads * group * p.in, *const shift = scale + p.out;
  const bool alone = is_product_alone(p);
  for (int64_t c = 0; c < p.out && !alone; ++c) {
    scale[c] = scale_of(p.norm, c);
    shift[c] = shift_of(p.norm, c, scale[c]) + (p.bias ? p.bias[c] * scale[c] : 0);
  }
  const int64_t parts = std::clamp<int64_t>(ceil_div(kTasks * host.threads, groups), 1, ceil_div(p.tokens, 48));
  for_tasks(host, groups * parts, [&](int64_t runner, int64_t task) {
    const int64_t first = task % groups * group, part = task / groups;
    passes<Data>().linear(p, alone ? nullptr : scale, shift, packed + runner * group * p.in, first,
                          std::min(first + group, p.out), p.tokens * part / parts, p.tokens * (part + 1) / parts);
  });
}

}  // namespace

bool serves_depthwise(int64_t rows, int64_t cols) { return (rows == 3 && cols == 3) || (rows == 1 && cols == 4); }

template <class Params>
size_t pass_workspace(const Params& p, int threads) {
  return floats_of(p, threads) * sizeof(float) + kAlignment;
}

template <class Params>
void run(const Params& p, const Host& host, void* workspace) {
  run_pass(p, host, aligned<float>(workspace));
}

#define MMEVM_INSTANTIATE(Params)                                        \
  template size_t pass_workspace(const Params<float>&, int);             \
  template size_t pass_workspace(const Params<BFloat16>&, int);          \
  template void run(const Params<float>&, const Host&, void* workspace); \
  template void run(const Params<BFloat16>&, const Host&, void* workspace);
MMEVM_INSTANTIATE(DepthwiseParams)
MMEVM_INSTANTIATE(BatchNormParams)
MMEVM_INSTANTIATE(GatedNormParams)
MMEVM_INSTANTIATE(RmsNormParams)
MMEVM_INSTANTIATE(GatedMeanParams)
MMEVM_INSTANTIATE(MeanParams)
MMEVM_INSTANTIATE(NormMeanParams)
MMEVM_INSTANTIATE(ChannelGateParams)
MMEVM_INSTANTIATE(ScaledSumParams)
MMEVM_INSTANTIATE(LinearParams)

}  // namespace mmevm
