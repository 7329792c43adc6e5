// Passes over channels-last maps with their gradients, for training: what stands between the matrix products. As passes.h,
// but float throughout, and nothing is overwritten. What a gradient needs of the forward pass is computed again from its
// inputs, so that only these are kept. Gradients of parameters are sums over tokens of equal ranges, whatever the threads.
#pragma once

#include "passes.h"

namespace mmevm {

// The gradients of y = activation(conv(x) + bias), a depthwise 3 x 3 convolution within a border of zeros.
struct DepthwiseGradients {
  int64_t B, H, W, C;
  const float *dy, *x;  // [B, H, W, C]
  const float* weight;  // [C, 3, 3]
  const float* bias;    // [C] or null
  Activation activation;
  float *dx, *dweight, *dbias;  // as x, weight, bias
};

// y = activation((x - mean) / sqrt(var + eps) * weight + bias), with the mean and the variance of these tokens.
struct BatchStatistics {
  int64_t tokens, C;
  const float *x, *weight, *bias;  // [tokens, C], [C], [C]
  double eps;
  Activation activation;
  float *y, *mean, *var;  // [tokens, C], [C], [C]
};

struct BatchStatisticsGradients {
  int64_t tokens, C;
  const float *dy, *x;  // [tokens, C]
  const float *mean, *var, *weight, *bias;  // [C]
  double eps;
  Activation activation;
  float *dx, *dweight, *dbias;  // as x, weight, bias
};

// The gradients of GatedNormParams.
struct NormGateGradients {
  int64_t tokens, C;
  const float *dy, *x, *gate, *weight, *bias;  // [tokens, C] three times, [C] twice
  double eps;
  float *dx, *dgate, *dweight, *dbias;  // as x, gate, weight, bias
};

// The gradients of the mean over an image's tokens of their layer norm.
struct NormMeanGradients {
  int64_t B, tokens, C;
  const float *dmean, *x, *weight;  // [B, C], [B, tokens, C], [C]
  double eps;
  float *dx, *dweight, *dbias;  // as x, weight, weight
};

// y = x + a * scale_a + b * scale_b; x may be null, and so may b with its scale.
struct Blend {
  int64_t B, tokens, C;
  const float *x, *a, *b;          // [B, tokens, C]
  const float *scale_a, *scale_b;  // [B, C]
  float* y;                        // [B, tokens, C]
};

struct BlendGradients {
  int64_t B, tokens, C;
  const float *dy, *a, *b;         // [B, tokens, C]
  const float *scale_a, *scale_b;  // [B, C]
  float *da, *dscale_a, *db, *dscale_b;  // as a, scale_a, b, scale_b
};

// y[b, h, w] = weight[set of the phase of (h, w)] x[b, h, w]: the phase of a cell is its row and column modulo the step.
struct PhaseProjection {
  int64_t B, H, W, in, out, step;
  const int64_t* sets;     // [step * step], by row and column
  int64_t n_sets;
  const float *x, *weight;  // [B, H, W, in]; [n_sets, out, in] or, if it is transposed, [n_sets, in, out]
  bool transposed;
  float* y;  // [B, H, W, out]
};

// dweight = the sum over the cells of a set of dy x^T; the gradient of x is a projection by the transposed weight.
struct PhaseProjectionGradients {
  int64_t B, H, W, in, out, step;
  const int64_t* sets;
  int64_t n_sets;
  const float *dy, *x;  // [B, H, W, out], [B, H, W, in]
  float* dweight;       // [n_sets, out, in]
};

#define MMEVM_TRAINING_PASSES(X) \
  X(DepthwiseGradients)          \
  X(BatchStatistics)             \
  X(BatchStatisticsGradients)    \
  X(NormGateGradients)           \
  X(NormMeanGradients)           \
  X(Blend)                       \
  X(BlendGradients)              \
  X(PhaseProjection)             \
  X(PhaseProjectionGradients)

#define MMEVM_DECLARE(Params)                         \
  size_t pass_workspace(const Params&, int threads); \
  void run(const Params&, const Host&, void* workspace);
MMEVM_TRAINING_PASSES(MMEVM_DECLARE)
#undef MMEVM_DECLARE

}  // namespace mmevm
