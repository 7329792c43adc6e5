// Fused passes over channels-last maps, for inference: what stands between the matrix products of the networks, with every
// map read once and written once. As scan.h, on raw pointers, on the host's threads. Maps are
// Data, float or BFloat16; parameters are float, and so is all arithmetic.
//
// `run` allocates nothing and throws nothing; `workspace` has pass_workspace(params, threads) bytes, at any address.
#pragma once

#include "scan.h"

namespace mmevm {

// mmevm/ops/passes.py has the names in this order.
enum class Activation : int64_t { kNone, kRelu, kSilu, kGelu };
constexpr int64_t kActivations = 4;

// A batch norm with fixed statistics: y = (x - mean) / sqrt(var + eps) * weight + bias, all [C]; absent where mean is null.
struct BatchNorm {
  const float *mean = nullptr, *var = nullptr, *weight = nullptr, *bias = nullptr;
  double eps = 0;
};

// y = activation(norm(conv(x))), a depthwise convolution of stride 1. The kernel's first row lies `top` rows above the
// output's cell, its first column `left` columns before; cells outside the map are zero.
template <class Data>
struct DepthwiseParams {
  int64_t B, H, W, C, rows, cols, top, left;
  const Data* x;        // [B, H, W, C]
  const float* weight;  // [C, rows, cols]
  const float* bias;    // [C] or null
  BatchNorm norm;
  Activation activation;
  Data* y;            // [B, H, W, C]
  bool flip = false;  // read each kernel from its last tap to the first
};

// Whether there is a kernel for its size.
bool serves_depthwise(int64_t rows, int64_t cols);

// y = activation(norm(y)) + residual, in place.
template <class Data>
struct BatchNormParams {
  int64_t tokens, C;
  Data* y;  // [tokens, C]
  BatchNorm norm;
  Activation activation;
  const Data* residual;  // [tokens, C] or null
};

// y = layer_norm(x) * silu(gate). y may be x.
template <class Data>
struct GatedNormParams {
  int64_t tokens, C;
  const Data *x, *gate;        // [tokens, C]; without a gate, the norm alone
  const float *weight, *bias;  // [C]
  double eps;
  Data* y;  // [tokens, C]
};

// y = x / sqrt(mean(x^2) + eps) * weight.
template <class Data>
struct RmsNormParams {
  int64_t tokens, C;
  const Data* x;        // [tokens, C]
  const float* weight;  // [C]
  double eps;
  Data* y;  // [tokens, C]
};

// y = (a + b) / 2 * silu(gate). y may be a.
template <class Data>
struct GatedMeanParams {
  int64_t elements;
  const Data *a, *b, *gate;
  Data* y;
};

// The mean over an image's tokens.
template <class Data>
struct MeanParams {
  int64_t B, tokens, C;
  const Data* x;  // [B, tokens, C]
  Data* mean;     // [B, C]
};

// The mean over an image's tokens of their layer norm.
template <class Data>
struct NormMeanParams {
  int64_t B, tokens, C;
  const Data* x;               // [B, tokens, C]
  const float *weight, *bias;  // [C]
  double eps;
  Data* mean;  // [B, C]
};

// y = sigmoid(expand activation(reduce x + reduce_bias) + expand_bias): what squeeze and excitation computes of a mean.
template <class Data>
struct ChannelGateParams {
  int64_t B, C, hidden;
  const Data* x;             // [B, C]
  const Data* reduce;        // [hidden, C]
  const float* reduce_bias;  // [hidden] or null
  Activation activation;
  const Data* expand;        // [C, hidden]
  const float* expand_bias;  // [C] or null
  Data* y;                   // [B, C]
};

// y = x + a * scale_a + b * scale_b. y may be a.
template <class Data>
struct ScaledSumParams {
  int64_t B, tokens, C;
  const Data *x, *a, *b;           // [B, tokens, C]
  const float *scale_a, *scale_b;  // [B, C]
  Data* y;                         // [B, tokens, C]
};

// y = activation(norm(weight x + bias)) + residual: a linear layer with what follows it. Sums are float.
template <class Data>
struct LinearParams {
  int64_t tokens, in, out;
  const Data* x;       // [tokens, in]
  const Data* weight;  // [out, in]
  const float* bias;   // [out] or null
  BatchNorm norm;
  Activation activation;
  const Data* residual;  // [tokens, out] or null
  Data* y;               // [tokens, out]
};

template <class Params>
size_t pass_workspace(const Params&, int threads);

template <class Params>
void run(const Params&, const Host&, void* workspace);

}  // namespace mmevm
