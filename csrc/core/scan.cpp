// Cuts scans into tasks, and runs them on the host's threads.
#include "scan.h"

#include <algorithm>

#include "checks.h"
#include "kernels.h"
#include "tasks.h"
#include "workspace.h"

namespace mmevm {
namespace {

// What differs between a sequence and a map.
template <class T>
const Entry<SequenceParams<T>>& entry(const SequenceParams<T>&) { return kernels<T>().sequence; }
template <class T>
const Entry<MapParams<T>>& entry(const MapParams<T>&) { return kernels<T>().map; }
template <class T>
int lanes(const SequenceParams<T>&) { return kernels<T>().lanes; }
template <class T>
int lanes(const MapParams<T>&) { return kernels<T>().lanes; }

template <class T>
void set_routes(const SequenceParams<T>& p, Plan& plan) { plan.routes = p.G, plan.routes_per_task = 1; }
template <class T>
void set_routes(const MapParams<T>& p, Plan& plan) {
  plan.routes = p.accumulate ? 1 : p.n_routes, plan.routes_per_task = p.accumulate ? p.n_routes : 1;
}

template <class T>
int64_t channels(const SequenceParams<T>& p) { return p.D / p.G; }
template <class T>
int64_t channels(const MapParams<T>& p) { return p.D; }

Task task_of(const Plan& plan, int64_t i) {
  const int64_t split = i % plan.copies, route = i / plan.copies % plan.routes;
  const int64_t block = split * plan.blocks_per_task;
  return {i / plan.copies / plan.routes, route, plan.routes_per_task, block,
          std::min(plan.blocks, block + plan.blocks_per_task), split};
}

}  // namespace

template <class Params>
Plan make_plan(const Params& params, Direction direction, int threads) {
  Plan plan{};
  plan.direction = direction;
  set_routes(params, plan);
  plan.blocks = ceil_div(channels(params), lanes(params));
  const int64_t scans = params.B * plan.routes;
  const int64_t wanted = std::min(plan.blocks, scans ? ceil_div(2 * threads, scans) : 1);
  plan.blocks_per_task = ceil_div(plan.blocks, wanted);
  plan.copies = ceil_div(plan.blocks, plan.blocks_per_task);
  plan.tasks = scans * plan.copies;
  plan.runners = std::min<int64_t>(threads, plan.tasks);
  const size_t bytes = entry(params).scratch(params, direction, plan.blocks_per_task) * sizeof(*params.x);
  plan.runner_bytes = ceil_div(bytes, kAlignment) * kAlignment;
  return plan;
}

template <class Params>
void run(const Params& params, const Plan& plan, const Host& host, void* workspace) {
  char* const scratch = aligned<char>(workspace);
  for_tasks(host, plan.tasks, [&](int64_t runner, int64_t i) {
    entry(params).run(params, plan.direction, task_of(plan, i), scratch + runner * plan.runner_bytes);
  });
}

#define MMEVM_INSTANTIATE(Params)                                 \
  template Plan make_plan(const Params&, Direction, int threads); \
  template void run(const Params&, const Plan&, const Host&, void*);
MMEVM_INSTANTIATE(SequenceParams<float>)
MMEVM_INSTANTIATE(SequenceParams<double>)
MMEVM_INSTANTIATE(MapParams<float>)
MMEVM_INSTANTIATE(MapParams<double>)

}  // namespace mmevm
