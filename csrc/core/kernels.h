// The table of entry points that each instruction set fills in.
#pragma once

#include "passes.h"
#include "scan.h"
#include "training.h"

namespace mmevm {

// One task: `routes` (groups, for a sequence) starting at `route` of image `batch`, channel blocks [block, block_end).
struct Task {
  int64_t batch, route, routes, block, block_end, split;
};

template <class Params>
struct Entry {
  // Elements of scratch that a task of so many blocks needs.
  int64_t (*scratch)(const Params&, Direction, int64_t blocks);
  void (*run)(const Params&, Direction, const Task&, void* scratch);
};

template <class T>
struct Kernels {
  int lanes;
  Entry<SequenceParams<T>> sequence;
  Entry<MapParams<T>> map;
  // Rows of n values to [ceil(rows / lanes)][n][lanes], zeros behind the last row.
  void (*pack)(const T* from, int64_t rows, int64_t n, T* to);
  // y[r] = weight x[r] for `count` rows at the strides; `packed` are M rows of D weights.
  void (*project)(const T* x, int64_t x_stride, const T* packed, int64_t D, int64_t M, T* y, int64_t y_stride,
                  int64_t count);
  // The same of rows of BFloat16; null in the table for double.
  void (*project_half)(const BFloat16* x, int64_t x_stride, const T* packed, int64_t D, int64_t M, T* y, int64_t y_stride,
                       int64_t count);
};

// The passes of passes.h, on tokens [begin, end), or on what pass_kernels.h says.
template <class Data>
struct Passes {
  void (*depthwise)(const DepthwiseParams<Data>&, const float* packed, int64_t begin, int64_t end);
  void (*batch_norm)(const BatchNormParams<Data>&, const float* scale, const float* shift, int64_t begin, int64_t end);
  void (*gated_norm)(const GatedNormParams<Data>&, int64_t begin, int64_t end);
  void (*rms_norm)(const RmsNormParams<Data>&, int64_t begin, int64_t end);
  void (*gated_mean)(const GatedMeanParams<Data>&, int64_t begin, int64_t end);
  void (*add_tokens)(const MeanParams<Data>&, int64_t begin, int64_t end, float* sums);
  void (*add_normed)(const NormMeanParams<Data>&, int64_t begin, int64_t end, float* sums);
  void (*gate_hidden)(const ChannelGateParams<Data>&, float* hidden, int64_t begin, int64_t end);
  void (*gate_channels)(const ChannelGateParams<Data>&, const float* hidden, int64_t begin, int64_t end);
  void (*scaled_sum)(const ScaledSumParams<Data>&, int64_t begin, int64_t end);
  // For channels [first, last) and tokens [begin, end); without a scale, the product alone.
  void (*linear)(const LinearParams<Data>&, const float* scale, const float* shift, float* packed, int64_t first, int64_t last,
                 int64_t begin, int64_t end);
};

constexpr int64_t kPanels = 3;  // of V::lanes rows of weights, that a product multiplies at once

// The passes of training.h; training_kernels.h says what they get.
struct TrainingPasses {
  void (*depthwise_gradients)(const DepthwiseGradients&, const float* packed, float* rings, float* dweight, int64_t begin,
                              int64_t end);
  void (*sum_tokens)(const float* x, int64_t C, float* sums, int64_t begin, int64_t end);
  void (*sum_squares)(const float* x, const float* mean, int64_t C, float* sums, int64_t begin, int64_t end);
  void (*normalise)(const BatchStatistics&, const float* scale, const float* shift, int64_t begin, int64_t end);
  void (*sum_batch_gradients)(const BatchStatisticsGradients&, const float* scale, const float* shift, float* sums,
                              int64_t begin, int64_t end);
  void (*batch_gradients)(const BatchStatisticsGradients&, const float* scale, const float* shift, const float* means,
                          int64_t begin, int64_t end);
  void (*norm_gate_gradients)(const NormGateGradients&, float* sums, int64_t begin, int64_t end);
  void (*norm_mean_gradients)(const NormMeanGradients&, const float* gradient, int64_t b, float* sums, int64_t begin,
                              int64_t end);
  void (*blend)(const Blend&, int64_t begin, int64_t end);
  void (*blend_gradients)(const BlendGradients&, int64_t b, float* sums, int64_t begin, int64_t end);
  void (*project_gradient)(const float* dy, int64_t dy_stride, const float* x, int64_t x_stride, int64_t out, int64_t in,
                           int64_t count, float* sums);
};

// Defined in kernels_<isa>.cpp, those for x86 on x86 alone.
extern const Kernels<float>* const kernels_default;
extern const Kernels<float>* const kernels_avx2;
extern const Kernels<float>* const kernels_avx512;
extern const Kernels<double>* const kernels_double;

// The passes of one instruction set.
struct PassTables {
  Passes<float> full;
  Passes<BFloat16> half;
  TrainingPasses training;
};
extern const PassTables* const passes_default;
extern const PassTables* const passes_avx2;
extern const PassTables* const passes_avx512;
// Replaces `half` of passes_avx512 where the processor has AVX512-BF16.
extern const Passes<BFloat16>* const half_avx512bf16;

// Those of this processor; dispatch.cpp.
template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels<float>();
template <>
const Kernels<double>& kernels<double>();
template <class Data>
const Passes<Data>& passes();
template <>
const Passes<float>& passes<float>();
template <>
const Passes<BFloat16>& passes<BFloat16>();
const TrainingPasses& training_passes();

}  // namespace mmevm
