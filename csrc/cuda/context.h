// The device that a launcher works on; tests put their own beside the emulated kernels.
#pragma once

#ifdef MMEVM_CUDA_EMULATION
#include MMEVM_CUDA_EMULATION
#else

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

namespace mmevm::cuda {

// Makes a tensor's device the current one for its lifetime.
struct Context {
  explicit Context(const at::Tensor& first) : guard(first.device()) {}

  cudaStream_t stream() const { return at::cuda::getCurrentCUDAStream(); }
  int multiprocessors() const { return at::cuda::getCurrentDeviceProperties()->multiProcessorCount; }
  size_t shared_bytes() const { return at::cuda::getCurrentDeviceProperties()->sharedMemPerBlockOptin; }

  at::Device device() const { return guard.current_device(); }

  const c10::cuda::CUDAGuard guard;
};

inline void check(cudaError_t error) { C10_CUDA_CHECK(error); }

}  // namespace mmevm::cuda

#endif
