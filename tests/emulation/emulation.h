// Stands in for the CUDA runtime, so that the CPU runs the source of csrc/cuda: the threads of a block are fibers that
// take turns at barriers and warp exchanges, warps in any order that a seed gives. Blocks run one after the other, on
// shared memory that starts as NaN and has a fence behind it. What a GPU would refuse is an error: grids, blocks, shared
// memory and registers beyond its limits, vectors at unsuitable addresses, streams other than the current one. The files
// of csrc/cuda include this one in place of CUDA's headers when MMEVM_CUDA_EMULATION names it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cuda/limits.h"
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

namespace mmevm::emulation {

void check_alignment(const void* address, size_t bytes);

}  // namespace mmevm::emulation

struct Index {
  unsigned x;
};

// A vector that is read or written at its address as one word. Not declared aligned: the compiler would take the check
// for granted.
struct float4 {
  float4() = default;
  float4(float x, float y, float z, float w) : x(x), y(y), z(z), w(w) {}
  float4(const float4& from) : x(from.x), y(from.y), z(from.z), w(from.w) {
    mmevm::emulation::check_alignment(&from, sizeof from);
  }
  float4& operator=(const float4& from) {
    mmevm::emulation::check_alignment(this, sizeof from);
    mmevm::emulation::check_alignment(&from, sizeof from);
    x = from.x, y = from.y, z = from.z, w = from.w;
    return *this;
  }

  float x, y, z, w;
};

namespace mmevm::emulation {

extern Index thread_index, block_index, block_size;
extern float* shared;

// What the emulated GPU is like; see set_machine.
struct Machine {
  cuda::Limits limits{132, 227 * 1024, 228 * 1024, 1024, 65536, 2048, 32};
  int64_t order = 0;
  cudaStream_t stream = nullptr;
};
extern Machine machine;

void block_barrier();
void warp_barrier();
float exchange(float value, int lane_mask);
bool all_of_warp(bool value);
void run(int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream, const std::function<void()>& thread);

}  // namespace mmevm::emulation

#define threadIdx (mmevm::emulation::thread_index)
#define blockIdx (mmevm::emulation::block_index)
#define blockDim (mmevm::emulation::block_size)
#define __syncthreads mmevm::emulation::block_barrier
#define __syncwarp mmevm::emulation::warp_barrier

inline float __shfl_xor_sync(unsigned, float value, int lane_mask) {
  return mmevm::emulation::exchange(value, lane_mask);
}

inline bool __all_sync(unsigned, bool value) { return mmevm::emulation::all_of_warp(value); }

namespace mmevm {

using std::max;
using std::min;

inline float* shared_memory() { return emulation::shared; }
inline float exp2_approx(float x) { return std::exp2(x); }
inline int forget(int v) { return v; }

template <class Params>
cudaError_t launch(void (*kernel)(Params), int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream,
                   const Params& params) {
  emulation::run(blocks, threads, shared_bytes, stream, [&] { kernel(params); });
  return cudaSuccess;
}

namespace cuda {

struct Context {
  explicit Context(const Tensor&) {}
  cudaStream_t stream() const { return emulation::machine.stream; }
  Limits limits() const { return emulation::machine.limits; }
};

inline void check(cudaError_t) {}

}  // namespace cuda
}  // namespace mmevm
