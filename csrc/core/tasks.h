// Shares tasks out to the host's threads.
#pragma once

#include <algorithm>
#include <atomic>

#include "scan.h"

namespace mmevm {

// Calls body(runner, task) for every task; each of at most `host.threads` runners takes the next task until there is none.
template <class Body>
void for_tasks(const Host& host, int64_t tasks, const Body& body) {
  struct Call {
    const Body& body;
    int64_t tasks;
    std::atomic<int64_t> next{0};
  } call{body, tasks};
  const auto runner = [](void* argument, int64_t i) {
    auto& call = *static_cast<Call*>(argument);
    for (int64_t task; (task = call.next.fetch_add(1, std::memory_order_relaxed)) < call.tasks;) call.body(i, task);
  };
  const int64_t runners = std::min<int64_t>(host.threads, tasks);
  if (runners == 1) runner(&call, 0);
  else if (runners > 1) host.parallel_for(host.pool, runners, runner, &call);
}

}  // namespace mmevm
