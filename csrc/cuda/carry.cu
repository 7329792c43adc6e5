#include "device.cuh"
#include "kernels.h"

namespace mmevm::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kAhead = 8;  // segments that are read together: one by one, each would wait for the memory

__device__ int parameters_of(const MapParams& p, int set) { return p.routes[set].parameters; }
__device__ int parameters_of(const SequenceParams&, int set) { return set; }

// One thread per channel and state walks over the segments. Their last (backward: first) local state is never read: no
// segment follows.
template <class Params, bool kBackward>
__global__ void fold_carry_kernel(const Params p) {
  int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int channel = i % p.channels;
  i /= p.channels;
  const int n = i % p.N;
  i /= p.N;
  const int set = i % p.sets, batch = i / p.sets;
  if (batch >= p.B) return;
  const int64_t row = int64_t(batch) * p.sets + set;
  const int64_t parameter = int64_t(parameters_of(p, set)) * p.channels + channel;
  const float A = kLog2e * p.A[parameter * p.N + n];
  const float* incoming = kBackward ? p.dlast_state : nullptr;
  float* carry = p.carry + (row * p.segments * p.N + n) * p.channels + channel;
  const float* sums = p.carry_delta + row * p.segments * p.channels + channel;
  float h = incoming ? incoming[(row * p.channels + channel) * p.N + n] : 0.f;
  for (int k = 0; k < p.segments; k += kAhead) {
    float* at[kAhead];
    float local[kAhead], sum[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t segment = kBackward ? p.segments - 1 - (k + i) : k + i;
      const bool there = k + i < p.segments - 1;
      at[i] = carry + segment * p.N * p.channels;
      local[i] = there ? *at[i] : 0.f;
      sum[i] = there ? sums[segment * p.channels] : 0.f;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (k + i >= p.segments) break;
      *at[i] = h;
      h = fmaf(exp2_approx(A * sum[i]), h, local[i]);
    }
  }
}

template <class Params>
cudaError_t fold(const Params& p, bool backward, cudaStream_t stream) {
  const int64_t blocks = (int64_t(p.B) * p.sets * p.N * p.channels + kThreads - 1) / kThreads;
  void (*kernel)(Params) = fold_carry_kernel<Params, false>;
  if (backward) kernel = fold_carry_kernel<Params, true>;
  return launch(kernel, blocks, kThreads, 0, stream, p);
}

}  // namespace

cudaError_t fold_carry(const MapParams& p, bool backward, cudaStream_t stream) { return fold(p, backward, stream); }
cudaError_t fold_carry(const SequenceParams& p, bool backward, cudaStream_t stream) { return fold(p, backward, stream); }

}  // namespace mmevm::cuda
