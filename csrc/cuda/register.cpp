#include "launchers.h"

STABLE_TORCH_LIBRARY_IMPL(mmevm, CUDA, m) {
  mmevm::register_kernels<mmevm::cuda::operators>(m);
}
