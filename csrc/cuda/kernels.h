// Entry points of the CUDA kernels. They see no header of PyTorch; one file per data type, so that they compile in
// parallel.
#pragma once

#include <type_traits>

#include "params.h"

#ifdef MMEVM_CUDA_EMULATION
#include MMEVM_CUDA_EMULATION
#else
#include <cuda_runtime_api.h>
#endif

namespace mmevm::cuda {

// The kernels of one kind of source and one data type. `states` is the number per block: 1, 2, 4, 8 or 16.
template <class Params>
struct Kernels {
  size_t (*shared_bytes)(Pass pass, const Params& p, int states, int threads);
  cudaError_t (*run)(Pass pass, const Params& p, int states, int threads, size_t shared_bytes, cudaStream_t stream);
  cudaError_t (*merge)(const Copies& p, cudaStream_t stream);
};

extern const Kernels<MapParams> map_float, map_half, map_bfloat16;
extern const Kernels<SequenceParams> sequence_float, sequence_half, sequence_bfloat16;

// Turns the local (adjoint) states of all segments in `carry` into those that enter them.
cudaError_t fold_carry(const MapParams& p, bool backward, cudaStream_t stream);
cudaError_t fold_carry(const SequenceParams& p, bool backward, cudaStream_t stream);

}  // namespace mmevm::cuda
