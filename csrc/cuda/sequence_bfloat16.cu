#include "sequence_source.cuh"
#include "passes.cuh"

namespace mmevm::cuda {

const Kernels<SequenceParams> sequence_bfloat16 = make_kernels<__nv_bfloat16, SequenceSource, SequenceParams>();

}  // namespace mmevm::cuda
