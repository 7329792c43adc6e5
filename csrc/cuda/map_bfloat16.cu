#include "map_source.cuh"
#include "passes.cuh"

namespace mmevm::cuda {

const Kernels<MapParams> map_bfloat16 = make_kernels<__nv_bfloat16, MapSource, MapParams>();

}  // namespace mmevm::cuda
