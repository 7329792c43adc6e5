// Registers the CUDA kernels under the schemas of csrc/schemas.h.
#include <torch/library.h>

#include "selective_scan_cuda.h"
#include "visual_scan_cuda.h"

TORCH_LIBRARY_IMPL(mmevm, CUDA, m) {
  m.impl("selective_scan", &mmevm::cuda::selective_scan_forward);
  m.impl("_selective_scan_backward", &mmevm::cuda::selective_scan_backward);
  m.impl("visual_scan", &mmevm::cuda::visual_scan_forward);
  m.impl("_visual_scan_backward", &mmevm::cuda::visual_scan_backward);
}
