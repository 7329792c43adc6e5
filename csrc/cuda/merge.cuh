// The sum of partial results, which PyTorch's would write in float32 before it is converted.
#pragma once

#include "device.cuh"
#include "kernels.h"

namespace mmevm::cuda {

// In the order of the copies, so that every run has the same sum; to elements of T.
template <class T>
cudaError_t merge(const Copies& p, cudaStream_t stream);

}  // namespace mmevm::cuda
