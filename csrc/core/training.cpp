// Prepares what all threads read, shares the passes of training.h out to them, and sums up what they return.
#include "training.h"

#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "tasks.h"
#include "workspace.h"

namespace mmevm {
namespace {

constexpr int64_t kRanges = 32;  // of tokens, at most

int lanes() { return kernels<float>().lanes; }
int64_t blocks_of(int64_t C) { return ceil_div(C, lanes()); }

// Sums of `width` floats over tokens. Each of the ranges of tokens sums for itself: so neither the number of threads nor
// long sums change the result.
class Sums {
 public:
  Sums(int64_t tokens, int64_t C, int64_t width)
      : tokens(tokens), width(width), ranges(std::clamp<int64_t>(tokens / tokens_per_task(C), 1, kRanges)) {}

  int64_t floats() const { return ranges * width; }

  // The sums of what body(sums, begin, end) adds stand at the beginning of `memory` afterwards.
  template <class Body>
  const float* add(const Host& host, float* memory, const Body& body) const {
    share(host, ranges, 1, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::fill_n(memory + i * width, width, 0.0f);
        body(memory + i * width, tokens * i / ranges, tokens * (i + 1) / ranges);
      }
    });
    for (int64_t i = 1; i < ranges; ++i)
      for (int64_t j = 0; j < width; ++j) memory[j] += memory[i * width + j];
    return memory;
  }

 private:
  int64_t tokens, width, ranges;
};

template <class Body>
void share_tokens(const Host& host, int64_t tokens, int64_t C, const Body& body) {
  share(host, tokens, tokens_per_task(C), [&](int64_t, int64_t begin, int64_t end) { body(begin, end); });
}

// A norm as y = x scale + shift.
void scale_and_shift(const float* mean, const float* var, const float* weight, const float* bias, double eps, int64_t C,
                     float* scale, float* shift) {
  for (int64_t c = 0; c < C; ++c) {
    scale[c] = weight[c] / std::sqrt(var[c] + float(eps));
    shift[c] = bias[c] - mean[c] * scale[c];
  }
}

// Floats of workspace.
int64_t ring_floats(const DepthwiseGradients& p) { return 6 * (p.W + 2) * lanes(); }
int64_t floats_of(const DepthwiseGradients& p, int threads) {
  const int64_t kernel = blocks_of(p.C) * 10 * lanes();
  return kernel + p.B * kernel + std::min(p.B * blocks_of(p.C), kTasks * threads) * ring_floats(p);
}
int64_t floats_of(const BatchStatistics& p, int) { return 2 * p.C + Sums(p.tokens, p.C, p.C).floats(); }
int64_t floats_of(const BatchStatisticsGradients& p, int) { return 4 * p.C + Sums(p.tokens, p.C, 2 * p.C).floats(); }
int64_t floats_of(const NormGateGradients& p, int) { return Sums(p.tokens, p.C, 2 * p.C).floats(); }
int64_t floats_of(const NormMeanGradients& p, int) { return p.B * p.C + Sums(p.tokens, p.C, p.C).floats(); }
int64_t floats_of(const Blend&, int) { return 0; }
int64_t packed_floats(const PhaseProjection& p) { return blocks_of(p.out) * lanes() * p.in; }
int64_t floats_of(const PhaseProjection& p, int) { return p.n_sets * packed_floats(p); }
Sums phase_sums(const PhaseProjectionGradients& p) { return {p.B * p.H, kTask / 8, p.n_sets * p.out * p.in}; }
int64_t floats_of(const PhaseProjectionGradients& p, int) { return phase_sums(p).floats(); }
int64_t floats_of(const BlendGradients& p, int) { return Sums(p.tokens, p.C, 2 * p.C).floats(); }

void run_pass(const DepthwiseGradients& p, const Host& host, float* packed) {
  const int64_t L = lanes(), blocks = blocks_of(p.C), size = blocks * 10 * L;
  float *const sums = packed + size, *const rings = sums + p.B * size;
  std::fill_n(packed, size, 0.0f);
  for (int64_t c = 0; c < p.C; ++c) {
    float* const to = packed + c / L * 10 * L + c % L;
    for (int64_t i = 0; i < 9; ++i) to[i * L] = p.weight[c * 9 + i];
    to[9 * L] = p.bias ? p.bias[c] : 0;
  }
  share(host, p.B * blocks, 1, [&](int64_t task, int64_t begin, int64_t end) {
    training_passes().depthwise_gradients(p, packed, rings + task * ring_floats(p), sums, begin, end);
  });
  for (int64_t c = 0; c < p.C; ++c)
    for (int64_t i = 0; i < 10; ++i) {
      float sum = 0;
      for (int64_t b = 0; b < p.B; ++b) sum += sums[b * size + (c / L * 10 + i) * L + c % L];
      if (i < 9) p.dweight[c * 9 + i] = sum;
      else if (p.dbias) p.dbias[c] = sum;
    }
}

void run_pass(const BatchStatistics& p, const Host& host, float* scale) {
  float *const shift = scale + p.C, *const memory = shift + p.C;
  const Sums sums(p.tokens, p.C, p.C);
  const float* total = sums.add(host, memory, [&](float* to, int64_t begin, int64_t end) {
    training_passes().sum_tokens(p.x, p.C, to, begin, end);
  });
  for (int64_t c = 0; c < p.C; ++c) p.mean[c] = total[c] / p.tokens;
  total = sums.add(host, memory, [&](float* to, int64_t begin, int64_t end) {
    training_passes().sum_squares(p.x, p.mean, p.C, to, begin, end);
  });
  for (int64_t c = 0; c < p.C; ++c) p.var[c] = total[c] / p.tokens;
  scale_and_shift(p.mean, p.var, p.weight, p.bias, p.eps, p.C, scale, shift);
  share_tokens(host, p.tokens, p.C,
               [&](int64_t begin, int64_t end) { training_passes().normalise(p, scale, shift, begin, end); });
}

void run_pass(const BatchStatisticsGradients& p, const Host& host, float* scale) {
  float *const shift = scale + p.C, *const means = shift + p.C, *const memory = means + 2 * p.C;
  scale_and_shift(p.mean, p.var, p.weight, p.bias, p.eps, p.C, scale, shift);
  const float* total = Sums(p.tokens, p.C, 2 * p.C).add(host, memory, [&](float* to, int64_t begin, int64_t end) {
    training_passes().sum_batch_gradients(p, scale, shift, to, begin, end);
  });
  for (int64_t c = 0; c < p.C; ++c) {
    const float variance = p.var[c] + float(p.eps), product = total[p.C + c];
    p.dweight[c] = product / std::sqrt(variance), p.dbias[c] = total[c];
    means[c] = total[c] / p.tokens, means[p.C + c] = product / p.tokens / variance;
  }
  share_tokens(host, p.tokens, p.C,
               [&](int64_t begin, int64_t end) { training_passes().batch_gradients(p, scale, shift, means, begin, end); });
}

void run_pass(const NormGateGradients& p, const Host& host, float* memory) {
  const float* total = Sums(p.tokens, p.C, 2 * p.C).add(host, memory, [&](float* to, int64_t begin, int64_t end) {
    training_passes().norm_gate_gradients(p, to, begin, end);
  });
  std::copy_n(total, p.C, p.dweight);
  std::copy_n(total + p.C, p.C, p.dbias);
}

void run_pass(const NormMeanGradients& p, const Host& host, float* gradient) {
  float* const memory = gradient + p.B * p.C;
  std::fill_n(p.dweight, p.C, 0.0f);
  std::fill_n(p.dbias, p.C, 0.0f);
  for (int64_t b = 0; b < p.B; ++b) {
    const float* const dmean = p.dmean + b * p.C;
    for (int64_t c = 0; c < p.C; ++c) gradient[b * p.C + c] = dmean[c] / p.tokens * p.weight[c];
    const float* total = Sums(p.tokens, p.C, p.C).add(host, memory, [&](float* to, int64_t begin, int64_t end) {
      training_passes().norm_mean_gradients(p, gradient, b, to, begin, end);
    });
    for (int64_t c = 0; c < p.C; ++c) p.dweight[c] += dmean[c] * (total[c] / p.tokens), p.dbias[c] += dmean[c];
  }
}

void run_pass(const Blend& p, const Host& host, float*) {
  share_tokens(host, p.B * p.tokens, p.C, [&](int64_t begin, int64_t end) { training_passes().blend(p, begin, end); });
}

void run_pass(const BlendGradients& p, const Host& host, float* memory) {
  for (int64_t b = 0; b < p.B; ++b) {
    const float* total = Sums(p.tokens, p.C, 2 * p.C).add(host, memory, [&](float* to, int64_t begin, int64_t end) {
      training_passes().blend_gradients(p, b, to, begin, end);
    });
    std::copy_n(total, p.C, p.dscale_a + b * p.C);
    if (p.b) std::copy_n(total + p.C, p.C, p.dscale_b + b * p.C);
  }
}

// Calls body(set, first cell, cells) for the phases in rows [begin, end) of all images.
template <class Params, class Body>
void for_phases(const Params& p, int64_t begin, int64_t end, const Body& body) {
  for (int64_t row = begin; row < end; ++row)
    for (int64_t col = 0; col < std::min(p.step, p.W); ++col)
      body(p.sets[row % p.H % p.step * p.step + col], row * p.W + col, ceil_div(p.W - col, p.step));
}

void run_pass(const PhaseProjection& p, const Host& host, float* packed) {
  const int64_t L = lanes(), size = packed_floats(p);
  if (p.transposed) std::fill_n(packed, p.n_sets * size, 0.0f);
  for (int64_t set = 0; set < p.n_sets; ++set) {
    const float* const weight = p.weight + set * p.out * p.in;
    if (!p.transposed) {
      kernels<float>().pack(weight, p.out, p.in, packed + set * size);
      continue;
    }
    for (int64_t o = 0; o < p.out; o += L)
      for (int64_t i = 0; i < p.in; ++i)
        std::copy_n(weight + i * p.out + o, std::min(L, p.out - o), packed + set * size + o * p.in + i * L);
  }
  share(host, p.B * p.H, ceil_div(kTask, p.W * p.in), [&](int64_t, int64_t begin, int64_t end) {
    for_phases(p, begin, end, [&](int64_t set, int64_t cell, int64_t count) {
      kernels<float>().project(p.x + cell * p.in, p.step * p.in, packed + set * size, p.in, p.out, p.y + cell * p.out,
                               p.step * p.out, count);
    });
  });
}

void run_pass(const PhaseProjectionGradients& p, const Host& host, float* memory) {
  const float* total = phase_sums(p).add(host, memory, [&](float* to, int64_t begin, int64_t end) {
    for_phases(p, begin, end, [&](int64_t set, int64_t cell, int64_t count) {
      training_passes().project_gradient(p.dy + cell * p.out, p.step * p.out, p.x + cell * p.in, p.step * p.in, p.out, p.in,
                                         count, to + set * p.out * p.in);
    });
  });
  std::copy_n(total, p.n_sets * p.out * p.in, p.dweight);
}

}  // namespace

#define MMEVM_DEFINE(Params)                                                                                        \
  size_t pass_workspace(const Params& p, int threads) { return floats_of(p, threads) * sizeof(float) + kAlignment; } \
  void run(const Params& p, const Host& host, void* workspace) { run_pass(p, host, aligned<float>(workspace)); }
MMEVM_TRAINING_PASSES(MMEVM_DEFINE)

}  // namespace mmevm
