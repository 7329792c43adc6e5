#include "map_source.cuh"
#include "passes.cuh"

namespace mmevm::cuda {

const Kernels<MapParams> map_half = make_kernels<__half, MapSource, MapParams>();

}  // namespace mmevm::cuda
