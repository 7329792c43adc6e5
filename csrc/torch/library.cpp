#include "operators.h"

// libstdc++ would read glibc 2.32's variable, and bind the extension to it, to save shared pointers their atomics while
// there is one thread; in PyTorch there are many.
extern "C" {
char __libc_single_threaded = 0;
}

namespace mmevm {
namespace {

#ifndef MMEVM_CUDA_ARCHITECTURES
#define MMEVM_CUDA_ARCHITECTURES
#endif
#define MMEVM_TEXT(...) #__VA_ARGS__
#define MMEVM_TEXT_OF(...) MMEVM_TEXT(__VA_ARGS__)

// As in TORCH_CUDA_ARCH_LIST, with commas; empty without CUDA kernels.
std::string cuda_architectures() { return MMEVM_TEXT_OF(MMEVM_CUDA_ARCHITECTURES); }

}  // namespace
}  // namespace mmevm

STABLE_TORCH_LIBRARY(mmevm, m) {
  for (const char* schema : mmevm::kSchemas) m.def(schema);
  m.def("_cuda_architectures() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(mmevm, CompositeExplicitAutograd, m) {
  m.impl("_cuda_architectures", TORCH_BOX(&mmevm::cuda_architectures));
}
