#include "sequence_source.cuh"
#include "passes.cuh"

namespace mmevm::cuda {

const Kernels<SequenceParams> sequence_half = make_kernels<__half, SequenceSource, SequenceParams>();

}  // namespace mmevm::cuda
