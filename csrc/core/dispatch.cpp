// Chooses the kernels of this processor.
#include <cstdlib>
#include <string>

#include "checks.h"
#include "kernels.h"

namespace mmevm {
namespace {

bool supports(const std::string& capability) {
#ifdef __x86_64__
  if (capability == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  if (capability == "avx512bf16") return supports("avx512") && __builtin_cpu_supports("avx512bf16");
  if (capability == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return capability == "default";
}

struct Tables {
  const Kernels<float>* scans;
  PassTables passes;
};

// The best that this processor has, or what MMEVM_CPU_CAPABILITY asks for.
Tables choose() {
  const char* wish = std::getenv("MMEVM_CPU_CAPABILITY");
  if (wish && *wish && !supports(wish))
    fail("MMEVM_CPU_CAPABILITY must be default, avx2, avx512 or avx512bf16 and supported by this processor, got ", wish);
  [[maybe_unused]] const auto takes = [&](const char* name) { return wish && *wish ? wish == std::string(name) : supports(name); };
#ifdef __x86_64__
  if (takes("avx512bf16")) {
    Tables tables{kernels_avx512, *passes_avx512};
    tables.passes.half = *half_avx512bf16;
    return tables;
  }
  if (takes("avx512")) return {kernels_avx512, *passes_avx512};
  if (takes("avx2")) return {kernels_avx2, *passes_avx2};
#endif
  return {kernels_default, *passes_default};
}

const Tables& chosen() {
  static const Tables tables = choose();
  return tables;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() { return *chosen().scans; }
template <>
const Kernels<double>& kernels<double>() { return *kernels_double; }
template <>
const Passes<float>& passes<float>() { return chosen().passes.full; }
template <>
const Passes<BFloat16>& passes<BFloat16>() { return chosen().passes.half; }
const TrainingPasses& training_passes() { return chosen().passes.training; }

}  // namespace mmevm
