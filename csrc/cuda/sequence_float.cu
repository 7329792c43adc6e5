#include "sequence_source.cuh"
#include "passes.cuh"

namespace mmevm::cuda {

const Kernels<SequenceParams> sequence_float = make_kernels<float, SequenceSource, SequenceParams>();

}  // namespace mmevm::cuda
