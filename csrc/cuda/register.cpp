#include "launchers.h"

namespace mmevm::cuda {
namespace {

#define MMEVM_TEXT(x) #x
#define MMEVM_TEXT_OF(x) MMEVM_TEXT(x)

// What the kernels are compiled for: TORCH_CUDA_ARCH_LIST, with slashes.
std::string architectures() { return MMEVM_TEXT_OF(MMEVM_CUDA_ARCHITECTURES); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(mmevm, m) {
  m.def("_cuda_architectures() -> str");
  m.def(kPlanSchema);
}

STABLE_TORCH_LIBRARY_IMPL(mmevm, CompositeExplicitAutograd, m) {
  m.impl("_cuda_architectures", TORCH_BOX(&architectures));
}

STABLE_TORCH_LIBRARY_IMPL(mmevm, CUDA, m) {
  register_kernels<operators>(m);
  m.impl("_visual_scan_plan", TORCH_BOX(&plan_visual_scan));
}

}  // namespace mmevm::cuda
