// What the kernels use of CUDA beyond the language, in one place, so that tests can run their source without a GPU:
// tests/emulation puts its header here.
#pragma once

#ifdef MMEVM_CUDA_EMULATION
#include MMEVM_CUDA_EMULATION
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace mmevm {

// The block's dynamic shared memory, aligned for float4.
__device__ __forceinline__ float* shared_memory() {
  extern __shared__ float4 memory[];
  return reinterpret_cast<float*>(memory);
}

// 2^x by the special-function unit, two units in the last place, results below 2^-126 flushed to zero.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The same value, of which the compiler knows nothing: what is derived from it is computed again where it is needed,
// instead of being kept in registers until then.
__device__ __forceinline__ int forget(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

// Starts a kernel of one parameter struct; more shared memory than 48 KiB has to be asked for.
template <class Params>
cudaError_t launch(void (*kernel)(Params), int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream,
                   const Params& params) {
  static_assert(sizeof(Params) <= 4096, "larger parameters need a newer driver");
  if (shared_bytes > 48 * 1024) {
    // All that the device has: with a size of its own, a launch could take back what another thread's has asked for.
    int device, most;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    if (error != cudaSuccess) return error;
  }
  kernel<<<unsigned(blocks), threads, shared_bytes, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace mmevm

#endif
