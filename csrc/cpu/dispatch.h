// Chooses the kernels of this processor and cuts the work into tasks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels.h"

namespace mmevm {

// "avx512", "avx2" or "default": the best this processor has, or what MMEVM_CPU_CAPABILITY asks for.
const std::string& cpu_capability();

template <class T>
const Kernels<T>& cpu_kernels();

// Tasks for `batch` x `routes` scans of `channels` channels. Scans that share cells (`together`) form one task; channel
// blocks are split only as far as the threads need, because every split keeps its own sums over channels.
std::vector<Task> make_tasks(int64_t batch, int64_t routes, bool together, int64_t channels, int lanes, int64_t* splits);

// Runs fn on every task with at::parallel_for.
void run_tasks(const std::vector<Task>& tasks, const std::function<void(const Task&)>& fn);

}  // namespace mmevm
