// Stands in for the CUDA runtime, so that the CPU runs the source of csrc/cuda: the threads of a block are fibers that
// take turns at barriers and warp exchanges. Blocks run one after the other, on shared memory that starts as NaN and has
// a fence behind it. The files of csrc/cuda include this one in place of CUDA's headers when MMEVM_CUDA_EMULATION names it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "torch/tensors.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

using __half = torch::headeronly::Half;
using __nv_bfloat16 = torch::headeronly::BFloat16;
inline float __half2float(__half v) { return v; }
inline float __bfloat162float(__nv_bfloat16 v) { return v; }
inline __half __float2half_rn(float v) { return v; }
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return v; }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };

struct Index {
  unsigned x;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace mmevm::emulation {

extern Index thread_index, block_index, block_size;
extern float* shared;

// What the emulated GPU is like, and whether its threads take turns in reversed order.
struct Machine {
  int64_t multiprocessors = 132, shared_bytes = 227 * 1024;
  bool reversed = false;
};
extern Machine machine;

void block_barrier();
void warp_barrier();
float exchange(float value, int lane_mask);
void run(int64_t blocks, int threads, size_t shared_bytes, const std::function<void()>& thread);

}  // namespace mmevm::emulation

#define threadIdx (mmevm::emulation::thread_index)
#define blockIdx (mmevm::emulation::block_index)
#define blockDim (mmevm::emulation::block_size)
#define __syncthreads mmevm::emulation::block_barrier
#define __syncwarp mmevm::emulation::warp_barrier

inline float __shfl_xor_sync(unsigned, float value, int lane_mask) {
  return mmevm::emulation::exchange(value, lane_mask);
}

namespace mmevm {

using std::max;
using std::min;

inline float* shared_memory() { return emulation::shared; }
inline float exp2_approx(float x) { return std::exp2(x); }

template <class Params>
cudaError_t launch(void (*kernel)(Params), int64_t blocks, int threads, size_t shared_bytes, cudaStream_t,
                   const Params& params) {
  emulation::run(blocks, threads, shared_bytes, [&] { kernel(params); });
  return cudaSuccess;
}

namespace cuda {

struct Context {
  explicit Context(const Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
  int multiprocessors() const { return int(emulation::machine.multiprocessors); }
  size_t shared_bytes() const { return size_t(emulation::machine.shared_bytes); }
};

inline void check(cudaError_t) {}

}  // namespace cuda
}  // namespace mmevm
