#include "map_source.cuh"
#include "passes.cuh"

namespace mmevm::cuda {

const Kernels<MapParams> map_float = make_kernels<float, MapSource, MapParams>();

}  // namespace mmevm::cuda
