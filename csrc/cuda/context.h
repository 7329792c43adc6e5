// The device that a launcher works on; tests put their own beside the emulated kernels.
#pragma once

#ifdef MMEVM_CUDA_EMULATION
#include MMEVM_CUDA_EMULATION
#else

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "../torch/tensors.h"
#include "limits.h"

namespace mmevm::cuda {

inline void check(cudaError_t error) { STD_CUDA_CHECK(error); }

// Makes a tensor's device the current one for its lifetime.
class Context {
 public:
  explicit Context(const Tensor& first) : device(first.get_device_index()), guard(device) {}

  cudaStream_t stream() const {
    void* stream;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
    return static_cast<cudaStream_t>(stream);
  }

  Limits limits() const {
    return {attribute(cudaDevAttrMultiProcessorCount),
            size_t(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)),
            size_t(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor)),
            size_t(attribute(cudaDevAttrReservedSharedMemoryPerBlock)),
            attribute(cudaDevAttrMaxRegistersPerMultiprocessor),
            attribute(cudaDevAttrMaxThreadsPerMultiProcessor),
            attribute(cudaDevAttrMaxBlocksPerMultiprocessor)};
  }

 private:
  int attribute(cudaDeviceAttr which) const {
    int value;
    check(cudaDeviceGetAttribute(&value, which, device));
    return value;
  }

  const int device;
  const torch::stable::accelerator::DeviceGuard guard;
};

}  // namespace mmevm::cuda

#endif
