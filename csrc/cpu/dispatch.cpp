#include "dispatch.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>

namespace mmevm {
namespace {

bool supports(const std::string& capability) {
#ifdef __x86_64__
  if (capability == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  if (capability == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return capability == "default";
}

std::string choose() {
  const char* wish = std::getenv("MMEVM_CPU_CAPABILITY");
  if (wish && *wish) {
    TORCH_CHECK_VALUE(supports(wish), "MMEVM_CPU_CAPABILITY must be default, avx2 or avx512 and supported by this processor, "
                      "got ", wish);
    return wish;
  }
  for (const char* name : {"avx512", "avx2"})
    if (supports(name)) return name;
  return "default";
}

}  // namespace

const std::string& cpu_capability() {
  static const std::string capability = choose();
  return capability;
}

template <>
const Kernels<float>& cpu_kernels<float>() {
  if (cpu_capability() == "avx512") return *kernels_avx512;
  if (cpu_capability() == "avx2") return *kernels_avx2;
  return *kernels_default;
}

template <>
const Kernels<double>& cpu_kernels<double>() {
  return *kernels_double;
}

std::vector<Task> make_tasks(int64_t batch, int64_t routes, bool together, int64_t channels, int lanes, int64_t* splits) {
  const int64_t blocks = (channels + lanes - 1) / lanes;
  const int64_t scans = batch * (together ? 1 : routes);
  const int64_t wanted = scans ? (2 * at::get_num_threads() + scans - 1) / scans : 1;
  const int64_t per_split = (blocks + std::min(blocks, wanted) - 1) / std::min(blocks, wanted);
  *splits = (blocks + per_split - 1) / per_split;
  std::vector<Task> tasks;
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t r = 0; r < (together ? 1 : routes); ++r)
      for (int64_t s = 0; s < *splits; ++s)
        tasks.push_back({b, r, together ? routes : 1, s * per_split, std::min(blocks, (s + 1) * per_split), s});
  return tasks;
}

void run_tasks(const std::vector<Task>& tasks, const std::function<void(const Task&)>& fn) {
  at::parallel_for(0, int64_t(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) fn(tasks[i]);
  });
}

}  // namespace mmevm
